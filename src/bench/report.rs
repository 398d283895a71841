//! What was found, beside what it should be.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::cli::{Failure, Output, count_text, table};

/// What a figure has to be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Budget {
    /// Itself at least this.
    AtLeast(f64),
    /// Itself at most this.
    AtMost(f64),
    /// At least so many times the baseline.
    RatioAtLeast(f64),
    /// At most so many times the baseline.
    RatioAtMost(f64),
}

impl Budget {
    fn text(self) -> String {
        match self {
            Budget::AtLeast(limit) => format!("≥ {}", number(limit)),
            Budget::AtMost(limit) => format!("≤ {}", number(limit)),
            Budget::RatioAtLeast(limit) => format!("≥ {limit} × QUIC"),
            Budget::RatioAtMost(limit) => format!("≤ {limit} × QUIC"),
        }
    }
}

/// One figure.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Row {
    what: String,
    unit: &'static str,
    pub(super) measured: f64,
    /// The least and the most of all rounds, where the middle alone tells too little.
    range: Option<(f64, f64)>,
    baseline: Option<f64>,
    ratio: Option<f64>,
    budget: Option<Budget>,
}

impl Row {
    pub(super) fn new(what: impl Into<String>, unit: &'static str, measured: f64) -> Row {
        Row { what: what.into(), unit, measured, range: None, baseline: None, ratio: None, budget: None }
    }

    /// The middle of all rounds, with the least and the most.
    pub(super) fn of(what: impl Into<String>, unit: &'static str, rounds: &[f64]) -> Row {
        let range = (rounds.iter().copied().fold(f64::NAN, f64::min), rounds.iter().copied().fold(f64::NAN, f64::max));
        Row { range: Some(range), ..Row::new(what, unit, median(rounds.to_vec())) }
    }

    /// Two sides that were measured in turns: the middle of each, and of the second against the first in each turn, which is to be within its budget.
    pub(super) fn in_turns(
        unit: &'static str,
        first: (impl Into<String>, Vec<f64>),
        second: (impl Into<String>, Vec<f64>),
        against: &'static str,
        budget: Budget,
    ) -> [Row; 3] {
        let ratios = first.1.iter().zip(&second.1).map(|(first, second)| second / first).collect();
        [
            Row::new(first.0, unit, median(first.1)),
            Row::new(second.0, unit, median(second.1)),
            Row::new(against, "times", median(ratios)).budget(budget),
        ]
    }

    pub(super) fn beside(self, baseline: f64, ratio: f64) -> Row {
        Row { baseline: Some(baseline), ratio: Some(ratio), ..self }
    }

    pub(super) fn budget(self, budget: Budget) -> Row {
        Row { budget: Some(budget), ..self }
    }

    /// Whether it is within its budget; nothing to compare with is not.
    pub(super) fn holds(&self) -> bool {
        let ratio = self.ratio.unwrap_or(f64::NAN);
        self.budget.is_none_or(|budget| match budget {
            Budget::AtLeast(limit) => self.measured >= limit,
            Budget::AtMost(limit) => self.measured <= limit,
            Budget::RatioAtLeast(limit) => ratio >= limit,
            Budget::RatioAtMost(limit) => ratio <= limit,
        })
    }

    fn cells(&self) -> [String; 6] {
        let range = self.range.map(|(least, most)| format!(" ({} to {})", number(least), number(most))).unwrap_or_default();
        [
            self.what.clone(),
            format!("{} {}{range}", number(self.measured), self.unit),
            self.baseline.map(number).unwrap_or_default(),
            self.ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default(),
            self.budget.map(Budget::text).unwrap_or_default(),
            if self.holds() { "yes" } else { "NO" }.into(),
        ]
    }

    fn json(&self) -> Value {
        json!({
            "what": self.what, "unit": self.unit, "measured": self.measured, "range": self.range, "baseline": self.baseline,
            "ratio": self.ratio, "budget": self.budget, "holds": self.holds(),
        })
    }
}

/// Everything that one bench found.
pub(super) struct Report {
    bench: &'static str,
    pub(super) rows: Vec<Row>,
    details: Map<String, Value>,
}

impl Report {
    pub(super) fn begin(bench: &'static str) -> Report {
        let mut report = Report { bench, rows: Vec::new(), details: Map::new() };
        report.detail("load_before", load());
        report
    }

    /// Something else worth knowing, in JSON.
    pub(super) fn detail(&mut self, name: &str, value: impl Serialize) {
        self.details.insert(name.into(), serde_json::to_value(value).unwrap_or_default());
    }

