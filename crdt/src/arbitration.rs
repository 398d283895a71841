//! Who should be the update source of a branch: a pure judgement of the claims and grants that are known.
//!
//! Every session that wants a branch has a *claim* in the standing plane of the branch's section; whoever has it is named by the branch's *grant*.
//! The claims of a branch form a queue: priority, then the Lamport time of registration, then the session's id. The queue picks *successors* only:
//! who holds the branch keeps it, whatever comes, until its claim goes, its session is away for too long, or its home has been silent for too long.
//! Whether a home lives is each node's own judgement, by its own clock, so nodes may differ for a while; what joins them again is the
//! grant: the greater (epoch, rank) stands, everywhere.
//!
//! A branch above or below another session's claim is refused where that is known. Where it was not, on the two sides of a split, of all claims
//! that overlap the earliest stand and the others close: see [`Contest::stands`].
//!
//! Releasing a branch leaves a grant without a holder under the next epoch, the *open* epoch, under which plain writes are stamped from then on: so they
//! are never older than what the source has left, on nodes that come later, too.

use std::{
    cell::OnceCell,
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
};

use rustc_hash::FxHashMap;

use crate::{
    id::{NodeId, SessionId},
    path::Path,
    stamp::Rank,
    standing::ClaimRecord,
};

/// A claim that stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Claim {
    /// Whose.
    pub session: SessionId,
    /// What it says.
    pub record: ClaimRecord,
}

impl Claim {
    /// Its place in the queue: the least is next.
    pub fn place(&self) -> (Reverse<i32>, u64, SessionId) {
        (Reverse(self.record.priority), self.record.registered, self.session)
    }

    /// When it was registered: of claims that overlap, the least stands.
    fn age(&self) -> (u64, SessionId) {
        (self.record.registered, self.session)
    }

    /// The rank of a grant to it, at an epoch of its session.
    pub fn rank(&self, epoch: u32) -> Rank {
        Rank::of(self.record.priority, self.session, epoch, self.record.home)
    }
}

/// The newest grant of a branch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Grant {
    /// Its epoch; without a holder, the open epoch.
    pub epoch: u64,
    /// The rank under which the holder writes.
    pub rank: Option<Rank>,
    /// The session that holds the branch, and its home; `None` once it was released.
    pub holder: Option<(SessionId, NodeId)>,
}

impl Grant {
    /// Whether it gives the branch to a session.
    pub fn is_of(&self, session: &SessionId) -> bool {
        self.holder.is_some_and(|(holder, _)| holder == *session)
    }
}

/// What is known of one branch.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Branch {
    /// Its queue, the next first.
    claims: Vec<Claim>,
    /// Who holds it.
    pub grant: Option<Grant>,
}

/// How a claim is to be judged by a node at some moment.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Life {
    /// Its session is presumed to have ended: it does not count.
    Presumed,
    /// Its session or its home has been out of reach for longer than it may hold a branch: it keeps its place and is passed over.
    Away,
    /// It may hold the branch.
    Present,
}

impl Branch {
    /// The queue, the next first.
    pub fn claims(&self) -> &[Claim] {
        &self.claims
    }

    /// A session's claim.
    pub fn claim(&self, session: &SessionId) -> Option<&Claim> {
        self.claims.iter().find(|claim| claim.session == *session)
    }

    /// Who holds it by the newest grant, if its claim stands yet.
    pub fn holder(&self) -> Option<&Claim> {
        let (session, _) = self.grant.as_ref()?.holder.as_ref()?;
        self.claim(session)
    }

    /// Who should hold it: the holder if it may, otherwise the first that may.
    pub fn rightful(&self, life: impl Fn(&Claim) -> Life) -> Option<&Claim> {
        let may = |claim: &&Claim| life(claim) == Life::Present;
        self.holder().filter(may).or_else(|| self.claims.iter().find(may))
    }

    /// Whether anybody is, or wants to be, its source: then nobody else may write.
    pub fn is_claimed(&self, life: impl Fn(&Claim) -> Life) -> bool {
        self.claims.iter().any(|claim| life(claim) > Life::Presumed)
    }

