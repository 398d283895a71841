//! A bucket: which topics live in one hash slice of a section, and what they are.
//!
//! One small automerge document with one flat map. A topic lives while the map has an entry under its path:
//!
//! ```text
//! topics   path → number of the creation in its origin's feed (u64, big-endian) · the definition's bytes
//! ```
//!
//! The origin of a creation is the actor of the operation that put the entry, so entry and operation together are the
//! topic's [`Dot`]. Concurrent creations of a path stand beside each other, each with its dot; which of them wins, and so
//! which definition stands, is automerge's order and the same everywhere. Removing removes what the remover saw: a creation that it had not
//! seen survives.
//!
//! The definition stands in the entry itself, not under its hash in a second map. Most are shorter than a hash;
//! one operation a topic instead of one and a half takes that much less time and memory; and no definition can be dropped
//! while a topic that somebody else creates needs it. What is long about a definition (a schema, a module) is named in it by
//! its hash, and travels apart.
//!
//! What lived at a path before, and who made and removed it when, is in the document's history ([`Bucket::past`]).

use std::{collections::BTreeSet, sync::LazyLock};

use smallvec::SmallVec;

use crate::{
    definition::{Definition, DefinitionHash},
    document::{self, Deed, Document, DocumentError, Entry, Genesis, MapIndex},
    id::{Dot, Origin},
    path::Path,
    saved::{Saved, SavedEntry},
};

/// How many topics one call of [`Bucket::create`] or [`Bucket::remove`] may name: more, and peers would refuse the change for its size.
pub const TOPICS_PER_CHANGE_MAX: usize = 8192;

/// How many creations and removals of a path [`Bucket::past`] tells.
pub const PAST_MAX: usize = document::PAST_MAX;

const TOPICS: MapIndex = 0;

static GENESIS: LazyLock<Genesis> = LazyLock::new(|| Genesis::new("mangrove bucket 1", &["topics"]));

/// See the module.
#[derive(Clone, Debug)]
pub struct Bucket {
    document: Document,
}

/// That a topic was made, or removed.
#[derive(Clone, Debug, PartialEq)]
pub struct Happening {
    /// By whom.
    pub origin: Origin,
    /// When, by their wall clock, in seconds since 1970; 0 if they did not say.
    pub time_s: u64,
    /// What came of it.
    pub what: Happened,
    /// Whether whoever did it, and whoever did something else that is told with it, did not know of each other.
    pub concurrent: bool,
}

/// What happened to a path.
#[derive(Clone, Debug, PartialEq)]
pub enum Happened {
    /// A topic was made; with what definition, unless that cannot be read here.
    Made(Option<Definition>),
    /// The topics that were known there were removed.
    Removed,
}

/// What a saved bucket holds.
#[derive(Debug)]
pub(crate) struct SavedBucket {
    /// As [`Bucket::heads`] would give them.
    pub heads: Vec<[u8; 32]>,
    /// As [`Bucket::topics`] would.
    pub topics: Vec<SavedTopic>,
    /// Their definitions by hash.
    pub definitions: Vec<(DefinitionHash, Definition)>,
}

/// A live topic of a saved bucket.
#[derive(Debug)]
pub(crate) struct SavedTopic {
    pub path: Path,
    /// Its live creations, the one that stands first.
    pub creations: SmallVec<[(Dot, DefinitionHash); 1]>,
}

impl Bucket {
    /// A bucket without topics.
    #[expect(clippy::new_without_default, reason = "an empty bucket is made on purpose, never by default")]
    pub fn new() -> Bucket {
        Bucket { document: Document::new(&GENESIS) }
    }

    /// A bucket that this node saved.
    pub fn load(saved: &[u8]) -> Result<Bucket, DocumentError> {
        Document::load(&GENESIS, saved).map(|document| Bucket { document })
    }

