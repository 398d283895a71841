//! One automerge document, held to what the tree plane needs: a few flat maps from names to bytes.
//!
//! Automerge brings causality, joining and history. What it must not do here, this wrapper takes away:
//!
//! - *Maps that hide each other.* Two nodes that each create a map under one name have two maps, and one is not seen. So
//!   the maps are made by a genesis change, which is the same bytes on every node.
//! - *Actors drawn at random.* The actor is always set, and is an [`Origin`]: an actor that numbered two different changes alike
//!   would be refused for ever by whoever has heard the first.
//! - *A queue of changes that wait for others.* A change whose dependencies are missing is refused, and comes again by its feed.
//! - *Writes that vanish.* Putting what is there already makes no operation in automerge, so it does not survive a concurrent
//!   removal. See [`Edit::put`].
//! - *Trust.* A change from elsewhere is checked before automerge sees it: its size ([`crate::chunk`]), that it follows its
//!   actor's last, and that each operation puts bytes to, or removes, a key of one of the maps. What a key or its bytes *mean* is judged by
//!   who reads them: an entry that does not parse is as if it were not there, on every node alike.
//!
//! Changes carry no text, and no time but what their maker's clock showed, for people who ask what has become of a key ([`Document::past`]): nothing is ordered or judged by
//! it. The genesis has none. So what a document holds is a function of what was done to it. Documents with the same changes have equal heads, though not always equal bytes.

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::{AssertUnwindSafe, catch_unwind},
};

use automerge::{
    ActorId, Automerge, Change, ChangeHash, LoadOptions, ObjId, ObjType, ROOT, ReadDoc, ScalarValue, ScalarValueRef, Value, ValueRef,
    transaction::{CommitOptions, Transactable, Transaction},
};

use crate::{
    chunk::{Operation, is_sound_change, is_sound_document, operations},
    id::Origin,
};

/// How long a key of a map is at most, in bytes.
pub const KEY_BYTES_MAX: usize = 2048;

/// How long the bytes of an entry are at most.
pub const ENTRY_BYTES_MAX: usize = 8192;

/// The latest time that a change may have, in seconds since 1970: the end of the year 9999.
const TIME_S_MAX: u64 = 253_402_300_799;

/// How many of the things that were done to a key [`Document::past`] tells: as many as a `u128` has bits, at most.
pub const PAST_MAX: usize = 100;

/// Why a change or a saved document was refused. The document is as it was before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// Changes that it builds on have not come yet: try again after them.
    #[error("the change builds on others that have not come yet")]
    MissingDeps,
    /// The bytes are not a change or document, or not one within limits.
    #[error("not a sound automerge {0}")]
    Unsound(&'static str),
    /// It starts from another genesis: it belongs to another kind of document.
    #[error("it is no document of this kind")]
    Foreign,
    /// The same actor has made another change with this number: two runs of a node share one incarnation, or somebody lies.
    #[error("{0} has made another change with the number {1}")]
    DuplicateSeq(Origin, u64),
    /// The change does what no node does; the text says what.
    #[error("a change that no node makes: {0}")]
    Forbidden(&'static str),
}

/// How all documents of a kind begin.
pub(crate) struct Genesis {
    document: Automerge,
    hash: ChangeHash,
    actor: ActorId,
    maps: Vec<ObjId>,
}

impl Genesis {
    /// The beginning of documents with the given maps. `name` and `maps` are part of the data format: to change either is to
    /// make another kind of document.
    pub fn new(name: &str, maps: &[&str]) -> Genesis {
        let actor = ActorId::from(name.as_bytes());
        let mut document = Automerge::new().with_actor(actor.clone());
        let mut transaction = document.transaction();
        let maps = maps.iter().map(|map| transaction.put_object(ROOT, *map, ObjType::Map)).collect::<Result<_, _>>();
        let (hash, _) = transaction.commit_with(CommitOptions::default().with_time(0));
        let maps = maps.expect("the root is a map and takes maps");
        let hash = hash.expect("a genesis has at least one map");
        Genesis { document, hash, actor, maps }
    }

    /// The actor of the change that every such document begins with.
    pub fn actor_bytes(&self) -> &[u8] {
        self.actor.to_bytes()
    }

    /// How many maps such a document has.
    pub fn map_count(&self) -> usize {
        self.maps.len()
    }
}

/// What is known of an actor's changes.
#[derive(Clone, Copy, Debug, Default)]
struct Last {
    seq: u64,
    max_op: u64,
}

/// A map of a document: its place among the genesis' maps.
pub(crate) type MapIndex = usize;

/// A key of one of the maps.
pub(crate) type Key = (MapIndex, String);

/// A value that a map has for a key, and whose it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    pub bytes: Vec<u8>,
    pub origin: Origin,
}

