//! A small deterministic world: nodes made of the real [`Replica`] and [`Mesh`], model disks, and links whose lanes deliver in any
//! interleaving. Everything that happens follows from a seed.
//!
//! After every step the nodes that it touched are checked against all that was ever written ([`World::check`]); at the end everybody
//! living is linked, time runs on, and [`World::settle`] demands equality, quiet, and that nothing was lost or came back.

#![allow(dead_code, reason = "each test file uses a part of this")]

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{Arc, LazyLock},
};

use mangrove_crdt::{
    definition::{Definition, Properties, TopicType},
    frontier::DotIx,
    id::{Dot, Incarnation, NodeId, Origin, Plane, SectionId},
    path::{BUCKETS, Path},
    persist::{Row, Table},
    policy::SectionPolicy,
    registers::Write,
    replica::{EventRange, Replica, Writer, Written},
    section::{Event, Frontiers, Section, StandingKey},
    series::{EventIx, SeriesType, ValueKey},
    standing::{NodeRecord, Standing},
    time::Instant,
};
use mangrove_net::{
    link::{LinkId, LinkOptions},
    mesh::{Limits, Mesh, Notice, Pace},
};

/// The section that holds the topics.
pub const TOPICS: SectionId = SectionId(7);

/// How long nodes wait for a silent member, if the world has absences.
pub const FOREVER: u64 = u64::MAX;

const SECOND: u64 = 1_000_000;

/// Draws numbers from a seed (SplitMix64).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    /// Whether something happens that does so in `per_mille` of 1,000 cases.
    pub fn chance(&mut self, per_mille: usize) -> bool {
        self.below(1000) < per_mille
    }

    pub fn pick<T: Clone>(&mut self, among: &[T]) -> T {
        among[self.below(among.len())].clone()
    }
}

/// What a world may do.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub steps: usize,
    /// Nodes stay away for long, and removals are forgotten meanwhile.
    pub absences: bool,
    /// Nodes crash, with and without their disk, and come back from old images; some die for good.
    pub crashes: bool,
    /// Nodes give the section up and take it again.
    pub holds: bool,
    /// Standing records are written and removed.
    pub standing: bool,
    /// Topics are created and removed.
    pub topics: bool,
    /// Topics may be series of events, appended and edited.
    pub series: bool,
    /// Removals are forgotten.
    pub forgets: bool,
    /// Much is written, everything is on disk at once, and reports go round: what is rare otherwise is frequent.
    pub hot: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Plan {
            steps: 600,
            absences: true,
            crashes: true,
            holds: false,
            standing: true,
            topics: true,
            series: false,
            forgets: true,
            hot: false,
        }
    }
}

/// A value or an event, named as everybody names it.
type Named = (Dot, Option<(u64, Origin)>);

fn named(replica: &Replica, key: ValueKey) -> Named {
    (replica.dot(key.topic()), key.as_event().map(|event| (event.sequence, replica.origins().get(event.origin))))
}

/// Up to where a topic's events are forgotten.
fn horizon(section: &Section, topic: DotIx) -> u64 {
    let write = section.values.get(&topic.into());
    write.filter(|write| write.value.as_ref().is_some_and(|value| value.is_empty())).map_or(0, |write| write.stamp.seq)
}

/// A series that keeps so few events that they are forgotten all the time.
pub fn series() -> TopicType {
    TopicType::TimeSeries(Arc::new(SeriesType { of: TopicType::Json, keep: 3, keep_for_ms: None }))
}

pub type Disk = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

/// One node.
pub struct Host {
    pub id: NodeId,
    pub boots: u32,
    pub replica: Replica,
    pub mesh: Mesh,
    pub disk: Disk,
    pub image: Disk,
    pub pending: VecDeque<(Vec<Row>, u64)>,
    pub dead: bool,
    pub away_until: u64,
    pub seen: BTreeMap<SectionId, Frontiers>,
    pub adopted: usize,
    pub mismatches: usize,
}

/// A link: what is in flight, lane by lane.
pub struct Wire {
    pub ends: [(usize, LinkId); 2],
    /// By the end that sends, and lane.
    pub flight: BTreeMap<(usize, u32), VecDeque<Vec<u8>>>,
    pub blocked: BTreeSet<(usize, u32)>,
}

/// Something that was written, as everybody must come to know it.
#[derive(Clone, Debug)]
pub enum Record {
    Value { id: Dot, dot: Dot, seq: u64 },
    Event { id: Dot, event: (u64, Origin), dot: Dot, seq: u64 },
    Standing { key: StandingKey, dot: Dot, seq: u64, removal: bool, knew: BTreeMap<Origin, u64> },
    Created { id: Dot },
    Removed { ids: Vec<Dot>, dot: Dot },
}

pub struct World {
    pub seed: u64,
    pub dice: Dice,
    pub plan: Plan,
    pub now: u64,
    pub hosts: Vec<Host>,
    pub wires: BTreeMap<u64, Wire>,
    pub next_wire: u64,
    pub history: Vec<Record>,
    pub numbers: BTreeSet<(SectionId, u8, Dot)>,
    pub removed_ids: BTreeSet<Dot>,
    pub removed_keys: BTreeMap<StandingKey, (u64, Dot)>,
    pub retention: u64,
    pub pace: Pace,
    pub paths: Vec<Path>,
    pub keys: Vec<NodeId>,
    pub writes: u64,
    pub nonces: u64,
    /// A run, adoption or repair may have been cut short with its sender gone for good, so a mismatch is no fault.
    pub may_mismatch: bool,
    pub frames: [u64; 2],
    pub busy_kinds: BTreeMap<u64, u64>,
    pub trace: bool,
    pub forgotten: usize,
    pub adoptions: usize,
    pub mismatches: usize,
}

/// A mesh in which the section is declared already: what every node starts from.
static FOUNDED: LazyLock<Disk> = LazyLock::new(|| {
    let origin = Origin { node: NodeId([255; 32]), incarnation: Incarnation { boot: 1, nonce: 1 } };
    let mut founder = Replica::new(origin);
    founder.declare_section(SectionPolicy::new(TOPICS, path("s"))).expect("a section is declared in an empty mesh");
    let mut disk = Disk::new();
    commit(&mut disk, founder.take_rows().0);
    disk
});

pub fn path(text: &str) -> Path {
    Path::parse(text).expect("tests use good paths")
}

