//! The node: one pure state machine, the same in production and in the simulator.
//!
//! ```text
//!                     ┌────────────────────────── Node ──────────────────────────┐
//!  clients' requests ─┤                                                          │
//!  neighbours' frames ┼─▶ admit ─▶ commit ─▶ publish ─▶ disseminate              ├─▶ Outputs: persist, send, dial, hang up
//!  timeouts ──────────┤   may it   Replica   to local    to links,               ├─▶ poll_transmit: the next frame of a link
//!                     │   be done?           sessions    when they can take it   ├─▶ poll_updates: the next message of a session
//!                     └──────────────────────────────────────────────────────────┘
//! ```
//!
//! Four stages, none calling an earlier one: *admit* reads the replica and refuses; *commit* is the only writer (client requests and
//! neighbours' frames meet there, in [`mangrove_crdt::replica::Replica`]); *publish* marks what subscribers have to hear; *disseminate* tells the
//! links nothing: a link's next frame is made from the state of the moment when it can be sent.
//!
//! Four families of calls: [`Node::handle_input`]; the polls [`Node::poll_transmit`], [`Node::poll_updates`] and [`Node::poll_timeout`]; and getters on
//! `&self`.
//!
//! **The driver's law.** Perform outputs in order, before the next input. Transmit and poll only when no output remains. Sleep until
//! [`Node::poll_timeout`]. An answer to a write comes out only once the write is as durable as was asked; the driver adds nothing to that
//! but truth: it says [`Input::Persisted`] when the batch is on the disk, and not before.
//!
//! ```ignore
//! loop {
//!     let input = wait_for_input_or(node.poll_timeout());
//!     for output in node.handle_input(now(), input) { perform(output) }
//!     for link in links { while let Some(frame) = node.poll_transmit(now(), link, &blocked) { send(link, frame) } }
//!     for session in sessions { while has_room(session) && let Some(message) = node.poll_updates(session) { send(session, message) } }
//! }
//! ```

mod access;
mod acks;
mod agenda;
mod blobs;
mod changes;
mod clauses;
mod connections;
mod displaced;
mod events;
mod input;
mod letters;
mod lines;
mod logins;
mod membership;
mod messages;
mod missing;
mod neighbours;
mod output;
mod quorum;
mod removals;
mod requests;
mod sessions;
mod slaves;
mod sources;
#[cfg(test)]
pub(crate) mod testing;
mod views;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use mangrove_crdt::{
    id::{MeshId, NodeId, SectionId},
    replica::Replica,
    section::Event,
    standing::Identity,
    time::Instant,
};
use mangrove_net::{
    link::{LinkId, LinkOptions},
    mesh::{Frame, Mesh, Notice, Pace},
};

pub use connections::{ALIASES_MAX, stamp_text, topic_spec};
pub use input::{ConnectionId, Input, Now};
pub use logins::{Authenticator, Comer, Verify};
pub use output::{Output, Outputs, Parting, Revoked, Target};

use self::{
    acks::Acks,
    connections::{Connection, Connections},
    logins::Logins,
    missing::Missing,
    quorum::Quorums,
    removals::Removals,
    sessions::Sessions,
    slaves::Slaves,
    sources::Sources,
};
use crate::protocol::{FromNode, Refusal, Response};

/// What a node is and how it goes about it. Fixed for a run.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Its mesh.
    pub mesh: MeshId,
    /// Its name, for people.
    pub name: String,
    /// Where others can dial it; none if it only dials out.
    pub addresses: Vec<String>,
    /// Addresses to dial in any case.
    pub seeds: Vec<String>,
    /// The id of its authority key, if it may invite, renew and revoke.
    pub authority: Option<[u8; 32]>,
    /// When its certificate expires, in seconds since 1970.
    pub expires_s: u64,
    /// Which sections to hold.
    pub hold: Hold,
    /// How often things happen.
    pub pace: Pace,
    /// How long removals in the built-in section are remembered for members that are away.
    pub retention: Duration,
    /// After how long without a sign of life a node is taken for gone, and its sources' branches pass on; longer in larger meshes, like the pulse.
    pub lease: Duration,
    /// How far clocks may run apart, in parts in a million: what quorum sections declared here rely on.
    pub drift_ppm: u32,
    /// How long a branch that nobody holds waits for claims to spread, before its first claim gets it.
    pub settle: Duration,
    /// For how long after the loss of its connection a session keeps its branches, unless its client asks for another time.
    pub hold_grants: Duration,
    /// For how long after that it may be taken up again, at most, and unless its client asks for less.
    pub reconnect_timeout: Duration,
    /// After how long without a sign of life a node is taken for gone for good, and its sessions end.
    pub presume_dead: Duration,
    /// Who judges logins, in this order: the first who knows decides.
    pub authentication: Vec<Authenticator>,
    /// How long a login waits for one handler.
    pub handler_timeout: Duration,
    /// The script that a node which founds its mesh begins with, if nothing was ever said of who may do what.
    pub founding: Option<String>,
    /// Up to how many neighbours everyone is linked to everyone.
    pub neighbours_max: usize,
    /// How links are used, by the name or id of the node at the other end; `*` for all others.
    pub links: BTreeMap<String, LinkOptions>,
}

