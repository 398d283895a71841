//! One link: what this node knows of a neighbour, has promised it, and awaits from it.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use mangrove_crdt::{
    blob::BlobHash,
    delta::Bases,
    frontier::{DotIx, Frontier, OriginIx},
    id::{NodeId, Origin, Plane, SectionId},
    section::{Frontiers, Positions, StandingKey, ValueRun},
    series::ValueKey,
    time::Instant,
};

use crate::{
    codec::{NamesIn, NamesOut},
    flood::Message,
    gossip::Told,
    mesh::Limits,
    message::{BlobRequest, LaneOf, Letter},
};

/// Names a link of this node.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LinkId(pub u64);

/// How a link is to be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkOptions {
    /// At most so many bytes a second are sent; none for as fast as it goes.
    pub rate_max_bytes_per_s: Option<u64>,
    /// Bytes cost money, in both directions: control, standing records and the tree go at once as ever, but heartbeats at most every
    /// [`METERED_GAP`], and values in runs at least that far apart, each topic's newest only. Either end may ask for it.
    pub metered: bool,
}

/// The least time between two rounds of value runs in a section, and between heartbeats, on a metered link.
pub const METERED_GAP: Duration = Duration::from_secs(10);

/// How many bytes of letters wait for a link at most, but for the last one.
const LETTER_BYTES_MAX: usize = 1024 * 1024;

/// What a link has carried since it came up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkStats {
    /// Frames sent.
    pub frames_out: u64,
    /// Bytes sent, without what QUIC adds.
    pub bytes_out: u64,
    /// Frames received.
    pub frames_in: u64,
    /// Bytes received, without what QUIC adds.
    pub bytes_in: u64,
    /// Records sent, each with its newest value of the moment.
    pub records_out: u64,
    /// Records received.
    pub records_in: u64,
    /// Values sent as what has changed since the one before.
    pub deltas_out: u64,
    /// How many bytes that has saved.
    pub deltas_saved_bytes: u64,
    /// Values sent compressed.
    pub compressed_out: u64,
    /// How many bytes that has saved.
    pub compressed_saved_bytes: u64,
    /// Messages to topics that were lost since the link was too slow for them.
    pub messages_lost: u64,
    /// Runs begun.
    pub runs_out: u64,
    /// Adoptions served.
    pub adoptions_out: u64,
    /// Adoptions completed.
    pub adoptions_in: u64,
    /// How often something was asked of the peer that it does not send by itself: a feed grafted, a section adopted, a bucket repaired, an
    /// announcement said again in full. Without any, catching up took one round trip.
    pub requests_out: u64,
    /// Buckets repaired.
    pub repairs: u64,
}

/// Something to be said on lane 0, put into words when the link can take it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Intent {
    Hello,
    Holds(SectionId),
    /// The same again, with every run told by number.
    HoldsUnfolded(SectionId),
    /// The section's `Holds` of this holding could not be made out.
    Unfold(SectionId, u64),
    Unholds(SectionId, u64),
    Relay(NodeId, bool),
    Graft(SectionId, Plane, OriginIx),
    Prune(SectionId, Plane, OriginIx),
    Behind(SectionId),
    AdoptRequest(SectionId),
    Check(SectionId),
    Checked(SectionId),
    Groups(SectionId),
    Buckets(SectionId, u16),
    RepairRequest(SectionId, u16),
    TopicRequest(SectionId, DotIx),
    BlobRequest(BlobRequest),
}

/// The sender's side of a lane.
#[derive(Debug)]
pub(crate) struct LaneOut {
    pub number: u32,
    pub names: NamesOut,
    /// The values that its other end keeps.
    pub bases: Bases<ValueKey>,
    pub opened: bool,
    /// The tree frontier as last told on this lane (R9).
    pub tree_told: Frontier,
    /// Frames that belong to what was sent last, and must follow it.
    pub rest: VecDeque<Vec<u8>>,
}

/// The receiver's side of a lane.
#[derive(Debug, Default)]
pub(crate) struct LaneIn {
    pub of: Option<LaneOf>,
    pub names: NamesIn,
    /// The values that are kept for others to build on.
    pub bases: Bases<ValueKey>,
    /// Parts of images whose rest is still to come.
    pub pieces: Vec<u8>,
    /// The peer's tree frontier as last told on this lane (R9). It belongs to the lane, on which it is told by differences, and outlives
    /// whatever happens to the section here.
    pub tree_heard: Frontier,
    /// Whether what was announced of the tree is in that.
    pub told: bool,
}

/// A run being sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RunOut {
    pub id: u64,
    pub above: u64,
}

/// A run being received: what it has brought stands, its positions wait for its end (R4).
#[derive(Debug, Default)]
pub(crate) struct Arriving {
    pub upto: u64,
    pub news: bool,
    pub values: Vec<(u64, ValueKey)>,
    pub standing: Vec<(u64, StandingKey)>,
    /// Topics of its values that were not known here when these came.
    pub unknown: Vec<DotIx>,
}

