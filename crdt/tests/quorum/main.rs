//! Quorum leases, checked exhaustively: the machines of production in a world that is asynchronous but for the bound on drift.
//!
//! [`model`] is that world, and says what it assumes. Here are its instances, each explored to the end, and what goes wrong when a rule is broken. Three voters and two owners always; a change brings a
//! fourth voter in the place of one of those that hold a lease. The small instances run with every test; the others take minutes, in release:
//!
//! ```text
//! cargo test --release -p mangrove-crdt --test quorum -- --ignored --nocapture --test-threads 1
//! ```
//!
//! Different states, steps between them, and seconds on one core of a small machine, in release except for those of every test run (43 s together, as built for tests):
//!
//! | instance | what may happen | states | steps | s |
//! |---|---|---|---|---|
//! | `contest` | two owners try once each for one branch | 28,220 | 383,259 | 16 |
//! | `crash` | held; another tries; a voter crashes | 1,090 | 6,633 | <1 |
//! | `lost_vault` | held; another tries; a voter loses its vault | 830 | 4,432 | <1 |
//! | `one_renews` | one owner, from nothing, and a renewal | 2,343 | 12,269 | 1 |
//! | `spread_after_crash` | held; two renewals; a voter crashes | 119,220 | 681,637 | 9 |
//! | `beyond_drift` | held; another tries; a crash; clocks beyond every bound | 2,536 | 16,541 | <1 |
//! | `released` | held; released; another tries | 3,834 | 41,796 | 1 |
//! | `change` | held; a change of one voter | 2,654 | 19,462 | 1 |
//! | `slow_asking` | `contest`, with every question and answer by itself | 219,198 | 3,037,250 | 6 |
//! | `contest_crash` | `contest` and a crash | 463,888 | 6,227,184 | 12 |
//! | `contest_beyond_drift` | the same, clocks beyond every bound | 1,381,195 | 18,078,165 | 40 |
//! | `contest_release` | `contest` and a release | 81,131 | 1,188,273 | 2 |
//! | `released_and_again` | held; released, tried for again; another tries | 5,784,041 | 103,175,742 | 145 |
//! | `renewal` | held; renewed; another tries | 2,111,466 | 28,339,102 | 32 |
//! | `two_branches` | the same, with two branches held and one tried for | 2,829,943 | 47,469,545 | 55 |
//! | `change_contest` | held; another tries; a change of one voter | 3,144,923 | 41,880,689 | 34 |
//! | `change_renewal` | held; renewed; a change of one voter | 8,385,967 | 111,572,735 | 95 |
//! | `change_lost_vault` | held; a vault is lost; a change of one voter | 10,619 | 85,509 | <1 |
//! | `change_duel` | held; two different changes at once | 3,408,419 | 43,149,093 | 30 |
//! | `renewal_crash` | `renewal` and a crash | 13,985,094 | 181,298,946 | 353 |
//!
//! "Held" begins with a lease that the first owner got from two of three voters, and nothing on its way.
//!
//! A broken rule is noticed within 1,000 to 120,000 states, those at the end of the list within three million. Three do their harm too deep for that: they have [`stories`].
//!
//! `MANGROVE_SHOW=1` prints the steps by which a broken rule does its harm. (Voters are renamed between steps: see [`model`].)

#![allow(clippy::unwrap_used, reason = "a test that goes wrong panics, in its helpers too")]

mod machines;
mod model;
mod properties;
mod stories;

use mangrove_crdt::sabotage::Sabotage;
use model::{Bounds, Quorum, Wrong};
use properties::{EXCLUSIVE, FENCED, ONE};
use stateright::{Checker, HasDiscoveries, Model};

/// Two owners try once each for one branch.
const CONTEST: Bounds = Bounds {
    branches: 1,
    attempts: [1, 1],
    renewals: [0, 0],
    releases: [0, 0],
    crashes: 0,
    losses: 0,
    changes: [None, None],
    held: false,
    quiet: false,
    beyond: false,
    slow_asking: false,
};

/// One of them holds it already, and what was said for that is lost.
const HELD: Bounds = Bounds { held: true, quiet: true, ..CONTEST };

/// One of those who hold it is to be replaced.
const CHANGE: Bounds = Bounds { changes: [Some(&[2, 3, 4]), None], ..HELD };

/// Explores everything: nothing may go wrong, and all of `reached` has to happen in some run, or the instance shows nothing.
fn explore(name: &str, bounds: Bounds, reached: &'static [&'static str]) {
    let checker = Quorum::new(bounds, Wrong::Nothing, reached).checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    println!("{name}: {} states, {} steps, {} deep", checker.unique_state_count(), checker.state_count(), checker.max_depth());
    for (property, path) in checker.discoveries() {
        if property.starts_with("never") {
            for action in path.into_actions() {
                println!("  {}", checker.model().format_action(&action));
            }
            panic!("{name}: {property}, violated by the steps above");
        }
    }
    checker.assert_properties();
}

/// Explores until the broken rule has done its harm.
fn caught(wrong: Wrong, bounds: Bounds, property: &'static str) {
    let checker = Quorum::new(bounds, wrong, &[]).checker().finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    println!("{wrong:?}: {} states, {} steps", checker.unique_state_count(), checker.state_count());
    assert!(checker.discovery(property).is_some(), "{wrong:?} goes unnoticed");
    if std::env::var_os("MANGROVE_SHOW").is_some() {
        for action in checker.discovery(property).unwrap().into_actions() {
            println!("  {}", checker.model().format_action(&action));
        }
    }
}

