//! Sessions of a mesh, seen and ended from any node.

use std::{collections::BTreeMap, time::Duration};

use crate::node::{ConnectionId, testing::Meshed};
use crate::protocol::{
    Code, FromNode, OpenSession, Page, Request, Response, SessionDetail, SessionRow, SessionState, SetBatch, SetItem, SourceState, Target,
};

/// One session was changed.
const ONE: Response = Response::Affected { sessions: 1 };

fn opened(meshed: &mut Meshed, at: usize) -> (ConnectionId, OpenSession) {
    let client = meshed.client(at);
    let Response::Session(session) =
        meshed.ask(at, client, Request::SessionOpen { reconnect_timeout_ms: Some(60_000), properties: Default::default() })
    else {
        panic!("refused")
    };
    let claim = Request::SourceClaim { branch: "s/a".into(), priority: 0, wait: true, hold_ms: Some(60_000) };
    assert!(matches!(meshed.ask(at, client, claim), Response::Claimed { .. }));
    meshed.pass(2_000);
    (client, *session)
}

fn rows(meshed: &mut Meshed, at: usize) -> Vec<SessionRow> {
    let client = meshed.client(at);
    let (mut rows, mut after) = (Vec::new(), None);
    loop {
        let page = Page { after: after.take(), limit: 1 };
        let Response::Sessions { rows: found, next } = meshed.ask(at, client, Request::Sessions { page, filter: String::new() }) else {
            panic!("refused")
        };
        rows.extend(found);
        match next {
            Some(next) => after = Some(next),
            None => return rows,
        }
    }
}

fn end(meshed: &mut Meshed, at: usize, session: &OpenSession) -> Response {
    let operator = meshed.client(at);
    meshed.ask(at, operator, Request::SessionEnd { session: session.id.to_string()[..8].into() })
}

fn resume(meshed: &mut Meshed, at: usize, session: &OpenSession) -> Response {
    let client = meshed.client(at);
    meshed.ask(at, client, Request::SessionResume { id: session.id, secret: session.secret.clone(), epoch: 0 })
}

#[track_caller]
fn refused(response: &Response, code: Code) {
    assert!(matches!(response, Response::Refused(refusal) if refusal.code == code), "{response:?}");
}

#[test]
fn every_node_lists_every_session_and_its_claims() {
    let mut meshed = Meshed::with_section(3, &[], "s/a");
    let (client, first) = opened(&mut meshed, 0);
    let (_, second) = opened(&mut meshed, 1);
    for at in 0..3 {
        let found = rows(&mut meshed, at);
        let mut ids = [first.id, second.id];
        ids.sort();
        assert_eq!(found.iter().map(|row| row.session).collect::<Vec<_>>(), ids, "in order, page by page");
        for row in found {
            let node = if row.session == first.id { "own" } else { "n2" };
            let state = SessionState::Connected;
            assert_eq!((row.node.as_str(), row.state, row.claims, row.epoch), (node, state, 1, 1));
        }
        let asker = meshed.client(at);
        let shown = meshed.ask(at, asker, Request::SessionShow { session: second.id.to_string()[..6].to_uppercase() });
        let Response::SessionDetail(detail) = shown else { panic!("{shown:?}") };
        let SessionDetail { row, branches } = *detail;
        assert_eq!((row.session, branches.len(), branches[0].branch.as_str(), branches[0].holds), (second.id, 1, "s/a", false));
        refused(&meshed.ask(at, asker, Request::SessionShow { session: "00".into() }), Code::UnknownSession);
    }
    meshed.gone(0, client);
    assert_eq!(rows(&mut meshed, 0).iter().filter(|row| row.state == SessionState::Disconnected).count(), 1);
    meshed.stopped.insert(1);
    meshed.cut_off(1);
    meshed.pass(10_000);
    assert_eq!(rows(&mut meshed, 2).iter().filter(|row| row.state == SessionState::OutOfReach).count(), 1);
}

