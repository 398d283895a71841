//! What was ever written, as only the simulator knows it: every record by section, plane, origin and number.
//!
//! The node tells nobody what it writes, so the oracle looks: after each input it sees how far the node's own feeds have grown, and finds each
//! new number's write in the node. Everything that checkers compare nodes with comes from here, and nothing here asks a node twice.

use std::collections::BTreeMap;

use mangrove_crdt::{
    frontier::{DotIx, OriginIx},
    id::{Dot, NodeId, Origin, Plane, SectionId, SessionId},
    path::Path,
    registers::Write,
    replica::Replica,
    section::{Section, StandingKey},
    series::{EventIx, ValueKey},
    stamp::Stamp,
    tree::TreeRecord,
};

use rustc_hash::FxHashMap;

use crate::scenario::Time;

/// A dot, with its origin by the oracle's number for it: the same for all nodes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Mark {
    /// Whose.
    pub origin: u32,
    /// Which.
    pub number: u64,
}

/// What orders writes of one key: the stamp, then the origin itself, then the number.
pub type Rank = (Stamp, Origin, u64);

/// What was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Record {
    /// A value.
    Value {
        /// The topic.
        topic: Mark,
        /// Which of its events, if it is one.
        event: Option<EventMark>,
        /// Its stamp.
        stamp: Stamp,
        /// The operation that wrote it; none for one that moved with its section.
        op: Option<u32>,
        /// A hash of the bytes.
        hash: u64,
        /// The writes that its writer knew of.
        seen: Vec<Mark>,
    },
    /// A topic.
    Created,
    /// The removal of these topics.
    Removed(Vec<Mark>),
    /// A standing record.
    Standing {
        /// Its key.
        key: StandingKey,
        /// Its stamp.
        stamp: Stamp,
        /// Whether it removes what the key said.
        removal: bool,
    },
    /// Something that nothing hangs on: a change of the policy, a write that its own writer overtook at once.
    Other,
}

/// A record, and where it comes from.
#[derive(Clone, Debug)]
pub struct Written {
    /// The host and its process.
    pub by: (u32, u32),
    /// When.
    pub at: Time,
    /// What.
    pub record: Record,
    /// Everybody else had heard by then that its writer was revoked.
    pub outcast: bool,
}

/// The newest removal of a standing record.
#[derive(Clone, Debug)]
pub struct Gone {
    /// Its rank.
    pub rank: Rank,
    /// Where it stands.
    pub mark: Mark,
    /// What its writer knew of the standing plane.
    pub known: BTreeMap<Origin, u64>,
}

/// What is known of a topic.
#[derive(Clone, Debug)]
pub struct TopicFacts {
    /// Where.
    pub path: Path,
    /// The tree changes that removed it.
    pub removals: Vec<Mark>,
    /// Its values: for each origin the numbers, with the stamps, in order.
    pub writes: Writes,
    /// The same of its events.
    pub events: BTreeMap<EventMark, Writes>,
}

/// For each origin the numbers of writes, with the stamps, in order.
pub type Writes = BTreeMap<u32, Vec<(u64, Stamp)>>;

/// An event of a topic: its sequence, and the number of its origin.
pub type EventMark = (u64, u32);

/// What a client's operation is about, for finding its writes.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// Its number.
    pub op: u32,
    /// The paths that it writes to.
    pub paths: Vec<Path>,
    /// The topics that lived there before, if it removes them.
    pub removes: Vec<(SectionId, Mark)>,
    /// The branch, session and epoch that it writes under, if it writes as a source.
    pub under: Option<(Path, SessionId, u64)>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Oracle {
    origins: Vec<Origin>,
    index: FxHashMap<Origin, u32>,
    feeds: FxHashMap<(SectionId, u8, u32), Vec<Written>>,
    /// All topics that there ever were.
    pub topics: BTreeMap<(SectionId, Mark), TopicFacts>,
    /// The newest removal of each standing key.
    pub gone: BTreeMap<StandingKey, Gone>,
    /// How many records there are.
    pub records: u64,
}

/// A number given twice.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GivenTwice {
    /// The section.
    pub section: SectionId,
    /// The plane.
    pub plane: Plane,
    /// The number.
    pub dot: Dot,
}

impl Oracle {
    /// An origin's number here.
    pub fn intern(&mut self, origin: Origin) -> u32 {
        *self.index.entry(origin).or_insert_with(|| {
            self.origins.push(origin);
            self.origins.len() as u32 - 1
        })
    }

    /// The origin behind a number.
    pub fn origin(&self, number: u32) -> Origin {
        self.origins[number as usize]
    }

