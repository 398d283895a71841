//! What a node has acknowledged is there after `kill -9`, at the durability it was acknowledged at; and no number is ever given twice.

use std::collections::BTreeMap;
use std::time::Duration;

use mangrove::client::{Client, ClientError};
use mangrove::protocol::{Page, ValueRow};
use mangrove_crdt::definition::Durability;
use serde_json::json;
use tokio::sync::watch;

use crate::support::{Node, World, block, until, value_of, write};

const WRITERS: usize = 3;
const TOPICS: u64 = 8;

async fn all_values(node: &Node) -> Vec<ValueRow> {
    let client = node.connect().await;
    let (rows, next) = client.values("*.*", Page { after: None, limit: 1_000 }).await.expect("values");
    assert!(next.is_none());
    client.close().await;
    rows
}

/// Writes to topics in turn until the node is gone; gives back what was acknowledged last for each.
async fn write_until_killed(client: Client, writer: usize, from: u64, mut killed: watch::Receiver<bool>) -> (u64, BTreeMap<String, u64>) {
    let mut acknowledged = BTreeMap::new();
    for n in from.. {
        let path = format!("log/{writer}/{}", n % TOPICS);
        let value = json!(n);
        tokio::select! {
            // What has arrived before the end was noticed counts.
            biased;
            written = write(&client, &path, &value, Some(Durability::Disk)) => match written {
                Ok(()) => drop(acknowledged.insert(path, n)),
                Err(ClientError::Lost { .. }) => return (n, acknowledged),
                Err(other) => panic!("{other}"),
            },
            _ = killed.wait_for(|killed| *killed) => return (n, acknowledged),
        }
    }
    unreachable!("numbers do not end")
}

#[test]
fn kill_after_kill_under_load() {
    let world = World::new();
    let mut a = world.found("A");
    a.told(&["section", "add", "log"]);
    let mut acknowledged: BTreeMap<String, u64> = BTreeMap::new();
    let mut stamps: BTreeMap<String, (String, u64)> = BTreeMap::new();
    let mut next = [0; WRITERS];
    let mut total = 0;
    for round in 0..5u64 {
        assert_eq!(u64::from(a.status().boot), round + 1, "the boot counter rises by one with each start");
        let ends = block(async {
            let (killed, hear) = watch::channel(false);
            let mut writers = Vec::new();
            for (writer, from) in next.iter().enumerate() {
                writers.push(tokio::spawn(write_until_killed(a.connect().await, writer, *from, hear.clone())));
            }
            tokio::time::sleep(Duration::from_millis(700 + 130 * round)).await;
            a.kill();
            killed.send_replace(true);
            let mut ends = Vec::new();
            for writer in writers {
                ends.push(writer.await.expect("a writer ends well"));
            }
            ends
        });
        for (writer, (at, last)) in ends.into_iter().enumerate() {
            total += at - next[writer];
            next[writer] = at + 1;
            acknowledged.extend(last);
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
            let value = value_of(row.value.as_ref().expect("a value")).as_u64().expect("a number");
            let stamp = row.stamp.clone().expect("a stamp");
            let known = stamps.insert(stamp.clone(), (row.path.clone(), value));
            assert!(known.is_none_or(|known| known == (row.path.clone(), value)), "stamp {stamp} was given twice");
        }
    }
    assert!(total > 50, "only {total} writes were made: too few to have met a crash");
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
