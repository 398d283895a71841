//! How sessions end.
//!
//! *For good*, once, by the word of whoever may: the client, or anybody who may from any node. The record says so and why, written above whatever a home writes, so
//! a home that has not heard of it may go on for as long as it has not, and no longer. When every member has heard of it, the record goes.
//!
//! *Presumed*, when the client of a lost connection has not come back to its home in time: it may be at another node by now, of which
//! this one has not heard. So the home says `closing` at its own epoch: the claims are freed, and nobody who has heard takes the session up any more. Only
//! when every member has heard, so that none can have it, does it end for good.
//!
//! Of a home that was revoked, has left, or has been silent for very long, nobody would end the sessions: the least living node does.

use super::*;
use crate::protocol::Ended;

impl Node {
    /// Ends the session of a connection by its client's wish; the connection stays, and may open another.
    pub(in crate::node) fn session_close(&mut self, now: Now, connection: ConnectionId) -> Result<(Response, Needs), Refusal> {
        let client = self.connections.get_mut(&connection).ok_or_else(crate::node::requests::closing)?;
        *client.entropy = blake3::derive_key("mangrove session next v1", &*client.entropy);
        let mut needs = Needs::default();
        if let Some(id) = client.session.take() {
            self.part_with_session(now, id, "the client has ended its session");
            needs = self.end_for_good(now, id, Ended::ByClient);
        }
        Ok((Response::Done, needs))
    }

    /// Ends any session of the mesh for good.
    pub(in crate::node) fn session_end(&mut self, now: Now, text: &str) -> Result<(Response, Needs), Refusal> {
        self.writable()?;
        let sessions = self.find_sessions(text)?;
        let mut needs = Needs::default();
        for (id, _) in &sessions {
            needs = self.end_for_good(now, *id, Ended::ByController);
        }
        Ok((Response::Affected { sessions: sessions.len() as u64 }, needs))
    }

    pub(in crate::node) fn end_for_good(&mut self, now: Now, id: SessionId, reason: Ended) -> Needs {
        let record = self.replica.standing::<SessionRecord>(SectionId::MESH, Standing::Session(id));
        let record = record.map(|record| SessionRecord { ended: Some(reason.as_str().into()), ..record });
        self.put_session(now, id, SessionRecord::under_final(), record.as_ref())
    }

    /// Somebody has ended a session. If it was this node's, its client is told.
    pub(super) fn session_ended(&mut self, now: Now, id: SessionId) {
        self.sessions.closing.remove(&id);
        let Some(session) = self.sessions.all.get(&id) else { return };
        let connection = session.connection;
        self.part_with_session(now, id, "it was ended from outside");
        if let Some(connection) = connection {
            self.let_go(connection, Code::SessionEnded, id, "it was ended for good by somebody who may");
        }
    }

    /// The client of a session has not come back to this node in time.
    pub(super) fn give_up_session(&mut self, now: Now, id: SessionId) {
        let Some(session) = self.sessions.all.get(&id) else { return };
        let record = SessionRecord { closing: true, ..session.record.clone() };
        self.part_with_session(now, id, "its client has not come back in time");
        self.put_session(now, id, record.under(), Some(&record));
        self.sessions.closing.insert(id);
    }

    /// A session is this node's no more, and its sources are closed.
    fn part_with_session(&mut self, now: Now, id: SessionId, why: &str) {
        tracing::info!(session = %id.short(), why, "a session has ended");
        let numbers: Vec<u32> = self.sessions.all.get(&id).into_iter().flat_map(|session| session.sources.keys().copied()).collect();
        for number in numbers {
            self.close_source(now, id, number, Closed::SessionClosed, why);
        }
        self.sessions.remove(id);
    }

    /// Ends for good what nobody can take up any more. To be called about every second.
    pub(in crate::node) fn end_presumed_sessions(&mut self, now: Now) {
        let since = now.at.0.saturating_sub(self.config.retention.as_micros() as u64);
        if self.sessions.closing.is_empty() && self.sessions.ended.is_empty() {
            return;
        }
        let stable = self.replica.stable_in_mesh(since);
        let heard = |node: &Node, id: &SessionId| {
            let written = node.replica.standing_write(SectionId::MESH, Standing::Session(*id)).map(|(written, _)| written);
            written.is_some_and(|written| stable.as_ref().is_some_and(|stable| stable[written.plane].covers(written.dot)))
        };
        for id in self.sessions.closing.clone() {
            if heard(self, &id) || is(Sabotage::EndsAtOnce) {
                self.sessions.closing.remove(&id);
                self.end_for_good(now, id, Ended::ConnectionLost);
            }
        }
        if self.is_least(now) {
            for id in self.sessions.ended.clone() {
                if heard(self, &id) {
                    self.forget_properties(now, id);
                    self.put_session(now, id, SessionRecord::under_final(), None);
                }
            }
        }
    }

    /// Ends the sessions of homes that are gone for good, some time after that became known, so that their clients can take them up elsewhere. One node does it in each connected
    /// part: the least that lives.
    pub(in crate::node) fn end_deserted_sessions(&mut self, now: Now) {
        let mut records: Vec<(SessionId, SessionRecord)> = self.living_sessions().collect();
        let mut homes: BTreeSet<NodeId> = records.iter().map(|(_, record)| record.home).collect();
        homes.retain(|home| self.is_gone(now, home));
        records.retain(|(_, record)| homes.contains(&record.home));
        self.sessions.deserted.retain(|home, _| homes.contains(home));
        for home in homes {
            self.sessions.deserted.entry(home).or_insert(now.at);
        }
        if !self.is_least(now) {
            return;
        }
        for (id, record) in records {
            let gone = self.sessions.deserted.get(&record.home).map_or(Duration::ZERO, |since| now.at.since(*since));
            if gone >= Duration::from_millis(record.reconnect_timeout_ms) {
                self.end_for_good(now, id, Ended::NodeGone);
            }
        }
    }

    /// Whether this node is the one that does here what one has to do: the least of those that live.
    fn is_least(&self, now: Now) -> bool {
        let nodes = self.replica.nodes();
        nodes.keys().find(|node| **node == self.id() || self.lives(now, node)) == Some(&self.id())
    }

    pub(in crate::node) fn is_gone(&self, now: Now, home: &NodeId) -> bool {
        let silent = || now.at.since(self.heard(home)) >= self.config.presume_dead;
        *home != self.id() && (self.revoked.contains(home) || self.replica.node(*home).is_none() || silent())
    }
}
