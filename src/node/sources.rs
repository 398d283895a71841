//! Update sources: who may write where, as far as this node has a say in it.
//!
//! Claims and grants come from the standing planes, this node's own and all others' ([`mangrove_crdt::arbitration`]). For each branch where the rightful
//! claim is of a session here, and which nobody holds, this node waits for the settle time, judges again, and writes the grant. It tells its
//! sessions what their sources are, and every write of a client passes [`Node::authority`].
//!
//! Whether another home lives is judged by its heartbeats. There is one timer for each home with claims, whatever the number of these: only when one
//! falls silent, or is heard again, its branches are gone through.

mod admission;
mod asked;
#[cfg(test)]
pub(super) mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, hash_map::Entry},
    sync::Arc,
    time::Duration,
};

use mangrove_crdt::{
    arbitration::{Branch, Claim, Contest, Grant, Life},
    id::{NodeId, SectionId, SessionId},
    path::Path,
    replica::Written,
    sabotage::{Sabotage, is},
    section::StandingKey,
    stamp::Under,
    standing::{BranchHash, ClaimRecord, GrantRecord, SessionRecord, Standing},
    time::Instant,
};

use super::{ConnectionId, Node, Now, acks::Needs, agenda::Agenda};
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
    /// One of which its session has heard nothing yet.
    fn of(section: SectionId, record: &ClaimRecord) -> Source {
        Source {
            section,
            branch: record.branch.clone(),
            told: SourceState::Init,
            pending: None,
            granted: None,
            hold: Duration::from_millis(record.hold_ms),
            away: record.away,
        }
    }

    /// Under what it may write, if it is active and its session has heard so.
    fn active(&self) -> Option<&Under> {
        self.granted.as_ref().filter(|under| self.told == SourceState::Active { epoch: under.epoch })
    }

    fn is_granted(&self, epoch: u64) -> bool {
        self.granted.as_ref().is_some_and(|under| under.epoch == epoch)
    }

    /// For how long it keeps its branch while its session is lost, if it has one to keep.
    pub fn held_for(&self) -> Option<Duration> {
        (!self.away).then_some(self.hold)
    }
}

/// A section's claims, and the paths behind the hashes in their keys.
#[derive(Debug, Default)]
struct Field {
    contest: Contest,
    names: HashMap<BranchHash, Path>,
}

impl Field {
    /// The branch behind a hash, and the record that tells of it, unless that is of another branch. All records of a branch share one path.
    fn resolve<R>(&mut self, hash: BranchHash, record: Option<R>, branch: fn(&mut R) -> &mut Path) -> Option<(Path, Option<R>)> {
        let Some(mut record) = record else { return Some((self.names.get(&hash)?.clone(), None)) };
        let told = branch(&mut record);
        match self.names.entry(hash) {
            Entry::Occupied(known) if known.get() == told => {
                told.clone_from(known.get());
                Some((told.clone(), Some(record)))
            }
            Entry::Occupied(known) => Some((known.get().clone(), None)),
            Entry::Vacant(unknown) if BranchHash::of(told) == hash => Some((unknown.insert(told.clone()).clone(), Some(record))),
            Entry::Vacant(_) => None,
        }
    }
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

    /// The claims of a home's sessions, or of one of them.
    fn claims_of(&self, home: NodeId, session: Option<SessionId>) -> impl Iterator<Item = (SectionId, &Path, &Claim)> {
        self.fields
            .iter()
            .flat_map(move |(section, field)| field.contest.claims_of(&home, session).map(move |(path, claim)| (*section, path, claim)))
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
        let ours = self.sources.claims_of(self.id(), of).map(|(section, branch, claim)| (section, branch.clone(), claim.clone()));
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
        match self.sessions.all.get(&claim.session).map(|known| known.sources.get(&record.number)) {
            Some(Some(source)) if source.section == section && source.branch == *branch => {}
            // Its number is another branch's by now: it was claimed in a run that this node's disk has forgotten, and its session has been told of sources without it since.
            Some(Some(_)) => {
                self.release(now, section, branch, claim.session);
                self.put_claim(now, section, branch, claim.session, None);
            }
            Some(None) => self.sessions.restore_source(claim.session, record.number, Source::of(section, record)),
            // Its session's record may be on its way.
            None => self.sources.orphans.add((section, branch.clone(), claim.session), until),
        }
    }

