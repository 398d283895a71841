//! A branch by quorum: whoever holds it stops before the next begins, whether its node is cut off or stands still for longer than its lease, and says why. Voters may
//! be killed and come back, and be others in the end.

use std::time::Duration;

use mangrove::client::{Client, ClientError, Source};
use mangrove::protocol::{Code, SourceState};
use serde_json::{Value, json};

use crate::claims::{QUICK, active, becomes, claim, refused_as, same_sources, standby, write_as, write_under};
use crate::support::{Node, World, block, equal, eventually, heal, split};

const PATH: &str = "plant/rpm";

/// Three nodes that vote on a section.
fn three(world: &World) -> [Node; 3] {
    let a = world.found_with("A", QUICK);
    let b = world.join_with("B", &a, "member", QUICK);
    let c = world.join_with("C", &a, "member", QUICK);
    a.refused(&["section", "add", "plant", "--arbitration", "quorum"]).says(1, &["voters"]);
    eventually("all know each other", || {
        let nodes = a.json(&["node", "ls"]);
        if nodes.as_array().is_some_and(|nodes| nodes.len() == 3) { Ok(()) } else { Err(nodes.to_string()) }
    });
    a.told(&["section", "add", "plant", "--arbitration", "quorum", "--voters", "A,B,C", "--lease", "2s"]);
    a.refused(&["section", "set", "plant", "--prop", "lease=5s"]).says(1, &["lease", "[fixed]"]);
    a.told(&["topic", "add", PATH, "--type", "json"]);
    for node in [&b, &c] {
        eventually(
            "the section is everywhere",
            || if node.paths().iter().any(|path| path == PATH) { Ok(()) } else { Err("not yet".into()) },
        );
    }
    b.refused(&["set", PATH, "0"]).says(1, &["quorum", "[quorum-only]"]);
    [a, b, c]
}

/// Writes under what the source was told last, whatever the library thinks of it.
async fn write(client: &Client, number: u32, epoch: u64, value: &str) -> Result<(), ClientError> {
    write_under(client, number, epoch, PATH, &json!(value)).await
}

/// Two sources, the first active, the second waiting.
fn two(a: &Node, b: &Node) -> (Client, Source, u64, Client, Source) {
    block(async {
        let (of_a, of_b) = (a.connect().await, b.connect().await);
        let mut first = claim(&of_a, "plant").await;
        let epoch = active(&mut first).await;
        let mut second = claim(&of_b, "plant").await;
        standby(&mut second).await;
        (of_a, first, epoch, of_b, second)
    })
}

#[test]
fn who_is_cut_off_is_refused_before_the_next_is_granted() {
    let world = World::new();
    let [a, b, c] = three(&world);
    let (of_a, mut first, epoch, _of_b, mut second) = two(&a, &b);
    let number = first.number();
    block(write_as(&first, PATH, &json!("by A")));
    let shown = a.json(&["source", "show", "plant"]);
    assert_eq!((shown["arbitration"].as_str(), shown["voters"].as_array().map(Vec::len)), (Some("quorum"), Some(3)), "{shown}");
    // All the while A's client writes, and each answer is set against what B's client has been told by then.
    split(&a, &b);
    split(&a, &c);
    let later = block(async {
        let written = std::cell::Cell::new(0);
        let writer = async {
            let mut refused = None;
            loop {
                match write(&of_a, number, epoch, "by A, cut off").await {
                    Ok(()) if refused.is_none() => written.set(written.get() + 1),
                    Ok(()) => panic!("it was refused before"),
                    Err(ClientError::Refused(refusal)) => refused = Some(refusal),
                    Err(error) => panic!("{error}"),
                }
                if let Some(refusal) = &refused {
                    break refusal.clone();
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let refusal = tokio::select! {
            biased;
            refusal = writer => refusal,
            // This process may have stood still for so long that it hears of both at once: then the next write tells.
            under = active(&mut second) => match write(&of_a, number, epoch, "by A, too late").await {
                Err(ClientError::Refused(refusal)) => refusal,
                other => panic!("B is active under {under} while A's writes are taken: {other:?}"),
            }
        };
        assert!(written.get() > 0, "its lease ran for a while");
        assert_eq!((refusal.code, &refusal.who[..]), (Code::NoMajority, &["B".to_owned(), "C".to_owned()][..]), "{refusal}");
        let why = becomes(&mut first, "it is told", |state| matches!(state, SourceState::Standby { .. })).await;
        assert!(why.to_string().contains("missing: B, C"), "{why}");
        active(&mut second).await
    });
    assert!(later > epoch);
    block(write_as(&second, PATH, &json!("by B")));
    c.shows(PATH, "by B");
    heal(&a, &b);
    heal(&a, &c);
    equal(&[&a, &b, &c]);
    assert_eq!(a.get(PATH), json!("by B"));
    block(async { refused_as(write(&of_a, number, epoch, "late").await, Code::Fenced) });
    same_sources(&[&a, &b, &c]);
}

#[test]
fn who_stands_still_for_longer_than_its_lease_writes_nothing_after() {
    let world = World::new();
    let [a, b, c] = three(&world);
    let (of_a, _first, epoch, of_b, mut second) = two(&a, &b);
    let (late,) = block(async {
        write(&of_a, 1, epoch, "by A").await.expect("it is active");
        a.pause();
        // It lies before the sleeper, to be the first thing that it sees.
        let late = tokio::spawn({
            let of_a = of_a.clone();
            async move { write(&of_a, 1, epoch, "late").await }
        });
        let now = active(&mut second).await;
        write(&of_b, second.number(), now, "by B").await.expect("it is active");
        (late,)
    });
    a.wake();
    let refused = block(late).expect("an answer");
    let codes = [Code::NoMajority, Code::Fenced];
    assert!(matches!(&refused, Err(ClientError::Refused(refusal)) if codes.contains(&refusal.code)), "{refused:?}");
    for node in [&a, &b, &c] {
        node.shows(PATH, "by B");
    }
    equal(&[&a, &b, &c]);
}

#[test]
fn voters_die_come_back_and_are_others_in_the_end() {
    let world = World::new();
    let [a, mut b, mut c] = three(&world);
    let d = world.join_with("D", &a, "member", QUICK);
    let of_a = block(a.connect());
    let mut first = block(claim(&of_a, "plant"));
    let epoch = block(active(&mut first));
    // One voter at a time, for longer than a lease: the holder goes on under its epoch.
    for voter in [&mut b, &mut c] {
        voter.kill();
        std::thread::sleep(Duration::from_secs(3));
        block(write(&of_a, first.number(), epoch, "on")).expect("two of three are enough");
        voter.up();
        std::thread::sleep(Duration::from_secs(3));
    }
    assert_eq!(first.state(), SourceState::Active { epoch });
    // Another one votes in the place of one that is gone for good.
    c.kill();
    a.told(&["section", "set", "plant", "--voters", "A,B,D"]);
    eventually("D votes", || {
        let row = d.json(&["section", "show", "plant"]);
        let voting: Vec<&Value> = row["voting"].as_array().expect("a list").iter().map(|voter| &voter["node"]).collect();
        if voting.contains(&&json!("D")) && !voting.contains(&&json!("C")) { Ok(()) } else { Err(row.to_string()) }
    });
    // Once it has got over its pause, it counts: without B it takes D.
    std::thread::sleep(Duration::from_secs(5));
    b.kill();
    std::thread::sleep(Duration::from_secs(4));
    block(write(&of_a, first.number(), epoch, "by A and D")).expect("two of three are enough");
    d.shows(PATH, "by A and D");
}
