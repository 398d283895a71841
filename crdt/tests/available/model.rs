//! A world for nodes that arbitrate by what they know.
//!
//! # Time
//!
//! There is none, only an order. A branch that settles is granted at any time from then on. While two are apart, either may find the other silent for longer than the lease at any time, and then for longer than sessions keep
//! their place, or never; so clocks may drift and stop as they like. A session that has lost its connection may be away for too long to hold what it has, or to keep its place, or take its session up again, at any time.
//!
//! # Network
//!
//! What a node knows is its newest record for each key: claims, which only their home writes, grants, and the highest epoch, which comes with greetings and values. Nodes that are not apart give each other what the other
//! lacks, record by record, in any order, at any time; a record that never comes is a run that stops there. What is overtaken by a newer record of its key is never seen.
//!
//! Two things are assumed. A grant does not come before the claim that it is of: both are its home's writes, and the claim was first. Where a grant could come alone for ever, two nodes would take a branch from each other without
//! end ([`Wrong::Overtaken`]). And nodes that meet again hear so soon: one that takes another for silent yet decides once at most.
//!
//! # Registrations
//!
//! The clock by which claims are registered ticks with every write of the section, also with those that are not modelled. So a new claim may be registered at any place after those that its home knows of, before or after
//! all others. Only their order is kept.
//!
//! # Values
//!
//! None. Whatever a source may write it is taken to have written: its stamps are its grant's. What is written plainly is judged wherever it could be, and is a step of its own only where it raises the highest epoch.
//!
//! # Bounds
//!
//! What sessions do is bounded, and the number of splits; grants, releases and epochs are not. That an instance is explored to the end shows that they end: in each run everything comes to rest unless something else happens.
//! Nodes do not crash here, and disks take everything at once. Sessions do not move.

use std::{
    collections::{BTreeSet, HashMap},
    hash::{Hash, Hasher},
    sync::{Arc, Mutex},
};

use mangrove_crdt::sabotage::Sabotage;
use stateright::{Model, Property};

use crate::{
    home::{At, Given, Node, Silence, Source, Told, Verdict},
    properties,
};

/// Room for this many of each; how many there are is said by the bounds.
pub const NODES: usize = 3;
pub const SESSIONS: usize = 2;
pub const BRANCHES: usize = 3;

/// How much there is, and how much may happen in a run.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub nodes: usize,
    pub branches: &'static [&'static str],
    /// The node of each session.
    pub homes: [u8; SESSIONS],
    pub priorities: [i32; SESSIONS],
    /// The branches that each session may claim: a bit each.
    pub wants: [u8; SESSIONS],
    /// How often each claims one.
    pub claims: [u8; SESSIONS],
    /// How often each closes one.
    pub closes: [u8; SESSIONS],
    /// How often each loses its connection.
    pub losses: [u8; SESSIONS],
    /// How often the mesh splits.
    pub splits: u8,
    /// Silence may last for longer than sessions keep their place.
    pub presumes: bool,
    /// The first session claims its first branch and is active before anything else, and all have heard so.
    pub held: bool,
    /// Whether winners have to be able to write all of their branches, too.
    pub writable: bool,
}

