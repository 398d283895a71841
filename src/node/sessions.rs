//! Sessions that outlive their connection and their node: opened for the mesh, lost, taken up again anywhere, ended.
//!
//! A session is a standing record that its *home* writes, the node that has its client. When the connection is lost, its client may take it up again with
//! its secret, at its home or at any other node that knows the record: that node becomes its home, under a greater *epoch*, and takes over its claims.
//! Of two homes the one with the greater (epoch, node) stands, everywhere: the record and the claims are written under it, so what an old home still
//! writes comes to nothing, and as soon as it hears of the new one it lets go of its client and its sources.
//!
//! How a session ends is in `endings`; what there is to see of sessions is in `views`.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use mangrove_crdt::{
    id::{NodeId, SectionId, SessionId},
    sabotage::{Sabotage, is},
    section::StandingKey,
    stamp::Under,
    standing::{DoneRecord, Identity, SESSION_EPOCH_MAX, SessionRecord, Standing, Who},
    time::Instant,
};

use super::{ConnectionId, Node, Now, acks::Needs, agenda::Agenda, sources::Source};
use crate::protocol::{Closed, Code, FromNode, OpenSession, OwnSource, Refusal, Response, Secret};

mod endings;
pub(super) mod filter;
pub(super) mod listeners;
mod once;
mod properties;
#[cfg(test)]
mod tests;
mod views;

/// How far the epoch that a client has been told may be ahead of what a node knows of its session: more often it can hardly have moved meanwhile.
const EPOCH_AHEAD_MAX: u32 = 1_000_000;

/// A session whose home is this node.
#[derive(Debug)]
pub struct Session {
    /// What the mesh knows of it.
    pub record: SessionRecord,
    /// Where its client is.
    pub connection: Option<ConnectionId>,
    /// Since when it is nowhere.
    lost_at: Instant,
    /// When its client came, or came back.
    pub taken_up_at: Instant,
    /// Its sources, by their number.
    pub sources: BTreeMap<u32, Source>,
    next_source: u32,
    /// What has been done of what its client wants done once.
    done: DoneRecord,
}

impl Session {
    fn new(now: Now, record: SessionRecord, connection: Option<ConnectionId>) -> Self {
        Session {
            record,
            connection,
            lost_at: now.at,
            taken_up_at: now.at,
            sources: BTreeMap::new(),
            next_source: 0,
            done: DoneRecord::default(),
        }
    }

    /// When something is to be done about it while its client is nowhere: its sources are held for some time, and it for another.
    fn next_step(&self) -> Instant {
        let end = Duration::from_millis(self.record.reconnect_timeout_ms);
        self.lost_at.after(self.sources.values().filter_map(Source::held_for).fold(end, Duration::min))
    }

    /// The number of its next source.
    pub fn number(&mut self) -> u32 {
        self.next_source += 1;
        self.next_source
    }

    /// Notes a source under a number that it had before.
    pub fn restore_source(&mut self, number: u32, source: Source) {
        self.next_source = self.next_source.max(number);
        self.sources.insert(number, source);
    }
}

/// All sessions whose home is this node.
#[derive(Debug, Default)]
pub struct Sessions {
    /// By id.
    pub all: BTreeMap<SessionId, Session>,
    /// When something is to be done about those whose clients are nowhere.
    lost: Agenda<SessionId>,
    /// Those that this node has given up, until nobody can take them up any more.
    closing: BTreeSet<SessionId>,
    /// Those that have ended for good, until every member has heard of it.
    ended: BTreeSet<SessionId>,
    /// What others say of sessions.
    changes: properties::Changes,
    /// Connections that may listen to sessions.
    listening: BTreeSet<ConnectionId>,
    /// Nodes that are gone for good but were homes, and since when this node knows.
    deserted: BTreeMap<NodeId, Instant>,
}

impl Sessions {
    /// When something is to be done about a lost one.
    pub fn due(&self) -> Option<Instant> {
        self.lost.next()
    }

    /// One that was opened before this run: as if its connection had been lost just now.
    fn restore(&mut self, now: Now, id: SessionId, record: SessionRecord) {
        self.all.insert(id, Session::new(now, record, None));
        self.plan(id);
    }

