//! Messages over three nodes: to a topic they reach its subscribers everywhere, in order, and nobody later; to one session, and to all but one, they cross no link.

use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout, Stdio};

use serde_json::Value;

use crate::support::{Node, World, until};

const TOPIC: &str = "s/news";

/// Somebody who watches.
struct Watcher {
    program: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Watcher {
    /// One that knows of the topic already.
    fn at(node: &Node) -> Watcher {
        let mut program = node.command(&["--json", "watch", "?s//"]).stdout(Stdio::piped()).spawn().expect("the program runs");
        let lines = BufReader::new(program.stdout.take().expect("a pipe")).lines();
        let mut watcher = Watcher { program, lines };
        while watcher.next()["event"] != "synced" {}
        watcher
    }

    fn next(&mut self) -> Value {
        let line = self.lines.next().expect("it goes on").expect("a line");
        serde_json::from_str(&line).expect("JSON")
    }

    /// What the next message says, and whether it is for this one alone.
    fn message(&mut self) -> (String, bool) {
        let heard = self.next();
        assert_eq!(heard["event"], "message", "{heard}");
        (heard["text"].as_str().expect("a text").to_owned(), heard["alone"].as_bool().expect("a flag"))
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        // If it has ended, there is nothing to be ended.
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}

#[test]
fn everywhere_or_here_alone() {
    let world = World::new();
    let a = world.found("A");
    a.told(&["section", "add", "s"]);
    let (b, c) = (world.join("B", &a), world.join("C", &a));
    a.told(&["topic", "add", TOPIC, "--type", "stateless"]);
    until("all know the topic", || [&b, &c].iter().all(|node| node.paths() == [TOPIC]));
    let mut at: Vec<Watcher> = [&a, &a, &b, &c].into_iter().map(Watcher::at).collect();

    for number in 0..20 {
        let handed = b.json(&["send", "topic", TOPIC, &number.to_string()]);
        assert_eq!(handed["sessions"], 1, "one client of B's own");
    }
    for watcher in &mut at {
        let heard: Vec<(String, bool)> = (0..20).map(|_| watcher.message()).collect();
        assert_eq!(heard, (0..20).map(|number| (number.to_string(), false)).collect::<Vec<_>>());
    }
    let late = Watcher::at(&c);
    at.push(late);

    // Sessions are known everywhere; who is at which node is said by the list.
    let sessions_at = |node: &str| -> Vec<String> {
        let rows = a.json(&["session", "ls"]);
        let here = rows.as_array().expect("a list").iter().filter(|row| row["node"] == node);
        here.map(|row| row["session"].as_str().expect("an id").to_owned()).collect()
    };
    let (here, there) = (sessions_at("A"), sessions_at("B"));
    assert_eq!((here.len(), there.len()), (2, 1));
    a.told(&["send", "session", &here[0], "some/matter", "for you"]);
    assert_eq!(a.json(&["send", "except", &here[0], TOPIC, "for the other"])["sessions"], 1);
    a.refused(&["send", "session", &there[0], TOPIC, "too far"]).says(1, &["the session is at B", "send it there"]);
    let piped = c.piped(&["send", "topic", TOPIC, "-"], "the end");
    assert!(piped.status.success());

    let heard = |watcher: &mut Watcher| {
        let mut heard = Vec::new();
        while heard.last() != Some(&("the end".to_owned(), false)) {
            heard.push(watcher.message());
        }
        heard.pop();
        heard
    };
    let mut of_a: Vec<_> = at[..2].iter_mut().map(heard).collect();
    of_a.sort();
    assert_eq!(of_a, [vec![("for the other".to_owned(), false)], vec![("for you".to_owned(), true)]]);
    for watcher in &mut at[2..] {
        assert_eq!(heard(watcher), [], "they cross no link, and nothing comes later");
    }
    c.refused(&["set", TOPIC, "1"]).says(2, &["send it messages"]);
}
