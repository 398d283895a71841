//! The laws of merging, on whole replicas: whatever order, repetition or loss writes meet with on their way, everybody who has heard the
//! same ends with the same; what was written concurrently is told apart from what was overwritten; and what is loaded is what was stored.
//!
//! Records go from replica to replica here without any link: their places in feeds are taken over at the end only, as after a run.

#![allow(clippy::unwrap_used, reason = "a test that goes wrong panics, in its helpers too")]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, LazyLock},
};

use mangrove_crdt::{
    definition::{Definition, DefinitionHash},
    displaced::{Beaten, Displaced},
    frontier::{DotIx, OriginIx, Origins},
    id::{Dot, Incarnation, NodeId, Origin, Plane, SectionId},
    path::{BUCKETS, Path},
    persist::{Row, Table},
    policy::SectionPolicy,
    registers::Write,
    replica::{Added, EventRange, Replica},
    rows,
    section::{Event, Frontiers, Positions, StandingKey, ValueRun},
    series::{EventIx, ValueKey},
    standing::Standing,
    tree::{Removal, TreeRecord},
};
use proptest::prelude::*;

const SECTION: SectionId = SectionId(7);

type Disk = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

/// A mesh in which the section is declared: what every node starts from.
static FOUNDED: LazyLock<Disk> = LazyLock::new(|| {
    let mut founder = Replica::new(Origin { node: NodeId([255; 32]), incarnation: Incarnation { boot: 1, nonce: 1 } });
    founder.declare_section(SectionPolicy::new(SECTION, path("s"))).unwrap();
    let mut disk = Disk::new();
    commit(&mut disk, &mut founder);
    disk
});

fn path(text: &str) -> Path {
    Path::parse(text).unwrap()
}

fn definition(topic_type: &str) -> Definition {
    // Of so few events that old ones are forgotten.
    let properties: &[(&str, &str)] = if topic_type == "timeseries" { &[("of", "int64"), ("keep", "3")] } else { &[] };
    Definition::parse(topic_type, properties).unwrap()
}

fn commit(disk: &mut Disk, replica: &mut Replica) {
    let (rows, mark) = replica.take_rows();
    put(disk, rows);
    replica.persisted(mark);
}

fn put(disk: &mut Disk, rows: Vec<Row>) {
    for Row { table, key, value } in rows {
        match value {
            Some(value) => disk.insert((table, key), value),
            None => disk.remove(&(table, key)),
        };
    }
}

fn is_value(table: Table, key: &[u8]) -> bool {
    let plane = rows::split_section(key).and_then(|(_, rest)| rows::split_plane(rest)).map(|(plane, _)| plane);
    table == Table::Registers && plane == Some(Plane::Values)
}

fn load(origin: Origin, disk: &Disk) -> Replica {
    let rows = disk.iter().map(|((table, key), value)| Row { table: *table, key: key.clone(), value: Some(value.clone()) });
    Replica::load(origin, rows).unwrap()
}

/// A record on its way, with origins named in full.
#[derive(Clone, Debug)]
enum Record {
    Value { topic: Dot, event: Option<(u64, Origin)>, write: Carried },
    Standing { key: StandingKey, write: Carried },
    Tree { origin: Origin, record: TreeRecord, removals: Vec<(Dot, Vec<Dot>)> },
}

#[derive(Clone, Debug)]
struct Carried {
    dot: Dot,
    seen: Vec<Dot>,
    write: Write,
}

impl Carried {
    fn of(origins: &Origins, write: &Write) -> Self {
        Carried { dot: named(origins, write.dot), seen: write.seen.iter().map(|dot| named(origins, *dot)).collect(), write: write.clone() }
    }

    fn at(&self, replica: &mut Replica) -> Write {
        Write { dot: indexed(replica, self.dot), seen: self.seen.iter().map(|dot| indexed(replica, *dot)).collect(), ..self.write.clone() }
    }
}

fn named(origins: &Origins, dot: DotIx) -> Dot {
    Dot { origin: origins.get(dot.origin), number: dot.number }
}

fn value_record(origins: &Origins, key: &ValueKey, write: &Write) -> Record {
    let event = key.as_event().map(|event| (event.sequence, origins.get(event.origin)));
    Record::Value { topic: named(origins, key.topic()), event, write: Carried::of(origins, write) }
}

fn value_key(replica: &mut Replica, topic: Dot, event: Option<(u64, Origin)>) -> ValueKey {
    let topic = indexed(replica, topic);
    match event {
        Some((sequence, origin)) => ValueKey::event(topic, EventIx { sequence, origin: replica.intern(origin) }),
        None => topic.into(),
    }
}

fn indexed(replica: &mut Replica, dot: Dot) -> DotIx {
    DotIx { origin: replica.intern(dot.origin), number: dot.number }
}

/// What a topic is to whoever reads: its definition, creations, conflicts and value.
type Seen = (String, DefinitionHash, BTreeSet<Dot>, BTreeSet<(Dot, DefinitionHash)>, Option<i64>);

struct Node {
    replica: Replica,
    disk: Disk,
}

impl Node {
    fn new(name: u8) -> Node {
        Node { replica: load(origin(name, 1), &FOUNDED), disk: FOUNDED.clone() }
    }

    /// Starts again from its disk, under a new incarnation.
    fn restart(&mut self) {
        let Origin { node, incarnation } = self.replica.own();
        let incarnation = Incarnation { boot: incarnation.boot + 1, nonce: incarnation.nonce + 1000 };
        commit(&mut self.disk, &mut self.replica);
        self.replica = load(Origin { node, incarnation }, &self.disk);
    }

