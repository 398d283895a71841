//! Quorum sections over several nodes, in virtual time.

use super::super::{
    ConnectionId, Input, Output,
    sources::tests::{BRANCH, PATH, active, agree, claim, set, states, value},
    testing::{self, Meshed, at},
};
use super::*;
use crate::protocol::{Request as Asked, Response, SourceState};

/// So many nodes that hold one section, `s`, on which some of them vote, with a topic in it.
fn meshed(count: u8, voters: &str) -> Meshed {
    Meshed::with_section(count, &[("arbitration", "quorum"), ("voters", voters)], PATH)
}

fn set_voters(meshed: &mut Meshed, at: usize, voters: &str) {
    let operator = meshed.client(at);
    let properties = BTreeMap::from([("voters".into(), voters.into())]);
    let set = meshed.ask(at, operator, Asked::SectionSet { root: "s".into(), properties });
    assert!(matches!(set, Response::Section(_)), "{set:?}");
}

fn section(meshed: &Meshed) -> SectionId {
    meshed.nodes[0].replica().section_of(&Path::parse(PATH).unwrap())
}

/// The configurations that the nodes' voters serve.
fn numbers(meshed: &Meshed) -> Vec<u64> {
    let section = section(meshed);
    meshed.nodes.iter().map(|node| node.replica().vaults.get(section).map_or(0, |vault| vault.configuration.number)).collect()
}

/// Which nodes' sessions may write at present.
fn acting(meshed: &Meshed) -> Vec<usize> {
    let acts = |at: &usize| meshed.nodes[*at].active_sources(meshed.now()).next().is_some();
    (0..meshed.nodes.len()).filter(acts).collect()
}

/// Time passes, and at no moment two nodes may write.
fn pass(meshed: &mut Meshed, ms: u64) {
    for _ in 0..ms / 20 {
        meshed.pass(20);
        let acting = acting(meshed);
        assert!(acting.len() <= 1, "at {} ms: {acting:?}", meshed.ms);
    }
}

fn is_standby(state: &SourceState, why: &str) -> bool {
    matches!(state, SourceState::Standby { why: said, .. } if said.contains(why))
}

/// The first is active under epoch 1, the second stands by.
fn two_claims(meshed: &mut Meshed) -> (ConnectionId, ConnectionId) {
    let (one, two) = (meshed.client(0), meshed.client(1));
    claim(meshed, 0, one, BRANCH);
    claim(meshed, 1, two, BRANCH);
    pass(meshed, 1_000);
    assert_eq!(states(meshed, one), [active(1)]);
    assert!(is_standby(&states(meshed, two)[0], "holds the branch"));
    (one, two)
}

#[test]
fn a_section_takes_writes_of_its_sources_only() {
    let mut meshed = meshed(3, "own,n2,n3");
    let other = meshed.client(2);
    assert_eq!(set(&mut meshed, 2, other, "plain"), Err(Code::QuorumOnly));
    let (one, two) = two_claims(&mut meshed);
    assert_eq!(set(&mut meshed, 0, one, "one"), Ok(()));
    assert_eq!(set(&mut meshed, 1, two, "two"), Err(Code::Exclusive));
    assert_eq!([value(&meshed, 0), value(&meshed, 2)], ["one", "one"]);
    let Response::Source(detail) = meshed.ask(0, one, Asked::SourceShow { branch: BRANCH.into() }) else { panic!("refused") };
    assert_eq!((detail.arbitration.as_str(), detail.voters.len()), ("quorum", 3));
    assert!(detail.voters.iter().all(|voter| voter.heard && voter.holds == Some(true)), "{detail:?}");
    assert!((3_000..=5_000).contains(&detail.lease_left_ms.unwrap()), "{detail:?}");
    agree(&mut meshed);
}

#[test]
fn it_passes_on_as_soon_as_it_is_given_up() {
    let mut meshed = meshed(3, "own,n2,n3");
    let (one, two) = two_claims(&mut meshed);
    meshed.ask(0, one, Asked::SourceClose { source: 1 });
    pass(&mut meshed, 1_000);
    assert_eq!(states(&mut meshed, two).last(), Some(&active(2)));
    assert_eq!(set(&mut meshed, 1, two, "two"), Ok(()));
    assert_eq!(value(&meshed, 0), "two");
    meshed.ask(1, two, Asked::SourceClose { source: 1 });
    assert_eq!(set(&mut meshed, 1, two, "plain"), Err(Code::QuorumOnly));
    agree(&mut meshed);
}

