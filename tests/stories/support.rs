//! Nodes as real processes, and how to wait for what they must come to.
//!
//! A [`World`] is one story's directory. Its [`Node`]s are processes of this program, each ended by the value that started it, also when the
//! story fails; then the ends of their logs are printed. No log may tell of a panic.

use std::cell::RefCell;
use std::fs::{self, File};
use std::future::Future;
use std::io::{BufRead, BufReader, Write};
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use mangrove::client::{Client, ClientError, ClientOptions, Credential};
use mangrove::protocol::{LinkRow, LinkState, SetBatch, SetItem, Status, Target, TopicSpec};
use mangrove::store::DataDir;
use mangrove_crdt::definition::{Durability, TopicType};
use mangrove_net::quic::Identity;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// How long a machine with two busy cores may take for anything that is not the story's point.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How much of each log is shown when a story fails.
const LOG_SHOWN_BYTES: usize = 6_000;

fn runtime() -> &'static tokio::runtime::Runtime {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    let start = || tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("threads");
    RUNTIME.get_or_init(start)
}

/// Runs a future to its end.
pub fn block<F: Future>(future: F) -> F::Output {
    runtime().block_on(future)
}

/// Runs a future beside the story.
pub fn beside<F: Future<Output: Send> + Send + 'static>(future: F) -> tokio::task::JoinHandle<F::Output> {
    runtime().spawn(future)
}

/// Looks again and again until `look` finds what it wants; fails the story with the last reason when that takes too long.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let begun = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(reason) if begun.elapsed() > PATIENCE => panic!("{what}: not within {PATIENCE:?}; last: {reason}"),
            Err(_) => std::thread::sleep(Duration::from_millis(40)),
        }
    }
}

/// The displaced values, as all of these nodes list them.
pub fn displaced(nodes: &[&Node]) -> Vec<serde_json::Value> {
    eventually("all list the same displaced values", || {
        let lists: Vec<_> = nodes.iter().map(|node| node.json(&["displaced", "ls"])).collect();
        let same = lists.iter().all(|list| *list == lists[0]);
        if same { Ok(lists[0].as_array().expect("a list").clone()) } else { Err(format!("{lists:?}")) }
    })
}

/// The same for a condition.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    eventually(what, || if holds() { Ok(()) } else { Err("no".into()) });
}

/// A program that is run with nothing of the environment that is meant for a real node.
pub fn program(data: &Path) -> Command {
    program_within(&[], data)
}

fn program_within(within: &[String], data: &Path) -> Command {
    let mut words = within.iter().map(String::as_str).chain([env!("CARGO_BIN_EXE_mangrove")]);
    let mut command = Command::new(words.next().expect("the program's own at least"));
    command.args(words);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("MANGROVE_") {
            command.env_remove(name);
        }
    }
    command.arg("--data").arg(data).stdin(Stdio::null());
    command
}

/// A UDP port that nothing takes by chance: below those that the system hands out.
pub fn fixed_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 12_000 + (std::process::id() % 1_500) as u16 * 8;
    let free = |port: &u16| UdpSocket::bind(("127.0.0.1", *port)).is_ok();
    std::iter::repeat_with(|| first + NEXT.fetch_add(1, Ordering::Relaxed)).take(200).find(free).expect("a free port")
}

/// What a command that was refused said.
#[derive(Debug)]
pub struct Refused {
    pub code: i32,
    pub error: String,
}

impl Refused {
    /// Fails the story unless the exit code is this one and the error says all of these.
    pub fn says(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "{}", self.error);
        for word in words {
            assert!(self.error.contains(word), "{word:?} is missing in: {}", self.error);
        }
        assert!(!self.error.contains("panicked"), "{}", self.error);
    }
}

/// Runs a command that must not succeed.
pub fn refused(mut command: Command) -> Refused {
    let output = command.output().expect("the program runs");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "this should be refused: {command:?}: {}", String::from_utf8_lossy(&output.stdout));
    Refused { code: output.status.code().unwrap_or(-1), error }
}

/// One story's directory.
pub struct World {
    dir: tempfile::TempDir,
    logs: RefCell<Vec<PathBuf>>,
}

