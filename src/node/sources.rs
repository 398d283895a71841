//! Update sources: who may write where, as far as this node has a say in it.
//!
//! Claims and grants come from the standing planes, this node's own and all others' ([`mangrove_crdt::arbitration`]). For each branch where the rightful
//! claim is of a session here, and which nobody holds, this node waits for the settle time, judges again, and writes the grant. It tells its
//! sessions what their sources are, and every write of a client passes [`Node::authority`].
//!
//! Whether another home lives is judged by its heartbeats. There is one timer for each home with claims, whatever the number of these: only when one
//! falls silent, or is heard again, its branches are gone through.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use mangrove_crdt::{
    arbitration::{Branch, Claim, Contest, Grant, Life},
    definition::Durability,
    id::{NodeId, SectionId, SessionId},
    path::Path,
    policy::Arbitration,
    replica::Written,
    sabotage::{Sabotage, is},
    stamp::Under,
    standing::{BranchHash, ClaimRecord, GrantRecord, Standing},
    time::Instant,
};

use super::{ConnectionId, Node, Now, acks::Needs};
use crate::protocol::{self, Authority, Closed, Code, FromNode, Page, Refusal, Response, SourceDetail, SourceRow, SourceState};

/// How many sources one session may have.
pub const SOURCES_MAX: usize = 200_000;

/// A source of a session here.
#[derive(Debug)]
pub struct Source {
    /// The branch's section.
    section: SectionId,
    /// The branch.
    pub branch: Path,
    /// What its session has heard of it last.
    pub told: SourceState,
    /// What is not on the disk yet: of that nothing is told.
    pending: Option<Written>,
    /// The epoch and rank under which it writes, once granted.
    granted: Option<Under>,
    hold: Duration,
    /// Whether its session has been lost for longer than that, or had no branch to hold when it was lost.
    away: bool,
}

impl Source {
    /// For how long it keeps its branch while its session is lost, if it has one to keep.
    pub fn held_for(&self) -> Option<Duration> {
        (!self.away).then_some(self.hold)
    }
}

/// A section's claims, and the paths behind the hashes in their keys.
#[derive(Debug, Default)]
struct Field {
    contest: Contest,
    names: BTreeMap<BranchHash, Path>,
}

/// A home elsewhere that has claims, and its silence.
#[derive(Debug)]
struct Home {
    due: Instant,
    /// When it was heard of last, when that was looked at last.
    heard: Instant,
    /// At which silence its branches are to be gone through next.
    next: Duration,
}

/// Things to be done, each once, at its time.
#[derive(Debug)]
struct Agenda<K> {
    due: BTreeMap<K, Instant>,
    order: BTreeSet<(Instant, K)>,
}

impl<K> Default for Agenda<K> {
    fn default() -> Self {
        Agenda { due: BTreeMap::new(), order: BTreeSet::new() }
    }
}

impl<K: Ord + Clone> Agenda<K> {
    /// Something is to be done, unless it is to be done already.
    fn add(&mut self, what: K, due: Instant) {
        if !self.due.contains_key(&what) {
            self.due.insert(what.clone(), due);
            self.order.insert((due, what));
        }
    }

    fn remove(&mut self, what: &K) {
        if let Some(due) = self.due.remove(what) {
            self.order.remove(&(due, what.clone()));
        }
    }

    fn next(&self) -> Option<Instant> {
        self.order.first().map(|(due, _)| *due)
    }

    /// What is due; it is no more to be done.
    fn take_due(&mut self, now: Instant) -> Vec<K> {
        let mut due = Vec::new();
        while self.next().is_some_and(|next| next <= now)
            && let Some((_, what)) = self.order.pop_first()
        {
            self.due.remove(&what);
            due.push(what);
        }
        due
    }

    fn retain(&mut self, keep: impl Fn(&K) -> bool) {
        self.due.retain(|what, _| keep(what));
        self.order.retain(|(_, what)| keep(what));
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Sources {
    fields: BTreeMap<SectionId, Field>,
    /// When each branch that has settled by then is to be granted.
    decisions: Agenda<(SectionId, Path)>,
    homes: BTreeMap<NodeId, Home>,
    /// Claims of sessions whose home is this node, which does not know them, and until when their sessions may turn up.
    orphans: Agenda<(SectionId, Path, SessionId)>,
    /// Sources of which something is not on the disk yet.
    pending: BTreeSet<(SessionId, u32)>,
    /// How often the disk had come further when these were looked at last.
    stored: u64,
    due: Option<Instant>,
}

impl Sources {
    /// When something is to be decided or judged.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    fn plan(&mut self) {
        let homes = self.homes.values().map(|home| home.due).min();
        self.due = [self.decisions.next(), self.orphans.next(), homes].into_iter().flatten().min();
    }

    fn branch(&self, section: SectionId, branch: &Path) -> Option<&Branch> {
        self.fields.get(&section)?.contest.branch(branch)
    }
}

impl Node {
    // What comes in.

