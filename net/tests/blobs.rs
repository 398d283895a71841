//! Blobs that definitions name come along by themselves, whole or not at all, and go when nothing names them any more.

mod support;

use std::sync::Arc;

use mangrove_crdt::{
    blob::{BlobHash, HELD_MAX, UNNAMED_GRACE_US},
    definition::{Definition, Properties, TopicType},
    json_schema::JsonSchema,
    path::Path,
    persist::Table,
    replica::SetError,
    sabotage::{Sabotage, sabotage},
    section::Event,
    value::ValueError,
};
use mangrove_net::message::Content;
use support::{TOPICS, World};

const A: usize = 0;
const B: usize = 1;
const C: usize = 2;

/// How a frame with a piece of a blob is counted. In these worlds a piece is a byte.
const PIECE: u64 = 109;

/// The content of a blob with a schema of integers.
fn schema() -> Arc<[u8]> {
    let schema = serde_json::json!({"type": "integer", "description": "x".repeat(300)});
    JsonSchema::to_blob(&schema).expect("a schema").into()
}

fn of(content: &[u8]) -> TopicType {
    TopicType::JsonAs(JsonSchema::in_blob(BlobHash::of(content)).into())
}

fn put(world: &mut World, at: usize, content: &Arc<[u8]>) {
    world.hosts[at].replica.put_blob(content.clone()).expect("there is room");
}

fn has(world: &World, at: usize, content: &[u8]) -> bool {
    world.hosts[at].replica.blobs().get(&BlobHash::of(content)).is_some_and(|held| **held == *content)
}

fn value(world: &World, at: usize, path: &Path) -> Option<Arc<[u8]>> {
    world.hosts[at].replica.value(TOPICS, path).and_then(|write| write.value.clone())
}

fn pieces(world: &World) -> u64 {
    world.busy_kinds.get(&PIECE).copied().unwrap_or(0)
}

/// Time passes, and everything arrives.
fn pass(world: &mut World, seconds: u64) {
    for _ in 0..4 * seconds {
        world.now += 250_000;
        for at in 0..world.hosts.len() {
            world.timers(at);
        }
        world.exchange();
    }
}

fn link_up(world: &mut World, pairs: &[(usize, usize)]) {
    pairs.iter().for_each(|(a, b)| world.connect(*a, *b));
    world.exchange();
}

fn store(world: &mut World, at: usize) {
    world.flush(at);
    world.persist(at, usize::MAX);
}

fn stored(world: &World, at: usize) -> usize {
    world.hosts[at].disk.keys().filter(|(table, _)| *table == Table::Blobs).count()
}

#[test]
fn values_are_carried_until_the_blob_is_here_that_says_what_they_are() {
    let (mut world, content) = (World::story(3), schema());
    let [good, bad, empty] = [0, 1, 2].map(|at| world.paths[at].clone());
    link_up(&mut world, &[(A, B), (B, C)]);
    world.add_topics(A, &[good.clone(), bad.clone(), empty], of(&content));
    let refused = world.hosts[A].replica.set(&good, 0, Arc::from(&[7][..]));
    assert!(matches!(refused, Err(SetError::Invalid(ValueError::NotHere(hash))) if hash == BlobHash::of(&content)), "{refused:?}");
    // Another node may have it, and take values.
    for (path, bytes) in [(&good, &[7][..]), (&bad, b"\x63abc")] {
        sabotage(Some(Sabotage::TakesAny));
        let taken = world.hosts[A].replica.set(path, 0, Arc::from(bytes));
        sabotage(None);
        taken.expect("it is taken");
    }
    world.exchange();
    for at in [B, C] {
        assert_eq!((value(&world, at, &good), value(&world, at, &bad)), (None, None), "nobody knows whether these are values");
    }
    world.hosts[C].replica.take_events();
    put(&mut world, A, &content);
    pass(&mut world, 5);
    for at in [B, C] {
        assert!(has(&world, at, &content), "node {at}");
        assert_eq!((value(&world, at, &good).as_deref(), value(&world, at, &bad)), (Some(&[7][..]), None), "node {at}");
    }
    let id = world.hosts[C].replica.topic(&good).expect("it lives").1.ids[0];
    let told: Vec<_> = world.hosts[C]
        .replica
        .take_events()
        .into_iter()
        .filter_map(|event| if let Event::Value { key, .. } = event { Some(key.topic()) } else { None })
        .collect();
    assert_eq!(told, [id], "who listens is told of what can be shown, and of nothing else");
    let written = world.hosts[C].replica.set(&bad, 0, Arc::from(&[8][..])).expect("it can be judged everywhere");
    assert!(world.hosts[C].replica.set(&good, 0, Arc::from(&b"\x63abc"[..])).is_err());
    world.exchange();
    assert_eq!((written.section, value(&world, A, &bad).as_deref()), (TOPICS, Some(&[8][..])));
}

