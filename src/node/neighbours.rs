//! Which nodes to be linked to.
//!
//! In a small mesh, all. In a larger one a bounded number, so chosen that the holders of each section stay connected: for each
//! section held here, the built-in one included, its holders are put on a ring in the order of a hash of node and section, and each is linked to the two
//! that follow it. A ring through all holders is connected; the second successor carries it over one that is away. One that is heard of and not linked is
//! dialled, and so are the next, since it may be out of reach from here; one that nothing is heard of is passed over, and one that cannot be dialled dials its
//! own. The hash differs by section, so the
//! rings are chords to each other, and the mesh as a whole has a small diameter (the idea of random-ring overlays such as HyParView's
//! successors, here derived from what everyone knows instead of by gossip).
//!
//! Until the mesh has found itself, nodes link to more than they need. What neither end chooses is hung up on when both ends' choices stand.

use std::collections::{BTreeMap, BTreeSet};

use mangrove_crdt::{
    id::{NodeId, SectionId},
    standing::NodeRecord,
};
use mangrove_net::dialer::{SPLIT_MIX, split_mix};

use super::output::Target;

/// How many successors on each ring to be linked to.
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
    /// Members that are linked.
    pub linked: &'a BTreeSet<NodeId>,
    /// Members to be linked to in any case, since a part of the mesh is heard over that link only.
    pub bridges: &'a BTreeSet<NodeId>,
    /// Counts on slowly from the node's start: whose turn it is among the members that nothing is heard of.
    pub turn: u64,
    /// Addresses from the configuration, each with who answered there last: two islands that never met find each other through them.
    pub seeds: &'a BTreeMap<String, Option<NodeId>>,
    /// Up to how many nodes everyone dials everyone.
    pub full_mesh_max: usize,
}

/// What is chosen.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// Whom to be linked to.
    pub targets: Vec<Target>,
    /// Members whose links are in use: those chosen here, and those that choose this node.
    pub in_use: BTreeSet<NodeId>,
    /// Whether all stand that are wanted, so that other links can go.
    pub stands: bool,
}

/// The nodes to be linked to.
pub fn choose(view: &View<'_>) -> Choice {
    let others = |node: &NodeId| *node != view.own && !view.avoided.contains(node);
    let mut chosen: BTreeSet<NodeId> =
        view.bridges.iter().copied().filter(|node| others(node) && view.members.contains_key(node)).collect();
    let mut choosing = BTreeSet::new();
    let mut stands = true;
    if view.members.len() <= view.full_mesh_max + 1 {
        chosen.extend(view.members.keys().copied().filter(others));
    } else {
        for section in view.held {
            let ring = Ring::of(view, *section);
            stands &= ring.successors(view, &mut chosen);
            choosing.extend(ring.predecessors(view));
        }
    }
    let known = chosen.iter().map(|node| Target { node: Some(*node), addresses: addresses(view, node) });
    let mut targets: Vec<Target> = known.filter(|target| !target.addresses.is_empty()).collect();
    targets.extend(seeds(view).map(|seed| Target { node: None, addresses: vec![seed.clone()] }));
    choosing.extend(chosen);
    Choice { targets, in_use: choosing, stands }
}

/// Where a member may be: what it says, and where it has answered, since from here that may be the only address that reaches it.
fn addresses(view: &View<'_>, node: &NodeId) -> Vec<String> {
    let mut addresses = view.members.get(node).map(|record| record.addresses.clone()).unwrap_or_default();
    let answered = view.seeds.iter().filter(|(_, answered)| **answered == Some(*node)).map(|(seed, _)| seed);
    addresses.extend(answered.filter(|seed| !addresses.contains(seed)).cloned().collect::<Vec<_>>());
    addresses
}

/// The seeds that need a dial of their own. Whoever stands in for a member that is gone may be another node at the same address, which a
/// dial that insists on the member never reaches; so those whose member is heard of do not, while anybody is linked.
fn seeds<'a>(view: &'a View<'_>) -> impl Iterator<Item = &'a String> {
    let at = |node: &NodeId, seed: &String| view.members.get(node).is_some_and(|record| record.addresses.contains(seed));
    let heard = |node: &NodeId| !view.linked.is_empty() && view.alive.contains(node);
    let settled = move |(seed, answered): &(&String, &Option<NodeId>)| {
        at(&view.own, seed)
            || view.avoided.iter().any(|node| at(node, seed))
            || answered.is_some_and(|node| heard(&node))
            || view.alive.iter().any(|node| heard(node) && at(node, seed))
    };
    view.seeds.iter().filter(move |seed| !settled(seed)).map(|(seed, _)| seed)
}

/// The holders of a section, from the one that follows this node to the one before it.
struct Ring(Vec<NodeId>);

