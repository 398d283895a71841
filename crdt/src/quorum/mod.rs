//! Quorum leases: one owner of a branch at a time, under every partition, crash, pause, and clock drift within a bound.
//!
//! A section with quorum arbitration has *voters*. An *owner*, one incarnation of a node, may act for a branch as its update source while a majority of them holds the
//! branch for it. Both are pure machines without a clock, one of each per section, and so is a [`Change`] of the voters:
//!
//! ```text
//!                 Ask, Propose, Release, Renew                Prepare, Endorse, Start
//!   Owner  ───────────────────────────────────────▶  Voter  ◀───────────────────────  Change
//!          ◀───────────────────────────────────────         ───────────────────────▶
//!            Told, Accepted, Refused, Released,                Promised, Endorsed,
//!            Renewed, Elsewhere                                Overruled
//! ```
//!
//! # The protocol on one page
//!
//! - **Time.** An owner's *authority* is a deadline that its shell makes when it asks: now + D_P, before [`Owner::attempt`] or [`Owner::renew`]. A voter's *exclusion* is a timer of its
//!   shell's, D_A from when it last answered that owner. [`Durations::derive`] makes D_A so much longer that it ends later on whatever clocks within the bound. Clocks go on while a machine
//!   sleeps (`CLOCK_BOOTTIME`), and the owner looks at its own once more before each single write.
//! - **Getting.** The owner asks all voters; once a majority has told it that nothing live stands in the way, it proposes under an epoch one above the highest that it was told. A voter holds
//!   the branch for it if no live lease of another is there, nor above or below it, and the epoch is above its own highest, which it makes durable before it says so. With a majority of distinct voters before the
//!   deadline the branch is granted. Whatever is not granted is released.
//! - **Keeping.** One [`Request::Renew`] to each voter renews all that it holds of this owner, whatever the number, even what had lapsed and nobody took. The answer names what was given to
//!   others, again and again until the owner has heard it. A lease's authority becomes that of round r once a majority of voters that hold it has answered r.
//! - **Forgetting.** Where a voter stands with an owner is a [`Standing`], which only rises: it tells a new run of the voter, a stint begun after it had forgotten the owner, and each clearing
//!   within it. An acceptance older than what the owner has heard does not count; a new run or stint voids what was counted.
//! - **Coming back.** A voter that restarts has forgotten its leases, so it is silent for D_Q. Then it answers a renewal as a stranger, and the owner *spreads* its leases to it: a proposal
//!   with `granted`. It is no grant, so no epoch is too low for it. It is taken only if owner and voter stand where the owner believes, and it counts only while the lease's authority
//!   has not ended: after a gap somebody else may have held the branch under a higher epoch.
//! - **Losing the vault.** A voter without its vault is another voter, under an id made with the new vault, which no configuration names until one is chosen that does.
//! - **Voters change** one numbered [`Configuration`] after another, each chosen by the last ([`Change`]). A voter that has endorsed n + 1 serves n no more. One that starts n + 1 grants
//!   nothing for D_A, but renews what it holds. So that leases go on meanwhile, an owner counts a majority of n + 1 if it is one of n too, or if one of it has got over its pause.
//!   One that restarts, or pauses, takes no part in choosing the next.
//!
//! # Why it is safe
//!
//! **What backs authority.** Whenever an owner acts, there is a majority of voters each of which held the branch for it at some moment after the owner had asked, and gave it to nobody for D_A from then.
//! Two such majorities share a voter. It held the branch for one of them first, and for the other only after that one's authority had ended, or it had been given up. A voter that restarts in between
//! is silent until that has ended, and one that moves to another configuration stays a voter that holds it. Between configurations either the majorities still meet, or a pause proves that all older
//! authority is over: a majority of n had stopped before n + 1 started anywhere. (A voter that pauses lets nobody choose n + 2, so there are never more than two to think of.)
//!
//! **Fences.** A voter helps to grant an epoch to one ballot only, for ever: within a run it remembers the ballot, and after a restart it takes only higher ones. Two majorities share a voter, so no epoch is
//! granted twice, whatever clocks do. When the voters change, those who endorse have stopped, and the greatest of their highest epochs goes on with the start. Epochs are counted by section and not by
//! branch, so that whoever holds `a` and later `a/b` rises too.
//!
//! # What differs from the papers
//!
//! PaxosLease (Trencseni et al., 2012) is not safe as published. These are the rules of its author's correction of 2026: authority from when the owner *asked*, distinct voters,
//! no live lease overwritten, quarantine. Added are epochs, renewal by owner, spreading, and configurations. Left out is the promise of a ballot in the first phase: what protects a lease is that no voter
//! gives away a live one, which no promise strengthens; a promise only lets the later of two rivals defeat the earlier, and costs memory for every branch ever asked for.
//! So [`Request::Ask`] changes nothing at a voter, and ballots of different owners are never compared. Choosing a configuration is Paxos proper, promises included.
//!
//! An owner's release may be lost, so it repeats it with each renewal until the voter has answered; an owner that can no longer remember what it owes a voter asks it to forget all, once that has lapsed.
//!
//! # Checked
//!
//! `tests/quorum` explores these very types exhaustively, for three voters and two owners, with messages lost, repeated and reordered at will, and shows for rules above what goes wrong without them.
//!
//! # The shell
//!
//! It performs [`Effects`] and [`Outcome`] in order: nothing that a voter replies leaves before the vault is durable. Timers: for a voter those in [`Timer`] and, after [`Voter::restarted`], the quarantine; for an
//! owner a renewal well before D_P is over, and [`Owner::expire`] from time to time. Backoff and jitter between attempts are its own.
//! Configuration 1 is made with the section, and told to its voters as [`Request::Start`].

