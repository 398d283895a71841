//! Sessions that outlive their connection, and update sources.
//!
//! ```no_run
//! # async fn example(client: mangrove::client::Client) -> Result<(), Box<dyn std::error::Error>> {
//! use mangrove::client::ClaimOptions;
//! use mangrove::protocol::{SourceState, TopicSpec};
//!
//! let mut source = client.claim("plant/boiler", ClaimOptions::default()).await?;
//! loop {
//!     match source.changed().await? {
//!         SourceState::Active { .. } => {
//!             // Dies with its epoch: it cannot overwrite what another source has written since.
//!             let mut publisher = source.publisher(Some(TopicSpec::of("int64")));
//!             publisher.set("plant/boiler/rpm", vec![0x19, 0x05, 0xdc]).await?;
//!             println!("{:?}", publisher.finish().await?);
//!         }
//!         SourceState::Closed { why, .. } => break println!("closed: {why}"),
//!         SourceState::Init | SourceState::Standby { .. } => {}
//!     }
//! }
//! # Ok(())
//! # }
//! ```

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use mangrove_crdt::id::SessionId;
use tokio::sync::mpsc;

use super::listener::SessionListener;
use super::publisher::Publisher;
use super::session::Session;
use super::states::{Followed, StatesReceiver};
use super::{Changed, Client, ClientError, Subscription, WriteReport, unexpected};
use crate::protocol::{
    Authority, Change, Code, OpenSession, Page, Refusal, Request, Response, Secret, SessionDetail, SessionRow, SetBatch, SetItem,
    SourceDetail, SourceRow, SourceState, Target, TopicSpec,
};

/// How to claim a branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClaimOptions {
    /// Greater goes first among those who wait.
    pub priority: i32,
    /// Whether to wait where another source has the branch; otherwise that is refused.
    pub wait: bool,
    /// For how long the source stays active after the loss of the connection, at most the session's reconnect timeout; `None` for the node's default.
    pub hold: Option<Duration>,
}

impl Default for ClaimOptions {
    /// Priority 0, waiting, the node's hold time.
    fn default() -> Self {
        ClaimOptions { priority: 0, wait: true, hold: None }
    }
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Subscriptions that others want a client to have.
pub struct GivenSubscriptions {
    client: Client,
    selectors: mpsc::UnboundedReceiver<String>,
}

impl GivenSubscriptions {
    /// The next one, with its selector. Waits for it.
    pub async fn next(&mut self) -> Result<(String, Subscription), ClientError> {
        match self.selectors.recv().await {
            Some(selector) => self.client.subscribe(&selector).await.map(|subscription| (selector, subscription)),
            None => Err(self.client.session.failure()),
        }
    }
}

impl Client {
    /// Lets the session outlive its connection, and be known to the mesh: with the id and secret of the answer, [`Client::resume_session`] takes it up on another
    /// connection. `reconnect_timeout` is for how long; the node may grant less. Claiming opens it, too, with the node's default; asked again, only the timeout changes.
    ///
    /// From now on [`Client::close`] ends the connection, and [`Client::close_session`] the session.
    pub async fn open_session(&self, reconnect_timeout: Option<Duration>) -> Result<OpenSession, ClientError> {
        self.open_session_with(reconnect_timeout, BTreeMap::new()).await
    }

    /// The same, with user properties instead of any before.
    pub async fn open_session_with(
        &self,
        reconnect_timeout: Option<Duration>,
        properties: BTreeMap<String, String>,
    ) -> Result<OpenSession, ClientError> {
        match self.request(Request::SessionOpen { reconnect_timeout_ms: reconnect_timeout.map(ms), properties }).await? {
            Response::Session(session) => Ok(*session),
            other => Err(unexpected(&other)),
        }
    }

    /// Takes up a session whose connection was lost, with the secret that [`Client::open_session`] gave; its sources. What was written under an epoch before is fenced;
    /// those that still hold their branch become active again under another.
    pub async fn resume_session(&self, id: SessionId, secret: &Secret) -> Result<Vec<Source>, ClientError> {
        let request = Request::SessionResume { id, secret: secret.clone(), epoch: 0 };
        match self.session.ask_sources(request).await?.answer().await? {
            (Response::Session(_), followed) => Ok(followed.into_iter().map(|followed| Source::new(self.clone(), followed)).collect()),
            (Response::Refused(refusal), _) => Err(refusal.into()),
            (other, _) => Err(unexpected(&other)),
        }
    }

