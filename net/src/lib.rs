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

/// How many bytes the buckets of one frame may have when unpacked.
pub(crate) const BULK_UNPACKED_BYTES_MAX: usize = 64 * 1024 * 1024;

/// How many buckets are compared at a time.
pub(crate) const GROUP_BUCKETS: u16 = 64;
