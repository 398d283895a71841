//! The stream behind a client: who waits for which answer, and the two tasks that write and read frames.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mangrove_crdt::id::MeshId;
use mangrove_crdt::path::{Path, PathError};
use mangrove_net::quic::{ClientEndpoint, CloseCode, Options};
use minicbor::Encode;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use super::states::{Followed, SourceTable, StatesReceiver};
use super::{ClientError, ClientOptions, FRAME_MAX, HELLO_MAX, Hello, PORT, Refusal, Request, Response, Welcome};
use crate::protocol::{self, Aliases, Event, FromClient, FromNode, Target, Update};

/// How many frames wait for the network before those who write have to wait too.
const FRAMES_QUEUED_MAX: usize = 64;
/// Above this, the buffer for incoming frames is given back after a frame.
const BUFFER_KEPT_MAX: usize = 1 << 20;
/// How long [`Session::close`] waits for the node to end the session.
const CLOSE_WAIT: Duration = Duration::from_secs(1);
/// How long a closed connection's last packet may take to leave. QUIC would linger for three times its longest wait, which nobody at a terminal wants to.
const CLOSE_LINGER: Duration = Duration::from_millis(10);

/// What keeps a QUIC connection open: the socket below it.
pub(super) struct Connection(ClientEndpoint);

impl Connection {
    /// Tells the node, which has ended the session already: if this is lost, only the empty connection stays until it times out.
    async fn close(&self) {
        self.0.close(CloseCode::Done, "the client is done");
        let _ = tokio::time::timeout(CLOSE_LINGER, self.0.wait_idle()).await;
    }
}

/// Opens a connection and its one stream.
pub(super) async fn dial(address: &str, mesh: MeshId) -> Result<(Connection, quinn::SendStream, quinn::RecvStream), String> {
    let endpoint = ClientEndpoint::bind(Options::default()).map_err(|error| error.to_string())?;
    let mut cause = "the name has no address".to_owned();
    for address in resolve(address).await.map_err(|error| error.to_string())? {
        match endpoint.connect_client(address, mesh).await {
            Ok(connection) => {
                let (send, receive) = connection.open_bi().await.map_err(|error| error.to_string())?;
                return Ok((Connection(endpoint), send, receive));
            }
            Err(error) => cause = error.to_string(),
        }
    }
    Err(cause)
}

async fn resolve(address: &str) -> io::Result<Vec<SocketAddr>> {
    let bare =
        address.rsplit_once(':').is_none_or(|(host, port)| port.parse::<u16>().is_err() || (host.contains(':') && !host.ends_with(']')));
    let found = if bare {
        let host = address.trim_start_matches('[').trim_end_matches(']');
        tokio::net::lookup_host((host, PORT)).await?.collect()
    } else {
        tokio::net::lookup_host(address).await?.collect()
    };
    Ok(found)
}

/// An update of one subscription, with its path.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct TopicEvent {
    pub(super) path: Arc<str>,
    pub(super) event: Event,
}

/// What the reading task gives to a subscription.
#[derive(Debug)]
pub(super) enum Delivery {
    Events(Vec<TopicEvent>),
    Synced,
    Ended(Refusal),
}

/// Who waits for a response.
enum Waiter {
    Response(oneshot::Sender<Response>),
    /// Its channel must be in place before the first update, which follows the response at once.
    Subscriber(oneshot::Sender<Response>, mpsc::Sender<Delivery>),
    /// The sources that the answer names are followed from the moment when it is taken, as their states come right after it.
    Sources(oneshot::Sender<(Response, Vec<Followed>)>),
}

#[derive(Default)]
struct Table {
    waiting: HashMap<u64, Waiter>,
    subscriptions: HashMap<u32, mpsc::Sender<Delivery>>,
    sources: SourceTable,
    /// Why nothing will come any more.
    failure: Option<ClientError>,
}

#[derive(Clone, Default)]
struct SharedTable(Arc<Mutex<Table>>);

impl SharedTable {
    fn lock(&self) -> MutexGuard<'_, Table> {
        // Nothing in this module panics while it holds the lock; if it did, the table would still be whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&self, error: ClientError) {
        let mut table = self.lock();
        table.failure.get_or_insert(error);
        table.waiting.clear();
        table.subscriptions.clear();
        table.sources.clear();
    }
}

/// The numbers that this side has given to paths.
pub(super) struct Numbers {
    given: HashMap<Box<str>, u32>,
    count_max: u32,
}

