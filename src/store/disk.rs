//! The store on a disk: fjall in `DIR/data`, one keyspace a table.
//!
//! fjall is an LSM: a batch goes to a journal and to memory, and is sorted into files later by its own workers. That is what an SD card at
//! the edge wants, and it brings four things this module stands between:
//!
//! - **It stops for good after a failed write** ("poisoned"), also when a worker of its own failed, and a commit that then waits for that worker
//!   waits for ever. So we wait *before* a commit, where we can notice ([`DiskStore::recover`] opens it again).
//! - **It takes damage for a torn tail** in places: [`super::journal`] looks first.
//! - **It may panic on damaged files.** Every call that reads them is guarded, and a panic there is damage.
//! - **It does not know how full the disk is**, and a full disk poisons it: [`Limit`]s are checked before each batch, one for what this store may
//!   take, one for what the file system has left.
//!
//! Damaged data are *quarantined*: `DIR/data` becomes `DIR/quarantine-<n>-<unix time>` with a note in it, an empty store takes its place, and
//! what peers have is learned again from them. Nothing is ever deleted here.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fjall::{AbstractTree, Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use mangrove_crdt::persist::{Row, Table};

use super::directory::{DataDir, io_at, io_error, remove_dir_if_there, sync_dir};
use super::journal::{self, COMMIT_KEY, Commit, Fault};
use super::{Effect, FORMAT_VERSION, Limit, SEAL_BYTES, Store, StoreError, Sync, check_rows, checksum, last_rows, seal, show_key, unseal};

/// How to open a [`DiskStore`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DiskOptions {
    /// What the store may take on the disk. Merging files has old and new ones at once, and may go over it for a moment by what it merges.
    pub limit: Limit,
    /// What it leaves free on the file system for others, in bytes, as far as a file system of its size allows: at most a sixteenth of it.
    pub free_bytes_min: u64,
    /// Memory for blocks read from files, in bytes. A node reads its data once, at the start, so a little does.
    pub cache_bytes: u64,
    /// Memory for rows not yet in files, in bytes: for each of the two large tables, a quarter of it for each of the others. More means fewer
    /// bytes written in the end; what a burst left there is written out in the next idle time, so that an idle node stays small.
    pub memtable_bytes: u64,
}

impl Default for DiskOptions {
    fn default() -> Self {
        DiskOptions { limit: Limit::NONE, free_bytes_min: 64 << 20, cache_bytes: 2 << 20, memtable_bytes: 16 << 20 }
    }
}

/// How a store was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Opened {
    /// There was none, and an empty one was made.
    Created,
    /// It was there, and is whole up to the last batch that was committed.
    Existing {
        /// Bytes of an unfinished batch that were cut off, where the last run ended in the middle of one; 0 otherwise.
        torn_bytes: u64,
    },
    /// It was damaged and has been set aside, and an empty one was made. The node must learn its data again from its peers before it grants or
    /// decides anything. Reported at every opening until the first batch is committed, so that a crash in between does not hide it.
    Quarantined {
        /// Where the damaged data are now.
        path: PathBuf,
        /// What was wrong with them.
        reason: String,
    },
}

/// Rows on a disk. The module's essay says what stands between them and it.
pub struct DiskStore {
    dir: DataDir,
    path: PathBuf,
    options: DiskOptions,
    /// `None` while an error keeps it shut.
    open: Option<Open>,
    usage: Usage,
    /// Bytes removed and replaced while near a limit, since the last compaction for their sake.
    freed_bytes: u64,
}

/// An open database.
struct Open {
    database: Database,
    /// By table number.
    tables: [Keyspace; Table::ALL.len()],
    /// The store's own table: format, number of tables, commit row, quarantine note.
    own: Keyspace,
    /// The last batch's number.
    number: u64,
    /// The last batch known to be on the disk.
    synced: u64,
    /// A quarantine note is there, and goes with the next batch.
    is_noted: bool,
    /// The last batch is a mark.
    is_marked: bool,
    /// How many tables there are has been noted.
    tables_noted: bool,
}