    /// The tree records that something done here has made.
    fn tree(&mut self, act: impl FnOnce(&mut Replica)) -> Vec<Record> {
        let before = self.replica.last_tree_write(SECTION).unwrap().dot;
        act(&mut self.replica);
        self.replica.take_events();
        let section = self.replica.section(SECTION).unwrap();
        let (records, all) = section.tree.read(before.origin, before.number, usize::MAX).unwrap();
        assert!(all);
        let origins = self.replica.origins();
        let dots = |removal: &Removal| (named(origins, removal.topic), removal.seen.iter().map(|dot| named(origins, *dot)).collect());
        let carried = |record: &Arc<TreeRecord>| Record::Tree {
            origin: self.replica.own(),
            record: TreeRecord::clone(record),
            removals: record.removals.iter().map(dots).collect(),
        };
        records.iter().map(carried).collect()
    }

    fn create(&mut self, at: &str, topic_type: &str) -> Vec<Record> {
        self.tree(|replica| {
            let added = replica.add_topics(&[(path(at), definition(topic_type))]);
            assert_eq!(added, [Ok(Added::Created)]);
        })
    }

    /// Appends an event: its record, and where it raises it, that of the horizon.
    fn append(&mut self, at: &str, value: i64) -> Vec<Record> {
        let own =
            self.replica.section(SECTION).unwrap().values.frontier().iter().map(|dot| (dot.origin, dot.number)).collect::<BTreeMap<_, _>>();
        self.replica.set(&path(at), value as u64, minicbor::to_vec(value).unwrap().into()).unwrap();
        self.replica.take_events();
        let section = self.replica.section(SECTION).unwrap();
        let fresh = |write: &Write| write.dot.number > own.get(&write.dot.origin).copied().unwrap_or(0);
        let made =
            section.values.iter().filter(|(_, write)| self.replica.origins().get(write.dot.origin) == self.replica.own() && fresh(write));
        made.map(|(key, write)| value_record(self.replica.origins(), key, write)).collect()
    }

    /// The values of the events that a reader is shown.
    fn events(&self, at: &str) -> Vec<i64> {
        let Some((section, topic)) = self.replica.topic(&path(at)) else { return Vec::new() };
        let told = self.replica.events(section, topic, 0, &EventRange::default());
        told.iter()
            .map(|told| minicbor::decode(topic.definition.topic_type().value_in(told.write.value.as_ref().unwrap()).unwrap()).unwrap())
            .collect()
    }

    fn remove(&mut self, at: &str) -> Vec<Record> {
        self.tree(|replica| assert_eq!(replica.remove_topics(&[path(at)]), 1))
    }

    fn set(&mut self, at: &str, value: i64) -> Record {
        self.set_bytes(at, value as u64, &minicbor::to_vec(value).unwrap())
    }

    fn set_bytes(&mut self, at: &str, time_ms: u64, value: &[u8]) -> Record {
        let written = self.replica.set(&path(at), time_ms, value.into()).unwrap();
        self.replica.take_events();
        let origins = self.replica.origins();
        let section = self.replica.section(SECTION).unwrap();
        let (key, write) = section.values.iter().find(|(_, write)| write.dot == written.dot).unwrap();
        value_record(origins, key, write)
    }

    fn put(&mut self, key: u8, value: Option<i64>) -> Record {
        let standing = Standing::Revoked(NodeId([key; 32]));
        self.replica.put_standing(standing, 0, value.map(|value| minicbor::to_vec(value).unwrap())).unwrap();
        self.replica.take_events();
        let write = self.replica.section(SectionId::MESH).unwrap().standing.get(&standing.key()).unwrap();
        Record::Standing { key: standing.key(), write: Carried::of(self.replica.origins(), write) }
    }

    fn hear(&mut self, record: &Record) {
        let replica = &mut self.replica;
        match record {
            Record::Value { topic, event, write } => {
                let (key, write) = (value_key(replica, *topic, *event), write.at(replica));
                let (section, mut cx) = replica.parts(SECTION).unwrap();
                section.merge_value(&mut cx, key, write);
            }
            Record::Standing { key, write } => {
                let write = write.at(replica);
                let (section, mut cx) = replica.parts(SectionId::MESH).unwrap();
                section.merge_standing(&mut cx, key, write);
            }
            Record::Tree { origin, record, removals } => {
                let origin = replica.intern(*origin);
                let removals = removals.iter().map(|(topic, seen)| Removal {
                    topic: indexed(replica, *topic),
                    seen: seen.iter().map(|dot| indexed(replica, *dot)).collect(),
                });
                let record = TreeRecord { removals: removals.collect(), ..record.clone() };
                let (section, mut cx) = replica.parts(SECTION).unwrap();
                section.merge_tree(&mut cx, origin, record).unwrap();
            }
        }
        self.replica.take_events();
    }

