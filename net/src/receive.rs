//! The receiver's side of a link: what a frame does here. What whole buckets do is in [`crate::adopt`].

use std::collections::{BTreeMap, BTreeSet};

use mangrove_crdt::{
    delta::Bases,
    frontier::{DotIx, OriginIx, Origins},
    id::{Plane, SectionId},
    path::{BUCKETS, Path},
    replica::Replica,
    sabotage::{Sabotage, is},
    section::{Frontiers, StandingKey, ValueRun},
    series::ValueKey,
    time::Instant,
    tree::{Tree, TreeError},
};

use crate::{
    GROUP_BUCKETS, Violation,
    batch::{Batch, Unpacker, unpack_tree},
    codec::{Malformed, NamesIn, Reader},
    flood::{self, Message},
    gossip::{Gossip, Pulse, RELAY_PAUSE},
    link::{Arriving, HeldEnd, Intent, LaneIn, Link, Said, Serving, Shared},
    message::{BlobPiece, Content, Control, LaneOf, Letter, Report, WIRE, WIRE_MIN, unpack_frontiers},
    retired::Retired,
    send::{buckets_of, frontiers_hash, short},
};

/// How many lanes a peer may open: three planes, messages and the bulk of each of eight hundred sections.
const LANES_MAX: usize = 4_096;

/// How much may wait for the `Hello` or `Holds` that it has overtaken.
const EARLY_BYTES_MAX: usize = 4 * crate::FRAME_BYTES_MAX;

/// What a frame has done that concerns more than its link.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    /// The section's tree has moved: value runs that waited for it may end, on every link.
    pub tree_moved: Option<SectionId>,
    /// A bucket was found to differ although both sides cover it.
    pub mismatch: Option<(SectionId, u16)>,
    /// The section is to be adopted from this peer.
    pub adopt: Option<SectionId>,
    /// An adoption of this section is complete.
    pub adopted: Option<SectionId>,
    /// Messages to topics came.
    pub messages: Vec<Message>,
    /// A letter came.
    pub letter: Option<Letter>,
    /// A piece of a blob came, or that it is not there.
    pub blob: Option<BlobPiece>,
}

impl Effects {
    fn join(&mut self, other: Effects) {
        self.tree_moved = self.tree_moved.or(other.tree_moved);
        self.mismatch = self.mismatch.or(other.mismatch);
        self.adopt = self.adopt.or(other.adopt);
        self.adopted = self.adopted.or(other.adopted);
        self.messages.extend(other.messages);
        self.letter = self.letter.take().or(other.letter);
        self.blob = self.blob.take().or(other.blob);
    }
}

impl Link {
    pub(crate) fn handle_frame(
        &mut self,
        now: Instant,
        replica: &mut Replica,
        gossip: &mut Gossip,
        lane: u32,
        frame: &[u8],
    ) -> Result<Effects, Violation> {
        self.idle = None;
        self.stats.frames_in += 1;
        self.stats.bytes_in += frame.len() as u64;
        self.refresh(replica);
        if lane != 0 {
            return self.handle_lane(replica, lane, frame);
        }
        self.refreshed = 0;
        let mut effects = match Control::decode(frame)? {
            Some(control) => self.handle_control(now, replica, gossip, control)?,
            None => Effects::default(),
        };
        for (lane, frame) in std::mem::take(&mut self.early) {
            effects.join(self.handle_lane(replica, lane, &frame)?);
        }
        Ok(effects)
    }

    /// A frame of a section's lane. Lanes are streams of their own, so it may have overtaken the control message that it builds
    /// on; then it waits here.
    fn handle_lane(&mut self, replica: &mut Replica, lane: u32, frame: &[u8]) -> Result<Effects, Violation> {
        let of = self.lanes_in.get(&lane).and_then(|lane| lane.of);
        let known = of.and_then(|of| self.peer_holdings.get(&of.section)).copied().unwrap_or(0);
        let ended = |of: LaneOf| known > of.holding || (known == of.holding && !self.peer_holds.contains_key(&of.section));
        if of.is_some_and(|of| known > 0 && ended(of)) {
            return Ok(Effects::default()); // the peer has given the section up since
        }
        let unannounced = of.is_some_and(|of| replica.section(of.section).is_some() && known < of.holding);
        let early = self.origin.is_none() || unannounced || self.early.iter().any(|(waiting, _)| *waiting == lane);
        if early {
            let waiting: usize = self.early.iter().map(|(_, frame)| frame.len()).sum();
            if waiting + frame.len() > EARLY_BYTES_MAX {
                return Err(Violation::TooEarly);
            }
            self.early.push_back((lane, frame.to_vec()));
            return Ok(Effects::default());
        }
        match Content::decode(frame)? {
            Some(content) => self.handle_content(replica, lane, content),
            None => Ok(Effects::default()),
        }
    }

