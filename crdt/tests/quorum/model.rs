//! A world for the machines of `mangrove_crdt::quorum`: the very types, nothing rebuilt.
//!
//! # Time
//!
//! There is none, only an order. Each owner's authority timers are numbered in the order in which they were started, and fire in that order: they run on one clock, and all
//! for D_P. "Now" at an owner is how many have fired, and a lease with authority until timer i is held while fewer than i have. A long timer, D_A at a voter or the
//! quarantine of one, may fire once those authority timers have fired that had been started before it: that owner's, and for quarantine and pause every owner's. Nothing else is assumed: timers fire as late as
//! they like, an owner's as early as they like, different owners' in any order.
//!
//! That covers every drift within ±ρ. An authority timer started before a long one ends before it, on whatever two clocks, because D_P (1 + ρ) ≤ D_A (1 − ρ), so each real run is
//! one of these. And it covers suspended processes: a clock that goes on during sleep (`CLOCK_BOOTTIME`) keeps its drift, and what a process does not do in the meantime it may as well do later here. Between
//! an owner's look at its clock and the write that follows nothing can be promised by any lease; that is what epochs fence.
//! With [`Bounds::beyond`] clocks are beyond every bound, and long timers fire at any time; then epochs have to be unique still.
//!
//! # Network
//!
//! Every request and reply ever sent stays, and may reach its addressee at any time, any number of times, in any order, or never. What says the same to all voters is one message that each may receive.
//!
//! # Fewer states for the same runs
//!
//! Interning: machines and messages are numbered, and each step of a machine is computed once ([`crate::machines`]). Left out are states that differ in nothing that matters:
//!
//! - Timers at a voter matter only to its next request, so they fire just before one, in every combination.
//! - Questions, and answers to them, are dropped once the owner has proposed or given up: a question changes nothing at a voter, and an owner looks at answers only while it asks. Refusals are once their attempt is over.
//!   Answers to a release are at once: they only end its repetition, and here a release never gets lost for good. A proposer's answers are once it has won or lost.
//! - What a voter of the owner's own configuration says of an unfinished change is dropped if the owner will not try again: it teaches it nothing but epochs for attempts.
//! - An owner that holds nothing, wants nothing and will not try again is replaced by a fresh one, its timers fire, and what was sent to it is dropped.
//!   What it sent stays. (It might still renew what it has been given without wanting it, which would only keep others out.)
//! - Voters that differ in names only are one: every state is renamed into an order of its own, where no change names them. The renamed machines are those that the renamed history leads to.
//! - Of two owners with equal bounds the one that begins is called the first.
//!
//! Two restrictions are more than that. Unless [`Bounds::slow_asking`], an attempt begins with the answers of some two voters, all of one moment; the proposal may be as late as it likes, so what is left out are
//! questions that see two voters at different times. A proposer gathers promises likewise. And an owner renews only while it holds or wants something.

use std::{
    collections::BTreeSet,
    fmt::Debug,
    hash::{Hash, Hasher},
    sync::{Arc, Mutex},
};

use mangrove_crdt::{
    quorum::{Ballot, Change, Configuration, Owner, Reply, Request, Timer, Vault, Voter},
    sabotage::{Sabotage, sabotage},
};
use stateright::{Model, Property};

use crate::{
    machines::{Addressee, Input, Message, ORDERS, Step, Tables},
    properties,
};

pub type O = u8;
pub type V = u8;
pub type B = u8;
pub type TheVoter = Voter<O, V, B>;
pub type TheOwner = Owner<O, V, B>;
pub type TheChange = Change<O, V>;

/// Slots for voters: three of the first configuration, one that may come.
pub const VOTERS: usize = 4;
pub const OWNERS: usize = 2;
pub const CHANGES: usize = 2;
/// Words of 64 messages.
pub const WORDS: usize = 16;

/// Stands for a voter's quarantine and pause among the timers that fire before a request.
pub const OWN_TIMER: u8 = 1 << OWNERS;

/// A timer that does not run.
pub const IDLE: u8 = u8::MAX;
/// A timer that may fire: whatever had to fire before it has.
pub const DUE: u8 = 0;

/// How much may happen in a run. What is 0 or empty never happens.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bounds {
    /// How many branches there are. The first owner tries for all that it lacks at once, the second for the last.
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
    pub voters: [u32; VOTERS],
    pub owners: [u32; OWNERS],
    pub changes: [u32; CHANGES],
    pub started: [u8; OWNERS],
    pub fired: [u8; OWNERS],
    pub lapse: [[u8; OWNERS]; VOTERS],
    pub quarantine: [[u8; OWNERS]; VOTERS],
    pub pause: [[u8; OWNERS]; VOTERS],
    pub attempts: [u8; OWNERS],
    pub renewals: [u8; OWNERS],
    pub releases: [u8; OWNERS],
    pub crashes: u8,
    pub losses: u8,
    /// What was granted: branch, epoch, owner.
    pub grants: u32,
    pub sent: [u64; WORDS],
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
    /// An owner hears of the chosen configuration: from anybody if it has done nothing yet, else from a voter that serves it and refuses something else.
    Learn(u8),
}

