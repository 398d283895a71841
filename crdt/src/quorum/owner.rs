//! An owner: one incarnation of a node that wants branches of a section, and holds some.

mod holding;

use std::collections::{BTreeMap, BTreeSet};

use super::{Ballot, Configuration, Lease, Refusal, Reply, Request, Standing, Unsent, majority_of};
use crate::sabotage::{Sabotage, is};
pub use holding::OWED_MAX;
use holding::by_counter;
use holding::{Contact, Holding};

/// What an owner's shell has to do: send, then tell whoever waits.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[must_use = "requests have to be sent, and whoever waits has to be told"]
pub struct Outcome<O, V: Ord, B> {
    /// Requests to send, in this order.
    pub sends: Vec<Unsent<O, V, B>>,
    /// What has become of branches.
    pub events: Vec<Event<O, V, B>>,
}

impl<O, V: Ord, B> Default for Outcome<O, V, B> {
    fn default() -> Self {
        Outcome { sends: Vec::new(), events: Vec::new() }
    }
}

/// What has become of a branch.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Event<O, V: Ord, B> {
    /// It is this owner's, as long as [`Owner::holds`] says so.
    Granted {
        /// What.
        branch: B,
        /// Under which epoch.
        epoch: u64,
    },
    /// It was not had. What was had of it is being released; try again after a while.
    Failed {
        /// What.
        branch: B,
        /// Who holds it, according to the voters that refused: a hint. Empty if none did.
        holders: BTreeSet<O>,
        /// Which voters have not answered.
        silent: BTreeSet<V>,
    },
    /// The lease is gone for good: its authority has ended, and too few voters hold it still.
    Lost {
        /// What.
        branch: B,
        /// Under which epoch it was held.
        epoch: u64,
    },
    /// Another configuration is in force; this owner counts in it from now on.
    Moved(Configuration<V>),
    /// A voter has accepted the configuration after this one, and it has not started: somebody should finish it ([`super::Change`]).
    Unfinished {
        /// The configuration that it follows: this owner's.
        from: Configuration<V>,
        /// The voters that were proposed.
        voters: BTreeSet<V>,
    },
}

/// An attempt at several branches. Each is decided by itself.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Bid<O, V: Ord, B> {
    until: u64,
    /// Who answered the question.
    told: BTreeSet<V>,
    branches: BTreeMap<B, Wish<O, V>>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Wish<O, V: Ord> {
    /// The epoch that it was proposed under, once it was.
    epoch: Option<u64>,
    accepted: BTreeSet<V>,
    /// Who refused, and because of whose lease, if of one.
    refused: BTreeMap<V, Option<O>>,
}

/// An owner of branches in one section. See the [module's essay](super) for the protocol.
///
/// The shell passes in what voters reply, and three kinds of deadline as numbers on its own clock: see [`Owner::attempt`] and [`Owner::renew`]. Before every single write it
/// asks [`Owner::holds`].
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Owner<O, V: Ord, B> {
    me: O,
    configuration: Configuration<V>,
    /// Whether a voter that serves this configuration was heard, so that `highest` is not below what the configuration started from.
    vouched: bool,
    /// The voters of the configuration just before, if this owner counted in it.
    before: BTreeSet<V>,
    counter: u64,
    /// The highest epoch seen.
    highest: u64,
    round: u64,
    /// Until when each round gives authority.
    rounds: BTreeMap<u64, u64>,
    bids: BTreeMap<u64, Bid<O, V, B>>,
    holdings: BTreeMap<B, Holding<V>>,
    /// Those holdings that not every voter holds.
    thin: BTreeSet<B>,
    contacts: BTreeMap<V, Contact<B>>,
}

impl<O: Clone + Ord, V: Clone + Ord, B: Clone + Ord> Owner<O, V, B> {
    /// An owner that holds nothing, in a configuration that it learned from anybody. `me` was never used before.
    pub fn new(me: O, configuration: Configuration<V>) -> Self {
        let contacts = configuration.voters.iter().map(|voter| (voter.clone(), Contact::default())).collect();
        Owner {
            me,
            configuration,
            vouched: false,
            before: BTreeSet::new(),
            counter: 0,
            highest: 0,
            round: 0,
            rounds: BTreeMap::new(),
            bids: BTreeMap::new(),
            holdings: BTreeMap::new(),
            thin: BTreeSet::new(),
            contacts,
        }
    }

    // Getters.

    /// The configuration that it counts in.
    pub fn configuration(&self) -> &Configuration<V> {
        &self.configuration
    }

