//! A node for tests: alone, with nothing stored and nothing configured.

use std::{collections::BTreeMap, time::Duration};

use mangrove_crdt::{
    id::{Incarnation, MeshId, NodeId, Origin},
    replica::Replica,
    time::Instant,
};
use mangrove_net::mesh::Pace;

use super::{Hold, Input, Node, NodeConfig, Now, SessionId};

/// The node's id.
pub const OWN: NodeId = NodeId([1; 32]);

/// A session that is open.
pub const SESSION: SessionId = SessionId(1);

/// So many milliseconds after the node's start.
pub fn at(ms: u64) -> Now {
    Now { at: Instant(ms * 1_000), unix_ms: ms }
}

/// The node, started at zero.
pub fn node() -> Node {
    let own = Origin { node: OWN, incarnation: Incarnation { boot: 1, nonce: 1 } };
    let config = NodeConfig {
        mesh: MeshId([9; 32]),
        name: "own".into(),
        addresses: Vec::new(),
        seeds: Vec::new(),
        authority: None,
        expires_s: 0,
        hold: Hold::All,
        pace: Pace::default(),
        retention: Duration::from_secs(1),
        neighbours_max: 8,
        links: BTreeMap::new(),
    };
    let mut node = Node::new(at(0), config, Replica::new(own));
    drop(node.handle_input(at(0), Input::SessionOpened { session: SESSION, client: "test".into(), aliases_max: 0 }));
    node
}
