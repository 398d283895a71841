//! Writers that go on through whatever happens to their nodes, and know what was acknowledged.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use mangrove::client::{Client, ClientOptions, Credential};
use mangrove_crdt::definition::Durability;
use serde_json::json;

use crate::support::{Node, World, block, equal, until, write};

/// Writes rising numbers, through each of some nodes to a topic of its own below `load/`. Dropping it ends it.
pub struct Load {
    stop: Arc<AtomicBool>,
    writers: Vec<Writer>,
}

struct Writer {
    node: String,
    /// The last number acknowledged.
    acknowledged: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Load {
    pub fn start<'a>(nodes: impl IntoIterator<Item = &'a Node>, durability: Durability) -> Load {
        let stop = Arc::new(AtomicBool::new(false));
        let start = |node: &Node| {
            let acknowledged = Arc::new(AtomicU64::new(0));
            let task = write_on(node.data.clone(), topic(&node.name), durability, stop.clone(), acknowledged.clone());
            Writer { node: node.name.clone(), acknowledged, thread: Some(std::thread::spawn(|| block(task))) }
        };
        Load { writers: nodes.into_iter().map(start).collect(), stop }
    }

    /// The last number that a node has acknowledged.
    pub fn acknowledged(&self, node: &Node) -> u64 {
        let writer = self.writers.iter().find(|writer| writer.node == node.name).expect("it is written to");
        writer.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits until each of these nodes has acknowledged some more writes.
    pub fn goes_on(&self, nodes: &[&Node]) {
        for node in nodes {
            let before = self.acknowledged(node);
            until(&format!("{} acknowledges writes", node.name), || self.acknowledged(node) > before + 5);
        }
    }

    /// Ends the writers; what they wrote.
    pub fn end(mut self) -> Written {
        self.join();
        let last = |writer: &Writer| (writer.node.clone(), writer.acknowledged.load(Ordering::Relaxed));
        let written = Written(self.writers.iter().map(last).collect());
        eprintln!("acknowledged: {:?}", written.0);
        assert!(written.0.values().all(|last| *last > 10), "too little load");
        written
    }

    fn join(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for writer in &mut self.writers {
            if let Some(thread) = writer.thread.take() {
                let ended = thread.join();
                assert!(ended.is_ok() || std::thread::panicking(), "the writer of {} failed", writer.node);
            }
        }
    }
}

/// The last number that each node has acknowledged.
pub struct Written(BTreeMap<String, u64>);

impl Written {
    /// Checks that nodes show everything that was acknowledged.
    pub fn shown(&self, nodes: &[&Node]) {
        for (writer, last) in &self.0 {
            for node in nodes {
                let value = node.get(&topic(writer)).as_u64();
                assert!(value.is_some_and(|value| value >= *last), "{writer}: {last} was acknowledged, {} shows {value:?}", node.name);
            }
        }
    }

    /// Waits until nodes are equal, and checks that they show everything that was acknowledged, and needed no repair for it.
    pub fn all_there(&self, nodes: &[&Node]) {
        equal(nodes);
        self.shown(nodes);
        for node in nodes {
            assert_eq!(node.status().displaced, 0, "{}: each topic has one writer", node.name);
            let mismatches: u64 = node.links().iter().map(|row| row.mismatches).sum();
            assert_eq!(mismatches, 0, "{} had to repair what should have been equal: {:?}", node.name, node.links());
        }
    }
}

/// Three nodes that share a section for the load.
pub fn three(world: &World) -> [Node; 3] {
    let a = world.found("A");
    let b = world.join("B", &a);
    let c = world.join("C", &a);
    share([a, b, c])
}

/// Gives nodes of one mesh the section, and waits until all are linked.
pub fn share<const N: usize>(nodes: [Node; N]) -> [Node; N] {
    nodes[0].told(&["section", "add", "load", "--durability", "memory"]);
    for node in &nodes {
        until("the section is known", || !node.json(&["section", "ls"]).as_array().expect("a list").is_empty());
        for other in nodes.iter().filter(|other| other.name != node.name) {
            node.linked(&other.name);
        }
    }
    nodes
}

impl Drop for Load {
    fn drop(&mut self) {
        self.join();
    }
}

fn topic(node: &str) -> String {
    format!("load/{node}")
}

async fn write_on(data: PathBuf, path: String, durability: Durability, stop: Arc<AtomicBool>, acknowledged: Arc<AtomicU64>) {
    let mut next = 1;
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
                Ok(Ok(())) => acknowledged.store(n, Ordering::Relaxed),
                Ok(Err(_)) | Err(_) => break,
            }
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    }
}
