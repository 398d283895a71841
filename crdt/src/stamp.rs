//! Stamps order values; no wall clock ever decides.

use std::{cmp::Ordering, sync::Arc};

use minicbor::{Decode, Encode};

use crate::{
    frontier::{DotIx, Origins},
    id::SessionId,
};

/// How a grant ranks among those of its epoch: priority, then session, then how often that had been taken up: of two homes of one session that do not
/// know of each other, the newer stands.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Encode, Decode)]
pub struct Rank {
    /// The claim's priority; greater wins.
    #[n(0)]
    pub priority: i32,
    /// The session that holds the grant, its last four bytes replaced by its epoch.
    #[n(1)]
    pub session: SessionId,
}

impl Rank {
    /// That of a grant to a session at one of its epochs.
    pub fn of(priority: i32, session: SessionId, epoch: u32) -> Self {
        let mut at = session;
        at.0[12..].copy_from_slice(&epoch.to_be_bytes());
        Rank { priority, session: at }
    }
}

/// Orders the writes of one key: epoch, then rank, then the Lamport clock; the origin breaks ties (see [`newer`]).
///
/// A plain write has no rank, which is lower than any.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Stamp {
    /// The epoch of the grant, or the open epoch of a branch without a source.
    pub epoch: u64,
    /// The rank of the grant.
    pub rank: Option<Arc<Rank>>,
    /// The writer's Lamport clock in this section.
    pub seq: u64,
}

/// Under which authority something is written: the part of a stamp that a grant gives, or a release.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Under {
    /// The epoch.
    pub epoch: u64,
    /// The grant's rank; a plain write has none.
    pub rank: Option<Arc<Rank>>,
}

impl Stamp {
    /// Under which authority it was written.
    pub fn under(&self) -> Under {
        Under { epoch: self.epoch, rank: self.rank.clone() }
    }
}

/// Compares two writes by stamp, then by origin, then by number.
pub fn newer(origins: &Origins, a: (&Stamp, DotIx), b: (&Stamp, DotIx)) -> Ordering {
    a.0.cmp(b.0).then_with(|| {
        if a.1.origin == b.1.origin { a.1.number.cmp(&b.1.number) } else { origins.get(a.1.origin).cmp(&origins.get(b.1.origin)) }
    })
}
