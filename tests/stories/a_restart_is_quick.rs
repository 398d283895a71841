//! How long a node takes from its start to its first answer, with much to load. A figure for people: nothing is asserted of the time.

use std::time::{Duration, Instant};

use mangrove::client::{Client, ClientOptions, Credential};
use mangrove::protocol::Page;
use serde_json::json;

use crate::support::{Node, World, block};

const TOPICS: usize = 100_000;
const ROUNDS: usize = 5;

/// Asks for a topic's value until it is given.
fn first_answer(node: &Node, path: &str) {
    let credential = Credential::read(&node.data.join("operator.toml")).expect("a credential");
    block(async {
        let options = ClientOptions { connect_timeout: Duration::from_secs(60), ..ClientOptions::new(credential) };
        let client = Client::connect(options).await.expect("it serves clients");
        let (rows, _) = client.values(path, Page { after: None, limit: 1 }).await.expect("values");
        assert_eq!(rows.len(), 1);
    });
}

#[test]
#[ignore = "takes a while, and is for release builds: --release"]
fn with_a_hundred_thousand_topics() {
    let world = World::new();
    let mut node = world.found("A");
    node.told(&["section", "add", "many"]);
    let filler = "x".repeat(100);
    for thousand in 0..TOPICS / 10_000 {
        let at = thousand * 10_000;
        node.publish((at..at + 10_000).map(|n| (format!("many/{}/{n}", n % 317), json!(filler))));
    }
    let mut took = Vec::new();
    for _ in 0..ROUNDS {
        node.kill();
        let begun = Instant::now();
        node.up();
        first_answer(&node, &format!("many/{}/{}", (TOPICS - 1) % 317, TOPICS - 1));
        took.push(begun.elapsed());
    }
    assert_eq!(node.status().topics, TOPICS as u64);
    took.sort_unstable();
    eprintln!("{TOPICS} topics: killed, and answering again after {:?} (median of {ROUNDS}; {took:?})", took[ROUNDS / 2]);
}
