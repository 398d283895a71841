//! Paged topics: lists of lines of text that live on one node alone.
//!
//! A list is changed in its middle, by position; two sides of a split that do so could not be brought together in a way that either would recognise. So it never leaves the node where it
//! was made: whatever its path, it is held with what is local ([`SectionId::LOCAL`](crate::id::SectionId::LOCAL)), and other nodes have nothing there. If a replicated topic comes to the same
//! path, that one is shown, and the list is *hidden* until the other goes.
//!
//! Lines are kept in *chunks*, each a register of the value plane beside the topic's own, in the order of their sequences, which have gaps for those that come in between. So a change costs a
//! chunk or two, however long the list is. The topic's own register says what the list has come to ([`Summary`]), and that is the value that readers and subscribers are shown.

use minicbor::{Decoder, Encoder};
use serde_json::json;

use crate::{
    definition::TopicType,
    value::{self, VALUE_MAX},
};

/// How many lines a list has at most.
pub const LINES_MAX: u64 = 100_000;

/// How many bytes all lines of a list have together at most.
pub const BYTES_MAX: u64 = VALUE_MAX as u64;

/// How many bytes one line has at most.
pub const LINE_BYTES_MAX: usize = 64 << 10;

/// About how many bytes a chunk has at most, unless a single line is longer: what an append writes again.
const CHUNK_BYTES_MAX: usize = 8 << 10;

/// How far apart the sequences of chunks are that follow each other: so often may be halved between two before all get others, and so many may be appended
/// (4 million, 32 GB) before the same.
const GAP: u64 = 1 << 40;

/// What a list has come to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Summary {
    /// How many lines it has.
    pub lines: u64,
    /// How many bytes these have together.
    pub bytes: u64,
    /// Another number after every change, greater than any before: so whoever reads page by page knows whether it was one list.
    pub revision: u64,
}

impl Summary {
    /// As the topic's value: a JSON object.
    pub fn to_value(&self) -> Vec<u8> {
        let Summary { lines, bytes, revision } = self;
        let object = json!({ "lines": lines, "bytes": bytes, "revision": revision });
        value::from_json(&TopicType::Json, &object).expect("three numbers are short and flat")
    }

    /// The inverse; `None` if it is none.
    pub fn from_value(bytes: &[u8]) -> Option<Summary> {
        let object = value::to_json(&TopicType::Json, bytes).ok()?;
        let number = |name: &str| object.get(name)?.as_u64();
        Some(Summary { lines: number("lines")?, bytes: number("bytes")?, revision: number("revision")? })
    }
}

/// A change of a list: some lines go, others come in their place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Splice<'a> {
    /// The first line that goes, or before which the new ones come, from 1; `None` for the place after the last.
    pub from: Option<u64>,
    /// How many lines go; `None` for all from there on.
    pub take: Option<u64>,
    /// The new ones.
    pub lines: &'a [String],
}

/// Why a list was not changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LinesError {
    /// The place is none in the list.
    #[error("there is no line {line}: the list has {lines}, and the first is 1")]
    NoLine {
        /// What was asked for.
        line: u64,
        /// How many there are.
        lines: u64,
    },
    /// What was given is more than one line.
    #[error("line {at} of those given has a line break in it")]
    LineBreak {
        /// Which of those given, from 1.
        at: usize,
    },
    /// A line is too long.
    #[error("line {at} of those given has {bytes} bytes, and a line has at most {LINE_BYTES_MAX}")]
    LineTooLong {
        /// Which of those given, from 1.
        at: usize,
        /// How long it is.
        bytes: usize,
    },
    /// There would be too many lines.
    #[error("a list has at most {LINES_MAX} lines, and this would have {0}")]
    TooManyLines(u64),
    /// All lines together would be too long.
    #[error("the lines of a list have at most {BYTES_MAX} bytes together, and these would have {0}")]
    TooLong(u64),
}

impl Splice<'_> {
    /// Where the change begins, from 0, and how many lines go, in a list of so many.
    ///
    /// # Errors
    /// There is no such place, or what is new are no lines, or too many.
    pub fn place(&self, lines: u64) -> Result<(u64, u64), LinesError> {
        for (line, at) in self.lines.iter().zip(1..) {
            if line.contains(['\n', '\r']) {
                return Err(LinesError::LineBreak { at });
            }
            if line.len() > LINE_BYTES_MAX {
                return Err(LinesError::LineTooLong { at, bytes: line.len() });
            }
        }
        let from = self.from.unwrap_or(lines + 1);
        let at = from.checked_sub(1).filter(|at| *at <= lines).ok_or(LinesError::NoLine { line: from, lines })?;
        let left = lines - at;
        let take = self.take.unwrap_or(left);
        if take > left {
            return Err(LinesError::NoLine { line: lines + 1, lines });
        }
        let (count, bytes) = (lines - take + self.lines.len() as u64, self.lines.iter().map(|line| line.len() as u64).sum());
        match (count, bytes) {
            (count, _) if count > LINES_MAX => Err(LinesError::TooManyLines(count)),
            (_, bytes) if bytes > BYTES_MAX => Err(LinesError::TooLong(bytes)),
            _ => Ok((at, take)),
        }
    }
}

