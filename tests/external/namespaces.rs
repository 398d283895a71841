//! Nodes that each have a network of their own, which is cut, cut in one direction, made to lose, and split in the middle.
//!
//! ```text
//!    node A      node B              node C      node D       each in a network namespace
//!      │ eth0      │ eth0              │ eth0      │ eth0
//!    ──┴── left ───┴──────── trunk ────┴── right ──┴──        two bridges in a namespace between them
//! ```
//!
//! Beside it each node has a line to this program, over which its clients come: no cut touches that one. This needs root, `ip` and `nft`, so it runs only when it is
//! asked for: `cargo test --test namespaces -- --ignored`. What is made here is named after this process, and removed also after a failure.

#![cfg(target_os = "linux")]
#![allow(clippy::disallowed_methods, reason = "real processes live in real time")]

#[path = "../stories/load.rs"]
#[allow(dead_code, reason = "other stories use the rest")]
mod load;
#[path = "../stories/support.rs"]
#[allow(dead_code, reason = "other stories use the rest")]
mod support;

use std::process::{Command, Output};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Instant;

use mangrove_crdt::definition::Durability;
use serde_json::{Value, json};

use crate::load::{Load, share};
use crate::support::{Node, World, equal, until};

/// Networks of namespaces, bridges between them, and lines to here. Dropping it removes them.
struct Lab {
    /// What is between the nodes.
    middle: String,
    /// The first three bytes of all addresses.
    net: String,
    /// Unique among those of this process.
    number: u8,
    nodes: Vec<String>,
}

static PROBING: Mutex<()> = Mutex::new(());

impl Lab {
    /// `None` where this cannot be had; where CI is set, it must be.
    fn new() -> Option<Lab> {
        let found = Lab::probe();
        if !found.as_ref().is_ok_and(|output| output.status.success()) {
            assert!(std::env::var_os("CI").is_none(), "this needs root, ip and nft: {found:?}");
            eprintln!("skipped: this needs root, ip and nft: {found:?}");
            return None;
        }
        static NUMBER: AtomicU8 = AtomicU8::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let pid = std::process::id();
        let lab = Lab {
            middle: format!("mangrove-{pid}-{number}"),
            net: format!("10.{}.{}", 64 + pid % 128, pid / 128 % 16 * 16 + u32::from(number)),
            number,
            nodes: Vec::new(),
        };
        ip(&["netns", "add", &lab.middle]);
        for bridge in ["left", "right"] {
            lab.ip_in_middle(&["link", "add", bridge, "type", "bridge"]);
            lab.ip_in_middle(&["link", "set", bridge, "up"]);
        }
        lab.ip_in_middle(&["link", "add", "trunk", "type", "veth", "peer", "name", "knurt"]);
        for (end, bridge) in [("trunk", "left"), ("knurt", "right")] {
            lab.ip_in_middle(&["link", "set", end, "master", bridge, "up"]);
        }
        Some(lab)
    }

    fn probe() -> std::io::Result<Output> {
        let own = format!("mangrove-probe-{}", std::process::id());
        let _turn = PROBING.lock();
        Command::new("ip").args(["netns", "add", &own]).output()?;
        let found = Command::new("ip").args(["netns", "exec", &own, "nft", "list", "ruleset"]).output();
        Command::new("ip").args(["netns", "del", &own]).output()?;
        found
    }

    /// A node on one of the bridges, neither made nor running.
    fn node(&mut self, world: &World, name: &str, bridge: &str) -> Node {
        let space = format!("{}-{name}", self.middle);
        self.nodes.push(name.to_owned());
        let (host, at) = (self.nodes.len(), format!("{name}{:x}.{}", std::process::id(), self.number));
        let (address, here) = (format!("{}.{host}", self.net), format!("{}.200", self.net));
        ip(&["netns", "add", &space]);
        // To the others.
        self.ip_in_middle(&["link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", &space]);
        self.ip_in_middle(&["link", "set", name, "master", bridge, "up"]);
        let inside = |arguments: &[&str]| ip(&[&["-n", &space], arguments].concat());
        inside(&["address", "add", &format!("{address}/25"), "dev", "eth0"]);
        inside(&["link", "set", "eth0", "up"]);
        inside(&["link", "set", "lo", "up"]);
        // To its clients.
        ip(&["link", "add", &at, "type", "veth", "peer", "name", "clients", "netns", &space]);
        ip(&["address", "add", &format!("{here}/32"), "dev", &at]);
        ip(&["link", "set", &at, "up"]);
        ip(&["route", "add", &format!("{address}/32"), "dev", &at, "src", &here]);
        inside(&["link", "set", "clients", "up"]);
        inside(&["route", "add", &format!("{here}/32"), "dev", "clients", "src", &address]);
        let mut node = world.node(name, &["--listen", &format!("{address}:4747")]);
        node.within(&["ip", "netns", "exec", &space]);
        node
    }

