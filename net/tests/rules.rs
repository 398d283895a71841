//! Each rule of replication is needed: with it broken, some schedule goes wrong, and the checks of the schedules notice.
//!
//! The schedules of a rule begin at a seed after which one of the next few is known to notice. What changes the course of schedules (other
//! dice, other steps) moves these seeds; find new ones with `MANGROVE_SEEDS=0-5000 cargo test --release … --test rules -- --ignored --nocapture`.

mod support;

use mangrove_crdt::sabotage::{Sabotage, sabotage};
use support::{Plan, play_quietly, seeds};

/// Rules, the first seed to play, and how many.
const RULES: &[(Sabotage, u64, u64)] = &[
    (Sabotage::OpenRun, 13, 8),
    (Sabotage::MovedSkip, 60, 8),
    (Sabotage::NoPointer, 1, 8),
    (Sabotage::NoFloor, 7, 8),
    (Sabotage::NoRepair, 3, 8),
    (Sabotage::NoTree, 0, 8),
    (Sabotage::BlindDigest, 1, 8),
];

const ALL: [Sabotage; 15] = [
    Sabotage::OpenRun,
    Sabotage::MovedSkip,
    Sabotage::NoPointer,
    Sabotage::Early,
    Sabotage::NoFloor,
    Sabotage::ForgetFast,
    Sabotage::KeepAll,
    Sabotage::AdoptEnd,
    Sabotage::NoClamp,
    Sabotage::JudgedAtStart,
    Sabotage::NoRepair,
    Sabotage::KeyClock,
    Sabotage::NoTree,
    Sabotage::TreeAtStart,
    Sabotage::BlindDigest,
];

fn plan(rule: Sabotage) -> Plan {
    let tree = matches!(rule, Sabotage::NoTree | Sabotage::TreeAtStart);
    Plan { topics: tree, standing: !tree, hot: true, steps: 1_000, ..Plan::default() }
}

/// What goes wrong with a rule broken.
fn caught(rule: Sabotage, seed: u64) -> Option<String> {
    sabotage(Some(rule));
    let outcome = play_quietly(seed, plan(rule));
    sabotage(None);
    outcome.err()
}

#[test]
fn every_rule_is_missed_when_it_is_broken() {
    for (rule, first, count) in RULES {
        let caught = (*first..first + count).find_map(|seed| caught(*rule, seed));
        assert!(caught.is_some(), "{count} schedules do not miss {rule:?}");
    }
}

#[test]
#[ignore = "long: finds the seeds for the rules above"]
fn find_seeds() {
    for rule in ALL {
        let found = seeds(2_000).find_map(|seed| Some((seed, caught(rule, seed)?)));
        println!("{rule:?}: {found:?}");
    }
}
