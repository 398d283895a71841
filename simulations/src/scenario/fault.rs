//! What goes wrong, and when.

use super::{
    Time,
    keys::{BadScenario, Keys, Unit, nearest},
    kinds::{KINDS, usual},
};
use crate::dice::Amount;

/// One fault, or a source of faults.
#[derive(Clone, Debug)]
pub struct FaultSpec {
    /// What.
    pub kind: FaultKind,
    /// When.
    pub when: When,
    /// After how long it is over, in microseconds: the heal, the restart, the end of the pause. None for not before the settle phase.
    pub lasts: Option<Amount>,
    /// How much may go wrong at all, for faults that a swarm has drawn.
    pub budget: Budget,
}

/// How much may go wrong, so that enough is left of what is demanded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Budget {
    /// How many nodes may ever have something happen to their storage.
    pub storage_faults_max: usize,
    /// How many nodes may be down, or stand still, at once.
    pub down_max: usize,
}

impl Budget {
    /// As much as comes.
    pub const NONE: Budget = Budget { storage_faults_max: usize::MAX, down_max: usize::MAX };
}

/// When a fault strikes.
#[derive(Clone, Debug)]
pub enum When {
    /// At a time after the warm-up.
    At(Time),
    /// Again and again, so far apart.
    Every(Amount),
    /// When something is observed.
    On {
        /// What.
        event: Observed,
        /// At which node; anywhere without.
        node: Option<usize>,
        /// The how-manieth time, from 1.
        nth: u64,
        /// How long after it, in microseconds.
        delay: Amount,
    },
}

/// What a fault can wait for.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Observed {
    /// A node is in the middle of a run to a neighbour: it has sent a part of it.
    RunOpen,
    /// A node has asked a neighbour for its state and got a part of it.
    AdoptionBegun,
    /// A node has taken over a neighbour's state of a section with topics.
    AdoptionDone,
    /// A node has forgotten a removal.
    RemovalForgotten,
    /// A node has removed topics for a client.
    TopicsRemoved,
    /// A node has written a value for a client.
    ValueSet,
}

impl Observed {
    /// All, with their names.
    pub const ALL: [(&'static str, Observed); 6] = [
        ("run.open", Observed::RunOpen),
        ("adoption.begun", Observed::AdoptionBegun),
        ("adoption.done", Observed::AdoptionDone),
        ("removal.forgotten", Observed::RemovalForgotten),
        ("topics.removed", Observed::TopicsRemoved),
        ("value.set", Observed::ValueSet),
    ];
}

/// Whom a fault strikes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Who {
    /// These, all of them.
    Nodes(Vec<usize>),
    /// Anyone, drawn each time.
    Random,
    /// One after the other.
    Next,
    /// The node at which the awaited event was observed.
    Observed,
    /// The neighbour that the awaited event was about.
    Peer,
}

/// How a node ends when it crashes, and with what it starts again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Crash {
    /// The process is killed; what it handed to the system is kept.
    Persisted,
    /// The power goes; what was not synced is lost.
    LoseUnsynced,
    /// The power goes in the middle of a write: of what was not synced, a part of a batch is on the disk, and recovery drops it.
    TornWrite,
    /// The journal has lost its tail, synced or not: the disk is as it was a few batches ago. What is lost by it is permitted.
    Truncated,
    /// The disk is lost, and the node's key is not: it starts from nothing under the same identity.
    Amnesia,
    /// All is lost; another node, with another identity, takes its place.
    WipedNewId,
    /// It starts again from a backup of disk and vault, as old as the last `backup` fault, or the beginning.
    Backup,
    /// It never comes back.
    Dead,
}

/// What a partition does with what is sent.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Mode {
    /// It is lost, what is on its way too: sent again, after ever longer waits, and for good once an end has given the connection up.
    Drop,
    /// It is kept, what is on its way too, and all of it arrives at the heal at once, in order.
    Hold,
    /// It takes so many times as long.
    Slow(f64),
}

