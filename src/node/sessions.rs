//! Sessions that outlive their connection: opened for the mesh, lost, taken up again, ended.
//!
//! A session is a standing record that its home writes. While its client is connected it lives; when the connection is lost, its client may take it up
//! again with its secret until the reconnect timeout has passed, and then it ends for good: the record is removed, and with it all claims. A home
//! that starts again finds its sessions' records, and counts from its start. Whoever may can end any session from any node, by removing its record
//! under an epoch that nothing overrides.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use mangrove_crdt::{
    id::{SectionId, SessionId},
    section::StandingKey,
    stamp::Under,
    standing::{SessionRecord, Standing},
    time::Instant,
};

use super::{ConnectionId, Node, Now, acks::Needs, sources::Source};
use crate::protocol::{
    self, Claimed, Closed, Code, FromNode, OpenSession, OwnSource, Page, Refusal, Response, SessionDetail, SessionRow, SessionState,
};

#[cfg(test)]
mod tests;

/// Under which a session's record is removed by others than its home: above whatever its home writes.
const FINAL_EPOCH: u64 = u64::MAX / 2;

/// A session whose home is this node.
#[derive(Debug)]
pub struct Session {
    /// What the mesh knows of it.
    pub record: SessionRecord,
    /// Where its client is.
    pub connection: Option<ConnectionId>,
    /// Since when it is nowhere.
    lost_at: Instant,
    /// Its sources, by their number.
    pub sources: BTreeMap<u32, Source>,
    next_source: u32,
}

impl Session {
    fn new(now: Now, record: SessionRecord, connection: Option<ConnectionId>) -> Self {
        Session { record, connection, lost_at: now.at, sources: BTreeMap::new(), next_source: 0 }
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
    lost: BTreeSet<SessionId>,
    due: Option<Instant>,
}

impl Sessions {
    /// When something is to be done about a lost one.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// One that was opened before this run: as if its connection had been lost just now.
    fn restore(&mut self, now: Now, id: SessionId, record: SessionRecord) {
        self.all.insert(id, Session::new(now, record, None));
        self.lost.insert(id);
    }

    /// Notes a source of one under a number that it had before.
    pub fn restore_source(&mut self, id: SessionId, number: u32, source: Source) {
        let Some(session) = self.all.get_mut(&id) else { return };
        // Of all the others it is known when they are due.
        if let Some(hold) = source.held_for().filter(|_| session.connection.is_none()) {
            let due = session.lost_at.after(hold);
            self.due = Some(self.due.map_or(due, |known| known.min(due)));
        }
        session.restore_source(number, source);
    }

    /// Sees anew when that is.
    pub fn plan(&mut self) {
        let lost = self.lost.iter().filter_map(|id| self.all.get(id));
        let lost = lost.map(|session| {
            let end = session.lost_at.after(Duration::from_millis(session.record.reconnect_timeout_ms));
            let holds = session.sources.values().filter_map(|source| source.held_for());
            holds.map(|hold| session.lost_at.after(hold)).chain([end]).min().unwrap_or(end)
        });
        self.due = lost.min();
    }
}

impl Node {
    /// Finds the sessions that this node has had before it started.
    pub(super) fn load_sessions(&mut self, now: Now) {
        let own = self.session_records().filter(|(_, record)| record.home == self.id());
        for (id, record) in own.collect::<Vec<_>>() {
            self.sessions.restore(now, id, record);
        }
        self.load_sources(now);
        self.sessions.plan();
    }

    /// A record of the built-in section has changed. If it is of a session that this node had before it lost its disk, and others still know of, its
    /// client may take it up again as after any start. If it is gone, somebody has ended the session for good.
    pub(super) fn session_changed(&mut self, now: Now, key: &StandingKey) {
        let Some(Standing::Session(id)) = Standing::of_key(key) else { return };
        let write = self.replica.section(SectionId::MESH).and_then(|mesh| mesh.standing.get(key));
        let Some(value) = write.and_then(|write| write.value.as_deref()) else { return self.session_ended(now, id) };
        let record = minicbor::decode::<SessionRecord>(value).ok().filter(|record| record.home == self.id());
        let (Some(record), false) = (record, self.sessions.all.contains_key(&id)) else { return };
        self.sessions.restore(now, id, record);
        self.find_sources(now, Some(id));
        self.sessions.plan();
    }