/// Which rule is broken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wrong {
    Nothing,
    Rule(Sabotage),
    /// A grant's epoch is the highest known, not one above it.
    AtHighest,
    /// The first in the queue is rightful, whoever holds the branch.
    Displaces,
    /// A release removes the grant, and leaves no epoch behind.
    NoOpenEpoch,
    /// A grant may come before the claim that it is of.
    Overtaken,
    /// A change is looked at where branches overlap it directly, not by way of others.
    Neighbours,
    /// When a home is heard again, only its own branches are looked at.
    HomeAlone,
    /// Claims that overlap others' are not judged.
    Unjudged,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct State {
    pub nodes: [Node; NODES],
    pub sources: [[Option<Source>; SESSIONS]; BRANCHES],
    pub connected: [bool; SESSIONS],
    pub ended: [bool; SESSIONS],
    /// The node that is cut off from the others.
    pub apart: Option<u8>,
    /// Nodes that have decided since the heal before they heard all others again: a bit each.
    pub hasty: u8,
    pub splits: u8,
    pub claims: [u8; SESSIONS],
    pub closes: [u8; SESSIONS],
    pub losses: [u8; SESSIONS],
    // What properties have to know of the past.
    /// The last epoch under which each source was told that it is active.
    pub last: [[u8; SESSIONS]; BRANCHES],
    /// The claims that have to be there at rest since the heal, by branch and session; nothing once another has come or gone by itself, or if one that has
    /// gone is remembered.
    pub survivors: Option<[[bool; SESSIONS]; BRANCHES]>,
    /// A step that must never be, in the bits of [`properties`].
    pub wrong: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Record {
    Claim(u8, u8),
    Grant(u8),
    /// The highest epoch, as a greeting or a value carries it.
    Epoch,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Action {
    /// A session claims a branch, and registers just before so many of those claims whose registration its home has not heard of.
    Claim(u8, u8, u8),
    Close(u8, u8),
    /// A session loses its connection.
    Lose(u8),
    /// For too long to hold what it has.
    GoAway(u8),
    /// For too long to keep its place.
    End(u8),
    Resume(u8),
    /// A branch has settled at a node.
    Decide(u8, u8),
    /// A record comes from a node to another.
    Deliver(u8, u8, Record),
    /// A node finds another silent for longer than before.
    Miss(u8, u8),
    /// A node hears another again.
    Hear(u8, u8),
    /// Somebody writes plainly to a branch's topic.
    Plain(u8, u8),
    CutOff(u8),
    Heal,
}

type Verdicts = HashMap<[u8; 4 * SESSIONS * BRANCHES + 2], Arc<Verdict>>;

pub struct Available {
    pub bounds: Bounds,
    pub wrong: Wrong,
    /// What has to happen in some run.
    pub reached: &'static [&'static str],
    pub verdicts: Mutex<Verdicts>,
}

impl Available {
    pub fn new(bounds: Bounds, wrong: Wrong, reached: &'static [&'static str]) -> Self {
        Available { bounds, wrong, reached, verdicts: Mutex::default() }
    }

    pub fn home(&self, of: usize) -> usize {
        self.bounds.homes[of].into()
    }

    pub fn nodes(&self) -> std::ops::Range<usize> {
        0..self.bounds.nodes
    }

    /// Whether a node lacks what another has.
    fn lacks(&self, to: &Node, from: &Node, record: Record) -> bool {
        match record {
            Record::Claim(branch, of) => {
                let wish = |node: &Node| node.wishes[usize::from(branch)][usize::from(of)].version;
                wish(from) > wish(to)
            }
            Record::Grant(branch) => {
                let given = from.grants[usize::from(branch)];
                // Both are its home's, and what one node wrote comes in order.
                let overtakes = given.holder.is_some_and(|of| self.lacks(to, from, Record::Claim(branch, of)));
                self.is_newer(given, to.grants[usize::from(branch)]) && (!overtakes || self.wrong == Wrong::Overtaken)
            }
            Record::Epoch => from.highest > to.highest,
        }
    }

    pub fn records(&self) -> impl Iterator<Item = Record> + '_ {
        let claims = self.branches().flat_map(|branch| (0..SESSIONS).map(move |of| Record::Claim(branch as u8, of as u8)));
        claims.chain(self.branches().map(|branch| Record::Grant(branch as u8))).chain([Record::Epoch])
    }

    /// What is yet to come from one node to another.
    pub fn deliveries<'a>(&'a self, state: &'a State) -> impl Iterator<Item = (usize, usize, Record)> + 'a {
        let pairs = self.nodes().flat_map(|from| self.nodes().map(move |to| (from, to)));
        let met = pairs.filter(|(from, to)| from != to && state.are_joined(*from, *to));
        met.flat_map(|(from, to)| self.records().map(move |record| (from, to, record)))
            .filter(|(from, to, record)| self.lacks(&state.nodes[*to], &state.nodes[*from], *record))
    }

    /// Where a registration may stand among those that there are: beyond all that its home has heard of, anywhere among the others.
    fn registrations(&self, state: &State, home: usize) -> u8 {
        let known = registrations(&state.nodes[home..=home]).max().unwrap_or(0);
        registrations(&state.nodes).filter(|at| *at > known).collect::<BTreeSet<u8>>().len() as u8
    }

    /// Whether somebody yet knows a claim that its home has removed: until the news comes it may be in another's way.
    fn remembers_removed(&self, state: &State) -> bool {
        let removed = |branch: usize, of: usize| state.nodes[self.home(of)].wishes[branch][of].claim.is_none();
        state.nodes.iter().any(|node| {
            self.branches().any(|branch| (0..SESSIONS).any(|of| node.wishes[branch][of].claim.is_some() && removed(branch, of)))
        })
    }

    /// The claims that stand once all know all that is known, and all live.
    fn survivors(&self, state: &State) -> [[bool; SESSIONS]; BRANCHES] {
        let mut joined = Node::default();
        for branch in self.branches() {
            for of in 0..SESSIONS {
                joined.wishes[branch][of] = state.nodes[self.home(of)].wishes[branch][of];
            }
        }
        let verdict = self.verdict(NODES, &joined);
        std::array::from_fn(|branch| std::array::from_fn(|of| joined.wishes[branch][of].claim.is_some() && verdict.stands[branch][of]))
    }
}