/// Something that was done to a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Deed {
    /// Who did it.
    pub origin: Origin,
    /// When, by their clock, in seconds since 1970; 0 if they did not say.
    pub time_s: u64,
    /// The bytes put; `None` for a removal.
    pub put: Option<Vec<u8>>,
    /// Whether something else that is told was done by somebody who did not know of this, and whoever did this did not know of that.
    pub concurrent: bool,
}

/// See the module.
#[derive(Clone)]
pub(crate) struct Document {
    automerge: Automerge,
    genesis: &'static Genesis,
    last: BTreeMap<Origin, Last>,
    max_op: u64,
}

impl Document {
    /// A document with nothing in it.
    pub fn new(genesis: &'static Genesis) -> Document {
        Document { automerge: genesis.document.clone(), genesis, last: BTreeMap::new(), max_op: genesis.maps.len() as u64 }
    }

    /// A document that this node saved.
    pub fn load(genesis: &'static Genesis, saved: &[u8]) -> Result<Document, DocumentError> {
        let automerge = load(saved)?;
        let mut document = Document { automerge, genesis, last: BTreeMap::new(), max_op: 0 };
        if !document.has(&genesis.hash) {
            return Err(DocumentError::Foreign);
        }
        for change in document.automerge.get_changes_meta(&[]) {
            document.max_op = document.max_op.max(change.max_op);
            let Some(origin) = Origin::from_bytes(change.actor.to_bytes()) else { continue };
            let last = document.last.entry(origin).or_default();
            if change.seq != last.seq + 1 {
                return Err(DocumentError::Unsound("document"));
            }
            *last = Last { seq: last.seq.max(change.seq), max_op: last.max_op.max(change.max_op) };
        }
        Ok(document)
    }

    /// The whole document, with its history. Not compressed.
    pub fn save(&self) -> Vec<u8> {
        self.automerge.save_nocompress()
    }

    /// The hashes of the changes that no other follows, sorted: equal exactly where documents are.
    pub fn heads(&self) -> Vec<[u8; 32]> {
        let mut heads: Vec<_> = self.automerge.get_heads().into_iter().map(|hash| hash.0).collect();
        heads.sort_unstable();
        heads
    }

    /// Whether the change with this hash is in the document.
    pub fn has_change(&self, hash: &[u8; 32]) -> bool {
        self.has(&ChangeHash(*hash))
    }

