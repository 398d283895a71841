//! The store thread: batches in, "persisted" out, one `fdatasync` for all that waited.
//!
//! ```text
//!   loop:    send(1) send(2)·········send(3) send(4)
//!   thread:    └─commit 1, sync─┘└─commit 2,3…, sync─┘
//!   loop:                      ▲ Persisted{upto 1}   ▲ Persisted{upto 3}
//! ```
//!
//! While one sync runs the next batches gather, and share the next sync: the busier the node the fewer syncs a write costs. The loop sends while
//! [`Writer::can_send`], that is while fewer than two batches are under way, and keeps what is dirty for later: a key written a
//! hundred times meanwhile is one row.
//!
//! # When a batch fails
//!
//! Nothing is dropped. The thread keeps the batch and all since the last sync (a failed sync may have lost those too, whatever the system says later),
//! tells the loop, brings the store back, and tries again with back-off, together with what has come since. So a failure is
//! a delay, during which nothing is acknowledged at a level that the disk does not have; reads and the mesh go on.
//! Damage is another matter: no retry mends it, so the thread says so once and stays down.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use mangrove_crdt::persist::Row;

use super::{Store, StoreError, Sync};

/// Rows to commit together, under a number.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Batch {
    /// Rises by at least 1 from batch to batch.
    pub number: u64,
    /// The rows, whole or not at all.
    pub rows: Vec<Row>,
    /// What "persisted" is to mean for this batch: `Buffered` for durability `memory`, `Disk` for `disk` and `mesh(k)`.
    pub sync: Sync,
}

/// What the store thread tells the loop.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Report {
    /// Every batch up to `upto` is as durable as it asked to be: release what waited for it.
    Persisted {
        /// The greatest such number.
        upto: u64,
        /// Every batch up to this one is on the disk, whatever it asked for: what may be told to peers as durable.
        synced: u64,
    },
    /// A batch could not be committed and is kept: refuse new writes with this error, go on with all else. A later
    /// [`Report::Persisted`] that covers it ends this.
    Failed {
        /// The first batch that waits.
        number: u64,
        /// Why.
        error: StoreError,
        /// When it is tried again; `None` if never: the node must stop or be started again.
        retry_in: Option<Duration>,
    },
}

/// How a [`Writer`] goes about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WriterOptions {
    /// Batches under way until [`Writer::can_send`] says no. Two keep the disk busy; more would only take from conflation.
    pub in_flight_max: usize,
    /// The longest that a buffered batch waits for a sync.
    pub sync_after: Duration,
    /// Bytes of buffered rows after which they are synced at once, since they are kept in memory until then.
    pub unsynced_bytes_max: usize,
    /// The first wait before trying again; it doubles up to `retry_max`.
    pub retry_min: Duration,
    /// The longest wait before trying again.
    pub retry_max: Duration,
    /// With less room than this it is looked for again after every `sync_after`, though nothing is written: who makes room on a disk tells nobody.
    pub room_wanted_bytes: u64,
}

impl Default for WriterOptions {
    fn default() -> Self {
        WriterOptions {
            in_flight_max: 2,
            sync_after: Duration::from_secs(1),
            unsynced_bytes_max: 8 << 20,
            retry_min: Duration::from_millis(100),
            retry_max: Duration::from_secs(5),
            room_wanted_bytes: 16 << 20,
        }
    }
}

/// The loop's handle on the store thread. Dropping it is [`Writer::close`] with the result thrown away.
#[derive(Debug)]
pub struct Writer {
    batches: Option<Sender<Batch>>,
    thread: Option<JoinHandle<Result<(), StoreError>>>,
    shared: Arc<Shared>,
    in_flight_max: usize,
}

/// What both sides see.
#[derive(Debug, Default)]
struct Shared {
    in_flight: AtomicUsize,
    bytes: AtomicU64,
    room: AtomicU64,
    /// Why the store takes nothing at present.
    error: Mutex<Option<StoreError>>,
}