impl State {
    pub fn are_joined(&self, one: usize, other: usize) -> bool {
        self.apart.is_none_or(|apart| (one == usize::from(apart)) == (other == usize::from(apart)))
    }

    /// A source becomes active.
    pub fn note_active(&mut self, of: usize, branch: usize, epoch: u8) {
        if epoch <= self.last[branch][of] {
            self.wrong |= properties::TWICE;
        }
        self.last[branch][of] = epoch;
    }

    /// A grant is written.
    pub fn note_grant(&mut self, model: &Available, verdict: &Verdict, before: Given, given: Given, branch: usize) {
        if !model.is_newer(given, before) {
            self.wrong |= properties::STALE;
        }
        if let Some(holder) = verdict.holder[branch].map(usize::from).filter(|holder| Some(*holder as u8) != given.holder) {
            let active = self.sources[branch][holder].and_then(|source| source.active()) == Some(before.epoch);
            if active && verdict.holder_lives[branch] {
                self.wrong |= properties::DISPLACED;
            }
        }
    }

    /// Renumbers what is only compared.
    fn normalise(&mut self, model: &Available) {
        let nodes = &mut self.nodes[model.nodes()];
        let mut registered: Vec<u8> = registrations(nodes).collect();
        registered.sort_unstable();
        registered.dedup();
        for branch in model.branches() {
            for of in 0..SESSIONS {
                let mut versions: Vec<u8> = nodes.iter().map(|node| node.wishes[branch][of].version).collect();
                versions.sort_unstable();
                versions.dedup();
                for node in nodes.iter_mut() {
                    let wish = &mut node.wishes[branch][of];
                    if versions.len() == 1 && wish.claim.is_none() {
                        // What all have removed might as well never have been.
                        wish.version = 0;
                        continue;
                    }
                    let first = u8::from(versions[0] > 0);
                    wish.version = first + versions.partition_point(|version| *version < wish.version) as u8;
                    if let Some(claim) = &mut wish.claim {
                        claim.at = 2 * (1 + registered.partition_point(|at| *at < claim.at) as u8);
                    }
                }
            }
        }
    }
}

/// When all claims that anybody knows of were registered.
fn registrations(nodes: &[Node]) -> impl Iterator<Item = u8> + '_ {
    nodes.iter().flat_map(|node| node.wishes.iter().flatten()).filter_map(|wish| Some(wish.claim?.at))
}

