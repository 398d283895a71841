//! What a client remembers of a subscription, so that it hears one stream however often it changes nodes: nothing twice, and nothing gone unsaid.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use crate::protocol::{Event, Feed, Gone, Heard, Place, Refusal, Response, Through, path_hash, slot_of, slots_of};

/// A feed, by its place in the client's list of all that it has heard of.
pub(super) type FeedIx = u32;

/// An update of one subscription.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct TopicEvent {
    pub(super) path: Arc<str>,
    pub(super) event: Event,
    /// Which change it shows.
    pub(super) place: Option<(FeedIx, u64)>,
    /// Whether the node has taken a credit for it.
    pub(super) paid: bool,
}

/// What a subscription is given.
#[derive(Debug)]
pub(super) enum Delivery {
    Events(Vec<TopicEvent>),
    Synced,
    Rewound,
    Ended(Refusal),
}

/// A subscription, on whatever connection.
pub(super) struct Followed {
    pub(super) selector: String,
    pub(super) stamps: bool,
    pub(super) window: u32,
    pub(super) deliveries: mpsc::UnboundedSender<Delivery>,
    /// Its number on the present connection, once that is known.
    pub(super) number: Option<u32>,
    /// For how many updates the node has taken credit that was not given back.
    pub(super) owed: u32,
    /// What was given back while the number was not known.
    pub(super) unsent: u32,
    /// Who waits for the first answer.
    pub(super) opened: Option<oneshot::Sender<Response>>,
    synced: bool,
    memory: Option<Memory>,
}

/// What it knows of its topics, where it may go on elsewhere.
#[derive(Default)]
struct Memory {
    told: HashMap<Arc<str>, Told>,
    seen: BTreeMap<FeedIx, u64>,
    /// How far everything has been heard, and on which connection that was said last.
    through: BTreeMap<FeedIx, u64>,
    said: u32,
    /// Counts the connections.
    pass: u32,
    /// In how many slots the topics were told to the present node, if they were; then it is silent of those that are known.
    slots: usize,
    /// Slots in which something is gone, and what is there.
    present: HashMap<usize, HashSet<String>>,
}

struct Told {
    definition: u64,
    value: Option<(FeedIx, u64)>,
    /// On which connection it was heard of last.
    pass: u32,
}

impl Followed {
    pub(super) fn new(selector: &str, stamps: bool, window: u32, deliveries: mpsc::UnboundedSender<Delivery>, remembers: bool) -> Self {
        let (selector, memory) = (selector.to_owned(), remembers.then(Memory::default));
        Followed { selector, stamps, window, deliveries, number: None, owed: 0, unsent: 0, opened: None, synced: false, memory }
    }

    /// What it has heard, to be told to a node; `None` if it does not go on elsewhere.
    pub(super) fn heard(&mut self, feeds: &[Feed]) -> Option<Heard> {
        let memory = self.memory.as_mut()?;
        let places = |of: &BTreeMap<FeedIx, u64>| -> Vec<Place> {
            of.iter().map(|(feed, number)| Place { feed: feeds[*feed as usize], number: *number }).collect()
        };
        memory.present.clear();
        memory.slots = if memory.through.is_empty() { 0 } else { slots_of(memory.told.len()) };
        let through = (memory.slots > 0).then(|| {
            let mut sums = vec![0_u64; memory.slots];
            for path in memory.told.keys() {
                let hash = path_hash(path);
                let sum = &mut sums[slot_of(hash, memory.slots)];
                *sum = sum.wrapping_add(hash);
            }
            Through { places: places(&memory.through), sums }
        });
        Some(Heard { seen: places(&memory.seen), through })
    }