    /// A claim whose session this node does not have, though it is its home: its session has ended, or was taken up elsewhere without it.
    fn drop_orphan(&mut self, now: Now, section: SectionId, branch: &Path, session: SessionId) {
        let own = self.id();
        let Some(known) = self.sources.branch(section, branch) else { return };
        if self.sessions.all.contains_key(&session) || known.claim(&session).is_none_or(|claim| claim.record.home != own) {
            return;
        }
        // What its new home holds by it is not this node's to release.
        if known.grant.as_ref().is_some_and(|grant| grant.holder == Some((session, own))) {
            self.release(now, section, branch, session);
        }
        self.put_claim(now, section, branch, session, None);
    }

    fn sections_with_sources(&self) -> impl Iterator<Item = SectionId> {
        self.replica.held().filter(|section| *section != SectionId::MESH).chain([SectionId::LOCAL])
    }

    /// Standing records of sections have changed. All are taken in before anything is judged: what came together is one change.
    pub(super) fn claims_changed(&mut self, now: Now, changed: Vec<(SectionId, StandingKey)>) {
        if changed.is_empty() {
            return;
        }
        let own = self.id();
        let mut branches = BTreeSet::new();
        for (section, key) in changed {
            self.subscriber_changed(section, &key);
            let Some(branch) = self.note_standing(now, section, &key) else { continue };
            // For whoever has no claims there is nothing to judge, and many may come at once.
            let ours = self.sources.fields.get(&section).is_some_and(|field| field.contest.is_home(&own));
            if ours || self.sources.decisions.next().is_some() {
                branches.insert((section, branch));
            }
        }
        let concerned = branches.iter().flat_map(|(section, branch)| {
            let field = self.sources.fields.get(section);
            field.into_iter().flat_map(|field| field.contest.concerned(branch, &own)).map(|concerned| (*section, concerned))
        });
        for (section, branch) in concerned.collect::<BTreeSet<_>>() {
            self.judge(now, section, &branch);
        }
        self.sources.plan();
    }

    /// Takes a standing record into the contest. Gives its branch, if it is of one.
    fn note_standing(&mut self, now: Now, section: SectionId, key: &StandingKey) -> Option<Path> {
        let standing = Standing::of_key(key)?;
        let write = self.replica.section(section)?.standing.get(key);
        let value = write.and_then(|write| write.value.as_deref());
        let field = self.sources.fields.entry(section).or_default();
        match standing {
            Standing::Claim(hash, session) => {
                let record = value.and_then(|value| minicbor::decode::<ClaimRecord>(value).ok());
                let (branch, mut record) = field.resolve(hash, record, |record| &mut record.branch)?;
                // What a session has here is one source, whatever becomes known of a later run that this node's disk has forgotten.
                let ours = self.sessions.all.contains_key(&session);
                let before = ours.then(|| field.contest.branch(&branch)?.claim(&session).map(|claim| claim.record.number)).flatten();
                let of_branch = |source: &Source| source.section == section && source.branch == branch;
                let source = |number: &u32| self.sessions.all.get(&session)?.sources.get(number);
                let known = before.and_then(|number| Some((number, source(&number).filter(|source| of_branch(source))?.away)));
                let (own, mut mended, mut stray) = (self.id(), None, false);
                match (known, &mut record) {
                    (Some((number, away)), Some(record)) if (record.number, record.home) != (number, own) => {
                        (record.number, record.home, record.away) = (number, own, away);
                        mended = Some(record.clone());
                    }
                    // Its client was told of its sources without this one when it came here.
                    (None, Some(record)) if ours && record.home != own => stray = true,
                    (Some((number, _)), None) => {
                        let why = "it was given up in a run that this node's disk has forgotten";
                        self.end_source(session, number, Closed::Released, why);
                    }
                    _ => {}
                }
                let field = self.sources.fields.entry(section).or_default();
                let home = record.as_ref().map(|record| record.home).filter(|home| *home != own);
                field.contest.set_claim(&branch, session, record);
                if let Some(home) = home {
                    // When it was heard of is looked at then.
                    self.sources.homes.entry(home).or_insert(Home { due: now.at, heard: now.at, next: Duration::ZERO });
                }
                if mended.is_some() || stray {
                    self.put_claim(now, section, &branch, session, mended.as_ref());
                }
                Some(branch)
            }
            Standing::Grant(hash) => {
                let record = value.and_then(|value| minicbor::decode::<GrantRecord>(value).ok());
                let (branch, record) = field.resolve(hash, record, |record| &mut record.branch)?;
                let grant = record.zip(write).map(|(record, write)| {
                    // Whoever holds it has a rank; what has none was released.
                    let rank = write.stamp.rank.as_deref().copied();
                    Grant { epoch: write.stamp.epoch, rank, holder: record.holder.filter(|_| rank.is_some()) }
                });
                field.contest.set_grant(&branch, grant);
                Some(branch)
            }
            Standing::Node(_) | Standing::Revoked(_) | Standing::Session(_) | Standing::Voters(_) | Standing::Displaced(_) => None,
            Standing::SessionProperty(..) | Standing::SessionDone(_) | Standing::Subscriber(..) | Standing::Subscribers(..) => None,
        }
    }

