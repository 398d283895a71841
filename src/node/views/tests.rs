//! What has become of a path is told on every node, whether there is a topic or not.

use crate::node::testing::Meshed;
use crate::protocol::{Code, Deed, PastRow, Request, Response, TopicSpec};

fn past(meshed: &mut Meshed, at: usize, path: &str) -> Vec<PastRow> {
    let client = meshed.client(at);
    match meshed.ask(at, client, Request::TopicPast { path: path.into() }) {
        Response::TopicPast { rows, cut: false } => rows,
        other => panic!("{other:?}"),
    }
}

/// By which node what was done, when, and whether concurrently.
fn short(rows: &[PastRow]) -> Vec<(&str, String, Option<u64>, bool)> {
    let did = |row: &PastRow| row.topic.as_ref().map_or_else(|| row.did.to_string(), |topic| topic.topic_type.clone());
    rows.iter().map(|row| (&*row.node, did(row), row.unix_ms, row.concurrent)).collect()
}

fn add(meshed: &mut Meshed, at: usize, path: &str, topic_type: &str) {
    let client = meshed.client(at);
    let added = meshed.ask(at, client, Request::TopicsAdd { topic: TopicSpec::of(topic_type), paths: vec![path.into()] });
    assert!(matches!(added, Response::Added { created: 1, .. }), "{added:?}");
}

#[test]
fn what_has_happened_at_a_path_is_told_on_every_node() {
    let mut meshed = Meshed::with_section(2, &[], "s/kept");
    meshed.pass(5_000);
    add(&mut meshed, 0, "s/x", "json");
    meshed.pass(10_000);
    let client = meshed.client(1);
    meshed.ask(1, client, Request::TopicsRemove { selector: "s/x".into(), force: false });
    meshed.pass(10_000);
    meshed.cut(0, 1);
    add(&mut meshed, 0, "s/x", "string");
    meshed.pass(2_000);
    add(&mut meshed, 1, "s/x", "binary");
    meshed.heal();
    meshed.pass(3_000);
    let told = past(&mut meshed, 0, "s/x");
    assert_eq!(past(&mut meshed, 1, "s/x"), told);
    let json = ("own", "json".to_owned(), Some(10_000), false);
    let removed = ("n2", "removed".to_owned(), Some(20_000), false);
    let (one, other) = (("own", "string".to_owned(), Some(30_000), true), ("n2", "binary".to_owned(), Some(32_000), true));
    assert_eq!(short(&told), [json.clone(), removed.clone(), one.clone(), other.clone()]);
    assert!(told.iter().all(|row| (row.did == Deed::Made) == row.topic.is_some()));

    meshed.ask(1, client, Request::TopicsRemove { selector: "s/x".into(), force: false });
    meshed.pass(2_000);
    meshed.restart(0);
    let client = meshed.client(0);
    let shown = meshed.ask(0, client, Request::TopicShow { path: "s/x".into() });
    assert!(matches!(&shown, Response::Refused(refusal) if refusal.code == Code::NoSuchTopic), "{shown:?}");
    let told = past(&mut meshed, 0, "s/x");
    assert_eq!(short(&told), [json, removed, one, other, ("n2", "removed".to_owned(), Some(35_000), false)]);
    assert_eq!(past(&mut meshed, 0, "s/never"), []);
}

#[test]
fn a_topic_that_moves_to_a_section_is_made_there() {
    let mut meshed = Meshed::new(2);
    add(&mut meshed, 0, "s/x", "json");
    meshed.pass(10_000);
    let client = meshed.client(0);
    meshed.ask(0, client, Request::SectionAdd { root: "s".into(), properties: Default::default() });
    meshed.pass(3_000);
    let told = past(&mut meshed, 1, "s/x");
    assert_eq!(short(&told), [("own", "json".to_owned(), Some(13_000), false)]);
}
