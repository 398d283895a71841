//! What the node tells of sources, on its way from the reading task to whoever holds them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tokio::sync::watch;

use crate::protocol::{Closed, OwnSource, Response, SourceState};

/// How many states of one source are kept for whoever has not looked for long; the oldest go first. A source that nobody contests has three in its life.
pub(super) const STATES_KEPT_MAX: usize = 256;
/// How many sources may be told of before their numbers are known: as many as a session may have.
const EARLY_MAX: usize = 200_000;

/// A source's states: the newest ones, and how many there have been.
#[derive(Debug, Default)]
pub(super) struct States {
    kept: VecDeque<SourceState>,
    count: u64,
}

impl States {
    fn push(&mut self, state: SourceState) {
        if self.kept.len() == STATES_KEPT_MAX {
            self.kept.pop_front();
        }
        self.kept.push_back(state);
        self.count += 1;
    }

    pub(super) fn newest(&self) -> SourceState {
        self.kept.back().cloned().unwrap_or(SourceState::Init)
    }

    /// How many there have been.
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// The oldest kept state after the first `seen`, and how many have been seen with it.
    pub(super) fn after(&self, seen: u64) -> Option<(SourceState, u64)> {
        let dropped = self.count - self.kept.len() as u64;
        let seen = seen.max(dropped);
        let state = self.kept.get(usize::try_from(seen - dropped).ok()?)?;
        Some((state.clone(), seen + 1))
    }
}

pub(super) type StatesReceiver = watch::Receiver<States>;

/// A source whose number has just become known.
#[derive(Debug)]
pub(super) struct Followed {
    pub(super) number: u32,
    /// Empty for a claim, whose branch the caller knows.
    pub(super) branch: String,
    pub(super) states: StatesReceiver,
    /// How many of them are no news.
    pub(super) seen: u64,
}

/// Whom the states of which source go to.
#[derive(Debug, Default)]
pub(super) struct SourceTable {
    followed: BTreeMap<u32, watch::Sender<States>>,
    /// Requests whose answers will name sources.
    asked: BTreeSet<u64>,
    /// What was told while the answer that names the source was under way. The node judges a session's sources the moment it is taken up again, or
    /// closes one while its claim is being stored; its answer waits for the disk.
    early: BTreeMap<u32, VecDeque<SourceState>>,
}

/// More sources than a session may have.
#[derive(Debug)]
pub(super) struct TooManySources;

impl SourceTable {
    /// A request whose answer names sources.
    pub(super) fn asked(&mut self, request: u64) {
        self.asked.insert(request);
    }

    /// Begins to follow the sources that an answer names. What is told from now on is kept for them.
    pub(super) fn answered(&mut self, request: u64, response: &Response) -> Vec<Followed> {
        self.asked.remove(&request);
        let followed = match response {
            Response::Claimed { source } => vec![self.follow(*source, String::new(), SourceState::Init)],
            Response::Session(session) => {
                let sources = session.sources.iter().cloned();
                sources.map(|OwnSource { source, branch, state }| self.follow(source, branch, state)).collect()
            }
            _ => Vec::new(),
        };
        if self.asked.is_empty() {
            self.early.clear();
        }
        followed
    }

    fn follow(&mut self, number: u32, branch: String, state: SourceState) -> Followed {
        let early = self.early.remove(&number).unwrap_or_default();
        let mut states = States::default();
        // The answer was made when the request was; whatever was told before is older than it, and what came between is newer.
        let place = early.iter().position(|told| *told == state);
        states.push(state);
        let news = early.into_iter().skip(place.map_or(0, |place| place + 1));
        news.for_each(|state| states.push(state));
        let closed = matches!(states.newest(), SourceState::Closed { .. });
        let (sender, receiver) = watch::channel(states);
        if !closed {
            self.followed.insert(number, sender);
        }
        Followed { number, branch, states: receiver, seen: 1 }
    }

    /// A source has another state. Nothing is kept of one that nobody follows: it may have been let go while this was under way.
    pub(super) fn tell(&mut self, number: u32, state: SourceState) -> Result<(), TooManySources> {
        let closed = matches!(state, SourceState::Closed { .. });
        if let Some(sender) = self.followed.get(&number) {
            sender.send_modify(|states| states.push(state));
            if closed {
                self.followed.remove(&number);
            }
        } else if !self.asked.is_empty() {
            if self.early.len() == EARLY_MAX && !self.early.contains_key(&number) {
                return Err(TooManySources);
            }
            let early = self.early.entry(number).or_default();
            if early.len() == STATES_KEPT_MAX {
                early.pop_front();
            }
            early.push_back(state);
        }
        Ok(())
    }

