//! Who comes in, and by whose word.

use std::collections::BTreeMap;

use super::*;
use crate::node::testing::{HASH, Meshed, PASSWORD};
use crate::protocol::{FromNode, OpenSession, Question, Request, Secret, TopicSpec};

fn password(principal: &str, password: &[u8]) -> Login {
    Login::Password { principal: principal.into(), password: Secret::new(password) }
}

fn meshed(count: u8, script: &str) -> Meshed {
    let mut meshed = Meshed::new(count);
    run(
        &mut meshed,
        0,
        &format!("principal ann password {HASH}\nprincipal ann roles clerk\nrole clerk global all\nrole clerk default all\n{script}"),
    );
    meshed.pass(1_000);
    meshed
}

fn run(meshed: &mut Meshed, at: usize, script: &str) {
    let operator = meshed.client(at);
    let changed = meshed.ask(at, operator, Request::AccessScript { script: script.into(), dry_run: false });
    assert!(matches!(changed, Response::AccessChanged(_)), "{changed:?}");
}

#[track_caller]
fn turned_away(judged: (ConnectionId, Option<Result<(), Refusal>>)) -> String {
    match judged {
        (_, Some(Err(refusal))) if refusal.code == Code::BadCredential => refusal.why,
        (_, other) => panic!("{other:?}"),
    }
}

/// What a client was asked to judge.
fn questions(meshed: &mut Meshed, client: ConnectionId) -> Vec<(u64, Question)> {
    let (asked, told) = std::mem::take(&mut meshed.told)
        .into_iter()
        .partition(|(_, session, message)| *session == client && matches!(message, FromNode::Judge { .. }));
    meshed.told = told;
    let asked: Vec<(usize, ConnectionId, FromNode)> = asked;
    asked
        .into_iter()
        .filter_map(|(_, _, message)| if let FromNode::Judge { number, question } = message { Some((number, *question)) } else { None })
        .collect()
}

/// A client that serves the handler `door`, which is last in the chain.
fn door(meshed: &mut Meshed, at: usize) -> ConnectionId {
    let client = meshed.client(at);
    assert_eq!(meshed.ask(at, client, Request::HandlerRegister { name: "door".into() }), Response::Done);
    meshed.pass(1_000);
    client
}

fn who(meshed: &Meshed, at: usize, client: ConnectionId) -> Identity {
    meshed.nodes[at].connections[&client].identity.clone().expect("it is somebody's")
}

#[test]
fn the_store_knows_principals_by_their_passwords_and_says_nothing_of_others() {
    let mut meshed = meshed(2, "");
    let wrong = turned_away(meshed.login(1, password("ann", b"another")));
    let unknown = turned_away(meshed.login(1, password("bob", PASSWORD)));
    assert_eq!(wrong, unknown);
    let (ann, judged) = meshed.login(1, password("ann", PASSWORD));
    assert_eq!(judged, Some(Ok(())));
    assert_eq!(who(&meshed, 1, ann), Identity { who: Who::Principal("ann".into()), roles: None, expires_ms: None });
    // Somebody of no name is compared with nobody's password, which takes as long.
    let login = Comer {
        client: String::new(),
        via: Via::default(),
        aliases_max: 0,
        entropy: [0; 32],
        login: password("bob", b"x"),
        properties: BTreeMap::new(),
    };
    let outputs: Vec<Output> = meshed.nodes[0]
        .handle_input(crate::node::testing::at(9_000), crate::node::Input::LoginAsked { session: ConnectionId(9_999), comer: login })
        .collect();
    let compared = |output: &Output| matches!(output, Output::Verify { verify: Verify::Password { hash: None, .. }, .. });
    assert!(outputs.iter().any(compared), "{outputs:?}");
}

#[test]
fn those_who_do_not_say_who_they_are_come_in_where_the_rules_let_them() {
    let mut meshed = meshed(1, "");
    turned_away(meshed.login(0, Login::Anonymous));
    run(&mut meshed, 0, "anonymous allow\nroles anonymous guest\nrole guest global view-node");
    let (guest, judged) = meshed.login(0, Login::Anonymous);
    assert_eq!(judged, Some(Ok(())));
    assert!(matches!(meshed.ask(0, guest, Request::Nodes), Response::Nodes(_)));
    let add = Request::TopicsAdd { topic: TopicSpec::of("json"), paths: vec!["x".into()] };
    assert!(matches!(meshed.ask(0, guest, add), Response::Added { created: 0, .. }));
    run(&mut meshed, 0, "anonymous deny");
    turned_away(meshed.login(0, Login::Anonymous));
}