    fn handle_control(&mut self, now: Instant, replica: &mut Replica, gossip: &mut Gossip, control: Control) -> Result<Effects, Violation> {
        let mut effects = Effects::default();
        if self.origin.is_none() && !matches!(control, Control::Hello(_)) {
            return Err(Violation::NoHello);
        }
        let names = &mut self.names_in;
        match control {
            Control::Hello(hello) => {
                if hello.version < WIRE_MIN || hello.version_min > WIRE {
                    return Err(Violation::Version { theirs: (hello.version_min, hello.version) });
                }
                if hello.origin.node != self.peer {
                    return Err(Violation::OtherNode { said: hello.origin.node });
                }
                self.origin = Some(hello.origin);
                self.peer_metered = hello.metered;
                self.peer_bases_bytes = usize::try_from(hello.bases_bytes).unwrap_or(usize::MAX);
                self.peer_compressed = hello.compressed;
            }
            Control::Holds(holds) => {
                let frontiers = unpack_frontiers(&holds.frontiers, names, &mut |origin| intern(replica, origin))?;
                let floors = unpack_frontiers(&holds.floors, names, &mut |origin| intern(replica, origin))?;
                let retired = Retired::unpack(&holds.retired, names, &mut |origin| intern(replica, origin))?;
                self.drop_shared(replica, holds.section);
                self.peer_holds.remove(&holds.section);
                self.unclear.remove(&holds.section);
                let ours = replica.section(holds.section).map(|section| section.frontiers()).unwrap_or_default();
                let Some(frontiers) = retired.join(replica.origins(), frontiers, &ours) else {
                    // To be asked for at once if the section is held here, otherwise once it is.
                    self.unclear.insert(holds.section, holds.holding);
                    return Ok(effects);
                };
                if let Some((section, _)) = replica.parts(holds.section) {
                    section.raise_clock(holds.clock);
                    section.raise_epoch(holds.epoch);
                }
                let (holding, clock, epoch) = (holds.holding, holds.clock, holds.epoch);
                let said = Said { holding, frontiers: frontiers.clone(), floors: floors.clone(), clock, epoch };
                self.heard.insert(holds.section, said);
                self.peer_holds.insert(holds.section, (frontiers, floors));
                self.peer_holdings.insert(holds.section, holds.holding);
                effects.adopt = self.share(replica, holds.section);
            }
            Control::Unfold(of) => {
                if self.said.get(&of.section).is_some_and(|said| said.holding == of.holding) {
                    // Before whatever is to be said of the section: none of it would be understood. Nor was what has been said since.
                    self.intents.push_front(Intent::HoldsUnfolded(of.section));
                    if self.shared.get(&of.section).and_then(|shared| shared.adopting.as_ref()).is_some_and(|adopting| !adopting.begun) {
                        self.intend(Intent::AdoptRequest(of.section));
                    }
                }
            }
            Control::Unholds(of) => {
                self.drop_shared(replica, of.section);
                self.unclear.remove(&of.section);
                self.peer_holds.remove(&of.section);
                self.peer_holdings.insert(of.section, of.holding);
            }
            Control::Graft(graft) => {
                let mut r = Reader::new("graft", &graft.dot);
                let dot = r.dot(names, &mut |origin| intern(replica, origin))?;
                if let (Some(shared), Some((section, _))) = (self.shared.get_mut(&graft.section), replica.parts(graft.section)) {
                    let feed = (graft.plane, dot.origin);
                    shared.lazy.remove(&feed);
                    shared.quiet[graft.plane as usize] = 0;
                    let covered = shared.runs.get(&feed).is_some_and(|run| run.above <= dot.number);
                    if !covered {
                        if let Some(run) = shared.runs.remove(&feed) {
                            match graft.plane {
                                Plane::Standing => section.standing.close_run(dot.origin, run.id),
                                Plane::Values => section.values.close_run(dot.origin, run.id),
                                Plane::Tree => {}
                            }
                        }
                        shared.peer[graft.plane].set(dot.origin, dot.number);
                    }
                }
            }
            Control::Prune(feed) => {
                let mut r = Reader::new("prune", &feed.origin);
                let origin = r.origin(names, &mut |origin| intern(replica, origin))?;
                if let Some(shared) = self.shared.get_mut(&feed.section) {
                    shared.lazy.insert((feed.plane, origin));
                }
            }
            Control::Pulses(packed) => {
                let mut r = Reader::new("pulses", &packed.packed);
                for _ in 0..r.count()? {
                    let origin = r.origin(names, &mut |origin| intern(replica, origin))?;
                    let pulse = Pulse { origin, count: r.u64()? };
                    let node = replica.origins().get(origin).node;
                    if gossip.pulse(replica.origins(), pulse) {
                        self.told.pulses.insert(node, pulse);
                        gossip.heard_by(node, self.peer);
                        replica.members.heard(node, now.0);
                    }
                }
            }
            Control::Report(report) => self.handle_report(now, replica, gossip, &report)?,
            // Of members that nothing was reported of there is nothing to leave out, nor to remember.
            Control::Relay(relay) if gossip.reported(&relay.member).is_some() => {
                self.told.relay(now, relay.member, relay.wanted);
            }
            Control::Relay(_) => {}
            Control::Letter(letter) => effects.letter = Some(letter),
            Control::Behind(of) => {
                if self.shared.get(&of.section).is_some_and(|shared| shared.adopting.is_none()) {
                    effects.adopt = Some(of.section);
                }
            }
            Control::AdoptRequest(request) => {
                let mut r = Reader::new("adopt request", &request.digests);
                let mut theirs = BTreeMap::new();
                for _ in 0..r.count()? {
                    let bucket = bucket(&mut r)?;
                    theirs.insert(bucket, digest(&mut r)?);
                }
                if let (Some(shared), Some((section, _))) = (self.shared.get_mut(&request.section), replica.parts(request.section)) {
                    close_runs(shared, section);
                    shared.serving = Some(Serving { theirs, request: request.request, next: 0, begun: false, start: Frontiers::default() });
                }
            }
            Control::Check(check) => {
                if let (Some(shared), Some((section, cx))) = (self.shared.get_mut(&check.section), replica.parts(check.section)) {
                    let equal = frontiers_hash(cx.origins, &section.frontiers()) == check.frontiers;
                    let intent = match check.root {
                        Some(root) if equal => {
                            if short(&section.digest_over(cx.origins, 0..BUCKETS)) == root {
                                shared.proved_equal = Some(now);
                                Intent::Checked(check.section)
                            } else {
                                Intent::Groups(check.section)
                            }
                        }
                        _ => Intent::Buckets(check.section, check.group % (BUCKETS / GROUP_BUCKETS)),
                    };
                    self.intend(intent);
                }
            }
            Control::Checked(of) => {
                if let Some(shared) = self.shared.get_mut(&of.section) {
                    shared.proved_equal = Some(now);
                }
            }
            Control::Groups(groups) => {
                if groups.digests.len() != usize::from(BUCKETS / GROUP_BUCKETS) {
                    return Err(Malformed::new("groups", format!("{} of them", groups.digests.len())).into());
                }
                let Some((section, cx)) = replica.parts(groups.section) else { return Ok(effects) };
                let ours: Vec<u64> =
                    (0..BUCKETS / GROUP_BUCKETS).map(|group| short(&section.digest_over(cx.origins, buckets_of(group)))).collect();
                for (group, _) in ours.iter().zip(&groups.digests).enumerate().filter(|(_, (ours, theirs))| ours != theirs) {
                    self.intend(Intent::Buckets(groups.section, group as u16));
                }
            }
            Control::Buckets(buckets) => {
                let mut r = Reader::new("buckets", &buckets.buckets);
                let mut theirs = Frontiers::default();
                for plane in Plane::ALL {
                    theirs[plane] = r.frontier(names, &mut |origin| intern(replica, origin))?;
                }
                if let Some(heard) = self.heard.get(&buckets.section) {
                    theirs.join(&heard.frontiers);
                }
                // What has come to the peer of retired runs over other links, it does not report by number.
                if let Some(shared) = self.shared.get_mut(&buckets.section) {
                    shared.peer.join(&theirs);
                }
                if buckets.group >= BUCKETS / GROUP_BUCKETS {
                    return Err(r.bad(format!("group {}", buckets.group)).into());
                }
                // Who is to adopt differs without fault.
                let adopts = self.shared.get(&buckets.section).is_none_or(|shared| shared.adopting.is_some())
                    || replica.section(buckets.section).is_none_or(|section| section.is_below_floor(&theirs));
                let (mut differ, mut remains) = (None, Vec::new());
                for bucket in buckets_of(buckets.group) {
                    let digest = digest(&mut r)?;
                    let mut dots = Vec::new();
                    for plane in Plane::ALL {
                        let of_plane = r.dots(names, &mut |origin| intern(replica, origin))?;
                        dots.extend(of_plane.into_iter().map(|dot| (plane, dot)));
                    }
                    let Some((section, cx)) = replica.parts(buckets.section) else { continue };
                    let ours = section.digest(cx.origins, bucket);
                    let suspects = self.shared.get_mut(&buckets.section).map(|shared| &mut shared.suspects);
                    let before = suspects.and_then(|suspects| suspects.remove(&bucket));
                    if short(&ours.digest) == digest || adopts {
                        continue;
                    }
                    let our_dots = Plane::ALL.iter().flat_map(|plane| ours.dots[*plane as usize].iter().map(move |dot| (*plane, *dot)));
                    let our_dots: Vec<_> = our_dots.collect();
                    let covered = |(plane, dot): &(Plane, DotIx)| (section.frontier(*plane).covers(*dot), theirs[*plane].covers(*dot));
                    let we_cover = dots.iter().all(|dot| covered(dot).0);
                    let they_cover = our_dots.iter().all(|dot| covered(dot).1);
                    if we_cover && they_cover {
                        differ = differ.or(Some(bucket));
                    } else if dots.iter().chain(&our_dots).map(covered).all(|(ours, theirs)| ours == theirs) {
                        // Beyond both frontiers: it is on its way, or the remains of a run whose sender is gone. If nothing has moved by the
                        // next comparison, it is mended like these.
                        let seen = (short(&ours.digest), digest);
                        if before == Some(seen) {
                            remains.push(bucket);
                        } else if let Some(shared) = self.shared.get_mut(&buckets.section) {
                            shared.suspects.insert(bucket, seen);
                        }
                    }
                }
                for bucket in remains {
                    self.mend(buckets.section, bucket);
                }
                if let Some(bucket) = differ {
                    effects.mismatch = Some((buckets.section, bucket));
                    self.mend(buckets.section, bucket);
                    // The rest of the group follows once this bucket is mended.
                    self.intend(Intent::Check(buckets.section));
                }
            }
            Control::BlobRequest(request) => {
                if let Some(shared) = self.shared.get_mut(&request.section) {
                    shared.blob_asked = Some((request.hash, request.offset));
                }
            }
            Control::RepairRequest(of) => self.send_repair(of.section, of.bucket % BUCKETS),
            Control::TopicRequest(of) => {
                let topic = Reader::new("topic request", &of.topic).dot(names, &mut |origin| intern(replica, origin))?;
                let tree = replica.section(of.section).map(|section| &section.tree);
                let lives = |tree: &Tree| tree.path_of(topic).map(Path::bucket);
                let bygone = |tree: &Tree| tree.bygone(replica.origins(), &[topic].into()).remove(&topic);
                if let Some(bucket) = tree.and_then(|tree| lives(tree).or_else(|| bygone(tree))) {
                    self.send_repair(of.section, bucket);
                }
            }
        }
        Ok(effects)
    }

