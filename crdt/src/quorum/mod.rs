//! Quorum leases: one owner of a branch at a time, under every partition, crash, pause, and clock drift within a bound.
//!
//! ESSAY

mod configuration;
mod message;
mod owner;
mod voter;

pub use configuration::{Change, Configuration, Proposal};
pub use message::{Refusal, Reply, Request};
pub use owner::{Event, OWED_MAX, Outcome, Owner};
pub use voter::{Effects, GIVEN_MAX, LAPSED_MAX, Timer, Vault, Voter};

use std::collections::BTreeSet;

/// Names an attempt: of a lease (never used again by its owner), or of a proposer of a configuration (where greater ballots overrule lesser ones).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ballot<O> {
    /// Rises with each attempt of the owner.
    pub counter: u64,
    /// Whose: one incarnation, so that no counter need be durable.
    pub owner: O,
}

/// A lease of one branch, as voters hold it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Lease<O> {
    /// The instance.
    pub ballot: Ballot<O>,
    /// The fence that its values carry.
    pub epoch: u64,
}

/// How far the dealings of a voter with one owner have come. It only rises, in this order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Standing {
    /// The run of the voter: with a new one it has forgotten all leases.
    pub run: u64,
    /// Rises when the voter has forgotten this owner.
    pub stint: u64,
    /// How often, within the stint, the voter has cleared something that it held for this owner.
    pub cleared: u64,
}

/// A request on its way out.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Unsent<O, V, B> {
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
