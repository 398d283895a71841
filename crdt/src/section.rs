//! One section as one node holds it: its tree, its values, its standing records, and what ties them together.
//!
//! **Values hang off topics.** A value whose topic is not known yet waits as an *orphan*; one whose topic is gone is dropped, and
//! goes to the displaced log if the remover had not known of it. While a document holds removals that the tree frontier does not cover yet, the values
//! that they concern wait, too: whoever was told of them by this node's frontier must be able to get them from here. R9, the rule that keeps the value frontier behind the tree, is
//! enforced where runs end (the link), with [`Section::tree`]'s frontier as the measure.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::{Index, IndexMut},
    sync::Arc,
};

use crate::{
    access::{self, AccessError},
    blob::{Blob, BlobHash, Blobs},
    definition::{Definition, TopicType},
    displaced::{self, Beaten, Displaced},
    frontier::{DotIx, Dots, Frontier, OriginIx, Origins, raise},
    id::{DisplacedId, Origin, Plane, SectionId},
    path::{BUCKETS, Path},
    policy::{Policy, PolicyError},
    registers::{Merged, Registers, Write},
    rows::Buried,
    sabotage::{Sabotage, is},
    series::{Content, Series, ValueKey},
    stamp::{Stamp, Under, newer},
    standing::Standing,
    tree::{Kind, Removal, Topic, TopicChange, Tree, TreeError, TreeRecord},
    value::{self, ValueError},
};

mod events;
mod lines;

pub use events::Told;

/// The key of a standing record: a kind byte, then what names it within its kind. Shared by all that file the record.
pub type StandingKey = Arc<[u8]>;

/// A frontier for each plane.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontiers([Frontier; 3]);

impl Frontiers {
    /// Whether every plane covers the other's.
    pub fn covers_all(&self, other: &Frontiers) -> bool {
        Plane::ALL.iter().all(|plane| self[*plane].covers_all(&other[*plane]))
    }

    /// Raises every plane to the other's.
    pub fn join(&mut self, other: &Frontiers) {
        for plane in Plane::ALL {
            self[plane].join(&other[plane]);
        }
    }

    /// Lowers every plane to the other's.
    pub fn meet(&mut self, other: &Frontiers) {
        for plane in Plane::ALL {
            self[plane].meet(&other[plane]);
        }
    }

    /// Whether nothing is covered.
    pub fn is_zero(&self) -> bool {
        self.0.iter().all(|frontier| frontier.iter().next().is_none())
    }
}

impl Index<Plane> for Frontiers {
    type Output = Frontier;
    fn index(&self, plane: Plane) -> &Frontier {
        &self.0[plane as usize]
    }
}

impl IndexMut<Plane> for Frontiers {
    fn index_mut(&mut self, plane: Plane) -> &mut Frontier {
        &mut self.0[plane as usize]
    }
}

/// What has happened, for those who listen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// A topic appeared, disappeared or has another definition now.
    Topic {
        /// Where.
        section: SectionId,
        /// Which.
        path: Path,
        /// Whether it lived before.
        lived: bool,
        /// Whether it lives now.
        lives: bool,
    },
    /// A topic may have another value now.
    Value {
        /// Where.
        section: SectionId,
        /// Which, or which of its events.
        key: ValueKey,
        /// The value, where the topic is to be told of value by value.
        passed: Option<Box<Write>>,
    },
    /// A standing record changed.
    Standing {
        /// Where.
        section: SectionId,
        /// Which.
        key: StandingKey,
    },
    /// The mesh's policy changed.
    Policy,
    /// A write lost to a concurrent one, or to a removal that had not seen it.
    Displaced(Box<Displaced>),
}

/// What the parts of a section share with the rest of the node while they work.
#[derive(Debug)]
pub struct Context<'a> {
    /// All origins.
    pub origins: &'a mut Origins,
    /// Where to tell.
    pub events: &'a mut Vec<Event>,
    /// The blobs that are here.
    pub blobs: &'a mut Blobs,
    /// What this node's wall clock shows, in milliseconds since 1970; 0 if that need not be known.
    pub time_ms: u64,
}

/// A bucket's digest, and what it is a digest of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BucketDigest {
    /// The order-independent sum of the live content's hashes.
    pub digest: [u8; 32],
    /// For each plane and origin, the greatest number in it. Two nodes' digests may be compared when each one's frontier
    /// covers the other's dots.
    pub dots: [Dots; 3],
}

/// A register on its way to a node that adopts or repairs a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageEntry<K> {
    /// Which.
    pub key: K,
    /// Its newest write; `None` where the receiver holds the same.
    pub write: Option<Write>,
    /// Where it stands in feeds.
    pub entries: Dots,
}

/// A whole bucket, at the moment it was read.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct BucketImage {
    /// Which.
    pub bucket: u16,
    /// Whether everything is here. Otherwise the receiver holds the same live content, and only removals and entries that it
    /// cannot infer are told.
    pub whole: bool,
    /// The saved document of the tree plane, if there is one.
    pub document: Option<Vec<u8>>,
    /// The changes that the document holds.
    pub tree_dots: Dots,
    /// Unless everything is here: for each origin, the greatest number among the values that both hold.
    pub value_dots: Dots,
    /// The same of the standing records.
    pub standing_dots: Dots,
    /// Values and events of its topics.
    pub values: Vec<ImageEntry<ValueKey>>,
    /// Standing records, removals included.
    pub standing: Vec<ImageEntry<StandingKey>>,
}

/// Positions to be taken over when an adoption is complete.
#[derive(Debug, Default)]
pub struct Positions {
    values: BTreeMap<OriginIx, Vec<(u64, ValueKey)>>,
    standing: BTreeMap<OriginIx, Vec<(u64, StandingKey)>>,
}

/// A value feed that has come up to a number, as a run or as a part of an adoption.
#[derive(Debug)]
pub struct ValueRun {
    /// The feed's origin.
    pub origin: OriginIx,
    /// Up to where everything has come.
    pub upto: u64,
    /// Where the keys stand.
    pub positions: Vec<(u64, ValueKey)>,
    /// The feed's floor.
    pub floor: u64,
}

/// How many tree changes may wait for others that they build on.
const WAITING_MAX: usize = 65_536;

