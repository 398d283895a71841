//! Clients whose node is killed go on at others by themselves: nobody logs in again, nothing of what they have subscribed to is missing or comes twice, and
//! sources keep their place.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mangrove::client::{ClaimOptions, Client, ClientState, Heard, SessionEvent, SessionOptions, Subscription};
use mangrove::protocol::{Event, SourceState};
use mangrove_crdt::id::SessionId;
use serde_json::{Value, json};

use crate::claims::{QUICK, active, claim, standby, write_as};
use crate::support::{Node, PATIENCE, World, beside, block, until, value_of, write};

/// How many clients there are.
const CLIENTS: usize = 1_000;
/// How many topics each has subscribed to.
const TOPICS: usize = 5;

fn mesh(world: &World, flags: &[&str]) -> [Node; 3] {
    let a = world.found_with("A", flags);
    let b = world.join_with("B", &a, "member", flags);
    let c = world.join_with("C", &a, "member", flags);
    a.told(&["section", "add", "plant"]);
    [a, b, c]
}

async fn roams(node: &Node) -> Client {
    node.connect_with(|options| options.session = Some(SessionOptions::default())).await
}

/// Hears until each topic has its last value; how many values came, if each was newer than the one before.
async fn hears_to_the_end(mut subscription: Subscription, last: u64) -> Result<usize, String> {
    let mut newest: HashMap<Arc<str>, u64> = HashMap::new();
    let mut count = 0;
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while newest.values().filter(|value| **value == last).count() < TOPICS {
        let heard = tokio::time::timeout_at(deadline, subscription.next()).await.map_err(|_| format!("only this came: {newest:?}"))?;
        match heard.map_err(|error| error.to_string())? {
            Heard::Topic { path, event: Event::Added { .. } } => {
                if newest.insert(path.clone(), 0).is_some() {
                    return Err(format!("{path} was added twice"));
                }
            }
            Heard::Topic { path, event: Event::Value { value, .. } } => {
                let Value::Number(value) = value_of(&value) else { return Err(format!("no number at {path}")) };
                let value = value.as_u64().unwrap_or_default();
                match newest.insert(path.clone(), value) {
                    Some(before) if before < value => count += 1,
                    before => return Err(format!("{path} has {value} after {before:?}")),
                }
            }
            Heard::Topic { path, event } => return Err(format!("{path}: {event:?}")),
            Heard::Rewound => return Err("it was rewound".into()),
            Heard::Synced => {}
        }
    }
    // Nothing more is heard of it.
    match tokio::time::timeout(Duration::from_secs(2), subscription.next()).await {
        Err(_) => Ok(count),
        Ok(heard) => Err(format!("{heard:?} came after the end")),
    }
}

#[test]
fn a_thousand_clients_miss_nothing_and_hear_nothing_twice() {
    let world = World::new();
    let [mut a, b, c] = mesh(&world, &[]);
    let topic = |number: usize| format!("plant/t{number}");
    (0..TOPICS).for_each(|number| a.set(&topic(number), "1"));
    (0..TOPICS).for_each(|number| c.shows(&topic(number), 1));
    let writer = block(b.connect());
    let put = |value: u64| {
        for number in 0..TOPICS {
            block(write(&writer, &topic(number), &json!(value), None)).expect("B takes it");
        }
    };

    let clients: Vec<Client> = (0..CLIENTS).map(|_| block(roams(&a))).collect();
    let listening: Vec<_> = clients
        .iter()
        .map(|client| {
            let subscription = block(client.subscribe("?plant//")).expect("a subscription");
            beside(hears_to_the_end(subscription, 40))
        })
        .collect();
    until("B knows all sessions", || b.json(&["session", "ls"]).as_array().map_or(0, Vec::len) == CLIENTS);
    let watcher = block(c.connect());
    let mut listener = block(watcher.listen_to_sessions("$NodeName is 'A'")).expect("a listener");
    (2..20).for_each(put);
    a.kill();
    let killed = Instant::now();
    let goes_on = |client: Client| async move {
        client.changed(ClientState::Active).await;
        client.changed(ClientState::Recovering).await;
        killed.elapsed()
    };
    let going_on: Vec<_> = clients.iter().cloned().map(|client| beside(goes_on(client))).collect();
    (20..=40).for_each(|value| {
        put(value);
        std::thread::sleep(Duration::from_millis(100));
    });
    let mut heard = 0;
    for listener in listening {
        heard += block(listener).expect("it ends").expect("one stream");
    }
    let last = going_on.into_iter().map(|client| block(client).expect("it ends")).max();
    println!("{CLIENTS} clients heard {heard} values, and had a node again within {last:?} of the loss");
    for client in &clients {
        assert_eq!(client.state(), ClientState::Active);
        assert_ne!(client.welcome().name, "A");
    }
    let rows = b.json(&["session", "ls"]);
    let rows = rows.as_array().expect("rows");
    assert_eq!(rows.len(), CLIENTS, "nobody opened another");
    assert!(rows.iter().all(|row| row["node"] != "A"), "all have moved");

    // Each is there, and fails over once, and that is all.
    let mut events: BTreeMap<SessionId, Vec<&str>> = BTreeMap::new();
    block(async {
        while let Ok(event) = tokio::time::timeout(Duration::from_secs(2), listener.next()).await {
            match event.expect("an event") {
                SessionEvent::Opened(row) => events.entry(row.session).or_default().push("opened"),
                SessionEvent::FailedOver { session, from } => {
                    assert_eq!(from, "A");
                    events.entry(session.session).or_default().push("failed-over");
                }
                SessionEvent::Synced => {}
                other => panic!("{other:?}"),
            }
        }
    });
    assert_eq!(events.len(), CLIENTS);
    let odd: Vec<_> = events.iter().filter(|(_, events)| **events != ["opened", "failed-over"]).collect();
    assert!(odd.is_empty(), "{odd:?}");
}

