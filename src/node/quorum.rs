//! Quorum sections: this node as a voter of them, and as the owner of what its sessions hold there.
//!
//! The rules are [`mangrove_crdt::quorum`]'s; here are its clocks, its post and its disk. Owner and voters write each other letters, which the mesh carries over any chain of
//! links and may lose. A voter's answer leaves once its vault is on the disk. Who holds a branch is told to the mesh by the same grant records as in available
//! sections, but there they only show: what a holder may do is asked of the owner, by this node's clock, before every write.
//!
//! Which nodes vote is what the voters themselves have chosen last. The section's policy holds the wish; a voter in force that sees another wish proposes it. A node whose vault is
//! new is another voter, so that a lost disk mends itself: the wish names the node, the node's record names its voter.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use mangrove_crdt::{
    id::{NodeId, Origin, SectionId, VoterId},
    path::Path,
    policy::Arbitration,
    quorum::{self, Ballot, Change, Configuration, Durations, Event, Outcome, Unsent, Voter},
    sabotage::{Sabotage, is},
    stamp::Under,
    standing::{Standing, VotersRecord},
    time::Instant,
};
use minicbor::{Decode, Encode};

use super::{Node, Now, agenda::Agenda, letters::Letter};
use crate::protocol::{Code, Refusal, VoterRow};

type Request = quorum::Request<Origin, VoterId, Path>;
type Reply = quorum::Reply<Origin, VoterId, Path>;

/// How many branches one attempt is for at most, and about how many bytes of paths.
const ATTEMPT_BRANCHES_MAX: usize = 1_000;
const ATTEMPT_BYTES_MAX: usize = 64 * 1024;

/// How often a voter looks whether others should vote.
const CHANGE_EVERY: Duration = Duration::from_secs(1);

/// For how many looks the first of the voters has for itself, then the first two, and so on: proposers that meet only hinder each other.
const CHANGE_TURN: u32 = 3;

/// After how many looks a proposer that has not got through begins anew.
const CHANGE_PATIENCE: u32 = 10;

/// How often it is repeated what was chosen: beyond that, voters that missed it learn it from owners.
const CHANGE_REPEATS: u32 = 3;

/// The longest wait between two attempts is the shortest one times two to this power.
const BACKOFF_MAX: u32 = 3;

/// What is in a letter.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Mail {
    /// Of an owner or a proposer to a voter.
    #[n(0)]
    Request {
        /// Of which section.
        #[n(0)]
        section: SectionId,
        /// To which voter, in case the node is another one now.
        #[n(1)]
        to: VoterId,
        /// What.
        #[n(2)]
        request: Request,
    },
    /// The voter's answer.
    #[n(1)]
    Reply {
        /// Of which section.
        #[n(0)]
        section: SectionId,
        /// What.
        #[n(1)]
        reply: Reply,
    },
}

/// A deadline of one section's quorum.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Step {
    /// One of its voter's here.
    Voter(quorum::Timer<Origin>),
    /// When the owner here is to renew.
    Renew,
    /// When the authority of something that is held here may end, or an attempt.
    End,
    /// When to see whether others should vote.
    Change,
}

/// This node as an owner.
#[derive(Debug)]
struct Owning {
    owner: quorum::Owner<Origin, VoterId, Path>,
    authority: Duration,
    /// What is granted but without authority at present.
    lapsed: BTreeSet<Path>,
    /// Why branches could not be had.
    failed: BTreeMap<Path, String>,
    /// How often in a row attempts have failed.
    failures: u32,
}

/// An attempt to have others vote.
#[derive(Debug, Default)]
struct Changing {
    change: Option<Change<Origin, VoterId>>,
    /// For how many looks it has been so, or has been wished for.
    looks: u32,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Quorums {
    /// The sections arbitrated so, and the times that they count in.
    sections: BTreeMap<SectionId, Durations>,
    voters: BTreeMap<SectionId, Voter<Origin, VoterId, Path>>,
    owners: BTreeMap<SectionId, Owning>,
    changes: BTreeMap<SectionId, Changing>,
    timers: Agenda<(SectionId, Step)>,
    /// Answers, and up to which version the vaults must be on the disk before they leave.
    unsaid: VecDeque<(u64, NodeId, Mail)>,
    /// Letters of this node to itself, and those that have just come.
    inbox: VecDeque<(NodeId, Mail)>,
    /// The greatest ballot counter of a change that was seen.
    ballot: u64,
}

impl Quorums {
    /// A letter came.
    pub fn receive(&mut self, from: NodeId, mail: Mail) {
        self.inbox.push_back((from, mail));
    }