/// Lines as a chunk.
pub(crate) fn encode(lines: &[&str]) -> Vec<u8> {
    let mut e = Encoder::new(Vec::with_capacity(size(lines) + 3));
    let written = e.array(lines.len() as u64).and_then(|e| lines.iter().try_fold(e, |e, line| e.str(line)));
    debug_assert!(written.is_ok(), "a vector takes any write");
    e.into_writer()
}

/// How many lines a chunk has.
pub(crate) fn count(chunk: &[u8]) -> u64 {
    Decoder::new(chunk).array().ok().flatten().unwrap_or(0)
}

/// The lines of a chunk.
pub(crate) fn decode(chunk: &[u8]) -> impl Iterator<Item = &str> {
    let mut d = Decoder::new(chunk);
    let count = d.array().ok().flatten().unwrap_or(0);
    (0..count).map_while(move |_| d.str().ok())
}

fn size_of_line(line: &str) -> usize {
    line.len() + 3
}

fn size(lines: &[&str]) -> usize {
    lines.iter().map(|line| size_of_line(line)).sum()
}

/// Whether lines make so small a chunk that they had better go into the next one.
pub(crate) fn is_small(lines: &[&str]) -> bool {
    size(lines) < CHUNK_BYTES_MAX / 2
}

/// Parts lines into chunks: equal ones, with room for more in each; or, at the `end` of the list, full ones, since more is likely to come after them.
pub(crate) fn cut<'l, 't>(lines: &'l [&'t str], end: bool) -> Vec<&'l [&'t str]> {
    let total = size(lines);
    let aim = if end { CHUNK_BYTES_MAX } else { total.div_ceil(total.div_ceil(CHUNK_BYTES_MAX).max(1)) };
    let (mut pieces, mut start, mut bytes) = (Vec::new(), 0, 0);
    for (at, line) in lines.iter().enumerate() {
        if at > start && (bytes >= aim || bytes + size_of_line(line) > CHUNK_BYTES_MAX) {
            pieces.push(&lines[start..at]);
            (start, bytes) = (at, 0);
        }
        bytes += size_of_line(line);
    }
    if start < lines.len() {
        pieces.push(&lines[start..]);
    }
    pieces
}

/// So many sequences in the gap between two, or after one; `None` if it is too narrow.
pub(crate) fn between(low: u64, high: Option<u64>, count: u64) -> Option<impl Iterator<Item = u64>> {
    let high = match high {
        Some(high) => high,
        None => GAP.checked_mul(count + 1)?.checked_add(low).filter(|high| *high <= crate::series::SEQUENCE_MAX)?,
    };
    let step = (high - low) / (count + 1);
    (step > 0).then(|| (1..=count).map(move |number| low + step * number))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_summary_is_a_small_json_value() {
        let summary = Summary { lines: 3, bytes: 12, revision: u64::MAX };
        let bytes = summary.to_value();
        assert!(value::validate(&TopicType::Json, &bytes).is_ok() && bytes.len() < 64);
        assert_eq!(Summary::from_value(&bytes), Some(summary));
        for wrong in [&b""[..], &[0xf6], &[0xa1, 0x61, b'a', 1]] {
            assert_eq!(Summary::from_value(wrong), None);
        }
    }

    #[test]
    fn gaps_are_halved_until_there_is_none() {
        let all = |low, high, count| between(low, high, count).map(Iterator::collect::<Vec<u64>>);
        assert_eq!(all(0, None, 2), Some(vec![GAP, 2 * GAP]));
        assert_eq!(all(0, Some(GAP), 1), Some(vec![GAP / 2]));
        assert_eq!(all(4, Some(8), 3), Some(vec![5, 6, 7]));
        assert_eq!(all(4, Some(8), 4), None);
        assert_eq!(all(4, Some(5), 1), None);
        assert_eq!(all(crate::series::SEQUENCE_MAX - GAP, None, 1), None);
        assert_eq!(all(0, None, u64::MAX / 2), None);
    }

    proptest! {
        #[test]
        fn lines_are_parted_in_order_into_chunks_of_some_size(
            lengths in prop::collection::vec(prop_oneof![0..200usize, 4_000..5_000usize, 20_000..20_010usize], 0..60), end: bool,
        ) {
            let lines: Vec<String> = lengths.iter().map(|length| "x".repeat(*length)).collect();
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            let pieces = cut(&lines, end);
            prop_assert_eq!(pieces.concat(), lines.clone());
            for piece in &pieces {
                prop_assert!(!piece.is_empty() && (size(piece) <= CHUNK_BYTES_MAX || piece.len() == 1));
                let chunk = encode(piece);
                prop_assert_eq!(count(&chunk), piece.len() as u64);
                prop_assert_eq!(decode(&chunk).collect::<Vec<_>>(), piece.to_vec());
            }
            // Not more than there need be, but for lines that fill half of one.
            let most = 2 * size(&lines).div_ceil(CHUNK_BYTES_MAX) + 1;
            prop_assert!(pieces.len() <= most, "{} chunks of {} bytes", pieces.len(), size(&lines));
        }

        #[test]
        fn noise_is_no_list_of_lines(noise: Vec<u8>) {
            prop_assert!(decode(&noise).map(str::len).sum::<usize>() <= noise.len());
        }
    }
}
