//! What listings are made of. The field names are those of `--json`.

use std::collections::BTreeMap;
use std::fmt;

use mangrove_crdt::{
    blob::BlobHash,
    id::{MeshId, NodeId},
};
use minicbor::{Decode, Encode};
use serde::{Serialize, Serializer};

use super::{EventMark, ListState, TopicSpec, VoterRow, bounded};

/// How a node is.
#[derive(Debug, Clone, PartialEq, Encode, Decode, Serialize)]
pub struct Status {
    /// The node.
    #[n(0)]
    #[serde(serialize_with = "as_text")]
    pub node: NodeId,
    /// Its name.
    #[n(1)]
    pub name: String,
    /// Its mesh.
    #[n(2)]
    #[serde(serialize_with = "as_text")]
    pub mesh: MeshId,
    /// `member` or `authority`.
    #[n(3)]
    pub role: String,
    /// Its program's version.
    #[n(4)]
    pub version: String,
    /// How long it runs, in milliseconds.
    #[n(5)]
    pub uptime_ms: u64,
    /// How often it has started on this disk.
    #[n(6)]
    pub boot: u32,
    /// Where it listens; empty if it only dials out.
    #[cbor(n(7), decode_with = "bounded::list")]
    pub listens: Vec<String>,
    /// How many nodes the mesh has, itself included, without those that left or were revoked.
    #[n(8)]
    pub nodes: u32,
    /// How many of them it can reach now by any chain of links, itself included.
    #[n(9)]
    pub reachable: u32,
    /// How many links are up.
    #[n(10)]
    pub links: u32,
    /// How many client sessions are open.
    #[n(11)]
    pub sessions: u32,
    /// How many sections it holds.
    #[n(12)]
    pub sections: u32,
    /// How many topics it holds, local ones included.
    #[n(13)]
    pub topics: u64,
    /// The length of all their values, in bytes.
    #[n(14)]
    pub value_bytes: u64,
    /// How many of its changes no other node is known to have.
    #[n(15)]
    pub unspread_changes: u64,
    /// Their values' length, in bytes.
    #[n(16)]
    pub unspread_bytes: u64,
    /// How many displaced values it keeps.
    #[n(17)]
    pub displaced: u64,
    /// What its data takes on disk, in bytes.
    #[n(18)]
    pub disk_bytes: u64,
    /// What its data may take on disk, in bytes; 0 means no limit.
    #[n(19)]
    pub disk_bytes_max: u64,
    /// What its process takes of memory, in bytes; 0 if unknown.
    #[n(20)]
    pub memory_bytes: u64,
    /// When its certificate expires, in milliseconds since 1970.
    #[n(21)]
    pub certificate_expires_unix_ms: u64,
    /// A digest of everything replicated that it holds: equal on nodes that hold the same. Hexadecimal.
    #[n(22)]
    pub digest: String,
    /// What somebody should look at, one sentence each.
    #[cbor(n(23), decode_with = "bounded::list")]
    pub warnings: Vec<String>,
    /// How often a value became the newest of its topic here since the node started, whoever wrote it. What a neighbour's topic was
    /// overwritten with on the way here counts once.
    #[cbor(n(24), default)]
    pub updates: u64,
}

/// A node of the mesh, as the asked node knows it.
#[derive(Debug, Clone, PartialEq, Encode, Decode, Serialize)]
pub struct NodeRow {
    /// Which.
    #[n(0)]
    #[serde(serialize_with = "as_text")]
    pub node: NodeId,
    /// Its name.
    #[n(1)]
    pub name: String,
    /// `member` or `authority`.
    #[n(2)]
    pub role: String,
    /// How it is.
    #[n(3)]
    pub state: NodeState,
    /// How long ago its pulse last advanced, in milliseconds; `None` if it never has since this node started.
    #[n(4)]
    pub heard_ms_ago: Option<u64>,
    /// Where it says that it listens.
    #[cbor(n(5), decode_with = "bounded::list")]
    pub addresses: Vec<String>,
    /// Its program's version.
    #[n(6)]
    pub version: String,
    /// Roots of the sections that it holds.
    #[cbor(n(7), decode_with = "bounded::list")]
    pub sections: Vec<String>,
}