    /// When something is to be done.
    pub fn due(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Whether a section is arbitrated by quorum.
    pub fn contains(&self, section: SectionId) -> bool {
        self.sections.contains_key(&section)
    }

    /// Whether any is.
    pub fn is_empty(&self) -> bool {
        self.sections.is_empty()
    }

    /// Whether this node may act for a branch that it was granted, by its clock.
    pub fn holds(&self, now: Instant, section: SectionId, branch: &Path) -> bool {
        let at = if is(Sabotage::TrustsLease) { 0 } else { now.0 };
        self.owners.get(&section).is_some_and(|owning| owning.owner.holds(branch, at).is_some())
    }
}

impl Node {
    // The sections.

    /// The policy has changed: which sections are arbitrated by quorum, and who should vote.
    pub(super) fn quorums_changed(&mut self, now: Now) {
        let of = |policy: &mangrove_crdt::policy::SectionPolicy| {
            let founding = policy.founding.as_ref().filter(|_| policy.arbitration == Arbitration::Quorum)?;
            Some((policy.id, founding.durations()?))
        };
        self.quorums.sections = self.replica.policies().filter_map(of).collect();
        let Quorums { sections, voters, owners, changes, timers, .. } = &mut self.quorums;
        // A section that lost its root to another may get it back. Its voter starts again then; its owner goes on, since it never makes a ballot twice.
        voters.retain(|section, _| sections.contains_key(section));
        changes.retain(|section, _| sections.contains_key(section));
        timers.retain(|(section, _)| sections.contains_key(section));
        let mut sends = Vec::new();
        for (section, owning) in owners.iter_mut().filter(|(section, _)| !sections.contains_key(section)) {
            let held: Vec<Path> = owning.owner.granted().map(|(branch, _)| branch.clone()).collect();
            sends.push((*section, owning.owner.release(held)));
            owning.lapsed.clear();
            owning.failed.clear();
        }
        sends.into_iter().for_each(|(section, sends)| self.post_all(section, sends));
        for section in self.quorums.sections.keys().copied().collect::<Vec<_>>() {
            let me = self.replica.vaults.voter();
            let founds =
                self.replica.policy(section).and_then(|policy| policy.founding.as_ref()).is_some_and(|first| first.voters.contains(&me));
            if founds || self.replica.vaults.get(section).is_some() {
                self.vote(now, section);
            }
        }
    }

    /// This node's disk is older than what others have heard of it: whoever has voted here does no more.
    pub(super) fn renounce_vaults(&mut self, now: Now) {
        let own = self.replica.own();
        if self.replica.vaults.voter() == VoterId::made_by(own) || !self.mesh.was_set_back(&self.replica) {
            return;
        }
        tracing::warn!(
            "this node's disk is older than what others have heard of it; in quorum sections it votes anew, once the others have agreed to that"
        );
        self.replica.vaults.renounce(own);
        self.quorums.voters.clear();
        self.quorums.unsaid.clear();
        self.quorums.timers.retain(|(_, step)| !matches!(step, Step::Voter(_)));
        self.announce(now);
        self.quorums_changed(now);
    }

    /// Has this node's voter of a section, if it is one that is voted on.
    fn vote(&mut self, now: Now, section: SectionId) {
        let Some(durations) = self.quorums.sections.get(&section) else { return };
        if self.quorums.voters.contains_key(&section) {
            return;
        }
        let (me, run) = (self.replica.vaults.voter(), u64::from(self.replica.own().incarnation.boot));
        let voter = match self.replica.vaults.get(section) {
            Some(vault) => {
                let due = now.at.after(Duration::from_micros(durations.quarantine_us));
                self.quorums.timers.set((section, Step::Voter(quorum::Timer::Quarantine)), due);
                let restarted = if is(Sabotage::NoQuarantine) { Voter::founded } else { Voter::restarted };
                restarted(me, run, vault.clone())
            }
            None => Voter::founded(me, run, quorum::Vault::default()),
        };
        self.quorums.voters.insert(section, voter);
        self.quorums.timers.add((section, Step::Change), now.at.after(CHANGE_EVERY));
        let founding = self.replica.policy(section).and_then(|policy| policy.founding.as_ref());
        if let Some(founding) = founding.filter(|founding| founding.voters.contains(&me)) {
            let start = Request::Start { configuration: founding.configuration(), highest: 0 };
            self.ask_voter(now, self.id(), section, start);
        }
    }