#[test]
fn a_session_is_ended_from_any_node_and_its_client_is_told() {
    let mut meshed = Meshed::with_section(3, &[], "s/a");
    let (client, session) = opened(&mut meshed, 0);
    let (next, _) = opened(&mut meshed, 1);
    assert_eq!(end(&mut meshed, 2, &session), ONE);
    meshed.pass(2_000);
    let closing = |told: &(usize, ConnectionId, FromNode)| (told.0, told.1) == (0, client) && matches!(&told.2, FromNode::Closing(_));
    assert_eq!(meshed.told.iter().filter(|told| closing(told)).count(), 1, "{:?}", meshed.told);
    let active = |told: &(usize, ConnectionId, FromNode)| {
        (told.0, told.1) == (1, next) && matches!(&told.2, FromNode::Source { state: SourceState::Active { .. }, .. })
    };
    assert!(meshed.told.iter().any(active), "its branch passes on");
    refused(&resume(&mut meshed, 0, &session), Code::UnknownSession);
    refused(&end(&mut meshed, 1, &session), Code::UnknownSession);
    assert_eq!(rows(&mut meshed, 0).len(), 1);
}

#[test]
fn an_end_beats_what_its_home_writes_in_a_split_and_after_a_restart() {
    for restarted in [false, true] {
        let mut meshed = Meshed::with_section(3, &[], "s/a");
        let (client, session) = opened(&mut meshed, 0);
        meshed.cut_off(0);
        assert_eq!(end(&mut meshed, 2, &session), ONE);
        meshed.pass(1_000);
        // Its home has not heard of it, and writes the record again and again.
        meshed.gone(0, client);
        for _ in 0..20 {
            assert!(matches!(resume(&mut meshed, 0, &session), Response::Session(_)));
        }
        if restarted {
            meshed.restart(0);
        }
        meshed.heal();
        meshed.pass(3_000);
        for at in 0..3 {
            assert_eq!(rows(&mut meshed, at), [], "at {at}, restarted: {restarted}");
            refused(&resume(&mut meshed, at, &session), Code::UnknownSession);
        }
        let claimed = meshed.nodes[1].all_claims().count();
        assert_eq!(claimed, 0, "its claims are gone");
    }
}

/// What a client was told of its sources, the newest of each last.
fn states(meshed: &Meshed, at: usize, client: ConnectionId) -> Vec<(u32, SourceState)> {
    let of = |told: &(usize, ConnectionId, FromNode)| match &told.2 {
        FromNode::Source { source, state } if (told.0, told.1) == (at, client) => Some((*source, state.clone())),
        _ => None,
    };
    meshed.told.iter().filter_map(of).collect()
}

fn was_let_go(meshed: &Meshed, at: usize, client: ConnectionId) -> bool {
    meshed.told.iter().any(|told| (told.0, told.1) == (at, client) && matches!(&told.2, FromNode::Closing(_)))
}

/// Takes a session up: its new connection, and what was answered.
fn taken_up(meshed: &mut Meshed, at: usize, session: &OpenSession, epoch: u32) -> (ConnectionId, OpenSession) {
    let client = meshed.client(at);
    let request = Request::SessionResume { id: session.id, secret: session.secret.clone(), epoch };
    let Response::Session(open) = meshed.ask(at, client, request) else { panic!("refused") };
    (client, *open)
}

fn row_of(meshed: &mut Meshed, at: usize, session: &OpenSession) -> Option<(String, u32, SessionState)> {
    let row = rows(meshed, at).into_iter().find(|row| row.session == session.id)?;
    Some((row.node, row.epoch, row.state))
}

fn set(meshed: &mut Meshed, at: usize, client: ConnectionId) -> bool {
    let items = vec![SetItem::new(Target::Path("s/a".into()), vec![at as u8])];
    let request = Request::Set(SetBatch { items, add: None, durability: None, under: None });
    matches!(meshed.ask(at, client, request), Response::Written { written: 1, .. })
}

