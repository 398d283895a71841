//! What every node must hear of every other, over any chain of links: heartbeats, and reports of durable frontiers.
//!
//! Both are *newest wins* and have no feed. Each node keeps the newest of each member and, for each link, what that link was told; a
//! link that can take a frame gets what it was not told yet. So a slow link skips what is outdated, nothing queues, and whoever can
//! reach a node by any chain of links knows that it lives.
//!
//! Heartbeats are few and take every way there is; each node passes them on together, a few times between two of its own, so that a packet carries several and
//! most have by then come to a neighbour from elsewhere. Reports are many where much is written, so in a mesh with many links each takes a tree of its own: whoever
//! gets one that it has already got tells the link that it need not bring that member's for a while ([`Control::Relay`]), and, when one comes sooner over such
//! a link, or the link by which they came is lost, that it is wanted again. (The push phase of Plumtree: Leitão, Pereira and Rodrigues, 2007.)
//!
//! [`Control::Relay`]: crate::message::Control::Relay

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use mangrove_crdt::{
    frontier::{DotIx, OriginIx, Origins},
    id::{NodeId, Origin, Plane, SectionId},
    replica::Replica,
    section::Frontiers,
    time::Instant,
};
use rustc_hash::FxHashMap;
use smallvec::SmallVec;

use crate::retired::Retired;

/// The newest heartbeat of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pulse {
    /// The member's run.
    pub origin: OriginIx,
    /// How many it has sent in this run.
    pub count: u64,
}

/// The newest report of a member.
#[derive(Clone, Debug)]
pub struct ReportState {
    /// The member's run.
    pub origin: OriginIx,
    /// How often it has reported in this run.
    pub version: u64,
    sections: BTreeMap<SectionId, Reported>,
}

/// What a member has reported of one section: its durable frontiers, but for the retired runs.
#[derive(Clone, Debug, Default)]
struct Reported {
    frontiers: Arc<Frontiers>,
    /// For each plane and origin, the version in which its number last moved; zero where none was ever told.
    moved: [Vec<u64>; 3],
    retired: Retired,
    /// The version in which the retired runs last changed.
    retired_in: u64,
}

impl Reported {
    fn set(&mut self, plane: Plane, dot: DotIx, version: u64) {
        Arc::make_mut(&mut self.frontiers)[plane].set(dot.origin, dot.number);
        let (moved, at) = (&mut self.moved[plane as usize], dot.origin.0 as usize);
        if moved.len() <= at {
            moved.resize(at + 1, 0);
        }
        moved[at] = version;
    }

    /// Takes in what the frontiers are now. Says whether any number is another.
    fn set_all(&mut self, frontiers: &Frontiers, version: u64) -> bool {
        let mut any = false;
        for plane in Plane::ALL {
            let gone = self.frontiers[plane].iter().map(|dot| dot.origin).filter(|origin| frontiers[plane].get(*origin) == 0);
            let gone = gone.map(|origin| DotIx { origin, number: 0 });
            let moved = frontiers[plane].iter().filter(|dot| self.frontiers[plane].get(dot.origin) != dot.number);
            for dot in gone.chain(moved).collect::<SmallVec<[DotIx; 8]>>() {
                self.set(plane, dot, version);
                any = true;
            }
        }
        any
    }

    /// Takes in which runs are retired. Says whether that is another state than before.
    fn retire(&mut self, origins: &Origins, retired: Retired, version: u64) -> bool {
        if self.retired == retired {
            return false;
        }
        let frontiers = Arc::make_mut(&mut self.frontiers);
        for plane in Plane::ALL {
            for (at, moved) in self.moved[plane as usize].iter_mut().enumerate().filter(|(_, moved)| **moved > 0) {
                let origin = OriginIx(at as u32);
                if retired.covers(origins, origin) {
                    frontiers[plane].forget(origin);
                    *moved = 0;
                }
            }
        }
        (self.retired, self.retired_in) = (retired, version);
        true
    }
}

