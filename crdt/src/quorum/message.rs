//! What owners, voters and proposers of a change say to each other.
//!
//! Any message may be lost, repeated, delayed for ever or overtaken. Each variant says what its receiver has to do.

use std::collections::BTreeSet;

use minicbor::{Decode, Encode};

use super::{Ballot, Configuration, Lease, Proposal, Standing};

/// To a voter.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode, Decode)]
pub enum Request<O, V: Ord, B> {
    /// An owner asks before it proposes. Answer [`Reply::Told`]: the highest epoch, and what stands in the way. Nothing is promised and nothing
    /// changes.
    #[n(0)]
    Ask {
        /// The configuration that the owner counts in.
        #[n(0)]
        number: u64,
        /// The attempt.
        #[n(1)]
        ballot: Ballot<O>,
        /// What it wants.
        #[n(2)]
        branches: Vec<B>,
    },
    /// An owner wants these branches. Hold each for it, if the voter serves this configuration, holds no live lease of another owner there,
    /// and the epoch is above its highest, or is its highest and was accepted for this same ballot. Make the epoch durable, then answer
    /// [`Reply::Accepted`] for what was taken and [`Reply::Refused`] for the rest.
    ///
    /// With `granted` it is no attempt: the owner holds these leases by a majority already, and spreads them to a voter that lacks them. Then no epoch
    /// is too low, but the voter has to stand with the owner exactly where `granted` says, or the message is late and is dropped.
    #[n(1)]
    Propose {
        /// The configuration that the owner counts in.
        #[n(0)]
        number: u64,
        /// The instance.
        #[n(1)]
        ballot: Ballot<O>,
        /// Its epoch.
        #[n(2)]
        epoch: u64,
        /// How far the owner has heard the voter, if these leases are granted already.
        #[n(3)]
        granted: Option<Standing>,
        /// What it wants.
        #[n(4)]
        branches: Vec<B>,
    },
    /// The owner has stopped acting for these, or never began. Clear exactly this instance, never accept it again, and answer
    /// [`Reply::Released`]. It needs no configuration.
    #[n(2)]
    Release {
        /// The instance.
        #[n(0)]
        ballot: Ballot<O>,
        /// Which branches of it.
        #[n(1)]
        branches: Vec<B>,
    },
    /// The owner renews all that it holds here, whatever the number. Extend it, also what had lapsed and nobody took, forget the give-aways that it has heard of,
    /// and answer [`Reply::Renewed`] with the others.
    #[n(3)]
    Renew {
        /// The configuration that the owner counts in.
        #[n(0)]
        number: u64,
        /// Whose leases.
        #[n(1)]
        owner: O,
        /// Which renewal of the owner's.
        #[n(2)]
        round: u64,
        /// How far the owner has heard this voter.
        #[n(3)]
        heard: Standing,
        /// The owner can no longer say what it has released here. While its leases here live, neither extend them nor answer; once they have lapsed, forget
        /// it and answer as to a stranger.
        #[n(4)]
        anew: bool,
    },
    /// Somebody proposes configuration `after + 1`. Promise to accept nothing of a lesser ballot for it, durably, and answer [`Reply::Promised`] with what
    /// was accepted so far; or [`Reply::Overruled`].
    #[n(4)]
    Prepare {
        /// The configuration to be followed: the one in force here.
        #[n(0)]
        after: u64,
        /// The attempt.
        #[n(1)]
        ballot: Ballot<O>,
    },
    /// Accept this as the next configuration, unless a greater ballot was promised. From then on serve the old one no more. Make it durable, then answer
    /// [`Reply::Endorsed`] with the highest epoch, which stands still from here until the next one starts.
    #[n(5)]
    Endorse(#[n(0)] Proposal<O, V>),
    /// This configuration was chosen. If it is newer than the one in force, put it into force, raise the highest epoch to this one, durably, and pause:
    /// grant nothing new before the exclusion time has passed.
    #[n(6)]
    Start {
        /// What was chosen.
        #[n(0)]
        configuration: Configuration<V>,
        /// An epoch at least as high as any that was granted before.
        #[n(1)]
        highest: u64,
    },
}

/// From a voter.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode, Decode)]
pub enum Reply<O, V: Ord, B> {
    /// To [`Request::Ask`]. The owner counts the voter as open to each branch asked for that is not in `taken`.
    #[n(0)]
    Told {
        /// Who says so.
        #[n(0)]
        voter: V,
        /// The configuration in force there.
        #[n(1)]
        number: u64,
        /// What was asked.
        #[n(2)]
        ballot: Ballot<O>,
        /// Its highest epoch.
        #[n(3)]
        highest: u64,
        /// Live leases of others on the branches asked for.
        #[n(4)]
        taken: Vec<(B, Lease<O>)>,
    },
    /// To [`Request::Propose`]. The owner counts the voter as a holder of exactly this instance, if it has heard nothing later of that voter.
    #[n(1)]
    Accepted {
        /// Who says so.
        #[n(0)]
        voter: V,
        /// The configuration in force there.
        #[n(1)]
        number: u64,
        /// The instance.
        #[n(2)]
        ballot: Ballot<O>,
        /// Its epoch.
        #[n(3)]
        epoch: u64,
        /// Where the voter stood with the owner when it had accepted.
        #[n(4)]
        standing: Standing,
        /// What it holds now.
        #[n(5)]
        branches: Vec<B>,
    },
    /// To [`Request::Ask`] or [`Request::Propose`]: these will not be had from this voter for this ballot.
    #[n(2)]
    Refused {
        /// Who says so.
        #[n(0)]
        voter: V,
        /// The configuration in force there.
        #[n(1)]
        number: u64,
        /// The instance.
        #[n(2)]
        ballot: Ballot<O>,
        /// Why.
        #[n(3)]
        refusal: Refusal<O, B>,
    },
    /// To [`Request::Release`]: this voter does not hold these. The owner need not say it again.
    #[n(3)]
    Released {
        /// Who says so.
        #[n(0)]
        voter: V,
        /// The instance.
        #[n(1)]
        ballot: Ballot<O>,
        /// Which branches of it.
        #[n(2)]
        branches: Vec<B>,
    },
    /// To [`Request::Renew`]. The owner counts the voter, for this round, towards each lease that it knows it to hold and that is not in `given`.
    #[n(4)]
    Renewed {
        /// Who says so.
        #[n(0)]
        voter: V,
        /// The configuration in force there.
        #[n(1)]
        number: u64,
        /// Whom it answers.
        #[n(2)]
        owner: O,
        /// The renewal that it answers.
        #[n(3)]
        round: u64,
        /// Where the voter stands with the owner. If run or stint is new, all that the owner counted there is void.
        #[n(4)]
        standing: Standing,
        /// What it held of this owner's and has given to others, by branch and ballot counter, as far as the owner had not heard it.
        #[n(5)]
        given: Vec<(B, u64)>,
        /// Whether the voter's pause after the start of this configuration is over.
        #[n(6)]
        settled: bool,
    },
    /// To any of an owner's requests under another configuration than the one in force, or while the voter has accepted the next. An owner that is behind moves on;
    /// one that is ahead, and knows it from a voter, answers [`Request::Start`]; and where a change is unfinished, somebody should finish it.
    #[n(5)]
    Elsewhere {
        /// Who says so.
        #[n(0)]
        voter: V,
        /// Whom it answers.
        #[n(1)]
        owner: O,
        /// What is in force there.
        #[n(2)]
        configuration: Configuration<V>,
        /// The voters of the next one, accepted there but not started.
        #[n(3)]
        next: Option<BTreeSet<V>>,
        /// Its highest epoch.
        #[n(4)]
        highest: u64,
    },
    /// To [`Request::Prepare`]. With a majority of these the proposer asks to endorse the proposal of the greatest ballot among them, or else its own.
    #[n(6)]
    Promised {
        /// Who says so.
        #[n(0)]
        voter: V,
        /// Following which configuration.
        #[n(1)]
        after: u64,
        /// What it promised.
        #[n(2)]
        ballot: Ballot<O>,
        /// What it had accepted to follow that configuration.
        #[n(3)]
        accepted: Option<Proposal<O, V>>,
    },
    /// To [`Request::Endorse`]. With majorities of the old and of the new configuration it is chosen.
    #[n(7)]
    Endorsed {
        /// Who says so.
        #[n(0)]
        voter: V,
        /// Following which configuration.
        #[n(1)]
        after: u64,
        /// What it accepted.
        #[n(2)]
        ballot: Ballot<O>,
        /// Its highest epoch, under the old configuration for good.
        #[n(3)]
        highest: u64,
    },
    /// To [`Request::Prepare`] or [`Request::Endorse`]: the proposer gives up, or tries again above this ballot.
    #[n(8)]
    Overruled {
        /// Who says so.
        #[n(0)]
        voter: V,
        /// Following which configuration.
        #[n(1)]
        after: u64,
        /// Whose attempt.
        #[n(2)]
        ballot: Ballot<O>,
        /// What the voter has promised.
        #[n(3)]
        promised: Ballot<O>,
    },
}

/// Why a voter refuses branches.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode, Decode)]
pub enum Refusal<O, B> {
    /// Others hold them, by these live leases.
    #[n(0)]
    Taken(#[n(0)] Vec<(B, Lease<O>)>),
    /// The epoch is not above the voter's highest.
    #[n(1)]
    Epoch {
        /// What it has to be above.
        #[n(0)]
        highest: u64,
        /// What was refused.
        #[n(1)]
        branches: Vec<B>,
    },
    /// A new configuration has just started there: nothing is granted before the exclusion time has passed.
    #[n(2)]
    Paused(#[n(0)] Vec<B>),
}
