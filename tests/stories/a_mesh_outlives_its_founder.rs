//! Delete the founder of a mesh: the rest invite, revoke, renew and go on.

use std::time::Duration;

use mangrove::protocol::LinkState;
use mangrove_net::quic::{ConnectError, Endpoint, Options, Revocations};
use serde_json::{Value, json};

use crate::support::{Node, World, block, equal, eventually, stored_identity, until};

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
    until("C knows it too", || c.json(&["node", "ls"]).to_string().contains("revoked"));
    until("nobody talks to D", || !b.is_linked_to("D") && !c.is_linked_to("D"));

    // D goes on alone, and says so: to its operator, in its log, once. What it takes in stays with it.
    let alone = |d: &Node| {
        until("D says that it was revoked", || d.status().warnings.iter().any(|warning| warning.contains("revoked by B")));
        let doctor = d.run(&["--json", "doctor"]);
        assert_eq!(doctor.status.code(), Some(1), "something is wrong");
        let findings: Value = serde_json::from_slice(&doctor.stdout).expect("JSON");
        let found = findings.as_array().expect("a list").iter().find(|finding| finding["check"] == "membership").expect("a finding");
        assert_eq!(found["severity"], "error", "{found}");
        assert!(found["hint"].as_str().is_some_and(|hint| hint.contains("mangrove export")), "{found}");
        // It takes a while to be noticed that the founder is gone, who was killed.
        until("D is linked to nobody", || d.links().iter().all(|row| row.state != LinkState::Up));
    };
    alone(&d);
    d.set("demo/of-the-outcast", "3");
    let told = |log: String| log.lines().filter(|line| line.contains("ERROR") && line.contains("revoked by B")).count();
    assert_eq!(told(d.logged()), 1, "{}", d.logged());
    d.terminate();
    d.up();
    alone(&d);
    assert_eq!((d.get("demo/of-the-founder"), d.get("demo/of-the-outcast")), (json!(1), json!(3)));
    assert_eq!(told(d.logged()), 2, "once a start");
    // It does not knock at every door again and again.
    let knocks = || b.logged().lines().chain(c.logged().lines()).filter(|line| line.contains("not accepted")).count();
    std::thread::sleep(Duration::from_secs(1));
    let before = knocks();
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(knocks(), before, "{}", b.logged());

    // Whoever runs with D's keys is shut out by all that remain.
    d.terminate();
    let identity = stored_identity(&d);
    for node in [&b, &c] {
        let refused = block(async {
            let here = "127.0.0.1:0".parse().expect("an address");
            let endpoint = Endpoint::bind(here, &identity, Revocations::default(), Options::default()).expect("a socket");
            endpoint.connect_mesh(node.address().parse().expect("an address"), None).await.map(|_| ()).expect_err("D is out")
        });
        assert!(matches!(&refused, ConnectError::Revoked(said) if said.contains("revoked by B")), "{}: {refused}", node.name);
    }
    c.set("demo/after", "4");
    b.shows("demo/after", 4);
    equal(&[&b, &c]);
    for node in [&b, &c] {
        assert!(!node.paths().contains(&"demo/of-the-outcast".to_owned()));
        assert!(!node.is_linked_to("D"));
    }
}
