//! A voter of a section: who it holds branches for, and what it must never forget.

use std::collections::{BTreeMap, BTreeSet};

use minicbor::{Decode, Encode};

use super::{Ballot, Branch, Configuration, Lease, Proposal, Refusal, Reply, Request, Standing};
use crate::sabotage::{Sabotage, is};

/// How many give-aways a voter remembers for one owner. Whoever was away for so long that others took more is told that all is void instead.
pub const GIVEN_MAX: usize = 4_000;

/// How many owners without a live lease a voter remembers: incarnations that never return must not pile up.
pub const LAPSED_MAX: usize = 64;

/// What a voter keeps in its node's vault: with it lost, the voter is lost, and its node comes back as another.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Encode, Decode)]
pub struct Vault<O, V: Ord> {
    /// The highest epoch that it ever accepted in the section, or was handed with a configuration. Never falls.
    #[n(0)]
    pub highest: u64,
    /// The configuration in force here.
    #[n(1)]
    pub configuration: Configuration<V>,
    /// The greatest ballot promised, with the number of the configuration that it would follow.
    #[n(2)]
    pub promised: Option<(u64, Ballot<O>)>,
    /// The proposal accepted to follow the configuration in force, or a later one.
    #[n(3)]
    pub accepted: Option<Proposal<O, V>>,
}

impl<O, V: Ord> Default for Vault<O, V> {
    fn default() -> Self {
        Vault { highest: 0, configuration: Configuration::default(), promised: None, accepted: None }
    }
}

/// What the voter's shell has to do after a request, in this order.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[must_use = "what is promised must be durable before it is said"]
pub struct Effects<O, V: Ord, B> {
    /// The vault has changed: make [`Voter::vault`] durable before any of the replies leaves.
    pub persist: bool,
    /// Timers to start, or to start again from zero.
    pub timers: Vec<Timer<O>>,
    /// What to answer to whoever asked.
    pub replies: Vec<Reply<O, V, B>>,
}

impl<O, V: Ord, B> Default for Effects<O, V, B> {
    fn default() -> Self {
        Effects { persist: false, timers: Vec::new(), replies: Vec::new() }
    }
}

impl<O, V: Ord, B> Effects<O, V, B> {
    fn reply(reply: Reply<O, V, B>) -> Self {
        Effects { replies: vec![reply], ..Effects::default() }
    }
}

/// A voter's timers. All run on a clock that goes on while the machine sleeps.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Timer<O> {
    /// When to call [`Voter::lapse`] for this owner: after the exclusion time.
    Lapse(O),
    /// When to call [`Voter::pause_over`]: after the exclusion time.
    Pause,
    /// When to call [`Voter::quarantine_over`]: after the quarantine.
    Quarantine,
}

/// What a voter knows of an owner: one incarnation of a node.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Tenant<B> {
    stint: u64,
    /// Whether the exclusion time runs. Without it nothing of this owner stands in anybody's way.
    live: bool,
    /// How many leases it has here.
    held: usize,
    /// How often something of it was cleared here.
    cleared: u64,
    /// What was given to others and the owner may not have heard yet, by the number that `cleared` then had: branch and ballot counter.
    given: BTreeMap<u64, (B, u64)>,
}

/// A voter of one section. See the [module's essay](super) for the protocol.
///
/// The shell passes each request to [`Voter::handle`] and performs the [`Effects`] in order. It owns the timers.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Voter<O, V: Ord, B> {
    me: V,
    run: u64,
    vault: Vault<O, V>,
    quarantined: bool,
    paused: bool,
    /// The ballot for which the highest epoch was accepted, in this run.
    granting: Option<Ballot<O>>,
    stints: u64,
    tenants: BTreeMap<O, Tenant<B>>,
    leases: BTreeMap<B, Lease<O>>,
}