#[test]
fn any_node_takes_a_session_up_and_its_sources_with_it() {
    let mut meshed = Meshed::with_section(3, &[], "s/a");
    let (old, session) = opened(&mut meshed, 0);
    let (waiting, _) = opened(&mut meshed, 1);
    let stranger = OpenSession { secret: crate::protocol::Secret::new([7; 32]), ..session.clone() };
    refused(&resume(&mut meshed, 2, &stranger), Code::UnknownSession);
    assert!(set(&mut meshed, 0, old));

    // The connection to the old node stands yet: that node lets go as soon as it hears.
    let (new, open) = taken_up(&mut meshed, 2, &session, 0);
    assert_eq!((open.epoch, open.sources.len(), open.sources[0].branch.as_str()), (2, 1, "s/a"));
    meshed.pass(100);
    assert!(was_let_go(&meshed, 0, old) && !was_let_go(&meshed, 2, new));
    let told = states(&meshed, 2, new);
    assert!(matches!(&told[..], [.., (1, SourceState::Active { epoch })] if *epoch > 1), "{told:?}");
    assert!(set(&mut meshed, 2, new) && !set(&mut meshed, 1, waiting), "it holds its branch, past the one that waits");
    assert!(states(&meshed, 1, waiting).iter().all(|(_, state)| !matches!(state, SourceState::Active { .. })));
    for at in 0..3 {
        assert_eq!(row_of(&mut meshed, at, &session), Some(("n3".into(), 2, SessionState::Connected)));
    }
    assert_eq!(meshed.nodes[0].sessions.all.len(), 0);

    // What the old home still does about its claims later changes nothing.
    meshed.pass(70_000);
    assert!(set(&mut meshed, 2, new));
    // And back again, over a node that was started anew.
    meshed.gone(2, new);
    meshed.restart(0);
    let (back, open) = taken_up(&mut meshed, 0, &session, open.epoch);
    assert_eq!((open.epoch, open.sources.len()), (3, 1));
    meshed.pass(1_000);
    assert!(set(&mut meshed, 0, back));
}

#[test]
fn of_two_homes_in_a_split_the_one_with_the_greater_epoch_has_the_session() {
    let mut meshed = Meshed::with_section(3, &[], "s/a");
    let (old, session) = opened(&mut meshed, 0);
    meshed.cut_off(0);
    let (moved, _) = taken_up(&mut meshed, 2, &session, 0);
    meshed.pass(8_000);
    // The client that never left is not alone any more, as its node cannot know.
    assert!(set(&mut meshed, 0, old));
    assert!(set(&mut meshed, 2, moved));
    meshed.heal();
    meshed.pass(2_000);
    assert!(was_let_go(&meshed, 0, old) && !was_let_go(&meshed, 2, moved));
    assert!(set(&mut meshed, 2, moved));
    for at in 0..3 {
        assert_eq!(row_of(&mut meshed, at, &session).map(|row| (row.0, row.1)), Some(("n3".into(), 2)));
        assert_eq!(meshed.nodes[at].all_claims().count(), 1);
    }
}

#[test]
fn a_client_that_goes_back_in_a_split_makes_no_tie() {
    for restarted in [false, true] {
        let mut meshed = Meshed::with_section(3, &[], "s/a");
        let (old, session) = opened(&mut meshed, 0);
        meshed.cut_off(0);
        let (moved, open) = taken_up(&mut meshed, 2, &session, 0);
        meshed.gone(2, moved);
        meshed.gone(0, old);
        let (back, open) = taken_up(&mut meshed, 0, &session, open.epoch);
        assert_eq!(open.epoch, 3, "above that of which this node has not heard");
        if restarted {
            meshed.restart(2);
            meshed.cut_off(0);
        }
        meshed.heal();
        meshed.pass(2_000);
        assert!(!was_let_go(&meshed, 0, back));
        assert!(set(&mut meshed, 0, back), "its claim is its own again");
        assert_eq!(meshed.nodes[2].sessions.all.len(), 0);
        assert_eq!(meshed.nodes[1].all_claims().count(), 1);
        let ahead = Request::SessionResume { id: session.id, secret: session.secret.clone(), epoch: u32::MAX };
        let client = meshed.client(1);
        refused(&meshed.ask(1, client, ahead), Code::InvalidRequest);
    }
}

