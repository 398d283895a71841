//! Blobs are pulled: whoever lacks one that a definition names asks one neighbour at a time for its next piece.
//!
//! ```text
//!   wanted ──ask──▶ asked ──piece──▶ asked for the next ──last piece──▶ BLAKE3 ──right──▶ the replica has it
//!     ▲               │ "not here", link down, silence                    │ wrong
//!     └───────────────┴── what has come stays ◀────────────────────────── └── what has come is forgotten, and who sent it comes last
//! ```
//!
//! Only neighbours are asked that hold a section whose definition names the blob, and they serve it for no other reason. A neighbour that lacks it wants it, too, and is asked
//! again after [`RETRY`], and then after twice as long each time, up to [`RETRY_MAX`]: so it comes along any chain of nodes that hold the section, and one that was lost with the only node
//! that had it costs next to nothing. At most one request is outstanding on a link, and its answer is one piece on the
//! section's bulk lane, so that blobs never fill a link, whatever there is to fetch.
//!
//! A blob proves itself only as a whole. Until then its pieces may come from several neighbours; if the whole is not what its name says, all of these are *suspects* for this blob, and
//! whoever is suspected least is asked first from then on. A blob is not smaller than it says, so who tells another length than was told before lies, or the other does: that ends a
//! try like a wrong whole.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use mangrove_crdt::{
    blob::{BLOB_BYTES_MAX, BlobHash, Blobs},
    id::{NodeId, SectionId},
    replica::Replica,
    sabotage::{Sabotage, is},
    time::Instant,
};

use crate::{
    BLOB_PIECE_BYTES_MAX,
    link::{Intent, LinkId, Shared},
    mesh::{Limits, Mesh},
    message::{BlobPiece, BlobRequest},
};

/// After how long a neighbour is asked again that did not have a blob, for the first time. Looked at every `graft_after / 2`.
pub const RETRY: Duration = Duration::from_secs(1);

/// The most that grows to.
pub const RETRY_MAX: Duration = Duration::from_secs(16);

/// After how long a neighbour is taken for silent, and the next is asked: a piece may come last on a slow link.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// How many blobs may have come in part: so many times [`BLOB_BYTES_MAX`] is what their bytes take at most.
pub const PARTS_MAX: usize = 4;

/// After how long without another piece what has come of a blob makes room for others.
const STALE: Duration = Duration::from_secs(30);

/// After how long it is seen again whether there is room for a blob for which there was none.
const ROOM_RETRY: Duration = Duration::from_secs(60);

/// How many blobs that are wanted are looked at in one go.
const LOOK_MAX: usize = 256;

/// The blobs that are being fetched.
#[derive(Debug, Default)]
pub(crate) struct Fetching {
    fetches: BTreeMap<BlobHash, Fetch>,
    /// The one that was looked at last: whose turn it is comes after it.
    turn: Option<BlobHash>,
    /// How often what is missing had changed when it was looked at last.
    seen: u64,
    lies: u64,
}

#[derive(Debug, Default)]
struct Fetch {
    /// What has come, and how much it is to be.
    bytes: Vec<u8>,
    total: Option<u64>,
    /// Who has sent it.
    from: BTreeSet<NodeId>,
    /// Who has been asked, and when.
    asked: Option<(LinkId, Instant)>,
    /// Who did not have it, or was silent, when it may be asked again, and how long that was put off.
    later: BTreeMap<LinkId, (Instant, Duration)>,
    /// In how many tries that came to something wrong each has had a part.
    suspects: BTreeMap<NodeId, u32>,
    /// When the last piece came.
    moved: Instant,
    /// When it may be asked for again, since there was no room for it.
    room_due: Instant,
}

/// A neighbour that could be asked.
#[derive(Debug, Clone, Copy)]
struct Neighbour {
    link: LinkId,
    node: NodeId,
    section: SectionId,
}

/// What came of a piece.
#[derive(Debug, PartialEq, Eq)]
enum Took {
    /// It was not asked for, or has come twice.
    Nothing,
    /// There is more to be asked for, here or elsewhere.
    Part,
    /// This is the blob.
    Whole(Vec<u8>),
    /// What has come is wrong. These are suspected for the first time.
    Wrong(Vec<NodeId>),
}