pub struct Quorum {
    pub bounds: Bounds,
    pub wrong: Wrong,
    /// What has to happen in some run.
    pub reached: &'static [&'static str],
    pub tables: Mutex<Tables>,
}

pub fn first() -> Configuration<V> {
    Configuration { number: 1, voters: BTreeSet::from([1, 2, 3]) }
}

impl Quorum {
    pub fn new(bounds: Bounds, wrong: Wrong, reached: &'static [&'static str]) -> Self {
        Quorum { bounds, wrong, reached, tables: Mutex::new(Tables { attempts_max: bounds.attempts, ..Tables::default() }) }
    }

    pub fn rule(&self) {
        sabotage(match self.wrong {
            Wrong::Rule(rule) => Some(rule),
            _ => None,
        });
    }

    pub fn tables<R>(&self, with: impl FnOnce(&mut Tables) -> R) -> R {
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

    pub fn chosen(&self, state: &State) -> Option<Configuration<V>> {
        self.tables(|tables| state.changes.iter().find_map(|change| tables.changes.get(*change).as_ref()?.chosen().cloned()))
    }

    /// What a voter of the second configuration says to the first owner, if that still counts in the first.
    fn refusal(&self, state: &State) -> Option<Reply<O, V, B>> {
        self.tables(|tables| {
            let owner = tables.owners.get(state.owners[0]);
            let serves = |voter: &&TheVoter| voter.vault().configuration.number > owner.configuration().number;
            let voter = state.voters.iter().map(|voter| tables.voters.get(*voter)).find(serves)?;
            let Vault { configuration, highest, .. } = voter.vault().clone();
            Some(Reply::Elsewhere { voter: *voter.id(), owner: 0, configuration, next: None, highest })
        })
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
    pub fn send(&mut self, message: u32) {
        self.sent[message as usize / 64] |= 1 << (message % 64);
    }

    pub fn has(&self, message: u32) -> bool {
        self.sent[message as usize / 64] & 1 << (message % 64) != 0
    }

    pub fn unsend(&mut self, message: u32) {
        self.sent[message as usize / 64] &= !(1 << (message % 64));
    }

    /// Marks the long timers that no longer wait for an owner.
    pub fn mark_due(&mut self, owner: usize) {
        let fired = self.fired[owner];
        for timers in self.lapse.iter_mut().chain(&mut self.quarantine).chain(&mut self.pause) {
            if timers[owner] != IDLE && timers[owner] <= fired {
                timers[owner] = DUE;
            }
        }
    }

    /// A request at a voter, with every choice of timers that may fire just before.
    pub fn push_asks(&self, message: u32, slot: u8, actions: &mut Vec<Action>) {
        let at = usize::from(slot);
        let own = [self.quarantine[at], self.pause[at]].contains(&[DUE; OWNERS]);
        let lapse = |owner: usize| u8::from(self.lapse[at][owner] == DUE) << owner;
        let may = lapse(0) | lapse(1) | if own { OWN_TIMER } else { 0 };
        actions.extend((0..=may).filter(|timers| timers & !may == 0).map(|timers| Action::Ask(message, slot, timers)));
    }

    pub fn messages(&self) -> impl Iterator<Item = u32> + '_ {
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
            assert!(properties::granted(self, &state));
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
        if self.bounds.renewals[0] > 0 && self.refusal(state).is_some() {
            actions.push(Action::Learn(0));
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
                let from = if at == 1 { self.bounds.branches - 1 } else { 0 };
                let sent = self.step_owner(&mut state, at, Input::Attempt(from, self.bounds.branches, until)).sent.clone();
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
            Action::Learn(0) => {
                let refusal = self.refusal(&state)?;
                let number = self.tables(|tables| tables.messages.number(Message::Reply(refusal)));
                self.step_owner(&mut state, 0, Input::Message(number));
            }
            Action::Learn(owner) => {
                let chosen = self.chosen(&state)?;
                state.owners[usize::from(owner)] = self.tables(|tables| tables.owners.number(TheOwner::new(owner, chosen)));
            }
            Action::Propose(proposer, absent) => {
                let at = usize::from(proposer);
                let wish = self.bounds.changes[at].unwrap_or_default().iter().copied().collect();
                let ballot = Ballot { counter: 1, owner: proposer };
                let change = TheChange::new(first(), wish, ballot)?;
                let sends = change.repeat();
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
        properties::all(self)
    }
}
