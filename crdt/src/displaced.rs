//! The displaced log: writes that lost to one whose writer had not known of them, or to a removal that had not.
//!
//! Ordinary overwrites never come here. The log is a part of its section: whoever holds the section comes to hold the same log, and it survives whatever
//! the section survives.
//!
//! **A bound without removals.** The log is kept in [`SLOTS`] standing records, its *slots*; each holds an entry. *Listed* are the newest
//! [`ENTRIES_MAX`] entries, and of these as many as have [`BYTES_MAX`] bytes together; newest by the slots' stamps, which is by when they came into the log,
//! so that no wall clock decides, and what lost after a long split is not the first to go. This follows from the slots alone, so it is the same wherever these are.
//! A new entry overwrites a slot that is not listed. There are more than twice as many slots as listed entries, and where to look for one begins at the entry's own hash:
//! so nodes that write at the same time seldom meet in one slot, and an entry that was listed once stays known for about as long again and does not come back when
//! somebody notices late what others noticed long ago. Later than that it may, once for each who notices.
//!
//! **Who writes.** Many nodes see two writes meet; one should say so. Each that does *notices* the loser: keeps it on its own disk, and lists it. At its next
//! turn, after a second at most, the loser's writer, if it is among them, takes it into the log; some turns later, and not all at the same, so do the others, unless it has come
//! from elsewhere by then. If two take it in all the same, the later one counts.
//! If two take different entries into one slot, the standing plane tells that the slot's winner was written without knowledge of the loser, and the loser is noticed
//! again. An entry that was overwritten by whoever knew it is not.
//!
//! How much is noticed and waits is bounded like the log, so a storm of conflicts costs each node no more than a full log a turn.

use std::collections::{BTreeMap, BTreeSet};

use minicbor::{Decode, Decoder, Encode, data::Type};

use crate::{
    frontier::{OriginIx, Origins},
    id::{DisplacedId, Dot, NodeId, Origin, SectionId},
    path::Path,
    registers::Write,
    section::{Context, Section},
    series::{EventIx, ValueKey},
    stamp::{Under, newer},
    standing::Standing,
    value::VALUE_MAX,
};

/// How many entries a section's log lists at most.
pub const ENTRIES_MAX: usize = 1_000;

/// How many bytes the records of the listed entries have at most, together.
pub const BYTES_MAX: usize = 16 << 20;

/// How many records a section's log is kept in. So many that a full log and as many new entries leave some that are neither.
pub const SLOTS: u16 = 2_048;

/// The longest value that is kept. A record is no longer than a value may be, and must have room for what else is said of it.
pub const KEPT_MAX: usize = VALUE_MAX - (16 << 10);

/// After how many turns somebody else takes in what its writer hasn't, at least; and over how many turns they spread.
const PATIENCE: u8 = 3;
const SPREAD: u8 = 4;

/// What beat a displaced write.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub enum Beaten {
    /// A newer write of the same topic.
    #[n(0)]
    ByWrite {
        /// That write.
        #[n(0)]
        winner: Dot,
        /// The epoch under which it was written, if that is known.
        #[n(1)]
        epoch: Option<u64>,
    },
    /// The removal of its topic.
    #[n(1)]
    ByRemoval {
        /// That change of the tree, if it is known.
        #[n(0)]
        removal: Option<Dot>,
    },
}

impl Beaten {
    pub(crate) fn by_write(origins: &Origins, winner: &Write) -> Self {
        Beaten::ByWrite { winner: origins.dot(winner.dot), epoch: Some(winner.stamp.epoch) }
    }

    /// The write or removal, if it is known.
    pub fn dot(&self) -> Option<Dot> {
        match self {
            Beaten::ByWrite { winner, .. } => Some(*winner),
            Beaten::ByRemoval { removal } => *removal,
        }
    }
}

/// What is kept of a value that is too long to be kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub struct TooLong {
    /// Its length, in bytes.
    #[n(0)]
    pub bytes: u64,
    /// Its BLAKE3 hash.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub hash: [u8; 32],
}