#[test]
fn a_timeout_at_its_old_home_does_not_end_a_session_that_has_moved() {
    let mut meshed = Meshed::with_section(3, &[], "s/a");
    let (old, session) = opened(&mut meshed, 0);
    meshed.cut_off(0);
    let (moved, _) = taken_up(&mut meshed, 2, &session, 0);
    meshed.gone(0, old);
    meshed.pass(61_000);
    assert_eq!(row_of(&mut meshed, 0, &session).map(|row| row.2), Some(SessionState::PresumedClosed));
    assert_eq!(meshed.nodes[0].all_claims().count(), 0, "its claims are free");
    refused(&resume(&mut meshed, 0, &session), Code::UnknownSession);
    meshed.heal();
    meshed.pass(3_000);
    assert!(!was_let_go(&meshed, 2, moved) && set(&mut meshed, 2, moved));
    for at in 0..3 {
        assert_eq!(row_of(&mut meshed, at, &session).map(|row| row.0), Some("n3".into()));
        assert_eq!(meshed.nodes[at].all_claims().count(), 1);
    }
}

#[test]
fn a_session_that_is_given_up_ends_for_good_once_no_member_can_take_it_up() {
    for restarted in [false, true] {
        let mut meshed = Meshed::with_section(3, &[], "s/a");
        let (old, session) = opened(&mut meshed, 0);
        meshed.split(&[2]);
        meshed.gone(0, old);
        // For as long is waited for those that are away.
        meshed.nodes[0].config.retention = Duration::from_secs(600);
        meshed.pass(61_000);
        if restarted {
            meshed.restart(0);
            meshed.nodes[0].config.retention = Duration::from_secs(600);
            meshed.split(&[2]);
            meshed.pass(5_000);
        }
        let state = |meshed: &mut Meshed, at| row_of(meshed, at, &session).map(|row| row.2);
        assert_eq!(state(&mut meshed, 1), Some(SessionState::PresumedClosed), "one has not heard of it");
        refused(&resume(&mut meshed, 1, &session), Code::UnknownSession);
        meshed.heal();
        meshed.pass(6_000);
        for at in 0..3 {
            assert_eq!(state(&mut meshed, at), None, "at {at}, restarted: {restarted}");
            refused(&resume(&mut meshed, at, &session), Code::UnknownSession);
        }
    }
}

#[test]
fn what_a_home_left_behind_ends_when_it_has_left_or_is_silent_for_very_long() {
    let mut meshed = Meshed::with_section(3, &[], "s/a");
    let (_, left) = opened(&mut meshed, 2);
    let (_, kept) = opened(&mut meshed, 1);
    let operator = meshed.client(2);
    assert_eq!(meshed.ask(2, operator, Request::NodeLeave { force: true }), Response::Done);
    meshed.pass(1_000);
    meshed.stopped.insert(2);
    meshed.cut_off(2);
    meshed.pass(30_000);
    assert!(row_of(&mut meshed, 0, &left).is_some(), "its client may come here yet");
    meshed.pass(50_000);
    assert_eq!(row_of(&mut meshed, 0, &left), None);
    meshed.stopped.insert(1);
    meshed.pass(60_000);
    assert!(row_of(&mut meshed, 0, &kept).is_some());
    meshed.pass(1_000_000);
    assert_eq!(row_of(&mut meshed, 0, &kept), None);
}

#[test]
fn claims_on_what_the_new_home_does_not_hold_are_given_up() {
    let mut meshed = Meshed::with_section(3, &[], "s/a");
    let (old, session) = opened(&mut meshed, 0);
    let claim = Request::SourceClaim { branch: "own/here".into(), priority: 0, wait: true, hold_ms: None };
    assert!(matches!(meshed.ask(0, old, claim), Response::Claimed { .. }));
    let operator = meshed.client(2);
    assert_eq!(meshed.ask(2, operator, Request::SectionDrop { root: "s".into(), force: true }), Response::Done);
    let (waiting, _) = opened(&mut meshed, 1);
    meshed.pass(1_000);
    let (_, open) = taken_up(&mut meshed, 2, &session, 0);
    assert_eq!(open.sources, []);
    meshed.pass(1_000);
    assert!(set(&mut meshed, 1, waiting), "the next one has the branch");
    assert_eq!(meshed.nodes[0].all_claims().count(), 1, "local ones have gone too");
}