impl<O: Clone + Ord, V: Clone + Ord, B: Branch> Voter<O, V, B> {
    /// A voter whose vault was made in this very run of its node: it has forgotten nothing. `run` is the node's boot counter.
    pub fn founded(me: V, run: u64, vault: Vault<O, V>) -> Self {
        Voter {
            me,
            run,
            vault,
            quarantined: false,
            paused: false,
            granting: None,
            stints: 0,
            tenants: BTreeMap::new(),
            leases: BTreeMap::new(),
        }
    }

    /// A voter that comes back with its vault. It has forgotten its leases, so it is silent until [`Voter::quarantine_over`]. `run` is greater than
    /// in any run before.
    pub fn restarted(me: V, run: u64, vault: Vault<O, V>) -> Self {
        Voter { quarantined: true, ..Voter::founded(me, run, vault) }
    }

    /// Who it is.
    pub fn id(&self) -> &V {
        &self.me
    }

    /// What has to be durable.
    pub fn vault(&self) -> &Vault<O, V> {
        &self.vault
    }

    /// The run that it was made with.
    pub fn run(&self) -> u64 {
        self.run
    }

    /// Whether it is silent, because it may have forgotten leases.
    pub fn is_quarantined(&self) -> bool {
        self.quarantined
    }

    /// Whom it holds a branch for, if it does: what stands in the way of others, there, above and below.
    pub fn live_lease(&self, branch: &B) -> Option<&Lease<O>> {
        self.leases.get(branch).filter(|lease| self.is_live(&lease.ballot.owner))
    }

    /// The quarantine has passed since this run began.
    pub fn quarantine_over(&mut self) {
        self.quarantined = false;
    }

    /// The exclusion time has passed since a configuration started here.
    pub fn pause_over(&mut self) {
        self.paused = false;
    }

    /// The exclusion time has passed since the timer of this owner was last started.
    pub fn lapse(&mut self, owner: &O) {
        let Some(tenant) = self.tenants.get_mut(owner) else { return };
        tenant.live = false;
        if tenant.held == 0 {
            self.tenants.remove(owner);
        }
        self.bound_lapsed();
    }

    /// Takes a request.
    pub fn handle(&mut self, request: Request<O, V, B>) -> Effects<O, V, B> {
        match request {
            Request::Start { configuration, highest } => self.start(configuration, highest),
            _ if self.quarantined => Effects::default(),
            Request::Ask { number, ballot, branches } => match self.elsewhere(number, &ballot.owner) {
                Some(elsewhere) => Effects::reply(elsewhere),
                None => Effects::reply(self.tell(ballot, branches)),
            },
            Request::Propose { number, ballot, epoch, granted, branches } => match self.elsewhere(number, &ballot.owner) {
                Some(elsewhere) => Effects::reply(elsewhere),
                None => self.propose(ballot, epoch, granted, branches),
            },
            Request::Renew { number, owner, round, heard, anew } => match self.elsewhere(number, &owner) {
                Some(elsewhere) => Effects::reply(elsewhere),
                None => self.renew(owner, round, heard, anew),
            },
            Request::Release { ballot, branches } => self.release(ballot, branches),
            Request::Prepare { after, ballot } => self.prepare(after, ballot),
            Request::Endorse(proposal) => self.endorse(proposal),
        }
    }

    // Leases.

    /// What to answer to an owner that counts in configuration `number`, unless that is in force here.
    fn elsewhere(&self, number: u64, owner: &O) -> Option<Reply<O, V, B>> {
        let Configuration { number: ours, voters } = &self.vault.configuration;
        let serves_on = self.vault.accepted.is_none() || is(Sabotage::ServesAfterEndorsing);
        if *ours == number && voters.contains(&self.me) && serves_on {
            return None;
        }
        Some(Reply::Elsewhere {
            voter: self.me.clone(),
            owner: owner.clone(),
            configuration: self.vault.configuration.clone(),
            next: self.vault.accepted.as_ref().filter(|next| next.after == *ours).map(|next| next.voters.clone()),
            highest: self.vault.highest,
        })
    }

