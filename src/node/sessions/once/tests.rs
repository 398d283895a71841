//! What is asked for twice is done once, wherever it is asked for.

use std::collections::BTreeMap;

use mangrove_crdt::path::Path;

use crate::node::{ConnectionId, testing::Meshed};
use crate::protocol::{Code, OpenSession, Request, Response, SetBatch, SetItem, Target};

const PATH: &str = "s/a";

fn opened(meshed: &mut Meshed, at: usize) -> (ConnectionId, OpenSession) {
    let client = meshed.client(at);
    match meshed.ask(at, client, Request::SessionOpen { reconnect_timeout_ms: Some(60_000), properties: BTreeMap::new() }) {
        Response::Session(session) => (client, *session),
        other => panic!("{other:?}"),
    }
}

fn resume(meshed: &mut Meshed, at: usize, session: &OpenSession) -> ConnectionId {
    let client = meshed.comes_back(at);
    let answer = meshed.ask(at, client, Request::SessionResume { id: session.id, secret: session.secret.clone(), epoch: session.epoch });
    assert!(matches!(answer, Response::Session(_)), "{answer:?}");
    client
}

fn set(value: u8) -> Request {
    let items = vec![SetItem::new(Target::Path(PATH.into()), vec![value])];
    Request::Set(SetBatch { items, add: None, durability: None, under: None })
}

fn once(meshed: &mut Meshed, at: usize, client: ConnectionId, number: u64, floor: u64, request: Request) -> Response {
    meshed.ask(at, client, Request::Once { number, floor, request: Box::new(request) })
}

/// The value at a node, and which write it is.
fn value(meshed: &Meshed, at: usize) -> (u8, String) {
    let (replica, path) = (meshed.nodes[at].replica(), Path::parse(PATH).unwrap());
    let write = replica.value(replica.section_of(&path), &path).expect("a value");
    (write.value.as_ref().expect("a value")[0], format!("{:?}", replica.dot(write.dot)))
}

fn written() -> Response {
    Response::Written { written: 1, created: 0, refused: Vec::new() }
}

#[test]
fn what_is_asked_for_again_is_answered_and_not_done_again() {
    let mut meshed = Meshed::with_section(3, &[], PATH);
    let (client, session) = opened(&mut meshed, 0);
    assert_eq!(once(&mut meshed, 0, client, 1, 1, set(1)), written());
    let first = value(&meshed, 0);
    assert_eq!(once(&mut meshed, 0, client, 1, 1, set(1)), written());
    assert_eq!(value(&meshed, 0), first, "here");
    // Somebody else writes meanwhile, and the client asks again elsewhere: that does not come back.
    meshed.pass(1_000);
    let other = meshed.client(2);
    meshed.ask(2, other, set(7));
    meshed.gone(0, client);
    meshed.pass(1_000);
    meshed.cut_off(0);
    let client = resume(&mut meshed, 1, &session);
    let after = value(&meshed, 1);
    assert_eq!(after.0, 7);
    assert_eq!(once(&mut meshed, 1, client, 1, 1, set(1)), written());
    assert_eq!(value(&meshed, 1), after, "there");
    // And so on, over a restart, until its client has heard.
    assert_eq!(once(&mut meshed, 1, client, 2, 1, set(2)), written());
    let second = value(&meshed, 1);
    meshed.restart(1);
    meshed.cut_off(0);
    let client = resume(&mut meshed, 1, &session);
    assert_eq!(once(&mut meshed, 1, client, 2, 2, set(2)), written());
    assert_eq!(value(&meshed, 1), second);
    let late = once(&mut meshed, 1, client, 1, 2, set(1));
    assert!(matches!(&late, Response::Refused(refusal) if refusal.code == Code::InvalidRequest), "{late:?}");
    let read = once(&mut meshed, 1, client, 3, 3, Request::Nodes);
    assert!(matches!(&read, Response::Refused(refusal) if refusal.code == Code::InvalidRequest), "{read:?}");
}

#[test]
fn what_the_lost_home_has_yet_to_spread_is_done_by_the_next() {
    let mut meshed = Meshed::with_section(3, &[], PATH);
    let (client, session) = opened(&mut meshed, 0);
    meshed.pass(1_000);
    meshed.cut_off(0);
    assert_eq!(once(&mut meshed, 0, client, 1, 1, set(1)), written());
    meshed.gone(0, client);
    let client = resume(&mut meshed, 1, &session);
    assert_eq!(once(&mut meshed, 1, client, 1, 1, set(1)), written());
    assert_eq!(value(&meshed, 1).0, 1);
    let other = meshed.client(2);
    meshed.pass(500);
    meshed.ask(2, other, set(9));
    meshed.heal();
    meshed.pass(3_000);
    let values: Vec<(u8, String)> = (0..3).map(|at| value(&meshed, at)).collect();
    assert!(values.iter().all(|value| *value == values[0]) && values[0].0 == 9, "{values:?}");
    // What the old home says of it now is no news.
    assert_eq!(once(&mut meshed, 1, client, 1, 1, set(1)), written());
    assert_eq!(value(&meshed, 1).0, 9);
}

#[test]
fn nothing_is_left_of_it_when_its_session_has_ended() {
    let mut meshed = Meshed::with_section(2, &[], PATH);
    let (client, _) = opened(&mut meshed, 0);
    for number in 1..=5 {
        assert_eq!(once(&mut meshed, 0, client, number, number, set(number as u8)), written());
    }
    assert_eq!(meshed.ask(0, client, Request::SessionClose), Response::Done);
    meshed.pass(10_000);
    for node in &meshed.nodes {
        let records = node.replica().section(mangrove_crdt::id::SectionId::MESH).map(|mesh| mesh.standing.iter().count());
        assert_eq!(records, Some(2), "the nodes' own");
    }
}
