//! The same node inside a program.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use mangrove::{config::Config, embed::Node};
//!
//! let config = Config::load("mangrove.toml".as_ref(), &[])?;
//! let node = Node::open("mangrove-data".as_ref(), &config, "turbine-7").await?;
//! let client = node.client().await?;
//! let spec = mangrove::protocol::TopicSpec::of("int64");
//! client.set("plant/turbine-7/rpm", vec![0x19, 0x05, 0xdc], Some(spec)).await?;
//! node.close().await?;
//! # Ok(())
//! # }
//! ```
//!
//! An embedded node is a full member of its mesh: it listens, links, stores, and serves other clients too. A program's own writes go
//! the one path that everyone's go: [`Node::client`] opens a session of the ordinary protocol over a pipe in memory. They are
//! admitted, refused and acknowledged like those of a client on another machine.

use std::path::Path;

use crate::client::{Client, ClientError, ClientOptions, Credential, Token};
use crate::config::Config;
use crate::runtime::{self, Running, StartError};
use crate::store::{DataDir, StoreError};

/// A node in this process. Dropping it ends it without waiting; [`Node::close`] waits until everything is stored.
#[derive(Debug)]
pub struct Node {
    running: Running,
}

impl Node {
    /// Starts the node of a data directory. In an empty one it founds a mesh of its own first, under the given name; to join another mesh
    /// instead, call [`Node::join`].
    pub async fn open(data: &Path, config: &Config, name: &str) -> Result<Node, StartError> {
        // The lock is given up before the node takes it for itself.
        let is_new = !DataDir::open(data)?.has_vault();
        if is_new {
            runtime::init(data, config, Some(name))?;
        }
        Ok(Node { running: Running::start(data, config).await? })
    }

    /// Joins the mesh of a ticket and starts. In a directory that holds a node already, only starts.
    pub async fn join(data: &Path, config: &Config, name: &str, ticket: &str) -> Result<Node, StartError> {
        match runtime::join(data, config, ticket, Some(name)).await {
            Ok(_) | Err(StartError::Exists(_)) => Ok(Node { running: Running::start(data, config).await? }),
            Err(error) => Err(error),
        }
    }

    /// A session with this node, with the rights of its operator.
    pub async fn client(&self) -> Result<Client, ClientError> {
        let (read, write) = tokio::io::split(self.running.stream());
        // Inside the process nobody asks for a token.
        let credential =
            Credential { node: self.running.address().to_string(), mesh: self.running.mesh(), proof: Token::new([0; 32]).into() };
        // Nothing leaves the process.
        let (name, compress) = (format!("embedded in {}", self.running.name()), false);
        let options = ClientOptions { name, compress, ..ClientOptions::new(credential) };
        Client::over(read, write, &options).await
    }

    /// What runs: where it listens, who it is.
    pub fn running(&self) -> &Running {
        &self.running
    }

