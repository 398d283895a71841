//! Each side of a split has its own source of a branch, and both write. When the sides meet again, one of them stands on both; what the other has written over is
//! in the displaced log, and can be restored.

use mangrove::client::Source;
use mangrove::protocol::{Code, SourceState};
use serde_json::json;

use crate::claims::{QUICK, active, claim, refused_as, same_sources, write_as};
use crate::support::{World, block, displaced, equal, heal, split, until};

fn is_active(source: &Source) -> bool {
    matches!(source.state(), SourceState::Active { .. })
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
    let rows = displaced(&[&a, &b]);
    let [row] = &rows[..] else { panic!("{rows:?}") };
    let id = row["id"].as_str().expect("an id").to_owned();
    assert_eq!((row["writer"].as_str(), row["winner_writer"].as_str()), (Some(loser), Some(winner.as_str())), "{row}");
    assert!(row["epoch"].as_u64() > Some(0) && row["winner_epoch"].as_u64() >= row["epoch"].as_u64(), "{row}");
    // A node that comes later, and has never heard of it, has it too, and can restore it.
    let node = world.join_with("C", &a, "member", QUICK);
    equal(&[&a, &b, &node]);
    assert_eq!(displaced(&[&a, &b, &node]), rows);
    assert_eq!(node.json(&["displaced", "show", &id])["value"], json!(format!("by {loser}")));
    node.refused(&["displaced", "restore", &id]).says(1, &["[exclusive]"]);
    block(async {
        for source in sources {
            source.close().await.expect("it is closed");
        }
    });
    until("it can be restored", || node.run(&["displaced", "restore", &id]).status.success());
    for node in [&a, &b, &node] {
        node.shows("plant/rpm", format!("by {loser}"));
    }
    equal(&[&a, &b, &node]);
}