    /// Notes a source of one under a number that it had before.
    pub fn restore_source(&mut self, id: SessionId, number: u32, source: Source) {
        let Some(session) = self.all.get_mut(&id) else { return };
        session.restore_source(number, source);
        self.plan(id);
    }

    fn remove(&mut self, id: SessionId) -> Option<Session> {
        let removed = self.all.remove(&id);
        self.plan(id);
        removed
    }

    /// Sees anew when something is to be done about one.
    fn plan(&mut self, id: SessionId) {
        let lost = self.all.get(&id).filter(|session| session.connection.is_none());
        match lost.map(Session::next_step) {
            Some(due) => self.lost.set(id, due),
            None => self.lost.remove(&id),
        }
    }
}

impl Node {
    /// Finds the sessions that this node has had before it started.
    pub(super) fn load_sessions(&mut self, now: Now) {
        let (ended, living): (Vec<_>, Vec<_>) = self.session_records().partition(|(_, record)| record.ended.is_some());
        living.iter().for_each(|(id, record)| self.note_serving(*id, Some(record)));
        self.sessions.ended.extend(ended.into_iter().map(|(id, _)| id));
        let mut lost = Vec::new();
        let own = self.id();
        for (id, record) in living.into_iter().filter(|(_, record)| record.home == own) {
            lost.extend((!record.lost && !record.closing).then_some(id));
            self.found_session(now, id, record);
        }
        self.load_properties(now);
        self.plan_expiry();
        self.load_sources(now);
        lost.into_iter().for_each(|id| self.note_lost(now, id, true));
    }

    /// A session of this node that it does not have: its client may take it up, unless its time was over.
    fn found_session(&mut self, now: Now, id: SessionId, record: SessionRecord) {
        if record.closing {
            self.sessions.closing.insert(id);
        } else {
            self.sessions.restore(now, id, record);
            self.load_done(id);
        }
    }

    /// A record of the built-in section has changed. If it is of a session that this node had before it lost its disk, and others still know of, its
    /// client may take it up again as after any start. If it names another home, that one has the session now. If it is gone, somebody has ended the
    /// session for good.
    pub(super) fn session_changed(&mut self, now: Now, key: &StandingKey) {
        let Some(Standing::Session(id)) = Standing::of_key(key) else { return self.property_changed(now, key) };
        self.tell_listeners(id);
        let write = self.replica.section(SectionId::MESH).and_then(|mesh| mesh.standing.get(key));
        let Some(value) = write.and_then(|write| write.value.as_deref()) else {
            self.sessions.ended.remove(&id);
            self.note_serving(id, None);
            self.removal_session_gone(now, id);
            return self.session_ended(now, id);
        };
        let Ok(record) = minicbor::decode::<SessionRecord>(value) else { return };
        self.note_serving(id, Some(&record));
        self.removal_session(now, id);
        if record.ended.is_some() {
            self.session_ended(now, id);
            self.sessions.ended.insert(id);
        } else if record.home != self.id() {
            if !is(Sabotage::KeepsMoved) {
                self.session_moved(now, id, &record);
            }
        } else if let Some(known) = self.sessions.all.get_mut(&id) {
            // Where the disk has forgotten how often it was taken up.
            known.record.epoch = known.record.epoch.max(record.epoch);
        } else if !self.sessions.closing.contains(&id) {
            self.found_session(now, id, record);
            self.find_sources(now, Some(id));
        }
    }

    /// Another node has a session now: if this one had it, it lets go of it.
    fn session_moved(&mut self, now: Now, id: SessionId, record: &SessionRecord) {
        self.sessions.closing.remove(&id);
        let Some(session) = self.sessions.remove(id) else { return };
        let home = self.node_name(&record.home);
        tracing::info!(session = %id.short(), home, epoch = record.epoch, "a session was taken up at another node");
        self.sources_moved(now, id, session.sources.into_values(), &record.home);
        if let Some(connection) = session.connection {
            self.let_go(connection, Code::SessionMoved, id, &format!("it was taken up at {home}"));
        }
    }