impl Fetch {
    fn begin_anew(&mut self) {
        (self.bytes, self.total, self.from) = Default::default();
    }

    /// What has come is wrong. Returns who is suspected for the first time.
    fn suspect(&mut self) -> Vec<NodeId> {
        let mut fresh = Vec::new();
        for node in &self.from {
            let times = self.suspects.entry(*node).or_default();
            *times += 1;
            fresh.extend((*times == 1).then_some(*node));
        }
        self.begin_anew();
        fresh
    }

    fn put_off(&mut self, now: Instant, link: LinkId) {
        let by = self.later.get(&link).map_or(RETRY, |(_, before)| (*before * 2).min(RETRY_MAX));
        self.later.insert(link, (now.after(by), by));
    }

    fn take(&mut self, now: Instant, link: LinkId, node: NodeId, piece: BlobPiece) -> Took {
        if self.asked.is_none_or(|(asked, _)| asked != link) {
            return Took::Nothing;
        }
        let Some(total) = piece.total else {
            self.asked = None;
            self.put_off(now, link);
            return Took::Part;
        };
        if piece.offset != self.bytes.len() as u64 {
            return Took::Nothing;
        }
        self.asked = None;
        self.later.remove(&link);
        self.from.insert(node);
        self.moved = now;
        let after = piece.offset.saturating_add(piece.bytes.len() as u64);
        let sound = total <= BLOB_BYTES_MAX as u64
            && self.total.is_none_or(|told| told == total)
            && after <= total
            && (after == total || !piece.bytes.is_empty());
        if !sound {
            return Took::Wrong(self.suspect());
        }
        self.total = Some(total);
        self.bytes.extend(piece.bytes);
        match after == total && BlobHash::of(&self.bytes) == piece.hash {
            true => Took::Whole(std::mem::take(&mut self.bytes)),
            false if after == total => Took::Wrong(self.suspect()),
            false => Took::Part,
        }
    }

    /// The neighbour to be asked, if one may be: who is suspected least; among these whoever has sent of it already.
    fn choose(&self, now: Instant, neighbours: &[Neighbour], busy: &BTreeSet<LinkId>) -> Option<Neighbour> {
        let may = |link: &LinkId| !busy.contains(link) && self.later.get(link).is_none_or(|(later, _)| now >= *later);
        let suspected = |node: &NodeId| self.suspects.get(node).copied().unwrap_or(0);
        let rank = |neighbour: &&Neighbour| (suspected(&neighbour.node), !self.from.contains(&neighbour.node), neighbour.link);
        let free = neighbours.iter().filter(|neighbour| self.asked.is_none() && now >= self.room_due && may(&neighbour.link));
        free.min_by_key(rank).copied()
    }

    /// Whether there is anything to be remembered.
    fn is_live(&self, now: Instant) -> bool {
        self.room_due > now || !self.later.is_empty() || !self.bytes.is_empty() || self.asked.is_some() || !self.suspects.is_empty()
    }
}

impl Fetching {
    /// A link is gone: what was asked there is asked elsewhere.
    pub(crate) fn link_down(&mut self, link: LinkId) {
        for fetch in self.fetches.values_mut().filter(|_| !is(Sabotage::WaitsForever)) {
            fetch.later.remove(&link);
            fetch.asked.take_if(|(asked, _)| *asked == link);
        }
        // To be looked at with whatever happens next.
        self.seen = 0;
    }

    fn take(&mut self, now: Instant, link: LinkId, node: NodeId, piece: BlobPiece) -> Took {
        self.fetches.get_mut(&piece.hash).map_or(Took::Nothing, |fetch| fetch.take(now, link, node, piece))
    }

