//! A host's disk, and the writer in front of it.
//!
//! The rows lie in the [`MemoryStore`] of the root package, which keeps a store's contract and can be crashed, filled and damaged. The writer
//! does in virtual time what the store thread does in production: while one sync runs the next batches gather and share the next one;
//! buffered batches are synced after a second; a failure keeps the batch and tries again.

use std::collections::VecDeque;

use mangrove::store::{Limit, MemoryStore, Store, StoreError, Sync, TAIL_BATCHES_MAX};
use mangrove_crdt::persist::{Row, Table};

use crate::{
    dice::{Amount, Dice},
    scenario::{SECOND, Time},
    tamper::{Tamper, is},
};

/// Handing rows to the system takes so long.
const BUFFER_TIME: Time = 30;
/// The longest that a buffered batch waits for a sync.
const SYNC_AFTER: Time = SECOND;
const RETRY_MIN: Time = 100_000;
const RETRY_MAX: Time = 5 * SECOND;
/// What a disk that is being filled still takes, above the reserve for removals.
const ROOM_BYTES: u64 = 16 << 10;
const RESERVE_BYTES: u64 = 64 << 10;
/// Writes are refused when the disk takes less than this.
pub const ROOM_MIN_BYTES: u64 = 4 << 10;

/// How a disk takes writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Health {
    /// It does.
    Sound,
    /// Every write fails.
    Failing,
    /// It is read only.
    ReadOnly,
}

/// See the module.
#[derive(Debug)]
pub struct Disk {
    /// What is on it.
    pub store: MemoryStore,
    /// How it takes writes.
    pub health: Health,
    /// How many times as long everything takes.
    pub slow: f64,
    /// Whether it says that it has synced when it has not.
    pub lying: bool,
    fsync: Amount,
}

impl Disk {
    /// An empty disk.
    pub fn new(fsync: Amount) -> Self {
        Disk { store: MemoryStore::new(Limit::NONE), health: Health::Sound, slow: 1.0, lying: false, fsync }
    }

    /// Everything that is on it, as a backup keeps it.
    ///
    /// # Errors
    /// Where a row is damaged.
    pub fn rows(&self) -> Result<Vec<Row>, StoreError> {
        let mut rows = Vec::new();
        for table in Table::ALL {
            self.store.scan(table, &[], &mut |key, value| rows.push(Row { table, key: key.to_vec(), value: Some(value.to_vec()) }))?;
        }
        Ok(rows)
    }

    /// All that is on it is replaced.
    pub fn replace(&mut self, rows: &[Row]) {
        self.store = MemoryStore::new(Limit::NONE);
        self.store.commit(rows, Sync::Disk).expect("a sound store without a limit takes what was in one");
    }

    /// Fills it, but for a little.
    pub fn fill(&mut self) {
        let bytes_max = self.store.bytes() + ROOM_BYTES + RESERVE_BYTES;
        self.store.set_limit(Limit { bytes_max, reserve_bytes: RESERVE_BYTES });
    }

    /// Makes room again.
    pub fn widen(&mut self) {
        self.store.set_limit(Limit::NONE);
    }

    /// The power goes. Of what was not synced, the disk may have written a part already.
    pub fn power_loss(&mut self, dice: &mut Dice) {
        let kept = dice.below(self.store.unsynced() + 1);
        self.store.crash_keeping(kept);
    }

    /// The power goes in the middle of a write: of the batch that was being written a part is there, and recovery drops it, since a batch is written
    /// with a check over all of it. Says whether a batch was torn.
    pub fn torn_write(&mut self, dice: &mut Dice) -> bool {
        let (kept, rows) = (dice.below(self.store.unsynced().max(1)), dice.below(12));
        let torn = self.store.crash_tearing(kept, rows);
        if is(Tamper::TornBatch) {
            self.store.keep_torn();
        }
        self.store.reopen();
        torn
    }