impl Ring {
    fn of(view: &View<'_>, section: SectionId) -> Self {
        let holds = |node: &NodeId, record: &NodeRecord| section == SectionId::MESH || record.holds.contains(&section) || *node == view.own;
        let mut ring: Vec<(u64, NodeId)> = view
            .members
            .iter()
            .filter(|(node, record)| holds(node, record) && !view.avoided.contains(*node))
            .map(|(node, _)| (place(section, node), *node))
            .collect();
        ring.sort_unstable();
        let own = ring.iter().position(|(_, node)| *node == view.own).unwrap_or(0);
        ring.rotate_left(own);
        Ring(ring.into_iter().skip(1).map(|(_, node)| node).collect())
    }

    /// Adds the successors that this node is to be linked to. Says whether it is.
    fn successors(&self, view: &View<'_>, chosen: &mut BTreeSet<NodeId>) -> bool {
        let (mut linked, mut heard, mut silent) = (0, Vec::new(), Vec::new());
        for node in &self.0 {
            if view.linked.contains(node) {
                chosen.insert(*node);
                linked += 1;
                if linked == SUCCESSORS {
                    break;
                }
            } else if addresses(view, node).is_empty() {
                // It only dials out, and sees to its own successors.
            } else if view.alive.contains(node) {
                heard.push(*node);
            } else {
                silent.push(*node);
            }
        }
        // The next that are heard of; and when they have had their time, others in turn, since these may be out of reach from here.
        chosen.extend(heard.iter().take(SUCCESSORS));
        chosen.extend(in_turn(&heard, view.turn, SUCCESSORS));
        // Those that nothing is heard of may live and only be cut off from here; but a node that has just started will hear of them, if of anybody.
        if view.turn > 0 || view.linked.is_empty() {
            chosen.extend(in_turn(&silent, view.turn, SILENT_AT_ONCE));
        }
        heard.is_empty()
    }

    /// Those of which this node is a successor, as far as it knows.
    fn predecessors(&self, view: &View<'_>) -> impl Iterator<Item = NodeId> {
        let live = self.0.iter().rev().filter(|node| view.alive.contains(*node) || view.linked.contains(*node));
        live.take(SUCCESSORS).copied()
    }
}

/// So many of these, others each turn.
fn in_turn(nodes: &[NodeId], turn: u64, count: usize) -> impl Iterator<Item = &NodeId> {
    let from = turn as usize % nodes.len().max(1) * count;
    nodes.iter().cycle().skip(from).take(count.min(nodes.len()))
}

