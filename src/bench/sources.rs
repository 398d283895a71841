//! What update sources cost: to claim many, to have them beside everything else, and to lose one.
//!
//! Two nodes that do not know each other are filled with the same topics, and on one of them many sources are claimed: by one session, which has as many
//! claims under way as the node takes from one connection, and later once more by several. A claim is answered when it is on the disk, and a source is active when the
//! client was told so, which begins with waiting the settle time. Meanwhile fresh nodes join the two in turns, and it is watched what crosses the link of each to an idle
//! neighbour. A fresh node has joined when its digest is the same, and that is over claims and grants, too.
//!
//! The rest is [`failover`], and as many claims where others vote on each.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::founder::{Founder, path};
use super::join::{Newcomer, Round};
use super::mesh::SECTION;
use super::report::{Budget, Report, Row};
use super::{BenchError, within};
use crate::cli::{BenchSources, count_text, progress};
use crate::client::{ClaimOptions, Client, Source};
use crate::demo::nodes::{Directory, Node};
use crate::protocol::LinkState;

mod failover;

/// How many claims a client has under way: twice what a node takes in before it answers.
const UNDER_WAY: usize = 128;
const PATIENCE: Duration = Duration::from_secs(600);
/// How much more heartbeats and joins may take with sources than without.
const WITHIN: f64 = 1.1;

/// How sessions came to their sources.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
struct Claimed {
    sessions: u32,
    /// Until all claims were answered.
    claimed_s: f64,
    /// Until all sources were active, from the first claim on.
    active_s: f64,
    /// Until all were closed, from the word that ends the sessions on.
    closed_s: f64,
}

/// What was looked at both with sources and without.
#[derive(Clone, Debug, Default, serde::Serialize)]
struct Beside {
    sources: u32,
    /// What the node and its neighbour sent each other together, in bytes a second.
    idle: f64,
    joins: Vec<Round>,
}

/// Measures in turn; see the module.
pub(super) async fn run(bench: &BenchSources) -> Result<Report, BenchError> {
    let mut report = Report::begin("sources");
    let (bare_directory, directory) = (Directory::new("bench")?, Directory::new("bench")?);
    let mut bare = Founder::start(&bare_directory.path, "disk").await?;
    let mut founder = Founder::start(&directory.path, "disk").await?;
    for founder in [&mut bare, &mut founder] {
        founder.fill(bench.topics as usize, bench.bytes as usize).await?;
    }
    let (mut one, sessions) = claim(&founder.node, SECTION, bench.claims, 1).await?;
    let [without, with] = beside([(&bare, 0), (&founder, bench.claims)], bench).await?;
    bare.node.stop().await?;
    one.closed_s = close(sessions).await?;
    let (mut several, sessions) = claim(&founder.node, SECTION, bench.claims, bench.sessions).await?;
    several.closed_s = close(sessions).await?;
    founder.node.stop().await?;
    let (failovers, voted) = failover::run(bench).await?;
    report.rows = [&one, &several].into_iter().flat_map(|claimed| claim_rows(bench.claims, claimed)).collect();
    report.rows.extend(voted_rows(bench.claims, &voted));
    report.rows.extend(failover::rows(&failovers));
    report.rows.extend(beside_rows(&without, &with));
    report.detail("claims", bench.claims);
    report.detail("topics", bench.topics);
    report.detail("bytes", bench.bytes);
    report.detail("claimed", [one, several]);
    report.detail("claimed_of_voters", voted);
    report.detail("failovers", &failovers);
    report.detail("beside", [without, with]);
    Ok(report.end())
}

fn claim_rows(claims: u32, claimed: &Claimed) -> Vec<Row> {
    let who = match claimed.sessions {
        1 => "one session".to_owned(),
        sessions => format!("{sessions} sessions"),
    };
    let row = |what: &str, seconds: f64| Row::new(format!("{what}, {who}"), "sources/s", f64::from(claims) / seconds);
    vec![row("claim", claimed.claimed_s), row("claim, until all are active", claimed.active_s), row("close", claimed.closed_s)]
}

fn voted_rows(claims: u32, claimed: &Claimed) -> Vec<Row> {
    let row = |what: &str, seconds: f64| Row::new(format!("quorum of three: {what}"), "sources/s", f64::from(claims) / seconds);
    vec![row("claim, until all are active", claimed.active_s), row("close", claimed.closed_s)]
}

fn beside_rows(without: &Beside, with: &Beside) -> Vec<Row> {
    let sources = count_text(with.sources.into());
    let mut rows = Vec::new();
    let mut compare = |what: &str, unit, of: &dyn Fn(&Beside) -> Vec<f64>| {
        let (bare, beside) = ((format!("{what}, no source"), of(without)), (format!("the same, {sources} sources"), of(with)));
        rows.extend(Row::in_turns(unit, bare, beside, "with against without, of each pair", Budget::AtMost(WITHIN)));
    };
    compare("a fresh node joins", "s", &|beside| beside.joins.iter().map(|join| join.join_s).collect());
    compare("what a fresh node is sent", "MB", &|beside| beside.joins.iter().map(|join| join.wire_bytes / 1e6).collect());
    compare("an idle link, both ways", "bytes/s", &|beside| vec![beside.idle]);
    rows
}

