//! Who belongs to the mesh, which sections are held here, and which links there are.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use mangrove_crdt::{
    id::{NodeId, SectionId},
    sabotage::{Sabotage, is},
    standing::{NodeRecord, Revocation, Standing},
    time::Instant,
};
use mangrove_net::link::{LinkId, LinkOptions};

use super::{
    Hold, LinkInfo, Node, Now,
    neighbours::{View, choose},
    output::{Output, Parting, Revoked},
};

/// After how many missed heartbeats a member counts as not reachable.
const PULSES_MISSED_MAX: u32 = 5;

/// For how long there must be no news of membership before the choice of neighbours is made anew: when a mesh starts, or one joins, much comes at once.
const REDIAL_SOON: Duration = Duration::from_millis(200);

/// For how long the choice stands at most, as members are heard of and fall silent.
const REDIAL_EVERY: Duration = Duration::from_secs(1);

/// Within which time of its start a node has heard of every member that lives, if it is linked to any.
const HEARD_WITHIN: Duration = Duration::from_secs(2);

/// For how many heartbeats a neighbour that was hung up on must be heard of again over other links.
const DISMISSED_PULSES_MAX: u32 = 3;

/// How long a link stands at least: while the mesh finds itself, choices change.
const SURPLUS_AFTER: Duration = Duration::from_secs(3);

/// For how long some of the members that nothing is heard of are dialled before it is others' turn.
const SILENT_TURN: Duration = Duration::from_secs(30);

/// Two links to one node that come up this close to each other were dialled by both ends at once.
const BOTH_DIALLED_WITHIN: Duration = Duration::from_secs(2);

/// What the operator of a revoked node can do.
pub(super) const OUTCAST_HINT: &str =
    "it keeps what it has; take that along with `mangrove export`, and to come back join the mesh anew in an empty directory";

impl Node {
    /// What a node does first: it makes itself known, and finds its place.
    pub(super) fn start(&mut self, now: Now) {
        if let Some(script) = self.config.founding.take() {
            self.found(&script);
        }
        self.policy_changed(now);
        self.announce(now);
        self.members_changed(now);
        self.load_sessions(now);
        self.load_removals(now);
        self.load_slaves();
    }

    /// Brings this node's own record up to date.
    pub(super) fn announce(&mut self, now: Now) {
        if self.leaving.is_some() {
            return;
        }
        let record = NodeRecord {
            name: self.config.name.clone(),
            addresses: self.config.addresses.clone(),
            authority: self.config.authority.is_some(),
            authority_id: self.config.authority.map(|id| id.to_vec()).unwrap_or_default(),
            holds: self.replica.held().filter(|section| *section != SectionId::MESH).collect(),
            wire: mangrove_net::message::WIRE,
            expires_s: self.config.expires_s,
            voter: Some(self.replica.vaults.voter()),
        };
        if self.replica.node(self.id()).as_ref() != Some(&record) {
            let bytes = minicbor::to_vec(&record).expect("encoding to memory");
            self.replica.put_standing(Standing::Node(self.id()), now.unix_ms, Some(bytes));
        }
    }

    /// The name or the certificate of this node is another one now.
    pub(super) fn rename(&mut self, now: Now, name: String) {
        self.config.name = name;
        self.announce(now);
    }

    pub(super) fn policy_changed(&mut self, now: Now) {
        self.replica.settle_sections(None);
        let wanted: Vec<SectionId> = self
            .replica
            .policies()
            .filter(|policy| match &self.config.hold {
                Hold::All => true,
                Hold::Roots(roots) => roots.contains(policy.root.as_str()),
            })
            .map(|policy| policy.id)
            .filter(|section| !self.replica.is_released(*section))
            .collect();
        for section in wanted {
            self.hold(section);
        }
        self.announce(now);
        self.quorums_changed(now);
    }

    /// Holds a section, and begins to exchange it.
    pub(super) fn hold(&mut self, section: SectionId) {
        if self.replica.hold(section) {
            tracing::info!(%section, "holding a section");
            self.mesh.held(&self.replica, section);
        }
    }

