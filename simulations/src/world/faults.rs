//! Faults, as the world carries them out.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use mangrove::protocol::Request;
use mangrove_crdt::definition::Durability;
use mangrove_net::{link::LinkId, message::Content};

use super::{Phase, World};
use crate::{
    dice::{Amount, Dice},
    disk::Health,
    history::Doing,
    host::{Image, Item, entropy, identity},
    queue::Event,
    scenario::{Crash, FaultKind, FaultSpec, Mode, Observed, Scenario, Shape, Time, When, Who, fault::Budget, kinds::usual},
    tamper::{Tamper, is},
    values::Payload,
};

/// What undoes a fault.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Undo {
    Heal(Vec<(usize, usize)>, Mode),
    Hasten(Vec<(usize, usize)>),
    Start(usize),
    Resume(usize),
    Hurry(usize),
    Mend(usize),
    Quicken(usize),
    Steady(usize),
    Widen(usize),
    Truth(usize),
    Hold(usize, String),
    Nothing,
}

/// What is planned, and what is going on.
#[derive(Debug)]
pub struct Faults {
    plan: Vec<FaultSpec>,
    /// The node that is struck next, for faults that go round.
    next: Vec<usize>,
    active: Vec<Undo>,
    /// When one struck or ended last.
    changed: Time,
    /// Those of them that have no end.
    endless: BTreeSet<usize>,
    /// How often each awaited event was observed, by fault.
    seen: Vec<u64>,
    /// What each node remembered when it was looked at last.
    remembered: Vec<(u32, usize)>,
    /// How many struck.
    pub struck: u64,
    replacements: BTreeMap<usize, u32>,
    /// Which hosts were made to give up which sections.
    dropped: Vec<(usize, String)>,
    /// The hosts whose disk may be destroyed: all but one, so that something is left of what is demanded.
    destroyed: BTreeSet<usize>,
    /// The hosts to whose storage something has happened.
    stored: BTreeSet<usize>,
    /// Names lanes over which something is sent again.
    replays: u32,
}

/// Lanes over which something is sent again are numbered from here: nodes open a few dozen.
const REPLAY_LANES: u32 = 1 << 20;

impl Faults {
    /// The faults of a scenario; swarms are drawn.
    pub fn new(scenario: &Scenario, dice: &mut Dice) -> Self {
        let mut plan = Vec::new();
        for fault in &scenario.faults {
            let FaultKind::Swarm { from, probability, mean, budget } = &fault.kind else {
                plan.push(fault.clone());
                continue;
            };
            let drawn: Vec<&String> = from.iter().filter(|_| dice.chance(*probability)).collect();
            for word in drawn {
                // Tuned, too: some runs see a kind seldom, some all the time, and so with how strong and long it is.
                let (mean, tuned) = (mean * libm::exp(dice.normal() * 0.7), libm::exp(dice.normal() * 0.4));
                if let Some((kind, lasts)) = usual(word, Who::Random, tuned) {
                    plan.push(FaultSpec { kind, when: When::Every(Amount::Exponential { mean }), lasts, budget: *budget });
                }
            }
        }
        let count = plan.len();
        Faults {
            plan,
            next: vec![0; count],
            active: Vec::new(),
            changed: 0,
            endless: BTreeSet::new(),
            seen: vec![0; count],
            remembered: vec![(0, 0); scenario.nodes.len()],
            struck: 0,
            replacements: BTreeMap::new(),
            dropped: Vec::new(),
            destroyed: BTreeSet::new(),
            stored: BTreeSet::new(),
            replays: 0,
        }
    }

    /// Since when nothing has been wrong; `None` while something is.
    pub fn calm_since(&self) -> Option<Time> {
        self.active.iter().all(|undo| *undo == Undo::Nothing).then_some(self.changed)
    }

    /// Whether any fault sends again what was sent before.
    pub fn replays(&self) -> bool {
        self.plan.iter().any(|fault| matches!(fault.kind, FaultKind::Replay(_)))
    }

    /// Whether any fault waits for a state of a node.
    pub fn awaits_state(&self) -> bool {
        self.plan
            .iter()
            .any(|fault| matches!(&fault.when, When::On { event, .. } if !matches!(event, Observed::ValueSet | Observed::TopicsRemoved)))
    }

    /// A node remembers so many removals now; says whether it has forgotten some.
    pub fn remembers(&mut self, host: usize, process: u32, removals: usize) -> bool {
        let (before_process, before) = std::mem::replace(&mut self.remembered[host], (process, removals));
        before_process == process && removals < before
    }
}

