//! What a mesh connection carries: **lanes**, independent queues of frames.
//!
//! ```text
//!   the loop                                    one connection
//!   poll_transmit(now, link, blocked) ─▶ LaneSender::send(lane, priority, frame) ─▶ queue ─▶ one QUIC stream per lane
//!            ▲                                                                              │
//!            └── LinkEvent::Writable{link, lane} ◀── drained ◀──────────────────────────────┘
//!
//!   one QUIC stream per lane ─▶ frames ─▶ LinkEvent::Received{link, lane, frame} ─▶ the loop; dropping the frame lets the lane go on
//! ```
//!
//! Lane 0 is the link's own; the others are numbered by the link's state machine, one for each (section, plane). Each direction of a lane is
//! one unidirectional QUIC stream, opened with its first frame: the lane's number, then frames, each with its length in front. A lane that
//! its receiver does not read is held back by QUIC's flow control for streams, and nothing else is.
//!
//! The sending side is pulled: a frame is only asked of the state machine when its lane has room, so that what is sent is the newest there is
//! to send. Room is therefore kept *small*: about what the path carries in a round trip, never a constant that would be seconds on a slow
//! one: see `Pace` below.
//!
//! **The driver's law:** after `send` has answered [`Room::Blocked`] for a lane, give it nothing until `Writable` names it.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::{BufMut, Bytes, BytesMut};
use mangrove_crdt::id::NodeId;
use quinn::{Connection, RecvStream, SendStream};
use tokio::{
    sync::{Notify, mpsc},
    task::JoinSet,
    time::Instant,
};

use crate::codec::Writer;

use super::{
    close::{CloseCode, Closed},
    congestion,
    inbox::{self, Fault, Frame, Inbox},
};

/// The largest frame. State machines aim for far less, so that lanes take turns; this is where a peer is taken for broken.
pub const FRAME_MAX: usize = crate::FRAME_BYTES_MAX;

/// How many lanes a connection may have in each direction, over its whole life: more sections than a node would hold, times three planes.
pub const LANES_MAX: usize = 4096;

/// The link's own lane, opened by the accepting side at once: its arrival tells the dialling side that it was let in.
pub const LANE_CONTROL: u32 = 0;

/// The most that the length in front of a frame takes, as [`Writer::u64`] writes it.
pub(super) const FRAME_HEADER_BYTES_MAX: usize = 4;
const _: () = assert!(FRAME_MAX < 1 << (7 * FRAME_HEADER_BYTES_MAX));

/// What goes in front of a frame of so many bytes.
pub(super) fn frame_header(length: usize) -> Vec<u8> {
    let mut w = Writer { out: Vec::with_capacity(FRAME_HEADER_BYTES_MAX) };
    w.u64(length as u64);
    w.out
}

/// How much of a lane may wait here, on a fast path.
const LANE_QUEUE_BYTES_MAX: usize = 256 << 10;
/// The same on the slowest.
const LANE_QUEUE_BYTES_MIN: usize = 16 << 10;

/// How much is handed to QUIC at once: frames up to this are copied together into one write.
const WRITE_BYTES: usize = 64 << 10;

/// A link's events, for the loop.
#[derive(Debug)]
pub enum LinkEvent {
    /// A frame came. Dropping `frame` lets more of its lane in: hold it until it is dealt with.
    Received {
        /// The link, as numbered in [`MeshConnection::start`].
        link: u64,
        /// The lane.
        lane: u32,
        /// The frame.
        frame: Frame,
    },
    /// A lane that was [`Room::Blocked`] can take frames again.
    Writable {
        /// The link.
        link: u64,
        /// The lane.
        lane: u32,
    },
    /// The link is gone; nothing more comes from it. Told exactly once.
    Closed {
        /// The link.
        link: u64,
        /// Why.
        reason: Closed,
    },
}

/// Whether a lane takes another frame after this one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Room {
    /// It does.
    Open,
    /// Not before [`LinkEvent::Writable`].
    Blocked,
}

/// Why a frame was not taken. Nothing of it was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The lane was blocked; the frame comes back.
    #[error("the lane has no room yet")]
    Blocked(Bytes),
    /// Above [`FRAME_MAX`].
    #[error("a frame of {0} bytes; the limit is {FRAME_MAX}")]
    TooLarge(usize),
    /// [`LANES_MAX`] lanes are open.
    #[error("all {LANES_MAX} lanes of the link are in use")]
    TooManyLanes,
    /// The link is gone; [`LinkEvent::Closed`] says why.
    #[error("the link is closed")]
    Closed,
}

