//! Who may do what, at every door: requests, deliveries, sources, sessions; at once, after a split, and after a session has moved.

use std::collections::BTreeMap;

use mangrove_crdt::{access::Permission, blob::BlobHash};

use crate::node::{
    ConnectionId,
    testing::{HASH, Meshed},
};
use crate::protocol::{
    Closed, Code, Ended, Event, FromNode, Gone, Login, OpenSession, Page, Request, Response, SessionNews, SetBatch, SetItem, SourceState,
    Target, TopicSpec,
};

/// A mesh with a section `s`, in which a script says who may do what.
fn meshed(count: u8, script: &str) -> Meshed {
    let mut meshed = Meshed::with_section(count, &[], "s/a");
    let operator = meshed.client(0);
    meshed.ask(0, operator, Request::TopicsAdd { topic: TopicSpec::of("binary"), paths: vec!["s/b".into(), "s/c/d".into()] });
    run(&mut meshed, 0, script);
    meshed.pass(1_000);
    meshed
}

/// Somebody with one role of their own.
fn somebody(script: &str) -> String {
    format!("principal ann password {HASH}\nprincipal ann roles clerk\n{script}")
}

#[track_caller]
fn run(meshed: &mut Meshed, at: usize, script: &str) {
    let operator = meshed.client(at);
    let changed = meshed.ask(at, operator, Request::AccessScript { script: script.into(), dry_run: false });
    assert!(matches!(changed, Response::AccessChanged(_)), "{changed:?}");
    meshed.gone(at, operator);
}

fn set(path: &str, add: bool) -> Request {
    let items = vec![SetItem::new(Target::Path(path.into()), vec![1])];
    Request::Set(SetBatch { items, add: add.then(|| TopicSpec::of("binary")), durability: None, under: None })
}

/// Why a request was refused, all of it or its only item.
fn refusal(response: &Response) -> Option<Code> {
    match response {
        Response::Refused(refusal) => Some(refusal.code),
        Response::Written { refused, .. } | Response::Added { refused, .. } => refused.first().map(|item| item.refusal.code),
        _ => None,
    }
}

fn subscribe(meshed: &mut Meshed, at: usize, client: ConnectionId, selector: &str) -> Response {
    meshed.ask(at, client, Request::Subscribe { selector: selector.into(), credit: 1_000, stamps: false, heard: None })
}

/// What a subscriber is told, in words.
fn told(meshed: &mut Meshed, at: usize, client: ConnectionId) -> Vec<String> {
    let (now, mut told, mut names) = (meshed.now(), Vec::new(), BTreeMap::new());
    while let Some(message) = meshed.nodes[at].poll_updates(now, client) {
        match message {
            FromNode::Updates(updates) => {
                for update in updates {
                    let path = match update.topic {
                        Target::Path(path) => path,
                        Target::Named { alias, path } => names.entry(alias).or_insert(path).clone(),
                        Target::Alias(alias) => format!("#{alias}"),
                    };
                    told.push(match update.event {
                        Event::Added { .. } => format!("+{path}"),
                        Event::Value { .. } => format!("={path}"),
                        Event::Message(_) => format!(">{path}"),
                        Event::Removed { reason: Gone::NotPermitted } => format!("!{path}"),
                        Event::Removed { .. } => format!("-{path}"),
                    });
                }
            }
            FromNode::Unsubscribed { refusal, .. } => told.push(format!("ended {}", refusal.code)),
            _ => {}
        }
    }
    told
}