    fn hear_all<'a>(&mut self, records: impl IntoIterator<Item = &'a Record>) {
        records.into_iter().for_each(|record| self.hear(record));
    }

    /// Takes over the places of everything that was heard, as at the end of runs of all feeds.
    fn end_runs(&mut self, records: &[Record]) {
        let (mut values, mut standing) = (BTreeMap::new(), BTreeMap::new());
        for record in records {
            match record {
                Record::Value { topic, event, write } => {
                    let (key, dot) = (value_key(&mut self.replica, *topic, *event), indexed(&mut self.replica, write.dot));
                    values.entry(dot.origin).or_insert_with(Vec::new).push((dot.number, key));
                }
                Record::Standing { key, write } => {
                    let dot = indexed(&mut self.replica, write.dot);
                    standing.entry(dot.origin).or_insert_with(Vec::new).push((dot.number, key.clone()));
                }
                Record::Tree { .. } => {}
            }
        }
        for (origin, mut positions) in values {
            positions.sort_unstable();
            let upto = positions.last().unwrap().0;
            let (section, _) = self.replica.parts(SECTION).unwrap();
            section.end_value_run(ValueRun { origin, upto, positions, floor: 0 });
        }
        for (origin, mut positions) in standing {
            positions.sort_unstable();
            let upto = positions.last().unwrap().0;
            let (section, _) = self.replica.parts(SectionId::MESH).unwrap();
            section.standing.end_run(origin, upto, positions);
        }
    }

    fn digests(&mut self) -> Vec<[u8; 32]> {
        let digest = |id| {
            let (section, cx) = self.replica.parts(id).unwrap();
            section.digest_over(cx.origins, 0..BUCKETS)
        };
        [SectionId::MESH, SECTION].map(digest).to_vec()
    }

    fn value(&self, at: &str) -> Option<i64> {
        let write = self.replica.value(SECTION, &path(at))?;
        minicbor::decode(write.value.as_deref()?).ok()
    }

    fn lives(&self, at: &str) -> bool {
        self.replica.topic(&path(at)).is_some()
    }

    fn view(&self) -> Vec<Seen> {
        let name = |dot: &DotIx| self.replica.dot(*dot);
        let topics = self.replica.topics_from("");
        topics
            .map(|(_, topic)| {
                let conflicts = topic.conflicts.iter().map(|(dot, hash)| (name(dot), *hash)).collect();
                let at = topic.path.as_str();
                (at.to_owned(), topic.definition.hash(), topic.ids.iter().map(name).collect(), conflicts, self.value(at))
            })
            .collect()
    }

    fn displaced(&self) -> Vec<Displaced> {
        self.replica.displaced().into_iter().map(|(_, displaced)| displaced).collect()
    }

    /// The values in the displaced log, with whether a write (and not a removal) beat them.
    fn displaced_values(&self) -> Vec<(i64, bool)> {
        let value = |entry: &Displaced| (minicbor::decode(&entry.value).unwrap(), matches!(entry.beaten, Beaten::ByWrite { .. }));
        self.displaced().iter().map(value).collect()
    }

    /// Everything that must survive the disk, but for what is derived.
    fn state(&mut self) -> impl PartialEq + std::fmt::Debug + use<> {
        let sections: Vec<SectionId> = self.replica.held().chain([SectionId::LOCAL]).collect();
        let origins = self.replica.origins().clone();
        let mut of_sections = Vec::new();
        for id in &sections {
            let (section, cx) = self.replica.parts(*id).unwrap();
            let frontiers = [section.frontiers(), section.floors()].map(|frontiers| {
                Plane::ALL.map(|plane| frontiers[plane].iter().map(|dot| named(cx.origins, dot)).collect::<BTreeSet<Dot>>())
            });
            // What a neighbour that has nothing would be told, feed by feed.
            let mut told = Vec::new();
            for origin in (0..origins.len() as u32).map(OriginIx) {
                if let Some((run, _)) = section.values.open_run(origin, 0) {
                    let read = section.values.read_run(origin, run, usize::MAX, usize::MAX).unwrap();
                    assert!(read.last);
                    section.values.close_run(origin, run);
                    told.push(format!("{:?} {:?}", origins.get(origin), read.writes));
                }
                if let Some((run, _)) = section.standing.open_run(origin, 0) {
                    let read = section.standing.read_run(origin, run, usize::MAX, usize::MAX).unwrap();
                    section.standing.close_run(origin, run);
                    told.push(format!("{:?} {:?}", origins.get(origin), read.writes));
                }
                let floor = section.floors()[Plane::Tree].get(origin);
                let (records, _) = section.tree.read(origin, floor, usize::MAX).unwrap();
                if !records.is_empty() {
                    told.push(format!("{:?} {records:?}", origins.get(origin)));
                }
            }
            of_sections.push((*id, frontiers, section.clock(), told));
        }
        (of_sections, self.digests(), self.view(), self.displaced())
    }
}

fn origin(name: u8, boot: u32) -> Origin {
    Origin { node: NodeId([name; 32]), incarnation: Incarnation { boot, nonce: u64::from(boot) * 1000 + u64::from(name) } }
}

/// All orders of a few things.
fn orders<T: Clone>(things: &[T]) -> Vec<Vec<T>> {
    if things.len() <= 1 {
        return vec![things.to_vec()];
    }
    let mut all = Vec::new();
    for at in 0..things.len() {
        let mut rest = things.to_vec();
        let first = rest.remove(at);
        all.extend(orders(&rest).into_iter().map(|mut order| {
            order.insert(0, first.clone());
            order
        }));
    }
    all
}

/// What listeners hold that heard these records in each possible order; they must all hold the same.
fn heard_in_any_order(base: &[Record], records: &[Record], check: impl Fn(&Node)) {
    let mut first: Option<(Vec<[u8; 32]>, Vec<Seen>)> = None;
    for order in orders(records) {
        let mut listener = Node::new(90);
        listener.hear_all(base);
        listener.hear_all(&order);
        check(&listener);
        let held = (listener.digests(), listener.view());
        assert_eq!(*first.get_or_insert_with(|| held.clone()), held);
    }
}