    pub(super) fn members_changed(&mut self, now: Now) {
        let revoked = self.revocations();
        for (node, said) in &revoked {
            if self.revoked.insert(*node) {
                tracing::info!(node = %node.short(), "a node was revoked");
                self.hang_up_on(*node, Parting::Revoked, said);
            }
        }
        let own = self.id();
        if let Some(said) = revoked.get(&own) {
            self.outcast(said.clone());
        }
        let records = self.replica.nodes();
        let authority = |record: &NodeRecord| <[u8; 32]>::try_from(record.authority_id.as_slice()).ok();
        let trusted: BTreeMap<NodeId, Option<[u8; 32]>> = records.iter().map(|(node, record)| (*node, authority(record))).collect();
        let trusted = (trusted, revoked.len());
        if trusted != self.trusted {
            let within = trusted.0.iter().map(|(node, key)| (*node, *key)).filter(|(node, _)| !revoked.contains_key(node));
            let authority = |node: &NodeId| trusted.0.get(node).copied().flatten();
            let out = revoked.iter().map(|(node, said)| Revoked { node: *node, authority: authority(node), said: said.clone() });
            self.outputs.push(Output::Trust { nodes: within.collect(), revoked: out.collect() });
            self.trusted = trusted;
        }
        let members: BTreeSet<NodeId> = records.keys().copied().filter(|node| *node != own && !revoked.contains_key(node)).collect();
        let known: Vec<NodeId> = self.replica.members.iter().map(|(node, _)| *node).collect();
        for node in known.iter().filter(|node| !members.contains(node)) {
            self.replica.members.remove(node);
            self.mesh.forget_member(node);
        }
        for node in members {
            self.replica.members.add(node);
        }
        // A link may be older than the name that its options go by.
        let links: Vec<(LinkId, NodeId)> = self.links.iter().map(|(link, info)| (*link, info.peer)).collect();
        for (link, peer) in links {
            let options = self.options_for(peer);
            if let Some(link) = self.mesh.link_mut(link) {
                link.set_options(options);
            }
        }
        if self.dialled.is_none() {
            self.redial(now);
        } else {
            self.redial_due = now.at.after(REDIAL_SOON).min(self.redialled.after(REDIAL_EVERY));
        }
    }

    /// A neighbour says that this node was revoked. The record itself may never come, since nobody is linked to it any more.
    pub(super) fn told_outcast(&mut self, by: Option<NodeId>, said: &str) {
        let by = by.map_or_else(|| "a node of the mesh".into(), |by| self.name_of(by));
        self.outcast(format!("{said}, says {by}"));
    }

    /// This node is out of its mesh. It goes on alone: what it has and takes in stays here, served to its clients.
    fn outcast(&mut self, said: String) {
        if self.outcast.is_none() {
            tracing::error!("this node was {said}; it goes on alone: {OUTCAST_HINT}");
            self.outcast = Some(said);
        }
    }

    /// The revoked nodes, each with what it is told: by whom it was revoked, and why.
    fn revocations(&self) -> BTreeMap<NodeId, String> {
        if is(Sabotage::TakesRevoked) {
            return BTreeMap::new();
        }
        let said = |revocation: &Revocation| format!("revoked by {}: {}", self.name_of(revocation.by), revocation.reason);
        self.replica.revoked().iter().map(|(node, revocation)| (*node, said(revocation))).collect()
    }

