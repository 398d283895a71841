//! A host: a machine with a clock and a disk, and on it, while it runs, the node.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use mangrove::{
    node::{Authenticator, Comer, ConnectionId, Hold, Input, Node, NodeConfig, Now, Target},
    protocol::{Code, Login, Refusal, Request, Verdict},
    store::StoreError,
};
use mangrove_crdt::{
    id::{Incarnation, MeshId, NodeId, Origin},
    persist::Row,
    replica::{LoadError, Replica},
    sabotage::hide_types,
    standing::Via,
};
use mangrove_net::{dialer, link::LinkId, mesh::Pace};

use crate::{
    checks::convergence::Known,
    clock::Clock,
    dice::Dice,
    disk::{Disk, Writer},
    scenario::{NodeSpec, Scenario, Time},
    tamper::{Tamper, is},
};

/// The mesh that all scenarios play in.
pub const MESH: MeshId = MeshId([0x4d; 32]);

/// What waits to be taken in by a process.
#[derive(Debug)]
pub enum Item {
    /// See [`Input::LinkUp`].
    LinkUp {
        /// Its name.
        link: LinkId,
        /// Who.
        peer: NodeId,
        /// Where.
        address: String,
        /// What this end dialled it as, if it did.
        dialled: Option<Target>,
    },
    /// See [`Input::LinkDown`].
    LinkDown {
        /// Which.
        link: LinkId,
        /// Why.
        reason: &'static str,
    },
    /// See [`Input::Frame`].
    Frame {
        /// On which link.
        link: LinkId,
        /// On which lane.
        lane: u32,
        /// What.
        bytes: Bytes,
    },
    /// The writer reports.
    Persisted {
        /// As durable as it asked to be.
        released: u64,
        /// On the disk.
        synced: u64,
    },
    /// The writer reports that the disk takes nothing.
    StoreFailed(StoreError),
    /// The disk takes hardly anything more.
    Full,
    /// The disk takes writes again.
    StoreRecovered,
    /// A lane can take frames again: links are served after every input, and this is none.
    Room,
    /// See [`Input::Outcast`].
    Outcast {
        /// Who says so.
        by: NodeId,
        /// In its words.
        said: String,
    },
    /// A client comes, with what its sessions' secrets come from.
    Opened(ConnectionId, [u8; 32]),
    /// A client says who it is; with what its sessions' secrets come from.
    Login(ConnectionId, [u8; 32], Login),
    /// It was found out whether a client is who it says.
    Verified(ConnectionId, Verdict),
    /// A client goes.
    Gone(ConnectionId),
    /// A client asks; under the number of an operation.
    Request {
        /// Who.
        session: ConnectionId,
        /// The operation.
        op: u32,
        /// What.
        request: Request,
    },
    /// A client can take more.
    Credit {
        /// Who.
        session: ConnectionId,
        /// Of which subscription.
        subscription: u32,
        /// How many.
        updates: u32,
    },
    /// A deadline.
    Timeout,
}

/// What a connection's sessions get their ids and secrets from: another for each connection of each process, and the same in each run.
pub fn entropy(by: (u32, u32), connection: ConnectionId) -> [u8; 32] {
    let name = [by.0.to_be_bytes().as_slice(), &by.1.to_be_bytes(), &connection.0.to_be_bytes()].concat();
    *blake3::hash(&name).as_bytes()
}

impl Item {
    /// Its name in the trace, and what distinguishes it.
    pub fn name(&self) -> &'static str {
        match self {
            Item::LinkUp { .. } => "link-up",
            Item::LinkDown { .. } => "link-down",
            Item::Frame { .. } => "frame",
            Item::Persisted { .. } => "persisted",
            Item::StoreFailed(_) => "store-failed",
            Item::Full => "store-full",
            Item::StoreRecovered => "store-recovered",
            Item::Room => "room",
            Item::Outcast { .. } => "outcast",
            Item::Opened(..) => "session-opened",
            Item::Login(..) => "login",
            Item::Verified(..) => "verified",
            Item::Gone(_) => "session-closed",
            Item::Request { .. } => "request",
            Item::Credit { .. } => "credit",
            Item::Timeout => "timeout",
        }
    }
}