impl Writer {
    /// Starts the thread. `report` is called on it, so it should only hand on (send into a channel, wake a loop).
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub fn start<S: Store + 'static>(store: S, options: WriterOptions, report: impl FnMut(Report) + Send + 'static) -> io::Result<Writer> {
        let (sender, batches) = channel();
        let shared = Arc::new(Shared { bytes: store.bytes().into(), room: store.room().into(), ..Shared::default() });
        let mut work = Work {
            store,
            options,
            report,
            batches,
            shared: shared.clone(),
            pending: VecDeque::new(),
            unsynced: Vec::new(),
            unsynced_bytes: 0,
            unsynced_since: None,
            is_in_doubt: false,
            written: 0,
            synced: 0,
            is_closing: false,
            is_tidy: true,
        };
        let thread = thread::Builder::new().name("mangrove-store".into()).spawn(move || work.run())?;
        Ok(Writer { batches: Some(sender), thread: Some(thread), shared, in_flight_max: options.in_flight_max })
    }

    /// Hands a batch to the thread; never blocks. The order of sending is the order of committing. A batch sent after the thread went down for
    /// good is dropped: [`Writer::error`] has said so.
    pub fn send(&self, batch: Batch) {
        if let Some(batches) = &self.batches {
            self.shared.in_flight.fetch_add(1, Ordering::AcqRel);
            if batches.send(batch).is_err() {
                self.shared.in_flight.fetch_sub(1, Ordering::AcqRel);
            }
        }
    }

    /// True while another batch is welcome.
    pub fn can_send(&self) -> bool {
        self.in_flight() < self.in_flight_max
    }

    /// Batches sent and not yet reported as persisted.
    pub fn in_flight(&self) -> usize {
        self.shared.in_flight.load(Ordering::Acquire)
    }

    /// Bytes the store takes, as of the last commit.
    pub fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::Relaxed)
    }

    /// Bytes the store still takes from batches that only add, as of the last commit: refuse new writes while this is small.
    pub fn room(&self) -> u64 {
        self.shared.room.load(Ordering::Relaxed)
    }

    /// Why the store takes nothing at present, if that is so.
    pub fn error(&self) -> Option<StoreError> {
        self.shared.error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Commits and syncs all that was sent, closes the store, and gives what stood in the way. A failing batch is tried once more and then given
    /// up: a node must be able to stop on a full disk.
    ///
    /// # Errors
    /// What kept the last batches from the disk.
    pub fn close(mut self) -> Result<(), StoreError> {
        self.finish()
    }

    fn finish(&mut self) -> Result<(), StoreError> {
        self.batches = None;
        match self.thread.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(result)) => result,
            // The thread's panic is a bug and goes on in this one.
            Some(Err(panic)) => std::panic::resume_unwind(panic),
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !thread::panicking() {
            let _ = self.finish();
        }
    }
}

/// The thread's side.
struct Work<S, R> {
    store: S,
    options: WriterOptions,
    report: R,
    batches: Receiver<Batch>,
    shared: Arc<Shared>,
    /// Received and not yet committed, oldest first.
    pending: VecDeque<Batch>,
    /// Committed and not yet synced, kept to be committed again should the sync fail.
    unsynced: Vec<Row>,
    unsynced_bytes: usize,
    unsynced_since: Option<Instant>,
    /// An error left the store shut, or what was not synced in doubt.
    is_in_doubt: bool,
    /// The greatest number committed.
    written: u64,
    /// The greatest number synced.
    synced: u64,
    /// The loop has let go.
    is_closing: bool,
    /// Nothing was committed since the store was last tidied.
    is_tidy: bool,
}

impl<S: Store, R: FnMut(Report)> Work<S, R> {
    fn run(&mut self) -> Result<(), StoreError> {
        let mut retry_in = self.options.retry_min;
        loop {
            self.wait();
            self.gather();
            match self.step() {
                Ok(()) => {
                    retry_in = self.options.retry_min;
                    if self.is_closing && self.pending.is_empty() && self.unsynced_since.is_none() {
                        return Ok(());
                    }
                }
                Err(error) if self.is_closing || !error.is_transient() => {
                    self.tell_failed(&error, None);
                    return Err(error);
                }
                Err(error) => {
                    self.tell_failed(&error, Some(retry_in));
                    // What is refused may wait for room that the store can give back, and does not as long as something waits.
                    if matches!(error, StoreError::Full { .. })
                        && let Err(error) = self.store.tidy()
                    {
                        self.is_in_doubt |= !matches!(error, StoreError::Full { .. } | StoreError::Row { .. });
                    }
                    self.wait_to_retry(retry_in);
                    retry_in = (retry_in * 2).min(self.options.retry_max);
                }
            }
        }
    }