    /// Nodes of one mesh, each on its bridge, all linked to each other.
    fn mesh<const N: usize>(&mut self, world: &World, bridges: [(&str, &str); N]) -> [Node; N] {
        let mut nodes = bridges.map(|(name, bridge)| self.node(world, name, bridge));
        nodes[0].told(&["init", "--name", bridges[0].0]);
        nodes[0].up();
        for (at, (name, _)) in bridges.iter().enumerate().skip(1) {
            let ticket = nodes[0].ticket("member");
            nodes[at].told(&["join", &ticket, "--name", name]);
            nodes[at].up();
        }
        share(nodes)
    }

    fn ip_in_middle(&self, arguments: &[&str]) {
        ip(&[&["-n", &self.middle], arguments].concat());
    }

    /// Applies a rule to what a node receives from others.
    fn filter(&self, at: &Node, rule: &str) {
        let space = format!("{}-{}", self.middle, at.name);
        let script = format!(
            "add table inet cut; add chain inet cut in {{ type filter hook input priority 0; }}; add rule inet cut in iifname eth0 {rule}"
        );
        run(Command::new("ip").args(["netns", "exec", &space, "nft", &script]));
    }

    /// Lets nothing through any more from one node to another.
    fn cut(&self, from: &Node, to: &Node) {
        let host = self.nodes.iter().position(|name| *name == from.name).expect("it is one of ours") + 1;
        self.filter(to, &format!("ip saddr {}.{host} drop", self.net));
    }

