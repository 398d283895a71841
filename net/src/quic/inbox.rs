//! The receiving half of lanes: streams become frames, and frames that nobody takes hold their lane back.
//!
//! A [`Frame`] counts against its lane's room and its connection's until it is dropped. A lane without room is not read, so QUIC's flow
//! control stops the peer's lane; the other lanes go on. That is the whole back-pressure: no queue here grows by what a peer sends.

use std::{
    fmt,
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::{Buf, Bytes, BytesMut};
use quinn::{ReadError, RecvStream};
use tokio::sync::{Notify, mpsc};

use crate::codec::Reader;

use super::{
    close::CloseCode,
    lanes::{FRAME_HEADER_BYTES_MAX, FRAME_MAX, LinkEvent},
};

/// How much of one lane may be delivered and not yet dropped.
const LANE_ROOM_BYTES: usize = 512 << 10;

/// The same over all lanes of a connection.
const CONNECTION_ROOM_BYTES: usize = 8 << 20;

/// How much of frames that have not arrived completely a connection may hold. Honest peers send frames of a fraction of [`FRAME_MAX`] and come
/// nowhere near; it keeps a faulty one from having [`FRAME_MAX`] reserved on thousands of lanes.
const PARTIAL_BYTES_MAX: usize = 128 << 20;

/// What a frame costs besides its bytes, so that empty frames are not free.
const FRAME_OVERHEAD_BYTES: usize = 64;

/// How many packets' payloads are taken from a stream at once.
const CHUNKS: usize = 64;

/// One frame as it arrived. Dropping it gives its room back to its lane: hold on to it to slow that lane down, and only that one.
pub struct Frame {
    bytes: Bytes,
    room: Arc<LaneRoom>,
}

impl Frame {
    /// The bytes alone; the room is given back at once.
    pub fn into_bytes(self) -> Bytes {
        self.bytes.clone()
    }

    /// The bytes, sharing the frame's memory.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    fn cost(&self) -> usize {
        self.bytes.len() + FRAME_OVERHEAD_BYTES
    }
}

impl Deref for Frame {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        let cost = self.cost();
        self.room.own.give_back(cost);
        self.room.shared.give_back(cost);
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({} bytes)", self.bytes.len())
    }
}

/// A count of bytes with a limit that may be overshot once, and a bell for when it is no longer reached.
struct Room {
    used: AtomicUsize,
    limit: usize,
    freed: Notify,
}

impl Room {
    fn new(limit: usize) -> Self {
        Room { used: AtomicUsize::new(0), limit, freed: Notify::new() }
    }

    fn take(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::AcqRel);
    }

    fn give_back(&self, bytes: usize) {
        let before = self.used.fetch_sub(bytes, Ordering::AcqRel);
        if before >= self.limit && before - bytes < self.limit {
            self.freed.notify_waiters();
        }
    }

    fn is_full(&self) -> bool {
        self.used.load(Ordering::Acquire) >= self.limit
    }

    async fn wait(&self) {
        while self.is_full() {
            // Registered before the second look, so that a bell rung in between is heard.
            let freed = self.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            if !self.is_full() {
                return;
            }
            freed.await;
        }
    }
}

struct LaneRoom {
    own: Room,
    shared: Arc<Room>,
}

/// What the lanes of one connection share.
pub(super) struct Inbox {
    link: u64,
    events: mpsc::UnboundedSender<LinkEvent>,
    room: Arc<Room>,
    partial: AtomicUsize,
}

impl Inbox {
    pub(super) fn new(link: u64, events: mpsc::UnboundedSender<LinkEvent>) -> Arc<Self> {
        Arc::new(Inbox { link, events, room: Arc::new(Room::new(CONNECTION_ROOM_BYTES)), partial: AtomicUsize::new(0) })
    }
}

/// Why a connection has to be closed over what came on a lane.
pub(super) type Fault = (CloseCode, String);

/// The lane that a stream belongs to: its first four bytes. `None` if the stream or the connection ended first.
pub(super) async fn read_lane(stream: &mut RecvStream) -> Option<u32> {
    let mut number = [0; 4];
    stream.read_exact(&mut number).await.ok()?;
    Some(u32::from_le_bytes(number))
}

/// Delivers a lane's frames until its end (no fault) or the connection's.
pub(super) async fn read_frames(inbox: Arc<Inbox>, lane: u32, mut stream: RecvStream) -> Result<(), Fault> {
    let room = Arc::new(LaneRoom { own: Room::new(LANE_ROOM_BYTES), shared: inbox.room.clone() });
    let mut partial = Partial { frames: Deframer::default(), counted: 0, inbox: &inbox };
    let mut chunks = [const { Bytes::new() }; CHUNKS];
    loop {
        room.own.wait().await;
        room.shared.wait().await;
        let count = match stream.read_chunks(&mut chunks).await {
            Ok(Some(count)) => count,
            Ok(None) if partial.frames.is_between() => return Ok(()),
            Ok(None) | Err(ReadError::Reset(_)) => return Err((CloseCode::Protocol, format!("lane {lane} ended inside a frame"))),
            // The connection's end is told once, for all lanes.
            Err(_) => return Ok(()),
        };
        for chunk in &mut chunks[..count] {
            partial.frames.push(std::mem::take(chunk));
            while let Some(bytes) = partial.frames.next().map_err(|length| too_large(lane, length))? {
                let frame = Frame { bytes, room: room.clone() };
                room.own.take(frame.cost());
                room.shared.take(frame.cost());
                if inbox.events.send(LinkEvent::Received { link: inbox.link, lane, frame }).is_err() {
                    return Ok(());
                }
            }
        }
        partial.count()?;
    }
}

