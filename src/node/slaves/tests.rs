//! Slaves over one node and several: what they show, when they are there, and which are refused.

use std::collections::BTreeMap;

use crate::node::{
    ConnectionId,
    testing::{HASH, Meshed},
};
use crate::protocol::{Change, Code, Event, FromNode, Page, Request, Response, SetBatch, SetItem, Target, TopicSpec, Wish};

const MASTER: &str = "s/a";

fn slave(master: &str) -> TopicSpec {
    TopicSpec { topic_type: "slave".into(), properties: BTreeMap::from([("master".to_owned(), master.to_owned())]) }
}

fn add(meshed: &mut Meshed, at: usize, client: ConnectionId, path: &str, topic: TopicSpec) -> Result<(), Code> {
    match meshed.ask(at, client, Request::TopicsAdd { topic, paths: vec![path.into()] }) {
        Response::Added { refused, .. } => refused.into_iter().next().map_or(Ok(()), |item| Err(item.refusal.code)),
        Response::Refused(refusal) => Err(refusal.code),
        other => panic!("{other:?}"),
    }
}

fn set(meshed: &mut Meshed, at: usize, path: &str, value: u8) -> Result<(), Code> {
    let client = meshed.client(at);
    let items = vec![SetItem::new(Target::Path(path.into()), vec![value])];
    let answer = meshed.ask(at, client, Request::Set(SetBatch { items, add: None, durability: None, under: None }));
    meshed.gone(at, client);
    match answer {
        Response::Written { refused, .. } => refused.into_iter().next().map_or(Ok(()), |item| Err(item.refusal.code)),
        other => panic!("{other:?}"),
    }
}

fn remove(meshed: &mut Meshed, at: usize, path: &str) {
    let client = meshed.client(at);
    let removed = meshed.ask(at, client, Request::TopicsRemove { selector: path.into(), force: false });
    assert_eq!(removed, Response::Removed { topics: 1 });
    meshed.gone(at, client);
}

fn subscribe(meshed: &mut Meshed, at: usize, selector: &str) -> ConnectionId {
    let client = meshed.client(at);
    let request = Request::Subscribe { selector: selector.into(), credit: 1_000, stamps: false, heard: None };
    assert!(matches!(meshed.ask(at, client, request), Response::Subscribed { .. }));
    client
}

/// What a subscriber to one topic is told: `+TYPE`, `=VALUE`, `-`.
fn told(meshed: &mut Meshed, at: usize, client: ConnectionId) -> Vec<String> {
    let (now, mut told) = (meshed.now(), Vec::new());
    while let Some(message) = meshed.nodes[at].poll_updates(now, client) {
        let FromNode::Updates(updates) = message else { continue };
        told.extend(updates.into_iter().map(|update| match update.event {
            Event::Added { topic } => format!("+{}", topic.topic_type),
            Event::Value { value, .. } => format!("={}", value[0]),
            Event::Message(_) => ">".into(),
            Event::Removed { .. } => "-".into(),
        }));
    }
    told
}

/// The paths that a node lists: of topics, or of slaves that wait.
fn listed(meshed: &mut Meshed, at: usize, pending: bool) -> Vec<String> {
    let client = meshed.client(at);
    let answer = meshed.ask(at, client, Request::Topics { selector: "*.*".into(), page: Page::default(), pending });
    let Response::Topics { rows, .. } = answer else { panic!("{answer:?}") };
    meshed.gone(at, client);
    rows.into_iter().map(|row| row.path).collect()
}

fn value(meshed: &mut Meshed, at: usize, path: &str) -> Option<(String, Option<Vec<u8>>)> {
    let client = meshed.client(at);
    let answer = meshed.ask(at, client, Request::Values { selector: path.into(), page: Page::default() });
    let Response::Values { rows, .. } = answer else { panic!("{answer:?}") };
    meshed.gone(at, client);
    rows.into_iter().next().map(|row| (row.topic_type, row.value))
}

#[test]
fn a_slave_shows_its_masters_type_and_values_on_every_node() {
    let mut meshed = Meshed::with_section(3, &[], MASTER);
    let operator = meshed.client(0);
    assert_eq!(add(&mut meshed, 0, operator, "s/alias", slave(MASTER)), Ok(()));
    meshed.pass(1_000);
    let readers = [0, 1, 2].map(|at| subscribe(&mut meshed, at, "s/alias"));
    set(&mut meshed, 1, MASTER, 1).expect("the master takes it");
    meshed.pass(1_000);
    for (at, reader) in readers.into_iter().enumerate() {
        assert_eq!(told(&mut meshed, at, reader), ["+binary", "=1"], "node {at}");
        assert_eq!(value(&mut meshed, at, "s/alias"), Some(("binary".into(), Some(vec![1]))), "node {at}");
    }
    set(&mut meshed, 2, MASTER, 2).expect("the master takes it");
    meshed.pass(1_000);
    assert_eq!([0, 1, 2].map(|at| told(&mut meshed, at, readers[at])), [["=2"]; 3]);
    assert_eq!(set(&mut meshed, 0, "s/alias", 3), Err(Code::InvalidValue), "it takes nothing itself");
    let client = meshed.client(0);
    let patch = Change::new("s/alias", Wish::Patch("[]".into()));
    assert!(
        matches!(meshed.ask(0, client, Request::Change(Box::new(patch))), Response::Refused(refusal) if refusal.code == Code::PatchFailed)
    );
    // A node that starts again knows it as before.
    meshed.restart(1);
    let reader = subscribe(&mut meshed, 1, "s/alias");
    assert_eq!(told(&mut meshed, 1, reader), ["+binary", "=2"]);
    meshed.pass(5_000);
    set(&mut meshed, 0, MASTER, 4).expect("the master takes it");
    meshed.pass(2_000);
    assert_eq!(told(&mut meshed, 1, reader), ["=4"]);
}

