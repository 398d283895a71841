//! The world: hosts, the network between them, clients at them, and what goes wrong; and the loop that makes it go on.

mod clients;
mod contacts;
mod faults;
mod links;
mod partitions;
mod process;
mod verdict;

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    checks::{
        Violation, convergence,
        durability::Losses,
        exclusivity::{Held, Holders},
        lattice::View,
        leases::Leases,
        lists, livelock,
        sessions::Homes,
    },
    dice::Dice,
    history::History,
    host::Host,
    log,
    network::Network,
    oracle::Oracle,
    queue::{Event, Queue},
    scenario::{SECOND, Scenario, Time},
    trace::Trace,
};

use self::{clients::Client, faults::Faults};

/// How often checks of the whole are made.
const SAMPLE_EVERY: Time = SECOND;

/// For how long everybody must have been equal before it is seen whether all is quiet.
const QUIET_AFTER: Time = 6 * SECOND;
const QUIET_FOR: Time = 5 * SECOND;

/// One run of a scenario under a seed. See the crate's essay.
#[derive(Debug)]
pub struct World<'s> {
    scenario: &'s Scenario,
    seed: u64,
    now: Time,
    queue: Queue,
    trace: Trace,
    hosts: Vec<Host>,
    network: Network,
    clients: Vec<Client>,
    history: History,
    oracle: Oracle,
    views: Vec<View>,
    losses: Losses,
    /// The lists of each host.
    lists: Vec<lists::Past>,
    faults: Faults,
    dice: Streams,
    /// What has gone wrong first.
    found: Option<Violation>,
    /// States that were reached, and how often.
    reached: BTreeMap<&'static str, u64>,
    /// Something was lost for good (unsynced writes, a disk, a section given up), so what was half sent may stay half sent.
    lossy: bool,
    events: u64,
    phase: Phase,
    /// When everybody became equal after the faults.
    equal_at: Option<Time>,
    /// Since when, after the faults, every branch that is wanted has had one source.
    held_at: Option<Time>,
    /// The frames with content that had been sent when quiet began.
    quiet_from: Option<(Time, u64)>,
    /// When something that a fault had lost was last sent again: by waits that double, up to as long after the faults as they lasted.
    resent_at: Time,
    revoked: BTreeSet<usize>,
    /// Who has contact, by the trace.
    in_contact: BTreeSet<(usize, usize)>,
    /// Something about who hears whom has changed since it was looked at.
    audible_changed: bool,
    permitted_losses: u64,
    /// How many entries the displaced log has in the end.
    displaced: u64,
    /// The operation whose request is being taken in.
    present_op: Option<u32>,
    /// Who holds which branch.
    holders: Holders,
    homes: Homes,
    /// Under which epochs branches of quorum sections were held.
    leases: Leases,
    /// How many records there were when rest was looked at last.
    records_seen: u64,
    /// The last frame with content, for whoever changes one.
    tampered: u64,
}

/// A stream of randomness for each part of the world.
#[derive(Debug)]
struct Streams {
    hosts: Dice,
    disks: Dice,
    work: Dice,
    faults: Dice,
    checks: Dice,
}

/// In which part of a run the world is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Phase {
    Making,
    Hostile,
    Settling,
    Over,
}

/// What came of a run.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// The first violation.
    pub violation: Option<Violation>,
    /// The hash of everything that happened.
    pub hash: [u8; 32],
    /// When it ended, in virtual time.
    pub simulated: Time,
    /// How many events there were.
    pub events: u64,
    /// How many operations were acknowledged, refused, unknown.
    pub ops: [u64; 3],
    /// After what time half of the acknowledged operations were, and 99 of 100, in microseconds; `None` if none was.
    pub acknowledged_after: Option<[Time; 2]>,
    /// How many records were written.
    pub records: u64,
    /// How many faults struck.
    pub faults: u64,
    /// How long after the faults everybody was equal, in microseconds.
    pub converged_after: Option<Time>,
    /// Acknowledged operations whose effect is gone, as is permitted.
    pub permitted_losses: u64,
    /// Entries of the displaced log at the end, of all sections.
    pub displaced: u64,
    /// Node-seconds that were simulated.
    pub node_seconds: f64,
    /// Frames that arrived, and their bytes.
    pub carried: (u64, u64),
    /// States that were reached, and how often.
    pub reached: BTreeMap<&'static str, u64>,
    /// How long after the faults every branch that is wanted had one source, in microseconds; `None` if none is wanted.
    pub held_after: Option<Time>,
    /// Who held which branch when.
    pub timeline: Vec<Held>,
}

