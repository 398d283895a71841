//! The command line as a source: it says how its claim goes, gives it up when it is interrupted, and writes nothing once the branch is another's.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdout, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::claims::{QUICK, active, claim};
use crate::support::{Node, World, block, until};

/// A claim that runs until it is interrupted.
struct Claiming {
    process: Child,
    told: BufReader<ChildStdout>,
}

impl Claiming {
    fn begin(node: &Node, arguments: &[&str]) -> Claiming {
        let mut command = node.command(&[&["--json", "source", "claim"], arguments].concat());
        let mut process = command.stdout(Stdio::piped()).spawn().expect("the program runs");
        let told = BufReader::new(process.stdout.take().expect("a pipe"));
        Claiming { process, told }
    }

    fn hears(&mut self, state: &str) -> Value {
        let mut line = String::new();
        self.told.read_line(&mut line).expect("a line");
        let told: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in {line:?}"));
        assert_eq!(told["state"], state, "{told}");
        told
    }

    fn interrupt(&mut self) {
        kill_process(Pid::from_raw(self.process.id() as i32).expect("a process"), Signal::INT).expect("it runs");
    }
}

#[test]
fn and_a_claim_ends_well_when_it_is_interrupted() {
    let world = World::new();
    let a = world.found_with("A", QUICK);
    a.told(&["section", "add", "plant"]);
    let mut first = Claiming::begin(&a, &["plant"]);
    first.hears("init");
    let epoch = first.hears("active")["epoch"].as_u64().expect("an epoch");
    a.refused(&["source", "claim", "plant", "--try"]).says(1, &["plant: session ", "[exclusive]", "hint: wait for it"]);
    a.refused(&["source", "claim", "plant/below"]).says(1, &["[overlaps]"]);
    let mut second = Claiming::begin(&a, &["plant", "--priority", "-1"]);
    second.hears("init");
    second.hears("standby");
    first.interrupt();
    assert_eq!(first.hears("closed")["reason"], "released");
    assert!(first.process.wait().expect("it ends").success());
    let now = second.hears("standby")["epoch"].as_u64().max(second.hears("active")["epoch"].as_u64());
    assert!(now > Some(epoch), "{now:?} after {epoch}");
    second.interrupt();
    second.hears("closed");
    assert!(second.process.wait().expect("it ends").success());
    let rows = a.json(&["source", "ls"]);
    assert_eq!((&rows[0]["holder"], &rows[0]["waiting"]), (&json!(null), &json!(0)), "{rows}");
}

#[test]
fn before_it_is_active_it_waits_and_afterwards_it_writes_nothing() {
    let world = World::new();
    let a = world.found_with("A", QUICK);
    a.told(&["section", "add", "plant"]);
    let client = block(a.connect());
    let mut source = block(claim(&client, "plant"));
    block(active(&mut source));

    let mut command = a.command(&["publish", "-", "--source", "plant"]);
    let streams = || Stdio::piped();
    let mut publisher = command.stdin(streams()).stdout(streams()).stderr(streams()).spawn().expect("the program runs");
    let mut stdin = publisher.stdin.take().expect("a pipe");
    let mut stderr = BufReader::new(publisher.stderr.take().expect("a pipe"));
    let mut line = String::new();
    stderr.read_line(&mut line).expect("a line");
    assert!(line.starts_with("waiting to write plant: session "), "{line}");
    block(source.close()).expect("it is closed");
    until("the publisher holds the branch", || {
        a.json(&["source", "ls"])[0]["waiting"] == 0 && !a.json(&["source", "ls"])[0]["holder"].is_null()
    });
    stdin.write_all(b"{\"path\":\"plant/rpm\",\"value\":1}\n").expect("it reads");
    a.told(&["section", "rm", "plant"]);
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).expect("text");
    assert!(rest.contains("error: plant: epoch ") && rest.contains("[fenced]"), "{rest}");
    assert_eq!(publisher.wait().expect("it ends").code(), Some(1));

    // Where nothing happens to its branch, it writes all and gives it up.
    let written = a.piped(&["--json", "publish", "-", "--source", "lab", "--try"], "{\"path\":\"lab/rpm\",\"value\":2}\n");
    assert!(written.status.success(), "{}", String::from_utf8_lossy(&written.stderr));
    assert_eq!(a.get("lab/rpm"), 2);
    a.told(&["set", "lab/rpm", "3"]);
    // And nothing that does not lie there.
    let astray = a.piped(&["publish", "-", "--source", "lab"], "{\"path\":\"elsewhere\",\"value\":2}\n");
    assert_eq!(astray.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&astray.stderr).contains("[unknown-source]"), "{}", String::from_utf8_lossy(&astray.stderr));
}
