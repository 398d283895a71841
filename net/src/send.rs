//! The sender's side of a link: what goes out next.
//!
//! Nothing is queued: each frame is made from the replica's state of the moment in which the link can take it. First comes what keeps the mesh
//! together (lane 0), then, over all sections, standing records, tree, values, and last the bulk of adoptions and repairs.

use std::{
    collections::{VecDeque, btree_map::Entry},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use mangrove_crdt::{
    definition::Properties,
    delta::Bases,
    frontier::{DotIx, Frontier, OriginIx, Origins},
    id::{Plane, SectionId},
    path::BUCKETS,
    registers::Registers,
    replica::Replica,
    sabotage::{Sabotage, is},
    section::{Frontiers, Section, StandingKey},
    series::ValueKey,
    time::Instant,
};
use smallvec::SmallVec;

use crate::{
    Frame, GROUP_BUCKETS,
    batch::{Batch, PackKey, Packer, frontier_delta, pack_tree},
    blobs,
    codec::{NamesOut, Writer},
    compress::Sent,
    flood,
    gossip::Gossip,
    link::{Adopting, Intent, LaneOut, Link, METERED_GAP, RunOut, Said, Serving, Shared},
    mesh::Limits,
    message::{
        AdoptBegin, AdoptEnd, AdoptRequest, Bare, Buckets, Check, Content, Control, Graft, Groups, Hello, Holds, Images, LaneOf, OfBucket,
        OfFeed, OfHolding, OfSection, OfTopic, Packed, Piece, Relay, Repair, Report, WIRE, WIRE_MIN, pack_frontiers, pack_frontiers_above,
        pack_image, pack_origin,
    },
    retired::Retired,
};

/// How long a peer may seem to be below a floor before it is told so: often it only lags, and a report is on its way.
const BEHIND_AFTER: Duration = Duration::from_secs(1);

impl Link {
    /// The next frame, for lanes that `blocked` does not name.
    pub(crate) fn poll_transmit(
        &mut self,
        now: Instant,
        replica: &mut Replica,
        gossip: &Gossip,
        blocked: &dyn Fn(u32) -> bool,
    ) -> Option<Frame> {
        if !self.may_send(now) {
            return None;
        }
        let frame = self.next_frame(now, replica, gossip, blocked)?;
        self.stats.frames_out += 1;
        self.stats.bytes_out += frame.bytes.len() as u64;
        if self.options.rate_max_bytes_per_s.is_some() {
            self.tokens -= frame.bytes.len() as i64;
        }
        Some(frame)
    }

    fn next_frame(&mut self, now: Instant, replica: &mut Replica, gossip: &Gossip, blocked: &dyn Fn(u32) -> bool) -> Option<Frame> {
        let seen = (replica.changes(), gossip.news());
        if self.idle == Some(seen) {
            return None;
        }
        self.refresh(replica);
        let mut passed_over = false;
        if self.has_control(replica, gossip) {
            if let Some(frame) = self.control_frame(now, replica, gossip, blocked) {
                return Some(frame);
            }
            passed_over = blocked(0);
        }
        // Until the peer has said hello, it is not known what it lacks.
        self.origin?;
        for of in self.due(replica) {
            if self.lanes_out.get(&of).is_some_and(|lane| blocked(lane.number)) {
                passed_over = true;
            } else if let Some(content) = self.next_content(now, replica, gossip, of) {
                return Some(self.on_lane(of, content));
            }
        }
        if !self.intents.is_empty() {
            // Looking for content has found something to say.
            return self.control_frame(now, replica, gossip, blocked);
        }
        // What waits for time to pass is to be looked at again.
        let waits = self.is_metered() || self.shared.values().any(|shared| shared.behind_since.is_some());
        self.idle = (!passed_over && !waits).then_some(seen);
        None
    }

    /// The lanes that may have something to carry, the most urgent first.
    fn due(&mut self, replica: &Replica) -> SmallVec<[LaneOf; 4]> {
        let mut due: SmallVec<[LaneOf; 4]> = SmallVec::new();
        for (id, shared) in &mut self.shared {
            let Some(section) = replica.section(*id) else { continue };
            let holding = shared.holding;
            let of = |plane| LaneOf { section: *id, plane, holding, messages: false };
            if !shared.messages.is_empty() {
                due.push(LaneOf { messages: true, ..of(None) });
            }
            for plane in Plane::ALL {
                if has_work(shared, section, plane) || (plane == Plane::Values && shared.values_round.is_some()) {
                    due.push(of(Some(plane)));
                }
            }
            let rest = || self.lanes_out.get(&of(None)).is_some_and(|lane| !lane.rest.is_empty());
            if shared.serving.is_some() || !shared.repairs.is_empty() || shared.blob_asked.is_some() || rest() {
                due.push(of(None));
            }
        }
        // Messages after the tree, which may have to bring their topics.
        due.sort_by_key(|of| match of.plane {
            Some(Plane::Standing) => 0,
            Some(Plane::Tree) => 1,
            None if of.messages => 2,
            Some(Plane::Values) => 3,
            None => 4,
        });
        due
    }

    /// Whether there may be something to say on lane 0.
    fn has_control(&self, replica: &Replica, gossip: &Gossip) -> bool {
        !self.intents.is_empty() || !self.letters.is_empty() || self.announced_turnover != replica.turnover() || !self.told.is_all(gossip)
    }

    fn control_frame(&mut self, now: Instant, replica: &mut Replica, gossip: &Gossip, blocked: &dyn Fn(u32) -> bool) -> Option<Frame> {
        if blocked(0) {
            return None;
        }
        let control = self.next_control(now, replica, gossip)?;
        Some(Frame { lane: 0, priority: 100, bytes: control.encode().into() })
    }

    /// Puts content on its lane; a new lane opens with what it is, and brings its first content next time.
    fn on_lane(&mut self, of: LaneOf, content: Vec<u8>) -> Frame {
        let lane = self.lanes_out.get_mut(&of).expect("content is made with its lane's names");
        let priority = match of.plane {
            Some(Plane::Standing) => 80,
            Some(Plane::Tree) => 60,
            None if of.messages => 50,
            Some(Plane::Values) => 40,
            None => 20,
        };
        Frame { lane: lane.number, priority, bytes: Bytes::from(content) }
    }

    fn next_content(&mut self, now: Instant, replica: &mut Replica, gossip: &Gossip, of: LaneOf) -> Option<Vec<u8>> {
        let limits = Limits { batch_bytes: self.batch_bytes(), ..self.limits };
        let metered = self.is_metered();
        if let Some(rest) = self.lanes_out.get_mut(&of).and_then(|lane| lane.rest.pop_front()) {
            return Some(rest);
        }
        let said = self.said.get(&of.section).filter(|said| said.holding == of.holding)?;
        let shared = self.shared.get_mut(&of.section)?;
        let (section, cx) = replica.parts(of.section)?;
        let pending = match of.plane {
            None if of.messages => !shared.messages.is_empty(),
            None => !shared.repairs.is_empty() || shared.serving.is_some() || shared.blob_asked.is_some(),
            Some(Plane::Values) => shared.serving.is_none() && values_may_go(shared, section, metered, now),
            Some(plane) => shared.serving.is_none() && has_work(shared, section, plane),
        };
        if !pending {
            return None;
        }
        if of.plane.is_some() && section.is_below_floor(&shared.peer) {
            // Others may have brought it further than this link has heard.
            if let Some(reported) = self.origin.and_then(|run| gossip.reported_in_run(cx.origins, run)) {
                // No further than this node itself: a report may be of what the peer has given up since.
                let ours = section.frontiers();
                let mut reported = reported.frontiers(cx.origins, of.section, || ours.clone()).0.as_ref().clone();
                reported.meet(&ours);
                shared.peer.join(&reported);
            }
            if section.is_below_floor(&shared.peer) {
                let since = shared.behind_since.get_or_insert(now);
                if now.since(*since) >= BEHIND_AFTER {
                    *since = now;
                    self.intend(Intent::Behind(of.section));
                }
                return None;
            }
            shared.behind_since = None;
        }
        let lane = match self.lanes_out.entry(of) {
            Entry::Occupied(lane) => lane.into_mut(),
            Entry::Vacant(free) => {
                self.lanes_opened += 1;
                let number = self.lanes_opened;
                free.insert(LaneOut {
                    number,
                    names: NamesOut::default(),
                    bases: Bases::new(limits.bases_bytes.min(self.peer_bases_bytes)),
                    opened: false,
                    rest: VecDeque::new(),
                    tree_told: said.frontiers[Plane::Tree].clone(),
                })
            }
        };
        if !std::mem::replace(&mut lane.opened, true) {
            return Some(Content::Lane(of).encode());
        }
        let LaneOut { names, bases, tree_told, rest, .. } = lane;
        match of.plane {
            None if of.messages => {
                let (mut w, mut packed, mut count) = (Writer::default(), Writer::default(), 0);
                while packed.out.len() < limits.batch_bytes.max(1)
                    && let Some(message) = shared.take_message()
                {
                    flood::pack(&mut packed, names, cx.origins, &message);
                    count += 1;
                }
                w.u64(count);
                w.out.extend(packed.out);
                Some(Content::Messages(Packed { packed: w.out }).encode())
            }
            None if shared.blob_asked.is_some() => {
                blobs::answer(shared, of.section, cx.blobs, limits).map(|piece| Content::Blob(piece).encode())
            }
            None => bulk(shared, said, section, cx.origins, names, rest, limits, &mut self.stats),
            Some(plane) => {
                let origin = next_feed(shared, section, plane)?;
                let batch = match plane {
                    Plane::Tree => tree_batch(shared, section, cx.origins, names, origin, limits),
                    Plane::Standing => {
                        let (registers, peer) = (&mut section.standing, &mut shared.peer[plane]);
                        let form = |_: &StandingKey, _: &Arc<[u8]>| Sent::Whole { kept: false };
                        register_batch(&mut shared.runs, peer, registers, form, plane, cx.origins, names, origin, limits, &mut self.stats)
                    }
                    Plane::Values => {
                        let (registers, peer) = (&mut section.values, &mut shared.peer[plane]);
                        let began = shared.runs.get(&(plane, origin)).map_or(peer.get(origin), |run| run.above);
                        let (tree, compressed) = (&section.tree, self.peer_compressed);
                        let wants = |key: &ValueKey, what: fn(&Properties) -> bool| {
                            tree.topic_of(key.topic()).is_some_and(|topic| what(topic.definition.properties()))
                        };
                        let form = |key: &ValueKey, value: &Arc<[u8]>| {
                            // An event comes once, and what comes after it is another.
                            let form = bases.send(key, value, || key.as_event().is_none() && wants(key, |these| these.deltas));
                            Sent::shortest(form, value, || compressed && wants(key, |these| these.compress))
                        };
                        let stats = &mut self.stats;
                        let batch =
                            register_batch(&mut shared.runs, peer, registers, form, plane, cx.origins, names, origin, limits, stats);
                        batch.map(|(batch, mut w)| {
                            let tell = if is(Sabotage::TreeAtStart) { batch.from == began } else { batch.last };
                            if tell {
                                // R9: as the tree is now, when the run's last batch is built, not when the run began.
                                let now_at = section.tree.frontier();
                                frontier_delta(&mut w, names, cx.origins, tree_told, now_at);
                                *tree_told = now_at.clone();
                            }
                            (batch, w)
                        })
                    }
                };
                batch.map(|(_, w)| Content::Batch(Bare { packed: w.out }).encode())
            }
        }
    }

    fn next_control(&mut self, now: Instant, replica: &mut Replica, gossip: &Gossip) -> Option<Control> {
        if let Some(Intent::Hello) = self.intents.front() {
            self.intents.pop_front();
            let (version, version_min, metered) = (WIRE, WIRE_MIN, self.options.metered);
            let (bases_bytes, compressed) = (self.limits.bases_bytes as u64, self.limits.compressed);
            return Some(Control::Hello(Hello { version, version_min, origin: replica.own(), metered, bases_bytes, compressed }));
        }
        if self.announced_turnover != replica.turnover() {
            let ended = self.announced.iter().find(|(section, holding)| replica.holding(**section) != Some(**holding));
            if let Some((section, holding)) = ended.map(|(section, holding)| (*section, *holding)) {
                self.announced.remove(&section);
                self.intents.push_front(Intent::Unholds(section, holding));
            } else if let Some(section) = replica.held().find(|section| !self.announced.contains_key(section)) {
                self.announced.insert(section, replica.holding(section).unwrap_or(0));
                self.intents.push_front(Intent::Holds(section));
            } else {
                self.announced_turnover = replica.turnover();
            }
        }
        while let Some(intent) = self.intents.pop_front() {
            if let Some(control) = self.say(replica, intent) {
                self.stats.requests_out += u64::from(control.is_request());
                return Some(control);
            }
        }
        if self.origin.is_some()
            && let Some(letter) = self.take_letter()
        {
            return Some(Control::Letter(letter));
        }
        let metered = self.is_metered();
        let pulses = match self.origin.is_some() && (!metered || now >= self.pulses_due) {
            true => gossip.untold_pulses(&mut self.told),
            false => Vec::new(),
        };
        if !pulses.is_empty() {
            self.pulses_due = now.after(METERED_GAP);
            let mut w = Writer::default();
            w.u64(pulses.len() as u64);
            for pulse in pulses {
                w.origin(&mut self.names_out, replica.origins(), pulse.origin);
                w.u64(pulse.count);
            }
            return Some(Control::Pulses(Packed { packed: w.out }));
        }
        if self.origin.is_some() {
            let (node, report, told) = gossip.untold_report(self.peer, &mut self.told)?;
            self.told.reports.insert(node, (report.origin, report.version));
            let origins = replica.origins();
            // Of a section given up, perhaps to be held anew, the own report still tells until it is made again.
            let stands = |section: &SectionId, plane: Plane, dot: &DotIx| {
                node != replica.own().node || replica.section(*section).is_some_and(|section| section.durable()[plane].covers(*dot))
            };
            let moved = report.moved_after(told).filter(|(section, plane, dot)| stands(section, *plane, dot));
            let moved: Vec<_> = moved.collect();
            let stands = |section: &SectionId, retired: &Retired| {
                let durable = || Some(Retired::part(origins, replica.section(*section)?.durable(), self.limits.runs_told).0);
                node != replica.own().node || durable().as_ref() == Some(retired) || *retired == retired.given_up()
            };
            let retired: Vec<_> = report.retired_after(told).filter(|(section, retired)| stands(section, retired)).collect();
            let mut w = Writer::default();
            w.u64(moved.len() as u64);
            for (section, plane, dot) in moved {
                w.u64(section.0);
                w.u64(plane as u64);
                w.dot(&mut self.names_out, origins, dot);
            }
            // The member is packed second, and the retired runs third, so they must be read so: names count in the order of writing.
            let member = pack_origin(&mut self.names_out, origins, report.origin);
            let mut of_retired = Writer::default();
            for (section, retired) in retired {
                of_retired.u64(section.0);
                retired.pack_onto(&mut of_retired, &mut self.names_out, origins);
            }
            return Some(Control::Report(Report { member, version: report.version, moved: w.out, retired: of_retired.out }));
        }
        None
    }

    /// Puts an intent into words; `None` if it has become void.
    fn say(&mut self, replica: &mut Replica, intent: Intent) -> Option<Control> {
        let names = &mut self.names_out;
        Some(match intent {
            Intent::Hello => return None,
            Intent::Unholds(section, holding) => Control::Unholds(OfHolding { section, holding }),
            Intent::Behind(section) => Control::Behind(OfSection { section }),
            Intent::Checked(section) => Control::Checked(OfSection { section }),
            Intent::RepairRequest(section, bucket) => Control::RepairRequest(OfBucket { section, bucket }),
            Intent::Holds(id) => {
                let section = replica.section(id)?;
                let (frontiers, clock, epoch, holding) = (section.frontiers(), section.clock(), section.epoch(), replica.holding(id)?);
                let (retired, rest) = Retired::part(replica.origins(), &frontiers, self.limits.runs_told);
                let mut floors = section.floors();
                floors.meet(&rest);
                let said = Said { holding, frontiers, floors, clock, epoch };
                let holds = holds(names, replica.origins(), id, &said, &rest, &retired);
                self.said.insert(id, said);
                Control::Holds(holds)
            }
            Intent::HoldsUnfolded(id) => {
                let said = self.said.get(&id)?;
                Control::Holds(holds(names, replica.origins(), id, said, &said.frontiers, &Retired::default()))
            }
            Intent::Relay(member, wanted) => Control::Relay(Relay { member, wanted }),
            Intent::Unfold(section, holding) => Control::Unfold(OfHolding { section, holding }),
            Intent::Graft(id, plane, origin) => {
                let dot = DotIx { origin, number: replica.section(id)?.frontier(plane).get(origin) };
                let mut w = Writer::default();
                w.dot(names, replica.origins(), dot);
                Control::Graft(Graft { section: id, plane, dot: w.out })
            }
            Intent::TopicRequest(section, topic) => {
                let mut w = Writer::default();
                w.dot(names, replica.origins(), topic);
                Control::TopicRequest(OfTopic { section, topic: w.out })
            }
            Intent::BlobRequest(request) => Control::BlobRequest(request),
            Intent::Prune(id, plane, origin) => {
                Control::Prune(OfFeed { section: id, plane, origin: pack_origin(names, replica.origins(), origin) })
            }
            Intent::AdoptRequest(id) => {
                let (section, cx) = replica.parts(id)?;
                let mut w = Writer::default();
                let held: Vec<(u16, u64)> = if section.frontiers().is_zero() && section.tree.is_empty() {
                    Vec::new()
                } else {
                    (0..BUCKETS)
                        .map(|bucket| (bucket, short(&section.digest(cx.origins, bucket).digest)))
                        .filter(|held| held.1 != 0)
                        .collect()
                };
                w.u64(held.len() as u64);
                for (bucket, digest) in &held {
                    w.u64(u64::from(*bucket));
                    w.out.extend_from_slice(&digest.to_be_bytes());
                }
                let shared = self.shared.get_mut(&id)?;
                self.requests += 1;
                let request = self.requests;
                shared.adopting = Some(Adopting { request, told: held.into_iter().collect(), ..Adopting::default() });
                Control::AdoptRequest(AdoptRequest { section: id, digests: w.out, request })
            }
            Intent::Check(id) => {
                let shared = self.shared.get_mut(&id)?;
                let (section, cx) = replica.parts(id)?;
                let frontiers = frontiers_hash(cx.origins, &section.frontiers());
                let quiet = std::mem::replace(&mut shared.checked_frontiers, frontiers) == frontiers;
                let root = quiet.then(|| short(&section.digest_over(cx.origins, 0..BUCKETS)));
                let group = shared.next_group;
                shared.next_group = (group + 1) % (BUCKETS / GROUP_BUCKETS);
                Control::Check(Check { section: id, frontiers, root, group })
            }
            Intent::Groups(id) => {
                let (section, cx) = replica.parts(id)?;
                let groups = 0..BUCKETS / GROUP_BUCKETS;
                let digests = groups.map(|group| short(&section.digest_over(cx.origins, buckets_of(group)))).collect();
                Control::Groups(Groups { section: id, digests })
            }
            Intent::Buckets(id, group) => {
                let (section, cx) = replica.parts(id)?;
                let said = self.said.get(&id)?;
                // Who is to adopt differs without fault.
                self.shared.get(&id).filter(|shared| shared.serving.is_none() && !section.is_below_floor(&shared.peer))?;
                let mut w = Writer::default();
                for plane in Plane::ALL {
                    w.frontier_above(names, cx.origins, &said.frontiers[plane], section.frontier(plane));
                }
                for bucket in buckets_of(group) {
                    let digest = section.digest(cx.origins, bucket);
                    w.out.extend_from_slice(&short(&digest.digest).to_be_bytes());
                    for dots in &digest.dots {
                        w.dots(names, cx.origins, dots);
                    }
                }
                Control::Buckets(Buckets { section: id, group, buckets: w.out })
            }
        })
    }
}

fn holds(names: &mut NamesOut, origins: &Origins, section: SectionId, said: &Said, told: &Frontiers, retired: &Retired) -> Holds {
    Holds {
        section,
        frontiers: pack_frontiers(names, origins, told),
        floors: pack_frontiers(names, origins, &said.floors),
        clock: said.clock,
        epoch: said.epoch,
        holding: said.holding,
        retired: retired.pack(names, origins),
    }
}

/// The buckets of a group.
pub(crate) fn buckets_of(group: u16) -> std::ops::Range<u16> {
    group * GROUP_BUCKETS..(group + 1) * GROUP_BUCKETS
}

/// A digest as it is told: its first eight bytes.
pub(crate) fn short(digest: &[u8; 32]) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    u64::from_be_bytes(first)
}

