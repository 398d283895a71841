//! What the lanes of a link carry beside what quinn alone carries, on loopback, in one process.
//!
//! `cargo run --release -p mangrove-net --features quic --example lanes_throughput`

// A measurement reads clocks.
#![allow(clippy::disallowed_methods)]

use std::{
    error::Error,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use mangrove_net::quic::{
    Applicant, ClientEndpoint, Endpoint, Identity, Incoming, LaneSender, LinkEvent, MeshConnection, Options, Revocations, Role, Room,
    quinn::{self, Connection},
};
use tokio::sync::mpsc;

type Outcome<T> = Result<T, Box<dyn Error>>;

const BYTES: usize = 256 << 20;
const ROUNDS: usize = 5_000;

#[tokio::main]
async fn main() -> Outcome<()> {
    let plain = plain_pair().await?;
    report("quinn alone, its own settings: one stream", raw_throughput(&plain).await?, raw_latency(&plain).await?);
    plain.0.close(0u32.into(), b"");

    let first = Identity::found(now())?;
    let acceptor = Endpoint::bind(loopback(), &first, Revocations::default(), Options::default())?;
    let client = ClientEndpoint::bind(Options::default())?;
    let (here, there) = tokio::join!(client.connect_client(acceptor.local_address()?, first.mesh()), acceptor.accept());
    let Some(Incoming::Client(there)) = there else { return Err("no client came".into()) };
    let raw = (here?, there);
    report("quinn alone, our settings: one stream", raw_throughput(&raw).await?, raw_latency(&raw).await?);
    raw.0.close(0u32.into(), b"");

    for (lanes, frame_bytes) in [(1, 64 << 10), (1, 8 << 10), (1, 256), (8, 64 << 10), (64, 16 << 10)] {
        let link = link(&acceptor, &first).await?;
        let rate = lane_throughput(link.0, link.1, lanes, frame_bytes).await?;
        let what = format!("{lanes} lanes, frames of {frame_bytes} bytes");
        println!("{what:<44} {rate}  {:>9.0} frames/s", rate.wall * 1e6 / frame_bytes as f64);
    }
    let link = link(&acceptor, &first).await?;
    let (p50, p99) = lane_latency(link.0, link.1).await?;
    println!("{:<44} {:>28}  round trip p50 {p50:?} p99 {p99:?}", "a lane, frames of 64 bytes", "");
    Ok(())
}

fn report(what: &str, rate: Rate, (p50, p99): (Duration, Duration)) {
    println!("{what:<44} {rate}  round trip p50 {p50:?} p99 {p99:?}");
}

fn loopback() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

/// Seconds since 1970, by which certificates are made.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn percentiles(mut times: Vec<Duration>) -> (Duration, Duration) {
    times.sort();
    (times[times.len() / 2], times[times.len() * 99 / 100])
}

/// Two endpoints as quinn's own examples set them up.
async fn plain_pair() -> Outcome<(Connection, Connection)> {
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".into()])?;
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
    let server = quinn::ServerConfig::with_single_cert(vec![certified.cert.der().clone()], key.into())?;
    let acceptor = quinn::Endpoint::server(server, loopback())?;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certified.cert.der().clone())?;
    let client = quinn::Endpoint::client(loopback())?;
    let config = quinn::ClientConfig::with_root_certificates(Arc::new(roots))?;
    let connecting = client.connect_with(config, acceptor.local_addr()?, "localhost")?;
    let (here, there) = tokio::join!(connecting, async { acceptor.accept().await?.await.ok() });
    let pair = (here?, there.ok_or("nobody came")?);
    // The endpoints live as long as the process.
    std::mem::forget((acceptor, client));
    Ok(pair)
}

/// Megabytes a second, by the clock on the wall and by the processor time that this process took: the second hardly depends on what
/// else the machine is doing.
struct Rate {
    wall: f64,
    cpu: f64,
}

struct Begun(Instant, f64);

impl Begun {
    fn now() -> Self {
        Begun(Instant::now(), cpu_seconds())
    }

    fn moved(&self, bytes: usize) -> Rate {
        let megabytes = bytes as f64 / 1e6;
        Rate { wall: megabytes / self.0.elapsed().as_secs_f64(), cpu: megabytes / (cpu_seconds() - self.1) }
    }
}

impl std::fmt::Display for Rate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:>6.0} MB/s {:>6.0} MB/CPU-s", self.wall, self.cpu)
    }
}

