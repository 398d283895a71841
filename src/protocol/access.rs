//! What there is to see of who may do what.

use std::collections::BTreeMap;

use mangrove_crdt::{id::SessionId, standing::Via};
use minicbor::{Decode, Encode};
use serde::Serialize;

use super::{Login, bounded};

/// What somebody who judges logins says of one.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Verdict {
    /// It is who it says.
    #[n(0)]
    Allow {
        /// Who it is, where the login does not say.
        #[n(0)]
        principal: Option<String>,
        /// Its roles; `None` for those that the store of principals has for it, at any moment.
        #[cbor(n(1), decode_with = "bounded::list_if_any")]
        roles: Option<Vec<String>>,
        /// Properties of its session, whatever it says itself: user properties, and `$Country`, `$Language`, `$Latitude` and `$Longitude`, which nobody else can give.
        #[cbor(n(2), decode_with = "bounded::map")]
        properties: BTreeMap<String, String>,
        /// Until when that holds, in milliseconds since 1970.
        #[n(3)]
        expires_ms: Option<u64>,
    },
    /// It is not to be let in.
    #[n(1)]
    Deny,
    /// That is for others to say.
    #[n(2)]
    Abstain,
}

impl Verdict {
    /// That it is who it says, and nothing besides.
    pub fn allow() -> Verdict {
        Verdict::Allow { principal: None, roles: None, properties: BTreeMap::new(), expires_ms: None }
    }
}

/// A login that a handler is to judge.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Question {
    /// Under which of the handler's names it was asked.
    #[n(0)]
    pub handler: String,
    /// Who it says that it is, and what proves it.
    #[n(1)]
    pub login: Login,
    /// What its client says that it is.
    #[n(2)]
    pub client: String,
    /// What it says of its session: user properties.
    #[cbor(n(3), decode_with = "bounded::map")]
    pub properties: BTreeMap<String, String>,
    /// How it has come to its node.
    #[cbor(n(4), default)]
    pub via: Via,
}

/// Somebody has asked for topics of which there are none.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct MissingTopic {
    /// What was asked for.
    #[n(0)]
    pub selector: String,
    /// Under which path this was to be told: the longest one registered that everything asked for is at or below; empty for all.
    #[n(1)]
    pub prefix: String,
    /// Who asks: a principal, `$anonymous` or `$operator`.
    #[n(2)]
    pub principal: String,
    /// The session that asks, if the mesh knows it.
    #[n(3)]
    pub session: Option<SessionId>,
    /// The name of its node.
    #[n(4)]
    pub node: String,
}

/// A principal of the mesh's store.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct PrincipalRow {
    /// Its name.
    #[n(0)]
    pub principal: String,
    /// Its roles, without those that they include.
    #[cbor(n(1), decode_with = "bounded::list")]
    pub roles: Vec<String>,
    /// Whether it can come by password.
    #[n(2)]
    pub password: bool,
    /// Whether both sides of a split have said something of its roles that is still to be settled: `roles` are those that are certain.
    #[n(3)]
    pub conflict: bool,
}

/// A role.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct RoleRow {
    /// Its name.
    #[n(0)]
    pub role: String,
    /// Whatever it includes, directly or not.
    #[cbor(n(1), decode_with = "bounded::list")]
    pub includes: Vec<String>,
    /// What it may do on the whole mesh, by itself and by what it includes.
    #[cbor(n(2), decode_with = "bounded::list")]
    pub global: Vec<String>,
    /// What it may do at paths where nothing is assigned.
    #[cbor(n(3), decode_with = "bounded::list")]
    pub default: Vec<String>,
    /// At how many paths it has an assignment of its own.
    #[n(4)]
    pub places: u64,
}

/// What both sides of a split have said of one thing.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct ConflictRow {
    /// The statements that say it; to settle it, one of them, or another of the same thing, is to be said again.
    #[cbor(n(0), decode_with = "bounded::list")]
    pub statements: Vec<String>,
}

/// One thing that a script changes.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct ChangeRow {
    /// What was said before; nothing at first, and two statements where that was in conflict.
    #[cbor(n(0), decode_with = "bounded::list")]
    pub before: Vec<String>,
    /// What is said after it.
    #[n(1)]
    pub after: String,
}

/// What somebody may do at a path, and why.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct WhyReport {
    /// Who: a principal, `$anonymous`, or a session by its id.
    #[n(0)]
    pub who: String,
    /// Where.
    #[n(1)]
    pub path: String,
    /// All roles that count, with those that they include.
    #[cbor(n(2), decode_with = "bounded::list")]
    pub roles: Vec<String>,
    /// What is permitted at the path.
    #[cbor(n(3), decode_with = "bounded::list")]
    pub permissions: Vec<String>,
    /// What is permitted on the whole mesh.
    #[cbor(n(4), decode_with = "bounded::list")]
    pub global: Vec<String>,
    /// What decides, in words, the nearest place first.
    #[cbor(n(5), decode_with = "bounded::list")]
    pub because: Vec<String>,
}
