//! What is changed only if something is so, and in part.

use mangrove_crdt::definition::TopicType;
use mangrove_crdt::path::Path;
use mangrove_crdt::value;
use serde_json::{Value, json};

use crate::node::{
    ConnectionId,
    sources::tests::{claim, states},
    testing::{HASH, Meshed},
};
use crate::protocol::{Authority, Change, Code, Request, Response, SourceState, TopicSpec, Wish};

fn bytes(json: &Value) -> Vec<u8> {
    value::from_json(&TopicType::Json, json).expect("a value")
}

fn change(path: &str, wish: Wish, constraint: Option<&str>) -> Change {
    Change { constraint: constraint.map(str::to_owned), ..Change::new(path, wish) }
}

fn put(path: &str, json: &Value, constraint: Option<&str>) -> Change {
    change(path, Wish::Value(bytes(json)), constraint)
}

fn patch(path: &str, patch: &Value) -> Change {
    change(path, Wish::Patch(patch.to_string()), None)
}

/// Whether the topic was made and the judgement exact; or why not, and what is said.
fn ask(meshed: &mut Meshed, at: usize, client: ConnectionId, change: Change) -> Result<(bool, bool), (Code, String)> {
    match meshed.ask(at, client, Request::Change(Box::new(change))) {
        Response::Changed { created, exact, .. } => Ok((created, exact)),
        Response::Refused(refusal) => Err((refusal.code, refusal.why)),
        other => panic!("{other:?}"),
    }
}

fn shown(meshed: &Meshed, at: usize, path: &str) -> Option<Value> {
    let (replica, path) = (meshed.nodes[at].replica(), Path::parse(path).unwrap());
    let (section, topic) = replica.topic(&path)?;
    let bytes = replica.value(section, &path)?.value.clone()?;
    value::to_json(topic.definition.topic_type(), &bytes).ok()
}

fn add(meshed: &mut Meshed, path: &str, topic_type: &str) {
    let operator = meshed.client(0);
    let added = meshed.ask(0, operator, Request::TopicsAdd { topic: TopicSpec::of(topic_type), paths: vec![path.into()] });
    assert!(matches!(&added, Response::Added { refused, .. } if refused.is_empty()), "{added:?}");
    meshed.gone(0, operator);
}

#[test]
fn a_value_is_written_only_if_what_must_be_so_is_so() {
    let mut meshed = Meshed::with_section(1, &[], "s/a");
    add(&mut meshed, "s/j", "json");
    let client = meshed.client(0);
    let mut asks = |change| ask(&mut meshed, 0, client, change);
    assert_eq!(asks(put("s/j", &json!({"n": 1}), Some("no value"))), Ok((false, false)));
    let unmet = |said: &str| Err((Code::ConstraintUnmet, format!("it is not so that {said}")));
    assert_eq!(asks(put("s/j", &json!(0), Some("no value"))), unmet("no value"));
    assert_eq!(asks(put("s/j", &json!({"n": 2}), Some("/n is 1.0"))), Ok((false, false)));
    assert_eq!(asks(put("s/j", &json!({"n": 3}), Some("/n is 1"))), unmet("\"/n\" is 1"));
    // What is missing is made, also if that was the point.
    let made = |path| Change { add: Some(TopicSpec::of("json")), ..put(path, &json!(1), Some("no topic")) };
    assert_eq!(asks(made("s/new")), Ok((true, false)));
    assert_eq!(asks(made("s/new")), unmet("no topic"));
    assert_eq!(asks(put("s/none", &json!(1), Some("no topic"))).map_err(|why| why.0), Err(Code::NoSuchTopic));
    // At a topic of this node alone nobody can come in between.
    assert_eq!(asks(made("mine")), Ok((true, true)));
    for odd in ["", "value", "n is 1", "value is 1 or"] {
        assert_eq!(asks(put("s/j", &json!(1), Some(odd))).map_err(|why| why.0), Err(Code::InvalidRequest), "{odd}");
    }
    assert_eq!(asks(change("s/j", Wish::Value(vec![0xff]), None)).map_err(|why| why.0), Err(Code::InvalidValue));
    assert_eq!(shown(&meshed, 0, "s/j"), Some(json!({"n": 2})));
    assert_eq!(shown(&meshed, 0, "s/new"), Some(json!(1)));
}

#[test]
fn values_of_every_type_are_compared_as_they_are_shown() {
    let mut meshed = Meshed::with_section(1, &[], "s/a");
    let client = meshed.client(0);
    let values = [json!([1, {"a": null}]), json!("AQI="), json!("a b"), json!(-7), json!(7.0)];
    for (topic_type, value) in TopicType::PLAIN.into_iter().zip(values) {
        let path = format!("s/{topic_type}");
        add(&mut meshed, &path, topic_type.name());
        let bytes = value::from_json(&topic_type, &value).unwrap();
        let write = |constraint: &str| change(&path, Wish::Value(bytes.clone()), Some(constraint));
        let mut asks = |constraint: &str| ask(&mut meshed, 0, client, write(constraint)).is_ok();
        assert!(!asks(&format!("value is {value}")) && asks("no value"), "{topic_type}");
        assert!(asks(&format!("value is {value}")) && !asks("no value") && !asks("value is 'other'"), "{topic_type}");
        if let Some(none) = value::no_value(&topic_type) {
            ask(&mut meshed, 0, client, change(&path, Wish::Value(none.to_vec()), Some("not no value"))).expect("it has one");
            ask(&mut meshed, 0, client, write("no value and not no topic")).expect("it has none");
        }
    }
}

