//! All links of a node: the one door between its replica and its neighbours.
//!
//! ```text
//!   handle_link_up / handle_link_down ──▶┌──────┐
//!   handle_frame (lane, bytes) ─────────▶│ Mesh │──▶ poll_transmit (lane, bytes), when the link can take it
//!   handle_timeout ─────────────────────▶└──┬───┘──▶ poll_timeout
//!                                           ▼
//!                                        Replica
//! ```

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use mangrove_crdt::{
    frontier::OriginIx,
    id::{NodeId, Origin, Plane, SectionId},
    replica::Replica,
    section::Frontiers,
    time::Instant,
};

use crate::{
    blobs::Fetching,
    codec::Malformed,
    flood::Flood,
    gossip::{Gossip, Pulse},
    lag::History,
    link::{Intent, Link, LinkId, LinkOptions},
    message::Letter,
};

/// How often things happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Between two heartbeats, in a mesh of up to ten; longer in proportion beyond.
    pub pulse: Duration,
    /// Between two reports of this node's durable frontiers, if they moved, and between passing on heartbeats twice; longer in larger meshes, like the pulse.
    pub report: Duration,
    /// Between two comparisons of a section's state with a neighbour.
    pub check: Duration,
    /// How long a neighbour may be known to have more of a feed, with nothing coming, before the feed is grafted.
    pub graft_after: Duration,
    /// How much one frame holds.
    pub limits: Limits,
}

/// How much one frame holds. Small ones make long runs out of little data, which is what tests want.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// About how many bytes of records a batch holds.
    pub batch_bytes: usize,
    /// At most how many records a batch holds.
    pub batch_records: usize,
    /// About how many bytes of buckets a frame of an adoption holds, before compression.
    pub bulk_bytes: usize,
    /// How many of each node's runs, the newest, are told by number; older ones are retired. What is over moves no more, but the last run before the
    /// present one may be known here and not yet there.
    pub runs_told: usize,
    /// How many bytes of values are kept at each end of a lane, for deltas to build on.
    pub bases_bytes: usize,
    /// Whether values may come compressed.
    pub compressed: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            batch_bytes: 64 * 1024,
            batch_records: 4096,
            bulk_bytes: 256 * 1024,
            runs_told: 2,
            bases_bytes: 4 * 1024 * 1024,
            compressed: true,
        }
    }
}

impl Pace {
    /// The same in a mesh of so many: heartbeats and reports come to everybody, so the more there are, the more seldom each sends its own.
    pub fn among(&self, members: usize) -> Pace {
        let crowd = (members as u32 / 10).max(1);
        Pace { pulse: self.pulse * crowd, report: self.report * crowd, ..*self }
    }
}

impl Default for Pace {
    fn default() -> Self {
        Pace {
            pulse: Duration::from_secs(1),
            report: Duration::from_millis(250),
            check: Duration::from_secs(5),
            graft_after: Duration::from_millis(1500),
            limits: Limits::default(),
        }
    }
}

/// A frame to be sent on a lane of a link. Lanes do not block each other; within one, frames arrive in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The lane.
    pub lane: u32,
    /// How urgent its lane is; greater goes first.
    pub priority: i32,
    /// The content.
    pub bytes: Bytes,
}

/// A deadline of the mesh.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Timer {
    /// When to send this node's next heartbeat.
    Pulse,
    /// When to see whether durable frontiers have moved, and to report them; and to pass on heartbeats that have come.
    Report,
    /// When to compare state with neighbours.
    Check,
    /// When to look for feeds that a neighbour has more of, and for blobs.
    Lag,
    /// When a link's rate allows another frame.
    Rate,
    /// When a metered link may carry heartbeats again.
    MeteredPulse,
    /// When a metered link may carry values again that wait for it.
    MeteredValues,
}

/// A neighbour broke the protocol. Its link is to be closed, with this as the reason; what it had brought before stands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Bytes that cannot be read.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// Another message came before the hello.
    #[error("a message came before the hello")]
    NoHello,
    /// No common wire version.
    #[error("the peer speaks wire versions {} to {}, this node {} to {}", theirs.0, theirs.1, crate::message::WIRE_MIN, crate::message::WIRE)]
    Version {
        /// The oldest and newest version that the peer speaks.
        theirs: (u32, u32),
    },
    /// The hello names another node than the one that TLS has proved.
    #[error("the hello names node {said}, which is not the one that is connected")]
    OtherNode {
        /// What it names.
        said: NodeId,
    },
    /// More lanes than there can be use for.
    #[error("too many lanes")]
    TooManyLanes,
    /// Too much content came before what it builds on.
    #[error("too much content came before the hello or the announcement of its section")]
    TooEarly,
    /// A tree change or document that is not valid.
    #[error("{0}")]
    Tree(String),
}

