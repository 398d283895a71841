//! The tree plane of one section: which topics live, with which definitions; and the feeds of the changes that say so.
//!
//! The truth lies in 4,096 small automerge documents ([`crate::bucket`]), or, in the built-in section, in two of policy: on sections
//! ([`crate::policy`]) and on who may do what ([`crate::access`]). Beside them stands an index of the live topics, which is derived and rebuilt on loading.
//! Documents that were not touched for a while are kept as saved bytes only.
//!
//! A topic is named by its *creating dot*: a number of its creator's tree feed. So whether a value's topic is unknown yet or already
//! removed is one comparison: removed, if the tree frontier covers its dot and it does not live.
//! A change that creates several topics takes as many numbers and stands in the feed at the last.
//!
//! Unlike a register, a change is never overtaken. It leaves the feed once it is stable; whoever is below the floor then gets the
//! whole document.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use crate::{
    access::{self, Access, AccessError},
    blob::{Blob, BlobHash},
    bucket::{Bucket, Happening, SavedBucket, TOPICS_PER_CHANGE_MAX},
    catalogue::{Catalogue, Place},
    definition::{Conflate, Definition, DefinitionHash},
    document::DocumentError,
    frontier::{DotIx, Dots, Frontier, OriginIx, Origins, raise},
    id::{Dot, Origin},
    path::{BUCKETS, Path},
    policy::{Policy, PolicyError, SectionPolicy},
};

/// A change of the tree plane on its way from node to node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TreeRecord {
    /// Its number in its origin's feed: the last of those that it takes.
    pub number: u64,
    /// The number of the record before it in that feed, or the floor: who has everything up to here may apply it.
    pub after: u64,
    /// Which document it belongs to.
    pub document: u16,
    /// The automerge change, as automerge encodes it.
    pub change: Arc<[u8]>,
    /// For each topic that it removes, what the remover knew of its values.
    pub removals: Vec<Removal>,
}

/// A topic removed, with the writes that its remover knew of. Whatever else was written goes to the displaced log.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Removal {
    /// The topic.
    pub topic: DotIx,
    /// For each origin, the greatest number of a write to this topic that the remover knew.
    pub seen: Dots,
}

/// A live topic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Topic {
    /// Where it is.
    pub path: Path,
    /// What it holds.
    pub definition: Arc<Definition>,
    /// Its creating dots: more than one if it was created concurrently with equal definitions. Values join over them.
    pub ids: Dots,
    /// Concurrent creations with other definitions, which lost.
    pub conflicts: Vec<(DotIx, DefinitionHash)>,
}

impl Topic {
    /// All its creating dots, those included that have lost to another definition.
    pub fn creations(&self) -> impl Iterator<Item = DotIx> + '_ {
        self.ids.iter().copied().chain(self.conflicts.iter().map(|conflict| conflict.0))
    }
}

/// What happened to a path in the tree.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TopicChange {
    /// Where.
    pub path: Path,
    /// Creations that live no more.
    pub gone: Dots,
    /// Creations that live now and did not.
    pub born: Dots,
    /// Whether there was a topic before, and whether there is one now.
    pub lived: (bool, bool),
    /// Its definition before, if that is another one now, or gone.
    pub before: Option<Arc<Definition>>,
}

/// Why a change could not be applied.
#[derive(Debug, thiserror::Error)]
pub enum TreeError {
    /// Changes that it builds on have not come yet. Nothing was changed; try again after them.
    #[error("the change builds on others that have not come yet")]
    Missing,
    /// It does not follow what is here: an earlier record of its origin is missing.
    #[error("the change does not follow what is here")]
    Gap,
    /// It is not a valid change, or names a document that this section does not have.
    #[error("invalid tree change: {0}")]
    Invalid(String),
}

impl From<DocumentError> for TreeError {
    fn from(error: DocumentError) -> Self {
        match error {
            DocumentError::MissingDeps => TreeError::Missing,
            other => TreeError::Invalid(other.to_string()),
        }
    }
}

/// What a section's documents are about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Topics, in [`BUCKETS`] documents.
    Topics,
    /// The mesh's policy: on sections in document 0, on access in document 1.
    Policy,
}

/// The documents of policy.
const ON_SECTIONS: u16 = 0;
const ON_ACCESS: u16 = 1;

#[derive(Debug)]
enum Content {
    Topics(Box<Bucket>),
    Policy(Box<Policy>),
    Access(Box<Access>),
}

#[derive(Debug)]
enum State {
    Live(Content),
    Saved(Vec<u8>),
}

#[derive(Debug)]
struct Held {
    state: State,
    /// For each origin, the greatest number of a change applied here.
    dots: Dots,
    heads: Vec<[u8; 32]>,
    /// In which round of [`Tree::cool`] it was last touched.
    touched: u64,
    /// Changes since it was last written to the store as a whole.
    unsaved: u32,
    /// Its topics, in path order.
    topics: Vec<Place>,
}

