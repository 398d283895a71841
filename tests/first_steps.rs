//! One node from the command line: what the README's first steps promise.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::{Value, json};

fn mangrove(data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mangrove"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("MANGROVE_") {
            command.env_remove(name);
        }
    }
    command.arg("--data").arg(data);
    command
}

/// A node that was started on an empty directory.
struct Node {
    _dir: tempfile::TempDir,
    data: PathBuf,
    process: Child,
    started: Value,
}

impl Node {
    fn up() -> Node {
        let dir = tempfile::tempdir().expect("a directory");
        let data = dir.path().join("data");
        let mut process = mangrove(&data)
            .args(["--json", "up", "--listen", "127.0.0.1:0", "--name", "EWR"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program runs");
        let mut line = String::new();
        BufReader::new(process.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
        let started = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in {line:?}"));
        Node { _dir: dir, data, process, started }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        mangrove(&self.data).args(arguments).stdin(Stdio::null()).output().expect("the program runs")
    }

    /// What a command that must succeed prints.
    fn told(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let told = self.told(&[&["--json"], arguments].concat());
        serde_json::from_str(&told).unwrap_or_else(|error| panic!("{arguments:?}: {error} in {told:?}"))
    }

    /// The exit code and stderr of a command.
    fn refused(&self, arguments: &[&str]) -> (i32, String) {
        let output = self.run(arguments);
        (output.status.code().expect("an exit code"), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    fn piped(&self, arguments: &[&str], input: &str) -> Output {
        let mut child = mangrove(&self.data)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it runs");
        child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("it reads");
        child.wait_with_output().expect("it ends")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_node_starts_on_nothing_and_stops_when_told() {
    let mut node = Node::up();
    assert_eq!(node.started["name"], "EWR");
    let status = node.json(&["status"]);
    assert_eq!((&status["name"], &status["node"], &status["mesh"]), (&"EWR".into(), &node.started["node"], &node.started["mesh"]));
    assert!(node.told(&["status"]).contains("not yet at any peer"));
    assert_eq!(node.json(&["node", "ls"]).as_array().map(Vec::len), Some(1));
    assert_eq!(node.json(&["links"]), json!([]));
    node.told(&["doctor"]);
    assert!(node.told(&["config", "show"]).contains("listen = "));
    node.told(&["node", "rename", "Newark"]);
    assert_eq!(node.json(&["status"])["name"], "Newark");
    node.told(&["down"]);
    assert!(node.process.wait().expect("it ends").success());
    assert_eq!(node.refused(&["--timeout", "500ms", "status"]).0, 3);
}

#[test]
fn topics_are_made_written_read_and_removed() {
    let node = Node::up();
    node.told(&["section", "add", "demo"]);
    assert_eq!(node.json(&["section", "ls"])[0]["root"], "demo");
    assert_eq!(node.json(&["topic", "add", "demo/a", "demo/b", "--type", "json"])["created"], 2);
    assert_eq!(node.json(&["topic", "add", "demo/a", "--type", "json"]), json!({ "created": 0, "existed": 1, "refused": [] }));
    let (code, error) = node.refused(&["topic", "add", "demo/a", "--type", "string"]);
    assert!(code == 1 && error.contains("[exists-mismatch]"), "{code} {error}");

    node.told(&["set", "demo/a", r#"{"x":[1,2.5,null]}"#]);
    assert_eq!(node.json(&["get", "demo/a"])["value"], json!({ "x": [1, 2.5, null] }));
    let (code, error) = node.refused(&["set", "demo/none", "1"]);
    assert!(code == 1 && error.contains("[no-such-topic]") && error.contains("--type"), "{code} {error}");
    node.told(&["set", "demo/text", "hi there", "--type", "string"]);
    assert_eq!(node.told(&["get", "demo/text"]), "\"hi there\"\n");
    assert_eq!(node.told(&["get", "demo/text", "--raw"]), "hi there");
    assert_eq!(node.refused(&["set", "demo/a", "{not json"]).0, 2);
    assert_eq!(node.refused(&["get", "demo/none"]).0, 1);
    assert_eq!(node.refused(&["topic", "ls", "?["]).0, 1);

    let paths = |value: &Value| -> Vec<String> {
        value.as_array().expect("a list").iter().map(|row| row["path"].as_str().expect("a path").to_owned()).collect()
    };
    assert_eq!(paths(&node.json(&["topic", "ls", "?demo//"])), ["demo/a", "demo/b", "demo/text"]);
    let shown = node.json(&["topic", "show", "demo/text"]);
    assert!(
        shown["type"] == "string" && shown["epoch"] == 0 && shown["history"][0]["did"] == "made" && shown["history"][0]["node"] == "EWR"
    );
    assert_eq!(node.json(&["topic", "rm", "?demo/[ab]"])["removed"], 2);
    let gone = node.run(&["--json", "topic", "show", "demo/a"]);
    let (shown, error) = (String::from_utf8_lossy(&gone.stdout), String::from_utf8_lossy(&gone.stderr));
    assert!(gone.status.code() == Some(1) && error.contains("[no-such-topic]"), "{error}");
    let history = &serde_json::from_str::<Value>(&shown).expect("JSON")["history"];
    assert!(history[0]["type"] == "json" && history[1]["did"] == "removed" && history[1]["unix_ms"].is_u64(), "{shown}");
    assert_eq!(paths(&node.json(&["topic", "ls"])), ["demo/text"]);
    assert_eq!(node.json(&["displaced", "ls"]), json!([]));
}

#[test]
fn what_is_exported_can_be_published() {
    let node = Node::up();
    let lines: String = (0..3_000).map(|n| format!("{{\"path\":\"data/{}\",\"value\":{{\"n\":{n}}}}}\n", n % 1_000)).collect();
    let published = node.piped(&["--json", "publish", "-"], &lines);
    let report: Value = serde_json::from_slice(&published.stdout).expect("JSON");
    assert_eq!((&report["written"], &report["created"], &report["refused"]), (&3_000.into(), &1_000.into(), &0.into()));
    let exported = node.told(&["export", "?data//"]);
    assert_eq!(exported.lines().count(), 1_000);
    assert!(exported.lines().any(|line| line.contains(r#""path":"data/7""#) && line.contains(r#"{"n":2007}"#)));

    let other = Node::up();
    assert!(other.piped(&["publish", "-"], &exported).status.success());
    let values = |node: &Node| -> Vec<Value> {
        node.told(&["export"]).lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON")["value"].clone()).collect()
    };
    assert_eq!(values(&other), values(&node));

    let refused = node.piped(&["publish", "-"], "{\"path\":\"data/0\",\"value\":1}\n{\"path\":\"/\",\"value\":1}\n");
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && error.contains("1 value refused") && error.contains("[invalid-path]"), "{error}");
    let wrong = node.piped(&["publish", "-"], "{\"path\":\"data/0\",\"value\":2}\nnot json\n");
    assert!(wrong.status.code() == Some(2) && String::from_utf8_lossy(&wrong.stderr).contains("line 2"));
    assert_eq!(node.told(&["get", "data/0"]), "2\n", "lines before a wrong one are written");
}

#[test]
fn a_watcher_hears_what_is_and_what_comes() {
    let node = Node::up();
    node.told(&["set", "news/a", "1", "--type", "json"]);
    let mut watcher =
        mangrove(&node.data).args(["--json", "watch", "?news//", "--count", "3"]).stdout(Stdio::piped()).spawn().expect("the program runs");
    let mut lines = BufReader::new(watcher.stdout.take().expect("a pipe")).lines();
    let mut heard = || -> Value { serde_json::from_str(&lines.next().expect("a line").expect("text")).expect("JSON") };
    assert_eq!(heard()["event"], "added");
    assert_eq!(heard(), json!({ "path": "news/a", "event": "value", "value": 1 }));
    assert_eq!(heard()["event"], "synced");
    node.told(&["set", "news/a", "2"]);
    assert_eq!(heard(), json!({ "path": "news/a", "event": "value", "value": 2 }));
    node.told(&["topic", "rm", "news/a"]);
    assert_eq!(heard(), json!({ "path": "news/a", "event": "removed", "reason": "removed" }));
    node.told(&["set", "news/b", "3", "--type", "json"]);
    assert_eq!((heard()["event"].clone(), heard()["value"].clone()), ("added".into(), 3.into()));
    assert!(watcher.wait().expect("it ends").success());
}

#[cfg(unix)]
#[test]
fn an_interrupted_watcher_ends_well_and_its_session_with_it() {
    let node = Node::up();
    node.told(&["set", "news/a", "1", "--type", "json"]);
    let mut watcher = mangrove(&node.data).args(["watch", "news/a"]).stdout(Stdio::piped()).spawn().expect("the program runs");
    let mut lines = BufReader::new(watcher.stdout.take().expect("a pipe")).lines();
    let heard: Vec<String> = lines.by_ref().take(2).map(|line| line.expect("text")).collect();
    assert_eq!(heard, ["+ news/a\tjson", "= news/a\t1"]);
    let interrupted = Command::new("kill").args(["-INT", &watcher.id().to_string()]).status().expect("there is a kill");
    assert!(interrupted.success());
    assert!(watcher.wait().expect("it ends").success());
    assert_eq!(node.json(&["status"])["sessions"], 1, "only the session that asks is left");
}
