//! Nodes as processes of this same program.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::DemoError;
use crate::client::{Client, ClientOptions, Credential};

/// How long a node may take to start.
const START_WAIT: Duration = Duration::from_secs(20);
/// How long a node may take to stop before it is killed.
const STOP_WAIT: Duration = Duration::from_secs(5);
/// How much of a node's log is shown when it fails.
const LOG_SHOWN_BYTES: usize = 2_000;

/// A directory for nodes, removed in the end unless it is kept.
pub(crate) struct Directory {
    pub(crate) path: PathBuf,
    pub(crate) kept: bool,
}

impl Directory {
    /// An empty one among the system's temporary files; its name says what for.
    pub(crate) fn new(purpose: &str) -> Result<Self, DemoError> {
        let parent = std::env::temp_dir();
        for attempt in 0..100 {
            let path = parent.join(format!("mangrove-{purpose}-{}-{attempt}", std::process::id()));
            match fs::create_dir(&path) {
                Ok(()) => return Ok(Directory { path, kept: false }),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(DemoError::Node { name: purpose.into(), what: format!("no free directory in {}", parent.display()) })
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if !self.kept {
            // What cannot be removed is in the system's directory for such things.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// A running node. Killed when dropped, unless it was stopped or let go.
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) data: PathBuf,
    pub(crate) client: Client,
    process: Child,
}

impl Node {
    /// Founds a mesh and starts its first node.
    pub(crate) async fn found(directory: &Path, name: &str) -> Result<Node, DemoError> {
        let data = directory.join(name);
        command(&data, name, &["init", "--name", name, "--listen", "127.0.0.1:0"]).await?;
        Node::start(data, name).await
    }

    /// Joins with a ticket and starts.
    pub(crate) async fn join(directory: &Path, name: &str, ticket: &str) -> Result<Node, DemoError> {
        Node::start(Node::admit(directory, name, ticket).await?, name).await
    }

    /// Joins with a ticket. Returns the directory to start it in.
    pub(crate) async fn admit(directory: &Path, name: &str, ticket: &str) -> Result<PathBuf, DemoError> {
        let data = directory.join(name);
        command(&data, name, &["join", ticket, "--name", name, "--listen", "127.0.0.1:0"]).await?;
        Ok(data)
    }

    /// Starts the node of a directory.
    pub(crate) async fn start(data: PathBuf, name: &str) -> Result<Node, DemoError> {
        let log = data.with_extension("log");
        let mut command = program(&data)?;
        command.args(["up", "--json", "--name", name, "--listen", "127.0.0.1:0"]).stdout(Stdio::piped()).kill_on_drop(true);
        command.stderr(File::options().create(true).append(true).open(&log)?);
        // Interrupting the demo must not interrupt the nodes before it has its own word with them.
        #[cfg(unix)]
        command.process_group(0);
        let mut process = command.spawn()?;
        let failed = |what: &str| DemoError::Node { name: name.into(), what: format!("{what}\n{}", tail(&log)) };
        let output = process.stdout.take().ok_or_else(|| failed("has no output"))?;
        let mut line = String::new();
        match timeout(START_WAIT, BufReader::new(output).read_line(&mut line)).await {
            Ok(Ok(read)) if read > 0 => {}
            Ok(_) => return Err(failed("ended before it had started")),
            Err(_) => return Err(failed("did not start in time")),
        }
        let started: Value = serde_json::from_str(&line).map_err(|_| failed(&format!("said {line:?} where it should say its address")))?;
        let address = started["address"].as_str().ok_or_else(|| failed("named no address"))?;
        let credential = Credential::read(&data.join("operator.toml"))?;
        let client = Client::connect(ClientOptions::new(credential).at(address)).await?;
        Ok(Node { name: name.into(), data, client, process })
    }

    /// Another session with the node.
    pub(crate) async fn connect(&self) -> Result<Client, DemoError> {
        let credential = Credential::read(&self.data.join("operator.toml"))?;
        Ok(Client::connect(ClientOptions::new(credential)).await?)
    }

    /// The process's id.
    pub(crate) fn id(&self) -> u32 {
        self.process.id().unwrap_or_default()
    }

    /// Asks the node to stop, and waits until it has; kills it if it takes too long.
    pub(crate) async fn stop(mut self) -> Result<(), DemoError> {
        // It may end before it has answered; how it ends is what counts.
        let _ = self.client.shutdown().await;
        match timeout(STOP_WAIT, self.process.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(DemoError::Node { name: self.name, what: format!("stopped with {status}") }),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => {
                self.process.kill().await?;
                Err(DemoError::Node { name: self.name, what: "had to be killed".into() })
            }
        }
    }

    /// Ends the process at once, and waits until it is gone.
    pub(crate) async fn kill(mut self) {
        // It fails only for a process that is gone already.
        let _ = self.process.kill().await;
    }

    /// Leaves the node running when the demo ends.
    pub(crate) fn let_go(self) {
        // A child that is never dropped is never killed; the system takes it over when this process ends.
        std::mem::forget(self.process);
    }
}

fn program(data: &Path) -> Result<Command, DemoError> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--data").arg(data).stdin(Stdio::null());
    // What the user has set for his own node must not reach the demo's.
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("MANGROVE_") && name != "MANGROVE_LOG" {
            command.env_remove(name);
        }
    }
    Ok(command)
}

/// Runs a command that ends by itself.
async fn command(data: &Path, name: &str, arguments: &[&str]) -> Result<(), DemoError> {
    let running = program(data)?.args(arguments).kill_on_drop(true).output();
    let failed = |what: String| DemoError::Node { name: name.into(), what };
    let output = timeout(START_WAIT, running).await.map_err(|_| failed(format!("`{}` did not end", arguments[0])))??;
    match output.status.success() {
        true => Ok(()),
        false => Err(failed(format!("`{}` failed: {}", arguments[0], String::from_utf8_lossy(&output.stderr).trim_end()))),
    }
}

fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    String::from_utf8_lossy(&text[text.len().saturating_sub(LOG_SHOWN_BYTES)..]).into_owned()
}
