//! Runs: one seed, and many seeds on several threads. What comes out does not depend on how many.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::{
    checks::{Invariant, Violation, robustness},
    log,
    scenario::Scenario,
    trace::Trace,
    world::{Outcome, World},
};

/// Runs a scenario under one seed. A panic in the node is a violation like any other.
pub fn one(scenario: &Scenario, seed: u64, trace: Trace) -> Outcome {
    log::install();
    let run = catch_unwind(AssertUnwindSafe(|| World::new(scenario, seed, trace).run()));
    run.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        let violation = robustness::panicked(text.unwrap_or("without a word"));
        Outcome { seed, violation: Some(violation), ..Outcome::default() }
    })
}

/// Runs a scenario under many seeds on so many threads; `each` hears of every run as it ends, in any order. The outcomes are in order of seeds.
/// The first seed is run twice: two runs with different traces are a violation of S1. With `stop_early`, seeds after the first that violates
/// something are left out, so that what comes out is the same however many were under way by then.
pub fn many(
    scenario: &Scenario,
    seeds: std::ops::Range<u64>,
    jobs: usize,
    stop_early: bool,
    each: impl Fn(&Outcome) + Sync,
) -> Vec<Outcome> {
    let runs: Vec<u64> = std::iter::once(seeds.start).chain(seeds).collect();
    let next = AtomicUsize::new(0);
    let last = AtomicUsize::new(runs.len());
    let outcomes: Mutex<Vec<Option<Outcome>>> = Mutex::new(runs.iter().map(|_| None).collect());
    std::thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, runs.len()) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(seed) = runs.get(at).copied().filter(|_| at <= last.load(Ordering::Relaxed)) else { return };
                    let outcome = one(scenario, seed, Trace::new(None));
                    if stop_early && outcome.violation.is_some() {
                        last.fetch_min(at.max(1), Ordering::Relaxed);
                    }
                    if at > 0 {
                        each(&outcome);
                    }
                    outcomes.lock().unwrap_or_else(std::sync::PoisonError::into_inner)[at] = Some(outcome);
                }
            });
        }
    });
    let outcomes = outcomes.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut outcomes = outcomes.into_iter().take(last.into_inner().saturating_add(1)).flatten();
    let again = outcomes.next();
    let mut outcomes: Vec<Outcome> = outcomes.collect();
    if let (Some(first), Some(again)) = (outcomes.first_mut(), again) {
        same(first, &again);
    }
    outcomes
}

/// Runs a seed twice: different traces are a violation of S1.
pub fn twice(scenario: &Scenario, seed: u64) -> Outcome {
    let mut outcome = one(scenario, seed, Trace::new(None));
    same(&mut outcome, &one(scenario, seed, Trace::new(None)));
    outcome
}

/// S1: the same run again must leave the same trace.
fn same(outcome: &mut Outcome, again: &Outcome) {
    if outcome.violation.is_none() && again.hash != outcome.hash {
        outcome.violation = Some(Violation::new(Invariant::S1, "two runs of this seed left different traces"));
    }
}