/// See the module.
#[derive(Debug)]
pub struct Section {
    id: SectionId,
    /// Topics and definitions, or the policy.
    pub tree: Tree,
    /// Values by topic, and events.
    pub values: Registers<ValueKey>,
    /// Standing records.
    pub standing: Registers<StandingKey>,
    clock: u64,
    /// The highest epoch that anything here has been written under.
    epoch: u64,
    clock_dirty: bool,
    durable: Frontiers,
    /// Which events there are, by topic.
    series: BTreeMap<DotIx, Series>,
    /// The paths of paged topics: only where what is local is held.
    lists: BTreeSet<Path>,
    /// Topics that do not live here (yet), of which there are values.
    orphans: BTreeSet<DotIx>,
    /// Values that are none of their topic's type: somebody took them who should not have. They are carried like any other, and shown to nobody.
    unfit: BTreeSet<ValueKey>,
    /// Topics removed, with what their removers knew of their values, until that is stable.
    graves: Graves,
    /// Creations of topics that were created more than once: rare, and to be compared with each other.
    twins: BTreeSet<DotIx>,
    /// Tree changes that came before those they build on.
    waiting: BTreeMap<(OriginIx, u64), TreeRecord>,
    /// The digests of the buckets that hold anything, once they have been asked for.
    digests: Option<BTreeMap<u16, BucketDigest>>,
    /// What has changed since: buckets, and topics with another value.
    stale_buckets: BTreeSet<u16>,
    stale_values: Vec<DotIx>,
    /// The standing records of each bucket.
    standing_index: BTreeMap<u16, BTreeSet<StandingKey>>,
    /// The slots of the displaced log that hold anything: of what each is, and how many bytes its record has.
    displaced_slots: BTreeMap<u16, (DisplacedId, usize)>,
}

/// A topic removed: what is to be known when a write to it comes that its remover had not seen.
#[derive(Debug)]
pub(crate) struct Grave {
    /// The removal.
    by: DotIx,
    /// The writes that the remover knew of.
    seen: Dots,
    /// Where it was; `None` if that was not known here.
    pub(crate) path: Option<Path>,
    /// What it held.
    pub(crate) definition: Option<Arc<Definition>>,
}

/// Graves by topic.
pub(crate) type Graves = BTreeMap<DotIx, Grave>;

impl Section {
    /// An empty section.
    pub fn new(id: SectionId) -> Self {
        Section {
            id,
            tree: Tree::new(if id == SectionId::MESH { Kind::Policy } else { Kind::Topics }),
            values: Registers::default(),
            standing: Registers::watching(|key| Standing::is_of_node(key)),
            clock: 0,
            epoch: 0,
            clock_dirty: false,
            durable: Frontiers::default(),
            series: BTreeMap::new(),
            lists: BTreeSet::new(),
            orphans: BTreeSet::new(),
            unfit: BTreeSet::new(),
            graves: BTreeMap::new(),
            twins: BTreeSet::new(),
            waiting: BTreeMap::new(),
            digests: None,
            stale_buckets: BTreeSet::new(),
            stale_values: Vec::new(),
            standing_index: BTreeMap::new(),
            displaced_slots: BTreeMap::new(),
        }
    }

    /// Its name.
    pub fn id(&self) -> SectionId {
        self.id
    }

    /// How far everything is held, plane by plane.
    pub fn frontiers(&self) -> Frontiers {
        Frontiers([self.standing.frontier().clone(), self.tree.frontier().clone(), self.values.frontier().clone()])
    }

    /// One plane's frontier.
    pub fn frontier(&self, plane: Plane) -> &Frontier {
        match plane {
            Plane::Standing => self.standing.frontier(),
            Plane::Tree => self.tree.frontier(),
            Plane::Values => self.values.frontier(),
        }
    }

    /// How often its frontiers have changed.
    pub fn changes(&self) -> u64 {
        Plane::ALL.iter().map(|plane| self.frontier(*plane).changes()).sum()
    }

    /// Below these numbers, removals are forgotten.
    pub fn floors(&self) -> Frontiers {
        Frontiers([self.standing.floors(), self.tree.floors(), self.values.floors()])
    }

    /// Whether someone with these frontiers must adopt, because what it lacks is no longer told one by one.
    pub fn is_below_floor(&self, frontiers: &Frontiers) -> bool {
        self.standing.is_below_floor(&frontiers[Plane::Standing])
            || self.tree.is_below_floor(&frontiers[Plane::Tree])
            || self.values.is_below_floor(&frontiers[Plane::Values])
    }

    /// How far everything is held on this node's disk.
    pub fn durable(&self) -> &Frontiers {
        &self.durable
    }

    /// What was held at some moment is on disk now.
    pub fn made_durable(&mut self, frontiers: &Frontiers) {
        self.durable.join(frontiers);
    }

    /// The Lamport clock: above every stamp seen here.
    pub fn clock(&self) -> u64 {
        self.clock
    }

    /// Whether the clock or the highest epoch moved since the last call.
    pub fn take_clock_dirty(&mut self) -> bool {
        std::mem::take(&mut self.clock_dirty)
    }

    /// Moves the clock past what a peer has seen (R8).
    pub fn raise_clock(&mut self, clock: u64) {
        if clock > self.clock {
            self.clock = clock;
            self.clock_dirty = true;
        }
    }

    /// The highest epoch heard of here, of any branch. It never falls, and is never forgotten: the next grant is above it.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Moves the highest epoch up to what a peer has heard of.
    pub fn raise_epoch(&mut self, epoch: u64) {
        if epoch > self.epoch {
            self.epoch = epoch;
            self.clock_dirty = true;
        }
    }

    fn heard(&mut self, stamp: &Stamp) {
        self.raise_clock(stamp.seq);
        self.raise_epoch(stamp.epoch);
    }

    fn stamp(&mut self, under: Under) -> Stamp {
        self.raise_epoch(under.epoch);
        Stamp { epoch: under.epoch, rank: under.rank, seq: self.tick() }
    }

    fn tick(&mut self) -> u64 {
        self.raise_clock(self.clock + 1);
        self.clock
    }

    pub(crate) fn displaced_slots(&self) -> &BTreeMap<u16, (DisplacedId, usize)> {
        &self.displaced_slots
    }

    /// A topic's newest value, over all its concurrent creations.
    pub fn value(&self, origins: &Origins, path: &str) -> Option<&Write> {
        self.value_of(origins, self.tree.topic(path)?)
    }

    /// The same of a topic at hand; of a series its newest event.
    pub fn value_of(&self, origins: &Origins, topic: &Topic) -> Option<&Write> {
        self.newest(origins, topic, |key| !self.unfit.contains(key))
    }

    /// The newest write of a topic, even if it is no value of its type.
    pub(crate) fn newest_of(&self, origins: &Origins, topic: &Topic) -> Option<&Write> {
        self.newest(origins, topic, |_| true)
    }

    fn newest(&self, origins: &Origins, topic: &Topic, counts: impl Fn(&ValueKey) -> bool) -> Option<&Write> {
        if topic.definition.topic_type().series().is_some() {
            return self.last_event(origins, topic).map(|told| told.write);
        }
        let writes = topic.ids.iter().map(|id| ValueKey::from(*id)).filter(counts).filter_map(|key| self.values.get(&key));
        writes.max_by(|a, b| newer(origins, (&a.stamp, a.dot), (&b.stamp, b.dot)))
    }

    /// How much of the past is remembered: removals, overtaken entries and tree changes still in feeds, and orphans.
    pub fn remembered(&self) -> usize {
        self.values.remembered() + self.standing.remembered() + self.tree.remembered() + self.orphans.len() + self.graves.len()
    }

    // This node's own writes.

