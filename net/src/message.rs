//! What neighbours say to each other. Every message documents *the receiver's duty*.
//!
//! A frame is a kind (one varint) and a CBOR map with numbered fields: fields and kinds that a node does not know are skipped. (Of a [`Batch`](Content::Batch), the
//! most frequent, the kind is followed by what is packed and nothing else: one update alone is often all that a packet carries.) On
//! lane 0 travel the control messages, on each other lane what belongs to one [`LaneOf`]: one plane of one section, or its bulk. Its first frame
//! is the [`LaneOf`].
//!
//! Kinds and field numbers are part of the wire format: they are never used again for something else, and frames of
//! every version that was ever released are kept as fixtures.

use mangrove_crdt::{
    blob::BlobHash,
    frontier::{OriginIx, Origins},
    id::{NodeId, Origin, Plane, SectionId},
    section::{BucketImage, Frontiers, ImageEntry},
};
use minicbor::{Decode, Decoder, Encode, Encoder};

use crate::{
    batch::{PackKey, Packer, Unpacker},
    codec::{Intern, Malformed, NamesIn, NamesOut, Reader, USUAL_BYTES, Writer},
};

/// The version of the wire format that this code speaks.
pub const WIRE: u32 = 1;

/// The oldest version that it understands.
pub const WIRE_MIN: u32 = 1;

