//! Ways to break the rules, for tests that show that tests would notice.
//!
//! Each rule of replication (see the crate's essay) is there because without it some schedule of events loses something, diverges, or
//! brings something back. So for each there is a switch here that takes it away. Without the feature `sabotage`, [`is`] is `false` for
//! all of them, and the compiler removes what hangs on it.
//!
//! Nor does a mesh of several versions have to wait for the next one: a node can be made to be of an older version, which does not know some types ([`hide_types`]).

/// A rule to break.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sabotage {
    /// R1: the frontier moves inside a run.
    OpenRun,
    /// R2: keys whose entry has moved past the run's target are not sent.
    MovedSkip,
    /// R3: an entry overtaken by another origin's write sends nothing.
    NoPointer,
    /// R4: positions are taken over before the end of the run, those of winners in place of others too.
    Early,
    /// R5: forgetting raises no floor.
    NoFloor,
    /// R5: a removal is forgotten although it overtook what has not come here.
    ForgetFast,
    /// R6: who adopts keeps what the peer has removed.
    KeepAll,
    /// R6: frontiers are those of the adoption's end, not of its beginning.
    AdoptEnd,
    /// R6: an entry that moved on during the adoption leaves no pointer.
    NoClamp,
    /// R6: buckets are judged by the peer's frontier when the adoption began, not when they were read.
    JudgedAtStart,
    /// R7: buckets that differ are left so.
    NoRepair,
    /// R8: a stamp comes from the key's own past.
    KeyClock,
    /// R9: value runs end without regard to the tree.
    NoTree,
    /// R9: value runs end although the tree has not some topic of theirs.
    NoTopics,
    /// R9: value runs wait for the tree as it was when they began.
    TreeAtStart,
    /// Digests leave out which write it is that is held.
    BlindDigest,
    /// A neighbour's retired runs are taken to be what they are here, without comparing.
    BlindRetired,
    /// A standing record that was removed and forgotten is taken in again when it comes late.
    Latecomers,
    /// Revocations are not heeded.
    TakesRevoked,
    /// A source's writes are taken whatever has become of their epoch.
    StaleEpochs,
    /// A source does not notice that its branch has gone to another.
    KeepsLost,
    /// The silence of a home is not noticed.
    NoSuccession,
    /// A source is active before its grant is on the disk.
    EarlyGrant,
    /// A node keeps a session that has moved to another.
    KeepsMoved,
    /// A node takes a session up without regard to the epoch that its client has had.
    ForgetsEpoch,
    /// A node tells a client that has come from elsewhere what it has, without waiting for what the client has seen.
    WaitsForNothing,
    /// A session ends for good as soon as its home has lost its client for too long.
    EndsAtOnce,
    /// Who is told something goes on being told it when the rules change.
    KeepsRights,
    /// What a client has heard by other rights counts as if it had been by these.
    MixesRights,
    /// Quorum: a voter takes a branch away from a live lease.
    Overwrites,
    /// Quorum: a voter does not tell what it has given to others.
    GivesQuietly,
    /// Quorum: an owner does not listen to what was given to others.
    HeedsNoGiven,
    /// Quorum: an owner counts an acceptance however old it is.
    CountsLate,
    /// Quorum: an owner counts the acceptance of another instance of its own.
    CountsAnyInstance,
    /// Quorum: a voter that has endorsed the next configuration goes on serving.
    ServesAfterEndorsing,
    /// Quorum: a voter endorses whatever the ballot it has promised.
    EndorsesAny,
    /// Quorum: the highest epoch does not go on with a configuration.
    StartsFromNothing,
    /// Quorum: an owner counts voters that pause like any others.
    CountsPaused,
    /// Quorum: a voter that starts again answers at once.
    NoQuarantine,
    /// Quorum: an owner's authority begins when its voters have answered.
    CountsFromAnswer,
    /// Quorum: a holder does not look at the clock before it writes.
    TrustsLease,
    /// Types: a value is taken whatever its topic's type. (So does a node of a newer version, of types that this one does not know.)
    TakesAny,
    /// Events: one that is forgotten leaves nothing behind that says so.
    NoHorizon,
    /// Deltas: what a delta gave is not kept as the base of the next, nor is what comes of that looked at.
    StaleBase,
    /// Messages: one that comes again is heard again.
    HearsTwice,
    /// Slaves: their readers are not told of their masters.
    ForgetsSlaves,
    /// Blobs: one that nothing names any more is kept.
    KeepsBlobs,
    /// Blobs: none is stored.
    StoresNoBlobs,
    /// Blobs: who was asked for one is waited for, whatever has become of it.
    WaitsForever,
    /// Lists: a change takes no lines out.
    KeepsLines,
    /// Versions: a definition of a type that a node does not know is none.
    RefusesUnknown,
}

/// Whether [`hide_types`] can do anything.
pub const HIDES_TYPES: bool = cfg!(feature = "sabotage");

#[cfg(feature = "sabotage")]
mod switch {
    use std::{
        cell::{Cell, RefCell},
        sync::Arc,
    };

    use super::Sabotage;

    thread_local! {
        static BROKEN: Cell<Option<Sabotage>> = const { Cell::new(None) };
        static HIDDEN: RefCell<Option<Arc<[String]>>> = const { RefCell::new(None) };
    }

    /// Whatever runs on this thread is of a version that does not know the types of these names; or of this one again.
    pub fn hide_types(names: Option<&Arc<[String]>>) {
        HIDDEN.set(names.cloned());
    }

    /// Whether the version that runs does not know the type of this name.
    pub fn hides_type(name: &str) -> bool {
        HIDDEN.with_borrow(|hidden| hidden.as_ref().is_some_and(|hidden| hidden.iter().any(|hidden| hidden == name)))
    }

    /// Breaks a rule on this thread, or none again.
    pub fn sabotage(rule: Option<Sabotage>) {
        BROKEN.set(rule);
    }

    /// Whether a rule is broken.
    pub fn is(rule: Sabotage) -> bool {
        BROKEN.get() == Some(rule)
    }
}

#[cfg(feature = "sabotage")]
pub use switch::{hide_types, hides_type, is, sabotage};

/// Whether a rule is broken: never, without the feature.
#[cfg(not(feature = "sabotage"))]
#[inline(always)]
pub const fn is(_: Sabotage) -> bool {
    false
}

/// Whether the version that runs does not know the type of this name: never, without the feature.
#[cfg(not(feature = "sabotage"))]
#[inline(always)]
pub const fn hides_type(_: &str) -> bool {
    false
}

/// Does nothing, without the feature.
#[cfg(not(feature = "sabotage"))]
pub const fn hide_types(_: Option<&std::sync::Arc<[String]>>) {}
