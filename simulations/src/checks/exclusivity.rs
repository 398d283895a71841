//! S6, L3 and a part of S5: who holds a branch. In an available section two may, or one may hold a branch above another's, while they are apart; once nothing has kept
//! anybody apart for as long as the bound says, between two faults or after the last, one does, and every branch that is claimed has one. And what a process of a node has held under an epoch, no later one holds under the same.

use std::{
    collections::BTreeMap,
    ops::Bound::{Excluded, Unbounded},
};

use mangrove_crdt::{
    id::SessionId,
    path::Path,
    replica::Replica,
    standing::{BranchHash, ClaimRecord, Standing},
};

use super::{Invariant, Violation};
use crate::scenario::Time;

/// Who holds a branch: for each host the session, and its epoch.
type Holding = BTreeMap<usize, (SessionId, u64)>;

/// A branch, a session with its own epoch and home, and the branch's epoch.
type Tenure = (String, (SessionId, u32, usize), u64);

/// A stretch of time in which a session held a branch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Held {
    /// The branch.
    pub branch: String,
    /// Where: which host.
    pub host: usize,
    /// The session.
    pub session: SessionId,
    /// Under which epoch.
    pub epoch: u64,
    /// Since when.
    pub from: Time,
    /// When its node was first seen without it; `None` to the end.
    pub until: Option<Time>,
}

/// Who holds which branch at present, and how long two have.
#[derive(Debug, Default)]
pub struct Holders {
    branches: BTreeMap<String, Holding>,
    /// Since when a branch has had more than one, or one beside that of a branch below.
    double: BTreeMap<String, Time>,
    /// The highest epoch under which each branch was held, and where.
    newest: BTreeMap<String, (u64, usize)>,
    /// The process that each session, at each epoch of its own, held each branch in, under each epoch.
    epochs: BTreeMap<Tenure, u32>,
    /// All that was ever held, in the order in which it began.
    timeline: Vec<Held>,
}

/// What has become of it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Changes {
    /// Branches that have a holder which they had not here, each with its session and epoch.
    pub gained: Vec<(String, SessionId, u64)>,
    /// And under a higher epoch than at another host before.
    pub taken_over: bool,
    /// A branch has two.
    pub doubled: bool,
    /// A branch has one, and so has another below it.
    pub overlapped: bool,
}

impl Holders {
    /// What the sessions of a host's process hold now, and their own epochs. `forgetful`: its disk has lost something that it had said to have.
    ///
    /// # Errors
    /// A session holds a branch again under an epoch of an earlier process.
    pub fn set(
        &mut self,
        at: Time,
        (host, process): (usize, u32),
        forgetful: bool,
        now: BTreeMap<String, (SessionId, u64)>,
        moved: &BTreeMap<SessionId, u32>,
    ) -> Result<Changes, Violation> {
        let mut changes = Changes::default();
        let ended =
            |held: &&mut Held| held.host == host && held.until.is_none() && now.get(&held.branch) != Some(&(held.session, held.epoch));
        self.timeline.iter_mut().filter(ended).for_each(|held| held.until = Some(at));
        for (branch, holding) in &mut self.branches {
            if !now.contains_key(branch) {
                holding.remove(&host);
            }
        }
        for (branch, held) in now {
            let holding = self.branches.entry(branch.clone()).or_default();
            if holding.insert(host, held) != Some(held) {
                changes.gained.push((branch.clone(), held.0, held.1));
                self.timeline.push(Held { branch: branch.clone(), host, session: held.0, epoch: held.1, from: at, until: None });
                let own = moved.get(&held.0).copied().unwrap_or(0);
                let first = *self.epochs.entry((branch.clone(), (held.0, own, host), held.1)).or_insert(process);
                if first != process && !forgetful {
                    let what = format!("session {} is active under epoch {} of {branch} in a second process", held.0.short(), held.1);
                    return Err(Violation::new(Invariant::S5, what));
                }
                let newest = self.newest.entry(branch).or_insert((0, host));
                if held.1 > newest.0 {
                    changes.taken_over |= newest.1 != host;
                    *newest = (held.1, host);
                }
            }
        }
        for (branch, holding) in &self.branches {
            let double = holding.len() > 1;
            let overlaps = !double && !holding.is_empty() && self.below(branch).any(|(_, below)| !below.is_empty());
            if !double && !overlaps {
                self.double.remove(branch);
            } else if !self.double.contains_key(branch) {
                self.double.insert(branch.clone(), at);
                changes.doubled |= double;
                changes.overlapped |= overlaps;
            }
        }
        Ok(changes)
    }

