//! Long values that a neighbour has not had before go compressed, where their topic lets them and the neighbour makes it out.

mod support;

use std::sync::Arc;

use mangrove_crdt::{
    definition::{Definition, Properties, TopicType},
    path::Path,
    time::Instant,
};
use mangrove_net::{
    link::LinkStats,
    mesh::{Limits, Mesh, Pace},
};
use support::{TOPICS, World, series};

const A: usize = 0;
const B: usize = 1;

/// Some 4 kB that become a third when they are compressed, and that have nothing in common with those of another number.
fn value(number: u64) -> Arc<[u8]> {
    let hash = |at: u64| blake3::hash(&[number.to_le_bytes(), at.to_le_bytes()].concat());
    let words: Vec<String> = (0..12).map(|at| hash(at).to_hex()[..20].to_owned()).collect();
    let text: String = (0..200).map(|at| words[usize::from(hash(at).as_bytes()[31]) % 12].as_str()).collect();
    minicbor::to_vec(text).expect("encoding to memory").into()
}

/// What a node has sent over its only link.
fn sent(world: &World, from: usize) -> LinkStats {
    world.hosts[from].mesh.links().map(|(_, link)| link.stats()).next().expect("linked")
}

/// Two neighbours, of which B takes compressed values or not, and A has made topics of these properties: a JSON document, and a series of such.
fn pair(properties: Properties, compressed: bool) -> (World, [Path; 2]) {
    let mut world = World::story(2);
    let paths = [world.paths[0].clone(), world.paths[1].clone()];
    let limits = Limits { compressed, ..world.pace.limits };
    world.hosts[B].mesh = Mesh::new(Instant(world.now), Pace { limits, ..world.pace });
    world.connect(A, B);
    let definitions = [TopicType::Json, series()].map(|topic_type| Definition::new(topic_type, properties));
    let topics: Vec<_> = paths.iter().cloned().zip(definitions).collect();
    assert!(world.hosts[A].replica.add_topics(&topics).iter().all(|added| added.is_ok()));
    world.exchange();
    (world, paths)
}

/// How many of ten values to a topic that A writes go compressed to B, which then has each, and how many bytes all take.
fn crosses(world: &mut World, path: &Path) -> (u64, u64) {
    let before = sent(world, A);
    for number in 0..10 {
        world.hosts[A].replica.set(path, world.now / 1000, value(number)).expect("a value of its type");
        world.exchange();
        let at = |at: usize| world.hosts[at].replica.value(TOPICS, path).and_then(|write| write.value.clone()).expect("it is there");
        assert_eq!(at(B), at(A));
        assert!(at(B).windows(4_000).any(|bytes| bytes == &value(number)[..4_000]));
    }
    let after = sent(world, A);
    let (compressed, bytes) = (after.compressed_out - before.compressed_out, after.bytes_out - before.bytes_out);
    let saved = after.compressed_saved_bytes - before.compressed_saved_bytes;
    assert!(after.deltas_out == before.deltas_out && bytes + saved > 40_000, "{bytes} bytes sent and {saved} saved");
    (compressed, bytes)
}

#[test]
fn a_long_value_takes_fewer_bytes() {
    let (mut world, paths) = pair(Properties::default(), true);
    for path in paths {
        let (compressed, bytes) = crosses(&mut world, &path);
        assert!(compressed == 10 && bytes < 20_000, "{compressed} in {bytes} bytes");
    }
    world.settle();
}

/// What is kept on both sides is the value, so the next one may build on it.
#[test]
fn a_delta_builds_on_a_compressed_value() {
    let (mut world, [path, _]) = pair(Properties::default(), true);
    let before = sent(&world, A);
    for last in 0..5u8 {
        let value: Arc<[u8]> =
            minicbor::to_vec((std::str::from_utf8(&value(1)[3..]).expect("text"), last)).expect("encoding to memory").into();
        world.hosts[A].replica.set(&path, world.now / 1000, value.clone()).expect("a value of its type");
        world.exchange();
        assert_eq!(world.hosts[B].replica.value(TOPICS, &path).and_then(|write| write.value.clone()), Some(value));
    }
    let after = sent(&world, A);
    assert_eq!((after.compressed_out - before.compressed_out, after.deltas_out - before.deltas_out), (1, 4));
    world.settle();
}

#[test]
fn where_it_is_not_wanted_or_not_understood_values_go_as_they_are() {
    for (compress, compressed) in [(false, true), (true, false)] {
        let (mut world, paths) = pair(Properties { compress, ..Properties::default() }, compressed);
        for path in paths {
            assert_eq!(crosses(&mut world, &path).0, 0);
        }
        world.settle();
    }
}
