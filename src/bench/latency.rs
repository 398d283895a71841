//! How soon a value is there.

use std::time::{Duration, Instant};

use super::baseline::Chain;
use super::mesh::{Pair, number_of, value};
use super::report::{Budget, Report, Row, median, quantile};
use super::{BenchError, within};
use crate::cli::{BenchLatency, progress};
use crate::client::{Heard, Publisher, Subscription};
use crate::demo::nodes::Directory;
use crate::protocol::Event;

/// Between two samples: nothing is on its way when the next one starts.
const GAP: Duration = Duration::from_millis(2);
/// Samples before those that count, in each round.
const WARM_UP: usize = 20;
const PATIENCE: Duration = Duration::from_secs(10);

/// What one round found, in microseconds.
#[derive(Clone, Copy, Debug, serde::Serialize)]
struct Round {
    p50_us: f64,
    p99_us: f64,
    baseline_p50_us: f64,
    baseline_p99_us: f64,
}

/// Measures in turns; see [`super`].
pub(super) async fn run(bench: &BenchLatency) -> Result<Report, BenchError> {
    let mut report = Report::begin("latency");
    let (samples, bytes) = (bench.samples as usize, bench.bytes as usize);
    let directory = Directory::new("bench")?;
    let pair = Pair::start(&directory.path, false, 1, bytes).await?;
    let chain = Chain::through_two().await?;
    let mut path = Path {
        topic: pair.paths[0].clone(),
        publisher: pair.writer.publisher(None),
        subscription: pair.reader().subscribe(&pair.paths[0]).await?,
        number: 0,
    };
    pair.settle().await?;
    let bar = progress(Some(2 * u64::from(bench.rounds)), "half rounds");
    let mut rounds = Vec::new();
    for _ in 0..bench.rounds {
        let baseline = chain.latencies(WARM_UP + samples, bytes, GAP).await?.split_off(WARM_UP);
        bar.inc(1);
        let measured = path.latencies(WARM_UP + samples, bytes).await?.split_off(WARM_UP);
        bar.inc(1);
        rounds.push(Round {
            p50_us: quantile(&measured, 0.5),
            p99_us: quantile(&measured, 0.99),
            baseline_p50_us: quantile(&baseline, 0.5),
            baseline_p99_us: quantile(&baseline, 0.99),
        });
    }
    bar.finish_and_clear();
    drop(path);
    pair.stop().await?;
    let row = |what: &str, at_most: f64, of: fn(&Round) -> (f64, f64)| {
        let middle = |of: &dyn Fn(&Round) -> f64| median(rounds.iter().map(of).collect());
        Row::new(what, "µs", middle(&|round| of(round).0))
            .beside(middle(&|round| of(round).1), middle(&|round| of(round).0 / of(round).1))
            .budget(Budget::RatioAtMost(at_most))
    };
    report.rows = vec![
        row("publish to remote subscriber, p50", 3.0, |round| (round.p50_us, round.baseline_p50_us)),
        row("publish to remote subscriber, p99", 5.0, |round| (round.p99_us, round.baseline_p99_us)),
    ];
    report.detail("samples", bench.samples);
    report.detail("bytes", bench.bytes);
    report.detail("rounds", &rounds);
    Ok(report.end())
}

/// From a publisher at node A to a subscriber at node B.
struct Path {
    topic: String,
    publisher: Publisher,
    subscription: Subscription,
    number: u64,
}

impl Path {
    async fn latencies(&mut self, count: usize, bytes: usize) -> Result<Vec<Duration>, BenchError> {
        let mut times = Vec::with_capacity(count);
        for _ in 0..count {
            tokio::time::sleep(GAP).await;
            self.number += 1;
            let value = value(self.number, bytes);
            let begun = Instant::now();
            self.publisher.set(&self.topic, value).await?;
            self.publisher.send().await?;
            within(PATIENCE, "a value did not arrive", self.hear()).await?;
            times.push(begun.elapsed());
        }
        self.publisher.settle().await?;
        Ok(times)
    }

    /// Waits for the value that was written last.
    async fn hear(&mut self) -> Result<(), BenchError> {
        loop {
            if let Heard::Topic { event: Event::Value { value, .. }, .. } = self.subscription.next().await?
                && number_of(&value) == Some(self.number)
            {
                return Ok(());
            }
        }
    }
}
