//! Topics that go by themselves: each says in its definition when ([`condition`]), and the mesh sees to it.
//!
//! Every holder of a topic watches; of those that live the least removes. A session counts as there until it has ended *for good*: neither the loss of its connection, nor of its
//! node, nor that somebody presumes its end, removes anything, nor ends its subscriptions ([`subscribers`]). What is removed is the topic that said so: one made anew at its path says for itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use mangrove_crdt::{
    definition::Definition,
    frontier::DotIx,
    id::{SectionId, SessionId},
    path::Path,
    stamp::Under,
    standing::{SessionRecord, Standing},
    time::Instant,
};

use self::{
    condition::{Condition, Facts, When},
    subscribers::Subscribers,
};
use super::{ConnectionId, Node, Now, requests::parse_definition, sessions::filter::Filter};
use crate::protocol::{Code, Refusal, TopicSpec};

pub mod condition;
mod subscribers;

/// A topic that is to be removed at some time.
#[derive(Debug)]
struct Watched {
    /// As its definition says it, and what that means.
    removal: String,
    condition: Condition,
    /// When it was written last, as far as this run has seen.
    written: Instant,
    /// For each number of subscribers that it asks for, since when it has had fewer.
    few: BTreeMap<u32, Option<Instant>>,
}

/// All of them, and what is known for them.
#[derive(Debug, Default)]
pub struct Removals {
    topics: BTreeMap<(SectionId, Path), Watched>,
    /// Those that ask for a session.
    by_session: BTreeMap<SessionId, BTreeSet<(SectionId, Path)>>,
    /// Those that ask for anything else: to be looked at again and again.
    by_time: BTreeSet<(SectionId, Path)>,
    /// Sessions that have ended, of which topics are left.
    ended: BTreeSet<SessionId>,
    /// Sessions of which nobody here has heard, and since when.
    unheard: BTreeMap<SessionId, Instant>,
    /// The filters that are asked for, and since when no session meets them.
    filters: BTreeMap<String, Option<Instant>>,
    /// Who is subscribed to those that ask for that.
    pub subscribers: Subscribers,
}

/// What one topic's condition is judged by.
struct Known<'a> {
    node: &'a Node,
    now: Now,
    watched: &'a Watched,
}

impl Facts for Known<'_> {
    fn has_ended(&self, session: SessionId) -> bool {
        let Removals { ended, unheard, .. } = &self.node.removals;
        let gone = |since: &Instant| self.now.at.since(*since) >= self.node.config.presume_dead;
        ended.contains(&session) || unheard.get(&session).is_some_and(gone)
    }

    fn none_has(&self, filter: &str) -> Option<Duration> {
        let since = self.node.removals.filters.get(filter).copied().flatten()?;
        Some(self.now.at.since(since))
    }

    fn unwritten(&self) -> Duration {
        self.now.at.since(self.watched.written)
    }

    fn fewer_than(&self, subscribers: u32) -> Option<Duration> {
        let since = self.watched.few.get(&subscribers).copied().flatten()?;
        // What somebody ends elsewhere may be heard of before what somebody begins there.
        Some(self.now.at.since(since)).filter(|time| *time >= self.node.lease())
    }

    fn unix_ms(&self) -> u64 {
        self.now.unix_ms
    }
}

impl Node {
    /// The definition that a client asks for; what it says of its own session is said of that one by its id.
    pub(super) fn definition_for(&mut self, now: Now, connection: ConnectionId, spec: &TopicSpec) -> Result<Definition, Refusal> {
        let definition = parse_definition(spec)?;
        self.supply(&definition)?;
        let refused = |why: String| Refusal::new(Code::InvalidDefinition, "removal", why);
        if let Some(owner) = definition.owner() {
            mangrove_crdt::access::check_principal(owner).map_err(|why| Refusal::new(Code::InvalidDefinition, "owner", why))?;
        }
        let Some(removal) = definition.removal() else { return Ok(definition) };
        let hint =
            "as in: when this session closes; no session has \"$Principal is 'ann'\" for 10m; no updates for 1h; subscriptions < 1 for 10m";
        let mut condition = Condition::parse(removal).map_err(|error| refused(error.to_string()).hint(hint))?;
        if condition.clauses().contains(&&When::ThisSessionCloses) {
            let (session, _) = self.open_session(now, connection)?;
            condition = condition.map(&mut |clause| clause.of(session));
        }
        definition.with_removal(&condition.to_string()).map_err(|error| refused(error.to_string()))
    }