/// Claims so many branches, in as many parts as there are sessions, and waits until all are active.
async fn claim(node: &Node, section: &str, claims: u32, sessions: u32) -> Result<(Claimed, Vec<(Client, Vec<Source>)>), BenchError> {
    let bar = progress(Some(claims.into()), "claims");
    let mut clients = Vec::new();
    for session in 0..sessions as usize {
        let branches = (session..claims as usize).step_by(sessions as usize).map(|branch| path(branch).replacen(SECTION, section, 1));
        clients.push((node.connect().await?, branches.collect::<Vec<String>>()));
    }
    let begun = Instant::now();
    let mut claiming = JoinSet::new();
    for (client, branches) in clients {
        let bar = bar.clone();
        claiming.spawn(async move { Ok::<_, BenchError>((claim_all(&client, branches, || bar.inc(1)).await?, client)) });
    }
    let mut claimed = Vec::new();
    while let Some(sources) = claiming.join_next().await {
        let (sources, client) = sources.map_err(|error| BenchError::Stopped(error.to_string()))??;
        claimed.push((client, sources));
    }
    let claimed_s = begun.elapsed().as_secs_f64();
    bar.finish_and_clear();
    let active = async {
        for source in claimed.iter_mut().flat_map(|(_, sources)| sources) {
            source.active().await?;
        }
        Ok(())
    };
    within(PATIENCE, "not all sources became active", active).await?;
    Ok((Claimed { sessions, claimed_s, active_s: begun.elapsed().as_secs_f64(), closed_s: 0.0 }, claimed))
}

/// Claims branches, many at a time.
async fn claim_all(client: &Client, branches: Vec<String>, claimed: impl Fn()) -> Result<Vec<Source>, BenchError> {
    let mut sources = Vec::with_capacity(branches.len());
    let mut under_way = JoinSet::new();
    let mut branches = branches.into_iter();
    loop {
        while under_way.len() < UNDER_WAY
            && let Some(branch) = branches.next()
        {
            let client = client.clone();
            under_way.spawn(async move { client.claim(&branch, ClaimOptions::default()).await });
        }
        let Some(source) = under_way.join_next().await else { return Ok(sources) };
        sources.push(source.map_err(|error| BenchError::Stopped(error.to_string()))??);
        claimed();
    }
}

/// Ends sessions, with all that they have; how long that took.
async fn close(sessions: Vec<(Client, Vec<Source>)>) -> Result<f64, BenchError> {
    let begun = Instant::now();
    for (client, sources) in sessions {
        client.close_session().await?;
        drop(sources);
        client.close().await;
    }
    Ok(begun.elapsed().as_secs_f64())
}

/// Looks at two founders with so many sources each, in turns.
async fn beside(founders: [(&Founder, u32); 2], bench: &BenchSources) -> Result<[Beside; 2], BenchError> {
    let mut found = founders.map(|(_, sources)| Beside { sources, ..Beside::default() });
    let mut digests = Vec::new();
    for (founder, _) in founders {
        digests.push(founder.node.client.section_show(SECTION).await?.digest.unwrap_or_default());
    }
    let bar = progress(Some(u64::from(bench.rounds) * 2), "joins");
    for turn in 0..bench.rounds as usize * 2 {
        // Neither is always the one that comes after the other.
        let at = (turn + turn / 2) % 2;
        let newcomer = Newcomer { founder: founders[at].0, topics: bench.topics as usize, digest: &digests[at] };
        found[at].joins.push(newcomer.join(&format!("j{turn}")).await?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    for at in 0..2 {
        let neighbour = founders[at].0.joined("idle", &digests[at]).await?;
        tokio::time::sleep(bench.settle).await;
        let (begun, before) = (Instant::now(), crossed(&neighbour).await?);
        tokio::time::sleep(Duration::from_secs(bench.seconds.into())).await;
        found[at].idle = crossed(&neighbour).await?.saturating_sub(before) as f64 / begun.elapsed().as_secs_f64();
        super::join::part(neighbour).await;
    }
    Ok(found)
}

/// What has crossed a node's links, either way. Those to nodes that have left are forgotten some time.
pub(super) async fn crossed(node: &Node) -> Result<u64, BenchError> {
    Ok(node.client.links().await?.iter().filter(|link| link.state == LinkState::Up).map(|link| link.sent_bytes + link.received_bytes).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_more_is_allowed_and_no_more_than_that() {
        let round = |join_s| Round { join_s, wire_bytes: 1e6, ..Default::default() };
        let beside = |sources, join, idle| Beside { sources, idle, joins: [join, join, 99.0].map(round).to_vec() };
        let rows = beside_rows(&beside(0, 2.0, 100.0), &beside(1_000, 2.1, 120.0));
        assert_eq!(rows.iter().map(|row| row.measured).collect::<Vec<_>>(), [2.0, 2.1, 1.05, 1.0, 1.0, 1.0, 100.0, 120.0, 1.2]);
        assert_eq!(rows.iter().filter(|row| !row.holds()).count(), 1);
    }

    #[test]
    fn rates_are_over_all_claims() {
        let claimed = Claimed { sessions: 3, claimed_s: 2.0, active_s: 4.0, closed_s: 1.0 };
        assert_eq!(claim_rows(100, &claimed).iter().map(|row| row.measured).collect::<Vec<_>>(), [50.0, 25.0, 100.0]);
    }
}