#[derive(Debug, Default)]
struct TreeFeed {
    records: BTreeMap<u64, Arc<TreeRecord>>,
    floor: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Tree {
    kind: Kind,
    documents: Vec<Option<Box<Held>>>,
    topics: Catalogue,
    /// The documents that are decoded.
    live: BTreeSet<u16>,
    definitions: FxHashMap<DefinitionHash, Arc<Definition>>,
    /// How many there may be before those are let go that no topic has any more.
    definitions_max: usize,
    /// Whether any of them has wanted that no value is skipped.
    wants_all: bool,
    naming: Naming,
    feeds: BTreeMap<OriginIx, TreeFeed>,
    frontier: Frontier,
    /// Documents that hold changes beyond the frontier: they came as a whole, in an adoption that is not complete, or in a repair.
    beyond: BTreeSet<u16>,
    round: u64,
    dirty_documents: BTreeSet<u16>,
    dirty_records: BTreeSet<DotIx>,
    dirty_feeds: BTreeSet<OriginIx>,
}

/// The definitions that name blobs: those of live creations, whether these stand or have lost to others.
#[derive(Debug, Default)]
struct Naming {
    /// Which creations there are of each.
    creations: BTreeMap<DotIx, DefinitionHash>,
    /// How many.
    definitions: BTreeMap<DefinitionHash, (Arc<Definition>, u64)>,
    /// How many of these definitions name each blob.
    blobs: BTreeMap<BlobHash, u64>,
    /// The blobs of which that has changed since it was asked for.
    changed: BTreeSet<BlobHash>,
    /// Definitions of which there has been none and is one since they were asked for.
    fresh: Vec<Arc<Definition>>,
}

impl Naming {
    fn born(&mut self, id: DotIx, hash: DefinitionHash, definition: &Arc<Definition>) {
        if self.creations.insert(id, hash).is_some() {
            return;
        }
        let (_, count) = self.definitions.entry(hash).or_insert_with(|| (definition.clone(), 0));
        *count += 1;
        if *count == 1 {
            self.fresh.push(definition.clone());
            for blob in definition.blobs() {
                *self.blobs.entry(*blob).or_default() += 1;
                self.changed.insert(*blob);
            }
        }
    }

    fn gone(&mut self, id: &DotIx) {
        let Some(hash) = self.creations.remove(id) else { return };
        let Some((definition, count)) = self.definitions.get_mut(&hash) else { return };
        *count -= 1;
        if *count > 0 {
            return;
        }
        for blob in definition.blobs() {
            if let Some(count) = self.blobs.get_mut(blob) {
                *count -= 1;
                if *count == 0 {
                    self.blobs.remove(blob);
                }
                self.changed.insert(*blob);
            }
        }
        self.definitions.remove(&hash);
    }
}

/// How many definitions may be there, in use or not.
const DEFINITIONS_SPARED_MIN: usize = 64;

/// For how many rounds of [`Tree::cool`] a document stays decoded that nobody touches. Decoding one costs ten times what a change costs, so
/// documents that are in use should stay.
const WARM_ROUNDS: u64 = 30;

/// How many documents are cooled in one round, so that it stays short.
const COOLED_AT_ONCE_MAX: usize = 256;

/// About how many bytes of paths and definitions one change may hold: with what automerge adds, it still fits a frame.
const CHANGE_BYTES_MAX: usize = 1 << 20;

/// How many changes of a document may stand in the store beside it before it is written anew.
const UNSAVED_CHANGES_MAX: u32 = 32;

impl Tree {
    /// An empty tree plane.
    pub fn new(kind: Kind) -> Self {
        Tree {
            kind,
            documents: Vec::new(),
            topics: Catalogue::default(),
            live: BTreeSet::new(),
            definitions: FxHashMap::default(),
            definitions_max: DEFINITIONS_SPARED_MIN,
            wants_all: false,
            naming: Naming::default(),
            feeds: BTreeMap::new(),
            frontier: Frontier::default(),
            beyond: BTreeSet::new(),
            round: 0,
            dirty_documents: BTreeSet::new(),
            dirty_records: BTreeSet::new(),
            dirty_feeds: BTreeSet::new(),
        }
    }

    /// How far each origin's changes are applied.
    pub fn frontier(&self) -> &Frontier {
        &self.frontier
    }

    /// Below these numbers changes are no longer in the feed.
    pub fn floors(&self) -> Frontier {
        self.feeds.iter().map(|(origin, feed)| DotIx { origin: *origin, number: feed.floor }).collect()
    }

    /// Whether someone with this frontier lacks changes that are no longer in the feed.
    pub fn is_below_floor(&self, frontier: &Frontier) -> bool {
        self.feeds.iter().any(|(origin, feed)| frontier.get(*origin) < feed.floor)
    }

    /// The live topic at a path.
    pub fn topic(&self, path: &str) -> Option<&Topic> {
        self.topics.get(path)
    }

    /// The topic that a live creation made, whether it stands or has lost to another.
    pub fn topic_of(&self, id: DotIx) -> Option<&Topic> {
        self.topics.of(id)
    }

    /// The path of a live creation.
    pub fn path_of(&self, id: DotIx) -> Option<&Path> {
        self.topic_of(id).map(|topic| &topic.path)
    }

    /// All live topics in path order, from a path on.
    pub fn topics_from(&self, from: &str) -> impl Iterator<Item = &Topic> {
        self.topics.from(from)
    }

