//! How many values a second.
//!
//! The writer keeps at most a *window* of values ahead of what has arrived, half as many as there are topics. As topics are written
//! in turn, hardly any value is overwritten before it left, and what is measured is how fast everything arrives. Without a window it would be how the
//! machine divides its cores between writing what nobody will see and sending the rest. How far it has come is heard of by a subscriber to all topics,
//! or, from node to node, to one in some hundreds of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use super::BenchError;
use super::baseline::Chain;
use super::mesh::{ALL, MARKERS, Pair, finish, number_of, value};
use super::report::{Budget, Report, Row, median};
use crate::cli::{BenchReplicate, Source, progress};
use crate::client::{Client, Heard};
use crate::demo::nodes::Directory;
use crate::protocol::Event;

/// How long writing goes on before it is measured: queues are full and paths known by then.
const WARM_UP: Duration = Duration::from_millis(500);

/// How long the writer pauses when it is far enough ahead.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// What one round found.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub(super) struct Round {
    written_per_s: f64,
    delivered_per_s: f64,
    delivered_bytes_per_s: f64,
    baseline_bytes_per_s: f64,
    ratio: f64,
    wire_bytes_beyond_value: f64,
}

/// Measures in turns; see [`super`].
pub(super) async fn run(bench: &BenchReplicate) -> Result<Report, BenchError> {
    let inside = bench.from == Source::Node;
    let mut report = Report::begin("replicate");
    let directory = Directory::new("bench")?;
    let pair = Pair::start(&directory.path, inside, bench.topics as usize, bench.bytes as usize).await?;
    let chain = if inside { Chain::to_another().await? } else { Chain::through_two().await? };
    let time = Duration::from_secs(bench.seconds.into());
    let bar = progress(Some(2 * u64::from(bench.rounds)), "half rounds");
    let mut rounds = Vec::new();
    let mut number = pair.paths.len() as u64;
    for _ in 0..bench.rounds {
        let baseline_bytes_per_s = chain.throughput(time).await?;
        bar.inc(1);
        let mut round = Measure { pair: &pair, bench, time }.round(&mut number).await?;
        bar.inc(1);
        round.baseline_bytes_per_s = baseline_bytes_per_s;
        round.ratio = round.delivered_bytes_per_s / baseline_bytes_per_s;
        rounds.push(round);
    }
    bar.finish_and_clear();
    pair.stop().await?;
    report.rows = rows(bench, &rounds);
    report.detail("from", bench.from);
    report.detail("seconds", bench.seconds);
    report.detail("topics", bench.topics);
    report.detail("bytes", bench.bytes);
    report.detail("conflated_per_s", middle(&rounds, |round| round.written_per_s - round.delivered_per_s));
    report.detail("rounds", &rounds);
    Ok(report.end())
}

fn middle(rounds: &[Round], of: impl Fn(&Round) -> f64) -> f64 {
    median(rounds.iter().map(of).collect())
}

fn rows(bench: &BenchReplicate, rounds: &[Round]) -> Vec<Row> {
    let (what, values_min) = match bench.from {
        Source::Node => ("node to node", 1_000_000.0),
        Source::Client => ("client to subscriber", 500_000.0),
    };
    let rate =
        Row::new(format!("values, {what}"), "values/s", middle(rounds, |round| round.delivered_per_s)).budget(Budget::AtLeast(values_min));
    let bytes = Row::new(format!("bytes of values, {what}"), "bytes/s", middle(rounds, |round| round.delivered_bytes_per_s))
        .beside(middle(rounds, |round| round.baseline_bytes_per_s), middle(rounds, |round| round.ratio))
        .budget(Budget::RatioAtLeast(0.5));
    let wire = Row::new("wire beyond the value", "bytes/update", middle(rounds, |round| round.wire_bytes_beyond_value))
        .budget(Budget::AtMost(12.0));
    vec![rate, bytes, wire]
}

struct Measure<'a> {
    pair: &'a Pair,
    bench: &'a BenchReplicate,
    time: Duration,
}

/// Counters at one moment.
struct Moment {
    at: Instant,
    written: u64,
    /// Values that became their topic's newest at node B, or that the subscriber heard.
    delivered: u64,
}

