//! A look at fjall's journals before fjall opens them.
//!
//! # Why
//!
//! To fjall whatever it cannot read at the end of a journal is a torn tail, and it cuts the file there. For a crash that is right. But a
//! flipped bit in a length or a tag, anywhere in the journal, reads the same: everything behind it, synced and acknowledged, would be
//! cut off in silence, and in a sealed journal even from the *middle* of history, which leaves a state that never was. And the
//! sequence number of a batch is under no checksum at all.
//!
//! # How
//!
//! Each of our batches carries a *commit row* ([`Commit`]): its number, how far the store was known to be synced when it was written, and
//! fjall's sequence counter just before. So a journal can be judged:
//!
//! - every batch is whole, its checksum right, its number one more than the last, its sequence number at least the counter it carries and below the next one's;
//! - where reading stops, nothing but zeros follows, or it is the last journal and what stopped it is *torn*: no later batch stands
//!   behind it that knew it to be synced;
//! - anything else is damage.
//!
//! What remains undecidable is damage to the very last batch, which looks like a batch that was being written; no journal can tell these apart
//! without a second write for each sync.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::SeekFrom;
use rustix::io::Errno;
use xxhash_rust::xxh3::Xxh3;

use super::{SEAL_BYTES, checksum};

/// The key of the commit row; no other row of the store's own table has it.
pub(super) const COMMIT_KEY: &[u8] = b"mangrove commit";

/// What each batch says about itself.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Commit {
    /// The batch's number: 1, 2, 3…
    pub number: u64,
    /// The greatest number known to be synced when the batch was written.
    pub synced: u64,
    /// fjall's sequence counter just before the batch took its own number from it.
    pub seqno_before: u64,
}

impl Commit {
    const BYTES: usize = SEAL_BYTES + 24;

    /// The commit row's value.
    pub fn encode(self) -> Vec<u8> {
        let numbers = [self.number, self.synced, self.seqno_before].map(u64::to_be_bytes).concat();
        [&checksum("store", COMMIT_KEY, &numbers)[..], &numbers].concat()
    }

    /// The commit that a row's value holds, if it is one.
    pub fn decode(value: &[u8]) -> Option<Commit> {
        let (sum, numbers) = value.split_at_checked(SEAL_BYTES)?;
        if value.len() != Commit::BYTES || sum != checksum("store", COMMIT_KEY, numbers) {
            return None;
        }
        let number = |at: usize| numbers[at..at + 8].iter().fold(0u64, |sum, &byte| sum << 8 | u64::from(byte));
        Some(Commit { number: number(0), synced: number(8), seqno_before: number(16) })
    }
}

/// What was found in sound journals.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Inspection {
    /// Whole batches.
    pub batches: u64,
    /// Bytes of a batch that was being written when the power went.
    pub torn_bytes: u64,
}

/// Why journals are not sound.
#[derive(Debug)]
pub(super) enum Fault {
    /// Damage: which file, where, what.
    Damaged(String),
    /// They could not be read.
    Io(PathBuf, io::Error),
}

/// Inspects all journals in a database's directory, oldest first, and cuts a torn tail off the last one. (fjall would cut it too, except where
/// the disk wrote the batch's end before its middle: there it would refuse to open.)
pub(super) fn inspect(dir: &Path) -> Result<Inspection, Fault> {
    let mut found = Inspection::default();
    let mut last: Option<(Commit, u64)> = None;
    let journals = journals(dir)?;
    for (at, path) in journals.iter().enumerate() {
        let is_active = at + 1 == journals.len();
        inspect_one(path, is_active, &mut last, &mut found).map_err(|fault| match fault {
            Stop::Damaged(at, what) => Fault::Damaged(format!("{}, byte {at}: {what}", path.display())),
            Stop::Io(error) => Fault::Io(path.clone(), error),
        })?;
    }
    Ok(found)
}

/// The journals' paths, oldest first.
fn journals(dir: &Path) -> Result<Vec<PathBuf>, Fault> {
    let failed = |error| Fault::Io(dir.to_path_buf(), error);
    let mut journals = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_none_or(|extension| extension != "jnl") {
            continue;
        }
        match path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse::<u64>().ok()) {
            Some(number) => journals.push((number, path)),
            None => return Err(Fault::Damaged(format!("{} is not a journal's name", path.display()))),
        }
    }
    journals.sort();
    Ok(journals.into_iter().map(|(_, path)| path).collect())
}

