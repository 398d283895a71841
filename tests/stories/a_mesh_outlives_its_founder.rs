//! Delete the founder of a mesh: the rest invite, revoke, renew and go on.

use crate::support::{World, equal, eventually, until};

#[test]
fn when_another_has_the_role_authority() {
    let world = World::new();
    let mut a = world.found("A");
    let b = world.join_with("B", &a, "authority", &[]);
    let mut d = world.join("D", &a);
    a.told(&["section", "add", "demo"]);
    a.set("demo/of-the-founder", "1");
    b.shows("demo/of-the-founder", 1);
    d.shows("demo/of-the-founder", 1);
    a.kill();
    std::fs::remove_dir_all(&a.data).expect("the founder's directory");

    let c = world.join("C", &b);
    c.shows("demo/of-the-founder", 1);
    c.refused(&["invite"]).says(1, &["[not-authority]", "B"]);
    c.refused(&["node", "revoke", "D"]).says(1, &["[not-authority]", "B"]);
    c.set("demo/of-the-newcomer", "2");
    d.shows("demo/of-the-newcomer", 2);

    let before = c.status().certificate_expires_unix_ms;
    eventually("C renews its certificate at B", || {
        let output = c.run(&["node", "renew"]);
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    });
    assert!(c.status().certificate_expires_unix_ms >= before);

    b.told(&["node", "revoke", "D"]);
    let revoked = |of: &str| {
        let rows = b.json(&["node", "ls"]);
        rows.as_array().expect("a list").iter().any(|row| row["name"] == of && row["state"] == "revoked")
    };
    assert!(revoked("D") && !revoked("C"));
    until("nobody talks to D", || !b.is_linked_to("D") && !c.is_linked_to("D"));

    // D may have heard of it before it was cut off, and have stopped; if not, every door says so.
    if d.is_running() {
        d.set("demo/of-the-outcast", "3");
        until("D is told why it is alone", || d.told(&["doctor"]).contains("is revoked"));
        d.kill();
    }
    if d.try_up().is_ok() {
        d.run(&["set", "demo/of-the-outcast", "3", "--type", "json"]);
        until("D is told again", || !d.is_running() || String::from_utf8_lossy(&d.run(&["doctor"]).stdout).contains("is revoked"));
    }
    c.set("demo/after", "4");
    b.shows("demo/after", 4);
    equal(&[&b, &c]);
    assert!(!b.paths().contains(&"demo/of-the-outcast".to_owned()));
    assert!(!b.is_linked_to("D") && !c.is_linked_to("D"));
}
