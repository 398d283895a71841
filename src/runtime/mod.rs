//! The node on a real machine: clocks, disk, sockets, and the loop that ties them to [`crate::node::Node`].
//!
//! - [`init`] and [`join`] make a data directory; [`Running`] is a node that runs over one.
//! - `drive` is the loop; `dial`, `gateway` are the tasks around it; `clock` is where time enters.
//!
//! A data directory holds `vault/` (identity, boot counter, tickets: never quarantined), `data/` (everything replicated, which can be learned again
//! from peers), `operator.toml` (the operator's credential, mode 0600) and, if you write one, `mangrove.toml`.

mod attempts;
pub(crate) mod clock;
mod dial;
mod drive;
mod gateway;
mod tokens;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use mangrove_crdt::id::{Incarnation, MeshId, NodeId, Origin};
use mangrove_crdt::persist::Table;
use mangrove_crdt::replica::{LoadError, Loading, Replica};
use mangrove_net::link::LinkOptions;
use mangrove_net::mesh::Pace;
use mangrove_net::quic::{Applicant, ClientEndpoint, Endpoint, Identity, IdentityError, Incoming, JoinError, Options, Revocations, Ticket};
use tokio::io::DuplexStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use zeroize::Zeroizing;

use self::clock::{now, unix_s};
use self::dial::{Dialers, Dialling};
use self::drive::{Command, Drive, ROOM_AGAIN_BYTES};
use self::gateway::Admission;
use self::tokens::TokenKeys;
use crate::client::{Credential, CredentialError, Token};
use crate::config::{Config, Hold};
use crate::node::{Authenticator, Node, NodeConfig};
use crate::passwords;
use crate::store::{DataDir, DiskOptions, DiskStore, Limit, Opened, Store, StoreError, Vault, VaultState, Writer, WriterOptions};

/// The names of the vault's entries.
mod vault_names {
    /// The node's keys and certificates.
    pub const IDENTITY: &str = "identity";
    /// The keys of a node that has not been admitted yet.
    pub const APPLICANT: &str = "applicant";
    /// The hash of the operator's token.
    pub const OPERATOR: &str = "operator";
    /// The operator's token itself, so that the credential file can be written anew.
    pub const TOKEN: &str = "token";
    /// The tickets that were issued.
    pub const TICKETS: &str = "tickets";
    /// The node's name.
    pub const NAME: &str = "name";
    /// There if the node has left its mesh.
    pub const LEFT: &str = "left";
    /// What is first said of who may do what, until that is on the disk.
    pub const FOUNDING: &str = "founding";
}
use vault_names::{APPLICANT, FOUNDING, IDENTITY, LEFT, NAME, OPERATOR, TOKEN};

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitReport {
    /// The node.
    pub node: NodeId,
    /// Its name.
    pub name: String,
    /// Its mesh.
    pub mesh: MeshId,
    /// Of a mesh that was founded, the password of its administrator, [`ADMINISTRATOR`]. It is kept nowhere.
    pub password: Option<Zeroizing<String>>,
}

/// The principal that a mesh begins with.
pub const ADMINISTRATOR: &str = "admin";

/// Why a node was not made or not started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The directory holds a node already.
    #[error("{0} holds a node already; start it with: mangrove up")]
    Exists(PathBuf),
    /// The directory holds no node.
    #[error("{0} holds no node; make one with: mangrove init, or: mangrove join TICKET")]
    NoNode(PathBuf),
    /// The node was never admitted to its mesh.
    #[error("{0} holds a node that was never admitted; join again with the same ticket")]
    NotAdmitted(PathBuf),
    /// The node is out of its mesh for good.
    #[error("the node in {0} has left its mesh; to come back, join anew in an empty directory")]
    Left(PathBuf),
    /// Disk and directory.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The stored keys or certificates.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The ticket cannot be read.
    #[error("the ticket is not valid: {0}")]
    Ticket(String),
    /// The mesh did not admit the node.
    #[error("joining failed: {0}")]
    Join(#[from] JoinError),
    /// The credential file.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// The socket.
    #[error("cannot listen at {address}: {error}; choose another with --listen")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        error: std::io::Error,
    },
    /// The data were written by a newer version.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A key of the configuration's `token_keys`.
    #[error("token_keys: {0}")]
    TokenKeys(String),
    /// The system gave no randomness or no thread.
    #[error("the system refused: {0}")]
    System(String),
}

