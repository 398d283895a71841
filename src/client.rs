//! The client library: one session with one node.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use mangrove::client::{Client, ClientOptions, Credential};
//!
//! let credential = Credential::read("mangrove-data/operator.toml".as_ref())?;
//! let client = Client::connect(ClientOptions::new(credential)).await?;
//! let mut topics = client.subscribe("?sensors//").await?;
//! loop {
//!     println!("{:?}", topics.next().await?);
//! }
//! # }
//! ```
//!
//! A [`Client`] is a handle that can be cloned and shared; all clones speak over one QUIC stream ([`crate::protocol`]), and any
//! number of requests may be in flight. Two tasks stand behind it: one writes frames, one reads them and hands each to
//! whoever waits for it. When the connection is lost, everything that waits gets [`ClientError::Lost`], and a new `Client` has to be made; unless
//! [`ClientOptions::session`] is given: then the client goes on at another node by itself.
//!
//! ```text
//!   Client, Publisher, Source, Subscription       handles
//!        │ ask                    ▲ answers, updates, states
//!        ▼                        │
//!   session ── link ──▶ wire ──▶ table            what outlives connections; one connection; who waits for what
//!        ▲                                        `followed`: what a subscription has heard, `states`: what sources are
//!        └── recovery: dials, takes up, asks again
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use mangrove_crdt::id::{MeshId, SessionId};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::protocol::{
    Change, Code, DisplacedRow, FRAME_MAX, Finding, HELLO_MAX, Hello, ItemRefusal, LinkRow, ListState, NodeRow, Page, PastRow, Refusal,
    Request, Response, SectionRow, SetBatch, SetItem, Status, Target, TopicDetail, TopicRow, TopicSpec, ValueRow, Welcome, Wish,
};

mod access;
mod blobs;
mod credential;
mod events;
mod followed;
mod handler;
mod listener;
mod messages;
mod paged;
mod publisher;
mod recovery;
mod session;
mod source;
mod states;
mod subscription;
mod table;
#[cfg(test)]
mod tests;
mod wire;

pub use credential::{Credential, CredentialError, Proof, Token};
pub use handler::{AskedLogin, LoginHandler, MissingTopics};
pub use listener::{SessionEvent, SessionListener};
pub use messages::Messages;
pub use publisher::{PublishReport, Publisher};
pub use source::{ClaimOptions, GivenSubscriptions, Source};
pub use subscription::{Heard, Subscription};

use recovery::Recovery;
use session::Session;

/// The port where nodes listen unless they are told otherwise.
pub const PORT: u16 = 4747;

/// How long the end of a session may take to be stored.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// How to reach a node.
#[derive(Debug, Clone)]
pub struct ClientOptions {
    /// `HOST:PORT`, or `HOST` for [`PORT`]. The host is a name or an address; IPv6 addresses with a port stand in brackets.
    pub address: String,
    /// The mesh that the node must prove to be of.
    pub mesh: MeshId,
    /// What the client shows.
    pub proof: Proof,
    /// How to introduce the client, for people who look at the node.
    pub name: String,
    /// How long to try before [`ClientError::Unreachable`].
    pub connect_timeout: Duration,
    /// How many updates of one subscription may be on their way at once: more is faster, and takes more memory.
    pub subscription_window: u32,
    /// How many topics of all subscriptions the node may name by a number instead of its path.
    pub aliases_max: u32,
    /// How many bytes of values to keep of what comes, so that longer ones need not come whole; 0 for none, in either direction.
    pub bases_bytes: u64,
    /// Whether longer values go compressed, in either direction: what comes if its topic lets it, and what goes whatever the properties of its topic, which a client need not know.
    pub compress: bool,
    /// How long an answer may take before [`ClientError::TimedOut`]; `None`: as long as it takes.
    pub request_timeout: Option<Duration>,
    /// If given, the client's session outlives its connection, and its node.
    pub session: Option<SessionOptions>,
}

