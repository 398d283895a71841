//! What the standing planes say: of nodes and sessions in the built-in section, of update sources and displaced values in each section.
//!
//! A standing key is a kind byte and what names the record within its kind. A node keeps and forwards records of kinds that it does not know, so
//! that newer nodes may add kinds.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use minicbor::{Decode, Encode};

use crate::{
    access::Roles,
    id::{Dot, NodeId, Plane, SectionId, SessionId, VoterId},
    path::Path,
    quorum::Configuration,
    section::StandingKey,
    stamp::{Rank, Under},
};

const KIND_NODE: u8 = 1;
const KIND_REVOKED: u8 = 2;
const KIND_SESSION: u8 = 3;
const KIND_CLAIM: u8 = 4;
const KIND_GRANT: u8 = 5;
const KIND_VOTERS: u8 = 6;
const KIND_DISPLACED: u8 = 7;
const KIND_SESSION_PROPERTY: u8 = 8;
const KIND_SESSION_DONE: u8 = 9;
const KIND_SUBSCRIBER: u8 = 10;
const KIND_SUBSCRIBERS: u8 = 11;

/// The longest standing key.
pub const STANDING_KEY_BYTES_MAX: usize = 256;

/// A branch, as keys name it: the first bytes of the BLAKE3 hash of its path, which may be longer than a key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BranchHash(pub [u8; 16]);

impl BranchHash {
    /// The hash of a path.
    pub fn of(branch: &Path) -> Self {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&blake3::hash(branch.as_str().as_bytes()).as_bytes()[..16]);
        BranchHash(bytes)
    }
}

/// A session property's key, as standing keys name it: the first bytes of its BLAKE3 hash.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PropertyHash(pub [u8; 16]);

impl PropertyHash {
    /// The hash of a key.
    pub fn of(key: &str) -> Self {
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&blake3::hash(key.as_bytes()).as_bytes()[..16]);
        PropertyHash(bytes)
    }
}

/// A standing key that this version understands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// A member of the mesh, written by itself.
    Node(NodeId),
    /// A node that was revoked, written by whoever revoked it; never removed.
    Revoked(NodeId),
    /// A session that outlives its connection, written by its home; removed when it has ended for good. In the built-in section.
    Session(SessionId),
    /// A session's wish to be the source of a branch, written by its home. In the branch's section.
    Claim(BranchHash, SessionId),
    /// Who holds a branch, or that it was released: written by the holder's home under the grant's own epoch and rank, or under the open epoch. In the
    /// branch's section.
    Grant(BranchHash),
    /// The configuration of a section's voters that somebody has seen chosen, under its number as the epoch: a hint, for those who would not know whom to ask. In the
    /// built-in section.
    Voters(SectionId),
    /// A slot of a section's displaced log ([`crate::displaced`]); never removed.
    Displaced(u16),
    /// What somebody else than its client says of a session's user property. In the built-in section; removed with the session.
    SessionProperty(SessionId, PropertyHash),
    /// What has been done of what a session's client wants done once, written by its home with the session. In the built-in section; removed with the session.
    SessionDone(SessionId),
    /// That a session is subscribed to a topic that asks for it, written by its home. In the topic's section; removed by whoever has the session when it is so no more, or
    /// after it has ended for good.
    Subscriber(BranchHash, SessionId),
    /// How many connections without a session are subscribed to a topic that asks for it, written by their node. In the topic's section.
    Subscribers(BranchHash, NodeId),
}

impl Standing {
    /// The key of this record.
    pub fn key(self) -> StandingKey {
        let key = |kind: u8, parts: [&[u8]; 2]| [&[kind][..], parts[0], parts[1]].concat().into();
        match self {
            Standing::Node(node) => key(KIND_NODE, [&node.0, &[]]),
            Standing::Revoked(node) => key(KIND_REVOKED, [&node.0, &[]]),
            Standing::Session(session) => key(KIND_SESSION, [&session.0, &[]]),
            Standing::Claim(branch, session) => key(KIND_CLAIM, [&branch.0, &session.0]),
            Standing::Grant(branch) => key(KIND_GRANT, [&branch.0, &[]]),
            Standing::Voters(section) => key(KIND_VOTERS, [&section.0.to_be_bytes(), &[]]),
            Standing::Displaced(slot) => key(KIND_DISPLACED, [&slot.to_be_bytes(), &[]]),
            Standing::SessionDone(session) => key(KIND_SESSION_DONE, [&session.0, &[]]),
            Standing::SessionProperty(session, property) => key(KIND_SESSION_PROPERTY, [&session.0, &property.0]),
            Standing::Subscriber(topic, session) => key(KIND_SUBSCRIBER, [&topic.0, &session.0]),
            Standing::Subscribers(topic, node) => key(KIND_SUBSCRIBERS, [&topic.0, &node.0]),
        }
    }

    /// Whether a key is of what is said of nodes.
    pub fn is_of_node(key: &[u8]) -> bool {
        key.first().is_some_and(|kind| [KIND_NODE, KIND_REVOKED].contains(kind))
    }