// One topic, two creators.

#[test]
fn equal_creations_are_one_topic_and_their_values_join() {
    let (mut a, mut b) = (Node::new(1), Node::new(2));
    let mut records = a.create("s/x", "int64");
    records.extend(b.create("s/x", "int64"));
    records.push(a.set("s/x", 1));
    b.set("s/x", 2);
    records.push(b.set("s/x", 3));
    heard_in_any_order(&[], &records, |listener| {
        let (_, topic) = listener.replica.topic(&path("s/x")).unwrap();
        assert_eq!((topic.ids.len(), topic.conflicts.len()), (2, 0));
        // The second write of B has the greater clock.
        assert_eq!(listener.value("s/x"), Some(3));
        assert_eq!(listener.displaced_values(), [(1, true)]);
    });
    // The creators, too; and whoever writes next writes over both.
    a.hear_all(&records);
    b.hear_all(&records);
    assert_eq!((a.digests(), a.view()), (b.digests(), b.view()));
    let over = a.set("s/x", 4);
    b.hear(&over);
    assert_eq!(b.value("s/x"), Some(4));
    assert_eq!(b.displaced_values(), [(1, true)]);
    assert_eq!(a.displaced_values(), [(1, true)]);
}

#[test]
fn of_unequal_creations_the_same_wins_everywhere_and_the_other_is_shown() {
    let (mut a, mut b) = (Node::new(1), Node::new(2));
    let mut records = a.create("s/x", "int64");
    records.extend(b.create("s/x", "json"));
    records.push(a.set("s/x", 1));
    records.push(b.set("s/x", 2));
    heard_in_any_order(&[], &records, |listener| {
        let (_, topic) = listener.replica.topic(&path("s/x")).unwrap();
        assert_eq!((topic.ids.len(), topic.conflicts.len()), (1, 1));
        let by_a = *topic.definition == definition("int64");
        assert_eq!(topic.conflicts[0].1, definition(if by_a { "json" } else { "int64" }).hash());
        // Each value belongs to its own creation.
        assert_eq!(listener.value("s/x"), Some(if by_a { 1 } else { 2 }));
    });
    a.hear_all(&records);
    b.hear_all(&records);
    assert_eq!((a.digests(), a.view()), (b.digests(), b.view()));
    // A removal takes both away.
    let removal = a.remove("s/x");
    b.hear_all(&removal);
    assert!(!a.lives("s/x") && !b.lives("s/x"));
    assert_eq!(a.digests(), b.digests());
}

#[test]
fn a_creation_survives_a_removal_that_had_not_seen_it() {
    let (mut a, mut b) = (Node::new(1), Node::new(2));
    let base = a.create("s/x", "int64");
    let mut records = a.remove("s/x");
    records.extend(b.create("s/x", "int64"));
    records.push(b.set("s/x", 5));
    heard_in_any_order(&base, &records, |listener| {
        let (_, topic) = listener.replica.topic(&path("s/x")).unwrap();
        assert_eq!(topic.ids.len(), 1);
        assert_eq!(listener.value("s/x"), Some(5));
        assert!(listener.displaced().is_empty());
    });
}

#[test]
fn what_is_made_again_does_not_show_the_old_value() {
    let (mut a, mut b) = (Node::new(1), Node::new(2));
    let base = a.create("s/x", "int64");
    b.hear_all(&base);
    // An old value that nobody else has heard of yet, with a clock far ahead.
    let old = (1..=9).map(|value| b.set("s/x", value)).last().unwrap();
    let mut records = a.remove("s/x");
    records.extend(a.create("s/x", "int64"));
    records.push(old);
    heard_in_any_order(&base, &records, |listener| {
        assert!(listener.lives("s/x"));
        assert_eq!(listener.value("s/x"), None);
        // Its remover had not seen it.
        assert_eq!(listener.displaced_values(), [(9, false)]);
    });
    b.hear_all(&records);
    assert_eq!(b.value("s/x"), None);
    let new = b.set("s/x", 10);
    a.hear(&new);
    assert_eq!(a.value("s/x"), Some(10));
}

#[test]
fn a_value_waits_for_its_topic() {
    let mut a = Node::new(1);
    let created = a.create("s/x", "int64");
    let set = a.set("s/x", 1);
    let mut b = Node::new(2);
    b.hear(&set);
    assert!(!b.lives("s/x"));
    assert_eq!(b.replica.section(SECTION).unwrap().remembered(), 1);
    // It waits through a restart as well.
    b.restart();
    assert_eq!(b.replica.section(SECTION).unwrap().remembered(), 1);
    b.hear_all(&created);
    assert_eq!(b.value("s/x"), Some(1));
    assert_eq!(b.digests(), a.digests());
    assert!(b.displaced().is_empty());
}

#[test]
fn a_value_of_a_removed_topic_is_dropped_and_logged_if_its_remover_had_not_seen_it() {
    let (mut a, mut b) = (Node::new(1), Node::new(2));
    let base = a.create("s/x", "int64");
    b.hear_all(&base);
    let known = a.set("s/x", 1);
    b.hear(&known);
    let mut removed = b.remove("s/x");
    let unseen = a.set("s/x", 2);
    removed.push(unseen);
    heard_in_any_order(&base, &removed, |listener| {
        assert!(!listener.lives("s/x"));
        assert_eq!(listener.displaced_values(), [(2, false)]);
        assert!(listener.replica.section(SECTION).unwrap().values.is_empty());
    });
    let seen = [known, removed.remove(0)];
    heard_in_any_order(&base, &seen, |listener| {
        assert!(!listener.lives("s/x"));
        assert!(listener.displaced().is_empty());
        assert!(listener.replica.section(SECTION).unwrap().values.is_empty());
    });
}