pub fn node(number: usize) -> NodeId {
    NodeId([number as u8 + 1; 32])
}

pub fn commit(disk: &mut Disk, rows: Vec<Row>) {
    for Row { table, key, value } in rows {
        match value {
            Some(value) => disk.insert((table, key), value),
            None => disk.remove(&(table, key)),
        };
    }
}

pub fn rows_of(disk: &Disk) -> Vec<Row> {
    disk.iter().map(|((table, key), value)| Row { table: *table, key: key.clone(), value: Some(value.clone()) }).collect()
}

/// One record a frame.
const ONE_BY_ONE: Limits = Limits { batch_bytes: 1, batch_records: 1, bulk_bytes: 1, runs_told: 1, bases_bytes: 10_000, compressed: true };

impl World {
    pub fn new(seed: u64, plan: Plan) -> Self {
        let mut dice = Dice::new(seed);
        let size = 2 + dice.below(4);
        let limits =
            dice.pick(&[ONE_BY_ONE, Limits { batch_bytes: 256, batch_records: 2, bulk_bytes: 200, ..ONE_BY_ONE }, Limits::default()]);
        // From the oldest to the present one, all of a node's runs may count as retired.
        // Some keep no values for deltas, some two or three; some take no compressed ones.
        let (runs_told, bases_bytes) = ([2, 0, 1, 2][seed as usize % 4], [10_000, 0, 600][seed as usize % 3]);
        let limits = Limits { runs_told, bases_bytes, compressed: !seed.is_multiple_of(5), ..limits };
        let pace = Pace { limits, ..Pace::default() };
        let retention = if plan.absences { dice.pick(&[20 * SECOND, 60 * SECOND, FOREVER]) } else { FOREVER };
        let paths = (0..1 + dice.below(6)).map(|at| path(&format!("s/{at}"))).collect();
        let keys = (0..1 + dice.below(5)).map(|at| node(100 + at)).collect();
        let mut world = World {
            seed,
            dice,
            plan,
            now: 1_000 * SECOND,
            hosts: Vec::new(),
            wires: BTreeMap::new(),
            next_wire: 0,
            history: Vec::new(),
            numbers: BTreeSet::new(),
            removed_ids: BTreeSet::new(),
            removed_keys: BTreeMap::new(),
            retention,
            pace,
            paths,
            keys,
            writes: 0,
            nonces: 0,
            may_mismatch: false,
            frames: [0; 2],
            busy_kinds: BTreeMap::new(),
            trace: std::env::var_os("MANGROVE_TRACE").is_some(),
            forgotten: 0,
            adoptions: 0,
            mismatches: 0,
        };
        for at in 0..size {
            let host = world.make(at, 1, FOUNDED.clone(), size);
            world.hosts.push(host);
        }
        for at in 0..size {
            world.announce(at);
        }
        world
    }

    /// A world for a story that is told step by step: so many nodes, one record a frame, nothing forgotten unless told to, and a retention
    /// of 20 seconds.
    pub fn story(size: usize) -> Self {
        let mut world = World::new(0, Plan { forgets: false, ..Plan::default() });
        world.pace = Pace { limits: ONE_BY_ONE, ..Pace::default() };
        world.retention = 20 * SECOND;
        world.paths = (0..3).map(|at| path(&format!("s/{at}"))).collect();
        world.keys = (0..8).map(|at| node(100 + at)).collect();
        world.history.clear();
        world.hosts.clear();
        for at in 0..size {
            let host = world.make(at, 1, FOUNDED.clone(), size);
            world.hosts.push(host);
        }
        for at in 0..size {
            world.announce(at);
        }
        world
    }

    /// Frames cross a link one by one, from one node to the other, until something is so.
    pub fn cross(&mut self, from: usize, to: usize, mut until: impl FnMut(&mut World) -> bool) {
        let id = self.linked(from, to).expect("they are linked");
        let end = usize::from(self.wires[&id].ends[0].0 != from);
        for _ in 0..1_000 {
            if until(self) {
                return;
            }
            self.send(id, end, 1);
            let lanes: Vec<(usize, u32)> = self.wires[&id].flight.keys().copied().filter(|lane| lane.0 == end).collect();
            for lane in lanes {
                self.deliver(id, lane, 1);
            }
        }
        panic!("nothing that crosses from {from} to {to} makes it so");
    }

    /// The live standing record of a key.
    pub fn says(&self, at: usize, key: NodeId) -> Option<&[u8]> {
        self.hosts[at].replica.section(SectionId::MESH)?.standing.get(&Standing::Node(key).key())?.value.as_deref()
    }

    fn make(&mut self, at: usize, boots: u32, disk: Disk, size: usize) -> Host {
        self.nonces += 1;
        let own = Origin { node: node(at), incarnation: Incarnation { boot: boots, nonce: self.nonces << 8 | at as u64 } };
        let mut replica = match Replica::load(own, rows_of(&disk)) {
            Ok(replica) => replica,
            Err(error) => panic!("node {at} cannot load: {error}"),
        };
        for other in (0..size).filter(|other| *other != at) {
            replica.members.add(node(other));
        }
        let mesh = Mesh::new(Instant(self.now), self.pace);
        Host {
            id: node(at),
            boots,
            replica,
            mesh,
            image: disk.clone(),
            disk,
            pending: VecDeque::new(),
            dead: false,
            away_until: 0,
            seen: BTreeMap::new(),
            adopted: 0,
            mismatches: 0,
        }
    }

    pub fn say(&self, text: impl FnOnce() -> String) {
        if self.trace {
            eprintln!("{:>9} {}", self.now / 1000, text());
        }
    }

    /// A node's record of itself: which sections it holds.
    pub fn announce(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        let holds: Vec<SectionId> = host.replica.held().filter(|id| *id != SectionId::MESH).collect();
        // Every run has something to say, so that every origin has a feed.
        let name = format!("n{at} in run {}", host.boots);
        if host.replica.node(host.id).is_some_and(|record| record.holds == holds && record.name == name) {
            return;
        }
        let record = NodeRecord { name, holds, ..NodeRecord::default() };
        let value = minicbor::to_vec(record).expect("encoding to memory");
        self.put_standing(at, node(at), Some(value));
    }

    pub fn alive(&self) -> Vec<usize> {
        (0..self.hosts.len()).filter(|at| !self.hosts[*at].dead).collect()
    }