    pub(super) fn session_open(
        &mut self,
        now: Now,
        connection: ConnectionId,
        timeout_ms: Option<u64>,
        properties: BTreeMap<String, String>,
    ) -> Result<(Response, Needs), Refusal> {
        self.writable()?;
        check_properties(&properties)?;
        let properties = self.believed(connection, properties);
        let (id, secret) = self.open_session(now, connection)?;
        let timeout_max = self.config.reconnect_timeout.as_millis() as u64;
        let timeout_ms = timeout_ms.map_or(timeout_max, |asked| asked.min(timeout_max));
        let Some(session) = self.sessions.all.get_mut(&id) else { return Err(unknown(id)) };
        session.record.reconnect_timeout_ms = timeout_ms;
        session.record.properties = properties;
        let needs = self.store_session(now, id);
        Ok((self.session_response(id, secret), needs))
    }

    /// The session of a connection, opened now if it has none; with its secret, so that whoever opened it by claiming can still ask for that.
    pub(super) fn open_session(&mut self, now: Now, connection: ConnectionId) -> Result<(SessionId, Secret), Refusal> {
        let client = self.connections.get_mut(&connection).ok_or_else(super::requests::closing)?;
        let derived = |context: &str| blake3::derive_key(context, &*client.entropy);
        let mut id = SessionId::default();
        id.0.copy_from_slice(&derived("mangrove session id v1")[..16]);
        let secret = derived("mangrove session secret v1");
        if let Some(resumed) = client.session {
            return Ok((resumed, if resumed == id { Secret::new(secret) } else { Secret::default() }));
        }
        client.session = Some(id);
        let record = SessionRecord {
            home: self.replica.own().node,
            epoch: 1,
            secret: *blake3::hash(&secret).as_bytes(),
            reconnect_timeout_ms: self.config.reconnect_timeout.as_millis() as u64,
            opened_ms: now.unix_ms,
            client: client.client.clone(),
            via: client.via.clone(),
            closing: false,
            lost: false,
            ended: None,
            properties: client.properties.clone(),
            identity: client.identity.clone().unwrap_or_default(),
            handlers: BTreeSet::new(),
        };
        self.sessions.all.insert(id, Session::new(now, record, Some(connection)));
        self.store_session(now, id);
        Ok((id, Secret::new(secret)))
    }

    /// Of what a client says of its session, what is believed; and what those say who let it in.
    fn believed(&self, connection: ConnectionId, said: BTreeMap<String, String>) -> BTreeMap<String, String> {
        let Some(client) = self.connections.get(&connection) else { return said };
        let rules = self.replica.rules();
        let all = client.rights().is_everything();
        let mut believed: BTreeMap<String, String> = said.into_iter().filter(|(key, value)| all || rules.trusts(key, value)).collect();
        believed.extend(client.properties.clone());
        believed
    }

    /// Somebody has proved anew who a session of this node is of.
    pub(super) fn set_identity(&mut self, now: Now, id: SessionId, identity: Identity) {
        if let Some(session) = self.sessions.all.get_mut(&id) {
            session.record.identity = identity;
            self.store_session(now, id);
        }
    }

    pub(super) fn store_session(&mut self, now: Now, id: SessionId) -> Needs {
        let Some(session) = self.sessions.all.get(&id) else { return Needs::default() };
        let record = session.record.clone();
        self.put_session(now, id, record.under(), Some(&record))
    }

    fn put_session(&mut self, now: Now, id: SessionId, under: Under, record: Option<&SessionRecord>) -> Needs {
        let value = record.map(|record| minicbor::to_vec(record).expect("encoding to memory"));
        Needs::disk([self.replica.put_standing_in(SectionId::MESH, Standing::Session(id), under, now.unix_ms, value)])
    }

    fn session_response(&self, id: SessionId, secret: Secret) -> Response {
        let session = self.sessions.all.get(&id);
        let sources = session.into_iter().flat_map(|session| &session.sources).map(|(number, source)| OwnSource {
            source: *number,
            branch: source.branch.to_string(),
            state: source.told.clone(),
        });
        let (reconnect_timeout_ms, epoch) = session.map_or((0, 0), |session| (session.record.reconnect_timeout_ms, session.record.epoch));
        Response::Session(Box::new(OpenSession { id, secret, reconnect_timeout_ms, sources: sources.collect(), epoch }))
    }

