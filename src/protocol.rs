//! What a client and a node say to each other.
//!
//! A session is one bidirectional QUIC stream. The client opens it and speaks first:
//!
//! ```text
//!   client                                             node
//!     │ Hello{version, login, client}                    │
//!     │ ────────────────────────────────────────────────►│  (anything else, or a frame above HELLO_MAX: the stream is reset)
//!     │                Welcome{session, node, mesh, …}   │
//!     │◄──────────────────────────────────────────────── │  (or Refused, and the stream ends)
//!     │ Request{id, …}   Request{id, …}   Credit{…}      │
//!     │ ────────────────────────────────────────────────►│
//!     │        Response{id, …}   Updates{…}   Response…  │
//!     │◄──────────────────────────────────────────────── │
//! ```
//!
//! **Frames.** A message is one frame: its length as four little-endian bytes, then that many bytes of CBOR with numbered
//! fields. A receiver skips fields that it doesn't know and fills those that an older sender left out, so that old and new
//! programs talk; a request that a node doesn't know is answered with [`Code::Unsupported`], not with a broken session.
//!
//! **Any number of requests may be in flight.** Each carries an id that the client has not in use, and gets exactly one
//! response with this id. Requests take effect in the order of the stream; their answers may come in another.
//!
//! **A subscriber pulls.** A node sends no more updates for a subscription than the client has granted credit for, one for each
//! update; it holds the rest as a set of changed topics, never as a queue of values. So a slow reader costs the node
//! nothing, gets the newest state when it comes round, and its responses never wait behind its updates.
//!
//! **Paths are named once.** [`Target::Named`] gives a path a number for the rest of the session, and [`Target::Alias`] is that
//! number. Numbers count from 0 without gaps and may be given again. Each direction has its own.
//!
//! **Long values are told once.** What changes of them then goes as a delta from the last value that went over the connection under the same name, if both sides keep
//! that ([`Shrink`], [`Restore`]; [`Hello::bases_bytes`] and [`Welcome::bases_bytes`] say how much). What is told whole is compressed, if the other side makes that out
//! ([`Hello::compressed`], [`Welcome::compressed`]).
//!
//! **Values are opaque here**: the bytes are those of the topic's type (`mangrove_crdt::value`).

use std::collections::BTreeMap;
use std::sync::Arc;

use mangrove_crdt::blob::BlobHash;
use mangrove_crdt::definition::{Definition, DefinitionError, Durability};
use mangrove_crdt::id::{MeshId, NodeId, SessionId};
use minicbor::data::Type;
use minicbor::{Decode, Decoder, Encode, Encoder};
use serde::Serialize;

mod access;
mod aliases;
mod deltas;
mod events;
mod lines;
mod messages;
mod places;
mod refusal;
mod rows;
mod secret;
mod sessions;
mod sources;
#[cfg(test)]
mod tests;
mod writes;

pub use access::{ChangeRow, ConflictRow, MissingTopic, PrincipalRow, Question, RoleRow, Verdict, WhyReport};
pub use aliases::{AliasError, Aliases};
pub use deltas::{Allowed, BASES_BYTES, Form, Restore, RestoreError, Shrink};
pub use events::{Edited, EventMark, EventRow, EventsWanted};
pub use lines::{ListState, Splice};
pub use messages::{MESSAGE_MAX, Message, Recipient, Send};
pub use places::{Feed, Heard, Mark, Place, Through, path_hash, slot_of, slots_of};
pub use refusal::{Code, ItemRefusal, Refusal};
pub use rows::{
    BlobRow, Deed, DisplacedRow, Finding, LinkRow, LinkState, NodeRow, NodeState, PastRow, SectionRow, Severity, Status, TopicDetail,
    TopicRow, ValueRow,
};
pub use secret::Secret;
pub use sessions::{Claimed, Ended, SessionDetail, SessionNews, SessionRow, SessionState};
pub use sources::{Claim, Closed, OpenSession, OwnSource, SourceDetail, SourceRow, SourceState, VoterRow};
pub use writes::{Authority, Change, SetBatch, SetItem, Target, Wish};

/// The version of this protocol. A node answers a client with the smaller of both versions, or refuses.
pub const VERSION: u32 = 1;
/// The ALPN name of client connections.
pub const ALPN: &[u8] = b"mangrove-client/1";
/// The longest value, in bytes.
pub const VALUE_MAX: usize = mangrove_crdt::value::VALUE_MAX;
/// The longest frame, in bytes, without the four of its length: a value of the greatest length with its path, and the definition
/// of a topic to be made for it.
pub const FRAME_MAX: usize = VALUE_MAX + (256 << 10);
/// The longest first frame, in bytes: whoever has not shown a credential gets no more memory than this.
pub const HELLO_MAX: usize = 4 << 10;
/// The most items in one list of a message; bounds what a frame of tiny items can make of memory.
pub const ITEMS_MAX: usize = 65_536;
/// The most rows in one page.
pub const PAGE_MAX: u32 = 10_000;
/// The most properties of one topic or section.
pub const PROPERTIES_MAX: usize = 256;
/// The most bytes of a blob in one frame.
pub const BLOB_PIECE_MAX: usize = 256 << 10;
/// Up to how many bytes of values a sender should put in one frame, unless a single value is longer.
pub const FRAME_AIM: usize = 256 << 10;

// ---------------------------------------------------------------------------------------------------------------------
// Frames

/// A frame that is longer than its receiver accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {length} bytes is over the limit of {limit}")]
pub struct Oversized {
    /// What its header announces, in bytes.
    pub length: usize,
    /// What was allowed, in bytes.
    pub limit: usize,
}

/// Bytes that are no message of this protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a message of this protocol: {what}")]
pub struct Malformed {
    /// What was wrong.
    pub what: String,
    /// The id of the request, where the bytes got so far as to name one: it can be refused alone.
    pub request: Option<u64>,
}

impl From<minicbor::decode::Error> for Malformed {
    fn from(error: minicbor::decode::Error) -> Self {
        Malformed { what: error.to_string(), request: None }
    }
}

/// How long the frame behind this header is, in bytes; `limit` is [`HELLO_MAX`] for the first frame and [`FRAME_MAX`] for others.
pub fn frame_length(header: [u8; 4], limit: usize) -> Result<usize, Oversized> {
    let length = u32::from_le_bytes(header) as usize;
    if length > limit { Err(Oversized { length, limit }) } else { Ok(length) }
}

