//! `mangrove-sim`: runs scenarios and says what held.
//!
//! Standard output says nothing that depends on how fast or on how many threads it was made: the same command gives the same bytes. Progress and
//! speed go to standard error.

use std::fs::File;
use std::io::{BufWriter, Read as _, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::{Args, Parser, Subcommand};

use crate::{
    report::{Batch, Verdict},
    run,
    scenario::{Scenario, files::FILE_BYTES_MAX},
    scenarios,
    sweep::{Experiment, Shard, compare, merge, table::Table},
    trace::Trace,
};

/// All invariants held, and every state that was to be reached was.
const PASS: u8 = 0;
/// A safety invariant was violated.
const SAFETY: u8 = 1;
/// Wrong usage, or a scenario that cannot be read.
const USAGE: u8 = 2;
/// A liveness invariant was violated.
const LIVENESS: u8 = 3;
/// The node panicked, or logged an error.
const CRASH: u8 = 4;
/// Nothing was violated, but a state that was to be reached was not, so that little was shown.
const UNKNOWN: u8 = 5;

#[derive(Parser, Debug)]
#[command(name = "mangrove-sim", version, about = "Runs the real node in a deterministic world that hurts it")]
#[command(after_help = "Exit codes: 0 pass, 1 safety violated, 2 usage, 3 liveness violated, 4 panic or error in the log, 5 unknown.")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run scenarios, and say for each invariant whether it held.
    Run(RunArgs),
    /// List the scenarios that come with the program.
    List,
    /// Read a scenario and say what is wrong with it, if anything is.
    Validate {
        /// A file, or the name of a scenario that comes with the program.
        scenario: PathBuf,
    },
    /// Run every arm of a scenario's [sweep] under many seeds, into a directory; started again, it goes on where it was.
    Sweep(SweepArgs),
    /// Put the shards of a sweep together.
    Merge {
        /// The directories that the shards are in.
        #[arg(required = true)]
        dirs: Vec<PathBuf>,
        /// Where the whole goes; it may be one of them.
        #[arg(long)]
        out: PathBuf,
    },
    /// Say whether two batches differ, number by number, with 95 % intervals.
    Compare {
        /// The directory of a sweep, or, of one arm, DIR@ARM.
        a: String,
        /// What it is compared with.
        b: String,
        /// This number only: a column of runs.csv.
        #[arg(long)]
        metric: Option<String>,
    },
    /// Break the node on purpose, one rule at a time, and say how many seeds it takes to notice.
    #[cfg(feature = "sabotage")]
    Bite {
        /// Only these rules.
        rules: Vec<String>,
        /// How many seeds to try at most.
        #[arg(long, default_value_t = 400)]
        seeds: u64,
    },
}

#[derive(Args, Debug)]
struct RunArgs {
    /// Files, or names of scenarios that come with the program.
    #[arg(required = true)]
    scenarios: Vec<PathBuf>,
    /// How many seeds, from the base on. Without, as many as the scenario says.
    #[arg(long, conflicts_with = "seed")]
    seeds: Option<u64>,
    /// One seed only.
    #[arg(long)]
    seed: Option<u64>,
    /// The first seed. Without, the scenario's.
    #[arg(long)]
    base: Option<u64>,
    /// On how many threads; changes nothing but the time it takes.
    #[arg(long, default_value_t = std::thread::available_parallelism().map_or(1, usize::from))]
    jobs: usize,
    /// The outcome as JSON, one object a scenario.
    #[arg(long)]
    json: bool,
    /// Everything that happens, as text, to a file or (-) to standard output. For one seed.
    #[arg(long, requires = "seed")]
    trace: Option<PathBuf>,
    /// Go on after a violation: count them all.
    #[arg(long)]
    all: bool,
}

#[derive(Args, Debug)]
struct SweepArgs {
    /// A file, or the name of a scenario that comes with the program.
    scenario: PathBuf,
    /// Where everything goes.
    #[arg(long)]
    out: PathBuf,
    /// How many seeds for each arm, from the base on. Without, as many as the scenario says.
    #[arg(long)]
    seeds: Option<u64>,
    /// The first seed. Without, the scenario's.
    #[arg(long)]
    base: Option<u64>,
    /// On how many threads; changes nothing but the time it takes.
    #[arg(long, default_value_t = std::thread::available_parallelism().map_or(1, usize::from))]
    jobs: usize,
    /// Only a part of the runs: I/N, with I from 0. All parts, merged, are the sweep.
    #[arg(long, default_value = "0/1")]
    shard: Shard,
}

