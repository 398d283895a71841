//! Which nodes to be linked to.
//!
//! In a small mesh, all. In a larger one a bounded number, so chosen that the holders of each section stay connected: for each
//! section held here, the built-in one included, its reachable holders are put on a ring in the order of a hash of node and section, and each dials the two
//! that follow it. A ring through all holders is connected; the second successor carries it over one that is away, and a successor that is not
//! heard of is passed over. The hash differs by section, so the rings are chords to each other, and the mesh as a whole has a small diameter
//! (the idea of random-ring overlays such as HyParView's successors, here derived from what everyone knows instead of by gossip).

use std::collections::{BTreeMap, BTreeSet};

use mangrove_crdt::{
    id::{NodeId, SectionId},
    standing::NodeRecord,
};

use super::output::Target;

/// How many successors on each ring to dial.
const SUCCESSORS: usize = 2;

/// How many of those on the way to them that nothing is heard of are dialled at a time.
const SILENT_AT_ONCE: usize = 4;

/// What the choice depends on.
#[derive(Debug)]
pub struct View<'a> {
    /// This node.
    pub own: NodeId,
    /// The sections held here, the built-in one included.
    pub held: &'a [SectionId],
    /// All members, this node included.
    pub members: &'a BTreeMap<NodeId, NodeRecord>,
    /// Nodes to keep away from.
    pub avoided: &'a BTreeSet<NodeId>,
    /// Members heard of lately, over any chain of links.
    pub alive: &'a BTreeSet<NodeId>,
    /// Counts on slowly: whose turn it is among the members that nothing is heard of.
    pub turn: u64,
    /// Addresses from the configuration, always dialled: two islands that never met find each other through them.
    pub seeds: &'a [String],
    /// Up to how many nodes everyone dials everyone.
    pub full_mesh_max: usize,
}

/// The nodes to dial.
pub fn choose(view: &View<'_>) -> Vec<Target> {
    let others = |node: &NodeId| *node != view.own && !view.avoided.contains(node);
    let mut chosen: BTreeSet<NodeId> = BTreeSet::new();
    if view.members.len() <= view.full_mesh_max + 1 {
        chosen.extend(view.members.keys().copied().filter(others));
    } else {
        for section in view.held {
            let holds =
                |node: &NodeId, record: &NodeRecord| *section == SectionId::MESH || record.holds.contains(section) || *node == view.own;
            let mut ring: Vec<([u8; 32], NodeId)> = view
                .members
                .iter()
                .filter(|(node, record)| holds(node, record) && !view.avoided.contains(*node))
                .map(|(node, _)| (place(*section, node), *node))
                .collect();
            ring.sort_unstable();
            let own = ring.iter().position(|(_, node)| *node == view.own).unwrap_or(0);
            let after = (1..ring.len()).map(|step| ring[(own + step) % ring.len()].1);
            // Those that nothing is heard of are dialled too (they may live and only be cut off from here), but do not count; and only some at a
            // time, since to a node that has just started all are silent.
            let (mut live, mut silent) = (0, Vec::new());
            for node in after {
                if view.alive.contains(&node) {
                    chosen.insert(node);
                    live += 1;
                    if live == SUCCESSORS {
                        break;
                    }
                } else {
                    silent.push(node);
                }
            }
            let from = view.turn as usize % silent.len().max(1) * SILENT_AT_ONCE;
            chosen.extend(silent.iter().cycle().skip(from).take(SILENT_AT_ONCE.min(silent.len())));
        }
    }
    let known = chosen.iter().filter_map(|node| Some((node, view.members.get(node)?)));
    let mut targets: Vec<Target> = known
        .filter(|(_, record)| !record.addresses.is_empty())
        .map(|(node, record)| Target { node: Some(*node), addresses: record.addresses.clone() })
        .collect();
    // Whoever stands in for a member that is gone may be another node at the same address, which a dial that insists on the member never
    // reaches. So only a seed whose member is chosen and heard of needs no dial of its own.
    let heard = view.members.iter().filter(|(node, _)| chosen.contains(node) && view.alive.contains(node));
    let dialled: BTreeSet<&String> = heard.flat_map(|(_, record)| &record.addresses).collect();
    let own: BTreeSet<&String> = view.members.get(&view.own).into_iter().flat_map(|record| &record.addresses).collect();
    let avoided: BTreeSet<&String> =
        view.avoided.iter().filter_map(|node| view.members.get(node)).flat_map(|record| &record.addresses).collect();
    let seeds = view.seeds.iter().filter(|seed| !dialled.contains(seed) && !own.contains(seed) && !avoided.contains(seed));
    targets.extend(seeds.map(|seed| Target { node: None, addresses: vec![seed.clone()] }));
    targets
}

