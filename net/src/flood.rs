//! Messages to topics: passed on to everybody who is there, in order, and kept by nobody.
//!
//! A message has a number that counts what its origin has sent in its section. Every node passes a message on to all neighbours that hold the section but the one it came
//! from, the first time it comes, and in the order of the numbers. Links deliver in order, so what comes over one link comes in order, too, and without gaps; whoever hears an
//! origin for the first time begins there.
//!
//! Only a link that is new, or one on which messages were lost since it was too slow, shows a gap. What is missing may still come another way, so if there is one, what comes
//! after the gap waits for it, for [`GAP_PATIENCE`] at most. Then it is lost: messages are no state, and nobody repairs them.
//!
//! A message can overtake, on another way, the creation of its topic: it then waits for that, with whatever its origin sent after it, for [`TOPIC_PATIENCE`] at most.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use mangrove_crdt::{
    frontier::{DotIx, OriginIx, Origins},
    id::{NodeId, SectionId},
    path::Path,
    replica::Replica,
    sabotage::{Sabotage, is},
    time::Instant,
};

use crate::{
    codec::{Intern, Malformed, NamesIn, NamesOut, Reader, Writer},
    link::{LinkId, Shared},
    mesh::Mesh,
};

/// The longest message, with all that its sender's node says of it.
pub const MESSAGE_BYTES_MAX: usize = 512 * 1024;

/// How many bytes of a section's messages wait for a link at most; the oldest are lost then.
const LINK_BYTES_MAX: usize = 2 * 1024 * 1024;

/// How many bytes of messages wait for what is missing before them, or for their topics, at most.
const WAITING_BYTES_MAX: usize = 8 * 1024 * 1024;

/// How long a message waits for one that should have come before it.
const GAP_PATIENCE: Duration = Duration::from_secs(1);

/// How long a message waits for its topic.
const TOPIC_PATIENCE: Duration = Duration::from_secs(5);

/// For how long it is remembered which message an origin sent last, if nothing is heard of it.
const MEMORY: Duration = Duration::from_secs(600);

/// What a message costs besides its body, for what is counted in bytes.
const OVERHEAD_BYTES: usize = 64;

/// A message to whoever listens to a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The topic's section.
    pub section: SectionId,
    /// Whose it is.
    pub origin: OriginIx,
    /// Counts the origin's messages in the section.
    pub number: u64,
    /// The topic: the dot of its creation.
    pub topic: DotIx,
    /// What its sender's node says.
    pub body: Arc<[u8]>,
}

impl Message {
    fn bytes(&self) -> usize {
        self.body.len() + OVERHEAD_BYTES
    }
}

/// Packs one onto the end of others.
pub(crate) fn pack(w: &mut Writer, names: &mut NamesOut, origins: &Origins, message: &Message) {
    w.origin(names, origins, message.origin);
    w.u64(message.number);
    w.dot(names, origins, message.topic);
    w.bytes(&message.body);
}

/// Reads one of a section.
pub(crate) fn unpack(section: SectionId, r: &mut Reader<'_>, names: &mut NamesIn, intern: &mut Intern<'_>) -> Result<Message, Malformed> {
    let (origin, number) = (r.origin(names, intern)?, r.number()?);
    let topic = r.dot(names, intern)?;
    Ok(Message { section, origin, number, topic, body: r.bytes(MESSAGE_BYTES_MAX)?.into() })
}

impl Shared {
    /// Puts a message behind those that wait for this link. How many were lost for it.
    fn post(&mut self, message: Message) -> u64 {
        self.message_bytes += message.bytes();
        self.messages.push_back(message);
        let mut lost = 0;
        while self.message_bytes > LINK_BYTES_MAX && self.messages.len() > 1 {
            self.take_message();
            lost += 1;
        }
        lost
    }

    /// The next message for the peer.
    pub(crate) fn take_message(&mut self) -> Option<Message> {
        let message = self.messages.pop_front()?;
        self.message_bytes -= message.bytes();
        Some(message)
    }
}

/// What an origin has sent in a section, as far as it has come.
#[derive(Debug)]
struct Heard {
    /// The number that comes next.
    next: u64,
    /// What has come after a gap, each with where from; since when there is one.
    ahead: BTreeMap<u64, (LinkId, Message)>,
    since: Instant,
    /// When anything came last.
    last: Instant,
}

