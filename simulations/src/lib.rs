//! The same node in a world that hurts it.
//!
//! # The idea
//!
//! The node is a pure state machine ([`mangrove::node`]): time, randomness and all that happens outside are passed in, and what it wants done comes out as
//! values. So the node that runs here is the one that runs in production, byte for byte through the same codec, and everything around it is a
//! model: clocks that drift and jump, disks that forget, fail, fill up and flip bits, a network that cuts, holds, loses, repeats and reorders, clients that
//! vanish, and operators who restore last week's backup. A *scenario* ([`scenario`]) says what happens in outline; a seed draws the rest. One
//! scenario and one seed are one run, for ever.
//!
//! ```text
//!                       ┌──────────────── World: one queue of events in virtual time ────────────────┐
//!    scenario, seed ───▶│                                                                            │───▶ trace (one hash)
//!                       │  clients ──requests──▶ ┌─ Host ───────────────┐ ◀──frames── Network        │
//!                       │     ▲                  │ clock   Node   disk  │ ──frames──▶  paths,        │───▶ verdicts
//!                       │     └──answers,updates─┤  (real)  ▲     │     │              connections,  │
//!                       │                        └──────────┼─────▼─────┘              lanes         │
//!                       │  faults ─▶ all of these       Persisted  rows                              │
//!                       │                                                                            │
//!                       │  oracle: all that was ever written ─▶ checks, after every step of a node   │
//!                       └────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! - **Virtual time** ([`queue`]): whatever happens is an event with a time; at equal times links go down before others come up, and the rest keeps
//!   its order. Nothing reads a clock, and each part of the world draws from a stream of its own ([`dice`]).
//! - **The driver's law** is kept as in production ([`world`]): outputs in order, a few inputs a turn, links and sessions served when they can take something, and
//!   never a word about what is not yet as durable as was asked.
//! - **The network** ([`network`]) carries what QUIC would: ordered lanes that do not block each other, so that loss is delay, and each end
//!   learns alone, by silence, that the other is gone. A partition loses what is on its way, or holds it all and lets it go at the heal. Links may come and
//!   go by a contact trace.
//! - **The disk** ([`disk`]) is the store in memory of the root package, which keeps a store's contract, behind a writer that groups commits as the store's
//!   thread does.
//! - **Faults first, then quiet**: a run is made (warm-up), hurt, and then left in peace, and within a bound all who live must be equal and silent.
//!
//! # What is checked
//!
//! [`checks`] has one invariant a file. The [`oracle`] knows every record that was ever written, by section, plane, origin and number; when a frontier moves
//! from `a` to `b`, exactly the records in `(a, b]` are looked at, so checking costs in proportion to what happens. Values name the operation that
//! wrote them ([`history`]), so what a subscriber is told can be looked up. An error in the log fails a run like a panic does.
//!
//! A checker that cannot fail proves nothing: `bites` (with the feature `sabotage`) breaks the node's rules and what it relies on, one at a time,
//! and says how many seeds it takes to notice.
//!
//! # What is not modelled
//!
//! Certificates and joining (every node is a member from the start, as if it held a ticket's seeds), the bytes of the clients' protocol (requests are handed
//! over as the gateway does after decoding), what a store's recovery does to find half a batch (it is torn here, and dropped), and the
//! transport's congestion control.
//!
//! # Sources
//!
//! Deterministic simulation with faults, then a liveness phase: FoundationDB (Zhou et al., *FoundationDB: A Distributed Unbundled Transactional Key Value
//! Store*, SIGMOD 2021) and TigerBeetle's VOPR. Swarm testing, each seed with some kinds of faults only: Groce et al., *Swarm testing*, ISSTA 2012.
//! Traceable values, and outcomes that are ok, fail or unknown: Jepsen; Kingsbury and Alvaro, *Elle*, VLDB 2020. Which partitions hurt: Alquraan et al., *An Analysis of
//! Network-Partitioning Failures in Cloud Systems*, OSDI 2018. Loss in bursts: Gilbert 1960, Elliott 1963.

#[cfg(feature = "sabotage")]
pub mod bites;
pub mod checks;
#[allow(clippy::disallowed_methods, reason = "the shell: threads, files, and how long it took")]
pub mod cli;
pub mod clock;
pub mod dice;
pub mod disk;
pub mod history;
pub mod host;
pub mod log;
pub mod loss;
pub mod metrics;
pub mod network;
pub mod oracle;
pub mod queue;
pub mod report;
pub mod run;
pub mod scenario;
pub mod scenarios;
pub mod statistics;
#[allow(clippy::disallowed_methods, reason = "the shell: threads, files, and how long it took")]
pub mod sweep;
pub mod tamper;
pub mod trace;
pub mod values;
pub mod world;
