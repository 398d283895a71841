//! Checks of the whole: samples while a run goes on, the wait for equality after the faults, and what must be so at the end.

use mangrove::protocol::Request;
use mangrove_crdt::{blob::BlobHash, id::SectionId, replica::Replica};

use super::{Buckets, Phase, QUIET_AFTER, QUIET_FOR, World};
use crate::{
    checks::{
        Invariant, Violation, blobs, bounds, convergence, durability, exclusivity, liveness, resurrection, robustness, sessions, tree,
    },
    host::Host,
    log,
    scenario::{SECOND, Time},
    values::{Kind, VARIANTS},
};

/// After how long without faults it is seen whether blobs are lost.
const BLOBS_MISSED_AFTER: Time = 10 * SECOND;

/// How many pairs of nodes are compared at a sample.
const PAIRS: usize = 12;

impl World<'_> {
    pub(super) fn sample_bounds(&mut self) {
        self.count_logged();
        for host in 0..self.hosts.len() {
            let machine = &self.hosts[host];
            if let Some(process) = &machine.process {
                let result = bounds::node(&machine.name, &process.node, process.writer.batches())
                    .and_then(|()| sessions::own(&machine.name, &process.node))
                    .and_then(|()| resurrection::all_standing(&self.oracle, &machine.name, process.node.replica()));
                self.check(result);
            }
        }
        let waits =
            |host: &Host| host.process.as_ref().is_some_and(|process| process.node.replica().blobs().missing_after(None).next().is_some());
        if self.has_blobs() && self.hosts.iter().any(waits) {
            self.reach("blob.awaited");
        }
        if !self.faults.awaits_state() {
            (0..self.hosts.len()).for_each(|host| _ = self.has_forgotten(host));
        }
        let result = bounds::stalled(self.network.stalled_bytes_max());
        self.check(result);
        // Everything is looked at in turn, one node a second, beside what has changed at every step.
        let members = self.members();
        if let Some(host) = members.get((self.now / SECOND) as usize % members.len().max(1)) {
            self.look_at_all(*host);
        }
    }

    /// Errors fail the run; other messages show which states were reached.
    pub(super) fn count_logged(&mut self) {
        let logged = log::take();
        let result = robustness::logged(&logged.errors, !self.revoked.is_empty());
        self.check(result);
        for (message, count) in logged.counts {
            let state = match message.as_str() {
                "took over a section's state" => "section.adopted",
                message if message.starts_with("a bucket differs") => "bucket.repaired",
                message if message.starts_with("a write lost to a concurrent one") => "displaced",
                _ => continue,
            };
            *self.reached.entry(state).or_default() += count;
        }
    }

    /// S2 on some pairs of nodes.
    pub(super) fn sample_pairs(&mut self) {
        let members = self.members();
        let count = members.len();
        if count < 2 {
            return;
        }
        let mut pairs: Vec<(usize, usize)> = Vec::new();
        for (at, a) in members.iter().enumerate() {
            pairs.extend(members[at + 1..].iter().map(|b| (*a, *b)));
            if pairs.len() > 4 * PAIRS {
                break;
            }
        }
        if pairs.len() > PAIRS {
            pairs = (0..PAIRS)
                .map(|_| {
                    let a = self.dice.checks.below(count);
                    let b = (a + 1 + self.dice.checks.below(count - 1)) % count;
                    (members[a], members[b])
                })
                .collect();
        }
        for id in self.sections() {
            let mut seen: Buckets = Vec::new();
            for host in pairs.iter().flat_map(|(a, b)| [*a, *b]) {
                if seen.iter().all(|(known, _)| *known != host) {
                    seen.push((host, self.digests(host, id)));
                }
            }
            for (a, b) in &pairs {
                self.compare(id, *a, *b, &seen);
            }
        }
    }

    fn sections(&self) -> Vec<SectionId> {
        let mut sections: Vec<SectionId> =
            self.hosts.iter().filter_map(|host| host.process.as_ref()).flat_map(|process| process.node.replica().held()).collect();
        sections.sort_unstable();
        sections.dedup();
        sections
    }

    fn digests(&mut self, host: usize, id: SectionId) -> Vec<convergence::BucketDigest> {
        let process = self.hosts[host].process.as_mut();
        process.map(|process| convergence::digests(process.node.replica(), id, &mut process.known)).unwrap_or_default()
    }

    fn compare(&mut self, id: SectionId, a: usize, b: usize, seen: &Buckets) {
        let of = |host: usize| seen.iter().find(|(known, _)| *known == host).map(|(_, buckets)| buckets.as_slice()).unwrap_or_default();
        let (Some(at_a), Some(at_b)) = (&self.hosts[a].process, &self.hosts[b].process) else { return };
        let (ra, rb) = (at_a.node.replica(), at_b.node.replica());
        if ra.section(id).is_none() || rb.section(id).is_none() {
            return;
        }
        let differ = convergence::differences(id, (ra, of(a)), (rb, of(b)));
        // What was half sent when its sender was lost may differ until the two have compared, and repaired it.
        if !differ.is_empty() && (!self.lossy || self.phase == Phase::Over) {
            let violation = convergence::violation(id, (&self.hosts[a].name, ra), (&self.hosts[b].name, rb), &differ);
            self.violated(violation);
        }
    }

    /// Whether clients make topics whose definitions name blobs.
    fn has_blobs(&self) -> bool {
        self.scenario.workload.kinds.iter().any(|kind| kind.names_blob())
    }

    /// The nodes of which it is demanded that they are equal, by name.
    fn replicas(&self) -> Vec<(&str, &Replica)> {
        let of = |host: usize| Some((self.hosts[host].name.as_str(), self.hosts[host].process.as_ref()?.node.replica()));
        self.members().into_iter().filter_map(of).collect()
    }

    /// What still differs among those who live.
    fn difference(&mut self) -> Option<String> {
        if !self.is_founded() {
            return Some("the mesh is not made".into());
        }
        let members = self.members();
        let waits = |host: &&usize| self.hosts[**host].process.as_ref().is_some_and(|process| !process.node.replica().noticed().is_empty());
        if let Some(host) = members.iter().find(waits) {
            return Some(format!("node {} has noticed what lost and is in no log yet", self.hosts[*host].name));
        }
        for id in self.sections() {
            let holds =
                |host: &usize| self.hosts[*host].process.as_ref().is_some_and(|process| process.node.replica().section(id).is_some());
            let wants = |host: &usize| {
                let spec = &self.scenario.nodes[*host];
                let root = self.scenario.sections.iter().map(|section| &section.root);
                id == SectionId::MESH
                    || spec.holds.is_none()
                    || spec.holds.as_ref().is_some_and(|holds| root.into_iter().all(|root| holds.contains(root)))
            };
            if let Some(host) = members.iter().find(|host| wants(host) && !holds(host)) {
                return Some(format!("node {} does not hold {id}", self.hosts[*host].name));
            }
            let holders: Vec<usize> = members.iter().copied().filter(holds).collect();
            let Some((first, others)) = holders.split_first() else { continue };
            let of_first = self.digests(*first, id);
            for other in others {
                let of_other = self.digests(*other, id);
                if of_first != of_other {
                    let (a, b) = (&self.hosts[*first].name, &self.hosts[*other].name);
                    let bucket = of_first.iter().find(|bucket| !of_other.contains(bucket));
                    let bucket = bucket.or(of_other.iter().find(|bucket| !of_first.contains(bucket))).map_or(0, |bucket| bucket.0);
                    let what = |host: usize| {
                        let process = self.hosts[host].process.as_ref();
                        process.map(|process| convergence::describe(process.node.replica(), id, bucket)).unwrap_or_default()
                    };
                    return Some(format!(
                        "nodes {a} and {b} differ in bucket {bucket} of {id}: {a} has {}; {b} has {}",
                        what(*first),
                        what(*other)
                    ));
                }
                if let Some(what) = self.frontier_difference(id, *first, *other) {
                    return Some(what);
                }
            }
        }
        self.has_blobs().then(|| blobs::missing(&self.replicas())).flatten()
    }

    /// The first feed of which one of two nodes covers more than the other.
    fn frontier_difference(&self, id: SectionId, a: usize, b: usize) -> Option<String> {
        let (ra, rb) = (self.hosts[a].process.as_ref()?.node.replica(), self.hosts[b].process.as_ref()?.node.replica());
        for plane in mangrove_crdt::id::Plane::ALL {
            let named = |replica: &mangrove_crdt::replica::Replica| -> std::collections::BTreeMap<_, _> {
                let section = replica.section(id);
                section
                    .into_iter()
                    .flat_map(|section| section.frontier(plane).iter())
                    .map(|dot| (replica.origins().get(dot.origin), dot.number))
                    .collect()
            };
            let (fa, fb) = (named(ra), named(rb));
            if fa != fb {
                let differs = fa
                    .iter()
                    .find(|(origin, number)| fb.get(*origin) != Some(number))
                    .or(fb.iter().find(|(origin, number)| fa.get(*origin) != Some(number)));
                let (a, b) = (&self.hosts[a].name, &self.hosts[b].name);
                return Some(format!("the {plane:?} frontiers of {a} and {b} differ in {id}: {differs:?}"));
            }
        }
        None
    }

    /// What has gone with the only disk that had it, somebody brings again: no node can make it up.
    fn bring_lost_blobs(&mut self) {
        let replicas = self.replicas();
        let nowhere = blobs::nowhere(&replicas);
        if nowhere.is_empty() {
            return;
        }
        let result = blobs::lost(&replicas, &self.oracle, &self.history, &self.losses);
        self.check(result);
        let members = self.members();
        let known = Kind::ALL.into_iter().flat_map(|kind| (0..VARIANTS).filter_map(move |variant| kind.blob(variant)));
        for content in known {
            let (hash, total) = (BlobHash::of(&content), content.len() as u64);
            let Some(at) = nowhere.get(&hash) else { continue };
            self.reach("blob.lost");
            self.operator(members[*at], |_| Request::BlobPut { hash, offset: 0, total, bytes: content });
        }
    }

    fn check_holders(&mut self, result: Result<(), (Violation, String)>) {
        let told = result.map_err(|(violation, branch)| {
            let any = self.members().first().and_then(|host| self.hosts[*host].process.as_ref());
            let claims = any.map(|process| exclusivity::describe(process.node.replica(), &branch)).unwrap_or_default();
            let invariant = match violation.invariant {
                Invariant::L3 if !self.scenario.checks.core.is_empty() => Invariant::L2,
                other => other,
            };
            Violation { what: format!("{}; claims: {claims}", violation.what), invariant, ..violation }
        });
        self.check(told);
    }

    /// Between two faults that are far apart: whoever holds a branch does so alone. Where links come and go by a trace, nodes are apart without a fault.
    pub(super) fn sample_calm(&mut self) {
        if let Some(since) = self.faults.calm_since().filter(|_| self.scenario.contacts.is_none())
            && self.now >= since + self.scenario.checks.dual_holder_bound
        {
            self.reach("faults.calm");
            self.check_holders(self.holders.alone(self.now, since));
        }
    }

    /// After the faults: are all equal, and is it quiet then?
    pub(super) fn sample_settling(&mut self) {
        self.hold_again();
        if self.has_blobs() && self.now >= self.scenario.hostile().1 + BLOBS_MISSED_AFTER {
            self.bring_lost_blobs();
        }
        let difference = self.difference();
        let settled = self.scenario.hostile().1;
        let alone = self.holders.alone(self.now, settled);
        let held = self.holders.held(self.now, settled, self.wanted_branches());
        self.held_at = match (&alone, &held) {
            (Ok(()), Ok(())) if self.wanted_branches().next().is_some() => self.held_at.or(Some(self.now)),
            _ => None,
        };
        let now = self.now;
        let due = |bound: Time| now >= settled + bound;
        if due(self.scenario.checks.dual_holder_bound) {
            self.check_holders(alone.clone());
        }
        if due(self.scenario.checks.lease_within) {
            self.check_holders(held.clone());
        } else if std::mem::replace(&mut self.records_seen, self.oracle.records) != self.oracle.records {
            // Sessions end and branches pass on for a while after the last client has written.
            self.resent_at = self.now;
            self.quiet_from = None;
        }
        if due(self.scenario.checks.resume_within)
            && let Some(what) = self.bereft()
        {
            self.violated(Violation::new(Invariant::L4, what));
        }
        match (&difference, self.equal_at) {
            (None, None) => {
                self.trace.say(self.now, || "all are equal".into());
                self.equal_at = Some(self.now);
            }
            (Some(what), None) if self.now > settled + self.scenario.checks.converge_within => {
                let violation = liveness::violation(!self.scenario.checks.core.is_empty(), self.scenario.checks.converge_within, what);
                self.violated(violation);
            }
            (Some(what), Some(_)) => {
                // Somebody's record changed, as when a section is held again late: equality counts from the next time.
                self.trace.say(self.now, || format!("not equal any more: {what}"));
                (self.equal_at, self.quiet_from) = (None, None);
            }
            _ => {}
        }
        match (self.equal_at, self.quiet_from) {
            (Some(at), None) if self.now >= at.max(self.resent_at) + QUIET_AFTER => {
                self.quiet_from = Some((self.now, self.network.content_sent))
            }
            (Some(_), Some((from, before))) if self.now >= from + QUIET_FOR => {
                let result = bounds::quiet(self.network.content_sent - before, (self.now - from) / SECOND);
                self.check(result);
                let waits = self.has_blobs() && self.replicas().iter().any(|(_, replica)| blobs::unnamed(replica) > 0);
                if alone.is_err() || held.is_err() || waits {
                    // A branch may still pass on, until the bound; and a blob that nothing names is kept for a while.
                    self.quiet_from = None;
                    return;
                }
                // Nothing more can happen: what is left of the settle phase would only repeat itself.
                self.queue.first_at(self.now, crate::queue::Event::End);
            }
            _ => {}
        }
    }

    /// The run is over: what must be so at its end.
    pub(super) fn over(&mut self) {
        if self.found.is_some() {
            return;
        }
        self.phase = Phase::Over;
        if self.equal_at.is_none() {
            let what = self.difference().unwrap_or_else(|| "all became equal too late".into());
            let violation = liveness::violation(!self.scenario.checks.core.is_empty(), self.scenario.run.settle, &what);
            return self.violated(violation);
        }
        let members = self.members();
        for host in members.clone() {
            self.look_at_all(host);
        }
        self.sample_pairs();
        let Some(first) = members.first().copied() else { return };
        let ended = self.ended(first);
        self.check(ended);
        // A disk that has lost something may have lost a topic, or the end of a session.
        if let Some(what) = self.misjudged().filter(|_| !self.lossy) {
            self.violated(Violation::new(Invariant::S13, what));
        }
        if let Some(what) = self.untold() {
            self.violated(Violation::new(Invariant::S11, what));
        }
    }

    fn ended(&mut self, first: usize) -> Result<(), Violation> {
        let machine = &self.hosts[first];
        let Some(process) = &machine.process else { return Ok(()) };
        let (name, replica) = (machine.name.as_str(), process.node.replica());
        self.displaced = replica.displaced_count() as u64;
        self.permitted_losses = durability::ended(&self.oracle, &self.history, &self.losses, name, replica)?;
        let members = self.members();
        let replicas = self.replicas();
        let nodes = members.iter().filter_map(|host| Some((self.hosts[*host].name.as_str(), &self.hosts[*host].process.as_ref()?.node)));
        sessions::apart(nodes)?;
        for (name, replica) in &replicas {
            resurrection::ended(&self.oracle, &self.history, &self.losses, name, replica)?;
            resurrection::all_standing(&self.oracle, name, replica)?;
        }
        for id in replica.held() {
            for (other, of_other) in replicas.iter().skip(1).filter(|(_, replica)| replica.section(id).is_some()) {
                tree::same(id, (name, replica), (other, of_other))?;
            }
        }
        durability::same_logs(&replicas)?;
        if self.has_blobs() {
            blobs::ended(&replicas)?;
        }
        // Where a disk was lost, or a process before its disk had everything, what only that node had noticed may be gone with it. And of what whoever is kept apart for good has
        // written, nobody has seen both sides.
        if !self.lossy && self.scenario.checks.core.is_empty() {
            durability::displaced(&self.oracle, &self.history, &replicas)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        network::EndState,
        scenario::{Mode, Scenario, Shape},
        trace::Trace,
    };

    #[test]
    fn a_link_that_comes_to_life_late_is_no_unrest() {
        let text = "schema = 1\n[run]\nduration = \"15s\"\nsettle = \"60s\"\n[nodes]\ncount = 3\n[nodes.config]\nidle_timeout = \"60s\"\n\
                    [[section]]\nroot = \"s\"\n[network.default]\nlatency = \"10ms\"\n\
                    [workload]\ntopics = { count = 3 }\n[[workload.source]]\nrate = { per_second = 5 }\nmix = { set = 100 }\n";
        let scenario = Scenario::parse("late", text).expect("a good scenario");
        let mut world = World::new(&scenario, 1, Trace::new(None));
        world.begin();
        // One of three links is cut as soon as it stands, so neither end hears the other's first words.
        while !world.network.conns.iter().any(|conn| conn.ends.iter().all(|end| end.state == EndState::Up && end.host > 0)) {
            assert!(world.step());
        }
        let cut = world.part(&Shape::Partial(vec![1], vec![2]), Mode::Drop, &[]);
        while world.now < 16 * SECOND {
            assert!(world.step());
        }
        // It heals, and the others have made all equal. But QUIC waits twice as long for each attempt: the next one is in ten seconds.
        world.undo(cut);
        while world.step() {}
        assert!(world.reached.contains_key("rest.disturbed"), "{:?}", world.reached);
        assert_eq!(world.found, None);
        assert!(world.quiet_from.is_some(), "it was seen that rest is quiet");
    }
}
