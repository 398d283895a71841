//! The vault: a handful of entries that nobody else knows, each durable when `put` returns.
//!
//! # Why two plain files and not a second database
//!
//! The vault holds some hundred bytes: the node's key, its boot counter, the tickets it has issued, the operator's credential, a voter's
//! promises. An LSM for those costs two threads, a journal of 64 MiB (sparse, but not on every file system), and some 30 files to be
//! opened, and on a flipped bit it refuses as a whole. Two copies in place cost one small write and one `fdatasync` each, need no new room
//! on a full disk, and survive damage to either:
//!
//! ```text
//!   put:  write a ── fdatasync ──▶ write b ── fdatasync ──▶ return
//!         └ a torn: b has all       └ b torn: a has all, and more
//!           that was acknowledged
//! ```
//!
//! An entry is acknowledged only when both copies hold it, and while one is written the other is sound. So whichever single copy
//! can be read holds everything that was ever acknowledged: a damaged copy is healed from the other with *nothing rolled back*. That matters here more
//! than anywhere: an older boot counter or promise is worse than none. If neither can be read the vault says so and stays shut.
//!
//! # The file
//!
//! | bytes | what |
//! |---|---|
//! | 0..16 | `mangrove vault\n\0` |
//! | 16..48 | BLAKE3 of all that follows, up to the end of the body |
//! | 48..52 | format version, big endian |
//! | 52..60 | generation: rises with each put |
//! | 60..64 | length of the body |
//! | 64.. | the body: a CBOR map of name to bytes |
//!
//! then zeros up to a multiple of 8 KiB, so that most puts find their room already there.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use minicbor::bytes::ByteVec;

use super::directory::{DataDir, io_at, io_error, remove_dir_if_there, sync_dir};
use super::{FORMAT_VERSION, StoreError};

const MAGIC: &[u8; 16] = b"mangrove vault\n\0";
const SUM_AT: usize = 16;
const FORMAT_AT: usize = 48;
const GENERATION_AT: usize = 52;
const LEN_AT: usize = 60;
const BODY_AT: usize = 64;
const PAD_BYTES: usize = 8 << 10;
/// All entries together; a vault is no database.
const BODY_BYTES_MAX: usize = 16 << 20;
const COPIES: [&str; 2] = ["a", "b"];
/// The entry that [`Vault::next_boot`] counts in.
const BOOT: &str = "boot";

/// The node's few durable entries. The module's essay says how.
#[derive(Debug)]
pub struct Vault {
    path: PathBuf,
    files: [File; 2],
    /// Which copies are known to hold the last state that was acknowledged. At least one always does.
    sound: [bool; 2],
    generation: u64,
    entries: BTreeMap<String, ByteVec>,
    _lock: Arc<File>,
}

/// How a vault was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum VaultState {
    /// Both copies were sound.
    Sound,
    /// One copy was damaged or gone and has been written again from the other; nothing is lost. Worth a warning: the disk may be failing.
    Healed {
        /// The copy's file.
        path: PathBuf,
        /// What was wrong with it.
        what: String,
    },
}

impl Vault {
    pub(super) fn create(dir: &DataDir, entries: &[(&str, &[u8])]) -> Result<Vault, StoreError> {
        let path = dir.path().join("vault");
        if path.exists() {
            return Err(StoreError::Exists { place: path.display().to_string() });
        }
        // Built aside and renamed, so that a vault is there whole or not at all.
        let unfinished = dir.path().join("vault.new");
        remove_dir_if_there(&unfinished)?;
        DirBuilder::new().mode(0o700).create(&unfinished).map_err(io_at(&unfinished, "making the directory"))?;
        let entries = entries.iter().map(|(name, value)| (name.to_string(), ByteVec::from(value.to_vec()))).collect();
        let image = encode(1, &entries, &path)?;
        let [a, b] = COPIES.map(|name| unfinished.join(name));
        let files = [create_copy(&a, &image)?, create_copy(&b, &image)?];
        sync_dir(&unfinished)?;
        fs::rename(&unfinished, &path).map_err(io_at(&path, "putting the new vault in place"))?;
        sync_dir(dir.path())?;
        Ok(Vault { path, files, sound: [true; 2], generation: 1, entries, _lock: dir.lock() })
    }