    /// The epoch under which it may act for a branch at `now`. To be asked just before every write, with a clock that goes on while the machine sleeps.
    pub fn holds(&self, branch: &B, now: u64) -> Option<u64> {
        let holding = self.holdings.get(branch)?;
        (now < holding.until || now < self.until(holding)).then_some(holding.epoch)
    }

    /// Until when it may act for a branch, if it was granted: a deadline of the shell's own making.
    pub fn authority(&self, branch: &B) -> Option<u64> {
        self.holdings.get(branch).map(|holding| self.until(holding))
    }

    /// All branches that were granted and not lost, with their epochs; [`Owner::holds`] says whether it may act for them.
    pub fn granted(&self) -> impl Iterator<Item = (&B, u64)> {
        self.holdings.iter().map(|(branch, holding)| (branch, holding.epoch))
    }

    /// Whether it is trying to get a branch.
    pub fn is_bidding(&self, branch: &B) -> bool {
        self.bids.values().any(|bid| bid.branches.contains_key(branch))
    }

    /// The attempts under way, by their ballots' counters, and whether they still ask, or have proposed all.
    pub fn attempts(&self) -> impl Iterator<Item = (u64, bool)> {
        self.bids.iter().map(|(counter, bid)| (*counter, bid.is_asking()))
    }

    /// Whether a voter holds a branch that was granted, as far as it was heard; `None` for any other branch.
    pub fn is_held_by(&self, branch: &B, voter: &V) -> Option<bool> {
        self.holdings.get(branch).map(|holding| holding.holders.contains(voter))
    }

    /// Which voters have not answered the latest renewal.
    pub fn silent(&self) -> impl Iterator<Item = &V> {
        self.contacts.iter().filter(|(_, contact)| contact.answered < self.round).map(|(voter, _)| voter)
    }

    // Commands.

    /// Tries to get branches: those that it neither holds nor bids for. Authority over what is granted ends at `until`, which the shell derives from its clock *now*, before
    /// the requests leave; a grant that comes later is none.
    #[must_use = "requests have to be sent"]
    pub fn attempt(&mut self, branches: impl IntoIterator<Item = B>, until: u64) -> Vec<Unsent<O, V, B>> {
        let fresh = |branch: &B| !self.holdings.contains_key(branch) && !self.is_bidding(branch);
        let branches: BTreeSet<B> = branches.into_iter().filter(fresh).collect();
        if branches.is_empty() {
            return Vec::new();
        }
        self.counter += 1;
        let wish = |branch: &B| (branch.clone(), Wish { epoch: None, accepted: BTreeSet::new(), refused: BTreeMap::new() });
        let bid = Bid { until, told: BTreeSet::new(), branches: branches.iter().map(wish).collect() };
        self.bids.insert(self.counter, bid);
        let (number, ballot) = (self.configuration.number, self.ballot(self.counter));
        self.to_all(&Request::Ask { number, ballot, branches: branches.into_iter().collect() })
    }

    /// Counts in this configuration from now on, if it is newer: it was learned from anybody.
    pub fn learn(&mut self, configuration: Configuration<V>) -> Outcome<O, V, B> {
        let mut outcome = Outcome::default();
        if configuration.number > self.configuration.number {
            self.move_to(configuration, &mut outcome);
            self.vouched = false;
        }
        outcome
    }

    /// Renews all that it holds, at each voter with one message, and repeats what they have not answered. What a majority answers has authority
    /// until `until`, which the shell derives from its clock *now*, before the requests leave.
    #[must_use = "requests have to be sent"]
    pub fn renew(&mut self, now: u64, until: u64) -> Vec<Unsent<O, V, B>> {
        let idle = |contact: &Contact<B>| contact.owed.is_empty() && !contact.anew;
        if self.holdings.is_empty() && self.bids.is_empty() && self.contacts.values().all(idle) {
            return Vec::new();
        }
        self.round += 1;
        self.rounds.retain(|_, until| now < *until);
        self.rounds.insert(self.round, until);
        let mut sends = Vec::new();
        for (voter, contact) in &self.contacts {
            for (counter, branches) in by_counter(&contact.owed) {
                let request = Request::Release { ballot: self.ballot(counter), branches };
                sends.push(Unsent { to: voter.clone(), request });
            }
            let (number, owner, round) = (self.configuration.number, self.me.clone(), self.round);
            let request = Request::Renew { number, owner, round, heard: contact.standing, anew: contact.anew };
            sends.push(Unsent { to: voter.clone(), request });
        }
        sends
    }

