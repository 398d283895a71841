//! Subscriptions that go on at other nodes, over real nodes: what is heard is one stream, and no more crosses than has to.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::client::followed::{Delivery, Followed};
use crate::client::table::{SharedTable, Waiter, Waiting};
use crate::client::wire::Incoming;
use crate::node::ConnectionId;
use crate::node::testing::Meshed;
use crate::protocol::{BASES_BYTES, Event, FromNode, Request, Response, SetBatch, SetItem, Shrink, Target, TopicSpec};

/// A client with one subscription, that goes from node to node.
struct Roamer {
    table: SharedTable,
    deliveries: mpsc::UnboundedReceiver<Delivery>,
    present: Option<(usize, ConnectionId, Incoming)>,
    /// That node's end of the connection.
    shrink: Shrink,
    moves: u64,
    /// How many updates the present node has sent.
    sent: usize,
    /// What is there, as far as has been heard, with the bytes of each value.
    topics: BTreeMap<Arc<str>, Option<Vec<u8>>>,
    /// What was heard since this was looked at last.
    log: Vec<String>,
}

const ONE: u64 = 1;

impl Roamer {
    fn new() -> Self {
        let table = SharedTable::default();
        let (sender, deliveries) = mpsc::unbounded_channel();
        table.lock().subscriptions.insert(ONE, Followed::new("?s//", false, 1_000_000, sender, true));
        Roamer { table, deliveries, present: None, shrink: Shrink::default(), moves: 0, sent: 0, topics: BTreeMap::new(), log: Vec::new() }
    }

    fn goes_to(&mut self, meshed: &mut Meshed, at: usize) {
        if let Some((at, connection, _)) = self.present.take() {
            meshed.gone(at, connection);
        }
        (self.moves, self.sent) = (self.moves + 1, 0);
        let connection = meshed.client(at);
        let (frames, _) = mpsc::channel(1);
        let mut table = self.table.lock();
        table.lost();
        table.listens_to = self.moves;
        let request = table.subscribe(ONE).expect("it is there");
        drop(table);
        let response = meshed.ask(at, connection, request);
        assert!(matches!(response, Response::Subscribed { .. }), "{response:?}");
        let mut table = self.table.lock();
        table.waiting.insert(0, Waiting { waiter: Waiter::Subscription(ONE), again: None, once: None, asked_again: false });
        table.answered(0, response);
        drop(table);
        self.present = Some((at, connection, Incoming::new(self.moves, (0, BASES_BYTES), frames.downgrade())));
        self.shrink = Shrink::new(BASES_BYTES, true);
        self.hears(meshed);
    }

    /// Hears what there is; checks that it makes sense.
    fn hears(&mut self, meshed: &mut Meshed) {
        let Some((at, connection, incoming)) = &mut self.present else { return };
        let now = meshed.now();
        while let Some(mut message) = meshed.nodes[*at].poll_updates(now, *connection) {
            if let FromNode::Updates(updates) = &message {
                self.sent += updates.len();
            }
            self.shrink.from_node(&mut message);
            incoming.take(message, &self.table).expect("it makes sense");
        }
        while let Ok(delivery) = self.deliveries.try_recv() {
            let events = match delivery {
                Delivery::Events(events) => events,
                other => {
                    self.log.push(format!("{other:?}"));
                    continue;
                }
            };
            for event in events {
                let path = event.path;
                match event.event {
                    Event::Added { .. } => {
                        self.log.push(format!("+{path}"));
                        assert!(self.topics.insert(path, None).is_none(), "added twice: {:?}", self.log);
                    }
                    Event::Value { value, .. } => {
                        self.log.push(format!("{path}={value:?}"));
                        let known = self.topics.get_mut(&path).expect("it was added");
                        assert_ne!(known.replace(value.to_vec()), Some(value.to_vec()), "told twice: {:?}", self.log);
                    }
                    Event::Message(message) => self.log.push(format!(">{path} {:?}", message.content)),
                    Event::Removed { .. } => {
                        self.log.push(format!("-{path}"));
                        assert!(self.topics.remove(&path).is_some(), "it was there: {:?}", self.log);
                    }
                }
            }
        }
    }

    fn log(&mut self) -> Vec<String> {
        std::mem::take(&mut self.log)
    }
}