impl World {
    pub fn new() -> World {
        World { dir: tempfile::tempdir().expect("a directory"), logs: RefCell::default() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A node of its own mesh, running.
    pub fn found(&self, name: &str) -> Node {
        self.found_with(name, &[])
    }

    pub fn found_with(&self, name: &str, flags: &[&str]) -> Node {
        let mut node = self.node(name, flags);
        node.told(&["init", "--name", name]);
        node.up();
        node
    }

    /// A member of another node's mesh, running.
    pub fn join(&self, name: &str, via: &Node) -> Node {
        self.join_with(name, via, "member", &[])
    }

    pub fn join_with(&self, name: &str, via: &Node, role: &str, flags: &[&str]) -> Node {
        let mut node = self.node(name, flags);
        let ticket = via.ticket(role);
        node.told(&["join", &ticket, "--name", name]);
        node.up();
        node
    }

    /// A node that is neither made nor running.
    pub fn node(&self, name: &str, flags: &[&str]) -> Node {
        self.node_at(name, self.path(name), flags)
    }

    pub fn node_at(&self, name: &str, data: PathBuf, flags: &[&str]) -> Node {
        let log = self.path(&format!("{name}.log"));
        self.logs.borrow_mut().push(log.clone());
        let mut flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        if !flags.iter().any(|flag| flag == "--listen") {
            flags.extend(["--listen", "127.0.0.1:0"].map(String::from));
        }
        // Five times as fast as usual, so that a story does not wait for signs of life.
        flags.extend(["--set", "pulse_ms=200"].map(String::from));
        Node { name: name.into(), data, flags, within: Vec::new(), log, process: None, address: String::new() }
    }

    /// Fails the story if a node has logged an error.
    pub fn logged_no_error(&self) {
        let logged = self.logged();
        let error = logged.lines().find(|line| line.contains("ERROR"));
        assert!(error.is_none(), "{error:?}");
    }

    /// The nodes' logs, all in one.
    pub fn logged(&self) -> String {
        self.logs.borrow().iter().map(|log| fs::read_to_string(log).unwrap_or_default()).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for log in self.logs.borrow().iter() {
                let text = fs::read(log).unwrap_or_default();
                let shown = &text[text.len().saturating_sub(LOG_SHOWN_BYTES)..];
                eprintln!("--- {}\n{}", log.display(), String::from_utf8_lossy(shown));
            }
        } else {
            let logged = self.logged();
            let panic = logged.lines().find(|line| line.contains("panicked at"));
            assert!(panic.is_none(), "a node panicked: {panic:?}\n{logged}");
        }
    }
}

/// A node's directory and, while it runs, its process.
pub struct Node {
    pub name: String,
    pub data: PathBuf,
    flags: Vec<String>,
    /// What starts it, if not this program itself.
    within: Vec<String>,
    log: PathBuf,
    process: Option<Child>,
    address: String,
}

impl Node {
    /// Starts it, and waits until it serves clients.
    pub fn up(&mut self) {
        if let Err(refused) = self.try_up() {
            panic!("{} did not start: {refused:?}", self.name);
        }
    }

    /// The same, where it may be refused.
    pub fn try_up(&mut self) -> Result<(), Refused> {
        assert!(self.process.is_none(), "{} runs already", self.name);
        let log = File::options().create(true).append(true).open(&self.log).expect("a log");
        let from = log.metadata().expect("a length").len() as usize;
        let mut process = program_within(&self.within, &self.data)
            .args(["--json", "up"])
            .args(&self.flags)
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("the program runs");
        let mut line = String::new();
        BufReader::new(process.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
        if line.is_empty() {
            let code = process.wait().expect("it ends").code().unwrap_or(-1);
            let log = fs::read(&self.log).unwrap_or_default();
            return Err(Refused { code, error: String::from_utf8_lossy(&log[from..]).into_owned() });
        }
        self.process = Some(process);
        let started: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in {line:?}"));
        self.address = started["address"].as_str().expect("an address").to_owned();
        Ok(())
    }

    /// By what command it is started, which must become the node's process itself.
    #[allow(dead_code, reason = "for tests with more than this program")]
    pub fn within(&mut self, command: &[&str]) {
        self.within = command.iter().map(|word| (*word).to_owned()).collect();
    }

    /// Where it listens from its next start on.
    pub fn listen(&mut self, address: &str) {
        let at = self.flags.iter().position(|flag| flag == "--listen").expect("it listens somewhere");
        self.flags[at + 1] = address.to_owned();
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn id(&self) -> String {
        self.status().node.to_string()
    }

    pub fn process_id(&self) -> u32 {
        self.process.as_ref().expect("it runs").id()
    }

    /// Ends it in the middle of whatever it does, like a power cut that leaves the disk's cache alone.
    pub fn kill(&mut self) {
        let mut process = self.process.take().expect("it runs");
        process.kill().expect("it can be killed");
        process.wait().expect("it ends");
    }

    /// Stops it in the middle of whatever it does, until it is woken.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
        // Each of its threads ends its turn before it stops.
        until("it stands still", || {
            let threads = std::fs::read_dir(format!("/proc/{}/task", self.process_id())).expect("it runs");
            let stands = |thread: std::io::Result<std::fs::DirEntry>| {
                let stat = std::fs::read_to_string(thread.expect("an entry").path().join("stat")).unwrap_or_default();
                stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'))
            };
            threads.into_iter().all(stands)
        });
    }

    pub fn wake(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.process_id() as i32).expect("a process");
        kill_process(pid, signal).expect("it runs");
    }

