//! A document that is written again and again, a field of it at a time, crosses as what has changed: from its writer to a node, to another node, to a reader there, who
//! goes on at a third. Everybody has all of it at every moment.

use std::time::Duration;

use mangrove::client::{Client, Heard, SessionOptions};
use mangrove::protocol::{Event, LinkRow, TopicSpec};
use serde_json::{Value, json};

use crate::support::{World, beside, block, bytes_of, until, value_of};

const PATH: &str = "s/ship";
const UPDATES: u64 = 2_000;

/// About a kilobyte.
fn document(round: u64) -> Value {
    let fields = (0..24).map(|at| (format!("field{at}"), json!(format!("{:027}", at * 7))));
    let mut document: serde_json::Map<String, Value> = fields.collect();
    document.insert("heading".into(), json!(round));
    Value::Object(document)
}

async fn link(from: &Client, to: &str) -> LinkRow {
    let rows = from.links().await.expect("an answer");
    rows.into_iter().find(|row| row.name == to).expect("linked")
}

#[test]
fn and_everybody_has_all_of_it() {
    let world = World::new();
    let a = world.found("A");
    let mut b = world.join("B", &a);
    let c = world.join("C", &a);
    a.told(&["section", "add", "s", "--durability", "memory"]);
    block(async {
        let observer = a.connect().await;
        let writer = a.connect_with(|options| options.session = Some(SessionOptions::default())).await;
        writer.set(PATH, bytes_of(&document(0)), Some(TopicSpec::of("json"))).await.expect("it is written");
        let length = bytes_of(&document(0)).len() as u64;
        let nodes = vec![c.address().to_owned()];
        let reader = b.connect_with(|options| options.session = Some(SessionOptions { nodes, ..SessionOptions::default() })).await;
        let mut heard = reader.subscribe(PATH).await.expect("a subscription");
        let before = link(&observer, "B").await;
        let writing = beside(async move {
            let mut publisher = writer.publisher(None);
            for round in 1..=UPDATES {
                publisher.set(PATH, bytes_of(&document(round))).await.expect("it is taken");
                publisher.send().await.expect("it is sent");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let report = publisher.finish().await.expect("it is written");
            assert_eq!((report.written, report.refused), (UPDATES, 0));
        });
        let (mut last, mut values) = (None, 0);
        while last != Some(UPDATES) {
            let next = tokio::time::timeout(Duration::from_secs(60), heard.next()).await.expect("it comes");
            let Heard::Topic { event: Event::Value { value, .. }, .. } = next.expect("it goes on") else { continue };
            let value = value_of(&value);
            let round = value["heading"].as_u64().expect("a number");
            assert_eq!(value, document(round));
            assert!(last < Some(round));
            (last, values) = (Some(round), values + 1);
            if values == 100 {
                let after = link(&observer, "B").await;
                assert!(after.deltas > before.deltas && after.saved_bytes > before.saved_bytes + values * length / 2, "{after:?}");
                // Its node is gone in the middle of it all.
                b.kill();
            }
        }
        writing.await.expect("it ends");
        until("all have the last", || [&a, &c].iter().all(|node| node.get(PATH) == document(UPDATES)));
        // With nobody else about, what is written goes over the link as often as it can, and each time in a few bytes.
        let before = link(&observer, "C").await;
        let writer = a.connect().await;
        for round in UPDATES + 1..=UPDATES + 200 {
            writer.set(PATH, bytes_of(&document(round)), None).await.expect("it is written");
        }
        until("it is there", || c.get(PATH) == document(UPDATES + 200));
        let after = link(&observer, "C").await;
        let (records, bytes) = (after.sent_records - before.sent_records, after.sent_bytes - before.sent_bytes);
        assert!(records > 0 && after.deltas > before.deltas);
        println!("{records} records of {length} bytes in {bytes} bytes, of QUIC and all else between the nodes");
        assert!(bytes / records < length / 4, "{bytes} bytes for {records} records");
    });
}
