//! Claims on branches, and what must come of them.

use std::fmt::Debug;

use mangrove::client::{ClaimOptions, Client, ClientError, Source};
use mangrove::protocol::{Authority, Code, SetBatch, SetItem, SourceState, Target, TopicSpec};
use serde_json::Value;

use crate::support::{Node, PATIENCE, bytes_of, eventually};

/// Flags of nodes that pass a branch on within seconds.
pub const QUICK: &[&str] = &["--set", "lease_ms=2000", "--set", "settle_ms=100", "--set", "hold_ms=500"];

pub async fn claim(client: &Client, branch: &str) -> Source {
    client.claim(branch, ClaimOptions::default()).await.expect("a source")
}

/// Waits until a source is active, and gives the epoch.
pub async fn active(source: &mut Source) -> u64 {
    let waited = tokio::time::timeout(PATIENCE, source.active()).await;
    waited.unwrap_or_else(|_| panic!("{source:?} does not become active")).expect("it stands")
}

/// Waits until a source has a state of some kind, and gives that.
pub async fn becomes(source: &mut Source, what: &str, is: impl Fn(&SourceState) -> bool) -> SourceState {
    let waiting = async {
        loop {
            let state = source.changed().await.expect("another state");
            if is(&state) {
                break state;
            }
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("{what}"))
}

pub async fn standby(source: &mut Source) -> SourceState {
    becomes(source, "it is not told to stand by", |state| matches!(state, SourceState::Standby { .. })).await
}

/// Writes as a source, to a topic made if it is missing.
pub async fn write_as(source: &Source, path: &str, value: &Value) {
    source.set(path, bytes_of(value), Some(TopicSpec::of("json"))).await.expect("it may write");
}

/// Writes under an epoch whatever the library knows of it, and gives the node's judgement.
pub async fn write_under(client: &Client, source: u32, epoch: u64, path: &str, value: &Value) -> Result<(), ClientError> {
    let items = vec![SetItem::new(Target::Path(path.into()), bytes_of(value))];
    let under = Some(Authority { source, epoch });
    let report = client.set_all(SetBatch { items, add: None, durability: None, under }).await?;
    report.refused.into_iter().next().map_or(Ok(()), |item| Err(item.refusal.into()))
}

/// Fails the story unless this was refused for that reason.
pub fn refused_as<T: Debug>(result: Result<T, ClientError>, code: Code) {
    assert!(matches!(&result, Err(ClientError::Refused(refusal)) if refusal.code == code), "{code} was expected, not {result:?}");
}

/// Waits until nodes tell the same of all sources.
pub fn same_sources(nodes: &[&Node]) -> Value {
    eventually("the nodes tell the same of all sources", || {
        let told: Vec<Value> = nodes.iter().map(|node| node.json(&["source", "ls"])).collect();
        if told.iter().all(|rows| *rows == told[0]) { Ok(told[0].clone()) } else { Err(format!("{told:?}")) }
    })
}
