//! The disk store's own promises: what conformance cannot know of processes, files and file systems.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use super::*;
use crate::store::conformance::{self, Subject, contents};
use crate::store::{Batch, Report, Writer, WriterOptions};

/// Small memory tables, so that little data make files of every kind.
fn options() -> DiskOptions {
    DiskOptions { free_bytes_min: 1 << 20, memtable_bytes: 256 << 10, ..DiskOptions::default() }
}

fn put(table: Table, key: &[u8], value: &[u8]) -> Row {
    Row { table, key: key.to_vec(), value: Some(value.to_vec()) }
}

fn gone(table: Table, key: &[u8]) -> Row {
    Row { table, key: key.to_vec(), value: None }
}

/// Bytes that do not compress.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut word = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (word >> 56) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

/// A directory in memory where the system has one: damage and contract are the same there, and a sync costs nothing.
fn quick_dir() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let has_room = rustix::fs::statvfs(memory).is_ok_and(|stat| stat.f_bavail * stat.f_frsize > 1 << 30);
    let dir = if has_room { tempfile::tempdir_in(memory).ok() } else { None };
    dir.unwrap_or_else(|| tempfile::tempdir().unwrap())
}

fn open(path: &Path) -> (DiskStore, Opened) {
    DataDir::open(path).unwrap().open_store(options()).unwrap()
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_dir(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

fn files(path: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => found.extend(files(&entry.path())),
            false => found.push(entry.path()),
        }
    }
    found.sort();
    found
}

fn flip(path: &Path, bit: u64) {
    use std::os::unix::fs::FileExt;
    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, bit / 8).unwrap();
    file.write_all_at(&[byte[0] ^ 1 << (bit % 8)], bit / 8).unwrap();
}

/// A disk store in a temporary directory.
struct OnDisk(tempfile::TempDir);

impl Subject for OnDisk {
    type Store = DiskStore;

    fn open(&mut self, limit: Limit) -> DiskStore {
        let options = DiskOptions { limit, ..options() };
        DataDir::open(&self.0.path().join("node")).unwrap().open_store(options).unwrap().0
    }

    /// The files as they are while the store is at work, which is what a killed process leaves.
    fn crash(&mut self, store: DiskStore) {
        let [node, copy] = ["node", "copy"].map(|name| self.0.path().join(name));
        copy_dir(&node, &copy);
        drop(store);
        fs::remove_dir_all(&node).unwrap();
        fs::rename(&copy, &node).unwrap();
    }

    fn damage(&mut self, store: DiskStore, table: Table, key: &[u8]) -> bool {
        let keyspace = &store.open.as_ref().unwrap().tables[table as usize];
        let mut sealed = keyspace.get(key).unwrap().unwrap().to_vec();
        *sealed.last_mut().unwrap() ^= 0x10;
        // In the batch's own way, so that only the row's checksum can tell.
        let open = store.open.as_ref().unwrap();
        let mut batch = open.database.batch().durability(Some(PersistMode::SyncAll));
        batch.insert(keyspace, key, sealed);
        let commit = Commit { number: open.number + 1, synced: open.synced, seqno_before: open.database.seqno() };
        batch.insert(&open.own, COMMIT_KEY, commit.encode());
        batch.commit().unwrap();
        let mut store = store;
        // The mark written on closing must not repeat that number.
        store.open.as_mut().unwrap().number += 1;
        drop(store);
        true
    }
}

#[test]
fn the_disk_store_keeps_the_contract() {
    conformance::run(|| OnDisk(quick_dir()));
}

#[test]
fn the_first_opening_creates_and_the_next_finds() {
    let dir = quick_dir();
    let (store, opened) = open(dir.path());
    assert_eq!(opened, Opened::Created);
    drop(store);
    let (mut store, opened) = open(dir.path());
    assert_eq!(opened, Opened::Existing { torn_bytes: 0 });
    store.commit(&[put(Table::Meta, b"k", b"v")], Sync::Disk).unwrap();
    assert!(matches!(DataDir::open(dir.path()), Err(StoreError::Locked { pid: Some(pid), .. }) if pid == std::process::id()));
}

