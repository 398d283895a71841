//! What the facts come to: who may do what, where.
//!
//! At a path the nearest assignment decides: from the path up to its first segment, the first place where any of the session's roles has one. What counts there
//! is the union over those roles, and nothing above is looked at. Where no place has any, the union of the roles' default permissions counts. An isolated place ends
//! the way up: if there is nothing at it, nothing is permitted below it.
//!
//! **Conflicts.** Where both sides of a split have said something of the same thing, what is permitted is what would be whichever of them were meant, so
//! neither side's restriction is lost: of two sets of permissions only what both have counts; an assignment that one side took away counts only where it
//! restricts; and where it is not certain which roles somebody has, each possibility is judged, and only what all of them permit is. A place is isolated and a principal is gone if either side says so.
//! It stays so until somebody says it anew. All conflicts are told ([`Rules::conflicts`]).

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use super::fact::{Anonymous, Fact, Trust, Whom};
use crate::path::Path;

/// How many possibilities of which roles somebody has are judged; beyond that nothing is permitted.
const WORLDS_MAX: usize = 16;

macro_rules! permissions {
    ($($(#[$doc:meta])* $name:ident = $bit:literal $text:literal $global:literal,)*) => {
        /// Something that a session may be permitted to do: on the whole mesh, or at a path.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum Permission {
            $($(#[$doc])* $name,)*
        }

        impl Permission {
            /// All that there are.
            pub const ALL: &[Permission] = &[$(Permission::$name),*];

            /// Its name.
            pub fn as_str(self) -> &'static str {
                match self { $(Permission::$name => $text,)* }
            }

            /// Whether it is one on the whole mesh; otherwise it is one at a path.
            pub fn is_global(self) -> bool {
                match self { $(Permission::$name => $global,)* }
            }

            const fn bit(self) -> u32 {
                match self { $(Permission::$name => 1 << $bit,)* }
            }
        }
    };
}

permissions! {
    /// To authenticate others.
    Authenticate = 0 "authenticate" true,
    /// To see sessions and sources, and to listen to sessions.
    ViewSession = 1 "view-session" true,
    /// To end sessions, and to change their properties and roles.
    ModifySession = 2 "modify-session" true,
    /// To register handlers.
    RegisterHandler = 3 "register-handler" true,
    /// To see nodes, links, sections and how they are.
    ViewNode = 4 "view-node" true,
    /// To change nodes, links and sections.
    ControlNode = 5 "control-node" true,
    /// To see roles, permissions and principals.
    ViewSecurity = 6 "view-security" true,
    /// To change them.
    ModifySecurity = 7 "modify-security" true,
    /// To subscribe and list by selectors whose literal prefix is the path.
    Select = 16 "select" false,
    /// To see the topic and its value.
    Read = 17 "read" false,
    /// To write its value.
    Update = 18 "update" false,
    /// To make and remove it.
    Modify = 19 "modify" false,
    /// To become the update source of the branch.
    AcquireSource = 20 "acquire-source" false,
    /// To send messages to sessions through it.
    SendToSession = 21 "send-to-session" false,
    /// To see what its past has left: displaced values.
    ReadHistory = 22 "read-history" false,
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A set of permissions.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Permissions(u32);

impl Permissions {
    /// None at all.
    pub const NONE: Permissions = Permissions(0);
    /// Every one that there is, also those of which this version does not know.
    pub const EVERY: Permissions = Permissions(u32::MAX);

    /// All of one kind.
    pub fn all(global: bool) -> Permissions {
        Permission::ALL.iter().copied().filter(|permission| permission.is_global() == global).collect()
    }

    /// The set of these bits.
    pub(super) fn of_bits(bits: u32) -> Permissions {
        Permissions(bits)
    }

    pub(super) fn bits(self) -> u32 {
        self.0
    }

    /// Whether it has this one.
    pub fn has(self, permission: Permission) -> bool {
        self.0 & permission.bit() != 0
    }

    /// What either has.
    #[must_use]
    pub fn or(self, other: Permissions) -> Permissions {
        Permissions(self.0 | other.0)
    }

    /// What both have.
    #[must_use]
    pub fn and(self, other: Permissions) -> Permissions {
        Permissions(self.0 & other.0)
    }

    /// Those that this version knows, in order.
    pub fn iter(self) -> impl Iterator<Item = Permission> {
        Permission::ALL.iter().copied().filter(move |permission| self.has(*permission))
    }
}

impl FromIterator<Permission> for Permissions {
    fn from_iter<T: IntoIterator<Item = Permission>>(permissions: T) -> Self {
        Permissions(permissions.into_iter().fold(0, |bits, permission| bits | permission.bit()))
    }
}

/// Names of roles.
pub type Roles = BTreeSet<String>;

/// What a role may do at a path and below it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Assigned {
    permissions: Permissions,
    /// Whether it is certain that there is an assignment.
    certain: bool,
}

/// A principal of the store.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Principal {
    /// What proves who comes: an argon2id hash in the PHC format. `None` for one who does not come by password.
    pub password: Option<String>,
    /// The roles that it has; several possibilities where that is in conflict.
    pub roles: Vec<Roles>,
}

/// Something that was said of one thing on both sides of a split.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Conflict {
    /// What each side said.
    pub facts: Vec<Fact>,
}

