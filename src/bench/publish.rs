//! What it costs a publisher that what it writes is replicated.
//!
//! A client of node A writes to topics of a section that node B holds too, and as much to topics of the same names, types and durability that are node A's alone, in turns.
//! A batch counts when it is acknowledged. Node B shares the machine, and what it and node A do for each other meanwhile counts where it delays an
//! acknowledgement.

use std::time::{Duration, Instant};

use super::BenchError;
use super::mesh::{Pair, SECTION, check, value};
use super::report::{Budget, Report, Row, median};
use crate::cli::{BenchPublish, progress};
use crate::client::Publisher;
use crate::demo::nodes::Directory;
use crate::protocol::TopicSpec;

/// Where nothing is replicated; as long as the section's root.
const LOCAL: &str = "alone";
/// How many times longer publishing may take.
const WITHIN: f64 = 1.5;

/// What one round found.
#[derive(Clone, Copy, Debug, serde::Serialize)]
struct Round {
    replicated: Times,
    local: Times,
}

/// The time that an update took, in microseconds.
#[derive(Clone, Copy, Debug, serde::Serialize)]
struct Times {
    /// One of very many.
    flat_out_us: f64,
    /// One alone, until it was acknowledged.
    alone_us: f64,
}

/// Measures in turns; see the module.
pub(super) async fn run(bench: &BenchPublish) -> Result<Report, BenchError> {
    let mut report = Report::begin("publish");
    let directory = Directory::new("bench")?;
    let pair = Pair::start(&directory.path, false, bench.topics as usize, bench.bytes as usize).await?;
    let local: Vec<String> = pair.paths.iter().map(|path| path.replacen(SECTION, LOCAL, 1)).collect();
    let memory = TopicSpec { properties: [("durability".to_owned(), "memory".to_owned())].into(), ..TopicSpec::of("binary") };
    let mut publisher = pair.writer.publisher(Some(memory));
    let mut number = local.len() as u64;
    flat_out(&mut publisher, &local, local.len(), bench.bytes, &mut number).await?;
    let mut publisher = pair.writer.publisher(None);
    let bar = progress(Some(2 * u64::from(bench.rounds)), "half rounds");
    let mut rounds = Vec::new();
    for _ in 0..bench.rounds {
        let mut times = Vec::new();
        for paths in [&local, &pair.paths] {
            // What the last half has left to do is no part of this one.
            pair.settle().await?;
            let flat_out = flat_out(&mut publisher, paths, bench.updates as usize, bench.bytes, &mut number).await?;
            pair.settle().await?;
            let mut alone = Vec::new();
            for _ in 0..bench.singles {
                alone.push(once(&mut publisher, paths, bench.bytes, &mut number).await?.as_secs_f64() * 1e6);
            }
            times.push(Times { flat_out_us: flat_out.as_secs_f64() * 1e6 / f64::from(bench.updates), alone_us: median(alone) });
            bar.inc(1);
        }
        rounds.push(Round { local: times[0], replicated: times[1] });
    }
    bar.finish_and_clear();
    drop(publisher);
    pair.stop().await?;
    report.rows = rows(&rounds);
    report.detail("updates", bench.updates);
    report.detail("singles", bench.singles);
    report.detail("topics", bench.topics);
    report.detail("bytes", bench.bytes);
    report.detail("rounds", &rounds);
    Ok(report.end())
}

fn rows(rounds: &[Round]) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut compare = |what: &str, of: fn(&Times) -> f64| {
        let each = |side: fn(&Round) -> &Times| rounds.iter().map(|round| of(side(round))).collect::<Vec<f64>>();
        let local = (format!("{what}, local"), each(|round| &round.local));
        let replicated = (format!("{what}, replicated"), each(|round| &round.replicated));
        rows.extend(Row::in_turns("µs", local, replicated, "replicated against local, of each round", Budget::AtMost(WITHIN)));
    };
    compare("an update of very many", |times| times.flat_out_us);
    compare("an update alone", |times| times.alone_us);
    rows
}

/// Writes to topics in turn as fast as the node takes it, until all is acknowledged.
async fn flat_out(publisher: &mut Publisher, paths: &[String], count: usize, bytes: u32, number: &mut u64) -> Result<Duration, BenchError> {
    let begun = Instant::now();
    for path in paths.iter().cycle().take(count) {
        *number += 1;
        publisher.set(path, value(*number, bytes as usize)).await?;
    }
    check(publisher.settle().await?)?;
    Ok(begun.elapsed())
}

/// Writes to one topic, each time to another, until it is acknowledged.
async fn once(publisher: &mut Publisher, paths: &[String], bytes: u32, number: &mut u64) -> Result<Duration, BenchError> {
    let at = *number as usize % paths.len();
    flat_out(publisher, &paths[at..=at], 1, bytes, number).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_round_is_compared_with_itself() {
        let times = |flat_out_us, alone_us| Times { flat_out_us, alone_us };
        let rounds = [(1.0, 1.4), (10.0, 12.0), (2.0, 4.0)];
        let rounds = rounds.map(|(local, replicated)| Round { local: times(local, 100.0), replicated: times(replicated, 160.0) });
        let rows = rows(&rounds);
        assert_eq!(rows.iter().map(|row| row.measured).collect::<Vec<_>>(), [2.0, 4.0, 1.4, 100.0, 160.0, 1.6]);
        assert_eq!([rows[2].holds(), rows[5].holds()], [true, false]);
    }
}
