//! Clients connected to this node, and what they have subscribed to.
//!
//! **Subscribers pull.** A subscription holds a set of changed topics, each at most once, and never a queue of values: whoever is slow
//! gets the newest state when it comes round, and costs no more for it. Only where a topic says `conflate=off` do values wait, so many at most.

mod places;
#[cfg(test)]
mod tests;
mod waiting;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use mangrove_crdt::{
    access::{Permission, Rights, Rules},
    definition::{Definition, Priority, TYPE_PROPERTIES, TopicType},
    frontier::DotIx,
    id::{Plane, SectionId, SessionId},
    path::Path,
    registers::Write,
    replica::{EventRange, Replica},
    sabotage::{Sabotage, is},
    selector::Selector,
    standing::{Identity, Via, Who},
    time::Instant,
};

use zeroize::Zeroizing;

use self::{
    places::{Awaited, Base, Marks, Position, Wait},
    waiting::{Passed, Passing, Waiting},
};
use super::{blobs::Upload, events, input::ConnectionId, sessions::listeners::Listeners};
use crate::protocol::{
    Aliases, Allowed, Code, Event, FRAME_AIM, FromNode, Gone, Heard, Mark, Message, MissingTopic, Refusal, Target, Through, TopicSpec,
    Update,
};

/// How many subscriptions one session may have.
pub const SUBSCRIPTIONS_MAX: usize = 1_000;

/// How many aliases a session's client may give.
pub const ALIASES_MAX: u32 = 1 << 20;

/// How many topics one look for new matches goes through at a time, so that a large tree does not hold up the node.
const SCAN_MAX: usize = 10_000;

/// How many messages may wait for a client beside its updates, before it is told of nothing that others can be told of.
const OUTGOING_MAX: usize = 1_024;

/// How many messages, and how many bytes of them, may wait for a subscription's client.
pub(super) const MESSAGES_MAX: usize = 1_024;
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// How many paths one [`FromNode::Present`] has.
const PRESENT_MAX: usize = 1_000;

/// A client.
#[derive(Debug)]
pub struct Connection {
    /// The paths that it has given numbers; none for a number given to what is no path that it may use.
    pub aliases: Aliases<Option<Path>>,
    subscriptions: BTreeMap<u32, Subscription>,
    next_subscription: u32,
    named: Named,
    /// What the client says that it is.
    pub client: String,
    /// How it has come.
    pub via: Via,
    /// What the next session of this connection gets its id and secret from.
    pub entropy: Zeroizing<[u8; 32]>,
    /// Whose it is; nobody's until it has taken up the session for whose sake it was let in.
    pub identity: Option<Identity>,
    /// What those who let it in say of its sessions: user properties.
    pub properties: BTreeMap<String, String>,
    rights: Rights,
    /// What stands for these rights by the present rules, where somebody else has the same; 0 for the right to everything.
    basis: u64,
    /// The session that the mesh knows, if there is one.
    pub session: Option<SessionId>,
    /// Who listens to sessions on it.
    pub listeners: Listeners,
    /// The blob that its client is bringing.
    pub(super) upload: Option<Upload>,
    marks: Marks,
    /// What goes out before anything else.
    outgoing: VecDeque<FromNode>,
    /// Selectors that have come to nothing, since somebody looked.
    missed: Vec<Selector>,
}

#[derive(Debug)]
struct Subscription {
    selector: Selector,
    stamps: bool,
    /// Whether its session may select this, once that has been looked at since its rights changed.
    entitled: bool,
    /// How far its client has been told that it has come, if it may go on elsewhere.
    position: Option<Position>,
    awaited: Option<Awaited>,
    /// What it had heard completely before, until that is awaited, and then until all is told.
    through: Option<Through>,
    base: Option<Base>,
    credit: u64,
    /// How far the first look has come: everything before this path was seen.
    scan: Option<String>,
    synced_told: bool,
    /// Topics that have changed since they were last told, each once.
    changed: Waiting,
    /// Values of those that are told value by value.
    passing: HashMap<Path, Passing>,
    /// Topics that the client knows to be there, and those that have changed.
    topics: HashMap<Path, Known>,
    /// Of slaves among them, which are few, the section of the master.
    masters: HashMap<Path, SectionId>,
    messages: Messages,
}

/// Messages that wait for a subscription's client.
#[derive(Debug, Default)]
struct Messages {
    waiting: VecDeque<(Path, Message)>,
    bytes: usize,
    /// How many were lost since the last that was told.
    lost: u64,
}

