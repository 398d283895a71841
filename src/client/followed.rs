//! A subscription, on whatever connection.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use crate::memory::{Change, Feeds, Memory, News};
use crate::protocol::{Event, Gone, Heard, Refusal, Response};

/// An update of one subscription.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct TopicEvent {
    pub(super) path: Arc<str>,
    pub(super) event: Event,
    /// Which change it shows.
    pub(super) place: Option<Change>,
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

impl Followed {
    /// One that may go on elsewhere, if it `remembers`.
    pub(super) fn new(selector: &str, stamps: bool, window: u32, deliveries: mpsc::UnboundedSender<Delivery>, remembers: bool) -> Self {
        let (selector, memory) = (selector.to_owned(), remembers.then(Memory::default));
        Followed { selector, stamps, window, deliveries, number: None, owed: 0, unsent: 0, opened: None, synced: false, memory }
    }

    /// What it has heard, to be told to a node; `None` if it does not go on elsewhere.
    pub(super) fn heard(&mut self, feeds: &Feeds) -> Option<Heard> {
        self.memory.as_mut().map(|memory| memory.heard(feeds))
    }

    /// Its connection is lost.
    pub(super) fn lost(&mut self) {
        (self.number, self.unsent) = (None, 0);
        self.with_memory(Memory::lost);
    }

    pub(super) fn with_memory(&mut self, f: impl FnOnce(&mut Memory)) {
        if let Some(memory) = &mut self.memory {
            f(memory);
        }
    }

    /// What is news of some updates.
    pub(super) fn news(&mut self, events: Vec<TopicEvent>) -> Vec<TopicEvent> {
        let Some(memory) = &mut self.memory else { return events };
        let mut news = Vec::with_capacity(events.len());
        for event in events {
            match memory.news(&event.path, &event.event, event.place) {
                News::None => continue,
                News::Some => {}
                News::Anew => news.push(gone(Arc::clone(&event.path))),
            }
            news.push(event);
        }
        news
    }

    /// Everything that matches has been sent: what is gone without a word, and whether this is the first time.
    pub(super) fn synced(&mut self) -> (Vec<TopicEvent>, bool) {
        let first = !std::mem::replace(&mut self.synced, true);
        let missing = self.memory.as_mut().map(Memory::synced).unwrap_or_default();
        (missing.into_iter().map(gone).collect(), first)
    }
}

/// A topic that has gone without a word: the node was not there.
fn gone(path: Arc<str>) -> TopicEvent {
    TopicEvent { path, event: Event::Removed { reason: Gone::Removed }, place: None, paid: false }
}
