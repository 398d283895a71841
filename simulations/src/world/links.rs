//! Connections, as the world drives them: dialling, handshakes, packets, silence.

use bytes::Bytes;
use mangrove::node::Target;
use mangrove_net::{dialer, link::LinkId};

use super::World;
use crate::{
    host::Item,
    network::{Arrived, EndState, Network},
    queue::Event,
    scenario::{SECOND, Time},
};

/// How long to wait before asking a node again that says that this one was revoked.
const OUTCAST_WAIT: Time = 600 * SECOND;

impl World<'_> {
    /// A packet arrives at an end.
    pub(super) fn packet(&mut self, conn: usize, to: usize, packet: (u32, u32, Bytes)) {
        let lane = packet.0;
        if let Arrived::Frames(frames) = self.network.arrive(self.now, &mut self.queue, conn, to, packet)
            && self.is_current(conn, to)
        {
            let end = &self.network.conns[conn].ends[to];
            let (host, link) = (end.host, end.link);
            for bytes in frames {
                self.offer(host, Item::Frame { link, lane, bytes });
            }
        }
    }

    /// A frame has left its queue.
    pub(super) fn sent(&mut self, conn: usize, from: usize, lane: u32, bytes: usize) {
        if self.network.sent(conn, from, lane, bytes) && self.is_current(conn, from) {
            // The loop is woken, and serves its links.
            let host = self.network.conns[conn].ends[from].host;
            self.later(host, Item::Room);
        }
    }

    /// An end may have heard nothing for too long.
    pub(super) fn idle(&mut self, conn: usize, end: usize, epoch: u32) {
        if self.network.is_idle(conn, end, epoch) {
            self.reach("link.idle");
            self.end_dies(conn, end, "idle timeout");
        }
    }

    /// The other end has hung up.
    pub(super) fn peer_closed(&mut self, conn: usize, end: usize, revoked: Option<String>) {
        if self.network.conns[conn].ends[end].state != EndState::Dead {
            let (host, current) = (self.network.conns[conn].ends[end].host, self.is_current(conn, end));
            let by = self.hosts[self.network.conns[conn].ends[1 - end].host].id;
            self.end_dies(conn, end, "closed by the peer");
            if let Some(said) = revoked.filter(|_| current) {
                self.offer(host, Item::Outcast { by, said });
            }
        }
    }

    pub(super) fn end_dies(&mut self, conn: usize, end: usize, reason: &'static str) {
        let was_up = self.network.conns[conn].ends[end].state == EndState::Up;
        let (current, host, link) =
            (self.is_current(conn, end), self.network.conns[conn].ends[end].host, self.network.conns[conn].ends[end].link);
        self.network.kill(conn, end);
        self.audible_changed = true;
        if was_up && current {
            let link_there = self.hosts[host].process.as_ref().and_then(|process| process.node.mesh().link(link));
            let [cut, shrunk] =
                [link_there.is_some_and(|link| link.is_sending()), link_there.is_some_and(|link| link.stats().deltas_out > 0)];
            for (state, reached) in [("run.cut", cut), ("link.delta", shrunk)] {
                if reached {
                    self.reach(state);
                }
            }
            self.offer(host, Item::LinkDown { link, reason });
        }
    }

    /// A node hangs up: its end dies, and the other hears of it if it can.
    pub(super) fn hang_up(&mut self, host: usize, link: LinkId, revoked: Option<String>) {
        let Some((conn, end)) = self.hosts[host].process.as_mut().and_then(|process| process.links.remove(&link)) else { return };
        let peer = self.network.conns[conn].ends[1 - end].host;
        self.network.kill(conn, end);
        self.audible_changed = true;
        if self.network.is_up(host, peer) {
            let at = self.now + self.network.delay(self.now, host, peer);
            self.queue.at(at, Event::Closed { conn: conn as u32, end: 1 - end as u8, revoked });
        }
        self.later(host, Item::LinkDown { link, reason: "hung up" });
    }

    pub(super) fn is_linked(&self, host: usize, node: &mangrove_crdt::id::NodeId) -> bool {
        let id_of = |conn: usize, end: usize| self.hosts[self.network.conns[conn].ends[1 - end].host].id;
        self.hosts[host].process.as_ref().is_some_and(|process| process.is_linked(node, id_of))
    }

    /// A link is gone: diallers that relied on it try again.
    pub(super) fn redial(&mut self, host: usize) {
        let Some(process) = self.hosts[host].process.as_ref() else { return };
        let idle = process.diallers.iter().filter(|dialler| !dialler.busy).map(|dialler| (dialler.id, dialler.known));
        let due: Vec<u32> = idle.filter(|(_, known)| known.is_none_or(|known| !self.is_linked(host, &known))).map(|(id, _)| id).collect();
        let number = self.hosts[host].process_no;
        for id in due {
            if let Some(dialler) = self.dialler(host, number, id) {
                dialler.busy = true;
                self.queue.at(self.now, Event::Dial { host: host as u32, process: number, dialler: id });
            }
        }
    }

    fn dialler(&mut self, host: usize, number: u32, id: u32) -> Option<&mut crate::host::Dialler> {
        let machine = self.hosts.get_mut(host).filter(|machine| machine.process_no == number)?;
        machine.process.as_mut()?.diallers.iter_mut().find(|dialler| dialler.id == id)
    }

    /// A dialler tries.
    pub(super) fn dial(&mut self, host: usize, number: u32, id: u32) {
        let now = self.now;
        if self.hosts[host].process_no == number && self.hosts[host].paused > 0 {
            self.queue.at(now + SECOND / 4, Event::Dial { host: host as u32, process: number, dialler: id });
            return;
        }
        let Some(dialler) = self.dialler(host, number, id) else { return };
        let (known, since, address) = (dialler.known, *dialler.since.get_or_insert(now), dialler.backoff.address().to_owned());
        if known.is_some_and(|known| self.is_linked(host, &known)) {
            if let Some(dialler) = self.dialler(host, number, id) {
                (dialler.busy, dialler.since) = (false, None);
            }
            return;
        }
        let to = self.hosts.iter().position(|other| other.name == address);
        if to.is_some_and(|to| self.waits_for_contact(host, to)) {
            // Nobody tries in vain: whoever is told of a link connects then.
            if let Some(dialler) = self.dialler(host, number, id) {
                (dialler.busy, dialler.since) = (false, None);
            }
            return;
        }
        let Some(to) = to.filter(|to| *to != host && self.network.exists(host, *to)) else {
            return self.dial_failed(host, number, id, 0);
        };
        if self.network.is_up(host, to) {
            let at = now + self.network.delay(now, host, to);
            self.queue.at(at, Event::Greeted { host: host as u32, process: number, dialler: id, to: to as u32 });
        } else {
            self.dial_again(host, number, id, since);
        }
    }

    /// A packet of a handshake is lost: it is sent again, until the handshake is given up.
    fn dial_again(&mut self, host: usize, number: u32, id: u32, since: Time) {
        if self.now >= since + Network::HANDSHAKE_TIMEOUT {
            return self.dial_failed(host, number, id, 0);
        }
        self.queue.at(self.now + SECOND, Event::Dial { host: host as u32, process: number, dialler: id });
    }

    fn dial_failed(&mut self, host: usize, number: u32, id: u32, after: Time) {
        let now = self.now;
        let Some(dialler) = self.dialler(host, number, id) else { return };
        dialler.since = None;
        let wait = dialler.backoff.failed().as_micros() as u64;
        self.queue.at(now + after + wait.max(1), Event::Dial { host: host as u32, process: number, dialler: id });
    }

    /// The first packet of a handshake arrives at whoever is dialled.
    pub(super) fn greeted(&mut self, host: usize, number: u32, id: u32, to: usize) {
        let Some(dialler) = self.dialler(host, number, id) else { return };
        let (since, wanted) = (dialler.since.unwrap_or(0), dialler.target.node);
        let (caller, called) = (self.hosts[host].id, self.hosts[to].id);
        let Some(process) = self.hosts[to].process.as_ref().filter(|_| self.hosts[to].paused == 0) else {
            return self.dial_again(host, number, id, since);
        };
        let revoked = process.revoked.get(&caller).cloned();
        let welcome = revoked.is_none() && wanted.is_none_or(|wanted| wanted == called);
        if !self.network.is_up(to, host) {
            return self.dial_again(host, number, id, since);
        }
        let (at, to_process) = (self.now + self.network.delay(self.now, to, host), self.hosts[to].process_no);
        self.queue.at(at, Event::Answered { host: host as u32, process: number, dialler: id, to: to as u32, to_process, welcome, revoked });
    }

    /// The answer arrives: the dialling end is up.
    pub(super) fn answered(
        &mut self,
        (host, number, id): (usize, u32, u32),
        (to, to_process): (usize, u32),
        welcome: bool,
        revoked: Option<String>,
    ) {
        let now = self.now;
        let called = self.hosts[to].id;
        if self.hosts[host].process_no != number || self.hosts[host].process.is_none() {
            return;
        }
        let trusted = self.hosts[host].process.as_ref().is_some_and(|process| !process.revoked.contains_key(&called));
        if let Some(said) = revoked {
            // That is for good, though whoever says so may be mistaken.
            self.offer(host, Item::Outcast { by: called, said });
            return self.dial_failed(host, number, id, OUTCAST_WAIT);
        }
        if !(welcome && trusted) {
            return self.dial_failed(host, number, id, 0);
        }
        let mut dialled = None;
        if let Some(dialler) = self.dialler(host, number, id) {
            (dialler.known, dialler.since) = (Some(called), None);
            dialled = Some(dialler.target.clone());
            let wait = dialler.backoff.disconnected(dialer::LASTED).as_micros() as u64;
            self.queue.at(now + wait, Event::Dial { host: host as u32, process: number, dialler: id });
        }
        let conn = self.network.connect(now, &mut self.queue, (host, number), (to, to_process));
        self.come_up(conn, 0, dialled);
        self.audible_changed = true;
    }

    /// The last packet of a handshake arrives: the other end is up too.
    pub(super) fn confirmed(&mut self, conn: usize) {
        let (caller, called) = (self.network.conns[conn].ends[0].host, self.network.conns[conn].ends[1].host);
        let heard = self.network.is_up(caller, called) && self.network.conns[conn].ends[0].state == EndState::Up;
        if self.is_current(conn, 1) && heard {
            self.come_up(conn, 1, None);
        } else {
            self.network.kill(conn, 1);
        }
        self.audible_changed = true;
    }

    pub(super) fn come_up(&mut self, conn: usize, end: usize, dialled: Option<Target>) {
        let host = self.network.conns[conn].ends[end].host;
        let other = self.network.conns[conn].ends[1 - end].host;
        let (peer, address) = (self.hosts[other].id, self.hosts[other].name.clone());
        let Some(process) = self.hosts[host].process.as_mut() else { return };
        let link = LinkId(process.next_id());
        process.links.insert(link, (conn, end));
        let end_of = &mut self.network.conns[conn].ends[end];
        (end_of.link, end_of.state) = (link, EndState::Up);
        self.offer(host, Item::LinkUp { link, peer, address, dialled });
    }
}
