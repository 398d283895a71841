//! A scenario: what is simulated, but for the seed. One file, in TOML, read strictly ([`keys`]).
//!
//! The tables are `run`, `nodes`, `section`, `topology`, `contacts`, `network`, `workload`, `fault` and `checks`; and [`sweep`] makes many scenarios of one. Durations, sizes and rates carry their unit; any
//! of them may be a distribution, as `{ dist = "lognormal", median = "12ms", sigma = 0.4 }`.

mod amounts;
pub mod contacts;
pub mod fault;
pub mod files;
mod graphml;
pub mod keys;
pub mod kinds;
mod read;
pub mod sweep;
mod topology;

use std::{sync::Arc, time::Duration};

use mangrove_crdt::definition::Durability;
use mangrove_net::{dialer::BACKOFF_LAST, mesh::Limits};

pub use self::{
    contacts::Contacts,
    fault::{Crash, FaultKind, FaultSpec, Mode, Observed, Shape, When, Who},
    keys::BadScenario,
};
use crate::dice::{Amount, Choice};
use crate::values::Kind;

/// True time, which no node sees: microseconds since the run began.
pub type Time = u64;

/// A second.
pub const SECOND: Time = 1_000_000;

/// A whole scenario.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Its name: the file's, without directory and ending.
    pub name: String,
    /// What it shows, for people.
    pub description: String,
    /// How long.
    pub run: Run,
    /// Who takes part.
    pub nodes: Vec<NodeSpec>,
    /// How every node is configured.
    pub config: NodeSettings,
    /// What is declared on the mesh.
    pub sections: Vec<SectionSpec>,
    /// Who can reach whom at all, from each node to each.
    pub reach: Vec<Vec<bool>>,
    /// When links exist, if that is not always.
    pub contacts: Option<Contacts>,
    /// How paths are, unless said otherwise.
    pub network: PathSpec,
    /// Paths that are otherwise; the last that fits counts.
    pub paths: Vec<PathOverride>,
    /// What clients do.
    pub workload: Workload,
    /// What goes wrong.
    pub faults: Vec<FaultSpec>,
    /// What is demanded beside the invariants.
    pub checks: ChecksSpec,
}

/// How long a run takes, in true time.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// Time in which the mesh is made, without faults.
    pub warmup: Time,
    /// Time with faults, after that.
    pub duration: Time,
    /// Time without faults, after that, in which everything must become equal.
    pub settle: Time,
    /// How many events a run may take: more is a livelock.
    pub max_events: u64,
    /// The first seed and how many, unless the command line says otherwise.
    pub seeds: (u64, u64),
}

/// One node.
#[derive(Clone, Debug)]
pub struct NodeSpec {
    /// Its name, which is its address too.
    pub name: String,
    /// Whether others can dial it.
    pub listens: bool,
    /// Addresses that it dials in any case.
    pub seeds: Vec<String>,
    /// The sections that it holds by itself, by root; all without.
    pub holds: Option<Vec<String>>,
    /// How far its wall clock is off at first, in microseconds.
    pub offset: Amount,
    /// How much its clocks run too fast, in parts per million.
    pub drift_ppm: Amount,
    /// What one turn of its loop takes, in microseconds.
    pub service: Amount,
    /// What a sync of its disk takes, in microseconds.
    pub fsync: Amount,
    /// The names of types of which it does not know at first: it is of an older version.
    pub unknown: Arc<[String]>,
}

/// What the node's own configuration has.
#[derive(Clone, Debug)]
pub struct NodeSettings {
    /// Between heartbeats.
    pub heartbeat: Duration,
    /// Between reports of durable frontiers.
    pub report: Duration,
    /// Between comparisons with neighbours.
    pub check: Duration,
    /// How long a neighbour may be ahead with nothing coming.
    pub graft_after: Duration,
    /// How long removals in the built-in section are remembered.
    pub retention: Duration,
    /// After how much silence a node is taken for gone.
    pub lease: Duration,
    /// How far clocks may run apart, in parts per million: what quorum sections rely on.
    pub drift_max_ppm: u32,
    /// How long a branch that nobody holds waits for claims to spread.
    pub settle: Duration,
    /// For how long a session that has lost its connection keeps its branches.
    pub hold: Duration,
    /// For how long it may be taken up again.
    pub reconnect_timeout: Duration,
    /// After what silence of a node its sessions end.
    pub presume_dead: Duration,
    /// Up to how many neighbours everyone dials everyone.
    pub neighbours_max: usize,
    /// How much one frame holds.
    pub limits: Limits,
    /// After how much silence a connection is given up.
    pub idle_timeout: Time,
}