#[test]
fn who_is_cut_off_stops_before_the_next_begins() {
    let mut meshed = meshed(3, "own,n2,n3");
    let (one, two) = two_claims(&mut meshed);
    set(&mut meshed, 0, one, "before").unwrap();
    meshed.cut_off(0);
    pass(&mut meshed, 2_000);
    assert_eq!(set(&mut meshed, 0, one, "its lease runs"), Ok(()));
    pass(&mut meshed, 3_500);
    let told = states(&mut meshed, one);
    assert!(is_standby(told.last().unwrap(), "missing: n2, n3"), "{told:?}");
    assert_eq!(set(&mut meshed, 0, one, "late"), Err(Code::NoMajority));
    pass(&mut meshed, 5_000);
    assert_eq!(states(&mut meshed, two).last(), Some(&active(2)));
    assert_eq!(set(&mut meshed, 1, two, "after"), Ok(()));
    meshed.heal();
    pass(&mut meshed, 3_000);
    assert!(is_standby(states(&mut meshed, one).last().unwrap(), "holds the branch"));
    assert_eq!(set(&mut meshed, 0, one, "later"), Err(Code::Exclusive));
    assert_eq!([value(&meshed, 0), value(&meshed, 2)], ["after", "after"]);
    agree(&mut meshed);
}

#[test]
fn who_is_back_before_others_took_it_goes_on_under_the_same_epoch() {
    let mut meshed = meshed(3, "own,n2,n3");
    let one = meshed.client(0);
    claim(&mut meshed, 0, one, BRANCH);
    pass(&mut meshed, 1_000);
    assert_eq!(states(&mut meshed, one), [active(1)]);
    meshed.cut_off(0);
    pass(&mut meshed, 8_000);
    assert_eq!(set(&mut meshed, 0, one, "late"), Err(Code::NoMajority));
    meshed.heal();
    pass(&mut meshed, 4_000);
    let told = states(&mut meshed, one);
    assert!(matches!(told.last(), Some(SourceState::Active { .. })), "{told:?}");
    assert_eq!(set(&mut meshed, 0, one, "again"), Ok(()));
}

#[test]
fn a_holder_that_stands_still_for_longer_than_its_lease_writes_nothing_after() {
    let mut meshed = meshed(3, "own,n2,n3");
    let (one, two) = two_claims(&mut meshed);
    meshed.stopped.insert(0);
    pass(&mut meshed, 12_000);
    assert_eq!(states(&mut meshed, two).last(), Some(&active(2)));
    set(&mut meshed, 1, two, "after").unwrap();
    // It goes on, and its client's write is the first thing that it sees.
    meshed.stopped.clear();
    assert_ne!(set(&mut meshed, 0, one, "late"), Ok(()));
    pass(&mut meshed, 2_000);
    assert_eq!([value(&meshed, 0), value(&meshed, 1)], ["after", "after"]);
}

#[test]
fn a_split_without_a_majority_grants_nothing_and_says_who_is_missing() {
    let mut meshed = meshed(4, "own,n2,n3,n4");
    meshed.split(&[0, 1]);
    let clients: Vec<ConnectionId> = [0, 2].map(|at| meshed.client(at)).to_vec();
    claim(&mut meshed, 0, clients[0], BRANCH);
    claim(&mut meshed, 2, clients[1], BRANCH);
    pass(&mut meshed, 10_000);
    for (client, missing) in clients.iter().zip(["missing: n3, n4", "missing: n2, own"]) {
        let told = states(&mut meshed, *client);
        assert!(told.iter().all(|state| matches!(state, SourceState::Standby { .. })), "{told:?}");
        assert!(is_standby(told.last().unwrap(), missing), "{told:?}");
    }
    meshed.heal();
    pass(&mut meshed, 5_000);
    assert_eq!(acting(&meshed).len(), 1);
    agree(&mut meshed);
}