// The displaced log.

#[test]
fn what_a_remover_had_not_seen_is_logged_by_who_restarted_since() {
    let (mut a, mut b, mut c) = (Node::new(1), Node::new(2), Node::new(3));
    let base = a.create("s/x", "int64");
    b.hear_all(&base);
    c.hear_all(&base);
    let removed = b.remove("s/x");
    c.hear_all(&removed);
    let unseen = a.set("s/x", 2);
    for listener in [&mut b, &mut c] {
        listener.restart();
        listener.hear(&unseen);
        assert_eq!(listener.displaced_values(), [(2, false)]);
        let [entry] = &listener.displaced()[..] else { panic!("one entry") };
        assert_eq!((entry.path.as_str(), entry.definition.as_deref()), ("s/x", Some(&definition("int64").to_bytes()[..])));
    }
}

#[test]
fn of_concurrent_writes_every_loser_is_logged_once() {
    let (mut a, mut b, mut c) = (Node::new(1), Node::new(2), Node::new(3));
    let base = a.create("s/x", "int64");
    b.hear_all(&base);
    c.hear_all(&base);
    let (one, two, three) = (a.set("s/x", 1), b.set("s/x", 2), c.set("s/x", 3));
    // Equal clocks: the greater origin wins, everywhere.
    heard_in_any_order(&base, &[one.clone(), two.clone(), three.clone(), one, two, three][..5], |listener| {
        assert_eq!(listener.value("s/x"), Some(3));
        let logged: BTreeSet<(i64, bool)> = listener.displaced_values().into_iter().collect();
        assert_eq!(logged, BTreeSet::from([(1, true), (2, true)]));
        assert_eq!(listener.displaced().len(), 2);
    });
}

/// What says up to where the events of a series are forgotten is an empty value, too.
#[test]
fn an_empty_value_is_a_value_like_any_other() {
    let (mut a, mut b) = (Node::new(1), Node::new(2));
    let base = a.create("s/x", "binary");
    b.hear_all(&base);
    let empty = a.set_bytes("s/x", 1, b"");
    let logged = |listener: &Node| -> Vec<(Vec<u8>, bool)> {
        let entry = |entry: Displaced| (entry.value.clone(), matches!(entry.beaten, Beaten::ByWrite { .. }));
        listener.displaced().into_iter().map(entry).collect()
    };
    // It loses.
    let other = b.set_bytes("s/x", 2, b"not empty");
    heard_in_any_order(&base, &[empty.clone(), other], |listener| assert_eq!(logged(listener), [(Vec::new(), true)]));
    // It is of a topic that is removed by one who has not seen it.
    let mut c = Node::new(3);
    c.hear_all(&base);
    let mut removed = c.remove("s/x");
    removed.push(empty.clone());
    heard_in_any_order(&base, &removed, |listener| assert_eq!(logged(listener), [(Vec::new(), false)]));
    // Who has heard of it writes after it.
    let ahead = (2..9).map(|time_ms| a.set_bytes("s/x", time_ms, b"")).last().unwrap();
    let mut d = Node::new(0);
    d.hear_all(&base);
    d.hear(&ahead);
    let over = d.set_bytes("s/x", 9, b"over");
    heard_in_any_order(&base, &[ahead, over], |listener| {
        assert_eq!(listener.replica.value(SECTION, &path("s/x")).unwrap().value.as_deref(), Some(&b"over"[..]));
        assert_eq!(logged(listener), []);
    });
}

#[test]
fn a_chain_of_overwrites_is_never_logged() {
    let (mut a, mut b, mut c) = (Node::new(1), Node::new(2), Node::new(3));
    let base = a.create("s/x", "int64");
    b.hear_all(&base);
    c.hear_all(&base);
    let one = a.set("s/x", 1);
    b.hear(&one);
    let two = b.set("s/x", 2);
    // C has never heard of the first.
    c.hear(&two);
    let three = c.set("s/x", 3);
    a.hear(&three);
    assert!(a.displaced().is_empty());
    let four = a.set("s/x", 4);
    heard_in_any_order(&base, &[one, two, three, four], |listener| {
        assert_eq!(listener.value("s/x"), Some(4));
        assert!(listener.displaced().is_empty());
    });
}

#[test]
fn a_writer_that_restarts_overwrites_itself() {
    let (mut a, mut b) = (Node::new(1), Node::new(2));
    let base = a.create("s/x", "int64");
    b.hear_all(&base);
    let one = a.set("s/x", 1);
    b.hear(&one);
    let two = b.set("s/x", 2);
    a.hear(&two);
    a.restart();
    let three = a.set("s/x", 3);
    a.restart();
    let four = a.set("s/x", 4);
    heard_in_any_order(&base, &[one, two, three, four], |listener| {
        assert_eq!(listener.value("s/x"), Some(4));
        assert!(listener.displaced().is_empty());
    });
    assert!(a.displaced().is_empty());
}

