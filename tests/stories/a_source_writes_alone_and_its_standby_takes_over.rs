//! One of two sources of a branch writes, and nobody else. However it ends, the other one takes over under a later epoch.

use mangrove::protocol::{Closed, Code, SourceState};
use serde_json::json;

use crate::claims::{QUICK, active, becomes, claim, refused_as, same_sources, standby, write_as, write_under};
use crate::support::{Node, World, block, equal};

fn outsiders_are_refused(nodes: &[&Node]) {
    for node in nodes {
        node.refused(&["set", "plant/rpm", "0"]).says(1, &["plant/rpm", "session ", "[exclusive]"]);
    }
}

#[test]
fn when_it_is_closed_when_its_session_ends_and_when_its_node_dies() {
    let world = World::new();
    let a = world.found_with("A", QUICK);
    let mut b = world.join_with("B", &a, "member", QUICK);
    a.told(&["section", "add", "plant"]);
    a.set("plant/rpm", "1");
    b.shows("plant/rpm", 1);

    let (of_a, of_b) = block(async { (a.connect().await, b.connect().await) });
    // Closed.
    let mut first = block(claim(&of_a, "plant"));
    let mut epoch = block(active(&mut first));
    let mut second = block(claim(&of_b, "plant"));
    let waits = block(standby(&mut second));
    assert!(matches!(&waits, SourceState::Standby { holder: Some(holder), .. } if holder.ends_with(" on A")), "{waits}");
    outsiders_are_refused(&[&a, &b]);
    a.refused(&["topic", "rm", "plant/rpm"]).says(1, &["[exclusive]", "--force"]);
    block(write_as(&first, "plant/rpm", &json!("by the first")));
    b.shows("plant/rpm", "by the first");
    let mut stream = first.publisher(None);
    let number = first.number();
    let closed = block(first.close()).expect("it is closed");
    assert!(matches!(closed, SourceState::Closed { reason: Closed::Released, .. }), "{closed}");
    let mut later = |now: u64| {
        assert!(now > epoch, "{now} after {epoch}");
        std::mem::replace(&mut epoch, now)
    };
    let ended = later(block(active(&mut second)));
    block(async {
        refused_as(stream.set("plant/rpm", vec![0]).await, Code::Fenced);
        refused_as(write_under(&of_a, number, ended, "plant/rpm", &json!("too late")).await, Code::UnknownSource);
        write_as(&second, "plant/rpm", &json!("by the second")).await;
    });
    a.shows("plant/rpm", "by the second");

    // Its session ended.
    let mut third = block(claim(&of_a, "plant"));
    block(standby(&mut third));
    block(of_b.close_session()).expect("it is ended");
    let is_closed = |state: &SourceState| matches!(state, SourceState::Closed { reason: Closed::SessionClosed, .. });
    block(becomes(&mut second, "it is not told of the end", is_closed));
    later(block(active(&mut third)));
    outsiders_are_refused(&[&a]);

    // Its node stopped in the middle of everything, and went on when it was too late.
    let mut fourth = block(claim(&of_b, "plant"));
    block(standby(&mut fourth));
    a.pause();
    let ended = later(block(active(&mut fourth)));
    block(write_as(&fourth, "plant/rpm", &json!("by the fourth")));
    a.wake();
    block(async {
        standby(&mut third).await;
        refused_as(third.set("plant/rpm", vec![0], None).await, Code::Fenced);
        refused_as(write_under(&of_a, third.number(), ended, "plant/rpm", &json!("too late")).await, Code::Fenced);
    });
    a.shows("plant/rpm", "by the fourth");

    // Its node died.
    b.kill();
    later(block(active(&mut third)));
    block(write_as(&third, "plant/rpm", &json!("by the third")));
    b.up();
    b.shows("plant/rpm", "by the third");
    let rows = same_sources(&[&a, &b]);
    assert_eq!(
        (&rows[0]["branch"], &rows[0]["epoch"], &rows[0]["holder"]["node"]),
        (&json!("plant"), &json!(epoch), &json!("A")),
        "{rows}"
    );
    equal(&[&a, &b]);
    outsiders_are_refused(&[&a, &b]);
}
