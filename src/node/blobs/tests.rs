//! Blobs brought by clients, named by topics, and read on other nodes.

use std::sync::Arc;

use mangrove_crdt::{
    blob::{BLOB_BYTES_MAX, BlobHash},
    json_schema::JsonSchema,
    path::Path,
};
use serde_json::json;

use crate::node::{ConnectionId, testing::Meshed};
use crate::protocol::{BLOB_PIECE_MAX, BlobRow, Code, Event, FromNode, Page, Request, Response, SetBatch, SetItem, Target, TopicSpec};

/// A schema of integers that no definition has room for, as a blob.
fn schema() -> Vec<u8> {
    JsonSchema::to_blob(&json!({"type": "integer", "description": "x".repeat(10_000)})).expect("a schema")
}

fn spec(content: &[u8]) -> TopicSpec {
    let schema = format!("blob:{}", BlobHash::of(content));
    TopicSpec { topic_type: "json".into(), properties: [("schema".to_owned(), schema)].into() }
}

fn add(content: &[u8], path: &str) -> Request {
    Request::TopicsAdd { topic: spec(content), paths: vec![path.into()] }
}

fn set(path: &str, value: &[u8]) -> Request {
    let items = vec![SetItem::new(Target::Path(path.into()), value.to_vec())];
    Request::Set(SetBatch { items, add: None, durability: None, under: None })
}

/// How far a blob has come with another piece.
fn put(meshed: &mut Meshed, at: usize, client: ConnectionId, hash: BlobHash, offset: u64, total: usize, bytes: &[u8]) -> Result<u64, Code> {
    match meshed.ask(at, client, Request::BlobPut { hash, offset, total: total as u64, bytes: bytes.to_vec() }) {
        Response::BlobPut { upto } => Ok(upto),
        Response::Refused(refusal) => Err(refusal.code),
        other => panic!("{other:?}"),
    }
}

fn code(response: Response) -> Option<Code> {
    match response {
        Response::Refused(refusal) => Some(refusal.code),
        Response::Written { refused, .. } | Response::Added { refused, .. } => refused.into_iter().next().map(|item| item.refusal.code),
        _ => None,
    }
}

#[test]
fn a_blob_comes_in_pieces_and_is_there_for_topics_on_every_node() {
    let mut meshed = Meshed::with_section(2, &[], "s/a");
    let (content, client, other) = (schema(), meshed.client(0), meshed.client(1));
    let (hash, total) = (BlobHash::of(&content), content.len());
    assert_eq!(code(meshed.ask(0, client, add(&content, "s/j"))), Some(Code::BlobMissing));
    assert_eq!(put(&mut meshed, 0, client, hash, 0, total, &[]), Ok(0));
    assert_eq!(put(&mut meshed, 0, client, hash, 0, total, &content[..100]), Ok(100));
    assert_eq!(put(&mut meshed, 0, client, hash, 50, total, &content[50..]), Ok(100), "it goes on at 100");
    assert_eq!(put(&mut meshed, 0, client, hash, 101, total, &content[101..]), Ok(100));
    assert_eq!(code(meshed.ask(0, client, add(&content, "s/j"))), Some(Code::BlobMissing), "not yet");
    assert_eq!(put(&mut meshed, 0, client, hash, 100, total, &content[100..]), Ok(total as u64));
    let second = meshed.client(0);
    assert_eq!(put(&mut meshed, 0, second, hash, 0, total, &[]), Ok(total as u64), "whoever else has it need not send it");
    assert_eq!(code(meshed.ask(0, client, add(&content, "s/j"))), None);
    meshed.pass(3_000);
    assert_eq!(code(meshed.ask(1, other, set("s/j", b"\x63abc"))), Some(Code::InvalidValue));
    assert_eq!(code(meshed.ask(1, other, set("s/j", &[7]))), None);
    let Response::Topic(detail) = meshed.ask(1, other, Request::TopicShow { path: "s/j".into() }) else { panic!("it is there") };
    assert_eq!((detail.topic, detail.blobs), (spec(&content), vec![BlobRow { hash, bytes: Some(total as u64) }]));
    let got = meshed.ask(1, other, Request::BlobGet { hash, offset: 10 });
    assert_eq!(got, Response::Blob { total: total as u64, bytes: content[10..].to_vec() });
    assert_eq!(code(meshed.ask(1, other, Request::BlobGet { hash, offset: total as u64 + 1 })), Some(Code::InvalidRequest));
    // What was acknowledged is on the disk with what it needs.
    meshed.restart(0);
    let client = meshed.client(0);
    meshed.cut_off(0);
    assert_eq!(code(meshed.ask(0, client, set("s/j", &[8]))), None);
}

