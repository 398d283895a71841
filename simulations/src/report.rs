//! What a batch of runs came to: a verdict for each invariant, with the first counterexample, and the hash of all traces.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde_json::json;

use crate::{
    checks::{Invariant, Kind, exclusivity::Held},
    scenario::{Scenario, Time},
    world::Outcome,
};

/// The verdict on a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Everything held, and every state that was to be reached was.
    Pass,
    /// Nothing was violated, but a state was not reached, so that little was shown.
    Unknown,
    /// Something good did not happen.
    Liveness,
    /// Something bad happened.
    Safety,
    /// The node panicked, or logged an error.
    Crash,
}

/// See the module.
#[derive(Debug)]
pub struct Batch<'a> {
    scenario: &'a Scenario,
    base: u64,
    count: u64,
    outcomes: &'a [Outcome],
    reached: BTreeMap<&'static str, u64>,
}

impl<'a> Batch<'a> {
    /// What so many seeds from a base came to; those that were not run any more are missing.
    pub fn new(scenario: &'a Scenario, base: u64, count: u64, outcomes: &'a [Outcome]) -> Self {
        let mut reached: BTreeMap<&'static str, u64> = BTreeMap::new();
        for (state, _) in outcomes.iter().flat_map(|outcome| &outcome.reached) {
            *reached.entry(state).or_default() += 1;
        }
        Batch { scenario, base, count, outcomes, reached }
    }

    fn first(&self, invariant: Invariant) -> Option<&Outcome> {
        self.outcomes.iter().find(|outcome| outcome.violation.as_ref().is_some_and(|violation| violation.invariant == invariant))
    }

    fn violations(&self, invariant: Invariant) -> usize {
        let violated = |outcome: &&Outcome| outcome.violation.as_ref().is_some_and(|violation| violation.invariant == invariant);
        self.outcomes.iter().filter(violated).count()
    }

    fn unreached(&self) -> Vec<&str> {
        let wanted = self.scenario.checks.sometimes.iter().map(String::as_str);
        wanted.filter(|state| !self.reached.contains_key(state)).collect()
    }

    /// The worst of it.
    pub fn verdict(&self) -> Verdict {
        let kinds: Vec<Kind> =
            self.outcomes.iter().filter_map(|outcome| outcome.violation.as_ref()).map(|violation| violation.invariant.kind()).collect();
        match () {
            () if kinds.contains(&Kind::Crash) => Verdict::Crash,
            () if kinds.contains(&Kind::Safety) => Verdict::Safety,
            () if kinds.contains(&Kind::Liveness) => Verdict::Liveness,
            () if !self.unreached().is_empty() => Verdict::Unknown,
            () => Verdict::Pass,
        }
    }

    /// One hash over the traces of all seeds.
    pub fn hash(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for outcome in self.outcomes {
            hasher.update(&outcome.seed.to_le_bytes()).update(&outcome.hash);
        }
        match self.outcomes {
            [only] => blake3::Hash::from(only.hash).to_hex().to_string(),
            _ => hasher.finalize().to_hex().to_string(),
        }
    }

    /// Times after the faults, in seconds, in order.
    fn times(&self, of: impl Fn(&Outcome) -> Option<Time>) -> Vec<f64> {
        let mut times: Vec<f64> = self.outcomes.iter().filter_map(of).map(|us| us as f64 / 1e6).collect();
        times.sort_by(f64::total_cmp);
        times
    }

    /// Who held which branch when, of one seed.
    fn timeline(&self) -> Vec<String> {
        let [only] = self.outcomes else { return Vec::new() };
        let name = |held: &Held| self.scenario.nodes.get(held.host).map_or("?", |node| node.name.as_str());
        let seconds = |at: Time| at as f64 / 1e6;
        let line = |held: &Held| {
            let until = held.until.map_or_else(|| "the end".to_owned(), |until| format!("{:.3}", seconds(until)));
            format!(
                "{} from {:.3} to {until} s: session {} on {}, epoch {}",
                held.branch,
                seconds(held.from),
                held.session.short(),
                name(held),
                held.epoch
            )
        };
        only.timeline.iter().map(line).collect()
    }