    // The post.

    fn post(&mut self, to: NodeId, mail: Mail) {
        let own = self.id();
        if to == own {
            self.quorums.inbox.push_back((own, mail));
        } else {
            self.write_to(to, &Letter::Quorum(mail));
        }
    }

    fn post_all(&mut self, section: SectionId, sends: Vec<Unsent<Origin, VoterId, Path>>) {
        for Unsent { to, request } in sends {
            // Of a voter whose node is not known, or is another one now, nothing is heard.
            if let Some(node) = self.node_of(&to) {
                self.post(node, Mail::Request { section, to, request });
            }
        }
    }

    fn node_of(&self, voter: &VoterId) -> Option<NodeId> {
        if *voter == self.replica.vaults.voter() {
            return Some(self.id());
        }
        self.replica.nodes().iter().find(|(_, record)| record.voter.as_ref() == Some(voter)).map(|(node, _)| *node)
    }

    /// The voter that a node is at present, as far as is known.
    pub(super) fn voter_of(&self, node: &NodeId) -> Option<VoterId> {
        match *node == self.id() {
            true => Some(self.replica.vaults.voter()),
            false => self.replica.nodes().get(node)?.voter,
        }
    }

    /// A voter's node, for people.
    fn voter_name(&self, voter: &VoterId) -> String {
        self.node_of(voter).map_or_else(|| format!("voter {}", voter.short()), |node| self.name_of(node))
    }

    /// After every input: reads what has come, and says what may be said by now.
    pub(super) fn settle_quorums(&mut self, now: Now) {
        loop {
            while let Some((from, mail)) = self.quorums.inbox.pop_front() {
                match mail {
                    Mail::Request { section, to, request } if to == self.replica.vaults.voter() => {
                        self.ask_voter(now, from, section, request)
                    }
                    Mail::Request { .. } => {}
                    Mail::Reply { section, reply } => self.answered(now, section, reply),
                }
            }
            let vaults = &self.replica.vaults;
            let sayable = self.quorums.unsaid.front().is_some_and(|(version, ..)| vaults.is_durable(*version));
            if !sayable {
                return;
            }
            if let Some((_, to, mail)) = self.quorums.unsaid.pop_front() {
                self.post(to, mail);
            }
        }
    }

    // The voter.

    fn ask_voter(&mut self, now: Now, from: NodeId, section: SectionId, request: Request) {
        self.vote(now, section);
        let Some(durations) = self.quorums.sections.get(&section) else { return };
        let Some(voter) = self.quorums.voters.get_mut(&section) else { return };
        let effects = voter.handle(request);
        if effects.persist {
            self.replica.vaults.put(section, voter.vault());
            self.sync_wanted = true;
        }
        let due = now.at.after(Duration::from_micros(durations.exclusion_us));
        for timer in effects.timers {
            self.quorums.timers.set((section, Step::Voter(timer)), due);
        }
        let version = self.replica.vaults.version();
        self.quorums.unsaid.extend(effects.replies.into_iter().map(|reply| (version, from, Mail::Reply { section, reply })));
    }

    // The owner.

    /// The configuration that was seen last, from the founding on.
    fn configuration(&self, section: SectionId) -> Option<Configuration<VoterId>> {
        let founding = self.replica.policy(section)?.founding.as_ref()?.configuration();
        let told = self.replica.standing::<VotersRecord>(SectionId::MESH, Standing::Voters(section));
        let vault = self.replica.vaults.get(section).map(|vault| vault.configuration.clone());
        [Some(founding), told, vault].into_iter().flatten().max_by_key(|configuration| configuration.number)
    }

    /// Tries to get branches that have settled. What is held of them already is had anew, under another epoch.
    pub(super) fn bid(&mut self, now: Now, section: SectionId, mut branches: Vec<Path>) {
        let Some(durations) = self.quorums.sections.get(&section).copied() else { return };
        let Some(configuration) = self.configuration(section) else { return };
        let own = self.replica.own();
        let owning = self.quorums.owners.entry(section).or_insert_with(|| Owning {
            owner: quorum::Owner::new(own, configuration.clone()),
            authority: Duration::from_micros(durations.authority_us),
            lapsed: BTreeSet::new(),
            failed: BTreeMap::new(),
            failures: 0,
        });
        let mut outcome = owning.owner.learn(configuration);
        let held: Vec<Path> = branches.iter().filter(|branch| owning.owner.authority(branch).is_some()).cloned().collect();
        outcome.sends.extend(owning.owner.release(held));
        let until = now.at.after(owning.authority / 2);
        while !branches.is_empty() {
            let mut bytes = 0;
            let mut fits = |branch: &Path| {
                bytes += branch.as_str().len();
                bytes <= ATTEMPT_BYTES_MAX
            };
            let some = branches.iter().take_while(|branch| fits(branch)).count().clamp(1, ATTEMPT_BRANCHES_MAX);
            outcome.sends.extend(owning.owner.attempt(branches.drain(..some.min(branches.len())), until.0));
        }
        self.quorums.timers.add((section, Step::Renew), now.at.after(owning.authority / 3));
        self.quorums.timers.add((section, Step::End), until);
        self.follow(now, section, outcome);
    }

