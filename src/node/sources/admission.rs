//! Who may write: every write of a client passes here. And what there is to see of sources.

use super::*;
use crate::node::requests;

impl Node {
    /// What sessions of this node may write as sources at this moment: section, branch, session and epoch.
    pub fn active_sources(&self, now: Now) -> impl Iterator<Item = (SectionId, &Path, SessionId, u64)> {
        self.sessions.all.iter().flat_map(move |(id, session)| {
            let acting = session.sources.values().filter(move |source| self.acts(now.at, source));
            acting.filter_map(|source| Some((source.section, &source.branch, *id, source.active()?.epoch)))
        })
    }

    /// Whether this node's clock says that a source which is active may act: always, unless its section's voters have to have said so of late.
    pub(super) fn acts(&self, now: Instant, source: &Source) -> bool {
        !self.quorums.contains(source.section) || self.quorums.holds(now, source.section, &source.branch)
    }

    /// Under what a client may write to a path.
    ///
    /// # Errors
    /// Where a source stands above it that is not the client's, or where what the client writes under has ended.
    pub(in crate::node) fn authority(
        &self,
        now: Now,
        connection: ConnectionId,
        path: &Path,
        under: Option<Authority>,
    ) -> Result<Under, Refusal> {
        if under.is_none() && self.sources.fields.is_empty() && self.quorums.is_empty() {
            return Ok(Under::default());
        }
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
            return match known.active() {
                _ if known.is_granted(epoch) && !self.acts(now.at, known) => Err(self.no_majority(section, path)),
                Some(active) if active.epoch == epoch => Ok(active.clone()),
                _ if is(Sabotage::StaleEpochs) => {
                    let at = session.and_then(|id| self.sessions.all.get(&id)).map_or(0, |session| session.record.epoch);
                    let rank = claimed.and_then(|(_, branch)| branch.claim(&session?)).map(|claim| Arc::new(claim.rank(at)));
                    Ok(Under { epoch, rank })
                }
                _ => Err(self.fenced(path, claimed, epoch)),
            };
        }
        let Some((branch, known)) = claimed else {
            if self.quorums.contains(section) {
                let why = "its section is arbitrated by quorum and takes writes of sources only";
                return Err(
                    Refusal::new(Code::QuorumOnly, path.as_str(), why).hint("claim it, or a branch above it: mangrove source claim")
                );
            }
            let epoch = contest.map_or(0, |contest| contest.open_epoch(path));
            return Ok(Under { epoch, rank: None });
        };
        let claim = session.and_then(|id| known.claim(&id));
        let own = own.zip(claim).and_then(|(sources, claim)| sources.get(&claim.record.number));
        if let Some(own) = own.filter(|own| own.granted.is_some() && !self.acts(now.at, own)) {
            return Err(self.no_majority(own.section, path));
        }
        if let Some(active) = own.and_then(Source::active) {
            return Ok(active.clone());
        }
        let holder = known.rightful(life).or(known.claims().first());
        Err(match holder {
            Some(claim) => self.exclusive(path, claim),
            None => Refusal::new(Code::Exclusive, path.as_str(), format!("the branch {branch} is claimed")),
        })
    }

    pub(super) fn exclusive(&self, path: &Path, claim: &Claim) -> Refusal {
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
    pub(super) fn holder_name(&self, claim: &Claim) -> String {
        format!("session {} on {}", claim.session.short(), self.node_name(&claim.record.home))
    }

    pub(in crate::node) fn node_name(&self, node: &NodeId) -> String {
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
    pub(in crate::node) fn source_rows(&self, page: &Page) -> Response {
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
    pub(in crate::node) fn source_detail(&self, now: Now, branch: &str) -> Result<Response, Refusal> {
        let path = requests::parse_path(branch)?;
        let section = self.locate_branch(&path)?;
        let known = self.sources.branch(section, &path).ok_or_else(|| {
            Refusal::new(Code::UnknownSource, path.as_str(), "nobody has claimed this branch").hint("see: mangrove source ls")
        })?;
        let arbitration = self.replica.policy(section).map(|policy| policy.arbitration).unwrap_or_default();
        let lease_left = known.holder().map(|claim| match claim.record.home == self.id() {
            true if self.quorums.contains(section) => self.authority_left(now.at, section, &path),
            true => self.lease(),
            false => self.away_after(&claim.record).saturating_sub(now.at.since(self.heard(&claim.record.home))),
        });
        Ok(Response::Source(Box::new(SourceDetail {
            row: self.source_row(section, &path, known),
            queue: known.claims().iter().map(|claim| self.claim_row(claim)).collect(),
            arbitration: arbitration.to_string(),
            lease_left_ms: lease_left.map(|left| left.as_millis() as u64),
            voters: self.voter_rows(now.at, section, Some(&path)),
        })))
    }

    /// All claims that this node knows, with their branches, branch by branch in order within a section.
    pub(in crate::node) fn all_claims(&self) -> impl Iterator<Item = (&Path, &Branch, &Claim)> {
        let branches = self.sources.fields.values().flat_map(|field| field.contest.after(None));
        branches.flat_map(|(path, branch)| branch.claims().iter().map(move |claim| (path, branch, claim)))
    }

    /// A branch of a section that a session of this node has claimed.
    pub(in crate::node) fn own_branch_in(&self, section: SectionId) -> Option<&Path> {
        let sources = self.sessions.all.values().flat_map(|session| session.sources.values());
        sources.into_iter().find(|source| source.section == section).map(|source| &source.branch)
    }

    /// The first of some topics whose branch another session has claimed.
    pub(in crate::node) fn claimed_by_others(&self, now: Now, connection: ConnectionId, paths: &[Path]) -> Option<Refusal> {
        let refused = |path: &Path| self.authority(now, connection, path, None).err().filter(|refusal| refusal.code != Code::QuorumOnly);
        paths.iter().find_map(refused)
    }
}