/// A hash of frontiers that is the same on every node.
pub(crate) fn frontiers_hash(origins: &Origins, frontiers: &Frontiers) -> u64 {
    let mut hasher = blake3::Hasher::new();
    for plane in Plane::ALL {
        let mut dots: Vec<_> = frontiers[plane].iter().map(|dot| (origins.get(dot.origin), dot.number)).collect();
        dots.sort_unstable();
        hasher.update(&[plane as u8]);
        for (origin, number) in dots {
            hasher.update(&origin.to_bytes()).update(&number.to_be_bytes());
        }
    }
    short(hasher.finalize().as_bytes())
}

/// Whether there are values for the peer that may go now. On a metered link they go in rounds: each brings every feed as far as it was when the
/// round began, and begins [`METERED_GAP`] after the end of the one before.
fn values_may_go(shared: &mut Shared, section: &Section, metered: bool, now: Instant) -> bool {
    if shared.values_round.is_some() && !(metered && has_work(shared, section, Plane::Values)) {
        shared.values_round = None;
        shared.quiet[Plane::Values as usize] = 0;
        shared.values_due = now.after(METERED_GAP);
    }
    let work = has_work(shared, section, Plane::Values);
    shared.values_wait = work && metered && shared.values_round.is_none() && now < shared.values_due;
    if work && metered && !shared.values_wait && shared.values_round.is_none() {
        shared.values_round = Some(section.values.frontier().clone());
    }
    work && !shared.values_wait
}