    fn tell(&self, ballot: Ballot<O>, branches: Vec<B>) -> Reply<O, V, B> {
        let (voter, number) = self.signature();
        if self.paused {
            return Reply::Refused { voter, number, ballot, refusal: Refusal::Paused(branches) };
        }
        let others = |branch: B| self.in_the_way(&branch, &ballot.owner).cloned().map(|lease| (branch, lease));
        let taken = branches.into_iter().filter_map(others).collect();
        Reply::Told { voter, number, ballot, highest: self.vault.highest, taken }
    }

    fn propose(&mut self, ballot: Ballot<O>, epoch: u64, granted: Option<Standing>, branches: Vec<B>) -> Effects<O, V, B> {
        let (voter, number) = self.signature();
        if granted.is_some_and(|heard| heard != self.standing(&ballot.owner)) {
            return Effects::default();
        }
        if granted.is_none() {
            let highest = self.vault.highest;
            let refusal = if self.paused {
                Some(Refusal::Paused(branches.clone()))
            } else if epoch > highest || (epoch == highest && self.granting.as_ref() == Some(&ballot)) {
                None
            } else {
                Some(Refusal::Epoch { highest, branches: branches.clone() })
            };
            if let Some(refusal) = refusal {
                return Effects::reply(Reply::Refused { voter, number, ballot, refusal });
            }
        }
        let mut accepted = Vec::new();
        let mut taken = Vec::new();
        for branch in branches {
            match self.in_the_way(&branch, &ballot.owner) {
                Some(lease) if !is(Sabotage::Overwrites) => taken.push((branch, lease.clone())),
                _ if self.own_later(&branch, &ballot) => (),
                _ => accepted.push(branch),
            }
        }
        let mut effects = Effects::default();
        if !accepted.is_empty() {
            if epoch > self.vault.highest {
                self.vault.highest = epoch;
                effects.persist = true;
                self.granting = granted.is_none().then(|| ballot.clone());
            }
            for branch in &accepted {
                self.hold(branch, Lease { ballot: ballot.clone(), epoch });
            }
            self.tenant(&ballot.owner).live = true;
            effects.timers.push(Timer::Lapse(ballot.owner.clone()));
            let standing = self.standing(&ballot.owner);
            let (voter, ballot) = (voter.clone(), ballot.clone());
            effects.replies.push(Reply::Accepted { voter, number, ballot, epoch, standing, branches: accepted });
        }
        if !taken.is_empty() {
            effects.replies.push(Reply::Refused { voter, number, ballot, refusal: Refusal::Taken(taken) });
        }
        effects
    }

    /// Puts a lease where no live lease of another is.
    fn hold(&mut self, branch: &B, lease: Lease<O>) {
        let owner = lease.ballot.owner.clone();
        let of_others = branch.overlapping(&self.leases).filter(|(_, lease)| lease.ballot.owner != owner);
        for given in of_others.map(|(branch, _)| branch.clone()).collect::<Vec<_>>() {
            self.give_away(given);
        }
        if self.leases.insert(branch.clone(), lease).is_none() {
            self.tenant(&owner).held += 1;
        }
    }

    /// Clears a lease that has lapsed, since somebody else gets it, or what it overlaps.
    fn give_away(&mut self, branch: B) {
        let Some(Lease { ballot, .. }) = self.leases.remove(&branch) else { return };
        let Some(tenant) = self.tenants.get_mut(&ballot.owner) else { return };
        tenant.held -= 1;
        if is(Sabotage::GivesQuietly) {
            return;
        }
        tenant.cleared += 1;
        tenant.given.insert(tenant.cleared, (branch, ballot.counter));
        if tenant.given.len() > GIVEN_MAX {
            self.forget(&ballot.owner);
        }
    }

    fn release(&mut self, ballot: Ballot<O>, branches: Vec<B>) -> Effects<O, V, B> {
        let owner = &ballot.owner;
        let mut cleared = 0;
        for branch in &branches {
            if self.leases.get(branch).is_some_and(|lease| lease.ballot == ballot) {
                self.leases.remove(branch);
                cleared += 1;
            }
        }
        if let Some(tenant) = self.tenants.get_mut(owner).filter(|_| cleared > 0) {
            tenant.held -= cleared;
            tenant.cleared += 1;
        }
        self.granting.take_if(|granting| *granting == ballot);
        Effects::reply(Reply::Released { voter: self.me.clone(), ballot, branches })
    }

