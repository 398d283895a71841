//! The machines of production, each run once for each thing that can happen to it.

use std::{collections::BTreeSet, hash::Hash, sync::Arc};

use mangrove_crdt::quorum::{Event, Reply, Request, Timer, Unsent, Vault, Voter};
use rustc_hash::FxHashMap;

use crate::model::{B, O, OWNERS, Quorum, State, TheChange, TheOwner, TheVoter, V, VOTERS, WORDS, Wrong, first};

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Message {
    /// To a slot; to any, where the request is the same for all.
    Request(Option<V>, Request<O, V, B>),
    Reply(Reply<O, V, B>),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Input {
    Message(u32),
    /// A reply that pretends to come from another voter.
    Disguised(u32, V),
    Lapse(O),
    QuarantineOver,
    PauseOver,
    Crash,
    LoseVault,
    Expire,
    /// From which branch up to which, until when.
    Attempt(u8, u8, u8),
    Renew(u8),
    Release,
}

/// What came of an input at one machine.
#[derive(Clone, Debug, Default)]
pub struct Step {
    pub machine: u32,
    pub sent: Vec<u32>,
    pub timers: Vec<Timer<O>>,
    pub granted: Vec<(B, u64)>,
}

/// Numbers for values: machines and messages occur in many states, and are stored, hashed and stepped once.
#[derive(Debug)]
pub struct Table<T> {
    pub values: Vec<T>,
    pub numbers: FxHashMap<T, u32>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Table { values: Vec::new(), numbers: FxHashMap::default() }
    }
}

impl<T: Clone + Eq + Hash> Table<T> {
    pub fn number(&mut self, value: T) -> u32 {
        if let Some(number) = self.numbers.get(&value) {
            return *number;
        }
        let number = self.values.len() as u32;
        self.values.push(value.clone());
        self.numbers.insert(value, number);
        number
    }

    pub fn get(&self, number: u32) -> &T {
        &self.values[number as usize]
    }
}

#[derive(Debug, Default)]
pub struct Tables {
    pub attempts_max: [u8; OWNERS],
    pub voters: Table<TheVoter>,
    pub owners: Table<TheOwner>,
    pub changes: Table<Option<TheChange>>,
    pub messages: Table<Message>,
    pub grants: Table<BTreeSet<(B, u64, O)>>,
    pub voter_steps: FxHashMap<(u32, Input), Arc<Step>>,
    pub owner_steps: FxHashMap<(u32, u8, Input), Arc<Step>>,
    pub change_steps: FxHashMap<(u32, u32), Arc<Step>>,
    /// How each machine came about: what it was, and which input made it what it is.
    pub voter_origins: FxHashMap<u32, (u32, Input)>,
    pub owner_origins: FxHashMap<u32, (u32, u8, Input)>,
    pub renamed_voters: FxHashMap<(u32, Naming), u32>,
    pub renamed_owners: FxHashMap<(u32, Naming), u32>,
    pub renamed_messages: FxHashMap<(u32, Naming), u32>,
}

/// All orders of three.
pub const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];

/// Which slot the voter of each slot moves to.
pub type Naming = [u8; VOTERS];

pub fn counts(message: &Message) -> Option<(O, u64, bool)> {
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
    pub fn is_spent(&self, state: &State, message: u32) -> bool {
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

    pub fn voter_step(&mut self, model: &Quorum, machine: u32, input: Input) -> Arc<Step> {
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

    pub fn owner_step(&mut self, model: &Quorum, machine: u32, now: u8, input: Input) -> Arc<Step> {
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
            Input::Attempt(from, to, until) => sends = owner.attempt(from..to, until.into()),
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

    pub fn outbound(&mut self, Unsent { to, request }: Unsent<O, V, B>) -> u32 {
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
    pub fn change_step(&mut self, machine: u32, message: u32) -> Arc<Step> {
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

    pub fn renamed(&mut self, model: &Quorum, state: &State, naming: Naming) -> State {
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
    pub fn rename_voter(&mut self, model: &Quorum, machine: u32, naming: Naming) -> u32 {
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

    pub fn rename_owner(&mut self, model: &Quorum, machine: u32, naming: Naming) -> u32 {
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

    pub fn rename_input(&mut self, input: Input, naming: Naming) -> Input {
        match input {
            Input::Message(message) => Input::Message(self.rename_message(message, naming)),
            Input::Disguised(message, voter) => Input::Disguised(self.rename_message(message, naming), named(voter, naming)),
            input => input,
        }
    }

    pub fn rename_message(&mut self, message: u32, naming: Naming) -> u32 {
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
    pub fn addressee(&self, message: u32) -> Addressee {
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

pub fn named(voter: V, naming: Naming) -> V {
    let (lost, slot) = (voter / 100 * 100, voter % 100 - 1);
    lost + naming[usize::from(slot)] + 1
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Addressee {
    AnyVoter,
    Voter(u8),
    Owner(u8),
    Proposer(u8),
}