mod configuration;
mod message;
mod owner;
mod voter;

pub use configuration::{Change, Configuration, Proposal};
pub use message::{Refusal, Reply, Request};
pub use owner::{Event, OWED_MAX, Outcome, Owner};
pub use voter::{Effects, GIVEN_MAX, LAPSED_MAX, Timer, Vault, Voter};

use std::collections::{BTreeMap, BTreeSet};

use minicbor::{Decode, Encode};

use crate::path::Path;

/// What is leased. Branches lie above and below others, and who holds one holds all that is below it.
pub trait Branch: Clone + Ord {
    /// Those among some that cannot be held apart from this one: it itself, and those above and below it.
    fn overlapping<'a, T>(&self, among: &'a BTreeMap<Self, T>) -> impl Iterator<Item = (&'a Self, &'a T)>
    where
        Self: 'a,
    {
        among.get_key_value(self).into_iter()
    }
}

impl Branch for Path {
    fn overlapping<'a, T>(&self, among: &'a BTreeMap<Self, T>) -> impl Iterator<Item = (&'a Self, &'a T)>
    where
        Self: 'a,
    {
        let at_or_above: Vec<_> = self.self_and_ancestors().filter_map(|path| among.get_key_value(path)).collect();
        let prefix = format!("{self}/");
        let from = among.range::<str, _>((std::ops::Bound::Included(prefix.as_str()), std::ops::Bound::Unbounded));
        at_or_above.into_iter().chain(from.take_while(move |(path, _)| path.as_str().starts_with(&prefix)))
    }
}

/// Without structure: for models and tests.
impl Branch for u8 {}

/// Without structure: for models and tests.
impl Branch for u64 {}

/// Without structure: for models and tests.
impl Branch for &'static str {}

/// Names an attempt: of a lease (never used again by its owner), or of a proposer of a configuration (where greater ballots overrule lesser ones).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode, Decode)]
pub struct Ballot<O> {
    /// Rises with each attempt of the owner.
    #[n(0)]
    pub counter: u64,
    /// Whose: one incarnation, so that no counter need be durable.
    #[n(1)]
    pub owner: O,
}