    fn renew(&mut self, owner: O, round: u64, heard: Standing, anew: bool) -> Effects<O, V, B> {
        if anew && (heard.run, heard.stint) == self.stint(&owner) {
            if self.is_live(&owner) {
                return Effects::default();
            }
            self.forget(&owner);
        }
        let known = (heard.run, heard.stint) == self.stint(&owner);
        let mut timers = Vec::new();
        let mut given = Vec::new();
        if let Some(tenant) = self.tenants.get_mut(&owner) {
            if known {
                tenant.given = tenant.given.split_off(&(heard.cleared + 1));
            }
            tenant.live = true;
            timers.push(Timer::Lapse(owner.clone()));
            given.extend(tenant.given.values().cloned());
        }
        let standing = self.standing(&owner);
        let (voter, number) = self.signature();
        let replies = vec![Reply::Renewed { voter, number, owner, round, standing, given, settled: !self.paused }];
        Effects { persist: false, timers, replies }
    }

    // The configuration.

    fn prepare(&mut self, after: u64, ballot: Ballot<O>) -> Effects<O, V, B> {
        if after != self.vault.configuration.number || self.paused {
            return Effects::default();
        }
        if let Some(overruled) = self.overruled(after, &ballot) {
            return Effects::reply(overruled);
        }
        self.vault.promised = Some((after, ballot.clone()));
        let accepted = self.vault.accepted.clone().filter(|accepted| accepted.after == after);
        let reply = Reply::Promised { voter: self.me.clone(), after, ballot, accepted };
        Effects { persist: true, timers: Vec::new(), replies: vec![reply] }
    }

    fn endorse(&mut self, proposal: Proposal<O, V>) -> Effects<O, V, B> {
        let Configuration { number, voters } = &self.vault.configuration;
        let concerned = voters.contains(&self.me) && *number == proposal.after || proposal.voters.contains(&self.me);
        if !concerned || proposal.after < *number || self.paused {
            return Effects::default();
        }
        if let Some(overruled) = self.overruled(proposal.after, &proposal.ballot) {
            return Effects::reply(overruled);
        }
        let (after, ballot) = (proposal.after, proposal.ballot.clone());
        self.vault.promised = Some((after, ballot.clone()));
        self.vault.accepted = Some(proposal);
        let reply = Reply::Endorsed { voter: self.me.clone(), after, ballot, highest: self.vault.highest };
        Effects { persist: true, timers: Vec::new(), replies: vec![reply] }
    }

    /// The answer to a ballot that is less than one promised.
    fn overruled(&self, after: u64, ballot: &Ballot<O>) -> Option<Reply<O, V, B>> {
        let (promised_after, promised) = self.vault.promised.as_ref()?;
        if (*promised_after, promised) <= (after, ballot) || is(Sabotage::EndorsesAny) {
            return None;
        }
        Some(Reply::Overruled { voter: self.me.clone(), after, ballot: ballot.clone(), promised: promised.clone() })
    }

    fn start(&mut self, configuration: Configuration<V>, highest: u64) -> Effects<O, V, B> {
        if configuration.number <= self.vault.configuration.number {
            return Effects::default();
        }
        let highest = if is(Sabotage::StartsFromNothing) { 0 } else { highest };
        if highest > self.vault.highest {
            self.granting = None;
        }
        self.vault.highest = self.vault.highest.max(highest);
        self.vault.accepted.take_if(|accepted| accepted.after < configuration.number);
        // Nothing came before the first: nothing can still be held under it.
        self.paused = configuration.number > 1;
        self.vault.configuration = configuration;
        let timers = if self.paused { vec![Timer::Pause] } else { Vec::new() };
        Effects { persist: true, timers, replies: Vec::new() }
    }