    /// How many topics live.
    pub fn len(&self) -> usize {
        self.topics.len()
    }

    /// Whether no topic lives.
    pub fn is_empty(&self) -> bool {
        self.topics.len() == 0
    }

    /// Whether a topic is to be told of value by value.
    pub(crate) fn wants_all(&self, id: DotIx) -> bool {
        // Most sections have no such topics, and values are many.
        self.wants_all && self.topic_of(id).is_some_and(|topic| topic.definition.properties().conflate == Conflate::Off)
    }

    /// The definitions that topics have, and some that they have had in this run.
    pub fn definitions(&self) -> impl Iterator<Item = &Definition> {
        #[allow(clippy::disallowed_methods, reason = "for those that ask whether there is any")]
        self.definitions.values().map(Arc::as_ref)
    }

    /// The blobs of which it has changed since this was asked last whether definitions of live topics name them, each with whether they do now; and the definitions that have
    /// come since.
    pub(crate) fn take_naming(&mut self) -> (Vec<(BlobHash, bool)>, Vec<Arc<Definition>>) {
        let changed = std::mem::take(&mut self.naming.changed);
        let changed = changed.into_iter().map(|blob| (blob, self.naming.blobs.contains_key(&blob)));
        (changed.collect(), std::mem::take(&mut self.naming.fresh))
    }

    /// Gives a blob to the definitions that name it. Returns the creations of these.
    pub(crate) fn supply(&self, hash: &BlobHash, blob: &Blob) -> Vec<DotIx> {
        let Naming { creations, definitions, .. } = &self.naming;
        let mut naming = BTreeSet::new();
        for (of, (definition, _)) in definitions.iter().filter(|(_, (definition, _))| definition.blobs().contains(hash)) {
            if let Err(why) = definition.topic_type().supply(hash, blob) {
                tracing::warn!(blob = %hash, topic_type = %definition.topic_type(), why, "a blob is no use to the topics whose definition names it");
            }
            naming.insert(*of);
        }
        creations.iter().filter(|(_, of)| naming.contains(of)).map(|(id, _)| *id).collect()
    }

    /// The live topics of a bucket, in path order.
    pub fn bucket_topics(&self, bucket: u16) -> impl Iterator<Item = &Topic> {
        let held = self.documents.get(bucket as usize).and_then(Option::as_ref);
        held.into_iter().flat_map(|held| &held.topics).filter_map(|place| self.topics.at(*place))
    }

    /// The documents that exist.
    pub fn document_numbers(&self) -> impl Iterator<Item = u16> + '_ {
        self.documents.iter().enumerate().filter(|(_, held)| held.is_some()).map(|(at, _)| at as u16)
    }

    /// The sorted heads of a document; none if it does not exist.
    pub fn heads(&self, document: u16) -> &[[u8; 32]] {
        self.documents.get(document as usize).and_then(Option::as_ref).map_or(&[], |held| &held.heads)
    }

    /// For each origin, the greatest number of a change applied to a document.
    pub fn dots(&self, document: u16) -> &[DotIx] {
        self.documents.get(document as usize).and_then(Option::as_ref).map_or(&[], |held| &held.dots)
    }

    /// The declared sections (policy documents only): those that stand, then those that lost to one with the same root.
    pub fn policies(&mut self) -> (Vec<SectionPolicy>, Vec<SectionPolicy>) {
        match self.content(ON_SECTIONS) {
            Ok(Content::Policy(policy)) => policy.sections(),
            _ => Default::default(),
        }
    }

    /// Who may do what (policy documents only).
    pub fn access(&mut self) -> Option<&Access> {
        match self.content(ON_ACCESS) {
            Ok(Content::Access(access)) => Some(access),
            _ => None,
        }
    }

    /// What has happened at a path, the newest last, as far as that is told, and whether there was more ([`Bucket::past`]).
    ///
    /// # Errors
    /// The document cannot be decoded.
    pub fn past(&mut self, path: &Path) -> Result<(Vec<Happening>, bool), TreeError> {
        let bucket = path.bucket();
        if self.documents.get(bucket as usize).is_none_or(Option::is_none) {
            return Ok(Default::default());
        }
        match self.content(bucket)? {
            Content::Topics(document) => Ok(document.past(path)),
            Content::Policy(_) | Content::Access(_) => Ok(Default::default()),
        }
    }

    /// Creates topics that do not live yet, at so many milliseconds since 1970. Returns what changed in the index.
    pub fn create(&mut self, origins: &mut Origins, own: OriginIx, time_ms: u64, topics: &[(Path, Definition)]) -> Vec<TopicChange> {
        let actor = origins.get(own);
        let mut buckets: BTreeMap<u16, Vec<usize>> = BTreeMap::new();
        for (at, (path, _)) in topics.iter().enumerate() {
            buckets.entry(path.bucket()).or_default().push(at);
        }
        let mut changes = Vec::new();
        let bytes = |at: usize| topics[at].0.as_str().len() + topics[at].1.to_bytes().len();
        let pieces = buckets.iter().flat_map(|(bucket, members)| pieces(members, bytes).map(|piece| (*bucket, piece)));
        for (bucket, members) in pieces {
            let first = self.frontier.get(own) + 1;
            let numbered: Vec<(Path, &Definition, u64)> =
                members.iter().zip(first..).map(|(at, number)| (topics[*at].0.clone(), &topics[*at].1, number)).collect();
            let last = first + numbered.len() as u64 - 1;
            let Ok(Content::Topics(document)) = self.content(bucket) else { continue };
            let change = document.create(actor, time_ms / 1_000, &numbered);
            self.record(own, bucket, last, change, Vec::new());
            changes.extend(numbered.iter().filter_map(|(path, ..)| self.refresh(origins, path)));
        }
        changes
    }

