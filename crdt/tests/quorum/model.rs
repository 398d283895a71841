//! ESSAY-MODEL

use std::{
    collections::BTreeSet,
    fmt::Debug,
    hash::{Hash, Hasher},
    sync::{Arc, Mutex},
};

use mangrove_crdt::{
    quorum::{Ballot, Change, Configuration, Event, Owner, Refusal, Reply, Request, Timer, Unsent, Vault, Voter},
    sabotage::{Sabotage, sabotage},
};
use rustc_hash::FxHashMap;
use stateright::{Model, Property};

type O = u8;
type V = u8;
type B = u8;
type TheVoter = Voter<O, V, B>;
type TheOwner = Owner<O, V, B>;
type TheChange = Change<O, V>;

/// Slots for voters: three of the first configuration, one that may come.
const VOTERS: usize = 4;
const OWNERS: usize = 2;
const CHANGES: usize = 2;
/// Words of 64 messages.
const WORDS: usize = 16;

/// Stands for a voter's quarantine and pause among the timers that fire before a request.
const OWN_TIMER: u8 = 1 << OWNERS;

/// A timer that does not run.
const IDLE: u8 = u8::MAX;
/// A timer that may fire: whatever had to fire before it has.
const DUE: u8 = 0;

/// How much may happen in a run. What is 0 or empty never happens.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bounds {
    /// How many branches there are; an owner tries for all that it lacks at once.
    pub branches: u8,
    /// How often each owner tries.
    pub attempts: [u8; OWNERS],
    /// How often each owner renews.
    pub renewals: [u8; OWNERS],
    /// How often each owner gives up all that it has or wants.
    pub releases: [u8; OWNERS],
    /// How often a voter crashes and comes back with its vault.
    pub crashes: u8,
    /// How often a voter loses its vault.
    pub losses: u8,
    /// What two proposers wish to follow the first configuration, each once.
    pub changes: [Option<&'static [V]>; CHANGES],
    /// The first owner holds all from the beginning, by two of three voters.
    pub held: bool,
    /// And whatever was said for that is lost.
    pub quiet: bool,
    /// Clocks are beyond every bound: long timers fire at any time.
    pub beyond: bool,
    /// Questions and their answers travel like all other messages; otherwise an attempt begins with the answers of two voters.
    pub slow_asking: bool,
}

/// What the world does otherwise than it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Wrong {
    /// Nothing.
    #[default]
    Nothing,
    /// A rule of the machines is broken.
    Rule(Sabotage),
    /// Authority is timed from when the quorum was received.
    FromReceipt,
    /// An owner counts messages: who sent them is not looked at.
    CountsMessages,
    /// A voter that comes back votes at once.
    NoQuarantine,
    /// A new configuration does not pause.
    NoPause,
    /// A voter that lost its vault comes back under its id.
    OldName,
    /// What a voter accepts is not made durable.
    Forgetful,
    /// What a voter endorses is not made durable.
    ForgetsEndorsing,
}

/// The whole world: interned machines, timers, every message ever sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct State {
    voters: [u32; VOTERS],
    owners: [u32; OWNERS],
    changes: [u32; CHANGES],
    started: [u8; OWNERS],
    fired: [u8; OWNERS],
    lapse: [[u8; OWNERS]; VOTERS],
    quarantine: [[u8; OWNERS]; VOTERS],
    pause: [[u8; OWNERS]; VOTERS],
    attempts: [u8; OWNERS],
    renewals: [u8; OWNERS],
    releases: [u8; OWNERS],
    crashes: u8,
    losses: u8,
    /// What was granted: branch, epoch, owner.
    grants: u32,
    sent: [u64; WORDS],
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Action {
    /// A request reaches the voter in a slot, just after some of its timers have fired: bits for the owners' and one for its own.
    Ask(u32, u8, u8),
    /// A reply reaches the owner or proposer that it is for.
    Reply(u32),
    /// An owner's next authority timer fires.
    Fire(u8),
    /// An owner tries; which slot's answer it does without.
    Attempt(u8, u8),
    Renew(u8),
    Release(u8),
    Crash(u8),
    LoseVault(u8),
    /// A proposer begins; which slot's promise it does without.
    Propose(u8, u8),
    /// An owner that has done nothing yet hears of the chosen configuration.
    Learn(u8),
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Message {
    /// To a slot; to any, where the request is the same for all.
    Request(Option<V>, Request<O, V, B>),
    Reply(Reply<O, V, B>),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Input {
    Message(u32),
    /// A reply that pretends to come from another voter.
    Disguised(u32, V),
    Lapse(O),
    QuarantineOver,
    PauseOver,
    Crash,
    LoseVault,
    Expire,
    Attempt(u8, u8),
    Renew(u8),
    Release,
}

/// What came of an input at one machine.
#[derive(Clone, Debug, Default)]
struct Step {
    machine: u32,
    sent: Vec<u32>,
    timers: Vec<Timer<O>>,
    granted: Vec<(B, u64)>,
}

/// Numbers for values: machines and messages occur in many states, and are stored, hashed and stepped once.
#[derive(Debug)]
struct Table<T> {
    values: Vec<T>,
    numbers: FxHashMap<T, u32>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Table { values: Vec::new(), numbers: FxHashMap::default() }
    }
}

impl<T: Clone + Eq + Hash> Table<T> {
    fn number(&mut self, value: T) -> u32 {
        if let Some(number) = self.numbers.get(&value) {
            return *number;
        }
        let number = self.values.len() as u32;
        self.values.push(value.clone());
        self.numbers.insert(value, number);
        number
    }

    fn get(&self, number: u32) -> &T {
        &self.values[number as usize]
    }
}

#[derive(Debug, Default)]
struct Tables {
    attempts_max: [u8; OWNERS],
    voters: Table<TheVoter>,
    owners: Table<TheOwner>,
    changes: Table<Option<TheChange>>,
    messages: Table<Message>,
    grants: Table<BTreeSet<(B, u64, O)>>,
    voter_steps: FxHashMap<(u32, Input), Arc<Step>>,
    owner_steps: FxHashMap<(u32, u8, Input), Arc<Step>>,
    change_steps: FxHashMap<(u32, u32), Arc<Step>>,
    /// How each machine came about: what it was, and which input made it what it is.
    voter_origins: FxHashMap<u32, (u32, Input)>,
    owner_origins: FxHashMap<u32, (u32, u8, Input)>,
    renamed_voters: FxHashMap<(u32, Naming), u32>,
    renamed_owners: FxHashMap<(u32, Naming), u32>,
    renamed_messages: FxHashMap<(u32, Naming), u32>,
}

/// All orders of three.
const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

/// Which slot the voter of each slot moves to.
type Naming = [u8; VOTERS];

pub struct Quorum {
    pub bounds: Bounds,
    pub wrong: Wrong,
    /// What has to happen in some run.
    pub reached: &'static [&'static str],
    tables: Mutex<Tables>,
}

