//! Sweeps: every arm of a scenario ([`scenario::sweep`](crate::scenario::sweep)) under the same seeds, into a directory.
//!
//! | file | what is in it |
//! |---|---|
//! | `manifest.json` | what makes the experiment: the scenario's hash, the program's version, seeds and arms ([`Manifest`]) |
//! | `scenario.toml`, `arms/N.toml` | the scenario as it was, and each arm, which `mangrove-sim run` takes by itself; files that they name are beside both |
//! | `runs.csv` | a row for each arm and seed ([`table`]) |
//! | `aggregate.csv` | for each arm and number, the mean with its 95 % interval ([`aggregate`]) |
//! | `runs-I-of-N.csv` | the rows of one shard, until [`merge`] puts them together |
//! | `runs*.journal` | rows of a sweep that goes on, in the order in which its runs ended |
//!
//! The same experiment gives the same bytes, on however many threads, in however many shards, and however often it was interrupted: a run
//! goes to the journal when it has ended, and a sweep that is started again does what is not there yet.

pub mod aggregate;
pub mod compare;
mod manifest;
pub mod merge;
pub mod table;

use std::cell::RefCell;
use std::collections::{BTreeMap, hash_map::RandomState};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::hash::{BuildHasher, Hasher};
use std::io::{Read, Write};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

pub use self::manifest::{Manifest, Seeds};
use self::table::Table;
use crate::{
    run,
    scenario::{BadScenario, files::Files, sweep},
    trace::Trace,
    world::Outcome,
};

/// The time between two lines on standard error, in seconds.
const PROGRESS_EVERY: f64 = 2.0;

/// An arm and a seed.
pub type Run = (usize, u64);

/// A part of a sweep: of its runs, counted arm by arm, every `of`th from number `index` on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Shard {
    /// Which one, from 0.
    pub index: usize,
    /// Of how many.
    pub of: usize,
}

impl Shard {
    /// The whole.
    pub const WHOLE: Shard = Shard { index: 0, of: 1 };

    /// Where its rows are, without the ending of the file.
    fn stem(self) -> String {
        match self.of {
            1 => "runs".into(),
            of => format!("runs-{}-of-{of}", self.index),
        }
    }
}

impl std::str::FromStr for Shard {
    type Err = String;

    fn from_str(text: &str) -> Result<Shard, String> {
        let parts = text.split_once('/').and_then(|(index, of)| Some((index.parse().ok()?, of.parse().ok()?)));
        match parts {
            Some((index, of)) if index < of => Ok(Shard { index, of }),
            _ => Err("must be as 0/8: which shard, from 0, of how many".into()),
        }
    }
}

/// A scenario's arms, and the seeds that each is run under.
#[derive(Debug)]
pub struct Experiment {
    text: String,
    /// What the scenario's files hold, by the names that it gives them.
    files: BTreeMap<String, String>,
    arms: Vec<sweep::Arm>,
    manifest: Manifest,
}

impl Experiment {
    /// Reads all arms. Without a base or a number of seeds, the scenario's hold.
    ///
    /// # Errors
    /// What is wrong with the scenario or its sweep.
    pub fn read(name: &str, text: &str, files: Files, base: Option<u64>, count: Option<u64>) -> Result<Experiment, BadScenario> {
        let read = RefCell::new(BTreeMap::new());
        let files = |name: &str| {
            // They go where the arms go.
            if !Path::new(name).components().all(|part| matches!(part, Component::Normal(_))) {
                return Err(format!("{name:?}: a sweep takes its files along, so they must be beside the scenario or below"));
            }
            let text = files(name)?;
            read.borrow_mut().insert(name.to_owned(), text.clone());
            Ok(text)
        };
        let arms = sweep::arms(name, text, &files)?;
        let usual = arms[0].scenario.run.seeds;
        let seeds = Seeds { base: base.unwrap_or(usual.0), count: count.unwrap_or(usual.1) };
        if seeds.count == 0 || seeds.base.checked_add(seeds.count).is_none() {
            return Err(BadScenario { place: "seeds".into(), what: "must be at least one, and below 2^64".into() });
        }
        let files = read.into_inner();
        let all: String = std::iter::once(text.to_owned()).chain(files.iter().map(|(name, text)| format!("\n# {name}\n{text}"))).collect();
        let manifest = Manifest::of(&all, &arms, seeds);
        Ok(Experiment { text: text.to_owned(), files, arms, manifest })
    }

