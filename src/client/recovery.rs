//! Going on after a loss: the session is taken up again at whatever node can be reached.
//!
//! `Active → Recovering → Active`, as often as needed. One task watches over the connection of a client. When it is lost, the task tries all nodes of which it knows, the
//! last one first, with pauses that grow and are drawn at random, so that a thousand clients of a lost node do not come as one. A node takes the session up
//! by its secret; no login is needed. Then what can be asked again is asked again, and each subscription goes on from what it has seen.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use mangrove_crdt::id::SessionId;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::session::{Link, Session, within};
use super::table::{Resumed, Table, Waiter};
use super::wire::{self, Loss, Wire};
use super::{ClientError, SessionOptions};
use crate::protocol::{Code, OpenSession, Request, Response, Secret, SessionProof};

/// The pause after the first round in which no node took the session up. Each next one is twice as long.
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// How long one node may take to be reached, and then to take the session up.
const DIAL: Duration = Duration::from_secs(2);
const ATTEMPT: Duration = Duration::from_secs(10);
/// How much later than the one before each next node is dialled.
const STAGGER: Duration = Duration::from_millis(250);
/// For how long nodes may not know the session, since they have yet to hear of it.
const UNHEARD: Duration = Duration::from_secs(5);
/// How often the nodes of the mesh are asked for.
const NODES_EVERY: Duration = Duration::from_secs(60);

/// A session that outlives its connections, as its client knows it.
pub(super) struct Recovery {
    pub(super) options: SessionOptions,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    id: SessionId,
    secret: Secret,
    epoch: u32,
    reconnect_timeout: Duration,
    /// Where nodes can be reached, as they said themselves.
    nodes: Vec<String>,
}