/// What came of a frame, besides what the replica tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A bucket was found to differ from the neighbour's although each covers what the other holds. It is being repaired.
    Mismatch {
        /// The section.
        section: SectionId,
        /// The bucket.
        bucket: u16,
        /// The neighbour.
        peer: NodeId,
    },
    /// A section was adopted from a neighbour.
    Adopted {
        /// The section.
        section: SectionId,
        /// The neighbour.
        peer: NodeId,
    },
    /// A letter came for this node.
    Letter {
        /// Who wrote it.
        from: NodeId,
        /// What.
        body: Vec<u8>,
    },
}

/// See the module.
#[derive(Debug)]
pub struct Mesh {
    pub(crate) pace: Pace,
    pub(crate) links: BTreeMap<LinkId, Link>,
    pub(crate) gossip: Gossip,
    pub(crate) flood: Flood,
    pub(crate) blobs: Fetching,
    pulses_sent: u64,
    pulse_due: Instant,
    report_due: Instant,
    /// What was reported last: the run, and how often its durable frontiers had changed.
    reported: Option<(OriginIx, u64)>,
    /// How often sections had been taken up or given up, and members added, when reports were recalled last.
    recalled: (u64, u64),
    check_due: Instant,
    lag_due: Instant,
    pub(crate) adopting: BTreeMap<SectionId, Adoption>,
    /// What each section has held since when.
    histories: BTreeMap<SectionId, History>,
    mismatches: u64,
    /// This node's run as the mesh is told of it, where that differs from the replica's.
    run: Option<Origin>,
}

/// From whom a section is being adopted, and since when nothing more has come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Adoption {
    pub from: LinkId,
    done: Option<u16>,
    since: Instant,
}

/// How many nodes may pass a letter on. Heartbeats' ways have no loops but while they change.
const LETTER_HOPS_MAX: u8 = 64;

/// How long nothing may come of an adoption before another neighbour is asked.
const ADOPTION_PATIENCE: Duration = Duration::from_secs(30);

impl Mesh {
    /// A mesh without links, whose timers begin now.
    pub fn new(now: Instant, pace: Pace) -> Self {
        Mesh {
            pace,
            links: BTreeMap::new(),
            gossip: Gossip::default(),
            flood: Flood::default(),
            blobs: Fetching::default(),
            pulses_sent: 0,
            pulse_due: now,
            report_due: now.after(pace.report),
            reported: None,
            recalled: (0, 0),
            check_due: now.after(pace.check),
            lag_due: now.after(pace.graft_after / 2),
            adopting: BTreeMap::new(),
            histories: BTreeMap::new(),
            mismatches: 0,
            run: None,
        }
    }

    /// All links.
    pub fn links(&self) -> impl Iterator<Item = (LinkId, &Link)> {
        self.links.iter().map(|(id, link)| (*id, link))
    }

    /// One link.
    pub fn link(&self, id: LinkId) -> Option<&Link> {
        self.links.get(&id)
    }

    /// One link, to change how it is used.
    pub fn link_mut(&mut self, id: LinkId) -> Option<&mut Link> {
        self.links.get_mut(&id)
    }

    /// How many buckets were found to differ although both sides covered them. Anything but zero is a fault of a disk or a program,
    /// or the remains of a run cut short whose sender is gone.
    pub fn mismatches(&self) -> u64 {
        self.mismatches
    }

    /// The run that a member's newest heartbeat is of.
    pub fn incarnation(&self, node: &NodeId) -> Option<OriginIx> {
        self.gossip.incarnation(node)
    }