    /// Finds the claims that there are, of all sections held, and the sources of this node's own sessions.
    pub(super) fn load_sources(&mut self, now: Now) {
        let sections: Vec<SectionId> = self.sections_with_sources().collect();
        for section in &sections {
            let keys = self.replica.section(*section).into_iter().flat_map(|held| held.standing.iter());
            for key in keys.map(|(key, _)| key.clone()).collect::<Vec<_>>() {
                self.note_standing(now, *section, &key);
            }
        }
        self.find_sources(now, None);
        self.sources.plan();
    }

    /// Finds the claims of this node's sessions, or of one of them, that it does not know as their sources: after a start, or since others have kept
    /// them for it.
    pub(super) fn find_sources(&mut self, now: Now, of: Option<SessionId>) {
        let own = self.id();
        let claims = self.sources.fields.iter().flat_map(|(section, field)| {
            let branches = field.contest.branches_of(&own).filter_map(|path| Some((path, field.contest.branch(path)?)));
            branches.flat_map(move |(path, branch)| branch.claims().iter().map(move |claim| (*section, path.clone(), claim.clone())))
        });
        let ours = claims.filter(|(_, _, claim)| claim.record.home == own && of.is_none_or(|of| of == claim.session));
        for (section, branch, claim) in ours.collect::<Vec<_>>() {
            self.find_source(now, section, &branch, &claim);
        }
    }

    fn find_source(&mut self, now: Now, section: SectionId, branch: &Path, claim: &Claim) {
        let (record, until) = (&claim.record, now.at.after(self.lease()));
        let standing = Standing::Claim(BranchHash::of(branch), claim.session);
        if self.replica.standing::<ClaimRecord>(section, standing).is_none() {
            return; // it has gone just now
        }
        match self.sessions.all.get_mut(&claim.session) {
            Some(known) if known.sources.contains_key(&record.number) => {}
            Some(known) => {
                let source = Source {
                    section,
                    branch: branch.clone(),
                    told: SourceState::Init,
                    pending: None,
                    granted: None,
                    hold: Duration::from_millis(record.hold_ms),
                    away: record.away,
                };
                known.restore_source(record.number, source);
                self.sessions.plan();
            }
            // Its session's record may be on its way.
            None => self.sources.orphans.add((section, branch.clone(), claim.session), until),
        }
    }

    /// A claim whose session this node does not have, though it is its home: it has ended.
    fn drop_orphan(&mut self, now: Now, section: SectionId, branch: &Path, session: SessionId) {
        if !self.sessions.all.contains_key(&session) {
            self.release(now, section, branch, session);
            self.put_claim(now, section, branch, session, None);
        }
    }

    fn sections_with_sources(&self) -> impl Iterator<Item = SectionId> {
        self.replica.held().filter(|section| *section != SectionId::MESH).chain([SectionId::LOCAL])
    }

    /// A standing record of a section has changed.
    pub(super) fn claims_changed(&mut self, now: Now, section: SectionId, key: &[u8]) {
        let Some(branch) = self.note_standing(now, section, key) else { return };
        let mut branches = vec![branch];
        if let Some(field) = self.sources.fields.get(&section) {
            // An overlap concerns all of those.
            let own = self.id();
            let touched: Vec<Path> = field.contest.overlapping(&branches[0]).map(|(path, _)| path.clone()).collect();
            let ours =
                |path: &Path| field.contest.branch(path).is_some_and(|branch| branch.claims().iter().any(|claim| claim.record.home == own));
            branches.extend(touched.into_iter().filter(ours));
        }
        for branch in branches {
            self.judge(now, section, &branch);
        }
        self.sources.plan();
    }

