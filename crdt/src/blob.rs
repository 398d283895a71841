//! Blobs: pieces of data that definitions name by their hash, since a definition has no room for them.
//!
//! A blob is its content: it has no owner, no version and no place in the tree, and whoever has bytes with the right hash has the blob. So nothing of it is merged. A node
//! wants what the definitions of its topics name, takes it from any neighbour that has it (`mangrove_net`), and lets it go when nothing names it any more:
//!
//! ```text
//!   a client brings it ──▶ held, named by nothing ──(a topic is made)──▶ held and named ──(the last topic goes)──▶ held, named by nothing ──(grace)──▶ gone
//!   a definition comes ──▶ named and missing ───────(a neighbour sends it)──▶ held and named
//! ```
//!
//! A topic whose blob is missing is there like any other, but takes no values, and shows none: those that come from other nodes are carried, and judged when the blob comes
//! ([`FromBlob`]).

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    hash::{Hash, Hasher},
    str::FromStr,
    sync::{Arc, OnceLock},
};

use minicbor::{Decode, Encode};
use serde::{Serialize, Serializer};

use crate::{
    custom::Custom,
    definition::Definition,
    id::SectionId,
    persist::{Row, Table},
    protobuf::Messages,
    sabotage::{Sabotage, is},
    value::ValueError,
};

/// How long a blob is at most, in bytes: it stands in the memory of each node that holds a topic that names it.
pub const BLOB_BYTES_MAX: usize = 8 << 20;

/// How many bytes of blobs a node holds at most.
pub const HELD_BYTES_MAX: usize = 256 << 20;

/// How many blobs a node holds at most.
pub const HELD_MAX: usize = 4_096;

/// How many blobs one definition names at most.
pub const NAMED_MAX: usize = 16;

/// How many blobs that nothing names are kept at most, and how many bytes of them: those that have waited longest go first.
pub const UNNAMED_MAX: usize = 16;
const UNNAMED_BYTES_MAX: usize = 4 * BLOB_BYTES_MAX;

/// For how long a blob is kept that nothing names, in microseconds: between its upload and the topic that is made with it, or between two such topics.
pub const UNNAMED_GRACE_US: u64 = 60_000_000;

/// A blob's name: the BLAKE3 hash of its content.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct BlobHash(#[cbor(with = "minicbor::bytes")] pub [u8; 32]);

impl BlobHash {
    /// The name of the blob with this content.
    pub fn of(content: &[u8]) -> BlobHash {
        BlobHash(*blake3::hash(content).as_bytes())
    }
}

impl fmt::Display for BlobHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for BlobHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlobHash({self})")
    }
}

impl Serialize for BlobHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A text that names no blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a blob is named by 64 hexadecimal digits")]
pub struct NotABlob;

impl FromStr for BlobHash {
    type Err = NotABlob;

    fn from_str(text: &str) -> Result<Self, NotABlob> {
        blake3::Hash::from_hex(text).map(|hash| BlobHash(*hash.as_bytes())).map_err(|_| NotABlob)
    }
}

/// Why a blob is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlobError {
    /// It has more than [`BLOB_BYTES_MAX`] bytes.
    #[error("a blob has at most {BLOB_BYTES_MAX} bytes, this one has {0}")]
    TooLong(usize),
    /// There is no room.
    #[error("this node holds {count} blobs of {bytes} bytes, and may hold {HELD_MAX} of {HELD_BYTES_MAX}")]
    Full {
        /// How many blobs it holds.
        count: usize,
        /// How many bytes of them.
        bytes: usize,
    },
}

/// A blob that is here: its content, and what is made of it for all definitions that name it, so that what that costs is limited however many they are.
#[derive(Debug)]
pub struct Blob {
    content: Arc<[u8]>,
    module: OnceLock<Result<Arc<Custom>, String>>,
    messages: OnceLock<Result<Arc<Messages>, String>>,
}

impl Blob {
    /// The blob with this content.
    pub fn new(content: Arc<[u8]>) -> Blob {
        Blob { content, module: OnceLock::new(), messages: OnceLock::new() }
    }

    /// Its content.
    pub fn content(&self) -> &Arc<[u8]> {
        &self.content
    }

    /// The module that its content is.
    ///
    /// # Errors
    /// Why it is none.
    pub(crate) fn module(&self) -> Result<Arc<Custom>, String> {
        self.module.get_or_init(|| Custom::new(&self.content).map(Arc::new).map_err(|error| error.to_string())).clone()
    }

