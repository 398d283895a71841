//! How soon a node that knows nothing shows everything.
//!
//! The clock runs from the start of the new node's program until its digest of the section is that of the node it joined: starting,
//! dialling, and being told of the section are in it. Its first start, which asks for certificates with a ticket, is not. What counts on the wire is all
//! that came to it in UDP, whatever for.
//!
//! With `kill_halfway` each newcomer is killed when it shows about half the topics and started again in its directory. What it has to be sent then is
//! the measure of whether it goes on or starts over.

use std::time::{Duration, Instant};

use super::baseline::Chain;
use super::founder::{Founder, noise, path, until, until_equal};
use super::process::Taken;
use super::report::{Budget, Report, Row, median};
use super::{BenchError, within};
use crate::cli::{BenchJoin, JoinDurability, progress};
use crate::client::Client;
use crate::demo::nodes::{Directory, Node};

/// How long to wait for two nodes to prove themselves equal, which they try every few seconds.
const PROOF_WAIT: Duration = Duration::from_secs(60);

/// What one newcomer found.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub(super) struct Round {
    pub(super) join_s: f64,
    pub(super) wire_bytes: f64,
    pub(super) baseline_s: f64,
    /// Until the link said that both ends are proved equal.
    pub(super) proved_s: f64,
    pub(super) cpu_founder_s: f64,
    pub(super) cpu_newcomer_s: f64,
    pub(super) resident_bytes: f64,
    pub(super) resumed: Option<Resumed>,
}

/// What came of killing it.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub(super) struct Resumed {
    /// Topics that it showed before it was killed.
    topics: u64,
    wire_bytes_before: f64,
    wire_bytes_after: f64,
    join_s: f64,
}

/// Measures in turns; see [`super`].
pub(super) async fn run(bench: &BenchJoin) -> Result<Report, BenchError> {
    let mut report = Report::begin("join");
    let (topics, bytes) = (bench.topics as usize, bench.bytes as usize);
    let directory = Directory::new("bench")?;
    let mut founder = Founder::start(&directory.path, bench.durability.text()).await?;
    let filling = Instant::now();
    let digest = founder.fill(topics, bytes).await?;
    report.detail("filled_s", filling.elapsed().as_secs_f64());
    let chain = Chain::to_another().await?;
    let bar = progress(Some(bench.rounds.into()), "rounds");
    let mut rounds = Vec::new();
    for number in 0..bench.rounds {
        let payload = topics * (path(0).len() + noise(0, bytes).len());
        let baseline_s = chain.transfer(payload).await?.as_secs_f64();
        let mut round = Newcomer { founder: &founder, topics, digest: &digest }.join(&format!("b{number}")).await?;
        round.baseline_s = baseline_s;
        if bench.kill_halfway {
            round.resumed = Some(Newcomer { founder: &founder, topics, digest: &digest }.join_in_two(&format!("c{number}")).await?);
        }
        rounds.push(round);
        bar.inc(1);
    }
    bar.finish_and_clear();
    founder.node.stop().await?;
    report.rows = rows(bench, &rounds);
    report.detail("topics", bench.topics);
    report.detail("bytes", bench.bytes);
    report.detail("durability", bench.durability.text());
    report.detail("rounds", &rounds);
    Ok(report.end())
}

fn rows(bench: &BenchJoin, rounds: &[Round]) -> Vec<Row> {
    let middle = |of: &dyn Fn(&Round) -> f64| median(rounds.iter().map(of).collect());
    let topics = f64::from(bench.topics);
    // Of a million topics; fewer are to take as much less, but for the start.
    let budget_s = match bench.durability {
        JoinDurability::Memory => 10.0,
        JoinDurability::Disk => 15.0,
    };
    let mut rows = vec![
        Row::new(format!("a fresh node joins, {}", bench.durability.text()), "s", middle(&|round| round.join_s))
            .beside(middle(&|round| round.baseline_s), middle(&|round| round.join_s / round.baseline_s))
            .budget(Budget::AtMost(budget_s)),
        Row::new("topics with their values taken over", "topics/s", middle(&|round| topics / round.join_s)),
        Row::new("wire beyond path and value", "bytes/topic", {
            let told = (path(0).len() + bench.bytes as usize) as f64;
            middle(&|round| round.wire_bytes / topics - told)
        }),
    ];
    let resumed: Vec<Resumed> = rounds.iter().filter_map(|round| round.resumed).collect();
    if !resumed.is_empty() {
        let middle = |of: &dyn Fn(&Resumed) -> f64| median(resumed.iter().map(of).collect());
        let whole = median(rounds.iter().map(|round| round.wire_bytes).collect());
        rows.push(
            Row::new("killed halfway, bytes of the second part", "of the whole", middle(&|round| round.wire_bytes_after / whole))
                .budget(Budget::AtMost(0.75)),
        );
        rows.push(Row::new("killed halfway, time of the second part", "s", middle(&|round| round.join_s)));
    }
    rows
}

