//! How soon another source goes on where one ends.
//!
//! Three nodes, linked with each other. One session holds a branch at the second, another waits for it at the third. Then the first source is closed, or its session, or its node is
//! killed: until the other's client is told that it is active. All of it in a section where each side of a split may decide, and in one where the three nodes vote.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use super::super::report::{Budget, Row};
use super::super::{BenchError, within};
use super::{Claimed, claim, close};
use crate::cli::{BenchSources, progress};
use crate::client::{ClaimOptions, Client, ClientError, Source};
use crate::demo::nodes::{Directory, Node};
use crate::protocol::{Code, LinkState, SourceState};

/// The sections, and how each is arbitrated.
const SECTIONS: [&str; 2] = ["available", "quorum"];
const NAMES: [&str; 3] = ["a", "b", "c"];
/// Which node holds, and which waits.
const HOLDER: usize = 1;
const STANDBY: usize = 2;
const POLL: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(120);
/// By default a node waits so long for other claims, and a lease and what is held for a lost session last so long.
const SETTLE_MS: f64 = 300.0;
const LEASE_MS: f64 = 5_000.0;

/// How the holder ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
enum End {
    Source,
    Session,
    Killed,
}

impl End {
    const ALL: [End; 3] = [End::Source, End::Session, End::Killed];

    fn text(self) -> &'static str {
        match self {
            End::Source => "the source was closed",
            End::Session => "its session was closed",
            End::Killed => "its node was killed",
        }
    }

    fn budget_ms(self) -> f64 {
        match self {
            End::Source | End::Session => 2.0 * SETTLE_MS,
            End::Killed => LEASE_MS + 2.0 * SETTLE_MS,
        }
    }
}

/// How long it took, each time.
#[derive(Clone, Debug, serde::Serialize)]
pub(super) struct Failovers {
    section: &'static str,
    end: End,
    ms: Vec<f64>,
}

/// Measures in turns; see the module. Then one session claims many branches that the nodes vote on.
pub(super) async fn run(bench: &BenchSources) -> Result<(Vec<Failovers>, Claimed), BenchError> {
    let directory = Directory::new("bench")?;
    let mut nodes = start(&directory.path).await?;
    let mut found = Vec::new();
    let bar = progress(Some((SECTIONS.len() * End::ALL.len()) as u64 * u64::from(bench.rounds)), "failovers");
    for section in SECTIONS {
        for end in End::ALL {
            let mut failovers = Failovers { section, end, ms: Vec::new() };
            for round in 0..bench.rounds {
                let branch = format!("{section}/{end:?}-{round}");
                failovers.ms.push(fail_over(&mut nodes, &branch, end).await?.as_secs_f64() * 1_000.0);
                bar.inc(1);
            }
            found.push(failovers);
        }
    }
    bar.finish_and_clear();
    let (mut voted, sessions) = claim(&nodes[HOLDER], "quorum", bench.claims, 1).await?;
    voted.closed_s = close(sessions).await?;
    for node in nodes {
        node.stop().await?;
    }
    Ok((found, voted))
}

pub(super) fn rows(found: &[Failovers]) -> Vec<Row> {
    let row = |failovers: &Failovers| {
        let Failovers { section, end, ms } = failovers;
        Row::of(format!("{section}: standby is active once {}", end.text()), "ms", ms).budget(Budget::AtMost(end.budget_ms()))
    };
    found.iter().map(row).collect()
}

/// One round. All nodes run when it is over.
async fn fail_over(nodes: &mut Vec<Node>, branch: &str, end: End) -> Result<Duration, BenchError> {
    let (holding, waiting) = (nodes[HOLDER].connect().await?, nodes[STANDBY].connect().await?);
    let mut holder = holding.claim(branch, ClaimOptions::default()).await?;
    within(PATIENCE, "a source did not become active", active(&mut holder)).await?;
    let mut standby = waiting.claim(branch, ClaimOptions::default()).await?;
    within(PATIENCE, "a source did not stand by", stands_by(&mut standby)).await?;
    let begun = Instant::now();
    let mut killed = None;
    match end {
        End::Source => _ = holder.close().await?,
        End::Session => holding.close_session().await?,
        End::Killed => {
            let node = nodes.remove(HOLDER);
            killed = Some(node.data.clone());
            node.kill().await;
        }
    }
    within(PATIENCE, "the standby did not become active", active(&mut standby)).await?;
    let took = begun.elapsed();
    if let Some(data) = killed {
        nodes.insert(HOLDER, Node::start(data, NAMES[HOLDER]).await?);
        within(PATIENCE, "the nodes were not linked again", linked(nodes)).await?;
    }
    waiting.close_session().await?;
    Ok(took)
}

async fn active(source: &mut Source) -> Result<u64, BenchError> {
    Ok(source.active().await?)
}

async fn stands_by(source: &mut Source) -> Result<(), BenchError> {
    while !matches!(source.state(), SourceState::Standby { .. }) {
        source.changed().await?;
    }
    Ok(())
}

/// Three nodes that hold both sections and vote on the second.
async fn start(directory: &Path) -> Result<Vec<Node>, BenchError> {
    let [founder, others @ ..] = NAMES;
    let mut nodes = vec![Node::found(directory, founder).await?];
    for name in others {
        let (ticket, _) = nodes[0].client.invite("member", Duration::from_secs(600)).await?;
        nodes.push(Node::join(directory, name, &ticket).await?);
    }
    within(PATIENCE, "the nodes were not linked", linked(&nodes)).await?;
    for section in SECTIONS {
        let mut properties = BTreeMap::from([("arbitration".to_owned(), section.to_owned())]);
        if section == "quorum" {
            properties.insert("voters".into(), NAMES.join(","));
        }
        nodes[0].client.section_add(section, properties).await?;
        for node in &nodes {
            within(PATIENCE, "a node did not hear of a section", hold(&node.client, section)).await?;
        }
    }
    Ok(nodes)
}

/// Waits until each node is linked with both others.
async fn linked(nodes: &[Node]) -> Result<(), BenchError> {
    for node in nodes {
        while node.client.links().await?.iter().filter(|link| link.state == LinkState::Up).count() < nodes.len() - 1 {
            tokio::time::sleep(POLL).await;
        }
    }
    Ok(())
}

async fn hold(client: &Client, section: &str) -> Result<(), BenchError> {
    loop {
        match client.section_hold(section).await {
            Ok(_) => return Ok(()),
            Err(ClientError::Refused(refusal)) if refusal.code == Code::UnknownSection => tokio::time::sleep(POLL).await,
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_death_may_take_is_a_lease_more() {
        let failovers = |end, ms: &[f64]| Failovers { section: "quorum", end, ms: ms.to_vec() };
        let rows = rows(&[failovers(End::Session, &[100.0, 500.0, 900.0]), failovers(End::Killed, &[5_000.0, 5_700.0, 5_800.0])]);
        assert_eq!(rows.iter().map(|row| (row.measured, row.holds())).collect::<Vec<_>>(), [(500.0, true), (5_700.0, false)]);
    }
}
