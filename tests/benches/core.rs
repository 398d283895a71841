//! What the pure core costs, one core, nothing but memory: `cargo bench --bench core`.
//!
//! Each figure is for one value or one topic: criterion shows time a batch, and throughput in elements a second. Two nodes' cores
//! stand side by side here and hand each other frames; what the network, the store and clients add is what `mangrove bench` measures.

#![allow(clippy::disallowed_methods, reason = "it measures time")]

use std::{
    hint::black_box,
    time::{Duration, Instant as Clock},
};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use mangrove_crdt::{
    definition::Definition,
    delta,
    id::{Incarnation, NodeId, Origin, SectionId},
    path::Path,
    policy::SectionPolicy,
    replica::Replica,
    time::Instant,
};
use mangrove_net::{
    link::{LinkId, LinkOptions},
    mesh::{Mesh, Pace},
};

const SECTION: SectionId = SectionId(7);
const LINK: LinkId = LinkId(1);
const TOPICS: usize = 100_000;
const BATCH: usize = 1_000;
const VALUE_BYTES: usize = 64;

struct Core {
    replica: Replica,
    mesh: Mesh,
}

impl Core {
    fn new(name: u8) -> Core {
        let node = NodeId([name; 32]);
        let replica = Replica::new(Origin { node, incarnation: Incarnation { boot: 1, nonce: u64::from(name) } });
        Core { replica, mesh: Mesh::new(Instant(0), Pace::default()) }
    }

    fn persist(&mut self) {
        let (rows, mark) = self.replica.take_rows();
        black_box(rows);
        self.replica.persisted(mark);
    }
}

fn path(number: usize) -> Path {
    Path::parse(&format!("plant/{}/{}/temperature", number / 1_000, number % 1_000)).expect("a path")
}

fn value(number: usize) -> std::sync::Arc<[u8]> {
    let mut bytes = vec![0; VALUE_BYTES];
    bytes[..8].copy_from_slice(&(number as u64).to_be_bytes());
    bytes.into()
}

fn definition() -> Definition {
    Definition::parse::<&str, &str>("binary", &[]).expect("a definition")
}

/// A core with a section.
fn founder() -> Core {
    let mut core = Core::new(1);
    core.replica.declare_section(SectionPolicy::new(SECTION, Path::parse("plant").expect("a path"))).expect("a section");
    core
}

/// Hands over frames both ways until neither has any. Returns the time that the first took to make its own, and the second to take them in.
fn talk(a: &mut Core, b: &mut Core) -> (Duration, Duration) {
    let (mut sending, mut receiving) = (Duration::ZERO, Duration::ZERO);
    let now = Instant(1);
    loop {
        let begun = Clock::now();
        let said = a.mesh.poll_transmit(now, LINK, &mut a.replica, &|_| false);
        sending += begun.elapsed();
        let answer = b.mesh.poll_transmit(now, LINK, &mut b.replica, &|_| false);
        if said.is_none() && answer.is_none() {
            return (sending, receiving);
        }
        if let Some(frame) = said {
            let begun = Clock::now();
            b.mesh.handle_frame(now, LINK, frame.lane, &frame.bytes, &mut b.replica).expect("a frame");
            b.replica.take_events();
            receiving += begun.elapsed();
        }
        if let Some(frame) = answer {
            a.mesh.handle_frame(now, LINK, frame.lane, &frame.bytes, &mut a.replica).expect("a frame");
            a.replica.take_events();
        }
    }
}

/// A core with topics, each with a value, made as clients make them: some thousands at a time.
fn filled() -> (Core, Vec<Path>) {
    const MADE_AT_ONCE: usize = 4_096;
    let mut core = founder();
    let paths: Vec<Path> = (0..TOPICS).map(path).collect();
    for paths in paths.chunks(MADE_AT_ONCE) {
        let topics: Vec<(Path, Definition)> = paths.iter().map(|path| (path.clone(), definition())).collect();
        core.replica.add_topics(&topics);
        for (number, path) in paths.iter().enumerate() {
            core.replica.set(path, 0, value(number)).expect("a topic");
        }
        core.replica.take_events();
        core.persist();
    }
    (core, paths)
}

/// Two linked cores that hold the same topics, each with a value.
fn pair() -> (Core, Core, Vec<Path>) {
    let (mut a, paths) = filled();
    let (b, _) = join(&mut a);
    (a, b, paths)
}

/// A fresh core that joins another: the time that the other took to hand everything over, and it to take that in.
fn join(a: &mut Core) -> (Core, (Duration, Duration)) {
    let mut b = Core::new(2);
    a.mesh.handle_link_down(&mut a.replica, LINK);
    a.mesh.handle_link_up(Instant(0), LINK, NodeId([2; 32]), LinkOptions::default());
    b.mesh.handle_link_up(Instant(0), LINK, NodeId([1; 32]), LinkOptions::default());
    talk(a, &mut b);
    b.replica.settle_sections(None);
    assert!(b.replica.hold(SECTION), "it has heard of the section");
    b.mesh.held(&b.replica, SECTION);
    let times = talk(a, &mut b);
    assert_eq!(b.replica.topic_count(), TOPICS, "the second holds all topics");
    (b, times)
}

