//! What there is to see of sessions.

use super::filter::{Facts, Filter};
use super::*;
use crate::protocol::{self, Claimed, Page, SessionDetail, SessionRow, SessionState};
use mangrove_crdt::access::Roles;

/// A filter; an empty text means all.
pub(super) fn parse_filter(text: &str) -> Result<Filter, Refusal> {
    if text.trim().is_empty() {
        return Ok(Filter::all());
    }
    let refused = |error: crate::node::clauses::Unread| Refusal::new(Code::InvalidRequest, text, error.to_string());
    Filter::parse(text).map_err(|error| refused(error).hint("as in: $NodeName is \"EWR\" and not has desk"))
}

/// What filters ask about a session.
pub(in crate::node) struct KnownFacts<'a> {
    id: SessionId,
    record: &'a SessionRecord,
    node: String,
    properties: BTreeMap<String, String>,
    roles: Roles,
}

impl Facts for KnownFacts<'_> {
    fn property(&self, key: &str) -> Option<String> {
        Some(match key {
            "$SessionId" => self.id.to_string(),
            "$NodeId" => self.record.home.to_string(),
            "$NodeName" => self.node.clone(),
            "$StartTime" => self.record.opened_ms.to_string(),
            "$ClientType" => self.record.client.clone(),
            "$Transport" => return Some(&self.record.via.transport).filter(|transport| !transport.is_empty()).cloned(),
            "$ClientIP" => return self.record.via.address.map(|address| address.to_string()),
            "$Principal" => self.record.identity.who.to_string(),
            "$Roles" => self.roles.iter().map(String::as_str).collect::<Vec<_>>().join(","),
            "$ExpiryTime" => return self.record.identity.expires_ms.map(|expires| expires.to_string()),
            key => return self.properties.get(key).cloned(),
        })
    }

    fn has_role(&self, role: &str) -> bool {
        self.roles.contains(role)
    }
}

impl Node {
    pub(super) fn session_records(&self) -> impl Iterator<Item = (SessionId, SessionRecord)> {
        let records = self.replica.section(SectionId::MESH).into_iter().flat_map(|mesh| mesh.standing.iter());
        records.filter_map(|(key, write)| {
            let Some(Standing::Session(id)) = Standing::of_key(key) else { return None };
            Some((id, minicbor::decode(write.value.as_deref()?).ok()?))
        })
    }

    /// Those that have not ended for good.
    pub(in crate::node) fn living_sessions(&self) -> impl Iterator<Item = (SessionId, SessionRecord)> {
        self.session_records().filter(|(_, record)| record.ended.is_none())
    }

    /// The session that a text means: its id, or the first digits of it.
    pub(in crate::node) fn find_session(&self, text: &str) -> Result<(SessionId, SessionRecord), Refusal> {
        let digits = text.to_lowercase();
        let mut found = self.living_sessions().filter(|(id, _)| digits.len() >= 4 && id.to_string().starts_with(&digits));
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

    /// The sessions that a text means: one, by its id, or those that meet a filter.
    pub(super) fn find_sessions(&self, text: &str) -> Result<Vec<(SessionId, SessionRecord)>, Refusal> {
        if text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return self.find_session(text).map(|session| vec![session]);
        }
        let filter = parse_filter(text)?;
        let found: Vec<(SessionId, SessionRecord)> =
            self.living_sessions().filter(|(id, record)| filter.meets(&self.facts(*id, record))).collect();
        match found.is_empty() {
            true => {
                Err(Refusal::new(Code::UnknownSession, text, "no session of the mesh meets this filter").hint("see: mangrove session ls"))
            }
            false => Ok(found),
        }
    }

    pub(super) fn session_row(&self, now: Now, id: SessionId, record: SessionRecord, claims: u64) -> SessionRow {
        let silence = now.at.since(self.heard(&record.home));
        let reached = record.home == self.id() || self.lives(now, &record.home);
        let state = match (record.closing, reached) {
            (true, _) => SessionState::PresumedClosed,
            (false, false) if silence >= Duration::from_millis(record.reconnect_timeout_ms) => SessionState::PresumedClosed,
            (false, false) => SessionState::OutOfReach,
            (false, true) if record.lost => SessionState::Disconnected,
            (false, true) => SessionState::Connected,
        };
        let properties = self.properties_of(id, &record);
        let roles = self.roles_of(id, &record.identity).into_iter().collect();
        SessionRow {
            session: id,
            node: self.node_name(&record.home),
            state,
            epoch: record.epoch,
            claims,
            reconnect_timeout_ms: record.reconnect_timeout_ms,
            opened_unix_ms: record.opened_ms,
            client: record.client,
            home: record.home,
            properties,
            principal: record.identity.who.to_string(),
            roles,
            expires_unix_ms: record.identity.expires_ms,
            transport: record.via.transport,
            address: record.via.address,
        }
    }

    pub(in crate::node) fn facts<'a>(&self, id: SessionId, record: &'a SessionRecord) -> KnownFacts<'a> {
        KnownFacts {
            id,
            record,
            node: self.node_name(&record.home),
            properties: self.properties_of(id, record),
            roles: self.roles_of(id, &record.identity),
        }
    }

    /// The sessions whose home this node is, with their epochs and connections; for tests and the simulator.
    pub fn own_sessions(&self) -> impl Iterator<Item = (SessionId, u32, Option<ConnectionId>)> {
        self.sessions.all.iter().map(|(id, session)| (*id, session.record.epoch, session.connection))
    }

    /// A page of the mesh's sessions.
    pub(in crate::node) fn session_rows(&self, now: Now, page: &Page, filter: &str) -> Result<Response, Refusal> {
        let filter = parse_filter(filter)?;
        let limit = page.limit.clamp(1, protocol::PAGE_MAX) as usize;
        let after = |id: &SessionId| page.after.as_ref().is_none_or(|after| id.to_string() > *after);
        let meant = |(id, record): &(SessionId, SessionRecord)| after(id) && filter.meets(&self.facts(*id, record));
        let records: BTreeMap<SessionId, SessionRecord> = self.living_sessions().filter(meant).collect();
        let mut claims: BTreeMap<SessionId, u64> = BTreeMap::new();
        self.all_claims().for_each(|(_, _, claim)| *claims.entry(claim.session).or_default() += 1);
        let more = records.len() > limit;
        let row = |(id, record)| self.session_row(now, id, record, claims.get(&id).copied().unwrap_or(0));
        let rows: Vec<SessionRow> = records.into_iter().take(limit).map(row).collect();
        let next = rows.last().filter(|_| more).map(|row| row.session.to_string());
        Ok(Response::Sessions { rows, next })
    }

    /// One session, with what it has claimed.
    pub(in crate::node) fn session_detail(&self, now: Now, text: &str) -> Result<Response, Refusal> {
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
