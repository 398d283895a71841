//! Clients: one that makes the mesh, some that write, some that listen. They speak to the node as the gateway does, by requests and credit.

use std::collections::{BTreeMap, BTreeSet};

use mangrove::{
    memory::{Change, FeedIx, Feeds, Memory, News},
    node::ConnectionId,
    protocol::{
        Authority, BASES_BYTES, BLOB_PIECE_MAX, Change as Changing, Closed, Code, Event as Told, Form, FromNode, Gone, Login, Mark,
        Recipient, Request, Response, Restore, Secret, Send, SetBatch, SetItem, Shrink, SourceState, Splice, Target, TopicSpec, Update,
        Wish,
    },
};
use mangrove_crdt::{
    blob::BlobHash,
    definition::{Durability, TopicType},
    id::{SectionId, SessionId},
    paged::Summary,
    path::Path,
    standing::{SessionRecord, Standing},
};

use super::{Phase, World};
use crate::{
    checks::{
        Invariant, Violation, fences, integrity,
        messages::Heard,
        reads,
        rights::{Barred, PRINCIPAL, may_read},
        sessions,
    },
    history::{Doing, Outcome},
    host::{Item, entropy},
    oracle::About,
    queue::Event,
    scenario::{Observed, SECOND, Scenario, Time},
    tamper::{Tamper, is},
    values::{Kind, Payload, VARIANTS, slave_of},
};

/// How long a client without a node waits before it looks for one again.
const RECONNECT_AFTER: Time = SECOND / 2;

/// The principal's password, and a hash of it.
const PASSWORD: &[u8] = b"cGFzc3dvcmQ";
const HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$cGFzc3dvcmQ";

/// How many updates a subscriber takes at once.
const CREDIT: u32 = 64;

/// What a client is there for.
#[derive(Debug)]
enum Role {
    /// Declares the sections and makes the topics, step by step.
    Founder { done: usize },
    /// Writes; by its place in the workload.
    Source(usize),
    /// Listens; by its place in the workload.
    Subscriber {
        spec: usize,
        told: BTreeMap<u32, reads::Told>,
        subscription: Option<u32>,
        hearing: Option<Box<Hearing>>,
        barred: Barred,
        messages: Heard,
    },
    /// Changes who may do what; by its place in the workload.
    Administrator(usize),
}

/// What a subscriber remembers that goes from node to node.
#[derive(Debug, Default)]
struct Hearing {
    feeds: Feeds,
    memory: Memory,
    /// Which feed each number of the present connection is.
    numbers: Vec<FeedIx>,
}

impl Hearing {
    fn change(&self, mark: Mark) -> Option<Change> {
        self.numbers.get(mark.feed as usize).map(|feed| (*feed, mark.number))
    }
}

/// Under which number all is kept that a subscriber is told which goes from node to node.
const ONE_STREAM: u32 = 0;

/// One client.
#[derive(Debug)]
pub struct Client {
    role: Role,
    homes: Vec<usize>,
    /// How often it has left one for the next.
    moves: usize,
    /// The host, its process, and the session there.
    session: Option<(usize, u32, ConnectionId)>,
    /// Whether it is still to be let in.
    waits: bool,
    /// Counts its sessions.
    sessions: u32,
    /// Its operations that are under way.
    pending: Vec<u32>,
    /// Those of them that are to be done once, and are asked for again wherever it goes.
    once: BTreeMap<u32, Request>,
    /// Those that it has asked for again.
    doubtful: BTreeSet<u32>,
    /// Updates that are told in the wrong order, where that is wanted.
    held_back: Vec<Update>,
    /// Both ends of its connection, where long values go as what has changed.
    wire: (Shrink, Restore),
    /// Its wish to be a branch's update source.
    claim: Claim,
}

/// How far a client has come with becoming the source of its branch.
#[derive(Debug, Default)]
struct Claim {
    /// Its session, by which it comes back.
    open: Option<Open>,
    /// The connection that has the session.
    on: Option<ConnectionId>,
    /// The operations by which it opens or takes up its session, and claims.
    asked: Option<(u32, Option<u32>)>,
    /// The source's number.
    source: Option<u32>,
    /// The epoch under which it may write.
    active: Option<u64>,
    /// A source that was closed while the answer that names it waited for the disk.
    closed_early: Option<u32>,
    /// The operation by which it makes a topic that goes with its session.
    making: Option<u32>,
    /// That topic, once it was acknowledged.
    made: Option<Path>,
}

/// A session that a client was told of.
#[derive(Debug, Clone)]
struct Open {
    /// The host that had it last.
    host: usize,
    id: SessionId,
    secret: Secret,
    epoch: u32,
}

/// How often, of so many writes, a source submits one twice.
const TWICE_ONE_IN: usize = 20;
/// Of how many operations on topics of several types one has another type in mind than most.
const ODD_KIND_ONE_IN: usize = 12;
/// Of what writes none.
const NO_VALUE: Payload = Payload { kind: Kind::Binary, len: 0 };

/// How often, in so many turns, a source gives up its branch of its own accord.
const CLOSE_ONE_IN: usize = 100;

/// All clients of a scenario.
pub fn all(scenario: &Scenario) -> Vec<Client> {
    let client = |role, homes| Client {
        role,
        homes,
        moves: 0,
        session: None,
        waits: false,
        sessions: 0,
        pending: Vec::new(),
        once: BTreeMap::new(),
        doubtful: BTreeSet::new(),
        held_back: Vec::new(),
        wire: wire(),
        claim: Claim::default(),
    };
    let sources = scenario.workload.sources.iter().enumerate().map(|(at, spec)| client(Role::Source(at), spec.homes.clone()));
    let subscribers = scenario.workload.subscribers.iter().enumerate();
    let subscribers = subscribers.map(|(spec, of)| {
        let hearing = (of.homes.len() > 1).then(Default::default);
        let barred = Barred::default();
        client(
            Role::Subscriber { spec, told: BTreeMap::new(), subscription: None, hearing, barred, messages: Heard::default() },
            of.homes.clone(),
        )
    });
    let administrators = scenario.workload.administrators.iter().enumerate();
    let administrators = administrators.map(|(at, spec)| client(Role::Administrator(at), spec.homes.clone()));
    std::iter::once(client(Role::Founder { done: 0 }, vec![0])).chain(sources).chain(subscribers).chain(administrators).collect()
}

/// The path of the topic that goes with a client's session.
fn own_topic(root: &str, client: usize) -> String {
    format!("{root}/of-{client}")
}

/// The path of a section's slave by its number.
fn slave_path(root: &str, number: usize) -> String {
    format!("{root}/as-{number}")
}

/// What is asked for, whether once or as often as it is asked.
fn innermost(request: &Request) -> &Request {
    match request {
        Request::Once { request, .. } => request,
        request => request,
    }
}

/// The path of a section's topic by its number.
fn topic_path(root: &str, number: usize) -> String {
    format!("{root}/t{number}")
}

