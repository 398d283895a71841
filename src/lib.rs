//! Mangrove keeps a tree of topics the same on many nodes that have no coordinator, over links that come and go.

pub mod node;
pub mod protocol;
pub mod store;

#[cfg(feature = "runtime")]
pub mod cli;
#[cfg(feature = "runtime")]
pub mod client;
#[cfg(feature = "runtime")]
pub mod config;
#[cfg(feature = "runtime")]
pub mod demo;
#[cfg(feature = "runtime")]
pub mod logging;
#[cfg(feature = "runtime")]
pub mod runtime;
