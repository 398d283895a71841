//! Origins by number, and frontiers: for each origin, how far something is known.
//!
//! An [`Origin`] is 44 bytes; inside a node it is named by its [`OriginIx`], an index into that node's [`Origins`]. Indexes
//! mean nothing outside their node: whatever travels or is stored names the origin itself.

use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use crate::id::{Dot, Origin};

/// An origin, named by its place in a node's [`Origins`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct OriginIx(pub u32);

impl OriginIx {
    fn at(self) -> usize {
        self.0 as usize
    }
}

/// The position of a record: the origin that wrote it, and the number it gave it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DotIx {
    /// Who wrote.
    pub origin: OriginIx,
    /// Its number in that origin's feed.
    pub number: u64,
}

/// Some dots, usually none or one.
pub type Dots = SmallVec<[DotIx; 1]>;

/// Notes a dot among others: each origin stands there once, with its greatest number.
pub(crate) fn raise(dots: &mut Dots, dot: DotIx) {
    match dots.iter_mut().find(|known| known.origin == dot.origin) {
        Some(known) => known.number = known.number.max(dot.number),
        None => dots.push(dot),
    }
}

/// All origins that a node has heard of.
#[derive(Debug, Default, Clone)]
pub struct Origins {
    list: Vec<Origin>,
    index: FxHashMap<Origin, OriginIx>,
    ordered: Vec<OriginIx>,
}

impl Origins {
    /// How many origins one node will ever name; beyond it, [`Origins::intern`] refuses.
    pub const COUNT_MAX: usize = 1 << 20;

    /// The origin's index, given now if it is new.
    pub fn intern(&mut self, origin: Origin) -> OriginIx {
        *self.index.entry(origin).or_insert_with(|| {
            let ix = OriginIx(self.list.len() as u32);
            let at = self.ordered.partition_point(|other| self.list[other.at()] < origin);
            self.list.push(origin);
            self.ordered.insert(at, ix);
            ix
        })
    }

    /// The origin's index, if it has one.
    pub fn find(&self, origin: &Origin) -> Option<OriginIx> {
        self.index.get(origin).copied()
    }

    /// The origin behind an index of this node.
    pub fn get(&self, ix: OriginIx) -> Origin {
        self.list[ix.at()]
    }

    /// A dot with its origin in full.
    pub fn dot(&self, ix: DotIx) -> Dot {
        Dot { origin: self.get(ix.origin), number: ix.number }
    }

    /// All of them, node by node, and each node's runs from the oldest to the newest.
    pub fn ordered(&self) -> &[OriginIx] {
        &self.ordered
    }

    /// How many are known.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

/// For each origin, a number: everything up to it is covered. Origins never mentioned are at zero.
#[derive(Clone, Debug, Default)]
pub struct Frontier {
    numbers: Vec<u64>,
    changes: u64,
    /// What the last changes were: the origin whose number rose at each, or `None` where more than that changed.
    recent: [Option<OriginIx>; RECENT],
}

/// How many of the last changes are told one by one.
const RECENT: usize = 8;

impl Frontier {
    /// The number of an origin.
    pub fn get(&self, origin: OriginIx) -> u64 {
        self.numbers.get(origin.at()).copied().unwrap_or(0)
    }

    /// How often it has changed: as long as this is the same, so is the frontier. Says nothing about another frontier.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// The origins whose numbers rose since there were so many `changes`, some perhaps more than once; `None` if that was too long ago, or if something
    /// else has changed since.
    pub fn risen_since(&self, changes: u64) -> Option<impl Iterator<Item = OriginIx> + '_> {
        let recent = move |change: u64| self.recent[change as usize % RECENT];
        let told = self.changes.checked_sub(changes).is_some_and(|since| since <= RECENT as u64);
        let told = told && (changes..self.changes).all(|change| recent(change).is_some());
        told.then(|| (changes..self.changes).filter_map(recent))
    }

    fn changed(&mut self, risen: Option<OriginIx>) {
        self.recent[self.changes as usize % RECENT] = risen;
        self.changes += 1;
    }

    /// Raises an origin's number; a lower one changes nothing. Says whether it rose.
    pub fn raise(&mut self, origin: OriginIx, number: u64) -> bool {
        if number <= self.get(origin) {
            return false;
        }
        if self.numbers.len() <= origin.at() {
            self.numbers.resize(origin.at() + 1, 0);
        }
        self.numbers[origin.at()] = number;
        self.changed(Some(origin));
        true
    }

    /// Sets an origin's number, also to a lower one.
    pub fn set(&mut self, origin: OriginIx, number: u64) {
        self.forget(origin);
        self.raise(origin, number);
    }

    /// Whether a dot lies within.
    pub fn covers(&self, dot: DotIx) -> bool {
        self.get(dot.origin) >= dot.number
    }

    /// Whether every number is at least the other's.
    pub fn covers_all(&self, other: &Frontier) -> bool {
        other.iter().all(|dot| self.covers(dot))
    }

    /// Raises every number to the other's.
    pub fn join(&mut self, other: &Frontier) {
        for dot in other.iter() {
            self.raise(dot.origin, dot.number);
        }
    }

    /// Lowers every number to the other's.
    pub fn meet(&mut self, other: &Frontier) {
        self.changed(None);
        for (at, number) in self.numbers.iter_mut().enumerate() {
            *number = (*number).min(other.numbers.get(at).copied().unwrap_or(0));
        }
    }

    /// Forgets an origin.
    pub fn forget(&mut self, origin: OriginIx) {
        if let Some(number) = self.numbers.get_mut(origin.at()) {
            *number = 0;
            self.changed(None);
        }
    }

    /// Every origin above zero, by index.
    pub fn iter(&self) -> impl Iterator<Item = DotIx> + '_ {
        let numbered = self.numbers.iter().enumerate().filter(|(_, number)| **number > 0);
        numbered.map(|(at, number)| DotIx { origin: OriginIx(at as u32), number: *number })
    }
}

impl PartialEq for Frontier {
    fn eq(&self, other: &Self) -> bool {
        self.covers_all(other) && other.covers_all(self)
    }
}

impl Eq for Frontier {}

impl FromIterator<DotIx> for Frontier {
    fn from_iter<T: IntoIterator<Item = DotIx>>(dots: T) -> Self {
        let mut frontier = Frontier::default();
        for dot in dots {
            frontier.raise(dot.origin, dot.number);
        }
        frontier
    }
}
