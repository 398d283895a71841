//! Who listens to sessions: each listener pulls what has changed, in the newest state, and what is there comes first.

use super::filter::Filter;
use super::views::parse_filter;
use super::*;
use crate::protocol::{Ended, SessionNews, SessionRow, SessionState};

/// How many listeners one connection may have.
const LISTENERS_MAX: usize = 16;
/// How many sessions one message tells of.
const NEWS_MAX: usize = 256;

/// The listeners of one connection.
#[derive(Debug, Default)]
pub struct Listeners {
    all: BTreeMap<u32, Listener>,
    next: u32,
}

#[derive(Debug)]
struct Listener {
    filter: Filter,
    /// What it knows of each session.
    told: BTreeMap<SessionId, SessionRow>,
    changed: BTreeSet<SessionId>,
    synced: bool,
}

impl Listeners {
    /// Ends them all. Returns which there were.
    pub fn end_all(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.all).into_keys().collect()
    }

    fn wants(&self) -> bool {
        self.all.values().any(|listener| !listener.changed.is_empty() || !listener.synced)
    }
}

impl Node {
    /// A connection wants to hear of sessions.
    pub(in crate::node) fn sessions_listen(&mut self, connection: ConnectionId, filter: &str) -> Result<(Response, Needs), Refusal> {
        let filter = parse_filter(filter)?;
        let changed = self.session_records().map(|(id, _)| id).collect();
        let client = self.connections.get_mut(&connection).ok_or_else(crate::node::requests::closing)?;
        if client.listeners.all.len() >= LISTENERS_MAX {
            let why = format!("a connection has at most {LISTENERS_MAX} listeners");
            return Err(Refusal::new(Code::TooMany, "listener", why).hint("join filters with or"));
        }
        client.listeners.next += 1;
        let listener = client.listeners.next;
        client.listeners.all.insert(listener, Listener { filter, told: BTreeMap::new(), changed, synced: false });
        self.sessions.listening.insert(connection);
        Ok((Response::Listening { listener }, Needs::default()))
    }

    /// A connection wants to hear of sessions no more.
    pub(in crate::node) fn sessions_unlisten(&mut self, connection: ConnectionId, listener: u32) -> Result<(Response, Needs), Refusal> {
        let client = self.connections.get_mut(&connection).ok_or_else(crate::node::requests::closing)?;
        let known = client.listeners.all.remove(&listener).map(|_| (Response::Done, Needs::default()));
        known.ok_or_else(|| Refusal::new(Code::UnknownSubscription, listener.to_string(), "there is no such listener"))
    }

    /// A session's record has changed, or how it is to be judged.
    pub(super) fn tell_listeners(&mut self, id: SessionId) {
        self.sessions.listening.retain(|connection| {
            let Some(client) = self.connections.get_mut(connection) else { return false };
            client.listeners.all.values_mut().for_each(|listener| _ = listener.changed.insert(id));
            !client.listeners.all.is_empty()
        });
    }

    /// Homes fall silent and are heard again: whoever listens is told of their sessions. To be called about every second.
    pub(in crate::node) fn listeners_due(&mut self, now: Now) {
        let listening = self.sessions.listening.iter().filter_map(|connection| self.connections.get(connection));
        let told = listening.flat_map(|client| client.listeners.all.values()).flat_map(|listener| listener.told.values());
        let silent = |row: &&SessionRow| {
            let doubted = matches!(row.state, SessionState::OutOfReach | SessionState::PresumedClosed);
            row.home != self.id() && (doubted || !self.lives(now, &row.home))
        };
        let ids: BTreeSet<SessionId> = told.filter(silent).map(|row| row.session).collect();
        ids.into_iter().for_each(|id| self.tell_listeners(id));
    }

    /// What a connection's listeners are to be told next.
    pub(in crate::node) fn poll_listeners(&mut self, now: Now, connection: ConnectionId) -> Option<FromNode> {
        if !self.connections.get(&connection)?.listeners.wants() {
            return None;
        }
        let mut listeners = std::mem::take(&mut self.connections.get_mut(&connection)?.listeners);
        let mut message = None;
        for (number, listener) in &mut listeners.all {
            let mut news = Vec::new();
            while news.len() < NEWS_MAX {
                let Some(id) = listener.changed.pop_first() else { break };
                news.extend(self.session_news(now, id, listener));
            }
            let synced = listener.changed.is_empty() && !listener.synced;
            listener.synced |= synced;
            if !news.is_empty() || synced {
                message = Some(FromNode::Sessions { listener: *number, news, synced });
                break;
            }
        }
        self.connections.get_mut(&connection)?.listeners = listeners;
        message
    }

    fn session_news(&self, now: Now, id: SessionId, listener: &mut Listener) -> Option<SessionNews> {
        let record = self.replica.standing::<SessionRecord>(SectionId::MESH, Standing::Session(id));
        let ended = record.as_ref().map(|record| record.ended.as_deref().map(Ended::of_name));
        match (record, ended.unwrap_or(Some(Ended::Unknown))) {
            (Some(record), None) => {
                let known = listener.told.get(&id);
                if known.is_none() && !listener.filter.meets(&self.facts(id, &record)) {
                    return None;
                }
                let row = self.session_row(now, id, record, 0);
                if known == Some(&row) {
                    return None;
                }
                listener.told.insert(id, row.clone());
                Some(SessionNews::Is(Box::new(row)))
            }
            (_, reason) => {
                listener.told.remove(&id)?;
                Some(SessionNews::Ended { session: id, reason: reason.unwrap_or(Ended::Unknown) })
            }
        }
    }
}
