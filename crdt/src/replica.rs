//! The replica: everything that one node holds, behind one door.
//!
//! Commands are this node's own writes; [`Replica::parts`] opens one section to the link that brings writes from elsewhere. What
//! happened comes out of [`Replica::take_events`], what must reach the disk out of [`Replica::take_rows`].

use std::{
    cell::{RefCell, RefMut},
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use crate::{
    access::{self, Access, AccessError, Fact, Rights, Rules},
    blob::{BlobError, BlobHash, Blobs},
    bucket::Happening,
    definition::{Definition, Durability, TopicType},
    displaced::{Beaten, Displaced, Log, Noticed},
    frontier::{DotIx, Dots, OriginIx, Origins},
    id::{DisplacedId, Dot, NodeId, Origin, Plane, SectionId},
    paged::{LinesError, Splice, Summary},
    path::Path,
    persist::{Row, Table},
    policy::{PolicyError, SectionEdit, SectionPolicy},
    registers::Write,
    rows::{self, BadRow},
    sabotage::{Sabotage, is},
    section::{Context, Event, Frontiers, Section, StandingKey, Told},
    series::{self, Content, EventIx, EventName, ValueKey},
    stability::Members,
    stamp::{Stamp, Under},
    standing::{NodeRecord, Revocation, Standing},
    tree::{Topic, Tree, TreeError},
    value::{self, ValueError},
    vaults::Vaults,
};

/// Why a path cannot be used here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("section {section} is not held by this node")]
pub struct NotHeld {
    /// The section that the path belongs to.
    pub section: SectionId,
}

/// What adding a topic came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Added {
    /// It was created.
    Created,
    /// It existed with an equal definition; nothing changed.
    Exists,
}

/// Why a topic was not added. Nothing was changed for it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddError {
    /// Its section is held elsewhere.
    #[error(transparent)]
    NotHeld(#[from] NotHeld),
    /// A topic with another definition lives there.
    #[error("a topic of type {} with another definition exists", definition.topic_type())]
    Mismatch {
        /// The definition that stands.
        definition: Arc<Definition>,
    },
}

/// Why a value was not written. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum SetError {
    /// Its section is held elsewhere.
    #[error(transparent)]
    NotHeld(#[from] NotHeld),
    /// There is no such topic.
    #[error("there is no such topic")]
    NoTopic,
    /// The value does not fit the topic's type.
    #[error(transparent)]
    Invalid(#[from] ValueError),
    /// What is there was written under a greater epoch or rank: by a source of which this node has not heard otherwise yet.
    #[error("what is there was written under epoch {epoch}, which is greater")]
    Outranked {
        /// That epoch.
        epoch: u64,
    },
    /// It is not a topic of events.
    #[error("a topic of type {0} has no events")]
    NoSeries(&'static str),
    /// It is not a topic of lines.
    #[error("a topic of type {0} has no lines")]
    NoList(&'static str),
    /// Its lines cannot be so.
    #[error(transparent)]
    Lines(#[from] LinesError),
    /// There is no such event, or none any more.
    #[error("there is no event {0}")]
    NoEvent(EventName),
    /// Both sides of a split have appended one of this sequence.
    #[error("more than one event has the sequence {}", .0.sequence)]
    AmbiguousEvent(EventName, Vec<EventName>),
}

/// Who writes, and when.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Writer<'a> {
    /// By which authority.
    pub under: Under,
    /// The node's wall clock, in milliseconds since 1970, for people to read.
    pub time_ms: u64,
    /// The name by which events are signed.
    pub author: &'a str,
}

/// A value that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// Where the write stands.
    pub written: Written,
    /// Which durability the topic itself asks for.
    pub durability: Option<Durability>,
    /// Which event it is, if the topic is one of events.
    pub event: Option<EventIx>,
}

/// Which events of a topic are wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventRange {
    /// Of which sequences.
    pub sequences: std::ops::RangeInclusive<u64>,
    /// Written when, by their writers' clocks, in milliseconds since 1970.
    pub times_ms: std::ops::RangeInclusive<u64>,
    /// Only so many, the newest.
    pub last: Option<usize>,
    /// Only those that come after this one.
    pub after: Option<EventName>,
    /// No more than so many.
    pub limit: usize,
}

impl Default for EventRange {
    fn default() -> Self {
        EventRange { sequences: 0..=u64::MAX, times_ms: 0..=u64::MAX, last: None, after: None, limit: usize::MAX }
    }
}

/// Where a write stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Its section.
    pub section: SectionId,
    /// Its plane.
    pub plane: Plane,
    /// Its place in its feed.
    pub dot: DotIx,
}

/// Why stored state could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A newer version wrote it.
    #[error("the data has format {found}, this version reads up to {}; run the newer version", rows::FORMAT)]
    Format {
        /// The format found.
        found: u32,
    },
    /// A row cannot be read.
    #[error(transparent)]
    Row(#[from] BadRow),
    /// The tree's documents and changes do not fit together.
    #[error("the stored tree of section {section} is damaged: {error}")]
    Tree {
        /// Its section.
        section: SectionId,
        /// What is wrong.
        error: TreeError,
    },
}

const META_FORMAT: &[u8] = b"format";
const META_ORIGIN: u8 = b'o';
const META_CLOCK: u8 = b'c';
const META_EPOCH: u8 = b'e';
const META_HELD: u8 = b'h';
const META_RELEASED: u8 = b'r';

/// A holding of a section, and its frontiers when a batch was taken.
type Held = (SectionId, u64, Frontiers);

/// A topic that moves from one section to another: path, definition, and the time and bytes of its value, or of its events with their sequences.
type Moved = (Path, Definition, Vec<(Option<u64>, u64, Arc<[u8]>)>);

type Topics<'a> = Box<dyn Iterator<Item = &'a Topic> + 'a>;

/// What a path shows: see [`Replica::shown`].
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    /// The section of the path.
    pub section: SectionId,
    /// The topic there.
    pub topic: &'a Topic,
    /// The topic whose type and value it shows, and its section.
    pub of: (SectionId, &'a Topic),
}

impl Shown<'_> {
    /// Whether it shows another topic.
    pub fn is_slave(&self) -> bool {
        !std::ptr::eq(self.topic, self.of.1)
    }
}

/// When an event was appended, by its author's clock: an edit does not make it any younger.
pub fn appended_ms(told: &Told<'_>) -> u64 {
    let original = told.write.value.as_deref().and_then(Content::from_bytes).and_then(|content| content.original);
    original.map_or(told.write.time_ms, |(_, time_ms)| time_ms)
}

/// Refuses what would not stand against what is there.
fn not_outranked(section: &Section, origins: &Origins, topic: &Topic, under: &Under) -> Result<(), SetError> {
    let held = if section.epoch() > 0 { section.newest_of(origins, topic).map(|held| &held.stamp) } else { None };
    match held {
        Some(Stamp { epoch, rank, .. }) if (*epoch, rank) > (under.epoch, &under.rank) => Err(SetError::Outranked { epoch: *epoch }),
        _ => Ok(()),
    }
}

/// What an event's register is to hold.
fn content_of(author: &str, value: &[u8], original: Option<(&str, u64)>) -> Result<Arc<[u8]>, SetError> {
    let bytes = Content { author: series::author(author), value, original }.to_bytes();
    match bytes.len() {
        length if length > value::VALUE_MAX => Err(ValueError::TooLong(length).into()),
        _ => Ok(bytes.into()),
    }
}