impl Measure<'_> {
    /// `number` is the first that no value has yet.
    async fn round(&self, number: &mut u64) -> Result<Round, BenchError> {
        let questions = self.pair.questions().await?;
        let selector = if self.bench.from == Source::Node { MARKERS } else { ALL };
        let hearing = Hearing::start(self.pair.reader(), selector, *number).await?;
        let begin = self.carried(&questions).await?;
        let writing = Writing::start(&self.pair.writer, self.pair.paths.clone(), self.bench.bytes as usize, *number, hearing.upto.clone());
        tokio::time::sleep(WARM_UP).await;
        let first = self.moment(&writing, &hearing).await?;
        tokio::time::sleep(self.time).await;
        let last = self.moment(&writing, &hearing).await?;
        *number = writing.end().await?;
        self.pair.settle().await?;
        let end = self.carried(&questions).await?;
        hearing.task.abort();
        questions.close().await;
        // Over the whole round, at both ends of which nothing is on its way.
        let wire = (end.0 - begin.0) as f64 / (end.1 - begin.1).max(1) as f64 - f64::from(self.bench.bytes);
        Ok(Round { wire_bytes_beyond_value: wire, ..self.between(&first, &last) })
    }

    /// The bytes that node A has sent, and the updates that node B has taken in.
    async fn carried(&self, questions: &Client) -> Result<(u64, u64), BenchError> {
        let sent_bytes = questions.links().await?.iter().map(|link| link.sent_bytes).sum();
        Ok((sent_bytes, self.pair.reader().status().await?.updates))
    }

    async fn moment(&self, writing: &Writing, hearing: &Hearing) -> Result<Moment, BenchError> {
        let delivered = match self.bench.from {
            Source::Node => self.pair.reader().status().await?.updates,
            Source::Client => hearing.values.load(Ordering::Relaxed),
        };
        Ok(Moment { at: Instant::now(), written: writing.written.load(Ordering::Relaxed), delivered })
    }

    fn between(&self, first: &Moment, last: &Moment) -> Round {
        let seconds = (last.at - first.at).as_secs_f64();
        let delivered_per_s = last.delivered.saturating_sub(first.delivered) as f64 / seconds;
        let bytes = f64::from(self.bench.bytes);
        Round {
            written_per_s: last.written.saturating_sub(first.written) as f64 / seconds,
            delivered_per_s,
            delivered_bytes_per_s: delivered_per_s * bytes,
            ..Round::default()
        }
    }
}

/// Writes to all topics in turn, as fast as the node takes it.
struct Writing {
    written: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    task: JoinHandle<Result<u64, BenchError>>,
}

impl Writing {
    /// Values are numbered from `first`; `arrived` follows the numbers that are heard.
    fn start(client: &Client, paths: Vec<String>, bytes: usize, first: u64, arrived: Arc<AtomicU64>) -> Writing {
        let (written, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let mut publisher = client.publisher(None);
        let (count, stopped) = (written.clone(), stop.clone());
        let width = (paths.len() as u64 / 2).max(1);
        let task = tokio::spawn(async move {
            let mut number = first;
            'writing: loop {
                for path in &paths {
                    while number >= arrived.load(Ordering::Relaxed) + width && !stopped.load(Ordering::Relaxed) {
                        publisher.send().await?;
                        tokio::time::sleep(LOOK_EVERY).await;
                    }
                    if number.is_multiple_of(64) {
                        count.store(publisher.report().written, Ordering::Relaxed);
                        if stopped.load(Ordering::Relaxed) {
                            break 'writing;
                        }
                    }
                    publisher.set(path, value(number, bytes)).await?;
                    number += 1;
                }
            }
            finish(publisher).await?;
            Ok(number)
        });
        Writing { written, stop, task }
    }

    async fn end(self) -> Result<u64, BenchError> {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.map_err(|error| BenchError::Stopped(error.to_string()))?
    }
}

/// Counts the values that a subscription hears.
struct Hearing {
    values: Arc<AtomicU64>,
    /// Above the greatest number heard.
    upto: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Hearing {
    /// Nothing from number `first` on has been written yet.
    async fn start(client: &Client, selector: &str, first: u64) -> Result<Hearing, BenchError> {
        let mut subscription = client.subscribe(selector).await?;
        // What was there before is no news.
        while subscription.next().await? != Heard::Synced {}
        let (values, upto) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(first)));
        let (count, greatest) = (values.clone(), upto.clone());
        let task = tokio::spawn(async move {
            // When the session ends, the count stands still, and the round finds nothing delivered.
            while let Ok(heard) = subscription.next().await {
                if let Heard::Topic { event: Event::Value { value, .. }, .. } = heard {
                    count.fetch_add(1, Ordering::Relaxed);
                    greatest.fetch_max(number_of(&value).map_or(0, |number| number + 1), Ordering::Relaxed);
                }
            }
        });
        Ok(Hearing { values, upto, task })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_conflated_or_sent_beside_is_told_apart() {
        let rounds = [1.0, 5.0, 3.0].map(|x| Round {
            written_per_s: 10.0 * x,
            delivered_per_s: 4.0 * x,
            delivered_bytes_per_s: 256.0 * x,
            baseline_bytes_per_s: 512.0 * x,
            ratio: 0.5,
            wire_bytes_beyond_value: 12.5,
        });
        assert_eq!(middle(&rounds, |round| round.written_per_s - round.delivered_per_s), 18.0);
        let bench = BenchReplicate { seconds: 1, rounds: 3, topics: 1, bytes: 64, from: Source::Client };
        let rows = rows(&bench, &rounds);
        assert_eq!(rows.iter().map(Row::holds).collect::<Vec<_>>(), [false, true, false]);
        assert_eq!(rows[0].measured, 12.0);
    }
}