    // Below: what it knows.

    fn signature(&self) -> (V, u64) {
        (self.me.clone(), self.vault.configuration.number)
    }

    fn is_live(&self, owner: &O) -> bool {
        self.tenants.get(owner).is_some_and(|tenant| tenant.live)
    }

    /// The live lease of somebody else on a branch, or on one above or below it.
    fn in_the_way(&self, branch: &B, owner: &O) -> Option<&Lease<O>> {
        let leases = branch.overlapping(&self.leases).map(|(_, lease)| lease);
        leases.into_iter().find(|lease| lease.ballot.owner != *owner && self.is_live(&lease.ballot.owner))
    }

    /// Whether a later instance of the same owner is here already.
    fn own_later(&self, branch: &B, ballot: &Ballot<O>) -> bool {
        self.leases.get(branch).is_some_and(|lease| lease.ballot.owner == ballot.owner && lease.ballot.counter > ballot.counter)
    }

    /// Where it stands with an owner. With one that it does not know, at the beginning of the stint that it would begin next.
    fn standing(&self, owner: &O) -> Standing {
        let (stint, cleared) = self.tenants.get(owner).map_or((self.stints + 1, 0), |tenant| (tenant.stint, tenant.cleared));
        Standing { run: self.run, stint, cleared }
    }

    fn stint(&self, owner: &O) -> (u64, u64) {
        let Standing { run, stint, .. } = self.standing(owner);
        (run, stint)
    }

    /// What it knows of an owner, from now on if it knew nothing.
    fn tenant(&mut self, owner: &O) -> &mut Tenant<B> {
        if !self.tenants.contains_key(owner) {
            self.bound_lapsed();
        }
        self.tenants.entry(owner.clone()).or_insert_with(|| {
            self.stints += 1;
            Tenant { stint: self.stints, live: false, held: 0, cleared: 0, given: BTreeMap::new() }
        })
    }

    /// Forgets an owner that has no live lease: nothing is owed to it.
    fn forget(&mut self, owner: &O) {
        self.tenants.remove(owner);
        self.leases.retain(|_, lease| lease.ballot.owner != *owner);
        self.granting.take_if(|granting| granting.owner == *owner);
    }