    /// Removes live topics, with what is known of their values, at so many milliseconds since 1970.
    pub fn remove(&mut self, origins: &mut Origins, own: OriginIx, time_ms: u64, topics: &[(Path, Vec<Removal>)]) -> Vec<TopicChange> {
        let actor = origins.get(own);
        let mut buckets: BTreeMap<u16, Vec<&(Path, Vec<Removal>)>> = BTreeMap::new();
        for topic in topics {
            buckets.entry(topic.0.bucket()).or_default().push(topic);
        }
        let mut changes = Vec::new();
        let pieces = buckets.iter().flat_map(|(bucket, members)| members.chunks(TOPICS_PER_CHANGE_MAX).map(|piece| (*bucket, piece)));
        for (bucket, members) in pieces {
            let paths: Vec<Path> = members.iter().map(|(path, _)| path.clone()).collect();
            let Ok(Content::Topics(document)) = self.content(bucket) else { continue };
            let Some(change) = document.remove(actor, time_ms / 1_000, &paths) else { continue };
            let removals = members.iter().flat_map(|(_, removals)| removals.clone()).collect();
            self.record(own, bucket, self.frontier.get(own) + 1, change, removals);
            changes.extend(paths.iter().filter_map(|path| self.refresh(origins, path)));
        }
        changes
    }

    /// Edits the policy on sections. `edit` gives the change, or refuses. Returns the document that has changed.
    pub fn edit_policy(
        &mut self,
        origins: &Origins,
        own: OriginIx,
        edit: impl FnOnce(&mut Policy, Origin) -> Result<Vec<u8>, PolicyError>,
    ) -> Result<u16, PolicyError> {
        let actor = origins.get(own);
        if let Ok(Content::Policy(policy)) = self.content(ON_SECTIONS) {
            let change = edit(policy, actor)?;
            self.record(own, ON_SECTIONS, self.frontier.get(own) + 1, change, Vec::new());
        }
        Ok(ON_SECTIONS)
    }

    /// Runs a script on the policy on access. Returns the document that has changed, and how.
    pub fn run_script(&mut self, origins: &Origins, own: OriginIx, script: &str) -> Result<(u16, Vec<access::Change>), AccessError> {
        let actor = origins.get(own);
        let Ok(Content::Access(access)) = self.content(ON_ACCESS) else { return Ok((ON_ACCESS, Vec::new())) };
        let (change, changes) = access.run_script(actor, script)?;
        if let Some(change) = change {
            self.record(own, ON_ACCESS, self.frontier.get(own) + 1, change, Vec::new());
        }
        Ok((ON_ACCESS, changes))
    }

    /// Applies a change from elsewhere. One that is covered already does nothing.
    pub fn apply(&mut self, origins: &mut Origins, origin: OriginIx, record: &TreeRecord) -> Result<Vec<TopicChange>, TreeError> {
        if record.number <= self.frontier.get(origin) {
            return Ok(Vec::new());
        }
        if record.after > self.frontier.get(origin) {
            return Err(TreeError::Gap);
        }
        let touched = match self.content(record.document)? {
            Content::Topics(bucket) => bucket.apply(&record.change)?,
            Content::Policy(policy) => policy.apply(&record.change).map(|_| Vec::new())?,
            Content::Access(access) => access.apply(&record.change).map(|_| Vec::new())?,
        };
        self.note(origin, record.document, Arc::new(record.clone()));
        Ok(touched.iter().filter_map(|path| self.refresh(origins, path)).collect())
    }

    /// The records of a feed above a number, in order, up to about `bytes_max`; whether these were all; `None` if the feed
    /// no longer remembers that far back.
    pub fn read(&self, origin: OriginIx, above: u64, bytes_max: usize) -> Option<(Vec<Arc<TreeRecord>>, bool)> {
        let Some(feed) = self.feeds.get(&origin) else { return Some((Vec::new(), true)) };
        if above < feed.floor {
            return None;
        }
        let (mut records, mut bytes) = (Vec::new(), 0);
        for (_, record) in feed.records.range(above + 1..) {
            if bytes >= bytes_max {
                return Some((records, false));
            }
            bytes += record.change.len() + 64;
            records.push(record.clone());
        }
        Some((records, true))
    }

    /// The whole document, for a peer that is below the floor.
    pub fn saved(&mut self, document: u16) -> Option<Vec<u8>> {
        match &mut self.documents.get_mut(document as usize)?.as_mut()?.state {
            State::Saved(bytes) => Some(bytes.clone()),
            State::Live(content) => Some(content.save()),
        }
    }

