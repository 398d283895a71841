//! Who waits for what: answers, updates, states of sources. It outlives the connections.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mangrove_crdt::selector::Selector;
use tokio::sync::{mpsc, oneshot};

use super::followed::{Delivery, Followed, TopicEvent};
use super::listener::Listening;
use super::messages::Taker;
use super::states::{self, SourceTable};
use super::{ClientError, Refusal, Response};
use crate::memory::{Change, FeedIx, Feeds, Memory};
use crate::protocol::{Code, Feed, ItemRefusal, MissingTopic, OpenSession, Question, Request, SessionNews};

/// A login to be judged, and its number.
pub(super) type Asked = (u64, Question);

/// Who waits for a response.
pub(super) enum Waiter {
    Response(oneshot::Sender<Response>),
    /// A subscription begins, or goes on on another connection. Its updates follow the response at once, so its number must be known before.
    Subscription(u64),
    /// A listener begins, or goes on on another connection.
    Listener(u64),
    /// The sources that the answer names are followed from the moment when it is taken, as their states come right after it.
    Sources(oneshot::Sender<(Response, Vec<states::Followed>)>),
    /// The session was taken up on another connection: the sources are known, but for those that are told.
    Resumed(oneshot::Sender<Result<Resumed, Refusal>>),
}

/// What a node says of a session that it has taken up.
#[derive(Debug)]
pub(super) struct Resumed {
    pub(super) session: OpenSession,
    /// Sources of which this client does not know, or not any more.
    pub(super) strays: Vec<u32>,
}

pub(super) struct Waiting {
    pub(super) waiter: Waiter,
    /// What is asked again on another connection.
    pub(super) again: Option<Vec<u8>>,
    /// Its number, if it is to be done once.
    pub(super) once: Option<u64>,
    /// Whether it was asked again.
    pub(super) asked_again: bool,
}

/// What others want this client to subscribe to.
#[derive(Default)]
struct Given {
    /// The last wish of each selector.
    wishes: BTreeMap<String, (u64, bool)>,
    /// Who hears of them.
    to: Option<mpsc::UnboundedSender<String>>,
}

#[derive(Default)]
pub(super) struct Table {
    pub(super) waiting: BTreeMap<u64, Waiting>,
    /// The numbers of what is to be done once: the last one that was given, and those of what is not answered yet.
    once: (u64, BTreeSet<u64>),
    pub(super) subscriptions: BTreeMap<u64, Followed>,
    numbers: HashMap<u32, u64>,
    pub(super) listeners: BTreeMap<u64, Listening>,
    given: Given,
    pub(super) messages: Taker,
    /// Who judges logins, by the handlers' names.
    pub(super) handlers: BTreeMap<String, mpsc::UnboundedSender<Asked>>,
    /// Who makes missing topics, by the paths that they have registered.
    pub(super) makers: BTreeMap<String, mpsc::UnboundedSender<MissingTopic>>,
    feeds: Feeds,
    pub(super) sources: SourceTable,
    /// Which connection is listened to.
    pub(super) listens_to: u64,
    /// Why nothing will come any more.
    pub(super) failure: Option<ClientError>,
}

#[derive(Clone, Default)]
pub(super) struct SharedTable(Arc<Mutex<Table>>);

impl SharedTable {
    pub(super) fn lock(&self) -> MutexGuard<'_, Table> {
        // Nothing panics while it holds the lock; if it did, the table would still be whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What became of updates.
pub(super) enum Delivered {
    All,
    /// So many were no news, and are to be paid back.
    Credit(u32),
    /// There was no credit for all of them.
    TooMany,
}

/// The answer to something that was asked again: what is refused now may have been done by the node that was lost.
fn doubted(response: Response) -> Response {
    let doubt = |refusal: Refusal| {
        let why = format!("{} [{}]; the node that was lost may have done it before", refusal.why, refusal.code);
        Refusal { code: Code::Doubtful, why, ..refusal }
    };
    match response {
        Response::Refused(refusal) => Response::Refused(doubt(refusal)),
        Response::Written { written, created, refused } => {
            let refused = refused.into_iter().map(|item| ItemRefusal { refusal: doubt(item.refusal), ..item }).collect();
            Response::Written { written, created, refused }
        }
        response => response,
    }
}

impl Table {
    /// Nothing will come any more.
    pub(super) fn fail(&mut self, error: ClientError) {
        self.failure.get_or_insert(error);
        self.waiting.clear();
        self.subscriptions.clear();
        self.numbers.clear();
        self.listeners.clear();
        self.handlers.clear();
        self.makers.clear();
        self.given.to = None;
        self.messages.end();
        self.sources.clear();
    }

    /// A connection is lost, and another will come: whoever asked for what cannot be asked again is let down.
    pub(super) fn lost(&mut self) {
        self.waiting.retain(|_, waiting| waiting.again.is_some());
        self.subscriptions.values_mut().for_each(Followed::lost);
        self.listeners.values_mut().for_each(Listening::lost);
        self.numbers.clear();
        self.sources.suspended();
        self.listens_to = 0;
    }

