//! A stream of changes of the topics that a selector matches.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::followed::{Delivery, TopicEvent};
use super::session::Session;
use super::{Client, ClientError, Request, Response, unexpected};
use crate::protocol::Event;

/// What a subscription hears.
#[derive(Debug, Clone, PartialEq)]
pub enum Heard {
    /// Something happened to a topic.
    Topic {
        /// Its path.
        path: Arc<str>,
        /// What happened. A topic is [`Event::Added`] before its first value.
        event: Event,
    },
    /// Everything that matched at the start has been heard; what follows is news. Once.
    Synced,
    /// The session was taken up at a node that lacks some of what has been heard, and has waited for it in vain: until that comes, what follows may
    /// be older. Only where the client goes on elsewhere ([`super::SessionOptions`]).
    Rewound,
}

/// An open subscription. While nothing is taken from it, the node holds back all but a window of updates, and keeps only
/// the newest value of each topic.
///
/// Dropping it unsubscribes.
pub struct Subscription {
    session: Arc<Session>,
    id: u64,
    deliveries: mpsc::UnboundedReceiver<Delivery>,
    events: VecDeque<TopicEvent>,
    window: u32,
    /// How many updates were taken whose credit has not been given back.
    taken: u32,
    ended: Option<ClientError>,
}

impl Subscription {
    pub(super) async fn open(client: &Client, selector: &str, stamps: bool, window: u32) -> Result<Subscription, ClientError> {
        let session = Arc::clone(&client.session);
        let (id, deliveries, answer) = session.ask_subscribe(selector, stamps, window).await?;
        // From here on it is ended when it is dropped.
        let mut subscription = Subscription { session, id, deliveries, events: VecDeque::new(), window, taken: 0, ended: None };
        match answer.answer().await? {
            Response::Subscribed { .. } => Ok(subscription),
            Response::Refused(refusal) => {
                subscription.ended = Some(refusal.clone().into());
                Err(refusal.into())
            }
            other => Err(unexpected(&other)),
        }
    }

    /// The next thing heard. Waits for it, and may be dropped while it waits. After an error, only that error comes.
    pub async fn next(&mut self) -> Result<Heard, ClientError> {
        loop {
            if let Some(TopicEvent { path, event, paid, .. }) = self.events.pop_front() {
                self.taken += u32::from(paid);
                return Ok(Heard::Topic { path, event });
            }
            if let Some(error) = &self.ended {
                return Err(error.clone());
            }
            self.give_credit_back().await?;
            match self.deliveries.recv().await {
                Some(Delivery::Events(events)) => self.events = events.into(),
                Some(Delivery::Synced) => return Ok(Heard::Synced),
                Some(Delivery::Rewound) => return Ok(Heard::Rewound),
                Some(Delivery::Ended(refusal)) => self.ended = Some(refusal.into()),
                None => self.ended = Some(self.session.failure()),
            }
        }
    }

    /// In halves of the window: neither a frame for each update, nor a pause at the end of each window.
    async fn give_credit_back(&mut self) -> Result<(), ClientError> {
        if self.taken >= self.window.div_ceil(2) {
            self.session.credit(self.id, self.taken).await?;
            self.taken = 0;
        }
        Ok(())
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let number = self.session.with_table(|table| table.forget(self.id));
        let Some(subscription) = number.filter(|_| self.ended.is_none()) else { return };
        // Without a runtime the session ends anyway, and the subscription with it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let session = Arc::clone(&self.session);
            runtime.spawn(async move {
                if let Ok(answer) = session.ask(Request::Unsubscribe { subscription }).await {
                    // Whether it was still there makes no difference.
                    let _ = answer.answer().await;
                }
            });
        }
    }
}
