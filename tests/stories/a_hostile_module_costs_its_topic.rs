//! Custom types: a module that one node has goes wherever its topics are, and one that means harm costs its topic, and not its node.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use mangrove::protocol::Code;
use serde_json::{Value, json};

use crate::claims::refused_as;
use crate::support::{World, block, equal};

const POSITION: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/examples/custom/position.wasm");

/// A 2d fix, with so many satellites.
fn position(satellites: u8) -> Vec<u8> {
    [&[1, 1, satellites, 0][..], &52_520_008_i32.to_le_bytes(), &13_404_954_i32.to_le_bytes(), &[0; 8], &7_u64.to_le_bytes()].concat()
}

fn shown(satellites: u8) -> Value {
    json!({"time": 7, "fix": "2d", "satellites": satellites, "latitude": 52.520008, "longitude": 13.404954, "speed": 0.0, "heading": 0.0})
}

#[test]
fn a_module_goes_where_its_topics_are() {
    let world = World::new();
    let mut a = world.found("A");
    a.told(&["section", "add", "t"]);
    let mut b = world.join_with("B", &a, "authority", &[]);
    let module = world.path("position.wasm");
    std::fs::copy(POSITION, &module).expect("a file");
    a.told(&["topic", "add", "t/ship", "--wasm", module.to_str().expect("a path")]);
    std::fs::remove_file(&module).expect("it is there");
    let typed = |satellites| {
        let file = world.path(&format!("position-{satellites}"));
        std::fs::write(&file, position(satellites)).expect("a file");
        format!("@{}", file.display())
    };
    a.told(&["set", "t/ship", &typed(9)]);
    b.shows("t/ship", shown(9));
    let mut watching = a.command(&["--json", "watch", "t/ship", "--count", "2"]).stdout(Stdio::piped()).spawn().expect("it runs");
    let lines = BufReader::new(watching.stdout.take().expect("a pipe")).lines();
    let mut values =
        lines.map(|line| serde_json::from_str::<Value>(&line.expect("a line")).expect("JSON")).filter(|line| line["event"] == "value");
    assert_eq!(values.next().expect("what there is")["value"], shown(9));
    b.told(&["set", "t/ship", &typed(8), "--if", "/satellites is 9"]);
    assert_eq!(values.next().expect("what has come")["value"], shown(8));
    assert!(watching.wait().expect("it ends").success());
    b.refused(&["set", "t/ship", &typed(201)]).says(2, &["t/ship", "at \"/satellites\"", "at most 200"]);
    let refusal = block(async { b.connect().await.set("t/ship", position(201), None).await });
    assert!(refusal.as_ref().is_err_and(|error| error.to_string().contains("at \"/satellites\"")), "{refusal:?}");
    refused_as(refusal, Code::InvalidValue);
    b.refused(&["patch", "t/ship", "[]"]).says(1, &["for json topics", "custom"]);
    assert_eq!(b.run(&["get", "--raw", "t/ship"]).stdout, position(8));
    // What its module calls a delta changes a part of it: here the first of seven words.
    let delta = |name: &str, bytes: &[u8]| {
        let file = world.path(name);
        std::fs::write(&file, bytes).expect("a file");
        format!("@{}", file.display())
    };
    let word = |satellites| [&[1], &position(satellites)[..4]].concat();
    b.told(&["patch", "t/ship", "--delta", &delta("to-6", &word(6)), "--if", "/satellites is 8"]);
    a.shows("t/ship", shown(6));
    b.refused(&["patch", "t/ship", "--delta", &delta("none", b"what")]).says(1, &["t/ship", "not a delta of a position", "patch-failed"]);
    b.refused(&["patch", "t/ship", "--delta", &delta("to-201", &word(201))]).says(1, &["t/ship", "at \"/satellites\"", "at most 200"]);
    assert!(block(async { b.connect().await.patch_custom("t/ship", word(8)).await }).is_ok());
    a.shows("t/ship", shown(8));

    a.kill();
    let c = world.join("C", &b);
    c.shows("t/ship", shown(8));
    let line = |path: &str| json!({"path": path, "value": "AQAHAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA==", "type": "custom"}).to_string();
    assert!(c.piped(&["publish", "-"], &line("t/ship")).status.success());
    b.shows("t/ship", json!({"time": 0, "fix": "none", "satellites": 7}));
    let said = c.piped(&["publish", "-"], &line("t/boat"));
    assert!(String::from_utf8_lossy(&said.stderr).contains("needs the property module"), "a topic of that type is made by its module only");
    c.told(&["set", "t/ship", &typed(7)]);
    b.shows("t/ship", shown(7));
    b.kill();
    b.up();
    b.shows("t/ship", shown(7));
    c.linked("B");
    equal(&[&b, &c]);
    // What the module shows is not what it takes, and is exported with the value itself.
    let printed = b.told(&["export", "?t/"]);
    let other = world.found("D");
    let taken = other.piped(&["publish", "-"], &printed);
    assert!(taken.status.success(), "{}", String::from_utf8_lossy(&taken.stderr));
    assert_eq!(other.get("t/ship"), shown(7));
    // And it may be given like any bytes.
    let mut line: Value = serde_json::from_str(printed.lines().last().expect("a line")).expect("JSON");
    let object = line.as_object_mut().expect("an object");
    let bytes = object.remove("bytes").expect("the value itself");
    object.insert("value".into(), bytes);
    assert!(other.piped(&["publish", "-"], &line.to_string()).status.success());
    assert_eq!(other.get("t/ship"), shown(7));
    world.logged_no_error();
}