/// The program.
pub fn main() -> ExitCode {
    // A panic in the node is caught, and told as what it is.
    std::panic::set_hook(Box::new(|_| {}));
    let cli = Cli::parse();
    let code = match cli.command {
        Command::Run(args) => run_all(&args),
        Command::List => {
            for scenario in scenarios::all() {
                say(&format!("{:<28} {}\n", scenario.name, scenario.description));
            }
            PASS
        }
        Command::Validate { scenario } => match experiment(&scenario, None, None) {
            Ok(experiment) => {
                for (at, arm) in experiment.arms().iter().enumerate() {
                    let (scenario, arm) = (&arm.scenario, if arm.values.is_empty() { String::new() } else { format!(", arm {at}") });
                    say(&format!("{}{arm}: good, {} nodes, {} faults\n", scenario.name, scenario.nodes.len(), scenario.faults.len()));
                }
                PASS
            }
            Err(error) => complain(&error),
        },
        Command::Sweep(args) => sweep(&args).map_or_else(|error| complain(&error), |table| ended(&table, &args.out)),
        Command::Merge { dirs, out } => merge::merge(&dirs, &out).map_or_else(|error| complain(&error), |table| ended(&table, &out)),
        Command::Compare { a, b, metric } => match compare::compare(&a, &b, metric.as_deref()) {
            Ok(text) => {
                say(&text);
                PASS
            }
            Err(error) => complain(&error),
        },
        #[cfg(feature = "sabotage")]
        Command::Bite { rules, seeds } => bite(&rules, seeds),
    };
    ExitCode::from(code)
}