    /// Sees anew which nodes to be linked to.
    pub(super) fn redial(&mut self, now: Now) {
        (self.redialled, self.redial_due) = (now.at, now.at.after(REDIAL_EVERY));
        let mut members = self.replica.nodes();
        if members.keys().any(|node| self.revoked.contains(node)) {
            Arc::make_mut(&mut members).retain(|node, _| !self.revoked.contains(node));
        }
        self.settle_dismissed(now);
        let held: Vec<SectionId> = self.replica.held().collect();
        // Of whom nothing was heard yet, since this node has just started, something will be.
        let young = now.at.since(self.started.at) < HEARD_WITHIN;
        let unheard = |node: &NodeId| self.replica.members.get(node).is_some() && self.replica.members.heard_us(node).is_none();
        let alive = |node: &NodeId| self.is_heard(now.at, node) || (young && unheard(node));
        let alive: BTreeSet<NodeId> = members.keys().copied().filter(alive).collect();
        let linked: BTreeSet<NodeId> = self.links.values().map(|link| link.peer).collect();
        let avoided: BTreeSet<NodeId> = self.blocked.union(&self.revoked).copied().collect();
        let choice = choose(&View {
            own: self.id(),
            held: &held,
            members: &members,
            avoided: &avoided,
            alive: &alive,
            linked: &linked,
            bridges: &self.bridges,
            turn: now.at.since(self.started.at).as_micros() as u64 / SILENT_TURN.as_micros() as u64,
            seeds: &self.seeds,
            full_mesh_max: self.config.neighbours_max,
        });
        if choice.stands {
            self.dismiss_surplus(now, &members, &choice.in_use);
        }
        // Nobody would have it.
        let targets = if self.revoked.contains(&self.id()) { Vec::new() } else { choice.targets };
        if self.dialled.as_ref() != Some(&targets) {
            self.dialled = Some(targets.clone());
            self.outputs.push(Output::Dial(targets));
        }
    }

    /// Hangs up what this node has dialled and neither end chooses any more.
    fn dismiss_surplus(&mut self, now: Now, members: &BTreeMap<NodeId, NodeRecord>, in_use: &BTreeSet<NodeId>) {
        let busy = |link: &LinkId| self.mesh.link(*link).is_none_or(|link| link.is_sending() || link.is_adopting());
        let surplus: Vec<(LinkId, NodeId)> = self
            .links
            .iter()
            .filter(|(_, info)| info.dialled && members.contains_key(&info.peer) && !in_use.contains(&info.peer))
            .filter(|(link, info)| now.at.since(info.up_at) >= SURPLUS_AFTER && !busy(link))
            .map(|(link, info)| (*link, info.peer))
            .collect();
        for (link, peer) in surplus {
            self.outputs.push(Output::Hangup { link, why: Parting::Surplus, reason: "neither node has the other for a neighbour".into() });
            self.link_down(link);
            self.dismissed.insert(peer, now.at);
        }
    }

    /// A node that was hung up on and is not heard of since was heard over that link only: it is linked again, for as long as this node runs. (What the
    /// choice goes by is the members, not who can reach whom: that only shows.)
    fn settle_dismissed(&mut self, now: Now) {
        let patience = self.pulse() * DISMISSED_PULSES_MAX;
        self.dismissed.retain(|node, since| self.replica.members.heard_us(node).unwrap_or(0) <= since.0);
        let silent = self.dismissed.extract_if(.., |_, since| now.at.since(*since) > patience);
        self.bridges.extend(silent.map(|(node, _)| node));
    }

    /// How long it is between two heartbeats of a member.
    pub(super) fn pulse(&self) -> Duration {
        self.config.pace.among(self.replica.members.count()).pulse
    }

    /// Whether a member was heard of lately, over any chain of links.
    pub(super) fn is_heard(&self, now: Instant, node: &NodeId) -> bool {
        let heard = self.replica.members.heard_us(node);
        heard.is_some_and(|heard| now.since(Instant(heard)) <= self.pulse() * PULSES_MISSED_MAX)
    }

