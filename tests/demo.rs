//! The demo, as a user runs it: three real nodes, real flights, a split, a fourth node, a source that is killed.

use std::process::{Command, Stdio};

use serde_json::Value;

#[test]
fn the_demo_ends_with_four_equal_nodes() {
    let output = Command::new(env!("CARGO_BIN_EXE_mangrove"))
        .args(["demo", "--json", "--rate", "4000", "--patience", "120s"])
        .stdin(Stdio::null())
        .output()
        .expect("the program runs");
    let (told, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{told}\n{log}");
    assert_eq!(told.lines().count(), 1, "one line on stdout: {told}");
    let result: Value = serde_json::from_str(&told).expect("JSON");
    let number = |field: &str| result[field].as_u64().unwrap_or_else(|| panic!("{field} is no integer: {told}"));
    assert_eq!(number("nodes"), 4);
    assert!(number("topics") >= 1_000 && number("updates") >= 6_000, "{told}");
    assert!(number("bytes_payload") > number("updates") * 20 && number("bytes_wire") > 0, "{told}");
    assert!(number("heal_ms") > 0 && number("join_ms") > 0, "{told}");
    // JFK is killed, BOS has its branch then, and JFK's old epoch is over.
    assert!(number("takeover_ms") > 0 && number("epoch") > number("epoch_before") && number("epoch_before") > 0, "{told}");
    assert!(
        result["fenced"]
            .as_str()
            .is_some_and(|refusal| refusal.contains("flights/JFK") && refusal.contains(&format!("epoch {}", number("epoch")))),
        "{told}"
    );
    assert_eq!(result["converged"], Value::Bool(true), "{told}");
    let digests = result["digests"].as_object().expect("digests by node");
    assert_eq!(digests.keys().map(String::as_str).collect::<Vec<_>>(), ["BOS", "EWR", "JFK", "LGA"]);
    let first = digests["EWR"].as_str().expect("a digest");
    assert!(first.len() >= 32 && first.bytes().all(|byte| byte.is_ascii_hexdigit()), "{told}");
    assert!(digests.values().all(|digest| digest == first), "{told}");
}
