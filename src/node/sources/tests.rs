//! Sources over one node and several, in virtual time.

use std::collections::BTreeMap;

use super::super::testing::Meshed;
use super::*;
use crate::protocol::{Request, SetBatch, SetItem, Target, TopicSpec};

pub const PATH: &str = "s/a/t";
pub const BRANCH: &str = "s/a";
const SETTLE: u64 = 300;

/// So many nodes that hold one section, `s`, with a topic in it.
fn meshed(count: u8) -> Meshed {
    Meshed::with_section(count, &[], PATH)
}

pub fn try_claim(meshed: &mut Meshed, at: usize, client: ConnectionId, branch: &str, priority: i32, wait: bool) -> Result<u32, Refusal> {
    match meshed.ask(at, client, Request::SourceClaim { branch: branch.into(), priority, wait, hold_ms: None }) {
        Response::Claimed { source } => Ok(source),
        Response::Refused(refusal) => Err(refusal),
        other => panic!("{other:?}"),
    }
}

pub fn claim(meshed: &mut Meshed, at: usize, client: ConnectionId, branch: &str) -> u32 {
    try_claim(meshed, at, client, branch, 0, true).unwrap()
}

pub fn set_under(meshed: &mut Meshed, at: usize, client: ConnectionId, value: &str, under: Option<Authority>) -> Result<(), Code> {
    let items = vec![SetItem::new(Target::Path(PATH.into()), value.as_bytes())];
    match meshed.ask(at, client, Request::Set(SetBatch { items, add: None, durability: None, under })) {
        Response::Written { refused, .. } if refused.is_empty() => Ok(()),
        Response::Written { refused, .. } => Err(refused[0].refusal.code),
        Response::Refused(refusal) => Err(refusal.code),
        other => panic!("{other:?}"),
    }
}

pub fn set(meshed: &mut Meshed, at: usize, client: ConnectionId, value: &str) -> Result<(), Code> {
    set_under(meshed, at, client, value, None)
}

pub fn value(meshed: &Meshed, at: usize) -> String {
    let replica = meshed.nodes[at].replica();
    let path = Path::parse(PATH).unwrap();
    let write = replica.value(replica.section_of(&path), &path);
    write.and_then(|write| write.value.clone()).map(|value| String::from_utf8(value.to_vec()).unwrap()).unwrap_or_default()
}

/// The states that a client was told of its source since this was asked last.
pub fn states(meshed: &mut Meshed, client: ConnectionId) -> Vec<SourceState> {
    let told = std::mem::take(&mut meshed.told);
    let (own, other): (Vec<_>, Vec<_>) = told.into_iter().partition(|(_, to, _)| *to == client);
    meshed.told = other;
    let state = |(_, _, message)| match message {
        FromNode::Source { state, .. } => Some(state),
        _ => None,
    };
    own.into_iter().filter_map(state).collect()
}

pub fn rows(meshed: &mut Meshed, at: usize) -> Vec<SourceRow> {
    let client = meshed.client(at);
    match meshed.ask(at, client, Request::Sources { page: Page::default() }) {
        Response::Sources { rows, next: None } => rows,
        other => panic!("{other:?}"),
    }
}

/// All nodes list the same.
pub fn agree(meshed: &mut Meshed) -> Vec<SourceRow> {
    let first = rows(meshed, 0);
    for at in 1..meshed.nodes.len() {
        assert_eq!(rows(meshed, at), first, "node {at}");
    }
    first
}

pub fn active(epoch: u64) -> SourceState {
    SourceState::Active { epoch }
}

