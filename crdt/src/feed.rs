//! One origin's entries in one plane of one section, in the order of its numbers.
//!
//! A feed holds *where* each key last stood, never what was written: at most one entry a key, so it is never longer than
//! the live state, and reading it from any number onward gives exactly what someone at that number lacks.
//!
//! ```text
//!   number   3   7   8   9  12          an entry that moves away leaves a hole,
//!   slot     b   ·   a   ·   c          or, where a run has still to pass it, a pointer
//!            ▲           ▲
//!          floor      frontier of a neighbour: its run is (8, 12]
//! ```

/// A place in the slab of registers.
pub type Slot = u32;

const HOLE: Slot = Slot::MAX;

#[derive(Clone, Copy, Debug)]
struct Entry {
    number: u64,
    slot: Slot,
}

/// A run in progress over a feed: the sender's side of bringing a neighbour from one number to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// What has been read: everything up to this number.
    pub passed: u64,
    /// Where the run ends: the sender's frontier when it began.
    pub target: u64,
}

/// Names a [`Run`] of a feed.
pub type RunId = u64;

/// See the module.
#[derive(Debug, Default)]
pub struct Feed {
    entries: Vec<Entry>,
    /// Holes and pointers that came about since the last [`Feed::compact`].
    stale: usize,
    /// Below it, this feed no longer remembers removals.
    pub floor: u64,
    runs: Vec<(RunId, Run)>,
}

impl Feed {
    /// Appends an entry, or says that it belongs in the middle (the caller then collects and calls [`Feed::insert_all`]).
    /// Returns the index that [`Feed::vacate`] wants.
    pub fn append(&mut self, number: u64, slot: Slot) -> Option<u32> {
        if self.entries.last().is_some_and(|last| last.number >= number) {
            return None;
        }
        self.entries.push(Entry { number, slot });
        Some(self.entries.len() as u32 - 1)
    }

    /// Puts entries anywhere; every index changes, so a [`Feed::reindex`] must follow.
    pub fn insert_all(&mut self, added: impl IntoIterator<Item = (u64, Slot)>) {
        let before = self.entries.len();
        self.entries.extend(added.into_iter().map(|(number, slot)| Entry { number, slot }));
        if self.entries.len() > before {
            self.entries.sort_by_key(|entry| entry.number);
        }
    }

    /// The key at this index has moved on or was forgotten: leave a hole, or a pointer where a run has yet to pass.
    pub fn vacate(&mut self, index: u32) {
        let entry = &mut self.entries[index as usize];
        let awaited = self.runs.iter().any(|(_, run)| run.passed < entry.number && entry.number <= run.target);
        if entry.slot != HOLE {
            self.stale += 1;
        }
        if !awaited {
            entry.slot = HOLE;
        }
    }

    /// The key at this index has gone, and another stands for it: it stands here instead, or, if it stands further on, a pointer to it where a run has yet to
    /// pass and a hole elsewhere.
    pub fn hand_over(&mut self, index: u32, to: Slot, stands: bool) {
        let entry = &mut self.entries[index as usize];
        if entry.slot != HOLE {
            entry.slot = to;
        }
        if !stands {
            self.vacate(index);
        }
    }

    /// A key that had moved on here has gone: pointers to it that runs have still to pass point to another.
    pub fn point_on(&mut self, from: Slot, to: Slot) {
        if !self.runs.is_empty() {
            self.entries.iter_mut().filter(|entry| entry.slot == from).for_each(|entry| entry.slot = to);
        }
    }

    /// Whether so much has moved on that [`Feed::compact`] is due. What it must leave, for runs that still await it, does not count
    /// again, so that a feed with many pointers is not gone over again and again.
    pub fn is_sparse(&self) -> bool {
        self.stale > 64 && self.stale * 2 > self.entries.len()
    }

    /// Drops holes, and pointers that no run awaits any more. Every index changes, so a [`Feed::reindex`] must follow.
    /// `stands` tells whether a key's entry is really here.
    pub fn compact(&mut self, stands: impl Fn(Slot, u64) -> bool) {
        let runs = &self.runs;
        let awaited = |number| runs.iter().any(|(_, run)| run.passed < number && number <= run.target);
        self.entries.retain(|entry| entry.slot != HOLE && (stands(entry.slot, entry.number) || awaited(entry.number)));
        self.stale = 0;
    }

    /// Tells the new index of each entry.
    pub fn reindex(&self, mut moved: impl FnMut(Slot, u64, u32)) {
        for (index, entry) in self.entries.iter().enumerate() {
            if entry.slot != HOLE {
                moved(entry.slot, entry.number, index as u32);
            }
        }
    }

    /// All entries above a number, pointers left behind for runs included.
    pub fn above(&self, number: u64) -> impl Iterator<Item = (u64, Slot)> + '_ {
        let from = self.entries.partition_point(|entry| entry.number <= number);
        self.entries[from..].iter().filter(|entry| entry.slot != HOLE).map(|entry| (entry.number, entry.slot))
    }

    /// Begins a run. `id` must be new.
    pub fn open_run(&mut self, id: RunId, above: u64, target: u64) {
        self.runs.push((id, Run { passed: above, target }));
    }

    /// The run, if it is still open.
    pub fn run(&self, id: RunId) -> Option<Run> {
        self.runs.iter().find(|(open, _)| *open == id).map(|(_, run)| *run)
    }

    /// Notes how far a run has read.
    pub fn pass(&mut self, id: RunId, passed: u64) {
        if let Some((_, run)) = self.runs.iter_mut().find(|(open, _)| *open == id) {
            run.passed = passed;
        }
    }

    /// Ends a run, finished or not.
    pub fn close_run(&mut self, id: RunId) {
        self.runs.retain(|(open, _)| *open != id);
    }
}