/// A dialler of a process: as the tasks in production.
#[derive(Debug)]
pub struct Dialler {
    /// Its number.
    pub id: u32,
    /// Whom it dials.
    pub target: Target,
    /// Who answered, where the target does not say.
    pub known: Option<NodeId>,
    /// When to try again.
    pub backoff: dialer::Target,
    /// Whether something is under way; otherwise it waits for the link to go down.
    pub busy: bool,
    /// When the attempt under way began.
    pub since: Option<Time>,
}

/// A node that runs.
#[derive(Debug)]
pub struct Process {
    /// The node.
    pub node: Node,
    /// Its writer.
    pub writer: Writer,
    /// The connection and end behind each link.
    pub links: BTreeMap<LinkId, (usize, usize)>,
    /// Its diallers.
    pub diallers: Vec<Dialler>,
    next_dialler: u32,
    next_id: u64,
    /// Nodes that it takes no connection from, each with what it is told.
    pub revoked: BTreeMap<NodeId, String>,
    /// What waits to be taken in.
    pub inbox: VecDeque<Item>,
    /// Until when the present turn takes.
    pub busy_until: Time,
    /// Whether the next turn is on its way.
    pub turn_due: bool,
    /// For when a wake-up is on its way.
    pub wake_at: Time,
    /// Whether clients are refused because the disk is full, or fails.
    pub store: (bool, bool),
    /// What the check of S2 has found of it.
    pub known: Known,
}

impl Process {
    /// A number that names a link or a session.
    pub fn next_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// The nodes that it is linked to.
    pub fn is_linked(&self, node: &NodeId, peer_of: impl Fn(usize, usize) -> NodeId) -> bool {
        self.links.values().any(|(conn, end)| peer_of(*conn, *end) == *node)
    }

    /// Dials exactly these from now on. Returns the diallers that are new.
    pub fn dial(&mut self, targets: Vec<Target>, dice: &mut Dice) -> Vec<u32> {
        self.diallers.retain(|dialler| targets.contains(&dialler.target));
        let mut new = Vec::new();
        for target in targets {
            if self.diallers.iter().any(|dialler| dialler.target == target) {
                continue;
            }
            let Some(backoff) = dialer::Target::new(target.addresses.clone(), dice.bits()) else { continue };
            self.next_dialler += 1;
            let id = self.next_dialler;
            self.diallers.push(Dialler { id, known: target.node, target, backoff, busy: true, since: None });
            new.push(id);
        }
        new
    }
}

/// A backup of a host: rows, and the boot counter in its vault.
#[derive(Clone, Debug, Default)]
pub struct Image {
    /// What was on the disk.
    pub rows: Vec<Row>,
    /// The boot counter.
    pub boots: u32,
}

/// See the module.
#[derive(Debug)]
pub struct Host {
    /// Its name, and address.
    pub name: String,
    /// Which node it is now.
    pub id: NodeId,
    /// Its clock.
    pub clock: Clock,
    /// Its disk.
    pub disk: Disk,
    /// The boot counter in its vault.
    pub boots: u32,
    /// Its last backup.
    pub image: Image,
    /// The node, while it runs.
    pub process: Option<Process>,
    /// Names the process: each start counts on.
    pub process_no: u32,
    /// How many faults hold it up at present.
    pub paused: u32,
    /// How many times as long its turns take.
    pub slow: f64,
    /// It never starts again.
    pub dead: bool,
    /// When it lost what was on its disk, or came to.
    pub losses: Vec<Time>,
    /// It was revoked, so it will say so.
    pub expelled: bool,
    /// The types that it does not know, if it is of an older version.
    pub unknown: Option<Arc<[String]>>,
}