#[test]
fn an_interrupted_creation_is_begun_again() {
    let dir = quick_dir();
    drop(open(dir.path()));
    // What a crash before the last step leaves, here with a file that would be in the way.
    fs::rename(dir.path().join("data"), dir.path().join("data.new")).unwrap();
    fs::remove_file(dir.path().join("data.new/version")).unwrap();
    let (_, opened) = open(dir.path());
    assert_eq!(opened, Opened::Created);
}

#[test]
fn a_newer_format_is_refused_and_not_set_aside() {
    let dir = quick_dir();
    let (store, _) = open(dir.path());
    let own = &store.open.as_ref().unwrap().own;
    own.insert(FORMAT_KEY, own_seal(FORMAT_KEY, &(FORMAT_VERSION + 1).to_be_bytes())).unwrap();
    own.rotate_memtable_and_wait().unwrap();
    drop(store);
    // That write had no commit row; without its journal it is in a file, as an older journal's are.
    let journal = dir.path().join("data/0.jnl");
    fs::File::options().write(true).open(&journal).unwrap().set_len(0).unwrap();
    let refused = DataDir::open(dir.path()).unwrap().open_store(options()).err().unwrap();
    let place = dir.path().join("data").display().to_string();
    assert_eq!(refused, StoreError::Version { place, found: FORMAT_VERSION + 1, known: FORMAT_VERSION });
    assert!(files(dir.path()).iter().all(|path| !path.display().to_string().contains("quarantine")));
}

/// Rows for the damage tests: enough for files in every large table, then a few synced batches in the journal.
fn write_much(store: &mut DiskStore) {
    for batch in 0..12u64 {
        let rows: Vec<Row> = (0..20u64)
            .flat_map(|n| {
                let key = (batch * 20 + n).to_be_bytes();
                [put(Table::Registers, &key, &noise(n, 900)), put(Table::Documents, &key, &noise(batch, 400))]
            })
            .chain([put(Table::Feeds, &batch.to_be_bytes(), b"frontier"), gone(Table::Registers, &(batch * 10).to_be_bytes())])
            .collect();
        store.commit(&rows, Sync::Disk).unwrap();
    }
    for table in &store.open.as_ref().unwrap().tables {
        table.rotate_memtable_and_wait().unwrap();
    }
    for batch in 0..8u64 {
        store
            .commit(&[put(Table::Meta, b"last", &batch.to_be_bytes()), put(Table::Registers, b"big", &noise(batch, 9_000))], Sync::Disk)
            .unwrap();
    }
}

/// What became of a store with one flipped bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    Unharmed,
    CutTail,
    QuarantinedAtOpening,
    QuarantinedWhenRead,
    Refused,
}

