//! Who is told of missing topics.

use std::collections::BTreeMap;

use crate::node::{ConnectionId, testing::Meshed};
use crate::protocol::{FromNode, MissingTopic, Page, Request, Response, TopicSpec};

/// A client that is told of what is missing below a path.
fn maker(meshed: &mut Meshed, at: usize, prefix: &str) -> ConnectionId {
    let client = meshed.client(at);
    assert_eq!(meshed.ask(at, client, Request::MissingRegister { prefix: prefix.into() }), Response::Done);
    meshed.pass(1_000);
    client
}

fn told(meshed: &mut Meshed, at: usize, client: ConnectionId) -> Vec<MissingTopic> {
    let (now, mut told) = (meshed.now(), Vec::new());
    while let Some(message) = meshed.nodes[at].poll_updates(now, client) {
        if let FromNode::Missing(missing) = message {
            told.push(*missing);
        }
    }
    told
}

fn subscribe(meshed: &mut Meshed, at: usize, selector: &str) -> ConnectionId {
    let client = meshed.client(at);
    meshed.ask(at, client, Request::Subscribe { selector: selector.into(), credit: 10, stamps: false, heard: None });
    let now = meshed.now();
    while meshed.nodes[at].poll_updates(now, client).is_some() {}
    meshed.pass(200);
    client
}

#[test]
fn the_longest_path_counts_and_one_of_its_sessions_is_told_wherever_it_is_asked_for() {
    let mut meshed = Meshed::with_section(3, &[], "s/a");
    let (all, deep) = (maker(&mut meshed, 1, ""), [(1, maker(&mut meshed, 1, "s/deep")), (2, maker(&mut meshed, 2, "s/deep"))]);
    subscribe(&mut meshed, 0, "s/a");
    subscribe(&mut meshed, 0, "?s/deep/x//");
    subscribe(&mut meshed, 0, "s/other");
    let of_deep: Vec<MissingTopic> = deep.iter().flat_map(|(at, client)| told(&mut meshed, *at, *client)).collect();
    let [missing] = &of_deep[..] else { panic!("{of_deep:?}") };
    assert_eq!((missing.selector.as_str(), missing.prefix.as_str(), missing.node.as_str()), ("?s/deep/x//", "s/deep", "own"));
    assert_eq!((missing.principal.as_str(), missing.session), ("$operator", None));
    let of_all: Vec<String> = told(&mut meshed, 1, all).into_iter().map(|missing| missing.selector).collect();
    assert_eq!(of_all, [">s/other"], "what is there is not missing");
    // A look at values counts as well, and what is made is there for whoever waits.
    let client = meshed.client(0);
    meshed.ask(0, client, Request::Values { selector: "s/third".into(), page: Page::default() });
    meshed.pass(200);
    assert_eq!(told(&mut meshed, 1, all).len(), 1);
    let waits = subscribe(&mut meshed, 0, "s/late");
    meshed.ask(1, all, Request::TopicsAdd { topic: TopicSpec::of("binary"), paths: vec!["s/late".into()] });
    meshed.pass(500);
    let now = meshed.now();
    assert!(matches!(meshed.nodes[0].poll_updates(now, waits), Some(FromNode::Updates(updates)) if updates.len() == 1));
    assert_eq!(meshed.ask(1, all, Request::MissingUnregister { prefix: String::new() }), Response::Done);
    meshed.pass(500);
    subscribe(&mut meshed, 2, "s/fourth");
    assert!(told(&mut meshed, 1, all).iter().all(|missing| missing.selector == ">s/late"));
}

#[test]
fn if_one_cannot_be_told_another_is() {
    let mut meshed = Meshed::with_section(3, &[], "s/a");
    let (_, here) = (maker(&mut meshed, 2, "s"), maker(&mut meshed, 1, "s"));
    // One's node stands still, and nobody has noticed: whoever's turn it is, the other is told in the end.
    meshed.stopped.insert(2);
    for number in 0..4 {
        subscribe(&mut meshed, 0, &format!("s/x{number}"));
    }
    meshed.pass(3_000);
    let told: BTreeMap<String, MissingTopic> =
        told(&mut meshed, 1, here).into_iter().map(|missing| (missing.selector.clone(), missing)).collect();
    assert_eq!(told.into_keys().collect::<Vec<_>>(), [">s/x0", ">s/x1", ">s/x2", ">s/x3"]);
}
