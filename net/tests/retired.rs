//! What it costs that a node was started often: nothing that grows on the wire, whether its neighbours were there or not.

#![allow(clippy::unwrap_used, reason = "a test that goes wrong panics, in its helpers too")]

mod support;

use mangrove_crdt::{definition::TopicType, id::SectionId};
use support::{Disk, TOPICS, World};

const RUNS: u32 = 150;

/// A node writes a value, and that it is there, in each of many runs; its neighbour hears of all. Returns what the neighbour had on its disk after half of them.
fn many_runs(world: &mut World) -> Disk {
    let paths = world.paths.clone();
    world.add_topics(0, &paths, TopicType::Int64);
    let mut half = Disk::new();
    for run in 1..=RUNS {
        world.connect(0, 1);
        world.set(0, &paths[0]);
        world.exchange();
        if run == RUNS / 2 {
            world.flush(1);
            world.persist(1, usize::MAX);
            half = world.hosts[1].disk.clone();
        }
        world.flush(0);
        world.persist(0, usize::MAX);
        let disk = world.hosts[0].disk.clone();
        world.restart(0, disk, run + 1);
        world.announce(0);
    }
    half
}

/// The bytes that two nodes that know the same say to each other when they link up.
fn bytes_to_meet(world: &mut World) -> u64 {
    let id = world.linked(0, 1).unwrap_or_else(|| {
        world.connect(0, 1);
        world.linked(0, 1).unwrap()
    });
    world.exchange();
    let said = world.hosts.iter().flat_map(|host| host.mesh.links()).map(|(_, link)| link.stats().bytes_out).sum();
    world.cut(id);
    said
}

#[test]
fn meeting_again_does_not_cost_by_the_runs_of_the_past() {
    let mut world = World::story(2);
    world.pace.limits.runs_told = 2;
    many_runs(&mut world);
    bytes_to_meet(&mut world);
    let origins = world.hosts[1].replica.section(TOPICS).unwrap().frontiers();
    assert!(origins[mangrove_crdt::id::Plane::Values].iter().count() >= RUNS as usize, "every run is an origin");
    let said = bytes_to_meet(&mut world);
    assert!(said < 4_000, "{said} bytes for {RUNS} runs");
    world.settle();
}

#[test]
fn who_lacks_some_of_the_past_is_told_all_of_it() {
    let mut world = World::story(2);
    world.pace.limits.runs_told = 2;
    let half = many_runs(&mut world);
    bytes_to_meet(&mut world);
    let boots = world.hosts[1].boots + 1;
    world.restart(1, half, boots);
    world.announce(1);
    assert_ne!(world.named_frontiers(0, TOPICS), world.named_frontiers(1, TOPICS));
    let said = bytes_to_meet(&mut world);
    assert!(said > 4_000, "it had to be told: {said} bytes");
    assert_eq!(world.named_frontiers(0, TOPICS), world.named_frontiers(1, TOPICS));
    assert_eq!(world.digest(0, SectionId::MESH), world.digest(1, SectionId::MESH));
    world.settle();
}