    /// Waits until there is something to do: a batch, a sync that is due, or the end.
    fn wait(&mut self) {
        if !self.pending.is_empty() || self.is_closing {
            return;
        }
        let received = match self.unsynced_since {
            Some(since) => self.batches.recv_timeout(self.options.sync_after.saturating_sub(since.elapsed())),
            None if !self.is_tidy || self.is_cramped() => self.batches.recv_timeout(self.options.sync_after),
            None => self.batches.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match received {
            Ok(batch) => self.pending.push_back(batch),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => self.is_closing = true,
        }
    }

    /// Takes what else has come.
    fn gather(&mut self) {
        loop {
            match self.batches.try_recv() {
                Ok(batch) => self.pending.push_back(batch),
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => {
                    self.is_closing = true;
                    return;
                }
            }
        }
    }

    /// Commits what waits, or syncs or tidies if nothing does.
    fn step(&mut self) -> Result<(), StoreError> {
        self.recover()?;
        if self.pending.is_empty() {
            let is_due = self.is_closing || self.unsynced_since.is_some_and(|since| since.elapsed() >= self.options.sync_after);
            if self.unsynced_since.is_some() && is_due {
                self.store.sync()?;
                self.synced();
                self.tell_persisted(0);
            } else if self.unsynced_since.is_none() {
                let was_cramped = self.is_cramped();
                if !std::mem::replace(&mut self.is_tidy, true) {
                    self.store.tidy()?;
                }
                self.look();
                if was_cramped && !self.is_cramped() {
                    self.tell_persisted(0);
                }
            }
            return Ok(());
        }
        self.commit_pending()
    }

    /// Brings the store back if an error shut it, and gives it again what it may have lost.
    fn recover(&mut self) -> Result<(), StoreError> {
        if !self.is_in_doubt {
            return Ok(());
        }
        self.store.recover()?;
        if self.unsynced_since.is_some() {
            self.store.commit(&self.unsynced, Sync::Disk)?;
            self.synced();
        }
        self.is_in_doubt = false;
        self.tell_persisted(0);
        Ok(())
    }

    /// Commits all that waits as one batch: fewer syncs, and a removal that waits behind a batch for which there is no room makes room for both.
    fn commit_pending(&mut self) -> Result<(), StoreError> {
        let number = self.pending.back().map_or(self.written, |batch| batch.number);
        let batches = self.pending.len();
        let sync = self.pending.iter().map(|batch| batch.sync).max().unwrap_or(Sync::Buffered);
        let bytes = self.pending.iter().flat_map(|batch| &batch.rows).map(bytes_of).sum::<usize>();
        let sync = if self.unsynced_bytes + bytes > self.options.unsynced_bytes_max { Sync::Disk } else { sync };

        // Into one batch without copying; back into the queue if it fails.
        let rows = match self.pending.len() {
            1 => std::mem::take(&mut self.pending[0].rows),
            _ => self.pending.iter_mut().flat_map(|batch| std::mem::take(&mut batch.rows)).collect(),
        };
        if let Err(error) = self.store.commit(&rows, sync) {
            // They failed together and will be tried together, whatever comes to them.
            self.pending[0].rows = rows;
            return Err(error);
        }
        self.pending.clear();
        self.written = number;
        self.is_tidy = false;
        match sync {
            Sync::Disk => self.synced(),
            Sync::Buffered => {
                self.unsynced.extend(rows);
                self.unsynced_bytes += bytes;
                self.unsynced_since.get_or_insert_with(Instant::now);
            }
        }
        self.tell_persisted(batches);
        Ok(())
    }

    fn synced(&mut self) {
        self.synced = self.written;
        self.unsynced = Vec::new();
        self.unsynced_bytes = 0;
        self.unsynced_since = None;
    }

    fn tell_persisted(&mut self, batches: usize) {
        self.set_error(None);
        self.look();
        self.shared.in_flight.fetch_sub(batches, Ordering::AcqRel);
        (self.report)(Report::Persisted { upto: self.written, synced: self.synced });
    }

    fn tell_failed(&mut self, error: &StoreError, retry_in: Option<Duration>) {
        // What is full is sound; after anything else the store's view and the disk's may differ.
        self.is_in_doubt |= !matches!(error, StoreError::Full { .. } | StoreError::Row { .. });
        self.set_error(Some(error.clone()));
        self.look();
        let number = self.pending.front().map_or(self.written, |batch| batch.number);
        (self.report)(Report::Failed { number, error: error.clone(), retry_in });
    }

    /// Waits, while what comes in joins what waits.
    fn wait_to_retry(&mut self, wait: Duration) {
        let until = Instant::now() + wait;
        while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            match self.batches.recv_timeout(left) {
                Ok(batch) => self.pending.push_back(batch),
                Err(RecvTimeoutError::Timeout) => return,
                Err(RecvTimeoutError::Disconnected) => {
                    self.is_closing = true;
                    return;
                }
            }
        }
    }

