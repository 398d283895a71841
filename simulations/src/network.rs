//! Paths between hosts, and connections over them.
//!
//! A *path* is one direction between two hosts: whether it is there, how long it takes, what it loses. A *connection* is what QUIC makes of
//! two paths: lanes, each of them an ordered stream in each direction, independent of the others. Loss is therefore delay: a lost packet
//! comes again after a timeout, what was sent behind it on its lane waits for it, and other lanes do not. What is
//! sent while the path is down waits at the sender, and goes out when the path is back, unless an end has given the connection up meanwhile.
//!
//! ```text
//!   node ─▶ lane ─▶ queue (bandwidth) ─▶ path: latency, loss, duplicates ─▶ reassembly by lane ─▶ node
//!                      │ full: the lane is blocked                 │ down: stalled, until it is up or the end has died
//! ```
//!
//! An end that hears nothing for the idle timeout dies alone; the other learns it by its own silence. Only who hangs up says so.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use mangrove_net::link::LinkId;

use crate::{
    dice::Dice,
    queue::{Event, Queue},
    scenario::{Loss, PathSpec, SECOND, Scenario, Time},
};

/// What a connection may have unacknowledged on a path that does not answer, in bytes.
const STALLED_BYTES_MAX: usize = 128 << 10;

/// The least time after which something lost is sent again.
const RETRANSMIT_MIN: Time = 25_000;

/// How often something is lost in a row at most, as far as this model goes.
const LOSSES_MAX: u32 = 8;

/// One direction between two hosts.
#[derive(Clone, Debug)]
struct Path {
    spec: usize,
    exists: bool,
    /// How many partitions lie across it.
    cuts: u32,
    /// Whether its schedule has it down.
    away: bool,
    /// How many times as long it takes.
    slow: f64,
    /// When its bandwidth is free again.
    free_at: Time,
    /// Whether its loss is in its bad state.
    bad: bool,
}

/// The sender's side of a lane.
#[derive(Debug, Default)]
struct LaneOut {
    next: u32,
    queued: usize,
}

/// The receiver's side of a lane.
#[derive(Debug, Default)]
struct LaneIn {
    expected: u32,
    early: BTreeMap<u32, Bytes>,
}

/// How an end of a connection is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EndState {
    /// The handshake is not over here.
    Opening,
    /// It is a link of its node.
    Up,
    /// It is no more.
    Dead,
}

/// One end of a connection.
#[derive(Debug)]
pub struct End {
    /// On which host.
    pub host: usize,
    /// In which of its processes.
    pub process: u32,
    /// Under which name the node knows it, once it is up.
    pub link: LinkId,
    /// How it is.
    pub state: EndState,
    /// When the handshake is over.
    up_at: Time,
    /// Whether it hears nothing at present.
    deaf: bool,
    epoch: u32,
    lanes_out: Vec<LaneOut>,
    lanes_in: Vec<LaneIn>,
    stalled: VecDeque<(u32, u32, Bytes)>,
    stalled_bytes: usize,
}

/// A connection: the end that dialled, and the other.
#[derive(Debug)]
pub struct Conn {
    /// Both.
    pub ends: [End; 2],
}

/// What came of a packet.
#[derive(Debug)]
pub enum Arrived {
    /// These frames are next on their lane, in order.
    Frames(Vec<Bytes>),
    /// Nothing yet, or nothing new.
    Nothing,
}

/// See the module.
#[derive(Debug)]
pub struct Network {
    hosts: usize,
    paths: Vec<Path>,
    specs: Vec<PathSpec>,
    /// All connections there ever were, by number.
    pub conns: Vec<Conn>,
    /// Those of which an end lives.
    live: BTreeSet<usize>,
    dice: Dice,
    idle_timeout: Time,
    /// Nothing goes wrong any more: schedules and loss are over.
    pub calm: bool,
    /// Frames that have arrived, and their bytes.
    pub carried: (u64, u64),
    /// Frames on other lanes than the control lane that were sent.
    pub content_sent: u64,
}

impl Network {
    /// The paths of a scenario.
    pub fn new(seed: u64, scenario: &Scenario) -> Self {
        let hosts = scenario.nodes.len();
        let mut specs = vec![scenario.network.clone()];
        let mut spec_of = vec![0; hosts * hosts];
        for over in &scenario.paths {
            specs.push(over.path.clone());
            for from in &over.from {
                for to in &over.to {
                    spec_of[from * hosts + to] = specs.len() - 1;
                }
            }
        }
        let paths = (0..hosts * hosts).map(|at| Path {
            spec: spec_of[at],
            exists: scenario.reach[at / hosts][at % hosts],
            cuts: 0,
            away: false,
            slow: 1.0,
            free_at: 0,
            bad: false,
        });
        Network {
            hosts,
            paths: paths.collect(),
            specs,
            conns: Vec::new(),
            live: BTreeSet::new(),
            dice: Dice::new(seed, "network"),
            idle_timeout: scenario.config.idle_timeout,
            calm: true,
            carried: (0, 0),
            content_sent: 0,
        }
    }

