//! Lines of paged topics: changing them, and what is said of a list.

use mangrove_crdt::paged::Summary;
use minicbor::{Decode, Encode};
use serde::Serialize;

use super::bounded;

/// A change of a list: some lines go, others come in their place. Lines are numbered from 1.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Splice {
    /// The first line that goes, or before which the new ones come; one more than there are, or `None`, for the place after the last.
    #[n(0)]
    pub from: Option<u64>,
    /// How many lines go; `None` for all from there on.
    #[n(1)]
    pub take: Option<u64>,
    /// The new ones.
    #[cbor(n(2), decode_with = "bounded::list")]
    pub lines: Vec<String>,
}

impl Splice {
    /// Lines after the last.
    pub fn append(lines: Vec<String>) -> Self {
        Splice { from: None, take: Some(0), lines }
    }

    /// Lines before a line.
    pub fn insert(at: u64, lines: Vec<String>) -> Self {
        Splice { from: Some(at), take: Some(0), lines }
    }

    /// Lines in the place of as many, from a line on.
    pub fn replace(from: u64, lines: Vec<String>) -> Self {
        Splice { from: Some(from), take: Some(lines.len() as u64), lines }
    }

    /// No more of so many lines, from a line on.
    pub fn remove(from: u64, count: u64) -> Self {
        Splice { from: Some(from), take: Some(count), lines: Vec::new() }
    }

    /// No lines any more.
    pub fn clear() -> Self {
        Splice { from: Some(1), take: None, lines: Vec::new() }
    }
}

/// What a list has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct ListState {
    /// How many lines it has.
    #[n(0)]
    pub lines: u64,
    /// How many bytes these have together.
    #[n(1)]
    pub bytes: u64,
    /// Another number after every change, greater than any before: what was read under one number belongs together.
    #[n(2)]
    pub revision: u64,
}

impl From<Summary> for ListState {
    fn from(Summary { lines, bytes, revision }: Summary) -> Self {
        ListState { lines, bytes, revision }
    }
}
