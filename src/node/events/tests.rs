//! Events are appended anywhere, told in order, edited in their place, and read in parts.

use std::collections::BTreeMap;

use super::*;
use crate::{
    node::testing::Meshed,
    protocol::{Change, Event, FromNode, Request, SetBatch, SetItem, Target, TopicSpec, Update, Wish},
};

const PATH: &str = "s/log";

fn spec(keep: u32) -> TopicSpec {
    let properties = [("of", "binary"), ("keep", &keep.to_string())].map(|(key, value)| (key.to_owned(), value.to_owned()));
    TopicSpec { topic_type: "timeseries".into(), properties: BTreeMap::from(properties) }
}

fn append(meshed: &mut Meshed, at: usize, values: impl IntoIterator<Item = u8>) {
    let client = meshed.client(at);
    let items = values.into_iter().map(|value| SetItem::new(Target::Path(PATH.into()), vec![value])).collect();
    let written = meshed.ask(at, client, Request::Set(SetBatch { items, add: None, durability: None, under: None }));
    assert!(matches!(&written, Response::Written { refused, .. } if refused.is_empty()), "{written:?}");
    meshed.gone(at, client);
}

fn rows(meshed: &mut Meshed, at: usize, wanted: EventsWanted, page: Page) -> (Vec<EventRow>, Option<String>) {
    let client = meshed.client(at);
    let answer = meshed.ask(at, client, Request::Events { path: PATH.into(), wanted, page });
    meshed.gone(at, client);
    match answer {
        Response::Events { rows, next } => (rows, next),
        other => panic!("{other:?}"),
    }
}

/// The values of all events, in order.
fn values(meshed: &mut Meshed, at: usize) -> Vec<u8> {
    rows(meshed, at, EventsWanted::default(), Page::default()).0.iter().map(|row| row.value[0]).collect()
}

fn edit(meshed: &mut Meshed, at: usize, event: &str, value: u8) -> Response {
    let client = meshed.client(at);
    let wish = Wish::Edit { event: event.into(), value: vec![value] };
    meshed.ask(at, client, Request::Change(Box::new(Change::new(PATH, wish))))
}

fn told(meshed: &mut Meshed, at: usize, client: ConnectionId) -> Vec<(u64, u8, bool)> {
    let mut told = Vec::new();
    let now = meshed.now();
    while let Some(message) = meshed.nodes[at].poll_updates(now, client) {
        let FromNode::Updates(updates) = message else { continue };
        for Update { event, .. } in updates {
            if let Event::Value { value, event: Some(mark), .. } = event {
                told.push((mark.event.sequence, value[0], mark.edited.is_some()));
            }
        }
    }
    told
}

fn made(keep: u32) -> Meshed {
    let mut meshed = Meshed::with_section(2, &[], "s/other");
    let client = meshed.client(0);
    let added = meshed.ask(0, client, Request::TopicsAdd { topic: spec(keep), paths: vec![PATH.into()] });
    assert!(matches!(added, Response::Added { created: 1, .. }), "{added:?}");
    meshed.pass(500);
    meshed
}

#[test]
fn events_of_both_nodes_are_in_one_order_and_told_as_they_come() {
    let mut meshed = made(100);
    let listener = meshed.client(1);
    meshed.ask(1, listener, Request::Subscribe { selector: PATH.into(), credit: 1_000, stamps: false, heard: None });
    assert!(told(&mut meshed, 1, listener).is_empty());
    append(&mut meshed, 0, [1, 2]);
    meshed.pass(500);
    append(&mut meshed, 1, [3]);
    meshed.pass(500);
    assert_eq!(told(&mut meshed, 1, listener), [(1, 1, false), (2, 2, false), (3, 3, false)]);
    assert_eq!((values(&mut meshed, 0), values(&mut meshed, 1)), (vec![1, 2, 3], vec![1, 2, 3]));
    // Who comes later hears the newest.
    let late = meshed.client(0);
    meshed.ask(0, late, Request::Subscribe { selector: PATH.into(), credit: 1_000, stamps: false, heard: None });
    assert_eq!(told(&mut meshed, 0, late), [(3, 3, false)]);
    // An edit takes the event's place, and is told as that.
    let answer = edit(&mut meshed, 1, "2", 20);
    assert!(matches!(&answer, Response::Changed { event: Some(event), .. } if event.starts_with("2.")), "{answer:?}");
    meshed.pass(500);
    assert_eq!(told(&mut meshed, 0, late), [(2, 20, true)]);
    assert_eq!((values(&mut meshed, 0), values(&mut meshed, 1)), (vec![1, 20, 3], vec![1, 20, 3]));
    for (event, code) in [("9", Code::NoSuchEvent), ("x", Code::InvalidRequest)] {
        let answer = edit(&mut meshed, 1, event, 1);
        assert!(matches!(&answer, Response::Refused(refusal) if refusal.code == code), "{answer:?}");
    }
}