    /// A source of a session here is no more, and its session is told so. What is left of it on the mesh is the caller's.
    fn end_source(&mut self, session: SessionId, number: u32, reason: Closed, why: &str) -> Option<Source> {
        let home = self.sessions.all.get_mut(&session)?;
        let source = home.sources.remove(&number)?;
        if let Some(connection) = home.connection {
            let state = SourceState::Closed { reason, why: why.into() };
            self.outputs.push(super::Output::Send { session: connection, message: FromNode::Source { source: number, state } });
        }
        Some(source)
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
    pub(super) fn lease(&self) -> Duration {
        self.config.lease.max(self.pulse() * 3)
    }

    /// When a member was heard of last; at this node's start, if not since.
    pub(super) fn heard(&self, home: &NodeId) -> Instant {
        self.replica.members.heard_us(home).map_or(self.started.at, |heard| Instant(heard).max(self.started.at))
    }

    /// Whether so little time has passed since another node was heard of last that it counts as living.
    pub(super) fn lives(&self, now: Now, home: &NodeId) -> bool {
        !self.revoked.contains(home) && now.at.since(self.heard(home)) < self.lease()
    }

    /// How this node judges a claim at present.
    fn life(&self, now: Instant, claim: &Claim) -> Life {
        let record = &claim.record;
        let mut home = record.home;
        if home == self.id() {
            match self.sessions.all.get(&claim.session) {
                Some(_) if record.away => return Life::Away,
                Some(_) => return Life::Present,
                // Its session has moved, and the claim is about to.
                None => match self.replica.standing::<SessionRecord>(SectionId::MESH, Standing::Session(claim.session)) {
                    Some(moved) if moved.home != home => home = moved.home,
                    _ => return Life::Presumed,
                },
            }
        }
        let silence = if is(Sabotage::NoSuccession) { Duration::ZERO } else { now.since(self.heard(&home)) };
        if self.revoked.contains(&home) || silence >= self.presumed_after(record) {
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
    pub(super) fn judge(&mut self, now: Now, section: SectionId, branch: &Path) {
        let own = self.id();
        let Some(known) = self.sources.branch(section, branch) else { return };
        let ours: Vec<Claim> = known.claims().iter().filter(|claim| claim.record.home == own).cloned().collect();
        let rightful = known.rightful(|claim| self.life(now.at, claim)).cloned();
        let place = (section, branch.clone());
        match rightful.filter(|claim| claim.record.home == own) {
            Some(claim) if !self.is_granted(&claim) => {
                // Who comes back to what it holds need not wait for others to be heard.
                let holds = known.grant.as_ref().is_some_and(|grant| grant.is_of(&claim.session));
                let wait = if holds { Duration::ZERO } else { self.config.settle };
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
                Ok(()) => self.tell_source(now.at, &claim),
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
        grant.is_some_and(|grant| grant.holder == Some((claim.session, self.id())) && source.is_granted(grant.epoch))
    }

    /// Tells a session what its source is now, unless it knows. Authority ends here, at once; it begins when its grant is on the disk.
    fn tell_source(&mut self, now: Instant, claim: &Claim) {
        let granted = self.is_granted(claim);
        let Some(source) = self.source(claim) else { return };
        let known = self.sources.branch(source.section, &source.branch);
        let grant = known.and_then(|branch| branch.grant.clone());
        let holder = known.and_then(Branch::holder).map(|holder| self.holder_name(holder));
        let epoch = grant.as_ref().map_or(0, |grant| grant.epoch);
        let acts = granted && self.acts(now, source);
        let refused = if acts { None } else { self.without_majority(source.section, &source.branch) };
        let state = match (granted, &holder) {
            (true, _) if acts => SourceState::Active { epoch },
            // It may get it back, under the same epoch, unless others get it meanwhile.
            (true, _) => SourceState::Standby { epoch, holder: None, why: refused.unwrap_or_default() },
            (false, Some(name)) if grant.is_some_and(|grant| grant.holder.is_some_and(|(session, _)| session != claim.session)) => {
                let lost = matches!(source.told, SourceState::Active { .. });
                let why = if lost { format!("lost to {name}") } else { format!("{name} holds the branch") };
                SourceState::Standby { epoch, holder, why }
            }
            (false, _) if refused.is_some() => SourceState::Standby { epoch, holder: None, why: refused.unwrap_or_default() },
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
    pub(super) fn settle_sources(&mut self, now: Now) {
        if self.sources.pending.is_empty() {
            return;
        }
        let stored = self.replica.durable_changes();
        if std::mem::replace(&mut self.sources.stored, stored) == stored {
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
                self.tell_source(now.at, &claim);
            }
        }
    }

    /// Grants what has settled, and judges the silent.
    pub(super) fn sources_due(&mut self, now: Now) {
        if self.sources.due.is_none_or(|due| due > now.at) {
            return;
        }
        let mut bids: BTreeMap<SectionId, Vec<Path>> = BTreeMap::new();
        for (section, branch) in self.sources.decisions.take_due(now.at) {
            if self.decide(now, section, &branch) {
                bids.entry(section).or_default().push(branch);
            }
        }
        for (section, branches) in bids {
            self.bid(now, section, branches);
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

    /// Who should hold a branch, if that is a session of this node.
    fn own_rightful(&self, now: Now, section: SectionId, branch: &Path) -> Option<Claim> {
        let rightful = self.sources.branch(section, branch)?.rightful(|claim| self.life(now.at, claim))?;
        (rightful.record.home == self.id()).then(|| rightful.clone())
    }

    /// A branch has settled: its rightful claim gets it, if it is of this node. Says whether the section's voters have to be asked first.
    fn decide(&mut self, now: Now, section: SectionId, branch: &Path) -> bool {
        let Some(claim) = self.own_rightful(now, section, branch).filter(|claim| !self.is_granted(claim)) else { return false };
        if self.store_refusal.is_some() {
            // A grant must be on the disk: it waits until the disk takes writes again.
            self.sources.decisions.add((section, branch.clone()), now.at.after(self.config.settle));
            return false;
        }
        if self.quorums.contains(section) {
            return true;
        }
        let epoch = self.replica.section(section).map_or(0, |held| held.epoch()) + 1;
        self.grant(now, section, branch, &claim, epoch);
        false
    }

    /// A claim of a session here is granted under an epoch. `false` if its source is gone, or somebody has the branch under a greater one.
    fn grant(&mut self, now: Now, section: SectionId, branch: &Path, claim: &Claim, epoch: u64) -> bool {
        let (session, number) = (claim.session, claim.record.number);
        if self.source(claim).is_none() {
            return false;
        }
        let at = self.sessions.all.get(&session).map_or(0, |home| home.record.epoch);
        let under = Under { epoch, rank: Some(Arc::new(claim.rank(at))) };
        let Some(written) = self.put_grant(now, section, branch, under.clone(), Some((session, self.id()))) else { return false };
        if let Some(source) = self.sessions.all.get_mut(&session).and_then(|session| session.sources.get_mut(&number)) {
            source.granted = Some(under);
        }
        if !is(Sabotage::EarlyGrant) {
            self.wait_for_disk(session, number, Some(written));
        }
        true
    }

    /// The voters have granted a branch. `false` if no session here may have it.
    pub(super) fn take_grant(&mut self, now: Now, section: SectionId, branch: &Path, epoch: u64) -> bool {
        self.own_rightful(now, section, branch).is_some_and(|claim| self.grant(now, section, branch, &claim, epoch))
    }

    /// The voters have given a branch to others, or forgotten it: whoever had it here has it no more.
    pub(super) fn lose_grant(&mut self, section: SectionId, branch: &Path) {
        let own = self.id();
        let claims = self.sources.branch(section, branch).map(Branch::claims).unwrap_or_default();
        let ours: Vec<(SessionId, u32)> =
            claims.iter().filter(|claim| claim.record.home == own).map(|claim| (claim.session, claim.record.number)).collect();
        for (session, number) in ours {
            let source = self.sessions.all.get_mut(&session).and_then(|session| session.sources.get_mut(&number));
            if let Some(source) = source.filter(|source| source.section == section && source.branch == *branch) {
                source.granted = None;
            }
        }
    }

    /// A branch whose voters have refused it is tried again then, if it is wanted yet.
    pub(super) fn decide_later(&mut self, section: SectionId, branch: &Path, due: Instant) {
        self.sources.decisions.set((section, branch.clone()), due);
        self.sources.plan();
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
        let Some(known) = self.sources.homes.get(&home) else { return };
        let (back, due) = (heard > known.heard && known.next > lease, silence >= known.next.max(lease));
        let mut next = if silence < lease { lease } else { known.next };
        if back || due {
            for (section, branch) in self.concerned(&home) {
                self.judge(now, section, &branch);
            }
            if self.sources.claims_of(home, None).next().is_none() {
                self.sources.homes.remove(&home);
                return;
            }
            let claims = self.sources.claims_of(home, None).map(|(_, _, claim)| &claim.record);
            let steps = claims.flat_map(|record| [self.away_after(record), self.presumed_after(record)]);
            next = steps.filter(|step| *step > silence).chain((silence < lease).then_some(lease)).min().unwrap_or(Duration::MAX);
        }
        // A silent one may be heard again at any time.
        let look = if silence < lease { heard.after(lease) } else { heard.after(next).min(now.at.after(self.config.settle)) };
        self.sources.homes.insert(home, Home { due: look.max(Instant(now.at.0 + 1)), heard, next });
    }

    /// What is to be judged when another home falls silent, or is heard again.
    fn concerned(&self, home: &NodeId) -> BTreeSet<(SectionId, Path)> {
        let own = self.id();
        let of = |contest: &Contest| -> Vec<Path> {
            contest.claims_of(home, None).flat_map(|(branch, _)| contest.concerned(branch, &own)).collect()
        };
        self.sources.fields.iter().flat_map(|(section, field)| of(&field.contest).into_iter().map(|branch| (*section, branch))).collect()
    }

    // Writing.

    /// Writes a claim, or removes it, under its session's own authority: only its newest home has a say. Of a session that this node does not have, under what the claim stands.
    fn put_claim(&mut self, now: Now, section: SectionId, branch: &Path, session: SessionId, record: Option<&ClaimRecord>) {
        let key = Standing::Claim(BranchHash::of(branch), session);
        let value = record.map(|record| minicbor::to_vec(record).expect("encoding to memory"));
        let under = match self.sessions.all.get(&session) {
            Some(home) => home.record.under(),
            None => self.replica.standing_write(section, key).map_or_else(Under::default, |(_, write)| write.stamp.under()),
        };
        self.replica.put_standing_in(section, key, under, now.unix_ms, value);
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
        if let Some(epoch) = grant.filter(|grant| grant.is_of(&session)).map(|grant| grant.epoch + 1) {
            self.put_grant(now, section, branch, Under { epoch, rank: None }, None);
            self.give_up(now, section, branch);
        }
    }
}