    fn path(&self, from: usize, to: usize) -> &Path {
        &self.paths[from * self.hosts + to]
    }

    /// Whether what one host sends reaches another now.
    pub fn is_up(&self, from: usize, to: usize) -> bool {
        let path = self.path(from, to);
        path.exists && path.cuts == 0 && !path.away
    }

    /// Whether there is any way from one host to another, apart from faults.
    pub fn exists(&self, from: usize, to: usize) -> bool {
        self.path(from, to).exists
    }

    /// How long one packet takes, lost ones sent again.
    pub fn delay(&mut self, from: usize, to: usize) -> Time {
        let path = &mut self.paths[from * self.hosts + to];
        let spec = &self.specs[path.spec];
        let dice = &mut self.dice;
        let once = spec.latency.draw(dice) * path.slow;
        let mut delay = once.max(1.0);
        if !self.calm {
            let mut wait = (2.5 * once).max(RETRANSMIT_MIN as f64);
            for _ in 0..LOSSES_MAX {
                let lost = match spec.loss {
                    Loss::Bernoulli(p) => dice.chance(p),
                    Loss::GilbertElliott { p, r, good, bad } => {
                        let lost = dice.chance(if path.bad { bad } else { good });
                        path.bad = if path.bad { !dice.chance(r) } else { dice.chance(p) };
                        lost
                    }
                };
                if !lost {
                    break;
                }
                delay += wait;
                wait *= 2.0;
            }
            if dice.chance(spec.reorder) {
                delay += spec.latency.draw(dice) * path.slow;
            }
        }
        delay as Time
    }

    // Paths.

    /// A partition lies across a path from now on, or no more.
    pub fn cut(&mut self, now: Time, queue: &mut Queue, from: usize, to: usize, cut: bool) {
        let path = &mut self.paths[from * self.hosts + to];
        path.cuts = if cut { path.cuts + 1 } else { path.cuts.saturating_sub(1) };
        self.path_changed(now, queue, from, to);
    }

    /// A path takes so many times as long as before.
    pub fn slow(&mut self, from: usize, to: usize, factor: f64) {
        self.paths[from * self.hosts + to].slow *= factor;
    }

    /// Schedules begin: each path that has one is somewhere in it.
    pub fn begin_schedules(&mut self, now: Time, queue: &mut Queue) {
        for from in 0..self.hosts {
            for to in from + 1..self.hosts {
                if self.path(from, to).exists && self.specs[self.path(from, to).spec].schedule.is_some() {
                    let up = self.specs[self.path(from, to).spec].schedule.map_or(1.0, |schedule| schedule.up_share);
                    let away = !self.dice.chance(up);
                    self.set_away(now, queue, from, to, away);
                }
            }
        }
    }

    /// Both directions between two hosts come or go, by their schedule.
    pub fn flip(&mut self, now: Time, queue: &mut Queue, from: usize, to: usize) {
        let away = !self.path(from, to).away;
        if !self.calm {
            self.set_away(now, queue, from, to, away);
        }
    }

    fn set_away(&mut self, now: Time, queue: &mut Queue, a: usize, b: usize, away: bool) {
        for (from, to) in [(a, b), (b, a)] {
            self.paths[from * self.hosts + to].away = away;
            self.path_changed(now, queue, from, to);
        }
        let Some(schedule) = self.specs[self.path(a, b).spec].schedule else { return };
        let share = if away { 1.0 - schedule.up_share } else { schedule.up_share };
        let stays = (schedule.period * share * self.dice.exponential()).max(1_000.0) as Time;
        let event = Event::Flip { from: a as u32, to: b as u32 };
        if away { queue.at(now + stays, event) } else { queue.first_at(now + stays, event) }
    }

    /// All faults of the network are over.
    pub fn heal(&mut self, now: Time, queue: &mut Queue) {
        self.calm = true;
        for from in 0..self.hosts {
            for to in 0..self.hosts {
                let path = &mut self.paths[from * self.hosts + to];
                let was_down = path.cuts > 0 || path.away;
                (path.cuts, path.away, path.slow) = (0, false, 1.0);
                if was_down {
                    self.path_changed(now, queue, from, to);
                }
            }
        }
    }

    fn path_changed(&mut self, now: Time, queue: &mut Queue, from: usize, to: usize) {
        for conn in self.between(from, to) {
            let sender = usize::from(self.conns[conn].ends[0].host != from);
            if self.is_up(from, to) {
                self.resume(now, queue, conn, sender);
            }
        }
    }

