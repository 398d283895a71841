//! What is read, from where, and what is said when it is wrong.

use super::*;

fn from(text: &str, variables: &[(&str, &str)], settings: &[(&str, &str)]) -> Result<Config, ConfigError> {
    let own = |pairs: &[(&str, &str)]| pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect::<Vec<_>>();
    Config::from_parts(Path::new("m.toml"), text, own(variables), &own(settings))
}

fn error(text: &str) -> String {
    from(text, &[], &[]).unwrap_err().to_string()
}

#[test]
fn nothing_given_is_the_defaults() {
    let config = from("", &[], &[]).unwrap();
    assert_eq!(config, Config::default());
    assert_eq!(config.listen.to_string(), "[::]:4747");
    assert_eq!(config.hold, Hold::All);
    assert_eq!(config.neighbours_max, 8);
    assert_eq!(config.drift_ppm, 500);
    let times =
        [config.pulse, config.lease, config.settle, config.hold_grants, config.retention, config.reconnect_timeout, config.presume_dead];
    assert_eq!(times.map(|time| time.as_millis()), [1_000, 5_000, 300, 5_000, 604_800_000, 60_000, 604_800_000]);
    assert_eq!((config.log.as_str(), config.log_format), ("info", LogFormat::Text));
    assert_eq!(config.disk_max_bytes, 0);
}

#[test]
fn every_key_can_be_given_in_a_file() {
    let text = r#"
name = "attic-1"
listen = "0.0.0.0:4000"
advertise = ["attic.example.org:4747"]
dial_only = false
peers = ["10.0.0.1:4747", "[2001:db8::1]:4747"]
neighbours_max = 3
hold = ["plant/north", "plant/south"]
disk_max_bytes = "1GiB"
pulse_ms = 500
lease_ms = "2s"
settle_ms = "100ms"
hold_ms = 0
drift_ppm = 1000
retention_ms = "1d"
reconnect_timeout_ms = "2min"
presume_dead_ms = "2d"
authentication = ["door", "store"]
handler_timeout_ms = "3s"
token_keys = ["keys/one.pem"]
token_audience = "attic"
log = "warn,mangrove=debug"
log_format = "json"
[link.cellar]
rate_max_bytes_per_s = "64KiB"
metered = true
[link."node.with.dots"]
metered = true
"#;
    let config = from(text, &[], &[]).unwrap();
    assert_eq!(config.name, "attic-1");
    assert_eq!(config.listen.to_string(), "0.0.0.0:4000");
    assert_eq!(config.advertise, ["attic.example.org:4747"]);
    assert_eq!(config.peers, ["10.0.0.1:4747", "[2001:db8::1]:4747"]);
    assert_eq!(config.neighbours_max, 3);
    assert_eq!(config.hold, Hold::Sections(vec!["plant/north".into(), "plant/south".into()]));
    assert_eq!(config.disk_max_bytes, 1 << 30);
    let times =
        [config.pulse, config.lease, config.settle, config.hold_grants, config.retention, config.reconnect_timeout, config.presume_dead];
    assert_eq!(times.map(|time| time.as_millis()), [500, 2_000, 100, 0, 86_400_000, 120_000, 172_800_000]);
    assert_eq!(config.drift_ppm, 1_000);
    assert_eq!((config.authentication.as_slice(), config.handler_timeout.as_secs()), (&["door".to_owned(), "store".into()][..], 3));
    assert_eq!((config.token_keys.as_slice(), config.token_audience.as_str()), (&["keys/one.pem".into()][..], "attic"));
    assert_eq!((config.log.as_str(), config.log_format), ("warn,mangrove=debug", LogFormat::Json));
    let link = |name: &str| config.links[name];
    assert_eq!(link("cellar"), Link { rate_max_bytes_per_s: 64 << 10, metered: true });
    assert_eq!(link("node.with.dots"), Link { rate_max_bytes_per_s: 0, metered: true });
    for key in KEYS {
        assert!(matches!(config.origin(key.name), Origin::File(_, 2..=23)), "{} came from {}", key.name, config.origin(key.name));
    }
}

