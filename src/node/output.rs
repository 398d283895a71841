//! What the node wants done.

use std::vec;

use mangrove_crdt::{id::NodeId, persist::Row};
use mangrove_net::link::LinkId;

use super::{input::ConnectionId, logins::Verify};
use crate::protocol::{FromNode, Refusal};

/// Something to be done outside, in the order in which it comes.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Store these rows, all or none, and tell [`super::input::Input::Persisted`].
    Persist {
        /// The rows.
        rows: Vec<Row>,
        /// The batch's name; rises by one.
        mark: u64,
        /// Whether somebody waits for it to be on the disk. Otherwise it may be written with later ones.
        sync: bool,
    },
    /// Send this to a client.
    Send {
        /// Whom.
        session: ConnectionId,
        /// What.
        message: FromNode,
    },
    /// Find out whether a client is who it says, and say so: [`super::Input::Verified`].
    Verify {
        /// Which client.
        session: ConnectionId,
        /// What is to be found out.
        verify: Verify,
    },
    /// A client is let in, or not.
    Judged {
        /// Which.
        session: ConnectionId,
        /// Why not.
        result: Result<(), Refusal>,
    },
    /// Close a link.
    Hangup {
        /// Which.
        link: LinkId,
        /// Why.
        why: Parting,
        /// The same in words, for the peer and the log.
        reason: String,
    },
    /// Keep trying to be linked to exactly these: dial those that are not, stop dialling others.
    Dial(Vec<Target>),
    /// Who belongs to the mesh and who was revoked. Connections from the revoked are not taken any more, nor from those whom they certify
    /// from now on.
    Trust {
        /// The members, each with the id of its authority key, if it has one.
        nodes: Vec<(NodeId, Option<[u8; 32]>)>,
        /// The revoked.
        revoked: Vec<Revoked>,
    },
    /// Stop.
    Stop {
        /// Whether this node has left its mesh, so that it must not start again.
        left: bool,
    },
}

/// Why a link is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parting {
    /// The peer broke the protocol.
    Violation,
    /// The link is not needed: there is another one to this peer, or the peer is this node itself.
    Superseded,
    /// The link is not needed: neither node has the other for a neighbour.
    Surplus,
    /// An operator keeps the two nodes apart.
    Blocked,
    /// The peer was revoked.
    Revoked,
}

/// A node that was revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revoked {
    /// Which.
    pub node: NodeId,
    /// The id of its authority key, if it has one.
    pub authority: Option<[u8; 32]>,
    /// What it is told if it comes: by whom it was revoked, and why.
    pub said: String,
}

/// A node to be dialled.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// Who it must be; anyone of the mesh, for an address from the configuration.
    pub node: Option<NodeId>,
    /// Where it may be.
    pub addresses: Vec<String>,
}

/// What one input has brought about. **Perform all of it, in order, before the next input.**
#[derive(Debug)]
#[must_use = "outputs must be performed, in order, before the next input"]
pub struct Outputs<'a>(pub(super) vec::Drain<'a, Output>);

impl Iterator for Outputs<'_> {
    type Item = Output;
    fn next(&mut self) -> Option<Output> {
        self.0.next()
    }
}
