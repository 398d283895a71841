//! Sections are declared over what is there, nested, removed, dropped and held again while everything runs.

use serde_json::Value;

use crate::support::{Node, World, equal, eventually, until};

fn section_of(node: &Node, path: &str) -> Value {
    node.json(&["topic", "show", path])["section"].clone()
}

#[test]
fn and_their_topics_follow() {
    let world = World::new();
    let a = world.found("A");
    let b = world.join("B", &a);
    a.linked("B");
    // Local at first: neither knows of the other's.
    a.set("demo/of-a", "1");
    b.set("demo/of-b", "2");
    a.set("demo/inner/x", "3");
    a.set("other/of-a", "4");
    assert_eq!(section_of(&a, "demo/of-a"), Value::Null);
    assert_eq!(b.paths(), ["demo/of-b"]);

    a.told(&["section", "add", "demo"]);
    a.refused(&["section", "add", "demo"]).says(1, &["[section-exists]"]);
    for node in [&a, &b] {
        node.shows("demo/of-a", 1);
        node.shows("demo/of-b", 2);
        node.shows("demo/inner/x", 3);
        assert_eq!(section_of(node, "demo/of-b"), "demo");
    }
    assert!(!b.paths().contains(&"other/of-a".to_owned()), "what is in no section stays local");
    equal(&[&a, &b]);

    // A section within moves the topics below its root.
    b.told(&["section", "add", "demo/inner"]);
    for node in [&a, &b] {
        until("the inner section has the inner topic", || section_of(node, "demo/inner/x") == "demo/inner");
        node.shows("demo/inner/x", 3);
        assert_eq!(section_of(node, "demo/of-a"), "demo");
    }
    b.set("demo/inner/x", "5");
    a.shows("demo/inner/x", 5);
    b.told(&["section", "rm", "demo/inner"]);
    for node in [&a, &b] {
        until("the outer section has it again", || section_of(node, "demo/inner/x") != "demo/inner");
    }
    a.shows("demo/inner/x", 5);
    b.shows("demo/inner/x", 5);
    equal(&[&a, &b]);

    // Dropped and held again.
    eventually("B's changes are known to be at A, and it drops the section", || {
        let output = b.run(&["section", "drop", "demo"]);
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    });
    b.refused(&["get", "demo/of-a"]).says(1, &["[not-held]", "(A)"]);
    assert!(b.paths().is_empty(), "{:?}", b.paths());
    eventually("A is the last holder, as it knows", || {
        let output = a.run(&["section", "drop", "demo"]);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.code() == Some(1) && error.contains("[last-holder]") {
            Ok(())
        } else {
            Err(format!("{:?} {error}", output.status))
        }
    });
    a.set("demo/of-a", "6");
    b.told(&["section", "hold", "demo"]);
    b.shows("demo/of-a", 6);
    b.shows("demo/of-b", 2);
    equal(&[&a, &b]);

    // No section any more: both keep what they have, and go their own ways.
    a.told(&["section", "rm", "demo"]);
    until("B hears of it", || b.json(&["section", "ls"]).as_array().is_some_and(Vec::is_empty));
    for node in [&a, &b] {
        assert_eq!(section_of(node, "demo/of-a"), Value::Null);
        assert_eq!(node.get("demo/of-a"), 6);
        assert_eq!(node.get("demo/of-b"), 2);
    }
    a.set("demo/of-a", "7");
    a.told(&["section", "add", "elsewhere"]);
    a.set("elsewhere/marker", "1");
    b.shows("elsewhere/marker", 1);
    assert_eq!(b.get("demo/of-a"), 6, "a local write stays where it was made");

    // The last holder drops a section only by force.
    let lone = world.found("lone");
    lone.told(&["section", "add", "only-here"]);
    lone.set("only-here/x", "1");
    lone.refused(&["section", "drop", "only-here"]).says(1, &["[last-holder]", "--force"]);
    assert_eq!(lone.get("only-here/x"), 1);
    lone.told(&["section", "drop", "only-here", "--force"]);
    assert!(lone.paths().is_empty());
}
