//! One connection to one node: the two tasks that write and read frames, and what is numbered on it.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use mangrove_crdt::id::MeshId;
use mangrove_crdt::path::{Path, PathError};
use mangrove_net::quic::{ClientEndpoint, CloseCode, Options};
use minicbor::Encode;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use zeroize::Zeroizing;

use super::followed::TopicEvent;
use super::table::{Delivered, SharedTable, Table};
use super::{ClientError, FRAME_MAX, HELLO_MAX, Hello, PORT, Refusal, Welcome};
use crate::memory::{Change, FeedIx};
use crate::protocol::{self, Aliases, FromClient, FromNode, Restore, Shrink, Target, Update};

/// How many frames wait for the network before those who write have to wait too.
const FRAMES_QUEUED_MAX: usize = 64;
/// Above this, the buffer for incoming frames is given back after a frame.
const BUFFER_KEPT_MAX: usize = 1 << 20;
/// How long [`Wire::close`] waits for the node to end the connection.
const CLOSE_WAIT: Duration = Duration::from_secs(1);
/// How long a closed connection's last packet may take to leave. QUIC would linger for three times its longest wait, which nobody at a terminal wants to.
const CLOSE_LINGER: Duration = Duration::from_millis(10);
/// How many feeds a node may number on one connection.
const FEEDS_MAX: usize = 1 << 20;

/// What keeps a QUIC connection open: the socket below it.
pub(super) struct Connection(ClientEndpoint);

impl Connection {
    /// Tells the node, which has ended the session already: if this is lost, only the empty connection stays until it times out.
    async fn close(&self) {
        self.0.close(CloseCode::Done, "the client is done");
        let _ = tokio::time::timeout(CLOSE_LINGER, self.0.wait_idle()).await;
    }
}