    fn below<'a>(&'a self, branch: &'a str) -> impl Iterator<Item = (&'a String, &'a Holding)> {
        let after = self.branches.range::<str, _>((Excluded(branch), Unbounded)).take_while(move |(other, _)| other.starts_with(branch));
        after.filter(move |(other, _)| other.as_bytes()[branch.len()] == b'/')
    }

    /// All that was ever held.
    pub fn timeline(&self) -> &[Held] {
        &self.timeline
    }

    /// Nothing has kept anybody apart since `since`, and nobody may hold what another holds any more.
    ///
    /// # Errors
    /// A branch has two holders; with the branch.
    pub fn alone(&self, now: Time, since: Time) -> Result<(), (Violation, String)> {
        let Some((branch, doubled)) = self.double.first_key_value() else { return Ok(()) };
        let (seconds, holding) = ((now - since) as f64 / 1e6, &self.branches[branch]);
        let below: Vec<_> = self.below(branch).filter(|(_, holding)| !holding.is_empty()).collect();
        let what = format!(
            "{seconds} s after the last fault {branch} has more than one holder, since {doubled} us: {holding:?}, below: {below:?}"
        );
        Err((Violation::new(Invariant::S6, what), branch.clone()))
    }

    /// Nothing has kept anybody apart since `since`, and what is wanted is to be held.
    ///
    /// # Errors
    /// Nobody holds a branch; with the branch.
    pub fn held(&self, now: Time, since: Time, mut wanted: impl Iterator<Item = String>) -> Result<(), (Violation, String)> {
        let Some(branch) = wanted.find(|branch| self.branches.get(branch).is_none_or(BTreeMap::is_empty)) else { return Ok(()) };
        let what = format!("{} s after the faults nobody holds {branch}, which is wanted", (now - since) as f64 / 1e6);
        Err((Violation::new(Invariant::L3, what), branch))
    }
}

/// Who wants a branch, by what one node holds, for people.
pub fn describe(replica: &Replica, branch: &str) -> String {
    let Ok(path) = Path::parse(branch) else { return "no path".into() };
    let Some(section) = replica.section(replica.section_of(&path)) else { return "a section that is not held".into() };
    let claims = section.standing.iter().filter_map(|(key, write)| match Standing::of_key(key) {
        Some(Standing::Claim(hash, session)) if hash == BranchHash::of(&path) => {
            let claim: ClaimRecord = minicbor::decode(write.value.as_deref()?).ok()?;
            let away = if claim.away { ", away" } else { "" };
            Some(format!("{} at {} since {}{away}", session.short(), claim.home.short(), claim.registered))
        }
        _ => None,
    });
    claims.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(branch: &str, session: u8, epoch: u64) -> BTreeMap<String, (SessionId, u64)> {
        BTreeMap::from([(branch.to_owned(), (SessionId([session; 16]), epoch))])
    }

    fn check(holders: &Holders) -> Option<Invariant> {
        let result = holders.alone(150, 100).and_then(|()| holders.held(150, 100, std::iter::once("a".to_owned())));
        result.err().map(|(violation, _)| violation.invariant)
    }

    #[test]
    fn two_holders_are_seen_and_so_is_none() {
        let mut holders = Holders::default();
        assert_eq!(check(&holders), Some(Invariant::L3));
        assert_eq!(
            holders.set(1, (0, 1), false, held("a", 1, 1), &BTreeMap::new()),
            Ok(Changes { gained: vec![("a".into(), SessionId([1; 16]), 1)], ..Changes::default() })
        );
        assert_eq!(check(&holders), None);
        assert_eq!(holders.set(2, (0, 1), false, held("a", 1, 1), &BTreeMap::new()), Ok(Changes::default()));
        assert_eq!(
            holders.set(2, (1, 1), false, held("a", 2, 2), &BTreeMap::new()),
            Ok(Changes { gained: vec![("a".into(), SessionId([2; 16]), 2)], taken_over: true, doubled: true, ..Changes::default() })
        );
        assert_eq!(check(&holders), Some(Invariant::S6));
        assert_eq!(holders.set(3, (0, 1), false, BTreeMap::new(), &BTreeMap::new()), Ok(Changes::default()));
        assert_eq!(check(&holders), None);
        holders
            .set(
                3,
                (1, 1),
                false,
                BTreeMap::from([("a".into(), (SessionId([2; 16]), 2)), ("a!".into(), (SessionId([4; 16]), 2))]),
                &BTreeMap::new(),
            )
            .unwrap();
        assert_eq!(check(&holders), None);
        let below = holders.set(3, (2, 1), false, held("a/b", 3, 3), &BTreeMap::new()).unwrap();
        assert!(below.overlapped && !below.doubled);
        assert_eq!(check(&holders), Some(Invariant::S6), "it is below a");
        holders.set(3, (2, 1), false, BTreeMap::new(), &BTreeMap::new()).unwrap();
        assert_eq!(check(&holders), None);
        let again = |holders: &mut Holders, forgetful| {
            holders.set(4, (0, 2), forgetful, held("a", 1, 1), &BTreeMap::new()).map_err(|violation| violation.invariant)
        };
        assert_eq!(again(&mut holders, false), Err(Invariant::S5));
        assert!(again(&mut holders, true).is_ok());
    }
}