    /// Forgets the owners that came first among those without a live lease, beyond [`LAPSED_MAX`].
    fn bound_lapsed(&mut self) {
        let lapsed: BTreeSet<(u64, &O)> =
            self.tenants.iter().filter(|(_, tenant)| !tenant.live).map(|(owner, tenant)| (tenant.stint, owner)).collect();
        let excess: Vec<O> = lapsed.iter().take(lapsed.len().saturating_sub(LAPSED_MAX)).map(|(_, owner)| (*owner).clone()).collect();
        for owner in excess {
            self.forget(&owner);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::Path;

    type Machine = Voter<char, u8, &'static str>;

    fn first() -> Configuration<u8> {
        Configuration { number: 1, voters: BTreeSet::from([1, 2, 3]) }
    }

    fn voter() -> Machine {
        let mut voter = Voter::founded(1, 7, Vault::default());
        let effects = voter.handle(Request::Start { configuration: first(), highest: 0 });
        assert_eq!(effects, Effects { persist: true, ..Effects::default() });
        voter
    }

    fn ballot(owner: char, counter: u64) -> Ballot<char> {
        Ballot { counter, owner }
    }

    fn propose(owner: char, counter: u64, epoch: u64, branches: &[&'static str]) -> Request<char, u8, &'static str> {
        Request::Propose { number: 1, ballot: ballot(owner, counter), epoch, granted: None, branches: branches.to_vec() }
    }

    fn renew(owner: char, round: u64, heard: Standing) -> Request<char, u8, &'static str> {
        Request::Renew { number: 1, owner, round, heard, anew: false }
    }

    fn standing(stint: u64, cleared: u64) -> Standing {
        Standing { run: 7, stint, cleared }
    }

    fn accepted(owner: char, counter: u64, epoch: u64, standing: Standing, branches: &[&'static str]) -> Reply<char, u8, &'static str> {
        Reply::Accepted { voter: 1, number: 1, ballot: ballot(owner, counter), epoch, standing, branches: branches.to_vec() }
    }

    fn refused(owner: char, counter: u64, refusal: Refusal<char, &'static str>) -> Effects<char, u8, &'static str> {
        Effects::reply(Reply::Refused { voter: 1, number: 1, ballot: ballot(owner, counter), refusal })
    }

    fn renewed(owner: char, round: u64, standing: Standing, given: &[(&'static str, u64)]) -> Effects<char, u8, &'static str> {
        let reply = Reply::Renewed { voter: 1, number: 1, owner, round, standing, given: given.to_vec(), settled: true };
        Effects { persist: false, timers: vec![Timer::Lapse(owner)], replies: vec![reply] }
    }

    #[test]
    fn what_is_free_is_held_and_the_epoch_is_durable_first() {
        let mut voter = voter();
        let effects = voter.handle(propose('a', 1, 4, &["x", "y"]));
        let timers = vec![Timer::Lapse('a')];
        assert_eq!(
            effects,
            Effects { persist: true, timers: timers.clone(), replies: vec![accepted('a', 1, 4, standing(1, 0), &["x", "y"])] }
        );
        assert_eq!(voter.vault().highest, 4);
        // Again, and more of the same ballot: the epoch is durable already.
        let effects = voter.handle(propose('a', 1, 4, &["z"]));
        assert_eq!(effects, Effects { persist: false, timers, replies: vec![accepted('a', 1, 4, standing(1, 0), &["z"])] });
    }

    #[test]
    fn a_live_lease_is_not_given_away() {
        let mut voter = voter();
        let _ = voter.handle(propose('a', 1, 4, &["x"]));
        let held = Lease { ballot: ballot('a', 1), epoch: 4 };
        let asked = voter.handle(Request::Ask { number: 1, ballot: ballot('b', 1), branches: vec!["x", "y"] });
        let told = Reply::Told { voter: 1, number: 1, ballot: ballot('b', 1), highest: 4, taken: vec![("x", held)] };
        assert_eq!(asked, Effects::reply(told));
        let effects = voter.handle(propose('b', 1, 5, &["x", "y"]));
        let replies = vec![
            accepted('b', 1, 5, standing(2, 0), &["y"]),
            Reply::Refused { voter: 1, number: 1, ballot: ballot('b', 1), refusal: Refusal::Taken(vec![("x", held)]) },
        ];
        assert_eq!(effects, Effects { persist: true, timers: vec![Timer::Lapse('b')], replies });
        assert_eq!(voter.live_lease(&"x"), Some(&held));
    }

    #[test]
    fn branches_above_and_below_a_live_lease_are_in_its_way() {
        let path = |text: &str| Path::parse(text).unwrap();
        let mut voter: Voter<char, u8, Path> = Voter::founded(1, 7, Vault::default());
        let _ = voter.handle(Request::Start { configuration: first(), highest: 0 });
        let mut ask = |owner, epoch, branch: &str| {
            let ballot = ballot(owner, epoch);
            let effects = voter.handle(Request::Propose { number: 1, ballot, epoch, granted: None, branches: vec![path(branch)] });
            let accepted = matches!(effects.replies[..], [Reply::Accepted { .. }]);
            if owner == 'z' {
                voter.lapse(&'a');
            }
            accepted
        };
        assert!(ask('a', 1, "s/a/b"));
        for branch in ["s/a/b", "s/a", "s", "s/a/b/c"] {
            assert!(!ask('b', 2, branch), "{branch}");
        }
        for branch in ["s/a/bc", "s/b"] {
            assert!(ask('b', 2, branch), "{branch}");
        }
        assert!(ask('z', 3, "other"));
        // What has lapsed is given away with what lies above or below it, and its owner is told.
        assert!(ask('c', 4, "s/a/b/c"));
        let effects = voter.handle(Request::Renew { number: 1, owner: 'a', round: 1, heard: standing(1, 0), anew: false });
        assert!(matches!(&effects.replies[..], [Reply::Renewed { given, .. }] if given[..] == [(path("s/a/b"), 1)]), "{effects:?}");
    }

    #[test]
    fn an_epoch_serves_one_ballot() {
        let mut voter = voter();
        let _ = voter.handle(propose('a', 1, 4, &["x"]));
        let low = Refusal::Epoch { highest: 4, branches: vec!["y"] };
        assert_eq!(voter.handle(propose('b', 9, 4, &["y"])), refused('b', 9, low.clone()));
        assert_eq!(voter.handle(propose('a', 2, 4, &["y"])), refused('a', 2, low));
    }

    #[test]
    fn a_release_clears_its_own_instance_only_and_for_good() {
        let mut voter = voter();
        let _ = voter.handle(propose('a', 2, 4, &["x"]));
        let release = |counter| Request::Release { ballot: ballot('a', counter), branches: vec!["x"] };
        let released = |counter| Effects::reply(Reply::Released { voter: 1, ballot: ballot('a', counter), branches: vec!["x"] });
        assert_eq!(voter.handle(release(1)), released(1));
        assert!(voter.live_lease(&"x").is_some());
        assert_eq!(voter.handle(release(2)), released(2));
        assert_eq!(voter.live_lease(&"x"), None);
        let again = Refusal::Epoch { highest: 4, branches: vec!["x"] };
        assert_eq!(voter.handle(propose('a', 2, 4, &["x"])), refused('a', 2, again));
        // What was spread before the release comes after it.
        let late = Request::Propose { number: 1, ballot: ballot('a', 2), epoch: 4, granted: Some(standing(1, 0)), branches: vec!["x"] };
        assert_eq!(voter.handle(late), Effects::default());
    }

    #[test]
    fn what_lapsed_is_renewed_unless_it_was_given_away_and_that_is_told_until_heard() {
        let mut voter = voter();
        let _ = voter.handle(propose('a', 1, 4, &["x", "y"]));
        voter.lapse(&'a');
        assert_eq!(voter.live_lease(&"x"), None);
        let _ = voter.handle(propose('b', 1, 5, &["x"]));
        assert_eq!(voter.handle(renew('a', 1, standing(1, 0))), renewed('a', 1, standing(1, 1), &[("x", 1)]));
        assert_eq!(voter.live_lease(&"y").map(|lease| lease.ballot.owner), Some('a'));
        assert_eq!(voter.handle(renew('a', 2, standing(1, 0))), renewed('a', 2, standing(1, 1), &[("x", 1)]));
        assert_eq!(voter.handle(renew('a', 3, standing(1, 1))), renewed('a', 3, standing(1, 1), &[]));
    }

    #[test]
    fn an_owner_without_leases_is_forgotten_and_met_in_a_new_stint() {
        let mut voter = voter();
        let _ = voter.handle(propose('a', 1, 4, &["x"]));
        let _ = voter.handle(Request::Release { ballot: ballot('a', 1), branches: vec!["x"] });
        voter.lapse(&'a');
        let stranger = Effects { timers: Vec::new(), ..renewed('a', 1, standing(2, 0), &[]) };
        assert_eq!(voter.handle(renew('a', 1, standing(1, 1))), stranger);
    }

    #[test]
    fn who_asks_to_be_forgotten_is_once_its_leases_have_lapsed() {
        let mut voter = voter();
        let _ = voter.handle(propose('a', 1, 4, &["x"]));
        let anew = Request::Renew { number: 1, owner: 'a', round: 1, heard: standing(1, 0), anew: true };
        assert_eq!(voter.handle(anew.clone()), Effects::default());
        assert!(voter.live_lease(&"x").is_some());
        voter.lapse(&'a');
        assert_eq!(voter.handle(anew), Effects { timers: Vec::new(), ..renewed('a', 1, standing(2, 0), &[]) });
        assert_eq!(voter.handle(renew('a', 2, standing(2, 0))), Effects { timers: Vec::new(), ..renewed('a', 2, standing(2, 0), &[]) });
    }

    #[test]
    fn only_so_many_lapsed_owners_are_remembered() {
        let mut voter = Voter::<u64, u8, u64>::founded(1, 7, Vault::default());
        let _ = voter.handle(Request::Start { configuration: first(), highest: 0 });
        for owner in 0..100 {
            let ballot = Ballot { counter: 1, owner };
            let _ = voter.handle(Request::Propose { number: 1, ballot, epoch: owner + 1, granted: None, branches: vec![owner] });
            voter.lapse(&owner);
        }
        assert_eq!(voter.tenants.len(), LAPSED_MAX);
        assert_eq!(voter.leases.len(), LAPSED_MAX);
    }

    #[test]
    fn a_voter_that_comes_back_is_silent_then_takes_what_is_spread_whatever_its_epoch() {
        let vault = Vault { highest: 9, configuration: first(), promised: None, accepted: None };
        let mut voter = Voter::restarted(1, 8, vault);
        let spread =
            |standing| Request::Propose { number: 1, ballot: ballot('a', 1), epoch: 4, granted: Some(standing), branches: vec!["x"] };
        let here = Standing { run: 8, stint: 1, cleared: 0 };
        assert_eq!(voter.handle(spread(here)), Effects::default());
        assert_eq!(voter.handle(propose('a', 3, 10, &["x"])), Effects::default());
        voter.quarantine_over();
        assert_eq!(voter.handle(spread(standing(1, 0))), Effects::default());
        let effects = Effects { persist: false, timers: vec![Timer::Lapse('a')], replies: vec![accepted('a', 1, 4, here, &["x"])] };
        assert_eq!(voter.handle(spread(here)), effects);
        assert_eq!(voter.vault().highest, 9);
    }

    #[test]
    fn whoever_counts_elsewhere_is_told_what_is_in_force() {
        let mut voter = voter();
        let elsewhere = |next| Effects::reply(Reply::Elsewhere { voter: 1, owner: 'a', configuration: first(), next, highest: 0 });
        assert_eq!(voter.handle(Request::Renew { number: 2, owner: 'a', round: 1, heard: standing(0, 0), anew: false }), elsewhere(None));
        // Having endorsed the next, it serves nobody.
        let next = BTreeSet::from([1, 2, 4]);
        let proposal = Proposal { after: 1, ballot: ballot('p', 1), voters: next.clone() };
        let endorsed = Reply::Endorsed { voter: 1, after: 1, ballot: ballot('p', 1), highest: 0 };
        assert_eq!(voter.handle(Request::Endorse(proposal)), Effects { persist: true, timers: Vec::new(), replies: vec![endorsed] });
        assert_eq!(voter.handle(propose('a', 1, 1, &["x"])), elsewhere(Some(next.clone())));
        // A lesser proposer is overruled.
        let overruled = Reply::Overruled { voter: 1, after: 1, ballot: ballot('o', 1), promised: ballot('p', 1) };
        assert_eq!(voter.handle(Request::Prepare { after: 1, ballot: ballot('o', 1) }), Effects::reply(overruled));
        // Once it has started, it pauses.
        let second = Configuration { number: 2, voters: next };
        let effects = voter.handle(Request::Start { configuration: second.clone(), highest: 6 });
        assert_eq!(effects, Effects { persist: true, timers: vec![Timer::Pause], replies: Vec::new() });
        assert_eq!(*voter.vault(), Vault { highest: 6, configuration: second, promised: Some((1, ballot('p', 1))), accepted: None });
        let ask = Request::Propose { number: 2, ballot: ballot('a', 1), epoch: 7, granted: None, branches: vec!["x"] };
        let paused = Reply::Refused { voter: 1, number: 2, ballot: ballot('a', 1), refusal: Refusal::Paused(vec!["x"]) };
        assert_eq!(voter.handle(ask.clone()), Effects::reply(paused));
        voter.pause_over();
        assert!(voter.handle(ask).persist);
    }
}
