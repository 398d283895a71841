//! Scripts: what people write to change who may do what. The statements are listed in [`super::fact`].

use super::fact::{Anonymous, Fact, Trust, Whom};
use super::rules::{Permission, Permissions, Roles};
use crate::path::Path;

/// How long a script is at most, in bytes.
pub const SCRIPT_BYTES_MAX: usize = 256 << 10;

/// One statement of a script.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Statement {
    /// Something is said.
    Say(Fact),
    /// Nothing is said of a role any more.
    RemoveRole(String),
    /// There is no such principal any more.
    RemovePrincipal(String),
}

/// Why a text is no script.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct BadScript {
    /// On which line, from 1.
    pub line: usize,
    /// What is wrong.
    pub what: String,
}

/// Reads a script: its statements, each with its line.
pub fn parse(text: &str) -> Result<Vec<(usize, Statement)>, BadScript> {
    if text.len() > SCRIPT_BYTES_MAX {
        return Err(BadScript { line: 0, what: format!("a script has at most {SCRIPT_BYTES_MAX} bytes, not {}", text.len()) });
    }
    let mut statements = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let bad = |what| BadScript { line: at + 1, what };
        let words = words(line).map_err(bad)?;
        if !words.is_empty() {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            statements.push((at + 1, statement(&words).map_err(bad)?));
        }
    }
    Ok(statements)
}

fn words(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            c if c.is_whitespace() => {}
            '#' => break,
            '"' => {
                let mut word = String::new();
                loop {
                    match chars.next() {
                        Some('"') => break,
                        Some('\\') => word.extend(chars.next()),
                        Some(plain) => word.push(plain),
                        None => return Err("a text begins with \" and does not end".into()),
                    }
                }
                words.push(word);
            }
            c => {
                let mut word = String::from(c);
                while let Some(c) = chars.next_if(|c| !c.is_whitespace()) {
                    word.push(c);
                }
                words.push(word);
            }
        }
    }
    Ok(words)
}

fn statement(words: &[&str]) -> Result<Statement, String> {
    let own = |name: &str| name.to_owned();
    let fact = match words {
        ["role", role, "remove"] => return Ok(Statement::RemoveRole(own(role))),
        ["principal", name, "remove"] => return Ok(Statement::RemovePrincipal(own(name))),
        ["role", role, "global", list @ ..] => Fact::Global { role: own(role), permissions: Some(permissions(list, true)?) },
        ["role", role, "default", list @ ..] => Fact::Default { role: own(role), permissions: Some(permissions(list, false)?) },
        ["role", role, "at", at, "inherit"] => Fact::At { role: own(role), path: path(at)?, permissions: None },
        ["role", role, "at", at, list @ ..] => Fact::At { role: own(role), path: path(at)?, permissions: Some(permissions(list, false)?) },
        ["role", role, "includes", list @ ..] => Fact::Includes { role: own(role), roles: Some(roles(list)?) },
        ["path", at, "isolate"] => Fact::Isolated { path: path(at)?, isolated: Some(()) },
        ["path", at, "inherit"] => Fact::Isolated { path: path(at)?, isolated: None },
        ["roles", "anonymous", list @ ..] => Fact::RolesOf { whom: Whom::Anonymous, roles: Some(roles(list)?) },
        ["roles", "named", list @ ..] => Fact::RolesOf { whom: Whom::Named, roles: Some(roles(list)?) },
        ["principal", name, "password", hash] => Fact::Password { principal: own(name), hash: Some(own(hash)) },
        ["principal", name, "roles", list @ ..] => Fact::Roles { principal: own(name), roles: Some(roles(list)?) },
        ["anonymous", "allow"] => Fact::Anonymous(Some(Anonymous::Allow)),
        ["anonymous", "deny"] => Fact::Anonymous(Some(Anonymous::Deny)),
        ["anonymous", "abstain"] => Fact::Anonymous(Some(Anonymous::Abstain)),
        ["trust", key, "none"] => Fact::Trust { key: own(key), trust: None },
        ["trust", key, "any"] => Fact::Trust { key: own(key), trust: Some(Trust::Any) },
        ["trust", key, "in", values @ ..] if !values.is_empty() => {
            Fact::Trust { key: own(key), trust: Some(Trust::In(values.iter().copied().map(own).collect())) }
        }
        ["trust", key, "matches", text] => Fact::Trust { key: own(key), trust: Some(Trust::Matches(own(text))) },
        [first, ..] => {
            let expected = match *first {
                "role" => "role ROLE global|default|at PATH|includes …, or role ROLE remove",
                "path" => "path PATH isolate|inherit",
                "roles" => "roles anonymous|named ROLE…",
                "principal" => "principal NAME password HASH|roles ROLE…|remove",
                "anonymous" => "anonymous allow|deny|abstain",
                "trust" => "trust KEY any|in TEXT…|matches TEXT|none",
                _ => "a statement begins with role, path, roles, principal, anonymous or trust",
            };
            return Err(format!("expected: {expected}"));
        }
        [] => return Err("there is nothing".into()),
    };
    fact.check()?;
    Ok(Statement::Say(fact))
}

fn path(text: &str) -> Result<Path, String> {
    Path::parse(text).map_err(|error| error.to_string())
}

fn permissions(names: &[&str], global: bool) -> Result<Permissions, String> {
    match names {
        [] => Err("which permissions? say none for none".into()),
        ["all"] => Ok(Permissions::all(global)),
        ["none"] => Ok(Permissions::NONE),
        names => names.iter().map(|name| permission(name, global)).collect(),
    }
}

fn permission(name: &str, global: bool) -> Result<Permission, String> {
    let known = || Permission::ALL.iter().copied().filter(|permission| permission.is_global() == global);
    known().find(|permission| permission.as_str() == name).ok_or_else(|| {
        let names: Vec<&str> = known().map(Permission::as_str).collect();
        let kind = if global { "on the whole mesh" } else { "at a path" };
        format!("there is no permission {name:?} {kind}: there are {}", names.join(", "))
    })
}

fn roles(names: &[&str]) -> Result<Roles, String> {
    match names {
        [] => Err("which roles? say none for none".into()),
        ["none"] => Ok(Roles::new()),
        names => Ok(names.iter().map(|name| (*name).to_owned()).collect()),
    }
}
