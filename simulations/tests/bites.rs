//! It bites: with a rule of the node broken, or something that it relies on, the simulator notices. Each begins at a seed that is known to notice; what
//! changes the course of runs moves these seeds, and `mangrove-sim bite` finds new ones.
#![cfg(feature = "sabotage")]

use mangrove_simulations::bites::ALL;

/// How many seeds each may take, from the one that is known to notice.
const SEEDS_MAX: u64 = 12;

#[test]
fn whatever_is_broken_is_noticed() {
    let known = ALL.iter().filter_map(|bite| Some((bite, bite.known?)));
    let missed: Vec<&str> = std::thread::scope(|scope| {
        let running: Vec<_> =
            known.map(|(bite, seed)| (bite.name, scope.spawn(move || bite.seeds_until_caught(seed, SEEDS_MAX).is_some()))).collect();
        running.into_iter().filter_map(|(name, run)| (!run.join().unwrap_or(false)).then_some(name)).collect()
    });
    assert!(missed.is_empty(), "not noticed: {missed:?}");
    assert!(ALL.iter().filter(|bite| bite.known.is_some()).count() >= 12);
}
