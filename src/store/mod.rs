//! Where a node keeps its rows between two lives.
//!
//! The replica hands out *rows* (each key's newest state, never a log of operations), the loop groups them into batches,
//! and a store commits a batch whole or not at all:
//!
//! ```text
//!   Replica ──rows──▶ loop ──batch n──▶ Writer (thread) ──▶ dyn Store ──▶ DIR/data
//!      ▲                ◀──Persisted{upto n, synced}──┘         │
//!      └──────────────── scan at start, in key order ◀──────────┘
//! ```
//!
//! # What a store promises
//!
//! - **Atomic**: after a crash a batch is there whole or not at all, and if it is there so is every batch before it.
//! - **Durable where asked**: a batch committed with [`Sync::Disk`], and all before it, survive the loss of power. One committed
//!   with [`Sync::Buffered`] survives the death of the process, and the loss of power once a later [`Store::sync`] returned.
//! - **Never wrong in silence**: each value carries a checksum over its table, its key and itself ([`seal`]), so a flipped bit or a
//!   value under another's key is an error and never a value.
//! - **Refused before full**: a batch that would go over the limit is refused while there is still room to remove things
//!   ([`Limit`]).
//! - **Repeatable**: rows are absolute. Committing a batch again, after an error that left its fate unknown, is always right.
//!
//! These are a suite that every implementation runs: [`conformance`]. [`MemoryStore`] keeps them for tests and the simulator, and
//! can be crashed, filled and damaged; `DiskStore` keeps them on a disk.
//!
//! # Two places, because they fail differently
//!
//! What can be had again from the peers is in `DIR/data`, an LSM that is set aside when it is damaged. What nobody else knows is in
//! `DIR/vault`: the node's key, its boot counter, its promises. The vault is never set aside in silence.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use mangrove_crdt::persist::{Row, Table};

pub mod conformance;
mod limit;
mod memory;

#[cfg(feature = "runtime")]
#[allow(clippy::disallowed_methods, reason = "the half that does I/O")]
mod directory;
#[cfg(feature = "runtime")]
#[allow(clippy::disallowed_methods, reason = "the half that does I/O")]
mod disk;
#[cfg(feature = "runtime")]
#[allow(clippy::disallowed_methods, reason = "the half that does I/O")]
mod journal;
#[cfg(feature = "runtime")]
#[allow(clippy::disallowed_methods, reason = "the half that does I/O")]
mod vault;
#[cfg(feature = "runtime")]
#[allow(clippy::disallowed_methods, reason = "the half that does I/O")]
mod writer;

pub use limit::{Effect, Limit};
pub use memory::{MemoryStore, TAIL_BATCHES_MAX};

#[cfg(feature = "runtime")]
pub use directory::DataDir;
#[cfg(feature = "runtime")]
pub use disk::{DiskOptions, DiskStore, Opened};
#[cfg(feature = "runtime")]
pub use vault::{Vault, VaultState};
#[cfg(feature = "runtime")]
pub use writer::{Batch, Report, Writer, WriterOptions};

/// The version of everything below the data directory: the tables' numbers, the keys and values in them, the vault's file. A node
/// opens what is at most this, and refuses what is newer.
pub const FORMAT_VERSION: u32 = 1;

/// The longest key a store takes, in bytes. Paths are at most 1,024 bytes; a key adds identities to one.
pub const KEY_BYTES_MAX: usize = 4_096;

/// The longest value a store takes, in bytes. The largest are saved bucket documents.
pub const VALUE_BYTES_MAX: usize = 256 << 20;

/// How much a commit waits for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Sync {
    /// Handed to the operating system: survives the death of the process, not the loss of power.
    Buffered,
    /// On the disk, by `fdatasync`, together with everything committed before.
    Disk,
}

/// A place that keeps rows. The module's essay says what it promises.
pub trait Store: Send {
    /// Calls `each` with key and value of every row of `table` whose key starts with `prefix`, in the order of the keys' bytes.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] at the first row that fails its checksum (`each` has seen the rows before it, and should be forgotten);
    /// [`StoreError::Io`].
    fn scan(&self, table: Table, prefix: &[u8], each: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), StoreError>;