    /// The record of a session, wherever it is, for whoever has its secret.
    fn proven(&self, id: SessionId, secret: &Secret) -> Result<SessionRecord, Refusal> {
        let own = self.sessions.all.get(&id).map(|session| session.record.clone());
        let record = own.or_else(|| self.replica.standing(SectionId::MESH, Standing::Session(id)));
        let proven = record.filter(|record: &SessionRecord| blake3::hash(secret.bytes()) == blake3::Hash::from_bytes(record.secret));
        proven.filter(|record| !record.closing && record.ended.is_none()).ok_or_else(|| unknown(id))
    }

    /// Whether a session may be taken up here by whoever has this secret.
    ///
    /// # Errors
    /// [`Code::UnknownSession`] if not.
    pub fn knows_session(&self, id: SessionId, secret: &Secret) -> Result<(), Refusal> {
        self.proven(id, secret).map(|_| ())
    }

    /// Takes a session up, from a connection that was lost or from another home.
    pub(super) fn session_resume(
        &mut self,
        now: Now,
        connection: ConnectionId,
        id: SessionId,
        secret: &Secret,
        seen: u32,
    ) -> Result<(Response, Needs), Refusal> {
        self.writable()?;
        let seen = if is(Sabotage::ForgetsEpoch) { 0 } else { seen };
        let mut record = self.proven(id, secret)?;
        if seen > record.epoch.saturating_add(EPOCH_AHEAD_MAX) || seen >= SESSION_EPOCH_MAX {
            let why = format!("its epoch here is {}, and cannot have come to {seen}", record.epoch);
            return Err(Refusal::new(Code::InvalidRequest, id.to_string(), why));
        }
        if self.is_banished(&record.identity) {
            return Err(Refusal::new(Code::SessionEnded, id.to_string(), format!("the principal {} was removed", record.identity.who)));
        }
        if record.identity.expires_ms.is_some_and(|expires| expires <= now.unix_ms) {
            return Err(Refusal::new(Code::SessionEnded, id.to_string(), "the time is over for which it was let in"));
        }
        if !self.knows_rights(&record.identity) {
            let why = format!("this node has yet to hear of the principal {}", record.identity.who);
            return Err(Refusal::new(Code::NotReady, id.to_string(), why).hint("try again in a moment, or another node"));
        }
        let client = self.connections.get_mut(&connection).ok_or_else(super::requests::closing)?;
        if client.identity.as_ref().is_some_and(|identity| identity.who != record.identity.who && identity.who != Who::Operator) {
            return Err(Refusal::new(Code::NotPermitted, id.to_string(), format!("it is {}'s", record.identity.who)));
        }
        if client.session.is_some_and(|other| other != id) {
            return Err(Refusal::new(Code::InvalidRequest, id.to_string(), "this connection has another session already"));
        }
        client.session = Some(id);
        let before = record.home;
        (record.lost, record.via) = (false, client.via.clone());
        (record.home, record.epoch) = (self.id(), record.epoch.max(seen).min(SESSION_EPOCH_MAX - 1) + 1);
        let moves = !self.sessions.all.contains_key(&id);
        let session = self.sessions.all.entry(id).or_insert_with(|| Session::new(now, record.clone(), None));
        (session.record, session.taken_up_at) = (record, now.at);
        if moves {
            self.load_done(id);
        }
        let Some(session) = self.sessions.all.get_mut(&id) else { return Err(unknown(id)) };
        if let Some(old) = session.connection.replace(connection).filter(|old| *old != connection) {
            self.let_go(old, Code::SessionMoved, id, "it was taken up on another connection");
        }
        self.sessions.plan(id);
        let needs = self.store_session(now, id);
        let identity = self.sessions.all.get(&id).map(|session| session.record.identity.clone()).unwrap_or_default();
        self.note_expiry(&identity);
        self.identify(connection, identity);
        if moves {
            tracing::info!(session = %id.short(), from = self.node_name(&before), "a session has come from another node");
            self.take_over_sources(now, id);
        }
        self.sources_resumed(now, id);
        self.tell_selections(id);
        Ok((self.session_response(id, Secret::default()), needs))
    }