    /// The messages that its content defines.
    ///
    /// # Errors
    /// Why it is no descriptor set.
    pub(crate) fn messages(&self) -> Result<Arc<Messages>, String> {
        self.messages.get_or_init(|| Messages::new(&self.content).map(Arc::new).map_err(|error| error.to_string())).clone()
    }
}

/// What is made of a blob's content for one definition, once that is here. Two are equal if they are of the same blob.
pub struct FromBlob<T> {
    hash: BlobHash,
    /// Shared by all copies, so that it is made once.
    made: Arc<OnceLock<Result<T, String>>>,
}

impl<T> FromBlob<T> {
    /// What is to be made of this blob.
    pub fn new(hash: BlobHash) -> Self {
        FromBlob { hash, made: Arc::default() }
    }

    /// The blob.
    pub fn hash(&self) -> &BlobHash {
        &self.hash
    }

    /// A blob is here: if it is this one, and nothing was made of it before, that happens now.
    ///
    /// # Errors
    /// Why nothing can be made of it.
    pub fn supply(&self, hash: &BlobHash, content: &[u8], make: impl FnOnce(&[u8]) -> Result<T, String>) -> Result<(), String> {
        match *hash == self.hash {
            true => self.made.get_or_init(|| make(content)).as_ref().map(|_| ()).map_err(Clone::clone),
            false => Ok(()),
        }
    }

    /// What was made of it.
    ///
    /// # Errors
    /// The blob is not here, or nothing can be made of it.
    pub fn get(&self) -> Result<&T, ValueError> {
        match self.made.get() {
            Some(Ok(made)) => Ok(made),
            Some(Err(why)) => {
                Err(ValueError::Misfit { at: String::new(), why: format!("its topic's blob {} says nothing: {why}", self.hash) })
            }
            None => Err(ValueError::NotHere(self.hash)),
        }
    }
}

impl<T> Clone for FromBlob<T> {
    fn clone(&self) -> Self {
        FromBlob { hash: self.hash, made: Arc::clone(&self.made) }
    }
}

impl<T> fmt::Debug for FromBlob<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FromBlob({})", self.hash)
    }
}

impl<T> PartialEq for FromBlob<T> {
    fn eq(&self, other: &Self) -> bool {
        self.hash == other.hash
    }
}

impl<T> Eq for FromBlob<T> {}

impl<T> Hash for FromBlob<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.hash.hash(state);
    }
}

#[derive(Debug)]
struct Held {
    blob: Arc<Blob>,
    /// Since when nothing names it.
    unnamed: Option<Unnamed>,
}

#[derive(Debug)]
struct Unnamed {
    /// Its place among all that have ever been unnamed.
    place: u64,
    /// By the caller's clock, from its next word on.
    since_us: Option<u64>,
}

/// The blobs of one node: those that it holds, and those that the definitions of its topics name.
#[derive(Debug, Default)]
pub struct Blobs {
    held: BTreeMap<BlobHash, Held>,
    bytes: usize,
    /// In which sections definitions of live topics name each.
    named: BTreeMap<BlobHash, BTreeSet<SectionId>>,
    /// Named, and not held.
    missing: BTreeSet<BlobHash>,
    places: u64,
    changes: u64,
    dirty: BTreeSet<BlobHash>,
}

impl Blobs {
    /// A blob's content, if it is held.
    pub fn get(&self, hash: &BlobHash) -> Option<&Arc<[u8]>> {
        self.blob(hash).map(|blob| blob.content())
    }

    /// A blob, if it is held.
    pub(crate) fn blob(&self, hash: &BlobHash) -> Option<&Arc<Blob>> {
        self.held.get(hash).map(|held| &held.blob)
    }

    /// Whether the definition of any live topic names it.
    pub fn is_named(&self, hash: &BlobHash) -> bool {
        self.named.contains_key(hash)
    }

    /// The sections in which definitions of live topics name it.
    pub fn named_in(&self, hash: &BlobHash) -> &BTreeSet<SectionId> {
        static NONE: BTreeSet<SectionId> = BTreeSet::new();
        self.named.get(hash).unwrap_or(&NONE)
    }

    /// Whether it is named and not held.
    pub fn is_missing(&self, hash: &BlobHash) -> bool {
        self.missing.contains(hash)
    }