#[test]
fn every_request_needs_what_it_needs() {
    let page = Page::default;
    let text = String::new;
    let session = "00000000000000000000000000000000".to_owned();
    use Permission::*;
    let cases: Vec<(Permission, Request)> = vec![
        (ViewNode, Request::Status),
        (ViewNode, Request::Nodes),
        (ViewNode, Request::Links),
        (ViewNode, Request::Sections),
        (ViewNode, Request::SectionShow { root: "s".into() }),
        (ViewNode, Request::Config),
        (ViewNode, Request::Doctor),
        (ControlNode, Request::NodeRevoke { node: "n2".into() }),
        (ControlNode, Request::NodeRename { name: "x".into() }),
        (ControlNode, Request::NodeLeave { force: false }),
        (ControlNode, Request::LinkBlock { node: "n2".into(), blocked: true }),
        (ControlNode, Request::SectionAdd { root: "t".into(), properties: BTreeMap::new() }),
        (ControlNode, Request::SectionSet { root: "s".into(), properties: BTreeMap::new() }),
        (ControlNode, Request::SectionRemove { root: "t".into() }),
        (ControlNode, Request::SectionHold { root: "s".into() }),
        (ControlNode, Request::SectionDrop { root: "s".into(), force: false }),
        (ControlNode, Request::Invite { role: "member".into(), ttl_ms: 1 }),
        (ControlNode, Request::Renew),
        (ControlNode, Request::Shutdown),
        (ViewSession, Request::Sessions { page: page(), filter: text() }),
        (ViewSession, Request::SessionShow { session: session.clone() }),
        (ViewSession, Request::SessionsListen { filter: text() }),
        (ViewSession, Request::Sources { page: page() }),
        (ViewSession, Request::SourceShow { branch: "s/a".into() }),
        (ModifySession, Request::SessionEnd { session: session.clone() }),
        (ModifySession, Request::SessionSet { session: session.clone(), properties: BTreeMap::new() }),
        (ModifySession, Request::SessionRoles { session, roles: None }),
        (ViewSecurity, Request::Access { about: text(), page: page() }),
        (ViewSecurity, Request::AccessWhy { who: "ann".into(), path: "s/a".into() }),
        (ViewSecurity, Request::Principals { page: page() }),
        (ViewSecurity, Request::Roles),
        (ModifySecurity, Request::AccessScript { script: text(), dry_run: false }),
        (RegisterHandler, Request::HandlerRegister { name: "door".into() }),
        (Read, Request::TopicShow { path: "s/a".into() }),
        (Read, Request::Values { selector: "s/a".into(), page: page() }),
        (Select, Request::Topics { selector: "?s//".into(), page: page(), pending: false }),
        (Select, Request::Values { selector: "?s//".into(), page: page() }),
        (Select, Request::Subscribe { selector: "?s//".into(), credit: 1, stamps: false, heard: None }),
        (Select, Request::Displaced { selector: "?s//".into(), page: page() }),
        (Update, set("s/a", false)),
        (Modify, Request::TopicsAdd { topic: TopicSpec::of("binary"), paths: vec!["s/new".into()] }),
        (Modify, Request::TopicsRemove { selector: "s/b".into(), force: false }),
        (Modify, set("s/newer", true)),
        (Modify, Request::BlobPut { hash: BlobHash::of(b""), offset: 0, total: 0, bytes: Vec::new() }),
        (AcquireSource, Request::SourceClaim { branch: "s/a".into(), priority: 0, wait: true, hold_ms: None }),
    ];
    for (permission, request) in cases {
        // Everything but the one, and then the one as well, with what else this needs.
        let list = |global: bool| -> String {
            let others = Permission::ALL.iter().filter(|other| other.is_global() == global && **other != permission);
            others.map(|other| format!(" {other}")).collect()
        };
        let script = somebody(&format!("role clerk global{}\nrole clerk default{}", list(true), list(false)));
        let mut meshed = meshed(1, &script);
        let ann = meshed.principal(0, "ann");
        let refused = meshed.ask(0, ann, request.clone());
        assert_eq!(refusal(&refused), Some(Code::NotPermitted), "{request:?} without {permission}: {refused:?}");
        run(&mut meshed, 0, "role clerk global all\nrole clerk default all");
        let allowed = meshed.ask(0, ann, request.clone());
        assert_ne!(refusal(&allowed), Some(Code::NotPermitted), "{request:?} with {permission}: {allowed:?}");
    }
}

#[test]
fn a_topic_is_listed_and_delivered_to_whom_it_may_be_and_taken_back_when_that_ends() {
    let mut meshed = meshed(1, &somebody("role clerk default select read update\nrole clerk at s/c none"));
    let ann = meshed.principal(0, "ann");
    let Response::Topics { rows, .. } =
        meshed.ask(0, ann, Request::Topics { selector: "?s//".into(), page: Page::default(), pending: false })
    else {
        panic!()
    };
    assert_eq!(rows.iter().map(|row| row.path.as_str()).collect::<Vec<_>>(), ["s/a", "s/b"]);
    meshed.ask(0, ann, set("s/a", false));
    subscribe(&mut meshed, 0, ann, "?s//");
    assert_eq!(told(&mut meshed, 0, ann), ["+s/a", "=s/a", "+s/b"]);
    run(&mut meshed, 0, "role clerk at s/a select\nrole clerk at s/c inherit");
    let taken = told(&mut meshed, 0, ann);
    assert_eq!(taken, ["!s/a", "+s/c/d"], "one is taken back, and one more is there; the other is not told again");
    let operator = meshed.client(0);
    meshed.ask(0, operator, set("s/a", false));
    meshed.ask(0, operator, Request::TopicsRemove { selector: "s/a".into(), force: false });
    assert_eq!(told(&mut meshed, 0, ann), [""; 0], "nothing more of it");
    run(&mut meshed, 0, "role clerk default read");
    assert_eq!(told(&mut meshed, 0, ann), ["ended not-permitted"], "what cannot be selected is not subscribed to");
    assert_eq!(refusal(&subscribe(&mut meshed, 0, ann, "?s//")), Some(Code::NotPermitted));
    run(&mut meshed, 0, "role clerk at s/b select read");
    assert!(matches!(subscribe(&mut meshed, 0, ann, "s/b"), Response::Subscribed { .. }));
    assert_eq!(refusal(&subscribe(&mut meshed, 0, ann, "#s/b////?s/c//")), Some(Code::NotPermitted), "each part counts");
    assert_eq!(told(&mut meshed, 0, ann), ["+s/b"]);
}

