//! Who is subscribed to the topics that ask for it.
//!
//! A lost connection, or a node that is out of reach, is no reason to go: so it is sessions that count, until they have ended for good or do without the topic by their own wish. Their
//! homes say so in the standing plane of the topic's section, a record for each session, written under the session's epoch: whoever takes a session up has its records with it, and
//! what an old home writes comes to nothing. A home says it of no more sessions than a topic asks for. Of connections without a session, which end with the
//! connection, a node tells how many there are.
//!
//! All this is looked at about once a second, and only where a topic asks for it and something has changed.

use mangrove_crdt::{
    id::NodeId,
    section::StandingKey,
    standing::{BranchHash, SubscribersRecord},
};

use super::*;

/// Whose subscription a record is of.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Subscriber {
    /// A session's.
    Session(SessionId),
    /// A node's, for the connections that have none.
    Node(NodeId),
}

/// A topic, as records name it.
type Place = (SectionId, BranchHash);

/// How many each record tells of.
type Told = BTreeMap<Place, BTreeMap<Subscriber, u32>>;

/// Who is known to be subscribed.
#[derive(Debug, Default)]
pub struct Subscribers {
    /// The topics that ask for them.
    asked: BTreeMap<Path, SectionId>,
    /// The records that there are, or were a moment ago.
    records: BTreeMap<Place, BTreeSet<Subscriber>>,
    /// Sessions with records of which nobody here has heard, and since when; `None` for one that is known to have ended.
    unheard: BTreeMap<SessionId, Option<Instant>>,
    /// Whether something may have changed since they were looked at.
    stale: bool,
}

impl Subscribers {
    /// Has everything looked at anew.
    pub fn doubt(&mut self) {
        self.stale = true;
    }

    /// A topic asks for them, or no more.
    pub fn ask(&mut self, (section, path): &(SectionId, Path), asks: bool) {
        if asks {
            self.asked.insert(path.clone(), *section);
            self.stale = true;
        } else if self.asked.get(path) == Some(section) {
            self.asked.remove(path);
            self.stale = true;
        }
    }

    /// A session has ended for good, and nothing is left of it.
    pub fn session_gone(&mut self, session: SessionId) {
        if !self.records.is_empty() {
            self.unheard.insert(session, None);
            self.stale = true;
        }
    }
}

impl Subscriber {
    fn of(key: &StandingKey) -> Option<(BranchHash, Self)> {
        match Standing::of_key(key)? {
            Standing::Subscriber(topic, session) => Some((topic, Subscriber::Session(session))),
            Standing::Subscribers(topic, node) => Some((topic, Subscriber::Node(node))),
            _ => None,
        }
    }

    fn standing(self, topic: BranchHash) -> Standing {
        match self {
            Subscriber::Session(session) => Standing::Subscriber(topic, session),
            Subscriber::Node(node) => Standing::Subscribers(topic, node),
        }
    }
}

/// Who of this node's own is subscribed to a topic.
#[derive(Default)]
struct Here {
    /// How many are asked for.
    asked: u32,
    sessions: BTreeSet<SessionId>,
    /// Connections without a session.
    others: u32,
}

impl Node {
    /// Finds the records of subscribers that this node has had before it started.
    pub(super) fn load_subscribers(&mut self) {
        let sections: Vec<SectionId> = self.replica.held().chain([SectionId::LOCAL]).collect();
        for section in sections {
            let keys = self.replica.section(section).into_iter().flat_map(|held| held.standing.iter());
            let keys: Vec<StandingKey> = keys.map(|(key, _)| key).filter(|key| Subscriber::of(key).is_some()).cloned().collect();
            keys.iter().for_each(|key| self.subscriber_changed(section, key));
        }
    }

    /// A standing record has changed.
    pub(in crate::node) fn subscriber_changed(&mut self, section: SectionId, key: &StandingKey) {
        if let Some((topic, who)) = Subscriber::of(key) {
            self.removals.subscribers.records.entry((section, topic)).or_default().insert(who);
            self.removals.subscribers.stale = true;
        }
    }

    /// Tells of this node's subscribers what others do not know, and counts all. To be called about every second.
    pub(super) fn subscribers_due(&mut self, now: Now) {
        let Subscribers { asked, records, stale, .. } = &mut self.removals.subscribers;
        if !std::mem::take(stale) || (asked.is_empty() && records.is_empty()) {
            return;
        }
        let mut told = self.told_subscribers();
        self.tell_subscribers(now, &mut told);
        let known: BTreeSet<Subscriber> = told.values().flat_map(BTreeMap::keys).copied().collect();
        self.removals.subscribers.unheard.retain(|session, _| known.contains(&Subscriber::Session(*session)));
        self.removals.subscribers.records = told.iter().map(|(place, who)| (*place, who.keys().copied().collect())).collect();
        let gone = known.into_iter().filter(|who| self.is_subscriber_gone(now, *who)).collect();
        self.clear_subscribers(now, &told, &gone);
        self.count_subscribers(now, &told, &gone);
    }

    /// What the records say.
    fn told_subscribers(&self) -> Told {
        let records = self.removals.subscribers.records.iter();
        let told = records.map(|(place, all)| {
            let count = |who: &Subscriber| self.replica.standing::<SubscribersRecord>(place.0, who.standing(place.1));
            (*place, all.iter().filter_map(|who| Some((*who, count(who)?.count))).collect::<BTreeMap<_, _>>())
        });
        told.filter(|(_, all)| !all.is_empty()).collect()
    }

