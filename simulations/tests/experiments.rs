//! Sweeps from outside: the same experiment gives the same bytes, however it was run.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const SCENARIO: &str = r#"
schema = 1
name = "tiny"
[run]
duration = "2s"
settle = "40s"
seeds = { base = 3, count = 3 }
[nodes]
count = 3
[[section]]
root = "s"
[workload]
topics = { count = 4 }
[[workload.source]]
name = "writers"
rate = { per_second = 4 }
[[fault]]
at = "500ms"
kind = "partition"
type = "complete"
sides = [["n1"], ["n2", "n3"]]
heal_after = "1s"
[sweep]
"section.s.durability" = ["memory", "disk"]
"network.default.latency" = ["2ms", "40ms"]
"workload.source.writers.rate.per_second" = [2, 6]
zip = [["network.default.latency", "workload.source.writers.rate.per_second"]]
"#;

/// A directory of this test's own, empty, with the scenario beside it.
fn dir(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("experiments").join(name);
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).expect("a scratch directory");
    std::fs::write(dir.join("tiny.toml"), SCENARIO).expect("a scratch directory");
    dir
}

fn simulator(args: &[&str], cwd: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mangrove-sim"));
    command.args(args).current_dir(cwd);
    command
}

fn done(args: &[&str], cwd: &Path) -> Output {
    let output = simulator(args, cwd).output().expect("the simulator starts");
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

fn refused(args: &[&str], cwd: &Path) -> String {
    let output = simulator(args, cwd).output().expect("the simulator starts");
    assert_eq!(output.status.code(), Some(2), "{args:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// All files below a directory.
fn files(dir: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path).into_iter().map(|(below, text)| (Path::new(path.file_name().expect("a name")).join(below), text)));
        } else {
            found.insert(path.file_name().expect("a name").into(), std::fs::read_to_string(&path).expect("a text"));
        }
    }
    found
}

#[test]
fn a_sweep_is_the_same_anywhere_and_an_arm_is_a_scenario() {
    let at = dir("anywhere");
    done(&["sweep", "tiny.toml", "--out", "here", "--jobs", "1"], &at);
    let (scenario, there) = (at.join("tiny.toml"), at.join("there"));
    let mut command = simulator(&["sweep", "--jobs", "3", "--out"], Path::new("/"));
    let output =
        command.arg(&there).arg(&scenario).env("TZ", "Asia/Kathmandu").env("LC_ALL", "tr_TR.UTF-8").env("LANG", "tr_TR.UTF-8").output();
    assert!(output.expect("the simulator starts").status.success());
    let here = files(&at.join("here"));
    assert_eq!(here, files(&there));
    let names: Vec<&str> = here.keys().filter_map(|path| path.to_str()).collect();
    assert_eq!(
        names,
        ["aggregate.csv", "arms/0.toml", "arms/1.toml", "arms/2.toml", "arms/3.toml", "manifest.json", "runs.csv", "scenario.toml"]
    );
    let runs = &here[Path::new("runs.csv")];
    assert_eq!(runs.lines().count(), 1 + 4 * 3, "{runs}");
    let last = runs.lines().last().expect("a row");
    assert!(last.starts_with("3,40ms,disk,6,5,pass,"), "{last}");
    // Again: nothing is left to do, and nothing changes.
    done(&["sweep", "tiny.toml", "--out", "here"], &at);
    assert_eq!(here, files(&at.join("here")));
    // An arm by itself leaves the same trace.
    let output = done(&["run", "here/arms/3.toml", "--seed", "5", "--json"], &at);
    let trace = last.split(',').nth(6).expect("a trace");
    assert!(String::from_utf8_lossy(&output.stdout).contains(trace), "{last}");
    // And what it was started with stays what it is.
    let told = refused(&["sweep", "tiny.toml", "--out", "here", "--seeds", "4"], &at);
    assert!(told.contains("here has another experiment: the seeds: 3 from 3 there, 4 from 3 here"), "{told}");
    std::fs::write(at.join("tiny.toml"), SCENARIO.replace("\"2ms\"", "\"3ms\"")).expect("a scratch directory");
    let told = refused(&["sweep", "tiny.toml", "--out", "here"], &at);
    assert!(told.contains("the scenario's BLAKE3") && told.contains("the arms: 4 there, 4 here, of other values"), "{told}");
}