/// How a node is, as the asked node knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(index_only)]
#[serde(rename_all = "kebab-case")]
pub enum NodeState {
    /// The asked node itself.
    #[n(0)]
    This,
    /// A link to it is up.
    #[n(1)]
    Linked,
    /// It is alive and can be reached over others.
    #[n(2)]
    Reachable,
    /// Nothing is heard of it.
    #[n(3)]
    Unreachable,
    /// It has left the mesh.
    #[n(4)]
    Left,
    /// It was revoked.
    #[n(5)]
    Revoked,
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NodeState::This => "this",
            NodeState::Linked => "linked",
            NodeState::Reachable => "reachable",
            NodeState::Unreachable => "unreachable",
            NodeState::Left => "left",
            NodeState::Revoked => "revoked",
        })
    }
}

/// A link to a neighbour. Counters count from the node's start, over all connections to this neighbour.
#[derive(Debug, Clone, PartialEq, Encode, Decode, Serialize)]
pub struct LinkRow {
    /// The neighbour.
    #[n(0)]
    #[serde(serialize_with = "as_text")]
    pub node: NodeId,
    /// Its name.
    #[n(1)]
    pub name: String,
    /// Its address on this link, or the one that is being dialled.
    #[n(2)]
    pub address: String,
    /// How it is.
    #[n(3)]
    pub state: LinkState,
    /// The round trip, in microseconds; `None` while it is down.
    #[n(4)]
    pub rtt_us: Option<u64>,
    /// How many bytes were sent, headers of UDP excluded.
    #[n(5)]
    pub sent_bytes: u64,
    /// How many bytes were received.
    #[n(6)]
    pub received_bytes: u64,
    /// How many records were sent.
    #[n(7)]
    pub sent_records: u64,
    /// How many records were received.
    #[n(8)]
    pub received_records: u64,
    /// How many runs were sent to their end: the rounds that catching up took.
    #[n(9)]
    pub runs: u64,
    /// How many of this node's changes the neighbour is not known to have; `None` while nothing is known.
    #[n(10)]
    pub lag_changes: Option<u64>,
    /// For how long the neighbour has lacked something that this node holds, its own changes or others', in milliseconds: 0 when it is known to
    /// have everything, at least 1 when not; `None` while nothing is known. What it got from others is known once it reports
    /// that as being on its disk, a second or two later. Counted from this node's start at most, and good to about a quarter.
    #[n(11)]
    pub lag_ms: Option<u64>,
    /// How long ago both were last proved equal in all common sections, in milliseconds.
    #[n(12)]
    pub equal_ms_ago: Option<u64>,
    /// How many buckets were found different though they should have been equal, and were repaired.
    #[n(13)]
    pub mismatches: u64,
    /// Roots of the sections that cross it.
    #[cbor(n(14), decode_with = "bounded::list")]
    pub sections: Vec<String>,
    /// Why it is down, if it is.
    #[n(15)]
    pub error: Option<String>,
    /// How often, over the present connection, this node asked the neighbour for what it does not send by itself (a feed from further back, a whole
    /// section, a bucket that differed). Without any at either end, catching up took one round trip.
    #[cbor(n(16), default)]
    pub requests: u64,
    /// How many of the records were sent as what had changed since the value before.
    #[cbor(n(17), default)]
    pub deltas: u64,
    /// How many bytes that has saved.
    #[cbor(n(18), default)]
    pub saved_bytes: u64,
    /// How many of the records were sent compressed.
    #[cbor(n(19), default)]
    pub compressed: u64,
    /// How many bytes that has saved.
    #[cbor(n(20), default)]
    pub compressed_saved_bytes: u64,
}

/// How a link is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(index_only)]
#[serde(rename_all = "kebab-case")]
pub enum LinkState {
    /// It works.
    #[n(0)]
    Up,
    /// Being dialled.
    #[n(1)]
    Connecting,
    /// Waiting to be dialled again, or to be called.
    #[n(2)]
    Down,
    /// Kept down by [`Request::LinkBlock`](super::Request::LinkBlock).
    #[n(3)]
    Blocked,
}

impl fmt::Display for LinkState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LinkState::Up => "up",
            LinkState::Connecting => "connecting",
            LinkState::Down => "down",
            LinkState::Blocked => "blocked",
        })
    }
}

