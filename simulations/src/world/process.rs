//! A node's process: starting and ending it, its turns, and the driver's law.
//!
//! A process takes in what has come (a few inputs a turn, as in production), performs each input's outputs in order, then serves its links and
//! sessions. A turn takes time; what comes meanwhile waits for the next.

use mangrove::{
    node::{Output, Parting, Verify},
    protocol::{Request, Verdict},
    store::Store,
};
use mangrove_crdt::id::{SectionId, SessionId};
use mangrove_net::link::LinkId;

use super::World;
use crate::{
    checks::{Invariant, Violation, lattice::Moment, leases, tree},
    disk::{ROOM_MIN_BYTES, Report},
    host::{Host, Item, Version},
    network::EndState,
    oracle::About,
    queue::Event,
    scenario::Observed,
    tamper::{Tamper, is},
    values::Kind,
};

/// How many inputs are taken in before links and sessions are served again.
const INPUTS_AT_ONCE: usize = 9;

impl World<'_> {
    /// Starts a host's node, unless it runs or is dead.
    pub(super) fn start(&mut self, host: usize) {
        let spec = &self.scenario.nodes[host];
        let machine = &mut self.hosts[host];
        if machine.process.is_some() || machine.dead {
            return;
        }
        match machine.start(self.now, self.scenario, spec, &mut self.dice.hosts) {
            Ok(false) => {}
            Ok(true) => {
                self.losses.disks[host].push(self.now);
                self.lossy = true;
                self.reach("disk.quarantined");
            }
            Err(error) => return self.violated(Violation::new(Invariant::S19, format!("a node cannot load what it stored: {error}"))),
        }
        let boots = self.hosts[host].boots;
        if boots > 1 {
            self.reach("node.restarted");
        }
        self.trace.say(self.now, || format!("{} starts, run {boots}", self.hosts[host].name));
        self.audible_changed = true;
        if let Some(process) = self.hosts[host].process.as_ref().filter(|_| self.has_lists()) {
            let (name, losses) = (&self.hosts[host].name, &self.losses.disks[host]);
            let result = self.lists[host].restarted(name, process.node.replica(), self.now, losses);
            self.check(result);
        }
        self.observe(host, None);
        self.offer(host, Item::Timeout);
    }

    /// A host's process ends. Says whether there was one.
    pub(super) fn stop(&mut self, host: usize, in_order: bool) -> bool {
        if in_order && self.hosts[host].process.is_some() {
            // What is left is stored, and the neighbours are told.
            let rest = self.hosts[host].process.as_mut().and_then(|process| process.node.take_rest());
            let rest = rest.map(|(rows, _)| rows).unwrap_or_default();
            self.stored(host, &rest);
            let Host { disk, process, .. } = &mut self.hosts[host];
            let kept = process.as_mut().is_none_or(|process| process.writer.close(disk, rest).is_ok());
            if !kept {
                // A disk that takes nothing keeps what it has: then the rest is lost, as after a crash.
                self.lossy = true;
                self.losses.processes[host].push(self.now);
            }
            let links: Vec<LinkId> = self.hosts[host].process.iter().flat_map(|process| process.links.keys().copied()).collect();
            for link in links {
                self.hang_up(host, link, None);
            }
        }
        let Some(process) = self.hosts[host].process.take() else { return false };
        if !in_order {
            self.losses.processes[host].push(self.now);
        }
        if process.node.mesh().links().any(|(_, link)| link.is_sending()) {
            self.reach("run.cut");
        }
        for (conn, end) in process.links.into_values() {
            self.network.kill(conn, end);
        }
        self.audible_changed = true;
        self.observe_holders(host);
        self.sessions_lost(host);
        self.trace.say(self.now, || format!("{} ends{}", self.hosts[host].name, if in_order { " in order" } else { "" }));
        true
    }

    /// Something for a process to take in: now if it is free, otherwise in its next turn.
    pub(super) fn offer(&mut self, host: usize, item: Item) {
        let paused = self.hosts[host].paused > 0;
        let (now, number) = (self.now, self.hosts[host].process_no);
        let Some(process) = self.hosts[host].process.as_mut() else { return };
        if paused || now < process.busy_until || !process.inbox.is_empty() {
            process.inbox.push_back(item);
            if !paused && !std::mem::replace(&mut process.turn_due, true) {
                let at = process.busy_until.max(now);
                self.queue.at(at, Event::Turn { host: host as u32, process: number });
            }
            return;
        }
        self.handle(host, item);
        self.serve(host, 1);
    }

    /// A process is free again.
    pub(super) fn turn(&mut self, host: usize, process: u32) {
        if !self.hosts[host].speaks(process) {
            if self.hosts[host].process_no == process
                && let Some(process) = self.hosts[host].process.as_mut()
            {
                process.turn_due = false;
            }
            return;
        }
        let mut taken = 0;
        while taken < INPUTS_AT_ONCE {
            let Some(running) = self.hosts[host].process.as_mut().filter(|_| self.found.is_none()) else { return };
            running.turn_due = false;
            let Some(item) = running.inbox.pop_front() else { break };
            self.handle(host, item);
            taken += 1;
        }
        let due = self.hosts[host].process.as_ref().and_then(|process| process.node.poll_timeout());
        if due.is_some_and(|(due, _)| due <= self.hosts[host].now(self.now).at) {
            self.handle(host, Item::Timeout);
            taken += 1;
        }
        self.serve(host, taken);
    }

    /// A process that stood still goes on.
    pub(super) fn resume(&mut self, host: usize) {
        let number = self.hosts[host].process_no;
        if let Some(process) = self.hosts[host].process.as_mut() {
            process.turn_due = true;
            process.wake_at = crate::scenario::Time::MAX;
            self.queue.at(self.now, Event::Turn { host: host as u32, process: number });
        }
        self.audible_changed = true;
    }

    /// A deadline may have come.
    pub(super) fn wake(&mut self, host: usize, number: u32) {
        if !self.hosts[host].speaks(number) {
            return;
        }
        let reading = self.hosts[host].now(self.now).at;
        let Some(process) = self.hosts[host].process.as_mut() else { return };
        if process.wake_at > self.now {
            return;
        }
        process.wake_at = crate::scenario::Time::MAX;
        if process.node.poll_timeout().is_some_and(|(due, _)| due <= reading) {
            self.offer(host, Item::Timeout);
        } else {
            self.set_alarm(host);
        }
    }

    fn set_alarm(&mut self, host: usize) {
        let machine = &mut self.hosts[host];
        let Some(process) = machine.process.as_mut() else { return };
        let Some((due, _)) = process.node.poll_timeout() else { return };
        let at = machine.clock.when(self.now, due).max(process.busy_until).max(self.now);
        if at < process.wake_at {
            process.wake_at = at;
            self.queue.at(at, Event::Wake { host: host as u32, process: machine.process_no });
        }
    }

    /// One input, and all that it brings about.
    fn handle(&mut self, host: usize, item: Item) {
        let now = self.hosts[host].now(self.now);
        self.note_item(host, &item);
        let about = self.about(host, &item);
        let version = Version::of(&self.hosts[host]);
        let Some(process) = self.hosts[host].process.as_mut() else { return };
        if let Item::LinkDown { link, .. } = &item {
            process.links.remove(link);
        }
        let Some(input) = item.input() else { return };
        let outputs: Vec<Output> = process.node.handle_input(now, input).collect();
        drop(version);
        self.observe(host, about.as_ref());
        if let Some(about) = &about {
            self.note_op(host, about);
        }
        if let Item::Request { op, request, .. } = &item {
            self.note_lists(host, *op, request);
        }
        self.present_op = about.map(|about| about.op);
        for output in outputs {
            if self.found.is_some() {
                return;
            }
            self.perform(host, output);
        }
        self.present_op = None;
        if let Item::LinkDown { .. } = item {
            self.redial(host);
        }
    }

    fn note_item(&mut self, host: usize, item: &Item) {
        let (at, whom) = (self.now, host as u32);
        match item {
            Item::Frame { link, lane, bytes } => {
                self.trace.note(at, "frame", whom, &[&link.0.to_le_bytes(), &lane.to_le_bytes(), bytes]);
                if self.trace.is_read() {
                    let name = self.hosts[host].name.clone();
                    self.trace.say(at, || format!("{name} <- frame of {} bytes on link {} lane {lane}", bytes.len(), link.0));
                }
            }
            Item::Timeout => self.trace.note(at, "timeout", whom, &[]),
            Item::Persisted { released, synced } => {
                self.trace.note(at, "persisted", whom, &[&released.to_le_bytes(), &synced.to_le_bytes()]);
            }
            Item::Request { session, op, request } => {
                let bytes = minicbor::to_vec(request).unwrap_or_default();
                self.trace.note(at, "request", whom, &[&session.0.to_le_bytes(), &op.to_le_bytes(), &bytes]);
                self.trace.say(at, || format!("{} <- {item:?}", self.hosts[host].name));
            }
            Item::Credit { session, subscription, updates } => {
                self.trace.note(at, "credit", whom, &[&session.0.to_le_bytes(), &subscription.to_le_bytes(), &updates.to_le_bytes()]);
            }
            other => {
                let said = format!("{other:?}");
                self.trace.note(at, item.name(), whom, &[said.as_bytes()]);
                let name = &self.hosts[host].name;
                self.trace.say(at, || format!("{name} <- {said}"));
            }
        }
    }

    fn moment(&self, host: usize) -> (crate::scenario::Time, (u32, u32), bool) {
        let machine = &self.hosts[host];
        let outcast = machine.expelled && self.is_known_revoked(host);
        (self.now, (host as u32, machine.process_no), outcast)
    }

    /// Whether every other node that runs knows that this one is revoked.
    fn is_known_revoked(&self, host: usize) -> bool {
        let id = self.hosts[host].id;
        let others = self.hosts.iter().enumerate().filter(|(at, _)| *at != host);
        others.filter_map(|(_, other)| other.process.as_ref()).all(|process| process.node.replica().revoked().contains_key(&id))
    }

    /// Looks at what a node has written and come to cover.
    fn observe(&mut self, host: usize, about: Option<&About>) {
        let (at, by, outcast) = self.moment(host);
        let Host { name, process: Some(process), .. } = &self.hosts[host] else { return };
        let moment = Moment { at, by, name, outcast };
        let result = self.views[host].step(&mut self.oracle, moment, process.node.replica(), about);
        self.check(result);
        if self.scenario.workload.sources.iter().any(|source| source.branch.is_some()) {
            self.observe_holders(host);
        }
        if self.faults.awaits_state() {
            self.observe_state(host);
        }
    }

    /// Looks at what a node's sessions hold.
    fn observe_holders(&mut self, host: usize) {
        let process = self.hosts[host].process.as_ref();
        let at = self.hosts[host].now(self.now);
        let held = process.into_iter().flat_map(|process| process.node.active_sources(at));
        let held = held.map(|(_, branch, session, epoch)| (branch.to_string(), (session, epoch))).collect();
        let moved = self.hosts[host].process.iter().flat_map(|process| process.node.own_sessions());
        let moved = moved.map(|(id, epoch, _)| (id, epoch)).collect();
        let forgetful = !self.losses.disks[host].is_empty();
        let changes = match self.holders.set(self.now, (host, self.hosts[host].process_no), forgetful, held, &moved) {
            Ok(changes) => changes,
            Err(violation) => return self.violated(violation),
        };
        let states = [
            ("source.active", !changes.gained.is_empty()),
            ("source.taken-over", changes.taken_over),
            ("source.double", changes.doubled),
            ("source.overlapped", changes.overlapped),
        ];
        for (state, reached) in states {
            if reached {
                self.reach(state);
            }
        }
        for (branch, session, epoch) in changes.gained {
            let result = self.look_at_lease(host, &branch, session, epoch);
            self.check(result);
        }
    }

    /// S4, at the moment in which somebody begins to hold a branch: what the others' clocks say then, whether their processes run or stand still.
    fn look_at_lease(&mut self, host: usize, branch: &str, session: SessionId, epoch: u64) -> Result<(), Violation> {
        if !self.scenario.sections.iter().any(|section| !section.voters.is_empty() && branch.starts_with(&section.root)) {
            return Ok(());
        }
        let kept_time = self.hosts.iter().all(|host| host.clock.kept_within(self.scenario.config.drift_max_ppm.into()));
        let forgetful = self.losses.disks.iter().any(|losses| !losses.is_empty());
        self.leases.held(branch, session, epoch, forgetful)?;
        let acts = |other: &usize| {
            let machine = &self.hosts[*other];
            let sources = machine.process.iter().flat_map(|process| process.node.active_sources(machine.now(self.now)));
            *other != host && sources.into_iter().any(|(_, held, ..)| held.as_str() == branch)
        };
        let others = (0..self.hosts.len()).filter(acts).map(|other| self.hosts[other].name.as_str());
        leases::alone(branch, &self.hosts[host].name, others, kept_time && !forgetful)
    }

    /// Looks at the keys that a node hands to its store.
    fn stored(&mut self, host: usize, rows: &[mangrove_crdt::persist::Row]) {
        let (at, by, outcast) = self.moment(host);
        let Host { name, process: Some(process), .. } = &self.hosts[host] else { return };
        let moment = Moment { at, by, name, outcast };
        let result = self.views[host].stored(&mut self.oracle, moment, process.node.replica(), rows);
        self.check(result);
    }

    /// Looks at all that a node holds.
    pub(super) fn look_at_all(&mut self, host: usize) {
        let (at, by, outcast) = self.moment(host);
        let Host { name, process: Some(process), .. } = &self.hosts[host] else { return };
        let moment = Moment { at, by, name, outcast };
        let replica = process.node.replica();
        let unknown = self.hosts[host].unknown.as_deref().unwrap_or_default();
        let result = self.views[host].all(&mut self.oracle, moment, replica);
        let result = result.and_then(|()| tree::one(name, replica)).and_then(|()| tree::known(name, replica, unknown));
        let lists = if self.has_lists() { self.lists[host].stands(name, replica) } else { Ok(()) };
        self.check(result.and(lists));
    }

    /// Whether clients have lists.
    pub(super) fn has_lists(&self) -> bool {
        self.scenario.workload.kinds.contains(&Kind::Paged)
    }

    /// Looks at what a request has made of a node's lists.
    fn note_lists(&mut self, host: usize, op: u32, request: &Request) {
        let Some(process) = self.hosts[host].process.as_ref().filter(|_| self.has_lists()) else { return };
        let (replica, name) = (process.node.replica(), &self.hosts[host].name);
        let hides = replica.hidden().next().is_some();
        let result = self.lists[host].asked(name, replica, op, request);
        if hides {
            self.reach("list.hidden");
        }
        self.check(result);
    }

    fn perform(&mut self, host: usize, output: Output) {
        let (at, whom) = (self.now, host as u32);
        match output {
            Output::Persist { rows, mark, sync } => {
                self.trace.note(at, "persist", whom, &[&mark.to_le_bytes(), &[u8::from(sync)], &(rows.len() as u64).to_le_bytes()]);
                for row in &rows {
                    self.trace.note(at, "row", whom, &[&[row.table as u8], &row.key, row.value.as_deref().unwrap_or(b"gone")]);
                }
                self.stored(host, &rows);
                let machine = &mut self.hosts[host];
                let Some(process) = machine.process.as_mut() else { return };
                let (report, next) = process.writer.push(at, &mut machine.disk, &mut self.dice.disks, mark, rows, sync);
                self.wrote(host, report, next);
            }
            Output::Send { session, message } => self.told(host, session, message),
            Output::Verify { session, verify } => {
                // As if the password were the last part of its hash.
                let verdict = match verify {
                    Verify::Password { hash: Some(hash), password } if hash.as_bytes().ends_with(password.bytes()) => Verdict::allow(),
                    _ => Verdict::Deny,
                };
                self.offer(host, Item::Verified(session, verdict));
            }
            Output::Judged { session, result } => self.judged(host, session, result.is_ok()),
            Output::Hangup { link, why, reason } => {
                self.trace.note(at, "hangup", whom, &[&link.0.to_le_bytes(), reason.as_bytes()]);
                self.trace.say(at, || format!("{} -> hang up on link {}: {reason}", self.hosts[host].name, link.0));
                match why {
                    Parting::Violation => self.reach("link.violated"),
                    Parting::Surplus => self.reach("link.surplus"),
                    _ => {}
                }
                self.hang_up(host, link, (why == Parting::Revoked).then_some(reason));
            }
            Output::Dial(targets) => {
                self.trace.note(at, "dial", whom, &[format!("{targets:?}").as_bytes()]);
                let number = self.hosts[host].process_no;
                let Some(process) = self.hosts[host].process.as_mut() else { return };
                for dialler in process.dial(targets, &mut self.dice.hosts) {
                    self.queue.at(at, Event::Dial { host: whom, process: number, dialler });
                }
            }
            Output::Trust { revoked, .. } => {
                if let Some(process) = self.hosts[host].process.as_mut() {
                    process.revoked = revoked.into_iter().map(|revoked| (revoked.node, revoked.said)).collect();
                }
            }
            Output::Stop { left } => {
                self.trace.note(at, "stop", whom, &[&[u8::from(left)]]);
                self.stop(host, true);
                self.hosts[host].dead |= left;
            }
        }
    }

    // The writer.

    /// The writer is done with a step.
    pub(super) fn disk(&mut self, host: usize, number: u32, step: u32) {
        let machine = &mut self.hosts[host];
        if machine.process_no != number {
            return;
        }
        let Some(process) = machine.process.as_mut().filter(|process| process.writer.step == step) else { return };
        let (report, next) = process.writer.step(self.now, &mut machine.disk, &mut self.dice.disks);
        self.wrote(host, report, next);
    }

    fn wrote(&mut self, host: usize, report: Option<Report>, next: Option<crate::scenario::Time>) {
        let machine = &mut self.hosts[host];
        let (number, room) = (machine.process_no, machine.disk.store.room());
        let Some(process) = machine.process.as_mut() else { return };
        if let Some(at) = next {
            process.writer.step += 1;
            self.queue.at(at, Event::Disk { host: host as u32, process: number, step: process.writer.step });
        }
        let (was_full, has_failed) = process.store;
        match report {
            None => {}
            Some(Report::Persisted(released, synced)) => {
                let room_min = if was_full { 2 * ROOM_MIN_BYTES } else { ROOM_MIN_BYTES };
                let full = room < room_min;
                process.store = (full, false);
                self.later(host, Item::Persisted { released, synced });
                if full && !was_full {
                    self.later(host, Item::Full);
                } else if !full && (was_full || has_failed) {
                    self.later(host, Item::StoreRecovered);
                }
            }
            Some(Report::Failed(error)) => {
                process.store.1 = true;
                self.reach("disk.failed");
                self.later(host, Item::StoreFailed(error));
            }
        }
    }

    /// Something for a process to take in in its next turn, as what comes from within it does.
    pub(super) fn later(&mut self, host: usize, item: Item) {
        let paused = self.hosts[host].paused > 0;
        let (now, number) = (self.now, self.hosts[host].process_no);
        let Some(process) = self.hosts[host].process.as_mut() else { return };
        process.inbox.push_back(item);
        if !paused && !std::mem::replace(&mut process.turn_due, true) {
            let at = process.busy_until.max(now);
            self.queue.at(at, Event::Turn { host: host as u32, process: number });
        }
    }

    // Links and sessions, whatever they can take.

    fn serve(&mut self, host: usize, inputs: usize) {
        if self.found.is_some() {
            return;
        }
        let now = self.hosts[host].now(self.now);
        let machine = &mut self.hosts[host];
        let service = self.scenario.nodes[host].service.draw(&mut self.dice.hosts) * machine.slow * inputs.max(1) as f64;
        let Some(process) = machine.process.as_mut() else { return };
        process.busy_until = self.now + service.max(0.0) as u64;
        let (network, node) = (&mut self.network, &mut process.node);
        for (link, (conn, end)) in &process.links {
            let (conn, end) = (*conn, *end);
            while network.has_room(conn, end) {
                let blocked = |lane| network.is_blocked(conn, end, lane);
                let Some(frame) = node.poll_transmit(now, *link, &blocked) else { break };
                self.trace.note(self.now, "send", host as u32, &[&link.0.to_le_bytes(), &frame.lane.to_le_bytes(), &frame.bytes]);
                let mut bytes = frame.bytes;
                if is(Tamper::CorruptFrames) && frame.lane != 0 && bytes.len() > 60 {
                    self.tampered += 1;
                    if self.tampered.is_multiple_of(50) {
                        let mut changed = bytes.to_vec();
                        let at = changed.len() - 12;
                        changed[at] ^= 1;
                        bytes = changed.into();
                    }
                }
                network.send(self.now, &mut self.queue, conn, end, frame.lane, bytes);
            }
        }
        self.serve_sessions(host);
        if let Some(process) = self.hosts[host].process.as_mut()
            && !process.inbox.is_empty()
            && !std::mem::replace(&mut process.turn_due, true)
        {
            let at = process.busy_until;
            self.queue.at(at, Event::Turn { host: host as u32, process: self.hosts[host].process_no });
        }
        self.set_alarm(host);
    }

    /// What faults wait for.
    fn observe_state(&mut self, host: usize) {
        let Some(process) = self.hosts[host].process.as_ref() else { return };
        let node = &process.node;
        let mut seen = Vec::new();
        for (link, at) in node.mesh().links() {
            let peer = process.links.get(&link).map(|(conn, end)| self.network.conns[*conn].ends[1 - end].host);
            if at.is_sending() {
                seen.push((Observed::RunOpen, peer));
            }
            // The built-in section is mostly the first, and small.
            let mut topics = node.replica().held().filter(|id| *id != SectionId::MESH).filter_map(|id| node.replica().section(id));
            if at.stats().adoptions_in > 0 && topics.any(|section| !section.frontiers().is_zero()) {
                seen.push((Observed::AdoptionDone, peer));
            }
            if node.replica().held().any(|section| at.adopting(section).is_some_and(|done| done > 0)) {
                seen.push((Observed::AdoptionBegun, peer));
            }
        }
        if self.has_forgotten(host) {
            seen.push((Observed::RemovalForgotten, None));
        }
        for (event, peer) in seen {
            self.observed(event, host, peer);
        }
    }

    /// Whether a node has forgotten removals since it was looked at last.
    pub(super) fn has_forgotten(&mut self, host: usize) -> bool {
        let Some(process) = self.hosts[host].process.as_ref() else { return false };
        let replica = process.node.replica();
        let remembered = replica.held().filter_map(|id| replica.section(id)).map(|section| section.remembered()).sum();
        let forgotten = self.faults.remembers(host, self.hosts[host].process_no, remembered);
        if forgotten {
            self.reach("removal.forgotten");
        }
        forgotten
    }

    /// Whether an end of a connection belongs to the process that its host runs now.
    pub(super) fn is_current(&self, conn: usize, end: usize) -> bool {
        let end = &self.network.conns[conn].ends[end];
        end.state != EndState::Dead && self.hosts[end.host].process.is_some() && self.hosts[end.host].process_no == end.process
    }
}