fn first() -> Configuration<V> {
    Configuration { number: 1, voters: BTreeSet::from([1, 2, 3]) }
}

impl Quorum {
    pub fn new(bounds: Bounds, wrong: Wrong, reached: &'static [&'static str]) -> Self {
        Quorum { bounds, wrong, reached, tables: Mutex::new(Tables { attempts_max: bounds.attempts, ..Tables::default() }) }
    }

    fn rule(&self) {
        sabotage(match self.wrong {
            Wrong::Rule(rule) => Some(rule),
            _ => None,
        });
    }

    fn tables<R>(&self, with: impl FnOnce(&mut Tables) -> R) -> R {
        with(&mut self.tables.lock().expect("nobody panics with the tables"))
    }

    /// A long timer that starts now: it may not fire before the authority timers that run.
    fn long(&self, state: &State, owner: usize) -> u8 {
        if self.bounds.beyond || state.fired[owner] >= state.started[owner] { DUE } else { state.started[owner] }
    }

    fn long_all(&self, state: &State) -> [u8; OWNERS] {
        [self.long(state, 0), self.long(state, 1)]
    }

    /// Puts the voters that nothing but their names told apart at the beginning into an order of their own, so that states that differ in names only are one.
    fn rename(&self, state: &mut State) {
        // What proposers know is not renamed.
        if self.bounds.changes[0].is_some() {
            return;
        }
        self.tables(|tables| {
            let mut order = [0, 1, 2];
            let mut key = |slot: usize| {
                let mut swap = [0, 1, 2, 3];
                swap.swap(0, slot);
                let machine = tables.rename_voter(self, state.voters[slot], swap);
                (machine, state.lapse[slot], state.quarantine[slot], state.pause[slot])
            };
            let keys: Vec<_> = (0..3).map(&mut key).collect();
            order.sort_by_key(|slot| keys[*slot]);
            let mut best: Option<State> = None;
            for swaps in ORDERS {
                let order = swaps.map(|place| order[place]);
                if !order.is_sorted_by_key(|slot| keys[*slot]) {
                    continue;
                }
                let mut naming = [0, 1, 2, 3];
                for (to, from) in order.into_iter().enumerate() {
                    naming[from] = to as u8;
                }
                let renamed = tables.renamed(self, state, naming);
                if best.as_ref().is_none_or(|best| (renamed.owners, renamed.sent) < (best.owners, best.sent)) {
                    best = Some(renamed);
                }
            }
            *state = best.unwrap_or_else(|| state.clone());
        });
    }

    /// Whether a message changes nothing and says nothing new: most do.
    fn is_idle(&self, state: &State, action: Action) -> bool {
        self.tables(|tables| {
            let (before, step) = match action {
                Action::Ask(message, slot, 0) => {
                    let before = state.voters[usize::from(slot)];
                    (before, tables.voter_step(self, before, Input::Message(message)))
                }
                Action::Reply(message) => match tables.addressee(message) {
                    Addressee::Owner(owner) if self.wrong != Wrong::CountsMessages => {
                        let (before, now) = (state.owners[usize::from(owner)], state.fired[usize::from(owner)]);
                        (before, tables.owner_step(self, before, now, Input::Message(message)))
                    }
                    _ => return false,
                },
                _ => return false,
            };
            step.machine == before && step.timers.is_empty() && step.sent.iter().all(|message| state.has(*message))
        })
    }

    fn fire_at_voter(&self, state: &mut State, slot: usize, timers: u8) {
        for owner in 0..OWNERS {
            if timers & 1 << owner != 0 {
                state.lapse[slot][owner] = IDLE;
                self.step_voter(state, slot, Input::Lapse(owner as O));
            }
        }
        if timers & OWN_TIMER == 0 {
            return;
        }
        for (timer, input) in [(&mut state.quarantine, Input::QuarantineOver), (&mut state.pause, Input::PauseOver)] {
            timer[slot] = if timer[slot] == [DUE; OWNERS] { [IDLE; OWNERS] } else { continue };
            let step = self.tables(|tables| tables.voter_step(self, state.voters[slot], input));
            state.voters[slot] = step.machine;
        }
    }

    /// An owner that has nothing and will never try again can do no harm any more, nor can what is sent to it.
    fn retire(&self, state: &mut State) {
        for owner in 0..OWNERS {
            if state.attempts[owner] < self.bounds.attempts[owner] {
                continue;
            }
            self.tables(|tables| {
                if state.owners[owner] as usize == owner {
                    return;
                }
                let machine = tables.owners.get(state.owners[owner]);
                if machine.attempts().next().is_none() && machine.granted().next().is_none() {
                    state.owners[owner] = tables.owners.number(TheOwner::new(owner as O, first()));
                    state.fired[owner] = state.started[owner];
                    state.renewals[owner] = self.bounds.renewals[owner];
                    state.releases[owner] = self.bounds.releases[owner];
                    state.mark_due(owner);
                }
            });
        }
    }

    /// Whether nothing has told the first voters apart so far, or will.
    fn are_voters_alike(&self, state: &State) -> bool {
        let asked = state.messages().next().is_some();
        !asked && self.bounds.crashes + self.bounds.losses == 0 && self.bounds.changes[0].is_none()
    }

    fn step_voter(&self, state: &mut State, slot: usize, input: Input) -> Arc<Step> {
        let step = self.tables(|tables| tables.voter_step(self, state.voters[slot], input));
        state.voters[slot] = step.machine;
        for message in &step.sent {
            state.send(*message);
        }
        for timer in step.timers.iter().copied() {
            match timer {
                Timer::Lapse(owner) => state.lapse[slot][usize::from(owner)] = self.long(state, owner.into()),
                Timer::Pause => state.pause[slot] = if self.wrong == Wrong::NoPause { [DUE; OWNERS] } else { self.long_all(state) },
                Timer::Quarantine => {
                    state.lapse[slot] = [IDLE; OWNERS];
                    state.pause[slot] = [IDLE; OWNERS];
                    state.quarantine[slot] = if self.wrong == Wrong::NoQuarantine { [DUE; OWNERS] } else { self.long_all(state) };
                }
            }
        }
        step
    }

    fn step_owner(&self, state: &mut State, owner: usize, input: Input) -> Arc<Step> {
        let now = state.fired[owner];
        let step = self.tables(|tables| {
            let step = tables.owner_step(self, state.owners[owner], now, input);
            if !step.granted.is_empty() {
                let mut grants = tables.grants.get(state.grants).clone();
                grants.extend(step.granted.iter().map(|(branch, epoch)| (*branch, *epoch, owner as O)));
                state.grants = tables.grants.number(grants);
            }
            step
        });
        state.owners[owner] = step.machine;
        if self.wrong == Wrong::FromReceipt && !step.granted.is_empty() {
            state.started[owner] += 1;
        }
        for message in &step.sent {
            state.send(*message);
        }
        step
    }

    fn chosen(&self, state: &State) -> Option<Configuration<V>> {
        self.tables(|tables| state.changes.iter().find_map(|change| tables.changes.get(*change).as_ref()?.chosen().cloned()))
    }

    fn step_change(&self, state: &mut State, proposer: usize, reply: u32) {
        let step = self.tables(|tables| tables.change_step(state.changes[proposer], reply));
        state.changes[proposer] = step.machine;
        step.sent.iter().for_each(|message| state.send(*message));
    }

    /// Drops messages that can change nothing any more: see the essay.
    fn forget_spent(&self, state: &mut State) {
        let spent: Vec<u32> = self.tables(|tables| state.messages().filter(|message| tables.is_spent(state, *message)).collect());
        spent.into_iter().for_each(|message| state.unsend(message));
    }
}

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        // Few large pieces: a test build hashes piece by piece.
        let mut bytes = [0; 64];
        let small = [self.started, self.fired, self.attempts, self.renewals, self.releases, [self.crashes, self.losses]];
        let small = small.iter().chain(&self.lapse).chain(&self.quarantine).chain(&self.pause).flatten();
        bytes.iter_mut().zip(small).for_each(|(byte, small)| *byte = *small);
        hasher.write(&bytes);
        (self.voters, self.owners, self.changes, self.grants).hash(hasher);
        self.sent.hash(hasher);
    }
}