    /// Takes a standing record into the contest. Gives its branch, if it is of one.
    fn note_standing(&mut self, now: Now, section: SectionId, key: &[u8]) -> Option<Path> {
        let standing = Standing::of_key(key)?;
        let field = self.sources.fields.entry(section).or_default();
        match standing {
            Standing::Claim(hash, session) => {
                let record =
                    self.replica.standing::<ClaimRecord>(section, standing).filter(|record| BranchHash::of(&record.branch) == hash);
                let branch = record.as_ref().map(|record| record.branch.clone()).or_else(|| field.names.get(&hash).cloned())?;
                field.names.insert(hash, branch.clone());
                let home = record.as_ref().map(|record| record.home).filter(|home| *home != self.replica.own().node);
                field.contest.set_claim(&branch, session, record);
                if let Some(home) = home {
                    // When it was heard of is looked at then.
                    self.sources.homes.entry(home).or_insert(Home { due: now.at, heard: now.at, next: Duration::ZERO });
                }
                Some(branch)
            }
            Standing::Grant(hash) => {
                let stamp = self.replica.section(section)?.standing.get(&standing.key()).map(|write| write.stamp.clone());
                let record =
                    self.replica.standing::<GrantRecord>(section, standing).filter(|record| BranchHash::of(&record.branch) == hash);
                let branch = record.as_ref().map(|record| record.branch.clone()).or_else(|| field.names.get(&hash).cloned())?;
                field.names.insert(hash, branch.clone());
                let grant = record.zip(stamp).map(|(record, stamp)| {
                    // Whoever holds it has a rank; what has none was released.
                    let rank = stamp.rank.as_deref().copied();
                    Grant { epoch: stamp.epoch, rank, holder: record.holder.filter(|_| rank.is_some()) }
                });
                field.contest.set_grant(&branch, grant);
                Some(branch)
            }
            Standing::Node(_) | Standing::Revoked(_) | Standing::Session(_) => None,
        }
    }

    /// Sections were taken up, given up, added or removed: what is claimed must still belong there.
    pub(super) fn sections_changed(&mut self, now: Now) {
        let held: BTreeSet<SectionId> = self.sections_with_sources().collect();
        let gone = |section: &SectionId, branch: &Path| !held.contains(section) || self.replica.section_of(branch) != *section;
        let lost = self.sessions.all.iter().flat_map(|(id, session)| {
            let lost = session.sources.iter().filter(|(_, source)| gone(&source.section, &source.branch));
            lost.map(|(number, _)| (*id, *number))
        });
        for (session, number) in lost.collect::<Vec<_>>() {
            self.close_source(
                now,
                session,
                number,
                Closed::Removed,
                "the branch belongs to another section now, or its section is not held here",
            );
        }
        self.sources.fields.retain(|section, _| held.contains(section));
        self.sources.decisions.retain(|(section, _)| held.contains(section));
        self.sources.plan();
    }

    // Judging.

    /// The lease in a mesh of this size.
    fn lease(&self) -> Duration {
        self.config.lease.max(self.pulse() * 3)
    }

    /// When a member was heard of last; at this node's start, if not since.
    fn heard(&self, home: &NodeId) -> Instant {
        self.replica.members.heard_us(home).map_or(self.started.at, |heard| Instant(heard).max(self.started.at))
    }

    /// How this node judges a claim at present.
    fn life(&self, now: Instant, claim: &Claim) -> Life {
        let record = &claim.record;
        if record.home == self.id() {
            return match self.sessions.all.get(&claim.session) {
                None => Life::Presumed,
                Some(_) if record.away => Life::Away,
                Some(_) => Life::Present,
            };
        }
        let silence = if is(Sabotage::NoSuccession) { Duration::ZERO } else { now.since(self.heard(&record.home)) };
        if self.revoked.contains(&record.home) || silence >= self.presumed_after(record) {
            Life::Presumed
        } else if record.away || silence >= self.away_after(record) {
            Life::Away
        } else {
            Life::Present
        }
    }

    fn away_after(&self, record: &ClaimRecord) -> Duration {
        self.lease().max(Duration::from_millis(record.hold_ms))
    }

    fn presumed_after(&self, record: &ClaimRecord) -> Duration {
        self.away_after(record).max(Duration::from_millis(record.reconnect_timeout_ms))
    }

    /// What follows for the sessions here from what is known of a branch.
    fn judge(&mut self, now: Now, section: SectionId, branch: &Path) {
        let own = self.id();
        let Some(known) = self.sources.branch(section, branch) else { return };
        let ours: Vec<Claim> = known.claims().iter().filter(|claim| claim.record.home == own).cloned().collect();
        let rightful = known.rightful(|claim| self.life(now.at, claim)).cloned();
        let holds = known.grant.as_ref().and_then(|grant| grant.holder).map(|(session, _)| session);
        let place = (section, branch.clone());
        match rightful.filter(|claim| claim.record.home == own) {
            Some(claim) if !self.is_granted(&claim) => {
                // Who comes back to what it holds need not wait for others to be heard.
                let wait = if holds == Some(claim.session) { Duration::ZERO } else { self.config.settle };
                let connected = self.sessions.all.get(&claim.session).is_some_and(|session| session.connection.is_some());
                if connected {
                    self.sources.decisions.add(place, now.at.after(wait));
                }
            }
            _ => self.sources.decisions.remove(&place),
        }
        for claim in ours {
            self.find_source(now, section, branch, &claim);
            let life = |claim: &Claim| self.life(now.at, claim);
            let stands = self.sources.fields.get(&section).map_or(Ok(()), |field| field.contest.stands(branch, &claim.session, life));
            match stands {
                Ok(()) => self.tell_source(&claim),
                Err((other, by)) => {
                    let why = format!("{other} was claimed before, by session {}", by.short());
                    self.close_source(now, claim.session, claim.record.number, Closed::Conflict, &why);
                }
            }
        }
    }