    /// All that are named and not held, each once: those after this one first.
    pub fn missing_after(&self, after: Option<&BlobHash>) -> impl Iterator<Item = &BlobHash> {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        let (from, upto) = after.map_or((Unbounded, None), |after| (Excluded(after), Some(after)));
        let before = upto.into_iter().flat_map(|upto| self.missing.range((Unbounded, Included(upto))));
        self.missing.range((from, Unbounded)).chain(before)
    }

    /// How often what is missing has changed.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// How many are held.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether none is held.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// How many bytes of them.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether a blob of this length would be taken.
    ///
    /// # Errors
    /// It is too long, or there is no room.
    pub fn room_for(&self, length: usize) -> Result<(), BlobError> {
        let unnamed = self.held.values().filter(|held| held.unnamed.is_some());
        let (count, bytes) =
            unnamed.fold((self.held.len(), self.bytes), |(count, bytes), held| (count - 1, bytes - held.blob.content.len()));
        match length {
            _ if length > BLOB_BYTES_MAX => Err(BlobError::TooLong(length)),
            // What nothing names makes room.
            _ if count >= HELD_MAX || bytes + length > HELD_BYTES_MAX => Err(BlobError::Full { count, bytes }),
            _ => Ok(()),
        }
    }

    /// Takes a blob in. Says whether it was not here.
    pub(crate) fn put(&mut self, hash: BlobHash, content: Arc<[u8]>) -> Result<bool, BlobError> {
        if self.held.contains_key(&hash) {
            return Ok(false);
        }
        self.room_for(content.len())?;
        self.insert(hash, content);
        self.dirty.insert(hash);
        self.let_go_beyond(&hash);
        Ok(true)
    }

    fn insert(&mut self, hash: BlobHash, content: Arc<[u8]>) {
        self.bytes += content.len();
        let unnamed = (!self.is_named(&hash)).then(|| self.next_place());
        self.held.insert(hash, Held { blob: Arc::new(Blob::new(content)), unnamed });
        self.changes += u64::from(self.missing.remove(&hash));
    }

    fn next_place(&mut self) -> Unnamed {
        self.places += 1;
        Unnamed { place: self.places, since_us: None }
    }

    /// Lets go of what nothing names beyond what may be kept, but for the one that has just come.
    fn let_go_beyond(&mut self, newest: &BlobHash) {
        loop {
            let unnamed = self.held.iter().filter_map(|(hash, held)| Some((held.unnamed.as_ref()?.place, *hash, held.blob.content.len())));
            let unnamed: Vec<(u64, BlobHash, usize)> = unnamed.collect();
            let beyond = unnamed.len() > UNNAMED_MAX
                || unnamed.iter().map(|(.., length)| length).sum::<usize>() > UNNAMED_BYTES_MAX
                || self.held.len() > HELD_MAX
                || self.bytes > HELD_BYTES_MAX;
            match unnamed.iter().filter(|(_, hash, _)| hash != newest).min().filter(|_| beyond) {
                Some((_, oldest, _)) => self.let_go(oldest),
                None => return,
            }
        }
    }

    fn let_go(&mut self, hash: &BlobHash) {
        if let Some(held) = self.held.remove(hash) {
            self.bytes -= held.blob.content.len();
            self.dirty.insert(*hash);
        }
    }

    /// Whether a section names a blob from now on.
    pub(crate) fn set_named(&mut self, hash: BlobHash, section: SectionId, named: bool) {
        if named {
            self.named.entry(hash).or_default().insert(section);
            match self.held.get_mut(&hash) {
                Some(held) => held.unnamed = None,
                None => self.changes += u64::from(self.missing.insert(hash)),
            }
            return;
        }
        let Some(sections) = self.named.get_mut(&hash) else { return };
        sections.remove(&section);
        if sections.is_empty() {
            self.named.remove(&hash);
            self.changes += u64::from(self.missing.remove(&hash));
            let unnamed = self.next_place();
            if let Some(held) = self.held.get_mut(&hash) {
                held.unnamed = Some(unnamed);
                self.let_go_beyond(&hash);
            }
        }
    }

    /// A section is held no more.
    pub(crate) fn forget_section(&mut self, section: SectionId) {
        let of_section: Vec<BlobHash> = self.named.iter().filter(|(_, of)| of.contains(&section)).map(|(hash, _)| *hash).collect();
        of_section.into_iter().for_each(|hash| self.set_named(hash, section, false));
    }