impl State {
    fn send(&mut self, message: u32) {
        self.sent[message as usize / 64] |= 1 << (message % 64);
    }

    fn has(&self, message: u32) -> bool {
        self.sent[message as usize / 64] & 1 << (message % 64) != 0
    }

    fn unsend(&mut self, message: u32) {
        self.sent[message as usize / 64] &= !(1 << (message % 64));
    }

    /// Marks the long timers that no longer wait for an owner.
    fn mark_due(&mut self, owner: usize) {
        let fired = self.fired[owner];
        for timers in self.lapse.iter_mut().chain(&mut self.quarantine).chain(&mut self.pause) {
            if timers[owner] != IDLE && timers[owner] <= fired {
                timers[owner] = DUE;
            }
        }
    }

    /// A request at a voter, with every choice of timers that may fire just before.
    fn push_asks(&self, message: u32, slot: u8, actions: &mut Vec<Action>) {
        let at = usize::from(slot);
        let own = [self.quarantine[at], self.pause[at]].contains(&[DUE; OWNERS]);
        let lapse = |owner: usize| u8::from(self.lapse[at][owner] == DUE) << owner;
        let may = lapse(0) | lapse(1) | if own { OWN_TIMER } else { 0 };
        actions.extend((0..=may).filter(|timers| timers & !may == 0).map(|timers| Action::Ask(message, slot, timers)));
    }

