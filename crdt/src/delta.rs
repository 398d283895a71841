//! What changes from one value to the next, for senders whose receiver has the one before.
//!
//! A delta is a row of steps, each a number (seven bits a byte, least significant first) of which the lowest bit says what it is:
//!
//! ```text
//!   length·2+1, bytes          these come next
//!   length·2,   jump           so many bytes of the base come next, from where the last copy ended, moved by the jump
//!                              (zigzag: 0, -1, 1, -2, … as 0, 1, 2, 3, …); of length 0, all that is left of it
//! ```
//!
//! What both have in common at their ends is found first; between, every eighth place of the base is indexed by the eight bytes that stand there, and the new value
//! looks itself up byte by byte, as in the delta format of Fossil (Hipp 2006) and in rsync (Tridgell 1999). So the time is in proportion to the sizes of both, whatever they hold, and
//! nothing depends on a clock.
//!
//! [`Bases`] is what both ends of an ordered stream remember of it: what was sent last under a name. Both see the same values in the same order, and let the oldest go by
//! the same rule, so each knows what the other has, without a word about it; whatever else happens to the value on either side does not matter.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
    sync::Arc,
};

use crate::sabotage::{Sabotage, is};

/// Values below this are sent whole: there is little to save.
pub const BASE_BYTES_MIN: usize = 96;

/// Values above this are sent whole, and looked at no further: that bounds the time that a delta takes to some milliseconds.
pub const BASE_BYTES_MAX: usize = 1 << 20;

/// How many bytes of a hash of the result go with a delta.
pub const CHECK_LEN: usize = 4;

/// So many bytes that both have are worth a copy.
const KEY: usize = 8;

/// No delta of the base, or of another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DeltaError {
    /// It ends in the middle of a step, or a number is too large.
    #[error("a delta that is cut short")]
    CutShort,
    /// It copies what is not there.
    #[error("a delta that reaches beyond its base")]
    Beyond,
    /// The result would be longer than allowed.
    #[error("a delta to more than {0} bytes")]
    TooLong(usize),
    /// Sender and receiver do not have the same base.
    #[error("a delta of a value that is not here")]
    NoBase,
    /// The result is not what the sender had.
    #[error("a delta that does not give what it should")]
    Other,
}

/// How to come from one value to another; `None` if that takes as many bytes as `to` has, or more.
pub fn diff(base: &[u8], to: &[u8]) -> Option<Vec<u8>> {
    let most = to.len().checked_sub(1)?;
    let prefix = common(base.iter().zip(to));
    let (base_rest, to_rest) = (&base[prefix..], &to[prefix..]);
    let suffix = common(base_rest.iter().rev().zip(to_rest.iter().rev()));
    let (base_middle, middle) = (&base_rest[..base_rest.len() - suffix], &to_rest[..to_rest.len() - suffix]);
    let mut steps = Steps { out: Vec::new(), at: 0, most };
    if prefix > 0 {
        steps.copy(0, prefix)?;
    }
    if base_middle.len() >= KEY && middle.len() >= KEY {
        steps.middle(prefix, base_middle, middle)?;
    } else {
        steps.insert(middle)?;
    }
    if suffix > 0 {
        steps.copy(base.len() - suffix, 0)?;
    }
    Some(steps.out)
}

/// What a delta makes of its base: at most so many bytes.
///
/// # Errors
/// It is none of this base.
pub fn apply(base: &[u8], mut delta: &[u8], bytes_max: usize) -> Result<Vec<u8>, DeltaError> {
    let mut to = Vec::with_capacity(base.len().min(bytes_max));
    let mut at = 0usize;
    while !delta.is_empty() {
        let step = number(&mut delta)?;
        let length = usize::try_from(step >> 1).map_err(|_| DeltaError::Beyond)?;
        if length > bytes_max - to.len() {
            return Err(DeltaError::TooLong(bytes_max));
        }
        if step & 1 == 1 {
            let (bytes, rest) = delta.split_at_checked(length).ok_or(DeltaError::CutShort)?;
            to.extend_from_slice(bytes);
            delta = rest;
        } else {
            let jump = number(&mut delta)?;
            let jump = (jump >> 1) as i64 ^ -((jump & 1) as i64);
            let from = isize::try_from(jump).ok().and_then(|jump| at.checked_add_signed(jump)).ok_or(DeltaError::Beyond)?;
            let end = if length == 0 { Some(base.len()) } else { from.checked_add(length) };
            let copied = end.and_then(|end| base.get(from..end)).ok_or(DeltaError::Beyond)?;
            if copied.len() > bytes_max - to.len() {
                return Err(DeltaError::TooLong(bytes_max));
            }
            to.extend_from_slice(copied);
            at = from + copied.len();
        }
    }
    Ok(to)
}

