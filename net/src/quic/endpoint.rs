//! The socket: one UDP port for neighbours, clients and newcomers.
//!
//! Handshakes run beside the accepting loop, a bounded number at a time, each with a deadline. When many are under way, newcomers have to prove
//! their address first (QUIC's retry, which costs this side no memory), and above the bound they are refused; so a flood of handshakes,
//! spoofed or not, takes from this node a fixed amount.
//!
//! A connection survives a change of the dialling side's address, whether it was meant ([`Endpoint::rebind`]) or done to it by a NAT. The
//! accepting side of a connection has to stay where it is; if it moves, its peers dial again.

use std::{
    fmt, io,
    net::SocketAddr,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use mangrove_crdt::id::{MeshId, NodeId};
use quinn::{
    ClientConfig, Connection, ConnectionError, ServerConfig, VarInt,
    crypto::rustls::{HandshakeData, QuicClientConfig, QuicServerConfig},
};
use rustls::pki_types::CertificateDer;
use tokio::{
    sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc},
    task::AbortHandle,
};

use super::{
    authority::{Identity, mesh_name},
    close::{CloseCode, Closed},
    congestion::{self, LastWord},
    join::JoinRequest,
    lanes::{LANES_MAX, MeshConnection},
    tls::{self, ALPN_CLIENT, ALPN_JOIN, ALPN_MESH, Refusal, Revocations, Trust, TrustError},
    transport::{self, CLIENT_STREAMS_MAX, Purpose, SEND_WINDOW_BYTES_CLIENT},
};

/// How an endpoint behaves; the defaults suit a node.
#[derive(Clone, Debug)]
pub struct Options {
    /// How often an otherwise silent connection says that it lives. Five seconds: home routers forget a UDP flow after 30, some
    /// after 15; a node hears of its neighbours' death by their pulses, not by this.
    pub keep_alive: Duration,
    /// After how long a silent peer's connection is given up. Four keep-alives: long enough for a link that is out for a moment, during which
    /// nothing is lost and nothing queues up, short enough that the dialler tries other addresses soon.
    pub idle_timeout: Duration,
    /// How long a handshake (with a join's question) may take.
    pub handshake_timeout: Duration,
    /// How many handshakes may be under way; above it newcomers are refused.
    pub handshakes_max: usize,
    /// From how many handshakes on newcomers have to prove their address first.
    pub handshakes_before_retry: usize,
    /// The socket's buffers; the system may allow less.
    pub socket_buffer_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            keep_alive: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(20),
            handshake_timeout: Duration::from_secs(10),
            handshakes_max: 256,
            handshakes_before_retry: 32,
            socket_buffer_bytes: 4 << 20,
        }
    }
}

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// This side did not accept the other's certificate.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The other side refused, in its words.
    #[error("the peer refused: {0}")]
    Refused(String),
    /// The other side, a node of this mesh, says that this node was revoked, in its words. Dialling again changes nothing.
    #[error("the peer refused this node: {0}")]
    Revoked(String),
    /// Nothing answered.
    #[error("nothing answered in time")]
    TimedOut,
    /// The address is none, or has no host.
    #[error("not an address to connect to: {0}")]
    Address(String),
    /// This endpoint is closed, or could not make the handshake's configuration.
    #[error("cannot connect: {0}")]
    Here(String),
}

impl ConnectError {
    pub(super) fn of_connection(error: &ConnectionError) -> Self {
        match Closed::from_error(error, None) {
            Closed::Peer { code: Some(CloseCode::Revoked), reason } => ConnectError::Revoked(reason),
            Closed::Peer { code, reason } if reason.is_empty() => ConnectError::Refused(format!("{code:?}")),
            Closed::Peer { reason, .. } | Closed::Transport(reason) => ConnectError::Refused(reason),
            Closed::TimedOut => ConnectError::TimedOut,
            other => ConnectError::Here(other.to_string()),
        }
    }
}