    fn messages(&self) -> impl Iterator<Item = u32> + '_ {
        let mut word = 0;
        let mut bits = self.sent[0];
        std::iter::from_fn(move || {
            while bits == 0 {
                word += 1;
                bits = *self.sent.get(word)?;
            }
            let bit = bits.trailing_zeros();
            bits &= bits - 1;
            Some(word as u32 * 64 + bit)
        })
    }
}

fn counts(message: &Message) -> Option<(O, u64, bool)> {
    // Whose attempt, and whether it is only of interest while that asks.
    match message {
        Message::Request(_, Request::Ask { ballot, .. }) | Message::Reply(Reply::Told { ballot, .. }) => {
            Some((ballot.owner, ballot.counter, true))
        }
        Message::Reply(Reply::Refused { ballot, .. }) => Some((ballot.owner, ballot.counter, false)),
        _ => None,
    }
}

impl Tables {
    fn is_spent(&self, state: &State, message: u32) -> bool {
        if matches!(self.messages.get(message), Message::Reply(Reply::Released { .. })) {
            return true;
        }
        if let Message::Reply(Reply::Promised { ballot, .. } | Reply::Endorsed { ballot, .. } | Reply::Overruled { ballot, .. }) =
            self.messages.get(message)
        {
            let change = self.changes.get(state.changes[usize::from(ballot.owner)]).as_ref();
            let promised = matches!(self.messages.get(message), Message::Reply(Reply::Promised { .. }));
            return promised || change.is_some_and(|change| change.chosen().is_some() || change.overruled_by().is_some());
        }
        if let Message::Reply(Reply::Elsewhere { owner, configuration, .. }) = self.messages.get(message) {
            let at = usize::from(*owner);
            let ours = self.owners.get(state.owners[at]).configuration().number;
            if configuration.number == ours && state.attempts[at] == self.attempts_max[at] {
                return true;
            }
        }
        if let Addressee::Owner(owner) = self.addressee(message) {
            // It has retired: machine numbers below this are those of the beginning.
            if state.owners[usize::from(owner)] < OWNERS as u32 && state.started[usize::from(owner)] > 0 {
                return true;
            }
        }
        let Some((owner, counter, asking)) = counts(self.messages.get(message)) else { return false };
        let owner = self.owners.get(state.owners[usize::from(owner)]);
        !owner.attempts().any(|(attempt, asks)| attempt == counter && (asks || !asking))
    }

    fn voter_step(&mut self, model: &Quorum, machine: u32, input: Input) -> Arc<Step> {
        if let Some(step) = self.voter_steps.get(&(machine, input)) {
            return step.clone();
        }
        model.rule();
        let before = self.voters.get(machine).clone();
        let mut voter = before.clone();
        let mut step = Step::default();
        match input {
            Input::Message(message) => {
                let Message::Request(_, request) = self.messages.get(message).clone() else { panic!("not a request") };
                let effects = voter.handle(request);
                assert!(effects.persist || voter.vault() == before.vault(), "the vault changed without a word");
                step.timers = effects.timers;
                for reply in effects.replies {
                    step.sent.push(self.messages.number(Message::Reply(reply)));
                }
            }
            Input::Lapse(owner) => voter.lapse(&owner),
            Input::QuarantineOver => voter.quarantine_over(),
            Input::PauseOver => voter.pause_over(),
            Input::Crash => {
                let mut vault = voter.vault().clone();
                match model.wrong {
                    Wrong::Forgetful => vault.highest = 0,
                    Wrong::ForgetsEndorsing => (vault.accepted, vault.promised) = (None, None),
                    _ => (),
                }
                voter = Voter::restarted(*voter.id(), voter.run() + 1, vault);
                step.timers.push(Timer::Quarantine);
            }
            Input::LoseVault => {
                let run = voter.run() + 1;
                voter = if model.wrong == Wrong::OldName {
                    let vault = Vault { configuration: first(), ..Vault::default() };
                    Voter::restarted(*voter.id(), run, vault)
                } else {
                    Voter::founded(voter.id() + 100, run, Vault::default())
                };
                step.timers.push(Timer::Quarantine);
            }
            input => panic!("{input:?} at a voter"),
        }
        let known = self.voters.values.len() as u32;
        step.machine = self.voters.number(voter);
        if step.machine == known {
            self.voter_origins.insert(known, (machine, input));
        }
        let step = Arc::new(step);
        self.voter_steps.insert((machine, input), step.clone());
        step
    }