    /// Gives branches up. The shell has already stopped acting for them; from here on [`Owner::holds`] denies them.
    #[must_use = "requests have to be sent"]
    pub fn release(&mut self, branches: impl IntoIterator<Item = B>) -> Vec<Unsent<O, V, B>> {
        let mut released = BTreeSet::new();
        for branch in branches {
            if let Some(holding) = self.drop_holding(&branch) {
                released.insert((holding.counter, branch));
                continue;
            }
            for (counter, bid) in &mut self.bids {
                if bid.branches.remove(&branch).is_some() {
                    released.insert((*counter, branch));
                    break;
                }
            }
        }
        self.bids.retain(|_, bid| !bid.branches.is_empty());
        self.send_release(&released)
    }

    /// Ends what time has ended: attempts that were not granted in time, and leases that can no longer be renewed.
    pub fn expire(&mut self, now: u64) -> Outcome<O, V, B> {
        let mut outcome = Outcome::default();
        let late: Vec<u64> = self.bids.iter().filter(|(_, bid)| bid.until <= now).map(|(counter, _)| *counter).collect();
        for counter in late {
            let branches = self.bids.get(&counter).map(|bid| bid.branches.keys().cloned().collect()).unwrap_or_default();
            self.fail(counter, branches, &mut outcome);
        }
        let gone = |branch: &&B| {
            let holding = self.holdings.get(branch);
            holding.is_some_and(|holding| self.until(holding) <= now && !self.configuration.is_majority(&holding.holders))
        };
        let gone: Vec<B> = self.thin.iter().filter(gone).cloned().collect();
        let mut released = BTreeSet::new();
        for branch in gone {
            let Some(holding) = self.drop_holding(&branch) else { continue };
            released.insert((holding.counter, branch.clone()));
            outcome.events.push(Event::Lost { branch, epoch: holding.epoch });
        }
        outcome.sends.extend(self.send_release(&released));
        outcome
    }

    // Handling.

    /// Takes a voter's reply.
    pub fn handle(&mut self, now: u64, reply: Reply<O, V, B>) -> Outcome<O, V, B> {
        let mut outcome = Outcome::default();
        match reply {
            Reply::Told { voter, number, ballot, highest, taken } if self.concerns(number, &ballot, &voter) => {
                self.told(voter, ballot.counter, highest, taken, &mut outcome);
            }
            Reply::Accepted { voter, number, ballot, epoch, standing, branches } if self.concerns(number, &ballot, &voter) => {
                self.accepted(now, &voter, Lease { ballot, epoch }, standing, branches, &mut outcome);
            }
            Reply::Refused { voter, number, ballot, refusal } if self.concerns(number, &ballot, &voter) => {
                self.refused(voter, ballot.counter, refusal, &mut outcome);
            }
            Reply::Released { voter, ballot, branches } if ballot.owner == self.me => {
                let Some(contact) = self.contacts.get_mut(&voter) else { return outcome };
                for branch in branches {
                    contact.owed.remove(&(ballot.counter, branch));
                }
            }
            Reply::Renewed { voter, number, owner, round, standing, given, settled } if self.is_ours(number, &owner, &voter) => {
                self.renewed(now, &voter, round, standing, given, settled, &mut outcome);
            }
            Reply::Elsewhere { voter, owner, configuration, next, highest } if owner == self.me => {
                self.elsewhere(voter, configuration, next, highest, &mut outcome);
            }
            _ => (),
        }
        outcome
    }

    fn told(&mut self, voter: V, counter: u64, highest: u64, taken: Vec<(B, Lease<O>)>, outcome: &mut Outcome<O, V, B>) {
        let Some(bid) = self.bids.get_mut(&counter).filter(|bid| bid.is_asking()) else { return };
        self.vouched = true;
        self.highest = self.highest.max(highest);
        for (branch, lease) in taken {
            if let Some(wish) = bid.branches.get_mut(&branch).filter(|wish| wish.epoch.is_none()) {
                wish.refused.insert(voter.clone(), Some(lease.ballot.owner));
            }
        }
        bid.told.insert(voter);
        self.propose(counter, outcome);
        self.fail_refused(counter, outcome);
    }

    /// Proposes the branches of an attempt to which a majority is open.
    fn propose(&mut self, counter: u64, outcome: &mut Outcome<O, V, B>) {
        let ballot = self.ballot(counter);
        let Some(bid) = self.bids.get_mut(&counter) else { return };
        let epoch = self.highest + 1;
        let mut branches = Vec::new();
        for (branch, wish) in &mut bid.branches {
            let open = |voter: &V| bid.told.contains(voter) && !wish.refused.contains_key(voter);
            if wish.epoch.is_none() && majority_of(&self.configuration.voters, open) {
                // From here on the answers to the proposal count.
                wish.epoch = Some(epoch);
                wish.refused.clear();
                branches.push(branch.clone());
            }
        }
        if branches.is_empty() {
            return;
        }
        if !bid.is_asking() {
            bid.told.clear();
        }
        self.highest = epoch;
        let number = self.configuration.number;
        outcome.sends.extend(self.to_all(&Request::Propose { number, ballot, epoch, granted: None, branches }));
    }

