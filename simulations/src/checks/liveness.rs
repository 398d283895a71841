//! L1: once the faults are over, everybody who lives becomes equal within the scenario's bound. L2: the same of a healthy core, if faults that have no end stay outside it;
//! and of L3, that every branch that is wanted there has a source.

use super::{Invariant, Violation};
use crate::scenario::Time;

/// The bound has passed, and this still differs, among the core or among all.
pub fn violation(core: bool, bound: Time, what: &str) -> Violation {
    Violation::new(if core { Invariant::L2 } else { Invariant::L1 }, format!("{} s after the faults {what}", bound as f64 / 1e6))
}