impl Hash for State {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        // One large piece: a test build hashes piece by piece.
        let mut bytes = [0u8; 128];
        let mut at = 0;
        let mut push = |byte: u8| {
            bytes[at] = byte;
            at += 1;
        };
        for node in &self.nodes {
            for wish in node.wishes.iter().flatten() {
                push(wish.version << 5 | wish.claim.map_or(0, |claim| 2 * claim.at + u8::from(claim.away)));
            }
            node.grants.iter().for_each(|given| push(given.byte()));
            push(node.silences.iter().fold(0, |all, silence| all * 3 + *silence as u8));
            push(node.highest);
            push(node.decisions);
        }
        for source in self.sources.iter().flatten() {
            let told = source.map_or(0, |source| match source.told {
                Told::Init => 1,
                Told::Standby => 2,
                Told::Active(epoch) => 2 + epoch,
            });
            push(told);
            push(source.and_then(|source| source.granted).unwrap_or(0));
        }
        for of in 0..SESSIONS {
            push(u8::from(self.connected[of]) + 2 * u8::from(self.ended[of]));
            [self.claims, self.closes, self.losses].iter().for_each(|count| push(count[of]));
        }
        push(self.apart.map_or(0, |apart| apart + 1) << 4 | self.hasty);
        push(self.splits);
        self.last.iter().flatten().for_each(|epoch| push(*epoch));
        push(self.survivors.map_or(255, |all| all.iter().flatten().fold(0, |bits, one| bits * 2 + u8::from(*one))));
        push(self.wrong);
        hasher.write(&bytes[..at]);
    }
}

