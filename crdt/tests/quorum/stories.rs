//! Rules whose harm needs a longer chain of events than exhaustive search reaches, each told step by step: it ends well, and badly without the rule.
//!
//! Time is as in the model: an owner's deadlines are numbers of its own, and a voter lets an owner lapse once the deadlines that ran when it answered are over.

use std::collections::BTreeSet;

use mangrove_crdt::{
    quorum::{Ballot, Configuration, Owner, Proposal, Reply, Request, Unsent, Vault, Voter},
    sabotage::{Sabotage, sabotage},
};

type Ask = Request<char, u8, &'static str>;
type Answer = Reply<char, u8, &'static str>;

fn configuration(number: u64, voters: [u8; 3]) -> Configuration<u8> {
    Configuration { number, voters: BTreeSet::from(voters) }
}

/// Voters 1 to 4, of which the first three vote, and owners a and b.
struct Town {
    voters: Vec<Voter<char, u8, &'static str>>,
    a: Owner<char, u8, &'static str>,
    b: Owner<char, u8, &'static str>,
}

impl Town {
    fn new() -> Self {
        let mut town = Town {
            voters: (1..=4).map(|voter| Voter::founded(voter, 1, Vault::default())).collect(),
            a: Owner::new('a', configuration(1, [1, 2, 3])),
            b: Owner::new('b', configuration(1, [1, 2, 3])),
        };
        for voter in 1..=3 {
            town.at(voter, &Request::Start { configuration: configuration(1, [1, 2, 3]), highest: 0 });
        }
        town
    }

    fn at(&mut self, voter: u8, request: &Ask) -> Vec<Answer> {
        self.voters[usize::from(voter) - 1].handle(request.clone()).replies
    }

    /// A request at a voter, and the answer at a; what it then sends to that voter.
    fn a_at(&mut self, now: u64, voter: u8, request: &Ask) -> Vec<Ask> {
        let answers = self.at(voter, request);
        answers.into_iter().flat_map(|answer| only(voter, self.a.handle(now, answer).sends)).collect()
    }

    fn b_at(&mut self, voter: u8, request: &Ask) -> Vec<Ask> {
        let answers = self.at(voter, request);
        answers.into_iter().flat_map(|answer| only(voter, self.b.handle(0, answer).sends)).collect()
    }

    fn holders(&self, now: u64) -> usize {
        usize::from(self.a.holds(&"x", now).is_some()) + usize::from(self.b.holds(&"x", 0).is_some())
    }

    /// a holds x by 1 and 2 until 10. b, which asked before 2 and 3 knew, has a proposal on its way.
    fn begin(&mut self) -> (Ask, Ask) {
        let ask = first(self.a.attempt(["x"], 10));
        let _ = self.a_at(0, 1, &ask);
        let theirs = self.a_at(0, 2, &ask).remove(0);
        let _ = self.a_at(0, 1, &theirs);
        let ask = first(self.b.attempt(["x"], 100));
        let _ = self.b_at(1, &ask);
        let _ = self.b_at(2, &ask);
        let ours = self.b_at(3, &ask).remove(0);
        let _ = self.a_at(0, 2, &theirs);
        assert_eq!((self.a.holds(&"x", 9), self.holders(9)), (Some(1), 1));
        (theirs, ours)
    }
}

fn first(sends: Vec<Unsent<char, u8, &'static str>>) -> Ask {
    sends.into_iter().next().unwrap().request
}

fn only(voter: u8, sends: Vec<Unsent<char, u8, &'static str>>) -> Vec<Ask> {
    sends.into_iter().filter(|unsent| unsent.to == voter).map(|unsent| unsent.request).collect()
}

fn renewal(town: &mut Town, now: u64, until: u64) -> impl Fn(u8) -> Ask + use<> {
    let sends = town.a.renew(now, until);
    move |voter| only(voter, sends.clone()).pop().unwrap()
}

