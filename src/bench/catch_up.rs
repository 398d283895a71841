//! What it costs to become equal again after a split.
//!
//! Two nodes that hold the same topics are cut from each other, some topics change, and they are let together again. Once with changes on one side,
//! once on both, and all of it beside a section of another size, since the cost is to follow what changed and not what there is.
//!
//! The clock runs from the word that ends the split until the last change shows at the other side: dialling and the handshake are in it, and in the
//! bytes, which are all that either side sent in UDP until both were quiet, less the values. Requests are counted where they are made: a graft, an adoption, a
//! repair, or having an announcement said again. If there were none, each side sent what the other lacked on hearing its announcement: one round trip.

use std::path::Path;
use std::time::{Duration, Instant};

use super::baseline::Chain;
use super::founder::{Founder, noise, path, until_equal};
use super::mesh::{SECTION, finish};
use super::process::Taken;
use super::report::{Budget, Report, Row, median};
use super::{BenchError, within};
use crate::cli::{BenchCatchUp, progress};
use crate::client::{Client, Heard, Subscription};
use crate::demo::nodes::{Directory, Node};
use crate::protocol::{Event, LinkState};

const POLL: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(60);
/// How long both ends must have sent nothing but pulses and comparisons until what they sent is counted.
const QUIET: Duration = Duration::from_millis(500);

/// What one heal came to.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
struct Round {
    topics: u32,
    /// Changes on each side.
    changes: [u32; 2],
    heal_ms: f64,
    baseline_ms: f64,
    /// Bytes on the wire beyond the values, for each change.
    bytes_beyond_value: f64,
    /// What either end had to ask for.
    requests: u64,
    /// Value records that went either way.
    records: u64,
    /// Both nodes' time on a core.
    cpu_ms: f64,
}

/// Measures in turns; see [`super`].
pub(super) async fn run(bench: &BenchCatchUp) -> Result<Report, BenchError> {
    let mut report = Report::begin("catch-up");
    let chain = Chain::to_another().await?;
    let bar = progress(Some(4 * u64::from(bench.rounds)), "heals");
    let mut rounds = Vec::new();
    for topics in [bench.topics, bench.beside] {
        let directory = Directory::new("bench")?;
        let mut pair = Pair::start(&directory.path, bench, topics).await?;
        let changed = bench.changes.min(topics / 2);
        for changes in [[changed, 0], [changed, changed]] {
            for _ in 0..bench.rounds {
                let told = changes[0] as usize * (path(0).len() + bench.bytes as usize);
                let baseline = chain.again(told).await?;
                let round = pair.split_and_heal(changes).await?;
                rounds.push(Round { baseline_ms: baseline.as_secs_f64() * 1_000.0, ..round });
                bar.inc(1);
            }
        }
        pair.stop().await?;
    }
    bar.finish_and_clear();
    report.rows = rows(bench, &rounds);
    report.detail("topics", bench.topics);
    report.detail("beside", bench.beside);
    report.detail("changes", bench.changes);
    report.detail("bytes", bench.bytes);
    report.detail("rounds", &rounds);
    Ok(report.end())
}