    /// Finds the topics that are to be removed at some time, among those that this node has had before it started.
    pub(super) fn load_removals(&mut self, now: Now) {
        self.load_subscribers();
        if !self.replica.removes_topics() {
            return;
        }
        let found = self.replica.topics_from("").filter(|(_, topic)| topic.definition.removal().is_some());
        let found: Vec<(SectionId, Path)> = found.map(|(section, topic)| (section, topic.path.clone())).collect();
        found.into_iter().for_each(|(section, path)| self.watch_removal(now, section, &path));
        let sessions: Vec<SessionId> = self.removals.by_session.keys().copied().collect();
        sessions.into_iter().for_each(|session| self.removal_session(now, session));
    }

    /// A topic has come, gone, or got another definition.
    pub(super) fn watch_removal(&mut self, now: Now, section: SectionId, path: &Path) {
        let key = (section, path.clone());
        let there = self.replica.topic(path).filter(|(at, _)| *at == section).and_then(|(_, topic)| topic.definition.removal());
        // What this version does not understand it does not remove.
        let found = there.and_then(|removal| Some((removal.to_owned(), Condition::parse(removal).ok()?)));
        if self.removals.topics.is_empty() && found.is_none() {
            return;
        }
        self.unwatch_removal(&key);
        let Some((removal, condition)) = found else { return };
        let (mut fresh, mut few) = (Vec::new(), BTreeMap::new());
        for clause in condition.clauses() {
            match clause {
                When::SessionCloses(session) => {
                    self.removals.by_session.entry(*session).or_default().insert(key.clone());
                    fresh.push(*session);
                }
                When::NoSession(filter, _) => {
                    self.removals.filters.entry(filter.clone()).or_insert(None);
                    self.removals.by_time.insert(key.clone());
                }
                When::Subscriptions(number, _) => {
                    few.insert(*number, None);
                    self.removals.subscribers.ask(&key, true);
                    self.removals.by_time.insert(key.clone());
                }
                _ => _ = self.removals.by_time.insert(key.clone()),
            }
        }
        self.removals.topics.insert(key, Watched { removal, condition, written: now.at, few });
        fresh.into_iter().for_each(|session| self.removal_session(now, session));
    }

    fn unwatch_removal(&mut self, key: &(SectionId, Path)) {
        let Some(watched) = self.removals.topics.remove(key) else { return };
        self.removals.by_time.remove(key);
        self.removals.subscribers.ask(key, false);
        for clause in watched.condition.clauses() {
            let When::SessionCloses(session) = clause else { continue };
            let left = self.removals.by_session.get_mut(session).map(|topics| {
                topics.remove(key);
                topics.len()
            });
            if left == Some(0) {
                self.removals.by_session.remove(session);
                self.removals.ended.remove(session);
                self.removals.unheard.remove(session);
            }
        }
        if self.removals.topics.is_empty() {
            self.removals.filters.clear();
        }
    }

    /// A topic has been written.
    pub(super) fn removal_written(&mut self, now: Now, section: SectionId, topic: DotIx) {
        if self.removals.by_time.is_empty() {
            return;
        }
        if let Some(path) = self.replica.path_of(section, topic).cloned()
            && let Some(watched) = self.removals.topics.get_mut(&(section, path))
        {
            watched.written = now.at;
        }
    }

