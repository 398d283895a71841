//! A store in memory, for tests and the simulator: it keeps the contract, and can be made to suffer.

use std::collections::{BTreeMap, VecDeque};

use mangrove_crdt::persist::{Row, Table};

use super::{Effect, Limit, SEAL_BYTES, Store, StoreError, Sync, check_rows, last_rows, seal, show_key, unseal};

/// Rows in memory, with a model of the disk below them.
///
/// Two images are kept as one: the rows as the process sees them, and for each batch since the last sync what it replaced. [`crash`]
/// takes those batches back, newest first, which is what the loss of power does. For [`truncate`] a few batches before are kept too.
///
/// [`crash`]: MemoryStore::crash
/// [`truncate`]: MemoryStore::truncate
#[derive(Debug)]
pub struct MemoryStore {
    /// One map a table, by its number; values are sealed as on a disk, so that damage is found the same way.
    tables: [BTreeMap<Vec<u8>, Vec<u8>>; Table::ALL.len()],
    /// What each batch since the last sync replaced, oldest first.
    unsynced: VecDeque<Vec<Replaced>>,
    /// The same of the last few batches that were synced.
    synced: VecDeque<Vec<Replaced>>,
    /// What the half of a batch replaced that a crash has left behind: it fails its check, and recovery takes it back.
    torn: Vec<Replaced>,
    limit: Limit,
    bytes: u64,
    /// Errors to give instead of doing what is asked, next first.
    failures: VecDeque<StoreError>,
    /// The error after which the store wants [`Store::recover`].
    broken: Option<StoreError>,
    /// A disk that says "synced" and is not.
    lying: bool,
    lied: bool,
    tidied: usize,
}

/// A row before a batch changed it.
#[derive(Debug)]
struct Replaced {
    table: Table,
    key: Vec<u8>,
    value: Option<Vec<u8>>,
}

impl Default for MemoryStore {
    fn default() -> Self {
        MemoryStore::new(Limit::NONE)
    }
}

impl MemoryStore {
    /// An empty store.
    pub fn new(limit: Limit) -> Self {
        MemoryStore {
            tables: Default::default(),
            unsynced: VecDeque::new(),
            synced: VecDeque::new(),
            torn: Vec::new(),
            limit,
            bytes: 0,
            failures: VecDeque::new(),
            broken: None,
            lying: false,
            lied: false,
            tidied: 0,
        }
    }

    /// The power goes: what was not synced is lost. The store is as a newly opened one.
    pub fn crash(&mut self) {
        self.crash_keeping(0);
    }

    /// The power goes, but the disk had already written the oldest `batches` of those not synced. What a crash may leave is any such
    /// prefix, never half a batch.
    pub fn crash_keeping(&mut self, batches: usize) {
        while self.unsynced.len() > batches
            && let Some(batch) = self.unsynced.pop_back()
        {
            self.take_back(batch);
        }
        self.reopen();
    }

    /// The power goes in the middle of a write: of those not synced the oldest `batches` are there, and of the next one the first `rows` rows,
    /// until [`MemoryStore::reopen`] recovers. Says whether there was a batch to tear.
    pub fn crash_tearing(&mut self, batches: usize, rows: usize) -> bool {
        while self.unsynced.len() > batches + 1
            && let Some(batch) = self.unsynced.pop_back()
        {
            self.take_back(batch);
        }
        let torn = if self.unsynced.len() > batches { self.unsynced.pop_back() } else { None };
        let Some(mut torn) = torn else { return false };
        let rest = torn.split_off(rows.min(torn.len()));
        self.take_back(rest);
        self.torn = torn;
        true
    }

    /// The half of a batch that a crash has left behind stands, as if recovery did not look: only to show that this is noticed.
    pub fn keep_torn(&mut self) {
        self.torn.clear();
    }

    /// The process is killed and the file system has lost the journal's tail: the last `batches` batches, synced or not, as far as they are
    /// known ([`TAIL_BATCHES_MAX`] of those synced).
    pub fn truncate(&mut self, batches: usize) {
        for _ in 0..batches {
            let Some(batch) = self.unsynced.pop_back().or_else(|| self.synced.pop_back()) else { break };
            self.take_back(batch);
        }
        self.reopen();
    }

    fn take_back(&mut self, batch: Vec<Replaced>) {
        for row in batch.into_iter().rev() {
            self.put(row.table, &row.key, row.value);
        }
    }

