//! What a mesh costs in which nothing happens.
//!
//! So many nodes, each a process of its own, hold a small section, and are watched once they have settled.

use std::time::{Duration, Instant};

use super::founder::Founder;
use super::process::Taken;
use super::report::{Budget, Report, Row, median};
use super::{BenchError, within};
use crate::cli::{BenchIdle, progress};
use crate::demo::nodes::{Directory, Node};
use crate::protocol::LinkState;

/// Topics that every node holds, as much as makes a section.
const TOPICS: usize = 100;
const BYTES: usize = 100;
const POLL: Duration = Duration::from_millis(200);

/// What one node took while it was watched.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
struct Idle {
    links: usize,
    /// What it sent over a link, on average, in bytes a second.
    sent_per_link: f64,
    received_per_link: f64,
    /// In parts of a core.
    cpu: f64,
    resident_bytes: f64,
    written_bytes_per_h: f64,
}

/// Measures once, over a while; see [`super`].
pub(super) async fn run(bench: &BenchIdle) -> Result<Report, BenchError> {
    let mut report = Report::begin("idle");
    let directory = Directory::new("bench")?;
    let mut founder = Founder::start(&directory.path, "disk").await?;
    founder.fill(TOPICS, BYTES).await?;
    let bar = progress(Some(bench.nodes.into()), "nodes");
    let mut nodes = Vec::new();
    for number in 1..bench.nodes {
        let name = format!("n{number:02}");
        nodes.push(Node::start(founder.admit(&name).await?, &name).await?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    nodes.push(founder.node);
    let patience = Duration::from_secs(60 + 5 * u64::from(bench.nodes));
    within(patience, "not all nodes heard of each other", known(&nodes)).await?;
    tokio::time::sleep(bench.settle).await;

    let mut before = Vec::new();
    for node in &nodes {
        before.push((Instant::now(), carried(node).await?, Taken::of(node.id())?));
    }
    let bar = progress(None, "s, idle");
    for _ in 0..bench.seconds {
        tokio::time::sleep(Duration::from_secs(1)).await;
        bar.inc(1);
    }
    bar.finish_and_clear();
    let mut found = Vec::new();
    for (node, (begun, (_, sent, received), taken)) in nodes.iter().zip(before) {
        let taken = Taken::of(node.id())?.since(taken);
        let (links, sent_now, received_now) = carried(node).await?;
        let seconds = begun.elapsed().as_secs_f64();
        let per_link = |bytes: u64| bytes as f64 / seconds / links.max(1) as f64;
        found.push(Idle {
            links,
            sent_per_link: per_link(sent_now.saturating_sub(sent)),
            received_per_link: per_link(received_now.saturating_sub(received)),
            cpu: taken.cpu.as_secs_f64() / seconds,
            resident_bytes: taken.resident_bytes as f64,
            written_bytes_per_h: taken.written_bytes as f64 * 3_600.0 / seconds,
        });
    }
    for node in nodes {
        // At once: so many would take long to end in order.
        node.kill().await;
    }
    report.rows = rows(&found);
    report.detail("nodes", bench.nodes);
    report.detail("seconds", bench.seconds);
    report.detail("each", &found);
    Ok(report.end())
}

fn rows(found: &[Idle]) -> Vec<Row> {
    let middle = |of: fn(&Idle) -> f64| median(found.iter().map(of).collect());
    let most = |of: fn(&Idle) -> f64| found.iter().map(of).fold(f64::NAN, f64::max);
    vec![
        Row::new("a link, sent by one end, median node", "bytes/s", middle(|idle| idle.sent_per_link)).budget(Budget::AtMost(500.0)),
        Row::new("a link, sent by one end, busiest node", "bytes/s", most(|idle| idle.sent_per_link)).budget(Budget::AtMost(500.0)),
        Row::new("memory, largest node", "MB", most(|idle| idle.resident_bytes / 1e6)).budget(Budget::AtMost(40.0)),
        Row::new("time on a core, busiest node", "%", most(|idle| idle.cpu * 100.0)).budget(Budget::AtMost(1.0)),
        Row::new("written, busiest node", "MB/h", most(|idle| idle.written_bytes_per_h / 1e6)).budget(Budget::AtMost(1.0)),
        Row::new("links, median node", "links", middle(|idle| idle.links as f64)),
    ]
}

/// Waits until every node can reach all.
async fn known(nodes: &[Node]) -> Result<(), BenchError> {
    for node in nodes {
        while (node.client.status().await?.reachable as usize) < nodes.len() {
            tokio::time::sleep(POLL).await;
        }
    }
    Ok(())
}

/// How many links a node has, and what has crossed them either way.
async fn carried(node: &Node) -> Result<(usize, u64, u64), BenchError> {
    let links = node.client.links().await?;
    let up = links.iter().filter(|link| link.state == LinkState::Up);
    Ok(up.fold((0, 0, 0), |sum, link| (sum.0 + 1, sum.1 + link.sent_bytes, sum.2 + link.received_bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_counts_where_each_must_hold() {
        let node = |cpu, sent_per_link| Idle { cpu, sent_per_link, ..Idle::default() };
        let rows = rows(&[node(0.001, 100.0), node(0.02, 300.0), node(0.002, 600.0)]);
        let measured: Vec<f64> = rows.iter().map(|row| row.measured).collect();
        assert_eq!((measured[0], measured[1], measured[3]), (300.0, 600.0, 2.0));
        assert_eq!(rows.iter().map(Row::holds).collect::<Vec<_>>(), [true, false, true, false, true, true]);
    }
}