    /// Ends the session for good, with all its sources. The connection stays, as a new session.
    pub async fn close_session(&self) -> Result<(), ClientError> {
        self.done(Request::SessionClose).await
    }

    /// A page of the mesh's sessions that outlive their connections, and where the next one starts.
    ///
    /// `filter` says which, as in `$NodeName is "EWR" and not has desk`; empty for all.
    pub async fn sessions(&self, filter: &str, page: Page) -> Result<(Vec<SessionRow>, Option<String>), ClientError> {
        match self.request(Request::Sessions { page, filter: filter.into() }).await? {
            Response::Sessions { rows, next } => Ok((rows, next)),
            other => Err(unexpected(&other)),
        }
    }

    /// Listens to all sessions that a filter means, as [`Client::sessions`] has it, wherever in the mesh they are.
    pub async fn listen_to_sessions(&self, filter: &str) -> Result<SessionListener, ClientError> {
        SessionListener::open(self, filter).await
    }

    /// One session of the mesh, with what it has claimed. Its id, or enough first digits of it, name it.
    pub async fn session_show(&self, session: &str) -> Result<SessionDetail, ClientError> {
        match self.request(Request::SessionShow { session: session.into() }).await? {
            Response::SessionDetail(detail) => Ok(*detail),
            other => Err(unexpected(&other)),
        }
    }

    /// Sets or removes user properties of sessions of the mesh: one, by its id, or those that meet a filter. They override what clients say of themselves. How many
    /// sessions these were.
    pub async fn set_session(&self, session: &str, properties: BTreeMap<String, Option<String>>) -> Result<u64, ClientError> {
        self.affected(Request::SessionSet { session: session.into(), properties }).await
    }

    /// Ends sessions of the mesh for good, as [`Client::set_session`] names them, wherever their clients are. How many these were.
    pub async fn end_session(&self, session: &str) -> Result<u64, ClientError> {
        self.affected(Request::SessionEnd { session: session.into() }).await
    }

    /// Lets sessions subscribe to a selector, or not any more, as [`Client::set_session`] names them: their clients are told so, now or when they are back
    /// ([`Client::given_subscriptions`]). How many these were.
    pub async fn select_for_session(&self, session: &str, selector: &str, selected: bool) -> Result<u64, ClientError> {
        self.affected(Request::SessionSelect { session: session.into(), selector: selector.into(), selected }).await
    }

    /// The subscriptions that others want this client to have: those wished already, and then each as it is wished. One that is not wished any more ends with
    /// [`Code::Deselected`], and so do the client's own to the same selector. Only for a client that goes on elsewhere ([`super::SessionOptions`]); the last one who asks hears of them.
    pub fn given_subscriptions(&self) -> GivenSubscriptions {
        let (sender, selectors) = mpsc::unbounded_channel();
        self.session.with_table(|table| table.give_to(sender));
        GivenSubscriptions { client: self.clone(), selectors }
    }

    pub(super) async fn affected(&self, request: Request) -> Result<u64, ClientError> {
        match self.request(request).await? {
            Response::Affected { sessions } => Ok(sessions),
            other => Err(unexpected(&other)),
        }
    }

    /// Claims a branch: a topic's path, and all paths below it. While anybody has claimed it, only its active source may write there.
    ///
    /// A source comes as [`SourceState::Init`]; see [`Source::changed`]. Whoever drops this future drops the source that may come of it, which closes it.
    pub async fn claim(&self, branch: &str, options: ClaimOptions) -> Result<Source, ClientError> {
        let claiming = claim(self.clone(), branch.to_owned(), options);
        // In a task of its own, so that the answer is heard even if nobody waits any more.
        tokio::spawn(claiming).await.unwrap_or_else(|_| Err(self.session.failure()))
    }

    /// A page of the branches that are claimed or were, and where the next one starts.
    pub async fn sources(&self, page: Page) -> Result<(Vec<SourceRow>, Option<String>), ClientError> {
        match self.request(Request::Sources { page }).await? {
            Response::Sources { rows, next } => Ok((rows, next)),
            other => Err(unexpected(&other)),
        }
    }

