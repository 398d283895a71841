//! The data directory: one process at a time, and where everything lies in it.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::{DiskOptions, DiskStore, Opened, StoreError, Vault, VaultState};

/// A data directory that this process holds, until the value and all stores opened from it are gone.
///
/// ```text
///   DIR/lock            held while a node runs; names its process
///   DIR/vault/a, b      two copies of what nobody else knows
///   DIR/data/           rows that peers could give again
///   DIR/quarantine-…/   damaged data that was set aside, each with a note
/// ```
#[derive(Clone, Debug)]
pub struct DataDir {
    path: PathBuf,
    lock: Arc<File>,
}

impl DataDir {
    /// Takes the directory at `path` for this process, making it (for this user only) where there is none.
    ///
    /// # Errors
    /// [`StoreError::Locked`] if another process has it, [`StoreError::ReadOnly`] if it cannot be written, [`StoreError::Full`],
    /// [`StoreError::Io`].
    pub fn open(path: &Path) -> Result<DataDir, StoreError> {
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io_at(path, "making the directory"))?;
        let lock_path = path.join("lock");
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock_path)
            .map_err(io_at(&lock_path, "opening the lock"))?;
        match try_lock(&lock) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                // Whoever holds it writes its process into it; without that the error is only less helpful.
                let _ = lock.read_to_string(&mut text);
                return Err(StoreError::Locked { place: path.display().to_string(), pid: text.trim().parse().ok() });
            }
            Err(TryLockError::Error(error)) => return Err(io_error(&lock_path, "locking", &error)),
        }
        // On a full disk the process goes unnamed, which is no reason not to start.
        let _ = lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id()));
        Ok(DataDir { path: path.to_path_buf(), lock: Arc::new(lock) })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// True if there is a vault, sound or not: this directory belongs to a node.
    pub fn has_vault(&self) -> bool {
        self.path.join("vault").exists()
    }

    /// Makes the vault with its first entries, whole or not at all.
    ///
    /// # Errors
    /// [`StoreError::Exists`] if there is one; [`StoreError::Full`], [`StoreError::ReadOnly`], [`StoreError::Io`].
    pub fn create_vault(&self, entries: &[(&str, &[u8])]) -> Result<Vault, StoreError> {
        Vault::create(self, entries)
    }

    /// Opens the vault.
    ///
    /// # Errors
    /// [`StoreError::Missing`], [`StoreError::Corrupt`] when neither of its copies is sound, [`StoreError::Version`], [`StoreError::Io`].
    pub fn open_vault(&self) -> Result<(Vault, VaultState), StoreError> {
        Vault::open(self)
    }

    /// Opens the store in `DIR/data`, making it where there is none. Damaged data are set aside, and an empty store opened
    /// in their place; [`Opened`] says so.
    ///
    /// # Errors
    /// [`StoreError::ReadOnly`], [`StoreError::Full`], [`StoreError::Version`], [`StoreError::Io`].
    pub fn open_store(&self, options: DiskOptions) -> Result<(DiskStore, Opened), StoreError> {
        DiskStore::open(self.clone(), options)
    }

    /// The lock, for what must keep the directory held.
    pub(super) fn lock(&self) -> Arc<File> {
        self.lock.clone()
    }
}

/// Turns an error of the operating system into one that says where and what.
pub(super) fn io_error(path: &Path, doing: &str, error: &io::Error) -> StoreError {
    let place = path.display().to_string();
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            StoreError::Full { place, what: format!("{doing}: {error}"), remedy: "give it a larger disk" }
        }
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
            StoreError::ReadOnly { place, what: format!("{doing}: {error}") }
        }
        _ => StoreError::Io { place, what: format!("{doing}: {error}") },
    }
}

/// [`io_error`] for `map_err`.
pub(super) fn io_at<'a>(path: &'a Path, doing: &'a str) -> impl FnOnce(io::Error) -> StoreError + 'a {
    move |error| io_error(path, doing, &error)
}

/// Makes the names within a directory durable.
pub(super) fn sync_dir(path: &Path) -> Result<(), StoreError> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(io_at(path, "syncing the directory"))
}

/// Removes what an interrupted creation left, if anything.
pub(super) fn remove_dir_if_there(path: &Path) -> Result<(), StoreError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error(path, "removing an unfinished directory", &error)),
        _ => Ok(()),
    }
}

/// Takes the lock, if need be a moment later: whoever had it and has let go may have been starting another process just then, which has all open files, and
/// with them the lock, until it runs its own program.
fn try_lock(lock: &File) -> Result<(), TryLockError> {
    const TRIES: u32 = 40;
    const BETWEEN: Duration = Duration::from_millis(5);
    for _ in 1..TRIES {
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) => thread::sleep(BETWEEN),
            taken => return taken,
        }
    }
    lock.try_lock()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_told_who_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/data");
        let held = DataDir::open(&path).unwrap();
        let refused = DataDir::open(&path).unwrap_err();
        assert_eq!(refused, StoreError::Locked { place: path.display().to_string(), pid: Some(std::process::id()) });
        drop(held);
        DataDir::open(&path).unwrap();
    }

    #[test]
    fn a_file_in_the_way_is_an_error_that_names_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "x").unwrap();
        let refused = DataDir::open(&path).unwrap_err().to_string();
        assert!(refused.starts_with(&format!("{}: making the directory: ", path.display())), "{refused}");
    }

    /// A process between its birth and its own program has the lock of whoever bore it.
    #[test]
    fn a_lock_that_lingers_for_a_moment_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("node");
        let lingering = DataDir::open(&path).unwrap().lock();
        let held = thread::spawn(move || {
            thread::sleep(Duration::from_millis(30));
            drop(lingering);
        });
        DataDir::open(&path).unwrap();
        held.join().unwrap();
    }
}
