//! Nodes for tests: one alone, with nothing stored and nothing configured; or some that are linked.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use mangrove_crdt::{
    id::{Incarnation, MeshId, NodeId, Origin},
    persist::{Row, Table},
    replica::Replica,
    standing::Via,
    time::Instant,
};
use mangrove_net::{link::LinkId, mesh::Pace};

use super::{Authenticator, Comer, ConnectionId, Hold, Input, Node, NodeConfig, Now, Output, Target, Verify};
use crate::protocol::{FromNode, Login, Refusal, Request, Response, Secret, TopicSpec, Verdict};

/// The password of all principals, and a hash of it.
pub const PASSWORD: &[u8] = b"cGFzc3dvcmQ";
pub const HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$cGFzc3dvcmQ";

/// The node's id.
pub const OWN: NodeId = NodeId([1; 32]);

/// A client that is connected.
pub const SESSION: ConnectionId = ConnectionId(1);

/// So many milliseconds after the node's start.
pub fn at(ms: u64) -> Now {
    Now { at: Instant(ms * 1_000), unix_ms: ms }
}

/// The node, started at zero.
pub fn node() -> Node {
    let mut node = started(1, Replica::new(run(1, 1)), 0);
    drop(node.handle_input(
        at(0),
        Input::SessionOpened {
            session: SESSION,
            client: "test".into(),
            via: Via::default(),
            aliases_max: 0,
            entropy: [7; 32],
            comes_back: false,
        },
    ));
    node
}

fn run(number: u8, boot: u32) -> Origin {
    Origin { node: NodeId([number; 32]), incarnation: Incarnation { boot, nonce: u64::from(boot) } }
}

fn started(number: u8, replica: Replica, ms: u64) -> Node {
    let config = NodeConfig {
        mesh: MeshId([9; 32]),
        name: if number == 1 { "own".into() } else { format!("n{number}") },
        addresses: Vec::new(),
        seeds: Vec::new(),
        authority: None,
        expires_s: 0,
        hold: Hold::All,
        pace: Pace::default(),
        retention: Duration::from_secs(1),
        lease: Duration::from_secs(5),
        drift_ppm: 500,
        settle: Duration::from_millis(300),
        hold_grants: Duration::from_secs(5),
        reconnect_timeout: Duration::from_secs(60),
        presume_dead: Duration::from_secs(1_000),
        authentication: vec![Authenticator::Store, Authenticator::Tokens, Authenticator::Handler("door".into())],
        handler_timeout: Duration::from_secs(2),
        founding: None,
        neighbours_max: 8,
        links: BTreeMap::new(),
    };
    Node::new(at(ms), config, replica)
}

/// What is on a disk.
type Rows = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

/// Some nodes, each linked to each unless they are kept apart. Frames and disks take no time.
pub struct Meshed {
    pub nodes: Vec<Node>,
    /// Milliseconds since the start.
    pub ms: u64,
    /// What the clients of each node were told without having asked, in order.
    pub told: Vec<(usize, ConnectionId, FromNode)>,
    links: BTreeMap<(usize, usize), LinkId>,
    disks: Vec<Rows>,
    /// Nodes that are stopped: nothing reaches them, and no time passes for them until they go on.
    pub stopped: BTreeSet<usize>,
    answers: BTreeMap<u64, Response>,
    /// What became of those who wanted to come in.
    pub judged: BTreeMap<ConnectionId, Result<(), Refusal>>,
    next: u64,
}

impl Meshed {
    /// So many nodes that know each other.
    pub fn new(count: u8) -> Self {
        let nodes: Vec<Node> = (1..=count).map(|number| started(number, Replica::new(run(number, 1)), 0)).collect();
        let disks = vec![BTreeMap::new(); nodes.len()];
        let mut meshed = Meshed {
            nodes,
            ms: 0,
            told: Vec::new(),
            links: BTreeMap::new(),
            disks,
            stopped: BTreeSet::new(),
            answers: BTreeMap::new(),
            judged: BTreeMap::new(),
            next: 0,
        };
        meshed.heal();
        meshed.pass(3_000);
        meshed
    }