    /// What a saved bucket holds, read without decoding it. `None` if that cannot be made out: then [`Bucket::load`], or [`Bucket::merge`] says why.
    pub(crate) fn read(saved: &[u8]) -> Option<SavedBucket> {
        let Saved { heads, entries } = Saved::read(&GENESIS, saved)?;
        let mut topics: Vec<SavedTopic> = Vec::with_capacity(entries.len());
        let mut definitions: Vec<(&[u8], DefinitionHash)> = Vec::new();
        for SavedEntry { key, bytes, origin, .. } in entries.into_iter().rev().filter(|entry| entry.map == TOPICS) {
            let Some((number, definition)) = split(bytes) else { continue };
            // Most topics of a section have one of a few definitions.
            let hash = match definitions.iter().find(|(known, _)| *known == definition) {
                Some((_, hash)) => *hash,
                None => {
                    let hash = DefinitionHash::of(definition);
                    definitions.push((definition, hash));
                    hash
                }
            };
            let creation = (Dot { origin, number }, hash);
            match topics.last_mut().filter(|topic| topic.path.as_str() == key) {
                Some(topic) => topic.creations.push(creation),
                None => {
                    let Ok(path) = Path::parse(key) else { continue };
                    topics.push(SavedTopic { path, creations: [creation].into() });
                }
            }
        }
        topics.reverse();
        let definitions = definitions.into_iter().filter_map(|(bytes, hash)| Some((hash, Definition::from_bytes(bytes).ok()?)));
        Some(SavedBucket { heads, topics, definitions: definitions.collect() })
    }

    /// The creations in the history of a saved bucket that live no more; none if that cannot be made out.
    pub(crate) fn read_bygone(saved: &[u8]) -> Vec<Dot> {
        let mut bygone = Vec::new();
        let read = Saved::read_with_past(&GENESIS, saved, |SavedEntry { map, bytes, origin, .. }| {
            bygone.extend(split(bytes).filter(|_| map == TOPICS).map(|(number, _)| Dot { origin, number }));
        });
        read.map_or(Vec::new(), |_| bygone)
    }

    /// The whole bucket with its history, not compressed. Equal buckets may save to different bytes.
    pub fn save(&self) -> Vec<u8> {
        self.document.save()
    }

    /// Creates topics at so many seconds since 1970, each under its number of the origin's feed. Returns the change. A path that lives gets a new topic in place of
    /// the old. At most [`TOPICS_PER_CHANGE_MAX`] at once.
    pub fn create(&mut self, origin: Origin, time_s: u64, topics: &[(Path, &Definition, u64)]) -> Vec<u8> {
        debug_assert!(topics.len() <= TOPICS_PER_CHANGE_MAX, "the caller splits what is too much for one change");
        let change = self.document.commit(origin, time_s, |edit| {
            for (path, definition, number) in topics {
                // Removed first: equal bytes over equal bytes would make no operation, and so no topic.
                edit.remove(TOPICS, path.as_str());
                edit.put(TOPICS, path.as_str(), [&number.to_be_bytes()[..], &definition.to_bytes()].concat());
            }
        });
        change.unwrap_or_default()
    }

    /// Removes topics at so many seconds since 1970, with all concurrent creations that are seen here. Returns the change; `None` if none of them lives. At most
    /// [`TOPICS_PER_CHANGE_MAX`] at once.
    pub fn remove(&mut self, origin: Origin, time_s: u64, paths: &[Path]) -> Option<Vec<u8>> {
        debug_assert!(paths.len() <= TOPICS_PER_CHANGE_MAX, "the caller splits what is too much for one change");
        self.document.commit(origin, time_s, |edit| paths.iter().for_each(|path| edit.remove(TOPICS, path.as_str())))
    }

    /// Applies a change. Returns the paths that it created or removed topics at; none, if it was applied before.
    pub fn apply(&mut self, change: &[u8]) -> Result<Vec<Path>, DocumentError> {
        self.apply_all(&[change])
    }

    /// Applies changes in the given order, all or none: faster than one by one.
    pub fn apply_all(&mut self, changes: &[&[u8]]) -> Result<Vec<Path>, DocumentError> {
        self.document.apply(changes).map(paths)
    }

    /// Joins a peer's whole bucket into this one. Returns the paths that the changes it brought created or removed topics at.
    pub fn merge(&mut self, saved: &[u8]) -> Result<Vec<Path>, DocumentError> {
        self.document.merge(saved).map(paths)
    }

