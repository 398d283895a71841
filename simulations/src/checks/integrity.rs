//! S9: every value that a node holds or delivers is, byte for byte, one that was written, and a write that failed is never seen.
//!
//! Values name the operation that wrote them, so each is looked up; the rest of their bytes follows from the operation's number.

use mangrove_crdt::{
    id::{Plane, SectionId},
    registers::Write,
    replica::Replica,
};

use super::{Invariant, Violation, lattice::Moment};
use crate::{
    history::{History, Outcome},
    oracle::{Mark, Oracle, Record, hash},
    values::Kind,
};

/// A node holds a value: it must be the one written under this dot, to this topic.
///
/// # Errors
/// Something else stands there.
pub fn held(
    oracle: &mut Oracle,
    moment: Moment<'_>,
    replica: &Replica,
    id: SectionId,
    topic: Mark,
    write: &Write,
) -> Result<(), Violation> {
    let mark = oracle.mark(replica, write.dot);
    let bytes = write.value.as_deref().unwrap_or_default();
    let what = match oracle.get(id, Plane::Values, mark).map(|written| &written.record) {
        Some(Record::Value { topic: to, hash: of, .. }) if *to == topic && *of == hash(bytes) => return Ok(()),
        Some(Record::Value { topic: to, .. }) if *to != topic => format!("was written to {:?}", oracle.dot(*to)),
        Some(Record::Value { .. }) => "has other bytes than were written".to_owned(),
        _ => "was never written".to_owned(),
    };
    let what = format!("node {}: the value {:?} of topic {:?} {what}", moment.name, oracle.dot(mark), oracle.dot(topic));
    Err(Violation::new(Invariant::S9, what))
}

/// A value is delivered to a subscriber: it must be one that was written to this path, or to that of the topic that stands for it, of the type that the subscriber was told, and
/// did not fail.
///
/// # Errors
/// It is not.
pub fn delivered(history: &History, home: &str, (path, topic_type): (&str, Option<&str>), value: &[u8]) -> Result<u32, Violation> {
    let wrong = |what: &str| Violation::new(Invariant::S9, format!("node {home}: it delivers a value of {path} that {what}"));
    let written = history.op_of(value).ok_or_else(|| wrong("names no operation"))?;
    if written.path != path || written.value().as_deref() != Some(value) {
        return Err(wrong("is another operation's, or has other bytes"));
    }
    let kind = topic_type.and_then(Kind::of_name).unwrap_or(written.payload.kind);
    // Some values are good for other types, too.
    if kind != written.payload.kind && !kind.takes(value) {
        return Err(wrong("is none of its topic's type"));
    }
    if written.outcome == Outcome::Failed {
        return Err(wrong("was refused to its writer"));
    }
    Ok(written.id)
}