    /// Gives a branch up at once, whatever became of it.
    pub(super) fn give_up(&mut self, now: Now, section: SectionId, branch: &Path) {
        let Some(owning) = self.quorums.owners.get_mut(&section) else { return };
        owning.lapsed.remove(branch);
        owning.failed.remove(branch);
        let sends = owning.owner.release([branch.clone()]);
        if !sends.is_empty() {
            let due = now.at.after(owning.authority / 3);
            self.quorums.timers.add((section, Step::Renew), due);
            self.post_all(section, sends);
        }
    }

    fn answered(&mut self, now: Now, section: SectionId, reply: Reply) {
        if let Some(sends) =
            self.quorums.changes.get_mut(&section).and_then(|changing| changing.change.as_mut()).map(|change| change.handle(&reply))
        {
            self.post_all(section, sends);
        }
        let Some(owning) = self.quorums.owners.get_mut(&section) else { return };
        let outcome = owning.owner.handle(now.at.0, reply);
        self.follow(now, section, outcome);
        self.regained(now, section);
    }

    /// What had lapsed may have its authority again.
    fn regained(&mut self, now: Now, section: SectionId) {
        let Some(owning) = self.quorums.owners.get_mut(&section) else { return };
        let Owning { owner, lapsed, .. } = owning;
        let back: Vec<Path> = lapsed.extract_if(.., |branch| owner.holds(branch, now.at.0).is_some()).collect();
        if !back.is_empty() {
            self.quorums.timers.set((section, Step::End), now.at);
        }
        for branch in back {
            self.judge(now, section, &branch);
        }
    }

    fn follow(&mut self, now: Now, section: SectionId, outcome: Outcome<Origin, VoterId, Path>) {
        let Outcome { sends, events } = outcome;
        self.post_all(section, sends);
        let mut granted = false;
        for event in events {
            match event {
                Event::Granted { branch, epoch } => {
                    granted = true;
                    if let Some(owning) = self.quorums.owners.get_mut(&section) {
                        owning.failures = 0;
                        owning.failed.remove(&branch);
                    }
                    if !self.take_grant(now, section, &branch, epoch) {
                        self.give_up(now, section, &branch);
                    }
                }
                Event::Failed { branch, holders, silent } => self.failed(now, section, branch, &holders, &silent),
                Event::Lost { branch, .. } => {
                    if let Some(owning) = self.quorums.owners.get_mut(&section) {
                        owning.lapsed.remove(&branch);
                    }
                    self.lose_grant(section, &branch);
                    self.judge(now, section, &branch);
                }
                Event::Moved(configuration) => self.note_voters(now, section, &configuration),
                Event::Unfinished { from, voters } => self.propose_voters(section, from, voters),
            }
        }
        if granted {
            // The attempt's authority is short; a renewal gives all of it.
            self.quorums.timers.set((section, Step::Renew), now.at);
        }
    }

    fn failed(&mut self, now: Now, section: SectionId, branch: Path, holders: &BTreeSet<Origin>, silent: &BTreeSet<VoterId>) {
        let why = if !holders.is_empty() {
            let holders: BTreeSet<String> = holders.iter().map(|holder| self.name_of(holder.node)).collect();
            format!("the voters hold it yet for {}", listed(holders))
        } else if !silent.is_empty() {
            missing(self.names_of(silent.iter()))
        } else {
            "the voters were asked by others as well; it is tried again".into()
        };
        let Some(owning) = self.quorums.owners.get_mut(&section) else { return };
        owning.failures += 1;
        owning.failed.insert(branch.clone(), why);
        // Whoever waits for a lease to end asks at the same pace, unless it is for very many. Of several that want one, each waits for a time of its own.
        let only_waits = !holders.is_empty() && owning.failed.len() <= ATTEMPT_BRANCHES_MAX;
        let wait = self.config.settle * if only_waits { 1 } else { 1 << owning.failures.min(BACKOFF_MAX) };
        let mut dice = blake3::Hasher::new();
        dice.update(&self.replica.own().to_bytes()).update(branch.as_str().as_bytes()).update(&owning.failures.to_be_bytes());
        let part = u32::from(dice.finalize().as_bytes()[0]);
        self.decide_later(section, &branch, now.at.after(wait / 2 + wait * part / 512));
        self.judge(now, section, &branch);
    }

