//! What the standing plane of the built-in section says about nodes.
//!
//! A standing key is a kind byte and an id. A node keeps and forwards records of kinds that it does not know, so that newer nodes
//! may add kinds.

use minicbor::{Decode, Encode};

use crate::{
    id::{NodeId, SectionId},
    section::StandingKey,
};

const KIND_NODE: u8 = 1;
const KIND_REVOKED: u8 = 2;

/// The longest standing key.
pub const STANDING_KEY_BYTES_MAX: usize = 256;

/// A standing key that this version understands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// A member of the mesh, written by itself.
    Node(NodeId),
    /// A node that was revoked, written by whoever revoked it; never removed.
    Revoked(NodeId),
}

impl Standing {
    /// The key of this record.
    pub fn key(self) -> StandingKey {
        let (kind, node) = match self {
            Standing::Node(node) => (KIND_NODE, node),
            Standing::Revoked(node) => (KIND_REVOKED, node),
        };
        std::iter::once(kind).chain(node.0).collect()
    }

    /// What a key names, if this version knows its kind.
    pub fn of_key(key: &[u8]) -> Option<Self> {
        let (kind, id) = key.split_first()?;
        let node = NodeId(id.try_into().ok()?);
        match *kind {
            KIND_NODE => Some(Standing::Node(node)),
            KIND_REVOKED => Some(Standing::Revoked(node)),
            _ => None,
        }
    }
}

/// What a node says of itself to the mesh. It tells nothing that differs from run to run, so that a start alone writes nothing. (Field 3 was once the boot counter.)
#[derive(Clone, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub struct NodeRecord {
    /// Its name, for people.
    #[n(0)]
    pub name: String,
    /// Where it can be dialled, as `host:port`; none if it only dials out.
    #[n(1)]
    pub addresses: Vec<String>,
    /// Whether it may invite, renew and revoke.
    #[n(2)]
    pub authority: bool,
    /// The sections that it holds.
    #[n(4)]
    pub holds: Vec<SectionId>,
    /// The newest wire version that it speaks.
    #[n(5)]
    pub wire: u32,
    /// When its certificate expires, in seconds since 1970.
    #[n(6)]
    pub expires_s: u64,
    /// The BLAKE3 hash of its authority key, if it has that role; otherwise empty.
    #[cbor(n(7), with = "minicbor::bytes")]
    pub authority_id: Vec<u8>,
}

/// Why and by whom a node was revoked.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Revocation {
    /// Who revoked it.
    #[n(0)]
    pub by: NodeId,
    /// When, by that node's wall clock, in milliseconds since 1970.
    #[n(1)]
    pub time_ms: u64,
    /// Why.
    #[n(2)]
    pub reason: String,
}
