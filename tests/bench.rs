//! The bench measures something: real processes start, values arrive, and what is printed has the promised form. How much it is says nothing
//! in a debug build, so nothing is asked of it.

use std::process::Command;

use serde_json::Value;

fn bench(arguments: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_mangrove")).args(["bench", "--json"]).args(arguments).output().expect("the program runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("JSON is text");
    assert_eq!(text.lines().count(), 1, "exactly one object: {text}");
    serde_json::from_str(&text).expect("JSON")
}

#[track_caller]
fn assert_measured(report: &Value, rows: usize) {
    assert_eq!(report["rows"].as_array().map(Vec::len), Some(rows), "{report}");
    for row in report["rows"].as_array().into_iter().flatten() {
        assert!(row["measured"].as_f64().is_some_and(|measured| measured > 0.0), "{row}");
        assert!(row["holds"].is_boolean(), "{row}");
    }
    assert!(report["rows"][1]["baseline"].as_f64().is_some_and(|baseline| baseline > 0.0), "{report}");
}

#[test]
fn values_are_counted_from_node_to_node() {
    let report = bench(&["replicate", "--seconds", "1", "--rounds", "1", "--topics", "200"]);
    assert_measured(&report, 3);
    assert_eq!(report["rounds"].as_array().map(Vec::len), Some(1));
}

#[test]
fn values_are_counted_from_client_to_subscriber() {
    assert_measured(&bench(&["replicate", "--from", "client", "--seconds", "1", "--rounds", "1", "--topics", "200"]), 3);
}

#[test]
fn the_time_from_publisher_to_subscriber_is_taken() {
    assert_measured(&bench(&["latency", "--samples", "20", "--rounds", "1"]), 2);
}

#[test]
fn publishing_is_compared_with_and_without_replication() {
    let report = bench(&["publish", "--updates", "2000", "--singles", "20", "--topics", "50", "--rounds", "1"]);
    assert_eq!(report["rows"].as_array().map(Vec::len), Some(6), "{report}");
    for side in ["local", "replicated"] {
        let [each, alone] = ["flat_out_us", "alone_us"].map(|time| report["rounds"][0][side][time].as_f64().unwrap_or(0.0));
        assert!(0.0 < each && each < alone, "many at once are answered together: {report}");
    }
}

#[test]
fn events_are_counted_where_they_arrive_and_read() {
    let report = bench(&["events", "--events", "10000", "--rounds", "2"]);
    assert_eq!(report["rows"].as_array().map(Vec::len), Some(2), "{report}");
    assert!(report["rows"].as_array().into_iter().flatten().all(|row| row["measured"].as_f64().is_some_and(|measured| measured > 0.0)));
}

#[test]
fn the_cost_of_changing_a_field_is_measured() {
    let report = bench(&["deltas", "--documents", "20", "--changes", "2", "--rounds", "1"]);
    let [alone, together] = [0, 1].map(|row| report["rows"][row]["measured"].as_f64().unwrap_or(0.0));
    assert!(10.0 < together && together < alone && alone < report["bytes"].as_f64().unwrap_or(0.0) / 4.0, "{report}");
}

#[test]
fn a_fresh_node_joins_and_one_that_was_killed_goes_on() {
    let report = bench(&["join", "--topics", "3000", "--bytes", "400", "--rounds", "1", "--kill-halfway"]);
    assert_eq!(report["rows"].as_array().map(Vec::len), Some(5), "{report}");
    let round = &report["rounds"][0];
    for figure in ["join_s", "proved_s", "baseline_s", "wire_bytes"] {
        assert!(round[figure].as_f64().is_some_and(|figure| figure > 0.0), "{figure}: {report}");
    }
    assert!(round["wire_bytes"].as_f64().is_some_and(|bytes| bytes > 3_000.0 * 400.0), "every value came: {report}");
    assert!(round["resumed"]["topics"].as_u64().is_some_and(|topics| topics >= 1_500), "{report}");
}

