//! Events of a time series: appended on both sides of a split, in one order everywhere afterwards, edited in their place, read in parts, kept over restarts, and printed for another mesh.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use serde_json::{Value, json};

use crate::support::{Node, World, displaced, equal, fixed_port, heal, split, until};

/// The events that a node shows, as values.
fn values(node: &Node, path: &str) -> Vec<Value> {
    node.json(&["event", "ls", path]).as_array().expect("a list").iter().map(|event| event["value"].clone()).collect()
}

/// Their names.
fn names(node: &Node, path: &str) -> Vec<String> {
    let events = node.json(&["event", "ls", path]);
    events.as_array().expect("a list").iter().map(|event| event["event"].as_str().expect("a name").to_owned()).collect()
}

#[test]
fn both_sides_of_a_split_are_heard() {
    let world = World::new();
    let listen = format!("127.0.0.1:{}", fixed_port());
    let mut a = world.found_with("A", &["--listen", &listen]);
    let b = world.join("B", &a);
    a.told(&["section", "add", "t"]);
    a.told(&["topic", "add", "t/log", "--type", "timeseries", "--prop", "of=json", "--prop", "keep=100"]);
    until("B knows it", || b.paths().len() == 1);
    let mut watching = b.command(&["--json", "watch", "t/log", "--count", "7"]).stdout(Stdio::piped()).spawn().expect("the program runs");
    let lines = BufReader::new(watching.stdout.take().expect("a pipe")).lines();
    let mut lines = lines.map(|line| serde_json::from_str::<Value>(&line.expect("a line")).expect("JSON"));
    assert!(lines.by_ref().any(|line| line["event"] == "synced"));
    a.told(&["set", "t/log", "{\"n\": 1}"]);
    until("B has it", || values(&b, "t/log") == [json!({"n": 1})]);
    split(&a, &b);
    a.told(&["set", "t/log", "{\"n\": \"a2\"}"]);
    a.told(&["set", "t/log", "{\"n\": \"a3\"}"]);
    for event in ["b2", "b3", "b4"] {
        b.told(&["set", "t/log", &format!("{{\"n\": \"{event}\"}}")]);
    }
    heal(&a, &b);
    equal(&[&a, &b]);
    until("both have all", || values(&a, "t/log").len() == 6 && values(&b, "t/log").len() == 6);
    assert_eq!((values(&a, "t/log"), names(&a, "t/log")), (values(&b, "t/log"), names(&b, "t/log")));
    assert_eq!(a.get("t/log"), b.get("t/log"));
    assert_eq!(displaced(&[&a, &b]).len(), 0, "nothing was lost to anything");

    // An edit stands where its event does. Of two of one sequence each has its own name.
    let doubled = names(&a, "t/log").into_iter().find(|name| name.starts_with("2.")).expect("there are two");
    b.refused(&["event", "edit", "t/log", "2", "0"]).says(1, &["t/log", "ambiguous-event", &doubled]);
    b.told(&["event", "edit", "t/log", "1", "{\"n\": \"edited\"}"]);
    until("A has the edit", || values(&a, "t/log")[0] == json!({"n": "edited"}));
    let first = &a.json(&["event", "ls", "t/log", "--to", "1"])[0];
    assert!(first["edited"]["author"].is_string() && first["author"].is_string(), "{first}");
    b.refused(&["event", "edit", "t/log", "99", "0"]).says(1, &["t/log", "no-such-event"]);
    b.refused(&["event", "edit", "t/log", "1", "{"]).says(2, &["t/log", "EOF"]);
    // Who has watched all the time has heard each once: its own as they came, and those of the other side when they met.
    let mut heard: Vec<(Value, bool)> =
        lines.filter(|line| line["event"] == "value").map(|line| (line["value"]["n"].clone(), line["of"]["edited"].is_object())).collect();
    heard.sort_by_key(|(value, _)| value.to_string());
    let expected = [("a2", false), ("a3", false), ("b2", false), ("b3", false), ("b4", false), ("edited", true)];
    let mut expected: Vec<(Value, bool)> = expected.into_iter().map(|(value, edited)| (json!(value), edited)).collect();
    expected.push((json!(1), false));
    expected.sort_by_key(|(value, _)| value.to_string());
    assert_eq!(heard, expected);
    assert!(watching.wait().expect("it ends").success());

    // Over a restart nothing of it changes.
    let before = (values(&a, "t/log"), names(&a, "t/log"));
    a.kill();
    a.up();
    assert_eq!((values(&a, "t/log"), names(&a, "t/log")), before);
    // Another mesh takes them as they were printed, in their order.
    let printed = b.told(&["export", "?t/"]);
    let other = world.found("C");
    let taken = other.piped(&["publish", "-"], &printed);
    assert!(taken.status.success(), "{}", String::from_utf8_lossy(&taken.stderr));
    assert_eq!(values(&other, "t/log"), before.0);
    world.logged_no_error();
}

#[test]
fn the_newest_are_kept_and_parts_are_read() {
    let world = World::new();
    let a = world.found("A");
    a.told(&["section", "add", "t"]);
    let b = world.join("B", &a);
    a.told(&["topic", "add", "t/ticks", "--type", "timeseries", "--prop", "of=int64", "--prop", "keep=50"]);
    let lines: String = (1..=200).map(|tick| format!("{{\"path\": \"t/ticks\", \"value\": {tick}}}\n")).collect();
    let flags = ["publish", "-", "--type", "timeseries"];
    let taken = a.piped(&flags, &lines);
    assert!(taken.status.success(), "{}", String::from_utf8_lossy(&taken.stderr));
    let kept: Vec<Value> = (151..=200).map(|tick| json!(tick)).collect();
    until("B has the newest", || values(&b, "t/ticks") == kept);
    assert_eq!(values(&a, "t/ticks"), kept);
    assert_eq!(b.json(&["topic", "show", "t/ticks"])["events"], 50);
    assert_eq!(b.get("t/ticks"), json!(200));
    let part = |flags: &[&str]| {
        let rows = b.json(&[&["event", "ls", "t/ticks"][..], flags].concat());
        rows.as_array().expect("a list").iter().map(|row| row["value"].as_i64().expect("a number")).collect::<Vec<_>>()
    };
    assert_eq!(part(&["--from", "160", "--to", "162"]), [160, 161, 162]);
    assert_eq!(part(&["--last", "2"]), [199, 200]);
    assert!(part(&["--until", "2001-01-01T00:00:00Z"]).is_empty());
    assert_eq!(part(&["--since", "2001-01-01T00:00:00Z"]).len(), 50);
    b.refused(&["set", "t/ticks", "1.5"]).says(2, &["t/ticks", "an integer"]);
    b.told(&["topic", "add", "t/other", "--type", "json"]);
    b.refused(&["event", "ls", "t/other"]).says(1, &["t/other", "json", "no events"]);
    // Who joins later gets what is kept, and no more.
    let c = world.join("C", &a);
    until("C has them", || c.paths().len() == 2 && values(&c, "t/ticks") == kept);
    world.logged_no_error();
}