/// Figures of a link's path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkStats {
    /// The smoothed round trip.
    pub round_trip: Duration,
    /// UDP payload bytes sent.
    pub sent_bytes: u64,
    /// UDP payload bytes received.
    pub received_bytes: u64,
    /// Packets lost on the way out.
    pub lost_packets: u64,
    /// The largest datagram that the path carries, bytes.
    pub datagram_bytes: u16,
    /// What congestion control lets be under way, bytes.
    pub congestion_window_bytes: u64,
    /// Frames handed to QUIC.
    pub sent_frames: u64,
}

/// A mutually authenticated connection with another node of the mesh, before its lanes are started.
pub struct MeshConnection {
    connection: Connection,
    peer: NodeId,
    welcome: Welcome,
}

/// The control lane's first stream, which each side got hold of on its own way.
enum Welcome {
    Sent(SendStream),
    Received(RecvStream),
}

impl MeshConnection {
    /// The accepting side: opens the control lane.
    pub(super) async fn accepted(connection: Connection, peer: NodeId) -> Result<Self, quinn::ConnectionError> {
        let mut control = connection.open_uni().await?;
        let opened = control.write_all(&LANE_CONTROL.to_le_bytes()).await;
        match (opened, connection.close_reason()) {
            (Err(_), Some(error)) => Err(error),
            // Without a reason the stream alone was refused, which its reader will find out in the same words.
            _ => Ok(MeshConnection { connection, peer, welcome: Welcome::Sent(control) }),
        }
    }

    /// The dialling side: waits until the peer has opened the control lane, which it does once it has accepted our certificate.
    pub(super) async fn dialled(connection: Connection, peer: NodeId) -> Result<Self, quinn::ConnectionError> {
        let mut control = connection.accept_uni().await?;
        match inbox::read_lane(&mut control).await {
            Some(LANE_CONTROL) => Ok(MeshConnection { connection, peer, welcome: Welcome::Received(control) }),
            _ => {
                congestion::close(&connection, CloseCode::Protocol, "the first lane was not the control lane");
                Err(connection.closed().await)
            }
        }
    }

    /// Who is at the other end.
    pub fn peer(&self) -> NodeId {
        self.peer
    }

    /// Where the other end is now.
    pub fn remote_address(&self) -> SocketAddr {
        self.connection.remote_address()
    }

    /// The QUIC connection beneath, for whoever speaks to the peer otherwise than in lanes.
    pub fn quic(&self) -> &Connection {
        &self.connection
    }

    /// Ends the connection instead of starting it.
    pub fn close(self, code: CloseCode, reason: &str) {
        congestion::close(&self.connection, code, reason);
    }

    /// Lets the lanes run. Everything that happens on them is told to `events` under the number `link`. The channel has no bound of its own:
    /// frames in it count against their lanes' room until they are dropped, and other events are at most one a lane.
    pub fn start(self, link: u64, events: mpsc::UnboundedSender<LinkEvent>) -> LaneSender {
        let shared = Arc::new(Shared {
            connection: self.connection,
            peer: self.peer,
            link,
            events: events.clone(),
            lanes: Mutex::new(Lanes { open: BTreeMap::new(), writers: JoinSet::new(), closed: false }),
            pace: Pace::default(),
            said: OnceLock::new(),
            sent_frames: AtomicU64::new(0),
        });
        let inbox = Inbox::new(link, events);
        let welcome = match self.welcome {
            Welcome::Received(stream) => Some(stream),
            Welcome::Sent(stream) => {
                shared.open_lane(LANE_CONTROL, i32::MAX, &mut shared.lanes(), Some(stream));
                None
            }
        };
        tokio::spawn(supervise(shared.clone(), inbox, welcome));
        LaneSender { shared: shared.clone(), _last: Arc::new(CloseOnDrop(shared)) }
    }
}

impl fmt::Debug for MeshConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MeshConnection(with {} at {})", self.peer.short(), self.remote_address())
    }
}

/// The sending handle of a started connection. When the last clone is dropped the connection closes.
#[derive(Clone)]
pub struct LaneSender {
    shared: Arc<Shared>,
    _last: Arc<CloseOnDrop>,
}

