//! On a full disk, at `disk_max_bytes` and on a read-only disk, writes are refused clearly; reads and removals go on, and nothing acknowledged
//! is lost.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{Node, World, block, until, write};

/// A file system of its own, which only root can have.
struct Mount(PathBuf);

impl Mount {
    fn new(path: PathBuf, size: &str) -> Option<Mount> {
        std::fs::create_dir_all(&path).expect("a directory");
        let output = Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(&path).output();
        match output {
            Ok(output) if output.status.success() => Some(Mount(path)),
            Ok(output) => skipped(&String::from_utf8_lossy(&output.stderr)),
            Err(error) => skipped(&error.to_string()),
        }
    }

    fn read_only(&self) {
        let status = Command::new("mount").args(["-o", "remount,ro"]).arg(&self.0).status().expect("it runs");
        assert!(status.success());
    }
}

fn skipped<T>(why: &str) -> Option<T> {
    eprintln!("skipped: no file system can be mounted here: {}", why.trim());
    None
}

/// A file system in a file, which the system turns read-only under its users when it finds an error: as it does with a failing SD card.
struct Card {
    image: PathBuf,
    mount: Option<Mount>,
}

impl Card {
    fn new(world: &World) -> Option<Card> {
        let image = world.path("card.img");
        std::fs::File::create(&image).and_then(|file| file.set_len(128 << 20)).expect("an image");
        match Command::new("mkfs.ext4").arg("-q").arg(&image).output() {
            Ok(output) if output.status.success() => {}
            Ok(output) => return skipped(&String::from_utf8_lossy(&output.stderr)),
            Err(error) => return skipped(&error.to_string()),
        }
        let mut card = Card { image, mount: None };
        card.insert(&world.path("card")).then_some(card)
    }

    /// Mounts it; whether that can be done here.
    fn insert(&mut self, at: &Path) -> bool {
        std::fs::create_dir_all(at).expect("a directory");
        let output = Command::new("mount").args(["-o", "loop,errors=remount-ro"]).arg(&self.image).arg(at).output().expect("mount runs");
        self.mount = output.status.success().then(|| Mount(at.to_owned()));
        self.mount.is_some() || skipped::<()>(&String::from_utf8_lossy(&output.stderr)).is_some()
    }

    /// The system finds an error on it; whether it can be made to.
    fn fail(&self) -> bool {
        let mounts = std::fs::read_to_string("/proc/mounts").expect("mounts");
        let here = shown(&self.mount.as_ref().expect("it is mounted").0);
        let device = mounts.lines().find_map(|line| line.strip_prefix("/dev/")?.split_once(&format!(" {here} "))).expect("it is mounted").0;
        let told = std::fs::write(format!("/sys/fs/ext4/{device}/trigger_fs_error"), "1");
        told.is_ok() || skipped::<()>(&format!("{told:?}")).is_some()
    }

    fn remove(&mut self) {
        let mount = self.mount.take().expect("it is mounted");
        let status = Command::new("umount").arg(&mount.0).status().expect("it runs");
        assert!(status.success(), "somebody still uses it");
        std::mem::forget(mount);
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

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
    node.refused(&["set", "kept", "2"]).says(1, &["[full]", "hint: "]);
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
    full_then_emptied(&world, mount.0.join("data"), &[], 100_000, 2_000);
}

#[test]
fn the_limit_of_the_configuration() {
    let world = World::new();
    // On a memory disk where there can be one: this writes much.
    let mount = Mount::new(world.path("disk"), "1g");
    let data = mount.as_ref().map_or_else(|| world.path("data"), |mount| mount.0.join("data"));
    full_then_emptied(&world, data, &["--set", "disk_max_bytes=256MiB"], 500_000, 1_000);
}

#[test]
fn a_read_only_disk() {
    let world = World::new();
    let Some(mount) = Mount::new(world.path("disk"), "64m") else { return };
    let mut node = world.node_at("A", mount.0.join("data"), &[]);
    node.told(&["init", "--name", "A"]);
    node.up();
    node.set("kept", "1");
    node.terminate();
    mount.read_only();
    node.try_up().expect_err("it cannot start").says(1, &[&shown(&mount.0), "ead-only"]);
    world.node_at("B", mount.0.join("other"), &[]).refused(&["init"]).says(1, &["ead-only"]);
    let status = Command::new("mount").args(["-o", "remount,rw"]).arg(&mount.0).status().expect("it runs");
    assert!(status.success());
    node.up();
    assert_eq!(node.get("kept"), 1);
}

#[test]
fn a_disk_that_turns_read_only_under_a_node() {
    let world = World::new();
    let Some(mut card) = Card::new(&world) else { return };
    let b = world.found("B");
    b.told(&["section", "add", "demo"]);
    let mut a = world.node_at("A", world.path("card").join("data"), &[]);
    let ticket = b.ticket("member");
    a.told(&["join", &ticket, "--name", "A"]);
    a.up();
    a.set("demo/kept", "1");
    b.shows("demo/kept", 1);
    if !card.fail() {
        return;
    }

    // What was taken in before the disk failed is not acknowledged, however long its writer waits; then writes are refused.
    let taken = block(async {
        let client = a.connect().await;
        tokio::time::timeout(Duration::from_secs(2), write(&client, "demo/kept", &json!(2), None)).await
    });
    assert!(!matches!(taken, Ok(Ok(()))), "it cannot be on the disk");
    a.refused(&["set", "demo/kept", "2"]).says(1, &["[read-only]"]);
    a.refused(&["topic", "add", "demo/new", "--type", "json"]).says(1, &["[read-only]"]);
    assert!(a.json(&["status"])["warnings"].to_string().contains("writes are refused"), "{}", a.json(&["status"]));
    let doctor = a.run(&["--json", "doctor"]);
    assert!(String::from_utf8_lossy(&doctor.stdout).contains("writes are refused"));
    // Reads go on, and so does the mesh, in memory.
    b.set("demo/from-b", "3");
    a.shows("demo/from-b", 3);
    let before = a.get("demo/kept");
    assert!(before == 1 || before == 2, "{before}");

    // The card is mended, and nothing acknowledged is lost.
    a.kill();
    card.remove();
    assert!(card.insert(&world.path("card")));
    a.up();
    a.shows("demo/from-b", 3);
    a.set("demo/kept", "4");
    b.shows("demo/kept", 4);
    a.terminate();
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
