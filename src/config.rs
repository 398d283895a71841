//! The configuration of a node: `mangrove.toml`, the environment, flags.
//!
//! One table, [`KEYS`], says for each key what it is called, what it may be, what it is by default and what it means; reading, checking,
//! showing and the example all go by it, so that none can forget a key.
//!
//! # Where a value comes from
//!
//! The last of these that gives it: the default, the file, the environment (`MANGROVE_` and the key in capitals), a flag. The keys of one link
//! stand in the file under `[link.NAME]`, or in a flag as `link.NAME.key`.
//!
//! # Units
//!
//! A key that measures something ends in its unit. A bare number is in that unit; a text may name another: `lease_ms = 5000` and
//! `lease_ms = "5s"` are the same. In lists, the environment and flags separate items by commas.
//!
//! # Errors
//!
//! All at once, each with the place (file and line, variable, or flag), the key, what was given and what is allowed. An unknown key is an error
//! and is told the nearest known one; a wrong key that is silently ignored would be found out only when it matters.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

mod keys;
mod raw;

pub use keys::{KEYS, Key, LINK_KEYS, LinkKey};
use raw::{Invalid, Raw};

/// What a node goes by. [`KEYS`] says what each means.
#[derive(Clone, PartialEq, Debug)]
pub struct Config {
    /// `name`; empty for the one the node was given when it was made.
    pub name: String,
    /// `listen`.
    pub listen: SocketAddr,
    /// `advertise`.
    pub advertise: Vec<String>,
    /// `dial_only`.
    pub dial_only: bool,
    /// `peers`.
    pub peers: Vec<String>,
    /// `neighbours_max`.
    pub neighbours_max: usize,
    /// `hold`.
    pub hold: Hold,
    /// `disk_max_bytes`; 0 for no limit.
    pub disk_max_bytes: u64,
    /// `pulse_ms`.
    pub pulse: Duration,
    /// `lease_ms`.
    pub lease: Duration,
    /// `settle_ms`.
    pub settle: Duration,
    /// `hold_ms`.
    pub hold_grants: Duration,
    /// `drift_ppm`, in millionths.
    pub drift_ppm: u32,
    /// `retention_ms`.
    pub retention: Duration,
    /// `reconnect_timeout_ms`.
    pub reconnect_timeout: Duration,
    /// `presume_dead_ms`.
    pub presume_dead: Duration,
    /// `authentication`.
    pub authentication: Vec<String>,
    /// `handler_timeout_ms`.
    pub handler_timeout: Duration,
    /// `token_keys`.
    pub token_keys: Vec<PathBuf>,
    /// `token_audience`; empty for any.
    pub token_audience: String,
    /// `log`.
    pub log: String,
    /// `log_format`.
    pub log_format: LogFormat,
    /// `[link.NAME]`, by name or id of the node at the other end.
    pub links: BTreeMap<String, Link>,
    /// Where each value came from that is not the default, by key (`link.NAME.key` for a link's).
    pub origins: BTreeMap<String, Origin>,
}

/// Which sections a node holds, beside the built-in one that every node holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Hold {
    /// Every section that is declared, now or later.
    All,
    /// Those with these roots; none for a relay.
    Sections(Vec<String>),
}

/// How one link is used.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Link {
    /// `rate_max_bytes_per_s`; 0 for no limit.
    pub rate_max_bytes_per_s: u64,
    /// `metered`.
    pub metered: bool,
}

/// How log lines look.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum LogFormat {
    /// A line for people.
    #[default]
    Text,
    /// A JSON object a line.
    Json,
}

/// Where a value was given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// Nowhere: it is the default.
    Default,
    /// In a file, on a line counted from 1.
    File(PathBuf, usize),
    /// In a variable of the environment.
    Variable(String),
    /// By a flag.
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => write!(f, "default"),
            Origin::File(path, line) => write!(f, "{}:{line}", path.display()),
            Origin::Variable(name) => write!(f, "{name}"),
            Origin::Flag => write!(f, "flag"),
        }
    }
}

/// Everything that is wrong with a configuration; one line for each.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct ConfigError(pub Vec<Problem>);

/// One thing that is wrong: where, and what.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// Where it was given.
    pub origin: Origin,
    /// What is wrong, and what would be right.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.what)
    }
}

