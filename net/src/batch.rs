//! Batches: a part of a run of one feed.

use mangrove_crdt::{
    frontier::{DotIx, Dots, Frontier, OriginIx, Origins},
    registers::Write,
    section::StandingKey,
    stamp::Stamp,
    standing::STANDING_KEY_BYTES_MAX,
    tree::{Removal, TreeRecord},
};
use minicbor::{Decode, Encode};

use crate::codec::{Intern, Malformed, NamesIn, NamesOut, Reader, Writer, is_plain};

/// A part of a run, as it travels: on the lane of its section and plane.
///
/// The receiver merges the records, keeps their positions, and, at the last batch, takes the positions over and moves its frontier to `upto`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Batch {
    /// The feed's origin (packed).
    #[cbor(n(0), with = "minicbor::bytes")]
    pub origin: Vec<u8>,
    /// What the receiver must have of the feed.
    #[n(1)]
    pub from: u64,
    /// How far this batch reaches.
    #[n(2)]
    pub upto: u64,
    /// Whether the run ends here.
    #[n(3)]
    pub last: bool,
    /// The records (packed).
    #[cbor(n(4), with = "minicbor::bytes")]
    pub records: Vec<u8>,
    /// With the last batch of a value run: how the sender's tree frontier has moved since it last told this lane (R9; packed).
    #[cbor(n(5), with = "minicbor::bytes")]
    pub tree: Vec<u8>,
}

/// How a plane's keys are packed.
pub trait PackKey: Sized {
    /// What the key of the next record is told against.
    type Last: Default;
    /// Writes a key.
    fn pack(&self, last: &mut Self::Last, w: &mut Writer, names: &mut NamesOut, origins: &Origins);
    /// Reads a key.
    fn unpack(last: &mut Self::Last, r: &mut Reader<'_>, names: &mut NamesIn, intern: &mut Intern<'_>) -> Result<Self, Malformed>;
}

impl PackKey for DotIx {
    type Last = u64;

    fn pack(&self, last: &mut u64, w: &mut Writer, names: &mut NamesOut, origins: &Origins) {
        w.origin(names, origins, self.origin);
        w.delta(*last, self.number);
        *last = self.number;
    }

    fn unpack(last: &mut u64, r: &mut Reader<'_>, names: &mut NamesIn, intern: &mut Intern<'_>) -> Result<Self, Malformed> {
        let origin = r.origin(names, intern)?;
        *last = r.delta(*last)?;
        Ok(DotIx { origin, number: *last })
    }
}

impl PackKey for StandingKey {
    type Last = ();

    fn pack(&self, _: &mut (), w: &mut Writer, _: &mut NamesOut, _: &Origins) {
        w.bytes(self);
    }

    fn unpack(_: &mut (), r: &mut Reader<'_>, _: &mut NamesIn, _: &mut Intern<'_>) -> Result<Self, Malformed> {
        Ok(r.bytes(STANDING_KEY_BYTES_MAX)?.into())
    }
}

const OTHER_DOT: u8 = 1;
const RANKED: u8 = 2;
const SEEN: u8 = 4;
const GONE: u8 = 8;

/// Packs records of a register plane, each against the one before.
#[derive(Debug)]
pub struct Packer<K: PackKey> {
    /// What is packed so far.
    pub w: Writer,
    feed: Option<OriginIx>,
    number: u64,
    seq: u64,
    time_ms: u64,
    key: K::Last,
}

impl<K: PackKey> Packer<K> {
    /// For records of one feed, whose positions come after `from`; or, without a feed, for records with dots of their own.
    pub fn new(feed: Option<OriginIx>, from: u64) -> Self {
        Packer { w: Writer::default(), feed, number: from, seq: 0, time_ms: 0, key: K::Last::default() }
    }

    /// Adds a record: its position, key and write.
    pub fn push(&mut self, names: &mut NamesOut, origins: &Origins, number: u64, key: &K, write: &Write) {
        let own = self.feed.is_some_and(|origin| write.dot == DotIx { origin, number });
        let ranked = !is_plain(&write.stamp);
        let flag = |on: bool, bit: u8| if on { bit } else { 0 };
        let flags = flag(!own, OTHER_DOT) | flag(ranked, RANKED) | flag(!write.seen.is_empty(), SEEN) | flag(write.value.is_none(), GONE);
        self.w.out.push(flags);
        self.w.u64(number.wrapping_sub(self.number));
        self.number = number;
        key.pack(&mut self.key, &mut self.w, names, origins);
        if !own {
            self.w.dot(names, origins, write.dot);
        }
        if ranked {
            self.w.u64(write.stamp.epoch);
            self.w.u64(u64::from(write.stamp.rank.is_some()));
            if let Some(rank) = &write.stamp.rank {
                self.w.rank(rank);
            }
        }
        self.w.delta(self.seq, write.stamp.seq);
        self.seq = write.stamp.seq;
        self.w.delta(self.time_ms, write.time_ms);
        self.time_ms = write.time_ms;
        if !write.seen.is_empty() {
            self.w.dots(names, origins, &write.seen);
        }
        if let Some(value) = &write.value {
            self.w.bytes(value);
        }
    }
}