/// The roles that somebody has, with all that they include; several possibilities where that is in conflict.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Rights {
    everything: bool,
    worlds: Vec<Roles>,
}

impl Rights {
    /// The right to everything, whatever the rules say.
    pub fn everything() -> Rights {
        Rights { everything: true, worlds: Vec::new() }
    }

    /// Whether it is the right to everything.
    pub fn is_everything(&self) -> bool {
        self.everything
    }

    /// What tells them from others: the roles of each possibility, in order.
    pub(crate) fn words(&self) -> impl Iterator<Item = &str> {
        self.worlds.iter().flat_map(|world| world.iter().map(String::as_str).chain([""]))
    }

    /// The roles that are certain.
    pub fn roles(&self) -> Roles {
        let mut worlds = self.worlds.iter();
        let first = worlds.next().cloned().unwrap_or_default();
        worlds.fold(first, |roles, world| roles.intersection(world).cloned().collect())
    }
}

/// See the module.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Rules {
    global: BTreeMap<String, Permissions>,
    default: BTreeMap<String, Permissions>,
    includes: BTreeMap<String, Vec<Roles>>,
    assigned: BTreeMap<Path, BTreeMap<String, Assigned>>,
    isolated: BTreeSet<Path>,
    principals: BTreeMap<String, Principal>,
    /// Of whom it is said, on some side, that there is none such.
    gone: BTreeSet<String>,
    anonymous: Anonymous,
    roles_of: BTreeMap<Whom, Vec<Roles>>,
    trusted: BTreeMap<String, Trust>,
    conflicts: Vec<Conflict>,
}

impl Rules {
    /// What the facts come to, each thing with all that is said of it.
    pub fn of(things: impl IntoIterator<Item = Vec<Fact>>) -> Rules {
        let mut rules = Rules::default();
        for facts in things {
            rules.take(&facts);
            if facts.len() > 1 {
                rules.conflicts.push(Conflict { facts });
            }
        }
        for name in &rules.gone {
            rules.principals.remove(name);
        }
        rules
    }

    fn take(&mut self, facts: &[Fact]) {
        let Some(first) = facts.first() else { return };
        let certain = facts.iter().all(Fact::is_said);
        let every = || facts.iter().map(Fact::permissions).fold(Permissions::EVERY, |all, one| all.and(one.unwrap_or_default()));
        let possible = || {
            let mut roles: Vec<Roles> = facts.iter().map(|fact| fact.roles().cloned().unwrap_or_default()).collect();
            roles.sort();
            roles.dedup();
            roles
        };
        match first {
            Fact::Global { role, .. } => _ = self.global.insert(role.clone(), every()),
            Fact::Default { role, .. } => _ = self.default.insert(role.clone(), every()),
            Fact::Includes { role, .. } => _ = self.includes.insert(role.clone(), possible()),
            Fact::At { role, path, .. } => {
                let said = facts.iter().filter_map(Fact::permissions).reduce(Permissions::and);
                if let Some(permissions) = said {
                    self.assigned.entry(path.clone()).or_default().insert(role.clone(), Assigned { permissions, certain });
                }
            }
            Fact::Isolated { path, .. } => {
                if facts.iter().any(Fact::is_said) {
                    self.isolated.insert(path.clone());
                }
            }
            Fact::Password { principal, hash } => {
                if certain {
                    self.principal(principal).password.clone_from(hash);
                } else {
                    self.gone.insert(principal.clone());
                }
            }
            Fact::Roles { principal, .. } => {
                if facts.iter().any(Fact::is_said) {
                    self.principal(principal).roles = possible();
                }
            }
            Fact::Anonymous(_) => {
                let most = |fact: &Fact| if let Fact::Anonymous(said) = fact { said.unwrap_or_default() } else { Anonymous::Deny };
                self.anonymous = facts.iter().map(most).min().unwrap_or_default();
            }
            Fact::RolesOf { whom, .. } => _ = self.roles_of.insert(*whom, possible()),
            Fact::Trust { key, trust } => {
                if let (Some(trust), [_]) = (trust, facts) {
                    self.trusted.insert(key.clone(), trust.clone());
                }
            }
        }
    }