fn place(section: SectionId, node: &NodeId) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&section.0.to_be_bytes()).update(&node.0);
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(count: u8, holds: impl Fn(u8) -> Vec<SectionId>) -> BTreeMap<NodeId, NodeRecord> {
        (0..count)
            .map(|at| {
                let record = NodeRecord { addresses: vec![format!("node-{at}:1")], holds: holds(at), ..NodeRecord::default() };
                (NodeId::of_key(&[at]), record)
            })
            .collect()
    }

    fn chosen(own: NodeId, members: &BTreeMap<NodeId, NodeRecord>, alive: &BTreeSet<NodeId>) -> Vec<NodeId> {
        let held: Vec<SectionId> = [SectionId::MESH].into_iter().chain(members[&own].holds.clone()).collect();
        let view = View { own, held: &held, members, avoided: &BTreeSet::new(), alive, turn: 0, seeds: &[], full_mesh_max: 8 };
        choose(&view).into_iter().filter_map(|target| target.node).collect()
    }

    fn is_connected(nodes: &BTreeSet<NodeId>, members: &BTreeMap<NodeId, NodeRecord>, alive: &BTreeSet<NodeId>) -> bool {
        let mut edges: BTreeSet<(NodeId, NodeId)> = BTreeSet::new();
        for node in nodes {
            for other in chosen(*node, members, alive).into_iter().filter(|other| nodes.contains(other)) {
                edges.insert((*node, other));
                edges.insert((other, *node));
            }
        }
        let mut reached: BTreeSet<NodeId> = nodes.iter().take(1).copied().collect();
        loop {
            let next: Vec<NodeId> = edges.iter().filter(|(a, b)| reached.contains(a) && !reached.contains(b)).map(|(_, b)| *b).collect();
            if next.is_empty() {
                return reached.len() == nodes.len();
            }
            reached.extend(next);
        }
    }

    #[test]
    fn a_small_mesh_is_a_full_one() {
        let members = members(9, |_| Vec::new());
        let own = *members.keys().next().expect("nine members");
        assert_eq!(chosen(own, &members, &BTreeSet::new()).len(), 8);
    }

    #[test]
    fn each_sections_living_holders_stay_connected_with_few_links_each() {
        let section = SectionId(7);
        let members = members(60, |at| if at % 4 == 0 { vec![section] } else { Vec::new() });
        let dead: BTreeSet<NodeId> = members.keys().copied().step_by(5).collect();
        let alive: BTreeSet<NodeId> = members.keys().copied().filter(|node| !dead.contains(node)).collect();
        assert!(is_connected(&alive, &members, &alive));
        let holders: BTreeSet<NodeId> = alive.iter().copied().filter(|node| members[node].holds.contains(&section)).collect();
        assert!(is_connected(&holders, &members, &alive));
        let most = alive.iter().map(|node| chosen(*node, &members, &alive).len()).max();
        assert!(most.is_some_and(|most| most <= 16), "a node dials {most:?}");
    }

    #[test]
    fn a_node_that_hears_of_nobody_tries_everybody_a_few_at_a_time() {
        let members = members(60, |_| Vec::new());
        let (own, alive, mut tried) = (NodeId::of_key(&[0]), BTreeSet::new(), BTreeSet::new());
        for turn in 0..59 {
            let held = [SectionId::MESH];
            let (avoided, seeds) = (BTreeSet::new(), Vec::new());
            let view =
                View { own, held: &held, members: &members, avoided: &avoided, alive: &alive, turn, seeds: &seeds, full_mesh_max: 8 };
            let now = choose(&view);
            assert_eq!(now.len(), SILENT_AT_ONCE);
            tried.extend(now.into_iter().filter_map(|target| target.node));
        }
        assert_eq!(tried.len(), 59);
    }

    #[test]
    fn seeds_are_dialled_unless_they_are_this_node_or_a_neighbour_that_is_heard_of() {
        let members = members(3, |_| Vec::new());
        let own = NodeId::of_key(&[0]);
        let seeds = ["node-0:1", "node-1:1", "node-2:1", "elsewhere:1"].map(String::from);
        let mut view = View {
            own,
            held: &[SectionId::MESH],
            members: &members,
            avoided: &BTreeSet::from([NodeId::of_key(&[2])]),
            alive: &BTreeSet::from([NodeId::of_key(&[1])]),
            turn: 0,
            seeds: &seeds,
            full_mesh_max: 8,
        };
        let dialled_as = |view: &View<'_>| {
            let (members, seeds): (Vec<Target>, Vec<Target>) = choose(view).into_iter().partition(|target| target.node.is_some());
            let addresses = |targets: Vec<Target>| targets.into_iter().flat_map(|target| target.addresses).collect::<Vec<_>>();
            (addresses(members), addresses(seeds))
        };
        assert_eq!(dialled_as(&view), (vec!["node-1:1".to_owned()], vec!["elsewhere:1".to_owned()]));
        // Nothing is heard of the member: another node may have taken its place.
        view.alive = view.avoided;
        assert_eq!(dialled_as(&view).1, vec!["node-1:1".to_owned(), "elsewhere:1".to_owned()]);
    }

    #[test]
    fn a_seed_is_dialled_in_a_large_mesh_even_if_its_member_is_not_chosen() {
        let members = members(60, |_| Vec::new());
        let own = NodeId::of_key(&[0]);
        let alive: BTreeSet<NodeId> = members.keys().copied().collect();
        let seeds = vec!["node-7:1".to_owned()];
        let view = View {
            own,
            held: &[SectionId::MESH],
            members: &members,
            avoided: &BTreeSet::new(),
            alive: &alive,
            turn: 0,
            seeds: &seeds,
            full_mesh_max: 8,
        };
        assert!(choose(&view).iter().any(|target| target.addresses == seeds));
    }
}