    /// A bucket is to be sent, and the peer's own to come back.
    fn send_repair(&mut self, section: SectionId, bucket: u16) {
        if let Some(shared) = self.shared.get_mut(&section).filter(|shared| !shared.repairs.contains(&(bucket, true))) {
            shared.repairs.push_back((bucket, true));
        }
    }

    fn handle_report(&mut self, now: Instant, replica: &mut Replica, gossip: &mut Gossip, report: &Report) -> Result<(), Violation> {
        let mut r = Reader::new("report", &report.moved);
        let mut moved = Vec::new();
        for _ in 0..r.count()? {
            let section = SectionId(r.u64()?);
            let plane = usize::try_from(r.u64()?).ok().and_then(|plane| Plane::ALL.get(plane).copied());
            let plane = plane.ok_or_else(|| r.bad("a plane"))?;
            moved.push((section, plane, r.dot(&mut self.names_in, &mut |origin| intern(replica, origin))?));
        }
        let mut r = Reader::new("report", &report.member);
        let member = r.origin(&mut self.names_in, &mut |origin| intern(replica, origin))?;
        let node = replica.origins().get(member).node;
        let mut r = Reader::new("retired runs", &report.retired);
        let mut retired = Vec::new();
        while !r.is_done() {
            let section = SectionId(r.u64()?);
            retired.push((section, Retired::read(&mut r, &mut self.names_in, &mut |origin| intern(replica, origin))?));
        }
        if node == self.peer {
            for (section, plane, dot) in &moved {
                if let Some(shared) = self.shared.get_mut(section) {
                    shared.peer[*plane].raise(dot.origin, dot.number);
                }
                if let Some((frontiers, _)) = self.peer_holds.get_mut(section) {
                    frontiers[*plane].raise(dot.origin, dot.number);
                }
            }
        }
        let sections = moved.iter().map(|(section, ..)| *section).chain(retired.iter().map(|(section, _)| *section));
        let sections: BTreeSet<SectionId> = sections.collect();
        if node == replica.own().node {
            return Ok(());
        }
        if gossip.report(replica.origins(), member, report.version, moved, retired) {
            self.told.reports.insert(node, (member, report.version));
            for section in sections {
                gossip.count_report(replica, node, section);
            }
            gossip.came_by(node, self.peer);
            if self.declined.remove(&node).is_some() {
                self.intend(Intent::Relay(node, true));
            }
        } else if gossip.comes_elsewhere(node, self.peer) && self.declined.get(&node).is_none_or(|told| now.since(*told) >= RELAY_PAUSE / 2)
        {
            self.declined.insert(node, now);
            self.intend(Intent::Relay(node, false));
        }
        Ok(())
    }