#[test]
fn a_patch_changes_a_document_or_nothing() {
    let mut meshed = Meshed::with_section(2, &[], "s/a");
    add(&mut meshed, "s/j", "json");
    let client = meshed.client(0);
    let mut asks = |change| ask(&mut meshed, 0, client, change);
    let code = |result: Result<(bool, bool), (Code, String)>| result.map_err(|why| why.0);
    let more = json!([{"op": "add", "path": "/b", "value": 2}]);
    assert_eq!(code(asks(patch("s/none", &more))), Err(Code::NoSuchTopic));
    assert_eq!(code(asks(patch("s/a", &more))), Err(Code::PatchFailed), "it is binary");
    assert_eq!(code(asks(patch("s/j", &more))), Err(Code::PatchFailed), "it has no value");
    asks(put("s/j", &json!({"z": {"y": 1, "x": 0}, "a": 1}), None)).expect("it is there");
    assert_eq!(asks(patch("s/j", &more)), Ok((false, false)));
    let (failed, why) = asks(patch("s/j", &json!([{"op": "remove", "path": "/a"}, {"op": "remove", "path": "/c"}]))).unwrap_err();
    assert!(failed == Code::PatchFailed && why.contains("operation 2") && why.contains("/c"), "{why}");
    assert_eq!(code(asks(patch("s/j", &json!({"op": "remove"})))), Err(Code::InvalidRequest));
    let deep: Value = (0..64).fold(json!(0), |json, _| json!([json]));
    assert_eq!(code(asks(patch("s/j", &json!([{"op": "add", "path": "/a", "value": deep}])))), Err(Code::PatchFailed));
    let unmet = Change { constraint: Some("/b is 3".into()), ..patch("s/j", &more) };
    assert_eq!(code(asks(unmet)), Err(Code::ConstraintUnmet));
    meshed.pass(1_000);
    for at in 0..2 {
        assert_eq!(shown(&meshed, at, "s/j"), Some(json!({"a": 1, "b": 2, "z": {"x": 0, "y": 1}})), "node {at}");
    }
}

#[test]
fn who_may_not_read_learns_nothing_from_a_refusal() {
    let mut meshed = Meshed::with_section(1, &[], "s/a");
    add(&mut meshed, "s/j", "json");
    let operator = meshed.client(0);
    let script = format!("principal ann password {HASH}\nprincipal ann roles clerk\nrole clerk at s update modify\n");
    let changed = meshed.ask(0, operator, Request::AccessScript { script, dry_run: false });
    assert!(matches!(changed, Response::AccessChanged(_)), "{changed:?}");
    let ann = meshed.principal(0, "ann");
    let mut asks = |change| ask(&mut meshed, 0, ann, change).map_err(|why| why.0);
    assert_eq!(asks(put("s/j", &json!(1), None)), Ok((false, false)));
    assert_eq!(asks(put("s/j", &json!(2), Some("value is 1"))), Err(Code::NotPermitted));
    assert_eq!(asks(patch("s/j", &json!([]))), Err(Code::NotPermitted));
    let elsewhere = Change { add: Some(TopicSpec::of("json")), ..put("t/new", &json!(1), None) };
    assert_eq!(asks(elsewhere), Err(Code::NotPermitted));
    assert_eq!(shown(&meshed, 0, "s/j"), Some(json!(1)));
}

#[test]
fn what_a_source_holds_is_changed_under_its_epoch_only() {
    let mut meshed = Meshed::with_section(1, &[], "s/a");
    add(&mut meshed, "s/j", "json");
    let [holder, other] = [meshed.client(0), meshed.client(0)];
    let source = claim(&mut meshed, 0, holder, "s");
    meshed.pass(5_000);
    let told = states(&mut meshed, holder);
    let Some(SourceState::Active { epoch }) = told.last().cloned() else { panic!("{told:?}") };
    let under = |epoch| Change { under: Some(Authority { source, epoch }), ..put("s/j", &json!(1), Some("no value")) };
    let mut asks = |client, change| ask(&mut meshed, 0, client, change).map_err(|why| why.0);
    assert_eq!(asks(other, put("s/j", &json!(2), None)), Err(Code::Exclusive));
    assert_eq!(asks(holder, under(epoch + 1)), Err(Code::Fenced));
    assert_eq!(asks(holder, under(epoch)), Ok((false, false)));
    assert_eq!(asks(holder, under(epoch)), Err(Code::ConstraintUnmet));
}