    fn owner_step(&mut self, model: &Quorum, machine: u32, now: u8, input: Input) -> Arc<Step> {
        if let Some(step) = self.owner_steps.get(&(machine, now, input)) {
            return step.clone();
        }
        model.rule();
        let mut owner = self.owners.get(machine).clone();
        let mut step = Step::default();
        let sends;
        match input {
            Input::Message(message) | Input::Disguised(message, _) => {
                let Message::Reply(mut reply) = self.messages.get(message).clone() else { panic!("not a reply") };
                if let (Input::Disguised(_, as_voter), Reply::Accepted { voter, .. }) = (input, &mut reply) {
                    *voter = as_voter;
                }
                let outcome = owner.handle(now.into(), reply);
                sends = outcome.sends;
                for event in outcome.events {
                    if let Event::Granted { branch, epoch } = event {
                        step.granted.push((branch, epoch));
                    }
                }
            }
            Input::Expire => sends = owner.expire(now.into()).sends,
            Input::Attempt(branches, until) => sends = owner.attempt(0..branches, until.into()),
            Input::Renew(until) => sends = owner.renew(now.into(), until.into()),
            Input::Release => sends = owner.release(0..8),
            input => panic!("{input:?} at an owner"),
        }
        for unsent in sends {
            step.sent.push(self.outbound(unsent));
        }
        let known = self.owners.values.len() as u32;
        step.machine = self.owners.number(owner);
        if step.machine == known {
            self.owner_origins.insert(known, (machine, now, input));
        }
        let step = Arc::new(step);
        self.owner_steps.insert((machine, now, input), step.clone());
        step
    }

    fn outbound(&mut self, Unsent { to, request }: Unsent<O, V, B>) -> u32 {
        // These say the same to every voter.
        let alike = match &request {
            Request::Ask { .. } | Request::Release { .. } | Request::Propose { granted: None, .. } => true,
            Request::Prepare { .. } | Request::Endorse(_) | Request::Start { .. } => true,
            Request::Propose { granted: Some(_), .. } | Request::Renew { .. } => false,
        };
        self.messages.number(Message::Request((!alike).then_some(to), request))
    }
}

impl Tables {
    fn change_step(&mut self, machine: u32, message: u32) -> Arc<Step> {
        if let Some(step) = self.change_steps.get(&(machine, message)) {
            return step.clone();
        }
        let mut change = self.changes.get(machine).clone();
        let Message::Reply(reply) = self.messages.get(message).clone() else { panic!("not a reply") };
        let sends = change.as_mut().map(|change| change.handle(&reply)).unwrap_or_default();
        let mut step = Step { sent: sends.into_iter().map(|unsent| self.outbound(unsent)).collect(), ..Step::default() };
        step.machine = self.changes.number(change);
        let step = Arc::new(step);
        self.change_steps.insert((machine, message), step.clone());
        step
    }

    fn renamed(&mut self, model: &Quorum, state: &State, naming: Naming) -> State {
        let mut renamed = state.clone();
        for (from, to) in naming.map(usize::from).into_iter().enumerate() {
            renamed.voters[to] = self.rename_voter(model, state.voters[from], naming);
            renamed.lapse[to] = state.lapse[from];
            renamed.quarantine[to] = state.quarantine[from];
            renamed.pause[to] = state.pause[from];
        }
        for owner in &mut renamed.owners {
            *owner = self.rename_owner(model, *owner, naming);
        }
        renamed.sent = [0; WORDS];
        for message in state.messages() {
            renamed.send(self.rename_message(message, naming));
        }
        renamed
    }

    /// The machine that would have come about had the voters been named otherwise from the beginning.
    fn rename_voter(&mut self, model: &Quorum, machine: u32, naming: Naming) -> u32 {
        if let Some(renamed) = self.renamed_voters.get(&(machine, naming)) {
            return *renamed;
        }
        let renamed = match self.voter_origins.get(&machine).copied() {
            Some((before, input)) => {
                let (before, input) = (self.rename_voter(model, before, naming), self.rename_input(input, naming));
                self.voter_step(model, before, input).machine
            }
            // The first machines are numbered as their slots.
            None => naming[machine as usize].into(),
        };
        self.renamed_voters.insert((machine, naming), renamed);
        renamed
    }

    fn rename_owner(&mut self, model: &Quorum, machine: u32, naming: Naming) -> u32 {
        if let Some(renamed) = self.renamed_owners.get(&(machine, naming)) {
            return *renamed;
        }
        let renamed = match self.owner_origins.get(&machine).copied() {
            Some((before, now, input)) => {
                let (before, input) = (self.rename_owner(model, before, naming), self.rename_input(input, naming));
                self.owner_step(model, before, now, input).machine
            }
            None => machine,
        };
        self.renamed_owners.insert((machine, naming), renamed);
        renamed
    }

    fn rename_input(&mut self, input: Input, naming: Naming) -> Input {
        match input {
            Input::Message(message) => Input::Message(self.rename_message(message, naming)),
            Input::Disguised(message, voter) => Input::Disguised(self.rename_message(message, naming), named(voter, naming)),
            input => input,
        }
    }

    fn rename_message(&mut self, message: u32, naming: Naming) -> u32 {
        if let Some(renamed) = self.renamed_messages.get(&(message, naming)) {
            return *renamed;
        }
        let mut renamed = self.messages.get(message).clone();
        match &mut renamed {
            Message::Request(Some(voter), _) => *voter = named(*voter, naming),
            Message::Request(None, _) => (),
            Message::Reply(
                Reply::Told { voter, .. }
                | Reply::Accepted { voter, .. }
                | Reply::Refused { voter, .. }
                | Reply::Released { voter, .. }
                | Reply::Renewed { voter, .. }
                | Reply::Elsewhere { voter, .. }
                | Reply::Promised { voter, .. }
                | Reply::Endorsed { voter, .. }
                | Reply::Overruled { voter, .. },
            ) => *voter = named(*voter, naming),
        }
        let renamed = self.messages.number(renamed);
        self.renamed_messages.insert((message, naming), renamed);
        renamed
    }

