//! S2: two nodes whose frontiers cover each other's dots in a bucket have equal digests of it; no quiet is needed.
//!
//! The digest is the simulator's own, over what lives in the bucket (topics, definitions, the newest write of each with its value, standing
//! records), so a node whose own digest forgets something is caught here and not believed.

use std::{collections::BTreeMap, hash::Hasher};

use mangrove_crdt::{
    frontier::{DotIx, OriginIx},
    id::{Plane, SectionId},
    replica::Replica,
    sabotage::HIDES_TYPES,
    section::Section,
};

use super::{Invariant, Violation};

/// A bucket's number, and a hash of what lives in it.
pub type BucketDigest = (u16, u64);

/// A deterministic hasher that is good enough to tell two states apart: 64 bits, by folded multiplication, 16 bytes at a time.
#[derive(Clone, Default)]
struct Mix(u64);

fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

impl Hasher for Mix {
    fn write(&mut self, bytes: &[u8]) {
        let (pairs, rest) = bytes.as_chunks::<16>();
        for pair in pairs {
            let [one, two] = [0, 8].map(|at| u64::from_le_bytes(*pair[at..].first_chunk().expect("16 bytes")));
            self.0 = fold(one ^ self.0, two ^ 0x9e37_79b9_7f4a_7c15);
        }
        let mut last = [0; 16];
        last[..rest.len()].copy_from_slice(rest);
        let [one, two] = [0, 8].map(|at| u64::from_le_bytes(*last[at..].first_chunk().expect("16 bytes")));
        self.0 = fold(one ^ self.0, two ^ 0xa076_1d64_78bd_642f ^ (bytes.len() as u64) << 32);
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = fold(word ^ self.0, 0xe703_7ed1_a0b4_28db);
    }

    fn finish(&self) -> u64 {
        fold(self.0, 0xbf58_476d_1ce4_e5b9)
    }
}

fn raise(dots: &mut Vec<DotIx>, dot: DotIx) {
    match dots.iter_mut().find(|known| known.origin == dot.origin) {
        Some(known) => known.number = known.number.max(dot.number),
        None => dots.push(dot),
    }
}

/// What was found of a process's standing records, section by section, at which changes of which holding: most looks find them as they were.
#[derive(Debug, Default)]
pub struct Known(BTreeMap<SectionId, (u64, u64, Vec<BucketDigest>)>);

/// The digests of all buckets of a section that hold something, in order.
pub fn digests(replica: &Replica, id: SectionId, known: &mut Known) -> Vec<BucketDigest> {
    let Some(section) = replica.section(id) else { return Vec::new() };
    let name = |at| {
        let (origin, mut mix) = (replica.origins().get(OriginIx(at as u32)), Mix(5));
        mix.write(&origin.node.0);
        mix.write_u64(origin.incarnation.nonce);
        mix.finish()
    };
    let origins: Vec<u64> = (0..replica.origins().len()).map(name).collect();
    let dot = |mix: &mut Mix, dot: DotIx| {
        mix.write_u64(origins[dot.origin.0 as usize]);
        mix.write_u64(dot.number);
    };
    let mut found: Vec<BucketDigest> = Vec::new();
    let mut topics = 0;
    for bucket in section.tree.document_numbers() {
        if !section.tree.dots(bucket).is_empty() {
            let mut mix = Mix(1);
            section.tree.heads(bucket).iter().for_each(|head| mix.write(head));
            found.push((bucket, mix.finish()));
        }
        for topic in section.tree.bucket_topics(bucket) {
            topics += 1;
            let mut mix = Mix(2);
            mix.write(topic.path.as_str().as_bytes());
            match HIDES_TYPES {
                // Of the same definition one version knows more than another. (To encode it takes time, so only where there are several.)
                true => mix.write(&topic.definition.hash().0),
                false => std::hash::Hash::hash(&topic.definition, &mut mix),
            }
            found.push((bucket, mix.finish()));
            for id in topic.creations() {
                let mut mix = Mix(3);
                dot(&mut mix, id);
                for key in section.keys_of(id) {
                    let write = section.values.get(&key).expect("its keys are those that it has");
                    if let Some(event) = key.as_event() {
                        dot(&mut mix, DotIx { origin: event.origin, number: event.sequence });
                    }
                    mix.write_u64(write.stamp.seq);
                    dot(&mut mix, write.dot);
                    mix.write(write.value.as_deref().unwrap_or_default());
                }
                found.push((bucket, mix.finish()));
            }
        }
    }
    assert_eq!(topics, section.tree.len(), "{id}: each topic is in a bucket");
    let (holding, changes, standing) = known.0.entry(id).or_default();
    let now = (replica.holding(id).unwrap_or(0), section.standing.changes());
    if (*holding, *changes) != now {
        standing.clear();
        let mut indexed = 0;
        for (bucket, key, write) in section.standing_by_bucket() {
            indexed += 1;
            if let Some(value) = &write.value {
                let mut mix = Mix(4);
                mix.write(key);
                mix.write_u64(write.stamp.seq);
                dot(&mut mix, write.dot);
                mix.write(value);
                standing.push((bucket, mix.finish()));
            }
        }
        assert_eq!(indexed, section.standing.len(), "{id}: each standing record is in a bucket");
        add_up(standing);
        (*holding, *changes) = now;
    }
    found.extend_from_slice(standing);
    add_up(&mut found);
    found
}