#[test]
fn what_is_stable_is_not_named_for_ever() {
    let (mut a, mut b) = (Node::new(1), Node::new(2));
    let base = a.create("s/x", "int64");
    b.hear_all(&base);
    let mut listeners = [b, Node::new(3)];
    listeners[1].hear_all(&base);
    for run in 0..8 {
        let written = a.set("s/x", run);
        let Record::Value { write, .. } = &written else { panic!("a value") };
        // Every run is another origin, and so would be named in every later write.
        assert!(write.seen.len() <= 1, "{:?}", write.seen);
        a.restart();
        // Nobody else is a member, so all that is on the disk is stable.
        a.replica.forget(0, |_| u64::MAX);
        for listener in &mut listeners {
            listener.hear(&written);
            assert_eq!((listener.value("s/x"), listener.displaced().len()), (Some(run), 0));
        }
    }
}

/// One takes over another's whole section, and is told of each bucket that has come.
fn adopt(from: &mut Replica, to: &mut Replica, mut between: impl FnMut(u16, &mut Replica)) {
    let names: Vec<_> = (0..from.origins().len() as u32).map(|ix| to.intern(from.origins().get(OriginIx(ix)))).collect();
    let at = |dot: &DotIx| DotIx { origin: names[dot.origin.0 as usize], number: dot.number };
    let dots = |dots: &[DotIx]| dots.iter().map(at).collect();
    let frontiers = |frontiers: &Frontiers| {
        let mut told = Frontiers::default();
        for plane in Plane::ALL {
            frontiers[plane].iter().map(|dot| at(&dot)).for_each(|dot| _ = told[plane].raise(dot.origin, dot.number));
        }
        told
    };
    let (section, _) = from.parts(SECTION).unwrap();
    let (start, floors) = (frontiers(&section.frontiers()), frontiers(&section.floors()));
    let mut positions = Positions::default();
    for bucket in 0..BUCKETS {
        let mut image = from.parts(SECTION).unwrap().0.read_bucket(bucket, false);
        image.tree_dots = dots(&image.tree_dots);
        for entry in &mut image.values {
            (entry.key, entry.entries) = (at(&entry.key.topic()).into(), dots(&entry.entries));
            if let Some(write) = &mut entry.write {
                (write.dot, write.seen) = (at(&write.dot), dots(&write.seen));
            }
        }
        let (section, mut cx) = to.parts(SECTION).unwrap();
        section.adopt_bucket(&mut cx, image, &start, false, &mut positions).unwrap();
        between(bucket, to);
    }
    let (section, mut cx) = to.parts(SECTION).unwrap();
    let runs = section.end_adoption(&mut cx, &start, &floors, positions).unwrap();
    runs.into_iter().for_each(|run| section.end_value_run(run));
    to.take_events();
}

#[test]
fn what_an_adoption_brings_is_stored_once_and_stands_where_it_stood() {
    const TOPICS: usize = 300;
    let value_rows = |disk: &Disk| disk.keys().filter(|(table, key)| is_value(*table, key)).count();
    let mut a = Node::new(1);
    (0..TOPICS).for_each(|topic| _ = a.create(&format!("s/{topic}"), "int64"));
    (0..TOPICS).for_each(|topic| _ = a.set(&format!("s/{topic}"), topic as i64));
    // Some stand in two feeds.
    a.restart();
    (0..TOPICS).step_by(10).for_each(|topic| _ = a.set(&format!("s/{topic}"), -1));

    let (mut b, mut half) = (Node::new(2), None);
    let (mut disk, mut stored) = (b.disk.clone(), 0);
    adopt(&mut a.replica, &mut b.replica, |bucket, replica| {
        let (rows, mark) = replica.take_rows();
        stored += rows.iter().filter(|row| is_value(row.table, &row.key)).count();
        put(&mut disk, rows);
        replica.persisted(mark);
        if bucket == BUCKETS / 2 {
            let values = &replica.section(SECTION).unwrap().values;
            assert!(values.iter().all(|(topic, _)| values.entries(topic).is_empty()), "nothing stands before the end");
            half = Some(disk.clone());
        }
    });
    let (rows, _) = b.replica.take_rows();
    let again = rows.iter().filter(|row| is_value(row.table, &row.key)).count();
    put(&mut disk, rows);
    assert_eq!((stored, again, value_rows(&disk)), (TOPICS, TOPICS / 10, TOPICS), "only what stands in two feeds is stored again");
    b.disk = disk;
    let state = b.state();
    b.restart();
    assert_eq!(b.state(), state);

    // Who stops halfway begins with what has come, and no claim to it.
    let mut c = Node { replica: load(origin(3, 1), half.as_ref().unwrap()), disk: half.unwrap() };
    let section = c.replica.section(SECTION).unwrap();
    assert!(section.values.len() > TOPICS / 3 && section.frontiers().is_zero());
    assert!(section.values.iter().all(|(topic, _)| section.values.entries(topic).is_empty()));
    adopt(&mut a.replica, &mut c.replica, |_, _| ());
    let state = c.state();
    c.restart();
    assert_eq!(c.state(), state);
    assert_eq!(c.view(), b.view());
}

// Any schedule.

#[derive(Clone, Debug)]
enum Step {
    Create {
        node: usize,
        path: usize,
        json: bool,
    },
    Remove {
        node: usize,
        path: usize,
    },
    Set {
        node: usize,
        path: usize,
    },
    Put {
        node: usize,
        key: u8,
        gone: bool,
    },
    /// A node hears some of what was said, in some order; what it misses it may hear later.
    Hear {
        node: usize,
        from: Vec<prop::sample::Index>,
    },
    Restart {
        node: usize,
    },
}

const NODES: usize = 3;
const PATHS: [&str; 3] = ["s/x", "s/y", "s/y/z"];

