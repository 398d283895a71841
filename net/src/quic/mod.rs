//! Neighbours over QUIC: one UDP socket, one mesh, nobody else.
//!
//! ```text
//!                       ┌───────────────── Endpoint (one UDP socket) ─────────────────┐
//!   other nodes ──QUIC──┤ mangrove-mesh/1    both show certificates ─▶ MeshConnection ├─▶ lanes ─▶ the node's loop
//!   clients ─────QUIC───┤ mangrove-client/1  the node shows its own ─▶ quinn::Connection  ─▶ the client gateway
//!   new nodes ───QUIC───┤ mangrove-join/1    a ticket, or a renewal ─▶ JoinRequest    ├─▶ the node's ticket book
//!                       └─────────────────────────────────────────────────────────────┘
//! ```
//!
//! - [`key`], [`authority`]: who a node is. Keys, certificates, [`Identity`](authority::Identity).
//! - [`tls`]: whom a handshake lets in. Expiry, revocation.
//! - [`ticket`], [`join`]: how a new node gets in.
//! - [`endpoint`]: the socket; accepting, dialling, floods, changing the certificate or the address while running.
//! - [`lanes`]: what a mesh connection carries: independent, bounded, prioritised queues of frames.
//! - [`dialer`]: when to try again; pure, so it stands outside.
//!
//! This is the half of the crate that does I/O; nothing here decides what is replicated.

pub mod authority;
pub mod close;
mod congestion;
pub mod endpoint;
mod inbox;
pub mod join;
pub mod key;
pub mod lanes;
#[cfg(test)]
mod tests;
pub mod ticket;
pub mod tls;
mod transport;

pub use crate::dialer::{self, Backoff, Target};
pub use authority::{Applicant, Authority, Certificates, Identity, IdentityError};
pub use close::{CloseCode, Closed};
pub use endpoint::{ClientEndpoint, ConnectError, Endpoint, Incoming, Options};
pub use inbox::Frame;
pub use join::{Ask, JoinError, JoinRequest};
pub use key::{AuthorityId, PublicKey, SecretKey};
pub use lanes::{LaneSender, LinkEvent, LinkStats, MeshConnection, Room, SendError};
/// The QUIC implementation, for whoever serves [`Incoming::Client`] connections.
pub use quinn;
pub use ticket::{Role, Secret, Ticket, TicketBook, TicketError, TicketId};
pub use tls::{Revocations, Revoked, TrustError};
