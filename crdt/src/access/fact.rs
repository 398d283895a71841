//! What can be said of who may do what: one thing at a time, as it lies in the document and as people write it.
//!
//! ```text
//! role ROLE global PERMISSION… | all | none        what it may do on the whole mesh
//! role ROLE default PERMISSION… | all | none       what it may do where nothing else is said
//! role ROLE at PATH PERMISSION… | all | none       what it may do there and below
//! role ROLE at PATH inherit                        nothing is said of it there
//! role ROLE includes ROLE… | none                  the roles that it has as well
//! role ROLE remove                                 nothing is said of it any more
//! path PATH isolate | inherit                      whether what is said above counts here
//! roles anonymous | named ROLE… | none             what every session of that kind has
//! principal NAME password HASH                     an argon2id hash in the PHC format
//! principal NAME roles ROLE… | none
//! principal NAME remove
//! anonymous allow | deny | abstain                 whether those are let in who do not say who they are
//! trust KEY any | in TEXT… | matches TEXT | none   which values of a session property are believed to the client that says them
//! ```
//!
//! One statement stands on a line; `#` begins a comment. What has spaces or quotes stands in `"`, where `\` makes the next character plain.

use std::{collections::BTreeSet, fmt};

use minicbor::{Decode, Encode};

use super::rules::{Permission, Permissions, Roles};
use crate::{
    document::{MapIndex, encoded},
    path::Path,
};

/// How long the name of a role or principal is at most, in bytes.
pub const NAME_BYTES_MAX: usize = 64;
/// How many roles one list has at most, and how many values one trust.
pub const LIST_MAX: usize = 64;
/// How long a password's hash is at most, in bytes.
const HASH_BYTES_MAX: usize = 256;
/// How long a property's key, and a value or expression of a trust, is at most, in bytes.
const TRUST_BYTES_MAX: usize = 128;
/// How much memory one regular expression may take.
const REGEX_BYTES_MAX: usize = 256 << 10;

/// The maps of the document.
pub(super) const MAPS: [&str; 4] = ["roles", "paths", "principals", "settings"];
const ROLES: MapIndex = 0;
const PATHS: MapIndex = 1;
const PRINCIPALS: MapIndex = 2;
const SETTINGS: MapIndex = 3;

/// Whose default roles.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Whom {
    /// Of those who did not say who they are.
    Anonymous,
    /// Of all others.
    Named,
}

impl Whom {
    fn as_str(self) -> &'static str {
        match self {
            Whom::Anonymous => "anonymous",
            Whom::Named => "named",
        }
    }
}

/// Whether those are let in who do not say who they are. In the order of how much that restricts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Encode, Decode)]
#[cbor(index_only)]
pub enum Anonymous {
    /// They are not.
    #[n(0)]
    Deny,
    /// That is left to other handlers; if nobody lets them in, they are not.
    #[default]
    #[n(1)]
    Abstain,
    /// They are.
    #[n(2)]
    Allow,
}

impl Anonymous {
    fn as_str(self) -> &'static str {
        match self {
            Anonymous::Deny => "deny",
            Anonymous::Abstain => "abstain",
            Anonymous::Allow => "allow",
        }
    }
}

