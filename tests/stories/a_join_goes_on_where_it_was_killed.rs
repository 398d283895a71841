//! A node that is killed while it takes over a section goes on with what it lacks when it is started again.

use mangrove_crdt::path::BUCKETS;
use serde_json::json;

use crate::support::{Node, World, equal, until};

const TOPICS: u64 = 6_000;

/// Bytes that have come over its present links.
fn received(node: &Node) -> u64 {
    node.links().iter().map(|link| link.received_bytes).sum()
}

/// So many characters that hardly compress.
fn noise(number: u64, length: usize) -> String {
    let hash = |at: usize| blake3::hash(&[number.to_le_bytes(), (at as u64).to_le_bytes()].concat()).to_hex().to_string();
    (0..).map(hash).flat_map(|hex| hex.chars().collect::<Vec<_>>()).take(length).collect()
}

#[test]
fn and_is_not_sent_again_what_it_has() {
    let world = World::new();
    // Slow enough that it can be killed halfway.
    let slow = ["--set", "link.*.rate_max_bytes_per_s=409600"];
    let a = world.found_with("A", &slow);
    a.told(&["section", "add", "demo"]);
    a.publish((0..TOPICS).map(|n| (format!("demo/{n}"), json!(noise(n, 400)))));

    let whole = world.join("B", &a);
    until("B has everything", || whole.status().topics == TOPICS);
    equal(&[&a, &whole]);
    let wire_whole = received(&whole);

    let mut killed = world.join("C", &a);
    // What came in the last two seconds may not be on its disk yet.
    until("C has most of it", || killed.status().topics >= TOPICS * 3 / 4);
    let had = killed.status().topics;
    killed.kill();
    assert!(had < TOPICS * 9 / 10, "it was killed in the middle: {had} of {TOPICS} topics, in {BUCKETS} buckets");
    killed.up();
    until("C has everything", || killed.status().topics == TOPICS);
    equal(&[&a, &killed]);
    let wire_rest = received(&killed);
    assert!(wire_rest < wire_whole * 4 / 5, "the rest took {wire_rest} bytes, all of it {wire_whole}");
    assert!(wire_rest > wire_whole / 20, "there was a rest: {wire_rest} of {wire_whole}");
}
