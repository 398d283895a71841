//! What clients are shown of the node.

use mangrove_crdt::{
    bucket::{Happened, Happening},
    id::{NodeId, Plane, SectionId},
    path::{BUCKETS, Path},
    replica::{EventRange, Replica},
    section::Frontiers,
    time::{Instant, duration_text},
};

use super::{
    Node, Now,
    connections::{stamp_text, topic_spec, value_spec},
    events,
    membership::OUTCAST_HINT,
};
use crate::protocol::{
    ConflictRow, Deed, FRAME_AIM, Finding, LinkRow, LinkState, NodeRow, NodeState, PastRow, SectionRow, Severity, Status, TopicDetail,
    TopicRow, ValueRow,
};

/// How many conflicts of the rules are told as concerns.
const CONFLICTS_SHOWN_MAX: usize = 20;

impl Node {
    /// How the node is. What only the driver knows (disk, memory, where it listens) is left empty.
    pub fn status(&mut self, now: Now) -> Status {
        let (unspread_changes, unspread_bytes) = self.unspread();
        let members = self.replica.members.iter().map(|(node, _)| *node).collect::<Vec<_>>();
        let reachable = members.iter().filter(|node| self.is_heard(now.at, node)).count();
        let warnings = self.concerns().into_iter().map(|concern| match concern.hint.as_str() {
            "" => concern.found,
            hint => format!("{}; {hint}", concern.found),
        });
        Status {
            node: self.id(),
            name: self.config.name.clone(),
            mesh: self.config.mesh,
            role: role(self.config.authority.is_some()),
            version: env!("CARGO_PKG_VERSION").into(),
            uptime_ms: now.at.since(self.started.at).as_millis() as u64,
            boot: self.replica.own().incarnation.boot,
            listens: Vec::new(),
            nodes: members.len() as u32 + 1,
            reachable: reachable as u32 + 1,
            links: self.links.len() as u32,
            sessions: self.connections.len() as u32,
            sections: self.replica.held().count() as u32 - 1,
            topics: self.replica.topic_count() as u64,
            value_bytes: self.replica.value_bytes(None),
            unspread_changes,
            unspread_bytes,
            displaced: self.replica.displaced_count() as u64,
            disk_bytes: 0,
            disk_bytes_max: 0,
            memory_bytes: 0,
            certificate_expires_unix_ms: self.config.expires_s * 1_000,
            digest: self.digest(),
            warnings: warnings.collect(),
            updates: self.updates,
        }
    }

    /// What the node knows of itself that an operator should look at.
    pub fn concerns(&self) -> Vec<Finding> {
        let mut concerns = Vec::new();
        let mut concern = |severity, check: &str, found: String, hint: &str| {
            concerns.push(Finding { severity, check: check.into(), found, hint: hint.into() });
        };
        if let Some(said) = &self.outcast {
            concern(Severity::Error, "membership", format!("this node was {said}"), OUTCAST_HINT);
        }
        if let Some(refusal) = &self.store_refusal {
            concern(Severity::Error, "store", format!("writes are refused: {refusal}"), &refusal.hint);
        }
        let mismatches: u64 = self.mismatches.values().sum();
        if mismatches > 0 {
            let found = format!("{mismatches} buckets were found to differ from a neighbour's and were repaired");
            concern(Severity::Warning, "equality", found, "if there are more and more, a disk or a memory is failing");
        }
        for ConflictRow { statements } in self.conflict_rows().into_iter().take(CONFLICTS_SHOWN_MAX) {
            let found = format!("both sides of a split have said something, and the more restrictive counts: {}", statements.join(" | "));
            concern(Severity::Warning, "access", found, "say one of these again: mangrove access script; all of them: mangrove access ls");
        }
        if let Some(missing) = self.replica.blobs().missing_after(None).next() {
            let found = format!("topics wait for blobs that are not here yet, such as {missing}");
            concern(
                Severity::Warning,
                "blobs",
                found,
                "they come once this node is linked to one that has them, if there is room: see mangrove topic show",
            );
        }
        let hidden: Vec<&Path> = self.replica.hidden().collect();
        if let Some(first) = hidden.first() {
            let found = format!(
                "paged topics of this node are hidden by replicated ones that have come to the same paths: {}, such as {first}",
                hidden.len()
            );
            concern(
                Severity::Warning,
                "topics",
                found,
                "remove the replicated one, and the paged one is seen again with its lines: mangrove topic rm",
            );
        }
        for contested in self.replica.contested() {
            let found = format!("section {} was declared twice in a split; declaration {} lost", contested.root, contested.id);
            concern(Severity::Warning, "sections", found, "");
        }
        concerns
    }