/// Flips one bit in a copy of a sound directory, opens it as a node would, and checks that nothing wrong is ever read.
fn fate(sound: &Path, file: &Path, bit: u64, want: &BTreeMap<(Table, Vec<u8>), Vec<u8>>) -> Fate {
    let dir = quick_dir();
    copy_dir(sound, dir.path());
    flip(&dir.path().join(file), bit);
    let (mut store, opened) = match DataDir::open(dir.path()).unwrap().open_store(options()) {
        Ok(opened) => opened,
        Err(error) => {
            assert!(!matches!(error, StoreError::Corrupt { .. }), "damage is set aside, not given back: {error}");
            return Fate::Refused;
        }
    };
    let fate = match opened {
        Opened::Quarantined { path, reason } => {
            assert!(path.is_dir() && !reason.is_empty());
            assert!(contents(&store).is_empty());
            Fate::QuarantinedAtOpening
        }
        Opened::Existing { torn_bytes } => match store.verify() {
            Ok(()) => {
                let found = contents(&store);
                if torn_bytes == 0 {
                    assert!(found == *want, "{} bit {bit}: other rows than were written", file.display());
                    Fate::Unharmed
                } else {
                    let last = found[&(Table::Meta, b"last".to_vec())].clone();
                    assert!(
                        last >= 6u64.to_be_bytes().to_vec(),
                        "{} bit {bit}: more than the last batch was cut off: {last:?}",
                        file.display()
                    );
                    Fate::CutTail
                }
            }
            Err(StoreError::Corrupt { what, .. }) => {
                assert!(matches!(store.quarantine(&what), Ok(Opened::Quarantined { .. })));
                assert!(contents(&store).is_empty());
                Fate::QuarantinedWhenRead
            }
            Err(error) => panic!("{} bit {bit}: {error}", file.display()),
        },
        Opened::Created => panic!("{} bit {bit}: taken for a new directory", file.display()),
    };
    // Whatever it was, the node goes on.
    store.commit(&[put(Table::Meta, b"after", b"1")], Sync::Disk).unwrap();
    drop(store);
    let (store, opened) = open(dir.path());
    assert_eq!(opened, Opened::Existing { torn_bytes: 0 });
    assert_eq!(store.get(Table::Meta, b"after"), Ok(Some(b"1".to_vec())));
    fate
}

#[test]
fn a_flipped_bit_in_any_file_is_found_or_harmless() {
    // More in a campaign: MANGROVE_FLIPS=2000 cargo test …
    let flips: u64 = std::env::var("MANGROVE_FLIPS").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let sound = quick_dir();
    let (mut store, _) = open(sound.path());
    write_much(&mut store);
    let want = contents(&store);
    drop(store);

    let mut fates: BTreeMap<(String, Fate), usize> = BTreeMap::new();
    for file in files(&sound.path().join("data")) {
        let name = file.strip_prefix(sound.path()).unwrap();
        // The journal is longer than what it holds.
        let content = fs::read(&file).unwrap();
        let bits = content.iter().rposition(|&byte| byte != 0).map_or(0, |last| last as u64 + 1) * 8;
        if bits == 0 {
            continue;
        }
        let is_journal = name.extension().is_some_and(|extension| extension == "jnl");
        let samples = if is_journal { flips * 8 } else { flips };
        for n in 0..samples {
            let bit = u64::from_be_bytes(noise(n + bits, 8).try_into().unwrap()) % bits;
            // The first sample of a journal is in its last tenth, where the unflushed batches are.
            let bit = if is_journal && n % 2 == 0 { bits - 1 - bit % (bits / 10) } else { bit };
            let fate = fate(sound.path(), name, bit, &want);
            let kind = name
                .components()
                .map(|part| part.as_os_str().to_string_lossy().replace(|c: char| c.is_ascii_digit(), "#"))
                .collect::<Vec<_>>();
            *fates.entry((kind.join("/"), fate)).or_default() += 1;
        }
    }
    for ((kind, fate), count) in &fates {
        println!("{kind}: {fate:?} {count}");
    }
    assert!(fates.keys().any(|(_, fate)| *fate == Fate::QuarantinedAtOpening), "nothing was ever found");
    assert!(fates.keys().all(|(_, fate)| *fate != Fate::Refused), "a flipped bit keeps the node from starting");
}

#[test]
fn damage_in_the_middle_of_a_journal_is_never_taken_for_a_torn_tail() {
    let sound = quick_dir();
    let (mut store, _) = open(sound.path());
    for n in 0..10u8 {
        store.commit(&[put(Table::Meta, &[n], &[n; 40])], Sync::Disk).unwrap();
    }
    let want = contents(&store);
    drop(store);
    let journal = Path::new("data/0.jnl");
    let bytes = fs::read(sound.path().join(journal)).unwrap();
    let used = bytes.iter().rposition(|&byte| byte != 0).unwrap() as u64 + 1;
    // Each bit of a batch in the middle, among them its tags, lengths and sequence number.
    let at = used / 2;
    for bit in (at * 8..(at + 170) * 8).step_by(61) {
        let fate = fate(sound.path(), journal, bit, &want);
        assert_eq!(fate, Fate::QuarantinedAtOpening, "bit {bit}");
    }
}

