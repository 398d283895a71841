//! A node with one link, to which a fuzzer sends frames: what both targets share.

use mangrove_crdt::{
    frontier::Origins,
    id::{Incarnation, NodeId, Origin, Plane, SectionId},
    path::Path,
    policy::SectionPolicy,
    replica::Replica,
    section::Frontiers,
    time::Instant,
};
use mangrove_net::{
    codec::NamesOut,
    link::{LinkId, LinkOptions},
    mesh::{Mesh, Pace},
    message::{Content, Control, Hello, Holds, LaneOf, WIRE, WIRE_MIN, pack_frontiers},
};

const NOW: Instant = Instant(1_000_000);
const LINK: LinkId = LinkId(1);
const SECTION: SectionId = SectionId(7);

/// What the lanes carry that a fuzzer may write to: lane 0 is control, the others are these, in order.
const LANES: [(SectionId, Option<Plane>); 5] = [
    (SectionId::MESH, Some(Plane::Standing)),
    (SECTION, Some(Plane::Tree)),
    (SECTION, Some(Plane::Values)),
    (SECTION, None),
    (SectionId::MESH, None),
];

/// A node that holds a section, and one link whose peer has said hello, what it holds, and what its lanes carry.
pub struct Node {
    replica: Replica,
    mesh: Mesh,
}

impl Node {
    /// How many lanes there are, lane 0 among them.
    pub const LANES: u32 = LANES.len() as u32 + 1;

    /// A node that has heard all that, and nothing else.
    pub fn greeted() -> Node {
        let origin = |number| Origin { node: NodeId([number; 32]), incarnation: Incarnation { boot: 1, nonce: 1 } };
        let mut replica = Replica::new(origin(1));
        let root = Path::parse("s").expect("a good path");
        replica.declare_section(SectionPolicy::new(SECTION, root)).expect("a section is declared in an empty mesh");
        let peer = origin(2);
        let mut mesh = Mesh::new(NOW, Pace::default());
        mesh.handle_link_up(NOW, LINK, peer.node, LinkOptions::default());
        let mut node = Node { replica, mesh };
        let hello = Hello { version: WIRE, version_min: WIRE_MIN, origin: peer, metered: false, bases_bytes: 0, compressed: true };
        assert!(node.hear(0, &Control::Hello(hello).encode()), "a hello is welcome");
        for section in [SectionId::MESH, SECTION] {
            let nothing = pack_frontiers(&mut NamesOut::default(), &Origins::default(), &Frontiers::default());
            let holds = Holds { section, frontiers: nothing.clone(), floors: nothing, clock: 0, epoch: 0, holding: 1, retired: Vec::new() };
            assert!(node.hear(0, &Control::Holds(holds).encode()), "a section may be announced");
        }
        for (at, (section, plane)) in LANES.into_iter().enumerate() {
            let lane = LaneOf { section, plane, holding: 1, messages: false };
            assert!(node.hear(at as u32 + 1, &Content::Lane(lane).encode()), "a lane may be opened");
        }
        node
    }

    /// Handles a frame, and makes all frames that follow from it. Says whether the link stands.
    pub fn hear(&mut self, lane: u32, frame: &[u8]) -> bool {
        if self.mesh.handle_frame(NOW, LINK, lane, frame, &mut self.replica).is_err() {
            return false;
        }
        while self.mesh.poll_transmit(NOW, LINK, &mut self.replica, &|_| false).is_some() {}
        self.replica.take_events();
        self.replica.take_rows();
        true
    }
}

/// Cuts a fuzzer's input into frames: a lane byte, a length of two bytes (little-endian), and the bytes.
pub fn frames(mut input: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let (head, rest) = input.split_first_chunk::<3>()?;
        let (frame, rest) = rest.split_at(rest.len().min(usize::from(u16::from_le_bytes([head[1], head[2]]))));
        input = rest;
        Some((head[0], frame))
    })
}
