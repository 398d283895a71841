//! What every node must hear of every other, over any chain of links: heartbeats, and reports of durable frontiers.
//!
//! Both are *newest wins* and have no feed. Each node keeps the newest of each member and, for each link, what that link was told; a
//! link that can take a frame gets what it was not told yet. So a slow link skips what is outdated, nothing queues, and whoever can
//! reach a node by any chain of links knows that it lives.

use std::collections::BTreeMap;

use mangrove_crdt::{
    frontier::{DotIx, OriginIx, Origins},
    id::{NodeId, Origin, Plane, SectionId},
    section::Frontiers,
};

/// The newest heartbeat of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pulse {
    /// The member's run.
    pub origin: OriginIx,
    /// How many it has sent in this run.
    pub count: u64,
}

/// The newest report of a member: its durable frontiers, each entry with the version in which it last moved.
#[derive(Clone, Debug)]
pub struct ReportState {
    /// The member's run.
    pub origin: OriginIx,
    /// How often it has reported in this run.
    pub version: u64,
    entries: BTreeMap<(SectionId, Plane, OriginIx), (u64, u64)>,
}

impl ReportState {
    /// The entries that moved after a version.
    pub fn moved_after(&self, version: u64) -> impl Iterator<Item = (SectionId, Plane, DotIx)> + '_ {
        self.entries
            .iter()
            .filter(move |(_, (_, moved))| *moved > version)
            .map(|(&(section, plane, origin), &(number, _))| (section, plane, DotIx { origin, number }))
    }

    /// The frontiers reported in a section.
    pub fn frontiers(&self, section: SectionId) -> Frontiers {
        let mut frontiers = Frontiers::default();
        let range = (section, Plane::Standing, OriginIx(0))..=(section, Plane::Values, OriginIx(u32::MAX));
        for (&(_, plane, origin), &(number, _)) in self.entries.range(range) {
            frontiers[plane].raise(origin, number);
        }
        frontiers
    }
}

/// What one link was told.
#[derive(Debug, Default)]
pub struct Told {
    /// The newest heartbeat of each member.
    pub pulses: BTreeMap<NodeId, Pulse>,
    /// The run and version of each member's report.
    pub reports: BTreeMap<NodeId, (OriginIx, u64)>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Gossip {
    pulses: BTreeMap<NodeId, Pulse>,
    reports: BTreeMap<NodeId, ReportState>,
}

impl Gossip {
    /// A heartbeat came, or is sent. Says whether it is news.
    pub fn pulse(&mut self, origins: &Origins, pulse: Pulse) -> bool {
        let origin = origins.get(pulse.origin);
        let known = self.pulses.get(&origin.node);
        let newer = known.is_none_or(|known| (origins.get(known.origin).incarnation, known.count) < (origin.incarnation, pulse.count));
        if newer {
            self.pulses.insert(origin.node, pulse);
        }
        newer
    }

    /// The run that a member's newest heartbeat is of.
    pub fn incarnation(&self, node: &NodeId) -> Option<OriginIx> {
        self.pulses.get(node).map(|pulse| pulse.origin)
    }

    /// Heartbeats that a link was not told yet; from now on they count as told.
    pub fn untold_pulses(&self, told: &mut Told) -> Vec<Pulse> {
        let untold = self.pulses.iter().filter(|(node, pulse)| told.pulses.get(node) != Some(pulse));
        let untold: Vec<(NodeId, Pulse)> = untold.map(|(node, pulse)| (*node, *pulse)).collect();
        told.pulses.extend(untold.iter().copied());
        untold.into_iter().map(|(_, pulse)| pulse).collect()
    }

    /// Whether a link was told all heartbeats.
    pub fn pulses_told(&self, told: &Told) -> bool {
        self.pulses.iter().all(|(node, pulse)| told.pulses.get(node) == Some(pulse))
    }

    /// The members whose report has moved beyond what a link was told.
    pub fn untold_report(&self, told: &Told) -> Option<(NodeId, &ReportState, u64)> {
        self.reports.iter().find_map(|(node, report)| match told.reports.get(node) {
            Some((origin, version)) if *origin == report.origin => (*version < report.version).then_some((*node, report, *version)),
            _ => Some((*node, report, 0)),
        })
    }

    /// This node's own durable frontiers. Says whether anything moved.
    pub fn report_own(&mut self, node: NodeId, origin: OriginIx, durable: &[(SectionId, Frontiers)]) -> bool {
        let report = self.reports.entry(node).or_insert_with(|| ReportState { origin, version: 0, entries: BTreeMap::new() });
        if report.origin != origin {
            *report = ReportState { origin, version: 0, entries: BTreeMap::new() };
        }
        let version = report.version + 1;
        let mut moved = false;
        for (section, frontiers) in durable {
            for plane in Plane::ALL {
                for dot in frontiers[plane].iter() {
                    let entry = report.entries.entry((*section, plane, dot.origin)).or_insert((0, 0));
                    if entry.0 != dot.number {
                        *entry = (dot.number, version);
                        moved = true;
                    }
                }
            }
        }
        // What is no longer held, or was given up and is being held anew, must not be counted on: it is told as nothing.
        for ((section, plane, origin), entry) in &mut report.entries {
            let held = durable.iter().find(|(held, _)| held == section);
            if entry.0 > 0 && held.is_none_or(|(_, frontiers)| frontiers[*plane].get(*origin) == 0) {
                *entry = (0, version);
                moved = true;
            }
        }
        if moved || report.version == 0 {
            report.version = version;
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
    ) -> bool {
        let origin = origins.get(member);
        let report =
            self.reports.entry(origin.node).or_insert_with(|| ReportState { origin: member, version: 0, entries: BTreeMap::new() });
        if origins.get(report.origin).incarnation < origin.incarnation {
            *report = ReportState { origin: member, version: 0, entries: BTreeMap::new() };
        }
        if report.origin != member || report.version >= version {
            return false;
        }
        for (section, plane, dot) in moved {
            report.entries.insert((section, plane, dot.origin), (dot.number, version));
        }
        report.version = version;
        true
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
        self.pulses.remove(node);
        self.reports.remove(node);
    }
}
