//! Writes that are made only if something is so, and patches: from the command line, at one node of two.

use mangrove::client::{Client, ClientState, SessionOptions};
use mangrove::protocol::{Change, Code, Page, TopicSpec, Wish};
use serde_json::json;

use crate::claims::refused_as;
use crate::support::{PATIENCE, World, beside, block, bytes_of, until, value_of};

#[test]
fn a_write_is_made_only_if_what_must_be_so_is_so() {
    let world = World::new();
    let a = world.found("A");
    a.told(&["section", "add", "plant"]);
    let b = world.join("B", &a);
    let judged = "judged by what this node knew: somebody may have written at another at the same time\n";
    let told = a.told(&["set", "plant/gate", "{\"at\": \"B7\", \"open\": false}", "--type", "json", "--if", "no topic"]);
    assert_eq!(told, judged);
    let late = ["set", "plant/gate", "null", "--type", "json", "--if", "no topic"];
    a.refused(&late).says(1, &["plant/gate", "it is not so that no topic", "constraint-unmet"]);
    until("B has it", || b.paths().iter().any(|path| path == "plant/gate"));
    b.shows("plant/gate", json!({"at": "B7", "open": false}));

    let open = "[{\"op\": \"replace\", \"path\": \"/open\", \"value\": true}]";
    assert_eq!(b.told(&["patch", "plant/gate", open, "--if", "/at is 'B7' and nothing at /closed"]), judged);
    a.shows("plant/gate", json!({"at": "B7", "open": true}));
    b.refused(&["patch", "plant/gate", open, "--if", "/at is 'B8'"]).says(1, &["it is not so that \"/at\" is \"B8\""]);
    b.refused(&["patch", "plant/gate", open, "--if", "at is B7"]).says(1, &["plant/gate", "no constraint", "at byte 0", "as in"]);
    b.refused(&["patch", "plant/gate", "{}"]).says(1, &["no JSON patch (RFC 6902)"]);
    let missing = "[{\"op\": \"remove\", \"path\": \"/open\"}, {\"op\": \"remove\", \"path\": \"/closed\"}]";
    b.refused(&["patch", "plant/gate", missing]).says(1, &["plant/gate", "operation 2", "/closed", "patch-failed"]);
    let piped = b.piped(&["--json", "patch", "plant/gate", "-"], "[{\"op\": \"add\", \"path\": \"/closed\", \"value\": null}]");
    assert_eq!(String::from_utf8_lossy(&piped.stdout), "{\"created\":false,\"path\":\"plant/gate\"}\n");
    a.shows("plant/gate", json!({"at": "B7", "closed": null, "open": true}));
    // Nobody else can write what is A's alone.
    let made = a.json(&["set", "own", "1", "--type", "int64", "--if", "no value"]);
    assert_eq!(made, json!({"path": "own", "created": true, "exact": true}));

    // A stream is judged as it begins, topic by topic: what it writes itself does not stop it.
    let line = |path: &str, value: u32| format!("{{\"path\": \"{path}\", \"value\": {value}}}\n");
    let lines = [line("plant/x", 1), line("plant/gate", 1), line("plant/x", 2), line("plant/gate", 2), line("mine", 3)].concat();
    let piped = a.piped(&["--json", "publish", "-", "--if", "no value"], &lines);
    let report: serde_json::Value = serde_json::from_slice(&piped.stdout).expect("JSON");
    let counts = ["written", "created", "refused", "inexact"].map(|count| report[count].as_u64());
    assert_eq!(counts, [3, 2, 2, 1].map(Some), "{report}");
    assert_eq!((piped.status.code(), &report["refusals"][1]["code"]), (Some(1), &json!("constraint-unmet")));
    a.shows("plant/x", json!(2));
    a.shows("mine", json!(3));
    a.shows("plant/gate", json!({"at": "B7", "closed": null, "open": true}));
    world.logged_no_error();
}

#[test]
fn a_stream_that_has_begun_goes_on_at_another_node_without_being_judged_again() {
    let world = World::new();
    let mut a = world.found("A");
    a.told(&["section", "add", "plant"]);
    let b = world.join("B", &a);
    // A client asks where else it could go once it has come.
    let knows = || a.json(&["node", "ls"]).as_array().is_some_and(|nodes| nodes.iter().any(|node| node["name"] == "B"));
    until("A knows B", knows);
    let client = block(a.connect_with(|options| options.session = Some(SessionOptions::default())));
    let mut stream = client.publisher(Some(TopicSpec::of("json"))).only_if("no topic");
    block(stream.set("plant/x", bytes_of(&json!(1)))).expect("it is taken");
    assert_eq!((stream.report().written, stream.report().inexact), (1, 1));
    b.shows("plant/x", json!(1));
    b.set("plant/y", "1");
    until("B knows the session", || b.json(&["session", "ls"]).as_array().map_or(0, Vec::len) == 1);
    a.kill();
    block(client.changed(ClientState::Active));
    block(client.changed(ClientState::Recovering));
    for path in ["plant/x", "plant/y", "plant/y"] {
        block(stream.set(path, bytes_of(&json!(2)))).expect("it is taken");
    }
    let report = block(stream.finish()).expect("all is answered");
    assert_eq!((report.written, report.refused, report.refusals[0].code), (2, 2, Code::ConstraintUnmet));
    b.shows("plant/x", json!(2));
    b.shows("plant/y", json!(1));
    world.logged_no_error();
}

/// Many count up one number at once, each by reading it and writing the next if it is still so: none of them is lost.
#[test]
fn of_those_who_write_what_they_have_read_one_at_a_time_succeeds() {
    const EACH: i64 = 25;
    let world = World::new();
    let a = world.found("A");
    let clients: Vec<Client> = block(async {
        let maker = a.connect().await;
        let made = Change { add: Some(TopicSpec::of("json")), ..Change::new("count", Wish::Value(bytes_of(&json!(0)))) };
        assert!(maker.change(made).await.expect("it is made").created);
        vec![maker, a.connect().await, a.connect().await, a.connect().await]
    });
    let counting = clients.into_iter().map(|client| {
        beside(async move {
            let mut counted = 0;
            while counted < EACH {
                let (rows, _) = client.values("count", Page::default()).await.expect("it is there");
                let read = rows[0].value.as_deref().map(value_of).expect("it has a value");
                let next = json!(read.as_i64().expect("a number") + 1);
                let next = Change::new("count", Wish::Value(bytes_of(&next))).only_if(&format!("value is {read}"));
                match client.change(next).await {
                    Ok(changed) => {
                        assert!(changed.exact && !changed.created);
                        counted += 1;
                    }
                    refused => refused_as(refused, Code::ConstraintUnmet),
                }
            }
        })
    });
    let counting: Vec<_> = counting.collect();
    let counters = counting.len() as i64;
    for counter in counting {
        block(async { tokio::time::timeout(PATIENCE, counter).await }).expect("in time").expect("it counts");
    }
    a.shows("count", json!(counters * EACH));
    world.logged_no_error();
}
