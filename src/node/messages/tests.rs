//! Messages over several nodes: who hears them, in which order, and who may send them.

use crate::node::{
    ConnectionId,
    testing::{HASH, Meshed},
};
use crate::protocol::{Code, Event, FromNode, Message, Recipient, Request, Response, Send, Target, TopicSpec};

const PATH: &str = "s/news";

fn send(meshed: &mut Meshed, at: usize, client: ConnectionId, to: Recipient, path: &str, text: &str) -> Result<u64, Code> {
    match meshed.ask(at, client, Request::Send(Box::new(Send { to, path: path.into(), content: text.into() }))) {
        Response::Sent { sessions } => Ok(sessions),
        Response::Refused(refusal) => Err(refusal.code),
        other => panic!("{other:?}"),
    }
}

fn to_topic(meshed: &mut Meshed, at: usize, text: &str) -> Result<u64, Code> {
    let client = meshed.client(at);
    let sent = send(meshed, at, client, Recipient::Subscribers, PATH, text);
    meshed.gone(at, client);
    sent
}

fn subscribe(meshed: &mut Meshed, at: usize, client: ConnectionId, credit: u32) {
    let request = Request::Subscribe { selector: "?s//".into(), credit, stamps: false, heard: None };
    assert!(matches!(meshed.ask(at, client, request), Response::Subscribed { .. }));
}

/// What a client is told: `+`, `-`, messages, and messages for it alone with their paths.
fn told(meshed: &mut Meshed, at: usize, client: ConnectionId) -> Vec<String> {
    let (now, mut told) = (meshed.now(), Vec::new());
    let text = |message: Message| {
        let lost = if message.lost > 0 { format!(" after {} lost", message.lost) } else { String::new() };
        format!("{}: {}{lost}", message.node, String::from_utf8(message.content).unwrap())
    };
    while let Some(message) = meshed.nodes[at].poll_updates(now, client) {
        match message {
            FromNode::Updates(updates) => told.extend(updates.into_iter().map(|update| match update.event {
                Event::Message(message) => text(*message),
                Event::Added { .. } => "+".into(),
                Event::Removed { .. } => "-".into(),
                Event::Value { .. } => "=".into(),
            })),
            FromNode::Message { path, message } => told.push(format!("{path} {}", text(*message))),
            _ => {}
        }
    }
    told
}

/// Three in a row, with a topic that has no values.
fn meshed() -> Meshed {
    let mut meshed = Meshed::with_section(3, &[], "s/other");
    meshed.cut(0, 2);
    let operator = meshed.client(0);
    let added = meshed.ask(0, operator, Request::TopicsAdd { topic: TopicSpec::of("stateless"), paths: vec![PATH.into()] });
    assert!(matches!(added, Response::Added { created: 1, .. }), "{added:?}");
    meshed.gone(0, operator);
    meshed.pass(3_000);
    meshed
}

#[test]
fn what_is_sent_to_a_topic_reaches_its_subscribers_everywhere_in_order_and_nobody_later() {
    let mut meshed = meshed();
    let clients: Vec<ConnectionId> = (0..3).map(|at| meshed.client(at)).collect();
    for (at, client) in clients.iter().enumerate() {
        subscribe(&mut meshed, at, *client, 1_000);
        assert_eq!(told(&mut meshed, at, *client), ["+", "+"]);
    }
    let mut expected = Vec::new();
    for number in 0..30 {
        assert_eq!(to_topic(&mut meshed, 0, &number.to_string()), Ok(1));
        expected.push(format!("own: {number}"));
    }
    meshed.pass(100);
    let late = meshed.client(2);
    subscribe(&mut meshed, 2, late, 1_000);
    for (at, client) in clients.iter().enumerate() {
        assert_eq!(told(&mut meshed, at, *client), expected, "node {at}");
    }
    assert_eq!(told(&mut meshed, 2, late), ["+", "+"]);
    assert_eq!(to_topic(&mut meshed, 2, "back"), Ok(2));
    meshed.pass(100);
    for (at, client) in clients.iter().enumerate() {
        assert_eq!(told(&mut meshed, at, *client), ["n3: back"], "node {at}");
    }
    // A topic that has just been made has subscribers already who are yet to hear of it.
    let operator = meshed.client(0);
    meshed.ask(0, operator, Request::TopicsAdd { topic: TopicSpec::of("json"), paths: vec!["s/new".into()] });
    assert_eq!(send(&mut meshed, 0, operator, Recipient::Subscribers, "s/new", "first"), Ok(1));
    meshed.pass(100);
    for (at, client) in clients.iter().enumerate() {
        assert_eq!(told(&mut meshed, at, *client), ["+", "own: first"], "node {at}");
    }
}

