//! `mangrove bench`: what replication carries, beside what QUIC alone carries over the same hops.
//!
//! A figure alone says more about the machine than about the program. So everything is measured twice in the same run, in turns:
//! once through nodes, and once through processes that do nothing but pass bytes on over QUIC (*the baseline*: quinn with this program's own
//! transport settings and certificates, whole chunks handed on without a copy). What counts is the ratio; each figure is the median of
//! all rounds.
//!
//! ```text
//!   replicate --from node     this process: node A ──────▶ node B                                1 hop,  2 processes
//!   replicate --from client   this process: publisher ───▶ node A ──▶ node B ──▶ this process    3 hops, 3 processes
//!   latency                   this process: publisher ───▶ node A ──▶ node B ──▶ this process    3 hops, 3 processes
//!   publish, events, deltas   this process: publisher ───▶ node A ◀──▶ node B
//!   join, catch-up, memory    node A ◀──▶ node B, watched from here                              1 hop,  2 processes
//!   idle                      so many nodes, watched from here
//!   sessions                  node A ◀──▶ node B, and clients of node A, watched from here
//!   sources                   one or two nodes, then three, watched from here
//! ```
//!
//! The baseline has a raw process wherever there is a node. Since both ends of the latency are in one process, it is one way by one clock, from
//! before a value is handed to the publisher until the subscriber has it.
//!
//! **What is counted** are *delivered* updates, each once: values that became the newest of their topic at node B, or that the subscriber
//! heard. Values that were overwritten before they left were *conflated*; they are told apart and count for nothing ([`replicate`] says why they are
//! few). The cost on the wire is all that node A sent in UDP to node B, acknowledgements and heartbeats included, over the updates that
//! node B took in.
//!
//! The section is `durability=memory`: writes are acknowledged at once, and stored behind.

use std::io;
use std::time::Duration;

use mangrove_net::quic::{ConnectError, IdentityError, quinn};

use crate::cli::{Bench, Failure, Output};
use crate::client::{ClientError, CredentialError};
use crate::demo::DemoError;
use crate::runtime::StartError;

mod baseline;
mod catch_up;
mod deltas;
mod events;
mod founder;
mod idle;
mod join;
mod latency;
mod memory;
mod mesh;
mod process;
mod publish;
mod replicate;
mod report;
mod sessions;
mod sources;

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error(transparent)]
    Credential(#[from] CredentialError),
    #[error(transparent)]
    Process(#[from] DemoError),
    #[error("the node in this process: {0}")]
    Start(#[from] StartError),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("the baseline: {0}")]
    Baseline(String),
    #[error("{0} within {1:?}")]
    Impatient(&'static str, Duration),
    #[error("{0}")]
    Stopped(String),
}

impl From<BenchError> for Failure {
    fn from(error: BenchError) -> Self {
        match error {
            BenchError::Client(error) => error.into(),
            BenchError::Credential(error) => error.into(),
            BenchError::Process(error) => error.into(),
            error => Failure::refused(error),
        }
    }
}

/// Whatever goes wrong between raw processes: they are all this program's, on this machine.
macro_rules! baseline_errors {
    ($($error:ty),*) => {
        $(impl From<$error> for BenchError {
            fn from(error: $error) -> Self {
                BenchError::Baseline(error.to_string())
            }
        })*
    };
}
baseline_errors!(
    ConnectError,
    IdentityError,
    quinn::ConnectionError,
    quinn::WriteError,
    quinn::ReadError,
    quinn::ReadExactError,
    quinn::ClosedStream
);

/// Measures, and prints what was found. Falling short of a budget is a finding, not a failure.
pub(crate) async fn run(output: &mut Output, bench: &Bench) -> Result<(), Failure> {
    let measured = async {
        match bench {
            Bench::Replicate(replicate) => replicate::run(replicate).await.map(Some),
            Bench::Latency(latency) => latency::run(latency).await.map(Some),
            Bench::Publish(publish) => publish::run(publish).await.map(Some),
            Bench::Join(join) => join::run(join).await.map(Some),
            Bench::CatchUp(catch_up) => catch_up::run(catch_up).await.map(Some),
            Bench::Events(events) => events::run(events).await.map(Some),
            Bench::Deltas(deltas) => deltas::run(deltas).await.map(Some),
            Bench::Memory(memory) => memory::run(memory).await.map(Some),
            Bench::Idle(idle) => idle::run(idle).await.map(Some),
            Bench::Sessions(sessions) => sessions::run(sessions).await.map(Some),
            Bench::Sources(sources) => sources::run(sources).await.map(Some),
            Bench::Baseline(baseline) => baseline::serve(baseline).await.map(|()| None),
        }
    };
    let report = tokio::select! {
        report = measured => report?,
        // Processes are ended as they are dropped.
        _ = tokio::signal::ctrl_c() => return Err(Failure::refused("interrupted")),
    };
    match report {
        Some(report) => report.print(output),
        None => Ok(()),
    }
}

async fn within<T>(patience: Duration, what: &'static str, work: impl Future<Output = Result<T, BenchError>>) -> Result<T, BenchError> {
    tokio::time::timeout(patience, work).await.unwrap_or(Err(BenchError::Impatient(what, patience)))
}
