//! Messages: to whoever listens to a topic, and to sessions.

use minicbor::{Decode, Encode};
use serde::Serialize;

use mangrove_crdt::id::SessionId;

/// The longest message, in bytes.
pub const MESSAGE_MAX: usize = 256 << 10;

/// A message to be sent.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Send {
    /// Who is to get it.
    #[n(0)]
    pub to: Recipient,
    /// Which topic it is about: its path.
    #[n(1)]
    pub path: String,
    /// What is said, at most [`MESSAGE_MAX`] bytes. What they mean is for those who talk to agree on.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub content: Vec<u8>,
}

/// Who is to get a message.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Recipient {
    /// Whoever subscribes to the topic, on every node that holds its section. Needs the permission to update the topic; who cannot write it since another holds its branch, cannot
    /// send to it.
    #[n(0)]
    Subscribers,
    /// One session of this node, whether it subscribes or not: its id, or the first digits of it. There need be no such topic. Needs the permission `send-to-session` at the path.
    #[n(1)]
    Session(#[n(0)] String),
    /// Whoever subscribes to the topic on this node, but for one session. Needs the permission `send-to-session` at the path.
    #[n(2)]
    AllBut(#[n(0)] String),
}

/// A message that has come.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct Message {
    /// Who has sent it: a principal, `anonymous`, or the node's operator.
    #[n(0)]
    pub author: String,
    /// By which session, if it has one.
    #[n(1)]
    pub session: Option<SessionId>,
    /// At which node: its name.
    #[n(2)]
    pub node: String,
    /// When, in milliseconds since 1970 by that node's clock; for people only.
    #[n(3)]
    pub unix_ms: u64,
    /// What is said.
    #[cbor(n(4), with = "minicbor::bytes")]
    pub content: Vec<u8>,
    /// How many messages before it were lost to this receiver, since it was too slow for them.
    #[n(5)]
    pub lost: u64,
}
