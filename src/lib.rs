//! Mangrove keeps a tree of topics the same on many nodes that have no coordinator, over links that come and go.
//!
//! Three crates, one direction: [`mangrove_crdt`] is *what* is replicated, [`mangrove_net`] is *how* neighbours talk, and this one is *who* joins
//! them. Each crate's essay argues its own ideas; this one's are:
//!
//! - **The node is a pure state machine** ([`node`]). Time, randomness and everything that happens outside are passed in; what it wants done comes out as
//!   values. So the node that runs in the simulator is the node that runs in production.
//! - **Everything outside is behind the feature `runtime`**: the loop ([`runtime`]), the disk ([`store`]), the gateway for clients and the
//!   [`client`] library, the program ([`cli`], [`demo`]), and [`embed`], the same node inside another program.
//! - **A client hears one stream** however often it changes nodes: what it remembers for that ([`memory`]) is pure as well.
//! - **Who a client is** is found out once, where it comes in, by whoever the node's configuration asks ([`node`] says whom, the runtime looks at [`passwords`] and
//!   tokens, and sessions elsewhere judge as handlers); the answer lies in the session's record and goes where the session goes. What it *may do* is judged by each node from the
//!   replicated rules, at every request and every delivery, and again whenever they change.
//! - **What a client says** ([`protocol`]) is data too, so a session is the same over QUIC, over a pipe inside the process, and in a simulation.
//!
//! ```text
//!            clients                        neighbours
//!               │ protocol                      │ mangrove_net::message
//!   ┌───────────▼───────────────────────────────▼──────────┐
//!   │ runtime   gateway          drive          quic lanes  │   feature "runtime"
//!   ├───────────────────────────────────────────────────────┤
//!   │ node      admit ─▶ commit ─▶ publish ─▶ disseminate   │   pure
//!   │                      │                                │
//!   │ crdt              Replica           net  Mesh, Link   │   pure
//!   └──────────────────────┬────────────────────────────────┘
//!                          ▼ rows
//!                        store
//! ```

pub mod memory;
pub mod node;
#[cfg(feature = "runtime")]
#[allow(clippy::disallowed_methods, reason = "the half that does I/O")]
pub mod passwords;
pub mod protocol;
pub mod store;

#[cfg(feature = "runtime")]
#[allow(clippy::disallowed_methods, reason = "the half that does I/O")]
pub(crate) mod bench;
#[cfg(feature = "runtime")]
#[allow(clippy::disallowed_methods, reason = "the half that does I/O")]
pub mod cli;
#[cfg(feature = "runtime")]
#[allow(clippy::disallowed_methods, reason = "the half that does I/O")]
pub mod client;
#[cfg(feature = "runtime")]
#[allow(clippy::disallowed_methods, reason = "the half that does I/O")]
pub mod config;
#[cfg(feature = "runtime")]
#[allow(clippy::disallowed_methods, reason = "the half that does I/O")]
pub mod demo;
#[cfg(feature = "runtime")]
#[allow(clippy::disallowed_methods, reason = "the half that does I/O")]
pub mod embed;
#[cfg(feature = "runtime")]
#[allow(clippy::disallowed_methods, reason = "the half that does I/O")]
pub mod logging;
#[cfg(feature = "runtime")]
#[allow(clippy::disallowed_methods, reason = "the half that does I/O")]
pub mod proto;
#[cfg(feature = "runtime")]
#[allow(clippy::disallowed_methods, reason = "the half that does I/O")]
pub mod runtime;
