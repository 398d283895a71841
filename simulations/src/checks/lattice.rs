//! S3: frontiers are sound after every step, and a node's state never goes down.
//!
//! A frontier is a claim: for every record that it covers the node holds that record, or something newer for its key, or knows its removal. So when a
//! frontier moves from `a` to `b`, exactly the records in `(a, b]` are looked at; and whenever a node hands rows of registers to its store
//! (which names every key that was changed, lowered or dropped), these keys are looked at again, against all that the frontier covers.

use std::collections::BTreeMap;

use mangrove_crdt::{
    frontier::{DotIx, OriginIx},
    id::{Plane, SectionId},
    persist::{Row, Table},
    replica::Replica,
    rows,
    section::Section,
    series::ValueKey,
};

use super::{Invariant, Violation, fences, integrity, numbering};
use crate::{
    oracle::{self, About, Mark, Oracle, Rank, Record},
    scenario::Time,
};

/// What was seen of one node's process.
#[derive(Debug, Default)]
pub struct View {
    process: u32,
    /// How often the node's frontiers, and the sections that it holds, had changed.
    changes: u64,
    /// The oracle's number of each origin of the node.
    origins: Vec<u32>,
    /// The node's of each of the oracle's, as far as the node has heard of it.
    locals: Vec<Option<OriginIx>>,
    sections: BTreeMap<SectionId, Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    holding: u64,
    frontiers: [Vec<u64>; 3],
    /// How often they had changed.
    changes: [u64; 3],
    /// The highest epoch.
    epoch: u64,
    /// The greatest rank that each topic's value had.
    ranks: BTreeMap<ValueKey, Rank>,
}

/// Who is looked at, and when.
#[derive(Clone, Copy, Debug)]
pub struct Moment<'a> {
    /// True time.
    pub at: Time,
    /// The host and its process.
    pub by: (u32, u32),
    /// Its name.
    pub name: &'a str,
    /// Everybody else has heard that it was revoked.
    pub outcast: bool,
}

impl View {
    /// Looks at everything in which a node has come further since it was looked at last.
    ///
    /// # Errors
    /// The first violation.
    pub fn step(&mut self, oracle: &mut Oracle, moment: Moment<'_>, replica: &Replica, about: Option<&About>) -> Result<(), Violation> {
        if self.process != moment.by.1 {
            *self = View { process: moment.by.1, ..View::default() };
        }
        for at in self.origins.len()..replica.origins().len() {
            let local = OriginIx(at as u32);
            let number = oracle.intern(replica.origins().get(local));
            self.origins.push(number);
            if self.locals.len() <= number as usize {
                self.locals.resize(number as usize + 1, None);
            }
            self.locals[number as usize] = Some(local);
        }
        if std::mem::replace(&mut self.changes, replica.changes()) == replica.changes() {
            return Ok(());
        }
        if self.sections.len() > 1 {
            self.sections.retain(|id, _| replica.section(*id).is_some());
        }
        for id in replica.held() {
            let Some(section) = replica.section(id) else { continue };
            let holding = replica.holding(id).unwrap_or(0);
            let seen = self.sections.entry(id).or_default();
            if seen.holding != holding {
                *seen = Seen { holding, ..Seen::default() };
            }
            fences::risen(moment.name, id, std::mem::replace(&mut seen.epoch, section.epoch()), section.epoch())?;
            let mut moved = Vec::new();
            for plane in Plane::ALL {
                let frontier = section.frontier(plane);
                if std::mem::replace(&mut seen.changes[plane as usize], frontier.changes()) == frontier.changes() {
                    continue;
                }
                let before = &mut seen.frontiers[plane as usize];
                before.resize(self.origins.len(), 0);
                for (at, before) in before.iter_mut().enumerate() {
                    let now = frontier.get(OriginIx(at as u32));
                    if now == *before {
                        continue;
                    }
                    if now < *before {
                        let what = format!(
                            "node {}: its {plane:?} frontier of {id} for {} fell from {before} to {now}",
                            moment.name,
                            replica.origins().get(OriginIx(at as u32))
                        );
                        return Err(Violation::new(Invariant::S3, what));
                    }
                    moved.push((plane, OriginIx(at as u32), *before, now));
                    *before = now;
                }
            }
            // What is new first: a value's topic may have been made by the same step.
            moved.sort_by_key(|(plane, ..)| *plane != Plane::Tree);
            for (plane, origin, after, upto) in &moved {
                let (plane, origin) = (*plane, *origin);
                if replica.origins().get(origin).node == replica.own().node {
                    numbering::grown(oracle, moment, replica, (id, plane), origin, (*after, *upto), about)?;
                    if plane == Plane::Values {
                        let origin = self.origins[origin.0 as usize];
                        (*after + 1..=*upto)
                            .try_for_each(|number| super::durability::written(oracle, moment.name, id, Mark { origin, number }))?;
                    }
                }
            }
            for (plane, origin, after, upto) in moved {
                let origin = self.origins[origin.0 as usize];
                if oracle.written(id, plane, origin) < upto {
                    let what = format!(
                        "node {}: its {plane:?} frontier of {id} covers {} of {}, who has written {}",
                        moment.name,
                        upto,
                        oracle.origin(origin),
                        oracle.written(id, plane, origin)
                    );
                    return Err(Violation::new(Invariant::S3, what));
                }
                for number in after + 1..=upto {
                    covered(oracle, moment, replica, section, id, plane, Mark { origin, number })?;
                }
            }
        }
        Ok(())
    }