/// Which sections a node holds by itself. More may be held, and these dropped, while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Every declared one.
    All,
    /// Those with these roots.
    Roots(BTreeSet<String>),
}

/// A deadline of the node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Timer {
    /// When to forget what is stable and blobs that nothing names, to file what was displaced, and to end what nobody can take up any more.
    Forget,
    /// When to store what nobody waits for.
    Store,
    /// When a client that has come from elsewhere has waited long enough for what it has seen there.
    Waits,
    /// When to see anew whom to be linked to.
    Redial,
    /// When a handler, of logins or of missing topics, has had its time.
    Logins,
    /// When a branch that has settled is to be granted, a home has been silent for long, a lease is to be renewed or ends, or a lost session has had its time.
    Sources,
    /// A deadline of the mesh.
    Mesh(mangrove_net::mesh::Timer),
}

/// How often to look for what can be forgotten, and what was displaced has a turn.
const FORGET_EVERY: Duration = Duration::from_secs(1);

/// How often to look for sessions whose home is gone for good.
const TIDY_EVERY: Duration = Duration::from_secs(10);

/// How long changes may gather that nobody waits for, before they are stored: at least this, and longer after a large batch, so that
/// what is overwritten often does not keep the store busy for nothing. A peer may wait for it, with a write at `mesh(k)`, so not for very long.
const STORE_AFTER: Duration = Duration::from_millis(50);
const STORE_AFTER_MAX: Duration = Duration::from_secs(2);
/// For each row of the batch before: some ten times what it takes to store one.
const STORE_AFTER_PER_ROW: Duration = Duration::from_micros(25);

/// How many batches may be on their way to the store at once.
const BATCHES_MAX: u64 = 2;

/// See the module.
#[derive(Debug)]
pub struct Node {
    config: NodeConfig,
    replica: Replica,
    mesh: Mesh,
    started: Now,
    connections: Connections,
    sessions: Sessions,
    logins: Logins,
    missing: Missing,
    sources: Sources,
    removals: Removals,
    slaves: Slaves,
    quorums: Quorums,
    acks: Acks,
    links: BTreeMap<LinkId, LinkInfo>,
    blocked: BTreeSet<NodeId>,
    dialled: Option<Vec<Target>>,
    /// The addresses of the configuration, each with who answered there last.
    seeds: BTreeMap<String, Option<NodeId>>,
    /// Neighbours that were hung up on as not needed, and when: to be heard of over other links, or to be linked again.
    dismissed: BTreeMap<NodeId, Instant>,
    /// Those of which nothing was heard then.
    bridges: BTreeSet<NodeId>,
    revoked: BTreeSet<NodeId>,
    /// By whom and why this node was revoked, if it has heard that it was.
    outcast: Option<String>,
    /// The members as last told, each with the id of its authority key, and how many are revoked.
    trusted: (BTreeMap<NodeId, Option<[u8; 32]>>, usize),
    mismatches: BTreeMap<NodeId, u64>,
    /// The last batch handed out, and the last that is as durable as it asked to be.
    marks: (u64, u64),
    sync_wanted: bool,
    store_due: Option<Instant>,
    store_after: Duration,
    store_refusal: Option<Refusal>,
    leaving: Option<mangrove_crdt::replica::Written>,
    /// How often sections had been taken up or given up when what hangs on them was looked at last.
    turnover: u64,
    forget_due: Instant,
    tidy_due: Instant,
    /// Until when subscriptions may wait for what their clients have seen elsewhere.
    waits_due: Option<Instant>,
    /// When the choice of neighbours was made last, and is to be made next.
    redialled: Instant,
    redial_due: Instant,
    /// How often a value has changed.
    updates: u64,
    outputs: Vec<Output>,
}

