//! Lists stay where they were made, whatever becomes of the sections around them and of other topics at their paths; and they change line by line.

use mangrove_crdt::{definition::TopicType, path::Path, value};

use super::*;
use crate::{
    node::{
        Input, Output,
        sources::tests::claim,
        testing::{HASH, Meshed, SESSION, at, node},
    },
    protocol::{Change, Event, FromNode, Gone, Page, Request, SetBatch, SetItem, Severity, Target, TopicRow, TopicSpec, Update, Wish},
};

const PATH: &str = "s/list";

fn texts(lines: &[&str]) -> Vec<String> {
    lines.iter().map(|line| (*line).to_owned()).collect()
}

fn add(meshed: &mut Meshed, at: usize, topic_type: &str, path: &str) -> Result<(), Code> {
    let client = meshed.client(at);
    let answer = meshed.ask(at, client, Request::TopicsAdd { topic: TopicSpec::of(topic_type), paths: vec![path.into()] });
    meshed.gone(at, client);
    match answer {
        Response::Added { refused, .. } => refused.first().map_or(Ok(()), |item| Err(item.refusal.code)),
        other => panic!("{other:?}"),
    }
}

fn ask(meshed: &mut Meshed, at: usize, client: ConnectionId, change: Change) -> Result<ListState, Refusal> {
    match meshed.ask(at, client, Request::Change(Box::new(change))) {
        // Whether there is anything elsewhere at a path where nothing was here, nobody knows.
        Response::Changed { list: Some(list), exact, event: None, created } if exact != created => Ok(list),
        Response::Refused(refusal) => Err(refusal),
        other => panic!("{other:?}"),
    }
}

fn edit(meshed: &mut Meshed, at: usize, path: &str, splice: Splice) -> Result<ListState, Code> {
    let client = meshed.client(at);
    let answer = ask(meshed, at, client, Change::new(path, Wish::Lines(splice)));
    meshed.gone(at, client);
    answer.map_err(|refusal| refusal.code)
}

fn append(meshed: &mut Meshed, at: usize, lines: &[&str]) {
    edit(meshed, at, PATH, Splice::append(texts(lines))).expect("they are appended");
}

fn read(meshed: &mut Meshed, at: usize, from: u64, count: u32) -> Result<(Vec<String>, ListState), Code> {
    let client = meshed.client(at);
    let answer = meshed.ask(at, client, Request::Lines { path: PATH.into(), from, count });
    meshed.gone(at, client);
    match answer {
        Response::Lines { lines, list } => Ok((lines, list)),
        Response::Refused(refusal) => Err(refusal.code),
        other => panic!("{other:?}"),
    }
}

fn lines(meshed: &mut Meshed, at: usize) -> Result<Vec<String>, Code> {
    read(meshed, at, 1, PAGE_MAX).map(|(lines, _)| lines)
}

fn rows(meshed: &mut Meshed, at: usize) -> Vec<TopicRow> {
    let client = meshed.client(at);
    let answer = meshed.ask(at, client, Request::Topics { selector: PATH.into(), page: Page::default(), pending: false });
    meshed.gone(at, client);
    match answer {
        Response::Topics { rows, .. } => rows,
        other => panic!("{other:?}"),
    }
}

/// Types of what is at the path, and what is said of it.
fn listed(meshed: &mut Meshed, at: usize) -> Vec<(String, Option<String>)> {
    rows(meshed, at).into_iter().map(|row| (row.topic.topic_type, row.remark)).collect()
}