    /// Looks again at the keys that a node hands to its store.
    ///
    /// # Errors
    /// The first violation.
    pub fn stored(&mut self, oracle: &mut Oracle, moment: Moment<'_>, replica: &Replica, rows: &[Row]) -> Result<(), Violation> {
        for row in rows.iter().filter(|row| row.table == Table::Registers) {
            let Some((id, rest)) = rows::split_section(&row.key) else { continue };
            let (Some((Plane::Values, key)), Some(section)) = (rows::split_plane(rest), replica.section(id)) else { continue };
            let (Some(key), true) = (rows::parse_value_key(key), id != SectionId::LOCAL) else { continue };
            self.key(oracle, moment, replica, section, id, key)?;
        }
        Ok(())
    }

    /// Looks at all topics of a node.
    ///
    /// # Errors
    /// The first violation.
    pub fn all(&mut self, oracle: &mut Oracle, moment: Moment<'_>, replica: &Replica) -> Result<(), Violation> {
        for id in replica.held().filter(|id| *id != SectionId::MESH) {
            let Some(section) = replica.section(id) else { continue };
            let topics: Vec<DotIx> =
                oracle.topics.keys().filter(|(section, _)| *section == id).filter_map(|(_, mark)| oracle.local(replica, *mark)).collect();
            for topic in topics {
                self.key(oracle, moment, replica, section, id, topic.into())?;
                for key in section.keys_of(topic).filter(|key| key.as_event().is_some()) {
                    self.key(oracle, moment, replica, section, id, key)?;
                }
            }
        }
        Ok(())
    }

    /// One topic: what is held is at least what every covered write of it demands, and not lower than before.
    fn key(
        &mut self,
        oracle: &mut Oracle,
        moment: Moment<'_>,
        replica: &Replica,
        section: &Section,
        id: SectionId,
        key: ValueKey,
    ) -> Result<(), Violation> {
        let topic = key.topic();
        let (mark, event) = (oracle.mark(replica, topic), key.as_event().map(|event| oracle.event_mark(replica, event)));
        let held = section.values.get(&key);
        if let Some(write) = held {
            integrity::held(oracle, moment, replica, id, mark, write)?;
        }
        let held = held.map(|write| oracle.rank_of(replica, write));
        let Some(facts) = oracle.topics.get(&(id, mark)) else { return Ok(()) };
        if is_gone(oracle, replica, section, topic, mark, id) || oracle::is_forgotten(section, key) {
            return Ok(());
        }
        let frontier = section.values.frontier();
        let writes = match event {
            Some(event) => facts.events.get(&event),
            None => Some(&facts.writes),
        };
        let demanded = writes.into_iter().flatten().filter_map(|(origin, writes)| {
            let upto = frontier.get(self.locals.get(*origin as usize).copied()??);
            let (number, stamp) = &writes[..writes.partition_point(|(number, _)| *number <= upto)].last()?;
            Some(oracle.rank(stamp, Mark { origin: *origin, number: *number }))
        });
        let demanded = demanded.max();
        if held < demanded {
            let what = format!(
                "node {}: it covers the value {demanded:?} of {} and holds {held:?}; its topic lives: {}",
                moment.name,
                facts.path,
                section.tree.path_of(topic).is_some()
            );
            return Err(Violation::new(Invariant::S3, what));
        }
        let Some(seen) = self.sections.get_mut(&id) else { return Ok(()) };
        let before = seen.ranks.get(&key).cloned();
        if held < before {
            let what = format!("node {}: its value of {} went down from {before:?} to {held:?}", moment.name, facts.path);
            return Err(Violation::new(Invariant::S3, what));
        }
        seen.ranks.extend(held.map(|held| (key, held)));
        Ok(())
    }
}