    /// One row's value, or `None` where there is none.
    ///
    /// # Errors
    /// As [`Store::scan`].
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Commits all rows or none, as durable as `sync` says. Where a key stands in several rows, the last one counts. An empty batch with
    /// [`Sync::Disk`] is a [`Store::sync`].
    ///
    /// # Errors
    /// [`StoreError::Full`] refused it: nothing was written, reads go on, and so do batches that remove. [`StoreError::Row`]: a row
    /// that no store takes; nothing was written. After any other error the batch's fate is unknown, earlier buffered batches may
    /// be lost from the disk's view, and the store refuses every commit until [`Store::recover`] succeeded; then commit again
    /// everything since the last successful sync.
    fn commit(&mut self, rows: &[Row], sync: Sync) -> Result<(), StoreError>;

    /// Makes everything committed so far durable.
    ///
    /// # Errors
    /// As [`Store::commit`].
    fn sync(&mut self) -> Result<(), StoreError>;

    /// Brings a store back that refused to go on after an error. Does nothing to a sound one.
    ///
    /// # Errors
    /// Whatever still stands in the way; trying again later is always allowed.
    fn recover(&mut self) -> Result<(), StoreError>;

    /// Work for idle times, to be called when no batch waits: whatever a store does to find damage better or to give room back. May take
    /// seconds.
    ///
    /// # Errors
    /// As [`Store::commit`].
    fn tidy(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Bytes that the store takes where it lives, as nearly as is cheap to know.
    fn bytes(&self) -> u64;

    /// Bytes that batches which only add may still take before they are refused; `u64::MAX` without a limit. Whoever takes in writes
    /// should stop well before this is 0, since what it took in must still be written.
    fn room(&self) -> u64;
}

impl<S: Store + ?Sized> Store for Box<S> {
    fn scan(&self, table: Table, prefix: &[u8], each: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), StoreError> {
        (**self).scan(table, prefix, each)
    }
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        (**self).get(table, key)
    }
    fn commit(&mut self, rows: &[Row], sync: Sync) -> Result<(), StoreError> {
        (**self).commit(rows, sync)
    }
    fn sync(&mut self) -> Result<(), StoreError> {
        (**self).sync()
    }
    fn recover(&mut self) -> Result<(), StoreError> {
        (**self).recover()
    }
    fn tidy(&mut self) -> Result<(), StoreError> {
        (**self).tidy()
    }
    fn bytes(&self) -> u64 {
        (**self).bytes()
    }
    fn room(&self) -> u64 {
        (**self).room()
    }
}

/// A store that several hold, such as a simulated disk and the node that runs on it.
impl<S: Store> Store for Arc<Mutex<S>> {
    fn scan(&self, table: Table, prefix: &[u8], each: &mut dyn FnMut(&[u8], &[u8])) -> Result<(), StoreError> {
        hold(self).scan(table, prefix, each)
    }
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        hold(self).get(table, key)
    }
    fn commit(&mut self, rows: &[Row], sync: Sync) -> Result<(), StoreError> {
        hold(self).commit(rows, sync)
    }
    fn sync(&mut self) -> Result<(), StoreError> {
        hold(self).sync()
    }
    fn recover(&mut self) -> Result<(), StoreError> {
        hold(self).recover()
    }
    fn tidy(&mut self) -> Result<(), StoreError> {
        hold(self).tidy()
    }
    fn bytes(&self) -> u64 {
        hold(self).bytes()
    }
    fn room(&self) -> u64 {
        hold(self).room()
    }
}

