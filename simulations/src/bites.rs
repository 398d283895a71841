//! Broken on purpose: each rule of the node, and each thing that it relies on, taken away one at a time. A simulator that does not notice is worth
//! nothing, so this says how many seeds it takes.

use mangrove_crdt::sabotage::{Sabotage, sabotage};

use crate::{
    checks::Violation,
    run,
    scenario::Scenario,
    scenarios,
    tamper::{Tamper, tamper},
    trace::Trace,
};

/// What is broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Broken {
    /// A rule of the node.
    Rule(Sabotage),
    /// Something around it.
    Around(Tamper),
}

/// One way to break it.
#[derive(Clone, Copy, Debug)]
pub struct Bite {
    /// Its name.
    pub name: &'static str,
    /// What goes wrong then, in a few words.
    pub breaks: &'static str,
    /// What is broken.
    pub broken: Broken,
    /// The scenario that notices.
    pub scenario: &'static str,
    /// A seed that notices; none where no seed that was tried did, and stories of the replication's own tests notice it. All of these concern what
    /// is removed in the standing plane, and a node removes nothing there but its own record, once, when it leaves. For `forget-fast` that
    /// removal would have to be stable everywhere while some node has not seen the record itself, which all have long had; for
    /// `judged-at-start` all would have to forget it between two buckets of one adoption; for `latecomers` the record would have to come
    /// again after all have forgotten that it was removed. (For `early-grant`, whose session takes up its branch under a greater rank after every loss, another session would have to get the
    /// epoch that was lost.)
    pub known: Option<u64>,
}

const fn rule(name: &'static str, breaks: &'static str, rule: Sabotage, scenario: &'static str, known: Option<u64>) -> Bite {
    Bite { name, breaks, broken: Broken::Rule(rule), scenario, known }
}

const fn around(name: &'static str, breaks: &'static str, with: Tamper, scenario: &'static str, known: Option<u64>) -> Bite {
    Bite { name, breaks, broken: Broken::Around(with), scenario, known }
}

