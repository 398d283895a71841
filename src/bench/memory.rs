//! What a topic takes of memory, beyond its path and its value.
//!
//! A node's process is looked at before it has any topic, when they have just been made, and at rest: when it has not become smaller for a while. So is a node
//! that has taken all of them over from another.

use std::time::Duration;

use super::BenchError;
use super::founder::{Founder, path};
use super::process::Taken;
use super::report::{Budget, Report, Row};
use crate::cli::{BenchMemory, progress};
use crate::demo::nodes::{Directory, Node};

/// A node is at rest when it has become no smaller for so long.
const STEADY: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_secs(1);
/// What counts as smaller: one in so many bytes.
const SMALLER: u64 = 200;

/// Measures once; memory does not vary from run to run.
pub(super) async fn run(bench: &BenchMemory) -> Result<Report, BenchError> {
    let mut report = Report::begin("memory");
    let directory = Directory::new("bench")?;
    let mut founder = Founder::start(&directory.path, "memory").await?;
    let empty = resident(&founder.node)?;
    let digest = founder.fill(bench.topics as usize, bench.bytes as usize).await?;
    let loaded = resident(&founder.node)?;
    let at_rest = rest(&founder.node, bench).await?;
    let other = founder.joined("b", &digest).await?;
    let joined = resident(&other)?;
    let joined_at_rest = rest(&other, bench).await?;
    let serving = resident(&founder.node)?;
    let data = other.data.clone();
    other.stop().await?;
    let again = Node::start(data, "b").await?;
    let restarted = rest(&again, bench).await?;
    again.stop().await?;
    founder.node.stop().await?;
    let told = (path(0).len() + bench.bytes as usize) as f64;
    let each = |bytes: u64| bytes.saturating_sub(empty) as f64 / f64::from(bench.topics) - told;
    let row = |what: &str, bytes: u64| Row::new(what, "bytes/topic", each(bytes));
    let budget = Budget::AtMost(300.0);
    report.rows = vec![
        row("memory beyond path and value, at rest", at_rest).budget(budget),
        row("the same of a node that joined, at rest", joined_at_rest).budget(budget),
        row("the same after a restart, at rest", restarted).budget(budget),
        row("just loaded", loaded),
        row("just joined", joined),
        row("having served a join", serving),
    ];
    report.detail("topics", bench.topics);
    report.detail("bytes", bench.bytes);
    report.detail("path_bytes", path(0).len());
    report.detail("empty_bytes", empty);
    report.detail("loaded_bytes", loaded);
    report.detail("at_rest_bytes", at_rest);
    report.detail("joined_bytes", joined);
    report.detail("joined_at_rest_bytes", joined_at_rest);
    report.detail("restarted_bytes", restarted);
    Ok(report.end())
}

fn resident(node: &Node) -> Result<u64, BenchError> {
    Ok(Taken::of(node.id())?.resident_bytes)
}

/// Waits until the node becomes no smaller, or the time for that is over. Returns what it takes then.
async fn rest(node: &Node, bench: &BenchMemory) -> Result<u64, BenchError> {
    let bar = progress(None, "s, coming to rest");
    let (mut least, mut steady, mut waited) = (resident(node)?, Duration::ZERO, Duration::ZERO);
    while steady < STEADY && waited < bench.rest {
        tokio::time::sleep(LOOK).await;
        (steady, waited) = (steady + LOOK, waited + LOOK);
        bar.inc(1);
        let now = resident(node)?;
        if now < least - least / SMALLER {
            (least, steady) = (now, Duration::ZERO);
        }
    }
    bar.finish_and_clear();
    resident(node)
}
