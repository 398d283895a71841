//! A metered link carries values in rounds, ten seconds apart, each topic's newest by itself when it is due; `links` says for how long the other
//! end has lacked something.

use crate::support::{Node, World, until};

fn lag_ms(node: &Node, of: &str) -> Option<u64> {
    node.links().into_iter().find(|row| row.name == of).and_then(|row| row.lag_ms)
}

#[test]
fn values_wait_for_their_round() {
    let world = World::new();
    let a = world.found_with("A", &["--set", "link.B.metered=true"]);
    a.told(&["section", "add", "demo"]);
    a.told(&["topic", "add", "demo/x", "--type", "json"]);
    let b = world.join("B", &a);
    let mut written = 0;
    until("B lacks something for more than a second", || {
        written += 1;
        a.set("demo/x", &written.to_string());
        lag_ms(&a, "B").is_some_and(|lag| lag > 1_000)
    });
    let told = a.json(&["links"]);
    assert!(told[0]["lag_ms"].as_u64().is_some_and(|lag| lag <= 30_000), "{told}");
    // Nobody writes any more, and it comes.
    b.shows("demo/x", written);
    until("B is known to have everything", || lag_ms(&a, "B") == Some(0));
    assert!(a.told(&["links"]).contains("none"), "{}", a.told(&["links"]));
}
