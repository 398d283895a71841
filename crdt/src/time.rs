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

/// A duration as people write it, in milliseconds: `500ms`, `30s`, `10m`, `2h`, `7d`.
pub fn parse_duration_ms(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let (factor, _) = UNITS.into_iter().find(|(_, name)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(factor)
}

/// A duration as people write it, in the largest unit that it is a whole number of.
pub fn duration_text(ms: u64) -> String {
    let unit = UNITS.into_iter().find(|(factor, _)| ms > 0 && ms.is_multiple_of(*factor));
    unit.map_or_else(|| format!("{ms}ms"), |(factor, unit)| format!("{}{unit}", ms / factor))
}

const UNITS: [(u64, &str); 5] = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms")];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_they_are_written() {
        for (ms, text) in [(0, "0ms"), (500, "500ms"), (30_000, "30s"), (90_000, "90s"), (7_200_000, "2h"), (604_800_000, "7d")] {
            assert_eq!((duration_text(ms).as_str(), parse_duration_ms(text)), (text, Some(ms)));
        }
        for wrong in ["", "5", "s", "-1s", "1.5s", "1 s", "99999999999999999d"] {
            assert_eq!(parse_duration_ms(wrong), None, "{wrong}");
        }
    }
}