    fn source(&self, claim: &Claim) -> Option<&Source> {
        self.sessions.all.get(&claim.session)?.sources.get(&claim.record.number)
    }

    /// Whether the newest grant is one that this node has given to a claim in this run.
    fn is_granted(&self, claim: &Claim) -> bool {
        let Some(source) = self.source(claim) else { return false };
        if is(Sabotage::KeepsLost) {
            return source.granted.is_some();
        }
        let grant = self.sources.branch(source.section, &source.branch).and_then(|branch| branch.grant.as_ref());
        let holds = grant.is_some_and(|grant| grant.holder.is_some_and(|(session, _)| session == claim.session));
        holds && grant.map(|grant| grant.epoch) == source.granted.as_ref().map(|under| under.epoch)
    }

    /// Tells a session what its source is now, unless it knows. Authority ends here, at once; it begins when its grant is on the disk.
    fn tell_source(&mut self, claim: &Claim) {
        let granted = self.is_granted(claim);
        let Some(source) = self.source(claim) else { return };
        let known = self.sources.branch(source.section, &source.branch);
        let grant = known.and_then(|branch| branch.grant.clone());
        let holder = known.and_then(Branch::holder).map(|holder| self.holder_name(holder));
        let epoch = grant.as_ref().map_or(0, |grant| grant.epoch);
        let state = match (granted, &holder) {
            (true, _) => SourceState::Active { epoch },
            (false, Some(name)) if grant.is_some_and(|grant| grant.holder.is_some_and(|(session, _)| session != claim.session)) => {
                let lost = matches!(source.told, SourceState::Active { .. });
                let why = if lost { format!("lost to {name}") } else { format!("{name} holds the branch") };
                SourceState::Standby { epoch, holder, why }
            }
            // It waits for its grant.
            (false, _) if matches!(source.told, SourceState::Init) => SourceState::Init,
            (false, _) => SourceState::Standby { epoch, holder: None, why: "nobody holds the branch at present".into() },
        };
        self.tell(claim.session, claim.record.number, state, granted);
    }

    fn tell(&mut self, session: SessionId, number: u32, state: SourceState, granted: bool) {
        let Some(home) = self.sessions.all.get_mut(&session) else { return };
        let Some(source) = home.sources.get_mut(&number) else { return };
        if !granted {
            source.granted = None;
        }
        if source.pending.is_some() || source.told == state {
            return;
        }
        source.told = state.clone();
        if let Some(connection) = home.connection {
            self.outputs.push(super::Output::Send { session: connection, message: FromNode::Source { source: number, state } });
        }
    }

    /// What has come to the disk since is told.
    pub(super) fn settle_sources(&mut self) {
        let stored = self.replica.durable_changes();
        if self.sources.pending.is_empty() || std::mem::replace(&mut self.sources.stored, stored) == stored {
            return;
        }
        let (replica, sessions) = (&self.replica, &mut self.sessions);
        let mut durable = Vec::new();
        self.sources.pending.retain(|(session, number)| {
            let source = sessions.all.get_mut(session).and_then(|session| session.sources.get_mut(number));
            let Some(source) = source else { return false };
            if source.pending.is_some_and(|written| !replica.is_durable(written)) {
                return true;
            }
            source.pending = None;
            durable.push((*session, source.section, source.branch.clone()));
            false
        });
        for (session, section, branch) in durable {
            if let Some(claim) = self.sources.branch(section, &branch).and_then(|branch| branch.claim(&session)).cloned() {
                self.tell_source(&claim);
            }
        }
    }

    /// Grants what has settled, and judges the silent.
    pub(super) fn sources_due(&mut self, now: Now) {
        if self.sources.due.is_none_or(|due| due > now.at) {
            return;
        }
        for (section, branch) in self.sources.decisions.take_due(now.at) {
            self.decide(now, section, &branch);
        }
        for (section, branch, session) in self.sources.orphans.take_due(now.at) {
            self.drop_orphan(now, section, &branch, session);
        }
        let due = self.sources.homes.iter().filter(|(_, home)| home.due <= now.at).map(|(home, _)| *home);
        for home in due.collect::<Vec<_>>() {
            self.judge_home(now, home);
        }
        self.sources.plan();
    }

