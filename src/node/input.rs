//! What the driver tells the node.

use mangrove_crdt::{id::NodeId, standing::Via, time::Instant};
use mangrove_net::link::LinkId;

use super::{logins::Comer, output::Target};
use crate::protocol::{Refusal, Request, Verdict};

/// The present, as the driver's clocks show it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// The monotonic clock: all timers run by it.
    pub at: Instant,
    /// The wall clock, in milliseconds since 1970: written beside values for people to read, and decides nothing.
    pub unix_ms: u64,
}

/// Names a client's connection to this node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ConnectionId(pub u64);

/// Something that has happened outside.
#[derive(Debug)]
pub enum Input<'a> {
    /// A link is up, and TLS has proved who is at the other end.
    LinkUp {
        /// Its name from now on.
        link: LinkId,
        /// The node at the other end.
        peer: NodeId,
        /// Its address there.
        address: String,
        /// What this node dialled it as; `None` if the peer dialled.
        dialled: Option<Target>,
    },
    /// A link is gone.
    LinkDown {
        /// Which.
        link: LinkId,
        /// Why.
        reason: String,
    },
    /// A frame came in.
    Frame {
        /// On which link.
        link: LinkId,
        /// On which lane.
        lane: u32,
        /// What.
        bytes: &'a [u8],
    },
    /// A node of the mesh, which has proved who it is, will not be linked to this one, since this one was revoked.
    Outcast {
        /// Which, if that is known.
        by: Option<NodeId>,
        /// In its words: by whom this node was revoked, and why.
        said: String,
    },
    /// A client has shown this node's own credential, or comes to take up a session.
    SessionOpened {
        /// Its name from now on.
        session: ConnectionId,
        /// What it says it is.
        client: String,
        /// How it has come.
        via: Via,
        /// How many aliases it keeps.
        aliases_max: u32,
        /// Random, never the same again, and known to nobody else: what names and protects the sessions of this connection.
        entropy: [u8; 32],
        /// Whether it comes to take up a session: then it may do nothing before.
        comes_back: bool,
    },
    /// A client says who it is. What comes of it is told by [`super::Output::Judged`].
    LoginAsked {
        /// Its name from now on.
        session: ConnectionId,
        /// The client.
        comer: Comer,
    },
    /// What the driver has found out: [`super::Output::Verify`].
    Verified {
        /// Of whom.
        session: ConnectionId,
        /// What it comes to.
        verdict: Verdict,
    },
    /// A client has gone.
    SessionClosed {
        /// Which.
        session: ConnectionId,
    },
    /// A client asks for something.
    Request {
        /// Who.
        session: ConnectionId,
        /// Under which number.
        id: u64,
        /// What.
        request: Request,
    },
    /// A client can take more updates.
    Credit {
        /// Who.
        session: ConnectionId,
        /// Of which subscription.
        subscription: u32,
        /// How many.
        updates: u32,
    },
    /// Batches are stored. `released` are as durable as they asked to be; `synced` are on the disk.
    Persisted {
        /// The greatest mark whose batch, with all before it, is as durable as it asked to be.
        released: u64,
        /// The greatest mark whose batch, with all before it, is on the disk.
        synced: u64,
    },
    /// The store takes nothing at present. New writes are refused with this until it recovers; all else goes on.
    StoreFailed {
        /// What to tell clients.
        refusal: Refusal,
        /// Whether what was handed over already is not stored either: then those who wait for it to be on the disk are told so.
        stuck: bool,
    },
    /// The store takes batches again.
    StoreRecovered,
    /// This node has a new certificate.
    Renewed {
        /// When it expires, in seconds since 1970.
        expires_s: u64,
    },
    /// A deadline that [`crate::node::Node::poll_timeout`] gave has come.
    Timeout,
}