macro_rules! exhaustive {
    ($($(#[$attribute:meta])* $name:ident: $bounds:expr => $reached:expr;)*) => {
        $($(#[$attribute])* #[test] fn $name() { explore(stringify!($name), $bounds, &$reached); })*
    };
}

macro_rules! bites {
    ($($(#[$attribute:meta])* $name:ident: $wrong:expr, $bounds:expr => $property:expr;)*) => {
        $($(#[$attribute])* #[test] fn $name() { caught($wrong, $bounds, $property); })*
    };
}

exhaustive! {
    contest: CONTEST => ["granted", "taken over", "refused by epoch"];
    crash: Bounds { crashes: 1, ..HELD } => ["granted", "taken over"];
    lost_vault: Bounds { losses: 1, ..HELD } => ["taken over"];
    one_renews: Bounds { attempts: [1, 0], renewals: [1, 0], ..CONTEST } => ["granted", "renewed"];
    spread_after_crash: Bounds { attempts: [1, 0], renewals: [2, 0], crashes: 1, ..HELD } => ["renewed", "spread"];
    beyond_drift: Bounds { crashes: 1, beyond: true, ..HELD } => ["taken over"];
    released: Bounds { releases: [1, 0], ..HELD } => ["taken over"];
    change: Bounds { attempts: [1, 0], ..CHANGE } => ["granted"];

    #[ignore = "minutes; in release"]
    released_and_again: Bounds { attempts: [2, 1], releases: [1, 0], ..HELD } => ["had again", "taken over"];
    #[ignore = "minutes; in release"]
    slow_asking: Bounds { slow_asking: true, ..CONTEST } => ["granted", "taken over", "refused by epoch"];
    #[ignore = "minutes; in release"]
    contest_crash: Bounds { crashes: 1, ..CONTEST } => ["granted", "taken over", "refused by epoch"];
    #[ignore = "minutes; in release"]
    contest_beyond_drift: Bounds { crashes: 1, beyond: true, ..CONTEST } => ["granted", "taken over"];
    #[ignore = "minutes; in release"]
    renewal: Bounds { renewals: [1, 0], ..HELD } => ["renewed", "given away", "taken over"];
    #[ignore = "minutes; in release"]
    renewal_crash: Bounds { renewals: [1, 0], crashes: 1, ..HELD } => ["renewed", "given away", "taken over", "spread"];
    #[ignore = "minutes; in release"]
    contest_release: Bounds { releases: [1, 0], ..CONTEST } => ["granted", "taken over"];
    #[ignore = "minutes; in release"]
    two_branches: Bounds { branches: 2, renewals: [1, 0], ..HELD } => ["renewed", "given away", "taken over"];
    #[ignore = "minutes; in release"]
    change_contest: CHANGE => ["granted anew", "taken over"];
    #[ignore = "minutes; in release"]
    change_renewal: Bounds { attempts: [1, 0], renewals: [1, 0], ..CHANGE } => ["renewed", "carried over"];
    #[ignore = "minutes; in release"]
    change_lost_vault: Bounds { losses: 1, attempts: [1, 0], ..CHANGE } => ["granted"];
    #[ignore = "minutes; in release"]
    change_duel: Bounds { attempts: [1, 0], changes: [Some(&[2, 3, 4]), Some(&[1, 3, 4])], ..HELD } => ["granted"];
}

bites! {
    timed_from_receipt: Wrong::FromReceipt, CONTEST => EXCLUSIVE;
    overwrites_a_live_lease: Wrong::Rule(Sabotage::Overwrites), CONTEST => EXCLUSIVE;
    counts_messages: Wrong::CountsMessages, CONTEST => EXCLUSIVE;
    no_quarantine: Wrong::NoQuarantine, Bounds { crashes: 1, ..HELD } => EXCLUSIVE;
    highest_not_durable: Wrong::Forgetful, Bounds { crashes: 1, ..HELD } => FENCED;
    lost_vault_votes_under_its_old_name: Wrong::OldName, Bounds { losses: 1, ..HELD } => FENCED;
    two_proposals_endorsed: Wrong::Rule(Sabotage::EndorsesAny), Bounds { attempts: [0, 0], changes: [Some(&[1, 2, 4]), Some(&[1, 3, 4])], ..CONTEST } => ONE;
    gives_quietly: Wrong::Rule(Sabotage::GivesQuietly), Bounds { renewals: [1, 0], ..HELD } => EXCLUSIVE;
    heeds_no_given: Wrong::Rule(Sabotage::HeedsNoGiven), Bounds { renewals: [1, 0], ..HELD } => EXCLUSIVE;

    #[ignore = "minutes; in release"]
    endorsing_not_durable: Wrong::ForgetsEndorsing, Bounds { attempts: [0, 0], crashes: 1, changes: [Some(&[1, 2, 4]), Some(&[1, 3, 4])], ..CONTEST } => ONE;
    #[ignore = "minutes; in release"]
    no_pause: Wrong::NoPause, CHANGE => EXCLUSIVE;
    #[ignore = "minutes; in release"]
    starts_from_nothing: Wrong::Rule(Sabotage::StartsFromNothing), CHANGE => FENCED;
    #[ignore = "minutes; in release"]
    counts_any_instance: Wrong::Rule(Sabotage::CountsAnyInstance), Bounds { attempts: [2, 1], releases: [1, 0], ..CONTEST } => EXCLUSIVE;
}