    /// The connection is lost, and the session will be taken up on another: what was handed out before is not to be used any more.
    pub(super) fn suspended(&mut self) {
        for sender in self.followed.values() {
            // The borrow ends before the states change.
            let newest = sender.borrow().newest();
            if let SourceState::Active { epoch } = newest {
                let why = "the connection to its node is lost".into();
                sender.send_modify(|states| states.push(SourceState::Standby { epoch, holder: None, why }));
            }
        }
        self.early.clear();
    }

    /// The session was taken up elsewhere, with these sources: those that are not among them are closed. Gives the numbers of those of which nobody here
    /// knows.
    pub(super) fn resumed(&mut self, sources: &[OwnSource]) -> Vec<u32> {
        let kept: BTreeSet<u32> = sources.iter().map(|own| own.source).collect();
        self.followed.retain(|number, sender| {
            let keep = kept.contains(number);
            if !keep {
                let why = "the node that has the session now does not have it: its section is not held there, or its claim was lost with its node";
                sender.send_modify(|states| states.push(SourceState::Closed { reason: Closed::Removed, why: why.into() }));
            }
            keep
        });
        kept.into_iter().filter(|number| !self.followed.contains_key(number)).collect()
    }

    /// Follows a source no longer, if it is the one that these states are of. Says whether it was.
    pub(super) fn forget(&mut self, number: u32, states: &StatesReceiver) -> bool {
        let own = self.followed.get(&number).is_some_and(|sender| sender.subscribe().same_channel(states));
        if own {
            self.followed.remove(&number);
        }
        own
    }

    /// Nothing will be told any more.
    pub(super) fn clear(&mut self) {
        *self = SourceTable::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::OpenSession;

    fn active(epoch: u64) -> SourceState {
        SourceState::Active { epoch }
    }

    fn drain(followed: &mut Followed) -> Vec<SourceState> {
        std::iter::from_fn(|| {
            let (state, seen) = followed.states.borrow().after(followed.seen)?;
            followed.seen = seen;
            Some(state)
        })
        .collect()
    }

    fn session(sources: Vec<OwnSource>) -> Response {
        Response::Session(Box::new(OpenSession {
            id: Default::default(),
            secret: Default::default(),
            reconnect_timeout_ms: 0,
            sources,
            epoch: 1,
        }))
    }

    #[test]
    fn whoever_does_not_look_keeps_the_newest() {
        let mut table = SourceTable::default();
        table.asked(0);
        let mut followed = table.answered(0, &Response::Claimed { source: 1 }).remove(0);
        for epoch in 1..=STATES_KEPT_MAX as u64 + 10 {
            table.tell(1, active(epoch)).unwrap();
        }
        let states = drain(&mut followed);
        assert_eq!((states.len(), states[0].clone()), (STATES_KEPT_MAX, active(11)));
        assert_eq!(followed.states.borrow().newest(), active(STATES_KEPT_MAX as u64 + 10));
    }

    #[test]
    fn what_is_told_before_the_answer_is_not_lost() {
        let mut table = SourceTable::default();
        let standby = SourceState::Standby { epoch: 3, holder: None, why: "nobody holds the branch at present".into() };
        table.tell(7, active(1)).unwrap();
        table.asked(0);
        table.tell(7, standby.clone()).unwrap();
        table.tell(7, active(4)).unwrap();
        let mut resumed = table.answered(0, &session(vec![OwnSource { source: 7, branch: "a".into(), state: standby }])).remove(0);
        assert_eq!((drain(&mut resumed), resumed.branch.as_str()), (vec![active(4)], "a"), "what nobody waited for was dropped");
        // The answer says what is newer than anything told so far.
        table.asked(1);
        table.tell(8, active(5)).unwrap();
        let mut resumed =
            table.answered(1, &session(vec![OwnSource { source: 8, branch: "b".into(), state: SourceState::Init }])).remove(0);
        assert_eq!(drain(&mut resumed), [active(5)]);
        assert!(table.early.is_empty());
    }

    #[test]
    fn nothing_comes_after_the_end() {
        let mut table = SourceTable::default();
        table.asked(0);
        let mut followed = table.answered(0, &Response::Claimed { source: 1 }).remove(0);
        let closed = SourceState::Closed { reason: Closed::Removed, why: "gone".into() };
        table.tell(1, closed.clone()).unwrap();
        table.tell(1, active(9)).unwrap();
        assert_eq!(drain(&mut followed), [closed]);
        assert!(followed.states.has_changed().is_err(), "its channel ends");
        assert!(!table.forget(1, &followed.states));
    }

    #[test]
    fn a_number_that_is_another_s_now_is_left_alone() {
        let mut table = SourceTable::default();
        let mut claim = |request| {
            table.asked(request);
            table.answered(request, &Response::Claimed { source: 1 }).remove(0)
        };
        let (old, new) = (claim(0), claim(1));
        assert!(!table.forget(1, &old.states));
        assert!(table.forget(1, &new.states));
    }
}