    fn accepted(&mut self, now: u64, voter: &V, lease: Lease<O>, standing: Standing, branches: Vec<B>, outcome: &mut Outcome<O, V, B>) {
        if !self.meet(voter, standing) && !is(Sabotage::CountsLate) {
            return;
        }
        let Lease { ballot: Ballot { counter, .. }, epoch } = lease;
        let mut unwanted = Vec::new();
        for branch in branches {
            if self.count_holding(now, voter, &branch, counter) || self.count_bid(now, voter, &branch, counter, epoch, outcome) {
                continue;
            }
            unwanted.push(branch);
        }
        if !unwanted.is_empty() {
            outcome.sends.extend(self.owe(voter, counter, unwanted));
        }
    }

    /// Counts a voter as a holder of a lease that is granted already. `false` if there is no such.
    fn count_holding(&mut self, now: u64, voter: &V, branch: &B, counter: u64) -> bool {
        let Some(holding) = self.holdings.get(branch).filter(|holding| holding.counter == counter) else { return false };
        // After a gap others may have held it meanwhile, under a higher epoch.
        if now < self.until(holding) {
            self.change_holders(branch, |holders| holders.insert(voter.clone()));
        }
        true
    }

    /// Counts a voter towards an attempt. `false` if there is no such.
    fn count_bid(&mut self, now: u64, voter: &V, branch: &B, counter: u64, epoch: u64, outcome: &mut Outcome<O, V, B>) -> bool {
        let any = || self.bids.iter().find(|(_, bid)| bid.branches.contains_key(branch)).map(|(counter, _)| *counter);
        let counter = if is(Sabotage::CountsAnyInstance) { any().unwrap_or(counter) } else { counter };
        let Some(bid) = self.bids.get_mut(&counter) else { return false };
        let Some(wish) = bid.branches.get_mut(branch) else { return false };
        if wish.epoch != Some(epoch) && !is(Sabotage::CountsAnyInstance) {
            return true;
        }
        wish.accepted.insert(voter.clone());
        let Some(epoch) = wish.epoch.filter(|_| now < bid.until && self.configuration.is_majority(&wish.accepted)) else { return true };
        let until = bid.until;
        let holders = std::mem::take(&mut wish.accepted);
        bid.branches.remove(branch);
        if bid.branches.is_empty() {
            self.bids.remove(&counter);
        }
        self.holdings.insert(branch.clone(), Holding { counter, epoch, until, holders });
        self.note_thin(branch);
        outcome.events.push(Event::Granted { branch: branch.clone(), epoch });
        true
    }

    fn refused(&mut self, voter: V, counter: u64, refusal: Refusal<O, B>, outcome: &mut Outcome<O, V, B>) {
        let Some(bid) = self.bids.get_mut(&counter) else { return };
        let refused: Vec<(B, Option<O>)> = match refusal {
            Refusal::Taken(taken) => taken.into_iter().map(|(branch, lease)| (branch, Some(lease.ballot.owner))).collect(),
            Refusal::Epoch { highest, branches } => {
                self.highest = self.highest.max(highest);
                branches.into_iter().map(|branch| (branch, None)).collect()
            }
            Refusal::Paused(branches) => branches.into_iter().map(|branch| (branch, None)).collect(),
        };
        for (branch, owner) in refused {
            if let Some(wish) = bid.branches.get_mut(&branch) {
                wish.refused.insert(voter.clone(), owner);
            }
        }
        self.fail_refused(counter, outcome);
    }

    /// Gives up the branches of an attempt that so many voters have refused that no majority is left.
    fn fail_refused(&mut self, counter: u64, outcome: &mut Outcome<O, V, B>) {
        let Some(bid) = self.bids.get(&counter) else { return };
        let voters = &self.configuration.voters;
        let hopeless = |wish: &Wish<O, V>| !majority_of(voters, |voter| !wish.refused.contains_key(voter));
        let branches = bid.branches.iter().filter(|(_, wish)| hopeless(wish)).map(|(branch, _)| branch.clone()).collect();
        self.fail(counter, branches, outcome);
    }