    /// What a key names, if this version knows its kind.
    pub fn of_key(key: &[u8]) -> Option<Self> {
        let (kind, id) = key.split_first()?;
        Some(match *kind {
            KIND_NODE => Standing::Node(NodeId(id.try_into().ok()?)),
            KIND_REVOKED => Standing::Revoked(NodeId(id.try_into().ok()?)),
            KIND_SESSION => Standing::Session(SessionId(id.try_into().ok()?)),
            KIND_CLAIM => {
                let (branch, session) = id.split_first_chunk::<16>()?;
                Standing::Claim(BranchHash(*branch), SessionId(session.try_into().ok()?))
            }
            KIND_GRANT => Standing::Grant(BranchHash(id.try_into().ok()?)),
            KIND_VOTERS => Standing::Voters(SectionId(u64::from_be_bytes(id.try_into().ok()?))),
            KIND_SESSION_PROPERTY => {
                let (session, property) = id.split_first_chunk::<16>()?;
                Standing::SessionProperty(SessionId(*session), PropertyHash(property.try_into().ok()?))
            }
            KIND_SESSION_DONE => Standing::SessionDone(SessionId(id.try_into().ok()?)),
            KIND_SUBSCRIBER => {
                let (topic, session) = id.split_first_chunk::<16>()?;
                Standing::Subscriber(BranchHash(*topic), SessionId(session.try_into().ok()?))
            }
            KIND_SUBSCRIBERS => {
                let (topic, node) = id.split_first_chunk::<16>()?;
                Standing::Subscribers(BranchHash(*topic), NodeId(node.try_into().ok()?))
            }
            KIND_DISPLACED => Standing::Displaced(u16::from_be_bytes(id.try_into().ok()?)),
            _ => return None,
        })
    }
}

/// How often a session can be taken up.
pub const SESSION_EPOCH_MAX: u32 = i32::MAX as u32;

/// A session, as its home tells the mesh of it.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct SessionRecord {
    /// The node that has its client.
    #[n(0)]
    pub home: NodeId,
    /// How often it has been taken up, at most [`SESSION_EPOCH_MAX`]: rises with each, so that the greatest stands.
    #[n(1)]
    pub epoch: u32,
    /// The BLAKE3 hash of its secret.
    #[n(2)]
    #[cbor(with = "minicbor::bytes")]
    pub secret: [u8; 32],
    /// For how long after the loss of its connection it may be taken up again, in milliseconds.
    #[n(3)]
    pub reconnect_timeout_ms: u64,
    /// When it was opened, by its first home's wall clock, in milliseconds since 1970; for people.
    #[n(4)]
    pub opened_ms: u64,
    /// What its client says that it is.
    #[n(5)]
    pub client: String,
    /// Whether its home has given it up, because its client did not come back: it is presumed to have ended. Whoever has not heard of that may
    /// still take it up, under a greater epoch; once no member can, it ends for good.
    #[cbor(n(6), default)]
    pub closing: bool,
    /// Whether its home has lost its client.
    #[cbor(n(7), default)]
    pub lost: bool,
    /// Why it has ended for good, if it has: one of the stable names of reasons. The record stays until every member has heard of that.
    #[n(8)]
    pub ended: Option<String>,
    /// What its client has said of it, as far as it is believed: its user properties.
    #[cbor(n(9), default)]
    pub properties: BTreeMap<String, String>,
    /// Whose it is.
    #[cbor(n(10), default)]
    pub identity: Identity,
    /// The names of the handlers of logins that its client serves.
    #[cbor(n(11), default)]
    pub handlers: BTreeSet<String>,
    /// How its client has come to its home.
    #[cbor(n(12), default)]
    pub via: Via,
}

/// How a client has come to its node.
#[derive(Clone, PartialEq, Eq, Debug, Default, Encode, Decode)]
#[cbor(map)]
pub struct Via {
    /// By which transport: `quic`, or `in-process` for a part of the node's own program. Empty where that is not known.
    #[n(0)]
    pub transport: String,
    /// From where, as the node sees it.
    #[n(1)]
    pub address: Option<IpAddr>,
}

/// Who somebody is, as the node that let them in has found.
#[derive(Clone, PartialEq, Eq, Debug, Default, Encode, Decode)]
#[cbor(map)]
pub struct Identity {
    /// Who.
    #[n(0)]
    pub who: Who,
    /// The roles that whoever let them in has given them; `None` if those are the ones that the store of principals has for them, at any moment.
    #[n(1)]
    pub roles: Option<Roles>,
    /// Until when that holds, in milliseconds since 1970.
    #[n(2)]
    pub expires_ms: Option<u64>,
}

/// Who somebody is.
#[derive(Clone, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub enum Who {
    /// Whoever has the node's own credential, and may do anything. (Sessions of versions that knew no others.)
    #[default]
    #[n(0)]
    Operator,
    /// Somebody who did not say.
    #[n(1)]
    Anonymous,
    /// A principal of this name.
    #[n(2)]
    Principal(#[n(0)] String),
}

impl std::fmt::Display for Who {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Who::Operator => "$operator",
            Who::Anonymous => "$anonymous",
            Who::Principal(name) => name,
        })
    }
}

