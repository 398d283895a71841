//! S19: whatever arrives, no node panics, and none logs an error.

use super::{Invariant, Violation};

/// A panic in the node, or in the simulator, which is as bad.
pub fn panicked(message: &str) -> Violation {
    Violation::new(Invariant::S19, format!("panic: {message}"))
}

/// What a node logs when it learns that it was revoked: an error for its operator, and here what is expected of it.
const EXPELLED: &str = "this node was revoked";

/// Looks at the errors that were logged.
///
/// # Errors
/// One that is not expected.
pub fn logged(errors: &[String], revoked: bool) -> Result<(), Violation> {
    let unexpected = errors.iter().find(|error| !(revoked && error.starts_with(EXPELLED)));
    match unexpected {
        None => Ok(()),
        Some(error) => Err(Violation::new(Invariant::S19, format!("an error was logged: {error}"))),
    }
}
