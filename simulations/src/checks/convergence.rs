//! S2: two nodes whose frontiers cover each other's dots in a bucket have equal digests of it; no quiet is needed.
//!
//! The digest is the simulator's own, over what lives in the bucket (topics, definitions, the newest write of each with its value, standing
//! records), so a node whose own digest forgets something is caught here and not believed.

use std::hash::Hasher;

use mangrove_crdt::{
    frontier::{DotIx, OriginIx},
    id::{Plane, SectionId},
    path::BUCKETS,
    replica::Replica,
    section::standing_bucket,
};

use super::{Invariant, Violation};

/// A bucket as one node holds it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Bucket {
    /// Which.
    pub number: u16,
    /// A hash of what lives in it.
    pub digest: u64,
    /// The greatest number of each origin in it, plane by plane, by the node's own names.
    pub dots: [Vec<DotIx>; 3],
}

/// A deterministic hasher that is good enough to tell two states apart (64 bits, twice mixed).
#[derive(Clone, Default)]
struct Mix(u64);

impl Hasher for Mix {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word) ^ (chunk.len() as u64) << 56);
        }
    }

    fn write_u64(&mut self, word: u64) {
        let mixed = (self.0.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 32);
    }

    fn finish(&self) -> u64 {
        let mixed = (self.0 ^ (self.0 >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^ (mixed >> 32)
    }
}

fn raise(dots: &mut Vec<DotIx>, dot: DotIx) {
    match dots.iter_mut().find(|known| known.origin == dot.origin) {
        Some(known) => known.number = known.number.max(dot.number),
        None => dots.push(dot),
    }
}

fn origin(mix: &mut Mix, replica: &Replica, dot: DotIx) {
    let origin = replica.origins().get(dot.origin);
    mix.write(&origin.node.0[..8]);
    mix.write_u64(origin.incarnation.nonce);
    mix.write_u64(dot.number);
}

/// All buckets of a section that hold something, in order.
pub fn buckets(replica: &Replica, id: SectionId) -> Vec<Bucket> {
    let Some(section) = replica.section(id) else { return Vec::new() };
    // Each bucket is a sum over its entries, so that their order does not matter.
    let mut found: std::collections::BTreeMap<u16, Bucket> = Default::default();
    for document in section.tree.document_numbers() {
        let dots = section.tree.dots(document);
        if dots.is_empty() {
            continue;
        }
        let mut mix = Mix(1);
        section.tree.heads(document).iter().for_each(|head| mix.write(head));
        let bucket = found.entry(document).or_default();
        bucket.digest = bucket.digest.wrapping_add(mix.finish());
        bucket.dots[Plane::Tree as usize] = dots.to_vec();
    }
    for topic in section.tree.topics_from("") {
        let bucket = found.entry(topic.path.bucket()).or_default();
        let mut mix = Mix(2);
        mix.write(topic.path.as_str().as_bytes());
        std::hash::Hash::hash(&topic.definition, &mut mix);
        bucket.digest = bucket.digest.wrapping_add(mix.finish());
        for id in topic.ids.iter().chain(topic.conflicts.iter().map(|conflict| &conflict.0)) {
            let mut mix = Mix(3);
            origin(&mut mix, replica, *id);
            if let Some(write) = section.values.get(id) {
                mix.write_u64(write.stamp.seq);
                origin(&mut mix, replica, write.dot);
                mix.write(write.value.as_deref().unwrap_or_default());
                raise(&mut bucket.dots[Plane::Values as usize], write.dot);
            }
            bucket.digest = bucket.digest.wrapping_add(mix.finish());
        }
    }
    for (key, write) in section.standing.iter() {
        let bucket = found.entry(standing_bucket(key)).or_default();
        raise(&mut bucket.dots[Plane::Standing as usize], write.dot);
        if let Some(value) = &write.value {
            let mut mix = Mix(4);
            mix.write(key);
            mix.write_u64(write.stamp.seq);
            origin(&mut mix, replica, write.dot);
            mix.write(value);
            bucket.digest = bucket.digest.wrapping_add(mix.finish());
        }
    }
    let numbered = found.into_iter().map(|(number, bucket)| Bucket { number: number.min(BUCKETS), ..bucket });
    numbered.collect()
}

/// What a node has in a bucket, for people.
pub fn describe(replica: &Replica, id: SectionId, bucket: u16) -> String {
    let Some(section) = replica.section(id) else { return "nothing".into() };
    let dot = |dot: &DotIx| format!("{:?}", replica.dot(*dot));
    let mut text: Vec<String> = Vec::new();
    for topic in section.tree.bucket_topics(bucket) {
        let ids: Vec<String> = topic.ids.iter().map(dot).collect();
        let value = section
            .value_of(replica.origins(), topic)
            .map(|write| format!("{} at {}.{}", dot(&write.dot), write.stamp.epoch, write.stamp.seq));
        text.push(format!("{} as {} with {}", topic.path, ids.join("+"), value.unwrap_or_else(|| "no value".into())));
    }
    for (_, write) in section.standing.iter().filter(|(key, _)| standing_bucket(key) == bucket) {
        let gone = if write.value.is_none() { ", a removal" } else { "" };
        text.push(format!("standing {} at {}.{}{gone}", dot(&write.dot), write.stamp.epoch, write.stamp.seq));
    }
    let held: Vec<String> = section.tree.dots(bucket).iter().map(dot).collect();
    text.push(format!("tree changes up to {}", held.join(", ")));
    if section.waiting() > 0 {
        text.push(format!("{} changes waiting", section.waiting()));
    }
    text.join("; ")
}

/// Whether one node's frontiers cover another's dots in a bucket, and whatever that one has forgotten: below its floors there may be removals that it cannot tell any more.
fn covers(covering: &Replica, id: SectionId, covered: &Replica, bucket: &Bucket) -> bool {
    let (Some(section), Some(other)) = (covering.section(id), covered.section(id)) else { return false };
    let floors = other.floors();
    Plane::ALL.into_iter().all(|plane| {
        bucket.dots[plane as usize].iter().copied().chain(floors[plane].iter()).all(|dot| {
            let origin = covering.origins().find(&covered.origins().get(dot.origin)).unwrap_or(OriginIx(u32::MAX));
            section.frontier(plane).get(origin) >= dot.number
        })
    })
}

/// The buckets in which two nodes differ although each covers what the other holds.
pub fn differences(id: SectionId, (a, of_a): (&Replica, &[Bucket]), (b, of_b): (&Replica, &[Bucket])) -> Vec<u16> {
    let (mut differ, empty) = (Vec::new(), Bucket::default());
    let (mut at_a, mut at_b) = (of_a.iter().peekable(), of_b.iter().peekable());
    while let Some(number) = at_a.peek().into_iter().chain(at_b.peek()).map(|bucket| bucket.number).min() {
        let of_a = at_a.next_if(|bucket| bucket.number == number).unwrap_or(&empty);
        let of_b = at_b.next_if(|bucket| bucket.number == number).unwrap_or(&empty);
        if of_a.digest != of_b.digest && covers(a, id, b, of_b) && covers(b, id, a, of_a) {
            differ.push(number);
        }
    }
    differ
}

/// The violation of two nodes that differ.
pub fn violation(id: SectionId, (a, of_a): (&str, &Replica), (b, of_b): (&str, &Replica), buckets: &[u16]) -> Violation {
    let what = format!("nodes {a} and {b} differ in buckets {buckets:?} of {id}, though each covers what the other holds");
    let first = buckets
        .first()
        .map(|first| format!("; in the first {a} has {}; {b} has {}", describe(of_a, id, *first), describe(of_b, id, *first)));
    let what = what + &first.unwrap_or_default();
    Violation::new(Invariant::S2, what)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mangrove_crdt::{
        definition::{Definition, Properties, TopicType},
        id::{Incarnation, NodeId, Origin},
        path::Path,
        persist::Table,
    };

    use super::*;

    fn origin(node: u8) -> Origin {
        Origin { node: NodeId([node; 32]), incarnation: Incarnation { boot: 1, nonce: node.into() } }
    }

    #[test]
    fn equal_frontiers_with_different_values_are_a_difference() {
        let id = SectionId::LOCAL;
        let mut one = Replica::new(origin(1));
        let path = Path::parse("a").expect("a path");
        one.add_topics(&[(path.clone(), Definition::new(TopicType::Binary, Properties::default()))]);
        one.set(&path, 0, Arc::from(*b"value")).expect("the topic is there");
        let (rows, _) = one.take_rows();
        let same = Replica::load(origin(2), rows.clone()).expect("its own rows");
        let mut damaged = rows;
        for row in damaged.iter_mut().filter(|row| row.table == Table::Registers) {
            let value = row.value.as_mut().expect("a value");
            let at = value.windows(5).position(|bytes| bytes == b"value").expect("it is stored as it is");
            value[at] = b'V';
        }
        let other = Replica::load(origin(3), damaged).expect("nothing but the value has changed");
        let of = |replica: &Replica| buckets(replica, id);
        assert_eq!(differences(id, (&one, &of(&one)), (&same, &of(&same))), Vec::<u16>::new());
        assert_eq!(differences(id, (&one, &of(&one)), (&other, &of(&other))), vec![path.bucket()]);
        // Who has not seen the value may lack it.
        let empty = Replica::new(origin(4));
        assert_eq!(differences(id, (&one, &of(&one)), (&empty, &of(&empty))), Vec::<u16>::new());
    }
}
