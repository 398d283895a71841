//! What a definition has no room for stands in a blob, and that is wherever it is needed: from the mesh alone, after a restart, and in another mesh.

use mangrove::protocol::Code;
use mangrove_crdt::blob::BlobHash;
use serde_json::{Value, json};

use crate::claims::refused_as;
use crate::support::{World, block, until};

/// A JSON Schema of some ten kilobytes.
fn schema() -> Value {
    let fields = (0..300).map(|at| (format!("{}{at}", "field".repeat(4)), json!({"type": "integer"})));
    json!({"type": "object", "required": ["at"], "properties": fields.chain([("at".into(), json!({"type": "string"}))]).collect::<serde_json::Map<_, _>>()})
}

#[test]
fn a_node_that_never_saw_the_file_judges_by_it() {
    let world = World::new();
    let mut a = world.found("A");
    a.told(&["section", "add", "t"]);
    let mut b = world.join_with("B", &a, "authority", &[]);
    let file = world.path("gate.json");
    std::fs::write(&file, schema().to_string()).expect("a file");
    let property = format!("schema=@{}", file.display());
    let add = ["topic", "add", "t/gate", "--type", "json", "--prop", &property];
    a.told(&add);
    a.told(&["set", "t/gate", r#"{"at": "B7"}"#]);
    b.shows("t/gate", json!({"at": "B7"}));
    assert_eq!(b.told(&add).trim(), "0 topics made, 1 existed");
    let blobs = a.json(&["topic", "show", "t/gate"])["blobs"].clone();
    assert!(blobs[0]["bytes"].as_u64().is_some_and(|bytes| bytes > 8_000), "{blobs}");
    assert_eq!(b.json(&["topic", "show", "t/gate"])["blobs"], blobs);
    assert!(b.told(&["topic", "show", "t/gate"]).contains(" (here, "));
    let wrong = |node: &crate::support::Node| {
        node.refused(&["set", "t/gate", r#"{"at": 7}"#]).says(2, &["t/gate", "at \"/at\"", "string"]);
        let value = crate::support::bytes_of(&json!({"at": 7}));
        refused_as(block(async { node.connect().await.set("t/gate", value, None).await }), Code::InvalidValue);
    };
    wrong(&b);
    // Who had the file is gone; from whoever has the blob it comes to the next, and it is on the disk.
    a.kill();
    let c = world.join("C", &b);
    c.shows("t/gate", json!({"at": "B7"}));
    until("C has it", || c.json(&["topic", "show", "t/gate"])["blobs"] == blobs);
    wrong(&c);
    b.kill();
    b.up();
    wrong(&b);
    // What one mesh prints another takes, with all that its types need.
    let printed = b.told(&["export", "t/gate"]);
    let other = world.found("D");
    let taken = other.piped(&["publish", "-"], &printed);
    assert!(taken.status.success(), "{}", String::from_utf8_lossy(&taken.stderr));
    assert_eq!((other.get("t/gate"), &other.json(&["topic", "show", "t/gate"])["blobs"]), (json!({"at": "B7"}), &blobs));
    wrong(&other);
    world.logged_no_error();
}

#[test]
fn a_client_brings_a_blob_and_gets_it_back() {
    let world = World::new();
    let a = world.found("A");
    let content: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
    let hash = block(async {
        let client = a.connect().await;
        let hash = client.put_blob(&content).await.expect("it is taken");
        assert_eq!(client.put_blob(&content).await.expect("it is here"), hash);
        assert_eq!(client.put_blob(b"").await.expect("it is taken"), BlobHash::of(b""));
        assert!(client.blob(hash).await.expect("it is here") == content);
        assert_eq!(client.blob(BlobHash::of(b"")).await.expect("it is here"), b"");
        refused_as(client.blob(BlobHash::of(b"another")).await, Code::BlobMissing);
        refused_as(client.put_blob(&vec![0; 9 << 20]).await, Code::TooLarge);
        hash
    });
    assert_eq!(hash, BlobHash::of(&content));
    a.refused(&["topic", "add", "x", "--type", "json", "--prop", &format!("schema=blob:{hash}")]).says(1, &["blob", "invalid-definition"]);
    let unknown = BlobHash::of(b"another");
    a.refused(&["topic", "add", "x", "--type", "json", "--prop", &format!("schema=blob:{unknown}")])
        .says(1, &[&unknown.to_string(), "blob-missing"]);
    world.logged_no_error();
}