fn rows(bench: &BenchCatchUp, rounds: &[Round]) -> Vec<Row> {
    let of = |topics: u32, both: bool, figure: &dyn Fn(&Round) -> f64| {
        let these = rounds.iter().filter(|round| round.topics == topics && (round.changes[1] > 0) == both);
        median(these.map(figure).collect())
    };
    let (large, small) = (bench.topics, bench.beside);
    let heal = |round: &Round| round.heal_ms;
    let mut rows = vec![
        Row::new(format!("heal, {} of {large} topics changed on one side", bench.changes), "ms", of(large, false, &heal))
            .beside(of(large, false, &|round| round.baseline_ms), of(large, false, &|round| round.heal_ms / round.baseline_ms)),
        Row::new("the same on both sides", "ms", of(large, true, &heal)),
    ];
    for (what, both) in [("one side", false), ("both sides", true)] {
        let beyond = of(large, both, &|round| round.bytes_beyond_value);
        rows.push(Row::new(format!("wire beyond the value, {what}"), "bytes/change", beyond).budget(Budget::AtMost(40.0)));
    }
    let requests = rounds.iter().map(|round| round.requests).max().unwrap_or_default();
    rows.push(Row::new("round trips, with what had to be asked for", "at most", 1.0 + requests as f64).budget(Budget::AtMost(1.0)));
    let cpu = |topics: u32| of(topics, false, &|round: &Round| round.cpu_ms);
    rows.push(Row::new(format!("time on a core at both nodes, of {large}"), "ms", cpu(large)));
    rows.push(Row::new(format!("the same of {small} topics"), "ms", cpu(small)));
    let times = of(large, false, &heal) / of(small, false, &heal);
    rows.push(Row::new(format!("heal of {large} topics, against that of {small}"), "times", times).budget(Budget::AtMost(1.5)));
    rows
}

/// Nodes A and B, which hold the same.
struct Pair<'a> {
    founder: Founder,
    other: Node,
    bench: &'a BenchCatchUp,
    topics: u32,
    /// The first number that no value has yet.
    number: u64,
}