#[test]
fn a_link_that_is_cut_costs_nothing_of_what_has_come() {
    let (mut world, content) = (World::story(3), schema());
    put(&mut world, A, &content);
    put(&mut world, B, &content);
    link_up(&mut world, &[(A, B)]);
    let path = world.paths[0].clone();
    world.add_topics(A, &[path], of(&content));
    world.exchange();
    assert_eq!(pieces(&world), 0, "both have it");
    world.connect(A, C);
    let id = world.linked(A, C).expect("linked");
    while pieces(&world) < 150 {
        world.now += 10_000;
        for at in [A, B, C] {
            world.timers(at);
        }
        assert!(world.now < 2_000_000_000, "nothing comes");
        (0..2).for_each(|end| _ = world.send(id, end, 8));
        for (wire, lane) in world.in_flight() {
            world.deliver(wire, lane, usize::MAX);
        }
    }
    assert!(!has(&world, C, &content));
    world.cut(id);
    world.connect(B, C);
    pass(&mut world, 3);
    assert!(has(&world, C, &content), "{} pieces", pieces(&world));
    let (sent, length) = (pieces(&world), content.len() as u64);
    assert!((length..length + 5).contains(&sent), "{sent} pieces for {length} bytes");
}

#[test]
fn a_neighbour_that_lies_is_found_out_and_another_is_asked() {
    let (mut world, content) = (World::story(3), schema());
    put(&mut world, A, &content);
    put(&mut world, B, &content);
    link_up(&mut world, &[(A, B), (B, C)]);
    let path = world.paths[0].clone();
    world.add_topics(A, &[path], of(&content));
    // What the one in the middle says of the blob is wrong in one byte.
    let lie = |world: &mut World| {
        for wire in world.wires.values_mut() {
            let ends = wire.ends;
            for (_, frames) in wire.flight.iter_mut().filter(|((end, lane), _)| ends[*end].0 == B && *lane > 0) {
                for frame in frames {
                    if let Ok(Some(Content::Blob(mut piece))) = Content::decode(frame)
                        && piece.offset == 200
                    {
                        piece.bytes.iter_mut().for_each(|byte| *byte ^= 1);
                        *frame = Content::Blob(piece).encode();
                    }
                }
            }
        }
    };
    let pass = |world: &mut World, rounds: usize| {
        for _ in 0..rounds {
            world.now += 10_000;
            (0..3).for_each(|at| world.timers(at));
            for id in world.wires.keys().copied().collect::<Vec<_>>() {
                (0..2).for_each(|end| _ = world.send(id, end, 8));
            }
            lie(world);
            for (wire, lane) in world.in_flight() {
                world.deliver(wire, lane, usize::MAX);
            }
        }
    };
    pass(&mut world, 1_500);
    let lies = world.hosts[C].mesh.blob_lies();
    assert!(lies > 1 && !has(&world, C, &content), "{lies}");
    world.connect(A, C);
    pass(&mut world, 1_000);
    assert!(has(&world, C, &content));
    assert!(world.hosts[C].mesh.blob_lies() <= lies + 1, "it was not asked again");
}

#[test]
fn a_blob_goes_with_the_last_topic_that_names_it() {
    let (mut world, content) = (World::story(3), schema());
    let [one, other] = [0, 1].map(|at| world.paths[at].clone());
    put(&mut world, A, &content);
    link_up(&mut world, &[(A, B), (B, C)]);
    world.add_topics(A, &[one.clone(), other.clone()], of(&content));
    pass(&mut world, 4);
    let all = |world: &mut World| {
        [A, B, C].map(|at| {
            world.forget(at);
            store(world, at);
            (has(world, at, &content), stored(world, at))
        })
    };
    assert_eq!(all(&mut world), [(true, 1); 3]);
    world.remove_topics(C, &[one]);
    pass(&mut world, 1);
    all(&mut world);
    world.now += UNNAMED_GRACE_US;
    assert_eq!(all(&mut world), [(true, 1); 3], "the other topic names it");
    world.remove_topics(B, &[other]);
    world.exchange();
    assert_eq!(all(&mut world), [(true, 1); 3], "for a while it may be named again");
    world.now += UNNAMED_GRACE_US;
    assert_eq!(all(&mut world), [(false, 0); 3]);
    world.settle();
}