#[test]
fn who_is_let_in_for_a_time_goes_when_it_is_over_unless_it_proves_itself_again() {
    let mut meshed = meshed(2, "");
    let token = || Login::Token(Secret::new("eve"));
    let (eve, judged) = meshed.login(0, token());
    assert_eq!(judged, Some(Ok(())));
    let (idle, _) = meshed.login(0, token());
    let Response::Session(session) = meshed.ask(0, eve, Request::SessionOpen { reconnect_timeout_ms: None, properties: BTreeMap::new() })
    else {
        panic!()
    };
    meshed.pass(8_000);
    assert_eq!(meshed.ask(0, eve, Request::Reauthenticate(token())), Response::Done);
    let refused = meshed.ask(0, eve, Request::Reauthenticate(Login::Token(Secret::new("mallory"))));
    assert!(matches!(refused, Response::Refused(refusal) if refusal.code == Code::BadCredential), "nobody else's");
    meshed.pass(6_000);
    let closed = |meshed: &Meshed, client: ConnectionId| {
        meshed.told.iter().any(|(_, session, message)| *session == client && matches!(message, FromNode::Closing(_)))
    };
    assert!(!closed(&meshed, eve) && closed(&meshed, idle));
    // Its home may lose it meanwhile; its time is over all the same.
    meshed.gone(0, eve);
    let (back, taken) = resume(&mut meshed, 1, &session);
    assert!(matches!(taken, Response::Session(_)), "{taken:?}");
    meshed.pass(6_000);
    assert!(closed(&meshed, back));
    let (_, taken) = resume(&mut meshed, 0, &session);
    assert!(matches!(taken, Response::Refused(_)), "{taken:?}");
}

fn resume(meshed: &mut Meshed, at: usize, session: &OpenSession) -> (ConnectionId, Response) {
    let client = meshed.comes_back(at);
    let answer = meshed.ask(at, client, Request::SessionResume { id: session.id, secret: session.secret.clone(), epoch: session.epoch });
    (client, answer)
}

#[test]
fn a_handler_judges_for_every_node_and_gives_roles_and_properties() {
    let mut meshed = meshed(3, "");
    let door = door(&mut meshed, 2);
    let (bob, judged) = meshed.login(0, password("bob", b"knock knock"));
    assert_eq!(judged, None, "it is still to be judged");
    let asked = questions(&mut meshed, door);
    let [(number, question)] = &asked[..] else { panic!("{asked:?}") };
    assert_eq!((question.handler.as_str(), &question.login), ("door", &password("bob", b"knock knock")));
    let properties = BTreeMap::from([("desk", "7"), ("$Country", "NZ")].map(|(key, value)| (key.to_owned(), value.to_owned())));
    let verdict = Verdict::Allow { principal: None, roles: Some(vec!["clerk".into()]), properties, expires_ms: None };
    assert_eq!(meshed.ask(2, door, Request::Judged { question: *number, verdict: verdict.clone() }), Response::Done);
    assert_eq!(meshed.judged.remove(&bob), Some(Ok(())));
    assert!(matches!(meshed.ask(0, bob, Request::Nodes), Response::Nodes(_)), "it has the role");
    let opened = meshed.ask(0, bob, Request::SessionOpen { reconnect_timeout_ms: None, properties: BTreeMap::new() });
    let Response::Session(session) = opened else { panic!() };
    let Response::SessionDetail(detail) = meshed.ask(0, bob, Request::SessionShow { session: session.id.to_string() }) else { panic!() };
    assert_eq!(detail.row.properties.get("desk").map(String::as_str), Some("7"));
    // Where it is its client cannot say itself, nor anybody change; and filters know it.
    let said = BTreeMap::from([("$Country".to_owned(), "US".to_owned())]);
    let liar = meshed.ask(0, bob, Request::SessionOpen { reconnect_timeout_ms: None, properties: said });
    assert!(matches!(liar, Response::Refused(_)), "{liar:?}");
    let operator = meshed.client(0);
    let set = |key: &str| Request::SessionSet {
        session: "$Country is 'NZ'".into(),
        properties: BTreeMap::from([(key.to_owned(), Some("8".to_owned()))]),
    };
    assert_eq!(meshed.ask(0, operator, set("desk")), Response::Affected { sessions: 1 });
    assert!(matches!(meshed.ask(0, operator, set("$Country")), Response::Refused(_)));
    // Whoever the store knows is none of its business; nor is an answer that comes twice, or what nobody can be given.
    turned_away(meshed.login(0, password("ann", b"knock knock")));
    assert_eq!(questions(&mut meshed, door).len(), 0);
    assert_eq!(meshed.ask(2, door, Request::Judged { question: *number, verdict }), Response::Done);
    let (odd, _) = meshed.login(1, password("odd", b"knock"));
    let (number, _) = questions(&mut meshed, door).remove(0);
    let verdict = Verdict::Allow { principal: None, roles: Some(vec!["$all".into()]), properties: BTreeMap::new(), expires_ms: None };
    meshed.ask(2, door, Request::Judged { question: number, verdict });
    assert!(matches!(meshed.judged.remove(&odd), Some(Err(_))));
    let (odd, _) = meshed.login(1, password("odd", b"knock"));
    let (number, _) = questions(&mut meshed, door).remove(0);
    let properties = BTreeMap::from([("$Principal".to_owned(), "ann".to_owned())]);
    meshed.ask(
        2,
        door,
        Request::Judged { question: number, verdict: Verdict::Allow { principal: None, roles: None, properties, expires_ms: None } },
    );
    assert!(matches!(meshed.judged.remove(&odd), Some(Err(_))));
}