/// A write that lost without its winner's writer having known of it.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Displaced {
    /// The section that it was written in.
    #[n(0)]
    pub section: SectionId,
    /// Its topic's path.
    #[n(1)]
    pub path: Path,
    /// Its topic's definition, in its canonical bytes, if that was known.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub definition: Option<Vec<u8>>,
    /// Its topic.
    #[n(3)]
    pub topic: Dot,
    /// Who wrote it, and under which number.
    #[n(4)]
    pub dot: Dot,
    /// The epoch under which it was written.
    #[n(5)]
    pub epoch: u64,
    /// The writer's wall clock, in milliseconds since 1970.
    #[n(6)]
    pub time_ms: u64,
    /// The value; empty if it is too long.
    #[cbor(n(7), with = "minicbor::bytes")]
    pub value: Vec<u8>,
    /// What beat it.
    #[n(8)]
    pub beaten: Beaten,
    /// What is known of the value if it is longer than [`KEPT_MAX`].
    #[n(9)]
    pub too_long: Option<TooLong>,
    /// Which event of the topic it was, if it was one: its sequence, and who appended it. The value is the register's then
    /// ([`Content`](crate::series::Content)).
    #[n(10)]
    pub event: Option<(u64, Origin)>,
}

impl Displaced {
    pub(crate) fn new(
        origins: &Origins,
        section: SectionId,
        path: Path,
        definition: Option<Vec<u8>>,
        key: ValueKey,
        write: &Write,
        beaten: Beaten,
    ) -> Self {
        Displaced {
            section,
            path,
            definition,
            topic: origins.dot(key.topic()),
            dot: origins.dot(write.dot),
            epoch: write.stamp.epoch,
            time_ms: write.time_ms,
            value: write.value.as_deref().unwrap_or_default().to_vec(),
            beaten,
            too_long: None,
            event: key.as_event().map(|EventIx { sequence, origin }| (sequence, origins.get(origin))),
        }
    }

    /// Its name, the same on every node.
    pub fn id(&self) -> DisplacedId {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.section.0.to_be_bytes());
        for Dot { origin, number } in [self.topic, self.dot] {
            hasher.update(&origin.to_bytes()).update(&number.to_be_bytes());
        }
        let mut id = DisplacedId::default();
        hasher.finalize_xof().fill(&mut id.0);
        id
    }

    /// The length of the value, in bytes.
    pub fn value_bytes(&self) -> u64 {
        self.too_long.map_or(self.value.len() as u64, |too_long| too_long.bytes)
    }

    fn shortened(mut self) -> Self {
        if self.value.len() > KEPT_MAX {
            let value = std::mem::take(&mut self.value);
            self.too_long = Some(TooLong { bytes: value.len() as u64, hash: *blake3::hash(&value).as_bytes() });
        }
        self
    }
}

// The log.

/// What a slot holds.
#[derive(Encode, Decode)]
struct Slot {
    #[n(0)]
    id: DisplacedId,
    /// `None` where there was no room for it any more.
    #[n(1)]
    entry: Option<Displaced>,
}

impl Slot {
    fn to_bytes(id: DisplacedId, entry: Option<Displaced>) -> Vec<u8> {
        minicbor::to_vec(Slot { id, entry }).expect("encoding to memory")
    }

    /// The id, and whether the entry is there, without reading the rest.
    fn head(bytes: &[u8]) -> Option<(DisplacedId, bool)> {
        let mut d = Decoder::new(bytes);
        let fields = d.array().ok()??;
        let id = d.decode().ok()?;
        Some((id, fields > 1 && d.datatype().is_ok_and(|datatype| datatype != Type::Null)))
    }
}

/// Of which entry a slot's record is, and how many bytes that has.
pub(crate) fn head_of(slot: &Write) -> Option<(DisplacedId, usize)> {
    let bytes = slot.value.as_deref()?;
    Slot::head(bytes).map(|(id, _)| (id, bytes.len()))
}

/// The entry that a slot's record holds, if that is another one than what a second record holds.
pub(crate) fn lost_entry(loser: &Write, winner: &Write) -> Option<Displaced> {
    let slot: Slot = minicbor::decode(loser.value.as_deref()?).ok()?;
    let same = winner.value.as_deref().and_then(Slot::head).is_some_and(|(id, _)| id == slot.id);
    slot.entry.filter(|_| !same)
}