/// Value runs that are complete but for R9: their end waits for the tree.
#[derive(Debug)]
pub(crate) struct HeldEnd {
    /// One feed's, or, at the end of an adoption, those of all.
    pub runs: Vec<ValueRun>,
    pub tree: Frontier,
    /// Topics that must be known besides.
    pub unknown: Vec<DotIx>,
}

/// An adoption being served.
#[derive(Debug)]
pub(crate) struct Serving {
    /// What the peer holds, bucket by bucket; buckets that are equal need no body.
    pub theirs: BTreeMap<u16, u64>,
    pub request: u64,
    pub next: u16,
    pub begun: bool,
    pub start: Frontiers,
}

/// An adoption being received.
#[derive(Debug, Default)]
pub(crate) struct Adopting {
    pub request: u64,
    /// What the peer was told of each bucket: where it holds the same it sends no body.
    pub told: BTreeMap<u16, u64>,
    pub begun: bool,
    pub start: Frontiers,
    pub floors: Frontiers,
    pub positions: Positions,
    pub done: u16,
    /// Feeds of which something was passed over meanwhile, since it builds on what the adoption brings.
    pub missed: BTreeSet<(Plane, OriginIx)>,
}

/// A section that both ends hold.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// Which holding of the section here this is about.
    pub holding: u64,
    /// The peer's frontiers: as it said, as its batches show, and as what was sent will have made them.
    pub peer: Frontiers,
    /// Feeds that the peer does not want pushed: for these the link is lazy.
    pub lazy: BTreeSet<(Plane, OriginIx)>,
    /// Feeds that this node asked not to be pushed.
    pub pruned: BTreeSet<(Plane, OriginIx)>,
    pub runs: BTreeMap<(Plane, OriginIx), RunOut>,
    /// How often the frontier of each plane had changed when there was nothing to send, and one; zero if that is to be looked at anew.
    pub quiet: [u64; 3],
    /// Whose turn it is among the feeds of a plane.
    pub turn: [u32; 3],
    /// Since when the peer has seemed to be below a floor here, or when it was told so last.
    pub behind_since: Option<Instant>,
    /// On a metered link, the round of value runs that is going on: how far it brings each feed.
    pub values_round: Option<Frontier>,
    /// When the next round may begin.
    pub values_due: Instant,
    /// Whether there are values for the peer that wait for that.
    pub values_wait: bool,
    pub serving: Option<Serving>,
    /// Buckets to be sent for repair, and whether the peer is to answer with its own.
    pub repairs: VecDeque<(u16, bool)>,
    pub arriving: BTreeMap<(Plane, OriginIx), Arriving>,
    pub held: VecDeque<HeldEnd>,
    pub adopting: Option<Adopting>,
    /// Feeds of which the peer has had more than we for how long.
    pub lagging: BTreeMap<(Plane, OriginIx), Instant>,
    pub proved_equal: Option<Instant>,
    pub checked_frontiers: u64,
    /// Digests, ours and the peer's, of buckets that differed by what neither end's frontier covers when they were compared last.
    pub suspects: BTreeMap<u16, (u64, u64)>,
    /// The blob that the peer has asked for, and how much of it it has.
    pub blob_asked: Option<(BlobHash, u64)>,
    /// Messages to topics that are to be passed on, and their bytes.
    pub messages: VecDeque<Message>,
    pub message_bytes: usize,
    /// Since when tree changes have waited for others, or values for their topics.
    pub waiting_since: Option<Instant>,
    /// The documents that the peer was asked for since, once each.
    pub waiting_asked: BTreeSet<u16>,
    /// The topics that it was asked for since, once each.
    pub topics_asked: BTreeSet<DotIx>,
    pub next_group: u16,
}