/// Makes a mesh of one node in a data directory.
pub fn init(data: &Path, config: &Config, name: Option<&str>) -> Result<InitReport, StartError> {
    let dir = DataDir::open(data)?;
    if dir.has_vault() {
        return Err(StartError::Exists(data.to_owned()));
    }
    let identity = Identity::found(unix_s())?;
    let name = node_name(name, config, identity.node());
    let token = random::<32>()?;
    let password = passwords::draw().map_err(StartError::System)?;
    let hash = passwords::hash(password.as_bytes()).map_err(StartError::System)?;
    dir.create_vault(&[
        (IDENTITY, &identity.to_bytes()),
        (TOKEN, &token),
        (OPERATOR, blake3::hash(&token).as_bytes()),
        (NAME, name.as_bytes()),
        (FOUNDING, founding(&hash).as_bytes()),
    ])?;
    write_credential(data, config.listen, identity.mesh(), token)?;
    Ok(InitReport { node: identity.node(), name, mesh: identity.mesh(), password: Some(password) })
}

/// What is first said of who may do what: that there is an administrator, who may do everything.
fn founding(hash: &str) -> String {
    format!(
        "role administrator global all\n\
         role administrator default all\n\
         principal {ADMINISTRATOR} password {hash}\n\
         principal {ADMINISTRATOR} roles administrator\n"
    )
}

/// Makes a node in a data directory that joins the mesh of a ticket. If it is interrupted it can be repeated with the same ticket.
pub async fn join(data: &Path, config: &Config, ticket: &str, name: Option<&str>) -> Result<InitReport, StartError> {
    let ticket: Ticket = ticket.parse().map_err(|error| StartError::Ticket(format!("{error}")))?;
    let dir = DataDir::open(data)?;
    let mut vault = if dir.has_vault() {
        let (vault, _) = dir.open_vault()?;
        if vault.get(IDENTITY).is_some() {
            return Err(StartError::Exists(data.to_owned()));
        }
        vault
    } else {
        let applicant = Applicant::new(ticket.role).map_err(IdentityError::from)?;
        let token = random::<32>()?;
        let applicant = minicbor::to_vec(&applicant).expect("encoding to memory");
        dir.create_vault(&[(APPLICANT, &applicant), (TOKEN, &token), (OPERATOR, blake3::hash(&token).as_bytes())])?
    };
    let stored = vault.get(APPLICANT).ok_or_else(|| StartError::NotAdmitted(data.to_owned()))?;
    let applicant: Applicant =
        minicbor::decode(stored).map_err(|error| StartError::System(format!("the stored keys cannot be read: {error}")))?;
    let name = node_name(name, config, applicant.node().map_err(IdentityError::from)?);
    let endpoint = ClientEndpoint::bind(Options::default()).map_err(|error| StartError::System(error.to_string()))?;
    let identity = mangrove_net::quic::join::join(&endpoint, &ticket, &applicant, &name).await?;
    // Where the others are is learned from them, but somebody has to be asked first.
    let seeds = minicbor::to_vec(&ticket.addresses).expect("encoding to memory");
    vault.put_all(&[(IDENTITY, Some(&identity.to_bytes())), (NAME, Some(name.as_bytes())), (SEEDS, Some(&seeds)), (APPLICANT, None)])?;
    let token = vault.get(TOKEN).and_then(|token| <[u8; 32]>::try_from(token).ok()).unwrap_or_default();
    write_credential(data, config.listen, identity.mesh(), token)?;
    Ok(InitReport { node: identity.node(), name, mesh: identity.mesh(), password: None })
}

/// The addresses of the ticket that this node joined by: dialled like configured peers.
const SEEDS: &str = "seeds";

fn node_name(name: Option<&str>, config: &Config, node: NodeId) -> String {
    let given = name.map(str::to_owned).or_else(|| (!config.name.is_empty()).then(|| config.name.clone()));
    given.unwrap_or_else(|| format!("node-{}", node.short()))
}