struct Record<'a> {
    slot: u16,
    write: &'a Write,
    id: DisplacedId,
    whole: bool,
    listed: bool,
}

impl Record<'_> {
    fn bytes(&self) -> usize {
        self.write.value.as_ref().map_or(0, |value| value.len())
    }
}

/// A section's log, as its slots have it: newest first.
pub(crate) struct Log<'a>(Vec<Record<'a>>);

impl<'a> Log<'a> {
    pub(crate) fn read(section: &'a Section, origins: &Origins) -> Self {
        let record = |slot: &u16| {
            let slot = *slot;
            let write = section.standing.get(&Standing::Displaced(slot).key())?;
            let (id, whole) = Slot::head(write.value.as_deref()?)?;
            Some(Record { slot, write, id, whole, listed: false })
        };
        let mut records: Vec<Record<'_>> = section.displaced_slots().keys().filter_map(record).collect();
        records.sort_by(|a, b| newer(origins, (&b.write.stamp, b.write.dot), (&a.write.stamp, a.write.dot)));
        let (mut entries, mut bytes) = (BTreeSet::new(), 0);
        for record in records.iter_mut().filter(|record| record.whole) {
            if entries.contains(&record.id) {
                continue;
            }
            bytes += record.bytes();
            if entries.len() == ENTRIES_MAX || bytes > BYTES_MAX {
                break;
            }
            entries.insert(record.id);
            record.listed = true;
        }
        Log(records)
    }

    /// The listed entries, and their names.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (DisplacedId, Displaced)> {
        let listed = self.0.iter().filter(|record| record.listed);
        listed.filter_map(|record| Some((record.id, minicbor::decode::<Slot>(record.write.value.as_deref()?).ok()?.entry?)))
    }

    /// The names of the listed entries.
    pub(crate) fn ids(&self) -> impl Iterator<Item = DisplacedId> {
        self.0.iter().filter(|record| record.listed).map(|record| record.id)
    }
}

/// Takes entries into a section's log. There are no more than [`ENTRIES_MAX`].
fn take_in(section: &mut Section, cx: &mut Context<'_>, own: OriginIx, time_ms: u64, entries: Vec<Displaced>) {
    let slots = section.displaced_slots();
    let mut bytes: usize = slots.values().map(|(_, bytes)| bytes).sum();
    let mut taken: BTreeSet<u16> = if slots.len() + entries.len() <= ENTRIES_MAX {
        slots.keys().copied().collect() // there is room beside all of them
    } else {
        Log::read(section, cx.origins).0.iter().filter(|record| record.listed).map(|record| record.slot).collect()
    };
    let put = |section: &mut Section, cx: &mut Context<'_>, slot, value: Vec<u8>| {
        section.put_standing(cx, own, Standing::Displaced(slot).key(), Under::default(), time_ms, Some(value.into()));
    };
    for entry in entries {
        let id = entry.id();
        let first = u16::from_be_bytes([id.0[0], id.0[1]]);
        let mut slots = (0..SLOTS).map(|step| first.wrapping_add(step) % SLOTS);
        if let Some(slot) = slots.find(|slot| !taken.contains(slot)) {
            taken.insert(slot);
            let value = Slot::to_bytes(id, Some(entry));
            bytes += value.len();
            put(section, cx, slot, value);
        }
    }
    if bytes <= BYTES_MAX {
        return;
    }
    // What is not listed any more is dropped where it makes the records too large; that it was here stays known.
    let log = Log::read(section, cx.origins);
    let mut bytes: usize = log.0.iter().map(Record::bytes).sum();
    let mut dropped = Vec::new();
    for record in log.0.iter().rev().filter(|record| record.whole && !record.listed) {
        if bytes <= BYTES_MAX {
            break;
        }
        bytes -= record.bytes();
        dropped.push((record.slot, record.id));
    }
    for (slot, id) in dropped {
        put(section, cx, slot, Slot::to_bytes(id, None));
    }
}