    /// A digest of every replicated section held here but the built-in one.
    pub fn digest(&mut self) -> String {
        let held: Vec<SectionId> = self.replica.held().filter(|section| *section != SectionId::MESH).collect();
        let mut hasher = blake3::Hasher::new();
        for id in held {
            hasher.update(&id.0.to_be_bytes()).update(&section_digest(&mut self.replica, id));
        }
        hasher.finalize().to_hex()[..32].to_owned()
    }

    /// How many of this node's changes no other node is known to have, and their bytes.
    pub(super) fn unspread(&self) -> (u64, u64) {
        let sections = self.replica.held().map(|section| self.unspread_of(section));
        sections.fold((0, 0), |sum, part| (sum.0 + part.0, sum.1 + part.1))
    }

    pub(super) fn unspread_of(&self, section: SectionId) -> (u64, u64) {
        let mut known = Frontiers::default();
        for (node, _) in self.replica.members.iter() {
            if let Some(reported) = self.replica.members.reported(node, section) {
                known.join(reported);
            }
        }
        self.replica.own_writes_above(section, &known)
    }

    pub(super) fn node_rows(&self, now: Now) -> Vec<NodeRow> {
        let revoked = self.replica.revoked();
        let mut rows: Vec<NodeRow> = self
            .replica
            .nodes()
            .iter()
            .map(|(node, record)| {
                let heard = self.replica.members.heard_us(node);
                let state = if *node == self.id() {
                    NodeState::This
                } else if revoked.contains_key(node) {
                    NodeState::Revoked
                } else if self.links.values().any(|link| link.peer == *node) {
                    NodeState::Linked
                } else if self.is_heard(now.at, node) {
                    NodeState::Reachable
                } else {
                    NodeState::Unreachable
                };
                NodeRow {
                    node: *node,
                    name: record.name.clone(),
                    role: role(record.authority),
                    state,
                    heard_ms_ago: heard.map(|heard| now.at.since(Instant(heard)).as_millis() as u64),
                    addresses: record.addresses.clone(),
                    version: format!("wire {}", record.wire),
                    sections: self.roots(record.holds.iter().copied()),
                }
            })
            .collect();
        rows.sort_by(|a, b| a.name.cmp(&b.name).then(a.node.cmp(&b.node)));
        rows
    }

    fn roots(&self, sections: impl IntoIterator<Item = SectionId>) -> Vec<String> {
        sections.into_iter().filter_map(|section| self.replica.policy(section)).map(|policy| policy.root.to_string()).collect()
    }

    /// The links and the nodes that are being dialled. What only the driver knows (round trips, bytes on the wire) is left empty.
    pub fn link_rows(&self, now: Now) -> Vec<LinkRow> {
        let name = |node: NodeId| self.replica.node(node).map(|record| record.name).unwrap_or_default();
        let mut rows: Vec<LinkRow> = self
            .links
            .iter()
            .filter_map(|(id, info)| Some((id, info, self.mesh.link(*id)?)))
            .map(|(id, info, link)| {
                let stats = link.stats();
                let mut lag_changes = 0;
                let mut equal: Option<Option<u64>> = None;
                for section in link.sections() {
                    if let Some(peer) = link.peer_frontiers(section) {
                        lag_changes += self.replica.own_writes_above(section, peer).0;
                    }
                    let ago = link.proved_equal(section).map(|at| now.at.since(at).as_millis() as u64);
                    // Only as recent as the section that was proved longest ago.
                    equal = Some(match equal {
                        None => ago,
                        Some(so_far) => so_far.zip(ago).map(|(a, b)| a.max(b)),
                    });
                }
                LinkRow {
                    node: info.peer,
                    name: name(info.peer),
                    address: info.address.clone(),
                    state: LinkState::Up,
                    rtt_us: None,
                    sent_bytes: stats.bytes_out,
                    received_bytes: stats.bytes_in,
                    sent_records: stats.records_out,
                    received_records: stats.records_in,
                    runs: stats.runs_out,
                    lag_changes: equal.is_some().then_some(lag_changes),
                    lag_ms: self.mesh.lag(now.at, &self.replica, *id).map(|lag| lag.as_micros().div_ceil(1_000) as u64),
                    equal_ms_ago: equal.flatten(),
                    mismatches: self.mismatches.get(&info.peer).copied().unwrap_or(0),
                    sections: self.roots(link.sections()),
                    error: None,
                    requests: stats.requests_out,
                    deltas: stats.deltas_out,
                    saved_bytes: stats.deltas_saved_bytes,
                    compressed: stats.compressed_out,
                    compressed_saved_bytes: stats.compressed_saved_bytes,
                }
            })
            .collect();
        let down = |node: NodeId, address: String, state: LinkState| LinkRow {
            node,
            name: name(node),
            address,
            state,
            rtt_us: None,
            sent_bytes: 0,
            received_bytes: 0,
            sent_records: 0,
            received_records: 0,
            runs: 0,
            lag_changes: None,
            lag_ms: None,
            equal_ms_ago: None,
            mismatches: self.mismatches.get(&node).copied().unwrap_or(0),
            sections: Vec::new(),
            error: None,
            requests: 0,
            deltas: 0,
            saved_bytes: 0,
            compressed: 0,
            compressed_saved_bytes: 0,
        };
        rows.extend(self.blocked.iter().map(|node| down(*node, String::new(), LinkState::Blocked)));
        for target in self.dialled.iter().flatten() {
            let Some(node) = target.node else { continue };
            if !rows.iter().any(|row| row.node == node) {
                rows.push(down(node, target.addresses.first().cloned().unwrap_or_default(), LinkState::Connecting));
            }
        }
        rows.sort_by(|a, b| a.name.cmp(&b.name).then(a.node.cmp(&b.node)));
        rows
    }