    fn look(&self) {
        self.shared.bytes.store(self.store.bytes(), Ordering::Relaxed);
        self.shared.room.store(self.store.room(), Ordering::Relaxed);
    }

    fn is_cramped(&self) -> bool {
        self.shared.room.load(Ordering::Relaxed) < self.options.room_wanted_bytes
    }

    fn set_error(&self, error: Option<StoreError>) {
        *self.shared.error.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }
}

fn bytes_of(row: &Row) -> usize {
    row.key.len() + row.value.as_ref().map_or(0, Vec::len)
}

#[cfg(test)]
mod tests {
    use mangrove_crdt::persist::Table;

    use super::*;
    use crate::store::{Limit, MemoryStore};

    type Disk = Arc<Mutex<MemoryStore>>;

    fn options() -> WriterOptions {
        WriterOptions { retry_min: Duration::from_millis(5), retry_max: Duration::from_millis(20), ..WriterOptions::default() }
    }

    fn start(disk: &Disk, options: WriterOptions) -> (Writer, Receiver<Report>) {
        let (sender, reports) = channel();
        let writer = Writer::start(disk.clone(), options, move |report| drop(sender.send(report))).unwrap();
        (writer, reports)
    }

    fn next(reports: &Receiver<Report>) -> Report {
        reports.recv_timeout(Duration::from_secs(20)).expect("the store thread reports")
    }

    fn batch(number: u64, sync: Sync) -> Batch {
        let row = |key: &[u8]| Row { table: Table::Registers, key: key.to_vec(), value: Some(number.to_be_bytes().to_vec()) };
        Batch { number, rows: vec![row(&number.to_be_bytes()), row(b"last")], sync }
    }

    fn last(disk: &Disk) -> Option<u64> {
        let bytes = disk.lock().unwrap().get(Table::Registers, b"last").unwrap()?;
        Some(u64::from_be_bytes(bytes.try_into().unwrap()))
    }

    fn io() -> StoreError {
        StoreError::Io { place: "the disk".into(), what: "it failed".into() }
    }

    fn full() -> StoreError {
        StoreError::Full { place: "the disk".into(), what: "it is".into(), remedy: "wait" }
    }

    #[test]
    fn a_disk_batch_is_on_the_disk_when_it_is_reported() {
        let disk = Disk::default();
        let (writer, reports) = start(&disk, options());
        for number in 1..50 {
            writer.send(batch(number, Sync::Disk));
            assert_eq!(next(&reports), Report::Persisted { upto: number, synced: number });
            disk.lock().unwrap().crash();
            assert_eq!(last(&disk), Some(number));
            assert_eq!((writer.in_flight(), writer.can_send()), (0, true));
        }
        assert_eq!(writer.close(), Ok(()));
    }

    #[test]
    fn a_buffered_batch_is_reported_at_once_and_synced_a_little_later() {
        let disk = Disk::default();
        let (writer, reports) = start(&disk, WriterOptions { sync_after: Duration::from_millis(50), ..options() });
        writer.send(batch(1, Sync::Buffered));
        assert_eq!(next(&reports), Report::Persisted { upto: 1, synced: 0 });
        assert_eq!(next(&reports), Report::Persisted { upto: 1, synced: 1 });
        disk.lock().unwrap().crash();
        assert_eq!(last(&disk), Some(1));
        drop(writer);
    }

    #[test]
    fn room_that_others_make_is_reported_though_nothing_is_written() {
        // Made as soon as the lack of it was told, or later.
        for wait in [Duration::ZERO, Duration::from_millis(100)] {
            let disk = Arc::new(Mutex::new(MemoryStore::new(Limit { bytes_max: 1_000, reserve_bytes: 0 })));
            let options = WriterOptions { room_wanted_bytes: 10_000, sync_after: Duration::from_millis(10), ..options() };
            let (sender, reports) = channel();
            let others = disk.clone();
            let make_room = move || others.lock().unwrap().set_limit(Limit::NONE);
            let at_once = wait.is_zero().then(|| make_room.clone());
            let writer = Writer::start(disk.clone(), options, move |report| {
                sender.send(report).unwrap();
                at_once.iter().for_each(|make_room| make_room());
            })
            .unwrap();
            writer.send(batch(1, Sync::Disk));
            assert_eq!(next(&reports), Report::Persisted { upto: 1, synced: 1 });
            if !wait.is_zero() {
                thread::sleep(wait);
                assert_eq!((writer.room() < 1_000, reports.try_recv().is_err()), (true, true), "nothing has changed yet");
                make_room();
            }
            assert_eq!(next(&reports), Report::Persisted { upto: 1, synced: 1 });
            assert_eq!(writer.room(), u64::MAX);
            assert_eq!(writer.close(), Ok(()));
        }
    }