impl World<'_> {
    /// A client does what it is there for.
    pub(super) fn client(&mut self, at: usize) {
        let Some(session) = self.connected(at) else {
            // Whoever writes misses its turn, but for coming back.
            return self.queue.at(self.now + RECONNECT_AFTER, Event::Client { client: at as u32 });
        };
        if self.clients[at].waits {
            return;
        }
        match self.clients[at].role {
            Role::Founder { done } => self.found(at, session, done),
            Role::Source(spec) => self.write(at, session, spec),
            Role::Administrator(spec) => self.administer(at, session, spec),
            Role::Subscriber { spec, subscription: None, .. } if self.clients[at].pending.is_empty() => {
                let select = self.scenario.workload.subscribers[spec].select.clone();
                let heard = match &mut self.clients[at].role {
                    Role::Subscriber { hearing: Some(hearing), .. } => Some(Box::new(hearing.memory.heard(&hearing.feeds))),
                    _ => None,
                };
                self.ask(at, session, Doing::Other, String::new(), NO_VALUE, Durability::Memory, |_| Request::Subscribe {
                    selector: select,
                    credit: CREDIT,
                    stamps: false,
                    heard,
                });
            }
            Role::Subscriber { .. } => {}
        }
    }

    /// The client's session, opened anew if it has none and a home of it runs.
    fn connected(&mut self, at: usize) -> Option<(usize, ConnectionId)> {
        if let Some((host, process, session)) = self.clients[at].session {
            if self.hosts[host].process.is_some() && self.hosts[host].process_no == process {
                return Some((host, session));
            }
            self.clients[at].session = None;
        }
        let open = |host: &usize| self.hosts[*host].process.is_some() && !self.hosts[*host].expelled;
        let Client { homes, moves, .. } = &self.clients[at];
        let host = homes.iter().cycle().skip(moves % homes.len().max(1)).take(homes.len()).copied().find(open)?;
        let process = self.hosts[host].process.as_mut()?;
        let session = ConnectionId(process.next_id());
        self.clients[at].session = Some((host, self.hosts[host].process_no, session));
        self.clients[at].sessions += 1;
        self.clients[at].wire = wire();
        if let Role::Subscriber { told, subscription, hearing, barred, messages, .. } = &mut self.clients[at].role {
            *messages = Heard::default();
            match hearing {
                Some(hearing) => {
                    hearing.memory.lost();
                    hearing.numbers.clear();
                }
                // Whoever does not go on begins anew, by whatever rules there are.
                None => {
                    told.clear();
                    *barred = Barred::default();
                }
            }
            *subscription = None;
        }
        let entropy = entropy((host as u32, self.hosts[host].process_no), session);
        self.clients[at].waits = self.is_principal(at);
        let item = match self.clients[at].waits {
            true => Item::Login(session, entropy, Login::Password { principal: PRINCIPAL.into(), password: Secret::new(PASSWORD) }),
            false => Item::Opened(session, entropy),
        };
        self.offer(host, item);
        Some((host, session))
    }

    /// Whether a client comes as a principal.
    fn is_principal(&self, at: usize) -> bool {
        matches!(self.clients[at].role, Role::Subscriber { spec, .. } if self.scenario.workload.subscribers[spec].principal)
    }

    /// A node lets a client in, or does not: its principal may be unknown there yet.
    pub(super) fn judged(&mut self, host: usize, session: ConnectionId, admitted: bool) {
        let there = Some((host, self.hosts[host].process_no, session));
        let Some(at) = self.clients.iter().position(|client| client.session == there) else { return };
        match admitted {
            true => {
                self.clients[at].waits = false;
                self.queue.at(self.now, Event::Client { client: at as u32 });
            }
            false => self.client_lost(at),
        }
    }

    /// A turn of a client that changes who may do what.
    fn administer(&mut self, at: usize, session: (usize, ConnectionId), spec: usize) {
        let gap = self.scenario.workload.administrators[spec].gap.draw(&mut self.dice.work).max(1.0) as Time;
        let (begins, ends) = self.scenario.hostile();
        if self.now >= ends {
            return;
        }
        self.queue.at(self.now.max(begins) + gap, Event::Client { client: at as u32 });
        if self.now < begins {
            return;
        }
        let dice = &mut self.dice.work;
        let root = &self.scenario.sections[0].root;
        let path = topic_path(root, dice.below(self.scenario.workload.topics));
        let permitted = ["read", "select", "none", "inherit"];
        let script = match dice.below(8) {
            0 => format!("role reader default {}", ["select read", "select"][dice.below(2)]),
            1 => format!("role reader includes {}", ["extra", "none"][dice.below(2)]),
            2 => format!("principal {PRINCIPAL} roles {}", ["reader", "reader extra", "extra reader more"][dice.below(3)]),
            3 => format!("path {path} {}", ["isolate", "inherit"][dice.below(2)]),
            4 | 5 => format!("role extra at {path} {}", permitted[dice.below(4)]),
            _ => format!("role reader at {path} {}", permitted[dice.below(4)]),
        };
        self.ask(at, session, Doing::Other, String::new(), NO_VALUE, Durability::Memory, |_| Request::AccessScript {
            script,
            dry_run: false,
        });
    }

    fn found(&mut self, at: usize, session: (usize, ConnectionId), done: usize) {
        if !self.clients[at].pending.is_empty() {
            return;
        }
        let sections = &self.scenario.sections;
        if done == 2 * sections.len() && self.has_principals() {
            let script =
                format!("principal {PRINCIPAL} password {HASH}\nprincipal {PRINCIPAL} roles reader\nrole reader default select read");
            return self.ask(at, session, Doing::Other, String::new(), NO_VALUE, Durability::Memory, |_| Request::AccessScript {
                script,
                dry_run: false,
            });
        }
        let Some(section) = sections.get(done / 2) else { return };
        let root = section.root.clone();
        let retention = format!("{}ms", section.retention.as_millis());
        let mut properties = vec![("durability", section.durability.to_string()), ("retention", retention)];
        if !section.voters.is_empty() {
            properties.extend([("arbitration", "quorum".to_owned()), ("voters", section.voters.join(","))]);
            properties.extend(section.lease.map(|lease| ("lease", format!("{}ms", lease.as_millis()))));
        }
        let properties = properties.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        let topics = self.scenario.workload.topics;
        let (first, kinds) = (self.scenario.workload.kinds[0], self.scenario.workload.kinds.clone());
        let kind_of = |path: &str| crate::scenario::kind_of(&kinds, path);
        self.ask(at, session, Doing::Other, root.clone(), NO_VALUE, Durability::Memory, |_| match done % 2 {
            0 => Request::SectionAdd { root, properties },
            _ => {
                // Those of other types are made by the clients that write.
                let paths = (0..topics).map(|number| topic_path(&root, number)).filter(|path| kind_of(path) == first).collect();
                Request::TopicsAdd { topic: first.spec(0), paths }
            }
        });
    }

    fn write(&mut self, at: usize, session: (usize, ConnectionId), spec: usize) {
        let source = &self.scenario.workload.sources[spec];
        let dice = &mut self.dice.work;
        let next = self.now + source.gap.draw(dice).max(1.0) as Time;
        let (begins, ends) = self.scenario.hostile();
        let (from, until) = (begins.saturating_add(source.active.0), begins.saturating_add(source.active.1).min(ends));
        if self.now < from {
            // Each begins at a moment of its own.
            let first = from + (source.gap.draw(dice).max(1.0) * dice.unit()) as Time;
            return self.queue.at(first.max(self.now + 1), Event::Client { client: at as u32 });
        }
        if self.now >= until && !is(Tamper::NeverQuiet) {
            // What it has claimed it keeps, wherever it is now.
            let claim = &self.clients[at].claim;
            if let Some(branch) = source.branch.clone().filter(|_| claim.open.is_some() && claim.on != Some(session.1)) {
                if claim.asked.is_none() {
                    self.claim(at, session, &branch);
                }
                self.queue.at(self.now + RECONNECT_AFTER, Event::Client { client: at as u32 });
            }
            return;
        }
        self.queue.at(next, Event::Client { client: at as u32 });
        if let Some(branch) = &source.branch {
            return self.write_as_source(at, session, spec, branch.clone());
        }
        let [set, add, remove, send] = source.mix;
        let drawn = dice.unit() * (set + add + remove + send);
        let root = source.section.clone();
        let workload = &self.scenario.workload;
        let number = workload.choice.draw(dice, workload.topics + workload.slaves);
        let slave = number.checked_sub(workload.topics);
        let path = slave.map_or_else(|| topic_path(&root, number), |slave| slave_path(&root, slave));
        let section = self.scenario.sections.iter().find(|section| section.root == root);
        let usual = section.map_or(Durability::Disk, |section| section.durability);
        if drawn < set {
            let len = self.scenario.workload.payload.draw_u64(&mut self.dice.work) as usize;
            let (durability, asked) = (source.durability.unwrap_or(usual), source.durability);
            let payload = Payload { kind: self.kind_for(&path), len };
            if payload.kind == Kind::Paged {
                return self.change_lines(at, session, path, payload);
            }
            self.ask(at, session, Doing::Set, path.clone(), payload, durability, |op| {
                let items = vec![SetItem::new(Target::Path(path), payload.of(op))];
                Request::Set(SetBatch { items, add: None, durability: asked, under: None })
            });
        } else if drawn < set + add {
            let topic = match slave {
                Some(slave) => slave_of(&self.master_for(&root, slave)),
                None => {
                    let kind = self.kind_for(&path);
                    let variant = if kind.names_blob() { self.dice.work.below(VARIANTS) } else { 0 };
                    self.bring_blob(at, session, kind.blob(variant));
                    kind.spec(variant)
                }
            };
            self.ask(at, session, Doing::Add, path.clone(), NO_VALUE, usual, |_| Request::TopicsAdd { topic, paths: vec![path] });
        } else if drawn >= set + add + remove && send > 0.0 {
            let payload = Payload { kind: Kind::Binary, len: self.scenario.workload.payload.draw_u64(&mut self.dice.work) as usize };
            self.ask(at, session, Doing::Send, path.clone(), payload, Durability::Memory, |op| {
                Request::Send(Box::new(Send { to: Recipient::Subscribers, path, content: payload.of(op) }))
            });
        } else {
            self.ask(at, session, Doing::Remove, path.clone(), NO_VALUE, usual, |_| Request::TopicsRemove { selector: path, force: false });
        }
    }

    /// A client brings what the definition of a topic names, before it makes the topic.
    fn bring_blob(&mut self, at: usize, session: (usize, ConnectionId), content: Option<Vec<u8>>) {
        let Some(content) = content else { return };
        let (hash, total) = (BlobHash::of(&content), content.len() as u64);
        // In two pieces, as long ones come in several.
        let length = content.len().div_ceil(2).min(BLOB_PIECE_MAX);
        for (number, piece) in content.chunks(length).enumerate() {
            let offset = (number * length) as u64;
            self.ask(at, session, Doing::Other, String::new(), NO_VALUE, Durability::Memory, |_| Request::BlobPut {
                hash,
                offset,
                total,
                bytes: piece.to_vec(),
            });
        }
    }

    /// A client changes a list, whose length it does not know for certain.
    fn change_lines(&mut self, at: usize, session: (usize, ConnectionId), path: String, payload: Payload) {
        let lines = self.lists[session.0].lines_at(&path);
        let dice = &mut self.dice.work;
        let place = 1 + dice.below(lines + 2) as u64;
        // Now and then so many that a list is kept in several parts.
        let many = 1 + if dice.below(4) == 0 { dice.below(40) } else { dice.below(3) };
        let way = dice.below(12);
        self.ask(at, session, Doing::Lines, path.clone(), payload, Durability::Disk, |op| {
            let text = String::from_utf8(payload.of(op)).expect("a text");
            let lines = (0..many).map(|number| format!("{number} {text}")).collect();
            let splice = match way {
                0..=4 => Splice::append(lines),
                5 | 6 => Splice::insert(place, lines),
                7 | 8 => Splice::replace(place, lines),
                9 | 10 => Splice::remove(place, many as u64),
                _ => Splice { from: Some(place), take: None, lines },
            };
            Request::Change(Box::new(Changing::new(&path, Wish::Lines(splice))))
        });
    }

    /// The type that a client takes a topic to be of: mostly that of most others. Where there are several, some have another in mind, and perhaps make it so.
    fn kind_for(&mut self, path: &str) -> Kind {
        let kinds = &self.scenario.workload.kinds;
        match kinds.len() > 1 && self.dice.work.below(ODD_KIND_ONE_IN) == 0 {
            true => self.dice.work.pick(kinds).unwrap_or_default(),
            false => self.scenario.workload.kind_of(path),
        }
    }

    /// The path that a client takes to be a slave's master: mostly that which most others do. Some have another in mind, which may be a slave itself.
    fn master_for(&mut self, root: &str, slave: usize) -> String {
        let (topics, slaves) = (self.scenario.workload.topics, self.scenario.workload.slaves);
        match self.dice.work.below(ODD_KIND_ONE_IN) {
            0 => slave_path(root, self.dice.work.below(slaves)),
            1 => topic_path(root, self.dice.work.below(topics)),
            _ => topic_path(root, slave % topics.max(1)),
        }
    }

    /// A turn of a client that wants to be its branch's source: it claims, or writes, or gives up.
    fn write_as_source(&mut self, at: usize, session: (usize, ConnectionId), spec: usize, branch: String) {
        let claim = &self.clients[at].claim;
        if claim.asked.is_some_and(|(_, claimed)| claimed.is_none()) {
            return;
        }
        let Some(source) = claim.source else {
            if claim.asked.is_none() {
                self.claim(at, session, &branch);
            }
            return;
        };
        let Some(epoch) = claim.active else { return };
        if self.dice.work.below(CLOSE_ONE_IN) == 0 {
            (self.clients[at].claim.source, self.clients[at].claim.active, self.clients[at].claim.asked) = (None, None, None);
            return self.ask(at, session, Doing::Other, branch, NO_VALUE, Durability::Memory, |_| Request::SourceClose { source });
        }
        let spec = &self.scenario.workload.sources[spec];
        let usual = self.scenario.sections.iter().find(|section| section.root == spec.section).map(|section| section.durability);
        let (durability, asked) = (spec.durability.or(usual).unwrap_or(Durability::Disk), spec.durability);
        let below = |path: &String| *path == branch || path.starts_with(&format!("{branch}/"));
        let paths: Vec<String> = (0..self.scenario.workload.topics).map(|number| topic_path(&spec.section, number)).filter(below).collect();
        let chosen = self.scenario.workload.choice.draw(&mut self.dice.work, paths.len());
        let Some(path) = paths.get(chosen).cloned() else { return };
        let len = self.scenario.workload.payload.draw_u64(&mut self.dice.work) as usize;
        let floor = self.clients[at].once.keys().next().copied();
        let mut kept = None;
        let payload = Payload { kind: self.scenario.workload.kind_of(&path), len };
        self.ask(at, session, Doing::Set, path.clone(), payload, durability, |op| {
            let items = vec![SetItem::new(Target::Path(path), payload.of(op))];
            let request =
                Box::new(Request::Set(SetBatch { items, add: None, durability: asked, under: Some(Authority { source, epoch }) }));
            let request = Request::Once { number: op.into(), floor: floor.unwrap_or(op).into(), request };
            kept = Some((op, request.clone()));
            request
        });
        let Some((op, request)) = kept else { return };
        self.clients[at].once.insert(op, request.clone());
        if self.dice.work.below(TWICE_ONE_IN) == 0 {
            self.offer(session.0, Item::Request { session: session.1, op, request });
        }
    }

    /// A client that has taken its session up asks again for what it does not know to have been done.
    fn ask_again(&mut self, at: usize, (host, session): (usize, ConnectionId)) {
        let again: Vec<(u32, Request)> = self.clients[at].once.iter().map(|(op, request)| (*op, request.clone())).collect();
        for (op, request) in again {
            if let Some(op) = self.history.get_mut(op) {
                op.by = (host as u32, self.hosts[host].process_no);
            }
            self.clients[at].doubtful.insert(op);
            self.offer(host, Item::Request { session, op, request });
            self.reach("write.asked-again");
        }
    }

    /// Nobody will hear any more what has become of what a client wanted done.
    fn give_up_asking(&mut self, at: usize) {
        for op in std::mem::take(&mut self.clients[at].once).into_keys() {
            self.clients[at].pending.retain(|pending| *pending != op);
            self.history.end(op, self.now, Outcome::Unknown);
        }
    }

    /// A client opens its session, or takes up the one that it had at this node or another, and claims its branch.
    fn claim(&mut self, at: usize, session: (usize, ConnectionId), branch: &str) {
        let open = self.clients[at].claim.open.clone().filter(|_| self.clients[at].claim.on != Some(session.1));
        let asked = self.history.iter().count() as u32;
        let resumes = open.is_some();
        self.ask(at, session, Doing::Other, branch.to_owned(), NO_VALUE, Durability::Memory, |_| match open {
            Some(Open { id, secret, epoch, .. }) => Request::SessionResume { id, secret, epoch },
            None => Request::SessionOpen { reconnect_timeout_ms: None, properties: Default::default() },
        });
        self.clients[at].claim.closed_early = None;
        self.clients[at].claim.asked = Some((asked, None));
        if !resumes {
            let request = Request::SourceClaim { branch: branch.to_owned(), priority: 0, wait: true, hold_ms: None };
            self.ask(at, session, Doing::Other, branch.to_owned(), NO_VALUE, Durability::Memory, |_| request);
            self.clients[at].claim.asked = Some((asked, Some(asked + 1)));
            let properties = [("removal".to_owned(), "this session closes".to_owned())].into();
            let topic = TopicSpec { topic_type: "binary".into(), properties };
            let path = own_topic(&self.scenario.sections[0].root, at);
            self.ask(at, session, Doing::Other, path.clone(), NO_VALUE, Durability::Memory, |_| Request::TopicsAdd {
                topic,
                paths: vec![path],
            });
            let claim = &mut self.clients[at].claim;
            (claim.making, claim.made) = (Some(asked + 2), None);
        }
    }

    /// What came of a request by which a client becomes a source.
    fn claim_answered(&mut self, at: usize, host: usize, op: u32, response: &Response) {
        if self.clients[at].claim.making == Some(op) {
            let path = Path::parse(&own_topic(&self.scenario.sections[0].root, at)).ok();
            let claim = &mut self.clients[at].claim;
            claim.making = None;
            claim.made = path.filter(|_| matches!(response, Response::Added { created: 1, .. }));
        }
        let Some((opened, claimed)) = self.clients[at].claim.asked else { return };
        let Some(Role::Source(spec)) = self.clients.get(at).map(|client| &client.role) else { return };
        let branch = self.scenario.workload.sources[*spec].branch.clone().unwrap_or_default();
        let connection = self.clients[at].session.map(|(_, _, connection)| connection);
        let claim = &mut self.clients[at].claim;
        match response {
            Response::Session(open) if op == opened => {
                claim.on = connection;
                let before = claim.open.take().filter(|before| before.id == open.id);
                let secret =
                    if open.secret.is_empty() { before.as_ref().map(|before| before.secret.clone()) } else { Some(open.secret.clone()) };
                claim.open = secret.map(|secret| Open { host, id: open.id, secret, epoch: open.epoch });
                let moved = before.as_ref().is_some_and(|before| before.host != host);
                if claimed.is_none() {
                    // Taken up again: its source with it, unless that has been closed.
                    claim.asked = None;
                    let closed = claim.closed_early.take();
                    if let Some(own) = open.sources.iter().find(|source| source.branch == branch && closed != Some(source.source)) {
                        (claim.source, claim.asked) = (Some(own.source), Some((opened, Some(opened))));
                        self.reach("source.resumed");
                    }
                }
                if moved {
                    self.reach("session.moved");
                }
                if let Some(connection) = connection.filter(|_| claimed.is_none()) {
                    self.ask_again(at, (host, connection));
                }
                let by = (host, self.hosts[host].process_no);
                // Who asks again on the same connection hears the same again.
                let seen = before.filter(|_| claimed.is_none()).map_or(0, |before| before.epoch);
                let result = self.homes.taken(open.id, open.epoch, seen, by);
                self.check(result);
            }
            Response::Claimed { source } if Some(op) == claimed => match claim.closed_early.take().filter(|closed| closed == source) {
                Some(_) => claim.asked = None,
                None => claim.source = Some(*source),
            },
            Response::Refused(_) if op == opened => {
                (claim.open, claim.asked, claim.made) = (None, None, None);
                self.give_up_asking(at);
            }
            Response::Refused(_) if Some(op) == claimed => claim.asked = None,
            _ => {}
        }
    }

    /// A node tells a client of its source.
    fn source_told(&mut self, at: usize, source: u32, state: SourceState) {
        let claim = &mut self.clients[at].claim;
        let closed = if let SourceState::Closed { reason, .. } = state { Some(reason) } else { None };
        if claim.source != Some(source) {
            if closed.is_some() {
                claim.closed_early = Some(source);
            }
            return;
        }
        claim.active = None;
        match state {
            SourceState::Active { epoch } => claim.active = Some(epoch),
            SourceState::Standby { .. } => self.reach("source.standby"),
            SourceState::Closed { .. } => (claim.source, claim.asked) = (None, None),
            SourceState::Init => {}
        }
        if closed == Some(Closed::Conflict) {
            self.reach("source.closed-by-overlap");
        }
    }

    /// The branches that some client wants that is connected to a node.
    pub(super) fn wanted_branches(&self) -> impl Iterator<Item = String> {
        let demanded = |client: &&Client| client.session.is_some_and(|(host, ..)| self.is_demanded(host));
        self.clients.iter().filter(demanded).filter(|client| client.claim.source.is_some()).filter_map(|client| {
            let Role::Source(spec) = client.role else { return None };
            self.scenario.workload.sources[spec].branch.clone()
        })
    }

    /// Asks a node for something, as an operation of its own.
    #[allow(clippy::too_many_arguments, reason = "everything that an operation is")]
    pub(super) fn ask(
        &mut self,
        client: usize,
        (host, session): (usize, ConnectionId),
        doing: Doing,
        path: String,
        payload: Payload,
        durability: Durability,
        request: impl FnOnce(u32) -> Request,
    ) {
        let by = (host as u32, self.hosts[host].process_no);
        let op = self.history.ask(doing, path, payload, by, self.now, durability);
        self.clients[client].pending.push(op);
        let request = request(op);
        self.offer(host, Item::Request { session, op, request });
    }

    /// What an input is about, if it is a client's: found before the node takes it in.
    pub(super) fn about(&mut self, host: usize, item: &Item) -> Option<About> {
        let Item::Request { op, request, .. } = item else { return None };
        let request = innermost(request);
        let replica = self.hosts[host].process.as_ref()?.node.replica();
        let path = |text: &String| Path::parse(text).ok();
        let mut about = About { op: *op, ..About::default() };
        about.under = self.under(host, item);
        match request {
            Request::Set(batch) => {
                let targets = batch.items.iter().map(|item| &item.target);
                about.paths = targets.filter_map(|target| if let Target::Path(text) = target { path(text) } else { None }).collect();
            }
            Request::TopicsAdd { paths, .. } => about.paths = paths.iter().filter_map(path).collect(),
            Request::Change(change) => about.paths = path(&change.path).into_iter().collect(),
            Request::TopicsRemove { selector, .. } => {
                about.paths = path(selector).into_iter().collect();
                about.removes = self.oracle.living(replica, &about.paths);
            }
            _ => return None,
        }
        Some(about)
    }

    /// Under which authority a client writes: the branch, its session and the epoch.
    fn under(&self, host: usize, item: &Item) -> Option<(Path, SessionId, u64)> {
        let Item::Request { session, request, .. } = item else { return None };
        let Request::Set(SetBatch { under: Some(under), .. }) = innermost(request) else { return None };
        let at = Some((host, self.hosts[host].process_no, *session));
        let client = self.clients.iter().find(|client| client.session == at)?;
        let Role::Source(spec) = client.role else { return None };
        let branch = Path::parse(self.scenario.workload.sources[spec].branch.as_ref()?).ok()?;
        Some((branch, client.claim.open.as_ref()?.id, under.epoch))
    }

    /// What an operation wrote, as it stands in the node now.
    pub(super) fn note_op(&mut self, host: usize, about: &About) {
        let Some(process) = self.hosts[host].process.as_ref() else { return };
        let replica = process.node.replica();
        let number = process.node.id();
        let living = self.oracle.living(replica, &about.paths);
        let Some(op) = self.history.get_mut(about.op) else { return };
        let before = op.value;
        match op.doing {
            Doing::Add => op.made = living.into_iter().filter(|(_, mark)| self.oracle.is_of(*mark, number)).collect(),
            Doing::Remove => op.removed.clone_from(&about.removes),
            Doing::Set => {
                for (id, topic) in living {
                    let (Some(topic), Some(section)) = (self.oracle.local(replica, topic), replica.section(id)) else { continue };
                    let held: Vec<_> = section.keys_of(topic).filter_map(|key| Some(section.values.get(&key)?.dot)).collect();
                    for dot in held {
                        let mark = self.oracle.mark(replica, dot);
                        let written = self.oracle.get(id, mangrove_crdt::id::Plane::Values, mark);
                        let is_own = written.is_some_and(
                            |written| matches!(&written.record, crate::oracle::Record::Value { op, .. } if *op == Some(about.op)),
                        );
                        if is_own {
                            op.value = Some((id, mark));
                        }
                    }
                }
            }
            Doing::Lines | Doing::Send | Doing::Other => {}
        }
        // Whoever does not know a type cannot judge what is written to topics of it.
        let is_unknown =
            |path: &Path| replica.topic(path).is_some_and(|(_, topic)| matches!(topic.definition.topic_type(), TopicType::Unknown(_)));
        let blind = about.paths.iter().find(|path| op.value.is_some() && op.value != before && is_unknown(path));
        let blind =
            blind.map(|path| format!("node {}: it takes a value for {path}, of whose type it does not know", self.hosts[host].name));
        // What was written before, and asked for again, was judged then.
        let written = op.value.is_some() && op.value != before;
        if let (Some((branch, session, epoch)), true) = (&about.under, written) {
            let result = fences::accepted(&self.hosts[host].name, replica, branch, *session, *epoch);
            self.check(result);
        }
        if let Some(what) = blind {
            self.violated(Violation::new(Invariant::S9, what));
        }
    }

    /// A node tells a client something.
    pub(super) fn told(&mut self, host: usize, session: ConnectionId, message: FromNode) {
        let mut said = Vec::new();
        // Everything that a client is told is a part of the run.
        if mangrove::protocol::put_frame(&message, &mut said).is_ok() {
            self.trace.note(self.now, "told", host as u32, &[&said]);
        }
        if self.trace.is_read() {
            let line = format!("{} -> {session:?} {message:?}", self.hosts[host].name);
            self.trace.say(self.now, || line);
        }
        let process = self.hosts[host].process_no;
        let Some(client) = self.clients.iter().position(|client| client.session == Some((host, process, session))) else { return };
        match message {
            FromNode::Response { id, response } => {
                self.claim_answered(client, host, id as u32, &response);
                self.answered_op(client, host, id as u32, response);
            }
            FromNode::Source { source, state } => self.source_told(client, source, state),
            FromNode::Closing(refusal) => {
                let result = sessions::told_closing(&self.hosts[host].name, &refusal);
                // Where a disk has lost something, or somebody is not waited for any more, it may have been ended rightly.
                let remembers = self.scenario.config.retention.as_micros() as Time > self.scenario.run.duration + self.scenario.run.settle;
                if remembers && !self.lossy {
                    self.check(result);
                }
                self.client_lost(client);
            }
            message @ FromNode::Updates(_) => {
                let Some((FromNode::Updates(mut updates), deltas)) = over(&mut self.clients[client].wire, message) else {
                    return self.client_lost(client);
                };
                if deltas {
                    self.reach("subscriber.delta");
                }
                if is(Tamper::SwappedUpdates) {
                    self.clients[client].held_back.append(&mut updates);
                    if self.clients[client].held_back.len() > 20 {
                        updates = std::mem::take(&mut self.clients[client].held_back);
                        updates.reverse();
                    }
                }
                let count = updates.len() as u32;
                for update in updates {
                    let Target::Path(path) = update.topic else { continue };
                    let result = self.deliver(client, host, update.subscription, &path, update.event, update.mark);
                    self.check(result);
                }
                let Role::Subscriber { spec, .. } = self.clients[client].role else { return };
                let think = self.scenario.workload.subscribers[spec].think.draw(&mut self.dice.work).max(0.0) as Time;
                let session = self.clients[client].sessions;
                let at = self.now + 50 + think * Time::from(count);
                self.queue.at(at, Event::Credit { client: client as u32, session, updates: count });
            }
            other => self.hears(client, other),
        }
    }

    /// What a subscriber is told beside updates that goes from node to node.
    fn hears(&mut self, client: usize, message: FromNode) {
        let Role::Subscriber { told, hearing: Some(hearing), barred, .. } = &mut self.clients[client].role else { return };
        let told = told.entry(ONE_STREAM).or_default();
        match message {
            FromNode::Feeds(feeds) => hearing.numbers.extend(feeds.into_iter().map(|feed| hearing.feeds.number(feed))),
            FromNode::Seen(marks) => {
                for change in marks.into_iter().filter_map(|mark| hearing.change(mark)).collect::<Vec<_>>() {
                    hearing.memory.saw(change);
                }
            }
            FromNode::Position { marks, rights, .. } => {
                let changes: Vec<Change> = marks.into_iter().filter_map(|mark| hearing.change(mark)).collect();
                hearing.memory.position(rights, changes);
            }
            FromNode::Present { slot, paths, .. } => hearing.memory.present(slot, paths),
            FromNode::Synced { .. } => hearing.memory.synced().iter().for_each(|path| told.removed(path)),
            FromNode::Rewound { .. } => {
                barred.rewound();
                hearing.memory.rewound();
                told.rewound();
                self.reach("subscriber.rewound");
            }
            _ => {}
        }
    }

    fn answered_op(&mut self, client: usize, host: usize, op: u32, response: Response) {
        if !self.clients[client].pending.contains(&op) {
            // It was submitted twice, and this is the second answer.
            return;
        }
        self.clients[client].pending.retain(|pending| *pending != op);
        self.clients[client].once.remove(&op);
        let (outcome, subscribed) = match &response {
            // What is refused later than at once was taken in: it shows, and nobody knows whether it will last.
            Response::Refused(_) if self.present_op != Some(op) => (Outcome::Unknown, None),
            Response::Refused(_) => (Outcome::Failed, None),
            Response::Written { refused, .. } if refused.iter().any(|refused| refused.refusal.code == Code::UnknownType) => {
                self.reach("type.unknown");
                (Outcome::Failed, None)
            }
            Response::Written { refused, .. } if refused.iter().any(|refused| refused.refusal.code == Code::Fenced) => {
                self.reach("write.fenced");
                (Outcome::Failed, None)
            }
            Response::Written { refused, .. } | Response::Added { refused, .. } if !refused.is_empty() => (Outcome::Failed, None),
            Response::Subscribed { subscription } => (Outcome::Ok, Some(*subscription)),
            _ => (Outcome::Ok, None),
        };
        // What is refused when it is asked for again may have been done by the node that was lost.
        let doubtful = self.clients[client].doubtful.remove(&op) && outcome == Outcome::Failed;
        let outcome = if doubtful { Outcome::Unknown } else { outcome };
        self.history.end(op, self.now, outcome);
        let doing = self.history.get(op).map(|op| op.doing);
        if let Some(asked) = self.history.get(op).filter(|_| self.has_lists()) {
            let (name, list) = (&self.hosts[host].name, if let Response::Changed { list, .. } = response { list } else { None });
            let result = match outcome {
                Outcome::Ok => self.lists[host].acknowledged(name, op, self.now, &asked.path, list),
                Outcome::Failed => self.lists[host].refused(name, op),
                _ => Ok(()),
            };
            if list.is_some() {
                self.reach("list.changed");
            }
            self.check(result);
        }
        let removed = self.history.get(op).is_some_and(|op| !op.removed.is_empty());
        match (doing, outcome) {
            (Some(Doing::Set), Outcome::Ok) => self.observed(Observed::ValueSet, host, None),
            (Some(Doing::Remove), Outcome::Ok) if removed => self.observed(Observed::TopicsRemoved, host, None),
            _ => {}
        }
        let mut again = None;
        match &mut self.clients[client].role {
            Role::Founder { done } => {
                *done += usize::from(outcome == Outcome::Ok);
                // What was not done is tried again.
                again = Some(if outcome == Outcome::Ok { 1 } else { RECONNECT_AFTER });
            }
            Role::Subscriber { subscription, hearing: Some(_), .. } => *subscription = subscribed,
            Role::Subscriber { subscription, told, .. } => {
                *subscription = subscribed;
                told.extend(subscribed.map(|subscription| (subscription, reads::Told::default())));
            }
            Role::Source(_) | Role::Administrator(_) => {}
        }
        if let Some(wait) = again {
            self.queue.at(self.now + wait, Event::Client { client: client as u32 });
        }
    }

    fn deliver(
        &mut self,
        client: usize,
        host: usize,
        subscription: u32,
        path: &str,
        event: Told,
        mark: Option<Mark>,
    ) -> Result<(), crate::checks::Violation> {
        let home = self.hosts[host].name.clone();
        let is_principal = self.is_principal(client);
        let Role::Subscriber { told, hearing, barred, messages, .. } = &mut self.clients[client].role else { return Ok(()) };
        if let Told::Message(message) = &event {
            messages.message(&self.history, &home, path, &message.content)?;
            let missed = message.lost > 0;
            self.reach("message.heard");
            if missed {
                self.reach("message.lost");
            }
            return Ok(());
        }
        let mut reached = None;
        if let (true, Some(process), Ok(path)) = (is_principal, &self.hosts[host].process, Path::parse(path)) {
            let replica = process.node.replica();
            match event {
                Told::Removed { reason: Gone::NotPermitted } => {
                    barred.taken_back(&path, replica);
                    reached = Some(if replica.rules().conflicts().is_empty() { "rights.lost" } else { "rights.in-conflict" });
                }
                Told::Removed { .. } | Told::Message(_) => {}
                Told::Added { .. } | Told::Value { .. } => reached = barred.told(&home, &path, replica)?.then_some("rights.regained"),
            }
        }
        let one = hearing.as_ref().map_or(subscription, |_| ONE_STREAM);
        // The first updates may come before the subscription's number is known.
        let told = told.entry(one).or_default();
        if let Some(hearing) = hearing {
            let change = mark.and_then(|mark| hearing.change(mark));
            match hearing.memory.news(&path.into(), &event, change) {
                News::None => return Ok(()),
                News::Some => {}
                News::Anew => told.removed(path),
            }
        }
        let there = Path::parse(path).ok().zip(self.hosts[host].process.as_ref().map(|process| process.node.replica()));
        let mut of_slave = None;
        match event {
            Told::Added { topic } => told.added(path, &topic.topic_type),
            Told::Removed { .. } => {
                told.removed(path);
                let waits = there.is_some_and(|(path, replica)| replica.topic(&path).is_some() && reads::visible(replica, &path).is_none());
                of_slave = waits.then_some("slave.pending");
            }
            Told::Message(_) => {}
            Told::Value { value, .. } if told.topic_type(path) == Some(Kind::Paged.name()) => {
                let shows = there.and_then(|(path, replica)| Some(reads::visible(replica, &path)?.0.to_string()));
                let shows = shows.unwrap_or_else(|| path.to_owned());
                let summary = self.lists[host].told(&home, &shows, &value)?;
                told.list(&home, ((host as u32, self.hosts[host].process_no), shows), path, summary)?;
            }
            Told::Value { value, .. } => {
                let shows = there.and_then(|(path, replica)| Some(reads::visible(replica, &path)?.0));
                let shows = shows.map_or(path, Path::as_str);
                of_slave = (shows != path).then_some("slave.shown");
                let op = integrity::delivered(&self.history, &home, (shows, told.topic_type(path)), &value)?;
                told.value(&self.oracle, &self.history, &home, path, op)?;
            }
        }
        reached.into_iter().chain(of_slave).for_each(|state| self.reach(state));
        Ok(())
    }

    /// A subscriber is done with some updates.
    pub(super) fn credit(&mut self, client: usize, session: u32, updates: u32) {
        let of = &self.clients[client];
        let Role::Subscriber { subscription: Some(subscription), .. } = of.role else { return };
        if let Some((host, process, id)) = of.session.filter(|_| of.sessions == session)
            && self.hosts[host].process_no == process
        {
            self.offer(host, Item::Credit { session: id, subscription, updates });
        }
    }

    /// Sessions take what their subscribers have credit for.
    pub(super) fn serve_sessions(&mut self, host: usize) {
        if self.scenario.workload.subscribers.is_empty() {
            return;
        }
        let number = self.hosts[host].process_no;
        let here = self.clients.iter().filter_map(|client| client.session).filter(|(at, process, _)| (*at, *process) == (host, number));
        let sessions: Vec<ConnectionId> = here.map(|(_, _, session)| session).collect();
        for session in sessions {
            let now = self.hosts[host].now(self.now);
            while let Some(message) = self.hosts[host].process.as_mut().and_then(|process| process.node.poll_updates(now, session)) {
                self.told(host, session, message);
            }
        }
    }

    /// A host's process is gone, and with it the sessions: nobody will know how their operations ended.
    pub(super) fn sessions_lost(&mut self, host: usize) {
        for at in 0..self.clients.len() {
            if self.clients[at].session.is_some_and(|(of, _, _)| of == host) {
                self.client_lost(at);
            }
        }
    }

    /// A client has lost its node, or has let go of it.
    pub(super) fn client_lost(&mut self, at: usize) {
        self.clients[at].session = None;
        let claim = &mut self.clients[at].claim;
        (claim.asked, claim.on, claim.source, claim.active, claim.closed_early) = (None, None, None, None, None);
        let once: BTreeSet<u32> = self.clients[at].once.keys().copied().collect();
        for op in std::mem::take(&mut self.clients[at].pending) {
            match once.contains(&op) {
                true => self.clients[at].pending.push(op),
                false => _ = self.history.end(op, self.now, Outcome::Unknown),
            }
        }
        self.clients[at].moves += 1;
        if !matches!(self.clients[at].role, Role::Source(_)) || self.phase > Phase::Hostile {
            self.queue.at(self.now + RECONNECT_AFTER, Event::Client { client: at as u32 });
        }
    }

    /// All clients of a host vanish, in the middle of what they do.
    pub(super) fn clients_vanish(&mut self, host: usize) {
        for at in 0..self.clients.len() {
            let Some((_, _, session)) = self.clients[at].session.filter(|(of, _, _)| *of == host) else { continue };
            self.offer(host, Item::Gone(session));
            self.client_lost(at);
        }
    }

    /// All clients of a host that know another go there, and their host does not notice.
    pub(super) fn clients_move(&mut self, host: usize) {
        for at in 0..self.clients.len() {
            if self.clients[at].homes.len() > 1 && self.clients[at].session.is_some_and(|(of, _, _)| of == host) {
                self.client_lost(at);
            }
        }
    }

    /// Somebody else has the secrets of all sessions of a host's clients, and takes them up at the next of their homes.
    pub(super) fn clients_twin(&mut self, host: usize) {
        for at in 0..self.clients.len() {
            let client = &self.clients[at];
            let Some(open) = client.claim.open.clone().filter(|_| client.session.is_some_and(|(of, _, _)| of == host)) else { continue };
            let Some(other) = client.homes.iter().copied().find(|home| *home != host && self.hosts[*home].process.is_some()) else {
                continue;
            };
            let by = (other as u32, self.hosts[other].process_no);
            let op = self.history.ask(Doing::Other, String::new(), NO_VALUE, by, self.now, Durability::Memory);
            let Some(process) = self.hosts[other].process.as_mut() else { continue };
            let session = ConnectionId(process.next_id());
            self.offer(other, Item::Opened(session, entropy(by, session)));
            let request = Request::SessionResume { id: open.id, secret: open.secret, epoch: open.epoch };
            self.offer(other, Item::Request { session, op, request });
            self.reach("session.twin");
        }
    }

    /// All clients lose their nodes at once, and all that may come to a host.
    pub(super) fn clients_storm(&mut self, host: usize) {
        for at in 0..self.clients.len() {
            let Some((of, _, session)) = self.clients[at].session else { continue };
            self.offer(of, Item::Gone(session));
            self.client_lost(at);
            let client = &mut self.clients[at];
            client.moves = client.homes.iter().position(|home| *home == host).unwrap_or(client.moves);
        }
    }

    /// A client that has a session which its node, after all that time, has not.
    pub(super) fn bereft(&self) -> Option<String> {
        let wanting = self.clients.iter().filter(|client| client.claim.open.is_some());
        wanting.filter_map(|client| Some((client.claim.open.as_ref()?, client.session, client.claim.on))).find_map(|(open, session, on)| {
            let Some((host, _, connection)) = session else {
                return Some(format!("the client of session {} found no node", open.id.short()));
            };
            let home = self.hosts[host].process.as_ref().filter(|_| self.is_demanded(host))?;
            let held = home.node.own_sessions().any(|(id, _, at)| id == open.id && at == Some(connection));
            (on != Some(connection) || !held)
                .then(|| format!("{} does not have session {}, whose client is there", self.hosts[host].name, open.id.short()))
        })
    }

    /// A topic that goes with its session, and has gone without it or has stayed behind.
    pub(super) fn misjudged(&self) -> Option<String> {
        for client in &self.clients {
            let (Some((host, ..)), Some(open), Some(path)) = (client.session, &client.claim.open, &client.claim.made) else { continue };
            let Some(process) = self.hosts[host].process.as_ref().filter(|_| self.is_demanded(host)) else { continue };
            if process.node.replica().topic(path).is_none() {
                return Some(format!(
                    "{path} has gone from {}, and session {} that made it is there",
                    self.hosts[host].name,
                    open.id.short()
                ));
            }
        }
        let stays = |host: &usize| {
            let replica = self.hosts[*host].process.as_ref()?.node.replica();
            let over = |topic: &mangrove_crdt::tree::Topic| {
                let session = topic.definition.removal()?.strip_prefix("session ")?.strip_suffix(" closes")?.parse().ok()?;
                let record: Option<SessionRecord> = replica.standing(SectionId::MESH, Standing::Session(session));
                record.is_none_or(|record| record.ended.is_some()).then(|| topic.path.to_string())
            };
            let path = replica.topics_from("").find_map(|(_, topic)| over(topic))?;
            Some(format!("{path} is still there at {}, and the session that made it has ended", self.hosts[*host].name))
        };
        (0..self.hosts.len()).filter(|host| self.is_demanded(*host)).find_map(|host| stays(&host))
    }

    /// The mesh is made, as far as clients do it.
    pub(super) fn is_founded(&self) -> bool {
        let Some(Role::Founder { done }) = self.clients.first().map(|client| &client.role) else { return true };
        *done >= 2 * self.scenario.sections.len() + usize::from(self.has_principals())
    }

    fn has_principals(&self) -> bool {
        self.scenario.workload.subscribers.iter().any(|subscriber| subscriber.principal)
    }

    /// What subscribers whose node has become equal to all others should have been told by now.
    pub(super) fn untold(&self) -> Option<String> {
        for client in &self.clients {
            let (Role::Subscriber { told, subscription: Some(subscription), spec, hearing, .. }, Some((host, _, _))) =
                (&client.role, client.session)
            else {
                continue;
            };
            let subscription = if hearing.is_some() { &ONE_STREAM } else { subscription };
            if !self.is_demanded(host) {
                continue;
            }
            let (Some(told), Some(process)) = (told.get(subscription), self.hosts[host].process.as_ref()) else { continue };
            let select = &self.scenario.workload.subscribers[*spec].select;
            let Ok(selector) = mangrove_crdt::selector::Selector::parse(select) else { continue };
            let replica = process.node.replica();
            let principal = self.scenario.workload.subscribers[*spec].principal;
            let may_see = |path: &Path| !principal || may_read(replica.rules(), path);
            let is_there = |path: &&String| Path::parse(path).is_ok_and(|path| reads::visible(replica, &path).is_some() && may_see(&path));
            if let Some(path) = told.topics.keys().find(|path| !is_there(path)) {
                let home = &self.hosts[host].name;
                return Some(format!("a subscriber at {home} was not told that {path} is gone"));
            }
            for (_, topic) in replica.topics_from("").filter(|(_, topic)| selector.matches(&topic.path) && may_see(&topic.path)) {
                let Some((shown, Some(write))) = reads::visible(replica, &topic.path) else { continue };
                let topic_type = replica.topic(shown).map(|(_, shown)| shown.definition.topic_type());
                if topic_type == Some(&TopicType::Paged) {
                    let (stands, said) = (write.value.as_deref().and_then(Summary::from_value), told.list_at(topic.path.as_str()));
                    if stands != said {
                        let home = &self.hosts[host].name;
                        return Some(format!(
                            "a subscriber at {home} was told {said:?} of the list {} last, and {stands:?} stands",
                            topic.path
                        ));
                    }
                }
                let value = topic_type.and_then(|topic_type| topic_type.value_in(write.value.as_deref()?));
                let stands = value.and_then(|value| self.history.op_of(value)).map(|op| op.id);
                let said = told.topics.get(topic.path.as_str()).and_then(Option::as_ref).map(|told| told.0);
                // Of a series, whose events come as they come, it must have been told the newest.
                let is_series = topic_type.is_some_and(|topic_type| topic_type.series().is_some());
                let heard = is_series && stands.is_some_and(|op| told.has_heard(topic.path.as_str(), op));
                if stands != said && !heard {
                    let home = &self.hosts[host].name;
                    return Some(format!(
                        "a subscriber at {home} was told operation {said:?} of {} last, and {stands:?} stands",
                        topic.path
                    ));
                }
            }
        }
        None
    }

    /// Whether clients may still write.
    pub(super) fn is_hostile(&self) -> bool {
        self.phase == Phase::Hostile
    }
}

/// Both ends of a new connection.
fn wire() -> (Shrink, Restore) {
    (Shrink::new(BASES_BYTES, true), Restore::new(BASES_BYTES))
}

/// What comes of a message at the other end of a connection, and whether there are deltas in it on the way; `None` if that does not make it out, and goes.
fn over((shrink, restore): &mut (Shrink, Restore), mut message: FromNode) -> Option<(FromNode, bool)> {
    shrink.from_node(&mut message);
    let is_delta = |update: &Update| matches!(update.event, Told::Value { form: Some(Form::Delta), .. });
    let deltas = matches!(&message, FromNode::Updates(updates) if updates.iter().any(is_delta));
    let frame = mangrove::protocol::frame(&message).expect("a node sends what fits");
    let mut message = mangrove::protocol::decode_from_node(&frame[4..]).expect("it is understood");
    restore.from_node(&mut message).ok().map(|()| (message, deltas))
}