    // What nodes do.

    pub fn put_standing(&mut self, at: usize, key: NodeId, value: Option<Vec<u8>>) {
        let removal = value.is_none();
        let replica = &mut self.hosts[at].replica;
        let knew: BTreeMap<Origin, u64> = {
            let section = replica.section(SectionId::MESH).expect("the mesh section is held");
            section.standing.frontier().iter().map(|dot| (replica.origins().get(dot.origin), dot.number)).collect()
        };
        let written = replica.put_standing(Standing::Node(key), self.now / 1000, value).expect("the mesh section is held");
        let dot = replica.dot(written.dot);
        let key = Standing::Node(key).key();
        let section = replica.section(SectionId::MESH).expect("held");
        let seq = section.standing.get(&key).expect("it was just written").stamp.seq;
        self.say(|| format!("{at} puts standing {:02x?} {} as {dot:?} at {seq}", key[1], if removal { "GONE" } else { "" }));
        self.note(written, at);
        if removal {
            let newest = self.removed_keys.entry(key.clone()).or_insert((seq, dot));
            *newest = (*newest).max((seq, dot));
        }
        self.history.push(Record::Standing { key, dot, seq, removal, knew });
    }

    /// S16: no number is given twice.
    fn note(&mut self, written: Written, at: usize) {
        let dot = self.hosts[at].replica.dot(written.dot);
        assert!(self.numbers.insert((written.section, written.plane as u8, dot)), "number {dot:?} was given twice");
    }

    pub fn add_topics(&mut self, at: usize, paths: &[Path], topic_type: TopicType) {
        let replica = &mut self.hosts[at].replica;
        let new: Vec<(Path, Definition)> = paths
            .iter()
            .filter(|path| replica.topic(path).is_none())
            .map(|path| (path.clone(), Definition::new(topic_type.clone(), Properties::default())))
            .collect();
        if new.is_empty() || !replica.held().any(|id| id == TOPICS) {
            return;
        }
        for added in replica.add_topics(&new) {
            added.expect("the path was free");
        }
        for (path, _) in &new {
            let replica = &self.hosts[at].replica;
            let (section, topic) = replica.topic(path).expect("it was just created");
            let id = replica.dot(topic.ids[0]);
            assert_eq!((section, topic.ids.len()), (TOPICS, 1));
            assert!(self.numbers.insert((TOPICS, Plane::Tree as u8, id)), "number {id:?} was given twice");
            self.say(|| format!("{at} creates {path:?} as {id:?}"));
            self.history.push(Record::Created { id });
        }
    }

    pub fn remove_topics(&mut self, at: usize, paths: &[Path]) {
        let replica = &mut self.hosts[at].replica;
        let live: Vec<Path> = paths.iter().filter(|path| replica.topic(path).is_some()).cloned().collect();
        for path in live {
            let replica = &mut self.hosts[at].replica;
            let (_, topic) = replica.topic(&path).expect("it lives");
            let ids: Vec<DotIx> = topic.ids.iter().copied().chain(topic.conflicts.iter().map(|conflict| conflict.0)).collect();
            let ids: Vec<Dot> = ids.into_iter().map(|id| replica.dot(id)).collect();
            assert_eq!(replica.remove_topics(std::slice::from_ref(&path)), 1);
            let written = replica.last_tree_write(TOPICS).expect("held");
            let dot = replica.dot(written.dot);
            self.note(written, at);
            self.say(|| format!("{at} removes {path:?} {ids:?} as {dot:?}"));
            self.removed_ids.extend(&ids);
            self.history.push(Record::Removed { ids, dot });
        }
    }

    pub fn set(&mut self, at: usize, path: &Path) {
        self.writes += 1;
        let replica = &mut self.hosts[at].replica;
        let Some((_, topic)) = replica.topic(path) else { return };
        let value = match topic.definition.topic_type() {
            // Most are long enough to be told as what has changed.
            TopicType::TimeSeries(_) => return self.set_event(at, path),
            TopicType::Json => minicbor::to_vec((self.writes, "long".repeat(self.writes as usize % 4 * 25))),
            _ => minicbor::to_vec(self.writes),
        };
        let value: Arc<[u8]> = value.expect("encoding to memory").into();
        let ids = topic.ids.clone();
        let written = match replica.set(path, self.now / 1000, value) {
            Ok(written) => written,
            Err(error) => panic!("node {at} cannot set {path:?}: {error}"),
        };
        let section = replica.section(TOPICS).expect("held");
        let id = ids.iter().find(|id| section.values.get(&(**id).into()).is_some_and(|write| write.dot == written.dot));
        let id = id.expect("the value is there");
        let (id, dot, seq) = (replica.dot(*id), replica.dot(written.dot), section.clock());
        self.note(written, at);
        self.say(|| format!("{at} sets {path:?} {id:?} as {dot:?} at {seq}"));
        self.history.push(Record::Value { id, dot, seq });
    }

    /// Appends an event, or edits one.
    fn set_event(&mut self, at: usize, path: &Path) {
        let edits = self.dice.chance(300);
        self.write_event(at, path, edits);
    }

    /// Appends an event, or edits one if there is any.
    pub fn write_event(&mut self, at: usize, path: &Path, edits: bool) {
        let replica = &mut self.hosts[at].replica;
        let (section, topic) = replica.topic(path).expect("just seen");
        let names: Vec<_> =
            replica.events(section, topic, 0, &EventRange::default()).iter().map(|told| told.event.name(replica.origins())).collect();
        let value = minicbor::to_vec(self.writes).expect("encoding to memory");
        let writer = Writer { time_ms: self.now / 1000, author: "somebody", ..Writer::default() };
        let taken = match names.is_empty() || !edits {
            true => replica.set_by(path, writer, value.into()),
            false => replica.edit_event(path, self.dice.pick(&names), writer, &value),
        };
        let taken = taken.unwrap_or_else(|error| panic!("node {at} cannot write an event of {path:?}: {error}"));
        let section = replica.section(TOPICS).expect("held");
        let event = taken.event.expect("a series");
        let of =
            |key: &ValueKey| key.as_event() == Some(event) && section.values.get(key).is_some_and(|write| write.dot == taken.written.dot);
        let key = section.values.iter().map(|(key, _)| *key).find(of).expect("the event is there");
        let (id, dot, seq) = (replica.dot(key.topic()), replica.dot(taken.written.dot), section.clock());
        let event = (event.sequence, replica.origins().get(event.origin));
        self.note(taken.written, at);
        self.say(|| format!("{at} writes the event {event:?} of {path:?} {id:?} as {dot:?} at {seq}"));
        self.history.push(Record::Event { id, event, dot, seq });
    }