struct CloseOnDrop(Arc<Shared>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close(CloseCode::Done, String::new());
    }
}

impl LaneSender {
    /// Queues one frame. Lanes of a greater `priority` go first; among equals they take turns. Never waits.
    pub fn send(&self, lane: u32, priority: i32, frame: Bytes) -> Result<Room, SendError> {
        if frame.len() > FRAME_MAX {
            return Err(SendError::TooLarge(frame.len()));
        }
        let mut lanes = self.shared.lanes();
        if lanes.closed {
            return Err(SendError::Closed);
        }
        let queue = match lanes.open.get(&lane) {
            Some(queue) => queue.clone(),
            None if lanes.open.len() >= LANES_MAX => return Err(SendError::TooManyLanes),
            None => self.shared.open_lane(lane, priority, &mut lanes, None),
        };
        drop(lanes);
        queue.push(priority, frame, self.shared.pace.queue_bytes())
    }

    /// Whether a lane would take a frame now.
    pub fn room(&self, lane: u32) -> Room {
        match self.shared.lanes().open.get(&lane) {
            Some(queue) if queue.waiting().blocked => Room::Blocked,
            _ => Room::Open,
        }
    }

    /// Who is at the other end.
    pub fn peer(&self) -> NodeId {
        self.shared.peer
    }

    /// Where the other end is now; changes when it moves.
    pub fn remote_address(&self) -> SocketAddr {
        self.shared.connection.remote_address()
    }

    /// Figures of the path.
    pub fn stats(&self) -> LinkStats {
        let stats = self.shared.connection.stats();
        LinkStats {
            round_trip: stats.path.rtt,
            sent_bytes: stats.udp_tx.bytes,
            received_bytes: stats.udp_rx.bytes,
            lost_packets: stats.path.lost_packets,
            datagram_bytes: stats.path.current_mtu,
            congestion_window_bytes: stats.path.cwnd,
            sent_frames: self.shared.sent_frames.load(Ordering::Relaxed),
        }
    }

    /// Ends the link. What is queued is dropped; the peer hears code and reason; [`LinkEvent::Closed`] follows.
    pub fn close(&self, code: CloseCode, reason: &str) {
        self.shared.close(code, reason.to_string());
    }
}

impl fmt::Debug for LaneSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LaneSender(link {} with {})", self.shared.link, self.shared.peer.short())
    }
}

struct Shared {
    connection: Connection,
    peer: NodeId,
    link: u64,
    events: mpsc::UnboundedSender<LinkEvent>,
    lanes: Mutex<Lanes>,
    pace: Pace,
    /// What this side said when it closed the connection; quinn does not remember.
    said: OnceLock<(CloseCode, String)>,
    sent_frames: AtomicU64,
}

struct Lanes {
    open: BTreeMap<u32, Arc<Queue>>,
    writers: JoinSet<()>,
    closed: bool,
}

impl Shared {
    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open_lane(self: &Arc<Self>, lane: u32, priority: i32, lanes: &mut Lanes, stream: Option<SendStream>) -> Arc<Queue> {
        let queue = Arc::new(Queue {
            waiting: Mutex::new(Waiting { frames: VecDeque::new(), bytes: 0, blocked: false }),
            bell: Notify::new(),
            priority: AtomicI32::new(priority),
        });
        lanes.open.insert(lane, queue.clone());
        lanes.writers.spawn(write_lane(self.clone(), lane, queue.clone(), stream));
        queue
    }

    fn close(&self, code: CloseCode, reason: String) {
        if self.said.set((code, reason.clone())).is_ok() {
            congestion::close(&self.connection, code, &reason);
        }
    }
}

/// Frames that wait for their lane's stream.
struct Queue {
    waiting: Mutex<Waiting>,
    bell: Notify,
    priority: AtomicI32,
}

struct Waiting {
    frames: VecDeque<Bytes>,
    /// Of the frames here and of those that the writer has taken and QUIC not yet, with their headers.
    bytes: usize,
    /// Whether the loop was told to wait, and so is owed a `Writable`.
    blocked: bool,
}

