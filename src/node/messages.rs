//! Messages: to whoever subscribes to a topic, and to this node's sessions.
//!
//! A message is no state. It goes to the subscriptions that have been told of its topic, or are about to be; to those of other nodes by the mesh ([`flood`]). One that waits
//! for a slow client waits within limits, and the client is told how many it has missed.
//!
//! [`flood`]: mangrove_net::flood

use std::sync::Arc;

use mangrove_crdt::{
    access::Permission,
    definition::TopicType,
    id::{SectionId, SessionId},
    path::Path,
};
use minicbor::{Decode, Encode};

use super::{
    ConnectionId, Node, Now,
    requests::{no_such_topic, parse_topic_path},
};
use crate::protocol::{Code, MESSAGE_MAX, Message, Recipient, Refusal, Response, Send};

#[cfg(test)]
mod tests;

/// What a sender's node says to the others; what it leaves out, they know.
#[derive(Debug, Encode, Decode)]
#[cbor(map)]
struct Letter {
    #[n(0)]
    author: String,
    #[n(1)]
    session: Option<SessionId>,
    #[n(2)]
    unix_ms: u64,
    #[cbor(n(3), with = "minicbor::bytes")]
    content: Vec<u8>,
}

impl Letter {
    fn of(self, node: String) -> Message {
        let Letter { author, session, unix_ms, content } = self;
        Message { author, session, node, unix_ms, content, lost: 0 }
    }
}

impl Node {
    pub(super) fn send_message(&mut self, now: Now, connection: ConnectionId, send: Send) -> Result<Response, Refusal> {
        let Send { to, path, content } = send;
        let path = parse_topic_path(&path)?;
        if content.len() > MESSAGE_MAX {
            let why = format!("a message has at most {MESSAGE_MAX} bytes, this one has {}", content.len());
            return Err(Refusal::new(Code::TooLarge, path.as_str(), why));
        }
        let client = self.connections.get(&connection);
        let letter =
            Letter { author: self.author(connection), session: client.and_then(|client| client.session), unix_ms: now.unix_ms, content };
        match to {
            Recipient::Subscribers => self.send_to_topic(now, connection, &path, letter),
            Recipient::Session(session) => {
                self.permitted(connection, Permission::SendToSession, &path)?;
                self.send_to_session(&session, &path, letter)
            }
            Recipient::AllBut(session) => {
                self.permitted(connection, Permission::SendToSession, &path)?;
                self.locate(&path)?;
                self.replica.topic(&path).ok_or_else(|| no_such_topic(&path))?;
                let but = self.find_session(&session)?.0;
                let message = letter.of(self.node_name(&self.id()));
                Ok(Response::Sent { sessions: self.tell_message(&path, &message, Some(but)) })
            }
        }
    }

    fn send_to_topic(&mut self, now: Now, connection: ConnectionId, path: &Path, letter: Letter) -> Result<Response, Refusal> {
        self.permitted(connection, Permission::Update, path)?;
        let section = self.locate(path)?;
        let (_, topic) = self.replica.topic(path).ok_or_else(|| no_such_topic(path))?;
        if let TopicType::Slave(master) = topic.definition.topic_type() {
            let why = "a slave takes nothing of its own";
            return Err(Refusal::new(Code::InvalidRequest, path.as_str(), why).hint(format!("send it to its master: {master}")));
        }
        let id = topic.ids.first().copied();
        self.authority(now, connection, path, None)?;
        if let Some(id) = id.filter(|_| section != SectionId::LOCAL) {
            let body: Arc<[u8]> = minicbor::to_vec(&letter).expect("encoding to memory").into();
            self.mesh.send_message(&mut self.replica, section, id, body);
        }
        let message = letter.of(self.node_name(&self.id()));
        Ok(Response::Sent { sessions: self.tell_message(path, &message, None) })
    }

    fn send_to_session(&mut self, text: &str, path: &Path, letter: Letter) -> Result<Response, Refusal> {
        let (id, record) = self.find_session(text)?;
        if record.home != self.id() {
            let home = self.node_name(&record.home);
            let refusal = Refusal::new(Code::SessionElsewhere, text, format!("the session is at {home}, and such messages cross no link"));
            return Err(refusal.hint("send it there").who([home]));
        }
        let message = letter.of(self.node_name(&self.id()));
        let connection = self.own_sessions().find(|(own, ..)| *own == id).and_then(|(.., connection)| connection);
        let client = connection.and_then(|connection| self.connections.get_mut(&connection));
        match client.map(|client| client.give_message(path, message)) {
            Some(true) => Ok(Response::Sent { sessions: 1 }),
            Some(false) => Err(Refusal::new(Code::NotReady, text, "its client is too slow for more messages").hint("try again later")),
            None => Err(Refusal::new(Code::NotReady, text, "its client is away").hint("try again when it has come back")),
        }
    }

    /// Tells those who subscribe to a topic here, but for one; how many clients.
    fn tell_message(&mut self, path: &Path, message: &Message, but: Option<SessionId>) -> u64 {
        let clients = self.connections.values_mut().filter(|client| but.is_none() || client.session != but);
        clients.map(|client| u64::from(client.tell_message(&self.replica, path, message))).sum()
    }

    /// Messages that have come from other nodes.
    pub(super) fn hear_messages(&mut self, now: Now) {
        while let Some((message, path)) = self.mesh.poll_message(now.at, &self.replica) {
            let node = self.node_name(&self.replica.origins().get(message.origin).node);
            match minicbor::decode::<Letter>(&message.body) {
                Ok(letter) if letter.content.len() <= MESSAGE_MAX => _ = self.tell_message(&path, &letter.of(node), None),
                Ok(_) => tracing::warn!(%path, node, "a message that is too long"),
                Err(error) => tracing::warn!(%path, node, %error, "a message that cannot be read"),
            }
        }
    }
}
