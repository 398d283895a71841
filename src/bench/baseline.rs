//! QUIC alone: processes that receive, or pass on, what comes.
//!
//! A stream is bidirectional: bytes go out to the chain's end, which answers with their number when the stream ends.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use mangrove_crdt::id::MeshId;
use mangrove_net::quic::quinn::{Connection, RecvStream, SendStream};
use mangrove_net::quic::{ClientEndpoint, Endpoint, Identity, Incoming, Options, Revocations};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};

use super::{BenchError, within};
use crate::cli::BenchBaseline;

/// How long a process may take to start.
const START_WAIT: Duration = Duration::from_secs(20);
/// How much is written at once.
const CHUNK_BYTES: usize = 64 << 10;
/// How many chunks are taken at once.
const CHUNKS: usize = 32;

/// The hidden command `bench baseline`: runs until its parent closes its input.
pub(super) async fn serve(baseline: &BenchBaseline) -> Result<(), BenchError> {
    let (end, place) = bind()?;
    let dialler = ClientEndpoint::bind(Options::default())?;
    let next = match (baseline.to, baseline.mesh) {
        (Some(address), Some(mesh)) => Some(dialler.connect_client(address, mesh).await?),
        _ => None,
    };
    println!("{}", json!({ "address": place.address, "mesh": place.mesh.to_string() }));
    let mut parent = tokio::io::stdin();
    let mut nothing = [0];
    loop {
        tokio::select! {
            incoming = end.accept() => match incoming {
                Some(Incoming::Client(connection)) => { tokio::spawn(serve_one(connection, next.clone())); }
                Some(_) => {}
                None => return Ok(()),
            },
            _ = parent.read(&mut nothing) => return Ok(()),
        }
    }
}

async fn serve_one(connection: Connection, next: Option<Connection>) {
    while let Ok((answer, incoming)) = connection.accept_bi().await {
        let next = next.clone();
        // A stream that breaks is noticed at the chain's beginning.
        tokio::spawn(async move {
            match next {
                None => count(incoming, answer).await,
                Some(next) => {
                    let (onward, back) = next.open_bi().await?;
                    tokio::try_join!(pass(incoming, onward), pass(back, answer)).map(|_| ())
                }
            }
        });
    }
}

/// Hands chunks on as they come.
async fn pass(mut from: RecvStream, mut to: SendStream) -> Result<(), BenchError> {
    let mut chunks = [const { Bytes::new() }; CHUNKS];
    while let Some(count) = from.read_chunks(&mut chunks).await? {
        to.write_all_chunks(&mut chunks[..count]).await?;
    }
    to.finish()?;
    Ok(())
}

/// Counts bytes until the stream ends, and answers with their number.
async fn count(mut from: RecvStream, mut answer: SendStream) -> Result<(), BenchError> {
    let mut chunks = [const { Bytes::new() }; CHUNKS];
    let mut bytes = 0_u64;
    while let Some(count) = from.read_chunks(&mut chunks).await? {
        bytes += chunks[..count].iter().map(|chunk| chunk.len() as u64).sum::<u64>();
    }
    answer.write_all(&bytes.to_le_bytes()).await?;
    answer.finish()?;
    Ok(())
}

/// Where to connect, and whom to expect there.
#[derive(Clone, Copy, Debug)]
struct Place {
    address: SocketAddr,
    mesh: MeshId,
}

fn bind() -> Result<(Endpoint, Place), BenchError> {
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let identity = Identity::found(now_s)?;
    let endpoint = Endpoint::bind((Ipv4Addr::LOCALHOST, 0).into(), &identity, Revocations::default(), Options::default())?;
    let place = Place { address: endpoint.local_address()?, mesh: identity.mesh() };
    Ok((endpoint, place))
}

/// A process of the chain. It ends when this is dropped, or this process ends.
struct Hop {
    place: Place,
    _process: Child,
    _input: ChildStdin,
}

impl Hop {
    /// Starts a process that passes on to `next`, or receives.
    async fn start(next: Option<Place>) -> Result<Hop, BenchError> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["bench", "baseline"]).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        if let Some(next) = next {
            command.arg("--to").arg(next.address.to_string()).arg("--mesh").arg(next.mesh.to_string());
        }
        let mut process = command.spawn()?;
        let failed = |what: &str| BenchError::Baseline(format!("a process {what}"));
        let input = process.stdin.take().ok_or_else(|| failed("has no input"))?;
        let output = process.stdout.take().ok_or_else(|| failed("has no output"))?;
        let mut line = String::new();
        let started = async { Ok(BufReader::new(output).read_line(&mut line).await?) };
        within(START_WAIT, "a raw process did not start", started).await?;
        let said: Value = serde_json::from_str(&line).map_err(|_| failed("ended before it had started"))?;
        let address = said["address"].as_str().and_then(|text| text.parse().ok());
        let mesh = said["mesh"].as_str().and_then(|text| text.parse().ok());
        let place = address.zip(mesh).map(|(address, mesh)| Place { address, mesh }).ok_or_else(|| failed("named no address"))?;
        Ok(Hop { place, _process: process, _input: input })
    }
}