#[test]
fn a_source_goes_on_under_a_new_epoch_past_those_who_wait() {
    let world = World::new();
    let [mut a, b, c] = mesh(&world, QUICK);
    a.set("plant/rpm", "0");
    c.shows("plant/rpm", 0);
    block(async {
        let client = roams(&a).await;
        let options = ClaimOptions { hold: Some(Duration::from_secs(20)), ..ClaimOptions::default() };
        let mut source = client.claim("plant", options).await.expect("a source");
        let epoch = active(&mut source).await;
        let waiting = c.connect().await;
        let mut next = claim(&waiting, "plant").await;
        standby(&mut next).await;
        write_as(&source, "plant/rpm", &json!("before")).await;
        let session = client.session_id();
        a.kill();
        assert_eq!(client.changed(ClientState::Active).await, ClientState::Recovering);
        // What is asked meanwhile waits.
        let status = client.status().await.expect("another node answers");
        assert_ne!(status.name, "A");
        assert_eq!((client.state(), client.session_id()), (ClientState::Active, session));
        let now = active(&mut source).await;
        assert!(now > epoch, "{now} after {epoch}");
        write_as(&source, "plant/rpm", &json!("after")).await;
        assert!(!matches!(next.state(), SourceState::Active { .. }), "{next:?}");
    });
    b.shows("plant/rpm", "after");
    c.shows("plant/rpm", "after");
}

#[test]
fn a_client_leaves_a_node_that_ends_at_once_and_one_that_is_paused_lets_it_go_later() {
    let world = World::new();
    let [mut a, b, c] = mesh(&world, QUICK);
    a.set("plant/rpm", "0");
    c.shows("plant/rpm", 0);
    let home = |client: &Client| client.welcome().name.clone();
    let heard = block(async {
        let client = roams(&a).await;
        let mut subscription = client.subscribe("plant/rpm").await.expect("a subscription");
        while subscription.next().await.expect("what is there") != Heard::Synced {}
        until("B and C know the session", || [&b, &c].iter().all(|node| node.json(&["session", "ls"]).as_array().map_or(0, Vec::len) == 1));
        a.terminate();
        client.changed(ClientState::Active).await;
        client.changed(ClientState::Recovering).await;
        let first = home(&client);
        assert_ne!(first, "A");

        let (paused, other) = if first == "B" { (&b, &c) } else { (&c, &b) };
        paused.pause();
        client.changed(ClientState::Active).await;
        client.changed(ClientState::Recovering).await;
        assert_eq!(home(&client), other.name);
        paused.wake();
        let at_other = |node: &Node| node.json(&["session", "ls"])[0]["node"] == other.name.as_str();
        until("the one that was paused knows", || at_other(paused));
        write(&client, "plant/rpm", &json!(1), None).await.expect("it writes where it is");
        assert_eq!((client.state(), home(&client)), (ClientState::Active, other.name.clone()));
        client.clone().close().await;
        until("its end is known", || [paused, other].iter().all(|node| node.json(&["session", "ls"]) == json!([])));
        subscription.next().await.expect("the value")
    });
    assert!(matches!(&heard, Heard::Topic { event: Event::Value { value, .. }, .. } if value_of(value) == json!(1)), "{heard:?}");
}

#[test]
fn what_is_being_written_when_the_node_is_lost_is_written_once() {
    const WRITERS: usize = 20;
    const VALUES: u64 = 400;
    let world = World::new();
    let [mut a, b, c] = mesh(&world, QUICK);
    let topic = |writer: usize| format!("plant/w{writer}");
    (0..WRITERS).for_each(|writer| a.set(&topic(writer), "0"));
    (0..WRITERS).for_each(|writer| c.shows(&topic(writer), 0));
    let listener = block(c.connect());
    let mut heard = block(listener.subscribe("?plant//")).expect("a subscription");

    let clients: Vec<Client> = (0..WRITERS).map(|_| block(roams(&a))).collect();
    until("B knows all sessions", || b.json(&["session", "ls"]).as_array().map_or(0, Vec::len) == WRITERS);
    // Some are always on their way: of these nobody knows, when the node is lost, whether they have been written.
    let writes = |client: Client, path: String| async move {
        let mut publisher = client.publisher(None);
        for value in 1..=VALUES {
            publisher.set(&path, crate::support::bytes_of(&json!(value))).await?;
            publisher.send().await?;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        publisher.finish().await
    };
    let writing: Vec<_> = clients.iter().cloned().enumerate().map(|(writer, client)| beside(writes(client, topic(writer)))).collect();
    std::thread::sleep(Duration::from_millis(700));
    a.kill();
    for writing in writing {
        let report = block(writing).expect("it ends").expect("nothing is lost");
        assert_eq!((report.written, report.refused), (VALUES, 0), "{:?}", report.refusals);
    }
    (0..WRITERS).for_each(|writer| c.shows(&topic(writer), VALUES));
    // Nobody saw an older value come back.
    let mut newest: HashMap<Arc<str>, u64> = HashMap::new();
    block(async {
        while newest.values().filter(|value| **value == VALUES).count() < WRITERS {
            let heard = tokio::time::timeout(PATIENCE, heard.next()).await.expect("in time").expect("it goes on");
            if let Heard::Topic { path, event: Event::Value { value, .. } } = heard {
                let value = value_of(&value).as_u64().expect("a number");
                let before = newest.insert(path.clone(), value);
                assert!(before.is_none_or(|before| before <= value), "{path} has {value} after {before:?}");
            }
        }
    });
    drop(clients);
}