/// The addresses that `host:port` stands for.
pub async fn resolve(address: &str) -> Result<Vec<SocketAddr>, ConnectError> {
    match tokio::net::lookup_host(address).await {
        Ok(found) => Ok(found.collect()),
        Err(error) => Err(ConnectError::Address(format!("{address}: {error}"))),
    }
}

/// Who came.
#[derive(Debug)]
pub enum Incoming {
    /// A node of this mesh: both certificates are checked. Start its lanes, or close it.
    Mesh(MeshConnection),
    /// A client, not known yet: it says who it is on its streams.
    Client(Connection),
    /// A node that asks for certificates.
    Join(JoinRequest),
}

/// Counts of what became of handshakes, since the endpoint was bound.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Handshakes {
    /// Done, and handed to [`Endpoint::accept`].
    pub accepted: u64,
    /// Failed or refused: wrong mesh, revoked, no certificate, broken off, too slow.
    pub failed: u64,
    /// Told to prove their address first.
    pub retried: u64,
    /// Turned away, since too many were under way.
    pub refused: u64,
}

#[derive(Default)]
struct Counters {
    accepted: AtomicU64,
    failed: AtomicU64,
    retried: AtomicU64,
    refused: AtomicU64,
}

/// A node's socket. Clones are handles on the same one; when the last is dropped it stops accepting.
#[derive(Clone)]
pub struct Endpoint {
    inner: Arc<Inner>,
}

struct Inner {
    quinn: quinn::Endpoint,
    identity: RwLock<Arc<Identity>>,
    revocations: Revocations,
    options: Options,
    congestion: LastWord,
    counters: Arc<Counters>,
    arrivals: Mutex<mpsc::Receiver<Incoming>>,
    accepting: AbortHandle,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Endpoint {
    /// Binds and begins to accept. Must be called inside a tokio runtime.
    pub fn bind(listen: SocketAddr, identity: &Identity, revocations: Revocations, options: Options) -> io::Result<Self> {
        let socket = transport::bind(listen, options.socket_buffer_bytes)?;
        let congestion = LastWord::default();
        let server = server_config(identity, &revocations, &options, &congestion).map_err(io::Error::other)?;
        let quinn = quinn::Endpoint::new(transport::endpoint(), Some(server), socket, Arc::new(quinn::TokioRuntime))?;
        let counters = Arc::new(Counters::default());
        // A slow consumer holds back the handshakes that wait to be handed over, which then count against their bound.
        let (arrived, arrivals) = mpsc::channel(16);
        let accepting =
            tokio::spawn(accept_all(quinn.clone(), options.clone(), revocations.clone(), counters.clone(), arrived)).abort_handle();
        let identity = RwLock::new(Arc::new(identity.clone()));
        Ok(Endpoint {
            inner: Arc::new(Inner {
                quinn,
                identity,
                revocations,
                options,
                congestion,
                counters,
                arrivals: Mutex::new(arrivals),
                accepting,
            }),
        })
    }

    /// The next arrival; `None` once the endpoint is closed. One caller at a time.
    pub async fn accept(&self) -> Option<Incoming> {
        self.inner.arrivals.lock().await.recv().await
    }

    /// Dials another node. With `expected`, only that node will do. Returns once the peer has accepted us too.
    pub async fn connect_mesh(&self, address: SocketAddr, expected: Option<NodeId>) -> Result<MeshConnection, ConnectError> {
        let identity = self.identity();
        let trust = Trust::new(identity.mesh(), self.inner.revocations.clone());
        let dialling = async {
            let connection = self.dialling(address).dial(ALPN_MESH, Some(&identity), trust, expected).await?;
            let peer = peer_of(&connection).ok_or_else(|| ConnectError::Here("the peer showed no certificate".into()))?;
            MeshConnection::dialled(connection, peer).await.map_err(|error| ConnectError::of_connection(&error))
        };
        tokio::time::timeout(self.inner.options.handshake_timeout, dialling).await.unwrap_or(Err(ConnectError::TimedOut))
    }

    /// Dials another node of this mesh to ask it for certificates, showing our own.
    pub(super) async fn connect_join(&self, address: SocketAddr) -> Result<Connection, ConnectError> {
        let identity = self.identity();
        let trust = Trust::new(identity.mesh(), self.inner.revocations.clone());
        self.dialling(address).dial(ALPN_JOIN, Some(&identity), trust, None).await
    }

    fn dialling(&self, address: SocketAddr) -> Dialling<'_> {
        Dialling { quinn: &self.inner.quinn, options: &self.inner.options, congestion: &self.inner.congestion, address }
    }

