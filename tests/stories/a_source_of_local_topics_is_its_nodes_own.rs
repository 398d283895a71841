//! A source of topics that are in no section concerns its node alone. Programs that have a node inside are bound by sources like everyone else.

use std::path::Path;

use mangrove::config::Config;
use mangrove::embed;
use mangrove::protocol::{Code, SourceState, TopicSpec};
use serde_json::json;

use crate::claims::{QUICK, active, claim, refused_as, write_as};
use crate::support::{World, block, bytes_of, eventually};

#[test]
fn other_nodes_neither_see_it_nor_mind_it() {
    let world = World::new();
    let a = world.found_with("A", QUICK);
    let b = world.join_with("B", &a, "member", QUICK);
    let (of_a, of_b) = block(async { (a.connect().await, b.connect().await) });
    let mut on_a = block(claim(&of_a, "lab"));
    block(active(&mut on_a));
    assert_eq!(b.json(&["source", "ls"]), json!([]));
    b.refused(&["source", "show", "lab"]).says(1, &["[unknown-source]"]);
    b.set("lab/x", "\"plainly\"");

    let mut on_b = block(claim(&of_b, "lab"));
    block(async {
        active(&mut on_b).await;
        write_as(&on_a, "lab/x", &json!("by A")).await;
        write_as(&on_b, "lab/x", &json!("by B")).await;
    });
    assert!(matches!(on_a.state(), SourceState::Active { .. }), "{on_a:?}");
    for (node, value) in [(&a, "by A"), (&b, "by B")] {
        node.refused(&["set", "lab/x", "0"]).says(1, &["[exclusive]"]);
        assert_eq!(node.get("lab/x"), value);
        let rows = node.json(&["source", "ls"]);
        let row = &rows[0];
        assert_eq!((&row["section"], &row["holder"]["node"], &row["waiting"]), (&json!(null), &json!(node.name), &json!(0)), "{rows}");
        assert_eq!(rows.as_array().map(Vec::len), Some(1), "{rows}");
    }
}

#[test]
fn a_program_s_own_writes_are_refused_where_somebody_has_a_claim() {
    let world = World::new();
    let a = world.found_with("A", QUICK);
    a.told(&["section", "add", "plant"]);
    let ticket = a.ticket("member");
    let settings = [("listen".to_owned(), "127.0.0.1:0".to_owned())];
    let config = Config::from_parts(Path::new(""), "", [], &settings).expect("a configuration");
    block(async {
        let inside = embed::Node::join(&world.path("inside"), &config, "inside", &ticket).await.expect("it joins");
        let (publisher, other) = (inside.client().await.expect("a client"), inside.client().await.expect("a client"));
        let write = |path: &'static str| publisher.set(path, bytes_of(&json!(1)), Some(TopicSpec::of("json")));
        // Of a client of the same node.
        let mut lab = claim(&other, "lab").await;
        active(&mut lab).await;
        refused_as(write("lab/x").await, Code::Exclusive);
        lab.close().await.expect("it is closed");
        write("lab/x").await.expect("the branch is free again");

        // Of a client of another node.
        let of_a = a.connect().await;
        let mut plant = claim(&of_a, "plant").await;
        active(&mut plant).await;
        let heard = || tokio::task::block_in_place(|| block(publisher.source_show("plant")));
        eventually("the program's node has heard of the claim", || heard().map_err(|error| error.to_string()));
        refused_as(write("plant/x").await, Code::Exclusive);
        inside.close().await.expect("it stores all");
    });
}
