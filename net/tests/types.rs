//! What a node does not understand, or should not believe, goes through it unharmed.

mod support;

use std::sync::Arc;

use mangrove_crdt::{
    definition::{Definition, TopicType},
    path::Path,
    sabotage::{Sabotage, sabotage},
};
use support::World;

const A: usize = 0;
const B: usize = 1;
const C: usize = 2;

/// What a node says if it is asked for a topic's type and value.
fn shown(world: &World, at: usize, path: &Path) -> Option<(TopicType, Option<Vec<u8>>)> {
    let replica = &world.hosts[at].replica;
    let (section, topic) = replica.topic(path)?;
    let value = replica.value(section, path).and_then(|write| write.value.as_deref().map(<[u8]>::to_vec));
    Some((topic.definition.topic_type().clone(), value))
}

/// A node of a newer version, or one that somebody has changed, takes a value that this version would not.
fn takes(world: &mut World, at: usize, path: &Path, value: &[u8]) {
    let refused = world.hosts[at].replica.set(path, 0, Arc::from(value));
    assert!(refused.is_err(), "this version takes it");
    sabotage(Some(Sabotage::TakesAny));
    let taken = world.hosts[at].replica.set(path, 0, Arc::from(value));
    sabotage(None);
    taken.expect("it is taken");
}

/// Three in a row, so that what the last knows has gone through the one in the middle.
fn chain() -> (World, Path) {
    let mut world = World::story(3);
    let path = world.paths[0].clone();
    world.connect(A, B);
    world.connect(B, C);
    world.exchange();
    (world, path)
}

fn restart(world: &mut World, at: usize) {
    world.flush(at);
    world.persist(at, usize::MAX);
    let (disk, boots) = (world.hosts[at].disk.clone(), world.hosts[at].boots + 1);
    world.isolate(at);
    world.restart(at, disk, boots);
}

#[test]
fn a_topic_of_a_type_from_the_future_is_carried_with_its_values() {
    let (mut world, path) = chain();
    // A type and a field of which nothing is known.
    let definition = Definition::from_bytes(&[0xa3, 0, 0x18, 99, 1, 0xf4, 0x18, 77, 0x81, 0x05]).expect("it is carried");
    let added = world.hosts[A].replica.add_topics(&[(path.clone(), definition.clone())]);
    assert!(added.into_iter().all(|added| added.is_ok()));
    takes(&mut world, A, &path, b"from the future");
    world.exchange();
    let is = (TopicType::Unknown(99), Some(b"from the future".to_vec()));
    for at in [A, B, C] {
        assert_eq!(shown(&world, at, &path), Some(is.clone()), "node {at}");
    }
    // Also from the disk, and to somebody who takes the whole state over.
    restart(&mut world, B);
    assert_eq!(shown(&world, B, &path), Some(is.clone()));
    world.connect(A, B);
    takes(&mut world, A, &path, b"from later still");
    world.exchange();
    world.isolate(A);
    world.connect(B, C);
    world.exchange();
    assert_eq!(shown(&world, C, &path), Some((TopicType::Unknown(99), Some(b"from later still".to_vec()))));
    let topic = world.hosts[C].replica.topic(&path).expect("it is there").1;
    assert_eq!(*topic.definition, definition, "every byte of what it says");
    // Whoever does not understand it may remove it.
    assert_eq!(world.hosts[C].replica.remove_topics(std::slice::from_ref(&path)), 1);
    world.connect(A, B);
    world.exchange();
    assert!([A, B, C].iter().all(|at| shown(&world, *at, &path).is_none()));
}

#[test]
fn what_is_no_value_of_its_topic_is_carried_and_shown_to_nobody() {
    let (mut world, path) = chain();
    let other = world.paths[1].clone();
    world.add_topics(A, &[path.clone(), other.clone()], TopicType::Json);
    world.set(A, &path);
    world.exchange();
    assert!(shown(&world, C, &path).is_some_and(|(_, value)| value.is_some()));
    takes(&mut world, A, &path, &[0xff]);
    takes(&mut world, A, &other, b"no json");
    world.exchange();
    let nothing = Some((TopicType::Json, None));
    for at in [B, C] {
        assert_eq!([&path, &other].map(|path| shown(&world, at, path)), [nothing.clone(), nothing.clone()], "node {at}");
    }
    restart(&mut world, B);
    assert_eq!(shown(&world, B, &path), nothing);
    world.connect(A, B);
    world.connect(B, C);
    // The next good value is shown again, wherever it is written.
    world.set(C, &path);
    world.exchange();
    let good = shown(&world, C, &path);
    assert!(good.as_ref().is_some_and(|(_, value)| value.is_some()));
    for at in [A, B] {
        assert_eq!(shown(&world, at, &path), good, "node {at}");
    }
    world.settle();
}