#[test]
fn after_a_split_every_session_of_a_role_loses_what_the_role_has_lost() {
    let mut meshed = meshed(3, &somebody("role clerk default select read"));
    meshed.pass(1_000);
    let anns: Vec<ConnectionId> = (0..3).map(|at| meshed.principal(at, "ann")).collect();
    for (at, ann) in anns.iter().enumerate() {
        subscribe(&mut meshed, at, *ann, "?s//");
        assert_eq!(told(&mut meshed, at, *ann), ["+s/a", "+s/b", "+s/c/d"]);
    }
    meshed.cut_off(2);
    run(&mut meshed, 0, "role clerk at s/a none\nrole clerk at s/c select");
    let operator = meshed.client(2);
    meshed.ask(2, operator, set("s/a", false));
    meshed.pass(3_000);
    assert_eq!(told(&mut meshed, 1, anns[1]), ["!s/a", "!s/c/d"]);
    assert_eq!(told(&mut meshed, 2, anns[2]).len(), 1, "it has not heard of it: the value");
    meshed.heal();
    meshed.pass(3_000);
    assert_eq!(told(&mut meshed, 2, anns[2]).iter().filter(|event| event.starts_with('!')).count(), 2);
    meshed.ask(2, operator, set("s/a", false));
    meshed.ask(2, operator, set("s/c/d", false));
    meshed.pass(1_000);
    for (at, ann) in anns.iter().enumerate() {
        let told = told(&mut meshed, at, *ann);
        assert!(told.iter().all(|event| event.starts_with('!')), "at {at}: {told:?}");
    }
}

fn opened(meshed: &mut Meshed, at: usize, client: ConnectionId) -> OpenSession {
    match meshed.ask(at, client, Request::SessionOpen { reconnect_timeout_ms: None, properties: BTreeMap::new() }) {
        Response::Session(session) => *session,
        other => panic!("{other:?}"),
    }
}

fn resume(meshed: &mut Meshed, at: usize, session: &OpenSession) -> (ConnectionId, Response) {
    let client = meshed.comes_back(at);
    let answer = meshed.ask(at, client, Request::SessionResume { id: session.id, secret: session.secret.clone(), epoch: session.epoch });
    (client, answer)
}

#[test]
fn a_session_has_its_rights_wherever_it_goes_and_no_others() {
    let mut meshed = meshed(3, &somebody("role clerk default select read"));
    meshed.pass(1_000);
    let ann = meshed.principal(0, "ann");
    let session = opened(&mut meshed, 0, ann);
    meshed.pass(1_000);
    meshed.gone(0, ann);
    let back = meshed.comes_back(1);
    assert_eq!(refusal(&meshed.ask(1, back, Request::Addresses)), Some(Code::NotPermitted), "nothing before it is there");
    let (ann, taken) = resume(&mut meshed, 1, &session);
    assert!(matches!(taken, Response::Session(_)), "{taken:?}");
    assert_eq!(refusal(&meshed.ask(1, ann, set("s/a", false))), Some(Code::NotPermitted));
    subscribe(&mut meshed, 1, ann, "?s//");
    assert_eq!(told(&mut meshed, 1, ann).len(), 3);
    // Somebody else who has come in cannot have it.
    run(&mut meshed, 1, &format!("principal bob password {HASH}"));
    let bob = meshed.principal(1, "bob");
    let stolen = meshed.ask(1, bob, Request::SessionResume { id: session.id, secret: session.secret.clone(), epoch: 0 });
    assert_eq!(refusal(&stolen), Some(Code::NotPermitted));
}