    /// The paths at which topics live, in order.
    pub fn paths(&self) -> Vec<Path> {
        self.topics().map(|(path, _)| path).collect()
    }

    /// The live topics in the order of their paths, with all live creations of each: the one that stands first.
    pub fn topics(&self) -> impl Iterator<Item = (Path, Vec<(Dot, DefinitionHash)>)> + '_ {
        self.document.entries(TOPICS).filter_map(|(key, entries)| {
            let creations: Vec<_> = entries.iter().filter_map(live).collect();
            let path = Path::parse(&key).ok()?;
            (!creations.is_empty()).then_some((path, creations))
        })
    }

    /// What has happened at a path, the newest last, as far as that is told ([`PAST_MAX`]), and whether there was more. The order is the same on every node, and has everything
    /// after what its maker knew of.
    pub fn past(&self, path: &Path) -> (Vec<Happening>, bool) {
        let (deeds, cut) = self.document.past(TOPICS, path.as_str());
        let happening = |Deed { origin, time_s, put, concurrent }| {
            let made = |bytes: &Vec<u8>| split(bytes).and_then(|(_, definition)| Definition::from_bytes(definition).ok());
            let what = put.map_or(Happened::Removed, |bytes| Happened::Made(made(&bytes)));
            Happening { origin, time_s, what, concurrent }
        };
        (deeds.into_iter().map(happening).collect(), cut)
    }

    /// The live creations of a path, the one that stands first; none if no topic lives there. Those with another definition than the
    /// first have lost to it.
    pub fn get(&self, path: &Path) -> Vec<(Dot, DefinitionHash)> {
        self.document.get(TOPICS, path.as_str()).iter().filter_map(live).collect()
    }

    /// The definition of a live topic by its hash. Looks through the whole bucket: a caller remembers what it got. `None` if no live
    /// topic has it, and for one that a newer version has written and this one cannot read.
    pub fn definition(&self, hash: &DefinitionHash) -> Option<Definition> {
        let mut entries = self.document.entries(TOPICS).flat_map(|(_, entries)| entries);
        let entry = entries.find(|entry| live(entry).is_some_and(|(_, found)| found == *hash))?;
        Definition::from_bytes(&entry.bytes[NUMBER_LEN..]).ok()
    }

    /// The sorted heads: equal exactly where buckets are.
    pub fn heads(&self) -> Vec<[u8; 32]> {
        self.document.heads()
    }

    /// Whether the change with this hash has been applied.
    pub fn has_change(&self, hash: &[u8; 32]) -> bool {
        self.document.has_change(hash)
    }
}

const NUMBER_LEN: usize = 8;

fn live(entry: &Entry) -> Option<(Dot, DefinitionHash)> {
    let (number, definition) = split(&entry.bytes)?;
    Some((Dot { origin: entry.origin, number }, DefinitionHash::of(definition)))
}

/// Number and definition of a creation.
fn split(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (number, definition) = bytes.split_first_chunk::<NUMBER_LEN>()?;
    (!definition.is_empty()).then(|| (u64::from_be_bytes(*number), definition))
}