    /// A branch has settled: its rightful claim gets it, if it is of this node.
    fn decide(&mut self, now: Now, section: SectionId, branch: &Path) {
        let rightful = self.sources.branch(section, branch).and_then(|known| known.rightful(|claim| self.life(now.at, claim))).cloned();
        let Some(claim) = rightful.filter(|claim| claim.record.home == self.id() && !self.is_granted(claim)) else { return };
        if self.store_refusal.is_some() {
            // A grant must be on the disk: it waits until the disk takes writes again.
            self.sources.decisions.add((section, branch.clone()), now.at.after(self.config.settle));
            return;
        }
        let Some(epoch) = self.replica.section(section).map(|held| held.epoch() + 1) else { return };
        let under = Under { epoch, rank: Some(Arc::new(claim.rank())) };
        let source = self.sessions.all.get_mut(&claim.session).and_then(|session| session.sources.get_mut(&claim.record.number));
        let Some(source) = source else { return };
        source.granted = Some(under.clone());
        let written = self.put_grant(now, section, branch, under, Some((claim.session, self.id())));
        if is(Sabotage::EarlyGrant) {
            return;
        }
        self.wait_for_disk(claim.session, claim.record.number, written);
    }

    fn wait_for_disk(&mut self, session: SessionId, number: u32, written: Option<Written>) {
        let source = self.sessions.all.get_mut(&session).and_then(|session| session.sources.get_mut(&number));
        if let (Some(source), Some(written)) = (source, written) {
            source.pending = Some(written);
            self.sources.pending.insert((session, number));
            self.sources.stored = u64::MAX;
            self.sync_wanted = true;
        }
    }

    /// Looks at how long another home has been silent.
    fn judge_home(&mut self, now: Now, home: NodeId) {
        let heard = self.heard(&home);
        let silence = now.at.since(heard);
        let lease = self.lease();
        let claims = |node: &Node| -> Vec<ClaimRecord> {
            let fields = node.sources.fields.values();
            let of_home = fields.flat_map(|field| field.contest.branches_of(&home).filter_map(|path| field.contest.branch(path)));
            of_home.flat_map(|branch| branch.claims()).filter(|claim| claim.record.home == home).map(|claim| claim.record.clone()).collect()
        };
        let Some(known) = self.sources.homes.get(&home) else { return };
        let (back, due) = (heard > known.heard && known.next > lease, silence >= known.next.max(lease));
        let mut next = if silence < lease { lease } else { known.next };
        if back || due {
            for (section, branch) in self.branches_of(&home) {
                self.judge(now, section, &branch);
            }
            let claims = claims(self);
            if claims.is_empty() {
                self.sources.homes.remove(&home);
                return;
            }
            let steps = claims.iter().flat_map(|record| [self.away_after(record), self.presumed_after(record)]);
            next = steps.filter(|step| *step > silence).chain((silence < lease).then_some(lease)).min().unwrap_or(Duration::MAX);
        }
        // A silent one may be heard again at any time.
        let look = if silence < lease { heard.after(lease) } else { heard.after(next).min(now.at.after(self.config.settle)) };
        self.sources.homes.insert(home, Home { due: look.max(Instant(now.at.0 + 1)), heard, next });
    }

    fn branches_of(&self, home: &NodeId) -> Vec<(SectionId, Path)> {
        let fields = self.sources.fields.iter();
        fields.flat_map(|(section, field)| field.contest.branches_of(home).map(|branch| (*section, branch.clone()))).collect()
    }

    // Writing.

    fn put_claim(&mut self, now: Now, section: SectionId, branch: &Path, session: SessionId, record: Option<&ClaimRecord>) {
        let key = Standing::Claim(BranchHash::of(branch), session);
        let value = record.map(|record| minicbor::to_vec(record).expect("encoding to memory"));
        self.replica.put_standing_in(section, key, Under::default(), now.unix_ms, value);
    }

    fn put_grant(
        &mut self,
        now: Now,
        section: SectionId,
        branch: &Path,
        under: Under,
        holder: Option<(SessionId, NodeId)>,
    ) -> Option<Written> {
        let record = GrantRecord { branch: branch.clone(), holder };
        let value = minicbor::to_vec(&record).expect("encoding to memory");
        self.replica.put_standing_in(section, Standing::Grant(BranchHash::of(branch)), under, now.unix_ms, Some(value))
    }

    /// Leaves an open epoch behind, if a session of this node holds the branch.
    fn release(&mut self, now: Now, section: SectionId, branch: &Path, session: SessionId) {
        let grant = self.sources.branch(section, branch).and_then(|branch| branch.grant.as_ref());
        let held = grant.filter(|grant| grant.holder.is_some_and(|(holder, _)| holder == session));
        if let Some(epoch) = held.map(|grant| grant.epoch + 1) {
            self.put_grant(now, section, branch, Under { epoch, rank: None }, None);
        }
    }

