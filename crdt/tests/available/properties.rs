//! What must never be, and what has to be in some run.

use stateright::Property;

use crate::{
    home::{Given, Silence, Told},
    model::{Available, BRANCHES, Record, SESSIONS, State, Wrong},
};

use mangrove_crdt::sabotage::Sabotage;

/// An epoch that no run gets to by what is bounded.
const ENDLESSLY: u8 = 12;

type Check = fn(&Available, &State) -> bool;

/// A session was told twice that it is active under one epoch.
pub const TWICE: u8 = 1;
/// A grant was not above what its node knew.
pub const STALE: u8 = 2;
/// A branch was given away while its node knew who held it, and took that for living.
pub const DISPLACED: u8 = 4;

/// Sources that may write: session, branch, epoch.
fn active(state: &State) -> impl Iterator<Item = (usize, usize, u8)> + '_ {
    let sources = (0..BRANCHES).flat_map(|branch| (0..SESSIONS).map(move |of| (of, branch)));
    sources.filter_map(|(of, branch)| Some((of, branch, state.sources[branch][of]?.active()?)))
}

/// Sources whose sessions were told that they are active, and did not hear otherwise: session, branch, epoch.
fn told_active(state: &State) -> impl Iterator<Item = (usize, usize, u8)> + '_ {
    let sources = (0..BRANCHES).flat_map(|branch| (0..SESSIONS).map(move |of| (of, branch)));
    sources.filter_map(|(of, branch)| match state.sources[branch][of]?.told {
        Told::Active(epoch) => Some((of, branch, epoch)),
        Told::Init | Told::Standby => None,
    })
}

/// Everything has spread, everybody is heard, all that had to settle has settled, and who was lost long ago is counted as away.
fn rests(model: &Available, state: &State) -> bool {
    let nodes = &state.nodes[model.nodes()];
    let away = |of: usize| {
        let wishes = state.nodes[model.home(of)].wishes;
        state.connected[of] || wishes.iter().all(|wishes| wishes[of].claim.is_none_or(|claim| claim.away))
    };
    state.apart.is_none()
        && nodes.iter().all(|node| node.decisions == 0 && node.silences.iter().all(|silence| *silence == Silence::None))
        && (0..SESSIONS).all(away)
        && model.deliveries(state).all(|(_, _, record)| record == Record::Epoch)
}

/// Whether two branches have topics in common.
fn overlap(model: &Available, one: usize, other: usize) -> bool {
    let (one, other) = (model.branch(one), model.branch(other));
    one.self_and_ancestors().any(|path| path == other.as_str()) || other.self_and_ancestors().any(|path| path == one.as_str())
}

fn one_winner(model: &Available, state: &State) -> bool {
    if !rests(model, state) {
        return true;
    }
    let verdict = model.verdict(0, &state.nodes[0]);
    model.branches().all(|branch| {
        let rightful = verdict.rightful[branch];
        let held = |told: Vec<(usize, usize, u8)>| -> Vec<u8> {
            told.into_iter().filter(|(_, on, _)| *on == branch).map(|(of, ..)| of as u8).collect()
        };
        let alone: Vec<u8> = rightful.into_iter().collect();
        held(active(state).collect()) == alone
            && held(told_active(state).collect()) == alone
            && state.nodes[model.nodes()].iter().all(|node| node.grants[branch].holder == rightful)
    })
}

fn survivors_stand(model: &Available, state: &State) -> bool {
    let Some(survivors) = state.survivors.filter(|_| rests(model, state)) else { return true };
    model.branches().all(|branch| (0..SESSIONS).all(|of| state.sources[branch][of].is_some() == survivors[branch][of]))
}

fn nothing_overlaps(model: &Available, state: &State) -> bool {
    if !rests(model, state) {
        return true;
    }
    let claimed: Vec<usize> = model.branches().filter(|branch| state.sources[*branch].iter().any(Option::is_some)).collect();
    claimed.iter().all(|one| claimed.iter().all(|other| one == other || !overlap(model, *one, *other)))
}

fn heeds_ends(model: &Available, state: &State) -> bool {
    let accepted = |of: usize, branch: usize, epoch: u8| {
        let source = state.sources[branch][of];
        let active = source.and_then(|source| source.active());
        active == Some(epoch) || source.is_some() && model.wrong == Wrong::Rule(Sabotage::StaleEpochs)
    };
    model.branches().all(|branch| {
        (0..SESSIONS).all(|of| {
            let given = state.nodes[model.home(of)].grants[branch];
            let known = |epoch: u8| given == Given { epoch, holder: Some(of as u8) };
            (1..=state.last[branch][of]).all(|epoch| !accepted(of, branch, epoch) || known(epoch))
        })
    })
}

fn losers_are_told(model: &Available, state: &State) -> bool {
    told_active(state).all(|(of, branch, epoch)| state.nodes[model.home(of)].grants[branch] == Given { epoch, holder: Some(of as u8) })
}

fn plain_is_newer(model: &Available, state: &State) -> bool {
    model.nodes().all(|at| {
        let node = &state.nodes[at];
        let open = model.verdict(at, node).open;
        model.branches().all(|branch| {
            let Some(plain) = open[branch] else { return true };
            let path = model.branch(branch);
            let above = model.branches().filter(|above| path.self_and_ancestors().any(|path| path == model.bounds.branches[*above]));
            above.into_iter().all(|above| {
                (0..SESSIONS).all(|of| {
                    let last = Given { epoch: state.last[above][of], holder: Some(of as u8) };
                    let known = last.epoch > 0 && !model.is_newer(last, node.grants[above]);
                    !known || plain > last.epoch
                })
            })
        })
    })
}