    /// A mark as a dot.
    pub fn dot(&self, mark: Mark) -> Dot {
        Dot { origin: self.origin(mark.origin), number: mark.number }
    }

    /// A node's name for a mark, if it has heard of its origin.
    pub fn local(&self, replica: &Replica, mark: Mark) -> Option<DotIx> {
        let origin = replica.origins().find(&self.origin(mark.origin))?;
        Some(DotIx { origin, number: mark.number })
    }

    /// A value or event by a node's own name, if it knows the origins.
    pub fn local_key(&self, replica: &Replica, topic: Mark, event: Option<EventMark>) -> Option<ValueKey> {
        let topic = self.local(replica, topic)?;
        match event {
            Some((sequence, origin)) => {
                let origin = replica.origins().find(&self.origin(origin))?;
                Some(ValueKey::event(topic, EventIx { sequence, origin }))
            }
            None => Some(topic.into()),
        }
    }

    /// A node's event, named for all.
    pub fn event_mark(&mut self, replica: &Replica, event: EventIx) -> EventMark {
        (event.sequence, self.intern(replica.origins().get(event.origin)))
    }

    /// A node's dot as a mark.
    pub fn mark(&mut self, replica: &Replica, dot: DotIx) -> Mark {
        Mark { origin: self.intern(replica.origins().get(dot.origin)), number: dot.number }
    }

    /// A record, if there is one of this number.
    pub fn get(&self, section: SectionId, plane: Plane, mark: Mark) -> Option<&Written> {
        let at = usize::try_from(mark.number).ok()?.checked_sub(1)?;
        self.feeds.get(&(section, plane as u8, mark.origin))?.get(at)
    }

    /// How many records an origin has written in a feed.
    pub fn written(&self, section: SectionId, plane: Plane, origin: u32) -> u64 {
        self.feeds.get(&(section, plane as u8, origin)).map_or(0, |feed| feed.len() as u64)
    }

    /// What orders a value among those of its topic.
    pub fn rank(&self, stamp: &Stamp, mark: Mark) -> Rank {
        (stamp.clone(), self.origin(mark.origin), mark.number)
    }

    /// A feed of a node's own has grown to `upto`: finds and keeps what is new. `after` is how far it was before.
    ///
    /// # Errors
    /// A number that another process has given already.
    #[allow(clippy::too_many_arguments, reason = "everything that identifies a feed and its moment")]
    pub fn grown(
        &mut self,
        at: Time,
        by: (u32, u32),
        replica: &Replica,
        (section, plane): (SectionId, Plane),
        origin: OriginIx,
        (after, upto): (u64, u64),
        about: Option<&About>,
        outcast: bool,
    ) -> Result<(), GivenTwice> {
        let name = replica.origins().get(origin);
        let no = self.intern(name);
        let known = self.written(section, plane, no);
        if name == replica.own() && known > after {
            let taken = Mark { origin: no, number: after + 1 };
            if self.get(section, plane, taken).is_some_and(|written| written.by != by) {
                return Err(GivenTwice { section, plane, dot: self.dot(taken) });
            }
        }
        for number in known + 1..=upto {
            let mark = Mark { origin: no, number };
            let dot = DotIx { origin, number };
            let record = match plane {
                Plane::Tree => self.find_change(replica, section, dot),
                Plane::Values => self.find_value(replica, section, dot, about),
                Plane::Standing => find_standing(replica, section, dot),
            };
            match &record {
                Record::Removed(ids) => {
                    for id in ids {
                        if let Some(facts) = self.topics.get_mut(&(section, *id)) {
                            facts.removals.push(mark);
                        }
                    }
                }
                Record::Value { topic, event, stamp, .. } => {
                    if let Some(facts) = self.topics.get_mut(&(section, *topic)) {
                        let writes = match event {
                            Some(event) => facts.events.entry(*event).or_default(),
                            None => &mut facts.writes,
                        };
                        writes.entry(no).or_default().push((number, stamp.clone()));
                    }
                }
                Record::Standing { key, stamp, removal: true } => {
                    let rank = self.rank(stamp, mark);
                    let known = replica.section(section).into_iter().flat_map(|section| section.standing.frontier().iter());
                    let known = known.map(|dot| (replica.origins().get(dot.origin), dot.number)).collect();
                    if self.gone.get(key).is_none_or(|before| before.rank < rank) {
                        self.gone.insert(key.clone(), Gone { rank, mark, known });
                    }
                }
                _ => {}
            }
            self.records += 1;
            let written = Written { by, at, record, outcast };
            self.feeds.entry((section, plane as u8, no)).or_default().push(written);
        }
        Ok(())
    }