    // What sessions ask.

    /// A session wants to be the source of a branch.
    pub(super) fn source_claim(
        &mut self,
        now: Now,
        connection: ConnectionId,
        branch: &str,
        priority: i32,
        wait: bool,
        hold_ms: Option<u64>,
    ) -> Result<(Response, Needs), Refusal> {
        self.writable()?;
        let branch = super::requests::parse_topic_path(branch)?;
        let section = self.locate(&branch)?;
        if self.replica.policy(section).is_some_and(|policy| policy.arbitration == Arbitration::Quorum) {
            return Err(Refusal::new(Code::QuorumOnly, branch.as_str(), "this version of the node arbitrates available sections only"));
        }
        let (id, _) = self.open_session(now, connection)?;
        let life = |claim: &Claim| self.life(now.at, claim);
        if let Some(field) = self.sources.fields.get(&section) {
            if field.contest.branch(&branch).is_some_and(|known| known.claim(&id).is_some()) {
                return Err(Refusal::new(Code::AlreadyClaimed, branch.as_str(), "this session has claimed it already"));
            }
            if let Some((other, claim)) = field.contest.overlap(&branch, life) {
                let refusal = Refusal::new(Code::Overlaps, branch.as_str(), format!("{other} is claimed"));
                return Err(refusal.who([self.holder_name(claim)]).hint("claim another branch, or wait until that source is closed"));
            }
            let known = field.contest.branch(&branch);
            let standing =
                known.and_then(|known| known.rightful(life).or_else(|| known.claims().iter().find(|claim| life(claim) > Life::Presumed)));
            if let Some(claim) = standing.filter(|_| !wait) {
                return Err(self.exclusive(&branch, claim).hint("wait for it, without --try"));
            }
        }
        let clock = self.replica.section(section).map_or(0, |held| held.clock());
        let (own, hold_default) = (self.id(), self.config.hold_grants.as_millis() as u64);
        let Some(session) = self.sessions.all.get_mut(&id) else { return Err(super::requests::closing()) };
        if session.sources.len() >= SOURCES_MAX {
            return Err(Refusal::new(Code::TooMany, branch.as_str(), format!("a session has at most {SOURCES_MAX} sources")));
        }
        let number = session.number();
        let record = ClaimRecord {
            branch: branch.clone(),
            home: own,
            priority,
            registered: clock + 1,
            hold_ms: hold_ms.unwrap_or(hold_default).min(session.record.reconnect_timeout_ms),
            reconnect_timeout_ms: session.record.reconnect_timeout_ms,
            number,
            away: false,
        };
        let source = Source {
            section,
            branch: branch.clone(),
            told: SourceState::Init,
            pending: None,
            granted: None,
            hold: Duration::from_millis(record.hold_ms),
            away: false,
        };
        session.restore_source(number, source);
        self.put_claim(now, section, &branch, id, Some(&record));
        let mut needs = Needs::default();
        let claimed = self.replica.last_standing_write_in(section);
        // Nothing is told of it before its number is.
        self.wait_for_disk(id, number, claimed);
        claimed.into_iter().for_each(|written| needs.add(written, Durability::Disk));
        self.replica.last_standing_write().into_iter().for_each(|written| needs.add(written, Durability::Disk));
        Ok((Response::Claimed { source: number }, needs))
    }

    /// A session wants a source no more.
    pub(super) fn source_close(&mut self, now: Now, connection: ConnectionId, number: u32) -> Result<(Response, Needs), Refusal> {
        let session = self.connections.get(&connection).and_then(|client| client.session);
        let source = session.and_then(|id| self.sessions.all.get(&id)?.sources.get(&number)).map(|source| source.section);
        let (Some(id), Some(section)) = (session, source) else {
            return Err(Refusal::new(Code::UnknownSource, number.to_string(), "this session has no such source"));
        };
        self.close_source(now, id, number, Closed::Released, "its session wanted it");
        let mut needs = Needs::default();
        self.replica.last_standing_write_in(section).into_iter().for_each(|written| needs.add(written, Durability::Disk));
        Ok((Response::Done, needs))
    }

    /// Ends a source of a session here, whatever it was: its branch passes on.
    pub(super) fn close_source(&mut self, now: Now, session: SessionId, number: u32, reason: Closed, why: &str) {
        let Some(home) = self.sessions.all.get_mut(&session) else { return };
        let Some(mut source) = home.sources.remove(&number) else { return };
        source.pending = None;
        if let Some(connection) = home.connection {
            let state = SourceState::Closed { reason, why: why.into() };
            self.outputs.push(super::Output::Send { session: connection, message: FromNode::Source { source: number, state } });
        }
        self.release(now, source.section, &source.branch, session);
        self.put_claim(now, source.section, &source.branch, session, None);
    }

