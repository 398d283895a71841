//! How far a client has come, in terms that any node understands: what lets it go on at another node without a gap.
//!
//! Every value that a node holds, and every topic, has come in a *feed*: the changes of one origin in one plane of one section, numbered 1, 2, 3… A
//! client that wants to go on elsewhere is told, with each update, which change of which feed it shows. What it has seen of each feed, at most, is its
//! *place*: a node that covers it has nothing older to tell than the client knows.

use mangrove_crdt::id::{Origin, Plane, SectionId};
use minicbor::{Decode, Encode};

use super::bounded;

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

/// What a client has heard of a selector's topics elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub struct Heard {
    /// How far it has seen each feed, at most: a node that covers this has nothing older to tell.
    #[cbor(n(0), decode_with = "bounded::list")]
    pub seen: Vec<Place>,
    /// What it has heard completely; `None` if there is no telling.
    #[n(1)]
    pub through: Option<Through>,
}

/// Something that a client has heard completely: it knows each topic and value that these places cover, but for what has been removed since.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub struct Through {
    /// How far, feed by feed.
    #[cbor(n(0), decode_with = "bounded::list")]
    pub places: Vec<Place>,
    /// The topics that it knows to be there, in slots by [`path_hash`]: of each slot the sum of these.
    #[cbor(n(1), decode_with = "bounded::list")]
    pub sums: Vec<u64>,
    /// By what rights it was told: where others hold, it may have been told less.
    #[cbor(n(2), default)]
    pub rights: u64,
}

/// How many slots so many topics are put in: so that neither the sums are long nor what one slot holds.
pub fn slots_of(topics: usize) -> usize {
    (topics as f64).sqrt().ceil().clamp(16.0, 4096.0) as usize
}

/// A path's hash, the first eight bytes of its BLAKE3 hash: by it, it has its slot.
pub fn path_hash(path: &str) -> u64 {
    u64::from_le_bytes(*blake3::hash(path.as_bytes()).as_bytes().first_chunk().expect("a hash has 32 bytes"))
}

/// The slot of a path among so many.
pub fn slot_of(hash: u64, slots: usize) -> usize {
    (hash % slots.max(1) as u64) as usize
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
