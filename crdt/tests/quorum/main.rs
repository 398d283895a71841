//! Quorum leases, checked exhaustively: the machines of production in a world that is asynchronous but for the bound on drift.
//!
//! [`model`] is that world, and says what it assumes. Here are its instances, each explored to the end, and what goes wrong when a rule is broken. Three voters and two owners always; a change brings a
//! fourth voter in the place of one of those that hold a lease. The small instances run with every test; the others take minutes, in release:
//!
//! ```text
//! cargo test --release -p mangrove-crdt --test quorum -- --ignored --nocapture --test-threads 1
//! ```
//!
//! COUNTS
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

/// Explores until something has happened that only long runs show.
fn reach(bounds: Bounds, reached: &'static [&'static str]) {
    let checker = Quorum::new(bounds, Wrong::Nothing, reached)
        .checker()
        .finish_when(HasDiscoveries::AllOf(reached.iter().copied().collect()))
        .spawn_bfs()
        .join();
    println!("{reached:?}: {} states, {} steps", checker.unique_state_count(), checker.state_count());
    reached.iter().for_each(|reached| drop(checker.assert_any_discovery(reached)));
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
    change_renewal: Bounds { attempts: [1, 0], renewals: [1, 0], ..CHANGE } => ["renewed"];
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

#[test]
#[ignore = "minutes; in release"]
fn a_lease_is_renewed_in_the_next_configuration() {
    reach(Bounds { attempts: [1, 0], renewals: [2, 0], ..CHANGE }, &["carried over"]);
}