const FORMAT_KEY: &[u8] = b"format";
const NOTE_KEY: &[u8] = b"quarantined";
/// How many of [`Table::ALL`] there are, and how many there were before this was noted.
const TABLES_KEY: &[u8] = b"tables";
const TABLES_FIRST: usize = 6;
/// Names of files in `DIR`.
const DATA: &str = "data";
const DATA_NEW: &str = "data.new";
const JOURNAL_NEW: &str = "journal.new";

impl DiskStore {
    pub(super) fn open(dir: DataDir, options: DiskOptions) -> Result<(DiskStore, Opened), StoreError> {
        let path = dir.path().join(DATA);
        let mut store = DiskStore { usage: Usage::new(&path), dir, path, options, open: None, freed_bytes: 0 };
        if !store.path.exists() {
            store.create(None)?;
            return Ok((store, Opened::Created));
        }
        match store.open_existing() {
            Ok(opened) => Ok((store, opened)),
            Err(StoreError::Corrupt { what, .. }) => {
                let opened = store.quarantine(&what)?;
                Ok((store, opened))
            }
            Err(error) => Err(error),
        }
    }

    /// Sets the data aside and goes on with an empty store; for damage found while reading ([`StoreError::Corrupt`]).
    ///
    /// # Errors
    /// As opening does. Where setting aside fails, everything is as it was.
    pub fn quarantine(&mut self, reason: &str) -> Result<Opened, StoreError> {
        self.open = None;
        let path = self.quarantine_path()?;
        // The note goes in first: a crash in between leaves the data where they were, to be found damaged again.
        let note = format!("{reason}\nmangrove set this directory aside, and took its data from its peers instead.\n");
        let note_path = self.path.join("WHY.txt");
        // On a full disk there is no note, and the log has the reason.
        let _ = fs::write(&note_path, note);
        fs::rename(&self.path, &path).map_err(io_at(&self.path, "setting damaged data aside"))?;
        sync_dir(self.dir.path())?;
        self.create(Some((&path, reason)))?;
        Ok(Opened::Quarantined { path, reason: reason.to_string() })
    }

    /// Reads every row, to find damage.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] at the first damaged row.
    pub fn verify(&self) -> Result<(), StoreError> {
        Table::ALL.into_iter().try_for_each(|table| self.scan(table, b"", &mut |_, _| {}))
    }

    /// Writes a batch of nothing but the commit row behind a synced one, so that damage to that one can be told from a torn tail. The mark itself
    /// need not be synced: it counts once the system has written it.
    fn mark(&mut self) -> Result<(), StoreError> {
        let open = self.opened()?;
        if open.number > open.synced || open.is_marked {
            return Ok(());
        }
        self.write(&[], Sync::Buffered)?;
        if let Some(open) = &mut self.open {
            open.is_marked = true;
        }
        Ok(())
    }

    /// Makes an empty store aside and puts it in place, so that a store is there whole or not at all.
    fn create(&mut self, quarantined: Option<(&Path, &str)>) -> Result<(), StoreError> {
        let unfinished = self.dir.path().join(DATA_NEW);
        remove_dir_if_there(&unfinished)?;
        let open = guarded(&unfinished, || {
            let open = Open::at(&unfinished, &self.options, true)?;
            let mut batch = open.database.batch().durability(Some(PersistMode::SyncAll));
            batch.insert(&open.own, COMMIT_KEY, Commit { number: 1, synced: 0, seqno_before: open.database.seqno() }.encode());
            batch.insert(&open.own, FORMAT_KEY, own_seal(FORMAT_KEY, &FORMAT_VERSION.to_be_bytes()));
            batch.insert(&open.own, TABLES_KEY, tables_row());
            if let Some((path, reason)) = quarantined {
                batch.insert(&open.own, NOTE_KEY, own_seal(NOTE_KEY, format!("{}\n{reason}", path.display()).as_bytes()));
            }
            batch.commit()?;
            Ok(open)
        })?;
        drop(open);
        fs::rename(&unfinished, &self.path).map_err(io_at(&self.path, "putting the new store in place"))?;
        sync_dir(self.dir.path())?;
        self.open_existing().map(drop)
    }

