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
    /// The seed to begin with.
    pub first: u64,
}

const fn rule(name: &'static str, breaks: &'static str, rule: Sabotage, scenario: &'static str, first: u64) -> Bite {
    Bite { name, breaks, broken: Broken::Rule(rule), scenario, first }
}

const fn around(name: &'static str, breaks: &'static str, with: Tamper, scenario: &'static str, first: u64) -> Bite {
    Bite { name, breaks, broken: Broken::Around(with), scenario, first }
}

/// All of them.
pub const ALL: &[Bite] = &[
    rule("open-run", "the frontier moves inside a run", Sabotage::OpenRun, "hot", 0),
    rule("moved-skip", "keys that have moved past a run's target are not sent", Sabotage::MovedSkip, "hot", 0),
    rule("no-pointer", "an overtaken entry sends nothing", Sabotage::NoPointer, "hot", 0),
    rule("early", "positions are taken over before the end of a run", Sabotage::Early, "hot", 0),
    rule("no-floor", "forgetting raises no floor", Sabotage::NoFloor, "hot", 0),
    rule("forget-fast", "a removal is forgotten before what it overtook has come", Sabotage::ForgetFast, "hot", 0),
    rule("keep-all", "who adopts keeps what the peer has removed", Sabotage::KeepAll, "hot", 0),
    rule("adopt-end", "an adoption takes the frontiers of its end", Sabotage::AdoptEnd, "hot", 0),
    rule("no-clamp", "what moves on during an adoption leaves no pointer", Sabotage::NoClamp, "hot", 0),
    rule("judged-at-start", "buckets are judged by the frontier of an adoption's start", Sabotage::JudgedAtStart, "hot", 0),
    rule("no-repair", "buckets that differ are left so", Sabotage::NoRepair, "hot", 0),
    rule("key-clock", "a stamp comes from the key's own past", Sabotage::KeyClock, "hot", 0),
    rule("no-tree", "value runs end without regard to the tree", Sabotage::NoTree, "hot", 0),
    rule("tree-at-start", "value runs wait for the tree as it was when they began", Sabotage::TreeAtStart, "hot", 0),
    rule("blind-digest", "digests leave out which write is held", Sabotage::BlindDigest, "hot", 0),
    rule("blind-retired", "retired runs are taken to be what they are here", Sabotage::BlindRetired, "amnesia-and-return", 0),
    around("same-nonce", "a restored backup repeats its run's numbers and automerge actor", Tamper::SameNonce, "amnesia-and-return", 0),
    around("early-ack", "a write is acknowledged before it is on the disk", Tamper::EarlyAck, "random-faults", 0),
    around("corrupt-frames", "a byte of a value changes on the way", Tamper::CorruptFrames, "rolling-restart", 0),
    around("swapped-updates", "a subscriber is told things in the wrong order", Tamper::SwappedUpdates, "rolling-restart", 0),
    around("never-quiet", "clients write when all should be quiet", Tamper::NeverQuiet, "rolling-restart", 0),
    around("no-heal", "a partition is never healed", Tamper::NoHeal, "three-way-split", 0),
    around("outside", "a random number comes from outside", Tamper::Outside, "rolling-restart", 0),
    around("panic", "a stray frame makes the node panic", Tamper::Panic, "random-faults", 0),
    around("forgetful-disk", "a restart leaves out a part of what was stored", Tamper::ForgetfulDisk, "rolling-restart", 0),
];

impl Bite {
    /// Runs seeds with it broken until one notices: how many that took, and what was noticed.
    pub fn seeds_until_caught(&self, seeds_max: u64) -> Option<(u64, Violation)> {
        let scenario = Scenario::parse(self.scenario, scenarios::text(self.scenario)?).expect("what comes with the program is good");
        (0..seeds_max).find_map(|tried| Some((tried + 1, self.caught(&scenario, self.first + tried)?)))
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