    /// Everything dirty goes to the queue of the store, as one batch.
    pub fn flush(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        if host.replica.is_dirty() {
            let batch = host.replica.take_rows();
            host.pending.push_back(batch);
        }
    }

    /// The store has made so many batches durable.
    pub fn persist(&mut self, at: usize, batches: usize) {
        let host = &mut self.hosts[at];
        for _ in 0..batches.min(host.pending.len()) {
            if let Some((rows, mark)) = host.pending.pop_front() {
                commit(&mut host.disk, rows);
                host.replica.persisted(mark);
            }
        }
    }

    pub fn forget(&mut self, at: usize) {
        let retention = self.retention;
        let host = &mut self.hosts[at];
        let before = remembered(&host.replica);
        host.replica.forget(self.now, |_| retention);
        self.forgotten += before.saturating_sub(remembered(&host.replica));
        self.say(|| format!("{at} forgets, {before} -> {}", remembered(&self.hosts[at].replica)));
    }

    /// The node stops, and starts again from a disk.
    pub fn restart(&mut self, at: usize, disk: Disk, boots: u32) {
        self.say(|| format!("{at} restarts as {boots} with {} rows", disk.len()));
        self.isolate(at);
        let size = self.hosts.len();
        let image = std::mem::take(&mut self.hosts[at].image);
        let away_until = self.hosts[at].away_until;
        self.hosts[at] = self.make(at, boots, disk, size);
        self.hosts[at].image = image;
        self.hosts[at].away_until = away_until;
        self.hosts[at].replica.take_events();
        self.announce(at);
    }

    pub fn hold(&mut self, at: usize) {
        let now_held = self.hosts[at].replica.hold(TOPICS);
        if now_held {
            self.say(|| format!("{at} holds again"));
            let Host { replica, mesh, .. } = &mut self.hosts[at];
            mesh.held(replica, TOPICS);
        }
    }

    pub fn unhold(&mut self, at: usize) {
        self.say(|| format!("{at} gives the section up"));
        // What it had sent half is perhaps nowhere else.
        self.may_mismatch = true;
        self.hosts[at].replica.unhold(TOPICS);
        self.hosts[at].seen.remove(&TOPICS);
    }

    // Links.

    pub fn linked(&self, a: usize, b: usize) -> Option<u64> {
        let ends = |wire: &Wire| [wire.ends[0].0, wire.ends[1].0];
        self.wires.iter().find(|(_, wire)| ends(wire) == [a, b] || ends(wire) == [b, a]).map(|(id, _)| *id)
    }

    pub fn connect(&mut self, a: usize, b: usize) {
        if self.linked(a, b).is_some() {
            return;
        }
        let id = self.next_wire;
        self.next_wire += 1;
        self.say(|| format!("{a} and {b} link up as {id}"));
        let ends = [(a, LinkId(id * 2)), (b, LinkId(id * 2 + 1))];
        for (end, (at, link)) in ends.iter().enumerate() {
            let peer = self.hosts[ends[1 - end].0].id;
            self.hosts[*at].mesh.handle_link_up(Instant(self.now), *link, peer, LinkOptions::default());
        }
        self.wires.insert(id, Wire { ends, flight: BTreeMap::new(), blocked: BTreeSet::new() });
    }

    pub fn cut(&mut self, id: u64) {
        let Some(wire) = self.wires.remove(&id) else { return };
        self.say(|| format!("link {id} is cut"));
        for (at, link) in wire.ends {
            let Host { replica, mesh, .. } = &mut self.hosts[at];
            mesh.handle_link_down(replica, link);
        }
    }

    pub fn isolate(&mut self, at: usize) {
        let of: Vec<u64> = self.wires.iter().filter(|(_, wire)| wire.ends.iter().any(|end| end.0 == at)).map(|(id, _)| *id).collect();
        for id in of {
            self.cut(id);
        }
    }

    /// Up to `count` frames leave an end of a link. Returns how many did.
    pub fn send(&mut self, id: u64, end: usize, count: usize) -> usize {
        let Some(wire) = self.wires.get_mut(&id) else { return 0 };
        let (at, link) = wire.ends[end];
        let Host { replica, mesh, .. } = &mut self.hosts[at];
        for sent in 0..count {
            let blocked = &wire.blocked;
            let frame = mesh.poll_transmit(Instant(self.now), link, replica, &|lane| blocked.contains(&(end, lane)));
            let Some(frame) = frame else { return sent };
            self.frames[usize::from(frame.lane != 0)] += 1;
            let kind = if frame.lane == 0 { u64::from(frame.bytes[0]) } else { 100 + u64::from(frame.bytes[0]) };
            *self.busy_kinds.entry(kind).or_default() += 1;
            wire.flight.entry((end, frame.lane)).or_default().push_back(frame.bytes.to_vec());
        }
        count
    }

    /// Up to `count` frames of one lane arrive.
    pub fn deliver(&mut self, id: u64, lane: (usize, u32), count: usize) {
        for _ in 0..count {
            let Some(wire) = self.wires.get_mut(&id) else { return };
            let Some(frame) = wire.flight.get_mut(&lane).and_then(VecDeque::pop_front) else { return };
            let (at, link) = wire.ends[1 - lane.0];
            let Host { replica, mesh, .. } = &mut self.hosts[at];
            match mesh.handle_frame(Instant(self.now), link, lane.1, &frame, replica) {
                Ok(Some(Notice::Mismatch { section, bucket, .. })) => {
                    self.hosts[at].mismatches += 1;
                    self.mismatches += 1;
                    self.say(|| format!("{at} finds that bucket {bucket} of {section} differs"));
                }
                Ok(Some(Notice::Adopted { section, .. })) => {
                    self.hosts[at].adopted += 1;
                    self.adoptions += 1;
                    self.say(|| format!("{at} has adopted {section}"));
                }
                Ok(Some(Notice::Letter { .. }) | None) => {}
                Err(violation) => panic!("{at} finds a violation: {violation}"),
            }
        }
    }

