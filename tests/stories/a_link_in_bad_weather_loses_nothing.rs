//! Delay, loss, repetition, disorder, a direction that is cut, an address that changes: writes go on everywhere, nothing acknowledged is lost, and all
//! become equal.

use std::time::{Duration, Instant};

use mangrove::protocol::NodeState;
use mangrove_crdt::definition::Durability;
use serde_json::json;

use crate::load::{Load, share};
use crate::relay::{Network, Weather};
use crate::support::{Node, World, equal, until};

fn three(network: &Network, world: &World) -> [Node; 3] {
    let a = network.found(world, "A");
    let b = network.join(world, "B", &a);
    let c = network.join(world, "C", &a);
    share([a, b, c])
}

fn reaches(node: &Node, count: u32) -> bool {
    node.status().reachable == count
}

#[test]
fn over_long_lines_that_lose_and_shuffle() {
    let world = World::new();
    let network = Network::new(1);
    let delay = Duration::from_millis(80);
    network.weather(Weather { delay, ..Weather::default() });
    let nodes = three(&network, &world);
    network.weather(Weather { delay, reordered: 0.2, late: Duration::from_millis(60), lost: 0.05, repeated: 0.02 });
    let branch = |name: &str| (0..2_000).map(|n| (format!("load/many/{name}/{n}"), json!({ "n": n }))).collect::<Vec<_>>();
    let load = Load::start(&nodes, Durability::Disk);
    for node in &nodes {
        node.publish(branch(&node.name));
    }
    // Both sides write one topic at the same time, again and again: one value stands everywhere.
    for n in 0..5 {
        for node in &nodes {
            node.set("load/one", &format!("\"{n} of {}\"", node.name));
        }
    }
    load.goes_on(&nodes.each_ref());
    let written = load.end();
    let begun = Instant::now();
    equal(&nodes.each_ref());
    eprintln!("equal after {:?}; {:?}", begun.elapsed(), network.fates());
    let fates = network.fates();
    assert!(fates.lost > 50 && fates.reordered > 200 && fates.repeated > 20, "too little weather: {fates:?}");
    written.shown(&nodes.each_ref());
    for node in &nodes {
        assert_eq!(node.status().topics, nodes.len() as u64 * 2_001 + 1);
        assert!(node.links().iter().all(|row| row.mismatches == 0), "{:?}", node.links());
    }
    world.logged_no_error();
}

#[test]
fn when_one_direction_is_cut() {
    let world = World::new();
    let network = Network::new(2);
    let nodes = three(&network, &world);
    let [a, b, c] = &nodes;
    let load = Load::start(&nodes, Durability::Disk);
    load.goes_on(&[a, b, c]);
    network.cut(a, b);
    let cut = Instant::now();

    // What A writes comes to B through C, though the link between them still seems to stand at one end at least.
    a.set("load/of-a", "1");
    b.shows("load/of-a", 1);
    eprintln!("B has it from C after {:?}", cut.elapsed());
    b.set("load/of-b", "2");
    a.shows("load/of-b", 2);
    c.set("load/of-c", "3");
    a.shows("load/of-c", 3);
    b.shows("load/of-c", 3);
    load.goes_on(&[a, b, c]);

    // B hears nothing of A, and gives the link up; then A hears nothing of B on it.
    until("B knows that the link is down", || !b.is_linked_to("A"));
    eprintln!("B knows after {:?}", cut.elapsed());
    until("A knows that the link is down", || !a.is_linked_to("B"));
    eprintln!("A knows after {:?}", cut.elapsed());
    for (node, other) in [(a, "B"), (b, "A")] {
        let row = node.links().into_iter().find(|row| row.name == other).expect("the link is told of");
        assert!(row.error.is_some(), "{row:?}");
        assert!(reaches(node, 3), "each lives, and is heard of through C");
        let nodes = node.json(&["node", "ls"]);
        let state = nodes.as_array().expect("a list").iter().find(|row| row["name"] == other).expect("a node")["state"].clone();
        assert_eq!(state, NodeState::Reachable.to_string());
    }
    load.goes_on(&[a, b, c]);
    b.set("load/of-b", "4");
    a.shows("load/of-b", 4);

    network.heal();
    let healed = Instant::now();
    a.linked("B");
    b.linked("A");
    eprintln!("linked {:?} after the heal", healed.elapsed());
    load.goes_on(&[a, b, c]);
    load.end().all_there(&[a, b, c]);
    world.logged_no_error();
}

#[test]
fn when_addresses_change_under_it() {
    let world = World::new();
    let network = Network::new(3);
    let nodes = three(&network, &world);
    let [a, b, c] = &nodes;
    let load = Load::start(&nodes, Durability::Disk);
    let links_made = || world.logged().matches("link up").count();
    let before = links_made();
    for round in 1..=3 {
        network.readdress();
        load.goes_on(&[a, b, c]);
        for (node, path) in [(a, "load/of-a"), (b, "load/of-b"), (c, "load/of-c")] {
            node.set(path, &round.to_string());
            nodes.iter().for_each(|other| other.shows(path, round));
        }
    }
    assert_eq!(links_made(), before, "the connections moved along");
    load.end().all_there(&[a, b, c]);
    world.logged_no_error();
}