#[test]
fn one_is_active_the_other_stands_by_and_takes_over_when_it_is_closed() {
    let mut meshed = meshed(2);
    let (one, two, other) = (meshed.client(0), meshed.client(1), meshed.client(1));
    let source = claim(&mut meshed, 0, one, BRANCH);
    assert_eq!(states(&mut meshed, one), [], "nothing before claims have spread");
    claim(&mut meshed, 1, two, BRANCH);
    meshed.pass(SETTLE + 1);
    assert_eq!(states(&mut meshed, one), [active(1)]);
    assert!(matches!(&states(&mut meshed, two)[..], [SourceState::Standby { epoch: 1, holder: Some(_), .. }]));
    assert_eq!(set(&mut meshed, 0, one, "one"), Ok(()));
    assert_eq!(set(&mut meshed, 1, two, "two"), Err(Code::Exclusive));
    assert_eq!(set(&mut meshed, 1, other, "other"), Err(Code::Exclusive));
    assert_eq!([value(&meshed, 0), value(&meshed, 1)], ["one", "one"]);
    let listed = agree(&mut meshed);
    assert_eq!((listed[0].branch.as_str(), listed[0].epoch, listed[0].waiting), (BRANCH, 1, 1));
    // One goes: two is active within twice the settle time, under an epoch above the open one.
    meshed.ask(0, one, Request::SourceClose { source });
    assert!(matches!(&states(&mut meshed, one)[..], [SourceState::Closed { reason: Closed::Released, .. }]));
    assert_eq!(set_under(&mut meshed, 0, one, "late", Some(Authority { source, epoch: 1 })), Err(Code::UnknownSource));
    assert_eq!(set(&mut meshed, 0, one, "late"), Err(Code::Exclusive));
    meshed.pass(2 * SETTLE);
    assert_eq!(states(&mut meshed, two).last(), Some(&active(3)));
    assert_eq!(set(&mut meshed, 1, two, "two"), Ok(()));
    assert_eq!([value(&meshed, 0), value(&meshed, 1)], ["two", "two"]);
    agree(&mut meshed);
}

#[test]
fn a_standby_takes_over_when_the_holders_node_is_gone_and_what_that_writes_later_loses() {
    let mut meshed = meshed(2);
    let (one, two) = (meshed.client(0), meshed.client(1));
    let source = claim(&mut meshed, 0, one, BRANCH);
    claim(&mut meshed, 1, two, BRANCH);
    meshed.pass(SETTLE + 1);
    set(&mut meshed, 0, one, "before").unwrap();
    states(&mut meshed, one);
    states(&mut meshed, two);
    // Node 0 is cut off: it goes on, and node 1 takes over.
    meshed.cut_off(0);
    meshed.pass(4_000);
    assert_eq!(states(&mut meshed, two), [], "not while its lease may run");
    meshed.pass(1_000 + 2 * SETTLE);
    assert_eq!(states(&mut meshed, two), [active(2)]);
    set(&mut meshed, 1, two, "after").unwrap();
    assert_eq!(
        set_under(&mut meshed, 0, one, "cut off", Some(Authority { source, epoch: 1 })),
        Ok(()),
        "an available section stays writable"
    );
    assert_eq!(states(&mut meshed, one), []);
    // They meet: the greater epoch stands, the other is told, and its value is kept.
    meshed.heal();
    assert!(
        matches!(&states(&mut meshed, one)[..], [SourceState::Standby { epoch: 2, holder: Some(_), why }] if why.starts_with("lost to"))
    );
    assert_eq!(set_under(&mut meshed, 0, one, "late", Some(Authority { source, epoch: 1 })), Err(Code::Fenced));
    assert_eq!([value(&meshed, 0), value(&meshed, 1)], ["after", "after"]);
    meshed.pass(1_000);
    let kept: Vec<_> = meshed.nodes[1].replica().displaced().iter().map(|(_, entry)| entry.value.clone()).collect();
    assert_eq!(kept, [b"cut off".to_vec()]);
    agree(&mut meshed);
    assert_eq!(states(&mut meshed, two), []);
}

#[test]
fn plain_writes_after_a_source_are_above_what_it_left() {
    let mut meshed = meshed(2);
    let (one, other) = (meshed.client(0), meshed.client(1));
    let source = claim(&mut meshed, 0, one, BRANCH);
    meshed.pass(SETTLE + 1);
    for number in 0..50 {
        set(&mut meshed, 0, one, &number.to_string()).unwrap();
    }
    meshed.ask(0, one, Request::SourceClose { source });
    assert_eq!(set(&mut meshed, 1, other, "plain"), Ok(()));
    assert_eq!([value(&meshed, 0), value(&meshed, 1)], ["plain", "plain"]);
}