impl Numbers {
    /// How to name a path. What is no path is found out here, where it costs something only once: the node would have to give it a
    /// number.
    pub(super) fn target(&mut self, path: &str) -> Result<Target, PathError> {
        if let Some(alias) = self.given.get(path) {
            return Ok(Target::Alias(*alias));
        }
        Path::parse(path)?;
        let alias = self.given.len() as u32;
        if alias >= self.count_max {
            return Ok(Target::Path(path.into()));
        }
        self.given.insert(path.into(), alias);
        Ok(Target::Named { alias, path: path.into() })
    }
}

pub(super) struct Session {
    pub(super) address: String,
    pub(super) welcome: Welcome,
    frames: mpsc::Sender<Vec<u8>>,
    table: SharedTable,
    next_id: AtomicU64,
    /// Held while a frame with numbers is queued, so that numbers reach the node in turn.
    pub(super) numbers: tokio::sync::Mutex<Numbers>,
    reader: JoinHandle<()>,
    ended: watch::Receiver<bool>,
    connection: Option<Connection>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// A response that is on its way, with what the reading task made of it.
pub(super) struct Answer<T = Response> {
    receiver: oneshot::Receiver<T>,
    table: SharedTable,
    address: String,
}

impl<T> Answer<T> {
    pub(super) async fn answer(self) -> Result<T, ClientError> {
        self.receiver.await.map_err(|_| failure(&self.table, &self.address))
    }
}

fn failure(table: &SharedTable, address: &str) -> ClientError {
    let lost = || ClientError::Lost { address: address.into(), cause: "the session has ended".into() };
    table.lock().failure.clone().unwrap_or_else(lost)
}

impl Session {
    pub(super) async fn open<R, W>(
        receive: R,
        mut send: W,
        hello: Hello,
        options: &ClientOptions,
        connection: Option<Connection>,
    ) -> Result<Arc<Session>, ClientError>
    where
        R: AsyncRead + Send + Unpin + 'static,
        W: AsyncWrite + Send + Unpin + 'static,
    {
        let address = options.address.clone();
        let lost = |error: io::Error| ClientError::Lost { address: address.clone(), cause: error.to_string() };
        let mut receive = BufReader::with_capacity(64 << 10, receive);
        let hello = protocol::frame(&FromClient::Hello(hello)).map_err(|error| ClientError::Protocol(error.to_string()))?;
        send.write_all(&hello).await.map_err(lost)?;
        send.flush().await.map_err(lost)?;
        let mut buffer = Vec::new();
        let welcome = match read_frame(&mut receive, HELLO_MAX, &mut buffer).await {
            Ok(FromNode::Welcome(welcome)) => welcome,
            Ok(FromNode::Refused(refusal) | FromNode::Closing(refusal)) => return Err(refusal.into()),
            Ok(_) => return Err(ClientError::Protocol("it did not begin with a welcome".into())),
            Err(error) => return Err(error.at(&address)),
        };
        if welcome.version == 0 || welcome.version > protocol::VERSION {
            return Err(ClientError::Protocol(format!("it wants version {}, which was not offered", welcome.version)));
        }
        let table = SharedTable::default();
        let (frames, queued) = mpsc::channel(FRAMES_QUEUED_MAX);
        let (end, ended) = watch::channel(false);
        tokio::spawn(write_task(send, queued, table.clone(), address.clone()));
        let aliases = Aliases::new(options.aliases_max);
        let reader = tokio::spawn(read_task(receive, buffer, aliases, table.clone(), address.clone(), end));
        let numbers = tokio::sync::Mutex::new(Numbers { given: HashMap::new(), count_max: welcome.aliases_max });
        Ok(Arc::new(Session { address, welcome, frames, table, next_id: AtomicU64::new(0), numbers, reader, ended, connection }))
    }

    /// Queues a request.
    pub(super) async fn ask(&self, request: Request) -> Result<Answer, ClientError> {
        let (sender, receiver) = oneshot::channel();
        self.ask_for(request, Waiter::Response(sender), receiver).await
    }

    /// Queues a subscription; its deliveries go to `events`.
    pub(super) async fn ask_subscribe(&self, request: Request, events: mpsc::Sender<Delivery>) -> Result<Answer, ClientError> {
        let (sender, receiver) = oneshot::channel();
        self.ask_for(request, Waiter::Subscriber(sender, events), receiver).await
    }

