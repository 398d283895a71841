//! What others say of a session: controllers change its user properties from any node, whether or not its home can be reached.
//!
//! Each change is a standing record of its own, by session and key, the newest of which stands. So no home, old or new, can lose one, and its client's own
//! word, which its home writes, is overridden for as long as the session lives.

use mangrove_crdt::{
    access::{Roles, check_principal, fact::LIST_MAX},
    standing::{PropertyChange, PropertyHash},
};

use super::*;

/// The property that says which roles a session has been given.
const ROLES: &str = "$Roles";

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
        let (id, record) = self.find_session(text)?;
        if record.identity.who == Who::Operator {
            let refusal = Refusal::new(Code::InvalidRequest, text, "it is an operator's, who may do everything without any role");
            return Err(refusal.hint("end it: mangrove session close"));
        }
        for role in roles.iter().flatten() {
            check_principal(role).map_err(|why| Refusal::new(Code::InvalidRequest, role, why))?;
        }
        if roles.as_ref().is_some_and(|roles| roles.len() > LIST_MAX) {
            return Err(Refusal::new(Code::TooMany, text, format!("a session can be given at most {LIST_MAX} roles")));
        }
        let change = PropertyChange { key: ROLES.into(), value: roles.map(|roles| roles.join(",")) };
        let standing = Standing::SessionProperty(id, PropertyHash::of(ROLES));
        let written = self.replica.put_standing(standing, now.unix_ms, Some(minicbor::to_vec(change).expect("encoding to memory")));
        Ok((Response::Done, Needs::disk([written])))
    }

    /// A session's user properties as they count.
    pub(super) fn properties_of(&self, id: SessionId, record: &SessionRecord) -> BTreeMap<String, String> {
        let mut properties = record.properties.clone();
        for change in self.sessions.changes.get(&id).into_iter().flat_map(BTreeMap::values).filter(|change| change.key != ROLES) {
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
        let (id, record) = self.find_session(text)?;
        let mut wanted = self.properties_of(id, &record);
        check_properties(&changes.iter().map(|(key, value)| (key.clone(), value.clone().unwrap_or_default())).collect())?;
        wanted.extend(changes.iter().filter_map(|(key, value)| Some((key.clone(), value.clone()?))));
        check_properties(&wanted)?;
        let mut needs = Needs::default();
        for (key, value) in changes {
            let standing = Standing::SessionProperty(id, PropertyHash::of(&key));
            let change = minicbor::to_vec(PropertyChange { key, value }).expect("encoding to memory");
            needs = Needs::disk([self.replica.put_standing(standing, now.unix_ms, Some(change))]);
        }
        Ok((Response::Done, needs))
    }

    /// What was said of a session that has ended goes with its record.
    pub(super) fn forget_properties(&mut self, now: Now, id: SessionId) {
        for hash in self.sessions.changes.get(&id).into_iter().flat_map(BTreeMap::keys).copied().collect::<Vec<_>>() {
            self.replica.put_standing(Standing::SessionProperty(id, hash), now.unix_ms, None);
        }
    }
}