    pub fn in_flight(&self) -> Vec<(u64, (usize, u32))> {
        let lanes = self.wires.iter().flat_map(|(id, wire)| wire.flight.iter().map(move |(lane, frames)| (*id, *lane, frames.len())));
        lanes.filter(|(.., frames)| *frames > 0).map(|(id, lane, _)| (id, lane)).collect()
    }

    pub fn timers(&mut self, at: usize) {
        let Host { replica, mesh, .. } = &mut self.hosts[at];
        for _ in 0..1000 {
            match mesh.poll_timeout() {
                Some((due, _)) if due.0 <= self.now => mesh.handle_timeout(Instant(self.now), replica),
                _ => return,
            }
        }
        panic!("timers of {at} never end");
    }

    /// What the node around the replica does with its events.
    pub fn events(&mut self, at: usize) {
        let events = self.hosts[at].replica.take_events();
        if events.contains(&Event::Policy) {
            self.hosts[at].replica.settle_sections(None);
            self.hosts[at].replica.take_events();
        }
    }

    // The schedule.

    pub fn step(&mut self) {
        self.now += self.dice.next() % if self.plan.hot { SECOND / 2 } else { SECOND / 4 };
        let alive = self.alive();
        for at in &alive {
            self.timers(*at);
        }
        let dice = self.dice.below(1000);
        let at = self.dice.pick(&alive);
        let size = alive.len();
        let mut touched = vec![at];
        if self.plan.hot {
            for at in &alive {
                self.flush(*at);
                self.persist(*at, usize::MAX);
            }
            if self.dice.chance(350) {
                for _ in 0..1 + self.dice.below(4) {
                    self.write(at);
                }
                self.check(at);
            }
            if self.dice.chance(300) {
                self.forget(at);
            }
        }
        match dice {
            0..100 => self.write(at),
            100..160 => {
                let other = self.dice.pick(&alive);
                let home = |host: &Host| host.away_until <= self.now;
                if other != at && home(&self.hosts[at]) && home(&self.hosts[other]) {
                    self.connect(at, other);
                }
            }
            160..180 => {
                if let Some(id) = self.wires.keys().copied().nth(self.dice.below(self.wires.len())) {
                    self.cut(id);
                }
            }
            180..190 if self.plan.absences => {
                self.isolate(at);
                self.hosts[at].away_until = self.now + self.dice.pick(&[30, 100]) * SECOND;
            }
            190..440 => {
                if let Some(id) = self.wires.keys().copied().nth(self.dice.below(self.wires.len())) {
                    let end = self.dice.below(2);
                    let count = 1 + self.dice.below(6);
                    self.send(id, end, count);
                    touched.push(self.wires[&id].ends[end].0);
                }
            }
            440..800 => {
                for _ in 0..1 + self.dice.below(4) {
                    let lanes = self.in_flight();
                    if lanes.is_empty() {
                        break;
                    }
                    let (id, lane) = self.dice.pick(&lanes);
                    touched.push(self.wires[&id].ends[1 - lane.0].0);
                    let count = 1 + self.dice.below(4);
                    self.deliver(id, lane, count);
                }
            }
            800..820 => {
                if let Some(id) = self.wires.keys().copied().nth(self.dice.below(self.wires.len())) {
                    let lane = (self.dice.below(2), self.dice.below(8) as u32);
                    let wire = self.wires.get_mut(&id).expect("just found");
                    if !wire.blocked.remove(&lane) {
                        wire.blocked.insert(lane);
                    }
                }
            }
            820..880 => self.flush(at),
            880..930 => {
                let batches = 1 + self.dice.below(3);
                self.persist(at, batches);
            }
            930..970 if self.plan.forgets => self.forget(at),
            970..978 if self.plan.crashes => self.crash(at),
            978..980 if self.plan.crashes && size > 2 => {
                self.say(|| format!("{at} dies"));
                self.isolate(at);
                self.hosts[at].dead = true;
                self.may_mismatch = true;
            }
            980..984 => self.hosts[at].image = self.hosts[at].disk.clone(),
            984..990 if self.plan.holds => {
                if self.hosts[at].replica.held().any(|id| id == TOPICS) {
                    self.unhold(at);
                    if self.dice.chance(500) {
                        self.hold(at);
                    }
                } else {
                    self.hold(at);
                }
                self.announce(at);
            }
            990..1000 => {
                let leap = self.dice.pick(&[1, 5, 20]);
                self.now += leap * SECOND;
            }
            _ => {}
        }
        touched.sort_unstable();
        touched.dedup();
        for at in touched {
            if !self.hosts[at].dead {
                self.events(at);
                self.check(at);
            }
        }
    }

    fn write(&mut self, at: usize) {
        let path = self.dice.pick(&self.paths.clone());
        let what = self.dice.below(100);
        match what {
            _ if self.plan.standing && (what < 25 || !self.plan.topics) => {
                let key = self.dice.pick(&self.keys.clone());
                let held = Standing::Node(key).key();
                let known = self.hosts[at].replica.section(SectionId::MESH).and_then(|mesh| mesh.standing.get(&held)).is_some();
                let gone = known && self.dice.chance(if self.plan.absences { 500 } else { 250 });
                self.writes += 1;
                let value = (!gone).then(|| self.writes.to_be_bytes().to_vec());
                self.put_standing(at, key, value);
            }
            25..45 if self.plan.topics => {
                let count = self.dice.pick(&[1, 1, 3]);
                let paths: Vec<Path> =
                    (0..count).map(|_| self.dice.pick(&self.paths.clone())).collect::<BTreeSet<_>>().into_iter().collect();
                let topic_type = match self.plan.series && self.dice.chance(800) {
                    true => series(),
                    false if self.dice.chance(150) => TopicType::Int64,
                    false => TopicType::Json,
                };
                self.add_topics(at, &paths, topic_type);
            }
            45..57 if self.plan.topics => self.remove_topics(at, &[path]),
            _ => {
                if self.hosts[at].replica.topic(&path).is_none() && self.dice.chance(300) {
                    let topic_type = if self.plan.series { series() } else { TopicType::Json };
                    self.add_topics(at, std::slice::from_ref(&path), topic_type);
                }
                self.set(at, &path);
            }
        }
    }