macro_rules! messages {
    ($(#[$enum_doc:meta])* $name:ident { $($(#[$doc:meta])* $kind:literal $variant:ident($body:ty),)* }) => {
        $(#[$enum_doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$doc])* $variant($body),)* }

        impl $name {
            /// The frame of this message.
            pub fn encode(&self) -> Vec<u8> {
                let mut w = Writer { out: Vec::with_capacity(USUAL_BYTES) };
                match self {
                    $($name::$variant(body) => {
                        w.u64($kind);
                        minicbor::encode(body, &mut w.out).expect("encoding to memory");
                    })*
                }
                w.out
            }

            /// Reads a frame; `None` for a kind that this version does not know.
            pub fn decode(frame: &[u8]) -> Result<Option<Self>, Malformed> {
                let mut r = Reader::new("frame", frame);
                let kind = r.u64()?;
                let body = r.rest();
                match kind {
                    $($kind => match minicbor::decode::<$body>(body) {
                        Ok(body) => Ok(Some($name::$variant(body))),
                        Err(error) => Err(Malformed::new(stringify!($variant), error.to_string())),
                    },)*
                    _ => Ok(None),
                }
            }
        }
    };
}

messages! {
    /// What travels on lane 0.
    Control {
        /// The first frame in each direction. *Duty*: close the link unless the versions overlap; learn which run of the peer this is.
        1 Hello(Hello),
        /// The sender holds a section, with these frontiers and floors. *Duty*: if held here too, run what the sender lacks; if
        /// below one of its floors, ask to adopt.
        2 Holds(Holds),
        /// The sender holds a section no more. *Duty*: send nothing of it any more.
        3 Unholds(OfHolding),
        /// Something was missed, or the sender wants a feed from here. *Duty*: push this feed, from this frontier on.
        4 Graft(Graft),
        /// What came of this feed was known already. *Duty*: do not push it, until grafted.
        5 Prune(OfFeed),
        /// Heartbeats that are news to the sender. *Duty*: pass on what is news here, at once.
        6 Pulses(Packed),
        /// How a member's durable frontiers have moved. *Duty*: keep it, pass it on.
        7 Report(Report),
        /// The receiver is below the sender's floor. *Duty*: ask to adopt.
        8 Behind(OfSection),
        /// *Duty*: send the whole section, bucket by bucket, without what is known to be equal.
        9 AdoptRequest(AdoptRequest),
        /// The sender's root digest. *Duty*: if the frontiers are equal, compare, and answer `Checked` or `Groups`; if not, answer `Buckets` of one group.
        10 Check(Check),
        /// Frontiers and digests were found equal. *Duty*: note the time.
        11 Checked(OfSection),
        /// Digests of the groups of 64 buckets. *Duty*: answer with `Buckets` for each group that differs.
        12 Groups(Groups),
        /// Digests of the buckets of one group, with the dots that they hold. *Duty*: ask to repair those that both cover and that differ.
        13 Buckets(Buckets),
        /// A bucket was found to differ. *Duty*: send it as a `Repair`.
        14 RepairRequest(OfBucket),
        /// The receiver's [`Holds`] of this holding cannot be made out, since the sender has something else of the retired runs. *Duty*: say it
        /// again with every run told by number.
        15 Unfold(OfHolding),
        /// A member's reports reach the sender sooner by another way, or it wants them from here again. *Duty*: pass none on to it for
        /// [`RELAY_PAUSE`](crate::gossip::RELAY_PAUSE), or do again.
        16 Relay(Relay),
        /// Something for one node, which need not be a neighbour. *Duty*: pass it on towards that node, or drop it.
        17 Letter(Letter),
        /// Values came of a topic that does not come. *Duty*: if it is there, or is gone again within a document that it came in, send its bucket as a `Repair`.
        18 TopicRequest(OfTopic),
        /// The sender wants a blob that a definition of this section names. *Duty*: answer with its next piece, or that it is not here; if another blob of the
        /// section was asked for before, that is wanted no more.
        19 BlobRequest(BlobRequest),
    }
}

impl Control {
    /// Whether the sender asks for what would not come by itself.
    pub(crate) fn is_request(&self) -> bool {
        matches!(
            self,
            Control::Graft(_)
                | Control::AdoptRequest(_)
                | Control::RepairRequest(_)
                | Control::TopicRequest(_)
                | Control::Unfold(_)
                | Control::BlobRequest(_)
        )
    }
}

messages! {
    /// What travels on the lanes of a section.
    Content {
        /// The first frame of the lane. *Duty*: treat all that follows as of this.
        1 Lane(LaneOf),
        /// An adoption begins. *Duty*: if this is the answer to the newest request, forget partial runs of this section from this peer, and collect; otherwise
        /// ignore it and what follows of it.
        3 AdoptBegin(AdoptBegin),
        /// Some buckets. *Duty*: take them over by R6.
        4 AdoptBuckets(Images),
        /// All buckets were sent. *Duty*: take over positions, frontiers and floors; those of the values once the tree frontier covers this one (R9).
        5 AdoptEnd(AdoptEnd),
        /// A bucket that was found to differ. *Duty*: repair it by R7; answer with one's own if `reply` is set.
        6 Repair(Repair),
        /// A part of the next `AdoptBuckets`' or `Repair`'s images, which are too long for one frame. *Duty*: put the parts in front of it.
        7 Piece(Piece),
        /// Messages to topics. *Duty*: see [`flood`](crate::flood).
        8 Messages(Packed),
        /// The answer to the newest `BlobRequest`. *Duty*: see [`blobs`](crate::blobs).
        9 Blob(BlobPiece),
        /// A part of a run. *Duty*: see [`Batch`](crate::batch::Batch).
        10 Batch(Bare),
    }
}

/// See [`Content::Piece`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Piece {
    /// A part of [`Images::images`].
    #[cbor(n(0), with = "minicbor::bytes")]
    pub bytes: Vec<u8>,
}

/// See [`Control::Hello`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Hello {
    /// The newest wire version that the sender speaks.
    #[n(0)]
    pub version: u32,
    /// The oldest one that it understands.
    #[n(1)]
    pub version_min: u32,
    /// Its present incarnation.
    #[n(2)]
    pub origin: Origin,
    /// Whether the sender pays by the byte for this link.
    #[n(3)]
    pub metered: bool,
    /// How many bytes of values the sender keeps for each lane of values that comes in, for deltas to build on
    /// ([`Bases`](mangrove_crdt::delta::Bases)).
    #[cbor(n(4), default)]
    pub bases_bytes: u64,
    /// Whether the sender makes out values that come compressed ([`Sent::Compressed`](crate::compress::Sent::Compressed)).
    #[cbor(n(5), default)]
    pub compressed: bool,
}

/// See [`Control::Letter`]. It goes the way by which the newest heartbeat of its receiver has come, and may be lost on it, come twice, or be overtaken.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Letter {
    /// Who has written it.
    #[n(0)]
    pub from: NodeId,
    /// For whom it is.
    #[n(1)]
    pub to: NodeId,
    /// How many more nodes may pass it on.
    #[n(2)]
    pub hops: u8,
    /// What the two make of it.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub body: Vec<u8>,
}