fn set(meshed: &mut Meshed, at: usize, path: &str, value: &[u8]) {
    let client = meshed.client(at);
    let items = vec![SetItem::new(Target::Path(path.into()), value.to_vec())];
    let add = Some(TopicSpec::of("binary"));
    meshed.ask(at, client, Request::Set(SetBatch { items, add, durability: None, under: None }));
    meshed.gone(at, client);
}

fn remove(meshed: &mut Meshed, at: usize, path: &str) {
    let client = meshed.client(at);
    meshed.ask(at, client, Request::TopicsRemove { selector: path.into(), force: true });
    meshed.gone(at, client);
}

fn many(count: usize) -> Meshed {
    let mut meshed = Meshed::with_section(3, &[], "s/first");
    for number in 0..count {
        set(&mut meshed, 0, &format!("s/t{number}"), &[1, number as u8]);
    }
    meshed.pass(1_000);
    meshed
}

#[tokio::test]
async fn what_is_known_is_not_sent_again() {
    let mut meshed = many(200);
    let mut client = Roamer::new();
    client.goes_to(&mut meshed, 0);
    assert_eq!((client.sent, client.topics.len()), (401, 201), "a topic without a value, and two hundred with one");
    assert_eq!(client.log().last().map(String::as_str), Some("Synced"));
    client.goes_to(&mut meshed, 1);
    assert_eq!((client.sent, client.log()), (0, Vec::<String>::new()));
    set(&mut meshed, 2, "s/t7", &[9]);
    meshed.pass(100);
    client.hears(&mut meshed);
    assert_eq!((client.sent, client.log()), (1, vec!["s/t7=[9]".to_string()]));
    // The next node sends again what came after its client was last told how far it had come, and nobody hears it.
    client.goes_to(&mut meshed, 2);
    assert!(client.sent <= 1 && client.log().is_empty(), "{}", client.sent);
}

#[tokio::test]
async fn what_has_changed_meanwhile_is_heard_and_only_that() {
    let mut meshed = many(300);
    let mut client = Roamer::new();
    client.goes_to(&mut meshed, 0);
    let (at, connection, _) = client.present.take().expect("it is there");
    meshed.gone(at, connection);
    client.log();
    set(&mut meshed, 2, "s/t1", &[9]);
    remove(&mut meshed, 1, "s/t2");
    set(&mut meshed, 0, "s/new", &[8]);
    remove(&mut meshed, 0, "s/t3");
    meshed.pass(100);
    set(&mut meshed, 2, "s/t3", &[7]);
    meshed.pass(100);
    client.goes_to(&mut meshed, 1);
    let mut log = client.log();
    log.sort();
    // What was made anew with the same definition is the same topic to whoever was not there.
    assert_eq!(log, ["+s/new", "-s/t2", "s/new=[8]", "s/t1=[9]", "s/t3=[7]"]);
    assert!(client.sent < 10, "{}", client.sent);
}

#[tokio::test]
async fn where_one_of_two_that_were_made_at_one_path_goes_the_other_counts_again() {
    let mut went_back = 0;
    for [first, second] in [[0, 1], [1, 0]] {
        let mut meshed = many(1);
        // One knows of the first only, and removes that when the others have both.
        meshed.cut_off(second);
        set(&mut meshed, first, "s/two", &[1]);
        meshed.pass(500);
        meshed.cut_off(2);
        set(&mut meshed, second, "s/two", &[2]);
        meshed.link(0, 1);
        meshed.pass(1_000);
        set(&mut meshed, 0, "s/two", &[3]);
        meshed.pass(500);
        let mut client = Roamer::new();
        client.goes_to(&mut meshed, 0);
        assert_eq!(client.topics["s/two"], Some(vec![3]));
        let (at, connection, _) = client.present.take().expect("it is there");
        meshed.gone(at, connection);
        remove(&mut meshed, 2, "s/two");
        meshed.heal();
        meshed.pass(2_000);
        client.goes_to(&mut meshed, 1);
        let mut fresh = Roamer::new();
        fresh.goes_to(&mut meshed, 1);
        assert_eq!(client.topics, fresh.topics, "{:?}", client.log);
        went_back += usize::from(fresh.topics["s/two"] != Some(vec![3]));
    }
    assert!(went_back > 0, "in neither order the newest was written to the one that goes");
}

