//! Messages to topics, over links that come and go: in order, once each, and nothing is missing where nothing was lost.

mod support;

use std::collections::BTreeMap;

use mangrove_crdt::{definition::TopicType, time::Instant};
use support::{Dice, TOPICS, World};

/// What each node has heard, by whom it was sent.
type Heard = BTreeMap<(usize, usize), Vec<u64>>;

fn send(world: &mut World, at: usize, number: u64) {
    let path = world.paths[0].clone();
    let host = &mut world.hosts[at];
    let topic = host.replica.topic(&path).expect("it is there").1.ids[0];
    host.mesh.send_message(&mut host.replica, TOPICS, topic, [&[at as u8], &number.to_be_bytes()[..]].concat().into());
}

fn hear(world: &mut World, heard: &mut Heard) {
    for at in 0..world.hosts.len() {
        let host = &mut world.hosts[at];
        while let Some((message, path)) = host.mesh.poll_message(Instant(world.now), &host.replica) {
            assert_eq!(path, world.paths[0]);
            let number = u64::from_be_bytes(message.body[1..].try_into().expect("eight bytes"));
            heard.entry((at, usize::from(message.body[0]))).or_default().push(number);
        }
    }
}

/// A ring, so that there are two ways to everybody.
fn ring(size: usize) -> World {
    let mut world = World::story(size);
    for at in 0..size {
        world.connect(at, (at + 1) % size);
    }
    let path = world.paths[0].clone();
    world.add_topics(0, &[path], TopicType::Json);
    world.exchange();
    world
}

#[test]
fn everybody_hears_everything_once_and_in_order_while_any_way_stands() {
    for seed in 0..40 {
        let (mut world, mut dice, mut heard) = (ring(5), Dice::new(seed), Heard::new());
        let mut sent = [0; 5];
        for _ in 0..200 {
            let at = dice.below(5);
            sent[at] += 1;
            send(&mut world, at, sent[at]);
            // Frames arrive in any order of links, and a part of them only.
            for _ in 0..dice.below(6) {
                let links: Vec<u64> = world.wires.keys().copied().collect();
                let link = dice.pick(&links);
                world.send(link, 0, 1 + dice.below(2));
                world.send(link, 1, 1 + dice.below(2));
                let flight = world.in_flight();
                if !flight.is_empty() {
                    let (link, lane) = dice.pick(&flight);
                    world.deliver(link, lane, 1 + dice.below(3));
                }
            }
            hear(&mut world, &mut heard);
        }
        world.exchange();
        hear(&mut world, &mut heard);
        for at in 0..5 {
            for from in (0..5).filter(|from| *from != at) {
                let expected: Vec<u64> = (1..=sent[from]).collect();
                assert_eq!(heard.remove(&(at, from)).unwrap_or_default(), expected, "seed {seed}: {at} of {from}");
            }
        }
        assert!(heard.is_empty(), "nobody hears its own");
    }
}

#[test]
fn a_link_that_breaks_loses_nothing_that_another_brings() {
    let (mut world, mut heard) = (ring(4), Heard::new());
    for number in 1..=20 {
        send(&mut world, 0, number);
        if number == 7 {
            let link = world.linked(0, 1).expect("linked");
            world.cut(link);
        }
        if number == 14 {
            world.connect(0, 1);
        }
        // Link by link, so that what a broken one carried is lost.
        let link = world.linked(0, 3).expect("linked");
        world.send(link, 0, 1);
        world.send(link, 1, 1);
    }
    world.exchange();
    world.now += 2_000_000;
    (0..4).for_each(|at| world.timers(at));
    world.exchange();
    hear(&mut world, &mut heard);
    for at in 1..4 {
        assert_eq!(heard[&(at, 0)], (1..=20).collect::<Vec<u64>>(), "{at}");
    }
}

#[test]
fn a_message_waits_for_its_topic_and_not_for_ever() {
    let mut world = World::story(2);
    let path = world.paths[0].clone();
    world.connect(0, 1);
    world.exchange();
    world.add_topics(0, std::slice::from_ref(&path), TopicType::Json);
    let topic = world.hosts[0].replica.topic(&path).expect("it is there").1.ids[0];
    // It overtakes the topic: here, since that is held back.
    let link = world.linked(0, 1).expect("linked");
    send(&mut world, 0, 1);
    let mut heard = Heard::new();
    for _ in 0..20 {
        world.send(link, 0, 1);
        world.send(link, 1, 1);
        let flight: Vec<_> = world.in_flight();
        // The lane of messages is the last that was opened.
        let newest = flight.iter().map(|(_, lane)| lane.1).max().unwrap_or_default();
        for (link, lane) in flight.into_iter().filter(|(_, lane)| lane.1 == 0 || lane.1 == newest) {
            world.deliver(link, lane, 10);
        }
        hear(&mut world, &mut heard);
    }
    assert!(heard.is_empty() || world.hosts[1].replica.topic(&path).is_some());
    world.exchange();
    hear(&mut world, &mut heard);
    assert_eq!(heard[&(1, 0)], [1]);
    // Of a topic that is gone nobody hears, and it holds up nobody.
    let gone = mangrove_crdt::frontier::DotIx { number: topic.number + 1_000, ..topic };
    let host = &mut world.hosts[0];
    host.mesh.send_message(&mut host.replica, TOPICS, gone, vec![0; 9].into());
    send(&mut world, 0, 2);
    world.exchange();
    hear(&mut world, &mut heard);
    assert_eq!(heard[&(1, 0)], [1], "it waits behind one that may still get its topic");
    world.now += 6_000_000;
    hear(&mut world, &mut heard);
    assert_eq!(heard[&(1, 0)], [1, 2]);
}
