//! What lets a client go on at another node: which change each update shows, and waiting for what a client has seen elsewhere.

use std::collections::{BTreeMap, HashMap};

use mangrove_crdt::{
    frontier::{DotIx, Frontier, OriginIx},
    id::{Plane, SectionId},
    replica::Replica,
    time::Instant,
};

use crate::protocol::{Feed, Mark, Place};

/// The numbers that a connection's feeds have.
#[derive(Debug, Default)]
pub struct Marks {
    numbers: HashMap<(SectionId, Plane, OriginIx), u32>,
    unsaid: Vec<Feed>,
    /// How far each section's tree has been told.
    trees: BTreeMap<SectionId, Frontier>,
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

    /// How it is going. What this node does not replicate is not waited for: sections that it does not hold, and what is another node's own.
    pub fn look(&mut self, replica: &Replica) -> Wait {
        let lacked = |Place { feed, number }: &Place| {
            let held = replica.section(feed.section).filter(|_| feed.section != SectionId::LOCAL || feed.origin.node == replica.own().node);
            let has = |origin| held.map_or(0, |held| held.frontier(feed.plane).get(origin));
            held.is_some() && replica.origins().find(&feed.origin).map_or(0, has) < *number
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
