//! In a mesh of more nodes than `neighbours_max` each ends up linked to a few, also the one through which all have joined; what any of them writes reaches
//! all, and goes on to when two of them die.

use mangrove::protocol::LinkState;

use crate::support::{Node, World, equal, eventually, until};

const NODES: usize = 12;

/// Two successors and two predecessors on the rings of the built-in section and of the one that all hold.
const LINKS_MAX: usize = 8;

fn links_up(node: &Node) -> usize {
    node.links().iter().filter(|row| row.state == LinkState::Up).count()
}

#[test]
fn and_loses_nothing_with_them() {
    let world = World::new();
    let few = ["--set", "neighbours_max=2"];
    let mut nodes = vec![world.found_with("N0", &few)];
    nodes[0].told(&["section", "add", "demo"]);
    for at in 1..NODES {
        nodes.push(world.join_with(&format!("N{at}"), &nodes[0], "member", &few));
    }
    eventually("everybody has few links and hears of everybody", || {
        let links: Vec<usize> = nodes.iter().map(links_up).collect();
        let reachable: Vec<u32> = nodes.iter().map(|node| node.status().reachable).collect();
        let settled = links.iter().all(|links| (2..=LINKS_MAX).contains(links)) && reachable.iter().all(|count| *count as usize == NODES);
        if settled { Ok(()) } else { Err(format!("links {links:?}, reachable {reachable:?}")) }
    });
    for node in &nodes {
        node.set(&format!("demo/{}", node.name), "1");
    }
    equal(&nodes.iter().collect::<Vec<_>>());
    assert_eq!(nodes[NODES - 1].paths().len(), NODES);

    nodes[0].kill();
    nodes[NODES / 2].kill();
    let left: Vec<&Node> = nodes.iter().enumerate().filter(|(at, _)| *at != 0 && *at != NODES / 2).map(|(_, node)| node).collect();
    for node in &left {
        node.set(&format!("demo/{}", node.name), "2");
    }
    equal(&left);
    until("those that are left hear of each other, and are linked to more than one", || {
        left.iter().all(|node| node.status().reachable as usize == left.len() && links_up(node) >= 2)
    });
    world.logged_no_error();
}
