//! On a metered link everything goes at once but values, which go in rounds, each when it is due and of each topic the newest.

mod support;

use std::time::Duration;

use mangrove_crdt::{definition::TopicType, id::Plane, path::Path, time::Instant};
use mangrove_net::{
    link::{LinkId, LinkOptions, METERED_GAP},
    mesh::{Mesh, Pace, Timer},
};
use support::{TOPICS, World};

const A: usize = 0;
const B: usize = 1;
const C: usize = 2;

/// A and B on a link that is metered at A's end, and nothing else that ever comes due.
fn metered(size: usize) -> (World, LinkId) {
    let mut world = World::story(size);
    let hour = Duration::from_secs(3_600);
    for at in [A, B] {
        let pace = Pace { pulse: hour, report: hour, check: hour, graft_after: 2 * hour, ..Pace::default() };
        world.hosts[at].mesh = Mesh::new(Instant(world.now), pace);
        world.timers(at);
    }
    world.connect(A, B);
    let id = world.linked(A, B).expect("just linked");
    let link = world.wires[&id].ends[usize::from(world.wires[&id].ends[0].0 != A)].1;
    let options = LinkOptions { metered: true, ..LinkOptions::default() };
    world.hosts[A].mesh.link_mut(link).expect("just linked").set_options(options);
    (world, link)
}

fn has(world: &World, at: usize, path: &Path) -> bool {
    world.hosts[at].replica.topic(path).is_some()
}

/// Whether a node has the value that another shows.
fn same(world: &World, path: &Path) -> bool {
    let value = |at: usize| {
        let replica = &world.hosts[at].replica;
        replica.value(TOPICS, path).and_then(|write| write.value.clone())
    };
    value(A).is_some() && value(A) == value(B)
}

/// Time goes on to the next deadline of A's, which is of this kind, and nothing else happens.
fn due(world: &mut World, timer: Timer) -> Duration {
    let (due, found) = world.hosts[A].mesh.poll_timeout().expect("a mesh always has a deadline");
    assert_eq!(found, timer);
    let waited = due.since(Instant(world.now));
    world.now = due.0;
    world.timers(A);
    world.exchange();
    waited
}

#[test]
fn values_go_when_they_are_due_with_no_other_input() {
    let (mut world, link) = metered(2);
    let path = world.paths[0].clone();
    world.add_topics(A, std::slice::from_ref(&path), TopicType::Json);
    world.set(A, &path);
    world.exchange();
    assert!(same(&world, &path), "the first round has not to wait");
    let runs = |world: &World| world.hosts[A].mesh.link(link).expect("linked").stats().runs_out;
    let before = runs(&world);
    for _ in 0..5 {
        world.set(A, &path);
        world.exchange();
    }
    assert!(!same(&world, &path));
    let later = world.paths[1..2].to_vec();
    world.add_topics(A, &later, TopicType::Json);
    world.exchange();
    assert!(has(&world, B, &later[0]), "the tree does not wait");
    let waited = due(&mut world, Timer::MeteredValues);
    assert_eq!(waited, METERED_GAP);
    assert!(same(&world, &path), "they were due");
    assert_eq!(runs(&world), before + 1, "only the newest has gone");
    assert_ne!(world.hosts[A].mesh.poll_timeout().map(|(_, timer)| timer), Some(Timer::MeteredValues), "nothing waits any more");
}

#[test]
fn a_round_brings_the_feeds_of_all_writers() {
    let (mut world, _) = metered(3);
    let paths = world.paths.clone();
    world.add_topics(A, &paths, TopicType::Json);
    world.connect(A, C);
    world.exchange();
    world.set(A, &paths[0]);
    world.exchange();
    world.set(A, &paths[1]);
    world.set(C, &paths[2]);
    world.exchange();
    let writers = world.hosts[A].replica.section(TOPICS).expect("held").frontier(Plane::Values).iter().count();
    assert_eq!(writers, 2);
    assert!(!same(&world, &paths[1]) && !same(&world, &paths[2]));
    due(&mut world, Timer::MeteredValues);
    assert!(same(&world, &paths[1]) && same(&world, &paths[2]), "both feeds go in one round");
}

#[test]
fn a_link_that_is_metered_no_more_waits_no_more() {
    let (mut world, link) = metered(2);
    let path = world.paths[0].clone();
    world.add_topics(A, std::slice::from_ref(&path), TopicType::Json);
    world.set(A, &path);
    world.exchange();
    world.set(A, &path);
    world.exchange();
    assert!(!same(&world, &path));
    world.hosts[A].mesh.link_mut(link).expect("linked").set_options(LinkOptions::default());
    world.exchange();
    assert!(same(&world, &path));
}
