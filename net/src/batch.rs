//! Batches: a part of a run of one feed.

use std::{hash::Hash, sync::Arc};

use mangrove_crdt::{
    delta::Bases,
    frontier::{DotIx, Dots, Frontier, OriginIx, Origins},
    registers::Write,
    section::StandingKey,
    series::{EventIx, ValueKey},
    stamp::{Stamp, Under},
    standing::STANDING_KEY_BYTES_MAX,
    tree::{Removal, TreeRecord},
};

use crate::{
    codec::{Intern, Malformed, NamesIn, NamesOut, Reader, USUAL_BYTES, VALUE_BYTES_MAX, Writer, is_plain},
    compress::{Sent, decompress},
};

/// A part of a run, as it travels: this, then the records, then, with the last batch of a value run, how the sender's tree frontier has moved since it last
/// told this lane (R9), if it has.
///
/// The receiver merges the records, keeps their positions, and, at the last batch, takes the positions over and moves its frontier to `upto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The feed's origin.
    pub origin: OriginIx,
    /// What the receiver must have of the feed.
    pub from: u64,
    /// How far this batch reaches.
    pub upto: u64,
    /// Whether the run ends here.
    pub last: bool,
    /// How many records there are.
    pub count: usize,
}

impl Batch {
    /// Begins what travels.
    pub fn pack(&self, names: &mut NamesOut, origins: &Origins) -> Writer {
        let Batch { origin, from, upto, last, count } = *self;
        let mut w = Writer { out: Vec::with_capacity(USUAL_BYTES) };
        w.origin(names, origins, origin);
        w.delta(names.told.upto.insert(origin, upto).unwrap_or(0), from);
        w.u64(upto.wrapping_sub(from));
        w.u64((count as u64) << 1 | u64::from(last));
        w
    }

    /// Reads what comes before the records.
    pub fn unpack(r: &mut Reader<'_>, names: &mut NamesIn, intern: &mut Intern<'_>) -> Result<Batch, Malformed> {
        let origin = r.origin(names, intern)?;
        let from = r.seq(names.told.upto.get(&origin).copied().unwrap_or(0))?;
        let upto = from + r.number()?;
        names.told.upto.insert(origin, upto);
        let counts = r.u64()?;
        Ok(Batch { origin, from, upto, last: counts & 1 != 0, count: r.counted(counts >> 1)? })
    }
}

/// How a plane's keys are packed.
pub trait PackKey: Clone + Eq + Hash {
    /// What the key of the next record is told against.
    type Last: Default;
    /// Writes a key.
    fn pack(&self, last: &mut Self::Last, w: &mut Writer, names: &mut NamesOut, origins: &Origins);
    /// Reads a key.
    fn unpack(last: &mut Self::Last, r: &mut Reader<'_>, names: &mut NamesIn, intern: &mut Intern<'_>) -> Result<Self, Malformed>;
}

/// What the key of a value is told against.
#[derive(Debug, Default)]
pub struct LastValue {
    number: u64,
    sequence: u64,
}

impl PackKey for ValueKey {
    type Last = LastValue;

    fn pack(&self, last: &mut LastValue, w: &mut Writer, names: &mut NamesOut, origins: &Origins) {
        let topic = self.topic();
        w.origin(names, origins, topic.origin);
        if let Some(event) = self.as_event() {
            // No topic has the number 0: what follows is an event.
            w.delta(last.number, 0);
            w.origin(names, origins, event.origin);
            w.delta(last.sequence, event.sequence);
            last.sequence = event.sequence;
        }
        w.delta(last.number, topic.number);
        last.number = topic.number;
    }

