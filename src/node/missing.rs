//! Missing topics: whoever asks for some of which there are none is not refused, since they may come; but those are told who have said that they would make them.
//!
//! A session registers a path, and is told of what is asked for at or below it, on any node. Of several paths the longest counts, of several sessions
//! one is told, each in its turn; if that cannot be reached, another is.

use std::collections::{BTreeMap, BTreeSet};

use mangrove_crdt::{
    id::{NodeId, SessionId},
    path::Path,
    selector::Selector,
    time::Instant,
};

use super::{ConnectionId, Node, Now, acks::Needs, logins::handlers::Mail, requests::parse_path};
use crate::protocol::{MissingTopic, Refusal, Response};

/// How many are on their way to be told at once; the rest is not told.
const ASKS_MAX: usize = 1_024;

/// Whether a name that a session serves stands for a path of which it is told: it begins with what no other name has.
pub fn is_of_missing(name: &str) -> bool {
    name.starts_with('/')
}

/// What is on its way to be told.
#[derive(Debug, Default)]
pub struct Missing {
    asks: BTreeMap<u64, Ask>,
}

#[derive(Debug)]
struct Ask {
    missing: MissingTopic,
    home: NodeId,
    tried: BTreeSet<SessionId>,
    until: Instant,
}

impl Missing {
    /// When somebody who was to be told has had its time.
    pub fn due(&self) -> Option<Instant> {
        self.asks.values().map(|ask| ask.until).min()
    }
}

impl Node {
    /// A client wants to be told of missing topics, or not any more.
    pub(super) fn missing_register(
        &mut self,
        now: Now,
        connection: ConnectionId,
        prefix: &str,
        serves: bool,
    ) -> Result<(Response, Needs), Refusal> {
        if !prefix.is_empty() {
            parse_path(prefix)?;
        }
        self.serve_name(now, connection, &format!("/{prefix}"), serves)
    }

    /// A client has asked for topics of which there are none.
    pub(super) fn is_missing(&mut self, now: Now, connection: ConnectionId, selector: &Selector) {
        let at = selector.literal_prefix();
        let above =
            |prefix: &str| prefix.is_empty() || at.as_ref().is_some_and(|at| Path::parse(prefix).is_ok_and(|prefix| at.is_within(&prefix)));
        let registered = self.served_names().filter_map(|name| name.strip_prefix('/')).filter(|prefix| above(prefix));
        let Some(prefix) = registered.max_by_key(|prefix| prefix.len()).map(str::to_owned) else { return };
        let Some(client) = self.connections.get(&connection) else { return };
        let missing = MissingTopic {
            selector: selector.to_string(),
            prefix,
            principal: client.identity.as_ref().map(|identity| identity.who.to_string()).unwrap_or_default(),
            session: client.session,
            node: self.config.name.clone(),
        };
        self.tell_next(now, missing, BTreeSet::new());
    }

    fn tell_next(&mut self, now: Now, missing: MissingTopic, mut tried: BTreeSet<SessionId>) {
        if self.missing.asks.len() >= ASKS_MAX {
            return;
        }
        let Some((ask, session, home)) = self.choose_server(now, &format!("/{}", missing.prefix), &tried) else { return };
        tried.insert(session);
        let until = now.at.after(self.config.handler_timeout);
        self.missing.asks.insert(ask, Ask { missing: missing.clone(), home, tried, until });
        self.login_post(now, home, Mail::Missing { ask, session, missing });
    }

    /// Tells a session of this node. Says whether it could be.
    pub(super) fn tell_missing(&mut self, session: SessionId, missing: MissingTopic) -> bool {
        let serves = format!("/{}", missing.prefix);
        let session = self.sessions.all.get(&session).filter(|session| session.record.handlers.contains(&serves));
        let connection = session.and_then(|session| session.connection);
        connection.and_then(|connection| self.connections.get_mut(&connection)).is_some_and(|client| client.tell_missing(missing))
    }

    /// Somebody was told, or could not be. Says whether this was asked for at all.
    pub(super) fn missing_answered(&mut self, now: Now, from: NodeId, ask: u64, told: bool) -> bool {
        if self.missing.asks.get(&ask).is_none_or(|asked| asked.home != from) {
            return false;
        }
        if let Some(Ask { missing, tried, .. }) = self.missing.asks.remove(&ask).filter(|_| !told) {
            self.tell_next(now, missing, tried);
        }
        true
    }

    /// Whoever has not answered in time is passed over.
    pub(super) fn missing_due(&mut self, now: Now) {
        let late: Vec<u64> = self.missing.asks.iter().filter(|(_, ask)| ask.until <= now.at).map(|(ask, _)| *ask).collect();
        for ask in late {
            if let Some(Ask { missing, tried, .. }) = self.missing.asks.remove(&ask) {
                self.tell_next(now, missing, tried);
            }
        }
    }

    /// Whoever has looked for topics and found none, since the last time.
    pub(super) fn note_missed(&mut self, now: Now, connection: ConnectionId) {
        let missed = self.connections.get_mut(&connection).map(|client| client.take_missed()).unwrap_or_default();
        missed.iter().for_each(|selector| self.is_missing(now, connection, selector));
    }
}

#[cfg(test)]
mod tests;
