//! From the text of a scenario to a [`Scenario`].

use std::{sync::Arc, time::Duration};

use mangrove_crdt::definition::Durability;
use mangrove_net::mesh::{Limits, Pace};

use super::{
    AdministratorSpec, ChecksSpec, Loss, NodeSettings, NodeSpec, PathOverride, PathSpec, Run, SECOND, Scenario, Schedule, SectionSpec,
    SourceSpec, SubscriberSpec, Time, Workload,
    contacts::Trace,
    fault::{self, named},
    files::Files,
    keys::{BadScenario, Keys, Unit},
    topology::Topology,
};
use crate::dice::{Amount, Choice, Dice};
use crate::values::{Kind, SLAVE};

/// The most nodes of one scenario: paths are kept for every pair.
const NODES_MAX: u64 = 1_000;

/// A scenario's text, before anybody knows what it means.
pub(super) fn table(name: &str, text: &str) -> Result<toml::Table, BadScenario> {
    text.parse().map_err(|error: toml::de::Error| BadScenario { place: name.into(), what: error.to_string() })
}

pub(super) fn scenario(name: &str, text: &str, files: Files) -> Result<Scenario, BadScenario> {
    let mut keys = Keys::new("", table(name, text)?, &["buggify", "output"]).within(Some(files));
    // It makes other scenarios of this one, and changes nothing here: see `sweep`.
    keys.value("sweep");
    match keys.count("schema")? {
        Some(1) => {}
        Some(_) => return Err(keys.bad("schema", "this simulator reads schema 1")),
        None => return Err(keys.bad("schema", "is missing: write schema = 1")),
    }
    let name = keys.text("name")?.unwrap_or_else(|| name.to_owned());
    let description = keys.text("description")?.unwrap_or_default();
    let run = run(table_or_empty(&mut keys, "run", &["stop_on"])?)?;
    let topology = Topology::read(table_or_empty(&mut keys, "topology", &[])?)?;
    let trace = keys.table("contacts", &[])?.map(Trace::read).transpose()?.flatten();
    let named = topology.names().or(trace.as_ref().map(|trace| trace.names.as_slice()));
    let (nodes, config) = nodes(table_or_empty(&mut keys, "nodes", &[])?, named)?;
    let find = |pattern: &str| -> Vec<usize> { (0..nodes.len()).filter(|at| matches(pattern, &nodes[*at].name)).collect() };
    let sections = sections(keys.tables("section", &[])?, &nodes)?;
    let links = topology.links(&nodes, &find)?;
    let contacts = trace.map(|trace| trace.contacts(&nodes, &links.reach)).transpose()?;
    let (network, special) = network(table_or_empty(&mut keys, "network", &[])?, &find)?;
    // What the scenario says itself counts more than what a topology's file says.
    let paths: Vec<PathOverride> = links.paths(&network).into_iter().chain(special).collect();
    if contacts.is_some() && paths.iter().map(|path| &path.path).chain([&network]).any(|path| path.schedule.is_some()) {
        return Err(keys.bad("contacts", "links come and go by a trace or by a schedule: take network's schedule out"));
    }
    let workload = workload(table_or_empty(&mut keys, "workload", &["replay"])?, &sections, nodes.len(), &find)?;
    let faults = keys.tables("fault", &["budget"])?.into_iter().map(|keys| fault::read(keys, &find)).collect::<Result<_, _>>()?;
    let checks = checks(table_or_empty(&mut keys, "checks", &[])?, run.settle, &config, &find)?;
    keys.end()?;
    let mut nodes = nodes;
    for (at, known) in links.first_known().into_iter().enumerate().skip(1) {
        if nodes[at].seeds.is_empty() {
            nodes[at].seeds = known.map(|known| nodes[known].name.clone()).into_iter().collect();
        }
    }
    Ok(Scenario { name, description, run, nodes, config, sections, reach: links.reach, contacts, network, paths, workload, faults, checks })
}