    /// The arms.
    pub fn arms(&self) -> &[sweep::Arm] {
        &self.arms
    }

    /// Runs a shard into a directory, on so many threads, and goes on where an earlier sweep stopped. What comes back are the shard's rows.
    ///
    /// # Errors
    /// The directory has another experiment, or cannot be written.
    pub fn run(&self, dir: &Path, shard: Shard, jobs: usize) -> Result<Table, String> {
        self.found(dir)?;
        let path = dir.join(format!("{}.csv", shard.stem()));
        let table = match Table::read(&path, &self.manifest)? {
            Some(table) => table,
            None => {
                let mut journal = Journal::open(dir.join(format!("{}.journal", shard.stem())), &self.manifest)?;
                self.check_build(&journal.table)?;
                self.run_missing(&mut journal, shard, jobs)?;
                write(&path, &journal.table.bytes(&self.manifest))?;
                fs::remove_file(&journal.path).map_err(|error| told(&journal.path, &error))?;
                journal.table
            }
        };
        if shard == Shard::WHOLE {
            write(&dir.join("aggregate.csv"), &aggregate::bytes(&self.manifest, &table))?;
        }
        Ok(table)
    }

    /// Makes the directory that of this experiment, or sees that it is.
    fn found(&self, dir: &Path) -> Result<(), String> {
        let arms = dir.join("arms");
        fs::create_dir_all(&arms).map_err(|error| told(&arms, &error))?;
        if let Some(there) = Manifest::read(dir)? {
            return there.same(&self.manifest).map_err(|what| format!("{} has another experiment: {what}", dir.display()));
        }
        write(&dir.join("scenario.toml"), self.text.as_bytes())?;
        for (name, text) in &self.files {
            for path in [dir.join(name), arms.join(name)] {
                let parent = path.parent().unwrap_or(dir);
                fs::create_dir_all(parent).map_err(|error| told(parent, &error))?;
                write(&path, text.as_bytes())?;
            }
        }
        for (at, arm) in self.arms.iter().enumerate() {
            write(&arms.join(format!("{at}.toml")), arm.text.as_bytes())?;
        }
        self.manifest.write(dir)
    }

    /// One run that is there already must come out the same: another build of the same version may do other things.
    fn check_build(&self, table: &Table) -> Result<(), String> {
        let Some(((arm, seed), trace)) = table.first_trace() else { return Ok(()) };
        let now = blake3::Hash::from(run::one(&self.arms[arm].scenario, seed, Trace::new(None)).hash).to_hex();
        match now.as_str() == trace {
            true => Ok(()),
            false => {
                Err(format!("this is another build than the one that began: arm {arm} with seed {seed} has trace {now}, and had {trace}"))
            }
        }
    }

    fn run_missing(&self, journal: &mut Journal, shard: Shard, jobs: usize) -> Result<(), String> {
        let all: Vec<Run> = self.manifest.runs(shard).collect();
        let missing: Vec<Run> = all.iter().copied().filter(|run| !journal.table.has(run)).collect();
        let progress = Progress::new(self.arms[0].scenario.name.clone(), all.len(), missing.len());
        let (next, stopped) = (AtomicUsize::new(0), AtomicBool::new(false));
        let journal = Mutex::new((journal, progress));
        let failed = Mutex::new(None);
        std::thread::scope(|scope| {
            for _ in 0..jobs.clamp(1, missing.len().max(1)) {
                scope.spawn(|| {
                    while let Some(run) = missing.get(next.fetch_add(1, Ordering::Relaxed)).filter(|_| !stopped.load(Ordering::Relaxed)) {
                        let outcome = self.one(*run);
                        let (journal, progress) = &mut *journal.lock().unwrap_or_else(PoisonError::into_inner);
                        if let Err(error) = journal.add(&self.manifest, *run, &outcome) {
                            stopped.store(true, Ordering::Relaxed);
                            *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                        }
                        progress.ended(outcome.violation.is_some());
                    }
                });
            }
        });
        failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }

    /// The very first run is made twice, so that every sweep sees whether runs repeat.
    fn one(&self, (arm, seed): Run) -> Outcome {
        let scenario = &self.arms[arm].scenario;
        match (arm, seed == self.manifest.seeds.base) {
            (0, true) => run::twice(scenario, seed),
            _ => run::one(scenario, seed, Trace::new(None)),
        }
    }
}

/// Rows of a sweep that goes on: at the end of a file, each as soon as its run has ended.
#[derive(Debug)]
struct Journal {
    path: PathBuf,
    file: File,
    table: Table,
}

impl Journal {
    fn open(path: PathBuf, manifest: &Manifest) -> Result<Journal, String> {
        let told = |error: std::io::Error| told(&path, &error);
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(&path).map_err(told)?;
        // Some file systems have no locks; there whoever starts a shard twice makes its runs twice.
        if let Err(TryLockError::WouldBlock) = file.try_lock() {
            return Err(format!("{}: another process is at this shard", path.display()));
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(told)?;
        // What was being written when the process ended is no line yet.
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        file.set_len(whole as u64).map_err(told)?;
        let table = match whole {
            0 => {
                let table = Table::new(manifest);
                file.write_all(&table.bytes(manifest)).map_err(told)?;
                table
            }
            _ => Table::parse(&bytes[..whole], manifest).map_err(|what| format!("{}: {what}", path.display()))?,
        };
        Ok(Journal { file, table, path })
    }

    fn add(&mut self, manifest: &Manifest, run: Run, outcome: &Outcome) -> Result<(), String> {
        let row = manifest.row(run, outcome);
        self.file.write_all(&table::line(&row)).map_err(|error| told(&self.path, &error))?;
        self.table.add(run, row);
        Ok(())
    }
}

/// Writes a whole file or none: under another name first.
fn write(path: &Path, bytes: &[u8]) -> Result<(), String> {
    // Shards that share a directory may write the same file at the same time, on machines where processes have the same number.
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{:016x}", RandomState::new().build_hasher().finish()));
    let write = || {
        let mut file = File::create_new(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().map_err(|error| told(path, &error))
}

fn told(path: &Path, error: &std::io::Error) -> String {
    format!("{}: {error}", path.display())
}

/// What is told on standard error.
struct Progress {
    name: String,
    all: usize,
    to_do: usize,
    done: usize,
    bad: usize,
    began: Instant,
    told: f64,
}

impl Progress {
    fn new(name: String, all: usize, to_do: usize) -> Self {
        Progress { name, all, to_do, done: 0, bad: 0, began: Instant::now(), told: 0.0 }
    }

    fn ended(&mut self, bad: bool) {
        self.done += 1;
        self.bad += usize::from(bad);
        let took = self.began.elapsed().as_secs_f64();
        if took < self.told + PROGRESS_EVERY && self.done < self.to_do {
            return;
        }
        self.told = took;
        let (rate, left) = (self.done as f64 / took, took / self.done as f64 * (self.to_do - self.done) as f64);
        let (name, all, bad) = (&self.name, self.all, self.bad);
        let there = all - self.to_do + self.done;
        eprintln!("{name}: {there} of {all} runs, {bad} with a violation; {rate:.1} runs/s, {} left", span(left as u64));
    }
}

fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
    }
}