fn random<const N: usize>() -> Result<[u8; N], StartError> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| StartError::System(error.to_string()))?;
    Ok(bytes)
}

/// Where a client on this machine finds a node that listens there.
fn reachable_here(listen: SocketAddr) -> SocketAddr {
    match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => (std::net::Ipv4Addr::LOCALHOST, listen.port()).into(),
        IpAddr::V6(ip) if ip.is_unspecified() => (std::net::Ipv4Addr::LOCALHOST, listen.port()).into(),
        _ => listen,
    }
}

fn write_credential(data: &Path, listen: SocketAddr, mesh: MeshId, token: [u8; 32]) -> Result<(), StartError> {
    let credential = Credential { node: reachable_here(listen).to_string(), mesh, proof: Token::new(token).into() };
    Ok(credential.write(&data.join("operator.toml"))?)
}

/// A node that runs in this process.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    node: NodeId,
    mesh: MeshId,
    name: String,
    commands: mpsc::UnboundedSender<Command>,
    task: Mutex<Option<JoinHandle<Result<(), StoreError>>>>,
    ended: watch::Receiver<Option<Result<(), StoreError>>>,
}

impl Running {
    /// Starts the node of a data directory. It serves clients when this returns; it finds its neighbours meanwhile.
    pub async fn start(data: &Path, config: &Config) -> Result<Running, StartError> {
        let dir = DataDir::open(data)?;
        if !dir.has_vault() {
            return Err(StartError::NoNode(data.to_owned()));
        }
        let (mut vault, state) = dir.open_vault()?;
        if let VaultState::Healed { path, what } = state {
            tracing::warn!(path = %path.display(), what, "one copy of the vault was damaged and has been written anew; the disk may be failing");
        }
        let Some(identity) = vault.get(IDENTITY) else { return Err(StartError::NotAdmitted(data.to_owned())) };
        let identity = Identity::from_bytes(identity)?;
        if vault.get(LEFT).is_some() {
            return Err(StartError::Left(data.to_owned()));
        }
        // Durable before anything else happens: no number is ever given twice.
        let boot = vault.next_boot()?;
        let incarnation = Incarnation { boot, nonce: u64::from_be_bytes(random()?) };
        let origin = Origin { node: identity.node(), incarnation };
        let tokens = TokenKeys::read(&config.token_keys, &config.token_audience).map_err(StartError::TokenKeys)?;
        let (replica, store) = open_data(&dir, config, origin)?;

        let endpoint = listen(config, &identity)?;
        let address = endpoint.local_address().map_err(|error| StartError::Listen { address: config.listen, error })?;
        let token = vault.get(TOKEN).and_then(|token| <[u8; 32]>::try_from(token).ok());
        if let Some(token) = token {
            write_credential(data, address, identity.mesh(), token)?;
        }
        let stored_name = vault.get(NAME).and_then(|name| String::from_utf8(name.to_vec()).ok());
        let name = if config.name.is_empty() { stored_name.unwrap_or_else(|| identity.node().short()) } else { config.name.clone() };
        let node = Node::new(now(), node_config(config, &identity, &vault, name.clone(), address), replica);

        let (commands, received) = mpsc::unbounded_channel();
        let reports = commands.clone();
        let options = WriterOptions { room_wanted_bytes: ROOM_AGAIN_BYTES, ..WriterOptions::default() };
        let writer = Writer::start(store, options, move |report| {
            // After the loop has ended nobody waits for it.
            let _ = reports.send(Command::Store(report));
        })
        .map_err(|error| StartError::System(error.to_string()))?;
        let (linked_in, linked) = watch::channel(Arc::new(BTreeSet::new()));
        let dialling = Dialling { endpoint: endpoint.clone(), commands: commands.clone(), linked, seed: u64::from_be_bytes(random()?) };
        let accepting = tokio::spawn(accept(endpoint.clone(), commands.clone()));
        let drive = Drive::new(
            node,
            config.clone(),
            endpoint,
            vault,
            writer,
            Dialers::new(dialling),
            received,
            commands.clone(),
            linked_in,
            Arc::new(tokens),
        );
        let (ended_in, ended) = watch::channel(None);
        let task = tokio::spawn(async move {
            let result = drive.run().await;
            accepting.abort();
            ended_in.send_replace(Some(result.clone()));
            result
        });
        tracing::info!(name, node = %origin.node, boot, %address, "the node runs");
        Ok(Running { address, node: origin.node, mesh: identity.mesh(), name, commands, task: Mutex::new(Some(task)), ended })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its id.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// Its mesh.
    pub fn mesh(&self) -> MeshId {
        self.mesh
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A stream to the node from inside this process, with the rights of the operator: the same protocol, the one write path.
    pub fn stream(&self) -> DuplexStream {
        let (inside, outside) = tokio::io::duplex(1 << 20);
        let (read, write) = tokio::io::split(inside);
        tokio::spawn(gateway::serve(read, write, self.commands.clone(), Admission::Inside));
        outside
    }

    /// Waits until the node has ended by itself: it left its mesh, or was told to.
    pub async fn finished(&self) -> Result<(), StoreError> {
        let mut ended = self.ended.clone();
        match ended.wait_for(Option::is_some).await {
            Ok(result) => result.clone().unwrap_or(Ok(())),
            Err(_) => Ok(()),
        }
    }

    /// Ends the node: stores what is left, tells neighbours and clients.
    pub async fn shutdown(&self) -> Result<(), StoreError> {
        let _ = self.commands.send(Command::Stop);
        let task = self.task.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        match task {
            Some(task) => task.await.unwrap_or(Ok(())),
            None => self.finished().await,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.commands.send(Command::Stop);
    }
}

fn listen(config: &Config, identity: &Identity) -> Result<Endpoint, StartError> {
    let bind = |address| Endpoint::bind(address, identity, Revocations::default(), Options::default());
    let unspecified_v6 = config.listen.is_ipv6() && config.listen.ip().is_unspecified();
    match bind(config.listen) {
        // A machine without IPv6.
        Err(_) if unspecified_v6 => {
            let address = SocketAddr::from((std::net::Ipv4Addr::UNSPECIFIED, config.listen.port()));
            bind(address).map_err(|error| StartError::Listen { address, error })
        }
        result => result.map_err(|error| StartError::Listen { address: config.listen, error }),
    }
}

/// Opens the store and loads the replica. Damaged data are set aside, and learned again from peers.
fn open_data(dir: &DataDir, config: &Config, origin: Origin) -> Result<(Replica, DiskStore), StartError> {
    let limit = if config.disk_max_bytes == 0 { Limit::NONE } else { Limit::of(config.disk_max_bytes) };
    let (mut store, opened) = dir.open_store(DiskOptions { limit, ..DiskOptions::default() })?;
    if let Opened::Quarantined { path, reason } = &opened {
        tracing::error!(path = %path.display(), reason, "the data were damaged and set aside; learning them again from peers");
    }
    if let Opened::Existing { torn_bytes: bytes @ 1.. } = opened {
        tracing::info!(
            bytes,
            "the last run ended in the middle of a batch, which was cut off; nothing in it was acknowledged as on the disk"
        );
    }
    let why = match load(&store, origin) {
        Ok(Ok(replica)) => return Ok((replica, store)),
        Ok(Err(error @ LoadError::Format { .. })) => return Err(error.into()),
        Ok(Err(error)) => error.to_string(),
        Err(error @ StoreError::Corrupt { .. }) => error.to_string(),
        Err(error) => return Err(error.into()),
    };
    let opened = store.quarantine(&why)?;
    if let Opened::Quarantined { path, reason } = opened {
        tracing::error!(path = %path.display(), reason, "the data were damaged and set aside; learning them again from peers");
    }
    Ok((Replica::new(origin), store))
}

/// Loads the replica row by row: what the store holds may be as much as the memory.
fn load(store: &impl Store, origin: Origin) -> Result<Result<Replica, LoadError>, StoreError> {
    let mut loading = Ok(Loading::new(origin));
    for table in Table::ALL {
        store.scan(table, &[], &mut |key, value| {
            let failed = loading.as_mut().ok().and_then(|loading| loading.row(table, key, value).err());
            if let Some(error) = failed {
                loading = Err(error);
            }
        })?;
    }
    Ok(loading.and_then(Loading::finish))
}

fn node_config(config: &Config, identity: &Identity, vault: &Vault, name: String, address: SocketAddr) -> NodeConfig {
    let ticket_seeds: Vec<String> = vault.get(SEEDS).and_then(|bytes| minicbor::decode(bytes).ok()).unwrap_or_default();
    NodeConfig {
        mesh: identity.mesh(),
        name,
        addresses: advertised(config, address),
        seeds: config.peers.iter().cloned().chain(ticket_seeds).collect(),
        authority: identity.authority().and_then(|authority| authority.id().ok()).map(|id| id.0),
        expires_s: identity.expires(),
        hold: match &config.hold {
            Hold::All => crate::node::Hold::All,
            Hold::Sections(roots) => crate::node::Hold::Roots(roots.iter().cloned().collect()),
        },
        pace: Pace { pulse: config.pulse, ..Pace::default() },
        retention: config.retention,
        lease: config.lease,
        drift_ppm: config.drift_ppm,
        settle: config.settle,
        hold_grants: config.hold_grants,
        reconnect_timeout: config.reconnect_timeout,
        presume_dead: config.presume_dead,
        authentication: config.authentication.iter().map(|name| authenticator(name)).collect(),
        handler_timeout: config.handler_timeout,
        founding: vault.get(FOUNDING).and_then(|script| String::from_utf8(script.to_vec()).ok()),
        neighbours_max: config.neighbours_max,
        links: config
            .links
            .iter()
            .map(|(name, link)| {
                let rate = (link.rate_max_bytes_per_s > 0).then_some(link.rate_max_bytes_per_s);
                (name.clone(), LinkOptions { rate_max_bytes_per_s: rate, metered: link.metered })
            })
            .collect::<BTreeMap<_, _>>(),
    }
}

/// Whom a name in the configuration means who judges logins.
fn authenticator(name: &str) -> Authenticator {
    match name {
        "store" => Authenticator::Store,
        "tokens" => Authenticator::Tokens,
        name => Authenticator::Handler(name.into()),
    }
}

/// Where others can dial this node.
fn advertised(config: &Config, address: SocketAddr) -> Vec<String> {
    if config.dial_only {
        return Vec::new();
    }
    if !config.advertise.is_empty() {
        return config.advertise.clone();
    }
    if !address.ip().is_unspecified() {
        return vec![address.to_string()];
    }
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let usable = |ip: &IpAddr| match ip {
        IpAddr::V4(ip) => !ip.is_link_local(),
        // Link-local addresses mean nothing without naming an interface.
        IpAddr::V6(ip) => address.is_ipv6() && (ip.segments()[0] & 0xffc0) != 0xfe80,
    };
    let (here, elsewhere): (Vec<IpAddr>, Vec<IpAddr>) =
        interfaces.into_iter().map(|interface| interface.ip()).filter(usable).partition(IpAddr::is_loopback);
    let ips = if elsewhere.is_empty() { here } else { elsewhere };
    ips.into_iter().map(|ip| SocketAddr::from((ip, address.port())).to_string()).collect()
}

/// Hands over whoever comes.
async fn accept(endpoint: Endpoint, commands: mpsc::UnboundedSender<Command>) {
    while let Some(incoming) = endpoint.accept().await {
        match incoming {
            Incoming::Mesh(connection) => {
                if commands.send(Command::Linked(connection, None)).is_err() {
                    return;
                }
            }
            Incoming::Join(request) => {
                if commands.send(Command::Join(request)).is_err() {
                    return;
                }
            }
            Incoming::Client(connection) => {
                let commands = commands.clone();
                let address = connection.remote_address().ip();
                tokio::spawn(async move {
                    let Ok((write, read)) = connection.accept_bi().await else { return };
                    // How a client's stream ends is the client's affair.
                    let _ = gateway::serve(read, write, commands, Admission::From(address)).await;
                    // The last words have to arrive before the connection is let go.
                    let _ = tokio::time::timeout(std::time::Duration::from_secs(2), connection.closed()).await;
                });
            }
        }
    }
}