// What waits.

#[derive(Debug)]
struct Waiting {
    id: DisplacedId,
    entry: Displaced,
    /// At which turn it is taken into the log: the next is the first.
    turns: u8,
}

/// Where it was written, and its number among what was noticed here.
type Place = (SectionId, u64);

/// What this node has noticed and no log has yet, oldest first.
#[derive(Debug, Default)]
pub struct Noticed {
    waiting: BTreeMap<Place, Waiting>,
    known: BTreeMap<DisplacedId, Place>,
    /// How many of each section, and the bytes of their values.
    size: BTreeMap<SectionId, (usize, usize)>,
    next: u64,
    dirty: BTreeSet<Place>,
}

impl Noticed {
    /// Notices that a write has lost. `own` is this node. Says whether that is new.
    pub fn add(&mut self, own: NodeId, entry: Displaced) -> bool {
        let id = entry.id();
        let new = !self.known.contains_key(&id);
        if new {
            self.dirty.insert((entry.section, self.next));
            self.wait(own, self.next, id, entry);
        }
        new
    }

    /// Restores what was stored.
    pub(crate) fn restore(&mut self, own: NodeId, number: u64, entry: Displaced) {
        self.wait(own, number, entry.id(), entry);
    }

    fn wait(&mut self, own: NodeId, number: u64, id: DisplacedId, entry: Displaced) {
        let (section, entry) = (entry.section, entry.shortened());
        let place = (section, number);
        self.next = self.next.max(number + 1);
        let turns = if entry.dot.origin.node == own { 1 } else { PATIENCE + (own.0[0] ^ id.0[0]) % SPREAD };
        let size = self.size.entry(section).or_default();
        *size = (size.0 + 1, size.1 + entry.value.len());
        self.known.insert(id, place);
        self.waiting.insert(place, Waiting { id, entry, turns });
        while self.size.get(&section).is_some_and(|(count, bytes)| *count > ENTRIES_MAX || *bytes > BYTES_MAX)
            && let Some(oldest) = self.waiting.range((section, 0)..).next().map(|(place, _)| *place)
        {
            self.take(oldest);
        }
    }