    /// Asks it to end, and waits until it has.
    pub fn terminate(&mut self) {
        self.signal(Signal::TERM);
        let status = self.ended();
        assert!(status.success(), "{} ended with {status}", self.name);
    }

    /// Waits until it has ended by itself.
    pub fn ended(&mut self) -> std::process::ExitStatus {
        let mut process = self.process.take().expect("it runs");
        let begun = Instant::now();
        loop {
            match process.try_wait().expect("a child") {
                Some(status) => return status,
                None if begun.elapsed() > PATIENCE => {
                    let _ = process.kill();
                    let _ = process.wait();
                    panic!("{} did not end", self.name);
                }
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    pub fn logged(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    // Commands.

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = program(&self.data);
        // A loaded machine may take its time for a handshake.
        command.args(["--timeout", "20s"]).args(arguments);
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the program runs")
    }

    /// What a command that must succeed prints.
    pub fn told(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{}: {arguments:?}: {}", self.name, String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }

    pub fn json(&self, arguments: &[&str]) -> Value {
        let told = self.told(&[&["--json"], arguments].concat());
        serde_json::from_str(&told).unwrap_or_else(|error| panic!("{}: {arguments:?}: {error} in {told:?}", self.name))
    }

    pub fn refused(&self, arguments: &[&str]) -> Refused {
        refused(self.command(arguments))
    }

    pub fn piped(&self, arguments: &[&str], input: &str) -> Output {
        let mut command = self.command(arguments);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program runs");
        // It may be refused, and end, before it has read all.
        let told = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
        assert!(told.as_ref().err().is_none_or(|error| error.kind() == std::io::ErrorKind::BrokenPipe), "{told:?}");
        child.wait_with_output().expect("it ends")
    }

    /// Publishes lines of paths and JSON values, all of which must be written.
    pub fn publish(&self, values: impl IntoIterator<Item = (String, Value)>) {
        let lines: String =
            values.into_iter().map(|(path, value)| format!("{}\n", serde_json::json!({ "path": path, "value": value }))).collect();
        let output = self.piped(&["--json", "publish", "-"], &lines);
        assert!(output.status.success(), "{}: {}", self.name, String::from_utf8_lossy(&output.stderr));
    }

    pub fn set(&self, path: &str, value: &str) {
        self.told(&["set", path, value, "--type", "json"]);
    }

    /// A topic's value, or null where there is none.
    pub fn get(&self, path: &str) -> Value {
        let output = self.run(&["--json", "get", path]);
        if !output.status.success() {
            return Value::Null;
        }
        let row: Value = serde_json::from_slice(&output.stdout).expect("JSON");
        row["value"].clone()
    }

    /// Waits until a topic has a value.
    pub fn shows(&self, path: &str, value: impl Into<Value>) {
        let value = value.into();
        eventually(&format!("{} shows {path} = {value}", self.name), || match self.get(path) {
            found if found == value => Ok(()),
            found => Err(found.to_string()),
        });
    }

    pub fn paths(&self) -> Vec<String> {
        let rows = self.json(&["topic", "ls"]);
        rows.as_array().expect("a list").iter().map(|row| row["path"].as_str().expect("a path").to_owned()).collect()
    }

    pub fn ticket(&self, role: &str) -> String {
        self.told(&["invite", "--role", role]).trim().to_owned()
    }

    // Sessions.

    pub async fn connect(&self) -> Client {
        self.connect_with(|_| {}).await
    }

    pub async fn connect_with(&self, change: impl FnOnce(&mut ClientOptions)) -> Client {
        let credential = Credential::read(&self.data.join("operator.toml")).expect("a credential");
        let mut options = ClientOptions { connect_timeout: Duration::from_secs(20), ..ClientOptions::new(credential) };
        change(&mut options);
        Client::connect(options).await.unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    pub fn status(&self) -> Status {
        block(async {
            let client = self.connect().await;
            let status = client.status().await.expect("a status");
            client.close().await;
            status
        })
    }

    pub fn links(&self) -> Vec<LinkRow> {
        block(async {
            let client = self.connect().await;
            let links = client.links().await.expect("links");
            client.close().await;
            links
        })
    }

    pub fn is_linked_to(&self, other: &str) -> bool {
        self.links().iter().any(|row| row.name == other && row.state == LinkState::Up)
    }

    /// Waits until a link to another node is up.
    pub fn linked(&self, other: &str) {
        eventually(&format!("{} is linked to {other}", self.name), || {
            if self.is_linked_to(other) { Ok(()) } else { Err(format!("{:?}", self.links())) }
        });
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            // It may have ended by itself.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// Cuts two nodes apart.
pub fn split(a: &Node, b: &Node) {
    a.told(&["links", "block", &b.name]);
    b.told(&["links", "block", &a.name]);
    until("both are apart", || !a.is_linked_to(&b.name) && !b.is_linked_to(&a.name));
}

/// Lets them talk again.
pub fn heal(a: &Node, b: &Node) {
    a.told(&["links", "unblock", &b.name]);
    b.told(&["links", "unblock", &a.name]);
    a.linked(&b.name);
}

/// Waits until nodes that hold the same have the same digest, and shows that they say the same values.
pub fn equal(nodes: &[&Node]) {
    eventually("all are equal", || {
        let states: Vec<(String, u64, String, u64)> = nodes
            .iter()
            .map(|node| (node.name.clone(), node.status()))
            .map(|(name, status)| (name, status.topics, status.digest, status.unspread_changes))
            .collect();
        if states.windows(2).all(|pair| pair[0].2 == pair[1].2) { Ok(()) } else { Err(format!("{states:?}")) }
    });
    let roots = nodes[0].json(&["section", "ls"]);
    let selectors: Vec<String> =
        roots.as_array().expect("a list").iter().map(|row| format!("?{}//", row["root"].as_str().expect("a root"))).collect();
    let exported = |node: &Node| selectors.iter().map(|selector| node.told(&["export", selector])).collect::<String>();
    let said: Vec<String> = nodes.iter().map(|node| exported(node)).collect();
    for (node, says) in nodes.iter().zip(&said) {
        assert_eq!(says, &said[0], "{} and {} have one digest and say different values", node.name, nodes[0].name);
    }
}

/// The keys and certificates of a node that does not run, for somebody else to run with.
pub fn stored_identity(node: &Node) -> Identity {
    let dir = DataDir::open(&node.data).expect("the node's directory");
    let (vault, _) = dir.open_vault().expect("a vault");
    Identity::from_bytes(vault.get("identity").expect("it is a member")).expect("an identity")
}

/// Whether any file below a directory has these bytes.
pub fn is_on_disk(dir: &Path, marker: &str) -> bool {
    fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path()).any(|path| {
        if path.is_dir() {
            return is_on_disk(&path, marker);
        }
        let bytes = fs::read(&path).unwrap_or_default();
        bytes.windows(marker.len()).any(|window| window == marker.as_bytes())
    })
}

/// The bytes of a JSON value.
pub fn bytes_of(value: &Value) -> Vec<u8> {
    mangrove_crdt::value::from_json(&TopicType::Json, value).expect("a value")
}

/// The JSON value of bytes.
pub fn value_of(bytes: &[u8]) -> Value {
    mangrove_crdt::value::to_json(&TopicType::Json, bytes).expect("a value")
}

/// Writes one value to a topic of type json, made if it is missing; returns when that is acknowledged at the durability.
pub async fn write(client: &Client, path: &str, value: &Value, durability: Option<Durability>) -> Result<(), ClientError> {
    let items = vec![SetItem::new(Target::Path(path.into()), bytes_of(value))];
    let report = client.set_all(SetBatch { items, add: Some(TopicSpec::of("json")), durability, under: None }).await?;
    match report.refused.into_iter().next() {
        Some(item) => Err(item.refusal.into()),
        None => Ok(()),
    }
}