/// How a client goes on when it loses its node: by itself, with its session, at the first node that takes that up.
///
/// Subscriptions go on from what they have heard: nothing is missing, and nothing comes twice. Sources keep their place, and what they hold they get under a new
/// epoch. What is asked meanwhile waits. What was asked before and not answered is asked again, and writes are done once: a node that has what the lost one has done of
/// them answers, and does not do them again. Only what changes nodes, sections and sessions' own state fails with [`ClientError::Lost`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionOptions {
    /// For how long after a loss the session may be taken up again; `None` for the most that the node allows.
    pub reconnect_timeout: Option<Duration>,
    /// Nodes to try, besides those of which the first node knows, as [`ClientOptions::address`] has them.
    pub nodes: Vec<String>,
    /// Its user properties, by which others may find it. Keys are not empty, have no spaces, quotes or parentheses, and do not begin with `$`.
    pub properties: BTreeMap<String, String>,
    /// After how long a silence the connection is taken for lost.
    pub silence: Duration,
}

impl Default for SessionOptions {
    /// The node's reconnect timeout, the nodes of the mesh, and three seconds of silence.
    fn default() -> Self {
        SessionOptions { reconnect_timeout: None, nodes: Vec::new(), properties: BTreeMap::new(), silence: Duration::from_secs(3) }
    }
}

/// How a client is connected: `Active ⇄ Recovering → Closed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientState {
    /// It has a node.
    Active,
    /// It has lost its node, and looks for another.
    Recovering,
    /// It has no node any more.
    Closed,
}

impl ClientOptions {
    /// The node, mesh and secret of a credential, and defaults.
    pub fn new(credential: Credential) -> Self {
        ClientOptions {
            address: credential.node,
            mesh: credential.mesh,
            proof: credential.proof,
            name: concat!("mangrove ", env!("CARGO_PKG_VERSION")).into(),
            connect_timeout: Duration::from_secs(5),
            subscription_window: 8_192,
            aliases_max: 65_536,
            bases_bytes: crate::protocol::BASES_BYTES,
            compress: true,
            request_timeout: None,
            session: None,
        }
    }

    /// The same for another address.
    #[must_use]
    pub fn at(self, address: impl Into<String>) -> Self {
        ClientOptions { address: address.into(), ..self }
    }
}

/// Why something could not be done. Whether a request that was in flight took effect is known only for [`ClientError::Refused`]: it
/// did not, unless the refusal is [`Code::Doubtful`].
#[derive(Debug, Clone, thiserror::Error)]
pub enum ClientError {
    /// No session came about.
    #[error("cannot reach a node at {address}: {cause}")]
    Unreachable {
        /// Where it was tried.
        address: String,
        /// What happened.
        cause: String,
    },
    /// The connection broke.
    #[error("lost the connection to the node at {address}: {cause}")]
    Lost {
        /// The node's.
        address: String,
        /// What happened.
        cause: String,
    },
    /// The answer did not come in time. It may still be done.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// The node understood and refused.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// The node said what it should not have: it, or this library, has a fault.
    #[error("the node broke the protocol: {0}")]
    Protocol(String),
}

impl ClientError {
    /// What to do about it, where anything can be said.
    pub fn hint(&self) -> Option<String> {
        match self {
            ClientError::Unreachable { .. } => Some("is the node running, and is this its address? `mangrove up` starts one".into()),
            ClientError::Lost { .. } => Some("the node stopped or the network broke; try again".into()),
            ClientError::TimedOut(_) => {
                Some("the node is busy, or waits for other nodes; see whether it was done before trying again".into())
            }
            ClientError::Refused(refusal) if refusal.hint.is_empty() => None,
            ClientError::Refused(refusal) => Some(refusal.hint.clone()),
            ClientError::Protocol(_) => Some("use the same version of mangrove on both sides, and report this".into()),
        }
    }
}

/// What adding topics did.
#[derive(Debug, Clone, PartialEq)]
pub struct AddReport {
    /// How many topics were made.
    pub created: u64,
    /// How many were there, with the same definition.
    pub existed: u64,
    /// Which were refused; `item` is the place in the request.
    pub refused: Vec<ItemRefusal>,
}

/// What writing values did.
#[derive(Debug, Clone, PartialEq)]
pub struct WriteReport {
    /// How many values were written.
    pub written: u64,
    /// How many topics were made for it.
    pub created: u64,
    /// Which were refused; `item` is the place in the request.
    pub refused: Vec<ItemRefusal>,
}