#[test]
fn voters_that_start_again_are_silent_for_as_long_as_what_they_have_forgotten_may_live() {
    let mut meshed = meshed(3, "own,n2,n3");
    let (_, two) = two_claims(&mut meshed);
    // Two of three forget their leases while the holder is cut off: nobody else may have it until its lease has run out.
    meshed.cut_off(0);
    let cut = meshed.ms;
    for at in [1, 2] {
        meshed.restart(at);
    }
    meshed.cut_off(0);
    let back = meshed.client(1);
    claim(&mut meshed, 1, back, "s/b");
    pass(&mut meshed, 3_000);
    assert_eq!(acting(&meshed), [0], "since {} ms", meshed.ms - cut);
    pass(&mut meshed, 8_000);
    assert!(states(&mut meshed, back).contains(&active(2)), "they answer again");
    assert_eq!(states(&mut meshed, two), []);
}

#[test]
fn letters_find_voters_over_a_chain() {
    let mut meshed = meshed(4, "n4");
    for (a, b) in [(0, 2), (0, 3), (1, 3)] {
        meshed.cut(a, b);
    }
    pass(&mut meshed, 3_000);
    let one = meshed.client(0);
    claim(&mut meshed, 0, one, BRANCH);
    pass(&mut meshed, 3_000);
    assert_eq!(states(&mut meshed, one), [active(1)]);
    pass(&mut meshed, 10_000);
    assert_eq!(set(&mut meshed, 0, one, "far"), Ok(()));
    assert_eq!(states(&mut meshed, one), []);
}

#[test]
fn a_voter_that_has_lost_its_disk_is_another_one_and_votes_once_the_others_agree() {
    let mut meshed = meshed(3, "own,n2,n3");
    let (one, _) = two_claims(&mut meshed);
    let before = meshed.nodes[2].replica().vaults.voter();
    meshed.forget(2);
    assert_ne!(meshed.nodes[2].replica().vaults.voter(), before);
    pass(&mut meshed, 15_000);
    assert_eq!(numbers(&meshed), [2, 2, 2]);
    let after = meshed.nodes[2].replica().vaults.voter();
    let section = section(&meshed);
    let configuration = meshed.nodes[0].replica().vaults.get(section).unwrap().configuration.clone();
    assert!(configuration.voters.contains(&after) && !configuration.voters.contains(&before));
    // It has a vote that counts.
    assert_eq!(set(&mut meshed, 0, one, "on"), Ok(()));
    meshed.cut_off(1);
    pass(&mut meshed, 20_000);
    assert_eq!(set(&mut meshed, 0, one, "on and on"), Ok(()));
    assert!(states(&mut meshed, one).iter().all(|state| matches!(state, SourceState::Active { .. })));
}

#[test]
fn voters_wished_for_on_both_sides_of_a_split_never_make_two_majorities() {
    let mut meshed = meshed(5, "own,n2,n3");
    let (one, two) = (meshed.client(0), meshed.client(4));
    meshed.split(&[0, 1]);
    set_voters(&mut meshed, 0, "own,n2");
    set_voters(&mut meshed, 4, "n3,n4,n5");
    claim(&mut meshed, 0, one, BRANCH);
    claim(&mut meshed, 4, two, BRANCH);
    pass(&mut meshed, 30_000);
    assert_eq!(acting(&meshed), [0]);
    assert_eq!(numbers(&meshed), [2, 2, 1, 0, 0]);
    // One of the wishes stands once they are joined, and whoever votes then is known everywhere.
    meshed.heal();
    pass(&mut meshed, 40_000);
    assert_eq!(acting(&meshed), [0], "the holder has gone on");
    let shown: Vec<Vec<String>> = (0..5)
        .map(|at| meshed.nodes[at].voter_rows(meshed.now().at, section(&meshed), None).into_iter().map(|voter| voter.node).collect())
        .collect();
    assert!(shown.iter().all(|voters| *voters == shown[0]), "{shown:?}");
    assert!([vec!["own", "n2"], vec!["n3", "n4", "n5"]].iter().any(|wish| wish.iter().all(|name| shown[0].contains(&(*name).to_owned()))));
    assert_eq!(set(&mut meshed, 0, one, "on"), Ok(()));
}

