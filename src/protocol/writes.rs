//! What clients want to be written.

use std::{fmt, sync::Arc};

use mangrove_crdt::definition::Durability;
use minicbor::{Decode, Encode};

use super::{Form, Splice, TopicSpec, bounded, disks};

/// A topic's path, or the number that stands for it in this session and direction.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Target {
    /// The path.
    #[n(0)]
    Path(#[n(0)] String),
    /// The path, and from now on also `alias`. The number is taken even if what is asked of the topic is refused.
    #[n(1)]
    Named {
        /// A number: at most one greater than the greatest given so far.
        #[n(0)]
        alias: u32,
        /// The path.
        #[n(1)]
        path: String,
    },
    /// The path with this number.
    #[n(2)]
    Alias(#[n(0)] u32),
}

/// Values to write.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct SetBatch {
    /// What to write where, in this order.
    #[cbor(n(0), decode_with = "bounded::list")]
    pub items: Vec<SetItem>,
    /// Make topics that are missing with this definition; `None` refuses them.
    #[n(1)]
    pub add: Option<TopicSpec>,
    /// Where the values must be before the answer; `None` leaves it to their topics and sections.
    #[cbor(n(2), default, with = "disks")]
    pub durability: Option<Durability>,
    /// Under which authority; `None` for whatever the session has at the moment. What was written under an epoch that has ended is refused.
    #[cbor(n(3), default)]
    pub under: Option<Authority>,
}

/// An epoch of a source: from one [`SourceState::Active`] to what follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Authority {
    /// The source's number in its session.
    #[n(0)]
    pub source: u32,
    /// The epoch that it was told.
    #[n(1)]
    pub epoch: u64,
}

/// One value to write.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct SetItem {
    /// Where.
    #[n(0)]
    pub target: Target,
    /// What: bytes of the topic's type.
    #[cbor(n(1), with = "super::deltas::shared_bytes")]
    pub value: Arc<[u8]>,
    /// What the bytes are while they are on the way; `None` for the value itself.
    #[n(2)]
    pub form: Option<Form>,
}

impl SetItem {
    /// A value for a topic.
    pub fn new(target: Target, value: impl Into<Arc<[u8]>>) -> Self {
        SetItem { target, value: value.into(), form: None }
    }
}

/// One topic's value, and what must be so for it to change.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Change {
    /// The topic's path.
    #[n(0)]
    pub path: String,
    /// What its value is to be.
    #[n(1)]
    pub wish: Wish,
    /// What must be so, as in `/speed/unit is "kn" and nothing at /alarm`; `None` if nothing must. The node that is asked judges it by what it holds, and writes in the
    /// same moment.
    #[n(2)]
    pub constraint: Option<String>,
    /// Make the topic with this definition if it is missing; `None` refuses that.
    #[n(3)]
    pub add: Option<TopicSpec>,
    /// As in [`SetBatch::durability`].
    #[cbor(n(4), default, with = "disks")]
    pub durability: Option<Durability>,
    /// As in [`SetBatch::under`].
    #[n(5)]
    pub under: Option<Authority>,
}

impl Change {
    /// One that is made whatever is so, of a topic that is there.
    pub fn new(path: &str, wish: Wish) -> Self {
        Change { path: path.into(), wish, constraint: None, add: None, durability: None, under: None }
    }

    /// The same, made only if this is so.
    #[must_use]
    pub fn only_if(self, constraint: &str) -> Self {
        Change { constraint: Some(constraint.into()), ..self }
    }
}

/// What a topic's value is to be.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub enum Wish {
    /// This: bytes of the topic's type. To a time series it is appended.
    #[n(0)]
    Value(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// What it is, changed by a JSON Patch (RFC 6902), all of it or nothing. Only for `json` topics that have a value.
    #[n(1)]
    Patch(#[n(0)] String),
    /// An event of a time series, written anew in its place.
    #[n(2)]
    Edit {
        /// Which: its sequence, or that and the word that tells it from another of the same.
        #[n(0)]
        event: String,
        /// What it is to be: bytes of the type that the topic's events are of.
        #[cbor(n(1), with = "minicbor::bytes")]
        value: Vec<u8>,
    },
    /// Other lines in a paged topic.
    #[n(3)]
    Lines(#[n(0)] Splice),
    /// What it is, changed by a delta of its type's own: what the module of a custom type calls one. Only for topics that have a value.
    #[n(4)]
    Delta(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
}

impl fmt::Debug for Wish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wish::Value(value) => write!(f, "Value({} bytes)", value.len()),
            Wish::Patch(patch) => write!(f, "Patch({} bytes)", patch.len()),
            Wish::Delta(delta) => write!(f, "Delta({} bytes)", delta.len()),
            Wish::Edit { event, value } => write!(f, "Edit({event}, {} bytes)", value.len()),
            Wish::Lines(Splice { from, take, lines }) => write!(f, "Lines({from:?}, {take:?}, {} lines)", lines.len()),
        }
    }
}