    #[test]
    fn many_buffered_bytes_are_synced_at_once() {
        let disk = Disk::default();
        let (writer, reports) =
            start(&disk, WriterOptions { unsynced_bytes_max: 100, sync_after: Duration::from_secs(3_600), ..options() });
        let mut number = 0;
        // A batch has 8 + 8 and 4 + 8 bytes: the fourth is over.
        for synced in [0, 0, 0, 4, 4] {
            number += 1;
            writer.send(batch(number, Sync::Buffered));
            assert_eq!(next(&reports), Report::Persisted { upto: number, synced });
        }
        drop(writer);
    }

    #[test]
    fn what_waits_is_committed_together() {
        let disk = Disk::default();
        let held = disk.lock().unwrap();
        let (sender, reports) = channel();
        // Started by hand: asking the store for its size must not wait for the lock.
        let disk_too = disk.clone();
        let starting = thread::spawn(move || Writer::start(disk_too, options(), move |report| drop(sender.send(report))).unwrap());
        drop(held);
        let writer = starting.join().unwrap();
        let held = disk.lock().unwrap();
        for number in 1..=20 {
            writer.send(batch(number, if number == 7 { Sync::Disk } else { Sync::Buffered }));
        }
        assert_eq!((writer.in_flight(), writer.can_send()), (20, false));
        drop(held);
        // The thread may have begun with the first few; the rest is one.
        let mut seen = Vec::new();
        while seen.last().is_none_or(|report| !matches!(report, Report::Persisted { upto: 20, .. })) {
            seen.push(next(&reports));
        }
        assert!(seen.len() <= 3, "{seen:?}");
        assert_eq!(writer.in_flight(), 0);
        assert_eq!(writer.close(), Ok(()));
        assert_eq!(last(&disk), Some(20));
    }

    #[test]
    fn a_full_disk_keeps_the_batch_and_says_so_until_there_is_room() {
        let disk: Disk = Arc::new(Mutex::new(MemoryStore::new(Limit { bytes_max: 100, reserve_bytes: 50 })));
        let (writer, reports) = start(&disk, options());
        writer.send(batch(1, Sync::Disk));
        assert_eq!(next(&reports), Report::Persisted { upto: 1, synced: 1 });
        writer.send(batch(2, Sync::Disk));
        let Report::Failed { number: 2, error: error @ StoreError::Full { .. }, retry_in: Some(_) } = next(&reports) else { panic!() };
        assert_eq!((writer.in_flight(), writer.error()), (1, Some(error)));
        assert_eq!(writer.room(), 6);
        disk.lock().unwrap().set_limit(Limit::NONE);
        while !matches!(next(&reports), Report::Persisted { upto: 2, synced: 2 }) {}
        assert_eq!((writer.in_flight(), writer.error()), (0, None));
        assert_eq!(writer.close(), Ok(()));
    }

    #[test]
    fn what_can_be_given_back_is_while_a_batch_waits_for_room() {
        let disk: Disk = Arc::new(Mutex::new(MemoryStore::new(Limit { bytes_max: 10, reserve_bytes: 0 })));
        let (writer, reports) = start(&disk, options());
        writer.send(batch(1, Sync::Disk));
        for _ in 0..3 {
            assert!(matches!(next(&reports), Report::Failed { number: 1, error: StoreError::Full { .. }, .. }));
        }
        assert!(disk.lock().unwrap().tidied() >= 2);
        disk.lock().unwrap().set_limit(Limit::NONE);
        while !matches!(next(&reports), Report::Persisted { upto: 1, synced: 1 }) {}
        drop(writer);
    }