    fn principal(&mut self, name: &str) -> &mut Principal {
        self.principals.entry(name.to_owned()).or_insert_with(|| Principal { password: None, roles: vec![Roles::new()] })
    }

    /// A principal of the store.
    pub fn find_principal(&self, name: &str) -> Option<&Principal> {
        self.principals.get(name)
    }

    /// Whether a principal was there and is not any more.
    pub fn was_removed(&self, name: &str) -> bool {
        self.gone.contains(name)
    }

    /// All of them, in order.
    pub fn principals(&self) -> impl Iterator<Item = (&str, &Principal)> {
        self.principals.iter().map(|(name, principal)| (name.as_str(), principal))
    }

    /// Whether those are let in who do not say who they are.
    pub fn anonymous(&self) -> Anonymous {
        self.anonymous
    }

    /// Whether what a client says of itself may be believed.
    pub fn trusts(&self, key: &str, value: &str) -> bool {
        self.trusted.get(key).is_some_and(|trust| trust.meets(value))
    }

    /// What was said on both sides of a split and is still to be said anew.
    pub fn conflicts(&self) -> &[Conflict] {
        &self.conflicts
    }

    /// At how many places a role has an assignment.
    pub fn places_of(&self, role: &str) -> usize {
        self.assigned.values().filter(|roles| roles.contains_key(role)).count()
    }

    /// All roles of which anything is said.
    pub fn roles(&self) -> Roles {
        let assigned = self.assigned.values().flat_map(BTreeMap::keys);
        let included = self.includes.values().flatten().flatten();
        let said = self.includes.iter().filter(|(_, roles)| roles.iter().any(|roles| !roles.is_empty())).map(|(role, _)| role);
        let some = |permissions: &(&String, &Permissions)| *permissions.1 != Permissions::NONE;
        let sets = self.global.iter().chain(&self.default).filter(some).map(|(role, _)| role);
        assigned.chain(included).chain(said).chain(sets).cloned().collect()
    }

    /// The rights of somebody with these roles, of whom every session of its kind has some by default; several possibilities where that is in conflict.
    pub fn rights(&self, whom: Whom, granted: &[Roles]) -> Rights {
        let none = [Roles::new()];
        let by_default = self.roles_of.get(&whom).map_or(&none[..], Vec::as_slice);
        let with = |roles: &Roles| by_default.iter().map(|more| roles.union(more).cloned().collect()).collect::<Vec<Roles>>();
        self.rights_of_roles(&granted.iter().flat_map(with).collect::<Vec<_>>())
    }

    /// The rights of these roles alone, with what they include; several possibilities where it is not certain which.
    pub fn rights_of_roles(&self, granted: &[Roles]) -> Rights {
        let mut open: Vec<(Roles, Vec<String>)> = granted.iter().map(|roles| (Roles::new(), roles.iter().cloned().collect())).collect();
        let mut worlds = Vec::new();
        while let Some((mut known, mut next)) = open.pop() {
            let mut others = Vec::new();
            while let Some(role) = next.pop() {
                if !known.insert(role.clone()) {
                    continue;
                }
                let included = self.includes.get(&role).map_or(&[][..], Vec::as_slice);
                if let Some((first, rest)) = included.split_first() {
                    others.extend(rest.iter().map(|roles| (known.clone(), next.iter().chain(roles).cloned().collect())));
                    if others.len() > WORLDS_MAX {
                        return Rights::default();
                    }
                    next.extend(first.iter().cloned());
                }
            }
            worlds.push(known);
            open.extend(others);
            if open.len() + worlds.len() > WORLDS_MAX {
                return Rights::default();
            }
        }
        worlds.sort();
        worlds.dedup();
        Rights { everything: false, worlds }
    }

