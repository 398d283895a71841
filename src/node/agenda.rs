//! What a part of the node has to do, and when.

use std::collections::{BTreeMap, BTreeSet};

use mangrove_crdt::time::Instant;

/// Things to be done, each once, at its time.
#[derive(Debug)]
pub struct Agenda<K> {
    due: BTreeMap<K, Instant>,
    order: BTreeSet<(Instant, K)>,
}

impl<K> Default for Agenda<K> {
    fn default() -> Self {
        Agenda { due: BTreeMap::new(), order: BTreeSet::new() }
    }
}

impl<K: Ord + Clone> Agenda<K> {
    /// Something is to be done, unless it is to be done already.
    pub fn add(&mut self, what: K, due: Instant) {
        if !self.due.contains_key(&what) {
            self.due.insert(what.clone(), due);
            self.order.insert((due, what));
        }
    }

    /// Something is to be done then, whenever it was to be done before.
    pub fn set(&mut self, what: K, due: Instant) {
        self.remove(&what);
        self.add(what, due);
    }

    /// It is no more to be done.
    pub fn remove(&mut self, what: &K) {
        if let Some(due) = self.due.remove(what) {
            self.order.remove(&(due, what.clone()));
        }
    }

    /// When the next is to be done.
    pub fn next(&self) -> Option<Instant> {
        self.order.first().map(|(due, _)| *due)
    }

    /// What is due; it is no more to be done.
    pub fn take_due(&mut self, now: Instant) -> Vec<K> {
        let mut due = Vec::new();
        while self.next().is_some_and(|next| next <= now)
            && let Some((_, what)) = self.order.pop_first()
        {
            self.due.remove(&what);
            due.push(what);
        }
        due
    }

    /// Keeps some only.
    pub fn retain(&mut self, keep: impl Fn(&K) -> bool) {
        self.due.retain(|what, _| keep(what));
        self.order.retain(|(_, what)| keep(what));
    }
}