fn table_or_empty<'a>(keys: &mut Keys<'a>, key: &'static str, later: &'static [&'static str]) -> Result<Keys<'a>, BadScenario> {
    Ok(keys.table(key, later)?.unwrap_or_else(|| Keys::new(key, toml::Table::new(), later)))
}

/// Whether a pattern with stars fits a name.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((before, rest)) => name
            .strip_prefix(before)
            .is_some_and(|name| rest.is_empty() || (0..=name.len()).any(|at| name.get(at..).is_some_and(|name| matches(rest, name)))),
    }
}

fn run(mut keys: Keys) -> Result<Run, BadScenario> {
    if let Some(transport) = keys.text("transport")?.filter(|transport| transport != "model") {
        return Err(keys.bad("transport", format!("{transport:?} is not supported yet; there is model")));
    }
    let duration = keys.duration("duration")?.ok_or_else(|| keys.bad("duration", "is missing"))?;
    let mut seeds = (0, 10);
    if let Some(mut table) = keys.table("seeds", &[])? {
        seeds = (table.count("base")?.unwrap_or(0), table.count("count")?.unwrap_or(10));
        table.end()?;
    }
    let run = Run {
        warmup: keys.duration("warmup")?.unwrap_or(3 * SECOND),
        duration,
        settle: keys.duration("settle")?.unwrap_or(120 * SECOND),
        max_events: keys.count("max_events")?.unwrap_or(50_000_000),
        seeds,
    };
    keys.end()?;
    Ok(run)
}

/// `named` are the nodes of a topology's or trace's file, for a scenario that does not say which there are.
fn nodes(mut keys: Keys, named: Option<&[String]>) -> Result<(Vec<NodeSpec>, NodeSettings), BadScenario> {
    let (names, count) = (keys.texts("names")?, keys.count("count")?);
    let names = names.or_else(|| named.filter(|_| count.is_none()).map(<[String]>::to_vec));
    let count = count.or(names.as_ref().map(|names| names.len() as u64));
    let count = count.ok_or_else(|| keys.bad("count", "is missing"))?;
    if !(1..=NODES_MAX).contains(&count) {
        return Err(keys.bad("count", format!("must be from 1 to {NODES_MAX}")));
    }
    let names = names.unwrap_or_else(|| (1..=count).map(|at| format!("n{at}")).collect());
    if names.len() as u64 != count {
        return Err(keys.bad("names", format!("{} names for {count} nodes", names.len())));
    }
    let mut nodes: Vec<NodeSpec> = names
        .into_iter()
        .map(|name| NodeSpec {
            name,
            listens: true,
            seeds: Vec::new(),
            holds: None,
            offset: Amount::Constant(0.0),
            drift_ppm: Amount::Uniform { min: -50.0, max: 50.0 },
            service: Amount::Constant(20.0),
            fsync: Amount::LogNormal { median: 2_000.0, sigma: 0.8, min: 100.0, max: 200_000.0 },
            unknown: Vec::new().into(),
        })
        .collect();
    if let Some(seeds) = keys.texts("seeds")? {
        nodes.iter_mut().for_each(|node| node.seeds.clone_from(&seeds));
    }
    for mut group in keys.tables("group", &[])? {
        let pattern = group.text("match")?.ok_or_else(|| group.bad("match", "is missing"))?;
        let mut found: Vec<&mut NodeSpec> = nodes.iter_mut().filter(|node| matches(&pattern, &node.name)).collect();
        if found.is_empty() {
            return Err(group.bad("match", format!("no node is called {pattern:?}")));
        }
        let mut all = |change: &dyn Fn(&mut NodeSpec)| found.iter_mut().for_each(|node| change(node));
        if let Some(listens) = group.flag("listens")? {
            all(&|node| node.listens = listens);
        }
        if let Some(seeds) = group.texts("seeds")? {
            all(&|node| node.seeds.clone_from(&seeds));
        }
        if let Some(holds) = group.texts("holds")? {
            all(&|node| node.holds = Some(holds.clone()));
        }
        if let Some(unknown) = group.texts("unknown_types")? {
            let known = Kind::ALL.map(Kind::name).into_iter().chain([SLAVE]).collect::<Vec<_>>();
            if let Some(name) = unknown.iter().find(|name| !known.contains(&name.as_str())) {
                return Err(group.bad("unknown_types", format!("{name:?} is none of {}", known.join(", "))));
            }
            let unknown: Arc<[String]> = unknown.into();
            all(&|node| node.unknown = Arc::clone(&unknown));
        }
        if let Some(mut clock) = group.table("clock", &["steps"])? {
            if let Some(offset) = clock.amount("offset", Unit::Duration)? {
                all(&|node| node.offset = offset.clone());
            }
            if let Some(drift) = clock.amount("drift_ppm", Unit::None)? {
                all(&|node| node.drift_ppm = drift.clone());
            }
            clock.end()?;
        }
        if let Some(mut cpu) = group.table("cpu", &[])? {
            if let Some(service) = cpu.amount("service_time", Unit::Duration)? {
                all(&|node| node.service = service.clone());
            }
            cpu.end()?;
        }
        if let Some(mut disk) = group.table("disk", &["lose_unsynced_on_crash"])? {
            if let Some(fsync) = disk.amount("fsync", Unit::Duration)? {
                all(&|node| node.fsync = fsync.clone());
            }
            disk.end()?;
        }
        group.end()?;
    }
    for node in &nodes {
        if let Some(seed) = node.seeds.iter().find(|seed| !nodes.iter().any(|node| node.name == **seed)) {
            return Err(keys.bad("seeds", format!("no node is called {seed:?}")));
        }
    }
    let config = settings(table_or_empty(&mut keys, "config", &[])?)?;
    keys.end()?;
    Ok((nodes, config))
}