    fn handle_content(&mut self, replica: &mut Replica, lane: u32, content: Content) -> Result<Effects, Violation> {
        if self.lanes_in.len() >= LANES_MAX && !self.lanes_in.contains_key(&lane) {
            return Err(Violation::TooManyLanes);
        }
        let entry = self.lanes_in.entry(lane).or_default();
        let of = match (entry.of, &content) {
            (None, Content::Lane(of)) => {
                entry.of = Some(*of);
                entry.bases = Bases::new(if of.plane == Some(Plane::Values) { self.limits.bases_bytes } else { 0 });
                return Ok(Effects::default());
            }
            (Some(of), _) => of,
            (None, _) => return Err(Malformed::new("lane", "content before it is said what it is of").into()),
        };
        // Names are read even where nothing is shared, or later frames could not be.
        let mut said = std::mem::take(entry);
        let effects = self.handle_of(replica, of, content, &mut said);
        self.lanes_in.insert(lane, said);
        effects
    }

    fn handle_of(&mut self, replica: &mut Replica, of: LaneOf, content: Content, lane: &mut LaneIn) -> Result<Effects, Violation> {
        let names = &mut lane.names;
        match content {
            Content::Lane(_) => Err(Malformed::new("lane", "it was said before what this is of").into()),
            Content::Batch(batch) => match of.plane {
                Some(Plane::Tree) => self.tree_batch(replica, of.section, &batch.packed, names),
                Some(plane) => self.register_batch(replica, of.section, plane, &batch.packed, lane),
                None => Err(Malformed::new("lane", "a batch among the bulk").into()),
            },
            Content::AdoptBegin(begin) => self.adopt_begin(replica, of.section, &begin, names),
            Content::AdoptBuckets(images) => {
                self.adopt_buckets(replica, of.section, &images.after(std::mem::take(&mut lane.pieces)), names)
            }
            Content::Piece(piece) => {
                if lane.pieces.len() + piece.bytes.len() > crate::BULK_UNPACKED_BYTES_MAX {
                    return Err(Malformed::new("buckets", "too many pieces").into());
                }
                lane.pieces.extend(piece.bytes);
                Ok(Effects::default())
            }
            Content::AdoptEnd(end) => self.adopt_end(replica, of.section, &end, names),
            Content::Messages(packed) => {
                let mut r = Reader::new("messages", &packed.packed);
                let mut effects = Effects::default();
                for _ in 0..r.count()? {
                    effects.messages.push(flood::unpack(of.section, &mut r, names, &mut |origin| intern(replica, origin))?);
                }
                if !self.shared.contains_key(&of.section) {
                    effects.messages.clear();
                }
                Ok(effects)
            }
            Content::Blob(piece) => Ok(Effects { blob: Some(piece), ..Effects::default() }),
            Content::Repair(repair) => self.repair(replica, of.section, repair, std::mem::take(&mut lane.pieces), names),
        }
    }