impl Default for Config {
    fn default() -> Self {
        let mut config = Config {
            name: String::new(),
            listen: SocketAddr::from(([0, 0, 0, 0], 0)),
            advertise: Vec::new(),
            dial_only: false,
            peers: Vec::new(),
            neighbours_max: 0,
            hold: Hold::All,
            disk_max_bytes: 0,
            pulse: Duration::ZERO,
            lease: Duration::ZERO,
            settle: Duration::ZERO,
            hold_grants: Duration::ZERO,
            drift_ppm: 0,
            retention: Duration::ZERO,
            reconnect_timeout: Duration::ZERO,
            presume_dead: Duration::ZERO,
            authentication: Vec::new(),
            handler_timeout: Duration::ZERO,
            token_keys: Vec::new(),
            token_audience: String::new(),
            log: String::new(),
            log_format: LogFormat::Text,
            links: BTreeMap::new(),
            origins: BTreeMap::new(),
        };
        for key in KEYS {
            (key.set)(&mut config, &default_of(key.default)).expect("a test sets every default");
        }
        config
    }
}

fn default_of(text: &str) -> Raw {
    Raw::from_toml(DeValue::parse(text).expect("a test parses every default").get_ref())
}

impl Config {
    /// The configuration from the file at `path` (where there is none, from the defaults), the process's environment, and `settings`: pairs of key and
    /// value from flags, the later before the earlier.
    ///
    /// # Errors
    /// Everything that is wrong with it, at once.
    pub fn load(path: &Path, settings: &[(String, String)]) -> Result<Config, ConfigError> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => {
                let origin = Origin::File(path.to_path_buf(), 1);
                return Err(ConfigError(vec![Problem { origin, what: format!("it cannot be read: {error}") }]));
            }
        };
        // A name or value that is no text is none of ours, or is refused as the text it comes nearest to.
        let variables =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.to_string_lossy().into_owned())));
        Config::from_parts(path, &text, variables, settings)
    }

    /// As [`Config::load`], from parts already read: nothing here depends on the process.
    ///
    /// # Errors
    /// Everything that is wrong with it, at once.
    pub fn from_parts(
        path: &Path,
        text: &str,
        variables: impl IntoIterator<Item = (String, String)>,
        settings: &[(String, String)],
    ) -> Result<Config, ConfigError> {
        let mut reading = Reading { config: Config::default(), problems: Vec::new() };
        reading.file(path, text);
        let mut variables: Vec<_> = variables.into_iter().filter(|(name, _)| name.starts_with(PREFIX)).collect();
        variables.sort();
        for (name, value) in variables {
            reading.variable(name, value);
        }
        for (key, value) in settings {
            reading.setting(key, value);
        }
        // What is wrong by itself makes comparing moot.
        if reading.problems.is_empty() {
            reading.check_together();
        }
        match reading.problems.is_empty() {
            true => Ok(reading.config),
            false => Err(ConfigError(reading.problems)),
        }
    }

    /// Where a key's value came from; a link's key is `link.NAME.key`.
    pub fn origin(&self, key: &str) -> &Origin {
        self.origins.get(key).unwrap_or(&Origin::Default)
    }

    /// A file with every key, its meaning and its default, all commented out.
    pub fn example() -> String {
        let mut text = String::from(
            "# The configuration of a mangrove node. Every key stands here with its default; remove the `# ` before one to change it.\n\
             # Times and amounts may carry a unit: \"250ms\", \"5s\", \"10min\", \"7d\"; \"64KiB\", \"2GiB\".\n",
        );
        for key in KEYS {
            text += &format!("\n{}# {} = {}\n", comment(key.doc), key.name, key.default);
        }
        text += "\n## Each link may have a table, by the name or the id of the node at its other end.\n# [link.NAME]\n";
        for key in LINK_KEYS {
            text += &format!("\n{}# {} = {}\n", comment(key.doc), key.name, key.default);
        }
        text
    }

    /// Every key with its value and where that came from: `{key: {"value": …, "from": …}}`, with the links' under `link`, by name.
    pub fn show(&self) -> Value {
        let entry = |value: Value, key: &str| json!({ "value": value, "from": self.origin(key).to_string() });
        let mut shown: serde_json::Map<String, Value> =
            KEYS.iter().map(|key| (key.name.to_owned(), entry((key.get)(self), key.name))).collect();
        if !self.links.is_empty() {
            let links = self.links.iter().map(|(name, link)| {
                let keys = LINK_KEYS.iter().map(|key| (key.name.to_owned(), entry((key.get)(link), &link_key(name, key.name))));
                (name.clone(), Value::Object(keys.collect()))
            });
            shown.insert("link".into(), Value::Object(links.collect()));
        }
        Value::Object(shown)
    }
}

