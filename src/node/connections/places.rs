//! What lets a client go on at another node: which change each update shows, and waiting for what a client has seen elsewhere.

use std::collections::{BTreeMap, HashMap};

use mangrove_crdt::{
    frontier::{DotIx, Frontier, OriginIx},
    id::{Plane, SectionId},
    path::Path,
    replica::Replica,
    sabotage::{Sabotage, is},
    selector::Selector,
    time::Instant,
    tree::Topic,
};

use super::waiting::Waiting;
use crate::protocol::{Feed, Mark, Place, Through, path_hash, slot_of};

/// Frontiers of what subscribers hear of: trees and values.
type Frontiers = BTreeMap<(SectionId, Plane), Frontier>;

/// After how many updates a subscription's client is told how far it has come.
const POSITION_EVERY: u32 = 256;
/// How many feeds a client is told of at most: with more of them, what it would have to remember is worse than hearing everything again.
const FEEDS_MAX: usize = 4_096;

/// The numbers that a connection's feeds have.
#[derive(Debug, Default)]
pub struct Marks {
    numbers: HashMap<(SectionId, Plane, OriginIx), u32>,
    unsaid: Vec<Feed>,
    /// How far each section's tree has been told.
    trees: BTreeMap<SectionId, Frontier>,
    /// Whether it has been told by which policy it is judged.
    policy_told: bool,
}

impl Marks {
    /// A change, by its feed's number.
    pub fn mark(&mut self, replica: &Replica, section: SectionId, plane: Plane, dot: DotIx) -> Mark {
        let next = self.numbers.len() as u32;
        let feed = *self.numbers.entry((section, plane, dot.origin)).or_insert_with(|| {
            self.unsaid.push(Feed { section, plane, origin: replica.origins().get(dot.origin) });
            next
        });
        Mark { feed, number: dot.number }
    }

    /// How far a section's tree has come since it was told last.
    pub fn tree(&mut self, replica: &Replica, section: SectionId) -> Vec<Mark> {
        let Some(held) = replica.section(section) else { return Vec::new() };
        let now = held.frontier(Plane::Tree);
        let told = self.trees.insert(section, now.clone()).unwrap_or_default();
        let risen: Vec<DotIx> = now.iter().filter(|dot| !told.covers(*dot)).collect();
        risen.into_iter().map(|dot| self.mark(replica, section, Plane::Tree, dot)).collect()
    }

    /// Whoever it is of is judged by another policy from now on.
    pub fn policy_changed(&mut self) {
        self.policy_told = false;
    }

    /// How far the policy has come by which it is judged, if that has changed since it was told.
    pub fn policy(&mut self, replica: &Replica) -> Vec<Mark> {
        match std::mem::replace(&mut self.policy_told, true) {
            true => Vec::new(),
            false => self.tree(replica, SectionId::MESH),
        }
    }

    /// The feeds that have got numbers since the last time.
    pub fn unsaid(&mut self) -> Vec<Feed> {
        std::mem::take(&mut self.unsaid)
    }
}

/// What a client has seen elsewhere and this node has yet to see.
#[derive(Debug)]
pub struct Awaited {
    places: Vec<Place>,
    until: Instant,
    over: bool,
}

/// How waiting is going.
#[derive(Debug, PartialEq, Eq)]
pub enum Wait {
    /// It goes on.
    On,
    /// This node has seen all that its client has.
    Done,
    /// It took too long.
    Vain,
}

impl Awaited {
    pub fn new(places: Vec<Place>, until: Instant) -> Self {
        Awaited { places, until, over: false }
    }

    /// How it is going. What this node does not replicate is not waited for: sections that it knows and does not hold, and what is another node's own.
    pub fn look(&mut self, replica: &Replica) -> Wait {
        if is(Sabotage::WaitsForNothing) {
            return Wait::Done;
        }
        let lacked = |Place { feed, number }: &Place| {
            let is_local = feed.section == SectionId::LOCAL;
            match replica.section(feed.section) {
                Some(_) if is_local && feed.origin.node != replica.own().node => false,
                Some(held) => replica.origins().find(&feed.origin).map_or(0, |origin| held.frontier(feed.plane).get(origin)) < *number,
                // It has yet to hear of it.
                None => !is_local && replica.policy(feed.section).is_none(),
            }
        };
        self.places.retain(lacked);
        match (self.places.is_empty(), self.over) {
            (true, _) => Wait::Done,
            (false, true) => Wait::Vain,
            (false, false) => Wait::On,
        }
    }

    /// Time passes. Until when it may still go on.
    pub fn at(&mut self, now: Instant) -> Option<Instant> {
        self.over |= now >= self.until;
        (!self.over).then_some(self.until)
    }
}

/// What a client has heard completely, elsewhere.
#[derive(Debug)]
pub struct Base {
    frontiers: Frontiers,
    /// What it says of the topics that it knows, and what it should know of those that are here.
    sums: (Vec<u64>, Vec<u64>),
}

impl Base {
    /// `rights` are those by which its client is told now: where it was told by others, it counts for nothing but what it says of the topics that its client knows.
    pub fn new(replica: &Replica, mut through: Through, rights: u64) -> Self {
        let mut frontiers = Frontiers::new();
        if through.rights != rights && !is(Sabotage::MixesRights) {
            through.places.clear();
        }
        for Place { feed, number } in through.places {
            // Of an origin that nobody here has heard of there is nothing here.
            if let Some(origin) = replica.origins().find(&feed.origin) {
                frontiers.entry((feed.section, feed.plane)).or_default().raise(origin, number);
            }
        }
        let slots = through.sums.len();
        Base { frontiers, sums: (through.sums, vec![0; slots]) }
    }