impl Messages {
    /// One more; the oldest are lost where there are too many.
    fn push(&mut self, path: &Path, message: &Message) {
        self.bytes += message.content.len();
        self.waiting.push_back((path.clone(), message.clone()));
        while self.waiting.len() > 1 && (self.waiting.len() > MESSAGES_MAX || self.bytes > MESSAGE_BYTES_MAX) {
            self.pop();
            self.lost += 1;
        }
    }

    fn pop(&mut self) -> Option<(Path, Message)> {
        let (path, message) = self.waiting.pop_front()?;
        self.bytes -= message.content.len();
        Some((path, message))
    }
}

/// A topic, as one subscription knows it.
#[derive(Debug, Default)]
struct Known {
    /// What the client knows to be there.
    told: Option<Arc<Definition>>,
    /// Whether it stands among the changed ones.
    waiting: bool,
    /// Whether the client knows a value of it.
    valued: bool,
    /// Whether it has been told to forget what was there before.
    cleared: bool,
    /// Whether a value has come since it was told one.
    news: bool,
}

impl Connection {
    /// A connection without subscriptions, whose client keeps so many aliases.
    pub fn new(client: String, via: Via, aliases_max: u32, entropy: [u8; 32]) -> Self {
        Connection {
            aliases: Aliases::new(ALIASES_MAX),
            subscriptions: BTreeMap::new(),
            next_subscription: 0,
            named: Named { numbers: HashMap::new(), count_max: aliases_max },
            client,
            via,
            entropy: entropy.into(),
            identity: None,
            properties: BTreeMap::new(),
            rights: Rights::default(),
            basis: 0,
            session: None,
            listeners: Listeners::default(),
            upload: None,
            marks: Marks::default(),
            outgoing: VecDeque::new(),
            missed: Vec::new(),
        }
    }

    /// What has come to nothing.
    pub fn take_missed(&mut self) -> Vec<Selector> {
        std::mem::take(&mut self.missed)
    }

    /// Tells its client of missing topics, unless that is so busy that it would be told too late. Says whether it is told.
    pub fn tell_missing(&mut self, missing: MissingTopic) -> bool {
        let takes = self.outgoing.len() < OUTGOING_MAX;
        if takes {
            self.outgoing.push_back(FromNode::Missing(Box::new(missing)));
        }
        takes
    }

    /// Begins to tell of each matching topic, now and from now on. If the client may go on elsewhere, `heard` is what it has heard there; until then that is
    /// waited for.
    pub fn subscribe(
        &mut self,
        selector: Selector,
        credit: u32,
        stamps: bool,
        heard: Option<Heard>,
        until: Instant,
    ) -> Result<u32, Refusal> {
        if self.subscriptions.len() >= SUBSCRIPTIONS_MAX {
            let why = format!("a session has at most {SUBSCRIPTIONS_MAX} subscriptions");
            return Err(Refusal::new(Code::TooMany, selector.to_string(), why).hint("unsubscribe, or join selectors with # and ////"));
        }
        self.next_subscription += 1;
        let position = heard.is_some().then(Position::default);
        let Heard { seen, through } = heard.unwrap_or_default();
        let awaited = (!seen.is_empty()).then(|| Awaited::new(seen, until));
        let mut subscription = Subscription {
            selector,
            stamps,
            entitled: false,
            position,
            awaited,
            through,
            base: None,
            credit: credit.into(),
            scan: None,
            synced_told: false,
            changed: Waiting::default(),
            passing: HashMap::new(),
            topics: HashMap::new(),
            masters: HashMap::new(),
            messages: Messages::default(),
        };
        subscription.scan = Some(subscription.first());
        self.subscriptions.insert(self.next_subscription, subscription);
        Ok(self.next_subscription)
    }

    /// Whether a topic is its principal's own.
    pub fn owns(&self, replica: &Replica, path: &Path) -> bool {
        owns(replica, owner(self.identity.as_ref()), path)
    }

    /// What its session may do.
    pub fn rights(&self) -> &Rights {
        &self.rights
    }