    pub(super) fn session_open(
        &mut self,
        now: Now,
        connection: ConnectionId,
        timeout_ms: Option<u64>,
    ) -> Result<(Response, Needs), Refusal> {
        self.writable()?;
        let (id, secret) = self.open_session(now, connection)?;
        let timeout_max = self.config.reconnect_timeout.as_millis() as u64;
        let timeout_ms = timeout_ms.map_or(timeout_max, |asked| asked.min(timeout_max));
        let Some(session) = self.sessions.all.get_mut(&id) else { return Err(unknown(id)) };
        session.record.reconnect_timeout_ms = timeout_ms;
        let needs = self.store_session(now, id);
        Ok((self.session_response(id, secret), needs))
    }

    /// The session of a connection, opened now if it has none; with its secret, so that whoever opened it by claiming can still ask for that.
    pub(super) fn open_session(&mut self, now: Now, connection: ConnectionId) -> Result<(SessionId, Vec<u8>), Refusal> {
        let client = self.connections.get_mut(&connection).ok_or_else(super::requests::closing)?;
        let derived = |context: &str| blake3::derive_key(context, &client.entropy);
        let mut id = SessionId::default();
        id.0.copy_from_slice(&derived("mangrove session id v1")[..16]);
        let secret = derived("mangrove session secret v1");
        if let Some(resumed) = client.session {
            return Ok((resumed, if resumed == id { secret.to_vec() } else { Vec::new() }));
        }
        client.session = Some(id);
        let record = SessionRecord {
            home: self.replica.own().node,
            epoch: 1,
            secret: *blake3::hash(&secret).as_bytes(),
            reconnect_timeout_ms: self.config.reconnect_timeout.as_millis() as u64,
            opened_ms: now.unix_ms,
            client: client.client.clone(),
        };
        self.sessions.all.insert(id, Session::new(now, record, Some(connection)));
        self.store_session(now, id);
        Ok((id, secret.to_vec()))
    }

    fn store_session(&mut self, now: Now, id: SessionId) -> Needs {
        let record = self.sessions.all.get(&id).map(|session| minicbor::to_vec(&session.record).expect("encoding to memory"));
        Needs::disk([self.replica.put_standing(Standing::Session(id), now.unix_ms, record)])
    }

    fn session_response(&self, id: SessionId, secret: Vec<u8>) -> Response {
        let session = self.sessions.all.get(&id);
        let sources = session.into_iter().flat_map(|session| &session.sources).map(|(number, source)| OwnSource {
            source: *number,
            branch: source.branch.to_string(),
            state: source.told.clone(),
        });
        let reconnect_timeout_ms = session.map_or(0, |session| session.record.reconnect_timeout_ms);
        Response::Session(Box::new(OpenSession { id, secret, reconnect_timeout_ms, sources: sources.collect() }))
    }

    pub(super) fn session_resume(
        &mut self,
        now: Now,
        connection: ConnectionId,
        id: SessionId,
        secret: &[u8],
    ) -> Result<(Response, Needs), Refusal> {
        self.writable()?;
        let known =
            self.sessions.all.get_mut(&id).filter(|session| blake3::hash(secret) == blake3::Hash::from_bytes(session.record.secret));
        let session = known.ok_or_else(|| unknown(id))?;
        let client = self.connections.get_mut(&connection).ok_or_else(super::requests::closing)?;
        if client.session.is_some_and(|other| other != id) {
            return Err(Refusal::new(Code::InvalidRequest, id.to_string(), "this connection has another session already"));
        }
        client.session = Some(id);
        session.record.epoch += 1;
        if let Some(old) = session.connection.replace(connection).filter(|old| *old != connection) {
            self.let_go(old, id, "the session was taken up on another connection");
        }
        self.sessions.lost.remove(&id);
        let needs = self.store_session(now, id);
        self.sources_resumed(now, id);
        self.sessions.plan();
        Ok((self.session_response(id, Vec::new()), needs))
    }

