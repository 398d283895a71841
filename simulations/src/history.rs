//! What clients asked for, and how it ended.
//!
//! Each value names the operation that wrote it ([`values`](crate::values)).

use mangrove_crdt::{definition::Durability, id::SectionId};

use crate::{
    oracle::Mark,
    scenario::Time,
    values::{Kind, Payload},
};

/// How an operation ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Not yet.
    Pending,
    /// It was acknowledged.
    Ok,
    /// It was refused: certainly nothing was done.
    Failed,
    /// The client will never know.
    Unknown,
}

/// What an operation does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Doing {
    /// Writes a value.
    Set,
    /// Makes a topic.
    Add,
    /// Removes a topic.
    Remove,
    /// Changes the lines of a list.
    Lines,
    /// Sends a message.
    Send,
    /// Something else: making the mesh, revoking, giving up a section.
    Other,
}

/// One operation.
#[derive(Clone, Debug)]
pub struct Op {
    /// Its number.
    pub id: u32,
    /// What it does.
    pub doing: Doing,
    /// To which path.
    pub path: String,
    /// What it writes, if it is a value.
    pub payload: Payload,
    /// At which host, and its process.
    pub by: (u32, u32),
    /// When it was asked for.
    pub asked: Time,
    /// When it ended.
    pub ended: Time,
    /// How.
    pub outcome: Outcome,
    /// How durable it was to be.
    pub durability: Durability,
    /// The value that it wrote.
    pub value: Option<(SectionId, Mark)>,
    /// The topics that it made.
    pub made: Vec<(SectionId, Mark)>,
    /// The topics that it removed.
    pub removed: Vec<(SectionId, Mark)>,
}

impl Op {
    /// The bytes that it writes.
    pub fn value(&self) -> Option<Vec<u8>> {
        (self.doing == Doing::Set).then(|| self.payload.of(self.id))
    }
}

/// All operations of a run, by number.
#[derive(Debug)]
pub struct History(Vec<Op>);

impl Default for History {
    fn default() -> Self {
        // Most runs have so many: moving them while they grow costs a hundredth of the time.
        History(Vec::with_capacity(4096))
    }
}

impl History {
    /// A new operation.
    pub fn ask(&mut self, doing: Doing, path: String, payload: Payload, by: (u32, u32), asked: Time, durability: Durability) -> u32 {
        let id = self.0.len() as u32;
        let (value, made, removed) = (None, Vec::new(), Vec::new());
        self.0.push(Op { id, doing, path, payload, by, asked, ended: 0, outcome: Outcome::Pending, durability, value, made, removed });
        id
    }

    /// An operation.
    pub fn get(&self, op: u32) -> Option<&Op> {
        self.0.get(op as usize)
    }

    /// The operation that a value names, and is of the type for which it was written.
    pub fn op_of(&self, value: &[u8]) -> Option<&Op> {
        Kind::ALL.iter().find_map(|kind| self.get(kind.op(value)?).filter(|op| op.doing == Doing::Set && op.payload.kind == *kind))
    }

    /// The same, to be written to.
    pub fn get_mut(&mut self, op: u32) -> Option<&mut Op> {
        self.0.get_mut(op as usize)
    }

    /// An operation has ended; says whether it was pending until now.
    pub fn end(&mut self, op: u32, at: Time, outcome: Outcome) -> bool {
        match self.0.get_mut(op as usize) {
            Some(op) if op.outcome == Outcome::Pending => {
                (op.ended, op.outcome) = (at, outcome);
                true
            }
            _ => false,
        }
    }

    /// All of them, in the order in which they were asked for.
    pub fn iter(&self) -> impl Iterator<Item = &Op> {
        self.0.iter()
    }

    /// After what time half of the operations of clients that were acknowledged were, and 99 of 100; `None` if none was.
    pub fn acknowledged_after(&self) -> Option<[Time; 2]> {
        let acknowledged = self.0.iter().filter(|op| op.outcome == Outcome::Ok && op.doing != Doing::Other);
        let mut times: Vec<Time> = acknowledged.map(|op| op.ended.saturating_sub(op.asked)).collect();
        times.sort_unstable();
        let at = |share: usize| times.get((times.len() * share).div_ceil(100).max(1) - 1).copied();
        Some([at(50)?, at(99)?])
    }

    /// How many ended how: acknowledged, refused, unknown or still pending.
    pub fn counts(&self) -> [u64; 3] {
        let mut counts = [0; 3];
        for op in &self.0 {
            counts[match op.outcome {
                Outcome::Ok => 0,
                Outcome::Failed => 1,
                Outcome::Unknown | Outcome::Pending => 2,
            }] += 1;
        }
        counts
    }
}
