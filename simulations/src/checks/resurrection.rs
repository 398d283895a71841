//! S8: nothing removed comes back, whoever was away, and for however long.
//!
//! A topic is named by its creation, so that one made again is another. Once a node's tree frontier covers a removal, none of the topics that it removed
//! lives there; and in the end none lives anywhere whose removal was acknowledged and has survived.

use mangrove_crdt::{
    id::SectionId,
    replica::Replica,
    section::{Section, StandingKey},
};

use super::{Invariant, Violation, durability::Losses, lattice::Moment};
use crate::{
    history::{History, Outcome},
    oracle::{Mark, Oracle},
};

/// A node's frontier covers a removal now.
///
/// # Errors
/// One of its topics lives.
pub fn covered(
    oracle: &Oracle,
    moment: Moment<'_>,
    replica: &Replica,
    section: &Section,
    topics: &[Mark],
    removal: Mark,
) -> Result<(), Violation> {
    for topic in topics {
        if let Some(path) = oracle.local(replica, *topic).and_then(|topic| section.tree.path_of(topic)) {
            let what = format!(
                "node {}: topic {:?} at {path} lives though its removal {:?} is covered",
                moment.name,
                oracle.dot(*topic),
                oracle.dot(removal)
            );
            return Err(Violation::new(Invariant::S8, what));
        }
    }
    Ok(())
}

/// At the end: topics whose removal was acknowledged live nowhere.
///
/// # Errors
/// One does.
pub fn ended(oracle: &Oracle, history: &History, losses: &Losses, name: &str, replica: &Replica) -> Result<(), Violation> {
    for op in history.iter().filter(|op| op.outcome == Outcome::Ok && !op.removed.is_empty()) {
        if losses.permit(op) {
            continue;
        }
        for (id, topic) in &op.removed {
            let Some(section) = replica.section(*id) else { continue };
            if oracle.local(replica, *topic).is_some_and(|topic| section.tree.path_of(topic).is_some()) {
                let what = format!(
                    "node {name}: topic {:?} at {} lives at the end though operation {} removed it",
                    oracle.dot(*topic),
                    op.path,
                    op.id
                );
                return Err(Violation::new(Invariant::S8, what));
            }
        }
    }
    Ok(())
}

/// A standing record whose newest removal a node's frontier covers is not there, if its remover knew of it. What its writer wrote without having heard
/// of the removal is another matter, whatever its stamp: a node that left, and lost its disk, begins with a clock at zero.
///
/// # Errors
/// It is there.
pub fn standing(oracle: &Oracle, name: &str, replica: &Replica, key: &StandingKey) -> Result<(), Violation> {
    let (Some(gone), Some(section)) = (oracle.gone.get(key), replica.section(SectionId::MESH)) else { return Ok(()) };
    let covers = oracle.local(replica, gone.mark).is_some_and(|removal| section.standing.frontier().covers(removal));
    let Some(held) = section.standing.get(key).filter(|write| write.value.is_some()).map(|write| replica.dot(write.dot)) else {
        return Ok(());
    };
    if covers && gone.known.get(&held.origin).is_some_and(|number| *number >= held.number) && held != oracle.dot(gone.mark) {
        let what = format!("node {name}: the standing record {held:?} lives though its removal {:?} is covered", oracle.dot(gone.mark));
        return Err(Violation::new(Invariant::S8, what));
    }
    Ok(())
}

/// The same of all standing records that were ever removed.
///
/// # Errors
/// One lives.
pub fn all_standing(oracle: &Oracle, name: &str, replica: &Replica) -> Result<(), Violation> {
    oracle.gone.keys().try_for_each(|key| standing(oracle, name, replica, key))
}