impl<'s> World<'s> {
    /// A world in which nothing has happened yet.
    pub fn new(scenario: &'s Scenario, seed: u64, trace: Trace) -> Self {
        let mut dice = Streams {
            hosts: Dice::new(seed, "hosts"),
            disks: Dice::new(seed, "disks"),
            work: Dice::new(seed, "workload"),
            faults: Dice::new(seed, "faults"),
            checks: Dice::new(seed, "checks"),
        };
        let hosts: Vec<Host> = scenario.nodes.iter().enumerate().map(|(at, spec)| Host::new(spec, seed, at, &mut dice.hosts)).collect();
        let count = hosts.len();
        let faults = Faults::new(scenario, &mut dice.faults);
        World {
            scenario,
            seed,
            now: 0,
            queue: Queue::default(),
            trace,
            hosts,
            network: Network::new(seed, scenario),
            clients: clients::all(scenario),
            history: History::default(),
            oracle: Oracle::default(),
            views: (0..count).map(|_| View::default()).collect(),
            losses: Losses { disks: vec![Vec::new(); count], processes: vec![Vec::new(); count] },
            lists: (0..count).map(|_| lists::Past::default()).collect(),
            faults,
            dice,
            found: None,
            reached: BTreeMap::new(),
            lossy: false,
            events: 0,
            phase: Phase::Making,
            equal_at: None,
            held_at: None,
            quiet_from: None,
            resent_at: 0,
            revoked: BTreeSet::new(),
            in_contact: BTreeSet::new(),
            audible_changed: false,
            permitted_losses: 0,
            displaced: 0,
            present_op: None,
            holders: Holders::default(),
            homes: Homes::default(),
            leases: Leases::default(),
            records_seen: 0,
            tampered: 0,
        }
    }

    /// Runs to the end, or to the first violation.
    pub fn run(mut self) -> Outcome {
        // What was logged before is another run's.
        log::take();
        self.begin();
        while self.step() {}
        self.finish()
    }

    /// The next event happens. Says whether another can: not after the end, nor after a violation.
    fn step(&mut self) -> bool {
        let Some((at, event)) = self.queue.pop() else { return false };
        self.now = at;
        self.events += 1;
        if let Err(violation) = livelock::events(self.events, self.scenario.run.max_events) {
            self.violated(violation);
        }
        if matches!(event, Event::End) {
            self.over();
            return false;
        }
        self.happen(event);
        if std::mem::take(&mut self.audible_changed) {
            let (hosts, network) = (&self.hosts, &mut self.network);
            network.listen(self.now, &mut self.queue, |host, process| hosts[host].speaks(process));
        }
        self.found.is_none()
    }