    /// The identity that new connections show.
    pub fn identity(&self) -> Arc<Identity> {
        self.inner.identity.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Shows another certificate from now on. Connections that stand are not touched.
    pub fn set_identity(&self, identity: &Identity) -> io::Result<()> {
        let server =
            server_config(identity, &self.inner.revocations, &self.inner.options, &self.inner.congestion).map_err(io::Error::other)?;
        self.inner.quinn.set_server_config(Some(server));
        *self.inner.identity.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(identity.clone());
        Ok(())
    }

    /// The revocations that new connections are held against.
    pub fn revocations(&self) -> &Revocations {
        &self.inner.revocations
    }

    /// Where the socket is bound.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.inner.quinn.local_addr()
    }

    /// Moves to another local address. Connections that this side dialled go on from there; those that it accepted time out and have to be
    /// dialled again. On error everything stays as it was.
    pub fn rebind(&self, listen: SocketAddr) -> io::Result<()> {
        self.inner.quinn.rebind(transport::bind(listen, self.inner.options.socket_buffer_bytes)?)
    }

    /// What became of handshakes.
    pub fn handshakes(&self) -> Handshakes {
        let Counters { accepted, failed, retried, refused } = &*self.inner.counters;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Handshakes { accepted: read(accepted), failed: read(failed), retried: read(retried), refused: read(refused) }
    }

    /// Ends all connections, saying why, and accepts no more.
    pub fn close(&self, code: CloseCode, reason: &str) {
        self.inner.congestion.closing();
        self.inner.quinn.close(code.into(), reason.as_bytes());
    }

    /// Waits until the peers have been told of closed connections: before a program ends.
    pub async fn wait_idle(&self) {
        self.inner.quinn.wait_idle().await;
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({} at {:?})", self.identity().node().short(), self.local_address().ok())
    }
}

/// A socket that only dials, without a certificate: for clients and for nodes that are about to join.
#[derive(Clone)]
pub struct ClientEndpoint {
    quinn: quinn::Endpoint,
    options: Options,
    congestion: LastWord,
}

impl ClientEndpoint {
    /// Binds a socket of its own, on a free port, for IPv6 and IPv4 or whichever there is. Must be called inside a tokio runtime.
    pub fn bind(options: Options) -> io::Result<Self> {
        let any: [SocketAddr; 2] = [(std::net::Ipv6Addr::UNSPECIFIED, 0).into(), (std::net::Ipv4Addr::UNSPECIFIED, 0).into()];
        let socket =
            transport::bind(any[0], options.socket_buffer_bytes).or_else(|_| transport::bind(any[1], options.socket_buffer_bytes))?;
        let quinn = quinn::Endpoint::new(transport::endpoint(), None, socket, Arc::new(quinn::TokioRuntime))?;
        Ok(ClientEndpoint { quinn, options, congestion: LastWord::default() })
    }

    /// Connects as a client to any node of the mesh whose root key hashes to `mesh`.
    pub async fn connect_client(&self, address: SocketAddr, mesh: MeshId) -> Result<Connection, ConnectError> {
        self.connect(address, ALPN_CLIENT, mesh).await
    }