fn too_large(lane: u32, length: u64) -> Fault {
    (CloseCode::FrameTooLarge, format!("a frame of {length} bytes on lane {lane}; the limit is {FRAME_MAX}"))
}

/// A lane's incomplete frame, counted against the connection's limit for as long as it lives.
struct Partial<'a> {
    frames: Deframer,
    counted: usize,
    inbox: &'a Inbox,
}

impl Partial<'_> {
    fn count(&mut self) -> Result<(), Fault> {
        let now = self.frames.buffer.len();
        let total = match now >= self.counted {
            true => self.inbox.partial.fetch_add(now - self.counted, Ordering::AcqRel) + (now - self.counted),
            false => self.inbox.partial.fetch_sub(self.counted - now, Ordering::AcqRel),
        };
        self.counted = now;
        match total > PARTIAL_BYTES_MAX {
            true => Err((CloseCode::Overloaded, format!("more than {PARTIAL_BYTES_MAX} bytes of unfinished frames"))),
            false => Ok(()),
        }
    }
}

impl Drop for Partial<'_> {
    fn drop(&mut self) {
        self.inbox.partial.fetch_sub(self.counted, Ordering::AcqRel);
    }
}

/// Cuts a stream of bytes into frames: a length, as [`Reader::u64`] reads it, then as many bytes.
#[derive(Default)]
struct Deframer {
    buffer: BytesMut,
}

impl Deframer {
    /// Adds what arrived. Copied, so that a small frame that is kept does not keep the datagrams it came with.
    fn push(&mut self, chunk: Bytes) {
        self.buffer.extend_from_slice(&chunk);
    }

    /// The next complete frame; an error with its length, or what that is at least, if it is announced above [`FRAME_MAX`].
    fn next(&mut self) -> Result<Option<Bytes>, u64> {
        let header = &self.buffer[..self.buffer.len().min(FRAME_HEADER_BYTES_MAX)];
        let mut r = Reader::new("a frame's length", header);
        let length = match r.u64() {
            Ok(length) => length,
            Err(_) if header.len() < FRAME_HEADER_BYTES_MAX => return Ok(None),
            Err(_) => 1 << (7 * FRAME_HEADER_BYTES_MAX),
        };
        if length > FRAME_MAX as u64 {
            return Err(length);
        }
        let (begin, length) = (header.len() - r.rest().len(), length as usize);
        if self.buffer.len() - begin < length {
            return Ok(None);
        }
        self.buffer.advance(begin);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }

    fn is_between(&self) -> bool {
        self.buffer.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::lanes::frame_header, *};

    fn framed(frames: &[Vec<u8>]) -> Vec<u8> {
        frames.iter().flat_map(|frame| frame_header(frame.len()).into_iter().chain(frame.iter().copied())).collect()
    }

    proptest! {
        #[test]
        fn frames_survive_any_cutting(
            frames in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..20),
            cut in 1usize..200,
        ) {
            let mut deframer = Deframer::default();
            let mut found = Vec::new();
            for chunk in framed(&frames).chunks(cut) {
                deframer.push(Bytes::copy_from_slice(chunk));
                while let Some(frame) = deframer.next().unwrap() {
                    found.push(frame.to_vec());
                }
            }
            prop_assert!(deframer.is_between());
            prop_assert_eq!(found, frames);
        }

        #[test]
        fn garbage_is_refused_or_waits_but_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let mut deframer = Deframer::default();
            deframer.push(Bytes::from(bytes));
            while let Ok(Some(frame)) = deframer.next() {
                prop_assert!(frame.len() <= FRAME_MAX);
            }
        }
    }

    #[test]
    fn the_limit_itself_is_allowed() {
        let mut deframer = Deframer::default();
        deframer.push(Bytes::from(frame_header(FRAME_MAX + 1)));
        assert_eq!(deframer.next(), Err(FRAME_MAX as u64 + 1));
        // A length that does not end.
        let mut deframer = Deframer::default();
        deframer.push(Bytes::from_static(&[0xff; 3]));
        assert_eq!(deframer.next(), Ok(None));
        deframer.push(Bytes::from_static(&[0xff]));
        assert_eq!(deframer.next(), Err(1 << 28));
        let mut deframer = Deframer::default();
        deframer.push(Bytes::from(framed(&[vec![1; FRAME_MAX]])));
        assert_eq!(deframer.next().unwrap().map(|frame| frame.len()), Some(FRAME_MAX));
    }
}
