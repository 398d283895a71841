//! The numbers that a run has, with their units in their names. None depends on wall time.

use std::collections::BTreeMap;

use crate::{scenario::Time, world::Outcome};

/// One number of a run.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its name, with its unit, as a column of a table.
    pub name: &'static str,
    /// What it is of a run; none if the run has no such thing.
    pub of: fn(&Outcome) -> Option<f64>,
}

const fn metric(name: &'static str, of: fn(&Outcome) -> Option<f64>) -> Metric {
    Metric { name, of }
}

/// All of them, in the order of their columns.
pub const ALL: [Metric; 21] = [
    // Virtual time, from the start to when all was equal and quiet.
    metric("simulated_s", |run| Some(seconds(run.simulated))),
    metric("events", |run| count(run.events)),
    metric("faults", |run| count(run.faults)),
    // Records of all nodes, those that make the mesh among them.
    metric("records", |run| count(run.records)),
    // What clients asked for.
    metric("operations_acknowledged", |run| count(run.ops[0])),
    metric("operations_refused", |run| count(run.ops[1])),
    metric("operations_unknown", |run| count(run.ops[2])),
    // From asking to the acknowledgement, of those that were acknowledged.
    metric("acknowledgement_median_ms", |run| run.acknowledged_after.map(|[median, _]| milliseconds(median))),
    metric("acknowledgement_p99_ms", |run| run.acknowledged_after.map(|[_, p99]| milliseconds(p99))),
    // Writes refused because their source was not the source any more.
    metric("writes_fenced", |run| reached(run, "write.fenced")),
    // What a concurrent write or removal displaced, as listed in the end.
    metric("displaced", |run| count(run.displaced)),
    // Acknowledged, and gone with every disk that had it.
    metric("permitted_losses", |run| count(run.permitted_losses)),
    metric("carried_frames", |run| count(run.carried.0)),
    metric("carried_bytes", |run| count(run.carried.1)),
    metric("buckets_repaired", |run| reached(run, "bucket.repaired")),
    metric("sources_taken_over", |run| reached(run, "source.taken-over")),
    // Of each branch: time with two holders or more, and time without after the first; summed over branches.
    metric("double_holder_s", |run| holding(run).map(|(double, _)| seconds(double))),
    metric("no_holder_s", |run| holding(run).map(|(_, none)| seconds(none))),
    // After the last fault: until all nodes were equal, and until every branch that is wanted had one source; looked at once a second.
    metric("converged_after_s", |run| run.converged_after.map(seconds)),
    metric("one_source_after_s", |run| run.held_after.map(seconds)),
    metric("node_seconds", |run| Some(run.node_seconds)),
];

#[allow(clippy::unnecessary_wraps, reason = "as all metrics")]
fn count(number: u64) -> Option<f64> {
    Some(number as f64)
}

fn reached(run: &Outcome, state: &str) -> Option<f64> {
    count(run.reached.get(state).copied().unwrap_or(0))
}

fn seconds(time: Time) -> f64 {
    time as f64 / 1e6
}

fn milliseconds(time: Time) -> f64 {
    time as f64 / 1e3
}

/// For how long branches had two holders or more, and, after their first, none.
fn holding(run: &Outcome) -> Option<(Time, Time)> {
    let mut branches: BTreeMap<&str, Vec<(Time, i32)>> = BTreeMap::new();
    for held in &run.timeline {
        let changes = branches.entry(&held.branch).or_default();
        changes.extend([(held.from, 1), (held.until.unwrap_or(run.simulated), -1)]);
    }
    let (mut double, mut none) = (0, 0);
    for changes in branches.values_mut() {
        changes.push((run.simulated, 0));
        // At equal times what ends goes before what begins.
        changes.sort_unstable();
        let mut holders = 0;
        for step in changes.windows(2) {
            holders += step[0].1;
            let lasted = step[1].0.saturating_sub(step[0].0);
            match holders {
                0 => none += lasted,
                1 => {}
                _ => double += lasted,
            }
        }
    }
    (!branches.is_empty()).then_some((double, none))
}

#[cfg(test)]
mod tests {
    use mangrove_crdt::id::SessionId;

    use super::*;
    use crate::checks::exclusivity::Held;

    #[test]
    fn branches_with_two_holders_and_with_none() {
        let held = |host, from, until| Held { branch: "b".into(), host, session: SessionId([0; 16]), epoch: 1, from, until };
        let timeline = vec![held(0, 10, Some(30)), held(1, 20, Some(50)), held(1, 50, Some(60)), held(2, 75, None)];
        let run = Outcome { timeline, simulated: 100, ..Outcome::default() };
        assert_eq!(holding(&run), Some((10, 15)));
        assert_eq!(holding(&Outcome::default()), None);
    }

    #[test]
    fn names_are_unique() {
        let names: std::collections::BTreeSet<_> = ALL.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), ALL.len());
    }
}