    /// Ends the session of a connection by its client's wish; the connection stays, and may open another.
    pub(super) fn session_close(&mut self, now: Now, connection: ConnectionId) -> Result<(Response, Needs), Refusal> {
        let client = self.connections.get_mut(&connection).ok_or_else(super::requests::closing)?;
        client.entropy = blake3::derive_key("mangrove session next v1", &client.entropy);
        let mut needs = Needs::default();
        if let Some(id) = client.session.take() {
            needs = self.end_session(now, id, "the client has ended its session");
        }
        Ok((Response::Done, needs))
    }

    /// Ends any session of the mesh for good: its record is removed under an epoch above all that it could be taken up under, so its node may go on
    /// for as long as it has not heard of that, and no longer.
    pub(super) fn session_end(&mut self, now: Now, text: &str) -> Result<(Response, Needs), Refusal> {
        self.writable()?;
        let (id, _) = self.find_session(text)?;
        let under = Under { epoch: FINAL_EPOCH, rank: None };
        let written = self.replica.put_standing_in(SectionId::MESH, Standing::Session(id), under, now.unix_ms, None);
        Ok((Response::Done, Needs::disk([written])))
    }

    /// Somebody has ended a session. If it was this node's, its client is told.
    fn session_ended(&mut self, now: Now, id: SessionId) {
        let Some(session) = self.sessions.all.get(&id) else { return };
        let connection = session.connection;
        self.end_session(now, id, "it was ended from outside");
        if let Some(connection) = connection {
            self.let_go(connection, id, "the session was ended for good by somebody who may");
        }
        self.sessions.plan();
    }

    /// A session's connection is its no more, and is told so.
    fn let_go(&mut self, connection: ConnectionId, id: SessionId, why: &str) {
        self.connections.remove(&connection);
        self.acks.forget(connection);
        let refusal = Refusal::new(Code::Closing, id.to_string(), why);
        self.outputs.push(super::Output::Send { session: connection, message: FromNode::Closing(refusal) });
    }

    /// The connection of a session is gone.
    pub(super) fn session_lost(&mut self, now: Now, id: SessionId) {
        let Some(session) = self.sessions.all.get_mut(&id) else { return };
        (session.connection, session.lost_at) = (None, now.at);
        self.sessions.lost.insert(id);
        self.sources_lost(now, id, Duration::ZERO);
        self.sessions.plan();
    }

    /// Does what is due of lost sessions.
    pub(super) fn sessions_due(&mut self, now: Now) {
        if self.sessions.due.is_none_or(|due| due > now.at) {
            return;
        }
        for id in self.sessions.lost.clone() {
            let Some(session) = self.sessions.all.get(&id) else { continue };
            let away = now.at.since(session.lost_at);
            if away >= Duration::from_millis(session.record.reconnect_timeout_ms) {
                self.end_session(now, id, "its client has not come back in time");
            } else {
                self.sources_lost(now, id, away);
            }
        }
        self.sessions.plan();
    }

    fn end_session(&mut self, now: Now, id: SessionId, why: &str) -> Needs {
        tracing::info!(session = %id.short(), why, "a session has ended");
        let numbers: Vec<u32> = self.sessions.all.get(&id).into_iter().flat_map(|session| session.sources.keys().copied()).collect();
        for number in numbers {
            self.close_source(now, id, number, Closed::SessionClosed, why);
        }
        self.sessions.all.remove(&id);
        self.sessions.lost.remove(&id);
        self.store_session(now, id)
    }
}

// Views.

impl Node {
    fn session_records(&self) -> impl Iterator<Item = (SessionId, SessionRecord)> {
        let records = self.replica.section(SectionId::MESH).into_iter().flat_map(|mesh| mesh.standing.iter());
        records.filter_map(|(key, write)| {
            let Some(Standing::Session(id)) = Standing::of_key(key) else { return None };
            Some((id, minicbor::decode(write.value.as_deref()?).ok()?))
        })
    }