#[test]
fn who_only_tries_is_refused_and_nobody_claims_twice_or_across() {
    let mut meshed = meshed(2);
    let (one, two) = (meshed.client(0), meshed.client(1));
    claim(&mut meshed, 0, one, BRANCH);
    let code = |refused: Result<u32, Refusal>| refused.map_err(|refusal| refusal.code);
    assert_eq!(code(try_claim(&mut meshed, 1, two, BRANCH, 9, false)), Err(Code::Exclusive));
    assert_eq!(code(try_claim(&mut meshed, 0, one, BRANCH, 0, true)), Err(Code::AlreadyClaimed));
    for branch in ["s", "s/a/t/u"] {
        assert_eq!(code(try_claim(&mut meshed, 1, two, branch, 0, true)), Err(Code::Overlaps), "{branch}");
    }
    assert_eq!(code(try_claim(&mut meshed, 1, two, "s/$a", 0, true)), Err(Code::NotPermitted));
    assert!(try_claim(&mut meshed, 1, two, "s/b", 0, false).is_ok());
}

#[test]
fn branches_claimed_across_each_other_in_a_split_are_settled_when_it_heals() {
    let mut meshed = meshed(2);
    let (one, two) = (meshed.client(0), meshed.client(1));
    meshed.cut_off(1);
    claim(&mut meshed, 0, one, "s/a");
    meshed.pass(1_000);
    claim(&mut meshed, 1, two, "s");
    meshed.pass(1_000);
    assert_eq!(states(&mut meshed, one), [active(1)]);
    assert_eq!(states(&mut meshed, two).len(), 1);
    meshed.heal();
    // Which was registered first is told by the section's clock, which ran on both sides.
    let (one, two) = (states(&mut meshed, one), states(&mut meshed, two));
    let conflict = |told: &[SourceState]| matches!(told, [SourceState::Closed { reason: Closed::Conflict, .. }]);
    assert!(conflict(&one) != conflict(&two), "{one:?} {two:?}");
    assert!(one.len() + two.len() == 1);
    meshed.pass(1_000);
    let held = agree(&mut meshed).into_iter().filter(|row| row.section.is_some() && row.holder.is_some()).count();
    assert_eq!(held, 1);
}

#[test]
fn a_branch_claimed_across_one_whose_home_was_taken_for_gone_closes_when_that_is_heard_again() {
    let mut meshed = meshed(2);
    let (one, two) = (meshed.client(0), meshed.client(1));
    claim(&mut meshed, 0, one, BRANCH);
    meshed.pass(1_000);
    assert_eq!(states(&mut meshed, one), [active(1)]);
    meshed.cut_off(0);
    meshed.pass(70_000);
    claim(&mut meshed, 1, two, "s");
    meshed.pass(1_000);
    assert!(matches!(states(&mut meshed, two)[..], [SourceState::Active { .. }]));
    meshed.heal();
    meshed.pass(2_000);
    assert_eq!(states(&mut meshed, one), []);
    assert!(matches!(states(&mut meshed, two)[..], [SourceState::Closed { reason: Closed::Conflict, .. }]));
}