    pub(super) fn open(dir: &DataDir) -> Result<(Vault, VaultState), StoreError> {
        let path = dir.path().join("vault");
        if !path.exists() {
            return Err(StoreError::Missing { place: path.display().to_string() });
        }
        let [a, b] = [read_copy(&path.join("a"))?, read_copy(&path.join("b"))?];
        let found = match (&a, &b) {
            (Ok(a), Ok(b)) => {
                if b.generation > a.generation {
                    b
                } else {
                    a
                }
            }
            (Ok(sound), Err(_)) | (Err(_), Ok(sound)) => sound,
            (Err(a), Err(b)) => return Err(both_damaged(&path, a, b)),
        };
        let state = match (&a, &b) {
            (Err(what), _) => VaultState::Healed { path: path.join("a"), what: what.clone() },
            (_, Err(what)) => VaultState::Healed { path: path.join("b"), what: what.clone() },
            _ => VaultState::Sound,
        };
        let holds = |copy: &Result<Image, String>| copy.as_ref().is_ok_and(|copy| copy.generation == found.generation);
        let mut vault = Vault {
            files: [open_copy(&path.join("a"))?, open_copy(&path.join("b"))?],
            sound: [holds(&a), holds(&b)],
            generation: found.generation,
            entries: found.entries.clone(),
            path,
            _lock: dir.lock(),
        };
        if vault.sound != [true; 2] {
            vault.write(vault.entries.clone())?;
        }
        Ok((vault, state))
    }

    /// An entry's bytes.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.entries.get(name).map(|value| value.as_slice())
    }

    /// All entries' names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Puts an entry; it is durable when this returns.
    ///
    /// # Errors
    /// [`StoreError::Full`], [`StoreError::ReadOnly`], [`StoreError::Io`]: the entry is as before for this process; after a restart it may be
    /// either. Putting it again is always right.
    pub fn put(&mut self, name: &str, value: &[u8]) -> Result<(), StoreError> {
        self.put_all(&[(name, Some(value))])
    }

    /// Removes an entry; it is gone for good when this returns.
    ///
    /// # Errors
    /// As [`Vault::put`].
    pub fn remove(&mut self, name: &str) -> Result<(), StoreError> {
        self.put_all(&[(name, None)])
    }

    /// Puts and removes several entries, all or none.
    ///
    /// # Errors
    /// As [`Vault::put`].
    pub fn put_all(&mut self, changes: &[(&str, Option<&[u8]>)]) -> Result<(), StoreError> {
        let mut entries = self.entries.clone();
        for &(name, value) in changes {
            match value {
                Some(value) => entries.insert(name.to_string(), ByteVec::from(value.to_vec())),
                None => entries.remove(name),
            };
        }
        self.write(entries)
    }

    /// Counts a new run of the node and gives its number, from 1 on: durable before anything else happens, so that no number is ever used for two runs.
    ///
    /// # Errors
    /// As [`Vault::put`]; [`StoreError::Corrupt`] if the counter makes no sense or is at its end.
    pub fn next_boot(&mut self) -> Result<u32, StoreError> {
        let last = match self.get(BOOT) {
            None => Some(0),
            Some(bytes) => bytes.try_into().ok().map(u32::from_be_bytes),
        };
        let Some(next) = last.and_then(|last| last.checked_add(1)) else {
            return Err(damaged(&self.path, format!("its boot counter is {:x?}", self.get(BOOT).unwrap_or_default())));
        };
        self.put(BOOT, &next.to_be_bytes())?;
        Ok(next)
    }

    /// Writes both copies, first one that is not sound if there is such a one, so that at every moment one is.
    fn write(&mut self, entries: BTreeMap<String, ByteVec>) -> Result<(), StoreError> {
        // Also after a failure the next put gets a new number: the failed one may be on the disk.
        self.generation += 1;
        let image = encode(self.generation, &entries, &self.path)?;
        let first = usize::from(!self.sound[1] && self.sound[0]);
        for copy in [first, 1 - first] {
            self.sound[copy] = false;
            let path = self.path.join(COPIES[copy]);
            write_copy(&self.files[copy], &image).map_err(io_at(&path, "writing"))?;
            self.sound[copy] = true;
            debug_assert!(self.sound.contains(&true), "never both copies in doubt");
        }
        self.entries = entries;
        Ok(())
    }
}

/// A copy's content.
#[derive(Debug)]
struct Image {
    generation: u64,
    entries: BTreeMap<String, ByteVec>,
}