#[test]
fn what_others_say_of_a_session_outlives_its_homes_and_goes_with_it() {
    let mut meshed = Meshed::with_section(3, &[], "s/a");
    let client = meshed.client(0);
    let said = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    let properties = said(&[("desk", "7"), ("floor", "1")]);
    let Response::Session(session) = meshed.ask(0, client, Request::SessionOpen { reconnect_timeout_ms: None, properties }) else {
        panic!("refused")
    };
    let set = |meshed: &mut Meshed, at: usize, key: &str, value: Option<&str>| {
        let operator = meshed.client(at);
        let properties = BTreeMap::from([(key.to_owned(), value.map(str::to_owned))]);
        meshed.ask(at, operator, Request::SessionSet { session: session.id.to_string(), properties })
    };
    let shown = |meshed: &mut Meshed, at: usize| rows(meshed, at).into_iter().next().map(|row| row.properties);
    refused(&set(&mut meshed, 2, "$NodeName", Some("x")), Code::InvalidRequest);
    // Its home is out of reach, and is left for another that has heard of the one change, not of the other.
    meshed.cut_off(0);
    assert_eq!(set(&mut meshed, 2, "desk", Some("8")), ONE);
    assert_eq!(set(&mut meshed, 0, "floor", None), ONE);
    assert_eq!(shown(&mut meshed, 0), Some(said(&[("desk", "7")])));
    taken_up(&mut meshed, 1, &session, 0);
    assert_eq!(shown(&mut meshed, 1), Some(said(&[("desk", "8"), ("floor", "1")])));
    meshed.heal();
    meshed.pass(1_000);
    meshed.restart(2);
    meshed.pass(1_000);
    for at in 0..3 {
        assert_eq!(shown(&mut meshed, at), Some(said(&[("desk", "8")])), "at {at}");
    }
    assert_eq!(end(&mut meshed, 2, &session), ONE);
    meshed.pass(5_000);
    for node in &meshed.nodes {
        let records = node.replica().section(mangrove_crdt::id::SectionId::MESH).map(|mesh| mesh.standing.iter().count());
        assert_eq!((records, node.sessions.changes.len()), (Some(3), 0), "the nodes' own");
    }
}

#[test]
fn once_a_session_has_gone_nothing_more_is_written_of_it() {
    let mut meshed = Meshed::with_section(3, &[], "s/a");
    let (_, session) = opened(&mut meshed, 1);
    assert_eq!(end(&mut meshed, 2, &session), ONE);
    meshed.pass(10_000);
    let written = |meshed: &Meshed| -> Vec<_> { meshed.nodes.iter().map(|node| node.replica().last_standing_write()).collect() };
    let before = written(&meshed);
    meshed.pass(30_000);
    assert_eq!(written(&meshed), before);
    assert!(meshed.nodes.iter().all(|node| node.sessions.ended.is_empty()));
}

/// What a client was told to subscribe to, or not to.
fn wishes(meshed: &mut Meshed, client: ConnectionId) -> Vec<(String, bool, u64)> {
    let told = std::mem::take(&mut meshed.told).into_iter().filter(|(_, session, _)| *session == client);
    let wish = |message| if let FromNode::Select { selector, selected, wish } = message { Some((selector, selected, wish)) } else { None };
    told.filter_map(|(_, _, message)| wish(message)).collect()
}