    fn open_existing(&mut self) -> Result<Opened, StoreError> {
        self.open = None;
        let found = journal::inspect(&self.path).map_err(|fault| self.journal_error(fault))?;
        if !self.path.join("version").is_file() {
            return Err(corrupt(&self.path, "the file `version` is not there".into()));
        }
        let mut open = guarded_opening(&self.path, || Open::at(&self.path, &self.options, false))?;
        let note = open.load(&self.path)?;
        self.usage.forget();
        self.open = Some(open);
        Ok(match note {
            Some((path, reason)) => Opened::Quarantined { path, reason },
            None => Opened::Existing { torn_bytes: found.torn_bytes },
        })
    }

    fn journal_error(&self, fault: Fault) -> StoreError {
        match fault {
            Fault::Damaged(what) => corrupt(&self.path, what),
            Fault::Io(path, error) => io_error(&path, "a journal", &error),
        }
    }

    fn quarantine_path(&self) -> Result<PathBuf, StoreError> {
        let dir = self.dir.path();
        let mut last = 0;
        for entry in fs::read_dir(dir).map_err(io_at(dir, "listing"))? {
            let name = entry.map_err(io_at(dir, "listing"))?.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix("quarantine-")?.split('-').next()?.parse::<u32>().ok());
            last = last.max(number.unwrap_or(0));
        }
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        Ok(dir.join(format!("quarantine-{}-{now_s}", last.saturating_add(1))))
    }

    fn opened(&self) -> Result<&Open, StoreError> {
        self.open
            .as_ref()
            .ok_or_else(|| StoreError::Io { place: self.path.display().to_string(), what: "an earlier error keeps the store shut".into() })
    }

    /// Bytes that count against the limit: files, and rows in memory that will be in files while the journal still has them too.
    fn taken(&self) -> Result<u64, StoreError> {
        Ok(self.usage.bytes()? + self.buffered()?)
    }

    /// Bytes in memory that are still to be written to files.
    fn buffered(&self) -> Result<u64, StoreError> {
        let buffered = |table: &Keyspace| {
            let sealed = table.sealed_memtable_count() as u64 * self.options.memtable_bytes;
            table.tree.active_memtable().size() + sealed
        };
        Ok(self.opened()?.tables.iter().map(buffered).sum())
    }

    /// What the file system has left, as a limit on top of what is taken. Its reserve is `free_bytes_min`.
    fn free_limit(&self, taken: u64) -> Result<Limit, StoreError> {
        let stat = rustix::fs::statvfs(&self.path).map_err(|error| io_error(&self.path, "asking for free space", &error.into()))?;
        let free = (stat.f_bavail * stat.f_frsize).saturating_sub(self.buffered()?);
        let reserve_bytes = self.options.free_bytes_min.min(stat.f_blocks * stat.f_frsize / 16);
        let bytes_max = taken.saturating_add(free);
        Ok(Limit { bytes_max, reserve_bytes: reserve_bytes.min(bytes_max) })
    }

    fn admit(&mut self, rows: &[Row]) -> Result<(), StoreError> {
        let written = Effect::written(rows);
        let taken = self.taken()?;
        let limits = [self.options.limit, self.free_limit(taken)?];
        // Away from the limits nothing is looked up.
        if limits.iter().all(|limit| limit.has_room(taken, written.saturating_add(limit.reserve_bytes))) {
            return Ok(());
        }
        let open = self.opened()?;
        let effect = Effect::measure(rows, |table, key| {
            let size = guarded(&self.path, || open.tables[table as usize].size_of(key))?;
            Ok::<_, StoreError>(size.map(|size| (size as usize).saturating_sub(SEAL_BYTES)))
        })?;
        if limits.iter().all(|limit| limit.has_room(taken, written) || limit.admits(taken, effect)) {
            self.freed_bytes += effect.freed;
            return Ok(());
        }
        let place = self.path.display().to_string();
        let [own, disk] = limits;
        Err(if own.has_room(taken, written) {
            let (free, kept) = (disk.bytes_max - taken, disk.reserve_bytes);
            let what = format!("its file system has {free} bytes left, {kept} are kept free, and the batch has {written}");
            StoreError::Full { place, what, remedy: "give it a larger disk" }
        } else {
            let (max, kept) = (own.bytes_max, own.reserve_bytes);
            let what = format!("it takes {taken} of {max} bytes, {kept} are kept for removals, and the batch has {written}");
            StoreError::Full { place, what, remedy: "raise disk_max_bytes" }
        })
    }

    /// Commits a batch that has been admitted.
    fn write(&mut self, rows: &[Row], sync: Sync) -> Result<(), StoreError> {
        let result = self.opened().and_then(|open| guarded(&self.path, || open.commit(rows, sync)));
        let Some(open) = &mut self.open else { return result };
        if result.is_err() {
            // The batch's fate is unknown, and fjall takes no more: `recover` finds out.
            self.open = None;
            return result;
        }
        open.number += 1;
        open.is_noted &= rows.is_empty();
        open.tables_noted = true;
        open.is_marked = false;
        if sync == Sync::Disk {
            open.synced = open.number;
        }
        self.usage.wrote(Effect::written(rows));
        Ok(())
    }

    /// Lets the workers write out every table that has much in memory.
    fn shrink(&mut self) -> Result<(), StoreError> {
        /// Smaller files would cost more in merging than the memory is worth.
        const KEPT_BYTES_MAX: u64 = 2 << 20;
        let open = self.opened()?;
        let result = guarded(&self.path, || {
            let mut large = open.tables.iter().filter(|table| table.tree.active_memtable().size() > KEPT_BYTES_MAX);
            large.try_for_each(|table| table.rotate_memtable().map(drop))
        });
        if result.is_err() {
            self.open = None;
        }
        result
    }

    /// Rewrites all tables without what was removed.
    fn compact(&mut self) -> Result<(), StoreError> {
        let open = self.opened()?;
        let result = guarded(&self.path, || {
            // Its own table too: a journal goes only when all that it holds is in files.
            for table in open.tables.iter().chain([&open.own]) {
                table.rotate_memtable()?;
                open.wait_while(|| table.sealed_memtable_count() > 0)?;
                table.major_compact()?;
            }
            Ok(())
        });
        self.usage.forget();
        if result.is_err() {
            self.open = None;
        }
        result
    }
}