    /// Its session may do something else from now on, or the same by other rules: what it may not see any more is taken back, what it may see now is looked for.
    pub fn set_rights(&mut self, replica: &Replica, rights: Rights, basis: u64) {
        (self.rights, self.basis) = (rights, basis);
        self.marks.policy_changed();
        if is(Sabotage::KeepsRights) {
            return;
        }
        let owner = owner(self.identity.as_ref());
        for subscription in self.subscriptions.values_mut() {
            subscription.entitled = false;
            #[allow(clippy::disallowed_methods, reason = "they are put in order")]
            let told = subscription.topics.iter().filter(|(_, topic)| topic.told.is_some()).map(|(path, _)| path);
            let mut lost: Vec<Path> = told.filter(|path| !may_read(replica, &self.rights, owner, path)).cloned().collect();
            lost.sort_unstable();
            lost.iter().for_each(|path| subscription.mark(path));
            subscription.base.iter_mut().for_each(Base::rights_changed);
            subscription.position.iter_mut().for_each(|position| *position = Position::default());
            subscription.scan = Some(subscription.first());
        }
    }

    /// Tells no more. Says whether there was such a subscription.
    pub fn unsubscribe(&mut self, subscription: u32) -> bool {
        self.subscriptions.remove(&subscription).is_some()
    }

    /// Tells no more of what a selector comes to, by whichever subscription.
    pub fn deselect(&mut self, selector: &str) {
        self.subscriptions.retain(|_, subscription| subscription.selector.as_str() != selector);
    }

    /// The client can take more.
    pub fn grant(&mut self, subscription: u32, updates: u32) {
        if let Some(subscription) = self.subscriptions.get_mut(&subscription) {
            subscription.credit += u64::from(updates);
        }
    }

    /// Time passes for what waits. Until when something may still wait.
    pub fn waits_until(&mut self, now: Instant) -> Option<Instant> {
        let waiting = self.subscriptions.values_mut().filter_map(|subscription| subscription.awaited.as_mut());
        waiting.filter_map(|awaited| awaited.at(now)).min()
    }

    /// Sees whether this node has come to where subscriptions' clients have been elsewhere.
    fn settle_awaited(&mut self, replica: &Replica) {
        for (id, subscription) in &mut self.subscriptions {
            let wait = subscription.awaited.as_mut().map_or(Wait::On, |awaited| awaited.look(replica));
            if wait == Wait::On {
                continue;
            }
            subscription.awaited = None;
            let through = subscription.through.take();
            if wait == Wait::Vain {
                self.outgoing.push_back(FromNode::Rewound { subscription: *id });
            } else {
                subscription.base = through.map(|through| Base::new(replica, through, self.basis));
            }
        }
    }

    /// Ends the subscriptions to what its session may not select, and says so.
    fn end_unentitled(&mut self, rules: &Rules) {
        for (id, subscription) in &mut self.subscriptions {
            // What its client has seen elsewhere may be what entitles it.
            if subscription.entitled || subscription.awaited.is_some() {
                continue;
            }
            match may_select(rules, &self.rights, &subscription.selector) {
                Ok(()) => subscription.entitled = true,
                Err(at) => {
                    let refusal = not_selectable(&subscription.selector, &at);
                    self.outgoing.push_back(FromNode::Unsubscribed { subscription: *id, refusal });
                }
            }
        }
        for message in &self.outgoing {
            if let FromNode::Unsubscribed { subscription, .. } = message {
                self.subscriptions.remove(subscription);
            }
        }
    }