#[test]
#[allow(clippy::disallowed_methods, reason = "waits for another process")]
fn what_was_interrupted_goes_on() {
    let at = dir("interrupted");
    done(&["sweep", "tiny.toml", "--out", "whole"], &at);
    let journal = at.join("parts/runs.journal");
    let lines = || std::fs::read_to_string(&journal).unwrap_or_default().lines().count();
    let mut child = simulator(&["sweep", "tiny.toml", "--out", "parts", "--jobs", "1"], &at).spawn().expect("the simulator starts");
    while lines() < 4 && child.try_wait().expect("a child").is_none() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    child.kill().expect("a child");
    child.wait().expect("a child");
    if journal.exists() {
        // It was in the middle of a line.
        let mut file = std::fs::OpenOptions::new().append(true).open(&journal).expect("a journal");
        file.write_all(b"3,40ms,disk,6,5,pa").expect("a journal");
    }
    done(&["sweep", "tiny.toml", "--out", "parts", "--jobs", "2"], &at);
    assert_eq!(files(&at.join("whole")), files(&at.join("parts")));
    // A journal in whatever order, and one that another build wrote.
    let runs = std::fs::read_to_string(at.join("whole/runs.csv")).expect("runs");
    let (columns, rows) = runs.split_once('\n').expect("columns");
    let some: Vec<&str> = rows.lines().rev().step_by(3).collect();
    let write = |text: String| {
        std::fs::remove_file(at.join("parts/runs.csv")).ok();
        std::fs::remove_file(at.join("parts/aggregate.csv")).ok();
        std::fs::write(&journal, text).expect("a journal");
    };
    write(format!("{columns}\n{}\n{}", some.join("\n"), &columns[..9]));
    done(&["sweep", "tiny.toml", "--out", "parts"], &at);
    assert_eq!(files(&at.join("whole")), files(&at.join("parts")));
    let row = rows.lines().next().expect("a row");
    let trace = row.split(',').nth(6).expect("a trace");
    write(format!("{columns}\n{}\n", row.replace(trace, &"0".repeat(64))));
    let told = refused(&["sweep", "tiny.toml", "--out", "parts"], &at);
    assert!(told.contains("this is another build than the one that began"), "{told}");
}

#[test]
fn shards_merged_are_the_whole() {
    let at = dir("shards");
    done(&["sweep", "tiny.toml", "--out", "whole"], &at);
    for (shard, out) in [("0/3", "a"), ("1/3", "b"), ("2/3", "b")] {
        done(&["sweep", "tiny.toml", "--out", out, "--shard", shard], &at);
    }
    done(&["merge", "b", "a", "--out", "merged"], &at);
    assert_eq!(files(&at.join("whole")), files(&at.join("merged")));
    let told = refused(&["merge", "b", "--out", "other"], &at);
    assert!(told.contains("shard 0 of 3 is missing, or not finished"), "{told}");
    let told = refused(&["merge", "a", "b", "a", "--out", "other"], &at);
    assert!(told.contains("shard 0 is there twice"), "{told}");
    done(&["sweep", "tiny.toml", "--out", "c", "--seeds", "2", "--shard", "0/3"], &at);
    let told = refused(&["merge", "a", "c", "--out", "other"], &at);
    assert!(told.contains("are different experiments: the seeds: 3 from 3 there, 2 from 3 here"), "{told}");
    done(&["sweep", "tiny.toml", "--out", "a", "--shard", "1/4"], &at);
    let told = refused(&["merge", "a", "b", "--out", "other"], &at);
    assert!(told.contains("is of another division than into 4"), "{told}");
}

#[test]
fn batches_are_compared() {
    let at = dir("compared");
    done(&["sweep", "tiny.toml", "--out", "a"], &at);
    done(&["sweep", "tiny.toml", "--out", "b", "--base", "100"], &at);
    let told = |args: &[&str]| String::from_utf8_lossy(&done(args, &at).stdout).into_owned();
    let same = told(&["compare", "a", "a"]);
    assert_eq!(same.matches("every trace is the same").count(), 4, "{same}");
    assert!(same.contains("\n0 of "), "{same}");
    // Thrice as many are asked for.
    let arms = told(&["compare", "a@0", "a@2", "--metric", "operations_acknowledged"]);
    assert!(arms.contains("A, arm 0: network.default.latency = 2ms") && arms.contains(": A is lower\n"), "{arms}");
    let seeds = told(&["compare", "a", "b", "--metric", "events"]);
    assert_eq!(seeds.matches("  events: A ").count(), 4, "{seeds}");
    assert!(!seeds.contains("every trace"), "{seeds}");
    assert!(refused(&["compare", "a", "b", "--metric", "speed"], &at).contains("there is no number \"speed\""));
    assert!(refused(&["compare", "a@4", "b"], &at).contains("numbered from 0 to 3"));
}

#[test]
fn files_that_a_scenario_names_go_with_its_arms() {
    let at = dir("files");
    let latency =
        "\"network.default.latency\" = [\"2ms\", { dist = \"empirical\", file = \"rtt/wan.csv\", column = \"owd\", unit = \"ms\" }]";
    let text = SCENARIO.split("[sweep]").next().expect("it sweeps").to_owned() + "[sweep]\n" + latency;
    std::fs::write(at.join("tiny.toml"), &text).expect("a scenario");
    let said = refused(&["sweep", "tiny.toml", "--out", "o", "--seeds", "1"], &at);
    assert!(said.contains("wan.csv") && said.contains("from the scenario's directory"), "{said}");
    std::fs::create_dir(at.join("rtt")).expect("a directory");
    std::fs::write(at.join("rtt/wan.csv"), "owd\n5\n9\n").expect("samples");
    done(&["sweep", "tiny.toml", "--out", "o", "--seeds", "1"], &at);
    done(&["run", "o/arms/1.toml", "--seed", "3"], &at);
    // Other samples are another experiment.
    std::fs::write(at.join("rtt/wan.csv"), "owd\n5\n8\n").expect("samples");
    assert!(refused(&["sweep", "tiny.toml", "--out", "o", "--seeds", "1"], &at).contains("another experiment"));
    std::fs::write(at.join("tiny.toml"), text.replace("rtt/wan.csv", "../wan.csv")).expect("a scenario");
    assert!(refused(&["sweep", "tiny.toml", "--out", "p"], &at).contains("beside the scenario or below"));
}
