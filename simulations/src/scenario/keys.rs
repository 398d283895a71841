//! Reading a scenario strictly: every key is known, every quantity has its unit, and whoever errs is told the nearest thing that exists.

use toml::{Table, Value};

use super::files::Files;

/// What is wrong with a scenario, and where.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{place}: {what}")]
pub struct BadScenario {
    /// The key, with the tables that it is in.
    pub place: String,
    /// What is wrong with it, and what could stand there.
    pub what: String,
}

/// One table of a scenario. Keys are taken out one by one; what is left at the end is refused.
pub struct Keys<'a> {
    place: String,
    table: Table,
    known: Vec<&'static str>,
    later: &'static [&'static str],
    files: Option<Files<'a>>,
}

impl<'a> Keys<'a> {
    /// A table at a place. `later` are keys of the format that this simulator has no use for yet.
    pub fn new(place: impl Into<String>, table: Table, later: &'static [&'static str]) -> Self {
        Keys { place: place.into(), table, known: Vec::new(), later, files: None }
    }

    /// The same, with what reads the files that it names.
    pub fn within(mut self, files: Option<Files<'a>>) -> Self {
        self.files = files;
        self
    }

    /// The text of a file that the scenario names.
    pub fn read_file(&self, key: &str, name: &str) -> Result<String, BadScenario> {
        let files = self.files.ok_or_else(|| self.bad(key, "there are no files here"))?;
        files(name).map_err(|what| self.bad(key, what))
    }

    /// An error at a key.
    pub fn bad(&self, key: &str, what: impl Into<String>) -> BadScenario {
        let place = match (self.place.as_str(), key) {
            ("", key) => key.to_owned(),
            (place, "") => place.to_owned(),
            (place, key) => format!("{place}.{key}"),
        };
        BadScenario { place, what: what.into() }
    }

    /// Whether a key is there.
    pub fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Whether a key is there and a table.
    pub fn is_table(&self, key: &str) -> bool {
        self.table.get(key).is_some_and(Value::is_table)
    }

    /// A key's value, whatever it is.
    pub fn value(&mut self, key: &'static str) -> Option<Value> {
        self.known.push(key);
        self.table.remove(key)
    }

    /// A text.
    pub fn text(&mut self, key: &'static str) -> Result<Option<String>, BadScenario> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.bad(key, "must be a text")),
        }
    }

    /// One of several words.
    pub fn word(&mut self, key: &'static str, words: &[&str]) -> Result<Option<String>, BadScenario> {
        let Some(text) = self.text(key)? else { return Ok(None) };
        match words.contains(&text.as_str()) {
            true => Ok(Some(text)),
            false => Err(self.bad(key, format!("{text:?} is none of {}{}", words.join(", "), nearest(&text, words)))),
        }
    }

    /// A truth value.
    pub fn flag(&mut self, key: &'static str) -> Result<Option<bool>, BadScenario> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::Boolean(flag)) => Ok(Some(flag)),
            Some(_) => Err(self.bad(key, "must be true or false")),
        }
    }

    /// A whole number, not negative.
    pub fn count(&mut self, key: &'static str) -> Result<Option<u64>, BadScenario> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::Integer(number)) if number >= 0 => Ok(Some(number as u64)),
            Some(_) => Err(self.bad(key, "must be a whole number, 0 or more")),
        }
    }

    /// A number.
    pub fn number(&mut self, key: &'static str) -> Result<Option<f64>, BadScenario> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::Integer(number)) => Ok(Some(number as f64)),
            Some(Value::Float(number)) if number.is_finite() => Ok(Some(number)),
            Some(_) => Err(self.bad(key, "must be a number")),
        }
    }

    /// A probability.
    pub fn share(&mut self, key: &'static str) -> Result<Option<f64>, BadScenario> {
        match self.number(key)? {
            Some(share) if !(0.0..=1.0).contains(&share) => Err(self.bad(key, "must be a share, from 0 to 1")),
            share => Ok(share),
        }
    }

    /// A duration, in microseconds.
    pub fn duration(&mut self, key: &'static str) -> Result<Option<u64>, BadScenario> {
        self.value(key).map(|value| duration(&value).map_err(|what| self.bad(key, what))).transpose()
    }

    /// A duration, in microseconds; `None` as well if a word stands in its place.
    pub fn duration_or(&mut self, key: &'static str, word: &str) -> Result<Option<u64>, BadScenario> {
        let value = self.value(key).filter(|value| value.as_str() != Some(word));
        value.map(|value| duration(&value).map_err(|what| self.bad(key, format!("{what}; or write {word:?}")))).transpose()
    }

    /// A table within.
    pub fn table(&mut self, key: &'static str, later: &'static [&'static str]) -> Result<Option<Keys<'a>>, BadScenario> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::Table(table)) => Ok(Some(Keys::new(self.bad(key, "").place, table, later).within(self.files))),
            Some(_) => Err(self.bad(key, "must be a table")),
        }
    }

    /// Tables within, in order.
    pub fn tables(&mut self, key: &'static str, later: &'static [&'static str]) -> Result<Vec<Keys<'a>>, BadScenario> {
        let list = match self.value(key) {
            None => return Ok(Vec::new()),
            Some(Value::Array(list)) => list,
            Some(_) => return Err(self.bad(key, format!("must be a list of tables: [[{key}]]"))),
        };
        let place = self.bad(key, "").place;
        let keys = list.into_iter().enumerate().map(|(at, value)| match value {
            Value::Table(table) => Ok(Keys::new(format!("{place}[{at}]"), table, later).within(self.files)),
            _ => Err(BadScenario { place: format!("{place}[{at}]"), what: "must be a table".into() }),
        });
        keys.collect()
    }

    /// A list of texts; a single text is a list of one.
    pub fn texts(&mut self, key: &'static str) -> Result<Option<Vec<String>>, BadScenario> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(vec![text])),
            Some(Value::Array(list)) => texts_of(&list).map(Some).ok_or_else(|| self.bad(key, "must be a list of texts")),
            Some(_) => Err(self.bad(key, "must be a text or a list of texts")),
        }
    }

    /// A list of lists of texts.
    pub fn text_lists(&mut self, key: &'static str) -> Result<Option<Vec<Vec<String>>>, BadScenario> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let lists = value.as_array().and_then(|lists| lists.iter().map(|list| texts_of(list.as_array()?)).collect());
        lists.map(Some).ok_or_else(|| self.bad(key, "must be a list of lists of texts"))
    }

    /// Refuses what was not asked for.
    pub fn end(self) -> Result<(), BadScenario> {
        let Some(key) = self.table.keys().next() else { return Ok(()) };
        if self.later.contains(&key.as_str()) {
            return Err(self.bad(key, "is not supported yet"));
        }
        Err(self.bad(key, format!("there is no such key{}", nearest(key, &self.known))))
    }
}