impl Model for Available {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let mut state = State {
            nodes: Default::default(),
            sources: Default::default(),
            connected: [true; SESSIONS],
            ended: [false; SESSIONS],
            apart: None,
            hasty: 0,
            splits: 0,
            claims: [0; SESSIONS],
            closes: [0; SESSIONS],
            losses: [0; SESSIONS],
            last: Default::default(),
            survivors: None,
            wrong: 0,
        };
        if self.bounds.held {
            let home = self.bounds.homes[0];
            let begin = [Action::Claim(0, 0, 0), Action::Decide(home, 0)];
            for action in begin {
                state = self.next_state(&state, action).expect("a step");
            }
            while let Some((from, to, record)) = { self.deliveries(&state).next() } {
                state = self.next_state(&state, Action::Deliver(from as u8, to as u8, record)).expect("a step");
            }
        }
        vec![state]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let bounds = &self.bounds;
        for of in (0..SESSIONS).filter(|of| !state.ended[*of]) {
            let (home, number) = (self.home(of), of as u8);
            if !state.connected[of] {
                actions.extend([Action::Resume(number), Action::GoAway(number), Action::End(number)]);
                continue;
            }
            if state.losses[of] < bounds.losses[of] {
                actions.push(Action::Lose(number));
            }
            // Of two branches that differ in names only the one claimed first is called the first.
            let alike = bounds.branches.len() == 3 && state.claims[of] == 0;
            let wanted = self.branches().filter(|branch| bounds.wants[of] & 1 << branch != 0).take(if alike { 1 } else { BRANCHES });
            for branch in wanted {
                if state.sources[branch][of].is_some() {
                    if state.closes[of] < bounds.closes[of] {
                        actions.push(Action::Close(number, branch as u8));
                    }
                } else if state.claims[of] < bounds.claims[of] && !self.verdict(home, &state.nodes[home]).overlaps[branch] {
                    actions.extend((0..=self.registrations(state, home)).map(|before| Action::Claim(number, branch as u8, before)));
                }
            }
        }
        for at in self.nodes() {
            let node = &state.nodes[at];
            let verdict = self.verdict(at, node);
            for branch in self.branches() {
                if node.decisions & 1 << branch != 0 && (state.hasty & 1 << at == 0 || !self.is_hasty(state, at)) {
                    actions.push(Action::Decide(at as u8, branch as u8));
                }
                if verdict.open[branch].is_some_and(|epoch| epoch > node.highest) {
                    actions.push(Action::Plain(at as u8, branch as u8));
                }
            }
            for other in self.nodes().filter(|other| *other != at) {
                let pair = (at as u8, other as u8);
                let joined = state.are_joined(at, other);
                let most = if bounds.presumes { Silence::TooLong } else { Silence::Long };
                if !joined && node.silences[other] != most && self.has_claims(node, other) {
                    actions.push(Action::Miss(pair.0, pair.1));
                }
                if joined && node.silences[other] != Silence::None {
                    actions.push(Action::Hear(pair.0, pair.1));
                }
            }
        }
        actions.extend(self.deliveries(state).map(|(from, to, record)| Action::Deliver(from as u8, to as u8, record)));
        match state.apart {
            Some(_) => actions.push(Action::Heal),
            // Of two nodes either may be called the one that is cut off.
            None if state.splits < bounds.splits => {
                let nodes = if bounds.nodes == 2 { 1 } else { bounds.nodes };
                actions.extend((0..nodes).map(|node| Action::CutOff(node as u8)));
            }
            None => {}
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Claim(of, branch, before) => {
                let (of, branch) = (usize::from(of), usize::from(branch));
                let home = self.home(of);
                let most = registrations(&state.nodes).max().unwrap_or(0);
                state.claims[of] += 1;
                state.survivors = None;
                let mut at = At::new(self, &mut state, home);
                at.claim(of, branch, most + 1 - 2 * before);
                at.publish();
            }
            Action::Close(of, branch) => {
                let of = usize::from(of);
                state.closes[of] += 1;
                state.survivors = None;
                let mut at = At::new(self, &mut state, self.home(of));
                at.close_source(of, branch.into());
                at.publish();
            }
            Action::Lose(of) => {
                let of = usize::from(of);
                state.losses[of] += 1;
                state.connected[of] = false;
                let mut at = At::new(self, &mut state, self.home(of));
                at.sources_lost(of, false);
                at.publish();
            }
            Action::GoAway(of) => {
                let mut at = At::new(self, &mut state, self.home(of.into()));
                at.sources_lost(of.into(), true);
                at.publish();
            }
            Action::End(of) => {
                let of = usize::from(of);
                state.ended[of] = true;
                state.survivors = None;
                let mut at = At::new(self, &mut state, self.home(of));
                for branch in self.branches() {
                    at.close_source(of, branch);
                }
                at.publish();
            }
            Action::Resume(of) => {
                let of = usize::from(of);
                state.connected[of] = true;
                let mut at = At::new(self, &mut state, self.home(of));
                at.sources_resumed(of);
                at.publish();
            }
            Action::Decide(node, branch) => {
                state.hasty |= u8::from(self.is_hasty(&state, node.into())) << node;
                let mut at = At::new(self, &mut state, node.into());
                at.decide(branch.into());
                at.publish();
            }
            Action::Deliver(from, to, record) => {
                let from = state.nodes[usize::from(from)];
                let mut at = At::new(self, &mut state, to.into());
                match record {
                    Record::Claim(branch, of) => {
                        let (branch, of) = (usize::from(branch), usize::from(of));
                        at.take_wish(of, branch, from.wishes[branch][of]);
                    }
                    Record::Grant(branch) => at.put_grant(branch.into(), from.grants[usize::from(branch)]),
                    Record::Epoch => at.take_epoch(from.highest),
                }
                at.publish();
            }
            Action::Miss(node, other) => {
                let silence = &mut state.nodes[usize::from(node)].silences[usize::from(other)];
                *silence = if *silence == Silence::None { Silence::Long } else { Silence::TooLong };
                let mut at = At::new(self, &mut state, node.into());
                at.judge_home(other.into());
                at.publish();
            }
            Action::Hear(node, other) => {
                state.nodes[usize::from(node)].silences[usize::from(other)] = Silence::None;
                let mut at = At::new(self, &mut state, node.into());
                at.judge_home(other.into());
                at.publish();
            }
            Action::Plain(node, branch) => {
                let at = usize::from(node);
                let epoch = self.verdict(at, &state.nodes[at]).open[usize::from(branch)]?;
                state.nodes[at].highest = state.nodes[at].highest.max(epoch);
            }
            Action::CutOff(node) => {
                (state.apart, state.hasty) = (Some(node), 0);
                state.splits += 1;
                state.survivors = None;
            }
            Action::Heal => {
                state.apart = None;
                state.survivors = (!self.remembers_removed(&state)).then(|| self.survivors(&state));
            }
        }
        state.normalise(self);
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::all(self)
    }
}

impl Available {
    /// Whether a node that is joined with another takes that for silent yet.
    fn is_hasty(&self, state: &State, at: usize) -> bool {
        self.nodes().any(|other| state.nodes[at].silences[other] != Silence::None && state.are_joined(at, other))
    }

    fn has_claims(&self, node: &Node, home: usize) -> bool {
        let claims = node.wishes.iter().flat_map(|wishes| wishes.iter().enumerate());
        claims.into_iter().any(|(of, wish)| self.home(of) == home && wish.claim.is_some())
    }
}
