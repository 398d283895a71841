//! Concurrent plain writes in a split: one winner everywhere, the loser in the displaced log, restorable. Ordinary overwrites are never logged.

use mangrove_crdt::definition::Durability;
use serde_json::{Value, json};

use crate::support::{World, block, displaced, equal, heal, split, value_of, write};

#[test]
fn the_loser_of_a_split_can_be_restored() {
    let world = World::new();
    let a = world.found("A");
    let b = world.join("B", &a);
    let c = world.join("C", &a);
    a.told(&["section", "add", "demo"]);
    a.set("demo/contested", r#""before""#);
    a.set("demo/quiet", r#""untouched""#);
    for node in [&b, &c] {
        node.shows("demo/contested", "before");
        node.shows("demo/quiet", "untouched");
    }
    c.linked("A");
    split(&a, &b);
    split(&a, &c);
    a.set("demo/contested", r#""by A""#);
    b.set("demo/contested", r#""by B""#);
    // C is on B's side, and saw what B wrote: this one overtakes it, and is no conflict with it.
    c.shows("demo/contested", "by B");
    c.set("demo/contested", r#""by C""#);
    b.shows("demo/contested", "by C");
    assert_eq!(a.get("demo/contested"), "by A");

    heal(&a, &b);
    heal(&a, &c);
    equal(&[&a, &b, &c]);
    let winner = a.get("demo/contested");
    let loser = if winner == "by A" { "by C" } else { "by A" };
    assert!(winner == "by A" || winner == "by C", "{winner}");

    // Only that one was concurrent with the winner.
    let rows = displaced(&[&a, &b, &c]);
    let [row] = &rows[..] else { panic!("{rows:?}") };
    assert_eq!((row["path"].as_str(), row["by"].as_str()), (Some("demo/contested"), Some("write")), "{row}");
    let (writer, winner_writer) = if loser == "by A" { ("A", "C") } else { ("C", "A") };
    assert_eq!((row["writer"].as_str(), row["winner_writer"].as_str()), (Some(writer), Some(winner_writer)), "{row}");
    let id = row["id"].as_str().expect("an id");
    for node in [&a, &b, &c] {
        assert_eq!(node.json(&["displaced", "show", id])["value"], loser, "{}", node.name);
    }
    b.refused(&["displaced", "show", "999999"]).says(1, &["[unknown-displaced]"]);

    b.told(&["displaced", "restore", id]);
    for node in [&a, &b, &c] {
        node.shows("demo/contested", loser);
    }
    equal(&[&a, &b, &c]);
    assert_eq!(a.get("demo/quiet"), "untouched");
}

#[test]
fn overwrites_in_turn_are_not_conflicts() {
    const TURNS: u64 = 45;
    let world = World::new();
    let a = world.found("A");
    let b = world.join("B", &a);
    let c = world.join("C", &a);
    c.linked("B");
    a.told(&["section", "add", "demo", "--durability", "memory"]);
    a.set("demo/passed-on", "0");
    for node in [&b, &c] {
        node.shows("demo/passed-on", 0);
    }
    block(async {
        let clients = [a.connect().await, b.connect().await, c.connect().await];
        for turn in 1..=TURNS {
            let client = &clients[turn as usize % 3];
            let begun = std::time::Instant::now();
            loop {
                let (rows, _) = client.values("demo/passed-on", mangrove::protocol::Page { after: None, limit: 1 }).await.expect("values");
                if value_of(rows[0].value.as_ref().expect("a value")) == json!(turn - 1) {
                    break;
                }
                assert!(begun.elapsed() < crate::support::PATIENCE, "turn {turn} sees {rows:?}");
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            }
            write(client, "demo/passed-on", &json!(turn), Some(Durability::Memory)).await.expect("it is written");
        }
        for n in 0..500 {
            write(&clients[0], "demo/alone", &json!(n), Some(Durability::Memory)).await.expect("it is written");
        }
    });
    equal(&[&a, &b, &c]);
    assert_eq!(c.get("demo/passed-on"), TURNS);
    assert_eq!(c.get("demo/alone"), 499);
    for node in [&a, &b, &c] {
        assert_eq!(displaced(&[node]), Vec::<Value>::new(), "{} takes overwrites for conflicts", node.name);
        assert_eq!(node.status().displaced, 0);
    }
}
