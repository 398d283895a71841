//! What sessions ask: to be a source, or no more; and what becomes of their sources when they are lost and come back.

use super::*;
use crate::node::requests;

impl Node {
    /// A session wants to be the source of a branch.
    pub(in crate::node) fn source_claim(
        &mut self,
        now: Now,
        connection: ConnectionId,
        branch: &str,
        priority: i32,
        wait: bool,
        hold_ms: Option<u64>,
    ) -> Result<(Response, Needs), Refusal> {
        self.writable()?;
        let branch = requests::parse_topic_path(branch)?;
        let section = self.locate_branch(&branch)?;
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
        let Some(session) = self.sessions.all.get_mut(&id) else { return Err(requests::closing()) };
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
        session.restore_source(number, Source::of(section, &record));
        self.put_claim(now, section, &branch, id, Some(&record));
        let claimed = self.replica.last_standing_write_in(section);
        // Nothing is told of it before its number is.
        self.wait_for_disk(id, number, claimed);
        let session = self.replica.last_standing_write();
        Ok((Response::Claimed { source: number }, Needs::disk([claimed, session])))
    }

    /// A session wants a source no more.
    pub(in crate::node) fn source_close(&mut self, now: Now, connection: ConnectionId, number: u32) -> Result<(Response, Needs), Refusal> {
        let session = self.connections.get(&connection).and_then(|client| client.session);
        let source = session.and_then(|id| self.sessions.all.get(&id)?.sources.get(&number)).map(|source| source.section);
        let (Some(id), Some(section)) = (session, source) else {
            return Err(Refusal::new(Code::UnknownSource, number.to_string(), "this session has no such source"));
        };
        self.close_source(now, id, number, Closed::Released, "its session wanted it");
        Ok((Response::Done, Needs::disk([self.replica.last_standing_write_in(section)])))
    }

    /// Ends a source of a session here, whatever it was: its branch passes on.
    pub(in crate::node) fn close_source(&mut self, now: Now, session: SessionId, number: u32, reason: Closed, why: &str) {
        let Some(source) = self.end_source(session, number, reason, why) else { return };
        self.release(now, source.section, &source.branch, session);
        self.put_claim(now, source.section, &source.branch, session, None);
    }

    /// A session has been lost for so long: what it may hold no longer passes on.
    pub(in crate::node) fn sources_lost(&mut self, now: Now, session: SessionId, lost_for: Duration) {
        let Some(home) = self.sessions.all.get(&session) else { return };
        let due = home
            .sources
            .iter()
            .filter(|(_, source)| !source.away && (source.granted.is_none() && lost_for.is_zero() || lost_for >= source.hold));
        for number in due.map(|(number, _)| *number).collect::<Vec<_>>() {
            self.set_away(now, session, number, true);
        }
    }

    /// A session has come here from another home, with its claims on branches of sections that are held here.
    pub(in crate::node) fn take_over_sources(&mut self, now: Now, session: SessionId) {
        let own = self.id();
        let fields = self.sources.fields.iter().filter(|(section, _)| **section != SectionId::LOCAL);
        let claims = fields.flat_map(|(section, field)| {
            field.contest.claims_by(session).map(|(branch, claim)| (*section, branch.clone(), claim.record.clone()))
        });
        for (section, branch, record) in claims.collect::<Vec<_>>() {
            let Some(home) = self.sessions.all.get_mut(&session) else { return };
            // What two runs or homes have given one number is two sources yet.
            let number = if home.sources.contains_key(&record.number) { home.number() } else { record.number };
            let record = ClaimRecord { home: own, away: false, number, ..record };
            home.restore_source(number, Source::of(section, &record));
            self.put_claim(now, section, &branch, session, Some(&record));
        }
    }

    /// A session has gone to another home, which takes over what it knows of its claims on branches of the sections that it holds. What is left
    /// then is dropped.
    pub(in crate::node) fn sources_moved(&mut self, now: Now, session: SessionId, sources: impl Iterator<Item = Source>, to: &NodeId) {
        let holds = self.replica.node(*to).map(|record| record.holds).unwrap_or_default();
        let until = now.at.after(self.lease());
        for Source { section, branch, .. } in sources {
            self.sources.decisions.remove(&(section, branch.clone()));
            if holds.contains(&section) {
                // At once, so that the new home need not wait for the lease.
                self.give_up(now, section, &branch);
                self.sources.orphans.add((section, branch, session), until);
            } else {
                self.drop_orphan(now, section, &branch, session);
            }
        }
        self.sources.plan();
    }

    /// A session is back: its sources stand where they stood, and what it holds it holds under a new epoch.
    pub(in crate::node) fn sources_resumed(&mut self, now: Now, session: SessionId) {
        let Some(home) = self.sessions.all.get_mut(&session) else { return };
        // What was handed out before the loss is not to be written any more.
        for source in home.sources.values_mut() {
            source.granted = None;
            if let SourceState::Active { epoch } = source.told {
                let why = "its session was lost, and what it holds it gets anew".into();
                source.told = SourceState::Standby { epoch, holder: None, why };
            }
        }
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

    /// A source has tried to write over what stands under a greater epoch than its own, since another branch above or below was held then, or this
    /// one was taken for free: it gets an epoch above that.
    pub(in crate::node) fn outranked(&mut self, now: Now, connection: ConnectionId, path: &Path) {
        let Some(session) = self.connections.get(&connection).and_then(|client| client.session) else { return };
        let above = |source: &Source| source.active().is_some() && path.self_and_ancestors().any(|above| above == source.branch.as_str());
        let sources = self.sessions.all.get(&session).into_iter().flat_map(|home| &home.sources);
        let found = sources.into_iter().find(|(_, source)| above(source));
        let Some((number, section, branch, epoch)) =
            found.map(|(number, source)| (*number, source.section, source.branch.clone(), source.active().map_or(0, |under| under.epoch)))
        else {
            return;
        };
        let why = "what is there was written under a greater epoch, and it gets one above that".into();
        self.tell(session, number, SourceState::Standby { epoch, holder: None, why }, false);
        self.judge(now, section, &branch);
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
}