    /// Those of some topics that it has subscribed to and may see.
    pub fn subscribed_among<'a>(&self, replica: &Replica, topics: &'a BTreeMap<Path, SectionId>) -> BTreeMap<&'a Path, SectionId> {
        let owner = owner(self.identity.as_ref());
        let mut found = BTreeMap::new();
        for subscription in self.subscriptions.values() {
            let first = subscription.first();
            let from = topics
                .range::<str, _>((Bound::Included(&*first), Bound::Unbounded))
                .take_while(|(path, _)| path.as_str().starts_with(&first));
            let matching = from.filter(|(path, _)| subscription.selector.matches(path) && may_read(replica, &self.rights, owner, path));
            found.extend(matching.map(|(path, section)| (path, *section)));
        }
        found
    }

    /// Whether it has any subscription.
    pub fn listens(&self) -> bool {
        !self.subscriptions.is_empty()
    }

    /// A topic came, went, or got another definition.
    pub fn topic_changed(&mut self, path: &Path) {
        for subscription in self.subscriptions.values_mut() {
            if subscription.is_told(path) || (subscription.is_seen(path) && subscription.selector.matches(path)) {
                subscription.mark(path);
            }
        }
    }

    /// A topic has another value; the value itself, if it is told value by value.
    pub fn value_changed(&mut self, path: &Path, passed: Option<&Passed>) {
        for subscription in self.subscriptions.values_mut() {
            let Some(topic) = subscription.topics.get_mut(path) else { continue };
            topic.news = true;
            let Some(told) = &topic.told else { continue };
            if let Some(passed) = passed {
                subscription.passing.entry(path.clone()).or_default().push(passed);
            }
            if !std::mem::replace(&mut topic.waiting, true) {
                subscription.changed.push(told.properties().priority, path.clone());
            }
        }
    }

    /// Somebody has sent a message to whoever listens to a topic. Says whether its client does.
    pub fn tell_message(&mut self, replica: &Replica, path: &Path, message: &Message) -> bool {
        // What it has not looked at yet it is going to be told of.
        let listens = |subscription: &&mut Subscription| {
            subscription.topics.contains_key(path) || (!subscription.is_seen(path) && subscription.selector.matches(path))
        };
        let mut listening = self.subscriptions.values_mut().filter(listens).peekable();
        if listening.peek().is_none() || !may_read(replica, &self.rights, owner(self.identity.as_ref()), path) {
            return false;
        }
        for subscription in listening {
            if !subscription.topics.contains_key(path) {
                subscription.mark(path);
            }
            subscription.messages.push(path, message);
        }
        true
    }

    /// A message for its session alone. Says whether it is told.
    pub fn give_message(&mut self, path: &Path, message: Message) -> bool {
        let takes = self.outgoing.len() < OUTGOING_MAX;
        if takes {
            self.outgoing.push_back(FromNode::Message { path: path.to_string(), message: Box::new(message) });
        }
        takes
    }

    /// What can be told now: up to about one frame of updates, or that a first look is complete.
    pub fn poll(&mut self, replica: &Replica) -> Option<FromNode> {
        if let Some(message) = self.outgoing.pop_front() {
            return Some(message);
        }
        self.settle_awaited(replica);
        self.end_unentitled(replica.rules());
        let (rights, owner) = (&self.rights, owner(self.identity.as_ref()));
        let mut updates = Vec::new();
        let (mut seen, mut positions, mut quiet) = (Vec::<Mark>::new(), Vec::new(), false);
        let mut bytes = 0;
        for (id, subscription) in &mut self.subscriptions {
            if subscription.awaited.is_some() {
                continue;
            }
            subscription.look(replica);
            while subscription.credit > 0 && bytes < FRAME_AIM {
                let Some((turn, path)) = subscription.changed.pop() else { break };
                let before = subscription.masters.get(&path).copied();
                let (told, more) = subscription.step(replica, &path, may_read(replica, rights, owner, &path));
                if more {
                    subscription.changed.put_back(turn, path.clone());
                }
                if let Some(position) = &mut subscription.position {
                    position.told(u32::from(told.is_some() && !more));
                }
                let Some((event, section, change)) = told else { continue };
                let marked = subscription.position.is_some();
                let mark = change.filter(|_| marked).map(|(plane, dot)| self.marks.mark(replica, section, plane, dot));
                if marked {
                    // Wherever its client goes on, by no older rules.
                    seen.extend(self.marks.policy(replica));
                    if matches!(event, Event::Removed { .. }) {
                        seen.extend(self.marks.tree(replica, section));
                    }
                    // That a slave is there, or is not any more, is so by its master.
                    let of = subscription.masters.get(&path).copied().or(before);
                    if let (Some(of), Event::Removed { .. } | Event::Added { .. }) = (of, &event) {
                        seen.extend(self.marks.tree(replica, of));
                    }
                }
                if let Event::Value { value, .. } = &event {
                    bytes += value.len();
                }
                bytes += 32;
                subscription.credit -= 1;
                updates.push(Update { subscription: *id, topic: self.named.target(&path), event, mark });
            }
            while subscription.credit > 0 && bytes < FRAME_AIM {
                let Some((path, message)) = subscription.next_message() else { break };
                bytes += message.content.len() + 64;
                subscription.credit -= 1;
                let event = Event::Message(Box::new(message));
                updates.push(Update { subscription: *id, topic: self.named.target(&path), event, mark: None });
            }
            if subscription.scan.is_some() {
                // What its client knows already takes time and makes no update: this brings the next turn.
                quiet |= updates.is_empty() && subscription.changed.is_empty() && subscription.credit > 0;
                continue;
            }
            if updates.is_empty() && self.outgoing.is_empty() && subscription.changed.is_empty() && !subscription.synced_told {
                subscription.synced_told = true;
                if subscription.topics.is_empty() {
                    self.missed.push(subscription.selector.clone());
                }
                if let Some(base) = subscription.base.take() {
                    #[allow(clippy::disallowed_methods, reason = "they are put in order")]
                    let told = subscription.topics.iter().filter(|(_, topic)| topic.told.is_some()).map(|(path, _)| path);
                    for (slot, paths) in base.differing(told) {
                        let parts: Vec<Vec<String>> = match paths.is_empty() {
                            true => vec![Vec::new()],
                            false => paths.chunks(PRESENT_MAX).map(<[String]>::to_vec).collect(),
                        };
                        let present = |paths| FromNode::Present { subscription: *id, slot, paths };
                        self.outgoing.extend(parts.into_iter().map(present));
                    }
                }
                self.outgoing.push_back(FromNode::Synced { subscription: *id });
            }
            if let Some(position) = subscription.position.as_mut().filter(|_| subscription.synced_told)
                && let Some(marks) = position.look(replica, &subscription.selector, &subscription.changed, &mut self.marks)
            {
                positions.push(FromNode::Position { subscription: *id, marks, rights: self.basis });
            }
        }
        if quiet && updates.is_empty() && self.outgoing.is_empty() {
            self.outgoing.push_back(FromNode::Seen(Vec::new()));
        }
        let feeds = self.marks.unsaid();
        let messages = [
            (!feeds.is_empty()).then_some(FromNode::Feeds(feeds)),
            (!seen.is_empty()).then_some(FromNode::Seen(seen)),
            (!updates.is_empty()).then_some(FromNode::Updates(updates)),
        ];
        self.outgoing.extend(messages.into_iter().flatten());
        // What they say is true only after the updates before them.
        self.outgoing.extend(positions);
        self.outgoing.pop_front()
    }
}

