//! Quorum leases.

#![allow(clippy::unwrap_used, reason = "a test that goes wrong panics, in its helpers too")]

mod model;

use model::{Bounds, Quorum, Wrong};
use stateright::{Checker, HasDiscoveries, Model};

fn env(name: &str, or: u8) -> u8 {
    std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(or)
}

#[test]
#[ignore]
fn probe() {
    let c: &'static [u8] = &[1, 2, 4];
    let d: &'static [u8] = &[1, 3, 4];
    let bounds = Bounds {
        branches: env("BR", 1),
        attempts: [env("A0", 1), env("A1", 1)],
        renewals: [env("R0", 0), env("R1", 0)],
        releases: [env("L0", 0), env("L1", 0)],
        crashes: env("CR", 0),
        losses: env("LO", 0),
        changes: [(env("CH", 0) > 0).then_some(c), (env("CH", 0) > 1).then_some(d)],
        beyond: env("BE", 0) > 0,
        slow_asking: env("SL", 0) > 0,
    };
    let start = std::time::Instant::now();
    let checker = Quorum::new(bounds, Wrong::Nothing)
        .checker()
        .finish_when(HasDiscoveries::AnyFailures)
        .target_state_count(usize::from(env("T", 10)) * 1_000_000)
        .spawn_bfs()
        .join();
    println!("{bounds:?}: {} unique, {} states, depth {}, done {} {:?}", checker.unique_state_count(), checker.state_count(), checker.max_depth(), checker.is_done(), start.elapsed());
    for (name, path) in checker.discoveries() {
        println!("{name}:");
        if name.starts_with("never") {
            for a in path.into_actions() {
                println!("   {}", checker.model().format_action(&a));
            }
        }
    }
}