    fn crash(&mut self, at: usize) {
        // What was sent, and not on disk, may be nowhere else by the time its run is cut.
        self.may_mismatch = true;
        let boots = self.hosts[at].boots + 1;
        match self.dice.below(5) {
            0..3 => {
                let disk = self.hosts[at].disk.clone();
                self.restart(at, disk, boots);
            }
            3 => self.restart(at, FOUNDED.clone(), 1),
            _ => {
                // A restored backup knows nothing of the starts since; its counter repeats, the random part does not.
                let image = self.hosts[at].image.clone();
                let boots = 1 + self.dice.below(boots as usize) as u32;
                self.restart(at, image, boots);
            }
        }
    }

    // Checks.

    /// R1 and S3 on one node: its frontiers never fall, and all that they cover is here, or something newer, or is known to be gone.
    pub fn check(&mut self, at: usize) {
        let host = &mut self.hosts[at];
        for id in [SectionId::MESH, TOPICS] {
            let Some(section) = host.replica.section(id) else { continue };
            let now = section.frontiers();
            if let Some(before) = host.seen.get(&id) {
                assert!(now.covers_all(before), "node {at}: the frontier of {id} fell from {before:?} to {now:?}");
            }
            assert!(now.covers_all(section.durable()), "node {at}: more is durable than held");
            host.seen.insert(id, now);
        }
        let replica = &self.hosts[at].replica;
        let mesh = replica.section(SectionId::MESH).expect("the mesh section is held");
        let find = |dot: &Dot| replica.origins().find(&dot.origin).map(|origin| DotIx { origin, number: dot.number });
        let rank = |write: &Write| (write.stamp.seq, replica.dot(write.dot));
        // The topics whose removal the tree frontier covers.
        let mut gone = BTreeSet::new();
        if let Some(section) = replica.section(TOPICS) {
            for record in &self.history {
                let Record::Removed { ids, dot } = record else { continue };
                if find(dot).is_some_and(|dot| section.tree.frontier().covers(dot)) {
                    gone.extend(ids.iter().copied());
                }
            }
        }
        for record in &self.history {
            match record {
                Record::Standing { key, dot, seq, .. } => {
                    let covered = find(dot).is_some_and(|dot| mesh.standing.frontier().covers(dot));
                    if covered && self.removed_keys.get(key).is_none_or(|removed| *removed < (*seq, *dot)) {
                        let held = mesh.standing.get(key).map(rank);
                        assert!(held >= Some((*seq, *dot)), "node {at}: unsound for standing {:02x?} {dot:?}, holds {held:?}", key[1]);
                    }
                }
                Record::Value { id, dot, seq } | Record::Event { id, dot, seq, .. } => {
                    let Some(section) = replica.section(TOPICS) else { continue };
                    let covered = find(dot).is_some_and(|dot| section.values.frontier().covers(dot));
                    if covered {
                        let topic = find(id).expect("the value's topic is known");
                        if section.tree.frontier().covers(topic) && section.tree.path_of(topic).is_none() && section.tree.is_settled() {
                            assert!(self.removed_ids.contains(id), "node {at}: topic {id:?} is gone though nobody removed it");
                            continue;
                        }
                        if gone.contains(id) {
                            continue;
                        }
                        // Documents may hold topics beyond their frontier, and removals.
                        let bygone = || section.tree.bygone(replica.origins(), &[topic].into()).contains_key(&topic);
                        let known = section.tree.frontier().covers(topic) || section.tree.path_of(topic).is_some() || bygone();
                        assert!(known, "node {at}: unsound for the value {dot:?} of {id:?}, a topic that it has not heard of");
                        let key = match record {
                            Record::Event { event: (sequence, origin), .. } => {
                                if horizon(section, topic) >= *sequence {
                                    continue;
                                }
                                let origin = replica.origins().find(origin).expect("an origin of a write that is covered");
                                ValueKey::event(topic, EventIx { sequence: *sequence, origin })
                            }
                            _ => topic.into(),
                        };
                        let held = section.values.get(&key).map(rank);
                        assert!(
                            held >= Some((*seq, *dot)),
                            "node {at}: unsound for the value {dot:?} of {id:?}, holds {held:?}; topic covered {}, lives {}, settled {}",
                            section.tree.frontier().covers(topic),
                            section.tree.path_of(topic).is_some(),
                            section.tree.is_settled(),
                        );
                    }
                }
                Record::Created { id } => {
                    let Some(section) = replica.section(TOPICS) else { continue };
                    let Some(topic) = find(id).filter(|topic| section.tree.frontier().covers(*topic)) else { continue };
                    let lives = section.tree.path_of(topic).is_some();
                    assert!(lives || self.removed_ids.contains(id), "node {at}: unsound for the topic {id:?}");
                }
                Record::Removed { ids, dot } => {
                    let Some(section) = replica.section(TOPICS) else { continue };
                    if find(dot).is_some_and(|dot| section.tree.frontier().covers(dot)) {
                        for id in ids {
                            let lives = find(id).is_some_and(|topic| section.tree.path_of(topic).is_some());
                            assert!(!lives, "node {at}: {id:?} lives though its removal {dot:?} is covered");
                        }
                    }
                }
            }
        }
    }

    pub fn digest(&mut self, at: usize, id: SectionId) -> [u8; 32] {
        let (section, cx) = self.hosts[at].replica.parts(id).expect("held");
        section.digest_over(cx.origins, 0..BUCKETS)
    }

    /// All live values and standing records of a node, by name.
    #[allow(clippy::type_complexity, reason = "compared as a whole, never taken apart")]
    fn state(&self, at: usize) -> Vec<(Vec<u8>, u64, Dot, Option<Vec<u8>>)> {
        let replica = &self.hosts[at].replica;
        let mut state = Vec::new();
        let row =
            |key: Vec<u8>, write: &Write| (key, write.stamp.seq, replica.dot(write.dot), write.value.as_ref().map(|value| value.to_vec()));
        if let Some(section) = replica.section(TOPICS) {
            for topic in section.tree.topics_from("") {
                for key in topic.ids.iter().flat_map(|id| section.keys_of(*id)) {
                    let named = format!("{} {:?}", topic.path.as_str(), named(replica, key)).into_bytes();
                    state.extend(section.values.get(&key).map(|write| row(named, write)));
                }
            }
        }
        let mesh = replica.section(SectionId::MESH).expect("held");
        state.extend(mesh.standing.iter().filter(|(_, write)| write.value.is_some()).map(|(key, write)| row(key.to_vec(), write)));
        state.sort();
        state
    }

