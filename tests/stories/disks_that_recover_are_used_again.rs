//! A disk that takes writes again is used again, without a restart, and what was acknowledged before, during and after is there.

use mangrove_crdt::definition::Durability;
use serde_json::json;

use crate::load::{Load, share};
use crate::mount::{Card, Mount};
use crate::support::{Node, PATIENCE, World, block, until, write};

/// What a node leaves free of the disk of 160 MiB: a sixteenth.
const RESERVE_BYTES: usize = 10 << 20;

fn refuses(node: &Node) -> bool {
    node.status().warnings.iter().any(|warning| warning.contains("writes are refused"))
}

#[test]
fn when_others_make_room_on_it() {
    let world = World::new();
    let Some(mount) = Mount::new(world.path("disk"), "160m") else { return };
    let mut node = world.node_at("A", mount.path().join("data"), &[]);
    node.told(&["init", "--name", "A"]);
    node.up();
    node.set("kept", "1");
    // So full that what is written fails; and so full that nothing is taken in any more, and nothing waits to be tried again.
    for left in [0, RESERVE_BYTES + (4 << 20)] {
        let ballast = mount.fill(left);
        until("it refuses", || {
            let refused = node.run(&["set", "kept", "2"]);
            !refused.status.success() && refuses(&node)
        });
        // Nobody tells the node.
        ballast.remove();
        until("it says that it takes writes", || !refuses(&node));
        node.set("kept", "3");
    }
    node.kill();
    node.up();
    assert_eq!(node.get("kept"), 3);
}

#[test]
fn when_it_failed_for_a_while() {
    failed_for_a_while(false);
}

#[test]
#[ignore = "the file system of this story has no journal, and may itself lose what it was told to keep"]
fn when_it_failed_for_a_while_and_lost_power() {
    failed_for_a_while(true);
}

fn failed_for_a_while(is_unplugged: bool) {
    let world = World::new();
    let Some(disk) = Mount::new(world.path("disk"), "128m") else { return };
    let Some(mut card) = Card::overcommitted(&world, &disk) else { return };
    let b = world.found("B");
    let mut a = world.node_at("A", card.path().join("data"), &[]);
    let ticket = b.ticket("member");
    a.told(&["join", &ticket, "--name", "A"]);
    a.up();
    let [b, mut a] = share([b, a]);
    let load = Load::start([&a, &b], Durability::Disk);
    load.goes_on(&[&a, &b]);

    for round in 0..4 {
        let ballast = disk.fill(0);
        until("the disk fails under the node", || refuses(&a));
        // Whoever comes now is answered, and reads and the mesh go on.
        let told = block(async {
            let client = a.connect().await;
            tokio::time::timeout(PATIENCE, write(&client, "load/late", &json!(round), None)).await
        });
        told.expect("the writer is answered").expect_err("the disk takes nothing");
        load.goes_on(&[&b]);
        b.set("load/from-b", &round.to_string());
        a.shows("load/from-b", round);
        ballast.remove();
        until("it takes writes again", || !refuses(&a));
        load.goes_on(&[&a, &b]);
    }
    let written = load.end();
    a.set("load/after", "3");
    written.all_there(&[&a, &b]);

    a.kill();
    drop(b);
    if is_unplugged {
        // What was only in the system's memory of the disk is gone.
        card.mend();
    }
    a.up();
    assert!(!a.logged().contains("quarantine"), "{}", a.logged());
    written.all_there(&[&a]);
    assert_eq!((a.get("load/after"), a.get("load/from-b")), (json!(3), json!(3)));
}