fn step() -> impl Strategy<Value = Step> {
    let (node, path) = (0..NODES, 0..PATHS.len());
    prop_oneof![
        3 => (node.clone(), path.clone(), prop::bool::weighted(0.2)).prop_map(|(node, path, json)| Step::Create { node, path, json }),
        1 => (node.clone(), path.clone()).prop_map(|(node, path)| Step::Remove { node, path }),
        6 => (node.clone(), path).prop_map(|(node, path)| Step::Set { node, path }),
        2 => (node.clone(), 0..2u8, prop::bool::weighted(0.3)).prop_map(|(node, key, gone)| Step::Put { node, key, gone }),
        5 => (node.clone(), prop::collection::vec(any::<prop::sample::Index>(), 0..12)).prop_map(|(node, from)| Step::Hear { node, from }),
        1 => node.prop_map(|node| Step::Restart { node }),
    ]
}

/// A record, and which values its maker had before its eyes: heard, and of topics that lived there.
struct Said {
    path: Option<usize>,
    record: Record,
    knew: BTreeSet<usize>,
}

struct Played {
    nodes: Vec<Node>,
    said: Vec<Said>,
}

fn play(steps: &[Step]) -> Played {
    let mut nodes: Vec<Node> = (1..=NODES as u8).map(Node::new).collect();
    let mut heard: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); NODES];
    let mut said: Vec<Said> = Vec::new();
    for (count, step) in steps.iter().enumerate() {
        let eyes = |node: usize| -> BTreeSet<usize> {
            let lives = |dot: &Dot| {
                let ix = nodes[node].replica.origins().find(&dot.origin).map(|origin| DotIx { origin, number: dot.number });
                ix.is_some_and(|ix| nodes[node].replica.path_of(SECTION, ix).is_some())
            };
            let visible = |at: &&usize| matches!(&said[**at].record, Record::Value { topic, .. } if lives(topic));
            heard[node].iter().filter(visible).copied().collect()
        };
        let (path, node, knew, records) = match step {
            Step::Create { node, path, json } if !nodes[*node].lives(PATHS[*path]) => {
                (Some(*path), *node, eyes(*node), nodes[*node].create(PATHS[*path], if *json { "json" } else { "int64" }))
            }
            Step::Remove { node, path } if nodes[*node].lives(PATHS[*path]) => {
                (Some(*path), *node, eyes(*node), nodes[*node].remove(PATHS[*path]))
            }
            Step::Set { node, path } if nodes[*node].lives(PATHS[*path]) => {
                (Some(*path), *node, eyes(*node), vec![nodes[*node].set(PATHS[*path], count as i64)])
            }
            Step::Put { node, key, gone } => (None, *node, BTreeSet::new(), vec![nodes[*node].put(*key, (!gone).then_some(count as i64))]),
            Step::Hear { node, from } if !said.is_empty() => {
                for index in from {
                    let index = index.index(said.len());
                    nodes[*node].hear(&said[index].record);
                    heard[*node].insert(index);
                }
                continue;
            }
            Step::Restart { node } => {
                nodes[*node].restart();
                continue;
            }
            _ => continue,
        };
        for record in records {
            heard[node].insert(said.len());
            said.push(Said { path, record, knew: knew.clone() });
        }
    }
    Played { nodes, said }
}

/// Whether a write may be in the log: something beat it whose maker had not heard of it.
fn was_beaten_unknown(said: &[Said], entry: &Displaced) -> bool {
    let of = |record: &Record| match record {
        Record::Value { write, .. } => Some((write.write.stamp.clone(), write.dot)),
        _ => None,
    };
    let Some(lost) = said.iter().position(|said| of(&said.record).is_some_and(|(_, dot)| dot == entry.dot)) else { return false };
    said.iter().filter(|other| other.path == said[lost].path && !other.knew.contains(&lost)).any(|other| match &other.record {
        Record::Value { .. } => of(&other.record) > of(&said[lost].record),
        Record::Tree { removals, .. } => removals.iter().any(|(topic, _)| *topic == entry.topic),
        Record::Standing { .. } => false,
    })
}

fn settings() -> ProptestConfig {
    ProptestConfig { cases: 32, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(settings())]

    #[test]
    fn whoever_has_heard_the_same_holds_the_same(
        steps in prop::collection::vec(step(), 1..60),
        noise in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
        keys in prop::collection::vec(any::<u32>(), 80),
    ) {
        let Played { mut nodes, said } = play(&steps);
        let records: Vec<Record> = said.iter().map(|said| said.record.clone()).collect();
        let mut order: Vec<usize> = (0..records.len()).collect();
        order.sort_by_key(|at| (keys[at % keys.len()], *at));
        // The writers hear everything forwards, one listener backwards, one in a random order after a random part.
        for node in &mut nodes {
            node.hear_all(&records);
        }
        let (mut backwards, mut random) = (Node::new(80), Node::new(81));
        backwards.hear_all(records.iter().rev());
        if !records.is_empty() {
            random.hear_all(noise.iter().map(|at| &records[at.index(records.len())]));
        }
        random.restart();
        random.hear_all(order.iter().map(|at| &records[*at]));
        nodes.push(backwards);
        nodes.push(random);
        for node in &mut nodes {
            prop_assert_eq!(node.replica.section(SECTION).unwrap().waiting(), 0);
            node.end_runs(&records);
        }
        let (digests, view) = (nodes[0].digests(), nodes[0].view());
        for node in &mut nodes {
            prop_assert_eq!(&node.view(), &view);
            prop_assert_eq!(&node.digests(), &digests);
            for entry in node.displaced() {
                prop_assert!(was_beaten_unknown(&said, &entry), "{:?} was overwritten by those who knew it", entry);
            }
        }
    }

    #[test]
    fn what_is_loaded_is_what_was_stored(steps in prop::collection::vec(step(), 1..60), ends in 0..NODES) {
        let Played { mut nodes, said } = play(&steps);
        let records: Vec<Record> = said.into_iter().map(|said| said.record).collect();
        // Some have everything and say so; the others are in the middle of it.
        for node in &mut nodes[..ends] {
            node.hear_all(&records);
            node.end_runs(&records);
        }
        for node in &mut nodes {
            // Tree changes that wait for others are not stored, and need not be: they come again.
            let before = node.state();
            node.restart();
            prop_assert_eq!(before, node.state());
        }
    }
}