impl ReportState {
    fn new(origin: OriginIx) -> Self {
        ReportState { origin, version: 0, sections: BTreeMap::new() }
    }

    /// The retired runs of each section in which they changed after a version.
    pub fn retired_after(&self, version: u64) -> impl Iterator<Item = (SectionId, &Retired)> {
        let changed = self.sections.iter().filter(move |(_, reported)| reported.retired_in > version);
        changed.map(|(section, reported)| (*section, &reported.retired))
    }

    /// Whether anything is reported in a section.
    pub fn tells_of(&self, section: SectionId) -> bool {
        self.sections.get(&section).is_some_and(|reported| !reported.retired.is_empty() || !reported.frontiers.is_zero())
    }

    /// The entries that moved after a version.
    pub fn moved_after(&self, version: u64) -> impl Iterator<Item = (SectionId, Plane, DotIx)> + '_ {
        self.sections.iter().flat_map(move |(section, reported)| {
            Plane::ALL.into_iter().flat_map(move |plane| {
                let moved = reported.moved[plane as usize].iter().enumerate().filter(move |(_, moved)| **moved > version);
                moved.map(move |(at, _)| {
                    let origin = OriginIx(at as u32);
                    (*section, plane, DotIx { origin, number: reported.frontiers[plane].get(origin) })
                })
            })
        })
    }

    /// The frontiers reported in a section, seen by one who has `ours`; and whether they are all: of retired runs nothing counts that is not the
    /// same here.
    pub fn frontiers(&self, origins: &Origins, section: SectionId, ours: impl FnOnce() -> Frontiers) -> (Arc<Frontiers>, bool) {
        let Some(reported) = self.sections.get(&section) else { return (Arc::default(), true) };
        if reported.retired.is_empty() {
            return (reported.frontiers.clone(), true);
        }
        match reported.retired.join(origins, (*reported.frontiers).clone(), &ours()) {
            Some(all) => (Arc::new(all), true),
            None => (reported.frontiers.clone(), false),
        }
    }
}

/// What one link was told.
#[derive(Debug, Default)]
pub struct Told {
    /// The newest heartbeat of each member.
    pub pulses: FxHashMap<NodeId, Pulse>,
    /// The run and version of each member's report.
    pub reports: FxHashMap<NodeId, (OriginIx, u64)>,
    /// Members whose reports the peer gets elsewhere, each until when.
    paused: BTreeMap<NodeId, Instant>,
    /// Members whose report may have moved beyond what it was told.
    due: VecDeque<NodeId>,
    /// How much of the news of heartbeats it has been told, and how much of that of reports has been taken into `due`.
    all: (u64, u64),
}

/// For how long a link is left alone that has said it gets a member's reports elsewhere: what heals should the other way go away unnoticed.
pub const RELAY_PAUSE: Duration = Duration::from_secs(30);

impl Told {
    /// Whether it was told all that there is.
    pub fn is_all(&self, gossip: &Gossip) -> bool {
        self.all == gossip.news() && self.due.is_empty()
    }

    /// The peer gets a member's reports sooner elsewhere, or wants them from here again.
    pub fn relay(&mut self, now: Instant, member: NodeId, wanted: bool) {
        if wanted {
            self.paused.remove(&member);
            if !self.due.contains(&member) {
                self.due.push_back(member);
            }
        } else {
            self.paused.insert(member, now.after(RELAY_PAUSE));
        }
    }