#[test]
fn a_handler_that_is_away_keeps_nobody_waiting_for_longer_than_its_time() {
    let mut meshed = meshed(3, "");
    // Nobody serves it: nobody waits.
    turned_away(meshed.login(0, password("bob", b"knock")));
    let door = door(&mut meshed, 2);
    // It says nothing.
    let (bob, _) = meshed.login(0, password("bob", b"knock"));
    meshed.pass(1_900);
    assert_eq!(meshed.judged.get(&bob), None);
    meshed.pass(200);
    assert!(matches!(meshed.judged.remove(&bob), Some(Err(_))));
    let (number, _) = questions(&mut meshed, door).remove(0);
    meshed.ask(2, door, Request::Judged { question: number, verdict: Verdict::allow() });
    assert_eq!(meshed.judged.get(&bob), None, "too late");
    // Its node is out of reach, of which nobody has heard yet.
    meshed.cut_off(2);
    let (bob, _) = meshed.login(0, password("bob", b"knock"));
    meshed.pass(2_100);
    assert!(matches!(meshed.judged.remove(&bob), Some(Err(_))));
    // By now everybody has.
    meshed.pass(10_000);
    turned_away(meshed.login(0, password("bob", b"knock")));
}

#[test]
fn several_may_serve_one_name_and_take_over_from_each_other() {
    let mut meshed = meshed(3, "");
    let doors = [(1, door(&mut meshed, 1)), (2, door(&mut meshed, 2))];
    let mut asked = [0, 0];
    for _ in 0..10 {
        let (bob, _) = meshed.login(0, password("bob", b"knock"));
        for (which, (at, door)) in doors.iter().enumerate() {
            for (number, _) in questions(&mut meshed, *door) {
                asked[which] += 1;
                meshed.ask(*at, *door, Request::Judged { question: number, verdict: Verdict::allow() });
            }
        }
        assert_eq!(meshed.judged.remove(&bob), Some(Ok(())));
    }
    assert_eq!(asked, [5, 5]);
    // One that goes away with a question is no end of it.
    for _ in 0..2 {
        let (bob, _) = meshed.login(0, password("bob", b"knock"));
        let first = doors.iter().position(|(_, door)| !questions(&mut meshed, *door).is_empty());
        let Some(first) = first else { continue };
        let ((at, gone), (other_at, other)) = (doors[first], doors[1 - first]);
        meshed.gone(at, gone);
        let (number, _) = questions(&mut meshed, other).remove(0);
        meshed.ask(other_at, other, Request::Judged { question: number, verdict: Verdict::allow() });
        assert_eq!(meshed.judged.remove(&bob), Some(Ok(())));
        break;
    }
    // Who may not authenticate others any more does not.
    run(&mut meshed, 0, "role clerk global register-handler");
    let ann = meshed.principal(0, "ann");
    let refused = meshed.ask(0, ann, Request::HandlerRegister { name: "door".into() });
    assert!(matches!(refused, Response::Refused(refusal) if refusal.code == Code::NotPermitted));
}

#[test]
fn a_handlers_registration_outlives_its_node() {
    let mut meshed = meshed(3, "");
    let door = door(&mut meshed, 2);
    let Response::Session(session) = meshed.ask(2, door, Request::SessionOpen { reconnect_timeout_ms: None, properties: BTreeMap::new() })
    else {
        panic!()
    };
    meshed.pass(1_000);
    meshed.cut_off(2);
    let (door, taken) = resume(&mut meshed, 1, &session);
    assert!(matches!(taken, Response::Session(_)), "{taken:?}");
    meshed.pass(1_000);
    let (bob, _) = meshed.login(0, password("bob", b"knock"));
    let (number, _) = questions(&mut meshed, door).remove(0);
    meshed.ask(1, door, Request::Judged { question: number, verdict: Verdict::allow() });
    assert_eq!(meshed.judged.remove(&bob), Some(Ok(())));
    // It says so until it does not want to any more.
    assert_eq!(meshed.ask(1, door, Request::HandlerUnregister { name: "door".into() }), Response::Done);
    meshed.pass(1_000);
    turned_away(meshed.login(0, password("bob", b"knock")));
}

#[test]
fn letters_that_make_no_sense_let_nobody_in() {
    let mut meshed = meshed(2, "");
    let (bob, _) = {
        door(&mut meshed, 1);
        meshed.login(0, password("bob", b"knock"))
    };
    let now = meshed.now();
    let stranger = mangrove_crdt::id::NodeId([7; 32]);
    for mail in [
        handlers::Mail::Answer { ask: 1, verdict: Some(Verdict::allow()) },
        handlers::Mail::Answer { ask: 2, verdict: None },
        handlers::Mail::Ask {
            ask: 1,
            session: Default::default(),
            question: Question {
                handler: "door".into(),
                login: Login::Anonymous,
                client: String::new(),
                via: Via::default(),
                properties: BTreeMap::new(),
            },
        },
    ] {
        meshed.nodes[0].login_mail(now, stranger, mail);
    }
    meshed.pass(1_000);
    assert_eq!(meshed.judged.get(&bob), None, "whom it did not ask it does not believe");
}