/// A lease of one branch, as voters hold it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode, Decode)]
pub struct Lease<O> {
    /// The instance.
    #[n(0)]
    pub ballot: Ballot<O>,
    /// The fence that its values carry.
    #[n(1)]
    pub epoch: u64,
}

/// How far the dealings of a voter with one owner have come. It only rises, in this order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Encode, Decode)]
pub struct Standing {
    /// The run of the voter: with a new one it has forgotten all leases.
    #[n(0)]
    pub run: u64,
    /// Rises when the voter has forgotten this owner.
    #[n(1)]
    pub stint: u64,
    /// How often, within the stint, the voter has cleared something that it held for this owner.
    #[n(2)]
    pub cleared: u64,
}

/// A request on its way out.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Unsent<O, V: Ord, B> {
    /// To whom.
    pub to: V,
    /// What.
    pub request: Request<O, V, B>,
}

/// The lengths of time that the protocol rests on, all in microseconds on the clock of whoever measures them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Durations {
    /// D_P: how long an owner may act on what voters answered, from when it asked.
    pub authority_us: u64,
    /// D_A: how long a voter keeps a branch for its owner, from when it answered; and how long it pauses when a configuration starts.
    pub exclusion_us: u64,
    /// D_Q: how long a voter that has forgotten its leases is silent.
    pub quarantine_us: u64,
}

impl Durations {
    /// The shortest exclusion and quarantine for this authority, if every clock runs at most `drift_ppm` parts in a million too fast or too slow:
    /// D_P (1 + ρ) ≤ D_A (1 − ρ), rounded up. `None` for a drift of all or more, or lengths beyond 64 bits.
    pub fn derive(authority_us: u64, drift_ppm: u32) -> Option<Self> {
        const MILLION: u128 = 1_000_000;
        let slowest = MILLION.checked_sub(drift_ppm.into()).filter(|slowest| *slowest > 0)?;
        let longest = (u128::from(authority_us) * (MILLION + u128::from(drift_ppm))).div_ceil(slowest);
        let exclusion_us = u64::try_from(longest).ok()?;
        Some(Durations { authority_us, exclusion_us, quarantine_us: exclusion_us })
    }
}

/// Whether `counts` holds for more than half of these voters.
fn majority_of<V>(voters: &BTreeSet<V>, counts: impl Fn(&V) -> bool) -> bool {
    voters.iter().filter(|voter| counts(voter)).count() > voters.len() / 2
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Durations;

    #[test]
    fn durations_are_the_shortest_that_drift_allows() {
        let derive = |authority_us, drift_ppm| Durations::derive(authority_us, drift_ppm).map(|all| (all.exclusion_us, all.quarantine_us));
        assert_eq!(derive(5_000_000, 0), Some((5_000_000, 5_000_000)));
        assert_eq!(derive(5_000_000, 500), Some((5_005_003, 5_005_003)));
        assert_eq!(derive(1, 500), Some((2, 2)));
        assert_eq!(derive(3, 500_000), Some((9, 9)));
        assert_eq!(derive(5_000_000, 1_000_000), None);
        assert_eq!(derive(u64::MAX, 1), None);
    }

    proptest! {
        #[test]
        fn exclusion_outlasts_authority_on_any_two_clocks(authority_us in 0..u64::MAX / 1_000_000, drift_ppm in 0..999_000_u32) {
            let Some(all) = Durations::derive(authority_us, drift_ppm) else { return Ok(()) };
            let longest = u128::from(authority_us) * (1_000_000 + u128::from(drift_ppm));
            let slowest = 1_000_000 - u128::from(drift_ppm);
            prop_assert!(longest <= u128::from(all.exclusion_us) * slowest);
            prop_assert!(all.exclusion_us == 0 || longest > u128::from(all.exclusion_us - 1) * slowest);
            prop_assert_eq!(all.quarantine_us, all.exclusion_us);
        }
    }
}
