//! A node that is told to end does so at once, whoever it cannot reach, and its neighbours hear of it at once.

use std::time::{Duration, Instant};

use crate::support::{World, fixed_port, until};

#[test]
fn though_a_neighbour_cannot_be_reached() {
    let world = World::new();
    let nobody = format!("peers=[\"127.0.0.1:{}\"]", fixed_port());
    let mut a = world.found_with("A", &["--set", &nobody]);
    // A busy machine may delay any one of them.
    let took: Vec<Duration> = (0..5)
        .map(|_| {
            until("A dials", || a.logged().contains("dialling fails") || a.json(&["doctor"]).to_string().contains("127.0.0.1"));
            let begun = Instant::now();
            a.terminate();
            let took = begun.elapsed();
            a.up();
            took
        })
        .collect();
    assert!(took.iter().any(|took| *took < Duration::from_millis(800)), "{took:?}");
}

#[test]
fn and_its_neighbours_hear_of_it() {
    let world = World::new();
    let mut a = world.found("A");
    let b = world.join_with("B", &a, "member", &["--log", "debug"]);
    b.linked("A");
    a.terminate();
    until("B has heard why", || b.logged().contains("closed by the peer: the node is ending"));
}