/// While this lives, the node that runs on this thread is of its host's version.
pub struct Version(bool);

impl Version {
    /// The version that a host has.
    pub fn of(host: &Host) -> Version {
        let is_older = host.unknown.is_some();
        if is_older {
            hide_types(host.unknown.as_ref());
        }
        Version(is_older)
    }
}

impl Drop for Version {
    fn drop(&mut self) {
        if self.0 {
            hide_types(None);
        }
    }
}

impl Host {
    /// A host that has not run yet.
    pub fn new(spec: &NodeSpec, seed: u64, at: usize, dice: &mut Dice) -> Self {
        let (offset, ppm) = (spec.offset.draw(dice) as i64, spec.drift_ppm.draw(dice));
        // No two machines booted at the same moment.
        let mono = 60_000_000 + dice.below(3_600_000_000) as u64;
        Host {
            name: spec.name.clone(),
            id: identity(seed, at, 0),
            clock: Clock::new(mono, ppm, offset),
            disk: Disk::new(spec.fsync.clone()),
            boots: 0,
            image: Image::default(),
            process: None,
            process_no: 0,
            paused: 0,
            slow: 1.0,
            dead: false,
            losses: Vec::new(),
            expelled: false,
            unknown: Some(spec.unknown.clone()).filter(|unknown| !unknown.is_empty()),
        }
    }

    /// What its clocks read.
    pub fn now(&self, time: Time) -> Now {
        self.clock.read(time)
    }

    /// Whether its process runs and is not held up.
    pub fn speaks(&self, process: u32) -> bool {
        self.process.is_some() && self.process_no == process && self.paused == 0
    }