#[derive(Debug, Clone)]
struct LinkInfo {
    peer: NodeId,
    address: String,
    dialled: bool,
    up_at: Instant,
}

impl Node {
    /// A node over what it has stored. The incarnation in the replica's origin must be durable already.
    pub fn new(now: Now, config: NodeConfig, replica: Replica) -> Self {
        let mesh = Mesh::new(now.at, config.pace);
        let seeds = config.seeds.iter().map(|seed| (seed.clone(), None)).collect();
        let mut node = Node {
            config,
            replica,
            mesh,
            started: now,
            connections: Connections::new(),
            sessions: Sessions::default(),
            logins: Logins::default(),
            missing: Missing::default(),
            sources: Sources::default(),
            removals: Removals::default(),
            slaves: Slaves::default(),
            quorums: Quorums::default(),
            acks: Acks::default(),
            links: BTreeMap::new(),
            blocked: BTreeSet::new(),
            dialled: None,
            seeds,
            dismissed: BTreeMap::new(),
            bridges: BTreeSet::new(),
            revoked: BTreeSet::new(),
            outcast: None,
            trusted: Default::default(),
            mismatches: BTreeMap::new(),
            marks: (0, 0),
            sync_wanted: false,
            store_due: None,
            store_after: STORE_AFTER,
            store_refusal: None,
            leaving: None,
            turnover: 0,
            forget_due: now.at.after(FORGET_EVERY),
            tidy_due: now.at.after(TIDY_EVERY),
            waits_due: None,
            redialled: now.at,
            redial_due: now.at,
            updates: 0,
            outputs: Vec::new(),
        };
        node.start(now);
        node
    }

    // Calls.