#[test]
fn what_is_brought_is_bounded_and_proved() {
    let mut meshed = Meshed::with_section(1, &[], "s/a");
    let (client, hash) = (meshed.client(0), BlobHash::of(b"abc"));
    let asks = |meshed: &mut Meshed, offset, total, bytes: &[u8]| put(meshed, 0, client, hash, offset, total, bytes);
    assert_eq!(asks(&mut meshed, 0, BLOB_BYTES_MAX + 1, b"abc"), Err(Code::TooLarge));
    assert_eq!(asks(&mut meshed, 0, BLOB_BYTES_MAX, &vec![0; BLOB_PIECE_MAX + 1]), Err(Code::TooLarge));
    assert_eq!(asks(&mut meshed, 0, 3, b"abcd"), Err(Code::InvalidRequest));
    assert_eq!(asks(&mut meshed, 0, 3, b"abd"), Err(Code::InvalidRequest), "another blob");
    assert_eq!(asks(&mut meshed, 3, 3, b""), Ok(0), "nothing of that is left");
    assert_eq!(code(meshed.ask(0, client, Request::BlobGet { hash, offset: 0 })), Some(Code::BlobMissing));
    // No more at once than there is room for; whoever does not go on, or goes, makes room.
    let many: Vec<ConnectionId> = (0..8).map(|_| meshed.client(0)).collect();
    for (at, client) in many.iter().enumerate() {
        assert_eq!(put(&mut meshed, 0, *client, BlobHash([at as u8; 32]), 0, BLOB_BYTES_MAX, b"x"), Ok(1));
    }
    assert_eq!(asks(&mut meshed, 0, 3, b"a"), Err(Code::NotReady));
    meshed.gone(0, many[0]);
    assert_eq!(asks(&mut meshed, 0, 3, b"a"), Ok(1));
    meshed.pass(20_000);
    assert_eq!(asks(&mut meshed, 1, 3, b"b"), Ok(2));
    meshed.pass(20_000);
    assert_eq!(put(&mut meshed, 0, many[1], BlobHash([1; 32]), 1, BLOB_BYTES_MAX, b"x"), Ok(0), "it was given up");
    assert_eq!(asks(&mut meshed, 2, 3, b"c"), Ok(3));
    // A definition that names what is no schema is none.
    assert_eq!(code(meshed.ask(0, client, add(b"abc", "s/j"))), Some(Code::InvalidDefinition));
    // Named by nothing, it is kept for a minute.
    meshed.pass(55_000);
    assert_eq!(meshed.ask(0, client, Request::BlobGet { hash, offset: 0 }), Response::Blob { total: 3, bytes: b"abc".to_vec() });
    meshed.pass(10_000);
    assert_eq!(code(meshed.ask(0, client, Request::BlobGet { hash, offset: 0 })), Some(Code::BlobMissing));
}

#[test]
fn a_topic_waits_for_its_blob_and_says_so() {
    let mut meshed = Meshed::with_section(2, &[], "s/a");
    let (content, client, other) = (schema(), meshed.client(0), meshed.client(1));
    // As if it had come from a node that is gone.
    let definition = spec(&content).definition().expect("a definition");
    let path = Path::parse("s/j").expect("a path");
    assert!(meshed.nodes[0].replica.add_topics(&[(path, definition)])[0].is_ok());
    meshed.pass(3_000);
    let listed =
        |meshed: &mut Meshed| match meshed.ask(1, other, Request::Topics { selector: "s/j".into(), page: Page::default(), pending: false })
        {
            Response::Topics { rows, .. } => rows.iter().map(|row| row.waits).collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        };
    assert_eq!(listed(&mut meshed), [true]);
    let Response::Written { refused, .. } = meshed.ask(1, other, set("s/j", &[7])) else { panic!("it is refused") };
    let [refused] = &refused[..] else { panic!("{refused:?}") };
    assert!(refused.refusal.code == Code::BlobMissing && refused.refusal.what == "s/j" && !refused.refusal.hint.is_empty(), "{refused:?}");
    assert!(meshed.nodes[1].concerns().iter().any(|concern| concern.check == "blobs"));
    assert_eq!(code(meshed.ask(1, other, add(&content, "s/k"))), None, "it is on its way already");
    meshed.ask(1, other, Request::Subscribe { selector: "s/j".into(), credit: 10, stamps: false, heard: None });
    // Brought to one, it comes to both.
    assert_eq!(put(&mut meshed, 0, client, BlobHash::of(&content), 0, content.len(), &content), Ok(content.len() as u64));
    assert_eq!(code(meshed.ask(0, client, set("s/j", &[7]))), None);
    meshed.pass(3_000);
    assert_eq!((listed(&mut meshed), meshed.nodes[1].concerns().len()), (vec![false], 0));
    let (now, mut told) = (meshed.now(), Vec::new());
    while let Some(message) = meshed.nodes[1].poll_updates(now, other) {
        if let FromNode::Updates(updates) = message {
            told.extend(
                updates.into_iter().filter_map(|update| if let Event::Value { value, .. } = update.event { Some(value) } else { None }),
            );
        }
    }
    assert_eq!(told, [Arc::from(&[7][..])]);
}
