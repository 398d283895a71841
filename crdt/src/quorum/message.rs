//! What owners, voters and proposers of a change say to each other.
//!
//! Any message may be lost, repeated, delayed for ever or overtaken. Each variant says what its receiver has to do.

use std::collections::BTreeSet;

use super::{Ballot, Configuration, Lease, Proposal, Standing};

/// To a voter.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Request<O, V, B> {
    /// An owner asks before it proposes. Answer [`Reply::Told`]: the highest epoch, and what stands in the way. Nothing is promised and nothing
    /// changes.
    Ask {
        /// The configuration that the owner counts in.
        number: u64,
        /// The attempt.
        ballot: Ballot<O>,
        /// What it wants.
        branches: Vec<B>,
    },
    /// An owner wants these branches. Hold each for it, if the voter serves this configuration, holds no live lease of another owner there,
    /// and the epoch is above its highest, or is its highest and was accepted for this same ballot. Make the epoch durable, then answer
    /// [`Reply::Accepted`] for what was taken and [`Reply::Refused`] for the rest.
    ///
    /// With `granted` it is no attempt: the owner holds these leases by a majority already, and spreads them to a voter that lacks them. Then no epoch
    /// is too low, but the voter has to stand with the owner exactly where `granted` says, or the message is late and is dropped.
    Propose {
        /// The configuration that the owner counts in.
        number: u64,
        /// The instance.
        ballot: Ballot<O>,
        /// Its epoch.
        epoch: u64,
        /// How far the owner has heard the voter, if these leases are granted already.
        granted: Option<Standing>,
        /// What it wants.
        branches: Vec<B>,
    },
    /// The owner has stopped acting for these, or never began. Clear exactly this instance, never accept it again, and answer
    /// [`Reply::Released`]. It needs no configuration.
    Release {
        /// The instance.
        ballot: Ballot<O>,
        /// Which branches of it.
        branches: Vec<B>,
    },
    /// The owner renews all that it holds here, whatever the number. Extend it, also what had lapsed and nobody took, forget the give-aways that it has heard of,
    /// and answer [`Reply::Renewed`] with the others.
    Renew {
        /// The configuration that the owner counts in.
        number: u64,
        /// Whose leases.
        owner: O,
        /// Which renewal of the owner's.
        round: u64,
        /// How far the owner has heard this voter.
        heard: Standing,
        /// The owner can no longer say what it has released here. While its leases here live, neither extend them nor answer; once they have lapsed, forget
        /// it and answer as to a stranger.
        anew: bool,
    },
    /// Somebody proposes configuration `after + 1`. Promise to accept nothing of a lesser ballot for it, durably, and answer [`Reply::Promised`] with what
    /// was accepted so far; or [`Reply::Overruled`].
    Prepare {
        /// The configuration to be followed: the one in force here.
        after: u64,
        /// The attempt.
        ballot: Ballot<O>,
    },
    /// Accept this as the next configuration, unless a greater ballot was promised. From then on serve the old one no more. Make it durable, then answer
    /// [`Reply::Endorsed`] with the highest epoch, which stands still from here until the next one starts.
    Endorse(Proposal<O, V>),
    /// This configuration was chosen. If it is newer than the one in force, put it into force, raise the highest epoch to this one, durably, and pause:
    /// grant nothing new before the exclusion time has passed.
    Start {
        /// What was chosen.
        configuration: Configuration<V>,
        /// An epoch at least as high as any that was granted before.
        highest: u64,
    },
}

