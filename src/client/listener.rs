//! Listening to sessions, wherever in the mesh they are: from one state of a session to the next it follows what has happened.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mangrove_crdt::id::SessionId;
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use super::session::Session;
use super::{Client, ClientError, Request, Response, unexpected};
use crate::protocol::{Ended, Refusal, SessionNews, SessionRow, SessionState};

/// What a listener is told: an event, or why it hears nothing more.
type Heard = Result<SessionEvent, Refusal>;

/// What happens to a session. Each once for each listener, however often that changes its own node; what comes and goes unseen is left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum SessionEvent {
    /// It is there.
    Opened(Box<SessionRow>),
    /// Its properties have changed.
    Updated {
        /// How it is now.
        session: Box<SessionRow>,
        /// What they were.
        previous: BTreeMap<String, String>,
    },
    /// Its node has lost its client.
    Disconnected(Box<SessionRow>),
    /// Its client is back, at the same node; or what was presumed was not so.
    Reconnected(Box<SessionRow>),
    /// Its client has gone on at another node.
    FailedOver {
        /// How it is now.
        session: Box<SessionRow>,
        /// The node that it had before.
        from: String,
    },
    /// Its client has not come back in time, or its node is out of reach for as long. That may turn out to be wrong.
    PresumedClosed(Box<SessionRow>),
    /// It has ended for good.
    Closed {
        /// Which.
        session: SessionId,
        /// Why.
        reason: Ended,
    },
    /// All sessions that are there have been told; what follows is news. Once.
    Synced,
}

/// What has happened between two states of a session.
fn between(before: &SessionRow, now: &SessionRow) -> Vec<SessionEvent> {
    use SessionState::{Connected, Disconnected, OutOfReach, PresumedClosed};
    let session = || Box::new(now.clone());
    let mut events = Vec::new();
    let moved = before.home != now.home;
    if moved {
        events.push(SessionEvent::FailedOver { session: session(), from: before.node.clone() });
    }
    let state = if moved { Connected } else { before.state };
    match (state, now.state) {
        (PresumedClosed, PresumedClosed) => {}
        (_, PresumedClosed) => events.push(SessionEvent::PresumedClosed(session())),
        (Connected | OutOfReach, Disconnected) => events.push(SessionEvent::Disconnected(session())),
        (Disconnected | PresumedClosed, Connected) => events.push(SessionEvent::Reconnected(session())),
        (_, Connected) if !moved && now.epoch > before.epoch => events.push(SessionEvent::Reconnected(session())),
        _ => {}
    }
    if (&before.properties, &before.roles) != (&now.properties, &now.roles) {
        let mut previous = before.properties.clone();
        if before.roles != now.roles {
            previous.insert("$Roles".into(), before.roles.join(","));
        }
        events.push(SessionEvent::Updated { session: session(), previous });
    }
    events
}

/// A listener, on whatever connection.
pub(super) struct Listening {
    pub(super) filter: String,
    pub(super) number: Option<u32>,
    /// Who waits for the first answer.
    pub(super) opened: Option<oneshot::Sender<Response>>,
    events: mpsc::UnboundedSender<Heard>,
    known: BTreeMap<SessionId, SessionRow>,
    /// Of whom the present node has told, until it has told of all.
    told: Option<BTreeSet<SessionId>>,
    synced: bool,
}

impl Listening {
    fn new(filter: &str, opened: Option<oneshot::Sender<Response>>, events: mpsc::UnboundedSender<Heard>) -> Self {
        Listening { filter: filter.to_owned(), number: None, opened, events, known: BTreeMap::new(), told: None, synced: false }
    }

    /// The connection is lost, and another node will tell.
    pub(super) fn lost(&mut self) {
        (self.number, self.told) = (None, Some(BTreeSet::new()));
    }