impl Queue {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A frame always fits into a lane that is not blocked, so the queue holds at most its limit and one frame.
    fn push(&self, priority: i32, frame: Bytes, limit: usize) -> Result<Room, SendError> {
        let mut waiting = self.waiting();
        if waiting.blocked {
            return Err(SendError::Blocked(frame));
        }
        self.priority.store(priority, Ordering::Relaxed);
        waiting.bytes += frame_header(frame.len()).len() + frame.len();
        waiting.frames.push_back(frame);
        waiting.blocked = waiting.bytes >= limit;
        let room = if waiting.blocked { Room::Blocked } else { Room::Open };
        drop(waiting);
        self.bell.notify_one();
        Ok(room)
    }

    /// The next write: as many frames as fit together, or one large one beside its header. Empty when nothing waits.
    fn next_write(&self, scratch: &mut BytesMut, write: &mut Vec<Bytes>) -> u64 {
        let mut waiting = self.waiting();
        let mut count = 0;
        while let Some(frame) = waiting.frames.front() {
            let header = frame_header(frame.len());
            let bytes = header.len() + frame.len();
            if count > 0 && scratch.len() + bytes > WRITE_BYTES {
                break;
            }
            count += 1;
            scratch.extend_from_slice(&header);
            let large = bytes > WRITE_BYTES / 4;
            let frame = waiting.frames.pop_front().unwrap_or_default();
            if large {
                write.extend([scratch.split().freeze(), frame]);
                return count;
            }
            scratch.extend_from_slice(&frame);
        }
        if !scratch.is_empty() {
            write.push(scratch.split().freeze());
        }
        count
    }

    /// Notes that QUIC took these bytes; true if the loop is owed a `Writable`.
    fn written(&self, bytes: usize, limit: usize) -> bool {
        let mut waiting = self.waiting();
        waiting.bytes -= bytes;
        let owed = waiting.blocked && waiting.bytes <= limit / 2;
        waiting.blocked &= !owed;
        owed
    }
}

/// How much may be under way, learned from the path.
///
/// QUIC takes from us whatever its send window allows, far more than the path carries at once. On a slow link those would be frames built
/// seconds before they leave, where the state machine could have built newer ones. (The congestion window is no measure of it: on a path that never
/// loses a packet it grows without end.) So the send window is what the path has lately been seen to move in `AHEAD` and two round
/// trips, and a lane's queue is half of the former; both grow as fast as more is moved.
struct Pace {
    queue_bytes: AtomicUsize,
    seen: Mutex<Option<Seen>>,
}

/// What the last look saw.
struct Seen {
    at: Instant,
    sent_bytes: u64,
    bytes_per_second: f64,
}

impl Default for Pace {
    fn default() -> Self {
        Pace { queue_bytes: AtomicUsize::new(LANE_QUEUE_BYTES_MAX / 4), seen: Mutex::new(None) }
    }
}

impl Pace {
    /// How often it looks, so that it costs nothing to ask for it with every write.
    const EVERY: Duration = Duration::from_millis(20);
    /// How much a rate seen earlier still counts at the next look: a link that got slower is known for it within a second.
    const REMEMBERED: f64 = 0.97;
    /// For how long there may be something to send beyond the round trip: above what a busy machine takes to come back to us.
    const AHEAD: Duration = Duration::from_millis(50);
    /// Always allowed: a path that was idle has to begin with something.
    const SEND_WINDOW_BYTES_MIN: u64 = 32 << 10;
    /// 160 MB/s at 100 ms.
    const SEND_WINDOW_BYTES_MAX: u64 = 16 << 20;

    fn queue_bytes(&self) -> usize {
        self.queue_bytes.load(Ordering::Relaxed)
    }

    fn look(&self, connection: &Connection) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = seen.as_ref().map(|seen| seen.at.elapsed());
        if passed.is_some_and(|passed| passed < Self::EVERY) {
            return;
        }
        let sent_bytes = connection.stats().udp_tx.bytes;
        let bytes_per_second = match (&*seen, passed) {
            (Some(before), Some(passed)) => {
                let measured = sent_bytes.saturating_sub(before.sent_bytes) as f64 / passed.as_secs_f64();
                let rate = measured.max(before.bytes_per_second * Self::REMEMBERED);
                self.allow(connection, rate);
                rate
            }
            _ => 0.0,
        };
        *seen = Some(Seen { at: Instant::now(), sent_bytes, bytes_per_second });
    }

    fn allow(&self, connection: &Connection, bytes_per_second: f64) {
        let ahead = Self::AHEAD.as_secs_f64();
        let under_way = connection.min_rtt().as_secs_f64() * 2.0 + ahead;
        let window = (bytes_per_second * under_way) as u64 + Self::SEND_WINDOW_BYTES_MIN;
        connection.set_send_window(window.min(Self::SEND_WINDOW_BYTES_MAX));
        let queue = (bytes_per_second * ahead / 2.0) as usize;
        self.queue_bytes.store(queue.clamp(LANE_QUEUE_BYTES_MIN, LANE_QUEUE_BYTES_MAX), Ordering::Relaxed);
    }
}

