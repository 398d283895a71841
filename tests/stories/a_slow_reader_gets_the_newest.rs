//! A reader slower than the writer: memory stays bounded, the newest values arrive, hot topics do not starve quiet ones, and it is never
//! disconnected for being slow.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use mangrove::client::Heard;
use mangrove::protocol::{Event, TopicSpec};
use mangrove_crdt::definition::Durability;
use serde_json::{Value, json};

use crate::support::{World, block, bytes_of, value_of, write};

const HOT: usize = 300;
const HOT_BYTES: usize = 4_000;
const WRITTEN_BYTES: usize = 320 << 20;
/// What the reader's node may grow by: far less than what is written, more than the newest value of each topic, one window and
/// what the store keeps in memory.
const GROWN_BYTES_MAX: u64 = 128 << 20;
const WINDOW: u32 = 512;
/// How soon a quiet topic's value is heard by a reader who takes a window and all hot topics in a second, on a machine busy with other things.
const QUIET_WITHIN: Duration = Duration::from_secs(10);

#[test]
fn and_a_node_whose_reader_sleeps_does_not_grow() {
    let world = World::new();
    let a = world.found("A");
    let b = world.join("B", &a);
    a.told(&["section", "add", "feed", "--durability", "memory"]);
    let filler = "x".repeat(HOT_BYTES);
    let hot = |n: usize, round: u64| (format!("feed/hot/{n}"), json!({ "round": round, "filler": filler }));
    a.publish((0..HOT).map(|n| hot(n, 0)));
    a.set("feed/quiet", "0");
    b.shows(&format!("feed/hot/{}", HOT - 1), json!({ "round": 0, "filler": filler }));
    b.shows("feed/quiet", 0);

    block(async {
        // What is in the window cannot be overtaken any more, so a slow reader that wants news soon asks for a small one.
        let reader = b.connect_with(|options| options.subscription_window = WINDOW).await;
        let mut heard = reader.subscribe("?feed//").await.expect("a subscription");
        let before = reader.status().await.expect("a status").memory_bytes;

        let writer = a.connect().await;
        let quiet_writer = a.connect().await;
        let writing = async {
            let mut publisher = writer.publisher(Some(TopicSpec::of("json"))).durability(Some(Durability::Memory));
            let mut round = 0;
            while (round as usize) * HOT * HOT_BYTES < WRITTEN_BYTES {
                round += 1;
                for n in 0..HOT {
                    let (path, value) = hot(n, round);
                    publisher.set(&path, bytes_of(&value)).await.expect("it is taken");
                }
                // The other tasks of this thread have their turn.
                tokio::task::yield_now().await;
            }
            publisher.finish().await.expect("it is written");
            round
        };
        // Asleep at first; then about a thousand values a second.
        let begun = Instant::now();
        let reading = async {
            tokio::time::sleep(Duration::from_secs(3)).await;
            let mut values: BTreeMap<String, Value> = BTreeMap::new();
            let mut most = 0;
            let mut quiet_heard = Vec::new();
            let mut taken = 0u64;
            loop {
                let next = tokio::time::timeout(Duration::from_secs(3), heard.next()).await;
                let Ok(next) = next else { break };
                if let Heard::Topic { path, event: Event::Value { value, .. } } = next.expect("a slow reader is never disconnected") {
                    let value = value_of(&value);
                    if &*path == "feed/quiet" {
                        quiet_heard.push((value.as_u64().expect("a number"), Instant::now()));
                    }
                    values.insert(path.to_string(), value);
                }
                taken += 1;
                if taken.is_multiple_of(32) {
                    tokio::time::sleep(Duration::from_millis(30)).await;
                }
                if taken.is_multiple_of(1_000) {
                    most = most.max(reader.status().await.expect("a status").memory_bytes);
                }
            }
            (values, most, quiet_heard, taken)
        };
        let quiet = async {
            let mut written = Vec::new();
            for n in 1..=10 {
                tokio::time::sleep(Duration::from_millis(700)).await;
                write(&quiet_writer, "feed/quiet", &json!(n), Some(Durability::Memory)).await.expect("it is written");
                written.push((n, Instant::now()));
            }
            written
        };
        let (rounds, (values, most, quiet_heard, taken), quiet_written) = tokio::join!(writing, reading, quiet);
        let after = reader.status().await.expect("it is still connected").memory_bytes;
        let seen = format!(
            "{rounds} rounds of {HOT} values of {HOT_BYTES} bytes, {taken} taken in {:?}; memory {before}, at most {most}, {after} in the end; quiet {quiet_heard:?}",
            begun.elapsed()
        );
        eprintln!("{seen}");
        assert!(taken < rounds * HOT as u64, "the reader was not slower than the writer: {seen}");
        for n in 0..HOT {
            assert_eq!(values[&format!("feed/hot/{n}")]["round"], rounds, "not the newest: {seen}");
        }
        assert_eq!(values["feed/quiet"], 10, "{seen}");
        let grown = most.max(after).saturating_sub(before);
        assert!(grown < GROWN_BYTES_MAX, "grown by {grown} bytes: {seen}");
        for (n, at) in quiet_written {
            let heard = quiet_heard.iter().find(|(heard, _)| *heard >= n).expect("a later value counts too").1;
            let awake = begun + Duration::from_secs(3);
            let took = heard.saturating_duration_since(at.max(awake));
            assert!(took < QUIET_WITHIN, "the quiet topic's value {n} took {took:?}: {seen}");
        }
    });
}
