//! Who votes, and how that changes: single-decree Paxos for each number.
//!
//! Configuration n + 1 is chosen by the voters of n. A proposer gathers promises from a majority of them, takes over what the greatest ballot among those
//! had accepted, and otherwise its own wish, and asks the voters of both configurations to endorse that. It is chosen once majorities of
//! both have done so durably. The majority of n is what makes it the only one (Lamport, *Paxos made simple*, 2001); the majority of n + 1 makes sure
//! that nobody hands over to voters that are not there. Whoever has endorsed n + 1 grants and renews nothing under n any more, so the highest epoch that
//! it reports then is its last under n, and the highest of a majority of n is at least that of every grant that was ever made: it goes on
//! with the start.

use std::collections::{BTreeMap, BTreeSet};

use minicbor::{Decode, Encode};

use super::{Ballot, Reply, Request, Unsent, majority_of};

/// The voters of a section, as a numbered step in its history.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode, Decode)]
pub struct Configuration<V: Ord> {
    /// Counted from 1, which is made with the section and has no predecessor; 0 stands for none.
    #[n(0)]
    pub number: u64,
    /// Who votes.
    #[n(1)]
    pub voters: BTreeSet<V>,
}

impl<V: Ord> Default for Configuration<V> {
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
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode, Decode)]
pub struct Proposal<O, V: Ord> {
    /// The number of the configuration that they follow.
    #[n(0)]
    pub after: u64,
    /// Under which ballot.
    #[n(1)]
    pub ballot: Ballot<O>,
    /// Who shall vote.
    #[n(2)]
    pub voters: BTreeSet<V>,
}

/// An attempt to put the next configuration into force, or to finish somebody's.
///
/// The proposer need not be a voter. It keeps nothing durable: what it asked for is under a ballot of its incarnation, which nobody uses again.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Change<O, V: Ord> {
    from: Configuration<V>,
    ballot: Ballot<O>,
    stage: Stage<O, V>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
enum Stage<O, V: Ord> {
    Preparing { wish: BTreeSet<V>, promised: BTreeSet<V>, accepted: Option<Proposal<O, V>> },
    Endorsing { voters: BTreeSet<V>, endorsed: BTreeMap<V, u64> },
    Started { configuration: Configuration<V>, highest: u64 },
    Overruled { by: Ballot<O> },
}

impl<O: Clone + Ord, V: Clone + Ord> Change<O, V> {
    /// Begins to put `wish` in the place of `from`; what to send is what [`Change::repeat`] says. The ballot has to be one that this proposer's incarnation never used; a
    /// greater one than any it has seen, or it will be overruled. `None` for an empty wish, or one that changes nothing.
    pub fn new(from: Configuration<V>, wish: BTreeSet<V>, ballot: Ballot<O>) -> Option<Self> {
        let stage = Stage::Preparing { wish: wish.clone(), promised: BTreeSet::new(), accepted: None };
        (!wish.is_empty() && wish != from.voters).then_some(Change { from, ballot, stage })
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
    #[must_use = "requests have to be sent"]
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

    /// What to say now, and again until it is answered: the present step.
    #[must_use = "requests have to be sent"]
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

#[cfg(test)]
mod tests {
    use super::*;

    fn first() -> Configuration<u8> {
        Configuration { number: 1, voters: BTreeSet::from([1, 2, 3]) }
    }

    const BALLOT: Ballot<char> = Ballot { counter: 2, owner: 'p' };

    fn to(voters: &[u8], request: Request<char, u8, ()>) -> Vec<Unsent<char, u8, ()>> {
        voters.iter().map(|voter| Unsent { to: *voter, request: request.clone() }).collect()
    }

    fn promised(voter: u8, accepted: Option<Proposal<char, u8>>) -> Reply<char, u8, ()> {
        Reply::Promised { voter, after: 1, ballot: BALLOT, accepted }
    }

    fn endorsed(voter: u8, highest: u64) -> Reply<char, u8, ()> {
        Reply::Endorsed { voter, after: 1, ballot: BALLOT, highest }
    }

    #[test]
    fn a_change_needs_majorities_of_both_and_hands_on_the_highest_epoch() {
        let wish = BTreeSet::from([3, 4, 5]);
        let mut change = Change::new(first(), wish.clone(), BALLOT).unwrap();
        assert_eq!(change.repeat(), to(&[1, 2, 3], Request::Prepare { after: 1, ballot: BALLOT }));
        assert_eq!(change.handle(&promised(1, None)), Vec::new());
        let endorse = Request::Endorse(Proposal { after: 1, ballot: BALLOT, voters: wish.clone() });
        assert_eq!(change.handle(&promised(2, None)), to(&[1, 2, 3, 4, 5], endorse));
        assert_eq!(change.handle(&endorsed(1, 7)), Vec::new());
        assert_eq!(change.handle(&endorsed(3, 9)), Vec::new());
        assert_eq!(change.chosen(), None);
        let second = Configuration { number: 2, voters: wish };
        let start = Request::Start { configuration: second.clone(), highest: 9 };
        assert_eq!(change.handle(&endorsed(4, 0)), to(&[1, 2, 3, 4, 5], start));
        assert_eq!(change.chosen(), Some(&second));
    }

    #[test]
    fn what_may_have_been_chosen_is_finished_instead_of_the_wish() {
        let mut change = Change::new(first(), BTreeSet::from([1, 2, 4]), BALLOT).unwrap();
        let accepted =
            |counter, voters| Some(Proposal { after: 1, ballot: Ballot { counter, owner: 'o' }, voters: BTreeSet::from(voters) });
        let _ = change.handle(&promised(1, accepted(0, [1, 5, 6])));
        let theirs = Request::Endorse(Proposal { after: 1, ballot: BALLOT, voters: BTreeSet::from([2, 3, 5]) });
        assert_eq!(change.handle(&promised(3, accepted(1, [2, 3, 5]))), to(&[1, 2, 3, 5], theirs));
    }

    #[test]
    fn a_greater_ballot_overrules() {
        let mut change = Change::new(first(), BTreeSet::from([1, 2, 4]), BALLOT).unwrap();
        let promised = Ballot { counter: 3, owner: 'o' };
        let reply = Reply::<_, _, ()>::Overruled { voter: 1, after: 1, ballot: BALLOT, promised };
        assert_eq!(change.handle(&reply), Vec::new());
        assert_eq!(change.overruled_by(), Some(&promised));
        assert_eq!(Change::new(first(), BTreeSet::new(), BALLOT), None);
        assert_eq!(Change::new(first(), BTreeSet::from([1, 2, 3]), BALLOT), None);
    }
}