#[test]
fn to_one_session_and_to_all_but_one_they_cross_no_link() {
    let mut meshed = meshed();
    let open = |meshed: &mut Meshed, at: usize| {
        let client = meshed.client(at);
        let request = Request::SessionOpen { reconnect_timeout_ms: None, properties: Default::default() };
        let Response::Session(session) = meshed.ask(at, client, request) else { panic!("refused") };
        subscribe(meshed, at, client, 1_000);
        (client, session.id.to_string())
    };
    let (one, other, far) = (open(&mut meshed, 0), open(&mut meshed, 0), open(&mut meshed, 1));
    meshed.pass(1_000);
    for (at, client) in [(0, one.0), (0, other.0), (1, far.0)] {
        told(&mut meshed, at, client);
    }
    let sender = meshed.client(0);
    assert_eq!(send(&mut meshed, 0, sender, Recipient::Session(one.1.clone()), "no/topic", "psst"), Ok(1));
    assert_eq!(send(&mut meshed, 0, sender, Recipient::AllBut(one.1[..8].into()), PATH, "not you"), Ok(1));
    assert_eq!(send(&mut meshed, 0, sender, Recipient::Session(far.1.clone()), PATH, "too far"), Err(Code::SessionElsewhere));
    assert_eq!(send(&mut meshed, 0, sender, Recipient::Session("0123456789".into()), PATH, "?"), Err(Code::UnknownSession));
    assert_eq!(send(&mut meshed, 0, sender, Recipient::AllBut(one.1.clone()), "s/none", "?"), Err(Code::NoSuchTopic));
    meshed.pass(1_000);
    assert_eq!(told(&mut meshed, 0, one.0), ["no/topic own: psst"]);
    assert_eq!(told(&mut meshed, 0, other.0), ["own: not you"]);
    assert_eq!(told(&mut meshed, 1, far.0), [""; 0]);
    meshed.gone(0, one.0);
    assert_eq!(send(&mut meshed, 0, sender, Recipient::Session(one.1), PATH, "?"), Err(Code::NotReady));
}

#[test]
fn a_slow_client_misses_the_oldest_and_is_told_so() {
    let mut meshed = meshed();
    let client = meshed.client(1);
    subscribe(&mut meshed, 1, client, 3);
    assert_eq!(told(&mut meshed, 1, client), ["+", "+"]);
    for number in 0..super::super::connections::MESSAGES_MAX + 11 {
        assert_eq!(to_topic(&mut meshed, 0, &number.to_string()), Ok(0));
    }
    meshed.pass(1_000);
    assert_eq!(told(&mut meshed, 1, client), ["own: 11 after 11 lost"]);
    // Nobody wants to hear of what is gone.
    let operator = meshed.client(0);
    meshed.ask(0, operator, Request::TopicsRemove { selector: PATH.into(), force: false });
    meshed.pass(1_000);
    meshed.input(1, crate::node::Input::Credit { session: client, subscription: 1, updates: 100 });
    assert_eq!(told(&mut meshed, 1, client), ["-"]);
}