    /// Starts its process over what is on the disk. Says whether damaged data had to be set aside.
    pub fn start(&mut self, time: Time, scenario: &Scenario, spec: &NodeSpec, dice: &mut Dice) -> Result<bool, LoadError> {
        // Durable before anything else happens.
        self.boots += 1;
        let mut drawn = dice.bits();
        if is(Tamper::SameNonce) {
            drawn = 7;
        }
        if is(Tamper::Outside) {
            static COUNT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
            drawn ^= COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        let incarnation = Incarnation { boot: self.boots, nonce: drawn };
        let origin = Origin { node: self.id, incarnation };
        let _version = Version::of(self);
        self.disk.store.reopen();
        let loaded = match self.disk.rows() {
            Ok(mut rows) => {
                if is(Tamper::ForgetfulDisk) {
                    let mut at = 0;
                    rows.retain(|row| {
                        at += 1;
                        row.table != mangrove_crdt::persist::Table::Registers || at % 3 > 0
                    });
                }
                match Replica::load(origin, rows) {
                    Err(error @ LoadError::Format { .. }) => return Err(error),
                    loaded => loaded.ok(),
                }
            }
            Err(_) => None,
        };
        let quarantined = loaded.is_none();
        if quarantined {
            self.disk.replace(&[]);
            self.losses.push(time);
        }
        let replica = loaded.unwrap_or_else(|| Replica::new(origin));
        let config = NodeConfig {
            mesh: MESH,
            name: self.name.clone(),
            addresses: if spec.listens { vec![self.name.clone()] } else { Vec::new() },
            seeds: spec.seeds.iter().filter(|seed| **seed != self.name).cloned().collect(),
            // Every node may revoke; who certifies whom is no matter of the simulation.
            authority: Some(*blake3::hash(&self.id.0).as_bytes()),
            expires_s: 4_000_000_000,
            hold: spec.holds.as_ref().map_or(Hold::All, |roots| Hold::Roots(roots.iter().cloned().collect())),
            pace: Pace {
                pulse: scenario.config.heartbeat,
                report: scenario.config.report,
                check: scenario.config.check,
                graft_after: scenario.config.graft_after,
                limits: scenario.config.limits,
            },
            retention: scenario.config.retention,
            drift_ppm: scenario.config.drift_max_ppm,
            lease: scenario.config.lease,
            settle: scenario.config.settle,
            hold_grants: scenario.config.hold,
            reconnect_timeout: scenario.config.reconnect_timeout,
            presume_dead: scenario.config.presume_dead,
            authentication: vec![Authenticator::Store],
            handler_timeout: Duration::from_secs(2),
            founding: None,
            neighbours_max: scenario.config.neighbours_max,
            links: BTreeMap::new(),
        };
        self.process_no += 1;
        self.process = Some(Process {
            node: Node::new(self.now(time), config, replica),
            writer: Writer::default(),
            links: BTreeMap::new(),
            diallers: Vec::new(),
            next_dialler: 0,
            next_id: 0,
            revoked: BTreeMap::new(),
            inbox: VecDeque::new(),
            busy_until: time,
            turn_due: false,
            wake_at: Time::MAX,
            store: (false, false),
            known: Known::default(),
        });
        Ok(quarantined)
    }
}

/// The identity of a host's node; another after each replacement.
pub fn identity(seed: u64, host: usize, replacement: u32) -> NodeId {
    NodeId::of_key(&[&seed.to_le_bytes()[..], &(host as u32).to_le_bytes(), &replacement.to_le_bytes()].concat())
}

/// What clients are told of a failing store, as in production.
pub fn store_refusal(error: &StoreError) -> Refusal {
    let code = match error {
        StoreError::Full { .. } => Code::Full,
        StoreError::ReadOnly { .. } => Code::ReadOnly,
        _ => Code::Internal,
    };
    Refusal::new(code, "store", error.to_string())
}

/// What clients are told of a store that is nearly full.
pub fn full_refusal() -> Refusal {
    Refusal::new(Code::Full, "store", "the disk, or the limit set for it, is nearly full")
}

impl Item {
    /// The input that it is.
    pub fn input(&self) -> Option<Input<'_>> {
        Some(match self {
            Item::LinkUp { link, peer, address, dialled } => {
                Input::LinkUp { link: *link, peer: *peer, address: address.clone(), dialled: dialled.clone() }
            }
            Item::LinkDown { link, reason } => Input::LinkDown { link: *link, reason: (*reason).to_owned() },
            Item::Frame { link, lane, bytes } => Input::Frame { link: *link, lane: *lane, bytes },
            Item::Persisted { released, synced } => Input::Persisted { released: *released, synced: *synced },
            Item::StoreFailed(error) => Input::StoreFailed { refusal: store_refusal(error), stuck: true },
            Item::Full => Input::StoreFailed { refusal: full_refusal(), stuck: false },
            Item::StoreRecovered => Input::StoreRecovered,
            Item::Room => return None,
            Item::Outcast { by, said } => Input::Outcast { by: Some(*by), said: said.clone() },
            Item::Opened(session, entropy) => Input::SessionOpened {
                session: *session,
                client: "simulated".into(),
                via: Via::default(),
                aliases_max: 0,
                entropy: *entropy,
                comes_back: false,
            },
            Item::Login(session, entropy, login) => {
                let (client, properties) = ("simulated".into(), BTreeMap::new());
                Input::LoginAsked {
                    session: *session,
                    comer: Comer { client, via: Via::default(), aliases_max: 0, entropy: *entropy, login: login.clone(), properties },
                }
            }
            Item::Verified(session, verdict) => Input::Verified { session: *session, verdict: verdict.clone() },
            Item::Gone(session) => Input::SessionClosed { session: *session },
            Item::Request { session, op, request } => Input::Request { session: *session, id: u64::from(*op), request: request.clone() },
            Item::Credit { session, subscription, updates } => {
                Input::Credit { session: *session, subscription: *subscription, updates: *updates }
            }
            Item::Timeout => Input::Timeout,
        })
    }
}