    fn find_change(&mut self, replica: &Replica, id: SectionId, dot: DotIx) -> Record {
        let Some(section) = replica.section(id) else { return Record::Other };
        if let Some(path) = section.tree.path_of(dot).cloned() {
            let mark = self.mark(replica, dot);
            self.topics.insert((id, mark), TopicFacts { path, removals: Vec::new(), writes: BTreeMap::new(), events: BTreeMap::new() });
            return Record::Created;
        }
        // What it removes the record says, also if the node removes it of its own accord.
        let (records, _) = section.tree.read(dot.origin, dot.number - 1, 1).unwrap_or_default();
        let own = records.first().filter(|record| record.number == dot.number && !record.removals.is_empty());
        let mut removed = |record: &TreeRecord| record.removals.iter().map(|removal| self.mark(replica, removal.topic)).collect();
        own.map_or(Record::Other, |record| Record::Removed(removed(record)))
    }

    fn find_value(&mut self, replica: &Replica, id: SectionId, dot: DotIx, about: Option<&About>) -> Record {
        let Some(section) = replica.section(id) else { return Record::Other };
        let asked = about.into_iter().flat_map(|about| &about.paths).filter_map(|path| section.tree.topic(path.as_str()));
        let asked = asked.flat_map(|topic| topic.ids.iter().copied()).flat_map(|topic| section.keys_of(topic));
        let found = asked.filter_map(|key| Some((key, section.values.get(&key)?))).find(|(_, write)| write.dot == dot);
        // That old events are forgotten, nobody asks for.
        let asked =
            |(key, write): &(ValueKey, &Write)| !(key.as_event().is_none() && write.value.as_ref().is_some_and(|value| value.is_empty()));
        let op = about.filter(|_| found.as_ref().is_some_and(asked)).map(|about| about.op);
        // One that nobody asked for moved with its section.
        let found = found.or_else(|| section.values.iter().find(|(_, write)| write.dot == dot).map(|(key, write)| (*key, write)));
        let Some((key, write)) = found else { return Record::Other };
        let seen = write.seen.iter().map(|dot| self.mark(replica, *dot)).collect();
        let (topic, event) = (self.mark(replica, key.topic()), key.as_event().map(|event| self.event_mark(replica, event)));
        Record::Value { topic, event, stamp: write.stamp.clone(), op, hash: hash(write.value.as_deref().unwrap_or_default()), seen }
    }

    /// The topics that live at some paths of a node, concurrent ones included.
    pub fn living(&mut self, replica: &Replica, paths: &[Path]) -> Vec<(SectionId, Mark)> {
        let topics = paths.iter().filter_map(|path| replica.topic(path));
        let ids = topics.flat_map(|(section, topic)| topic.creations().map(move |id| (section, id)));
        ids.map(|(section, id)| (section, self.mark(replica, id))).collect()
    }

    /// What a node holds of a write, as its rank.
    pub fn rank_of(&self, replica: &Replica, write: &Write) -> Rank {
        (write.stamp.clone(), replica.origins().get(write.dot.origin), write.dot.number)
    }

    /// All values that were written, with their marks.
    pub fn values(&self) -> impl Iterator<Item = (SectionId, Mark, &Written)> {
        let topics = self.topics.iter();
        topics.flat_map(move |((section, _), facts)| {
            [&facts.writes].into_iter().chain(facts.events.values()).flatten().flat_map(move |(origin, writes)| {
                writes.iter().filter_map(move |(number, _)| {
                    let mark = Mark { origin: *origin, number: *number };
                    Some((*section, mark, self.get(*section, Plane::Values, mark)?))
                })
            })
        })
    }

    /// Whether an origin is a run of this node.
    pub fn is_of(&self, mark: Mark, node: NodeId) -> bool {
        self.origin(mark.origin).node == node
    }
}

fn find_standing(replica: &Replica, id: SectionId, dot: DotIx) -> Record {
    let Some(section) = replica.section(id) else { return Record::Other };
    let found = section.standing.iter().find(|(_, write)| write.dot == dot);
    found.map_or(Record::Other, |(key, write)| Record::Standing {
        key: key.clone(),
        stamp: write.stamp.clone(),
        removal: write.value.is_none(),
    })
}

/// Whether a node knows that an event has been forgotten.
pub fn is_forgotten(section: &Section, key: ValueKey) -> bool {
    let horizon = || section.values.get(&key.topic().into()).filter(|write| write.value.as_ref().is_some_and(|value| value.is_empty()));
    key.as_event().is_some_and(|event| horizon().is_some_and(|horizon| event.sequence <= horizon.stamp.seq))
}

/// A short hash of some bytes (FNV-1a): against mistakes, not against forgers.
pub fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