    fn tree_batch(&mut self, replica: &mut Replica, id: SectionId, packed: &[u8], names: &mut NamesIn) -> Result<Effects, Violation> {
        let mut effects = Effects::default();
        let mut r = Reader::new("tree records", packed);
        let batch = Batch::unpack(&mut r, names, &mut |origin| intern(replica, origin))?;
        let origin = batch.origin;
        let mut records = Vec::new();
        for _ in 0..batch.count {
            records.push(unpack_tree(&mut r, names, &mut |origin| intern(replica, origin))?);
        }
        self.stats.records_in += records.len() as u64;
        let Some(shared) = self.shared.get_mut(&id) else { return Ok(effects) };
        let Some((section, mut cx)) = replica.parts(id) else { return Ok(effects) };
        let before = section.tree.frontier().get(origin);
        for record in records {
            if section.merge_tree(&mut cx, origin, record)? {
                effects.tree_moved = Some(id);
            }
        }
        shared.peer[Plane::Tree].raise(origin, batch.upto);
        if batch.upto <= before && shared.pruned.insert((Plane::Tree, origin)) {
            self.intend(Intent::Prune(id, Plane::Tree, origin));
        }
        Ok(effects)
    }

    fn register_batch(
        &mut self,
        replica: &mut Replica,
        id: SectionId,
        plane: Plane,
        packed: &[u8],
        LaneIn { names, bases, tree_heard, told, .. }: &mut LaneIn,
    ) -> Result<Effects, Violation> {
        let mut r = Reader::new("records", packed);
        let batch = Batch::unpack(&mut r, names, &mut |origin| intern(replica, origin))?;
        let origin = batch.origin;
        let mut values = Vec::new();
        let mut standing = Vec::new();
        match plane {
            Plane::Values => {
                let mut unpacker = Unpacker::<ValueKey>::new(r.rest(), Some(origin), batch.from);
                for _ in 0..batch.count {
                    values.push(unpacker.next(names, &mut |origin| intern(replica, origin), Some(&mut *bases))?);
                }
                r = unpacker.r;
            }
            _ => {
                let mut unpacker = Unpacker::<StandingKey>::new(r.rest(), Some(origin), batch.from);
                for _ in 0..batch.count {
                    standing.push(unpacker.next(names, &mut |origin| intern(replica, origin), None)?);
                }
                r = unpacker.r;
            }
        }
        let tree = if r.is_done() { Default::default() } else { r.dots(names, &mut |origin| intern(replica, origin))? };
        if let Some(heard) = self.heard.get(&id).filter(|_| !std::mem::replace(told, true)) {
            tree_heard.join(&heard.frontiers[Plane::Tree]);
        }
        for dot in tree {
            tree_heard.raise(dot.origin, dot.number);
        }
        self.stats.records_in += (values.len() + standing.len()) as u64;
        let Some(shared) = self.shared.get_mut(&id) else { return Ok(Effects::default()) };
        let Some((section, mut cx)) = replica.parts(id) else { return Ok(Effects::default()) };
        let feed = (plane, origin);
        let frontier = section.frontier(plane).get(origin);
        let held = shared.held.iter().flat_map(|held| &held.runs).filter(|run| run.origin == origin && plane == Plane::Values);
        let held = held.map(|run| run.upto).max();
        let continues = shared.arriving.get(&feed).is_some_and(|arriving| arriving.upto == batch.from);
        if !continues {
            if batch.from > frontier.max(held.unwrap_or(0)) {
                // Something between was missed (a graft crossed a run, or the section was dropped and held again).
                shared.arriving.remove(&feed);
                match &mut shared.adopting {
                    // It may build on what the adoption brings, and have overtaken its end.
                    Some(adopting) => {
                        adopting.missed.insert(feed);
                    }
                    None => self.intend(Intent::Graft(id, plane, origin)),
                }
                return Ok(Effects::default());
            }
            shared.arriving.insert(feed, Arriving::default());
        }
        let arriving = shared.arriving.entry(feed).or_default();
        arriving.upto = batch.upto;
        arriving.news |= batch.upto > frontier;
        for (number, key, write) in values {
            let topic = key.topic();
            if !is_known(section, topic) && arriving.unknown.last() != Some(&topic) {
                arriving.unknown.push(topic);
            }
            if let Some(stands) = section.merge_value(&mut cx, key, write) {
                arriving.values.push((number, stands));
            }
        }
        for (number, key, write) in standing {
            section.merge_standing(&mut cx, &key, write);
            arriving.standing.push((number, key));
        }
        if is(Sabotage::Early) {
            for (number, key) in std::mem::take(&mut arriving.values) {
                section.values.take_positions(origin, [(number, key)]);
                let dot = section.values.get(&key).map(|write| write.dot);
                dot.into_iter().for_each(|dot| section.values.take_positions(dot.origin, [(dot.number, key)]));
            }
            for (number, key) in std::mem::take(&mut arriving.standing) {
                let dot = section.standing.get(&key).map(|write| write.dot);
                dot.into_iter().for_each(|dot| section.standing.take_positions(dot.origin, [(dot.number, key.clone())]));
                section.standing.take_positions(origin, [(number, key)]);
            }
        }
        if is(Sabotage::OpenRun) && !batch.last {
            section.values.end_run(origin, if plane == Plane::Values { batch.upto } else { 0 }, arriving.values.clone());
            section.standing.end_run(origin, if plane == Plane::Standing { batch.upto } else { 0 }, arriving.standing.clone());
        }
        shared.peer[plane].raise(origin, batch.upto);
        if batch.last {
            let arriving = shared.arriving.remove(&feed).unwrap_or_default();
            match plane {
                Plane::Values => {
                    let tree = tree_heard.clone();
                    let run = ValueRun { origin, upto: batch.upto, positions: arriving.values, floor: 0 };
                    shared.held.push_back(HeldEnd { runs: vec![run], tree, unknown: arriving.unknown });
                    release_held(shared, section);
                }
                _ => section.standing.end_run(origin, batch.upto, arriving.standing),
            }
            if !arriving.news && shared.pruned.insert(feed) {
                self.intend(Intent::Prune(id, plane, origin));
            }
        }
        Ok(Effects::default())
    }

