//! What a node does with what it knows: the rules of the production node, around the very judgements of production.
//!
//! [`Verdict`] is what `mangrove_crdt::arbitration` says of one node's knowledge. The functions below it bear the names of those that they repeat.

use std::sync::Arc;

use mangrove_crdt::{
    arbitration::{Claim, Contest, Grant, Life},
    id::{NodeId, SessionId},
    path::Path,
    sabotage::Sabotage,
    stamp::{Rank, Stamp},
    standing::ClaimRecord,
};

use crate::model::{Available, BRANCHES, NODES, SESSIONS, State, Wrong};

/// What is said of one session's claim on one branch, as some node has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Wish {
    /// Only its home writes it, so its versions are in order; 0 has never been heard of.
    pub version: u8,
    /// What it says; `None` once it was removed.
    pub claim: Option<Registered>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Registered {
    /// Its place in the order of registration.
    pub at: u8,
    pub away: bool,
}

/// A branch's grant, or its release; epoch 0 has never been heard of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Given {
    pub epoch: u8,
    pub holder: Option<u8>,
}

/// What a node makes of another's silence.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Silence {
    #[default]
    None,
    /// Longer than the lease.
    Long,
    /// Longer than sessions keep their place.
    TooLong,
}

/// What a session was told of a source last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Told {
    Init,
    Active(u8),
    Standby,
}

/// A source of a session, at its home.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Source {
    pub told: Told,
    /// The epoch under which it writes, once granted.
    pub granted: Option<u8>,
}

impl Source {
    /// Under which epoch it may write.
    pub fn active(&self) -> Option<u8> {
        self.granted.filter(|epoch| self.told == Told::Active(*epoch))
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Node {
    pub wishes: [[Wish; SESSIONS]; BRANCHES],
    pub grants: [Given; BRANCHES],
    pub silences: [Silence; NODES],
    /// The highest epoch that it has heard of.
    pub highest: u8,
    /// Branches that settle, to be granted: a bit each.
    pub decisions: u8,
}

impl Node {
    /// All that a verdict depends on.
    pub fn knowledge(&self) -> [u8; 4 * SESSIONS * BRANCHES + 2] {
        let mut bytes = [0; 4 * SESSIONS * BRANCHES + 2];
        let (wishes, grants) = bytes.split_at_mut(SESSIONS * BRANCHES);
        for (byte, wish) in wishes.iter_mut().zip(self.wishes.iter().flatten()) {
            *byte = wish.claim.map_or(0, |claim| 2 * claim.at + u8::from(claim.away));
        }
        for (byte, given) in grants.iter_mut().zip(&self.grants) {
            *byte = given.byte();
        }
        let silences = self.silences.iter().fold(0, |all, silence| all * 3 + *silence as u8);
        bytes[4 * SESSIONS * BRANCHES] = silences;
        bytes
    }
}

impl Given {
    pub fn byte(self) -> u8 {
        self.epoch * 4 + self.holder.map_or(0, |holder| holder + 1)
    }
}

/// What is to be said of one node's knowledge, branch by branch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Verdict {
    pub rightful: [Option<u8>; BRANCHES],
    /// By session; `true` where there is no claim.
    pub stands: [[bool; SESSIONS]; BRANCHES],
    /// Whether a claim on it would overlap others.
    pub overlaps: [bool; BRANCHES],
    /// Under which epoch its topics are written plainly, unless they are claimed.
    pub open: [Option<u8>; BRANCHES],
    /// What else is to be judged when its records change: a bit each.
    pub concerned: [u8; BRANCHES],
    /// Who holds it, if that claim stands.
    pub holder: [Option<u8>; BRANCHES],
    /// Whether the holder counts as living.
    pub holder_lives: [bool; BRANCHES],
}

pub fn session(number: u8) -> SessionId {
    SessionId([number; 16])
}

fn node(number: u8) -> NodeId {
    NodeId([number; 32])
}

impl Available {
    pub fn branch(&self, branch: usize) -> Path {
        Path::parse(self.bounds.branches[branch]).expect("a path")
    }

