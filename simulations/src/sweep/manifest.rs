//! What makes an experiment what it is. The same for all its shards.

use std::collections::BTreeMap;
use std::path::Path;

use csv::StringRecord;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Run, Shard, told, write};
use crate::{checks::Kind, metrics, scenario::sweep::Arm, world::Outcome};

/// Its name in a directory.
const FILE: &str = "manifest.json";

/// See the module.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The program and its version.
    pub program: String,
    /// The scenario's name.
    pub scenario: String,
    /// The BLAKE3 of the scenario's text, in hex.
    pub scenario_blake3: String,
    /// Of every arm.
    pub seeds: Seeds,
    /// What was put into the scenario for each arm, by key; arm `N` is `arms/N.toml`.
    pub arms: Vec<BTreeMap<String, Value>>,
}

/// Seeds that follow each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seeds {
    /// The first.
    pub base: u64,
    /// How many.
    pub count: u64,
}

impl Manifest {
    pub(super) fn of(text: &str, arms: &[Arm], seeds: Seeds) -> Manifest {
        let value = |value: &toml::Value| serde_json::to_value(value).unwrap_or_else(|_| Value::String(value.to_string()));
        let values = |arm: &Arm| arm.values.iter().map(|(key, of)| (key.clone(), value(of))).collect();
        let sabotage = if cfg!(feature = "sabotage") { " with sabotage" } else { "" };
        Manifest {
            program: format!("mangrove-sim {}{sabotage}", env!("CARGO_PKG_VERSION")),
            scenario: arms.first().map(|arm| arm.scenario.name.clone()).unwrap_or_default(),
            scenario_blake3: blake3::hash(text.as_bytes()).to_hex().to_string(),
            seeds,
            arms: arms.iter().map(values).collect(),
        }
    }

    /// The one of a directory, if it has one.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(dir: &Path) -> Result<Option<Manifest>, String> {
        let path = dir.join(FILE);
        match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(told(&path, &error)),
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| format!("{}: {error}", path.display())),
        }
    }

    pub(super) fn write(&self, dir: &Path) -> Result<(), String> {
        let text = serde_json::to_string_pretty(self).map_err(|error| error.to_string())?;
        write(&dir.join(FILE), format!("{text}\n").as_bytes())
    }

    /// Whether another experiment is this one.
    ///
    /// # Errors
    /// What differs.
    pub fn same(&self, other: &Manifest) -> Result<(), String> {
        let seeds = |seeds: Seeds| format!("{} from {}", seeds.count, seeds.base);
        let differs = |what: &str, a: &str, b: &str| (a != b).then(|| format!("the {what}: {a} there, {b} here"));
        let all = [
            differs("program", &self.program, &other.program),
            differs("scenario", &self.scenario, &other.scenario),
            differs("scenario's BLAKE3", &self.scenario_blake3, &other.scenario_blake3),
            differs("seeds", &seeds(self.seeds), &seeds(other.seeds)),
            (self.arms != other.arms).then(|| format!("the arms: {} there, {} here, of other values", self.arms.len(), other.arms.len())),
        ];
        let all: Vec<String> = all.into_iter().flatten().collect();
        if all.is_empty() { Ok(()) } else { Err(all.join("; ")) }
    }

    /// The runs of a shard, in order.
    pub fn runs(&self, shard: Shard) -> impl Iterator<Item = Run> + '_ {
        let Seeds { base, count } = self.seeds;
        let all = (0..self.arms.len()).flat_map(move |arm| (base..base + count).map(move |seed| (arm, seed)));
        all.skip(shard.index).step_by(shard.of)
    }

    /// The keys that are swept, in order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.arms.first().into_iter().flat_map(|arm| arm.keys().map(String::as_str))
    }

    /// An arm's values as they stand in tables, in order of keys.
    pub fn values(&self, arm: usize) -> impl Iterator<Item = String> + '_ {
        self.arms[arm].values().map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
    }

    /// The columns of `runs.csv`.
    pub fn columns(&self) -> StringRecord {
        let told = ["seed", "verdict", "trace", "violation", "violation_at_s", "violation_what"];
        let metrics = metrics::ALL.iter().map(|metric| metric.name);
        ["arm"].into_iter().chain(self.keys()).chain(told).chain(metrics).collect()
    }

    /// The row of a run.
    pub(super) fn row(&self, (arm, seed): Run, outcome: &Outcome) -> StringRecord {
        let violation = outcome.violation.as_ref();
        let verdict = match violation.map(|violation| violation.invariant.kind()) {
            None => "pass",
            Some(Kind::Safety) => "safety",
            Some(Kind::Liveness) => "liveness",
            Some(Kind::Crash) => "crash",
        };
        let of_violation = |of: &dyn Fn(&crate::checks::Violation) -> String| violation.map(of).unwrap_or_default();
        let mut row: StringRecord = [arm.to_string()].into_iter().chain(self.values(arm)).collect();
        row.push_field(&seed.to_string());
        row.push_field(verdict);
        row.push_field(blake3::Hash::from(outcome.hash).to_hex().as_str());
        row.push_field(&of_violation(&|violation| violation.invariant.to_string()));
        row.push_field(&of_violation(&|violation| (violation.at as f64 / 1e6).to_string()));
        // A row is a line, so that one that was half written is seen.
        row.push_field(&of_violation(&|violation| violation.what.replace(['\n', '\r'], " ")));
        for metric in &metrics::ALL {
            row.push_field(&(metric.of)(outcome).map(|value| value.to_string()).unwrap_or_default());
        }
        row
    }
}