    /// Creates topics that do not live yet.
    pub fn create_topics(&mut self, cx: &mut Context<'_>, own: OriginIx, topics: &[(Path, Definition)]) {
        let changes = self.tree.create(cx.origins, own, cx.time_ms, topics);
        self.topics_changed(cx, changes, None);
    }

    /// Removes live topics, with their values.
    pub fn remove_topics(&mut self, cx: &mut Context<'_>, own: OriginIx, paths: &[Path]) {
        let known = |path: &Path| {
            let topic = self.tree.topic(path.as_str())?;
            let removals = topic.creations().map(|id| self.removal_of(id)).collect();
            Some((path.clone(), removals))
        };
        let topics: Vec<(Path, Vec<Removal>)> = paths.iter().filter_map(known).collect();
        let definitions: Vec<_> = topics.iter().map(|(path, _)| Some(self.tree.topic(path.as_str())?.definition.clone())).collect();
        let changes = self.tree.remove(cx.origins, own, cx.time_ms, &topics);
        let by = DotIx { origin: own, number: self.tree.frontier().get(own) };
        for ((path, removals), definition) in topics.into_iter().zip(definitions) {
            for Removal { topic, seen } in removals {
                self.graves.insert(topic, Grave { by, seen, path: Some(path.clone()), definition: definition.clone() });
            }
        }
        self.topics_changed(cx, changes, None);
    }

    /// Writes a topic's value. `None` if there is no such topic.
    pub fn set(&mut self, cx: &mut Context<'_>, own: OriginIx, path: &str, under: Under, time_ms: u64, value: Arc<[u8]>) -> Option<DotIx> {
        let place = self.place_of(self.tree.topic(path)?)?;
        Some(self.set_at(cx, own, place, under, time_ms, value))
    }

    /// Which of a topic's creations is to be written to (where there is a value already, if there is), and what is known of the others' values:
    /// since values of concurrent creations join, that is overtaken too.
    pub(crate) fn place_of(&self, topic: &Topic) -> Option<(DotIx, Dots)> {
        match topic.ids.as_slice() {
            [only] => Some((*only, Dots::new())),
            ids => {
                let id = *ids.iter().find(|id| self.values.get(&(**id).into()).is_some()).or(ids.first())?;
                Some((id, ids.iter().filter(|other| **other != id).flat_map(|other| self.values.known(&(*other).into())).collect()))
            }
        }
    }

    /// Writes to a live creation of a topic.
    pub(crate) fn set_at(
        &mut self,
        cx: &mut Context<'_>,
        own: OriginIx,
        place: (DotIx, Dots),
        under: Under,
        time_ms: u64,
        value: Arc<[u8]>,
    ) -> DotIx {
        let (id, others) = place;
        let mut stamp = self.stamp(under);
        if is(Sabotage::KeyClock) {
            stamp.seq = self.values.get(&id.into()).map_or(1, |write| write.stamp.seq + 1);
        }
        let dot = self.values.write_over(own, id.into(), &others, stamp, time_ms, Some(value));
        self.unfit.remove(&id.into());
        self.value_changed(cx, id.into());
        dot
    }

    /// Writes or removes a standing record. Does nothing and gives `None` if what is held was written under a greater epoch or rank: this would not
    /// stand anywhere else.
    pub fn put_standing(
        &mut self,
        cx: &mut Context<'_>,
        own: OriginIx,
        key: StandingKey,
        under: Under,
        time_ms: u64,
        value: Option<Arc<[u8]>>,
    ) -> Option<DotIx> {
        let outranked = |held: &Write| (held.stamp.epoch, &held.stamp.rank) > (under.epoch, &under.rank);
        if self.standing.get(&key).is_some_and(outranked) {
            return None;
        }
        let mut stamp = self.stamp(under);
        if is(Sabotage::KeyClock) {
            stamp.seq = self.standing.get(&key).map_or(1, |write| write.stamp.seq + 1);
        }
        let dot = self.standing.write(own, key.clone(), stamp, time_ms, value);
        self.standing_changed(cx, key);
        Some(dot)
    }

    // What comes from elsewhere.