/// What changing a value did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// Whether the topic was made for it.
    pub created: bool,
    /// Whether what must have been so was so without any doubt, and not only as far as the node knew. See [`Response::Changed`].
    pub exact: bool,
    /// The name of the event that it is now, if the topic is a time series.
    pub event: Option<String>,
    /// What the list has come to, if the topic is a paged one.
    pub list: Option<ListState>,
}

impl WriteReport {
    /// Fails with the first refusal, if there is any.
    fn all(self) -> Result<(), ClientError> {
        self.refused.into_iter().next().map_or(Ok(()), |item| Err(item.refusal.into()))
    }
}

/// An open session with a node. Clones share it.
#[derive(Clone)]
pub struct Client {
    session: Arc<Session>,
    subscription_window: u32,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let node = self.session.welcome().map(|welcome| welcome.name.clone());
        f.debug_struct("Client").field("address", &self.session.options.address).field("node", &node).finish_non_exhaustive()
    }
}

impl Client {
    /// Opens a session over QUIC with a node that proves to be of the stated mesh.
    pub async fn connect(options: ClientOptions) -> Result<Client, ClientError> {
        let address = options.address.clone();
        let limit = options.connect_timeout;
        let silence = options.session.as_ref().map(|session| session.silence);
        let opening = async {
            let unreachable = |cause: String| ClientError::Unreachable { address: address.clone(), cause };
            let (connection, send, receive) = wire::dial(&address, options.mesh, silence).await.map_err(unreachable)?;
            Client::open(receive, send, options, Some(connection)).await
        };
        session::within(limit, &address, opening).await
    }

    /// Opens a session over any pair of byte streams, such as a pipe to a node in the same process. Of the options, only the proof, the name and
    /// the limits count; the address is for messages.
    pub(crate) async fn over<R, W>(receive: R, send: W, options: &ClientOptions) -> Result<Client, ClientError>
    where
        R: AsyncRead + Send + Unpin + 'static,
        W: AsyncWrite + Send + Unpin + 'static,
    {
        Client::open(receive, send, options.clone(), None).await
    }

    /// Opens a session; `connection` is kept while it stands.
    async fn open<R, W>(receive: R, send: W, options: ClientOptions, connection: Option<wire::Connection>) -> Result<Client, ClientError>
    where
        R: AsyncRead + Send + Unpin + 'static,
        W: AsyncWrite + Send + Unpin + 'static,
    {
        let subscription_window = options.subscription_window.max(1);
        let recovery = options.session.clone().map(Recovery::new);
        let (session, lost) = Session::new(options, recovery);
        let address = session.options.address.clone();
        let (number, wire) = session.open_wire(&address, (receive, send), None, connection).await?;
        session.up(wire);
        session.watch(number, lost);
        let client = Client { session, subscription_window };
        if let Some(recovery) = &client.session.recovery {
            let SessionOptions { reconnect_timeout, properties, .. } = &recovery.options;
            recovery.note(&client.open_session_with(*reconnect_timeout, properties.clone()).await?);
        }
        Ok(client)
    }

    /// How the node introduced itself: the last one, if the client goes on elsewhere.
    ///
    /// # Panics
    /// Never: a client has been connected.
    pub fn welcome(&self) -> Arc<Welcome> {
        self.session.welcome().expect("a client has been connected")
    }

    /// How it is connected.
    pub fn state(&self) -> ClientState {
        self.session.link.borrow().state()
    }

    /// Waits until it is connected in another way than this, and says how.
    pub async fn changed(&self, from: ClientState) -> ClientState {
        let mut link = self.session.link.subscribe();
        // The sender is kept by the session.
        let _ = link.wait_for(|link| link.state() != from).await;
        self.state()
    }

    /// The session's id, if the client goes on elsewhere ([`SessionOptions`]).
    pub fn session_id(&self) -> Option<SessionId> {
        self.session.recovery.as_ref().map(Recovery::id)
    }

    /// Ends the connection, after what has been sent so far has reached the node, and with it the session, unless that was opened by hand to outlive it
    /// ([`Client::open_session`]).
    pub async fn close(self) {
        if self.session.recovery.is_some() && self.state() == ClientState::Active {
            // If it cannot be said, the session ends when nobody comes back to it.
            let _ = tokio::time::timeout(CLOSE_WITHIN, self.close_session()).await;
        }
        self.session.close().await;
    }