/// See the module.
#[derive(Debug)]
pub struct Replica {
    own: Origin,
    /// See [`Replica::set_time`].
    time_ms: u64,
    origins: Origins,
    stored_origins: usize,
    sections: BTreeMap<SectionId, Section>,
    /// Who numbers this node's writes in each section: the node's origin, or one made up anew when a section is held again
    /// within one run, since its old numbers are spent.
    writers: BTreeMap<SectionId, OriginIx>,
    holds: u64,
    /// How many holdings have ended, and the changes of their sections.
    ended: (u64, u64),
    /// Which holding of each section this is: one given up and held again is another, with nothing in it.
    holdings: BTreeMap<SectionId, u64>,
    /// Sections that an operator has given up here, so that they are not held again by themselves.
    released: BTreeSet<SectionId>,
    policies: BTreeMap<SectionId, SectionPolicy>,
    contested: Vec<SectionPolicy>,
    roots: BTreeMap<Path, SectionId>,
    /// Who may do what, and the heads of the document that says so.
    rules: (Arc<Rules>, Vec<[u8; 32]>),
    /// The other members, and what they are known to hold.
    pub members: Members,
    /// What this node's voter in quorum sections has promised.
    pub vaults: Vaults,
    blobs: Blobs,
    noticed: Noticed,
    events: Vec<Event>,
    deleted_rows: Vec<Row>,
    meta_dirty: bool,
    marks: VecDeque<(u64, Vec<Held>)>,
    next_mark: u64,
    nodes: RefCell<Nodes>,
}

/// What the built-in section says of nodes, as it was read last: they are few among what may be very many records of other kinds.
#[derive(Debug, Default)]
struct Nodes {
    /// Of which holding of the section, after how many changes of such records.
    of: Option<(u64, u64)>,
    members: Arc<BTreeMap<NodeId, NodeRecord>>,
    revoked: Arc<BTreeMap<NodeId, Revocation>>,
}

impl Replica {
    /// An empty replica that writes as `own`.
    pub fn new(own: Origin) -> Self {
        let mut replica = Replica {
            own,
            time_ms: 0,
            origins: Origins::default(),
            stored_origins: 0,
            sections: BTreeMap::new(),
            writers: BTreeMap::new(),
            holds: 0,
            ended: (0, 0),
            holdings: BTreeMap::new(),
            released: BTreeSet::new(),
            policies: BTreeMap::new(),
            contested: Vec::new(),
            roots: BTreeMap::new(),
            rules: Default::default(),
            members: Members::default(),
            vaults: Vaults::new(own),
            blobs: Blobs::default(),
            noticed: Noticed::default(),
            events: Vec::new(),
            deleted_rows: Vec::new(),
            meta_dirty: true,
            marks: VecDeque::new(),
            next_mark: 0,
            nodes: RefCell::default(),
        };
        replica.open(SectionId::MESH);
        replica.open(SectionId::LOCAL);
        replica
    }

    // Reading.

    /// The origin of this node's writes.
    pub fn own(&self) -> Origin {
        self.own
    }

    /// All origins known.
    pub fn origins(&self) -> &Origins {
        &self.origins
    }

    /// Names an origin that a neighbour told of.
    pub fn intern(&mut self, origin: Origin) -> OriginIx {
        self.origins.intern(origin)
    }

    /// A held section.
    pub fn section(&self, id: SectionId) -> Option<&Section> {
        self.sections.get(&id)
    }

    /// A held section to merge into, with what it shares with the rest.
    pub fn parts(&mut self, id: SectionId) -> Option<(&mut Section, Context<'_>)> {
        let section = self.sections.get_mut(&id)?;
        Some((section, Context { origins: &mut self.origins, events: &mut self.events, blobs: &mut self.blobs, time_ms: self.time_ms }))
    }

    /// The blobs that are here, and those that are wanted.
    pub fn blobs(&self) -> &Blobs {
        &self.blobs
    }

    /// Takes a blob in, whether any topic's definition names it yet or not.
    ///
    /// # Errors
    /// It is too long, or there is no room.
    pub fn put_blob(&mut self, content: Arc<[u8]>) -> Result<BlobHash, BlobError> {
        let hash = BlobHash::of(&content);
        if self.blobs.put(hash, content)?
            && self.blobs.is_named(&hash)
            && let Some(blob) = self.blobs.blob(&hash).cloned()
        {
            let mut cx = Context { origins: &mut self.origins, events: &mut self.events, blobs: &mut self.blobs, time_ms: self.time_ms };
            self.sections.values_mut().for_each(|section| section.blob_came(&mut cx, &hash, &blob));
        }
        Ok(hash)
    }