    /// For how long the neighbour at a link has lacked something that this node holds, in a section that both hold: zero if it is known to have
    /// everything, `None` while it has said of no section that it holds it. What is known of it are the frontiers that it told, what it
    /// sent, and what was sent to it; what it got from others counts from its next report. Counted from this node's start, or from when it took
    /// the section, at most; good to about a quarter.
    pub fn lag(&self, now: Instant, replica: &Replica, id: LinkId) -> Option<Duration> {
        let link = self.links.get(&id).filter(|link| !link.shared.is_empty())?;
        let lag_of = |section: &SectionId| {
            let (history, peer) = (self.histories.get(section)?, link.peer_frontiers(*section)?);
            // One microsecond at least, so that lacking something never looks like lacking nothing.
            Some(history.lag(now, replica.section(*section)?, peer)?.max(Duration::from_micros(1)))
        };
        Some(link.shared.keys().filter_map(lag_of).max().unwrap_or_default())
    }

    /// How far a section was brought by an adoption in progress, of all buckets.
    pub fn adopting(&self, section: SectionId) -> Option<u16> {
        self.links.get(&self.adopting.get(&section)?.from)?.adopting(section)
    }

    /// A link to a neighbour came up. TLS has proved who it is.
    pub fn handle_link_up(&mut self, now: Instant, id: LinkId, peer: NodeId, options: LinkOptions) {
        self.links.insert(id, Link::new(now, peer, options, self.pace.limits));
    }

    /// A link went down. What was in flight on it is lost, and comes again over another.
    pub fn handle_link_down(&mut self, replica: &mut Replica, id: LinkId) {
        let Some(mut link) = self.links.remove(&id) else { return };
        self.blobs.link_down(id);
        self.graft_lost(replica, &link);
        for section in link.shared.keys().copied().collect::<Vec<_>>() {
            link.drop_shared(replica, section);
        }
        self.settle_adoptions(replica);
        let lost = self.gossip.way_lost(link.peer);
        self.links.values_mut().for_each(|link| link.want_reports(&lost));
    }

    /// Adoptions whose link is gone, or does not share the section any more, are asked of others.
    fn settle_adoptions(&mut self, replica: &Replica) {
        let lives = |section: &SectionId, adoption: &Adoption| self.links.get(&adoption.from).is_some_and(|link| link.adopts(*section));
        let ended: Vec<SectionId> =
            self.adopting.iter().filter(|(section, adoption)| !lives(section, adoption)).map(|(section, _)| *section).collect();
        for section in ended {
            self.adopting.remove(&section);
            self.adopt_from_any(replica, section, None);
        }
    }

    /// Adoptions of which nothing has come for long are asked of others, if there are any.
    fn hurry_adoptions(&mut self, now: Instant, replica: &Replica) {
        let mut stuck = Vec::new();
        for (section, adoption) in &mut self.adopting {
            let done = self.links.get(&adoption.from).and_then(|link| link.adopting(*section));
            if done != adoption.done || adoption.since == Instant::default() {
                (adoption.done, adoption.since) = (done, now);
            } else if now.since(adoption.since) >= ADOPTION_PATIENCE {
                stuck.push((*section, adoption.from));
            }
        }
        for (section, from) in stuck {
            let others = self.links.iter().any(|(id, link)| *id != from && link.must_adopt(replica, section));
            if others {
                self.links.get_mut(&from).into_iter().for_each(|link| link.give_up_adoption(section));
                self.adopting.remove(&section);
                self.adopt_from_any(replica, section, Some(from));
            }
        }
    }

    /// A frame arrived on a lane of a link.
    pub fn handle_frame(
        &mut self,
        now: Instant,
        id: LinkId,
        lane: u32,
        frame: &[u8],
        replica: &mut Replica,
    ) -> Result<Option<Notice>, Violation> {
        let Some(link) = self.links.get_mut(&id) else { return Ok(None) };
        let peer = link.peer;
        let mut effects = link.handle_frame(now, replica, &mut self.gossip, lane, frame)?;
        self.take_messages(now, replica, id, std::mem::take(&mut effects.messages));
        if let Some(piece) = effects.blob.take() {
            self.take_piece(now, replica, id, piece);
        }
        self.want_blobs(now, replica);
        if let Some(section) = effects.adopt {
            self.adopt(replica, section, id);
        }
        self.settle_adoptions(replica);
        if let Some(section) = effects.adopted {
            self.adopt_from_any(replica, section, None);
        }
        if let Some(section) = effects.tree_moved {
            for link in self.links.values_mut() {
                link.tree_moved(replica, section);
            }
        }
        if let Some((section, bucket)) = effects.mismatch {
            self.mismatches += 1;
            return Ok(Some(Notice::Mismatch { section, bucket, peer }));
        }
        if let Some(section) = effects.adopted {
            return Ok(Some(Notice::Adopted { section, peer }));
        }
        Ok(effects.letter.and_then(|letter| self.deliver(replica.own().node, letter)))
    }