/// Whoever has a branch at rest can write all of it: nothing there was written by a source that is above it.
fn nothing_outranks(model: &Available, state: &State) -> bool {
    !rests(model, state)
        || active(state).all(|(of, branch, epoch)| {
            let own = Given { epoch, holder: Some(of as u8) };
            model.branches().filter(|other| overlap(model, branch, *other)).all(|other| {
                let written = |of: usize| Given { epoch: state.last[other][of], holder: Some(of as u8) };
                (0..SESSIONS).all(|other| written(other).epoch == 0 || !model.is_newer(written(other), own))
            })
        })
}

/// One branch, two that may write it.
fn two_apart(_: &Available, state: &State) -> bool {
    (0..BRANCHES).any(|branch| state.sources[branch].iter().flatten().filter(|source| source.active().is_some()).count() == 2)
}

/// Two have had it, one has it, the other waits.
fn loser_waits(model: &Available, state: &State) -> bool {
    let waits = |branch: usize, of: usize| {
        state.last[branch][of] > 0 && state.sources[branch][of].is_some_and(|source| source.told == Told::Standby)
    };
    state.splits > 0 && state.losses == [0; SESSIONS] && rests(model, state) && active(state).any(|(of, branch, _)| waits(branch, 1 - of))
}

fn taken_over(model: &Available, state: &State) -> bool {
    let gone = |branch: usize, of: usize| state.last[branch][of] > 0 && state.sources[branch][of].is_none();
    rests(model, state) && active(state).any(|(of, branch, epoch)| gone(branch, 1 - of) && epoch > state.last[branch][1 - of])
}

fn newcomer_waits(model: &Available, state: &State) -> bool {
    rests(model, state) && active(state).any(|(of, branch, _)| state.last[branch][1 - of] == 0 && state.sources[branch][1 - of].is_some())
}

fn resumed(_: &Available, state: &State) -> bool {
    active(state).any(|(of, branch, epoch)| epoch > 1 && state.losses[of] > 0 && state.last[branch][1 - of] == 0)
}

/// Sources that have neither been closed by their sessions nor are there.
fn overlap_closed(model: &Available, state: &State) -> bool {
    let sources = |of: usize| state.sources.iter().filter(|sources| sources[of].is_some()).count() as u8;
    rests(model, state) && (0..SESSIONS).any(|of| !state.ended[of] && sources(of) + state.closes[of] < state.claims[of])
}

/// Plain writes while a source stands that is taken for gone.
fn written_in_absence(model: &Available, state: &State) -> bool {
    model.nodes().any(|at| {
        let open = model.verdict(at, &state.nodes[at]).open;
        active(state)
            .any(|(of, branch, _)| model.home(of) != at && state.nodes[at].wishes[branch][of].claim.is_some() && open[branch].is_some())
    })
}

pub const ONE_WINNER: &str = "never other than one winner at rest, the same everywhere";
pub const SURVIVORS: &str = "never other survivors of an overlap than those that stand";
pub const APART: &str = "never two overlapping branches at rest";
pub const ENDED: &str = "never a write under an epoch that its node knows to have ended";
pub const UNTOLD: &str = "never a loser that is not told";
pub const PLAIN: &str = "never a plain write older than what a source has left";
pub const OUTRANKED: &str = "never a winner that cannot write its branch";
pub const EPOCHS: &str = "never active twice under one epoch";
pub const GRANTS: &str = "never a grant below what its node knows";
pub const ENDLESS: &str = "never grants without end";
pub const INCUMBENT: &str = "never a living incumbent displaced";

/// The properties of an instance.
pub fn all(model: &Available) -> Vec<Property<Available>> {
    let mut properties = vec![
        Property::always(ONE_WINNER, one_winner as Check),
        Property::always(SURVIVORS, survivors_stand),
        Property::always(APART, nothing_overlaps),
        Property::always(ENDED, heeds_ends),
        Property::always(UNTOLD, losers_are_told),
        Property::always(PLAIN, plain_is_newer),
        Property::always(EPOCHS, |_, state: &State| state.wrong & TWICE == 0),
        Property::always(GRANTS, |_, state: &State| state.wrong & STALE == 0),
        Property::always(ENDLESS, |_, state: &State| state.nodes.iter().all(|node| node.highest < ENDLESSLY)),
        Property::always(INCUMBENT, |_, state: &State| state.wrong & DISPLACED == 0),
    ];
    if model.bounds.writable {
        properties.push(Property::always(OUTRANKED, nothing_outranks));
    }
    let possible: [(&'static str, Check); 7] = [
        ("two apart", two_apart),
        ("loser waits", loser_waits),
        ("taken over", taken_over),
        ("newcomer waits", newcomer_waits),
        ("resumed", resumed),
        ("overlap closed", overlap_closed),
        ("written in absence", written_in_absence),
    ];
    for name in model.reached {
        let (name, is) = possible.iter().find(|(possible, _)| possible == name).expect("a name of something possible");
        properties.push(Property::sometimes(name, *is));
    }
    properties
}