#[test]
fn flags_go_before_the_environment_before_the_file_before_the_default() {
    let file = "pulse_ms = 100\nlease_ms = 2000\nsettle_ms = 30\n";
    let variables = [("MANGROVE_LEASE_MS", "3000"), ("MANGROVE_SETTLE_MS", "40"), ("PULSE_MS", "7")];
    let settings = [("settle_ms", "50"), ("settle_ms", "60")];
    let config = from(file, &variables, &settings).unwrap();
    assert_eq!([config.pulse, config.lease, config.settle, config.hold_grants].map(|time| time.as_millis()), [100, 3_000, 60, 5_000]);
    let origins = ["pulse_ms", "lease_ms", "settle_ms", "hold_ms"].map(|key| config.origin(key).to_string());
    assert_eq!(origins, ["m.toml:1", "MANGROVE_LEASE_MS", "flag", "default"]);
}

#[test]
fn the_environment_and_flags_are_text() {
    let variables =
        [("MANGROVE_PEERS", "a:1, b:2"), ("MANGROVE_DIAL_ONLY", "true"), ("MANGROVE_HOLD", ""), ("MANGROVE_DISK_MAX_BYTES", "300MiB")];
    let settings = [("link.cellar.metered", "true"), ("link.b.c.rate_max_bytes_per_s", "2048"), ("retention_ms", "1h")];
    let config = from("", &variables, &settings).unwrap();
    assert_eq!(config.peers, ["a:1", "b:2"]);
    assert!(config.dial_only);
    assert_eq!(config.hold, Hold::Sections(Vec::new()));
    assert_eq!(config.disk_max_bytes, 300 << 20);
    assert_eq!(config.retention, Duration::from_secs(3_600));
    assert!(config.links["cellar"].metered);
    assert_eq!(config.links["b.c"].rate_max_bytes_per_s, 2_048);
    assert_eq!(config.origin("link.cellar.metered"), &Origin::Flag);
}

#[test]
fn an_unknown_key_is_told_the_nearest() {
    assert_eq!(error("\nlisten = \"[::]:1\"\nlease = 5\n"), "m.toml:3: there is no key lease; did you mean lease_ms?");
    assert_eq!(
        error("neighbors_max = 3"),
        "m.toml:1: there is no key neighbours_max_; did you mean neighbours_max?".replace("neighbours_max_;", "neighbors_max;")
    );
    assert_eq!(error("disk_max = 3"), "m.toml:1: there is no key disk_max; did you mean disk_max_bytes?");
    assert_eq!(error("dial-only = true"), "m.toml:1: there is no key dial-only; did you mean dial_only?");
    assert_eq!(error("[links.x]\nmetered = true"), "m.toml:1: there is no key links; did you mean link?");
    assert_eq!(error("[link.x]\nrate_max = 5"), "m.toml:2: there is no key rate_max; did you mean rate_max_bytes_per_s?");
    assert_eq!(error("[link.x]\nspeed = 5"), "m.toml:2: there is no key speed; the keys are rate_max_bytes_per_s, metered");
    let error = error("colour = 5");
    assert!(error.starts_with("m.toml:1: there is no key colour; the keys are name, listen, advertise, "), "{error}");
    assert!(error.ends_with(", log, log_format, link"), "{error}");
}

#[test]
fn a_variable_that_looks_like_a_slip_is_refused_and_others_are_not_ours() {
    let refused = from("", &[("MANGROVE_LEASE", "5")], &[]).unwrap_err();
    assert_eq!(refused.to_string(), "MANGROVE_LEASE: no key belongs to this variable; did you mean MANGROVE_LEASE_MS?");
    from("", &[("MANGROVE_NODE", "a:1"), ("MANGROVE_DATA", "x"), ("MANGROVE_KUBERNETES_THING", "x")], &[]).unwrap();
}

#[test]
fn a_wrong_flag_says_so() {
    let error = |key: &str| from("", &[], &[(key, "1")]).unwrap_err().to_string();
    assert_eq!(error("pulse"), "flag: there is no key pulse; did you mean pulse_ms?");
    assert_eq!(error("link.metered"), "flag: link.metered names no link's key; it is link.NAME.key");
    assert_eq!(error("link.x.metered"), "flag: link.x.metered is 1, which is not true or false");
}