    /// One branch, with all who want it.
    pub async fn source_show(&self, branch: &str) -> Result<SourceDetail, ClientError> {
        match self.request(Request::SourceShow { branch: branch.into() }).await? {
            Response::Source(detail) => Ok(*detail),
            other => Err(unexpected(&other)),
        }
    }
}

async fn claim(client: Client, branch: String, options: ClaimOptions) -> Result<Source, ClientError> {
    let ClaimOptions { priority, wait, hold } = options;
    let request = Request::SourceClaim { branch: branch.clone(), priority, wait, hold_ms: hold.map(ms) };
    match client.session.ask_sources(request).await?.answer().await? {
        (Response::Claimed { .. }, followed) => {
            let followed = followed.into_iter().next().ok_or_else(|| client.session.failure())?;
            Ok(Source::new(client, Followed { branch, ..followed }))
        }
        (Response::Refused(refusal), _) => Err(refusal.into()),
        (other, _) => Err(unexpected(&other)),
    }
}

/// A claim on a branch: the right to write there alone, whenever it is active.
///
/// What it and its publishers write carries the epoch that they were told. From the moment when another state has arrived, they refuse to write
/// without asking the node ([`Code::Fenced`]); what was on its way is judged by the node.
///
/// Dropping a source closes it, as far as the node can still be told; so that a session can be taken up again with it, end the connection with [`Client::close`] first.
pub struct Source {
    client: Client,
    number: u32,
    branch: Arc<str>,
    states: StatesReceiver,
    /// How many of them have been taken.
    seen: u64,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("number", &self.number).field("branch", &self.branch).field("state", &self.state()).finish()
    }
}

impl Source {
    fn new(client: Client, followed: Followed) -> Source {
        let Followed { number, branch, states, seen } = followed;
        Source { client, number, branch: branch.into(), states, seen }
    }

    /// Its number in its session.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Its branch.
    pub fn branch(&self) -> &str {
        &self.branch
    }

    /// The newest state that has arrived, whether [`Source::changed`] has given it or not.
    pub fn state(&self) -> SourceState {
        self.states.borrow().newest()
    }

    /// The next state. All come, in order, from the one after the claim ([`SourceState::Init`]) or after the resumption on, and none after [`SourceState::Closed`].
    /// Only for whoever has left hundreds untaken, the oldest of these are dropped. Waits for it, and may be dropped while it waits.
    ///
    /// # Errors
    /// [`Code::UnknownSource`] once it has given the last state; otherwise when the connection is lost.
    pub async fn changed(&mut self) -> Result<SourceState, ClientError> {
        loop {
            let next = self.states.borrow_and_update().after(self.seen);
            if let Some((state, seen)) = next {
                self.seen = seen;
                return Ok(state);
            }
            if let SourceState::Closed { .. } = self.state() {
                return Err(Refusal::new(Code::UnknownSource, &*self.branch, "the source is closed").into());
            }
            // A last state may have come just before the end.
            if self.states.changed().await.is_err() && self.states.borrow().after(self.seen).is_none() {
                return Err(self.client.session.failure());
            }
        }
    }

    /// Waits until it is active, and gives the epoch. [`Source::changed`] goes on with what comes after that.
    ///
    /// # Errors
    /// As [`Source::changed`] has them, and the reason where it is closed.
    pub async fn active(&mut self) -> Result<u64, ClientError> {
        loop {
            let (state, count) = {
                let states = self.states.borrow();
                (states.newest(), states.count())
            };
            match state {
                SourceState::Active { epoch } => {
                    self.seen = count;
                    return Ok(epoch);
                }
                SourceState::Closed { why, .. } => return Err(Refusal::new(Code::UnknownSource, &*self.branch, why).into()),
                SourceState::Init | SourceState::Standby { .. } => _ = self.changed().await?,
            }
        }
    }

    /// Waits until an epoch that it was told has ended; how, as a refusal ([`Code::Fenced`]) or as the loss of the connection.
    pub async fn ended(&self, epoch: u64) -> ClientError {
        let mut gate = Gate { epoch: Some(epoch), ..self.gate() };
        loop {
            if let Err(error) = gate.pass(&self.client.session) {
                return error;
            }
            // If nothing comes any more, that is seen above.
            let _ = gate.states.changed().await;
        }
    }