impl Store for DiskStore {
    fn scan(&self, table: Table, prefix: &[u8], each: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), StoreError> {
        let open = self.opened()?;
        let keyspace = &open.tables[table as usize];
        let in_table = |error| match error {
            StoreError::Corrupt { place, what, key, remedy, .. } => StoreError::Corrupt { place, table: Some(table), key, what, remedy },
            error => error,
        };
        let mut rows =
            guarded(&self.path, || Ok(if prefix.is_empty() { keyspace.iter() } else { keyspace.prefix(prefix) })).map_err(in_table)?;
        while let Some((key, sealed)) = guarded(&self.path, || rows.next().map(fjall::Guard::into_inner).transpose()).map_err(in_table)? {
            let value = unseal(table, &key, &sealed).ok_or_else(|| corrupt_row(&self.path, table, &key))?;
            each(&key, value);
        }
        Ok(())
    }

    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let open = self.opened()?;
        let Some(sealed) = guarded(&self.path, || open.tables[table as usize].get(key))? else { return Ok(None) };
        let value = unseal(table, key, &sealed).ok_or_else(|| corrupt_row(&self.path, table, key))?;
        Ok(Some(value.to_vec()))
    }

    fn commit(&mut self, rows: &[Row], sync: Sync) -> Result<(), StoreError> {
        check_rows(rows)?;
        if rows.is_empty() {
            return if sync == Sync::Disk { self.sync() } else { self.opened().map(drop) };
        }
        self.admit(rows)?;
        self.write(rows, sync)
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        let result = self.opened().and_then(|open| guarded(&self.path, || open.database.persist(PersistMode::SyncData)));
        match &mut self.open {
            Some(open) if result.is_ok() => open.synced = open.number,
            _ => self.open = None,
        }
        result
    }

    fn recover(&mut self) -> Result<(), StoreError> {
        if self.open.is_some() {
            return Ok(());
        }
        journal::write_anew(&self.path, &self.dir.path().join(JOURNAL_NEW)).map_err(|fault| self.journal_error(fault))?;
        self.open_existing()?;
        // fjall also stops when its own workers find damage, and says only that it has stopped.
        self.verify().inspect_err(|_| self.open = None)
    }

    /// Marks the last batch as synced; writes out what much is left in memory; and where the store is near a limit and a good part of it was
    /// removed, rewrites the tables without that, which may take seconds a gigabyte.
    fn tidy(&mut self) -> Result<(), StoreError> {
        self.mark()?;
        self.shrink()?;
        if self.freed_bytes > self.taken()? / 16 {
            self.freed_bytes = 0;
            self.compact()?;
        }
        Ok(())
    }

    fn bytes(&self) -> u64 {
        self.usage.bytes().unwrap_or(0)
    }

    fn room(&self) -> u64 {
        let room = || {
            let taken = self.taken()?;
            let limits = [self.options.limit, self.free_limit(taken)?];
            Ok::<_, StoreError>(limits.map(|limit| limit.room(taken)).into_iter().min().unwrap_or(0))
        };
        room().unwrap_or(0)
    }
}