    /// Gives a definition what it names, as far as that is here.
    ///
    /// # Errors
    /// Something that it names is here, and no use to its type.
    pub fn supply(&self, definition: &Definition) -> Result<(), String> {
        let here = definition.blobs().iter().filter_map(|hash| Some((hash, self.blob(hash)?)));
        here.into_iter().try_for_each(|(hash, blob)| definition.topic_type().supply(hash, blob))
    }

    /// Time passes: what nothing has named for [`UNNAMED_GRACE_US`] is let go.
    pub(crate) fn forget(&mut self, now_us: u64) {
        let mut due = Vec::new();
        for (hash, held) in &mut self.held {
            let Some(unnamed) = &mut held.unnamed else { continue };
            let since = *unnamed.since_us.get_or_insert(now_us);
            if now_us.saturating_sub(since) >= UNNAMED_GRACE_US && !is(Sabotage::KeepsBlobs) {
                due.push(*hash);
            }
        }
        due.iter().for_each(|hash| self.let_go(hash));
    }

    pub(crate) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// What is to be stored.
    pub(crate) fn take_rows(&mut self, out: &mut Vec<Row>) {
        for hash in std::mem::take(&mut self.dirty).into_iter().filter(|_| !is(Sabotage::StoresNoBlobs)) {
            let value = self.get(&hash).map(|content| content.to_vec());
            out.push(Row { table: Table::Blobs, key: hash.0.to_vec(), value });
        }
    }

