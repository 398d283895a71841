//! S4: in a section arbitrated by quorum nobody begins to hold a branch while, by its own clock, another node holds it yet, as long as all clocks have run within the
//! bound that the section relies on. And, whatever clocks do, no epoch of a branch ever serves two sessions.
//!
//! Both are looked at when somebody begins to hold: all holding is by leases that end by a clock, so whoever is not seen then has either ended or begins later.

use std::collections::BTreeMap;

use mangrove_crdt::id::SessionId;

use super::{Invariant, Violation};

/// Under which epochs branches were held, and by whom.
#[derive(Debug, Default)]
pub struct Leases {
    epochs: BTreeMap<(String, u64), SessionId>,
}

impl Leases {
    /// A session begins to hold a branch. `forgetful`: a disk has lost what it had said to have, perhaps a voter's word.
    ///
    /// # Errors
    /// Another session has held it under this epoch.
    pub fn held(&mut self, branch: &str, session: SessionId, epoch: u64, forgetful: bool) -> Result<(), Violation> {
        let first = *self.epochs.entry((branch.to_owned(), epoch)).or_insert(session);
        if first == session || forgetful {
            return Ok(());
        }
        let what = format!("epoch {epoch} of {branch} has served session {} and now serves {}", first.short(), session.short());
        Err(Violation::new(Invariant::S4, what))
    }
}

/// A node begins to hold a branch, while these hold it as well. `kept`: clocks and disks have done what the protocol relies on.
///
/// # Errors
/// There are any.
pub fn alone<'a>(branch: &str, name: &str, mut others: impl Iterator<Item = &'a str>, kept: bool) -> Result<(), Violation> {
    match others.next() {
        Some(other) if kept => {
            Err(Violation::new(Invariant::S4, format!("node {name} begins to hold {branch} while node {other} holds it by its own clock")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_sessions_under_one_epoch_are_seen_and_so_are_two_holders() {
        let (one, two) = (SessionId([1; 16]), SessionId([2; 16]));
        let mut leases = Leases::default();
        assert_eq!(leases.held("a", one, 1, false), Ok(()));
        assert_eq!(leases.held("a", one, 1, false), Ok(()));
        assert_eq!(leases.held("b", two, 1, false), Ok(()));
        assert_eq!(leases.held("a", two, 1, true), Ok(()));
        assert_eq!(leases.held("a", two, 1, false).map_err(|violation| violation.invariant), Err(Invariant::S4));
        assert_eq!(alone("a", "A", std::iter::empty(), true), Ok(()));
        assert_eq!(alone("a", "A", ["B"].into_iter(), false), Ok(()));
        assert_eq!(alone("a", "A", ["B"].into_iter(), true).map_err(|violation| violation.invariant), Err(Invariant::S4));
    }
}
