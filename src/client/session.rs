//! What all clones of a client share: the present connection, if there is one, and the table of who waits for what.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use super::followed::{Delivery, Followed};
use super::listener::Listening;
use super::recovery::{Recovery, recover};
use super::states::{self, StatesReceiver};
use super::table::{SharedTable, Table, Waiter, Waiting};
use super::wire::{self, Wire, encode};
use super::{ClientError, ClientOptions, ClientState, Hello, Proof, Request, Response, Welcome};
use crate::protocol::{self, FromClient, Secret, SessionProof};

/// How a client is connected.
#[derive(Clone)]
pub(super) enum Link {
    /// It is.
    Up(Arc<Wire>),
    /// It was, and looks for a node.
    Down,
    /// It will be no more.
    Over(ClientError),
}

impl Link {
    pub(super) fn state(&self) -> ClientState {
        match self {
            Link::Up(_) => ClientState::Active,
            Link::Down => ClientState::Recovering,
            Link::Over(_) => ClientState::Closed,
        }
    }
}

pub(super) struct Session {
    pub(super) options: ClientOptions,
    pub(super) table: SharedTable,
    next_id: AtomicU64,
    pub(super) link: watch::Sender<Link>,
    /// Numbers the connections, and takes how they end.
    wires: AtomicU64,
    losses: mpsc::UnboundedSender<wire::Loss>,
    /// The session that outlives connections, if it is to.
    pub(super) recovery: Option<Recovery>,
    /// How the last node introduced itself.
    welcome: Mutex<Option<Arc<Welcome>>>,
}

/// A response that is on its way, with what the reading task made of it.
pub(super) struct Answer<T = Response> {
    receiver: oneshot::Receiver<T>,
    session: Arc<Session>,
}

impl<T> Answer<T> {
    pub(super) async fn answer(self) -> Result<T, ClientError> {
        let Answer { receiver, session } = self;
        match session.options.request_timeout {
            None => receiver.await.map_err(|_| session.failure()),
            Some(limit) => match tokio::time::timeout(limit, receiver).await {
                Ok(answer) => answer.map_err(|_| session.failure()),
                Err(_) => Err(ClientError::TimedOut(limit)),
            },
        }
    }
}

/// Whether a request may be asked again on another connection without doing anything twice.
fn repeats(request: &Request) -> bool {
    use Request::{
        Access, AccessWhy, Addresses, BlobGet, BlobPut, Config, Displaced, DisplacedShow, Doctor, Events, HandlerRegister,
        HandlerUnregister, Links, MissingRegister, MissingUnregister, Nodes, Principals, Roles, SectionShow, Sections, SessionShow,
        Sessions, SourceClaim, SourceShow, Sources, Status, TopicPast, TopicShow, Topics, TopicsAdd, Values,
    };
    let reads = matches!(
        request,
        Status | Nodes | Links | Sections | SectionShow { .. } | Topics { .. } | TopicShow { .. } | Values { .. } | Config | Doctor
    );
    let lists = matches!(
        request,
        TopicPast { .. }
            | Events { .. }
            | Displaced { .. }
            | DisplacedShow { .. }
            | Sources { .. }
            | SourceShow { .. }
            | Sessions { .. }
            | SessionShow { .. }
    );
    let serves = matches!(request, HandlerRegister { .. } | HandlerUnregister { .. } | MissingRegister { .. } | MissingUnregister { .. });
    let rules = matches!(request, Access { .. } | AccessWhy { .. } | Principals { .. } | Roles | Addresses);
    // A topic that is there is no other by being added again, nor is a handler, or a blob; a claim that nobody knows to have been made is closed before.
    reads || lists || rules || serves || matches!(request, TopicsAdd { .. } | SourceClaim { .. } | BlobPut { .. } | BlobGet { .. })
}

impl Session {
    /// A session over its first connection, which is opened by whoever calls.
    pub(super) fn new(options: ClientOptions, recovery: Option<Recovery>) -> (Arc<Session>, mpsc::UnboundedReceiver<wire::Loss>) {
        let (losses, lost) = mpsc::unbounded_channel();
        let (link, _) = watch::channel(Link::Down);
        let (table, next_id, wires, welcome) = Default::default();
        (Arc::new(Session { options, table, next_id, link, wires, losses, recovery, welcome }), lost)
    }

