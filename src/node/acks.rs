//! Answers that wait until what they acknowledge is as durable as asked.

use std::collections::{BTreeMap, VecDeque};

use mangrove_crdt::{
    definition::Durability,
    id::{Plane, SectionId},
    replica::{Replica, Written},
};

use super::input::ConnectionId;
use crate::protocol::Response;

/// What must be how durable before an answer goes out.
#[derive(Debug, Clone, Default)]
pub struct Needs {
    /// For each feed written to, the last write, and on how many other nodes' disks it must be. Numbers rise within a feed,
    /// so the last one stands for all.
    writes: BTreeMap<(SectionId, Plane), (Written, Durability)>,
    /// The same of those that need not be on any disk.
    in_memory: BTreeMap<(SectionId, Plane), Written>,
}

impl Needs {
    /// These writes must be on this node's disk.
    pub fn disk(writes: impl IntoIterator<Item = Option<Written>>) -> Self {
        let mut needs = Needs::default();
        writes.into_iter().flatten().for_each(|written| needs.add(written, Durability::Disk));
        needs
    }

    /// Adds a write and the durability that it asks for.
    pub fn add(&mut self, written: Written, durability: Durability) {
        if durability == Durability::Memory {
            self.in_memory.insert((written.section, written.plane), written);
            return;
        }
        let needed = self.writes.entry((written.section, written.plane)).or_insert((written, durability));
        if needed.0.dot.origin != written.dot.origin || needed.0.dot.number < written.dot.number {
            needed.0 = written;
        }
        if needed.1.disks() < durability.disks() {
            needed.1 = durability;
        }
    }

    /// The last write in each feed, and how durable it must be.
    pub fn all(&self) -> impl Iterator<Item = (Written, Durability)> {
        let in_memory = self.in_memory.values().map(|written| (*written, Durability::Memory));
        self.writes.values().copied().chain(in_memory)
    }

    /// Whether a sync of the own disk is waited for.
    pub fn needs_disk(&self) -> bool {
        !self.writes.is_empty()
    }

    fn is_on_disk(&self, replica: &Replica) -> bool {
        self.writes.values().all(|(written, _)| replica.is_durable(*written))
    }

    fn is_met(&self, replica: &Replica) -> bool {
        self.writes.values().all(|(written, durability)| {
            let copies = match durability {
                Durability::Memory | Durability::Disk => 0,
                Durability::Mesh(copies) => usize::from(*copies),
            };
            replica.is_durable(*written) && (written.section == SectionId::LOCAL || replica.copies(*written) >= copies)
        })
    }
}

#[derive(Debug)]
struct Waiting {
    session: ConnectionId,
    id: u64,
    response: Response,
    needs: Needs,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Acks {
    waiting: VecDeque<Waiting>,
}

impl Acks {
    /// An answer that waits.
    pub fn wait(&mut self, session: ConnectionId, id: u64, response: Response, needs: Needs) {
        self.waiting.push_back(Waiting { session, id, response, needs });
    }

    /// Answers whose needs are met now.
    pub fn due(&mut self, replica: &Replica) -> Vec<(ConnectionId, u64, Response)> {
        if !self.waiting.iter().any(|waiting| waiting.needs.is_met(replica)) {
            return Vec::new();
        }
        let (due, waiting): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut self.waiting).into_iter().partition(|waiting| waiting.needs.is_met(replica));
        self.waiting = waiting;
        due.into_iter().map(|waiting| (waiting.session, waiting.id, waiting.response)).collect()
    }

    /// Those who wait for this node's disk, which takes nothing now; they wait no more.
    pub fn give_up_on_disk(&mut self, replica: &Replica) -> Vec<(ConnectionId, u64)> {
        let (stored, lost): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut self.waiting).into_iter().partition(|waiting| waiting.needs.is_on_disk(replica));
        self.waiting = stored;
        lost.into_iter().map(|waiting| (waiting.session, waiting.id)).collect()
    }

    /// A session is gone; nobody waits any more.
    pub fn forget(&mut self, session: ConnectionId) {
        self.waiting.retain(|waiting| waiting.session != session);
    }
}
