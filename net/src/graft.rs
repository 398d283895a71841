//! Mending the trees by which feeds come, wherever a push was pruned and is wanted again.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use mangrove_crdt::{frontier::DotIx, id::Plane, replica::Replica, time::Instant};

use crate::{
    link::{Intent, Link, Shared},
    mesh::Mesh,
    receive::{is_known, release_held},
};

/// How long tree changes may wait for others that they build on, and values for their topics, before the whole document is asked for.
const WAITING_PATIENCE: Duration = Duration::from_secs(5);

impl Mesh {
    /// Feeds that came over a lost link only are grafted at once wherever they were pruned: there they have come by another way. (Otherwise a neighbour
    /// must be seen ahead first, which takes seconds for each hop.)
    pub(crate) fn graft_lost(&mut self, replica: &Replica, lost: &Link) {
        for (id, of_lost) in &lost.shared {
            let Some(section) = replica.section(*id) else { continue };
            for plane in Plane::ALL {
                for DotIx { origin, .. } in section.frontier(plane).iter() {
                    let (feed, node) = ((plane, origin), replica.origins().get(origin).node);
                    let goes_on = node != replica.own().node && self.gossip.incarnation(&node) == Some(origin);
                    let comes = |shared: &Shared| !shared.pruned.contains(&feed);
                    let others = || self.links.values().filter_map(|link| link.shared.get(id));
                    if !goes_on || !comes(of_lost) || others().any(comes) {
                        continue;
                    }
                    for link in self.links.values_mut() {
                        if link.shared.get_mut(id).is_some_and(|shared| shared.pruned.remove(&feed)) {
                            link.intend(Intent::Graft(*id, plane, origin));
                        }
                    }
                }
            }
        }
    }

    /// Grafts feeds of which a neighbour has had more for a while, with nothing coming, and asks for what those that came are waiting for.
    pub(crate) fn graft_lagging(&mut self, now: Instant, replica: &mut Replica) {
        for (id, link) in &mut self.links {
            let mut grafts = Vec::new();
            for (section_id, shared) in &mut link.shared {
                let Some((section, cx)) = replica.parts(*section_id) else { continue };
                let waiting = section.waiting_documents();
                let unknown = shared.held.iter().flat_map(|held| &held.unknown).filter(|topic| !is_known(section, **topic));
                let unknown: BTreeSet<DotIx> = unknown.copied().collect();
                if waiting.is_empty() && unknown.is_empty() {
                    shared.waiting_since = None;
                    shared.waiting_asked.clear();
                    shared.topics_asked.clear();
                } else if now.since(*shared.waiting_since.get_or_insert(now)) >= WAITING_PATIENCE {
                    // What they need does not come by itself: it reached the peer in a document, from somebody who is gone.
                    shared.waiting_since = Some(now);
                    // A topic that is gone again within its document need not come. While all documents come, most topics do.
                    let adopts = self.adopting.contains_key(section_id);
                    let bygone = if adopts { BTreeMap::new() } else { section.tree.bygone(cx.origins, &unknown) };
                    shared.held.iter_mut().for_each(|held| held.unknown.retain(|topic| !bygone.contains_key(topic)));
                    release_held(shared, section);
                    let documents = waiting.into_iter().filter(|document| shared.waiting_asked.insert(*document));
                    grafts.extend(documents.map(|document| Intent::RepairRequest(*section_id, document)));
                    let topics = unknown.into_iter().filter(|topic| !bygone.contains_key(topic) && shared.topics_asked.insert(*topic));
                    grafts.extend(topics.map(|topic| Intent::TopicRequest(*section_id, topic)));
                }
                if self.adopting.get(section_id).is_some_and(|adoption| adoption.from == *id) {
                    shared.lagging.clear();
                    continue;
                }
                let mut lagging = BTreeMap::new();
                for plane in Plane::ALL {
                    for dot in shared.peer[plane].iter() {
                        let feed = (plane, dot.origin);
                        let held = || shared.held.iter().flat_map(|held| &held.runs).any(|run| run.origin == dot.origin);
                        let coming = shared.arriving.contains_key(&feed) || (plane == Plane::Values && held());
                        if section.frontier(plane).covers(dot) || coming {
                            continue;
                        }
                        let since = shared.lagging.get(&feed).copied().unwrap_or(now);
                        if now.since(since) >= self.pace.graft_after {
                            shared.pruned.remove(&feed);
                            grafts.push(Intent::Graft(*section_id, plane, dot.origin));
                            lagging.insert(feed, now);
                        } else {
                            lagging.insert(feed, since);
                        }
                    }
                }
                shared.lagging = lagging;
            }
            for graft in grafts {
                link.intend(graft);
            }
        }
    }
}