    /// Queues a request whose answer names sources; what is told of them from the answer on is kept.
    pub(super) async fn ask_sources(&self, request: Request) -> Result<Answer<(Response, Vec<Followed>)>, ClientError> {
        let (sender, receiver) = oneshot::channel();
        self.ask_for(request, Waiter::Sources(sender), receiver).await
    }

    async fn ask_for<T>(&self, request: Request, waiter: Waiter, receiver: oneshot::Receiver<T>) -> Result<Answer<T>, ClientError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let frame = encode(&FromClient::Request { id, request })?;
        {
            let mut table = self.table.lock();
            if let Some(failure) = &table.failure {
                return Err(failure.clone());
            }
            if let Waiter::Sources(_) = &waiter {
                table.sources.asked(id);
            }
            table.waiting.insert(id, waiter);
        }
        if let Err(error) = self.send(frame).await {
            self.table.lock().waiting.remove(&id);
            return Err(error);
        }
        Ok(Answer { receiver, table: self.table.clone(), address: self.address.clone() })
    }

    pub(super) async fn credit(&self, subscription: u32, updates: u32) -> Result<(), ClientError> {
        self.send(encode(&FromClient::Credit { subscription, updates })?).await
    }

    async fn send(&self, frame: Vec<u8>) -> Result<(), ClientError> {
        self.frames.send(frame).await.map_err(|_| self.failure())
    }

    /// Delivers nothing more to a subscription.
    pub(super) fn forget(&self, subscription: u32) {
        self.table.lock().subscriptions.remove(&subscription);
    }

    /// Follows a source no longer. Says whether it was followed by whoever has these states.
    pub(super) fn forget_source(&self, source: u32, states: &StatesReceiver) -> bool {
        self.table.lock().sources.forget(source, states)
    }

    /// Whether nothing comes any more.
    pub(super) fn has_failed(&self) -> bool {
        self.table.lock().failure.is_some()
    }

    /// Why nothing comes any more.
    pub(super) fn failure(&self) -> ClientError {
        failure(&self.table, &self.address)
    }

    /// Ends the stream after what is queued, and waits a moment for the node to end its side.
    pub(super) async fn close(&self) {
        // An empty frame tells the writing task that no other follows.
        if self.frames.send(Vec::new()).await.is_ok() {
            let mut ended = self.ended.clone();
            // When the wait is over, there is nothing left to do for either outcome.
            let _ = tokio::time::timeout(CLOSE_WAIT, ended.wait_for(|ended| *ended)).await;
        }
        if let Some(connection) = &self.connection {
            connection.close().await;
        }
    }
}

fn encode<T: Encode<()>>(message: &T) -> Result<Vec<u8>, ClientError> {
    protocol::frame(message).map_err(|error| {
        let refusal = Refusal::new(protocol::Code::TooLarge, "the request", error.to_string());
        ClientError::Refused(refusal.hint("send it in smaller parts"))
    })
}

async fn write_task<W: AsyncWrite + Unpin>(mut send: W, mut queued: mpsc::Receiver<Vec<u8>>, table: SharedTable, address: String) {
    let writing = async {
        while let Some(frame) = queued.recv().await {
            if frame.is_empty() {
                break;
            }
            send.write_all(&frame).await?;
            if queued.is_empty() {
                send.flush().await?;
            }
        }
        send.shutdown().await
    };
    if let Err(error) = writing.await {
        table.fail(ClientError::Lost { address, cause: error.to_string() });
    }
}

async fn read_task<R: AsyncRead + Unpin>(
    mut receive: BufReader<R>,
    mut buffer: Vec<u8>,
    mut aliases: Aliases<Arc<str>>,
    table: SharedTable,
    address: String,
    end: watch::Sender<bool>,
) {
    let failure = loop {
        let message = match read_frame(&mut receive, FRAME_MAX, &mut buffer).await {
            Ok(message) => message,
            Err(error) => break error.at(&address),
        };
        if let Err(error) = take(message, &table, &mut aliases) {
            break error;
        }
    };
    table.fail(failure);
    end.send_replace(true);
}

