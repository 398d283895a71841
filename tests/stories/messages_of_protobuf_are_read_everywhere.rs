//! Topics of protobuf: whoever makes one has its `.proto` files; everybody else reads and writes its values from the mesh alone.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use mangrove::protocol::Code;
use serde_json::{Value, json};

use crate::claims::refused_as;
use crate::support::{World, block, equal, split, until};

const READING: &str = r#"
    syntax = "proto3";
    package telemetry;
    import "google/protobuf/timestamp.proto";
    import "units.proto";
    message Reading {
        google.protobuf.Timestamp at = 1;
        map<string, units.Celsius> rooms = 2;
        optional int64 count = 3;
    }
"#;
const UNITS: &str = r#"syntax = "proto3"; package units; message Celsius { double degrees = 1; }"#;

#[test]
fn from_the_mesh_alone() {
    let world = World::new();
    let mut a = world.found("A");
    a.told(&["section", "add", "t"]);
    let mut b = world.join_with("B", &a, "authority", &[]);
    let (proto, include) = (world.path("reading.proto"), world.path("lib"));
    std::fs::create_dir(&include).expect("a directory");
    std::fs::write(&proto, READING).expect("a file");
    std::fs::write(include.join("units.proto"), UNITS).expect("a file");
    let [proto, include] = [&proto, &include].map(|path| path.to_str().expect("a path"));
    let files = ["--proto", proto, "-I", include, "--message", "Reading"];
    let add = |path, files: &[&str]| a.told(&[&["topic", "add", path], files].concat());
    a.refused(&["topic", "add", "t/reading", "--proto", proto, "--message", "Reading"]).says(2, &["units.proto", "not found"]);
    a.refused(&["topic", "add", "t/reading", "--proto", proto, "-I", include, "--message", "Raeding"])
        .says(2, &["did you mean telemetry.Reading?"]);
    add("t/reading", &files);
    add("t/log", &[&["--type", "timeseries", "--prop", "of=protobuf"], &files[..]].concat());
    a.told(&["topic", "add", "t/alias", "--type", "slave", "--prop", "master=t/reading"]);
    std::fs::remove_dir_all(include).expect("it is there");
    std::fs::remove_file(proto).expect("it is there");

    let morning = json!({"at": "2024-02-29T06:00:00Z", "rooms": {"hall": {"degrees": 18.5}}, "count": "7"});
    a.told(&["set", "t/reading", &morning.to_string()]);
    b.shows("t/reading", morning.clone());
    let count = "3";
    let mut watching = b.command(&["--json", "watch", "t/reading", "--count", count]).stdout(Stdio::piped()).spawn().expect("it runs");
    let lines = BufReader::new(watching.stdout.take().expect("a pipe")).lines();
    let mut values =
        lines.map(|line| serde_json::from_str::<Value>(&line.expect("a line")).expect("JSON")).filter(|line| line["event"] == "value");
    assert_eq!(values.next().expect("what there is")["value"], morning);
    let noon = json!({"at": "2024-02-29T12:00:00Z", "rooms": {"attic": {"degrees": -3.0}, "hall": {}}});
    b.told(&["set", "t/reading", &noon.to_string(), "--if", "/count is \"7\""]);
    a.shows("t/reading", noon.clone());
    assert_eq!(values.next().expect("what has come")["value"], noon);
    b.refused(&["set", "t/reading", "{}", "--if", "/rooms/attic/degrees is 3"]).says(1, &["constraint-unmet"]);

    // What is wrong is refused with its place: by the client for what is typed, by the node for bytes.
    b.refused(&["set", "t/reading", r#"{"rooms": {"hall": {"degrees": "warm"}}}"#]).says(2, &["t/reading", "at \"/rooms/hall/degrees\""]);
    b.refused(&["set", "t/reading", r#"{"rooms": {"hall": {"degree": 1}}}"#]).says(2, &["t/reading", "at \"/rooms/hall\"", "'degree'"]);
    b.refused(&["patch", "t/reading", "[]"]).says(1, &["for json topics", "protobuf", "patch-failed"]);
    let cut = vec![0x12, 2, 0x12, 9];
    let refusal = block(async { b.connect().await.set("t/reading", cut, None).await });
    assert!(refusal.as_ref().is_err_and(|error| error.to_string().contains("at \"/rooms")), "{refusal:?}");
    refused_as(refusal, Code::InvalidValue);
    assert_eq!(b.get("t/reading"), noon);

    // A slave shows it, a series has it, and what was displaced is read, too.
    assert_eq!(b.get("t/alias"), noon);
    let watched = b.told(&["--json", "watch", "t/alias", "--count", "1"]);
    assert_eq!(serde_json::from_str::<Value>(watched.lines().last().expect("a line")).expect("JSON")["value"], noon);
    for value in [&morning, &noon] {
        b.told(&["set", "t/log", &value.to_string()]);
    }
    let listed = |node: &crate::support::Node| -> Vec<Value> {
        let rows = node.json(&["event", "ls", "t/log"]);
        rows.as_array().expect("a list").iter().map(|row| row["value"].clone()).collect()
    };
    until("A has both events", || listed(&a) == [morning.clone(), noon.clone()]);
    let late = a.json(&["event", "ls", "t/log"])[1]["event"].as_str().expect("a name").to_owned();
    a.told(&["event", "edit", "t/log", &late, r#"{"count": 8}"#]);
    until("B has the edit", || listed(&b) == [morning.clone(), json!({"count": "8"})]);
    a.refused(&["set", "t/log", r#"{"count": []}"#]).says(2, &["at \"/count\""]);
    split(&a, &b);
    a.told(&["set", "t/reading", r#"{"count": 1}"#]);
    b.told(&["set", "t/reading", r#"{"count": 2}"#]);
    crate::support::heal(&a, &b);
    let lost = crate::support::displaced(&[&a, &b]);
    let (lost, won) = (a.json(&["displaced", "show", lost[0]["id"].as_str().expect("an id")]), a.get("t/reading"));
    let mut both = [lost["value"].clone(), won.clone()];
    both.sort_by_key(Value::to_string);
    assert_eq!(both, [json!({"count": "1"}), json!({"count": "2"})]);
    drop(values);
    watching.wait().expect("it ends");

    // The one that had the files is gone; the next has all from B, and B has it on its disk.
    a.kill();
    let c = world.join("C", &b);
    c.shows("t/reading", won.clone());
    assert_eq!(c.json(&["topic", "show", "t/reading"])["properties"], b.json(&["topic", "show", "t/reading"])["properties"]);
    c.refused(&["set", "t/reading", r#"{"count": {}}"#]).says(2, &["at \"/count\""]);
    b.kill();
    b.up();
    b.shows("t/reading", won);
    // Bytes from elsewhere, with a field that nobody here knows: shown without it, and not lost.
    let unknown = vec![0x18, 5, 0xa0, 6, 1];
    block(async { c.connect().await.set("t/reading", unknown.clone(), None).await }).expect("it is taken");
    b.shows("t/reading", json!({"count": "5"}));
    equal(&[&b, &c]);
    let other = world.found("D");
    let taken = other.piped(&["publish", "-"], &b.told(&["export", "?t/"]));
    assert!(taken.status.success(), "{}", String::from_utf8_lossy(&taken.stderr));
    assert_eq!((other.get("t/reading"), listed(&other)), (json!({"count": "5"}), vec![morning, json!({"count": "8"})]));
    assert_eq!(other.run(&["get", "--raw", "t/reading"]).stdout, unknown);
    world.logged_no_error();
}
