//! Two nodes with different sections share only the common one; a node stores nothing of what it doesn't hold.

use crate::support::{World, eventually, is_on_disk, until};

#[test]
fn and_names_those_who_hold_the_others() {
    let world = World::new();
    let a = world.found_with("A", &["--set", r#"hold=["alpha", "common"]"#]);
    let b = world.join_with("B", &a, "member", &["--set", r#"hold=["beta", "common"]"#]);
    a.told(&["section", "add", "alpha"]);
    a.told(&["section", "add", "common"]);
    b.told(&["section", "add", "beta"]);
    a.set("alpha/only-a-knows", r#""marker-of-alpha-4c1d""#);
    b.set("beta/only-b-knows", r#""marker-of-beta-93ea""#);
    a.set("common/both-know", r#""marker-of-common-77b0""#);
    b.shows("common/both-know", "marker-of-common-77b0");
    b.set("common/back", "1");
    a.shows("common/back", 1);

    assert_eq!(a.paths(), ["alpha/only-a-knows", "common/back", "common/both-know"]);
    assert_eq!(b.paths(), ["beta/only-b-knows", "common/back", "common/both-know"]);
    eventually("B says who holds alpha", || {
        let refused = b.refused(&["get", "alpha/only-a-knows"]);
        if refused.error.contains("(A)") { Ok(()) } else { Err(refused.error) }
    });
    for arguments in [&["get", "alpha/only-a-knows"][..], &["set", "alpha/only-a-knows", "1"], &["topic", "show", "alpha/only-a-knows"]] {
        b.refused(arguments).says(1, &["[not-held]", "(A)", "alpha"]);
    }
    b.refused(&["topic", "add", "alpha/new", "--type", "json"]).says(1, &["[not-held]", "(A)"]);
    a.refused(&["get", "beta/only-b-knows"]).says(1, &["[not-held]", "(B)"]);
    let held = |section: &str| b.json(&["section", "show", section])["held"].clone();
    assert_eq!((held("alpha"), held("beta"), held("common")), (false.into(), true.into(), true.into()));

    // The disk of a holder shows that the marker would be found.
    assert!(is_on_disk(&a.data, "marker-of-alpha-4c1d") && is_on_disk(&b.data, "marker-of-beta-93ea"));
    until("B has stored what both know", || is_on_disk(&b.data, "marker-of-common-77b0"));
    assert!(!is_on_disk(&b.data, "marker-of-alpha-4c1d"), "B stores what it does not hold");
    assert!(!is_on_disk(&b.data, "only-a-knows"), "B stores names of what it does not hold");
    assert!(!is_on_disk(&a.data, "marker-of-beta-93ea"), "A stores what it does not hold");

    // What a node holds can change while it runs, and outlasts a restart.
    b.told(&["section", "hold", "alpha"]);
    b.shows("alpha/only-a-knows", "marker-of-alpha-4c1d");
    let mut b = b;
    b.terminate();
    b.up();
    b.shows("alpha/only-a-knows", "marker-of-alpha-4c1d");
}