/// Copies each journal to a new file, synced, that takes its place. After a failed write the system may take for written what it holds in memory
/// alone: reading finds it, syncing says that all is well, and the next loss of power takes it, also from the middle. What a new file is made
/// of was never said to be written before. `aside` is where copies are made, on the same file system.
pub(super) fn write_anew(dir: &Path, aside: &Path) -> Result<(), Fault> {
    let one = |path: &Path| -> io::Result<()> {
        let mut journal = File::open(path)?;
        let used = used_len(&journal, 0)?;
        // Looking for its end has moved it.
        journal.rewind()?;
        let mut copy = File::create(aside)?;
        io::copy(&mut journal.take(used), &mut copy)?;
        copy.sync_all()?;
        fs::rename(aside, path)?;
        File::open(dir)?.sync_all()
    };
    for path in journals(dir)? {
        if let Err(error) = one(&path) {
            // It would take room where there may be none.
            let _ = fs::remove_file(aside);
            return Err(Fault::Io(path, error));
        }
    }
    Ok(())
}

enum Stop {
    Damaged(u64, String),
    Io(io::Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Stop::Io(error)
    }
}

fn inspect_one(path: &Path, is_active: bool, last: &mut Option<(Commit, u64)>, found: &mut Inspection) -> Result<(), Stop> {
    let file = File::open(path)?;
    let mut reader = JournalReader { left: file.metadata()?.len(), at: 0, input: BufReader::with_capacity(64 << 10, file) };
    loop {
        let start = reader.at;
        match reader.batch()? {
            Step::Batch { commit, seqno } => {
                check_order(*last, commit, seqno).map_err(|what| Stop::Damaged(start, what))?;
                *last = Some((commit, seqno));
                found.batches += 1;
            }
            Step::Broken(what) => {
                let rest = Rest::read(path, start)?;
                if rest.is_zero() {
                    return Ok(());
                }
                if !is_active {
                    return Err(Stop::Damaged(start, format!("{what}, in a journal that was complete")));
                }
                let number = last.map(|(commit, _)| commit.number + 1);
                if let Some(later) = rest.batch_that_knew(number) {
                    return Err(Stop::Damaged(start, format!("{what}, and batch {later} behind it knew it to be synced")));
                }
                found.torn_bytes = rest.used();
                let file = File::options().write(true).open(path)?;
                file.set_len(start)?;
                return Ok(file.sync_all()?);
            }
        }
    }
}

/// Checks a batch against the one before it.
fn check_order(last: Option<(Commit, u64)>, commit: Commit, seqno: u64) -> Result<(), String> {
    /// Between a batch and its counter fjall's own workers may take a few numbers.
    const TAKEN_MAX: u64 = 4_096;
    if seqno < commit.seqno_before || seqno > commit.seqno_before + TAKEN_MAX {
        return Err(format!("batch {} has sequence number {seqno}, the counter was at {}", commit.number, commit.seqno_before));
    }
    let Some((last, last_seqno)) = last else { return Ok(()) };
    if commit.number != last.number + 1 {
        return Err(format!("batch {} follows batch {}", commit.number, last.number));
    }
    if last_seqno >= commit.seqno_before {
        return Err(format!("batch {} has sequence number {last_seqno}, a later one began at {}", last.number, commit.seqno_before));
    }
    Ok(())
}

/// What was read next.
enum Step {
    Batch { commit: Commit, seqno: u64 },
    Broken(String),
}

/// Reads batches as fjall 3 writes them: a start (tag 1, number of entries, sequence number), entries (tag 2, or 4 for a cleared
/// table), an end (tag 3, xxh3 of the entries' bytes, four bytes of trailer); little endian.
struct JournalReader<R> {
    input: R,
    at: u64,
    left: u64,
}

const TRAILER: &[u8; 4] = b"FJL\x03";

impl<R: Read> JournalReader<R> {
    fn batch(&mut self) -> io::Result<Step> {
        match self.batch_or_what() {
            Ok(batch) => Ok(batch),
            Err(Broken::What(what)) => Ok(Step::Broken(what.into())),
            Err(Broken::Io(error)) => Err(error),
        }
    }

