//! On a full disk, at `disk_max_bytes` and on a read-only disk, writes are refused clearly; reads and removals go on, and nothing acknowledged
//! is lost.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::mount::{Card, Mount};
use crate::support::{Node, PATIENCE, World, block, until, write};

/// Fills a node until it refuses; how many values were written.
fn fill(node: &Node, value_bytes: usize, values_max: usize) -> usize {
    // What does not compress.
    let filler = |n: usize| -> String {
        let mut hash = n as u64 + 1;
        let mut next = || {
            hash = hash.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            char::from(b'!' + ((hash >> 33) % 90) as u8)
        };
        std::iter::repeat_with(&mut next).filter(|c| *c != '"' && *c != '\\').take(value_bytes).collect()
    };
    let mut written = 0;
    while written < values_max {
        let lines: String =
            (written..written + 20).map(|n| format!("{}\n", json!({ "path": format!("fill/{n}"), "value": filler(n) }))).collect();
        let output = node.piped(&["--json", "publish", "-"], &lines);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        if !output.status.success() {
            assert_eq!(output.status.code(), Some(1), "{error}");
            assert!(error.contains("[full]"), "{error}");
            return written;
        }
        written += 20;
    }
    panic!("{values_max} values of {value_bytes} bytes fit");
}

fn full_then_emptied(world: &World, data: PathBuf, flags: &[&str], value_bytes: usize, values_max: usize) {
    let mut node = world.node_at("A", data, flags);
    node.told(&["init", "--name", "A"]);
    node.up();
    node.set("kept", "1");
    let mut written = fill(&node, value_bytes, values_max);
    assert!(written > 20, "only {written} values fit");
    // Merging files may make much room once more, a moment later: fill that too.
    let warns = |node: &Node| node.json(&["status"])["warnings"].to_string().contains("writes are refused");
    for _ in 0..10 {
        std::thread::sleep(Duration::from_millis(1_500));
        if warns(&node) {
            break;
        }
        written = written.max(fill(&node, value_bytes, values_max));
    }
    node.refused(&["set", "kept", "2"]).says(1, &["[full]", "hint: remove topics"]);
    node.refused(&["topic", "add", "another", "--type", "json"]).says(1, &["[full]"]);
    assert_eq!(node.get("kept"), 1);
    let length = |node: &Node| node.get(&format!("fill/{}", written - 1)).as_str().map(str::len);
    assert_eq!(length(&node), Some(value_bytes));
    assert!(warns(&node), "{}", node.json(&["status"])["warnings"]);

    // All that was acknowledged survives a crash in this state, and the node starts.
    node.kill();
    node.up();
    assert_eq!((node.get("kept"), length(&node)), (json!(1), Some(value_bytes)));

    // Removals go on, and make room.
    node.told(&["topic", "rm", "?fill//"]);
    until("there is room again", || node.run(&["set", "kept", "3"]).status.success());
    assert_eq!(node.get("kept"), 3);
    assert_eq!(node.get("fill/0"), Value::Null);
    node.terminate();
    node.up();
    assert_eq!((node.get("kept"), node.paths()), (json!(3), vec!["kept".to_owned()]));
}

#[test]
fn a_full_disk() {
    let world = World::new();
    let Some(mount) = Mount::new(world.path("disk"), "160m") else { return };
    full_then_emptied(&world, mount.path().join("data"), &[], 100_000, 2_000);
}

#[test]
fn the_limit_of_the_configuration() {
    let world = World::new();
    // On a memory disk where there can be one: this writes much.
    let mount = Mount::new(world.path("disk"), "1g");
    let data = mount.as_ref().map_or_else(|| world.path("data"), |mount| mount.path().join("data"));
    full_then_emptied(&world, data, &["--set", "disk_max_bytes=256MiB"], 500_000, 1_000);
}

#[test]
fn a_read_only_disk() {
    let world = World::new();
    let Some(mount) = Mount::new(world.path("disk"), "64m") else { return };
    let mut node = world.node_at("A", mount.path().join("data"), &[]);
    node.told(&["init", "--name", "A"]);
    node.up();
    node.set("kept", "1");
    node.terminate();
    mount.read_only();
    node.try_up().expect_err("it cannot start").says(1, &[&shown(mount.path()), "ead-only"]);
    world.node_at("B", mount.path().join("other"), &[]).refused(&["init"]).says(1, &["ead-only"]);
    mount.writable();
    node.up();
    assert_eq!(node.get("kept"), 1);
}

#[test]
fn a_disk_that_turns_read_only_under_a_node() {
    let world = World::new();
    let Some(mut card) = Card::new(&world) else { return };
    let b = world.found("B");
    b.told(&["section", "add", "demo"]);
    let mut a = world.node_at("A", card.path().join("data"), &[]);
    let ticket = b.ticket("member");
    a.told(&["join", &ticket, "--name", "A"]);
    a.up();
    a.set("demo/kept", "1");
    b.shows("demo/kept", 1);
    if !card.fail() {
        return;
    }

    // Whoever wrote before the node knew is told, and does not wait for a disk that may never come back; then writes are refused.
    let told = block(async {
        let client = a.connect().await;
        tokio::time::timeout(PATIENCE, write(&client, "demo/kept", &json!(2), None)).await
    });
    let told = told.expect("the writer is answered").expect_err("it cannot be on the disk").to_string();
    // Unless the node has found out before, by what it stores of its own accord.
    assert!(told.contains("would not survive a crash") || told.contains("cannot be written"), "{told}");
    a.refused(&["set", "demo/kept", "2"]).says(1, &["[read-only]"]);
    a.refused(&["topic", "add", "demo/new", "--type", "json"]).says(1, &["[read-only]"]);
    assert!(a.json(&["status"])["warnings"].to_string().contains("writes are refused"), "{}", a.json(&["status"]));
    // What to do is said where an operator looks: such a disk does not come back under those who use it.
    let doctor = a.run(&["--json", "doctor"]);
    let doctor = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(doctor.contains("writes are refused") && doctor.contains("mount it anew"), "{doctor}");
    assert!(a.logged().contains("mount it anew"), "{}", a.logged());
    // Reads go on, and so does the mesh, in memory.
    b.set("demo/from-b", "3");
    a.shows("demo/from-b", 3);
    let before = a.get("demo/kept");
    assert!(before == 1 || before == 2, "{before}");

    // The card is mended, and nothing acknowledged is lost.
    a.kill();
    card.mend();
    a.up();
    a.shows("demo/from-b", 3);
    a.set("demo/kept", "4");
    b.shows("demo/kept", 4);
    a.terminate();
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
