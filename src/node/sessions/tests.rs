//! Sessions of a mesh, seen and ended from any node.

use crate::node::{ConnectionId, testing::Meshed};
use crate::protocol::{Code, FromNode, OpenSession, Page, Request, Response, SessionDetail, SessionRow, SessionState, SourceState};

fn opened(meshed: &mut Meshed, at: usize) -> (ConnectionId, OpenSession) {
    let client = meshed.client(at);
    let Response::Session(session) = meshed.ask(at, client, Request::SessionOpen { reconnect_timeout_ms: Some(60_000) }) else {
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
        let Response::Sessions { rows: found, next } = meshed.ask(at, client, Request::Sessions { page }) else { panic!("refused") };
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
    meshed.ask(at, client, Request::SessionResume { id: session.id, secret: session.secret.clone() })
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
            let (home, node) = if row.session == first.id { (0, "own") } else { (1, "n2") };
            let state = if home == at { SessionState::Connected } else { SessionState::Elsewhere };
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
    assert_eq!(end(&mut meshed, 2, &session), Response::Done);
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
        assert_eq!(end(&mut meshed, 2, &session), Response::Done);
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
