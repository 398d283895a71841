//! Who may do what here: every request of a client is judged before it is served, every topic before it is delivered, and both anew whenever the rules change.
//!
//! Whose a session is stands in its record ([`Identity`]), and so does not have to be found again by the next node that takes it up. Its rights are what the
//! mesh's rules make of that, at any moment: so a change of the rules counts at once, on every node that has heard of it.

use std::collections::BTreeMap;

use mangrove_crdt::{
    access::{Permission, Principal, Rights, Roles, Whom},
    id::{SectionId, SessionId},
    path::Path,
    selector::Selector,
    standing::{Identity, Who},
};

use super::{
    ConnectionId, Node, Now, Output,
    connections::{may_select, not_selectable},
    missing::is_of_missing,
    requests::closing,
};
use crate::protocol::{Closed, Code, Ended, FromNode, Refusal, Request};

mod views;

/// What a request asks for, as far as that can be said before it is looked at more closely: what names paths is judged path by path.
enum Asks<'a> {
    /// Nothing that anybody could be refused.
    Nothing,
    /// Something of the whole mesh.
    Globally(Permission),
    /// Something at any path there may be.
    Somewhere(Permission),
    /// Something at a path.
    At(Permission, &'a str),
    /// To find what a selector comes to.
    Selecting(&'a str),
}

fn asks(request: &Request) -> Asks<'_> {
    use Permission::*;
    match request {
        Request::Once { request, .. } => asks(request),
        Request::Status
        | Request::Nodes
        | Request::Links
        | Request::Sections
        | Request::SectionShow { .. }
        | Request::Config
        | Request::Doctor => Asks::Globally(ViewNode),
        Request::NodeRevoke { .. }
        | Request::NodeRename { .. }
        | Request::NodeLeave { .. }
        | Request::LinkBlock { .. }
        | Request::SectionAdd { .. }
        | Request::SectionSet { .. }
        | Request::SectionRemove { .. }
        | Request::SectionHold { .. }
        | Request::SectionDrop { .. }
        | Request::Invite { .. }
        | Request::Renew
        | Request::Shutdown => Asks::Globally(ControlNode),
        Request::HandlerRegister { .. } | Request::MissingRegister { .. } => Asks::Globally(RegisterHandler),
        Request::Sessions { .. }
        | Request::SessionShow { .. }
        | Request::SessionsListen { .. }
        | Request::Sources { .. }
        | Request::SourceShow { .. } => Asks::Globally(ViewSession),
        Request::SessionEnd { .. } | Request::SessionSet { .. } | Request::SessionRoles { .. } | Request::SessionSelect { .. } => {
            Asks::Globally(ModifySession)
        }
        Request::Access { .. } | Request::AccessWhy { .. } | Request::Principals { .. } | Request::Roles => Asks::Globally(ViewSecurity),
        Request::AccessScript { .. } => Asks::Globally(ModifySecurity),
        Request::TopicShow { path } | Request::TopicPast { path } => Asks::At(Read, path),
        Request::SourceClaim { branch, .. } => Asks::At(AcquireSource, branch),
        // What its client has seen elsewhere may be what entitles it: so that is judged when the node has come as far.
        Request::Subscribe { heard: Some(heard), .. } if !heard.seen.is_empty() => Asks::Nothing,
        Request::Topics { selector, .. }
        | Request::Values { selector, .. }
        | Request::Subscribe { selector, .. }
        | Request::Displaced { selector, .. } => Asks::Selecting(selector),
        // Judged path by path.
        Request::TopicsAdd { .. }
        | Request::TopicsRemove { .. }
        | Request::Set(_)
        | Request::Change(_)
        | Request::Events { .. }
        | Request::Lines { .. }
        | Request::Send(_)
        | Request::DisplacedShow { .. }
        | Request::DisplacedRestore { .. } => Asks::Nothing,
        // It is for topics that are to be made, and which these are is not known yet.
        Request::BlobPut { .. } => Asks::Somewhere(Modify),
        // Whoever knows its name has it from a definition that it may read, or has the blob.
        Request::BlobGet { .. } => Asks::Nothing,
        // Of its own.
        Request::Addresses
        | Request::Unsubscribe { .. }
        | Request::SessionOpen { .. }
        | Request::SessionResume { .. }
        | Request::SessionClose
        | Request::Reauthenticate(_)
        | Request::HandlerUnregister { .. }
        | Request::MissingUnregister { .. }
        | Request::Judged { .. }
        | Request::SessionsUnlisten { .. }
        | Request::SourceClose { .. } => Asks::Nothing,
    }
}