    /// This node's own, by topics that ask for any.
    fn subscribers_here(&self) -> BTreeMap<Place, Here> {
        let asked = &self.removals.subscribers.asked;
        let most = |section: &SectionId, path: &Path| {
            let watched = self.removals.topics.get(&(*section, path.clone()));
            watched.and_then(|watched| watched.few.keys().next_back().copied()).unwrap_or(0)
        };
        let place = |section: &SectionId, path: &Path| (*section, BranchHash::of(path));
        let mut here: BTreeMap<Place, Here> = BTreeMap::new();
        for (path, section) in asked {
            here.insert(place(section, path), Here { asked: most(section, path), ..Here::default() });
        }
        for client in self.connections.values() {
            for (path, section) in client.subscribed_among(&self.replica, asked) {
                let here = here.entry(place(&section, path)).or_default();
                match client.session {
                    Some(session) => _ = here.sessions.insert(session),
                    None => here.others += 1,
                }
            }
        }
        here
    }

    /// Writes and removes records of this node's own, and notes them in what is told.
    fn tell_subscribers(&mut self, now: Now, told: &mut Told) {
        let here = self.subscribers_here();
        let own = self.id();
        let mut puts: Vec<(Place, Subscriber, u32)> = Vec::new();
        for (place, Here { asked, sessions, others }) in &here {
            let told = |who| told.get(place).and_then(|told| told.get(&who)).copied().unwrap_or(0);
            let (known, fresh): (Vec<SessionId>, Vec<SessionId>) = sessions.iter().partition(|id| told(Subscriber::Session(**id)) > 0);
            let room = (*asked as usize).saturating_sub(known.len());
            puts.extend(fresh.into_iter().take(room).map(|id| (*place, Subscriber::Session(id), 1)));
            let others = (*others).min(*asked);
            if told(Subscriber::Node(own)) != others {
                puts.push((*place, Subscriber::Node(own), others));
            }
        }
        // What others hear of first are those that come in the place of others.
        let mut doubt = false;
        for (place, told) in told.iter() {
            let here = here.get(place);
            for who in told.keys() {
                match who {
                    Subscriber::Session(id) if here.is_none_or(|here| !here.sessions.contains(id)) => {
                        // One that is away is subscribed until it says otherwise, and who has just come may not have said everything yet.
                        let session = self.sessions.all.get(id).filter(|session| session.connection.is_some());
                        match session.map(|session| now.at.since(session.taken_up_at) >= self.lease()) {
                            Some(true) => puts.push((*place, *who, 0)),
                            Some(false) => doubt = true,
                            None => {}
                        }
                    }
                    Subscriber::Node(node) if *node == own && here.is_none() => puts.push((*place, *who, 0)),
                    _ => {}
                }
            }
        }
        for (place, who, count) in puts {
            let under = match who {
                Subscriber::Session(id) => self.sessions.all.get(&id).map(|session| session.record.under()),
                Subscriber::Node(_) => Some(Under::default()),
            };
            let Some(under) = under else { continue };
            let record = (count > 0).then(|| minicbor::to_vec(SubscribersRecord { count }).expect("encoding to memory"));
            if self.replica.put_standing_in(place.0, who.standing(place.1), under, now.unix_ms, record).is_some() {
                match count {
                    0 => _ = told.get_mut(&place).and_then(|told| told.remove(&who)),
                    count => _ = told.entry(place).or_default().insert(who, count),
                }
            }
        }
        self.removals.subscribers.stale |= doubt;
    }

    fn is_subscriber_gone(&mut self, now: Now, who: Subscriber) -> bool {
        let id = match who {
            Subscriber::Session(id) => id,
            Subscriber::Node(node) => return self.is_gone(now, &node),
        };
        let unheard = &mut self.removals.subscribers.unheard;
        match self.replica.standing::<SessionRecord>(SectionId::MESH, Standing::Session(id)) {
            Some(record) => {
                unheard.remove(&id);
                record.ended.is_some()
            }
            None => match unheard.entry(id).or_insert(Some(now.at)) {
                Some(since) => now.at.since(*since) >= self.config.presume_dead,
                None => true,
            },
        }
    }

    /// Removes the records of those that are gone for good: for the least of their section's holders to do.
    fn clear_subscribers(&mut self, now: Now, told: &Told, gone: &BTreeSet<Subscriber>) {
        let all = told.iter().flat_map(|(place, told)| told.keys().map(move |who| (*place, *who)));
        for ((section, topic), who) in all.filter(|(_, who)| gone.contains(who)) {
            let under = match who {
                Subscriber::Session(_) => SessionRecord::under_final(),
                Subscriber::Node(_) => Under::default(),
            };
            if self.is_least_holder(now, section) {
                self.replica.put_standing_in(section, who.standing(topic), under, now.unix_ms, None);
            }
        }
    }

    /// Notes since when topics have fewer subscribers than they ask for.
    fn count_subscribers(&mut self, now: Now, told: &Told, gone: &BTreeSet<Subscriber>) {
        let Removals { topics, subscribers, .. } = &mut self.removals;
        for (path, section) in &subscribers.asked {
            let told = told.get(&(*section, BranchHash::of(path))).into_iter().flatten();
            let count = told.filter(|(who, _)| !gone.contains(who)).fold(0_u32, |sum, (_, count)| sum.saturating_add(*count));
            // Who is still being told of the section has yet to hear of some.
            let knows = self.replica.section(*section).is_some_and(|held| held.tree.is_settled());
            let Some(watched) = topics.get_mut(&(*section, path.clone())) else { continue };
            for (few, since) in &mut watched.few {
                *since = if knows && count < *few { since.or(Some(now.at)) } else { None };
            }
            subscribers.stale |= !knows;
        }
    }
}
