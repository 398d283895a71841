//! What there is to see of the rules, and how they are changed.

use mangrove_crdt::access::{AccessError, Fact, Permission, Permissions, Step};

use super::super::acks::Needs;
use super::*;
use crate::protocol::{self, ChangeRow, ConflictRow, Page, PrincipalRow, Response, RoleRow, WhyReport};

impl Node {
    /// Changes the rules, or says what would change.
    pub(in crate::node) fn access_script(&mut self, now: Now, script: &str, dry_run: bool) -> Result<(Response, Needs), Refusal> {
        self.writable()?;
        let changes = if dry_run { self.replica.try_script(script) } else { self.replica.run_script(script) };
        let changes = changes.map_err(|error| {
            let code = match error {
                AccessError::TooManyFacts => Code::TooMany,
                _ => Code::InvalidRequest,
            };
            Refusal::new(code, "script", error.to_string()).hint("nothing was changed")
        })?;
        let rows =
            changes.iter().map(|change| ChangeRow { before: change.before.iter().map(shown).collect(), after: shown(&change.after) });
        let rows = rows.collect();
        if dry_run || changes.is_empty() {
            return Ok((Response::AccessChanged(rows), Needs::default()));
        }
        self.rights_changed(now, None);
        let written = self.replica.last_tree_write(SectionId::MESH);
        Ok((Response::AccessChanged(rows), Needs::disk([written])))
    }

    /// A page of what is said.
    pub(in crate::node) fn access_page(&mut self, about: &str, page: &Page) -> Result<Response, Refusal> {
        let after: usize = match &page.after {
            None => 0,
            Some(text) => text.parse().map_err(|_| Refusal::new(Code::InvalidRequest, text, "this is not where a page ended"))?,
        };
        let limit = page.limit.clamp(1, protocol::PAGE_MAX) as usize;
        let is_meant = |statement: &String| about.is_empty() || statement.strip_prefix(about).is_some_and(|rest| rest.starts_with(' '));
        let all: Vec<String> = self.replica.facts().iter().map(shown).filter(is_meant).collect();
        let statements: Vec<String> = all.iter().skip(after).take(limit).cloned().collect();
        let next = (after + statements.len() < all.len()).then(|| (after + statements.len()).to_string());
        let conflicts = match &page.after {
            None => self.conflict_rows().into_iter().filter(|row| row.statements.iter().any(is_meant)).take(protocol::ITEMS_MAX).collect(),
            Some(_) => Vec::new(),
        };
        Ok(Response::Access { statements, next, conflicts })
    }

    /// What is in conflict.
    pub(in crate::node) fn conflict_rows(&self) -> Vec<ConflictRow> {
        let conflicts = self.replica.rules().conflicts().iter();
        conflicts.map(|conflict| ConflictRow { statements: conflict.facts.iter().map(shown).collect() }).collect()
    }

    /// A page of the principals.
    pub(in crate::node) fn principal_rows(&self, page: &Page) -> Response {
        let limit = page.limit.clamp(1, protocol::PAGE_MAX) as usize;
        let after = |name: &str| page.after.as_deref().is_none_or(|after| name > after);
        let mut all = self.replica.rules().principals().filter(|(name, _)| after(name));
        let row = |(name, principal): (&str, &Principal)| {
            let mut roles = principal.roles.iter();
            let first = roles.next().cloned().unwrap_or_default();
            let certain = roles.fold(first, |certain, other| certain.intersection(other).cloned().collect());
            PrincipalRow {
                principal: name.to_owned(),
                roles: certain.into_iter().collect(),
                password: principal.password.is_some(),
                conflict: principal.roles.len() > 1,
            }
        };
        let rows: Vec<PrincipalRow> = all.by_ref().take(limit).map(row).collect();
        let next = all.next().and_then(|_| rows.last().map(|row| row.principal.clone()));
        Response::Principals { rows, next }
    }

    /// The roles.
    pub(in crate::node) fn role_rows(&self) -> Response {
        let rules = self.replica.rules();
        let row = |role: String| {
            let rights = rules.rights_of_roles(&[Roles::from([role.clone()])]);
            let includes = rights.roles().into_iter().filter(|included| *included != role).collect();
            RoleRow {
                includes,
                global: names(rules.globally(&rights), true),
                default: names(rules.at(&rights, ""), false),
                places: rules.places_of(&role) as u64,
                role,
            }
        };
        Response::Roles(rules.roles().into_iter().take(protocol::ITEMS_MAX).map(row).collect())
    }

    /// What somebody may do at a path, and why.
    pub(in crate::node) fn access_why(&self, who: &str, path: &str) -> Result<Response, Refusal> {
        let path = super::super::requests::parse_path(path)?;
        let rules = self.replica.rules();
        let (rights, mut because) = if who == "$anonymous" {
            (self.rights_of(&Identity { who: Who::Anonymous, ..Identity::default() }, None), Vec::new())
        } else if rules.find_principal(who).is_some() {
            (self.rights_of(&Identity { who: Who::Principal(who.into()), ..Identity::default() }, None), Vec::new())
        } else if let Ok((id, record)) = self.find_session(who) {
            (self.rights_of(&record.identity, Some(id)), vec![format!("the session is {}'s", record.identity.who)])
        } else {
            let refusal = Refusal::new(Code::UnknownPrincipal, who, "there is no such principal or session");
            return Err(refusal.hint("see: mangrove principal ls, mangrove session ls; or ask for $anonymous"));
        };
        if rights.is_everything() {
            because.push("whoever has a node's own credential may do everything".into());
        }
        because.extend(rules.why(&rights, path.as_str()).iter().map(in_words));
        if because.is_empty() {
            because.push("none of its roles has a permission here, or by default".into());
        }
        let conflicts = rules.conflicts().len();
        if conflicts > 0 {
            because.push(format!("where both sides of a split have said something, the more restrictive counts: see the conflicts ({conflicts}) in mangrove access ls"));
        }
        Ok(Response::AccessWhy(Box::new(WhyReport {
            who: who.into(),
            path: path.to_string(),
            roles: rights.roles().into_iter().collect(),
            permissions: names(rules.at(&rights, path.as_str()), false),
            global: names(rules.globally(&rights), true),
            because,
        })))
    }
}

/// A statement, without what nobody is to see.
fn shown(fact: &Fact) -> String {
    match fact {
        Fact::Password { principal, hash: Some(_) } => format!("principal {principal} password …"),
        fact => fact.to_string(),
    }
}

fn names(permissions: Permissions, global: bool) -> Vec<String> {
    let of_kind = |permission: &Permission| permission.is_global() == global;
    permissions.iter().filter(of_kind).map(|permission| permission.as_str().to_owned()).collect()
}

fn in_words(step: &Step) -> String {
    let list = |permissions: &Permissions| match names(*permissions, false) {
        names if names.is_empty() => "nothing".to_owned(),
        names => names.join(", "),
    };
    match step {
        Step::Assigned { role, at, permissions, certain: true } => format!("role {role} has at {at}: {}", list(permissions)),
        Step::Assigned { role, at, permissions, certain: false } => {
            format!("role {role} has at {at}, if it has anything there, which is in conflict: {}", list(permissions))
        }
        Step::Isolated { at } => format!("{at} is isolated: what is said above does not count there"),
        Step::Default { role, permissions } => format!("role {role} has where nothing is assigned: {}", list(permissions)),
    }
}