fn settings(mut keys: Keys) -> Result<NodeSettings, BadScenario> {
    let (pace, limits) = (Pace::default(), Limits::default());
    let mut duration = |key: &'static str, usual: Duration| -> Result<Duration, BadScenario> {
        Ok(keys.duration(key)?.map_or(usual, Duration::from_micros))
    };
    let heartbeat = duration("heartbeat", pace.pulse)?;
    let report = duration("report", pace.report)?;
    let check = duration("check", pace.check)?;
    let graft_after = duration("graft_after", pace.graft_after)?;
    let retention = duration("retention", Duration::from_secs(7 * 86_400))?;
    let lease = duration("lease", Duration::from_secs(5))?;
    let settle = duration("settle", Duration::from_millis(300))?;
    let hold = duration("hold", Duration::from_secs(5))?;
    let reconnect_timeout = duration("reconnect_timeout", Duration::from_secs(60))?;
    let presume_dead = duration("presume_dead", Duration::from_secs(7 * 86_400))?;
    let idle_timeout = duration("idle_timeout", Duration::from_secs(20))?.as_micros() as Time;
    for (key, value) in [("heartbeat", heartbeat), ("report", report), ("check", check), ("graft_after", graft_after)] {
        if value < Duration::from_millis(1) {
            return Err(keys.bad(key, "must be at least 1ms"));
        }
    }
    let config = NodeSettings {
        heartbeat,
        report,
        check,
        graft_after,
        retention,
        lease,
        drift_max_ppm: keys.count("drift_max_ppm")?.map_or(500, |ppm| ppm.clamp(1, 100_000) as u32),
        settle,
        hold,
        reconnect_timeout,
        presume_dead,
        neighbours_max: keys.count("neighbours_max")?.unwrap_or(8) as usize,
        limits: Limits {
            batch_bytes: keys.count("batch_bytes")?.map_or(limits.batch_bytes, |bytes| bytes as usize),
            batch_records: keys.count("batch_records")?.map_or(limits.batch_records, |records| records.max(1) as usize),
            runs_told: keys.count("runs_told")?.map_or(limits.runs_told, |runs| runs as usize),
            bulk_bytes: keys.count("bulk_bytes")?.map_or(limits.bulk_bytes, |bytes| bytes as usize),
            bases_bytes: keys.count("bases_bytes")?.map_or(limits.bases_bytes, |bytes| bytes as usize),
            ..limits
        },
        idle_timeout,
    };
    keys.end()?;
    Ok(config)
}