    fn equal(&mut self) -> bool {
        let alive = self.alive();
        [SectionId::MESH, TOPICS].into_iter().all(|id| {
            let holders: Vec<usize> = alive.iter().copied().filter(|at| self.hosts[*at].replica.section(id).is_some()).collect();
            let digests: BTreeSet<_> = holders.iter().map(|at| self.digest(*at, id)).collect();
            let ranks: BTreeSet<_> = holders.iter().map(|at| self.named_frontiers(*at, id)).collect();
            digests.len() <= 1 && ranks.len() <= 1
        })
    }

    pub fn named_frontiers(&self, at: usize, id: SectionId) -> Vec<(u8, Origin, u64)> {
        let replica = &self.hosts[at].replica;
        let section = replica.section(id).expect("held");
        let dots = Plane::ALL.into_iter().flat_map(|plane| section.frontier(plane).iter().map(move |dot| (plane as u8, dot)));
        let mut named: Vec<_> = dots.map(|(plane, dot)| (plane, replica.origins().get(dot.origin), dot.number)).collect();
        named.sort_unstable();
        named
    }

    /// Time goes on with nothing in the way.
    pub fn run(&mut self, seconds: u64, mut until: impl FnMut(&mut World) -> bool) -> bool {
        let end = self.now + seconds * SECOND;
        let mut round = 0u32;
        while self.now < end {
            self.now += SECOND / 4;
            round += 1;
            let alive = self.alive();
            for at in &alive {
                self.timers(*at);
                self.flush(*at);
                self.persist(*at, usize::MAX);
                if self.plan.forgets && round.is_multiple_of(8) {
                    self.forget(*at);
                }
            }
            self.exchange();
            for at in alive {
                self.events(at);
            }
            if round.is_multiple_of(4) && until(self) {
                return true;
            }
        }
        false
    }

    /// Everything that can be sent is sent and arrives, lanes in any order.
    pub fn exchange(&mut self) {
        for _ in 0..20_000 {
            let ids: Vec<u64> = self.wires.keys().copied().collect();
            let sent: usize = ids.iter().map(|id| self.send(*id, 0, 8) + self.send(*id, 1, 8)).sum();
            if sent == 0 && self.in_flight().is_empty() {
                return;
            }
            while self.dice.chance(900) {
                let lanes = self.in_flight();
                if lanes.is_empty() {
                    break;
                }
                let (id, lane) = self.dice.pick(&lanes);
                self.deliver(id, lane, 4);
            }
        }
        panic!("never quiet: {:?}", self.busy_kinds);
    }

    /// Everybody living is linked and time runs on: equal, quiet, nothing lost, nothing back.
    pub fn settle(&mut self) {
        self.say(|| "settles".into());
        let alive = self.alive();
        for at in &alive {
            self.hosts[*at].away_until = 0;
            self.hold(*at);
            self.announce(*at);
        }
        let mut best: BTreeMap<Named, (u64, Dot)> = BTreeMap::new();
        let mut standing: BTreeMap<StandingKey, (u64, Dot)> = BTreeMap::new();
        let mut born: BTreeSet<Dot> = BTreeSet::new();
        for at in &alive {
            let replica = &self.hosts[*at].replica;
            if let Some(section) = replica.section(TOPICS) {
                for (key, write) in section.values.iter() {
                    let newest = best.entry(named(replica, *key)).or_insert((0, replica.dot(key.topic())));
                    *newest = (*newest).max((write.stamp.seq, replica.dot(write.dot)));
                }
                for topic in section.tree.topics_from("") {
                    born.extend(topic.ids.iter().chain(topic.conflicts.iter().map(|conflict| &conflict.0)).map(|id| replica.dot(*id)));
                }
            }
            let mesh = replica.section(SectionId::MESH).expect("held");
            for (key, write) in mesh.standing.iter() {
                let found = (write.stamp.seq, replica.dot(write.dot));
                let newest = standing.entry(key.clone()).or_insert(found);
                *newest = (*newest).max(found);
            }
        }
        for wire in self.wires.values_mut() {
            wire.blocked.clear();
        }
        let full = self.dice.chance(500);
        for (place, a) in alive.iter().enumerate() {
            for b in &alive[place + 1..] {
                if full || *b == alive[place + 1] {
                    self.connect(*a, *b);
                }
            }
        }
        let equal = self.run(240, World::equal);
        if !equal {
            for at in &alive {
                let replica = &self.hosts[*at].replica;
                for id in [SectionId::MESH, TOPICS] {
                    let section = replica.section(id).expect("held");
                    let values: Vec<_> =
                        section.values.iter().map(|(key, w)| (named(replica, *key), w.stamp.seq, replica.dot(w.dot))).collect();
                    let standing: Vec<_> =
                        section.standing.iter().map(|(k, w)| (k[1], w.stamp.seq, replica.dot(w.dot), w.value.is_some())).collect();
                    let topics: Vec<_> = section.tree.topics_from("").map(|t| (t.path.clone(), t.ids.len(), t.conflicts.len())).collect();
                    eprintln!("node {at} {id}: {:?}\n  {values:?}\n  {standing:?}\n  {topics:?}", self.named_frontiers(*at, id));
                }
            }
            panic!("diverged");
        }
        for at in &alive {
            self.check(*at);
        }
        let states: BTreeSet<_> = alive.iter().map(|at| self.state(*at)).collect();
        assert!(states.len() == 1, "states differ though digests are equal: {states:?}");
        let mismatches: usize = self.mismatches;
        assert!(mismatches == 0 || self.may_mismatch, "{mismatches} mismatches though nothing was lost");
        self.kept(alive[0], &best, &standing, &born);
        self.quiet(&alive);
    }

