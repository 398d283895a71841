//! `runs.csv`: the arm and the values put into it, the seed, the verdict (`pass`, `safety`, `liveness`, `crash`), the hash of the trace, the first violation, and the
//! numbers of the run ([`metrics`](crate::metrics)). One line a run; a cell is empty where a run has no such thing.

use std::collections::BTreeMap;
use std::path::Path;

use csv::StringRecord;

use super::{Manifest, Run, told};

/// Rows by arm and seed.
#[derive(Clone, Debug)]
pub struct Table {
    rows: BTreeMap<Run, StringRecord>,
    columns: BTreeMap<String, usize>,
}

impl Table {
    pub(super) fn new(manifest: &Manifest) -> Table {
        let columns = manifest.columns().iter().enumerate().map(|(at, column)| (column.to_owned(), at)).collect();
        Table { rows: BTreeMap::new(), columns }
    }

    /// The table of a file, if there is one.
    ///
    /// # Errors
    /// It cannot be read, or is none of this experiment.
    pub fn read(path: &Path, manifest: &Manifest) -> Result<Option<Table>, String> {
        match std::fs::read(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(told(path, &error)),
            Ok(bytes) => Table::parse(&bytes, manifest).map(Some).map_err(|what| format!("{}: {what}", path.display())),
        }
    }

    pub(super) fn parse(bytes: &[u8], manifest: &Manifest) -> Result<Table, String> {
        let mut reader = csv::Reader::from_reader(bytes);
        if reader.headers().map_err(|error| error.to_string())? != &manifest.columns() {
            return Err("has other columns than this program writes".into());
        }
        let (mut table, seed) = (Table::new(manifest), manifest.keys().count() + 1);
        for row in reader.records() {
            let row = row.map_err(|error| error.to_string())?;
            let run = row.get(0).and_then(|arm| arm.parse().ok()).zip(row.get(seed).and_then(|seed| seed.parse().ok()));
            let known = |(arm, seed): &Run| {
                *arm < manifest.arms.len() && (manifest.seeds.base..manifest.seeds.base + manifest.seeds.count).contains(seed)
            };
            let run = run.filter(known).ok_or_else(|| format!("a row is of no run of this experiment: {row:?}"))?;
            if table.rows.insert(run, row).is_some() {
                return Err(format!("arm {} with seed {} stands twice", run.0, run.1));
            }
        }
        Ok(table)
    }

    pub(super) fn bytes(&self, manifest: &Manifest) -> Vec<u8> {
        std::iter::once(&manifest.columns()).chain(self.rows.values()).flat_map(line).collect()
    }

    pub(super) fn add(&mut self, run: Run, row: StringRecord) {
        self.rows.insert(run, row);
    }

    pub(super) fn extend(&mut self, other: Table) {
        self.rows.extend(other.rows);
    }

    /// Whether it has a run.
    pub fn has(&self, run: &Run) -> bool {
        self.rows.contains_key(run)
    }

    /// How many runs it has.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(super) fn first_trace(&self) -> Option<(Run, &str)> {
        let (run, row) = self.rows.first_key_value()?;
        Some((*run, self.cell(row, "trace")))
    }

    fn cell<'a>(&self, row: &'a StringRecord, column: &str) -> &'a str {
        self.columns.get(column).and_then(|at| row.get(*at)).unwrap_or_default()
    }

    /// The cells of a column, for one arm, in order of seeds.
    pub fn cells(&self, arm: usize, column: &str) -> impl Iterator<Item = &str> {
        self.rows.range((arm, 0)..=(arm, u64::MAX)).map(move |(_, row)| self.cell(row, column))
    }

    /// The verdicts of all runs.
    pub fn verdicts(&self) -> impl Iterator<Item = &str> {
        self.rows.values().map(|row| self.cell(row, "verdict"))
    }

    /// The first run with a violation: of what, and what happened.
    pub fn first_violation(&self) -> Option<(Run, &str, &str)> {
        let (run, row) = self.rows.iter().find(|(_, row)| self.cell(row, "verdict") != "pass")?;
        Some((*run, self.cell(row, "violation"), self.cell(row, "violation_what")))
    }

    /// The numbers of an arm's runs in which nothing was violated: a run ends with its first violation, and what it would have come to is not known.
    pub fn numbers(&self, arm: usize, metric: &str) -> Vec<f64> {
        let all = self.cells(arm, "verdict").zip(self.cells(arm, metric));
        all.filter(|(verdict, _)| *verdict == "pass").filter_map(|(_, cell)| cell.parse().ok()).collect()
    }
}

/// A row as a line of text.
pub(super) fn line(row: &StringRecord) -> Vec<u8> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(row).expect("writing to a Vec does not fail");
    writer.into_inner().expect("nor does flushing it")
}