fn durability(keys: &Keys, text: Option<String>) -> Result<Option<Durability>, BadScenario> {
    let parse = |text: String| text.parse().map_err(|_| keys.bad("durability", format!("{text:?} is none of memory, disk, mesh(1), …")));
    text.map(parse).transpose()
}

fn sections(tables: Vec<Keys>, nodes: &[NodeSpec]) -> Result<Vec<SectionSpec>, BadScenario> {
    let mut sections = Vec::new();
    for mut keys in tables {
        let root = keys.text("root")?.ok_or_else(|| keys.bad("root", "is missing"))?;
        let arbitration = keys.text("arbitration")?.unwrap_or_else(|| "available".into());
        let voters = keys.texts("voters")?.unwrap_or_default();
        match (arbitration.as_str(), voters.is_empty()) {
            ("available", _) | ("quorum", false) => {}
            ("quorum", true) => return Err(keys.bad("voters", "are missing: the names of the nodes that vote")),
            _ => return Err(keys.bad("arbitration", format!("{arbitration:?} is neither available nor quorum"))),
        }
        if let Some(unknown) = voters.iter().find(|voter| nodes.iter().all(|node| node.name != **voter)) {
            return Err(keys.bad("voters", format!("no node is called {unknown:?}")));
        }
        // An available section asks none: so that arbitration alone can be swept.
        let voters = if arbitration == "quorum" { voters } else { Vec::new() };
        let text = keys.text("durability")?;
        let durability = durability(&keys, text)?.unwrap_or(Durability::Disk);
        let lease = keys.duration("lease")?.map(Duration::from_micros);
        let retention = Duration::from_micros(keys.duration("retention")?.unwrap_or(7 * 86_400 * SECOND));
        keys.end()?;
        sections.push(SectionSpec { root, durability, retention, lease, voters });
    }
    Ok(sections)
}

fn network(mut keys: Keys, find: &dyn Fn(&str) -> Vec<usize>) -> Result<(PathSpec, Vec<PathOverride>), BadScenario> {
    let usual = PathSpec {
        latency: Amount::LogNormal { median: 5_000.0, sigma: 0.3, min: 500.0, max: 500_000.0 },
        loss: Loss::Bernoulli(0.0),
        corrupt: 0.0,
        duplicate: 0.0,
        reorder: 0.0,
        bandwidth: None,
        queue: 64 << 10,
        tail_drop: false,
        schedule: None,
    };
    let usual = path(table_or_empty(&mut keys, "default", &["mtu"])?, &usual)?;
    let mut overrides = Vec::new();
    for mut link in keys.tables("link", &["mtu"])? {
        let mut end = |key: &'static str| {
            let patterns = link.texts(key)?.ok_or_else(|| link.bad(key, "is missing"))?;
            named(&link, key, &patterns, find)
        };
        let (from, to) = (end("from")?, end("to")?);
        let both = link.flag("both")?.unwrap_or(false);
        let path = path(link, &usual)?;
        if both {
            overrides.push(PathOverride { from: to.clone(), to: from.clone(), path: path.clone() });
        }
        overrides.push(PathOverride { from, to, path });
    }
    keys.end()?;
    Ok((usual, overrides))
}