    /// Makes one change, at so many seconds since 1970, or 0 if that need not be known. Returns its bytes, or `None` where `edit` did nothing.
    pub fn commit(&mut self, origin: Origin, time_s: u64, edit: impl FnOnce(&mut Edit<'_>)) -> Option<Vec<u8>> {
        self.automerge.set_actor(actor(&origin));
        let (hash, _) = {
            let mut open = Edit { transaction: self.automerge.transaction(), maps: &self.genesis.maps };
            edit(&mut open);
            open.transaction.commit_with(CommitOptions::default().with_time(time_s.min(TIME_S_MAX) as i64))
        };
        let change = self.automerge.get_change_by_hash(&hash?)?;
        self.note(origin, &change);
        debug_assert!(is_sound_change(change.raw_bytes()), "peers would refuse this node's own change");
        Some(change.raw_bytes().to_vec())
    }

    /// Applies changes, all or none. Those that are in the document already do nothing. Returns the keys that the others put or
    /// removed.
    pub fn apply(&mut self, changes: &[&[u8]]) -> Result<BTreeSet<Key>, DocumentError> {
        let mut staged = Vec::with_capacity(changes.len());
        for bytes in changes {
            let sound = is_sound_change(bytes).then(|| Change::try_from(*bytes).ok()).flatten();
            // Automerge reads a checksum and does not look at it. Damage would pass for another change.
            let whole = sound.filter(|change| bytes.get(4..8) == Some(&change.hash().0[..4]));
            staged.push(whole.ok_or(DocumentError::Unsound("change"))?);
        }
        let judged = self.judge(staged, Spelling::Foreign)?;
        self.take(judged)
    }

    /// Joins a peer's document into this one. Returns the keys that the changes it brought put or removed.
    pub fn merge(&mut self, saved: &[u8]) -> Result<BTreeSet<Key>, DocumentError> {
        if !is_sound_document(saved) {
            return Err(DocumentError::Unsound("document"));
        }
        let other = load(saved)?;
        if !other.get_missing_deps(&[self.genesis.hash]).is_empty() {
            return Err(DocumentError::Foreign);
        }
        // In causal order, so that each may be judged by those before it.
        let changes = history(&other)?.into_iter().filter(|change| !self.has(&change.hash())).collect();
        let judged = self.judge(changes, Spelling::Automerge).map_err(|error| match error {
            // A document holds whatever its changes build on.
            DocumentError::MissingDeps => DocumentError::Unsound("document"),
            error => error,
        })?;
        match self.last.is_empty() {
            // Nothing here to join it with: taking it as it is spares applying a whole history again.
            true => Ok(self.replace(other, judged)),
            false => self.take(judged),
        }
    }

    /// All values of a key: the one that stands, then those that lost to it while concurrent.
    pub fn get(&self, map: MapIndex, key: &str) -> Vec<Entry> {
        // Automerge lists them in the order in which they win, the winner last.
        let entries = self.automerge.get_all(&self.genesis.maps[map], key).unwrap_or_default();
        entries.into_iter().rev().filter_map(|(value, id)| entry(&value, &id)).collect()
    }

    /// All keys of a map, in order, each with its values, the one that stands first.
    pub fn entries(&self, map: MapIndex) -> impl Iterator<Item = (String, Vec<Entry>)> + '_ {
        self.automerge.map_range(&self.genesis.maps[map], ..).map(move |item| {
            let entries = match (&item.value, item.id()) {
                (ValueRef::Scalar(ScalarValueRef::Bytes(bytes)), ObjId::Id(_, actor, _)) if !item.conflict => {
                    let origin = Origin::from_bytes(actor.to_bytes());
                    origin.map(|origin| Entry { bytes: bytes.to_vec(), origin }).into_iter().collect()
                }
                _ => self.get(map, &item.key),
            };
            (item.key.into_owned(), entries)
        })
    }

    /// What was done to a key, the newest last: in an order that is the same on every node, and has everything after what its maker knew of. The last [`PAST_MAX`], and
    /// whether there was more. Goes through the whole history.
    pub fn past(&self, map: MapIndex, key: &str) -> (Vec<Deed>, bool) {
        // What a peer's document holds that was taken as it came is not known before it is read.
        let changes = history(&self.automerge).unwrap_or_default();
        let mut deeds: BTreeMap<(u64, ActorId), (ChangeHash, Deed)> = BTreeMap::new();
        let mut cut = false;
        for change in &changes {
            let Some(origin) = Origin::from_bytes(change.actor_id().to_bytes()) else { continue };
            let time_s = u64::try_from(change.timestamp()).ok().filter(|time_s| *time_s <= TIME_S_MAX).unwrap_or(0);
            let operations = operations(change.raw_bytes()).unwrap_or_default();
            for (place, operation) in operations.into_iter().enumerate() {
                if operation.key == key && operation.object == map as u64 + 1 {
                    let number = change.start_op().get().saturating_add(place as u64);
                    let deed = Deed { origin, time_s, put: operation.put.map(<[u8]>::to_vec), concurrent: false };
                    deeds.insert((number, change.actor_id().clone()), (change.hash(), deed));
                    cut |= deeds.len() > PAST_MAX && deeds.pop_first().is_some();
                }
            }
        }
        // For each change the deeds that it knew of, its own among them.
        let mut own: BTreeMap<ChangeHash, u128> = BTreeMap::new();
        deeds.values().enumerate().for_each(|(at, (change, _))| *own.entry(*change).or_default() |= 1 << at);
        let mut known: BTreeMap<ChangeHash, u128> = BTreeMap::new();
        for change in &changes {
            let of_others = change.deps().iter().filter_map(|hash| known.get(hash)).fold(0, |all, of| all | of);
            known.insert(change.hash(), of_others | own.get(&change.hash()).unwrap_or(&0));
        }
        let known: Vec<u128> = deeds.values().map(|(change, _)| known[change]).collect();
        let mut deeds: Vec<Deed> = deeds.into_values().map(|(_, deed)| deed).collect();
        for (earlier, later) in (0..deeds.len()).flat_map(|later| (0..later).map(move |earlier| (earlier, later))) {
            if known[later] & 1 << earlier == 0 {
                deeds[earlier].concurrent = true;
                deeds[later].concurrent = true;
            }
        }
        (deeds, cut)
    }