#[test]
fn sessions_are_told_from_anywhere_what_to_subscribe_to_and_again_wherever_they_go() {
    let mut meshed = Meshed::with_section(3, &[], "s/a");
    let desk = |meshed: &mut Meshed, at: usize, desk: &str| {
        let client = meshed.client(at);
        let properties = BTreeMap::from([("desk".to_owned(), desk.to_owned())]);
        match meshed.ask(at, client, Request::SessionOpen { reconnect_timeout_ms: Some(60_000), properties }) {
            Response::Session(session) => (client, *session),
            other => panic!("{other:?}"),
        }
    };
    let ((one, session), (other, _)) = (desk(&mut meshed, 0, "7"), desk(&mut meshed, 1, "8"));
    meshed.pass(1_000);
    let select = |meshed: &mut Meshed, sessions: &str, selector: &str, selected: bool| {
        let operator = meshed.client(2);
        let request = Request::SessionSelect { session: sessions.into(), selector: selector.into(), selected };
        let answer = meshed.ask(2, operator, request);
        meshed.pass(500);
        answer
    };
    assert_eq!(select(&mut meshed, "has desk", "?s//", true), Response::Affected { sessions: 2 });
    let told = meshed.told.clone();
    assert!(matches!(&wishes(&mut meshed, one)[..], [(selector, true, _)] if selector == "?s//"));
    meshed.told = told;
    assert_eq!(wishes(&mut meshed, other).len(), 1);
    refused(&select(&mut meshed, "has cat", "?s//", true), Code::UnknownSession);
    refused(&select(&mut meshed, "has", "?s//", true), Code::InvalidRequest);
    refused(&select(&mut meshed, "all", "?(//", true), Code::InvalidSelector);
    // It moves while its wish changes: it is told the newest, under a name of its own.
    assert_eq!(select(&mut meshed, &session.id.to_string(), "s/a", true), ONE);
    let first = wishes(&mut meshed, one);
    meshed.gone(0, one);
    assert_eq!(select(&mut meshed, "desk is '7'", "?s//", false), ONE);
    let (back, _) = taken_up(&mut meshed, 1, &session, 0);
    let mut again = wishes(&mut meshed, back);
    again.sort();
    assert_eq!(
        again.iter().map(|(selector, selected, _)| (selector.as_str(), *selected)).collect::<Vec<_>>(),
        [(">s/a", true), ("?s//", false)]
    );
    assert_eq!(again[0].2, first[0].2, "the same wish is told by the same name");
    // What it subscribes to itself meanwhile ends when it is not wished any more, and then only.
    let subscribe = Request::Subscribe { selector: "?s//".into(), credit: 10, stamps: false, heard: None };
    assert!(matches!(meshed.ask(1, back, subscribe), Response::Subscribed { .. }));
    let now = meshed.now();
    assert!(meshed.nodes[1].poll_updates(now, back).is_some());
    assert_eq!(select(&mut meshed, &session.id.to_string(), "?s//", true), ONE);
    assert_eq!(select(&mut meshed, &session.id.to_string(), "?s//", false), ONE);
    let operator = meshed.client(0);
    let items = vec![SetItem::new(Target::Path("s/a".into()), vec![1])];
    meshed.ask(0, operator, Request::Set(SetBatch { items, add: None, durability: None, under: None }));
    meshed.pass(500);
    let now = meshed.now();
    assert!(meshed.nodes[1].poll_updates(now, back).is_none());
}

#[test]
fn what_is_fixed_of_a_session_can_be_asked_for_wherever_it_is() {
    let mut meshed = Meshed::with_section(2, &[], "s/a");
    let (one, session) = opened(&mut meshed, 0);
    let is = |meshed: &mut Meshed, filter: &str| {
        [0, 1].map(|at| {
            let client = meshed.client(at);
            match meshed.ask(at, client, Request::Sessions { page: Page::default(), filter: filter.into() }) {
                Response::Sessions { rows, .. } => rows.len(),
                other => panic!("{other:?}"),
            }
        })
    };
    let id = session.id;
    for filter in ["$ClientIP is '10.0.0.0' and $Transport is 'test'", "$ClientType is 'test' and $NodeName is 'own'", "has $StartTime"] {
        assert_eq!(is(&mut meshed, filter), [1, 1], "{filter}");
    }
    assert_eq!(is(&mut meshed, &format!("$SessionId is '{id}' and $Principal is '$operator' and not has $ExpiryTime")), [1, 1]);
    // It comes from elsewhere by now.
    meshed.gone(0, one);
    taken_up(&mut meshed, 1, &session, 0);
    meshed.pass(1_000);
    assert_eq!(is(&mut meshed, "$ClientIP is '10.0.0.1' and $NodeName is 'n2'"), [1, 1]);
}