fn path(mut keys: Keys, usual: &PathSpec) -> Result<PathSpec, BadScenario> {
    let mut path = usual.clone();
    if let Some(latency) = keys.amount("latency", Unit::Duration)? {
        path.latency = latency;
    }
    if keys.has("loss") {
        path.loss = loss(&mut keys)?;
    }
    path.corrupt = keys.share("corrupt")?.unwrap_or(path.corrupt);
    path.duplicate = keys.share("duplicate")?.unwrap_or(path.duplicate);
    path.reorder = keys.share("reorder")?.unwrap_or(path.reorder);
    if let Some(bandwidth) = keys.amount("bandwidth", Unit::Rate)? {
        path.bandwidth = Some(bandwidth.greatest()).filter(|rate| *rate >= 1.0);
    }
    if let Some(mut queue) = keys.table("queue", &[])? {
        path.queue = queue.amount("bytes", Unit::Size)?.map_or(path.queue, |bytes| bytes.greatest().max(1.0) as usize);
        path.tail_drop = queue.word("drop", &["none", "tail"])?.map_or(path.tail_drop, |drop| drop == "tail");
        queue.end()?;
    }
    if path.tail_drop && path.bandwidth.is_none() {
        return Err(keys.bad("queue", "never fills without a bandwidth"));
    }
    if let Some(mut schedule) = keys.table("schedule", &[])? {
        let up_share = schedule.share("up_share")?.ok_or_else(|| schedule.bad("up_share", "is missing"))?.clamp(0.001, 0.999);
        let period = schedule.duration("period")?.ok_or_else(|| schedule.bad("period", "is missing"))?.max(1_000) as f64;
        schedule.end()?;
        path.schedule = Some(Schedule { up_share, period });
    }
    keys.end()?;
    Ok(path)
}

/// The time between two requests, from their rate.
fn gap(keys: &mut Keys) -> Result<Amount, BadScenario> {
    let mut rate = keys.table("rate", &[])?.ok_or_else(|| keys.bad("rate", "is missing"))?;
    let process = rate.word("process", &["poisson", "constant"])?.unwrap_or_else(|| "poisson".into());
    let per_second = rate.number("per_second")?.filter(|rate| *rate > 0.0).ok_or_else(|| rate.bad("per_second", "must be above 0"))?;
    rate.end()?;
    let mean = 1e6 / per_second;
    Ok(if process == "poisson" { Amount::Exponential { mean } } else { Amount::Constant(mean) })
}

fn loss(keys: &mut Keys) -> Result<Loss, BadScenario> {
    let is_table = keys.is_table("loss");
    if !is_table {
        return Ok(Loss::Bernoulli(keys.share("loss")?.unwrap_or(0.0)));
    }
    let Some(mut table) = keys.table("loss", &[])? else { return Ok(Loss::Bernoulli(0.0)) };
    let model = table.word("model", &["bernoulli", "gilbert-elliott"])?.ok_or_else(|| table.bad("model", "is missing"))?;
    let p = table.share("p")?.ok_or_else(|| table.bad("p", "is missing"))?;
    if model == "bernoulli" {
        table.end()?;
        return Ok(Loss::Bernoulli(p));
    }
    let r = table.share("r")?.ok_or_else(|| table.bad("r", "is missing"))?;
    let (good, bad) = (table.share("loss_good")?.unwrap_or(0.0), table.share("loss_bad")?.unwrap_or(1.0));
    let loss = match table.word("time_base", &["packet", "continuous"])?.as_deref() {
        Some("continuous") => {
            let step = table.duration("step")?.unwrap_or(1_000);
            if step < 100 {
                return Err(table.bad("step", "must be at least 100us"));
            }
            let loss = Loss::in_time(p, r, good, bad, step as f64);
            loss.ok_or_else(|| table.bad("r", "must be less than 1 together with p, if states change in time"))?
        }
        _ => Loss::GilbertElliott { p, r, good, bad },
    };
    table.end()?;
    Ok(loss)
}