/// A section as one end of a link announced it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Said {
    /// Which holding of it.
    pub holding: u64,
    pub frontiers: Frontiers,
    /// Without those of retired runs.
    pub floors: Frontiers,
    pub clock: u64,
    /// The highest epoch.
    pub epoch: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Link {
    pub(crate) peer: NodeId,
    pub(crate) options: LinkOptions,
    pub(crate) limits: Limits,
    pub(crate) peer_metered: bool,
    /// How many bytes of values the peer keeps for each lane.
    pub(crate) peer_bases_bytes: usize,
    /// Whether the peer makes out compressed values.
    pub(crate) peer_compressed: bool,
    pub(crate) origin: Option<Origin>,
    pub(crate) up_since: Instant,
    pub(crate) intents: VecDeque<Intent>,
    pub(crate) names_out: NamesOut,
    pub(crate) names_in: NamesIn,
    pub(crate) told: Told,
    /// Members whose reports this node gets elsewhere, each with when the peer was told so.
    pub(crate) declined: BTreeMap<NodeId, Instant>,
    pub(crate) pulses_due: Instant,
    /// The sections that the peer was told of, each with its holding.
    pub(crate) announced: BTreeMap<SectionId, u64>,
    /// The turnover of sections held here of which it was told all.
    pub(crate) announced_turnover: u64,
    /// What was said of each: later frontiers tell what has risen above.
    pub(crate) said: BTreeMap<SectionId, Said>,
    /// What the peer holds, with the frontiers and floors that it announced, the frontiers raised by what it has reported since.
    pub(crate) peer_holds: BTreeMap<SectionId, (Frontiers, Frontiers)>,
    /// What it said of each: its later frontiers tell what has risen above.
    pub(crate) heard: BTreeMap<SectionId, Said>,
    /// Sections that the peer announced, each with the holding, but what it has of retired runs is something else than here.
    pub(crate) unclear: BTreeMap<SectionId, u64>,
    pub(crate) shared: BTreeMap<SectionId, Shared>,
    /// The newest holding of each section that the peer told of, ended or not.
    pub(crate) peer_holdings: BTreeMap<SectionId, u64>,
    pub(crate) lanes_out: BTreeMap<LaneOf, LaneOut>,
    pub(crate) lanes_opened: u32,
    pub(crate) requests: u64,
    pub(crate) lanes_in: BTreeMap<u32, LaneIn>,
    /// Frames of lanes that have overtaken, on their own stream, the `Hello` or `Holds` that they build on.
    pub(crate) early: VecDeque<(u32, Vec<u8>)>,
    /// Letters to be passed on, and their bytes.
    pub(crate) letters: VecDeque<Letter>,
    pub(crate) letter_bytes: usize,
    pub(crate) tokens: i64,
    pub(crate) tokens_at: Instant,
    /// The changes of the replica, and the news of gossip, with which there was nothing to send. Links are asked for frames after everything that
    /// happens, and mostly have none.
    pub(crate) idle: Option<(u64, (u64, u64))>,
    /// The turnover of sections held here that was last looked at; zero if the peer's is to be looked at anew.
    pub(crate) refreshed: u64,
    pub(crate) stats: LinkStats,
}

impl Link {
    pub(crate) fn new(now: Instant, peer: NodeId, options: LinkOptions, limits: Limits) -> Self {
        Link {
            peer,
            options,
            limits,
            peer_metered: false,
            peer_bases_bytes: 0,
            peer_compressed: false,
            origin: None,
            up_since: now,
            intents: VecDeque::from([Intent::Hello]),
            names_out: NamesOut::default(),
            names_in: NamesIn::default(),
            told: Told::default(),
            declined: BTreeMap::new(),
            pulses_due: now,
            announced: BTreeMap::new(),
            announced_turnover: 0,
            said: BTreeMap::new(),
            peer_holds: BTreeMap::new(),
            heard: BTreeMap::new(),
            unclear: BTreeMap::new(),
            shared: BTreeMap::new(),
            peer_holdings: BTreeMap::new(),
            lanes_out: BTreeMap::new(),
            lanes_opened: 0,
            requests: 0,
            lanes_in: BTreeMap::new(),
            early: VecDeque::new(),
            letters: VecDeque::new(),
            letter_bytes: 0,
            tokens: 0,
            tokens_at: now,
            idle: None,
            refreshed: 0,
            stats: LinkStats::default(),
        }
    }

    /// Who is at the other end.
    pub fn peer(&self) -> NodeId {
        self.peer
    }

    /// The peer's present run, once it said hello.
    pub fn origin(&self) -> Option<Origin> {
        self.origin
    }

    /// When the link came up.
    pub fn up_since(&self) -> Instant {
        self.up_since
    }

    /// What it has carried.
    pub fn stats(&self) -> LinkStats {
        self.stats
    }

    /// How it is used.
    pub fn options(&self) -> LinkOptions {
        self.options
    }

    /// Changes how it is used.
    pub fn set_options(&mut self, options: LinkOptions) {
        if self.options != options {
            self.options = options;
            self.idle = None;
        }
    }

