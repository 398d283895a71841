//! Packing: the dense inside of messages.
//!
//! A message is a kind and a CBOR map with numbered fields, so that nodes of different versions understand each other. What
//! makes up the bulk, records and frontiers, is packed inside byte-string fields: variable-length integers (LEB128), differences to
//! the previous record, and origins by a number agreed per lane.
//!
//! **Names.** The first time an origin is mentioned on a lane, it is written out after the next free number; from then on the number alone
//! stands for it. Lanes are ordered and reliable, so both ends count alike; and so what a record is told against may be the last one of the frame before
//! ([`Told`]). A message kind added later must do neither, since an older node skips it unread.

use std::{collections::BTreeMap, sync::Arc};

use mangrove_crdt::{
    frontier::{DotIx, Dots, Frontier, OriginIx, Origins},
    id::{Origin, SessionId},
    stamp::{Rank, Stamp, Under},
};

/// The longest value on the wire: with its record and message it still fits a frame.
pub const VALUE_BYTES_MAX: usize = mangrove_crdt::value::VALUE_MAX;

/// How many entries one packed list may claim before anything is allocated for it.
const LIST_MAX: u64 = 1 << 20;

/// The greatest Lamport clock accepted: far beyond what counting can reach, far below overflow.
const SEQ_MAX: u64 = 1 << 62;

/// Bytes that are not what they should be. The link that brought them is closed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed {what}: {why}")]
pub struct Malformed {
    /// What was being read.
    pub what: &'static str,
    /// What is wrong with it.
    pub why: String,
}

impl Malformed {
    /// `what` cannot be read because of `why`.
    pub fn new(what: &'static str, why: impl Into<String>) -> Self {
        Malformed { what, why: why.into() }
    }
}

/// Which numbers one end of a lane has given to origins.
#[derive(Debug, Default)]
pub struct NamesOut {
    numbers: Vec<u32>,
    given: u32,
    pub(crate) told: Told,
}

/// Which origins the other end of a lane has numbered.
#[derive(Debug, Default)]
pub struct NamesIn {
    origins: Vec<OriginIx>,
    pub(crate) told: Told,
}

/// What a lane's records have told last, against which the next are told.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// The epoch and rank: what a source writes comes in a row.
    pub(crate) under: Under,
    /// The stamp's clock.
    pub(crate) seq: u64,
    /// The writer's wall clock.
    pub(crate) time_ms: u64,
    /// How far the batches of each feed have reached: the next begins there.
    pub(crate) upto: BTreeMap<OriginIx, u64>,
}

/// Most frames are no longer than this: a buffer of so much seldom has to grow.
pub(crate) const USUAL_BYTES: usize = 128;

/// Appends packed data.
#[derive(Debug, Default)]
pub struct Writer {
    /// What was written.
    pub out: Vec<u8>,
}

impl Writer {
    /// A number: seven bits a byte, least significant first.
    pub fn u64(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.out.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.out.push(number as u8);
    }

    /// The difference between two numbers, small in either direction.
    pub fn delta(&mut self, from: u64, to: u64) {
        let difference = to.wrapping_sub(from) as i64;
        self.u64(((difference << 1) ^ (difference >> 63)) as u64);
    }

