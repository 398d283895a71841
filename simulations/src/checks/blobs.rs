//! S20: when all is quiet, a node has the blobs that the definitions of its topics name, and no others; and a blob is as durable as the topic that was made with it.
//!
//! The names are gathered from the topics themselves, as they stand, so a node that loses count of them is caught here and not believed.

use std::collections::{BTreeMap, BTreeSet};

use mangrove_crdt::{
    blob::BlobHash,
    definition::{Definition, DefinitionHash},
    id::SectionId,
    replica::Replica,
};

use super::{Invariant, Violation, durability::Losses};
use crate::{
    history::{Doing, History, Outcome},
    oracle::Oracle,
};

/// The blobs that the definitions of a node's topics name, of those too that have lost to a concurrent one.
pub fn named(replica: &Replica) -> BTreeSet<BlobHash> {
    let mut named = BTreeSet::new();
    for section in replica.held().chain([SectionId::LOCAL]).filter_map(|id| replica.section(id)) {
        let of: BTreeMap<DefinitionHash, &Definition> = section.tree.definitions().map(|of| (of.hash(), of)).collect();
        for topic in section.tree.topics_from("") {
            let lost = topic.conflicts.iter().filter_map(|(_, hash)| of.get(hash).copied());
            named.extend(lost.chain([&*topic.definition]).flat_map(Definition::blobs));
        }
    }
    named
}

/// The first blob that a node lacks although it names it.
pub fn missing(nodes: &[(&str, &Replica)]) -> Option<String> {
    nodes.iter().find_map(|(name, replica)| {
        let lacks = |hash: &BlobHash| replica.blobs().get(hash).is_none();
        named(replica).into_iter().find(lacks).map(|hash| format!("node {name} lacks the blob {hash}, which a definition names"))
    })
}

/// The blobs that are named and that none of these nodes has, each with the first that names it: they have gone with the disk, or with the process, of the only one that had them.
pub fn nowhere(nodes: &[(&str, &Replica)]) -> BTreeMap<BlobHash, usize> {
    let is_nowhere = |hash: &BlobHash| nodes.iter().all(|(_, replica)| replica.blobs().get(hash).is_none());
    let all = nodes.iter().enumerate().rev().flat_map(|(at, (_, replica))| named(replica).into_iter().map(move |hash| (hash, at)));
    all.filter(|(hash, _)| is_nowhere(hash)).collect()
}

/// None that is nowhere is of a topic whose making was acknowledged, unless the topic itself might be lost.
///
/// # Errors
/// One is.
pub fn lost(nodes: &[(&str, &Replica)], oracle: &Oracle, history: &History, losses: &Losses) -> Result<(), Violation> {
    let nowhere = nowhere(nodes);
    let acknowledged = history.iter().filter(|op| op.outcome == Outcome::Ok && op.doing == Doing::Add && !losses.permit(op));
    for (op, (id, topic)) in acknowledged.flat_map(|op| op.made.iter().map(move |made| (op, made))) {
        for (name, replica) in nodes {
            let topic = oracle.local(replica, *topic).and_then(|topic| replica.section(*id)?.tree.topic_of(topic));
            if let Some(hash) = topic.and_then(|topic| topic.definition.blobs().iter().find(|hash| nowhere.contains_key(hash))) {
                let what = format!("the blob {hash} of {}, as {name} has it, which operation {} made, is lost", op.path, op.id);
                return Err(Violation::new(Invariant::S20, what));
            }
        }
    }
    Ok(())
}

/// How many blobs a node has that nothing names.
pub fn unnamed(replica: &Replica) -> usize {
    replica.blobs().len() - named(replica).iter().filter(|hash| replica.blobs().get(hash).is_some()).count()
}

/// At the end: each node has what it names, and nothing else.
///
/// # Errors
/// One does not, or does.
pub fn ended(nodes: &[(&str, &Replica)]) -> Result<(), Violation> {
    let kept = || {
        let (name, kept) = nodes.iter().map(|(name, replica)| (name, unnamed(replica))).find(|(_, kept)| *kept > 0)?;
        Some(format!("node {name} still has {kept} blobs that no definition names"))
    };
    missing(nodes).or_else(kept).map_or(Ok(()), |what| Err(Violation::new(Invariant::S20, what)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mangrove_crdt::{
        id::{Incarnation, NodeId, Origin},
        path::Path,
    };

    use super::*;
    use crate::values::Kind;

    #[test]
    fn a_blob_is_there_where_it_is_named_and_only_there() {
        let node = |number| Replica::new(Origin { node: NodeId([number; 32]), incarnation: Incarnation { boot: 1, nonce: 1 } });
        let (mut a, mut b) = (node(1), node(2));
        let topic = [(Path::parse("a").expect("a path"), Kind::Custom.spec(0).definition().expect("a definition"))];
        [&mut a, &mut b].into_iter().for_each(|replica| _ = replica.add_topics(&topic));
        let judge = |a: &Replica, b: &Replica| ended(&[("a", a), ("b", b)]).map_err(|violation| violation.what);
        assert_eq!(nowhere(&[("a", &a), ("b", &b)]).into_values().collect::<Vec<_>>(), [0]);
        let put = |replica: &mut Replica, variant| replica.put_blob(Arc::from(Kind::Custom.blob(variant).expect("a blob")));
        put(&mut a, 0).expect("room");
        assert!(nowhere(&[("a", &a), ("b", &b)]).is_empty());
        assert!(judge(&a, &b).is_err_and(|what| what.starts_with("node b lacks")));
        put(&mut b, 0).expect("room");
        assert_eq!(judge(&a, &b), Ok(()));
        put(&mut b, 1).expect("room");
        assert!(judge(&a, &b).is_err_and(|what| what.starts_with("node b still has 1 blobs")));
    }
}
