//! What a node writes to its store: rows of tables, each key's newest state, never a log of operations.

use minicbor::{Decode, Encode};

/// A table of the store. The number is part of the data format and never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode, Decode)]
#[cbor(index_only)]
pub enum Table {
    /// One of a kind: format version, clocks, what this node holds.
    #[n(0)]
    Meta,
    /// Frontier and floor of each feed.
    #[n(1)]
    Feeds,
    /// Registers of the value and standing planes.
    #[n(2)]
    Registers,
    /// Tree changes that are still in their feed.
    #[n(3)]
    Changes,
    /// Saved bucket documents.
    #[n(4)]
    Documents,
    /// What lost to a concurrent write or removal, until its section's displaced log has it. (Once, the log itself.)
    #[n(5)]
    Displaced,
    /// Blobs by their hashes.
    #[n(6)]
    Blobs,
}

impl Table {
    /// All tables, in loading order.
    pub const ALL: [Table; 7] =
        [Table::Meta, Table::Feeds, Table::Registers, Table::Changes, Table::Documents, Table::Displaced, Table::Blobs];

    /// The table's name in a store that names them.
    pub fn name(self) -> &'static str {
        match self {
            Table::Meta => "meta",
            Table::Feeds => "feeds",
            Table::Registers => "registers",
            Table::Changes => "changes",
            Table::Documents => "documents",
            Table::Displaced => "displaced",
            Table::Blobs => "blobs",
        }
    }
}

/// One key of one table: put, or removed where `value` is `None`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Row {
    /// Where.
    pub table: Table,
    /// Which.
    pub key: Vec<u8>,
    /// The new content; `None` removes the key.
    pub value: Option<Vec<u8>>,
}
