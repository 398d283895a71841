//! Topics that go by themselves, each once and only when they may.

use std::collections::BTreeMap;

use mangrove_crdt::{path::Path, standing::Standing};

use crate::node::{ConnectionId, testing::Meshed};
use crate::protocol::{Code, OpenSession, Request, Response, SetBatch, SetItem, Target, TopicSpec};

fn meshed(count: u8) -> Meshed {
    Meshed::with_section(count, &[], "s/kept")
}

fn spec(removal: &str) -> TopicSpec {
    TopicSpec { topic_type: "binary".into(), properties: BTreeMap::from([("removal".into(), removal.into())]) }
}

#[track_caller]
fn add(meshed: &mut Meshed, at: usize, client: ConnectionId, path: &str, removal: &str) {
    let added = meshed.ask(at, client, Request::TopicsAdd { topic: spec(removal), paths: vec![path.into()] });
    assert!(matches!(added, Response::Added { created: 1, .. }), "{added:?}");
    meshed.pass(1_000);
}

/// At which nodes a topic is.
fn there(meshed: &Meshed, path: &str) -> Vec<usize> {
    let path = Path::parse(path).unwrap();
    (0..meshed.nodes.len()).filter(|at| meshed.nodes[*at].replica().topic(&path).is_some()).collect()
}

fn opened(meshed: &mut Meshed, at: usize, client: ConnectionId) -> OpenSession {
    match meshed.ask(at, client, Request::SessionOpen { reconnect_timeout_ms: Some(20_000), properties: BTreeMap::new() }) {
        Response::Session(session) => *session,
        other => panic!("{other:?}"),
    }
}

fn resume(meshed: &mut Meshed, at: usize, session: &OpenSession) -> ConnectionId {
    let client = meshed.comes_back(at);
    let answer = meshed.ask(at, client, Request::SessionResume { id: session.id, secret: session.secret.clone(), epoch: session.epoch });
    assert!(matches!(answer, Response::Session(_)), "{answer:?}");
    client
}

#[test]
fn a_topic_goes_with_its_session_and_not_with_its_connection() {
    let mut meshed = meshed(3);
    let client = meshed.client(0);
    let session = opened(&mut meshed, 0, client);
    add(&mut meshed, 0, client, "s/mine", "when this session closes");
    let other = meshed.client(1);
    add(&mut meshed, 1, other, "s/others", "when this session closes");
    // Its connection is lost, and it goes to another node, of which its old home hears late: that gives it up meanwhile.
    meshed.gone(0, client);
    meshed.cut_off(0);
    let back = resume(&mut meshed, 1, &session);
    meshed.pass(40_000);
    assert_eq!(there(&meshed, "s/mine"), [0, 1, 2]);
    meshed.heal();
    meshed.pass(5_000);
    assert_eq!(there(&meshed, "s/mine"), [0, 1, 2], "a presumption removes nothing");
    // What one side has heard of, the other hears of when they meet.
    meshed.cut_off(2);
    assert_eq!(meshed.ask(1, back, Request::SessionClose), Response::Done);
    meshed.pass(1_000);
    assert_eq!(there(&meshed, "s/mine"), [2]);
    meshed.heal();
    meshed.pass(2_000);
    assert_eq!((there(&meshed, "s/mine"), there(&meshed, "s/others")), (vec![], vec![0, 1, 2]));
    // Somebody makes it anew: that is another, which nobody removes.
    let operator = meshed.client(2);
    meshed.ask(2, operator, Request::TopicsAdd { topic: TopicSpec::of("binary"), paths: vec!["s/mine".into()] });
    meshed.pass(30_000);
    assert_eq!(there(&meshed, "s/mine"), [0, 1, 2]);
    assert!(meshed.nodes.iter().all(|node| node.removals.by_session.len() == 1 && node.removals.ended.is_empty()));
}

#[test]
fn a_lost_connection_removes_once_nobody_can_take_its_session_up_any_more() {
    let mut meshed = meshed(3);
    let client = meshed.client(0);
    opened(&mut meshed, 0, client);
    add(&mut meshed, 0, client, "s/mine", "this session closes");
    meshed.gone(0, client);
    meshed.pass(19_500);
    assert_eq!(there(&meshed, "s/mine"), [0, 1, 2]);
    meshed.pass(5_000);
    assert_eq!(there(&meshed, "s/mine"), [0; 0]);
}