    pub fn branches(&self) -> std::ops::Range<usize> {
        0..self.bounds.branches.len()
    }

    fn number(&self, branch: &Path) -> usize {
        self.bounds.branches.iter().position(|name| *name == branch.as_str()).expect("a branch of this world")
    }

    fn rank(&self, of: u8) -> Rank {
        Rank { priority: self.bounds.priorities[usize::from(of)], session: session(of) }
    }

    /// What orders grants and releases of a branch, and the writes under them.
    pub fn stamp(&self, given: Given) -> Stamp {
        Stamp { epoch: given.epoch.into(), rank: given.holder.map(|of| Arc::new(self.rank(of))), seq: 0 }
    }

    pub fn is_newer(&self, one: Given, other: Given) -> bool {
        one != other && self.stamp(one) > self.stamp(other)
    }

    /// One node's knowledge, as production has it.
    fn contest(&self, known: &Node) -> Contest {
        let mut contest = Contest::default();
        for at in self.branches() {
            let branch = self.branch(at);
            for of in 0..SESSIONS {
                let Some(claim) = known.wishes[at][of].claim else { continue };
                let record = ClaimRecord {
                    branch: branch.clone(),
                    home: node(self.bounds.homes[of]),
                    priority: self.bounds.priorities[of],
                    registered: claim.at.into(),
                    hold_ms: 0,
                    reconnect_timeout_ms: 0,
                    number: 1,
                    away: claim.away,
                };
                contest.set_claim(&branch, session(of as u8), Some(record));
            }
            let given = known.grants[at];
            if given.epoch > 0 && (given.holder.is_some() || self.wrong != Wrong::NoOpenEpoch) {
                let holder = given.holder.map(|of| (session(of), node(self.bounds.homes[usize::from(of)])));
                let rank = given.holder.map(|of| self.rank(of));
                contest.set_grant(&branch, Some(Grant { epoch: given.epoch.into(), rank, holder }));
            }
        }
        contest
    }

    pub fn verdict(&self, own: usize, known: &Node) -> Arc<Verdict> {
        let mut key = known.knowledge();
        *key.last_mut().expect("a byte") = own as u8;
        let mut verdicts = self.verdicts.lock().expect("nobody panics with the verdicts");
        verdicts.entry(key).or_insert_with(|| Arc::new(self.judged(own, known))).clone()
    }

    fn judged(&self, own: usize, known: &Node) -> Verdict {
        let contest = self.contest(known);
        let own = node(own as u8);
        let life = |claim: &Claim| {
            let silence = if claim.record.home == own { Silence::None } else { known.silences[usize::from(claim.record.home.0[0])] };
            match silence {
                Silence::TooLong => Life::Presumed,
                Silence::Long => Life::Away,
                Silence::None if claim.record.away => Life::Away,
                Silence::None => Life::Present,
            }
        };
        let mut verdict = Verdict {
            rightful: [None; BRANCHES],
            stands: [[true; SESSIONS]; BRANCHES],
            overlaps: [false; BRANCHES],
            open: [None; BRANCHES],
            concerned: [0; BRANCHES],
            holder: [None; BRANCHES],
            holder_lives: [false; BRANCHES],
        };
        for at in self.branches() {
            let path = self.branch(at);
            if let Some(branch) = contest.branch(&path) {
                let may = |claim: &&Claim| life(claim) == Life::Present;
                let rightful = if self.wrong == Wrong::Displaces { branch.claims().iter().find(may) } else { branch.rightful(life) };
                verdict.rightful[at] = rightful.map(|claim| claim.session.0[0]);
                verdict.holder[at] = branch.holder().map(|claim| claim.session.0[0]);
                verdict.holder_lives[at] = branch.holder().is_some_and(|claim| may(&claim));
            }
            for of in 0..SESSIONS {
                let claimed = known.wishes[at][of].claim.is_some();
                verdict.stands[at][of] = !claimed || contest.stands(&path, &session(of as u8), life).is_ok();
            }
            verdict.overlaps[at] = contest.overlap(&path, life).is_some();
            verdict.open[at] = contest.claimed_above(&path, life).is_none().then(|| contest.open_epoch(&path) as u8);
            let direct = || contest.overlapping(&path).map(|(other, _)| other.clone()).chain([path.clone()]).collect();
            let concerned = if self.wrong == Wrong::Neighbours { direct() } else { contest.concerned(&path, &own) };
            verdict.concerned[at] = concerned.iter().fold(0, |mask, other| mask | 1 << self.number(other));
        }
        verdict
    }
}

/// A step of one node: what it changes, and the records of its own making that have yet to come back to it as changes.
pub struct At<'a> {
    pub model: &'a Available,
    pub state: &'a mut State,
    pub own: usize,
    changed: Vec<usize>,
}