fn common<'a>(pairs: impl Iterator<Item = (&'a u8, &'a u8)>) -> usize {
    pairs.take_while(|(a, b)| a == b).count()
}

fn number(bytes: &mut &[u8]) -> Result<u64, DeltaError> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or(DeltaError::CutShort)?;
        *bytes = rest;
        if shift == 63 && *byte > 1 {
            return Err(DeltaError::CutShort);
        }
        number |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(number);
        }
    }
    Err(DeltaError::CutShort)
}

/// A delta in the making. Every step gives up once it would be too long.
struct Steps {
    out: Vec<u8>,
    /// Where the last copy ended in the base.
    at: usize,
    most: usize,
}

impl Steps {
    fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.out.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.out.push(number as u8);
    }

    fn insert(&mut self, bytes: &[u8]) -> Option<()> {
        if !bytes.is_empty() {
            self.number((bytes.len() as u64) << 1 | 1);
            self.out.extend_from_slice(bytes);
        }
        (self.out.len() <= self.most).then_some(())
    }

    /// `length` 0 is all that is left.
    fn copy(&mut self, from: usize, length: usize) -> Option<()> {
        self.number((length as u64) << 1);
        let jump = from as i64 - self.at as i64;
        self.number(((jump << 1) ^ (jump >> 63)) as u64);
        self.at = from + length;
        (self.out.len() <= self.most).then_some(())
    }

    /// What has no common beginning or end. `offset` is where this part of the base begins in all of it.
    fn middle(&mut self, offset: usize, base: &[u8], to: &[u8]) -> Option<()> {
        let index = Index::of(base);
        let (mut done, mut at) = (0, 0);
        while at + KEY <= to.len() {
            let Some(found) = index.find(base, &to[at..]) else {
                at += 1;
                continue;
            };
            // Backwards no further than what is not told yet, so that all of this together is no more than one walk.
            let before = common(base[..found].iter().rev().zip(to[done..at].iter().rev()));
            let after = common(base[found..].iter().zip(&to[at..]));
            self.insert(&to[done..at - before])?;
            self.copy(offset + found - before, before + after)?;
            at += after;
            done = at;
        }
        self.insert(&to[done..])
    }
}

/// Where every eighth group of eight bytes stands; of those that fall together, the last.
struct Index {
    places: Vec<u32>,
    shift: u32,
}

impl Index {
    fn of(base: &[u8]) -> Index {
        let bits = (base.len() / KEY * 2).next_power_of_two().trailing_zeros().max(1);
        let mut index = Index { places: vec![u32::MAX; 1 << bits], shift: 64 - bits };
        for (number, key) in base.chunks_exact(KEY).enumerate() {
            let slot = index.slot(key);
            index.places[slot] = (number * KEY) as u32;
        }
        index
    }

    fn slot(&self, key: &[u8]) -> usize {
        let mut bytes = [0; KEY];
        bytes.copy_from_slice(&key[..KEY]);
        (u64::from_le_bytes(bytes).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> self.shift) as usize
    }

    /// Where in the base the same eight bytes stand.
    fn find(&self, base: &[u8], to: &[u8]) -> Option<usize> {
        let place = self.places[self.slot(to)] as usize;
        (base.get(place..place.checked_add(KEY)?)? == &to[..KEY]).then_some(place)
    }
}

/// How a value goes over a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// All of it, and nothing else will build on it.
    Whole,
    /// All of it, to be kept.
    Kept,
    /// A delta from what was kept under its name, with its check in front; to be kept instead.
    Delta(Vec<u8>),
}

