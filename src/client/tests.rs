//! The client against a node that follows a script, over a pipe in memory.

use std::sync::Arc;

use mangrove_crdt::id::NodeId;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::*;
use crate::protocol::{self, Allowed, Event, FromClient, FromNode, Gone, Update};

mod going_on;
mod sources;

fn options() -> ClientOptions {
    let credential = Credential { node: "memory".into(), mesh: MeshId([1; 32]), proof: Token::new([2; 32]).into() };
    ClientOptions { subscription_window: 4, aliases_max: 2, ..ClientOptions::new(credential) }
}

/// The node's end of the pipe.
struct Script(DuplexStream);

impl Script {
    async fn hear(&mut self) -> FromClient {
        let mut header = [0; 4];
        self.0.read_exact(&mut header).await.expect("the client speaks");
        let mut body = vec![0; protocol::frame_length(header, FRAME_MAX).expect("within the limit")];
        self.0.read_exact(&mut body).await.expect("the client ends its frames");
        protocol::decode_from_client(&body).expect("the client speaks the protocol")
    }

    async fn request(&mut self) -> (u64, Request) {
        match self.hear().await {
            FromClient::Request { id, request } => (id, request),
            other => panic!("expected a request, got {other:?}"),
        }
    }

    async fn say(&mut self, message: FromNode) {
        self.0.write_all(&protocol::frame(&message).expect("within the limit")).await.expect("the client listens");
    }

    async fn answer(&mut self, id: u64, response: Response) {
        self.say(FromNode::Response { id, response }).await;
    }
}

fn welcome() -> Welcome {
    Welcome {
        version: 1,
        session: 9,
        node: NodeId([3; 32]),
        name: "EWR".into(),
        mesh: MeshId([1; 32]),
        program: "0.1.0".into(),
        aliases_max: 2,
        bases_bytes: 0,
        compressed: false,
    }
}

async fn connected() -> (Client, Script) {
    let (mine, theirs) = tokio::io::duplex(1 << 20);
    let (receive, send) = tokio::io::split(mine);
    let mut script = Script(theirs);
    let options = options();
    let (client, ()) = tokio::join!(Client::over(receive, send, &options), async {
        let FromClient::Hello(hello) = script.hear().await else { panic!("expected a hello") };
        assert_eq!((hello.version, hello.token, hello.aliases_max), (1, crate::protocol::Secret::new([2; 32]), 2));
        script.say(FromNode::Welcome(welcome())).await;
    });
    (client.expect("a session"), script)
}

#[tokio::test]
async fn requests_are_answered_by_their_ids() {
    let (client, mut script) = connected().await;
    assert_eq!(client.welcome().name, "EWR");
    let (text, removed, ()) = tokio::join!(client.config(), client.remove_topics("?a//", false), async {
        let (first, second) = (script.request().await, script.request().await);
        assert_eq!((first.1, second.1), (Request::Config, Request::TopicsRemove { selector: "?a//".into(), force: false }));
        script.answer(second.0, Response::Removed { topics: 3 }).await;
        script.answer(first.0, Response::Text("{}".into())).await;
    });
    assert_eq!((text.unwrap(), removed.unwrap()), ("{}".into(), 3));
}

#[tokio::test]
async fn a_node_that_refuses_says_why() {
    let (mine, theirs) = tokio::io::duplex(1 << 20);
    let (receive, send) = tokio::io::split(mine);
    let mut script = Script(theirs);
    let refusal = Refusal::new(Code::BadCredential, "the session", "the token is not known").hint("ask the operator");
    let options = options();
    let (client, ()) = tokio::join!(Client::over(receive, send, &options), async {
        script.hear().await;
        script.say(FromNode::Refused(refusal.clone())).await;
    });
    let error = client.unwrap_err();
    assert_eq!(error.hint().as_deref(), Some("ask the operator"));
    assert!(matches!(error, ClientError::Refused(heard) if heard == refusal));
}