    /// A session has been lost for so long: what it may hold no longer passes on.
    pub(super) fn sources_lost(&mut self, now: Now, session: SessionId, lost_for: Duration) {
        let Some(home) = self.sessions.all.get(&session) else { return };
        let due = home
            .sources
            .iter()
            .filter(|(_, source)| !source.away && (source.granted.is_none() && lost_for.is_zero() || lost_for >= source.hold));
        for number in due.map(|(number, _)| *number).collect::<Vec<_>>() {
            self.set_away(now, session, number, true);
        }
    }

    /// A session is back: its sources stand where they stood, and what it holds it holds under a new epoch.
    pub(super) fn sources_resumed(&mut self, now: Now, session: SessionId) {
        let Some(home) = self.sessions.all.get_mut(&session) else { return };
        // What was handed out before the loss is not to be written any more.
        home.sources.values_mut().for_each(|source| source.granted = None);
        let sources: Vec<(u32, SectionId, Path, bool)> =
            home.sources.iter().map(|(number, source)| (*number, source.section, source.branch.clone(), source.away)).collect();
        // Nothing is told of them before the answer, which waits for the session's record.
        let record = self.replica.last_standing_write();
        for (number, section, branch, away) in sources {
            self.wait_for_disk(session, number, record);
            if away {
                self.set_away(now, session, number, false);
            }
            self.judge(now, section, &branch);
        }
        self.sources.plan();
    }

    fn set_away(&mut self, now: Now, session: SessionId, number: u32, away: bool) {
        let source = self.sessions.all.get_mut(&session).and_then(|session| session.sources.get_mut(&number));
        let Some(source) = source else { return };
        source.away = away;
        source.granted = source.granted.take().filter(|_| !away);
        let (section, branch) = (source.section, source.branch.clone());
        let Some(mut record) =
            self.sources.branch(section, &branch).and_then(|branch| branch.claim(&session)).map(|claim| claim.record.clone())
        else {
            return;
        };
        record.away = away;
        if away {
            self.release(now, section, &branch, session);
        }
        self.put_claim(now, section, &branch, session, Some(&record));
    }

    /// What sessions of this node may write as sources at this moment: section, branch, session and epoch.
    pub fn active_sources(&self) -> impl Iterator<Item = (SectionId, &Path, SessionId, u64)> {
        self.sessions.all.iter().flat_map(|(id, session)| {
            session.sources.values().filter_map(|source| match (&source.granted, &source.told) {
                (Some(under), SourceState::Active { epoch }) if under.epoch == *epoch => {
                    Some((source.section, &source.branch, *id, *epoch))
                }
                _ => None,
            })
        })
    }

    // Admission.

    /// Under what a client may write to a path.
    ///
    /// # Errors
    /// Where a source stands above it that is not the client's, or where what the client writes under has ended.
    pub(super) fn authority(&self, now: Now, connection: ConnectionId, path: &Path, under: Option<Authority>) -> Result<Under, Refusal> {
        let section = self.replica.section_of(path);
        let session = self.connections.get(&connection).and_then(|client| client.session);
        let contest = self.sources.fields.get(&section).map(|field| &field.contest);
        let life = |claim: &Claim| self.life(now.at, claim);
        let claimed = contest.and_then(|contest| contest.claimed_above(path, life));
        let own = session.and_then(|id| self.sessions.all.get(&id)).map(|session| &session.sources);
        if let Some(Authority { source, epoch }) = under {
            let known = own.and_then(|sources| sources.get(&source));
            let Some(known) = known.filter(|known| path.self_and_ancestors().any(|above| above == known.branch.as_str())) else {
                let why = format!("this session has no source {source} above it");
                return Err(Refusal::new(Code::UnknownSource, path.as_str(), why));
            };
            return match (&known.granted, &known.told) {
                (Some(granted), SourceState::Active { epoch: told }) if granted.epoch == epoch && *told == epoch => Ok(granted.clone()),
                _ if is(Sabotage::StaleEpochs) => {
                    let rank = claimed.and_then(|(_, branch)| branch.claim(&session?)).map(|claim| Arc::new(claim.rank()));
                    Ok(Under { epoch, rank })
                }
                _ => Err(self.fenced(path, claimed, epoch)),
            };
        }
        let Some((branch, known)) = claimed else {
            let epoch = contest.map_or(0, |contest| contest.open_epoch(path));
            return Ok(Under { epoch, rank: None });
        };
        let claim = session.and_then(|id| known.claim(&id));
        let own = own.zip(claim).and_then(|(sources, claim)| sources.get(&claim.record.number));
        if let Some(Source { granted: Some(granted), told: SourceState::Active { epoch }, .. }) = own
            && granted.epoch == *epoch
        {
            return Ok(granted.clone());
        }
        let holder = known.rightful(life).or(known.claims().first());
        Err(match holder {
            Some(claim) => self.exclusive(path, claim),
            None => Refusal::new(Code::Exclusive, path.as_str(), format!("the branch {branch} is claimed")),
        })
    }

