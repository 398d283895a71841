//! What clients with the right to do so do for others, from any node: subscribe them, make what they miss; and topics that go with those who made them.

use std::time::Duration;

use mangrove::client::{Client, ClientError, ClientState, Heard, SessionOptions, Subscription};
use mangrove::protocol::{Code, Event, TopicSpec};
use serde_json::json;

use crate::claims::QUICK;
use crate::support::{Node, PATIENCE, World, beside, block, until, value_of, write};

fn mesh(world: &World) -> [Node; 3] {
    let a = world.found_with("A", QUICK);
    let b = world.join_with("B", &a, "member", QUICK);
    let c = world.join_with("C", &a, "member", QUICK);
    a.told(&["section", "add", "plant"]);
    a.set("plant/rpm", "1");
    c.shows("plant/rpm", 1);
    [a, b, c]
}

async fn roams(node: &Node, desk: &str) -> Client {
    let properties = [("desk".to_owned(), desk.to_owned())].into();
    node.connect_with(|options| options.session = Some(SessionOptions { properties, ..SessionOptions::default() })).await
}

/// The next value that a subscriber hears.
async fn value(topics: &mut Subscription) -> serde_json::Value {
    loop {
        match tokio::time::timeout(PATIENCE, topics.next()).await.expect("in time").expect("it goes on") {
            Heard::Topic { event: Event::Value { value, .. }, .. } => return value_of(&value),
            _ => continue,
        }
    }
}

#[test]
fn a_session_is_subscribed_from_elsewhere_and_stays_so_where_it_goes() {
    let world = World::new();
    let [mut a, b, c] = mesh(&world);
    let (client, other) = (block(roams(&a, "7")), block(roams(&a, "8")));
    let (mut given, mut none) = (client.given_subscriptions(), other.given_subscriptions());
    until("C knows both sessions", || c.json(&["session", "ls"]).as_array().map_or(0, Vec::len) == 2);
    assert_eq!(c.json(&["session", "subscribe", "desk is '7'", "?plant//"])["sessions"], 1);
    c.refused(&["session", "subscribe", "desk is '9'", "?plant//"]).says(1, &["[unknown-session]"]);
    let mut topics = block(async {
        let (selector, topics) = tokio::time::timeout(PATIENCE, given.next()).await.expect("in time").expect("it is told");
        assert_eq!(selector, "?plant//");
        topics
    });
    assert_eq!(block(value(&mut topics)), json!(1));
    until("B knows the session", || b.json(&["session", "ls"]).as_array().map_or(0, Vec::len) == 2);
    a.kill();
    block(async {
        client.changed(ClientState::Active).await;
        client.changed(ClientState::Recovering).await;
        write(&client, "plant/rpm", &json!(2), None).await.expect("it goes on");
        assert_eq!(value(&mut topics).await, json!(2), "it is still subscribed");
    });
    assert_eq!(c.json(&["session", "unsubscribe", "has desk", "?plant//"])["sessions"], 2);
    block(async {
        let ended = loop {
            match tokio::time::timeout(PATIENCE, topics.next()).await.expect("in time") {
                Ok(_) => continue,
                Err(error) => break error,
            }
        };
        assert!(matches!(&ended, ClientError::Refused(refusal) if refusal.code == Code::Deselected), "{ended}");
        assert!(tokio::time::timeout(Duration::from_millis(300), given.next()).await.is_err(), "once is enough");
        assert!(tokio::time::timeout(Duration::from_millis(300), none.next()).await.is_err(), "nobody meant it");
    });
}

#[test]
fn what_is_asked_for_in_vain_is_made_by_who_said_so() {
    let world = World::new();
    let [a, _b, c] = mesh(&world);
    let maker = block(roams(&c, "maker"));
    let mut missing = block(maker.missing_topics("plant/on-demand")).expect("it may");
    let made = beside(async move {
        let asked = missing.next().await.expect("somebody asks");
        let path = asked.selector.trim_start_matches('>').to_owned();
        maker.set(&path, vec![7], Some(TopicSpec::of("binary"))).await.expect("it is made");
        (asked, maker)
    });
    until("A knows who makes them", || a.json(&["session", "ls"]).as_array().map_or(0, Vec::len) == 1);
    let reader = block(a.connect());
    let heard = block(async {
        let mut topics = reader.subscribe("plant/on-demand/7").await.expect("nobody is refused");
        assert_eq!(topics.next().await.expect("it goes on"), Heard::Synced);
        loop {
            let heard = tokio::time::timeout(PATIENCE, topics.next()).await.expect("in time").expect("it goes on");
            if let Heard::Topic { event: Event::Value { value, .. }, .. } = heard {
                return value;
            }
        }
    });
    let (asked, _maker) = block(made).expect("it ends");
    assert_eq!((heard, asked.node.as_str(), asked.prefix.as_str()), ([7].into(), "A", "plant/on-demand"));
}

#[test]
fn a_topic_goes_with_the_session_that_made_it_and_not_with_its_node() {
    let world = World::new();
    let [mut a, b, c] = mesh(&world);
    let client = block(roams(&a, "7"));
    let spec = TopicSpec { topic_type: "json".into(), properties: [("removal".to_owned(), "when this session closes".to_owned())].into() };
    block(client.add_topics(spec, vec!["plant/here".into()])).expect("it is made");
    until("C has it", || c.paths().contains(&"plant/here".to_owned()));
    until("B knows the session", || b.json(&["session", "ls"]).as_array().map_or(0, Vec::len) == 1);
    a.kill();
    block(async {
        client.changed(ClientState::Active).await;
        client.changed(ClientState::Recovering).await;
    });
    std::thread::sleep(Duration::from_secs(2));
    assert!(c.paths().contains(&"plant/here".to_owned()), "its session is not over");
    block(client.close());
    for node in [&b, &c] {
        until("it is gone", || !node.paths().contains(&"plant/here".to_owned()));
    }
    // The node that was killed comes back with it, and lets it go.
    a.up();
    a.linked("B");
    until("it does not come back", || !a.paths().contains(&"plant/here".to_owned()));
    assert!(!c.paths().contains(&"plant/here".to_owned()));
}
