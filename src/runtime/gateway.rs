//! The client gateway: a stream of requests in, a stream of answers and updates out.
//!
//! Whoever reads slowly slows itself down only. A client's requests are taken off its stream while fewer than [`REQUESTS_MAX`] are unanswered;
//! updates are made when the stream has room for them (see [`crate::node::Node::poll_updates`]), so nothing piles up.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use zeroize::Zeroizing;

use super::drive::Command;
use crate::node::ConnectionId;
use crate::protocol::{self, BASES_BYTES, Code, FRAME_MAX, FromClient, FromNode, HELLO_MAX, Refusal, Request, Restore, Shrink, Welcome};

/// How many requests of one session may be unanswered at once.
const REQUESTS_MAX: usize = 64;

/// How many messages may wait for a session's stream before no more updates are made.
pub(super) const QUEUE_AIM: usize = 4;

/// How long a client may take to say who it is.
const HELLO_WITHIN: Duration = Duration::from_secs(10);

/// The loop's end of a session.
#[derive(Debug)]
pub(super) struct Outbox {
    messages: mpsc::UnboundedSender<(FromNode, Option<OwnedSemaphorePermit>)>,
    queued: Arc<AtomicUsize>,
}

impl Outbox {
    /// Queues a message. Responses carry the permit of their request.
    pub(super) fn send(&self, message: FromNode, permit: Option<OwnedSemaphorePermit>) {
        self.queued.fetch_add(1, Ordering::AcqRel);
        // A closed stream is told to the loop by its reader.
        let _ = self.messages.send((message, permit));
    }

    /// Whether more updates may be made.
    pub(super) fn has_room(&self) -> bool {
        self.queued.load(Ordering::Acquire) < QUEUE_AIM
    }
}

/// What the loop answers to a client's hello.
pub(super) struct Admitted {
    pub(super) session: ConnectionId,
    pub(super) welcome: Welcome,
}

/// How a client is let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// By what it shows; it comes from this address.
    From(IpAddr),
    /// It is part of this process.
    Inside,
}

/// Serves one client until either side has had enough.
pub(super) async fn serve<R, W>(mut read: R, mut write: W, commands: mpsc::UnboundedSender<Command>, admission: Admission) -> io::Result<()>
where
    R: AsyncRead + Unpin + Send,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let first = tokio::time::timeout(HELLO_WITHIN, read_frame(&mut read, HELLO_MAX)).await;
    let Ok(Ok(Some(bytes))) = first else { return Ok(()) };
    // It holds what proves who the client is.
    let bytes = Zeroizing::new(bytes);
    let Ok(FromClient::Hello(hello)) = protocol::decode_from_client(&bytes) else {
        return refuse(&mut write, Refusal::new(Code::InvalidRequest, "hello", "the first message must be a hello")).await;
    };
    let shrink = Shrink::new(hello.bases_bytes, hello.compressed);
    let (outgoing, messages) = mpsc::unbounded_channel();
    let queued = Arc::new(AtomicUsize::new(0));
    let outbox = Outbox { messages: outgoing, queued: queued.clone() };
    let (answer, answered) = oneshot::channel();
    if commands.send(Command::SessionAsked { hello, admission, outbox, answer }).is_err() {
        return refuse(&mut write, Refusal::new(Code::Closing, "session", "the node is ending")).await;
    }
    let Admitted { session, welcome } = match answered.await {
        Ok(Ok(admitted)) => admitted,
        Ok(Err(refusal)) => return refuse(&mut write, refusal).await,
        Err(_) => return refuse(&mut write, Refusal::new(Code::Closing, "session", "the node is ending")).await,
    };
    let greeted = async {
        write_message(&mut write, &FromNode::Welcome(welcome)).await?;
        write.flush().await
    };
    if let Err(error) = greeted.await {
        let _ = commands.send(Command::SessionClosed { session });
        return Err(error);
    }
    let writer = tokio::spawn(write_all(write, shrink, messages, queued, commands.clone()));
    let ended = read_all(&mut read, &commands, session).await;
    if let Err(error) = &ended {
        tracing::debug!(session = session.0, %error, "a client's stream ended");
    }
    let _ = commands.send(Command::SessionClosed { session });
    writer.abort();
    Ok(())
}