fn encode(generation: u64, entries: &BTreeMap<String, ByteVec>, path: &Path) -> Result<Vec<u8>, StoreError> {
    let body = minicbor::to_vec(entries).expect("writing to a vector does not fail");
    if body.len() > BODY_BYTES_MAX {
        let what = format!("writing: {} bytes of entries, at most {BODY_BYTES_MAX} are taken", body.len());
        return Err(StoreError::Io { place: path.display().to_string(), what });
    }
    let mut image = vec![0; BODY_AT];
    image[..SUM_AT].copy_from_slice(MAGIC);
    image[FORMAT_AT..GENERATION_AT].copy_from_slice(&FORMAT_VERSION.to_be_bytes());
    image[GENERATION_AT..LEN_AT].copy_from_slice(&generation.to_be_bytes());
    image[LEN_AT..BODY_AT].copy_from_slice(&(body.len() as u32).to_be_bytes());
    image.extend_from_slice(&body);
    let sum = *blake3::hash(&image[FORMAT_AT..]).as_bytes();
    image[SUM_AT..FORMAT_AT].copy_from_slice(&sum);
    image.resize(image.len().next_multiple_of(PAD_BYTES), 0);
    Ok(image)
}

/// A copy's content, or what is wrong with it; the outer error is for what makes the question moot.
fn decode(path: &Path, bytes: &[u8]) -> Result<Result<Image, String>, StoreError> {
    let Some((header, rest)) = bytes.split_at_checked(BODY_AT) else {
        return Ok(Err(format!("it has only {} bytes", bytes.len())));
    };
    let number = |from: usize, to: usize| header[from..to].iter().fold(0u64, |sum, &byte| sum << 8 | u64::from(byte));
    if &header[..SUM_AT] != MAGIC {
        return Ok(Err("it does not begin as a vault does".into()));
    }
    let Some(body) = rest.get(..number(LEN_AT, BODY_AT) as usize) else {
        return Ok(Err("it is cut off".into()));
    };
    if blake3::hash(&bytes[FORMAT_AT..BODY_AT + body.len()]).as_bytes() != &header[SUM_AT..FORMAT_AT] {
        return Ok(Err("its checksum is wrong".into()));
    }
    // After the checksum: a flipped bit must not pass for a newer version.
    let format = number(FORMAT_AT, GENERATION_AT) as u32;
    if format > FORMAT_VERSION {
        return Err(StoreError::Version { place: path.display().to_string(), found: format, known: FORMAT_VERSION });
    }
    Ok(match minicbor::decode(body) {
        Ok(entries) => Ok(Image { generation: number(GENERATION_AT, LEN_AT), entries }),
        Err(error) => Err(format!("its entries cannot be read: {error}")),
    })
}

fn read_copy(path: &Path) -> Result<Result<Image, String>, StoreError> {
    match fs::read(path) {
        Ok(bytes) => decode(path, &bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Err("it is not there".into())),
        // A sector that cannot be read any more is damage like any other, as long as the other copy can.
        Err(error) if error.kind() != io::ErrorKind::PermissionDenied => Ok(Err(format!("it cannot be read: {error}"))),
        Err(error) => Err(io_error(path, "reading", &error)),
    }
}

fn open_copy(path: &Path) -> Result<File, StoreError> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    options.open(path).map_err(io_at(path, "opening"))
}

fn create_copy(path: &Path, image: &[u8]) -> Result<File, StoreError> {
    let file = open_copy(path)?;
    write_copy(&file, image).and_then(|()| file.sync_all()).map_err(io_at(path, "writing"))?;
    Ok(file)
}

/// Writes a copy in place. Growing comes first and apart, so that a full disk leaves the copy as it was.
fn write_copy(file: &File, image: &[u8]) -> io::Result<()> {
    let len = file.metadata()?.len();
    if len < image.len() as u64 {
        let grown = file.write_all_at(&vec![0; image.len() - len as usize], len).and_then(|()| file.sync_all());
        if let Err(error) = grown {
            // Best effort: a longer file of zeros is read just as well.
            let _ = file.set_len(len);
            return Err(error);
        }
    }
    file.write_all_at(image, 0)?;
    file.sync_data()
}

fn both_damaged(path: &Path, a: &str, b: &str) -> StoreError {
    damaged(path, format!("of its two copies, a: {a}, b: {b}"))
}

