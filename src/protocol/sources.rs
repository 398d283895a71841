//! Sessions that outlive their connection, and update sources.

use std::fmt;

use mangrove_crdt::id::SessionId;
use minicbor::{Decode, Encode};
use serde::Serialize;

use super::{Secret, bounded};

/// A session that may be taken up again.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct OpenSession {
    /// Its name on the mesh.
    #[n(0)]
    pub id: SessionId,
    /// What proves that a client is the one that opened it; empty in the answer to a resumption, where the client has it.
    #[n(1)]
    pub secret: Secret,
    /// For how long after the loss of its connection it may be taken up again, in milliseconds.
    #[n(2)]
    pub reconnect_timeout_ms: u64,
    /// Its sources, as they are now.
    #[cbor(n(3), decode_with = "bounded::list")]
    pub sources: Vec<OwnSource>,
    /// How often it has been opened or taken up: what [`super::Request::SessionResume`] asks for.
    #[cbor(n(4), default)]
    pub epoch: u32,
}

/// A source of the session that is told of it.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct OwnSource {
    /// Its number in the session.
    #[n(0)]
    pub source: u32,
    /// Its branch.
    #[n(1)]
    pub branch: String,
    /// How it is.
    #[n(2)]
    pub state: SourceState,
}

/// How a source is: `Init → Active ⇄ Standby → Closed`.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum SourceState {
    /// It is claimed, and nothing is decided yet.
    #[n(0)]
    Init,
    /// It may write, and nobody else.
    #[n(1)]
    Active {
        /// The epoch of its writes.
        #[n(0)]
        epoch: u64,
    },
    /// Another one may. Whatever was handed out under an epoch before is refused.
    #[n(2)]
    Standby {
        /// The present epoch of the branch, as far as is known.
        #[n(0)]
        epoch: u64,
        /// Who holds the branch, if anybody does: a session and its node.
        #[n(1)]
        holder: Option<String>,
        /// Why, as the end of a sentence.
        #[n(2)]
        why: String,
    },
    /// It is over; nothing more is heard of it.
    #[n(3)]
    Closed {
        /// Why.
        #[n(0)]
        reason: Closed,
        /// The same in words, with who stands in the way.
        #[n(1)]
        why: String,
    },
}

impl fmt::Display for SourceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SourceState::Init => f.write_str("init"),
            SourceState::Active { epoch } => write!(f, "active, epoch {epoch}"),
            SourceState::Standby { epoch, why, .. } => write!(f, "standby, epoch {epoch}: {why}"),
            SourceState::Closed { reason, why } => write!(f, "closed, {reason}: {why}"),
        }
    }
}

/// Why a source was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(index_only)]
#[serde(rename_all = "kebab-case")]
pub enum Closed {
    /// Its session wanted it.
    #[n(0)]
    Released,
    /// Its session has ended.
    #[n(1)]
    SessionClosed,
    /// A branch above or below it was claimed before, on the other side of a split.
    #[n(2)]
    Conflict,
    /// The session may not have it any more.
    #[n(3)]
    NotPermitted,
    /// Its section was removed, or given up here.
    #[n(4)]
    Removed,
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Closed::Released => "released",
            Closed::SessionClosed => "session-closed",
            Closed::Conflict => "conflict",
            Closed::NotPermitted => "not-permitted",
            Closed::Removed => "removed",
        })
    }
}

/// A branch that is claimed, or was. The same on every node once it has heard everything.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct SourceRow {
    /// The branch.
    #[n(0)]
    pub branch: String,
    /// The root of its section; `None` where it is local to the node.
    #[n(1)]
    pub section: Option<String>,
    /// The epoch of its newest grant, or of its release.
    #[n(2)]
    pub epoch: u64,
    /// Who holds it, if anybody does.
    #[n(3)]
    pub holder: Option<Claim>,
    /// How many wait for it.
    #[n(4)]
    pub waiting: u32,
}

/// A session's wish to be the source of a branch.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct Claim {
    /// The session.
    #[n(0)]
    pub session: SessionId,
    /// The name of its node, or the first digits of its id.
    #[n(1)]
    pub node: String,
    /// Greater goes first.
    #[n(2)]
    pub priority: i32,
    /// When it was registered, by its section's logical clock: among equals the least goes first.
    #[n(3)]
    pub registered: u64,
    /// Whether its session has been without a connection for longer than it may hold a branch: then it is passed over.
    #[n(4)]
    pub away: bool,
}

/// Everything about one branch, as one node sees it.
#[derive(Debug, Clone, PartialEq, Encode, Decode, Serialize)]
pub struct SourceDetail {
    /// What all nodes agree on.
    #[n(0)]
    #[serde(flatten)]
    pub row: SourceRow,
    /// All who want it, the next first; the holder among them.
    #[cbor(n(1), decode_with = "bounded::list")]
    pub queue: Vec<Claim>,
    /// `available` or `quorum`.
    #[n(2)]
    pub arbitration: String,
    /// For how long the holder is known to live if nothing more is heard of its node, in milliseconds; `None` if nobody holds it.
    #[n(3)]
    pub lease_left_ms: Option<u64>,
    /// In a section arbitrated by quorum, its voters as the node sees them.
    #[cbor(n(4), decode_with = "bounded::list", default)]
    pub voters: Vec<VoterRow>,
}

/// A voter of a quorum section, as one node sees it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct VoterRow {
    /// The name of its node, or the first digits of its own id where no node is known to be it any more.
    #[n(0)]
    pub node: String,
    /// Whether its node was heard of lately.
    #[n(1)]
    pub heard: bool,
    /// Whether it has accepted the branch's holder; told by the holder's own node only.
    #[n(2)]
    pub holds: Option<bool>,
}