impl Recovery {
    pub(super) fn new(options: SessionOptions) -> Self {
        Recovery { options, known: Mutex::default() }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a node has said of the session.
    pub(super) fn note(&self, open: &OpenSession) {
        let mut known = self.lock();
        (known.id, known.epoch) = (open.id, open.epoch);
        known.reconnect_timeout = Duration::from_millis(open.reconnect_timeout_ms);
        if !open.secret.is_empty() {
            known.secret.clone_from(&open.secret);
        }
    }

    /// The session's id.
    pub(super) fn id(&self) -> SessionId {
        self.lock().id
    }

    fn proof(&self) -> (SessionProof, u32) {
        let known = self.lock();
        (SessionProof { id: known.id, secret: known.secret.clone() }, known.epoch)
    }

    /// All places where a node may be, the last one first.
    fn places(&self, last: &str) -> Vec<String> {
        let known = self.lock();
        let mut places = vec![last.to_owned()];
        for place in self.options.nodes.iter().chain(&known.nodes) {
            if !places.contains(place) {
                places.push(place.clone());
            }
        }
        let others = &mut places[1..];
        for at in (1..others.len()).rev() {
            others.swap(at, (draw() % (at as u64 + 1)) as usize);
        }
        places
    }
}

/// A number drawn at random; where there is none to be had, 0 does as well.
fn draw() -> u64 {
    let mut bytes = [0; 8];
    let _ = getrandom::fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

/// Watches over the connection of a client, for as long as there is the client.
pub(super) async fn recover(session: Weak<Session>, mut present: u64, mut lost: mpsc::UnboundedReceiver<Loss>) {
    let mut nodes_due = Instant::now();
    loop {
        let recovers = session.upgrade().is_some_and(|session| session.recovery.is_some());
        let loss = tokio::select! {
            loss = lost.recv() => loss,
            () = tokio::time::sleep_until(nodes_due), if recovers => {
                nodes_due = Instant::now() + NODES_EVERY;
                let Some(session) = session.upgrade() else { return };
                // Beside this task, which it may have to wait for.
                tokio::spawn(async move { tokio::time::timeout(ATTEMPT, learn_nodes(&session)).await });
                continue;
            }
        };
        let Some((number, error)) = loss else { return };
        if number != present {
            continue;
        }
        let Some(session) = session.upgrade() else { return };
        if matches!(&*session.link.borrow(), Link::Over(_)) {
            session.with_table(|table| table.fail(error));
            return;
        }
        let last = match &*session.link.borrow() {
            Link::Up(wire) => wire.address.clone(),
            _ => session.options.address.clone(),
        };
        let Some(recovery) = session.recovery.as_ref().filter(|_| may_go_on(&error)) else { return session.fail(error) };
        session.with_table(Table::lost);
        session.link.send_replace(Link::Down);
        tracing::debug!(%error, "the connection is lost, and its session is to be taken up elsewhere");
        match take_up(&session, recovery, &last, error).await {
            Ok(number) => (present, nodes_due) = (number, Instant::now()),
            Err(error) => return session.fail(error),
        }
    }
}

/// Whether another node may go on after such a loss.
fn may_go_on(error: &ClientError) -> bool {
    match error {
        ClientError::Refused(refusal) => refusal.code == Code::Closing,
        ClientError::Lost { .. } => true,
        _ => false,
    }
}

async fn take_up(session: &Arc<Session>, recovery: &Recovery, last: &str, error: ClientError) -> Result<u64, ClientError> {
    let began = Instant::now();
    let timeout = recovery.lock().reconnect_timeout;
    let mut pause = PAUSE_MIN;
    loop {
        let (mut unknown, mut others) = (None, false);
        session.with_table(Table::lost);
        let mut dialling = dial_all(session, recovery, last);
        while let Some(dialled) = dialling.join_next().await {
            // Nobody is left who would want it: this task alone has it.
            if matches!(&*session.link.borrow(), Link::Over(_)) || Arc::strong_count(session) == 1 {
                return Err(error);
            }
            let Ok((place, dialled)) = dialled else { continue };
            let attempt = async { attempt(session, recovery, &place, dialled?).await };
            match within(ATTEMPT, &place, attempt).await {
                Ok(number) => return Ok(number),
                Err(ClientError::Refused(refusal)) if refusal.code == Code::UnknownSession => unknown = Some(refusal),
                Err(error) => {
                    tracing::debug!(place, %error, "the session was not taken up here");
                    others = true;
                }
            }
            session.with_table(Table::lost);
        }
        let away = began.elapsed();
        match unknown {
            // All who could be asked have heard of its end.
            Some(refusal) if (!others && away >= UNHEARD) || away >= timeout => return Err(refusal.into()),
            _ if away >= timeout => return Err(error),
            _ => {}
        }
        let most = pause.as_millis() as u64;
        tokio::time::sleep(Duration::from_millis(most / 2 + draw() % (most / 2 + 1))).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

type Dialled = (wire::Connection, quinn::SendStream, quinn::RecvStream);

/// Dials all nodes, each next one a little later; what comes of it as it comes.
fn dial_all(session: &Session, recovery: &Recovery, last: &str) -> JoinSet<(String, Result<Dialled, ClientError>)> {
    let (mesh, silence) = (session.options.mesh, recovery.options.silence);
    let mut dialling = JoinSet::new();
    for (number, place) in recovery.places(last).into_iter().enumerate() {
        dialling.spawn(async move {
            tokio::time::sleep(STAGGER * number as u32).await;
            let dialled = tokio::time::timeout(DIAL, wire::dial(&place, mesh, Some(silence))).await;
            let dialled = dialled.unwrap_or_else(|_| Err(format!("no answer within {DIAL:?}")));
            let dialled = dialled.map_err(|cause| ClientError::Unreachable { address: place.clone(), cause });
            (place, dialled)
        });
    }
    dialling
}

async fn attempt(session: &Arc<Session>, recovery: &Recovery, place: &str, dialled: Dialled) -> Result<u64, ClientError> {
    let (connection, send, receive) = dialled;
    let (proof, epoch) = recovery.proof();
    let (id, secret) = (proof.id, proof.secret.clone());
    let (number, wire) = session.open_wire(place, (receive, send), Some(proof), Some(connection)).await?;
    let (sender, receiver) = oneshot::channel();
    let request = Request::SessionResume { id, secret, epoch };
    let answer = session.ask_for(&wire, request, Waiter::Resumed(sender), receiver).await?.answer().await?;
    let Resumed { session: open, strays } = answer.map_err(ClientError::Refused)?;
    recovery.note(&open);
    go_on(session, &wire, strays).await?;
    session.up(wire);
    Ok(number)
}

/// What was under way goes on here: sources of which nobody knows are closed, requests are asked again, and subscriptions go on from what they have seen.
async fn go_on(session: &Arc<Session>, wire: &Arc<Wire>, strays: Vec<u32>) -> Result<(), ClientError> {
    for source in strays {
        session.ask_on(wire, Request::SourceClose { source }).await?;
    }
    let (again, subscriptions, listeners) = session.with_table(|table| {
        table.waiting.values_mut().for_each(|waiting| waiting.asked_again = true);
        let again: Vec<Vec<u8>> = table.waiting.values().filter_map(|waiting| waiting.again.clone()).collect();
        let listeners: Vec<(u64, String)> = table.listeners.iter().map(|(id, listening)| (*id, listening.filter.clone())).collect();
        (again, table.subscriptions.keys().copied().collect::<Vec<_>>(), listeners)
    });
    for frame in again {
        wire.send(frame).await;
    }
    for subscription in subscriptions {
        let Some(request) = session.with_table(|table| table.subscribe(subscription)) else { continue };
        let (_, receiver) = oneshot::channel::<Response>();
        session.ask_for(wire, request, Waiter::Subscription(subscription), receiver).await?;
    }
    for (listener, filter) in listeners {
        let (_, receiver) = oneshot::channel::<Response>();
        session.ask_for(wire, Request::SessionsListen { filter }, Waiter::Listener(listener), receiver).await?;
    }
    Ok(())
}

/// Asks where the nodes of the mesh are. If it cannot be said now, it will be another time.
async fn learn_nodes(session: &Arc<Session>) {
    let Link::Up(wire) = session.link.borrow().clone() else { return };
    let Ok(answer) = session.ask_on(&wire, Request::Addresses).await else { return };
    if let (Ok(Response::Addresses(addresses)), Some(recovery)) = (answer.answer().await, &session.recovery) {
        recovery.lock().nodes = addresses;
    }
}