#[test]
fn events_that_come_before_their_topic_are_told_one_by_one_when_it_comes() {
    let (mut writer, mut listener) = (Node::new(1), Node::new(2));
    let mut records = writer.create("s/log", "timeseries");
    let events: Vec<Record> = (1..=3).flat_map(|value| writer.append("s/log", value)).collect();
    listener.hear_all(&events);
    assert!(listener.events("s/log").is_empty());
    let Record::Tree { origin, record, .. } = records.remove(0) else { panic!("a topic is made in the tree") };
    let origin = listener.replica.intern(origin);
    let (section, mut cx) = listener.replica.parts(SECTION).unwrap();
    section.merge_tree(&mut cx, origin, record).unwrap();
    let told = listener.replica.take_events();
    let passed = told.iter().filter(|event| matches!(event, Event::Value { key, passed: Some(_), .. } if key.as_event().is_some()));
    assert_eq!((passed.count(), listener.events("s/log")), (3, vec![1, 2, 3]));
}

#[test]
fn what_a_lost_definition_has_taken_is_passed_on_to_nobody() {
    let (mut one, mut other) = (Node::new(1), Node::new(2));
    let (made, also) = (one.create("s/log", "timeseries"), other.create("s/log", "string"));
    one.hear_all(&also);
    other.hear_all(&made);
    // Whichever stands, the other's creation is written by whoever has not heard of it.
    let mut third = Node::new(3);
    third.hear_all(&made);
    let event = third.append("s/log", 7);
    for node in [&mut one, &mut other] {
        let Record::Value { topic, event, write } = &event[0] else { panic!("an event") };
        let (key, write) = (value_key(&mut node.replica, *topic, *event), write.at(&mut node.replica));
        let (section, mut cx) = node.replica.parts(SECTION).unwrap();
        section.merge_value(&mut cx, key, write);
        let stands = node.replica.topic(&path("s/log")).unwrap().1.ids.contains(&key.topic());
        let told = node.replica.take_events();
        assert_eq!(told.iter().any(|told| matches!(told, Event::Value { passed: Some(_), .. })), stands);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Some hear of some events before they append; in the end all hear all, in any order and more than once.
    #[test]
    fn a_series_is_the_same_whatever_order_its_events_come_in(
        appends in prop::collection::vec((0..3usize, 0..4usize), 1..24),
        order in any::<prop::sample::Index>(),
        seed in any::<u64>(),
    ) {
        let mut nodes = [Node::new(1), Node::new(2), Node::new(3)];
        let made = nodes[0].create("s/log", "timeseries");
        nodes[1..].iter_mut().for_each(|node| node.hear_all(&made));
        let mut records: Vec<Record> = Vec::new();
        let mut sequences: Vec<(u64, Origin, i64)> = Vec::new();
        for (value, (at, heard)) in appends.into_iter().enumerate() {
            // It hears the first few of what there is.
            let known = records.len() * heard / 3;
            nodes[at].hear_all(&records[..known.min(records.len())]);
            let fresh = nodes[at].append("s/log", value as i64);
            let own = nodes[at].replica.own();
            let appended = fresh.iter().filter_map(|record| if let Record::Value { event: Some((sequence, _)), .. } = record { Some(*sequence) } else { None });
            sequences.extend(appended.max().map(|sequence| (sequence, own, value as i64)));
            records.extend(fresh);
        }
        for (at, node) in nodes.iter_mut().enumerate() {
            let mut shuffled: Vec<Record> = records.iter().chain(&records).cloned().collect();
            let turn = (order.index(shuffled.len()) + at * 7) % shuffled.len();
            shuffled.rotate_left(turn);
            let mut state = seed.wrapping_add(at as u64) | 1;
            for place in (1..shuffled.len()).rev() {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                shuffled.swap(place, (state >> 33) as usize % (place + 1));
            }
            node.hear_all(&shuffled);
        }
        sequences.sort_unstable();
        let newest: Vec<i64> = sequences.iter().rev().take(3).rev().map(|(.., value)| *value).collect();
        for node in &mut nodes {
            prop_assert_eq!(node.events("s/log"), newest.clone());
        }
        let digests = nodes.each_mut().map(|node| {
            let (section, cx) = node.replica.parts(SECTION).unwrap();
            section.digest_over(cx.origins, 0..BUCKETS)
        });
        prop_assert!(digests.iter().all(|digest| *digest == digests[0]));
        // And over a restart.
        nodes[1].end_runs(&records);
        nodes[1].restart();
        prop_assert_eq!(nodes[1].events("s/log"), newest);
    }
}