    fn heal(&self) {
        for node in &self.nodes {
            run(Command::new("ip").args(["netns", "exec", &format!("{}-{node}", self.middle), "nft", "flush ruleset"]));
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // With a namespace go its ends of all lines, and so the lines.
        let spaces = self.nodes.iter().map(|node| format!("{}-{node}", self.middle)).chain([self.middle.clone()]);
        for space in spaces {
            let _ = Command::new("ip").args(["netns", "del", &space]).status();
        }
    }
}

fn ip(arguments: &[&str]) {
    run(Command::new("ip").args(arguments));
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; this needs root, ip and nft"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Writes one topic on both sides of a cut; each side shows its own.
fn disagree(one: &Node, other: &Node, path: &str) {
    for node in [one, other] {
        node.set(path, &format!("\"of {}\"", node.name));
    }
    for node in [one, other] {
        assert_eq!(node.get(path), format!("of {}", node.name), "each side shows what was written on it");
    }
}

/// Checks that one of both values stands everywhere, and the other is in the displaced log.
fn agreed(nodes: &[&Node], path: &str) {
    let winner = nodes[0].get(path);
    nodes.iter().for_each(|node| assert_eq!(node.get(path), winner));
    let lost: Vec<Value> = nodes
        .iter()
        .flat_map(|node| {
            let rows = node.json(&["displaced", "ls", path]);
            rows.as_array()
                .expect("a list")
                .iter()
                .map(|row| node.json(&["displaced", "show", row["id"].as_str().expect("an id")]))
                .collect::<Vec<_>>()
        })
        .collect();
    assert!(!lost.is_empty() && lost.iter().all(|row| row["value"] != winner), "{path} is {winner}, displaced: {lost:?}");
}

fn apart(one: &Node, other: &Node) -> bool {
    !one.is_linked_to(&other.name) && !other.is_linked_to(&one.name)
}

#[test]
#[ignore = "needs root, ip and nft"]
fn a_node_is_cut_off() {
    let world = World::new();
    let Some(mut lab) = Lab::new() else { return };
    let nodes = lab.mesh(&world, [("A", "left"), ("B", "left"), ("C", "left")]);
    let [a, b, c] = &nodes;
    let load = Load::start(&nodes, Durability::Disk);
    load.goes_on(&[a, b, c]);
    for other in [a, b] {
        lab.cut(other, c);
        lab.cut(c, other);
    }
    until("all notice", || a.status().reachable == 2 && b.status().reachable == 2 && c.status().reachable == 1);
    load.goes_on(&[a, b, c]);
    disagree(a, c, "load/both");
    a.set("load/on-one-side", "1");
    b.shows("load/on-one-side", 1);
    c.set("load/on-the-other", "2");
    assert_eq!((b.get("load/on-the-other"), c.get("load/on-one-side")), (Value::Null, Value::Null));
    until("the links are given up", || apart(a, c) && apart(b, c));
    load.goes_on(&[a, b, c]);

    lab.heal();
    let healed = Instant::now();
    c.shows("load/on-one-side", 1);
    b.shows("load/on-the-other", 2);
    eprintln!("both sides know of each other's writes {:?} after the heal", healed.elapsed());
    for (node, other) in [(a, "C"), (b, "C"), (c, "A"), (c, "B")] {
        node.linked(other);
    }
    let written = load.end();
    equal(&[a, b, c]);
    written.shown(&[a, b, c]);
    agreed(&[a, b, c], "load/both");
    world.logged_no_error();
}

#[test]
#[ignore = "needs root, ip and nft"]
fn one_direction_is_cut() {
    let world = World::new();
    let Some(mut lab) = Lab::new() else { return };
    let nodes = lab.mesh(&world, [("A", "left"), ("B", "left"), ("C", "left")]);
    let [a, b, c] = &nodes;
    let load = Load::start(&nodes, Durability::Disk);
    load.goes_on(&[a, b, c]);
    lab.cut(a, b);
    a.set("load/of-a", "1");
    b.set("load/of-b", "2");
    b.shows("load/of-a", 1);
    a.shows("load/of-b", 2);
    until("both give the link up", || apart(a, b));
    assert_eq!((a.status().reachable, b.status().reachable), (3, 3), "each hears of the other through C");
    load.goes_on(&[a, b, c]);
    lab.heal();
    a.linked("B");
    b.linked("A");
    load.end().all_there(&[a, b, c]);
    world.logged_no_error();
}

#[test]
#[ignore = "needs root, ip and nft"]
fn every_node_loses_a_fifth() {
    let world = World::new();
    let Some(mut lab) = Lab::new() else { return };
    let nodes = lab.mesh(&world, [("A", "left"), ("B", "left"), ("C", "right")]);
    let [a, b, c] = &nodes;
    for node in &nodes {
        lab.filter(node, "numgen random mod 100 < 20 drop");
    }
    let load = Load::start(&nodes, Durability::Disk);
    for node in &nodes {
        node.publish((0..2_000).map(|n| (format!("load/many/{}/{n}", node.name), json!({ "n": n }))));
    }
    load.goes_on(&[a, b, c]);
    let written = load.end();
    let ended = Instant::now();
    // Still losing.
    written.all_there(&[a, b, c]);
    eprintln!("equal, and compared, {:?} after the last write", ended.elapsed());
    assert_eq!(a.status().topics, 3 * 2_001);
    world.logged_no_error();
}

#[test]
#[ignore = "needs root, ip and nft"]
fn the_bridge_between_two_sides_is_cut() {
    let world = World::new();
    let Some(mut lab) = Lab::new() else { return };
    let nodes = lab.mesh(&world, [("A", "left"), ("B", "left"), ("C", "right"), ("D", "right")]);
    let [a, b, c, d] = &nodes;
    let load = Load::start(&nodes, Durability::Disk);
    load.goes_on(&[a, b, c, d]);
    lab.ip_in_middle(&["link", "set", "trunk", "down"]);
    until("all notice", || nodes.iter().all(|node| node.status().reachable == 2));
    load.goes_on(&[a, b, c, d]);
    disagree(a, d, "load/both");
    b.shows("load/both", "of A");
    c.shows("load/both", "of D");
    until("the links are given up", || [(a, c), (a, d), (b, c), (b, d)].iter().all(|(one, other)| apart(one, other)));
    load.goes_on(&[a, b, c, d]);

    lab.ip_in_middle(&["link", "set", "trunk", "up"]);
    let healed = Instant::now();
    for (one, other) in [(a, c), (a, d), (b, c), (b, d)] {
        one.linked(&other.name);
    }
    eprintln!("all linked {:?} after the heal", healed.elapsed());
    let written = load.end();
    equal(&[a, b, c, d]);
    written.shown(&[a, b, c, d]);
    agreed(&[a, b, c, d], "load/both");
    for node in &nodes {
        assert!(node.links().iter().all(|row| row.mismatches == 0), "{:?}", node.links());
    }
    world.logged_no_error();
}
