//! S16: no number of a feed is ever given to two records, also after amnesia or from a clone of a backup.
//!
//! The oracle keeps which process gave each number. A run that gives one which another has given is caught at that moment.

use mangrove_crdt::{
    frontier::OriginIx,
    id::{Plane, SectionId},
    replica::Replica,
};

use super::{Invariant, Violation, lattice::Moment};
use crate::oracle::{About, GivenTwice, Oracle};

/// A node's own feed has grown: what is new in it is noted.
///
/// # Errors
/// A number given twice.
pub fn grown(
    oracle: &mut Oracle,
    moment: Moment<'_>,
    replica: &Replica,
    feed: (SectionId, Plane),
    origin: OriginIx,
    range: (u64, u64),
    about: Option<&About>,
) -> Result<(), Violation> {
    oracle.grown(moment.at, moment.by, replica, feed, origin, range, about, moment.outcast).map_err(|GivenTwice { section, plane, dot }| {
        let what =
            format!("node {}: it gives the number {dot:?} of {plane:?} in {section}, which another run of it has given", moment.name);
        Violation::new(Invariant::S16, what)
    })
}