impl<'a> At<'a> {
    pub fn new(model: &'a Available, state: &'a mut State, own: usize) -> Self {
        At { model, state, own, changed: Vec::new() }
    }

    fn node(&mut self) -> &mut Node {
        &mut self.state.nodes[self.own]
    }

    fn verdict(&self) -> Arc<Verdict> {
        self.model.verdict(self.own, &self.state.nodes[self.own])
    }

    fn ours(&self, branch: usize) -> Vec<usize> {
        let wishes = self.state.nodes[self.own].wishes[branch];
        (0..SESSIONS).filter(|of| self.model.home(*of) == self.own && wishes[*of].claim.is_some()).collect()
    }

    /// Does what follows from records that have changed.
    pub fn publish(&mut self) {
        while !self.changed.is_empty() {
            for branch in std::mem::take(&mut self.changed) {
                self.claims_changed(branch);
            }
        }
    }

    fn claims_changed(&mut self, branch: usize) {
        let concerned = self.verdict().concerned[branch];
        self.judge_all(concerned);
    }

    pub fn judge_home(&mut self, home: usize) {
        let verdict = self.verdict();
        let wishes = self.state.nodes[self.own].wishes;
        let has = |branch: &usize| (0..SESSIONS).any(|of| self.model.home(of) == home && wishes[*branch][of].claim.is_some());
        let all = |branch: usize| if self.model.wrong == Wrong::HomeAlone { 1 << branch } else { verdict.concerned[branch] };
        let concerned = self.model.branches().filter(has).fold(0, |mask, branch| mask | all(branch));
        self.judge_all(concerned);
    }

    fn judge_all(&mut self, branches: u8) {
        self.model.branches().filter(|branch| branches & 1 << branch != 0).for_each(|branch| self.judge(branch));
    }

    fn judge(&mut self, branch: usize) {
        let verdict = self.verdict();
        let ours = self.ours(branch);
        let bit = 1 << branch;
        match verdict.rightful[branch].map(usize::from).filter(|of| self.model.home(*of) == self.own) {
            Some(of) if !self.is_granted(of, branch) => {
                if self.state.connected[of] {
                    self.node().decisions |= bit;
                }
            }
            _ => self.node().decisions &= !bit,
        }
        for of in ours {
            if verdict.stands[branch][of] || self.model.wrong == Wrong::Unjudged {
                self.tell_source(of, branch);
            } else {
                self.close_source(of, branch);
            }
        }
    }

    fn is_granted(&self, of: usize, branch: usize) -> bool {
        let Some(source) = self.state.sources[branch][of] else { return false };
        if self.model.wrong == Wrong::Rule(Sabotage::KeepsLost) {
            return source.granted.is_some();
        }
        let given = self.state.nodes[self.own].grants[branch];
        given.holder == Some(of as u8) && source.granted == Some(given.epoch)
    }

    fn tell_source(&mut self, of: usize, branch: usize) {
        let granted = self.is_granted(of, branch);
        let holder = self.verdict().holder[branch].filter(|holder| usize::from(*holder) != of);
        let epoch = self.state.nodes[self.own].grants[branch].epoch;
        let Some(source) = &mut self.state.sources[branch][of] else { return };
        if !granted {
            source.granted = None;
        }
        let told = match (granted, holder) {
            (true, _) => Told::Active(epoch),
            (false, None) if source.told == Told::Init => Told::Init,
            (false, _) => Told::Standby,
        };
        if source.told != told {
            source.told = told;
            if let Told::Active(epoch) = told {
                self.state.note_active(of, branch, epoch);
            }
        }
    }