    // Time.

    /// Does what is due.
    pub(super) fn quorums_due(&mut self, now: Now) {
        self.renounce_vaults(now);
        for (section, step) in self.quorums.timers.take_due(now.at) {
            match step {
                Step::Voter(timer) => self.voter_due(section, timer),
                Step::Renew => self.renew(now, section),
                Step::End => self.end(now, section),
                Step::Change => self.look_at_voters(now, section),
            }
        }
    }

    fn voter_due(&mut self, section: SectionId, timer: quorum::Timer<Origin>) {
        let Some(voter) = self.quorums.voters.get_mut(&section) else { return };
        match timer {
            quorum::Timer::Lapse(owner) => voter.lapse(&owner),
            quorum::Timer::Pause => voter.pause_over(),
            quorum::Timer::Quarantine => voter.quarantine_over(),
        }
    }

    fn renew(&mut self, now: Now, section: SectionId) {
        let Some(owning) = self.quorums.owners.get_mut(&section) else { return };
        let late = if is(Sabotage::CountsFromAnswer) { owning.authority } else { Duration::ZERO };
        let sends = owning.owner.renew(now.at.0, now.at.after(owning.authority + late).0);
        if !sends.is_empty() {
            let due = now.at.after(owning.authority / 3);
            self.quorums.timers.add((section, Step::Renew), due);
        }
        self.post_all(section, sends);
    }

    /// Authority may have ended.
    fn end(&mut self, now: Now, section: SectionId) {
        let Some(owning) = self.quorums.owners.get_mut(&section) else { return };
        let outcome = owning.owner.expire(now.at.0);
        let Owning { owner, lapsed, .. } = owning;
        let (mut next, mut ended) = (None::<u64>, Vec::new());
        for (branch, _) in owner.granted() {
            match owner.authority(branch) {
                Some(until) if until > now.at.0 => next = Some(next.map_or(until, |next| next.min(until))),
                _ => ended.push(branch.clone()),
            }
        }
        ended.retain(|branch| lapsed.insert(branch.clone()));
        let bids = owner.attempts().next().map(|_| now.at.after(owning.authority / 4).0);
        // What has lapsed may be lost for good later, or be had again.
        let lapsed = (!owning.lapsed.is_empty()).then(|| now.at.after(owning.authority / 3).0);
        if let Some(next) = [next, bids, lapsed].into_iter().flatten().min() {
            self.quorums.timers.add((section, Step::End), Instant(next));
        }
        self.follow(now, section, outcome);
        for branch in ended {
            self.judge(now, section, &branch);
        }
    }

    // Who votes.

    /// Those who should vote, as far as their nodes are known.
    fn wished_voters(&self, section: SectionId) -> BTreeSet<VoterId> {
        let wished = self.replica.policy(section).into_iter().flat_map(|policy| &policy.voters);
        wished.filter(|node| **node == self.id() || !self.revoked.contains(node)).filter_map(|node| self.voter_of(node)).collect()
    }

    fn propose_voters(&mut self, section: SectionId, from: Configuration<VoterId>, wish: BTreeSet<VoterId>) {
        let own = self.replica.own();
        let changing = self.quorums.changes.entry(section).or_default();
        if changing.change.is_some() {
            return;
        }
        self.quorums.ballot += 1;
        let Some(change) = Change::new(from, wish, Ballot { counter: self.quorums.ballot, owner: own }) else { return };
        let sends = change.repeat();
        *changing = Changing { change: Some(change), looks: 0 };
        self.post_all(section, sends);
    }