    /// For people. `replay` makes the command that runs one seed again.
    pub fn text(&self, replay: &dyn Fn(u64) -> String) -> String {
        let mut text = String::new();
        let mut line = |line: String| writeln!(text, "{line}").expect("writing to a String does not fail");
        let seeds =
            if self.count == 1 { format!("seed {}", self.base) } else { format!("seeds {} to {}", self.base, self.base + self.count - 1) };
        line(format!("{}: {seeds}, {} run", self.scenario.name, self.outcomes.len()));
        let runs = self.outcomes.len();
        for invariant in Invariant::ALL {
            match self.violations(invariant) {
                0 => line(format!("  {invariant:<4} pass       {}", invariant.promise())),
                count => line(format!("  {invariant:<4} VIOLATION  {} ({count} of {runs} seeds)", invariant.promise())),
            }
        }
        for state in self.unreached() {
            line(format!("  V    unknown    no seed reached {state}"));
        }
        let sum = |of: &dyn Fn(&Outcome) -> u64| self.outcomes.iter().map(of).sum::<u64>();
        line(format!(
            "  {} events, {} records, {} faults; operations: {} acknowledged, {} refused, {} unknown; {} permitted losses",
            sum(&|outcome| outcome.events),
            sum(&|outcome| outcome.records),
            sum(&|outcome| outcome.faults),
            sum(&|outcome| outcome.ops[0]),
            sum(&|outcome| outcome.ops[1]),
            sum(&|outcome| outcome.ops[2]),
            sum(&|outcome| outcome.permitted_losses)
        ));
        let converged = self.times(|outcome| outcome.converged_after);
        if let (Some(median), Some(longest)) = (converged.get(converged.len() / 2), converged.last()) {
            line(format!("  equal after the faults: half within {median:.0} s, all within {longest:.0} s"));
        }
        let held = self.times(|outcome| outcome.held_after);
        if let (Some(median), Some(longest)) = (held.get(held.len() / 2), held.last()) {
            let bound = self.scenario.checks.dual_holder_bound as f64 / 1e6;
            line(format!(
                "  one source a branch after the faults: half within {median:.0} s, all within {longest:.0} s; the bound B is {bound:.0} s"
            ));
        }
        for held in self.timeline() {
            line(format!("  held: {held}"));
        }
        if !self.reached.is_empty() {
            let reached: Vec<String> = self.reached.iter().map(|(state, seeds)| format!("{state} {seeds}")).collect();
            line(format!("  seeds that reached: {}", reached.join(", ")));
        }
        line(format!("  trace {}", self.hash()));
        for invariant in Invariant::ALL {
            if let Some((outcome, violation)) = self.first(invariant).and_then(|outcome| Some((outcome, outcome.violation.as_ref()?))) {
                line(format!("  {invariant} at {:.6} s: {}", violation.at as f64 / 1e6, violation.what));
                line(format!("  replay: {}", replay(outcome.seed)));
            }
        }
        let verdict = format!("{:?}", self.verdict()).to_lowercase();
        line(format!("  {verdict}"));
        text
    }

    /// For programs: one line.
    pub fn json(&self, replay: &dyn Fn(u64) -> String) -> String {
        let invariants: serde_json::Map<String, serde_json::Value> = Invariant::ALL
            .into_iter()
            .map(|invariant| {
                let first = self.first(invariant).and_then(|outcome| Some((outcome.seed, outcome.violation.as_ref()?)));
                let value = match first {
                    None => json!({ "verdict": "pass" }),
                    Some((seed, violation)) => json!({
                        "verdict": "violation", "seeds": self.violations(invariant), "seed": seed, "at_us": violation.at,
                        "what": violation.what, "replay": replay(seed),
                    }),
                };
                (invariant.to_string(), value)
            })
            .collect();
        let outcomes: Vec<serde_json::Value> = self
            .outcomes
            .iter()
            .map(|outcome| {
                json!({
                    "seed": outcome.seed,
                    "violation": outcome.violation.as_ref().map(|violation| violation.invariant.to_string()),
                    "trace": blake3::Hash::from(outcome.hash).to_hex().to_string(),
                    "events": outcome.events,
                    "converged_after_us": outcome.converged_after,
                    "permitted_losses": outcome.permitted_losses,
                    "held_after_us": outcome.held_after,
                })
            })
            .collect();
        let value = json!({
            "scenario": self.scenario.name,
            "base": self.base,
            "seeds": self.count,
            "verdict": format!("{:?}", self.verdict()).to_lowercase(),
            "invariants": invariants,
            "unreached": self.unreached(),
            "reached": self.reached,
            "held": self.timeline(),
            "trace": self.hash(),
            "runs": outcomes,
        });
        format!("{value}\n")
    }
}