    /// Opens a connection over a pair of streams; for a session's sake where there is one to be taken up.
    pub(super) async fn open_wire<R, W>(
        &self,
        address: &str,
        streams: (R, W),
        session: Option<SessionProof>,
        connection: Option<wire::Connection>,
    ) -> Result<(u64, Arc<Wire>), ClientError>
    where
        R: tokio::io::AsyncRead + Send + Unpin + 'static,
        W: tokio::io::AsyncWrite + Send + Unpin + 'static,
    {
        let (token, login) = match &self.options.proof {
            _ if session.is_some() => (Secret::default(), None),
            Proof::Operator(token) => (Secret::new(*token.bytes()), None),
            Proof::Login(login) => (Secret::default(), Some(login.clone())),
        };
        let (client, aliases_max) = (self.options.name.clone(), self.options.aliases_max);
        let properties = self.options.session.as_ref().map(|session| session.properties.clone()).unwrap_or_default();
        let (bases_bytes, compressed) = (self.options.bases_bytes, self.options.compress);
        let hello = Hello { version: protocol::VERSION, token, client, aliases_max, session, login, properties, bases_bytes, compressed };
        let number = self.wires.fetch_add(1, Ordering::Relaxed) + 1;
        let losses = (number, self.losses.clone());
        let wire = Wire::open(streams, hello, address, self.table.clone(), losses, connection).await?;
        Ok((number, Arc::new(wire)))
    }

