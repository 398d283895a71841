//! Dialling: one task for each node that the node wants to be linked to, with jittered back-off.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use mangrove_crdt::id::NodeId;
use mangrove_net::quic::{self, ConnectError, Endpoint, MeshConnection, endpoint::resolve};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use super::drive::Command;
use crate::node::Target;

/// How often to see whether a link that another has made is still there, besides being told.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// How long to wait before asking a node again that says that this one was revoked: that is for good, but whoever says so may be mistaken.
const OUTCAST_WAIT: Duration = Duration::from_secs(600);

/// How many different errors of one target are logged until it answers.
const ERRORS_TOLD_MAX: usize = 8;

/// What all dialling tasks share.
#[derive(Clone)]
pub(super) struct Dialling {
    /// The node's socket.
    pub endpoint: Endpoint,
    /// Where connections go.
    pub commands: mpsc::UnboundedSender<Command>,
    /// Who is linked now, whoever dialled.
    pub linked: watch::Receiver<Arc<BTreeSet<NodeId>>>,
    /// The seed of the jitter.
    pub seed: u64,
}

/// The dialling tasks. Dropping it ends them.
pub(super) struct Dialers {
    shared: Dialling,
    tasks: BTreeMap<Target, JoinHandle<()>>,
}

impl Dialers {
    pub(super) fn new(shared: Dialling) -> Self {
        Dialers { shared, tasks: BTreeMap::new() }
    }

    /// Dials exactly these from now on.
    pub(super) fn set(&mut self, targets: Vec<Target>) {
        let wanted: BTreeSet<Target> = targets.into_iter().collect();
        self.tasks.retain(|target, task| {
            let keep = wanted.contains(target);
            if !keep {
                task.abort();
            }
            keep
        });
        for target in wanted {
            if !self.tasks.contains_key(&target) {
                self.shared.seed = self.shared.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let task = tokio::spawn(dial(self.shared.clone(), target.clone()));
                self.tasks.insert(target, task);
            }
        }
    }
}

impl Drop for Dialers {
    fn drop(&mut self) {
        self.tasks.values().for_each(JoinHandle::abort);
    }
}

async fn dial(mut shared: Dialling, target: Target) {
    let Some(mut addresses) = quic::Target::new(target.addresses.clone(), shared.seed) else { return };
    let mut node = target.node;
    let mut told = BTreeSet::new();
    loop {
        // While there is a link, whoever made it, there is nothing to do.
        while node.is_some_and(|node| shared.linked.borrow_and_update().contains(&node)) {
            tokio::select! {
                changed = shared.linked.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
        let wait = match attempt(&shared, addresses.address(), target.node).await {
            Ok(connection) => {
                let peer = connection.peer();
                node = Some(peer);
                told.clear();
                if shared.commands.send(Command::Linked(connection, Some(target.clone()))).is_err() {
                    return;
                }
                // Until the loop has taken it, or sent it away, it does not count; a moment is enough for both.
                addresses.disconnected(quic::dialer::LASTED)
            }
            Err(error) => {
                // The same again and again is no news, nor is it when addresses take turns.
                if told.len() < ERRORS_TOLD_MAX && told.insert(error.to_string()) {
                    tracing::info!(address = addresses.address(), %error, "dialling fails");
                }
                let revoked = if let Failed::Revoked(said) = &error { Some(said.clone()) } else { None };
                let _ = shared.commands.send(Command::DialFailed { node: target.node, error: error.to_string() });
                match revoked {
                    Some(said) => {
                        let _ = shared.commands.send(Command::Outcast { by: target.node, said });
                        OUTCAST_WAIT
                    }
                    None => addresses.failed(),
                }
            }
        };
        tokio::time::sleep(wait).await;
    }
}

/// Why there is no link.
#[derive(Debug, thiserror::Error)]
enum Failed {
    /// Some address may answer later.
    #[error("{0}")]
    Unreached(String),
    /// The node answered, and says that this one was revoked.
    #[error("the peer refuses this node: {0}")]
    Revoked(String),
}

async fn attempt(shared: &Dialling, address: &str, expected: Option<NodeId>) -> Result<MeshConnection, Failed> {
    let mut last = format!("{address} has no address");
    for address in resolve(address).await.map_err(|error| Failed::Unreached(error.to_string()))? {
        match shared.endpoint.connect_mesh(address, expected).await {
            Ok(connection) => return Ok(connection),
            Err(ConnectError::Revoked(said)) => return Err(Failed::Revoked(said)),
            Err(error) => last = format!("{address}: {error}"),
        }
    }
    Err(Failed::Unreached(last))
}