async fn read_all<R: AsyncRead + Unpin>(read: &mut R, commands: &mpsc::UnboundedSender<Command>, session: ConnectionId) -> io::Result<()> {
    let requests = Arc::new(Semaphore::new(REQUESTS_MAX));
    let mut restore = Restore::new(BASES_BYTES);
    let wrong = |why: String| io::Error::new(io::ErrorKind::InvalidData, why);
    while let Some(bytes) = read_frame(read, FRAME_MAX).await? {
        let mut message = protocol::decode_from_client(&bytes);
        if let Ok(message) = &mut message {
            restore.from_client(message).map_err(|error| wrong(error.to_string()))?;
        }
        let command = match message {
            Ok(FromClient::Request { id, request }) => request_command(&requests, session, id, Ok(request)).await,
            Ok(FromClient::Credit { subscription, updates }) => Command::Credit { session, subscription, updates },
            Ok(FromClient::Hello(_)) => return Err(wrong("a second hello".into())),
            Err(malformed) => match malformed.request {
                Some(id) => {
                    let refusal = Refusal::new(Code::Unsupported, "request", malformed.to_string());
                    request_command(&requests, session, id, Err(refusal.hint("use a node and a client of the same version"))).await
                }
                None => return Err(wrong(malformed.to_string())),
            },
        };
        if commands.send(command).is_err() {
            break;
        }
    }
    Ok(())
}

async fn request_command(requests: &Arc<Semaphore>, session: ConnectionId, id: u64, request: Result<Request, Refusal>) -> Command {
    // The semaphore is never closed; without a permit the request would only go unbounded.
    let permit = requests.clone().acquire_owned().await.ok();
    Command::Request { session, id, request, permit }
}

async fn write_all<W: AsyncWrite + Unpin>(
    mut write: W,
    mut shrink: Shrink,
    mut messages: mpsc::UnboundedReceiver<(FromNode, Option<OwnedSemaphorePermit>)>,
    queued: Arc<AtomicUsize>,
    commands: mpsc::UnboundedSender<Command>,
) -> io::Result<()> {
    let mut buffer = Vec::new();
    while let Some((message, permit)) = messages.recv().await {
        let mut taken = 1;
        buffer.clear();
        put(message, &mut shrink, &mut buffer);
        drop(permit);
        while buffer.len() < protocol::FRAME_AIM {
            let Ok((message, permit)) = messages.try_recv() else { break };
            taken += 1;
            put(message, &mut shrink, &mut buffer);
            drop(permit);
        }
        write.write_all(&buffer).await?;
        write.flush().await?;
        let before = queued.fetch_sub(taken, Ordering::AcqRel);
        if before >= QUEUE_AIM || before == taken {
            let _ = commands.send(Command::SessionWritable);
        }
        if buffer.capacity() > 1 << 20 {
            buffer = Vec::new();
        }
    }
    write.shutdown().await
}

fn put(mut message: FromNode, shrink: &mut Shrink, buffer: &mut Vec<u8>) {
    shrink.from_node(&mut message);
    let put = protocol::put_frame(&message, buffer);
    if let (Err(_), FromNode::Response { id, .. }) = (put, &message) {
        let refusal = Refusal::new(Code::TooLarge, "answer", "the answer is longer than a frame may be").hint("ask for smaller pages");
        let refused = FromNode::Response { id: *id, response: protocol::Response::Refused(refusal) };
        protocol::put_frame(&refused, buffer).expect("a refusal is short");
    }
}

async fn refuse<W: AsyncWrite + Unpin>(write: &mut W, refusal: Refusal) -> io::Result<()> {
    write_message(write, &FromNode::Refused(refusal)).await?;
    write.flush().await?;
    write.shutdown().await
}

async fn write_message<W: AsyncWrite + Unpin>(write: &mut W, message: &FromNode) -> io::Result<()> {
    let frame = protocol::frame(message).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
    write.write_all(&frame).await
}

/// One frame; `None` where the stream ends between two.
async fn read_frame<R: AsyncRead + Unpin>(read: &mut R, limit: usize) -> io::Result<Option<Vec<u8>>> {
    let mut header = [0; 4];
    match read.read_exact(&mut header).await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
        Ok(_) => {}
    }
    let length = protocol::frame_length(header, limit).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
    // What the header claims is only believed as it arrives.
    let mut bytes = Vec::with_capacity(length.min(64 << 10));
    let read_bytes = read.take(length as u64).read_to_end(&mut bytes).await?;
    if read_bytes < length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some(bytes))
}