fn texts_of(list: &[Value]) -> Option<Vec<String>> {
    list.iter().map(|value| value.as_str().map(str::to_owned)).collect()
}

/// What was probably meant.
pub fn nearest(word: &str, known: &[&str]) -> String {
    let best = known.iter().map(|known| (strsim::damerau_levenshtein(word, known), *known)).min();
    match best {
        Some((distance, known)) if distance <= word.len().max(3) / 2 => format!("; did you mean {known}?"),
        _ => String::new(),
    }
}

/// What a quantity is measured in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unit {
    /// Microseconds, from `us`, `ms`, `s`, `m`, `h`, `d`.
    Duration,
    /// Bytes, from `B`, `KiB`, `MiB`, `kB`, `MB`.
    Size,
    /// Bits a second, from `kbit/s`, `Mbit/s`, `Gbit/s`.
    Rate,
    /// A bare number.
    None,
}

fn duration(value: &Value) -> Result<u64, String> {
    quantity(value, Unit::Duration).map(|us| us.max(0.0) as u64)
}

/// A quantity, in the unit's least.
pub(super) fn quantity(value: &Value, unit: Unit) -> Result<f64, String> {
    match (value, unit) {
        (Value::Integer(number), Unit::None) => Ok(*number as f64),
        (Value::Float(number), Unit::None) if number.is_finite() => Ok(*number),
        (Value::Integer(number), Unit::Size) => Ok(*number as f64),
        (Value::String(text), _) => parse(text, unit).ok_or_else(|| format!("{text:?} is not {}", example(unit))),
        _ => Err(format!("must be {}", example(unit))),
    }
}

pub(super) fn example(unit: Unit) -> &'static str {
    match unit {
        Unit::Duration => "a duration with its unit, as \"500ms\", \"30s\" or \"10m\"",
        Unit::Size => "a size with its unit, as \"64KiB\"",
        Unit::Rate => "a rate with its unit, as \"20Mbit/s\"",
        Unit::None => "a number",
    }
}

pub(super) fn parse(text: &str, unit: Unit) -> Option<f64> {
    let split = text.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '-')).unwrap_or(text.len());
    let (number, name) = text.split_at(split);
    let factor = factor(name, unit)?;
    number.parse::<f64>().ok().filter(|number| number.is_finite()).map(|number| number * factor)
}

/// The units' names, and how many of the least each is.
const UNITS: [(Unit, &str, f64); 14] = [
    (Unit::Duration, "us", 1.0),
    (Unit::Duration, "ms", 1e3),
    (Unit::Duration, "s", 1e6),
    (Unit::Duration, "m", 60e6),
    (Unit::Duration, "h", 3_600e6),
    (Unit::Duration, "d", 86_400e6),
    (Unit::Size, "B", 1.0),
    (Unit::Size, "kB", 1e3),
    (Unit::Size, "MB", 1e6),
    (Unit::Size, "KiB", 1_024.0),
    (Unit::Size, "MiB", 1_048_576.0),
    (Unit::Rate, "kbit/s", 1e3),
    (Unit::Rate, "Mbit/s", 1e6),
    (Unit::Rate, "Gbit/s", 1e9),
];

/// How many of the least unit this one is.
fn factor(name: &str, unit: Unit) -> Option<f64> {
    UNITS.iter().find(|(of, known, _)| (*of, *known) == (unit, name)).map(|(.., factor)| *factor)
}

/// The same for whoever names it in a scenario; nothing has to be named for a bare number.
pub(super) fn named_factor(name: Option<&str>, unit: Unit) -> Result<f64, String> {
    let known: Vec<&str> = UNITS.iter().filter(|(of, ..)| *of == unit).map(|(_, name, _)| *name).collect();
    match name {
        None if unit == Unit::None => Ok(1.0),
        None => Err(format!("is missing: one of {}", known.join(", "))),
        Some(name) => factor(name, unit).ok_or_else(|| match known.is_empty() {
            true => "a bare number has none".into(),
            false => format!("{name:?} is none of {}", known.join(", ")),
        }),
    }
}