impl Pair<'_> {
    async fn start<'a>(directory: &Path, bench: &'a BenchCatchUp, topics: u32) -> Result<Pair<'a>, BenchError> {
        let mut founder = Founder::start(directory, "memory").await?;
        let digest = founder.fill(topics as usize, bench.bytes as usize).await?;
        let other = founder.joined("b", &digest).await?;
        Ok(Pair { founder, other, bench, topics, number: topics.into() })
    }

    fn clients(&self) -> [&Client; 2] {
        [&self.founder.node.client, &self.other.client]
    }

    /// Cuts, changes so many topics on each side, and heals. Both ends dial, and where both links come up one gives way to the other; what it carried is
    /// counted nowhere then, so that such a heal is made again.
    async fn split_and_heal(&mut self, changes: [u32; 2]) -> Result<Round, BenchError> {
        const TRIES: usize = 10;
        for _ in 0..TRIES {
            let round = self.heal(changes).await?;
            if round.records >= u64::from(changes[0] + changes[1]) {
                return Ok(round);
            }
        }
        Err(BenchError::Stopped(format!("each of {TRIES} heals went over a link that gave way to another")))
    }

    async fn heal(&mut self, changes: [u32; 2]) -> Result<Round, BenchError> {
        self.block(true).await?;
        let mut last: [Option<(Subscription, u64)>; 2] = [None, None];
        for side in [0, 1] {
            if let Some(at) = changes[side].checked_sub(1) {
                self.change(side, changes[side]).await?;
                let topic = path(self.topic_of(side, at));
                // At the other side.
                let mut subscription = self.clients()[1 - side].subscribe(&topic).await?;
                while subscription.next().await? != Heard::Synced {}
                last[side] = Some((subscription, self.number - 1));
            }
        }
        self.rest().await?;
        let before = self.taken()?;
        let begun = Instant::now();
        self.block(false).await?;
        for (subscription, number) in last.iter_mut().flatten() {
            let wanted = noise(*number, self.bench.bytes as usize);
            within(PATIENCE, "the last change did not arrive", hear(subscription, &wanted)).await?;
        }
        let heal = begun.elapsed();
        let cpu = self.taken()? - before;
        drop(last);
        tokio::time::sleep(QUIET).await;
        let mut round = Round {
            topics: self.topics,
            changes,
            heal_ms: heal.as_secs_f64() * 1_000.0,
            cpu_ms: cpu.as_secs_f64() * 1_000.0,
            ..Round::default()
        };
        let mut sent_bytes = 0;
        for client in self.clients() {
            for link in client.links().await? {
                sent_bytes += link.sent_bytes;
                round.requests += link.requests;
                round.records += link.sent_records;
            }
        }
        let changed = f64::from(changes[0] + changes[1]);
        round.bytes_beyond_value = sent_bytes as f64 / changed - f64::from(self.bench.bytes);
        self.prove().await?;
        Ok(round)
    }

    /// Which topic a side changes as its so-manieth: spread over all, and none that the other side changes.
    fn topic_of(&self, side: usize, at: u32) -> usize {
        /// A prime, so that no two fall on the same.
        const STRIDE: u64 = 2_654_435_761;
        let slots = u64::from(self.topics / 2);
        let spread = u64::from(at) * STRIDE % slots;
        (spread * 2) as usize + side
    }

    async fn change(&mut self, side: usize, changes: u32) -> Result<(), BenchError> {
        let mut publisher = self.clients()[side].publisher(None);
        for at in 0..changes {
            publisher.set(&path(self.topic_of(side, at)), noise(self.number, self.bench.bytes as usize)).await?;
            self.number += 1;
        }
        finish(publisher).await.map(drop)
    }

    /// Keeps the two apart, or lets them together; both ends, so that neither dials in vain and waits longer the next time.
    async fn block(&self, blocked: bool) -> Result<(), BenchError> {
        self.clients()[0].block("b", blocked).await?;
        self.clients()[1].block("a", blocked).await?;
        if blocked {
            let apart = async {
                for client in self.clients() {
                    while client.links().await?.iter().any(|link| link.state == LinkState::Up) {
                        tokio::time::sleep(POLL).await;
                    }
                }
                Ok(())
            };
            within(PATIENCE, "the nodes did not part", apart).await?;
        }
        Ok(())
    }

    /// Waits until neither node is busy with what went before.
    async fn rest(&self) -> Result<(), BenchError> {
        const LOOK: Duration = Duration::from_millis(500);
        let resting = async {
            let mut before = self.taken()?;
            loop {
                tokio::time::sleep(LOOK).await;
                let now = self.taken()?;
                if now - before < LOOK / 20 {
                    return Ok(());
                }
                before = now;
            }
        };
        within(PATIENCE, "the nodes did not come to rest", resting).await
    }

    /// Time that both nodes have had on a core.
    fn taken(&self) -> Result<Duration, BenchError> {
        Ok(Taken::of(self.founder.node.id())?.cpu + Taken::of(self.other.id())?.cpu)
    }

    async fn prove(&self) -> Result<(), BenchError> {
        let digest = self.clients()[0].section_show(SECTION).await?.digest.unwrap_or_default();
        until_equal(self.clients()[1], self.topics as usize, &digest).await.map(drop)
    }

    async fn stop(self) -> Result<(), BenchError> {
        self.other.stop().await?;
        Ok(self.founder.node.stop().await?)
    }
}

/// Waits until a topic has a value.
async fn hear(subscription: &mut Subscription, wanted: &[u8]) -> Result<(), BenchError> {
    loop {
        if let Heard::Topic { event: Event::Value { value, .. }, .. } = subscription.next().await?
            && *value == *wanted
        {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sizes_are_told_apart() {
        let bench = BenchCatchUp { topics: 1_000, beside: 10, changes: 5, bytes: 100, rounds: 1 };
        let round = |topics, changes, heal_ms| Round { topics, changes, heal_ms, baseline_ms: 2.0, ..Round::default() };
        let rounds = [round(1_000, [5, 0], 6.0), round(1_000, [5, 5], 8.0), round(10, [5, 0], 3.0), round(10, [5, 5], 5.0)];
        let rows = rows(&bench, &rounds);
        let measured: Vec<f64> = rows.iter().map(|row| row.measured).collect();
        assert_eq!((measured[0], measured[1], measured[4], measured[7]), (6.0, 8.0, 1.0, 2.0));
        assert!(rows[4].holds() && !rows[7].holds(), "twice as long with a hundred times the topics");
    }
}
