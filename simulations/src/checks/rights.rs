//! S14: a subscriber is told of a topic only by a node whose rules let it read that at the moment, and not by one whose rules are older than those by which it was
//! taken back. That it is told everything else is looked at in the end, with what it was told last.

use std::collections::BTreeMap;

use mangrove_crdt::{
    access::{Permission, Rights, Rules, Whom},
    id::{Origin, Plane, SectionId},
    path::Path,
    replica::Replica,
};

use super::{Invariant, Violation};

/// The principal as which subscribers come whose rights change.
pub const PRINCIPAL: &str = "reader";

/// Whether that principal may read a topic, by a node's rules.
pub fn may_read(rules: &Rules, path: &Path) -> bool {
    let rights = rules.find_principal(PRINCIPAL).map_or_else(Rights::default, |reader| rules.rights(Whom::Named, &reader.roles));
    rules.at(&rights, path.as_str()).has(Permission::Read)
}

/// The topics that were taken back from a subscriber, each with how far the policy had come by which they were.
#[derive(Debug, Default)]
pub struct Barred(BTreeMap<Path, Vec<(Origin, u64)>>);

impl Barred {
    /// A topic is taken back by a node.
    pub fn taken_back(&mut self, path: &Path, replica: &Replica) {
        let frontier = replica.section(SectionId::MESH).map(|mesh| mesh.frontier(Plane::Tree).iter().collect::<Vec<_>>());
        let places = frontier.unwrap_or_default().into_iter().map(|dot| (replica.origins().get(dot.origin), dot.number));
        self.0.insert(path.clone(), places.collect());
    }

    /// A node has waited in vain for what the subscriber has seen, and says so.
    pub fn rewound(&mut self) {
        self.0.clear();
    }

    /// A node tells of a topic. Returns whether it had been taken back.
    ///
    /// # Errors
    /// It may not, or it knows less than the node that took it back.
    pub fn told(&mut self, home: &str, path: &Path, replica: &Replica) -> Result<bool, Violation> {
        if !may_read(replica.rules(), path) {
            return Err(Violation::new(Invariant::S14, format!("{home} tells {PRINCIPAL} of {path}, which it may not read")));
        }
        let Some(places) = self.0.remove(path) else { return Ok(false) };
        let covered = |(origin, number): &(Origin, u64)| {
            let known =
                replica.origins().find(origin).and_then(|origin| Some(replica.section(SectionId::MESH)?.frontier(Plane::Tree).get(origin)));
            known.unwrap_or(0) >= *number
        };
        match places.iter().all(covered) {
            true => Ok(true),
            false => {
                let what = format!("{home} tells {PRINCIPAL} of {path} by rules older than those by which it was taken back");
                Err(Violation::new(Invariant::S14, what))
            }
        }
    }
}