    /// A length, then that many bytes.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.u64(bytes.len() as u64);
        self.out.extend_from_slice(bytes);
    }

    /// An origin, by its number on this lane.
    pub fn origin(&mut self, names: &mut NamesOut, origins: &Origins, origin: OriginIx) {
        let at = origin.0 as usize;
        if names.numbers.len() <= at {
            names.numbers.resize(at + 1, 0);
        }
        if names.numbers[at] == 0 {
            self.u64(u64::from(names.given));
            names.given += 1;
            names.numbers[at] = names.given;
            self.out.extend_from_slice(&origins.get(origin).to_bytes());
        } else {
            self.u64(u64::from(names.numbers[at] - 1));
        }
    }

    /// A dot.
    pub fn dot(&mut self, names: &mut NamesOut, origins: &Origins, dot: DotIx) {
        self.origin(names, origins, dot.origin);
        self.u64(dot.number);
    }

    /// A list of dots.
    pub fn dots(&mut self, names: &mut NamesOut, origins: &Origins, dots: &[DotIx]) {
        self.u64(dots.len() as u64);
        for dot in dots {
            self.dot(names, origins, *dot);
        }
    }

    /// A frontier.
    pub fn frontier(&mut self, names: &mut NamesOut, origins: &Origins, frontier: &Frontier) {
        self.frontier_above(names, origins, &Frontier::default(), frontier);
    }

    /// The entries of a frontier that are above another's.
    pub fn frontier_above(&mut self, names: &mut NamesOut, origins: &Origins, told: &Frontier, now: &Frontier) {
        let risen: Vec<DotIx> = now.iter().filter(|dot| !told.covers(*dot)).collect();
        self.dots(names, origins, &risen);
    }

    /// A rank.
    pub fn rank(&mut self, rank: &Rank) {
        self.delta(0, i64::from(rank.priority) as u64);
        self.out.extend_from_slice(&rank.session.0);
    }
}

/// Reads packed data.
#[derive(Debug)]
pub struct Reader<'a> {
    what: &'static str,
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Reads `bytes`, which `what` names in errors.
    pub fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Reader { what, bytes }
    }

    /// An error about what is being read.
    pub fn bad(&self, why: impl Into<String>) -> Malformed {
        Malformed::new(self.what, why)
    }

    /// All that is left.
    pub fn rest(&self) -> &'a [u8] {
        self.bytes
    }

    /// Whether everything was read.
    pub fn is_done(&self) -> bool {
        self.bytes.is_empty()
    }

    /// One byte.
    pub fn byte(&mut self) -> Result<u8, Malformed> {
        let (byte, rest) = self.bytes.split_first().ok_or_else(|| self.bad("ends too early"))?;
        self.bytes = rest;
        Ok(*byte)
    }

    /// So many bytes.
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.bytes.split_at_checked(len).ok_or_else(|| self.bad("ends too early"))?;
        self.bytes = rest;
        Ok(taken)
    }

    /// See [`Writer::u64`].
    pub fn u64(&mut self) -> Result<u64, Malformed> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(self.bad("a number beyond 64 bits"))
    }

    /// See [`Writer::delta`].
    pub fn delta(&mut self, from: u64) -> Result<u64, Malformed> {
        let zigzag = self.u64()?;
        let difference = (zigzag >> 1) as i64 ^ -((zigzag & 1) as i64);
        Ok(from.wrapping_add(difference as u64))
    }

    /// See [`Writer::bytes`].
    pub fn bytes(&mut self, len_max: usize) -> Result<&'a [u8], Malformed> {
        let len = self.u64()?;
        if len > len_max as u64 {
            return Err(self.bad(format!("{len} bytes where at most {len_max} may be")));
        }
        self.take(len as usize)
    }

    /// How many entries a list has.
    pub fn count(&mut self) -> Result<usize, Malformed> {
        let count = self.u64()?;
        self.counted(count)
    }

    /// The same, of a count that was read with something else.
    pub(crate) fn counted(&self, count: u64) -> Result<usize, Malformed> {
        // Every entry takes at least one byte, so a count beyond the bytes left is a lie.
        if count > LIST_MAX || count > self.bytes.len() as u64 {
            return Err(self.bad(format!("a list of {count}")));
        }
        Ok(count as usize)
    }

    /// See [`Writer::origin`].
    pub fn origin(&mut self, names: &mut NamesIn, intern: &mut Intern<'_>) -> Result<OriginIx, Malformed> {
        let number = self.u64()?;
        if let Some(known) = usize::try_from(number).ok().and_then(|number| names.origins.get(number)) {
            return Ok(*known);
        }
        if number != names.origins.len() as u64 {
            return Err(self.bad(format!("origin {number} where {} are named", names.origins.len())));
        }
        let origin = Origin::from_bytes(self.take(Origin::LEN)?).ok_or_else(|| self.bad("an origin"))?;
        let ix = intern(origin).ok_or_else(|| self.bad("too many origins"))?;
        names.origins.push(ix);
        Ok(ix)
    }

    /// See [`Writer::dot`].
    pub fn dot(&mut self, names: &mut NamesIn, intern: &mut Intern<'_>) -> Result<DotIx, Malformed> {
        Ok(DotIx { origin: self.origin(names, intern)?, number: self.number()? })
    }

    /// A number of a feed, with room above it to count on.
    pub fn number(&mut self) -> Result<u64, Malformed> {
        let number = self.u64()?;
        if number > SEQ_MAX { Err(self.bad("a number beyond what can be counted")) } else { Ok(number) }
    }

    /// See [`Writer::dots`].
    pub fn dots(&mut self, names: &mut NamesIn, intern: &mut Intern<'_>) -> Result<Dots, Malformed> {
        let count = self.count()?;
        let mut dots = Dots::with_capacity(count);
        for _ in 0..count {
            dots.push(self.dot(names, intern)?);
        }
        Ok(dots)
    }

    /// See [`Writer::frontier`].
    pub fn frontier(&mut self, names: &mut NamesIn, intern: &mut Intern<'_>) -> Result<Frontier, Malformed> {
        (0..self.count()?).map(|_| self.dot(names, intern)).collect()
    }

    /// See [`Writer::rank`].
    pub fn rank(&mut self) -> Result<Rank, Malformed> {
        let priority = i32::try_from(self.delta(0)? as i64).map_err(|_| self.bad("a priority beyond 32 bits"))?;
        let session = SessionId(self.take(16)?.try_into().map_err(|_| self.bad("a session"))?);
        Ok(Rank { priority, session })
    }

    /// A stamp's clock.
    pub fn seq(&mut self, from: u64) -> Result<u64, Malformed> {
        let seq = self.delta(from)?;
        if seq > SEQ_MAX { Err(self.bad("a clock beyond what can be counted")) } else { Ok(seq) }
    }

    /// A value.
    pub fn value(&mut self) -> Result<Arc<[u8]>, Malformed> {
        Ok(Arc::from(self.bytes(VALUE_BYTES_MAX)?))
    }
}