    pub(super) fn link_up(&mut self, now: Now, link: LinkId, info: LinkInfo) {
        let peer = info.peer;
        if self.blocked.contains(&peer) || self.revoked.contains(&peer) || peer == self.id() {
            let (why, reason) = match self.revocations().remove(&peer) {
                _ if peer == self.id() => (Parting::Superseded, "this is the same node".into()),
                Some(said) => (Parting::Revoked, said),
                None => (Parting::Blocked, "an operator keeps the nodes apart".into()),
            };
            self.outputs.push(Output::Hangup { link, why, reason });
            return;
        }
        let other = self.links.iter().find(|(_, other)| other.peer == peer).map(|(id, other)| (*id, other.clone()));
        if let Some((standing, other)) = other {
            // Both ends dialled at once: both keep the one that the smaller id dialled. Otherwise the newer, as nobody dials over a link
            // that stands: the older has died, perhaps with the peer's last run, and only this end has not noticed yet.
            let dialled_by = |info: &LinkInfo| if info.dialled { self.id() } else { peer };
            let at_once = now.at.since(other.up_at) <= BOTH_DIALLED_WITHIN;
            let keep_standing = at_once && dialled_by(&other) < dialled_by(&info);
            let surplus = if keep_standing { link } else { standing };
            let reason = "there is another link to this node".into();
            self.outputs.push(Output::Hangup { link: surplus, why: Parting::Superseded, reason });
            if keep_standing {
                return;
            }
            self.link_down(standing);
        }
        tracing::info!(peer = %peer.short(), address = info.address, "link up");
        self.mesh.handle_link_up(now.at, link, peer, self.options_for(peer));
        self.links.insert(link, info);
    }

    pub(super) fn link_down(&mut self, link: LinkId) {
        if let Some(info) = self.links.remove(&link) {
            tracing::info!(peer = %info.peer.short(), "link gone");
            self.mesh.handle_link_down(&mut self.replica, link);
        }
    }

    /// Closes links to a node.
    pub(super) fn hang_up_on(&mut self, node: NodeId, why: Parting, reason: &str) {
        let links: Vec<LinkId> = self.links.iter().filter(|(_, info)| info.peer == node).map(|(link, _)| *link).collect();
        for link in links {
            self.outputs.push(Output::Hangup { link, why, reason: reason.into() });
            self.link_down(link);
        }
    }