    fn batch_or_what(&mut self) -> Result<Step, Broken> {
        let mut hasher = Xxh3::new();
        let [tag] = self.take()?;
        if tag != 1 {
            return Err(Broken::What("no batch begins here"));
        }
        let entries = u32::from_le_bytes(self.take()?);
        let seqno = u64::from_le_bytes(self.take()?);
        let mut commit = None;
        let mut buffer = Vec::new();
        for _ in 0..entries {
            let [tag] = self.take()?;
            hasher.update(&[tag]);
            match tag {
                2 => commit = self.item(&mut hasher, &mut buffer)?.or(commit),
                4 => hasher.update(&self.take::<8>()?),
                _ => return Err(Broken::What("an entry has an unknown tag")),
            }
        }
        let [tag] = self.take()?;
        if tag != 3 {
            return Err(Broken::What("a batch does not end where it should"));
        }
        let sum = u64::from_le_bytes(self.take()?);
        if &self.take()? != TRAILER {
            return Err(Broken::What("a batch's trailer is wrong"));
        }
        if sum != hasher.digest() {
            return Err(Broken::What("a batch's checksum is wrong"));
        }
        match commit {
            Some(commit) => Ok(Step::Batch { commit, seqno }),
            None => Err(Broken::What("a batch has no commit row")),
        }
    }

    /// Reads one item after its tag; gives the commit if it is the commit row.
    fn item(&mut self, hasher: &mut Xxh3, buffer: &mut Vec<u8>) -> Result<Option<Commit>, Broken> {
        // Value type, compression, table, length of key, of value, of value as stored.
        let header = self.take::<{ 1 + 1 + 8 + 2 + 4 + 4 }>()?;
        hasher.update(&header);
        let key_len = usize::from(u16::from_le_bytes([header[10], header[11]]));
        let stored_len = u32::from_le_bytes([header[16], header[17], header[18], header[19]]);
        self.fill(buffer, key_len as u64)?;
        hasher.update(buffer);
        let is_commit = buffer == COMMIT_KEY;
        self.fill(buffer, u64::from(stored_len))?;
        hasher.update(buffer);
        Ok(is_commit.then(|| Commit::decode(buffer)).flatten())
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Broken> {
        let mut bytes = [0; N];
        self.claim(N as u64)?;
        self.input.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Reads `len` bytes in place of what `buffer` holds. What the file does not have is not asked for, so a damaged length costs no memory.
    fn fill(&mut self, buffer: &mut Vec<u8>, len: u64) -> Result<(), Broken> {
        self.claim(len)?;
        buffer.resize(len as usize, 0);
        self.input.read_exact(buffer)?;
        Ok(())
    }

    fn claim(&mut self, len: u64) -> Result<(), Broken> {
        let Some(left) = self.left.checked_sub(len) else { return Err(Broken::What("the journal ends within a batch")) };
        self.left = left;
        self.at += len;
        Ok(())
    }
}

enum Broken {
    What(&'static str),
    Io(io::Error),
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => Broken::What("the journal ends within a batch"),
            _ => Broken::Io(error),
        }
    }
}

/// Where the last byte that is not zero ends, at or after `from`.
fn used_len(file: &File, from: u64) -> io::Result<u64> {
    const CHUNK_BYTES: usize = 64 << 10;
    let (mut used, mut at) = (from, from);
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        // Holes are skipped where the file system knows of them; elsewhere all is data.
        at = match rustix::fs::seek(file, SeekFrom::Data(at)) {
            Ok(data) => data,
            Err(Errno::NXIO) => return Ok(used),
            Err(Errno::INVAL | Errno::OPNOTSUPP) => at,
            Err(error) => return Err(error.into()),
        };
        let len = file.read_at(&mut chunk, at)?;
        if len == 0 {
            return Ok(used);
        }
        if let Some(last) = chunk[..len].iter().rposition(|&byte| byte != 0) {
            used = at + last as u64 + 1;
        }
        at += len as u64;
    }
}

/// What a journal holds from where reading stopped.
struct Rest(Vec<u8>);

impl Rest {
    fn read(path: &Path, from: u64) -> io::Result<Rest> {
        let file = File::open(path)?;
        // fjall sets a journal's length 64 MiB ahead of what it writes: the zeros at the end are no content.
        let used = used_len(&file, from)?;
        let mut bytes = vec![0; (used - from) as usize];
        file.read_exact_at(&mut bytes, from)?;
        Ok(Rest(bytes))
    }

    fn is_zero(&self) -> bool {
        self.0.is_empty()
    }

    fn used(&self) -> u64 {
        self.0.len() as u64
    }

