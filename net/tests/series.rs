//! Time series between nodes: what is forgotten is told as that, whatever else is on its way.

mod support;

use mangrove_crdt::definition::TopicType;
use support::{TOPICS, World, series};

const A: usize = 0;
const B: usize = 1;
const C: usize = 2;
const X: usize = 3;

fn part(world: &mut World, a: usize, b: usize) {
    let link = world.linked(a, b).expect("they are linked");
    world.cut(link);
}

fn meet(world: &mut World, a: usize, b: usize) {
    world.connect(a, b);
    world.exchange();
}

/// One control frame from a node, so that its neighbour knows what it holds.
fn greet(world: &mut World, from: usize, to: usize) {
    let id = world.linked(from, to).expect("they are linked");
    let end = usize::from(world.wires[&id].ends[0].0 != from);
    world.send(id, end, 1);
    world.deliver(id, (end, 0), 1);
}

/// How many events a node has of the one topic, and whether it knows that some are forgotten.
fn has(world: &World, at: usize) -> (usize, bool) {
    let section = world.hosts[at].replica.section(TOPICS).expect("held");
    let events = section.values.iter().filter(|(key, _)| key.as_event().is_some()).count();
    (events, section.values.iter().any(|(_, write)| write.value.as_ref().is_some_and(|value| value.is_empty())))
}

/// C has got an event of B's, in a run that is not over, when it hears from A that it is forgotten. Where the event would have stood in B's feed, X, who reads that feed
/// at C, must find what says so.
#[test]
fn what_is_forgotten_during_its_run_is_told_to_the_next() {
    let mut world = World::story(4);
    let (path, other) = (world.paths[0].clone(), world.paths[1].clone());
    world.add_topics(A, std::slice::from_ref(&path), series());
    world.add_topics(A, std::slice::from_ref(&other), TopicType::Json);
    for other in [B, C, X] {
        meet(&mut world, A, other);
        part(&mut world, A, other);
    }
    (0..3).for_each(|_| world.write_event(B, &path, false));
    world.set(B, &other);
    meet(&mut world, A, B);
    part(&mut world, A, B);
    (0..4).for_each(|_| world.write_event(A, &path, false));
    assert_eq!(has(&world, A), (3, true), "A has forgotten what B wrote");
    world.connect(B, C);
    world.cross(B, C, |world| {
        greet(world, C, B);
        has(world, C).0 == 3
    });
    assert_eq!(has(&world, C), (3, false), "the run is not over: the other topic's value is still to come");
    world.connect(A, C);
    world.cross(A, C, |world| {
        greet(world, C, A);
        has(world, C).1
    });
    part(&mut world, A, C);
    world.cross(B, C, |world| {
        let frontier = world.named_frontiers(C, TOPICS);
        world.named_frontiers(B, TOPICS).iter().all(|feed| frontier.contains(feed))
    });
    part(&mut world, B, C);
    meet(&mut world, C, X);
    world.check(X);
    world.settle();
}
