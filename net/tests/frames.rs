//! No frame, however damaged, makes a node panic, take more memory than it should, or claim what it does not hold.

mod support;

use std::panic::RefUnwindSafe;

use mangrove_crdt::{id::SectionId, time::Instant};
use mangrove_net::{
    Violation,
    link::{LinkId, LinkOptions},
};
use support::{Dice, Host, Plan, TOPICS, World};

/// A link's frames, as (lane, bytes), with whatever two nodes of a lively world say to each other.
fn conversation(seed: u64) -> (World, Vec<(u32, Vec<u8>)>) {
    let mut world = World::new(seed, Plan { crashes: false, absences: false, steps: 300, ..Plan::default() });
    for _ in 0..world.plan.steps {
        world.step();
    }
    let ids: Vec<u64> = world.wires.keys().copied().collect();
    ids.into_iter().for_each(|id| world.cut(id));
    world.connect(0, 1);
    let id = world.linked(0, 1).expect("just linked");
    let mut frames = Vec::new();
    // A node that says hello only after it has heard everything would hear little, so both sides go in turns.
    for _ in 0..400 {
        let sent = world.send(id, 0, 1) + world.send(id, 1, 1);
        for (_, lane) in world.in_flight() {
            let flight = world.wires[&id].flight[&lane].front().cloned();
            if let (0, Some(frame)) = (lane.0, flight) {
                frames.push((lane.1, frame));
            }
            world.deliver(id, lane, 1);
        }
        if sent == 0 {
            break;
        }
    }
    (world, frames)
}

/// Plays frames to node 1 on a fresh link; what came of it.
fn replay(world: &mut World, frames: &[(u32, Vec<u8>)]) -> Result<usize, Violation> {
    let now = Instant(world.now);
    let peer = world.hosts[0].id;
    let Host { replica, mesh, .. } = &mut world.hosts[1];
    let link = LinkId(1 << 40);
    mesh.handle_link_up(now, link, peer, LinkOptions::default());
    let mut outcome = Ok(frames.len());
    for (lane, frame) in frames {
        if let Err(violation) = mesh.handle_frame(now, link, *lane, frame, replica) {
            outcome = Err(violation);
            break;
        }
        while mesh.poll_transmit(now, link, replica, &|_| false).is_some() {}
    }
    mesh.handle_link_down(replica, link);
    outcome
}

fn damage(dice: &mut Dice, frames: &mut Vec<(u32, Vec<u8>)>) {
    for _ in 0..1 + dice.below(4) {
        let at = dice.below(frames.len());
        let len = frames[at].1.len();
        match dice.below(7) {
            0 => frames[at].1.truncate(dice.below(len + 1)),
            1 if len > 0 => frames[at].1[dice.below(len)] ^= 1 << dice.below(8),
            2 if len > 0 => frames[at].1[dice.below(len)] = dice.pick(&[0, 0x7f, 0x80, 0xff]),
            3 => frames[at].1.insert(dice.below(len + 1), dice.below(256) as u8),
            4 => frames[at].0 = dice.below(6) as u32,
            5 => {
                let other = dice.below(frames.len());
                frames.swap(at, other);
            }
            _ => {
                let again = frames[at].clone();
                frames.insert(dice.below(frames.len() + 1), again);
            }
        }
    }
}

fn with_seeds(count: u64, play: impl Fn(u64) + RefUnwindSafe) {
    for seed in support::seeds(count) {
        if let Err(panic) = std::panic::catch_unwind(|| play(seed)) {
            eprintln!("failed: MANGROVE_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn whole_conversations_replay_and_damaged_ones_are_refused_or_harmless() {
    with_seeds(12, |seed| {
        let (mut world, frames) = conversation(seed);
        assert!(frames.len() > 3, "there is something to say: {}", frames.len());
        assert_eq!(replay(&mut world, &frames), Ok(frames.len()));
        let mut dice = Dice::new(seed ^ 0xf00d);
        for _ in 0..60 {
            let mut damaged = frames.clone();
            damage(&mut dice, &mut damaged);
            let _refused_or_harmless = replay(&mut world, &damaged);
            for id in [SectionId::MESH, TOPICS] {
                let section = world.hosts[1].replica.section(id).expect("still held");
                assert!(section.frontiers().covers_all(section.durable()));
            }
        }
    });
}

#[test]
fn noise_is_refused() {
    let (mut world, frames) = conversation(1);
    let mut dice = Dice::new(7);
    for _ in 0..2_000 {
        let noise = (0..dice.below(60)).map(|_| dice.below(256) as u8).collect();
        let said = [frames[0].clone(), (dice.below(3) as u32, noise)];
        let _refused_or_unknown = replay(&mut world, &said);
    }
    let first = [(0, vec![0xff; 30])];
    assert!(matches!(replay(&mut world, &first), Err(Violation::Malformed(_))), "a kind beyond 64 bits");
    assert_eq!(replay(&mut world, &frames[1..2]), Err(Violation::NoHello));
}
