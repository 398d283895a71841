//! Wrong passwords and tokens: whoever shows too many of them has to wait, by address.
//!
//! A leaky bucket (Turner, *New directions in communications*, 1986) for each address that has been wrong: each wrong one fills it, time empties it, and while it is full
//! none that comes from there is looked at. Operators' tokens and sessions' secrets always are: they are 256 random bits, which nobody guesses, take no time
//! to compare, and clients that have lost a node come in storms.
//!
//! What is shown counts once it is judged. So those who are on their way in together are all looked at, at most as many as may be so at once; but each of them
//! that was wrong is paid for afterwards, as the bucket may be more than full.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use mangrove_crdt::time::Instant;

/// How many may be wrong in a row.
const WRONG_MAX: u32 = 100;
/// How long until one of them is forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(1);
/// How many addresses are remembered; beyond that, those that were wrong longest ago are forgotten.
const ADDRESSES_MAX: usize = 16_384;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    /// When each address will have been forgotten.
    empty_at: BTreeMap<IpAddr, Instant>,
}

/// Whom an address stands for: who has one of version 6 has all of its network.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        address => address,
    }
}

impl Attempts {
    /// Somebody there showed something wrong.
    pub(super) fn wrong(&mut self, now: Instant, address: IpAddr) {
        let address = network(address);
        if !self.empty_at.contains_key(&address) && self.empty_at.len() >= ADDRESSES_MAX {
            self.empty_at.retain(|_, empty_at| *empty_at > now);
            while self.empty_at.len() >= ADDRESSES_MAX {
                let Some(first) = self.empty_at.iter().min_by_key(|(_, empty_at)| **empty_at).map(|(address, _)| *address) else { break };
                self.empty_at.remove(&first);
            }
        }
        let empty_at = self.empty_at.entry(address).or_insert(now);
        *empty_at = (*empty_at).max(now).after(FORGOTTEN_AFTER);
    }

    /// How long somebody there has to wait; zero if nothing stands against it.
    pub(super) fn wait(&self, now: Instant, address: IpAddr) -> Duration {
        let empty_at = self.empty_at.get(&network(address));
        let filled = empty_at.map_or(Duration::ZERO, |empty_at| empty_at.since(now));
        (filled + FORGOTTEN_AFTER).saturating_sub(FORGOTTEN_AFTER * WRONG_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant((1_000 + seconds) * 1_000_000)
    }

    #[test]
    fn who_was_wrong_too_often_waits_and_others_do_not() {
        let mut attempts = Attempts::default();
        let [one, near, other] = ["2001:db8::1", "2001:db8::ffff", "192.0.2.7"].map(|address| address.parse::<IpAddr>().unwrap());
        for _ in 0..WRONG_MAX {
            assert_eq!(attempts.wait(at(0), one), Duration::ZERO);
            attempts.wrong(at(0), one);
        }
        assert_eq!(attempts.wait(at(0), one), Duration::from_secs(1));
        assert_eq!(attempts.wait(at(0), near), Duration::from_secs(1), "it is of the same network");
        assert_eq!(attempts.wait(at(0), other), Duration::ZERO);
        assert_eq!(attempts.wait(at(1), one), Duration::ZERO, "one is forgotten");
        attempts.wrong(at(1), one);
        assert_eq!(attempts.wait(at(1), one), Duration::from_secs(1), "and one more is one too many");
    }

    #[test]
    fn whatever_comes_it_remembers_so_many() {
        let mut attempts = Attempts::default();
        for number in 0..2 * ADDRESSES_MAX {
            attempts.wrong(at(0), IpAddr::V4((number as u32).into()));
            if number % 512 == 0 {
                assert!(attempts.empty_at.len() <= ADDRESSES_MAX);
            }
        }
        assert_eq!(attempts.empty_at.len(), ADDRESSES_MAX);
    }
}
