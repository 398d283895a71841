//! Sessions while the mesh is split: what one side only presumes is overridden by a client that works on the other, and what one side ends for good ends everywhere.

use std::time::Duration;

use mangrove::client::{Client, ClientState, SessionEvent, SessionListener};
use mangrove::protocol::{Code, Ended, OpenSession, TopicSpec};
use mangrove_crdt::id::SessionId;
use serde_json::json;

use crate::a_session_is_taken_up_again::plant;
use crate::claims::refused_as;
use crate::support::{Node, PATIENCE, World, block, heal, split, until, write};

/// A session that is given up soon after its client is lost, and has made a topic that goes with it.
async fn maker(node: &Node, topic: &str) -> (Client, OpenSession) {
    let client = node.connect().await;
    let session = client.open_session(Some(Duration::from_secs(2))).await.expect("a session");
    let properties = [("removal".to_owned(), "when this session closes".to_owned())].into();
    client.add_topics(TopicSpec { topic_type: "json".into(), properties }, vec![topic.into()]).await.expect("it is made");
    (client, session)
}

/// The connection of a session is lost, and it is taken up at another node.
async fn goes_on_at(node: &Node, leaving: Client, session: &OpenSession) -> Client {
    leaving.close().await;
    let client = node.connect().await;
    client.resume_session(session.id, &session.secret).await.expect("it goes on there");
    client
}

fn has(node: &Node, topics: &[&str]) -> bool {
    let paths = node.paths();
    topics.iter().all(|topic| paths.iter().any(|path| path == topic))
}

/// What a listener hears of one session, until something.
async fn hears(listener: &mut SessionListener, of: SessionId, last: &str) -> Vec<&'static str> {
    let mut heard = Vec::new();
    while heard.last() != Some(&last) {
        let event = tokio::time::timeout(PATIENCE, listener.next()).await;
        let event = event.unwrap_or_else(|_| panic!("{last} is not heard, only {heard:?}")).expect("it goes on");
        let (session, event) = match event {
            SessionEvent::Opened(row) => (row.session, "opened"),
            SessionEvent::Updated { session, .. } => (session.session, "updated"),
            SessionEvent::Disconnected(row) => (row.session, "disconnected"),
            SessionEvent::Reconnected(row) => (row.session, "reconnected"),
            SessionEvent::FailedOver { session, .. } => (session.session, "failed-over"),
            SessionEvent::PresumedClosed(row) => (row.session, "presumed-closed"),
            SessionEvent::Closed { session, reason } => (session, reason.as_str()),
            SessionEvent::Synced => continue,
        };
        heard.extend((session == of).then_some(event));
    }
    heard
}

