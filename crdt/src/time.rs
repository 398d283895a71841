//! Time as a number that is passed in. The pure parts never read a clock.

use std::time::Duration;

/// A moment on a node's own monotonic clock, in microseconds since some fixed point of that run. It goes on while the
/// machine sleeps (`CLOCK_BOOTTIME`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Instant(pub u64);

impl Instant {
    /// The moment so much later.
    pub fn after(self, wait: Duration) -> Instant {
        Instant(self.0.saturating_add(wait.as_micros().min(u128::from(u64::MAX)) as u64))
    }

    /// How long ago an earlier moment was; zero for a later one.
    pub fn since(self, earlier: Instant) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}
