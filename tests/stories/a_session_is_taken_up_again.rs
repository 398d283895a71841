//! A client whose connection was lost takes up its session again, with its sources, until the reconnect timeout has passed.

use std::time::{Duration, Instant};

use mangrove::client::ClaimOptions;
use mangrove::protocol::{Closed, Code, Secret, SourceState};
use serde_json::json;

use crate::claims::{QUICK, active, claim, refused_as, standby, write_as, write_under};
use crate::support::{Node, World, block, until};

/// Two nodes that hold one section.
pub fn plant(world: &World) -> (Node, Node) {
    let a = world.found_with("A", QUICK);
    let b = world.join_with("B", &a, "member", QUICK);
    a.told(&["section", "add", "plant"]);
    a.set("plant/rpm", "0");
    b.shows("plant/rpm", 0);
    (a, b)
}

#[test]
fn with_its_sources_until_it_is_too_late() {
    let world = World::new();
    let (a, b) = plant(&world);
    let hold = Some(Duration::from_secs(40));
    let of_b = block(b.connect());

    let (session, number, epoch, mut next) = block(async {
        let client = a.connect().await;
        let session = client.open_session(hold).await.expect("a session");
        let mut source = client.claim("plant", ClaimOptions { hold, ..ClaimOptions::default() }).await.expect("a source");
        let epoch = active(&mut source).await;
        write_as(&source, "plant/rpm", &json!("before")).await;
        let mut next = claim(&of_b, "plant").await;
        standby(&mut next).await;
        client.close().await;
        (session, source.number(), epoch, next)
    });
    a.refused(&["set", "plant/rpm", "1"]).says(1, &["[exclusive]"]);

    let again = block(a.connect());
    block(async {
        refused_as(again.resume_session(session.id, &Secret::new([0; 32])).await, Code::UnknownSession);
        let mut sources = again.resume_session(session.id, &session.secret).await.expect("the session is there");
        assert_eq!(sources.iter().map(|source| (source.number(), source.branch())).collect::<Vec<_>>(), [(number, "plant")]);
        let mut source = sources.remove(0);
        let now = active(&mut source).await;
        assert!(now > epoch, "{now} after {epoch}");
        refused_as(write_under(&again, number, epoch, "plant/rpm", &json!("from before the loss")).await, Code::Fenced);
        write_as(&source, "plant/rpm", &json!("after")).await;
        assert!(!matches!(next.state(), mangrove::protocol::SourceState::Active { .. }), "{next:?}");
        // From now on it ends soon.
        again.open_session(Some(Duration::from_secs(1))).await.expect("the timeout is changed");
        again.clone().close().await;
    });
    let lost = Instant::now();
    block(async {
        active(&mut next).await;
        assert!(lost.elapsed() < Duration::from_secs(20), "the source goes with its session, long before the 40 s that it would be held");
        let late = a.connect().await;
        refused_as(late.resume_session(session.id, &session.secret).await, Code::UnknownSession);
    });
    b.shows("plant/rpm", "after");
}

#[test]
fn and_is_seen_and_closed_from_any_node() {
    let world = World::new();
    let (a, b) = plant(&world);
    let (client, session, mut source) = block(async {
        let client = a.connect().await;
        let session = client.open_session(Some(Duration::from_secs(40))).await.expect("a session");
        let mut source = client.claim("plant", ClaimOptions::default()).await.expect("a source");
        active(&mut source).await;
        (client, session, source)
    });
    let id = session.id.to_string();
    until("B knows the session and its claim", || {
        let rows = b.json(&["session", "ls"]);
        let row = rows.as_array().and_then(|rows| rows.first()).cloned().unwrap_or_default();
        (row["session"].as_str(), row["state"].as_str(), row["claims"].as_u64()) == (Some(&id), Some("connected"), Some(1))
    });
    let shown = a.told(&["session", "show", &id[..6]]);
    for word in [&id, "connected", "plant", "holds it"] {
        assert!(shown.contains(word), "{word} is not in {shown}");
    }
    b.refused(&["session", "close", "ffffffffffff"]).says(1, &["[unknown-session]", "mangrove session ls"]);
    b.told(&["session", "close", &id]);
    block(async {
        while source.changed().await.is_ok() {}
        assert!(matches!(source.state(), SourceState::Closed { reason: Closed::SessionClosed, .. }), "{source:?}");
        refused_as(client.status().await, Code::SessionEnded);
        let late = a.connect().await;
        refused_as(late.resume_session(session.id, &session.secret).await, Code::UnknownSession);
    });
    for node in [&a, &b] {
        until("nobody knows it", || node.json(&["session", "ls"]) == json!([]));
    }
    b.set("plant/rpm", "1");
    a.shows("plant/rpm", 1);
}