    /// Sends a letter towards another node, over any chain of links. It may be lost.
    pub fn send_letter(&mut self, from: NodeId, to: NodeId, body: Vec<u8>) {
        self.pass_on(Letter { from, to, hops: LETTER_HOPS_MAX, body });
    }

    fn deliver(&mut self, own: NodeId, letter: Letter) -> Option<Notice> {
        if letter.to == own {
            return Some(Notice::Letter { from: letter.from, body: letter.body });
        }
        if let Some(hops) = letter.hops.checked_sub(1) {
            self.pass_on(Letter { hops, ..letter });
        }
        None
    }

    fn pass_on(&mut self, letter: Letter) {
        let over = |peer: NodeId| move |link: &&mut Link| link.peer == peer;
        if let Some(link) = self.links.values_mut().find(over(letter.to)) {
            link.post(letter);
        } else if let Some(link) = self.gossip.way_to(&letter.to).and_then(|way| self.links.values_mut().find(over(way))) {
            link.post(letter);
        }
    }

    /// Whether this node's disk was found to be older than what others have heard of it: a backup that was put back, or a copy that lives elsewhere.
    pub fn was_set_back(&self, replica: &Replica) -> bool {
        self.run.is_some_and(|run| run != replica.own())
    }

    /// The next frame for a link, on a lane that is not `blocked`. To be called when the link can take one, until there is none.
    pub fn poll_transmit(&mut self, now: Instant, id: LinkId, replica: &mut Replica, blocked: &dyn Fn(u32) -> bool) -> Option<Frame> {
        self.links.get_mut(&id)?.poll_transmit(now, replica, &self.gossip, blocked)
    }

    /// The next deadline. [`Mesh::handle_timeout`] is due then; and polling for frames.
    pub fn poll_timeout(&self) -> Option<(Instant, Timer)> {
        let own =
            [(self.pulse_due, Timer::Pulse), (self.report_due, Timer::Report), (self.check_due, Timer::Check), (self.lag_due, Timer::Lag)];
        let bounded = self.links.values().filter(|link| link.is_bounded());
        let of_links = bounded.flat_map(|link| {
            let pulses = (link.is_metered() && link.pulses_due > self.pulse_due).then_some((link.pulses_due, Timer::MeteredPulse));
            let (rate, values) = (link.send_due().map(|due| (due, Timer::Rate)), link.values_due().map(|due| (due, Timer::MeteredValues)));
            [rate, pulses, values].into_iter().flatten()
        });
        own.into_iter().chain(of_links).min()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant, replica: &mut Replica) {
        let pace = self.pace.among(replica.members.count());
        let beats = now >= self.pulse_due;
        if beats {
            self.pulse_due = now.after(pace.pulse);
            self.pulses_sent += 1;
            let origin = self.own_run(replica);
            self.gossip.pulse(replica.origins(), Pulse { origin, count: self.pulses_sent });
        }
        if beats || now >= self.report_due {
            // At moments of this node's own, not when they come: neighbours differ in these, so that one tells the other first.
            self.gossip.release_pulses();
        }
        if now >= self.report_due {
            self.report_due = now.after(pace.report);
            let origin = self.own_run(replica);
            let durable = Some((origin, replica.durable_changes()));
            if std::mem::replace(&mut self.reported, durable) != durable {
                let durable: Vec<(SectionId, Frontiers)> =
                    replica.held().filter_map(|id| Some((id, replica.section(id)?.durable().clone()))).collect();
                self.gossip.report_own(replica.origins(), replica.own().node, origin, &durable, self.pace.limits.runs_told);
            }
            self.recall_reports(replica);
            self.look(now, replica);
        }
        if now >= self.check_due {
            self.check_due = now.after(self.pace.check);
            for link in self.links.values_mut() {
                link.end_pauses(now);
                // One end asks, so that a comparison goes round once; the other does if it cannot make out what the peer has.
                for section in link.shared.keys().copied().collect::<Vec<_>>() {
                    if replica.own().node < link.peer || self.gossip.is_unclear(link.peer, section) {
                        link.intend(Intent::Check(section));
                    }
                }
            }
        }
        self.links.values_mut().for_each(|link| link.release_values(now));
        if now >= self.lag_due {
            self.lag_due = now.after(self.pace.graft_after / 2);
            self.graft_lagging(now, replica);
            self.hurry_adoptions(now, replica);
            self.messages_due(now, replica);
            self.seek_blobs(now, replica);
        }
    }