    /// What somebody may do on the whole mesh.
    pub fn globally(&self, rights: &Rights) -> Permissions {
        rights.judge(|roles| self.union(&self.global, roles))
    }

    /// What somebody may do at a path; at the root of all if the path is empty.
    pub fn at(&self, rights: &Rights, path: &str) -> Permissions {
        rights.judge(|roles| self.walk(roles, path, &mut |_| {}))
    }

    /// Whether there may be a path at which somebody may do something.
    pub fn somewhere(&self, rights: &Rights, permission: Permission) -> bool {
        let places = self.assigned.keys().map(Path::as_str).chain([""]);
        places.into_iter().any(|place| self.at(rights, place).has(permission))
    }

    /// How [`Rules::at`] comes to what it does, for people: the places that count, from the path up.
    pub fn why(&self, rights: &Rights, path: &str) -> Vec<Step> {
        let mut steps = Vec::new();
        for roles in &rights.worlds {
            self.walk(roles, path, &mut |step| {
                if !steps.contains(&step) {
                    steps.push(step);
                }
            });
        }
        steps
    }

    fn walk(&self, roles: &Roles, path: &str, note: &mut dyn FnMut(Step)) -> Permissions {
        let mut bound = Permissions::EVERY;
        for place in ancestors(path) {
            let (mut certain, mut possible) = (None::<Permissions>, Permissions::EVERY);
            let here = self.assigned.get(place).into_iter().flatten().filter(|(role, _)| roles.contains(*role));
            for (role, assigned) in here {
                note(Step::Assigned { role: role.clone(), at: place.into(), permissions: assigned.permissions, certain: assigned.certain });
                match assigned.certain {
                    true => certain = Some(certain.unwrap_or_default().or(assigned.permissions)),
                    false => possible = possible.and(assigned.permissions),
                }
            }
            // Beside one that is certain, one that is not could only add to it.
            if let Some(permissions) = certain {
                return bound.and(permissions);
            }
            bound = bound.and(possible);
            if self.isolated.contains(place) {
                note(Step::Isolated { at: place.into() });
                return Permissions::NONE;
            }
        }
        for role in roles {
            if let Some(permissions) = self.default.get(role).filter(|permissions| **permissions != Permissions::NONE) {
                note(Step::Default { role: role.clone(), permissions: *permissions });
            }
        }
        bound.and(self.union(&self.default, roles))
    }

    fn union(&self, of: &BTreeMap<String, Permissions>, roles: &Roles) -> Permissions {
        roles.iter().filter_map(|role| of.get(role)).fold(Permissions::NONE, |all, one| all.or(*one))
    }
}

impl Rights {
    /// What is permitted whatever the possibility.
    fn judge(&self, permitted: impl Fn(&Roles) -> Permissions) -> Permissions {
        if self.everything {
            return Permissions::EVERY;
        }
        self.worlds.iter().map(permitted).reduce(Permissions::and).unwrap_or_default()
    }
}

fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    let first = (!path.is_empty()).then_some(path);
    std::iter::successors(first, |path| path.rsplit_once('/').map(|(parent, _)| parent))
}

/// One reason for what is permitted at a path.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// A role has permissions here.
    Assigned {
        /// Which role.
        role: String,
        /// Where.
        at: String,
        /// Which permissions.
        permissions: Permissions,
        /// Whether that is certain; otherwise one side of a split took it away, and it counts only where it restricts.
        certain: bool,
    },
    /// What is above does not count below here.
    Isolated {
        /// Where.
        at: String,
    },
    /// A role has permissions where nothing else is said.
    Default {
        /// Which role.
        role: String,
        /// Which permissions.
        permissions: Permissions,
    },
}
