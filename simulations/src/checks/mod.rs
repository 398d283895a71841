//! What must hold: one invariant, one file.
//!
//! Each file states its promise, and how it is seen to be kept. Safety is looked at after every step of a node, or at samples of the
//! whole; liveness in the settle phase. The first violation ends a run.

pub mod blobs;
pub mod bounds;
pub mod convergence;
pub mod durability;
pub mod exclusivity;
pub mod fences;
pub mod integrity;
pub mod lattice;
pub mod leases;
pub mod lists;
pub mod livelock;
pub mod liveness;
pub mod membership;
pub mod messages;
pub mod numbering;
pub mod reads;
pub mod resurrection;
pub mod rights;
pub mod robustness;
pub mod sessions;
pub mod tree;

use std::fmt;

use crate::scenario::Time;

/// An invariant, by its number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Invariant {
    /// The same run gives the same trace.
    S1,
    /// Nodes that have seen the same hold the same.
    S2,
    /// Frontiers are sound, and nothing goes down.
    S3,
    /// In quorum sections never two hold a branch, and no epoch serves two.
    S4,
    /// Epochs rise, and what comes after one is never overtaken by what came before.
    S5,
    /// In available sections two hold a branch only while they are apart, and one in the end.
    S6,
    /// Nothing acknowledged is lost.
    S7,
    /// Nothing removed comes back.
    S8,
    /// What is seen was written.
    S9,
    /// A subscriber never goes back.
    S10,
    /// Whoever listens has been told what stands, when all is quiet.
    S11,
    /// A session has one home.
    S12,
    /// A session ends once, and only when it may.
    S13,
    /// Nobody is told what it may not see, and everybody what it may.
    S14,
    /// One topic a path, with one definition.
    S15,
    /// No number is given twice.
    S16,
    /// Buffers are bounded, and rest is quiet.
    S17,
    /// What a revoked node writes is not taken.
    S18,
    /// No panic, no error in the log.
    S19,
    /// A node has the blobs that its topics name, and in the end no others.
    S20,
    /// After the faults everything becomes equal in time.
    L1,
    /// With a fault that stays outside a healthy core, the core becomes equal and its branches get sources, in time.
    L2,
    /// A branch that is wanted gets a source.
    L3,
    /// A client has its session again.
    L4,
    /// A run ends.
    L5,
}

impl Invariant {
    /// All of them, in order.
    pub const ALL: [Invariant; 25] = [
        Invariant::S1,
        Invariant::S2,
        Invariant::S3,
        Invariant::S4,
        Invariant::S5,
        Invariant::S6,
        Invariant::S7,
        Invariant::S8,
        Invariant::S9,
        Invariant::S10,
        Invariant::S11,
        Invariant::S12,
        Invariant::S13,
        Invariant::S14,
        Invariant::S15,
        Invariant::S16,
        Invariant::S17,
        Invariant::S18,
        Invariant::S19,
        Invariant::S20,
        Invariant::L1,
        Invariant::L2,
        Invariant::L3,
        Invariant::L4,
        Invariant::L5,
    ];

    /// What it promises, in a few words.
    pub fn promise(self) -> &'static str {
        match self {
            Invariant::S1 => "the same run gives the same trace",
            Invariant::S2 => "nodes that have seen the same hold the same",
            Invariant::S3 => "frontiers are sound and nothing goes down",
            Invariant::S4 => "by quorum never two hold a branch, and no epoch serves two",
            Invariant::S5 => "epochs rise, and what has ended writes no more",
            Invariant::S6 => "a branch has one source in the end, and two only while they are apart",
            Invariant::S7 => "nothing acknowledged is lost",
            Invariant::S8 => "nothing removed comes back",
            Invariant::S9 => "what is seen was written",
            Invariant::S10 => "a subscriber never goes back",
            Invariant::S11 => "when all is quiet, subscribers have been told what stands",
            Invariant::S12 => "a session has one home",
            Invariant::S13 => "no session ends while its client is there, and its topics go with it",
            Invariant::S14 => "everybody is told what it may see, and nothing else",
            Invariant::S15 => "one topic a path, with one definition",
            Invariant::S16 => "no number is given twice",
            Invariant::S17 => "buffers are bounded and rest is quiet",
            Invariant::S18 => "what a revoked node writes is not taken",
            Invariant::S19 => "no panic and no error in the log",
            Invariant::S20 => "a node has the blobs that its topics name, and in the end no others",
            Invariant::L1 => "after the faults everything becomes equal in time",
            Invariant::L2 => "a healthy core goes on, whatever stays broken outside",
            Invariant::L3 => "a branch that is wanted gets a source in time",
            Invariant::L4 => "a client has its session again in time",
            Invariant::L5 => "a run ends",
        }
    }

    /// What kind of failure a violation is.
    pub fn kind(self) -> Kind {
        match self {
            Invariant::S19 => Kind::Crash,
            Invariant::L1 | Invariant::L2 | Invariant::L3 | Invariant::L4 | Invariant::L5 => Kind::Liveness,
            _ => Kind::Safety,
        }
    }
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Kinds of failure, which end the program differently.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// Something bad happened.
    Safety,
    /// Something good did not happen.
    Liveness,
    /// The node panicked, or logged an error.
    Crash,
}

/// A counterexample.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// Of what.
    pub invariant: Invariant,
    /// When, in true time.
    pub at: Time,
    /// What happened, in words.
    pub what: String,
}

impl Violation {
    /// A counterexample whose time is filled in by the world.
    pub fn new(invariant: Invariant, what: impl Into<String>) -> Self {
        Violation { invariant, at: 0, what: what.into() }
    }
}

/// The states that a scenario can demand to be reached by some seed.
pub const SOMETIMES: [&str; 46] = [
    "write.acknowledged",
    "write.refused",
    "write.unknown",
    "displaced",
    "removal.forgotten",
    "section.adopted",
    "bucket.repaired",
    "link.violated",
    "link.surplus",
    "disk.quarantined",
    "disk.failed",
    "disk.torn",
    "frames.replayed",
    "run.cut",
    "node.restarted",
    "node.revoked",
    "link.idle",
    "rest.disturbed",
    "faults.calm",
    "source.active",
    "source.standby",
    "source.taken-over",
    "source.double",
    "source.closed-by-overlap",
    "source.overlapped",
    "source.resumed",
    "session.moved",
    "subscriber.rewound",
    "write.fenced",
    "rights.lost",
    "rights.regained",
    "rights.in-conflict",
    "write.asked-again",
    "session.twin",
    "link.delta",
    "subscriber.delta",
    "message.heard",
    "message.lost",
    "slave.shown",
    "slave.pending",
    "type.unknown",
    "blob.awaited",
    "blob.lost",
    "list.changed",
    "list.hidden",
    "node.upgraded",
];