/// One of every kind.
fn mails() -> Vec<Mail> {
    let (node, section, voter) = (NodeId([1; 32]), SectionId(9), VoterId([2; 16]));
    let owner = Origin { node, incarnation: mangrove_crdt::id::Incarnation { boot: 3, nonce: 4 } };
    let (ballot, number, epoch) = (Ballot { counter: 5, owner }, 6, 7);
    let standing = quorum::Standing { run: 8, stint: 9, cleared: 10 };
    let branches = || vec![Path::parse("s/a").unwrap()];
    let lease = quorum::Lease { ballot, epoch };
    let taken = || vec![(Path::parse("s/a").unwrap(), lease)];
    let configuration = || Configuration { number, voters: BTreeSet::from([voter]) };
    let proposal = || quorum::Proposal { after: number, ballot, voters: BTreeSet::from([voter]) };
    let requests = [
        Request::Ask { number, ballot, branches: branches() },
        Request::Propose { number, ballot, epoch, granted: Some(standing), branches: branches() },
        Request::Release { ballot, branches: branches() },
        Request::Renew { number, owner, round: 11, heard: standing, anew: true },
        Request::Prepare { after: number, ballot },
        Request::Endorse(proposal()),
        Request::Start { configuration: configuration(), highest: 12 },
    ];
    let refused = |refusal| Reply::Refused { voter, number, ballot, refusal };
    let replies = [
        Reply::Told { voter, number, ballot, highest: 12, taken: taken() },
        Reply::Accepted { voter, number, ballot, epoch, standing, branches: branches() },
        refused(quorum::Refusal::Taken(taken())),
        refused(quorum::Refusal::Epoch { highest: 12, branches: branches() }),
        refused(quorum::Refusal::Paused(branches())),
        Reply::Released { voter, ballot, branches: branches() },
        Reply::Renewed { voter, number, owner, round: 11, standing, given: vec![(Path::parse("s/a").unwrap(), 5)], settled: true },
        Reply::Elsewhere { voter, owner, configuration: configuration(), next: Some(BTreeSet::from([voter])), highest: 12 },
        Reply::Promised { voter, after: number, ballot, accepted: Some(proposal()) },
        Reply::Endorsed { voter, after: number, ballot, highest: 12 },
        Reply::Overruled { voter, after: number, ballot, promised: ballot },
    ];
    let requests = requests.into_iter().map(|request| Mail::Request { section, to: voter, request });
    requests.chain(replies.into_iter().map(|reply| Mail::Reply { section, reply })).collect()
}

#[test]
fn a_session_that_is_back_in_time_holds_its_branch_under_a_new_epoch() {
    let mut meshed = meshed(3, "own,n2,n3");
    let one = meshed.client(0);
    let Response::Session(open) = meshed.ask(0, one, Asked::SessionOpen { reconnect_timeout_ms: None, properties: Default::default() })
    else {
        panic!("refused")
    };
    claim(&mut meshed, 0, one, BRANCH);
    pass(&mut meshed, 1_000);
    meshed.gone(0, one);
    pass(&mut meshed, 2_000);
    let back = meshed.client(0);
    meshed.ask(0, back, Asked::SessionResume { id: open.id, secret: open.secret, epoch: 0 });
    pass(&mut meshed, 1_000);
    assert_eq!(states(&mut meshed, back).last(), Some(&active(2)));
    assert_eq!(set(&mut meshed, 0, back, "on"), Ok(()));
    // Away for too long: nobody holds it, and the voters know.
    meshed.gone(0, back);
    pass(&mut meshed, 6_000);
    let two = meshed.client(1);
    claim(&mut meshed, 1, two, BRANCH);
    pass(&mut meshed, 1_000);
    assert_eq!(states(&mut meshed, two).last(), Some(&active(3)));
}