#[test]
fn a_torn_tail_is_cut_off_and_said() {
    let sound = quick_dir();
    let (mut store, _) = open(sound.path());
    store.commit(&[put(Table::Meta, b"kept", b"1")], Sync::Disk).unwrap();
    let journal = sound.path().join("data/0.jnl");
    let used = |bytes: &[u8]| bytes.iter().rposition(|&byte| byte != 0).unwrap() as u64 + 1;
    let before = used(&fs::read(&journal).unwrap());
    store.commit(&[put(Table::Meta, b"torn", &noise(1, 2_000))], Sync::Buffered).unwrap();
    let after = used(&fs::read(&journal).unwrap());
    assert!(after > before + 2_000);
    let copy = quick_dir();
    for cut in (before + 1..after).step_by(97) {
        let dir = copy.path().join(cut.to_string());
        copy_dir(sound.path(), &dir);
        let file = fs::File::options().write(true).open(dir.join("data/0.jnl")).unwrap();
        file.set_len(cut).unwrap();
        let (store, opened) = open(&dir);
        assert!(matches!(opened, Opened::Existing { torn_bytes } if torn_bytes > 0), "cut at {cut}: {opened:?}");
        assert_eq!(contents(&store).into_keys().collect::<Vec<_>>(), [(Table::Meta, b"kept".to_vec())]);
    }
    // The disk may also write a batch's end before its middle.
    let dir = copy.path().join("hole");
    copy_dir(sound.path(), &dir);
    let file = fs::File::options().write(true).open(dir.join("data/0.jnl")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &[0; 512], before + 512).unwrap();
    let (store, opened) = open(&dir);
    assert_eq!(opened, Opened::Existing { torn_bytes: after - before });
    assert_eq!(contents(&store).len(), 1);
}

#[test]
fn a_quarantine_is_reported_until_something_is_committed() {
    let dir = quick_dir();
    let (mut store, _) = open(dir.path());
    store.commit(&[put(Table::Meta, b"k", b"v")], Sync::Disk).unwrap();
    let opened = store.quarantine("for a test").unwrap();
    let Opened::Quarantined { path, reason } = &opened else { panic!("{opened:?}") };
    assert_eq!(reason, "for a test");
    assert!(path.file_name().unwrap().to_str().unwrap().starts_with("quarantine-1-"));
    assert!(fs::read_to_string(path.join("WHY.txt")).unwrap().starts_with("for a test\n"));
    assert!(path.join("version").is_file(), "the data are kept");
    drop(store);
    let (mut store, again) = open(dir.path());
    assert_eq!(again, opened);
    store.sync().unwrap();
    drop(store);
    let (mut store, again) = open(dir.path());
    assert_eq!(again, opened, "a mark of the store's own is no commit");
    store.commit(&[put(Table::Meta, b"k", b"v")], Sync::Disk).unwrap();
    drop(store);
    let (mut store, again) = open(dir.path());
    assert_eq!(again, Opened::Existing { torn_bytes: 0 });
    let Opened::Quarantined { path, .. } = store.quarantine("twice").unwrap() else { panic!() };
    assert!(path.file_name().unwrap().to_str().unwrap().starts_with("quarantine-2-"));
}