#[test]
fn a_slave_is_pending_where_its_master_is_not() {
    let mut meshed = Meshed::with_section(2, &[], MASTER);
    let operator = meshed.client(0);
    // Its master is a topic of the one node alone.
    add(&mut meshed, 0, operator, "s/alias", slave("own")).expect("it may be made before its master");
    meshed.pass(1_000);
    let readers = [0, 1].map(|at| subscribe(&mut meshed, at, "s/alias"));
    for (at, reader) in readers.into_iter().enumerate() {
        assert_eq!((listed(&mut meshed, at, false), listed(&mut meshed, at, true)), (vec![MASTER.into()], vec!["s/alias".into()]));
        assert_eq!(value(&mut meshed, at, "s/alias"), None);
        assert_eq!(told(&mut meshed, at, reader), [""; 0]);
        let client = meshed.client(at);
        let Response::Topic(detail) = meshed.ask(at, client, Request::TopicShow { path: "s/alias".into() }) else { panic!() };
        assert!(detail.pending && detail.topic == slave("own"));
    }
    add(&mut meshed, 0, operator, "own", TopicSpec::of("binary")).expect("the master");
    set(&mut meshed, 0, "own", 7).expect("it takes it");
    assert_eq!(told(&mut meshed, 0, readers[0]), ["+binary", "=7"]);
    assert_eq!(listed(&mut meshed, 0, true), [""; 0]);
    meshed.pass(1_000);
    assert_eq!((told(&mut meshed, 1, readers[1]), listed(&mut meshed, 1, true)), (vec![], vec!["s/alias".into()]), "there it waits");
    // It goes back to waiting with its master, and shows another one's type.
    remove(&mut meshed, 0, "own");
    assert_eq!((told(&mut meshed, 0, readers[0]), listed(&mut meshed, 0, true)), (vec!["-".into()], vec!["s/alias".into()]));
    add(&mut meshed, 0, operator, "own", TopicSpec::of("string")).expect("another master");
    assert_eq!(told(&mut meshed, 0, readers[0]), ["+string"]);
    remove(&mut meshed, 0, "s/alias");
    assert_eq!(told(&mut meshed, 0, readers[0]), ["-"]);
    set(&mut meshed, 0, "own", 0xf6).expect("it goes on");
    assert_eq!(told(&mut meshed, 0, readers[0]), [""; 0]);
}

#[test]
fn none_is_the_slave_of_a_slave() {
    let mut meshed = Meshed::with_section(2, &[], MASTER);
    let operator = meshed.client(0);
    let mut adds = |path: &str, master: &str| add(&mut meshed, 0, operator, path, slave(master));
    assert_eq!(adds("s/one", MASTER), Ok(()));
    assert_eq!(adds("s/two", "s/one"), Err(Code::InvalidDefinition), "its master is one");
    assert_eq!(adds("s/self", "s/self"), Err(Code::InvalidDefinition));
    assert_eq!(adds("s/three", "s/later"), Ok(()));
    assert_eq!(adds("s/later", MASTER), Err(Code::InvalidDefinition), "it has one");
    assert_eq!(adds("s/odd", "$own"), Err(Code::InvalidDefinition));
    // Two sides make one half each: neither knows better, and the chain shows nothing.
    meshed.pass(1_000);
    meshed.split(&[0]);
    let other = meshed.client(1);
    add(&mut meshed, 0, operator, "s/x", slave("s/y")).expect("nothing is at its master");
    add(&mut meshed, 1, other, "s/y", slave(MASTER)).expect("nobody names it");
    meshed.heal();
    meshed.pass(5_000);
    for at in 0..2 {
        assert_eq!(listed(&mut meshed, at, true), ["s/three", "s/x"], "node {at}");
    }
}

#[test]
fn who_makes_a_slave_must_be_able_to_read_its_master() {
    let mut meshed = Meshed::with_section(1, &[], MASTER);
    let operator = meshed.client(0);
    let script = format!(
        "principal ann password {HASH}\nprincipal ann roles clerk\nrole clerk at s read select modify\nrole clerk at s/secret none\n"
    );
    let changed = meshed.ask(0, operator, Request::AccessScript { script, dry_run: false });
    assert!(matches!(changed, Response::AccessChanged(_)), "{changed:?}");
    let ann = meshed.principal(0, "ann");
    assert_eq!(add(&mut meshed, 0, ann, "s/mine", slave("s/secret")), Err(Code::NotPermitted));
    assert_eq!(add(&mut meshed, 0, ann, "s/mine", slave(MASTER)), Ok(()));
}
