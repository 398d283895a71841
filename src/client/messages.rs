//! Messages: to whoever listens to a topic, and to sessions.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::session::Session;
use super::{Client, ClientError, Request, Response, unexpected};
use crate::protocol::{Message, Recipient, Send};

/// How many messages for the client alone wait for whoever takes them.
const WAITING_MAX: usize = 1_024;

/// Who takes messages for this client alone.
#[derive(Default)]
pub(super) struct Taker {
    to: Option<mpsc::Sender<(Arc<str>, Message)>>,
    /// How many were lost since the last that was taken.
    lost: u64,
}

impl Taker {
    pub(super) fn take(&mut self, path: String, message: Message) {
        let Some(to) = &self.to else { return };
        let lost = self.lost + message.lost;
        // Whoever does not listen any more has dropped it.
        self.lost = if to.try_send((path.into(), Message { lost, ..message })).is_ok() { 0 } else { lost + 1 };
    }

    /// Nothing comes any more.
    pub(super) fn end(&mut self) {
        self.to = None;
    }
}

/// Messages for this client alone.
pub struct Messages {
    session: Arc<Session>,
    messages: mpsc::Receiver<(Arc<str>, Message)>,
}

impl Messages {
    /// The next one, and what it is about. Waits for it, and may be dropped while it waits. While nobody takes any, about a thousand wait; [`Message::lost`] says how many
    /// have come since and are lost.
    ///
    /// # Errors
    /// The connection is lost, and no other comes.
    pub async fn next(&mut self) -> Result<(Arc<str>, Message), ClientError> {
        self.messages.recv().await.ok_or_else(|| self.session.failure())
    }
}

impl Client {
    /// Sends a message to whoever subscribes to a topic, on every node that holds its section. It goes to those who are there; the node
    /// keeps nothing of it. To how many of its own clients it was handed.
    ///
    /// What one node sends arrives in order. It may be lost where a link is lost, or too slow.
    pub async fn send_to_topic(&self, path: &str, content: Vec<u8>) -> Result<u64, ClientError> {
        self.send(Recipient::Subscribers, path, content).await
    }

    /// Sends a message to one session of the client's node, which need not subscribe to anything; its id, or enough first digits of it, name it. It crosses no link.
    pub async fn send_to_session(&self, session: &str, path: &str, content: Vec<u8>) -> Result<(), ClientError> {
        self.send(Recipient::Session(session.into()), path, content).await.map(|_| ())
    }

    /// Sends a message to whoever subscribes to a topic at the client's node, but for one session. It crosses no link. To how many.
    pub async fn send_to_all_but(&self, session: &str, path: &str, content: Vec<u8>) -> Result<u64, ClientError> {
        self.send(Recipient::AllBut(session.into()), path, content).await
    }

    async fn send(&self, to: Recipient, path: &str, content: Vec<u8>) -> Result<u64, ClientError> {
        match self.request(Request::Send(Box::new(Send { to, path: path.into(), content }))).await? {
            Response::Sent { sessions } => Ok(sessions),
            other => Err(unexpected(&other)),
        }
    }

    /// The messages that others send to this client's session alone, from now on. The last one who asks gets them.
    pub fn messages(&self) -> Messages {
        let (sender, messages) = mpsc::channel(WAITING_MAX);
        self.session.with_table(|table| table.messages = Taker { to: table.failure.is_none().then_some(sender), lost: 0 });
        Messages { session: Arc::clone(&self.session), messages }
    }
}