/// A file system of a few mebibytes in memory; `None`, and a line that says why, where this user may not mount one.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn new(size: &str) -> Option<SmallDisk> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(dir.path()).output();
        match mounted {
            Ok(output) if output.status.success() => Some(SmallDisk(dir)),
            Ok(output) => {
                println!("skipped: no tmpfs to be had: {}", String::from_utf8_lossy(&output.stderr).trim());
                None
            }
            Err(error) => {
                println!("skipped: no `mount`: {error}");
                None
            }
        }
    }

    fn remount(&self, option: &str) {
        let status = Command::new("mount").args(["-o", &format!("remount,{option}")]).arg(self.0.path()).status().unwrap();
        assert!(status.success());
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

fn free(path: &Path) -> u64 {
    let stat = rustix::fs::statvfs(path).unwrap();
    stat.f_bavail * stat.f_frsize
}

#[test]
fn a_small_file_system_is_refused_before_it_is_full() {
    let Some(disk) = SmallDisk::new("8M") else { return };
    let (mut store, _) = open(disk.0.path());
    let mut kept = 0u64;
    let refused = loop {
        match store.commit(&[put(Table::Registers, &kept.to_be_bytes(), &noise(kept, 16 << 10))], Sync::Disk) {
            Ok(()) => kept += 1,
            Err(error) => break error,
        }
        assert!(kept < 1_000);
    };
    assert!(matches!(&refused, StoreError::Full { remedy: "give it a larger disk", .. }), "{refused}");
    assert!(kept > 50, "refused after {kept} rows of 16 KiB");
    assert!(free(disk.0.path()) >= 256 << 10, "{} bytes are free", free(disk.0.path()));
    for n in 0..10u64 {
        store.commit(&[gone(Table::Registers, &n.to_be_bytes()), put(Table::Changes, &n.to_be_bytes(), b"removed")], Sync::Disk).unwrap();
    }
    assert_eq!(contents(&store).len() as u64, kept);
    drop(store);
    let (store, opened) = open(disk.0.path());
    assert_eq!(opened, Opened::Existing { torn_bytes: 0 });
    assert_eq!(contents(&store).len() as u64, kept);
}

#[test]
fn a_disk_that_is_full_all_the_same_loses_nothing_and_comes_back() {
    let Some(disk) = SmallDisk::new("8M") else { return };
    let (mut store, _) = open(disk.0.path());
    for n in 0..20u64 {
        store.commit(&[put(Table::Registers, &n.to_be_bytes(), &noise(n, 10_000))], Sync::Disk).unwrap();
    }
    let want = contents(&store);
    // Someone else takes the rest, and the batch is past the check already.
    let other = disk.0.path().join("other");
    fs::write(&other, vec![1; free(disk.0.path()) as usize]).unwrap();
    let row = put(Table::Registers, b"too much", &noise(1, 200_000));
    let refused = store.commit(std::slice::from_ref(&row), Sync::Disk).unwrap_err();
    assert!(matches!(refused, StoreError::Full { .. }), "{refused}");
    assert!(contents(&store) == want, "checked before anything was written");
    let failed = store.write(std::slice::from_ref(&row), Sync::Disk).unwrap_err();
    assert!(matches!(failed, StoreError::Full { .. }), "{failed}");
    // fjall has stopped; nothing is taken until it is opened again.
    assert!(matches!(store.commit(std::slice::from_ref(&row), Sync::Disk), Err(StoreError::Io { .. })));
    fs::remove_file(&other).unwrap();
    store.recover().unwrap();
    assert!(contents(&store) == want, "half a batch was left behind");
    store.commit(std::slice::from_ref(&row), Sync::Disk).unwrap();
    assert_eq!(contents(&store).len(), want.len() + 1);
    drop(store);
    let (store, opened) = open(disk.0.path());
    assert_eq!(opened, Opened::Existing { torn_bytes: 0 });
    assert_eq!(contents(&store).len(), want.len() + 1);
}

#[test]
fn a_worker_that_meets_a_full_disk_does_not_hang_the_store() {
    let Some(disk) = SmallDisk::new("16M") else { return };
    let (mut store, _) = open(disk.0.path());
    let other = disk.0.path().join("other");
    fs::write(&other, vec![1; free(disk.0.path()) as usize - (3 << 20)]).unwrap();
    // Past the check, until a flush or the journal fails.
    let mut n = 0u64;
    let mut committed = BTreeMap::new();
    let failed = loop {
        let value = noise(n, 20_000);
        match store.write(&[put(Table::Registers, &n.to_be_bytes(), &value)], Sync::Disk) {
            Ok(()) => committed.insert((Table::Registers, n.to_be_bytes().to_vec()), value),
            Err(error) => break error,
        };
        n += 1;
        assert!(n < 2_000);
    };
    assert!(matches!(failed, StoreError::Full { .. } | StoreError::Io { .. }), "{failed}");
    fs::remove_file(&other).unwrap();
    store.recover().unwrap();
    let found = contents(&store);
    assert!(committed.iter().all(|(key, value)| found.get(key) == Some(value)), "something acknowledged is gone");
    store.commit(&[put(Table::Meta, b"after", b"1")], Sync::Disk).unwrap();
}

#[test]
fn a_directory_that_cannot_be_written_is_said_to_be_so() {
    let Some(disk) = SmallDisk::new("8M") else { return };
    let path = disk.0.path().join("node");
    drop(open(&path));
    disk.remount("ro");
    let refused = DataDir::open(&path).unwrap_err();
    assert!(matches!(&refused, StoreError::ReadOnly { place, .. } if place.ends_with("node/lock")), "{refused}");
    let text = refused.to_string();
    assert!(text.contains("cannot be written") && text.contains("make it writable"), "{text}");
    disk.remount("rw");
    drop(open(&path));
}

#[test]
fn what_a_burst_leaves_in_memory_is_written_out_in_idle_times() {
    let dir = quick_dir();
    let options = DiskOptions { memtable_bytes: 64 << 20, ..options() };
    let (mut store, _) = DataDir::open(dir.path()).unwrap().open_store(options).unwrap();
    for n in 0..30u64 {
        store.commit(&[put(Table::Registers, &n.to_be_bytes(), &noise(n, 100 << 10))], Sync::Buffered).unwrap();
    }
    let want = contents(&store);
    let in_memory = |store: &DiskStore| store.open.as_ref().unwrap().tables[Table::Registers as usize].tree.active_memtable().size();
    assert!(in_memory(&store) > 3_000_000);
    store.tidy().unwrap();
    assert!(in_memory(&store) < 1_000, "{} bytes", in_memory(&store));
    assert!(contents(&store) == want);
    drop(store);
    assert!(contents(&open(dir.path()).0) == want);
}

#[test]
fn room_taken_by_removed_rows_comes_back_in_idle_times() {
    let dir = quick_dir();
    // More than a journal keeps for itself.
    let limit = Limit { bytes_max: 150 << 20, reserve_bytes: 20 << 20 };
    let options = DiskOptions { limit, memtable_bytes: 4 << 20, ..options() };
    let (mut store, _) = DataDir::open(dir.path()).unwrap().open_store(options).unwrap();
    let mut kept = 0u64;
    while store.commit(&[put(Table::Registers, &kept.to_be_bytes(), &noise(kept, 256 << 10))], Sync::Buffered).is_ok() {
        kept += 1;
        assert!(kept < 1_000);
    }
    assert!(store.room() < 256 << 10);
    for n in 0..kept * 3 / 4 {
        store.commit(&[gone(Table::Registers, &n.to_be_bytes())], Sync::Buffered).unwrap();
    }
    store.sync().unwrap();
    store.tidy().unwrap();
    assert!(store.room() > 20 << 20, "{} bytes of room after three quarters of {kept} rows went", store.room());
    store.commit(&[put(Table::Registers, b"again", &noise(1, 256 << 10))], Sync::Disk).unwrap();
    assert_eq!(contents(&store).len() as u64, kept - kept * 3 / 4 + 1);
}

const CHILD: &str = "MANGROVE_STORE_TEST_CHILD";

/// What the killed process does: commits batch after batch through the writer, and says which are acknowledged.
fn child(path: &Path) -> ! {
    let (store, _) = open(path);
    let last = store.get(Table::Meta, b"last").unwrap().map_or(0, |bytes| u64::from_be_bytes(bytes.try_into().unwrap()));
    let report = |report| match report {
        Report::Persisted { upto, .. } => println!("\nacked {upto}"),
        Report::Failed { error, .. } => panic!("{error}"),
    };
    let writer = Writer::start(store, WriterOptions::default(), report).unwrap();
    for number in last + 1.. {
        while !writer.can_send() {
            std::thread::yield_now();
        }
        let rows = vec![
            put(Table::Meta, b"last", &number.to_be_bytes()),
            put(Table::Registers, &number.to_be_bytes(), &noise(number, 200)),
            put(Table::Documents, &(number % 50).to_be_bytes(), &noise(number, 3_000)),
        ];
        writer.send(Batch { number, rows, sync: Sync::Disk });
    }
    unreachable!("it is killed before it runs out of numbers")
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    if let Ok(path) = std::env::var(CHILD) {
        child(Path::new(&path));
    }
    let dir = tempfile::tempdir().unwrap();
    let mut last = 0;
    for round in 0..6u64 {
        let mut process = start_child(dir.path());
        let output = BufReader::new(process.stdout.take().unwrap());
        let mut acked = 0;
        let wanted = last + 20 + round * 37;
        for line in output.lines().map_while(Result::ok) {
            if let Some(number) = line.strip_prefix("acked ") {
                acked = number.parse().unwrap();
            }
            if acked >= wanted {
                process.kill().unwrap();
            }
        }
        process.wait().unwrap();
        assert!(acked >= wanted, "the child ended by itself after {acked}");

        let (store, opened) = open(dir.path());
        assert!(matches!(opened, Opened::Existing { .. }), "{opened:?}");
        let found = contents(&store);
        last = u64::from_be_bytes(found[&(Table::Meta, b"last".to_vec())].clone().try_into().unwrap());
        assert!(last >= acked, "round {round}: {acked} was acknowledged, {last} is there");
        let mut want = BTreeMap::from([((Table::Meta, b"last".to_vec()), last.to_be_bytes().to_vec())]);
        for number in 1..=last {
            want.insert((Table::Registers, number.to_be_bytes().to_vec()), noise(number, 200));
            want.insert((Table::Documents, (number % 50).to_be_bytes().to_vec()), noise(number, 3_000));
        }
        assert!(found == want, "round {round}: not the state after batch {last}");
    }
}

fn start_child(path: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args([concat!(module_path!(), "::what_was_acknowledged_survives_kill_9").split_once("::").unwrap().1, "--exact", "--nocapture"])
        .env(CHILD, path)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn a_store_from_before_a_table_gets_it_and_misses_it_from_then_on() {
    let dir = quick_dir();
    // What version 1 has stored, before there were blobs.
    copy_dir(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/wire-1/data"), dir.path());
    let (mut store, opened) = open(dir.path());
    assert!(matches!(opened, Opened::Existing { .. }), "{opened:?}");
    let before = contents(&store);
    assert!(!before.is_empty());
    store.commit(&[put(Table::Blobs, b"one", &noise(1, 1 << 20))], Sync::Disk).unwrap();
    drop(store);
    let (store, opened) = open(dir.path());
    assert_eq!(opened, Opened::Existing { torn_bytes: 0 });
    assert_eq!(contents(&store).len(), before.len() + 1);
    let inner = store.open.as_ref().unwrap();
    inner.database.delete_keyspace(inner.tables[Table::Blobs as usize].clone()).unwrap();
    drop(store);
    assert!(matches!(open(dir.path()).1, Opened::Quarantined { .. }), "a table is lost");
}