    /// Notes what each section holds now.
    fn look(&mut self, now: Instant, replica: &Replica) {
        self.histories.retain(|id, history| replica.holding(*id) == Some(history.holding));
        for id in replica.held() {
            let (Some(section), Some(holding)) = (replica.section(id), replica.holding(id)) else { continue };
            self.histories.entry(id).or_insert_with(|| History::new(now, holding)).look(now, section);
        }
    }

    /// This node's run as the mesh is told of it. Runs are ordered by their boot counter, which a restored backup repeats: then later runs
    /// are remembered out there, and nobody would listen to this one unless it counts beyond them.
    fn own_run(&mut self, replica: &mut Replica) -> OriginIx {
        let mut run = self.run.unwrap_or(replica.own());
        if let Some(boot) = self.gossip.other_run(replica.origins(), run) {
            run.incarnation.boot = run.incarnation.boot.max(boot.saturating_add(1));
            self.run = Some(run);
        }
        replica.intern(run)
    }

    /// Reports that came before their member was known as one, or before the section was held, count from now on.
    fn recall_reports(&mut self, replica: &mut Replica) {
        self.gossip.count_unclear(replica);
        let known = (replica.turnover(), replica.members.joined());
        if std::mem::replace(&mut self.recalled, known) == known {
            return;
        }
        let held: Vec<SectionId> = replica.held().collect();
        let mut missing = Vec::new();
        for (node, _) in replica.members.iter() {
            let Some(report) = self.gossip.reported(node) else { continue };
            let uncounted = held.iter().filter(|section| replica.members.reported(node, **section).is_none() && report.tells_of(**section));
            missing.extend(uncounted.map(|section| (*node, *section)));
        }
        for (node, section) in missing {
            self.gossip.count_report(replica, node, section);
        }
    }

    /// A member has left or was revoked.
    pub fn forget_member(&mut self, node: &NodeId) {
        self.gossip.forget(node);
    }

    /// A section is held from now on: exchange it with every neighbour that holds it.
    pub fn held(&mut self, replica: &Replica, section: SectionId) {
        let from: Vec<LinkId> = self.links.iter_mut().filter_map(|(id, link)| link.share(replica, section).map(|_| *id)).collect();
        if let Some(id) = from.first() {
            self.adopt(replica, section, *id);
        }
    }

    fn adopt(&mut self, replica: &Replica, section: SectionId, id: LinkId) {
        let adoption = self.adopting.entry(section).or_insert(Adoption { from: id, done: None, since: Instant::default() });
        if adoption.from != id || self.links.get(&id).is_some_and(|link| link.adopts(section)) {
            return;
        }
        let feeds: Vec<(Plane, OriginIx)> = self
            .links
            .get(&id)
            .and_then(|link| link.peer_holds.get(&section))
            .map(|(frontiers, _)| Plane::ALL.iter().flat_map(|plane| frontiers[*plane].iter().map(|dot| (*plane, dot.origin))).collect())
            .unwrap_or_default();
        // The others need not push what this one brings as a whole.
        let fresh = replica.section(section).is_some_and(|section| section.frontiers().is_zero());
        for (other, link) in &mut self.links {
            if *other == id {
                link.intend(Intent::AdoptRequest(section));
            } else if let Some(shared) = link.shared.get_mut(&section).filter(|_| fresh) {
                let new: Vec<_> = feeds.iter().filter(|feed| shared.pruned.insert(**feed)).copied().collect();
                for (plane, origin) in new {
                    link.intend(Intent::Prune(section, plane, origin));
                }
            }
        }
    }

    fn adopt_from_any(&mut self, replica: &Replica, section: SectionId, except: Option<LinkId>) {
        let others = self.links.iter().filter(|(id, _)| Some(**id) != except);
        let from = others.into_iter().find(|(_, link)| link.shared.contains_key(&section) && link.must_adopt(replica, section));
        if let Some(id) = from.map(|(id, _)| *id) {
            self.adopt(replica, section, id);
        }
    }
}

#[cfg(test)]
mod tests {
    use mangrove_crdt::{
        frontier::DotIx,
        id::{Incarnation, NodeId, Plane},
    };