#[test]
fn a_node_that_has_not_heard_of_a_principal_does_not_judge_its_session() {
    let mut meshed = meshed(3, "role clerk default select read");
    meshed.pass(1_000);
    meshed.stopped.insert(2);
    run(&mut meshed, 0, &somebody(""));
    let ann = meshed.principal(0, "ann");
    let session = opened(&mut meshed, 0, ann);
    meshed.pass(1_000);
    meshed.gone(0, ann);
    // It hears of the session, not of the principal: as if the one had come before the other.
    let record = meshed.nodes[0].replica().standing::<mangrove_crdt::standing::SessionRecord>(
        mangrove_crdt::id::SectionId::MESH,
        mangrove_crdt::standing::Standing::Session(session.id),
    );
    let record = record.expect("it is known");
    let node = &mut meshed.nodes[2];
    assert!(!node.knows_rights(&record.identity) && !node.is_banished(&record.identity));
    meshed.stopped.clear();
    meshed.pass(1_000);
    assert!(meshed.nodes[2].knows_rights(&record.identity));
    let (_, taken) = resume(&mut meshed, 2, &session);
    assert!(matches!(taken, Response::Session(_)), "{taken:?}");
}

#[test]
fn whose_principal_is_removed_is_out_everywhere_and_stays_out() {
    let mut meshed = meshed(3, &somebody("role clerk default all"));
    meshed.pass(1_000);
    let (here, there, plain) = (meshed.principal(0, "ann"), meshed.principal(2, "ann"), meshed.principal(2, "ann"));
    let (one, other) = (opened(&mut meshed, 0, here), opened(&mut meshed, 2, there));
    meshed.pass(1_000);
    let operator = meshed.client(1);
    meshed.ask(1, operator, Request::SessionsListen { filter: "$Principal is 'ann' and hasRoles ['clerk']".into() });
    let heard = |meshed: &mut Meshed| {
        let (now, mut heard) = (meshed.now(), Vec::new());
        while let Some(FromNode::Sessions { news, .. }) = meshed.nodes[1].poll_updates(now, operator) {
            heard.extend(news);
        }
        heard
    };
    assert_eq!(heard(&mut meshed).len(), 2);
    meshed.cut_off(2);
    run(&mut meshed, 0, "principal ann remove");
    meshed.pass(1_000);
    let closing = |meshed: &Meshed, at: usize, client: ConnectionId| {
        let is_closing = |message: &FromNode| matches!(message, FromNode::Closing(refusal) if refusal.code == Code::SessionEnded);
        meshed.told.iter().any(|(node, session, message)| (*node, *session) == (at, client) && is_closing(message))
    };
    assert!(closing(&meshed, 0, here) && !closing(&meshed, 2, there));
    let ended = heard(&mut meshed);
    assert!(
        ended.iter().all(|news| matches!(news, SessionNews::Ended { session, reason: Ended::Revoked } if *session == one.id)),
        "{ended:?}"
    );
    let login = Login::Password { principal: "ann".into(), password: crate::protocol::Secret::new(crate::node::testing::PASSWORD) };
    assert!(matches!(meshed.login(0, login.clone()).1, Some(Err(refusal)) if refusal.code == Code::BadCredential));
    // The other side has not heard of it, and changes the password meanwhile: the removal stands.
    run(&mut meshed, 2, &format!("principal ann password {}", HASH.replace("c2FsdHNhbHQ", "b3RoZXI")));
    meshed.heal();
    meshed.pass(3_000);
    assert!(closing(&meshed, 2, there) && closing(&meshed, 2, plain));
    for at in 0..3 {
        assert!(matches!(meshed.login(at, login.clone()).1, Some(Err(_))), "at {at}");
        for session in [&one, &other] {
            let (_, answer) = resume(&mut meshed, at, session);
            assert!(refusal(&answer).is_some(), "at {at}: {answer:?}");
        }
        let operator = meshed.client(at);
        let Response::Access { conflicts, .. } = meshed.ask(at, operator, Request::Access { about: String::new(), page: Page::default() })
        else {
            panic!()
        };
        assert_eq!(conflicts.len(), 1, "it is told: {conflicts:?}");
        assert!(conflicts[0].statements.contains(&"principal ann remove".to_owned()));
        assert!(meshed.nodes[at].concerns().iter().any(|concern| concern.check == "access" && concern.found.contains("ann")));
    }
}