    /// The sections held and replicated, the built-in one first.
    pub fn held(&self) -> impl Iterator<Item = SectionId> + '_ {
        self.sections.keys().copied().filter(|id| *id != SectionId::LOCAL)
    }

    /// How often something has changed that neighbours are told of: a frontier, or which sections are held. As long as this is the same, so is all that.
    pub fn changes(&self) -> u64 {
        self.turnover() + self.ended.1 + self.sections.values().map(Section::changes).sum::<u64>()
    }

    /// How often a section was taken up or given up.
    pub fn turnover(&self) -> u64 {
        self.holds + self.ended.0
    }

    /// The same of how far everything is on this node's disk.
    pub fn durable_changes(&self) -> u64 {
        let of = |section: &Section| Plane::ALL.iter().map(|plane| section.durable()[*plane].changes()).sum::<u64>();
        self.turnover() + self.ended.1 + self.sections.values().map(of).sum::<u64>()
    }

    /// Names this holding of a section: another one than before whenever the section was given up and held again. `None` if it isn't held.
    pub fn holding(&self, id: SectionId) -> Option<u64> {
        self.sections.contains_key(&id).then(|| self.holdings.get(&id).copied().unwrap_or(0))
    }

    /// The sections declared on the mesh.
    pub fn policies(&self) -> impl Iterator<Item = &SectionPolicy> {
        self.policies.values()
    }

    /// A declared section.
    pub fn policy(&self, id: SectionId) -> Option<&SectionPolicy> {
        self.policies.get(&id)
    }

    /// Sections declared in a split whose root another one has too, and which lost.
    pub fn contested(&self) -> &[SectionPolicy] {
        &self.contested
    }

    /// The deepest declared section above a path, held or not.
    pub fn section_of(&self, path: &Path) -> SectionId {
        path.self_and_ancestors().filter_map(|root| self.roots.get(root)).next().copied().unwrap_or(SectionId::LOCAL)
    }

    /// Where the topic at a path is, or would be made: in the section that the path belongs to, unless it is a paged one, which is this node's alone, and nothing hides it.
    pub fn home_of(&self, path: &Path) -> SectionId {
        let section = self.section_of(path);
        let hidden = || self.sections.get(&section).is_some_and(|held| held.tree.topic(path.as_str()).is_some());
        if section != SectionId::LOCAL && self.is_paged(path) && !hidden() { SectionId::LOCAL } else { section }
    }

    /// Whether this node has a paged topic at a path, hidden or not.
    pub fn is_paged(&self, path: &Path) -> bool {
        self.sections.get(&SectionId::LOCAL).is_some_and(|local| local.is_list(path))
    }

    /// Where this node has a paged topic that a replicated one hides, which has come to the same path from elsewhere.
    pub fn hidden(&self) -> impl Iterator<Item = &Path> {
        let lists = self.sections.get(&SectionId::LOCAL).into_iter().flat_map(Section::lists);
        lists.filter(|path| self.home_of(path) != SectionId::LOCAL)
    }

    /// The held section that the topic at a path is in, or would be made in.
    pub fn locate(&self, path: &Path) -> Result<SectionId, NotHeld> {
        self.as_held(self.home_of(path))
    }

    /// The held section that a path belongs to, whatever is at it.
    pub fn locate_branch(&self, path: &Path) -> Result<SectionId, NotHeld> {
        self.as_held(self.section_of(path))
    }

    fn as_held(&self, section: SectionId) -> Result<SectionId, NotHeld> {
        if self.sections.contains_key(&section) { Ok(section) } else { Err(NotHeld { section }) }
    }

    /// The live topic at a path, and its section.
    pub fn topic(&self, path: &Path) -> Option<(SectionId, &Topic)> {
        let section = self.home_of(path);
        Some((section, self.sections.get(&section)?.tree.topic(path.as_str())?))
    }

    /// The path of a topic.
    pub fn path_of(&self, section: SectionId, topic: DotIx) -> Option<&Path> {
        self.sections.get(&section)?.tree.path_of(topic)
    }

    /// Whether any topic may say when it is to be removed.
    pub fn removes_topics(&self) -> bool {
        self.sections.values().flat_map(|section| section.tree.definitions()).any(|definition| definition.removal().is_some())
    }

    /// Whether any topic is another name for one.
    pub fn has_slaves(&self) -> bool {
        let is_slave = |definition: &Definition| matches!(definition.topic_type(), TopicType::Slave(_));
        self.sections.values().flat_map(|section| section.tree.definitions()).any(is_slave)
    }

    /// What a path shows to its readers: a topic, and the one whose type and value it shows, which is itself unless it is a slave. `None` if there is no topic, or
    /// one whose master is not here.
    pub fn shown(&self, path: &Path) -> Option<Shown<'_>> {
        let (section, topic) = self.topic(path)?;
        let of = match topic.definition.topic_type() {
            TopicType::Slave(master) => {
                self.topic(master).filter(|(_, master)| !matches!(master.definition.topic_type(), TopicType::Slave(_)))?
            }
            _ => (section, topic),
        };
        Some(Shown { section, topic, of })
    }

    /// The value that a topic shows to those who come now: none, if it keeps none for them.
    pub fn kept_value(&self, shown: &Shown<'_>) -> Option<&Write> {
        self.shown_value(shown).filter(|_| shown.of.1.definition.properties().retain)
    }

    /// The value that a topic shows.
    pub fn shown_value(&self, shown: &Shown<'_>) -> Option<&Write> {
        let (section, topic) = shown.of;
        self.sections.get(&section)?.value_of(&self.origins, topic)
    }

    /// Which event the value is that a topic shows, if it is a series.
    pub fn last_event(&self, shown: &Shown<'_>) -> Option<EventIx> {
        let (section, topic) = shown.of;
        topic.definition.topic_type().series()?;
        self.sections.get(&section)?.last_event(&self.origins, topic).map(|told| told.event)
    }

    /// Whether a topic has an event.
    pub fn has_event(&self, path: &Path, event: EventIx) -> bool {
        let Some((section, topic)) = self.topic(path) else { return false };
        let Some(held) = self.sections.get(&section) else { return false };
        held.events(&self.origins, topic, event.sequence..=event.sequence).any(|told| told.event == event)
    }

    /// A topic's newest value.
    pub fn value(&self, section: SectionId, path: &Path) -> Option<&Write> {
        self.sections.get(&section)?.value(&self.origins, path.as_str())
    }

    /// All live topics whose path is at or after `from`, in path order, over all sections held here.
    pub fn topics_from<'a>(&'a self, from: &'a str) -> impl Iterator<Item = (SectionId, &'a Topic)> {
        let mut heads: Vec<(SectionId, std::iter::Peekable<Topics<'a>>)> = self
            .sections
            .iter()
            .map(|(id, section)| {
                let topics: Topics<'a> = Box::new(section.tree.topics_from(from));
                (*id, topics.peekable())
            })
            .collect();
        std::iter::from_fn(move || {
            let least = heads
                .iter_mut()
                .enumerate()
                .filter_map(|(at, (_, topics))| topics.peek().map(|topic| (topic.path.clone(), at)))
                .min()
                .map(|(_, at)| at)?;
            let (id, topics) = &mut heads[least];
            topics.next().map(|topic| (*id, topic))
        })
        // A topic of an outer section that a nested one has taken over stays hidden until its removal arrives.
        .filter(|(id, topic)| self.home_of(&topic.path) == *id)
    }

    /// Whether this node's declared name of a dot is this.
    pub fn dot(&self, ix: DotIx) -> Dot {
        self.origins.dot(ix)
    }

    /// How many topics live here, over all sections held and the local ones.
    pub fn topic_count(&self) -> usize {
        self.sections.values().map(|section| section.tree.len()).sum()
    }

    /// The length of all values of one section, or of all, in bytes.
    pub fn value_bytes(&self, of: Option<SectionId>) -> u64 {
        let sections = self.sections.iter().filter(|(id, _)| of.is_none_or(|of| of == **id)).map(|(_, section)| section);
        sections
            .flat_map(|section| section.values.iter())
            .filter_map(|(_, write)| write.value.as_ref())
            .map(|value| value.len() as u64)
            .sum()
    }

    /// The displaced logs of all sections held here, and what has been noticed and is in none of them yet: from the first written to the last.
    pub fn displaced(&self) -> Vec<(DisplacedId, Displaced)> {
        let logs = self.sections.values().flat_map(|section| Log::read(section, &self.origins).entries().collect::<Vec<_>>());
        let noticed = self.noticed.iter().map(|(id, entry)| (id, entry.clone()));
        let all = logs.chain(noticed).map(|(id, entry)| ((entry.time_ms, id), entry));
        all.collect::<BTreeMap<_, _>>().into_iter().map(|((_, id), entry)| (id, entry)).collect()
    }

    /// The names of what a section's displaced log lists, if the section is held here.
    pub fn displaced_ids(&self, section: SectionId) -> Vec<DisplacedId> {
        self.sections.get(&section).map(|section| Log::read(section, &self.origins).ids().collect()).unwrap_or_default()
    }

    /// How many entries [`Replica::displaced`] has.
    pub fn displaced_count(&self) -> usize {
        let logs = self.sections.keys().flat_map(|section| self.displaced_ids(*section));
        logs.chain(self.noticed.iter().map(|(id, _)| id)).collect::<BTreeSet<_>>().len()
    }

    /// What has been noticed here and is in no log yet.
    pub fn noticed(&self) -> &Noticed {
        &self.noticed
    }

    /// A member's record.
    pub fn node(&self, node: NodeId) -> Option<NodeRecord> {
        self.standing(SectionId::MESH, Standing::Node(node))
    }

    /// All members' records.
    pub fn nodes(&self) -> Arc<BTreeMap<NodeId, NodeRecord>> {
        self.read_nodes().members.clone()
    }

    /// All revoked nodes.
    pub fn revoked(&self) -> Arc<BTreeMap<NodeId, Revocation>> {
        self.read_nodes().revoked.clone()
    }

    fn read_nodes(&self) -> RefMut<'_, Nodes> {
        let mesh = self.sections.get(&SectionId::MESH);
        let present = self.holding(SectionId::MESH).zip(mesh.map(|mesh| mesh.standing.watched_changes()));
        let mut nodes = self.nodes.borrow_mut();
        if nodes.of != present {
            let (mut members, mut revoked) = (BTreeMap::new(), BTreeMap::new());
            for (key, write) in mesh.into_iter().flat_map(|mesh| mesh.standing.iter()).filter(|(key, _)| Standing::is_of_node(key)) {
                let Some(value) = write.value.as_deref() else { continue };
                match Standing::of_key(key) {
                    Some(Standing::Node(node)) => members.extend(minicbor::decode(value).ok().map(|record| (node, record))),
                    Some(Standing::Revoked(node)) => revoked.extend(minicbor::decode(value).ok().map(|record| (node, record))),
                    _ => {}
                }
            }
            *nodes = Nodes { of: present, members: Arc::new(members), revoked: Arc::new(revoked) };
        }
        nodes
    }

    /// A standing record of a section.
    pub fn standing<T: for<'b> minicbor::Decode<'b, ()>>(&self, section: SectionId, standing: Standing) -> Option<T> {
        minicbor::decode(self.sections.get(&section)?.standing.get(&standing.key())?.value.as_deref()?).ok()
    }

    /// How far a write is known to have come: it is on the disks of this many other nodes.
    pub fn copies(&self, written: Written) -> usize {
        let reported = |node| self.members.reported(node, written.section);
        let covers = |frontiers: &Frontiers| frontiers[written.plane].covers(written.dot);
        self.members.iter().filter(|(node, _)| reported(node).is_some_and(covers)).count()
    }

    /// What the disks of this node and of every member that was heard from since then are known to have of the built-in section, as far as this node has seen
    /// all that they had seen; nobody knows while none was heard.
    pub fn stable_in_mesh(&mut self, heard_since_us: u64) -> Option<Frontiers> {
        let section = self.sections.get(&SectionId::MESH)?;
        self.members.stable(SectionId::MESH, &section.frontiers(), section.durable(), |_| true, heard_since_us)
    }

    /// The write that stands of a standing record, also if it is a removal.
    pub fn standing_write(&self, section: SectionId, standing: Standing) -> Option<(Written, &Write)> {
        let write = self.sections.get(&section)?.standing.get(&standing.key())?;
        Some((Written { section, plane: Plane::Standing, dot: write.dot }, write))
    }

    /// Whether a write is on this node's disk.
    pub fn is_durable(&self, written: Written) -> bool {
        let section = self.sections.get(&written.section);
        section.is_some_and(|section| section.durable()[written.plane].covers(written.dot))
    }

    /// What has happened at a path, the newest last: the last [`crate::bucket::PAST_MAX`] creations and removals, and whether there were more. Goes through all that its bucket has seen,
    /// since the section was held here or, if topics moved to it from another, since then.
    ///
    /// # Errors
    /// The section is not held.
    pub fn past(&mut self, path: &Path) -> Result<(Vec<Happening>, bool), NotHeld> {
        let section = self.locate(path)?;
        let tree = self.sections.get_mut(&section).map(|section| &mut section.tree);
        // What cannot be decoded was refused before it came to be held.
        Ok(tree.and_then(|tree| tree.past(path).ok()).unwrap_or_default())
    }

    // Commands.

    /// What this node's wall clock shows, in milliseconds since 1970: what is made and removed from then on says so, to people. Unless it is set, it says nothing.
    pub fn set_time(&mut self, time_ms: u64) {
        self.time_ms = time_ms;
    }

    /// Creates topics. The results are in the order of the topics.
    pub fn add_topics(&mut self, topics: &[(Path, Definition)]) -> Vec<Result<Added, AddError>> {
        let mut created: BTreeMap<SectionId, Vec<(Path, Definition)>> = BTreeMap::new();
        let mut new: BTreeMap<&Path, &Definition> = BTreeMap::new();
        let mut results = Vec::with_capacity(topics.len());
        for (path, definition) in topics {
            let paged = *definition.topic_type() == TopicType::Paged;
            let standing = match if paged { Ok(SectionId::LOCAL) } else { self.locate(path) } {
                Err(not_held) => Err(not_held.into()),
                Ok(section) => {
                    let lives = self.topic(path).map(|(_, topic)| topic.definition.clone());
                    let lives = lives.or_else(|| new.get(path).map(|definition| Arc::new((*definition).clone())));
                    match lives {
                        Some(standing) if *standing == *definition => Ok(Added::Exists),
                        Some(standing) => Err(AddError::Mismatch { definition: standing }),
                        None => {
                            new.insert(path, definition);
                            created.entry(section).or_default().push((path.clone(), definition.clone()));
                            Ok(Added::Created)
                        }
                    }
                }
            };
            results.push(standing);
        }
        for (section, topics) in created {
            self.create_in(section, &topics);
            for (path, _) in topics.iter().filter(|(_, definition)| *definition.topic_type() == TopicType::Paged) {
                // Empty, and says so.
                let nothing = Splice { from: None, take: None, lines: &[] };
                self.change_lines(path, self.time_ms, &nothing).expect("an empty list is one");
            }
        }
        results
    }

    fn create_in(&mut self, section: SectionId, topics: &[(Path, Definition)]) {
        let own = self.writer(section);
        if let Some((section, mut cx)) = self.parts(section) {
            section.create_topics(&mut cx, own, topics);
        }
    }

    /// Removes live topics; paths without one are passed over. Returns how many were removed.
    pub fn remove_topics(&mut self, paths: &[Path]) -> usize {
        let mut sections: BTreeMap<SectionId, Vec<Path>> = BTreeMap::new();
        for path in paths {
            if let Some((section, _)) = self.topic(path) {
                sections.entry(section).or_default().push(path.clone());
            }
        }
        let removed = sections.values().map(Vec::len).sum();
        for (id, paths) in sections {
            self.remove_in(id, &paths);
        }
        removed
    }

    fn remove_in(&mut self, section: SectionId, paths: &[Path]) {
        let own = self.writer(section);
        if let Some((section, mut cx)) = self.parts(section) {
            section.remove_topics(&mut cx, own, paths);
        }
    }

    /// Writes a topic's value, as a plain write of the first epoch that nobody signs.
    pub fn set(&mut self, path: &Path, time_ms: u64, value: Arc<[u8]>) -> Result<Written, SetError> {
        self.set_by(path, Writer { time_ms, ..Writer::default() }, value).map(|taken| taken.written)
    }

    /// Writes a topic's value; to a topic of events it is appended.
    pub fn set_by(&mut self, path: &Path, writer: Writer<'_>, value: Arc<[u8]>) -> Result<Taken, SetError> {
        let id = self.home_of(path);
        let (own, section, mut cx) = self.writing(id)?;
        let topic = section.tree.topic(path.as_str()).ok_or(SetError::NoTopic)?;
        value::validate(topic.definition.topic_type(), &value).or_else(|error| if is(Sabotage::TakesAny) { Ok(()) } else { Err(error) })?;
        let Writer { under, time_ms, author } = writer;
        let durability = topic.definition.properties().durability;
        not_outranked(section, cx.origins, topic, &under)?;
        let (event, dot) = if topic.definition.topic_type().series().is_some() {
            let content = content_of(author, &value, None)?;
            let (event, dot) = section.append(&mut cx, own, path.as_str(), under, time_ms, content).ok_or(SetError::NoTopic)?;
            (Some(event), dot)
        } else {
            let place = section.place_of(topic).ok_or(SetError::NoTopic)?;
            (None, section.set_at(&mut cx, own, place, under, time_ms, value))
        };
        Ok(Taken { written: Written { section: id, plane: Plane::Values, dot }, durability, event })
    }

    /// What it takes to write to a section.
    fn writing(&mut self, id: SectionId) -> Result<(OriginIx, &mut Section, Context<'_>), NotHeld> {
        let own = self.writers.get(&id).copied();
        let (section, cx) = self.parts(id).ok_or(NotHeld { section: id })?;
        Ok((own.ok_or(NotHeld { section: id })?, section, cx))
    }

    /// Writes an event anew, in its place.
    pub fn edit_event(&mut self, path: &Path, name: EventName, writer: Writer<'_>, value: &[u8]) -> Result<Taken, SetError> {
        let id = self.home_of(path);
        let (own, section, mut cx) = self.writing(id)?;
        let topic = section.tree.topic(path.as_str()).ok_or(SetError::NoTopic)?;
        let topic_type = topic.definition.topic_type();
        topic_type.series().ok_or(SetError::NoSeries(topic_type.name()))?;
        value::validate(topic_type, value)?;
        let Writer { under, time_ms, author } = writer;
        let durability = topic.definition.properties().durability;
        not_outranked(section, cx.origins, topic, &under)?;
        let meant = section.events(cx.origins, topic, name.sequence..=name.sequence).filter(|told| name.means(told.event, cx.origins));
        let meant: Vec<Told<'_>> = meant.collect();
        let told = match meant.as_slice() {
            [] => return Err(SetError::NoEvent(name)),
            [only] => *only,
            several => return Err(SetError::AmbiguousEvent(name, several.iter().map(|told| told.event.name(cx.origins)).collect())),
        };
        let before = told.write.value.as_deref().and_then(Content::from_bytes);
        let original = before.map(|before| before.original.unwrap_or((before.author, told.write.time_ms)));
        let content = content_of(author, value, original)?;
        let (key, event) = (told.key, told.event);
        let dot = section.put_event(&mut cx, own, key, under, time_ms, content);
        Ok(Taken { written: Written { section: id, plane: Plane::Values, dot }, durability, event: Some(event) })
    }

    /// Changes the lines of a paged topic. Nothing is merged with that, so it needs no authority to stand against anything.
    pub fn change_lines(&mut self, path: &Path, time_ms: u64, splice: &Splice<'_>) -> Result<(Taken, Summary), SetError> {
        let (id, topic) = self.topic(path).ok_or(SetError::NoTopic)?;
        let topic_type = topic.definition.topic_type();
        let list = topic.ids.first().copied().filter(|_| id == SectionId::LOCAL && *topic_type == TopicType::Paged);
        let list = list.ok_or(SetError::NoList(topic_type.name()))?;
        let durability = topic.definition.properties().durability;
        let own = self.writer(id);
        let (section, mut cx) = self.parts(id).ok_or(NotHeld { section: id })?;
        let (dot, summary) = section.splice(&mut cx, own, list, time_ms, splice)?;
        Ok((Taken { written: Written { section: id, plane: Plane::Values, dot }, durability, event: None }, summary))
    }

    /// What the list of a paged topic has come to, and some of its lines: from one on, counted from 1, so many at most, and about so many bytes. `None` if it is no list of this node's.
    pub fn lines(&self, section: SectionId, topic: &Topic, from: u64, count: usize, bytes_max: usize) -> Option<(Summary, Vec<&str>)> {
        let held = self.sections.get(&section).filter(|held| held.id() == SectionId::LOCAL && held.is_list(&topic.path))?;
        let list = *topic.ids.first()?;
        Some((held.summary(list), held.lines(list, from.saturating_sub(1), count, bytes_max)))
    }

    /// The events of a topic that are wanted of it, in order: those that it keeps, and at this wall clock still shows.
    pub fn events(&self, section: SectionId, topic: &Topic, now_ms: u64, range: &EventRange) -> Vec<Told<'_>> {
        let Some(held) = self.sections.get(&section).filter(|_| range.limit > 0) else { return Vec::new() };
        let Some(topic) = held.tree.topic(topic.path.as_str()) else { return Vec::new() };
        let kept_ms = topic.definition.topic_type().series().and_then(|series| series.keep_for_ms);
        let oldest_ms = kept_ms.map_or(0, |ms| now_ms.saturating_sub(ms)).max(*range.times_ms.start());
        let from = range.after.map_or(0, |after| after.sequence).max(*range.sequences.start());
        let fits = |told: &Told<'_>| (oldest_ms..=*range.times_ms.end()).contains(&appended_ms(told));
        let all = held.events(&self.origins, topic, *range.sequences.start()..=*range.sequences.end());
        // What came before the page began counts for the newest so many, and not for the page.
        let first = match range.last {
            Some(last) => match all.rev().filter(fits).take(last).last() {
                Some(first) => first.event.rank(&self.origins),
                None => return Vec::new(),
            },
            None => Default::default(),
        };
        let after = range.after.map(|after| {
            let same = held.events(&self.origins, topic, after.sequence..=after.sequence);
            let found = same.filter(|told| after.means(told.event, &self.origins)).map(|told| told.event.rank(&self.origins)).last();
            found.unwrap_or((after.sequence, Origin::default()))
        });
        let page = held.events(&self.origins, topic, from.max(first.0)..=*range.sequences.end());
        page.filter(fits)
            .filter(|told| {
                let rank = told.event.rank(&self.origins);
                rank >= first && after.is_none_or(|after| rank > after)
            })
            .take(range.limit)
            .collect()
    }

    /// Writes what was another section's value or event of a topic. An event keeps its sequence.
    fn set_in(&mut self, id: SectionId, path: &Path, sequence: Option<u64>, time_ms: u64, value: Arc<[u8]>) -> Option<()> {
        let own = self.writer(id);
        let (section, mut cx) = self.parts(id)?;
        let under = Under::default();
        match sequence {
            Some(sequence) => {
                let topic = section.tree.topic(path.as_str())?.ids.first().copied()?;
                let key = ValueKey::event(topic, EventIx { sequence, origin: own });
                section.put_event(&mut cx, own, key, under, time_ms, value);
            }
            None => _ = section.set(&mut cx, own, path.as_str(), under, time_ms, value)?,
        }
        Some(())
    }

    /// Where this node's latest change to a section's tree stands.
    pub fn last_tree_write(&self, section: SectionId) -> Option<Written> {
        let own = *self.writers.get(&section)?;
        let number = self.sections.get(&section)?.tree.frontier().get(own);
        Some(Written { section, plane: Plane::Tree, dot: DotIx { origin: own, number } })
    }

    /// Where this node's latest standing record of the built-in section stands.
    pub fn last_standing_write(&self) -> Option<Written> {
        self.last_standing_write_in(SectionId::MESH)
    }

    /// The same of any section.
    pub fn last_standing_write_in(&self, section: SectionId) -> Option<Written> {
        let own = *self.writers.get(&section)?;
        let number = self.sections.get(&section)?.standing.frontier().get(own);
        Some(Written { section, plane: Plane::Standing, dot: DotIx { origin: own, number } })
    }

    /// Writes a standing record of the built-in section, or removes it.
    pub fn put_standing(&mut self, standing: Standing, time_ms: u64, value: Option<Vec<u8>>) -> Option<Written> {
        self.put_standing_in(SectionId::MESH, standing, Under::default(), time_ms, value)
    }

    /// Writes a standing record of a section, or removes it. `None` if the section isn't held, or something of a greater epoch or rank is.
    pub fn put_standing_in(
        &mut self,
        section: SectionId,
        standing: Standing,
        under: Under,
        time_ms: u64,
        value: Option<Vec<u8>>,
    ) -> Option<Written> {
        let own = *self.writers.get(&section)?;
        let (held, mut cx) = self.parts(section)?;
        let dot = held.put_standing(&mut cx, own, standing.key(), under, time_ms, value.map(Arc::from))?;
        Some(Written { section, plane: Plane::Standing, dot })
    }

    /// Declares a section and takes over, as new writes, what this node holds of it already.
    pub fn declare_section(&mut self, policy: SectionPolicy) -> Result<Written, PolicyError> {
        let id = policy.id;
        self.edit_policy(|document, actor| document.declare(actor, &policy))?;
        self.hold(id);
        self.settle_sections(Some(id));
        self.last_tree_write(SectionId::MESH).ok_or(PolicyError::UnknownSection(id))
    }

    /// Changes what may change of a section.
    pub fn edit_section(&mut self, id: SectionId, edit: SectionEdit) -> Result<Written, PolicyError> {
        self.edit_policy(|document, actor| document.edit(actor, id, &edit))?;
        self.settle_sections(None);
        self.last_tree_write(SectionId::MESH).ok_or(PolicyError::UnknownSection(id))
    }

    /// Removes a section from the mesh: its topics become local again, or its outer section's.
    pub fn remove_section(&mut self, id: SectionId) -> Result<Written, PolicyError> {
        self.edit_policy(|document, actor| document.remove(actor, id))?;
        self.settle_sections(None);
        self.last_tree_write(SectionId::MESH).ok_or(PolicyError::UnknownSection(id))
    }

    /// Who may do what.
    pub fn rules(&self) -> &Arc<Rules> {
        &self.rules.0
    }

    /// What stands for some rights by the present rules: the same only where the same is said of everything and the rights are the same; 0 for the right to
    /// everything.
    pub fn basis(&self, rights: &Rights) -> u64 {
        if rights.is_everything() {
            return 0;
        }
        let mut hasher = blake3::Hasher::new();
        self.rules.1.iter().for_each(|head| _ = hasher.update(head));
        for word in rights.words() {
            hasher.update(&(word.len() as u64).to_be_bytes()).update(word.as_bytes());
        }
        hasher.finalize().as_bytes().first_chunk().map_or(1, |bytes| u64::from_be_bytes(*bytes).max(1))
    }

    /// Everything that is said of who may do what.
    pub fn facts(&mut self) -> Vec<Fact> {
        self.mesh_tree().access().map(Access::facts).unwrap_or_default()
    }

    /// What a script would change of who may do what.
    pub fn try_script(&mut self, script: &str) -> Result<Vec<access::Change>, AccessError> {
        self.mesh_tree().access().map_or(Ok(Vec::new()), |access| access.try_script(script))
    }

    /// Changes who may do what, as a whole or not at all. Returns what it changes.
    pub fn run_script(&mut self, script: &str) -> Result<Vec<access::Change>, AccessError> {
        let own = self.writer(SectionId::MESH);
        let (mesh, cx) = self.parts(SectionId::MESH).expect("the built-in section is always held");
        let changes = mesh.run_script(cx.origins, own, script)?;
        if !changes.is_empty() {
            cx.events.push(Event::Policy);
            self.settle_access();
        }
        Ok(changes)
    }

    /// Brings the rules up to what is said. Returns whether they have changed.
    pub fn settle_access(&mut self) -> bool {
        let known = std::mem::take(&mut self.rules);
        let read = self.mesh_tree().access().map(|access| (access, access.heads())).filter(|(_, heads)| *heads != known.1);
        let fresh = read.map(|(access, heads)| (Arc::new(access.rules()), heads));
        let changed = fresh.as_ref().is_some_and(|(rules, _)| *rules != known.0);
        self.rules = fresh.unwrap_or(known);
        changed
    }

    fn mesh_tree(&mut self) -> &mut Tree {
        &mut self.sections.get_mut(&SectionId::MESH).expect("the built-in section is always held").tree
    }

    fn edit_policy(
        &mut self,
        edit: impl FnOnce(&mut crate::policy::Policy, Origin) -> Result<Vec<u8>, PolicyError>,
    ) -> Result<(), PolicyError> {
        let own = self.writer(SectionId::MESH);
        let (mesh, cx) = self.parts(SectionId::MESH).expect("the built-in section is always held");
        mesh.edit_policy(cx.origins, own, edit)?;
        cx.events.push(Event::Policy);
        Ok(())
    }

    /// Holds a declared section from now on. Does nothing if it is held or not declared. Says whether it was new.
    pub fn hold(&mut self, id: SectionId) -> bool {
        let (policies, _) = self.declared();
        if self.sections.contains_key(&id) || !policies.iter().any(|policy| policy.id == id) {
            return false;
        }
        self.open(id);
        self.settle_sections(None);
        true
    }

    /// Whether an operator has given up a section here.
    pub fn is_released(&self, id: SectionId) -> bool {
        self.released.contains(&id)
    }

    /// Notes that an operator has given up a section here, or wants it again.
    pub fn set_released(&mut self, id: SectionId, released: bool) {
        let changed = if released { self.released.insert(id) } else { self.released.remove(&id) };
        if changed {
            let key = [&[META_RELEASED][..], &id.0.to_be_bytes()].concat();
            self.deleted_rows.push(Row { table: Table::Meta, key, value: released.then(Vec::new) });
        }
    }

    /// This node's writes in a section that come after what `known` covers: how many keys, and the bytes of their values.
    pub fn own_writes_above(&self, id: SectionId, known: &Frontiers) -> (u64, u64) {
        let (Some(section), Some(own)) = (self.sections.get(&id), self.writers.get(&id)) else { return (0, 0) };
        let parts = [
            section.standing.written_above(*own, known[Plane::Standing].get(*own)),
            section.tree.written_above(*own, known[Plane::Tree].get(*own)),
            section.values.written_above(*own, known[Plane::Values].get(*own)),
        ];
        parts.into_iter().fold((0, 0), |sum, part| (sum.0 + part.0, sum.1 + part.1))
    }

    /// Gives up a section, with all that it holds here.
    pub fn unhold(&mut self, id: SectionId) {
        if id != SectionId::MESH && id != SectionId::LOCAL {
            self.close(id);
        }
    }

    /// Brings the sections held here in line with the mesh's policy, after [`Event::Policy`]. `declared` is a section that this node has
    /// just declared itself.
    pub fn settle_sections(&mut self, declared: Option<SectionId>) {
        let (policies, contested) = self.declared();
        let stand: BTreeMap<SectionId, SectionPolicy> = policies.into_iter().map(|policy| (policy.id, policy)).collect();
        self.contested = contested;
        self.roots = stand.values().map(|policy| (policy.root.clone(), policy.id)).collect();
        self.policies = stand;
        let lost: Vec<SectionId> = self.held().filter(|id| *id != SectionId::MESH && !self.policies.contains_key(id)).collect();
        for id in lost {
            let topics = self.contents(id, |_| true);
            let mut displaced: Vec<Displaced> = Log::read(&self.sections[&id], &self.origins).entries().map(|(_, entry)| entry).collect();
            displaced.extend(self.contents_of_hiding(id));
            self.close(id);
            self.take_over(topics);
            for entry in displaced {
                self.noticed.add(self.own.node, entry);
            }
        }
        // What is local, or of an outer section, but belongs to another section now.
        let strays: Vec<SectionId> = self.sections.keys().copied().filter(|id| *id != SectionId::MESH).collect();
        for id in strays {
            let moved = |path: &Path| {
                let target = self.section_of(path);
                let moves = if id == SectionId::LOCAL { !self.is_paged(path) } else { declared == Some(target) };
                moves && target != id && self.sections.contains_key(&target)
            };
            let topics = self.contents(id, moved);
            if topics.is_empty() {
                continue;
            }
            let paths: Vec<Path> = topics.iter().map(|(path, ..)| path.clone()).collect();
            self.take_over(topics);
            self.remove_in(id, &paths);
        }
    }

    fn declared(&mut self) -> (Vec<SectionPolicy>, Vec<SectionPolicy>) {
        self.mesh_tree().policies()
    }

    fn contents(&self, id: SectionId, pick: impl Fn(&Path) -> bool) -> Vec<Moved> {
        let Some(section) = self.sections.get(&id) else { return Vec::new() };
        let topics = section.tree.topics_from("").filter(|topic| pick(&topic.path));
        topics
            .map(|topic| {
                let values: Vec<(Option<u64>, &Write)> = match topic.definition.topic_type().series() {
                    Some(_) => {
                        let mut last = 0;
                        let events = section.events(&self.origins, topic, 0..=u64::MAX).map(|told| {
                            // Of two of one sequence only one could keep it: they all get one writer.
                            last = told.event.sequence.max(last + 1);
                            (Some(last), told.write)
                        });
                        events.collect()
                    }
                    None => section.value_of(&self.origins, topic).map(|write| (None, write)).into_iter().collect(),
                };
                let moved = |(sequence, write): (Option<u64>, &Write)| Some((sequence, write.time_ms, write.value.clone()?));
                (topic.path.clone(), (*topic.definition).clone(), values.into_iter().filter_map(moved).collect())
            })
            .collect()
    }

    /// The values of a section's topics that would be local without it, where this node has paged topics that stay.
    fn contents_of_hiding(&self, id: SectionId) -> Vec<Displaced> {
        let Some(section) = self.sections.get(&id) else { return Vec::new() };
        let lists = self.sections.get(&SectionId::LOCAL).into_iter().flat_map(Section::lists);
        let topics = lists.filter(|path| self.section_of(path) == SectionId::LOCAL).filter_map(|path| section.tree.topic(path.as_str()));
        let values = topics.flat_map(|topic| topic.ids.iter().flat_map(|id| section.keys_of(*id)).map(move |key| (topic, key)));
        let displaced = values.filter_map(|(topic, key)| {
            let write = section.values.get(&key)?;
            let (path, definition) = (topic.path.clone(), Some(topic.definition.to_bytes()));
            Some(Displaced::new(&self.origins, id, path, definition, key, write, Beaten::ByRemoval { removal: None }))
        });
        displaced.collect()
    }

    /// Makes topics where they belong now, as new writes, unless there is something already.
    fn take_over(&mut self, topics: Vec<Moved>) {
        let mut targets: BTreeMap<SectionId, Vec<Moved>> = BTreeMap::new();
        for topic in topics {
            let target = self.section_of(&topic.0);
            let there = self.sections.get(&target);
            if there.is_some_and(|section| section.tree.topic(topic.0.as_str()).is_none()) {
                targets.entry(target).or_default().push(topic);
            }
        }
        for (target, topics) in targets {
            let created: Vec<(Path, Definition)> = topics.iter().map(|(path, definition, _)| (path.clone(), definition.clone())).collect();
            self.create_in(target, &created);
            for (path, _, values) in topics {
                for (sequence, time_ms, value) in values {
                    self.set_in(target, &path, sequence, time_ms, value);
                }
            }
        }
    }

    fn writer(&self, section: SectionId) -> OriginIx {
        *self.writers.get(&section).expect("every held section has a writer")
    }

    fn open(&mut self, id: SectionId) {
        self.holds += 1;
        self.holdings.insert(id, self.holds);
        let origin = if self.writers.contains_key(&id) {
            let mut origin = self.own;
            let mut hasher = blake3::Hasher::new();
            hasher.update(&self.own.to_bytes()).update(&id.0.to_be_bytes()).update(&self.holds.to_be_bytes());
            let mut nonce = [0; 8];
            hasher.finalize_xof().fill(&mut nonce);
            origin.incarnation.nonce = u64::from_be_bytes(nonce);
            origin
        } else {
            self.own
        };
        let ix = self.origins.intern(origin);
        self.writers.insert(id, ix);
        self.sections.insert(id, Section::new(id));
        self.meta_dirty = true;
    }

    fn close(&mut self, id: SectionId) {
        let Some(mut section) = self.sections.remove(&id) else { return };
        self.ended.0 += 1;
        self.ended.1 += section.changes();
        self.blobs.forget_section(id);
        for topic in section.tree.topics_from("") {
            self.events.push(Event::Topic { section: id, path: topic.path.clone(), lived: true, lives: false });
        }
        let mut delete = |table, key| self.deleted_rows.push(Row { table, key, value: None });
        // What is gone already, though the store was not told yet.
        let mut gone = Vec::new();
        section.values.take_dirty(|key, _| gone.push(rows::register_key(id, Plane::Values, &rows::value_key(*key))), |_, _, _| {});
        section.standing.take_dirty(|key, _| gone.push(rows::register_key(id, Plane::Standing, key)), |_, _, _| {});
        gone.into_iter().for_each(|key| delete(Table::Registers, key));
        section.tree.take_dirty(|_, _, _| {}, |dot, _| delete(Table::Changes, rows::record_key(id, dot)), |_, _, _| {});
        for (key, _) in section.values.iter() {
            delete(Table::Registers, rows::register_key(id, Plane::Values, &rows::value_key(*key)));
        }
        for (key, _) in section.standing.iter() {
            delete(Table::Registers, rows::register_key(id, Plane::Standing, key));
        }
        for document in section.tree.document_numbers() {
            delete(Table::Documents, rows::document_key(id, document));
        }
        for dot in section.tree.record_dots() {
            delete(Table::Changes, rows::record_key(id, dot));
        }
        for plane in Plane::ALL {
            for ix in 0..self.origins.len() as u32 {
                delete(Table::Feeds, rows::feed_key(id, plane, OriginIx(ix)));
            }
        }
        delete(Table::Meta, [&[META_CLOCK][..], &id.0.to_be_bytes()].concat());
        delete(Table::Meta, [&[META_EPOCH][..], &id.0.to_be_bytes()].concat());
        delete(Table::Meta, [&[META_HELD][..], &id.0.to_be_bytes()].concat());
        self.meta_dirty = true;
    }

    // Time.

    /// Forgets what is stable, and blobs that nothing names. `now_us` is this node's clock; `retention_us` says how long a silent member is waited for.
    pub fn forget(&mut self, now_us: u64, retention_us: impl Fn(SectionId) -> u64) {
        self.blobs.forget(now_us);
        let records = self.nodes();
        for (id, section) in &mut self.sections {
            let stable = if section.remembered() == 0 {
                None
            } else if *id == SectionId::LOCAL {
                Some(section.durable().clone())
            } else {
                let since = now_us.saturating_sub(retention_us(*id));
                let holds = |node: &NodeId| *id == SectionId::MESH || records.get(node).is_some_and(|record| record.holds.contains(id));
                self.members.stable(*id, &section.frontiers(), section.durable(), holds, since)
            };
            if let Some(stable) = stable {
                section.forget(&stable);
            }
            section.tree.cool();
        }
    }

    /// One turn of what was noticed to be displaced, by this node's wall clock: it comes into its section's log, unless that has it. To be called
    /// about every second.
    pub fn file_displaced(&mut self, time_ms: u64) {
        if self.noticed.is_empty() {
            return;
        }
        let mut noticed = std::mem::take(&mut self.noticed);
        // Where there is no such section any more, it belongs where its topic would.
        let belongs = |entry: &Displaced| {
            Some(entry.section).into_iter().chain([self.section_of(&entry.path)]).find(|id| self.sections.contains_key(id))
        };
        for (id, places) in noticed.sort(belongs) {
            let own = self.writer(id);
            if let Some((section, mut cx)) = self.parts(id) {
                noticed.turn(&places, section, &mut cx, own, time_ms);
            }
        }
        self.noticed = noticed;
    }

    /// What has happened since the last call, in order.
    pub fn take_events(&mut self) -> Vec<Event> {
        let mut events = std::mem::take(&mut self.events);
        let (noticed, own) = (&mut self.noticed, self.own.node);
        events.retain(|event| match event {
            Event::Displaced(entry) => noticed.add(own, Displaced::clone(entry)),
            _ => true,
        });
        events
    }

    // The store.

    /// Whether [`Replica::take_rows`] would give any.
    pub fn is_dirty(&self) -> bool {
        self.meta_dirty
            || !self.deleted_rows.is_empty()
            || self.vaults.is_dirty()
            || self.noticed.is_dirty()
            || self.blobs.is_dirty()
            || self.sections.values().any(|section| section.values.is_dirty() || section.standing.is_dirty() || section.tree.is_dirty())
    }

    /// Everything that has changed since the last call, as one batch that must be stored whole or not at all, and a mark to be
    /// given to [`Replica::persisted`] once it is on disk.
    pub fn take_rows(&mut self) -> (Vec<Row>, u64) {
        let mut out = std::mem::take(&mut self.deleted_rows);
        if std::mem::take(&mut self.meta_dirty) {
            out.push(rows::put(Table::Meta, META_FORMAT.to_vec(), rows::FORMAT.to_be_bytes().to_vec()));
            for id in self.sections.keys() {
                out.push(rows::put(Table::Meta, [&[META_HELD][..], &id.0.to_be_bytes()].concat(), Vec::new()));
            }
        }
        for at in self.stored_origins..self.origins.len() {
            let key = [&[META_ORIGIN][..], &(at as u32).to_be_bytes()].concat();
            out.push(rows::put(Table::Meta, key, self.origins.get(OriginIx(at as u32)).to_bytes().to_vec()));
        }
        self.stored_origins = self.origins.len();
        let mut frontiers = Vec::new();
        for (id, section) in &mut self.sections {
            let id = *id;
            if section.take_clock_dirty() {
                let key = [&[META_CLOCK][..], &id.0.to_be_bytes()].concat();
                out.push(rows::put(Table::Meta, key, section.clock().to_be_bytes().to_vec()));
                if section.epoch() > 0 {
                    let key = [&[META_EPOCH][..], &id.0.to_be_bytes()].concat();
                    out.push(rows::put(Table::Meta, key, section.epoch().to_be_bytes().to_vec()));
                }
            }
            frontiers.push((id, self.holdings.get(&id).copied().unwrap_or(0), section.frontiers()));
            let sink = std::cell::RefCell::new(&mut out);
            let feed = |plane| {
                let sink = &sink;
                move |origin, frontier, floor| {
                    let row = rows::put(Table::Feeds, rows::feed_key(id, plane, origin), rows::encode_feed(frontier, floor));
                    sink.borrow_mut().push(row);
                }
            };
            let register = |key: Vec<u8>, stored: Option<(&Write, Dots)>| {
                let value = stored.map(|(write, entries)| rows::encode_register(write, &entries));
                sink.borrow_mut().push(Row { table: Table::Registers, key, value });
            };
            section.values.take_dirty(
                |key, stored| register(rows::register_key(id, Plane::Values, &rows::value_key(*key)), stored),
                feed(Plane::Values),
            );
            section
                .standing
                .take_dirty(|key, stored| register(rows::register_key(id, Plane::Standing, key), stored), feed(Plane::Standing));
            let (tree, graves) = section.tree_and_graves();
            tree.take_dirty(
                |document, saved, dots| {
                    let row = rows::put(Table::Documents, rows::document_key(id, document), rows::encode_document(&saved, dots));
                    sink.borrow_mut().push(row);
                },
                |dot, record| {
                    let value = record.map(|record| rows::encode_record(record, graves));
                    sink.borrow_mut().push(Row { table: Table::Changes, key: rows::record_key(id, dot), value });
                },
                feed(Plane::Tree),
            );
        }
        self.noticed.take_dirty(|number, entry| {
            let value = entry.map(|entry| minicbor::to_vec(entry).expect("encoding to memory"));
            out.push(Row { table: Table::Displaced, key: number.to_be_bytes().to_vec(), value });
        });
        self.blobs.take_rows(&mut out);
        self.next_mark += 1;
        self.vaults.take_rows(self.next_mark, &mut out);
        self.marks.push_back((self.next_mark, frontiers));
        (out, self.next_mark)
    }

    /// The batch of this mark, and all before it, are on disk.
    pub fn persisted(&mut self, mark: u64) {
        self.vaults.persisted(mark);
        while self.marks.front().is_some_and(|(taken, _)| *taken <= mark) {
            let Some((_, frontiers)) = self.marks.pop_front() else { break };
            for (id, holding, frontiers) in frontiers {
                let same = self.holdings.get(&id).copied().unwrap_or(0) == holding;
                if let Some(section) = self.sections.get_mut(&id).filter(|_| same) {
                    section.made_durable(&frontiers);
                }
            }
        }
    }

    /// Loads stored state. `rows` are all rows, table by table in the order of [`Table::ALL`].
    pub fn load(own: Origin, rows: impl IntoIterator<Item = Row>) -> Result<Self, LoadError> {
        let mut loading = Loading::new(own);
        for Row { table, key, value } in rows {
            value.map_or(Ok(()), |value| loading.row(table, &key, &value))?;
        }
        loading.finish()
    }
}