    /// Begins anew with sections that were given up, or held again, since this link last looked.
    pub(crate) fn refresh(&mut self, replica: &Replica) {
        if std::mem::replace(&mut self.refreshed, replica.turnover()) == replica.turnover() {
            return;
        }
        let stale = |id: &SectionId, shared: &Shared| replica.holding(*id) != Some(shared.holding);
        if self.shared.iter().any(|(id, shared)| stale(id, shared)) {
            self.shared.retain(|id, shared| !stale(id, shared));
            self.lanes_out.retain(|of, _| replica.holding(of.section) == Some(of.holding));
        }
        if !self.unclear.is_empty() {
            let (held, other) = std::mem::take(&mut self.unclear).into_iter().partition(|(id, _)| replica.holding(*id).is_some());
            self.unclear = other;
            BTreeMap::into_iter(held).for_each(|(id, holding)| self.intend(Intent::Unfold(id, holding)));
        }
        if self.shared.len() < self.peer_holds.len() {
            let both = self.peer_holds.keys().filter(|id| !self.shared.contains_key(id) && replica.holding(**id).is_some());
            for id in both.copied().collect::<Vec<_>>() {
                self.share(replica, id);
            }
        }
    }

    /// Begins to exchange a section that both ends hold. Says whether it must be adopted from this peer.
    pub(crate) fn share(&mut self, replica: &Replica, id: SectionId) -> Option<SectionId> {
        let (frontiers, _) = self.peer_holds.get(&id)?;
        replica.section(id)?;
        let holding = replica.holding(id)?;
        self.idle = None;
        self.shared.entry(id).or_insert_with(|| Shared { peer: frontiers.clone(), holding, ..Shared::default() });
        self.must_adopt(replica, id).then_some(id)
    }

