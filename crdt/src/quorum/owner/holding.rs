//! Which voters hold an owner's leases, as far as it has heard, and until when that gives it authority.

use std::collections::{BTreeMap, BTreeSet};

use super::Owner;
use crate::{
    quorum::{Request, Standing, Unsent, majority_of},
    sabotage::{Sabotage, is},
};

/// How many releases an owner repeats to a voter that does not answer. Beyond it the voter is asked to forget the owner once its leases there have lapsed.
/// A voter that answers is never asked: at all voters at once, that would cost the owner every lease.
pub const OWED_MAX: usize = 10_000;

/// A lease that a majority accepted.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Holding<V: Ord> {
    pub(super) counter: u64,
    pub(super) epoch: u64,
    /// How long it has authority at least, whatever becomes of `holders`.
    pub(super) until: u64,
    /// Which voters hold it, for all that was heard of them.
    pub(super) holders: BTreeSet<V>,
}

/// What is known of a voter.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) struct Contact<B> {
    /// How far it was heard.
    pub(super) standing: Standing,
    /// The last round that it answered, in this configuration.
    pub(super) answered: u64,
    /// Whether its pause at the start of this configuration is over.
    pub(super) settled: bool,
    /// Releases that it has not answered: ballot counter and branch.
    pub(super) owed: BTreeSet<(u64, B)>,
    /// There were too many of those.
    pub(super) anew: bool,
}

impl<B> Default for Contact<B> {
    fn default() -> Self {
        Contact { standing: Standing::default(), answered: 0, settled: false, owed: BTreeSet::new(), anew: false }
    }
}

impl<O: Clone + Ord, V: Clone + Ord, B: Clone + Ord> Owner<O, V, B> {
    /// Until when a lease has authority: by the latest round that voters answered who hold it, and that suffice.
    pub(super) fn until(&self, holding: &Holding<V>) -> u64 {
        let answered = |voter: &V| self.contacts.get(voter).map_or(0, |contact| contact.answered);
        let backed = |round: &u64| self.suffice(|voter| holding.holders.contains(voter) && answered(voter) >= *round);
        let round = holding.holders.iter().map(answered).filter(backed).max().unwrap_or(0);
        holding.until.max(self.rounds.get(&round).copied().unwrap_or(0))
    }

    /// Whether the voters that back a lease, all holding it, keep everybody else from holding it.
    ///
    /// A majority does, of those who hold under this configuration. Somebody might still hold under the one before: not if one of these has got over its pause, nor if they are a majority
    /// of that one too.
    fn suffice(&self, backs: impl Fn(&V) -> bool) -> bool {
        let settled = || self.contacts.iter().any(|(voter, contact)| contact.settled && backs(voter));
        majority_of(&self.configuration.voters, &backs) && (settled() || majority_of(&self.before, &backs) || is(Sabotage::CountsPaused))
    }

    /// Takes note of a voter's standing. `false` if what comes with it is older than what was heard; a new run or stint voids all that was counted there.
    pub(super) fn meet(&mut self, voter: &V, standing: Standing) -> bool {
        let Some(contact) = self.contacts.get(voter) else { return false };
        let known = contact.standing;
        if (standing.run, standing.stint) > (known.run, known.stint) {
            self.void(voter);
            let contact = self.contacts.entry(voter.clone()).or_default();
            contact.standing = Standing { cleared: 0, ..standing };
            contact.answered = 0;
            contact.anew = false;
        }
        standing >= known
    }

    /// Nothing that was counted at a voter counts any more.
    fn void(&mut self, voter: &V) {
        self.fold(|holding| holding.holders.contains(voter));
        for branch in self.holdings.keys().cloned().collect::<Vec<_>>() {
            self.change_holders(&branch, |holders| holders.remove(voter));
        }
        for wish in self.bids.values_mut().flat_map(|bid| bid.branches.values_mut()) {
            wish.accepted.remove(voter);
        }
    }

    pub(super) fn given_away(&mut self, voter: &V, branch: &B, counter: u64) {
        if let Some(wish) = self.bids.get_mut(&counter).and_then(|bid| bid.branches.get_mut(branch)) {
            wish.accepted.remove(voter);
        }
        if self.holdings.get(branch).is_some_and(|holding| holding.counter == counter) {
            self.change_holders(branch, |holders| holders.remove(voter));
        }
    }

    /// Fixes the authority that leases have by the rounds answered so far, before their holders change.
    pub(super) fn fold(&mut self, which: impl Fn(&Holding<V>) -> bool) {
        let until: Vec<(B, u64)> = self
            .holdings
            .iter()
            .filter(|(_, holding)| which(holding))
            .map(|(branch, holding)| (branch.clone(), self.until(holding)))
            .collect();
        for (branch, until) in until {
            if let Some(holding) = self.holdings.get_mut(&branch) {
                holding.until = until;
            }
        }
    }

    /// Changes who holds a lease, keeping the authority that it has.
    pub(super) fn change_holders<R>(&mut self, branch: &B, change: impl FnOnce(&mut BTreeSet<V>) -> R) {
        let Some(until) = self.authority(branch) else { return };
        if let Some(holding) = self.holdings.get_mut(branch) {
            holding.until = until;
            change(&mut holding.holders);
        }
        self.note_thin(branch);
    }

    pub(super) fn note_thin(&mut self, branch: &B) {
        if self.holdings.get(branch).is_some_and(|holding| holding.holders != self.configuration.voters) {
            self.thin.insert(branch.clone());
        } else {
            self.thin.remove(branch);
        }
    }

    pub(super) fn drop_holding(&mut self, branch: &B) -> Option<Holding<V>> {
        self.thin.remove(branch);
        self.holdings.remove(branch)
    }

    /// Tells every voter that instances are given up, and remembers to repeat it.
    pub(super) fn send_release(&mut self, released: &BTreeSet<(u64, B)>) -> Vec<Unsent<O, V, B>> {
        for contact in self.contacts.values_mut() {
            let is_silent = contact.answered + 1 < self.round;
            contact.owe(released.iter().cloned(), is_silent);
        }
        let release = |(counter, branches)| self.to_all(&Request::Release { ballot: self.ballot(counter), branches });
        by_counter(released).into_iter().flat_map(release).collect()
    }

    /// Tells a voter that it holds what nobody wants.
    pub(super) fn owe(&mut self, voter: &V, counter: u64, branches: Vec<B>) -> Option<Unsent<O, V, B>> {
        self.contacts.get_mut(voter)?.owe(branches.iter().map(|branch| (counter, branch.clone())), false);
        Some(Unsent { to: voter.clone(), request: Request::Release { ballot: self.ballot(counter), branches } })
    }
}

impl<B: Ord> Contact<B> {
    fn owe(&mut self, released: impl Iterator<Item = (u64, B)>, is_silent: bool) {
        if self.anew {
            return;
        }
        self.owed.extend(released);
        if is_silent && self.owed.len() > OWED_MAX {
            self.owed.clear();
            self.anew = true;
        }
    }
}

pub(super) fn by_counter<B: Clone + Ord>(released: &BTreeSet<(u64, B)>) -> BTreeMap<u64, Vec<B>> {
    let mut instances: BTreeMap<u64, Vec<B>> = BTreeMap::new();
    for (counter, branch) in released {
        instances.entry(*counter).or_default().push(branch.clone());
    }
    instances
}