/// Gives an origin its index in the replica; `None` if there are too many.
pub type Intern<'a> = dyn FnMut(Origin) -> Option<OriginIx> + 'a;

/// A stamp with no epoch and no rank: a plain write.
pub fn is_plain(stamp: &Stamp) -> bool {
    stamp.epoch == 0 && stamp.rank.is_none()
}

#[cfg(test)]
mod tests {
    use mangrove_crdt::id::{Incarnation, NodeId};
    use proptest::prelude::*;

    use super::*;

    fn origin(number: u8) -> Origin {
        Origin { node: NodeId([number; 32]), incarnation: Incarnation { boot: 1, nonce: u64::from(number) } }
    }

    /// A sender's origins.
    fn ours() -> Origins {
        let mut origins = Origins::default();
        (0..6).for_each(|number| {
            origins.intern(origin(number));
        });
        origins
    }

    /// A receiver's origins, with other indexes for the same.
    fn theirs() -> Origins {
        let mut origins = Origins::default();
        (0..6).rev().for_each(|number| {
            origins.intern(origin(number));
        });
        origins
    }

    fn dots() -> impl Strategy<Value = Vec<DotIx>> {
        prop::collection::vec((0..6u32, 1..=SEQ_MAX).prop_map(|(ix, number)| DotIx { origin: OriginIx(ix), number }), 0..12)
    }

    /// What a reader makes of some bytes, whatever they are.
    fn read_anything(bytes: &[u8]) -> [bool; 7] {
        let mut origins = Origins::default();
        let mut intern = |origin| Some(origins.intern(origin));
        let reader = || Reader::new("anything", bytes);
        [
            reader().u64().is_ok(),
            reader().delta(u64::MAX).is_ok(),
            reader().seq(7).is_ok(),
            reader().value().is_ok(),
            reader().rank().is_ok(),
            reader().dots(&mut NamesIn::default(), &mut intern).is_ok(),
            reader().frontier(&mut NamesIn::default(), &mut intern).is_ok(),
        ]
    }