/// What one end of a stream has sent, or got, last under each name, as far as that may be built on.
#[derive(Debug)]
pub struct Bases<K> {
    values: HashMap<K, (u64, Arc<[u8]>)>,
    /// The order in which they came; what was replaced since is still in it, under its old number.
    order: VecDeque<(u64, K)>,
    number: u64,
    bytes: usize,
    bytes_max: usize,
}

impl<K> Default for Bases<K> {
    /// One that keeps nothing.
    fn default() -> Self {
        Bases { values: HashMap::new(), order: VecDeque::new(), number: 0, bytes: 0, bytes_max: 0 }
    }
}

impl<K: Clone + Eq + Hash> Bases<K> {
    /// Keeps values of so many bytes together.
    pub fn new(bytes_max: usize) -> Self {
        Bases { bytes_max, ..Bases::default() }
    }

    /// How the next value under this name is to go. `deltas` says whether it may be sent as one, and be one's base.
    pub fn send(&mut self, key: &K, value: &Arc<[u8]>, deltas: impl FnOnce() -> bool) -> Form {
        if value.len() < BASE_BYTES_MIN || value.len() > self.most() || !deltas() {
            return Form::Whole;
        }
        let delta = self.values.get(key).and_then(|(_, base)| diff(base, value));
        self.keep(key, value.clone());
        match delta {
            Some(delta) if delta.len() + CHECK_LEN < value.len() => Form::Delta([&check(value)[..], &delta].concat()),
            _ => Form::Kept,
        }
    }

    /// The value that a delta, check in front, stands for.
    ///
    /// # Errors
    /// Both ends have not kept the same, or this is none.
    pub fn receive(&mut self, key: &K, delta: &[u8]) -> Result<Arc<[u8]>, DeltaError> {
        let (expected, delta) = delta.split_at_checked(CHECK_LEN).ok_or(DeltaError::CutShort)?;
        let (_, base) = self.values.get(key).ok_or(DeltaError::NoBase)?;
        let value: Arc<[u8]> = apply(base, delta, self.most())?.into();
        if is(Sabotage::StaleBase) {
            return Ok(value);
        }
        if check(&value) != expected {
            return Err(DeltaError::Other);
        }
        self.keep(key, value.clone());
        Ok(value)
    }

    /// A value came that is to be kept.
    pub fn keep(&mut self, key: &K, value: Arc<[u8]>) {
        if value.len() > self.most() {
            return;
        }
        self.number += 1;
        self.bytes += value.len();
        if let Some((_, before)) = self.values.insert(key.clone(), (self.number, value)) {
            self.bytes -= before.len();
        }
        self.order.push_back((self.number, key.clone()));
        while self.bytes > self.bytes_max || self.order.front().is_some_and(|oldest| !self.stands(oldest)) {
            let Some(oldest) = self.order.pop_front() else { break };
            if self.stands(&oldest) {
                self.bytes -= self.values.remove(&oldest.1).map_or(0, |(_, value)| value.len());
            }
        }
        if self.order.len() > 2 * self.values.len() + 16 {
            let values = &self.values;
            self.order.retain(|(number, key)| values.get(key).is_some_and(|(newest, _)| newest == number));
        }
    }

    fn stands(&self, (number, key): &(u64, K)) -> bool {
        self.values.get(key).is_some_and(|(newest, _)| newest == number)
    }

    /// One value must not push out all others.
    fn most(&self) -> usize {
        BASE_BYTES_MAX.min(self.bytes_max / 2)
    }
}