impl World<'_> {
    /// Puts all faults that are due by time on the way.
    pub(super) fn plan_faults(&mut self) {
        if self.faults.replays() {
            self.network.record();
        }
        for at in 0..self.faults.plan.len() {
            let strike = |repeats| Event::Strike { fault: at as u32, repeats, observed: None };
            match &self.faults.plan[at].when {
                When::At(time) => self.queue.first_at(self.now + time, strike(false)),
                When::Every(gap) => {
                    let first = self.now + gap.draw(&mut self.dice.faults).max(1.0) as Time;
                    self.queue.first_at(first, strike(true));
                }
                When::On { .. } => {}
            }
        }
    }

    /// Something was observed that a fault may wait for.
    pub(super) fn observed(&mut self, event: Observed, host: usize, peer: Option<usize>) {
        if !self.is_hostile() {
            return;
        }
        for at in 0..self.faults.plan.len() {
            let When::On { event: awaited, node, nth, delay } = &self.faults.plan[at].when else { continue };
            if *awaited != event || node.is_some_and(|node| node != host) {
                continue;
            }
            self.faults.seen[at] += 1;
            if self.faults.seen[at] == *nth {
                let after = delay.draw(&mut self.dice.faults).max(0.0) as Time;
                let observed = Some((host as u32, peer.unwrap_or(host) as u32));
                self.queue.first_at(self.now + after, Event::Strike { fault: at as u32, repeats: false, observed });
            }
        }
    }

    /// A fault strikes.
    pub(super) fn strike(&mut self, at: usize, repeats: bool, observed: Option<(u32, u32)>) {
        if self.phase != Phase::Hostile {
            return;
        }
        let spec = self.faults.plan[at].clone();
        if let (true, When::Every(gap)) = (repeats, &spec.when) {
            let next = self.now + gap.draw(&mut self.dice.faults).max(1.0) as Time;
            self.queue.first_at(next, Event::Strike { fault: at as u32, repeats, observed: None });
        }
        let mut hosts = spec.kind.who().map_or_else(Vec::new, |who| self.struck_hosts(at, who, observed));
        hosts.retain(|host| self.may_strike(*host, &spec.kind, spec.budget));
        self.faults.changed = self.now;
        let undone = match &spec.kind {
            FaultKind::Partition(Shape::Swizzle, mode) => self.swizzle(*mode),
            FaultKind::Partition(shape, mode) => vec![self.part(shape, *mode, &hosts)],
            kind => hosts.into_iter().map(|host| self.strike_one(host, kind)).collect(),
        };
        for undo in undone.into_iter().filter(|undo| *undo != Undo::Nothing) {
            let active = self.faults.active.len() as u32;
            self.faults.active.push(undo);
            if let Some(lasts) = &spec.lasts {
                let until = self.now + lasts.draw(&mut self.dice.faults).max(1.0) as Time;
                self.queue.at(until, Event::Over { active });
            } else {
                self.faults.endless.insert(active as usize);
            }
        }
    }

    fn struck_hosts(&mut self, fault: usize, who: &Who, observed: Option<(u32, u32)>) -> Vec<usize> {
        match who {
            Who::Nodes(nodes) => nodes.clone(),
            Who::Random => vec![self.dice.faults.below(self.hosts.len())],
            Who::Next => {
                let next = self.faults.next[fault];
                self.faults.next[fault] = (next + 1) % self.hosts.len();
                vec![next]
            }
            Who::Observed => observed.map(|(host, _)| host as usize).into_iter().collect(),
            Who::Peer => observed.map(|(_, peer)| peer as usize).into_iter().collect(),
        }
    }

    /// Whether a fault's budget lets it strike a host.
    fn may_strike(&mut self, host: usize, kind: &FaultKind, budget: Budget) -> bool {
        let is_down = |host: &&crate::host::Host| host.process.is_none() || host.paused > 0;
        if kind.is_stop() && self.hosts.iter().filter(is_down).count() >= budget.down_max {
            return false;
        }
        if kind.is_of_storage() && !self.faults.stored.contains(&host) {
            if self.faults.stored.len() >= budget.storage_faults_max {
                return false;
            }
            self.faults.stored.insert(host);
        }
        true
    }

    /// Whether a host's disk may be destroyed: one host never loses it, so that something is left of what is demanded.
    fn may_destroy(&mut self, host: usize) -> bool {
        if !self.faults.destroyed.contains(&host) && self.faults.destroyed.len() + 1 >= self.hosts.len() {
            return false;
        }
        self.faults.destroyed.insert(host);
        true
    }

    fn disk_lost(&mut self, host: usize) {
        self.losses.disks[host].push(self.now);
        self.lossy = true;
    }

    fn strike_one(&mut self, host: usize, kind: &FaultKind) -> Undo {
        self.faults.struck += 1;
        self.trace.note(self.now, "fault", host as u32, &[format!("{kind:?}").as_bytes()]);
        self.trace.say(self.now, || format!("FAULT at {}: {kind:?}", self.hosts[host].name));
        match kind {
            FaultKind::Crash(_, state) => self.crash(host, *state),
            FaultKind::Restart(_) | FaultKind::Upgrade(_) => {
                if let FaultKind::Upgrade(_) = kind {
                    self.hosts[host].unknown = None;
                    self.reach("node.upgraded");
                }
                if self.stop(host, true) { Undo::Start(host) } else { Undo::Nothing }
            }
            FaultKind::Pause(_) => {
                self.hosts[host].paused += 1;
                self.audible_changed = true;
                Undo::Resume(host)
            }
            // What is slow is not made slower: three such faults at once would hold up one turn for minutes.
            FaultKind::SlowNode(..) if self.hosts[host].slow > 1.0 => Undo::Nothing,
            FaultKind::DiskSlow(..) if self.hosts[host].disk.slow > 1.0 => Undo::Nothing,
            FaultKind::SlowNode(_, factor) => {
                self.hosts[host].slow = *factor;
                Undo::Hurry(host)
            }
            FaultKind::ClockJump(_, by) => {
                let by = by.draw(&mut self.dice.faults) as i64;
                self.hosts[host].clock.jump(by);
                Undo::Nothing
            }
            FaultKind::ClockStrobe(_, by) => {
                let by = by.draw(&mut self.dice.faults) as i64;
                self.hosts[host].clock.strobe(by);
                Undo::Steady(host)
            }
            FaultKind::ClockDrift(_, by) => {
                let ppm = by.draw(&mut self.dice.faults);
                self.hosts[host].clock.drift(self.now, ppm);
                Undo::Nothing
            }
            FaultKind::DiskSlow(_, factor) => {
                self.hosts[host].disk.slow = *factor;
                Undo::Quicken(host)
            }
            FaultKind::DiskFail(_) => {
                self.hosts[host].disk.health = Health::Failing;
                Undo::Mend(host)
            }
            FaultKind::DiskReadOnly(_) => {
                self.hosts[host].disk.health = Health::ReadOnly;
                Undo::Mend(host)
            }
            FaultKind::DiskFull(_) => {
                self.hosts[host].disk.fill();
                Undo::Widen(host)
            }
            FaultKind::BitFlip(_) => {
                if !self.may_destroy(host) {
                    return Undo::Nothing;
                }
                let undo = self.crash(host, Crash::Persisted);
                self.hosts[host].disk.flip_bit(&mut self.dice.disks);
                undo
            }
            FaultKind::LyingDisk(_) => {
                if !self.may_destroy(host) {
                    return Undo::Nothing;
                }
                self.hosts[host].disk.lying = true;
                Undo::Truth(host)
            }
            FaultKind::Backup(_) => {
                if let Ok(rows) = self.hosts[host].disk.rows() {
                    self.hosts[host].image = Image { rows, boots: self.hosts[host].boots };
                }
                Undo::Nothing
            }
            FaultKind::ClientsVanish(_) => {
                self.clients_vanish(host);
                Undo::Nothing
            }
            FaultKind::ClientsMove(_) => {
                self.clients_move(host);
                Undo::Nothing
            }
            FaultKind::ClientsTwin(_) => {
                self.clients_twin(host);
                Undo::Nothing
            }
            FaultKind::ClientsStorm(_) => {
                self.clients_storm(host);
                Undo::Nothing
            }
            FaultKind::Revoke(_) => {
                self.revoke(host);
                Undo::Nothing
            }
            FaultKind::Leave(_) => {
                self.leave(host);
                Undo::Nothing
            }
            FaultKind::DropSection(_) => self.drop_section(host),
            FaultKind::Garbage(_) => {
                self.garbage(host);
                Undo::Nothing
            }
            FaultKind::Replay(_) => {
                self.replay(host);
                Undo::Nothing
            }
            FaultKind::Partition(..) | FaultKind::Swarm { .. } => Undo::Nothing,
        }
    }

    /// A process dies, and the disk is as it then is.
    fn crash(&mut self, host: usize, state: Crash) -> Undo {
        let destroys = !matches!(state, Crash::Persisted | Crash::LoseUnsynced | Crash::TornWrite);
        let runs = self.hosts[host].process.is_some();
        if !runs || (destroys && !self.may_destroy(host)) {
            return Undo::Nothing;
        }
        self.stop(host, false);
        self.lossy = true;
        let machine = &mut self.hosts[host];
        match state {
            Crash::Persisted => machine.disk.store.reopen(),
            Crash::LoseUnsynced | Crash::TornWrite => {
                let lied = machine.disk.store.has_lied();
                let torn = state == Crash::TornWrite && machine.disk.torn_write(&mut self.dice.disks);
                if torn {
                    self.reach("disk.torn");
                } else {
                    machine.disk.power_loss(&mut self.dice.disks);
                }
                if lied {
                    self.disk_lost(host);
                }
            }
            Crash::Truncated => {
                machine.disk.truncate(&mut self.dice.disks);
                self.disk_lost(host);
            }
            Crash::Amnesia => {
                machine.disk.replace(&[]);
                machine.boots = 0;
                self.disk_lost(host);
            }
            Crash::WipedNewId => {
                machine.disk.replace(&[]);
                machine.boots = 0;
                let replacement = self.faults.replacements.entry(host).or_default();
                *replacement += 1;
                machine.id = identity(self.seed, host, *replacement);
                self.disk_lost(host);
            }
            Crash::Backup => {
                let image = machine.image.clone();
                machine.disk.replace(&image.rows);
                machine.boots = image.boots;
                self.disk_lost(host);
            }
            Crash::Dead => {
                machine.dead = true;
                self.disk_lost(host);
                return Undo::Nothing;
            }
        }
        Undo::Start(host)
    }

    fn revoke(&mut self, host: usize) {
        let Some(by) = self.members().into_iter().find(|at| *at != host) else { return };
        // A mesh of two that loses one, and then the other, proves nothing.
        if self.revoked.len() + 2 >= self.hosts.len() || !self.revoked.insert(host) {
            return;
        }
        self.hosts[host].expelled = true;
        // What it alone has, and whatever it takes in from now on, is gone with it.
        self.losses.disks[host].push(Time::MAX);
        self.lossy = true;
        self.reach("node.revoked");
        let node = self.hosts[host].id.to_string();
        self.operator(by, |_| Request::NodeRevoke { node });
    }

    fn leave(&mut self, host: usize) {
        // Some must stay; and who leaves takes what it alone has with it.
        let left = self.hosts.iter().filter(|host| host.dead || host.expelled).count();
        if host == 0 || left + 3 >= self.hosts.len() || self.hosts[host].process.is_none() || !self.may_destroy(host) {
            return;
        }
        self.losses.disks[host].push(Time::MAX);
        self.lossy = true;
        self.operator(host, |_| Request::NodeLeave { force: true });
    }

    fn drop_section(&mut self, host: usize) -> Undo {
        let roots: Vec<String> = self.scenario.sections.iter().map(|section| section.root.clone()).collect();
        let Some(root) = self.dice.faults.pick(&roots).filter(|_| self.hosts[host].process.is_some()) else { return Undo::Nothing };
        if !self.may_destroy(host) {
            return Undo::Nothing;
        }
        self.disk_lost(host);
        let dropped = root.clone();
        self.operator(host, |_| Request::SectionDrop { root: dropped, force: false });
        self.faults.dropped.push((host, root.clone()));
        Undo::Hold(host, root)
    }

    /// An operator asks a node for something, and does not wait for the answer.
    pub(super) fn operator(&mut self, host: usize, request: impl FnOnce(u32) -> Request) {
        let by = (host as u32, self.hosts[host].process_no);
        let op = self.history.ask(Doing::Other, String::new(), Payload::default(), by, self.now, Durability::Memory);
        let Some(process) = self.hosts[host].process.as_mut() else { return };
        let session = mangrove::node::ConnectionId(process.next_id());
        self.offer(host, Item::Opened(session, entropy(by, session)));
        self.offer(host, Item::Request { session, op, request: request(op) });
    }

    /// Bytes that are no frame arrive on some link, or a part of one.
    fn garbage(&mut self, host: usize) {
        let links: Vec<_> = self.hosts[host].process.iter().flat_map(|process| process.links.keys().copied()).collect();
        let Some(link) = self.dice.faults.pick(&links) else { return };
        assert!(!is(Tamper::Panic), "broken on purpose");
        let dice = &mut self.dice.faults;
        let lane = dice.below(6) as u32;
        let len = 1 + dice.below(200);
        let mut bytes: Vec<u8> = (0..len).map(|_| dice.bits() as u8).collect();
        if dice.chance(0.5) {
            // What begins like a message gets further.
            bytes[0] = dice.below(20) as u8;
        }
        self.offer(host, Item::Frame { link, lane, bytes: bytes.into() });
    }

    /// What a neighbour has sent over an earlier connection arrives again: under that connection's name, which nobody listens to any more, or over the
    /// present one, as from a member that sends again what it kept.
    ///
    /// What QUIC rules out is left out: a stream is in order and whole, so a frame never comes to a lane that it was not sent on. Such a member can only
    /// open a lane of its own, and begin it as it had begun the earlier one; names are told by lane, so what it says there means what it
    /// meant, and all of it is true still, since the process is the same: whatever it has held, it holds or has seen removed. Two things it
    /// could say would be lies, as any member can lie: what was said on the control lane, which names the connection's own names, and the
    /// answers to an adoption or a repair, which are answers to a question of the earlier connection.
    fn replay(&mut self, host: usize) {
        let Some(process) = self.hosts[host].process.as_ref() else { return };
        let links: Vec<_> = process.links.iter().map(|(link, at)| (*link, *at)).collect();
        let greatest = links.last().map_or(0, |(link, _)| link.0);
        let gone = (0..=greatest + 1).rev().map(LinkId).find(|link| !process.links.contains_key(link));
        let Some((link, (conn, end))) = self.dice.faults.pick(&links) else { return };
        let earlier = self.network.earlier(conn, end);
        // A lane's first frame says what it is of; one that is of no plane is of adoptions and repairs.
        let is_of_plane = |frame: &Bytes| matches!(Content::decode(frame), Ok(Some(Content::Lane(of))) if of.plane.is_some());
        let lanes = earlier.iter().enumerate().flat_map(|(at, sent)| sent.iter().map(move |(lane, frame)| (at, *lane, frame)));
        let lanes: Vec<(usize, u32)> = lanes.filter(|(.., frame)| is_of_plane(frame)).map(|(at, lane, _)| (at, lane)).collect();
        let Some((at, lane)) = self.dice.faults.pick(&lanes) else { return };
        let frames: Vec<Bytes> = earlier[at].iter().filter(|(of, _)| *of == lane).map(|(_, frame)| frame.clone()).collect();
        let count = 1 + self.dice.faults.below(frames.len());
        let to = match gone {
            Some(gone) if self.dice.faults.chance(0.25) => (gone, lane),
            _ => (link, REPLAY_LANES + self.faults.replays),
        };
        self.faults.replays += 1;
        self.reach("frames.replayed");
        for bytes in frames.into_iter().take(count) {
            self.offer(host, Item::Frame { link: to.0, lane: to.1, bytes });
        }
    }

    // The end of faults.

    /// A fault is over.
    pub(super) fn fault_over(&mut self, active: usize) {
        let undo = std::mem::replace(&mut self.faults.active[active], Undo::Nothing);
        self.faults.changed = self.now;
        if undo != Undo::Nothing {
            self.undo(undo);
        }
    }

    pub(super) fn undo(&mut self, undo: Undo) {
        self.trace.note(self.now, "fault-over", 0, &[format!("{undo:?}").as_bytes()]);
        self.trace.say(self.now, || format!("over: {undo:?}"));
        match undo {
            Undo::Heal(..) if is(Tamper::NoHeal) => {}
            Undo::Heal(pairs, mode) => {
                for path in pairs {
                    self.network.part(self.now, &mut self.queue, path, mode == Mode::Hold, false);
                }
                self.audible_changed = true;
            }
            Undo::Hasten(pairs) => pairs.iter().for_each(|(from, to)| self.network.slow(*from, *to, 1.0)),
            Undo::Start(host) => self.start(host),
            Undo::Resume(host) => {
                self.hosts[host].paused = self.hosts[host].paused.saturating_sub(1);
                if self.hosts[host].paused == 0 {
                    self.resume(host);
                }
            }
            Undo::Hurry(host) => self.hosts[host].slow = 1.0,
            Undo::Mend(host) => self.hosts[host].disk.health = Health::Sound,
            Undo::Quicken(host) => self.hosts[host].disk.slow = 1.0,
            Undo::Steady(host) => self.hosts[host].clock.strobe(0),
            Undo::Widen(host) => self.hosts[host].disk.widen(),
            Undo::Truth(host) => self.hosts[host].disk.lying = false,
            Undo::Hold(host, root) => self.operator(host, |_| Request::SectionHold { root }),
            Undo::Nothing => {}
        }
    }

    /// Sections that were given up are held again, if that was refused at first, or the node was down.
    pub(super) fn hold_again(&mut self) {
        for (host, root) in self.faults.dropped.clone() {
            let Some(process) = self.hosts[host].process.as_ref() else { continue };
            let replica = process.node.replica();
            let declared = replica.policies().find(|policy| policy.root.as_str() == root).map(|policy| policy.id);
            if declared.is_some_and(|id| replica.section(id).is_none()) {
                self.operator(host, |_| Request::SectionHold { root });
            }
        }
    }

    /// All faults are over: paths are up, disks are sound, and who can come back does; but for faults without an end, if there is a core that must do without their end.
    pub(super) fn end_faults(&mut self) {
        let stay = !self.scenario.checks.core.is_empty() && !self.faults.endless.is_empty();
        for active in (0..self.faults.active.len()).filter(|active| !stay || !self.faults.endless.contains(active)).collect::<Vec<_>>() {
            self.fault_over(active);
        }
        if !is(Tamper::NoHeal) && !stay {
            self.network.heal(self.now, &mut self.queue);
        }
        self.audible_changed = true;
        for host in 0..self.hosts.len() {
            self.start(host);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Trace;

    fn scenario(nodes: usize) -> Scenario {
        let text = format!(
            "schema = 1\n[run]\nduration = \"1s\"\nsettle = \"1s\"\n[nodes]\ncount = {nodes}\n[[section]]\nroot = \"s\"\n\
             [network.default]\nlatency = \"10ms\"\n"
        );
        Scenario::parse("faults", &text).expect("a good scenario")
    }

    #[test]
    fn a_budget_bounds_who_is_down_and_whose_storage_suffers() {
        let scenario = scenario(3);
        let mut world = World::new(&scenario, 1, Trace::new(None));
        (0..3).for_each(|host| world.start(host));
        let budget = Budget { storage_faults_max: 1, down_max: 1 };
        let (crash, fail) = (FaultKind::Crash(Who::Random, Crash::Persisted), FaultKind::DiskFail(Who::Random));
        assert!(world.may_strike(0, &crash, budget));
        world.stop(0, false);
        assert!(!world.may_strike(1, &crash, budget), "one is down");
        assert!(!world.may_strike(1, &FaultKind::Pause(Who::Random), budget));
        assert!(world.may_strike(1, &crash, Budget::NONE));
        world.start(0);
        assert!(world.may_strike(1, &crash, budget), "none is");
        assert!(world.may_strike(2, &fail, budget) && world.may_strike(2, &fail, budget));
        assert!(!world.may_strike(1, &fail, budget), "it is the second");
        assert!(!world.may_strike(1, &FaultKind::Crash(Who::Random, Crash::TornWrite), budget));
        assert!(world.may_strike(1, &fail, Budget::NONE));
    }

    #[test]
    fn a_swarm_switches_and_tunes_each_kind_by_seed() {
        let mut scenario = scenario(3);
        let from = vec!["pause".to_owned(), "slow-node".to_owned()];
        let kind = FaultKind::Swarm { from, probability: 0.5, mean: 1e6, budget: Budget { storage_faults_max: 1, down_max: 1 } };
        scenario.faults = vec![FaultSpec { kind, when: When::At(0), lasts: None, budget: Budget::NONE }];
        let drawn = |seed| Faults::new(&scenario, &mut Dice::new(seed, "faults")).plan;
        let plans: Vec<Vec<FaultSpec>> = (0..40).map(drawn).collect();
        assert!((0..3).all(|count| plans.iter().any(|plan| plan.len() == count)), "each is on or off");
        assert!(plans.iter().flatten().all(|fault| fault.budget.down_max == 1));
        let mut factors: Vec<u64> = plans
            .iter()
            .flatten()
            .filter_map(|fault| match fault.kind {
                FaultKind::SlowNode(_, factor) => Some(factor as u64),
                _ => None,
            })
            .collect();
        factors.dedup();
        assert!(factors.len() > 5, "and each as strong as the seed draws: {factors:?}");
    }
}