    /// Whom to ask for what. `neighbours` are those that hold one of some sections.
    fn seek(
        &mut self,
        now: Instant,
        blobs: &Blobs,
        neighbours: impl Fn(&BTreeSet<SectionId>) -> Vec<Neighbour>,
    ) -> Vec<(LinkId, BlobRequest)> {
        self.seen = blobs.changes();
        let mut busy = BTreeSet::new();
        self.fetches.retain(|hash, fetch| {
            if let Some((silent, _)) = fetch.asked.take_if(|(_, since)| now.since(*since) >= PATIENCE && !is(Sabotage::WaitsForever)) {
                fetch.put_off(now, silent);
            }
            if fetch.asked.is_none() && now.since(fetch.moved) >= STALE {
                fetch.begin_anew();
            }
            busy.extend(fetch.asked.map(|(link, _)| link));
            blobs.is_missing(hash) && fetch.is_live(now)
        });
        // What has come in part comes first, so that few have.
        let begun: Vec<BlobHash> = self.fetches.iter().filter(|(_, fetch)| !fetch.bytes.is_empty()).map(|(hash, _)| *hash).collect();
        let mut room =
            PARTS_MAX.saturating_sub(self.fetches.values().filter(|fetch| !fetch.bytes.is_empty() || fetch.asked.is_some()).count());
        let others: Vec<BlobHash> = blobs.missing_after(self.turn.as_ref()).take(LOOK_MAX).copied().collect();
        let (mut requests, none) = (Vec::new(), Fetch::default());
        for (hash, begins) in begun.into_iter().map(|hash| (hash, false)).chain(others.into_iter().map(|hash| (hash, true))) {
            let fetch = self.fetches.get(&hash).unwrap_or(&none);
            if begins && (room == 0 || !fetch.bytes.is_empty()) {
                continue;
            }
            self.turn = if begins { Some(hash) } else { self.turn };
            let Some(Neighbour { link, section, .. }) = fetch.choose(now, &neighbours(blobs.named_in(&hash)), &busy) else { continue };
            room -= usize::from(begins);
            busy.insert(link);
            let fetch = self.fetches.entry(hash).or_default();
            fetch.asked = Some((link, now));
            requests.push((link, BlobRequest { section, hash, offset: fetch.bytes.len() as u64 }));
        }
        requests
    }
}

impl Mesh {
    /// How often what came of a blob was not what it should be.
    pub fn blob_lies(&self) -> u64 {
        self.blobs.lies
    }

    /// Asks for what has been wanted since the last time.
    pub(crate) fn want_blobs(&mut self, now: Instant, replica: &Replica) {
        if self.blobs.seen != replica.blobs().changes() {
            self.seek_blobs(now, replica);
        }
    }

    /// Asks for what is wanted, of those who can be asked now.
    pub(crate) fn seek_blobs(&mut self, now: Instant, replica: &Replica) {
        let Mesh { blobs, links, .. } = self;
        let neighbours = |sections: &BTreeSet<SectionId>| {
            let shares = links.iter().filter_map(|(link, of)| {
                let section = sections.iter().find(|section| of.shared.contains_key(section))?;
                Some(Neighbour { link: *link, node: of.peer, section: *section })
            });
            shares.collect()
        };
        for (link, request) in blobs.seek(now, replica.blobs(), neighbours) {
            if let Some(link) = links.get_mut(&link) {
                link.intend(Intent::BlobRequest(request));
            }
        }
    }

    /// A piece of a blob has come, or that it is not there.
    pub(crate) fn take_piece(&mut self, now: Instant, replica: &mut Replica, id: LinkId, piece: BlobPiece) {
        let (hash, Some(peer)) = (piece.hash, self.links.get(&id).map(|link| link.peer)) else { return };
        let kept = match self.blobs.take(now, id, peer, piece) {
            Took::Nothing => return,
            Took::Whole(content) => replica.put_blob(content.into()).map(|_| ()),
            Took::Part => {
                let total = self.blobs.fetches.get(&hash).and_then(|fetch| fetch.total).unwrap_or(0);
                replica.blobs().room_for(total as usize)
            }
            Took::Wrong(fresh) => {
                self.blobs.lies += 1;
                for peer in fresh {
                    tracing::warn!(blob = %hash, peer = %peer.short(), "what came of a blob is not what its name says; others are asked first");
                }
                Ok(())
            }
        };
        if let (Err(why), Some(fetch)) = (kept, self.blobs.fetches.get_mut(&hash)) {
            tracing::warn!(blob = %hash, %why, "there is no room for a blob that a definition names");
            fetch.begin_anew();
            fetch.room_due = now.after(ROOM_RETRY);
        }
        self.seek_blobs(now, replica);
    }
}