/// Tells a value from one that it should not be.
fn check(value: &[u8]) -> [u8; CHECK_LEN] {
    let mut check = [0; CHECK_LEN];
    check.copy_from_slice(&blake3::hash(value).as_bytes()[..CHECK_LEN]);
    check
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A value, and another that was made of it by some cuts, moves and insertions.
    fn related() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
        let edit = (any::<prop::sample::Index>(), 0..40usize, prop::collection::vec(any::<u8>(), 0..30), any::<prop::sample::Index>());
        (prop::collection::vec(0..20u8, 0..600), prop::collection::vec(edit, 0..5)).prop_map(|(base, edits)| {
            let mut to = base.clone();
            for (at, cut, new, other) in edits {
                let at = at.index(to.len() + 1);
                let end = (at + cut).min(to.len());
                let moved: Vec<u8> = to.drain(at..end).collect();
                let other = other.index(to.len() + 1);
                to.splice(other..other, moved.into_iter().chain(new));
            }
            (base, to)
        })
    }

    proptest! {
        #[test]
        fn a_delta_gives_what_it_was_made_for((base, to) in related()) {
            if let Some(delta) = diff(&base, &to) {
                prop_assert!(delta.len() < to.len());
                prop_assert_eq!(apply(&base, &delta, to.len()), Ok(to.clone()));
                prop_assert_eq!(apply(&base, &delta, to.len() - 1), Err(DeltaError::TooLong(to.len() - 1)));
            }
        }

        #[test]
        fn noise_is_refused_or_bounded(base in prop::collection::vec(any::<u8>(), 0..100), delta in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(to) = apply(&base, &delta, 500) {
                prop_assert!(to.len() <= 500);
            }
        }

        /// Whatever is sent, and however little both keep, they keep the same.
        #[test]
        fn both_ends_keep_the_same(
            sent in prop::collection::vec((0..6u8, 60..400usize, any::<u8>(), any::<prop::sample::Index>(), prop::bool::weighted(0.9)), 0..80),
            bytes_max in 0..3_000usize,
        ) {
            let (mut out, mut inn) = (Bases::new(bytes_max), Bases::new(bytes_max));
            for (key, length, byte, at, deltas) in sent {
                let mut value = vec![key; length];
                value[at.index(length)] = byte;
                let value: Arc<[u8]> = value.into();
                match out.send(&key, &value, || deltas) {
                    Form::Whole => {}
                    Form::Kept => inn.keep(&key, value.clone()),
                    Form::Delta(delta) => {
                        prop_assert!(delta.len() < value.len());
                        prop_assert_eq!(inn.receive(&key, &delta), Ok(value.clone()));
                    }
                }
                prop_assert_eq!(out.bytes, inn.bytes);
                prop_assert!(out.bytes <= bytes_max);
                prop_assert_eq!(out.bytes, out.order.iter().filter(|entry| out.stands(entry)).map(|(_, key)| out.values[key].1.len()).sum::<usize>());
                prop_assert!(out.order.len() <= 2 * out.values.len() + 17);
            }
        }
    }

    #[test]
    fn one_field_of_many_takes_a_few_bytes_wherever_it_stands() {
        let document = |speed: &str, at: u32| {
            let rows: Vec<String> = (0..30).map(|row| format!("\"field{row}\":\"{:x}\"", blake3::hash(&[row]).as_bytes()[0])).collect();
            format!("{{\"at\":{at},{},\"speed\":{speed},{}}}", rows[..15].join(","), rows[15..].join(","))
        };
        let base = document("12.5", 1_000_000);
        for (to, most) in [(document("13.75", 1_000_000), 16), (document("13.75", 1_000_001), 24)] {
            let delta = diff(base.as_bytes(), to.as_bytes()).expect("nearly the same");
            assert!(delta.len() <= most, "{} bytes", delta.len());
        }
        assert_eq!(diff(b"abc", b""), None);
        assert_eq!(diff(b"", b"abc"), None);
        assert_eq!(diff(base.as_bytes(), base.as_bytes()).map(|delta| delta.len()), Some(3));
    }

    #[test]
    fn another_base_is_noticed() {
        let mut bases = Bases::new(10_000);
        let value = |last: u8| -> Arc<[u8]> { [vec![1; 200], vec![last]].concat().into() };
        assert_eq!(bases.send(&1, &value(0), || true), Form::Kept);
        let Form::Delta(delta) = bases.send(&1, &value(1), || true) else { panic!("it saves something") };
        let mut other = Bases::new(10_000);
        assert_eq!(other.receive(&1, &delta), Err(DeltaError::NoBase));
        other.keep(&1, [2; 201].as_slice().into());
        assert_eq!(other.receive(&1, &delta), Err(DeltaError::Other));
        assert_eq!(other.receive(&1, &[1]), Err(DeltaError::CutShort));
    }
}
