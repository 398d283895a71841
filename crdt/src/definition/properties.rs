//! The properties that topics of every type have.

use std::fmt;

use super::{DefinitionError, MESH_COPIES_MAX};

/// Whether a subscriber that falls behind may be spared values that newer ones have replaced.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Conflate {
    /// Never: every value that this node sees is delivered, as long as the subscriber's buffer allows.
    Off,
    /// Where the subscriber is slow.
    #[default]
    On,
    /// Always: only the newest value is ever waiting.
    Always,
}

/// Which topics go first where a link or a subscriber cannot take all at once.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Priority {
    /// After the others.
    Low,
    /// In between.
    #[default]
    Normal,
    /// Before the others.
    High,
}

/// Where a write must be before it is acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Durability {
    /// In this node's memory.
    Memory,
    /// On this node's disk.
    Disk,
    /// On this node's disk and on those of so many other nodes, 1 to [`MESH_COPIES_MAX`].
    Mesh(u8),
}

impl Durability {
    /// On how many disks the write is: the number that stands for a durability in every encoding.
    pub fn disks(self) -> u8 {
        match self {
            Durability::Memory => 0,
            Durability::Disk => 1,
            Durability::Mesh(copies) => copies.saturating_add(1),
        }
    }

    /// The inverse of [`Durability::disks`]; `None` beyond [`MESH_COPIES_MAX`] other nodes.
    pub fn from_disks(disks: u64) -> Option<Durability> {
        match u8::try_from(disks).ok()? {
            0 => Some(Durability::Memory),
            1 => Some(Durability::Disk),
            disks if disks - 1 <= MESH_COPIES_MAX => Some(Durability::Mesh(disks - 1)),
            _ => None,
        }
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Durability::Memory => f.write_str("memory"),
            Durability::Disk => f.write_str("disk"),
            Durability::Mesh(copies) => write!(f, "mesh({copies})"),
        }
    }
}

impl std::str::FromStr for Durability {
    type Err = DefinitionError;

    fn from_str(text: &str) -> Result<Self, DefinitionError> {
        let copies = text.strip_prefix("mesh(").and_then(|rest| rest.strip_suffix(')'));
        match (text, copies.map(str::parse)) {
            ("memory", _) => Ok(Durability::Memory),
            ("disk", _) => Ok(Durability::Disk),
            (_, Some(Ok(copies @ 1..=MESH_COPIES_MAX))) => Ok(Durability::Mesh(copies)),
            _ => Err(DefinitionError::BadProperty {
                key: "durability",
                value: text.into(),
                expected: "memory, disk or mesh(k) with k from 1 to 64",
            }),
        }
    }
}

/// How a topic behaves, whatever its type.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Properties {
    /// Whether the topic keeps its latest value for those who come later.
    pub retain: bool,
    /// Whether values may be skipped on the way to a subscriber.
    pub conflate: Conflate,
    /// Whether values may be compressed on links and to subscribers.
    pub compress: bool,
    /// Its place among other topics where not all fit.
    pub priority: Priority,
    /// Whether a new value may be sent as its difference from the last.
    pub deltas: bool,
    /// Where writes must be before they are acknowledged; `None` leaves it to the section.
    pub durability: Option<Durability>,
}

impl Default for Properties {
    fn default() -> Self {
        Properties {
            retain: true,
            conflate: Conflate::default(),
            compress: true,
            priority: Priority::default(),
            deltas: true,
            durability: None,
        }
    }
}

impl Properties {
    /// Those that differ from their defaults, as names and values that [`Definition::parse`](super::Definition::parse) takes.
    pub(super) fn explicit(&self) -> Vec<(&'static str, String)> {
        let default = Properties::default();
        let mut listed = Vec::new();
        let mut list = |differs: bool, key, value: String| listed.extend(differs.then_some((key, value)));
        list(self.retain != default.retain, "retain", self.retain.to_string());
        list(self.conflate != default.conflate, "conflate", conflate_name(self.conflate).into());
        list(self.compress != default.compress, "compress", self.compress.to_string());
        list(self.priority != default.priority, "priority", priority_name(self.priority).into());
        list(self.deltas != default.deltas, "deltas", self.deltas.to_string());
        listed.extend(self.durability.map(|durability| ("durability", durability.to_string())));
        listed
    }

    pub(super) fn set(&mut self, key: &'static str, value: &str) -> Result<(), DefinitionError> {
        match key {
            "retain" => self.retain = flag(key, value)?,
            "conflate" => self.conflate = conflate(value)?,
            "compress" => self.compress = flag(key, value)?,
            "priority" => self.priority = priority(value)?,
            "deltas" => self.deltas = flag(key, value)?,
            "durability" => self.durability = Some(value.parse()?),
            _ => return Err(DefinitionError::BadProperty { key, value: value.into(), expected: "no property of this kind" }),
        }
        Ok(())
    }
}

fn flag(key: &'static str, value: &str) -> Result<bool, DefinitionError> {
    value.parse().map_err(|_| DefinitionError::BadProperty { key, value: value.into(), expected: "true or false" })
}

/// The one of some choices that has this name.
fn named<T: Copy, const N: usize>(
    key: &'static str,
    value: &str,
    choices: [T; N],
    name: fn(T) -> &'static str,
    expected: &'static str,
) -> Result<T, DefinitionError> {
    let found = choices.into_iter().find(|choice| name(*choice) == value);
    found.ok_or_else(|| DefinitionError::BadProperty { key, value: value.into(), expected })
}

fn conflate(value: &str) -> Result<Conflate, DefinitionError> {
    named("conflate", value, [Conflate::Off, Conflate::On, Conflate::Always], conflate_name, "off, on or always")
}

fn conflate_name(conflate: Conflate) -> &'static str {
    match conflate {
        Conflate::Off => "off",
        Conflate::On => "on",
        Conflate::Always => "always",
    }
}

fn priority(value: &str) -> Result<Priority, DefinitionError> {
    named("priority", value, [Priority::Low, Priority::Normal, Priority::High], priority_name, "low, normal or high")
}

fn priority_name(priority: Priority) -> &'static str {
    match priority {
        Priority::Low => "low",
        Priority::Normal => "normal",
        Priority::High => "high",
    }
}