/// Whether a topic is gone at a node, and rightly so: it was removed, and the node knows that, or has seen the topic and it is not there.
fn is_gone(oracle: &Oracle, replica: &Replica, section: &Section, topic: DotIx, mark: Mark, id: SectionId) -> bool {
    let Some(facts) = oracle.topics.get(&(id, mark)) else { return false };
    if facts.removals.is_empty() {
        return false;
    }
    let tree = section.tree.frontier();
    let unseen = tree.covers(topic) && section.tree.path_of(topic).is_none() && section.tree.is_settled();
    let covers = |removal: &Mark| oracle.local(replica, *removal).is_some_and(|removal| tree.covers(removal));
    unseen || facts.removals.iter().any(covers)
}

/// A frontier covers a record now: what it claims must be so.
fn covered(
    oracle: &mut Oracle,
    moment: Moment<'_>,
    replica: &Replica,
    section: &Section,
    id: SectionId,
    plane: Plane,
    mark: Mark,
) -> Result<(), Violation> {
    super::membership::covered(oracle, moment, id, plane, mark)?;
    let Some(written) = oracle.get(id, plane, mark) else { return Ok(()) };
    let unsound = |what: String| Err(Violation::new(Invariant::S3, format!("node {}: unsound: {what}", moment.name)));
    match &written.record {
        Record::Value { topic, event, stamp, .. } => {
            let Some(local) = oracle.local(replica, *topic) else {
                return unsound(format!("it covers the value {:?} and has not heard of its topic's origin", oracle.dot(mark)));
            };
            if is_gone(oracle, replica, section, local, *topic, id) {
                return Ok(());
            }
            let key = oracle.local_key(replica, *topic, *event).unwrap_or(local.into());
            if oracle::is_forgotten(section, key) {
                return Ok(());
            }
            let held = section.values.get(&key);
            let rank = held.map(|write| oracle.rank_of(replica, write));
            let lives = section.tree.path_of(local).is_some();
            let knows = section.tree.frontier().covers(local);
            // Whoever adopts from it takes its word for the topic, too. Documents may hold a removal beyond their frontier.
            let removed = !section.tree.is_settled() && oracle.topics.get(&(id, *topic)).is_some_and(|facts| !facts.removals.is_empty());
            if rank < Some(oracle.rank(stamp, mark)) || !(lives || knows || removed) {
                return unsound(format!(
                    "it covers the value {:?} of topic {:?} (event {event:?}) and holds {rank:?}; the topic lives: {lives}, is covered: {knows}",
                    oracle.dot(mark),
                    oracle.dot(*topic)
                ));
            }
            let topic = *topic;
            match held {
                Some(write) => integrity::held(oracle, moment, replica, id, topic, write),
                None => Ok(()),
            }
        }
        Record::Created => {
            let lives = oracle.local(replica, mark).is_some_and(|topic| section.tree.path_of(topic).is_some());
            let removed = oracle.topics.get(&(id, mark)).is_none_or(|facts| !facts.removals.is_empty());
            if lives || removed {
                Ok(())
            } else {
                unsound(format!("it covers the topic {:?}, which nobody removed, and has it not", oracle.dot(mark)))
            }
        }
        Record::Removed(topics) => super::resurrection::covered(oracle, moment, replica, section, topics, mark),
        Record::Standing { key, stamp, .. } => {
            let rank = section.standing.get(key).map(|write| oracle.rank_of(replica, write));
            let demanded = oracle.rank(stamp, mark);
            super::resurrection::standing(oracle, moment.name, replica, key)?;
            // A removal that everybody knows is forgotten, and with it what it removed.
            if oracle.gone.get(key).is_some_and(|gone| gone.rank >= demanded) {
                return Ok(());
            }
            if rank.as_ref() >= Some(&demanded) {
                Ok(())
            } else {
                unsound(format!("it covers the standing record {demanded:?} and holds {rank:?}"))
            }
        }
        Record::Other => Ok(()),
    }
}