    /// The session that a text means: its id, or the first digits of it.
    fn find_session(&self, text: &str) -> Result<(SessionId, SessionRecord), Refusal> {
        let digits = text.to_lowercase();
        let mut found = self.session_records().filter(|(id, _)| digits.len() >= 4 && id.to_string().starts_with(&digits));
        match (found.next(), found.next()) {
            (Some(session), None) => Ok(session),
            (None, _) => {
                Err(Refusal::new(Code::UnknownSession, text, "no session of the mesh has this id").hint("see: mangrove session ls"))
            }
            (Some(one), Some(other)) => {
                let refusal = Refusal::new(Code::UnknownSession, text, "more than one session could be meant").hint("give more digits");
                Err(refusal.who([one.0.to_string(), other.0.to_string()]))
            }
        }
    }

    fn session_row(&self, now: Now, id: SessionId, record: SessionRecord, claims: u64) -> SessionRow {
        let state = match self.sessions.all.get(&id) {
            Some(Session { connection: Some(_), .. }) => SessionState::Connected,
            Some(_) => SessionState::Disconnected,
            None if self.lives(now, &record.home) => SessionState::Elsewhere,
            None => SessionState::OutOfReach,
        };
        SessionRow {
            session: id,
            node: self.node_name(&record.home),
            state,
            epoch: record.epoch,
            claims,
            reconnect_timeout_ms: record.reconnect_timeout_ms,
            opened_unix_ms: record.opened_ms,
            client: record.client,
        }
    }

    /// A page of the mesh's sessions.
    pub(super) fn session_rows(&self, now: Now, page: &Page) -> Result<Response, Refusal> {
        let limit = page.limit.clamp(1, protocol::PAGE_MAX) as usize;
        let after = |id: &SessionId| page.after.as_ref().is_none_or(|after| id.to_string() > *after);
        let records: BTreeMap<SessionId, SessionRecord> = self.session_records().filter(|(id, _)| after(id)).collect();
        let mut claims: BTreeMap<SessionId, u64> = BTreeMap::new();
        self.all_claims().for_each(|(_, _, claim)| *claims.entry(claim.session).or_default() += 1);
        let more = records.len() > limit;
        let row = |(id, record)| self.session_row(now, id, record, claims.get(&id).copied().unwrap_or(0));
        let rows: Vec<SessionRow> = records.into_iter().take(limit).map(row).collect();
        let next = rows.last().filter(|_| more).map(|row| row.session.to_string());
        Ok(Response::Sessions { rows, next })
    }

    /// One session, with what it has claimed.
    pub(super) fn session_detail(&self, now: Now, text: &str) -> Result<Response, Refusal> {
        let (id, record) = self.find_session(text)?;
        let own = self.all_claims().filter(|(_, _, claim)| claim.session == id);
        let mut branches: Vec<Claimed> = own
            .map(|(path, branch, _)| {
                let holds = branch.holder().is_some_and(|holder| holder.session == id);
                Claimed { branch: path.to_string(), holds }
            })
            .collect();
        branches.sort_by(|one, other| one.branch.cmp(&other.branch));
        let row = self.session_row(now, id, record, branches.len() as u64);
        branches.truncate(protocol::ITEMS_MAX);
        Ok(Response::SessionDetail(Box::new(SessionDetail { row, branches })))
    }
}

fn unknown(id: SessionId) -> Refusal {
    Refusal::new(Code::UnknownSession, id.to_string(), "this node has no such session, or the secret is another's")
        .hint("it has ended, or its home is another node: open a new one")
}
