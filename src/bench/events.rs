//! Time series: how many events a second go from a node to another, and how long it takes to read some of very many.
//!
//! A client appends to one topic of node A, in this process, as fast as the node takes it, and the round ends when node B shows the last of them.

use std::time::Instant;

use super::mesh::{PATIENCE, Pair, SECTION, check, value};
use super::report::{Budget, Report, Row};
use super::{BenchError, within};
use crate::cli::{BenchEvents, progress};
use crate::demo::nodes::Directory;
use crate::protocol::{EventsWanted, PAGE_MAX, Page, TopicSpec};

/// How many events are read at a time.
const READ: u64 = 10_000;

/// Measures round after round; see the module.
pub(super) async fn run(bench: &BenchEvents) -> Result<Report, BenchError> {
    let mut report = Report::begin("events");
    let directory = Directory::new("bench")?;
    let pair = Pair::start(&directory.path, true, 8, 8).await?;
    let path = format!("{SECTION}/events");
    let keep = bench.events.saturating_mul(bench.rounds).clamp(1, mangrove_crdt::series::KEEP_MAX);
    let properties = [("of", "binary".to_owned()), ("keep", keep.to_string())].map(|(key, value)| (key.to_owned(), value));
    pair.writer.add_topics(TopicSpec { topic_type: "timeseries".into(), properties: properties.into() }, vec![path.clone()]).await?;
    let mut publisher = pair.writer.publisher(None);
    let bar = progress(Some(u64::from(bench.rounds)), "rounds");
    let (mut rates, mut reads, mut number) = (Vec::new(), Vec::new(), 0u64);
    for _ in 0..bench.rounds {
        pair.settle().await?;
        let begun = Instant::now();
        for _ in 0..bench.events {
            number += 1;
            publisher.set(&path, value(number, bench.bytes as usize)).await?;
        }
        check(publisher.settle().await?)?;
        within(PATIENCE, "node B did not get all events", shows(&pair, &path, number)).await?;
        rates.push(f64::from(bench.events) / begun.elapsed().as_secs_f64());
        pair.settle().await?;
        reads.push(read(&pair, &path, number).await?);
        bar.inc(1);
    }
    bar.finish_and_clear();
    pair.stop().await?;
    let what = format!("reading {READ} events of very many at node B");
    report.rows = vec![
        Row::of("events appended at node A, until node B shows them", "events/s", &rates).budget(Budget::AtLeast(100_000.0)),
        Row::of(what, "ms", &reads).budget(Budget::AtMost(50.0)),
    ];
    report.detail("events", bench.events);
    report.detail("bytes", bench.bytes);
    report.detail("rounds", &rates);
    Ok(report.end())
}

/// Waits until node B shows the event of this sequence.
async fn shows(pair: &Pair, path: &str, sequence: u64) -> Result<(), BenchError> {
    loop {
        let wanted = EventsWanted { last: Some(1), ..EventsWanted::default() };
        let (rows, _) = pair.reader().events(path, wanted, Page::default()).await?;
        if rows.last().is_some_and(|row| row.mark.event.sequence >= sequence) {
            return Ok(());
        }
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
}

/// Reads events from the middle on, as many pages as it takes; in milliseconds.
async fn read(pair: &Pair, path: &str, upto: u64) -> Result<f64, BenchError> {
    let from = (upto / 2).saturating_sub(READ / 2).max(1);
    let wanted = EventsWanted { from: Some(from), to: Some(from + READ - 1), ..EventsWanted::default() };
    let begun = Instant::now();
    let (mut after, mut count) = (None, 0);
    loop {
        let (rows, next) = pair.reader().events(path, wanted.clone(), Page { after, limit: PAGE_MAX }).await?;
        count += rows.len() as u64;
        after = next;
        if after.is_none() {
            break;
        }
    }
    let took = begun.elapsed().as_secs_f64() * 1e3;
    match count == READ.min(upto) {
        true => Ok(took),
        false => Err(BenchError::Stopped(format!("{count} events were read where there are {READ}"))),
    }
}
