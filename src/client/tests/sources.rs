//! Sources and sessions, against a node that follows a script.

use mangrove_crdt::id::SessionId;

use super::*;
use crate::protocol::{Authority, Closed, OpenSession, OwnSource, Secret, SourceState};

fn active(epoch: u64) -> SourceState {
    SourceState::Active { epoch }
}

fn standby(epoch: u64) -> SourceState {
    SourceState::Standby { epoch, holder: Some("session 1 on JFK".into()), why: "lost to session 1 on JFK".into() }
}

fn closed() -> SourceState {
    SourceState::Closed { reason: Closed::Released, why: "its session wanted it".into() }
}

impl Script {
    async fn source(&mut self, source: u32, state: SourceState) {
        self.say(FromNode::Source { source, state }).await;
    }

    /// What was written, under what, and the request's id.
    async fn write(&mut self) -> (u64, Vec<u8>, Option<Authority>) {
        match self.request().await {
            (id, Request::Set(batch)) => (id, batch.items.iter().map(|item| item.value[0]).collect(), batch.under),
            (_, other) => panic!("expected a write, got {other:?}"),
        }
    }

    /// Waits until the client has taken in all that was said.
    async fn in_step(&mut self, client: &Client) {
        let (text, ()) = tokio::join!(client.config(), async {
            let (id, _) = self.request().await;
            self.answer(id, Response::Text("{}".into())).await;
        });
        text.expect("an answer");
    }
}

/// A source of number 5 on `a`, with these states told right after the answer to its claim.
async fn claimed(client: &Client, script: &mut Script, states: Vec<SourceState>) -> Source {
    let (source, ()) = tokio::join!(client.claim("a", ClaimOptions::default()), async {
        let (id, request) = script.request().await;
        assert_eq!(request, Request::SourceClaim { branch: "a".into(), priority: 0, wait: true, hold_ms: None });
        script.answer(id, Response::Claimed { source: 5 }).await;
        for state in states {
            script.source(5, state).await;
        }
    });
    source.expect("a source")
}

fn fenced(result: Result<(), ClientError>) -> Refusal {
    match result {
        Err(ClientError::Refused(refusal)) if refusal.code == Code::Fenced => refusal,
        other => panic!("expected a fence, got {other:?}"),
    }
}

#[tokio::test]
async fn every_state_comes_once_in_order_and_none_after_the_last() {
    let (client, mut script) = connected().await;
    let mut source = claimed(&client, &mut script, vec![active(1), standby(2), active(3), closed(), active(9)]).await;
    assert_eq!((source.number(), source.branch()), (5, "a"));
    for state in [active(1), standby(2), active(3), closed()] {
        assert_eq!(source.changed().await.unwrap(), state);
    }
    assert_eq!(source.state(), closed());
    for _ in 0..2 {
        assert!(matches!(source.changed().await, Err(ClientError::Refused(refusal)) if refusal.code == Code::UnknownSource));
    }
}

#[tokio::test]
async fn a_claim_that_is_refused_says_why() {
    let (client, mut script) = connected().await;
    let options = ClaimOptions { priority: -3, wait: false, hold: Some(Duration::from_secs(2)) };
    let refusal = Refusal::new(Code::Exclusive, "a", "session 1 on JFK has claimed the branch a").who(["session 1 on JFK".to_owned()]);
    let (source, ()) = tokio::join!(client.claim("a", options), async {
        let (id, request) = script.request().await;
        assert_eq!(request, Request::SourceClaim { branch: "a".into(), priority: -3, wait: false, hold_ms: Some(2_000) });
        script.answer(id, Response::Refused(refusal.clone())).await;
    });
    assert!(matches!(source, Err(ClientError::Refused(heard)) if heard == refusal));
}

