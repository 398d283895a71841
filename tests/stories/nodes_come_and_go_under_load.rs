//! Restart one node after the other while all are written to: nothing acknowledged is lost, not even what was to be in memory only, and a
//! node that comes back at another port is found again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mangrove::client::{Client, ClientOptions, Credential};
use mangrove_crdt::definition::Durability;
use serde_json::json;

use crate::support::{World, block, equal, fixed_port, until, write};

/// Writes rising numbers to one topic until told to stop, through every restart of its node; the last one that was acknowledged.
async fn write_through_restarts(data: std::path::PathBuf, path: String, stop: Arc<AtomicBool>) -> u64 {
    let (mut acknowledged, mut next) = (0, 1);
    while !stop.load(Ordering::Relaxed) {
        let Ok(credential) = Credential::read(&data.join("operator.toml")) else { continue };
        let options = ClientOptions { connect_timeout: Duration::from_secs(1), ..ClientOptions::new(credential) };
        let Ok(client) = Client::connect(options).await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        while !stop.load(Ordering::Relaxed) {
            // A number whose fate is unknown is not written again.
            let n = next;
            next += 1;
            match write(&client, &path, &json!(n), Some(Durability::Memory)).await {
                Ok(()) => acknowledged = n,
                Err(_) => break,
            }
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    }
    acknowledged
}

#[test]
fn and_a_clean_end_loses_nothing() {
    let world = World::new();
    let a = world.found("A");
    let b = world.join("B", &a);
    let c = world.join("C", &a);
    a.told(&["section", "add", "load", "--durability", "memory"]);
    let mut nodes = [a, b, c];
    for node in &nodes {
        until("the section is known", || !node.json(&["section", "ls"]).as_array().expect("a list").is_empty());
    }
    nodes[0].linked("C");

    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = nodes
        .iter()
        .map(|node| {
            let (data, path, stop) = (node.data.clone(), format!("load/{}", node.name), stop.clone());
            std::thread::spawn(move || block(write_through_restarts(data, path, stop)))
        })
        .collect();
    for at in 0..3 {
        std::thread::sleep(Duration::from_millis(500));
        let before = nodes[at].address().to_owned();
        nodes[at].terminate();
        nodes[at].up();
        assert_ne!(nodes[at].address(), before, "any free port was asked for");
        for other in 0..3 {
            if other != at {
                nodes[other].linked(&nodes[at].name);
            }
        }
    }
    std::thread::sleep(Duration::from_millis(300));
    stop.store(true, Ordering::Relaxed);
    let acknowledged: Vec<u64> = writers.into_iter().map(|writer| writer.join().expect("a writer ends well")).collect();
    assert!(acknowledged.iter().all(|n| *n > 20), "too little load: {acknowledged:?}");

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
    let [a, b, c] = &nodes;
    equal(&[a, b, c]);
    for (node, last) in nodes.iter().zip(acknowledged) {
        let value = a.get(&format!("load/{}", node.name)).as_u64();
        assert!(value.is_some_and(|value| value >= last), "{}: {last} was acknowledged, and {value:?} is there", node.name);
        assert_eq!(node.status().displaced, 0, "each topic has one writer");
    }
}