/// From a voter.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Reply<O, V, B> {
    /// To [`Request::Ask`]. The owner counts the voter as open to each branch asked for that is not in `taken`.
    Told {
        /// Who says so.
        voter: V,
        /// The configuration in force there.
        number: u64,
        /// What was asked.
        ballot: Ballot<O>,
        /// Its highest epoch.
        highest: u64,
        /// Live leases of others on the branches asked for.
        taken: Vec<(B, Lease<O>)>,
    },
    /// To [`Request::Propose`]. The owner counts the voter as a holder of exactly this instance, if it has heard nothing later of that voter.
    Accepted {
        /// Who says so.
        voter: V,
        /// The configuration in force there.
        number: u64,
        /// The instance.
        ballot: Ballot<O>,
        /// Its epoch.
        epoch: u64,
        /// Where the voter stood with the owner when it had accepted.
        standing: Standing,
        /// What it holds now.
        branches: Vec<B>,
    },
    /// To [`Request::Ask`] or [`Request::Propose`]: these will not be had from this voter for this ballot.
    Refused {
        /// Who says so.
        voter: V,
        /// The configuration in force there.
        number: u64,
        /// The instance.
        ballot: Ballot<O>,
        /// Why.
        refusal: Refusal<O, B>,
    },
    /// To [`Request::Release`]: this voter does not hold these. The owner need not say it again.
    Released {
        /// Who says so.
        voter: V,
        /// The instance.
        ballot: Ballot<O>,
        /// Which branches of it.
        branches: Vec<B>,
    },
    /// To [`Request::Renew`]. The owner counts the voter, for this round, towards each lease that it knows it to hold and that is not in `given`.
    Renewed {
        /// Who says so.
        voter: V,
        /// The configuration in force there.
        number: u64,
        /// Whom it answers.
        owner: O,
        /// The renewal that it answers.
        round: u64,
        /// Where the voter stands with the owner. If run or stint is new, all that the owner counted there is void.
        standing: Standing,
        /// What it held of this owner's and has given to others, by branch and ballot counter, as far as the owner had not heard it.
        given: Vec<(B, u64)>,
        /// Whether the voter's pause after the start of this configuration is over.
        settled: bool,
    },
    /// To any of an owner's requests under another configuration than the one in force, or while the voter has accepted the next. An owner that is behind moves on;
    /// one that is ahead, and knows it from a voter, answers [`Request::Start`]; and where a change is unfinished, somebody should finish it.
    Elsewhere {
        /// Who says so.
        voter: V,
        /// Whom it answers.
        owner: O,
        /// What is in force there.
        configuration: Configuration<V>,
        /// The voters of the next one, accepted there but not started.
        next: Option<BTreeSet<V>>,
        /// Its highest epoch.
        highest: u64,
    },
    /// To [`Request::Prepare`]. With a majority of these the proposer asks to endorse the proposal of the greatest ballot among them, or else its own.
    Promised {
        /// Who says so.
        voter: V,
        /// Following which configuration.
        after: u64,
        /// What it promised.
        ballot: Ballot<O>,
        /// What it had accepted to follow that configuration.
        accepted: Option<Proposal<O, V>>,
    },
    /// To [`Request::Endorse`]. With majorities of the old and of the new configuration it is chosen.
    Endorsed {
        /// Who says so.
        voter: V,
        /// Following which configuration.
        after: u64,
        /// What it accepted.
        ballot: Ballot<O>,
        /// Its highest epoch, under the old configuration for good.
        highest: u64,
    },
    /// To [`Request::Prepare`] or [`Request::Endorse`]: the proposer gives up, or tries again above this ballot.
    Overruled {
        /// Who says so.
        voter: V,
        /// Following which configuration.
        after: u64,
        /// Whose attempt.
        ballot: Ballot<O>,
        /// What the voter has promised.
        promised: Ballot<O>,
    },
}

/// Why a voter refuses branches.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Refusal<O, B> {
    /// Others hold them, by these live leases.
    Taken(Vec<(B, Lease<O>)>),
    /// The epoch is not above the voter's highest.
    Epoch {
        /// What it has to be above.
        highest: u64,
        /// What was refused.
        branches: Vec<B>,
    },
    /// A new configuration has just started there: nothing is granted before the exclusion time has passed.
    Paused(Vec<B>),
}