/// A key's meaning as comment lines.
fn comment(doc: &str) -> String {
    const WIDTH: usize = 110;
    let mut lines = vec![String::from("##")];
    for word in doc.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.len() + word.len() < WIDTH => *line += &format!(" {word}"),
            _ => lines.push(format!("## {word}")),
        }
    }
    lines.join("\n") + "\n"
}

fn link_key(name: &str, key: &str) -> String {
    format!("link.{name}.{key}")
}

const PREFIX: &str = "MANGROVE_";

/// Variables that are flags of the program and no keys.
const OTHER_VARIABLES: [&str; 3] = ["MANGROVE_NODE", "MANGROVE_DATA", "MANGROVE_CREDENTIAL"];

/// A configuration while it is read.
struct Reading {
    config: Config,
    problems: Vec<Problem>,
}

impl Reading {
    fn problem(&mut self, origin: Origin, what: impl Into<String>) {
        self.problems.push(Problem { origin, what: what.into() });
    }

    fn file(&mut self, path: &Path, text: &str) {
        let at = |offset: usize| Origin::File(path.to_path_buf(), 1 + text[..offset.min(text.len())].matches('\n').count());
        let table = match DeTable::parse(text) {
            Ok(table) => table.into_inner(),
            Err(error) => {
                let what = error.message().trim().replace('\n', ", ");
                return self.problem(at(error.span().map_or(0, |span| span.start)), format!("this is no TOML: {what}"));
            }
        };
        for (key, value) in &table {
            let origin = at(key.span().start);
            match (key.get_ref().as_ref(), value.get_ref()) {
                ("link", DeValue::Table(links)) => self.links(links, &at),
                ("link", other) => {
                    let given = Raw::from_toml(other).show();
                    self.problem(origin, format!("link is {given}, which is not a table [link.NAME]"));
                }
                (name, value) => self.key(origin, name, &Raw::from_toml(value)),
            }
        }
    }

    fn links(&mut self, links: &DeTable<'_>, at: &dyn Fn(usize) -> Origin) {
        for (name, value) in links {
            let DeValue::Table(table) = value.get_ref() else {
                let given = Raw::from_toml(value.get_ref()).show();
                self.problem(at(name.span().start), format!("link.{} is {given}, which is not a table [link.{0}]", name.get_ref()));
                continue;
            };
            self.config.links.entry(name.get_ref().to_string()).or_default();
            for (key, value) in table {
                let key: &Spanned<_> = key;
                self.link_key(at(key.span().start), name.get_ref(), key.get_ref(), &Raw::from_toml(value.get_ref()));
            }
        }
    }

    fn variable(&mut self, name: String, value: String) {
        let key = name[PREFIX.len()..].to_ascii_lowercase();
        if KEYS.iter().any(|known| known.name == key) {
            return self.key(Origin::Variable(name), &key, &Raw::Untyped(value));
        }
        // Others may use the prefix; only what looks like a slip is refused.
        if !OTHER_VARIABLES.contains(&name.as_str())
            && let Some(near) = nearest(&key, KEYS.iter().map(|key| key.name))
        {
            let what = format!("no key belongs to this variable; did you mean {PREFIX}{}?", near.to_ascii_uppercase());
            self.problem(Origin::Variable(name), what);
        }
    }

    fn setting(&mut self, key: &str, value: &str) {
        let raw = Raw::Untyped(value.to_owned());
        match key.strip_prefix("link.") {
            None => self.key(Origin::Flag, key, &raw),
            Some(rest) => match rest.rsplit_once('.') {
                Some((name, key)) if !name.is_empty() => self.link_key(Origin::Flag, name, key, &raw),
                _ => self.problem(Origin::Flag, format!("{key} names no link's key; it is link.NAME.key")),
            },
        }
    }

