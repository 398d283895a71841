//! What a client remembers of a subscription, so that it hears one stream however often it changes nodes: nothing twice, and nothing gone unsaid. Pure: the
//! client library has it, and so has the simulator.
//!
//! A node that is told [`Heard`] sends what has come since, and is silent of what is known ([`crate::protocol::Through`]). What it sends again
//! nevertheless is left out here: an update says by which change it came, and that is known from the last time. What has been removed meanwhile is missing
//! from the topics that the node knows, slot by slot.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use crate::protocol::{Event, Feed, Gone, Heard, Place, Through, path_hash, slot_of, slots_of};

/// A feed, by its place in a client's list of all that it has heard of.
pub type FeedIx = u32;

/// All feeds that a client has heard of.
#[derive(Debug, Default)]
pub struct Feeds {
    list: Vec<Feed>,
    numbers: HashMap<Feed, FeedIx>,
}

impl Feeds {
    /// The client's own number of a feed.
    pub fn number(&mut self, feed: Feed) -> FeedIx {
        let next = self.list.len() as FeedIx;
        *self.numbers.entry(feed).or_insert_with(|| {
            self.list.push(feed);
            next
        })
    }

    fn places(&self, of: &BTreeMap<FeedIx, u64>) -> Vec<Place> {
        of.iter().map(|(feed, number)| Place { feed: self.list[*feed as usize], number: *number }).collect()
    }
}

/// A change: the feed that it came in, and its number there.
pub type Change = (FeedIx, u64);

/// See the module.
#[derive(Debug, Default)]
pub struct Memory {
    told: HashMap<Arc<str>, Told>,
    seen: BTreeMap<FeedIx, u64>,
    /// How far everything has been heard, and on which connection that was said last.
    through: BTreeMap<FeedIx, u64>,
    said: u32,
    /// By what rights that was.
    rights: u64,
    /// Counts the connections.
    pass: u32,
    /// In how many slots the topics were told to the present node, if they were; then it is silent of those that are known.
    slots: usize,
    /// Slots in which something is gone, and what is there.
    present: HashMap<usize, HashSet<String>>,
}

#[derive(Debug)]
struct Told {
    definition: u64,
    value: Option<Change>,
    /// On which connection it was heard of last.
    pass: u32,
}

/// Whether an update is news.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// It is known.
    None,
    /// It is.
    Some,
    /// It is a topic that was another before, which has gone without a word.
    Anew,
}

impl Memory {
    /// The connection is lost.
    pub fn lost(&mut self) {
        self.pass += 1;
    }

    /// What it has heard, to be told to a node.
    pub fn heard(&mut self, feeds: &Feeds) -> Heard {
        self.present.clear();
        self.slots = if self.through.is_empty() { 0 } else { slots_of(self.told.len()) };
        let through = (self.slots > 0).then(|| {
            let mut sums = vec![0_u64; self.slots];
            #[allow(clippy::disallowed_methods, reason = "the sum is the same in any order")]
            for path in self.told.keys() {
                let hash = path_hash(path);
                let sum = &mut sums[slot_of(hash, self.slots)];
                *sum = sum.wrapping_add(hash);
            }
            Through { places: feeds.places(&self.through), sums, rights: self.rights }
        });
        Heard { seen: feeds.places(&self.seen), through }
    }

    /// Something was shown that is at least so new.
    pub fn saw(&mut self, (feed, number): Change) {
        let seen = self.seen.entry(feed).or_default();
        *seen = number.max(*seen);
    }

    /// Everything has been heard up to here that these rights allow, in feeds that have come further.
    pub fn position(&mut self, rights: u64, places: impl IntoIterator<Item = Change>) {
        // Each connection begins with all that there is, and so does each change of rights.
        let before = (std::mem::replace(&mut self.said, self.pass), std::mem::replace(&mut self.rights, rights));
        if before != (self.pass, rights) {
            self.through.clear();
        }
        for (feed, number) in places {
            self.through.insert(feed, number);
            self.saw((feed, number));
        }
    }

    /// The node has waited in vain, and tells everything anew: what it lacks is lost to this client as well, though it was heard once.
    pub fn rewound(&mut self) {
        self.slots = 0;
        self.through.clear();
    }

    /// What is there in a slot in which something is gone.
    pub fn present(&mut self, slot: u32, paths: Vec<String>) {
        self.present.entry(slot as usize).or_default().extend(paths);
    }

    /// Whether an update is news.
    pub fn news(&mut self, path: &Arc<str>, event: &Event, change: Option<Change>) -> News {
        if let Some(change) = change {
            self.saw(change);
        }
        match event {
            Event::Added { topic } => {
                let mut hasher = DefaultHasher::new();
                (&topic.topic_type, &topic.properties).hash(&mut hasher);
                let definition = hasher.finish();
                let before = self.told.get_mut(path);
                if let Some(told) = before.filter(|told| told.definition == definition) {
                    told.pass = self.pass;
                    return News::None;
                }
                let told = Told { definition, value: None, pass: self.pass };
                if self.told.insert(Arc::clone(path), told).is_some() { News::Anew } else { News::Some }
            }
            Event::Value { .. } => {
                let Some(told) = self.told.get_mut(path) else { return News::Some };
                let known = change.is_some() && told.value == change;
                told.value = change;
                if known { News::None } else { News::Some }
            }
            Event::Message(_) => News::Some,
            Event::Removed { reason } => {
                if *reason != Gone::Removed {
                    // It is there yet, for others: to have heard of it once is not to know it.
                    self.through.clear();
                }
                if self.told.remove(path).is_some() { News::Some } else { News::None }
            }
        }
    }

    /// Everything that matches has been sent: what has gone without a word, in order.
    pub fn synced(&mut self) -> Vec<Arc<str>> {
        let (pass, slots, present) = (self.pass, self.slots, std::mem::take(&mut self.present));
        let is_there = |path: &str| slots > 0 && present.get(&slot_of(path_hash(path), slots)).is_none_or(|paths| paths.contains(path));
        let mut gone: Vec<Arc<str>> = Vec::new();
        #[allow(clippy::disallowed_methods, reason = "what is found is put in order")]
        for (path, told) in self.told.iter_mut() {
            if told.pass == pass || is_there(path) {
                told.pass = pass;
            } else {
                gone.push(Arc::clone(path));
            }
        }
        if !gone.is_empty() {
            // Perhaps only this node lacks them: to have heard of them once is not to know them. How far it has come itself, the node says next.
            self.through.clear();
        }
        gone.sort();
        gone.iter().for_each(|path| _ = self.told.remove(path));
        gone
    }
}