    #[test]
    fn a_removal_behind_a_batch_without_room_makes_room_for_both() {
        let disk: Disk = Arc::new(Mutex::new(MemoryStore::new(Limit { bytes_max: 8_000, reserve_bytes: 4_000 })));
        let (writer, reports) = start(&disk, options());
        let big = |number, key: &[u8], value: Option<Vec<u8>>| Batch {
            number,
            rows: vec![Row { table: Table::Registers, key: key.to_vec(), value }],
            sync: Sync::Disk,
        };
        writer.send(big(1, b"a", Some(vec![1; 3_000])));
        assert_eq!(next(&reports), Report::Persisted { upto: 1, synced: 1 });
        writer.send(big(2, b"b", Some(vec![1; 3_000])));
        assert!(matches!(next(&reports), Report::Failed { number: 2, error: StoreError::Full { .. }, .. }));
        writer.send(big(3, b"a", None));
        while !matches!(next(&reports), Report::Persisted { upto: 3, synced: 3 }) {}
        assert_eq!(disk.lock().unwrap().rows(), 1);
        drop(writer);
    }

    #[test]
    fn after_a_failed_sync_what_it_may_have_lost_is_written_again() {
        let disk = Disk::default();
        let (writer, reports) = start(&disk, WriterOptions { sync_after: Duration::from_secs(3_600), ..options() });
        for number in 1..=3 {
            writer.send(batch(number, Sync::Buffered));
            assert_eq!(next(&reports), Report::Persisted { upto: number, synced: 0 });
        }
        {
            let mut disk = disk.lock().unwrap();
            disk.fail_next(io());
            // The system forgets what it could not write, and will say at the next sync that all is well.
            let failing = disk.unsynced();
            assert_eq!(failing, 3);
        }
        writer.send(batch(4, Sync::Disk));
        assert!(matches!(next(&reports), Report::Failed { number: 4, error: StoreError::Io { .. }, retry_in: Some(_) }));
        disk.lock().unwrap().crash();
        while !matches!(next(&reports), Report::Persisted { upto: 4, synced: 4 }) {}
        disk.lock().unwrap().crash();
        for number in 1..=4u64 {
            assert!(disk.lock().unwrap().get(Table::Registers, &number.to_be_bytes()).unwrap().is_some(), "{number}");
        }
        assert_eq!(writer.error(), None);
        drop(writer);
    }

    #[test]
    fn damage_is_said_once_and_for_good() {
        let disk = Disk::default();
        let (writer, reports) = start(&disk, options());
        let error =
            StoreError::Corrupt { place: "the disk".into(), table: None, key: Vec::new(), what: "a hole".into(), remedy: "start again" };
        disk.lock().unwrap().fail_next(error.clone());
        writer.send(batch(1, Sync::Disk));
        assert_eq!(next(&reports), Report::Failed { number: 1, error: error.clone(), retry_in: None });
        assert_eq!(writer.error(), Some(error.clone()));
        writer.send(batch(2, Sync::Disk));
        assert_eq!(writer.close(), Err(error));
        assert_eq!(last(&disk), None);
    }

    #[test]
    fn closing_commits_and_syncs_what_was_sent() {
        let disk = Disk::default();
        let (writer, _reports) = start(&disk, WriterOptions { sync_after: Duration::from_secs(3_600), ..options() });
        for number in 1..=100 {
            writer.send(batch(number, Sync::Buffered));
        }
        assert_eq!(writer.close(), Ok(()));
        disk.lock().unwrap().crash();
        assert_eq!(last(&disk), Some(100));
    }

    #[test]
    fn a_node_can_stop_on_a_full_disk_and_is_told() {
        let disk = Disk::default();
        let (writer, reports) = start(&disk, WriterOptions { retry_min: Duration::from_secs(3_600), ..options() });
        disk.lock().unwrap().fail_next(full());
        disk.lock().unwrap().fail_next(full());
        writer.send(batch(1, Sync::Disk));
        assert!(matches!(next(&reports), Report::Failed { number: 1, .. }));
        assert_eq!(writer.close(), Err(full()));
    }

    #[test]
    fn it_waits_longer_each_time_but_not_for_ever() {
        let disk = Disk::default();
        let (writer, reports) = start(&disk, options());
        for _ in 0..5 {
            disk.lock().unwrap().fail_next(full());
        }
        writer.send(batch(1, Sync::Disk));
        let waits: Vec<u128> = (0..5)
            .map(|_| match next(&reports) {
                Report::Failed { retry_in: Some(wait), .. } => wait.as_millis(),
                report => panic!("{report:?}"),
            })
            .collect();
        assert_eq!(waits, [5, 10, 20, 20, 20]);
        assert_eq!(next(&reports), Report::Persisted { upto: 1, synced: 1 });
        drop(writer);
    }
}