    fn key(&mut self, origin: Origin, name: &str, raw: &Raw) {
        let Some(key) = KEYS.iter().find(|key| key.name == name) else {
            return self.unknown(origin, name, KEYS.iter().map(|key| key.name).chain(["link"]));
        };
        match (key.set)(&mut self.config, raw) {
            Ok(()) => drop(self.config.origins.insert(name.to_owned(), origin)),
            Err(wanted) => self.invalid(origin, name, raw, wanted),
        }
    }

    fn link_key(&mut self, origin: Origin, link: &str, name: &str, raw: &Raw) {
        let full = link_key(link, name);
        let Some(key) = LINK_KEYS.iter().find(|key| key.name == name) else {
            return self.unknown(origin, name, LINK_KEYS.iter().map(|key| key.name));
        };
        let mut changed = self.config.links.get(link).copied().unwrap_or_default();
        match (key.set)(&mut changed, raw) {
            Ok(()) => {
                self.config.links.insert(link.to_owned(), changed);
                self.config.origins.insert(full, origin);
            }
            Err(wanted) => self.invalid(origin, &full, raw, wanted),
        }
    }

    fn unknown(&mut self, origin: Origin, name: &str, known: impl Iterator<Item = &'static str> + Clone) {
        let what = match nearest(name, known.clone()) {
            Some(near) => format!("there is no key {name}; did you mean {near}?"),
            None => format!("there is no key {name}; the keys are {}", known.collect::<Vec<_>>().join(", ")),
        };
        self.problem(origin, what);
    }

    fn invalid(&mut self, origin: Origin, name: &str, raw: &Raw, wanted: Invalid) {
        self.problem(origin, format!("{name} is {}, which is not {wanted}", raw.show()));
    }

    /// What must hold between keys. Told at the place of the one that was given last.
    fn check_together(&mut self) {
        let config = &self.config;
        let rules = [
            (
                config.lease < config.pulse * 3,
                ["lease_ms", "pulse_ms"],
                "lease_ms is less than three times pulse_ms: one lost pulse would make the node seem gone",
            ),
            (
                config.retention < config.lease * 2,
                ["retention_ms", "lease_ms"],
                "retention_ms is less than twice lease_ms: removals would be forgotten before others notice that a node is away",
            ),
            (
                config.presume_dead < config.reconnect_timeout,
                ["presume_dead_ms", "reconnect_timeout_ms"],
                "presume_dead_ms is less than reconnect_timeout_ms: a session would end while its client may still come back",
            ),
            (
                config.dial_only && !config.advertise.is_empty(),
                ["dial_only", "advertise"],
                "dial_only says that this node cannot be reached, and advertise says where it can; leave out one",
            ),
        ];
        let rank = |origin: &Origin| match origin {
            Origin::Default => 0,
            Origin::File(..) => 1,
            Origin::Variable(_) => 2,
            Origin::Flag => 3,
        };
        let broken: Vec<Problem> = rules
            .into_iter()
            .filter(|(is_broken, ..)| *is_broken)
            .map(|(_, [first, second], what)| {
                let [first, second] = [config.origin(first), config.origin(second)];
                let origin = if rank(second) > rank(first) { second } else { first };
                Problem { origin: origin.clone(), what: what.to_owned() }
            })
            .collect();
        self.problems.extend(broken);
    }
}

/// The known name that `name` is a slip of, if it is near enough to one.
fn nearest(name: &str, known: impl Iterator<Item = &'static str>) -> Option<&'static str> {
    let name = name.to_ascii_lowercase().replace('-', "_");
    // A forgotten or wrong unit is the most frequent slip of all.
    let stem = |name: &str| {
        name.trim_end_matches("_bytes_per_s").trim_end_matches("_bytes").trim_end_matches("_ms").trim_end_matches("_s").to_owned()
    };
    let near = known
        .map(|known| (strsim::damerau_levenshtein(&name, known).min(strsim::damerau_levenshtein(&stem(&name), &stem(known)) + 1), known));
    near.min().filter(|(distance, known)| *distance <= (known.len() / 3).max(1)).map(|(_, known)| known)
}

#[cfg(test)]
mod tests;
