//! What topics say of how their values are told: whether they are kept, whether any may be skipped, and which go first.

use std::collections::BTreeMap;

use crate::node::{ConnectionId, Input, testing::Meshed};
use crate::protocol::{Event, FromNode, Page, Request, Response, SetBatch, SetItem, Target, TopicSpec};

fn add(meshed: &mut Meshed, path: &str, property: (&str, &str)) {
    let properties = BTreeMap::from([(property.0.to_owned(), property.1.to_owned())]);
    let client = meshed.client(0);
    let topic = TopicSpec { topic_type: "binary".into(), properties };
    let added = meshed.ask(0, client, Request::TopicsAdd { topic, paths: vec![path.into()] });
    assert!(matches!(added, Response::Added { created: 1, .. }), "{added:?}");
    meshed.gone(0, client);
    meshed.pass(2_000);
}

/// Writes values in one request.
fn set(meshed: &mut Meshed, at: usize, values: &[(&str, u8)]) {
    let items = values.iter().map(|(path, value)| SetItem::new(Target::Path((*path).into()), vec![*value])).collect();
    let client = meshed.client(at);
    let answer = meshed.ask(at, client, Request::Set(SetBatch { items, add: None, durability: None, under: None }));
    assert!(matches!(&answer, Response::Written { refused, .. } if refused.is_empty()), "{answer:?}");
    meshed.gone(at, client);
}

fn subscribe(meshed: &mut Meshed, at: usize, credit: u32) -> ConnectionId {
    let client = meshed.client(at);
    let request = Request::Subscribe { selector: "?s//".into(), credit, stamps: false, heard: None };
    assert!(matches!(meshed.ask(at, client, request), Response::Subscribed { .. }));
    client
}

fn grant(meshed: &mut Meshed, at: usize, client: ConnectionId, updates: u32) {
    meshed.input(at, Input::Credit { session: client, subscription: 1, updates });
}

/// What a subscriber is told: `+path`, `path=value`, with how many it has missed before.
fn told(meshed: &mut Meshed, at: usize, client: ConnectionId) -> Vec<String> {
    let (now, mut told) = (meshed.now(), Vec::new());
    while let Some(message) = meshed.nodes[at].poll_updates(now, client) {
        let FromNode::Updates(updates) = message else { continue };
        for update in updates {
            let Target::Path(path) = update.topic else { panic!("it keeps no aliases") };
            told.push(match update.event {
                Event::Added { .. } => format!("+{path}"),
                Event::Value { value, missed: Some(missed), .. } => format!("{path}={} after {missed}", value[0]),
                Event::Value { value, .. } => format!("{path}={}", value[0]),
                other => panic!("{other:?}"),
            });
        }
    }
    told
}

#[test]
fn a_value_that_is_not_kept_is_for_those_who_are_there() {
    let mut meshed = Meshed::with_section(2, &[], "s/kept");
    add(&mut meshed, "s/news", ("retain", "false"));
    let there = subscribe(&mut meshed, 1, 100);
    assert_eq!(told(&mut meshed, 1, there), ["+s/kept", "+s/news"]);
    set(&mut meshed, 0, &[("s/news", 1), ("s/kept", 1)]);
    meshed.pass(100);
    let mut heard = told(&mut meshed, 1, there);
    heard.sort();
    assert_eq!(heard, ["s/kept=1", "s/news=1"]);
    let late = subscribe(&mut meshed, 1, 100);
    assert_eq!(told(&mut meshed, 1, late), ["+s/kept", "s/kept=1", "+s/news"]);
    let Response::Values { rows, .. } = meshed.ask(1, late, Request::Values { selector: "s/news".into(), page: Page::default() }) else {
        panic!("refused")
    };
    assert_eq!(rows[0].value, None);
    set(&mut meshed, 0, &[("s/news", 2)]);
    meshed.pass(100);
    assert_eq!([told(&mut meshed, 1, there), told(&mut meshed, 1, late)], [["s/news=2"], ["s/news=2"]]);
}

#[test]
fn where_none_may_be_skipped_none_is_but_for_those_that_are_too_many() {
    let mut meshed = Meshed::with_section(1, &[], "s/newest");
    add(&mut meshed, "s/each", ("conflate", "off"));
    let client = subscribe(&mut meshed, 0, 2);
    assert_eq!(told(&mut meshed, 0, client), ["+s/each", "+s/newest"]);
    let values: Vec<(&str, u8)> = (1..6).flat_map(|value| [("s/each", value), ("s/newest", value)]).collect();
    set(&mut meshed, 0, &values);
    grant(&mut meshed, 0, client, 1_000);
    let mut heard = told(&mut meshed, 0, client);
    heard.sort();
    assert_eq!(heard, ["s/each=1", "s/each=2", "s/each=3", "s/each=4", "s/each=5", "s/newest=5"]);
    // One who takes nothing misses the oldest, and is told how many.
    let slow = subscribe(&mut meshed, 0, 4);
    assert_eq!(told(&mut meshed, 0, slow), ["+s/each", "s/each=5", "+s/newest", "s/newest=5"]);
    for round in 0..300u32 {
        set(&mut meshed, 0, &[("s/each", round as u8)]);
    }
    grant(&mut meshed, 0, slow, 1_000);
    let heard = told(&mut meshed, 0, slow);
    assert_eq!((heard.len(), heard[0].as_str(), heard[1].as_str()), (256, "s/each=44 after 44", "s/each=45"));
}

#[test]
fn the_urgent_go_first() {
    let mut meshed = Meshed::with_section(1, &[], "s/b");
    add(&mut meshed, "s/a", ("priority", "low"));
    add(&mut meshed, "s/c", ("priority", "high"));
    let client = subscribe(&mut meshed, 0, 3);
    assert_eq!(told(&mut meshed, 0, client), ["+s/a", "+s/b", "+s/c"]);
    set(&mut meshed, 0, &[("s/a", 1), ("s/b", 1), ("s/c", 1)]);
    grant(&mut meshed, 0, client, 10);
    assert_eq!(told(&mut meshed, 0, client), ["s/c=1", "s/b=1", "s/a=1"]);
}