    /// Everything has been heard up to here, in feeds that have come further.
    pub(super) fn position(&mut self, places: impl Iterator<Item = (FeedIx, u64)>) {
        let Some(memory) = &mut self.memory else { return };
        // Each connection begins with all that there is.
        if std::mem::replace(&mut memory.said, memory.pass) != memory.pass {
            memory.through.clear();
        }
        for (feed, number) in places {
            memory.through.insert(feed, number);
            let seen = memory.seen.entry(feed).or_default();
            *seen = number.max(*seen);
        }
    }

    /// The node has waited in vain, and tells everything anew.
    pub(super) fn rewound(&mut self) {
        if let Some(memory) = &mut self.memory {
            memory.slots = 0;
        }
    }

    /// What is there in a slot in which something is gone.
    pub(super) fn present(&mut self, slot: u32, paths: Vec<String>) {
        if let Some(memory) = &mut self.memory {
            memory.present.entry(slot as usize).or_default().extend(paths);
        }
    }

    /// Its connection is lost.
    pub(super) fn lost(&mut self) {
        (self.number, self.unsent) = (None, 0);
        if let Some(memory) = &mut self.memory {
            memory.pass += 1;
        }
    }

    /// Something was shown that is at least so new.
    pub(super) fn saw(&mut self, (feed, number): (FeedIx, u64)) {
        if let Some(memory) = &mut self.memory {
            let seen = memory.seen.entry(feed).or_default();
            *seen = number.max(*seen);
        }
    }

    /// What is news of some updates.
    pub(super) fn news(&mut self, events: Vec<TopicEvent>) -> Vec<TopicEvent> {
        let Some(memory) = &mut self.memory else { return events };
        let mut news = Vec::with_capacity(events.len());
        for event in events {
            if let Some((feed, number)) = event.place {
                let seen = memory.seen.entry(feed).or_default();
                *seen = number.max(*seen);
            }
            memory.take(event, &mut news);
        }
        news
    }

    /// Everything that matches has been sent: what is gone without a word, and whether this is the first time.
    pub(super) fn synced(&mut self) -> (Vec<TopicEvent>, bool) {
        let first = !std::mem::replace(&mut self.synced, true);
        let Some(memory) = &mut self.memory else { return (Vec::new(), first) };
        let (pass, slots, present) = (memory.pass, memory.slots, std::mem::take(&mut memory.present));
        let is_there = |path: &str| slots > 0 && present.get(&slot_of(path_hash(path), slots)).is_none_or(|paths| paths.contains(path));
        let mut gone: Vec<Arc<str>> = Vec::new();
        for (path, told) in &mut memory.told {
            if told.pass == pass || is_there(path) {
                told.pass = pass;
            } else {
                gone.push(Arc::clone(path));
            }
        }
        gone.sort();
        let removed = |path: Arc<str>| {
            memory.told.remove(&path);
            TopicEvent { path, event: Event::Removed { reason: Gone::Removed }, place: None, paid: false }
        };
        (gone.into_iter().map(removed).collect(), first)
    }
}

impl Memory {
    fn take(&mut self, event: TopicEvent, news: &mut Vec<TopicEvent>) {
        match &event.event {
            Event::Added { topic } => {
                let mut hasher = DefaultHasher::new();
                (&topic.topic_type, &topic.properties).hash(&mut hasher);
                let definition = hasher.finish();
                match self.told.get_mut(&event.path) {
                    Some(told) if told.definition == definition => return told.pass = self.pass,
                    Some(_) => {
                        let reason = Gone::Removed;
                        news.push(TopicEvent { path: Arc::clone(&event.path), event: Event::Removed { reason }, place: None, paid: false });
                    }
                    None => {}
                }
                self.told.insert(Arc::clone(&event.path), Told { definition, value: None, pass: self.pass });
            }
            Event::Value { .. } => {
                if let Some(told) = self.told.get_mut(&event.path) {
                    if event.place.is_some() && told.value == event.place {
                        return;
                    }
                    told.value = event.place;
                }
            }
            Event::Removed { .. } => {
                if self.told.remove(&event.path).is_none() {
                    return;
                }
            }
        }
        news.push(event);
    }
}
