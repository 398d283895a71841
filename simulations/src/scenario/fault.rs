//! What goes wrong, and when.

use super::{
    Time,
    keys::{BadScenario, Keys, Unit, nearest},
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
    /// A node has taken over a neighbour's state.
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
    /// It is lost: sent again, ever more slowly, after the heal.
    Drop,
    /// It is kept, and all of it arrives at the heal.
    Hold,
    /// It takes so many times as long.
    Slow(f64),
}

/// Whom a partition separates.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Shape {
    /// Every side from every other.
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
    /// A process stands still; what comes in waits.
    Pause(Who),
    /// A process takes so many times as long for everything.
    SlowNode(Who, f64),
    /// The wall clock jumps by so many microseconds.
    ClockJump(Who, Amount),
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
    /// The first other node that runs revokes this one.
    Revoke(Who),
    /// A node leaves its mesh, for good.
    Leave(Who),
    /// A node gives up a section, and takes it again when the fault is over.
    DropSection(Who),
    /// Bytes that are no frames, or parts of frames, arrive on a link.
    Garbage(Who),
    /// Frames of an old connection arrive under its old name.
    Replay(Who),
    /// For each seed some of these kinds are switched on, each with a rate of its own.
    Swarm {
        /// Which.
        from: Vec<String>,
        /// How likely each is switched on.
        probability: f64,
        /// The mean time between two faults of a kind that is on, in microseconds.
        mean: f64,
    },
}

/// Kinds that take no more words than a node, so that a swarm may draw them.
pub const KINDS: [&str; 22] = [
    "partition",
    "clog",
    "crash",
    "restart",
    "pause",
    "slow-node",
    "clock-jump",
    "clock-drift",
    "disk-slow",
    "disk-fail",
    "disk-read-only",
    "disk-full",
    "bitflip",
    "lying-disk",
    "backup",
    "clients-vanish",
    "revoke",
    "leave",
    "drop-section",
    "garbage",
    "replay",
    "swarm",
];

/// What a kind is in a swarm: drawn nodes, usual strength and length. One word may stand for several ways to crash or to part.
pub fn swarm_kind(word: &str) -> Option<(FaultKind, Option<Amount>)> {
    let second = |from: f64, to: f64| Some(Amount::Uniform { min: from * 1e6, max: to * 1e6 });
    let who = Who::Random;
    Some(match word {
        "partition" => (FaultKind::Partition(Shape::Halves, Mode::Drop), second(0.5, 15.0)),
        "isolate" => (FaultKind::Partition(Shape::Isolate(Who::Random), Mode::Drop), second(0.5, 25.0)),
        "majority-ring" => (FaultKind::Partition(Shape::MajorityRing, Mode::Drop), second(1.0, 15.0)),
        "clog" => (FaultKind::Partition(Shape::Link, Mode::Hold), second(0.1, 5.0)),
        "cut" => (FaultKind::Partition(Shape::Link, Mode::Drop), second(0.1, 30.0)),
        "slow-link" => (FaultKind::Partition(Shape::Link, Mode::Slow(20.0)), second(1.0, 10.0)),
        "crash" => (FaultKind::Crash(who, Crash::Persisted), second(0.1, 10.0)),
        "power-loss" => (FaultKind::Crash(who, Crash::LoseUnsynced), second(0.1, 10.0)),
        "amnesia" => (FaultKind::Crash(who, Crash::Amnesia), second(0.1, 10.0)),
        "replacement" => (FaultKind::Crash(who, Crash::WipedNewId), second(0.1, 10.0)),
        "restored-backup" => (FaultKind::Crash(who, Crash::Backup), second(0.1, 10.0)),
        "restart" => (FaultKind::Restart(who), second(0.1, 1.0)),
        "pause" => (FaultKind::Pause(who), second(0.1, 25.0)),
        "slow-node" => (FaultKind::SlowNode(who, 50.0), second(1.0, 10.0)),
        "clock-jump" => (FaultKind::ClockJump(who, Amount::Uniform { min: -3_600e6, max: 3_600e6 }), None),
        "clock-drift" => (FaultKind::ClockDrift(who, Amount::Uniform { min: -500.0, max: 500.0 }), None),
        "disk-slow" => (FaultKind::DiskSlow(who, 50.0), second(1.0, 10.0)),
        "disk-fail" => (FaultKind::DiskFail(who), second(0.2, 10.0)),
        "disk-read-only" => (FaultKind::DiskReadOnly(who), second(0.2, 10.0)),
        "disk-full" => (FaultKind::DiskFull(who), second(0.5, 10.0)),
        "bitflip" => (FaultKind::BitFlip(who), second(0.1, 5.0)),
        "lying-disk" => (FaultKind::LyingDisk(who), second(1.0, 20.0)),
        "backup" => (FaultKind::Backup(who), None),
        "clients-vanish" => (FaultKind::ClientsVanish(who), None),
        "leave" => (FaultKind::Leave(who), None),
        "drop-section" => (FaultKind::DropSection(who), second(0.1, 10.0)),
        "garbage" => (FaultKind::Garbage(who), None),
        "replay" => (FaultKind::Replay(who), None),
        _ => return None,
    })
}

/// The words that a swarm knows.
pub const SWARM: [&str; 28] = [
    "partition",
    "isolate",
    "majority-ring",
    "clog",
    "cut",
    "slow-link",
    "crash",
    "power-loss",
    "amnesia",
    "replacement",
    "restored-backup",
    "restart",
    "pause",
    "slow-node",
    "clock-jump",
    "clock-drift",
    "disk-slow",
    "disk-fail",
    "disk-read-only",
    "disk-full",
    "bitflip",
    "lying-disk",
    "backup",
    "clients-vanish",
    "leave",
    "drop-section",
    "garbage",
    "replay",
];

