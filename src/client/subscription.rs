//! A stream of changes of the topics that a selector matches.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::session::{Delivery, Session, TopicEvent};
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
}

/// An open subscription. While nothing is taken from it, the node holds back all but a window of updates, and keeps only
/// the newest value of each topic.
///
/// Dropping it unsubscribes.
pub struct Subscription {
    session: Arc<Session>,
    id: u32,
    deliveries: mpsc::Receiver<Delivery>,
    events: VecDeque<TopicEvent>,
    window: u32,
    /// How many updates were taken whose credit has not been given back.
    taken: u32,
    ended: Option<ClientError>,
}

impl Subscription {
    pub(super) async fn open(client: &Client, selector: &str, stamps: bool, window: u32) -> Result<Subscription, ClientError> {
        // One place for each update that has credit, one for `Synced`, one for the end.
        let (sender, deliveries) = mpsc::channel(window as usize + 2);
        let request = Request::Subscribe { selector: selector.into(), credit: window, stamps };
        let session = Arc::clone(&client.session);
        match session.ask_subscribe(request, sender).await?.answer().await? {
            Response::Subscribed { subscription: id } => {
                Ok(Subscription { session, id, deliveries, events: VecDeque::new(), window, taken: 0, ended: None })
            }
            Response::Refused(refusal) => Err(refusal.into()),
            other => Err(unexpected(&other)),
        }
    }

    /// The next thing heard. Waits for it, and may be dropped while it waits. After an error, only that error comes.
    pub async fn next(&mut self) -> Result<Heard, ClientError> {
        loop {
            if let Some(TopicEvent { path, event }) = self.events.pop_front() {
                self.taken += 1;
                return Ok(Heard::Topic { path, event });
            }
            if let Some(error) = &self.ended {
                return Err(error.clone());
            }
            self.give_credit_back().await?;
            match self.deliveries.recv().await {
                Some(Delivery::Events(events)) => self.events = events.into(),
                Some(Delivery::Synced) => return Ok(Heard::Synced),
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
        self.session.forget(self.id);
        if self.ended.is_some() {
            return;
        }
        // Without a runtime the session ends anyway, and the subscription with it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let session = Arc::clone(&self.session);
            let subscription = self.id;
            runtime.spawn(async move {
                if let Ok(answer) = session.ask(Request::Unsubscribe { subscription }).await {
                    // Whether it was still there makes no difference.
                    let _ = answer.answer().await;
                }
            });
        }
    }
}