/// Writes to standard output; a reader that has gone away is no fault of the run.
fn say(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn complain(error: &str) -> u8 {
    eprintln!("error: {error}");
    USAGE
}

/// A scenario as it is written, and where the files are that it names.
struct Source {
    name: String,
    text: String,
    /// None for one that comes with the program.
    directory: Option<PathBuf>,
}

impl Source {
    /// A file, or, if there is none of that name, one that comes with the program.
    fn read(path: &Path) -> Result<Source, String> {
        let name = path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        match (std::fs::read_to_string(path), scenarios::text(&path.to_string_lossy())) {
            (Ok(text), _) => Ok(Source { name, text, directory: Some(path.with_file_name("")) }),
            (Err(_), Some(text)) => Ok(Source { name, text: text.to_owned(), directory: None }),
            (Err(error), None) => {
                Err(format!("{}: {error}, and no scenario of that name comes with the program; see: mangrove-sim list", path.display()))
            }
        }
    }

    /// The text of a file that the scenario names.
    fn file(&self, name: &str) -> Result<String, String> {
        let Some(directory) = &self.directory else { return scenarios::file(name) };
        let path = directory.join(name);
        let told = |error: std::io::Error| format!("{}: {error}; it is looked for from the scenario's directory", path.display());
        let mut text = String::new();
        File::open(&path).map_err(told)?.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(told)?;
        match text.len() as u64 > FILE_BYTES_MAX {
            true => Err(format!("{}: is longer than {} MiB: cut it", path.display(), FILE_BYTES_MAX >> 20)),
            false => Ok(text),
        }
    }
}

/// The scenario as it stands, whatever it sweeps, to be run.
fn load_to_run(path: &Path) -> Result<Scenario, String> {
    let source = Source::read(path)?;
    let scenario = Scenario::parse_with(&source.name, &source.text, &|name| source.file(name));
    let scenario = scenario.map_err(|error| format!("{}: {error}", path.display()))?;
    possible(&scenario)?;
    Ok(scenario)
}

fn possible(scenario: &Scenario) -> Result<(), String> {
    match scenario.is_possible() {
        true => Ok(()),
        false => Err(format!("{}: nodes of an older version need a simulator that is built with --features sabotage", scenario.name)),
    }
}

fn experiment(path: &Path, base: Option<u64>, seeds: Option<u64>) -> Result<Experiment, String> {
    let source = Source::read(path)?;
    Experiment::read(&source.name, &source.text, &|name| source.file(name), base, seeds)
        .map_err(|error| format!("{}: {error}", path.display()))
}

fn sweep(args: &SweepArgs) -> Result<Table, String> {
    let experiment = experiment(&args.scenario, args.base, args.seeds)?;
    experiment.arms().iter().try_for_each(|arm| possible(&arm.scenario))?;
    experiment.run(&args.out, args.shard, args.jobs)
}

/// Says what a sweep came to, and ends with the worst of it.
fn ended(table: &Table, dir: &Path) -> u8 {
    let bad = table.verdicts().filter(|verdict| *verdict != "pass").count();
    say(&format!("{} runs, {bad} with a violation\n", table.len()));
    if let Some(((arm, seed), invariant, what)) = table.first_violation() {
        let scenario = dir.join("arms").join(format!("{arm}.toml"));
        say(&format!("the first is of {invariant}: {what}\nreplay: mangrove-sim run {} --seed {seed}\n", scenario.display()));
    }
    let code = |verdict| match verdict {
        "pass" => PASS,
        "liveness" => LIVENESS,
        "safety" => SAFETY,
        _ => CRASH,
    };
    table.verdicts().map(code).max_by_key(|code| severity(*code)).unwrap_or(PASS)
}

fn run_all(args: &RunArgs) -> u8 {
    let mut worst = PASS;
    for path in &args.scenarios {
        let scenario = match load_to_run(path) {
            Ok(scenario) => scenario,
            Err(error) => return complain(&error),
        };
        let code = match run_one(args, path, &scenario) {
            Ok(code) => code,
            Err(error) => return complain(&error),
        };
        worst = if severity(code) > severity(worst) { code } else { worst };
    }
    worst
}

/// Which of two codes is to be told, where scenarios end differently.
fn severity(code: u8) -> u8 {
    match code {
        PASS => 0,
        UNKNOWN => 1,
        LIVENESS => 2,
        SAFETY => 3,
        _ => 4,
    }
}

#[allow(clippy::disallowed_methods, reason = "the speed of the simulator itself, for standard error")]
fn run_one(args: &RunArgs, path: &Path, scenario: &Scenario) -> Result<u8, String> {
    let base = args.seed.or(args.base).unwrap_or(scenario.run.seeds.0);
    let count = if args.seed.is_some() { 1 } else { args.seeds.unwrap_or(scenario.run.seeds.1) };
    let began = std::time::Instant::now();
    let outcomes = match &args.trace {
        Some(to) => vec![run::one(scenario, base, Trace::new(Some(writer(to)?)))],
        None => {
            let done = AtomicU64::new(0);
            let bad = AtomicU64::new(0);
            run::many(scenario, base..base + count, args.jobs, !args.all, |outcome| {
                let done = done.fetch_add(1, Ordering::Relaxed) + 1;
                let bad = bad.fetch_add(u64::from(outcome.violation.is_some()), Ordering::Relaxed);
                if done.is_multiple_of(100) {
                    eprintln!("{}: {done} of {count} seeds, {bad} with a violation", scenario.name);
                }
            })
        }
    };
    let took = began.elapsed().as_secs_f64();
    let replay = |seed: u64| format!("mangrove-sim run {} --seed {seed}", path.display());
    let batch = Batch::new(scenario, base, count, &outcomes);
    say(&if args.json { batch.json(&replay) } else { batch.text(&replay) });
    // The first was run twice.
    let runs = || outcomes.iter().chain(outcomes.first().filter(|_| args.trace.is_none()));
    let events: u64 = runs().map(|outcome| outcome.events).sum();
    let node_seconds: f64 = runs().map(|outcome| outcome.node_seconds).sum();
    eprintln!(
        "{}: {} seeds in {took:.1} s on {} threads: {:.1} seeds/s, {:.0} events/s, {:.0} node-seconds/s",
        scenario.name,
        outcomes.len(),
        args.jobs.min(runs().count().max(1)),
        outcomes.len() as f64 / took,
        events as f64 / took,
        node_seconds / took
    );
    Ok(match batch.verdict() {
        Verdict::Pass => PASS,
        Verdict::Unknown => UNKNOWN,
        Verdict::Liveness => LIVENESS,
        Verdict::Safety => SAFETY,
        Verdict::Crash => CRASH,
    })
}

fn writer(path: &Path) -> Result<Box<dyn Write + Send>, String> {
    if path.as_os_str() == "-" {
        return Ok(Box::new(BufWriter::new(std::io::stdout())));
    }
    let file = File::create(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(Box::new(BufWriter::new(file)))
}

#[cfg(feature = "sabotage")]
fn bite(rules: &[String], seeds: u64) -> u8 {
    let mut missed = 0;
    let chosen: Vec<_> = crate::bites::ALL.iter().filter(|bite| rules.is_empty() || rules.iter().any(|rule| rule == bite.name)).collect();
    if chosen.is_empty() {
        let names: std::collections::BTreeMap<_, _> = crate::bites::ALL.iter().map(|bite| (bite.name, bite.breaks)).collect();
        return complain(&format!("no such rule; there are {names:?}"));
    }
    for bite in chosen {
        match bite.seeds_until_caught(0, seeds) {
            Some((tried, violation)) => {
                say(&format!("{:<24} caught after {tried} seeds by {}: {}\n", bite.name, violation.invariant, violation.what));
            }
            None => {
                missed += 1;
                say(&format!("{:<24} MISSED by {seeds} seeds of {}\n", bite.name, bite.scenario));
            }
        }
    }
    if missed == 0 { PASS } else { SAFETY }
}