/// A section, as the asked node knows it.
#[derive(Debug, Clone, PartialEq, Encode, Decode, Serialize)]
pub struct SectionRow {
    /// Its root path.
    #[n(0)]
    pub root: String,
    /// Its id, hexadecimal.
    #[n(1)]
    pub id: String,
    /// Its policy: `arbitration`, `voters`, `lease`, `durability`, `retention`, …
    #[cbor(n(2), decode_with = "bounded::map")]
    pub properties: BTreeMap<String, String>,
    /// Whether the asked node holds it.
    #[n(3)]
    pub held: bool,
    /// The names of the nodes that are known to hold it.
    #[cbor(n(4), decode_with = "bounded::list")]
    pub holders: Vec<String>,
    /// How many topics it has; 0 where it is not held.
    #[n(5)]
    pub topics: u64,
    /// The length of their values, in bytes; 0 where it is not held.
    #[n(6)]
    pub value_bytes: u64,
    /// Its digest: equal on nodes that hold the same. Hexadecimal; `None` where it is not held.
    #[n(7)]
    pub digest: Option<String>,
    /// If it is arbitrated by quorum, those that vote at present, as the asked node has heard: `voters` is what is wished for.
    #[cbor(n(8), decode_with = "bounded::list", default)]
    pub voting: Vec<VoterRow>,
}

/// A topic in a listing.
#[derive(Debug, Clone, PartialEq, Encode, Decode, Serialize)]
pub struct TopicRow {
    /// Its path.
    #[n(0)]
    pub path: String,
    /// Its definition.
    #[n(1)]
    #[serde(flatten)]
    pub topic: TopicSpec,
    /// Whether its definition names a blob that the node does not have yet, so that it takes no values there and shows none.
    #[cbor(n(2), default)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub waits: bool,
    /// What else there is to say of it: why it is not replicated, or what it hides.
    #[n(3)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remark: Option<String>,
}

/// A blob that a definition names.
#[derive(Debug, Clone, PartialEq, Encode, Decode, Serialize)]
pub struct BlobRow {
    /// Its name.
    #[n(0)]
    pub hash: BlobHash,
    /// Its length, in bytes; `None` if the node does not have it yet.
    #[n(1)]
    pub bytes: Option<u64>,
}

/// Everything about a topic.
#[derive(Debug, Clone, PartialEq, Encode, Decode, Serialize)]
pub struct TopicDetail {
    /// Its path.
    #[n(0)]
    pub path: String,
    /// Its definition.
    #[n(1)]
    #[serde(flatten)]
    pub topic: TopicSpec,
    /// Its identity: the operation that made it.
    #[n(2)]
    pub id: String,
    /// The root of its section; `None` if it is local.
    #[n(3)]
    pub section: Option<String>,
    /// The length of its value, in bytes; `None` if it has none.
    #[n(4)]
    pub value_bytes: Option<u64>,
    /// Its value's stamp.
    #[n(5)]
    pub stamp: Option<String>,
    /// When the value was written, in milliseconds since 1970 by its writer's clock.
    #[n(6)]
    pub unix_ms: Option<u64>,
    /// The name of the node that wrote the value.
    #[n(7)]
    pub writer: Option<String>,
    /// How many other definitions were made at the same time and lost.
    #[n(8)]
    pub conflicts: u32,
    /// Whether it is a slave whose master is not on the node, so that it is not there for readers.
    #[cbor(n(9), default)]
    pub pending: bool,
    /// The blobs that its definition names.
    #[cbor(n(10), decode_with = "bounded::list", default)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub blobs: Vec<BlobRow>,
    /// How many events it shows, if it is a time series.
    #[n(12)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events: Option<u64>,
    /// The epoch under which the value was written.
    #[n(13)]
    pub epoch: Option<u64>,
    /// Which run of which node wrote the value.
    #[n(14)]
    pub origin: Option<String>,
    /// What its list has come to, if it is a paged topic of this node.
    #[n(15)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub list: Option<ListState>,
    /// As in [`TopicRow::remark`].
    #[n(16)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remark: Option<String>,
}

