//! What others say of a session: controllers change its user properties from any node, whether or not its home can be reached.
//!
//! Each change is a standing record of its own, by session and key, the newest of which stands. So no home, old or new, can lose one, and its client's own
//! word, which its home writes, is overridden for as long as the session lives.

use mangrove_crdt::{
    access::{Roles, check_principal, fact::LIST_MAX},
    selector::Selector,
    standing::{PropertyChange, PropertyHash},
};

use super::*;

/// The property that says which roles a session has been given.
const ROLES: &str = "$Roles";

/// What such properties begin with that say whether a session subscribes to a selector.
const SELECT: &str = "$Select:";

/// Of how many selectors others may say that of one session.
const SELECTIONS_MAX: usize = 256;

/// The changes of sessions' properties that this node knows.
pub(super) type Changes = BTreeMap<SessionId, BTreeMap<PropertyHash, PropertyChange>>;

impl Node {
    /// Finds the changes that there are.
    pub(super) fn load_properties(&mut self, now: Now) {
        let keys = self.replica.section(SectionId::MESH).into_iter().flat_map(|mesh| mesh.standing.iter());
        let of_properties = |key: &&StandingKey| matches!(Standing::of_key(key), Some(Standing::SessionProperty(..)));
        let keys: Vec<StandingKey> = keys.map(|(key, _)| key).filter(of_properties).cloned().collect();
        keys.iter().for_each(|key| self.property_changed(now, key));
    }

    /// A record of the built-in section has changed, which may be of a property.
    pub(in crate::node) fn property_changed(&mut self, now: Now, key: &StandingKey) {
        let Some(Standing::SessionProperty(id, hash)) = Standing::of_key(key) else { return };
        match self.replica.standing::<PropertyChange>(SectionId::MESH, Standing::SessionProperty(id, hash)) {
            Some(change) if PropertyHash::of(&change.key) == hash => {
                self.sessions.changes.entry(id).or_default().insert(hash, change);
            }
            _ => {
                if let Some(changes) = self.sessions.changes.get_mut(&id) {
                    changes.remove(&hash);
                    if changes.is_empty() {
                        self.sessions.changes.remove(&id);
                    }
                }
            }
        }
        self.tell_listeners(id);
        if hash == PropertyHash::of(ROLES) {
            self.rights_changed(now, Some(id));
        }
        self.tell_selection(id, hash);
    }

    /// Somebody wants sessions of the mesh to subscribe to a selector, or not any more.
    pub(in crate::node) fn session_select(
        &mut self,
        now: Now,
        text: &str,
        selector: &Selector,
        selected: bool,
    ) -> Result<(Response, Needs), Refusal> {
        self.writable()?;
        let sessions = self.find_sessions(text)?;
        let key = format!("{SELECT}{selector}");
        for (id, _) in &sessions {
            let given =
                self.sessions.changes.get(id).map_or(0, |changes| changes.values().filter(|change| change.key.starts_with(SELECT)).count());
            if given >= SELECTIONS_MAX {
                return Err(Refusal::new(
                    Code::TooMany,
                    id.to_string(),
                    format!("others have said of {SELECTIONS_MAX} selectors already whether it subscribes to them"),
                ));
            }
        }
        let value = Some(if selected { "yes" } else { "no" }.to_owned());
        let mut needs = Needs::default();
        for (id, _) in &sessions {
            needs = self.say_of_session(now, *id, PropertyChange { key: key.clone(), value: value.clone() });
        }
        Ok((Response::Affected { sessions: sessions.len() as u64 }, needs))
    }

    fn say_of_session(&mut self, now: Now, id: SessionId, change: PropertyChange) -> Needs {
        let standing = Standing::SessionProperty(id, PropertyHash::of(&change.key));
        Needs::disk([self.replica.put_standing(standing, now.unix_ms, Some(minicbor::to_vec(change).expect("encoding to memory")))])
    }

    /// Tells the client of a session of this node what others want it to subscribe to: each wish under the name of its write, so that the client knows it again.
    fn tell_selection(&mut self, id: SessionId, hash: PropertyHash) {
        let Some(connection) = self.sessions.all.get(&id).and_then(|session| session.connection) else { return };
        let Some(change) = self.sessions.changes.get(&id).and_then(|changes| changes.get(&hash)) else { return };
        let (Some(selector), Some(value)) = (change.key.strip_prefix(SELECT), &change.value) else { return };
        let written = self.replica.standing_write(SectionId::MESH, Standing::SessionProperty(id, hash)).map(|(written, _)| written.dot);
        let dot = written.map(|dot| self.replica.dot(dot));
        let mut hasher = blake3::Hasher::new();
        if let Some(dot) = dot {
            hasher.update(&dot.origin.to_bytes()).update(&dot.number.to_be_bytes());
        }
        let wish = hasher.finalize().as_bytes().first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
        let (selector, selected) = (selector.to_owned(), value == "yes");
        if let Some(client) = self.connections.get_mut(&connection).filter(|_| !selected) {
            // Its client knows which of its own that ends.
            client.deselect(&selector);
            self.removals.subscribers.doubt();
        }
        let message = FromNode::Select { selector, selected, wish };
        self.outputs.push(crate::node::Output::Send { session: connection, message });
    }

