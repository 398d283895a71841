//! S7: what was acknowledged at a durability is there in the end, or something newer, or its topic was removed; and what lost to a concurrent write is in
//! its section's displaced log, which is the same wherever the section is held.
//!
//! Loss is permitted only where every node covered by the durability has lost its disk since the acknowledgement: for `memory` the
//! process that took the write, for `disk` its disk, for `mesh(k)` its disk and those of at least k others. Which k nodes had a copy is not
//! known to the client, so a run in which k others lost theirs later proves nothing about such a write.

use std::collections::BTreeSet;

use mangrove_crdt::{
    definition::Durability,
    displaced::ENTRIES_MAX,
    id::{DisplacedId, Dot, Plane, SectionId},
    replica::Replica,
};

use super::{Invariant, Violation};
use crate::{
    history::{Doing, History, Op, Outcome},
    oracle::{self, EventMark, Mark, Oracle, Record},
    scenario::Time,
};

/// When each host lost what was on its disk, and when its process ended other than in good order.
#[derive(Debug, Default)]
pub struct Losses {
    /// Of disks.
    pub disks: Vec<Vec<Time>>,
    /// Of processes.
    pub processes: Vec<Vec<Time>>,
}

impl Losses {
    /// Whether an operation's effect may be gone.
    pub fn permit(&self, op: &Op) -> bool {
        let host = op.by.0 as usize;
        let since = |times: &[Time]| times.iter().any(|at| *at >= op.ended);
        let own = since(&self.disks[host]);
        match op.durability {
            Durability::Memory => own || since(&self.processes[host]),
            Durability::Disk => own,
            Durability::Mesh(copies) => {
                let others = self.disks.iter().enumerate().filter(|(at, times)| *at != host && since(times)).count();
                own && others >= usize::from(copies)
            }
        }
    }

    /// Whether any disk was ever lost.
    pub fn any_disk(&self) -> bool {
        self.disks.iter().any(|times| !times.is_empty())
    }
}

/// A value is newer than all that its writer knew of its topic: an older one would be lost as it is written, whatever its client is told.
///
/// # Errors
/// It is not.
pub fn written(oracle: &Oracle, name: &str, id: mangrove_crdt::id::SectionId, mark: Mark) -> Result<(), Violation> {
    let record = |mark: Mark| oracle.get(id, Plane::Values, mark).map(|written| &written.record);
    let Some(Record::Value { event, stamp, seen, .. }) = record(mark) else { return Ok(()) };
    for known in seen {
        // That events are forgotten overtakes them, whatever their stamps.
        let Some(Record::Value { stamp: of_known, .. }) =
            record(*known).filter(|known| matches!(known, Record::Value { event: of, .. } if of == event))
        else {
            continue;
        };
        if oracle.rank(of_known, *known) > oracle.rank(stamp, mark) {
            let what =
                format!("node {name}: it writes {:?}, which is older than {:?}, which it knows", oracle.dot(mark), oracle.dot(*known));
            return Err(Violation::new(Invariant::S7, what));
        }
    }
    Ok(())
}

/// At the end, at a node that has become equal to all others: whatever was acknowledged is there. Returns how much is permitted to be lost and is.
///
/// # Errors
/// Something is lost.
pub fn ended(oracle: &Oracle, history: &History, losses: &Losses, name: &str, replica: &Replica) -> Result<u64, Violation> {
    let mut permitted = 0;
    for op in history.iter().filter(|op| op.outcome == Outcome::Ok) {
        let lost = match op.doing {
            Doing::Set => lost_value(oracle, replica, op),
            Doing::Add => lost_topic(oracle, replica, op),
            Doing::Remove | Doing::Lines | Doing::Send | Doing::Other => None,
        };
        let Some(what) = lost else { continue };
        if losses.permit(op) {
            permitted += 1;
            continue;
        }
        let what = format!(
            "node {name}: operation {} ({:?} of {}, acknowledged at {:?} after {} us) is lost: {what}",
            op.id, op.doing, op.path, op.durability, op.ended
        );
        return Err(Violation::new(Invariant::S7, what));
    }
    Ok(permitted)
}

fn lost_topic(oracle: &Oracle, replica: &Replica, op: &Op) -> Option<String> {
    op.made.iter().find_map(|(id, topic)| {
        let facts = oracle.topics.get(&(*id, *topic))?;
        let section = replica.section(*id)?;
        let lives = oracle.local(replica, *topic).is_some_and(|topic| section.tree.path_of(topic).is_some());
        (!lives && facts.removals.is_empty()).then(|| format!("topic {:?} is not there, and nobody removed it", oracle.dot(*topic)))
    })
}