    /// The process ends and starts again on a machine that keeps running: nothing handed over is lost, but for half a batch.
    pub fn reopen(&mut self) {
        let torn = std::mem::take(&mut self.torn);
        self.take_back(torn);
        self.all_synced();
        self.failures.clear();
        self.broken = None;
    }

    fn all_synced(&mut self) {
        self.lied = false;
        self.synced.append(&mut self.unsynced);
        let old = self.synced.len().saturating_sub(TAIL_BATCHES_MAX);
        self.synced.drain(..old);
    }

    fn say_synced(&mut self) {
        if self.lying {
            self.lied |= !self.unsynced.is_empty();
        } else {
            self.all_synced();
        }
    }

    /// Whether a crash would lose some of what was said to be synced: until the next sync in truth, though the disk may have stopped lying.
    pub fn has_lied(&self) -> bool {
        self.lied
    }

    /// Batches that a crash would lose.
    pub fn unsynced(&self) -> usize {
        self.unsynced.len()
    }

    /// How often it was asked to give back what room it can.
    pub fn tidied(&self) -> usize {
        self.tidied
    }

    /// Rows that are there.
    pub fn rows(&self) -> usize {
        self.tables.iter().map(BTreeMap::len).sum()
    }

    /// Fills or widens the disk.
    pub fn set_limit(&mut self, limit: Limit) {
        self.limit = limit;
    }

    /// The next call that writes gives this error; called several times, the next several. [`StoreError::Full`] leaves the store sound,
    /// others leave it wanting [`Store::recover`].
    pub fn fail_next(&mut self, error: StoreError) {
        self.failures.push_back(error);
    }

    /// From now on the disk lies (or not): syncs succeed, and a crash still loses what they covered.
    pub fn set_lying(&mut self, lying: bool) {
        self.lying = lying;
    }

    /// Flips one bit of a stored value, counted over checksum and value; true if there is such a row.
    pub fn flip_bit(&mut self, table: Table, key: &[u8], bit: usize) -> bool {
        let Some(sealed) = self.tables[table as usize].get_mut(key) else { return false };
        let at = bit % (sealed.len() * 8);
        sealed[at / 8] ^= 1 << (at % 8);
        true
    }

    /// Puts or removes one row and gives what was there.
    fn put(&mut self, table: Table, key: &[u8], sealed: Option<Vec<u8>>) -> Option<Vec<u8>> {
        let key_len = key.len();
        let rows = &mut self.tables[table as usize];
        self.bytes += sealed.as_ref().map_or(0, |value| (key_len + value.len()) as u64);
        let old = match (sealed, rows.get_mut(key)) {
            (Some(value), Some(old)) => Some(std::mem::replace(old, value)),
            (Some(value), None) => rows.insert(key.to_vec(), value),
            (None, Some(_)) => rows.remove(key),
            (None, None) => None,
        };
        self.bytes -= old.as_ref().map_or(0, |value| (key_len + value.len()) as u64);
        old
    }

    /// Gives the failure that is due, if one is.
    fn fail(&mut self) -> Result<(), StoreError> {
        if let Some(error) = &self.broken {
            return Err(error.clone());
        }
        let Some(error) = self.failures.pop_front() else { return Ok(()) };
        if !matches!(error, StoreError::Full { .. }) {
            self.broken = Some(error.clone());
        }
        Err(error)
    }

    fn admit(&self, rows: &[Row]) -> Result<(), StoreError> {
        if self.limit.has_room(self.bytes, Effect::written(rows)) {
            return Ok(());
        }
        let effect = Effect::measure(rows, |table, key| {
            Ok::<_, StoreError>(self.tables[table as usize].get(key).map(|value| value.len() - SEAL_BYTES))
        })?;
        if self.limit.admits(self.bytes, effect) {
            return Ok(());
        }
        Err(StoreError::Full {
            place: PLACE.into(),
            what: format!("{} of {} bytes are taken and the batch has {}", self.bytes, self.limit.bytes_max, effect.written),
            remedy: "raise the limit",
        })
    }
}

const PLACE: &str = "the store in memory";

/// How many batches are known that a truncation may lose though they were synced.
pub const TAIL_BATCHES_MAX: usize = 4;

