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
        let options = ClientOptions { name: format!("embedded in {}", self.running.name()), ..ClientOptions::new(credential) };
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
    use crate::protocol::{Code, Page, TopicSpec};

    fn config() -> Config {
        let settings = [("listen".to_owned(), "127.0.0.1:0".to_owned())];
        Config::from_parts(Path::new(""), "", [], &settings).expect("a configuration")
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
