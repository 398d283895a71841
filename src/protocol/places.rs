//! How far a client has come, in terms that any node understands: what lets it go on at another node without a gap.
//!
//! Every value that a node holds, and every topic, has come in a *feed*: the changes of one origin in one plane of one section, numbered 1, 2, 3… A
//! client that wants to go on elsewhere is told, with each update, which change of which feed it shows. What it has seen of each feed, at most, is its
//! *place*: a node that covers it has nothing older to tell than the client knows.

use mangrove_crdt::id::{Origin, Plane, SectionId};
use minicbor::{Decode, Encode};

/// A feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Encode, Decode)]
pub struct Feed {
    /// Of which section.
    #[n(0)]
    pub section: SectionId,
    /// Of which plane.
    #[n(1)]
    pub plane: Plane,
    /// Whose.
    #[n(2)]
    pub origin: Origin,
}

/// A change, by the number that the node has given to its feed on this connection ([`super::FromNode::Feeds`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Mark {
    /// The feed's number.
    #[n(0)]
    pub feed: u32,
    /// The change's number in it.
    #[n(1)]
    pub number: u64,
}

/// How much of a feed a client has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Place {
    /// Of which.
    #[n(0)]
    pub feed: Feed,
    /// Up to which change, at most.
    #[n(1)]
    pub number: u64,
}
