//! Who may do what: principals, roles and permissions, the same on every node of the mesh.
//!
//! One automerge document, in which each thing that can be said ([`Fact`]) has one entry of its own: the permissions of one role at one path, the roles of one
//! principal. So edits of different things made on both sides of a split both stand. Of edits of the same thing both are kept until
//! somebody says it anew, and what they come to meanwhile is the more restrictive ([`rules`]).
//!
//! An edit is a script ([`script`]), and takes effect as a whole or not at all: it is one change, on every node.

use std::{collections::BTreeMap, sync::LazyLock};

use crate::{
    document::{Document, DocumentError, Genesis, MapIndex},
    id::Origin,
};

pub mod fact;
pub mod rules;
pub mod script;

pub use fact::{Anonymous, Fact, Trust, Whom, check_principal};
pub use rules::{Conflict, Permission, Permissions, Principal, Rights, Roles, Rules, Step};
use script::{BadScript, Statement};

/// How many things may be said in all; what was said once and is not any more counts as well.
pub const FACTS_MAX: usize = 65_536;

/// How many entries one script may change: as many as fit one change.
pub const CHANGES_MAX: usize = 1_024;

static GENESIS: LazyLock<Genesis> = LazyLock::new(|| Genesis::new("mangrove access 1", &fact::MAPS));

/// Why a script was refused. Nothing was changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    /// It is no script.
    #[error("{0}")]
    Script(#[from] BadScript),
    /// Nothing is known of a role that it removes.
    #[error("line {0}: there is no role {1}")]
    UnknownRole(usize, String),
    /// There is no principal that it removes.
    #[error("line {0}: there is no principal {1}")]
    UnknownPrincipal(usize, String),
    /// It changes too much at once.
    #[error("a script changes at most {CHANGES_MAX} things, not {0}: cut it into several")]
    TooManyChanges(usize),
    /// There would be too much of it.
    #[error("at most {FACTS_MAX} things can be said")]
    TooManyFacts,
}

/// What a script changes of one thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What was said, by each side of a split if that is in conflict; none if nothing was.
    pub before: Vec<Fact>,
    /// What is said after it.
    pub after: Fact,
}

type Key = (MapIndex, String);

/// See the module.
#[derive(Clone, Debug)]
pub struct Access {
    document: Document,
}

impl Access {
    /// One in which nothing is said.
    #[expect(clippy::new_without_default, reason = "an empty document is made on purpose, never by default")]
    pub fn new() -> Access {
        Access { document: Document::new(&GENESIS) }
    }

    /// One that this node saved.
    pub fn load(saved: &[u8]) -> Result<Access, DocumentError> {
        Document::load(&GENESIS, saved).map(|document| Access { document })
    }

    /// The whole document with its history, not compressed.
    pub fn save(&self) -> Vec<u8> {
        self.document.save()
    }

    /// What a script would change, in the order of the document.
    pub fn try_script(&self, text: &str) -> Result<Vec<Change>, AccessError> {
        let known: BTreeMap<Key, Vec<Fact>> = self.things().collect();
        let mut said: BTreeMap<Key, Fact> = BTreeMap::new();
        let script = script::parse(text)?;
        if script.len() > CHANGES_MAX {
            return Err(AccessError::TooManyChanges(script.len()));
        }
        for (line, statement) in script {
            let standing = || known.iter().filter(|(key, _)| !said.contains_key(*key)).map(|(_, facts)| &facts[0]).chain(said.values());
            let unsaid =
                |of: &dyn Fn(&Fact) -> bool| -> Vec<Fact> { standing().filter(|fact| of(fact)).cloned().map(Fact::unsaid).collect() };
            let facts = match statement {
                Statement::Say(fact) => vec![fact],
                Statement::RemoveRole(role) => {
                    let facts = unsaid(&|fact| fact.role() == Some(&role));
                    (!facts.is_empty()).then_some(facts).ok_or(AccessError::UnknownRole(line, role))?
                }
                Statement::RemovePrincipal(name) => {
                    let facts = unsaid(&|fact| fact.principal() == Some(&name));
                    (!facts.is_empty()).then_some(facts).ok_or(AccessError::UnknownPrincipal(line, name))?
                }
            };
            said.extend(facts.into_iter().map(|fact| (fact.key(), fact)));
        }
        let fresh = said.keys().filter(|key| !known.contains_key(*key)).count();
        let changes: Vec<Change> = said
            .into_iter()
            .map(|(key, after)| Change { before: known.get(&key).cloned().unwrap_or_default(), after })
            .filter(|change| match change.before.as_slice() {
                [] => change.after.is_said(),
                [before] => *before != change.after,
                _ => true,
            })
            .collect();
        if changes.len() > CHANGES_MAX {
            return Err(AccessError::TooManyChanges(changes.len()));
        }
        if known.len() + fresh > FACTS_MAX {
            return Err(AccessError::TooManyFacts);
        }
        Ok(changes)
    }

    /// Makes the change that a script wants. Returns it, unless there is nothing to change, and what it changes.
    pub fn run_script(&mut self, origin: Origin, text: &str) -> Result<(Option<Vec<u8>>, Vec<Change>), AccessError> {
        let changes = self.try_script(text)?;
        let change = self.document.commit(origin, 0, |open| {
            for change in &changes {
                let (map, key) = change.after.key();
                open.put(map, &key, change.after.bytes());
            }
        });
        Ok((change, changes))
    }

    /// Everything that is said, each thing with what each side of a split says of it: the one that would stand by itself first.
    fn things(&self) -> impl Iterator<Item = (Key, Vec<Fact>)> + '_ {
        let entries = (0..fact::MAPS.len()).flat_map(|map| self.document.entries(map).map(move |entry| (map, entry)));
        entries.filter_map(|(map, (key, entries))| {
            let mut facts: Vec<Fact> = Vec::new();
            for entry in entries {
                // Only as it would be written: another spelling would be another entry for the same thing.
                let fact = Fact::of_entry(map, &key, &entry.bytes).filter(|fact| fact.key() == (map, key.clone()));
                facts.extend(fact.filter(|fact| !facts.contains(fact)));
            }
            (!facts.is_empty()).then_some(((map, key), facts))
        })
    }

    /// Everything that is said, as those statements that would say it again; of what is in conflict, what would stand by itself.
    pub fn facts(&self) -> Vec<Fact> {
        self.things().filter_map(|(_, facts)| facts.into_iter().next()).filter(Fact::is_said).collect()
    }

    /// What it comes to.
    pub fn rules(&self) -> Rules {
        Rules::of(self.things().map(|(_, facts)| facts))
    }

    /// Whether nothing was ever said.
    pub fn is_untouched(&self) -> bool {
        self.things().next().is_none()
    }

    /// Applies a change from elsewhere. Returns whether it was new.
    pub fn apply(&mut self, change: &[u8]) -> Result<bool, DocumentError> {
        self.document.apply(&[change]).map(|touched| !touched.is_empty())
    }

    /// Joins a peer's whole document into this one. Returns whether it brought anything new.
    pub fn merge(&mut self, saved: &[u8]) -> Result<bool, DocumentError> {
        self.document.merge(saved).map(|touched| !touched.is_empty())
    }

    /// The sorted heads: equal exactly where documents are.
    pub fn heads(&self) -> Vec<[u8; 32]> {
        self.document.heads()
    }
}

#[cfg(test)]
mod tests;