impl Drop for DiskStore {
    fn drop(&mut self) {
        // A last mark, for the next opening to tell damage from a torn tail. Without it the store is as sound.
        let _ = self.mark();
    }
}

impl Open {
    /// Opens the database, new or not. One that is not new has all tables that it has ever noted: fjall drops, without a word, a table whose files it does not know any more. Those that its version did
    /// not have yet are made.
    fn at(path: &Path, options: &DiskOptions, is_new: bool) -> fjall::Result<Open> {
        /// One to write files while the other merges them. While that one is at it and more is to be merged, the first passes the word to itself without a pause,
        /// and takes a core for it (fjall 3.1); but one alone writes files so late that a full store may grow past what is kept for removals.
        const WORKERS: usize = 2;
        const FILES_MAX: usize = 128;
        let database = Database::builder(path)
            .worker_threads(WORKERS)
            .cache_size(options.cache_bytes)
            .max_cached_files(Some(FILES_MAX))
            .max_journaling_size(128 << 20)
            .open()?;
        let keyspace = |name: &str, memtable_bytes: u64, is_noted: bool| {
            if is_noted && !database.keyspace_exists(name) {
                return Err(fjall::Error::Unrecoverable);
            }
            database.keyspace(name, || KeyspaceCreateOptions::default().max_memtable_size(memtable_bytes).expect_point_read_hits(true))
        };
        let own = keyspace("store", 64 << 10, !is_new)?;
        let noted = match own.get(TABLES_KEY)? {
            Some(row) => own_unseal(TABLES_KEY, &row)
                .and_then(|row| row.try_into().ok())
                .map(u32::from_be_bytes)
                .ok_or(fjall::Error::Unrecoverable)? as usize,
            None if is_new => 0,
            None => TABLES_FIRST,
        };
        let mut tables = Vec::with_capacity(Table::ALL.len());
        for table in Table::ALL {
            let is_large = matches!(table, Table::Registers | Table::Documents);
            let memtable_bytes = if is_large { options.memtable_bytes } else { options.memtable_bytes / 4 };
            tables.push(keyspace(table.name(), memtable_bytes, tables.len() < noted)?);
        }
        let Ok(tables) = tables.try_into() else { unreachable!("one keyspace was pushed for each table") };
        Ok(Open { database, tables, own, number: 0, synced: 0, is_noted: false, is_marked: false, tables_noted: noted >= Table::ALL.len() })
    }