/// Voter 3 took x for a, let it lapse and gave it to b. Its acceptance reaches a after that was told.
fn late_acceptance() -> usize {
    let mut town = Town::new();
    let (theirs, ours) = town.begin();
    let late = town.at(3, &theirs);
    let round = renewal(&mut town, 5, 20);
    let _ = town.a_at(6, 1, &round(1));
    let _ = town.a_at(6, 2, &round(2));
    town.voters[2].lapse(&'a');
    let _ = town.b_at(3, &ours);
    let round = renewal(&mut town, 12, 30);
    let _ = town.a_at(13, 3, &round(3));
    let _ = town.a_at(13, 1, &round(1));
    for answer in late {
        let _ = town.a.handle(13, answer);
    }
    // a's first renewal, the last that 2 answered, is over.
    town.voters[1].lapse(&'a');
    let _ = town.b_at(2, &ours);
    town.holders(20)
}

/// b gets voter 3 in the first configuration; 1 and 3 endorse the second, {1, 2, 4}, and it starts at 1 and 4. Only 2 has not heard of it.
fn old_majority() -> usize {
    let mut town = Town::new();
    let (_, ours) = town.begin();
    let _ = town.b_at(3, &ours);
    let second = configuration(2, [1, 2, 4]);
    for voter in [1, 4] {
        town.at(voter, &Request::Start { configuration: second.clone(), highest: 2 });
    }
    let round = renewal(&mut town, 1, 20);
    let _ = town.a_at(1, 1, &round(1));
    assert_eq!(*town.a.configuration(), second);
    let round = renewal(&mut town, 2, 20);
    let _ = town.a_at(3, 1, &round(1));
    let spread = town.a_at(3, 4, &round(4));
    let _ = town.a_at(3, 4, &spread[0]);
    // a's attempt, the last that 2 answered, is over.
    town.voters[1].lapse(&'a');
    let _ = town.b_at(2, &ours);
    assert!(town.b.holds(&"x", 0).is_some());
    town.holders(10)
}

/// 2, 3 and 4 have endorsed the second configuration, {2, 3, 4}; it has started at 3 and 4, and their pause is over. a renews with 1 and 2.
fn served_on() -> usize {
    let mut town = Town::new();
    let _ = town.begin();
    let second = configuration(2, [2, 3, 4]);
    let ballot = Ballot { counter: 1, owner: 'p' };
    for voter in [2, 3, 4] {
        let endorsed = town.at(voter, &Request::Endorse(Proposal { after: 1, ballot, voters: second.voters.clone() }));
        assert!(matches!(endorsed[..], [Reply::Endorsed { .. }]));
    }
    for voter in [3, 4] {
        town.at(voter, &Request::Start { configuration: second.clone(), highest: 1 });
    }
    let round = renewal(&mut town, 9, 19);
    let _ = town.a_at(9, 1, &round(1));
    let _ = town.a_at(9, 2, &round(2));
    // a's attempt, the last that was asked for before the start, is over.
    town.voters[2].pause_over();
    town.voters[3].pause_over();
    town.b = Owner::new('b', second);
    let ask = first(town.b.attempt(["x"], 100));
    let _ = town.b_at(3, &ask);
    let propose = town.b_at(4, &ask).remove(0);
    let _ = town.b_at(3, &propose);
    let _ = town.b_at(4, &propose);
    assert_eq!(town.b.holds(&"x", 0), Some(2));
    town.holders(10)
}

#[test]
fn who_has_endorsed_the_next_configuration_renews_nothing_under_the_old() {
    assert_eq!(served_on(), 1);
    sabotage(Some(Sabotage::ServesAfterEndorsing));
    assert_eq!(served_on(), 2);
}

#[test]
fn an_acceptance_older_than_what_was_heard_does_not_count() {
    assert_eq!(late_acceptance(), 1);
    sabotage(Some(Sabotage::CountsLate));
    assert_eq!(late_acceptance(), 2);
}

#[test]
fn voters_that_pause_do_not_outvote_the_old_configuration() {
    assert_eq!(old_majority(), 1);
    sabotage(Some(Sabotage::CountsPaused));
    assert_eq!(old_majority(), 2);
}
