//! Who votes, and how that changes: single-decree Paxos for each number.
//!
//! Configuration n + 1 is chosen by the voters of n. A proposer gathers promises from a majority of them, takes over what the greatest ballot among those
//! had accepted, and otherwise its own wish, and asks the voters of both configurations to endorse that. It is chosen once majorities of
//! both have done so durably. The majority of n is what makes it the only one (Lamport, *Paxos made simple*, 2001); the majority of n + 1 makes sure
//! that nobody hands over to voters that are not there. Whoever has endorsed n + 1 grants and renews nothing under n any more, so the highest epoch that
//! it reports then is its last under n, and the highest of a majority of n is at least that of every grant that was ever made: it goes on
//! with the start.

use std::collections::{BTreeMap, BTreeSet};

use super::{Ballot, Reply, Request, Unsent, majority_of};

/// The voters of a section, as a numbered step in its history.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Configuration<V> {
    /// Counted from 1, which is made with the section and has no predecessor; 0 stands for none.
    pub number: u64,
    /// Who votes.
    pub voters: BTreeSet<V>,
}

impl<V> Default for Configuration<V> {
    fn default() -> Self {
        Configuration { number: 0, voters: BTreeSet::new() }
    }
}

impl<V: Ord> Configuration<V> {
    /// Whether these voters, whoever else is among them, are a majority.
    pub fn is_majority(&self, of: &BTreeSet<V>) -> bool {
        majority_of(&self.voters, |voter| of.contains(voter))
    }
}

/// Voters proposed to follow a configuration.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Proposal<O, V> {
    /// The number of the configuration that they follow.
    pub after: u64,
    /// Under which ballot.
    pub ballot: Ballot<O>,
    /// Who shall vote.
    pub voters: BTreeSet<V>,
}

/// An attempt to put the next configuration into force, or to finish somebody's.
///
/// The proposer need not be a voter. It keeps nothing durable: what it asked for is under a ballot of its incarnation, which nobody uses again.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Change<O, V> {
    from: Configuration<V>,
    ballot: Ballot<O>,
    stage: Stage<O, V>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Stage<O, V> {
    Preparing { wish: BTreeSet<V>, promised: BTreeSet<V>, accepted: Option<Proposal<O, V>> },
    Endorsing { voters: BTreeSet<V>, endorsed: BTreeMap<V, u64> },
    Started { configuration: Configuration<V>, highest: u64 },
    Overruled { by: Ballot<O> },
}

impl<O: Clone + Ord, V: Clone + Ord> Change<O, V> {
    /// Begins to put `wish` in the place of `from`. The ballot has to be one that this proposer's incarnation never used; a greater one than any it
    /// has seen, or it will be overruled. `None` for an empty wish, or one that changes nothing.
    pub fn new<B: Clone>(from: Configuration<V>, wish: BTreeSet<V>, ballot: Ballot<O>) -> Option<(Self, Vec<Unsent<O, V, B>>)> {
        if wish.is_empty() || wish == from.voters {
            return None;
        }
        let prepare = Request::Prepare { after: from.number, ballot: ballot.clone() };
        let sends = from.voters.iter().map(|voter| Unsent { to: voter.clone(), request: prepare.clone() }).collect();
        Some((Change { from, ballot, stage: Stage::Preparing { wish, promised: BTreeSet::new(), accepted: None } }, sends))
    }

    /// The configuration that was chosen, once it was.
    pub fn chosen(&self) -> Option<&Configuration<V>> {
        match &self.stage {
            Stage::Started { configuration, .. } => Some(configuration),
            _ => None,
        }
    }

    /// The greater ballot that this attempt lost to, if it did: another may be made above it.
    pub fn overruled_by(&self) -> Option<&Ballot<O>> {
        match &self.stage {
            Stage::Overruled { by } => Some(by),
            _ => None,
        }
    }

    /// Takes a voter's reply, and says what to send next. Replies to others, and late ones, change nothing.
    pub fn handle<B: Clone>(&mut self, reply: &Reply<O, V, B>) -> Vec<Unsent<O, V, B>> {
        match reply {
            Reply::Promised { voter, after, ballot, accepted } if self.is_mine(*after, ballot) => self.promised(voter, accepted),
            Reply::Endorsed { voter, after, ballot, highest } if self.is_mine(*after, ballot) => self.endorsed(voter, *highest),
            Reply::Overruled { after, ballot, promised, .. } if self.is_mine(*after, ballot) && self.chosen().is_none() => {
                self.stage = Stage::Overruled { by: promised.clone() };
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    /// What has to be said again until it is answered: the present step.
    pub fn repeat<B: Clone>(&self) -> Vec<Unsent<O, V, B>> {
        let (to, request) = match &self.stage {
            Stage::Preparing { .. } => {
                (self.from.voters.clone(), Request::Prepare { after: self.from.number, ballot: self.ballot.clone() })
            }
            Stage::Endorsing { voters, .. } => {
                let proposal = Proposal { after: self.from.number, ballot: self.ballot.clone(), voters: voters.clone() };
                (self.from.voters.union(voters).cloned().collect(), Request::Endorse(proposal))
            }
            Stage::Started { configuration, highest } => {
                let to = self.from.voters.union(&configuration.voters).cloned().collect();
                (to, Request::Start { configuration: configuration.clone(), highest: *highest })
            }
            Stage::Overruled { .. } => return Vec::new(),
        };
        to.into_iter().map(|voter| Unsent { to: voter, request: request.clone() }).collect()
    }

    fn is_mine(&self, after: u64, ballot: &Ballot<O>) -> bool {
        after == self.from.number && *ballot == self.ballot
    }

    fn promised<B: Clone>(&mut self, voter: &V, reported: &Option<Proposal<O, V>>) -> Vec<Unsent<O, V, B>> {
        let Stage::Preparing { wish, promised, accepted } = &mut self.stage else { return Vec::new() };
        promised.insert(voter.clone());
        if reported.as_ref().map(|proposal| &proposal.ballot) > accepted.as_ref().map(|proposal| &proposal.ballot) {
            accepted.clone_from(reported);
        }
        if !self.from.is_majority(promised) {
            return Vec::new();
        }
        let voters = accepted.take().map_or_else(|| wish.clone(), |proposal| proposal.voters);
        self.stage = Stage::Endorsing { voters, endorsed: BTreeMap::new() };
        self.repeat()
    }

    fn endorsed<B: Clone>(&mut self, voter: &V, highest: u64) -> Vec<Unsent<O, V, B>> {
        let Stage::Endorsing { voters, endorsed } = &mut self.stage else { return Vec::new() };
        endorsed.insert(voter.clone(), highest);
        let by = |of: &BTreeSet<V>| majority_of(of, |voter| endorsed.contains_key(voter));
        if !by(&self.from.voters) || !by(voters) {
            return Vec::new();
        }
        let highest = endorsed.values().copied().max().unwrap_or(0);
        let configuration = Configuration { number: self.from.number + 1, voters: std::mem::take(voters) };
        self.stage = Stage::Started { configuration, highest };
        self.repeat()
    }
}
