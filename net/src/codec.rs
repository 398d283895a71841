//! Packing: the dense inside of messages.
//!
//! A message is a kind and a CBOR map with numbered fields, so that nodes of different versions understand each other. What
//! makes up the bulk, records and frontiers, is packed inside byte-string fields: variable-length integers (LEB128), differences to
//! the previous record, and origins by a number agreed per lane.
//!
//! **Names.** The first time an origin is mentioned on a lane, it is written out after the next free number; from then on the number alone
//! stands for it. Lanes are ordered and reliable, so both ends count alike. A message kind added later must not introduce
//! names, since an older node skips it unread.

use std::sync::Arc;

use mangrove_crdt::{
    frontier::{DotIx, Dots, Frontier, OriginIx, Origins},
    id::Origin,
    stamp::{Rank, Stamp},
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
}

/// Which origins the other end of a lane has numbered.
#[derive(Debug, Default)]
pub struct NamesIn {
    origins: Vec<OriginIx>,
}

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
        let dots: Vec<DotIx> = frontier.iter().collect();
        self.dots(names, origins, &dots);
    }

    /// A rank.
    pub fn rank(&mut self, rank: &Rank) {
        self.delta(0, i64::from(rank.priority) as u64);
        self.out.extend_from_slice(&rank.session);
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
        (0..self.count()?).map(|_| self.dot(names, intern)).collect()
    }

    /// See [`Writer::frontier`].
    pub fn frontier(&mut self, names: &mut NamesIn, intern: &mut Intern<'_>) -> Result<Frontier, Malformed> {
        (0..self.count()?).map(|_| self.dot(names, intern)).collect()
    }

    /// See [`Writer::rank`].
    pub fn rank(&mut self) -> Result<Rank, Malformed> {
        let priority = i32::try_from(self.delta(0)? as i64).map_err(|_| self.bad("a priority beyond 32 bits"))?;
        let session = self.take(16)?.try_into().map_err(|_| self.bad("a session"))?;
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
