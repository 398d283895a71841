//! Two nodes, linked, with one section and its topics.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use super::{BenchError, within};
use crate::client::{Client, ClientError, Publisher};
use crate::config::Config;
use crate::demo::nodes::Node;
use crate::embed;
use crate::protocol::{Code, TopicSpec};

/// The section's root.
pub(super) const SECTION: &str = "bench";
/// All topics.
pub(super) const ALL: &str = "?bench//";
/// One in [`MARKER_EVERY`], or more if there are few.
pub(super) const MARKERS: &str = "?bench/markers//";
const MARKER_EVERY: usize = 250;
const POLL: Duration = Duration::from_millis(20);
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// The node that writes.
pub(super) enum Writer {
    /// In this process.
    Inside(embed::Node),
    /// In a process of its own.
    Process(Node),
}

/// Node A, which is written to, and node B.
pub(super) struct Pair {
    a: Writer,
    b: Node,
    /// A session with node A.
    pub(super) writer: Client,
    /// The topics' paths.
    pub(super) paths: Vec<String>,
}

impl Pair {
    /// Starts both, and makes topics with a first value of so many bytes, which both have when this returns.
    pub(super) async fn start(directory: &Path, inside: bool, topics: usize, bytes: usize) -> Result<Pair, BenchError> {
        let (a, writer) = if inside {
            let config = Config { listen: (Ipv4Addr::LOCALHOST, 0).into(), ..Config::default() };
            let node = embed::Node::open(&directory.join("a"), &config, "a").await?;
            let writer = node.client().await?;
            (Writer::Inside(node), writer)
        } else {
            let node = Node::found(directory, "a").await?;
            let writer = node.client.clone();
            (Writer::Process(node), writer)
        };
        let memory = BTreeMap::from([("durability".to_owned(), "memory".to_owned())]);
        writer.section_add(SECTION, memory).await?;
        let (ticket, _) = writer.invite("member", Duration::from_secs(600)).await?;
        let b = Node::join(directory, "b", &ticket).await?;
        let every = MARKER_EVERY.min(topics.div_ceil(8));
        let branch = |topic| if topic % every == 0 { "markers" } else { "sensors" };
        let paths = (0..topics).map(|topic| format!("{SECTION}/{}/{topic:06}", branch(topic))).collect();
        let pair = Pair { a, b, writer, paths };
        pair.fill(bytes).await?;
        Ok(pair)
    }

    async fn fill(&self, bytes: usize) -> Result<(), BenchError> {
        within(PATIENCE, "node B did not hear of the section", hold(&self.b.client)).await?;
        let mut publisher = self.writer.publisher(Some(TopicSpec::of("binary")));
        for (number, path) in self.paths.iter().enumerate() {
            publisher.set(path, value(number as u64, bytes)).await?;
        }
        check(publisher.settle().await?)?;
        let arrived = async {
            loop {
                let row = self.b.client.section_show(SECTION).await?;
                if row.topics == self.paths.len() as u64 && row.value_bytes == row.topics * bytes as u64 {
                    return Ok(());
                }
                // Each look has the node compute digests of all that has changed.
                tokio::time::sleep(POLL * 10).await;
            }
        };
        within(PATIENCE, "node B did not get all topics", arrived).await
    }

    /// A session with node B.
    pub(super) fn reader(&self) -> &Client {
        &self.b.client
    }

    /// Another session with node A, for questions, which must not wait behind writes.
    pub(super) async fn questions(&self) -> Result<Client, BenchError> {
        match &self.a {
            Writer::Inside(node) => Ok(node.client().await?),
            Writer::Process(node) => Ok(node.connect().await?),
        }
    }

    /// Waits until node B has nothing more to come.
    pub(super) async fn settle(&self) -> Result<(), BenchError> {
        let quiet = async {
            let mut before = None;
            loop {
                let updates = self.reader().status().await?.updates;
                if before.replace(updates) == Some(updates) {
                    return Ok(());
                }
                tokio::time::sleep(POLL * 5).await;
            }
        };
        within(PATIENCE, "node B did not come to rest", quiet).await
    }

    /// Ends both.
    pub(super) async fn stop(self) -> Result<(), BenchError> {
        self.b.stop().await?;
        match self.a {
            Writer::Inside(node) => node.close().await.map_err(|error| BenchError::Stopped(error.to_string())),
            Writer::Process(node) => Ok(node.stop().await?),
        }
    }
}

/// A node takes part in every section, but has to hear of it first.
async fn hold(client: &Client) -> Result<(), BenchError> {
    loop {
        match client.section_hold(SECTION).await {
            Ok(_) => return Ok(()),
            Err(ClientError::Refused(refusal)) if refusal.code == Code::UnknownSection => tokio::time::sleep(POLL).await,
            Err(error) => return Err(error.into()),
        }
    }
}

/// A value of so many bytes that begins with a number, so that no two are alike.
pub(super) fn value(number: u64, bytes: usize) -> Vec<u8> {
    let mut value = vec![0x5a; bytes];
    let head = bytes.min(8);
    value[..head].copy_from_slice(&number.to_le_bytes()[..head]);
    value
}

/// The number that a value of at least eight bytes begins with.
pub(super) fn number_of(value: &[u8]) -> Option<u64> {
    value.first_chunk().map(|head| u64::from_le_bytes(*head))
}

/// Fails if anything was refused.
pub(super) fn check(report: &crate::client::PublishReport) -> Result<(), BenchError> {
    match report.refusals.first() {
        None => Ok(()),
        Some(refusal) => Err(ClientError::Refused(refusal.clone()).into()),
    }
}

/// Sends what is waiting, and fails if anything was refused.
pub(super) async fn finish(publisher: Publisher) -> Result<u64, BenchError> {
    let report = publisher.finish().await?;
    check(&report)?;
    Ok(report.written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_tell_their_number() {
        assert_eq!(number_of(&value(7_000_000_000, 64)), Some(7_000_000_000));
        assert_eq!(value(1, 64).len(), 64);
        assert_eq!(value(0x0201, 2), [1, 2]);
        assert_eq!(number_of(&value(1, 2)), None);
    }
}