    /// From now on this is the connection.
    pub(super) fn up(&self, wire: Arc<Wire>) {
        *self.welcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(wire.welcome.clone()));
        self.link.send_replace(Link::Up(wire));
    }

    /// How the last node introduced itself.
    pub(super) fn welcome(&self) -> Option<Arc<Welcome>> {
        self.welcome.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Watches over the connection: recovers it, or ends the session with it.
    pub(super) fn watch(self: &Arc<Self>, number: u64, lost: mpsc::UnboundedReceiver<wire::Loss>) {
        tokio::spawn(recover(Arc::downgrade(self), number, lost));
    }

    /// Nothing will come any more.
    pub(super) fn fail(&self, error: ClientError) {
        self.table.lock().fail(error.clone());
        self.link.send_replace(Link::Over(error));
    }

    /// The connection, as soon as there is one.
    pub(super) async fn wire(&self) -> Result<Arc<Wire>, ClientError> {
        let mut link = self.link.subscribe();
        loop {
            match &*link.borrow_and_update() {
                Link::Up(wire) => return Ok(Arc::clone(wire)),
                Link::Over(error) => return Err(error.clone()),
                Link::Down => {}
            }
            if link.changed().await.is_err() {
                return Err(self.failure());
            }
        }
    }

    /// Queues a request.
    pub(super) async fn ask(self: &Arc<Self>, request: Request) -> Result<Answer, ClientError> {
        let wire = self.wire().await?;
        self.ask_on(&wire, request).await
    }

    /// The same on a connection that was looked at before.
    pub(super) async fn ask_on(self: &Arc<Self>, wire: &Wire, request: Request) -> Result<Answer, ClientError> {
        let (sender, receiver) = oneshot::channel();
        self.ask_for(wire, request, Waiter::Response(sender), receiver).await
    }

    /// Queues a request whose answer names sources; what is told of them from the answer on is kept.
    pub(super) async fn ask_sources(self: &Arc<Self>, request: Request) -> Result<Answer<(Response, Vec<states::Followed>)>, ClientError> {
        let (sender, receiver) = oneshot::channel();
        let wire = self.wire().await?;
        self.ask_for(&wire, request, Waiter::Sources(sender), receiver).await
    }

    /// Queues a subscription; its number here, and what it is told.
    pub(super) async fn ask_subscribe(
        self: &Arc<Self>,
        selector: &str,
        stamps: bool,
        window: u32,
    ) -> Result<(u64, mpsc::UnboundedReceiver<Delivery>, Answer), ClientError> {
        let wire = self.wire().await?;
        let (sender, deliveries) = mpsc::unbounded_channel();
        let subscription = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (opened, receiver) = oneshot::channel();
        let request = self.with_table(|table| {
            let mut followed = Followed::new(selector, stamps, window, sender, self.recovery.is_some());
            followed.opened = Some(opened);
            table.subscriptions.insert(subscription, followed);
            table.subscribe(subscription)
        });
        let Some(request) = request else { return Err(self.failure()) };
        match self.ask_for(&wire, request, Waiter::Subscription(subscription), receiver).await {
            Ok(answer) => Ok((subscription, deliveries, answer)),
            Err(error) => {
                self.with_table(|table| table.forget(subscription));
                Err(error)
            }
        }
    }

    /// Queues a listener to sessions; its number here.
    pub(super) async fn ask_listen(
        self: &Arc<Self>,
        listening: Listening,
        receiver: oneshot::Receiver<Response>,
    ) -> Result<(u64, Answer), ClientError> {
        let wire = self.wire().await?;
        let listener = self.next_id.fetch_add(1, Ordering::Relaxed);
        let request = Request::SessionsListen { filter: listening.filter.clone() };
        self.with_table(|table| table.listeners.insert(listener, listening));
        match self.ask_for(&wire, request, Waiter::Listener(listener), receiver).await {
            Ok(answer) => Ok((listener, answer)),
            Err(error) => {
                self.with_table(|table| table.listeners.remove(&listener));
                Err(error)
            }
        }
    }

    pub(super) async fn ask_for<T>(
        self: &Arc<Self>,
        wire: &Wire,
        request: Request,
        waiter: Waiter,
        receiver: oneshot::Receiver<T>,
    ) -> Result<Answer<T>, ClientError> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        // Whoever goes on elsewhere asks again there: for what writes, so that it is done once.
        let writes = self.recovery.is_some() && request.writes();
        let again = writes || (self.recovery.is_some() && repeats(&request));
        let (message, frame) = {
            let mut table = self.table.lock();
            if let Some(failure) = &table.failure {
                return Err(failure.clone());
            }
            let once = writes.then(|| table.number_once());
            let request = match once {
                Some((number, floor)) => Request::Once { number, floor, request: Box::new(request) },
                None => request,
            };
            let once = once.map(|(number, _)| number);
            let message = FromClient::Request { id, request };
            let frame = match encode(&message) {
                Ok(frame) => frame,
                Err(error) => {
                    table.forget_once(once);
                    return Err(error);
                }
            };
            if let Waiter::Sources(_) = &waiter {
                table.sources.asked(id);
            }
            table.waiting.insert(id, Waiting { waiter, again: again.then(|| frame.clone()), once, asked_again: false });
            (message, frame)
        };
        let spare = again.then(|| frame.clone());
        // What is asked again may be asked elsewhere, so that is kept whole.
        if !wire.send_short(message, frame).await {
            let Some(frame) = spare else {
                self.table.lock().take_waiting(id);
                return Err(self.failure());
            };
            // It may have come too late to be asked again with the others; whoever is asked twice answers the second time to nobody.
            self.wire().await?.send(frame).await;
        }
        Ok(Answer { receiver, session: Arc::clone(self) })
    }

    /// Gives credit for a subscription back.
    pub(super) async fn credit(&self, subscription: u64, updates: u32) -> Result<(), ClientError> {
        let number = self.table.lock().credit(subscription, updates);
        let link = self.link.borrow().clone();
        if let (Some(number), Link::Up(wire)) = (number, link) {
            // If it is lost with the connection, the next one begins with as much.
            wire.send(encode(&FromClient::Credit { subscription: number, updates })?).await;
        }
        Ok(())
    }

    /// Follows a source no longer. Says whether it was followed by whoever has these states.
    pub(super) fn forget_source(&self, source: u32, states: &StatesReceiver) -> bool {
        self.table.lock().sources.forget(source, states)
    }

    /// Whether nothing comes any more.
    pub(super) fn has_failed(&self) -> bool {
        self.table.lock().failure.is_some()
    }

    /// Why something did not come: the connection was lost, for ever or just then.
    pub(super) fn failure(&self) -> ClientError {
        let table = self.table.lock();
        let lost =
            || ClientError::Lost { address: self.options.address.clone(), cause: "the connection was lost before the answer".into() };
        table.failure.clone().unwrap_or_else(lost)
    }

    /// Ends the connection after what is queued.
    pub(super) async fn close(&self) {
        let link = self.link.borrow().clone();
        let error = ClientError::Lost { address: self.options.address.clone(), cause: "the client has closed it".into() };
        self.link.send_replace(Link::Over(error));
        if let Link::Up(wire) = link {
            wire.close().await;
        }
    }

    pub(super) fn with_table<T>(&self, f: impl FnOnce(&mut Table) -> T) -> T {
        f(&mut self.table.lock())
    }
}

/// How long a whole attempt to reach a node may take, in all.
pub(super) async fn within<T>(
    limit: Duration,
    address: &str,
    attempt: impl Future<Output = Result<T, ClientError>>,
) -> Result<T, ClientError> {
    let unreachable = |cause: String| ClientError::Unreachable { address: address.to_owned(), cause };
    match tokio::time::timeout(limit, attempt).await {
        Ok(Err(ClientError::Lost { cause, .. })) => Err(unreachable(cause)),
        Ok(result) => result,
        Err(_) => Err(unreachable(format!("no answer within {limit:?}"))),
    }
}
