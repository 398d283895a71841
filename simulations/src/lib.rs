//! The same node in a world that hurts it.

pub mod checks;
pub mod clock;
pub mod dice;
pub mod disk;
pub mod history;
pub mod host;
pub mod log;
pub mod network;
pub mod oracle;
pub mod queue;
pub mod run;
pub mod scenario;
pub mod trace;
pub mod world;