    use super::*;

    #[test]
    fn heartbeats_that_came_go_on_together_with_the_next_of_ones_own_or_report() {
        let run = |node: u8| Origin { node: NodeId([node; 32]), incarnation: Incarnation { boot: 1, nonce: u64::from(node) } };
        for (pulse_ms, report_ms) in [(1_000, 250), (250, 1_000)] {
            let pace = Pace { pulse: Duration::from_millis(pulse_ms), report: Duration::from_millis(report_ms), ..Pace::default() };
            let (mut replica, mut mesh) = (Replica::new(run(1)), Mesh::new(Instant(0), pace));
            mesh.handle_timeout(Instant(0), &mut replica);
            assert_eq!(mesh.gossip.news().0, 1, "its own goes at once");
            for node in [2, 3] {
                let origin = replica.intern(run(node));
                assert!(mesh.gossip.pulse(replica.origins(), Pulse { origin, count: 1 }));
            }
            mesh.handle_timeout(Instant(249_999), &mut replica);
            assert_eq!(mesh.gossip.news().0, 1);
            mesh.handle_timeout(Instant(250_000), &mut replica);
            assert_eq!(mesh.gossip.news().0, 3 + u64::from(pulse_ms == 250));
        }
    }

    #[test]
    fn letters_go_where_heartbeats_come_from_and_never_pile_up() {
        let (own, near, far) = (NodeId([1; 32]), NodeId([2; 32]), NodeId([9; 32]));
        let mut mesh = Mesh::new(Instant(0), Pace::default());
        for (link, peer) in [(1, near), (2, NodeId([3; 32]))] {
            mesh.handle_link_up(Instant(0), LinkId(link), peer, LinkOptions::default());
        }
        let waiting = |mesh: &Mesh| mesh.links.values().map(|link| link.letters.len()).collect::<Vec<_>>();
        mesh.send_letter(own, far, vec![1]);
        assert_eq!(waiting(&mesh), [0, 0], "nobody knows where it is");
        mesh.gossip.heard_by(far, near);
        mesh.send_letter(own, far, vec![1]);
        mesh.send_letter(own, NodeId([3; 32]), vec![2]);
        assert_eq!(waiting(&mesh), [1, 1]);
        let letter = |to, hops| Letter { from: far, to, hops, body: vec![3] };
        assert_eq!(mesh.deliver(own, letter(own, 0)), Some(Notice::Letter { from: far, body: vec![3] }));
        assert_eq!(mesh.deliver(own, letter(near, 0)), None);
        assert_eq!(waiting(&mesh), [1, 1], "it has gone far enough");
        assert_eq!(mesh.deliver(own, letter(near, 1)), None);
        assert_eq!(waiting(&mesh), [2, 1]);
        // A link that takes nothing keeps the newest.
        for number in 0..100 {
            mesh.send_letter(own, near, vec![number; 100_000]);
        }
        let link = &mesh.links[&LinkId(1)];
        assert!(link.letters.len() <= 10 && link.letter_bytes <= 1024 * 1024, "{} letters", link.letters.len());
        assert_eq!(link.letters.back().map(|letter| letter.body[0]), Some(99));
        mesh.gossip.way_lost(near);
        assert_eq!(mesh.gossip.way_to(&far), None);
    }

    #[test]
    fn a_report_that_came_before_its_member_was_known_counts_once_it_is() {
        let run = |node: u8| Origin { node: NodeId([node; 32]), incarnation: Incarnation { boot: 1, nonce: u64::from(node) } };
        let (own, other) = (run(1), run(2));
        let mut replica = Replica::new(own);
        let mut mesh = Mesh::new(Instant(0), Pace::default());
        mesh.handle_timeout(Instant(10_000_000), &mut replica);
        let member = replica.intern(other);
        let dot = DotIx { origin: member, number: 7 };
        mesh.gossip.report(replica.origins(), member, 1, [(SectionId::MESH, Plane::Standing, dot)], []);
        mesh.gossip.count_report(&mut replica, other.node, SectionId::MESH);
        assert!(replica.members.reported(&other.node, SectionId::MESH).is_none(), "it is no member yet");
        replica.members.add(other.node);
        mesh.handle_timeout(Instant(20_000_000), &mut replica);
        assert!(replica.members.reported(&other.node, SectionId::MESH).is_some_and(|durable| durable[Plane::Standing].covers(dot)));
    }
}
