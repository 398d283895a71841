//! Stamps order values; no wall clock ever decides.

use std::cmp::Ordering;

use minicbor::{Decode, Encode};

use crate::frontier::{DotIx, Origins};

/// How a grant ranks among those of its epoch: priority, then session.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Encode, Decode)]
pub struct Rank {
    /// The claim's priority; greater wins.
    #[n(0)]
    pub priority: i32,
    /// The session that holds the grant.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub session: [u8; 16],
}

/// Orders the writes of one key: epoch, then rank, then the Lamport clock; the origin breaks ties (see [`newer`]).
///
/// A plain write has no rank, which is lower than any.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Stamp {
    /// The epoch of the grant, or the open epoch of a branch without a source.
    pub epoch: u64,
    /// The rank of the grant.
    pub rank: Option<Box<Rank>>,
    /// The writer's Lamport clock in this section.
    pub seq: u64,
}

/// Compares two writes by stamp, then by origin, then by number.
pub fn newer(origins: &Origins, a: (&Stamp, DotIx), b: (&Stamp, DotIx)) -> Ordering {
    a.0.cmp(b.0).then_with(|| {
        if a.1.origin == b.1.origin { a.1.number.cmp(&b.1.number) } else { origins.get(a.1.origin).cmp(&origins.get(b.1.origin)) }
    })
}