    pub(super) fn section_rows(&mut self, now: Now) -> Vec<SectionRow> {
        let mut ids: Vec<(Path, SectionId)> = self.replica.policies().map(|policy| (policy.root.clone(), policy.id)).collect();
        ids.sort();
        ids.into_iter().map(|(_, id)| self.section_row(now, id)).collect()
    }

    pub(super) fn section_row(&mut self, now: Now, id: SectionId) -> SectionRow {
        let policy = self.replica.policy(id);
        let mut properties = std::collections::BTreeMap::new();
        if let Some(policy) = policy {
            properties.insert("arbitration".to_owned(), policy.arbitration.to_string());
            properties.insert("durability".to_owned(), policy.durability.to_string());
            properties.insert("retention".to_owned(), duration_text(policy.retention_ms));
            if let Some(founding) = &policy.founding {
                properties.insert("lease".to_owned(), duration_text(founding.lease_ms));
            }
            if !policy.voters.is_empty() {
                let names = policy.voters.iter().map(|node| self.replica.node(*node).map_or(node.to_string(), |record| record.name));
                properties.insert("voters".to_owned(), names.collect::<Vec<_>>().join(","));
            }
        }
        let root = policy.map(|policy| policy.root.to_string()).unwrap_or_default();
        let nodes = self.replica.nodes();
        let holders = nodes.values().filter(|record| record.holds.contains(&id)).map(|record| record.name.clone()).collect();
        let held = self.replica.section(id).is_some();
        SectionRow {
            voting: self.voter_rows(now.at, id, None),
            root,
            id: id.to_string(),
            properties,
            held,
            holders,
            topics: self.replica.section(id).map_or(0, |section| section.tree.len() as u64),
            value_bytes: if held { self.replica.value_bytes(Some(id)) } else { 0 },
            digest: held.then(|| blake3::Hash::from(section_digest(&mut self.replica, id)).to_hex()[..32].to_owned()),
        }
    }

    pub(super) fn topic_row(&self, path: &Path) -> Option<TopicRow> {
        let (_, topic) = self.replica.topic(path)?;
        let (topic, waits) = (topic_spec(&topic.definition), self.lacks_blob(&topic.definition));
        Some(TopicRow { path: path.to_string(), topic, waits, remark: self.remark(path) })
    }