    /// A session's record has changed: if it has ended for good, its topics go.
    pub(super) fn removal_session(&mut self, now: Now, session: SessionId) {
        self.removals.subscribers.doubt();
        if !self.removals.by_session.contains_key(&session) {
            return;
        }
        let record = self.replica.standing::<SessionRecord>(SectionId::MESH, Standing::Session(session));
        match record {
            None if !self.removals.ended.contains(&session) => _ = self.removals.unheard.entry(session).or_insert(now.at),
            None => {}
            Some(record) => {
                self.removals.unheard.remove(&session);
                if record.ended.is_some() {
                    self.removals.ended.insert(session);
                }
            }
        }
        self.remove_of_session(now, session);
    }

    /// A session has ended for good, and nothing is left of it.
    pub(super) fn removal_session_gone(&mut self, now: Now, session: SessionId) {
        self.removals.subscribers.session_gone(session);
        if self.removals.by_session.contains_key(&session) {
            self.removals.ended.insert(session);
            self.remove_of_session(now, session);
        }
    }

    fn remove_of_session(&mut self, now: Now, session: SessionId) {
        if self.removals.ended.contains(&session) {
            let topics = self.removals.by_session.get(&session).cloned().unwrap_or_default();
            self.remove_due(now, topics);
        }
    }

    /// Removes what is due by now. To be called about every second.
    pub(super) fn removals_due(&mut self, now: Now) {
        self.subscribers_due(now);
        if self.removals.topics.is_empty() {
            return;
        }
        let filters: Vec<String> = self.removals.filters.keys().cloned().collect();
        for text in filters {
            let Ok(filter) = Filter::parse(&text) else { continue };
            let met = self.living_sessions().any(|(id, record)| filter.meets(&self.facts(id, &record)));
            let since = self.removals.filters.get_mut(&text).expect("it was found here");
            *since = if met { None } else { since.or(Some(now.at)) };
        }
        let sessions = self.removals.ended.iter().chain(self.removals.unheard.keys());
        let of_sessions = sessions.filter_map(|session| self.removals.by_session.get(session)).flatten();
        let due: BTreeSet<(SectionId, Path)> = of_sessions.chain(&self.removals.by_time).cloned().collect();
        self.remove_due(now, due);
    }

    /// Removes those of some topics that are to be removed now, where that is for this node to do.
    fn remove_due(&mut self, now: Now, topics: BTreeSet<(SectionId, Path)>) {
        let mut judges: BTreeMap<SectionId, bool> = BTreeMap::new();
        let mut is_due = |key: &(SectionId, Path)| {
            let watched = self.removals.topics.get(key)?;
            // It may be another by now, of which is yet to be heard here.
            let (_, topic) = self.replica.topic(&key.1).filter(|(section, _)| *section == key.0)?;
            if topic.definition.removal() != Some(&watched.removal) {
                return None;
            }
            let judges = *judges.entry(key.0).or_insert_with(|| self.is_least_holder(now, key.0));
            let known = Known { node: self, now, watched };
            (judges && watched.condition.is_met(&mut |clause| clause.is_met(&known))).then(|| key.1.clone())
        };
        let due: Vec<Path> = topics.iter().filter_map(&mut is_due).collect();
        if due.is_empty() {
            return;
        }
        // A disk that takes nothing will take it later.
        if self.store_refusal.as_ref().is_some_and(|refusal| refusal.code != Code::Full) {
            return;
        }
        tracing::info!(topics = due.len(), first = %due[0], "topics have come to the end that they were made with");
        self.replica.remove_topics(&due);
    }

    /// Whether this node is the one of a section's holders that does here what one has to do: the least of those that live.
    fn is_least_holder(&self, now: Now, section: SectionId) -> bool {
        if section == SectionId::LOCAL {
            return true;
        }
        let nodes = self.replica.nodes();
        let holds = |node: &mangrove_crdt::id::NodeId| {
            *node == self.id() || (nodes.get(node).is_some_and(|record| record.holds.contains(&section)) && self.lives(now, node))
        };
        nodes.keys().find(|node| holds(node)) == Some(&self.id())
    }
}

#[cfg(test)]
mod tests;
