//! L5: a run ends. One that takes more events than the scenario allows does the same again and again.

use super::{Invariant, Violation};

/// Looks at how many events there were.
///
/// # Errors
/// More than allowed.
pub fn events(events: u64, max: u64) -> Result<(), Violation> {
    if events <= max {
        return Ok(());
    }
    Err(Violation::new(Invariant::L5, format!("the run has taken {events} events, at most {max} are allowed")))
}