/// See [`Control::Holds`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Holds {
    /// The section.
    #[n(0)]
    pub section: SectionId,
    /// The frontiers, plane by plane, without retired runs (packed). Further frontiers on this link tell what is above these.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub frontiers: Vec<u8>,
    /// The floors, without those of retired runs, which are no higher than the frontiers (packed).
    #[cbor(n(2), with = "minicbor::bytes")]
    pub floors: Vec<u8>,
    /// The sender's Lamport clock.
    #[n(3)]
    pub clock: u64,
    /// The highest epoch known in this section.
    #[n(4)]
    pub epoch: u64,
    /// Which holding of the section this is: a greater number than before if it was given up and is held again.
    #[n(5)]
    pub holding: u64,
    /// The retired runs, and a hash of what the sender has of them (packed).
    #[cbor(n(6), with = "minicbor::bytes", default)]
    pub retired: Vec<u8>,
}

/// A message about a holding of a section.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct OfHolding {
    /// The section.
    #[n(0)]
    pub section: SectionId,
    /// Which holding of it: see [`Holds`].
    #[n(1)]
    pub holding: u64,
}

/// A message about a section.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct OfSection {
    /// The section.
    #[n(0)]
    pub section: SectionId,
}

/// A message about a bucket.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct OfBucket {
    /// The section.
    #[n(0)]
    pub section: SectionId,
    /// The bucket.
    #[n(1)]
    pub bucket: u16,
}

/// A message about a feed.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct OfFeed {
    /// The section.
    #[n(0)]
    pub section: SectionId,
    /// The plane.
    #[n(1)]
    pub plane: Plane,
    /// The origin (packed).
    #[cbor(n(2), with = "minicbor::bytes")]
    pub origin: Vec<u8>,
}

/// See [`Control::Graft`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Graft {
    /// The section.
    #[n(0)]
    pub section: SectionId,
    /// The plane.
    #[n(1)]
    pub plane: Plane,
    /// The origin, and how far the sender has its feed (packed).
    #[cbor(n(2), with = "minicbor::bytes")]
    pub dot: Vec<u8>,
}

/// A message about a topic.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct OfTopic {
    /// The section.
    #[n(0)]
    pub section: SectionId,
    /// The dot of its creation (packed).
    #[cbor(n(1), with = "minicbor::bytes")]
    pub topic: Vec<u8>,
}

/// A message that is all packed.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Packed {
    /// The content (packed).
    #[cbor(n(0), with = "minicbor::bytes")]
    pub packed: Vec<u8>,
}

/// A message that is all packed, without a map around it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bare {
    /// The content (packed).
    pub packed: Vec<u8>,
}

impl<C> Encode<C> for Bare {
    fn encode<W: minicbor::encode::Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.writer_mut().write_all(&self.packed).map_err(minicbor::encode::Error::write)
    }
}

impl<'b, C> Decode<'b, C> for Bare {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        let packed = d.input()[d.position()..].to_vec();
        d.set_position(d.input().len());
        Ok(Bare { packed })
    }
}

/// See [`Control::Report`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Report {
    /// The member's present incarnation (packed).
    #[cbor(n(0), with = "minicbor::bytes")]
    pub member: Vec<u8>,
    /// The number of this state of the report. Entries older than the one last told are left out.
    #[n(1)]
    pub version: u64,
    /// For each section, the entries that moved (packed).
    #[cbor(n(2), with = "minicbor::bytes")]
    pub moved: Vec<u8>,
    /// For each section in which they have changed, the retired runs, of which there are no entries, and a hash of what the member has of
    /// them (packed).
    #[cbor(n(3), with = "minicbor::bytes", default)]
    pub retired: Vec<u8>,
}

/// See [`Control::Relay`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Relay {
    /// Whose reports.
    #[n(0)]
    pub member: NodeId,
    /// Whether they are wanted from here.
    #[n(1)]
    pub wanted: bool,
}

/// See [`Control::AdoptRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct AdoptRequest {
    /// The section.
    #[n(0)]
    pub section: SectionId,
    /// Bucket and digest of each bucket that holds anything here (packed).
    #[cbor(n(1), with = "minicbor::bytes")]
    pub digests: Vec<u8>,
    /// Names this request, for the answer to name it.
    #[n(2)]
    pub request: u64,
}