    /// Joins a peer's whole document into this one. `dots` are the changes that it holds.
    ///
    /// Where there was none before it is taken as it is, and decoded when it is needed: see [`crate::saved`].
    pub fn merge(&mut self, origins: &mut Origins, document: u16, saved: &[u8], dots: &[DotIx]) -> Result<Vec<TopicChange>, TreeError> {
        self.check(document)?;
        let fresh = self.kind == Kind::Topics && self.slot(document).is_none();
        if let Some(read) = fresh.then(|| Bucket::read(saved)).flatten() {
            let changes = self.put_saved(origins, document, read, saved.into(), dots.into());
            self.unsaved(document, UNSAVED_CHANGES_MAX);
            self.came_whole(document);
            return Ok(changes);
        }
        let touched = match self.content(document)? {
            Content::Topics(bucket) => bucket.merge(saved)?,
            Content::Policy(policy) => policy.merge(saved).map(|_| Vec::new())?,
            Content::Access(access) => access.merge(saved).map(|_| Vec::new())?,
        };
        if let Some(held) = self.documents[document as usize].as_mut() {
            for dot in dots {
                raise(&mut held.dots, *dot);
            }
        }
        self.touched(document, UNSAVED_CHANGES_MAX);
        self.came_whole(document);
        Ok(touched.iter().filter_map(|path| self.refresh(origins, path)).collect())
    }

    /// Notes that a document came as a whole, and may hold more than the frontier covers.
    fn came_whole(&mut self, document: u16) {
        if self.is_beyond(document) {
            self.beyond.insert(document);
        } else {
            self.beyond.remove(&document);
        }
    }

    fn is_beyond(&self, document: u16) -> bool {
        self.dots(document).iter().any(|dot| !self.frontier.covers(*dot))
    }

    /// Puts a document in an empty place, not decoded, and indexes what it holds.
    fn put_saved(&mut self, origins: &mut Origins, document: u16, read: SavedBucket, saved: Vec<u8>, dots: Dots) -> Vec<TopicChange> {
        let SavedBucket { heads, topics, definitions } = read;
        let held = Held { state: State::Saved(saved), dots, heads, touched: self.round, unsaved: 0, topics: Vec::new() };
        self.slot(document).replace(Box::new(held));
        self.spare_definitions();
        for (hash, definition) in definitions {
            self.enter(hash, definition);
        }
        self.topics.reserve(topics.len());
        let ours = topics.into_iter().filter(|topic| topic.path.bucket() == document);
        ours.filter_map(|topic| self.index(origins, document, &topic.path, &topic.creations)).collect()
    }

    /// Raises a feed's frontier, after the whole state up to it was taken over.
    pub fn advance(&mut self, origin: OriginIx, upto: u64) {
        if self.frontier.raise(origin, upto) {
            self.dirty_feeds.insert(origin);
            self.settle_beyond();
        }
    }

    fn settle_beyond(&mut self) {
        let (documents, frontier) = (&self.documents, &self.frontier);
        let held = |document: u16| documents.get(document as usize).and_then(Option::as_ref);
        self.beyond.retain(|document| held(*document).is_some_and(|held| held.dots.iter().any(|dot| !frontier.covers(*dot))));
    }

    /// Raises a feed's floor: records up to it are dropped, their documents stand for them.
    pub fn raise_floor(&mut self, origin: OriginIx, floor: u64) {
        let feed = self.feeds.entry(origin).or_default();
        if floor <= feed.floor {
            return;
        }
        feed.floor = floor;
        let kept = feed.records.split_off(&(floor + 1));
        for (number, record) in std::mem::replace(&mut feed.records, kept) {
            self.dirty_documents.insert(record.document);
            self.dirty_records.insert(DotIx { origin, number });
            if let Some(held) = self.documents.get_mut(record.document as usize).and_then(Option::as_mut) {
                held.unsaved = UNSAVED_CHANGES_MAX;
            }
        }
        self.dirty_feeds.insert(origin);
    }

    /// Drops records that are stable from the feeds (R5).
    pub fn forget(&mut self, stable: &Frontier) {
        for dot in stable.iter() {
            let Some(feed) = self.feeds.get(&dot.origin) else { continue };
            let Some((last, _)) = feed.records.range(..=dot.number).next_back() else { continue };
            self.raise_floor(dot.origin, *last);
        }
    }

    /// The changes above a number of a feed: how many, and their bytes.
    pub fn written_above(&self, origin: OriginIx, number: u64) -> (u64, u64) {
        let feed = self.feeds.get(&origin);
        let records = feed.into_iter().flat_map(|feed| feed.records.range(number + 1..));
        records.fold((0, 0), |(count, bytes), (_, record)| (count + 1, bytes + record.change.len() as u64))
    }

    /// Whether all that the documents hold lies within the frontier, so that a topic that was created within it and does not live is removed within
    /// it, too.
    pub fn is_settled(&self) -> bool {
        self.beyond.is_empty()
    }