impl Store for MemoryStore {
    fn scan(&self, table: Table, prefix: &[u8], each: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), StoreError> {
        for (key, sealed) in self.tables[table as usize].range(prefix.to_vec()..).take_while(|(key, _)| key.starts_with(prefix)) {
            each(key, open(table, key, sealed)?);
        }
        Ok(())
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(sealed) = self.tables[table as usize].get(key) else { return Ok(None) };
        open(table, key, sealed).map(|value| Some(value.to_vec()))
    }

    fn commit(&mut self, rows: &[Row], sync: Sync) -> Result<(), StoreError> {
        check_rows(rows)?;
        self.fail()?;
        self.admit(rows)?;
        let replaced = last_rows(rows)
            .into_iter()
            .map(|((table, key), value)| {
                let sealed = value.map(|value| seal(table, key, value));
                Replaced { table, key: key.to_vec(), value: self.put(table, key, sealed) }
            })
            .collect();
        self.unsynced.push_back(replaced);
        if sync == Sync::Disk {
            self.say_synced();
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        self.fail()?;
        self.say_synced();
        Ok(())
    }

    fn recover(&mut self) -> Result<(), StoreError> {
        self.broken = None;
        Ok(())
    }

    fn tidy(&mut self) -> Result<(), StoreError> {
        self.tidied += 1;
        Ok(())
    }

    fn bytes(&self) -> u64 {
        self.bytes
    }

    fn room(&self) -> u64 {
        self.limit.room(self.bytes)
    }
}

fn open<'a>(table: Table, key: &[u8], sealed: &'a [u8]) -> Result<&'a [u8], StoreError> {
    unseal(table, key, sealed).ok_or_else(|| StoreError::Corrupt {
        place: PLACE.into(),
        table: Some(table),
        key: key.to_vec(),
        what: format!("the checksum of {} row {} is wrong", table.name(), show_key(key)),
        remedy: "and start the node again, which takes its data from its peers",
    })
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::store::conformance::{self, Subject};

    struct InMemory(Arc<Mutex<MemoryStore>>);

    impl Subject for InMemory {
        type Store = Arc<Mutex<MemoryStore>>;

        fn open(&mut self, limit: Limit) -> Self::Store {
            let mut disk = self.0.lock().unwrap();
            disk.reopen();
            disk.set_limit(limit);
            self.0.clone()
        }

        fn crash(&mut self, store: Self::Store) {
            let unsynced = store.lock().unwrap().unsynced();
            store.lock().unwrap().crash_keeping(unsynced / 2);
        }

        fn damage(&mut self, store: Self::Store, table: Table, key: &[u8]) -> bool {
            store.lock().unwrap().flip_bit(table, key, 70)
        }
    }

    #[test]
    fn the_store_in_memory_keeps_the_contract() {
        conformance::run(|| InMemory(Arc::default()));
    }

    fn put(key: &[u8], value: &[u8]) -> Row {
        Row { table: Table::Registers, key: key.to_vec(), value: Some(value.to_vec()) }
    }

    fn keys(store: &MemoryStore) -> Vec<Vec<u8>> {
        let mut keys = Vec::new();
        store.scan(Table::Registers, b"", &mut |key, _| keys.push(key.to_vec())).unwrap();
        keys
    }

    #[test]
    fn a_crash_keeps_what_was_synced_and_any_prefix_of_the_rest() {
        for kept in 0..4 {
            let mut store = MemoryStore::default();
            store.commit(&[put(b"a", b"1"), put(b"x", b"1")], Sync::Disk).unwrap();
            store.commit(&[put(b"b", b"2"), put(b"x", b"2")], Sync::Buffered).unwrap();
            store.commit(&[put(b"c", b"3"), Row { table: Table::Registers, key: b"x".to_vec(), value: None }], Sync::Buffered).unwrap();
            assert_eq!(store.unsynced(), 2);
            let bytes = store.bytes();
            store.crash_keeping(kept);
            let want = [["a", "x"].as_slice(), &["a", "b", "x"], &["a", "b", "c"]][kept.min(2)];
            assert_eq!(keys(&store), want.iter().map(|key| key.as_bytes()).collect::<Vec<_>>(), "kept {kept}");
            let x = store.get(Table::Registers, b"x").unwrap();
            assert_eq!(x.as_deref(), [Some(&b"1"[..]), Some(b"2"), None][kept.min(2)]);
            assert!(kept < 2 || store.bytes() == bytes);
            assert_eq!(store.unsynced(), 0);
        }
    }

    #[test]
    fn half_a_batch_is_there_until_recovery_drops_it() {
        for rows in 0..4 {
            let mut store = MemoryStore::default();
            store.commit(&[put(b"a", b"1"), put(b"x", b"1")], Sync::Disk).unwrap();
            store.commit(&[put(b"b", b"2")], Sync::Buffered).unwrap();
            store.commit(&[put(b"c", b"3"), put(b"d", b"3"), put(b"x", b"3")], Sync::Buffered).unwrap();
            store.commit(&[put(b"e", b"4")], Sync::Buffered).unwrap();
            assert!(store.crash_tearing(1, rows));
            let half = [["a", "b", "x"].as_slice(), &["a", "b", "c", "x"], &["a", "b", "c", "d", "x"], &["a", "b", "c", "d", "x"]][rows];
            assert_eq!(keys(&store), half.iter().map(|key| key.as_bytes()).collect::<Vec<_>>(), "{rows} rows");
            store.reopen();
            assert_eq!(keys(&store), [b"a", b"b", b"x"], "{rows} rows");
            assert_eq!(store.get(Table::Registers, b"x").unwrap().as_deref(), Some(&b"1"[..]));
            assert!(!store.crash_tearing(0, rows), "all is synced now");
        }
    }

    #[test]
    fn a_truncated_journal_is_as_it_was_a_few_batches_ago() {
        let mut store = MemoryStore::default();
        for (key, sync) in [(b"a", Sync::Disk), (b"b", Sync::Disk), (b"c", Sync::Buffered)] {
            store.commit(&[put(key, b"1"), put(b"x", key)], sync).unwrap();
        }
        store.truncate(2);
        assert_eq!(keys(&store), [b"a", b"x"]);
        assert_eq!(store.get(Table::Registers, b"x").unwrap().as_deref(), Some(&b"a"[..]));
        store.truncate(9);
        assert_eq!((store.rows(), store.bytes()), (0, 0));
    }

    #[test]
    fn a_lying_disk_loses_what_it_said_was_synced() {
        let mut store = MemoryStore::default();
        store.set_lying(true);
        store.commit(&[put(b"a", b"1")], Sync::Disk).unwrap();
        store.sync().unwrap();
        store.crash();
        assert_eq!(keys(&store), Vec::<Vec<u8>>::new());
    }

    #[test]
    fn what_a_lying_disk_owes_it_owes_until_a_sync_in_truth() {
        let mut store = MemoryStore::default();
        store.set_lying(true);
        store.sync().unwrap();
        assert!(!store.has_lied(), "there was nothing to lie about");
        store.commit(&[put(b"a", b"1")], Sync::Buffered).unwrap();
        assert!(!store.has_lied(), "nor was anything said of this");
        store.sync().unwrap();
        store.set_lying(false);
        assert!(store.has_lied());
        store.commit(&[put(b"b", b"1")], Sync::Buffered).unwrap();
        assert!(store.has_lied());
        store.sync().unwrap();
        assert!(!store.has_lied());
    }

    #[test]
    fn a_failure_that_is_not_full_lasts_until_recovery() {
        let mut store = MemoryStore::default();
        let io = StoreError::Io { place: "here".into(), what: "broken".into() };
        store.fail_next(io.clone());
        assert_eq!(store.commit(&[put(b"a", b"1")], Sync::Disk), Err(io.clone()));
        assert_eq!(store.sync(), Err(io));
        store.recover().unwrap();
        store.commit(&[put(b"a", b"1")], Sync::Disk).unwrap();

        let full = StoreError::Full { place: "here".into(), what: "it is".into(), remedy: "wait" };
        store.fail_next(full.clone());
        assert_eq!(store.commit(&[put(b"b", b"1")], Sync::Disk), Err(full));
        store.commit(&[put(b"b", b"1")], Sync::Disk).unwrap();
    }

    #[test]
    fn bytes_are_those_of_the_rows_that_are_there() {
        let mut store = MemoryStore::default();
        store.commit(&[put(b"abc", b"12345")], Sync::Disk).unwrap();
        assert_eq!(store.bytes(), 3 + 8 + 5);
        store.commit(&[put(b"abc", b"1")], Sync::Disk).unwrap();
        assert_eq!(store.bytes(), 3 + 8 + 1);
        store.commit(&[Row { table: Table::Registers, key: b"abc".to_vec(), value: None }], Sync::Disk).unwrap();
        assert_eq!((store.bytes(), store.rows()), (0, 0));
    }
}