    /// A session's connection is its no more, and is told so.
    fn let_go(&mut self, connection: ConnectionId, code: Code, id: SessionId, why: &str) {
        self.connections.remove(&connection);
        self.acks.forget(connection);
        let refusal = Refusal::new(code, id.to_string(), why);
        self.outputs.push(super::Output::Send { session: connection, message: FromNode::Closing(refusal) });
    }

    /// The connection of a session is gone.
    pub(super) fn session_lost(&mut self, now: Now, id: SessionId) {
        let Some(session) = self.sessions.all.get_mut(&id) else { return };
        (session.connection, session.lost_at) = (None, now.at);
        self.note_lost(now, id, true);
        self.sources_lost(now, id, Duration::ZERO);
        self.sessions.plan(id);
    }

    /// The mesh is told whether a session's client is connected.
    fn note_lost(&mut self, now: Now, id: SessionId, lost: bool) {
        if let Some(session) = self.sessions.all.get_mut(&id) {
            session.record.lost = lost;
            self.store_session(now, id);
        }
    }

    /// Does what is due of lost sessions.
    pub(super) fn sessions_due(&mut self, now: Now) {
        for id in self.sessions.lost.take_due(now.at) {
            let Some(session) = self.sessions.all.get(&id) else { continue };
            let away = now.at.since(session.lost_at);
            if away >= Duration::from_millis(session.record.reconnect_timeout_ms) {
                self.give_up_session(now, id);
            } else {
                self.sources_lost(now, id, away);
                self.sessions.plan(id);
            }
        }
    }
}

fn unknown(id: SessionId) -> Refusal {
    Refusal::new(Code::UnknownSession, id.to_string(), "this node has no such session, or the secret is another's")
        .hint("it has ended, or this node has not heard of it yet: try another node, or open a new session")
}

/// The most that one session may say of itself.
const PROPERTIES_MAX: usize = 64;
const PROPERTY_KEY_BYTES_MAX: usize = 128;
const PROPERTY_BYTES_MAX: usize = 1 << 10;

/// Fixed properties of which nobody here knows: where and in which language a client is, as whoever lets it in may have found out by its address.
const WHEREABOUTS: [&str; 4] = ["$Country", "$Language", "$Latitude", "$Longitude"];

/// That a handler of logins may give a session these properties: user properties, and where its client is.
pub(super) fn check_given(properties: &BTreeMap<String, String>) -> Result<(), Refusal> {
    let (fixed, user) = properties.clone().into_iter().partition(|(key, _)| WHEREABOUTS.contains(&key.as_str()));
    check_properties(&user)?;
    // Under keys that are right, these have the same limits.
    check_properties(&BTreeMap::into_iter(fixed).map(|(key, value)| (key.replace('$', ""), value)).collect())
}

pub(super) fn check_properties(properties: &BTreeMap<String, String>) -> Result<(), Refusal> {
    let refused = |key: &str, why: String| Err(Refusal::new(Code::InvalidRequest, key, why));
    if properties.len() > PROPERTIES_MAX {
        return refused("properties", format!("a session has at most {PROPERTIES_MAX}, not {}", properties.len()));
    }
    for (key, value) in properties {
        if key.is_empty() || key.starts_with('$') || key.chars().any(|c| c.is_whitespace() || c.is_control() || "\"'()[],".contains(c)) {
            return refused(
                key,
                "a property's key is not empty, has no spaces, commas, quotes, brackets or parentheses, and does not begin with $".into(),
            );
        }
        if key.len() > PROPERTY_KEY_BYTES_MAX || value.len() > PROPERTY_BYTES_MAX {
            let why = format!("a property's key has at most {PROPERTY_KEY_BYTES_MAX} bytes, and its value {PROPERTY_BYTES_MAX}");
            return refused(key, why);
        }
    }
    Ok(())
}
