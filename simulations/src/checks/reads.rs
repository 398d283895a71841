//! S10: what one subscription is told of a topic never goes back, and when all is quiet the last that it was told is what stands.
//!
//! Of one topic: a path may be another topic's from one moment to the next, without a word where both have the same definition. The value of a creation
//! that survives the removal of its twin may be older than the twin's.

use std::collections::BTreeMap;

use super::{Invariant, Violation};
use crate::oracle::{Mark, Oracle, Rank, Record};
use crate::history::History;
use mangrove_crdt::id::Plane;

/// What one subscription has been told.
#[derive(Debug, Default)]
pub struct Told {
    /// The topics that are there, as far as it knows, each with the newest value that it was told.
    pub topics: BTreeMap<String, Option<(Rank, u32, Mark)>>,
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
        let Some(Record::Value { topic, seq, .. }) = oracle.get(section, Plane::Values, mark).map(|written| &written.record) else { return Ok(()) };
        let rank = oracle.rank(*seq, mark);
        let before = self.topics.insert(path.to_owned(), Some((rank, op, *topic))).flatten();
        match before {
            Some((before, earlier, of)) if rank < before && of == *topic => {
                let what = format!("node {home}: a subscriber is told operation {op} of {path} after operation {earlier}, which is newer");
                Err(Violation::new(Invariant::S10, what))
            }
            _ => Ok(()),
        }
    }
}