#[test]
fn a_heal_takes_one_round_trip_and_brings_what_changed() {
    let report = bench(&["catch-up", "--topics", "2000", "--beside", "500", "--changes", "100", "--rounds", "1"]);
    assert_eq!(report["rows"].as_array().map(Vec::len), Some(8), "{report}");
    let rounds = report["rounds"].as_array().expect("rounds");
    assert_eq!(rounds.len(), 4, "each size, one-sided and two-sided");
    for round in rounds {
        let changes = round["changes"][0].as_u64().unwrap_or(0) + round["changes"][1].as_u64().unwrap_or(0);
        assert_eq!((round["requests"].as_u64(), round["records"].as_u64() >= Some(changes)), (Some(0), true), "{round}");
        assert!(round["records"].as_u64() < Some(changes + 50), "what changed, and a few records of the mesh: {round}");
    }
}

#[test]
fn memory_and_idleness_are_measured() {
    let report = bench(&["memory", "--topics", "2000", "--rest", "1s"]);
    assert_eq!(report["rows"].as_array().map(Vec::len), Some(6), "{report}");
    let empty = report["empty_bytes"].as_u64();
    assert!(empty > Some(1_000_000) && report["loaded_bytes"].as_u64() > empty, "{report}");
    let report = bench(&["idle", "--nodes", "3", "--seconds", "3", "--settle", "1s"]);
    assert_eq!(report["each"].as_array().map(Vec::len), Some(3), "{report}");
    for node in report["each"].as_array().into_iter().flatten() {
        assert_eq!(node["links"], 2, "{report}");
        assert!(node["sent_per_link"].as_f64().is_some_and(|bytes| bytes > 0.0), "{report}");
    }
}

#[test]
fn sources_are_claimed_and_fail_over() {
    let report =
        bench(&["sources", "--claims", "300", "--sessions", "3", "--topics", "500", "--rounds", "1", "--seconds", "3", "--settle", "1s"]);
    assert_eq!(report["rows"].as_array().map(Vec::len), Some(23), "{report}");
    for row in report["rows"].as_array().into_iter().flatten() {
        assert!(row["measured"].as_f64().is_some_and(|measured| measured > 0.0), "{row}");
    }
    let failovers = report["failovers"].as_array().expect("failovers");
    assert_eq!(failovers.len(), 6, "of a source, a session and a node, in an available and in a quorum section: {report}");
    for failover in failovers {
        let ms = failover["ms"][0].as_f64().unwrap_or(0.0);
        // Nobody knows that a node is gone until its lease has run out; what closes tells so itself.
        assert_eq!(ms > 4_000.0, failover["end"] == "killed", "{failover}");
    }
    let [without, with] = [0, 1].map(|at| &report["beside"][at]);
    assert_eq!((without["sources"].as_u64(), with["sources"].as_u64()), (Some(0), Some(300)), "{report}");
    let sent = |beside: &Value| beside["joins"][0]["wire_bytes"].as_f64().unwrap_or(0.0);
    // Without sources it is 100 kB; twice that if both neighbours are quick to tell the same.
    assert!(sent(without) > 500.0 * 150.0, "a fresh node is told of all topics: {report}");
    assert!(sent(with) > 500.0 * 200.0 + 300.0 * 50.0, "a fresh node is told of all claims and grants: {report}");
}

#[test]
fn idle_sessions_take_memory_and_no_time() {
    let report = bench(&["sessions", "--sessions", "200", "--connected", "20", "--seconds", "2", "--settle", "1s"]);
    let rows = report["rows"].as_array().expect("rows");
    assert_eq!(rows.len(), 10, "{report}");
    // Other tests use the loopback interface meanwhile, so what each client adds to it says nothing here.
    assert!(
        report["without_and_with_connected"][1]["loopback"].as_f64().is_some_and(|bytes| bytes > 20.0),
        "clients are heard from: {report}"
    );
    assert_eq!((report["sessions"].as_u64(), report["connected"].as_u64()), (Some(200), Some(20)), "{report}");
    assert!(report["without_and_with_lost"][1]["link"].as_f64().is_some_and(|bytes| bytes > 0.0), "{report}");
}