/// The numbers that stand for paths on a connection.
#[derive(Debug)]
struct Named {
    numbers: HashMap<Path, u32>,
    count_max: u32,
}

impl Named {
    /// How to name a path.
    fn target(&mut self, path: &Path) -> Target {
        let next = self.numbers.len() as u32;
        match self.numbers.get(path) {
            Some(alias) => Target::Alias(*alias),
            None if next < self.count_max => {
                self.numbers.insert(path.clone(), next);
                Target::Named { alias: next, path: path.to_string() }
            }
            None => Target::Path(path.to_string()),
        }
    }
}

/// Something to be told: what happened, in which section, and by which change.
type Told = (Event, SectionId, Option<(Plane, DotIx)>);

/// Whether a session may see a topic: by the rules, or since it is its principal's own.
fn may_read(replica: &Replica, rights: &Rights, owner: Option<&str>, path: &Path) -> bool {
    rights.is_everything() || replica.rules().at(rights, path.as_str()).has(Permission::Read) || owns(replica, owner, path)
}

fn owns(replica: &Replica, owner: Option<&str>, path: &Path) -> bool {
    owner.is_some() && replica.topic(path).is_some_and(|(_, topic)| topic.definition.owner() == owner)
}

/// The name by which somebody owns topics.
fn owner(identity: Option<&Identity>) -> Option<&str> {
    match identity.map(|identity| &identity.who) {
        Some(Who::Principal(name)) => Some(name),
        _ => None,
    }
}

/// Whether a session may select what a selector may come to.
///
/// # Errors
/// The first place at which it may not.
pub fn may_select(rules: &Rules, rights: &Rights, selector: &Selector) -> Result<(), String> {
    let prefixes = selector.prefixes().map(|prefix| prefix.map(|prefix| prefix.to_string()).unwrap_or_default());
    let refused = prefixes.into_iter().find(|prefix| !rules.at(rights, prefix).has(Permission::Select));
    refused.map_or(Ok(()), Err)
}

impl Subscription {
    /// Where its first look begins.
    fn first(&self) -> String {
        self.selector.literal_prefix().map(|prefix| prefix.as_str().to_owned()).unwrap_or_default()
    }

