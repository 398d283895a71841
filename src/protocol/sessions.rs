//! What there is to see of sessions.

use std::{collections::BTreeMap, fmt, net::IpAddr};

use mangrove_crdt::id::{NodeId, SessionId};
use minicbor::{Decode, Encode};
use serde::Serialize;

use super::bounded;

/// A session that outlives its connection.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct SessionRow {
    /// Its name on the mesh.
    #[n(0)]
    pub session: SessionId,
    /// The name of its node, or the first digits of its id.
    #[n(1)]
    pub node: String,
    /// How it is, as far as the node asked can know.
    #[n(2)]
    pub state: SessionState,
    /// How often it has been opened or taken up.
    #[n(3)]
    pub epoch: u32,
    /// How many branches it has claimed, of those that the node asked knows.
    #[n(4)]
    pub claims: u64,
    /// For how long after the loss of its connection it may be taken up again, in milliseconds.
    #[n(5)]
    pub reconnect_timeout_ms: u64,
    /// When it was opened, in milliseconds since 1970 by its first node's clock; for people.
    #[n(6)]
    pub opened_unix_ms: u64,
    /// What its client says that it is.
    #[n(7)]
    pub client: String,
    /// Its node.
    #[cbor(n(8), default)]
    pub home: NodeId,
    /// Its user properties.
    #[cbor(n(9), default)]
    pub properties: BTreeMap<String, String>,
    /// Whose it is: a principal, `$anonymous`, or `$operator` for whoever has a node's own credential.
    #[cbor(n(10), default)]
    pub principal: String,
    /// Its roles, without those that they include.
    #[cbor(n(11), decode_with = "bounded::list", default)]
    pub roles: Vec<String>,
    /// Until when it may go on without proving anew who it is, in milliseconds since 1970.
    #[n(12)]
    pub expires_unix_ms: Option<u64>,
    /// By which transport its client has come to its node; empty where that is not known.
    #[cbor(n(13), default)]
    pub transport: String,
    /// From where, as its node sees it.
    #[n(14)]
    pub address: Option<IpAddr>,
}

/// How a session is, as far as the node asked has heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(index_only)]
#[serde(rename_all = "kebab-case")]
pub enum SessionState {
    /// Its client is connected to its node.
    #[n(0)]
    Connected,
    /// Its node has lost its client, and waits for it.
    #[n(1)]
    Disconnected,
    /// Nothing has been heard of its node for longer than the lease.
    #[n(3)]
    OutOfReach,
    /// Its client has not come back to its node in time, or its node has been out of reach for as long: its claims count no more. It may yet have been taken up where
    /// nobody has heard of that.
    #[n(4)]
    PresumedClosed,
}

impl fmt::Display for SessionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SessionState::Connected => "connected",
            SessionState::Disconnected => "disconnected",
            SessionState::OutOfReach => "out-of-reach",
            SessionState::PresumedClosed => "presumed-closed",
        })
    }
}

/// One session, as one node sees it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct SessionDetail {
    /// Itself.
    #[n(0)]
    #[serde(flatten)]
    pub row: SessionRow,
    /// What it has claimed, in order of the branches; at most [`super::ITEMS_MAX`].
    #[cbor(n(1), decode_with = "bounded::list")]
    pub branches: Vec<Claimed>,
}

/// A branch that a session has claimed.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct Claimed {
    /// The branch.
    #[n(0)]
    pub branch: String,
    /// Whether the session holds it; otherwise it waits.
    #[n(1)]
    pub holds: bool,
}

/// What a listener hears of a session.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum SessionNews {
    /// It is like this.
    #[n(0)]
    Is(#[n(0)] Box<SessionRow>),
    /// It has ended for good.
    #[n(1)]
    Ended {
        /// Which.
        #[n(0)]
        session: SessionId,
        /// Why.
        #[n(1)]
        reason: Ended,
    },
}

/// Why a session has ended for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(index_only)]
#[serde(rename_all = "kebab-case")]
pub enum Ended {
    /// Its client wanted it.
    #[n(0)]
    ByClient,
    /// Somebody else did who may.
    #[n(1)]
    ByController,
    /// Its client lost its connection and did not come back in time.
    #[n(2)]
    ConnectionLost,
    /// Its node has left the mesh, was revoked, or has been silent for very long.
    #[n(3)]
    NodeGone,
    /// This version does not know the reason, or it was forgotten.
    #[n(4)]
    Unknown,
    /// Its principal was removed.
    #[n(5)]
    Revoked,
    /// The time is over for which its principal was let in.
    #[n(6)]
    Expired,
}

impl Ended {
    const ALL: [Ended; 7] =
        [Ended::ByClient, Ended::ByController, Ended::ConnectionLost, Ended::NodeGone, Ended::Revoked, Ended::Expired, Ended::Unknown];

    /// The stable name.
    pub fn as_str(self) -> &'static str {
        match self {
            Ended::ByClient => "by-client",
            Ended::ByController => "by-controller",
            Ended::ConnectionLost => "connection-lost",
            Ended::NodeGone => "node-gone",
            Ended::Revoked => "revoked",
            Ended::Expired => "expired",
            Ended::Unknown => "unknown",
        }
    }

    /// The reason of a name.
    pub fn of_name(name: &str) -> Self {
        Self::ALL.into_iter().find(|reason| reason.as_str() == name).unwrap_or(Ended::Unknown)
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