    /// What waits, and its name.
    pub fn iter(&self) -> impl Iterator<Item = (DisplacedId, &Displaced)> {
        self.waiting.values().map(|waiting| (waiting.id, &waiting.entry))
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    fn take(&mut self, place: Place) -> Option<Displaced> {
        let Waiting { id, entry, .. } = self.waiting.remove(&place)?;
        self.known.remove(&id);
        self.dirty.insert(place);
        if let Some(size) = self.size.get_mut(&place.0) {
            *size = (size.0 - 1, size.1 - entry.value.len());
        }
        Some(entry)
    }

    /// Drops what belongs nowhere, and tells where the rest belongs.
    pub(crate) fn sort(&mut self, belongs: impl Fn(&Displaced) -> Option<SectionId>) -> BTreeMap<SectionId, Vec<Place>> {
        let mut sorted: BTreeMap<SectionId, Vec<Place>> = BTreeMap::new();
        let mut lost = Vec::new();
        for (place, waiting) in &self.waiting {
            match belongs(&waiting.entry) {
                Some(section) => sorted.entry(section).or_default().push(*place),
                None => lost.push(*place),
            }
        }
        for place in lost {
            self.take(place);
        }
        sorted
    }

    /// One turn of what belongs to a section: what its log knows needs no more to be done, and what has waited for long enough comes into it.
    pub(crate) fn turn(&mut self, places: &[Place], section: &mut Section, cx: &mut Context<'_>, own: OriginIx, time_ms: u64) {
        let known: BTreeSet<DisplacedId> =
            section.displaced_slots().values().map(|(id, _)| *id).filter(|id| self.known.contains_key(id)).collect();
        let mut due = Vec::new();
        for place in places {
            let Some(waiting) = self.waiting.get_mut(place) else { continue };
            waiting.turns = waiting.turns.saturating_sub(1);
            let (ripe, known) = (waiting.turns == 0, known.contains(&waiting.id));
            if (known || ripe && due.len() < ENTRIES_MAX)
                && let Some(entry) = self.take(*place)
                && !known
            {
                due.push(entry);
            }
        }
        if !due.is_empty() {
            take_in(section, cx, own, time_ms, due);
        }
    }

    /// Hands out what has changed since the last call; `None` where it waits no more.
    pub fn take_dirty(&mut self, mut entry: impl FnMut(u64, Option<&Displaced>)) {
        for place in std::mem::take(&mut self.dirty) {
            entry(place.1, self.waiting.get(&place).map(|waiting| &waiting.entry));
        }
    }

    /// Whether [`Noticed::take_dirty`] would hand out anything.
    pub fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::frontier::DotIx;
    use crate::{
        definition::Definition,
        id::{Incarnation, Origin},
        persist::{Row, Table},
        policy::SectionPolicy,
        replica::Replica,
        section::Event,
    };

    const SECTION: SectionId = SectionId(7);

    fn path(text: &str) -> Path {
        Path::parse(text).unwrap()
    }

    fn origin(name: u8, boot: u32) -> Origin {
        Origin { node: NodeId([name; 32]), incarnation: Incarnation { boot, nonce: u64::from(boot) } }
    }

    /// What is on the disk of a node that holds one section with one topic.
    fn founded() -> Vec<Row> {
        let mut founder = Replica::new(origin(200, 1));
        founder.declare_section(SectionPolicy::new(SECTION, path("s"))).unwrap();
        founder.add_topics(&[(path("s/x"), Definition::parse::<&str, &str>("binary", &[]).unwrap())]);
        founder.take_rows().0
    }

    fn nodes<const COUNT: usize>() -> [Replica; COUNT] {
        std::array::from_fn(|at| Replica::load(origin(at as u8 + 1, 1), founded()).unwrap())
    }

    fn restart(replica: &mut Replica, disk: &mut BTreeMap<(Table, Vec<u8>), Vec<u8>>) {
        for Row { table, key, value } in replica.take_rows().0 {
            match value {
                Some(value) => disk.insert((table, key), value),
                None => disk.remove(&(table, key)),
            };
        }
        let own = replica.own();
        let rows = disk.iter().map(|((table, key), value)| Row { table: *table, key: key.clone(), value: Some(value.clone()) });
        *replica = Replica::load(origin(own.node.0[0], own.incarnation.boot + 1), rows).unwrap();
    }

    /// One tells another all values and standing records of the section.
    fn tell(from: &Replica, to: &mut Replica) {
        let section = from.section(SECTION).unwrap();
        let ix = |to: &mut Replica, dot: DotIx| DotIx { origin: to.intern(from.origins().get(dot.origin)), number: dot.number };
        let carried = |to: &mut Replica, write: &Write| Write {
            dot: ix(to, write.dot),
            seen: write.seen.iter().map(|dot| ix(to, *dot)).collect(),
            ..write.clone()
        };
        for (topic, write) in section.values.iter() {
            let (topic, write) = (ix(to, topic.topic()), carried(to, write));
            let (section, mut cx) = to.parts(SECTION).unwrap();
            section.merge_value(&mut cx, topic, write);
        }
        for (key, write) in section.standing.iter() {
            let write = carried(to, write);
            let (section, mut cx) = to.parts(SECTION).unwrap();
            section.merge_standing(&mut cx, key, write);
        }
        for dot in section.values.frontier().iter() {
            let dot = ix(to, dot);
            to.parts(SECTION).unwrap().0.values.end_run(dot.origin, dot.number, []);
        }
        for dot in section.standing.frontier().iter() {
            let dot = ix(to, dot);
            to.parts(SECTION).unwrap().0.standing.end_run(dot.origin, dot.number, []);
        }
        to.take_events();
    }

    fn set(replica: &mut Replica, value: &[u8]) {
        replica.set(&path("s/x"), 1, Arc::from(value)).unwrap();
        replica.take_events();
    }

    /// Notices a loser of this number, by node 9.
    fn notice(replica: &mut Replica, number: u64, value: Vec<u8>) -> DisplacedId {
        let dot = |number| Dot { origin: origin(9, 1), number };
        let entry = Displaced {
            section: SECTION,
            path: path("s/x"),
            definition: None,
            topic: dot(1),
            dot: dot(number),
            epoch: 0,
            time_ms: number,
            value,
            beaten: Beaten::ByRemoval { removal: None },
            event: None,
            too_long: None,
        };
        let id = entry.id();
        replica.parts(SECTION).unwrap().1.events.push(Event::Displaced(Box::new(entry)));
        replica.take_events();
        id
    }

    fn turns(replica: &mut Replica, count: u8) {
        for _ in 0..count {
            replica.file_displaced(1);
            replica.take_events();
        }
    }

    const ALL_TURNS: u8 = PATIENCE + SPREAD;

    fn listed(replica: &Replica) -> Vec<DisplacedId> {
        let log = Log::read(replica.section(SECTION).unwrap(), replica.origins());
        log.ids().collect()
    }

    /// How many standing records of the section this node has written in this run.
    fn written(replica: &Replica) -> u64 {
        replica.last_standing_write_in(SECTION).unwrap().dot.number
    }

    fn record_bytes(replica: &Replica) -> usize {
        Log::read(replica.section(SECTION).unwrap(), replica.origins()).0.iter().map(Record::bytes).sum()
    }

    #[test]
    fn the_losers_writer_says_it_and_everybody_lists_it() {
        let [mut a, mut b, mut c] = nodes();
        set(&mut a, b"one");
        set(&mut b, b"two");
        tell(&a, &mut b);
        tell(&b, &mut a);
        // Equal clocks: the greater origin wins. Both have noticed, C has only ever heard of the winner.
        tell(&b, &mut c);
        assert_eq!([&a, &b, &c].map(|node| node.displaced().len()), [1, 1, 0]);
        turns(&mut b, 1);
        assert_eq!((written(&b), listed(&b).len()), (0, 0), "it leaves that to the loser's writer");
        turns(&mut a, 1);
        assert_eq!(written(&a), 1);
        tell(&a, &mut b);
        tell(&b, &mut c);
        turns(&mut b, ALL_TURNS);
        assert_eq!((written(&b), written(&c)), (0, 0), "one has said it");
        for node in [&a, &b, &c] {
            assert!(node.noticed().is_empty());
            let [(id, entry)] = &node.displaced()[..] else { panic!("one entry") };
            assert_eq!(
                (*id, entry.value.as_slice(), entry.dot.origin, entry.path.as_str()),
                (entry.id(), &b"one"[..], origin(1, 1), "s/x")
            );
            assert_eq!(entry.beaten, Beaten::ByWrite { winner: Dot { origin: origin(2, 1), number: 1 }, epoch: Some(0) });
            assert_eq!(node.displaced_count(), 1);
        }
    }

    #[test]
    fn what_its_writer_does_not_say_another_does_even_if_it_restarts() {
        let [mut a, mut b] = nodes();
        set(&mut a, b"one");
        set(&mut b, b"two");
        tell(&a, &mut b);
        turns(&mut b, 1);
        let mut disk = founded().into_iter().map(|row| ((row.table, row.key), row.value.unwrap())).collect();
        restart(&mut b, &mut disk);
        assert_eq!((b.noticed().iter().count(), listed(&b).len()), (1, 0));
        turns(&mut b, ALL_TURNS);
        assert_eq!((written(&b), listed(&b).len()), (1, 1));
        restart(&mut b, &mut disk);
        assert_eq!((b.noticed().iter().count(), listed(&b).len()), (0, 1));
        assert!(disk.keys().all(|(table, _)| *table != Table::Displaced), "it waits no more");
    }

    #[test]
    fn two_that_take_in_the_same_count_once_and_go_on() {
        let [mut a, mut b] = nodes();
        for node in [&mut a, &mut b] {
            notice(node, 1, vec![1]);
            turns(node, ALL_TURNS);
        }
        tell(&a, &mut b);
        assert!(b.noticed().is_empty(), "nothing is lost of it");
        for _ in 0..2 {
            tell(&a, &mut b);
            tell(&b, &mut a);
            turns(&mut a, ALL_TURNS);
            turns(&mut b, ALL_TURNS);
        }
        assert_eq!((listed(&a).len(), listed(&b).len(), written(&a), written(&b)), (1, 1, 1, 1));
    }

    #[test]
    fn of_two_entries_in_one_slot_none_is_lost() {
        const EACH: u64 = 400;
        let [mut a, mut b] = nodes();
        for number in 0..EACH {
            notice(&mut a, number, vec![1]);
            notice(&mut b, EACH + number, vec![2]);
        }
        turns(&mut a, ALL_TURNS);
        turns(&mut b, ALL_TURNS);
        tell(&a, &mut b);
        assert!(!b.noticed().is_empty(), "so many meet in some slot");
        for _ in 0..4 {
            tell(&b, &mut a);
            turns(&mut a, ALL_TURNS);
            turns(&mut b, ALL_TURNS);
            tell(&a, &mut b);
        }
        assert!(a.noticed().is_empty() && b.noticed().is_empty());
        assert_eq!((listed(&a).len(), listed(&a)), (2 * EACH as usize, listed(&b)));
    }

    #[test]
    fn a_full_log_keeps_the_newest_and_is_the_same_everywhere() {
        let [mut a, mut b] = nodes();
        let mut last = Vec::new();
        for batch in 0..5 {
            last = (0..ENTRIES_MAX as u64 / 2).map(|number| notice(&mut a, batch * 10_000 + number, vec![1])).collect();
            turns(&mut a, ALL_TURNS);
        }
        // The other one fills its own meanwhile.
        for number in 0..ENTRIES_MAX as u64 {
            notice(&mut b, 100_000 + number, vec![2]);
        }
        turns(&mut b, ALL_TURNS);
        assert_eq!(listed(&a).len(), ENTRIES_MAX);
        assert!(last.iter().all(|id| listed(&a).contains(id)), "the newest of all");
        for _ in 0..4 {
            tell(&a, &mut b);
            tell(&b, &mut a);
            turns(&mut a, ALL_TURNS);
            turns(&mut b, ALL_TURNS);
        }
        assert_eq!((listed(&a).len(), listed(&a)), (ENTRIES_MAX, listed(&b)));
        assert!(a.section(SECTION).unwrap().standing.len() <= usize::from(SLOTS));
        assert!(a.noticed().is_empty() && b.noticed().is_empty(), "and it comes to rest");
    }

    #[test]
    fn what_the_log_has_dropped_does_not_come_back() {
        let [mut a] = nodes();
        for batch in 0..3 {
            for number in 0..ENTRIES_MAX as u64 / 2 {
                notice(&mut a, batch * 10_000 + number, vec![1]);
            }
            turns(&mut a, ALL_TURNS);
        }
        let before = (written(&a), listed(&a));
        let log = Log::read(a.section(SECTION).unwrap(), a.origins());
        let known: BTreeSet<DisplacedId> = log.0.iter().map(|record| record.id).collect();
        let (mut again, mut ids) = (0, BTreeSet::new());
        for number in 0..ENTRIES_MAX as u64 / 2 {
            ids.insert(notice(&mut a, number, vec![1]));
            again += 1;
        }
        let dropped = ids.iter().filter(|id| !before.1.contains(id) && known.contains(id)).count();
        assert!(dropped > again / 2, "most of what was dropped last is known: {dropped} of {again}");
        turns(&mut a, ALL_TURNS);
        assert_eq!(written(&a) - before.0, (again - dropped) as u64, "only what nobody remembers");
    }

    #[test]
    fn long_values_do_not_make_it_larger_than_it_may_be() {
        const MIB: usize = 1 << 20;
        let [mut a, mut b] = nodes();
        let last: Vec<DisplacedId> = (0..40)
            .map(|number| {
                let id = notice(&mut a, number, vec![1; MIB]);
                turns(&mut a, ALL_TURNS);
                id
            })
            .collect();
        assert_eq!(
            listed(&a),
            last.iter().rev().take(15).copied().collect::<Vec<_>>(),
            "with what else is said of them, 16 would be too much"
        );
        assert!(record_bytes(&a) <= BYTES_MAX, "{}", record_bytes(&a));
        // What waits is bounded as well, and what is too long is told of.
        for number in 100..140 {
            notice(&mut b, number, vec![1; MIB]);
        }
        assert_eq!(b.noticed().iter().count(), 16);
        let id = notice(&mut b, 200, vec![7; KEPT_MAX + 1]);
        notice(&mut b, 201, vec![7; KEPT_MAX]);
        turns(&mut b, ALL_TURNS);
        tell(&b, &mut a);
        let all = a.displaced();
        let (_, entry) = all.iter().find(|(other, _)| *other == id).unwrap();
        let hash = *blake3::hash(&vec![7; KEPT_MAX + 1]).as_bytes();
        assert_eq!(
            (entry.value.len(), entry.value_bytes(), entry.too_long),
            (0, KEPT_MAX as u64 + 1, Some(TooLong { bytes: KEPT_MAX as u64 + 1, hash }))
        );
        let longest = a.section(SECTION).unwrap().standing.iter().map(|(_, write)| write.value.as_ref().unwrap().len()).max().unwrap();
        assert!(longest > KEPT_MAX && longest <= VALUE_MAX, "{longest}");
    }

    #[test]
    fn what_an_earlier_version_has_kept_comes_into_the_log() {
        #[derive(Encode)]
        enum OldBeaten {
            #[n(0)]
            ByWrite {
                #[n(0)]
                winner: Dot,
            },
            #[n(1)]
            ByRemoval,
        }
        #[derive(Encode)]
        struct Old {
            #[n(0)]
            section: SectionId,
            #[n(1)]
            path: Path,
            #[cbor(n(2), with = "minicbor::bytes")]
            definition: Option<Vec<u8>>,
            #[n(3)]
            topic: Dot,
            #[n(4)]
            dot: Dot,
            #[n(5)]
            epoch: u64,
            #[n(6)]
            time_ms: u64,
            #[cbor(n(7), with = "minicbor::bytes")]
            value: Vec<u8>,
            #[n(8)]
            beaten: OldBeaten,
        }
        let mut rows = founded();
        // One of a section that is not held any more, too.
        for number in 0..1_200_u64 {
            let dot = Dot { origin: origin(9, 1), number };
            let beaten = if number % 2 == 0 { OldBeaten::ByRemoval } else { OldBeaten::ByWrite { winner: dot } };
            let section = if number == 1_199 { SectionId(8) } else { SECTION };
            let at = if number == 1_199 { "t/x" } else { "s/x" };
            let old = Old { section, path: path(at), definition: None, topic: dot, dot, epoch: 3, time_ms: number, value: vec![4], beaten };
            rows.push(Row { table: Table::Displaced, key: number.to_be_bytes().to_vec(), value: Some(minicbor::to_vec(old).unwrap()) });
        }
        let mut a = Replica::load(origin(1, 1), rows).unwrap();
        assert!(a.is_dirty(), "what is too much is dropped from the disk");
        turns(&mut a, ALL_TURNS);
        assert!(a.noticed().is_empty());
        let times: Vec<u64> = a.displaced().iter().map(|(_, entry)| entry.time_ms).collect();
        assert_eq!((times[0], times.len()), (199, ENTRIES_MAX + 1));
        assert_eq!(listed(&a).len(), ENTRIES_MAX);
        let local = Log::read(a.section(SectionId::LOCAL).unwrap(), a.origins()).entries().collect::<Vec<_>>();
        assert_eq!(local.iter().map(|entry| entry.1.path.as_str()).collect::<Vec<_>>(), ["t/x"]);
    }

    #[test]
    fn a_sections_log_goes_where_its_topics_go() {
        let [mut a] = nodes();
        let id = notice(&mut a, 1, vec![1]);
        turns(&mut a, ALL_TURNS);
        a.remove_section(SECTION).unwrap();
        turns(&mut a, ALL_TURNS);
        let local = Log::read(a.section(SectionId::LOCAL).unwrap(), a.origins());
        assert_eq!((local.ids().collect::<Vec<_>>(), a.noticed().is_empty()), (vec![id], true));
    }
}
