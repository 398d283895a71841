//! What comes late finds that it was removed: a frame that lingered on one link while its record was removed, and the removal forgotten, over
//! others; frames of an earlier connection that a neighbour sends again; islands that were each away for longer than the other remembers.

mod support;

use mangrove_crdt::{
    id::NodeId,
    sabotage::{Sabotage, sabotage},
};
use support::{World, quietly};

const STORIES: [fn() -> World; 3] = [
    what_lingered_on_a_link_while_its_removal_was_forgotten_stays_removed,
    what_a_neighbour_sends_again_over_a_new_connection_stays_removed,
    islands_that_were_away_for_too_long_bring_nothing_back_to_each_other,
];

#[test]
fn what_was_removed_stays_removed_and_comes_back_where_latecomers_are_let_in() {
    for story in STORIES {
        story().settle();
        sabotage(Some(Sabotage::Latecomers));
        let told = quietly(story);
        sabotage(None);
        let said = told.err().unwrap_or_else(|| panic!("the story does not miss the rule"));
        assert!(said.contains("came back"), "{said}");
    }
}

const A: usize = 0;
const B: usize = 1;
const C: usize = 2;
const D: usize = 3;

fn put(world: &mut World, at: usize, key: NodeId) {
    world.writes += 1;
    let value = world.writes.to_be_bytes().to_vec();
    world.put_standing(at, key, Some(value));
}

fn part(world: &mut World, a: usize, b: usize) {
    let link = world.linked(a, b).expect("they are linked");
    world.cut(link);
}

/// All that was sent from one node to another over their link and has not arrived, but for the control lane, is taken off it.
fn held_up(world: &mut World, from: usize, to: usize) -> Vec<(u32, Vec<u8>)> {
    let id = world.linked(from, to).expect("they are linked");
    let end = usize::from(world.wires[&id].ends[0].0 != from);
    world.send(id, end, 64);
    let flight = &mut world.wires.get_mut(&id).expect("linked").flight;
    let lanes: Vec<(usize, u32)> = flight.keys().copied().filter(|(sender, lane)| *sender == end && *lane != 0).collect();
    lanes.into_iter().flat_map(|lane| flight.remove(&lane).into_iter().flatten().map(move |frame| (lane.1, frame))).collect()
}

/// Frames arrive at a node over its link with another, on lanes so much further.
fn arrive(world: &mut World, from: usize, to: usize, frames: Vec<(u32, Vec<u8>)>, further: u32) {
    let id = world.linked(from, to).expect("they are linked");
    let end = usize::from(world.wires[&id].ends[0].0 != from);
    for (lane, frame) in frames {
        let lane = (end, lane + further);
        world.wires.get_mut(&id).expect("linked").flight.entry(lane).or_default().push_back(frame);
        world.deliver(id, lane, 1);
        world.check(to);
    }
}

/// Everybody comes to know of a removal, says so, and forgets it.
fn removed_and_forgotten(world: &mut World, at: usize, key: NodeId) {
    world.put_standing(at, key, None);
    world.run(30, |_| false);
    for at in world.alive() {
        let before = world.forgotten;
        world.forget(at);
        assert!(world.forgotten > before, "{at} has forgotten the removal");
    }
}

fn what_lingered_on_a_link_while_its_removal_was_forgotten_stays_removed() -> World {
    let mut world = World::story(3);
    let one = world.keys[0];
    for (a, b) in [(A, B), (B, C), (C, A)] {
        world.connect(a, b);
    }
    world.exchange();
    put(&mut world, A, one);
    let late = held_up(&mut world, A, B);
    assert!(!late.is_empty(), "the record is on its way");
    world.exchange();
    removed_and_forgotten(&mut world, A, one);
    arrive(&mut world, A, B, late, 0);
    assert!(world.says(B, one).is_none(), "it came back");
    world
}

/// Two nodes link up and tell each other all: what one of them has sent, but for the control lane.
fn overheard(world: &mut World, from: usize, to: usize) -> Vec<(u32, Vec<u8>)> {
    world.connect(from, to);
    let id = world.linked(from, to).expect("they are linked");
    let end = usize::from(world.wires[&id].ends[0].0 != from);
    let mut heard = Vec::new();
    for _ in 0..40 {
        for end in 0..2 {
            world.send(id, end, 1);
        }
        for (_, lane) in world.in_flight() {
            let frames = &world.wires[&id].flight[&lane];
            heard.extend(frames.iter().filter(|_| lane.0 == end && lane.1 != 0).map(|frame| (lane.1, frame.clone())));
            world.deliver(id, lane, usize::MAX);
        }
    }
    heard
}

fn what_a_neighbour_sends_again_over_a_new_connection_stays_removed() -> World {
    let mut world = World::story(2);
    let one = world.keys[0];
    put(&mut world, A, one);
    let before = overheard(&mut world, A, B);
    assert!(world.says(B, one).is_some());
    part(&mut world, A, B);
    world.connect(A, B);
    world.exchange();
    removed_and_forgotten(&mut world, A, one);
    arrive(&mut world, A, B, before, 1_000);
    assert!(world.says(B, one).is_none(), "it came back");
    world
}

fn islands_that_were_away_for_too_long_bring_nothing_back_to_each_other() -> World {
    let mut world = World::story(4);
    let [one, two] = [world.keys[0], world.keys[1]];
    put(&mut world, A, one);
    put(&mut world, A, two);
    for (a, b) in [(A, B), (B, C), (C, D)] {
        world.connect(a, b);
    }
    world.run(5, |_| false);
    part(&mut world, B, C);
    // Each island removes one of two records, and forgets that it did.
    world.put_standing(A, one, None);
    world.put_standing(C, two, None);
    world.run(60, |_| false);
    for at in world.alive() {
        let before = world.forgotten;
        world.forget(at);
        assert!(world.forgotten > before, "{at} has forgotten a removal");
    }
    world.connect(B, C);
    world.run(10, |_| false);
    for at in world.alive() {
        assert!(world.says(at, one).is_none() && world.says(at, two).is_none(), "something came back to {at}");
    }
    world
}