/// Numbers of topics, as good as at random, so that caches help no more than they would.
fn spread(round: u64, at: usize) -> usize {
    let mixed = (round * BATCH as u64 + at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (mixed >> 33) as usize % TOPICS
}

fn values(c: &mut Criterion) {
    let (mut a, mut b, paths) = pair();
    let mut round = 0;
    let mut group = c.benchmark_group("one value of 64 bytes among 100,000 topics");
    group.throughput(Throughput::Elements(BATCH as u64));
    let mut measure = |name: &str, pick: fn([Duration; 4]) -> Duration| {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|times| {
                let mut sum = Duration::ZERO;
                for _ in 0..times {
                    round += 1;
                    let values: Vec<_> = (0..BATCH).map(|at| (spread(round, at), value(at))).collect();
                    let begun = Clock::now();
                    for (topic, value) in values {
                        a.replica.set(&paths[topic], round, value).expect("a topic");
                    }
                    black_box(a.replica.take_events());
                    let written = begun.elapsed();
                    let (sent, received) = talk(&mut a, &mut b);
                    let begun = Clock::now();
                    b.persist();
                    let stored = begun.elapsed();
                    a.persist();
                    sum += pick([written, sent, received, stored]);
                }
                sum
            });
        });
    };
    measure("write it", |[written, ..]| written);
    measure("send it", |[_, sent, ..]| sent);
    measure("receive and apply it", |[_, _, received, _]| received);
    measure("make it a row to be stored", |[.., stored]| stored);
    // The same paths in a node that replicates nothing: beside "write it", what replication costs a writer.
    let mut alone = Core::new(3);
    let topics: Vec<(Path, Definition)> = paths.iter().map(|path| (path.clone(), definition())).collect();
    alone.replica.add_topics(&topics);
    alone.persist();
    group.bench_function("write it where nothing is replicated", |bencher| {
        bencher.iter_custom(|times| {
            let written = (0..times).map(|_| {
                round += 1;
                let values: Vec<_> = (0..BATCH).map(|at| (spread(round, at), value(at))).collect();
                let begun = Clock::now();
                for (topic, value) in values {
                    alone.replica.set(&paths[topic], round, value).expect("a topic");
                }
                black_box(alone.replica.take_events());
                let written = begun.elapsed();
                alone.persist();
                written
            });
            written.sum()
        });
    });
    group.finish();
}

fn topics(c: &mut Criterion) {
    const CREATED: usize = 10_000;
    let mut group = c.benchmark_group("one topic, in batches of 10,000");
    group.throughput(Throughput::Elements(CREATED as u64)).sample_size(10);
    group.bench_function("create it", |bencher| {
        bencher.iter_custom(|times| {
            let mut core = founder();
            (0..times as usize)
                .map(|batch| {
                    let topics: Vec<_> = (0..CREATED).map(|at| (path(batch * CREATED + at), definition())).collect();
                    let begun = Clock::now();
                    core.replica.add_topics(&topics);
                    core.replica.take_events();
                    let took = begun.elapsed();
                    core.persist();
                    took
                })
                .sum()
        });
    });
    group.finish();
}

/// Joining and starting again, for each of 100,000 topics made in batches of 4,096, with values.
fn whole(c: &mut Criterion) {
    let (mut a, _) = filled();
    let mut group = c.benchmark_group("one topic of 100,000 with its value");
    group.throughput(Throughput::Elements(TOPICS as u64)).sample_size(10);
    let mut adopt = |name: &str, pick: fn((Duration, Duration)) -> Duration| {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|times| (0..times).map(|_| pick(join(&mut a).1)).sum());
        });
    };
    adopt("hand it over to one who joins", |(sent, _)| sent);
    adopt("take it over, joining", |(_, received)| received);
    group.bench_function("make it a row, having joined", |bencher| {
        bencher.iter_custom(|times| {
            let stored = (0..times).map(|_| {
                let mut b = join(&mut a).0;
                let begun = Clock::now();
                b.persist();
                begun.elapsed()
            });
            stored.sum()
        });
    });
    let rows = join(&mut a).0.replica.take_rows().0;
    group.bench_function("load it from its rows", |bencher| {
        bencher.iter_custom(|times| {
            let loaded = (0..times).map(|_| {
                let rows = rows.clone();
                let begun = Clock::now();
                black_box(Replica::load(Core::new(2).replica.own(), rows).expect("sound rows"));
                begun.elapsed()
            });
            loaded.sum()
        });
    });
    group.finish();
}

/// What a try at a delta costs, found or not: bytes of the new value a second.
fn deltas(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("a delta");
    let noise = |seed: u8, length: usize| {
        let mut bytes = vec![0; length];
        blake3::Hasher::new_keyed(&[seed; 32]).finalize_xof().fill(&mut bytes);
        bytes
    };
    let changed = |base: &[u8], at: usize| {
        let mut to = base.to_vec();
        to.splice(at..at + 4, *b"1234567");
        to
    };
    let cases = [
        ("1 kB, one field changed", noise(1, 1_000), changed(&noise(1, 1_000), 500)),
        ("64 kB, one field changed", noise(1, 65_536), changed(&noise(1, 65_536), 30_000)),
        ("64 kB, two fields far apart", noise(1, 65_536), changed(&changed(&noise(1, 65_536), 100), 60_000)),
        ("64 kB, nothing in common", noise(1, 65_536), noise(2, 65_536)),
        ("64 kB of zeros, but the ends", [vec![1], vec![0; 65_535]].concat(), [vec![0; 65_535], vec![1]].concat()),
    ];
    for (name, base, to) in &cases {
        group.throughput(Throughput::Bytes(to.len() as u64));
        group.bench_function(*name, |bencher| bencher.iter(|| delta::diff(black_box(base), black_box(to))));
        if let Some(delta) = delta::diff(base, to) {
            group.bench_function(format!("{name}, applied"), |bencher| bencher.iter(|| delta::apply(black_box(base), &delta, to.len())));
        }
    }
    group.finish();
}

criterion_group!(benches, values, topics, whole, deltas);
criterion_main!(benches);