    pub(super) fn topic_detail(&self, now: Now, path: &Path) -> Option<TopicDetail> {
        let (section, topic) = self.replica.topic(path)?;
        let shown = self.replica.shown(path);
        let write = shown.as_ref().and_then(|shown| self.replica.kept_value(shown));
        let writer = write.map(|write| self.name_of(self.replica.dot(write.dot).origin.node));
        Some(TopicDetail {
            path: path.to_string(),
            topic: topic_spec(&topic.definition),
            id: topic
                .ids
                .iter()
                .map(|id| self.replica.dot(*id))
                .map(|dot| format!("{}#{}", dot.origin, dot.number))
                .collect::<Vec<_>>()
                .join(","),
            section: self.replica.policy(section).map(|policy| policy.root.to_string()),
            value_bytes: write.and_then(|write| Some(topic.definition.topic_type().value_in(write.value.as_ref()?)?.len() as u64)),
            events: topic
                .definition
                .topic_type()
                .series()
                .map(|_| self.replica.events(section, topic, now.unix_ms, &EventRange::default()).len() as u64),
            stamp: write.map(|write| stamp_text(&self.replica, write)),
            unix_ms: write.map(|write| write.time_ms),
            writer,
            pending: shown.is_none(),
            conflicts: topic.conflicts.len() as u32,
            blobs: self.blob_rows(&topic.definition),
            epoch: write.map(|write| write.stamp.epoch),
            origin: write.map(|write| self.replica.dot(write.dot).origin.to_string()),
            list: self.list_state(path),
            remark: self.remark(path),
        })
    }

    /// What has happened at a path, the newest last; and whether there was more than is told, which is about one frame.
    pub(super) fn past_rows(&mut self, path: &Path) -> (Vec<PastRow>, bool) {
        let (past, mut cut) = self.replica.past(path).unwrap_or_default();
        let mut rows: Vec<PastRow> = Vec::new();
        let mut bytes = 0;
        for Happening { origin, time_s, what, concurrent } in past.into_iter().rev() {
            let (did, topic) = match what {
                Happened::Made(definition) => (Deed::Made, definition.map(|definition| topic_spec(&definition))),
                Happened::Removed => (Deed::Removed, None),
            };
            let properties = topic.iter().flat_map(|topic| &topic.properties);
            bytes += properties.map(|(name, value)| name.len() + value.len()).sum::<usize>();
            if bytes > FRAME_AIM && !rows.is_empty() {
                cut = true;
                break;
            }
            let unix_ms = Some(time_s * 1_000).filter(|unix_ms| *unix_ms > 0);
            rows.push(PastRow { did, topic, node: self.name_of(origin.node), origin: origin.to_string(), unix_ms, concurrent });
        }
        rows.reverse();
        (rows, cut)
    }

    /// A node's name, or the beginning of its id where that is not known.
    pub(super) fn name_of(&self, node: NodeId) -> String {
        self.replica.node(node).map_or_else(|| node.short(), |record| record.name)
    }

    /// Values of some topics, up to about one frame; and the last path told, if that was not all.
    pub(super) fn value_rows(&self, paths: &[Path]) -> (Vec<ValueRow>, Option<String>) {
        let mut rows: Vec<ValueRow> = Vec::new();
        let mut bytes = 0;
        for path in paths {
            let Some(shown) = self.replica.shown(path) else { continue };
            if bytes > FRAME_AIM {
                let last = rows.last().map(|row| row.path.clone());
                return (rows, last);
            }
            let write = self.replica.kept_value(&shown);
            let topic_type = shown.of.1.definition.topic_type();
            let value = write.and_then(|write| topic_type.value_in(write.value.as_ref()?)).map(<[u8]>::to_vec);
            let event = self.replica.last_event(&shown).zip(write);
            let spec = value_spec(&shown.of.1.definition);
            bytes += value.as_ref().map_or(0, Vec::len) + if spec.is_some() { 256 } else { 64 };
            rows.push(ValueRow {
                path: path.to_string(),
                topic_type: topic_type.value_type().to_string(),
                event: event.and_then(|(event, write)| events::mark_of(&self.replica, event, write)),
                value,
                unix_ms: write.map(|write| write.time_ms),
                stamp: write.map(|write| stamp_text(&self.replica, write)),
                spec,
            });
        }
        (rows, None)
    }

    /// How far each plane of a section is known to be durable here; for tests and the simulator.
    pub fn durable(&self, section: SectionId, plane: Plane) -> u64 {
        self.replica.section(section).map_or(0, |section| section.durable()[plane].iter().map(|dot| dot.number).sum())
    }
}

#[cfg(test)]
mod tests;

fn role(authority: bool) -> String {
    if authority { "authority" } else { "member" }.into()
}

fn section_digest(replica: &mut Replica, id: SectionId) -> [u8; 32] {
    replica.parts(id).map_or([0; 32], |(section, cx)| section.digest_over(cx.origins, 0..BUCKETS))
}