#[tokio::test]
async fn a_lost_connection_ends_all_that_waits() {
    let (client, mut script) = connected().await;
    let (status, nodes, ()) = tokio::join!(client.status(), client.nodes(), async {
        script.request().await;
        script.request().await;
        drop(script);
    });
    assert!(matches!(status, Err(ClientError::Lost { .. })), "{status:?}");
    assert!(matches!(nodes, Err(ClientError::Lost { .. })), "{nodes:?}");
    assert!(matches!(client.links().await, Err(ClientError::Lost { .. })));
}

#[tokio::test]
async fn a_closing_node_is_heard() {
    let (client, mut script) = connected().await;
    script.say(FromNode::Closing(Refusal::new(Code::Closing, "the session", "the node stops"))).await;
    let error = client.status().await.unwrap_err();
    assert!(matches!(&error, ClientError::Refused(refusal) if refusal.code == Code::Closing), "{error:?}");
}

#[tokio::test]
async fn an_answer_to_another_question_is_a_fault() {
    let (client, mut script) = connected().await;
    let (status, ()) = tokio::join!(client.status(), async {
        let (id, _) = script.request().await;
        script.answer(id, Response::Text("no".into())).await;
    });
    assert_eq!(status.unwrap_err().to_string(), "the node broke the protocol: Text answers another request");
}

fn told(byte: u8) -> Event {
    Event::Value { value: [byte].into(), unix_ms: None, stamp: None, form: None, allowed: Allowed::ALL, missed: None, event: None }
}

fn value(subscription: u32, topic: Target, byte: u8) -> Update {
    Update { subscription, topic, event: told(byte), mark: None }
}

fn heard(path: &str, byte: u8) -> Heard {
    Heard::Topic { path: path.into(), event: told(byte) }
}