    fn options_for(&self, peer: NodeId) -> LinkOptions {
        let name = self.replica.node(peer).map(|record| record.name);
        let links = &self.config.links;
        let named = name.and_then(|name| links.get(&name)).or_else(|| links.get(&peer.to_string()));
        named.or_else(|| links.get("*")).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Input;
    use super::super::Target;
    use super::super::testing::{OWN, SESSION, at, node};
    use super::*;
    use crate::protocol::Request;

    const PEER: NodeId = NodeId([2; 32]);

    /// Which link is hung up on when this one comes up.
    fn up(node: &mut Node, ms: u64, link: u64, dialled: bool) -> Option<u64> {
        let dialled = dialled.then(|| Target { node: Some(PEER), addresses: vec!["there:1".into()] });
        let input = Input::LinkUp { link: LinkId(link), peer: PEER, address: "there:1".into(), dialled };
        let hangup = |output| if let Output::Hangup { link, .. } = output { Some(link.0) } else { None };
        node.handle_input(at(ms), input).find_map(hangup)
    }

    #[test]
    fn of_two_links_dialled_at_once_the_smaller_ids_stays() {
        let mut node = node();
        assert_eq!(up(&mut node, 0, 1, false), None);
        assert_eq!(up(&mut node, 500, 2, true), Some(1));
        assert_eq!(up(&mut node, 900, 3, false), Some(3));
    }

    #[test]
    fn a_peer_that_dials_again_has_lost_the_link_before() {
        let mut node = node();
        assert_eq!(up(&mut node, 0, 1, true), None);
        assert_eq!(up(&mut node, 3_000, 2, false), Some(1), "it was killed and is back; the old link only has not timed out yet");
        assert_eq!(up(&mut node, 3_100, 3, false), Some(2), "nobody dials twice at once");
    }

    /// Another node's word, by its own records, that a node is revoked.
    fn revoke(node: &mut Node, ms: u64, revoked: NodeId) -> Vec<Output> {
        let record = NodeRecord { name: "peer".into(), addresses: vec!["there:1".into()], ..NodeRecord::default() };
        let revocation = Revocation { by: PEER, time_ms: 0, reason: "it was stolen".into() };
        node.replica.put_standing(Standing::Node(PEER), 0, minicbor::to_vec(record).ok());
        node.replica.put_standing(Standing::Revoked(revoked), 0, minicbor::to_vec(revocation).ok());
        node.handle_input(at(ms), Input::Timeout).collect()
    }

    #[test]
    fn a_revoked_node_goes_on_alone_and_says_so() {
        let mut node = node();
        let outputs = revoke(&mut node, 1, OWN);
        assert!(!outputs.iter().any(|output| matches!(output, Output::Stop { .. })), "{outputs:?}");
        assert_eq!(node.dialled, Some(Vec::new()), "nobody would have it");
        let found = "this node was revoked by peer: it was stolen";
        assert_eq!(node.concerns().iter().map(|concern| concern.found.as_str()).collect::<Vec<_>>(), [found]);
        drop(node.handle_input(at(2), Input::Outcast { by: Some(PEER), said: "revoked by peer: it was stolen".into() }));
        assert_eq!(node.concerns().len(), 1, "hearing it again is no news");
        assert_eq!(node.status(at(3)).warnings.len(), 1);
    }

    #[test]
    fn who_is_hung_up_on_since_it_was_revoked_says_who_said_so() {
        let mut node = node();
        drop(node.handle_input(at(1), Input::Outcast { by: Some(PEER), said: "revoked by A: it was stolen".into() }));
        let found = format!("this node was revoked by A: it was stolen, says {}", PEER.short());
        assert_eq!(node.concerns().first().map(|concern| concern.found.clone()), Some(found));
    }

    #[test]
    fn a_revoked_neighbour_is_told_by_whom_and_why() {
        let mut node = node();
        assert_eq!(up(&mut node, 0, 1, false), None);
        let outputs = revoke(&mut node, 1, PEER);
        let reason = "revoked by peer: it was stolen".to_owned();
        assert!(outputs.contains(&Output::Hangup { link: LinkId(1), why: Parting::Revoked, reason: reason.clone() }), "{outputs:?}");
        let out = vec![Revoked { node: PEER, authority: None, said: reason }];
        let trusts = |output: &Output| matches!(output, Output::Trust { revoked, .. } if *revoked == out);
        assert!(outputs.iter().any(trusts), "{outputs:?}");
        assert_eq!(up(&mut node, 5_000, 2, false), Some(2), "nor is it let in again");
    }

    /// A node of a mesh of thirty whose others are all heard of, linked to all that it chooses and to one more, which it has dialled.
    fn with_one_link_too_many() -> (Node, Vec<NodeId>, NodeId) {
        let mut node = node();
        let others: Vec<NodeId> = (2..31).map(|at| NodeId([at; 32])).collect();
        for other in &others {
            let record =
                NodeRecord { name: format!("n{}", other.0[0]), addresses: vec![format!("n{}:1", other.0[0])], ..NodeRecord::default() };
            node.replica.put_standing(Standing::Node(*other), 0, minicbor::to_vec(record).ok());
        }
        drop(node.handle_input(at(0), Input::Timeout));
        hear(&mut node, 1, &others);
        for ms in [1_000, 2_000] {
            drop(node.handle_input(at(ms), Input::Timeout));
            let chosen: Vec<NodeId> = node.dialled.iter().flatten().filter_map(|target| target.node).collect();
            chosen.into_iter().for_each(|other| link_to(&mut node, ms, other));
        }
        let linked: BTreeSet<NodeId> = node.links.values().map(|link| link.peer).collect();
        let other = *others.iter().rev().find(|other| !linked.contains(*other)).expect("not all are chosen");
        (node, others, other)
    }

    fn hear(node: &mut Node, ms: u64, others: &[NodeId]) {
        others.iter().for_each(|other| node.replica.members.heard(*other, ms * 1_000));
    }

    fn link_to(node: &mut Node, ms: u64, peer: NodeId) {
        if node.links.values().all(|link| link.peer != peer) {
            let (link, address) = (LinkId(u64::from(peer.0[0])), format!("n{}:1", peer.0[0]));
            let dialled = Some(Target { node: Some(peer), addresses: vec![address.clone()] });
            drop(node.handle_input(at(ms), Input::LinkUp { link, peer, address, dialled }));
        }
    }

    /// Whom the node hangs up on as not needed at some moment.
    fn dismissed(node: &mut Node, ms: u64) -> Vec<u64> {
        let surplus = |output| if let Output::Hangup { link, why: Parting::Surplus, .. } = output { Some(link.0) } else { None };
        node.handle_input(at(ms), Input::Timeout).filter_map(surplus).collect()
    }

    #[test]
    fn a_link_that_neither_end_chooses_is_hung_up_on_once_the_choice_stands() {
        let (mut node, others, _) = with_one_link_too_many();
        // Those that choose this node are not known to: all that is left of what was dialled is needed.
        others.iter().for_each(|other| link_to(&mut node, 2_500, *other));
        hear(&mut node, 13_000, &others);
        assert_eq!(dismissed(&mut node, 5_000), [] as [u64; 0], "links are young");
        let gone = dismissed(&mut node, 13_000);
        assert!(gone.len() > 15, "{gone:?}");
        let left = others.len() - gone.len();
        assert!((4..=8).contains(&left), "{left} are left");
        // One of those that are needed is lost: nobody is hung up on until it is back.
        let (mut node, others, _) = with_one_link_too_many();
        others.iter().for_each(|other| link_to(&mut node, 2_500, *other));
        let needed = node.dialled.iter().flatten().find_map(|target| target.node).expect("somebody is dialled");
        drop(node.handle_input(at(3_000), Input::LinkDown { link: LinkId(u64::from(needed.0[0])), reason: "test".into() }));
        hear(&mut node, 13_000, &others);
        assert_eq!(dismissed(&mut node, 13_000), [] as [u64; 0]);
    }

    #[test]
    fn who_is_not_heard_of_once_it_was_hung_up_on_is_linked_again_for_good() {
        let (mut node, others, bridge) = with_one_link_too_many();
        link_to(&mut node, 2_500, bridge);
        let (rest, gone) = (others.iter().copied().filter(|other| *other != bridge).collect::<Vec<_>>(), LinkId(u64::from(bridge.0[0])));
        let targets = |node: &Node, other: NodeId| node.dialled.iter().flatten().any(|target| target.node == Some(other));
        hear(&mut node, 12_000, &others);
        let surplus = dismissed(&mut node, 13_000);
        assert_eq!(surplus, [gone.0], "nobody else is linked but those that are chosen");
        for ms in (14_000..19_000).step_by(1_000) {
            hear(&mut node, ms, &rest);
            drop(node.handle_input(at(ms), Input::Timeout));
            assert!(!targets(&node, bridge), "at {ms} ms there is still time to hear of it");
        }
        hear(&mut node, 20_000, &rest);
        drop(node.handle_input(at(20_000), Input::Timeout));
        assert!(targets(&node, bridge), "it is heard of over that link only");
        link_to(&mut node, 20_500, bridge);
        hear(&mut node, 40_000, &others);
        assert_eq!(dismissed(&mut node, 40_000), [] as [u64; 0], "it is not hung up on again");
    }

    #[test]
    fn a_blocked_node_is_neither_dialled_nor_let_in() {
        let mut node = node();
        let record = NodeRecord { name: "peer".into(), addresses: vec!["there:1".into()], ..NodeRecord::default() };
        node.replica.put_standing(Standing::Node(PEER), 0, minicbor::to_vec(record).ok());
        drop(node.handle_input(at(1), Input::Timeout));
        drop(node.handle_input(at(300), Input::Timeout));
        let dialled = |node: &Node| node.dialled.iter().flatten().any(|target| target.node == Some(PEER));
        assert!(dialled(&node));
        assert_eq!(up(&mut node, 301, 1, false), None);
        let block = |blocked| Input::Request { session: SESSION, id: 1, request: Request::LinkBlock { node: "peer".into(), blocked } };
        let outputs: Vec<Output> = node.handle_input(at(302), block(true)).collect();
        let hangs_up = |output: &Output| matches!(output, Output::Hangup { link: LinkId(1), why: Parting::Blocked, .. });
        assert!(outputs.iter().any(hangs_up), "{outputs:?}");
        assert!(!dialled(&node));
        assert_eq!(up(&mut node, 5_000, 2, false), Some(2));
        drop(node.handle_input(at(6_000), block(false)));
        assert!(dialled(&node));
        assert_eq!(up(&mut node, 6_000, 3, false), None);
    }
}