/// See [`Control::BlobRequest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct BlobRequest {
    /// The section.
    #[n(0)]
    pub section: SectionId,
    /// The blob.
    #[n(1)]
    pub hash: BlobHash,
    /// How many of its first bytes the sender has.
    #[n(2)]
    pub offset: u64,
}

/// See [`Content::Blob`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct BlobPiece {
    /// The blob.
    #[n(0)]
    pub hash: BlobHash,
    /// How many bytes come before these.
    #[n(1)]
    pub offset: u64,
    /// How many bytes the blob has; none if the sender does not have it.
    #[n(2)]
    pub total: Option<u64>,
    /// Some of them.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub bytes: Vec<u8>,
}

/// See [`Control::Check`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Check {
    /// The section.
    #[n(0)]
    pub section: SectionId,
    /// A hash of the frontiers that the digest belongs to.
    #[n(1)]
    pub frontiers: u64,
    /// The digest over all buckets; none if the sender is busy and wants buckets compared instead.
    #[n(2)]
    pub root: Option<u64>,
    /// Which group to compare if the frontiers differ.
    #[n(3)]
    pub group: u16,
}

/// See [`Control::Groups`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Groups {
    /// The section.
    #[n(0)]
    pub section: SectionId,
    /// The digest of each group, in order.
    #[n(1)]
    pub digests: Vec<u64>,
}

/// See [`Control::Buckets`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Buckets {
    /// The section.
    #[n(0)]
    pub section: SectionId,
    /// The group.
    #[n(1)]
    pub group: u16,
    /// For each of its buckets: digest, and dots of each plane (packed).
    #[cbor(n(2), with = "minicbor::bytes")]
    pub buckets: Vec<u8>,
}

/// What a lane carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(map)]
pub struct LaneOf {
    /// The section.
    #[n(0)]
    pub section: SectionId,
    /// The plane; none for the section's bulk: adoptions and repairs; and for its messages.
    #[n(1)]
    pub plane: Option<Plane>,
    /// Which of the sender's holdings of the section it is: see [`Holds`].
    #[n(2)]
    pub holding: u64,
    /// Whether it is for the messages to its topics instead.
    #[cbor(n(3), default)]
    pub messages: bool,
}

/// See [`Content::AdoptBegin`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct AdoptBegin {
    /// The frontiers as the adoption begins, where above those announced (packed).
    #[cbor(n(0), with = "minicbor::bytes")]
    pub frontiers: Vec<u8>,
    /// The floors as it begins, where above those announced (packed).
    #[cbor(n(1), with = "minicbor::bytes")]
    pub floors: Vec<u8>,
    /// The sender's Lamport clock.
    #[n(2)]
    pub clock: u64,
    /// Which request this answers.
    #[n(3)]
    pub request: u64,
}

/// See [`Content::AdoptBuckets`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Images {
    /// The sender's frontiers when these buckets were read, where above those announced (packed).
    #[cbor(n(0), with = "minicbor::bytes")]
    pub covered: Vec<u8>,
    /// The buckets: packed, then compressed by LZ4 with its length in front.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub images: Vec<u8>,
    /// How many of all buckets are done with these.
    #[n(2)]
    pub done: u16,
}

impl Images {
    /// With the pieces that came before it.
    pub(crate) fn after(self, mut pieces: Vec<u8>) -> Images {
        if pieces.is_empty() {
            return self;
        }
        pieces.extend(self.images);
        Images { images: pieces, ..self }
    }
}

/// See [`Content::AdoptEnd`].
#[derive(Clone, Debug, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct AdoptEnd {
    /// The sender's tree frontier at the end, where above that announced (R9; packed).
    #[cbor(n(0), with = "minicbor::bytes")]
    pub tree: Vec<u8>,
}

/// See [`Content::Repair`].
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Repair {
    /// The bucket.
    #[n(0)]
    pub images: Images,
    /// Whether the receiver is to answer with its own.
    #[n(1)]
    pub reply: bool,
}

/// Packs frontiers of all planes.
pub fn pack_frontiers(names: &mut NamesOut, origins: &Origins, frontiers: &Frontiers) -> Vec<u8> {
    pack_frontiers_above(names, origins, &Frontiers::default(), frontiers)
}

