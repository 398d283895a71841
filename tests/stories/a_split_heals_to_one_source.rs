//! Each side of a split has its own source of a branch, and both write. When the sides meet again, one of them stands on both; what the other has written over is
//! in the displaced log, and can be restored.

use mangrove::client::Source;
use mangrove::protocol::{Code, SourceState};
use serde_json::{Value, json};

use crate::claims::{QUICK, active, claim, refused_as, same_sources, write_as};
use crate::support::{Node, World, block, equal, eventually, heal, split, until};

fn is_active(source: &Source) -> bool {
    matches!(source.state(), SourceState::Active { .. })
}

/// The displaced value, with its node and id.
fn displaced<'a>(nodes: &[&'a Node], value: &Value) -> (&'a Node, String) {
    let ids = |node: &Node| -> Vec<String> {
        let rows = node.json(&["displaced", "ls"]);
        rows.as_array().expect("a list").iter().map(|row| row["id"].as_str().expect("an id").to_owned()).collect()
    };
    let shows = |node: &Node, id: &String| node.json(&["displaced", "show", id])["value"] == *value;
    eventually("what lost is kept somewhere", || {
        let found = nodes.iter().find_map(|node| Some((*node, ids(node).into_iter().find(|id| shows(node, id))?)));
        found.ok_or_else(|| "it is displaced nowhere".into())
    })
}

#[test]
fn and_what_lost_can_be_restored() {
    let world = World::new();
    let a = world.found_with("A", QUICK);
    let b = world.join_with("B", &a, "member", QUICK);
    a.told(&["section", "add", "plant", "--arbitration", "available"]);
    a.set("plant/rpm", "0");
    b.shows("plant/rpm", 0);
    split(&a, &b);

    let (of_a, of_b) = block(async { (a.connect().await, b.connect().await) });
    let mut sources = block(async { [claim(&of_a, "plant").await, claim(&of_b, "plant").await] });
    for (source, node) in sources.iter_mut().zip(["A", "B"]) {
        block(async {
            active(source).await;
            write_as(source, "plant/rpm", &json!(format!("by {node}"))).await;
            write_as(source, &format!("plant/of {node}"), &json!(node)).await;
        });
    }
    assert_eq!((a.get("plant/rpm"), b.get("plant/rpm")), (json!("by A"), json!("by B")));

    heal(&a, &b);
    equal(&[&a, &b]);
    until("one of both stands", || sources.iter().filter(|source| is_active(source)).count() == 1);
    let rows = same_sources(&[&a, &b]);
    let winner = rows[0]["holder"]["node"].as_str().expect("a holder").to_owned();
    let loser = if winner == "A" { "B" } else { "A" };
    let [of_winner, of_loser] = if winner == "A" { [0, 1] } else { [1, 0] };
    assert!(is_active(&sources[of_winner]), "{:?}", sources);
    let told = sources[of_loser].state();
    assert!(matches!(&told, SourceState::Standby { holder: Some(holder), .. } if holder.ends_with(&winner)), "{told}");
    block(async { refused_as(sources[of_loser].set("plant/rpm", vec![0], None).await, Code::Fenced) });

    for node in [&a, &b] {
        node.shows("plant/rpm", format!("by {winner}"));
        // Where nobody else has written, nothing is lost.
        node.shows("plant/of A", "A");
        node.shows("plant/of B", "B");
    }
    let (node, id) = displaced(&[&a, &b], &json!(format!("by {loser}")));
    node.refused(&["displaced", "restore", &id]).says(1, &["[exclusive]"]);
    block(async {
        for source in sources {
            source.close().await.expect("it is closed");
        }
    });
    until("it can be restored", || node.run(&["displaced", "restore", &id]).status.success());
    for node in [&a, &b] {
        node.shows("plant/rpm", format!("by {loser}"));
    }
    equal(&[&a, &b]);
}