    /// Reads the store's own rows: checks the format, takes over the commit number, gives the quarantine note if there is one.
    fn load(&mut self, path: &Path) -> Result<Option<(PathBuf, String)>, StoreError> {
        let format = self.own_row(path, FORMAT_KEY)?.and_then(|bytes| Some(u32::from_be_bytes(bytes.try_into().ok()?)));
        let Some(format) = format else { return Err(corrupt(path, "its format row is not there".into())) };
        if format > FORMAT_VERSION {
            return Err(StoreError::Version { place: path.display().to_string(), found: format, known: FORMAT_VERSION });
        }
        let commit = guarded(path, || self.own.get(COMMIT_KEY))?.and_then(|row| Commit::decode(&row));
        let Some(commit) = commit else { return Err(corrupt(path, "its commit row is not there or wrong".into())) };
        self.number = commit.number;
        // Opening a database syncs its journal.
        self.synced = commit.number;
        let note = self.own_row(path, NOTE_KEY)?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        self.is_noted = note.is_some();
        Ok(note.map(|note| note.split_once('\n').map_or_else(|| (PathBuf::new(), note.clone()), |(path, why)| (path.into(), why.into()))))
    }

    fn own_row(&self, path: &Path, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(sealed) = guarded(path, || self.own.get(key))? else { return Ok(None) };
        match own_unseal(key, &sealed) {
            Some(value) => Ok(Some(value.to_vec())),
            None => Err(corrupt(path, format!("the checksum of its row `{}` is wrong", String::from_utf8_lossy(key)))),
        }
    }

    fn commit(&self, rows: &[Row], sync: Sync) -> fjall::Result<()> {
        self.wait_for_workers()?;
        let mut batch = self.database.batch().durability(Some(match sync {
            Sync::Buffered => PersistMode::Buffer,
            Sync::Disk => PersistMode::SyncData,
        }));
        for ((table, key), value) in last_rows(rows) {
            match value {
                Some(value) => batch.insert(&self.tables[table as usize], key, seal(table, key, value)),
                None => batch.remove(&self.tables[table as usize], key),
            }
        }
        // A mark says nothing about what the node knows.
        if self.is_noted && !rows.is_empty() {
            batch.remove(&self.own, NOTE_KEY);
        }
        if !self.tables_noted {
            batch.insert(&self.own, TABLES_KEY, tables_row());
        }
        let commit = Commit { number: self.number + 1, synced: self.synced, seqno_before: self.database.seqno() };
        batch.insert(&self.own, COMMIT_KEY, commit.encode());
        batch.commit()
    }

    /// Waits until fjall's workers have caught up so far that the commit itself does not wait for them: it would not notice their death.
    fn wait_for_workers(&self) -> fjall::Result<()> {
        // fjall waits from 4 sealed memtables and 20 level-0 files on, and a commit may add two of each before it looks.
        const SEALED_MAX: usize = 1;
        const LEVEL_0_MAX: usize = 16;
        let is_behind = |table: &Keyspace| table.sealed_memtable_count() > SEALED_MAX || table.l0_table_count() > LEVEL_0_MAX;
        self.wait_while(|| self.tables.iter().chain([&self.own]).any(is_behind))
    }

