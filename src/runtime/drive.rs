//! The loop: the one task that owns the node and performs what it wants done.
//!
//! ```text
//!   links' frames ─┐                                   ┌─▶ store thread (persist)
//!   clients ───────┤                                   ├─▶ links (frames, as each can take them)
//!   store ─────────┼─▶ Command ─▶ Node ─▶ Outputs ─────┼─▶ sessions (answers, updates)
//!   joins, dials ──┘                                   └─▶ dialling tasks
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use mangrove_crdt::{id::NodeId, standing::Via};
use mangrove_net::link::LinkId;
use mangrove_net::quic::{
    self, Ask, CloseCode, Closed, Endpoint, Identity, JoinRequest, LaneSender, LinkEvent, MeshConnection, Role, Room, SendError, TicketBook,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

use super::attempts::Attempts;
use super::clock::{now, unix_s};
use super::dial::Dialers;
use super::gateway::{Admission, Admitted, Outbox};
use super::tokens::TokenKeys;
use super::vault_names::{FOUNDING, IDENTITY, LEFT, NAME, OPERATOR, TICKETS};
use crate::config::Config;
use crate::node::{ALIASES_MAX, Comer, ConnectionId, Input, Node, Output, Parting, Target, Verify};
use crate::passwords;
use crate::protocol::{
    self, Code, Finding, FromNode, Hello, Login, Refusal, Request, Response, Secret, SessionProof, Severity, Verdict, Welcome,
};
use crate::store::{Batch, Report, StoreError, Sync, Vault, Writer, room_by};

/// How many inputs are taken in before links and sessions are served again: few, since each may bring thousands of values, and links
/// would stand idle meanwhile while those values are overwritten.
const INPUTS_AT_ONCE: usize = 8;

/// Writes are refused when the store takes less than this: what was taken in must still be written.
const ROOM_MIN_BYTES: u64 = 8 << 20;

/// Once they are, they are taken again from here on. What a compaction gives back for a moment does not end it: clients would be refused and
/// taken in by turns.
pub(super) const ROOM_AGAIN_BYTES: u64 = 2 * ROOM_MIN_BYTES;

/// How often to see whether the certificate is to be renewed.
const RENEWAL_EVERY: Duration = Duration::from_secs(3_600);

/// How long a node that ends stays to tell its neighbours again that it does: as long as QUIC keeps a closed connection of that round trip, three
/// times its probe timeout, and no longer than anybody wants to wait for a program to end.
const FAREWELL_MIN: Duration = Duration::from_millis(100);
const FAREWELL_ROUND_TRIPS: u32 = 9;
const FAREWELL_MAX: Duration = Duration::from_secs(1);

/// Something for the loop to do.
pub(super) enum Command {
    /// A connection to a node of the mesh stands.
    Linked(MeshConnection, Option<Target>),
    /// Dialling failed.
    DialFailed { node: Option<NodeId>, error: String },
    /// A node of the mesh will not be dialled by this one, since this one was revoked.
    Outcast { by: Option<NodeId>, said: String },
    /// Somebody wants certificates.
    Join(JoinRequest),
    /// A client wants a session.
    SessionAsked { hello: Hello, admission: Admission, outbox: Outbox, answer: oneshot::Sender<Result<Admitted, Refusal>> },
    /// It was found out whether a client is who it says.
    Verified { session: ConnectionId, verdict: Verdict },
    /// A client asks for something.
    Request { session: ConnectionId, id: u64, request: Result<Request, Refusal>, permit: Option<OwnedSemaphorePermit> },
    /// A client can take more updates.
    Credit { session: ConnectionId, subscription: u32, updates: u32 },
    /// A session's stream can take more.
    SessionWritable,
    /// A client has gone.
    SessionClosed { session: ConnectionId },
    /// The store thread reports.
    Store(Report),
    /// A new certificate was granted, or not.
    Renewed { result: Result<Box<Identity>, String>, asked_by: Option<(ConnectionId, u64)> },
    /// Somebody wants the node to end.
    Stop,
}

struct SessionHandle {
    address: Option<IpAddr>,
    outbox: Outbox,
    permits: BTreeMap<u64, OwnedSemaphorePermit>,
}

/// A client that is on its way in.
struct Coming {
    address: Option<IpAddr>,
    version: u32,
    outbox: Outbox,
    answer: oneshot::Sender<Result<Admitted, Refusal>>,
}

struct LinkHandle {
    lanes: LaneSender,
    blocked: BTreeSet<u32>,
}

/// Everything that the loop owns.
pub(super) struct Drive {
    pub(super) node: Node,
    pub(super) config: Config,
    pub(super) endpoint: Endpoint,
    pub(super) vault: Vault,
    pub(super) writer: Writer,
    pub(super) dialers: Dialers,
    pub(super) commands: mpsc::UnboundedReceiver<Command>,
    pub(super) back: mpsc::UnboundedSender<Command>,
    pub(super) linked: watch::Sender<Arc<BTreeSet<NodeId>>>,
    links: BTreeMap<LinkId, LinkHandle>,
    sessions: BTreeMap<ConnectionId, SessionHandle>,
    coming: BTreeMap<ConnectionId, Coming>,
    pub(super) tokens: Arc<TokenKeys>,
    /// Who may compare a password at present: it takes all of a core, and memory.
    comparing: Arc<Semaphore>,
    attempts: Attempts,
    /// Whether what the mesh is founded with is in the vault, until it is on the disk.
    founding: bool,
    dial_errors: BTreeMap<NodeId, String>,
    /// Why the last dialling of a configured address failed.
    seed_error: Option<String>,
    next_id: u64,
    store_full: bool,
    store_failed: bool,
    renewing: bool,
    stop: bool,
}

#[allow(clippy::too_many_arguments, reason = "called once, with everything that a node has")]
impl Drive {
    pub(super) fn new(
        node: Node,
        config: Config,
        endpoint: Endpoint,
        vault: Vault,
        writer: Writer,
        dialers: Dialers,
        commands: mpsc::UnboundedReceiver<Command>,
        back: mpsc::UnboundedSender<Command>,
        linked: watch::Sender<Arc<BTreeSet<NodeId>>>,
        tokens: Arc<TokenKeys>,
    ) -> Self {
        let founding = vault.get(FOUNDING).is_some();
        Drive {
            node,
            config,
            endpoint,
            vault,
            writer,
            dialers,
            commands,
            back,
            linked,
            links: BTreeMap::new(),
            sessions: BTreeMap::new(),
            coming: BTreeMap::new(),
            tokens,
            comparing: Arc::new(Semaphore::new(std::thread::available_parallelism().map_or(1, |cores| cores.get().div_ceil(2)))),
            attempts: Attempts::default(),
            founding,
            dial_errors: BTreeMap::new(),
            seed_error: None,
            next_id: 0,
            store_full: false,
            store_failed: false,
            renewing: false,
            stop: false,
        }
    }

    /// Runs until the node is told to stop, then stores what is left.
    pub(super) async fn run(mut self) -> Result<(), StoreError> {
        let (events_in, mut events) = mpsc::unbounded_channel();
        self.input(Input::Timeout);
        let mut renewal = tokio::time::interval(RENEWAL_EVERY);
        while !self.stop {
            self.serve();
            let due = self.node.poll_timeout().map(|(due, _)| due.since(now().at));
            let sleep = tokio::time::sleep(due.unwrap_or(Duration::from_secs(60)));
            tokio::select! {
                Some(event) = events.recv() => self.link_event(event),
                Some(command) = self.commands.recv() => self.command(command, &events_in),
                () = sleep => self.input(Input::Timeout),
                _ = renewal.tick() => self.renew_if_due(),
            }
            for _ in 0..INPUTS_AT_ONCE {
                if let Ok(event) = events.try_recv() {
                    self.link_event(event);
                } else if let Ok(command) = self.commands.try_recv() {
                    self.command(command, &events_in);
                } else {
                    break;
                }
            }
            if self.node.poll_timeout().is_some_and(|(due, _)| due <= now().at) {
                self.input(Input::Timeout);
            }
        }
        self.end().await
    }

    /// Stores what is left, tells everyone, and closes.
    async fn end(mut self) -> Result<(), StoreError> {
        for session in self.sessions.values() {
            session.outbox.send(FromNode::Closing(Refusal::new(Code::Closing, "session", "the node is ending")), None);
        }
        if let Some((rows, mark)) = self.node.take_rest() {
            self.writer.send(Batch { number: mark, rows, sync: Sync::Disk });
        }
        drop(self.dialers);
        // A moment for the last answers to leave.
        tokio::time::sleep(Duration::from_millis(50)).await;
        let round_trip = self.links.values().map(|link| link.lanes.stats().round_trip).max().unwrap_or_default();
        self.endpoint.close(CloseCode::Done, "the node is ending");
        // The word goes out at once; this is for whom it does not reach the first time. Without a bound it would be for connections, too, that
        // are still being dialled, of which QUIC expects seconds.
        let farewell = (FAREWELL_MIN + FAREWELL_ROUND_TRIPS * round_trip).min(FAREWELL_MAX);
        let _ = tokio::time::timeout(farewell, self.endpoint.wait_idle()).await;
        let writer = self.writer;
        tokio::task::spawn_blocking(move || writer.close()).await.unwrap_or(Ok(()))
    }

    /// Serves links and sessions: whatever they can take.
    fn serve(&mut self) {
        let present = now();
        for (id, link) in &mut self.links {
            while let Some(frame) = self.node.poll_transmit(present, *id, &|lane| link.blocked.contains(&lane)) {
                match link.lanes.send(frame.lane, frame.priority, frame.bytes) {
                    Ok(Room::Open) => {}
                    Ok(Room::Blocked) => {
                        link.blocked.insert(frame.lane);
                    }
                    Err(SendError::Closed) => break,
                    Err(error) => {
                        // The frame is lost to its lane, so the link cannot go on; it comes again over a new one.
                        tracing::error!(link = id.0, %error, "a frame could not be sent");
                        link.lanes.close(CloseCode::Protocol, "a frame could not be sent");
                        break;
                    }
                }
            }
        }
        for (id, session) in &self.sessions {
            while session.outbox.has_room() {
                let Some(message) = self.node.poll_updates(now(), *id) else { break };
                session.outbox.send(message, None);
            }
        }
    }

    fn input(&mut self, input: Input<'_>) {
        let outputs: Vec<Output> = self.node.handle_input(now(), input).collect();
        for output in outputs {
            self.perform(output);
        }
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Persist { rows, mark, sync } => {
                let sync = if sync { Sync::Disk } else { Sync::Buffered };
                self.writer.send(Batch { number: mark, rows, sync });
            }
            Output::Send { session, message } => self.send(session, message),
            Output::Verify { session, verify } => self.verify(session, verify),
            Output::Judged { session, result } => self.let_in(session, result),
            Output::Hangup { link, why, reason } => {
                if let Some(link) = self.links.get(&link) {
                    let code = match why {
                        Parting::Violation => CloseCode::Protocol,
                        Parting::Superseded => CloseCode::Superseded,
                        Parting::Surplus => CloseCode::Done,
                        Parting::Blocked => CloseCode::Blocked,
                        Parting::Revoked => CloseCode::Revoked,
                    };
                    link.lanes.close(code, &reason);
                }
            }
            Output::Dial(targets) => self.dialers.set(targets),
            Output::Trust { nodes, revoked } => {
                self.endpoint.revocations().update(|known| {
                    known.known_nodes = nodes.iter().map(|(node, _)| *node).collect();
                    known.known_authorities = nodes.iter().filter_map(|(_, authority)| authority.map(quic::AuthorityId)).collect();
                    known.authorities = revoked.iter().filter_map(|revoked| revoked.authority.map(quic::AuthorityId)).collect();
                    known.nodes = revoked.into_iter().map(|revoked| (revoked.node, revoked.said)).collect();
                });
            }
            Output::Stop { left } => {
                let noted = if left { self.vault.put(LEFT, &[]) } else { Ok(()) };
                if let Err(error) = noted {
                    tracing::error!(%error, "it could not be noted that this node has left its mesh: do not start it again");
                }
                self.stop = true;
            }
        }
    }

    fn send(&mut self, id: ConnectionId, message: FromNode) {
        if let Some(session) = self.sessions.get_mut(&id) {
            let permit = match &message {
                FromNode::Response { id, .. } => session.permits.remove(id),
                _ => None,
            };
            if let FromNode::Response { response: Response::Refused(refusal), .. } = &message {
                count_wrong(&mut self.attempts, session.address, refusal);
            }
            session.outbox.send(message, permit);
        }
    }

    fn respond(&mut self, session: ConnectionId, id: u64, response: Response) {
        self.send(session, FromNode::Response { id, response });
    }

    fn link_event(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Received { link, lane, frame } => self.input(Input::Frame { link: LinkId(link), lane, bytes: frame.bytes() }),
            LinkEvent::Writable { link, lane } => {
                if let Some(link) = self.links.get_mut(&LinkId(link)) {
                    link.blocked.remove(&lane);
                }
            }
            LinkEvent::Closed { link, reason } => {
                let id = LinkId(link);
                if let Some(handle) = self.links.remove(&id) {
                    let peer = handle.lanes.peer();
                    self.dial_errors.insert(peer, reason.to_string());
                    if let Closed::Peer { code: Some(CloseCode::Revoked), reason } = &reason {
                        self.input(Input::Outcast { by: Some(peer), said: reason.clone() });
                    }
                }
                self.input(Input::LinkDown { link: id, reason: reason.to_string() });
                self.tell_linked();
            }
        }
    }

    fn tell_linked(&self) {
        self.linked.send_replace(Arc::new(self.links.values().map(|link| link.lanes.peer()).collect()));
    }

    fn command(&mut self, command: Command, events: &mpsc::UnboundedSender<LinkEvent>) {
        match command {
            Command::Linked(connection, dialled) => {
                let (peer, address) = (connection.peer(), connection.remote_address().to_string());
                self.next_id += 1;
                let link = LinkId(self.next_id);
                let lanes = connection.start(link.0, events.clone());
                self.links.insert(link, LinkHandle { lanes, blocked: BTreeSet::new() });
                self.dial_errors.remove(&peer);
                self.tell_linked();
                self.input(Input::LinkUp { link, peer, address, dialled });
            }
            Command::DialFailed { node, error } => {
                match node {
                    Some(node) => drop(self.dial_errors.insert(node, error)),
                    // Until its address has answered once, nobody knows which node it is.
                    None => self.seed_error = Some(error),
                }
            }
            Command::Outcast { by, said } => self.input(Input::Outcast { by, said }),
            Command::Join(request) => self.join(request),
            Command::SessionAsked { hello, admission, outbox, answer } => self.admit(hello, admission, outbox, answer),
            Command::Verified { session, verdict } => self.input(Input::Verified { session, verdict }),
            Command::Request { session, id, request, permit } => {
                if let (Some(session), Some(permit)) = (self.sessions.get_mut(&session), permit) {
                    session.permits.insert(id, permit);
                }
                match request {
                    Ok(request) => self.request(session, id, request),
                    Err(refusal) => self.respond(session, id, Response::Refused(refusal)),
                }
            }
            Command::Credit { session, subscription, updates } => self.input(Input::Credit { session, subscription, updates }),
            // Being woken is all: links and sessions are served after every command.
            Command::SessionWritable => {}
            Command::SessionClosed { session } => {
                self.sessions.remove(&session);
                self.coming.remove(&session);
                self.input(Input::SessionClosed { session });
            }
            Command::Store(report) => self.store_report(report),
            Command::Renewed { result, asked_by } => self.renewed(result, asked_by),
            Command::Stop => self.stop = true,
        }
    }

    // Sessions.

    /// Lets a client in, or finds out whether it may come in.
    fn admit(&mut self, hello: Hello, admission: Admission, outbox: Outbox, answer: oneshot::Sender<Result<Admitted, Refusal>>) {
        let Hello { version, token, client, aliases_max, session: proof, login, properties, bases_bytes: _, compressed: _ } = hello;
        let mut entropy = [0; 32];
        let sound = match version {
            0 => Err(Refusal::new(Code::Unsupported, "session", "there is no protocol version 0")),
            _ => getrandom::fill(&mut entropy).map_err(|error| Refusal::new(Code::Internal, "session", error.to_string())),
        };
        self.next_id += 1;
        let session = ConnectionId(self.next_id);
        let aliases_max = aliases_max.min(ALIASES_MAX);
        let address = match admission {
            Admission::From(address) => Some(address.to_canonical()),
            Admission::Inside => None,
        };
        let via = Via { transport: if address.is_some() { "quic" } else { "in-process" }.into(), address };
        self.coming.insert(session, Coming { address, version, outbox, answer });
        if let (Ok(()), None, Some(login)) = (&sound, &proof, login) {
            if let Err(refusal) = self.may_try(address, &login) {
                return self.let_in(session, Err(refusal));
            }
            let comer = Comer { client, via, aliases_max, entropy, login, properties };
            return self.input(Input::LoginAsked { session, comer });
        }
        let comes_back = proof.is_some();
        let known = sound.and_then(|()| match proof {
            Some(SessionProof { id, secret }) => self.node.knows_session(id, &secret),
            None if admission == Admission::Inside => Ok(()),
            None => self.knows_operator(&token),
        });
        let known_too = known.is_ok();
        self.let_in(session, known);
        if known_too {
            self.input(Input::SessionOpened { session, client, via, aliases_max, entropy, comes_back });
        }
    }

    /// Whether what somebody shows is looked at.
    fn may_try(&self, address: Option<IpAddr>, login: &Login) -> Result<(), Refusal> {
        let wait = match (address, login) {
            (None, _) | (_, Login::Anonymous) => Duration::ZERO,
            (Some(address), Login::Password { .. } | Login::Token(_)) => self.attempts.wait(now().at, address),
        };
        match wait {
            Duration::ZERO => Ok(()),
            wait => Err(Refusal::new(Code::Throttled, "session", "too many wrong passwords or tokens have come from this address")
                .hint(format!("wait for {} s", wait.as_secs().max(1)))),
        }
    }

    fn knows_operator(&self, token: &Secret) -> Result<(), Refusal> {
        let known = self.vault.get(OPERATOR).and_then(|hash| <[u8; 32]>::try_from(hash).ok()).map(blake3::Hash::from);
        // Comparing hashes takes the same time wherever they differ.
        match known == Some(blake3::hash(token.bytes())) {
            true => Ok(()),
            false => Err(Refusal::new(Code::BadCredential, "session", "this node does not know the token")
                .hint("use the operator.toml that the node wrote, by --credential or --data, or log in: mangrove login")),
        }
    }

    /// Tells a client whether it is let in. What the node says to it comes after that.
    fn let_in(&mut self, session: ConnectionId, result: Result<(), Refusal>) {
        let Some(Coming { address, version, outbox, answer }) = self.coming.remove(&session) else { return };
        if let Err(refusal) = &result {
            count_wrong(&mut self.attempts, address, refusal);
        }
        let admitted = result.map(|()| {
            self.sessions.insert(session, SessionHandle { address, outbox, permits: BTreeMap::new() });
            let welcome = Welcome {
                version: version.min(protocol::VERSION),
                session: session.0,
                node: self.node.id(),
                name: self.node.config().name.clone(),
                mesh: self.node.config().mesh,
                program: env!("CARGO_PKG_VERSION").into(),
                aliases_max: ALIASES_MAX,
                bases_bytes: protocol::BASES_BYTES,
                compressed: true,
            };
            Admitted { session, welcome }
        });
        // A client that has gone meanwhile is told of by its reader.
        let _ = answer.send(admitted);
    }

    /// Finds out, off the loop, whether a client is who it says.
    fn verify(&mut self, session: ConnectionId, verify: Verify) {
        let (back, comparing, tokens) = (self.back.clone(), self.comparing.clone(), self.tokens.clone());
        tokio::spawn(async move {
            // The semaphore is never closed.
            let permit = comparing.acquire_owned().await;
            let found = tokio::task::spawn_blocking(move || {
                let _permit = permit;
                match verify {
                    Verify::Password { hash, password } => match passwords::is_of(hash.as_deref(), password.bytes()) {
                        true => Verdict::allow(),
                        false => Verdict::Deny,
                    },
                    Verify::Token(token) => tokens.judge(token.bytes()),
                }
            });
            let verdict = found.await.unwrap_or(Verdict::Deny);
            let _ = back.send(Command::Verified { session, verdict });
        });
    }

    /// What only the driver can answer, or complete; the rest is for the node.
    fn request(&mut self, session: ConnectionId, id: u64, request: Request) {
        let permitted = self.node.permit(session, &request).and_then(|()| match &request {
            Request::Reauthenticate(login) => self.may_try(self.sessions.get(&session).and_then(|session| session.address), login),
            _ => Ok(()),
        });
        if let Err(refusal) = permitted {
            return self.respond(session, id, Response::Refused(refusal));
        }
        let response = match request {
            Request::Status => {
                let mut status = self.node.status(now());
                status.listens = self.endpoint.local_address().map(|address| address.to_string()).into_iter().collect();
                status.disk_bytes = self.writer.bytes();
                status.disk_bytes_max = self.config.disk_max_bytes;
                status.memory_bytes = memory_bytes();
                Response::Status(Box::new(status))
            }
            Request::Links => {
                let mut rows = self.node.link_rows(now());
                for row in &mut rows {
                    if let Some(link) = self.links.values().find(|link| link.lanes.peer() == row.node) {
                        let stats = link.lanes.stats();
                        row.rtt_us = Some(stats.round_trip.as_micros() as u64);
                        row.sent_bytes = stats.sent_bytes;
                        row.received_bytes = stats.received_bytes;
                        row.address = link.lanes.remote_address().to_string();
                    }
                    if row.rtt_us.is_none() {
                        row.error = self.dial_errors.get(&row.node).cloned();
                    }
                }
                Response::Links(rows)
            }
            Request::Config => Response::Text(self.config.show().to_string()),
            Request::Doctor => Response::Findings(self.findings()),
            Request::Invite { role, ttl_ms } => match self.invite(&role, ttl_ms) {
                Ok(response) => response,
                Err(refusal) => Response::Refused(refusal),
            },
            Request::Renew => {
                self.renew(Some((session, id)));
                return;
            }
            Request::Shutdown => {
                self.stop = true;
                Response::Done
            }
            Request::NodeRename { name } => {
                // The name outlives the run, so it goes to the vault as well.
                if let Err(error) = self.vault.put(NAME, name.as_bytes()) {
                    return self.respond(session, id, Response::Refused(store_refusal(&error)));
                }
                return self.input(Input::Request { session, id, request: Request::NodeRename { name } });
            }
            request => return self.input(Input::Request { session, id, request }),
        };
        self.respond(session, id, response);
    }

    /// What the node is concerned about, and beside it what is seen only from here, good and bad.
    fn findings(&mut self) -> Vec<Finding> {
        let mut findings = self.node.concerns();
        let concerned = |check: &str| findings.iter().any(|finding| finding.check == check);
        let (store_takes, outcast) = (!concerned("store"), concerned("membership"));
        let mut found = |severity, check: &str, found: String, hint: &str| {
            findings.push(Finding { severity, check: check.into(), found, hint: hint.into() });
        };
        if store_takes {
            found(Severity::Ok, "store", format!("takes {} bytes", self.writer.bytes()), "");
        }
        let days = self.endpoint.identity().expires().saturating_sub(unix_s()) / 86_400;
        match days {
            0 => found(
                Severity::Error,
                "certificate",
                "expired".into(),
                "link this node to one with the role authority, or: mangrove node renew",
            ),
            1..=30 => {
                found(Severity::Warning, "certificate", format!("expires in {days} days"), "it renews itself once an authority is linked")
            }
            _ => found(Severity::Ok, "certificate", format!("good for {days} days"), ""),
        }
        let status = self.node.status(now());
        if outcast {
            // It has no links, and need not look for any.
        } else if status.links == 0 && (status.nodes > 1 || self.seed_error.is_some()) {
            let errors: Vec<String> = self.dial_errors.values().chain(&self.seed_error).cloned().collect();
            found(
                Severity::Warning,
                "links",
                format!("no neighbour is linked; {}", errors.join("; ")),
                "check addresses and the UDP port of the others",
            );
        } else {
            found(Severity::Ok, "links", format!("{} links, {} of {} nodes reachable", status.links, status.reachable, status.nodes), "");
        }
        if status.unspread_changes > 0 && status.nodes > 1 {
            let text = format!("{} changes ({} bytes) are at no other node yet", status.unspread_changes, status.unspread_bytes);
            found(Severity::Warning, "replication", text, "");
        }
        if self.node.config().authority.is_some() && status.nodes > 1 {
            let authorities = self.node.replica().nodes().values().filter(|record| record.authority).count();
            if authorities < 2 {
                let hint = "invite another with: mangrove invite --role authority";
                found(Severity::Warning, "authorities", "only one node can invite, renew and revoke".into(), hint);
            }
        }
        findings
    }

    // The store.

    fn store_report(&mut self, report: Report) {
        match report {
            Report::Persisted { upto, synced } => {
                self.input(Input::Persisted { released: upto, synced });
                if synced > 0 && std::mem::take(&mut self.founding) {
                    // The first batch has it. Were it said once more, after the data are lost, it would contradict what has been said since.
                    if let Err(error) = self.vault.remove(FOUNDING) {
                        tracing::warn!(%error, "what the mesh was founded with could not be taken out of the vault");
                    }
                }
                let room_min = if self.store_full { ROOM_AGAIN_BYTES } else { ROOM_MIN_BYTES };
                let full = self.writer.room() < room_min;
                if full && !self.store_full {
                    tracing::warn!("the store is nearly full: new writes are refused");
                    let refusal = Refusal::new(Code::Full, "store", "the disk, or the limit set for it, is nearly full");
                    let refusal = refusal.hint(room_by("raise disk_max_bytes"));
                    self.input(Input::StoreFailed { refusal, stuck: false });
                } else if !full && (self.store_full || self.store_failed) {
                    tracing::info!("the store takes writes again");
                    self.input(Input::StoreRecovered);
                }
                self.store_full = full;
                self.store_failed = false;
            }
            Report::Failed { error, retry_in, .. } => {
                if !self.store_failed {
                    match retry_in {
                        Some(_) => tracing::warn!(%error, "the store takes nothing at present; writes are refused meanwhile"),
                        None => tracing::error!(%error, "the store is damaged: writes are refused until the node is started again"),
                    }
                }
                self.store_failed = true;
                self.input(Input::StoreFailed { refusal: store_refusal(&error), stuck: true });
            }
        }
    }

    // Certificates.

    fn invite(&mut self, role: &str, ttl_ms: u64) -> Result<Response, Refusal> {
        let role = match role {
            "member" => Role::Member,
            "authority" => Role::Authority,
            _ => return Err(Refusal::new(Code::InvalidRequest, role, "a role is member or authority")),
        };
        let identity = self.endpoint.identity();
        if identity.authority().is_none() {
            let nodes = self.node.replica().nodes();
            let holders = nodes.values().filter(|record| record.authority).map(|record| record.name.clone());
            return Err(Refusal::new(Code::NotAuthority, "invite", "this node may not invite")
                .hint("ask a node with the role authority")
                .who(holders));
        }
        let addresses = self.node.config().addresses.clone();
        if addresses.is_empty() {
            return Err(Refusal::new(Code::NotReady, "invite", "this node has no address that others could dial")
                .hint("set `advertise`, or invite from a node that can be reached"));
        }
        let mut random = [0; 24];
        getrandom::fill(&mut random).map_err(|error| Refusal::new(Code::Internal, "invite", error.to_string()))?;
        let mut book = self.book()?;
        let lifetime_s = (ttl_ms / 1_000).max(1);
        let ticket = book
            .issue(unix_s(), lifetime_s, identity.mesh(), role, addresses, random)
            .map_err(|error| Refusal::new(Code::TooMany, "invite", error.to_string()))?;
        self.keep(&book)?;
        Ok(Response::Ticket { ticket: ticket.to_string(), expires_unix_ms: ticket.expires * 1_000 })
    }

    fn book(&self) -> Result<TicketBook, Refusal> {
        match self.vault.get(TICKETS) {
            None => Ok(TicketBook::default()),
            Some(bytes) => minicbor::decode(bytes).map_err(|error| Refusal::new(Code::Internal, "tickets", error.to_string())),
        }
    }

    fn keep(&mut self, book: &TicketBook) -> Result<(), Refusal> {
        let bytes = minicbor::to_vec(book).expect("encoding to memory");
        self.vault.put(TICKETS, &bytes).map_err(|error| store_refusal(&error))
    }

    fn join(&mut self, request: JoinRequest) {
        match self.certify(&request) {
            Ok(certificates) => {
                tracing::info!(node = %request.node_key.node().short(), name = request.name, "certified a node");
                tokio::spawn(request.grant(certificates));
            }
            Err(reason) => {
                tracing::warn!(remote = %request.remote, reason, "refused to certify a node");
                tokio::spawn(async move { request.refuse(&reason).await });
            }
        }
    }

    fn certify(&mut self, request: &JoinRequest) -> Result<quic::Certificates, String> {
        let identity = self.endpoint.identity();
        let authority = identity.authority().ok_or("this node may not certify others: ask a node with the role authority")?;
        let node = request.node_key.node();
        if self.endpoint.revocations().is_revoked(node) {
            return Err("this node was revoked".into());
        }
        let role = match &request.ask {
            Ask::Ticket { id, secret } => {
                let mut book = self.book().map_err(|refusal| refusal.to_string())?;
                let role = book.redeem(unix_s(), *id, secret, node).map_err(|error| error.to_string())?;
                self.keep(&book).map_err(|refusal| refusal.to_string())?;
                role
            }
            Ask::Renewal { node } if self.node.replica().node(*node).is_some_and(|record| record.authority) => Role::Authority,
            Ask::Renewal { .. } => Role::Member,
        };
        let authority_key = if role == Role::Authority { request.authority_key.as_ref() } else { None };
        authority.certify(unix_s(), &request.node_key, authority_key).map_err(|error| error.to_string())
    }

    fn renew_if_due(&mut self) {
        if self.endpoint.identity().renewal_due(unix_s()) {
            tracing::warn!("the certificate is to be renewed");
            self.renew(None);
        }
    }

    /// Gets a new certificate: from its own authority key, or from a linked node with that role.
    fn renew(&mut self, asked_by: Option<(ConnectionId, u64)>) {
        if std::mem::replace(&mut self.renewing, true) {
            if let Some((session, id)) = asked_by {
                let refusal = Refusal::new(Code::NotReady, "renew", "a renewal is under way");
                self.respond(session, id, Response::Refused(refusal));
            }
            return;
        }
        let identity = self.endpoint.identity();
        if let Some(renewed) = identity.renewed_by_itself(unix_s()).transpose() {
            let result = renewed.map(Box::new).map_err(|error| error.to_string());
            return self.renewed(result, asked_by);
        }
        let addresses: Vec<String> =
            self.node.replica().nodes().values().filter(|record| record.authority).flat_map(|record| record.addresses.clone()).collect();
        let (endpoint, name, back) = (self.endpoint.clone(), self.node.config().name.clone(), self.back.clone());
        tokio::spawn(async move {
            let mut result = Err("no node with the role authority is known".to_owned());
            'addresses: for address in addresses {
                for address in quic::endpoint::resolve(&address).await.unwrap_or_default() {
                    result = quic::join::renew(&endpoint, address, &name).await.map(Box::new).map_err(|error| error.to_string());
                    if result.is_ok() {
                        break 'addresses;
                    }
                }
            }
            let _ = back.send(Command::Renewed { result, asked_by });
        });
    }

    fn renewed(&mut self, result: Result<Box<Identity>, String>, asked_by: Option<(ConnectionId, u64)>) {
        self.renewing = false;
        let kept = result.and_then(|identity| {
            self.vault.put(IDENTITY, &identity.to_bytes()).map_err(|error| error.to_string())?;
            self.endpoint.set_identity(&identity).map_err(|error| error.to_string())?;
            Ok(identity.expires())
        });
        match &kept {
            Ok(expires) => {
                tracing::info!(expires, "the certificate was renewed");
                self.input(Input::Renewed { expires_s: *expires });
            }
            Err(error) => tracing::warn!(error, "the certificate could not be renewed"),
        }
        if let Some((session, id)) = asked_by {
            let response = match kept {
                Ok(expires) => Response::Renewed { expires_unix_ms: expires * 1_000 },
                Err(error) => {
                    let refusal = Refusal::new(Code::NotReady, "renew", error);
                    Response::Refused(refusal.hint("link this node to one with the role authority"))
                }
            };
            self.respond(session, id, response);
        }
    }
}

/// Remembers whom a refusal goes to, if it is for something wrong that was shown.
fn count_wrong(attempts: &mut Attempts, address: Option<IpAddr>, refusal: &Refusal) {
    if let (Some(address), Code::BadCredential) = (address, refusal.code) {
        attempts.wrong(now().at, address);
    }
}

fn store_refusal(error: &StoreError) -> Refusal {
    match error {
        StoreError::Full { place, what, remedy } => {
            Refusal::new(Code::Full, "store", format!("{place} is full: {what}")).hint(room_by(remedy))
        }
        StoreError::ReadOnly { .. } => Refusal::new(Code::ReadOnly, "store", error.to_string()),
        _ => Refusal::new(Code::Internal, "store", error.to_string()),
    }
}

/// What the process takes of memory.
fn memory_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0);
    pages * rustix::param::page_size() as u64
}