    /// Ends the node, once everything is stored and neighbours and clients are told.
    pub async fn close(self) -> Result<(), StoreError> {
        self.running.shutdown().await
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

    use crate::client::{Heard, Subscription};
    use crate::protocol::{Code, Event, Page, TopicSpec};

    fn config() -> Config {
        let settings = [("listen".to_owned(), "127.0.0.1:0".to_owned())];
        Config::from_parts(Path::new(""), "", [], &settings).expect("a configuration")
    }

    /// Passes on what comes, and counts it.
    fn pump(mut from: impl AsyncRead + Send + Unpin + 'static, mut to: impl AsyncWrite + Send + Unpin + 'static) -> Arc<AtomicU64> {
        let count = Arc::new(AtomicU64::new(0));
        let counted = count.clone();
        tokio::spawn(async move {
            let mut bytes = vec![0; 1 << 16];
            while let Ok(length @ 1..) = from.read(&mut bytes).await {
                counted.fetch_add(length as u64, Ordering::SeqCst);
                if to.write_all(&bytes[..length]).await.is_err() {
                    return;
                }
            }
        });
        count
    }

    /// A client that lets values come and go compressed, or not; and how many bytes it has sent and got.
    async fn counted(node: &Node, compress: bool) -> (Client, [Arc<AtomicU64>; 2]) {
        let credential =
            Credential { node: node.running.address().to_string(), mesh: node.running.mesh(), proof: Token::new([0; 32]).into() };
        let (mine, theirs) = tokio::io::duplex(1 << 16);
        let ((read, write), (node_read, node_write)) = (tokio::io::split(theirs), tokio::io::split(node.running.stream()));
        let counts = [pump(read, node_write), pump(node_read, write)];
        let (read, write) = tokio::io::split(mine);
        let options = ClientOptions { compress, ..ClientOptions::new(credential) };
        (Client::over(read, write, &options).await.expect("a session"), counts)
    }

    async fn next_value(subscription: &mut Subscription) -> Arc<[u8]> {
        loop {
            let heard = tokio::time::timeout(Duration::from_secs(30), subscription.next()).await.expect("it comes");
            if let Heard::Topic { event: Event::Value { value, .. }, .. } = heard.expect("it goes on") {
                return value;
            }
        }
    }

    #[tokio::test]
    async fn long_values_go_compressed_where_topics_and_clients_let_them() {
        let dirs = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
        let a = Node::open(dirs.0.path(), &config(), "a").await.expect("a starts");
        let operator = a.client().await.expect("a session");
        operator.section_add("s", BTreeMap::new()).await.expect("a section");
        let (ticket, _) = operator.invite("member", Duration::from_secs(60)).await.expect("a ticket");
        let b = Node::join(dirs.1.path(), &config(), "b", &ticket).await.expect("b joins");
        let clients = [(counted(&a, true).await, counted(&b, true).await), (counted(&a, false).await, counted(&b, false).await)];
        // Of each, 20 kB that become a few hundred bytes.
        let mut number = 0;
        for (at, ((writer, [out, _]), (reader, [_, inn]))) in clients.iter().enumerate() {
            for compress in ["true", "false"] {
                let path = format!("s/{at}/{compress}");
                let mut heard = reader.subscribe(&path).await.expect("a subscription");
                let mut spec = TopicSpec::of("binary");
                spec.properties.insert("compress".into(), compress.into());
                writer.set(&path, vec![0], Some(spec)).await.expect("a write");
                assert_eq!(next_value(&mut heard).await[..], [0]);
                let link = async || operator.links().await.expect("links").into_iter().find(|row| row.name == "b").expect("it is linked");
                let (link_before, out_before, inn_before) = (link().await, out.load(Ordering::SeqCst), inn.load(Ordering::SeqCst));
                number += 1;
                let value = [number].repeat(20_000);
                writer.set(&path, value.clone(), None).await.expect("a write");
                assert_eq!(next_value(&mut heard).await[..], value);
                let (link, out, inn) = (link().await, out.load(Ordering::SeqCst) - out_before, inn.load(Ordering::SeqCst) - inn_before);
                let on_link = (link.compressed - link_before.compressed, link.compressed_saved_bytes - link_before.compressed_saved_bytes);
                let topic_lets = compress == "true";
                assert_eq!(on_link.0 == 1 && on_link.1 > 19_000, topic_lets, "{path}: {on_link:?}");
                assert_eq!(inn < 2_000, topic_lets && at == 0, "{path}: {inn} bytes came");
                assert_eq!(out < 2_000, at == 0, "{path}: {out} bytes went");
            }
        }
        drop(clients);
        b.close().await.expect("b stores all");
        a.close().await.expect("a stores all");
    }

    #[tokio::test]
    async fn embedded_nodes_form_a_mesh_and_their_writers_go_the_one_path() {
        let dirs = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
        let a = Node::open(dirs.0.path(), &config(), "a").await.expect("a starts");
        let client = a.client().await.expect("a session");
        client.section_add("plant", Default::default()).await.expect("a section");
        let (ticket, _) = client.invite("member", Duration::from_secs(60)).await.expect("a ticket");
        let b = Node::join(dirs.1.path(), &config(), "b", &ticket).await.expect("b joins");
        let other = b.client().await.expect("a session");

        let int64 = Some(TopicSpec::of("int64"));
        client.set("plant/rpm", vec![0x19, 0x05, 0xdc], int64.clone()).await.expect("a write");
        let refused = client.set("plant/rpm", b"not CBOR of an integer".to_vec(), None).await.expect_err("an invalid value");
        assert!(matches!(refused, ClientError::Refused(refusal) if refusal.code == Code::InvalidValue));
        let refused = client.set("$mesh/x", vec![1], int64).await.expect_err("a reserved path");
        assert!(matches!(refused, ClientError::Refused(refusal) if refusal.code == Code::NotPermitted));

        let arrived = async {
            loop {
                let (rows, _) = other.values("plant/rpm", Page::default()).await.unwrap_or_default();
                if rows.first().and_then(|row| row.value.clone()) == Some(vec![0x19, 0x05, 0xdc]) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), arrived).await.expect("the value reaches b");
        b.close().await.expect("b stores all");
        a.close().await.expect("a stores all");

        let again = Node::open(dirs.0.path(), &config(), "a").await.expect("a starts again");
        let (rows, _) = again.client().await.expect("a session").values("plant/rpm", Page::default()).await.expect("values");
        assert_eq!(rows.first().and_then(|row| row.value.clone()), Some(vec![0x19, 0x05, 0xdc]));
        again.close().await.expect("a stores all");
    }
}