/// A replica on its way out of the store, row by row, so that the rows are never there all at once beside what they become.
#[derive(Debug)]
pub struct Loading {
    replica: Replica,
    clocks: Vec<(SectionId, u64)>,
    epochs: Vec<(SectionId, u64)>,
}

impl Loading {
    /// Nothing yet, of a run that will write as `own`.
    pub fn new(own: Origin) -> Loading {
        let mut replica = Replica::new(own);
        // The stored origins keep their indexes, so this run's own comes after them.
        replica.origins = Origins::default();
        Loading { replica, clocks: Vec::new(), epochs: Vec::new() }
    }

    /// Takes in one row. They come table by table in the order of [`Table::ALL`]. After an error this is worth nothing any more.
    pub fn row(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), LoadError> {
        let Loading { replica, clocks, epochs } = self;
        let bad = |why: &str| BadRow { table, key: key.to_vec(), why: why.into() };
        match table {
            Table::Meta if replica.vaults.restore(key, value).map_err(|why| bad(&why))? => {}
            Table::Meta => match key.split_first() {
                _ if key == META_FORMAT => {
                    let found = value.try_into().map(u32::from_be_bytes).map_err(|_| bad("not a version"))?;
                    if found > rows::FORMAT {
                        return Err(LoadError::Format { found });
                    }
                }
                Some((&META_ORIGIN, ix)) => {
                    let ix = ix.try_into().map(u32::from_be_bytes).map_err(|_| bad("not an index"))?;
                    let origin = Origin::from_bytes(value).ok_or_else(|| bad("not an origin"))?;
                    if replica.origins.intern(origin) != OriginIx(ix) {
                        return Err(bad("origins out of order").into());
                    }
                }
                Some((&META_CLOCK, id)) => {
                    let id = id.try_into().map(u64::from_be_bytes).map_err(|_| bad("not a section"))?;
                    let clock = value.try_into().map(u64::from_be_bytes).map_err(|_| bad("not a clock"))?;
                    clocks.push((SectionId(id), clock));
                }
                Some((&META_EPOCH, id)) => {
                    let id = id.try_into().map(u64::from_be_bytes).map_err(|_| bad("not a section"))?;
                    let epoch = value.try_into().map(u64::from_be_bytes).map_err(|_| bad("not an epoch"))?;
                    epochs.push((SectionId(id), epoch));
                }
                Some((&META_HELD, id)) => {
                    let id = id.try_into().map(u64::from_be_bytes).map_err(|_| bad("not a section"))?;
                    replica.sections.insert(SectionId(id), Section::new(SectionId(id)));
                }
                Some((&META_RELEASED, id)) => {
                    let id = id.try_into().map(u64::from_be_bytes).map_err(|_| bad("not a section"))?;
                    replica.released.insert(SectionId(id));
                }
                _ => return Err(bad("unknown").into()),
            },
            Table::Displaced => {
                let number = key.try_into().map(u64::from_be_bytes).map_err(|_| bad("not a number"))?;
                let entry = minicbor::decode(value).map_err(|error| bad(&error.to_string()))?;
                replica.noticed.restore(replica.own.node, number, entry);
            }
            Table::Blobs => replica.blobs.restore(key, value).map_err(bad)?,
            _ => {
                let (id, rest) = rows::split_section(key).ok_or_else(|| bad("short key"))?;
                let Some(section) = replica.sections.get_mut(&id) else { return Err(bad("a section that is not held").into()) };
                restore_row(section, &mut replica.origins, table, rest, value).map_err(|why| bad(&why))?;
            }
        }
        Ok(())
    }

