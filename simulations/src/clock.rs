//! What a node takes for the time.

use mangrove::node::Now;
use mangrove_crdt::time::Instant;

use crate::scenario::Time;

/// When every run begins, by true wall time, in milliseconds since 1970.
const EPOCH_MS: i64 = 1_800_000_000_000;

/// A machine's two clocks. The monotonic one drifts and never goes back; the wall clock drifts as well, and may be off and jump.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    anchor: Time,
    mono: u64,
    ppm: f64,
    /// How far the wall clock is ahead of the monotonic one's idea of it, in microseconds.
    offset: i64,
    /// How far the wall clock jumps forth and back.
    strobe: i64,
    /// The greatest deviation that they have ever had, in parts per million.
    worst: f64,
}

/// How long a wall clock that jumps forth and back stays before it jumps again.
const STROBE_EVERY: Time = 100_000;

impl Clock {
    /// Clocks that read `mono` microseconds at the beginning of the run.
    pub fn new(mono: u64, ppm: f64, offset_us: i64) -> Self {
        Clock { anchor: 0, mono, ppm: ppm.clamp(-100_000.0, 100_000.0), offset: offset_us - mono as i64, strobe: 0, worst: ppm.abs() }
    }

    fn mono(&self, now: Time) -> u64 {
        let elapsed = now - self.anchor;
        self.mono + (elapsed as i64 + (elapsed as f64 * self.ppm / 1e6) as i64).max(0) as u64
    }

    /// What both clocks read.
    pub fn read(&self, now: Time) -> Now {
        let mono = self.mono(now);
        let forth = if (now / STROBE_EVERY).is_multiple_of(2) { self.strobe } else { 0 };
        let unix_ms = EPOCH_MS + (mono as i64 + self.offset + forth).div_euclid(1_000);
        Now { at: Instant(mono), unix_ms: unix_ms.max(0) as u64 }
    }

    /// The true time at which the monotonic clock will have reached a reading; now, if it has.
    pub fn when(&self, now: Time, reading: Instant) -> Time {
        let present = self.mono(now);
        if reading.0 <= present {
            return now;
        }
        let wait = (reading.0 - present) as f64 / (1.0 + self.ppm / 1e6);
        // Never early by rounding: a deadline looked at too soon would be looked at again and again.
        let mut at = now + wait as Time;
        while self.mono(at) < reading.0 {
            at += 1 + (reading.0 - self.mono(at)) / 2;
        }
        at
    }

    /// The wall clock jumps.
    pub fn jump(&mut self, by_us: i64) {
        self.offset += by_us;
    }

    /// The wall clock jumps forth and back by so much from now on; not any more, if that is 0.
    pub fn strobe(&mut self, by_us: i64) {
        self.strobe = by_us;
    }

    /// Whether they have always run that well.
    pub fn kept_within(&self, ppm: f64) -> bool {
        self.worst <= ppm
    }

    /// Both run at another rate from now on.
    pub fn drift(&mut self, now: Time, ppm: f64) {
        self.mono = self.mono(now);
        self.anchor = now;
        self.ppm = ppm.clamp(-100_000.0, 100_000.0);
        self.worst = self.worst.max(ppm.abs());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_are_met_neither_early_nor_much_late_and_time_never_goes_back() {
        for ppm in [-500.0, -1.0, 0.0, 3.0, 500.0] {
            let mut clock = Clock::new(1_000_000, ppm, 0);
            for (now, wait) in [(0, 1), (7, 1_000), (1_000_000, 3_600_000_000)] {
                let due = Instant(clock.read(now).at.0 + wait);
                let at = clock.when(now, due);
                assert!(clock.read(at).at >= due, "early at {ppm} ppm");
                assert!(at <= now + wait + wait / 1_000 + 2, "late at {ppm} ppm");
            }
            let before = clock.read(5_000_000);
            clock.drift(5_000_000, -ppm);
            clock.jump(-3_600_000_000);
            let after = clock.read(5_000_000);
            assert_eq!(before.at, after.at, "the monotonic clock does not jump");
            assert_eq!(before.unix_ms - after.unix_ms, 3_600_000);
        }
    }

    #[test]
    fn a_strobing_wall_clock_jumps_forth_and_back_and_the_other_does_not() {
        let mut clock = Clock::new(0, 0.0, 0);
        clock.strobe(5_000_000);
        let wall: Vec<u64> = (0..4).map(|at| clock.read(at * STROBE_EVERY).unix_ms - EPOCH_MS as u64).collect();
        assert_eq!(wall, [5_000, 100, 5_200, 300]);
        assert_eq!(clock.read(STROBE_EVERY).at, Instant(STROBE_EVERY));
        clock.strobe(0);
        assert_eq!(clock.read(2 * STROBE_EVERY).unix_ms, EPOCH_MS as u64 + 200);
    }
}