fn workload(mut keys: Keys, sections: &[SectionSpec], count: usize, find: &dyn Fn(&str) -> Vec<usize>) -> Result<Workload, BadScenario> {
    let (mut topics, mut slaves, mut choice) = (20, 0, Choice::Even);
    if let Some(mut table) = keys.table("topics", &["depth", "fanout"])? {
        topics = table.count("count")?.unwrap_or(20) as usize;
        slaves = table.count("slaves")?.unwrap_or(0) as usize;
        if let Some(mut of) = table.table("choice", &[])? {
            let dist = of.word("dist", &["uniform", "zipf"])?.ok_or_else(|| of.bad("dist", "is missing"))?;
            if dist == "zipf" {
                let s = of.number("s")?.filter(|s| *s > 0.0).ok_or_else(|| of.bad("s", "must be above 0"))?;
                choice = Choice::zipf(topics + slaves, s);
            }
            of.end()?;
        }
        table.end()?;
    }
    if let Some(value) = keys.text("value")?.filter(|value| value != "traceable") {
        return Err(keys.bad("value", format!("{value:?} is not supported yet; there is traceable")));
    }
    let payload = keys.amount("payload", Unit::Size)?.unwrap_or(Amount::Uniform { min: 16.0, max: 128.0 });
    let mut kinds = Vec::new();
    for name in keys.texts("types")?.unwrap_or_else(|| vec![Kind::default().name().into()]) {
        let known = Kind::ALL.map(Kind::name).join(", ");
        kinds.push(Kind::of_name(&name).ok_or_else(|| keys.bad("types", format!("{name:?} is none of {known}")))?);
    }
    if kinds.is_empty() {
        return Err(keys.bad("types", "at least one is needed"));
    }
    let mut sources = Vec::new();
    for keys in keys.tables("source", &["session"])? {
        sources.extend(source(keys, sections, count, find)?);
    }
    let mut subscribers = Vec::new();
    let mut dice = Dice::new(0, "subscribers");
    for mut keys in keys.tables("subscribers", &[])? {
        let number = keys.count("count")?.unwrap_or(1);
        let select = keys.text("select")?.ok_or_else(|| keys.bad("select", "is missing"))?;
        let homes = homes(&mut keys, count, find)?;
        let moves = keys.flag("moves")?.unwrap_or(false);
        let principal = keys.flag("principal")?.unwrap_or(false);
        let think = keys.amount("think", Unit::Duration)?.unwrap_or(Amount::Constant(0.0));
        keys.end()?;
        for at in 0..number as usize {
            let home = match &homes {
                Some(homes) => homes[at % homes.len()],
                None => dice.below(count),
            };
            // Each begins at a node of its own.
            let mut all: Vec<usize> = if moves { homes.clone().unwrap_or_else(|| (0..count).collect()) } else { vec![home] };
            let first = all.iter().position(|other| *other == home).unwrap_or(0);
            all.rotate_left(first);
            subscribers.push(SubscriberSpec { homes: all, principal, select: select.clone(), think: think.clone() });
        }
    }
    let mut administrators = Vec::new();
    for mut keys in keys.tables("administrator", &[])? {
        let homes = homes(&mut keys, count, find)?.unwrap_or_else(|| vec![0]);
        let gap = gap(&mut keys)?;
        keys.end()?;
        administrators.push(AdministratorSpec { homes, gap });
    }
    keys.end()?;
    Ok(Workload { topics, slaves, choice, payload, kinds, sources, subscribers, administrators })
}

/// The homes that are named, or `None` for random ones.
fn homes(keys: &mut Keys, count: usize, find: &dyn Fn(&str) -> Vec<usize>) -> Result<Option<Vec<usize>>, BadScenario> {
    let Some(texts) = keys.texts("homes")? else { return Ok(Some((0..count).collect())) };
    if texts.len() == 1 && texts[0] == "random" {
        return Ok(None);
    }
    named(keys, "homes", &texts, find).map(Some)
}

