//! What a node has acknowledged is there after `kill -9`, at the durability it was acknowledged at; and no number is ever given twice.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use mangrove::client::{Client, ClientError, Heard};
use mangrove::protocol::{Event, Page, ValueRow};
use mangrove_crdt::definition::Durability;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;
use tokio::sync::watch;

use crate::support::{Node, World, block, equal, until, value_of, write};

const WRITERS: usize = 3;
const TOPICS: u64 = 8;

async fn all_values(node: &Node) -> Vec<ValueRow> {
    let client = node.connect().await;
    let (rows, next) = client.values("*.*", Page { after: None, limit: 1_000 }).await.expect("values");
    assert!(next.is_none());
    client.close().await;
    rows
}

/// Writes to topics in turn until the node is gone; gives back what was acknowledged.
async fn write_until_killed(client: Client, writer: usize, from: u64, mut killed: watch::Receiver<bool>) -> (u64, Vec<(String, u64)>) {
    let mut acknowledged = Vec::new();
    for n in from.. {
        let path = format!("log/{writer}/{}", n % TOPICS);
        let value = json!(n);
        tokio::select! {
            // What has arrived before the end was noticed counts.
            biased;
            written = write(&client, &path, &value, Some(Durability::Disk)) => match written {
                Ok(()) => acknowledged.push((path, n)),
                Err(ClientError::Lost { .. }) => return (n, acknowledged),
                Err(other) => panic!("{other}"),
            },
            _ = killed.wait_for(|killed| *killed) => return (n, acknowledged),
        }
    }
    unreachable!("numbers do not end")
}

/// What a stamp was given to.
type Stamps = BTreeMap<String, (String, u64)>;

fn note(stamps: &mut Stamps, stamp: String, path: &str, n: u64) {
    let known = stamps.entry(stamp.clone()).or_insert_with(|| (path.to_owned(), n));
    assert_eq!((known.0.as_str(), known.1), (path, n), "stamp {stamp} was given twice");
}

/// Hears every change that a node shows, until told to stop; each topic's number must only rise.
async fn hear(client: Client, mut stop: watch::Receiver<bool>) -> Stamps {
    let mut heard = client.subscribe_with_stamps("?log//").await.expect("a subscription");
    let (mut stamps, mut last) = (Stamps::new(), BTreeMap::new());
    loop {
        let next = tokio::select! {
            next = heard.next() => next.expect("the other node lives"),
            _ = stop.wait_for(|stop| *stop) => return stamps,
        };
        if let Heard::Topic { path, event: Event::Value { value, stamp, .. } } = next {
            let n = value_of(&value).as_u64().expect("a number");
            note(&mut stamps, stamp.expect("it was asked for"), &path, n);
            let before = last.insert(path.clone(), n);
            assert!(before.is_none_or(|before| before <= n), "{path} went from {before:?} back to {n}");
        }
    }
}

