//! What clients asked for, and how it ended.
//!
//! A value begins with the number of the operation that wrote it, and goes on with bytes that follow from that number: whoever sees a value
//! knows which operation it is of, and whether it is whole.

use mangrove_crdt::{definition::Durability, id::SectionId};

use crate::{oracle::Mark, scenario::Time};

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
    /// The length of its value, in bytes.
    pub len: usize,
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
    pub fn payload(&self) -> Option<Vec<u8>> {
        (self.doing == Doing::Set).then(|| payload(self.id, self.len))
    }
}

const OP_BYTES: usize = 4;

/// The value of an operation: its number, then bytes that follow from it.
pub fn payload(op: u32, len: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(len.max(OP_BYTES));
    bytes.extend_from_slice(&op.to_le_bytes());
    let mut word = op.wrapping_mul(0x9e37_79b9) | 1;
    while bytes.len() < len {
        word = word.wrapping_mul(0x0019_660d).wrapping_add(0x3c6e_f35f);
        bytes.push((word >> 24) as u8);
    }
    bytes
}

/// The operation that a value names.
pub fn payload_op(value: &[u8]) -> Option<u32> {
    Some(u32::from_le_bytes(*value.first_chunk::<OP_BYTES>()?))
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
    pub fn ask(&mut self, doing: Doing, path: String, len: usize, by: (u32, u32), asked: Time, durability: Durability) -> u32 {
        let id = self.0.len() as u32;
        let (value, made, removed) = (None, Vec::new(), Vec::new());
        self.0.push(Op { id, doing, path, len, by, asked, ended: 0, outcome: Outcome::Pending, durability, value, made, removed });
        id
    }

    /// An operation.
    pub fn get(&self, op: u32) -> Option<&Op> {
        self.0.get(op as usize)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_names_its_operation_and_no_two_are_the_same() {
        for (op, len) in [(0, 0), (7, 4), (7, 100), (u32::MAX, 5)] {
            let value = payload(op, len);
            assert_eq!((payload_op(&value), value.len()), (Some(op), len.max(4)));
        }
        assert_ne!(payload(1, 64)[4..], payload(2, 64)[4..]);
        assert_eq!(payload_op(&[1, 2]), None);
    }
}
