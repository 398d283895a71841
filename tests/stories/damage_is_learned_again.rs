//! A flipped bit in a node's data is noticed, the data are set aside, and what they held is learned again from the peers.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::support::{Node, World, equal, eventually};

/// Flips one bit of the last place below a directory where these bytes are; says where.
fn flip(dir: &Path, marker: &str) -> Option<PathBuf> {
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            if let Some(found) = flip(&path, marker) {
                return Some(found);
            }
            continue;
        }
        let mut bytes = fs::read(&path).expect("a file");
        if let Some(at) = bytes.windows(marker.len()).rposition(|window| window == marker.as_bytes()) {
            bytes[at + marker.len() / 2] ^= 4;
            fs::write(&path, bytes).expect("a file");
            return Some(path);
        }
    }
    None
}

fn quarantined(node: &Node) -> usize {
    let entries = fs::read_dir(&node.data).expect("a directory");
    entries.filter(|entry| entry.as_ref().expect("an entry").file_name().to_string_lossy().starts_with("quarantine-")).count()
}

#[test]
fn from_the_peers() {
    let world = World::new();
    let a = world.found("A");
    let mut b = world.join("B", &a);
    a.told(&["section", "add", "demo"]);
    b.publish((0..400).map(|n| (format!("demo/b/{n}"), json!({ "n": n, "text": format!("marker-{n}-of-b") }))));
    a.publish((0..400).map(|n| (format!("demo/a/{n}"), json!({ "n": n, "text": format!("marker-{n}-of-a") }))));
    equal(&[&a, &b]);
    b.terminate();
    flip(&b.data.join("data"), "marker-200-of-b").expect("the value is on B's disk");

    b.up();
    assert!(b.logged().contains("the data were damaged and set aside"), "{}", b.logged());
    assert_eq!(quarantined(&b), 1);
    equal(&[&a, &b]);
    assert_eq!(b.get("demo/b/200"), json!({ "n": 200, "text": "marker-200-of-b" }));
    // It is a full member again: its new writes count, over another restart too.
    b.set("demo/b/200", "\"new\"");
    a.shows("demo/b/200", "new");
    b.terminate();
    b.up();
    equal(&[&a, &b]);
    assert_eq!((quarantined(&b), b.get("demo/b/200")), (1, "new".into()));
}

#[test]
fn while_one_copy_of_the_vault_heals_the_other() {
    let world = World::new();
    let mut a = world.found("A");
    let id = a.id();
    a.set("kept", "1");
    a.terminate();
    let vault = a.data.join("vault");
    let files: Vec<PathBuf> = fs::read_dir(&vault).expect("a vault").map(|entry| entry.expect("an entry").path()).collect();
    let damage = |path: &Path| {
        let mut bytes = fs::read(path).expect("a file");
        // Within what counts: the file is padded.
        bytes[100] ^= 1;
        fs::write(path, bytes).expect("a file");
    };
    damage(&files[0]);
    a.up();
    assert!(a.logged().contains("one copy of the vault was damaged"), "{}", a.logged());
    assert_eq!((a.id(), a.get("kept"), a.status().boot), (id, 1.into(), 2));
    a.terminate();

    // Both: the node's identity is gone, and it says so instead of becoming another.
    files.iter().for_each(|path| damage(path));
    let refused = eventually("a node without a vault does not start", || a.try_up().err().ok_or_else(|| "it started".into()));
    refused.says(1, &["vault"]);
}