    fn fail(&mut self, counter: u64, branches: Vec<B>, outcome: &mut Outcome<O, V, B>) {
        let Some(bid) = self.bids.get_mut(&counter) else { return };
        let mut released = BTreeSet::new();
        for branch in branches {
            let Some(wish) = bid.branches.remove(&branch) else { continue };
            // What was never proposed is held nowhere.
            if wish.epoch.is_some() {
                released.insert((counter, branch.clone()));
            }
            let answered = |voter: &V| {
                wish.accepted.contains(voter) || wish.refused.contains_key(voter) || wish.epoch.is_none() && bid.told.contains(voter)
            };
            let silent = self.configuration.voters.iter().filter(|voter| !answered(voter)).cloned().collect();
            outcome.events.push(Event::Failed { branch, holders: wish.refused.into_values().flatten().collect(), silent });
        }
        if bid.branches.is_empty() {
            self.bids.remove(&counter);
        }
        outcome.sends.extend(self.send_release(&released));
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one message")]
    fn renewed(
        &mut self,
        now: u64,
        voter: &V,
        round: u64,
        standing: Standing,
        given: Vec<(B, u64)>,
        settled: bool,
        outcome: &mut Outcome<O, V, B>,
    ) {
        let stint = Standing { cleared: u64::MAX, ..standing };
        if !self.meet(voter, stint) {
            return;
        }
        if !is(Sabotage::HeedsNoGiven) {
            for (branch, counter) in given {
                self.given_away(voter, &branch, counter);
            }
        }
        let Some(contact) = self.contacts.get_mut(voter) else { return };
        contact.standing = contact.standing.max(standing);
        contact.answered = contact.answered.max(round);
        contact.settled |= settled;
        outcome.sends.extend(self.spread(now, voter));
    }

    /// Offers a voter the leases that it lacks, as far as they have authority.
    fn spread(&self, now: u64, voter: &V) -> Vec<Unsent<O, V, B>> {
        let Some(contact) = self.contacts.get(voter).filter(|contact| !contact.anew) else { return Vec::new() };
        let mut instances: BTreeMap<(u64, u64), Vec<B>> = BTreeMap::new();
        for branch in &self.thin {
            let Some(holding) = self.holdings.get(branch) else { continue };
            if !holding.holders.contains(voter) && now < self.until(holding) {
                instances.entry((holding.counter, holding.epoch)).or_default().push(branch.clone());
            }
        }
        let (number, granted) = (self.configuration.number, Some(contact.standing));
        let propose = |((counter, epoch), branches)| Request::Propose { number, ballot: self.ballot(counter), epoch, granted, branches };
        instances.into_iter().map(|instance| Unsent { to: voter.clone(), request: propose(instance) }).collect()
    }

    /// A voter serves another configuration than this owner's, or none.
    fn elsewhere(
        &mut self,
        voter: V,
        configuration: Configuration<V>,
        next: Option<BTreeSet<V>>,
        highest: u64,
        outcome: &mut Outcome<O, V, B>,
    ) {
        let ours = self.configuration.number;
        self.highest = self.highest.max(highest);
        if configuration.number > ours {
            self.move_to(configuration, outcome);
        } else if configuration.number < ours && self.vouched && self.configuration.voters.contains(&voter) {
            let request = Request::Start { configuration: self.configuration.clone(), highest: self.highest };
            outcome.sends.push(Unsent { to: voter, request });
        } else if let Some(voters) = next.filter(|_| configuration.number == ours) {
            outcome.events.push(Event::Unfinished { from: configuration, voters });
        }
    }

    /// Counts in another configuration from now on. Attempts end; leases stay, as far as its voters hold them.
    fn move_to(&mut self, configuration: Configuration<V>, outcome: &mut Outcome<O, V, B>) {
        for counter in self.bids.keys().copied().collect::<Vec<_>>() {
            let branches = self.bids.get(&counter).map(|bid| bid.branches.keys().cloned().collect()).unwrap_or_default();
            self.fail(counter, branches, outcome);
        }
        self.fold(|_| true);
        let follows = configuration.number == self.configuration.number + 1;
        let before = std::mem::replace(&mut self.configuration, configuration.clone());
        self.before = if follows { before.voters } else { BTreeSet::new() };
        self.vouched = true;
        self.rounds.clear();
        let mut contacts = std::mem::take(&mut self.contacts);
        for voter in &configuration.voters {
            let contact = contacts.remove(voter).unwrap_or_default();
            self.contacts.insert(voter.clone(), Contact { answered: 0, settled: false, ..contact });
        }
        for branch in self.holdings.keys().cloned().collect::<Vec<_>>() {
            self.change_holders(&branch, |holders| holders.retain(|voter| configuration.voters.contains(voter)));
        }
        outcome.events.push(Event::Moved(configuration));
    }

    // Helpers.

    fn to_all(&self, request: &Request<O, V, B>) -> Vec<Unsent<O, V, B>> {
        self.contacts.keys().map(|voter| Unsent { to: voter.clone(), request: request.clone() }).collect()
    }

    fn ballot(&self, counter: u64) -> Ballot<O> {
        Ballot { counter, owner: self.me.clone() }
    }

    fn is_ours(&self, number: u64, owner: &O, voter: &V) -> bool {
        *owner == self.me && number == self.configuration.number && self.configuration.voters.contains(voter)
    }

    fn concerns(&self, number: u64, ballot: &Ballot<O>, voter: &V) -> bool {
        self.is_ours(number, &ballot.owner, voter)
    }
}

impl<O, V: Ord, B> Bid<O, V, B> {
    /// Whether some branch of it has yet to be proposed.
    fn is_asking(&self) -> bool {
        self.branches.values().any(|wish| wish.epoch.is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Machine = Owner<char, u8, &'static str>;
    type Send = Unsent<char, u8, &'static str>;

    fn configuration(number: u64, voters: [u8; 3]) -> Configuration<u8> {
        Configuration { number, voters: BTreeSet::from(voters) }
    }

    fn owner() -> Machine {
        Owner::new('a', configuration(1, [1, 2, 3]))
    }

    fn ballot(counter: u64) -> Ballot<char> {
        Ballot { counter, owner: 'a' }
    }

    fn standing(run: u64, cleared: u64) -> Standing {
        Standing { run, stint: 1, cleared }
    }

    fn told(voter: u8, counter: u64, highest: u64) -> Reply<char, u8, &'static str> {
        Reply::Told { voter, number: 1, ballot: ballot(counter), highest, taken: Vec::new() }
    }

    fn accepted(voter: u8, counter: u64, standing: Standing) -> Reply<char, u8, &'static str> {
        Reply::Accepted { voter, number: 1, ballot: ballot(counter), epoch: 6, standing, branches: vec!["x"] }
    }