    /// The sections that both ends hold.
    pub fn sections(&self) -> impl Iterator<Item = SectionId> + '_ {
        self.shared.keys().copied()
    }

    /// When a section's state was last proved equal over this link.
    pub fn proved_equal(&self, section: SectionId) -> Option<Instant> {
        self.shared.get(&section)?.proved_equal
    }

    /// The frontiers that the peer is known to have, or will have once all that was sent has arrived.
    pub fn peer_frontiers(&self, section: SectionId) -> Option<&Frontiers> {
        Some(&self.shared.get(&section)?.peer)
    }

    /// How many of all buckets an adoption from this peer has brought, if one is in progress.
    pub fn adopting(&self, section: SectionId) -> Option<u16> {
        Some(self.shared.get(&section)?.adopting.as_ref()?.done)
    }

    /// Whether anything is being brought to the peer: a run, an adoption, a repair.
    pub fn is_sending(&self) -> bool {
        self.shared.values().any(|shared| !shared.runs.is_empty() || shared.serving.is_some() || !shared.repairs.is_empty())
    }

    /// Whether any section is being adopted from this peer.
    pub fn is_adopting(&self) -> bool {
        self.shared.values().any(|shared| shared.adopting.is_some())
    }

    /// Whether a section is being adopted from this peer, or is about to be asked for.
    pub(crate) fn adopts(&self, section: SectionId) -> bool {
        let asking = self.intents.contains(&Intent::AdoptRequest(section)) && self.shared.contains_key(&section);
        asking || self.shared.get(&section).is_some_and(|shared| shared.adopting.is_some())
    }

    /// Whatever still comes of an adoption is ignored from now on.
    pub(crate) fn give_up_adoption(&mut self, section: SectionId) {
        self.intents.retain(|intent| *intent != Intent::AdoptRequest(section));
        if let Some(shared) = self.shared.get_mut(&section) {
            shared.adopting = None;
        }
    }

    pub(crate) fn intend(&mut self, intent: Intent) {
        if !self.intents.contains(&intent) {
            self.intents.push_back(intent);
            self.idle = None;
        }
    }

    /// Passes a letter on as soon as the link can take it. If too much waits, the oldest are lost: whoever wrote them asks again.
    pub(crate) fn post(&mut self, letter: Letter) {
        self.letter_bytes += letter.body.len();
        self.letters.push_back(letter);
        while self.letter_bytes > LETTER_BYTES_MAX && self.letters.len() > 1 {
            self.take_letter();
        }
        self.idle = None;
    }

    pub(crate) fn take_letter(&mut self) -> Option<Letter> {
        let letter = self.letters.pop_front()?;
        self.letter_bytes -= letter.body.len();
        Some(letter)
    }

    /// Looks again for what the peer was not told since it got it elsewhere.
    pub(crate) fn end_pauses(&mut self, now: Instant) {
        if self.told.end_pauses(now) {
            self.idle = None;
        }
    }

    /// Wants these members' reports over this link again.
    pub(crate) fn want_reports(&mut self, members: &[NodeId]) {
        for member in members {
            if self.declined.remove(member).is_some() {
                self.intend(Intent::Relay(*member, true));
            }
        }
    }

    /// Whether the rate allows another frame now.
    pub(crate) fn may_send(&mut self, now: Instant) -> bool {
        let Some(rate) = self.options.rate_max_bytes_per_s else { return true };
        let earned = now.since(self.tokens_at).as_micros() * u128::from(rate) / 1_000_000;
        if earned > 0 {
            self.tokens = self.tokens.saturating_add(earned.min(i64::MAX as u128) as i64).min(burst(rate));
            self.tokens_at = now;
        }
        self.tokens > 0
    }

    /// When the rate allows another frame, if it does not now.
    pub(crate) fn send_due(&self) -> Option<Instant> {
        let rate = self.options.rate_max_bytes_per_s?;
        if self.tokens > 0 {
            return None;
        }
        let wait_us = (1 - self.tokens) as u128 * 1_000_000 / u128::from(rate.max(1)) + 1;
        Some(self.tokens_at.after(Duration::from_micros(wait_us.min(u128::from(u64::MAX)) as u64)))
    }

    /// Whether bytes cost money at either end.
    pub(crate) fn is_metered(&self) -> bool {
        self.options.metered || self.peer_metered
    }

    /// Whether anything but room limits what it carries.
    pub(crate) fn is_bounded(&self) -> bool {
        self.options.rate_max_bytes_per_s.is_some() || self.is_metered()
    }

    /// When the meter allows values again that wait for it.
    pub(crate) fn values_due(&self) -> Option<Instant> {
        self.shared.values().filter(|shared| shared.values_wait).map(|shared| shared.values_due).min()
    }

    /// Values whose time has come wait no more: they go as soon as the link takes them.
    pub(crate) fn release_values(&mut self, now: Instant) {
        for shared in self.shared.values_mut().filter(|shared| shared.values_due <= now) {
            shared.values_wait = false;
        }
    }

    /// About how many bytes of values the next batch may hold.
    pub(crate) fn batch_bytes(&self) -> usize {
        match self.options.rate_max_bytes_per_s {
            Some(rate) => (burst(rate) as usize).max(512).min(self.limits.batch_bytes),
            None => self.limits.batch_bytes,
        }
    }
}

/// What may be sent at once after a silence: a tenth of a second's worth.
fn burst(rate: u64) -> i64 {
    (rate / 10).clamp(512, 1 << 20) as i64
}