#[test]
fn a_node_that_restarts_has_its_blobs_and_one_whose_disk_has_spoiled_them_gets_them_again() {
    let (mut world, content) = (World::story(3), schema());
    let path = world.paths[0].clone();
    put(&mut world, A, &content);
    link_up(&mut world, &[(A, B), (B, C)]);
    world.add_topics(A, std::slice::from_ref(&path), of(&content));
    world.set(A, &path);
    pass(&mut world, 4);
    store(&mut world, B);
    let (mut disk, boots) = (world.hosts[B].disk.clone(), world.hosts[B].boots);
    world.restart(B, disk.clone(), boots + 1);
    assert!(has(&world, B, &content) && value(&world, B, &path).is_some(), "it needs nobody for that");
    let row = disk.iter_mut().find(|((table, _), _)| *table == Table::Blobs).expect("it is stored").1;
    row[100] ^= 1;
    world.restart(B, disk, boots + 2);
    assert!(!has(&world, B, &content) && value(&world, B, &path).is_none());
    store(&mut world, B);
    assert_eq!(stored(&world, B), 0);
    link_up(&mut world, &[(A, B)]);
    pass(&mut world, 2);
    store(&mut world, B);
    assert!(has(&world, B, &content) && value(&world, B, &path).is_some() && stored(&world, B) == 1);
    world.settle();
}

#[test]
fn blobs_of_types_from_the_future_are_carried_like_their_topics() {
    let (mut world, content) = (World::story(3), Arc::from(&b"what only a newer version understands"[..]));
    let path = world.paths[0].clone();
    put(&mut world, A, &content);
    link_up(&mut world, &[(A, B), (B, C)]);
    let named = [&[0xa3, 0, 0x18, 99, 12, 0x58, 32][..], &BlobHash::of(&content).0, &[0x18, 77, 0x81, 5]].concat();
    let definition = Definition::from_bytes(&named).expect("it is carried");
    assert_eq!((definition.topic_type(), definition.blobs()), (&TopicType::Unknown(99), &[BlobHash::of(&content)][..]));
    assert!(world.hosts[A].replica.add_topics(&[(path.clone(), definition)])[0].is_ok());
    pass(&mut world, 4);
    assert!(has(&world, B, &content) && has(&world, C, &content));
    assert_eq!(world.hosts[C].replica.remove_topics(&[path]), 1);
    world.exchange();
    for at in [A, B, C] {
        world.forget(at);
    }
    world.now += UNNAMED_GRACE_US;
    for at in [A, B, C] {
        world.forget(at);
        assert!(!has(&world, at, &content), "node {at}");
    }
}

#[test]
fn a_definition_that_has_lost_keeps_its_blob_for_when_it_stands() {
    let (mut world, content) = (World::story(2), schema());
    let path = world.paths[0].clone();
    put(&mut world, A, &content);
    world.add_topics(A, std::slice::from_ref(&path), of(&content));
    let plain = Definition::new(TopicType::Json, Properties::default());
    assert!(world.hosts[B].replica.add_topics(&[(path.clone(), plain)])[0].is_ok());
    link_up(&mut world, &[(A, B)]);
    pass(&mut world, 3);
    let topic = world.hosts[B].replica.topic(&path).expect("it lives").1.clone();
    assert_eq!(topic.conflicts.len(), 1);
    assert!(has(&world, A, &content) && has(&world, B, &content), "whichever stands");
    world.remove_topics(B, &[path]);
    world.exchange();
    assert!([A, B].iter().all(|at| !world.hosts[*at].replica.blobs().is_named(&BlobHash::of(&content))));
}

#[test]
fn a_node_without_room_does_without_and_asks_again_later() {
    let (mut world, content) = (World::story(2), schema());
    let path = world.paths[0].clone();
    // As many as it may hold, named by topics of its own.
    let full: Vec<(Path, Definition)> = (0..HELD_MAX)
        .map(|number| (support::path(&format!("own/{number}")), Definition::new(of(&number.to_be_bytes()), Properties::default())))
        .collect();
    assert!(world.hosts[B].replica.add_topics(&full).iter().all(Result::is_ok));
    (0..HELD_MAX).for_each(|number| put(&mut world, B, &Arc::from(number.to_be_bytes())));
    assert_eq!(world.hosts[B].replica.blobs().len(), HELD_MAX);
    put(&mut world, A, &content);
    link_up(&mut world, &[(A, B)]);
    world.add_topics(A, &[path], of(&content));
    pass(&mut world, 30);
    assert!(!has(&world, B, &content) && pieces(&world) <= 1, "{} pieces", pieces(&world));
    let own: Vec<Path> = full.into_iter().map(|(path, _)| path).collect();
    assert_eq!(world.hosts[B].replica.remove_topics(&own), HELD_MAX);
    pass(&mut world, 40);
    assert!(has(&world, B, &content));
}