    /// Whether a path lies where the first look has been already.
    fn is_seen(&self, path: &Path) -> bool {
        self.scan.as_ref().is_none_or(|scan| path.as_str() < scan.as_str())
    }

    fn is_told(&self, path: &Path) -> bool {
        self.topics.get(path).is_some_and(|topic| topic.told.is_some())
    }

    /// The next message whose topic its client knows. Of a topic that it is yet to be told of, it waits; of one that is gone, nobody wants it.
    fn next_message(&mut self) -> Option<(Path, Message)> {
        while let Some((path, _)) = self.messages.waiting.front() {
            let topic = self.topics.get(path);
            if topic.is_some_and(|topic| topic.told.is_none()) {
                return None;
            }
            let there = topic.is_some();
            let (path, message) = self.messages.pop()?;
            if there {
                return Some((path, Message { lost: std::mem::take(&mut self.messages.lost), ..message }));
            }
        }
        None
    }

    fn mark(&mut self, path: &Path) {
        let topic = self.topics.entry(path.clone()).or_default();
        if !std::mem::replace(&mut topic.waiting, true) {
            let priority = topic.told.as_ref().map_or(Priority::Normal, |told| told.properties().priority);
            self.changed.push(priority, path.clone());
        }
    }

    /// Goes on with the first look, while little is waiting.
    fn look(&mut self, replica: &Replica) {
        while self.changed.len() < SCAN_MAX && self.credit > 0 {
            let Some(from) = self.scan.take() else { return };
            let prefix = self.selector.literal_prefix();
            let mut found = Vec::new();
            for (looked, (_, topic)) in replica.topics_from(&from).enumerate() {
                if prefix.as_ref().is_some_and(|prefix| !topic.path.as_str().starts_with(prefix.as_str())) {
                    break;
                }
                if looked == SCAN_MAX {
                    self.scan = Some(topic.path.to_string());
                    break;
                }
                if self.selector.matches(&topic.path) && !self.is_told(&topic.path) {
                    found.push(topic.path.clone());
                }
            }
            found.iter().for_each(|path| self.mark(path));
        }
    }

