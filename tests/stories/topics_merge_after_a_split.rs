//! Topics made, removed and made again on both sides of a split become one tree, and say what lost.

use serde_json::{Value, json};

use crate::support::{World, displaced, equal, fixed_port, heal, split};

#[test]
fn into_one_tree() {
    let world = World::new();
    let listen = format!("127.0.0.1:{}", fixed_port());
    let mut a = world.found_with("A", &["--listen", &listen]);
    let mut b = world.join("B", &a);
    a.told(&["section", "add", "t"]);
    for (path, value) in [("t/removed", "1"), ("t/removed-while-written", "1"), ("t/made-again", "1"), ("t/kept", "1")] {
        a.set(path, value);
        b.shows(path, 1);
    }
    split(&a, &b);
    // The same definition on both sides: one topic.
    a.told(&["set", "t/same", "\"of A\"", "--type", "json"]);
    b.told(&["set", "t/same", "\"of B\"", "--type", "json"]);
    // Different definitions: one stands, and the other is told of.
    a.told(&["topic", "add", "t/different", "--type", "json"]);
    b.told(&["topic", "add", "t/different", "--type", "string"]);
    a.told(&["topic", "rm", "t/removed"]);
    // A removal does not swallow what its remover had not seen.
    a.told(&["topic", "rm", "t/removed-while-written"]);
    b.set("t/removed-while-written", "\"unseen by the remover\"");
    // A topic made again is a new one: values of the old one cannot leak in.
    a.told(&["topic", "rm", "t/made-again"]);
    a.told(&["topic", "add", "t/made-again", "--type", "json"]);
    b.set("t/made-again", "\"of the old topic\"");
    heal(&a, &b);
    equal(&[&a, &b]);

    let expected = ["t/different", "t/kept", "t/made-again", "t/same"];
    assert_eq!((a.paths(), b.paths()), (expected.map(String::from).to_vec(), expected.map(String::from).to_vec()));
    let same = a.get("t/same");
    assert!(same == "of A" || same == "of B", "{same}");
    let details = [&a, &b].map(|node| node.json(&["topic", "show", "t/different"]));
    assert_eq!((&details[0]["type"], &details[0]["id"]), (&details[1]["type"], &details[1]["id"]));
    for detail in &details {
        assert_eq!(detail["conflicts"], 1, "{detail}");
    }
    assert_eq!(a.json(&["topic", "show", "t/same"])["conflicts"], 0);
    assert_eq!(a.get("t/made-again"), Value::Null);

    let kept = |path: &str| {
        let of_path = displaced(&[&a, &b]).into_iter().filter(|row| row["path"] == path);
        let shown = of_path.map(|row| b.json(&["displaced", "show", row["id"].as_str().expect("an id")]));
        shown.map(|row| (row["by"].clone(), row["value"].clone())).collect::<Vec<_>>()
    };
    assert!(
        kept("t/removed-while-written").contains(&("removal".into(), "unseen by the remover".into())),
        "{:?}",
        kept("t/removed-while-written")
    );
    assert!(kept("t/made-again").contains(&("removal".into(), "of the old topic".into())), "{:?}", kept("t/made-again"));
    let other = if same == "of A" { "of B" } else { "of A" };
    assert!(kept("t/same").contains(&("write".into(), other.into())), "{:?}", kept("t/same"));
    // From now on it is one topic: what overtakes both is no conflict with either.
    let conflicts = kept("t/same").len();
    for (node, other, value) in [(&a, &b, 1), (&b, &a, 2), (&a, &b, 3)] {
        node.set("t/same", &value.to_string());
        other.shows("t/same", value);
    }
    assert_eq!(kept("t/same").len(), conflicts, "{:?}", kept("t/same"));
    assert_eq!(kept("t/removed"), [], "nothing was written there that the remover had not seen");

    // A removed topic's value comes back with its topic.
    let rows = a.json(&["displaced", "ls", "t/removed-while-written"]);
    a.told(&["displaced", "restore", rows[0]["id"].as_str().expect("an id")]);
    a.shows("t/removed-while-written", "unseen by the remover");
    b.shows("t/removed-while-written", "unseen by the remover");

    // Nothing of it comes back, or goes, over a restart.
    a.kill();
    b.kill();
    a.up();
    b.up();
    a.linked("B");
    equal(&[&a, &b]);
    let mut expected: Vec<String> = expected.map(String::from).to_vec();
    expected.insert(3, "t/removed-while-written".into());
    assert_eq!((a.paths(), b.paths()), (expected.clone(), expected));
    assert_eq!(b.get("t/kept"), json!(1));
}