impl Node {
    /// Whether a client may ask for something at all. To be asked by whoever serves a request without the node.
    ///
    /// # Errors
    /// Which permission is lacking.
    pub fn permit(&self, connection: ConnectionId, request: &Request) -> Result<(), Refusal> {
        let client = self.connections.get(&connection).ok_or_else(closing)?;
        if client.identity.is_none() && !matches!(request, Request::SessionResume { .. }) {
            return Err(Refusal::new(Code::NotPermitted, "request", "this connection was let in to take a session up, and has none"));
        }
        let (rules, rights) = (self.replica.rules(), client.rights());
        if rights.is_everything() {
            return Ok(());
        }
        match asks(request) {
            Asks::Nothing => Ok(()),
            Asks::Globally(permission) => self.permitted_globally(connection, permission),
            Asks::Somewhere(permission) => match rules.somewhere(rights, permission) {
                true => Ok(()),
                false => Err(self.lacks(connection, permission, "request")),
            },
            Asks::At(permission, path) => match Path::parse(path) {
                Ok(path) => self.permitted(connection, permission, &path),
                // What is no path is refused as such.
                Err(_) => Ok(()),
            },
            Asks::Selecting(selector) => match Selector::parse(selector) {
                Ok(selector) => may_select(rules, rights, &selector).map_err(|at| not_selectable(&selector, &at)),
                Err(_) => Ok(()),
            },
        }
    }

    /// Whether a client may do something on the whole mesh.
    ///
    /// # Errors
    /// That it lacks the permission.
    pub(super) fn permitted_globally(&self, connection: ConnectionId, permission: Permission) -> Result<(), Refusal> {
        let permitted = self.connections.get(&connection).map(|client| self.replica.rules().globally(client.rights()));
        match permitted.is_some_and(|permitted| permitted.has(permission)) {
            true => Ok(()),
            false => Err(self.lacks(connection, permission, "request")),
        }
    }

    /// Whether a client may do something at a path.
    ///
    /// # Errors
    /// That it lacks the permission.
    pub(super) fn permitted(&self, connection: ConnectionId, permission: Permission, path: &Path) -> Result<(), Refusal> {
        match self.may(connection, permission, path) {
            true => Ok(()),
            false => Err(self.lacks(connection, permission, path.as_str())),
        }
    }

    /// The same, without words.
    pub(super) fn may(&self, connection: ConnectionId, permission: Permission, path: &Path) -> bool {
        let Some(client) = self.connections.get(&connection) else { return false };
        let rights = client.rights();
        rights.is_everything() || self.replica.rules().at(rights, path.as_str()).has(permission) || {
            let of_owners = matches!(permission, Permission::Read | Permission::Update | Permission::Modify);
            of_owners && client.owns(&self.replica, path)
        }
    }

    fn lacks(&self, connection: ConnectionId, permission: Permission, what: &str) -> Refusal {
        let who = self.connections.get(&connection).and_then(|client| client.identity.as_ref()).map(|identity| identity.who.to_string());
        let why = format!("{} lacks the permission {permission}", who.unwrap_or_default());
        Refusal::new(Code::NotPermitted, what, why).hint("whoever may see the rules finds out why: mangrove access why PRINCIPAL PATH")
    }

    /// What somebody may do; `session` is theirs, if the mesh knows one.
    pub(super) fn rights_of(&self, identity: &Identity, session: Option<SessionId>) -> Rights {
        let rules = self.replica.rules();
        let changed = session.and_then(|id| self.roles_given(id));
        let granted = |roles: Option<Roles>| roles.or_else(|| identity.roles.clone()).map(|roles| vec![roles]);
        match &identity.who {
            Who::Operator => Rights::everything(),
            Who::Anonymous => rules.rights(Whom::Anonymous, &granted(changed).unwrap_or_else(|| vec![Roles::new()])),
            Who::Principal(name) => match granted(changed).or_else(|| Some(rules.find_principal(name)?.roles.clone())) {
                Some(roles) => rules.rights(Whom::Named, &roles),
                None => Rights::default(),
            },
        }
    }

    /// The roles that a session has been given, without those that they include.
    pub(super) fn roles_of(&self, id: SessionId, identity: &Identity) -> Roles {
        let by_store = || match &identity.who {
            Who::Principal(name) => self.replica.rules().find_principal(name).and_then(|principal| principal.roles.first().cloned()),
            _ => None,
        };
        self.roles_given(id).or_else(|| identity.roles.clone()).or_else(by_store).unwrap_or_default()
    }

    /// Whether somebody is not to be let in any more, nor to stay.
    pub(super) fn is_banished(&self, identity: &Identity) -> bool {
        match (&identity.who, &identity.roles) {
            (Who::Principal(name), None) => self.replica.rules().was_removed(name),
            _ => false,
        }
    }