impl NodeSettings {
    /// How long it takes at most, once a path carries again, until what one end has decided has come to the other: a connection that does not live any more is noticed by
    /// its silence, then dialled after the longest wait, then compared, which may wait for a round of each; and a branch settles.
    pub fn dual_holder_bound(&self) -> Time {
        let of = |duration: Duration| duration.as_micros() as Time;
        self.idle_timeout + of(BACKOFF_LAST) + of(self.check) + of(self.graft_after) + of(self.heartbeat) + of(self.settle)
    }
}

/// One section.
#[derive(Clone, Debug)]
pub struct SectionSpec {
    /// Its root.
    pub root: String,
    /// Where a write must be before it is acknowledged.
    pub durability: Durability,
    /// How long removals are remembered.
    pub retention: Duration,
    /// For how long a source by quorum may go on without its voters; as long as nodes' leases without.
    pub lease: Option<Duration>,
    /// The names of those who vote on its sources; none where each part of the mesh decides for itself.
    pub voters: Vec<String>,
}

/// How one direction between two nodes is.
#[derive(Clone, Debug)]
pub struct PathSpec {
    /// One way, in microseconds.
    pub latency: Amount,
    /// What is lost.
    pub loss: Loss,
    /// The share of packets that arrive changed. The transport authenticates every packet and drops what is not as it was sent (RFC 9001, section 5.3), so to
    /// those above it they are lost.
    pub corrupt: f64,
    /// The share of packets that come twice.
    pub duplicate: f64,
    /// The share of packets that draw another delay on top, so that others overtake them.
    pub reorder: f64,
    /// Bits a second; none for as many as there are.
    pub bandwidth: Option<f64>,
    /// How many bytes of one lane may wait to be sent; or, if more is dropped, how many of all that is sent on the path, with their headers.
    pub queue: usize,
    /// Whether a full queue drops what comes (tail drop), as a router's does, so that it is lost and sent again. Otherwise the sender waits until there is room.
    pub tail_drop: bool,
    /// When the path is there at all; none for always.
    pub schedule: Option<Schedule>,
}

/// How packets are lost.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Loss {
    /// Each by itself, with this probability.
    Bernoulli(f64),
    /// In bursts: two states, good and bad (Gilbert 1960; Elliott 1963). The states change packet by packet.
    GilbertElliott {
        /// From good to bad.
        p: f64,
        /// From bad to good.
        r: f64,
        /// Lost in the good state.
        good: f64,
        /// Lost in the bad state.
        bad: f64,
    },
    /// The same, but its states change in time: a continuous Markov chain.
    GilbertElliottInTime {
        /// How long the good state lasts in the mean, in microseconds.
        mean_good: f64,
        /// How long the bad state lasts.
        mean_bad: f64,
        /// Lost in the good state.
        good: f64,
        /// Lost in the bad state.
        bad: f64,
    },
}

impl Loss {
    /// The chain in time that, looked at every `step` microseconds, changes from good to bad with the probability `p`, and back with `r`. With packets one
    /// step apart it is the chain that changes packet by packet. `None` if `p` and `r` are 1 or more together: no chain in time is like that.
    ///
    /// The two rates are κp ∕ (p + r) and κr ∕ (p + r), where κ = −ln(1 − p − r) ∕ step: the matrix whose exponential the step's probabilities are.
    pub fn in_time(p: f64, r: f64, good: f64, bad: f64, step: f64) -> Option<Loss> {
        let both = p + r;
        if both <= 0.0 || both >= 1.0 {
            return (both <= 0.0).then_some(Loss::Bernoulli(good));
        }
        let rates = -libm::log1p(-both) / step;
        Some(Loss::GilbertElliottInTime { mean_good: both / (rates * p), mean_bad: both / (rates * r), good, bad })
    }
}

/// A path that comes and goes: up and down stretches alternate, each drawn exponentially.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// The share of time in which it is up.
    pub up_share: f64,
    /// The mean of an up and a down stretch together, in microseconds.
    pub period: f64,
}

/// Paths between some nodes.
#[derive(Clone, Debug)]
pub struct PathOverride {
    /// From whom: indexes.
    pub from: Vec<usize>,
    /// To whom.
    pub to: Vec<usize>,
    /// How.
    pub path: PathSpec,
}