/// Whom a partition separates.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Shape {
    /// Every side from every other; who stands on none is a side with the rest.
    Complete(Vec<Vec<usize>>),
    /// The sides, but for the bridge, which reaches all.
    Bridge(Vec<Vec<usize>>),
    /// The first side from the second only; both reach all others.
    Partial(Vec<usize>, Vec<usize>),
    /// The first side is not heard by the second, and hears it.
    Simplex(Vec<usize>, Vec<usize>),
    /// Each node reaches a majority, and no two the same.
    MajorityRing,
    /// One node from all others.
    Isolate(Who),
    /// Two random halves.
    Halves,
    /// Of two random halves one is not heard by the other, and hears it.
    DeafHalf,
    /// Some nodes, each from all others, and each for as long as is drawn for it: they come back in another order.
    Swizzle,
    /// One random pair of nodes, in one direction or both.
    Link,
}

/// What happens.
#[derive(Clone, PartialEq, Debug)]
pub enum FaultKind {
    /// Nodes cannot reach each other.
    Partition(Shape, Mode),
    /// A process ends.
    Crash(Who, Crash),
    /// A process ends in good order, and starts again.
    Restart(Who),
    /// The same, and from then on it is of the newest version.
    Upgrade(Who),
    /// A process stands still; what comes in waits.
    Pause(Who),
    /// A process takes so many times as long for everything.
    SlowNode(Who, f64),
    /// The wall clock jumps by so many microseconds.
    ClockJump(Who, Amount),
    /// The wall clock jumps forth and back by so many microseconds, every tenth of a second.
    ClockStrobe(Who, Amount),
    /// Both clocks run at another rate from now on, in parts per million.
    ClockDrift(Who, Amount),
    /// The disk takes so many times as long.
    DiskSlow(Who, f64),
    /// Every write to the disk fails.
    DiskFail(Who),
    /// The disk is read only.
    DiskReadOnly(Who),
    /// The disk takes hardly anything more.
    DiskFull(Who),
    /// One bit of what is stored is flipped, and the process killed: it is found at the next start.
    BitFlip(Who),
    /// The disk says that it has synced, and has not. What is lost by it is permitted.
    LyingDisk(Who),
    /// A backup is made, for a later crash.
    Backup(Who),
    /// All clients of a node vanish in the middle of what they do.
    ClientsVanish(Who),
    /// All clients of a node that know another go there, and their node does not notice.
    ClientsMove(Who),
    /// The sessions of all clients of a node are taken up at another by somebody else who has their secrets, while they are there.
    ClientsTwin(Who),
    /// All clients of all nodes lose theirs at once, and come to this one, or to whichever of theirs there is.
    ClientsStorm(Who),
    /// The first other node that runs revokes this one.
    Revoke(Who),
    /// A node leaves its mesh, for good.
    Leave(Who),
    /// A node gives up a section, and takes it again when the fault is over.
    DropSection(Who),
    /// Bytes that are no frames, or parts of frames, arrive on a link.
    Garbage(Who),
    /// Frames of an earlier connection arrive again: under its old name, or, sent again by the peer, over the one that there is now.
    Replay(Who),
    /// For each seed some of these kinds are switched on, each with a rate of its own.
    Swarm {
        /// Which.
        from: Vec<String>,
        /// How likely each is switched on.
        probability: f64,
        /// The mean time between two faults of a kind that is on, in microseconds.
        mean: f64,
        /// How much all of them together may do.
        budget: Budget,
    },
}