/// Where a node stands on a section's ring. Ids are hashes already, so a mixer (SplitMix64's) is all that it takes to make the rings differ.
fn place(section: SectionId, node: &NodeId) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&node.0[..8]);
    split_mix(u64::from_be_bytes(first) ^ section.0.wrapping_mul(SPLIT_MIX))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Members = BTreeMap<NodeId, NodeRecord>;

    fn members(count: u8, holds: impl Fn(u8) -> Vec<SectionId>) -> Members {
        (0..count)
            .map(|at| {
                let record = NodeRecord { addresses: vec![format!("node-{at}:1")], holds: holds(at), ..NodeRecord::default() };
                (NodeId::of_key(&[at]), record)
            })
            .collect()
    }

    /// What a node chooses that knows of these, and is linked to those.
    fn chosen(own: NodeId, members: &Members, alive: &BTreeSet<NodeId>, linked: &BTreeSet<NodeId>, turn: u64) -> Choice {
        let held: Vec<SectionId> = [SectionId::MESH].into_iter().chain(members[&own].holds.clone()).collect();
        let (avoided, bridges, seeds) = (BTreeSet::new(), BTreeSet::new(), BTreeMap::new());
        choose(&View {
            own,
            held: &held,
            members,
            avoided: &avoided,
            alive,
            linked,
            bridges: &bridges,
            turn,
            seeds: &seeds,
            full_mesh_max: 8,
        })
    }

    fn nodes(choice: &Choice) -> BTreeSet<NodeId> {
        choice.targets.iter().filter_map(|target| target.node).collect()
    }

    /// A mesh whose nodes dial whom they choose and, once their choice stands, hang up on whom they have dialled and neither end chooses, until nothing
    /// changes. Of two nodes that cannot reach each other neither is ever linked to the other.
    fn settled(
        members: &Members,
        alive: &BTreeSet<NodeId>,
        reach: impl Fn(&NodeId, &NodeId) -> bool,
    ) -> BTreeMap<NodeId, BTreeSet<NodeId>> {
        let dials = |from: &NodeId, to: &NodeId| from != to && alive.contains(to) && reach(from, to) && !members[to].addresses.is_empty();
        // From everybody linked to everybody, as far as can be: the most that there is to hang up on. Each link with who dialled first.
        let all = alive.iter().flat_map(|from| alive.iter().map(move |to| (*from, *to)));
        let mut links: BTreeSet<(NodeId, NodeId)> = all.filter(|(from, to)| dials(from, to) && (from < to || !dials(to, from))).collect();
        let linked = |links: &BTreeSet<(NodeId, NodeId)>, node: &NodeId| -> BTreeSet<NodeId> {
            let ends = links.iter().filter(|(from, to)| from == node || to == node);
            ends.map(|(from, to)| if from == node { *to } else { *from }).collect()
        };
        for _ in 0..50 {
            let before = links.clone();
            for node in alive {
                let present = linked(&links, node);
                let choice = chosen(*node, members, alive, &present, 0);
                links.extend(nodes(&choice).difference(&present).filter(|other| dials(node, other)).map(|other| (*node, *other)));
                if choice.stands {
                    links.retain(|(from, to)| from != node || choice.in_use.contains(to));
                }
            }
            if links == before {
                return alive.iter().map(|node| (*node, linked(&links, node))).collect();
            }
        }
        panic!("links come and go for ever");
    }

    fn is_connected(nodes: &BTreeSet<NodeId>, links: &BTreeMap<NodeId, BTreeSet<NodeId>>) -> bool {
        let mut reached: BTreeSet<NodeId> = nodes.iter().take(1).copied().collect();
        loop {
            let next: Vec<NodeId> = reached.iter().flat_map(|node| &links[node]).filter(|node| nodes.contains(node)).copied().collect();
            let before = reached.len();
            reached.extend(next);
            if reached.len() == before {
                return reached.len() == nodes.len();
            }
        }
    }

    #[test]
    fn a_small_mesh_is_a_full_one() {
        let members = members(9, |_| Vec::new());
        let own = *members.keys().next().expect("nine members");
        let choice = chosen(own, &members, &BTreeSet::new(), &BTreeSet::new(), 0);
        assert_eq!((nodes(&choice).len(), choice.in_use.len()), (8, 8));
    }

    #[test]
    fn each_sections_living_holders_stay_connected_with_few_links_each() {
        let section = SectionId(7);
        let members = members(60, |at| if at % 4 == 0 { vec![section] } else { Vec::new() });
        let dead: BTreeSet<NodeId> = members.keys().copied().step_by(5).collect();
        let alive: BTreeSet<NodeId> = members.keys().copied().filter(|node| !dead.contains(node)).collect();
        let links = settled(&members, &alive, |_, _| true);
        assert!(is_connected(&alive, &links));
        let holders: BTreeSet<NodeId> = alive.iter().copied().filter(|node| members[node].holds.contains(&section)).collect();
        assert!(is_connected(&holders, &links));
        let most = links.values().map(BTreeSet::len).max();
        assert!(most.is_some_and(|most| most <= 4 * SUCCESSORS), "a node has {most:?} links");
        // One that is away: the rest is connected all the same.
        for gone in &alive {
            let rest: BTreeSet<NodeId> = alive.iter().filter(|node| *node != gone).copied().collect();
            assert!(is_connected(&rest, &links), "without {gone}");
        }
    }

    #[test]
    fn a_successor_that_is_out_of_reach_is_passed_over_and_nothing_is_hung_up_on_meanwhile() {
        let members = members(40, |_| Vec::new());
        let alive: BTreeSet<NodeId> = members.keys().copied().collect();
        let side = |node: &NodeId| members.keys().position(|other| other == node).unwrap_or(0) / 20;
        // Two halves, and two pairs of nodes over which they reach each other.
        let bridge = |node: &NodeId| [3, 17, 23, 37].contains(&members.keys().position(|other| other == node).unwrap_or(0));
        let links = settled(&members, &alive, |a, b| side(a) == side(b) || (bridge(a) && bridge(b)));
        assert!(is_connected(&alive, &links));
    }

    #[test]
    fn successors_that_cannot_be_dialled_do_not_stand_in_the_way_of_others() {
        // Three of four only dial out.
        let mut members = members(60, |_| Vec::new());
        for (at, record) in members.values_mut().enumerate() {
            record.addresses.retain(|_| at % 4 == 0);
        }
        let alive: BTreeSet<NodeId> = members.keys().copied().collect();
        let listens = |node: &NodeId| !members[node].addresses.is_empty();
        let links = settled(&members, &alive, |a, b| listens(a) || listens(b));
        assert!(is_connected(&alive, &links));
        let own = *members.keys().next().expect("sixty members");
        let choice = chosen(own, &members, &alive, &BTreeSet::new(), 0);
        assert_eq!(nodes(&choice).len(), SUCCESSORS);
        // And those that can be, but are out of reach, make room for others.
        let dialled: Vec<NodeId> = (0..8).flat_map(|turn| nodes(&chosen(own, &members, &alive, &BTreeSet::new(), turn))).collect();
        let dialled: BTreeSet<NodeId> = dialled.into_iter().collect();
        assert_eq!(dialled.len(), members.keys().filter(|node| **node != own && listens(node)).count());
    }

    #[test]
    fn a_member_is_dialled_where_it_has_answered_besides_where_it_says() {
        let members = members(4, |_| Vec::new());
        let id = |at: u8| NodeId::of_key(&[at]);
        let seeds = BTreeMap::from([("outside:1".to_owned(), Some(id(1))), ("node-2:1".to_owned(), Some(id(2)))]);
        let all: BTreeSet<NodeId> = members.keys().copied().collect();
        let choice = choose(&View {
            own: id(0),
            held: &[SectionId::MESH],
            members: &members,
            avoided: &BTreeSet::new(),
            alive: &all,
            linked: &all,
            bridges: &BTreeSet::new(),
            turn: 0,
            seeds: &seeds,
            full_mesh_max: 8,
        });
        let of = |at: u8| choice.targets.iter().find(|target| target.node == Some(id(at))).map(|target| target.addresses.join(" "));
        assert_eq!((of(1).as_deref(), of(2).as_deref()), (Some("node-1:1 outside:1"), Some("node-2:1")));
        assert_eq!(choice.targets.len(), 3, "what has answered needs no dial of its own");
    }

    #[test]
    fn a_node_that_hears_of_nobody_tries_everybody_a_few_at_a_time() {
        let members = members(60, |_| Vec::new());
        let (own, mut tried) = (NodeId::of_key(&[0]), BTreeSet::new());
        for turn in 0..15 {
            let now = nodes(&chosen(own, &members, &BTreeSet::new(), &BTreeSet::new(), turn));
            assert_eq!(now.len(), SILENT_AT_ONCE);
            tried.extend(now);
        }
        assert_eq!(tried.len(), 59);
    }

    #[test]
    fn a_bridge_is_kept_whoever_is_chosen() {
        let members = members(60, |_| Vec::new());
        let own = NodeId::of_key(&[0]);
        let alive: BTreeSet<NodeId> = members.keys().copied().collect();
        let choice = chosen(own, &members, &alive, &alive, 0);
        let bridge = *alive.difference(&choice.in_use).find(|node| **node != own).expect("somebody is not chosen");
        let (avoided, seeds) = (BTreeSet::new(), BTreeMap::new());
        let choice = choose(&View {
            own,
            held: &[SectionId::MESH],
            members: &members,
            avoided: &avoided,
            alive: &alive,
            linked: &alive,
            bridges: &BTreeSet::from([bridge]),
            turn: 0,
            seeds: &seeds,
            full_mesh_max: 8,
        });
        assert!(nodes(&choice).contains(&bridge) && choice.in_use.contains(&bridge));
    }

    #[test]
    fn seeds_are_dialled_unless_they_are_this_node_or_one_that_is_heard_of() {
        for count in [4, 60] {
            let members = members(count, |_| Vec::new());
            let id = |at: u8| NodeId::of_key(&[at]);
            let seeds = BTreeMap::from(
                [("node-0:1", None), ("node-1:1", None), ("node-2:1", None), ("a.name:1", Some(id(3))), ("elsewhere:1", None)]
                    .map(|(seed, answered)| (seed.to_owned(), answered)),
            );
            let avoided = BTreeSet::from([id(2)]);
            let dialled = |alive: &[NodeId], linked: &[NodeId]| -> Vec<String> {
                let (alive, linked) = (alive.iter().copied().collect(), linked.iter().copied().collect());
                let view = View {
                    own: id(0),
                    held: &[SectionId::MESH],
                    members: &members,
                    avoided: &avoided,
                    alive: &alive,
                    linked: &linked,
                    bridges: &BTreeSet::new(),
                    turn: 0,
                    seeds: &seeds,
                    full_mesh_max: 8,
                };
                let of_seeds = choose(&view).targets.into_iter().filter(|target| target.node.is_none());
                of_seeds.flat_map(|target| target.addresses).collect()
            };
            assert_eq!(dialled(&[id(1), id(3)], &[id(3)]), ["elsewhere:1"]);
            assert_eq!(
                dialled(&[id(1)], &[id(1)]),
                ["a.name:1", "elsewhere:1"],
                "nothing is heard of the member: another node may have taken its place"
            );
            assert_eq!(
                dialled(&[id(1), id(3)], &[]),
                ["a.name:1", "elsewhere:1", "node-1:1"],
                "what was heard was heard over links that are gone"
            );
        }
    }
}