#[test]
fn a_wrong_value_says_where_and_what_is_allowed() {
    let cases = [
        ("name = \"a b\"", "name is \"a b\", which is not up to 64 letters, digits, `-`, `_` and `.`"),
        ("name = 5", "name is 5, which is not up to 64 letters, digits, `-`, `_` and `.`"),
        (
            "listen = \"localhost\"",
            "listen is \"localhost\", which is not an IP address and a port, such as \"[::]:4747\" or \"0.0.0.0:4747\"",
        ),
        ("dial_only = \"yes\"", "dial_only is \"yes\", which is not true or false"),
        (
            "peers = [\"a\"]",
            "peers is [\"a\"], which is not a list of hosts with ports, such as [\"node-1.example.org:4747\", \"[2001:db8::1]:4747\"]",
        ),
        (
            "peers = \"a:1\"",
            "peers is \"a:1\", which is not a list of hosts with ports, such as [\"node-1.example.org:4747\", \"[2001:db8::1]:4747\"]",
        ),
        ("neighbours_max = 0", "neighbours_max is 0, which is not a whole number from 1 to 64"),
        ("neighbours_max = 2.5", "neighbours_max is a float, which is not a whole number from 1 to 64"),
        ("hold = [\"all\", \"a\"]", "hold is [\"all\", \"a\"], which is not a list of the roots of sections, [\"all\"] alone, or []"),
        ("hold = [\"a//b\"]", "hold is [\"a//b\"], which is not a list of the roots of sections, [\"all\"] alone, or []"),
        (
            "disk_max_bytes = 1000",
            "disk_max_bytes is 1000, which is not 0 or an amount of at least 256MiB: bytes as a number, or a text such as \"64KiB\", \"10MiB\" or \"2GiB\"",
        ),
        (
            "pulse_ms = \"5m\"",
            "pulse_ms is \"5m\", which is not a time from 10ms to 1h: milliseconds as a number, or a text such as \"500ms\", \"5s\", \"10min\", \"1h\" or \"7d\"",
        ),
        (
            "retention_ms = 1",
            "retention_ms is 1, which is not a time from 10s to 3660d: milliseconds as a number, or a text such as \"500ms\", \"5s\", \"10min\", \"1h\" or \"7d\"",
        ),
        ("drift_ppm = -1", "drift_ppm is -1, which is not a whole number from 1 to 100000"),
        (
            "log = \"inof\"",
            "log is \"inof\", which is not off, error, warn, info, debug or trace, or a list such as \"info,mangrove_net=debug\"",
        ),
        ("log_format = \"xml\"", "log_format is \"xml\", which is not \"text\" or \"json\""),
        ("link = 5", "link is 5, which is not a table [link.NAME]"),
        ("link.x = 5", "link.x is 5, which is not a table [link.x]"),
        ("link.x.metered = 5", "link.x.metered is 5, which is not true or false"),
        (
            "link.x.rate_max_bytes_per_s = \"9B\"",
            "link.x.rate_max_bytes_per_s is \"9B\", which is not 0 or an amount of at least 1KiB: bytes as a number, or a text such as \"64KiB\", \"10MiB\" or \"2GiB\"",
        ),
    ];
    for (text, want) in cases {
        assert_eq!(error(&format!("# a comment\n\n{text}\n")), format!("m.toml:3: {want}"));
    }
}

#[test]
fn keys_that_contradict_each_other_are_told_at_the_one_given_last() {
    assert_eq!(
        error("lease_ms = 2000"),
        "m.toml:1: lease_ms is less than three times pulse_ms: one lost pulse would make the node seem gone"
    );
    let refused = from("lease_ms = 5000", &[], &[("pulse_ms", "4s")]).unwrap_err().to_string();
    assert!(refused.starts_with("flag: lease_ms is less than three times pulse_ms"), "{refused}");
    let refused = from("dial_only = true", &[("MANGROVE_ADVERTISE", "a:1")], &[]).unwrap_err().to_string();
    assert!(refused.starts_with("MANGROVE_ADVERTISE: dial_only says that this node cannot be reached"), "{refused}");
    assert!(error("retention_ms = \"1min\"\nlease_ms = \"1min\"").starts_with("m.toml:1: retention_ms is less than twice lease_ms"));
}

