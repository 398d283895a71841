//! After a split, two nodes become equal in one round trip, and it costs what changed, not what there is.

use std::sync::Arc;

use mangrove_crdt::{
    definition::Definition,
    id::{Incarnation, NodeId, Origin, SectionId},
    path::Path,
    policy::SectionPolicy,
    replica::Replica,
    time::Instant,
};
use mangrove_net::{
    Frame,
    link::{LinkId, LinkOptions, LinkStats},
    mesh::{Mesh, Pace},
};

const SECTION: SectionId = SectionId(7);
const LINK: LinkId = LinkId(1);
const VALUE_BYTES: usize = 100;
const CHANGES: usize = 1_000;

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

    fn link(&mut self, peer: u8) {
        self.mesh.handle_link_up(Instant(1), LINK, NodeId([peer; 32]), LinkOptions::default());
    }

    fn persist(&mut self) {
        self.replica.take_events();
        let (_, mark) = self.replica.take_rows();
        self.replica.persisted(mark);
    }

    /// All frames that it has to send now.
    fn says(&mut self) -> Vec<Frame> {
        std::iter::from_fn(|| self.mesh.poll_transmit(Instant(1), LINK, &mut self.replica, &|_| false)).collect()
    }

    fn hears(&mut self, frames: Vec<Frame>) {
        for frame in frames {
            self.mesh.handle_frame(Instant(1), LINK, frame.lane, &frame.bytes, &mut self.replica).expect("a frame");
        }
    }

    fn stats(&self) -> LinkStats {
        self.mesh.link(LINK).expect("it is up").stats()
    }

    fn write(&mut self, topics: impl Iterator<Item = usize>, round: u8) {
        for topic in topics {
            let mut value = [round; VALUE_BYTES];
            value[..8].copy_from_slice(&(topic as u64).to_be_bytes());
            self.replica.set(&path(topic), 0, Arc::from(value)).expect("a topic");
        }
        self.persist();
    }

    fn digest(&mut self) -> [u8; 32] {
        let (section, cx) = self.replica.parts(SECTION).expect("it is held");
        section.digest_over(cx.origins, 0..4096)
    }
}

fn path(topic: usize) -> Path {
    Path::parse(&format!("plant/{}/{}/temperature", topic / 1_000, topic % 1_000)).expect("a path")
}

/// What both say at one time crosses: half a round trip.
fn cross(a: &mut Core, b: &mut Core) -> bool {
    let (said, answered) = (a.says(), b.says());
    let any = !(said.is_empty() && answered.is_empty());
    b.hears(said);
    a.hears(answered);
    any
}

fn split(a: &mut Core, b: &mut Core) {
    for core in [a, b] {
        core.mesh.handle_link_down(&mut core.replica, LINK);
        core.persist();
    }
}

/// Two cores that hold the same topics, and have heard of each other's last words.
fn pair(topics: usize) -> (Core, Core) {
    let (mut a, mut b) = (Core::new(1), Core::new(2));
    a.replica.declare_section(SectionPolicy::new(SECTION, Path::parse("plant").expect("a path"))).expect("a section");
    let definition = Definition::parse::<&str, &str>("binary", &[]).expect("a definition");
    a.replica.add_topics(&(0..topics).map(|topic| (path(topic), definition.clone())).collect::<Vec<_>>());
    a.write(0..topics, 0);
    a.link(2);
    b.link(1);
    while cross(&mut a, &mut b) {}
    b.replica.settle_sections(None);
    assert!(b.replica.hold(SECTION));
    b.mesh.held(&b.replica, SECTION);
    while cross(&mut a, &mut b) {}
    assert_eq!(b.replica.topic_count(), topics);
    // Each has written in this run, so that each has something to say of both.
    a.write(0..1, 1);
    b.write(1..2, 1);
    while cross(&mut a, &mut b) {}
    split(&mut a, &mut b);
    assert_eq!(a.digest(), b.digest());
    (a, b)
}

/// Writes to so many topics on either side of a split, and heals it. Returns what crossed, both ways together, until both were equal.
fn heal(topics: usize, changes: [usize; 2]) -> LinkStats {
    let (mut a, mut b) = pair(topics);
    // Even ones here, odd ones there, over the whole section.
    let stride = topics / CHANGES / 2 * 2;
    a.write((0..changes[0]).map(|at| at * stride), 2);
    b.write((0..changes[1]).map(|at| at * stride + 1), 3);
    assert_ne!(a.digest(), b.digest());
    a.link(2);
    b.link(1);
    // Announcements cross, then what each has found the other to lack.
    assert!(cross(&mut a, &mut b) && cross(&mut a, &mut b));
    assert_eq!(a.digest(), b.digest(), "one round trip is enough");
    let (here, there) = (a.stats(), b.stats());
    assert_eq!(here.requests_out + there.requests_out, 0, "nothing had to be asked for");
    LinkStats {
        frames_out: here.frames_out + there.frames_out,
        bytes_out: here.bytes_out + there.bytes_out,
        records_out: here.records_out + there.records_out,
        ..LinkStats::default()
    }
}

#[track_caller]
fn assert_costs(changes: [usize; 2]) {
    let (small, large) = (heal(2 * CHANGES, changes), heal(20 * CHANGES, changes));
    let changed = (changes[0] + changes[1]) as u64;
    for cost in [small, large] {
        assert_eq!(cost.records_out, changed, "each change once, and nothing else");
        let beyond = cost.bytes_out as i64 - (changed * VALUE_BYTES as u64) as i64;
        assert!(beyond <= 40 * changed as i64, "{beyond} bytes beyond the values of {changed} changes");
    }
    assert_eq!(small.frames_out, large.frames_out, "as many frames, however many topics there are");
    // Numbers are longer where there are more of them.
    assert!(
        large.bytes_out <= small.bytes_out + 4 * changed,
        "{} bytes, and {} of ten times as many topics",
        small.bytes_out,
        large.bytes_out
    );
}

#[test]
fn what_changed_on_one_side_crosses_in_one_round_trip() {
    assert_costs([CHANGES, 0]);
}

#[test]
fn what_changed_on_both_sides_crosses_in_one_round_trip() {
    assert_costs([CHANGES, CHANGES]);
}