#[test]
fn a_source_and_a_listener_end_with_the_right_to_be_one() {
    let mut meshed = meshed(1, &somebody("role clerk default all\nrole clerk global view-session"));
    let ann = meshed.principal(0, "ann");
    let claim = Request::SourceClaim { branch: "s/a".into(), priority: 0, wait: true, hold_ms: None };
    assert!(matches!(meshed.ask(0, ann, claim), Response::Claimed { .. }));
    assert!(matches!(meshed.ask(0, ann, Request::SessionsListen { filter: String::new() }), Response::Listening { .. }));
    meshed.pass(1_000);
    assert_eq!(refusal(&meshed.ask(0, ann, set("s/a", false))), None);
    meshed.told.clear();
    run(&mut meshed, 0, "role clerk default read update\nrole clerk global none");
    meshed.pass(1_000);
    let told: Vec<&FromNode> = meshed.told.iter().filter(|(_, client, _)| *client == ann).map(|(_, _, message)| message).collect();
    let closed =
        |message: &FromNode| matches!(message, FromNode::Source { state: SourceState::Closed { reason: Closed::NotPermitted, .. }, .. });
    let unlistened = |message: &FromNode| matches!(message, FromNode::Unlistened { refusal, .. } if refusal.code == Code::NotPermitted);
    assert!(told.iter().any(|message| closed(message)) && told.iter().any(|message| unlistened(message)), "{told:?}");
    assert_eq!(refusal(&meshed.ask(0, ann, set("s/a", false))), None, "anybody may write there again");
}

#[test]
fn a_session_can_be_given_other_roles() {
    let mut meshed = meshed(3, &somebody("role clerk default select read\nrole boss default all"));
    meshed.pass(1_000);
    let ann = meshed.principal(0, "ann");
    let session = opened(&mut meshed, 0, ann);
    meshed.pass(1_000);
    let give = |meshed: &mut Meshed, at: usize, roles: Option<&[&str]>| {
        let operator = meshed.client(at);
        let roles = roles.map(|roles| roles.iter().map(|role| (*role).to_owned()).collect());
        let answer = meshed.ask(at, operator, Request::SessionRoles { session: session.id.to_string(), roles });
        meshed.pass(1_000);
        answer
    };
    assert_eq!(refusal(&meshed.ask(0, ann, set("s/a", false))), Some(Code::NotPermitted));
    assert_eq!(give(&mut meshed, 2, Some(&["boss"])), Response::Affected { sessions: 1 });
    assert_eq!(refusal(&meshed.ask(0, ann, set("s/a", false))), None);
    // Wherever it goes.
    meshed.gone(0, ann);
    let (ann, _) = resume(&mut meshed, 1, &session);
    assert_eq!(refusal(&meshed.ask(1, ann, set("s/a", false))), None);
    assert_eq!(give(&mut meshed, 0, Some(&[])), Response::Affected { sessions: 1 });
    assert_eq!(refusal(&subscribe(&mut meshed, 1, ann, "s/a")), Some(Code::NotPermitted));
    assert_eq!(give(&mut meshed, 0, None), Response::Affected { sessions: 1 });
    assert!(matches!(subscribe(&mut meshed, 1, ann, "s/a"), Response::Subscribed { .. }), "those that it came with");
    assert_eq!(refusal(&give(&mut meshed, 0, Some(&["a b"]))), Some(Code::InvalidRequest));
}

#[test]
fn what_a_client_says_of_itself_is_believed_as_far_as_the_rules_say() {
    let mut meshed = meshed(1, &somebody("role clerk global view-session\ntrust desk in 7 8"));
    let ann = meshed.principal(0, "ann");
    let properties = [("desk", "7"), ("floor", "2")].map(|(key, value)| (key.to_owned(), value.to_owned()));
    meshed.ask(0, ann, Request::SessionOpen { reconnect_timeout_ms: None, properties: properties.into() });
    let Response::Sessions { rows, .. } = meshed.ask(0, ann, Request::Sessions { page: Page::default(), filter: String::new() }) else {
        panic!()
    };
    assert_eq!(rows[0].properties, BTreeMap::from([("desk".to_owned(), "7".to_owned())]));
    assert_eq!((rows[0].principal.as_str(), rows[0].roles.as_slice()), ("ann", &["clerk".to_owned()][..]));
}