#[test]
fn if_the_one_who_should_remove_is_gone_the_next_does() {
    let mut meshed = meshed(3);
    let client = meshed.client(1);
    let session = opened(&mut meshed, 1, client);
    add(&mut meshed, 1, client, "s/mine", "this session closes");
    // The least holder stands still, and nobody has noticed.
    meshed.stopped.insert(0);
    let operator = meshed.client(2);
    assert_eq!(meshed.ask(2, operator, Request::SessionEnd { session: session.id.to_string() }), Response::Affected { sessions: 1 });
    meshed.pass(500);
    assert_eq!(there(&meshed, "s/mine"), [0, 1, 2]);
    meshed.pass(10_000);
    assert_eq!(there(&meshed, "s/mine"), [0]);
    meshed.stopped.clear();
    meshed.pass(5_000);
    assert_eq!(there(&meshed, "s/mine"), [0; 0]);
}

#[test]
fn what_a_session_leaves_is_found_after_a_start() {
    let mut meshed = meshed(2);
    let client = meshed.client(0);
    let session = opened(&mut meshed, 0, client);
    add(&mut meshed, 0, client, "s/mine", "this session closes or no updates for 1h");
    add(&mut meshed, 0, client, "own", "this session closes");
    meshed.restart(0);
    meshed.restart(1);
    meshed.pass(2_000);
    assert_eq!((there(&meshed, "s/mine"), there(&meshed, "own")), (vec![0, 1], vec![0]));
    let operator = meshed.client(1);
    assert_eq!(meshed.ask(1, operator, Request::SessionEnd { session: session.id.to_string() }), Response::Affected { sessions: 1 });
    meshed.pass(2_000);
    assert_eq!((there(&meshed, "s/mine"), there(&meshed, "own")), (vec![], vec![]));
}

#[test]
fn a_topic_goes_when_nobody_is_there_for_it_or_writes_it_or_its_time_has_come() {
    let mut meshed = meshed(2);
    let operator = meshed.client(0);
    add(&mut meshed, 0, operator, "s/desk", "no session has 'has desk' for 10s");
    add(&mut meshed, 0, operator, "s/news", "no updates for 30s");
    add(&mut meshed, 0, operator, "s/short", "time after 1970-01-01T00:00:20Z");
    let clerk = meshed.client(1);
    let properties = BTreeMap::from([("desk".to_owned(), "7".to_owned())]);
    meshed.ask(1, clerk, Request::SessionOpen { reconnect_timeout_ms: Some(5_000), properties });
    let write = |meshed: &mut Meshed| {
        let items = vec![SetItem::new(Target::Path("s/news".into()), vec![1])];
        meshed.ask(0, operator, Request::Set(SetBatch { items, add: None, durability: None, under: None }))
    };
    for _ in 0..3 {
        meshed.pass(10_000);
        write(&mut meshed);
    }
    assert_eq!((there(&meshed, "s/desk"), there(&meshed, "s/news"), there(&meshed, "s/short")), (vec![0, 1], vec![0, 1], vec![]));
    meshed.gone(1, clerk);
    meshed.pass(9_000);
    assert_eq!(there(&meshed, "s/desk"), [0, 1]);
    meshed.pass(15_000);
    assert_eq!((there(&meshed, "s/desk"), there(&meshed, "s/news")), (vec![], vec![0, 1]));
    meshed.pass(15_000);
    assert_eq!(there(&meshed, "s/news"), [0; 0]);
    assert_eq!(there(&meshed, "s/kept"), [0, 1]);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let mut meshed = meshed(1);
    let operator = meshed.client(0);
    for removal in ["when hell freezes over", "no session has 'odd'", "no updates for 1w"] {
        let refused = meshed.ask(0, operator, Request::TopicsAdd { topic: spec(removal), paths: vec!["s/x".into()] });
        assert!(matches!(&refused, Response::Refused(refusal) if refusal.code == Code::InvalidDefinition), "{refused:?}");
    }
    let owner = TopicSpec { topic_type: "binary".into(), properties: BTreeMap::from([("owner".into(), "a b".into())]) };
    let refused = meshed.ask(0, operator, Request::TopicsAdd { topic: owner, paths: vec!["s/x".into()] });
    assert!(matches!(&refused, Response::Refused(refusal) if refusal.code == Code::InvalidDefinition), "{refused:?}");
}