/// What clients do.
#[derive(Clone, Debug)]
pub struct Workload {
    /// How many topics there are in each section at first.
    pub topics: usize,
    /// How many paths there are beside for slaves of these, which whoever adds topics makes.
    pub slaves: usize,
    /// Which of them a client that writes takes: the first most often, unless all are alike.
    pub choice: Choice,
    /// The length of values, in bytes.
    pub payload: Amount,
    /// The types of topics: at least one. Each path has one that most clients take it to have.
    pub kinds: Vec<Kind>,
    /// Who writes.
    pub sources: Vec<SourceSpec>,
    /// Who listens.
    pub subscribers: Vec<SubscriberSpec>,
    /// Who changes what those may see who come as a principal.
    pub administrators: Vec<AdministratorSpec>,
}

impl Workload {
    /// The type that most clients take a path to have.
    pub fn kind_of(&self, path: &str) -> Kind {
        kind_of(&self.kinds, path)
    }
}

/// See [`Workload::kind_of`].
pub fn kind_of(kinds: &[Kind], path: &str) -> Kind {
    let sum: usize = path.bytes().map(usize::from).sum();
    kinds.get(sum % kinds.len().max(1)).copied().unwrap_or_default()
}

/// A client that changes who may do what.
#[derive(Clone, Debug)]
pub struct AdministratorSpec {
    /// The nodes that it is connected to, in order of preference.
    pub homes: Vec<usize>,
    /// Between two changes, in microseconds.
    pub gap: Amount,
}

/// A client that writes.
#[derive(Clone, Debug)]
pub struct SourceSpec {
    /// The nodes that it is connected to, in order of preference.
    pub homes: Vec<usize>,
    /// The root of the section that it writes to.
    pub section: String,
    /// The branch whose update source it wants to be, to write only there; none to write plainly.
    pub branch: Option<String>,
    /// Between two requests, in microseconds.
    pub gap: Amount,
    /// How often it sets, adds, removes, sends: weights.
    pub mix: [f64; 4],
    /// What it asks for beside what the section says.
    pub durability: Option<Durability>,
    /// When it begins and ends, in time after the warm-up.
    pub active: (Time, Time),
}

/// A client that listens.
#[derive(Clone, Debug)]
pub struct SubscriberSpec {
    /// The nodes that it connects to: if there is more than one, it goes from one to the next and goes on where it was.
    pub homes: Vec<usize>,
    /// Whether it comes as a principal, whose rights change; otherwise it may see everything.
    pub principal: bool,
    /// To what it listens.
    pub select: String,
    /// How long it takes over each update, in microseconds.
    pub think: Amount,
}

/// What is demanded.
#[derive(Clone, Debug)]
pub struct ChecksSpec {
    /// After the faults, everything must be equal within this.
    pub converge_within: Time,
    /// After the faults, every branch that somebody wants must have one source within this.
    pub lease_within: Time,
    /// Within how long after the faults every client has its session again.
    pub resume_within: Time,
    /// For how long two nodes may hold a branch of an available section together once nothing keeps them apart.
    pub dual_holder_bound: Time,
    /// Of whom alone that is demanded: nodes outside of which faults without an end stay. Empty for all, and then no fault stays.
    pub core: Vec<usize>,
    /// States that some seed of the batch must have reached, or the batch shows nothing.
    pub sometimes: Vec<String>,
}

impl Scenario {
    /// Reads a scenario. `name` is what it is called unless it says so itself. Files that it names come from those that come with the program.
    ///
    /// # Errors
    /// What is wrong first, and where.
    pub fn parse(name: &str, text: &str) -> Result<Scenario, BadScenario> {
        Self::parse_with(name, text, &crate::scenarios::file)
    }

    /// The same, with `files` to read the files that it names.
    ///
    /// # Errors
    /// What is wrong first, and where.
    pub fn parse_with(name: &str, text: &str, files: files::Files) -> Result<Scenario, BadScenario> {
        read::scenario(name, text, files)
    }

    /// Whether this build can run it. Nodes of an older version take the feature `sabotage`.
    pub fn is_possible(&self) -> bool {
        mangrove_crdt::sabotage::HIDES_TYPES || self.nodes.iter().all(|node| node.unknown.is_empty())
    }

    /// When faults begin, and when they end.
    pub fn hostile(&self) -> (Time, Time) {
        (self.run.warmup, self.run.warmup + self.run.duration)
    }

    /// When a run ends.
    pub fn end(&self) -> Time {
        self.hostile().1 + self.run.settle
    }
}