/// Which values of a property are believed to the client that says them.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Encode, Decode)]
pub enum Trust {
    /// All.
    #[n(0)]
    Any,
    /// These.
    #[n(1)]
    In(#[n(0)] BTreeSet<String>),
    /// Those that a regular expression matches as a whole.
    #[n(2)]
    Matches(#[n(0)] String),
}

impl Trust {
    /// Whether a value is believed.
    pub fn meets(&self, value: &str) -> bool {
        match self {
            Trust::Any => true,
            Trust::In(values) => values.contains(value),
            Trust::Matches(text) => whole_regex(text).is_some_and(|regex| regex.is_match(value)),
        }
    }
}

fn whole_regex(text: &str) -> Option<regex::Regex> {
    regex::RegexBuilder::new(&format!("^(?:{text})$")).size_limit(REGEX_BYTES_MAX).build().ok()
}

/// One thing that is said, or that nothing is said of it any more.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Fact {
    /// What a role may do on the whole mesh.
    Global {
        /// Which role.
        role: String,
        /// Which global permissions.
        permissions: Option<Permissions>,
    },
    /// What a role may do where nothing else is said.
    Default {
        /// Which role.
        role: String,
        /// Which path permissions.
        permissions: Option<Permissions>,
    },
    /// Which roles a role has as well.
    Includes {
        /// Which role.
        role: String,
        /// Which others.
        roles: Option<Roles>,
    },
    /// What a role may do at a path and below. An empty set is an assignment like any other.
    At {
        /// Which role.
        role: String,
        /// Where.
        path: Path,
        /// Which path permissions.
        permissions: Option<Permissions>,
    },
    /// That nothing which is said above a path counts there and below.
    Isolated {
        /// Where.
        path: Path,
        /// Whether.
        isolated: Option<()>,
    },
    /// What proves who a principal is.
    Password {
        /// Who.
        principal: String,
        /// An argon2id hash in the PHC format.
        hash: Option<String>,
    },
    /// Which roles a principal has.
    Roles {
        /// Who.
        principal: String,
        /// Which.
        roles: Option<Roles>,
    },
    /// Which roles every session of a kind has.
    RolesOf {
        /// Which kind.
        whom: Whom,
        /// Which roles.
        roles: Option<Roles>,
    },
    /// Whether those are let in who do not say who they are.
    Anonymous(
        /// Whether.
        Option<Anonymous>,
    ),
    /// Which values of a session property are believed to the client that says them.
    Trust {
        /// Which property.
        key: String,
        /// Which values.
        trust: Option<Trust>,
    },
}

impl Fact {
    /// Where it lies in the document: there is one of each thing.
    pub(super) fn key(&self) -> (MapIndex, String) {
        match self {
            Fact::Global { role, .. } => (ROLES, format!("{role}/global")),
            Fact::Default { role, .. } => (ROLES, format!("{role}/default")),
            Fact::Includes { role, .. } => (ROLES, format!("{role}/includes")),
            Fact::At { role, path, .. } => (ROLES, format!("{role}/at/{path}")),
            Fact::Isolated { path, .. } => (PATHS, path.to_string()),
            Fact::Password { principal, .. } => (PRINCIPALS, format!("{principal}/password")),
            Fact::Roles { principal, .. } => (PRINCIPALS, format!("{principal}/roles")),
            Fact::RolesOf { whom, .. } => (SETTINGS, format!("roles/{}", whom.as_str())),
            Fact::Anonymous(_) => (SETTINGS, "anonymous".into()),
            Fact::Trust { key, .. } => (SETTINGS, format!("trust/{key}")),
        }
    }

    /// What lies there: nothing is ever removed, since a removal that automerge does not show would not be seen to be in conflict with what others say.
    pub(super) fn bytes(&self) -> Vec<u8> {
        match self {
            Fact::Global { permissions, .. } | Fact::Default { permissions, .. } | Fact::At { permissions, .. } => {
                encoded(&permissions.map(Permissions::bits))
            }
            Fact::Includes { roles, .. } | Fact::Roles { roles, .. } | Fact::RolesOf { roles, .. } => encoded(roles),
            Fact::Isolated { isolated, .. } => encoded(&isolated.map(|()| true)),
            Fact::Password { hash, .. } => encoded(hash),
            Fact::Anonymous(anonymous) => encoded(anonymous),
            Fact::Trust { trust, .. } => encoded(trust),
        }
    }

    /// What lies at a place of the document; `None` if it is nothing that this version understands, or over a limit.
    pub(super) fn of_entry(map: MapIndex, key: &str, bytes: &[u8]) -> Option<Fact> {
        let permissions = || Some(minicbor::decode::<Option<u32>>(bytes).ok()?.map(Permissions::of_bits));
        let roles = || minicbor::decode::<Option<Roles>>(bytes).ok();
        let fact = match map {
            ROLES => {
                let (role, what) = key.split_once('/')?;
                let role = role.to_owned();
                match what.split_once('/') {
                    None if what == "global" => Fact::Global { role, permissions: permissions()? },
                    None if what == "default" => Fact::Default { role, permissions: permissions()? },
                    None if what == "includes" => Fact::Includes { role, roles: roles()? },
                    Some(("at", path)) => Fact::At { role, path: Path::parse(path).ok()?, permissions: permissions()? },
                    _ => return None,
                }
            }
            PATHS => Fact::Isolated {
                path: Path::parse(key).ok()?,
                isolated: minicbor::decode::<Option<bool>>(bytes).ok()?.filter(|isolated| *isolated).map(|_| ()),
            },
            PRINCIPALS => {
                let (principal, what) = key.split_once('/')?;
                let principal = principal.to_owned();
                match what {
                    "password" => Fact::Password { principal, hash: minicbor::decode(bytes).ok()? },
                    "roles" => Fact::Roles { principal, roles: roles()? },
                    _ => return None,
                }
            }
            _ => match key.split_once('/') {
                None if key == "anonymous" => Fact::Anonymous(minicbor::decode(bytes).ok()?),
                Some(("roles", "anonymous")) => Fact::RolesOf { whom: Whom::Anonymous, roles: roles()? },
                Some(("roles", "named")) => Fact::RolesOf { whom: Whom::Named, roles: roles()? },
                Some(("trust", key)) => Fact::Trust { key: key.into(), trust: minicbor::decode(bytes).ok()? },
                _ => return None,
            },
        };
        fact.check().ok()?;
        Some(fact)
    }

