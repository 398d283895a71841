//! What neighbours have had of a value they are told by what has changed since.

mod support;

use std::sync::Arc;

use mangrove_crdt::{
    definition::{Definition, Properties, TopicType},
    path::Path,
    sabotage::{Sabotage, sabotage},
};
use mangrove_net::link::LinkStats;
use support::{TOPICS, World};

const A: usize = 0;
const B: usize = 1;
const C: usize = 2;

/// A JSON document of about a kilobyte in which one field says how fast.
fn document(speed: u32) -> Arc<[u8]> {
    let fields: Vec<(String, String)> = (0..32u8).map(|at| (format!("field{at}"), blake3::hash(&[at]).to_hex()[..20].to_owned())).collect();
    let mut e = minicbor::Encoder::new(Vec::new());
    let text = "encoding to memory";
    e.array(fields.len() as u64 + 1).expect(text);
    for (at, (name, value)) in fields.iter().enumerate() {
        if at == 16 {
            e.u32(speed).expect(text);
        }
        e.str(&format!("{name}: {value}")).expect(text);
    }
    e.into_writer().into()
}

fn set(world: &mut World, at: usize, path: &Path, value: Arc<[u8]>) {
    world.hosts[at].replica.set(path, world.now / 1000, value).expect("a value of its type");
}

fn value(world: &World, at: usize, path: &Path) -> Option<Arc<[u8]>> {
    world.hosts[at].replica.value(TOPICS, path).and_then(|write| write.value.clone())
}

/// What a node has sent over its only link to another.
fn sent(world: &World, from: usize, to: usize) -> LinkStats {
    let to = world.hosts[to].id;
    world.hosts[from].mesh.links().find(|(_, link)| link.peer() == to).map(|(_, link)| link.stats()).expect("linked")
}

/// Three in a row, the first of which has made a topic.
fn chain(deltas: bool) -> (World, Path) {
    let mut world = World::story(3);
    let path = world.paths[0].clone();
    world.connect(A, B);
    world.connect(B, C);
    let definition = Definition::new(TopicType::Json, Properties { deltas, ..Properties::default() });
    let added = world.hosts[A].replica.add_topics(&[(path.clone(), definition)]);
    assert!(added.into_iter().all(|added| added.is_ok()));
    world.exchange();
    (world, path)
}

#[test]
fn one_field_of_a_kilobyte_takes_less_than_sixty_bytes_on_each_link() {
    let (mut world, path) = chain(true);
    set(&mut world, A, &path, document(1000));
    world.exchange();
    let before = [sent(&world, A, B), sent(&world, B, C)];
    for speed in 1001..1101 {
        set(&mut world, A, &path, document(speed));
        world.exchange();
        assert_eq!(value(&world, C, &path), Some(document(speed)));
    }
    for (before, after) in before.into_iter().zip([sent(&world, A, B), sent(&world, B, C)]) {
        assert_eq!(after.deltas_out - before.deltas_out, 100);
        assert!(after.deltas_saved_bytes > 80_000);
        // With all that goes with it, each in a frame of its own.
        let bytes = after.bytes_out - before.bytes_out;
        println!("{bytes} bytes for 100 updates");
        assert!(bytes <= 60 * 100, "{bytes} bytes for 100 updates");
    }
}

#[test]
fn what_was_skipped_or_has_come_from_elsewhere_does_not_matter() {
    let (mut world, path) = chain(true);
    set(&mut world, A, &path, document(1));
    world.exchange();
    // B hears of none of these but the last, and in between C writes.
    for speed in 2..10 {
        set(&mut world, A, &path, document(speed));
    }
    set(&mut world, C, &path, document(70_000));
    world.exchange();
    let newest = value(&world, A, &path);
    assert!([document(9), document(70_000)].map(Some).contains(&newest));
    for (at, speed) in [(B, 11), (A, 12), (C, 13), (A, 14)] {
        set(&mut world, at, &path, document(speed));
        world.exchange();
        assert!([A, B, C].iter().all(|at| value(&world, *at, &path) == Some(document(speed))), "{speed}");
    }
    // A link that is new begins with all of it.
    world.isolate(B);
    set(&mut world, A, &path, document(15));
    world.connect(A, B);
    world.connect(B, C);
    world.exchange();
    assert_eq!(sent(&world, A, B).deltas_out, 0);
    set(&mut world, A, &path, document(16));
    world.exchange();
    assert_eq!(sent(&world, A, B).deltas_out, 1);
    assert_eq!(value(&world, C, &path), Some(document(16)));
    world.settle();
}

#[test]
fn where_nobody_wants_any_there_are_none() {
    let (mut world, path) = chain(false);
    for speed in 1..10 {
        set(&mut world, A, &path, document(speed));
        world.exchange();
    }
    assert_eq!(sent(&world, A, B).deltas_out, 0);
    assert_eq!(value(&world, C, &path), Some(document(9)));
    world.settle();
}

#[test]
fn a_base_that_is_not_the_senders_is_noticed_and_costs_the_link() {
    let (mut world, path) = chain(true);
    set(&mut world, A, &path, document(1));
    world.exchange();
    sabotage(Some(Sabotage::StaleBase));
    set(&mut world, A, &path, document(3_000_001));
    world.exchange();
    sabotage(None);
    let before = value(&world, B, &path);
    set(&mut world, A, &path, document(3_000_000));
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.exchange()));
    let said = outcome.expect_err("the link is closed");
    let said = said.downcast_ref::<String>().map(String::as_str).unwrap_or_default();
    assert!(said.contains("a delta that"), "{said}");
    assert_eq!(value(&world, B, &path), before);
}
