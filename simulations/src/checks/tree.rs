//! S15: there is one topic at a path, its creations are of no other topic, and nodes that have become equal have the same definition for it.

use std::collections::BTreeMap;

use mangrove_crdt::{frontier::DotIx, id::SectionId, path::Path, replica::Replica};

use super::{Invariant, Violation};

/// One node: no creation belongs to two topics, and every topic is found by its path and by its creations.
///
/// # Errors
/// Something does not fit.
pub fn one(name: &str, replica: &Replica) -> Result<(), Violation> {
    for id in replica.held() {
        let Some(section) = replica.section(id) else { continue };
        let mut of: BTreeMap<DotIx, Path> = BTreeMap::new();
        for topic in section.tree.topics_from("") {
            for creation in &topic.ids {
                if let Some(other) = of.insert(*creation, topic.path.clone()) {
                    let what = format!("node {name}: {creation:?} is the topic at {other} and the one at {} in {id}", topic.path);
                    return Err(Violation::new(Invariant::S15, what));
                }
                if section.tree.path_of(*creation) != Some(&topic.path) {
                    let what = format!("node {name}: topic {} of {id} is not found by its creation {creation:?}", topic.path);
                    return Err(Violation::new(Invariant::S15, what));
                }
            }
            if section.tree.topic(topic.path.as_str()) != Some(topic) {
                return Err(Violation::new(Invariant::S15, format!("node {name}: topic {} of {id} is not found by its path", topic.path)));
            }
        }
    }
    Ok(())
}

/// The definitions that a node has, by path.
pub fn definitions(replica: &Replica, id: SectionId) -> BTreeMap<String, [u8; 16]> {
    let topics = replica.section(id).into_iter().flat_map(|section| section.tree.topics_from(""));
    topics.map(|topic| (topic.path.to_string(), topic.definition.hash().0)).collect()
}

/// Two nodes that have become equal: the same topics, with the same definitions.
///
/// # Errors
/// They are not.
pub fn same(id: SectionId, (a, of_a): (&str, &Replica), (b, of_b): (&str, &Replica)) -> Result<(), Violation> {
    let (of_a, of_b) = (definitions(of_a, id), definitions(of_b, id));
    let differs =
        of_a.iter().find(|(path, hash)| of_b.get(*path) != Some(hash)).or(of_b.iter().find(|(path, _)| !of_a.contains_key(*path)));
    match differs {
        None => Ok(()),
        Some((path, _)) => Err(Violation::new(Invariant::S15, format!("nodes {a} and {b} do not have the same topic at {path}"))),
    }
}

#[cfg(test)]
mod tests {
    use mangrove_crdt::{
        definition::{Definition, Properties, TopicType},
        id::{Incarnation, NodeId, Origin},
    };

    use super::*;

    fn with(node: u8, topic: Option<TopicType>) -> Replica {
        let incarnation = Incarnation { boot: 1, nonce: 1 };
        let mut replica = Replica::new(Origin { node: NodeId([node; 32]), incarnation });
        let path = Path::parse("a").expect("a path");
        replica.add_topics(&topic.map(|topic| (path, Definition::new(topic, Properties::default()))).into_iter().collect::<Vec<_>>());
        replica
    }

    #[test]
    fn another_definition_or_none_is_a_difference() {
        let of = |a: &Replica, b: &Replica| same(SectionId::LOCAL, ("a", a), ("b", b)).is_ok();
        let json = with(1, Some(TopicType::Json));
        assert!(of(&json, &with(2, Some(TopicType::Json))));
        assert!(!of(&json, &with(2, Some(TopicType::Binary))));
        assert!(!of(&json, &with(2, None)) && !of(&with(2, None), &json));
        assert!(one("a", &json).is_ok());
    }
}
