//! The mesh's policy on sections: which branches of the tree are replicated, and how.
//!
//! One automerge document with one flat map, in which each section has an entry for each thing that may be edited apart, so that concurrent
//! edits of different things both stand (of the same thing, automerge's winner):
//!
//! ```text
//! sections   id/declared       → root and arbitration, and what a quorum begins with: fixed for ever
//!            id/durability     → on how many disks a write is when it is acknowledged
//!            id/retention_ms   → how long removals are remembered for those who are away
//!            id/voters         → the nodes that shall vote on grants: a wish, which the voters in force bring about
//! ```
//!
//! A section lives while its `declared` entry does, so a removal wins over concurrent edits. Ids are never used twice.
//! Of two live sections with one root, declared apart, the one with the smaller id stands: any rule would do that every node follows
//! and that no later edit can turn. Roots may nest; a topic belongs to the deepest section above it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use minicbor::{Decode, Encode};

use crate::{
    definition::{Durability, MESH_COPIES_MAX},
    document::{Document, DocumentError, Edit, Genesis, MapIndex, encoded},
    id::{NodeId, Origin, SectionId, VoterId},
    path::Path,
    quorum::{Configuration, Durations},
};

/// How many sections a mesh may have: every node knows all of them and keeps feeds for those it holds.
pub const SECTIONS_MAX: usize = 1024;

/// How many voters a section may have: each grant waits for a majority of them.
pub const VOTERS_MAX: usize = 15;

/// How long removals are remembered unless declared otherwise, in milliseconds: seven days.
pub const RETENTION_MS_DEFAULT: u64 = 7 * 24 * 60 * 60 * 1000;

const SECTIONS: MapIndex = 0;

static GENESIS: LazyLock<Genesis> = LazyLock::new(|| Genesis::new("mangrove policy 1", &["sections"]));

/// Who decides which source of a branch is active.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Encode, Decode)]
#[cbor(index_only)]
pub enum Arbitration {
    /// Each connected part of the mesh for itself: always writable, and settled when parts meet.
    #[default]
    #[n(0)]
    Available,
    /// A majority of the section's voters: never two, and none without a majority.
    #[n(1)]
    Quorum,
}

impl std::fmt::Display for Arbitration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Arbitration::Available => "available",
            Arbitration::Quorum => "quorum",
        })
    }
}

impl std::str::FromStr for Arbitration {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        match text {
            "available" => Ok(Arbitration::Available),
            "quorum" => Ok(Arbitration::Quorum),
            _ => Err(PolicyError::UnknownArbitration(text.into())),
        }
    }
}

/// What a section's quorum begins with, fixed with its declaration, so that nodes with other settings count in the same times.
#[derive(Clone, PartialEq, Eq, Debug, Encode, Decode)]
#[cbor(map)]
pub struct Founding {
    /// The voters of configuration 1.
    #[n(0)]
    pub voters: BTreeSet<VoterId>,
    /// For how long a holder may act on what its voters have answered, in milliseconds.
    #[n(1)]
    pub lease_ms: u64,
    /// How far clocks may run apart, in parts in a million.
    #[n(2)]
    pub drift_ppm: u32,
}

impl Founding {
    /// The lengths of time that follow; `None` if they are beyond all measure.
    pub fn durations(&self) -> Option<Durations> {
        Durations::derive(self.lease_ms.checked_mul(1_000)?, self.drift_ppm)
    }

    /// The first configuration.
    pub fn configuration(&self) -> Configuration<VoterId> {
        Configuration { number: 1, voters: self.voters.clone() }
    }
}

/// A section as it was declared and edited.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SectionPolicy {
    /// Its name for nodes, unique for ever.
    pub id: SectionId,
    /// The branch that it is.
    pub root: Path,
    /// Who decides on its sources.
    pub arbitration: Arbitration,
    /// Where a write must be before it is acknowledged, unless the topic says otherwise.
    pub durability: Durability,
    /// How long removals are remembered for nodes that are away, in milliseconds.
    pub retention_ms: u64,
    /// The nodes that shall vote, in order; none unless the arbitration is by quorum. Who does vote is what the voters have agreed on: [`crate::quorum`].
    pub voters: Vec<NodeId>,
    /// What its quorum began with, if the arbitration is by quorum.
    pub founding: Option<Founding>,
}