#[tokio::test]
async fn writes_carry_the_epoch_and_end_with_it() {
    let (client, mut script) = connected().await;
    let mut source = claimed(&client, &mut script, Vec::new()).await;
    fenced(source.publisher(None).set("a/x", vec![0]).await);
    script.source(5, active(1)).await;
    assert_eq!(source.active().await.unwrap(), 1);
    let mut publisher = source.publisher(None);
    publisher.set("a/x", vec![1]).await.unwrap();
    publisher.send().await.unwrap();
    let (id, values, under) = script.write().await;
    assert_eq!((values, under), (vec![1], Some(Authority { source: 5, epoch: 1 })));
    script.answer(id, Response::Written { written: 1, created: 0, refused: Vec::new() }).await;

    publisher.set("a/x", vec![2]).await.unwrap();
    script.source(5, standby(2)).await;
    assert_eq!(source.changed().await.unwrap(), standby(2));
    let refusal = fenced(publisher.set("a/x", vec![3]).await);
    assert_eq!(refusal.why, "epoch 1 has ended; the source is standby, epoch 2: lost to session 1 on JFK");
    assert_eq!(refusal.who, ["session 1 on JFK"]);
    fenced(source.set("a/x", vec![4], None).await);
    fenced(Err(source.ended(1).await));
    // What it had taken and not sent is refused, and its numbers are not used up.
    let report = publisher.finish().await.unwrap();
    assert_eq!((report.written, report.refused, report.refusals[0].code), (1, 1, Code::Fenced));

    // Active again is another epoch: what was made before stays dead.
    let mut old = source.publisher(None);
    script.source(5, active(3)).await;
    assert_eq!(source.changed().await.unwrap(), active(3));
    fenced(old.set("a/x", vec![5]).await);
    let (written, ()) = tokio::join!(source.set("a/y", vec![6], None), async {
        let (id, values, under) = script.write().await;
        assert_eq!((values, under), (vec![6], Some(Authority { source: 5, epoch: 3 })), "nothing else was sent");
        script.answer(id, Response::Written { written: 1, created: 0, refused: Vec::new() }).await;
    });
    written.unwrap();
}

#[tokio::test]
async fn a_batch_that_the_epoch_outran_gives_no_numbers() {
    let (client, mut script) = connected().await;
    let mut source = claimed(&client, &mut script, vec![active(1)]).await;
    source.active().await.unwrap();
    let mut publisher = source.publisher(None);
    publisher.set("a/x", vec![1]).await.unwrap();
    script.source(5, standby(2)).await;
    source.changed().await.unwrap();
    publisher.send().await.unwrap();
    let mut plain = client.publisher(None);
    plain.set("b", vec![2]).await.unwrap();
    plain.send().await.unwrap();
    let (_, Request::Set(batch)) = script.request().await else { panic!("expected a batch") };
    assert_eq!(batch.items[0].target, Target::Named { alias: 0, path: "b".into() });
}

#[tokio::test]
async fn closing_gives_the_last_state_and_fences() {
    let (client, mut script) = connected().await;
    let mut source = claimed(&client, &mut script, vec![active(1)]).await;
    source.active().await.unwrap();
    let mut publisher = source.publisher(None);
    let (last, ()) = tokio::join!(source.close(), async {
        let (id, request) = script.request().await;
        assert_eq!(request, Request::SourceClose { source: 5 });
        script.source(5, closed()).await;
        script.answer(id, Response::Done).await;
    });
    assert_eq!(last.unwrap(), closed());
    fenced(publisher.set("a", vec![1]).await);
}

#[tokio::test]
async fn a_source_that_the_node_closes_first_is_closed() {
    let (client, mut script) = connected().await;
    let source = claimed(&client, &mut script, Vec::new()).await;
    let conflict = SourceState::Closed { reason: Closed::Conflict, why: "a/b was claimed before".into() };
    let (last, ()) = tokio::join!(source.close(), async {
        let (id, _) = script.request().await;
        script.source(5, conflict.clone()).await;
        script.answer(id, Response::Refused(Refusal::new(Code::UnknownSource, "5", "this session has no such source"))).await;
    });
    assert_eq!(last.unwrap(), conflict);
}