    /// The connections between two hosts of which an end lives.
    fn between(&self, a: usize, b: usize) -> Vec<usize> {
        let joins = |conn: &Conn| {
            let ends = [conn.ends[0].host, conn.ends[1].host];
            ends == [a, b] || ends == [b, a]
        };
        self.live.iter().copied().filter(|at| joins(&self.conns[*at])).collect()
    }

    // Connections.

    /// A handshake is over at the end that dialled; the other's end is up a little later. Returns its number.
    pub fn connect(&mut self, now: Time, queue: &mut Queue, dialler: (usize, u32), other: (usize, u32)) -> usize {
        let end = |(host, process), up_at| End {
            host,
            process,
            link: LinkId(0),
            state: EndState::Opening,
            up_at,
            deaf: false,
            epoch: 0,
            lanes_out: Vec::new(),
            lanes_in: Vec::new(),
            stalled: VecDeque::new(),
            stalled_bytes: 0,
        };
        let confirmed = now + self.delay(dialler.0, other.0);
        let conn = self.conns.len();
        self.conns.push(Conn { ends: [end(dialler, now), end(other, confirmed)] });
        self.live.insert(conn);
        queue.at(confirmed, Event::Confirmed { conn: conn as u32 });
        conn
    }

    /// Whether an end can take another frame at all.
    pub fn has_room(&self, conn: usize, from: usize) -> bool {
        let end = &self.conns[conn].ends[from];
        end.state == EndState::Up && end.stalled_bytes < STALLED_BYTES_MAX
    }

    /// Whether a lane can take another frame.
    pub fn is_blocked(&self, conn: usize, from: usize, lane: u32) -> bool {
        let ends = &self.conns[conn].ends;
        let queue = self.specs[self.path(ends[from].host, ends[1 - from].host).spec].queue;
        ends[from].lanes_out.get(lane as usize).is_some_and(|lane| lane.queued >= queue)
    }

    /// A frame is sent.
    pub fn send(&mut self, now: Time, queue: &mut Queue, conn: usize, from: usize, lane: u32, bytes: Bytes) {
        self.content_sent += u64::from(lane != 0);
        let (host, peer) = (self.conns[conn].ends[from].host, self.conns[conn].ends[1 - from].host);
        let up = self.is_up(host, peer);
        let end = &mut self.conns[conn].ends[from];
        let at = lane as usize;
        if end.lanes_out.len() <= at {
            end.lanes_out.resize_with(at + 1, LaneOut::default);
        }
        let seq = end.lanes_out[at].next;
        end.lanes_out[at].next += 1;
        if up {
            self.transmit(now, queue, conn, from, (lane, seq, bytes));
        } else {
            end.stalled_bytes += bytes.len();
            end.stalled.push_back((lane, seq, bytes));
        }
    }

    fn transmit(&mut self, now: Time, queue: &mut Queue, conn: usize, from: usize, packet: (u32, u32, Bytes)) {
        let (lane, seq, bytes) = packet;
        let (host, peer) = (self.conns[conn].ends[from].host, self.conns[conn].ends[1 - from].host);
        let path = &mut self.paths[host * self.hosts + peer];
        let mut leaves = now;
        if let Some(rate) = self.specs[path.spec].bandwidth {
            // Headers of IP, UDP and QUIC are about 60 bytes a packet of at most 1,400.
            let wire = bytes.len() as f64 + 60.0 * (bytes.len() as f64 / 1_400.0).ceil().max(1.0);
            leaves = path.free_at.max(now) + (wire * 8e6 / rate) as Time;
            path.free_at = leaves;
            self.conns[conn].ends[from].lanes_out[lane as usize].queued += bytes.len();
            queue.at(leaves, Event::Sent { conn: conn as u32, from: from as u8, lane, bytes: bytes.len() as u32 });
        }
        let arrives = leaves + self.delay(host, peer);
        let to = 1 - from as u8;
        let duplicate = self.specs[self.path(host, peer).spec].duplicate;
        if !self.calm && self.dice.chance(duplicate) {
            let again = arrives + self.delay(host, peer);
            queue.at(again, Event::Packet { conn: conn as u32, to, lane, seq, bytes: bytes.clone() });
        }
        queue.at(arrives, Event::Packet { conn: conn as u32, to, lane, seq, bytes });
    }

    /// A frame has left the queue of its lane. Says whether the lane was blocked and is not any more.
    pub fn sent(&mut self, conn: usize, from: usize, lane: u32, bytes: usize) -> bool {
        let before = self.is_blocked(conn, from, lane);
        if let Some(lane) = self.conns[conn].ends[from].lanes_out.get_mut(lane as usize) {
            lane.queued = lane.queued.saturating_sub(bytes);
        }
        before && !self.is_blocked(conn, from, lane)
    }