    /// The next thing that a client is to be told of a path that has changed, and whether there is more after it. What it may not see is not there for it.
    fn step(&mut self, replica: &Replica, path: &Path, permitted: bool) -> (Option<Told>, bool) {
        let there = replica.shown(path);
        let now = there.filter(|_| permitted);
        let Some(known) = self.topics.get_mut(path) else { return (None, false) };
        let definition = now.map(|shown| &shown.of.1.definition);
        let (told, more) = match (&known.told, now) {
            (Some(told), _) if Some(told) != definition => {
                let section = replica.section_of(path);
                let reason = match replica.section(section) {
                    _ if there.is_some() && !permitted => Gone::NotPermitted,
                    None if *told.topic_type() != TopicType::Paged => Gone::Dropped,
                    _ => Gone::Removed,
                };
                (known.told, known.valued) = (None, false);
                self.passing.remove(path);
                (Some((Event::Removed { reason }, section, None)), now.is_some())
            }
            (_, None) => (None, false),
            (told, Some(shown)) => {
                let (section, topic) = (shown.section, shown.topic);
                let write = replica.shown_value(&shown);
                let value = write.and_then(|write| Some((write, write.value.as_ref()?)));
                let kept = shown.of.1.definition.properties().retain;
                let resumes = told.is_none() && !known.cleared;
                let over = told.is_some() && value.is_none() && std::mem::take(&mut known.valued);
                // Of a slave it is not known what its client has heard of it: there may have been another master. Nor what of a topic without a value that may
                // have had one.
                let doubtful = shown.is_slave()
                    || self.base.as_ref().is_some_and(|base| value.is_none() && base.may_know_more(replica, section, topic));
                let anew = resumes && self.base.is_some() && (doubtful || value.is_none());
                if over {
                    // It goes on, and what its client knows of it does not: its value was that of a creation that is gone, or another came that is none.
                    known.told = None;
                    known.cleared = true;
                    (Some((Event::Removed { reason: Gone::Removed }, section, None)), true)
                } else if resumes && !doubtful && self.base.as_mut().is_some_and(|base| base.knows(section, path, topic)) {
                    known.told = definition.cloned();
                    known.valued = value.is_some();
                    let heard =
                        |(write, _): &(&Write, _)| self.base.as_ref().is_some_and(|base| base.has_heard(replica, section, path, write.dot));
                    known.news |= value.filter(|value| !heard(value)).is_some();
                    // Of a series each event that it has not heard, not only the newest.
                    let base = self.base.as_ref();
                    let unheard = replica.events(shown.of.0, shown.of.1, 0, &EventRange::default()).into_iter();
                    for told in unheard.filter(|told| base.is_some_and(|base| !base.covers(section, Plane::Values, told.write.dot))) {
                        self.passing.entry(path.clone()).or_default().push(&(Some(told.event), told.write.clone()));
                        known.news = true;
                    }
                    (None, known.news)
                } else if anew {
                    // Of one that was there before, its client has heard values, of which it would not know that they are over.
                    known.cleared = true;
                    (Some((Event::Removed { reason: Gone::Removed }, section, None)), true)
                } else if told.is_none() {
                    known.told = definition.cloned();
                    let made = topic.ids.first().map(|id| (Plane::Tree, *id));
                    let mut spec = topic_spec(&shown.of.1.definition);
                    if shown.is_slave() {
                        self.masters.insert(path.clone(), shown.of.0);
                        // What its values are and how they go, and not what else is said of its master.
                        spec.properties
                            .retain(|key, _| ["compress", "deltas"].contains(&key.as_str()) || TYPE_PROPERTIES.contains(&key.as_str()));
                    }
                    // One that keeps no value has none for those who come later.
                    (Some((Event::Added { topic: spec }, section, made)), value.is_some() && (kept || known.news))
                } else {
                    known.valued |= value.is_some();
                    let news = std::mem::take(&mut known.news);
                    let passed = self.passing.get_mut(path).and_then(Passing::pop);
                    let more = self.passing.get(path).is_some_and(|passing| !passing.is_empty());
                    if !more {
                        self.passing.remove(path);
                    }
                    let newest = || {
                        let write = write.filter(|_| kept || news)?;
                        Some(((replica.last_event(&shown), write.clone()), 0))
                    };
                    let next = passed.or_else(newest);
                    let told = |((event, write), missed): (Passed, u64)| {
                        let (unix_ms, stamp) = (self.stamps.then_some(write.time_ms), self.stamps.then(|| stamp_text(replica, &write)));
                        let (value, event) = match event {
                            Some(event) => (events::value_of(&write)?, Some(Box::new(events::mark_of(replica, event, &write)?))),
                            None => (write.value.clone()?, None),
                        };
                        let missed = (missed > 0).then_some(missed);
                        let change = Some((Plane::Values, write.dot));
                        let allowed = Allowed::of(shown.of.1.definition.properties());
                        Some((Event::Value { value, unix_ms, stamp, form: None, allowed, missed, event }, shown.of.0, change))
                    };
                    (next.and_then(told), more)
                }
            }
        };
        known.waiting = more;
        if known.told.is_none() && !more {
            self.topics.remove(path);
            self.masters.remove(path);
            self.passing.remove(path);
        }
        (told, more)
    }
}

/// Why a selector cannot be used, which begins at a place where its session may not select.
pub fn not_selectable(selector: &Selector, at: &str) -> Refusal {
    let place = if at.is_empty() { "everywhere".to_owned() } else { format!("at {at}") };
    Refusal::new(Code::NotPermitted, selector.to_string(), format!("the session lacks the permission {} {place}", Permission::Select))
        .hint("use a selector that begins with a path where it has it")
}

/// A definition as people write it.
pub fn topic_spec(definition: &Definition) -> TopicSpec {
    let properties = definition.explicit_properties().into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    TopicSpec { topic_type: definition.topic_type().to_string(), properties }
}

/// What says what values of a topic mean, where the name of its type does not.
pub fn value_spec(definition: &Definition) -> Option<TopicSpec> {
    matches!(definition.topic_type().value_type(), TopicType::Protobuf(_) | TopicType::Custom(_)).then(|| {
        let mut spec = topic_spec(definition);
        spec.properties.retain(|key, _| TYPE_PROPERTIES.contains(&key.as_str()));
        spec
    })
}

/// A value's stamp, for people: epoch, clock, and who wrote it.
pub fn stamp_text(replica: &Replica, write: &Write) -> String {
    let dot = replica.dot(write.dot);
    format!("{}.{}@{}#{}", write.stamp.epoch, write.stamp.seq, dot.origin, dot.number)
}

/// All of them.
pub type Connections = BTreeMap<ConnectionId, Connection>;
