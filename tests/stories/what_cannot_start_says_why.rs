//! Whatever keeps a node from starting or a command from running is told clearly, with the documented exit code, and changes nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::support::World;

#[test]
fn configuration_credentials_and_directories() {
    let world = World::new();
    let mut a = world.found("A");
    a.set("kept", "1");

    // A second process on the same directory.
    let mut second = world.node_at("second", a.data.clone(), &[]);
    let refused = second.try_up().expect_err("the directory is taken");
    refused.says(1, &[&a.process_id().to_string(), "A"]);
    assert_eq!(a.get("kept"), 1);

    // Credentials.
    let credential = a.data.join("operator.toml");
    let text = fs::read_to_string(&credential).expect("a credential");
    fs::set_permissions(&credential, fs::Permissions::from_mode(0o644)).expect("a mode");
    a.refused(&["get", "kept"]).says(1, &["can be read by others (mode 644)", "chmod 600"]);
    fs::remove_file(&credential).expect("a file");
    a.refused(&["get", "kept"]).says(1, &["there is no credential at", "hint: "]);
    let token = text.lines().find(|line| line.starts_with("token")).expect("a token");
    let wrong = text.replace(token, &format!("token = '{}'", "5a".repeat(32)));
    fs::write(&credential, wrong).expect("a file");
    fs::set_permissions(&credential, fs::Permissions::from_mode(0o600)).expect("a mode");
    a.refused(&["get", "kept"]).says(1, &["[bad-credential]"]);
    // Another mesh's node at the address is found out before the token is shown to it.
    let stranger = world.found("stranger");
    let theirs = fs::read_to_string(stranger.data.join("operator.toml")).expect("a credential");
    let mesh = |text: &str| text.lines().find(|line| line.starts_with("mesh")).expect("a mesh").to_owned();
    fs::write(&credential, text.replace(&mesh(&text), &mesh(&theirs))).expect("a file");
    a.refused(&["get", "kept"]).says(3, &["cannot reach a node at", "mesh"]);

    // A start writes the credential anew.
    a.terminate();
    a.up();
    assert_eq!(a.get("kept"), 1);
    let mode = fs::metadata(&credential).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    a.terminate();

    // Configuration.
    let file = a.data.join("mangrove.toml");
    fs::write(&file, "nmae = \"A\"\n").expect("a file");
    a.try_up().expect_err("an unknown key").says(2, &["mangrove.toml:1", "nmae", "did you mean name?"]);
    fs::write(&file, "pulse_ms = \"soon\"\n").expect("a file");
    a.try_up().expect_err("a wrong value").says(2, &["mangrove.toml:1", "pulse_ms", "soon"]);
    fs::write(&file, "name = [\n").expect("a file");
    a.try_up().expect_err("no TOML").says(2, &["mangrove.toml:", "TOML"]);
    fs::remove_file(&file).expect("a file");

    // No node, and too many of them.
    world.node("nothing", &[]).refused(&["status"]).says(1, &["there is no credential at"]);
    a.refused(&["init"]).says(1, &["holds a node already"]);
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let mut elsewhere = world.node_at("elsewhere", a.data.clone(), &["--listen", &taken.local_addr().expect("an address").to_string()]);
    elsewhere.try_up().expect_err("the port is taken").says(1, &["cannot listen at 127.0.0.1:", "--listen"]);

    a.up();
    assert_eq!(a.get("kept"), 1);
}

#[test]
fn tickets_that_are_no_good() {
    let world = World::new();
    let a = world.found("A");
    let late = a.told(&["invite", "--ttl", "1s"]).trim().to_owned();
    let used = a.ticket("member");
    let b = world.node("B", &[]);
    b.told(&["join", &used, "--name", "B"]);
    world.node("C", &[]).refused(&["join", &used, "--name", "C"]).says(1, &["used"]);
    b.refused(&["join", &used]).says(1, &["holds a node already"]);

    std::thread::sleep(std::time::Duration::from_millis(2_100));
    let mut c = world.node("D", &[]);
    c.refused(&["join", &late, "--name", "D"]).says(1, &["expired"]);

    let good = a.ticket("member");
    let middle = good.len() / 2;
    let other = if &good[middle..=middle] == "a" { "b" } else { "a" };
    let tampered = format!("{}{other}{}", &good[..middle], &good[middle + 1..]);
    c.refused(&["join", &tampered]).says(1, &["the ticket is not valid", "checksum"]);
    c.refused(&["join", &good[..good.len() - 8]]).says(1, &["the ticket is not valid"]);
    c.refused(&["join", "please"]).says(1, &["the ticket is not valid", "mangrove1"]);
    // None of it has used the good one up, or spoiled the directory.
    c.told(&["join", &good, "--name", "D"]);
    c.up();
    c.linked("A");
}
