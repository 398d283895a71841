//! When to try again: pure, so that the same rules run in a simulation.

use std::time::Duration;

/// The first wait.
pub const BACKOFF_FIRST: Duration = Duration::from_millis(100);
/// The longest wait: a healed network is noticed within half a minute, and an unreachable peer costs one datagram or so a second.
pub const BACKOFF_LAST: Duration = Duration::from_secs(30);
/// A connection that lasted this long was a good one: the next failure starts over with short waits.
pub const LASTED: Duration = Duration::from_secs(10);

/// Waits that double from [`BACKOFF_FIRST`] to [`BACKOFF_LAST`], each drawn evenly from its upper half, so that nodes that lost each
/// other at the same moment do not all come back at the same moment.
#[derive(Clone, Debug)]
pub struct Backoff {
    random: u64,
    failures: u32,
}

impl Backoff {
    /// The seed decides the jitter: give every target another one.
    pub fn new(seed: u64) -> Self {
        Backoff { random: seed, failures: 0 }
    }

    /// How long to wait after one more failure.
    pub fn failed(&mut self) -> Duration {
        let doubled = BACKOFF_FIRST.saturating_mul(1u32.checked_shl(self.failures).unwrap_or(u32::MAX));
        let longest = doubled.min(BACKOFF_LAST);
        self.failures = self.failures.saturating_add(1).min(31);
        let half = longest / 2;
        half + half.mul_f64(self.draw())
    }

    /// Starts over with short waits.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// Evenly from 0 to 1 (SplitMix64: jitter needs no more).
    fn draw(&mut self) -> f64 {
        self.random = self.random.wrapping_add(SPLIT_MIX);
        (split_mix(self.random) >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// What SplitMix64 adds to its state at each step.
pub const SPLIT_MIX: u64 = 0x9e37_79b9_7f4a_7c15;

/// What SplitMix64 makes of a state (Steele, Lea and Flood, 2014): a number all of whose bits hang on all of the state's.
pub fn split_mix(state: u64) -> u64 {
    let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// A peer to be connected with, under one or more addresses that are tried in turn.
#[derive(Clone, Debug)]
pub struct Target {
    addresses: Vec<String>,
    next: usize,
    backoff: Backoff,
}

impl Target {
    /// Addresses as `host:port`, best first; `None` if there are none. The seed decides the jitter.
    pub fn new(addresses: Vec<String>, seed: u64) -> Option<Self> {
        (!addresses.is_empty()).then(|| Target { addresses, next: 0, backoff: Backoff::new(seed) })
    }

    /// The address to try now.
    pub fn address(&self) -> &str {
        &self.addresses[self.next]
    }

    /// All addresses.
    pub fn addresses(&self) -> &[String] {
        &self.addresses
    }

    /// New addresses for the same peer; an empty list is ignored. The waits go on as before.
    pub fn set_addresses(&mut self, addresses: Vec<String>) {
        if !addresses.is_empty() && addresses != self.addresses {
            self.addresses = addresses;
            self.next = 0;
        }
    }

    /// The address did not answer: turns to the next one, and says how long to wait first. Only a round through all of them
    /// counts as a failure of the peer.
    pub fn failed(&mut self) -> Duration {
        self.next = (self.next + 1) % self.addresses.len();
        match self.next {
            0 => self.backoff.failed(),
            _ => Duration::ZERO,
        }
    }

    /// A connection ended that had stood for `stood`: says how long to wait before dialling the same address again.
    pub fn disconnected(&mut self, stood: Duration) -> Duration {
        if stood >= LASTED {
            self.backoff.reset();
        }
        self.backoff.failed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_with_jitter_up_to_the_longest() {
        let mut backoff = Backoff::new(7);
        let mut bound = BACKOFF_FIRST;
        for _ in 0..40 {
            let wait = backoff.failed();
            assert!(wait >= bound / 2 && wait <= bound, "{wait:?} for {bound:?}");
            bound = (bound * 2).min(BACKOFF_LAST);
        }
        assert_eq!(bound, BACKOFF_LAST);
        backoff.reset();
        assert!(backoff.failed() <= BACKOFF_FIRST);
    }

    #[test]
    fn the_seed_decides_the_jitter() {
        let waits = |seed| {
            let mut backoff = Backoff::new(seed);
            std::iter::repeat_with(move || backoff.failed()).take(8).collect::<Vec<_>>()
        };
        assert_eq!(waits(1), waits(1));
        assert_ne!(waits(1), waits(2));
    }

    #[test]
    fn addresses_are_tried_in_turn_and_only_a_full_round_waits() {
        let mut target = Target::new(vec!["a:1".into(), "b:2".into()], 1).unwrap();
        assert_eq!(target.address(), "a:1");
        assert_eq!(target.failed(), Duration::ZERO);
        assert_eq!(target.address(), "b:2");
        assert!(target.failed() >= BACKOFF_FIRST / 2);
        assert_eq!(target.address(), "a:1");
        assert!(Target::new(vec![], 1).is_none());
    }

    #[test]
    fn a_flapping_peer_is_not_dialled_in_a_tight_loop() {
        let mut target = Target::new(vec!["a:1".into()], 1).unwrap();
        let waits: Vec<_> = (0..10).map(|_| target.disconnected(Duration::from_millis(5))).collect();
        assert!(waits[9] > Duration::from_secs(10), "{waits:?}");
        assert!(target.disconnected(LASTED) <= BACKOFF_FIRST);
    }
}