/// Locks; a holder that panicked has left the store as sound as a crash would.
fn hold<S>(store: &Mutex<S>) -> MutexGuard<'_, S> {
    store.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why a store could not do what was asked: what happened, where, and what to do about it.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no room for a batch that adds. Reads and removals go on; retry once something was removed.
    #[error("{place} is full: {what}; {}", room_by(remedy))]
    Full {
        /// The directory, or a name for a store without one.
        place: String,
        /// Which limit, with its numbers.
        what: String,
        /// What else would help: a larger limit, or a larger disk.
        remedy: &'static str,
    },
    /// Nothing can be written where the data live.
    #[error(
        "{place} cannot be written: {what}; make it writable for this user, or name another directory with --data; if the system made it \
         read-only after an error, check the disk, mount it anew and start the node again"
    )]
    ReadOnly {
        /// The file or directory.
        place: String,
        /// What the operating system said.
        what: String,
    },
    /// What was read is not what was written.
    #[error("{place} is damaged: {what}; check the disk, {remedy}")]
    Corrupt {
        /// The directory or file.
        place: String,
        /// Which table, where that is known.
        table: Option<Table>,
        /// Which key, where that is known.
        key: Vec<u8>,
        /// What was found.
        what: String,
        /// What brings the node back.
        remedy: &'static str,
    },
    /// Another process has the directory.
    #[error("{place} is in use by {}; stop that node, or name another directory with --data", Holder(*pid))]
    Locked {
        /// The directory.
        place: String,
        /// The process that holds it, where it said so.
        pid: Option<u32>,
    },
    /// A newer Mangrove wrote this.
    #[error("{place} was written in format {found} by a newer mangrove, this one knows up to {known}; run the newer one")]
    Version {
        /// The directory or file.
        place: String,
        /// The format that was found.
        found: u32,
        /// The newest format this program knows.
        known: u32,
    },
    /// A vault is wanted where there is none.
    #[error("{place} does not exist; `mangrove init` or `mangrove join` makes one, or put it back from a backup")]
    Missing {
        /// The vault's directory.
        place: String,
    },
    /// A vault is to be made where there is one already.
    #[error("{place} exists already and is not overwritten; name another directory with --data, or move it away")]
    Exists {
        /// The vault's directory.
        place: String,
    },
    /// A row that no store takes: its key is empty or longer than [`KEY_BYTES_MAX`], or its value is longer than [`VALUE_BYTES_MAX`].
    #[error("a row of table {} has a key of {key_bytes} bytes and a value of {value_bytes} bytes; keys have 1 to {KEY_BYTES_MAX}, values at most {VALUE_BYTES_MAX}", .table.name())]
    Row {
        /// The row's table.
        table: Table,
        /// Its key's length.
        key_bytes: usize,
        /// Its value's length.
        value_bytes: usize,
    },
    /// The operating system failed at something else.
    #[error("{place}: {what}; free memory, files or the device, then restart the node")]
    Io {
        /// The file or directory.
        place: String,
        /// What was tried, and what the operating system said.
        what: String,
    },
}

impl StoreError {
    /// True where waiting may help, so that a writer keeps its batch and tries again.
    pub fn is_transient(&self) -> bool {
        matches!(self, StoreError::Full { .. } | StoreError::Io { .. } | StoreError::ReadOnly { .. })
    }
}

/// Names the holder of a lock.
struct Holder(Option<u32>);

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(pid) => write!(f, "process {pid}"),
            None => write!(f, "another process"),
        }
    }
}

/// Bytes of checksum before each stored value.
pub const SEAL_BYTES: usize = 8;

/// The value as stored: 8 bytes of BLAKE3 over table, key and value, then the value. The key is in it, so that a value under
/// another's key fails too.
pub fn seal(table: Table, key: &[u8], value: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(SEAL_BYTES + value.len());
    sealed.extend_from_slice(&checksum(table.name(), key, value));
    sealed.extend_from_slice(value);
    sealed
}

/// The value within a stored one, or `None` if the checksum is not that of this table, key and value.
pub fn unseal<'a>(table: Table, key: &[u8], sealed: &'a [u8]) -> Option<&'a [u8]> {
    let (sum, value) = sealed.split_at_checked(SEAL_BYTES)?;
    (sum == checksum(table.name(), key, value)).then_some(value)
}

/// The key under which checksums are taken: they find damage, they prove nothing, so it need not be secret.
const CHECKSUM_KEY: [u8; 32] = *b"mangrove store: row checksums v1";