/// What a node knows of messages.
#[derive(Debug, Default)]
pub(crate) struct Flood {
    /// How many this node has sent in each section.
    sent: BTreeMap<SectionId, u64>,
    heard: BTreeMap<(SectionId, OriginIx), Heard>,
    /// What is to be handed out, each with when it came.
    inbox: VecDeque<(Instant, Message)>,
    inbox_bytes: usize,
}

impl Flood {
    /// A message came. `others` says whether what is missing before it could still come over another link. What is to be passed on now, each with where it came from.
    fn take(&mut self, now: Instant, from: LinkId, message: Message, others: bool) -> Vec<(LinkId, Message)> {
        let key = (message.section, message.origin);
        let ahead_bytes = |heard: &Heard| heard.ahead.values().map(|(_, message)| message.bytes()).sum::<usize>();
        let heard = self.heard.entry(key).or_insert_with(|| Heard { next: message.number, ahead: BTreeMap::new(), since: now, last: now });
        heard.last = now;
        if message.number < heard.next {
            if is(Sabotage::HearsTwice) {
                self.hand_out(now, &[(from, message)]);
            }
            return Vec::new();
        }
        if heard.ahead.is_empty() {
            heard.since = now;
        }
        heard.ahead.entry(message.number).or_insert((from, message));
        let waits = others && (heard.ahead.len() == 1 || ahead_bytes(heard) <= WAITING_BYTES_MAX);
        let released = heard.release(now, waits);
        self.hand_out(now, &released);
        released
    }

    /// What has waited for too long for what is missing before it.
    fn overdue(&mut self, now: Instant) -> Vec<(LinkId, Message)> {
        let due = self.heard.values_mut().filter(|heard| !heard.ahead.is_empty() && now.since(heard.since) >= GAP_PATIENCE);
        let released: Vec<(LinkId, Message)> = due.flat_map(|heard| heard.release(now, false)).collect();
        self.hand_out(now, &released);
        released
    }

    fn hand_out(&mut self, now: Instant, messages: &[(LinkId, Message)]) {
        for (_, message) in messages {
            self.inbox_bytes += message.bytes();
            self.inbox.push_back((now, message.clone()));
        }
        while self.inbox_bytes > WAITING_BYTES_MAX {
            let Some((_, lost)) = self.inbox.pop_front() else { break };
            self.inbox_bytes -= lost.bytes();
        }
    }

    fn forget(&mut self, now: Instant) {
        self.heard.retain(|_, heard| now.since(heard.last) < MEMORY);
    }
}

impl Heard {
    /// What is next, as far as there is no gap; unless it waits, beyond gaps too.
    fn release(&mut self, now: Instant, waits: bool) -> Vec<(LinkId, Message)> {
        let mut released = Vec::new();
        while let Some(first) = self.ahead.first_entry() {
            if *first.key() != self.next && waits {
                break;
            }
            self.next = first.key() + 1;
            released.push(first.remove());
            self.since = now;
        }
        released
    }
}

impl Mesh {
    /// Sends a message to whoever listens to a topic of a section that this node holds, on other nodes. Who listens here is not told.
    pub fn send_message(&mut self, replica: &mut Replica, section: SectionId, topic: DotIx, body: Arc<[u8]>) {
        let number = self.flood.sent.entry(section).or_default();
        *number += 1;
        let (number, origin) = (*number, replica.intern(replica.own()));
        self.pass_message_on(replica.own().node, None, &Message { section, origin, number, topic, body });
    }

    /// The next message that has come, and the path of its topic; to be called until there is none, after frames and time-outs.
    pub fn poll_message(&mut self, now: Instant, replica: &Replica) -> Option<(Message, Path)> {
        let mut waiting = BTreeSet::new();
        let mut at = 0;
        while let Some((since, message)) = self.flood.inbox.get(at) {
            let of = (message.section, message.origin);
            let tree = replica.section(message.section).map(|section| &section.tree).filter(|_| !waiting.contains(&of));
            let path = tree.and_then(|tree| tree.path_of(message.topic)).cloned();
            let gone = replica.section(message.section).is_none() || tree.is_some_and(|tree| tree.frontier().covers(message.topic));
            if path.is_none() && !gone && now.since(*since) < TOPIC_PATIENCE {
                waiting.insert(of);
                at += 1;
                continue;
            }
            let Some((_, message)) = self.flood.inbox.remove(at) else { break };
            self.flood.inbox_bytes -= message.bytes();
            if let Some(path) = path {
                return Some((message, path));
            }
        }
        None
    }

