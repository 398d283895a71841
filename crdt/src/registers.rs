//! Registers: for each key the newest write, and for each origin a [`Feed`] of where its writes stand.
//!
//! One type serves both register planes. In the *value* plane a register is never removed by absence: the tree says
//! what lives, and [`Registers::drop_key`] obeys. In the *standing* plane a removal is a write without a value, which stays until
//! everybody knows it ([`Registers::forget`]).
//!
//! The rules that the names `R1` to `R8` refer to are argued in the crate's essay.

use std::{cmp::Ordering, collections::BTreeSet, hash::Hash, sync::Arc};

use hashbrown::HashTable;
use smallvec::SmallVec;

use crate::{
    catalogue::hash,
    feed::{Feed, Run, RunId, Slot},
    frontier::{DotIx, Dots, Frontier, OriginIx, Origins, raise},
    sabotage::{Sabotage, is},
    stamp::{Stamp, newer},
};

/// One write of one key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Write {
    /// Who wrote it, and its number there.
    pub dot: DotIx,
    /// What orders it among the writes of its key.
    pub stamp: Stamp,
    /// The writes of this key, by other origins, that the writer knew of: for each such origin the greatest number. What everybody has had, and has had
    /// something newer of, is left out.
    pub seen: Dots,
    /// The writer's wall clock, in milliseconds since 1970, for people to read.
    pub time_ms: u64,
    /// What was written; `None` is a removal (standing plane only).
    pub value: Option<Arc<[u8]>>,
}

impl Write {
    /// Whether the writer of this write knew of the other one; if not, the two were concurrent.
    pub fn knew(&self, other: DotIx) -> bool {
        (self.dot.origin == other.origin && self.dot.number >= other.number)
            || self.seen.iter().any(|seen| seen.origin == other.origin && seen.number >= other.number)
    }
}

/// What [`Registers::merge`] did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Merged {
    /// It was known, or something newer that had seen it was.
    Nothing,
    /// It is the newest now.
    Won {
        /// The previous newest, if the winner's writer had not known of it.
        displaced: Option<Write>,
    },
    /// A newer one is known whose writer had not known of this one.
    Displaced {
        /// This one.
        loser: Write,
    },
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    origin: OriginIx,
    /// Its place in the feed, or [`FORETOLD`].
    index: u32,
    number: u64,
}

impl Entry {
    fn dot(&self) -> DotIx {
        DotIx { origin: self.origin, number: self.number }
    }
}

/// Instead of a place: it is only stored, see [`Registers::merge`].
const FORETOLD: u32 = u32::MAX - 1;

#[derive(Debug)]
struct Register<K> {
    key: K,
    write: Write,
    /// Where the key stands, in each origin's feed that still remembers it; or the one place that is foretold.
    entries: SmallVec<[Entry; 1]>,
    dirty: bool,
    /// Whether it has left a place in a feed, where a pointer to it may be.
    moved: bool,
}

/// What a run has read so far, and whether that was all.
#[derive(Debug)]
pub struct Read<K> {
    /// Entry number, key, and the key's newest write.
    pub writes: Vec<(u64, K, Write)>,
    /// How far this reading went: every entry up to this number was considered.
    pub upto: u64,
    /// Whether the run has reached its target.
    pub last: bool,
}

/// A register as it comes back from the store: the write, and where the key stands in feeds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stored {
    /// The newest write.
    pub write: Write,
    /// The key's entries.
    pub entries: Dots,
}

/// See the module.
#[derive(Debug)]
pub struct Registers<K> {
    slots: Vec<Option<Register<K>>>,
    free: Vec<Slot>,
    /// Where each key is. The key itself stands there.
    index: HashTable<Slot>,
    feeds: Vec<Feed>,
    frontier: Frontier,
    /// What was stable when [`Registers::forget`] was last called.
    stable: Frontier,
    /// Entries that may be forgotten once they are stable: overtaken ones, and those of removals.
    passing: BTreeSet<(OriginIx, u64, Slot)>,
    dirty: Vec<Slot>,
    deleted: Vec<K>,
    dirty_feeds: BTreeSet<OriginIx>,
    next_run: RunId,
    changes: u64,
    watched: fn(&K) -> bool,
    watched_changes: u64,
}