    fn unpack(last: &mut LastValue, r: &mut Reader<'_>, names: &mut NamesIn, intern: &mut Intern<'_>) -> Result<Self, Malformed> {
        let origin = r.origin(names, intern)?;
        let number = r.delta(last.number)?;
        if number != 0 {
            last.number = number;
            return Ok(DotIx { origin, number }.into());
        }
        let event_origin = r.origin(names, intern)?;
        last.sequence = r.seq(last.sequence)?;
        last.number = r.delta(last.number)?;
        let event = EventIx { sequence: last.sequence, origin: event_origin };
        if event.sequence == 0 || last.number == 0 {
            return Err(r.bad("an event of nothing"));
        }
        Ok(ValueKey::event(DotIx { origin, number: last.number }, event))
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
const SAME_RANK: u8 = 16;
const KEPT: u8 = 32;
const DELTA: u8 = 64;
const COMPRESSED: u8 = 128;

/// Packs records of a register plane, each against the one before.
#[derive(Debug)]
pub struct Packer<K: PackKey> {
    /// What is packed so far.
    pub w: Writer,
    feed: Option<OriginIx>,
    number: u64,
    key: K::Last,
}

impl<K: PackKey> Packer<K> {
    /// For records of one feed, whose positions come after `from`; or, without a feed, for records with dots of their own.
    pub fn new(w: Writer, feed: Option<OriginIx>, from: u64) -> Self {
        Packer { w, feed, number: from, key: K::Last::default() }
    }

    /// Adds a record: its position, key and write.
    pub fn push(&mut self, names: &mut NamesOut, origins: &Origins, number: u64, key: &K, write: &Write) {
        self.push_as(names, origins, number, key, write, Sent::Whole { kept: false });
    }

    /// The same, its value as its receiver can make it out.
    pub fn push_as(&mut self, names: &mut NamesOut, origins: &Origins, number: u64, key: &K, write: &Write, sent: Sent) {
        let own = self.feed.is_some_and(|origin| write.dot == DotIx { origin, number });
        let told = (names.told.under.epoch, &names.told.under.rank) == (write.stamp.epoch, &write.stamp.rank);
        let (same, ranked) = (told && !is_plain(&write.stamp), !told && !is_plain(&write.stamp));
        let flag = |on: bool, bit: u8| if on { bit } else { 0 };
        let flags = flag(!own, OTHER_DOT)
            | flag(ranked, RANKED)
            | flag(!write.seen.is_empty(), SEEN)
            | flag(write.value.is_none(), GONE)
            | flag(same, SAME_RANK)
            | flag(matches!(sent, Sent::Whole { kept: true } | Sent::Compressed { kept: true, .. }), KEPT)
            | flag(matches!(sent, Sent::Delta(_)), DELTA)
            | flag(matches!(sent, Sent::Compressed { .. }), COMPRESSED);
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
            names.told.under = Under { epoch: write.stamp.epoch, rank: write.stamp.rank.clone() };
        }
        self.w.delta(std::mem::replace(&mut names.told.seq, write.stamp.seq), write.stamp.seq);
        self.w.delta(std::mem::replace(&mut names.told.time_ms, write.time_ms), write.time_ms);
        if !write.seen.is_empty() {
            self.w.dots(names, origins, &write.seen);
        }
        match (&write.value, sent) {
            (Some(_), Sent::Delta(bytes) | Sent::Compressed { bytes, .. }) => self.w.bytes(&bytes),
            (Some(value), Sent::Whole { .. }) => self.w.bytes(value),
            (None, _) => {}
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
    key: K::Last,
    /// How many bytes the values that came in fewer may still become: whole, all would fit a frame, so who sends more means no good.
    room: usize,
}

impl<'a, K: PackKey> Unpacker<'a, K> {
    /// See [`Packer::new`].
    pub fn new(bytes: &'a [u8], feed: Option<OriginIx>, from: u64) -> Self {
        Unpacker { r: Reader::new("records", bytes), feed, number: from, key: K::Last::default(), room: crate::FRAME_BYTES_MAX }
    }

    /// The next record: its position, key and write. Values that are to be kept, what builds on them, and compressed ones are for those who keep some.
    pub fn next(
        &mut self,
        names: &mut NamesIn,
        intern: &mut Intern<'_>,
        bases: Option<&mut Bases<K>>,
    ) -> Result<(u64, K, Write), Malformed> {
        let flags = self.r.byte()?;
        let both = |bits: u8| (flags & bits).count_ones() > 1;
        if both(RANKED | SAME_RANK) || both(KEPT | DELTA | GONE) || both(COMPRESSED | DELTA | GONE) {
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
                stamp.rank = Some(Arc::new(self.r.rank()?));
            }
            names.told.under = Under { epoch: stamp.epoch, rank: stamp.rank.clone() };
        } else if flags & SAME_RANK != 0 {
            (stamp.epoch, stamp.rank) = (names.told.under.epoch, names.told.under.rank.clone());
        }
        stamp.seq = self.r.seq(names.told.seq)?;
        names.told.seq = stamp.seq;
        let time_ms = self.r.delta(names.told.time_ms)?;
        names.told.time_ms = time_ms;
        let seen = if flags & SEEN != 0 { self.r.dots(names, intern)? } else { Dots::new() };
        let value = if flags & GONE != 0 { None } else { Some(self.value(flags, &key, bases)?) };
        Ok((self.number, key, Write { dot, stamp, seen, time_ms, value }))
    }

    fn value(&mut self, flags: u8, key: &K, bases: Option<&mut Bases<K>>) -> Result<Arc<[u8]>, Malformed> {
        let bytes = self.r.bytes(VALUE_BYTES_MAX)?;
        if flags & (DELTA | KEPT | COMPRESSED) == 0 {
            return Ok(bytes.into());
        }
        let Some(bases) = bases else { return Err(self.r.bad("a value to be kept, a delta or a compressed one, where none are")) };
        let value = match flags & (DELTA | COMPRESSED) {
            DELTA => bases.receive(key, bytes).map_err(|error| self.r.bad(error.to_string()))?,
            COMPRESSED => decompress(bytes, VALUE_BYTES_MAX.min(self.room)).map_err(|error| self.r.bad(error.to_string()))?.into(),
            _ => bytes.into(),
        };
        if flags & (DELTA | COMPRESSED) != 0 {
            self.room = self.room.checked_sub(value.len()).ok_or_else(|| self.r.bad("values that would fit no frame"))?;
        }
        if flags & KEPT != 0 {
            bases.keep(key, value.clone());
        }
        Ok(value)
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

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fmt::Debug, sync::Arc};

    use mangrove_crdt::{
        delta::Form,
        id::{Incarnation, NodeId, Origin, SessionId},
        stamp::Rank,
    };
    use proptest::prelude::*;

    use super::*;

    const COUNT_MAX: u64 = 1 << 62;

    /// The same on both sides, so that what was read can be compared with what was written.
    fn origins() -> Origins {
        let mut origins = Origins::default();
        for number in 0..5 {
            origins.intern(Origin { node: NodeId([number; 32]), incarnation: Incarnation { boot: 3, nonce: 9 } });
        }
        origins
    }

    fn dot() -> impl Strategy<Value = DotIx> {
        (0..5u32, 1..=COUNT_MAX).prop_map(|(origin, number)| DotIx { origin: OriginIx(origin), number })
    }

    fn value_key() -> impl Strategy<Value = ValueKey> {
        let event = (1..=COUNT_MAX, 0..5u32).prop_map(|(sequence, origin)| EventIx { sequence, origin: OriginIx(origin) });
        (dot(), prop::option::of(event)).prop_map(|(topic, event)| event.map_or(topic.into(), |event| ValueKey::event(topic, event)))
    }

    fn few_dots() -> impl Strategy<Value = Dots> {
        prop::collection::vec(dot(), 0..4).prop_map(Dots::from_vec)
    }

    fn standing_key() -> impl Strategy<Value = StandingKey> {
        prop::collection::vec(any::<u8>(), 0..STANDING_KEY_BYTES_MAX + 1).prop_map(StandingKey::from)
    }

    /// A write; its dot is its own position in the feed unless another one is given.
    #[derive(Clone, Debug)]
    struct Drawn {
        gap: u64,
        other: Option<DotIx>,
        stamp: Stamp,
        seen: Dots,
        time_ms: u64,
        value: Option<Arc<[u8]>>,
    }

    fn drawn() -> impl Strategy<Value = Drawn> {
        let rank = prop::option::of((any::<i32>(), any::<[u8; 16]>()));
        let stamp = (prop_oneof![Just(0), any::<u64>()], rank, 0..=COUNT_MAX).prop_map(|(epoch, rank, seq)| {
            let rank = rank.map(|(priority, session)| Arc::new(Rank { priority, session: SessionId(session) }));
            Stamp { epoch, rank, seq }
        });
        let value = prop::option::of(prop::collection::vec(any::<u8>(), 0..80).prop_map(Arc::from));
        (1..1_000_000u64, prop::option::of(dot()), stamp, few_dots(), any::<u64>(), value)
            .prop_map(|(gap, other, stamp, seen, time_ms, value)| Drawn { gap, other, stamp, seen, time_ms, value })
    }

    fn unpack<K: PackKey>(bytes: &[u8], from: u64, origins: &mut Origins) -> Result<Vec<(u64, K, Write)>, Malformed> {
        unpack_with(bytes, from, origins, None)
    }

    fn unpack_with<K: PackKey>(
        bytes: &[u8],
        from: u64,
        origins: &mut Origins,
        mut bases: Option<&mut Bases<K>>,
    ) -> Result<Vec<(u64, K, Write)>, Malformed> {
        let mut unpacker = Unpacker::<K>::new(bytes, Some(OriginIx(0)), from);
        let mut names = NamesIn::default();
        let mut records = Vec::new();
        while !unpacker.r.is_done() {
            records.push(unpacker.next(&mut names, &mut |origin| Some(origins.intern(origin)), bases.as_deref_mut())?);
        }
        Ok(records)
    }

    /// Packs records of the feed of origin 0; what was packed, and where each record ends.
    fn pack<K: PackKey>(from: u64, records: &[(u64, K, Write)]) -> (Vec<u8>, Vec<usize>) {
        let (origins, mut names) = (origins(), NamesOut::default());
        let mut packer = Packer::<K>::new(Writer::default(), Some(OriginIx(0)), from);
        let mut ends = vec![0];
        for (number, key, write) in records {
            packer.push(&mut names, &origins, *number, key, write);
            ends.push(packer.w.out.len());
        }
        (packer.w.out, ends)
    }

    /// Whether records survive the wire, and are refused if cut short anywhere but between two.
    fn check_records<K: PackKey + Debug>(from: u64, drawn: Vec<(K, Drawn)>) -> Result<(), TestCaseError> {
        let mut number = from;
        let records = drawn.into_iter().map(|(key, drawn)| {
            number += drawn.gap;
            let dot = drawn.other.unwrap_or(DotIx { origin: OriginIx(0), number });
            let Drawn { stamp, seen, time_ms, value, .. } = drawn;
            (number, key, Write { dot, stamp, seen, time_ms, value })
        });
        let records: Vec<(u64, K, Write)> = records.collect();
        let (bytes, ends) = pack(from, &records);
        let mut origins = origins();
        prop_assert_eq!(&unpack::<K>(&bytes, from, &mut origins).unwrap(), &records);
        for len in 0..bytes.len() {
            let read = unpack::<K>(&bytes[..len], from, &mut origins);
            match ends.iter().position(|end| *end == len) {
                Some(whole) => prop_assert_eq!(&read.unwrap()[..], &records[..whole]),
                None => prop_assert!(read.is_err(), "cut to {} of {}", len, bytes.len()),
            }
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn batches_of_a_lane_are_told_against_each_other(
            drawn in prop::collection::vec((0..5u32, 0..COUNT_MAX / 2, 0..COUNT_MAX / 2, any::<bool>(), 0..4usize), 1..20),
        ) {
            let (mut origins, mut out, mut into) = (origins(), NamesOut::default(), NamesIn::default());
            for (origin, from, length, last, count) in drawn {
                let batch = Batch { origin: OriginIx(origin), from, upto: from + length, last, count };
                let mut bytes = batch.pack(&mut out, &origins).out;
                let begin = bytes.len();
                bytes.extend([7, 7, 7]);
                let mut r = Reader::new("records", &bytes);
                prop_assert_eq!(Batch::unpack(&mut r, &mut into, &mut |origin| Some(origins.intern(origin))), Ok(batch));
                prop_assert_eq!(r.rest(), &bytes[begin..]);
            }
        }
    }

    #[test]
    fn what_continues_a_feed_says_so_in_four_bytes() {
        let (origins, mut names) = (origins(), NamesOut::default());
        let batch = |from, count| Batch { origin: OriginIx(0), from, upto: from + count as u64, last: true, count };
        batch(50_000_000_000, 2).pack(&mut names, &origins);
        assert_eq!(batch(50_000_000_002, 1).pack(&mut names, &origins).out, [0, 0, 1, 3]);
    }

    #[test]
    fn a_batch_beyond_what_can_be_counted_is_refused() {
        let origins = origins();
        for (from, upto, count) in [(u64::MAX, u64::MAX, 0), (1, u64::MAX, 0), (1, 2, 2), (1, 2, usize::MAX >> 1)] {
            let batch = Batch { origin: OriginIx(0), from, upto, last: false, count };
            let bytes = [batch.pack(&mut NamesOut::default(), &origins).out, vec![0]].concat();
            let read = Batch::unpack(&mut Reader::new("records", &bytes), &mut NamesIn::default(), &mut |_| Some(OriginIx(0)));
            assert!(read.is_err(), "{batch:?}");
        }
    }

    #[test]
    fn a_steady_update_costs_at_most_twelve_bytes_beside_its_value() {
        // A thousand topics of one creator, written in turn at a thousand a second, in a feed that is two years old.
        let from = 50_000_000_000;
        let records: Vec<(u64, ValueKey, Write)> = (0..1000u64)
            .map(|at| {
                let number = from + 1 + at;
                let write = Write {
                    dot: DotIx { origin: OriginIx(0), number },
                    stamp: Stamp { seq: number + 12_345, ..Stamp::default() },
                    seen: Dots::new(),
                    time_ms: 1_800_000_000_000 + at,
                    value: Some(Arc::from([7; 64])),
                };
                // In no order, as topics are written.
                (number, DotIx { origin: OriginIx(1), number: 1 + at * 617 % 1000 }.into(), write)
            })
            .collect();
        let (bytes, _) = pack(from, &records);
        assert_eq!(unpack::<ValueKey>(&bytes, from, &mut origins()).unwrap(), records);
        let beside = bytes.len() - 64 * 1000;
        assert!(beside <= 12 * 1000, "{beside} bytes for 1,000 updates");
        // A lane that is new names the origin once.
        assert!(beside > Origin::LEN);
    }

    #[test]
    fn what_a_source_writes_costs_no_more_once_its_rank_is_told() {
        let record = |number: u64, source: Option<u8>| -> (u64, ValueKey, Write) {
            let rank = source.map(|source| Arc::new(Rank { priority: 0, session: SessionId([source; 16]) }));
            let stamp = Stamp { epoch: source.map_or(0, u64::from), rank, seq: number };
            let dot = DotIx { origin: OriginIx(0), number };
            (number, dot.into(), Write { dot, stamp, seen: Dots::new(), time_ms: number, value: Some(Arc::from([1])) })
        };
        let steady = |source| (1..=100).map(|number| record(number, source)).collect::<Vec<_>>();
        let [plain, ranked] = [None, Some(7)].map(|source| pack(0, &steady(source)).0.len());
        assert!(ranked - plain <= 2 * 16, "{ranked} bytes for {plain}");
        // Whatever the order, each record keeps its own.
        let mixed: Vec<_> = [None, Some(1), Some(1), None, Some(2), Some(1), Some(1)]
            .into_iter()
            .zip(1..)
            .map(|(source, number)| record(number, source))
            .collect();
        assert_eq!(unpack::<ValueKey>(&pack(0, &mixed).0, 0, &mut origins()).unwrap(), mixed);
    }

    #[test]
    fn unknown_flags_and_overflowing_positions_are_refused() {
        let write = Write {
            dot: DotIx { origin: OriginIx(0), number: 8 },
            stamp: Stamp { seq: 1, ..Stamp::default() },
            seen: Dots::new(),
            time_ms: 0,
            value: Some(Arc::from([1])),
        };
        let (mut bytes, _) = pack::<StandingKey>(7, &[(8, Arc::from([5]), write)]);
        assert!(unpack::<StandingKey>(&bytes, 7, &mut origins()).is_ok());
        assert!(unpack::<StandingKey>(&bytes, u64::MAX, &mut origins()).is_err());
        for flags in [RANKED | SAME_RANK, KEPT | DELTA, KEPT | GONE, GONE | DELTA, COMPRESSED | DELTA, COMPRESSED | GONE] {
            bytes[0] = flags;
            assert!(unpack::<StandingKey>(&bytes, 7, &mut origins()).unwrap_err().why.contains("flags"));
        }
        for flags in [KEPT, DELTA, COMPRESSED, COMPRESSED | KEPT] {
            bytes[0] = flags;
            assert!(unpack::<StandingKey>(&bytes, 7, &mut origins()).unwrap_err().why.contains("kept"));
        }
        let mut long = vec![0, 1];
        let mut w = Writer::default();
        w.bytes(&[0; STANDING_KEY_BYTES_MAX + 1]);
        long.extend(w.out);
        assert!(unpack::<StandingKey>(&long, 7, &mut origins()).unwrap_err().why.contains("at most"));
    }

    type Record = (u64, ValueKey, Write);

    /// Packs values of topics, each in its way; what was packed, and where each record ends.
    fn pack_as(sent: impl IntoIterator<Item = (u64, Arc<[u8]>, Sent)>) -> (Vec<u8>, Vec<usize>, Vec<Record>) {
        let (origins, mut names) = (origins(), NamesOut::default());
        let mut packer = Packer::<ValueKey>::new(Writer::default(), Some(OriginIx(0)), 0);
        let (mut ends, mut records) = (vec![0], Vec::new());
        for ((topic, value, sent), number) in sent.into_iter().zip(1..) {
            let (dot, stamp) = (DotIx { origin: OriginIx(0), number }, Stamp { seq: number, ..Stamp::default() });
            let write = Write { dot, stamp, seen: Dots::new(), time_ms: 0, value: Some(value) };
            let key = DotIx { origin: OriginIx(1), number: topic }.into();
            packer.push_as(&mut names, &origins, number, &key, &write, sent);
            ends.push(packer.w.out.len());
            records.push((number, key, write));
        }
        (packer.w.out, ends, records)
    }

    fn unpack_kept(bytes: &[u8], bases_bytes: usize) -> Result<Vec<Record>, Malformed> {
        unpack_with(bytes, 0, &mut origins(), Some(&mut Bases::new(bases_bytes)))
    }

    #[test]
    fn a_batch_of_few_bytes_does_not_become_much_memory() {
        let value: Arc<[u8]> = vec![7; 1 << 20].into();
        let compressed = |number| (number, value.clone(), Sent::shortest(Form::Kept, &value, || true));
        let (bytes, _, records) = pack_as((1..=8).map(compressed));
        assert!(bytes.len() < 64 << 10);
        assert_eq!(unpack_kept(&bytes, 4 << 20), Ok(records));
        let (bytes, ..) = pack_as((1..=9).map(compressed));
        assert!(unpack_kept(&bytes, 4 << 20).unwrap_err().why.contains("more than 0"));
        // Deltas count, too.
        let mut bases = Bases::new(4 << 20);
        let again = |_| (1, value.clone(), Sent::shortest(bases.send(&1, &value, || true), &value, || false));
        let (bytes, ..) = pack_as((1..=10).map(again));
        assert!(bytes.len() < 2 << 20);
        assert!(unpack_kept(&bytes, 4 << 20).unwrap_err().why.contains("no frame"));
    }

    #[test]
    fn a_tree_record_must_come_after_the_one_before_it() {
        let (mut w, origins) = (Writer::default(), origins());
        let record = TreeRecord { number: 5, after: 5, document: 1, change: Arc::from([1]), removals: Vec::new() };
        pack_tree(&mut w, &mut NamesOut::default(), &origins, &record);
        let read = unpack_tree(&mut Reader::new("a tree record", &w.out), &mut NamesIn::default(), &mut |_| None);
        assert!(read.unwrap_err().why.contains("after"));
    }

    #[test]
    fn a_delta_tells_only_what_rose() {
        let (mut w, origins) = (Writer::default(), origins());
        let at =
            |numbers: [u64; 3]| -> Frontier { (0..3).map(|ix| DotIx { origin: OriginIx(ix), number: numbers[ix as usize] }).collect() };
        frontier_delta(&mut w, &mut NamesOut::default(), &origins, &at([5, 6, 7]), &at([5, 6, 7]));
        assert!(w.out.is_empty());
        frontier_delta(&mut w, &mut NamesOut::default(), &origins, &at([5, 6, 7]), &at([4, 9, 7]));
        let mut known = origins.clone();
        let moved = Reader::new("a delta", &w.out).dots(&mut NamesIn::default(), &mut |origin| Some(known.intern(origin)));
        assert_eq!(moved.unwrap().as_slice(), [DotIx { origin: OriginIx(1), number: 9 }]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn values_survive_the_wire(from in 0..COUNT_MAX, records in prop::collection::vec((value_key(), drawn()), 0..6)) {
            check_records(from, records)?;
        }

        /// Compressed, as deltas or whole, kept or not: each comes out as it was, and its receiver keeps what its sender does.
        #[test]
        fn values_survive_the_wire_in_fewer_bytes(
            drawn in prop::collection::vec(
                (1..4u64, prop::collection::vec(any::<u8>(), 1..500), 1..6usize, any::<[bool; 2]>(), any::<prop::sample::Index>()),
                0..20,
            ),
            bases_bytes in 0..8_000usize,
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 20),
        ) {
            let mut bases = Bases::new(bases_bytes);
            let mut last: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
            let drawn = drawn.into_iter().map(|(topic, part, times, [deltas, compress], at)| {
                // Either another value, or the one before with something in it changed.
                let value = last.entry(topic).or_default();
                if times == 1 && !value.is_empty() {
                    let at = at.index(value.len());
                    value[at] ^= part[0];
                } else {
                    *value = part.repeat(times);
                }
                let value: Arc<[u8]> = value.as_slice().into();
                let sent = Sent::shortest(bases.send(&topic, &value, || deltas), &value, || compress);
                (topic, value, sent)
            });
            let (bytes, ends, records) = pack_as(drawn);
            prop_assert_eq!(&unpack_kept(&bytes, bases_bytes).unwrap(), &records);
            for cut in cuts {
                let len = cut.index(bytes.len() + 1);
                let read = unpack_kept(&bytes[..len], bases_bytes);
                match ends.iter().position(|end| *end == len) {
                    Some(whole) => prop_assert_eq!(&read.unwrap()[..], &records[..whole]),
                    None => prop_assert!(read.is_err(), "cut to {} of {}", len, bytes.len()),
                }
                // A bit that has fallen over is noticed, or gives another value, within limits.
                let mut other = bytes.clone();
                if let Some(byte) = other.get_mut(len) {
                    *byte ^= 1 << (len % 8);
                    if let Ok(records) = unpack_kept(&other, bases_bytes) {
                        let values = records.iter().filter_map(|(_, _, write)| write.value.as_ref());
                        prop_assert!(values.map(|value| value.len()).sum::<usize>() <= crate::FRAME_BYTES_MAX + other.len());
                    }
                }
            }
        }

        #[test]
        fn standing_records_survive_the_wire(from in 0..COUNT_MAX, records in prop::collection::vec((standing_key(), drawn()), 0..4)) {
            check_records(from, records)?;
        }

        #[test]
        fn tree_records_survive_the_wire(
            after in 0..COUNT_MAX,
            gap in 1..1000u64,
            document in any::<u16>(),
            change in prop::collection::vec(any::<u8>(), 0..200),
            removals in prop::collection::vec((dot(), few_dots()), 0..4),
        ) {
            let number = (after + gap).min(COUNT_MAX);
            let removals = removals.into_iter().map(|(topic, seen)| Removal { topic, seen }).collect();
            let record = TreeRecord { number, after, document, change: change.into(), removals };
            let mut origins = origins();
            let mut w = Writer::default();
            pack_tree(&mut w, &mut NamesOut::default(), &origins, &record);
            let mut read = |bytes: &[u8]| {
                let mut r = Reader::new("a tree record", bytes);
                unpack_tree(&mut r, &mut NamesIn::default(), &mut |origin| Some(origins.intern(origin))).map(|record| (record, r.is_done()))
            };
            prop_assert_eq!(read(&w.out).unwrap(), (record, true));
            for len in 0..w.out.len() {
                prop_assert!(read(&w.out[..len]).is_err(), "cut to {} of {}", len, w.out.len());
            }
        }

        #[test]
        fn garbage_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), from in any::<u64>()) {
            // Each record takes some bytes, so reading ends, and makes no more of them than there are bytes.
            let mut origins = origins();
            for read in [
                unpack::<ValueKey>(&bytes, from, &mut origins).map(|records| records.len()),
                unpack::<StandingKey>(&bytes, from, &mut origins).map(|records| records.len()),
            ] {
                prop_assert!(read.is_err() || read.is_ok_and(|count| count <= bytes.len()));
            }
            let mut r = Reader::new("a tree record", &bytes);
            if let Ok(record) = unpack_tree(&mut r, &mut NamesIn::default(), &mut |origin| Some(origins.intern(origin))) {
                prop_assert!(record.change.len() + record.removals.len() <= bytes.len());
            }
        }
    }
}
