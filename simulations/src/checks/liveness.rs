//! L1: once the faults are over, everybody who lives becomes equal within the scenario's bound.

use super::{Invariant, Violation};
use crate::scenario::Time;

/// The bound has passed, and this still differs.
pub fn violation(bound: Time, what: &str) -> Violation {
    Violation::new(Invariant::L1, format!("{} s after the faults {what}", bound as f64 / 1e6))
}