impl<K> Default for Registers<K> {
    fn default() -> Self {
        Registers {
            slots: Vec::new(),
            free: Vec::new(),
            index: HashTable::new(),
            feeds: Vec::new(),
            frontier: Frontier::default(),
            stable: Frontier::default(),
            passing: BTreeSet::new(),
            dirty: Vec::new(),
            deleted: Vec::new(),
            dirty_feeds: BTreeSet::new(),
            next_run: 0,
            changes: 0,
            watched: |_| false,
            watched_changes: 0,
        }
    }
}

impl<K: Clone + Eq + Hash + Ord> Registers<K> {
    /// Empty ones, which count the changes of some keys apart: whoever keeps what is made of a few need not look again when another of many has changed.
    pub fn watching(watched: fn(&K) -> bool) -> Self {
        Registers { watched, ..Registers::default() }
    }

    /// How often any register has changed whose changes are counted apart.
    pub fn watched_changes(&self) -> u64 {
        self.watched_changes
    }

    /// How often any register has changed: as long as this is the same, so is what they hold.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// How far everything is held (R1): for each record covered, this holds it or something newer, or knows its removal.
    pub fn frontier(&self) -> &Frontier {
        &self.frontier
    }

    /// Below these numbers removals are no longer remembered.
    pub fn floors(&self) -> Frontier {
        let floors = self.feeds.iter().enumerate();
        floors.map(|(at, feed)| DotIx { origin: OriginIx(at as u32), number: feed.floor }).collect()
    }

    /// Whether someone with this frontier lacks removals that are no longer remembered here.
    pub fn is_below_floor(&self, frontier: &Frontier) -> bool {
        self.feeds.iter().enumerate().any(|(at, feed)| frontier.get(OriginIx(at as u32)) < feed.floor)
    }

    /// A key's newest write, removals included.
    pub fn get(&self, key: &K) -> Option<&Write> {
        self.slot_of(key).and_then(|slot| self.at(slot)).map(|register| &register.write)
    }

    /// A key's entries in feeds.
    pub fn entries(&self, key: &K) -> Dots {
        let register = self.slot_of(key).and_then(|slot| self.at(slot));
        register.into_iter().flat_map(Register::placed).map(Entry::dot).collect()
    }

    /// What a writer who sees a key knows of its writes: for each origin the greatest number. Without those that are stable and that the newest write,
    /// stable itself, had overtaken: they are nobody's newest any more, so nobody can send them, and the list does not grow with every
    /// run of every node that ever wrote the key.
    pub fn known(&self, key: &K) -> Dots {
        let Some(register) = self.slot_of(key).and_then(|slot| self.at(slot)) else { return Dots::new() };
        let write = &register.write;
        let settled = self.stable.covers(write.dot);
        let mut known = Dots::from_iter([write.dot]);
        let entries = register.placed().map(Entry::dot);
        let overtaken = write.seen.iter().copied().filter(|dot| !(settled && self.stable.covers(*dot)));
        entries.chain(overtaken).for_each(|dot| raise(&mut known, dot));
        known
    }