fn has_work(shared: &mut Shared, section: &Section, plane: Plane) -> bool {
    let frontier = section.frontier(plane);
    let (quiet, present) = (shared.quiet[plane as usize], frontier.changes() + 1);
    if quiet == present {
        return false;
    }
    // What has risen since there was nothing to send is all that there can be.
    let risen = quiet.checked_sub(1).and_then(|changes| frontier.risen_since(changes));
    let work = match risen {
        Some(mut risen) => risen.any(|origin| is_due(shared, plane, DotIx { origin, number: frontier.get(origin) })),
        None => feeds(shared, section, plane).next().is_some(),
    };
    if !work {
        shared.quiet[plane as usize] = present;
    }
    work
}

/// The feeds of which the peer is to get something.
fn feeds<'a>(shared: &'a Shared, section: &'a Section, plane: Plane) -> impl Iterator<Item = OriginIx> + 'a {
    section.frontier(plane).iter().filter(move |dot| is_due(shared, plane, *dot)).map(|dot| dot.origin)
}

/// Whether the peer is to get something of a feed that has come so far here.
fn is_due(shared: &Shared, plane: Plane, DotIx { origin, number }: DotIx) -> bool {
    let round = shared.values_round.as_ref().filter(|_| plane == Plane::Values);
    let upto = round.map_or(number, |round| round.get(origin).min(number));
    shared.runs.contains_key(&(plane, origin)) || (shared.peer[plane].get(origin) < upto && !shared.lazy.contains(&(plane, origin)))
}