#[tokio::test]
async fn a_subscription_resolves_numbers_and_gives_credit_back() {
    let (client, mut script) = connected().await;
    let (subscription, ()) = tokio::join!(client.subscribe("?a//"), async {
        let (id, request) = script.request().await;
        assert_eq!(request, Request::Subscribe { selector: "?a//".into(), credit: 4, stamps: false, heard: None });
        script.answer(id, Response::Subscribed { subscription: 7 }).await;
        let named = Target::Named { alias: 0, path: "a/b".into() };
        script.say(FromNode::Updates(vec![value(7, named, 1), value(7, Target::Alias(0), 2)])).await;
        script.say(FromNode::Synced { subscription: 7 }).await;
        script.say(FromNode::Updates(vec![value(7, Target::Path("a/c".into()), 3)])).await;
    });
    let mut subscription = subscription.unwrap();
    assert_eq!(subscription.next().await.unwrap(), heard("a/b", 1));
    assert_eq!(subscription.next().await.unwrap(), heard("a/b", 2));
    assert_eq!(subscription.next().await.unwrap(), Heard::Synced);
    assert_eq!(script.hear().await, FromClient::Credit { subscription: 7, updates: 2 });
    assert_eq!(subscription.next().await.unwrap(), heard("a/c", 3));
    let gone = Update { subscription: 7, topic: Target::Alias(0), event: Event::Removed { reason: Gone::Removed }, mark: None };
    script.say(FromNode::Updates(vec![gone])).await;
    let path: Arc<str> = "a/b".into();
    assert_eq!(subscription.next().await.unwrap(), Heard::Topic { path, event: Event::Removed { reason: Gone::Removed } });
    drop(subscription);
    // The credit for the last two may come first.
    loop {
        match script.hear().await {
            FromClient::Credit { .. } => {}
            FromClient::Request { request, .. } => break assert_eq!(request, Request::Unsubscribe { subscription: 7 }),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_slow_subscriber_holds_up_nobody() {
    let (client, mut script) = connected().await;
    let (subscription, ()) = tokio::join!(client.subscribe("*.*"), async {
        let (id, _) = script.request().await;
        script.answer(id, Response::Subscribed { subscription: 1 }).await;
        for byte in 0..4 {
            script.say(FromNode::Updates(vec![value(1, Target::Path("a".into()), byte)])).await;
        }
    });
    let mut subscription = subscription.unwrap();
    let (text, ()) = tokio::join!(client.config(), async {
        let (id, _) = script.request().await;
        script.answer(id, Response::Text("{}".into())).await;
    });
    assert_eq!(text.unwrap(), "{}");
    for byte in 0..4 {
        assert_eq!(subscription.next().await.unwrap(), heard("a", byte));
    }
}

#[tokio::test]
async fn a_node_that_overruns_its_credit_is_cut_off() {
    let (client, mut script) = connected().await;
    let (subscription, ()) = tokio::join!(client.subscribe("*.*"), async {
        let (id, _) = script.request().await;
        script.answer(id, Response::Subscribed { subscription: 1 }).await;
        for byte in 0..7 {
            script.say(FromNode::Updates(vec![value(1, Target::Path("a".into()), byte)])).await;
        }
    });
    let _subscription = subscription.unwrap();
    let error = loop {
        match tokio::time::timeout(Duration::from_millis(20), client.status()).await.unwrap_or(Err(lost())) {
            Ok(_) | Err(ClientError::Lost { .. }) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(error, ClientError::Protocol(_)), "{error:?}");
}

fn lost() -> ClientError {
    ClientError::Lost { address: String::new(), cause: String::new() }
}

#[tokio::test]
async fn a_subscription_that_the_node_ends_says_why() {
    let (client, mut script) = connected().await;
    let refusal = Refusal::new(Code::NotHeld, "a", "this node does not hold it").who(["JFK".to_owned()]);
    let (subscription, ()) = tokio::join!(client.subscribe("?a//"), async {
        let (id, _) = script.request().await;
        script.answer(id, Response::Subscribed { subscription: 1 }).await;
        script.say(FromNode::Updates(vec![value(1, Target::Path("a".into()), 1)])).await;
        script.say(FromNode::Unsubscribed { subscription: 1, refusal: refusal.clone() }).await;
    });
    let mut subscription = subscription.unwrap();
    assert_eq!(subscription.next().await.unwrap(), heard("a", 1));
    for _ in 0..2 {
        assert!(matches!(subscription.next().await, Err(ClientError::Refused(heard)) if heard == refusal));
    }
}

#[tokio::test]
async fn a_publisher_names_each_path_once() {
    let (client, mut script) = connected().await;
    let mut publisher = client.publisher(Some(TopicSpec::of("json")));
    let publishing = async {
        for (path, byte) in [("a", 1), ("b", 2), ("a", 3), ("c", 4), ("c", 5), ("/", 6)] {
            publisher.set(path, vec![byte; 10]).await?;
        }
        publisher.finish().await
    };
    let (report, ()) = tokio::join!(publishing, async {
        let (id, request) = script.request().await;
        let Request::Set(batch) = request else { panic!("expected a batch, got {request:?}") };
        assert_eq!(batch.add, Some(TopicSpec::of("json")));
        let targets: Vec<Target> = batch.items.iter().map(|item| item.target.clone()).collect();
        let named = |alias, path: &str| Target::Named { alias, path: path.into() };
        let path = |path: &str| Target::Path(path.into());
        // There is room for two numbers only.
        assert_eq!(targets, [named(0, "a"), named(1, "b"), Target::Alias(0), path("c"), path("c")]);
        assert_eq!(batch.items.iter().map(|item| item.value[0]).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
        let refused = vec![ItemRefusal { item: 1, refusal: Refusal::new(Code::InvalidValue, "b", "not this") }];
        script.answer(id, Response::Written { written: 4, created: 2, refused }).await;
    });
    let report = report.unwrap();
    assert_eq!((report.written, report.created, report.refused, report.value_bytes), (4, 2, 2, 40));
    let codes: Vec<Code> = report.refusals.iter().map(|refusal| refusal.code).collect();
    assert_eq!(codes, [Code::InvalidPath, Code::InvalidValue]);
}

#[tokio::test]
async fn publishers_of_one_session_share_its_numbers() {
    let (client, mut script) = connected().await;
    let (mut first, mut second) = (client.publisher(None), client.publisher(None));
    first.set("a", vec![1]).await.unwrap();
    second.set("b", vec![2]).await.unwrap();
    second.set("a", vec![3]).await.unwrap();
    second.send().await.unwrap();
    first.send().await.unwrap();
    let mut targets = Vec::new();
    for _ in 0..2 {
        let (_, Request::Set(batch)) = script.request().await else { panic!("expected a batch") };
        targets.extend(batch.items.into_iter().map(|item| item.target));
    }
    let named = |alias, path: &str| Target::Named { alias, path: path.into() };
    assert_eq!(targets, [named(0, "b"), named(1, "a"), Target::Alias(1)]);
}

#[tokio::test]
async fn a_publisher_keeps_a_bounded_number_of_batches_in_flight() {
    let (client, mut script) = connected().await;
    let mut publisher = client.publisher(None);
    let publishing = tokio::spawn(async move {
        for _ in 0..40 {
            publisher.set("a", vec![0; 10]).await.unwrap();
            publisher.send().await.unwrap();
        }
        publisher.finish().await
    });
    let mut waiting = Vec::new();
    for _ in 0..16 {
        waiting.push(script.request().await.0);
    }
    let early = tokio::time::timeout(Duration::from_millis(50), script.request()).await;
    assert!(early.is_err(), "a seventeenth batch before the first answer");
    for answered in 0..40 {
        script.answer(waiting[answered], Response::Written { written: 1, created: 0, refused: Vec::new() }).await;
        if waiting.len() < 40 {
            waiting.push(script.request().await.0);
        }
    }
    assert_eq!(publishing.await.unwrap().unwrap().written, 40);
}

#[tokio::test]
async fn a_stream_is_judged_as_it_begins_and_goes_on_or_not() {
    let (client, mut script) = connected().await;
    let add = Some(TopicSpec::of("binary"));
    let mut publisher = client.publisher(add.clone()).only_if("no value");
    let node = async {
        let mut heard = Vec::new();
        for response in [
            Response::Changed { created: true, exact: false, event: None, list: None },
            Response::Refused(Refusal::new(Code::ConstraintUnmet, "b", "it is not so")),
            Response::Written { written: 1, created: 0, refused: Vec::new() },
            Response::Refused(Refusal::new(Code::InvalidValue, "c", "no value of it")),
            Response::Changed { created: false, exact: true, event: None, list: None },
            Response::Written { written: 1, created: 0, refused: Vec::new() },
        ] {
            let (id, request) = script.request().await;
            heard.push(match request {
                Request::Change(change) => {
                    assert_eq!((change.constraint.as_deref(), &change.add, change.under), (Some("no value"), &add, None));
                    change.path
                }
                Request::Set(batch) => format!("{} more", batch.items.len()),
                other => panic!("{other:?}"),
            });
            script.answer(id, response).await;
        }
        heard
    };
    let writes = async {
        for path in ["a", "b", "a", "b", "c", "c", "a"] {
            publisher.set(path, vec![7, 7]).await.expect("it is taken");
        }
        publisher.finish().await.expect("all is answered")
    };
    let (report, heard) = tokio::join!(writes, node);
    // What was given before the first of another is sent before that.
    assert_eq!(heard, ["a", "b", "1 more", "c", "c", "1 more"]);
    assert_eq!((report.written, report.created, report.inexact), (4, 1, 1));
    assert_eq!(
        report.refusals.iter().map(|refusal| refusal.code).collect::<Vec<_>>(),
        [Code::ConstraintUnmet, Code::ConstraintUnmet, Code::InvalidValue]
    );
}
