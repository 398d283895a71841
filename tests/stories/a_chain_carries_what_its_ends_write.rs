//! A and C share no link, only B between them: what A writes, C shows, and B's death loses nothing.

use serde_json::json;

use crate::support::{World, equal, fixed_port, until};

#[test]
fn and_forgets_nothing_when_its_middle_dies() {
    let world = World::new();
    let listen = format!("127.0.0.1:{}", fixed_port());
    let mut b = world.found_with("B", &["--listen", &listen]);
    // The ends cannot be dialled, so they never share a link.
    let a = world.join_with("A", &b, "member", &["--set", "dial_only=true"]);
    let c = world.join_with("C", &b, "member", &["--set", "dial_only=true"]);
    a.linked("B");
    c.linked("B");
    a.told(&["section", "add", "demo"]);
    a.set("demo/from-a", "1");
    c.shows("demo/from-a", 1);
    c.set("demo/from-c", "2");
    a.shows("demo/from-c", 2);
    assert!(!a.is_linked_to("C") && !c.is_linked_to("A"));

    b.kill();
    let branch = |name: &'static str, count: u32| (0..count).map(move |n| (format!("demo/{name}/{n}"), json!({ "n": n })));
    a.publish(branch("a", 300));
    c.publish(branch("c", 300));
    a.told(&["topic", "rm", "demo/from-c"]);
    c.set("demo/from-a", "3");
    until("A and C notice that B is gone", || !a.is_linked_to("B") && !c.is_linked_to("B"));
    assert!(a.status().unspread_changes >= 300, "what no other node has is told");

    b.up();
    equal(&[&a, &b, &c]);
    assert_eq!(c.paths().len(), 601, "{:?}", c.paths());
    assert_eq!(b.get("demo/a/299"), json!({ "n": 299 }));
    assert_eq!(a.get("demo/c/299"), json!({ "n": 299 }));
    assert_eq!(a.get("demo/from-a"), json!(3));
    until("everything is at another node too", || [&a, &b, &c].iter().all(|node| node.status().unspread_changes == 0));
}