/// Moves one lane's frames into its stream until the connection ends.
async fn write_lane(shared: Arc<Shared>, lane: u32, queue: Arc<Queue>, stream: Option<SendStream>) {
    let mut scratch = BytesMut::new();
    let mut stream = match stream {
        Some(stream) => stream,
        None => {
            let Ok(stream) = shared.connection.open_uni().await else { return };
            scratch.put_u32_le(lane);
            stream
        }
    };
    let mut header = scratch.len();
    let mut priority = None;
    let mut write = Vec::new();
    loop {
        let count = queue.next_write(&mut scratch, &mut write);
        if count == 0 {
            queue.bell.notified().await;
            continue;
        }
        let wanted = queue.priority.load(Ordering::Relaxed);
        if priority != Some(wanted) {
            let _ = stream.set_priority(wanted);
            priority = Some(wanted);
        }
        let mut bytes = write.iter().map(Bytes::len).sum::<usize>() - std::mem::take(&mut header);
        // Room is given back as QUIC takes the bytes, piece by piece, so that the lane never runs dry.
        let mut rest = &mut write[..];
        while !rest.is_empty() {
            let before = rest.iter().map(Bytes::len).sum::<usize>();
            let written = match stream.write_chunks(rest).await {
                Ok(written) => written,
                // The connection's end is told by its supervisor; a peer that refuses a lane breaks the protocol.
                Err(quinn::WriteError::Stopped(_)) => {
                    return shared.close(CloseCode::Protocol, format!("the peer refused lane {lane}"));
                }
                Err(_) => return,
            };
            rest = &mut rest[written.chunks..];
            let taken = (before - rest.iter().map(Bytes::len).sum::<usize>()).min(bytes);
            bytes -= taken;
            shared.pace.look(&shared.connection);
            if queue.written(taken, shared.pace.queue_bytes()) {
                let _ = shared.events.send(LinkEvent::Writable { link: shared.link, lane });
            }
        }
        write.clear();
        shared.sent_frames.fetch_add(count, Ordering::Relaxed);
    }
}

/// Accepts the peer's lanes, and tells the connection's end when all of its readers have stopped.
async fn supervise(shared: Arc<Shared>, inbox: Arc<Inbox>, welcome: Option<RecvStream>) {
    let mut readers: JoinSet<Result<(), Fault>> = JoinSet::new();
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    if let Some(stream) = welcome {
        seen.lock().unwrap_or_else(PoisonError::into_inner).insert(LANE_CONTROL);
        readers.spawn(inbox::read_frames(inbox.clone(), LANE_CONTROL, stream));
    }
    let error = loop {
        tokio::select! {
            accepted = shared.connection.accept_uni() => match accepted {
                Ok(stream) => { readers.spawn(read_lane(inbox.clone(), seen.clone(), stream)); }
                Err(error) => break error,
            },
            Some(ended) = readers.join_next() => if let Ok(Err((code, reason))) = ended {
                shared.close(code, reason);
            },
        }
    };
    readers.shutdown().await;
    let mut writers = {
        let mut lanes = shared.lanes();
        lanes.closed = true;
        lanes.open.clear();
        std::mem::take(&mut lanes.writers)
    };
    writers.shutdown().await;
    let reason = Closed::from_error(&error, shared.said.get());
    let _ = shared.events.send(LinkEvent::Closed { link: shared.link, reason });
}

async fn read_lane(inbox: Arc<Inbox>, seen: Arc<Mutex<BTreeSet<u32>>>, mut stream: RecvStream) -> Result<(), Fault> {
    let Some(lane) = inbox::read_lane(&mut stream).await else { return Ok(()) };
    {
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= LANES_MAX {
            return Err((CloseCode::TooManyLanes, format!("more than {LANES_MAX} lanes")));
        }
        if !seen.insert(lane) {
            return Err((CloseCode::Protocol, format!("lane {lane} was opened twice")));
        }
    }
    inbox::read_frames(inbox, lane, stream).await
}