impl SectionPolicy {
    /// A section with nothing but defaults: available, acknowledged when on this node's disk, removals remembered for seven days.
    pub fn new(id: SectionId, root: Path) -> SectionPolicy {
        SectionPolicy {
            id,
            root,
            arbitration: Arbitration::default(),
            durability: Durability::Disk,
            retention_ms: RETENTION_MS_DEFAULT,
            voters: Vec::new(),
            founding: None,
        }
    }
}

/// What to change of a section; `None` leaves a thing as it is. Root and arbitration never change.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SectionEdit {
    /// See [`SectionPolicy::durability`].
    pub durability: Option<Durability>,
    /// See [`SectionPolicy::retention_ms`].
    pub retention_ms: Option<u64>,
    /// See [`SectionPolicy::voters`].
    pub voters: Option<Vec<NodeId>>,
}

/// Why an edit of the policy was refused. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// No section that can be edited has this id.
    #[error("there is no section {0}")]
    UnknownSection(SectionId),
    /// The id is a built-in section's, or was given to another section.
    #[error("section id {0} is taken")]
    IdTaken(SectionId),
    /// Another section has this root.
    #[error("{root} is the root of section {id} already")]
    RootTaken {
        /// The root.
        root: Path,
        /// Whose it is.
        id: SectionId,
    },
    /// The root is kept for the mesh itself.
    #[error("{0} has a segment that begins with $: those are kept for the mesh itself")]
    ReservedRoot(Path),
    /// There are [`SECTIONS_MAX`] sections.
    #[error("a mesh has at most {SECTIONS_MAX} sections")]
    TooManySections,
    /// There is no such arbitration.
    #[error("arbitration is available or quorum, not {0:?}")]
    UnknownArbitration(String),
    /// A quorum section would have no voters.
    #[error("a quorum section needs voters")]
    NoVoters,
    /// A quorum section would begin with no voters, or too many, or with lengths of time that make no sense.
    #[error("a quorum needs from 1 to {VOTERS_MAX} voters, a lease, and a drift of clocks below a million ppm")]
    BadFounding,
    /// A section that is not arbitrated by quorum would have voters.
    #[error("an available section has no voters")]
    UnneededVoters,
    /// There are more than [`VOTERS_MAX`] voters.
    #[error("a section has at most {VOTERS_MAX} voters, not {0}")]
    TooManyVoters(usize),
    /// A node would vote twice.
    #[error("voter {0} is named twice")]
    RepeatedVoter(NodeId),
    /// The durability asks for more copies than it can.
    #[error("durability mesh(k) is for k from 1 to {MESH_COPIES_MAX}")]
    BadDurability,
    /// Removals would not be remembered at all.
    #[error("retention is at least 1 ms")]
    NoRetention,
    /// Everything is so already. The caller may take it for success; there is no change to record.
    #[error("nothing to change")]
    NothingToChange,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Policy {
    document: Document,
}

impl Policy {
    /// A policy without sections.
    #[expect(clippy::new_without_default, reason = "an empty policy is made on purpose, never by default")]
    pub fn new() -> Policy {
        Policy { document: Document::new(&GENESIS) }
    }

    /// A policy that this node saved.
    pub fn load(saved: &[u8]) -> Result<Policy, DocumentError> {
        Document::load(&GENESIS, saved).map(|document| Policy { document })
    }

    /// The whole policy with its history, not compressed.
    pub fn save(&self) -> Vec<u8> {
        self.document.save()
    }

    /// Declares a section. Returns the change.
    pub fn declare(&mut self, origin: Origin, policy: &SectionPolicy) -> Result<Vec<u8>, PolicyError> {
        let (standing, losing) = self.sections();
        self.may_declare(policy, &standing, &losing)?;
        check_voters(policy.arbitration, &policy.voters)?;
        check_founding(policy.arbitration, policy.founding.as_ref())?;
        let declared = Declared { root: policy.root.clone(), arbitration: policy.arbitration, founding: policy.founding.clone() };
        let edit = SectionEdit {
            durability: Some(policy.durability),
            retention_ms: Some(policy.retention_ms),
            voters: Some(policy.voters.clone()),
        };
        check_edit(&edit)?;
        self.commit(origin, |open| {
            open.put(SECTIONS, &key(policy.id, DECLARED), encoded(&declared));
            put(open, policy.id, &edit);
        })
    }