    /// A whole batch further on that was written when batch `number`, with which reading stopped, was known to be synced. Where the
    /// number is unknown, for want of a batch before it, that of the batch just before the first whole one will do: it lies in what could not be read.
    fn batch_that_knew(&self, number: Option<u64>) -> Option<u64> {
        const START_BYTES: usize = 1 + 4 + 8;
        // Found by how they begin: the end of the one before may be the very thing that is damaged. The first byte begins the one that stopped us.
        let starts = self.0.windows(START_BYTES + 1).enumerate().skip(1).filter(|(_, start)| start[0] == 1 && start[START_BYTES] == 2);
        let mut wanted = number;
        for (at, _) in starts {
            let bytes = &self.0[at..];
            let mut reader = JournalReader { input: bytes, at: 0, left: bytes.len() as u64 };
            let Ok(Step::Batch { commit, .. }) = reader.batch() else { continue };
            if commit.synced >= *wanted.get_or_insert(commit.number.saturating_sub(1).max(1)) {
                return Some(commit.number);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const END_BYTES: usize = 1 + 8 + TRAILER.len();

    /// A batch as fjall writes it.
    fn batch(seqno: u64, commit: Commit, value: &[u8]) -> Vec<u8> {
        let item = |key: &[u8], value: &[u8]| {
            let mut bytes = vec![2, 0, 0];
            bytes.extend(1u64.to_le_bytes());
            bytes.extend((key.len() as u16).to_le_bytes());
            bytes.extend([(value.len() as u32).to_le_bytes(), (value.len() as u32).to_le_bytes()].concat());
            [&bytes[..], key, value].concat()
        };
        let items = [item(b"key", value), item(COMMIT_KEY, &commit.encode())].concat();
        let sum = xxhash_rust::xxh3::xxh3_64(&items);
        [&[1][..], &2u32.to_le_bytes(), &seqno.to_le_bytes(), &items, &[3], &sum.to_le_bytes(), TRAILER].concat()
    }

    /// Batch number `n` of a store that syncs each.
    fn synced(n: u64) -> Vec<u8> {
        batch(10 * n, Commit { number: n, synced: n - 1, seqno_before: 10 * n }, b"value")
    }

    /// Batch number `n` of a store that synced the first three.
    fn buffered(n: u64) -> Vec<u8> {
        batch(10 * n, Commit { number: n, synced: 3, seqno_before: 10 * n }, b"value")
    }

    fn look(journals: &[Vec<u8>]) -> Result<Inspection, String> {
        let dir = tempfile::tempdir().unwrap();
        for (number, bytes) in journals.iter().enumerate() {
            fs::write(dir.path().join(format!("{}.jnl", number + 8)), bytes).unwrap();
        }
        inspect(dir.path()).map_err(|fault| match fault {
            Fault::Damaged(what) => what.rsplit_once(": ").unwrap().1.to_owned(),
            Fault::Io(path, error) => panic!("{}: {error}", path.display()),
        })
    }

    #[test]
    fn what_is_written_anew_is_the_same() {
        let dir = tempfile::tempdir().unwrap();
        // With a hole, so that looking for data skips something.
        let content = [synced(1), vec![0; 200_000], synced(2), vec![0; 500]].concat();
        let journal = dir.path().join("8.jnl");
        fs::write(&journal, &content[..synced(1).len()]).unwrap();
        let file = File::options().write(true).open(&journal).unwrap();
        file.set_len(content.len() as u64).unwrap();
        file.write_all_at(&synced(2), (content.len() - 500 - synced(2).len()) as u64).unwrap();
        assert!(write_anew(dir.path(), &dir.path().join("aside")).is_ok());
        assert_eq!(fs::read(&journal).unwrap(), content[..content.len() - 500]);
        assert!(!dir.path().join("aside").exists());
    }

    #[test]
    fn whole_journals_are_sound_with_zeros_behind_them() {
        let first = [synced(1), synced(2), vec![0; 100_000]].concat();
        let second = [synced(3), synced(4), vec![0; 100_000]].concat();
        assert_eq!(look(&[first, second]), Ok(Inspection { batches: 4, torn_bytes: 0 }));
        assert_eq!(look(&[Vec::new()]), Ok(Inspection::default()));
        assert_eq!(look(&[]), Ok(Inspection::default()));
    }

    #[test]
    fn names_are_compared_as_numbers() {
        // 9.jnl comes before 10.jnl.
        let journals = [vec![synced(1)], vec![synced(2)], vec![synced(3)]].map(|batches| batches.concat());
        assert_eq!(look(&journals), Ok(Inspection { batches: 3, torn_bytes: 0 }));
    }

    #[test]
    fn what_was_being_written_is_torn_at_any_byte() {
        let last = synced(3);
        for cut in 1..last.len() {
            let bytes = [&synced(1)[..], &synced(2), &last[..cut], &[0; 500]].concat();
            let torn = last[..cut].iter().rposition(|&byte| byte != 0).unwrap() as u64 + 1;
            assert_eq!(look(&[bytes]), Ok(Inspection { batches: 2, torn_bytes: torn }), "cut at {cut}");
        }
    }

    #[test]
    fn a_journal_that_is_not_the_last_cannot_be_torn() {
        let bytes = [&synced(1)[..], &synced(2)[..20]].concat();
        assert_eq!(look(&[bytes, synced(3)]), Err("the journal ends within a batch, in a journal that was complete".into()));
        assert_eq!(look(&[synced(1), synced(3)]), Err("batch 3 follows batch 1".into()));
    }

    #[test]
    fn every_flipped_bit_of_a_batch_known_to_be_synced_is_damage() {
        let sound = [synced(1), synced(2), synced(3)];
        let [first, second] = [sound[0].len(), sound[1].len()];
        for bit in 0..(first + second) * 8 {
            let mut bytes = sound.concat();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let found = look(&[bytes]);
            // A sequence number may rise a little and still be in order, which is the same history.
            let in_seqno = |batch: usize| (batch + 5..batch + 13).contains(&(bit / 8));
            let is_harmless = (in_seqno(0) || in_seqno(first)) && found == Ok(Inspection { batches: 3, torn_bytes: 0 });
            assert!(found.is_err() || is_harmless, "bit {bit}: {found:?}");
        }
    }

    #[test]
    fn a_hole_among_batches_that_nobody_knew_synced_is_torn() {
        let mut bytes = [synced(1), synced(2), synced(3), buffered(4), buffered(5), buffered(6)].concat();
        let at = synced(1).len() * 3 + 40;
        bytes[at..at + 20].fill(0);
        let torn = (bytes.len() - synced(1).len() * 3) as u64;
        assert_eq!(look(&[bytes.clone()]), Ok(Inspection { batches: 3, torn_bytes: torn }));
        // One later batch that knew changes that.
        bytes.extend(synced(7));
        assert_eq!(look(&[bytes]), Err("an entry has an unknown tag, and batch 7 behind it knew it to be synced".into()));
    }

    #[test]
    fn damage_to_the_first_batch_of_all_is_found_by_what_follows() {
        let mut bytes = [synced(7), synced(8), synced(9)].concat();
        bytes[30] ^= 1;
        // Batch 8 knew 7 to be synced.
        assert!(look(&[bytes]).is_err());
        let mut bytes = [buffered(7), buffered(8)].concat();
        bytes[30] ^= 1;
        assert_eq!(look(&[bytes]).map(|found| found.batches), Ok(0));
    }

    #[test]
    fn a_batch_of_someone_else_is_no_batch_of_ours() {
        let mut foreign = batch(10, Commit { number: 1, synced: 0, seqno_before: 10 }, b"x");
        let at = foreign.windows(COMMIT_KEY.len()).position(|bytes| bytes == COMMIT_KEY).unwrap();
        foreign[at] = b'M';
        let items = foreign.len() - END_BYTES;
        let sum = xxhash_rust::xxh3::xxh3_64(&foreign[13..items]);
        foreign[items + 1..items + 9].copy_from_slice(&sum.to_le_bytes());
        assert_eq!(
            look(&[[foreign, synced(2), synced(3)].concat()]),
            Err("a batch has no commit row, and batch 2 behind it knew it to be synced".into())
        );
    }

    #[test]
    fn arbitrary_bytes_are_torn_or_damaged_and_never_a_panic() {
        let mut word = 5u64;
        for round in 0..200 {
            let mut bytes = [synced(1), synced(2), synced(3), synced(4)].concat();
            for _ in 0..=round % 7 {
                word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let at = (word >> 33) as usize % bytes.len();
                bytes[at] = (word >> 24) as u8;
            }
            bytes.truncate(bytes.len() - (word >> 40) as usize % 50);
            let _ = look(&[bytes]);
        }
    }
}
