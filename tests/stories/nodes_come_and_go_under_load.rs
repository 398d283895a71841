//! Restart one node after the other while all are written to: after a clean end nothing acknowledged is lost, not even what was to be in memory
//! only; after a crash nothing that was to be on the disk; and a node that comes back at another port is found again.

use std::time::Duration;

use mangrove_crdt::definition::Durability;

use crate::load::{Load, three};
use crate::support::{World, fixed_port};

#[test]
fn and_a_clean_end_loses_nothing() {
    let world = World::new();
    let mut nodes = three(&world);
    let load = Load::start(&nodes, Durability::Memory);
    for at in 0..3 {
        std::thread::sleep(Duration::from_millis(500));
        let before = nodes[at].address().to_owned();
        nodes[at].terminate();
        nodes[at].up();
        assert_ne!(nodes[at].address(), before, "any free port was asked for");
        for other in (0..3).filter(|other| *other != at) {
            nodes[other].linked(&nodes[at].name);
        }
    }
    std::thread::sleep(Duration::from_millis(300));
    let written = load.end();

    // One more end of all at once, so that memory is asked to the last. One of them must be where it was, or nobody would find anybody.
    let fixed = format!("127.0.0.1:{}", fixed_port());
    nodes[0].terminate();
    nodes[0].listen(&fixed);
    nodes[0].up();
    nodes[1].linked("A");
    nodes[2].linked("A");
    for node in &mut nodes {
        node.terminate();
    }
    for node in &mut nodes {
        node.up();
    }
    written.all_there(&nodes.each_ref());
}

#[test]
fn and_crashes_lose_nothing_that_was_on_the_disk() {
    let world = World::new();
    let mut nodes = three(&world);
    let load = Load::start(&nodes, Durability::Disk);
    for at in [0, 1, 2, 0] {
        std::thread::sleep(Duration::from_millis(400));
        nodes[at].kill();
        std::thread::sleep(Duration::from_millis(200));
        nodes[at].up();
        // At once, though the others may not have noticed yet that the old link is dead.
        for other in (0..3).filter(|other| *other != at) {
            nodes[at].linked(&nodes[other].name);
        }
    }
    std::thread::sleep(Duration::from_millis(300));
    load.end().all_there(&nodes.each_ref());
}