    /// Whether this node can say what somebody may do: it may have heard of a session before it hears of the principal.
    pub(super) fn knows_rights(&self, identity: &Identity) -> bool {
        match (&identity.who, &identity.roles) {
            (Who::Principal(name), None) => self.replica.rules().find_principal(name).is_some(),
            _ => true,
        }
    }

    /// The rules have changed, or the roles of a session: whatever hangs on them is judged anew.
    pub(super) fn rights_changed(&mut self, now: Now, only: Option<SessionId>) {
        self.removals.subscribers.doubt();
        let sessions: Vec<(SessionId, Identity)> = match only {
            Some(id) => self.sessions.all.get(&id).map(|session| (id, session.record.identity.clone())).into_iter().collect(),
            None => self.sessions.all.iter().map(|(id, session)| (*id, session.record.identity.clone())).collect(),
        };
        for (id, identity) in sessions {
            if self.is_banished(&identity) {
                self.end_for_good(now, id, Ended::Revoked);
            } else if identity.who != Who::Operator {
                self.give_up_unpermitted(now, id, &identity);
            }
        }
        let mut connections: BTreeMap<ConnectionId, Rights> = BTreeMap::new();
        let mut banished = Vec::new();
        for (connection, client) in &self.connections {
            let Some(identity) = client.identity.as_ref().filter(|identity| identity.who != Who::Operator) else { continue };
            if client.session.is_none() && self.is_banished(identity) {
                banished.push(*connection);
            } else if only.is_none_or(|id| client.session == Some(id)) {
                connections.insert(*connection, self.rights_of(identity, client.session));
            }
        }
        for connection in banished {
            self.send_away(connection, "its principal was removed");
        }
        let rules = self.replica.rules().clone();
        for (connection, rights) in connections {
            let may_listen = rules.globally(&rights).has(Permission::ViewSession);
            let basis = self.replica.basis(&rights);
            let Some(client) = self.connections.get_mut(&connection) else { continue };
            client.set_rights(&self.replica, rights, basis);
            if !may_listen {
                let ended = client.listeners.end_all();
                for listener in ended {
                    let refusal = self.lacks(connection, Permission::ViewSession, "listener");
                    self.outputs.push(Output::Send { session: connection, message: FromNode::Unlistened { listener, refusal } });
                }
            }
        }
    }

    /// Ends a connection without a session that the mesh knows.
    pub(super) fn send_away(&mut self, connection: ConnectionId, why: &str) {
        self.connections.remove(&connection);
        self.acks.forget(connection);
        let refusal = Refusal::new(Code::SessionEnded, "session", why);
        self.outputs.push(Output::Send { session: connection, message: FromNode::Closing(refusal) });
    }

    /// Takes from a session what it may not have any more: sources, and what it serves.
    fn give_up_unpermitted(&mut self, now: Now, id: SessionId, identity: &Identity) {
        let rights = self.rights_of(identity, Some(id));
        let rules = self.replica.rules().clone();
        let global = rules.globally(&rights);
        let (handles, judges) = (global.has(Permission::RegisterHandler), global.has(Permission::Authenticate));
        let may_serve = |name: &String| handles && (judges || is_of_missing(name));
        if let Some(session) = self.sessions.all.get_mut(&id).filter(|session| !session.record.handlers.iter().all(may_serve)) {
            session.record.handlers.retain(may_serve);
            self.store_session(now, id);
        }
        let sources = self.sessions.all.get(&id).into_iter().flat_map(|session| &session.sources);
        let lost = sources.filter(|(_, source)| !rules.at(&rights, source.branch.as_str()).has(Permission::AcquireSource));
        for number in lost.map(|(number, _)| *number).collect::<Vec<_>>() {
            let why = format!("{} lacks the permission {}", identity.who, Permission::AcquireSource);
            self.close_source(now, id, number, Closed::NotPermitted, &why);
        }
    }

    /// Says what a mesh begins with, unless something was said already.
    pub(super) fn found(&mut self, script: &str) {
        if !self.replica.facts().is_empty() {
            return;
        }
        match self.replica.run_script(script) {
            Ok(_) => self.sync_wanted = true,
            Err(error) => tracing::error!(%error, "the mesh could not be given an administrator"),
        }
    }

    /// Notes whose a connection is.
    pub(super) fn identify(&mut self, connection: ConnectionId, identity: Identity) {
        let session = self.connections.get(&connection).and_then(|client| client.session);
        let rights = self.rights_of(&identity, session);
        let basis = self.replica.basis(&rights);
        if let Some(client) = self.connections.get_mut(&connection) {
            client.identity = Some(identity);
            client.set_rights(&self.replica, rights, basis);
        }
    }
}

#[cfg(test)]
mod tests;