    /// Takes in a stored blob. One that is not what its name says is worth nothing, and is removed from the store: it can be had from others.
    pub(crate) fn restore(&mut self, key: &[u8], content: &[u8]) -> Result<(), &'static str> {
        let hash = BlobHash(key.try_into().map_err(|_| "not a blob's name")?);
        if BlobHash::of(content) == hash && self.room_for(content.len()).is_ok() {
            self.insert(hash, content.into());
        } else {
            tracing::warn!(%hash, "a stored blob is damaged, or one too many, and is let go");
            self.dirty.insert(hash);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: SectionId = SectionId(7);
    const T: SectionId = SectionId(8);

    fn put(blobs: &mut Blobs, content: Vec<u8>) -> BlobHash {
        let hash = BlobHash::of(&content);
        assert_eq!(blobs.put(hash, content.into()), Ok(true));
        hash
    }

    fn rows(blobs: &mut Blobs) -> Vec<(BlobHash, bool)> {
        let mut out = Vec::new();
        blobs.take_rows(&mut out);
        out.iter().map(|row| (BlobHash(row.key[..].try_into().expect("a hash")), row.value.is_some())).collect()
    }

    #[test]
    fn a_name_is_hexadecimal_and_the_hash_of_the_content() {
        let hash = BlobHash::of(b"");
        let text = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
        assert_eq!((hash.to_string().as_str(), text.parse()), (text, Ok(hash)));
        for wrong in ["", "af", &text[1..], &format!("{text}0"), &text.replace('a', "g")] {
            assert_eq!(wrong.parse::<BlobHash>(), Err(NotABlob), "{wrong}");
        }
        assert_eq!(serde_json::to_value(hash).expect("a text"), serde_json::json!(text));
        assert_eq!(minicbor::to_vec(hash).expect("bytes")[..3], [0x58, 32, 0xaf]);
    }

    #[test]
    fn what_is_named_is_wanted_and_kept_and_what_is_not_goes_after_a_grace() {
        let mut blobs = Blobs::default();
        let one = BlobHash::of(b"one");
        blobs.set_named(one, S, true);
        blobs.set_named(one, T, true);
        assert_eq!((blobs.missing_after(None).collect::<Vec<_>>(), blobs.named_in(&one).len()), (vec![&one], 2));
        assert_eq!(blobs.missing_after(Some(&one)).count(), 1, "each once");
        put(&mut blobs, b"one".to_vec());
        assert_eq!((blobs.is_missing(&one), rows(&mut blobs)), (false, vec![(one, true)]));
        blobs.forget(1);
        blobs.set_named(one, S, false);
        blobs.forget(UNNAMED_GRACE_US * 2);
        assert!(blobs.get(&one).is_some(), "another section names it");
        blobs.forget_section(T);
        blobs.forget(UNNAMED_GRACE_US * 3);
        blobs.forget(UNNAMED_GRACE_US * 4 - 1);
        assert!(blobs.get(&one).is_some() && rows(&mut blobs).is_empty(), "its grace runs from when nothing named it");
        blobs.set_named(one, S, true);
        blobs.forget(UNNAMED_GRACE_US * 5);
        blobs.set_named(one, S, false);
        blobs.forget(UNNAMED_GRACE_US * 5);
        assert!(blobs.get(&one).is_some(), "and anew each time");
        blobs.forget(UNNAMED_GRACE_US * 6);
        assert_eq!((blobs.len(), blobs.bytes(), rows(&mut blobs)), (0, 0, vec![(one, false)]));
        blobs.set_named(one, S, true);
        blobs.set_named(one, S, false);
        assert_eq!(blobs.missing_after(None).count(), 0, "nobody wants it any more");
    }

    #[test]
    fn there_is_a_bound_to_everything() {
        let mut blobs = Blobs::default();
        assert_eq!(blobs.put(BlobHash([0; 32]), vec![0; BLOB_BYTES_MAX + 1].into()), Err(BlobError::TooLong(BLOB_BYTES_MAX + 1)));
        // Of those that nothing names, so many, and so many bytes; the newest stay.
        let first = put(&mut blobs, vec![1]);
        let more: Vec<BlobHash> = (2..2 + UNNAMED_MAX as u8).map(|number| put(&mut blobs, vec![number])).collect();
        assert!(blobs.get(&first).is_none() && more.iter().all(|hash| blobs.get(hash).is_some()));
        let long: Vec<BlobHash> = (0..5).map(|number| put(&mut blobs, vec![number; BLOB_BYTES_MAX])).collect();
        assert!(blobs.get(&long[0]).is_none() && blobs.get(&long[1]).is_some(), "{} bytes", blobs.bytes());
        assert!(blobs.bytes() <= UNNAMED_BYTES_MAX);
        // Of all, so many bytes: what nothing names makes room, what is named does not.
        let many = HELD_BYTES_MAX / BLOB_BYTES_MAX;
        for number in 0..many as u8 {
            let content = vec![100 + number; BLOB_BYTES_MAX];
            blobs.set_named(BlobHash::of(&content), S, true);
            put(&mut blobs, content);
        }
        assert_eq!((blobs.len(), blobs.bytes()), (many, HELD_BYTES_MAX));
        assert_eq!(blobs.put(BlobHash([0; 32]), vec![0].into()), Err(BlobError::Full { count: many, bytes: HELD_BYTES_MAX }));
    }

    #[test]
    fn a_damaged_row_is_dropped() {
        let (mut blobs, one) = (Blobs::default(), BlobHash::of(b"one"));
        assert_eq!(blobs.restore(&one.0, b"onf"), Ok(()));
        assert_eq!((blobs.len(), rows(&mut blobs)), (0, vec![(one, false)]));
        assert_eq!(blobs.restore(&one.0, b"one"), Ok(()));
        assert_eq!((blobs.len(), rows(&mut blobs)), (1, vec![]));
        assert!(blobs.restore(b"short", b"one").is_err());
    }

    #[test]
    fn what_is_made_of_a_blob_is_made_once_for_all_copies() {
        let (hash, made) = (BlobHash::of(b"3"), FromBlob::<usize>::new(BlobHash::of(b"3")));
        let copy = made.clone();
        let make = |content: &[u8]| Ok(content.len());
        assert_eq!(copy.get(), Err(ValueError::NotHere(hash)));
        assert_eq!(made.supply(&BlobHash::of(b"4"), b"4", make), Ok(()), "of another");
        assert_eq!(copy.get(), Err(ValueError::NotHere(hash)));
        assert_eq!((made.supply(&hash, b"3", make), copy.get()), (Ok(()), Ok(&1)));
        assert_eq!((copy.supply(&hash, b"3", |_| Err("again".into())), made.get()), (Ok(()), Ok(&1)));
        let bad = FromBlob::<usize>::new(hash);
        assert_eq!(bad.supply(&hash, b"3", |_| Err("no number".into())), Err("no number".into()));
        assert!(matches!(bad.get(), Err(ValueError::Misfit { why, .. }) if why.contains("no number")));
        assert_eq!(bad, made);
    }
}