#[tokio::test]
async fn a_dropped_source_is_closed_and_its_publishers_with_it() {
    let (client, mut script) = connected().await;
    let mut source = claimed(&client, &mut script, vec![active(1)]).await;
    source.active().await.unwrap();
    let mut publisher = source.publisher(None);
    drop(source);
    assert_eq!(script.request().await.1, Request::SourceClose { source: 5 });
    assert!(fenced(publisher.set("a", vec![1]).await).why.contains("dropped"));
    // What comes for it afterwards is nobody's.
    script.source(5, closed()).await;
    script.in_step(&client).await;
}

#[tokio::test]
async fn a_claim_that_nobody_waits_for_any_more_is_closed() {
    let (client, mut script) = connected().await;
    let mut claiming = Box::pin(client.claim("a", ClaimOptions::default()));
    let id = tokio::select! {
        _ = &mut claiming => panic!("nobody has answered"),
        (id, _) = script.request() => id,
    };
    drop(claiming);
    script.answer(id, Response::Claimed { source: 5 }).await;
    assert_eq!(script.request().await.1, Request::SourceClose { source: 5 });
}

#[tokio::test]
async fn a_source_that_nobody_has_is_not_heard() {
    let (client, mut script) = connected().await;
    script.source(77, active(1)).await;
    script.in_step(&client).await;
}

#[tokio::test]
async fn a_lost_connection_ends_a_source() {
    let (client, mut script) = connected().await;
    let mut source = claimed(&client, &mut script, vec![active(1)]).await;
    source.active().await.unwrap();
    let mut publisher = source.publisher(None);
    publisher.set("a", vec![1]).await.unwrap();
    drop(script);
    assert!(matches!(source.changed().await, Err(ClientError::Lost { .. })));
    assert!(matches!(source.ended(1).await, ClientError::Lost { .. }));
    assert!(matches!(publisher.set("a", vec![2]).await, Err(ClientError::Lost { .. })));
    assert!(matches!(publisher.finish().await, Err(ClientError::Lost { .. })));
}

#[tokio::test]
async fn a_session_that_is_taken_up_again_brings_its_sources() {
    let (client, mut script) = connected().await;
    let (id, secret) = (SessionId([7; 16]), Secret::new([8; 32]));
    let (sources, ()) = tokio::join!(client.resume_session(id, &secret), async {
        let (request_id, request) = script.request().await;
        assert_eq!(request, Request::SessionResume { id, secret: secret.clone(), epoch: 0 });
        let own = |source, branch: &str, state| OwnSource { source, branch: branch.into(), state };
        // Judged at once; the answer waits for the disk.
        script.source(2, standby(1)).await;
        script.source(2, active(4)).await;
        let sources = vec![own(2, "a", standby(1)), own(3, "b", SourceState::Init)];
        let session = OpenSession { id, secret: Secret::default(), reconnect_timeout_ms: 60_000, sources, epoch: 2 };
        script.answer(request_id, Response::Session(Box::new(session))).await;
        script.source(3, active(6)).await;
    });
    let mut sources = sources.unwrap();
    assert_eq!(sources.iter().map(|source| (source.number(), source.branch())).collect::<Vec<_>>(), [(2, "a"), (3, "b")]);
    assert_eq!(sources[0].changed().await.unwrap(), active(4));
    assert_eq!(sources[1].changed().await.unwrap(), active(6));
}

#[tokio::test]
async fn a_session_is_opened_and_closed() {
    let (client, mut script) = connected().await;
    let session =
        OpenSession { id: SessionId([7; 16]), secret: Secret::new([8; 32]), reconnect_timeout_ms: 2_000, sources: Vec::new(), epoch: 1 };
    let (opened, closed, ()) = tokio::join!(client.open_session(Some(Duration::from_secs(2))), client.close_session(), async {
        let (id, request) = script.request().await;
        assert_eq!(request, Request::SessionOpen { reconnect_timeout_ms: Some(2_000), properties: Default::default() });
        script.answer(id, Response::Session(Box::new(session.clone()))).await;
        let (id, request) = script.request().await;
        assert_eq!(request, Request::SessionClose);
        script.answer(id, Response::Done).await;
    });
    assert_eq!(opened.unwrap(), session);
    closed.unwrap();
}