    /// The same of all that others want, to a client that has just come.
    pub(super) fn tell_selections(&mut self, id: SessionId) {
        let hashes: Vec<PropertyHash> = self.sessions.changes.get(&id).into_iter().flat_map(BTreeMap::keys).copied().collect();
        hashes.into_iter().for_each(|hash| self.tell_selection(id, hash));
    }

    /// The roles that somebody has given a session, instead of those that it came with.
    pub(in crate::node) fn roles_given(&self, id: SessionId) -> Option<Roles> {
        let given = self.sessions.changes.get(&id)?.get(&PropertyHash::of(ROLES))?.value.as_ref()?;
        Some(given.split(',').filter(|role| !role.is_empty()).map(str::to_owned).collect())
    }

    /// Somebody gives a session of the mesh other roles, or those again that it came with.
    pub(in crate::node) fn session_roles(
        &mut self,
        now: Now,
        text: &str,
        roles: Option<Vec<String>>,
    ) -> Result<(Response, Needs), Refusal> {
        self.writable()?;
        let sessions = self.find_sessions(text)?;
        if sessions.iter().any(|(_, record)| record.identity.who == Who::Operator) {
            let refusal = Refusal::new(Code::InvalidRequest, text, "one is an operator's, who may do everything without any role");
            return Err(refusal.hint("end it: mangrove session close"));
        }
        for role in roles.iter().flatten() {
            check_principal(role).map_err(|why| Refusal::new(Code::InvalidRequest, role, why))?;
        }
        if roles.as_ref().is_some_and(|roles| roles.len() > LIST_MAX) {
            return Err(Refusal::new(Code::TooMany, text, format!("a session can be given at most {LIST_MAX} roles")));
        }
        let change = PropertyChange { key: ROLES.into(), value: roles.map(|roles| roles.join(",")) };
        let mut needs = Needs::default();
        for (id, _) in &sessions {
            needs = self.say_of_session(now, *id, change.clone());
        }
        Ok((Response::Affected { sessions: sessions.len() as u64 }, needs))
    }

    /// A session's user properties as they count.
    pub(super) fn properties_of(&self, id: SessionId, record: &SessionRecord) -> BTreeMap<String, String> {
        let mut properties = record.properties.clone();
        for change in self.sessions.changes.get(&id).into_iter().flat_map(BTreeMap::values).filter(|change| !change.key.starts_with('$')) {
            match &change.value {
                Some(value) => _ = properties.insert(change.key.clone(), value.clone()),
                None => _ = properties.remove(&change.key),
            }
        }
        properties
    }

    /// Somebody sets or removes user properties of any session of the mesh.
    pub(in crate::node) fn session_set(
        &mut self,
        now: Now,
        text: &str,
        changes: BTreeMap<String, Option<String>>,
    ) -> Result<(Response, Needs), Refusal> {
        self.writable()?;
        let sessions = self.find_sessions(text)?;
        check_properties(&changes.iter().map(|(key, value)| (key.clone(), value.clone().unwrap_or_default())).collect())?;
        for (id, record) in &sessions {
            let mut wanted = self.properties_of(*id, record);
            wanted.retain(|key, _| !key.starts_with('$'));
            wanted.extend(changes.iter().filter_map(|(key, value)| Some((key.clone(), value.clone()?))));
            check_properties(&wanted)?;
        }
        let mut needs = Needs::default();
        for (id, _) in &sessions {
            for (key, value) in &changes {
                needs = self.say_of_session(now, *id, PropertyChange { key: key.clone(), value: value.clone() });
            }
        }
        Ok((Response::Affected { sessions: sessions.len() as u64 }, needs))
    }

    /// What was said of a session that has ended goes with its record.
    pub(super) fn forget_properties(&mut self, now: Now, id: SessionId) {
        for hash in self.sessions.changes.get(&id).into_iter().flat_map(BTreeMap::keys).copied().collect::<Vec<_>>() {
            self.replica.put_standing(Standing::SessionProperty(id, hash), now.unix_ms, None);
        }
        self.forget_done(now, id);
    }
}
