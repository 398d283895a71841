//! Stamps order values; no wall clock ever decides.

use std::{cmp::Ordering, sync::Arc};

use minicbor::{Decode, Encode};

use crate::{
    frontier::{DotIx, Origins},
    id::{NodeId, SessionId},
};

/// How a grant ranks among those of its epoch: priority, then session, then how often that had been taken up, then by which node: of two homes of one
/// session that do not know of each other, the one stands that has the session in the end.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Encode, Decode)]
pub struct Rank {
    /// The claim's priority; greater wins.
    #[n(0)]
    pub priority: i32,
    /// The session that holds the grant: the first eight bytes of its id, its epoch, and the first four bytes of its home.
    #[n(1)]
    pub session: SessionId,
}

impl Rank {
    /// That of a grant to a session at one of its epochs and homes.
    pub fn of(priority: i32, session: SessionId, epoch: u32, home: NodeId) -> Self {
        let mut at = session;
        at.0[8..12].copy_from_slice(&epoch.to_be_bytes());
        at.0[12..].copy_from_slice(&home.0[..4]);
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