#[test]
fn what_one_side_presumes_the_client_on_the_other_overrides() {
    let world = World::new();
    let (a, b) = plant(&world);
    // Of one the client stays at A, which B cannot reach; of the other it goes on at B, of which A does not hear.
    let (at_a, stays) = block(maker(&a, "plant/of-stays"));
    let (leaving, moves) = block(maker(&a, "plant/of-moves"));
    let topics = ["plant/of-stays", "plant/of-moves"];
    until("B knows both", || has(&b, &topics) && b.json(&["session", "ls"]).as_array().map_or(0, Vec::len) == 2);
    let (watch_a, watch_b) = (block(a.connect()), block(b.connect()));
    let listen = async |client: &Client| client.listen_to_sessions("all").await.expect("a listener");
    let [mut stays_at_a, mut moves_at_a] = block(async { [listen(&watch_a).await, listen(&watch_a).await] });
    let [mut stays_at_b, mut moves_at_b] = block(async { [listen(&watch_b).await, listen(&watch_b).await] });

    split(&a, &b);
    let at_b = block(goes_on_at(&b, leaving, &moves));
    block(async {
        assert_eq!(hears(&mut moves_at_a, moves.id, "presumed-closed").await, ["opened", "disconnected", "presumed-closed"]);
        assert_eq!(hears(&mut stays_at_b, stays.id, "presumed-closed").await, ["opened", "presumed-closed"]);
        write(&at_a, "plant/of-stays", &json!(1), None).await.expect("it works at A");
        write(&at_b, "plant/of-moves", &json!(2), None).await.expect("it works at B");
    });
    assert!(has(&a, &topics) && has(&b, &topics), "what cannot be undone waits");
    heal(&a, &b);
    block(async {
        assert_eq!(hears(&mut moves_at_a, moves.id, "failed-over").await, ["failed-over"]);
        assert_eq!(hears(&mut stays_at_b, stays.id, "reconnected").await, ["reconnected"]);
        assert_eq!(hears(&mut moves_at_b, moves.id, "failed-over").await, ["opened", "failed-over"]);
    });
    for node in [&a, &b] {
        node.shows("plant/of-stays", 1);
        node.shows("plant/of-moves", 2);
        let home = |session: &OpenSession| {
            let row = node.json(&["session", "show", &session.id.to_string()]);
            (row["node"].as_str().map(str::to_owned), row["state"].as_str().map(str::to_owned))
        };
        until("each is where its client is", || {
            [home(&stays), home(&moves)] == ["A", "B"].map(|node| (Some(node.into()), Some("connected".into())))
        });
    }
    let meant = b.json(&["session", "ls", "--filter", "$Transport is 'quic' and $ClientIP is '127.0.0.1'"]);
    assert_eq!(meant.as_array().map(Vec::len), Some(2), "{meant}");
    for client in [&at_a, &at_b] {
        assert_eq!(client.state(), ClientState::Active);
        block(client.status()).expect("its node goes on serving it");
    }
    // They end as any other, and their topics with them.
    block(async {
        at_a.close_session().await.expect("it ends");
        at_b.close_session().await.expect("it ends");
        assert_eq!(hears(&mut stays_at_a, stays.id, Ended::ByClient.as_str()).await, ["opened", Ended::ByClient.as_str()]);
        assert_eq!(hears(&mut moves_at_b, moves.id, Ended::ByClient.as_str()).await, [Ended::ByClient.as_str()]);
    });
    for node in [&a, &b] {
        until("their topics are gone", || !topics.iter().any(|topic| has(node, &[topic])));
    }
    world.logged_no_error();
}

#[test]
fn what_one_side_ends_for_good_ends_on_the_other() {
    let world = World::new();
    let (a, b) = plant(&world);
    let (leaving, session) = block(maker(&a, "plant/made"));
    until("B knows it", || has(&b, &["plant/made"]) && b.json(&["session", "ls"]).as_array().map_or(0, Vec::len) == 1);
    let (watch_a, watch_b) = (block(a.connect()), block(b.connect()));
    let mut heard_at_a = block(watch_a.listen_to_sessions("all")).expect("a listener");
    let mut heard_at_b = block(watch_b.listen_to_sessions("all")).expect("a listener");

    split(&a, &b);
    let at_b = block(goes_on_at(&b, leaving, &session));
    a.told(&["session", "close", &session.id.to_string()]);
    until("its topic goes where it has ended", || !has(&a, &["plant/made"]));
    block(write(&at_b, "plant/made", &json!(1), None)).expect("nothing of that is known at B");
    heal(&a, &b);
    block(async {
        let told = async { while at_b.status().await.is_ok() {} };
        tokio::time::timeout(PATIENCE, told).await.expect("its client is told");
        refused_as(at_b.status().await, Code::SessionEnded);
        for node in [&a, &b] {
            let late = node.connect().await;
            refused_as(late.resume_session(session.id, &session.secret).await, Code::UnknownSession);
        }
        let closed = Ended::ByController.as_str();
        assert_eq!(hears(&mut heard_at_a, session.id, closed).await.last(), Some(&closed));
        assert_eq!(hears(&mut heard_at_b, session.id, closed).await, ["opened", "failed-over", closed]);
        // Once is all.
        for heard in [&mut heard_at_a, &mut heard_at_b] {
            let more = tokio::time::timeout(Duration::from_secs(1), hears(heard, session.id, closed)).await;
            assert!(more.is_err(), "{more:?}");
        }
    });
    for node in [&a, &b] {
        until("nothing is left of it", || node.json(&["session", "ls"]) == json!([]) && !has(node, &["plant/made"]));
    }
    world.logged_no_error();
}