impl SessionRecord {
    /// Under what it is written, and all its claims: of two homes that each have taken it up the one with the greater epoch stands, and of the same
    /// epoch the one with the greater id. So whatever an old home still writes comes to nothing. The session's epoch is the rank's priority, since the
    /// stamp's epoch counts a section's grants.
    pub fn under(&self) -> Under {
        let mut home = SessionId::default();
        home.0.copy_from_slice(&self.home.0[..16]);
        Under { epoch: 0, rank: Some(Arc::new(Rank { priority: self.epoch.min(SESSION_EPOCH_MAX) as i32, session: home })) }
    }

    /// Under what whoever ends the session for good writes it, and later removes it: above whatever a home writes.
    pub fn under_final() -> Under {
        Under { epoch: 1, rank: None }
    }
}

/// What somebody else than its client says of a session's user property.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct PropertyChange {
    /// Which property.
    #[n(0)]
    pub key: String,
    /// Its value; `None` if it has none any more, whatever its client says.
    #[n(1)]
    pub value: Option<String>,
}

/// What has been done of what a session's client wants done once.
#[derive(Clone, PartialEq, Eq, Debug, Default, Encode, Decode)]
pub struct DoneRecord {
    /// Below this its client has heard of everything.
    #[n(0)]
    pub floor: u64,
    /// What has been done since, by the client's numbers.
    #[n(1)]
    pub done: BTreeMap<u64, Done>,
}

/// Something that was done.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Done {
    /// The answer to it, as clients hear it.
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub answer: Vec<u8>,
    /// What was written for it: whoever lacks any of that has not done it.
    #[n(1)]
    pub writes: Vec<DoneWrite>,
}

/// A write that was a part of what was done: the last one in its feed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub struct DoneWrite {
    /// In which section.
    #[n(0)]
    pub section: SectionId,
    /// In which plane.
    #[n(1)]
    pub plane: Plane,
    /// By whom, and its number.
    #[n(2)]
    pub dot: Dot,
    /// On how many disks it must be before it is acknowledged ([`crate::definition::Durability::disks`]).
    #[n(3)]
    pub disks: u8,
}

/// A session's wish to be the source of a branch.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct ClaimRecord {
    /// The branch.
    #[n(0)]
    pub branch: Path,
    /// The session's home.
    #[n(1)]
    pub home: NodeId,
    /// Greater goes first.
    #[n(2)]
    pub priority: i32,
    /// The section's Lamport clock when it was registered: among equals the least goes first.
    #[n(3)]
    pub registered: u64,
    /// For how long after the loss of its connection the session keeps the branch, in milliseconds.
    #[n(4)]
    pub hold_ms: u64,
    /// For how long after the loss of its connection, or of its home, the session keeps its place, in milliseconds.
    #[n(5)]
    pub reconnect_timeout_ms: u64,
    /// The claim's number in its session.
    #[n(6)]
    pub number: u32,
    /// Whether the session has been without a connection for longer than `hold_ms`.
    #[n(7)]
    pub away: bool,
}

/// Who holds a branch. The epoch is that of the record's stamp.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct GrantRecord {
    /// The branch.
    #[n(0)]
    pub branch: Path,
    /// The session, and its home when it was granted; `None` once it was released.
    #[n(1)]
    pub holder: Option<(SessionId, NodeId)>,
}

/// Who is subscribed to a topic: see [`Standing::Subscriber`] and [`Standing::Subscribers`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub struct SubscribersRecord {
    /// How many; 1 for a session.
    #[n(0)]
    pub count: u32,
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
    /// The voter that it is in quorum sections, by the vault in its store.
    #[n(8)]
    pub voter: Option<VoterId>,
}

/// See [`Standing::Voters`].
pub type VotersRecord = Configuration<VoterId>;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        id::{Incarnation, Origin},
        replica::Replica,
    };

    #[test]
    fn nothing_is_written_under_what_stands() {
        let mut replica = Replica::new(Origin { node: NodeId([1; 32]), incarnation: Incarnation { boot: 1, nonce: 1 } });
        let key = Standing::Grant(BranchHash([7; 16]));
        let rank = |priority| Some(Arc::new(Rank { priority, session: SessionId([1; 16]) }));
        let mut put = |epoch, rank: Option<Arc<Rank>>| {
            let written = replica.put_standing_in(SectionId::LOCAL, key, Under { epoch, rank: rank.clone() }, 0, Some(vec![1]));
            let held = replica.section(SectionId::LOCAL).and_then(|section| section.standing.get(&key.key()));
            let stands = held.is_some_and(|held| (held.stamp.epoch, &held.stamp.rank) == (epoch, &rank));
            assert_eq!(written.is_some(), stands, "written if it stands, and only then");
            stands
        };
        assert!(put(6, rank(0)));
        assert!(!put(5, rank(9)) && !put(6, None), "a lesser epoch, and a release beside a grant of the same epoch");
        assert!(put(6, rank(0)) && put(6, rank(1)) && put(7, None), "the same again, a greater rank, a greater epoch");
    }
}