pub(crate) fn checksum(table: &str, key: &[u8], value: &[u8]) -> [u8; SEAL_BYTES] {
    // Lengths go before what they measure, so that no two different rows give the same bytes.
    let (table_len, key_len) = ([table.len() as u8], (key.len() as u32).to_be_bytes());
    let parts = [&table_len[..], table.as_bytes(), &key_len, key, value];
    // In one piece most rows take half the time.
    let mut piece = [0; 512];
    let hash = match piece.get_mut(..parts.iter().map(|part| part.len()).sum()) {
        Some(piece) => {
            let mut at = 0;
            for part in parts {
                piece[at..at + part.len()].copy_from_slice(part);
                at += part.len();
            }
            blake3::keyed_hash(&CHECKSUM_KEY, piece)
        }
        None => {
            let mut hasher = blake3::Hasher::new_keyed(&CHECKSUM_KEY);
            parts.iter().for_each(|part| _ = hasher.update(part));
            hasher.finalize()
        }
    };
    let mut sum = [0; SEAL_BYTES];
    sum.copy_from_slice(&hash.as_bytes()[..SEAL_BYTES]);
    sum
}

/// Refuses rows that no store takes, so that all stores refuse the same.
pub(crate) fn check_rows(rows: &[Row]) -> Result<(), StoreError> {
    for row in rows {
        let value_bytes = row.value.as_ref().map_or(0, Vec::len);
        if row.key.is_empty() || row.key.len() > KEY_BYTES_MAX || value_bytes > VALUE_BYTES_MAX {
            return Err(StoreError::Row { table: row.table, key_bytes: row.key.len(), value_bytes });
        }
    }
    Ok(())
}

/// Each key's last row, in order of table and key: what a batch means.
pub(crate) fn last_rows(rows: &[Row]) -> std::collections::BTreeMap<(Table, &[u8]), Option<&[u8]>> {
    rows.iter().map(|row| ((row.table, row.key.as_slice()), row.value.as_deref())).collect()
}

/// What makes room, beside what is particular to a limit.
pub(crate) fn room_by(remedy: &str) -> String {
    format!("remove topics, drop a section, or {remedy}")
}

/// A key as error messages show it: hexadecimal, the first 16 bytes.
pub(crate) fn show_key(key: &[u8]) -> String {
    let mut text: String = key.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    if key.len() > 16 {
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_holds_for_its_own_table_and_key_only() {
        let sealed = seal(Table::Meta, b"key", b"value");
        assert_eq!(unseal(Table::Meta, b"key", &sealed), Some(&b"value"[..]));
        assert_eq!(unseal(Table::Feeds, b"key", &sealed), None);
        assert_eq!(unseal(Table::Meta, b"kez", &sealed), None);
        assert_eq!(unseal(Table::Meta, b"ke", &sealed), None);
    }

    #[test]
    fn a_seal_finds_every_single_flipped_bit() {
        let sealed = seal(Table::Registers, b"k", b"some value");
        for bit in 0..sealed.len() * 8 {
            let mut flipped = sealed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(unseal(Table::Registers, b"k", &flipped), None, "bit {bit}");
        }
        for len in 0..sealed.len() {
            assert_eq!(unseal(Table::Registers, b"k", &sealed[..len]), None, "cut to {len}");
        }
    }

    #[test]
    fn the_last_row_of_a_key_counts() {
        let row = |key: &[u8], value: Option<&[u8]>| Row { table: Table::Meta, key: key.to_vec(), value: value.map(<[u8]>::to_vec) };
        let rows = [row(b"b", Some(b"1")), row(b"a", Some(b"2")), row(b"b", None), row(b"a", Some(b"3"))];
        let last: Vec<_> = last_rows(&rows).into_iter().collect();
        assert_eq!(last, [((Table::Meta, &b"a"[..]), Some(&b"3"[..])), ((Table::Meta, &b"b"[..]), None)]);
    }

    #[test]
    fn errors_say_what_where_and_what_to_do() {
        let locked = StoreError::Locked { place: "/data".into(), pid: Some(7) };
        assert_eq!(locked.to_string(), "/data is in use by process 7; stop that node, or name another directory with --data");
        let row = StoreError::Row { table: Table::Meta, key_bytes: 0, value_bytes: 3 };
        assert_eq!(
            row.to_string(),
            "a row of table meta has a key of 0 bytes and a value of 3 bytes; keys have 1 to 4096, values at most 268435456"
        );
        let version = StoreError::Version { place: "/data/vault".into(), found: 2, known: 1 };
        assert_eq!(
            version.to_string(),
            "/data/vault was written in format 2 by a newer mangrove, this one knows up to 1; run the newer one"
        );
    }
}
