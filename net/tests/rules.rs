//! Each rule of replication is needed: with it broken, some schedule goes wrong, and the checks of the schedules notice.
//!
//! Eight of the eighteen ways to break a rule are noticed by random schedules; what the other ten harm needs a rarer meeting of events, so
//! each has a story of its own, told step by step, that ends well with the rule in force.
//!
//! The schedules of a rule begin at a seed after which one of the next few is known to notice. What changes the course of schedules (other
//! dice, other steps) moves these seeds; find new ones with `MANGROVE_SEEDS=0-5000 cargo test --release … --test rules -- --ignored --nocapture`.

mod support;

use mangrove_crdt::{
    definition::TopicType,
    id::{NodeId, SectionId},
    path::Path,
    sabotage::{Sabotage, sabotage},
    standing::Standing,
};
use support::{Plan, TOPICS, World, play_quietly, quietly, seeds, series};

/// Rules, the first seed to play, and how many.
const RULES: &[(Sabotage, u64, u64)] = &[
    (Sabotage::OpenRun, 43, 8),
    (Sabotage::MovedSkip, 159, 8),
    (Sabotage::NoPointer, 1, 8),
    (Sabotage::NoFloor, 7, 8),
    (Sabotage::NoRepair, 3, 8),
    (Sabotage::NoTree, 0, 8),
    (Sabotage::BlindDigest, 1, 8),
    (Sabotage::BlindRetired, 1, 8),
];

const ALL: [Sabotage; 18] = [
    Sabotage::OpenRun,
    Sabotage::MovedSkip,
    Sabotage::NoPointer,
    Sabotage::Early,
    Sabotage::NoFloor,
    Sabotage::ForgetFast,
    Sabotage::KeepAll,
    Sabotage::AdoptEnd,
    Sabotage::NoClamp,
    Sabotage::JudgedAtStart,
    Sabotage::NoRepair,
    Sabotage::KeyClock,
    Sabotage::NoTree,
    Sabotage::NoTopics,
    Sabotage::TreeAtStart,
    Sabotage::BlindDigest,
    Sabotage::BlindRetired,
    Sabotage::NoHorizon,
];

fn plan(rule: Sabotage) -> Plan {
    let tree = matches!(rule, Sabotage::NoTree | Sabotage::TreeAtStart);
    Plan { topics: tree, standing: !tree, hot: true, steps: 1_000, ..Plan::default() }
}

/// What goes wrong with a rule broken.
fn caught(rule: Sabotage, seed: u64) -> Option<String> {
    sabotage(Some(rule));
    let outcome = play_quietly(seed, plan(rule));
    sabotage(None);
    outcome.err()
}

#[test]
fn every_rule_is_missed_when_it_is_broken() {
    for (rule, first, count) in RULES {
        let caught = (*first..first + count).find_map(|seed| caught(*rule, seed));
        assert!(caught.is_some(), "{count} schedules do not miss {rule:?}");
    }
}

#[test]
#[ignore = "long: finds the seeds for the rules above"]
fn find_seeds() {
    for rule in ALL.into_iter().filter(|rule| RULES.iter().any(|known| known.0 == *rule)) {
        let found = seeds(2_000).find_map(|seed| Some((seed, caught(rule, seed)?)));
        println!("{rule:?}: {found:?}");
    }
}