    /// An update stream under the present epoch; where the source is not active, one that takes nothing. It ends with the epoch, also if
    /// the source becomes active again. Topics that are missing are made with `add`, if given.
    pub fn publisher(&self, add: Option<TopicSpec>) -> Publisher {
        Publisher::new(Arc::clone(&self.client.session), add, Some(self.gate()))
    }

    /// Writes one value under the present epoch: bytes of the topic's type. With `add`, makes the topic if it is missing.
    pub async fn set(&self, path: &str, value: Vec<u8>, add: Option<TopicSpec>) -> Result<(), ClientError> {
        let items = vec![SetItem::new(Target::Path(path.into()), value)];
        self.set_all(SetBatch { items, add, durability: None, under: None }).await?.all()
    }

    /// Writes values in one request, under the present epoch. Its targets must be paths.
    pub async fn set_all(&self, batch: SetBatch) -> Result<WriteReport, ClientError> {
        let under = Some(self.gate().pass(&self.client.session)?);
        self.client.set_all(SetBatch { under, ..batch }).await
    }

    /// Changes one topic's value if something is so, under the present epoch; see [`Client::change`].
    pub async fn change(&self, change: Change) -> Result<Changed, ClientError> {
        let under = Some(self.gate().pass(&self.client.session)?);
        self.client.change(Change { under, ..change }).await
    }

    /// Gives the branch up, or the wish for it; its last state.
    pub async fn close(self) -> Result<SourceState, ClientError> {
        let closed = |state: &SourceState| matches!(state, SourceState::Closed { .. });
        if !closed(&self.state()) {
            let done = self.client.done(Request::SourceClose { source: self.number }).await;
            // The node may have closed it first: its last state has come before the answer.
            if let (Err(error), false) = (done, closed(&self.state())) {
                return Err(error);
            }
        }
        Ok(self.state())
    }

    fn gate(&self) -> Gate {
        let epoch = match self.state() {
            SourceState::Active { epoch } => Some(epoch),
            _ => None,
        };
        Gate { source: self.number, branch: Arc::clone(&self.branch), epoch, states: self.states.clone() }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        if !self.client.session.forget_source(self.number, &self.states) {
            return;
        }
        // Without a runtime the connection ends anyway.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (client, source) = (self.client.clone(), self.number);
            runtime.spawn(async move {
                // Where the node cannot be told, the session's end closes it.
                let _ = client.done(Request::SourceClose { source }).await;
            });
        }
    }
}

/// An epoch of a source, as far as the client knows.
pub(super) struct Gate {
    source: u32,
    branch: Arc<str>,
    /// `None` if the source was not active then: it never opens.
    epoch: Option<u64>,
    states: StatesReceiver,
}

impl Gate {
    /// Under what to write, as long as the epoch lasts.
    ///
    /// # Errors
    /// [`Code::Fenced`] once another state has arrived.
    pub(super) fn pass(&self, session: &Session) -> Result<Authority, ClientError> {
        let state = self.states.borrow().newest();
        match (self.epoch, &state) {
            // Whoever ends the channel has nothing more to tell: the source was dropped, or the connection lost.
            (Some(epoch), SourceState::Active { epoch: present }) if epoch == *present && self.states.has_changed().is_ok() => {
                Ok(Authority { source: self.source, epoch })
            }
            (_, SourceState::Active { .. }) if session.has_failed() => Err(session.failure()),
            _ => Err(self.fenced(&state).into()),
        }
    }

    fn fenced(&self, state: &SourceState) -> Refusal {
        let why = match (self.epoch, state) {
            (None, state) => format!("the source was not active, and is {state}"),
            (Some(epoch), SourceState::Active { epoch: present }) if epoch == *present => {
                format!("epoch {epoch} has ended with its source, which was dropped")
            }
            (Some(epoch), state) => format!("epoch {epoch} has ended; the source is {state}"),
        };
        let holder = match state {
            SourceState::Standby { holder, .. } => holder.clone(),
            _ => None,
        };
        Refusal::new(Code::Fenced, &*self.branch, why).who(holder)
    }
}