/// All of them.
pub const ALL: &[Bite] = &[
    rule("open-run", "the frontier moves inside a run", Sabotage::OpenRun, "hot", Some(0)),
    rule("moved-skip", "keys that have moved past a run's target are not sent", Sabotage::MovedSkip, "hot", Some(23)),
    rule("no-pointer", "an overtaken entry sends nothing", Sabotage::NoPointer, "hot", Some(1)),
    rule("early", "positions are taken over before the end of a run", Sabotage::Early, "hot", Some(25)),
    rule("no-floor", "forgetting raises no floor", Sabotage::NoFloor, "hot", Some(5)),
    rule("forget-fast", "a removal is forgotten before what it overtook has come", Sabotage::ForgetFast, "hot", None),
    rule("keep-all", "who adopts keeps what the peer has removed", Sabotage::KeepAll, "hot", Some(7)),
    rule("adopt-end", "an adoption takes the frontiers of its end", Sabotage::AdoptEnd, "hot", Some(0)),
    rule("no-clamp", "what moves on during an adoption leaves no pointer", Sabotage::NoClamp, "adopter-serves", Some(0)),
    rule("judged-at-start", "buckets are judged by the frontier of an adoption's start", Sabotage::JudgedAtStart, "hot", None),
    rule("no-repair", "buckets that differ are left so", Sabotage::NoRepair, "sender-gone", Some(0)),
    rule("key-clock", "a stamp comes from the key's own past", Sabotage::KeyClock, "hot", Some(3)),
    rule("no-tree", "value runs end without regard to the tree", Sabotage::NoTree, "hot", Some(0)),
    rule("no-topics", "value runs end without regard to the topics that they are of", Sabotage::NoTopics, "hot", Some(53)),
    rule("tree-at-start", "value runs wait for the tree as it was when they began", Sabotage::TreeAtStart, "hot", Some(105)),
    rule("no-horizon", "what is forgotten of a series leaves nothing that says so", Sabotage::NoHorizon, "all-types", Some(5)),
    rule("takes-any", "a value is taken whatever its topic's type", Sabotage::TakesAny, "all-types", Some(0)),
    rule("stale-base", "what a delta gave is not what the next one builds on", Sabotage::StaleBase, "all-types", Some(0)),
    rule("forgets-slaves", "who reads a slave is not told of its master", Sabotage::ForgetsSlaves, "all-types", Some(0)),
    rule("stores-no-blobs", "a node has no blobs when it starts again", Sabotage::StoresNoBlobs, "all-types", Some(126)),
    rule("keeps-blobs", "a blob that nothing names any more is kept", Sabotage::KeepsBlobs, "all-types", Some(0)),
    rule(
        "waits-forever",
        "who was asked for a blob is waited for, whatever has become of it",
        Sabotage::WaitsForever,
        "all-types",
        Some(4),
    ),
    rule("keeps-lines", "a change of a list takes no lines out", Sabotage::KeepsLines, "all-types", Some(0)),
    rule(
        "refuses-unknown",
        "a definition of a type that a node does not know is none",
        Sabotage::RefusesUnknown,
        "mixed-versions",
        Some(0),
    ),
    rule("hears-twice", "a message is heard as often as it comes", Sabotage::HearsTwice, "messages", Some(0)),
    rule("blind-digest", "digests leave out which write is held", Sabotage::BlindDigest, "hot", Some(1)),
    rule("blind-retired", "retired runs are taken to be what they are here", Sabotage::BlindRetired, "amnesia-and-return", Some(0)),
    rule("latecomers", "what was removed and forgotten is taken in again when it comes late", Sabotage::Latecomers, "late-records", None),
    rule("takes-revoked", "revocations are not heeded", Sabotage::TakesRevoked, "revoked", Some(0)),
    rule(
        "stale-epochs",
        "a source's writes are taken whatever has become of their epoch",
        Sabotage::StaleEpochs,
        "available-sources",
        Some(9),
    ),
    rule("keeps-lost", "a source does not notice that its branch has gone to another", Sabotage::KeepsLost, "available-sources", Some(0)),
    rule("keeps-moved", "a node keeps a session that has moved to another", Sabotage::KeepsMoved, "sessions-move", Some(0)),
    rule(
        "forgets-epoch",
        "a node takes a session up without regard to the epoch that its client has had",
        Sabotage::ForgetsEpoch,
        "sessions-move",
        Some(3),
    ),
    rule(
        "waits-for-nothing",
        "a client is told what a node has, which may be older than what it has heard",
        Sabotage::WaitsForNothing,
        "sessions-move",
        Some(0),
    ),
    rule(
        "ends-at-once",
        "a session ends for good as soon as its home has lost its client",
        Sabotage::EndsAtOnce,
        "sessions-move",
        Some(1414),
    ),
    rule(
        "keeps-rights",
        "who is told something goes on being told it when the rules change",
        Sabotage::KeepsRights,
        "rights-change",
        Some(0),
    ),
    rule(
        "mixes-rights",
        "what a client has heard by other rights counts as if it had been by these",
        Sabotage::MixesRights,
        "rights-change",
        Some(13),
    ),
    rule("no-succession", "the silence of a home is not noticed", Sabotage::NoSuccession, "available-sources", Some(4)),
    rule("early-grant", "a source is active before its grant is on the disk", Sabotage::EarlyGrant, "available-sources", None),
    rule("overwrites", "a voter takes a branch away from a live lease", Sabotage::Overwrites, "quorum-sources", Some(712)),
    rule("no-quarantine", "a voter that starts again answers at once", Sabotage::NoQuarantine, "quorum-sources", Some(128)),
    rule("counts-from-answer", "a lease runs from when its voters have answered", Sabotage::CountsFromAnswer, "quorum-sources", Some(0)),
    rule("trusts-lease", "a holder does not look at the clock before it writes", Sabotage::TrustsLease, "quorum-sources", Some(0)),
    rule("gives-quietly", "a voter does not tell what it has given to others", Sabotage::GivesQuietly, "quorum-sources", Some(84)),
    around(
        "same-nonce",
        "a restored backup repeats its run's numbers and automerge actor",
        Tamper::SameNonce,
        "amnesia-and-return",
        Some(0),
    ),
    around("early-ack", "a write is acknowledged before it is on the disk", Tamper::EarlyAck, "random-faults", Some(12)),
    around("corrupt-frames", "a byte of a value changes on the way", Tamper::CorruptFrames, "rolling-restart", Some(0)),
    around("swapped-updates", "a subscriber is told things in the wrong order", Tamper::SwappedUpdates, "rolling-restart", Some(0)),
    around("never-quiet", "clients write when all should be quiet", Tamper::NeverQuiet, "rolling-restart", Some(0)),
    around("no-heal", "a partition is never healed", Tamper::NoHeal, "three-way-split", Some(0)),
    around("outside", "a random number comes from outside", Tamper::Outside, "rolling-restart", Some(0)),
    around("panic", "a stray frame makes the node panic", Tamper::Panic, "random-faults", Some(4)),
    around("torn-batch", "recovery takes half a batch for a whole one", Tamper::TornBatch, "hot", Some(22)),
    around("forgetful-disk", "a restart leaves out a part of what was stored", Tamper::ForgetfulDisk, "rolling-restart", Some(0)),
];

impl Bite {
    /// Runs seeds from one on with it broken until one notices: how many that took, and what was noticed.
    pub fn seeds_until_caught(&self, first: u64, seeds_max: u64) -> Option<(u64, Violation)> {
        let scenario = Scenario::parse(self.scenario, scenarios::text(self.scenario)?).expect("what comes with the program is good");
        (0..seeds_max).find_map(|tried| Some((tried + 1, self.caught(&scenario, first + tried)?)))
    }

    /// What one seed notices.
    fn caught(&self, scenario: &Scenario, seed: u64) -> Option<Violation> {
        match self.broken {
            Broken::Rule(rule) => sabotage(Some(rule)),
            Broken::Around(with) => tamper(Some(with)),
        }
        let outcome = match self.broken {
            Broken::Around(Tamper::Outside) => run::twice(scenario, seed),
            _ => run::one(scenario, seed, Trace::new(None)),
        };
        sabotage(None);
        tamper(None);
        outcome.violation
    }
}