/// A chain of raw processes, from this one.
pub(super) struct Chain {
    connection: Connection,
    /// The last hop's connection, if the chain ends here.
    end: Option<Connection>,
    _dialler: ClientEndpoint,
    _endpoint: Option<Endpoint>,
    hops: Vec<Hop>,
}

impl Chain {
    /// To another process, which receives: one hop.
    pub(super) async fn to_another() -> Result<Chain, BenchError> {
        let hop = Hop::start(None).await?;
        let (dialler, connection) = dial(hop.place).await?;
        Ok(Chain { connection, end: None, _dialler: dialler, _endpoint: None, hops: vec![hop] })
    }

    /// Through two others and back to this one: three hops.
    pub(super) async fn through_two() -> Result<Chain, BenchError> {
        let (endpoint, place) = bind()?;
        let arrival = async {
            match endpoint.accept().await {
                Some(Incoming::Client(connection)) => Ok(connection),
                _ => Err(BenchError::Baseline("another than the last process came".into())),
            }
        };
        let (last, end) = tokio::try_join!(Hop::start(Some(place)), within(START_WAIT, "the last process did not connect", arrival))?;
        let first = Hop::start(Some(last.place)).await?;
        let (dialler, connection) = dial(first.place).await?;
        Ok(Chain { connection, end: Some(end), _dialler: dialler, _endpoint: Some(endpoint), hops: vec![first, last] })
    }

    /// Sends as fast as it goes for a while; how many bytes a second arrived at the end.
    pub(super) async fn throughput(&self, time: Duration) -> Result<f64, BenchError> {
        let counting = self.end.clone().map(|end| {
            tokio::spawn(async move {
                let (answer, incoming) = end.accept_bi().await?;
                count(incoming, answer).await
            })
        });
        let begun = Instant::now();
        let (mut out, mut answer) = self.connection.open_bi().await?;
        let chunk = Bytes::from(vec![7; CHUNK_BYTES]);
        while begun.elapsed() < time {
            out.write_chunk(chunk.clone()).await?;
        }
        out.finish()?;
        let mut bytes = [0; 8];
        answer.read_exact(&mut bytes).await?;
        let rate = u64::from_le_bytes(bytes) as f64 / begun.elapsed().as_secs_f64();
        if let Some(counting) = counting {
            counting.await.map_err(|error| BenchError::Stopped(error.to_string()))??;
        }
        Ok(rate)
    }

    /// How long it takes to connect anew and send so many bytes, until the other end has said that it has them.
    pub(super) async fn again(&self, bytes: usize) -> Result<Duration, BenchError> {
        let place = self.hops.first().ok_or_else(|| BenchError::Baseline("there is no other process".into()))?.place;
        let begun = Instant::now();
        let (_dialler, connection) = dial(place).await?;
        send(&connection, bytes).await?;
        Ok(begun.elapsed())
    }

    /// How long so many bytes take, until the other end has said that it has them.
    pub(super) async fn transfer(&self, bytes: usize) -> Result<Duration, BenchError> {
        let begun = Instant::now();
        send(&self.connection, bytes).await?;
        Ok(begun.elapsed())
    }

    /// Times of frames of `bytes`, one after the other with a gap between, one way to the end, which must be here.
    pub(super) async fn latencies(&self, count: usize, bytes: usize, gap: Duration) -> Result<Vec<Duration>, BenchError> {
        let end = self.end.as_ref().ok_or_else(|| BenchError::Baseline("the chain ends elsewhere".into()))?;
        let (mut out, _answer) = self.connection.open_bi().await?;
        let mut frame = vec![7; bytes];
        out.write_all(&frame).await?;
        let (_, mut incoming) = end.accept_bi().await?;
        incoming.read_exact(&mut frame).await?;
        let mut times = Vec::with_capacity(count);
        for _ in 0..count {
            tokio::time::sleep(gap).await;
            let begun = Instant::now();
            out.write_all(&frame).await?;
            incoming.read_exact(&mut frame).await?;
            times.push(begun.elapsed());
        }
        out.finish()?;
        Ok(times)
    }
}

async fn dial(place: Place) -> Result<(ClientEndpoint, Connection), BenchError> {
    let dialler = ClientEndpoint::bind(Options::default())?;
    let connection = dialler.connect_client(place.address, place.mesh).await?;
    Ok((dialler, connection))
}

/// Sends so many bytes on a stream, and hears that the end has them.
async fn send(connection: &Connection, bytes: usize) -> Result<(), BenchError> {
    let (mut out, mut answer) = connection.open_bi().await?;
    let chunk = Bytes::from(vec![7; CHUNK_BYTES]);
    for at in (0..bytes).step_by(CHUNK_BYTES) {
        out.write_chunk(chunk.slice(..CHUNK_BYTES.min(bytes - at))).await?;
    }
    out.finish()?;
    let mut counted = [0; 8];
    answer.read_exact(&mut counted).await?;
    if u64::from_le_bytes(counted) != bytes as u64 {
        return Err(BenchError::Baseline("bytes were lost".into()));
    }
    Ok(())
}