    pub(super) fn take(&mut self, news: Vec<SessionNews>, synced: bool) {
        let mut events = Vec::new();
        for news in news {
            match news {
                SessionNews::Is(row) => {
                    self.told.iter_mut().for_each(|told| _ = told.insert(row.session));
                    match self.known.insert(row.session, (*row).clone()) {
                        Some(before) => events.extend(between(&before, &row)),
                        None => events.push(SessionEvent::Opened(row)),
                    }
                }
                SessionNews::Ended { session, reason } => {
                    events.extend(self.known.remove(&session).map(|_| SessionEvent::Closed { session, reason }));
                }
            }
        }
        if synced {
            if let Some(told) = self.told.take() {
                let gone: Vec<SessionId> = self.known.keys().filter(|id| !told.contains(id)).copied().collect();
                for session in gone {
                    self.known.remove(&session);
                    events.push(SessionEvent::Closed { session, reason: Ended::Unknown });
                }
            }
            events.extend((!std::mem::replace(&mut self.synced, true)).then_some(SessionEvent::Synced));
        }
        // Whoever does not listen any more has dropped it.
        events.into_iter().for_each(|event| _ = self.events.send(Ok(event)));
    }

    /// The node tells nothing more.
    pub(super) fn end(self, refusal: Refusal) {
        let _ = self.events.send(Err(refusal));
    }
}

/// A listener to sessions. Dropping it ends it.
pub struct SessionListener {
    session: Arc<Session>,
    id: u64,
    events: mpsc::UnboundedReceiver<Heard>,
}

impl SessionListener {
    pub(super) async fn open(client: &Client, filter: &str) -> Result<SessionListener, ClientError> {
        let session = Arc::clone(&client.session);
        let (sender, events) = mpsc::unbounded_channel();
        let (opened, receiver) = oneshot::channel();
        let listening = Listening::new(filter, Some(opened), sender);
        let (id, answer) = session.ask_listen(listening, receiver).await?;
        let listener = SessionListener { session, id, events };
        match answer.answer().await? {
            Response::Listening { .. } => Ok(listener),
            Response::Refused(refusal) => Err(refusal.into()),
            other => Err(unexpected(&other)),
        }
    }

    /// What happens next. Waits for it, and may be dropped while it waits. First come all sessions that are there, as [`SessionEvent::Opened`].
    pub async fn next(&mut self) -> Result<SessionEvent, ClientError> {
        match self.events.recv().await {
            Some(event) => event.map_err(ClientError::Refused),
            None => Err(self.session.failure()),
        }
    }
}

