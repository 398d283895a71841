//! S18: what a revoked node writes, once everybody else has heard of its revocation, is never taken.

use mangrove_crdt::id::{Plane, SectionId};

use super::{Invariant, Violation, lattice::Moment};
use crate::oracle::{Mark, Oracle};

/// A node's frontier covers a record now: it must not be an outcast's.
///
/// # Errors
/// It is.
pub fn covered(oracle: &Oracle, moment: Moment<'_>, id: SectionId, plane: Plane, mark: Mark) -> Result<(), Violation> {
    match oracle.get(id, plane, mark) {
        Some(written) if written.outcast && written.by.0 != moment.by.0 => {
            let what = format!("node {}: it took {plane:?} record {:?} of {id}, which a revoked node wrote", moment.name, oracle.dot(mark));
            Err(Violation::new(Invariant::S18, what))
        }
        _ => Ok(()),
    }
}