    /// A number for something that is to be done once, and below which everything has been answered.
    pub(super) fn number_once(&mut self) -> (u64, u64) {
        self.once.0 += 1;
        self.once.1.insert(self.once.0);
        (self.once.0, self.once.1.first().copied().unwrap_or(self.once.0))
    }

    /// What was numbered is not asked for.
    pub(super) fn forget_once(&mut self, number: Option<u64>) {
        number.iter().for_each(|number| _ = self.once.1.remove(number));
    }

    /// Nobody waits for an answer any more.
    pub(super) fn take_waiting(&mut self, id: u64) -> Option<Waiting> {
        let waiting = self.waiting.remove(&id)?;
        self.forget_once(waiting.once);
        Some(waiting)
    }

    pub(super) fn answered(&mut self, id: u64, response: Response) {
        // Whoever asked may have gone away meanwhile: then nobody is told.
        let waiting = self.take_waiting(id);
        let doubtful = waiting.as_ref().is_some_and(|waiting| waiting.asked_again && waiting.once.is_some());
        let response = if doubtful { doubted(response) } else { response };
        match waiting.map(|waiting| waiting.waiter) {
            Some(Waiter::Response(sender)) => drop(sender.send(response)),
            Some(Waiter::Subscription(subscription)) => self.subscribed(subscription, response),
            Some(Waiter::Listener(listener)) => self.listens(listener, response),
            Some(Waiter::Sources(sender)) => {
                let followed = self.sources.answered(id, &response);
                drop(sender.send((response, followed)));
            }
            Some(Waiter::Resumed(sender)) => drop(sender.send(match response {
                Response::Session(session) => Ok(Resumed { strays: self.sources.resumed(&session.sources), session: *session }),
                Response::Refused(refusal) => Err(refusal),
                other => Err(Refusal::new(crate::protocol::Code::Internal, "session", format!("an odd answer: {other:?}"))),
            })),
            None => tracing::debug!(id, "a response that nobody waits for"),
        }
    }

    fn subscribed(&mut self, subscription: u64, response: Response) {
        let Some(followed) = self.subscriptions.get_mut(&subscription) else { return };
        let opened = followed.opened.take();
        match &response {
            Response::Subscribed { subscription: number } => {
                followed.number = Some(*number);
                self.numbers.insert(*number, subscription);
            }
            Response::Refused(refusal) => self.end_subscription(subscription, refusal.clone()),
            _ => {}
        }
        if let Some(opened) = opened {
            // Whoever asked may have gone away meanwhile.
            let _ = opened.send(response);
        }
    }

    fn listens(&mut self, listener: u64, response: Response) {
        let Some(listening) = self.listeners.get_mut(&listener) else { return };
        let opened = listening.opened.take();
        match &response {
            Response::Listening { listener: number } => listening.number = Some(*number),
            _ => _ = self.listeners.remove(&listener),
        }
        if let Some(opened) = opened {
            // Whoever asked may have gone away meanwhile.
            let _ = opened.send(response);
        }
    }

    pub(super) fn sessions(&mut self, number: u32, news: Vec<SessionNews>, synced: bool) {
        if let Some(listening) = self.listeners.values_mut().find(|listening| listening.number == Some(number)) {
            listening.take(news, synced);
        }
    }

    pub(super) fn unlistened(&mut self, number: u32, refusal: Refusal) {
        let found = self.listeners.iter().find(|(_, listening)| listening.number == Some(number)).map(|(id, _)| *id);
        if let Some(listening) = found.and_then(|id| self.listeners.remove(&id)) {
            listening.end(refusal);
        }
    }

    /// Somebody has asked for topics of which there are none.
    pub(super) fn missing(&mut self, missing: MissingTopic) {
        if let Some(maker) = self.makers.get(&missing.prefix) {
            // Whoever does not listen any more has dropped it.
            let _ = maker.send(missing);
        }
    }

    /// A login is to be judged. If nobody does any more, the node asks another when the time is over.
    pub(super) fn judge(&mut self, number: u64, question: Question) {
        if let Some(handler) = self.handlers.get(&question.handler) {
            let _ = handler.send((number, question));
        }
    }

    /// From now on somebody hears of what others want, and of what they have wanted so far.
    pub(super) fn give_to(&mut self, to: mpsc::UnboundedSender<String>) {
        let wished = self.given.wishes.iter().filter(|(_, (_, selected))| *selected).map(|(selector, _)| selector.clone());
        // Whoever does not listen any more has dropped it.
        wished.for_each(|selector| _ = to.send(selector));
        self.given.to = self.failure.is_none().then_some(to);
    }