    /// Asks anything, and gives the answer as it is unless it is a refusal.
    pub async fn request(&self, request: Request) -> Result<Response, ClientError> {
        match self.session.ask(request).await?.answer().await? {
            Response::Refused(refusal) => Err(refusal.into()),
            response => Ok(response),
        }
    }

    async fn done(&self, request: Request) -> Result<(), ClientError> {
        match self.request(request).await? {
            Response::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    async fn section(&self, request: Request) -> Result<SectionRow, ClientError> {
        match self.request(request).await? {
            Response::Section(row) => Ok(*row),
            other => Err(unexpected(&other)),
        }
    }

    /// How the node is.
    pub async fn status(&self) -> Result<Status, ClientError> {
        match self.request(Request::Status).await? {
            Response::Status(status) => Ok(*status),
            other => Err(unexpected(&other)),
        }
    }

    /// All nodes of the mesh, as this node knows them.
    pub async fn nodes(&self) -> Result<Vec<NodeRow>, ClientError> {
        match self.request(Request::Nodes).await? {
            Response::Nodes(rows) => Ok(rows),
            other => Err(unexpected(&other)),
        }
    }

    /// Shuts a node out of the mesh for ever. Its name, id, or enough first digits of its id name it.
    pub async fn revoke(&self, node: &str) -> Result<(), ClientError> {
        self.done(Request::NodeRevoke { node: node.into() }).await
    }

    /// Renames the node.
    pub async fn rename(&self, name: &str) -> Result<(), ClientError> {
        self.done(Request::NodeRename { name: name.into() }).await
    }

    /// Takes the node out of its mesh. `force`: even if something is lost with it.
    pub async fn leave(&self, force: bool) -> Result<(), ClientError> {
        self.done(Request::NodeLeave { force }).await
    }

    /// The node's links to its neighbours.
    pub async fn links(&self) -> Result<Vec<LinkRow>, ClientError> {
        match self.request(Request::Links).await? {
            Response::Links(rows) => Ok(rows),
            other => Err(unexpected(&other)),
        }
    }

    /// Makes the node keep away from another, or stops it doing so.
    pub async fn block(&self, node: &str, blocked: bool) -> Result<(), ClientError> {
        self.done(Request::LinkBlock { node: node.into(), blocked }).await
    }

    /// Declares a section.
    pub async fn section_add(&self, root: &str, properties: BTreeMap<String, String>) -> Result<SectionRow, ClientError> {
        self.section(Request::SectionAdd { root: root.into(), properties }).await
    }

    /// All sections of the mesh.
    pub async fn sections(&self) -> Result<Vec<SectionRow>, ClientError> {
        match self.request(Request::Sections).await? {
            Response::Sections(rows) => Ok(rows),
            other => Err(unexpected(&other)),
        }
    }

    /// One section.
    pub async fn section_show(&self, root: &str) -> Result<SectionRow, ClientError> {
        self.section(Request::SectionShow { root: root.into() }).await
    }

    /// Changes a section's policy.
    pub async fn section_set(&self, root: &str, properties: BTreeMap<String, String>) -> Result<SectionRow, ClientError> {
        self.section(Request::SectionSet { root: root.into(), properties }).await
    }

    /// Makes a section's topics local again.
    pub async fn section_remove(&self, root: &str) -> Result<(), ClientError> {
        self.done(Request::SectionRemove { root: root.into() }).await
    }

    /// Makes the node hold a section.
    pub async fn section_hold(&self, root: &str) -> Result<SectionRow, ClientError> {
        self.section(Request::SectionHold { root: root.into() }).await
    }

    /// Makes the node forget a section. `force`: even if nobody else is known to hold it.
    pub async fn section_drop(&self, root: &str, force: bool) -> Result<(), ClientError> {
        self.done(Request::SectionDrop { root: root.into(), force }).await
    }

    /// Makes topics of one definition; at most [`protocol::ITEMS_MAX`] at once.
    pub async fn add_topics(&self, topic: TopicSpec, paths: Vec<String>) -> Result<AddReport, ClientError> {
        match self.request(Request::TopicsAdd { topic, paths }).await? {
            Response::Added { created, existed, refused } => Ok(AddReport { created, existed, refused }),
            other => Err(unexpected(&other)),
        }
    }

    /// Makes one topic; `true` if it was not there before.
    pub async fn add_topic(&self, path: &str, topic: TopicSpec) -> Result<bool, ClientError> {
        let report = self.add_topics(topic, vec![path.into()]).await?;
        match report.refused.into_iter().next() {
            Some(item) => Err(item.refusal.into()),
            None => Ok(report.created > 0),
        }
    }

    /// Removes all topics that a selector matches now; their number. `force`: even those of branches that another session has claimed.
    pub async fn remove_topics(&self, selector: &str, force: bool) -> Result<u64, ClientError> {
        match self.request(Request::TopicsRemove { selector: selector.into(), force }).await? {
            Response::Removed { topics } => Ok(topics),
            other => Err(unexpected(&other)),
        }
    }

    /// A page of the topics that a selector matches, and where the next one starts.
    pub async fn topics(&self, selector: &str, page: Page) -> Result<(Vec<TopicRow>, Option<String>), ClientError> {
        self.list_topics(Request::Topics { selector: selector.into(), page, pending: false }).await
    }

    /// The same of slaves that wait for their master on the client's node.
    pub async fn pending_topics(&self, selector: &str, page: Page) -> Result<(Vec<TopicRow>, Option<String>), ClientError> {
        self.list_topics(Request::Topics { selector: selector.into(), page, pending: true }).await
    }

    async fn list_topics(&self, request: Request) -> Result<(Vec<TopicRow>, Option<String>), ClientError> {
        match self.request(request).await? {
            Response::Topics { rows, next } => Ok((rows, next)),
            other => Err(unexpected(&other)),
        }
    }

    /// Everything about one topic.
    pub async fn topic(&self, path: &str) -> Result<TopicDetail, ClientError> {
        match self.request(Request::TopicShow { path: path.into() }).await? {
            Response::Topic(detail) => Ok(*detail),
            other => Err(unexpected(&other)),
        }
    }

    /// Who made and removed topics at a path, the newest last, as far as the node's section remembers; and whether there was more than is told.
    pub async fn topic_past(&self, path: &str) -> Result<(Vec<PastRow>, bool), ClientError> {
        match self.request(Request::TopicPast { path: path.into() }).await? {
            Response::TopicPast { rows, cut } => Ok((rows, cut)),
            other => Err(unexpected(&other)),
        }
    }

    /// Writes one value: bytes of the topic's type. With `add`, makes the topic if it is missing.
    pub async fn set(&self, path: &str, value: Vec<u8>, add: Option<TopicSpec>) -> Result<(), ClientError> {
        let items = vec![SetItem::new(Target::Path(path.into()), value)];
        self.set_all(SetBatch { items, add, durability: None, under: None }).await?.all()
    }

    /// Writes values in one request. Its targets must be paths: numbers belong to [`Client::publisher`].
    pub async fn set_all(&self, batch: SetBatch) -> Result<WriteReport, ClientError> {
        if batch.items.iter().any(|item| !matches!(item.target, Target::Path(_))) {
            let why = "only a publisher may use aliases";
            return Err(Refusal::new(Code::InvalidRequest, "the batch", why).into());
        }
        write_report(self.request(Request::Set(batch)).await?)
    }

    /// Changes one topic's value if something is so.
    ///
    /// # Errors
    /// [`Code::ConstraintUnmet`] if it is not, [`Code::PatchFailed`] if a patch cannot be applied to what is there, and as any write.
    pub async fn change(&self, change: Change) -> Result<Changed, ClientError> {
        match self.request(Request::Change(Box::new(change))).await? {
            Response::Changed { created, exact, event, list } => Ok(Changed { created, exact, event, list }),
            other => Err(unexpected(&other)),
        }
    }

    /// Changes a `json` topic's value by a JSON Patch (RFC 6902), all of it or nothing.
    pub async fn patch(&self, path: &str, patch: &serde_json::Value) -> Result<Changed, ClientError> {
        self.change(Change::new(path, Wish::Patch(patch.to_string()))).await
    }

    /// Changes a `custom` topic's value by a delta that its module takes (see [`Custom::delta`](mangrove_crdt::custom::Custom::delta)), all of it or nothing.
    pub async fn patch_custom(&self, path: &str, delta: Vec<u8>) -> Result<Changed, ClientError> {
        self.change(Change::new(path, Wish::Delta(delta))).await
    }

    /// A page of the values of the topics that a selector matches, and where the next one starts.
    pub async fn values(&self, selector: &str, page: Page) -> Result<(Vec<ValueRow>, Option<String>), ClientError> {
        match self.request(Request::Values { selector: selector.into(), page }).await? {
            Response::Values { rows, next } => Ok((rows, next)),
            other => Err(unexpected(&other)),
        }
    }

    /// Subscribes to the topics that a selector matches, now and later.
    pub async fn subscribe(&self, selector: &str) -> Result<Subscription, ClientError> {
        Subscription::open(self, selector, false, self.subscription_window).await
    }

    /// The same, each value with its stamp and time.
    pub async fn subscribe_with_stamps(&self, selector: &str) -> Result<Subscription, ClientError> {
        Subscription::open(self, selector, true, self.subscription_window).await
    }

    /// Writes many values fast: batches them, names paths once, and keeps several batches in flight. Topics that are missing are made
    /// with `add`, if given.
    pub fn publisher(&self, add: Option<TopicSpec>) -> Publisher {
        Publisher::new(Arc::clone(&self.session), add, None)
    }

    /// A page of displaced values, and where the next one starts.
    pub async fn displaced(&self, selector: &str, page: Page) -> Result<(Vec<DisplacedRow>, Option<String>), ClientError> {
        match self.request(Request::Displaced { selector: selector.into(), page }).await? {
            Response::Displaced { rows, next } => Ok((rows, next)),
            other => Err(unexpected(&other)),
        }
    }

    /// One displaced value: the entry, and the value's bytes.
    pub async fn displaced_show(&self, id: &str) -> Result<(DisplacedRow, Vec<u8>), ClientError> {
        match self.request(Request::DisplacedShow { id: id.into() }).await? {
            Response::DisplacedValue { row, value } => Ok((*row, value)),
            other => Err(unexpected(&other)),
        }
    }

    /// Writes a displaced value again, as new.
    pub async fn displaced_restore(&self, id: &str) -> Result<(), ClientError> {
        self.done(Request::DisplacedRestore { id: id.into() }).await
    }

    /// A ticket with which one node may join, and when it stops being good (milliseconds since 1970).
    pub async fn invite(&self, role: &str, ttl: Duration) -> Result<(String, u64), ClientError> {
        let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        match self.request(Request::Invite { role: role.into(), ttl_ms }).await? {
            Response::Ticket { ticket, expires_unix_ms } => Ok((ticket, expires_unix_ms)),
            other => Err(unexpected(&other)),
        }
    }

    /// Renews the node's certificate; when the new one expires (milliseconds since 1970).
    pub async fn renew(&self) -> Result<u64, ClientError> {
        match self.request(Request::Renew).await? {
            Response::Renewed { expires_unix_ms } => Ok(expires_unix_ms),
            other => Err(unexpected(&other)),
        }
    }

    /// The configuration that the node runs with, as a JSON object.
    pub async fn config(&self) -> Result<String, ClientError> {
        match self.request(Request::Config).await? {
            Response::Text(text) => Ok(text),
            other => Err(unexpected(&other)),
        }
    }

    /// What the node finds wrong with itself.
    pub async fn doctor(&self) -> Result<Vec<Finding>, ClientError> {
        match self.request(Request::Doctor).await? {
            Response::Findings(findings) => Ok(findings),
            other => Err(unexpected(&other)),
        }
    }

    /// Stops the node.
    pub async fn shutdown(&self) -> Result<(), ClientError> {
        self.done(Request::Shutdown).await
    }
}

fn write_report(response: Response) -> Result<WriteReport, ClientError> {
    match response {
        Response::Written { written, created, refused } => Ok(WriteReport { written, created, refused }),
        Response::Refused(refusal) => Err(refusal.into()),
        other => Err(unexpected(&other)),
    }
}

/// An answer to another question than the one asked.
fn unexpected(response: &Response) -> ClientError {
    let text = format!("{response:?}");
    let kind = text.split(['(', ' ']).next().unwrap_or_default();
    ClientError::Protocol(format!("{kind} answers another request"))
}