    pub(super) fn end(mut self) -> Report {
        self.detail("load_after", load());
        self.detail("cores", std::thread::available_parallelism().map_or(0, usize::from));
        self.detail("release", !cfg!(debug_assertions));
        self
    }

    pub(super) fn print(&self, output: &mut Output) -> Result<(), Failure> {
        if output.json {
            return output.json_line(&self.json());
        }
        let mut rows = table(&["what", "measured", "QUIC alone", "ratio", "budget", "holds"]);
        for row in &self.rows {
            rows.add_row(row.cells());
        }
        output.table(&rows)?;
        if let Some(conflated) = self.details.get("conflated_per_s").and_then(Value::as_f64) {
            output.line(format!("conflated: {} values/s were overwritten before they left, and are not counted", number(conflated)))?;
        }
        if cfg!(debug_assertions) {
            output.line("this is a debug build: these figures say nothing; use cargo run --release")?;
        }
        Ok(())
    }

    fn json(&self) -> Value {
        let mut object = self.details.clone();
        object.insert("bench".into(), self.bench.into());
        object.insert("rows".into(), self.rows.iter().map(Row::json).collect());
        object.insert("holds".into(), self.rows.iter().all(Row::holds).into());
        object.into()
    }
}

/// How many processes wanted a core over the last minute, if the system tells: figures of a busy machine are worth little.
fn load() -> Option<f64> {
    std::fs::read_to_string("/proc/loadavg").ok()?.split_whitespace().next()?.parse().ok()
}

fn number(of: f64) -> String {
    match of {
        small if small.abs() < 100.0 && small.fract() != 0.0 => format!("{small:.1}"),
        large => count_text(large.max(0.0).round() as u64),
    }
}

/// The middle one, or the mean of the two in the middle.
pub(super) fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    match of.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => of[odd / 2],
        even => (of[even / 2 - 1] + of[even / 2]) / 2.0,
    }
}

/// The smallest time that at least so large a part of all does not exceed, in microseconds.
pub(super) fn quantile(times: &[Duration], part: f64) -> f64 {
    let mut times = times.to_vec();
    times.sort_unstable();
    let rank = (part * times.len() as f64).ceil() as usize;
    times.get(rank.saturating_sub(1)).map_or(f64::NAN, |time| time.as_nanos() as f64 / 1_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_in_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(Vec::new()).is_nan());
    }

    #[test]
    fn quantiles_are_of_what_was_measured() {
        let times: Vec<Duration> = (1..=200).rev().map(Duration::from_micros).collect();
        assert_eq!((quantile(&times, 0.5), quantile(&times, 0.99), quantile(&times, 1.0)), (100.0, 198.0, 200.0));
        assert_eq!(quantile(&times[..1], 0.5), 200.0);
        assert!(quantile(&[], 0.5).is_nan());
    }

    #[test]
    fn budgets_hold_up_to_their_limit_and_need_something_to_compare() {
        let row = |measured| Row::new("a", "values/s", measured);
        assert!(row(1.0).holds());
        assert!(row(5.0).budget(Budget::AtLeast(5.0)).holds() && !row(4.9).budget(Budget::AtLeast(5.0)).holds());
        assert!(row(5.0).budget(Budget::AtMost(5.0)).holds() && !row(5.1).budget(Budget::AtMost(5.0)).holds());
        assert!(row(5.0).beside(10.0, 0.5).budget(Budget::RatioAtLeast(0.5)).holds());
        assert!(!row(5.0).beside(1.0, 5.0).budget(Budget::RatioAtMost(3.0)).holds());
        assert!(!row(5.0).budget(Budget::RatioAtMost(3.0)).holds() && !row(f64::NAN).budget(Budget::AtMost(5.0)).holds());
    }

    #[test]
    fn rows_read_well() {
        let row = Row::new("values", "values/s", 1_234_567.8).beside(2_000_000.0, 0.617).budget(Budget::RatioAtLeast(0.5));
        assert_eq!(row.cells(), ["values", "1,234,568 values/s", "2,000,000", "0.62", "≥ 0.5 × QUIC", "yes"]);
        let row = Row::new("wire", "bytes/update", 13.27).budget(Budget::AtMost(12.0));
        assert_eq!(row.cells(), ["wire", "13.3 bytes/update", "", "", "≤ 12", "NO"]);
        let row = Row::of("failover", "ms", &[310.0, 305.0, 350.0]);
        assert_eq!(row.cells(), ["failover", "310 ms (305 to 350)", "", "", "", "yes"]);
    }
}