    pub(super) async fn connect_join(&self, address: SocketAddr, mesh: MeshId) -> Result<Connection, ConnectError> {
        self.connect(address, ALPN_JOIN, mesh).await
    }

    async fn connect(&self, address: SocketAddr, alpn: &[u8], mesh: MeshId) -> Result<Connection, ConnectError> {
        let dialling = Dialling { quinn: &self.quinn, options: &self.options, congestion: &self.congestion, address };
        let dialled = dialling.dial(alpn, None, Trust::of_mesh(mesh), None);
        tokio::time::timeout(self.options.handshake_timeout, dialled).await.unwrap_or(Err(ConnectError::TimedOut))
    }

    /// Moves to another local address; connections go on from there.
    pub fn rebind(&self, listen: SocketAddr) -> io::Result<()> {
        self.quinn.rebind(transport::bind(listen, self.options.socket_buffer_bytes)?)
    }

    /// Ends all connections.
    pub fn close(&self, code: CloseCode, reason: &str) {
        self.congestion.closing();
        self.quinn.close(code.into(), reason.as_bytes());
    }

    /// Waits until the peers have been told of closed connections.
    pub async fn wait_idle(&self) {
        self.quinn.wait_idle().await;
    }
}

impl fmt::Debug for ClientEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientEndpoint(at {:?})", self.quinn.local_addr().ok())
    }
}

/// From where to where.
struct Dialling<'a> {
    quinn: &'a quinn::Endpoint,
    options: &'a Options,
    congestion: &'a LastWord,
    address: SocketAddr,
}

impl Dialling<'_> {
    async fn dial(
        &self,
        alpn: &[u8],
        identity: Option<&Identity>,
        trust: Trust,
        expected: Option<NodeId>,
    ) -> Result<Connection, ConnectError> {
        let name = mesh_name(trust.mesh());
        let (config, refusal) = self.config(alpn, identity, trust, expected).map_err(ConnectError::Here)?;
        let connecting = self.quinn.connect_with(config, self.address, &name).map_err(|error| match error {
            quinn::ConnectError::InvalidRemoteAddress(address) => ConnectError::Address(address.to_string()),
            other => ConnectError::Here(other.to_string()),
        })?;
        connecting.await.map_err(|error| match refusal.take() {
            Some(refused) => ConnectError::Trust(refused),
            None => ConnectError::of_connection(&error),
        })
    }

    fn config(
        &self,
        alpn: &[u8],
        identity: Option<&Identity>,
        trust: Trust,
        expected: Option<NodeId>,
    ) -> Result<(ClientConfig, Refusal), String> {
        let (tls, refusal) = tls::client_config(alpn, identity, trust, expected).map_err(|error| error.to_string())?;
        let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).map_err(|error| error.to_string())?));
        let purpose = if alpn == ALPN_MESH { Purpose::Mesh } else { Purpose::Client };
        config.transport_config(transport::config(purpose, self.options.keep_alive, self.options.idle_timeout, self.congestion));
        Ok((config, refusal))
    }
}

fn server_config(identity: &Identity, revocations: &Revocations, options: &Options, congestion: &LastWord) -> Result<ServerConfig, String> {
    let tls = tls::server_config(identity, revocations).map_err(|error| error.to_string())?;
    let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).map_err(|error| error.to_string())?));
    config
        .transport_config(transport::config(Purpose::Unknown, options.keep_alive, options.idle_timeout, congestion))
        .migration(true)
        // Arrivals are taken up at once, so few ever wait; what waits may hold a handshake's worth of data.
        .max_incoming(options.handshakes_max.saturating_mul(2))
        .incoming_buffer_size(64 << 10)
        .incoming_buffer_size_total(8 << 20);
    Ok(config)
}

