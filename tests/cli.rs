//! The command line without a node: help, usage, exit codes, and how errors are told.

#![cfg(unix)]

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// The program, without whatever the environment has set for a real node.
fn mangrove() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mangrove"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("MANGROVE_") {
            command.env_remove(name);
        }
    }
    command
}

fn run(arguments: &[&str]) -> Output {
    mangrove().args(arguments).stdin(Stdio::null()).output().expect("the program runs")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A data directory with a credential for a node at `address`.
fn with_credential(address: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("operator.toml");
    fs::write(&path, format!("node = '{address}'\nmesh = '{}'\ntoken = '{}'\n", "07".repeat(32), "a5".repeat(32))).expect("a file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("a mode");
    (dir, path)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

#[test]
fn help_and_usage() {
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        assert!(!name.starts_with("MANGROVE_"), "unset {name}: it would change what the program says");
    }
    trycmd::TestCases::new().case("tests/cli/*.trycmd");
}

#[test]
fn a_node_that_is_not_there_is_unreachable() {
    // The socket is bound and never answers.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let (dir, _) = with_credential(&silent.local_addr().expect("an address").to_string());
    let output = run(&["--data", text(dir.path()), "--timeout", "300ms", "status"]);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert!(stderr(&output).starts_with("error: cannot reach a node at 127.0.0.1:"), "{}", stderr(&output));
    assert!(stderr(&output).contains("\nhint: "), "{}", stderr(&output));
    assert!(output.stdout.is_empty());
}

#[test]
fn a_flag_names_another_node_than_the_credential() {
    let (dir, _) = with_credential("no-such-host.invalid:1");
    let output = run(&["--data", text(dir.path()), "--timeout", "300ms", "--node", "127.0.0.1:9", "links"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(stderr(&output).contains("127.0.0.1:9"), "{}", stderr(&output));
}

#[test]
fn a_doctor_tells_an_unreachable_node_from_a_missing_credential() {
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let (dir, _) = with_credential(&silent.local_addr().expect("an address").to_string());
    let output = run(&["--data", text(dir.path()), "--timeout", "300ms", "--json", "doctor"]);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    let findings: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let seen: Vec<_> = findings.as_array().expect("a list").iter().map(|finding| (&finding["severity"], &finding["check"])).collect();
    assert_eq!(seen, [(&"ok".into(), &"credential".into()), (&"error".into(), &"node".into())]);
}

#[test]
fn a_credential_that_others_can_read_is_refused() {
    let (dir, path) = with_credential("127.0.0.1:1");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("a mode");
    let output = run(&["--data", text(dir.path()), "status"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("can be read by others (mode 644)"), "{}", stderr(&output));
    assert!(stderr(&output).contains("hint: chmod 600 "), "{}", stderr(&output));
}

#[test]
fn a_wrong_configuration_is_told_with_its_line_and_the_nearest_key() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("wrong.toml");
    fs::write(&file, "name = 'EWR'\nlease = 5000\n").expect("a file");
    let output = run(&["config", "check", text(&file)]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("wrong.toml:2:") && stderr(&output).contains("lease_ms"), "{}", stderr(&output));
    fs::write(&file, "name = 'EWR'\nlease_ms = 5000\n").expect("a file");
    assert_eq!(run(&["config", "check", text(&file)]).status.code(), Some(0));
    assert_eq!(run(&["config", "check", text(&dir.path().join("missing.toml"))]).status.code(), Some(2));
}

#[test]
fn the_example_configuration_is_right() {
    let example = run(&["config", "example"]);
    assert_eq!(example.status.code(), Some(0));
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("example.toml");
    fs::write(&file, &example.stdout).expect("a file");
    let checked = run(&["config", "check", text(&file)]);
    assert_eq!(checked.status.code(), Some(0), "{}", stderr(&checked));
    assert!(example.stdout.len() > 500);
}

#[test]
fn a_shell_gets_its_completions() {
    for shell in ["bash", "zsh", "fish"] {
        let output = run(&["completions", shell]);
        assert_eq!(output.status.code(), Some(0));
        assert!(String::from_utf8_lossy(&output.stdout).contains("displaced"), "{shell}");
    }
}

#[test]
fn nobody_reading_is_no_error() {
    let mut child =
        mangrove().args(["completions", "zsh"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program runs");
    drop(child.stdout.take());
    let mut told = String::new();
    child.stderr.take().expect("a pipe").read_to_string(&mut told).expect("text");
    assert_eq!((child.wait().expect("an end").code(), told.as_str()), (Some(0), ""));
}

#[test]
fn a_wrong_log_filter_is_told() {
    let output = run(&["--log", "loud", "completions", "bash"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("loud"), "{}", stderr(&output));
}