    /// Ends the exchange of a section; runs in progress are dropped.
    pub(crate) fn drop_shared(&mut self, replica: &mut Replica, id: SectionId) {
        if let (Some(mut shared), Some((section, _))) = (self.shared.remove(&id), replica.parts(id)) {
            close_runs(&mut shared, section);
        }
    }

    /// The tree of a section has moved: value runs that waited for it end (R9).
    pub(crate) fn tree_moved(&mut self, replica: &mut Replica, id: SectionId) {
        if let (Some(shared), Some((section, _))) = (self.shared.get_mut(&id), replica.parts(id)) {
            release_held(shared, section);
        }
    }
}

/// Whether a topic is there, or was and is not any more. It may be there before the tree's frontier covers it: an adoption that is under way brings topics, and so
/// does a repair; and clients of that node write them.
pub(crate) fn is_known(section: &mangrove_crdt::section::Section, topic: DotIx) -> bool {
    section.tree.frontier().covers(topic) || section.tree.path_of(topic).is_some()
}

pub(crate) fn release_held(shared: &mut Shared, section: &mut mangrove_crdt::section::Section) {
    // In order: a later run of a feed builds on the earlier one's end.
    let may_end = |held: &mut HeldEnd, section: &mangrove_crdt::section::Section| {
        held.unknown.retain(|topic| !is_known(section, *topic) && !is(Sabotage::NoTopics));
        (section.tree.frontier().covers_all(&held.tree) && held.unknown.is_empty()) || is(Sabotage::NoTree)
    };
    while shared.held.front_mut().is_some_and(|held| may_end(held, section)) {
        for run in shared.held.pop_front().into_iter().flat_map(|held| held.runs) {
            section.end_value_run(run);
        }
    }
}

fn close_runs(shared: &mut Shared, section: &mut mangrove_crdt::section::Section) {
    for ((plane, origin), run) in std::mem::take(&mut shared.runs) {
        match plane {
            Plane::Standing => section.standing.close_run(origin, run.id),
            Plane::Values => section.values.close_run(origin, run.id),
            Plane::Tree => {}
        }
    }
}

fn bucket(r: &mut Reader<'_>) -> Result<u16, Malformed> {
    u16::try_from(r.u64()?).ok().filter(|bucket| *bucket < BUCKETS).ok_or_else(|| r.bad("a bucket's number"))
}

fn digest(r: &mut Reader<'_>) -> Result<u64, Malformed> {
    Ok(u64::from_be_bytes(r.take(8)?.try_into().map_err(|_| r.bad("a digest"))?))
}

pub(crate) fn intern(replica: &mut Replica, origin: mangrove_crdt::id::Origin) -> Option<OriginIx> {
    (replica.origins().len() < Origins::COUNT_MAX || replica.origins().find(&origin).is_some()).then(|| replica.intern(origin))
}

impl From<TreeError> for Violation {
    fn from(error: TreeError) -> Self {
        Violation::Tree(error.to_string())
    }
}