    /// Changes what may change of a section. Returns the change.
    pub fn edit(&mut self, origin: Origin, id: SectionId, edit: &SectionEdit) -> Result<Vec<u8>, PolicyError> {
        let section = self.section(id).ok_or(PolicyError::UnknownSection(id))?;
        check_edit(edit)?;
        edit.voters.iter().try_for_each(|voters| check_voters(section.arbitration, voters))?;
        self.commit(origin, |open| put(open, id, edit))
    }

    /// Removes a section. Returns the change.
    pub fn remove(&mut self, origin: Origin, id: SectionId) -> Result<Vec<u8>, PolicyError> {
        self.section(id).ok_or(PolicyError::UnknownSection(id))?;
        self.commit(origin, |open| {
            [DECLARED, DURABILITY, RETENTION, VOTERS].iter().for_each(|field| open.remove(SECTIONS, &key(id, field)))
        })
    }

    /// The live sections in the order of their ids: those that stand, and those that lost to one with the same root.
    pub fn sections(&self) -> (Vec<SectionPolicy>, Vec<SectionPolicy>) {
        let mut roots: BTreeMap<Path, SectionId> = BTreeMap::new();
        self.live().into_iter().partition(|section| *roots.entry(section.root.clone()).or_insert(section.id) == section.id)
    }

    /// A live section, whether it stands or not.
    pub fn section(&self, id: SectionId) -> Option<SectionPolicy> {
        self.live().into_iter().find(|section| section.id == id)
    }

    /// Applies a change from elsewhere. Returns whether it was new.
    pub fn apply(&mut self, change: &[u8]) -> Result<bool, DocumentError> {
        self.document.apply(&[change]).map(|touched| !touched.is_empty())
    }

    /// Joins a peer's whole policy into this one. Returns whether it brought anything new.
    pub fn merge(&mut self, saved: &[u8]) -> Result<bool, DocumentError> {
        self.document.merge(saved).map(|touched| !touched.is_empty())
    }

    /// The sorted heads: equal exactly where policies are.
    pub fn heads(&self) -> Vec<[u8; 32]> {
        self.document.heads()
    }

    /// Whether the change with this hash has been applied.
    pub fn has_change(&self, hash: &[u8; 32]) -> bool {
        self.document.has_change(hash)
    }

    fn may_declare(&self, policy: &SectionPolicy, standing: &[SectionPolicy], losing: &[SectionPolicy]) -> Result<(), PolicyError> {
        if standing.len() + losing.len() >= SECTIONS_MAX {
            return Err(PolicyError::TooManySections);
        }
        if policy.root.is_reserved() {
            return Err(PolicyError::ReservedRoot(policy.root.clone()));
        }
        let built_in = [SectionId::MESH, SectionId::LOCAL].contains(&policy.id);
        if built_in || standing.iter().chain(losing).any(|section| section.id == policy.id) {
            return Err(PolicyError::IdTaken(policy.id));
        }
        match standing.iter().find(|section| section.root == policy.root) {
            Some(section) => Err(PolicyError::RootTaken { root: policy.root.clone(), id: section.id }),
            None => Ok(()),
        }
    }