/// A rule, its story, and what is said to be wrong when the story is told without the rule.
type Story = (Sabotage, fn() -> World, &'static str);

const STORIES: &[Story] = &[
    (Sabotage::Early, a_cut_run_is_no_gap_for_a_third_node, "unsound for standing"),
    (Sabotage::ForgetFast, a_removal_awaits_what_it_overtook, "came back"),
    (Sabotage::KeepAll, who_was_away_brings_nothing_back, "came back"),
    (Sabotage::AdoptEnd, what_is_written_during_an_adoption_comes_after_it, "unsound for standing"),
    (Sabotage::NoClamp, what_moves_on_during_an_adoption_leaves_a_pointer, "unsound for standing"),
    (Sabotage::JudgedAtStart, what_is_forgotten_during_an_adoption_goes, "came back"),
    (Sabotage::KeyClock, what_is_made_again_is_newer_than_its_removal, "is lost"),
    (Sabotage::NoTopics, a_topic_written_while_its_tree_is_adopted_goes_with_its_value, "unsound for the value"),
    (Sabotage::TreeAtStart, a_topic_removed_during_a_run_holds_its_end_back, "unsound for the value"),
    (Sabotage::NoHorizon, what_is_forgotten_of_a_series_is_told_as_that, "unsound for the value"),
];

#[test]
fn every_story_ends_well_with_the_rules_and_badly_without_its_own() {
    for (rule, story, wrong) in STORIES {
        story().settle();
        sabotage(Some(*rule));
        let told = quietly(story);
        sabotage(None);
        let said = told.err().unwrap_or_else(|| panic!("the story does not miss {rule:?}"));
        println!("without {rule:?}: {said}");
        assert!(said.contains(wrong), "without {rule:?}: {said}");
    }
}

#[test]
fn no_switch_is_left_untried() {
    let tried = |rule: &Sabotage| RULES.iter().any(|tried| tried.0 == *rule) || STORIES.iter().any(|tried| tried.0 == *rule);
    assert!(ALL.iter().all(tried));
}

const A: usize = 0;
const B: usize = 1;
const C: usize = 2;
const X: usize = 3;

fn put(world: &mut World, at: usize, key: NodeId) {
    world.writes += 1;
    let value = world.writes.to_be_bytes().to_vec();
    world.put_standing(at, key, Some(value));
}

/// Two nodes link up, and tell each other all.
fn meet(world: &mut World, a: usize, b: usize) {
    world.connect(a, b);
    world.exchange();
    world.check(a);
    world.check(b);
}

fn part(world: &mut World, a: usize, b: usize) {
    let link = world.linked(a, b).expect("they are linked");
    world.cut(link);
}

/// How many buckets of an adoption have come.
fn adopted_buckets(world: &World, at: usize) -> Option<u16> {
    world.hosts[at].mesh.adopting(SectionId::MESH)
}

/// All of A, B and C know a record of A's; then B is away.
fn known_to_all(world: &mut World, key: NodeId) {
    put(world, A, key);
    meet(world, A, C);
    meet(world, A, B);
    part(world, A, B);
}

/// While B is away, A removes a record that B knows, and forgets the removal. So B is below A's floor.
fn removed_and_forgotten(world: &mut World, key: NodeId) {
    world.put_standing(A, key, None);
    world.run(30, |_| false);
    let before = world.forgotten;
    world.forget(A);
    assert!(world.forgotten > before, "the removal is forgotten");
}

fn below_the_floor(world: &mut World, key: NodeId) {
    known_to_all(world, key);
    removed_and_forgotten(world, key);
}

/// A run of A's to B is cut after its first record, which B knew an older write of. B must not move it, or C, who reads B's feed only as far
/// as B has it, misses it there.
fn a_cut_run_is_no_gap_for_a_third_node() -> World {
    let mut world = World::story(3);
    let [one, two] = [world.keys[0], world.keys[1]];
    put(&mut world, A, one);
    meet(&mut world, A, B);
    let before = world.says(B, one).map(<[u8]>::to_vec);
    put(&mut world, A, one);
    put(&mut world, A, two);
    world.cross(A, B, |world| world.says(B, one) != before.as_deref());
    assert!(world.says(B, two).is_none(), "the run is not over");
    part(&mut world, A, B);
    meet(&mut world, B, C);
    world
}

/// A removes a record of X's before X's run with it is over, and X stays away. Had A forgotten the removal once C knew it too, then X would
/// bring the record back, as one that nobody has seen.
fn a_removal_awaits_what_it_overtook() -> World {
    let mut world = World::story(4);
    let [one, two] = [world.keys[0], world.keys[1]];
    put(&mut world, X, one);
    put(&mut world, X, two);
    world.connect(A, X);
    world.cross(X, A, |world| {
        greet(world, A, X);
        world.says(A, one).is_some()
    });
    assert!(world.says(A, two).is_none(), "the run is not over");
    part(&mut world, A, X);
    world.put_standing(A, one, None);
    meet(&mut world, A, C);
    world.run(30, |_| false);
    world.forget(A);
    world.forget(C);
    meet(&mut world, A, X);
    for at in [A, C, X] {
        assert!(world.says(at, one).is_none(), "what was removed came back to {at}");
    }
    world
}

/// One control frame from a node, so that its neighbour knows what it holds.
fn greet(world: &mut World, from: usize, to: usize) {
    let id = world.linked(from, to).expect("they are linked");
    let end = usize::from(world.wires[&id].ends[0].0 != from);
    world.send(id, end, 1);
    world.deliver(id, (end, 0), 1);
}

/// B holds a record whose removal it missed, and which is forgotten when it returns.
fn who_was_away_brings_nothing_back() -> World {
    let mut world = World::story(3);
    let one = world.keys[0];
    below_the_floor(&mut world, one);
    assert!(world.says(B, one).is_some(), "B has missed the removal");
    meet(&mut world, A, B);
    assert_eq!(world.hosts[B].adopted, 1, "B has adopted");
    assert!(world.says(B, one).is_none(), "what was removed came back with B");
    world
}

/// A forgets events of B's, and says so in another feed than B's. C, who gets B's feed first, must not claim events that it has neither got nor knows to be forgotten.
fn what_is_forgotten_of_a_series_is_told_as_that() -> World {
    let mut world = World::story(3);
    let path = world.paths[0].clone();
    world.add_topics(A, std::slice::from_ref(&path), series());
    meet(&mut world, A, C);
    part(&mut world, A, C);
    meet(&mut world, A, B);
    (0..3).for_each(|_| world.write_event(B, &path, false));
    world.run(5, |_| false);
    part(&mut world, A, B);
    // In its next run A's writes come after B's.
    let disk = world.hosts[A].disk.clone();
    world.restart(A, disk, 2);
    (0..4).for_each(|_| world.write_event(A, &path, false));
    world.connect(A, C);
    world.cross(A, C, |world| {
        greet(world, C, A);
        world.check(C);
        world.named_frontiers(C, TOPICS) == world.named_frontiers(A, TOPICS)
    });
    world
}

/// While B adopts from A, A writes keys whose buckets were read. B may not claim these writes.
fn what_is_written_during_an_adoption_comes_after_it() -> World {
    let mut world = World::story(3);
    let (gone, keys) = (world.keys[0], world.keys[1..].to_vec());
    below_the_floor(&mut world, gone);
    keys.iter().for_each(|key| put(&mut world, A, *key));
    world.connect(A, B);
    let mut done = 0;
    let mut told = 0;
    world.cross(A, B, |world| {
        world.check(B);
        greet(world, B, A);
        if let Some(now) = adopted_buckets(world, B).filter(|now| *now > done) {
            done = now;
            told += 1;
            if told <= keys.len() {
                keys.iter().for_each(|key| put(world, A, *key));
            }
        }
        world.hosts[B].adopted > 0
    });
    world.check(B);
    world
}

/// While B adopts from A, A writes keys again whose buckets are still to be read. C, who is as far as A's floor, then reads B's feed: there
/// the keys must stand within what B claims.
fn what_moves_on_during_an_adoption_leaves_a_pointer() -> World {
    let mut world = World::story(3);
    let (gone, keys) = (world.keys[0], world.keys[1..].to_vec());
    below_the_floor(&mut world, gone);
    part(&mut world, A, C);
    keys.iter().for_each(|key| put(&mut world, A, *key));
    world.connect(A, B);
    let mut written = false;
    world.cross(A, B, |world| {
        greet(world, B, A);
        if !written && adopted_buckets(world, B).is_some_and(|done| done > 0) {
            written = true;
            keys.iter().for_each(|key| put(world, A, *key));
        }
        world.hosts[B].adopted > 0
    });
    assert!(written, "keys were written during the adoption");
    part(&mut world, A, B);
    meet(&mut world, B, C);
    world
}

/// C removes a record of X's before X's run with it is over; A knows the removal when B, who has the record, begins to adopt from A. Before the
/// record's bucket is read, A sees all of X's, and forgets the removal: then the record's absence says that it was removed.
fn what_is_forgotten_during_an_adoption_goes() -> World {
    let mut world = World::story(4);
    let [gone, one, two] = [world.keys[0], world.keys[1], world.keys[2]];
    known_to_all(&mut world, gone);
    part(&mut world, A, C);
    put(&mut world, X, one);
    put(&mut world, X, two);
    meet(&mut world, B, X);
    part(&mut world, B, X);
    world.connect(C, X);
    world.cross(X, C, |world| {
        greet(world, C, X);
        world.says(C, one).is_some()
    });
    assert!(world.says(C, two).is_none(), "the run is not over");
    part(&mut world, C, X);
    world.put_standing(C, one, None);
    meet(&mut world, A, C);
    removed_and_forgotten(&mut world, gone);
    let remembers = |world: &World| {
        let mesh = world.hosts[A].replica.section(SectionId::MESH).expect("held");
        mesh.standing.get(&Standing::Node(one).key()).is_some()
    };
    // B asks A for its state, and is not heard from otherwise.
    world.connect(A, B);
    let id = world.linked(A, B).expect("they are linked");
    world.send(id, 0, 8);
    world.deliver(id, (0, 0), 8);
    world.cross(B, A, |world| adopted_buckets(world, B).is_some());
    world.wires.get_mut(&id).expect("linked").blocked.extend((0..32).map(|lane| (1, lane)));
    // The adoption begins, and stops after its first bucket at most.
    let bulk = (0..4).find_map(|_| {
        world.send(id, 0, 1);
        world.in_flight().into_iter().find(|(wire, lane)| *wire == id && lane.1 != 0).map(|(_, lane)| lane)
    });
    let bulk = bulk.expect("the adoption's lane opens");
    world.deliver(id, bulk, 1);
    world.send(id, 0, 1);
    world.deliver(id, bulk, 1);
    world.wires.get_mut(&id).expect("linked").blocked.extend((0..32).map(|lane| (0, lane)));
    assert!(remembers(&world), "A has not seen all of X's");
    world.connect(A, X);
    world.run(5, |_| false);
    for _ in 0..3 {
        world.forget(A);
    }
    assert!(!remembers(&world), "A has forgotten the removal");
    world.wires.get_mut(&id).expect("linked").blocked.retain(|lane| lane.0 == 1);
    world.cross(A, B, |world| world.hosts[B].adopted > 0);
    assert!(world.says(B, one).is_none(), "what was removed came back with B");
    world.wires.get_mut(&id).expect("linked").blocked.clear();
    world
}

/// A has forgotten that a record was removed, and makes it again; C still remembers the removal.
fn what_is_made_again_is_newer_than_its_removal() -> World {
    let mut world = World::story(3);
    let one = world.keys[0];
    below_the_floor(&mut world, one);
    put(&mut world, A, one);
    world.exchange();
    assert!(world.says(C, one).is_some(), "what was made again is lost at C");
    world
}

/// A removes a topic whose value is in a run that B has received the beginning of. The value is not sent any more, and the removal is delayed:
/// until it comes, B may not claim to have all of the run.
fn a_topic_removed_during_a_run_holds_its_end_back() -> World {
    let mut world = World::story(2);
    let paths = world.paths.clone();
    world.add_topics(A, &paths, TopicType::Json);
    meet(&mut world, A, B);
    paths.iter().for_each(|path| world.set(A, path));
    let values = |world: &World, at: usize| world.hosts[at].replica.section(TOPICS).expect("held").values.len();
    world.cross(A, B, |world| values(world, B) == 1);
    world.remove_topics(A, &paths[1..2]);
    let id = world.linked(A, B).expect("they are linked");
    world.send(id, 0, 1);
    let tree = world.in_flight();
    assert_eq!(tree.len(), 1, "the removal is sent first, and delayed");
    for _ in 0..20 {
        world.send(id, 0, 1);
        for (id, lane) in world.in_flight() {
            if !tree.contains(&(id, lane)) {
                world.deliver(id, lane, 1);
            }
        }
        world.check(B);
    }
    assert_eq!(values(&world, B), 2, "the run has come, but for the value of the removed topic");
    world
}

/// B has begun to take over A's topics, which its frontier does not cover yet, when a client of B's writes one; then A is away. C, which has not heard of the topic, gets the value,
/// and may not claim to have all of B's: whoever took over C's state, bucket by bucket, would have a gap where the value is.
fn a_topic_written_while_its_tree_is_adopted_goes_with_its_value() -> World {
    let mut world = World::story(3);
    let paths = world.paths.clone();
    world.add_topics(A, &paths[..2], TopicType::Json);
    world.add_topics(C, &paths[2..3], TopicType::Json);
    let knows =
        |world: &World, at: usize, path: &Path| world.hosts[at].replica.section(TOPICS).expect("held").tree.topic(path.as_str()).is_some();
    world.connect(A, B);
    world.cross(A, B, |world| {
        greet(world, B, A);
        knows(world, B, &paths[0]) && knows(world, B, &paths[1])
    });
    assert_eq!(world.hosts[B].adopted, 0, "the adoption is not over");
    part(&mut world, A, B);
    world.set(B, &paths[0]);
    world.connect(B, C);
    world.cross(B, C, |world| {
        greet(world, C, B);
        !world.hosts[C].replica.section(TOPICS).expect("held").values.is_empty()
    });
    assert!(!knows(&world, C, &paths[0]), "the topic goes by itself");
    world.check(C);
    world
}

/// The same, and A never comes back: no feed will bring C the topic, and C may not claim to have the value without it. Yet they become equal.
#[test]
fn what_no_feed_brings_any_more_is_found_by_comparing() {
    let mut world = a_topic_written_while_its_tree_is_adopted_goes_with_its_value();
    world.hosts[A].dead = true;
    world.may_mismatch = true;
    world.settle();
}

const Y: usize = 4;

fn lives(world: &World, at: usize, path: &Path) -> bool {
    world.hosts[at].replica.topic(path).is_some()
}

/// A topic of A's came to B and X in a document, and no feed will bring it any more, since A is gone. B writes it, and one of C's in the same bucket. X removes it and, when Y has
/// heard of that, forgets the removal: who meets X then gets that in a document, too.
fn a_topic_comes_and_goes_in_documents() -> (World, Path) {
    let mut world = World::story(5);
    let gone = world.paths[0].clone();
    let beside = (3..)
        .map(|at| support::path(&format!("s/{at}")))
        .find(|path| path.bucket() == gone.bucket())
        .expect("there are more paths than buckets");
    world.add_topics(A, std::slice::from_ref(&gone), TopicType::Json);
    world.add_topics(C, std::slice::from_ref(&beside), TopicType::Json);
    world.connect(A, B);
    world.cross(A, B, |world| {
        greet(world, B, A);
        lives(world, B, &gone)
    });
    assert_eq!(world.hosts[B].adopted, 0, "the adoption is not over");
    part(&mut world, A, B);
    world.hosts[A].dead = true;
    world.may_mismatch = true;
    for (a, b) in [(B, C), (B, X)] {
        meet(&mut world, a, b);
        part(&mut world, a, b);
    }
    assert!(!lives(&world, C, &gone) && lives(&world, X, &gone), "it goes with B's state only");
    world.set(B, &gone);
    world.set(B, &beside);
    meet(&mut world, X, Y);
    world.remove_topics(X, std::slice::from_ref(&gone));
    world.run(30, |_| false);
    world.forget(X);
    (world, gone)
}

/// B and C take over X's state; then B sends C the value of a topic that nobody has any more.
#[test]
fn a_value_is_not_kept_waiting_for_a_topic_that_went_in_a_document() {
    let (mut world, gone) = a_topic_comes_and_goes_in_documents();
    for at in [B, C] {
        let before = world.hosts[at].adopted;
        meet(&mut world, X, at);
        assert_eq!((world.hosts[at].adopted, lives(&world, at, &gone)), (before + 1, false));
        part(&mut world, X, at);
    }
    world.connect(B, C);
    world.settle();
}

/// B has begun to take over X's state when X is gone, too. C has heard nothing of the topic that came and went, nor can the bucket be compared, since C has not all that it holds.
#[test]
fn who_waits_for_a_topic_that_went_is_sent_its_bucket() {
    let (mut world, gone) = a_topic_comes_and_goes_in_documents();
    let before = world.hosts[B].adopted;
    world.connect(X, B);
    world.cross(X, B, |world| {
        greet(world, B, X);
        !lives(world, B, &gone)
    });
    assert_eq!(world.hosts[B].adopted, before, "the adoption is not over");
    part(&mut world, X, B);
    (world.hosts[X].dead, world.hosts[Y].dead) = (true, true);
    part(&mut world, X, Y);
    world.connect(B, C);
    world.settle();
}