    /// Whether anything is said.
    pub fn is_said(&self) -> bool {
        match self {
            Fact::Global { permissions, .. } | Fact::Default { permissions, .. } | Fact::At { permissions, .. } => permissions.is_some(),
            Fact::Includes { roles, .. } | Fact::Roles { roles, .. } | Fact::RolesOf { roles, .. } => roles.is_some(),
            Fact::Isolated { isolated, .. } => isolated.is_some(),
            Fact::Password { hash, .. } => hash.is_some(),
            Fact::Anonymous(anonymous) => anonymous.is_some(),
            Fact::Trust { trust, .. } => trust.is_some(),
        }
    }

    /// That nothing is said of the same thing any more.
    #[must_use]
    pub fn unsaid(self) -> Fact {
        match self {
            Fact::Global { role, .. } => Fact::Global { role, permissions: None },
            Fact::Default { role, .. } => Fact::Default { role, permissions: None },
            Fact::Includes { role, .. } => Fact::Includes { role, roles: None },
            Fact::At { role, path, .. } => Fact::At { role, path, permissions: None },
            Fact::Isolated { path, .. } => Fact::Isolated { path, isolated: None },
            Fact::Password { principal, .. } => Fact::Password { principal, hash: None },
            Fact::Roles { principal, .. } => Fact::Roles { principal, roles: None },
            Fact::RolesOf { whom, .. } => Fact::RolesOf { whom, roles: None },
            Fact::Anonymous(_) => Fact::Anonymous(None),
            Fact::Trust { key, .. } => Fact::Trust { key, trust: None },
        }
    }

    pub(super) fn permissions(&self) -> Option<Permissions> {
        match self {
            Fact::Global { permissions, .. } | Fact::Default { permissions, .. } | Fact::At { permissions, .. } => *permissions,
            _ => None,
        }
    }

    pub(super) fn roles(&self) -> Option<&Roles> {
        match self {
            Fact::Includes { roles, .. } | Fact::Roles { roles, .. } | Fact::RolesOf { roles, .. } => roles.as_ref(),
            _ => None,
        }
    }

    /// The role of which it is said, if it is one.
    pub(super) fn role(&self) -> Option<&str> {
        match self {
            Fact::Global { role, .. } | Fact::Default { role, .. } | Fact::Includes { role, .. } | Fact::At { role, .. } => Some(role),
            _ => None,
        }
    }

    /// The principal of whom it is said, if it is one.
    pub(super) fn principal(&self) -> Option<&str> {
        match self {
            Fact::Password { principal, .. } | Fact::Roles { principal, .. } => Some(principal),
            _ => None,
        }
    }