#[test]
fn a_lost_session_keeps_its_branch_for_a_while_and_its_place_for_longer() {
    let mut meshed = meshed(2);
    let (one, two) = (meshed.client(0), meshed.client(1));
    let Response::Session(open) =
        meshed.ask(0, one, Request::SessionOpen { reconnect_timeout_ms: Some(20_000), properties: Default::default() })
    else {
        panic!("refused")
    };
    let source = claim(&mut meshed, 0, one, BRANCH);
    claim(&mut meshed, 1, two, BRANCH);
    meshed.pass(1_000);
    states(&mut meshed, two);
    // Back within the hold: the same source, under a new epoch; what the old connection was told is dead.
    meshed.gone(0, one);
    meshed.pass(2_000);
    let wrong = meshed.client(0);
    let resume = |secret: &crate::protocol::Secret| Request::SessionResume { id: open.id, secret: secret.clone(), epoch: 0 };
    assert!(
        matches!(meshed.ask(0, wrong, resume(&crate::protocol::Secret::new("guess"))), Response::Refused(refusal) if refusal.code == Code::UnknownSession)
    );
    let back = meshed.client(0);
    let Response::Session(resumed) = meshed.ask(0, back, resume(&open.secret)) else { panic!("refused") };
    assert_eq!((resumed.id, resumed.sources.len(), resumed.sources[0].source), (open.id, 1, source));
    assert!(!matches!(resumed.sources[0].state, SourceState::Active { epoch: 1 }), "what it was told before the loss is dead");
    meshed.pass(1);
    assert_eq!(states(&mut meshed, back).last(), Some(&active(2)));
    assert_eq!(set_under(&mut meshed, 0, back, "old", Some(Authority { source, epoch: 1 })), Err(Code::Fenced));
    assert_eq!(set_under(&mut meshed, 0, back, "new", Some(Authority { source, epoch: 2 })), Ok(()));
    states(&mut meshed, two);
    // Away for longer than the hold: the branch passes on, and the source is in the queue again when its client is back.
    meshed.gone(0, back);
    meshed.pass(5_000 + 2 * SETTLE);
    assert_eq!(
        states(&mut meshed, two),
        [SourceState::Standby { epoch: 3, holder: None, why: "nobody holds the branch at present".into() }, active(4)]
    );
    let again = meshed.client(0);
    let Response::Session(resumed) = meshed.ask(0, again, resume(&open.secret)) else { panic!("refused") };
    assert!(matches!(resumed.sources[0].state, SourceState::Standby { epoch: 4, holder: Some(_), .. }));
    meshed.pass(1_000);
    assert_eq!(states(&mut meshed, again), [], "it has heard that");
    assert_eq!(agree(&mut meshed)[0].waiting, 1);
    // Away for too long: it has ended, everywhere.
    meshed.gone(0, again);
    meshed.pass(21_000);
    assert!(matches!(meshed.ask(0, wrong, resume(&open.secret)), Response::Refused(refusal) if refusal.code == Code::UnknownSession));
    assert_eq!(agree(&mut meshed)[0].waiting, 0);
}

#[test]
fn a_home_that_starts_again_knows_its_sessions_and_never_an_epoch_twice() {
    let mut meshed = meshed(2);
    let (one, two) = (meshed.client(0), meshed.client(1));
    let Response::Session(open) = meshed.ask(0, one, Request::SessionOpen { reconnect_timeout_ms: None, properties: Default::default() })
    else {
        panic!("refused")
    };
    let source = claim(&mut meshed, 0, one, BRANCH);
    claim(&mut meshed, 1, two, BRANCH);
    meshed.pass(1_000);
    set(&mut meshed, 0, one, "before").unwrap();
    meshed.restart(0);
    let back = meshed.client(0);
    assert_eq!(set(&mut meshed, 0, back, "stranger"), Err(Code::Exclusive));
    let Response::Session(resumed) = meshed.ask(0, back, Request::SessionResume { id: open.id, secret: open.secret.clone(), epoch: 0 })
    else {
        panic!("refused")
    };
    assert_eq!(resumed.sources[0].source, source);
    meshed.pass(1);
    assert_eq!(states(&mut meshed, back), [active(2)]);
    set(&mut meshed, 0, back, "after").unwrap();
    assert_eq!([value(&meshed, 0), value(&meshed, 1)], ["after", "after"]);
    // Nobody comes back: the branch passes on while the home runs.
    meshed.restart(0);
    states(&mut meshed, two);
    meshed.pass(5_000 + 2 * SETTLE);
    assert_eq!(states(&mut meshed, two).last(), Some(&active(4)));
    agree(&mut meshed);
}

