//! Files that a scenario names: read once, as text, and found by whoever knows where the scenario's own file is.

use super::{NodeSpec, keys::BadScenario, keys::nearest};

/// Reads a file that a scenario names, relative to the scenario's own; or says why not.
pub type Files<'a> = &'a dyn Fn(&str) -> Result<String, String>;

/// The longest file: a contact trace of a few million lines.
pub const FILE_BYTES_MAX: u64 = 256 << 20;

/// An error in a line of a file, from 1.
pub(super) fn bad_line(file: &str, line: usize, what: impl Into<String>) -> BadScenario {
    BadScenario { place: format!("{file}:{line}"), what: what.into() }
}

/// Puts the names that a file gives nodes in order: numbers by their value, anything else as it appears.
pub(super) fn in_order(mut names: Vec<String>) -> Vec<String> {
    if names.iter().all(|name| name.parse::<u64>().is_ok()) {
        names.sort_by_key(|name| name.parse::<u64>().unwrap_or(0));
    }
    names
}

/// The scenario's nodes that a file's names mean: those of the same names, or, where no node has one of them, the first, the second and so on.
pub(super) fn members(file: &str, names: &[String], nodes: &[NodeSpec]) -> Result<Vec<usize>, BadScenario> {
    let bad = |what: String| Err(BadScenario { place: file.into(), what });
    let named: Vec<Option<usize>> = names.iter().map(|name| nodes.iter().position(|node| node.name == *name)).collect();
    if named.iter().any(Option::is_some) {
        let Some(at) = named.iter().position(Option::is_none) else { return Ok(named.into_iter().flatten().collect()) };
        let known: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
        let nearest = nearest(&names[at], &known);
        return bad(format!("no node is called {:?}, as others of the file are{nearest}; add it to nodes.names", names[at]));
    }
    match names.len() > nodes.len() {
        true => bad(format!("has {} nodes, and the scenario {}: leave nodes.count out to take the file's", names.len(), nodes.len())),
        false => Ok((0..names.len()).collect()),
    }
}
