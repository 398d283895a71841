//! Ways in which the simulator itself can break what the node relies on, or what a checker looks at, to show that it is noticed. As with
//! the node's own rules ([`mangrove_crdt::sabotage`]) all are off without the feature `sabotage`, and the compiler removes what hangs on them.

/// Something to break.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tamper {
    /// A node draws the same random bits at every start, so that a restored backup repeats a run, with its numbers and its automerge actor.
    SameNonce,
    /// The driver says that a batch is on the disk before it is.
    EarlyAck,
    /// A byte of what crosses a link is changed, as no transport would let pass.
    CorruptFrames,
    /// A subscriber is told things in the wrong order.
    SwappedUpdates,
    /// Clients go on writing when they should be quiet.
    NeverQuiet,
    /// A partition is never healed.
    NoHeal,
    /// A random number comes from outside.
    Outside,
    /// A frame that is no frame makes the node panic.
    Panic,
    /// A restart leaves out a part of what was stored.
    ForgetfulDisk,
    /// Recovery takes half a batch for a whole one.
    TornBatch,
}

#[cfg(feature = "sabotage")]
mod switch {
    use std::cell::Cell;

    use super::Tamper;

    thread_local! {
        static BROKEN: Cell<Option<Tamper>> = const { Cell::new(None) };
    }

    /// Breaks something on this thread, or nothing again.
    pub fn tamper(with: Option<Tamper>) {
        BROKEN.set(with);
    }

    /// Whether it is broken.
    pub fn is(with: Tamper) -> bool {
        BROKEN.get() == Some(with)
    }
}

#[cfg(feature = "sabotage")]
pub use switch::{is, tamper};

/// Whether it is broken: never, without the feature.
#[cfg(not(feature = "sabotage"))]
#[inline(always)]
pub const fn is(_: Tamper) -> bool {
    false
}