/// A source at each of its homes, unless it is one that moves.
fn source(
    mut keys: Keys,
    sections: &[SectionSpec],
    count: usize,
    find: &dyn Fn(&str) -> Vec<usize>,
) -> Result<Vec<SourceSpec>, BadScenario> {
    // A name is for whoever reads the scenario.
    keys.text("name")?;
    let homes = homes(&mut keys, count, find)?.unwrap_or_else(|| (0..count).collect());
    let moves = keys.flag("moves")?.unwrap_or(false);
    let section = match (keys.text("section")?, sections.first()) {
        (Some(root), _) if sections.iter().any(|section| section.root == root) => root,
        (Some(root), _) => return Err(keys.bad("section", format!("no section has the root {root:?}"))),
        (None, Some(section)) => section.root.clone(),
        (None, None) => return Err(keys.bad("section", "there is none to write to")),
    };
    let branch = keys.text("branch")?;
    if let Some(branch) = branch.as_ref().filter(|branch| **branch != section && !branch.starts_with(&format!("{section}/"))) {
        return Err(keys.bad("branch", format!("{branch:?} is not in the section {section:?}")));
    }
    let gap = gap(&mut keys)?;
    let mut mix = [1.0, 0.0, 0.0, 0.0];
    if let Some(mut table) = keys.table("mix", &[])? {
        let mut weight = |key| Ok(table.number(key)?.unwrap_or(0.0).max(0.0));
        mix = [weight("set")?, weight("add")?, weight("remove")?, weight("send")?];
        table.end()?;
        if mix.iter().sum::<f64>() <= 0.0 {
            return Err(keys.bad("mix", "something must be done"));
        }
    }
    let text = keys.text("durability")?;
    let durability = durability(&keys, text)?;
    let active = (keys.duration("from")?.unwrap_or(0), keys.duration("until")?.unwrap_or(Time::MAX));
    keys.end()?;
    let of = |homes: Vec<usize>| SourceSpec {
        homes,
        section: section.clone(),
        branch: branch.clone(),
        gap: gap.clone(),
        mix,
        durability,
        active,
    };
    Ok(if moves { vec![of(homes)] } else { homes.into_iter().map(|home| of(vec![home])).collect() })
}

fn checks(mut keys: Keys, settle: Time, config: &NodeSettings, find: &dyn Fn(&str) -> Vec<usize>) -> Result<ChecksSpec, BadScenario> {
    if let Some(safety) = keys.text("safety")?.filter(|safety| safety != "all") {
        return Err(keys.bad("safety", format!("{safety:?} is not supported yet; there is all")));
    }
    let (mut converge_within, mut lease_within, mut resume_within) = (settle, settle, settle);
    let mut core = Vec::new();
    if let Some(mut liveness) = keys.table("liveness", &[])? {
        for name in liveness.texts("core")?.unwrap_or_default() {
            match find(&name) {
                found if found.is_empty() => return Err(liveness.bad("core", format!("no node is called {name:?}"))),
                found => core.extend(found),
            }
        }
        lease_within = liveness.duration("lease_within")?.unwrap_or(settle).min(settle);
        resume_within = liveness.duration("resume_within")?.unwrap_or(settle).min(settle);
        converge_within = liveness.duration("converge_within")?.unwrap_or(settle).min(settle);
        liveness.end()?;
    }
    let dual_holder_bound = keys.duration_or("dual_holder_bound", "auto")?.unwrap_or_else(|| config.dual_holder_bound().min(lease_within));
    let sometimes = keys.texts("sometimes")?.unwrap_or_default();
    for state in &sometimes {
        if !crate::checks::SOMETIMES.contains(&state.as_str()) {
            let nearest = super::keys::nearest(state, &crate::checks::SOMETIMES);
            return Err(
                keys.bad("sometimes", format!("there is no state {state:?}{nearest}; there are {}", crate::checks::SOMETIMES.join(", ")))
            );
        }
    }
    keys.end()?;
    Ok(ChecksSpec { converge_within, lease_within, resume_within, dual_holder_bound, core, sometimes })
}