/// Something that has happened at a path.
#[derive(Debug, Clone, PartialEq, Encode, Decode, Serialize)]
pub struct PastRow {
    /// What.
    #[n(0)]
    pub did: Deed,
    /// With what definition a topic was made, if that can be read.
    #[n(1)]
    #[serde(flatten)]
    pub topic: Option<TopicSpec>,
    /// The name of the node at which it was done.
    #[n(2)]
    pub node: String,
    /// In which run of that node.
    #[n(3)]
    pub origin: String,
    /// When, in milliseconds since 1970 by that node's clock, to the second; `None` if it did not say.
    #[n(4)]
    pub unix_ms: Option<u64>,
    /// Whether that node, and one that did something else of what is told with this, did not know of each other's doing.
    #[n(5)]
    pub concurrent: bool,
}

/// What is done to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, Serialize)]
#[cbor(index_only)]
#[serde(rename_all = "kebab-case")]
pub enum Deed {
    /// A topic is made.
    #[n(0)]
    Made,
    /// The topic is removed, as far as its remover knows of it.
    #[n(1)]
    Removed,
}

impl fmt::Display for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Deed::Made => "made",
            Deed::Removed => "removed",
        })
    }
}

/// A topic's value.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct ValueRow {
    /// The topic's path.
    #[n(0)]
    pub path: String,
    /// The topic's type.
    #[n(1)]
    pub topic_type: String,
    /// Bytes of this type; `None` if the topic has no value yet.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub value: Option<Vec<u8>>,
    /// When it was written, in milliseconds since 1970 by its writer's clock.
    #[n(3)]
    pub unix_ms: Option<u64>,
    /// Its stamp.
    #[n(4)]
    pub stamp: Option<String>,
    /// Which event it is, if the topic is a time series: the newest one. The type is then that of its events.
    #[n(5)]
    pub event: Option<EventMark>,
    /// What says what its bytes mean, where the name of its type does not: if they are protobuf, or of a custom type.
    #[n(6)]
    pub spec: Option<TopicSpec>,
}

/// A value that lost to a concurrent write or removal.
#[derive(Debug, Clone, PartialEq, Encode, Decode, Serialize)]
pub struct DisplacedRow {
    /// What to show or restore it by, on any node.
    #[n(0)]
    pub id: String,
    /// The topic's path.
    #[n(1)]
    pub path: String,
    /// The topic's type.
    #[n(2)]
    #[serde(rename = "type")]
    pub topic_type: String,
    /// What it lost to: `write` or `removal`.
    #[n(3)]
    pub by: String,
    /// The length of the value, in bytes.
    #[n(4)]
    pub value_bytes: u64,
    /// Its stamp.
    #[n(5)]
    pub stamp: String,
    /// When it was written, in milliseconds since 1970 by its writer's clock; 0 if unknown.
    #[n(6)]
    pub unix_ms: u64,
    /// The name of the node that wrote it.
    #[n(7)]
    pub writer: String,
    /// The stamp of the write or removal that it lost to; empty if that is not known.
    #[n(8)]
    pub winner: String,
    /// The epoch under which it was written.
    #[cbor(n(9), default)]
    pub epoch: u64,
    /// The name of the node that wrote the winner or removed the topic; empty if that is not known.
    #[cbor(n(10), default)]
    pub winner_writer: String,
    /// The epoch of the write that it lost to, if that is known.
    #[n(11)]
    pub winner_epoch: Option<u64>,
    /// The BLAKE3 hash of a value that was too long to be kept.
    #[n(12)]
    pub too_long: Option<String>,
    /// What says what its bytes mean, where the name of its type does not: if it is protobuf, or of a custom type.
    #[n(13)]
    #[serde(skip)]
    pub spec: Option<TopicSpec>,
}

/// One of [`Request::Doctor`](super::Request::Doctor)'s findings.
#[derive(Debug, Clone, PartialEq, Encode, Decode, Serialize)]
pub struct Finding {
    /// How bad it is.
    #[n(0)]
    pub severity: Severity,
    /// What was looked at.
    #[n(1)]
    pub check: String,
    /// What was found.
    #[n(2)]
    pub found: String,
    /// What to do; empty if nothing.
    #[n(3)]
    pub hint: String,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode, Serialize)]
#[cbor(index_only)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// As it should be.
    #[n(0)]
    Ok,
    /// Works, but somebody should look.
    #[n(1)]
    Warning,
    /// Does not work.
    #[n(2)]
    Error,
}

fn as_text<T: fmt::Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}