/// Gives a message to whoever waits for it.
fn take(message: FromNode, table: &SharedTable, aliases: &mut Aliases<Arc<str>>) -> Result<(), ClientError> {
    match message {
        FromNode::Response { id, response } => take_response(id, response, &mut table.lock()),
        FromNode::Updates(updates) => return take_updates(updates, &mut table.lock(), aliases),
        FromNode::Synced { subscription } => return deliver(&mut table.lock(), subscription, Delivery::Synced),
        FromNode::Unsubscribed { subscription, refusal } => {
            let mut table = table.lock();
            deliver(&mut table, subscription, Delivery::Ended(refusal))?;
            table.subscriptions.remove(&subscription);
        }
        FromNode::Source { source, state } => {
            let told = table.lock().sources.tell(source, state);
            return told.map_err(|_| ClientError::Protocol("it told of more sources than a session may have".into()));
        }
        FromNode::Closing(refusal) => return Err(refusal.into()),
        FromNode::Welcome(_) | FromNode::Refused(_) => {
            return Err(ClientError::Protocol("it introduced itself twice".into()));
        }
    }
    Ok(())
}

fn take_response(id: u64, response: Response, table: &mut Table) {
    // Whoever asked may have gone away meanwhile: then nobody is told.
    match table.waiting.remove(&id) {
        Some(Waiter::Response(sender)) => drop(sender.send(response)),
        Some(Waiter::Subscriber(sender, events)) => {
            if let Response::Subscribed { subscription } = response {
                table.subscriptions.insert(subscription, events);
            }
            drop(sender.send(response));
        }
        Some(Waiter::Sources(sender)) => {
            let followed = table.sources.answered(id, &response);
            drop(sender.send((response, followed)));
        }
        None => tracing::debug!(id, "a response that nobody waits for"),
    }
}

fn take_updates(updates: Vec<Update>, table: &mut Table, aliases: &mut Aliases<Arc<str>>) -> Result<(), ClientError> {
    let mut updates = updates.into_iter().peekable();
    while let Some(first) = updates.next() {
        let subscription = first.subscription;
        let mut events = vec![resolve_update(first, aliases)?];
        while let Some(next) = updates.next_if(|next| next.subscription == subscription) {
            events.push(resolve_update(next, aliases)?);
        }
        deliver(table, subscription, Delivery::Events(events))?;
    }
    Ok(())
}

fn resolve_update(update: Update, aliases: &mut Aliases<Arc<str>>) -> Result<TopicEvent, ClientError> {
    let wrong = |error: protocol::AliasError| ClientError::Protocol(error.to_string());
    let path = match update.topic {
        Target::Path(path) => path.into(),
        Target::Named { alias, path } => Arc::clone(aliases.bind(alias, path.into()).map_err(wrong)?),
        Target::Alias(alias) => Arc::clone(aliases.get(alias).map_err(wrong)?),
    };
    Ok(TopicEvent { path, event: update.event })
}

/// What comes for a subscription that is there no more is dropped: its end may have crossed it on the way.
fn deliver(table: &mut Table, subscription: u32, delivery: Delivery) -> Result<(), ClientError> {
    let Some(events) = table.subscriptions.get(&subscription) else { return Ok(()) };
    match events.try_send(delivery) {
        Ok(()) => Ok(()),
        Err(mpsc::error::TrySendError::Closed(_)) => {
            table.subscriptions.remove(&subscription);
            Ok(())
        }
        // The channel has room for all that was granted.
        Err(mpsc::error::TrySendError::Full(_)) => Err(ClientError::Protocol("it sent more updates than it had credit for".into())),
    }
}

/// Why no message could be read.
enum ReadError {
    Broken(io::Error),
    Ended,
    Wrong(String),
}

impl ReadError {
    fn at(self, address: &str) -> ClientError {
        let lost = |cause: String| ClientError::Lost { address: address.into(), cause };
        match self {
            ReadError::Broken(error) => lost(error.to_string()),
            ReadError::Ended => lost("the node ended the session".into()),
            ReadError::Wrong(what) => ClientError::Protocol(what),
        }
    }
}

async fn read_frame<R: AsyncRead + Unpin>(receive: &mut R, limit: usize, buffer: &mut Vec<u8>) -> Result<FromNode, ReadError> {
    let mut header = [0; 4];
    match receive.read_exact(&mut header).await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(ReadError::Ended),
        result => result.map_err(ReadError::Broken)?,
    };
    let length = protocol::frame_length(header, limit).map_err(|error| ReadError::Wrong(error.to_string()))?;
    buffer.resize(length, 0);
    receive.read_exact(buffer).await.map_err(ReadError::Broken)?;
    let message = protocol::decode_from_node(buffer).map_err(|error| ReadError::Wrong(error.to_string()));
    if buffer.capacity() > BUFFER_KEPT_MAX {
        *buffer = Vec::new();
    }
    message
}
