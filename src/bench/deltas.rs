//! What it costs on the wire that one field of a long document changes.
//!
//! A client of node A changes one field after the other of many documents: first one at a time, where each change is told to node B in a packet of its own,
//! then all documents at once, again and again.

use std::ops::Range;
use std::time::Duration;

use mangrove_crdt::definition::TopicType;
use mangrove_crdt::value;

use super::mesh::{PATIENCE, Pair, SECTION, check};
use super::report::{Budget, Report, Row};
use super::{BenchError, within};
use crate::cli::{BenchDeltas, progress};
use crate::client::Publisher;
use crate::demo::nodes::Directory;
use crate::protocol::TopicSpec;

/// How often it is looked whether a change has arrived.
const POLL: Duration = Duration::from_micros(500);
/// How many bytes a field takes, its name included.
const FIELD_BYTES: usize = 30;

/// Measures in turns; see the module.
pub(super) async fn run(bench: &BenchDeltas) -> Result<Report, BenchError> {
    let mut report = Report::begin("deltas");
    let directory = Directory::new("bench")?;
    let pair = Pair::start(&directory.path, false, 8, 8).await?;
    let paths: Vec<String> = (0..bench.documents).map(|at| format!("{SECTION}/documents/{at:04}")).collect();
    pair.writer.add_topics(TopicSpec::of("json"), paths.clone()).await?;
    let bar = progress(Some(2 * u64::from(bench.rounds)), "half rounds");
    let mut changing = Changing { pair: &pair, publisher: pair.writer.publisher(None), paths, bytes: bench.bytes as usize, speed: 0 };
    // What there is to begin with is no change.
    changing.all().await?;
    let (mut alone, mut together) = (Vec::new(), Vec::new());
    for _ in 0..bench.rounds {
        let before = changing.carried().await?;
        for _ in 0..bench.changes {
            changing.each().await?;
        }
        let between = changing.carried().await?;
        bar.inc(1);
        for _ in 0..bench.changes {
            changing.all().await?;
        }
        let after = changing.carried().await?;
        bar.inc(1);
        let each = |before: (u64, u64), after: (u64, u64)| (after.0 - before.0) as f64 / (after.1 - before.1).max(1) as f64;
        alone.push(each(before, between));
        together.push(each(between, after));
    }
    bar.finish_and_clear();
    drop(changing);
    pair.stop().await?;
    let budget = Budget::AtMost(60.0);
    report.rows = vec![
        Row::of("a field changes: on the wire, one document at a time", "bytes/update", &alone).budget(budget),
        Row::of(format!("a field changes: on the wire, {} documents at once", bench.documents), "bytes/update", &together).budget(budget),
    ];
    report.detail("documents", bench.documents);
    report.detail("changes", bench.changes);
    report.detail("bytes", document(0, bench.bytes as usize).len());
    Ok(report.end())
}

/// Who changes documents.
struct Changing<'a> {
    pair: &'a Pair,
    publisher: Publisher,
    paths: Vec<String>,
    bytes: usize,
    /// What the field says next.
    speed: u32,
}

impl Changing<'_> {
    /// Changes all documents one after the other, each when the one before has arrived.
    async fn each(&mut self) -> Result<(), BenchError> {
        for at in 0..self.paths.len() {
            self.change(at..at + 1).await?;
        }
        Ok(())
    }

    /// Changes all documents at once, and waits until that has arrived.
    async fn all(&mut self) -> Result<(), BenchError> {
        self.change(0..self.paths.len()).await
    }

    async fn change(&mut self, which: Range<usize>) -> Result<(), BenchError> {
        let due = self.pair.reader().status().await?.updates + which.len() as u64;
        for path in &self.paths[which] {
            self.speed += 1;
            self.publisher.set(path, document(self.speed, self.bytes)).await?;
        }
        check(self.publisher.settle().await?)?;
        let arrived = async {
            while self.pair.reader().status().await?.updates < due {
                tokio::time::sleep(POLL).await;
            }
            Ok(())
        };
        within(PATIENCE, "a change did not arrive at node B", arrived).await
    }

    /// The bytes that node A has sent, and the updates that node B has taken in.
    async fn carried(&self) -> Result<(u64, u64), BenchError> {
        self.pair.settle().await?;
        let sent_bytes = self.pair.writer.links().await?.iter().map(|link| link.sent_bytes).sum();
        Ok((sent_bytes, self.pair.reader().status().await?.updates))
    }
}

/// A JSON document of about so many bytes, of which the field in the middle says how fast, in the canonical encoding.
fn document(speed: u32, bytes: usize) -> Vec<u8> {
    let fields = bytes.div_ceil(FIELD_BYTES);
    let text = |at: usize| format!("\"field{at:05}\":\"{}\"", &blake3::hash(&at.to_le_bytes()).to_hex()[..17]);
    let mut json: Vec<String> = (0..fields).map(text).collect();
    json[fields / 2] = format!("\"field{:05}\":{speed}", fields / 2);
    let json = format!("{{{}}}", json.join(","));
    value::from_text(&TopicType::Json, json.as_bytes()).expect("it is a document")
}