impl Drop for SessionListener {
    fn drop(&mut self) {
        let number = self.session.with_table(|table| table.listeners.remove(&self.id)).and_then(|listening| listening.number);
        // Without a runtime the connection ends anyway, and the listener with it.
        if let (Some(listener), Ok(runtime)) = (number, tokio::runtime::Handle::try_current()) {
            let session = Arc::clone(&self.session);
            runtime.spawn(async move {
                if let Ok(answer) = session.ask(Request::SessionsUnlisten { listener }).await {
                    // Whether it was still there makes no difference.
                    let _ = answer.answer().await;
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use mangrove_crdt::id::NodeId;

    use super::*;
    use crate::node::{ConnectionId, testing::Meshed};
    use crate::protocol::{FromNode, OpenSession};

    fn row(home: u8, epoch: u32, state: SessionState) -> SessionRow {
        SessionRow {
            session: SessionId([1; 16]),
            node: format!("N{home}"),
            state,
            epoch,
            claims: 0,
            reconnect_timeout_ms: 0,
            opened_unix_ms: 0,
            client: String::new(),
            home: NodeId([home; 32]),
            properties: BTreeMap::new(),
            principal: String::new(),
            roles: Vec::new(),
            expires_unix_ms: None,
            transport: String::new(),
            address: None,
        }
    }

    fn listening() -> (Listening, Events) {
        let (events, heard) = mpsc::unbounded_channel();
        (Listening::new("", None, events), heard)
    }

    fn named(events: &[SessionEvent]) -> Vec<&'static str> {
        let name = |event: &SessionEvent| match event {
            SessionEvent::Opened(_) => "opened",
            SessionEvent::Updated { .. } => "updated",
            SessionEvent::Disconnected(_) => "disconnected",
            SessionEvent::Reconnected(_) => "reconnected",
            SessionEvent::FailedOver { .. } => "failed-over",
            SessionEvent::PresumedClosed(_) => "presumed-closed",
            SessionEvent::Closed { .. } => "closed",
            SessionEvent::Synced => "synced",
        };
        events.iter().map(name).collect()
    }

    #[test]
    fn two_states_tell_what_has_happened_between_them() {
        use SessionState::{Connected, Disconnected, OutOfReach, PresumedClosed};
        let here = |state| row(1, 1, state);
        let cases = [
            (here(Connected), here(Disconnected), vec!["disconnected"]),
            (here(Disconnected), row(1, 2, Connected), vec!["reconnected"]),
            (here(Connected), row(1, 2, Connected), vec!["reconnected"]),
            (here(Connected), row(2, 2, Connected), vec!["failed-over"]),
            (here(Disconnected), row(2, 2, Disconnected), vec!["failed-over", "disconnected"]),
            (here(PresumedClosed), row(2, 2, Connected), vec!["failed-over"]),
            (here(Connected), here(OutOfReach), vec![]),
            (here(OutOfReach), here(Connected), vec![]),
            (here(OutOfReach), here(PresumedClosed), vec!["presumed-closed"]),
            (here(PresumedClosed), here(Connected), vec!["reconnected"]),
            (here(Disconnected), here(PresumedClosed), vec!["presumed-closed"]),
        ];
        for (before, now, expected) in cases {
            assert_eq!(named(&between(&before, &now)), expected, "{before:?} {now:?}");
        }
        let desk = BTreeMap::from([("desk".to_owned(), "7".to_owned())]);
        let changed = SessionRow { properties: desk, ..here(Connected) };
        assert_eq!(between(&here(Connected), &changed), [SessionEvent::Updated { session: changed.into(), previous: BTreeMap::new() }]);
    }

    #[test]
    fn a_listener_that_changes_nodes_hears_nothing_twice_and_of_all_that_is_gone() {
        let (mut listening, mut heard) = listening();
        let mut heard = || std::iter::from_fn(|| heard.try_recv().ok()?.ok()).collect::<Vec<_>>();
        let is = |row: &SessionRow| SessionNews::Is(Box::new(row.clone()));
        let first = row(1, 1, SessionState::Connected);
        let other = SessionRow { session: SessionId([2; 16]), ..first.clone() };
        listening.take(vec![is(&first), is(&other)], true);
        assert_eq!(named(&heard()), ["opened", "opened", "synced"]);
        listening.lost();
        listening.take(vec![is(&row(2, 2, SessionState::Connected))], false);
        assert_eq!(named(&heard()), ["failed-over"]);
        listening.take(Vec::new(), true);
        assert_eq!(heard(), [SessionEvent::Closed { session: other.session, reason: Ended::Unknown }]);
        listening.take(vec![SessionNews::Ended { session: first.session, reason: Ended::ByClient }], false);
        listening.take(vec![SessionNews::Ended { session: first.session, reason: Ended::ByClient }], false);
        assert_eq!(heard().len(), 1);
    }

    /// What the listeners at a node hear, by the names of the events and the sessions' nodes.
    fn hears(meshed: &mut Meshed, at: usize, connection: ConnectionId, listening: &mut Listening, heard: &mut Events) -> Vec<String> {
        let now = meshed.now();
        while let Some(message) = meshed.nodes[at].poll_updates(now, connection) {
            let FromNode::Sessions { news, synced, .. } = message else { panic!("{message:?}") };
            listening.take(news, synced);
        }
        let events: Vec<SessionEvent> = std::iter::from_fn(|| heard.try_recv().ok()).map_while(Result::ok).collect();
        let text = |event: &SessionEvent| match event {
            SessionEvent::FailedOver { session, from } => format!("failed-over {from} {}", session.node),
            SessionEvent::Closed { reason, .. } => format!("closed {reason}"),
            event => named(std::slice::from_ref(event))[0].to_owned(),
        };
        events.iter().map(text).collect()
    }

    type Events = mpsc::UnboundedReceiver<Heard>;

    #[test]
    fn a_listener_on_a_third_node_hears_each_thing_once() {
        let mut meshed = Meshed::with_section(3, &[], "s/a");
        let open = |meshed: &mut Meshed, at: usize| {
            let client = meshed.client(at);
            let properties = BTreeMap::from([("desk".to_owned(), "7".to_owned())]);
            let request = Request::SessionOpen { reconnect_timeout_ms: Some(20_000), properties };
            let Response::Session(session) = meshed.ask(at, client, request) else { panic!("refused") };
            (client, *session)
        };
        let resume = |meshed: &mut Meshed, at: usize, session: &OpenSession| {
            let client = meshed.client(at);
            let request = Request::SessionResume { id: session.id, secret: session.secret.clone(), epoch: 0 };
            assert!(matches!(meshed.ask(at, client, request), Response::Session(_)));
            client
        };
        let (first, session) = open(&mut meshed, 0);
        let watcher = meshed.client(2);
        let refused = meshed.ask(2, watcher, Request::SessionsListen { filter: "desk is 7".into() });
        assert!(matches!(&refused, Response::Refused(refusal) if refusal.why.contains("byte 8")), "{refused:?}");
        let listened = meshed.ask(2, watcher, Request::SessionsListen { filter: "desk is '7' and not $NodeName is 'n3'".into() });
        assert_eq!(listened, Response::Listening { listener: 1 });
        let (mut listening, mut heard) = listening();
        let mut hears = |meshed: &mut Meshed| hears(meshed, 2, watcher, &mut listening, &mut heard);
        assert_eq!(hears(&mut meshed), ["opened", "synced"]);
        open(&mut meshed, 2);
        assert_eq!(hears(&mut meshed), Vec::<String>::new(), "the filter does not mean it");

        meshed.gone(0, first);
        assert_eq!(hears(&mut meshed), ["disconnected"]);
        resume(&mut meshed, 0, &session);
        assert_eq!(hears(&mut meshed), ["reconnected"]);
        let moved = resume(&mut meshed, 1, &session);
        meshed.pass(2_000);
        assert_eq!(hears(&mut meshed), ["failed-over own n2"], "the old home's letting go is nothing of its own");

        // Its node out of reach, and back.
        meshed.cut_off(1);
        meshed.pass(10_000);
        assert_eq!(hears(&mut meshed), Vec::<String>::new());
        meshed.pass(15_000);
        assert_eq!(hears(&mut meshed), ["presumed-closed"]);
        meshed.heal();
        meshed.pass(3_000);
        assert_eq!(hears(&mut meshed), ["reconnected"]);

        meshed.gone(1, moved);
        let mut heard = Vec::new();
        for _ in 0..400 {
            heard.extend(hears(&mut meshed));
            meshed.pass(100);
        }
        assert_eq!(heard, ["disconnected", "presumed-closed", "closed connection-lost"]);
        let (third, _) = open(&mut meshed, 0);
        assert_eq!(meshed.ask(0, third, Request::SessionClose), Response::Done);
        meshed.pass(3_000);
        assert_eq!(hears(&mut meshed), Vec::<String>::new(), "it came and went unseen");
        for at in 0..3 {
            let records = meshed.nodes[at].replica().section(mangrove_crdt::id::SectionId::MESH).map(|mesh| mesh.standing.iter().count());
            assert_eq!(records, Some(4), "nothing is left of it at {at}: three nodes, and one session");
        }
    }
}
