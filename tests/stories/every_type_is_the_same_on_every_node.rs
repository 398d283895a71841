//! Topics of every type: made on one node, the same on another, updated there, delivered here as people read them; and what is wrong is refused with its place.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use mangrove::protocol::Code;
use serde_json::{Value, json};

use crate::claims::refused_as;
use crate::support::{Node, World, block, bytes_of, until};

const SCHEMA: &str = r#"{"records": [
  {"name": "flight", "fields": [{"name": "number", "type": "string"}, {"name": "speed", "type": "double", "min": 0}]},
  {"name": "leg", "min": 0, "max": null, "fields": [{"name": "to", "type": "string"}, {"name": "fee", "type": "decimal", "scale": 2}]}
]}"#;

const READING: &str = r#"
    syntax = "proto3";
    package telemetry;
    message Reading { string sensor = 1; repeated double celsius = 2; Kind kind = 3; }
    enum Kind { OUTSIDE = 0; INSIDE = 1; }
"#;

/// A type, its properties, two values as they are typed and shown, and one that is wrong, with what is said of it.
struct Case {
    topic_type: &'static str,
    properties: Vec<String>,
    values: [(String, Value); 2],
    wrong: Option<(&'static str, &'static str)>,
}

fn cases(world: &World) -> Vec<Case> {
    let case = |topic_type, values: [(&str, Value); 2], wrong| {
        let values = values.map(|(typed, shown)| (typed.to_owned(), shown));
        Case { topic_type, properties: Vec::new(), values, wrong }
    };
    let file = |name: &str, content: &[u8]| {
        std::fs::write(world.path(name), content).expect("a file");
        format!("@{}", world.path(name).display())
    };
    let position = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/examples/custom/position.wasm");
    let [lost, found] = [0, 9].map(|satellites: u8| [&[1, 0, satellites][..], &[0; 25]].concat());
    file("reading.proto", READING.as_bytes());
    let reading = mangrove::proto::compile(&world.path("reading.proto"), &[], "Reading").expect("a message");
    vec![
        case("json", [("{\"b\": 1, \"a\": [null]}", json!({"a": [null], "b": 1})), ("null", Value::Null)], Some(("{\"a\":", "EOF"))),
        case("binary", [("ab", json!("YWI=")), ("", json!(""))], None),
        case("string", [("a \"b\"", json!("a \"b\"")), ("null", json!("null"))], None),
        case("int64", [("-7", json!(-7)), ("null", Value::Null)], Some(("1.5", "an integer"))),
        case("double", [("7", json!(7.0)), ("-1e300", json!(-1e300))], Some(("fast", "a number"))),
        Case {
            properties: vec!["scale=2".into()],
            ..case("decimal", [("12.5", json!("12.50")), ("-3", json!("-3.00"))], Some(("0.001", "more than 2 digits after the point")))
        },
        Case {
            properties: vec![format!("schema={}", file("flight.json", SCHEMA.as_bytes()))],
            ..case(
                "record",
                [
                    (r#"{"flight": {"number": "UA1", "speed": 1.5}}"#, json!({"flight": {"number": "UA1", "speed": 1.5}})),
                    (
                        r#"{"flight": {"number": "UA1"}, "leg": [{"to": "IAH", "fee": "12.50"}]}"#,
                        json!({"flight": {"number": "UA1"}, "leg": [{"fee": "12.50", "to": "IAH"}]}),
                    ),
                ],
                Some((r#"{"flight": {"number": "UA1"}, "leg": [{"to": "IAH", "fee": "12.5"}]}"#, "at \"/leg/0/fee\"")),
            )
        },
        Case {
            properties: vec![format!("descriptors={}", file("reading.bin", &reading.set)), format!("message={}", reading.message)],
            ..case(
                "protobuf",
                [
                    (r#"{"sensor": "a", "celsius": [1.5]}"#, json!({"sensor": "a", "celsius": [1.5]})),
                    (r#"{"kind": "INSIDE"}"#, json!({"kind": "INSIDE"})),
                ],
                Some((r#"{"celsius": [1, "warm"]}"#, "at \"/celsius/1\"")),
            )
        },
        Case {
            topic_type: "custom",
            properties: vec![format!("module=@{position}")],
            values: [
                (file("lost", &lost), json!({"time": 0, "fix": "none", "satellites": 0})),
                (file("found", &found), json!({"time": 0, "fix": "none", "satellites": 9})),
            ],
            wrong: Some(("somewhere", "a position has 28 bytes")),
        },
    ]
}

fn definition(node: &Node, path: &str) -> Value {
    let shown = node.json(&["topic", "show", path]);
    assert!(shown["type"].is_string(), "{shown}");
    json!([shown["type"], shown["properties"]])
}

#[test]
fn what_is_made_on_one_node_is_the_same_on_another() {
    let world = World::new();
    let a = world.found("A");
    a.told(&["section", "add", "t"]);
    let b = world.join("B", &a);
    let cases = cases(&world);
    for Case { topic_type, properties, values: [(first, shown), _], .. } in &cases {
        let path = format!("t/{topic_type}");
        let properties: Vec<&str> = properties.iter().flat_map(|property| ["--prop", property]).collect();
        a.told(&[&["topic", "add", &path, "--type", topic_type], &properties[..]].concat());
        a.told(&["set", &path, first]);
        assert_eq!(a.get(&path), *shown, "{topic_type}");
    }
    until("B knows them all", || b.paths().len() == cases.len());
    let count = (2 * cases.len()).to_string();
    let mut watching = a.command(&["--json", "watch", "?t/", "--count", &count]).stdout(Stdio::piped()).spawn().expect("the program runs");
    let lines = BufReader::new(watching.stdout.take().expect("a pipe")).lines();
    let mut values =
        lines.map(|line| serde_json::from_str::<Value>(&line.expect("a line")).expect("JSON")).filter(|line| line["event"] == "value");
    let mut first: Vec<Value> = values.by_ref().take(cases.len()).map(|line| line["path"].clone()).collect();
    first.sort_by_key(Value::to_string);
    first.dedup();
    assert_eq!(first.len(), cases.len(), "each is there at first: {first:?}");
    for Case { topic_type, values: [(_, first), (second, shown)], wrong, .. } in &cases {
        let path = format!("t/{topic_type}");
        b.shows(&path, first.clone());
        assert_eq!(definition(&a, &path), definition(&b, &path));
        b.told(&["set", &path, second]);
        a.shows(&path, shown.clone());
        let seen = values.next().expect("it is told");
        assert_eq!((&seen["path"], &seen["value"]), (&json!(path), shown), "{seen}");
        if let Some((wrong, said)) = wrong {
            b.refused(&["set", &path, wrong]).says(2, &[&path, topic_type, said]);
            assert_eq!(b.get(&path), *shown, "{topic_type}");
        }
    }
    assert!(watching.wait().expect("it ends").success());
    // What one mesh prints another takes, with all that its types need.
    let printed = b.told(&["export", "?t/"]);
    let other = world.found("C");
    let taken = other.piped(&["publish", "-"], &printed);
    assert!(taken.status.success(), "{}", String::from_utf8_lossy(&taken.stderr));
    for Case { topic_type, values: [_, (_, shown)], .. } in &cases {
        let path = format!("t/{topic_type}");
        assert_eq!((other.get(&path), definition(&other, &path)), (shown.clone(), definition(&a, &path)), "{topic_type}");
    }
    world.logged_no_error();
}

#[test]
fn a_json_topic_takes_what_its_schema_says() {
    let world = World::new();
    let a = world.found("A");
    a.told(&["section", "add", "t"]);
    let b = world.join("B", &a);
    let schema = r#"{"type": "object", "required": ["at"], "properties": {"at": {"type": "string", "pattern": "^[A-Z][0-9]+$"}}}"#;
    a.told(&["topic", "add", "t/gate", "--type", "json", "--prop", &format!("schema={schema}")]);
    a.told(&["set", "t/gate", "{\"at\": \"B7\"}"]);
    b.shows("t/gate", json!({"at": "B7"}));
    b.refused(&["set", "t/gate", "{\"at\": 7}"]).says(2, &["t/gate", "at \"/at\"", "string"]);
    let patch = |value: &str| format!("[{{\"op\": \"replace\", \"path\": \"/at\", \"value\": {value}}}]");
    b.refused(&["patch", "t/gate", &patch("\"b8\"")]).says(1, &["t/gate", "at \"/at\"", "invalid-value"]);
    b.told(&["patch", "t/gate", &patch("\"B8\"")]);
    a.shows("t/gate", json!({"at": "B8"}));
    assert_eq!(definition(&a, "t/gate"), definition(&b, "t/gate"));
    // Of the bytes themselves the node is the judge.
    let wrong = block(async { b.connect().await.set("t/gate", bytes_of(&json!({"at": null})), None).await });
    refused_as(wrong, Code::InvalidValue);
    world.logged_no_error();
}

#[test]
fn a_slave_shows_its_master_wherever_that_is() {
    let world = World::new();
    let a = world.found("A");
    a.told(&["section", "add", "t"]);
    let b = world.join("B", &a);
    a.told(&["topic", "add", "t/alias", "--type", "slave", "--prop", "master=t/master"]);
    until("B knows it", || b.json(&["topic", "ls", "--pending"]).as_array().is_some_and(|rows| rows.len() == 1));
    for node in [&a, &b] {
        assert_eq!((node.paths().len(), node.json(&["topic", "show", "t/alias"])["pending"].clone()), (0, json!(true)));
        node.refused(&["get", "t/alias"]).says(1, &["t/alias", "no-such-topic"]);
    }
    b.told(&["topic", "add", "t/master", "--type", "decimal", "--prop", "scale=2"]);
    b.told(&["set", "t/master", "12.5"]);
    a.shows("t/alias", "12.50");
    b.shows("t/alias", "12.50");
    assert_eq!(a.json(&["topic", "ls", "--pending"]), json!([]));
    a.refused(&["set", "t/alias", "1"]).says(2, &["t/alias", "slave", "write its master"]);
    a.refused(&["topic", "add", "t/more", "--type", "slave", "--prop", "master=t/alias"]).says(1, &["t/alias is a slave itself"]);
    assert_eq!(a.told(&["export"]).lines().count(), 1, "its master has it");
    // It waits again once its master is gone.
    a.told(&["topic", "rm", "t/master"]);
    until("B hears of that", || b.json(&["topic", "ls", "--pending"]).as_array().is_some_and(|rows| rows.len() == 1));
    world.logged_no_error();
}

#[test]
fn a_definition_that_makes_no_sense_is_refused() {
    let world = World::new();
    let a = world.found("A");
    for (arguments, said) in [
        (&["topic", "add", "x", "--type", "decimal"][..], "needs the property scale"),
        (&["topic", "add", "x", "--type", "decimal", "--prop", "scale=19"], "from 0 to 18"),
        (&["topic", "add", "x", "--type", "json", "--prop", "scale=1"], "has no property scale"),
        (&["topic", "add", "x", "--type", "record", "--prop", "schema={}"], "missing field `records`"),
        (&["topic", "add", "x", "--type", "json", "--prop", r#"schema={"type": "text"}"#], "no schema: at \"/type\""),
        (&["topic", "add", "x", "--type", "json", "--prop", r##"schema={"items": {"$ref": "#/items"}}"##], "refers to itself"),
        (&["topic", "add", "x", "--type", "recrod"], "did you mean \"record\""),
        (&["topic", "add", "x", "--type", "unknown(19)"], "unknown topic type"),
    ] {
        a.refused(arguments).says(1, &[said, "invalid-definition"]);
    }
    a.refused(&["topic", "add", "x", "--type", "record", "--prop", "schema=@nowhere"]).says(2, &["nowhere"]);
    world.logged_no_error();
}