/// Opens a connection and its one stream. The connection is lost after so long a silence; by default as that of a node.
pub(super) async fn dial(
    address: &str,
    mesh: MeshId,
    silence: Option<Duration>,
) -> Result<(Connection, quinn::SendStream, quinn::RecvStream), String> {
    let mut options = Options::default();
    if let Some(silence) = silence {
        (options.keep_alive, options.idle_timeout) = (silence / 3, silence);
    }
    let endpoint = ClientEndpoint::bind(options).map_err(|error| error.to_string())?;
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

/// A connection that stands, or did.
pub(super) struct Wire {
    pub(super) address: String,
    pub(super) welcome: Welcome,
    frames: mpsc::Sender<Vec<u8>>,
    /// Held while a frame with numbers is queued, so that numbers reach the node in turn.
    pub(super) numbers: tokio::sync::Mutex<Numbers>,
    /// Held from when a message with values is made short until it is queued: they must reach the node in turn, too.
    shrink: Mutex<Shrink>,
    reader: JoinHandle<()>,
    ended: watch::Receiver<bool>,
    connection: Option<Connection>,
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

/// How a wire came to its end, and which.
pub(super) type Loss = (u64, ClientError);

impl Wire {
    /// Introduces the client over a pair of streams. What comes goes to the table; how it ends is told to `losses` under a number.
    pub(super) async fn open<R, W>(
        (receive, mut send): (R, W),
        hello: Hello,
        address: &str,
        table: SharedTable,
        (number, losses): (u64, mpsc::UnboundedSender<Loss>),
        connection: Option<Connection>,
    ) -> Result<Wire, ClientError>
    where
        R: AsyncRead + Send + Unpin + 'static,
        W: AsyncWrite + Send + Unpin + 'static,
    {
        let address = address.to_owned();
        let lost = |error: io::Error| ClientError::Lost { address: address.clone(), cause: error.to_string() };
        let mut receive = BufReader::with_capacity(64 << 10, receive);
        let (aliases_max, bases_bytes, compressed) = (hello.aliases_max, hello.bases_bytes, hello.compressed);
        let hello = Zeroizing::new(protocol::frame(&FromClient::Hello(hello)).map_err(|error| ClientError::Protocol(error.to_string()))?);
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
        let (frames, queued) = mpsc::channel(FRAMES_QUEUED_MAX);
        let (end, ended) = watch::channel(false);
        let (losses_of_writer, address_of_writer) = (losses.clone(), address.clone());
        tokio::spawn(async move {
            if let Err(error) = write_task(send, queued).await {
                let lost = ClientError::Lost { address: address_of_writer, cause: error.to_string() };
                let _ = losses_of_writer.send((number, lost));
            }
        });
        table.lock().listens_to = number;
        let incoming = Incoming::new(number, (aliases_max, bases_bytes), frames.downgrade());
        let address_of_reader = address.clone();
        let reader = tokio::spawn(async move {
            let error = read_task(receive, buffer, incoming, table, &address_of_reader).await;
            let _ = losses.send((number, error));
            end.send_replace(true);
        });
        let numbers = tokio::sync::Mutex::new(Numbers { given: HashMap::new(), count_max: welcome.aliases_max });
        let shrink = Mutex::new(Shrink::new(welcome.bases_bytes.min(bases_bytes), welcome.compressed && compressed));
        Ok(Wire { address, welcome, frames, numbers, shrink, reader, ended, connection })
    }

    /// Queues a frame. `false` if the connection is lost.
    pub(super) async fn send(&self, frame: Vec<u8>) -> bool {
        self.frames.send(frame).await.is_ok()
    }

    /// Queues a message, given besides as the frame that says all of it, in as few bytes as the node can make out. `false` if the connection is lost.
    pub(super) async fn send_short(&self, mut message: FromClient, whole: Vec<u8>) -> bool {
        // Whoever gives up waiting must not have changed what the node will build on.
        let Ok(room) = self.frames.reserve().await else { return false };
        let mut shrink = self.shrink.lock().unwrap_or_else(PoisonError::into_inner);
        let frame = if shrink.from_client(&mut message) { protocol::frame(&message).unwrap_or(whole) } else { whole };
        room.send(frame);
        true
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

/// What the reading task knows.
pub(super) struct Incoming {
    /// The connection's.
    number: u64,
    aliases: Aliases<Arc<str>>,
    restore: Restore,
    /// Which of the client's feeds each number of this connection is.
    feeds: Vec<FeedIx>,
    /// For credit that nobody else gives back.
    frames: mpsc::WeakSender<Vec<u8>>,
}

pub(super) fn encode<T: Encode<()>>(message: &T) -> Result<Vec<u8>, ClientError> {
    protocol::frame(message).map_err(|error| {
        let refusal = Refusal::new(protocol::Code::TooLarge, "the request", error.to_string());
        ClientError::Refused(refusal.hint("send it in smaller parts"))
    })
}

async fn write_task<W: AsyncWrite + Unpin>(mut send: W, mut queued: mpsc::Receiver<Vec<u8>>) -> io::Result<()> {
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
}

async fn read_task<R: AsyncRead + Unpin>(
    mut receive: BufReader<R>,
    mut buffer: Vec<u8>,
    mut incoming: Incoming,
    table: SharedTable,
    address: &str,
) -> ClientError {
    loop {
        let message = match read_frame(&mut receive, FRAME_MAX, &mut buffer).await {
            Ok(message) => message,
            Err(error) => return error.at(address),
        };
        if let Err(error) = incoming.take(message, &table) {
            return error;
        }
    }
}

impl Incoming {
    pub(super) fn new(number: u64, (aliases_max, bases_bytes): (u32, u64), frames: mpsc::WeakSender<Vec<u8>>) -> Self {
        Incoming { number, aliases: Aliases::new(aliases_max), restore: Restore::new(bases_bytes), feeds: Vec::new(), frames }
    }

    /// Gives a message to whoever waits for it.
    pub(super) fn take(&mut self, mut message: FromNode, table: &SharedTable) -> Result<(), ClientError> {
        self.restore.from_node(&mut message).map_err(|error| ClientError::Protocol(error.to_string()))?;
        let mut table = table.lock();
        if table.listens_to != self.number {
            // Another connection has taken its place.
            return Err(ClientError::Protocol("it went on after its end".into()));
        }
        match message {
            FromNode::Response { id, response } => {
                table.answered(id, response);
                for (subscription, updates) in table.unsent_credit() {
                    self.pay(subscription, updates)?;
                }
            }
            FromNode::Updates(updates) => return self.take_updates(updates, &mut table),
            FromNode::Synced { subscription } => table.synced(subscription),
            FromNode::Rewound { subscription } => table.rewound(subscription),
            FromNode::Feeds(feeds) if self.feeds.len() + feeds.len() > FEEDS_MAX => {
                return Err(ClientError::Protocol("it numbered more feeds than there can be".into()));
            }
            FromNode::Feeds(feeds) => self.feeds.extend(feeds.into_iter().map(|feed| table.feed(feed))),
            FromNode::Seen(marks) => {
                for mark in marks {
                    let place = self.place(mark)?;
                    table.seen(place);
                }
            }
            FromNode::Position { subscription, marks, rights } => {
                let places = marks.into_iter().map(|mark| self.place(mark)).collect::<Result<_, _>>()?;
                table.position(subscription, rights, places);
            }
            FromNode::Present { subscription, slot, paths } => table.present(subscription, slot, paths),
            FromNode::Sessions { listener, news, synced } => table.sessions(listener, news, synced),
            FromNode::Unsubscribed { subscription, refusal } => table.unsubscribed(subscription, refusal),
            FromNode::Unlistened { listener, refusal } => table.unlistened(listener, refusal),
            FromNode::Select { selector, selected, wish } => table.select(selector, selected, wish),
            FromNode::Missing(missing) => table.missing(*missing),
            FromNode::Message { path, message } => table.messages.take(path, *message),
            FromNode::Judge { number, question } => table.judge(number, *question),
            FromNode::Source { source, state } => {
                let told = table.sources.tell(source, state);
                return told.map_err(|_| ClientError::Protocol("it told of more sources than a session may have".into()));
            }
            FromNode::Closing(refusal) => return Err(refusal.into()),
            FromNode::Welcome(_) | FromNode::Refused(_) => {
                return Err(ClientError::Protocol("it introduced itself twice".into()));
            }
        }
        Ok(())
    }

    fn pay(&self, subscription: u32, updates: u32) -> Result<(), ClientError> {
        let frame = encode(&FromClient::Credit { subscription, updates })?;
        if let Some(frames) = self.frames.upgrade() {
            // If it is lost, so is the connection.
            tokio::spawn(async move { _ = frames.send(frame).await });
        }
        Ok(())
    }

    fn place(&self, mark: protocol::Mark) -> Result<Change, ClientError> {
        let feed = self.feeds.get(mark.feed as usize).copied();
        feed.map(|feed| (feed, mark.number))
            .ok_or_else(|| ClientError::Protocol(format!("it used the number {} for a feed, which it had not given", mark.feed)))
    }

    fn take_updates(&mut self, updates: Vec<Update>, table: &mut Table) -> Result<(), ClientError> {
        let mut updates = updates.into_iter().peekable();
        while let Some(first) = updates.next() {
            let subscription = first.subscription;
            let mut events = vec![self.resolve(first)?];
            while let Some(next) = updates.next_if(|next| next.subscription == subscription) {
                events.push(self.resolve(next)?);
            }
            match table.updates(subscription, events) {
                Delivered::All => {}
                // What was no news to anybody is paid for here.
                Delivered::Credit(updates) => self.pay(subscription, updates)?,
                Delivered::TooMany => return Err(ClientError::Protocol("it sent more updates than it had credit for".into())),
            }
        }
        Ok(())
    }

    fn resolve(&mut self, update: Update) -> Result<TopicEvent, ClientError> {
        let wrong = |error: protocol::AliasError| ClientError::Protocol(error.to_string());
        let path = match update.topic {
            Target::Path(path) => path.into(),
            Target::Named { alias, path } => Arc::clone(self.aliases.bind(alias, path.into()).map_err(wrong)?),
            Target::Alias(alias) => Arc::clone(self.aliases.get(alias).map_err(wrong)?),
        };
        let place = update.mark.map(|mark| self.place(mark)).transpose()?;
        Ok(TopicEvent { path, event: update.event, place, paid: true })
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
            ReadError::Ended => lost("the node ended the connection".into()),
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