    fn renewed(voter: u8, round: u64, standing: Standing, given: &[(&'static str, u64)]) -> Reply<char, u8, &'static str> {
        Reply::Renewed { voter, number: 1, owner: 'a', round, standing, given: given.to_vec(), settled: true }
    }

    fn to(voters: &[u8], request: Request<char, u8, &'static str>) -> Vec<Send> {
        voters.iter().map(|voter| Unsent { to: *voter, request: request.clone() }).collect()
    }

    fn sends(sends: Vec<Send>) -> Outcome<char, u8, &'static str> {
        Outcome { sends, events: Vec::new() }
    }

    fn nothing() -> Outcome<char, u8, &'static str> {
        Outcome::default()
    }

    /// It holds x by voters 1 and 2, until 10.
    fn holder() -> Machine {
        let mut owner = owner();
        let _ = owner.attempt(["x"], 10);
        let _ = owner.handle(0, told(1, 1, 0));
        let _ = owner.handle(0, told(2, 1, 5));
        let _ = owner.handle(0, accepted(1, 1, standing(1, 0)));
        let _ = owner.handle(0, accepted(2, 1, standing(1, 0)));
        assert_eq!(owner.holds(&"x", 9), Some(6));
        owner
    }

    #[test]
    fn an_attempt_asks_proposes_above_what_it_was_told_and_is_granted_by_distinct_voters() {
        let mut owner = owner();
        let ask = Request::Ask { number: 1, ballot: ballot(1), branches: vec!["x"] };
        assert_eq!(owner.attempt(["x"], 10), to(&[1, 2, 3], ask));
        assert_eq!(owner.attempt(["x"], 10), Vec::new());
        assert_eq!(owner.handle(1, told(2, 1, 5)), nothing());
        assert_eq!(owner.handle(1, told(2, 1, 5)), nothing());
        let propose = Request::Propose { number: 1, ballot: ballot(1), epoch: 6, granted: None, branches: vec!["x"] };
        assert_eq!(owner.handle(1, told(3, 1, 2)), sends(to(&[1, 2, 3], propose)));
        assert_eq!(owner.handle(1, accepted(2, 1, standing(1, 0))), nothing());
        assert_eq!(owner.handle(1, accepted(2, 1, standing(1, 0))), nothing());
        assert_eq!(owner.holds(&"x", 1), None);
        let granted = Outcome { sends: Vec::new(), events: vec![Event::Granted { branch: "x", epoch: 6 }] };
        assert_eq!(owner.handle(1, accepted(1, 1, standing(1, 0))), granted);
        assert_eq!((owner.holds(&"x", 9), owner.holds(&"x", 10)), (Some(6), None));
    }

    #[test]
    fn what_comes_after_the_deadline_is_no_grant_and_is_released() {
        let mut owner = owner();
        let _ = owner.attempt(["x"], 10);
        let _ = owner.handle(0, told(1, 1, 5));
        let _ = owner.handle(0, told(2, 1, 5));
        assert_eq!(owner.handle(9, accepted(1, 1, standing(1, 0))), nothing());
        assert_eq!(owner.handle(10, accepted(2, 1, standing(1, 0))), nothing());
        let release = Request::Release { ballot: ballot(1), branches: vec!["x"] };
        let failed = Event::Failed { branch: "x", holders: BTreeSet::new(), silent: BTreeSet::from([3]) };
        assert_eq!(owner.expire(10), Outcome { sends: to(&[1, 2, 3], release.clone()), events: vec![failed] });
        // Whoever accepts later still is told again; whoever has answered is not.
        assert_eq!(owner.handle(11, Reply::Released { voter: 1, ballot: ballot(1), branches: vec!["x"] }), nothing());
        assert_eq!(owner.handle(11, accepted(3, 1, standing(1, 0))), sends(to(&[3], release.clone())));
        let renew = |heard| Request::Renew { number: 1, owner: 'a', round: 1, heard, anew: false };
        let heard = [to(&[1], renew(standing(1, 0))), to(&[2], release.clone()), to(&[2], renew(standing(1, 0)))];
        let late = [to(&[3], release), to(&[3], renew(standing(1, 0)))];
        assert_eq!(owner.renew(11, 20), [heard.concat(), late.concat()].concat());
    }

    #[test]
    fn who_is_refused_by_too_many_gives_up_and_names_the_holder() {
        let mut owner = owner();
        let _ = owner.attempt(["x"], 10);
        let _ = owner.handle(0, told(1, 1, 5));
        let _ = owner.handle(0, told(2, 1, 5));
        let lease = Lease { ballot: Ballot { counter: 4, owner: 'b' }, epoch: 6 };
        let refused = |voter, refusal| Reply::Refused { voter, number: 1, ballot: ballot(1), refusal };
        assert_eq!(owner.handle(1, refused(1, Refusal::Taken(vec![("x", lease)]))), nothing());
        let release = Request::Release { ballot: ballot(1), branches: vec!["x"] };
        let failed = Event::Failed { branch: "x", holders: BTreeSet::from(['b']), silent: BTreeSet::from([3]) };
        let outcome = owner.handle(1, refused(2, Refusal::Epoch { highest: 8, branches: vec!["x"] }));
        assert_eq!(outcome, Outcome { sends: to(&[1, 2, 3], release), events: vec![failed] });
        // The next attempt begins above what refused this one.
        let _ = owner.attempt(["x"], 20);
        let _ = owner.handle(2, told(1, 2, 5));
        let propose = Request::Propose { number: 1, ballot: ballot(2), epoch: 9, granted: None, branches: vec!["x"] };
        assert_eq!(owner.handle(2, told(3, 2, 0)), sends(to(&[1, 2, 3], propose)));
    }

    #[test]
    fn a_round_counts_by_a_majority_of_those_that_hold() {
        let mut owner = holder();
        let _ = owner.renew(5, 20);
        let _ = owner.handle(6, renewed(1, 1, standing(1, 0), &[]));
        assert_eq!(owner.authority(&"x"), Some(10));
        // Voter 3 lacks it, so its answer counts nothing, and it is offered the lease.
        let spread = Request::Propose { number: 1, ballot: ballot(1), epoch: 6, granted: Some(standing(1, 0)), branches: vec!["x"] };
        assert_eq!(owner.handle(6, renewed(3, 1, standing(1, 0), &[])), sends(to(&[3], spread)));
        assert_eq!(owner.authority(&"x"), Some(10));
        let _ = owner.handle(7, accepted(3, 1, standing(1, 0)));
        assert_eq!(owner.authority(&"x"), Some(20));
    }

    #[test]
    fn what_was_given_away_does_not_count_nor_does_an_older_acceptance() {
        let mut owner = holder();
        let _ = owner.handle(1, accepted(3, 1, standing(1, 0)));
        let _ = owner.renew(5, 20);
        let _ = owner.handle(6, renewed(3, 1, standing(1, 1), &[("x", 1)]));
        let _ = owner.handle(6, accepted(3, 1, standing(1, 0)));
        let _ = owner.handle(6, renewed(1, 1, standing(1, 0), &[]));
        assert_eq!(owner.authority(&"x"), Some(10));
        // One that the voter gave after that does.
        let _ = owner.handle(6, accepted(3, 1, standing(1, 1)));
        assert_eq!(owner.authority(&"x"), Some(20));
    }

    #[test]
    fn a_new_run_voids_what_was_counted_and_after_a_gap_nothing_is_counted_anew() {
        let mut owner = holder();
        let _ = owner.renew(5, 20);
        let spread = Request::Propose { number: 1, ballot: ballot(1), epoch: 6, granted: Some(standing(2, 0)), branches: vec!["x"] };
        assert_eq!(owner.handle(6, renewed(2, 1, standing(2, 0), &[])), sends(to(&[2], spread)));
        assert_eq!(owner.handle(6, accepted(2, 1, standing(1, 0))), nothing());
        let _ = owner.handle(6, renewed(1, 1, standing(1, 0), &[]));
        assert_eq!(owner.authority(&"x"), Some(10));
        let _ = owner.handle(10, accepted(2, 1, standing(2, 0)));
        assert_eq!(owner.authority(&"x"), Some(10));
        let release = Request::Release { ballot: ballot(1), branches: vec!["x"] };
        let lost = Event::Lost { branch: "x", epoch: 6 };
        assert_eq!(owner.expire(10), Outcome { sends: to(&[1, 2, 3], release), events: vec![lost] });
    }

    #[test]
    fn leases_go_on_into_another_configuration_as_far_as_its_voters_hold_them() {
        let mut owner = holder();
        let second = configuration(2, [1, 3, 4]);
        let elsewhere = |voter, number: u64| Reply::Elsewhere {
            voter,
            owner: 'a',
            configuration: if number == 1 { configuration(1, [1, 2, 3]) } else { configuration(2, [1, 3, 4]) },
            next: None,
            highest: 8,
        };
        let moved = Outcome { sends: Vec::new(), events: vec![Event::Moved(second.clone())] };
        assert_eq!(owner.handle(1, elsewhere(1, 2)), moved);
        assert_eq!(owner.holds(&"x", 9), Some(6));
        // Who is behind is told.
        let start = Request::Start { configuration: second, highest: 8 };
        assert_eq!(owner.handle(1, elsewhere(3, 1)), sends(to(&[3], start)));
        let _ = owner.renew(5, 20);
        let renewed = |voter, settled| Reply::Renewed {
            voter,
            number: 2,
            owner: 'a',
            round: 1,
            standing: standing(1, 0),
            given: Vec::new(),
            settled,
        };
        let accepted = Reply::Accepted { voter: 4, number: 2, ballot: ballot(1), epoch: 6, standing: standing(1, 0), branches: vec!["x"] };
        let _ = owner.handle(6, renewed(1, false));
        let _ = owner.handle(6, renewed(4, false));
        let _ = owner.handle(6, accepted);
        // 1 and 4 are no majority of the first configuration, and both still pause.
        assert_eq!(owner.authority(&"x"), Some(10));
        let _ = owner.handle(7, renewed(4, true));
        assert_eq!(owner.authority(&"x"), Some(20));
    }

    #[test]
    fn a_release_is_repeated_until_it_is_answered_and_too_many_are_forgotten_together() {
        let mut owner = Owner::<char, u8, u32>::new('a', configuration(1, [1, 2, 3]));
        let mut claim_and_fail = |now| {
            let _ = owner.attempt(0..=OWED_MAX as u32, now + 1);
            for voter in [1, 2] {
                let ballot = ballot(now + 1);
                let _ = owner.handle(now, Reply::Told { voter, number: 1, ballot, highest: 0, taken: Vec::new() });
            }
            let _ = owner.expire(now + 1);
            let sends = owner.renew(now + 1, 10);
            for voter in [1, 2] {
                let (round, standing) = (now + 1, standing(1, 0));
                let renewed = Reply::Renewed { voter, number: 1, owner: 'a', round, standing, given: Vec::new(), settled: true };
                let _ = owner.handle(now + 1, renewed);
            }
            let is_anew = |unsent: Unsent<_, u8, _>| matches!(unsent.request, Request::Renew { anew: true, .. }).then_some(unsent.to);
            sends.into_iter().filter_map(is_anew).collect::<Vec<_>>()
        };
        // A voter that answers may be owed any number.
        assert!(claim_and_fail(0).is_empty());
        assert!(claim_and_fail(1).is_empty());
        assert_eq!(claim_and_fail(2), [3]);
    }
}