    /// The journal has lost its tail.
    pub fn truncate(&mut self, dice: &mut Dice) {
        let batches = 1 + dice.below(self.store.unsynced() + TAIL_BATCHES_MAX);
        self.store.truncate(batches);
    }

    /// Flips a bit of a stored row; says whether there was one.
    pub fn flip_bit(&mut self, dice: &mut Dice) -> bool {
        let mut keys = Vec::new();
        for table in Table::ALL {
            // A damaged row ends the scan: then there is damage already.
            let _ = self.store.scan(table, &[], &mut |key, _| keys.push((table, key.to_vec())));
        }
        let bit = dice.below(1 << 16);
        dice.pick(&keys).is_some_and(|(table, key)| self.store.flip_bit(table, &key, bit))
    }

    fn refuse_if_unsound(&mut self) {
        let place = "the simulated disk".to_owned();
        match self.health {
            Health::Sound => {}
            Health::Failing => self.store.fail_next(StoreError::Io { place, what: "it fails".into() }),
            Health::ReadOnly => self.store.fail_next(StoreError::ReadOnly { place, what: "it is read only".into() }),
        }
    }

    fn sync_time(&self, dice: &mut Dice) -> Time {
        (self.fsync.draw(dice) * self.slow).max(1.0) as Time
    }
}

/// What the writer tells its process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Report {
    /// Everything up to the first mark is as durable as it asked to be, everything up to the second is on the disk.
    Persisted(u64, u64),
    /// The disk takes nothing at present.
    Failed(StoreError),
}

#[derive(Debug)]
struct Batch {
    mark: u64,
    rows: Vec<Row>,
    sync: bool,
}

/// What the writer is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Doing {
    /// It waits for a batch.
    Nothing,
    /// It has handed batches to the system, and waits for the sync, if there is to be one.
    Writing { upto: u64, sync: bool },
    /// It waits to sync what was buffered.
    Waiting,
    /// It waits to try again.
    Retrying,
}

/// The writer of one process.
#[derive(Debug)]
pub struct Writer {
    pending: VecDeque<Batch>,
    /// Rows handed to the system and not synced, to be written again should the sync fail.
    unsynced: Vec<Row>,
    unsynced_since: Option<Time>,
    doing: Doing,
    in_doubt: bool,
    written: u64,
    synced: u64,
    retry: Time,
    /// Names the step that is waited for: earlier ones do not count.
    pub step: u32,
}

impl Default for Writer {
    fn default() -> Self {
        Writer {
            pending: VecDeque::new(),
            unsynced: Vec::new(),
            unsynced_since: None,
            doing: Doing::Nothing,
            in_doubt: false,
            written: 0,
            synced: 0,
            retry: RETRY_MIN,
            step: 0,
        }
    }
}

impl Writer {
    /// A batch to be written. Returns when to call [`Writer::step`].
    pub fn push(
        &mut self,
        now: Time,
        disk: &mut Disk,
        dice: &mut Dice,
        mark: u64,
        rows: Vec<Row>,
        sync: bool,
    ) -> (Option<Report>, Option<Time>) {
        self.pending.push_back(Batch { mark, rows, sync });
        match self.doing {
            Doing::Nothing | Doing::Waiting => self.begin(now, disk, dice),
            Doing::Writing { .. } | Doing::Retrying => (None, None),
        }
    }

    /// The process ends in order: all that was sent, and what is left, is committed and synced, or given up if the disk takes nothing.
    ///
    /// # Errors
    /// What kept it from the disk.
    pub fn close(&mut self, disk: &mut Disk, rest: Vec<Row>) -> Result<(), StoreError> {
        if self.in_doubt {
            disk.store.recover()?;
        }
        let pending = self.pending.drain(..).flat_map(|batch| batch.rows);
        let rows: Vec<Row> = std::mem::take(&mut self.unsynced).into_iter().chain(pending).chain(rest).collect();
        disk.refuse_if_unsound();
        disk.store.set_lying(disk.lying);
        disk.store.commit(&rows, Sync::Disk)
    }

