//! Paths between hosts, and connections over them.
//!
//! A *path* is one direction between two hosts: whether it is there, how long it takes, what it loses. A *connection* is what QUIC makes of
//! two paths: lanes, each of them an ordered stream in each direction, independent of the others. Loss is therefore delay: a lost packet
//! comes again after a timeout, what was sent behind it on its lane waits for it, and other lanes do not.
//!
//! ```text
//!   node ─▶ lane ─▶ queue (bandwidth) ─▶ path: latency, loss, duplicates ─▶ reassembly by lane ─▶ node
//!                      │ full: blocked, or dropped       │ cut: lost, sent again after the heal, while both ends live
//!                                                        │ jammed: held, arrives at the heal
//! ```
//!
//! A path can be away in two ways. Where it is *cut*, what is on its way is lost as well as what is sent, and the sender learns of the heal only by trying:
//! after waits that double, or a round trip after it sends something new, which may thus overtake. Where it is *jammed*, everything is kept
//! on the way, and arrives at the heal at once and in order.
//!
//! An end that hears nothing for the idle timeout dies alone; the other learns it by its own silence. Only who hangs up says so.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use mangrove_net::link::LinkId;
use smallvec::SmallVec;

use crate::{
    dice::Dice,
    loss::LossState,
    queue::{Event, Queue},
    scenario::{PathSpec, SECOND, Scenario, Time},
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
    /// How many partitions lie across it that lose what is sent.
    cuts: u32,
    /// How many lie across it that hold it.
    jams: u32,
    /// Whether its schedule, or a contact trace, has it down.
    away: bool,
    /// When the last of what was sent over it arrives.
    last_arrival: Time,
    /// How many times as long it takes.
    slow: f64,
    /// When its bandwidth is free again.
    free_at: Time,
    loss: LossState,
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
    /// What was lost on a path that is cut, or was.
    stalled: VecDeque<Packet>,
    /// What is held on a path that is jammed.
    held: VecDeque<Packet>,
    /// The bytes of both.
    stalled_bytes: usize,
    /// Since when the sender waits for an answer to what was lost.
    lost_since: Option<Time>,
    /// When it tries again.
    resend_at: Time,
    /// What has been sent, lane by lane, if somebody wants to send it again.
    sent: Recording,
}

/// A frame on its lane, with its place there.
type Packet = (u32, u32, Bytes);

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
    Frames(SmallVec<[Bytes; 1]>),
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
    /// Whether what is on its way when a contact ends arrives all the same.
    delivers: bool,
    /// Nothing goes wrong any more: schedules and loss are over.
    pub calm: bool,
    /// Frames that have arrived, and their bytes.
    pub carried: (u64, u64),
    /// Frames that a full queue has dropped.
    pub dropped: u64,
    /// Frames on other lanes than the control lane that were sent.
    pub content_sent: u64,
    /// What was sent over connections that have ended, from a process to a host, if some fault sends it again.
    recorded: Option<BTreeMap<(usize, u32, usize), Vec<Recording>>>,
}

/// What was sent over one connection: frames, each with its lane.
pub type Recording = Vec<(u32, Bytes)>;

/// How many frames of a connection can be sent again.
const RECORDED_MAX: usize = 2_048;