    fn commit(&mut self, origin: Origin, edit: impl FnOnce(&mut Edit<'_>)) -> Result<Vec<u8>, PolicyError> {
        self.document.commit(origin, 0, edit).ok_or(PolicyError::NothingToChange)
    }

    /// The live sections, in the order of their ids.
    fn live(&self) -> Vec<SectionPolicy> {
        let mut fields: BTreeMap<u64, BTreeMap<String, Vec<u8>>> = BTreeMap::new();
        for (key, entries) in self.document.entries(SECTIONS) {
            if let (Some((id, field)), Some(winner)) = (parse_key(&key), entries.into_iter().next()) {
                fields.entry(id).or_default().insert(field.to_owned(), winner.bytes);
            }
        }
        fields.into_iter().filter_map(|(id, fields)| section(SectionId(id), &fields)).collect()
    }
}

const DECLARED: &str = "declared";
const DURABILITY: &str = "durability";
const RETENTION: &str = "retention_ms";
const VOTERS: &str = "voters";

#[derive(Encode, Decode)]
#[cbor(map)]
struct Declared {
    #[n(0)]
    root: Path,
    #[n(1)]
    arbitration: Arbitration,
    #[n(2)]
    founding: Option<Founding>,
}

/// The section that the entries say; what does not parse of them is at its default, or, if it is the declaration, no section.
fn section(id: SectionId, fields: &BTreeMap<String, Vec<u8>>) -> Option<SectionPolicy> {
    let Declared { root, arbitration, founding } = decoded(fields, DECLARED)?;
    if [SectionId::MESH, SectionId::LOCAL].contains(&id) || root.is_reserved() {
        return None;
    }
    let default = SectionPolicy::new(id, root);
    Some(SectionPolicy {
        arbitration,
        durability: decoded(fields, DURABILITY).and_then(Durability::from_disks).unwrap_or(default.durability),
        retention_ms: decoded(fields, RETENTION).unwrap_or(default.retention_ms),
        voters: decoded(fields, VOTERS).filter(|voters: &Vec<NodeId>| voters.len() <= VOTERS_MAX).unwrap_or_default(),
        founding: founding.filter(|founding| check_founding(arbitration, Some(founding)).is_ok()),
        ..default
    })
}

fn put(open: &mut Edit<'_>, id: SectionId, edit: &SectionEdit) {
    if let Some(durability) = edit.durability {
        open.put(SECTIONS, &key(id, DURABILITY), encoded(&durability.disks()));
    }
    if let Some(retention_ms) = edit.retention_ms {
        open.put(SECTIONS, &key(id, RETENTION), encoded(&retention_ms));
    }
    if let Some(mut voters) = edit.voters.clone() {
        voters.sort_unstable();
        open.put(SECTIONS, &key(id, VOTERS), encoded(&voters));
    }
}

fn check_edit(edit: &SectionEdit) -> Result<(), PolicyError> {
    match edit {
        SectionEdit { durability: Some(Durability::Mesh(0 | MESH_COPIES_TOO_MANY..)), .. } => Err(PolicyError::BadDurability),
        SectionEdit { retention_ms: Some(0), .. } => Err(PolicyError::NoRetention),
        _ => Ok(()),
    }
}

const MESH_COPIES_TOO_MANY: u8 = MESH_COPIES_MAX + 1;

fn check_voters(arbitration: Arbitration, voters: &[NodeId]) -> Result<(), PolicyError> {
    match (arbitration, voters.len()) {
        (Arbitration::Quorum, 0) => return Err(PolicyError::NoVoters),
        (Arbitration::Available, 1..) => return Err(PolicyError::UnneededVoters),
        (_, count) if count > VOTERS_MAX => return Err(PolicyError::TooManyVoters(count)),
        _ => {}
    }
    let repeated = voters.iter().enumerate().find(|(place, voter)| voters[..*place].contains(voter));
    repeated.map_or(Ok(()), |(_, voter)| Err(PolicyError::RepeatedVoter(*voter)))
}

fn check_founding(arbitration: Arbitration, founding: Option<&Founding>) -> Result<(), PolicyError> {
    let sound =
        |founding: &Founding| (1..=VOTERS_MAX).contains(&founding.voters.len()) && founding.lease_ms > 0 && founding.durations().is_some();
    match (arbitration, founding) {
        (Arbitration::Quorum, Some(founding)) if sound(founding) => Ok(()),
        (Arbitration::Quorum, _) => Err(PolicyError::BadFounding),
        (Arbitration::Available, None) => Ok(()),
        (Arbitration::Available, Some(_)) => Err(PolicyError::UnneededVoters),
    }
}

fn key(id: SectionId, field: &str) -> String {
    format!("{:016x}/{field}", id.0)
}

fn parse_key(key: &str) -> Option<(u64, &str)> {
    let (id, field) = key.split_once('/')?;
    let parsed = u64::from_str_radix(id, 16).ok()?;
    // One spelling only: others would be other entries of the same section.
    (format!("{parsed:016x}") == id).then_some((parsed, field))
}

fn decoded<T: for<'b> Decode<'b, ()>>(fields: &BTreeMap<String, Vec<u8>>, field: &str) -> Option<T> {
    minicbor::decode(fields.get(field)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Incarnation;

    fn origin(node: u8) -> Origin {
        Origin { node: NodeId([node; 32]), incarnation: Incarnation { boot: 1, nonce: 0 } }
    }

    fn section(id: u64, root: &str) -> SectionPolicy {
        SectionPolicy::new(SectionId(id), Path::parse(root).unwrap())
    }

    fn quorum(id: u64, root: &str, voters: &[u8]) -> SectionPolicy {
        let voters = voters.iter().map(|voter| NodeId([*voter; 32])).collect();
        let founding = Founding { voters: BTreeSet::from([VoterId([1; 16])]), lease_ms: 5_000, drift_ppm: 500 };
        SectionPolicy { arbitration: Arbitration::Quorum, voters, founding: Some(founding), ..section(id, root) }
    }

    #[test]
    fn a_policy_begins_the_same_everywhere_and_for_ever() {
        let heads = Policy::new().heads();
        let text: String = heads[0].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!((heads.len(), text.as_str()), (1, "8253d5620ac66c347f7b840dec469fbc3039b39bba76ba228f76fd64080a19a2"));
    }

    #[test]
    fn sections_are_declared_edited_and_removed_everywhere() {
        let (mut here, mut there) = (Policy::new(), Policy::new());
        let declared = [section(1, "a"), quorum(2, "a/b", &[3, 1, 2])];
        for section in &declared {
            let change = here.declare(origin(1), section).unwrap();
            assert_eq!(there.apply(&change), Ok(true));
            assert_eq!(there.apply(&change), Ok(false));
        }
        let sorted = quorum(2, "a/b", &[1, 2, 3]);
        assert_eq!(there.sections(), (vec![section(1, "a"), sorted.clone()], vec![]));
        let edit = SectionEdit { retention_ms: Some(5), durability: Some(Durability::Mesh(2)), ..SectionEdit::default() };
        let change = there.edit(origin(2), SectionId(2), &edit).unwrap();
        here.apply(&change).unwrap();
        assert_eq!(here.section(SectionId(2)), Some(SectionPolicy { retention_ms: 5, durability: Durability::Mesh(2), ..sorted }));
        let change = here.remove(origin(1), SectionId(2)).unwrap();
        there.apply(&change).unwrap();
        assert_eq!(there.sections(), (vec![section(1, "a")], vec![]));
        assert_eq!(here.heads(), there.heads());
        assert_eq!(Policy::load(&here.save()).unwrap().sections(), here.sections());
    }

    #[test]
    fn refusals_name_what_stands_in_the_way() {
        let mut policy = Policy::new();
        policy.declare(origin(1), &section(5, "a")).unwrap();
        let before = policy.heads();
        let mut refused = |section: SectionPolicy| policy.declare(origin(1), &section).unwrap_err().to_string();
        assert_eq!(refused(section(6, "a")), "a is the root of section 0000000000000005 already");
        assert_eq!(refused(section(5, "b")), "section id 0000000000000005 is taken");
        assert_eq!(refused(section(0, "b")), "section id mesh is taken");
        assert_eq!(refused(section(u64::MAX, "b")), "section id local is taken");
        assert!(refused(section(6, "$sys")).starts_with("$sys has a segment that begins with $"));
        assert_eq!(refused(quorum(6, "b", &[])), "a quorum section needs voters");
        assert!(refused(quorum(6, "b", &[1, 2, 1])).starts_with("voter 0101"));
        assert_eq!(refused(quorum(6, "b", &(0..16).collect::<Vec<_>>())), "a section has at most 15 voters, not 16");
        let voters = quorum(6, "b", &[1]).voters;
        assert_eq!(refused(SectionPolicy { voters, ..section(6, "b") }), "an available section has no voters");
        assert!(refused(SectionPolicy { founding: None, ..quorum(6, "b", &[1]) }).starts_with("a quorum needs from 1 to 15 voters"));
        for copies in [0, 65, 255] {
            let durability = Durability::Mesh(copies);
            assert!(refused(SectionPolicy { durability, ..section(6, "b") }).starts_with("durability mesh(k) is for k from 1"));
        }
        assert_eq!(refused(SectionPolicy { retention_ms: 0, ..section(6, "b") }), "retention is at least 1 ms");
        let edit = SectionEdit { voters: Some(vec![NodeId([1; 32])]), ..SectionEdit::default() };
        assert_eq!(policy.edit(origin(1), SectionId(5), &edit), Err(PolicyError::UnneededVoters));
        assert_eq!(policy.edit(origin(1), SectionId(7), &edit), Err(PolicyError::UnknownSection(SectionId(7))));
        assert_eq!(policy.remove(origin(1), SectionId(7)), Err(PolicyError::UnknownSection(SectionId(7))));
        assert_eq!(policy.edit(origin(1), SectionId(5), &SectionEdit::default()), Err(PolicyError::NothingToChange));
        let same = SectionEdit { retention_ms: Some(RETENTION_MS_DEFAULT), ..SectionEdit::default() };
        assert_eq!(policy.edit(origin(1), SectionId(5), &same), Err(PolicyError::NothingToChange));
        assert_eq!(policy.heads(), before);
        assert_eq!("majority".parse::<Arbitration>().unwrap_err().to_string(), "arbitration is available or quorum, not \"majority\"");
    }

    #[test]
    fn of_two_sections_with_one_root_the_smaller_id_stands_until_it_goes() {
        let (mut here, mut there) = (Policy::new(), Policy::new());
        let one = here.declare(origin(1), &section(9, "a")).unwrap();
        let other = there.declare(origin(2), &section(4, "a")).unwrap();
        here.apply(&other).unwrap();
        there.apply(&one).unwrap();
        assert_eq!(here.sections(), (vec![section(4, "a")], vec![section(9, "a")]));
        assert_eq!(there.sections(), here.sections());
        here.remove(origin(1), SectionId(4)).unwrap();
        assert_eq!(here.sections(), (vec![section(9, "a")], vec![]));
    }

    #[test]
    fn concurrent_edits_of_different_things_both_stand_and_a_removal_wins() {
        let (mut here, mut there) = (Policy::new(), Policy::new());
        let change = here.declare(origin(1), &section(1, "a")).unwrap();
        there.apply(&change).unwrap();
        let edit = |retention_ms, durability| SectionEdit { retention_ms, durability, ..SectionEdit::default() };
        here.edit(origin(1), SectionId(1), &edit(Some(7), None)).unwrap();
        there.edit(origin(2), SectionId(1), &edit(None, Some(Durability::Memory))).unwrap();
        assert_eq!(here.merge(&there.save()), Ok(true));
        assert_eq!(there.merge(&here.save()), Ok(true));
        let both = SectionPolicy { retention_ms: 7, durability: Durability::Memory, ..section(1, "a") };
        assert_eq!((here.sections(), there.sections()), ((vec![both.clone()], vec![]), (vec![both], vec![])));
        here.remove(origin(1), SectionId(1)).unwrap();
        there.edit(origin(2), SectionId(1), &edit(Some(8), None)).unwrap();
        here.merge(&there.save()).unwrap();
        there.merge(&here.save()).unwrap();
        assert_eq!((here.sections(), there.sections()), ((vec![], vec![]), (vec![], vec![])));
        assert_eq!(here.heads(), there.heads());
        assert_eq!(here.merge(&there.save()), Ok(false));
    }

    #[test]
    fn a_bucket_is_no_policy() {
        let bucket = crate::bucket::Bucket::new();
        assert_eq!(Policy::new().merge(&bucket.save()), Err(DocumentError::Foreign));
        assert_eq!(Policy::load(&bucket.save()).unwrap_err(), DocumentError::Foreign);
    }

    #[test]
    fn entries_that_do_not_parse_are_as_if_they_were_not_there() {
        let mut policy = Policy::new();
        policy.declare(origin(1), &section(1, "a")).unwrap();
        let before = policy.sections();
        let odd = |open: &mut Edit<'_>| {
            open.put(
                SECTIONS,
                "1/declared",
                encoded(&Declared { root: Path::parse("x").unwrap(), arbitration: Arbitration::Quorum, founding: None }),
            );
            open.put(SECTIONS, "0000000000000002/declared", b"odd".to_vec());
            open.put(SECTIONS, "0000000000000001/retention_ms", b"odd".to_vec());
            open.put(SECTIONS, "0000000000000001/colour", b"odd".to_vec());
            open.put(SECTIONS, "odd", vec![]);
        };
        assert!(policy.document.commit(origin(2), 0, odd).is_some());
        assert_eq!(policy.sections(), before);
    }
}