#[tokio::test]
async fn what_was_made_anew_and_has_no_value_shows_none() {
    let mut meshed = many(3);
    let mut client = Roamer::new();
    client.goes_to(&mut meshed, 0);
    let (at, connection, _) = client.present.take().expect("it is there");
    meshed.gone(at, connection);
    client.log();
    remove(&mut meshed, 0, "s/t1");
    for path in ["s/t1", "s/unheard-of"] {
        let operator = meshed.client(0);
        meshed.ask(0, operator, Request::TopicsAdd { topic: TopicSpec::of("binary"), paths: vec![path.into()] });
    }
    meshed.pass(500);
    client.goes_to(&mut meshed, 1);
    assert_eq!(client.log(), ["-s/t1", "+s/t1", "+s/unheard-of"]);
}

#[tokio::test]
async fn a_node_that_lacks_what_was_heard_waits_for_it_and_says_when_that_was_in_vain() {
    for heals in [true, false] {
        let mut meshed = many(20);
        let mut client = Roamer::new();
        client.goes_to(&mut meshed, 0);
        meshed.cut_off(1);
        set(&mut meshed, 0, "s/t1", &[9]);
        remove(&mut meshed, 0, "s/t2");
        client.hears(&mut meshed);
        set(&mut meshed, 1, "s/t5", &[5]);
        client.log();
        client.goes_to(&mut meshed, 1);
        meshed.pass(2_000);
        client.hears(&mut meshed);
        assert_eq!((client.sent, client.log()), (0, Vec::<String>::new()), "not even what is new");
        if heals {
            meshed.heal();
            meshed.pass(1_000);
            client.hears(&mut meshed);
            assert_eq!(client.log(), ["s/t5=[5]"]);
            continue;
        }
        meshed.pass(4_000);
        client.hears(&mut meshed);
        let mut log = client.log();
        assert_eq!(log.remove(0), "Rewound");
        log.sort();
        assert_eq!(log, ["+s/t2", "s/t1=[1, 1]", "s/t2=[1, 2]", "s/t5=[5]"], "what it has is older");
        meshed.heal();
        meshed.pass(1_000);
        client.hears(&mut meshed);
        let mut log = client.log();
        log.sort();
        assert_eq!(log, ["-s/t2", "s/t1=[9]"]);
    }
}

#[tokio::test]
async fn what_a_node_has_lost_or_given_up_is_heard_again_at_the_next() {
    for forgets in [true, false] {
        let mut meshed = many(20);
        let mut client = Roamer::new();
        client.goes_to(&mut meshed, 0);
        client.log();
        if forgets {
            // It hears nothing of the others after its start.
            meshed.stopped.extend([0, 2]);
            meshed.forget(1);
            meshed.cut_off(1);
            meshed.stopped.clear();
            client.goes_to(&mut meshed, 1);
            assert!(client.log().is_empty(), "it waits");
            meshed.pass(6_000);
            client.hears(&mut meshed);
            assert_eq!(client.log()[0], "Rewound");
        } else {
            client.goes_to(&mut meshed, 1);
            let operator = meshed.client(1);
            assert_eq!(meshed.ask(1, operator, Request::SectionDrop { root: "s".into(), force: true }), Response::Done);
            meshed.pass(500);
            client.hears(&mut meshed);
        }
        assert!(client.topics.is_empty(), "{:?}", client.topics);
        client.goes_to(&mut meshed, 2);
        assert_eq!(client.topics.len(), 21, "forgets: {forgets}");
    }
}

#[tokio::test]
async fn whatever_happens_what_is_heard_is_what_is_there() {
    for seed in 0..60_u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut below = |limit: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 33) % limit
        };
        let mut meshed = many(10);
        let mut client = Roamer::new();
        client.goes_to(&mut meshed, 0);
        for step in 0..60_u8 {
            let at = below(3) as usize;
            let path = format!("s/t{}", below(12));
            match below(12) {
                0..6 => set(&mut meshed, at, &path, &[2, step, at as u8]),
                6 => remove(&mut meshed, at, &path),
                7 => client.goes_to(&mut meshed, at),
                8 => meshed.cut_off(at),
                9 => meshed.heal(),
                10 => meshed.pass(below(400)),
                _ => meshed.pass(6_000),
            }
            client.hears(&mut meshed);
        }
        meshed.heal();
        meshed.pass(10_000);
        client.hears(&mut meshed);
        let mut fresh = Roamer::new();
        fresh.goes_to(&mut meshed, 1);
        assert_eq!(client.topics, fresh.topics, "seed {seed}: {:?}", client.log);
    }
}