/// The feed whose turn it is.
fn next_feed(shared: &mut Shared, section: &Section, plane: Plane) -> Option<OriginIx> {
    let turn = shared.turn[plane as usize];
    let after = feeds(shared, section, plane).find(|origin| origin.0 >= turn);
    let origin = after.or_else(|| feeds(shared, section, plane).next())?;
    shared.turn[plane as usize] = origin.0 + 1;
    Some(origin)
}

fn tree_batch(
    shared: &mut Shared,
    section: &Section,
    origins: &Origins,
    names: &mut NamesOut,
    origin: OriginIx,
    limits: Limits,
) -> Option<(Batch, Writer)> {
    let from = shared.peer[Plane::Tree].get(origin);
    let (records, _) = section.tree.read(origin, from, limits.batch_bytes)?;
    let upto = records.last().map_or(section.tree.frontier().get(origin), |record| record.number);
    let batch = Batch { origin, from, upto, last: true, count: records.len() };
    let mut w = batch.pack(names, origins);
    for record in &records {
        pack_tree(&mut w, names, origins, record);
    }
    shared.peer[Plane::Tree].raise(origin, upto);
    Some((batch, w))
}

#[allow(clippy::too_many_arguments, reason = "the two register planes share this; their parts are borrowed apart")]
fn register_batch<K: PackKey + Ord>(
    runs: &mut std::collections::BTreeMap<(Plane, OriginIx), RunOut>,
    peer: &mut Frontier,
    registers: &mut Registers<K>,
    mut form: impl FnMut(&K, &Arc<[u8]>) -> Sent,
    plane: Plane,
    origins: &Origins,
    names: &mut NamesOut,
    origin: OriginIx,
    limits: Limits,
    stats: &mut crate::link::LinkStats,
) -> Option<(Batch, Writer)> {
    let run = match runs.get(&(plane, origin)) {
        Some(run) => *run,
        None => {
            let above = peer.get(origin);
            let (id, _) = registers.open_run(origin, above)?;
            stats.runs_out += 1;
            runs.insert((plane, origin), RunOut { id, above });
            RunOut { id, above }
        }
    };
    let from = registers.run_passed(origin, run.id)?;
    let read = registers.read_run(origin, run.id, limits.batch_records, limits.batch_bytes)?;
    let batch = Batch { origin, from, upto: read.upto, last: read.last, count: read.writes.len() };
    let mut packer = Packer::new(batch.pack(names, origins), Some(origin), from);
    for (number, key, write) in &read.writes {
        let sent = write.value.as_ref().map_or(Sent::Whole { kept: false }, |value| form(key, value));
        let length = write.value.as_ref().map_or(0, |value| value.len());
        match &sent {
            Sent::Whole { .. } => {}
            Sent::Delta(delta) => {
                stats.deltas_out += 1;
                stats.deltas_saved_bytes += (length - delta.len()) as u64;
            }
            Sent::Compressed { bytes, .. } => {
                stats.compressed_out += 1;
                stats.compressed_saved_bytes += (length - bytes.len()) as u64;
            }
        }
        packer.push_as(names, origins, *number, key, write, sent);
    }
    stats.records_out += read.writes.len() as u64;
    if read.last {
        registers.close_run(origin, run.id);
        runs.remove(&(plane, origin));
        peer.raise(origin, read.upto);
    }
    Some((batch, packer.w))
}

