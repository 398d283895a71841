//! Who has what: the members' reports of their durable frontiers, and what follows from them.
//!
//! A removal may be forgotten once it is *stable*: every member heard from within the retention reports a durable frontier that covers it, and we
//! have seen all that they had seen (R5). "All that they had seen" is judged against the newest report that we cover, so that busy
//! writers, whose newest report is always a little ahead of us, cannot stall forgetting.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    id::{NodeId, SectionId},
    section::Frontiers,
};

#[derive(Debug, Default, Clone)]
struct Reported {
    /// The newest report that we cover.
    covered: Option<Arc<Frontiers>>,
    /// The next report that we will cover: it stays until then, however many newer ones come.
    next: Option<Arc<Frontiers>>,
    newest: Arc<Frontiers>,
}

impl Reported {
    /// The newest report that is covered by what we have ourselves.
    fn covered_by(&mut self, ours: &Frontiers) -> Option<&Frontiers> {
        while let Some(next) = self.next.take_if(|next| ours.covers_all(next)) {
            if next != self.newest {
                self.next = Some(self.newest.clone());
            }
            self.covered = Some(next);
        }
        self.covered.as_deref()
    }
}

/// What is known of one other member.
#[derive(Debug, Default, Clone)]
pub struct Member {
    /// When its heartbeat last advanced, on this node's clock, in microseconds; `None` if it never did.
    pub heard_us: Option<u64>,
    reports: BTreeMap<SectionId, Reported>,
}

/// The other members of the mesh.
#[derive(Debug, Default)]
pub struct Members {
    members: BTreeMap<NodeId, Member>,
    joined: u64,
}

impl Members {
    /// Adds a member, if it is new.
    pub fn add(&mut self, node: NodeId) {
        self.members.entry(node).or_insert_with(|| {
            self.joined += 1;
            Member::default()
        });
    }

    /// Removes a member: it was revoked or has left.
    pub fn remove(&mut self, node: &NodeId) {
        self.members.remove(node);
    }

    /// How many have been added, in all.
    pub fn joined(&self) -> u64 {
        self.joined
    }

    /// Whether a node is a member, and what is known of it.
    pub fn get(&self, node: &NodeId) -> Option<&Member> {
        self.members.get(node)
    }

    /// When a member's heartbeat last advanced, on this node's clock, in microseconds.
    pub fn heard_us(&self, node: &NodeId) -> Option<u64> {
        self.members.get(node)?.heard_us
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.members.len()
    }

    /// All members, by id.
    pub fn iter(&self) -> impl Iterator<Item = (&NodeId, &Member)> {
        self.members.iter()
    }

    /// A member's heartbeat advanced.
    pub fn heard(&mut self, node: NodeId, now_us: u64) {
        if let Some(member) = self.members.get_mut(&node) {
            member.heard_us = Some(now_us);
        }
    }

    /// A member reports its durable frontiers in a section.
    pub fn report(&mut self, node: NodeId, section: SectionId, frontiers: Arc<Frontiers>) {
        let Some(member) = self.members.get_mut(&node) else { return };
        let reported = member.reports.entry(section).or_default();
        reported.next.get_or_insert_with(|| frontiers.clone());
        reported.newest = frontiers;
    }

    /// The newest durable frontiers that a member reported.
    pub fn reported(&self, node: &NodeId, section: SectionId) -> Option<&Frontiers> {
        self.members.get(node)?.reports.get(&section).map(|reported| reported.newest.as_ref())
    }

    /// What every holder heard from within the retention, and this node, are known to hold durably. `None` if nothing may be forgotten:
    /// there are others, but none was heard from, or one of them has seen what we have not.
    pub fn stable(
        &mut self,
        section: SectionId,
        ours: &Frontiers,
        durable: &Frontiers,
        holds: impl Fn(&NodeId) -> bool,
        heard_since_us: u64,
    ) -> Option<Frontiers> {
        let mut stable = durable.clone();
        let mut others = 0;
        let mut heard = 0;
        for (node, member) in &mut self.members {
            if !holds(node) {
                continue;
            }
            others += 1;
            if member.heard_us.is_none_or(|heard_us| heard_us < heard_since_us) {
                continue;
            }
            heard += 1;
            stable.meet(member.reports.get_mut(&section)?.covered_by(ours)?);
        }
        (others == 0 || heard > 0).then_some(stable)
    }
}