    /// That it keeps all limits; otherwise what is wrong.
    pub(super) fn check(&self) -> Result<(), String> {
        self.role().map_or(Ok(()), |role| check_name("role", role))?;
        self.principal().map_or(Ok(()), |principal| check_name("principal", principal))?;
        if let Some(roles) = self.roles() {
            if roles.len() > LIST_MAX {
                return Err(format!("at most {LIST_MAX} roles can stand in one list"));
            }
            roles.iter().try_for_each(|role| check_name("role", role))?;
        }
        match self {
            Fact::Password { hash: Some(hash), .. } => check_hash(hash),
            Fact::Trust { key, trust } => {
                if !(1..=TRUST_BYTES_MAX).contains(&key.len()) || key.starts_with('$') || key.chars().any(is_odd) {
                    return Err(format!("{key:?} is no key of a property that a client can propose"));
                }
                let texts: Vec<&String> = match trust {
                    Some(Trust::In(values)) => values.iter().collect(),
                    Some(Trust::Matches(text)) => vec![text],
                    Some(Trust::Any) | None => vec![],
                };
                if texts.len() > LIST_MAX || texts.iter().any(|text| text.len() > TRUST_BYTES_MAX || text.chars().any(char::is_control)) {
                    return Err(format!(
                        "{key} is trusted for at most {LIST_MAX} values, of at most {TRUST_BYTES_MAX} bytes, without control characters"
                    ));
                }
                match trust {
                    Some(Trust::Matches(text)) if whole_regex(text).is_none() => Err(format!("{text:?} is no regular expression")),
                    _ => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }
}

/// That a name may be a role's or a principal's; otherwise what is wrong.
fn check_name(what: &str, name: &str) -> Result<(), String> {
    let fits = (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.starts_with('$') && !name.chars().any(is_odd);
    match fits {
        true => Ok(()),
        false => Err(format!(
            "the name of a {what} has 1 to {NAME_BYTES_MAX} bytes, no spaces, quotes, slashes, commas or brackets, and does not begin with $, unlike {name:?}"
        )),
    }
}

/// That a name can be a principal's.
///
/// # Errors
/// In words, what is wrong with it.
pub fn check_principal(name: &str) -> Result<(), String> {
    check_name("principal", name)
}

fn is_odd(c: char) -> bool {
    c.is_whitespace() || c.is_control() || "\"'/,()[]{}#\\".contains(c)
}

/// That a text is an argon2id hash that it takes a sane effort to check; otherwise what is wrong.
fn check_hash(hash: &str) -> Result<(), String> {
    let sane = || {
        let rest = hash.strip_prefix("$argon2id$v=19$")?;
        let (costs, rest) = rest.split_once('$')?;
        let (salt, hash) = rest.split_once('$')?;
        let mut costs = costs.split(',');
        let mut cost = |name: &str| costs.next()?.strip_prefix(name)?.parse::<u32>().ok();
        let (memory, passes, lanes) = (cost("m=")?, cost("t=")?, cost("p=")?);
        let plain = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/".contains(&byte));
        // At most some tenths of a second.
        ((64..=65_536).contains(&memory) && (1..=10).contains(&passes) && (1..=4).contains(&lanes) && plain(salt) && plain(hash))
            .then_some(())
    };
    match hash.len() <= HASH_BYTES_MAX && sane().is_some() {
        true => Ok(()),
        false => Err("a password's hash is $argon2id$v=19$m=…,t=…,p=…$SALT$HASH with at most 64 MiB, 10 passes and 4 lanes".into()),
    }
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fact::Global { role, permissions } => write!(f, "role {role} global {}", Listed(permissions.unwrap_or_default(), true)),
            Fact::Default { role, permissions } => write!(f, "role {role} default {}", Listed(permissions.unwrap_or_default(), false)),
            Fact::Includes { role, roles } => write!(f, "role {role} includes {}", Named(roles.as_ref())),
            Fact::At { role, path, permissions: Some(permissions) } => {
                write!(f, "role {role} at {} {}", Quoted(path.as_str()), Listed(*permissions, false))
            }
            Fact::At { role, path, permissions: None } => write!(f, "role {role} at {} inherit", Quoted(path.as_str())),
            Fact::Isolated { path, isolated } => {
                write!(f, "path {} {}", Quoted(path.as_str()), if isolated.is_some() { "isolate" } else { "inherit" })
            }
            Fact::Password { principal, hash: Some(hash) } => write!(f, "principal {principal} password {hash}"),
            Fact::Password { principal, hash: None } => write!(f, "principal {principal} remove"),
            Fact::Roles { principal, roles } => write!(f, "principal {principal} roles {}", Named(roles.as_ref())),
            Fact::RolesOf { whom, roles } => write!(f, "roles {} {}", whom.as_str(), Named(roles.as_ref())),
            Fact::Anonymous(anonymous) => write!(f, "anonymous {}", anonymous.unwrap_or_default().as_str()),
            Fact::Trust { key, trust } => {
                write!(f, "trust {key} ")?;
                match trust {
                    None => f.write_str("none"),
                    Some(Trust::Any) => f.write_str("any"),
                    Some(Trust::In(values)) => {
                        f.write_str("in")?;
                        values.iter().try_for_each(|value| write!(f, " {}", Quoted(value)))
                    }
                    Some(Trust::Matches(text)) => write!(f, "matches {}", Quoted(text)),
                }
            }
        }
    }
}

/// A set of permissions of one kind, as people write it.
pub(super) struct Listed(pub Permissions, pub bool);

impl fmt::Display for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = Permissions::all(self.1);
        let shown: Vec<&str> = self.0.and(all).iter().map(Permission::as_str).collect();
        match shown.as_slice() {
            [] => f.write_str("none"),
            _ if self.0.and(all) == all => f.write_str("all"),
            names => f.write_str(&names.join(" ")),
        }
    }
}

struct Named<'a>(Option<&'a Roles>);

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.0.into_iter().flatten().map(String::as_str).collect();
        f.write_str(if names.is_empty() { "none".into() } else { names.join(" ") }.as_ref())
    }
}

/// A text as one word of a statement, in quotes if it needs them.
pub fn quoted(text: &str) -> String {
    Quoted(text).to_string()
}

struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = !self.0.is_empty() && !self.0.chars().any(|c| c.is_whitespace() || "\"#\\".contains(c));
        if plain {
            return f.write_str(self.0);
        }
        write!(f, "\"{}\"", self.0.replace('\\', "\\\\").replace('"', "\\\""))
    }
}