    pub(crate) fn take_messages(&mut self, now: Instant, replica: &Replica, from: LinkId, messages: Vec<Message>) {
        let own = replica.own().node;
        for message in messages {
            let section = message.section;
            if replica.origins().get(message.origin).node == own {
                continue;
            }
            let others = self.links.iter().any(|(id, link)| *id != from && link.shared.contains_key(&section));
            for (from, message) in self.flood.take(now, from, message, others) {
                self.pass_message_on(replica.origins().get(message.origin).node, Some(from), &message);
            }
        }
    }

    /// Time passes for messages that wait.
    pub(crate) fn messages_due(&mut self, now: Instant, replica: &Replica) {
        for (from, message) in self.flood.overdue(now) {
            self.pass_message_on(replica.origins().get(message.origin).node, Some(from), &message);
        }
        self.flood.forget(now);
    }

    fn pass_message_on(&mut self, sender: NodeId, from: Option<LinkId>, message: &Message) {
        for (id, link) in &mut self.links {
            if Some(*id) == from || link.peer == sender {
                continue;
            }
            if let Some(shared) = link.shared.get_mut(&message.section) {
                link.stats.messages_lost += shared.post(message.clone());
                link.idle = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECTION: SectionId = SectionId(7);
    const NONE: [u64; 0] = [];

    fn message(number: u64, bytes: usize) -> Message {
        let origin = OriginIx(3);
        Message { section: SECTION, origin, number, topic: DotIx { origin, number: 1 }, body: vec![0; bytes].into() }
    }

    fn numbers(released: Vec<(LinkId, Message)>) -> Vec<u64> {
        released.into_iter().map(|(_, message)| message.number).collect()
    }

    #[test]
    fn each_is_taken_once_and_in_order() {
        let mut flood = Flood::default();
        let mut take = |number, link, others| numbers(flood.take(Instant(0), LinkId(link), message(number, 1), others));
        assert_eq!(take(5, 1, true), [5], "whoever hears an origin for the first time begins there");
        assert_eq!(take(4, 2, true), NONE);
        assert_eq!(take(5, 2, true), NONE);
        assert_eq!(take(7, 1, true), NONE, "what is missing may come over the other link");
        assert_eq!(take(8, 1, true), NONE);
        assert_eq!(take(6, 2, true), [6, 7, 8]);
        assert_eq!(take(7, 2, true), NONE);
        assert_eq!(take(10, 1, false), [10], "nothing else could bring it");
        assert_eq!(take(9, 1, false), NONE);
    }

    #[test]
    fn a_gap_is_waited_for_no_longer_than_it_may() {
        let mut flood = Flood::default();
        let at = |ms: u64| Instant(ms * 1_000);
        assert_eq!(numbers(flood.take(at(0), LinkId(1), message(1, 1), true)), [1]);
        assert_eq!(numbers(flood.take(at(100), LinkId(1), message(3, 1), true)), NONE);
        assert_eq!(numbers(flood.take(at(900), LinkId(1), message(5, 1), true)), NONE);
        assert_eq!(numbers(flood.overdue(at(1_099))), NONE);
        assert_eq!(numbers(flood.overdue(at(1_100))), [3, 5]);
        assert_eq!(numbers(flood.take(at(1_200), LinkId(2), message(4, 1), true)), NONE);
        // Nor for more than there is room for.
        let large = WAITING_BYTES_MAX / 4;
        let taken: Vec<u64> = (8..13).flat_map(|number| numbers(flood.take(at(1_300), LinkId(1), message(number, large), true))).collect();
        assert_eq!(taken, [8, 9, 10, 11, 12]);
        assert!(flood.inbox_bytes <= WAITING_BYTES_MAX);
        flood.forget(at(700_000));
        assert!(flood.heard.is_empty());
    }

    #[test]
    fn a_link_that_takes_nothing_keeps_the_newest() {
        let mut shared = Shared::default();
        let lost: u64 = (1..=100).map(|number| shared.post(message(number, 100_000))).sum();
        assert_eq!(lost as usize + shared.messages.len(), 100);
        assert!(shared.message_bytes <= LINK_BYTES_MAX && shared.messages.len() >= 20);
        assert_eq!(shared.messages.back().map(|message| message.number), Some(100));
        let taken = std::iter::from_fn(|| shared.take_message()).count();
        assert_eq!((taken, shared.message_bytes), (100 - lost as usize, 0));
    }
}