    /// Ends the pauses that have lasted long enough. Says whether there were any.
    pub fn end_pauses(&mut self, now: Instant) -> bool {
        let before = self.due.len();
        self.due.extend(self.paused.extract_if(.., |_, until| now >= *until).map(|(member, _)| member));
        self.due.len() > before
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Gossip {
    pulses: BTreeMap<NodeId, Pulse>,
    reports: BTreeMap<NodeId, ReportState>,
    /// Members' reports of sections that do not count in full, since the member has something else of the retired runs than this node.
    unclear: BTreeSet<(NodeId, SectionId)>,
    /// The neighbour that brought each member's newest heartbeat first.
    nearest: BTreeMap<NodeId, NodeId>,
    /// The neighbour that brought news of each member's reports last.
    ways: BTreeMap<NodeId, NodeId>,
    pulse_news: News,
    /// How much of the news of heartbeats may be told.
    pulses_released: u64,
    report_news: News,
}

/// News of one kind: how much there has been, and whose the last of it was.
#[derive(Debug, Default)]
struct News {
    count: u64,
    recent: VecDeque<NodeId>,
}

impl News {
    /// How much is told one by one; whoever was told less looks through everybody's.
    const RECENT_MAX: usize = 256;

    fn add(&mut self, node: NodeId) {
        self.count += 1;
        if self.recent.len() == Self::RECENT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(node);
    }

    /// Whose it was since there was so much; `None` if that was too long ago.
    fn since(&self, told: u64) -> Option<impl Iterator<Item = &NodeId>> {
        let since = usize::try_from(self.count - told).ok().filter(|since| *since <= self.recent.len())?;
        Some(self.recent.range(self.recent.len() - since..))
    }
}

impl Gossip {
    /// A heartbeat came, or is sent. Says whether it is news.
    pub fn pulse(&mut self, origins: &Origins, pulse: Pulse) -> bool {
        let origin = origins.get(pulse.origin);
        let known = self.pulses.get(&origin.node);
        let newer = known.is_none_or(|known| (origins.get(known.origin).incarnation, known.count) < (origin.incarnation, pulse.count));
        if newer {
            self.pulse_news.add(origin.node);
            self.pulses.insert(origin.node, pulse);
        }
        newer
    }

    /// A neighbour has brought news of a member's heartbeat.
    pub fn heard_by(&mut self, member: NodeId, neighbour: NodeId) {
        self.nearest.insert(member, neighbour);
    }

    /// The neighbour over which a member is reached soonest, by its newest heartbeat.
    pub fn way_to(&self, member: &NodeId) -> Option<NodeId> {
        self.nearest.get(member).copied()
    }

    /// How much news there has been that may be told: of heartbeats, and of reports.
    pub fn news(&self) -> (u64, u64) {
        (self.pulses_released, self.report_news.count)
    }

    /// From now on every heartbeat that has come may be told.
    pub fn release_pulses(&mut self) {
        self.pulses_released = self.pulse_news.count;
    }

    /// The run that a member's newest heartbeat is of.
    pub fn incarnation(&self, node: &NodeId) -> Option<OriginIx> {
        self.pulses.get(node).map(|pulse| pulse.origin)
    }

    /// Heartbeats that a link was not told yet; from now on they count as told.
    pub fn untold_pulses(&self, told: &mut Told) -> Vec<Pulse> {
        let Told { pulses, all, .. } = told;
        if all.0 == self.pulses_released {
            return Vec::new();
        }
        let mut untold = Vec::new();
        let mut tell = |node: &NodeId, pulse: &Pulse| {
            if pulses.get(node) != Some(pulse) {
                pulses.insert(*node, *pulse);
                untold.push(*pulse);
            }
        };
        match self.pulse_news.since(all.0) {
            Some(news) => news.for_each(|node| self.pulses.get(node).into_iter().for_each(|pulse| tell(node, pulse))),
            None => self.pulses.iter().for_each(|(node, pulse)| tell(node, pulse)),
        }
        all.0 = self.pulses_released;
        untold
    }

    /// A member whose report has moved beyond what the link to a peer was told, and the version that it was told.
    pub fn untold_report(&self, peer: NodeId, told: &mut Told) -> Option<(NodeId, &ReportState, u64)> {
        if told.all.1 != self.report_news.count {
            match self.report_news.since(told.all.1).filter(|_| told.due.len() <= News::RECENT_MAX) {
                Some(news) => told.due.extend(news),
                None => told.due = self.reports.keys().copied().collect(),
            }
            told.all.1 = self.report_news.count;
        }
        while let Some(node) = told.due.pop_front() {
            let Some(report) = self.reports.get(&node).filter(|_| node != peer && !told.paused.contains_key(&node)) else { continue };
            match told.reports.get(&node) {
                Some((origin, version)) if *origin == report.origin && *version < report.version => return Some((node, report, *version)),
                Some((origin, _)) if *origin == report.origin => {}
                _ => return Some((node, report, 0)),
            }
        }
        None
    }

    /// This node's own durable frontiers, with so many of each node's runs told by number. Says whether anything moved.
    pub fn report_own(
        &mut self,
        origins: &Origins,
        node: NodeId,
        origin: OriginIx,
        durable: &[(SectionId, Frontiers)],
        runs_told: usize,
    ) -> bool {
        let report = self.reports.entry(node).or_insert_with(|| ReportState::new(origin));
        if report.origin != origin {
            *report = ReportState::new(origin);
        }
        let version = report.version + 1;
        let mut moved = false;
        for (section, frontiers) in durable {
            let (retired, rest) = Retired::part(origins, frontiers, runs_told);
            let reported = report.sections.entry(*section).or_default();
            moved |= reported.retire(origins, retired, version);
            moved |= reported.set_all(&rest, version);
        }
        // What is no longer held, or was given up and is being held anew, must not be counted on: it is told as nothing.
        for (_, reported) in report.sections.iter_mut().filter(|(section, _)| durable.iter().all(|(held, _)| held != *section)) {
            moved |= reported.retire(origins, reported.retired.given_up(), version);
            moved |= reported.set_all(&Frontiers::default(), version);
        }
        if moved || report.version == 0 {
            report.version = version;
            self.report_news.add(node);
        }
        moved
    }

    /// A report came. Says whether it is news.
    pub fn report(
        &mut self,
        origins: &Origins,
        member: OriginIx,
        version: u64,
        moved: impl IntoIterator<Item = (SectionId, Plane, DotIx)>,
        retired: impl IntoIterator<Item = (SectionId, Retired)>,
    ) -> bool {
        let origin = origins.get(member);
        let report = self.reports.entry(origin.node).or_insert_with(|| ReportState::new(member));
        if origins.get(report.origin).incarnation < origin.incarnation {
            *report = ReportState::new(member);
        }
        if report.origin != member || report.version >= version {
            return false;
        }
        for (section, retired) in retired {
            report.sections.entry(section).or_default().retire(origins, retired, version);
        }
        for (section, plane, dot) in moved {
            report.sections.entry(section).or_default().set(plane, dot, version);
        }
        report.version = version;
        self.report_news.add(origin.node);
        true
    }

    /// A neighbour has brought news of a member's reports.
    pub fn came_by(&mut self, member: NodeId, neighbour: NodeId) {
        self.ways.insert(member, neighbour);
    }

    /// Whether a member's reports come by another neighbour than this.
    pub fn comes_elsewhere(&self, member: NodeId, neighbour: NodeId) -> bool {
        self.ways.get(&member).is_some_and(|way| *way != neighbour)
    }

    /// A link to a neighbour is lost. Returns the members whose reports came by it.
    pub fn way_lost(&mut self, neighbour: NodeId) -> Vec<NodeId> {
        self.nearest.retain(|_, way| *way != neighbour);
        self.ways.extract_if(.., |_, way| *way == neighbour).map(|(member, _)| member).collect()
    }

    /// Counts what a member has reported of a section, as far as it can be made out here.
    pub fn count_report(&mut self, replica: &mut Replica, node: NodeId, section: SectionId) {
        let Some(report) = self.reports.get(&node) else { return };
        let ours = || replica.section(section).map(|section| section.frontiers()).unwrap_or_default();
        let (frontiers, all) = report.frontiers(replica.origins(), section, ours);
        if all {
            self.unclear.remove(&(node, section));
        } else {
            self.unclear.insert((node, section));
        }
        replica.members.report(node, section, frontiers);
    }

    /// Whether what a member has reported of a section cannot be made out in full.
    pub fn is_unclear(&self, node: NodeId, section: SectionId) -> bool {
        self.unclear.contains(&(node, section))
    }

    /// Counts again what could not be made out.
    pub fn count_unclear(&mut self, replica: &mut Replica) {
        for (node, section) in self.unclear.clone() {
            if replica.section(section).is_some() {
                self.count_report(replica, node, section);
            }
        }
    }

    /// The greatest boot counter with which a node was heard in another run than this.
    pub fn other_run(&self, origins: &Origins, run: Origin) -> Option<u32> {
        let pulse = self.pulses.get(&run.node).map(|pulse| pulse.origin);
        let other = pulse.map(|origin| origins.get(origin)).filter(|other| other.incarnation.nonce != run.incarnation.nonce);
        other.map(|other| other.incarnation.boot)
    }

    /// A member's newest report, if it is of the given run.
    pub fn reported_in_run(&self, origins: &Origins, run: Origin) -> Option<&ReportState> {
        self.reports.get(&run.node).filter(|report| origins.get(report.origin).incarnation.nonce == run.incarnation.nonce)
    }

    /// A member's newest report.
    pub fn reported(&self, node: &NodeId) -> Option<&ReportState> {
        self.reports.get(node)
    }

    /// Forgets a node that is no member any more.
    pub fn forget(&mut self, node: &NodeId) {
        self.nearest.remove(node);
        self.pulses.remove(node);
        self.reports.remove(node);
        self.ways.remove(node);
        self.unclear.retain(|(of, _)| of != node);
    }
}

#[cfg(test)]
mod tests {
    use mangrove_crdt::id::Incarnation;

    use super::*;

    const SECTION: SectionId = SectionId(7);
    const OTHER: SectionId = SectionId(8);
    const NOW: Instant = Instant(1_000_000);
    const PEER: NodeId = NodeId([9; 32]);

    fn run(origins: &mut Origins, node: u8, boot: u32) -> OriginIx {
        origins.intern(Origin { node: NodeId([node; 32]), incarnation: Incarnation { boot, nonce: u64::from(boot) * 10 } })
    }

    fn at(origin: OriginIx, number: u64) -> DotIx {
        DotIx { origin, number }
    }

    fn frontiers(dots: &[DotIx]) -> Frontiers {
        let mut frontiers = Frontiers::default();
        dots.iter().for_each(|dot| {
            frontiers[Plane::Values].raise(dot.origin, dot.number);
        });
        frontiers
    }

    #[test]
    fn the_newest_heartbeat_wins_and_a_later_run_is_newer() {
        let (mut origins, mut gossip) = (Origins::default(), Gossip::default());
        let (first, second) = (run(&mut origins, 1, 1), run(&mut origins, 1, 2));
        let node = NodeId([1; 32]);
        assert!(gossip.pulse(&origins, Pulse { origin: first, count: 5 }));
        assert!(!gossip.pulse(&origins, Pulse { origin: first, count: 5 }));
        assert!(!gossip.pulse(&origins, Pulse { origin: first, count: 4 }));
        assert!(gossip.pulse(&origins, Pulse { origin: second, count: 1 }));
        assert!(!gossip.pulse(&origins, Pulse { origin: first, count: 99 }));
        assert_eq!(gossip.incarnation(&node), Some(second));
        // Who is still in its first run hears that it goes on elsewhere; who is in the second hears nothing of itself.
        assert_eq!(gossip.other_run(&origins, origins.get(first)), Some(2));
        assert_eq!(gossip.other_run(&origins, origins.get(second)), None);
    }

    #[test]
    fn a_link_is_told_each_heartbeat_once_and_skips_what_was_outdated() {
        let (mut origins, mut gossip, mut told) = (Origins::default(), Gossip::default(), Told::default());
        let (a, b) = (run(&mut origins, 1, 1), run(&mut origins, 2, 1));
        let pulse = |origin, count| Pulse { origin, count };
        for count in 1..=3 {
            gossip.pulse(&origins, pulse(a, count));
        }
        gossip.pulse(&origins, pulse(b, 1));
        assert!(told.is_all(&gossip), "nothing may be told yet");
        gossip.release_pulses();
        assert_eq!(gossip.untold_pulses(&mut told), [pulse(a, 3), pulse(b, 1)]);
        assert!(gossip.untold_pulses(&mut told).is_empty());
        gossip.pulse(&origins, pulse(b, 2));
        assert!(gossip.untold_pulses(&mut told).is_empty());
        gossip.release_pulses();
        assert_eq!(gossip.untold_pulses(&mut told), [pulse(b, 2)]);
        assert_eq!(gossip.untold_pulses(&mut Told::default()).len(), 2);
    }

    #[test]
    fn a_report_tells_what_moved_since_the_version_told() {
        let (mut origins, mut gossip, mut told) = (Origins::default(), Gossip::default(), Told::default());
        let (a, b) = (run(&mut origins, 1, 1), run(&mut origins, 2, 1));
        let node = NodeId([1; 32]);
        assert!(gossip.report_own(&origins, node, a, &[(SECTION, frontiers(&[at(a, 3), at(b, 4)])), (OTHER, frontiers(&[at(a, 1)]))], 2));
        let (_, report, version) = gossip.untold_report(PEER, &mut told).unwrap();
        assert_eq!((report.version, version, report.moved_after(0).count()), (1, 0, 3));
        told.reports.insert(node, (a, 1));
        assert!(gossip.untold_report(PEER, &mut told).is_none());
        // Nothing moves: no new version, nothing to tell.
        assert!(!gossip.report_own(&origins, node, a, &[(SECTION, frontiers(&[at(a, 3), at(b, 4)])), (OTHER, frontiers(&[at(a, 1)]))], 2));
        assert!(gossip.untold_report(PEER, &mut told).is_none());
        // One number moves, and one section is given up.
        assert!(gossip.report_own(&origins, node, a, &[(SECTION, frontiers(&[at(a, 3), at(b, 5)]))], 2));
        let (_, report, version) = gossip.untold_report(PEER, &mut told).unwrap();
        let moved: Vec<_> = report.moved_after(version).collect();
        assert_eq!(moved, [(SECTION, Plane::Values, at(b, 5)), (OTHER, Plane::Values, at(a, 0))]);
        assert_eq!(report.frontiers(&origins, SECTION, Frontiers::default).0.as_ref(), &frontiers(&[at(a, 3), at(b, 5)]));
        assert!(report.frontiers(&origins, OTHER, Frontiers::default).0.is_zero());

        // Another node that was told the two in turn knows the same; out of turn, the newer stands.
        let mut other = Gossip::default();
        assert!(other.report(&origins, a, 2, moved.clone(), []));
        assert!(!other.report(&origins, a, 2, moved.clone(), []));
        assert!(!other.report(&origins, a, 1, [(SECTION, Plane::Values, at(b, 4))], []));
        assert_eq!(other.reported(&node).unwrap().frontiers(&origins, SECTION, Frontiers::default).0.as_ref(), &frontiers(&[at(b, 5)]));
    }

    #[test]
    fn a_member_that_restarts_begins_its_report_anew() {
        let (mut origins, mut gossip, mut told) = (Origins::default(), Gossip::default(), Told::default());
        let (first, second) = (run(&mut origins, 1, 1), run(&mut origins, 1, 2));
        let node = NodeId([1; 32]);
        assert!(gossip.report(&origins, first, 9, [(SECTION, Plane::Values, at(first, 30))], []));
        told.reports.insert(node, (first, 9));
        assert!(gossip.report(&origins, second, 1, [(SECTION, Plane::Values, at(first, 20))], []));
        // A disk that came back from an image: what it has lost is not counted on any more.
        assert_eq!(
            gossip.reported(&node).unwrap().frontiers(&origins, SECTION, Frontiers::default).0.as_ref(),
            &frontiers(&[at(first, 20)])
        );
        assert!(gossip.reported_in_run(&origins, origins.get(second)).is_some());
        assert!(gossip.reported_in_run(&origins, origins.get(first)).is_none());
        // What the first run still says comes too late, whatever its version.
        assert!(!gossip.report(&origins, first, 10, [(SECTION, Plane::Values, at(first, 31))], []));
        assert_eq!(
            gossip.reported(&node).unwrap().frontiers(&origins, SECTION, Frontiers::default).0.as_ref(),
            &frontiers(&[at(first, 20)])
        );
        // A link that was told of the first run is told all of the second.
        assert_eq!(gossip.untold_report(PEER, &mut told).map(|(_, report, version)| (report.version, version)), Some((1, 0)));
        // The same of a node's own.
        assert!(gossip.report_own(&origins, node, second, &[(SECTION, frontiers(&[at(second, 1)]))], 2));
        let third = run(&mut origins, 1, 3);
        assert!(gossip.report_own(&origins, node, third, &[(SECTION, frontiers(&[at(third, 1)]))], 2));
        assert_eq!(gossip.reported(&node).map(|report| (report.origin, report.version)), Some((third, 1)));
    }

    #[test]
    fn a_link_that_gets_reports_elsewhere_is_left_alone_for_a_while() {
        let (mut origins, mut gossip, mut told) = (Origins::default(), Gossip::default(), Told::default());
        let a = run(&mut origins, 1, 1);
        let node = NodeId([1; 32]);
        let untold = |gossip: &Gossip, told: &mut Told| gossip.untold_report(PEER, told).map(|(node, ..)| node);
        assert!(gossip.report(&origins, a, 1, [(SECTION, Plane::Values, at(a, 1))], []));
        told.relay(NOW, node, false);
        assert_eq!(untold(&gossip, &mut told), None);
        told.relay(NOW, node, true);
        assert_eq!(untold(&gossip, &mut told), Some(node), "it is wanted again");
        told.relay(NOW, node, false);
        assert_eq!(untold(&gossip, &mut told), None);
        assert!(!told.end_pauses(NOW) && untold(&gossip, &mut told).is_none());
        assert!(told.end_pauses(NOW.after(RELAY_PAUSE)));
        assert_eq!(untold(&gossip, &mut told), Some(node), "nothing was heard for so long");
        // Nobody is told its own.
        assert!(gossip.untold_report(node, &mut Told::default()).is_none());
    }

    #[test]
    fn who_is_no_member_any_more_is_forgotten() {
        let (mut origins, mut gossip) = (Origins::default(), Gossip::default());
        let (a, b) = (run(&mut origins, 1, 1), run(&mut origins, 2, 1));
        for origin in [a, b] {
            gossip.pulse(&origins, Pulse { origin, count: 1 });
            gossip.report(&origins, origin, 1, [(SECTION, Plane::Values, at(a, 1))], []);
        }
        gossip.release_pulses();
        gossip.forget(&NodeId([1; 32]));
        assert_eq!((gossip.incarnation(&NodeId([1; 32])), gossip.incarnation(&NodeId([2; 32]))), (None, Some(b)));
        assert!(gossip.reported(&NodeId([1; 32])).is_none() && gossip.reported(&NodeId([2; 32])).is_some());
        assert_eq!(gossip.untold_pulses(&mut Told::default()), [Pulse { origin: b, count: 1 }]);
    }
}
