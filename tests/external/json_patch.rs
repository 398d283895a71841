//! The public test suite of JSON Patch, against a real node: the npm package `json-patch-test-suite`, in the directory that
//! `MANGROVE_JSON_PATCH_SUITE` names.
//!
//! ```text
//! npm pack json-patch-test-suite@1.1.0 && tar xzf json-patch-test-suite-1.1.0.tgz
//! MANGROVE_JSON_PATCH_SUITE=$PWD/package cargo test --test json_patch -- --ignored
//! ```

#![cfg(unix)]
#![allow(clippy::disallowed_methods, reason = "real processes live in real time")]

#[path = "../stories/support.rs"]
#[allow(dead_code, reason = "stories use the rest")]
mod support;

use std::path::PathBuf;

use mangrove::client::{Client, ClientError};
use mangrove::protocol::{Change, Code, Page, TopicSpec, Wish};
use serde_json::Value;

use crate::support::{World, block, bytes_of, value_of};

/// The document after a patch, or why there is none.
async fn patched(client: &Client, document: &Value, patch: &Value) -> Result<Value, ClientError> {
    let set = Change { add: Some(TopicSpec::of("json")), ..Change::new("document", Wish::Value(bytes_of(document))) };
    client.change(set).await.expect("a document");
    let done = client.patch("document", patch).await;
    let (rows, _) = client.values("document", Page::default()).await.expect("it is there");
    let after = rows[0].value.as_deref().map(value_of).expect("it has a value");
    if done.is_err() {
        assert_eq!(after, *document, "what fails changes nothing: {patch}");
    }
    done.map(|_| after)
}

#[test]
#[ignore = "needs the npm package json-patch-test-suite"]
fn the_public_suite_passes() {
    let suite = std::env::var_os("MANGROVE_JSON_PATCH_SUITE").expect("MANGROVE_JSON_PATCH_SUITE names the package's directory");
    let world = World::new();
    let node = world.found("A");
    let client = block(node.connect());
    let (mut passed, mut wrong) = (0, Vec::new());
    for file in ["tests.json", "spec_tests.json"] {
        let text = std::fs::read_to_string(PathBuf::from(&suite).join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        let cases: Vec<Value> = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{file}: {error}"));
        for case in cases.iter().filter(|case| case["disabled"] != Value::Bool(true) && case.get("patch").is_some()) {
            let found = block(patched(&client, &case["doc"], &case["patch"]));
            let right = match (&found, case.get("error")) {
                (Ok(found), None) => case.get("expected").is_none_or(|expected| expected == found),
                (Err(ClientError::Refused(refusal)), Some(_)) => matches!(refusal.code, Code::PatchFailed | Code::InvalidRequest),
                _ => false,
            };
            if right {
                passed += 1;
            } else {
                wrong.push(format!("{file}: {case}: {found:?}"));
            }
        }
    }
    println!("{passed} cases passed");
    assert!(wrong.is_empty(), "{} cases went wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(passed >= 80, "only {passed} cases were found");
    world.logged_no_error();
}