    /// How many batches are on their way. A sync of what was reported as buffered is none.
    pub fn batches(&self) -> u64 {
        self.pending.len() as u64 + u64::from(matches!(self.doing, Doing::Writing { upto, .. } if upto > self.written))
    }

    /// What was waited for has come. Returns what to tell, and when to call again.
    pub fn step(&mut self, now: Time, disk: &mut Disk, dice: &mut Dice) -> (Option<Report>, Option<Time>) {
        match self.doing {
            Doing::Nothing => (None, None),
            Doing::Writing { upto, sync } => {
                if sync && let Err(error) = self.sync(disk) {
                    return self.failed(now, error);
                }
                self.written = upto;
                if sync {
                    self.all_synced();
                }
                self.retry = RETRY_MIN;
                let report = Report::Persisted(self.written, self.synced);
                let next = self.next(now, disk, dice);
                (Some(next.0.unwrap_or(report)), next.1)
            }
            Doing::Waiting => {
                self.doing = Doing::Writing { upto: self.written, sync: true };
                (None, Some(now + disk.sync_time(dice)))
            }
            Doing::Retrying => {
                if self.in_doubt {
                    let recovered = disk.store.recover().and_then(|()| {
                        disk.refuse_if_unsound();
                        disk.store.commit(&self.unsynced, Sync::Disk)
                    });
                    if let Err(error) = recovered {
                        return self.failed(now, error);
                    }
                    self.in_doubt = false;
                    if self.unsynced_since.is_some() {
                        self.all_synced();
                    }
                }
                let report = Report::Persisted(self.written, self.synced);
                let next = self.next(now, disk, dice);
                (Some(next.0.unwrap_or(report)), next.1)
            }
        }
    }

    fn next(&mut self, now: Time, disk: &mut Disk, dice: &mut Dice) -> (Option<Report>, Option<Time>) {
        if !self.pending.is_empty() {
            return self.begin(now, disk, dice);
        }
        match self.unsynced_since {
            Some(since) => {
                self.doing = Doing::Waiting;
                (None, Some((since + SYNC_AFTER).max(now + 1)))
            }
            None => {
                self.doing = Doing::Nothing;
                (None, None)
            }
        }
    }

    /// Hands all that waits to the system as one batch.
    fn begin(&mut self, now: Time, disk: &mut Disk, dice: &mut Dice) -> (Option<Report>, Option<Time>) {
        let upto = self.pending.back().map_or(self.written, |batch| batch.mark);
        let sync = self.pending.iter().any(|batch| batch.sync);
        let rows: Vec<Row> = self.pending.iter_mut().flat_map(|batch| std::mem::take(&mut batch.rows)).collect();
        disk.refuse_if_unsound();
        if let Err(error) = disk.store.commit(&rows, Sync::Buffered) {
            self.pending[0].rows = rows;
            return self.failed(now, error);
        }
        self.pending.clear();
        self.unsynced.extend(rows);
        self.unsynced_since.get_or_insert(now);
        self.doing = Doing::Writing { upto, sync };
        (None, Some(now + if sync { disk.sync_time(dice) } else { BUFFER_TIME }))
    }

    fn sync(&mut self, disk: &mut Disk) -> Result<(), StoreError> {
        if is(Tamper::EarlyAck) {
            return Ok(());
        }
        disk.refuse_if_unsound();
        disk.store.set_lying(disk.lying);
        disk.store.sync()
    }

    fn all_synced(&mut self) {
        self.synced = self.written;
        self.unsynced.clear();
        self.unsynced_since = None;
    }

