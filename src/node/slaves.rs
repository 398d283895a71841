//! Slaves: topics that show another topic's type and value under their own path ([`TopicType::Slave`]).
//!
//! Nothing is copied. Whoever reads a slave is shown its master's value at that moment ([`Replica::shown`](mangrove_crdt::replica::Replica::shown)); what happens here is that whoever subscribes to a
//! slave is told when its master comes, goes or is written. A slave whose master is not on this node is *pending*: it is not there for readers, until its
//! master is.

use std::collections::{BTreeMap, BTreeSet};

use mangrove_crdt::{
    access::Permission,
    definition::TopicType,
    path::Path,
    sabotage::{Sabotage, is},
};

use super::{ConnectionId, Node};
use crate::protocol::{Code, Refusal};

/// The slaves that this node knows.
#[derive(Debug, Default)]
pub(super) struct Slaves {
    /// By their masters' paths.
    of: BTreeMap<Path, BTreeSet<Path>>,
    /// Their masters' paths.
    masters: BTreeMap<Path, Path>,
}

impl Slaves {
    /// Those of a master.
    pub fn of<'a>(&'a self, master: &Path) -> impl Iterator<Item = &'a Path> + use<'a> {
        // Most nodes have none at all.
        let slaves = if self.of.is_empty() || is(Sabotage::ForgetsSlaves) { None } else { self.of.get(master) };
        slaves.into_iter().flatten()
    }
}

impl Node {
    /// Finds those that there are when the node starts.
    pub(super) fn load_slaves(&mut self) {
        if self.replica.has_slaves() {
            let is_slave = |topic: &TopicType| matches!(topic, TopicType::Slave(_));
            let found = self.replica.topics_from("").filter(|(_, topic)| is_slave(topic.definition.topic_type()));
            let found: Vec<Path> = found.map(|(_, topic)| topic.path.clone()).collect();
            found.iter().for_each(|path| self.note_slave(path));
        }
    }

    /// A topic has come, gone, or got another definition.
    pub(super) fn note_slave(&mut self, path: &Path) {
        let topic_type = self.replica.topic(path).map(|(_, topic)| topic.definition.topic_type());
        let master = topic_type.and_then(|topic_type| if let TopicType::Slave(master) = topic_type { Some(master.clone()) } else { None });
        if self.slaves.masters.is_empty() && master.is_none() {
            return;
        }
        if let Some(before) = self.slaves.masters.remove(path)
            && let Some(slaves) = self.slaves.of.get_mut(&before)
        {
            slaves.remove(path);
            if slaves.is_empty() {
                self.slaves.of.remove(&before);
            }
        }
        if let Some(master) = master {
            self.slaves.of.entry(master.clone()).or_default().insert(path.clone());
            self.slaves.masters.insert(path.clone(), master);
        }
    }

    /// Whether a topic is a slave that has nothing to show on this node.
    pub(super) fn is_pending(&self, path: &Path) -> bool {
        self.slaves.masters.contains_key(path) && self.replica.shown(path).is_none()
    }

    /// Whether a client may make a topic of this type: a slave shows what its master does, so who makes one must be able to read that; and none is the slave of another.
    /// (Two sides of a split can each make one half of such a chain: then neither shows anything.)
    pub(super) fn may_be_made(&self, session: ConnectionId, path: &Path, topic_type: &TopicType) -> Result<(), Refusal> {
        let TopicType::Slave(master) = topic_type else { return Ok(()) };
        self.permitted(session, Permission::Read, master)?;
        let refused = |why: String| Refusal::new(Code::InvalidDefinition, path.as_str(), why);
        let is_slave = self.replica.topic(master).is_some_and(|(_, topic)| matches!(topic.definition.topic_type(), TopicType::Slave(_)));
        if master == path {
            Err(refused("a topic cannot be its own master".into()))
        } else if is_slave {
            Err(refused(format!("{master} is a slave itself")).hint("name its master"))
        } else if let Some(slave) = self.slaves.of(path).next() {
            Err(refused(format!("{slave} is its slave, and a slave has none")))
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests;