    fn exclusive(&self, path: &Path, claim: &Claim) -> Refusal {
        let name = self.holder_name(claim);
        Refusal::new(Code::Exclusive, path.as_str(), format!("{name} has claimed the branch {}", claim.record.branch)).who([name])
    }

    fn fenced(&self, path: &Path, claimed: Option<(&Path, &Branch)>, epoch: u64) -> Refusal {
        let holder = claimed.and_then(|(_, branch)| branch.holder()).map(|claim| self.holder_name(claim));
        let present = claimed.and_then(|(_, branch)| branch.grant.as_ref()).map_or(0, |grant| grant.epoch);
        let refusal = Refusal::new(Code::Fenced, path.as_str(), format!("epoch {epoch} has ended; the branch is at epoch {present}"));
        refusal.who(holder)
    }

    /// A session and its node, for people.
    fn holder_name(&self, claim: &Claim) -> String {
        format!("session {} on {}", claim.session.short(), self.node_name(&claim.record.home))
    }

    fn node_name(&self, node: &NodeId) -> String {
        self.replica.nodes().get(node).map_or_else(|| node.short(), |record| record.name.clone())
    }

    // Views.

    fn claim_row(&self, claim: &Claim) -> protocol::Claim {
        let ClaimRecord { priority, registered, away, home, .. } = &claim.record;
        protocol::Claim { session: claim.session, node: self.node_name(home), priority: *priority, registered: *registered, away: *away }
    }

    fn source_row(&self, section: SectionId, path: &Path, branch: &Branch) -> SourceRow {
        let holder = branch.holder();
        SourceRow {
            branch: path.to_string(),
            section: self.replica.policy(section).map(|policy| policy.root.to_string()),
            epoch: branch.grant.as_ref().map_or(0, |grant| grant.epoch),
            holder: holder.map(|claim| self.claim_row(claim)),
            waiting: branch.claims().iter().filter(|claim| holder.is_none_or(|holder| holder.session != claim.session)).count() as u32,
        }
    }

    /// A page of all branches that are claimed or were.
    pub(super) fn source_rows(&self, page: &Page) -> Response {
        let limit = page.limit.clamp(1, protocol::PAGE_MAX) as usize;
        let mut rows: Vec<(&Path, SectionId, &Branch)> = Vec::new();
        for (section, field) in &self.sources.fields {
            let branches = field.contest.after(page.after.as_deref()).take(limit + 1);
            rows.extend(branches.map(|(path, branch)| (path, *section, branch)));
        }
        rows.sort_by_key(|(path, section, _)| (*path, *section));
        let next = (rows.len() > limit).then(|| rows[limit - 1].0.to_string());
        let rows = rows.into_iter().take(limit).map(|(path, section, branch)| self.source_row(section, path, branch)).collect();
        Response::Sources { rows, next }
    }

    /// Everything about one branch.
    pub(super) fn source_detail(&self, now: Now, branch: &str) -> Result<Response, Refusal> {
        let path = super::requests::parse_path(branch)?;
        let section = self.locate(&path)?;
        let known = self.sources.branch(section, &path).ok_or_else(|| {
            Refusal::new(Code::UnknownSource, path.as_str(), "nobody has claimed this branch").hint("see: mangrove source ls")
        })?;
        let arbitration = self.replica.policy(section).map_or(Arbitration::Available, |policy| policy.arbitration);
        let lease_left = known.holder().map(|claim| match claim.record.home == self.id() {
            true => self.lease(),
            false => self.away_after(&claim.record).saturating_sub(now.at.since(self.heard(&claim.record.home))),
        });
        Ok(Response::Source(Box::new(SourceDetail {
            row: self.source_row(section, &path, known),
            queue: known.claims().iter().map(|claim| self.claim_row(claim)).collect(),
            arbitration: arbitration.to_string(),
            lease_left_ms: lease_left.map(|left| left.as_millis() as u64),
        })))
    }

    /// The first of some topics whose branch another session has claimed.
    pub(super) fn claimed_by_others(&self, now: Now, connection: ConnectionId, paths: &[Path]) -> Option<Refusal> {
        paths.iter().find_map(|path| self.authority(now, connection, path, None).err())
    }
}

#[cfg(test)]
mod tests;
