//! What is written plainly after a source has gone is newer than all that the source wrote, on every node, also on one that comes later.

use serde_json::json;

use crate::claims::{QUICK, active, claim, same_sources, write_as};
use crate::support::{Node, World, block, equal, until};

/// Writes plainly as soon as the node has heard that it may.
fn write_plainly(node: &Node, path: &str, value: &str) {
    until("a plain write is taken", || node.run(&["set", path, value]).status.success());
}

#[test]
fn also_on_a_node_that_joins_afterwards() {
    let world = World::new();
    let a = world.found_with("A", QUICK);
    let mut b = world.join_with("B", &a, "member", QUICK);
    a.told(&["section", "add", "plant"]);
    a.set("plant/one", "\"before\"");
    b.shows("plant/one", "before");
    block(async {
        let client = a.connect().await;
        let mut source = claim(&client, "plant").await;
        active(&mut source).await;
        for number in 0..200 {
            write_as(&source, "plant/one", &json!(number)).await;
            write_as(&source, "plant/two", &json!(number)).await;
        }
        source.close().await.expect("it is closed");
        client.close_session().await.expect("it is ended");
        client.close().await;
    });
    b.shows("plant/two", 199);
    write_plainly(&b, "plant/one", "\"after\"");
    a.shows("plant/one", "after");

    // One that has neither seen the source nor, so far, any of its writes.
    let c = world.join_with("C", &a, "member", QUICK);
    c.shows("plant/one", "after");
    write_plainly(&c, "plant/two", "\"by C\"");
    for node in [&a, &b] {
        node.shows("plant/two", "by C");
    }
    equal(&[&a, &b, &c]);

    // The release outlives a restart.
    b.kill();
    b.up();
    b.linked("A");
    write_plainly(&b, "plant/two", "\"by B\"");
    for node in [&a, &c] {
        node.shows("plant/two", "by B");
    }
    let rows = same_sources(&[&a, &b, &c]);
    assert_eq!((&rows[0]["holder"], &rows[0]["waiting"]), (&json!(null), &json!(0)), "{rows}");
    equal(&[&a, &b, &c]);
}