    /// A packet arrives.
    pub fn arrive(&mut self, now: Time, queue: &mut Queue, conn: usize, to: usize, packet: (u32, u32, Bytes)) -> Arrived {
        let (lane, seq, bytes) = packet;
        let (host, peer) = (self.conns[conn].ends[to].host, self.conns[conn].ends[1 - to].host);
        if self.conns[conn].ends[to].state == EndState::Dead {
            return Arrived::Nothing;
        }
        if !self.is_up(peer, host) {
            // Lost, or held back; either way it comes again when the path is up, in its place.
            let sender = &mut self.conns[conn].ends[1 - to];
            sender.stalled_bytes += bytes.len();
            sender.stalled.push_back((lane, seq, bytes));
            return Arrived::Nothing;
        }
        let end = &mut self.conns[conn].ends[to];
        if end.state == EndState::Opening {
            let later = end.up_at.max(now) + 1;
            queue.at(later, Event::Packet { conn: conn as u32, to: to as u8, lane, seq, bytes });
            return Arrived::Nothing;
        }
        let at = lane as usize;
        if end.lanes_in.len() <= at {
            end.lanes_in.resize_with(at + 1, LaneIn::default);
        }
        let lane = &mut end.lanes_in[at];
        if seq != lane.expected {
            if seq > lane.expected {
                lane.early.insert(seq, bytes);
            }
            return Arrived::Nothing;
        }
        let mut frames = vec![bytes];
        lane.expected += 1;
        while let Some(next) = lane.early.remove(&lane.expected) {
            frames.push(next);
            lane.expected += 1;
        }
        self.carried.0 += frames.len() as u64;
        self.carried.1 += frames.iter().map(|frame| frame.len() as u64).sum::<u64>();
        Arrived::Frames(frames)
    }

    /// What waited for the path goes out.
    fn resume(&mut self, now: Time, queue: &mut Queue, conn: usize, from: usize) {
        let end = &mut self.conns[conn].ends[from];
        if end.state == EndState::Dead {
            return;
        }
        end.stalled_bytes = 0;
        for packet in std::mem::take(&mut end.stalled) {
            self.transmit(now, queue, conn, from, packet);
        }
    }

    /// An end is no more. What it had to send and to receive is forgotten.
    pub fn kill(&mut self, conn: usize, end: usize) {
        if self.conns[conn].ends[1 - end].state == EndState::Dead {
            self.live.remove(&conn);
        }
        let end = &mut self.conns[conn].ends[end];
        end.state = EndState::Dead;
        end.epoch += 1;
        end.lanes_in = Vec::new();
        end.lanes_out = Vec::new();
        end.stalled = VecDeque::new();
        end.stalled_bytes = 0;
    }

    /// Sees anew which ends hear something: `speaks` says whether a host's process runs and is not held up.
    pub fn listen(&mut self, now: Time, queue: &mut Queue, speaks: impl Fn(usize, u32) -> bool) {
        for conn in self.live.iter().copied().collect::<Vec<_>>() {
            for to in 0..2 {
                let (host, peer) = (self.conns[conn].ends[to].host, self.conns[conn].ends[1 - to].host);
                let (state, process) = (self.conns[conn].ends[1 - to].state, self.conns[conn].ends[1 - to].process);
                let deaf = !self.is_up(peer, host) || state == EndState::Dead || !speaks(peer, process);
                let end = &mut self.conns[conn].ends[to];
                if end.state == EndState::Dead || end.deaf == deaf {
                    continue;
                }
                end.deaf = deaf;
                end.epoch += 1;
                if deaf {
                    // Keep-alives come at a quarter of the timeout, so the last sign of life was that old at most.
                    let heard = (self.dice.unit() * self.idle_timeout as f64 / 4.0) as Time;
                    let at = now + self.idle_timeout - heard;
                    queue.first_at(at, Event::Idle { conn: conn as u32, end: to as u8, epoch: end.epoch });
                }
            }
        }
    }

    /// Whether an end has heard nothing since a silence began.
    pub fn is_idle(&self, conn: usize, end: usize, epoch: u32) -> bool {
        let end = &self.conns[conn].ends[end];
        end.state != EndState::Dead && end.deaf && end.epoch == epoch
    }

    /// How many bytes wait on a path that is down, at most, over all connections.
    pub fn stalled_bytes_max(&self) -> usize {
        self.live.iter().flat_map(|conn| &self.conns[*conn].ends).map(|end| end.stalled_bytes).max().unwrap_or(0)
    }

    /// After how long a handshake is given up.
    pub const HANDSHAKE_TIMEOUT: Time = 10 * SECOND;
}