/// A node that is to join another, and what shows that it has.
pub(super) struct Newcomer<'a> {
    pub(super) founder: &'a Founder,
    pub(super) topics: usize,
    pub(super) digest: &'a str,
}

impl Newcomer<'_> {
    pub(super) async fn join(&self, name: &str) -> Result<Round, BenchError> {
        let data = self.founder.admit(name).await?;
        let before = Taken::of(self.founder.node.id())?;
        let begun = Instant::now();
        let node = Node::start(data, name).await?;
        let equal = until_equal(&node.client, self.topics, self.digest).await?;
        let (founder, newcomer) = (Taken::of(self.founder.node.id())?.since(before), Taken::of(node.id())?);
        let wire_bytes = received(&node.client).await? as f64;
        within(PROOF_WAIT, "the newcomer was not proved equal", proved(&node.client)).await?;
        let round = Round {
            join_s: (equal - begun).as_secs_f64(),
            wire_bytes,
            proved_s: begun.elapsed().as_secs_f64(),
            cpu_founder_s: founder.cpu.as_secs_f64(),
            cpu_newcomer_s: newcomer.cpu.as_secs_f64(),
            resident_bytes: newcomer.resident_bytes as f64,
            ..Round::default()
        };
        part(node).await;
        Ok(round)
    }

    async fn join_in_two(&self, name: &str) -> Result<Resumed, BenchError> {
        let node = Node::start(self.founder.admit(name).await?, name).await?;
        let half = self.topics as u64 / 2;
        until(&node.client, self.topics, "a node did not come halfway", |row| row.topics >= half).await?;
        let wire_bytes_before = received(&node.client).await? as f64;
        let topics = node.client.status().await?.topics;
        let data = node.data.clone();
        node.kill().await;
        let begun = Instant::now();
        let node = Node::start(data, name).await?;
        let equal = until_equal(&node.client, self.topics, self.digest).await?;
        let wire_bytes_after = received(&node.client).await? as f64;
        part(node).await;
        Ok(Resumed { topics, wire_bytes_before, wire_bytes_after, join_s: (equal - begun).as_secs_f64() })
    }
}

/// Has a node leave the mesh, so that nobody waits for it any more; it may end before it has answered.
pub(super) async fn part(node: Node) {
    let _ = node.client.leave(true).await;
    node.kill().await;
}

/// What has come to a node over its present links.
async fn received(client: &Client) -> Result<u64, BenchError> {
    Ok(client.links().await?.iter().map(|link| link.received_bytes).sum())
}

async fn proved(client: &Client) -> Result<(), BenchError> {
    loop {
        if client.links().await?.iter().any(|link| link.equal_ms_ago.is_some()) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_part_is_told_against_the_whole() {
        let resumed = Resumed { wire_bytes_after: 30.0, join_s: 2.0, ..Resumed::default() };
        let round = Round { join_s: 4.0, baseline_s: 1.0, wire_bytes: 50.0, resumed: Some(resumed), ..Round::default() };
        let bench = BenchJoin { topics: 1, bytes: 10, durability: JoinDurability::Memory, rounds: 1, kill_halfway: true };
        let rows = rows(&bench, &[round]);
        assert_eq!(rows.iter().map(|row| row.measured).collect::<Vec<_>>(), [4.0, 0.25, 12.0, 0.6, 2.0]);
        assert!(rows.iter().all(Row::holds));
    }
}