#[test]
fn who_may_not_write_may_not_send() {
    let mut meshed = meshed();
    let operator = meshed.client(0);
    let script = format!(
        "principal ann password {HASH}\nprincipal ann roles clerk\nprincipal bob password {HASH}\nprincipal bob roles desk\n\
         role clerk at s select read update\nrole desk at s select send-to-session"
    );
    let changed = meshed.ask(0, operator, Request::AccessScript { script, dry_run: false });
    assert!(matches!(changed, Response::AccessChanged(_)), "{changed:?}");
    let (ann, bob) = (meshed.principal(0, "ann"), meshed.principal(0, "bob"));
    subscribe(&mut meshed, 0, ann, 1_000);
    subscribe(&mut meshed, 0, bob, 1_000);
    assert_eq!(send(&mut meshed, 0, ann, Recipient::Subscribers, PATH, "I may"), Ok(1), "bob may not read");
    assert_eq!(send(&mut meshed, 0, bob, Recipient::Subscribers, PATH, "I may not"), Err(Code::NotPermitted));
    assert_eq!(send(&mut meshed, 0, ann, Recipient::AllBut("0000".into()), PATH, "?"), Err(Code::NotPermitted));
    assert_eq!(send(&mut meshed, 0, ann, Recipient::Session("0000".into()), PATH, "?"), Err(Code::NotPermitted));
    assert_eq!(send(&mut meshed, 0, bob, Recipient::Session("0000".into()), PATH, "?"), Err(Code::UnknownSession));
    assert_eq!(told(&mut meshed, 0, ann), ["+", "+", "own: I may"]);
    assert_eq!(told(&mut meshed, 0, bob), [""; 0]);
    // A branch's source is the only one that may write there, and so to send.
    let source = meshed.client(1);
    meshed.ask(1, source, Request::SessionOpen { reconnect_timeout_ms: None, properties: Default::default() });
    let claimed = meshed.ask(1, source, Request::SourceClaim { branch: PATH.into(), priority: 0, wait: true, hold_ms: None });
    assert!(matches!(claimed, Response::Claimed { .. }), "{claimed:?}");
    meshed.pass(5_000);
    assert_eq!(send(&mut meshed, 0, ann, Recipient::Subscribers, PATH, "late"), Err(Code::Exclusive));
    assert_eq!(send(&mut meshed, 1, source, Recipient::Subscribers, PATH, "mine"), Ok(0));
    meshed.pass(100);
    assert_eq!(told(&mut meshed, 0, ann), ["n2: mine"]);
}

#[test]
fn what_takes_no_messages_says_so() {
    let mut meshed = meshed();
    let client = meshed.client(0);
    let properties = [("master".to_owned(), PATH.to_owned())].into();
    let slave = TopicSpec { topic_type: "slave".into(), properties };
    meshed.ask(0, client, Request::TopicsAdd { topic: slave, paths: vec!["s/alias".into()] });
    let mut refused = |path: &str, text: &str| send(&mut meshed, 0, client, Recipient::Subscribers, path, text).unwrap_err();
    assert_eq!(refused("s/alias", "?"), Code::InvalidRequest);
    assert_eq!(refused("s/none", "?"), Code::NoSuchTopic);
    assert_eq!(refused("s//none", "?"), Code::InvalidPath);
    assert_eq!(refused(PATH, &"x".repeat(crate::protocol::MESSAGE_MAX + 1)), Code::TooLarge);
    let value = vec![crate::protocol::SetItem::new(Target::Path(PATH.into()), vec![0xf6])];
    let set = Request::Set(crate::protocol::SetBatch { items: value, add: None, durability: None, under: None });
    let Response::Written { refused, .. } = meshed.ask(0, client, set) else { panic!("all refused") };
    assert_eq!(refused[0].refusal.code, Code::InvalidValue);
    assert!(refused[0].refusal.why.contains("send it messages"), "{}", refused[0].refusal.why);
}
