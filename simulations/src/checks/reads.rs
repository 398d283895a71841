//! S10: what one subscription is told of a topic never goes back, and when all is quiet the last that it was told is what stands.

use std::collections::BTreeMap;

use super::{Invariant, Violation};
use crate::oracle::{Oracle, Rank, Record};
use crate::history::History;
use mangrove_crdt::id::Plane;

/// What one subscription has been told.
#[derive(Debug, Default)]
pub struct Told {
    /// The topics that are there, as far as it knows, each with the newest value that it was told.
    pub topics: BTreeMap<String, Option<(Rank, u32)>>,
}

impl Told {
    /// A topic appeared, or was made anew.
    pub fn added(&mut self, path: &str) {
        self.topics.insert(path.to_owned(), None);
    }

    /// A topic is gone.
    pub fn removed(&mut self, path: &str) {
        self.topics.remove(path);
    }

    /// A value came, of this operation.
    ///
    /// # Errors
    /// It is older than the one before.
    pub fn value(&mut self, oracle: &Oracle, history: &History, home: &str, path: &str, op: u32) -> Result<(), Violation> {
        let Some((section, mark)) = history.get(op).and_then(|op| op.value) else { return Ok(()) };
        let Some(Record::Value { seq, .. }) = oracle.get(section, Plane::Values, mark).map(|written| &written.record) else { return Ok(()) };
        let rank = oracle.rank(*seq, mark);
        let before = self.topics.insert(path.to_owned(), Some((rank, op))).flatten();
        match before {
            Some((before, earlier)) if rank < before => {
                let what = format!("node {home}: a subscriber is told operation {op} of {path} after operation {earlier}, which is newer");
                Err(Violation::new(Invariant::S10, what))
            }
            _ => Ok(()),
        }
    }
}
