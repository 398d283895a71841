//! S1, from outside: the same run gives the same bytes in two processes, whatever their directory, time zone, locale and number of threads.

use std::path::Path;
use std::process::{Command, Output};

const SCENARIO: &str = r#"
schema = 1
[run]
duration = "8s"
settle = "60s"
[nodes]
count = 4
[[section]]
root = "s"
[network.default]
loss = 0.02
duplicate = 0.02
[workload]
[[workload.source]]
rate = { per_second = 10 }
mix = { set = 90, add = 6, remove = 4 }
[[fault]]
kind = "swarm"
from = ["partition", "cut", "crash", "power-loss", "pause", "disk-fail", "garbage", "simplex", "swizzle", "clog", "torn-write", "clock-strobe", "replay"]
mean = "2s"
"#;

fn run(scenario: &Path, dir: &Path, zone: &str, locale: &str, jobs: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mangrove-sim"))
        .args(["run", "--seeds", "4", "--all", "--json", "--jobs", jobs])
        .arg(scenario)
        .current_dir(dir)
        .env("TZ", zone)
        .env("LC_ALL", locale)
        .env("LANG", locale)
        .output()
        .expect("the simulator starts")
}

#[test]
fn a_run_is_the_same_anywhere() {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let scenario = dir.join("anywhere.toml");
    std::fs::write(&scenario, SCENARIO).expect("a scratch directory");
    let here = run(&scenario, dir, "UTC", "C", "1");
    let there = run(&scenario, Path::new("/"), "Asia/Kathmandu", "tr_TR.UTF-8", "3");
    let told = String::from_utf8_lossy(&here.stdout);
    assert!(told.contains("\"trace\":\""), "{told} {}", String::from_utf8_lossy(&here.stderr));
    assert_eq!(told, String::from_utf8_lossy(&there.stdout));
    assert_eq!(here.status.code(), there.status.code());
}

#[test]
fn wrong_usage_ends_with_two_and_says_what_could_be_meant() {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let scenario = dir.join("wrong.toml");
    let refused = |text: &str| {
        std::fs::write(&scenario, text).expect("a scratch directory");
        let output = Command::new(env!("CARGO_BIN_EXE_mangrove-sim")).arg("validate").arg(&scenario).output().expect("it starts");
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(refused(&SCENARIO.replace("settle", "setle")).contains("run.setle: there is no such key; did you mean settle?"));
    assert!(refused(&SCENARIO.replace("\"8s\"", "8")).contains("run.duration: must be a duration with its unit"));
    assert!(refused(&format!("{SCENARIO}[buggify]\n")).contains("buggify: is not supported yet"));
    assert!(refused(&SCENARIO.replace("\"cut\"", "\"cup\"")).contains("did you mean cut?"));
    assert!(refused("schema = 1").contains("run.duration: is missing"));
    let older = SCENARIO.replace("count = 4", "count = 4\n[[nodes.group]]\nmatch = \"n2\"\nunknown_types = [\"decimals\"]");
    assert!(refused(&older).contains("\"decimals\" is none of binary"));
}
