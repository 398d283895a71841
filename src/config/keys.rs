//! The one table of keys: what each is called, what it may be, what it is by default, what it means, and where it goes.

use std::time::Duration;

use serde_json::{Value, json};

use super::raw::{Invalid, Raw, show_bytes, show_time};
use super::{Config, Hold, Link, LogFormat};

/// A key of the configuration.
pub struct Key {
    /// Its name; a unit stands last in it.
    pub name: &'static str,
    /// Its default, as TOML.
    pub default: &'static str,
    /// What it means, for people.
    pub doc: &'static str,
    pub(super) set: fn(&mut Config, &Raw) -> Result<(), Invalid>,
    pub(super) get: fn(&Config) -> Value,
}

/// A key of one link's table, `[link.NAME]`.
pub struct LinkKey {
    /// Its name.
    pub name: &'static str,
    /// Its default, as TOML.
    pub default: &'static str,
    /// What it means, for people.
    pub doc: &'static str,
    pub(super) set: fn(&mut Link, &Raw) -> Result<(), Invalid>,
    pub(super) get: fn(&Link) -> Value,
}

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

/// What fjall's journals alone may take: a smaller limit would be reached by overwriting one topic.
const DISK_BYTES_MIN: u64 = 256 << 20;
/// A link that carries less does not get its heartbeats through.
const RATE_BYTES_PER_S_MIN: u64 = 1 << 10;

