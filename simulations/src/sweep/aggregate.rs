//! `aggregate.csv`: for each arm and number of its runs, how many runs have it, their mean, half the width of its 95 % interval (Student's *t*), the least and
//! the greatest. Runs with a violation are left out of these.
//!
//! The rows `violation` (any), `violation_safety`, `violation_liveness` and `violation_crash` count all runs: `mean` is the share that ended so, and if none did, `upper_bound_95` is
//! the most that their probability may be, 3/n.

use csv::StringRecord;

use super::{
    Manifest,
    table::{Table, line},
};
use crate::{
    metrics,
    statistics::{Summary, rule_of_three},
};

/// How runs can end badly.
const BAD: [&str; 4] = ["violation", "violation_safety", "violation_liveness", "violation_crash"];

pub(super) fn bytes(manifest: &Manifest, table: &Table) -> Vec<u8> {
    let told = ["metric", "n", "mean", "half_width_95", "min", "max", "upper_bound_95"];
    let mut bytes = line(&["arm"].into_iter().chain(manifest.keys()).chain(told).collect());
    for arm in 0..manifest.arms.len() {
        let row = |metric: &str, summary: Option<Summary>, half_width: Option<f64>, bound: Option<f64>| {
            let mut row: StringRecord = [arm.to_string()].into_iter().chain(manifest.values(arm)).collect();
            row.push_field(metric);
            row.push_field(&summary.map_or(0, |summary| summary.n).to_string());
            let of = |of: fn(&Summary) -> f64| summary.as_ref().map(of);
            for value in [of(|all| all.mean), half_width, of(|all| all.min), of(|all| all.max), bound] {
                row.push_field(&value.map(number).unwrap_or_default());
            }
            line(&row)
        };
        for bad in BAD {
            let is_bad = |verdict: &str| bad.strip_prefix("violation_").map_or(verdict != "pass", |kind| verdict == kind);
            let ended: Vec<f64> = table.cells(arm, "verdict").map(|verdict| f64::from(u8::from(is_bad(verdict)))).collect();
            let summary = Summary::of(&ended);
            let bound = summary.filter(|summary| summary.max == 0.0).map(|summary| rule_of_three(summary.n));
            bytes.extend(row(bad, summary, None, bound));
        }
        for metric in &metrics::ALL {
            let summary = Summary::of(&table.numbers(arm, metric.name));
            bytes.extend(row(metric.name, summary, summary.and_then(|summary| summary.half_width()), None));
        }
    }
    bytes
}

/// Nine digits: more than any mean of runs is worth.
pub(super) fn number(value: f64) -> String {
    format!("{value:.8e}").parse::<f64>().unwrap_or(value).to_string()
}
