//! S12, S13 and L4: a session has one home at each epoch, and in the end one at all. Whoever takes it up gets a greater epoch than its client has had, which no other
//! node gets; a node that has heard of a newer home does not have it any more; and after the faults every client has the session again that it was
//! told it has. And no session is over whose client is connected.

use std::collections::BTreeMap;

use mangrove::{
    node::Node,
    protocol::{Code, Refusal},
};
use mangrove_crdt::{
    id::{SectionId, SessionId},
    standing::{SessionRecord, Standing},
};

use super::{Invariant, Violation};

/// Who has taken up each session at each epoch: host and process.
#[derive(Debug, Default)]
pub struct Homes {
    taken: BTreeMap<(SessionId, u32), (usize, u32)>,
}

impl Homes {
    /// A client that knew of one epoch, or 0, is told that its session was taken up under another.
    ///
    /// # Errors
    /// It is no greater, or another's.
    pub fn taken(&mut self, id: SessionId, epoch: u32, seen: u32, by: (usize, u32)) -> Result<(), Violation> {
        let id_text = id.short();
        if epoch <= seen {
            let what = format!("session {id_text} was taken up under epoch {epoch} by a client that had {seen} before");
            return Err(Violation::new(Invariant::S12, what));
        }
        match self.taken.insert((id, epoch), by) {
            Some(other) if other != by => {
                let what = format!("session {id_text} was taken up under epoch {epoch} at host {} and at host {}", other.0, by.0);
                Err(Violation::new(Invariant::S12, what))
            }
            _ => Ok(()),
        }
    }
}

/// Whether a node has only sessions of which it knows no newer home.
///
/// # Errors
/// It has another.
pub fn own(name: &str, node: &Node) -> Result<(), Violation> {
    for (id, epoch, _) in node.own_sessions() {
        let record: Option<SessionRecord> = node.replica().standing(SectionId::MESH, Standing::Session(id));
        let told = record.map_or("has ended".into(), |record| format!("is at {} under epoch {}", record.home.short(), record.epoch));
        if told != format!("is at {} under epoch {epoch}", node.id().short()) {
            let what = format!("{name} has session {} under epoch {epoch}, and knows that it {told}", id.short());
            return Err(Violation::new(Invariant::S12, what));
        }
    }
    Ok(())
}

/// Whether nodes that have heard all of each other have no session in common.
///
/// # Errors
/// Two have the same.
pub fn apart<'a>(nodes: impl Iterator<Item = (&'a str, &'a Node)>) -> Result<(), Violation> {
    let mut homes: BTreeMap<SessionId, &str> = BTreeMap::new();
    for (name, node) in nodes {
        for (id, ..) in node.own_sessions() {
            if let Some(other) = homes.insert(id, name) {
                let what = format!("{other} and {name} both have session {}", id.short());
                return Err(Violation::new(Invariant::S12, what));
            }
        }
    }
    Ok(())
}

/// A client that is connected is told that its session is over. Here nobody ends one for good, so it can only have been taken up elsewhere.
///
/// # Errors
/// It has ended.
pub fn told_closing(name: &str, refusal: &Refusal) -> Result<(), Violation> {
    if refusal.code == Code::SessionEnded {
        let what = format!("{name} ended session {}, whose client was there: {}", refusal.what, refusal.why);
        return Err(Violation::new(Invariant::S13, what));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_is_taken_once_and_rises() {
        let mut homes = Homes::default();
        let id = SessionId([1; 16]);
        assert!(homes.taken(id, 1, 0, (0, 1)).is_ok());
        assert!(homes.taken(id, 2, 1, (1, 1)).is_ok());
        assert!(homes.taken(id, 2, 1, (0, 1)).is_err(), "another's");
        assert!(homes.taken(id, 3, 3, (0, 1)).is_err(), "no greater");
        assert!(homes.taken(SessionId([2; 16]), 1, 0, (0, 1)).is_ok());
    }
}