    /// Those of some topics that were made and are gone within documents that hold more than the frontier covers, each with its document. If whoever made such a topic is gone for
    /// good, no feed brings it. Goes through the documents' histories.
    pub fn bygone(&self, origins: &Origins, topics: &BTreeSet<DotIx>) -> BTreeMap<DotIx, u16> {
        let mut firsts = BTreeMap::new();
        topics.iter().for_each(|topic| _ = firsts.entry(topic.origin).or_insert(topic.number));
        let holds = |dot: &DotIx| firsts.get(&dot.origin).is_some_and(|first| *first <= dot.number);
        let mut bygone = BTreeMap::new();
        for document in self.beyond.iter().filter(|document| self.dots(**document).iter().any(holds)) {
            let saved = match self.documents[*document as usize].as_ref().map(|held| &held.state) {
                Some(State::Saved(bytes)) => Cow::Borrowed(&bytes[..]),
                Some(State::Live(Content::Topics(bucket))) => Cow::Owned(bucket.save()),
                _ => continue,
            };
            let made = Bucket::read_bygone(&saved)
                .into_iter()
                .filter_map(|Dot { origin, number }| Some(DotIx { origin: origins.find(&origin)?, number }));
            bygone.extend(made.filter(|topic| topics.contains(topic)).map(|topic| (topic, *document)));
        }
        bygone
    }

