//! In a mesh with many links what each member writes, and each member's reports of durable frontiers, take one way to each node, and another when that
//! one is lost.

mod support;

use mangrove_crdt::{definition::TopicType, id::Plane};
use support::{TOPICS, World};

/// The kind of a report's frame.
const REPORT: u64 = 7;

/// Nodes that are all linked to each other, one topic, and reports that have found their ways.
fn mesh(size: usize) -> World {
    let mut world = World::story(size);
    for a in 0..size {
        (a + 1..size).for_each(|b| world.connect(a, b));
    }
    let path = world.paths[0].clone();
    world.add_topics(0, std::slice::from_ref(&path), TopicType::Json);
    for _ in 0..6 {
        world.set(0, &path);
        world.run(1, |_| false);
    }
    world
}

/// Whether a node knows that another has everything on its disk that it has itself.
fn knows(world: &World, at: usize, of: usize) -> bool {
    let (ours, theirs) = (&world.hosts[at].replica, world.hosts[of].id);
    let section = ours.section(TOPICS).expect("all hold it");
    ours.members.reported(&theirs, TOPICS).is_some_and(|reported| reported[Plane::Values].covers_all(section.frontier(Plane::Values)))
}

#[test]
fn a_report_crosses_few_links_twice() {
    let size = 6;
    let mut world = mesh(size);
    let path = world.paths[0].clone();
    world.busy_kinds.clear();
    world.set(0, &path);
    world.run(2, |_| false);
    // Everybody has the value on its disk, and says so to each other once; through everybody else it would be five times as many.
    let (told, once) = (world.busy_kinds[&REPORT], (size * (size - 1)) as u64);
    assert!((once..2 * once).contains(&told), "{told} reports, {once} ways");
    assert!((0..size).all(|at| (0..size).filter(|of| *of != at).all(|of| knows(&world, at, of))));
}

#[test]
fn when_the_way_of_reports_is_lost_they_take_another() {
    let mut world = mesh(3);
    let path = world.paths[0].clone();
    // Node 2 gets node 0's reports over their link, so it has told node 1 that it need not bring them.
    world.cut(world.linked(0, 2).expect("linked"));
    world.set(0, &path);
    // The value has to be grafted first.
    world.run(5, |_| false);
    assert!(knows(&world, 2, 0), "node 1 brings what node 0 reports");
    assert!(knows(&world, 0, 2), "and to node 0 what node 2 does");
}

#[test]
fn when_the_way_of_a_feed_is_lost_it_takes_another_at_once() {
    let mut world = mesh(3);
    let path = world.paths[0].clone();
    let written = |world: &World, at: usize| -> u64 {
        let section = world.hosts[at].replica.section(TOPICS).expect("all hold it");
        section.frontier(Plane::Values).iter().map(|dot| dot.number).sum()
    };
    world.cut(world.linked(0, 2).expect("linked"));
    world.set(0, &path);
    assert!(written(&world, 2) < written(&world, 0));
    // Sooner than a neighbour could be seen to be ahead.
    world.run(1, |_| false);
    assert_eq!(written(&world, 2), written(&world, 0), "node 1 has not brought what node 0 has written");
}