/// All keys, in the order in which people meet them.
pub const KEYS: &[Key] = &[
    Key {
        name: "name",
        default: "\"\"",
        doc: "The node's name, for people: 1 to 64 letters, digits, `-`, `_` and `.`. Empty for the name it was given by init or join.",
        set: |config, raw| {
            let is_name = |name: &&str| name.len() <= 64 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
            let name = raw.text().ok().filter(is_name);
            config.name = name.ok_or("up to 64 letters, digits, `-`, `_` and `.`")?.to_owned();
            Ok(())
        },
        get: |config| json!(config.name),
    },
    Key {
        name: "listen",
        default: "\"[::]:4747\"",
        doc: "Where to listen, for nodes and clients, by UDP. The default takes IPv6 and IPv4, and IPv4 alone where there is no IPv6. Port 0 takes any free one.",
        set: |config, raw| raw.socket().map(|listen| config.listen = listen),
        get: |config| json!(config.listen.to_string()),
    },
    Key {
        name: "advertise",
        default: "[]",
        doc: "Where others can reach this node, if not at the addresses it listens at: behind a router with a forwarded port, or by name.",
        set: |config, raw| raw.hosts().map(|hosts| config.advertise = hosts),
        get: |config| json!(config.advertise),
    },
    Key {
        name: "dial_only",
        default: "false",
        doc: "This node cannot be reached and only dials others: behind a router, on a mobile line. It advertises nothing.",
        set: |config, raw| raw.bool().map(|dial_only| config.dial_only = dial_only),
        get: |config| json!(config.dial_only),
    },
    Key {
        name: "peers",
        default: "[]",
        doc: "Nodes of the mesh to dial beside those it knows already. One that can be reached is enough; the others are learned from it, and in a \
              large mesh the link to it need not stay.",
        set: |config, raw| raw.hosts().map(|hosts| config.peers = hosts),
        get: |config| json!(config.peers),
    },
    Key {
        name: "neighbours_max",
        default: "8",
        doc: "Up to how many neighbours, from 1 to 64, everybody is linked to everybody. In a larger mesh each node is linked to a few, about four for each \
              section that it holds, and reaches the rest through them. Set it alike everywhere.",
        set: |config, raw| raw.count(1, 64).map(|max| config.neighbours_max = max as usize),
        get: |config| json!(config.neighbours_max),
    },
    Key {
        name: "hold",
        default: "[\"all\"]",
        doc: "Sections to hold, by their roots; [\"all\"] for every section that is or will be declared, [] for a relay that holds none. \
              `mangrove section hold` and `drop` change it while the node runs.",
        set: |config, raw| {
            const WANTED: &str = "a list of the roots of sections, [\"all\"] alone, or []";
            let roots = raw.texts().map_err(|_| WANTED)?;
            config.hold = match roots.as_slice() {
                [all] if all == "all" => Hold::All,
                roots if roots.iter().any(|root| root == "all" || !is_path(root)) => return Err(WANTED.into()),
                _ => Hold::Sections(roots),
            };
            Ok(())
        },
        get: |config| match &config.hold {
            Hold::All => json!(["all"]),
            Hold::Sections(roots) => json!(roots),
        },
    },
    Key {
        name: "disk_max_bytes",
        default: "0",
        doc: "What the data may take on the disk; 0 for as much as there is, less what is kept free for others. New writes are refused before it is \
              reached, removals go on. At least 256MiB, most of which a small mesh never uses.",
        set: |config, raw| raw.bytes(DISK_BYTES_MIN).map(|bytes| config.disk_max_bytes = bytes),
        get: |config| json!(bytes_value(config.disk_max_bytes)),
    },
    Key {
        name: "pulse_ms",
        default: "1000",
        doc: "How often the node says that it lives. The interval grows with the mesh.",
        set: |config, raw| raw.time(10 * MS, HOUR).map(|time| config.pulse = time),
        get: |config| json!(show_time(config.pulse)),
    },
    Key {
        name: "lease_ms",
        default: "5000",
        doc: "After how long without a sign of life others take this node for gone. At least three pulses.",
        set: |config, raw| raw.time(50 * MS, DAY).map(|time| config.lease = time),
        get: |config| json!(show_time(config.lease)),
    },
    Key {
        name: "settle_ms",
        default: "300",
        doc: "How long a claim waits before it is granted, so that competing claims are known.",
        set: |config, raw| raw.time(MS, HOUR).map(|time| config.settle = time),
        get: |config| json!(show_time(config.settle)),
    },
    Key {
        name: "hold_ms",
        default: "5000",
        doc: "How long a session that lost its connection keeps its grants. After that the next claim takes over.",
        set: |config, raw| raw.time(Duration::ZERO, DAY).map(|time| config.hold_grants = time),
        get: |config| json!(show_time(config.hold_grants)),
    },
    Key {
        name: "drift_ppm",
        default: "500",
        doc: "How far clocks may run apart, in millionths, from 1 to 100000: what quorum sections rely on. Ordinary quartz stays below 100.",
        set: |config, raw| raw.count(1, 100_000).map(|ppm| config.drift_ppm = ppm as u32),
        get: |config| json!(config.drift_ppm),
    },
    Key {
        name: "retention_ms",
        default: "\"7d\"",
        doc: "How long a node may be away and still catch up by what changed. Beyond it, it takes over the others' state bucket by bucket. \
              Removals are remembered for as long.",
        set: |config, raw| raw.time(10 * SECOND, 3_660 * DAY).map(|time| config.retention = time),
        get: |config| json!(show_time(config.retention)),
    },
    Key {
        name: "reconnect_timeout_ms",
        default: "60000",
        doc: "How long a client that lost its connection may take to come back to its session; clients may ask for less.",
        set: |config, raw| raw.time(Duration::ZERO, 30 * DAY).map(|time| config.reconnect_timeout = time),
        get: |config| json!(show_time(config.reconnect_timeout)),
    },
    Key {
        name: "presume_dead_ms",
        default: "\"7d\"",
        doc: "After how long without a sign of life a node is taken for gone for good: the sessions of its clients end, if these have not gone elsewhere.",
        set: |config, raw| raw.time(60 * SECOND, 3_660 * DAY).map(|time| config.presume_dead = time),
        get: |config| json!(show_time(config.presume_dead)),
    },
    Key {
        name: "authentication",
        default: "[\"store\", \"tokens\"]",
        doc: "Who judges logins, in this order; the first who knows decides. \"store\" is the mesh's store of principals, \"tokens\" is for whoever has signed a \
              token, other names are those of handlers: sessions of the mesh that judge. [] lets in nobody but the operator.",
        set: |config, raw| {
            const WANTED: &str = "a list of \"store\", \"tokens\" and names of handlers, each once";
            let names = raw.texts().map_err(|_| WANTED)?;
            let is_name = |name: &String| mangrove_crdt::access::check_principal(name).is_ok();
            let once = names.iter().collect::<std::collections::BTreeSet<_>>().len() == names.len();
            if !names.iter().all(is_name) || !once {
                return Err(WANTED.into());
            }
            config.authentication = names;
            Ok(())
        },
        get: |config| json!(config.authentication),
    },
    Key {
        name: "handler_timeout_ms",
        default: "2000",
        doc: "How long a login waits for one handler before the next is asked, from 100 ms to a minute.",
        set: |config, raw| raw.time(100 * MS, 60 * SECOND).map(|time| config.handler_timeout = time),
        get: |config| json!(show_time(config.handler_timeout)),
    },
    Key {
        name: "token_keys",
        default: "[]",
        doc: "Files with the keys whose tokens (JWT) are taken: public keys as PEM (EdDSA, ES256, ES384, RSA), or secrets of at least 32 bytes (HS256). Of a token count \
              sub, the principal; exp, which it must have; nbf, aud; and roles, without which the principal has those of the store.",
        set: |config, raw| raw.texts().map(|files| config.token_keys = files.into_iter().map(Into::into).collect()),
        get: |config| json!(config.token_keys),
    },
    Key {
        name: "token_audience",
        default: "\"\"",
        doc: "Whom tokens must be meant for, by their aud; empty to take those for anybody.",
        set: |config, raw| raw.text().map(|audience| config.token_audience = audience.to_owned()),
        get: |config| json!(config.token_audience),
    },
    Key {
        name: "log",
        default: "\"info\"",
        doc: "What to log: error, warn, info, debug, trace or off, and for parts of the program `part=level`, separated by commas. --log goes before it.",
        set: |config, raw| {
            let filter = raw.text().ok().filter(|filter| crate::logging::check(filter).is_ok());
            config.log = filter.ok_or("off, error, warn, info, debug or trace, or a list such as \"info,mangrove_net=debug\"")?.to_owned();
            Ok(())
        },
        get: |config| json!(config.log),
    },
    Key {
        name: "log_format",
        default: "\"text\"",
        doc: "How to log: \"text\" for people, \"json\" for one JSON object a line. Both go to stderr.",
        set: |config, raw| {
            config.log_format = if raw.choice(&["text", "json"])? == "json" { LogFormat::Json } else { LogFormat::Text };
            Ok(())
        },
        get: |config| json!(if config.log_format == LogFormat::Json { "json" } else { "text" }),
    },
];

/// The keys of `[link.NAME]`, where NAME is a node's name or its id.
pub const LINK_KEYS: &[LinkKey] = &[
    LinkKey {
        name: "rate_max_bytes_per_s",
        default: "0",
        doc: "What is sent over this link at most in a second; 0 for as much as it carries.",
        set: |link, raw| raw.bytes(RATE_BYTES_PER_S_MIN).map(|rate| link.rate_max_bytes_per_s = rate),
        get: |link| json!(bytes_value(link.rate_max_bytes_per_s)),
    },
    LinkKey {
        name: "metered",
        default: "false",
        doc: "Bytes cost money here, both ways: pulses at most every 10 s, and values at most every 10 s, of each topic the newest. Everything else goes at once.",
        set: |link, raw| raw.bool().map(|metered| link.metered = metered),
        get: |link| json!(link.metered),
    },
];

/// 0 has no unit: it means none.
fn bytes_value(bytes: u64) -> Value {
    if bytes == 0 { json!(0) } else { json!(show_bytes(bytes)) }
}

/// True for a topic path, by the rules of paths.
fn is_path(text: &str) -> bool {
    let segments = || text.split('/');
    text.len() <= 1_024 && segments().count() <= 64 && segments().all(|segment| !segment.is_empty())
}