/// Reads one fault. `nodes` finds the nodes that a pattern means.
pub(super) fn read(mut keys: Keys, nodes: &dyn Fn(&str) -> Vec<usize>) -> Result<FaultSpec, BadScenario> {
    let word = keys.word("kind", &KINDS.map(|(word, _)| word))?.ok_or_else(|| keys.bad("kind", "is missing"))?;
    let who = who(&mut keys, nodes)?;
    let usually = usual(&word, who.clone().unwrap_or(Who::Random), 1.0).map(|(kind, _)| kind);
    let strikes_node = usually.as_ref().is_some_and(|kind| kind.who().is_some());
    if who.is_none() && strikes_node {
        return Err(keys.bad("node", "is missing: whom does it strike?"));
    }
    let kind = match (word.as_str(), usually) {
        ("swarm", _) | (_, None) => swarm(&mut keys)?,
        ("partition", _) => FaultKind::Partition(shape(&mut keys, &who, nodes)?, mode(&mut keys, Mode::Drop)?),
        ("clog", _) if keys.has("type") => FaultKind::Partition(shape(&mut keys, &who, nodes)?, Mode::Hold),
        (_, Some(FaultKind::Partition(shape, usual))) => FaultKind::Partition(shape, mode(&mut keys, usual)?),
        ("crash", Some(FaultKind::Crash(who, _))) => FaultKind::Crash(who, crash(&mut keys)?),
        (_, Some(FaultKind::SlowNode(who, usual))) => FaultKind::SlowNode(who, factor(&mut keys, usual)?),
        (_, Some(FaultKind::DiskSlow(who, usual))) => FaultKind::DiskSlow(who, factor(&mut keys, usual)?),
        (_, Some(FaultKind::ClockJump(who, usual))) => FaultKind::ClockJump(who, keys.amount("by", Unit::Duration)?.unwrap_or(usual)),
        (_, Some(FaultKind::ClockStrobe(who, usual))) => FaultKind::ClockStrobe(who, keys.amount("by", Unit::Duration)?.unwrap_or(usual)),
        (_, Some(FaultKind::ClockDrift(who, usual))) => FaultKind::ClockDrift(who, keys.amount("by", Unit::None)?.unwrap_or(usual)),
        (_, Some(usual)) => usual,
    };
    let when = when(&mut keys, nodes, matches!(kind, FaultKind::Swarm { .. }))?;
    let said = ["heal_after", "restart_after", "duration"].into_iter().find(|key| keys.has(key));
    // Whoever plans a fault says how long it lasts, or means that it does not end.
    let lasts = said.map(|key| keys.amount(key, Unit::Duration)).transpose()?.flatten();
    if matches!(kind, FaultKind::Restart(_) | FaultKind::Upgrade(_)) && lasts.is_none() {
        return Err(keys.bad("restart_after", "is missing: when does it start again?"));
    }
    keys.end()?;
    Ok(FaultSpec { kind, when, lasts, budget: Budget::NONE })
}

fn factor(keys: &mut Keys, usual: f64) -> Result<f64, BadScenario> {
    Ok(keys.number("factor")?.unwrap_or(usual).max(1.0))
}

fn crash(keys: &mut Keys) -> Result<Crash, BadScenario> {
    let states = [
        ("persisted", Crash::Persisted),
        ("lose-unsynced", Crash::LoseUnsynced),
        ("torn-write", Crash::TornWrite),
        ("truncated", Crash::Truncated),
        ("amnesia-same-id", Crash::Amnesia),
        ("wiped-new-id", Crash::WipedNewId),
        ("backup", Crash::Backup),
        ("dead", Crash::Dead),
    ];
    let words = states.map(|(word, _)| word);
    let said = keys.word("state", &words)?.ok_or_else(|| keys.bad("state", format!("is missing: one of {}", words.join(", "))))?;
    let state = states.into_iter().find(|(word, _)| *word == said).map(|(_, state)| state);
    state.ok_or_else(|| keys.bad("state", "is missing"))
}

fn swarm(keys: &mut Keys) -> Result<FaultKind, BadScenario> {
    let from = keys.texts("from")?.ok_or_else(|| keys.bad("from", "is missing: which kinds?"))?;
    let known: Vec<&str> = KINDS.iter().filter(|(_, drawn)| *drawn).map(|(word, _)| *word).collect();
    for word in &from {
        if !known.contains(&word.as_str()) {
            return Err(keys.bad("from", format!("there is no kind {word:?} for a swarm{}", nearest(word, &known))));
        }
    }
    let mean = keys.duration("mean")?.unwrap_or(15_000_000) as f64;
    let mut budget = Budget::NONE;
    if let Some(mut table) = keys.table("budget", &[])? {
        let most = |count: Option<u64>| count.map_or(usize::MAX, |count| count as usize);
        budget.storage_faults_max = most(table.count("max_nodes_with_storage_faults")?);
        budget.down_max = most(table.count("max_down")?);
        table.end()?;
    }
    Ok(FaultKind::Swarm { from, probability: keys.share("enable_probability")?.unwrap_or(0.5), mean, budget })
}

fn who(keys: &mut Keys, nodes: &dyn Fn(&str) -> Vec<usize>) -> Result<Option<Who>, BadScenario> {
    let Some(texts) = keys.texts("node")? else { return Ok(None) };
    let special = match texts.as_slice() {
        [one] => match one.as_str() {
            "@random" => Some(Who::Random),
            "@next" => Some(Who::Next),
            "@observed" => Some(Who::Observed),
            "@peer" => Some(Who::Peer),
            other if other.starts_with('@') => {
                return Err(keys.bad("node", format!("{other} is not supported yet; there are @random, @next, @observed, @peer")));
            }
            _ => None,
        },
        _ => None,
    };
    match special {
        Some(who) => Ok(Some(who)),
        None => named(keys, "node", &texts, nodes).map(|nodes| Some(Who::Nodes(nodes))),
    }
}