/// A module whose values are judged by `body`.
fn module(body: &str) -> Vec<u8> {
    let text = format!(
        r#"(module (memory (export "memory") 20)
        (func (export "alloc") (param i32) (result i32) (i32.const 1024))
        (func (export "validate") (param i32 i32) (result i64) {body})
        (func (export "to_json") (param i32 i32) (result i64) (i64.const 4))
        (func (export "from_json") (param i32 i32) (result i64) (i64.const 4))
        (data (i32.const 0) "true"))"#
    );
    wat::parse_str(text).expect("a module")
}

#[test]
fn a_module_that_means_harm_is_given_up() {
    let world = World::new();
    let a = world.found("A");
    a.told(&["section", "add", "t"]);
    let b = world.join("B", &a);
    let file = |name: &str, content: &[u8]| {
        let path = world.path(name);
        std::fs::write(&path, content).expect("a file");
        path.to_str().expect("a path").to_owned()
    };
    // What is no module of a custom type makes no topic.
    let imports = wat::parse_str(r#"(module (import "a" "b" (func)))"#).expect("a module");
    let bare = wat::parse_str(r#"(module (memory (export "memory") 1))"#).expect("a module");
    for (name, content, said) in [
        ("bare", bare, "it exports no \"alloc\""),
        ("imports", imports, "imports"),
        ("text", b"(module)".to_vec(), "no module"),
        ("large", module(&format!("(i64.const 0) {}", "(drop (i64.const -1))".repeat(200_000))), "bytes, and may have"),
    ] {
        a.refused(&["topic", "add", "t/none", "--wasm", &file(name, &content)]).says(1, &[said, "invalid-definition"]);
    }

    let hostile = [
        ("endless", "(loop (br 0)) (i64.const 0)", "all fuel consumed"),
        ("greedy", "(loop (drop (memory.grow (i32.const 1))) (br 0)) (i64.const 0)", "all fuel consumed"),
        ("trap", "unreachable", "unreachable"),
        ("liar", "(i64.const 0x7fffffff00000001)", "out of its memory"),
    ];
    a.told(&["topic", "add", "t/good", "--type", "json"]);
    for (name, body, _) in hostile {
        a.told(&["topic", "add", &format!("t/{name}"), "--wasm", &file(name, &module(body))]);
    }
    b.shows("t/good", Value::Null);
    block(async {
        let (bad, good) = (b.connect().await, b.connect().await);
        for (name, _, why) in hostile {
            let path = format!("t/{name}");
            let refusal = bad.set(&path, b"x".to_vec(), None).await;
            assert!(refusal.as_ref().is_err_and(|error| error.to_string().contains(why)), "{name}: {refusal:?}");
            refused_as(refusal, Code::InvalidValue);
        }
        // As much as they can waste, while somebody else writes.
        let large = vec![b'x'; 1 << 20];
        let wasting = async {
            for (name, ..) in hostile {
                for _ in 0..5 {
                    refused_as(bad.set(&format!("t/{name}"), large.clone(), None).await, Code::InvalidValue);
                }
            }
        };
        let (mut slowest, mut served) = (Duration::ZERO, 0);
        let serving = async {
            loop {
                let begun = Instant::now();
                good.set("t/good", crate::support::bytes_of(&json!("served")), None).await.expect("it is taken");
                (slowest, served) = (slowest.max(begun.elapsed()), served + 1);
            }
        };
        tokio::select! {
            () = wasting => {}
            () = serving => {}
        }
        assert!(served > 10 && slowest < Duration::from_secs(3), "{served} served, the slowest in {slowest:?}");
        let refusal = bad.set("t/endless", b"x".to_vec(), None).await;
        assert!(refusal.as_ref().is_err_and(|error| error.to_string().contains("given up")), "{refusal:?}");
        // Another topic with the same module is another definition, and the same cost.
        let spec = {
            let mut spec = bad.topic("t/endless").await.expect("it is there").topic;
            spec.properties.insert("retain".into(), "false".into());
            spec
        };
        bad.add_topics(spec, vec!["t/again".into()]).await.expect("it is made");
        let again = bad.set("t/again", b"x".to_vec(), None).await;
        assert!(again.as_ref().is_err_and(|error| error.to_string().contains("given up")), "{again:?}");
        // One module's end is not another's.
        let refusal = bad.set("t/trap", b"x".to_vec(), None).await;
        assert!(refusal.as_ref().is_err_and(|error| error.to_string().contains("unreachable")), "{refusal:?}");
    });
    b.shows("t/good", "served");
    for (name, ..) in hostile {
        assert!(a.json(&["topic", "show", &format!("t/{name}")])["value_bytes"].is_null(), "{name} has no value");
    }
    a.refused(&["set", "t/trap", "1"]).says(2, &["t/trap", "its type's module failed", "unreachable"]);
    equal(&[&a, &b]);
    world.logged_no_error();
}
