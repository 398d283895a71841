//! Restart one node after the other while all are written to: after a clean end nothing acknowledged is lost, not even what was to be in memory
//! only; after a crash nothing that was to be on the disk; and a node that comes back at another port is found again.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mangrove::client::{Client, ClientOptions, Credential};
use mangrove_crdt::definition::Durability;
use serde_json::json;

use crate::support::{Node, World, block, equal, fixed_port, until, write};

/// Writes rising numbers to one topic until told to stop, through every restart of its node; the last one that was acknowledged.
async fn write_through_restarts(data: PathBuf, path: String, durability: Durability, stop: Arc<AtomicBool>) -> u64 {
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
            // A node that was killed says nothing any more.
            match tokio::time::timeout(Duration::from_secs(2), write(&client, &path, &json!(n), Some(durability))).await {
                Ok(Ok(())) => acknowledged = n,
                Ok(Err(_)) | Err(_) => break,
            }
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    }
    acknowledged
}

/// Writes through all three while `restarts` goes on; what was acknowledged last for each.
fn under_load(nodes: &mut [Node; 3], durability: Durability, restarts: impl FnOnce(&mut [Node; 3])) -> Vec<u64> {
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = nodes
        .iter()
        .map(|node| {
            let (data, path, stop) = (node.data.clone(), format!("load/{}", node.name), stop.clone());
            std::thread::spawn(move || block(write_through_restarts(data, path, durability, stop)))
        })
        .collect();
    restarts(nodes);
    std::thread::sleep(Duration::from_millis(300));
    stop.store(true, Ordering::Relaxed);
    let acknowledged: Vec<u64> = writers.into_iter().map(|writer| writer.join().expect("a writer ends well")).collect();
    assert!(acknowledged.iter().all(|n| *n > 10), "too little load: {acknowledged:?}");
    acknowledged
}

fn all_there(nodes: &[Node; 3], acknowledged: &[u64]) {
    let [a, b, c] = nodes;
    equal(&[a, b, c]);
    for (node, last) in nodes.iter().zip(acknowledged) {
        let value = a.get(&format!("load/{}", node.name)).as_u64();
        assert!(value.is_some_and(|value| value >= *last), "{}: {last} was acknowledged, and {value:?} is there", node.name);
        assert_eq!(node.status().displaced, 0, "each topic has one writer");
    }
}

fn three(world: &World) -> [Node; 3] {
    let a = world.found("A");
    let b = world.join("B", &a);
    let c = world.join("C", &a);
    a.told(&["section", "add", "load", "--durability", "memory"]);
    let nodes = [a, b, c];
    for node in &nodes {
        until("the section is known", || !node.json(&["section", "ls"]).as_array().expect("a list").is_empty());
    }
    nodes[0].linked("C");
    nodes
}

#[test]
fn and_a_clean_end_loses_nothing() {
    let world = World::new();
    let mut nodes = three(&world);
    let acknowledged = under_load(&mut nodes, Durability::Memory, |nodes| {
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
    });

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
    all_there(&nodes, &acknowledged);
}

#[test]
fn and_crashes_lose_nothing_that_was_on_the_disk() {
    let world = World::new();
    let mut nodes = three(&world);
    let acknowledged = under_load(&mut nodes, Durability::Disk, |nodes| {
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
    });
    all_there(&nodes, &acknowledged);
    for node in &nodes {
        let mismatches: u64 = node.links().iter().map(|row| row.mismatches).sum();
        assert_eq!(mismatches, 0, "{} had to repair what should have been equal: {:?}", node.name, node.links());
    }
}