/// Packs what frontiers have risen above some others.
pub fn pack_frontiers_above(names: &mut NamesOut, origins: &Origins, told: &Frontiers, now: &Frontiers) -> Vec<u8> {
    let mut w = Writer::default();
    for plane in Plane::ALL {
        w.frontier_above(names, origins, &told[plane], &now[plane]);
    }
    w.out
}

/// Reads what [`pack_frontiers`] packed.
pub fn unpack_frontiers(bytes: &[u8], names: &mut NamesIn, intern: &mut Intern<'_>) -> Result<Frontiers, Malformed> {
    let mut r = Reader::new("frontiers", bytes);
    let mut frontiers = Frontiers::default();
    for plane in Plane::ALL {
        frontiers[plane] = r.frontier(names, intern)?;
    }
    Ok(frontiers)
}

/// Packs one origin.
pub fn pack_origin(names: &mut NamesOut, origins: &Origins, origin: OriginIx) -> Vec<u8> {
    let mut w = Writer::default();
    w.origin(names, origins, origin);
    w.out
}

/// Packs a bucket onto the end of others.
pub fn pack_image(w: &mut Writer, names: &mut NamesOut, origins: &Origins, image: &BucketImage) {
    w.u64(u64::from(image.bucket));
    w.u64(u64::from(image.whole) | u64::from(image.document.is_some()) << 1);
    if let Some(document) = &image.document {
        w.bytes(document);
    }
    w.dots(names, origins, &image.tree_dots);
    if !image.whole {
        w.dots(names, origins, &image.value_dots);
        w.dots(names, origins, &image.standing_dots);
    }
    pack_entries(w, names, origins, &image.values);
    pack_entries(w, names, origins, &image.standing);
}

/// Reads one bucket.
pub fn unpack_image(r: &mut Reader<'_>, names: &mut NamesIn, intern: &mut Intern<'_>) -> Result<BucketImage, Malformed> {
    let bucket = u16::try_from(r.u64()?).map_err(|_| r.bad("a bucket's number"))?;
    let flags = r.u64()?;
    let document = if flags & 2 != 0 { Some(r.bytes(crate::FRAME_BYTES_MAX * 8)?.to_vec()) } else { None };
    let tree_dots = r.dots(names, intern)?;
    let (mut value_dots, mut standing_dots) = Default::default();
    if flags & 1 == 0 {
        value_dots = r.dots(names, intern)?;
        standing_dots = r.dots(names, intern)?;
    }
    let values = unpack_entries(r, names, intern)?;
    let standing = unpack_entries(r, names, intern)?;
    Ok(BucketImage { bucket, whole: flags & 1 != 0, document, tree_dots, value_dots, standing_dots, values, standing })
}

fn pack_entries<K: PackKey>(w: &mut Writer, names: &mut NamesOut, origins: &Origins, entries: &[ImageEntry<K>]) {
    let (told, bare): (Vec<_>, Vec<_>) = entries.iter().partition(|entry| entry.write.is_some());
    w.u64(told.len() as u64);
    let mut packer = Packer::<K>::new(std::mem::take(w), None, 0);
    for entry in told {
        if let Some(write) = &entry.write {
            packer.push(names, origins, 0, &entry.key, write);
            packer.w.dots(names, origins, &entry.entries);
        }
    }
    *w = packer.w;
    w.u64(bare.len() as u64);
    let mut last = K::Last::default();
    for entry in bare {
        entry.key.pack(&mut last, w, names, origins);
        w.dots(names, origins, &entry.entries);
    }
}

fn unpack_entries<K: PackKey>(r: &mut Reader<'_>, names: &mut NamesIn, intern: &mut Intern<'_>) -> Result<Vec<ImageEntry<K>>, Malformed> {
    let mut entries = Vec::new();
    let told = r.count()?;
    let mut unpacker = Unpacker::<K>::new(r.rest(), None, 0);
    for _ in 0..told {
        let (_, key, write) = unpacker.next(names, intern, None)?;
        let dots = unpacker.r.dots(names, intern)?;
        entries.push(ImageEntry { key, write: Some(write), entries: dots });
    }
    *r = unpacker.r;
    let mut last = K::Last::default();
    for _ in 0..r.count()? {
        let key = K::unpack(&mut last, r, names, intern)?;
        entries.push(ImageEntry { key, write: None, entries: r.dots(names, intern)? });
    }
    Ok(entries)
}