    /// The places of all records that are still in feeds.
    pub fn record_dots(&self) -> impl Iterator<Item = DotIx> + '_ {
        self.feeds.iter().flat_map(|(origin, feed)| feed.records.keys().map(|number| DotIx { origin: *origin, number: *number }))
    }

    /// How many records are still in feeds.
    pub fn remembered(&self) -> usize {
        self.feeds.values().map(|feed| feed.records.len()).sum()
    }

    /// Keeps documents that have not been touched for [`WARM_ROUNDS`] of these calls as bytes only, and lets them be stored as a whole, so that
    /// a restart has few changes to apply. To be called about once a second.
    pub fn cool(&mut self) {
        self.round += 1;
        let mut cooled = 0;
        let (documents, dirty, round) = (&mut self.documents, &mut self.dirty_documents, self.round);
        self.live.retain(|number| {
            let Some(held) = documents[*number as usize].as_mut() else { return false };
            if cooled == COOLED_AT_ONCE_MAX || held.touched + WARM_ROUNDS >= round {
                return true;
            }
            if let State::Live(content) = &mut held.state {
                held.state = State::Saved(content.save());
                if held.unsaved > 0 {
                    held.unsaved = UNSAVED_CHANGES_MAX;
                    dirty.insert(*number);
                }
                cooled += 1;
            }
            false
        });
    }

    /// Restores a stored document and indexes its topics.
    pub fn restore_document(&mut self, origins: &mut Origins, document: u16, saved: Vec<u8>, dots: Dots) -> Result<(), TreeError> {
        self.check(document)?;
        if let Some(read) = (self.kind == Kind::Topics).then(|| Bucket::read(&saved)).flatten() {
            self.put_saved(origins, document, read, saved, dots);
            return Ok(());
        }
        let mut content = load(self.kind, document, &saved)?;
        let heads = content.heads();
        let paths = match &mut content {
            Content::Topics(bucket) => bucket.paths(),
            Content::Policy(_) | Content::Access(_) => Vec::new(),
        };
        let held = Held { state: State::Live(content), dots, heads, touched: self.round, unsaved: 0, topics: Vec::new() };
        self.slot(document).replace(Box::new(held));
        for path in &paths {
            self.refresh(origins, path);
        }
        if let Some(held) = self.slot(document) {
            held.state = State::Saved(saved);
        }
        Ok(())
    }

    /// Restores a stored change, after all documents; in the order of their feeds.
    pub fn restore_record(&mut self, origin: OriginIx, record: TreeRecord) {
        self.feeds.entry(origin).or_default().records.insert(record.number, Arc::new(record));
    }

    /// Restores a feed's frontier and floor.
    pub fn restore_feed(&mut self, origin: OriginIx, frontier: u64, floor: u64) {
        self.frontier.raise(origin, frontier);
        self.feeds.entry(origin).or_default().floor = floor;
    }

    /// Ends the restoring: applies the stored changes to their documents, in whatever order their dependencies allow.
    pub fn restored(&mut self, origins: &mut Origins) -> Result<(), TreeError> {
        let mut waiting: Vec<(OriginIx, Arc<TreeRecord>)> =
            self.feeds.iter().flat_map(|(origin, feed)| feed.records.values().map(|record| (*origin, record.clone()))).collect();
        while !waiting.is_empty() {
            let before = waiting.len();
            let mut left = Vec::new();
            for (origin, record) in waiting {
                let applied = match self.content(record.document)? {
                    Content::Topics(bucket) => bucket.apply(&record.change),
                    Content::Policy(policy) => policy.apply(&record.change).map(|_| Vec::new()),
                    Content::Access(access) => access.apply(&record.change).map(|_| Vec::new()),
                };
                match applied {
                    Ok(touched) => {
                        self.note(origin, record.document, record.clone());
                        for path in &touched {
                            self.refresh(origins, path);
                        }
                    }
                    Err(DocumentError::MissingDeps) => left.push((origin, record)),
                    Err(error) => return Err(error.into()),
                }
            }
            if left.len() == before {
                return Err(TreeError::Missing);
            }
            waiting = left;
        }
        self.beyond = self.document_numbers().collect();
        self.settle_beyond();
        self.dirty_documents.clear();
        self.dirty_records.clear();
        self.dirty_feeds.clear();
        Ok(())
    }

    /// Hands out what has changed since the last call: documents as (number, bytes, dots), records (`None` where dropped), feeds as (origin,
    /// frontier, floor).
    pub fn take_dirty(
        &mut self,
        mut document: impl FnMut(u16, Vec<u8>, &[DotIx]),
        mut record: impl FnMut(DotIx, Option<&TreeRecord>),
        mut feed: impl FnMut(OriginIx, u64, u64),
    ) {
        let due = std::mem::take(&mut self.dirty_documents);
        for number in due {
            let unsaved = self.documents[number as usize].as_ref().map_or(0, |held| held.unsaved);
            if unsaved < UNSAVED_CHANGES_MAX {
                continue;
            }
            let Some(saved) = self.saved(number) else { continue };
            if let Some(held) = self.documents[number as usize].as_mut() {
                held.unsaved = 0;
                document(number, saved, &held.dots);
            }
        }
        for dot in std::mem::take(&mut self.dirty_records) {
            let stored = self.feeds.get(&dot.origin).and_then(|feed| feed.records.get(&dot.number));
            record(dot, stored.map(Arc::as_ref));
        }
        for origin in std::mem::take(&mut self.dirty_feeds) {
            feed(origin, self.frontier.get(origin), self.feeds.get(&origin).map_or(0, |feed| feed.floor));
        }
    }

    /// Whether [`Tree::take_dirty`] would hand out anything.
    pub fn is_dirty(&self) -> bool {
        !(self.dirty_documents.is_empty() && self.dirty_records.is_empty() && self.dirty_feeds.is_empty())
    }

    fn check(&self, document: u16) -> Result<(), TreeError> {
        let count = match self.kind {
            Kind::Topics => BUCKETS,
            Kind::Policy => ON_ACCESS + 1,
        };
        if document >= count {
            return Err(TreeError::Invalid(format!("document {document} of {count}")));
        }
        Ok(())
    }

    fn slot(&mut self, document: u16) -> &mut Option<Box<Held>> {
        let at = document as usize;
        if self.documents.len() <= at {
            self.documents.resize_with(at + 1, || None);
        }
        &mut self.documents[at]
    }

    /// A document, decoded; an empty one if it does not exist yet.
    fn content(&mut self, document: u16) -> Result<&mut Content, TreeError> {
        self.check(document)?;
        let (kind, touched) = (self.kind, self.round);
        self.live.insert(document);
        let held = self.slot(document).get_or_insert_with(|| {
            let mut content = match kind {
                Kind::Topics => Content::Topics(Box::new(Bucket::new())),
                Kind::Policy if document == ON_SECTIONS => Content::Policy(Box::new(Policy::new())),
                Kind::Policy => Content::Access(Box::new(Access::new())),
            };
            let heads = content.heads();
            Box::new(Held { state: State::Live(content), dots: Dots::new(), heads, touched, unsaved: 0, topics: Vec::new() })
        });
        held.touched = touched;
        if let State::Saved(bytes) = &held.state {
            held.state = State::Live(load(kind, document, bytes)?);
        }
        match self.documents[document as usize].as_mut().map(|held| &mut held.state) {
            Some(State::Live(content)) => Ok(content),
            _ => Err(TreeError::Invalid("a document just decoded is not".into())),
        }
    }

    /// Adds a change of this node's own to its feed.
    fn record(&mut self, own: OriginIx, document: u16, number: u64, change: Vec<u8>, removals: Vec<Removal>) {
        let record = TreeRecord { number, after: self.frontier.get(own), document, change: change.into(), removals };
        self.note(own, document, Arc::new(record));
    }

    /// Notes a change that was applied.
    fn note(&mut self, origin: OriginIx, document: u16, record: Arc<TreeRecord>) {
        let dot = DotIx { origin, number: record.number };
        if let Some(held) = self.documents[document as usize].as_mut() {
            raise(&mut held.dots, dot);
        }
        self.feeds.entry(origin).or_default().records.insert(record.number, record);
        self.advance(origin, dot.number);
        self.dirty_records.insert(dot);
        self.touched(document, 1);
    }

    fn touched(&mut self, document: u16, changes: u32) {
        self.unsaved(document, changes);
        if let Some(Held { state: State::Live(content), heads, .. }) = self.documents[document as usize].as_deref_mut() {
            *heads = content.heads();
        }
    }

    fn unsaved(&mut self, document: u16, changes: u32) {
        self.dirty_documents.insert(document);
        if let Some(held) = self.documents[document as usize].as_mut() {
            held.unsaved += changes;
        }
    }

    /// Lets definitions go that no topic has any more, each time when there are twice as many as were in use. To be called before one is looked up.
    fn spare_definitions(&mut self) {
        if self.definitions.len() >= self.definitions_max {
            self.definitions.retain(|_, definition| Arc::strong_count(definition) > 1);
            self.definitions_max = DEFINITIONS_SPARED_MIN.max(2 * self.definitions.len());
        }
    }

    /// Enters a definition, unless it is there.
    fn enter(&mut self, hash: DefinitionHash, definition: Definition) {
        self.wants_all |= definition.properties().conflate == Conflate::Off;
        self.definitions.entry(hash).or_insert_with(|| Arc::new(definition));
    }

    /// Brings the index of one path up to its document, which is decoded.
    fn refresh(&mut self, origins: &mut Origins, path: &Path) -> Option<TopicChange> {
        self.spare_definitions();
        let bucket = path.bucket();
        let held = self.documents.get_mut(bucket as usize)?.as_mut()?;
        let State::Live(Content::Topics(document)) = &mut held.state else { return None };
        let creations = document.get(path);
        // Those that have lost, too: they may stand yet.
        let unknown = creations.iter().filter(|(_, hash)| !self.definitions.contains_key(hash));
        let unknown: SmallVec<[_; 1]> = unknown.filter_map(|(_, hash)| Some((*hash, document.definition(hash)?))).collect();
        for (hash, definition) in unknown {
            self.enter(hash, definition);
        }
        self.index(origins, bucket, path, &creations)
    }

    /// Brings the index of one path up to its live creations, the one that stands first.
    fn index(&mut self, origins: &mut Origins, bucket: u16, path: &Path, creations: &[(Dot, DefinitionHash)]) -> Option<TopicChange> {
        let held = self.documents.get_mut(bucket as usize)?.as_mut()?;
        let after = creations.first().and_then(|(_, winner)| {
            let definition = self.definitions.get(winner)?.clone();
            let mut ids: Dots = SmallVec::new();
            let mut conflicts = Vec::new();
            for (Dot { origin, number }, hash) in creations {
                let id = DotIx { origin: origins.intern(*origin), number: *number };
                if hash == winner { ids.push(id) } else { conflicts.push((id, *hash)) }
            }
            Some(Topic { path: path.clone(), definition, ids, conflicts })
        });
        let topics = &mut self.topics;
        let listed = |topics: &Catalogue, held: &Held| {
            let path_of = |place: &Place| topics.at(*place).map(|topic| &topic.path);
            match held.topics.last() {
                // Whole documents come in order.
                Some(last) if path_of(last) < Some(path) => Err(held.topics.len()),
                _ => held.topics.binary_search_by(|place| path_of(place).cmp(&Some(path))),
            }
        };
        let before = match &after {
            Some(topic) => {
                let (place, before) = topics.put(topic.clone());
                if before.is_none()
                    && let Err(at) = listed(topics, held)
                {
                    held.topics.insert(at, place);
                }
                before
            }
            None => {
                if let Ok(at) = listed(topics, held) {
                    held.topics.remove(at);
                }
                topics.remove(path.as_str())
            }
        };
        if before == after {
            return None;
        }
        let all = |topic: &Option<Topic>| -> Dots { topic.iter().flat_map(Topic::creations).collect() };
        let (old, new) = (all(&before), all(&after));
        let gone: Dots = old.iter().filter(|id| !new.contains(id)).copied().collect();
        let born: Dots = new.iter().filter(|id| !old.contains(id)).copied().collect();
        for (Dot { origin, number }, hash) in creations {
            let Some(definition) = self.definitions.get(hash).filter(|definition| !definition.blobs().is_empty()) else { continue };
            let id = DotIx { origin: origins.intern(*origin), number: *number };
            if born.contains(&id) {
                self.naming.born(id, *hash, definition);
            }
        }
        gone.iter().for_each(|id| self.naming.gone(id));
        let lived = (before.is_some(), after.is_some());
        let redefined = before.filter(|before| after.as_ref().is_none_or(|after| after.definition != before.definition));
        Some(TopicChange { path: path.clone(), gone, born, lived, before: redefined.map(|before| before.definition) })
    }
}