fn kill_after_kill(rounds: u64, seed: u64) {
    eprintln!("the kills' seed is {seed}");
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let world = World::new();
    let b = world.found("B");
    b.told(&["section", "add", "log"]);
    let mut a = world.join("A", &b);
    b.linked("A");
    let (stop, hear_stop) = watch::channel(false);
    let listener = block(b.connect());
    let hearing = std::thread::spawn(|| block(hear(listener, hear_stop)));
    let mut acknowledged: BTreeSet<(String, u64)> = BTreeSet::new();
    let mut stamps = Stamps::new();
    let mut next = [0; WRITERS];
    let mut total = 0;
    for round in 0..rounds {
        assert_eq!(u64::from(a.status().boot), round + 1, "the boot counter rises by one with each start");
        let ends = block(async {
            let (killed, hear) = watch::channel(false);
            let mut writers = Vec::new();
            for (writer, from) in next.iter().enumerate() {
                writers.push(tokio::spawn(write_until_killed(a.connect().await, writer, *from, hear.clone())));
            }
            tokio::time::sleep(Duration::from_micros(50_000 + random.next_u64() % 600_000)).await;
            a.kill();
            killed.send_replace(true);
            let mut ends = Vec::new();
            for writer in writers {
                ends.push(writer.await.expect("a writer ends well"));
            }
            ends
        });
        for (writer, (at, written)) in ends.into_iter().enumerate() {
            total += at - next[writer];
            next[writer] = at + 1;
            acknowledged.extend(written);
        }
        a.up();
        let rows = block(all_values(&a));
        let found: BTreeMap<&str, u64> = rows
            .iter()
            .map(|row| (row.path.as_str(), value_of(row.value.as_ref().expect("a value")).as_u64().expect("a number")))
            .collect();
        for (path, n) in &acknowledged {
            let there = found.get(path.as_str());
            assert!(there.is_some_and(|there| there >= n), "round {round}: {path} had {n} acknowledged, and is {there:?} after the crash");
        }
        for row in &rows {
            note(&mut stamps, row.stamp.clone().expect("a stamp"), &row.path, found[row.path.as_str()]);
        }
    }
    assert!(total > 10 * rounds, "only {total} writes were made: too few to have met a crash");

    // The other node was told the same all along: no number meant one thing here and another there.
    equal(&[&a, &b]);
    stop.send_replace(true);
    for (stamp, (path, n)) in hearing.join().expect("it hears to the end") {
        note(&mut stamps, stamp, &path, n);
    }
    eprintln!("{total} writes, {} of them seen, {rounds} kills", stamps.len());
    until("both were proved equal", || [&a, &b].iter().all(|node| node.links().iter().any(|row| row.equal_ms_ago.is_some())));
    for node in [&a, &b] {
        assert!(node.links().iter().all(|row| row.mismatches == 0), "{}: {:?}", node.name, node.links());
        // What a crash took before it was on the disk, and the other node had already, is concurrent with what was written next.
        for row in node.json(&["displaced", "ls"]).as_array().expect("a list") {
            let shown = node.json(&["displaced", "show", row["id"].as_str().expect("an id")]);
            let lost = (row["path"].as_str().expect("a path").to_owned(), shown["value"].as_u64().expect("a number"));
            assert!(!acknowledged.contains(&lost), "{lost:?} was acknowledged, so whoever wrote next had seen it");
        }
    }
    world.logged_no_error();
}

#[test]
fn kill_after_kill_under_load() {
    kill_after_kill(10, 4);
}

#[test]
#[ignore = "takes minutes"]
fn a_hundred_kills_under_load() {
    let seed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock").as_secs();
    kill_after_kill(100, seed);
}

#[test]
fn mesh_1_means_on_another_disk() {
    let world = World::new();
    let mut a = world.found("A");
    a.told(&["section", "add", "safe", "--durability", "mesh(1)"]);
    block(async {
        let client = a.connect().await;
        let value = json!(1);
        let alone = write(&client, "safe/early", &value, None);
        assert!(tokio::time::timeout(Duration::from_secs(2), alone).await.is_err(), "a lone node must not acknowledge");
        // Less was asked for here, and is given.
        write(&client, "safe/weak", &json!(1), Some(Durability::Disk)).await.expect("the own disk is enough");
    });
    let pending = std::thread::spawn({
        let mut command = a.command(&["set", "safe/pending", "2", "--type", "json"]);
        move || command.output()
    });
    let mut b = world.join("B", &a);
    let output = pending.join().expect("it ends").expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    a.set("safe/late", "3");
    // Both are killed at once, and A's disk is lost: what was acknowledged is on B's.
    a.kill();
    b.kill();
    std::fs::remove_dir_all(&a.data).expect("A's directory");
    b.up();
    until("B shows its data", || b.get("safe/late") != json!(null));
    assert_eq!((b.get("safe/late"), b.get("safe/pending"), b.get("safe/early")), (3.into(), 2.into(), 1.into()));
}