fn remark(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn a_list() -> Vec<(String, Option<String>)> {
    vec![("paged".into(), remark("local: paged topics are not replicated"))]
}

fn told(meshed: &mut Meshed, at: usize, client: ConnectionId) -> Vec<String> {
    let (mut told, now) = (Vec::new(), meshed.now());
    while let Some(message) = meshed.nodes[at].poll_updates(now, client) {
        let FromNode::Updates(updates) = message else { continue };
        told.extend(updates.into_iter().map(|Update { event, .. }| match event {
            Event::Added { topic } => format!("+ {}", topic.topic_type),
            Event::Value { value, .. } => match value::to_json(&TopicType::Json, &value) {
                Ok(json) if json.is_object() => format!("= {} lines of {} bytes", json["lines"], json["bytes"]),
                _ => format!("= {value:?}"),
            },
            Event::Removed { reason } => format!("- {}", if reason == Gone::Removed { "removed" } else { "otherwise" }),
            Event::Message(_) => "message".into(),
        }));
    }
    told
}

fn subscribe(meshed: &mut Meshed, at: usize, selector: &str) -> ConnectionId {
    let client = meshed.client(at);
    meshed.ask(at, client, Request::Subscribe { selector: selector.into(), credit: 1_000, stamps: false, heard: None });
    client
}

fn remove(meshed: &mut Meshed, at: usize, path: &str) -> u64 {
    let client = meshed.client(at);
    let answer = meshed.ask(at, client, Request::TopicsRemove { selector: path.into(), force: false });
    meshed.gone(at, client);
    if let Response::Removed { topics } = answer { topics } else { panic!("{answer:?}") }
}

/// Nothing of a list is in any replicated section of any node.
#[track_caller]
fn nowhere_else(meshed: &Meshed) {
    for node in &meshed.nodes {
        let replica = node.replica();
        for section in replica.held().filter_map(|section| replica.section(section)) {
            assert!(section.tree.topics_from("").all(|topic| *topic.definition.topic_type() != TopicType::Paged));
        }
    }
}

#[test]
fn a_list_is_at_its_node_alone_and_says_why() {
    let mut meshed = Meshed::with_section(3, &[], "s/other");
    add(&mut meshed, 0, "paged", PATH).expect("it is made below the root of a section");
    append(&mut meshed, 0, &["a", "b"]);
    meshed.pass(2_000);
    assert_eq!(lines(&mut meshed, 0), Ok(texts(&["a", "b"])));
    assert_eq!(listed(&mut meshed, 0), a_list());
    for at in [1, 2] {
        assert_eq!(lines(&mut meshed, at), Err(Code::NoSuchTopic));
        assert!(rows(&mut meshed, at).is_empty());
    }
    nowhere_else(&meshed);
    let digests: Vec<String> = meshed.nodes.iter_mut().map(Node::digest).collect();
    assert!(digests[0] == digests[1] && digests[1] == digests[2], "{digests:?}");
    let client = meshed.client(0);
    let Response::Topic(detail) = meshed.ask(0, client, Request::TopicShow { path: PATH.into() }) else { panic!("refused") };
    assert_eq!((detail.section, detail.remark, detail.list.map(|list| list.lines)), (None, a_list().remove(0).1, Some(2)));
    // Who joins by adopting a whole section gets none either.
    meshed.forget(2);
    meshed.pass(3_000);
    assert!(rows(&mut meshed, 2).is_empty());
    nowhere_else(&meshed);
    assert_eq!(remove(&mut meshed, 0, PATH), 1);
    assert!(rows(&mut meshed, 0).is_empty());
    assert_eq!(lines(&mut meshed, 0), Err(Code::NoSuchTopic));
}

#[test]
fn a_list_goes_on_after_a_restart() {
    let mut meshed = Meshed::with_section(2, &[], "s/other");
    add(&mut meshed, 0, "paged", PATH).expect("made");
    append(&mut meshed, 0, &["a", "b", "c"]);
    edit(&mut meshed, 0, PATH, Splice::remove(2, 1)).expect("removed");
    let before = read(&mut meshed, 0, 1, 10).expect("a list");
    meshed.restart(0);
    meshed.pass(2_000);
    assert_eq!(read(&mut meshed, 0, 1, 10), Ok(before.clone()));
    assert_eq!(listed(&mut meshed, 0), a_list());
    let after = edit(&mut meshed, 0, PATH, Splice::insert(1, texts(&["first"]))).expect("inserted");
    assert!(after.revision > before.1.revision);
    assert_eq!(lines(&mut meshed, 0), Ok(texts(&["first", "a", "c"])));
    nowhere_else(&meshed);
}

#[test]
fn sections_come_and_go_over_a_list() {
    let mut meshed = Meshed::new(2);
    add(&mut meshed, 0, "paged", PATH).expect("made");
    add(&mut meshed, 0, "json", "s/plain").expect("made");
    append(&mut meshed, 0, &["a"]);
    let operator = meshed.client(0);
    let section = |root: &str| Request::SectionAdd { root: root.into(), properties: Default::default() };
    for root in ["s", "s/list"] {
        assert!(matches!(meshed.ask(0, operator, section(root)), Response::Section(_)));
        meshed.pass(2_000);
        append(&mut meshed, 0, &[root]);
        assert_eq!(listed(&mut meshed, 0), a_list());
        assert!(rows(&mut meshed, 1).is_empty());
        nowhere_else(&meshed);
    }
    assert!(meshed.nodes[1].replica().topic(&Path::parse("s/plain").unwrap()).is_some(), "what can be replicated is");
    // Not even a section that is not held here is in its way.
    meshed.ask(0, operator, Request::SectionDrop { root: "s/list".into(), force: true });
    append(&mut meshed, 0, &["dropped"]);
    assert_eq!(listed(&mut meshed, 0), a_list());
    assert_eq!(add(&mut meshed, 0, "json", "s/list/deep"), Err(Code::NotHeld));
    add(&mut meshed, 0, "paged", "s/list/deep").expect("made");
    let listener = subscribe(&mut meshed, 0, "?s/list/");
    assert_eq!(told(&mut meshed, 0, listener), ["+ paged", "= 0 lines of 0 bytes"]);
    assert_eq!(remove(&mut meshed, 0, "s/list/deep"), 1);
    assert_eq!(told(&mut meshed, 0, listener), ["- removed"]);
    for root in ["s/list", "s"] {
        assert!(matches!(meshed.ask(0, operator, Request::SectionRemove { root: root.into() }), Response::Done));
        meshed.pass(2_000);
        append(&mut meshed, 0, &[root]);
    }
    assert_eq!(lines(&mut meshed, 0), Ok(texts(&["a", "s", "s/list", "dropped", "s/list", "s"])));
    assert!(rows(&mut meshed, 1).is_empty());
}

#[test]
fn a_replicated_topic_at_the_same_path_hides_a_list() {
    let mut meshed = Meshed::with_section(2, &[], "s/other");
    add(&mut meshed, 0, "paged", PATH).expect("made");
    append(&mut meshed, 0, &["a"]);
    let listener = subscribe(&mut meshed, 0, PATH);
    assert_eq!(told(&mut meshed, 0, listener), ["+ paged", "= 1 lines of 1 bytes"]);
    assert_eq!(add(&mut meshed, 0, "binary", PATH), Err(Code::ExistsMismatch));
    assert_eq!(add(&mut meshed, 0, "paged", PATH), Ok(()), "it is there");
    add(&mut meshed, 1, "binary", PATH).expect("there is nothing there");
    let value = |meshed: &mut Meshed, at, value: u8| {
        let client = meshed.client(at);
        let items = vec![SetItem::new(Target::Path(PATH.into()), vec![value])];
        meshed.ask(at, client, Request::Set(SetBatch { items, add: None, durability: None, under: None }))
    };
    value(&mut meshed, 1, 7);
    meshed.pass(2_000);
    assert_eq!(told(&mut meshed, 0, listener), ["- removed", "+ binary", "= [7]"]);
    assert_eq!(listed(&mut meshed, 0), [("binary".into(), remark("hides a paged topic of this node"))]);
    assert_eq!(listed(&mut meshed, 1), [("binary".into(), None)]);
    let concern = |meshed: &Meshed, at: usize| {
        let concerns = meshed.nodes[at].concerns().into_iter();
        concerns
            .filter(|concern| concern.check == "topics" && concern.severity == Severity::Warning && concern.found.contains(PATH))
            .count()
    };
    assert_eq!((concern(&meshed, 0), concern(&meshed, 1)), (1, 0));
    assert_eq!(lines(&mut meshed, 0), Err(Code::InvalidRequest));
    assert_eq!(edit(&mut meshed, 0, PATH, Splice::clear()), Err(Code::InvalidRequest));
    assert_eq!(add(&mut meshed, 0, "paged", PATH), Err(Code::ExistsMismatch));
    // The replicated one is written here as anywhere.
    value(&mut meshed, 0, 8);
    meshed.pass(1_000);
    assert_eq!(told(&mut meshed, 0, listener), ["= [8]"]);
    meshed.restart(0);
    meshed.pass(2_000);
    assert_eq!(concern(&meshed, 0), 1);
    let listener = subscribe(&mut meshed, 0, PATH);
    assert_eq!(told(&mut meshed, 0, listener), ["+ binary", "= [8]"]);
    // It is removed by its path; the list is seen again, and can be, too.
    assert_eq!(remove(&mut meshed, 1, PATH), 1);
    meshed.pass(2_000);
    assert_eq!(told(&mut meshed, 0, listener), ["- removed", "+ paged", "= 1 lines of 1 bytes"]);
    assert_eq!((lines(&mut meshed, 0), listed(&mut meshed, 0), concern(&meshed, 0)), (Ok(texts(&["a"])), a_list(), 0));
    assert_eq!(remove(&mut meshed, 0, PATH), 1);
    assert_eq!(told(&mut meshed, 0, listener), ["- removed"]);
}

#[test]
fn what_hid_a_list_is_not_lost_with_its_section() {
    let mut meshed = Meshed::with_section(2, &[], "s/other");
    add(&mut meshed, 0, "paged", PATH).expect("made");
    append(&mut meshed, 0, &["a"]);
    add(&mut meshed, 1, "binary", PATH).expect("made");
    let client = meshed.client(1);
    let items = vec![SetItem::new(Target::Path(PATH.into()), vec![7])];
    meshed.ask(1, client, Request::Set(SetBatch { items, add: None, durability: None, under: None }));
    meshed.pass(2_000);
    assert_eq!(listed(&mut meshed, 0)[0].0, "binary");
    assert!(matches!(meshed.ask(1, client, Request::SectionRemove { root: "s".into() }), Response::Done));
    meshed.pass(3_000);
    assert_eq!((listed(&mut meshed, 0), listed(&mut meshed, 1)), (a_list(), vec![("binary".into(), None)]));
    assert_eq!(lines(&mut meshed, 0), Ok(texts(&["a"])));
    let operator = meshed.client(0);
    let Response::Displaced { rows, .. } = meshed.ask(0, operator, Request::Displaced { selector: PATH.into(), page: Page::default() })
    else {
        panic!("refused")
    };
    assert_eq!(rows.iter().map(|row| (row.path.as_str(), row.topic_type.as_str())).collect::<Vec<_>>(), [(PATH, "binary")]);
    // Where the list goes, it can come back.
    assert_eq!(remove(&mut meshed, 0, PATH), 1);
    assert!(matches!(meshed.ask(0, operator, Request::DisplacedRestore { id: rows[0].id.clone() }), Response::Done));
    assert_eq!(listed(&mut meshed, 0), [("binary".into(), None)]);
}

#[test]
fn lines_are_changed_as_asked_or_not_at_all() {
    let mut meshed = Meshed::with_section(1, &[], "s/other");
    let client = meshed.client(0);
    let add = |topic_type: &str, lines: &[&str]| Change {
        add: Some(TopicSpec::of(topic_type)),
        ..Change::new(PATH, Wish::Lines(Splice::append(texts(lines))))
    };
    let mut asks = |change| ask(&mut meshed, 0, client, change).map_err(|refusal| (refusal.code, refusal.why));
    let code = |answer: Result<ListState, (Code, String)>| answer.map_err(|(code, _)| code);
    let wish = |splice| Change::new(PATH, Wish::Lines(splice));
    assert_eq!(code(asks(wish(Splice::append(texts(&["a"]))))), Err(Code::NoSuchTopic));
    assert_eq!(code(asks(add("binary", &["a"]))), Err(Code::InvalidRequest));
    assert_eq!(code(asks(add("paged", &["a", "b\nc"]))), Err(Code::InvalidValue));
    assert_eq!(code(asks(wish(Splice::clear()))), Err(Code::NoSuchTopic), "nothing was made for what was refused");
    let made = asks(add("paged", &["a", "b", "c"])).expect("it is made");
    assert_eq!((made.lines, made.bytes), (3, 3));
    let replaced = asks(wish(Splice::replace(2, texts(&["B", "C"])))).expect("there are two");
    assert!(replaced.revision > made.revision);
    let wrong = asks(wish(Splice::replace(3, texts(&["C", "D"])))).expect_err("there is no fourth");
    assert_eq!(wrong, (Code::NoSuchLine, "there is no line 4: the list has 3, and the first is 1".into()));
    assert_eq!(code(asks(wish(Splice::insert(0, texts(&["x"]))))), Err(Code::NoSuchLine));
    assert_eq!(code(asks(wish(Splice::append(vec!["x".repeat(paged::LINE_BYTES_MAX + 1)])))), Err(Code::TooLarge));
    // Whoever reads first changes what it has read, and nothing else.
    let if_still = |revision: u64, splice| wish(splice).only_if(&format!("/revision is {revision}"));
    assert_eq!(code(asks(if_still(made.revision, Splice::clear()))), Err(Code::ConstraintUnmet));
    let inserted = asks(if_still(replaced.revision, Splice::insert(4, texts(&["d"])))).expect("it is so");
    assert_eq!(code(asks(wish(Splice::append(texts(&["e"]))).only_if("/lines is 4"))).map(|list| list.lines), Ok(5));
    assert!(matches!(asks(wish(Splice::clear()).only_if("no topic")), Err((Code::ConstraintUnmet, _))));
    // A list takes no value, and other topics no lines.
    assert_eq!(code(asks(Change::new(PATH, Wish::Value(vec![0xf6])))), Err(Code::InvalidValue));
    assert_eq!(code(asks(Change::new(PATH, Wish::Patch("[]".into())))), Err(Code::PatchFailed));
    assert_eq!(code(asks(Change::new("s/other", Wish::Lines(Splice::clear())))), Err(Code::InvalidRequest));
    assert_eq!(lines(&mut meshed, 0), Ok(texts(&["a", "B", "C", "d", "e"])));
    let list = read(&mut meshed, 0, 2, 2);
    assert!(
        matches!(&list, Ok((lines, list)) if *lines == texts(&["B", "C"]) && list.lines == 5 && list.revision > inserted.revision),
        "{list:?}"
    );
    assert_eq!(read(&mut meshed, 0, 6, 2).map(|(lines, _)| lines), Ok(vec![]));
    assert_eq!(read(&mut meshed, 0, 0, 2), Err(Code::InvalidRequest));
}

#[test]
fn long_lists_are_read_in_parts_that_fit_a_frame() {
    let mut meshed = Meshed::with_section(1, &[], "s/other");
    add(&mut meshed, 0, "paged", PATH).expect("made");
    let line = "x".repeat(10_000);
    for _ in 0..4 {
        edit(&mut meshed, 0, PATH, Splice::append(vec![line.clone(); 25])).expect("they are appended");
    }
    let (mut got, mut parts) = (0, 0);
    while got < 100 {
        let (part, list) = read(&mut meshed, 0, got + 1, PAGE_MAX).expect("a list");
        assert!(!part.is_empty() && part.iter().map(String::len).sum::<usize>() <= FRAME_AIM + line.len() && list.lines == 100);
        (got, parts) = (got + part.len() as u64, parts + 1);
    }
    assert!(parts > 2);
}

#[test]
fn who_may_change_and_read_lines_is_said_by_rules_and_sources() {
    let mut meshed = Meshed::with_section(2, &[], "s/other");
    add(&mut meshed, 0, "paged", PATH).expect("made");
    append(&mut meshed, 0, &["a"]);
    let operator = meshed.client(0);
    let script = format!("principal ann password {HASH}\nprincipal ann roles clerk\nrole clerk at s/list update");
    assert!(matches!(meshed.ask(0, operator, Request::AccessScript { script, dry_run: false }), Response::AccessChanged(_)));
    let ann = meshed.principal(0, "ann");
    let read = |path: &str| Request::Lines { path: path.into(), from: 1, count: 1 };
    let wish = || Change::new(PATH, Wish::Lines(Splice::append(texts(&["by ann"]))));
    let refused = |answer: Response| if let Response::Refused(refusal) = answer { Some(refusal.code) } else { None };
    assert_eq!(ask(&mut meshed, 0, ann, wish()).map(|list| list.lines), Ok(2));
    assert_eq!(refused(meshed.ask(0, ann, read(PATH))), Some(Code::NotPermitted));
    let may_read = Request::AccessScript { script: "role clerk at s/list read".into(), dry_run: false };
    meshed.ask(0, operator, may_read);
    assert_eq!(refused(meshed.ask(0, ann, read(PATH))), None);
    assert_eq!(ask(&mut meshed, 0, ann, wish()).map_err(|refusal| refusal.code), Err(Code::NotPermitted));
    // A source anywhere in the mesh has the branch to itself, with what is local in it.
    let source = meshed.client(1);
    let number = claim(&mut meshed, 1, source, "s");
    meshed.pass(2_000);
    assert_eq!(edit(&mut meshed, 0, PATH, Splice::clear()), Err(Code::Exclusive));
    meshed.ask(1, source, Request::SourceClose { source: number });
    meshed.pass(2_000);
    let own = meshed.client(0);
    let number = claim(&mut meshed, 0, own, PATH);
    meshed.pass(2_000);
    let cleared = ask(&mut meshed, 0, own, Change::new(PATH, Wish::Lines(Splice::clear())));
    assert_eq!(cleared.map(|list| list.lines).map_err(|refusal| refusal.code), Ok(0));
    // Nor does what was written under an epoch stand in the way of what comes after, wherever the path belongs then.
    meshed.ask(0, own, Request::SourceClose { source: number });
    assert!(matches!(meshed.ask(0, operator, Request::SectionRemove { root: "s".into() }), Response::Done));
    append(&mut meshed, 0, &["b"]);
    assert_eq!(lines(&mut meshed, 0), Ok(texts(&["b"])));
}

#[test]
fn what_is_done_to_a_list_is_answered_once_it_is_on_the_disk() {
    let mut node = node();
    let mut ask = |request: Request| {
        let outputs: Vec<Output> = node.handle_input(at(1), Input::Request { session: SESSION, id: 1, request }).collect();
        let response =
            |output| if let Output::Send { message: FromNode::Response { response, .. }, .. } = output { Some(response) } else { None };
        let marks: Vec<u64> =
            outputs.iter().filter_map(|output| if let Output::Persist { mark, .. } = output { Some(*mark) } else { None }).collect();
        assert!(outputs.into_iter().find_map(response).is_none() && !marks.is_empty(), "an answer before the disk has it");
        let answers = marks
            .into_iter()
            .flat_map(|mark| node.handle_input(at(1), Input::Persisted { released: mark, synced: mark }).collect::<Vec<_>>());
        answers.collect::<Vec<_>>().into_iter().find_map(response).expect("an answer")
    };
    assert!(matches!(ask(Request::SectionAdd { root: "s".into(), properties: Default::default() }), Response::Section(_)));
    assert!(matches!(
        ask(Request::TopicsAdd { topic: TopicSpec::of("paged"), paths: vec![PATH.into()] }),
        Response::Added { created: 1, .. }
    ));
    let change = |splice| Request::Change(Box::new(Change::new(PATH, Wish::Lines(splice))));
    assert!(matches!(ask(change(Splice::append(texts(&["a"])))), Response::Changed { .. }));
    assert!(matches!(ask(change(Splice::clear())), Response::Changed { .. }));
    assert!(matches!(ask(Request::TopicsRemove { selector: PATH.into(), force: false }), Response::Removed { topics: 1 }));
}

#[test]
fn a_slave_shows_the_lines_of_a_list() {
    let mut meshed = Meshed::with_section(2, &[], "s/other");
    add(&mut meshed, 0, "paged", "s/master").expect("made");
    edit(&mut meshed, 0, "s/master", Splice::append(texts(&["a"]))).expect("appended");
    let client = meshed.client(0);
    let slave = TopicSpec { topic_type: "slave".into(), properties: [("master".to_owned(), "s/master".to_owned())].into() };
    meshed.ask(0, client, Request::TopicsAdd { topic: slave, paths: vec![PATH.into()] });
    meshed.pass(1_000);
    assert_eq!(lines(&mut meshed, 0), Ok(texts(&["a"])));
    assert_eq!(lines(&mut meshed, 1), Err(Code::NoSuchTopic), "its master is not there");
    assert_eq!(edit(&mut meshed, 0, PATH, Splice::clear()), Err(Code::InvalidRequest));
}

#[test]
fn a_list_goes_when_it_was_made_to_go_also_after_it_was_hidden() {
    let mut meshed = Meshed::with_section(2, &[], "s/other");
    let client = meshed.client(0);
    let removal = ("removal".to_owned(), "when no updates for 1m".to_owned());
    let list = TopicSpec { topic_type: "paged".into(), properties: [removal].into() };
    meshed.ask(0, client, Request::TopicsAdd { topic: list, paths: vec![PATH.into()] });
    add(&mut meshed, 1, "binary", PATH).expect("made");
    meshed.pass(2_000);
    meshed.restart(0);
    meshed.pass(100_000);
    assert_eq!(listed(&mut meshed, 0)[0].0, "binary", "nothing else goes in its place");
    assert_eq!(remove(&mut meshed, 1, PATH), 1);
    meshed.pass(10_000);
    assert_eq!(listed(&mut meshed, 0), a_list());
    meshed.pass(100_000);
    assert!(rows(&mut meshed, 0).is_empty());
}