#[test]
fn a_section_that_gets_its_root_back_never_sees_a_ballot_twice() {
    let mut meshed = meshed(3, "own,n2,n3");
    let one = meshed.client(0);
    claim(&mut meshed, 0, one, BRANCH);
    pass(&mut meshed, 1_000);
    let first = section(&meshed);
    // Another section with the same root, declared on the other side of a split, stands until it is removed.
    meshed.cut_off(0);
    let operator = meshed.client(1);
    let declare = |meshed: &mut Meshed| {
        meshed.ask(1, operator, Asked::SectionRemove { root: "s".into() });
        let properties = BTreeMap::from([("arbitration".into(), "quorum".into()), ("voters".into(), "own,n2,n3".into())]);
        meshed.ask(1, operator, Asked::SectionAdd { root: "s".into(), properties });
        meshed.nodes[1].replica().section_of(&Path::parse(PATH).unwrap())
    };
    let second = declare(&mut meshed);
    assert_ne!(first, second);
    let attempts = |meshed: &Meshed| meshed.nodes[0].quorums.owners.get(&first).map(|owning| owning.owner.granted().count());
    assert_eq!(attempts(&meshed), Some(1));
    meshed.heal();
    pass(&mut meshed, 1_000);
    assert_eq!(section(&meshed), second, "the removal of the first stands");
    assert_eq!(attempts(&meshed), Some(0), "the owner is there yet, and holds nothing");
    assert!(matches!(states(&mut meshed, one).last(), Some(SourceState::Closed { .. })));
    let again = meshed.client(0);
    claim(&mut meshed, 0, again, BRANCH);
    pass(&mut meshed, 2_000);
    assert_eq!(states(&mut meshed, again).last(), Some(&active(1)), "it is another section, with epochs of its own");
}

#[test]
fn a_voter_says_nothing_before_its_vault_is_on_the_disk() {
    let mut node = testing::node();
    let drive = |node: &mut Node, ms: u64, input: Input<'_>| {
        let marks =
            node.handle_input(at(ms), input).filter_map(|output| if let Output::Persist { mark, .. } = output { Some(mark) } else { None });
        marks.last()
    };
    let properties = BTreeMap::from([("arbitration".into(), "quorum".into()), ("voters".into(), "own".into())]);
    let request = Asked::SectionAdd { root: "s".into(), properties };
    let mark = drive(&mut node, 1, Input::Request { session: testing::SESSION, id: 1, request }).expect("something to store");
    drive(&mut node, 2, Input::Persisted { released: mark, synced: mark });
    let section = node.replica.section_of(&Path::parse("s/a").unwrap());
    let other = Origin { node: NodeId([2; 32]), ..node.replica.own() };
    let request = Request::Propose {
        number: 1,
        ballot: Ballot { counter: 1, owner: other },
        epoch: 5,
        granted: None,
        branches: vec![Path::parse("s/a").unwrap()],
    };
    let mail = Mail::Request { section, to: node.replica.vaults.voter(), request };
    node.letter(at(3), other.node, &minicbor::to_vec(Letter::Quorum(mail)).unwrap());
    let mark = drive(&mut node, 3, Input::Timeout).expect("its vault is to be stored, at once");
    assert_eq!(node.quorums.unsaid.len(), 1);
    drive(&mut node, 4, Input::Persisted { released: mark, synced: 0 });
    assert_eq!(node.quorums.unsaid.len(), 1, "stored, but not synced");
    drive(&mut node, 5, Input::Persisted { released: mark, synced: mark });
    assert_eq!(node.quorums.unsaid.len(), 0);
    assert_eq!(node.replica.vaults.get(section).map(|vault| vault.highest), Some(5));
}

#[test]
fn letters_are_written_the_same_for_ever() {
    let mut hasher = blake3::Hasher::new();
    for mail in mails() {
        let bytes = minicbor::to_vec(&mail).unwrap();
        hasher.update(&bytes);
        assert_eq!(minicbor::decode::<Mail>(&bytes).unwrap(), mail);
        for cut in 0..bytes.len() {
            assert!(minicbor::decode::<Mail>(&bytes[..cut]).is_err(), "half of {mail:?}");
        }
    }
    assert_eq!(hasher.finalize().to_hex()[..32], *"41d86bcc8d19ba48f357462aa7d541c9");
}

#[test]
fn letters_that_make_no_sense_change_nothing() {
    let mut meshed = meshed(3, "own,n2,n3");
    let (one, _) = two_claims(&mut meshed);
    for mail in mails() {
        let bytes = minicbor::to_vec(Letter::Quorum(mail)).unwrap();
        for cut in [0, 1, bytes.len() / 2, bytes.len()] {
            let now = meshed.now();
            meshed.nodes[0].letter(now, NodeId([7; 32]), &bytes[..cut]);
        }
    }
    pass(&mut meshed, 8_000);
    assert_eq!(set(&mut meshed, 0, one, "on"), Ok(()));
    assert_eq!(states(&mut meshed, one), []);
}
