//! Names of things: nodes, incarnations, origins, dots, sections, planes.

use std::{fmt, str::FromStr};

use minicbor::{Decode, Encode};

/// A node: the BLAKE3 hash of its Ed25519 public key (the raw 32 bytes).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode)]
#[cbor(transparent)]
pub struct NodeId(#[cbor(with = "minicbor::bytes")] pub [u8; 32]);

impl NodeId {
    /// The node that holds the given public key.
    pub fn of_key(public_key: &[u8]) -> Self {
        NodeId(*blake3::hash(public_key).as_bytes())
    }
}

/// A text that is not the hexadecimal digits of an id: 64 for a node or a mesh, 32 for a session or a voter, 16 for a displaced write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected 64 hexadecimal digits, 32 for a session or a voter, or 16 for a displaced write")]
pub struct BadId;

/// A mesh: the BLAKE3 hash of the public key that its root authority certificate certifies.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode)]
#[cbor(transparent)]
pub struct MeshId(#[cbor(with = "minicbor::bytes")] pub [u8; 32]);

/// A client's session on the mesh: random, given by the node that opened it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode)]
#[cbor(transparent)]
pub struct SessionId(#[cbor(with = "minicbor::bytes")] pub [u8; 16]);

/// A voter of quorum sections: named with the vault that it keeps in a node's store, and lost with it. The node that has it tells in its record.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode)]
#[cbor(transparent)]
pub struct VoterId(#[cbor(with = "minicbor::bytes")] pub [u8; 16]);

impl VoterId {
    /// The voter of a vault that this run of a node makes. No other run is named so.
    pub fn made_by(run: Origin) -> Self {
        let mut id = VoterId::default();
        id.0.copy_from_slice(&blake3::derive_key("mangrove voter v1", &run.to_bytes())[..16]);
        id
    }
}

/// A displaced write: the first bytes of the BLAKE3 hash of its section, topic and dot, so that it has the same name on every node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode)]
#[cbor(transparent)]
pub struct DisplacedId(#[cbor(with = "minicbor::bytes")] pub [u8; 8]);

/// Ids are hexadecimal digits to people.
macro_rules! hexadecimal {
    ($($id:ident),*) => {$(
        impl $id {
            /// The first eight hexadecimal digits, for people and logs.
            pub fn short(&self) -> String {
                hex(&self.0[..4])
            }
        }

        impl fmt::Display for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex(&self.0))
            }
        }

        impl fmt::Debug for $id {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($id), "({})"), self.short())
            }
        }

        impl FromStr for $id {
            type Err = BadId;
            fn from_str(text: &str) -> Result<Self, BadId> {
                unhex(text).map($id).ok_or(BadId)
            }
        }
    )*};
}

hexadecimal!(NodeId, MeshId, SessionId, VoterId, DisplacedId);

impl serde::Serialize for SessionId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl serde::Serialize for NodeId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One run of a node: a boot counter made durable before anything else happens, and random bits, so that a restored or
/// cloned disk never repeats one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Encode, Decode)]
pub struct Incarnation {
    /// How often this node has started on this disk.
    #[n(0)]
    pub boot: u32,
    /// Drawn anew at every start.
    #[n(1)]
    pub nonce: u64,
}

/// Whoever numbers writes: one incarnation of one node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode)]
pub struct Origin {
    /// The node.
    #[n(0)]
    pub node: NodeId,
    /// Its run.
    #[n(1)]
    pub incarnation: Incarnation,
}

impl Origin {
    /// How many bytes [`Origin::to_bytes`] gives.
    pub const LEN: usize = 44;

    /// Node, boot counter and nonce, big-endian: also the automerge actor of this origin's changes.
    pub fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..32].copy_from_slice(&self.node.0);
        bytes[32..36].copy_from_slice(&self.incarnation.boot.to_be_bytes());
        bytes[36..].copy_from_slice(&self.incarnation.nonce.to_be_bytes());
        bytes
    }

    /// The inverse of [`Origin::to_bytes`]; `None` for any other length.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; Self::LEN] = bytes.try_into().ok()?;
        let (node, rest) = bytes.split_first_chunk::<32>()?;
        let (boot, nonce) = rest.split_first_chunk::<4>()?;
        let nonce: &[u8; 8] = nonce.try_into().ok()?;
        Some(Origin {
            node: NodeId(*node),
            incarnation: Incarnation { boot: u32::from_be_bytes(*boot), nonce: u64::from_be_bytes(*nonce) },
        })
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.node.short(), self.incarnation.boot)
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// One write of one origin, by its number in the feed that it stands in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Dot {
    /// Whose.
    #[n(0)]
    pub origin: Origin,
    /// Which: counted from 1.
    #[n(1)]
    pub number: u64,
}

impl fmt::Debug for Dot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.origin, self.number)
    }
}

/// A branch of the tree that is replicated as a unit.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct SectionId(#[n(0)] pub u64);

impl SectionId {
    /// The built-in mesh-wide section: nodes, sessions and policy.
    pub const MESH: SectionId = SectionId(0);
    /// What no section holds: local to its node, never replicated.
    pub const LOCAL: SectionId = SectionId(u64::MAX);
}

impl fmt::Debug for SectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            SectionId::MESH => f.write_str("mesh"),
            SectionId::LOCAL => f.write_str("local"),
            SectionId(id) => write!(f, "{id:016x}"),
        }
    }
}

impl fmt::Display for SectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What a feed carries. The order is the order of priority on a link.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode, Decode)]
#[cbor(index_only)]
pub enum Plane {
    /// Registers with removal: nodes, revocations; sessions, claims and grants.
    #[n(0)]
    Standing,
    /// Topics and definitions, and policy: automerge changes.
    #[n(1)]
    Tree,
    /// Latest values: registers whose keys the tree plane owns.
    #[n(2)]
    Values,
}

impl Plane {
    /// All planes that have feeds, most urgent first.
    pub const ALL: [Plane; 3] = [Plane::Standing, Plane::Tree, Plane::Values];
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|byte| [DIGITS[usize::from(byte >> 4)] as char, DIGITS[usize::from(byte & 15)] as char]).collect()
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *byte = (high * 16 + low) as u8;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_and_ids_survive_their_text_and_bytes() {
        let origin = Origin { node: NodeId::of_key(b"key"), incarnation: Incarnation { boot: 7, nonce: u64::MAX - 3 } };
        assert_eq!(Origin::from_bytes(&origin.to_bytes()), Some(origin));
        assert_eq!(Origin::from_bytes(&[0; 43]), None);
        assert_eq!(origin.node.to_string().parse(), Ok(origin.node));
        assert_eq!("xy".parse::<NodeId>(), Err(BadId));
        assert_eq!(format!("{}0", &origin.node.to_string()[..62]).parse::<NodeId>(), Err(BadId));
    }
}