    #[test]
    fn numbers_take_a_byte_for_each_seven_bits() {
        for (number, len) in [(0, 1), (0x7f, 1), (0x80, 2), (0x3fff, 2), (0x4000, 3), (u64::MAX >> 1, 9), (u64::MAX, 10)] {
            let mut w = Writer::default();
            w.u64(number);
            assert_eq!(w.out.len(), len, "{number}");
            let mut r = Reader::new("a number", &w.out);
            assert_eq!(r.u64(), Ok(number));
            assert!(r.is_done());
        }
        for overlong in [&[0xff; 11][..], &[0x80; 10], &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]] {
            assert!(Reader::new("a number", overlong).u64().is_err());
        }
    }

    #[test]
    fn small_differences_take_a_byte_in_either_direction() {
        for (from, to, len) in [(1_000_000, 1_000_063, 1), (1_000_000, 999_936, 1), (0, u64::MAX, 1), (u64::MAX, 0, 1), (0, 1 << 63, 10)] {
            let mut w = Writer::default();
            w.delta(from, to);
            assert_eq!(w.out.len(), len, "{from} to {to}");
            assert_eq!(Reader::new("a difference", &w.out).delta(from), Ok(to));
        }
    }

    #[test]
    fn an_origin_is_named_once_a_lane() {
        let (ours, mut theirs) = (ours(), theirs());
        let (mut out, mut names) = (NamesOut::default(), NamesIn::default());
        let mut w = Writer::default();
        let sent = [3, 1, 3, 3, 0, 1].map(OriginIx);
        for ix in sent {
            w.origin(&mut out, &ours, ix);
        }
        assert_eq!(w.out.len(), 6 + 3 * Origin::LEN);
        let mut r = Reader::new("origins", &w.out);
        for ix in sent {
            let read = r.origin(&mut names, &mut |origin| Some(theirs.intern(origin))).unwrap();
            assert_eq!(theirs.get(read), ours.get(ix));
        }
        assert!(r.is_done());
        // A number that nobody was given, and one origin more than a node names.
        assert!(Reader::new("an origin", &[9]).origin(&mut names, &mut |_| Some(OriginIx(0))).is_err());
        let mut more = vec![3];
        more.extend_from_slice(&origin(77).to_bytes());
        assert!(Reader::new("an origin", &more).origin(&mut names, &mut |_| None).is_err());
        assert!(Reader::new("an origin", &more).origin(&mut names, &mut |_| Some(OriginIx(0))).is_ok());
    }

    #[test]
    fn limits_hold_to_the_last_unit() {
        let number = |number: u64| {
            let mut w = Writer::default();
            w.u64(number);
            w.out
        };
        assert_eq!(Reader::new("a number", &number(SEQ_MAX)).number(), Ok(SEQ_MAX));
        assert!(Reader::new("a number", &number(SEQ_MAX + 1)).number().is_err());
        let clock = |from: u64, to: u64| {
            let mut w = Writer::default();
            w.delta(from, to);
            Reader::new("a clock", &w.out).seq(from)
        };
        assert_eq!(clock(5, SEQ_MAX), Ok(SEQ_MAX));
        assert!(clock(5, SEQ_MAX + 1).is_err());
        assert!(clock(5, u64::MAX).is_err(), "a clock below zero");
        // Lists: never more than there are bytes, nor more than the limit even if there are.
        let list = |count: u64, len: usize| {
            let mut bytes = number(count);
            bytes.resize(bytes.len() + len, 0);
            Reader::new("a list", &bytes).count().is_ok()
        };
        assert!(list(10, 10));
        assert!(!list(11, 10));
        assert!(list(LIST_MAX, LIST_MAX as usize));
        assert!(!list(LIST_MAX + 1, LIST_MAX as usize + 1));
        assert!(!list(u64::MAX, 10));
        // Values: the length is refused before the bytes are looked at.
        let value = |len: usize, there: usize| {
            let mut bytes = number(len as u64);
            bytes.resize(bytes.len() + there, 7);
            Reader::new("a value", &bytes).value()
        };
        assert_eq!(value(VALUE_BYTES_MAX, VALUE_BYTES_MAX).map(|value| value.len()), Ok(VALUE_BYTES_MAX));
        assert!(value(VALUE_BYTES_MAX + 1, VALUE_BYTES_MAX + 1).unwrap_err().why.contains("at most"));
        assert!(value(VALUE_BYTES_MAX, VALUE_BYTES_MAX - 1).unwrap_err().why.contains("ends too early"));
        // Priorities beyond 32 bits.
        let rank = |priority: i64| {
            let mut w = Writer::default();
            w.delta(0, priority as u64);
            w.out.extend_from_slice(&[1; 16]);
            Reader::new("a rank", &w.out).rank().map(|rank| i64::from(rank.priority))
        };
        for priority in [i64::from(i32::MIN), -1, 0, i64::from(i32::MAX)] {
            assert_eq!(rank(priority), Ok(priority));
        }
        assert!(rank(i64::from(i32::MIN) - 1).is_err());
        assert!(rank(i64::from(i32::MAX) + 1).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_is_written_is_read(
            number in any::<u64>(),
            steps in prop::collection::vec(any::<u64>(), 0..9),
            bytes in prop::collection::vec(any::<u8>(), 0..300),
            list in dots(),
            raised in dots(),
            priority in any::<i32>(),
            session in any::<[u8; 16]>(),
        ) {
            let (ours, mut theirs) = (ours(), theirs());
            let frontier: Frontier = raised.into_iter().collect();
            let rank = Rank { priority, session: SessionId(session) };
            let (mut out, mut names) = (NamesOut::default(), NamesIn::default());
            let mut w = Writer::default();
            w.u64(number);
            steps.iter().fold(number, |from, to| {
                w.delta(from, *to);
                *to
            });
            w.bytes(&bytes);
            w.dots(&mut out, &ours, &list);
            w.frontier(&mut out, &ours, &frontier);
            w.rank(&rank);

            let mut read = |bytes: &[u8]| -> Result<_, Malformed> {
                names = NamesIn::default();
                let mut intern = |origin| Some(theirs.intern(origin));
                let mut r = Reader::new("all kinds", bytes);
                let number = r.u64()?;
                let mut from = number;
                let mut steps_read = Vec::new();
                for _ in &steps {
                    from = r.delta(from)?;
                    steps_read.push(from);
                }
                let bytes = r.bytes(300)?.to_vec();
                let list = r.dots(&mut names, &mut intern)?;
                let frontier = r.frontier(&mut names, &mut intern)?;
                let rank = r.rank()?;
                Ok((number, steps_read, bytes, list, frontier, rank, r.is_done()))
            };
            let (number_read, steps_read, bytes_read, list_read, frontier_read, rank_read, done) = read(&w.out).unwrap();
            // Cut short anywhere, it is refused.
            for len in 0..w.out.len() {
                prop_assert!(read(&w.out[..len]).is_err(), "cut to {len} of {}", w.out.len());
            }
            prop_assert_eq!((number_read, steps_read, bytes_read, rank_read, done), (number, steps, bytes, rank, true));
            let named = |origins: &Origins, dots: &mut dyn Iterator<Item = DotIx>| -> Vec<(Origin, u64)> {
                dots.map(|dot| (origins.get(dot.origin), dot.number)).collect()
            };
            prop_assert_eq!(named(&theirs, &mut list_read.into_iter()), named(&ours, &mut list.into_iter()));
            let (mut sent, mut came) = (named(&ours, &mut frontier.iter()), named(&theirs, &mut frontier_read.iter()));
            sent.sort_unstable();
            came.sort_unstable();
            prop_assert_eq!(sent, came);
        }

        #[test]
        fn garbage_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            read_anything(&bytes);
            // Nothing at all is never anything.
            prop_assert_eq!(read_anything(&[]), [false; 7]);
        }
    }
}
