//! Writes that are made only if something is so, and patches: from the command line, at one node of two.

use mangrove::client::Client;
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