    fn judge(&self, changes: Vec<Change>, spelling: Spelling) -> Result<Judged, DocumentError> {
        let (seen, last, puts, touched) = Default::default();
        let mut judge = Judge { document: self, seen, last, max_op: self.max_op, puts, touched };
        let mut fresh = Vec::with_capacity(changes.len());
        for change in changes {
            if judge.take(&change, spelling)? {
                fresh.push(change);
            }
        }
        let Judge { last, max_op, touched, .. } = judge;
        Ok(Judged { fresh, last, max_op, touched })
    }

    fn take(&mut self, judged: Judged) -> Result<BTreeSet<Key>, DocumentError> {
        if !judged.fresh.is_empty() {
            self.automerge.apply_changes(judged.fresh).map_err(|_| DocumentError::Forbidden("automerge refuses it"))?;
            self.last.extend(judged.last);
            self.max_op = judged.max_op;
        }
        Ok(judged.touched)
    }

    fn replace(&mut self, automerge: Automerge, judged: Judged) -> BTreeSet<Key> {
        *self = Document { automerge, genesis: self.genesis, last: judged.last, max_op: judged.max_op };
        judged.touched
    }

    fn note(&mut self, origin: Origin, change: &Change) {
        self.last.insert(origin, Last { seq: change.seq(), max_op: change.max_op() });
        self.max_op = self.max_op.max(change.max_op());
    }

    /// Whether an operation, perhaps overtaken since, put something under a key.
    fn has_put(&self, key: &Key, number: u64, actor: &ActorId) -> bool {
        let hash = self.automerge.hash_for_opid(&ObjId::Id(number, actor.clone(), 0));
        let Some(change) = hash.and_then(|hash| self.automerge.get_change_by_hash(&hash)) else { return false };
        let operations = operations(change.raw_bytes()).unwrap_or_default();
        let place = number.checked_sub(change.start_op().get()).and_then(|place| usize::try_from(place).ok());
        let operation = place.and_then(|place| operations.get(place));
        // The maps' own numbers are their places, counted from 1.
        operation.is_some_and(|put| put.put.is_some() && put.key == key.1 && put.object == key.0 as u64 + 1)
    }

    fn has(&self, hash: &ChangeHash) -> bool {
        // No change is ever queued, so what is not missing is applied.
        self.automerge.get_missing_deps(&[*hash]).is_empty()
    }
}

impl std::fmt::Debug for Document {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Document").field("heads", &self.automerge.get_heads()).finish_non_exhaustive()
    }
}

/// A change being made.
pub(crate) struct Edit<'a> {
    transaction: Transaction<'a>,
    maps: &'a [ObjId],
}

impl Edit<'_> {
    /// Puts bytes under a key, over all that the key has.
    ///
    /// If the same bytes stand there already, nothing is put, and a concurrent removal removes them: who wants a put that
    /// survives puts other bytes, or removes first.
    pub fn put(&mut self, map: MapIndex, key: &str, bytes: Vec<u8>) {
        debug_assert!(key.len() <= KEY_BYTES_MAX && bytes.len() <= ENTRY_BYTES_MAX, "peers would refuse this");
        let put = self.transaction.put(&self.maps[map], key, ScalarValue::Bytes(bytes));
        debug_assert!(put.is_ok(), "a map takes any key");
    }

    /// Removes a key with all values that this node sees. Does nothing to a key that isn't there.
    pub fn remove(&mut self, map: MapIndex, key: &str) {
        let removed = self.transaction.delete(&self.maps[map], key);
        debug_assert!(removed.is_ok(), "a map lets any key go");
    }
}