    /// Looks whether others should vote, and goes on with a change that has begun.
    fn look_at_voters(&mut self, now: Now, section: SectionId) {
        let Some(voter) = self.quorums.voters.get(&section) else { return };
        self.quorums.timers.add((section, Step::Change), now.at.after(CHANGE_EVERY));
        let (me, vault) = (*voter.id(), voter.vault().clone());
        let wish = self.wished_voters(section);
        let changing = self.quorums.changes.entry(section).or_default();
        changing.looks += 1;
        if let Some(change) = &changing.change {
            let chosen = change.chosen().cloned();
            let over = change.overruled_by().map(|by| by.counter);
            self.quorums.ballot = self.quorums.ballot.max(over.unwrap_or(0));
            let sends: Vec<Unsent<Origin, VoterId, Path>> = change.repeat();
            let end = if chosen.is_some() { CHANGE_REPEATS } else { CHANGE_PATIENCE };
            if over.is_some() || changing.looks > end {
                *changing = Changing::default();
            }
            self.post_all(section, sends);
            if let Some(configuration) = chosen {
                self.note_voters(now, section, &configuration);
            }
            return;
        }
        let Configuration { number, voters } = vault.configuration;
        let unfinished = vault.accepted.filter(|accepted| accepted.after == number).map(|accepted| accepted.voters);
        let wish = unfinished.unwrap_or(wish);
        let place = voters.iter().position(|voter| *voter == me);
        if wish.is_empty() || wish == voters {
            self.quorums.changes.remove(&section);
        } else if place.is_some_and(|place| changing.looks > CHANGE_TURN * place as u32) {
            self.propose_voters(section, Configuration { number, voters }, wish);
        }
    }

    /// Tells the mesh of a configuration that was chosen.
    fn note_voters(&mut self, now: Now, section: SectionId, configuration: &Configuration<VoterId>) {
        let standing = Standing::Voters(section);
        let known = self.replica.standing::<VotersRecord>(SectionId::MESH, standing).map_or(1, |known| known.number);
        if configuration.number > known {
            tracing::info!(%section, number = configuration.number, "other nodes vote from now on");
            let under = Under { epoch: configuration.number, rank: None };
            let record = minicbor::to_vec(configuration).expect("encoding to memory");
            self.replica.put_standing_in(SectionId::MESH, standing, under, now.unix_ms, Some(record));
        }
    }

    // Views.

    /// Why this node may not act for a branch that one of its sessions was granted, or cannot get it.
    pub(super) fn without_majority(&self, section: SectionId, branch: &Path) -> Option<String> {
        let owning = self.quorums.owners.get(&section)?;
        if owning.owner.authority(branch).is_none() {
            return owning.failed.get(branch).cloned();
        }
        Some(missing(self.silent_voters(section)))
    }

    fn silent_voters(&self, section: SectionId) -> BTreeSet<String> {
        self.names_of(self.quorums.owners.get(&section).into_iter().flat_map(|owning| owning.owner.silent()))
    }

    fn names_of<'a>(&self, voters: impl Iterator<Item = &'a VoterId>) -> BTreeSet<String> {
        voters.map(|voter| self.voter_name(voter)).collect()
    }

    /// The refusal of a write under a lease that has run out.
    pub(super) fn no_majority(&self, section: SectionId, path: &Path) -> Refusal {
        let missing = self.silent_voters(section);
        Refusal::new(Code::NoMajority, path.as_str(), "the lease has run out: no majority of the voters answers")
            .who(missing)
            .hint("it goes on by itself once a majority answers again")
    }

    /// The voters of a section, as this node sees them.
    pub(super) fn voter_rows(&self, now: Instant, section: SectionId, branch: Option<&Path>) -> Vec<VoterRow> {
        let Some(configuration) = self.configuration(section).filter(|_| self.quorums.contains(section)) else { return Vec::new() };
        let owning = self.quorums.owners.get(&section);
        let configuration = owning.map_or(configuration, |owning| owning.owner.configuration().clone());
        let row = |voter: &VoterId| {
            let node = self.node_of(voter);
            let own = node == Some(self.id());
            VoterRow {
                node: self.voter_name(voter),
                heard: own || node.is_some_and(|node| self.is_heard(now, &node)),
                holds: branch.and_then(|branch| owning.and_then(|owning| owning.owner.is_held_by(branch, voter))),
            }
        };
        configuration.voters.iter().map(row).collect()
    }

    /// For how long a holder of this node may act yet.
    pub(super) fn authority_left(&self, now: Instant, section: SectionId, branch: &Path) -> Duration {
        let until = self.quorums.owners.get(&section).and_then(|owning| owning.owner.authority(branch));
        Instant(until.unwrap_or(0)).since(now)
    }
}

fn missing(voters: BTreeSet<String>) -> String {
    format!("no majority of the voters answers; missing: {}", listed(voters))
}

fn listed(names: BTreeSet<String>) -> String {
    names.into_iter().collect::<Vec<_>>().join(", ")
}