/// User and system time of this process, where Linux tells it (in ticks of 10 ms); elsewhere not a number.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok()).unwrap_or(f64::NAN);
    (ticks(11) + ticks(12)) / 100.0
}

async fn raw_throughput((here, there): &(Connection, Connection)) -> Outcome<Rate> {
    let begun = Begun::now();
    let mut out = here.open_uni().await?;
    let sending = tokio::spawn(async move {
        let chunk = Bytes::from(vec![7; 64 << 10]);
        for _ in 0..BYTES / chunk.len() {
            out.write_chunk(chunk.clone()).await?;
        }
        out.finish()?;
        Ok::<_, Box<dyn Error + Send + Sync>>(out)
    });
    let mut incoming = there.accept_uni().await?;
    let mut received = 0;
    let mut chunks = [const { Bytes::new() }; 32];
    while let Some(count) = incoming.read_chunks(&mut chunks).await? {
        received += chunks[..count].iter().map(Bytes::len).sum::<usize>();
    }
    let _out = sending.await?.map_err(|error| error.to_string())?;
    Ok(begun.moved(received))
}

async fn raw_latency((here, there): &(Connection, Connection)) -> Outcome<(Duration, Duration)> {
    let (mut ask, mut answered) = here.open_bi().await?;
    ask.write_all(&[0]).await?;
    let (mut answer, mut asked) = there.accept_bi().await?;
    asked.read_exact(&mut [0]).await?;
    tokio::spawn(async move {
        let mut frame = [0; 64];
        while asked.read_exact(&mut frame).await.is_ok() && answer.write_all(&frame).await.is_ok() {}
    });
    let mut times = Vec::with_capacity(ROUNDS);
    let mut frame = [1; 64];
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        ask.write_all(&frame).await?;
        answered.read_exact(&mut frame).await?;
        times.push(begun.elapsed());
    }
    Ok(percentiles(times))
}

struct End {
    sender: LaneSender,
    events: mpsc::UnboundedReceiver<LinkEvent>,
}

fn start(connection: MeshConnection) -> End {
    let (events_in, events) = mpsc::unbounded_channel();
    End { sender: connection.start(1, events_in), events }
}

async fn link(acceptor: &Endpoint, first: &Identity) -> Outcome<(End, End)> {
    let applicant = Applicant::new(Role::Member)?;
    let authority = first.authority().ok_or("the first node is an authority")?;
    let certificates = authority.certify(now(), &applicant.node_key()?, None)?;
    let dialler = Endpoint::bind(loopback(), &applicant.admitted(first.mesh(), certificates)?, Revocations::default(), Options::default())?;
    let (here, there) = tokio::join!(dialler.connect_mesh(acceptor.local_address()?, None), acceptor.accept());
    let Some(Incoming::Mesh(there)) = there else { return Err("no node came".into()) };
    std::mem::forget(dialler);
    Ok((start(here?), start(there)))
}

async fn lane_throughput(mut here: End, mut there: End, lanes: u32, frame_bytes: usize) -> Outcome<Rate> {
    let frame = Bytes::from(vec![7; frame_bytes]);
    let begun = Begun::now();
    let total = BYTES.min(2_000_000 * frame_bytes);
    tokio::spawn(async move {
        let mut open: Vec<u32> = (1..=lanes).collect();
        loop {
            while let Some(lane) = open.last() {
                match here.sender.send(*lane, 0, frame.clone()) {
                    Ok(Room::Open) => {}
                    Ok(Room::Blocked) => drop(open.pop()),
                    Err(_) => return,
                }
            }
            match here.events.recv().await {
                Some(LinkEvent::Writable { lane, .. }) => open.push(lane),
                _ => return,
            }
        }
    });
    let mut received = 0;
    while received < total {
        match there.events.recv().await {
            Some(LinkEvent::Received { frame, .. }) => received += frame.len(),
            _ => return Err("the link ended".into()),
        }
    }
    Ok(begun.moved(received))
}

async fn lane_latency(mut here: End, mut there: End) -> Outcome<(Duration, Duration)> {
    tokio::spawn(async move {
        while let Some(LinkEvent::Received { frame, lane, .. }) = there.events.recv().await {
            let _ = there.sender.send(lane, 0, frame.into_bytes());
        }
    });
    let frame = Bytes::from(vec![1; 64]);
    let mut times = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        let _ = here.sender.send(1, 0, frame.clone())?;
        match here.events.recv().await {
            Some(LinkEvent::Received { .. }) => times.push(begun.elapsed()),
            _ => return Err("the link ended".into()),
        }
    }
    Ok(percentiles(times))
}