/// Makes each bucket the sum over what is in it, so that the order there does not matter.
fn add_up(found: &mut Vec<BucketDigest>) {
    // Most is sorted as it comes, which this sort uses.
    found.sort_by_key(|(bucket, _)| *bucket);
    found.dedup_by(|(bucket, digest), (first, sum)| {
        let same = bucket == first;
        *sum = sum.wrapping_add(if same { *digest } else { 0 });
        same
    });
}

/// The greatest number of each origin in a bucket, plane by plane, by the node's own names.
fn dots(replica: &Replica, id: SectionId, bucket: u16) -> [Vec<DotIx>; 3] {
    let mut dots: [Vec<DotIx>; 3] = Default::default();
    let Some(section) = replica.section(id) else { return dots };
    dots[Plane::Tree as usize] = section.tree.dots(bucket).to_vec();
    for write in section.keys_in(bucket).filter_map(|key| section.values.get(&key)) {
        raise(&mut dots[Plane::Values as usize], write.dot);
    }
    for (_, write) in section.standing_of(bucket) {
        raise(&mut dots[Plane::Standing as usize], write.dot);
    }
    dots
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
    for (_, write) in section.standing_of(bucket) {
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

fn reaches(section: &Section, plane: Plane, covering: &Replica, covered: &Replica, dot: DotIx) -> bool {
    let origin = covering.origins().find(&covered.origins().get(dot.origin)).unwrap_or(OriginIx(u32::MAX));
    section.frontier(plane).get(origin) >= dot.number
}

/// Whether one node's frontiers cover whatever another has forgotten: below its floors there may be removals that it cannot tell any more.
fn covers_floors(covering: &Replica, id: SectionId, covered: &Replica) -> bool {
    let (Some(section), Some(other)) = (covering.section(id), covered.section(id)) else { return false };
    let floors = other.floors();
    Plane::ALL.into_iter().all(|plane| floors[plane].iter().all(|dot| reaches(section, plane, covering, covered, dot)))
}

/// Whether one node's frontiers cover another's dots in a bucket.
fn covers(covering: &Replica, id: SectionId, covered: &Replica, bucket: u16) -> bool {
    let (Some(section), dots) = (covering.section(id), dots(covered, id, bucket)) else { return false };
    Plane::ALL.into_iter().all(|plane| dots[plane as usize].iter().all(|dot| reaches(section, plane, covering, covered, *dot)))
}

/// The buckets in which two nodes differ although each covers what the other holds.
pub fn differences(id: SectionId, (a, of_a): (&Replica, &[BucketDigest]), (b, of_b): (&Replica, &[BucketDigest])) -> Vec<u16> {
    let mut differ = Vec::new();
    if of_a == of_b || !covers_floors(a, id, b) || !covers_floors(b, id, a) {
        return differ;
    }
    let (mut at_a, mut at_b) = (of_a.iter().peekable(), of_b.iter().peekable());
    while let Some(number) = at_a.peek().into_iter().chain(at_b.peek()).map(|(number, _)| *number).min() {
        let of_a = at_a.next_if(|bucket| bucket.0 == number);
        let of_b = at_b.next_if(|bucket| bucket.0 == number);
        if of_a != of_b && covers(a, id, b, number) && covers(b, id, a, number) {
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
        let of = |replica: &Replica| digests(replica, id, &mut Known::default());
        assert_eq!(differences(id, (&one, &of(&one)), (&same, &of(&same))), Vec::<u16>::new());
        assert_eq!(differences(id, (&one, &of(&one)), (&other, &of(&other))), vec![path.bucket()]);
        // Who has not seen the value may lack it.
        let empty = Replica::new(origin(4));
        assert_eq!(differences(id, (&one, &of(&one)), (&empty, &of(&empty))), Vec::<u16>::new());
    }
}
