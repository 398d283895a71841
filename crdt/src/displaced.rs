//! The displaced log: writes that lost to one whose writer had not known of them, or to a removal that had not.
//!
//! Ordinary overwrites never come here. The log is kept by each node that saw both sides meet; it is bounded, oldest out first.

use std::collections::{BTreeMap, BTreeSet};

use minicbor::{Decode, Encode};

use crate::{
    frontier::{DotIx, Origins},
    id::{Dot, SectionId},
    path::Path,
    registers::Write,
};

/// What beat a displaced write.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Encode, Decode)]
pub enum Beaten {
    /// A newer write of the same topic.
    #[n(0)]
    ByWrite {
        /// That write.
        #[n(0)]
        winner: Dot,
    },
    /// The removal of its topic.
    #[n(1)]
    ByRemoval,
}

impl Beaten {
    pub(crate) fn by_write(origins: &Origins, winner: DotIx) -> Self {
        Beaten::ByWrite { winner: Dot { origin: origins.get(winner.origin), number: winner.number } }
    }
}

/// A write that lost without its winner's writer having known of it.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
pub struct Displaced {
    /// Its section.
    #[n(0)]
    pub section: SectionId,
    /// Its topic's path.
    #[n(1)]
    pub path: Path,
    /// Its topic's definition, in its canonical bytes, if that was known.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub definition: Option<Vec<u8>>,
    /// Its topic.
    #[n(3)]
    pub topic: Dot,
    /// Who wrote it, and under which number.
    #[n(4)]
    pub dot: Dot,
    /// The epoch under which it was written.
    #[n(5)]
    pub epoch: u64,
    /// The writer's wall clock, in milliseconds since 1970.
    #[n(6)]
    pub time_ms: u64,
    /// The value.
    #[cbor(n(7), with = "minicbor::bytes")]
    pub value: Vec<u8>,
    /// What beat it.
    #[n(8)]
    pub beaten: Beaten,
}

impl Displaced {
    pub(crate) fn new(
        origins: &Origins,
        section: SectionId,
        path: Path,
        definition: Option<Vec<u8>>,
        topic: DotIx,
        write: &Write,
        beaten: Beaten,
    ) -> Self {
        let dot = |ix: DotIx| Dot { origin: origins.get(ix.origin), number: ix.number };
        Displaced {
            section,
            path,
            definition,
            topic: dot(topic),
            dot: dot(write.dot),
            epoch: write.stamp.epoch,
            time_ms: write.time_ms,
            value: write.value.as_deref().unwrap_or_default().to_vec(),
            beaten,
        }
    }
}

/// How many displaced writes a node keeps.
pub const DISPLACED_MAX: usize = 10_000;

/// See the module.
#[derive(Debug, Default)]
pub struct DisplacedLog {
    entries: BTreeMap<u64, Displaced>,
    known: BTreeSet<(SectionId, Dot)>,
    next: u64,
    dropped: u64,
    dirty: BTreeSet<u64>,
}

impl DisplacedLog {
    /// Adds an entry, unless it is there already. Says whether it was added.
    pub fn add(&mut self, displaced: Displaced) -> bool {
        if !self.known.insert((displaced.section, displaced.dot)) {
            return false;
        }
        let id = self.next;
        self.next += 1;
        self.entries.insert(id, displaced);
        self.dirty.insert(id);
        while self.entries.len() > DISPLACED_MAX {
            if let Some((oldest, entry)) = self.entries.pop_first() {
                self.known.remove(&(entry.section, entry.dot));
                self.dirty.insert(oldest);
                self.dropped += 1;
            }
        }
        true
    }

    /// All entries with their numbers, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &Displaced)> {
        self.entries.iter().map(|(id, displaced)| (*id, displaced))
    }

    /// One entry.
    pub fn get(&self, id: u64) -> Option<&Displaced> {
        self.entries.get(&id)
    }

    /// How many entries were dropped because the log was full.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Restores a stored entry.
    pub fn restore(&mut self, id: u64, displaced: Displaced) {
        self.known.insert((displaced.section, displaced.dot));
        self.next = self.next.max(id + 1);
        self.entries.insert(id, displaced);
    }

    /// Hands out what has changed since the last call; `None` where dropped.
    pub fn take_dirty(&mut self, mut entry: impl FnMut(u64, Option<&Displaced>)) {
        for id in std::mem::take(&mut self.dirty) {
            entry(id, self.entries.get(&id));
        }
    }

    /// Whether [`DisplacedLog::take_dirty`] would hand out anything.
    pub fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }
}
