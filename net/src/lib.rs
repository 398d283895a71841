//! How neighbours talk.
//!
//! ```text
//!                    Mesh: all links, heartbeats, who adopts from whom
//!   replica ◀──────▶ ├── Link ◀─▶ neighbour      lane 0: control
//!                    ├── Link ◀─▶ neighbour      one lane for each plane of each common section
//!                    └── Link ◀─▶ neighbour      one lane for each section's messages, one for its bulk
//! ```
//!
//! **Pull, not push.** A link has no queue. Whenever it can take a frame, [`mesh::Mesh::poll_transmit`] makes the next one from the replica's
//! state of that moment. A slow link therefore carries the newest state and skips what was overtaken; memory does not grow with slowness. First
//! go control messages, then standing records, then the tree, then values, then adoptions and repairs; sections and planes have
//! lanes of their own, so that none blocks another.
//!
//! **Frontiers, then what lies above.** On connecting, both ends announce each section that they hold with its frontiers and floors, and each runs
//! what the other lacks: one round trip, bytes by difference. Whoever is below a floor asks to adopt instead. The rules (R1 to R9)
//! are argued in [`mangrove_crdt`]; which part of them lives here is said in [`link`]. Runs of nodes that are over are told as one hash, however
//! many there were (`retired`), and later frontiers on a link tell only what has moved since it was announced.
//!
//! **A tree out of a mesh.** For each feed a link is *eager* or *lazy*, as in Plumtree (Leitão, Pereira, Rodrigues 2007). It begins eager; a run
//! that brought nothing new is answered with `Prune`, and the link turns lazy for that feed. If a neighbour is known to have more of a feed for a
//! while and nothing comes, `Graft` asks it to push. So each record crosses each node about once, along a tree that follows latency and heals itself.
//!
//! **Liveness travels the same links** ([`gossip`]): heartbeats and reports of durable frontiers are passed on by every node, newest wins. Whoever can reach
//! me by any chain of links knows that I live.
//!
//! **Letters** ([`message::Letter`]) are for one node, which need not be a neighbour: they go the way by which its newest heartbeat came first, hop by hop. They may be lost,
//! so whoever needs an answer asks again.
//!
//! **Messages to topics** ([`flood`]) are for whoever listens at the moment: passed on to all who hold the section, in order, and kept by nobody.
//!
//! **Blobs** ([`blobs`]) that definitions name are pulled from any neighbour that has them, piece by piece.
//!
//! **Trust but verify.** Neighbours compare digests all the time ([`message::Control::Check`]), say "proved equal so long ago", and repair a bucket
//! that differs although each covers what the other holds.
//!
//! **Versions.** A message is a kind and a CBOR map with numbered fields; unknown kinds and fields are skipped ([`message`]), and frames of each released
//! version are kept as fixtures. The bulk of a message is packed ([`codec`], [`batch`]): about ten bytes for an update beside its value.
//!
//! **Damage.** What cannot be read closes its link, and nothing else ([`Violation`]). `net/fuzz` looks for frames that do more, with a nightly compiler
//! and cargo-fuzz: `cargo +nightly fuzz run --fuzz-dir net/fuzz control` (or `content`).
//!
//! All of this is pure. Behind the feature `quic` are the endpoint, TLS, tickets and lanes over QUIC streams.

mod adopt;
pub mod batch;
pub mod blobs;
pub mod codec;
pub mod compress;
pub mod dialer;
pub mod flood;
pub mod gossip;
mod graft;
mod lag;
pub mod link;
pub mod mesh;
pub mod message;
mod receive;
mod retired;
mod send;

#[cfg(feature = "quic")]
#[allow(clippy::disallowed_methods, reason = "the half that does I/O")]
pub mod quic;

pub use mesh::{Frame, Violation};

/// The longest frame. Longer ones are refused unread.
pub const FRAME_BYTES_MAX: usize = 8 * 1024 * 1024;

/// How many bytes the buckets of one frame may have when unpacked.
pub(crate) const BULK_UNPACKED_BYTES_MAX: usize = 512 * 1024 * 1024;

/// Into pieces of how many bytes images are cut that are too long for one frame.
pub(crate) const PIECE_BYTES: usize = 2 * 1024 * 1024;

/// How many bytes of a blob one frame holds at most: one that is on its way delays little else.
pub(crate) const BLOB_PIECE_BYTES_MAX: usize = 64 * 1024;

/// How many buckets are compared at a time.
pub(crate) const GROUP_BUCKETS: u16 = 64;