#[test]
fn sources_of_no_section_are_their_nodes_own() {
    let mut meshed = meshed(2);
    let (one, two) = (meshed.client(0), meshed.client(1));
    claim(&mut meshed, 0, one, "local/a");
    claim(&mut meshed, 1, two, "local/a");
    meshed.pass(1_000);
    assert_eq!((states(&mut meshed, one), states(&mut meshed, two)), (vec![active(1)], vec![active(1)]));
    let waiting: Vec<u32> = (0..2).map(|at| rows(&mut meshed, at)[0].waiting).collect();
    assert_eq!(waiting, [0, 0]);
    // The branch becomes a section: what was claimed of it here is over.
    meshed.ask(0, one, Request::SectionAdd { root: "local".into(), properties: BTreeMap::new() });
    meshed.pass(2_000);
    for client in [one, two] {
        assert!(matches!(&states(&mut meshed, client)[..], [SourceState::Closed { reason: Closed::Removed, .. }]));
    }
    assert!(agree(&mut meshed).iter().all(|row| row.holder.is_none()));
}

#[test]
fn topics_of_a_claimed_branch_are_removed_by_its_holder_or_by_force() {
    let mut meshed = meshed(2);
    let (one, two) = (meshed.client(0), meshed.client(1));
    claim(&mut meshed, 0, one, BRANCH);
    meshed.pass(1_000);
    set(&mut meshed, 0, one, "value").unwrap();
    let remove = |force| Request::TopicsRemove { selector: format!(">{PATH}"), force };
    assert!(matches!(meshed.ask(1, two, remove(false)), Response::Refused(refusal) if refusal.code == Code::Exclusive));
    assert_eq!(value(&meshed, 1), "value");
    assert!(matches!(meshed.ask(1, two, remove(true)), Response::Removed { topics: 1 }));
    meshed.ask(0, one, Request::TopicsAdd { topic: TopicSpec::of("binary"), paths: vec![PATH.into()] });
    assert!(matches!(meshed.ask(0, one, remove(false)), Response::Removed { topics: 1 }));
}

#[test]
fn greater_priority_is_next_and_never_displaces() {
    let mut meshed = meshed(3);
    let clients: Vec<ConnectionId> = (0..3).map(|at| meshed.client(at)).collect();
    let first = claim(&mut meshed, 0, clients[0], BRANCH);
    meshed.pass(1_000);
    try_claim(&mut meshed, 1, clients[1], BRANCH, 1, true).unwrap();
    try_claim(&mut meshed, 2, clients[2], BRANCH, 7, true).unwrap();
    meshed.pass(2_000);
    assert_eq!(states(&mut meshed, clients[0]), [active(1)]);
    meshed.ask(0, clients[0], Request::SourceClose { source: first });
    meshed.pass(2 * SETTLE);
    assert_eq!(states(&mut meshed, clients[2]).last(), Some(&active(3)));
    assert!(!states(&mut meshed, clients[1]).iter().any(|state| matches!(state, SourceState::Active { .. })));
    agree(&mut meshed);
}

#[test]
fn a_home_that_has_lost_its_disk_does_not_leave_its_old_claims_in_the_way() {
    let mut meshed = meshed(2);
    let (one, two) = (meshed.client(0), meshed.client(1));
    claim(&mut meshed, 0, one, BRANCH);
    claim(&mut meshed, 1, two, BRANCH);
    meshed.pass(1_000);
    states(&mut meshed, two);
    // All that it had comes back from the other node; nobody comes for the session.
    meshed.forget(0);
    meshed.pass(10_000);
    assert_eq!(states(&mut meshed, two).last(), Some(&active(3)));
    meshed.pass(60_000);
    let rows = agree(&mut meshed);
    assert_eq!((rows[0].waiting, rows[0].holder.as_ref().map(|holder| holder.node.as_str())), (0, Some("n2")));
}