pub(super) fn named(keys: &Keys, key: &str, patterns: &[String], nodes: &dyn Fn(&str) -> Vec<usize>) -> Result<Vec<usize>, BadScenario> {
    let mut found = Vec::new();
    for pattern in patterns {
        let some = nodes(pattern);
        if some.is_empty() {
            return Err(keys.bad(key, format!("no node is called {pattern:?}")));
        }
        found.extend(some);
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

fn shape(keys: &mut Keys, who: &Option<Who>, nodes: &dyn Fn(&str) -> Vec<usize>) -> Result<Shape, BadScenario> {
    let types = ["complete", "partial", "bridge", "simplex", "majority-ring", "isolate", "halves", "deaf-half", "swizzle", "link"];
    let kind = keys.word("type", &types)?.ok_or_else(|| keys.bad("type", format!("is missing: one of {}", types.join(", "))))?;
    let mut sides = Vec::new();
    for side in keys.text_lists("sides")?.unwrap_or_default() {
        sides.push(named(keys, "sides", &side, nodes)?);
    }
    if let Some(bridge) = keys.texts("bridge")? {
        let bridge = named(keys, "bridge", &bridge, nodes)?;
        if sides.iter().flatten().any(|node| bridge.contains(node)) {
            return Err(keys.bad("bridge", "the bridge stands on no side"));
        }
        if nodes("*").iter().any(|node| !bridge.contains(node) && !sides.iter().flatten().any(|other| other == node)) {
            return Err(keys.bad("bridge", "whoever is not the bridge stands on a side"));
        }
    }
    let two = |sides: &[Vec<usize>]| match sides {
        [first, second] => Ok((first.clone(), second.clone())),
        _ => Err(keys.bad("sides", "must be two")),
    };
    Ok(match kind.as_str() {
        "complete" if sides.is_empty() => return Err(keys.bad("sides", "must be at least one: the rest is another")),
        "bridge" if sides.len() < 2 => return Err(keys.bad("sides", "must be at least two")),
        "complete" => Shape::Complete(sides),
        "bridge" => Shape::Bridge(sides),
        "partial" => two(&sides).map(|(a, b)| Shape::Partial(a, b))?,
        "simplex" => two(&sides).map(|(a, b)| Shape::Simplex(a, b))?,
        "majority-ring" => Shape::MajorityRing,
        "isolate" => Shape::Isolate(who.clone().ok_or_else(|| keys.bad("node", "is missing: whom does it isolate?"))?),
        "halves" => Shape::Halves,
        "deaf-half" => Shape::DeafHalf,
        "swizzle" => Shape::Swizzle,
        _ => Shape::Link,
    })
}

fn mode(keys: &mut Keys, usual: Mode) -> Result<Mode, BadScenario> {
    let Some(text) = keys.text("mode")? else { return Ok(usual) };
    let slow = text.strip_prefix("slow(x").and_then(|rest| rest.strip_suffix(')')).and_then(|factor| factor.parse::<f64>().ok());
    match (text.as_str(), slow) {
        ("drop", _) => Ok(Mode::Drop),
        ("hold", _) => Ok(Mode::Hold),
        (_, Some(factor)) if factor >= 1.0 => Ok(Mode::Slow(factor)),
        _ => Err(keys.bad("mode", format!("{text:?} is none of drop, hold, slow(x10)"))),
    }
}

fn when(keys: &mut Keys, nodes: &dyn Fn(&str) -> Vec<usize>, is_swarm: bool) -> Result<When, BadScenario> {
    let given = ["at", "every", "when"].into_iter().filter(|key| keys.has(key)).count();
    if given > 1 {
        return Err(keys.bad("", "has one of at, every, when"));
    }
    if let Some(at) = keys.duration("at")? {
        return Ok(When::At(at));
    }
    if keys.has("every") {
        let mut every = keys.table("every", &[])?.ok_or_else(|| keys.bad("every", "must be a table"))?;
        let process = every.word("process", &["poisson", "constant"])?.unwrap_or_else(|| "poisson".into());
        let mean = every.duration("mean")?.ok_or_else(|| every.bad("mean", "is missing"))? as f64;
        every.end()?;
        if mean < 1.0 {
            return Err(keys.bad("every", "the mean must not be zero"));
        }
        return Ok(When::Every(if process == "poisson" { Amount::Exponential { mean } } else { Amount::Constant(mean) }));
    }
    if let Some(mut on) = keys.table("when", &["branch"])? {
        let name = on.text("event")?.ok_or_else(|| on.bad("event", "is missing"))?;
        let names = Observed::ALL.map(|(name, _)| name);
        let found = Observed::ALL.into_iter().find(|(known, _)| *known == name).map(|(_, event)| event);
        let event = found.ok_or_else(|| {
            on.bad("event", format!("the event {name:?} is not supported yet; there are {}{}", names.join(", "), nearest(&name, &names)))
        })?;
        let node = on.text("node")?.map(|text| named(&on, "node", &[text], nodes)).transpose()?;
        let nth = on.count("nth")?.unwrap_or(1).max(1);
        let delay = on.amount("delay", Unit::Duration)?.unwrap_or(Amount::Constant(0.0));
        on.end()?;
        return Ok(When::On { event, node: node.and_then(|nodes| nodes.first().copied()), nth, delay });
    }
    if is_swarm { Ok(When::At(0)) } else { Err(keys.bad("at", "is missing: when does it strike? one of at, every, when")) }
}

#[cfg(test)]
mod tests {
    use super::super::Scenario;
    use super::*;

    fn faults(fault: &str) -> Result<Vec<FaultSpec>, String> {
        let text = format!(
            "schema = 1\n[run]\nduration = \"1s\"\nsettle = \"1s\"\n[nodes]\ncount = 3\n[[section]]\nroot = \"s\"\n\
             [network.default]\nlatency = \"10ms\"\n[[fault]]\n{fault}\n"
        );
        Scenario::parse("faults", &text).map(|scenario| scenario.faults).map_err(|error| error.to_string())
    }

    #[test]
    fn every_word_is_a_kind_by_itself_and_a_swarm_draws_those_that_it_may() {
        for (word, drawn) in KINDS {
            let usual = usual(word, Who::Random, 1.0);
            assert_eq!(usual.is_none(), word == "swarm", "{word}");
            let swarm = faults(&format!("kind = \"swarm\"\nfrom = [\"{word}\"]"));
            assert_eq!(swarm.is_ok(), drawn, "{word}: {swarm:?}");
            if ["partition", "crash", "swarm"].contains(&word) {
                continue; // They need more words.
            }
            let node = if usual.is_some_and(|(kind, _)| kind.who().is_some()) { "node = \"n2\"" } else { "" };
            let alone = faults(&format!("kind = \"{word}\"\nat = \"1s\"\nduration = \"1s\"\n{node}")).expect(word);
            if !node.is_empty() {
                assert_eq!(alone[0].kind.who(), Some(&Who::Nodes(vec![1])), "{word}");
                let nobody = faults(&format!("kind = \"{word}\"\nat = \"1s\"\nduration = \"1s\""));
                assert!(nobody.is_err_and(|error| error.contains("whom does it strike")), "{word}");
            }
        }
    }

    #[test]
    fn a_budget_is_read_as_it_is_written() {
        let swarm = "kind = \"swarm\"\nfrom = [\"clog\"]\nbudget = { max_nodes_with_storage_faults = 2, max_down = 3 }";
        let read = faults(swarm).expect("a good swarm");
        let FaultKind::Swarm { budget, .. } = &read[0].kind else { panic!("a swarm") };
        assert_eq!(*budget, Budget { storage_faults_max: 2, down_max: 3 });
        assert!(faults(&swarm.replace("max_down", "max_up")).is_err());
    }

    #[test]
    fn whoever_is_not_the_bridge_stands_on_a_side() {
        let bridge =
            |sides: &str| faults(&format!("kind = \"partition\"\ntype = \"bridge\"\nat = \"1s\"\nsides = {sides}\nbridge = [\"n2\"]"));
        assert!(bridge("[[\"n1\"], [\"n3\"]]").is_ok());
        assert!(bridge("[[\"n1\"], [\"n2\", \"n3\"]]").is_err_and(|error| error.contains("stands on no side")));
        assert!(bridge("[[\"n1\"], [\"n1\"]]").is_err_and(|error| error.contains("stands on a side")));
    }
}