    fn is_bare(&self) -> bool {
        self.claims.is_empty() && self.grant.is_none()
    }
}

/// All branches of one section that are claimed, or were. Found by their text, since a million of them may come at once.
#[derive(Clone, Debug, Default)]
pub struct Contest {
    branches: FxHashMap<Path, Branch>,
    /// All of them in order, from when that is asked for first: who only joins and follows never does.
    ordered: OnceCell<BTreeSet<Path>>,
    /// Who has claims on which branches: homes, and their sessions. (None stands before all branches, where a look begins.)
    claimants: BTreeSet<(NodeId, SessionId, Option<Path>)>,
    /// How many claims each home has.
    homes: BTreeMap<NodeId, usize>,
    claims: usize,
}

impl Contest {
    /// A branch that is claimed, or was.
    pub fn branch(&self, branch: &Path) -> Option<&Branch> {
        self.branches.get(branch)
    }

    /// All of them, in order, after one.
    pub fn after(&self, after: Option<&str>) -> impl Iterator<Item = (&Path, &Branch)> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        self.ordered().range::<str, _>((from, Unbounded)).filter_map(|path| self.branches.get_key_value(path))
    }

    #[allow(clippy::disallowed_methods, reason = "it is put in order here")]
    fn ordered(&self) -> &BTreeSet<Path> {
        self.ordered.get_or_init(|| self.branches.keys().cloned().collect())
    }

    /// A branch, known from now on.
    fn known(&mut self, branch: &Path) -> &mut Branch {
        self.branches.entry(branch.clone()).or_insert_with(|| {
            if let Some(ordered) = self.ordered.get_mut() {
                ordered.insert(branch.clone());
            }
            Branch::default()
        })
    }

    fn forget(&mut self, branch: &Path) {
        self.branches.remove(branch);
        if let Some(ordered) = self.ordered.get_mut() {
            ordered.remove(branch);
        }
    }

    /// How many claims there are.
    pub fn claims(&self) -> usize {
        self.claims
    }

    /// Whether there is nothing, not even a release to remember.
    pub fn is_empty(&self) -> bool {
        self.branches.is_empty()
    }

    /// Whether a node has claims here.
    pub fn is_home(&self, node: &NodeId) -> bool {
        self.homes.contains_key(node)
    }

    /// The claims of a session, whatever homes they name, with their branches.
    pub fn claims_by(&self, session: SessionId) -> impl Iterator<Item = (&Path, &Claim)> + use<'_> {
        self.homes.keys().flat_map(move |home| self.claims_of(home, Some(session)))
    }

    /// The claims of a home's sessions, or of one of them, with their branches.
    pub fn claims_of(&self, home: &NodeId, session: Option<SessionId>) -> impl Iterator<Item = (&Path, &Claim)> + use<'_> {
        let (home, first) = (*home, session.unwrap_or(SessionId([0; 16])));
        let from = self.claimants.range((home, first, None)..);
        let own = from.take_while(move |(at, of, _)| *at == home && session.is_none_or(|session| session == *of));
        own.filter_map(|(_, session, path)| path.as_ref().and_then(|path| Some((path, self.branches.get(path)?.claim(session)?))))
    }

    /// A claim was registered, changed, or went.
    pub fn set_claim(&mut self, branch: &Path, session: SessionId, record: Option<ClaimRecord>) {
        let known = self.known(branch);
        let place = known.claims.iter().position(|claim| claim.session == session);
        let before = place.map(|place| known.claims.remove(place).record.home);
        let home = record.as_ref().map(|record| record.home);
        if let Some(record) = record {
            let claim = Claim { session, record };
            let at = known.claims.partition_point(|other| other.place() < claim.place());
            // Most branches have one.
            known.claims.reserve_exact(1);
            known.claims.insert(at, claim);
        }
        let bare = known.is_bare();
        self.claims = self.claims + usize::from(home.is_some()) - usize::from(before.is_some());
        if before != home {
            if let Some(before) = before {
                self.claimants.remove(&(before, session, Some(branch.clone())));
                if let Entry::Occupied(mut count) = self.homes.entry(before) {
                    *count.get_mut() -= 1;
                    if *count.get() == 0 {
                        count.remove();
                    }
                }
            }
            if let Some(home) = home {
                self.claimants.insert((home, session, Some(branch.clone())));
                *self.homes.entry(home).or_default() += 1;
            }
        }
        if bare {
            self.forget(branch);
        }
    }

    /// A branch was granted or released.
    pub fn set_grant(&mut self, branch: &Path, grant: Option<Grant>) {
        let known = self.known(branch);
        known.grant = grant;
        if known.is_bare() {
            self.forget(branch);
        }
    }

    /// The branch above a path, or at it, that is claimed.
    pub fn claimed_above(&self, path: &Path, life: impl Fn(&Claim) -> Life) -> Option<(&Path, &Branch)> {
        if self.claims == 0 {
            return None;
        }
        let above = path.self_and_ancestors().filter_map(|branch| self.branches.get_key_value(branch));
        above.into_iter().find(|(_, branch)| branch.is_claimed(&life))
    }

    /// Under which epoch a path is written that no source stands above: the greatest that a release left behind, above it.
    pub fn open_epoch(&self, path: &Path) -> u64 {
        if self.branches.is_empty() {
            return 0;
        }
        let above = path.self_and_ancestors().filter_map(|branch| self.branches.get(branch)?.grant.as_ref());
        above.map(|grant| if grant.holder.is_some() { grant.epoch + 1 } else { grant.epoch }).max().unwrap_or(0)
    }

    /// Branches strictly above or below one that have claims.
    pub fn overlapping(&self, branch: &Path) -> impl Iterator<Item = (&Path, &Branch)> + use<'_> {
        let above = branch.self_and_ancestors().skip(1).filter_map(|above| self.branches.get_key_value(above));
        let above: Vec<(&Path, &Branch)> = above.collect();
        above.into_iter().chain(self.below(branch.as_str())).filter(|(_, other)| !other.claims.is_empty())
    }

    /// A branch and those below it.
    fn within<'a>(&'a self, branch: &str) -> impl Iterator<Item = (&'a Path, &'a Branch)> + use<'a> {
        self.branches.get_key_value(branch).into_iter().chain(self.below(branch))
    }

    fn below<'a>(&'a self, branch: &str) -> impl Iterator<Item = (&'a Path, &'a Branch)> + use<'a> {
        let prefix = format!("{branch}/");
        let range = self.ordered().range::<str, _>((std::ops::Bound::Included(prefix.as_str()), std::ops::Bound::Unbounded));
        let below = range.take_while(move |path| path.as_str().starts_with(&prefix));
        below.filter_map(|path| self.branches.get_key_value(path))
    }

    /// What a home has to judge again when something changes about a branch: that branch, and its own claimed ones that overlap it, directly or by way of others.
    pub fn concerned(&self, branch: &Path, home: &NodeId) -> Vec<Path> {
        let ours = |known: &Branch| known.claims.iter().any(|claim| claim.record.home == *home);
        let others = self.within(self.topmost(branch)).filter(|(path, other)| *path != branch && ours(other));
        std::iter::once(branch).chain(others.map(|(path, _)| path)).cloned().collect()
    }

    /// The topmost branch with claims above another, below which is all that overlaps it; itself, if there is none.
    fn topmost<'a>(&self, branch: &'a Path) -> &'a str {
        let claimed = |path: &&str| self.branches.get(*path).is_some_and(|branch| !branch.claims.is_empty());
        branch.self_and_ancestors().filter(claimed).last().unwrap_or(branch.as_str())
    }

    /// The earliest claim on a branch strictly above or below one, with that branch.
    pub fn overlap(&self, branch: &Path, life: impl Fn(&Claim) -> Life) -> Option<(&Path, &Claim)> {
        let claims = self.overlapping(branch).flat_map(|(path, other)| other.claims.iter().map(move |claim| (path, claim)));
        claims.filter(|(_, claim)| life(claim) > Life::Presumed).min_by_key(|(_, claim)| claim.age())
    }

    /// Whether a claim stands against those on branches above and below it; if not, the one in its way. Of all that overlap, directly or by way of
    /// others, the earliest is taken first, then each next one that no taken one overlaps: so what is in the way stands itself.
    pub fn stands(&self, branch: &Path, session: &SessionId, life: impl Fn(&Claim) -> Life) -> Result<(), (Path, SessionId)> {
        if self.overlap(branch, &life).is_none() {
            return Ok(());
        }
        let mut claims: Vec<(&Path, &Claim)> = self
            .within(self.topmost(branch))
            .flat_map(|(path, branch)| branch.claims.iter().map(move |claim| (path, claim)))
            .filter(|(_, claim)| life(claim) > Life::Presumed)
            .collect();
        claims.sort_by_key(|(_, claim)| claim.age());
        let mut taken: BTreeMap<Path, SessionId> = BTreeMap::new();
        for (path, claim) in claims {
            let above = path.self_and_ancestors().skip(1).find_map(|above| taken.get_key_value(above));
            let prefix = format!("{path}/");
            let below = || {
                let next = taken.range::<str, _>((std::ops::Bound::Included(prefix.as_str()), std::ops::Bound::Unbounded)).next();
                next.filter(|(below, _)| below.as_str().starts_with(&prefix))
            };
            let in_the_way = above.or_else(below).map(|(path, session)| (path.clone(), *session));
            if path == branch && claim.session == *session {
                return in_the_way.map_or(Ok(()), Err);
            }
            if in_the_way.is_none() {
                taken.entry(path.clone()).or_insert(claim.session);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(text: &str) -> Path {
        Path::parse(text).unwrap()
    }

    fn session(number: u8) -> SessionId {
        SessionId([number; 16])
    }

    fn record(branch: &str, home: u8, priority: i32, registered: u64) -> ClaimRecord {
        ClaimRecord {
            branch: path(branch),
            home: NodeId([home; 32]),
            priority,
            registered,
            hold_ms: 5_000,
            reconnect_timeout_ms: 60_000,
            number: 1,
            away: false,
        }
    }

    fn contest(claims: &[(&str, u8, i32, u64)]) -> Contest {
        let mut contest = Contest::default();
        for (branch, number, priority, registered) in claims {
            contest.set_claim(&path(branch), session(*number), Some(record(branch, *number, *priority, *registered)));
        }
        contest
    }

    fn present(_: &Claim) -> Life {
        Life::Present
    }

    fn rightful(contest: &Contest, branch: &str, life: impl Fn(&Claim) -> Life) -> Option<u8> {
        contest.branch(&path(branch))?.rightful(life).map(|claim| claim.session.0[0])
    }

    fn granted(epoch: u64, number: u8) -> Option<Grant> {
        let rank = Rank { priority: 0, session: session(number) };
        Some(Grant { epoch, rank: Some(rank), holder: Some((session(number), NodeId([number; 32]))) })
    }

    #[test]
    fn the_queue_is_by_priority_then_registration_then_session() {
        let contest = contest(&[("a", 1, 0, 9), ("a", 2, 0, 3), ("a", 3, 5, 99), ("a", 4, 0, 3)]);
        let queue: Vec<u8> = contest.branch(&path("a")).unwrap().claims().iter().map(|claim| claim.session.0[0]).collect();
        assert_eq!(queue, [3, 2, 4, 1]);
        assert_eq!(rightful(&contest, "a", present), Some(3));
    }

    #[test]
    fn an_incumbent_keeps_its_branch_until_it_is_away_or_its_claim_goes() {
        let mut contest = contest(&[("a", 1, 0, 1), ("a", 2, 7, 2)]);
        contest.set_grant(&path("a"), granted(4, 1));
        assert_eq!(rightful(&contest, "a", present), Some(1), "whoever comes with a greater priority waits");
        let away = |number: u8| move |claim: &Claim| if claim.session == session(number) { Life::Away } else { Life::Present };
        assert_eq!(rightful(&contest, "a", away(1)), Some(2));
        contest.set_claim(&path("a"), session(1), None);
        assert_eq!((rightful(&contest, "a", present), rightful(&contest, "a", away(2))), (Some(2), None));
        assert!(contest.is_home(&NodeId([2; 32])) && !contest.is_home(&NodeId([1; 32])));
    }

    #[test]
    fn claims_are_known_by_their_homes_and_sessions() {
        let mut contest = contest(&[("a", 1, 0, 1), ("a", 2, 0, 2), ("b", 1, 0, 3)]);
        let claims = |contest: &Contest, home: u8, of: Option<u8>| -> Vec<(String, u8)> {
            let claims = contest.claims_of(&NodeId([home; 32]), of.map(session));
            claims.map(|(path, claim)| (path.to_string(), claim.session.0[0])).collect()
        };
        // Session 3 has its claim at home 1, too, and moves to home 2.
        contest.set_claim(&path("b"), session(3), Some(record("b", 1, 0, 4)));
        contest.set_claim(&path("b"), session(1), None);
        assert_eq!(claims(&contest, 1, None), [("a".into(), 1), ("b".into(), 3)]);
        assert_eq!((claims(&contest, 1, Some(3)), claims(&contest, 1, Some(2))), (vec![("b".into(), 3)], vec![]));
        let by = |contest: &Contest, number: u8| contest.claims_by(session(number)).map(|(path, _)| path.to_string()).collect::<Vec<_>>();
        assert_eq!((by(&contest, 2), by(&contest, 3), by(&contest, 9)), (vec!["a".to_string()], vec!["b".into()], vec![]));
        contest.set_claim(&path("b"), session(3), Some(record("b", 2, 0, 4)));
        assert_eq!(claims(&contest, 1, None), [("a".into(), 1)]);
        assert_eq!(
            (claims(&contest, 2, None), claims(&contest, 2, Some(3))),
            (vec![("a".into(), 2), ("b".into(), 3)], vec![("b".into(), 3)])
        );
        assert_eq!(contest.claims(), 3);
        contest.set_claim(&path("a"), session(1), None);
        contest.set_claim(&path("a"), session(9), None);
        assert_eq!((contest.is_home(&NodeId([1; 32])), contest.claims()), (false, 2));
    }

    #[test]
    fn a_path_belongs_to_the_claimed_branch_above_it() {
        let mut contest = contest(&[("a/b", 1, 0, 1)]);
        let above = |contest: &Contest, at: &str| contest.claimed_above(&path(at), present).map(|(branch, _)| branch.to_string());
        assert_eq!(above(&contest, "a/b/c/d"), Some("a/b".into()));
        assert_eq!(above(&contest, "a/b"), Some("a/b".into()));
        assert_eq!((above(&contest, "a"), above(&contest, "a/bc")), (None, None));
        assert!(contest.claimed_above(&path("a/b"), |_| Life::Presumed).is_none());
        contest.set_claim(&path("a/b"), session(1), None);
        assert!(contest.is_empty() && contest.claims() == 0);
    }

    #[test]
    fn plain_writes_are_above_what_a_source_has_left() {
        let mut contest = Contest::default();
        contest.set_grant(&path("a/b"), granted(7, 1));
        assert_eq!(contest.open_epoch(&path("a/b/c")), 8, "its claim is gone, and its release has not come yet");
        contest.set_grant(&path("a/b"), Some(Grant { epoch: 8, rank: None, holder: None }));
        contest.set_grant(&path("a"), Some(Grant { epoch: 3, rank: None, holder: None }));
        assert_eq!([("a/b"), ("a/b/c"), ("a/x"), ("x")].map(|at| contest.open_epoch(&path(at))), [8, 8, 3, 0]);
    }

    #[test]
    fn branches_that_overlap_are_found_above_and_below() {
        let contest = contest(&[("a/b", 1, 0, 5), ("a/b!", 9, 0, 1)]);
        let overlap = |at: &str| contest.overlap(&path(at), present).map(|(branch, claim)| (branch.to_string(), claim.session.0[0]));
        assert_eq!(overlap("a"), Some(("a/b!".into(), 9)), "the earliest");
        assert_eq!(overlap("a/b/c"), Some(("a/b".into(), 1)));
        assert_eq!((overlap("a/b"), overlap("a/bc"), overlap("b")), (None, None, None));
        assert!(contest.overlap(&path("a/b/c"), |_| Life::Presumed).is_none());
    }

    #[test]
    fn a_change_concerns_all_own_claims_that_overlap_by_way_of_others() {
        // Node 1 has all but the topmost.
        let mut contest = contest(&[("a/b", 1, 0, 1), ("a/b/c", 1, 0, 1), ("a/bc", 1, 0, 1), ("b", 1, 0, 1), ("a", 2, 0, 2)]);
        let concerned = |contest: &Contest, at: &str| -> Vec<String> {
            contest.concerned(&path(at), &NodeId([1; 32])).iter().map(Path::to_string).collect()
        };
        assert_eq!(concerned(&contest, "a"), ["a", "a/b", "a/b/c", "a/bc"]);
        assert_eq!(concerned(&contest, "a/x"), ["a/x", "a/b", "a/b/c", "a/bc"], "by way of the topmost");
        assert_eq!(concerned(&contest, "b"), ["b"]);
        contest.set_claim(&path("a"), session(2), None);
        assert_eq!(concerned(&contest, "a"), ["a", "a/b", "a/b/c", "a/bc"], "what it was in the way of");
        assert_eq!(concerned(&contest, "a/bc"), ["a/bc"]);
    }

    #[test]
    fn of_claims_that_overlap_the_earliest_stand_and_what_they_free_stands_too() {
        // The second closes because of the first, so the third, which only overlaps the second, stands.
        let contest = contest(&[("a/b", 1, 0, 1), ("a", 2, 9, 2), ("a/c", 3, 0, 3), ("a/b", 4, 0, 8)]);
        let stands =
            |at: &str, number: u8| contest.stands(&path(at), &session(number), present).map_err(|(path, by)| (path.to_string(), by.0[0]));
        assert_eq!(stands("a/b", 1), Ok(()));
        assert_eq!(stands("a", 2), Err(("a/b".into(), 1)));
        assert_eq!(stands("a/c", 3), Ok(()));
        assert_eq!(stands("a/b", 4), Ok(()), "the same branch is queued for, not contested");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever the order in which claims come, those that stand are the same, do not overlap, and stand in the way of each that does not.
        #[test]
        fn what_stands_depends_on_the_claims_alone(claims in prop::collection::vec(("[ab](/[ab]){0,3}", 1..=9u8, 0..4u64), 1..12)) {
            let mut claims: Vec<(String, u8, u64)> = claims;
            claims.sort();
            claims.dedup_by_key(|(branch, number, _)| (branch.clone(), *number));
            let build = |claims: &[(String, u8, u64)]| {
                let mut contest = Contest::default();
                for (branch, number, registered) in claims {
                    contest.set_claim(&path(branch), session(*number), Some(record(branch, *number, 0, *registered)));
                }
                contest
            };
            let one = build(&claims);
            let mut turned = claims.clone();
            turned.reverse();
            let other = build(&turned);
            let verdict = |contest: &Contest, (branch, number, _): &(String, u8, u64)| contest.stands(&path(branch), &session(*number), present);
            let standing: Vec<&(String, u8, u64)> = claims.iter().filter(|claim| verdict(&one, claim).is_ok()).collect();
            prop_assert!(!standing.is_empty());
            for claim in &claims {
                let judged = verdict(&one, claim);
                prop_assert_eq!(&judged, &verdict(&other, claim));
                if let Err((path, by)) = judged {
                    prop_assert!(standing.iter().any(|(branch, number, _)| *branch == path.as_str() && session(*number) == by));
                }
            }
            for (a, ..) in &standing {
                for (b, ..) in &standing {
                    prop_assert!(a == b || !(b.starts_with(&format!("{a}/"))), "{} and {} both stand", a, b);
                }
            }
        }
    }
}
