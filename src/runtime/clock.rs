//! The clocks of this machine, as the node wants them told.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mangrove_crdt::time::Instant;
use rustix::time::{ClockId, clock_gettime};

use crate::node::Now;

/// The present. The monotonic clock goes on while the machine sleeps (`CLOCK_BOOTTIME`): a node that slept must know that it did.
#[allow(clippy::disallowed_methods, reason = "this is where time enters")]
pub fn now() -> Now {
    let boot = clock_gettime(ClockId::Boottime);
    let at = Instant(boot.tv_sec as u64 * 1_000_000 + boot.tv_nsec as u64 / 1_000);
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    Now { at, unix_ms: unix.as_millis() as u64 }
}

/// Seconds since 1970.
pub fn unix_s() -> u64 {
    now().unix_ms / 1_000
}