    fn begin(&mut self) {
        let (from, to) = self.scenario.hostile();
        for host in 0..self.hosts.len() {
            self.start(host);
        }
        for client in 0..self.clients.len() {
            self.queue.at(1, Event::Client { client: client as u32 });
        }
        self.queue.at(SAMPLE_EVERY, Event::Sample);
        self.queue.at(from, Event::Hostile);
        self.queue.at(to, Event::Settle);
        self.queue.at(self.scenario.end(), Event::End);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Packet { conn, to, lane, seq, bytes } => self.packet(conn as usize, to as usize, (lane, seq, bytes)),
            Event::Wake { host, process } => self.wake(host as usize, process),
            Event::Turn { host, process } => self.turn(host as usize, process),
            Event::Sent { conn, from, lane, bytes } => self.sent(conn as usize, from as usize, lane, bytes as usize),
            Event::Resend { conn, from } => {
                if self.network.resend(self.now, &mut self.queue, conn as usize, from as usize) {
                    // A link comes to life again, and what its ends have to say to each other is no sign of unrest.
                    self.resent_at = self.now;
                    if self.quiet_from.take().is_some() {
                        self.reach("rest.disturbed");
                    }
                }
            }
            Event::Idle { conn, end, epoch } => self.idle(conn as usize, end as usize, epoch),
            Event::Closed { conn, end, revoked } => self.peer_closed(conn as usize, end as usize, revoked),
            Event::Dial { host, process, dialler } => self.dial(host as usize, process, dialler),
            Event::Greeted { host, process, dialler, to } => self.greeted(host as usize, process, dialler, to as usize),
            Event::Answered { host, process, dialler, to, to_process, welcome, revoked } => {
                self.answered((host as usize, process, dialler), (to as usize, to_process), welcome, revoked);
            }
            Event::Confirmed { conn } => self.confirmed(conn as usize),
            Event::Disk { host, process, step } => self.disk(host as usize, process, step),
            Event::Client { client } => self.client(client as usize),
            Event::Credit { client, session, updates } => self.credit(client as usize, session, updates),
            Event::Strike { fault, repeats, observed } => self.strike(fault as usize, repeats, observed),
            Event::Over { active } => self.fault_over(active as usize),
            Event::Flip { from, to } => {
                self.network.flip(self.now, &mut self.queue, from as usize, to as usize);
                self.audible_changed = true;
            }
            Event::Contact { change } => self.contact(change as usize),
            Event::Sample => self.sample(),
            Event::Hostile => self.hostile(),
            Event::Settle => self.settle(),
            Event::End => {}
        }
    }

    fn hostile(&mut self) {
        self.phase = Phase::Hostile;
        self.trace.say(self.now, || "the faults begin".into());
        self.network.calm = false;
        self.network.begin_schedules(self.now, &mut self.queue);
        self.audible_changed = true;
        self.begin_contacts();
        self.plan_faults();
    }

    fn settle(&mut self) {
        self.phase = Phase::Settling;
        self.trace.say(self.now, || "the faults are over".into());
        self.end_faults();
        self.end_contacts();
    }

    /// A state was reached.
    fn reach(&mut self, state: &'static str) {
        *self.reached.entry(state).or_default() += 1;
    }

    /// The first violation ends the run.
    fn violated(&mut self, violation: Violation) {
        if self.found.is_none() {
            self.trace.say(self.now, || format!("VIOLATION of {}: {}", violation.invariant, violation.what));
            self.found = Some(Violation { at: self.now, ..violation });
        }
    }

    fn check(&mut self, result: Result<(), Violation>) {
        if let Err(violation) = result {
            self.violated(violation);
        }
    }

    /// The hosts whose nodes run and belong to the mesh.
    fn members(&self) -> Vec<usize> {
        let lives = |at: &usize| self.hosts[*at].process.is_some() && !self.hosts[*at].expelled;
        (0..self.hosts.len()).filter(|at| lives(at) && self.is_demanded(*at)).collect()
    }

    /// Whether what is demanded after the faults is demanded of a host.
    fn is_demanded(&self, host: usize) -> bool {
        let core = &self.scenario.checks.core;
        self.phase < Phase::Settling || core.is_empty() || core.contains(&host)
    }

    fn sample(&mut self) {
        self.queue.at(self.now + SAMPLE_EVERY, Event::Sample);
        self.sample_bounds();
        self.sample_pairs();
        match self.phase {
            Phase::Hostile => {
                self.sample_calm();
                self.meet_all();
            }
            Phase::Settling => self.sample_settling(),
            _ => {}
        }
    }

    fn finish(mut self) -> Outcome {
        self.count_logged();
        let node_seconds = self.now as f64 / 1e6 * self.hosts.len() as f64;
        let [ok, failed, unknown] = self.history.counts();
        for (state, count) in [("write.acknowledged", ok), ("write.refused", failed), ("write.unknown", unknown)] {
            if count > 0 {
                *self.reached.entry(state).or_default() += count;
            }
        }
        let settled = self.scenario.hostile().1;
        Outcome {
            held_after: self.held_at.map(|at| at - self.scenario.hostile().1),
            timeline: self.holders.timeline().to_vec(),
            seed: self.seed,
            violation: self.found,
            simulated: self.now,
            events: self.events,
            ops: [ok, failed, unknown],
            acknowledged_after: self.history.acknowledged_after(),
            records: self.oracle.records,
            faults: self.faults.struck,
            converged_after: self.equal_at.map(|at| at - settled),
            permitted_losses: self.permitted_losses,
            displaced: self.displaced,
            node_seconds,
            carried: self.network.carried,
            reached: self.reached,
            hash: self.trace.finish(),
        }
    }
}

/// Two buckets lists of one section, at every member.
type Buckets = Vec<(usize, Vec<convergence::BucketDigest>)>;
