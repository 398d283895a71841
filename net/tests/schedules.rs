//! Random schedules: nodes write, link up, are cut in the middle of a run, crash with or without their disk, die for good, stay away
//! beyond the retention, forget, and come back. Frontiers are sound after every step, and in the end all are equal.
//!
//! A failing seed is printed, to be run again as `MANGROVE_SEED=… cargo test -p mangrove-net --test schedules`, with
//! `MANGROVE_TRACE=1` to see what happened. `MANGROVE_SEEDS=from-to cargo test --release … -- --ignored` plays more.

mod support;

use support::{Plan, play_all};

#[test]
fn nodes_that_only_part_and_meet_converge() {
    play_all("nodes_that_only_part_and_meet_converge", 40, |_| Plan { absences: false, crashes: false, ..Plan::default() });
}

#[test]
fn whatever_happens_to_nodes_frontiers_are_sound_and_survivors_converge() {
    play_all("whatever_happens_to_nodes_frontiers_are_sound_and_survivors_converge", 60, |_| Plan::default());
}

#[test]
fn sections_are_given_up_and_taken_again() {
    play_all("sections_are_given_up_and_taken_again", 40, |_| Plan { holds: true, ..Plan::default() });
}

#[test]
fn events_of_both_sides_survive_in_one_order_and_the_oldest_are_forgotten() {
    play_all("events_of_both_sides_survive_in_one_order_and_the_oldest_are_forgotten", 60, |seed| Plan {
        series: true,
        holds: seed % 3 == 0,
        crashes: seed % 4 != 0,
        absences: seed % 2 != 0,
        ..Plan::default()
    });
}

#[test]
#[ignore = "long: give it a range, as MANGROVE_SEEDS=0-10000"]
fn many_more_seeds() {
    play_all("many_more_seeds", 2_000, |seed| Plan {
        holds: seed % 3 == 0,
        absences: seed % 4 != 0,
        crashes: seed % 5 != 0,
        series: seed % 2 != 0,
        ..Plan::default()
    });
}

#[test]
fn busy_nodes_that_forget_as_early_as_they_may_converge() {
    play_all("busy_nodes_that_forget_as_early_as_they_may_converge", 8, |seed| Plan {
        hot: true,
        steps: 1_000,
        topics: seed % 2 == 0,
        ..Plan::default()
    });
}