#[test]
fn what_somebody_may_do_is_explained() {
    let mut meshed = meshed(
        1,
        &somebody("role clerk includes reader\nrole reader at s select read\nrole reader at s/c none\nrole reader default update"),
    );
    let operator = meshed.client(0);
    let mut why = |who: &str, path: &str| match meshed.ask(0, operator, Request::AccessWhy { who: who.into(), path: path.into() }) {
        Response::AccessWhy(report) => report,
        other => panic!("{other:?}"),
    };
    let report = why("ann", "s/a");
    assert_eq!(
        (report.roles, report.permissions),
        (vec!["clerk".to_owned(), "reader".to_owned()], vec!["select".to_owned(), "read".to_owned()])
    );
    assert_eq!(report.because, ["role reader has at s: select, read"]);
    assert_eq!(why("ann", "s/c/d").because, ["role reader has at s/c: nothing"]);
    assert_eq!(why("ann", "t").because, ["role reader has where nothing is assigned: update"]);
    assert_eq!(why("$anonymous", "t").because, ["none of its roles has a permission here, or by default"]);
    assert_eq!(refusal(&meshed.ask(0, operator, Request::AccessWhy { who: "bob".into(), path: "t".into() })), Some(Code::UnknownPrincipal));
}

#[test]
fn a_script_is_tried_without_doing_anything_and_hashes_are_shown_to_nobody() {
    let mut meshed = meshed(1, &somebody(""));
    let operator = meshed.client(0);
    let script = |script: &str, dry_run| Request::AccessScript { script: script.into(), dry_run };
    let Response::AccessChanged(rows) = meshed.ask(0, operator, script("principal ann roles boss\nrole boss default read", true)) else {
        panic!()
    };
    let rows: Vec<(Vec<String>, String)> = rows.into_iter().map(|row| (row.before, row.after)).collect();
    let expected = [(vec![], "role boss default read"), (vec!["principal ann roles clerk".to_owned()], "principal ann roles boss")];
    assert_eq!(rows, expected.map(|(before, after)| (before, after.to_owned())));
    let listed =
        |meshed: &mut Meshed, about: &str| match meshed.ask(0, operator, Request::Access { about: about.into(), page: Page::default() }) {
            Response::Access { statements, .. } => statements,
            other => panic!("{other:?}"),
        };
    assert_eq!(listed(&mut meshed, ""), ["principal ann password …", "principal ann roles clerk"]);
    assert_eq!(listed(&mut meshed, "principal an"), [""; 0]);
    assert_eq!(refusal(&meshed.ask(0, operator, script("role boss default read\nodd", false))), Some(Code::InvalidRequest));
    assert_eq!(listed(&mut meshed, "role boss"), [""; 0]);
    let paged = |after: Option<String>| Request::Access { about: String::new(), page: Page { after, limit: 1 } };
    let Response::Access { statements, next, .. } = meshed.ask(0, operator, paged(None)) else { panic!() };
    let Response::Access { statements: rest, next: end, .. } = meshed.ask(0, operator, paged(next)) else { panic!() };
    assert_eq!((statements.len(), rest.len(), end), (1, 1, None));
}

#[test]
fn a_topics_owner_may_do_anything_with_it_whatever_the_rules_say() {
    let mut meshed = meshed(2, &somebody(&format!("role clerk default select\nprincipal bob password {HASH}\nprincipal bob roles clerk")));
    let operator = meshed.client(0);
    let topic = TopicSpec { topic_type: "binary".into(), properties: BTreeMap::from([("owner".into(), "ann".into())]) };
    meshed.ask(0, operator, Request::TopicsAdd { topic, paths: vec!["s/own".into()] });
    meshed.pass(1_000);
    let (ann, bob) = (meshed.principal(1, "ann"), meshed.principal(1, "bob"));
    for client in [ann, bob] {
        subscribe(&mut meshed, 1, client, "?s//");
    }
    assert_eq!(refusal(&meshed.ask(1, ann, set("s/own", false))), None);
    assert_eq!(refusal(&meshed.ask(1, bob, set("s/own", false))), Some(Code::NotPermitted));
    assert_eq!((told(&mut meshed, 1, ann), told(&mut meshed, 1, bob)), (vec!["+s/own".to_owned(), "=s/own".into()], vec![]));
    run(&mut meshed, 1, "role clerk global view-node");
    assert_eq!(told(&mut meshed, 1, ann), [""; 0], "it keeps what is its own");
    assert!(matches!(
        meshed.ask(1, ann, Request::TopicsRemove { selector: "s/own".into(), force: false }),
        Response::Removed { topics: 1 }
    ));
    assert_eq!(told(&mut meshed, 1, ann), ["-s/own"]);
}
