//! The same node in a world that hurts it.

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
pub mod network;
pub mod oracle;
pub mod queue;
pub mod report;
pub mod run;
pub mod scenario;
pub mod scenarios;
pub mod tamper;
pub mod trace;
pub mod world;