    /// Its client is told by other rights from now on.
    pub fn rights_changed(&mut self) {
        self.frontiers.clear();
        self.sums.1.fill(0);
    }

    /// Whether it has heard of a change.
    pub fn covers(&self, section: SectionId, plane: Plane, dot: DotIx) -> bool {
        self.frontiers.get(&(section, plane)).is_some_and(|frontier| frontier.covers(dot))
    }

    /// Whether a client knows a topic as it is; to be asked once of each. Who knows it knows its definition too: that hangs on its creations alone.
    pub fn knows(&mut self, section: SectionId, path: &Path, topic: &Topic) -> bool {
        let known = topic.creations().all(|dot| self.covers(section, Plane::Tree, dot));
        if known && !self.sums.1.is_empty() {
            let hash = path_hash(path.as_str());
            let slot = slot_of(hash, self.sums.1.len());
            self.sums.1[slot] = self.sums.1[slot].wrapping_add(hash);
        }
        known
    }

    /// Whether a topic's value is what it has heard of that topic last. Where the tree has changed since, another creation of the topic may have gone, with a
    /// newer value: then an older one counts again.
    pub fn has_heard(&self, replica: &Replica, section: SectionId, path: &Path, value: DotIx) -> bool {
        let changes = replica.section(section).map(|held| held.tree.dots(path.bucket())).unwrap_or_default();
        self.covers(section, Plane::Values, value) && changes.iter().all(|dot| self.covers(section, Plane::Tree, *dot))
    }

    /// Whether it may have heard a value of a topic that has none now: the tree has changed since, so that another creation may have gone, or there is one that is not
    /// shown, since it is none of the topic's type.
    pub fn may_know_more(&self, replica: &Replica, section: SectionId, topic: &Topic) -> bool {
        let Some(held) = replica.section(section) else { return false };
        let changes = held.tree.dots(topic.path.bucket());
        topic.ids.iter().any(|id| held.values.get(&(*id).into()).is_some())
            || !changes.iter().all(|dot| self.covers(section, Plane::Tree, *dot))
    }

    /// The slots that hold something else here than there, each with its topics among some.
    pub fn differing<'a>(&self, topics: impl Iterator<Item = &'a Path>) -> BTreeMap<u32, Vec<String>> {
        let (theirs, ours) = &self.sums;
        let differing = (0..ours.len()).filter(|slot| theirs[*slot] != ours[*slot]);
        let mut slots: BTreeMap<u32, Vec<String>> = differing.map(|slot| (slot as u32, Vec::new())).collect();
        if !slots.is_empty() {
            for path in topics {
                if let Some(paths) = slots.get_mut(&(slot_of(path_hash(path.as_str()), ours.len()) as u32)) {
                    paths.push(path.to_string());
                }
            }
        }
        slots.values_mut().for_each(|paths| paths.sort_unstable());
        slots
    }
}

/// How far a subscription's client has been told that it has come.
#[derive(Debug, Default)]
pub struct Position {
    told: Frontiers,
    /// What it will have come to when all topics have been told of those that had changed when there were so many.
    next: Option<(Frontiers, u64)>,
    /// How many updates have been told since.
    updates: u32,
    begun: bool,
}

impl Position {
    /// One of the topics that had changed has been told.
    pub fn told(&mut self, events: u32) {
        self.updates += events;
    }

    /// What its client has come to, if that is to be told now: everything up to here has been marked, and these topics are yet to be told.
    pub fn look(&mut self, replica: &Replica, selector: &Selector, waiting: &Waiting, marks: &mut Marks) -> Option<Vec<Mark>> {
        if self.next.is_none() && (!self.begun || self.updates >= POSITION_EVERY) {
            self.next = Some((frontiers(replica, selector), waiting.count()));
            (self.begun, self.updates) = (true, 0);
        }
        let (now, _) = self.next.take_if(|(_, count)| waiting.is_through(*count))?;
        if now.values().map(|frontier| frontier.iter().count()).sum::<usize>() > FEEDS_MAX {
            return None;
        }
        let mut risen = Vec::new();
        for ((section, plane), frontier) in &now {
            let told = self.told.get(&(*section, *plane));
            let new = frontier.iter().filter(|dot| told.is_none_or(|told| !told.covers(*dot)));
            risen.extend(new.map(|dot| (*section, *plane, dot)));
        }
        self.told = now;
        let mark = |(section, plane, dot)| marks.mark(replica, section, plane, dot);
        (!risen.is_empty()).then(|| risen.into_iter().map(mark).collect())
    }
}

/// How far this node has come in all that may concern a selector.
fn frontiers(replica: &Replica, selector: &Selector) -> Frontiers {
    let prefix = selector.literal_prefix().map(|prefix| prefix.to_string()).unwrap_or_default();
    let concerned = |section: &SectionId| {
        replica.policy(*section).is_none_or(|policy| policy.root.as_str().starts_with(&prefix) || prefix.starts_with(policy.root.as_str()))
    };
    let sections = replica.held().filter(|section| *section != SectionId::MESH).chain([SectionId::LOCAL]).filter(concerned);
    let held = sections.filter_map(|section| replica.section(section).map(|held| (section, held)));
    held.flat_map(|(section, held)| [Plane::Tree, Plane::Values].map(|plane| ((section, plane), held.frontier(plane).clone()))).collect()
}