/// Reads one fault. `node` finds the nodes that a pattern means.
pub(super) fn read(mut keys: Keys, nodes: &dyn Fn(&str) -> Vec<usize>) -> Result<FaultSpec, BadScenario> {
    let kind = keys.word("kind", &KINDS)?.ok_or_else(|| keys.bad("kind", "is missing"))?;
    let who = who(&mut keys, nodes)?;
    let need = |keys: &Keys| who.clone().ok_or_else(|| keys.bad("node", "is missing: whom does it strike?"));
    let factor = |keys: &mut Keys| Ok(keys.number("factor")?.unwrap_or(20.0).max(1.0));
    let by = |keys: &mut Keys, unit| keys.amount("by", unit)?.ok_or_else(|| keys.bad("by", "is missing: by how much?"));
    let kind = match kind.as_str() {
        "partition" => FaultKind::Partition(shape(&mut keys, &who, nodes)?, mode(&mut keys, Mode::Drop)?),
        "clog" => FaultKind::Partition(if keys.has("type") { shape(&mut keys, &who, nodes)? } else { Shape::Link }, Mode::Hold),
        "crash" => {
            let states = ["persisted", "lose-unsynced", "amnesia-same-id", "wiped-new-id", "backup", "dead"];
            let state =
                keys.word("state", &states)?.ok_or_else(|| keys.bad("state", format!("is missing: one of {}", states.join(", "))))?;
            let state = match state.as_str() {
                "persisted" => Crash::Persisted,
                "lose-unsynced" => Crash::LoseUnsynced,
                "amnesia-same-id" => Crash::Amnesia,
                "wiped-new-id" => Crash::WipedNewId,
                "backup" => Crash::Backup,
                _ => Crash::Dead,
            };
            FaultKind::Crash(need(&keys)?, state)
        }
        "restart" => FaultKind::Restart(need(&keys)?),
        "pause" => FaultKind::Pause(need(&keys)?),
        "slow-node" => FaultKind::SlowNode(need(&keys)?, factor(&mut keys)?),
        "clock-jump" => FaultKind::ClockJump(need(&keys)?, by(&mut keys, Unit::Duration)?),
        "clock-drift" => FaultKind::ClockDrift(need(&keys)?, by(&mut keys, Unit::None)?),
        "disk-slow" => FaultKind::DiskSlow(need(&keys)?, factor(&mut keys)?),
        "disk-fail" => FaultKind::DiskFail(need(&keys)?),
        "disk-read-only" => FaultKind::DiskReadOnly(need(&keys)?),
        "disk-full" => FaultKind::DiskFull(need(&keys)?),
        "bitflip" => FaultKind::BitFlip(need(&keys)?),
        "lying-disk" => FaultKind::LyingDisk(need(&keys)?),
        "backup" => FaultKind::Backup(need(&keys)?),
        "clients-vanish" => FaultKind::ClientsVanish(need(&keys)?),
        "revoke" => FaultKind::Revoke(need(&keys)?),
        "leave" => FaultKind::Leave(need(&keys)?),
        "drop-section" => FaultKind::DropSection(need(&keys)?),
        "garbage" => FaultKind::Garbage(need(&keys)?),
        "replay" => FaultKind::Replay(need(&keys)?),
        _ => {
            let from = keys.texts("from")?.ok_or_else(|| keys.bad("from", "is missing: which kinds?"))?;
            for word in &from {
                if swarm_kind(word).is_none() {
                    return Err(keys.bad("from", format!("there is no kind {word:?} for a swarm{}", nearest(word, &SWARM))));
                }
            }
            let mean = keys.duration("mean")?.unwrap_or(15_000_000) as f64;
            FaultKind::Swarm { from, probability: keys.share("enable_probability")?.unwrap_or(0.5), mean }
        }
    };
    let when = when(&mut keys, nodes, matches!(kind, FaultKind::Swarm { .. }))?;
    let lasts = ["heal_after", "restart_after", "duration"].into_iter().find(|key| keys.has(key));
    let lasts = lasts.map(|key| keys.amount(key, Unit::Duration)).transpose()?.flatten();
    if matches!(kind, FaultKind::Restart(_)) && lasts.is_none() {
        return Err(keys.bad("restart_after", "is missing: when does it start again?"));
    }
    keys.end()?;
    Ok(FaultSpec { kind, when, lasts })
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
    let types = ["complete", "partial", "bridge", "simplex", "majority-ring", "isolate", "halves", "link"];
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
    }
    let two = |sides: &[Vec<usize>]| match sides {
        [first, second] => Ok((first.clone(), second.clone())),
        _ => Err(keys.bad("sides", "must be two")),
    };
    Ok(match kind.as_str() {
        "complete" | "bridge" if sides.len() < 2 => return Err(keys.bad("sides", "must be at least two")),
        "complete" => Shape::Complete(sides),
        "bridge" => Shape::Bridge(sides),
        "partial" => two(&sides).map(|(a, b)| Shape::Partial(a, b))?,
        "simplex" => two(&sides).map(|(a, b)| Shape::Simplex(a, b))?,
        "majority-ring" => Shape::MajorityRing,
        "isolate" => Shape::Isolate(who.clone().ok_or_else(|| keys.bad("node", "is missing: whom does it isolate?"))?),
        "halves" => Shape::Halves,
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
        let process = every.word("process", &["poisson", "fixed"])?.unwrap_or_else(|| "poisson".into());
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
