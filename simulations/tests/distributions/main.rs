//! Distributions and loss models against theory, as a run has them: read from a scenario, and drawn by the network and by clients.
//!
//! Seeds are fixed, so each test passes always or never. Every comparison with theory is a test at the level of one in a thousand; the critical values
//! are in [`theory`].

mod latency;
mod loss;
mod queue;
mod reading;
mod theory;
mod workload;

use std::path::Path;

use mangrove_simulations::{
    network::Network,
    scenario::{Scenario, Time},
};

/// A scenario of three nodes, with lines of its own.
fn scenario(lines: &str) -> Result<Scenario, String> {
    let text = format!(
        "schema = 1\n[run]\nduration = \"100s\"\nsettle = \"30s\"\n[nodes]\nnames = [\"a1\", \"a2\", \"b1\"]\n[[section]]\nroot = \"s\"\n{lines}\n"
    );
    let files =
        |name: &str| std::fs::read_to_string(Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)).map_err(|error| format!("{name}: {error}"));
    Scenario::parse_with("distributions", &text, &files).map_err(|error| error.to_string())
}

/// A network whose paths are all like this, in the time of faults.
fn network(path: &str) -> Network {
    let scenario = scenario(&format!("[network.default]\n{path}")).expect("a good scenario");
    let mut network = Network::new(1, &scenario);
    network.calm = false;
    network
}

/// How long each of so many packets takes that are sent at equal distances.
fn delays(path: &str, count: usize, apart: Time) -> Vec<Time> {
    let mut network = network(path);
    (0..count as Time).map(|at| network.delay(at * apart, 0, 1)).collect()
}