    /// All rows have come: puts together what they belong to.
    pub fn finish(self) -> Result<Replica, LoadError> {
        let Loading { mut replica, clocks, epochs } = self;
        let own = replica.own;
        replica.stored_origins = replica.origins.len();
        let own_ix = replica.origins.intern(own);
        for (id, section) in &mut replica.sections {
            section.restored(&mut replica.origins, &mut replica.blobs).map_err(|error| LoadError::Tree { section: *id, error })?;
        }
        for (id, clock) in clocks {
            if let Some(section) = replica.sections.get_mut(&id) {
                section.restore_clock(clock);
            }
        }
        for (id, epoch) in epochs {
            if let Some(section) = replica.sections.get_mut(&id) {
                section.restore_epoch(epoch);
            }
        }
        replica.writers = replica.sections.keys().map(|id| (*id, own_ix)).collect();
        replica.settle_sections(None);
        replica.settle_access();
        replica.take_events();
        Ok(replica)
    }
}

fn restore_row(section: &mut Section, origins: &mut Origins, table: Table, key: &[u8], value: &[u8]) -> Result<(), String> {
    let text = |error: minicbor::decode::Error| error.to_string();
    let known = |ix: OriginIx| if (ix.0 as usize) < origins.len() { Ok(ix) } else { Err("unknown origin".to_owned()) };
    match table {
        Table::Feeds => {
            let (plane, ix) = rows::split_plane(key).ok_or("short key")?;
            let origin = known(OriginIx(u32::from_be_bytes(ix.try_into().map_err(|_| "short key")?)))?;
            let (frontier, floor) = rows::decode_feed(value).map_err(text)?;
            match plane {
                Plane::Standing => section.standing.restore_feed(origin, frontier, floor),
                Plane::Tree => section.tree.restore_feed(origin, frontier, floor),
                Plane::Values => section.values.restore_feed(origin, frontier, floor),
            }
        }
        Table::Registers => {
            let (plane, key) = rows::split_plane(key).ok_or("short key")?;
            let stored = rows::decode_register(value).map_err(text)?;
            for dot in stored.entries.iter().chain(&stored.write.seen).chain([&stored.write.dot]) {
                known(dot.origin)?;
            }
            match plane {
                Plane::Standing => section.standing.restore(StandingKey::from(key), stored),
                Plane::Values => {
                    let key = rows::parse_value_key(key).ok_or("not a value")?;
                    known(key.topic().origin)?;
                    known(key.as_event().map_or(key.topic().origin, |event| event.origin))?;
                    section.values.restore(key, stored);
                }
                Plane::Tree => return Err("the tree plane has no registers".into()),
            }
        }
        Table::Documents => {
            let document = u16::from_be_bytes(key.try_into().map_err(|_| "short key")?);
            let (saved, dots) = rows::decode_document(value).map_err(text)?;
            section.tree.restore_document(origins, document, saved, dots).map_err(|error| error.to_string())?;
        }
        Table::Changes => {
            let dot = rows::parse_topic(key).ok_or("short key")?;
            known(dot.origin)?;
            let (record, buried) = rows::decode_record(dot.number, value).map_err(text)?;
            section.restore_record(dot.origin, record, buried);
        }
        Table::Meta | Table::Displaced | Table::Blobs => return Err("belongs to no section".into()),
    }
    Ok(())
}