/// How many records of subscribers there are at a node.
fn records(meshed: &Meshed, at: usize) -> usize {
    let replica = meshed.nodes[at].replica();
    let held = replica.held().filter_map(|section| replica.section(section));
    let standing = held.flat_map(|section| section.standing.iter()).filter(|(_, write)| write.value.is_some());
    standing.filter(|(key, _)| matches!(Standing::of_key(key), Some(Standing::Subscriber(..) | Standing::Subscribers(..)))).count()
}

fn subscribe(meshed: &mut Meshed, at: usize, client: ConnectionId, selector: &str) -> u32 {
    match meshed.ask(at, client, Request::Subscribe { selector: selector.into(), credit: 10, stamps: false, heard: None }) {
        Response::Subscribed { subscription } => subscription,
        other => panic!("{other:?}"),
    }
}

/// A client with a session that has subscribed.
fn subscriber(meshed: &mut Meshed, at: usize, selector: &str) -> (ConnectionId, OpenSession, u32) {
    let client = meshed.client(at);
    let session = opened(meshed, at, client);
    let subscription = subscribe(meshed, at, client, selector);
    (client, session, subscription)
}

fn end(meshed: &mut Meshed, at: usize, session: &OpenSession) {
    let operator = meshed.client(at);
    assert_eq!(meshed.ask(at, operator, Request::SessionEnd { session: session.id.to_string() }), Response::Affected { sessions: 1 });
}

#[test]
fn a_topic_goes_when_too_few_are_subscribed_on_all_nodes_together() {
    let mut meshed = meshed(3);
    let operator = meshed.client(0);
    add(&mut meshed, 0, operator, "s/two", "subscriptions < 2 for 30s");
    let (one, _, subscription) = subscriber(&mut meshed, 1, "?s//");
    let (_, other, _) = subscriber(&mut meshed, 2, "s/two");
    meshed.pass(60_000);
    assert_eq!((there(&meshed, "s/two"), records(&meshed, 0)), (vec![0, 1, 2], 2));
    // One unsubscribes, and comes again in time.
    meshed.ask(1, one, Request::Unsubscribe { subscription });
    meshed.pass(25_000);
    let subscription = subscribe(&mut meshed, 1, one, "s/two");
    meshed.pass(60_000);
    assert_eq!(there(&meshed, "s/two"), [0, 1, 2]);
    meshed.ask(1, one, Request::Unsubscribe { subscription });
    meshed.pass(28_000);
    assert_eq!(there(&meshed, "s/two"), [0, 1, 2]);
    meshed.pass(6_000);
    assert_eq!((there(&meshed, "s/two"), there(&meshed, "s/kept")), (vec![], vec![0, 1, 2]));
    meshed.pass(6_000);
    assert_eq!([records(&meshed, 0), records(&meshed, 2)], [0, 0], "nobody asks any more");
    end(&mut meshed, 0, &other);
}

#[test]
fn no_lost_connection_and_no_silent_node_ends_a_subscription() {
    let mut meshed = meshed(3);
    let operator = meshed.client(0);
    add(&mut meshed, 0, operator, "s/x", "subscriptions < 1 for 10s");
    let (client, session, _) = subscriber(&mut meshed, 2, "s/x");
    meshed.pass(2_000);
    meshed.gone(2, client);
    meshed.pass(15_000);
    assert_eq!(there(&meshed, "s/x"), [0, 1, 2], "its client may come back");
    meshed.stopped.insert(2);
    meshed.pass(200_000);
    assert_eq!(there(&meshed, "s/x"), [0, 1, 2], "its home may come back");
    end(&mut meshed, 0, &session);
    meshed.pass(9_000);
    assert_eq!(there(&meshed, "s/x"), [0, 1, 2]);
    meshed.pass(4_000);
    assert_eq!((there(&meshed, "s/x"), records(&meshed, 1)), (vec![2], 0));
    meshed.stopped.clear();
    meshed.pass(10_000);
    assert_eq!((there(&meshed, "s/x"), records(&meshed, 2)), (vec![], 0));
}