#[test]
fn who_finds_something_above_its_epoch_gets_one_above_that() {
    let mut meshed = meshed(2);
    let one = meshed.client(0);
    claim(&mut meshed, 0, one, BRANCH);
    meshed.pass(1_000);
    assert_eq!(states(&mut meshed, one), [active(1)]);
    // As the source of a branch across this one has left it, on the other side of a split.
    let left = meshed.nodes[0].replica.set_by(
        &Path::parse(PATH).unwrap(),
        mangrove_crdt::replica::Writer { under: Under { epoch: 7, rank: None }, ..Default::default() },
        Arc::from(*b"left"),
    );
    assert!(left.is_ok());
    assert_eq!(set(&mut meshed, 0, one, "refused"), Err(Code::Exclusive));
    meshed.pass(1);
    assert_eq!(states(&mut meshed, one).last(), Some(&active(8)));
    assert_eq!(set(&mut meshed, 0, one, "above"), Ok(()));
    assert_eq!([value(&meshed, 0), value(&meshed, 1)], ["above", "above"]);
}

#[test]
fn a_section_given_up_here_takes_its_sources_with_it() {
    let mut meshed = meshed(2);
    let (one, two) = (meshed.client(0), meshed.client(1));
    claim(&mut meshed, 0, one, BRANCH);
    claim(&mut meshed, 1, two, BRANCH);
    meshed.pass(1_000);
    assert_eq!(states(&mut meshed, one), [active(1)]);
    states(&mut meshed, two);
    let drop = |force| Request::SectionDrop { root: "s".into(), force };
    assert!(matches!(meshed.ask(0, one, drop(false)), Response::Refused(refusal) if refusal.code == Code::Exclusive));
    meshed.ask(0, one, drop(true));
    assert!(matches!(&states(&mut meshed, one)[..], [SourceState::Closed { reason: Closed::Removed, .. }]));
    assert_eq!(set(&mut meshed, 0, one, "late"), Err(Code::NotHeld));
}

#[test]
fn a_session_has_one_source_of_a_branch_whatever_comes_back_of_a_forgotten_run() {
    let mut meshed = meshed(2);
    let one = meshed.client(0);
    let number = claim(&mut meshed, 0, one, BRANCH);
    meshed.pass(1_000);
    assert_eq!(states(&mut meshed, one), [active(1)]);
    let (session, path) = (*meshed.nodes[0].sessions.all.keys().next().unwrap(), Path::parse(BRANCH).unwrap());
    let section = meshed.nodes[0].replica.section_of(&path);
    let mut record = meshed.nodes[0].sources.branch(section, &path).unwrap().claim(&session).unwrap().record.clone();
    // In a run that its disk has forgotten, the session had given the branch up and claimed it again.
    record.number = number + 7;
    let now = meshed.now();
    meshed.nodes[0].put_claim(now, section, &path, session, Some(&record));
    meshed.pass(1_000);
    let numbers = |meshed: &Meshed| meshed.nodes[0].sessions.all[&session].sources.keys().copied().collect::<Vec<_>>();
    assert_eq!(numbers(&meshed), [number]);
    assert_eq!(meshed.nodes[0].active_sources(now).count(), 1);
    assert_eq!(set_under(&mut meshed, 0, one, "on", Some(Authority { source: number, epoch: 1 })), Ok(()));
    // Or only given it up.
    meshed.nodes[0].put_claim(now, section, &path, session, None);
    meshed.pass(1_000);
    assert_eq!(numbers(&meshed), [0; 0]);
    assert!(matches!(&states(&mut meshed, one)[..], [SourceState::Closed { reason: Closed::Released, .. }]));
    agree(&mut meshed);
    // Or it had claimed another branch, under a number that it has for something else since.
    let number = claim(&mut meshed, 0, one, BRANCH);
    meshed.pass(1_000);
    let other = Path::parse(&format!("{BRANCH}2")).unwrap();
    let record = ClaimRecord { branch: other.clone(), number, ..record };
    meshed.nodes[0].put_claim(now, section, &other, session, Some(&record));
    meshed.pass(1_000);
    assert_eq!(numbers(&meshed), [number]);
    assert!(meshed.nodes.iter().all(|node| node.sources.branch(section, &other).is_none()));
    assert!(matches!(states(&mut meshed, one)[..], [SourceState::Active { .. }]));
    agree(&mut meshed);
}