    fn wait_while(&self, is_busy: impl Fn() -> bool) -> fjall::Result<()> {
        while is_busy() {
            // Does nothing but say whether the database has stopped.
            self.database.persist(PersistMode::Buffer)?;
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

/// What the store takes on the disk, walked only now and then.
struct Usage {
    path: PathBuf,
    known: std::cell::Cell<Option<Known>>,
}

#[derive(Clone, Copy)]
struct Known {
    bytes: u64,
    /// Written since.
    written: u64,
    at: Instant,
}

impl Usage {
    fn new(path: &Path) -> Usage {
        Usage { path: path.to_path_buf(), known: None.into() }
    }

    fn forget(&mut self) {
        self.known.set(None);
    }

    fn wrote(&mut self, bytes: u64) {
        self.known.set(self.known.get().map(|known| Known { written: known.written + bytes, ..known }));
    }

    /// Bytes on the disk: walked if that was long ago or much was written since, else what was found then and what was written since.
    fn bytes(&self) -> Result<u64, StoreError> {
        const AGE_MAX: Duration = Duration::from_secs(5);
        const WRITTEN_MAX: u64 = 4 << 20;
        if let Some(known) = self.known.get()
            && known.written < WRITTEN_MAX
            && known.at.elapsed() < AGE_MAX
        {
            return Ok(known.bytes + known.written);
        }
        let bytes = walk(&self.path).map_err(io_at(&self.path, "adding up its files"))?;
        self.known.set(Some(Known { bytes, written: 0, at: Instant::now() }));
        Ok(bytes)
    }
}

/// Bytes that all files below a directory take, by the blocks they have: journals are longer than what they hold.
fn walk(path: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        // fjall's workers remove files while we look.
        let Ok(meta) = entry.metadata() else { continue };
        bytes += if meta.is_dir() { walk(&entry.path()).unwrap_or(0) } else { meta.blocks() * 512 };
    }
    Ok(bytes)
}

fn own_seal(key: &[u8], value: &[u8]) -> Vec<u8> {
    [&checksum("store", key, value)[..], value].concat()
}

fn own_unseal<'a>(key: &[u8], sealed: &'a [u8]) -> Option<&'a [u8]> {
    let (sum, value) = sealed.split_at_checked(SEAL_BYTES)?;
    (sum == checksum("store", key, value)).then_some(value)
}

fn tables_row() -> Vec<u8> {
    own_seal(TABLES_KEY, &(Table::ALL.len() as u32).to_be_bytes())
}

/// Runs a call into fjall. A panic there is damage: it asserts of its files what a damaged one does not keep.
fn guarded<T>(path: &Path, call: impl FnOnce() -> fjall::Result<T>) -> Result<T, StoreError> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(|error| from_fjall(path, error)),
        Err(panic) => {
            let what = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
            Err(corrupt(path, format!("the database panicked: {}", what.unwrap_or("without a word"))))
        }
    }
}

/// As [`guarded`], for opening: there the database looks for its own files, and one that is missing, or there when it should not be, is damage.
fn guarded_opening<T>(path: &Path, call: impl FnOnce() -> fjall::Result<T>) -> Result<T, StoreError> {
    use io::ErrorKind::{AlreadyExists, InvalidInput, IsADirectory, NotADirectory, NotFound};
    let mut is_damage = false;
    let result = guarded(path, || {
        call().inspect_err(|error| {
            if let fjall::Error::Io(error) | fjall::Error::Storage(fjall::LsmError::Io(error)) = error {
                is_damage = matches!(error.kind(), AlreadyExists | InvalidInput | IsADirectory | NotADirectory | NotFound);
            }
        })
    });
    match result {
        Err(StoreError::Io { what, .. }) if is_damage => Err(corrupt(path, what)),
        result => result,
    }
}

fn from_fjall(path: &Path, error: fjall::Error) -> StoreError {
    match error {
        fjall::Error::Io(error) | fjall::Error::Storage(fjall::LsmError::Io(error)) => match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => corrupt(path, error.to_string()),
            _ => io_error(path, "the database", &error),
        },
        fjall::Error::Locked => StoreError::Locked { place: path.display().to_string(), pid: None },
        fjall::Error::Poisoned | fjall::Error::KeyspaceDeleted => {
            StoreError::Io { place: path.display().to_string(), what: "the database stopped after an earlier error".into() }
        }
        // All else says that bytes are not as they were written.
        error => corrupt(path, error.to_string()),
    }
}

fn corrupt(path: &Path, what: String) -> StoreError {
    StoreError::Corrupt { place: path.display().to_string(), table: None, key: Vec::new(), what, remedy: REMEDY }
}

fn corrupt_row(path: &Path, table: Table, key: &[u8]) -> StoreError {
    let what = format!("the checksum of {} row {} is wrong", table.name(), show_key(key));
    StoreError::Corrupt { place: path.display().to_string(), table: Some(table), key: key.to_vec(), what, remedy: REMEDY }
}

const REMEDY: &str = "and start the node again, which sets the damaged data aside and takes them from its peers";

#[cfg(test)]
mod tests;