#[test]
fn both_sides_of_a_split_append_and_both_histories_survive() {
    let mut meshed = made(100);
    append(&mut meshed, 0, [1]);
    meshed.pass(500);
    meshed.cut(0, 1);
    append(&mut meshed, 0, [10, 11]);
    append(&mut meshed, 1, [20, 21, 22]);
    meshed.link(0, 1);
    meshed.pass(2_000);
    let (here, there) = (values(&mut meshed, 0), values(&mut meshed, 1));
    assert_eq!(here, there);
    let mut sorted = here.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, [1, 10, 11, 20, 21, 22]);
    // Two have the sequence 2, and only in full they have names of their own.
    let answer = edit(&mut meshed, 0, "2", 30);
    let Response::Refused(refusal) = answer else { panic!("{answer:?}") };
    assert_eq!((refusal.code, refusal.who.len()), (Code::AmbiguousEvent, 2));
    assert!(matches!(edit(&mut meshed, 0, &refusal.who[1], 30), Response::Changed { .. }));
    meshed.pass(500);
    let after = values(&mut meshed, 1);
    assert_eq!(after.iter().zip(&there).filter(|(after, before)| after != before).collect::<Vec<_>>(), [(&30, &there[2])]);
    // Both edit one event: the one that is beaten is told of.
    meshed.cut(0, 1);
    assert!(matches!(edit(&mut meshed, 0, "1", 40), Response::Changed { .. }));
    assert!(matches!(edit(&mut meshed, 1, "1", 41), Response::Changed { .. }));
    meshed.link(0, 1);
    meshed.pass(3_000);
    assert_eq!(values(&mut meshed, 0), values(&mut meshed, 1));
    let operator = meshed.client(0);
    let Response::Displaced { rows, .. } = meshed.ask(0, operator, Request::Displaced { selector: PATH.into(), page: Page::default() })
    else {
        panic!("refused")
    };
    let [row] = rows.as_slice() else { panic!("{rows:?}") };
    let (stands, lost) = (values(&mut meshed, 0)[0], [40, 41]);
    assert!(lost.contains(&stands));
    assert!(matches!(meshed.ask(0, operator, Request::DisplacedRestore { id: row.id.clone() }), Response::Done));
    assert_eq!(values(&mut meshed, 0)[0], lost[0] + lost[1] - stands);
}

#[test]
fn the_newest_are_kept_and_parts_are_read() {
    let mut meshed = made(10);
    append(&mut meshed, 0, 0..23);
    meshed.pass(500);
    assert_eq!((values(&mut meshed, 0), values(&mut meshed, 1)), ((13..23).collect(), (13..23).collect::<Vec<_>>()));
    let sequences = |rows: &[EventRow]| rows.iter().map(|row| row.mark.event.sequence).collect::<Vec<_>>();
    let part = EventsWanted { from: Some(16), to: Some(18), ..EventsWanted::default() };
    assert_eq!(sequences(&rows(&mut meshed, 1, part, Page::default()).0), [16, 17, 18]);
    let last = EventsWanted { to: Some(22), last: Some(2), ..EventsWanted::default() };
    assert_eq!(sequences(&rows(&mut meshed, 1, last, Page::default()).0), [21, 22]);
    let none = EventsWanted { from: Some(18), to: Some(16), ..EventsWanted::default() };
    assert!(rows(&mut meshed, 1, none, Page::default()).0.is_empty());
    let (mut read, mut after) = (Vec::new(), None);
    loop {
        let (page, next) = rows(&mut meshed, 1, EventsWanted { last: Some(8), ..EventsWanted::default() }, Page { after, limit: 3 });
        assert!(page.len() <= 3);
        read.extend(sequences(&page));
        after = next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(read, (16..=23).collect::<Vec<_>>());
    // Somewhen between the first and the last of them.
    let at_ms = |rows: &[EventRow]| rows[0].mark.unix_ms;
    let first = at_ms(&rows(&mut meshed, 1, EventsWanted::default(), Page::default()).0);
    append(&mut meshed, 0, [99]);
    let late = EventsWanted { since_unix_ms: Some(first + 1), ..EventsWanted::default() };
    assert_eq!(sequences(&rows(&mut meshed, 0, late, Page::default()).0), [24]);
}

#[test]
fn what_is_too_old_is_not_shown() {
    let mut meshed = Meshed::new(1);
    let client = meshed.client(0);
    let mut spec = spec(10);
    spec.properties.insert("keep_for".into(), "1m".into());
    meshed.ask(0, client, Request::TopicsAdd { topic: spec, paths: vec![PATH.into()] });
    append(&mut meshed, 0, [1]);
    meshed.pass(40_000);
    append(&mut meshed, 0, [2]);
    assert_eq!(values(&mut meshed, 0), [1, 2]);
    meshed.pass(40_000);
    assert_eq!(values(&mut meshed, 0), [2]);
}