    /// A branch has settled.
    pub fn decide(&mut self, branch: usize) {
        self.node().decisions &= !(1 << branch);
        let verdict = self.verdict();
        let rightful = verdict.rightful[branch].map(usize::from).filter(|of| self.model.home(*of) == self.own);
        let Some(of) = rightful.filter(|of| !self.is_granted(*of, branch)) else { return };
        let Some(source) = &mut self.state.sources[branch][of] else { return };
        let highest = self.state.nodes[self.own].highest;
        let epoch = if self.model.wrong == Wrong::AtHighest { highest.max(1) } else { highest + 1 };
        source.granted = Some(epoch);
        let before = self.state.nodes[self.own].grants[branch];
        let given = Given { epoch, holder: Some(of as u8) };
        self.state.note_grant(self.model, &verdict, before, given, branch);
        self.put_grant(branch, given);
    }

    pub fn claim(&mut self, of: usize, branch: usize, at: u8) {
        self.state.sources[branch][of] = Some(Source { told: Told::Init, granted: None });
        self.put_claim(of, branch, Some(Registered { at, away: false }));
    }

    pub fn close_source(&mut self, of: usize, branch: usize) {
        if self.state.sources[branch][of].take().is_some() {
            self.release(of, branch);
            self.put_claim(of, branch, None);
        }
    }

    /// A session has lost its connection; what it may hold it holds on to, unless that was for too long.
    pub fn sources_lost(&mut self, of: usize, held_too_long: bool) {
        for branch in self.model.branches() {
            if self.state.sources[branch][of].is_some_and(|source| held_too_long || source.granted.is_none()) {
                self.set_away(of, branch, true);
            }
        }
    }

    pub fn sources_resumed(&mut self, of: usize) {
        let away = |at: &Self, branch: usize| at.state.nodes[at.own].wishes[branch][of].claim.is_some_and(|claim| claim.away);
        for source in self.state.sources.iter_mut().filter_map(|sources| sources[of].as_mut()) {
            source.granted = None;
            if let Told::Active(_) = source.told {
                source.told = Told::Standby;
            }
        }
        for branch in self.model.branches() {
            if self.state.sources[branch][of].is_some() {
                if away(self, branch) {
                    self.set_away(of, branch, false);
                }
                self.judge(branch);
            }
        }
    }

    fn set_away(&mut self, of: usize, branch: usize, away: bool) {
        let Some(source) = &mut self.state.sources[branch][of] else { return };
        source.granted = source.granted.filter(|_| !away);
        let Some(claim) = self.state.nodes[self.own].wishes[branch][of].claim else { return };
        if away {
            self.release(of, branch);
        }
        self.put_claim(of, branch, Some(Registered { away, ..claim }));
    }

    fn put_claim(&mut self, of: usize, branch: usize, claim: Option<Registered>) {
        let wish = &mut self.node().wishes[branch][of];
        *wish = Wish { version: wish.version + 1, claim };
        self.changed.push(branch);
    }

    pub fn put_grant(&mut self, branch: usize, given: Given) {
        let model = self.model;
        let node = self.node();
        node.highest = node.highest.max(given.epoch);
        if model.is_newer(given, node.grants[branch]) {
            node.grants[branch] = given;
            self.changed.push(branch);
        }
    }

    fn release(&mut self, of: usize, branch: usize) {
        let given = self.state.nodes[self.own].grants[branch];
        if given.holder == Some(of as u8) {
            self.put_grant(branch, Given { epoch: given.epoch + 1, holder: None });
        }
    }

    /// A record that another node had.
    pub fn take_wish(&mut self, of: usize, branch: usize, wish: Wish) {
        self.node().wishes[branch][of] = wish;
        self.changed.push(branch);
    }

    pub fn take_epoch(&mut self, epoch: u8) {
        let node = self.node();
        node.highest = node.highest.max(epoch);
    }
}
