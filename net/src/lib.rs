//! How neighbours talk.

pub mod batch;
pub mod codec;
pub mod gossip;
pub mod link;
pub mod mesh;
pub mod message;
mod receive;
mod send;

#[cfg(feature = "quic")]
pub mod quic;

pub use mesh::{Frame, Violation};

/// The longest frame. Longer ones are refused unread.
pub const FRAME_BYTES_MAX: usize = 8 * 1024 * 1024;

/// About how many bytes of records one batch holds.
pub(crate) const BATCH_BYTES: usize = 64 * 1024;

/// At most how many records one batch holds.
pub(crate) const BATCH_RECORDS: usize = 4096;

/// About how many bytes of buckets one frame of an adoption holds, before compression.
pub(crate) const BULK_BYTES: usize = 256 * 1024;

/// How many bytes the buckets of one frame may have when unpacked.
pub(crate) const BULK_UNPACKED_BYTES_MAX: usize = 64 * 1024 * 1024;

/// How many buckets are compared at a time.
pub(crate) const GROUP_BUCKETS: u16 = 64;