fn damaged(path: &Path, what: String) -> StoreError {
    StoreError::Corrupt {
        place: path.display().to_string(),
        table: None,
        key: Vec::new(),
        what,
        remedy: "and restore both copies from a backup, or join again as a new node with --data naming an empty directory",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make(dir: &Path) -> Vault {
        DataDir::open(dir).unwrap().create_vault(&[("identity", b"secret")]).unwrap()
    }

    fn open(dir: &Path) -> (Vault, VaultState) {
        DataDir::open(dir).unwrap().open_vault().unwrap()
    }

    fn read(dir: &Path, copy: &str) -> Vec<u8> {
        fs::read(dir.join("vault").join(copy)).unwrap()
    }

    fn write(dir: &Path, copy: &str, bytes: &[u8]) {
        fs::write(dir.join("vault").join(copy), bytes).unwrap();
    }

    #[test]
    fn entries_are_there_after_each_put_and_boots_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        let mut vault = make(dir.path());
        for boot in 1..5u32 {
            assert_eq!(vault.next_boot(), Ok(boot));
            vault.put("tickets", &[boot as u8; 20]).unwrap();
            drop(vault);
            let (opened, state) = open(dir.path());
            assert_eq!(state, VaultState::Sound);
            assert_eq!(opened.get("identity"), Some(&b"secret"[..]));
            assert_eq!(opened.get("tickets"), Some(&[boot as u8; 20][..]));
            vault = opened;
        }
        vault.put_all(&[("tickets", None), ("operator", Some(b"hash"))]).unwrap();
        drop(vault);
        assert_eq!(open(dir.path()).0.names().collect::<Vec<_>>(), ["boot", "identity", "operator"]);
    }

    #[test]
    fn only_its_user_may_read_it() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        drop(make(dir.path()));
        let mode = |path: &str| fs::metadata(dir.path().join(path)).unwrap().permissions().mode() & 0o777;
        assert_eq!(["vault", "vault/a", "vault/b"].map(mode), [0o700, 0o600, 0o600]);
    }

    #[test]
    fn one_is_made_once_and_opened_only_where_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let data = DataDir::open(dir.path()).unwrap();
        assert!(matches!(data.open_vault(), Err(StoreError::Missing { .. })));
        assert!(!data.has_vault());
        // What a crash while making one leaves.
        fs::create_dir(dir.path().join("vault.new")).unwrap();
        drop(data.create_vault(&[]).unwrap());
        assert!(data.has_vault());
        assert!(matches!(data.create_vault(&[]), Err(StoreError::Exists { .. })));
        assert!(!dir.path().join("vault.new").exists());
    }

    #[test]
    fn damage_to_either_copy_is_healed_and_nothing_is_rolled_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut vault = make(dir.path());
        vault.put("promise", b"old").unwrap();
        vault.put("promise", b"new").unwrap();
        drop(vault);
        let sound = read(dir.path(), "a");
        assert_eq!(sound, read(dir.path(), "b"));
        let used = BODY_AT + u32::from_be_bytes(sound[LEN_AT..BODY_AT].try_into().unwrap()) as usize;
        for copy in COPIES {
            for bit in (0..used * 8).step_by(5) {
                let mut flipped = sound.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                write(dir.path(), copy, &flipped);
                let (vault, state) = open(dir.path());
                assert!(matches!(&state, VaultState::Healed { path, .. } if path.ends_with(copy)), "bit {bit} of {copy}: {state:?}");
                assert_eq!(vault.get("promise"), Some(&b"new"[..]));
                drop(vault);
                assert_eq!(open(dir.path()).1, VaultState::Sound);
            }
            for cut in [0, 1, BODY_AT - 1, BODY_AT, used - 1] {
                write(dir.path(), copy, &sound[..cut]);
                assert!(matches!(open(dir.path()).1, VaultState::Healed { .. }), "{copy} cut to {cut}");
            }
            fs::remove_file(dir.path().join("vault").join(copy)).unwrap();
            assert!(matches!(open(dir.path()).1, VaultState::Healed { .. }));
            assert_eq!(open(dir.path()).0.get("promise"), Some(&b"new"[..]));
        }
        // Beyond the body nothing counts.
        let mut padded = sound.clone();
        *padded.last_mut().unwrap() = 1;
        write(dir.path(), "a", &padded);
        assert_eq!(open(dir.path()).1, VaultState::Sound);
    }

    #[test]
    fn a_crash_at_any_byte_of_a_put_leaves_the_old_or_the_new() {
        let dir = tempfile::tempdir().unwrap();
        let mut vault = make(dir.path());
        vault.put("promise", b"old").unwrap();
        let old = read(dir.path(), "a");
        vault.put("promise", b"new").unwrap();
        drop(vault);
        let new = read(dir.path(), "a");
        let torn = |cut: usize| [&new[..cut], &old[cut..]].concat();
        let promise = || open(dir.path()).0.get("promise").unwrap().to_vec();
        for cut in 0..BODY_AT + 40 {
            // While a is written b is the old one; while b is written a is the new one.
            write(dir.path(), "a", &torn(cut));
            write(dir.path(), "b", &old);
            let found = promise();
            assert!(found == b"old" || found == b"new", "a torn at {cut}");
            write(dir.path(), "a", &new);
            write(dir.path(), "b", &torn(cut));
            assert_eq!(promise(), b"new", "b torn at {cut}");
        }
    }

    #[test]
    fn two_damaged_copies_are_an_error_that_says_what_to_do_and_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        drop(make(dir.path()));
        let mut damaged = read(dir.path(), "a");
        damaged[BODY_AT] ^= 1;
        write(dir.path(), "a", &damaged);
        write(dir.path(), "b", b"short");
        let error = DataDir::open(dir.path()).unwrap().open_vault().err().unwrap();
        assert_eq!(
            error.to_string(),
            format!(
                "{} is damaged: of its two copies, a: its checksum is wrong, b: it has only 5 bytes; check the disk, and restore both copies from a \
                 backup, or join again as a new node with --data naming an empty directory",
                dir.path().join("vault").display()
            )
        );
        assert_eq!(read(dir.path(), "a"), damaged);
        assert_eq!(read(dir.path(), "b"), b"short");
    }

    #[test]
    fn a_newer_format_is_refused_and_a_flipped_bit_does_not_pass_for_one() {
        let dir = tempfile::tempdir().unwrap();
        drop(make(dir.path()));
        let mut newer = read(dir.path(), "a");
        newer[GENERATION_AT - 1] += 1;
        write(dir.path(), "a", &newer);
        assert!(matches!(open(dir.path()).1, VaultState::Healed { .. }), "its checksum says that it is damage");
        let used = BODY_AT + u32::from_be_bytes(newer[LEN_AT..BODY_AT].try_into().unwrap()) as usize;
        let sum = *blake3::hash(&newer[FORMAT_AT..used]).as_bytes();
        newer[SUM_AT..FORMAT_AT].copy_from_slice(&sum);
        write(dir.path(), "a", &newer);
        let error = DataDir::open(dir.path()).unwrap().open_vault().err().unwrap();
        assert!(matches!(error, StoreError::Version { found: 2, known: FORMAT_VERSION, .. }), "{error}");
    }

    #[test]
    fn a_boot_counter_that_makes_no_sense_starts_no_node() {
        let dir = tempfile::tempdir().unwrap();
        let mut vault = make(dir.path());
        for nonsense in [&b"123"[..], &u32::MAX.to_be_bytes(), b""] {
            vault.put(BOOT, nonsense).unwrap();
            assert!(matches!(vault.next_boot(), Err(StoreError::Corrupt { .. })), "{nonsense:x?}");
        }
    }

    #[test]
    fn it_grows_in_place_and_shrinks_again() {
        let dir = tempfile::tempdir().unwrap();
        let mut vault = make(dir.path());
        for len in [1, PAD_BYTES, 10 * PAD_BYTES + 1, 100] {
            vault.put("book", &vec![7; len]).unwrap();
            drop(vault);
            let (opened, state) = open(dir.path());
            assert_eq!((opened.get("book"), state), (Some(&vec![7; len][..]), VaultState::Sound));
            vault = opened;
        }
        let refused = vault.put("book", &vec![7; BODY_BYTES_MAX]).unwrap_err();
        assert!(matches!(refused, StoreError::Io { .. }), "{refused}");
        assert_eq!(vault.get("book").map(<[u8]>::len), Some(100));
        vault.put("book", b"x").unwrap();
    }

    #[test]
    fn after_a_failed_copy_that_one_is_written_first() {
        let dir = tempfile::tempdir().unwrap();
        let mut vault = make(dir.path());
        // A file opened for reading only refuses to be written, as a bad sector would.
        let sound_b = std::mem::replace(&mut vault.files[1], File::open(dir.path().join("vault/b")).unwrap());
        assert!(vault.put("promise", b"1").is_err());
        assert_eq!((vault.sound, vault.get("promise")), ([true, false], None));
        let before = read(dir.path(), "a");
        assert!(vault.put("promise", b"2").is_err());
        assert_eq!(read(dir.path(), "a"), before, "the only sound copy is left alone while the other cannot be written");
        vault.files[1] = sound_b;
        vault.put("promise", b"3").unwrap();
        assert_eq!(vault.sound, [true; 2]);
        drop(vault);
        let (vault, state) = open(dir.path());
        assert_eq!((vault.get("promise"), state), (Some(&b"3"[..]), VaultState::Sound));
    }
}
