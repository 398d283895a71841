//! S5: the highest epoch known to a node never falls, no session is active twice under one epoch (see [`super::exclusivity`]), and nothing is accepted under an epoch that has ended.
//!
//! That what was written under an epoch is never overtaken by what was written under an earlier one is a part of S3: a topic's value never goes down in
//! the order of stamps, and a stamp begins with its epoch.

use mangrove_crdt::{
    id::{SectionId, SessionId},
    path::Path,
    replica::Replica,
    standing::{BranchHash, GrantRecord, Standing},
};

use super::{Invariant, Violation};

/// A node's highest epoch of a section was `before`.
///
/// # Errors
/// It has fallen.
pub fn risen(name: &str, id: SectionId, before: u64, now: u64) -> Result<(), Violation> {
    if now >= before {
        return Ok(());
    }
    Err(Violation::new(Invariant::S5, format!("node {name}: the highest epoch of {id} fell from {before} to {now}")))
}

/// A node has accepted a write of a source, under an epoch.
///
/// # Errors
/// By the grants that it knows, that epoch has ended, or is another's.
pub fn accepted(name: &str, replica: &Replica, branch: &Path, session: SessionId, epoch: u64) -> Result<(), Violation> {
    let id = replica.section_of(branch);
    let standing = Standing::Grant(BranchHash::of(branch));
    let present = replica.section(id).and_then(|section| section.standing.get(&standing.key())).map(|write| write.stamp.epoch);
    let holder = replica.standing::<GrantRecord>(id, standing).and_then(|grant| grant.holder).map(|(holder, _)| holder);
    if present == Some(epoch) && holder == Some(session) {
        return Ok(());
    }
    let what = format!(
        "node {name}: it accepts a write to {branch} by session {} under epoch {epoch}, and knows that the branch is at epoch {present:?}, held by {holder:?}",
        session.short()
    );
    Err(Violation::new(Invariant::S5, what))
}