    fn failed(&mut self, now: Time, error: StoreError) -> (Option<Report>, Option<Time>) {
        if let Doing::Writing { upto, .. } = self.doing {
            // What was handed over counts as written once it is written again with the rest.
            self.written = upto;
        }
        self.in_doubt |= !matches!(error, StoreError::Full { .. } | StoreError::Row { .. });
        self.doing = Doing::Retrying;
        let at = now + self.retry;
        self.retry = (self.retry * 2).min(RETRY_MAX);
        (Some(Report::Failed(error)), Some(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(number: u64) -> Row {
        Row { table: Table::Registers, key: number.to_be_bytes().to_vec(), value: Some(vec![1]) }
    }

    #[test]
    fn batches_share_a_sync_and_nothing_is_reported_before_it() {
        let (mut disk, mut dice) = (Disk::new(Amount::Constant(1_000.0)), Dice::new(1, "disk"));
        let mut writer = Writer::default();
        assert_eq!(writer.push(0, &mut disk, &mut dice, 1, vec![row(1)], true), (None, Some(1_000)));
        assert_eq!(writer.push(10, &mut disk, &mut dice, 2, vec![row(2)], true), (None, None));
        assert_eq!(writer.push(20, &mut disk, &mut dice, 3, vec![row(3)], false), (None, None));
        assert_eq!(writer.step(1_000, &mut disk, &mut dice), (Some(Report::Persisted(1, 1)), Some(2_000)));
        assert_eq!(writer.step(2_000, &mut disk, &mut dice), (Some(Report::Persisted(3, 3)), None));
        assert_eq!((disk.store.unsynced(), disk.store.rows()), (0, 3));
    }

    #[test]
    fn a_sync_of_what_was_reported_is_no_batch_on_its_way() {
        let (mut disk, mut dice) = (Disk::new(Amount::Constant(1_000.0)), Dice::new(1, "disk"));
        let mut writer = Writer::default();
        let (_, written) = writer.push(0, &mut disk, &mut dice, 1, vec![row(1)], false);
        assert_eq!(writer.batches(), 1);
        let (report, waited) = writer.step(written.unwrap_or_default(), &mut disk, &mut dice);
        assert_eq!((report, writer.batches()), (Some(Report::Persisted(1, 0)), 0));
        let (_, synced) = writer.step(waited.unwrap_or_default(), &mut disk, &mut dice);
        assert!(synced.is_some(), "it syncs");
        writer.push(waited.unwrap_or_default() + 1, &mut disk, &mut dice, 2, vec![row(2)], false);
        assert_eq!(writer.batches(), 1);
    }

    #[test]
    fn a_buffered_batch_is_synced_a_second_later() {
        let (mut disk, mut dice) = (Disk::new(Amount::Constant(1_000.0)), Dice::new(1, "disk"));
        let mut writer = Writer::default();
        assert_eq!(writer.push(0, &mut disk, &mut dice, 1, vec![row(1)], false), (None, Some(BUFFER_TIME)));
        assert_eq!(writer.step(30, &mut disk, &mut dice), (Some(Report::Persisted(1, 0)), Some(SECOND)));
        assert_eq!(writer.step(SECOND, &mut disk, &mut dice), (None, Some(SECOND + 1_000)));
        assert_eq!(writer.step(SECOND + 1_000, &mut disk, &mut dice), (Some(Report::Persisted(1, 1)), None));
    }

    #[test]
    fn a_failing_disk_delays_and_loses_nothing() {
        let (mut disk, mut dice) = (Disk::new(Amount::Constant(1_000.0)), Dice::new(1, "disk"));
        let mut writer = Writer::default();
        writer.push(0, &mut disk, &mut dice, 1, vec![row(1)], true);
        disk.health = Health::Failing;
        let (report, at) = writer.step(1_000, &mut disk, &mut dice);
        assert!(matches!(report, Some(Report::Failed(_))));
        assert_eq!(at, Some(1_000 + RETRY_MIN));
        disk.health = Health::Sound;
        assert_eq!(writer.step(101_000, &mut disk, &mut dice), (Some(Report::Persisted(1, 1)), None));
        assert_eq!((disk.store.unsynced(), disk.store.rows()), (0, 1));
    }
}
