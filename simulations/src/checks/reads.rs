//! S10: what one subscription is told of a topic never goes back. (S11, that when all is quiet the last that it was told is what stands, is looked at once, in the end.)
//!
//! Of one topic: a path may be another topic's from one moment to the next, without a word where both have the same definition. The value of a creation
//! that survives the removal of its twin may be older than the twin's. Events of a series come in whatever order their nodes meet in; each by itself does not go back.

use std::collections::{BTreeMap, BTreeSet};

use super::{Invariant, Violation};
use crate::history::History;
use crate::oracle::{EventMark, Mark, Oracle, Rank, Record};
use mangrove_crdt::{definition::TopicType, id::Plane, paged::Summary, path::Path, registers::Write, replica::Replica};

/// The operation whose value was told last, with its topic and its rank.
type Last = (u32, Option<(Mark, Rank)>);

/// A list, by the process that has it and its path there.
type ListOf = ((u32, u32), String);

/// What whoever may read a path is to see at a node: the path of the topic whose value it is, which for a slave is its master's, and that value; `None` if there is no topic, or
/// one that waits for its master.
pub fn visible<'r>(replica: &'r Replica, path: &Path) -> Option<(&'r Path, Option<&'r Write>)> {
    let (mut id, mut topic) = replica.topic(path)?;
    if let TopicType::Slave(master) = topic.definition.topic_type() {
        (id, topic) = replica.topic(master)?;
        if let TopicType::Slave(_) = topic.definition.topic_type() {
            return None;
        }
    }
    Some((&topic.path, replica.section(id)?.value_of(replica.origins(), topic)))
}

/// What one subscription has been told.
#[derive(Debug, Default)]
pub struct Told {
    /// The topics that are there, as far as it knows, each with the operation whose value it was told last, and what that one's topic and rank are.
    /// A value that its node wrote before it knew of the section has none: it moved there later.
    pub topics: BTreeMap<String, Option<Last>>,
    /// Their types, by name.
    types: BTreeMap<String, String>,
    /// The events that it was told, by path, topic and event, each with the rank of what it was last told of it.
    events: BTreeMap<(String, Mark, EventMark), Rank>,
    /// The operations whose values it was told, by path.
    heard: BTreeMap<String, BTreeSet<u32>>,
    /// Of which the next may be older.
    doubted: BTreeSet<String>,
    /// What it was told last that a list has come to, by path, and which list that was: a slave may be made anew, with another master.
    lists: BTreeMap<String, (ListOf, Summary)>,
}

impl Told {
    /// A topic appeared, or was made anew.
    pub fn added(&mut self, path: &str, topic_type: &str) {
        self.topics.insert(path.to_owned(), None);
        self.types.insert(path.to_owned(), topic_type.to_owned());
    }

    /// The type that a topic was said to have.
    pub fn topic_type(&self, path: &str) -> Option<&str> {
        self.types.get(path).map(String::as_str)
    }

    /// A topic is gone.
    pub fn removed(&mut self, path: &str) {
        self.events.retain(|(of, ..), _| of != path);
        self.heard.remove(path);
        self.topics.remove(path);
        self.types.remove(path);
    }

    /// What comes now may be older than what was told: its node has said so.
    pub fn rewound(&mut self) {
        self.events.clear();
        self.doubted = self.topics.keys().cloned().collect();
    }

    /// A value came, of this operation.
    ///
    /// # Errors
    /// It is older than the one before.
    pub fn value(&mut self, oracle: &Oracle, history: &History, home: &str, path: &str, op: u32) -> Result<(), Violation> {
        self.heard.entry(path.to_owned()).or_default().insert(op);
        let written = history.get(op).and_then(|op| op.value);
        let written = written.and_then(|(section, mark)| match &oracle.get(section, Plane::Values, mark)?.record {
            Record::Value { topic, event, stamp, .. } => Some((*topic, *event, oracle.rank(stamp, mark))),
            _ => None,
        });
        let backwards = |earlier: &str| {
            let what = format!("node {home}: a subscriber is told operation {op} of {path} after {earlier}, which is newer");
            Err(Violation::new(Invariant::S10, what))
        };
        if let Some((topic, Some(event), rank)) = &written {
            self.topics.insert(path.to_owned(), Some((op, None)));
            let before = self.events.insert((path.to_owned(), *topic, *event), rank.clone());
            return if before.is_some_and(|before| *rank < before) { backwards("something else of that event") } else { Ok(()) };
        }
        let written = written.map(|(topic, _, rank)| (topic, rank));
        let before = self.topics.insert(path.to_owned(), Some((op, written.clone()))).flatten();
        let (Some((earlier, Some((of, before)))), Some((topic, rank))) = (before, written) else { return Ok(()) };
        if of == topic && rank < before && !self.doubted.remove(path) {
            return backwards(&format!("operation {earlier}"));
        }
        Ok(())
    }

    /// What a list has come to that its node has at a path; others have others there, or none.
    ///
    /// # Errors
    /// It has come to more already.
    pub fn list(&mut self, home: &str, of: ListOf, path: &str, summary: Summary) -> Result<(), Violation> {
        match self.lists.insert(path.to_owned(), (of.clone(), summary)) {
            Some((of_before, before)) if of_before == of && before.revision > summary.revision => {
                let what = format!("node {home}: a subscriber is told of the list {path}: {summary:?}, after {before:?}");
                Err(Violation::new(Invariant::S10, what))
            }
            _ => Ok(()),
        }
    }

    /// What it was told last that a list has come to.
    pub fn list_at(&self, path: &str) -> Option<Summary> {
        self.lists.get(path).map(|(_, summary)| *summary)
    }

    /// Whether it was told, ever since it has known of a topic, what an operation has written.
    pub fn has_heard(&self, path: &str, op: u32) -> bool {
        self.heard.get(path).is_some_and(|heard| heard.contains(&op))
    }
}