    /// The same, all of which hold one section, `s`, declared with these properties, with a topic in it.
    pub fn with_section(count: u8, properties: &[(&str, &str)], path: &str) -> Self {
        let mut meshed = Self::new(count);
        let operator = meshed.client(0);
        let properties = properties.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let added = meshed.ask(0, operator, Request::SectionAdd { root: "s".into(), properties });
        assert!(matches!(added, Response::Section(_)), "{added:?}");
        meshed.ask(0, operator, Request::TopicsAdd { topic: TopicSpec::of("binary"), paths: vec![path.into()] });
        meshed.pass(2_000);
        meshed
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Links all that are not.
    pub fn heal(&mut self) {
        for (a, b) in (0..self.nodes.len()).flat_map(|a| (0..a).map(move |b| (a, b))) {
            if !self.links.contains_key(&(a, b)) {
                self.link(a, b);
            }
        }
        self.flow();
    }

    /// Links two that are not.
    pub fn link(&mut self, a: usize, b: usize) {
        for (at, other) in [(a, b), (b, a)] {
            let link = LinkId(self.number());
            self.links.insert((at, other), link);
            let peer = self.nodes[other].id();
            let dialled = (at == a).then(|| Target { node: Some(peer), addresses: Vec::new() });
            self.input(at, Input::LinkUp { link, peer, address: "there".into(), dialled });
        }
    }

    /// Cuts the links between one node and all others.
    pub fn cut_off(&mut self, at: usize) {
        self.split(&[at]);
    }

    /// Cuts the link between two nodes.
    pub fn cut(&mut self, one: usize, other: usize) {
        for (a, b) in [(one, other), (other, one)] {
            if let Some(link) = self.links.remove(&(a, b)) {
                self.input(a, Input::LinkDown { link, reason: "cut".into() });
            }
        }
    }

    /// Cuts all links between some nodes and the others.
    pub fn split(&mut self, side: &[usize]) {
        for other in (0..self.nodes.len()).filter(|other| !side.contains(other)) {
            side.iter().for_each(|one| self.cut(*one, other));
        }
    }

    /// A node ends, and starts with an empty disk under its old name, without links and clients.
    pub fn forget(&mut self, at: usize) {
        self.disks[at].clear();
        self.restart(at);
    }

    /// A node ends, and starts over what is on its disk, without links and clients.
    pub fn restart(&mut self, at: usize) {
        self.cut_off(at);
        let own = self.nodes[at].replica().own();
        let rows = self.disks[at].iter().map(|((table, key), value)| Row { table: *table, key: key.clone(), value: Some(value.clone()) });
        let replica = Replica::load(run(own.node.0[0], own.incarnation.boot + 1), rows).expect("what was stored can be read");
        self.nodes[at] = started(own.node.0[0], replica, self.ms);
        self.heal();
    }

    /// An operator's client comes to a node.
    pub fn client(&mut self, at: usize) -> ConnectionId {
        self.come(at, false)
    }

    /// A client comes to take up a session.
    pub fn comes_back(&mut self, at: usize) -> ConnectionId {
        self.come(at, true)
    }

    /// A client comes, from an address that has its node's number.
    fn come(&mut self, at: usize, comes_back: bool) -> ConnectionId {
        let via = Via { transport: "test".into(), address: Some([10, 0, 0, at as u8].into()) };
        let session = ConnectionId(self.number());
        let entropy = *blake3::hash(&session.0.to_be_bytes()).as_bytes();
        self.input(at, Input::SessionOpened { session, client: "test".into(), via, aliases_max: 0, entropy, comes_back });
        session
    }

    /// A client says who it is; what becomes of it. Of a password's hash, the password is the last part; a token is its principal.
    pub fn login(&mut self, at: usize, login: Login) -> (ConnectionId, Option<Result<(), Refusal>>) {
        let session = ConnectionId(self.number());
        let entropy = *blake3::hash(&session.0.to_be_bytes()).as_bytes();
        let comer = Comer { client: "test".into(), via: Via::default(), aliases_max: 0, entropy, login, properties: BTreeMap::new() };
        self.input(at, Input::LoginAsked { session, comer });
        self.flow();
        (session, self.judged.remove(&session))
    }

    /// The same of a principal that comes in.
    pub fn principal(&mut self, at: usize, name: &str) -> ConnectionId {
        let login = Login::Password { principal: name.into(), password: Secret::new(PASSWORD) };
        let (session, judged) = self.login(at, login);
        assert_eq!(judged, Some(Ok(())), "{name}");
        session
    }

    fn verify(&mut self, at: usize, session: ConnectionId, verify: Verify) {
        let verdict = match verify {
            Verify::Password { hash, password } => match hash.is_some_and(|hash| hash.as_bytes().ends_with(password.bytes())) {
                true => Verdict::allow(),
                false => Verdict::Deny,
            },
            Verify::Token(token) => Verdict::Allow {
                principal: Some(String::from_utf8_lossy(token.bytes()).into_owned()),
                roles: Some(vec!["clerk".into()]),
                properties: BTreeMap::new(),
                expires_ms: Some(self.ms + 10_000),
            },
        };
        self.input(at, Input::Verified { session, verdict });
    }

    /// A client goes.
    pub fn gone(&mut self, at: usize, session: ConnectionId) {
        self.input(at, Input::SessionClosed { session });
        self.flow();
    }

    /// A client asks; what it is answered.
    pub fn ask(&mut self, at: usize, session: ConnectionId, request: Request) -> Response {
        let id = self.number();
        self.input(at, Input::Request { session, id, request });
        self.flow();
        self.answers.remove(&id).expect("an answer")
    }

    /// Time passes.
    pub fn pass(&mut self, ms: u64) {
        let end = self.ms + ms;
        loop {
            let running = self.nodes.iter().enumerate().filter(|(at, _)| !self.stopped.contains(at));
            let due = running.filter_map(|(_, node)| node.poll_timeout()).map(|(due, _)| due.0.div_ceil(1_000)).min();
            self.ms = due.map_or(end, |due| due.clamp(self.ms, end));
            for at in (0..self.nodes.len()).filter(|at| !self.stopped.contains(at)).collect::<Vec<_>>() {
                if self.nodes[at].poll_timeout().is_some_and(|(due, _)| due.0 <= self.ms * 1_000) {
                    self.input(at, Input::Timeout);
                }
            }
            self.flow();
            if self.ms == end {
                return;
            }
        }
    }

    /// The present.
    pub fn now(&self) -> Now {
        at(self.ms)
    }

    pub fn input(&mut self, at: usize, input: Input<'_>) {
        let now = self.now();
        let mut outputs: VecDeque<Output> = self.nodes[at].handle_input(now, input).collect();
        while let Some(output) = outputs.pop_front() {
            match output {
                Output::Persist { rows, mark, .. } => {
                    for Row { table, key, value } in rows {
                        match value {
                            Some(value) => self.disks[at].insert((table, key), value),
                            None => self.disks[at].remove(&(table, key)),
                        };
                    }
                    outputs.extend(self.nodes[at].handle_input(now, Input::Persisted { released: mark, synced: mark }));
                }
                Output::Send { message: FromNode::Response { id, response }, .. } => _ = self.answers.insert(id, response),
                Output::Send { session, message } => self.told.push((at, session, message)),
                Output::Judged { session, result } => _ = self.judged.insert(session, result),
                Output::Verify { session, verify } => self.verify(at, session, verify),
                Output::Hangup { .. } | Output::Dial(_) | Output::Trust { .. } | Output::Stop { .. } => {}
            }
        }
    }

    /// Frames cross until there are none.
    fn flow(&mut self) {
        let (now, mut moved) = (self.now(), true);
        while std::mem::take(&mut moved) {
            for ((at, other), link) in self.links.clone() {
                if self.stopped.contains(&at) || self.stopped.contains(&other) {
                    continue;
                }
                while let Some(frame) = self.nodes[at].poll_transmit(now, link, &|_| false) {
                    moved = true;
                    let link = self.links[&(other, at)];
                    self.input(other, Input::Frame { link, lane: frame.lane, bytes: &frame.bytes });
                }
            }
        }
    }
}