/// The bytes of an entry.
pub(crate) fn encoded(value: &impl minicbor::Encode<()>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let written = minicbor::encode(value, &mut bytes);
    debug_assert!(written.is_ok(), "a vector takes any write");
    bytes
}

/// Who has written the bytes of a change.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Spelling {
    /// Whoever made it: bytes from a link.
    Foreign,
    /// This node's automerge, from a document that it has read.
    Automerge,
}

/// Changes that may be taken in.
struct Judged {
    fresh: Vec<Change>,
    last: BTreeMap<Origin, Last>,
    max_op: u64,
    touched: BTreeSet<Key>,
}

/// Judges changes one after the other, each as if those before it had been applied.
struct Judge<'a> {
    document: &'a Document,
    seen: BTreeSet<ChangeHash>,
    last: BTreeMap<Origin, Last>,
    max_op: u64,
    /// What the changes judged so far put, by operation.
    puts: BTreeMap<(ActorId, u64), Key>,
    touched: BTreeSet<Key>,
}

impl Judge<'_> {
    /// Whether the change is new; an error if it is not one that a node makes.
    fn take(&mut self, change: &Change, spelling: Spelling) -> Result<bool, DocumentError> {
        if self.has(&change.hash()) {
            return Ok(false);
        }
        if !change.deps().iter().all(|hash| self.has(hash)) {
            return Err(DocumentError::MissingDeps);
        }
        let origin = self.follows(change)?;
        self.actors_are_known(change, &origin)?;
        // Saving keeps operations, not bytes: a change in any other spelling would come back as another change, and the document
        // with it would never load again.
        if spelling == Spelling::Foreign && Change::from(change.decode()).raw_bytes() != change.raw_bytes() {
            return Err(DocumentError::Forbidden("it is not encoded as automerge encodes it"));
        }
        let operations = operations(change.raw_bytes()).ok_or(DocumentError::Forbidden("not only puts of bytes and removals"))?;
        for (number, operation) in (change.start_op().get()..).zip(&operations) {
            let key = self.key(change, operation)?;
            self.overtakes(change, &key, operation)?;
            if operation.put.is_some() {
                self.puts.insert((change.actor_id().clone(), number), key.clone());
            }
            self.touched.insert(key);
        }
        self.seen.insert(change.hash());
        self.last.insert(origin, Last { seq: change.seq(), max_op: change.max_op() });
        self.max_op = self.max_op.max(change.max_op());
        Ok(true)
    }

    fn has(&self, hash: &ChangeHash) -> bool {
        self.seen.contains(hash) || self.document.has(hash)
    }

    /// The change's origin, if the change comes after everything that it should.
    fn follows(&self, change: &Change) -> Result<Origin, DocumentError> {
        use DocumentError::Forbidden;
        let origin = Origin::from_bytes(change.actor_id().to_bytes()).ok_or(Forbidden("its actor is no origin"))?;
        let last = self.last(&origin).unwrap_or_default();
        if change.seq() <= last.seq {
            return Err(DocumentError::DuplicateSeq(origin, change.seq()));
        }
        if change.seq() != last.seq + 1 {
            return Err(Forbidden("it does not depend on its actor's last"));
        }
        if change.deps().is_empty() {
            return Err(DocumentError::Foreign);
        }
        if change.message().is_some() || !change.extra_bytes().is_empty() {
            return Err(Forbidden("it has a text, or something added"));
        }
        if !u64::try_from(change.timestamp()).is_ok_and(|time_s| time_s <= TIME_S_MAX) {
            return Err(Forbidden("its time is beyond all measure"));
        }
        let first_op = change.start_op().get();
        if change.is_empty() || first_op <= last.max_op || first_op > self.max_op + 1 {
            return Err(Forbidden("its operations are not numbered on"));
        }
        Ok(origin)
    }

    /// Automerge looks up all actors that a change names, and takes it that they are there.
    fn actors_are_known(&self, change: &Change, own: &Origin) -> Result<(), DocumentError> {
        let known = |actor: &ActorId| {
            let origin = Origin::from_bytes(actor.to_bytes());
            *actor == self.document.genesis.actor || origin.is_some_and(|origin| origin != *own && self.last(&origin).is_some())
        };
        match change.other_actor_ids().iter().all(known) {
            true => Ok(()),
            false => Err(DocumentError::Forbidden("it names an actor that it has not heard of")),
        }
    }

    /// The key that an operation is about, if it is a key of one of the maps.
    fn key(&self, change: &Change, operation: &Operation<'_>) -> Result<Key, DocumentError> {
        use DocumentError::Forbidden;
        if operation.key.len() > KEY_BYTES_MAX || operation.put.is_some_and(|bytes| bytes.len() > ENTRY_BYTES_MAX) {
            return Err(Forbidden("a key or the bytes under it are too long"));
        }
        let of_others = operation.object_actor.checked_sub(1).and_then(|place| usize::try_from(place).ok());
        let maker = of_others.and_then(|place| change.other_actor_ids().get(place));
        let map = operation.object.checked_sub(1).and_then(|place| usize::try_from(place).ok());
        match map {
            Some(map) if map < self.document.genesis.maps.len() && maker == Some(&self.document.genesis.actor) => {
                Ok((map, operation.key.to_owned()))
            }
            _ => Err(Forbidden("it writes outside the document's maps")),
        }
    }

    /// Checks that what an operation overtakes are puts under its own key. Automerge would take others for true, though
    /// not on every node, and would lose them in saving.
    fn overtakes(&self, change: &Change, key: &Key, operation: &Operation<'_>) -> Result<(), DocumentError> {
        use DocumentError::Forbidden;
        if operation.put.is_none() && operation.overtakes.is_empty() {
            return Err(Forbidden("it removes nothing"));
        }
        let mut overtaken = Vec::with_capacity(operation.overtakes.len());
        for (place, number) in &operation.overtakes {
            let actor = change.actors().nth(usize::try_from(*place).unwrap_or(usize::MAX));
            overtaken.push((*number, actor.ok_or(Forbidden("it names an actor that it does not list"))?));
        }
        if !overtaken.is_sorted_by(|one, next| one < next) {
            return Err(Forbidden("it overtakes something twice"));
        }
        match overtaken.is_empty() || self.are_puts(key, &overtaken) {
            true => Ok(()),
            false => Err(Forbidden("it overtakes what was never put there")),
        }
    }

    fn are_puts(&self, key: &Key, overtaken: &[(u64, &ActorId)]) -> bool {
        let standing = self.document.automerge.get_all(&self.document.genesis.maps[key.0], &key.1).unwrap_or_default();
        overtaken.iter().all(|(number, actor)| {
            let stands = standing.iter().any(|(_, id)| matches!(id, ObjId::Id(at, by, _) if at == number && by == *actor));
            stands || self.puts.get(&((*actor).clone(), *number)) == Some(key) || self.document.has_put(key, *number, actor)
        })
    }

    fn last(&self, origin: &Origin) -> Option<Last> {
        self.last.get(origin).or_else(|| self.document.last.get(origin)).copied()
    }
}

fn actor(origin: &Origin) -> ActorId {
    ActorId::from(&origin.to_bytes()[..])
}

fn entry(value: &Value<'_>, id: &ObjId) -> Option<Entry> {
    let ObjId::Id(_, actor, _) = id else { return None };
    let bytes = value.as_bytes()?.to_vec();
    Some(Entry { bytes, origin: Origin::from_bytes(actor.to_bytes())? })
}

/// All changes of a document that somebody else made. As with [`load`], what crafted bytes lead to may be a panic, and is a refusal.
fn history(document: &Automerge) -> Result<Vec<Change>, DocumentError> {
    catch_unwind(AssertUnwindSafe(|| document.get_changes(&[]))).map_err(|_| DocumentError::Unsound("document"))
}

/// Automerge's own loading checks hashes and layout, yet it was not written against malice: what it does to crafted bytes may
/// include a panic. Nothing outlives the attempt, so a panic here is only another refusal.
fn load(saved: &[u8]) -> Result<Automerge, DocumentError> {
    let loaded = catch_unwind(|| Automerge::load_with_options(saved, LoadOptions::new()));
    match loaded {
        Ok(Ok(automerge)) => Ok(automerge),
        _ => Err(DocumentError::Unsound("document")),
    }
}
