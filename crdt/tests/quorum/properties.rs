//! What must never be, and what has to be in some run.

use mangrove_crdt::quorum::{Configuration, Refusal, Reply, Request};
use stateright::Property;

use crate::{
    machines::{Message, Tables},
    model::{B, O, OWNERS, Quorum, State, V},
};

type Check = fn(&Quorum, &State) -> bool;

/// Everybody who holds a branch, by owner.
pub fn holders(tables: &Tables, state: &State, branch: B) -> Vec<(O, u64)> {
    let holds = |owner: usize| {
        let epoch = tables.owners.get(state.owners[owner]).holds(&branch, state.fired[owner].into())?;
        Some((owner as O, epoch))
    };
    (0..OWNERS).filter_map(holds).collect()
}

pub fn exclusive(model: &Quorum, state: &State) -> bool {
    model.tables(|tables| (0..model.bounds.branches).all(|branch| holders(tables, state, branch).len() <= 1))
}

pub fn fenced(model: &Quorum, state: &State) -> bool {
    model.tables(|tables| {
        let grants = tables.grants.get(state.grants);
        grants.iter().all(|(branch, epoch, owner)| grants.iter().all(|(b, e, o)| (b, e) != (branch, epoch) || o == owner))
    })
}

/// Whoever holds a branch does so under the highest epoch that was granted for it.
pub fn foremost(model: &Quorum, state: &State) -> bool {
    model.tables(|tables| {
        let grants = tables.grants.get(state.grants);
        let newest = |branch: B| grants.iter().filter(|grant| grant.0 == branch).map(|grant| grant.1).max().unwrap_or(0);
        (0..model.bounds.branches).all(|branch| holders(tables, state, branch).iter().all(|(_, epoch)| *epoch == newest(branch)))
    })
}

pub fn one_of_each_number(model: &Quorum, state: &State) -> bool {
    model.tables(|tables| {
        let mut configurations: Vec<Configuration<V>> = Vec::new();
        configurations.extend(state.voters.iter().map(|voter| tables.voters.get(*voter).vault().configuration.clone()));
        configurations.extend(state.owners.iter().map(|owner| tables.owners.get(*owner).configuration().clone()));
        let changes = state.changes.iter().filter_map(|change| tables.changes.get(*change).as_ref()?.chosen().cloned());
        configurations.extend(changes);
        configurations.iter().all(|a| configurations.iter().all(|b| a.number != b.number || a == b))
    })
}

pub fn any_message(model: &Quorum, state: &State, is: impl Fn(&Message) -> bool) -> bool {
    model.tables(|tables| state.messages().any(|message| is(tables.messages.get(message))))
}

pub fn any_holder(model: &Quorum, state: &State, is: impl Fn(&Tables, &State, O, B, u64) -> bool) -> bool {
    model.tables(|tables| {
        (0..model.bounds.branches)
            .any(|branch| holders(tables, state, branch).into_iter().any(|(owner, epoch)| is(tables, state, owner, branch, epoch)))
    })
}

pub fn granted(model: &Quorum, state: &State) -> bool {
    any_holder(model, state, |_, _, _, _, _| true)
}

pub fn renewed(model: &Quorum, state: &State) -> bool {
    any_holder(model, state, |_, state, owner, _, _| state.attempts[usize::from(owner)] <= state.fired[usize::from(owner)])
}

pub fn given_away(model: &Quorum, state: &State) -> bool {
    any_message(model, state, |message| matches!(message, Message::Reply(Reply::Renewed { given, .. }) if !given.is_empty()))
}

pub fn taken_over(model: &Quorum, state: &State) -> bool {
    any_holder(model, state, |tables, state, owner, branch, epoch| {
        tables.grants.get(state.grants).iter().any(|(b, e, o)| *b == branch && *e < epoch && *o != owner)
    })
}

pub fn had_again(model: &Quorum, state: &State) -> bool {
    any_holder(model, state, |_, _, owner, _, epoch| epoch > 1 && state.releases[usize::from(owner)] > 0)
}

pub fn spread(model: &Quorum, state: &State) -> bool {
    // An acceptance by a voter in its second run, of what was granted before it had answered anything: only what is spread is.
    any_message(
        model,
        state,
        |message| matches!(message, Message::Request(_, Request::Propose { granted: Some(heard), .. }) if heard.run == 2),
    ) && any_message(model, state, |message| matches!(message, Message::Reply(Reply::Accepted { standing, .. }) if standing.run == 2))
}

pub fn refused_by_epoch(model: &Quorum, state: &State) -> bool {
    any_message(model, state, |message| matches!(message, Message::Reply(Reply::Refused { refusal: Refusal::Epoch { .. }, .. })))
}

pub fn moved(tables: &Tables, state: &State, owner: O) -> bool {
    tables.owners.get(state.owners[usize::from(owner)]).configuration().number == 2
}

pub fn carried_over(model: &Quorum, state: &State) -> bool {
    any_holder(model, state, |tables, state, owner, _, epoch| {
        let answered = |message: u32| matches!(tables.messages.get(message), Message::Reply(Reply::Renewed { number: 2, owner: whom, .. }) if *whom == owner);
        // Held beyond what its attempt gave, with the one renewal made in the second configuration.
        epoch == 1
            && moved(tables, state, owner)
            && state.fired[usize::from(owner)] >= state.attempts[usize::from(owner)]
            && state.messages().any(answered)
    })
}

pub fn granted_anew(model: &Quorum, state: &State) -> bool {
    any_holder(model, state, |tables, state, owner, _, held| {
        let anew = |message: u32| matches!(tables.messages.get(message), Message::Reply(Reply::Accepted { number: 2, ballot, epoch, .. }) if ballot.owner == owner && *epoch == held);
        epoch_is_new(held) && state.messages().any(anew)
    })
}

/// Not one of the lease that everything begins with, which may be spread in the new configuration.
pub fn epoch_is_new(epoch: u64) -> bool {
    epoch > 1
}

/// S4a: never two owners that hold one branch.
pub const EXCLUSIVE: &str = "never two owners of one branch";
/// S4b: no epoch of a branch was granted to two owners.
pub const FENCED: &str = "never one epoch for two owners";
/// Whoever holds a branch holds it under the highest epoch ever granted for it.
pub const FOREMOST: &str = "never an owner behind a later grant";
/// No two sets of voters are in force under one number.
pub const ONE: &str = "never two configurations of one number";

/// The properties of an instance.
pub fn all(model: &Quorum) -> Vec<Property<Quorum>> {
    let mut properties = vec![Property::always(FENCED, fenced), Property::always(ONE, one_of_each_number)];
    if !model.bounds.beyond {
        properties.extend([Property::always(EXCLUSIVE, exclusive), Property::always(FOREMOST, foremost)]);
    }
    let possible: [(&'static str, Check); 9] = [
        ("granted", granted),
        ("taken over", taken_over),
        ("renewed", renewed),
        ("given away", given_away),
        ("had again", had_again),
        ("spread", spread),
        ("refused by epoch", refused_by_epoch),
        ("carried over", carried_over),
        ("granted anew", granted_anew),
    ];
    for name in model.reached {
        let (name, is) = possible.iter().find(|(possible, _)| possible == name).expect("a name of something possible");
        properties.push(Property::sometimes(name, *is));
    }
    properties
}
