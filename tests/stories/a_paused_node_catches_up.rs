//! A node that is stopped in the middle of whatever it does, and goes on later, as a laptop that is shut or a machine that swaps: the others notice
//! and go on; afterwards it has everything, and nothing that it acknowledged is lost.

use std::time::{Duration, Instant};

use mangrove_crdt::definition::Durability;
use serde_json::json;

use crate::load::{Load, three};
use crate::support::{Node, World, until};

fn pause_while(others_go_on: impl FnOnce(&Load, &Node, &Node, &Node)) {
    let world = World::new();
    let nodes = three(&world);
    let [a, b, c] = &nodes;
    let load = Load::start(&nodes, Durability::Disk);
    load.goes_on(&[a, b, c]);
    b.pause();
    let paused = Instant::now();
    others_go_on(&load, a, b, c);
    a.set("load/meanwhile", "1");
    c.shows("load/meanwhile", 1);
    load.goes_on(&[a, c]);
    b.wake();
    eprintln!("woken after {:?}", paused.elapsed());
    let woken = Instant::now();

    b.shows("load/meanwhile", 1);
    a.linked("B");
    c.linked("B");
    eprintln!("it has everything, and is linked, after {:?}", woken.elapsed());
    // Its clients are answered again, and what they write arrives.
    load.goes_on(&[a, b, c]);
    b.set("load/after", "2");
    c.shows("load/after", 2);
    assert_eq!(b.status().boot, 1, "it never ended");
    load.end().all_there(&[a, b, c]);
    world.logged_no_error();
}

#[test]
fn though_nobody_gave_up_its_links() {
    pause_while(|_, a, _, c| {
        let heard_of_it = |node: &Node| node.status().reachable == 3;
        until("the others miss its signs of life", || !heard_of_it(a) && !heard_of_it(c));
        assert!(a.is_linked_to("B"), "the connection still stands");
    });
}

#[test]
fn though_all_gave_up_its_links() {
    pause_while(|load, a, _, c| {
        until("the others give up", || !a.is_linked_to("B") && !c.is_linked_to("B"));
        let row = a.links().into_iter().find(|row| row.name == "B").expect("the link is told of");
        assert!(row.error.is_some(), "{row:?}");
        a.publish((0..500).map(|n| (format!("load/many/{n}"), json!(n))));
        a.told(&["topic", "rm", "load/many/0"]);
        load.goes_on(&[a, c]);
        std::thread::sleep(Duration::from_secs(1));
    });
}
