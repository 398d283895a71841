//! One node with a section full of topics, in a process of its own, and others that join it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::mesh::{SECTION, check};
use super::{BenchError, within};
use crate::cli::progress;
use crate::client::{Client, ClientError};
use crate::demo::nodes::Node;
use crate::protocol::{Code, SectionRow, TopicSpec};

/// Between two looks at a node. Each has it go over all its values, which takes some milliseconds for each hundred thousand.
pub(super) fn look_every(topics: usize) -> Duration {
    Duration::from_millis((10 + topics as u64 / 4_000).min(250))
}

/// How long so many topics may take to be made, or taken over, before it is given up.
pub(super) fn patience(topics: usize) -> Duration {
    Duration::from_secs(60) + Duration::from_millis(topics as u64)
}

/// See the module.
pub(super) struct Founder {
    pub(super) node: Node,
    directory: PathBuf,
    topics: usize,
}

impl Founder {
    /// Starts the node, and declares the section.
    pub(super) async fn start(directory: &Path, durability: &str) -> Result<Founder, BenchError> {
        let node = Node::found(directory, "a").await?;
        node.client.section_add(SECTION, BTreeMap::from([("durability".to_owned(), durability.to_owned())])).await?;
        Ok(Founder { node, directory: directory.to_owned(), topics: 0 })
    }

    /// Makes topics, some thousands at a time, each with a value of so many bytes, and waits until they are stored. Returns the digest.
    pub(super) async fn fill(&mut self, topics: usize, bytes: usize) -> Result<String, BenchError> {
        let bar = progress(Some(topics as u64), "topics");
        let mut publisher = self.node.client.publisher(Some(TopicSpec::of("binary")));
        for topic in 0..topics {
            publisher.set(&path(topic), noise(topic as u64, bytes)).await?;
            bar.set_position(topic as u64);
        }
        check(&publisher.finish().await?)?;
        bar.finish_and_clear();
        self.topics = topics;
        let row = self.node.client.section_show(SECTION).await?;
        Ok(row.digest.unwrap_or_default())
    }

    /// Lets a node join that is not running yet. Returns its directory.
    pub(super) async fn admit(&self, name: &str) -> Result<PathBuf, BenchError> {
        let (ticket, _) = self.node.client.invite("member", Duration::from_secs(600)).await?;
        Ok(Node::admit(&self.directory, name, &ticket).await?)
    }

    /// Starts a node that has joined, and waits until it shows all topics.
    pub(super) async fn joined(&self, name: &str, digest: &str) -> Result<Node, BenchError> {
        let node = Node::start(self.admit(name).await?, name).await?;
        until_equal(&node.client, self.topics, digest).await?;
        Ok(node)
    }
}

/// Waits until a node shows all of the section, as its digest proves. Returns when that was.
pub(super) async fn until_equal(client: &Client, topics: usize, digest: &str) -> Result<Instant, BenchError> {
    let equal = |row: &SectionRow| row.topics == topics as u64 && row.digest.as_deref() == Some(digest);
    until(client, topics, "a node did not become equal", equal).await
}

/// Looks at a node's section until it is as wanted. Returns when that was.
pub(super) async fn until(
    client: &Client,
    topics: usize,
    what: &'static str,
    wanted: impl Fn(&SectionRow) -> bool,
) -> Result<Instant, BenchError> {
    let looking = async {
        loop {
            match client.section_show(SECTION).await {
                Ok(row) if wanted(&row) => return Ok(Instant::now()),
                // It may not have heard of the section yet.
                Ok(_) => {}
                Err(ClientError::Refused(refusal)) if refusal.code == Code::UnknownSection => {}
                Err(error) => return Err(error.into()),
            }
            tokio::time::sleep(look_every(topics)).await;
        }
    };
    within(patience(topics), what, looking).await
}

/// The path of a topic; all are of one length.
pub(super) fn path(topic: usize) -> String {
    format!("{SECTION}/plant-{:03}/sensor-{:05}", topic / 10_000, topic % 10_000)
}

/// A value of so many bytes that no compression makes shorter.
pub(super) fn noise(number: u64, bytes: usize) -> Vec<u8> {
    let mut state = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0xd1b5_4a32_d192_ed03;
    let next = || {
        // splitmix64
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    };
    let words = std::iter::repeat_with(next).flat_map(u64::to_le_bytes);
    words.take(bytes).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn paths_are_of_one_length_and_differ() {
        assert_eq!(path(0), "bench/plant-000/sensor-00000");
        assert_eq!(path(9_999_999).len(), path(0).len());
        assert_ne!(path(10_001), path(1));
    }

    #[test]
    fn noise_is_of_its_length_and_never_the_same() {
        assert_eq!(noise(1, 100).len(), 100);
        assert_ne!(noise(1, 100), noise(2, 100));
        let mut packed = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
        packed.write_all(&noise(1, 10_000)).unwrap();
        assert!(packed.finish().unwrap().len() > 9_900);
    }
}