/// Reads what a [`Packer`] packed.
#[derive(Debug)]
pub struct Unpacker<'a, K: PackKey> {
    /// What is left.
    pub r: Reader<'a>,
    feed: Option<OriginIx>,
    number: u64,
    seq: u64,
    time_ms: u64,
    key: K::Last,
}

impl<'a, K: PackKey> Unpacker<'a, K> {
    /// See [`Packer::new`].
    pub fn new(bytes: &'a [u8], feed: Option<OriginIx>, from: u64) -> Self {
        Unpacker { r: Reader::new("records", bytes), feed, number: from, seq: 0, time_ms: 0, key: K::Last::default() }
    }

    /// The next record: its position, key and write.
    pub fn next(&mut self, names: &mut NamesIn, intern: &mut Intern<'_>) -> Result<(u64, K, Write), Malformed> {
        let flags = self.r.byte()?;
        if flags & !(OTHER_DOT | RANKED | SEEN | GONE) != 0 {
            return Err(self.r.bad(format!("flags {flags:#x}")));
        }
        self.number = self.number.checked_add(self.r.number()?).ok_or_else(|| self.r.bad("a position beyond 64 bits"))?;
        let key = K::unpack(&mut self.key, &mut self.r, names, intern)?;
        let dot = match self.feed {
            Some(origin) if flags & OTHER_DOT == 0 => DotIx { origin, number: self.number },
            _ => self.r.dot(names, intern)?,
        };
        let mut stamp = Stamp::default();
        if flags & RANKED != 0 {
            stamp.epoch = self.r.u64()?;
            if self.r.u64()? != 0 {
                stamp.rank = Some(Box::new(self.r.rank()?));
            }
        }
        self.seq = self.r.seq(self.seq)?;
        stamp.seq = self.seq;
        self.time_ms = self.r.delta(self.time_ms)?;
        let seen = if flags & SEEN != 0 { self.r.dots(names, intern)? } else { Dots::new() };
        let value = if flags & GONE != 0 { None } else { Some(self.r.value()?) };
        Ok((self.number, key, Write { dot, stamp, seen, time_ms: self.time_ms, value }))
    }
}

/// Packs tree records.
pub fn pack_tree(w: &mut Writer, names: &mut NamesOut, origins: &Origins, record: &TreeRecord) {
    w.u64(record.number);
    w.u64(record.after);
    w.u64(u64::from(record.document));
    w.bytes(&record.change);
    w.u64(record.removals.len() as u64);
    for removal in &record.removals {
        w.dot(names, origins, removal.topic);
        w.dots(names, origins, &removal.seen);
    }
}

/// Reads what [`pack_tree`] packed.
pub fn unpack_tree(r: &mut Reader<'_>, names: &mut NamesIn, intern: &mut Intern<'_>) -> Result<TreeRecord, Malformed> {
    let (number, after) = (r.number()?, r.number()?);
    let document = u16::try_from(r.u64()?).map_err(|_| r.bad("a document's number"))?;
    let change = r.bytes(crate::FRAME_BYTES_MAX)?.into();
    let mut removals = Vec::new();
    for _ in 0..r.count()? {
        removals.push(Removal { topic: r.dot(names, intern)?, seen: r.dots(names, intern)? });
    }
    if after >= number {
        return Err(r.bad("a tree record that does not come after the one before it"));
    }
    Ok(TreeRecord { number, after, document, change, removals })
}

/// How a frontier has moved: the entries of `now` that are above `told`.
pub fn frontier_delta(w: &mut Writer, names: &mut NamesOut, origins: &Origins, told: &Frontier, now: &Frontier) {
    let moved: Vec<DotIx> = now.iter().filter(|dot| !told.covers(*dot)).collect();
    if !moved.is_empty() {
        w.dots(names, origins, &moved);
    }
}