/// Of how many connections from a process to a host, the first that ended: they brought the most.
const RECORDINGS_MAX: usize = 4;

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
            jams: 0,
            away: false,
            last_arrival: 0,
            slow: 1.0,
            free_at: 0,
            loss: LossState::default(),
        });
        Network {
            hosts,
            paths: paths.collect(),
            specs,
            conns: Vec::new(),
            live: BTreeSet::new(),
            dice: Dice::new(seed, "network"),
            idle_timeout: scenario.config.idle_timeout,
            delivers: scenario.contacts.as_ref().is_some_and(|contacts| contacts.delivers),
            calm: true,
            carried: (0, 0),
            dropped: 0,
            content_sent: 0,
            recorded: None,
        }
    }

    /// Keeps from now on what is sent, for whoever sends it again.
    pub fn record(&mut self) {
        self.recorded = Some(BTreeMap::new());
    }

    fn path(&self, from: usize, to: usize) -> &Path {
        &self.paths[from * self.hosts + to]
    }

    /// Whether what one host sends reaches another now.
    pub fn is_up(&self, from: usize, to: usize) -> bool {
        let path = self.path(from, to);
        path.exists && path.cuts == 0 && path.jams == 0 && !path.away
    }

    /// Whether what is on a path is held, and not lost.
    fn holds(&self, from: usize, to: usize) -> bool {
        let path = self.path(from, to);
        path.exists && path.cuts == 0 && path.jams > 0 && !path.away
    }

    /// Whether there is any way from one host to another, apart from faults.
    pub fn exists(&self, from: usize, to: usize) -> bool {
        self.path(from, to).exists
    }

    /// How long one packet takes, lost ones sent again.
    pub fn delay(&mut self, now: Time, from: usize, to: usize) -> Time {
        self.delay_of(now, now, from, to)
    }

    /// The same for one that leaves later: it waits before.
    fn delay_of(&mut self, now: Time, leaves: Time, from: usize, to: usize) -> Time {
        let path = &mut self.paths[from * self.hosts + to];
        let spec = &self.specs[path.spec];
        let dice = &mut self.dice;
        let once = spec.latency.draw(dice) * path.slow;
        let mut delay = once.max(1.0);
        if !self.calm {
            let mut wait = (2.5 * once).max(RETRANSMIT_MIN as f64);
            let mut sent = leaves;
            for _ in 0..LOSSES_MAX {
                let lost = path.loss.loses(&spec.loss, dice, now, sent) || dice.chance(spec.corrupt);
                if !lost {
                    break;
                }
                delay += wait;
                sent += wait as Time;
                wait *= 2.0;
            }
            if dice.chance(spec.reorder) {
                delay += spec.latency.draw(dice) * path.slow;
            }
        }
        delay as Time
    }

    // Paths.

    /// A partition lies across a path from now on, or no more. What it loses is lost, unless it holds it.
    pub fn part(&mut self, now: Time, queue: &mut Queue, (from, to): (usize, usize), holds: bool, parted: bool) {
        let path = &mut self.paths[from * self.hosts + to];
        let lie = if holds { &mut path.jams } else { &mut path.cuts };
        *lie = if parted { *lie + 1 } else { lie.saturating_sub(1) };
        self.path_changed(now, queue, from, to);
    }

    /// A path takes so many times as long as usual.
    pub fn slow(&mut self, from: usize, to: usize, factor: f64) {
        self.paths[from * self.hosts + to].slow = factor;
    }

    /// Whether it does.
    pub fn is_slow(&self, from: usize, to: usize) -> bool {
        self.path(from, to).slow > 1.0
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

    /// Contacts begin: no path is there until they say so. Returns the pairs of hosts between which there are connections.
    pub fn part_all(&mut self) -> BTreeSet<(usize, usize)> {
        self.paths.iter_mut().for_each(|path| path.away = true);
        let pair = |conn: &Conn| (conn.ends[0].host.min(conn.ends[1].host), conn.ends[0].host.max(conn.ends[1].host));
        self.live.iter().map(|conn| pair(&self.conns[*conn])).collect()
    }

    /// Two hosts have contact, or have it no more.
    pub fn contact(&mut self, now: Time, queue: &mut Queue, (a, b): (usize, usize), up: bool) {
        for (from, to) in [(a, b), (b, a)] {
            self.paths[from * self.hosts + to].away = !up;
            self.path_changed(now, queue, from, to);
        }
    }

    /// When an end has all that is still on its way to it: at once, where a contact's end loses that.
    pub fn last_arrival(&self, now: Time, conn: usize, end: usize) -> Time {
        let path = self.path(self.conns[conn].ends[1 - end].host, self.conns[conn].ends[end].host);
        if self.delivers { path.last_arrival.max(now) } else { now }
    }

    /// All faults of the network are over.
    pub fn heal(&mut self, now: Time, queue: &mut Queue) {
        self.calm = true;
        for from in 0..self.hosts {
            for to in 0..self.hosts {
                let path = &mut self.paths[from * self.hosts + to];
                let was_down = path.cuts > 0 || path.jams > 0 || path.away;
                (path.cuts, path.jams, path.away, path.slow) = (0, 0, false, 1.0);
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
    pub fn between(&self, a: usize, b: usize) -> Vec<usize> {
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
            held: VecDeque::new(),
            stalled_bytes: 0,
            lost_since: None,
            resend_at: 0,
            sent: Vec::new(),
        };
        let confirmed = now + self.delay(now, dialler.0, other.0);
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
        let spec = &self.specs[self.path(ends[from].host, ends[1 - from].host).spec];
        !spec.tail_drop && ends[from].lanes_out.get(lane as usize).is_some_and(|lane| lane.queued >= spec.queue)
    }

    /// A frame is sent.
    pub fn send(&mut self, now: Time, queue: &mut Queue, conn: usize, from: usize, lane: u32, bytes: Bytes) {
        self.content_sent += u64::from(lane != 0);
        let (host, peer) = (self.conns[conn].ends[from].host, self.conns[conn].ends[1 - from].host);
        let (up, back) = (self.is_up(host, peer), self.is_up(peer, host));
        let round_trip = 2 * self.usual_delay(host, peer);
        // Nothing answers what is dropped, and what is not waits before.
        let drops = self.specs[self.path(host, peer).spec].tail_drop;
        let answers = back && !self.overflows(now, host, peer, bytes.len());
        let answered = round_trip + if drops { now.max(self.path(host, peer).free_at) } else { now };
        let end = &mut self.conns[conn].ends[from];
        let at = lane as usize;
        if end.lanes_out.len() <= at {
            end.lanes_out.resize_with(at + 1, LaneOut::default);
        }
        let seq = end.lanes_out[at].next;
        end.lanes_out[at].next += 1;
        if self.recorded.is_some() && lane != 0 && end.sent.len() < RECORDED_MAX {
            end.sent.push((lane, bytes.clone()));
        }
        if !up {
            return self.lose(now, conn, from, (lane, seq, bytes));
        }
        if !end.stalled.is_empty() && answers && answered < end.resend_at {
            // Its answer tells what was lost before.
            end.resend_at = answered;
            queue.at(answered, Event::Resend { conn: conn as u32, from: from as u8 });
        }
        self.transmit(now, queue, conn, from, (lane, seq, bytes));
    }

    /// A packet meets a path that is down.
    fn lose(&mut self, now: Time, conn: usize, from: usize, packet: Packet) {
        let (host, peer) = (self.conns[conn].ends[from].host, self.conns[conn].ends[1 - from].host);
        let holds = self.holds(host, peer);
        let end = &mut self.conns[conn].ends[from];
        end.stalled_bytes += packet.2.len();
        if holds {
            end.held.push_back(packet);
        } else {
            end.lost_since.get_or_insert(now);
            end.stalled.push_back(packet);
        }
    }

    /// About how long one packet takes.
    fn usual_delay(&self, from: usize, to: usize) -> Time {
        let path = self.path(from, to);
        (self.specs[path.spec].latency.mean() * path.slow).clamp(1.0, 60e6) as Time
    }

    fn transmit(&mut self, now: Time, queue: &mut Queue, conn: usize, from: usize, packet: (u32, u32, Bytes)) {
        let (lane, seq, bytes) = packet;
        let (host, peer) = (self.conns[conn].ends[from].host, self.conns[conn].ends[1 - from].host);
        if self.overflows(now, host, peer, bytes.len()) {
            return self.drop_tail(now, queue, conn, from, (lane, seq, bytes));
        }
        let path = &mut self.paths[host * self.hosts + peer];
        let mut leaves = now;
        if let Some(rate) = self.specs[path.spec].bandwidth {
            leaves = path.free_at.max(now) + (wire_bytes(bytes.len()) * 8e6 / rate) as Time;
            path.free_at = leaves;
            self.conns[conn].ends[from].lanes_out[lane as usize].queued += bytes.len();
            queue.at(leaves, Event::Sent { conn: conn as u32, from: from as u8, lane, bytes: bytes.len() as u32 });
        }
        let arrives = leaves + self.delay_of(now, leaves, host, peer);
        let to = 1 - from as u8;
        let duplicate = self.specs[self.path(host, peer).spec].duplicate;
        if !self.calm && self.dice.chance(duplicate) {
            let again = arrives + self.delay_of(now, arrives, host, peer);
            queue.at(again, Event::Packet { conn: conn as u32, to, lane, seq, bytes: bytes.clone() });
        }
        let path = &mut self.paths[host * self.hosts + peer];
        path.last_arrival = path.last_arrival.max(arrives);
        queue.at(arrives, Event::Packet { conn: conn as u32, to, lane, seq, bytes });
    }

    /// Whether a queue that drops what comes is too full for a frame. One that is longer than the queue passes if it is empty: QUIC would send it in pieces.
    fn overflows(&self, now: Time, from: usize, to: usize, len: usize) -> bool {
        let path = self.path(from, to);
        let spec = &self.specs[path.spec];
        let waiting = path.free_at.saturating_sub(now) as f64 * spec.bandwidth.unwrap_or(0.0) / 8e6;
        spec.tail_drop && waiting > 0.0 && waiting + wire_bytes(len) > spec.queue as f64
    }

    /// A packet finds the queue full. It is sent again after a timeout, or when the answer to a later one tells that it is missing.
    fn drop_tail(&mut self, now: Time, queue: &mut Queue, conn: usize, from: usize, packet: Packet) {
        let (host, peer) = (self.conns[conn].ends[from].host, self.conns[conn].ends[1 - from].host);
        let wait = (5 * self.usual_delay(host, peer) / 2).max(RETRANSMIT_MIN);
        let at = self.path(host, peer).free_at.max(now) + wait;
        self.dropped += 1;
        let end = &mut self.conns[conn].ends[from];
        end.stalled_bytes += packet.2.len();
        end.stalled.push_back(packet);
        if end.lost_since.is_none() {
            (end.lost_since, end.resend_at) = (Some(now), at);
            queue.at(at, Event::Resend { conn: conn as u32, from: from as u8 });
        }
    }

    /// A frame has left the queue of its lane. Says whether the sender may have waited for that.
    pub fn sent(&mut self, conn: usize, from: usize, lane: u32, bytes: usize) -> bool {
        let ends = &self.conns[conn].ends;
        let drops = self.specs[self.path(ends[from].host, ends[1 - from].host).spec].tail_drop;
        let before = drops || self.is_blocked(conn, from, lane);
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
        let path = self.path(peer, host);
        let outlives_contact = self.delivers && path.away && path.exists && path.cuts == 0 && path.jams == 0;
        if !self.is_up(peer, host) && !outlives_contact {
            if self.conns[conn].ends[1 - to].state != EndState::Dead {
                self.lose(now, conn, 1 - to, (lane, seq, bytes));
            }
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
        let mut frames = SmallVec::from_buf([bytes]);
        lane.expected += 1;
        while let Some(next) = lane.early.remove(&lane.expected) {
            frames.push(next);
            lane.expected += 1;
        }
        self.carried.0 += frames.len() as u64;
        self.carried.1 += frames.iter().map(|frame| frame.len() as u64).sum::<u64>();
        Arrived::Frames(frames)
    }

    /// The path is up again: what was held arrives, and what was lost is sent again as soon as its sender tries.
    fn resume(&mut self, now: Time, queue: &mut Queue, conn: usize, from: usize) {
        let (host, peer) = (self.conns[conn].ends[from].host, self.conns[conn].ends[1 - from].host);
        let first_wait = (5 * self.usual_delay(host, peer) / 2).max(RETRANSMIT_MIN);
        let end = &mut self.conns[conn].ends[from];
        if end.state == EndState::Dead {
            return;
        }
        for (lane, seq, bytes) in std::mem::take(&mut end.held) {
            end.stalled_bytes -= bytes.len();
            queue.at(now, Event::Packet { conn: conn as u32, to: 1 - from as u8, lane, seq, bytes });
        }
        let Some(since) = end.lost_since.filter(|_| !end.stalled.is_empty()) else { return };
        let (mut wait, mut at) = (first_wait, since + first_wait);
        while at <= now {
            wait *= 2;
            at += wait;
        }
        end.resend_at = at;
        queue.at(at, Event::Resend { conn: conn as u32, from: from as u8 });
    }

    /// A sender tries again what was lost. Says whether anything was.
    pub fn resend(&mut self, now: Time, queue: &mut Queue, conn: usize, from: usize) -> bool {
        let (host, peer) = (self.conns[conn].ends[from].host, self.conns[conn].ends[1 - from].host);
        if now < self.conns[conn].ends[from].resend_at || !self.is_up(host, peer) {
            return false;
        }
        let end = &mut self.conns[conn].ends[from];
        end.lost_since = None;
        let stalled = std::mem::take(&mut end.stalled);
        let any = !stalled.is_empty();
        for packet in stalled {
            self.conns[conn].ends[from].stalled_bytes -= packet.2.len();
            self.transmit(now, queue, conn, from, packet);
        }
        any
    }

    /// An end is no more. What it had to send and to receive is forgotten.
    pub fn kill(&mut self, conn: usize, end: usize) {
        if self.conns[conn].ends[1 - end].state == EndState::Dead {
            self.live.remove(&conn);
        }
        let to = self.conns[conn].ends[1 - end].host;
        let end = &mut self.conns[conn].ends[end];
        end.state = EndState::Dead;
        end.epoch += 1;
        end.lanes_in = Vec::new();
        end.lanes_out = Vec::new();
        (end.stalled, end.held) = Default::default();
        (end.stalled_bytes, end.lost_since) = (0, None);
        let sent = std::mem::take(&mut end.sent);
        if let Some(recorded) = self.recorded.as_mut().filter(|_| !sent.is_empty()) {
            let of = recorded.entry((end.host, end.process, to)).or_default();
            of.extend(Some(sent).filter(|_| of.len() < RECORDINGS_MAX));
        }
    }

    /// What the process at the other end of a connection has sent this way over earlier ones, but for the control lane.
    pub fn earlier(&self, conn: usize, to: usize) -> &[Recording] {
        let ends = &self.conns[conn].ends;
        let from = &ends[1 - to];
        let recorded = self.recorded.as_ref().and_then(|recorded| recorded.get(&(from.host, from.process, ends[to].host)));
        recorded.map(Vec::as_slice).unwrap_or_default()
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

/// How many bytes a frame is on the wire: headers of IP, UDP and QUIC are about 60 bytes a packet of at most 1,400.
fn wire_bytes(len: usize) -> f64 {
    len as f64 + 60.0 * (len as f64 / 1_400.0).ceil().max(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two hosts, ten milliseconds apart, and a connection between them.
    fn linked() -> (Network, Queue) {
        let text = "schema = 1\n[run]\nduration = \"1s\"\nsettle = \"1s\"\n[nodes]\ncount = 2\n[nodes.config]\nidle_timeout = \"4s\"\n\
                    [[section]]\nroot = \"s\"\n[network.default]\nlatency = \"10ms\"\n";
        let scenario = Scenario::parse("two", text).expect("a good scenario");
        let (mut network, mut queue) = (Network::new(1, &scenario), Queue::default());
        network.connect(0, &mut queue, (0, 1), (1, 1));
        for end in &mut network.conns[0].ends {
            (end.state, end.up_at) = (EndState::Up, 0);
        }
        (network, queue)
    }

    fn send(network: &mut Network, queue: &mut Queue, at: Time, lane: u32, byte: u8) {
        network.send(at, queue, 0, 0, lane, Bytes::copy_from_slice(&[byte]));
    }

    /// What arrives at the other end until everything has, and when.
    fn arrivals(network: &mut Network, queue: &mut Queue) -> Vec<(Time, u8)> {
        let mut arrived = Vec::new();
        while let Some((now, event)) = queue.pop() {
            match event {
                Event::Packet { conn, to, lane, seq, bytes } => {
                    if let Arrived::Frames(frames) = network.arrive(now, queue, conn as usize, to as usize, (lane, seq, bytes)) {
                        arrived.extend(frames.iter().map(|frame| (now, frame[0])));
                    }
                }
                Event::Resend { conn, from } => _ = network.resend(now, queue, conn as usize, from as usize),
                Event::Hostile => network.part(now, queue, (0, 1), false, true),
                Event::Settle => network.part(now, queue, (0, 1), false, false),
                Event::End => network.part(now, queue, (0, 1), true, false),
                _ => {}
            }
        }
        arrived
    }

    #[test]
    fn a_jam_holds_what_is_on_its_way_and_delivers_all_of_it_at_the_heal() {
        let (mut network, mut queue) = linked();
        send(&mut network, &mut queue, 0, 1, 1);
        network.part(5_000, &mut queue, (0, 1), true, true);
        queue.at(1_000_000, Event::End);
        assert!(matches!(queue.pop(), Some((_, Event::Confirmed { .. }))));
        let Some((now, Event::Packet { lane, seq, bytes, .. })) = queue.pop() else { panic!("it is on its way") };
        assert!(matches!(network.arrive(now, &mut queue, 0, 1, (lane, seq, bytes)), Arrived::Nothing), "it comes to the jam");
        send(&mut network, &mut queue, 20_000, 1, 2);
        send(&mut network, &mut queue, 30_000, 2, 3);
        assert_eq!(arrivals(&mut network, &mut queue), [(1_000_000, 1), (1_000_000, 2), (1_000_000, 3)]);
    }

    #[test]
    fn a_cut_loses_what_is_on_its_way_and_it_is_sent_again_after_waits_that_double() {
        let (mut network, mut queue) = linked();
        queue.at(5_000, Event::Hostile);
        queue.at(1_000_000, Event::Settle);
        send(&mut network, &mut queue, 0, 1, 1);
        // It is lost at 10 ms. The sender tries again after 25, 75, 175, 375, 775, and 1,575 ms, and then it takes 10 ms.
        assert_eq!(arrivals(&mut network, &mut queue), [(10_000 + 1_575_000 + 10_000, 1)]);
    }

    #[test]
    fn what_is_sent_after_a_heal_overtakes_and_brings_what_was_lost_soon() {
        let (mut network, mut queue) = linked();
        network.part(0, &mut queue, (0, 1), false, true);
        send(&mut network, &mut queue, 0, 1, 1);
        network.part(1_000_000, &mut queue, (0, 1), false, false);
        send(&mut network, &mut queue, 1_000_000, 2, 2);
        assert_eq!(arrivals(&mut network, &mut queue), [(1_010_000, 2), (1_030_000, 1)]);
    }

    #[test]
    fn one_way_is_one_way_and_silence_kills_the_end_that_hears_nothing() {
        let (mut network, mut queue) = linked();
        network.part(0, &mut queue, (0, 1), false, true);
        assert!(!network.is_up(0, 1) && network.is_up(1, 0));
        network.listen(0, &mut queue, |_, _| true);
        let idle = std::iter::from_fn(|| queue.pop()).filter_map(|(_, event)| match event {
            Event::Idle { end, .. } => Some(end),
            _ => None,
        });
        let idle: Vec<u8> = idle.collect();
        assert_eq!(idle, [1]);
    }
}