    /// Others want the client to subscribe to a selector, or not any more. Every node tells that anew; once is enough.
    pub(super) fn select(&mut self, selector: String, selected: bool, wish: u64) {
        if self.given.wishes.insert(selector.clone(), (wish, selected)) == Some((wish, selected)) {
            return;
        }
        if selected {
            if let Some(to) = &self.given.to {
                let _ = to.send(selector);
            }
            return;
        }
        let is_it = |followed: &Followed| Selector::parse(&followed.selector).is_ok_and(|of| of.as_str() == selector);
        let ended: Vec<u64> = self.subscriptions.iter().filter(|(_, followed)| is_it(followed)).map(|(id, _)| *id).collect();
        for id in ended {
            let refusal = Refusal::new(Code::Deselected, &selector, "somebody who may has ended the subscription");
            self.end_subscription(id, refusal);
        }
    }

    fn end_subscription(&mut self, subscription: u64, refusal: Refusal) {
        if let Some(followed) = self.subscriptions.remove(&subscription) {
            // Whoever does not listen any more has dropped it.
            let _ = followed.deliveries.send(Delivery::Ended(refusal));
        }
    }

    fn followed(&mut self, number: u32) -> Option<&mut Followed> {
        self.subscriptions.get_mut(self.numbers.get(&number)?)
    }

    /// Updates for a subscription. What comes for one that is there no more is dropped: its end may have crossed it on the way.
    pub(super) fn updates(&mut self, number: u32, events: Vec<TopicEvent>) -> Delivered {
        let Some(followed) = self.followed(number) else { return Delivered::All };
        let count = events.len() as u32;
        followed.owed += count;
        if followed.owed > followed.window {
            return Delivered::TooMany;
        }
        let news = followed.news(events);
        let paid = news.iter().filter(|event| event.paid).count() as u32;
        if !news.is_empty() {
            // Whoever does not listen any more has dropped it.
            let _ = followed.deliveries.send(Delivery::Events(news));
        }
        followed.owed -= count - paid;
        if paid == count { Delivered::All } else { Delivered::Credit(count - paid) }
    }

    pub(super) fn synced(&mut self, number: u32) {
        let Some(followed) = self.followed(number) else { return };
        let (gone, first) = followed.synced();
        if !gone.is_empty() {
            let _ = followed.deliveries.send(Delivery::Events(gone));
        }
        if first {
            let _ = followed.deliveries.send(Delivery::Synced);
        }
    }

    pub(super) fn rewound(&mut self, number: u32) {
        if let Some(followed) = self.followed(number) {
            followed.with_memory(Memory::rewound);
            let _ = followed.deliveries.send(Delivery::Rewound);
        }
    }

    pub(super) fn position(&mut self, number: u32, rights: u64, places: Vec<Change>) {
        if let Some(followed) = self.followed(number) {
            followed.with_memory(|memory| memory.position(rights, places));
        }
    }

    pub(super) fn present(&mut self, number: u32, slot: u32, paths: Vec<String>) {
        if let Some(followed) = self.followed(number) {
            followed.with_memory(|memory| memory.present(slot, paths));
        }
    }

    pub(super) fn unsubscribed(&mut self, number: u32, refusal: Refusal) {
        if let Some(subscription) = self.numbers.remove(&number) {
            self.end_subscription(subscription, refusal);
        }
    }

    /// Delivers nothing more to a subscription. Its number, if the node knows it.
    pub(super) fn forget(&mut self, subscription: u64) -> Option<u32> {
        let number = self.subscriptions.remove(&subscription)?.number?;
        self.numbers.remove(&number);
        Some(number)
    }

    /// A subscription's user has taken updates: what to tell the node, if it can be told.
    pub(super) fn credit(&mut self, subscription: u64, updates: u32) -> Option<u32> {
        let followed = self.subscriptions.get_mut(&subscription)?;
        followed.owed = followed.owed.saturating_sub(updates);
        if followed.number.is_none() {
            followed.unsent += updates;
        }
        followed.number
    }

    /// What was given back before the node had said the subscription's number.
    pub(super) fn unsent_credit(&mut self) -> Vec<(u32, u32)> {
        let waiting = self.subscriptions.values_mut().filter(|followed| followed.unsent > 0);
        waiting.filter_map(|followed| Some((followed.number?, std::mem::take(&mut followed.unsent)))).collect()
    }

    /// The request by which a subscription begins, or goes on.
    pub(super) fn subscribe(&mut self, subscription: u64) -> Option<Request> {
        let followed = self.subscriptions.get_mut(&subscription)?;
        followed.unsent = 0;
        let heard = followed.heard(&self.feeds).map(Box::new);
        let (selector, stamps, credit) = (followed.selector.clone(), followed.stamps, followed.window - followed.owed);
        Some(Request::Subscribe { selector, credit, stamps, heard })
    }

    /// The client's own number of a feed.
    pub(super) fn feed(&mut self, feed: Feed) -> FeedIx {
        self.feeds.number(feed)
    }

    /// All subscriptions have been shown at least so much.
    pub(super) fn seen(&mut self, place: Change) {
        self.subscriptions
            .values_mut()
            .filter(|followed| followed.number.is_some())
            .for_each(|followed| followed.with_memory(|memory| memory.saw(place)));
    }
}