/// The answer to what the peer has asked for. What no definition of the section names is not there for it.
pub(crate) fn answer(shared: &mut Shared, section: SectionId, blobs: &Blobs, limits: Limits) -> Option<BlobPiece> {
    let (hash, offset) = shared.blob_asked.take()?;
    let content = blobs.get(&hash).filter(|_| blobs.named_in(&hash).contains(&section));
    // Beyond its end there is nothing of it.
    let rest = content.and_then(|content| Some((content.len() as u64, content.get(usize::try_from(offset).ok()?..)?)));
    let length_max = limits.bulk_bytes.min(limits.batch_bytes).clamp(1, BLOB_PIECE_BYTES_MAX);
    Some(match rest {
        Some((total, rest)) => BlobPiece { hash, offset, total: Some(total), bytes: rest[..rest.len().min(length_max)].to_vec() },
        None => BlobPiece { hash, offset, total: None, bytes: Vec::new() },
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mangrove_crdt::{
        definition::{Definition, Properties, TopicType},
        id::{Incarnation, Origin},
        json_schema::JsonSchema,
        path::Path,
    };

    use super::*;

    const A: LinkId = LinkId(1);
    const B: LinkId = LinkId(2);

    fn node(link: LinkId) -> NodeId {
        NodeId([link.0 as u8; 32])
    }

    /// A node with topics that name these blobs.
    fn naming(hashes: &[BlobHash]) -> Replica {
        let mut replica = Replica::new(Origin { node: NodeId([9; 32]), incarnation: Incarnation { boot: 1, nonce: 1 } });
        let topic = |(at, hash): (usize, &BlobHash)| {
            let topic_type = TopicType::JsonAs(JsonSchema::in_blob(*hash).into());
            (Path::parse(&at.to_string()).expect("a path"), Definition::new(topic_type, Properties::default()))
        };
        let topics: Vec<_> = hashes.iter().enumerate().map(topic).collect();
        assert!(replica.add_topics(&topics).iter().all(Result::is_ok));
        replica
    }

    fn at(ms: u64) -> Instant {
        Instant(ms * 1_000)
    }

    fn seek(fetching: &mut Fetching, replica: &Replica, ms: u64, links: &[LinkId]) -> Vec<(LinkId, BlobHash, u64)> {
        let neighbours = |_: &BTreeSet<SectionId>| {
            links.iter().map(|link| Neighbour { link: *link, node: node(*link), section: SectionId(7) }).collect()
        };
        let requests = fetching.seek(at(ms), replica.blobs(), neighbours);
        requests.into_iter().map(|(link, request)| (link, request.hash, request.offset)).collect()
    }

    fn piece(hash: BlobHash, offset: u64, total: u64, bytes: &[u8]) -> BlobPiece {
        BlobPiece { hash, offset, total: Some(total), bytes: bytes.to_vec() }
    }

    fn not_here(hash: BlobHash) -> BlobPiece {
        BlobPiece { hash, offset: 0, total: None, bytes: Vec::new() }
    }

    fn take(fetching: &mut Fetching, ms: u64, link: LinkId, piece: BlobPiece) -> Took {
        fetching.take(at(ms), link, node(link), piece)
    }

    #[test]
    fn one_neighbour_is_asked_at_a_time_and_another_goes_on_where_it_ended() {
        let hash = BlobHash::of(b"abcdef");
        let (replica, mut fetching) = (naming(&[hash]), Fetching::default());
        assert_eq!(seek(&mut fetching, &replica, 0, &[A, B]), [(A, hash, 0)]);
        assert_eq!(seek(&mut fetching, &replica, 1, &[A, B]), [], "it is being asked");
        assert_eq!(take(&mut fetching, 2, B, piece(hash, 0, 6, b"ab")), Took::Nothing, "nobody has asked it");
        assert_eq!(take(&mut fetching, 2, A, piece(hash, 0, 6, b"ab")), Took::Part);
        assert_eq!(seek(&mut fetching, &replica, 2, &[A, B]), [(A, hash, 2)], "who has sent goes on");
        fetching.link_down(A);
        assert_eq!(seek(&mut fetching, &replica, 3, &[B]), [(B, hash, 2)]);
        assert_eq!(take(&mut fetching, 4, B, not_here(hash)), Took::Part);
        assert_eq!(seek(&mut fetching, &replica, 5, &[B]), [], "not yet again");
        assert_eq!(seek(&mut fetching, &replica, 1_004, &[B]), [(B, hash, 2)]);
        // Silence, and then both answers at once.
        assert_eq!(seek(&mut fetching, &replica, 6_003, &[B]), []);
        assert_eq!(seek(&mut fetching, &replica, 6_004, &[B]), [], "it was silent");
        assert_eq!(seek(&mut fetching, &replica, 8_003, &[B]), [], "for the second time");
        assert_eq!(seek(&mut fetching, &replica, 8_004, &[B]), [(B, hash, 2)]);
        assert_eq!(take(&mut fetching, 8_005, B, piece(hash, 2, 6, b"cd")), Took::Part);
        assert_eq!(seek(&mut fetching, &replica, 8_005, &[B]), [(B, hash, 4)]);
        assert_eq!(take(&mut fetching, 8_006, B, piece(hash, 2, 6, b"cd")), Took::Nothing, "it has come already");
        assert_eq!(take(&mut fetching, 8_007, B, piece(hash, 4, 6, b"ef")), Took::Whole(b"abcdef".to_vec()));
    }

    #[test]
    fn what_nobody_has_is_asked_for_ever_more_seldom() {
        let hash = BlobHash::of(b"lost");
        let (replica, mut fetching) = (naming(&[hash]), Fetching::default());
        let mut asked = Vec::new();
        for second in 0..80 {
            if !seek(&mut fetching, &replica, second * 1_000, &[A]).is_empty() {
                asked.push(second);
                take(&mut fetching, second * 1_000, A, not_here(hash));
            }
        }
        assert_eq!(asked, [0, 1, 3, 7, 15, 31, 47, 63, 79]);
        // Who comes back is asked at once.
        fetching.link_down(A);
        assert_eq!(seek(&mut fetching, &replica, 80_000, &[A]), [(A, hash, 0)]);
    }

    #[test]
    fn who_sends_what_is_wrong_comes_last() {
        let hash = BlobHash::of(b"ab");
        let (replica, long) = (naming(&[hash]), vec![0; 3]);
        for wrong in [
            piece(hash, 0, 2, b"xx"),
            piece(hash, 0, BLOB_BYTES_MAX as u64 + 1, b"ab"),
            piece(hash, 0, 2, &long),
            piece(hash, 0, 2, b""),
            piece(hash, 0, 0, b""),
        ] {
            let mut fetching = Fetching::default();
            assert_eq!(seek(&mut fetching, &replica, 0, &[A, B]), [(A, hash, 0)]);
            assert_eq!(take(&mut fetching, 1, A, wrong.clone()), Took::Wrong(vec![node(A)]), "{wrong:?}");
            assert_eq!(seek(&mut fetching, &replica, 2, &[A, B]), [(B, hash, 0)], "{wrong:?}");
            fetching.link_down(B);
            assert_eq!(seek(&mut fetching, &replica, 3, &[A]), [(A, hash, 0)], "there is nobody else");
            assert_eq!(take(&mut fetching, 4, A, wrong), Took::Wrong(vec![]), "that is known");
        }
        // Of two that have both sent of it, neither is known to be right; a third would be asked first.
        let (mut fetching, c) = (Fetching::default(), LinkId(3));
        assert_eq!(seek(&mut fetching, &replica, 0, &[A, B, c]), [(A, hash, 0)]);
        assert_eq!(take(&mut fetching, 1, A, piece(hash, 0, 2, b"x")), Took::Part);
        fetching.link_down(A);
        assert_eq!(seek(&mut fetching, &replica, 2, &[B, c]), [(B, hash, 1)]);
        assert_eq!(take(&mut fetching, 3, B, piece(hash, 1, 3, b"b")), Took::Wrong(vec![node(A), node(B)]), "another length");
        assert_eq!(seek(&mut fetching, &replica, 4, &[A, B, c]), [(c, hash, 0)]);
    }

    #[test]
    fn few_are_fetched_at_a_time_and_each_gets_its_turn() {
        let contents: Vec<Vec<u8>> = (0..20_u8).map(|number| vec![number; 2]).collect();
        let hashes: Vec<BlobHash> = contents.iter().map(|content| BlobHash::of(content)).collect();
        let (replica, mut fetching) = (naming(&hashes), Fetching::default());
        let links: Vec<LinkId> = (1..=8).map(LinkId).collect();
        let asked = seek(&mut fetching, &replica, 0, &links);
        assert_eq!(asked.len(), PARTS_MAX);
        assert_eq!(seek(&mut fetching, &replica, 0, &links), []);
        // One neighbour that has nothing is asked for all of them in turn.
        let (mut fetching, mut all) = (Fetching::default(), BTreeSet::new());
        for ms in 0..hashes.len() as u64 {
            let [(link, hash, 0)] = seek(&mut fetching, &replica, ms, &[A])[..] else { panic!("one link, one request") };
            assert!(all.insert(hash), "not this one again");
            assert_eq!(take(&mut fetching, ms, link, not_here(hash)), Took::Part);
        }
        assert_eq!(all.len(), hashes.len());
        // What has come of some makes room if no more comes.
        let mut fetching = Fetching::default();
        for (link, hash, _) in seek(&mut fetching, &replica, 0, &links) {
            let content = &contents[hashes.iter().position(|of| *of == hash).expect("one of these")];
            assert_eq!(take(&mut fetching, 0, link, piece(hash, 0, 2, &content[..1])), Took::Part);
        }
        assert_eq!(seek(&mut fetching, &replica, 29_999, &[]), []);
        assert_eq!(fetching.fetches.values().map(|fetch| fetch.bytes.len()).sum::<usize>(), PARTS_MAX);
        assert_eq!(seek(&mut fetching, &replica, 30_000, &[]), []);
        assert!(fetching.fetches.is_empty(), "nothing is remembered of them");
        // What nobody wants any more is forgotten.
        assert_eq!(seek(&mut fetching, &replica, 40_000, &links).len(), PARTS_MAX);
        assert_eq!(seek(&mut fetching, &naming(&[]), 40_001, &links), []);
        assert!(fetching.fetches.is_empty());
    }

    #[test]
    fn only_what_a_definition_of_the_section_names_is_served_and_in_pieces() {
        let (here, other) = (BlobHash::of(b"abcde"), BlobHash::of(b"other"));
        let mut replica = naming(&[here]);
        for content in [b"abcde", b"other"] {
            replica.put_blob(Arc::from(&content[..])).expect("there is room");
        }
        let limits = Limits { bulk_bytes: 2, ..Limits::default() };
        let asked = |hash, offset, section| {
            let mut shared = Shared { blob_asked: Some((hash, offset)), ..Shared::default() };
            let answered = answer(&mut shared, section, replica.blobs(), limits).expect("an answer");
            assert_eq!(answer(&mut shared, section, replica.blobs(), limits), None, "one answer");
            answered
        };
        assert_eq!(asked(here, 0, SectionId::LOCAL), piece(here, 0, 5, b"ab"));
        assert_eq!(asked(here, 4, SectionId::LOCAL), piece(here, 4, 5, b"e"));
        assert_eq!(asked(here, 6, SectionId::LOCAL).total, None);
        assert_eq!(asked(here, u64::MAX, SectionId::LOCAL).total, None);
        assert_eq!(asked(here, 0, SectionId::MESH).total, None, "nothing names it there");
        assert_eq!(asked(other, 0, SectionId::LOCAL).total, None, "nothing names it at all");
    }
}