/// A message as a frame, header included, at the end of `buffer`. On [`Oversized`] the buffer is as it was.
pub fn put_frame<T: Encode<()>>(message: &T, buffer: &mut Vec<u8>) -> Result<(), Oversized> {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; 4]);
    minicbor::encode(message, &mut *buffer).expect("writing to a Vec cannot fail, and no Encode here gives an error of its own");
    let length = buffer.len() - start - 4;
    if length > FRAME_MAX {
        buffer.truncate(start);
        return Err(Oversized { length, limit: FRAME_MAX });
    }
    buffer[start..start + 4].copy_from_slice(&(length as u32).to_le_bytes());
    Ok(())
}

/// A message as a frame of its own, header included.
pub fn frame<T: Encode<()>>(message: &T) -> Result<Vec<u8>, Oversized> {
    let mut buffer = Vec::new();
    put_frame(message, &mut buffer)?;
    Ok(buffer)
}

/// A client's message from the bytes of one frame, without its header.
pub fn decode_from_client(bytes: &[u8]) -> Result<FromClient, Malformed> {
    decode_whole(bytes).map_err(|error| Malformed { request: request_id(bytes), ..error })
}

/// A node's message from the bytes of one frame, without its header.
pub fn decode_from_node(bytes: &[u8]) -> Result<FromNode, Malformed> {
    decode_whole(bytes)
}

fn decode_whole<'b, T: Decode<'b, ()>>(bytes: &'b [u8]) -> Result<T, Malformed> {
    let mut decoder = Decoder::new(bytes);
    let message = decoder.decode()?;
    match decoder.position() == bytes.len() {
        true => Ok(message),
        false => Err(Malformed { what: "bytes after the message".into(), request: None }),
    }
}

/// The id in `[1, [id, …]]`, the shape of [`FromClient::Request`], whatever the request itself is.
fn request_id(bytes: &[u8]) -> Option<u64> {
    let mut decoder = Decoder::new(bytes);
    decoder.array().ok()??;
    if decoder.u32().ok()? != 1 {
        return None;
    }
    decoder.array().ok()??;
    decoder.u64().ok()
}

// ---------------------------------------------------------------------------------------------------------------------
// Messages

/// What a client sends.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub enum FromClient {
    /// Who speaks. The node answers with [`FromNode::Welcome`] or [`FromNode::Refused`]. First, and only first.
    #[n(0)]
    Hello(#[n(0)] Hello),
    /// The node answers with one [`FromNode::Response`] of the same id.
    #[n(1)]
    Request {
        /// Chosen by the client; not in use by another request in flight.
        #[n(0)]
        id: u64,
        /// What is asked.
        #[n(1)]
        request: Request,
    },
    /// The node may send this many more updates for the subscription. A subscription that is not there is ignored: it may have ended
    /// while the credit was on its way.
    #[n(2)]
    Credit {
        /// Which.
        #[n(0)]
        subscription: u32,
        /// How many updates more.
        #[n(1)]
        updates: u32,
    },
}