/// Splits what would make too large a change for one frame.
fn pieces<'a>(mut members: &'a [usize], bytes: impl Fn(usize) -> usize + 'a) -> impl Iterator<Item = &'a [usize]> {
    std::iter::from_fn(move || {
        let mut sum = 0;
        let fits = members.iter().take(TOPICS_PER_CHANGE_MAX).take_while(|at| {
            sum += bytes(**at);
            sum <= CHANGE_BYTES_MAX
        });
        let (piece, rest) = members.split_at(fits.count().max(1).min(members.len()));
        members = rest;
        (!piece.is_empty()).then_some(piece)
    })
}

fn load(kind: Kind, document: u16, saved: &[u8]) -> Result<Content, TreeError> {
    Ok(match kind {
        Kind::Topics => Content::Topics(Box::new(Bucket::load(saved)?)),
        Kind::Policy if document == ON_SECTIONS => Content::Policy(Box::new(Policy::load(saved)?)),
        Kind::Policy => Content::Access(Box::new(Access::load(saved)?)),
    })
}

impl Content {
    fn save(&mut self) -> Vec<u8> {
        match self {
            Content::Topics(bucket) => bucket.save(),
            Content::Policy(policy) => policy.save(),
            Content::Access(access) => access.save(),
        }
    }

    fn heads(&mut self) -> Vec<[u8; 32]> {
        match self {
            Content::Topics(bucket) => bucket.heads(),
            Content::Policy(policy) => policy.heads(),
            Content::Access(access) => access.heads(),
        }
    }
}
