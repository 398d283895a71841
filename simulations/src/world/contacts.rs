//! Links that come and go by a contact trace.
//!
//! Where nodes are told, the transport acts at once, as over a link that says when it is there: at the beginning of a contact it connects its ends, whomever they
//! would dial themselves, and at the end both give the connection up. A contact without a connection, because a process did not run or stood still, or because a
//! node hung up, is tried again every second.

use super::{Phase, World};
use crate::{host::Host, queue::Event};

impl World<'_> {
    fn is_told_of_contacts(&self) -> bool {
        self.scenario.contacts.as_ref().is_some_and(|contacts| contacts.told)
    }

    /// The trace begins: from now on there are only the links that it has.
    pub(super) fn begin_contacts(&mut self) {
        if self.scenario.contacts.is_none() {
            return;
        }
        for pair in self.network.part_all() {
            self.give_up(pair);
        }
        self.plan_contact(0);
    }

    /// The trace is over: all links are there again, and whoever has waited for a contact dials.
    pub(super) fn end_contacts(&mut self) {
        self.in_contact.clear();
        if self.is_told_of_contacts() {
            (0..self.hosts.len()).for_each(|host| self.redial(host));
        }
    }

    /// Whether a node does not dial another before they have contact, or because they have and are connected.
    pub(super) fn waits_for_contact(&self, host: usize, other: usize) -> bool {
        let is_away = || !self.in_contact.contains(&(host.min(other), host.max(other)));
        self.phase == Phase::Hostile && self.is_told_of_contacts() && (is_away() || self.is_linked(host, &self.hosts[other].id))
    }

    fn plan_contact(&mut self, at: usize) {
        let Some(change) = self.scenario.contacts.as_ref().and_then(|contacts| contacts.changes.get(at)) else { return };
        if change.at < self.scenario.run.duration {
            let (due, event) = (self.scenario.run.warmup + change.at, Event::Contact { change: at as u32 });
            if change.up { self.queue.at(due, event) } else { self.queue.first_at(due, event) }
        }
    }

    /// A link comes or goes.
    pub(super) fn contact(&mut self, at: usize) {
        let change = self.scenario.contacts.as_ref().and_then(|contacts| contacts.changes.get(at).copied());
        let Some(change) = change.filter(|_| self.phase == Phase::Hostile) else { return };
        let (a, b) = change.between;
        let way = if change.up { "up" } else { "down" };
        self.trace.note(self.now, "contact", a as u32, &[way.as_bytes(), &(b as u32).to_le_bytes()]);
        self.trace.say(self.now, || format!("contact of {} and {}: {way}", self.hosts[a].name, self.hosts[b].name));
        self.network.contact(self.now, &mut self.queue, (a, b), change.up);
        self.audible_changed = true;
        if change.up {
            self.in_contact.insert((a, b));
            self.meet((a, b));
        } else {
            self.in_contact.remove(&(a, b));
            self.give_up((a, b));
        }
        self.plan_contact(at + 1);
    }

    /// All who have contact are connected.
    pub(super) fn meet_all(&mut self) {
        for pair in self.in_contact.iter().copied().collect::<Vec<_>>() {
            self.meet(pair);
        }
    }

    /// Two nodes that have contact are connected, if they are told of it, both run, and neither has revoked the other.
    fn meet(&mut self, (a, b): (usize, usize)) {
        let takes = |host: &Host, other: &Host| {
            host.paused == 0 && host.process.as_ref().is_some_and(|process| !process.revoked.contains_key(&other.id))
        };
        let [one, other] = [&self.hosts[a], &self.hosts[b]];
        let are_up = self.network.is_up(a, b) && self.network.is_up(b, a);
        let lives = |conn: usize| self.is_current(conn, 0) && self.is_current(conn, 1);
        if !self.is_told_of_contacts() || !are_up || !takes(one, other) || !takes(other, one) {
            return;
        }
        if self.network.between(a, b).into_iter().any(lives) {
            return;
        }
        let (caller, called) = ((a, one.process_no), (b, other.process_no));
        let conn = self.network.connect(self.now, &mut self.queue, caller, called);
        // Neither counts as whoever dialled, so neither hangs up on a neighbour that it would not have chosen.
        self.come_up(conn, 0, None);
        self.audible_changed = true;
    }

    /// Two nodes that have no contact any more give up what connections they have, once they have what still arrives.
    fn give_up(&mut self, (a, b): (usize, usize)) {
        if !self.is_told_of_contacts() {
            return;
        }
        for conn in self.network.between(a, b) {
            for end in 0..2 {
                let at = self.network.last_arrival(self.now, conn, end);
                if at > self.now {
                    self.queue.at(at, Event::Closed { conn: conn as u32, end: end as u8, revoked: None });
                } else {
                    self.end_dies(conn, end, "the contact is over");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use mangrove_crdt::id::{Origin, Plane, SectionId};

    use super::*;
    use crate::{
        dice::Dice,
        scenario::{SECOND, Scenario, Time},
        trace::Trace,
    };

    const SEEDS: u64 = 10;

    /// How long it takes at most, from the beginning of a contact on, until each end has what the other had: a handshake, what each says that it has, and what the
    /// other lacks, in packets of a microsecond and turns of twenty. Nothing waits for a timer. What comes to an end during a contact mostly goes on as fast, but
    /// for that there is no such bound: links that stand push a feed along a tree only (see `mangrove_net`), and where a contact's end has cut that, it is mended
    /// after comparisons and reports.
    const EXCHANGE: Time = 2_000;

    const NODES: usize = 7;
    const LASTS: Time = 60 * SECOND;

    /// Between whom, from when, until when.
    type Contact = (usize, usize, Time, Time);

    /// By whom something was written, and when each node first held it.
    type Arrival = (usize, [Option<Time>; NODES]);

    /// Whole seconds, so that many contacts begin when others end; some overlap others of the same pair.
    fn random_contacts(seed: u64) -> Vec<Contact> {
        let mut dice = Dice::new(seed, "contacts");
        let contacts = (0..45).map(|_| {
            let (a, from) = (dice.below(NODES), dice.below(55) as Time);
            let b = (a + 1 + dice.below(NODES - 1)) % NODES;
            (a, b, from * SECOND, (from + 1 + dice.below(6) as Time) * SECOND)
        });
        let contacts: Vec<Contact> = contacts.collect();
        let first = contacts.iter().map(|contact| contact.2).min().unwrap_or(0);
        contacts.into_iter().map(|(a, b, from, to)| (a, b, from - first, to - first)).collect()
    }

    fn scenario(contacts: &[Contact], more: &str) -> Scenario {
        let text = format!(
            "schema = 1\n[run]\nduration = \"60s\"\nsettle = \"60s\"\n[nodes]\ncount = {NODES}\n\
             [[nodes.group]]\nmatch = \"*\"\n\
             disk = {{ fsync = \"0us\" }}\n[[section]]\nroot = \"s\"\n[contacts]\nfile = \"trace\"\nformat = \"intervals\"\n{more}\n\
             [workload]\ntopics = {{ count = 5 }}\n[[workload.source]]\nrate = {{ per_second = 0.5 }}\n"
        );
        let name = |node: usize| format!("n{}", node + 1);
        let row = |(a, b, from, to): &Contact| format!("{},{},{},{}\n", name(*a), name(*b), from / SECOND, to / SECOND);
        let trace: String = contacts.iter().map(row).collect();
        Scenario::parse_with("contacts", &text, &|_| Ok(trace.clone())).expect("a good scenario")
    }

    /// All updates that are written while the trace is played, in time after the warm-up.
    fn arrivals(scenario: &Scenario, seed: u64) -> Vec<Arrival> {
        let mut world = World::new(scenario, seed, Trace::new(None));
        let mut held: Vec<BTreeMap<Origin, u64>> = vec![BTreeMap::new(); NODES];
        let mut found: BTreeMap<(Origin, u64), Arrival> = BTreeMap::new();
        world.begin();
        while world.step() && world.phase != Phase::Settling {
            for (at, host) in world.hosts.iter().enumerate() {
                let Some(replica) = host.process.as_ref().map(|process| process.node.replica()) else { continue };
                let sections = replica.held().filter(|id| ![SectionId::MESH, SectionId::LOCAL].contains(id));
                for dot in sections.filter_map(|id| replica.section(id)).flat_map(|section| section.frontier(Plane::Values).iter()) {
                    let origin = replica.origins().get(dot.origin);
                    let before = held[at].insert(origin, dot.number).unwrap_or(0);
                    for number in before + 1..=dot.number {
                        let (_, arrived) = found.entry((origin, number)).or_insert((at, [None; NODES]));
                        // What is written while the mesh is made is of no interest.
                        arrived[at] = Some(world.now.saturating_sub(scenario.run.warmup));
                    }
                }
            }
        }
        assert_eq!(world.found, None);
        found.into_values().filter(|(by, arrived)| arrived[*by].is_some_and(|at| at > 0)).collect()
    }

    /// When something that one node has from a time on can be at each: exactly, if contacts carry it at once for as long as they last; or at the latest, if it goes over
    /// a link only as that comes, and takes so long.
    fn reachable(contacts: &[Contact], by: usize, from: Time, only_as_it_comes: Option<Time>) -> [Time; NODES] {
        let mut at = [Time::MAX; NODES];
        at[by] = from;
        // The link is there already where another contact of the same pair goes on.
        let joins = |a: &Contact, b: &Contact| ((a.0, a.1) == (b.0, b.1) || (a.0, a.1) == (b.1, b.0)) && b.2 < a.2 && a.2 <= b.3;
        let comes = |contact: &Contact| !contacts.iter().any(|other| joins(contact, other));
        loop {
            let before = at;
            for contact in contacts {
                let (a, b, begins, ends) = *contact;
                for (here, there) in [(a, b), (b, a)] {
                    let arrives = match only_as_it_comes {
                        None => Some(at[here].max(begins)).filter(|at| *at < ends),
                        Some(lag) => Some(begins + lag).filter(|_| at[here] < begins && comes(contact)),
                    };
                    at[there] = arrives.map_or(at[there], |arrives| at[there].min(arrives));
                }
            }
            if at == before {
                return at;
            }
        }
    }

    #[test]
    fn updates_arrive_when_a_path_through_contacts_in_order_of_time_says_so() {
        let (mut carried, mut soon, mut never) = (0, 0, 0);
        for seed in 0..SEEDS {
            let contacts = random_contacts(seed);
            let scenario = scenario(&contacts, "[network.default]\nlatency = \"0us\"");
            for (by, arrived) in arrivals(&scenario, seed) {
                let written = arrived[by].unwrap_or(0);
                let (earliest, latest) = (reachable(&contacts, by, written, None), reachable(&contacts, by, written, Some(EXCHANGE)));
                for node in (0..NODES).filter(|node| *node != by) {
                    let (at, earliest, latest) = (arrived[node].unwrap_or(Time::MAX), earliest[node], latest[node]);
                    let told = format!("seed {seed}: from {by} at {written} to {node} at {at}, not from {earliest} to {latest}");
                    assert!(at >= earliest && (at <= latest || latest >= LASTS), "{told}");
                    carried += u64::from(at < Time::MAX);
                    soon += u64::from(at < Time::MAX && at - earliest <= EXCHANGE);
                    never += u64::from(earliest == Time::MAX);
                }
            }
        }
        assert!(carried > 1_000 && never > 100, "it was seen that updates arrive ({carried}), and that they do not ({never})");
        assert!(soon * 100 > carried * 98, "{soon} of {carried} arrived as soon as there was a path");
    }

    #[test]
    fn nothing_arrives_before_there_is_a_path_where_nodes_are_not_told_either() {
        let contacts = random_contacts(1);
        let scenario = scenario(&contacts, "notice = \"by-silence\"\n[network.default]\nlatency = \"0us\"");
        let mut carried = 0;
        for (by, arrived) in arrivals(&scenario, 1) {
            let earliest = reachable(&contacts, by, arrived[by].unwrap_or(0), None);
            assert!(
                (0..NODES).all(|node| arrived[node].is_none_or(|at| at >= earliest[node])),
                "from {by}: {arrived:?}, before {earliest:?}"
            );
            carried += arrived.iter().flatten().count() - 1;
        }
        assert!(carried > 50, "{carried}");
    }

    #[test]
    fn what_is_on_its_way_when_a_contact_ends_is_lost_or_arrives_as_the_scenario_says() {
        let pairs = (0..NODES).flat_map(|a| (a + 1..NODES).map(move |b| (a, b)));
        let contacts: Vec<Contact> =
            pairs.flat_map(|(a, b)| (0..10).map(move |at| (a, b, at * 6 * SECOND, (at * 6 + 4) * SECOND))).collect();
        let late = |on_down: &str| {
            let scenario = scenario(&contacts, &format!("on_down = {on_down:?}\n[network.default]\nlatency = \"300ms\""));
            let mut late = 0;
            for (by, arrived) in arrivals(&scenario, 1) {
                let others = (0..NODES).filter(|node| *node != by).filter_map(|node| arrived[node]);
                let after_end: Vec<Time> = others.map(|at| at % (6 * SECOND)).filter(|at| *at >= 4 * SECOND).collect();
                assert!(after_end.iter().all(|at| *at <= 4 * SECOND + 300_001), "what is sent later does not: {after_end:?}");
                late += after_end.len();
            }
            late
        };
        assert_eq!(late("drop-in-flight"), 0);
        assert!(late("deliver-in-flight") > 10);
    }
}
