//! What this node's voter in quorum sections must never forget, and who it is.
//!
//! The voter is named with the store that its vaults lie in: on a new store, or one that was found to be older than what this node has said since, it is another voter
//! ([`Vaults::renounce`]), which no configuration names until one is chosen that does. The vaults are not the sections': a voter need not hold what it votes on, and
//! a section given up here and held again finds its vault as it was.

use std::collections::{BTreeMap, VecDeque};

use crate::{
    id::{Origin, SectionId, VoterId},
    persist::{Row, Table},
    quorum::Vault,
};

/// A voter's vault, as nodes have it.
pub type NodeVault = Vault<Origin, VoterId>;

pub(crate) const META_VOTER: u8 = b'v';
pub(crate) const META_VAULT: u8 = b'V';

/// See the module.
#[derive(Debug)]
pub struct Vaults {
    voter: VoterId,
    all: BTreeMap<SectionId, NodeVault>,
    changed: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    /// How often something has changed, how often it had at each batch that is on its way to the store, and how often it had at the last that is there.
    version: u64,
    taken: VecDeque<(u64, u64)>,
    durable: u64,
}

impl Vaults {
    /// No vaults, of a voter made in this run.
    pub(crate) fn new(own: Origin) -> Self {
        let mut vaults = Vaults {
            voter: VoterId::made_by(own),
            all: BTreeMap::new(),
            changed: BTreeMap::new(),
            version: 0,
            taken: VecDeque::new(),
            durable: 0,
        };
        vaults.name();
        vaults
    }

    /// Who votes here.
    pub fn voter(&self) -> VoterId {
        self.voter
    }

    /// What a section's voter has to remember; `None` if it has never had anything to.
    pub fn get(&self, section: SectionId) -> Option<&NodeVault> {
        self.all.get(&section)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (SectionId, &NodeVault)> {
        self.all.iter().map(|(section, vault)| (*section, vault))
    }

    /// A section's voter has this to remember. Nothing that follows from it may be said before [`Vaults::is_durable`].
    pub fn put(&mut self, section: SectionId, vault: &NodeVault) {
        self.change(vault_key(section), Some(minicbor::to_vec(vault).expect("encoding to memory")));
        self.all.insert(section, vault.clone());
    }

    /// The store is older than what this node has said since: whoever votes here from now on has promised nothing yet.
    pub fn renounce(&mut self, own: Origin) {
        for section in std::mem::take(&mut self.all).into_keys() {
            self.change(vault_key(section), None);
        }
        self.voter = VoterId::made_by(own);
        self.name();
    }

    /// Counts the changes.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Whether everything up to a version is on the disk.
    pub fn is_durable(&self, version: u64) -> bool {
        self.durable >= version
    }

    fn name(&mut self) {
        self.change(vec![META_VOTER], Some(self.voter.0.to_vec()));
    }

    fn change(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) {
        self.version += 1;
        self.changed.insert(key, value);
    }

    // The store.

    pub(crate) fn is_dirty(&self) -> bool {
        !self.changed.is_empty()
    }

    pub(crate) fn take_rows(&mut self, mark: u64, out: &mut Vec<Row>) {
        out.extend(std::mem::take(&mut self.changed).into_iter().map(|(key, value)| Row { table: Table::Meta, key, value }));
        self.taken.push_back((mark, self.version));
    }

    pub(crate) fn persisted(&mut self, mark: u64) {
        while self.taken.front().is_some_and(|(taken, _)| *taken <= mark) {
            self.durable = self.taken.pop_front().map_or(self.durable, |(_, version)| version);
        }
    }

    /// Takes in a stored row, if it is one of these.
    pub(crate) fn restore(&mut self, key: &[u8], value: &[u8]) -> Result<bool, String> {
        match key.split_first() {
            Some((&META_VOTER, [])) => {
                self.voter = VoterId(value.try_into().map_err(|_| "not a voter")?);
                self.changed.remove(key);
                self.durable = self.version;
            }
            Some((&META_VAULT, section)) => {
                let section = section.try_into().map(u64::from_be_bytes).map_err(|_| "not a section")?;
                self.all.insert(SectionId(section), minicbor::decode(value).map_err(|error| error.to_string())?);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn vault_key(section: SectionId) -> Vec<u8> {
    [&[META_VAULT][..], &section.0.to_be_bytes()].concat()
}