fn lost_value(oracle: &Oracle, replica: &Replica, op: &Op) -> Option<String> {
    let (id, mark) = op.value?;
    let Record::Value { topic, event, stamp, .. } = &oracle.get(id, Plane::Values, mark)?.record else { return None };
    let facts = oracle.topics.get(&(id, *topic))?;
    if !facts.removals.is_empty() {
        return None;
    }
    let section = replica.section(id)?;
    let key = oracle.local_key(replica, *topic, *event);
    if key.is_some_and(|key| oracle::is_forgotten(section, key)) {
        return None;
    }
    let held = key.and_then(|key| section.values.get(&key)).map(|write| oracle.rank_of(replica, write));
    let rank = Some(oracle.rank(stamp, mark));
    (held < rank).then(|| format!("it had the stamp {rank:?}, there is {held:?}"))
}

/// At the end: whoever holds a section lists the same of its displaced log.
///
/// # Errors
/// Two do not.
pub fn same_logs(replicas: &[(&str, &Replica)]) -> Result<(), Violation> {
    let mut first: std::collections::BTreeMap<SectionId, (&str, BTreeSet<DisplacedId>)> = Default::default();
    for (name, replica) in replicas {
        for id in replica.held() {
            let listed: BTreeSet<_> = replica.displaced_ids(id).into_iter().collect();
            let (other, of_other) = first.entry(id).or_insert_with(|| (name, listed.clone()));
            if let Some(entry) = of_other.symmetric_difference(&listed).next() {
                let what = format!("of {other} and {name} only one lists {entry} in the displaced log of {id}");
                return Err(Violation::new(Invariant::S7, what));
            }
        }
    }
    Ok(())
}

/// At the end, where no disk was ever lost: each acknowledged value that no later writer knew of is the visible one, or in its section's displaced log.
///
/// # Errors
/// One is neither.
pub fn displaced(oracle: &Oracle, history: &History, replicas: &[(&str, &Replica)]) -> Result<(), Violation> {
    let Some((_, any)) = replicas.first() else { return Ok(()) };
    // The greatest number of each origin that some writer of the topic knew of.
    let mut known: std::collections::BTreeMap<(mangrove_crdt::id::SectionId, Mark, Option<EventMark>, u32), u64> = Default::default();
    for (id, mark, written) in oracle.values() {
        let Record::Value { topic, event, seen, .. } = &written.record else { continue };
        // A writer knows its own earlier writes.
        let own = Mark { origin: mark.origin, number: mark.number - 1 };
        for seen in seen.iter().copied().chain([own]) {
            let upto = known.entry((id, *topic, *event, seen.origin)).or_default();
            *upto = (*upto).max(seen.number);
        }
    }
    // All logs are the same, as far as they are held.
    let mut sections = BTreeSet::new();
    let first = replicas.iter().filter(|(_, replica)| replica.held().filter(|id| sections.insert(*id)).count() > 0);
    let logged: BTreeSet<(SectionId, Dot)> =
        first.flat_map(|(_, replica)| replica.displaced()).map(|(_, entry)| (entry.section, entry.dot)).collect();
    let is_full = |id: SectionId| logged.iter().filter(|(section, _)| *section == id).count() >= ENTRIES_MAX;
    for op in history.iter().filter(|op| op.outcome == Outcome::Ok && op.doing == Doing::Set) {
        let Some((id, mark)) = op.value else { continue };
        let Some(Record::Value { topic, event, .. }) = oracle.get(id, Plane::Values, mark).map(|written| &written.record) else { continue };
        if known.get(&(id, *topic, *event, mark.origin)).is_some_and(|upto| *upto >= mark.number) {
            continue;
        }
        let place = oracle.local_key(any, *topic, *event).zip(any.section(id));
        if place.is_some_and(|(key, section)| oracle::is_forgotten(section, key)) {
            continue;
        }
        let stands = place.and_then(|(key, section)| section.values.get(&key));
        let stands = stands.is_some_and(|write| any.dot(write.dot) == oracle.dot(mark));
        let dot = oracle.dot(mark);
        if stands || logged.contains(&(id, dot)) {
            continue;
        }
        // What its topic's remover knew of is no loss; and a full log has lost its oldest.
        if is_full(id) || oracle.topics.get(&(id, *topic)).is_some_and(|facts| !facts.removals.is_empty()) {
            continue;
        }
        let what =
            format!("operation {} ({}, {dot:?}) lost to a write that had not seen it, and is not in the displaced log", op.id, op.path);
        return Err(Violation::new(Invariant::S7, what));
    }
    Ok(())
}