    fn kept(&self, at: usize, best: &BTreeMap<Named, (u64, Dot)>, standing: &BTreeMap<StandingKey, (u64, Dot)>, born: &BTreeSet<Dot>) {
        let replica = &self.hosts[at].replica;
        let section = replica.section(TOPICS).expect("held");
        let mesh = replica.section(SectionId::MESH).expect("held");
        let find = |dot: &Dot| replica.origins().find(&dot.origin).map(|origin| DotIx { origin, number: dot.number });
        let rank = |write: &Write| (write.stamp.seq, replica.dot(write.dot));
        for id in born {
            let lives = find(id).is_some_and(|topic| section.tree.path_of(topic).is_some());
            assert!(lives || self.removed_ids.contains(id), "topic {id:?} is lost");
        }
        for ((id, event), newest) in best {
            if let Some(topic) = find(id).filter(|topic| section.tree.path_of(*topic).is_some()) {
                let key = match event {
                    Some((sequence, _)) if horizon(section, topic) >= *sequence => continue,
                    Some((sequence, origin)) => {
                        let origin = replica.origins().find(origin).expect("everybody has heard of it");
                        ValueKey::event(topic, EventIx { sequence: *sequence, origin })
                    }
                    None => topic.into(),
                };
                let held = section.values.get(&key).map(rank);
                assert!(held >= Some(*newest), "value {newest:?} of {id:?} {event:?} is lost, there is {held:?}");
            }
        }
        for (key, newest) in standing {
            let held = mesh.standing.get(key).map(rank);
            let removed = self.removed_keys.get(key).is_some_and(|removed| removed >= newest);
            assert!(removed || held >= Some(*newest), "standing {:02x?} {newest:?} is lost, there is {held:?}", key[1]);
        }
        for record in &self.history {
            let Record::Standing { key, dot, removal: true, knew, .. } = record else { continue };
            let Some(held) = mesh.standing.get(key).filter(|held| held.value.is_some()) else { continue };
            if find(dot).is_some_and(|dot| mesh.standing.frontier().covers(dot)) {
                let held = replica.dot(held.dot);
                let known = knew.get(&held.origin).copied().unwrap_or(0);
                assert!(known < held.number, "standing {:02x?} {held:?} came back after {dot:?}", key[1]);
            }
        }
    }

    /// When all is equal, nothing but heartbeats, reports (and who wants them by which way) and comparisons goes out.
    fn quiet(&mut self, alive: &[usize]) {
        self.run(10, |_| false);
        self.busy_kinds.clear();
        let before = self.frames;
        self.run(20, |_| false);
        let kinds: Vec<u64> = self.busy_kinds.keys().copied().collect();
        assert!(kinds.iter().all(|kind| [6, 7, 10, 11, 16].contains(kind)), "not quiet: {:?}", self.busy_kinds);
        let control = self.frames[0] - before[0];
        // Each heartbeat crosses each link at most twice; four comparisons and their answers, for two sections; few reports.
        let bound = self.wires.len() as u64 * (2 * 21 * alive.len() as u64 + 4 * 4 + 8 * alive.len() as u64);
        assert!(control <= bound, "{control} frames when quiet, at most {bound}");
        for wire in self.wires.values() {
            for (at, link) in wire.ends {
                for id in [SectionId::MESH, TOPICS] {
                    let proved = self.hosts[at].mesh.link(link).and_then(|link| link.proved_equal(id));
                    assert!(proved.is_some_and(|proved| self.now - proved.0 < 11 * SECOND), "{at} has not proved {id} equal");
                }
            }
        }
    }
}

fn remembered(replica: &Replica) -> usize {
    [SectionId::MESH, TOPICS].into_iter().filter_map(|id| replica.section(id)).map(|section| section.remembered()).sum()
}

/// Prints how to run a seed again if it fails.
struct Seed(u64, &'static str);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed: MANGROVE_SEED={} cargo test -p mangrove-net --test schedules {}", self.0, self.1);
        }
    }
}

/// Plays one seed to its end.
pub fn play(name: &'static str, seed: u64, plan: Plan) -> World {
    let _seed = Seed(seed, name);
    let mut world = World::new(seed, plan);
    for _ in 0..world.plan.steps {
        world.step();
    }
    world.settle();
    world
}

/// The seeds to play: `MANGROVE_SEED=n`, `MANGROVE_SEEDS=from-to`, or the first so many.
pub fn seeds(count: u64) -> std::ops::Range<u64> {
    if let Some(seed) = std::env::var("MANGROVE_SEED").ok().and_then(|seed| seed.parse().ok()) {
        return seed..seed + 1;
    }
    let range = std::env::var("MANGROVE_SEEDS").ok();
    let range = range.as_deref().and_then(|range| range.split_once('-'));
    match range.map(|(from, to)| (from.parse(), to.parse())) {
        Some((Ok(from), Ok(to))) => from..to,
        _ => 0..count,
    }
}

/// Plays many seeds, and says what they came to.
pub fn play_all(name: &'static str, count: u64, plan: impl Fn(u64) -> Plan + std::panic::RefUnwindSafe) {
    let (mut forgotten, mut adoptions, mut mismatches, mut writes) = (0, 0, 0, 0);
    let mut failed = Vec::new();
    let keep_going = std::env::var_os("MANGROVE_ALL").is_some();
    for seed in seeds(count) {
        let played = std::panic::catch_unwind(|| play(name, seed, plan(seed)));
        match played {
            Ok(world) => {
                forgotten += world.forgotten;
                adoptions += world.adoptions;
                mismatches += world.mismatches;
                writes += world.history.len();
            }
            Err(panic) if !keep_going => std::panic::resume_unwind(panic),
            Err(_) => failed.push(seed),
        }
    }
    println!("{name}: {writes} writes, {forgotten} forgotten, {adoptions} adoptions, {mismatches} mismatches");
    assert!(failed.is_empty(), "{} seeds failed: {failed:?}", failed.len());
}

/// Plays one seed; what went wrong, if anything did, is returned.
pub fn play_quietly(seed: u64, plan: Plan) -> Result<World, String> {
    quietly(|| {
        let mut world = World::new(seed, plan);
        for _ in 0..world.plan.steps {
            world.step();
        }
        world.settle();
        world
    })
}

/// Does something that may panic; what it said then is returned.
pub fn quietly(does: impl FnOnce() -> World + std::panic::UnwindSafe) -> Result<World, String> {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let played = std::panic::catch_unwind(does);
    std::panic::set_hook(hook);
    played.map_err(|panic| {
        let said = panic.downcast_ref::<String>().cloned();
        said.or_else(|| panic.downcast_ref::<&str>().map(|said| (*said).to_owned())).unwrap_or_else(|| "?".into())
    })
}