/// What a node sends.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub enum FromNode {
    /// The session stands.
    #[n(0)]
    Welcome(#[n(0)] Welcome),
    /// There is no session; the stream ends.
    #[n(1)]
    Refused(#[n(0)] Refusal),
    /// The answer to a request.
    #[n(2)]
    Response {
        /// The request's.
        #[n(0)]
        id: u64,
        /// The answer.
        #[n(1)]
        response: Response,
    },
    /// Changes of subscribed topics. The client takes one credit back for each.
    #[n(3)]
    Updates(#[cbor(n(0), decode_with = "bounded::list")] Vec<Update>),
    /// Everything that matched when the subscription was made, or as it is now, has been sent. Once for each subscription.
    #[n(4)]
    Synced {
        /// Which.
        #[n(0)]
        subscription: u32,
    },
    /// The subscription has ended, and not by the client's wish.
    #[n(5)]
    Unsubscribed {
        /// Which.
        #[n(0)]
        subscription: u32,
        /// Why.
        #[n(1)]
        refusal: Refusal,
    },
    /// The node ends the session after this; the client may go to another node.
    #[n(6)]
    Closing(#[n(0)] Refusal),
    /// A source of this session has another state. What comes after it on the stream was judged in that state.
    #[n(7)]
    Source {
        /// Which.
        #[n(0)]
        source: u32,
        /// How it is now.
        #[n(1)]
        state: SourceState,
    },
    /// The feeds that get the next numbers, from 0 on this connection.
    #[n(8)]
    Feeds(#[cbor(n(0), decode_with = "bounded::list")] Vec<Feed>),
    /// What follows shows the tree planes at least as far as this.
    #[n(9)]
    Seen(#[cbor(n(0), decode_with = "bounded::list")] Vec<Mark>),
    /// All that matches has been sent up to here: these feeds have come further since the last time, on this connection.
    #[n(11)]
    Position {
        /// For which subscription.
        #[n(0)]
        subscription: u32,
        /// How far.
        #[cbor(n(1), decode_with = "bounded::list")]
        marks: Vec<Mark>,
        /// By what rights: other ones than the last time, and this begins anew.
        #[cbor(n(2), default)]
        rights: u64,
    },
    /// A slot of [`Through::sums`] is not what it should be: these are the topics in it that are there, beside those that are sent. All parts come before
    /// [`FromNode::Synced`].
    #[n(12)]
    Present {
        /// For which subscription.
        #[n(0)]
        subscription: u32,
        /// Which slot.
        #[n(1)]
        slot: u32,
        /// Its topics, or some of them.
        #[cbor(n(2), decode_with = "bounded::list")]
        paths: Vec<String>,
    },
    /// How sessions are that a listener has asked for, each with its newest state; those that are there come first.
    #[n(13)]
    Sessions {
        /// For which listener.
        #[n(0)]
        listener: u32,
        /// Which sessions, and how they are.
        #[cbor(n(1), decode_with = "bounded::list")]
        news: Vec<SessionNews>,
        /// Whether all that are there have been told.
        #[n(2)]
        synced: bool,
    },
    /// The session hears of sessions no more, and not by the client's wish.
    #[n(14)]
    Unlistened {
        /// Which listener.
        #[n(0)]
        listener: u32,
        /// Why.
        #[n(1)]
        refusal: Refusal,
    },
    /// Somebody has asked for topics of which there are none.
    #[n(17)]
    Missing(#[n(0)] Box<MissingTopic>),
    /// Somebody who may wants the client to subscribe to a selector, or not any more.
    #[n(16)]
    Select {
        /// To what, normalised.
        #[n(0)]
        selector: String,
        /// Whether to, or not any more.
        #[n(1)]
        selected: bool,
        /// Names this wish: one that was told before is told again on every connection.
        #[n(2)]
        wish: u64,
    },
    /// A message for this session alone.
    #[n(18)]
    Message {
        /// The path of what it is about.
        #[n(0)]
        path: String,
        /// What has come.
        #[n(1)]
        message: Box<Message>,
    },
    /// A login is to be judged: to be answered by [`Request::Judged`].
    #[n(15)]
    Judge {
        /// Its number, which no other has.
        #[n(0)]
        number: u64,
        /// What is asked.
        #[n(1)]
        question: Box<Question>,
    },
    /// The node has waited in vain for what the client has seen, so that some of what follows may be older.
    #[n(10)]
    Rewound {
        /// For which subscription.
        #[n(0)]
        subscription: u32,
    },
}

/// How a client introduces itself.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Hello {
    /// The highest version that it speaks.
    #[n(0)]
    pub version: u32,
    /// Its secret, from its credential.
    #[n(1)]
    pub token: Secret,
    /// What it is, for people: a program's name and version.
    #[n(2)]
    pub client: String,
    /// How many aliases it keeps for this session: the node gives numbers below this.
    #[cbor(n(3), default)]
    pub aliases_max: u32,
    /// Instead of a token: the session that it comes to take up.
    #[n(4)]
    pub session: Option<SessionProof>,
    /// Instead of a token: who it is.
    #[n(5)]
    pub login: Option<Login>,
    /// What it says of its session, for those who judge whether it may come in: its user properties.
    #[cbor(n(6), decode_with = "bounded::map", default)]
    pub properties: BTreeMap<String, String>,
    /// How many bytes of values it keeps of what comes, for deltas to build on.
    #[cbor(n(7), default)]
    pub bases_bytes: u64,
    /// Whether it makes out values that come compressed.
    #[cbor(n(8), default)]
    pub compressed: bool,
}

/// Who a client says that it is, and what proves it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Login {
    /// It does not say.
    #[n(0)]
    Anonymous,
    /// A principal, by its password.
    #[n(1)]
    Password {
        /// Its name.
        #[n(0)]
        principal: String,
        /// What proves it.
        #[n(1)]
        password: Secret,
    },
    /// Whoever a signed token names, a JWT.
    #[n(2)]
    Token(#[n(0)] Secret),
}

/// What shows that a client is the one that opened a session.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct SessionProof {
    /// Which.
    #[n(0)]
    pub id: SessionId,
    /// Its secret.
    #[n(1)]
    pub secret: Secret,
}

/// How a node introduces itself.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Welcome {
    /// The version that both use from here.
    #[n(0)]
    pub version: u32,
    /// The session's number on this node.
    #[n(1)]
    pub session: u64,
    /// The node.
    #[n(2)]
    pub node: NodeId,
    /// Its name, for people.
    #[n(3)]
    pub name: String,
    /// Its mesh.
    #[n(4)]
    pub mesh: MeshId,
    /// Its program's version.
    #[n(5)]
    pub program: String,
    /// How many aliases it keeps for this session: the client gives numbers below this.
    #[n(6)]
    pub aliases_max: u32,
    /// How many bytes of values it keeps of what comes, for deltas to build on.
    #[cbor(n(7), default)]
    pub bases_bytes: u64,
    /// Whether it makes out values that come compressed.
    #[cbor(n(8), default)]
    pub compressed: bool,
}

/// What a client asks. Each says which [`Response`] answers it, if it is not refused.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub enum Request {
    /// [`Response::Status`].
    #[n(0)]
    Status,
    /// All nodes of the mesh, itself included: [`Response::Nodes`].
    #[n(1)]
    Nodes,
    /// Make a node's certificate worthless on the whole mesh, for ever: [`Response::Done`]. Needs the role `authority` on the node asked.
    #[n(2)]
    NodeRevoke {
        /// Its name, its id, or enough first digits of its id.
        #[n(0)]
        node: String,
    },
    /// Give this node another name for people: [`Response::Done`].
    #[n(3)]
    NodeRename {
        /// The new name.
        #[n(0)]
        name: String,
    },
    /// Take this node out of its mesh: [`Response::Done`], after which it stops.
    #[n(4)]
    NodeLeave {
        /// Even if it is the last known holder of a section, or has changes that no other node has.
        #[n(0)]
        force: bool,
    },
    /// Links to neighbours: [`Response::Links`].
    #[n(5)]
    Links,
    /// Keep away from a node, or stop doing so: existing links to it are cut, it is not dialled, and its calls are not taken:
    /// [`Response::Done`]. Stands until this node restarts.
    #[n(6)]
    LinkBlock {
        /// As in [`Request::NodeRevoke`].
        #[n(0)]
        node: String,
        /// `false` to allow it again.
        #[n(1)]
        blocked: bool,
    },
    /// Declare a branch as a section: [`Response::Section`].
    #[n(7)]
    SectionAdd {
        /// Its root.
        #[n(0)]
        root: String,
        /// Its policy: `arbitration`, `voters`, `durability`, `retention`, …; what is absent has its default.
        #[cbor(n(1), decode_with = "bounded::map")]
        properties: BTreeMap<String, String>,
    },
    /// All sections of the mesh: [`Response::Sections`].
    #[n(8)]
    Sections,
    /// One section: [`Response::Section`].
    #[n(9)]
    SectionShow {
        /// Its root.
        #[n(0)]
        root: String,
    },
    /// Change what may be changed of a section's policy: [`Response::Section`].
    #[n(10)]
    SectionSet {
        /// Its root.
        #[n(0)]
        root: String,
        /// What to change.
        #[cbor(n(1), decode_with = "bounded::map")]
        properties: BTreeMap<String, String>,
    },
    /// Make the section's topics local again: [`Response::Done`].
    #[n(11)]
    SectionRemove {
        /// Its root.
        #[n(0)]
        root: String,
    },
    /// Hold a section on this node from now on: [`Response::Section`].
    #[n(12)]
    SectionHold {
        /// Its root.
        #[n(0)]
        root: String,
    },
    /// Hold a section on this node no longer, and forget what it holds of it: [`Response::Done`].
    #[n(13)]
    SectionDrop {
        /// Its root.
        #[n(0)]
        root: String,
        /// Even if this is its last known holder.
        #[n(1)]
        force: bool,
    },
    /// Make topics of one definition: [`Response::Added`].
    #[n(14)]
    TopicsAdd {
        /// Their definition.
        #[n(0)]
        topic: TopicSpec,
        /// Their paths.
        #[cbor(n(1), decode_with = "bounded::list")]
        paths: Vec<String>,
    },
    /// Remove all topics that a selector matches now: [`Response::Removed`]. If another session holds any of their branches, all is refused.
    #[n(15)]
    TopicsRemove {
        /// Which.
        #[n(0)]
        selector: String,
        /// Even those of branches that another session holds.
        #[cbor(n(1), default)]
        force: bool,
    },
    /// The definitions of the topics that a selector matches, in order of their paths: [`Response::Topics`].
    #[n(16)]
    Topics {
        /// Which.
        #[n(0)]
        selector: String,
        /// Which part of them.
        #[n(1)]
        page: Page,
        /// Only slaves that wait for their master on this node, instead of all others.
        #[cbor(n(2), default)]
        pending: bool,
    },
    /// Everything about one topic: [`Response::Topic`].
    #[n(17)]
    TopicShow {
        /// Its path.
        #[n(0)]
        path: String,
    },
    /// What has happened at a path, whether there is a topic or not: [`Response::TopicPast`].
    #[n(62)]
    TopicPast {
        /// The path.
        #[n(0)]
        path: String,
    },
    /// Write values: [`Response::Written`], once they are as durable as asked.
    #[n(18)]
    Set(#[n(0)] SetBatch),
    /// The values of the topics that a selector matches, in order of their paths: [`Response::Values`].
    #[n(19)]
    Values {
        /// Which.
        #[n(0)]
        selector: String,
        /// Which part of them.
        #[n(1)]
        page: Page,
    },
    /// Hear of each matching topic, now and from now on: [`Response::Subscribed`], then updates as far as credit goes.
    #[n(20)]
    Subscribe {
        /// Which.
        #[n(0)]
        selector: String,
        /// How many updates may be sent at once.
        #[n(1)]
        credit: u32,
        /// Whether each value shall come with its stamp and time.
        #[n(2)]
        stamps: bool,
        /// What the client has heard of this selector's topics, at this node or another; nothing at first, and `None` if it will not go on elsewhere. If
        /// given, each update says which change it shows, and nothing is sent before the node covers what the client has seen, or has waited for that for
        /// as long as it seems worthwhile ([`FromNode::Rewound`]). Then everything that matches is sent, as at first, but for what the client has heard
        /// completely.
        #[n(3)]
        heard: Option<Box<Heard>>,
    },
    /// Hear no more: [`Response::Done`]. Updates on their way may still arrive before it, none after.
    #[n(21)]
    Unsubscribe {
        /// Which.
        #[n(0)]
        subscription: u32,
    },
    /// Events of a time series, in order: [`Response::Events`].
    #[n(63)]
    Events {
        /// The topic's path.
        #[n(0)]
        path: String,
        /// Which of its events.
        #[n(1)]
        wanted: EventsWanted,
        /// Which part; its `after` is an earlier response's `next`.
        #[n(2)]
        page: Page,
    },
    /// Lines of a paged topic, in order: [`Response::Lines`].
    #[n(64)]
    Lines {
        /// The topic's path.
        #[n(0)]
        path: String,
        /// From which line on; the first is 1.
        #[n(1)]
        from: u64,
        /// How many at most, no more than [`PAGE_MAX`]. There may be fewer in the response, and still more after them.
        #[n(2)]
        count: u32,
    },
    /// What lost to a concurrent write or removal, the first that was written first: [`Response::Displaced`].
    #[n(22)]
    Displaced {
        /// Of which topics.
        #[n(0)]
        selector: String,
        /// Which part; its `after` is an earlier response's `next`.
        #[n(1)]
        page: Page,
    },
    /// One displaced value: [`Response::DisplacedValue`].
    #[n(23)]
    DisplacedShow {
        /// Its id.
        #[n(0)]
        id: String,
    },
    /// Write a displaced value again, as new: [`Response::Done`].
    #[n(24)]
    DisplacedRestore {
        /// Its id.
        #[n(0)]
        id: String,
    },
    /// A ticket with which one node may join: [`Response::Ticket`].
    #[n(25)]
    Invite {
        /// `member` or `authority`.
        #[n(0)]
        role: String,
        /// How long it stays good, in milliseconds.
        #[n(1)]
        ttl_ms: u64,
    },
    /// Renew this node's certificate: [`Response::Renewed`].
    #[n(26)]
    Renew,
    /// The configuration that the node runs with: [`Response::Text`], a JSON object.
    #[n(27)]
    Config,
    /// What the node finds wrong with itself: [`Response::Findings`].
    #[n(28)]
    Doctor,
    /// End the node: [`Response::Done`], after which it stops.
    #[n(29)]
    Shutdown,
    /// Let this session outlive its connection, and be known to the mesh: [`Response::Session`]. Asked again, it changes the timeout.
    #[n(30)]
    SessionOpen {
        /// For how long after the loss of its connection it may be taken up again, in milliseconds; `None` for the node's default. The node may
        /// grant less.
        #[n(0)]
        reconnect_timeout_ms: Option<u64>,
        /// Its user properties: these instead of any before. Keys are not empty, have no spaces, quotes or parentheses, and do not begin with `$`.
        #[cbor(n(1), default)]
        properties: BTreeMap<String, String>,
    },
    /// Take up, on this connection, a session whose connection was lost, at whatever node that was: [`Response::Session`]. A connection that
    /// still has it is closed, as soon as its node hears of this.
    #[n(31)]
    SessionResume {
        /// Which.
        #[n(0)]
        id: SessionId,
        /// Its secret.
        #[n(1)]
        secret: Secret,
        /// The epoch that its client was told last; 0 if it does not know. The node takes it up under a greater one, so that it also beats those of which it
        /// has not heard yet.
        #[cbor(n(2), default)]
        epoch: u32,
    },
    /// End the session for good, with all its claims: [`Response::Done`]. The connection stays, as a new session.
    #[n(32)]
    SessionClose,
    /// Want to be the update source of a branch: [`Response::Claimed`], then [`FromNode::Source`] whenever its state changes. Opens the session
    /// to the mesh, if [`Request::SessionOpen`] has not.
    #[n(33)]
    SourceClaim {
        /// The branch: a topic's path, and all paths below it.
        #[n(0)]
        branch: String,
        /// Greater goes first in the queue.
        #[n(1)]
        priority: i32,
        /// Whether to wait where another source holds the branch; otherwise that is refused.
        #[n(2)]
        wait: bool,
        /// For how long the source stays active after the loss of the connection, in milliseconds; `None` for the node's default.
        #[n(3)]
        hold_ms: Option<u64>,
    },
    /// Be the update source no more, or wish it no more: [`Response::Done`].
    #[n(34)]
    SourceClose {
        /// Which.
        #[n(0)]
        source: u32,
    },
    /// The branches that are claimed or were, in order: [`Response::Sources`].
    #[n(35)]
    Sources {
        /// Which part of them.
        #[n(0)]
        page: Page,
    },
    /// One branch, with its whole queue: [`Response::Source`].
    #[n(36)]
    SourceShow {
        /// The branch.
        #[n(0)]
        branch: String,
    },
    /// The sessions of the mesh that outlive their connections, in order of their ids: [`Response::Sessions`].
    #[n(37)]
    Sessions {
        /// Which part of them.
        #[n(0)]
        page: Page,
        /// Which of them: a filter over their properties; empty for all.
        #[cbor(n(1), default)]
        filter: String,
    },
    /// One of them, with what it has claimed: [`Response::SessionDetail`].
    #[n(38)]
    SessionShow {
        /// Its id, or enough first digits of it.
        #[n(0)]
        session: String,
    },
    /// Hear of all sessions that a filter means, now and from now on: [`Response::Listening`], then [`FromNode::Sessions`]. What it has once meant is heard of to its
    /// end.
    #[n(40)]
    SessionsListen {
        /// A filter over their properties; empty for all.
        #[n(0)]
        filter: String,
    },
    /// Hear of sessions no more: [`Response::Done`].
    #[n(41)]
    SessionsUnlisten {
        /// By which request.
        #[n(0)]
        listener: u32,
    },
    /// Set or remove user properties of sessions, wherever their clients are: [`Response::Affected`]. They override what those say of themselves.
    #[n(42)]
    SessionSet {
        /// One, as in [`Request::SessionShow`], or a filter over their properties.
        #[n(0)]
        session: String,
        /// Each property's value, or that it shall have none.
        #[n(1)]
        properties: BTreeMap<String, Option<String>>,
    },
    /// Give sessions other roles than those that they came with, wherever their clients are: [`Response::Affected`].
    #[n(43)]
    SessionRoles {
        /// As in [`Request::SessionSet`].
        #[n(0)]
        session: String,
        /// Its roles from now on; `None` for those that it came with.
        #[cbor(n(1), decode_with = "bounded::list_if_any")]
        roles: Option<Vec<String>>,
    },
    /// Where nodes of the mesh can be reached: [`Response::Addresses`].
    #[n(44)]
    Addresses,
    /// Everything that is said of who may do what: [`Response::Access`].
    #[n(45)]
    Access {
        /// Only of this role or principal, as in `role NAME` or `principal NAME`; empty for all.
        #[n(0)]
        about: String,
        /// Which part of it.
        #[n(1)]
        page: Page,
    },
    /// Change who may do what, as a whole or not at all: [`Response::AccessChanged`].
    #[n(46)]
    AccessScript {
        /// Statements, one a line.
        #[n(0)]
        script: String,
        /// Only say what would change.
        #[n(1)]
        dry_run: bool,
    },
    /// What somebody may do at a path, and why: [`Response::AccessWhy`].
    #[n(47)]
    AccessWhy {
        /// A principal, `$anonymous`, or a session's id.
        #[n(0)]
        who: String,
        /// Where.
        #[n(1)]
        path: String,
    },
    /// The principals of the store, in order: [`Response::Principals`].
    #[n(48)]
    Principals {
        /// Which part of them.
        #[n(0)]
        page: Page,
    },
    /// The roles of which anything is said, in order: [`Response::Roles`].
    #[n(49)]
    Roles,
    /// Prove anew who the session is of, so that it does not expire: [`Response::Done`].
    #[n(50)]
    Reauthenticate(#[n(0)] Login),
    /// Judge logins from now on, for all nodes whose configuration names this handler: [`Response::Done`], then [`FromNode::Judge`] for each. Opens the session to the
    /// mesh, if [`Request::SessionOpen`] has not.
    #[n(51)]
    HandlerRegister {
        /// The handler's name.
        #[n(0)]
        name: String,
    },
    /// Judge logins no more under a name: [`Response::Done`].
    #[n(52)]
    HandlerUnregister {
        /// The handler's name.
        #[n(0)]
        name: String,
    },
    /// Be told from now on when somebody anywhere asks for topics at or below a path of which there are none: [`Response::Done`], then [`FromNode::Missing`]. Of several
    /// paths the longest counts, of several sessions one is told. Opens the session to the mesh, if [`Request::SessionOpen`] has not.
    #[n(56)]
    MissingRegister {
        /// The path; empty for all.
        #[n(0)]
        prefix: String,
    },
    /// Be told no more: [`Response::Done`].
    #[n(57)]
    MissingUnregister {
        /// The path.
        #[n(0)]
        prefix: String,
    },
    /// What a handler says of a login: [`Response::Done`], were it too late.
    #[n(53)]
    Judged {
        /// Which: the number of [`FromNode::Judge`].
        #[n(0)]
        question: u64,
        /// What it says.
        #[n(1)]
        verdict: Verdict,
    },
    /// Let sessions subscribe to a selector, or not any more, wherever their clients are: [`Response::Affected`]. Those are told so ([`FromNode::Select`]), now or when they
    /// are back, and see of it what they may see.
    #[n(54)]
    SessionSelect {
        /// As in [`Request::SessionSet`].
        #[n(0)]
        session: String,
        /// To what.
        #[n(1)]
        selector: String,
        /// Whether to, or not any more.
        #[n(2)]
        selected: bool,
    },
    /// Do something once, however often it is asked for, here or at another node that the session goes to: what answers the request itself. Only for what
    /// writes ([`Request::writes`]).
    #[n(55)]
    Once {
        /// The client's number for it: greater than any before.
        #[n(0)]
        number: u64,
        /// The client has heard the answers to everything below this.
        #[n(1)]
        floor: u64,
        /// What.
        #[n(2)]
        request: Box<Request>,
    },
    /// Change one topic's value if something is so: [`Response::Changed`], once that is as durable as asked. Needs the permission to read the topic as well.
    #[n(58)]
    Change(#[n(0)] Box<Change>),
    /// Send a message: [`Response::Sent`].
    #[n(59)]
    Send(#[n(0)] Box<Send>),
    /// Bring a piece of a blob: [`Response::BlobPut`]. One blob at a time on a connection; a piece at 0 begins one, and ends another that is not complete.
    #[n(60)]
    BlobPut {
        /// Its name.
        #[n(0)]
        hash: BlobHash,
        /// How many bytes come before these.
        #[n(1)]
        offset: u64,
        /// How many bytes it has.
        #[n(2)]
        total: u64,
        /// Some of them, at most [`BLOB_PIECE_MAX`].
        #[cbor(n(3), with = "minicbor::bytes")]
        bytes: Vec<u8>,
    },
    /// A piece of a blob: [`Response::Blob`].
    #[n(61)]
    BlobGet {
        /// Its name.
        #[n(0)]
        hash: BlobHash,
        /// How many bytes are to be left out.
        #[n(1)]
        offset: u64,
    },
    /// End sessions for good, wherever their clients are: [`Response::Affected`]. Nothing brings them back; their nodes obey once they hear of it.
    #[n(39)]
    SessionEnd {
        /// As in [`Request::SessionSet`].
        #[n(0)]
        session: String,
    },
}

/// A node's answer.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub enum Response {
    /// Nothing was done, or (for lists) as far as the response's own fields say.
    #[n(0)]
    Refused(#[n(0)] Refusal),
    /// It is done.
    #[n(1)]
    Done,
    /// To [`Request::Status`].
    #[n(2)]
    Status(#[n(0)] Box<Status>),
    /// To [`Request::Nodes`].
    #[n(3)]
    Nodes(#[cbor(n(0), decode_with = "bounded::list")] Vec<NodeRow>),
    /// To [`Request::Links`].
    #[n(4)]
    Links(#[cbor(n(0), decode_with = "bounded::list")] Vec<LinkRow>),
    /// To requests for one section: how it is afterwards.
    #[n(5)]
    Section(#[n(0)] Box<SectionRow>),
    /// To [`Request::Sections`].
    #[n(6)]
    Sections(#[cbor(n(0), decode_with = "bounded::list")] Vec<SectionRow>),
    /// To [`Request::TopicsAdd`].
    #[n(7)]
    Added {
        /// How many topics were made.
        #[n(0)]
        created: u64,
        /// How many were there, with the same definition.
        #[n(1)]
        existed: u64,
        /// Which were refused.
        #[cbor(n(2), decode_with = "bounded::list")]
        refused: Vec<ItemRefusal>,
    },
    /// To [`Request::TopicsRemove`].
    #[n(8)]
    Removed {
        /// How many topics were removed.
        #[n(0)]
        topics: u64,
    },
    /// To [`Request::Topics`].
    #[n(9)]
    Topics {
        /// A page of them.
        #[cbor(n(0), decode_with = "bounded::list")]
        rows: Vec<TopicRow>,
        /// Where the next page starts, if there is one: its [`Page::after`].
        #[n(1)]
        next: Option<String>,
    },
    /// To [`Request::TopicShow`].
    #[n(10)]
    Topic(#[n(0)] Box<TopicDetail>),
    /// To [`Request::TopicPast`].
    #[n(38)]
    TopicPast {
        /// Who made and removed topics there, the newest last.
        #[cbor(n(0), decode_with = "bounded::list")]
        rows: Vec<PastRow>,
        /// Whether more has happened before that.
        #[n(1)]
        cut: bool,
    },
    /// To [`Request::Set`].
    #[n(11)]
    Written {
        /// How many items were written.
        #[n(0)]
        written: u64,
        /// How many topics were made for it.
        #[n(1)]
        created: u64,
        /// Which items were refused.
        #[cbor(n(2), decode_with = "bounded::list")]
        refused: Vec<ItemRefusal>,
    },
    /// To [`Request::Change`]: it is done.
    #[n(34)]
    Changed {
        /// Whether the topic was made for it.
        #[n(0)]
        created: bool,
        /// Whether what must have been so was so without any doubt: the topic is the node's alone. Otherwise it was as far as this node knew: somebody may have written
        /// elsewhere at the same time, or, where only sources write, before this one, and it has not come here yet.
        #[n(1)]
        exact: bool,
        /// The name of the event that it is now, if the topic is a time series.
        #[n(2)]
        event: Option<String>,
        /// What the list has come to, if the topic is a paged one.
        #[n(3)]
        list: Option<ListState>,
    },
    /// To [`Request::Lines`].
    #[n(40)]
    Lines {
        /// Some of them; none behind the last.
        #[cbor(n(0), decode_with = "bounded::list")]
        lines: Vec<String>,
        /// What the list had come to when they were read.
        #[n(1)]
        list: ListState,
    },
    /// To [`Request::Events`].
    #[n(39)]
    Events {
        /// A page of them.
        #[cbor(n(0), decode_with = "bounded::list")]
        rows: Vec<EventRow>,
        /// Where the next page starts, if there is one: its [`Page::after`].
        #[n(1)]
        next: Option<String>,
    },
    /// To [`Request::Send`]: it is on its way. It is not known whether it arrives.
    #[n(35)]
    Sent {
        /// How many of this node's clients it was handed to.
        #[n(0)]
        sessions: u64,
    },
    /// To [`Request::BlobPut`]: how much of it is here. Whatever comes next is to begin there.
    #[n(36)]
    BlobPut {
        /// How many bytes; all of them if the blob was here already, or is now.
        #[n(0)]
        upto: u64,
    },
    /// To [`Request::BlobGet`].
    #[n(37)]
    Blob {
        /// How many bytes it has.
        #[n(0)]
        total: u64,
        /// The bytes from there on, at most [`BLOB_PIECE_MAX`].
        #[cbor(n(1), with = "minicbor::bytes")]
        bytes: Vec<u8>,
    },
    /// To [`Request::Values`].
    #[n(12)]
    Values {
        /// A page of them.
        #[cbor(n(0), decode_with = "bounded::list")]
        rows: Vec<ValueRow>,
        /// Where the next page starts, if there is one: its [`Page::after`].
        #[n(1)]
        next: Option<String>,
    },
    /// To [`Request::Subscribe`].
    #[n(13)]
    Subscribed {
        /// The number by which updates name it.
        #[n(0)]
        subscription: u32,
    },
    /// To [`Request::Displaced`].
    #[n(14)]
    Displaced {
        /// A page of them.
        #[cbor(n(0), decode_with = "bounded::list")]
        rows: Vec<DisplacedRow>,
        /// Where the next page starts, if there is one: its [`Page::after`].
        #[n(1)]
        next: Option<String>,
    },
    /// To [`Request::DisplacedShow`].
    #[n(15)]
    DisplacedValue {
        /// The entry.
        #[n(0)]
        row: Box<DisplacedRow>,
        /// What was displaced: bytes of the topic's type.
        #[cbor(n(1), with = "minicbor::bytes")]
        value: Vec<u8>,
    },
    /// To [`Request::Invite`].
    #[n(16)]
    Ticket {
        /// What to give to `mangrove join`. A secret.
        #[n(0)]
        ticket: String,
        /// When it stops being good, in milliseconds since 1970.
        #[n(1)]
        expires_unix_ms: u64,
    },
    /// To [`Request::Renew`].
    #[n(17)]
    Renewed {
        /// When the new certificate expires, in milliseconds since 1970.
        #[n(0)]
        expires_unix_ms: u64,
    },
    /// To [`Request::Config`].
    #[n(18)]
    Text(#[n(0)] String),
    /// To [`Request::Doctor`].
    #[n(19)]
    Findings(#[cbor(n(0), decode_with = "bounded::list")] Vec<Finding>),
    /// To [`Request::SessionOpen`] and [`Request::SessionResume`].
    #[n(20)]
    Session(#[n(0)] Box<OpenSession>),
    /// To [`Request::SourceClaim`].
    #[n(21)]
    Claimed {
        /// The number by which the session names it from now on.
        #[n(0)]
        source: u32,
    },
    /// To [`Request::Sources`].
    #[n(22)]
    Sources {
        /// A page of them.
        #[cbor(n(0), decode_with = "bounded::list")]
        rows: Vec<SourceRow>,
        /// Where the next page starts, if there is one: its [`Page::after`].
        #[n(1)]
        next: Option<String>,
    },
    /// To [`Request::SourceShow`].
    #[n(23)]
    Source(#[n(0)] Box<SourceDetail>),
    /// To [`Request::Sessions`].
    #[n(24)]
    Sessions {
        /// A page of them.
        #[cbor(n(0), decode_with = "bounded::list")]
        rows: Vec<SessionRow>,
        /// Where the next page starts, if there is one: its [`Page::after`].
        #[n(1)]
        next: Option<String>,
    },
    /// To [`Request::SessionShow`].
    #[n(25)]
    SessionDetail(#[n(0)] Box<SessionDetail>),
    /// To [`Request::SessionsListen`].
    #[n(26)]
    Listening {
        /// Its number from now on.
        #[n(0)]
        listener: u32,
    },
    /// To [`Request::Addresses`].
    #[n(27)]
    Addresses(#[cbor(n(0), decode_with = "bounded::list")] Vec<String>),
    /// To [`Request::Access`].
    #[n(28)]
    Access {
        /// A page of the statements that would say it again, but for passwords' hashes.
        #[cbor(n(0), decode_with = "bounded::list")]
        statements: Vec<String>,
        /// Where the next page starts, if there is one: its [`Page::after`].
        #[n(1)]
        next: Option<String>,
        /// What is in conflict; on the first page only.
        #[cbor(n(2), decode_with = "bounded::list")]
        conflicts: Vec<ConflictRow>,
    },
    /// To [`Request::AccessScript`].
    #[n(29)]
    AccessChanged(#[cbor(n(0), decode_with = "bounded::list")] Vec<ChangeRow>),
    /// To [`Request::AccessWhy`].
    #[n(30)]
    AccessWhy(#[n(0)] Box<WhyReport>),
    /// To [`Request::Principals`].
    #[n(31)]
    Principals {
        /// A page of them.
        #[cbor(n(0), decode_with = "bounded::list")]
        rows: Vec<PrincipalRow>,
        /// Where the next page starts, if there is one: its [`Page::after`].
        #[n(1)]
        next: Option<String>,
    },
    /// To requests that change sessions.
    #[n(33)]
    Affected {
        /// How many.
        #[n(0)]
        sessions: u64,
    },
    /// To [`Request::Roles`].
    #[n(32)]
    Roles(#[cbor(n(0), decode_with = "bounded::list")] Vec<RoleRow>),
}

// ---------------------------------------------------------------------------------------------------------------------
// Parts of requests

/// A topic's definition, as people write it: so that a client can show, and a script can ask for, types that it doesn't know.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize)]
pub struct TopicSpec {
    /// `json`, `binary`, `string`, `int64`, `double`, …
    #[n(0)]
    #[serde(rename = "type")]
    pub topic_type: String,
    /// Its properties by name, without those that have their default.
    #[cbor(n(1), decode_with = "bounded::map")]
    pub properties: BTreeMap<String, String>,
}

impl TopicSpec {
    /// The definition that it spells.
    ///
    /// # Errors
    /// It spells none.
    pub fn definition(&self) -> Result<Definition, DefinitionError> {
        let properties: Vec<(&String, &String)> = self.properties.iter().collect();
        Definition::parse(&self.topic_type, &properties)
    }

    /// A type with all properties at their defaults.
    pub fn of(topic_type: impl Into<String>) -> Self {
        TopicSpec { topic_type: topic_type.into(), properties: BTreeMap::new() }
    }
}

/// Which part of a long list.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Page {
    /// What comes after this: `None` at first, then the `next` of the response before.
    #[n(0)]
    pub after: Option<String>,
    /// At most so many rows, at most [`PAGE_MAX`]. A page may be shorter, and still have a next.
    #[n(1)]
    pub limit: u32,
}

impl Request {
    /// Whether it can be asked for [`Request::Once`].
    pub fn writes(&self) -> bool {
        matches!(
            self,
            Request::Set(_)
                | Request::Change(_)
                | Request::TopicsRemove { .. }
                | Request::DisplacedRestore { .. }
                | Request::SessionEnd { .. }
                | Request::SessionSet { .. }
                | Request::SessionRoles { .. }
                | Request::SessionSelect { .. }
                | Request::AccessScript { .. }
        )
    }
}

impl Default for Page {
    fn default() -> Self {
        Page { after: None, limit: PAGE_MAX }
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// Parts of responses

/// A change of a subscribed topic.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Update {
    /// For which subscription.
    #[n(0)]
    pub subscription: u32,
    /// Of which topic.
    #[n(1)]
    pub topic: Target,
    /// What happened.
    #[n(2)]
    pub event: Event,
    /// Which change made it so: a topic's creation, or a value. Only where asked for.
    #[n(3)]
    pub mark: Option<Mark>,
}

/// What happened to a subscribed topic.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub enum Event {
    /// It is there and matches. Comes before its first value, and again when it has been made anew.
    #[n(0)]
    Added {
        /// Its definition.
        #[n(0)]
        topic: TopicSpec,
    },
    /// Its newest value; earlier ones may have been skipped.
    #[n(1)]
    Value {
        /// Bytes of the topic's type.
        #[cbor(n(0), with = "deltas::shared_bytes")]
        value: Arc<[u8]>,
        /// When it was written, in milliseconds since 1970 by its writer's clock; for people only. Only where asked for.
        #[n(1)]
        unix_ms: Option<u64>,
        /// Its stamp. Only where asked for.
        #[n(2)]
        stamp: Option<String>,
        /// What the bytes are while they are on the way; `None` for the value itself, as everybody but [`Shrink`] and [`Restore`] sees it.
        #[n(3)]
        form: Option<Form>,
        /// What may be done with it for the way. The node knows; it is not told.
        #[cbor(skip)]
        allowed: Allowed,
        /// How many values before it were skipped that should not have been (`conflate=off`), since the client was too slow for them.
        #[n(4)]
        missed: Option<u64>,
        /// Which event it is and of whom, if the topic is a time series: the value is that event's then, and each that the node sees is told.
        #[n(5)]
        event: Option<Box<EventMark>>,
    },
    /// Somebody has sent a message to whoever listens to it.
    #[n(3)]
    Message(#[n(0)] Box<Message>),
    /// It is there no more, or not to be seen any more.
    #[n(2)]
    Removed {
        /// Why.
        #[n(0)]
        reason: Gone,
    },
}

/// Why a subscribed topic is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(index_only)]
#[serde(rename_all = "kebab-case")]
pub enum Gone {
    /// Somebody removed it.
    #[n(0)]
    Removed,
    /// This node no longer holds its section.
    #[n(1)]
    Dropped,
    /// The session may no longer read it.
    #[n(2)]
    NotPermitted,
}

/// Collections that refuse to grow over a limit while they are decoded, whatever length their header claims.
mod bounded {
    use super::*;

    pub(super) fn list<'b, C, T: Decode<'b, C>>(d: &mut Decoder<'b>, context: &mut C) -> Result<Vec<T>, minicbor::decode::Error> {
        let at = d.position();
        let announced = d.array()?;
        if announced.is_some_and(|length| length > ITEMS_MAX as u64) {
            return Err(minicbor::decode::Error::message("list over its limit").at(at));
        }
        let mut items = Vec::new();
        while more(d, announced, items.len())? {
            if items.len() == ITEMS_MAX {
                return Err(minicbor::decode::Error::message("list over its limit").at(at));
            }
            items.push(T::decode(d, context)?);
        }
        Ok(items)
    }

    pub(super) fn list_if_any<'b, C, T: Decode<'b, C>>(
        d: &mut Decoder<'b>,
        context: &mut C,
    ) -> Result<Option<Vec<T>>, minicbor::decode::Error> {
        match d.datatype()? {
            Type::Null => d.null().map(|()| None),
            _ => list(d, context).map(Some),
        }
    }

    pub(super) fn map<'b, C>(d: &mut Decoder<'b>, _: &mut C) -> Result<BTreeMap<String, String>, minicbor::decode::Error> {
        let at = d.position();
        let announced = d.map()?;
        let mut entries = BTreeMap::new();
        let mut count = 0;
        while more(d, announced, count)? {
            if count == PROPERTIES_MAX {
                return Err(minicbor::decode::Error::message("map over its limit").at(at));
            }
            entries.insert(d.str()?.to_owned(), d.str()?.to_owned());
            count += 1;
        }
        Ok(entries)
    }

    /// Whether another item follows; takes the end mark of a collection of unannounced length.
    fn more(d: &mut Decoder<'_>, announced: Option<u64>, taken: usize) -> Result<bool, minicbor::decode::Error> {
        match announced {
            Some(length) => Ok((taken as u64) < length),
            None if d.datatype()? == Type::Break => {
                d.skip()?;
                Ok(false)
            }
            None => Ok(true),
        }
    }
}

/// A durability as its number of disks.
mod disks {
    use super::*;

    pub(super) fn encode<C, W: minicbor::encode::Write>(
        durability: &Option<Durability>,
        e: &mut Encoder<W>,
        context: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        durability.map(Durability::disks).encode(e, context)
    }

    pub(super) fn decode<'b, C>(d: &mut Decoder<'b>, context: &mut C) -> Result<Option<Durability>, minicbor::decode::Error> {
        let at = d.position();
        let Some(disks) = Option::<u8>::decode(d, context)? else { return Ok(None) };
        match Durability::from_disks(disks.into()) {
            Some(durability) => Ok(Some(durability)),
            None => Err(minicbor::decode::Error::message("durability over its limit").at(at)),
        }
    }
}
