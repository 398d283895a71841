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
