//! The live topics of a section, found by path, by creation, and in order.
//!
//! There may be millions, so each stands in one place, and the tables that lead there hold nothing but its number.

use std::{collections::BTreeSet, hash::BuildHasher, ops::Bound};

use hashbrown::HashTable;
use rustc_hash::{FxBuildHasher, FxHashMap};

use crate::{frontier::DotIx, path::Path, tree::Topic};

/// The place of a topic, as long as it lives.
pub(crate) type Place = u32;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Catalogue {
    places: Vec<Option<Topic>>,
    free: Vec<Place>,
    by_path: HashTable<Place>,
    /// By the first of a topic's creations: nearly all have only one.
    by_first: HashTable<Place>,
    /// By its other creations, those that lost included.
    by_other: FxHashMap<DotIx, Place>,
    /// Beside the table, since every write looks a topic up, and a search by order reads a path at each step.
    order: BTreeSet<Path>,
}

impl Catalogue {
    /// How many topics live.
    pub fn len(&self) -> usize {
        self.by_path.len()
    }

    /// The topic at a path.
    pub fn get(&self, path: &str) -> Option<&Topic> {
        self.place(path).and_then(|place| self.at(place))
    }

    /// The place of the topic at a path.
    pub fn place(&self, path: &str) -> Option<Place> {
        self.by_path.find(hash(path), |place| self.at(*place).is_some_and(|topic| topic.path.as_str() == path)).copied()
    }

    /// The topic in a place.
    pub fn at(&self, place: Place) -> Option<&Topic> {
        self.places.get(place as usize)?.as_ref()
    }

    /// The topic that a creation made, whether it stands or has lost to another.
    pub fn of(&self, id: DotIx) -> Option<&Topic> {
        let first = self.by_first.find(hash(id), |place| self.at(*place).is_some_and(|topic| topic.ids.first() == Some(&id)));
        first.or_else(|| self.by_other.get(&id)).and_then(|place| self.at(*place))
    }

    /// All topics in path order, from a path on.
    pub fn from(&self, from: &str) -> impl Iterator<Item = &Topic> {
        let paths = self.order.range::<str, _>((Bound::Included(from), Bound::Unbounded));
        paths.filter_map(|path| self.get(path.as_str()))
    }

    /// Expects so many more.
    pub fn reserve(&mut self, more: usize) {
        let places = &self.places;
        self.by_path.reserve(more, |place| places[*place as usize].as_ref().map_or(0, |topic| hash(topic.path.as_str())));
        self.by_first.reserve(more, |place| places[*place as usize].as_ref().and_then(first).map_or(0, hash));
    }

    /// Puts a topic in place of the one at its path. Returns its place, and what was there.
    pub fn put(&mut self, topic: Topic) -> (Place, Option<Topic>) {
        let place = match self.place(topic.path.as_str()) {
            Some(place) => place,
            None => {
                let place = self.free.pop().unwrap_or(self.places.len() as Place);
                if place as usize == self.places.len() {
                    self.places.push(None);
                }
                self.order.insert(topic.path.clone());
                let places = &self.places;
                let rehash = |place: &Place| places[*place as usize].as_ref().map_or(0, |topic| hash(topic.path.as_str()));
                self.by_path.insert_unique(hash(topic.path.as_str()), place, rehash);
                place
            }
        };
        let before = self.places[place as usize].take();
        if let Some(before) = &before {
            self.unlist(place, before);
        }
        self.list(place, &topic);
        self.places[place as usize] = Some(topic);
        (place, before)
    }

    /// Removes the topic at a path.
    pub fn remove(&mut self, path: &str) -> Option<Topic> {
        let place = self.place(path)?;
        let topic = self.places[place as usize].take()?;
        if let Ok(entry) = self.by_path.find_entry(hash(path), |found| *found == place) {
            entry.remove();
        }
        self.unlist(place, &topic);
        self.order.remove(path);
        self.free.push(place);
        Some(topic)
    }

    /// Lists a topic under its creations, before it is in its place.
    fn list(&mut self, place: Place, topic: &Topic) {
        let places = &self.places;
        let rehash = |place: &Place| places[*place as usize].as_ref().and_then(first).map_or(0, hash);
        if let Some(first) = first(topic) {
            self.by_first.insert_unique(hash(first), place, rehash);
        }
        self.by_other.extend(others(topic).map(|id| (id, place)));
    }

    fn unlist(&mut self, place: Place, topic: &Topic) {
        if let Some(first) = first(topic)
            && let Ok(entry) = self.by_first.find_entry(hash(first), |found| *found == place)
        {
            entry.remove();
        }
        for id in others(topic) {
            self.by_other.remove(&id);
        }
    }
}

fn first(topic: &Topic) -> Option<DotIx> {
    topic.ids.first().copied()
}

fn others(topic: &Topic) -> impl Iterator<Item = DotIx> + '_ {
    topic.creations().skip(1)
}

pub(crate) fn hash(of: impl std::hash::Hash) -> u64 {
    FxBuildHasher.hash_one(of)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use proptest::prelude::*;

    use super::*;
    use crate::{definition::Definition, frontier::OriginIx};

    fn dot(number: u64) -> DotIx {
        DotIx { origin: OriginIx(0), number }
    }

    fn topic(path: u8, ids: &[u64], conflicts: &[u64]) -> Topic {
        let definition = Arc::new(Definition::parse::<&str, &str>("json", &[]).unwrap());
        let conflicts = conflicts.iter().map(|number| (dot(*number), definition.hash())).collect();
        let path = Path::parse(&format!("t/{path}")).unwrap();
        Topic { path, definition, ids: ids.iter().copied().map(dot).collect(), conflicts }
    }

    proptest! {
        #[test]
        fn what_is_put_is_found_by_path_and_creation_and_in_order(
            steps in prop::collection::vec((0u8..12, prop::option::of((1usize..4, 0usize..2))), 0..200),
        ) {
            let (mut catalogue, mut model) = (Catalogue::default(), BTreeMap::<String, Topic>::new());
            for (number, (at, made)) in steps.into_iter().enumerate() {
                let ids: Vec<u64> = (0..5).map(|id| number as u64 * 5 + id).collect();
                let path = format!("t/{at}");
                match made {
                    Some((stand, lose)) => {
                        let topic = topic(at, &ids[..stand], &ids[stand..stand + lose]);
                        let (place, before) = catalogue.put(topic.clone());
                        prop_assert_eq!(catalogue.at(place), Some(&topic));
                        prop_assert_eq!(before, model.insert(path, topic));
                    }
                    None => prop_assert_eq!(catalogue.remove(&path), model.remove(&path)),
                }
                prop_assert_eq!(catalogue.len(), model.len());
                prop_assert!(catalogue.from("").eq(model.values()));
                for topic in model.values() {
                    prop_assert_eq!(catalogue.get(topic.path.as_str()), Some(topic));
                    for id in topic.ids.iter().copied().chain(others(topic)) {
                        prop_assert_eq!(catalogue.of(id), Some(topic));
                    }
                }
                let listed = catalogue.by_first.len() + catalogue.by_other.len();
                prop_assert_eq!(listed, model.values().map(|topic| topic.ids.len() + topic.conflicts.len()).sum::<usize>());
            }
        }
    }
}