    /// Who takes a message.
    fn addressee(&self, message: u32) -> Addressee {
        match self.messages.get(message) {
            Message::Request(None, _) => Addressee::AnyVoter,
            Message::Request(Some(voter), _) => Addressee::Voter(voter - 1),
            Message::Reply(reply) => match reply {
                Reply::Told { ballot, .. }
                | Reply::Accepted { ballot, .. }
                | Reply::Refused { ballot, .. }
                | Reply::Released { ballot, .. } => Addressee::Owner(ballot.owner),
                Reply::Renewed { owner, .. } | Reply::Elsewhere { owner, .. } => Addressee::Owner(*owner),
                Reply::Promised { ballot, .. } | Reply::Endorsed { ballot, .. } | Reply::Overruled { ballot, .. } => {
                    Addressee::Proposer(ballot.owner)
                }
            },
        }
    }
}

fn named(voter: V, naming: Naming) -> V {
    let (lost, slot) = (voter / 100 * 100, voter % 100 - 1);
    lost + naming[usize::from(slot)] + 1
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Addressee {
    AnyVoter,
    Voter(u8),
    Owner(u8),
    Proposer(u8),
}

/// Everybody who holds a branch, by owner.
fn holders(tables: &Tables, state: &State, branch: B) -> Vec<(O, u64)> {
    let holds = |owner: usize| {
        let epoch = tables.owners.get(state.owners[owner]).holds(&branch, state.fired[owner].into())?;
        Some((owner as O, epoch))
    };
    (0..OWNERS).filter_map(holds).collect()
}

fn exclusive(model: &Quorum, state: &State) -> bool {
    model.tables(|tables| (0..model.bounds.branches).all(|branch| holders(tables, state, branch).len() <= 1))
}

fn fenced(model: &Quorum, state: &State) -> bool {
    model.tables(|tables| {
        let grants = tables.grants.get(state.grants);
        grants.iter().all(|(branch, epoch, owner)| grants.iter().all(|(b, e, o)| (b, e) != (branch, epoch) || o == owner))
    })
}

/// Whoever holds a branch does so under the highest epoch that was granted for it.
fn foremost(model: &Quorum, state: &State) -> bool {
    model.tables(|tables| {
        let grants = tables.grants.get(state.grants);
        let newest = |branch: B| grants.iter().filter(|grant| grant.0 == branch).map(|grant| grant.1).max().unwrap_or(0);
        (0..model.bounds.branches).all(|branch| holders(tables, state, branch).iter().all(|(_, epoch)| *epoch == newest(branch)))
    })
}

fn one_of_each_number(model: &Quorum, state: &State) -> bool {
    model.tables(|tables| {
        let mut configurations: Vec<Configuration<V>> = Vec::new();
        configurations.extend(state.voters.iter().map(|voter| tables.voters.get(*voter).vault().configuration.clone()));
        configurations.extend(state.owners.iter().map(|owner| tables.owners.get(*owner).configuration().clone()));
        let changes = state.changes.iter().filter_map(|change| tables.changes.get(*change).as_ref()?.chosen().cloned());
        configurations.extend(changes);
        configurations.iter().all(|a| configurations.iter().all(|b| a.number != b.number || a == b))
    })
}

fn any_message(model: &Quorum, state: &State, is: impl Fn(&Message) -> bool) -> bool {
    model.tables(|tables| state.messages().any(|message| is(tables.messages.get(message))))
}

fn any_holder(model: &Quorum, state: &State, is: impl Fn(&Tables, &State, O, B, u64) -> bool) -> bool {
    model.tables(|tables| {
        (0..model.bounds.branches)
            .any(|branch| holders(tables, state, branch).into_iter().any(|(owner, epoch)| is(tables, state, owner, branch, epoch)))
    })
}

fn granted(model: &Quorum, state: &State) -> bool {
    any_holder(model, state, |_, _, _, _, _| true)
}

fn renewed(model: &Quorum, state: &State) -> bool {
    any_holder(model, state, |_, state, owner, _, _| state.attempts[usize::from(owner)] <= state.fired[usize::from(owner)])
}

fn given_away(model: &Quorum, state: &State) -> bool {
    any_message(model, state, |message| matches!(message, Message::Reply(Reply::Renewed { given, .. }) if !given.is_empty()))
}

fn taken_over(model: &Quorum, state: &State) -> bool {
    any_holder(model, state, |tables, state, owner, branch, epoch| {
        tables.grants.get(state.grants).iter().any(|(b, e, o)| *b == branch && *e < epoch && *o != owner)
    })
}

fn had_again(model: &Quorum, state: &State) -> bool {
    any_holder(model, state, |_, _, owner, _, epoch| epoch > 1 && state.releases[usize::from(owner)] > 0)
}

fn spread(model: &Quorum, state: &State) -> bool {
    // An acceptance by a voter in its second run, of what was granted before it had answered anything: only what is spread is.
    any_message(
        model,
        state,
        |message| matches!(message, Message::Request(_, Request::Propose { granted: Some(heard), .. }) if heard.run == 2),
    ) && any_message(model, state, |message| matches!(message, Message::Reply(Reply::Accepted { standing, .. }) if standing.run == 2))
}

fn refused_by_epoch(model: &Quorum, state: &State) -> bool {
    any_message(model, state, |message| matches!(message, Message::Reply(Reply::Refused { refusal: Refusal::Epoch { .. }, .. })))
}

fn moved(tables: &Tables, state: &State, owner: O) -> bool {
    tables.owners.get(state.owners[usize::from(owner)]).configuration().number == 2
}

fn carried_over(model: &Quorum, state: &State) -> bool {
    any_holder(model, state, |tables, state, owner, _, epoch| {
        moved(tables, state, owner) && epoch == 1 && state.fired[usize::from(owner)] >= state.attempts[usize::from(owner)]
    })
}

fn granted_anew(model: &Quorum, state: &State) -> bool {
    any_holder(model, state, |tables, state, owner, _, held| {
        let anew = |message: u32| matches!(tables.messages.get(message), Message::Reply(Reply::Accepted { number: 2, ballot, epoch, .. }) if ballot.owner == owner && *epoch == held);
        epoch_is_new(held) && state.messages().any(anew)
    })
}

/// Not one of the lease that everything begins with, which may be spread in the new configuration.
fn epoch_is_new(epoch: u64) -> bool {
    epoch > 1
}

impl Model for Quorum {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let (mut state, held) = self.tables(|tables| {
            let found = |voter: V| {
                let mut machine = TheVoter::founded(voter, 1, Vault::default());
                if first().voters.contains(&voter) {
                    let effects = machine.handle(Request::Start { configuration: first(), highest: 0 });
                    assert!(effects.persist && effects.timers.is_empty() && effects.replies.is_empty());
                }
                machine
            };
            let voters = [1, 2, 3, 4].map(|voter| tables.voters.number(found(voter)));
            let owners = [0, 1].map(|owner| tables.owners.number(TheOwner::new(owner, first())));
            let none = tables.changes.number(None);
            let state = State {
                voters,
                owners,
                changes: [none; CHANGES],
                started: [0; OWNERS],
                fired: [0; OWNERS],
                lapse: [[IDLE; OWNERS]; VOTERS],
                quarantine: [[IDLE; OWNERS]; VOTERS],
                pause: [[IDLE; OWNERS]; VOTERS],
                attempts: [0; OWNERS],
                renewals: [0; OWNERS],
                releases: [0; OWNERS],
                crashes: 0,
                losses: 0,
                grants: tables.grants.number(BTreeSet::new()),
                sent: [0; WORDS],
            };
            (state, self.bounds.held)
        });
        if held {
            state = self.next_state(&state, Action::Attempt(0, 2)).expect("an attempt");
            for slot in [0, 1] {
                let propose = state.messages().next().expect("a proposal");
                state = self.next_state(&state, Action::Ask(propose, slot, 0)).expect("an acceptance");
            }
            for accepted in state.messages().skip(1).collect::<Vec<_>>() {
                state = self.next_state(&state, Action::Reply(accepted)).expect("a count");
            }
            assert!(granted(self, &state));
            if self.bounds.quiet {
                state.sent = [0; WORDS];
            }
        }
        vec![state]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let slots = if self.bounds.changes[0].is_some() { VOTERS } else { VOTERS - 1 };
        self.tables(|tables| {
            for message in state.messages() {
                match tables.addressee(message) {
                    Addressee::AnyVoter => (0..slots).for_each(|slot| state.push_asks(message, slot as u8, actions)),
                    Addressee::Voter(slot) => state.push_asks(message, slot, actions),
                    Addressee::Owner(_) | Addressee::Proposer(_) => actions.push(Action::Reply(message)),
                }
            }
        });
        for owner in 0..OWNERS {
            let number = owner as u8;
            if state.fired[owner] < state.started[owner] {
                actions.push(Action::Fire(number));
            }
            // Whoever of two equals begins is called the first, and the voter that its first question does not reach the last.
            let begins = state.attempts == [0; OWNERS];
            let alike = self.bounds.attempts[0] == self.bounds.attempts[1] && self.bounds.renewals[0] == self.bounds.renewals[1];
            let second = begins && alike && self.bounds.releases[0] == self.bounds.releases[1] && owner == 1;
            if state.attempts[owner] < self.bounds.attempts[owner] && !second {
                let fixed = self.bounds.slow_asking || begins && self.are_voters_alike(state);
                let from = if fixed { 2 } else { 0 };
                actions.extend((from..3).map(|absent| Action::Attempt(number, absent)));
            }
            if state.renewals[owner] < self.bounds.renewals[owner] {
                actions.push(Action::Renew(number));
            }
            if state.releases[owner] < self.bounds.releases[owner] {
                actions.push(Action::Release(number));
            }
        }
        for slot in 0..slots {
            let number = slot as u8;
            if state.crashes < self.bounds.crashes {
                actions.push(Action::Crash(number));
            }
            if state.losses < self.bounds.losses {
                actions.push(Action::LoseVault(number));
            }
        }
        if state.attempts[1] == 0 && self.bounds.attempts[1] > 0 && state.owners[1] == 1 && self.chosen(state).is_some() {
            actions.push(Action::Learn(1));
        }
        for (proposer, wish) in self.bounds.changes.iter().enumerate() {
            if wish.is_some() && self.tables(|tables| tables.changes.get(state.changes[proposer]).is_none()) {
                actions.extend((0..3).map(|absent| Action::Propose(proposer as u8, absent)));
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        if self.is_idle(last, action) {
            return None;
        }
        let mut state = last.clone();
        match action {
            Action::Ask(message, slot, timers) => {
                let before = state.voters;
                self.fire_at_voter(&mut state, slot.into(), timers);
                let prepared = state.clone();
                self.step_voter(&mut state, slot.into(), Input::Message(message));
                // Timers that change nothing but themselves may as well fire later.
                if state == prepared && state.voters == before {
                    return None;
                }
            }
            Action::Reply(message) => match self.tables(|tables| tables.addressee(message)) {
                Addressee::Proposer(proposer) => {
                    self.step_change(&mut state, proposer.into(), message);
                }
                Addressee::Owner(owner) => {
                    self.step_owner(&mut state, owner.into(), Input::Message(message));
                    if self.wrong == Wrong::CountsMessages {
                        for voter in first().voters {
                            self.step_owner(&mut state, owner.into(), Input::Disguised(message, voter));
                        }
                    }
                }
                addressee => panic!("a reply to {addressee:?}"),
            },
            Action::Fire(owner) => {
                let at = usize::from(owner);
                state.fired[at] += 1;
                state.mark_due(at);
                self.step_owner(&mut state, at, Input::Expire);
            }
            Action::Attempt(owner, absent) => {
                let at = usize::from(owner);
                state.attempts[at] += 1;
                let until = state.started[at] + 1;
                let sent = self.step_owner(&mut state, at, Input::Attempt(self.bounds.branches, until)).sent.clone();
                // Without anything to try for, no authority begins.
                if state.owners[at] == last.owners[at] {
                    return None;
                }
                if self.wrong != Wrong::FromReceipt {
                    state.started[at] = until;
                }
                for slot in (0..3).filter(|slot| !self.bounds.slow_asking && *slot != usize::from(absent)) {
                    let answers = self.step_voter(&mut state, slot, Input::Message(sent[0]));
                    for answer in &answers.sent {
                        self.step_owner(&mut state, at, Input::Message(*answer));
                    }
                }
            }
            Action::Renew(owner) => {
                let at = usize::from(owner);
                state.renewals[at] += 1;
                let until = state.started[at] + 1;
                self.step_owner(&mut state, at, Input::Renew(until));
                if state.owners[at] == last.owners[at] {
                    return None;
                }
                state.started[at] = until;
            }
            Action::Release(owner) => {
                state.releases[usize::from(owner)] += 1;
                self.step_owner(&mut state, owner.into(), Input::Release);
                if state.owners[usize::from(owner)] == last.owners[usize::from(owner)] {
                    return None;
                }
            }
            Action::Crash(slot) => {
                state.crashes += 1;
                self.step_voter(&mut state, slot.into(), Input::Crash);
            }
            Action::LoseVault(slot) => {
                state.losses += 1;
                self.step_voter(&mut state, slot.into(), Input::LoseVault);
            }
            Action::Learn(owner) => {
                let chosen = self.chosen(&state)?;
                state.owners[usize::from(owner)] = self.tables(|tables| tables.owners.number(TheOwner::new(owner, chosen)));
            }
            Action::Propose(proposer, absent) => {
                let at = usize::from(proposer);
                let wish = self.bounds.changes[at].unwrap_or_default().iter().copied().collect();
                let ballot = Ballot { counter: 1, owner: proposer };
                let (change, sends) = TheChange::new(first(), wish, ballot)?;
                let prepare = self.tables(|tables| {
                    state.changes[at] = tables.changes.number(Some(change));
                    tables.outbound(sends.into_iter().next().expect("a majority has to be asked"))
                });
                for slot in (0..3).filter(|slot| *slot != usize::from(absent)) {
                    for promised in &self.step_voter(&mut state, slot, Input::Message(prepare)).sent {
                        self.step_change(&mut state, at, *promised);
                    }
                }
            }
        }
        if state == *last {
            return None;
        }
        if state.owners != last.owners || state.sent != last.sent {
            self.retire(&mut state);
            self.forget_spent(&mut state);
        }
        self.rename(&mut state);
        Some(state)
    }

    fn format_action(&self, action: &Action) -> String {
        match action {
            Action::Ask(message, slot, timers) => {
                format!("to voter {} after timers {timers:b}: {:?}", slot + 1, self.tables(|tables| tables.messages.get(*message).clone()))
            }
            Action::Reply(message) => format!("{:?}", self.tables(|tables| tables.messages.get(*message).clone())),
            action => format!("{action:?}"),
        }
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![Property::always(FENCED, fenced), Property::always(ONE, one_of_each_number)];
        if !self.bounds.beyond {
            properties.extend([Property::always(EXCLUSIVE, exclusive), Property::always(FOREMOST, foremost)]);
        }
        let possible: [(&'static str, fn(&Quorum, &State) -> bool); 9] = [
            ("granted", granted),
            ("taken over", taken_over),
            ("renewed", renewed),
            ("given away", given_away),
            ("had again", had_again),
            ("spread", spread),
            ("refused by epoch", refused_by_epoch),
            ("carried over", carried_over),
            ("granted anew", granted_anew),
        ];
        for name in self.reached {
            let (name, is) = possible.iter().find(|(possible, _)| possible == name).expect("a name of something possible");
            properties.push(Property::sometimes(name, *is));
        }
        properties
    }
}

/// S4a: never two owners that hold one branch.
pub const EXCLUSIVE: &str = "never two owners of one branch";
/// S4b: no epoch of a branch was granted to two owners.
pub const FENCED: &str = "never one epoch for two owners";
/// Whoever holds a branch holds it under the highest epoch ever granted for it.
pub const FOREMOST: &str = "never an owner behind a later grant";
/// No two sets of voters are in force under one number.
pub const ONE: &str = "never two configurations of one number";