    /// Takes in what has happened. **Perform the outputs, in order, before the next call.**
    pub fn handle_input(&mut self, now: Now, input: Input<'_>) -> Outputs<'_> {
        self.replica.set_time(now.unix_ms);
        match input {
            Input::LinkUp { link, peer, address, dialled } => {
                if let Some(Target { node: None, addresses }) = &dialled {
                    self.seeds.extend(addresses.iter().map(|seed| (seed.clone(), Some(peer))));
                }
                self.link_up(now, link, LinkInfo { peer, address, dialled: dialled.is_some(), up_at: now.at });
            }
            Input::LinkDown { link, reason } => {
                tracing::debug!(link = link.0, reason, "link down");
                self.link_down(link);
            }
            Input::Frame { link, lane, bytes } => self.frame(now, link, lane, bytes),
            Input::Outcast { by, said } => self.told_outcast(by, &said),
            Input::SessionOpened { session, client, via, aliases_max, entropy, comes_back } => {
                tracing::debug!(connection = session.0, client, "a client has come");
                self.connections.insert(session, Connection::new(client, via, aliases_max, entropy));
                if !comes_back {
                    self.identify(session, Identity::default());
                }
            }
            Input::LoginAsked { session, comer } => self.login(now, session, comer, None),
            Input::Verified { session, verdict } => self.judged(now, session, verdict),
            Input::SessionClosed { session } => {
                self.login_gone(now, session);
                self.acks.forget(session);
                self.removals.subscribers.doubt();
                if let Some(Connection { session: Some(session), .. }) = self.connections.remove(&session) {
                    self.session_lost(now, session);
                }
            }
            Input::Request { session, id, request } => self.request(now, session, id, request),
            Input::Credit { session, subscription, updates } => {
                if let Some(session) = self.connections.get_mut(&session) {
                    session.grant(subscription, updates);
                }
            }
            Input::Persisted { released, synced } => {
                self.marks.1 = self.marks.1.max(released);
                self.replica.persisted(synced);
            }
            Input::StoreFailed { refusal, stuck } => {
                if stuck {
                    let why = format!(
                        "{}; this write was taken in and shows, but would not survive a crash before the disk takes it",
                        refusal.why
                    );
                    for (session, id) in self.acks.give_up_on_disk(&self.replica) {
                        let refusal = Refusal { why: why.clone(), ..refusal.clone() };
                        self.answer(session, id, Response::Refused(refusal));
                    }
                }
                self.store_refusal = Some(refusal);
            }
            Input::StoreRecovered => self.store_refusal = None,
            Input::Renewed { expires_s } => {
                self.config.expires_s = expires_s;
                self.announce(now);
            }
            Input::Timeout => self.timeout(now),
        }
        self.settle(now);
        Outputs(self.outputs.drain(..))
    }

    /// The next frame for a link, on a lane that is not `blocked`; to be called when the link can take one.
    pub fn poll_transmit(&mut self, now: Now, link: LinkId, blocked: &dyn Fn(u32) -> bool) -> Option<Frame> {
        self.mesh.poll_transmit(now.at, link, &mut self.replica, blocked)
    }

    /// The next updates for a session; to be called when its connection can take them.
    pub fn poll_updates(&mut self, now: Now, session: ConnectionId) -> Option<FromNode> {
        let message = self.poll_listeners(now, session).or_else(|| self.connections.get_mut(&session)?.poll(&self.replica));
        self.note_missed(now, session);
        message
    }

    /// The next deadline; [`Input::Timeout`] is due then.
    pub fn poll_timeout(&self) -> Option<(Instant, Timer)> {
        // While the store has enough to do, its next report is what is waited for.
        let store = self.store_due.filter(|_| self.store_takes()).map(|due| (due, Timer::Store));
        let mesh = self.mesh.poll_timeout().map(|(due, timer)| (due, Timer::Mesh(timer)));
        let sources =
            [self.sessions.due(), self.sources.due(), self.quorums.due()].into_iter().flatten().min().map(|due| (due, Timer::Sources));
        let logins = [self.logins.due(), self.missing.due()].into_iter().flatten().min().map(|due| (due, Timer::Logins));
        let waits = self.waits_due.map(|due| (due, Timer::Waits));
        let own = [
            logins,
            waits,
            Some((self.forget_due.min(self.tidy_due), Timer::Forget)),
            Some((self.redial_due, Timer::Redial)),
            sources,
            store,
            mesh,
        ];
        own.into_iter().flatten().min()
    }

    /// What has not been handed out to be stored yet; for the driver, at the end.
    pub fn take_rest(&mut self) -> Option<(Vec<mangrove_crdt::persist::Row>, u64)> {
        self.replica.is_dirty().then(|| self.replica.take_rows())
    }

    // Getters.

    /// What it holds.
    pub fn replica(&self) -> &Replica {
        &self.replica
    }

    /// Its links' state.
    pub fn mesh(&self) -> &Mesh {
        &self.mesh
    }

    /// Its configuration.
    pub fn config(&self) -> &NodeConfig {
        &self.config
    }

    /// Its id.
    pub fn id(&self) -> NodeId {
        self.replica.own().node
    }

    // Inside.

    fn frame(&mut self, now: Now, link: LinkId, lane: u32, bytes: &[u8]) {
        match self.mesh.handle_frame(now.at, link, lane, bytes, &mut self.replica) {
            Ok(None) => self.hear_messages(now),
            Ok(Some(Notice::Mismatch { section, bucket, peer })) => {
                *self.mismatches.entry(peer).or_default() += 1;
                tracing::warn!(%section, bucket, peer = %peer.short(), "a bucket differs from the neighbour's though each covers the other; repairing");
            }
            Ok(Some(Notice::Letter { from, body })) => self.letter(now, from, &body),
            Ok(Some(Notice::Adopted { section, peer })) => tracing::info!(%section, peer = %peer.short(), "took over a section's state"),
            Err(violation) => {
                tracing::warn!(link = link.0, %violation, "closing a link: the peer broke the protocol");
                self.outputs.push(Output::Hangup { link, why: Parting::Violation, reason: violation.to_string() });
                self.link_down(link);
            }
        }
    }

    fn timeout(&mut self, now: Now) {
        if now.at >= self.forget_due {
            self.forget_due = now.at.after(FORGET_EVERY);
            let retention = |section| match self.replica.policy(section) {
                Some(policy) => policy.retention_ms.saturating_mul(1_000),
                None => self.config.retention.as_micros() as u64,
            };
            let retentions: BTreeMap<SectionId, u64> = self.replica.held().map(|section| (section, retention(section))).collect();
            self.replica.forget(now.at.0, |section| retentions.get(&section).copied().unwrap_or(0));
            self.replica.file_displaced(now.unix_ms);
            self.end_presumed_sessions(now);
            self.end_expired(now);
            self.removals_due(now);
            self.listeners_due(now);
            self.end_stale_uploads(now);
        }
        if now.at >= self.tidy_due {
            self.tidy_due = now.at.after(TIDY_EVERY);
            self.end_deserted_sessions(now);
            self.removals.subscribers.doubt();
        }
        if now.at >= self.redial_due {
            self.redial(now);
        }
        if self.waits_due.is_some_and(|due| now.at >= due) {
            self.waits_due = self.connections.values_mut().filter_map(|client| client.waits_until(now.at)).min();
        }
        self.logins_due(now);
        self.missing_due(now);
        self.sessions_due(now);
        self.sources_due(now);
        self.quorums_due(now);
        self.mesh.handle_timeout(now.at, &mut self.replica);
        self.hear_messages(now);
    }

    /// After every input: what happened is published, answers that are due go out, and what changed is stored.
    fn settle(&mut self, now: Now) {
        loop {
            let events = self.replica.take_events();
            if events.is_empty() {
                break;
            }
            self.publish(now, events);
        }
        if std::mem::replace(&mut self.turnover, self.replica.turnover()) != self.replica.turnover() {
            self.sections_changed(now);
        }
        self.settle_quorums(now);
        for (session, id, response) in self.acks.due(&self.replica) {
            self.answer(session, id, response);
        }
        // After the answers: the answer to a claim comes before the first word of its source.
        self.settle_sources(now);
        if self.leaving.is_some_and(|written| self.replica.copies(written) > 0 || self.links.is_empty()) {
            self.leaving = None;
            self.outputs.push(Output::Stop { left: true });
        }
        self.store(now);
    }

    fn publish(&mut self, now: Now, events: Vec<Event>) {
        let listening = self.connections.values().any(Connection::listens);
        let mut policy = false;
        let mut members = false;
        let mut claims = Vec::new();
        for event in events {
            match event {
                Event::Value { section, key, passed } => {
                    self.updates += 1;
                    self.removal_written(now, section, key.topic());
                    if listening && let Some(path) = self.replica.path_of(section, key.topic()) {
                        let passed = passed.map(|write| (key.as_event(), *write));
                        for path in std::iter::once(path).chain(self.slaves.of(path)) {
                            self.connections.values_mut().for_each(|session| session.value_changed(path, passed.as_ref()));
                        }
                    }
                }
                Event::Topic { section, path, .. } => {
                    self.watch_removal(now, section, &path);
                    // A paged topic is seen again where what has hidden it is gone.
                    if section != SectionId::LOCAL && self.replica.is_paged(&path) {
                        self.watch_removal(now, SectionId::LOCAL, &path);
                    }
                    self.note_slave(&path);
                    if listening {
                        for path in std::iter::once(&path).chain(self.slaves.of(&path)) {
                            self.connections.values_mut().for_each(|session| session.topic_changed(path));
                        }
                    }
                }
                Event::Standing { section: SectionId::MESH, key } => {
                    members = true;
                    self.session_changed(now, &key);
                }
                Event::Standing { section, key } => claims.push((section, key)),
                Event::Policy => policy = true,
                Event::Displaced(displaced) => {
                    tracing::info!(path = %displaced.path, writer = %displaced.dot.origin, "a write lost to a concurrent one and was kept in the displaced log");
                }
            }
        }
        self.claims_changed(now, claims);
        if policy {
            let conflicts = self.replica.rules().conflicts().len();
            if self.replica.settle_access() {
                if self.replica.rules().conflicts().len() > conflicts {
                    tracing::warn!(
                        "both sides of a split have said who may do what, and the more restrictive counts: see `mangrove access ls`"
                    );
                }
                self.rights_changed(now, None);
            }
            self.policy_changed(now);
            self.sections_changed(now);
        }
        if members {
            self.members_changed(now);
        }
    }

    fn answer(&mut self, session: ConnectionId, id: u64, response: Response) {
        self.outputs.push(Output::Send { session, message: FromNode::Response { id, response } });
    }

    fn store_takes(&self) -> bool {
        self.marks.0 - self.marks.1 < BATCHES_MAX
    }

    /// Hands out what has changed: at once if somebody waits for it, otherwise when a little has gathered; and never more batches than
    /// the store works on.
    fn store(&mut self, now: Now) {
        if !self.replica.is_dirty() {
            return;
        }
        let due = *self.store_due.get_or_insert(now.at.after(self.store_after));
        if !(self.store_takes() && (self.sync_wanted || now.at >= due)) {
            return;
        }
        let (rows, mark) = self.replica.take_rows();
        self.store_after = (STORE_AFTER_PER_ROW * rows.len() as u32).clamp(STORE_AFTER, STORE_AFTER_MAX);
        self.marks.0 = mark;
        self.store_due = None;
        let sync = std::mem::take(&mut self.sync_wanted);
        self.outputs.push(Output::Persist { rows, mark, sync });
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{SESSION, at, node};
    use super::*;
    use crate::protocol::{Code, Request, TopicSpec};

    /// The marks of the batches that come of making a topic, which is to be on the disk before it is answered.
    fn add(node: &mut Node, now: Now, path: &str) -> Vec<u64> {
        let request = Request::TopicsAdd { topic: TopicSpec::of("json"), paths: vec![path.into()] };
        marks(node.handle_input(now, Input::Request { session: SESSION, id: 1, request }))
    }

    fn marks(outputs: Outputs<'_>) -> Vec<u64> {
        let mark = |output| if let Output::Persist { mark, .. } = output { Some(mark) } else { None };
        outputs.filter_map(mark).collect()
    }

    #[test]
    fn who_waits_for_a_disk_that_fails_is_told() {
        let mut node = node();
        let request = Request::TopicsAdd { topic: TopicSpec::of("json"), paths: vec!["a".into()] };
        drop(node.handle_input(at(1), Input::Request { session: SESSION, id: 7, request }));
        let failed = |stuck| Input::StoreFailed { refusal: Refusal::new(Code::Full, "store", "the disk is full"), stuck };
        assert_eq!(node.handle_input(at(2), failed(false)).count(), 0, "what was handed over may still be stored");
        let outputs: Vec<Output> = node.handle_input(at(3), failed(true)).collect();
        let [Output::Send { message: FromNode::Response { id: 7, response: Response::Refused(refusal) }, .. }] = &outputs[..] else {
            panic!("{outputs:?}")
        };
        assert!(refusal.code == Code::Full && refusal.why.contains("taken in"), "{refusal}");
        assert_eq!(node.handle_input(at(4), Input::Persisted { released: 1, synced: 1 }).count(), 0, "it was answered");
    }

    #[test]
    fn a_busy_store_gets_no_more_batches_and_no_deadline() {
        let mut node = node();
        assert_eq!(add(&mut node, at(1), "a"), [1]);
        assert_eq!(add(&mut node, at(2), "b"), [2]);
        assert!(add(&mut node, at(3), "c").is_empty());
        let store_due = |node: &Node, now: u64| node.poll_timeout().filter(|(due, timer)| *timer == Timer::Store && *due <= at(now).at);
        assert_eq!(store_due(&node, 10_000), None, "it would be due again and again, with nothing to be done");
        assert_eq!(marks(node.handle_input(at(4), Input::Persisted { released: 1, synced: 1 })), [3]);
    }

    #[test]
    fn after_a_large_batch_changes_gather_for_longer() {
        let mut node = node();
        let write = |node: &mut Node, now: Now, paths: std::ops::Range<u32>| {
            let topic = TopicSpec { topic_type: "json".into(), properties: BTreeMap::from([("durability".into(), "memory".into())]) };
            let request = Request::TopicsAdd { topic, paths: paths.map(|path| path.to_string()).collect() };
            marks(node.handle_input(now, Input::Request { session: SESSION, id: 1, request }))
        };
        assert!(write(&mut node, at(1), 0..5_000).is_empty());
        assert_eq!(marks(node.handle_input(at(51), Input::Timeout)), [1]);
        assert!(marks(node.handle_input(at(52), Input::Persisted { released: 1, synced: 1 })).is_empty());
        assert!(write(&mut node, at(60), 5_000..5_001).is_empty());
        assert!(marks(node.handle_input(at(115), Input::Timeout)).is_empty(), "as late as the batch before was large");
        assert_eq!(marks(node.handle_input(at(560), Input::Timeout)), [2], "and no later than that");
    }

    #[test]
    fn an_answer_waits_until_what_it_acknowledges_is_on_the_disk() {
        let mut node = node();
        let request = Request::TopicsAdd { topic: TopicSpec::of("json"), paths: vec!["a".into()] };
        let answers = |outputs: Outputs<'_>| outputs.filter(|output| matches!(output, Output::Send { .. })).count();
        assert_eq!(answers(node.handle_input(at(1), Input::Request { session: SESSION, id: 1, request })), 0);
        assert_eq!(answers(node.handle_input(at(2), Input::Persisted { released: 1, synced: 0 })), 0, "stored, but not synced");
        assert_eq!(answers(node.handle_input(at(3), Input::Persisted { released: 1, synced: 1 })), 1);
    }
}