#[test]
fn a_session_that_goes_elsewhere_is_subscribed_until_it_does_without() {
    for subscribes in [true, false] {
        let mut meshed = meshed(3);
        let operator = meshed.client(0);
        add(&mut meshed, 0, operator, "s/x", "subscriptions < 1 for 6s");
        let (client, session, _) = subscriber(&mut meshed, 1, "s/x");
        meshed.pass(3_000);
        meshed.gone(1, client);
        meshed.cut_off(1);
        let back = resume(&mut meshed, 2, &session);
        meshed.pass(3_000);
        if subscribes {
            subscribe(&mut meshed, 2, back, "s/x");
        }
        meshed.pass(5_000);
        assert_eq!(there(&meshed, "s/x"), [0, 1, 2], "it is given time to say so");
        meshed.heal();
        meshed.pass(60_000);
        assert_eq!(there(&meshed, "s/x"), if subscribes { vec![0, 1, 2] } else { vec![] });
    }
}

#[test]
fn nobody_tells_of_more_subscribers_than_are_asked_for_nor_of_any_that_are_not() {
    let mut meshed = meshed(2);
    let several: Vec<_> = (0..5).map(|_| subscriber(&mut meshed, 1, "?s//")).collect();
    meshed.pass(3_000);
    assert_eq!(records(&meshed, 0), 0);
    let operator = meshed.client(0);
    add(&mut meshed, 0, operator, "s/x", "subscriptions < 2 for 10s");
    meshed.pass(5_000);
    assert_eq!(records(&meshed, 0), 2);
    // As one ends, another is told of instead.
    for (_, session, _) in &several[..3] {
        end(&mut meshed, 0, session);
        meshed.pass(15_000);
    }
    assert_eq!((there(&meshed, "s/x"), records(&meshed, 0)), (vec![0, 1], 2));
    end(&mut meshed, 0, &several[3].1);
    meshed.pass(15_000);
    assert_eq!((there(&meshed, "s/x"), records(&meshed, 0)), (vec![], 0));
}

#[test]
fn connections_without_a_session_count_as_long_as_they_last() {
    let mut meshed = meshed(2);
    let operator = meshed.client(0);
    add(&mut meshed, 0, operator, "s/x", "subscriptions < 3 for 10s");
    add(&mut meshed, 0, operator, "own", "subscriptions < 1 for 10s");
    let clients: Vec<ConnectionId> = (0..2).map(|_| meshed.client(1)).collect();
    clients.iter().for_each(|client| _ = subscribe(&mut meshed, 1, *client, "s/x"));
    let (here, ..) = subscriber(&mut meshed, 0, "?.*//");
    meshed.pass(30_000);
    assert_eq!((there(&meshed, "s/x"), there(&meshed, "own")), (vec![0, 1], vec![0]));
    meshed.restart(1);
    meshed.pass(20_000);
    assert_eq!((there(&meshed, "s/x"), there(&meshed, "own")), (vec![], vec![0]));
    let subscription = subscribe(&mut meshed, 0, here, "s/kept");
    meshed.ask(0, here, Request::Unsubscribe { subscription: subscription - 1 });
    meshed.pass(20_000);
    assert_eq!(there(&meshed, "own"), [0; 0]);
}

#[test]
fn subscriptions_are_remembered_over_a_start() {
    let mut meshed = meshed(2);
    let operator = meshed.client(0);
    add(&mut meshed, 0, operator, "s/x", "subscriptions < 1 for 6s");
    let (_, session, _) = subscriber(&mut meshed, 1, "s/x");
    meshed.pass(3_000);
    meshed.restart(0);
    meshed.restart(1);
    meshed.pass(15_000);
    assert_eq!(there(&meshed, "s/x"), [0, 1]);
    let back = resume(&mut meshed, 1, &session);
    subscribe(&mut meshed, 1, back, "s/x");
    meshed.pass(15_000);
    assert_eq!(there(&meshed, "s/x"), [0, 1]);
    end(&mut meshed, 0, &session);
    meshed.pass(15_000);
    assert_eq!((there(&meshed, "s/x"), records(&meshed, 0)), (vec![], 0));
}