    /// All registers, in an order that only depends on what happened here.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &Write)> {
        self.slots.iter().flatten().map(|register| (&register.key, &register.write))
    }

    /// How many registers there are, removals included.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// The keys that stand above a number of a feed: how many, and the bytes of their values.
    pub fn written_above(&self, origin: OriginIx, number: u64) -> (u64, u64) {
        let feed = self.feeds.get(origin.0 as usize);
        let standing = feed.into_iter().flat_map(|feed| feed.above(number)).filter_map(|(number, slot)| {
            let register = self.at(slot)?;
            (register.entry(origin)?.number == number).then(|| register.write.value.as_ref().map_or(0, |value| value.len() as u64))
        });
        standing.fold((0, 0), |(count, bytes), value| (count + 1, bytes + value))
    }

    /// How many removals and overtaken entries are still remembered.
    pub fn remembered(&self) -> usize {
        self.passing.len()
    }

    /// A write of this node's own. It overtakes whatever is known of the key.
    pub fn write(&mut self, own: OriginIx, key: K, stamp: Stamp, time_ms: u64, value: Option<Arc<[u8]>>) -> DotIx {
        self.write_over(own, key, &[], stamp, time_ms, value)
    }

    /// The same, where it overtakes these writes of other keys too.
    pub fn write_over(&mut self, own: OriginIx, key: K, others: &[DotIx], stamp: Stamp, time_ms: u64, value: Option<Arc<[u8]>>) -> DotIx {
        let dot = DotIx { origin: own, number: self.frontier.get(own) + 1 };
        let mut seen = self.known(&key);
        others.iter().for_each(|dot| raise(&mut seen, *dot));
        seen.retain(|dot| dot.origin != own);
        // Its entry in this feed is not overtaken for longer than until the next line.
        let slot = self.put(key, Write { dot, stamp, seen, time_ms, value }, Some(own));
        self.place(own, [(dot.number, slot)]);
        self.advance(own, dot.number);
        dot
    }

    /// Takes in a write from elsewhere. Where it stands in feeds is told apart, at the end of the run (R4: [`Registers::end_run`]).
    ///
    /// `foretold` is where the key will stand once the adoption that brings it is complete. If it is new here, its row says so already: stored
    /// entries count as far as the frontier goes, so the row need not be stored again when that has come there. Should the adoption never be complete, a
    /// pointer too many costs a record.
    pub fn merge(&mut self, origins: &Origins, key: &K, write: Write, foretold: Option<DotIx>) -> Merged {
        let Some(held) = self.get(key) else {
            let slot = self.put(key.clone(), write, None);
            if let (Some(register), Some(DotIx { origin, number })) = (self.slots[slot as usize].as_mut(), foretold) {
                register.entries.push(Entry { origin, index: FORETOLD, number });
            }
            return Merged::Won { displaced: None };
        };
        match newer(origins, (&write.stamp, write.dot), (&held.stamp, held.dot)) {
            Ordering::Greater => {
                let displaced = (!write.knew(held.dot)).then(|| held.clone());
                self.put(key.clone(), write, None);
                Merged::Won { displaced }
            }
            Ordering::Less if !held.knew(write.dot) => Merged::Displaced { loser: write },
            _ => Merged::Nothing,
        }
    }

    /// Begins a run for a neighbour that has everything up to `above`; `None` if it lacks nothing.
    pub fn open_run(&mut self, origin: OriginIx, above: u64) -> Option<(RunId, Run)> {
        let target = self.frontier.get(origin);
        if target <= above {
            return None;
        }
        self.next_run += 1;
        let id = self.next_run;
        self.feed_mut(origin).open_run(id, above, target);
        Some((id, Run { passed: above, target }))
    }

    /// How far a run has been read; `None` if it is not open.
    pub fn run_passed(&self, origin: OriginIx, id: RunId) -> Option<u64> {
        self.feeds.get(origin.0 as usize)?.run(id).map(|run| run.passed)
    }

    /// Reads on in a run (R2, R3): each key's newest write, for every entry that stood there when the run began.
    /// Stops after `count_max` writes or about `bytes_max` bytes of values. The caller closes the run after the last reading.
    pub fn read_run(&mut self, origin: OriginIx, id: RunId, count_max: usize, bytes_max: usize) -> Option<Read<K>> {
        let feed = self.feeds.get(origin.0 as usize)?;
        let run = feed.run(id)?;
        let mut read = Read { writes: Vec::new(), upto: run.passed, last: true };
        let mut bytes = 0;
        for (number, slot) in feed.above(run.passed) {
            if number > run.target {
                break;
            }
            // Positions that were taken over from a peer may coincide, and a reading must not part what shares a number.
            if (read.writes.len() >= count_max || bytes >= bytes_max) && number > read.upto {
                read.last = false;
                break;
            }
            let Some(register) = self.at(slot) else { continue };
            let Some(stands) = register.entry(origin) else { continue };
            let skipped =
                (is(Sabotage::MovedSkip) && stands.number > run.target) || (is(Sabotage::NoPointer) && register.write.dot.origin != origin);
            if (stands.number == number || stands.number > run.target) && !skipped {
                read.upto = number;
                bytes += register.write.value.as_ref().map_or(0, |value| value.len()) + 16;
                read.writes.push((number, register.key.clone(), register.write.clone()));
            }
        }
        if read.last {
            read.upto = run.target;
        }
        let upto = read.upto;
        self.feed_mut(origin).pass(id, upto);
        Some(read)
    }

    /// Ends a run, finished or not.
    pub fn close_run(&mut self, origin: OriginIx, id: RunId) {
        if let Some(feed) = self.feeds.get_mut(origin.0 as usize) {
            feed.close_run(id);
        }
    }

    /// The receiver's end of a run: everything up to `upto` has come, so the positions hold and the frontier moves.
    pub fn end_run(&mut self, origin: OriginIx, upto: u64, positions: impl IntoIterator<Item = (u64, K)>) {
        self.take_positions(origin, positions);
        self.advance(origin, upto);
    }

    /// Takes over positions of keys in a feed. Keys that are gone meanwhile are passed over.
    pub fn take_positions(&mut self, origin: OriginIx, positions: impl IntoIterator<Item = (u64, K)>) {
        let mut placed: Vec<(u64, Slot)> = positions.into_iter().filter_map(|(number, key)| Some((number, self.slot_of(&key)?))).collect();
        placed.sort_unstable();
        self.place(origin, placed);
    }

    /// Raises the frontier of a feed.
    pub fn advance(&mut self, origin: OriginIx, upto: u64) {
        if self.frontier.raise(origin, upto) {
            self.dirty_feeds.insert(origin);
        }
    }

    /// Raises the floor of a feed.
    pub fn raise_floor(&mut self, origin: OriginIx, floor: u64) {
        let feed = self.feed_mut(origin);
        if feed.floor < floor {
            feed.floor = floor;
            self.dirty_feeds.insert(origin);
        }
    }

    /// Removes a key and its entries without a trace: the tree, or a peer that is ahead, has said that it is gone.
    pub fn drop_key(&mut self, key: &K) -> Option<Write> {
        let slot = self.unindex(key)?;
        self.count(key);
        let register = self.slots[slot as usize].take()?;
        for entry in register.placed() {
            self.passing.remove(&(entry.origin, entry.number, slot));
            self.feeds[entry.origin.0 as usize].vacate(entry.index);
        }
        self.free.push(slot);
        self.deleted.push(register.key);
        Some(register.write)
    }

    /// Removes a key of which another one's write says that it is gone: that one takes over its places in feeds, so that whoever has not heard of the key is sent it instead (R3).
    pub fn absorb(&mut self, key: &K, into: &K) {
        let Some(to) = self.slot_of(into) else { return };
        let Some(slot) = self.unindex(key) else { return };
        self.count(key);
        let Some(gone) = self.slots[slot as usize].take() else { return };
        for entry in gone.placed() {
            self.passing.remove(&(entry.origin, entry.number, slot));
            let feed = &mut self.feeds[entry.origin.0 as usize];
            let Some(register) = self.slots[to as usize].as_mut() else { continue };
            if gone.moved {
                feed.point_on(slot, to);
            }
            // What is foretold is the only entry, and only spares a row.
            register.entries.retain(|entry| entry.index != FORETOLD);
            let before = register.entries.iter().position(|standing| standing.origin == entry.origin);
            let further = before.is_some_and(|at| register.entries[at].number >= entry.number);
            feed.hand_over(entry.index, to, !further);
            if further {
                continue;
            }
            if let Some(at) = before {
                let old = register.entries.swap_remove(at);
                self.passing.remove(&(old.origin, old.number, to));
                register.moved = true;
                feed.vacate(old.index);
            }
            register.entries.push(*entry);
            if register.write.dot != entry.dot() {
                self.passing.insert((entry.origin, entry.number, to));
            }
        }
        self.free.push(slot);
        self.deleted.push(gone.key);
        self.touch(to);
    }

    /// Forgets removals and overtaken entries that are stable (R5), and raises floors accordingly. Returns the keys whose removal is
    /// forgotten altogether. `stable` is what every member heard from is known to hold durably, this node included.
    pub fn forget(&mut self, stable: &Frontier) -> Vec<K> {
        self.stable.clone_from(stable);
        let due: Vec<(OriginIx, u64, Slot)> = stable
            .iter()
            .flat_map(|dot| self.passing.range((dot.origin, 0, 0)..=(dot.origin, dot.number, Slot::MAX)).copied().collect::<Vec<_>>())
            .collect();
        let mut gone = Vec::new();
        for (origin, number, slot) in due {
            let Some(register) = self.slots[slot as usize].as_mut() else { continue };
            let removal = register.write.value.is_none();
            if !stable.covers(register.write.dot) {
                continue;
            }
            if removal && !is(Sabotage::ForgetFast) && !register.write.seen.iter().all(|seen| self.frontier.covers(*seen)) {
                continue; // it overtook writes that have not come here yet
            }
            self.passing.remove(&(origin, number, slot));
            let Some(at) = register.entries.iter().position(|entry| entry.origin == origin && entry.number == number) else { continue };
            let entry = register.entries.swap_remove(at);
            let key = register.key.clone();
            let bare = register.entries.is_empty();
            self.feeds[origin.0 as usize].vacate(entry.index);
            if !is(Sabotage::NoFloor) {
                self.raise_floor(origin, number);
            }
            if removal && bare {
                self.drop_key(&key);
                gone.push(key);
            } else {
                self.touch(slot);
            }
        }
        gone
    }

    /// Restores a stored register. Entries are put in order by [`Registers::restore_feed`], which must follow.
    pub fn restore(&mut self, key: K, stored: Stored) {
        let slot = self.put(key, stored.write, None);
        if let Some(register) = self.slots[slot as usize].as_mut() {
            register.entries = stored.entries.iter().map(|dot| Entry { origin: dot.origin, index: 0, number: dot.number }).collect();
        }
    }

    /// Restores a feed's frontier and floor.
    pub fn restore_feed(&mut self, origin: OriginIx, frontier: u64, floor: u64) {
        self.frontier.raise(origin, frontier);
        self.feed_mut(origin).floor = floor;
    }

    /// Ends the restoring: rebuilds the feeds from the registers' entries. Entries beyond a frontier (a run cut short by the stop)
    /// are left out: they come again.
    pub fn restored(&mut self) {
        let mut feeds: Vec<Vec<(u64, Slot)>> = Vec::new();
        for (slot, register) in self.slots.iter_mut().enumerate() {
            let Some(register) = register else { continue };
            register.entries.retain(|entry| self.frontier.get(entry.origin) >= entry.number);
            register.dirty = false;
            for entry in &register.entries {
                let at = entry.origin.0 as usize;
                if feeds.len() <= at {
                    feeds.resize_with(at + 1, Vec::new);
                }
                feeds[at].push((entry.number, slot as Slot));
                if register.write.value.is_none() || register.write.dot != (DotIx { origin: entry.origin, number: entry.number }) {
                    self.passing.insert((entry.origin, entry.number, slot as Slot));
                }
            }
        }
        for (at, entries) in feeds.into_iter().enumerate() {
            self.feed_mut(OriginIx(at as u32)).insert_all(entries);
            self.reindex(OriginIx(at as u32));
        }
        self.dirty.clear();
        self.deleted.clear();
        self.dirty_feeds.clear();
    }

    /// Hands out what has changed since the last call: registers (`None` where removed), then feeds as (origin, frontier, floor).
    pub fn take_dirty(&mut self, mut register: impl FnMut(&K, Option<(&Write, Dots)>), mut feed: impl FnMut(OriginIx, u64, u64)) {
        for key in std::mem::take(&mut self.deleted) {
            if self.slot_of(&key).is_none() {
                register(&key, None);
            }
        }
        for slot in std::mem::take(&mut self.dirty) {
            if let Some(dirty) = self.slots[slot as usize].as_mut().filter(|dirty| dirty.dirty) {
                dirty.dirty = false;
                register(&dirty.key, Some((&dirty.write, dirty.dots())));
            }
        }
        for origin in std::mem::take(&mut self.dirty_feeds) {
            feed(origin, self.frontier.get(origin), self.feeds.get(origin.0 as usize).map_or(0, |feed| feed.floor));
        }
    }

    /// Whether [`Registers::take_dirty`] would hand out anything.
    pub fn is_dirty(&self) -> bool {
        !(self.dirty.is_empty() && self.deleted.is_empty() && self.dirty_feeds.is_empty())
    }

    fn slot_of(&self, key: &K) -> Option<Slot> {
        self.index.find(hash(key), |slot| self.at(*slot).is_some_and(|register| register.key == *key)).copied()
    }

    /// Forgets where a key is.
    fn unindex(&mut self, key: &K) -> Option<Slot> {
        let slots = &self.slots;
        let is = |slot: &Slot| slots[*slot as usize].as_ref().is_some_and(|register| register.key == *key);
        Some(self.index.find_entry(hash(key), is).ok()?.remove().0)
    }

    fn at(&self, slot: Slot) -> Option<&Register<K>> {
        self.slots.get(slot as usize)?.as_ref()
    }

    fn feed_mut(&mut self, origin: OriginIx) -> &mut Feed {
        let at = origin.0 as usize;
        if self.feeds.len() <= at {
            self.feeds.resize_with(at + 1, Feed::default);
        }
        &mut self.feeds[at]
    }

    fn count(&mut self, key: &K) {
        self.changes += 1;
        self.watched_changes += u64::from((self.watched)(key));
    }

    /// Makes a write the key's newest; its entries stay, and now are overtaken, but for one that is about to be `moved`.
    fn put(&mut self, key: K, write: Write, moved: Option<OriginIx>) -> Slot {
        self.count(&key);
        let slot = self.slot_of(&key);
        let slot = if let Some((slot, register)) = slot.and_then(|slot| Some((slot, self.slots[slot as usize].as_mut()?))) {
            register.write = write;
            for entry in register.placed().filter(|entry| Some(entry.origin) != moved) {
                self.passing.insert((entry.origin, entry.number, slot));
            }
            slot
        } else {
            let hashed = hash(&key);
            let register = Some(Register { key, write, entries: SmallVec::new(), dirty: false, moved: false });
            let slot = self.free.pop().unwrap_or(self.slots.len() as Slot);
            if slot as usize == self.slots.len() {
                self.slots.push(register);
            } else {
                self.slots[slot as usize] = register;
            }
            let slots = &self.slots;
            self.index.insert_unique(hashed, slot, |slot| slots[*slot as usize].as_ref().map_or(0, |register| hash(&register.key)));
            slot
        };
        self.touch(slot);
        slot
    }

    fn touch(&mut self, slot: Slot) {
        if let Some(register) = self.slots[slot as usize].as_mut().filter(|register| !register.dirty) {
            register.dirty = true;
            self.dirty.push(slot);
        }
    }

    /// Puts keys at numbers of a feed, in ascending order; a key that stands further on stays there.
    fn place(&mut self, origin: OriginIx, placed: impl IntoIterator<Item = (u64, Slot)>) {
        let mut late = Vec::new();
        for (number, slot) in placed {
            self.feed_mut(origin);
            let Some(register) = self.slots[slot as usize].as_mut() else { continue };
            // What is foretold is the only entry.
            let foretold = register.entries.last().copied().filter(|entry| entry.index == FORETOLD);
            if foretold.is_some() {
                register.entries.clear();
            }
            let stored = foretold.is_some_and(|entry| entry.dot() == DotIx { origin, number });
            let before = register.entries.iter().position(|entry| entry.origin == origin);
            if before.is_some_and(|at| register.entries[at].number >= number) {
                continue;
            }
            let feed = &mut self.feeds[origin.0 as usize];
            if let Some(at) = before {
                let old = register.entries.swap_remove(at);
                register.moved = true;
                self.passing.remove(&(origin, old.number, slot));
                if old.index != u32::MAX {
                    feed.vacate(old.index);
                } else {
                    late.retain(|entry| *entry != (old.number, slot));
                }
            }
            let index = feed.append(number, slot).unwrap_or_else(|| {
                late.push((number, slot));
                u32::MAX
            });
            register.entries.push(Entry { origin, index, number });
            if register.write.value.is_none() || register.write.dot != (DotIx { origin, number }) {
                self.passing.insert((origin, number, slot));
            }
            if !stored {
                self.touch(slot);
            }
        }
        let feed = self.feed_mut(origin);
        let reindex = !late.is_empty() || feed.is_sparse();
        feed.insert_all(late);
        if reindex {
            self.reindex(origin);
        }
    }

    fn reindex(&mut self, origin: OriginIx) {
        let (slots, feed) = (&mut self.slots, &mut self.feeds[origin.0 as usize]);
        let entry = |register: &Option<Register<K>>| register.as_ref().and_then(|register| register.entry(origin));
        feed.compact(|slot, number| entry(&slots[slot as usize]).is_some_and(|entry| entry.number == number));
        feed.reindex(|slot, number, index| {
            let entries = slots[slot as usize].as_mut().map(|register| &mut register.entries);
            let entry = entries.into_iter().flatten().find(|entry| entry.origin == origin && entry.number == number);
            if let Some(entry) = entry {
                entry.index = index;
            }
        });
    }
}

impl<K> Register<K> {
    /// Its entries in feeds.
    fn placed(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.index != FORETOLD)
    }

    fn entry(&self, origin: OriginIx) -> Option<Entry> {
        self.placed().find(|entry| entry.origin == origin).copied()
    }

    /// Its entries as they are stored.
    fn dots(&self) -> Dots {
        self.entries.iter().map(Entry::dot).collect()
    }
}
