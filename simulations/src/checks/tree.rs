//! S15: there is one topic at a path, its creations are of no other topic, and nodes that have become equal have the same definition for it.

use std::collections::BTreeMap;

use mangrove_crdt::{definition::TopicType, frontier::DotIx, id::SectionId, path::Path, replica::Replica};

use super::{Invariant, Violation};

/// One node: no creation belongs to two topics, and every topic is found by its path and by its creations.
///
/// # Errors
/// Something does not fit.
pub fn one(name: &str, replica: &Replica) -> Result<(), Violation> {
    for id in replica.held() {
        let Some(section) = replica.section(id) else { continue };
        let topics = section.tree.topics_from("").map(|topic| (&topic.path, topic.ids.as_slice()));
        let by_path = |path: &Path| section.tree.topic(path.as_str()).map(|topic| topic.ids.as_slice());
        fits(topics, |creation| section.tree.path_of(creation), by_path)
            .map_err(|what| Violation::new(Invariant::S15, format!("node {name}, {id}: {what}")))?;
    }
    Ok(())
}

/// Whether topics, as they are listed, fit how they are found.
fn fits<'t>(
    topics: impl Iterator<Item = (&'t Path, &'t [DotIx])>,
    by_creation: impl Fn(DotIx) -> Option<&'t Path>,
    by_path: impl Fn(&Path) -> Option<&'t [DotIx]>,
) -> Result<(), String> {
    let mut of: BTreeMap<DotIx, &Path> = BTreeMap::new();
    let mut before: Option<&Path> = None;
    for (path, creations) in topics {
        if before.replace(path) == Some(path) {
            return Err(format!("there are two topics at {path}"));
        }
        for creation in creations {
            if let Some(other) = of.insert(*creation, path) {
                return Err(format!("{creation:?} is the topic at {other} and the one at {path}"));
            }
            if by_creation(*creation) != Some(path) {
                return Err(format!("topic {path} is not found by its creation {creation:?}"));
            }
        }
        if by_path(path) != Some(creations) {
            return Err(format!("topic {path} is not found by its path"));
        }
    }
    Ok(())
}

/// The definitions that a node has, by path.
pub fn definitions(replica: &Replica, id: SectionId) -> BTreeMap<String, [u8; 16]> {
    let topics = replica.section(id).into_iter().flat_map(|section| section.tree.topics_from(""));
    topics.map(|topic| (topic.path.to_string(), topic.definition.hash().0)).collect()
}

/// A node knows what each topic is, but for types that a newer version has; and of these it takes none for another.
///
/// # Errors
/// It does not, or does.
pub fn known(name: &str, replica: &Replica, unknown: &[String]) -> Result<(), Violation> {
    for (_, topic) in replica.topics_from("") {
        let topic_type = topic.definition.topic_type();
        let wrong = match topic_type {
            TopicType::Unknown(_) if unknown.is_empty() => "does not know",
            known if unknown.iter().any(|name| name == known.name()) => "is too old to know",
            _ => continue,
        };
        return Err(Violation::new(Invariant::S15, format!("node {name} {wrong} what {} is: {topic_type}", topic.path)));
    }
    Ok(())
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
        definition::{Definition, Properties},
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
    fn two_topics_at_a_path_or_one_that_is_not_found_do_not_fit() {
        use mangrove_crdt::frontier::OriginIx;
        let dot = |number| [DotIx { origin: OriginIx(0), number }];
        let (a, b) = (Path::parse("a").expect("a path"), Path::parse("b").expect("a path"));
        let (one, two, other) = (dot(1), dot(2), dot(3));
        let place = |creation: DotIx| if creation == one[0] { Some(&a) } else { Some(&b) };
        let topic = |path: &Path| if *path == a { Some(&one[..]) } else { Some(&two[..]) };
        let said = |topics: [(&'static str, u64); 2]| {
            let listed =
                topics.map(|(path, number)| (if path == "a" { &a } else { &b }, [&one, &two, &other][number as usize - 1].as_slice()));
            fits(listed.into_iter(), place, topic).err().unwrap_or_default()
        };
        assert_eq!(said([("a", 1), ("b", 2)]), "");
        let fails = |topics, what: &str| assert!(said(topics).contains(what), "{topics:?}: {}", said(topics));
        fails([("a", 1), ("a", 1)], "two topics at a");
        fails([("a", 1), ("b", 1)], "is the topic at a and the one at b");
        fails([("a", 2), ("b", 1)], "not found by its creation");
        fails([("a", 1), ("b", 3)], "not found by its path");
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

    #[test]
    fn a_node_knows_what_its_version_knows() {
        let unknown = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let (json, from_the_future) = (with(1, Some(TopicType::Json)), with(1, Some(TopicType::Unknown(99))));
        assert!(known("a", &json, &[]).is_ok() && known("a", &json, &unknown(&["slave"])).is_ok());
        assert!(known("a", &json, &unknown(&["slave", "json"])).is_err());
        assert!(known("a", &from_the_future, &[]).is_err() && known("a", &from_the_future, &unknown(&["slave"])).is_ok());
    }
}