fn paths(touched: BTreeSet<(MapIndex, String)>) -> Vec<Path> {
    let keys = touched.into_iter().filter(|(map, _)| *map == TOPICS).map(|(_, key)| key);
    keys.filter_map(|key| Path::parse(&key).ok()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::{
        chunk::is_sound_change,
        definition::{Properties, TopicType},
        id::{Incarnation, NodeId},
    };

    const TIME_S: u64 = 1_900_000_000;

    fn origin(node: u8) -> Origin {
        Origin { node: NodeId([node; 32]), incarnation: Incarnation { boot: 1, nonce: u64::from(node) } }
    }

    fn dot(node: u8, number: u64) -> Dot {
        Dot { origin: origin(node), number }
    }

    fn path(text: &str) -> Path {
        Path::parse(text).unwrap()
    }

    fn json() -> Definition {
        Definition::new(TopicType::Json, Properties::default())
    }

    fn string() -> Definition {
        Definition::new(TopicType::String, Properties::default())
    }

    fn create(bucket: &mut Bucket, node: u8, text: &str, definition: &Definition, number: u64) -> Vec<u8> {
        bucket.create(origin(node), TIME_S, &[(path(text), definition, number)])
    }

    #[test]
    fn a_bucket_begins_the_same_everywhere_and_for_ever() {
        let heads = Bucket::new().heads();
        let text: String = heads[0].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!((heads.len(), text.as_str()), (1, "ef3ae662b79ef0dbd2025bdadec429738197762be9a571770085a245747705cf"));
    }

    #[test]
    fn a_topic_is_created_removed_and_created_again_as_another() {
        let (mut here, mut there) = (Bucket::new(), Bucket::new());
        let change = create(&mut here, 1, "a/b", &json(), 7);
        assert_eq!(there.apply(&change), Ok(vec![path("a/b")]));
        assert_eq!(there.get(&path("a/b")), [(dot(1, 7), json().hash())]);
        assert_eq!(there.definition(&json().hash()), Some(json()));
        let change = there.remove(origin(2), TIME_S, &[path("a/b"), path("c")]).unwrap();
        assert_eq!(here.apply(&change), Ok(vec![path("a/b")]));
        assert_eq!((here.paths(), here.definition(&json().hash())), (vec![], None));
        assert_eq!(here.remove(origin(1), TIME_S, &[path("a/b")]), None);
        let change = create(&mut here, 1, "a/b", &json(), 8);
        there.apply(&change).unwrap();
        assert_eq!(there.get(&path("a/b")), [(dot(1, 8), json().hash())]);
        assert_eq!(here.heads(), there.heads());
    }

    #[test]
    fn equal_definitions_created_apart_are_one_topic_with_two_dots() {
        let (mut here, mut there) = (Bucket::new(), Bucket::new());
        let one = create(&mut here, 1, "a", &json(), 1);
        let other = create(&mut there, 2, "a", &json(), 1);
        here.apply(&other).unwrap();
        there.apply(&one).unwrap();
        for bucket in [&here, &there] {
            assert_eq!(bucket.get(&path("a")), [(dot(2, 1), json().hash()), (dot(1, 1), json().hash())]);
            assert_eq!(bucket.topics().collect::<Vec<_>>(), [(path("a"), bucket.get(&path("a")))]);
        }
        assert_eq!(here.heads(), there.heads());
    }

    #[test]
    fn of_different_definitions_one_stands_and_the_others_are_told() {
        let (mut here, mut there) = (Bucket::new(), Bucket::new());
        create(&mut here, 1, "b", &json(), 1);
        let one = create(&mut here, 1, "a", &json(), 2);
        let other = create(&mut there, 2, "a", &string(), 1);
        assert_eq!(there.apply(&one), Err(DocumentError::MissingDeps));
        there.merge(&here.save()).unwrap();
        here.apply(&other).unwrap();
        for bucket in [&here, &there] {
            // Made by the longer history, so automerge's later operation.
            assert_eq!(bucket.get(&path("a")), [(dot(1, 2), json().hash()), (dot(2, 1), string().hash())]);
            assert_eq!(bucket.definition(&string().hash()), Some(string()));
        }
        let change = here.remove(origin(1), TIME_S, &[path("a")]).unwrap();
        there.apply(&change).unwrap();
        assert_eq!(there.paths(), [path("b")]);
        assert_eq!((there.definition(&string().hash()), there.definition(&json().hash())), (None, Some(json())));
    }

    #[test]
    fn a_creation_that_the_remover_had_not_seen_survives_with_its_definition() {
        let (mut here, mut there) = (Bucket::new(), Bucket::new());
        let first = create(&mut here, 1, "a", &json(), 1);
        there.apply(&first).unwrap();
        let removal = here.remove(origin(1), TIME_S, &[path("a")]).unwrap();
        let again = create(&mut there, 2, "b", &json(), 1);
        here.apply(&again).unwrap();
        there.apply(&removal).unwrap();
        for bucket in [&here, &there] {
            assert_eq!(bucket.topics().collect::<Vec<_>>(), [(path("b"), vec![(dot(2, 1), json().hash())])]);
            assert_eq!(bucket.definition(&json().hash()), Some(json()));
        }
        assert_eq!(here.heads(), there.heads());
    }

    #[test]
    fn a_topic_created_over_a_live_one_takes_its_place_even_with_the_same_number() {
        let (mut here, mut there) = (Bucket::new(), Bucket::new());
        let first = create(&mut here, 1, "a", &json(), 1);
        there.apply(&first).unwrap();
        let second = create(&mut there, 2, "a", &json(), 1);
        here.apply(&second).unwrap();
        assert_eq!(here.get(&path("a")), [(dot(2, 1), json().hash())]);
    }

    /// What is told of a path: who, when, what, and whether concurrently.
    type Told = (u8, u64, Option<TopicType>, bool);

    fn past(bucket: &Bucket, text: &str) -> (Vec<Told>, bool) {
        let (happenings, cut) = bucket.past(&path(text));
        let told = happenings.into_iter().map(|Happening { origin, time_s, what, concurrent }| {
            let made = match what {
                Happened::Made(definition) => Some(definition.unwrap().topic_type().clone()),
                Happened::Removed => None,
            };
            (origin.node.0[0], time_s, made, concurrent)
        });
        (told.collect(), cut)
    }

    #[test]
    fn who_made_and_removed_a_topic_is_told_alike_everywhere() {
        let (mut here, mut there) = (Bucket::new(), Bucket::new());
        there.apply(&here.create(origin(1), 100, &[(path("a"), &json(), 1), (path("b"), &json(), 2)])).unwrap();
        here.apply(&there.remove(origin(2), 200, &[path("a")]).unwrap()).unwrap();
        let one = here.create(origin(1), 310, &[(path("a"), &string(), 3)]);
        let other = there.create(origin(2), 300, &[(path("a"), &json(), 1)]);
        here.apply(&other).unwrap();
        there.apply(&one).unwrap();
        let removal = here.remove(origin(1), 400, &[path("a")]).unwrap();
        there.merge(&here.save()).unwrap();
        let (of_json, of_string) = (Some(TopicType::Json), Some(TopicType::String));
        let told = vec![
            (1, 100, of_json.clone(), false),
            (2, 200, None, false),
            (1, 310, of_string, true),
            (2, 300, of_json.clone(), true),
            (1, 400, None, false),
        ];
        let read = Bucket::load(&here.save()).unwrap();
        for bucket in [&here, &there, &read] {
            assert_eq!(past(bucket, "a"), (told.clone(), false));
            assert_eq!(past(bucket, "b"), (vec![(1, 100, of_json.clone(), false)], false));
            assert_eq!(past(bucket, "c"), (vec![], false));
        }
        assert_eq!(there.apply(&removal), Ok(vec![]));
    }

    #[test]
    fn of_a_long_past_the_end_is_told() {
        let mut bucket = Bucket::new();
        for number in 1..=70 {
            bucket.create(origin(1), number, &[(path("a"), &json(), number)]);
            bucket.remove(origin(1), number, &[path("a")]).unwrap();
        }
        let (told, cut) = past(&bucket, "a");
        assert!(cut && told.len() == PAST_MAX);
        assert_eq!(told.last(), Some(&(1, 70, None, false)));
        assert_eq!(told[0], (1, 21, Some(TopicType::Json), false));
    }

    #[test]
    fn a_change_has_a_time_that_can_be_one() {
        let change = create(&mut Bucket::new(), 1, "a", &json(), 1);
        let mut expanded = automerge::Change::try_from(&change[..]).unwrap().decode();
        for (time, sound) in
            [(-1, false), (0, true), (253_402_300_799, true), (253_402_300_800, false), (i64::MAX, false), (i64::MIN, false)]
        {
            expanded.time = time;
            let applied = Bucket::new().apply(automerge::Change::from(expanded.clone()).raw_bytes());
            assert_eq!(applied.is_ok(), sound, "{time}: {applied:?}");
        }
        // What this node's clock shows beyond that is not sent to those who would refuse it.
        let change = Bucket::new().create(origin(1), u64::MAX, &[(path("a"), &json(), 1)]);
        assert_eq!(Bucket::new().apply(&change), Ok(vec![path("a")]));
    }

    #[test]
    fn changes_wait_for_what_they_build_on_and_count_once() {
        let (mut here, mut there) = (Bucket::new(), Bucket::new());
        let first = create(&mut here, 1, "a", &json(), 1);
        let second = create(&mut here, 1, "b", &json(), 2);
        let before = there.save();
        assert_eq!(there.apply(&second), Err(DocumentError::MissingDeps));
        assert_eq!(there.apply_all(&[&second, &first]), Err(DocumentError::MissingDeps));
        assert_eq!(there.save(), before, "nothing is queued");
        assert_eq!(there.apply_all(&[&first, &second, &first]), Ok(vec![path("a"), path("b")]));
        assert_eq!(there.apply(&first), Ok(vec![]));
        assert_eq!(there.heads(), here.heads());
        assert!(here.heads().iter().all(|head| there.has_change(head)));
    }

    #[test]
    fn an_actor_that_numbers_two_changes_alike_is_refused() {
        let (mut here, mut clone, mut there) = (Bucket::new(), Bucket::new(), Bucket::new());
        let one = create(&mut here, 1, "a", &json(), 1);
        let other = create(&mut clone, 1, "b", &json(), 1);
        there.apply(&one).unwrap();
        let before = there.save();
        assert_eq!(there.apply(&other), Err(DocumentError::DuplicateSeq(origin(1), 1)));
        assert_eq!(there.merge(&clone.save()), Err(DocumentError::DuplicateSeq(origin(1), 1)));
        assert_eq!(there.save(), before);
    }

    #[test]
    fn a_saved_bucket_goes_on_where_it_was() {
        let mut here = Bucket::new();
        create(&mut here, 1, "a", &json(), 1);
        let mut loaded = Bucket::load(&here.save()).unwrap();
        assert_eq!(loaded.topics().collect::<Vec<_>>(), here.topics().collect::<Vec<_>>());
        let change = create(&mut loaded, 1, "b", &string(), 2);
        here.apply(&change).unwrap();
        assert_eq!(here.heads(), loaded.heads());
        assert_eq!(Bucket::load(b"").unwrap_err(), DocumentError::Foreign);
        assert_eq!(Bucket::load(b"not automerge").unwrap_err(), DocumentError::Unsound("document"));
    }

    /// Heads and topics of a bucket.
    type Shown = (Vec<[u8; 32]>, Vec<(Path, Vec<(Dot, DefinitionHash)>)>);

    fn decoded(bucket: &Bucket) -> Shown {
        (bucket.heads(), bucket.topics().collect())
    }

    fn read(saved: &[u8]) -> Option<Shown> {
        let SavedBucket { heads, topics, definitions } = Bucket::read(saved)?;
        assert!(definitions.iter().all(|(hash, definition)| definition.hash() == *hash));
        Some((heads, topics.into_iter().map(|topic| (topic.path, topic.creations.into_vec())).collect()))
    }

    /// A bucket with topics of two nodes, conflicts, equal creations, overtaken ones and removed ones.
    fn with_a_past() -> Bucket {
        let (mut here, mut there) = (Bucket::new(), Bucket::new());
        for (number, text) in ["a", "a/b", "c", "d/e"].into_iter().enumerate() {
            create(&mut here, 1, text, &json(), number as u64 + 1);
            let theirs = if number == 1 { string() } else { json() };
            create(&mut there, 2, text, &theirs, number as u64 + 1);
        }
        here.merge(&there.save()).unwrap();
        here.remove(origin(1), TIME_S, &[path("c")]).unwrap();
        create(&mut here, 1, "a", &string(), 9);
        here
    }

    #[test]
    fn a_saved_bucket_is_read_without_decoding_it() {
        let bucket = with_a_past();
        let (heads, topics) = read(&bucket.save()).unwrap();
        assert_eq!((heads, topics.len()), (bucket.heads(), 3));
        assert_eq!(Bucket::read(&bucket.save()).unwrap().definitions.len(), 2);
        assert_eq!(topics, bucket.topics().collect::<Vec<_>>());
        assert_eq!(read(&Bucket::new().save()), Some((Bucket::new().heads(), Vec::new())));
        assert!(read(b"").is_none() && read(b"no bucket").is_none());
        let policy = crate::policy::Policy::new().save();
        assert!(read(&policy).is_none(), "another kind of document");
    }

    #[test]
    fn a_saved_bucket_tells_which_creations_are_gone() {
        let mut bucket = with_a_past();
        let gone = |bucket: &Bucket| Bucket::read_bygone(&bucket.save()).into_iter().collect::<BTreeSet<_>>();
        // At c both creations were removed, at a both were overtaken.
        let overtaken = [dot(1, 1), dot(2, 1), dot(1, 3), dot(2, 3)];
        assert_eq!(gone(&bucket), overtaken.into());
        bucket.remove(origin(2), TIME_S, &[path("a/b")]).unwrap();
        assert_eq!(gone(&bucket), overtaken.into_iter().chain([dot(1, 2), dot(2, 2)]).collect());
        assert_eq!(gone(&Bucket::new()), BTreeSet::new());
        assert_eq!(Bucket::read_bygone(b"no bucket"), []);
    }

    #[test]
    fn no_single_forged_byte_makes_a_document_panic() {
        let whole = with_a_past().save();
        for (place, byte) in (8..whole.len()).flat_map(|place| (0..24).map(move |byte| (place, byte))) {
            let mut saved = whole.clone();
            saved[place] = byte;
            let sum = Sha256::digest(&saved[8..]);
            saved[4..8].copy_from_slice(&sum[..4]);
            let _ = Bucket::new().merge(&saved);
            // As one that was taken as it came.
            let _ = Bucket::load(&saved).map(|bucket| bucket.past(&path("a")));
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Create(usize, &'static str, bool),
        Remove(usize, &'static str),
        /// Deliver the change at this place of all that the node lacks and can take.
        Deliver(usize, prop::sample::Index),
        Merge(usize, usize),
        Reload(usize),
    }

    const NODES: usize = 3;

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let node = || 0..NODES;
        let path = || prop::sample::select(vec!["a", "b", "b/c", "d"]);
        let step = prop_oneof![
            3 => (node(), path(), any::<bool>()).prop_map(|(node, path, json)| Step::Create(node, path, json)),
            2 => (node(), path()).prop_map(|(node, path)| Step::Remove(node, path)),
            6 => (node(), any::<prop::sample::Index>()).prop_map(|(node, which)| Step::Deliver(node, which)),
            1 => (node(), node()).prop_map(|(from, to)| Step::Merge(from, to)),
            1 => node().prop_map(Step::Reload),
        ];
        prop::collection::vec(step, 0..50)
    }

    proptest! {
        #[test]
        fn any_order_of_delivery_ends_alike(steps in steps()) {
            let mut nodes = vec![Bucket::new(); NODES];
            let mut changes: Vec<Vec<u8>> = Vec::new();
            let mut number = 0;
            for step in steps {
                match step {
                    Step::Create(node, text, is_json) => {
                        number += 1;
                        let definition = if is_json { json() } else { string() };
                        changes.push(create(&mut nodes[node], node as u8, text, &definition, number));
                    }
                    Step::Remove(node, text) => changes.extend(nodes[node].remove(origin(node as u8), TIME_S, &[path(text)])),
                    Step::Deliver(node, which) if !changes.is_empty() => {
                        let before = nodes[node].topics().collect::<Vec<_>>();
                        let change = which.get(&changes);
                        match nodes[node].apply(change) {
                            Ok(touched) => {
                                let untouched = |(path, _): &&(Path, Vec<_>)| !touched.contains(path);
                                prop_assert!(before.iter().filter(untouched).eq(nodes[node].topics().collect::<Vec<_>>().iter().filter(untouched)));
                            }
                            Err(error) => {
                                prop_assert_eq!(error, DocumentError::MissingDeps);
                                prop_assert_eq!(before, nodes[node].topics().collect::<Vec<_>>());
                            }
                        }
                    }
                    Step::Deliver(..) => {}
                    Step::Merge(from, to) => {
                        let saved = nodes[from].save();
                        nodes[to].merge(&saved).unwrap();
                    }
                    Step::Reload(node) => nodes[node] = Bucket::load(&nodes[node].save()).unwrap(),
                }
            }
            // Two by changes in the order of their making, the rest by whole documents.
            let (merged, rest) = nodes.split_first_mut().unwrap();
            for node in rest.iter_mut() {
                node.apply_all(&changes.iter().map(Vec::as_slice).collect::<Vec<_>>()).unwrap();
                merged.merge(&node.save()).unwrap();
            }
            for node in &nodes {
                prop_assert_eq!(node.heads(), nodes[0].heads());
                prop_assert_eq!(node.topics().collect::<Vec<_>>(), nodes[0].topics().collect::<Vec<_>>());
                prop_assert_eq!(read(&node.save()), Some(decoded(node)));
                for (path, creations) in node.topics() {
                    prop_assert_eq!(&node.get(&path), &creations);
                    for (_, hash) in creations {
                        prop_assert_eq!(node.definition(&hash).map(|definition| definition.hash()), Some(hash));
                    }
                }
            }
        }

        #[test]
        fn forged_changes_are_refused_or_do_what_a_node_could_have_done(
            damage in prop::collection::vec((any::<prop::sample::Index>(), 0u8..24), 1..4), removes: bool,
        ) {
            let (mut here, mut there) = (Bucket::new(), Bucket::new());
            let first = create(&mut here, 1, "a", &json(), 1);
            there.apply(&first).unwrap();
            create(&mut there, 2, "a", &json(), 1);
            here.merge(&there.save()).unwrap();
            let mut elder = Bucket::new();
            elder.merge(&there.save()).unwrap();
            let mut change = match removes {
                true => there.remove(origin(2), TIME_S, &[path("a")]).unwrap(),
                false => create(&mut there, 2, "b", &string(), 2),
            };
            for (place, byte) in damage {
                // After the header and the dependency, so that something is left to forge.
                let place = 46 + place.index(change.len() - 46);
                change[place] = byte;
            }
            if is_sound_change(&change) && let Ok(forged) = automerge::Change::try_from(&change[..]) {
                change[4..8].copy_from_slice(&forged.hash().0[..4]);
                let before = here.heads();
                if here.apply(&change).is_err() {
                    prop_assert_eq!(here.heads(), before);
                } else {
                    elder.apply(&change).unwrap();
                    prop_assert_eq!(here.topics().collect::<Vec<_>>(), elder.topics().collect::<Vec<_>>());
                }
            }
            create(&mut here, 1, "c", &json(), 3);
            prop_assert!(!Bucket::load(&here.save()).unwrap().get(&path("c")).is_empty());
        }

        #[test]
        fn forged_documents_are_read_as_automerge_decodes_them(
            damage in prop::collection::vec((any::<prop::sample::Index>(), 0u8..24), 0..3),
        ) {
            let mut saved = with_a_past().save();
            for (place, byte) in damage {
                let place = 8 + place.index(saved.len() - 8);
                saved[place] = byte;
            }
            let sum = Sha256::digest(&saved[8..]);
            saved[4..8].copy_from_slice(&sum[..4]);
            let mut taken = Bucket::new();
            // A history that is not that of the heads, only automerge sees.
            if let (Some(read), Ok(_)) = (read(&saved), taken.merge(&saved)) {
                prop_assert_eq!(read, decoded(&taken));
            }
        }

        #[test]
        fn damaged_changes_and_documents_are_refused_or_harmless(at: prop::sample::Index, byte: u8, whole: bool) {
            let (mut here, mut there) = (Bucket::new(), Bucket::new());
            let mut change = create(&mut here, 1, "a", &json(), 1);
            let bytes = if whole { &mut here.save() } else { &mut change };
            let place = at.index(bytes.len());
            let damaged = bytes[place] != byte;
            bytes[place] = byte;
            let outcome = if whole { there.merge(bytes) } else { there.apply(bytes) };
            prop_assert_eq!(outcome.is_err(), damaged);
            if whole {
                prop_assert_eq!(read(bytes).is_none(), damaged);
            }
            if damaged {
                prop_assert_eq!(there.heads(), Bucket::new().heads());
            }
        }
    }
}