#[test]
fn everything_wrong_is_said_at_once() {
    let refused = from("pulse_ms = 0\nlease = 1\n", &[("MANGROVE_DRIFT_PPM", "x")], &[("listen", "y")]).unwrap_err();
    assert_eq!(refused.0.len(), 4);
    assert_eq!(refused.to_string().lines().count(), 4);
}

#[test]
fn what_is_no_toml_says_on_which_line() {
    let error = error("pulse_ms = 1000\nlease_ms = = 5\n");
    assert!(error.starts_with("m.toml:2: this is no TOML: "), "{error}");
    assert_eq!(error.lines().count(), 1);
}

#[test]
fn a_missing_file_is_no_error_and_an_unreadable_one_is() {
    let dir = tempfile::tempdir().unwrap();
    assert!(Config::load(&dir.path().join("none.toml"), &[("name".into(), "n".into())]).is_ok_and(|config| config.name == "n"));
    let refused = Config::load(dir.path(), &[]).unwrap_err().to_string();
    assert!(refused.starts_with(&format!("{}:1: it cannot be read: ", dir.path().display())), "{refused}");
}

#[test]
fn the_example_has_every_key_and_is_the_defaults() {
    let example = Config::example();
    assert_eq!(from(&example, &[], &[]).unwrap(), Config::default(), "as it stands it changes nothing");
    let uncommented: String = example
        .lines()
        .filter(|line| !line.starts_with("##"))
        .filter_map(|line| line.strip_prefix("# "))
        .filter(|line| line.contains(" = ") || line.starts_with('['))
        .fold(String::new(), |text, line| text + line + "\n");
    let mut config = from(&uncommented, &[], &[]).unwrap();
    assert_eq!(config.links.remove("NAME"), Some(Link::default()));
    config.origins.clear();
    assert_eq!(config, Config::default());
    for key in KEYS.iter().map(|key| key.name).chain(LINK_KEYS.iter().map(|key| key.name)) {
        assert!(uncommented.contains(&format!("{key} = ")), "{key}");
    }
    assert!(example.lines().all(|line| line.len() <= 125), "{:?}", example.lines().max_by_key(|line| line.len()));
}

#[test]
fn what_is_shown_can_be_given_again() {
    let text = "lease_ms = \"1min\"\nhold = []\ndisk_max_bytes = \"1GiB\"\nname = \"n\"\nlink.x.metered = true\nlink.x.rate_max_bytes_per_s = 3000";
    let mut config = from(text, &[], &[]).unwrap();
    let shown = config.show();
    assert_eq!(shown["lease_ms"], json!({ "value": "1min", "from": "m.toml:1" }));
    assert_eq!(shown["pulse_ms"], json!({ "value": "1s", "from": "default" }));
    assert_eq!(shown["link"]["x"]["rate_max_bytes_per_s"], json!({ "value": "3000B", "from": "m.toml:6" }));
    let value = |shown: &Value| Value::clone(&shown["value"]);
    let mut again: serde_json::Map<String, Value> = KEYS.iter().map(|key| (key.name.to_owned(), value(&shown[key.name]))).collect();
    again.insert(
        "link".into(),
        json!({ "x": { "metered": true, "rate_max_bytes_per_s": value(&shown["link"]["x"]["rate_max_bytes_per_s"]) } }),
    );
    let mut again = from(&toml::to_string(&again).unwrap(), &[], &[]).unwrap();
    config.origins.clear();
    again.origins.clear();
    assert_eq!(again, config);
    toml::to_string(&shown).unwrap();
}

#[test]
fn keys_end_in_their_unit_and_none_stands_twice() {
    let mut names: Vec<_> = KEYS.iter().map(|key| key.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), KEYS.len());
    for key in KEYS {
        let is_time = matches!((key.get)(&Config::default()), Value::String(text) if text.ends_with('s') && text.starts_with(|c: char| c.is_ascii_digit()));
        assert!(!is_time || key.name.ends_with("_ms"), "{}", key.name);
    }
}