/// The frame of images, or of their first piece, if they are too long for one; the other frames come to the rest.
fn in_pieces(images: Vec<u8>, last: impl FnOnce(Vec<u8>) -> Content, rest: &mut VecDeque<Vec<u8>>) -> Vec<u8> {
    let mut pieces: VecDeque<&[u8]> = images.chunks(crate::PIECE_BYTES).collect();
    let tail = pieces.pop_back().unwrap_or_default().to_vec();
    rest.extend(pieces.into_iter().map(|bytes| Content::Piece(Piece { bytes: bytes.to_vec() }).encode()));
    rest.push_back(last(tail).encode());
    rest.pop_front().unwrap_or_default()
}

/// Adoptions and repairs.
#[allow(clippy::too_many_arguments, reason = "parts of one link, borrowed apart")]
fn bulk(
    shared: &mut Shared,
    said: &Said,
    section: &mut Section,
    origins: &Origins,
    names: &mut NamesOut,
    rest: &mut VecDeque<Vec<u8>>,
    limits: Limits,
    stats: &mut crate::link::LinkStats,
) -> Option<Vec<u8>> {
    if let Some((bucket, reply)) = shared.repairs.pop_front() {
        let image = section.read_bucket(bucket, false);
        let mut w = Writer::default();
        pack_image(&mut w, names, origins, &image);
        // Written second, read second.
        let covered = pack_frontiers_above(names, origins, &said.frontiers, &section.frontiers());
        stats.repairs += 1;
        let repair = |images| Content::Repair(Repair { images: Images { covered, images, done: 1 }, reply });
        return Some(in_pieces(lz4_flex::compress_prepend_size(&w.out), repair, rest));
    }
    let Serving { theirs, request, next, begun, start } = shared.serving.as_mut()?;
    if !std::mem::replace(begun, true) {
        *start = section.frontiers();
        let frontiers = pack_frontiers_above(names, origins, &said.frontiers, start);
        let floors = pack_frontiers_above(names, origins, &said.floors, &section.floors());
        return Some(Content::AdoptBegin(AdoptBegin { frontiers, floors, clock: section.clock(), request: *request }).encode());
    }
    if *next < BUCKETS {
        let mut w = Writer::default();
        while *next < BUCKETS && w.out.len() < limits.bulk_bytes {
            let bucket = *next;
            *next += 1;
            let same = theirs.get(&bucket).is_some_and(|theirs| *theirs == short(&section.digest(origins, bucket).digest));
            let image = section.read_bucket(bucket, same);
            let empty = image.document.is_none() && image.values.is_empty() && image.standing.is_empty();
            if !empty || theirs.contains_key(&bucket) {
                pack_image(&mut w, names, origins, &image);
            }
        }
        let covered = pack_frontiers_above(names, origins, &said.frontiers, &section.frontiers());
        let done = *next;
        let buckets = |images| Content::AdoptBuckets(Images { covered, images, done });
        return Some(in_pieces(lz4_flex::compress_prepend_size(&w.out), buckets, rest));
    }
    shared.peer.join(start);
    shared.serving = None;
    shared.behind_since = None;
    stats.adoptions_out += 1;
    let mut w = Writer::default();
    w.frontier_above(names, origins, &said.frontiers[Plane::Tree], section.tree.frontier());
    Some(Content::AdoptEnd(AdoptEnd { tree: w.out }).encode())
}