async fn accept_all(
    endpoint: quinn::Endpoint,
    options: Options,
    revocations: Revocations,
    counters: Arc<Counters>,
    arrived: mpsc::Sender<Incoming>,
) {
    let slots = Arc::new(Semaphore::new(options.handshakes_max));
    while let Some(incoming) = endpoint.accept().await {
        let under_way = options.handshakes_max - slots.available_permits();
        if under_way >= options.handshakes_before_retry && !incoming.remote_address_validated() && incoming.may_retry() {
            counters.retried.fetch_add(1, Ordering::Relaxed);
            // Fails only for an address that is validated already.
            let _ = incoming.retry();
            continue;
        }
        let Ok(slot) = slots.clone().try_acquire_owned() else {
            counters.refused.fetch_add(1, Ordering::Relaxed);
            incoming.refuse();
            continue;
        };
        tokio::spawn(take_up(incoming, options.handshake_timeout, revocations.clone(), counters.clone(), arrived.clone(), slot));
    }
}

async fn take_up(
    incoming: quinn::Incoming,
    timeout: Duration,
    revocations: Revocations,
    counters: Arc<Counters>,
    arrived: mpsc::Sender<Incoming>,
    slot: OwnedSemaphorePermit,
) {
    let from = incoming.remote_address();
    let taken = tokio::time::timeout(timeout, handshake(incoming, &revocations)).await.unwrap_or(Err(Closed::TimedOut));
    match taken {
        Ok(incoming) => {
            counters.accepted.fetch_add(1, Ordering::Relaxed);
            // Fails only when the endpoint is gone, and then so is the arrival.
            let _ = arrived.send(incoming).await;
        }
        Err(reason) => {
            counters.failed.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(%from, %reason, "connection not accepted");
        }
    }
    drop(slot);
}

async fn handshake(incoming: quinn::Incoming, revocations: &Revocations) -> Result<Incoming, Closed> {
    let ended = |error: ConnectionError| Closed::from_error(&error, None);
    let connection = incoming.accept().map_err(ended)?.await.map_err(ended)?;
    if let Some(reason) = peer_of(&connection).and_then(|peer| revocations.said_to(peer)) {
        congestion::close(&connection, CloseCode::Revoked, &reason);
        return Err(Closed::Here { code: CloseCode::Revoked, reason });
    }
    let data = connection.handshake_data().and_then(|data| data.downcast::<HandshakeData>().ok());
    match data.and_then(|data| data.protocol).as_deref() {
        Some(ALPN_MESH) => match peer_of(&connection) {
            Some(peer) => {
                connection.set_max_concurrent_uni_streams(VarInt::from_u32(LANES_MAX as u32));
                connection.set_max_concurrent_bi_streams(VarInt::from_u32(0));
                MeshConnection::accepted(connection, peer).await.map(Incoming::Mesh).map_err(ended)
            }
            None => {
                let (code, reason) = (CloseCode::NoCertificate, "a mesh link needs a node certificate; join the mesh with a ticket first");
                congestion::close(&connection, code, reason);
                Err(Closed::Here { code, reason: reason.into() })
            }
        },
        Some(ALPN_CLIENT) => {
            connection.set_max_concurrent_uni_streams(VarInt::from_u32(CLIENT_STREAMS_MAX));
            connection.set_max_concurrent_bi_streams(VarInt::from_u32(CLIENT_STREAMS_MAX));
            connection.set_send_window(SEND_WINDOW_BYTES_CLIENT);
            Ok(Incoming::Client(connection))
        }
        Some(ALPN_JOIN) => {
            let certified = peer_of(&connection);
            JoinRequest::read(connection, certified).await.map(Incoming::Join)
        }
        // TLS has already refused every other protocol.
        _ => Err(Closed::Transport("the handshake agreed on no protocol".into())),
    }
}

/// The node whose certificate the handshake has verified.
fn peer_of(connection: &Connection) -> Option<NodeId> {
    let chain = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    tls::key_of(chain.first()?).ok().map(|key| key.node())
}