    /// Takes in a tree change. One that came before those it builds on waits here. Says whether the frontier moved.
    pub fn merge_tree(&mut self, cx: &mut Context<'_>, origin: OriginIx, record: TreeRecord) -> Result<bool, TreeError> {
        match self.apply_tree(cx, origin, &record) {
            Ok(()) => {
                self.retry_waiting(cx)?;
                Ok(true)
            }
            Err(TreeError::Missing | TreeError::Gap) => {
                if self.waiting.len() < WAITING_MAX {
                    self.waiting.insert((origin, record.number), record);
                }
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// The documents whose changes wait for others that they build on.
    pub fn waiting_documents(&self) -> BTreeSet<u16> {
        self.waiting.values().map(|record| record.document).collect()
    }

    /// How many tree changes wait for others.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    fn apply_tree(&mut self, cx: &mut Context<'_>, origin: OriginIx, record: &TreeRecord) -> Result<(), TreeError> {
        if record.number <= self.tree.frontier().get(origin) {
            return Ok(());
        }
        let changes = self.tree.apply(cx.origins, origin, record)?;
        for removal in &record.removals {
            let change = changes.iter().find(|change| change.gone.contains(&removal.topic));
            let path = change.map(|change| change.path.clone());
            let now = || self.tree.topic(path.as_ref()?.as_str()).map(|topic| topic.definition.clone());
            let definition = change.and_then(|change| change.before.clone()).or_else(now);
            let by = DotIx { origin, number: record.number };
            self.graves.insert(removal.topic, Grave { by, seen: removal.seen.clone(), path, definition });
        }
        if self.id == SectionId::MESH {
            cx.events.push(Event::Policy);
        }
        self.stale_document(record.document);
        self.topics_changed(cx, changes, None);
        self.settle_orphans(cx);
        Ok(())
    }

    fn retry_waiting(&mut self, cx: &mut Context<'_>) -> Result<(), TreeError> {
        let mut progress = !self.waiting.is_empty();
        while progress {
            progress = false;
            for ((origin, number), record) in std::mem::take(&mut self.waiting) {
                match self.apply_tree(cx, origin, &record) {
                    Ok(()) => progress = true,
                    Err(TreeError::Missing | TreeError::Gap) => {
                        self.waiting.insert((origin, number), record);
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// Takes in a value or an event. Says what stands at its position: itself, or for an event that is forgotten the register that says so; nothing if the topic is gone.
    pub fn merge_value(&mut self, cx: &mut Context<'_>, key: impl Into<ValueKey>, write: Write) -> Option<ValueKey> {
        self.merge_value_of(cx, key.into(), write, None, None)
    }

    /// `judged`: what a peer had seen whose whole bucket this comes from. Of two writes that it had, it has logged the loser if they were concurrent;
    /// here that cannot be told, since a write does not name what everybody has long had. `foretold`: see [`Registers::merge`].
    fn merge_value_of(
        &mut self,
        cx: &mut Context<'_>,
        key: ValueKey,
        write: Write,
        judged: Option<&Frontier>,
        foretold: Option<DotIx>,
    ) -> Option<ValueKey> {
        let id = key.topic();
        self.heard(&write.stamp);
        let fresh = !self.values.frontier().covers(write.dot);
        if self.place_in_feeds(key) != key {
            return Some(id.into());
        }
        if self.tree.path_of(id).is_none() {
            if self.is_removed(id) && self.values.get(&key).is_none() {
                self.bury(cx, key, None, &write, None);
                return None;
            }
            self.orphans.insert(id);
        }
        match self.values.merge(cx.origins, &key, write, foretold) {
            Merged::Nothing => {}
            Merged::Won { displaced } => {
                let displaced = displaced.filter(|loser| !judged.is_some_and(|judged| judged.covers(loser.dot)));
                if let (Some(loser), Some(winner)) = (displaced, self.values.get(&key)) {
                    let beaten = Beaten::by_write(cx.origins, winner);
                    self.displaced_value(cx, key, &loser, beaten);
                }
                self.note_event(cx.origins, key);
                if key.as_event().is_none() {
                    self.horizon_moved(id);
                }
                self.judge(key);
                self.value_changed(cx, key);
            }
            Merged::Displaced { loser } => {
                if let Some(winner) = self.values.get(&key).filter(|_| fresh) {
                    let beaten = Beaten::by_write(cx.origins, winner);
                    self.displaced_value(cx, key, &loser, beaten);
                }
            }
        }
        self.join_creations(cx, id, judged);
        Some(key)
    }

    /// Concurrent creations of one path with equal definitions are one topic: of their values, which stand under different ids, the newest counts, and
    /// one that its writer had not known of is displaced.
    fn join_creations(&mut self, cx: &mut Context<'_>, id: DotIx, judged: Option<&Frontier>) {
        if !self.twins.contains(&id) {
            return;
        }
        let topic = self.tree.path_of(id).and_then(|path| self.tree.topic(path.as_str()));
        // Events stand beside each other, and the greatest horizon of each creation counts.
        let topic = topic.filter(|topic| topic.definition.topic_type().series().is_none());
        let writes = topic.into_iter().flat_map(|topic| &topic.ids).filter_map(|id| Some((*id, self.values.get(&(*id).into())?)));
        let mut writes: Vec<(DotIx, Write)> = writes.map(|(id, write)| (id, write.clone())).collect();
        writes.sort_by(|(_, a), (_, b)| newer(cx.origins, (&a.stamp, a.dot), (&b.stamp, b.dot)));
        let Some((_, winner)) = writes.pop() else { return };
        let unknown = |loser: &Write| !winner.knew(loser.dot) && !judged.is_some_and(|judged| judged.covers(loser.dot));
        for (id, loser) in writes.into_iter().filter(|(_, loser)| unknown(loser)) {
            self.displaced_value(cx, id.into(), &loser, Beaten::by_write(cx.origins, &winner));
        }
    }

    /// Takes in a standing record, unless it was removed here.
    pub fn merge_standing(&mut self, cx: &mut Context<'_>, key: &StandingKey, write: Write) {
        self.merge_standing_of(cx, key, write, None, None);
    }

    /// `judged`: as with values.
    fn merge_standing_of(
        &mut self,
        cx: &mut Context<'_>,
        key: &StandingKey,
        write: Write,
        judged: Option<&Frontier>,
        foretold: Option<DotIx>,
    ) {
        self.heard(&write.stamp);
        if self.has_removed(cx.origins, key, &write) {
            return;
        }
        let slot = slot_of(key).is_some();
        let lost = match self.standing.merge(cx.origins, key, write, foretold) {
            Merged::Nothing => None,
            Merged::Won { displaced } => {
                self.standing_changed(cx, key.clone());
                displaced.filter(|loser| slot && !judged.is_some_and(|judged| judged.covers(loser.dot)))
            }
            Merged::Displaced { loser } => Some(loser).filter(|loser| slot && !self.standing.frontier().covers(loser.dot)),
        };
        // Two entries in one slot of the displaced log: the one that has lost it needs another.
        let winner = lost.as_ref().and_then(|_| self.standing.get(key));
        if let Some(entry) = lost.as_ref().zip(winner).and_then(|(loser, winner)| displaced::lost_entry(loser, winner)) {
            cx.events.push(Event::Displaced(Box::new(entry)));
        }
    }

    /// Whether a standing record was seen here, removed, and its removal forgotten: what the frontier covers and is not there. It may still come: from a
    /// link on which it lingered, from a neighbour that sends again what it sent before, in the state of one that was away for too long.
    fn has_removed(&self, origins: &Origins, key: &StandingKey, write: &Write) -> bool {
        let stands = |held: &Write| newer(origins, (&write.stamp, write.dot), (&held.stamp, held.dot)).is_le();
        self.standing.frontier().covers(write.dot) && !self.standing.get(key).is_some_and(stands) && !is(Sabotage::Latecomers)
    }

    // Forgetting.

    /// Forgets what is stable (R5): what every member heard from is known to hold durably, this node included.
    pub fn forget(&mut self, stable: &Frontiers) {
        for key in self.standing.forget(&stable[Plane::Standing]) {
            if let Some(keys) = self.standing_index.get_mut(&standing_bucket(&key)) {
                keys.remove(&key);
            }
        }
        self.values.forget(&stable[Plane::Values]);
        self.tree.forget(&stable[Plane::Tree]);
        self.graves.retain(|_, grave| !stable[Plane::Tree].covers(grave.by));
    }

    // Digests, adopting, repairing.

    /// A bucket's digest, computed anew only if something in it changed.
    pub fn digest(&mut self, origins: &Origins, bucket: u16) -> BucketDigest {
        self.settle_digests(origins, bucket..bucket + 1).get(&bucket).cloned().unwrap_or_default()
    }

    /// The digests of the buckets that hold anything; those in a range are up to date.
    fn settle_digests(&mut self, origins: &Origins, buckets: std::ops::Range<u16>) -> &BTreeMap<u16, BucketDigest> {
        let mut digests = match self.digests.take() {
            Some(digests) => digests,
            None => {
                self.stale_buckets = self.tree.document_numbers().chain(self.standing_index.keys().copied()).collect();
                BTreeMap::new()
            }
        };
        let changed = std::mem::take(&mut self.stale_values);
        self.stale_buckets.extend(changed.iter().filter_map(|id| Some(self.tree.path_of(*id)?.bucket())));
        let stale: Vec<u16> = self.stale_buckets.range(buckets).copied().collect();
        for bucket in stale {
            self.stale_buckets.remove(&bucket);
            let digest = self.compute_digest(origins, bucket);
            if digest == BucketDigest::default() {
                digests.remove(&bucket);
            } else {
                digests.insert(bucket, digest);
            }
        }
        self.digests.insert(digests)
    }

    /// One digest over a range of buckets; empty buckets do not count, so that an empty range gives zero.
    pub fn digest_over(&mut self, origins: &Origins, buckets: std::ops::Range<u16>) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        let mut any = false;
        for (bucket, BucketDigest { digest, .. }) in self.settle_digests(origins, buckets.clone()).range(buckets) {
            if *digest != [0; 32] {
                any = true;
                hasher.update(&bucket.to_be_bytes());
                hasher.update(digest);
            }
        }
        if any { *hasher.finalize().as_bytes() } else { [0; 32] }
    }

    /// Reads a bucket for a neighbour. `same` says that the neighbour holds the same live content.
    pub fn read_bucket(&mut self, bucket: u16, same: bool) -> BucketImage {
        let mut image = BucketImage { bucket, whole: !same, tree_dots: self.tree.dots(bucket).into(), ..BucketImage::default() };
        if !same {
            image.document = self.tree.saved(bucket);
        }
        for key in self.keys_in(bucket) {
            image.values.extend(image_entry(&self.values, &key, same));
            if let Some(write) = self.values.get(&key).filter(|_| same) {
                raise(&mut image.value_dots, write.dot);
            }
        }
        if bucket == BUCKETS - 1 {
            // Values that wait for a removal which the frontier does not cover yet have no path any more, but are claimed by it. Whoever began to
            // wait, did so before the last bucket.
            let orphans = self.orphans.iter().flat_map(|id| self.keys_of(*id));
            image.values.extend(orphans.filter_map(|key| image_entry(&self.values, &key, false)));
        }
        if same {
            for (_, write) in self.standing_of(bucket) {
                raise(&mut image.standing_dots, write.dot);
            }
        }
        let keys = self.standing_index.get(&bucket).into_iter().flatten();
        image.standing.extend(keys.filter_map(|key| image_entry(&self.standing, key, same)));
        image
    }

    /// Takes over a bucket of a peer that is ahead (R6). `covered` is the peer's frontier when it read the bucket; `changed` says whether
    /// the bucket here is no longer what it was when the peer was told of it. Positions are collected, to be given to
    /// [`Section::end_adoption`] after the last bucket.
    pub fn adopt_bucket(
        &mut self,
        cx: &mut Context<'_>,
        mut image: BucketImage,
        covered: &Frontiers,
        changed: bool,
        positions: &mut Positions,
    ) -> Result<(), TreeError> {
        if let Some(document) = &image.document {
            let changes = self.tree.merge(cx.origins, image.bucket, document, &image.tree_dots)?;
            if self.id == SectionId::MESH {
                cx.events.push(Event::Policy);
            }
            self.stale_document(image.bucket);
            self.topics_changed(cx, changes, Some(&covered[Plane::Values]));
        }
        for ImageEntry { key, write, entries } in std::mem::take(&mut image.values) {
            let place = match write {
                Some(write) => self.merge_value_of(cx, key, write, Some(&covered[Plane::Values]), entries.first().copied()).unwrap_or(key),
                None => key,
            };
            for dot in entries {
                positions.values.entry(dot.origin).or_default().push((dot.number, place));
            }
        }
        let empty = self.standing_index.get(&image.bucket).is_none_or(BTreeSet::is_empty);
        if image.whole && !empty {
            let theirs: BTreeMap<&StandingKey, Option<&Write>> =
                image.standing.iter().map(|entry| (&entry.key, entry.write.as_ref())).collect();
            let removed: Vec<StandingKey> = self
                .standing_of(image.bucket)
                .filter(|(_, mine)| covered[Plane::Standing].covers(mine.dot))
                .filter(|(key, mine)| match theirs.get(key).copied().flatten() {
                    None => true,
                    Some(theirs) => newer(cx.origins, (&theirs.stamp, theirs.dot), (&mine.stamp, mine.dot)).is_lt(),
                })
                .map(|(key, _)| key.clone())
                .collect();
            for key in removed.into_iter().filter(|_| !is(Sabotage::KeepAll)) {
                self.standing.drop_key(&key);
                self.standing_changed(cx, key);
            }
        }
        if !image.whole {
            self.own_positions(image.bucket, positions);
            if changed {
                self.any_positions(&image, positions);
            }
        }
        for ImageEntry { key, write, entries } in image.standing {
            if let Some(write) = write {
                self.merge_standing_of(cx, &key, write, Some(&covered[Plane::Standing]), entries.first().copied());
            }
            for dot in entries {
                positions.standing.entry(dot.origin).or_default().push((dot.number, key.clone()));
            }
        }
        Ok(())
    }

    /// Where a bucket's content is the same on both sides, each key's position is that of its newest write, unless told otherwise.
    fn own_positions(&self, bucket: u16, positions: &mut Positions) {
        for key in self.keys_in(bucket) {
            if let Some(write) = self.values.get(&key) {
                positions.values.entry(write.dot.origin).or_default().push((write.dot.number, key));
            }
        }
        for (key, write) in self.standing_of(bucket) {
            positions.standing.entry(write.dot.origin).or_default().push((write.dot.number, key.clone()));
        }
    }

    /// Where a bucket has changed since it was the same, it is not known any more which keys stood where: each of them may stand at the
    /// peer's greatest number of each origin. A pointer too many costs a record, one too few would lose one (R3).
    fn any_positions(&self, image: &BucketImage, positions: &mut Positions) {
        for key in self.keys_in(image.bucket) {
            for dot in &image.value_dots {
                positions.values.entry(dot.origin).or_default().push((dot.number, key));
            }
        }
        for (key, _) in self.standing_of(image.bucket) {
            for dot in &image.standing_dots {
                positions.standing.entry(dot.origin).or_default().push((dot.number, key.clone()));
            }
        }
    }

    /// Ends an adoption: positions, frontiers and floors become what they were at the peer when it began (R6), but for those of the values.
    /// They are returned, feed by feed, for [`Section::end_value_run`] once the tree has come as far as the peer's had at the end (R9): a topic
    /// that was removed meanwhile took its value out of the bucket before that was read.
    pub fn end_adoption(
        &mut self,
        cx: &mut Context<'_>,
        start: &Frontiers,
        floors: &Frontiers,
        mut positions: Positions,
    ) -> Result<Vec<ValueRun>, TreeError> {
        fn clamp<K>(placed: Vec<(u64, K)>, upto: u64) -> impl Iterator<Item = (u64, K)> {
            // An entry that has moved on since stays as a pointer at the old frontier.
            placed
                .into_iter()
                .filter(move |(number, _)| !is(Sabotage::NoClamp) || *number <= upto)
                .map(move |(number, key)| (number.min(upto), key))
                .filter(|(number, _)| *number > 0)
        }
        let values = start[Plane::Values].iter().map(|DotIx { origin, number: upto }| {
            let placed = positions.values.remove(&origin).unwrap_or_default();
            ValueRun { origin, upto, positions: clamp(placed, upto).collect(), floor: floors[Plane::Values].get(origin) }
        });
        let values = values.collect();
        for (origin, placed) in positions.standing {
            self.standing.take_positions(origin, clamp(placed, start[Plane::Standing].get(origin)));
        }
        for plane in [Plane::Standing, Plane::Tree] {
            for DotIx { origin, number } in start[plane].iter() {
                match plane {
                    Plane::Standing => self.standing.advance(origin, number),
                    _ => self.tree.advance(origin, number),
                }
                if plane == Plane::Tree {
                    // Changes up to here came inside the documents; the feed does not have them one by one.
                    self.tree.raise_floor(origin, number);
                }
            }
            if plane == Plane::Tree {
                self.settle_orphans(cx);
            }
        }
        for DotIx { origin, number } in floors[Plane::Standing].iter() {
            self.standing.raise_floor(origin, number);
        }
        self.waiting.retain(|(origin, number), _| start[Plane::Tree].get(*origin) < *number);
        self.retry_waiting(cx)?;
        Ok(values)
    }

    /// Ends a run of a value feed, once the tree allows it (R9).
    pub fn end_value_run(&mut self, run: ValueRun) {
        // What came in the run may have been forgotten before its end.
        let positions: Vec<_> = run.positions.into_iter().map(|(number, key)| (number, self.place_in_feeds(key))).collect();
        self.values.end_run(run.origin, run.upto, positions);
        self.values.raise_floor(run.origin, run.floor);
    }

    /// Repairs a bucket from a peer whose digest of it differs although each covers the other's dots (R7): the newest stands, except where
    /// whoever holds the older one had already seen the newer and removed it.
    pub fn repair_bucket(&mut self, cx: &mut Context<'_>, image: &BucketImage, covered: &Frontiers) -> Result<(), TreeError> {
        if let Some(document) = &image.document {
            let changes = self.tree.merge(cx.origins, image.bucket, document, &image.tree_dots)?;
            if self.id == SectionId::MESH {
                cx.events.push(Event::Policy);
            }
            self.stale_document(image.bucket);
            self.topics_changed(cx, changes, Some(&covered[Plane::Values]));
        }
        for ImageEntry { key, write, .. } in &image.values {
            if let Some(write) = write {
                self.merge_value(cx, *key, write.clone());
            }
        }
        let theirs: BTreeMap<&StandingKey, &Write> =
            image.standing.iter().filter_map(|entry| Some((&entry.key, entry.write.as_ref()?))).collect();
        let mut drop = Vec::new();
        for (key, mine) in self.standing_of(image.bucket) {
            let removed = match theirs.get(key) {
                None => covered[Plane::Standing].covers(mine.dot),
                Some(theirs) => {
                    newer(cx.origins, (&theirs.stamp, theirs.dot), (&mine.stamp, mine.dot)).is_lt()
                        && covered[Plane::Standing].covers(mine.dot)
                }
            };
            if removed {
                drop.push(key.clone());
            }
        }
        for key in drop {
            self.standing.drop_key(&key);
            self.standing_changed(cx, key);
        }
        for (key, write) in theirs {
            self.merge_standing(cx, key, write.clone());
        }
        self.retry_waiting(cx)
    }

    // Restoring.

    /// Restores the clock.
    pub fn restore_clock(&mut self, clock: u64) {
        self.clock = self.clock.max(clock);
    }

    /// Restores the highest epoch.
    pub fn restore_epoch(&mut self, epoch: u64) {
        self.epoch = self.epoch.max(epoch);
    }

    /// Restores a stored tree record, with where each topic was that it removes, and what that held.
    pub(crate) fn restore_record(&mut self, origin: OriginIx, record: TreeRecord, buried: Vec<Buried>) {
        let by = DotIx { origin, number: record.number };
        for (removal, (path, definition)) in record.removals.iter().zip(buried) {
            let definition = definition.map(Arc::new);
            self.graves.insert(removal.topic, Grave { by, seen: removal.seen.clone(), path, definition });
        }
        self.tree.restore_record(origin, record);
    }

    /// The tree, to hand out what is to be stored, and what is to be stored beside its removals.
    pub(crate) fn tree_and_graves(&mut self) -> (&mut Tree, &Graves) {
        (&mut self.tree, &self.graves)
    }

    /// All standing records, bucket by bucket.
    pub fn standing_by_bucket(&self) -> impl Iterator<Item = (u16, &StandingKey, &Write)> {
        let keys = self.standing_index.iter().flat_map(|(bucket, keys)| keys.iter().map(|key| (*bucket, key)));
        keys.filter_map(|(bucket, key)| Some((bucket, key, self.standing.get(key)?)))
    }

    /// Ends the restoring, of which that of the blobs has ended.
    pub fn restored(&mut self, origins: &mut Origins, blobs: &mut Blobs) -> Result<(), TreeError> {
        self.tree.restored(origins)?;
        self.settle_naming(blobs);
        self.values.restored();
        self.standing.restored();
        for (key, _) in self.standing.iter() {
            self.standing_index.entry(standing_bucket(key)).or_default().insert(key.clone());
        }
        self.displaced_slots = self.standing.iter().filter_map(|(key, write)| Some((slot_of(key)?, displaced::head_of(write)?))).collect();
        self.durable = self.frontiers();
        let stamps = self.values.iter().map(|(_, write)| &write.stamp).chain(self.standing.iter().map(|(_, write)| &write.stamp));
        let (clock, epoch) = stamps.fold((0, 0), |(clock, epoch), stamp| (clock.max(stamp.seq), epoch.max(stamp.epoch)));
        (self.clock, self.epoch) = (self.clock.max(clock), self.epoch.max(epoch));
        self.twins = self.tree.topics_from("").filter(|topic| topic.ids.len() > 1).flat_map(|topic| topic.ids.iter().copied()).collect();
        if self.id == SectionId::LOCAL {
            self.lists = self.tree.topics_from("").filter(|topic| lines::is_list(topic)).map(|topic| topic.path.clone()).collect();
        }
        let valued: Vec<ValueKey> = self.values.iter().map(|(key, _)| *key).collect();
        for key in valued {
            if self.tree.topic_of(key.topic()).is_some() {
                self.note_event(origins, key);
                self.judge(key);
            } else if self.is_removed(key.topic()) {
                self.values.drop_key(&key);
            } else {
                self.note_event(origins, key);
                self.orphans.insert(key.topic());
            }
        }
        Ok(())
    }

    // Inside.

    /// The standing records of a bucket.
    pub fn standing_of(&self, bucket: u16) -> impl Iterator<Item = (&StandingKey, &Write)> {
        let keys = self.standing_index.get(&bucket).into_iter().flatten();
        keys.filter_map(|key| Some((key, self.standing.get(key)?)))
    }

    /// `covered`: what whoever told of the change had seen of the values, if it came as a whole document.
    fn topics_changed(&mut self, cx: &mut Context<'_>, changes: Vec<TopicChange>, covered: Option<&Frontier>) {
        self.settle_naming(cx.blobs);
        for change in changes {
            self.stale_document(change.path.bucket());
            for id in &change.gone {
                self.twins.remove(id);
                // Within what the frontier covers; otherwise it waits for that.
                let dropped = if self.tree.is_settled() || covered.is_none() {
                    self.drop_values(*id)
                } else {
                    let waits: Vec<_> = self.keys_of(*id).filter_map(|key| Some((key, self.values.get(&key)?.clone()))).collect();
                    waits.iter().for_each(|(key, _)| _ = self.unfit.remove(key));
                    (!waits.is_empty()).then(|| self.orphans.insert(*id));
                    waits
                };
                for (key, write) in dropped {
                    self.bury(cx, key, Some((&change.path, change.before.as_ref())), &write, covered);
                }
            }
            let waited: Vec<DotIx> = change.born.iter().copied().filter(|id| self.orphans.remove(id)).collect();
            if let Some(id) = change.born.first().filter(|_| change.lived.0 || change.born.len() > 1) {
                let topic = self.tree.topic(change.path.as_str()).filter(|topic| topic.ids.len() > 1);
                self.twins.extend(topic.into_iter().flat_map(|topic| topic.ids.iter().copied()));
                self.join_creations(cx, *id, covered);
            }
            self.note_list(&change.path);
            let (lived, lives) = change.lived;
            let ids = self.tree.topic(change.path.as_str()).map(|topic| topic.ids.clone());
            for id in ids.into_iter().flatten() {
                self.keys_of(id).collect::<Vec<_>>().into_iter().for_each(|key| self.judge(key));
            }
            cx.events.push(Event::Topic { section: self.id, path: change.path, lived, lives });
            for key in waited.into_iter().flat_map(|id| self.keys_of(id)) {
                self.tell_value(cx, key);
            }
        }
    }

    /// Tells which blobs are named here, and gives those that are here to definitions that have come.
    fn settle_naming(&mut self, blobs: &mut Blobs) {
        let (changed, fresh) = self.tree.take_naming();
        for (hash, named) in changed {
            blobs.set_named(hash, self.id, named);
        }
        for definition in fresh {
            if let Err(why) = blobs.supply(&definition) {
                tracing::warn!(topic_type = %definition.topic_type(), why, "a blob is no use to the topics whose definition names it");
            }
        }
    }

    /// A blob is here: the topics whose definitions name it take values from now on, and values that have come before are judged.
    pub(crate) fn blob_came(&mut self, cx: &mut Context<'_>, hash: &BlobHash, blob: &Blob) {
        let topics = self.tree.supply(hash, blob);
        let keys: Vec<ValueKey> = topics.into_iter().flat_map(|id| self.keys_of(id)).collect();
        for key in keys {
            if self.unfit.contains(&key) {
                self.judge(key);
                if !self.unfit.contains(&key) {
                    self.tell_value(cx, key);
                }
            }
        }
    }

    /// A value whose topic is gone: displaced, unless the remover knew of it.
    fn bury(
        &mut self,
        cx: &mut Context<'_>,
        key: ValueKey,
        topic: Option<(&Path, Option<&Arc<Definition>>)>,
        write: &Write,
        covered: Option<&Frontier>,
    ) {
        let grave = self.graves.get(&key.topic());
        let knew = match grave {
            Some(grave) => grave.seen.iter().any(|seen| seen.origin == write.dot.origin && seen.number >= write.dot.number),
            None => covered.is_none_or(|covered| covered.covers(write.dot)),
        };
        let path = topic.map(|(path, _)| path).or(grave.and_then(|grave| grave.path.as_ref()));
        if let (false, Some(path)) = (knew, path) {
            let definition = topic.and_then(|(_, definition)| definition).or(grave.and_then(|grave| grave.definition.as_ref()));
            if definition.is_some_and(|definition| events::is_horizon(definition, &key, write)) {
                return;
            }
            let definition = definition.map(|definition| definition.to_bytes());
            let beaten = Beaten::ByRemoval { removal: grave.map(|grave| cx.origins.dot(grave.by)) };
            let displaced = Displaced::new(cx.origins, self.id, path.clone(), definition, key, write, beaten);
            cx.events.push(Event::Displaced(Box::new(displaced)));
        }
    }

    fn displaced_value(&mut self, cx: &mut Context<'_>, key: ValueKey, loser: &Write, beaten: Beaten) {
        if let Some(topic) = self.tree.topic_of(key.topic()) {
            // Of a creation that has lost to another definition it is not known here what it was.
            if topic.ids.contains(&key.topic()) && events::is_horizon(&topic.definition, &key, loser) {
                return;
            }
            let definition = Some(topic.definition.to_bytes());
            let displaced = Displaced::new(cx.origins, self.id, topic.path.clone(), definition, key, loser, beaten);
            cx.events.push(Event::Displaced(Box::new(displaced)));
        }
    }

    /// Whether a topic that does not live was removed, and this node's tree frontier says so to others.
    fn is_removed(&self, id: DotIx) -> bool {
        self.tree.is_settled() && self.tree.frontier().covers(id)
    }

    /// The tree frontier moved: values of topics that do not live, though their creation is covered, are of topics that are gone.
    fn settle_orphans(&mut self, cx: &mut Context<'_>) {
        if self.orphans.is_empty() || !self.tree.is_settled() {
            return;
        }
        // Origin by origin, since most of very many may have to wait on.
        let (mut due, mut from) = (Vec::new(), OriginIx(0));
        while let Some(next) = self.orphans.range(DotIx { origin: from, number: 0 }..).next() {
            let origin = next.origin;
            let upto = DotIx { origin, number: self.tree.frontier().get(origin) };
            due.extend(self.orphans.range(DotIx { origin, number: 0 }..=upto));
            from = OriginIx(origin.0 + 1);
        }
        for id in due {
            self.orphans.remove(&id);
            let gone = self.tree.path_of(id).is_none();
            for (key, write) in if gone { self.drop_values(id) } else { Vec::new() } {
                self.bury(cx, key, None, &write, None);
            }
        }
    }

    /// Finds out whether a value is one of its topic's type. What a type that is not known here takes is not known either.
    fn judge(&mut self, key: ValueKey) {
        let value = self.values.get(&key).and_then(|write| Some((write, write.value.as_ref()?)));
        let topic = value.and_then(|_| self.tree.topic_of(key.topic()));
        // One that has lost to another definition is shown to nobody anyway.
        let wrong = topic.filter(|topic| topic.ids.contains(&key.topic())).zip(value).and_then(|(topic, (write, value))| {
            let topic_type = topic.definition.topic_type();
            // Nobody but this node writes a list; of one that somebody says to be elsewhere, nothing is any value.
            if *topic_type == TopicType::Paged && self.id == SectionId::LOCAL {
                return None;
            }
            if events::is_horizon(&topic.definition, &key, write) {
                return None;
            }
            let value = match key.as_event() {
                Some(_) => Content::from_bytes(value).map(|content| content.value),
                None => Some(&value[..]),
            };
            let wrong = match value.filter(|_| events::belongs(topic_type, &key)) {
                Some(value) => value::validate(topic_type, value).err()?,
                None => ValueError::NotOneItem,
            };
            (!matches!(wrong, ValueError::UnknownType(_))).then_some((topic, wrong))
        });
        match wrong {
            // Nobody can tell yet.
            Some((_, ValueError::NotHere(_))) => _ = self.unfit.insert(key),
            Some((topic, wrong)) => {
                tracing::warn!(path = %topic.path, why = %wrong, "a value that another node has taken is none of its topic, and is not shown");
                self.unfit.insert(key);
            }
            None => _ = self.unfit.remove(&key),
        }
    }

    fn value_changed(&mut self, cx: &mut Context<'_>, key: ValueKey) {
        self.tell_value(cx, key);
        self.digest_changed(key.topic());
    }

    fn digest_changed(&mut self, topic: DotIx) {
        if self.digests.is_some() {
            self.stale_values.push(topic);
            if self.stale_values.len() > 1 << 20 {
                self.digests = None;
                self.stale_values.clear();
            }
        }
    }

    fn tell_value(&self, cx: &mut Context<'_>, key: ValueKey) {
        let id = key.topic();
        // A creation that has lost to another definition is shown to nobody.
        let shown = || self.tree.topic_of(id).is_some_and(|topic| topic.ids.contains(&id)) && !self.unfit.contains(&key);
        let passes = (key.as_event().is_some() || self.tree.wants_all(id)) && shown();
        let passed = self.values.get(&key).filter(|_| passes).cloned().map(Box::new);
        cx.events.push(Event::Value { section: self.id, key, passed });
    }

    fn standing_changed(&mut self, cx: &mut Context<'_>, key: StandingKey) {
        let bucket = standing_bucket(&key);
        self.stale_document(bucket);
        if let Some(write) = self.standing.get(&key) {
            self.standing_index.entry(bucket).or_default().insert(key.clone());
            if let Some(slot) = slot_of(&key) {
                self.displaced_slots.extend(displaced::head_of(write).map(|head| (slot, head)));
            }
        } else if let Some(keys) = self.standing_index.get_mut(&bucket) {
            keys.remove(&key);
        }
        cx.events.push(Event::Standing { section: self.id, key });
    }

    /// Edits the mesh's policy on sections, in the built-in section. `edit` gives the change, or refuses.
    pub fn edit_policy(
        &mut self,
        origins: &Origins,
        own: OriginIx,
        edit: impl FnOnce(&mut Policy, Origin) -> Result<Vec<u8>, PolicyError>,
    ) -> Result<(), PolicyError> {
        let document = self.tree.edit_policy(origins, own, edit)?;
        self.stale_document(document);
        Ok(())
    }

    /// Changes the mesh's policy on access, in the built-in section. Returns how.
    pub fn run_script(&mut self, origins: &Origins, own: OriginIx, script: &str) -> Result<Vec<access::Change>, AccessError> {
        let (document, changes) = self.tree.run_script(origins, own, script)?;
        self.stale_document(document);
        Ok(changes)
    }

    fn stale_document(&mut self, bucket: u16) {
        if self.digests.is_some() {
            self.stale_buckets.insert(bucket);
        }
    }

    fn compute_digest(&self, origins: &Origins, bucket: u16) -> BucketDigest {
        let mut sum = Sum::default();
        let mut dots: [Dots; 3] = Default::default();
        dots[Plane::Tree as usize] = self.tree.dots(bucket).into();
        let heads = self.tree.heads(bucket);
        if !heads.is_empty() && !self.tree.dots(bucket).is_empty() {
            let mut hasher = blake3::Hasher::new();
            hasher.update(b"heads");
            for head in heads {
                hasher.update(head);
            }
            sum.add(hasher);
        }
        for key in self.keys_in(bucket) {
            if let Some(write) = self.values.get(&key) {
                let mut hasher = blake3::Hasher::new();
                hasher.update(b"value");
                hasher.update(&origins.get(key.topic().origin).to_bytes());
                hasher.update(&key.topic().number.to_be_bytes());
                if let Some(event) = key.as_event() {
                    hasher.update(&event.sequence.to_be_bytes());
                    hasher.update(&origins.get(event.origin).to_bytes());
                }
                hash_write(origins, &mut hasher, write);
                sum.add(hasher);
                raise(&mut dots[Plane::Values as usize], write.dot);
            }
        }
        for (key, write) in self.standing_of(bucket) {
            raise(&mut dots[Plane::Standing as usize], write.dot);
            if write.value.is_some() {
                let mut hasher = blake3::Hasher::new();
                hasher.update(b"standing");
                hasher.update(&(key.len() as u32).to_be_bytes());
                hasher.update(key);
                hash_write(origins, &mut hasher, write);
                sum.add(hasher);
            }
        }
        BucketDigest { digest: sum.0, dots }
    }
}

/// The bucket of a standing record.
fn standing_bucket(key: &[u8]) -> u16 {
    let hash = blake3::hash(key);
    u16::from_be_bytes([hash.as_bytes()[0], hash.as_bytes()[1]]) % BUCKETS
}

fn slot_of(key: &[u8]) -> Option<u16> {
    match Standing::of_key(key)? {
        Standing::Displaced(slot) => Some(slot),
        _ => None,
    }
}

fn image_entry<K: Clone + Eq + std::hash::Hash + Ord>(registers: &Registers<K>, key: &K, same: bool) -> Option<ImageEntry<K>> {
    let write = registers.get(key)?;
    let entries = registers.entries(key);
    let plain = entries.as_slice() == [write.dot] && write.value.is_some();
    (!(same && plain)).then(|| ImageEntry { key: key.clone(), write: (!same || write.value.is_none()).then(|| write.clone()), entries })
}

fn hash_write(origins: &Origins, hasher: &mut blake3::Hasher, write: &Write) {
    if is(Sabotage::BlindDigest) {
        return;
    }
    hasher.update(&write.stamp.epoch.to_be_bytes());
    if let Some(rank) = &write.stamp.rank {
        hasher.update(&rank.priority.to_be_bytes());
        hasher.update(&rank.session.0);
    }
    hasher.update(&write.stamp.seq.to_be_bytes());
    hasher.update(&origins.get(write.dot.origin).to_bytes());
    hasher.update(&write.dot.number.to_be_bytes());
    hasher.update(write.value.as_deref().unwrap_or_default());
}

/// A sum of hashes, lane by lane: the order of addition does not matter, and what is added twice does not vanish as it would
/// under exclusive or (AdHash, Bellare and Micciancio 1997; against faults, not against forgers, who are kept out by TLS).
#[derive(Default)]
struct Sum([u8; 32]);

impl Sum {
    fn add(&mut self, hasher: blake3::Hasher) {
        let hash = hasher.finalize();
        for (lane, added) in self.0.chunks_exact_mut(8).zip(hash.as_bytes().chunks_exact(8)) {
            let (mut a, mut b) = ([0; 8], [0; 8]);
            a.copy_from_slice(lane);
            b.copy_from_slice(added);
            lane.copy_from_slice(&u64::from_be_bytes(a).wrapping_add(u64::from_be_bytes(b)).to_be_bytes());
        }
    }
}
