//! Who comes in: each login goes along the configured chain, and the first who knows decides.
//!
//! ```text
//!   login ─▶ store ─▶ tokens ─▶ handler … ─▶ nobody knows: refused
//!              │         │         │
//!              └─────────┴─────────┴──▶ allowed, or denied
//! ```
//!
//! The node itself judges by the mesh's rules. Checking a password takes long on purpose, and checking a token takes keys, so the driver does both
//! ([`super::Output::Verify`]) and says what came of it. Nobody learns from a refusal, nor from how long it took, whether there is a principal of that name.

use std::collections::BTreeMap;

use mangrove_crdt::{
    access::Anonymous,
    standing::{Identity, Via, Who},
    time::Instant,
};

use super::{ConnectionId, Node, Now, Output, connections::Connection};
use crate::protocol::{Code, Login, Refusal, Response, Secret, Verdict};

pub(super) mod handlers;

/// How many may be on their way in at once.
const LOGINS_MAX: usize = 1_024;

/// Somebody who judges logins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Authenticator {
    /// The mesh's store of principals.
    Store,
    /// Whoever has signed a token, if its key is known to this node.
    Tokens,
    /// Sessions of the mesh that have registered under this name.
    Handler(String),
}

/// Somebody who wants to come in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Comer {
    /// What it says that it is.
    pub client: String,
    /// How it has come.
    pub via: Via,
    /// How many aliases it keeps.
    pub aliases_max: u32,
    /// Random, never the same again, and known to nobody else: what names and protects the sessions of this connection.
    pub entropy: [u8; 32],
    /// Who it says that it is, and what proves it.
    pub login: Login,
    /// What it says of its session: user properties.
    pub properties: BTreeMap<String, String>,
}

/// Something that the driver finds out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verify {
    /// Whether a password is the one of an argon2id hash. If there is none, it is not; but that takes as long.
    Password {
        /// The hash, in the PHC format.
        hash: Option<String>,
        /// The password.
        password: Secret,
    },
    /// Whether a token is signed by a key that is known, and good now.
    Token(Secret),
}

/// All who are on their way in.
#[derive(Debug, Default)]
pub struct Logins {
    pending: BTreeMap<ConnectionId, Pending>,
    handlers: handlers::Handlers,
    /// When the time of somebody is over who was let in for a time, in milliseconds since 1970.
    expires_ms: Option<u64>,
}

impl Logins {
    /// When somebody who was asked has had its time.
    pub fn due(&self) -> Option<Instant> {
        self.pending.values().filter_map(|pending| pending.asked.as_ref()).map(|asked| asked.until).min()
    }
}

#[derive(Debug)]
struct Pending {
    comer: Comer,
    /// The request by which a client that is in already proves anew who it is.
    again: Option<u64>,
    /// Who is to be asked next: a place in the chain.
    next: usize,
    /// Whether its password has been compared with any.
    compared: bool,
    /// Which handler is being asked.
    asked: Option<handlers::Asked>,
}

impl Node {
    /// Somebody wants to come in; or, if there is a request, to prove anew who it is.
    pub(super) fn login(&mut self, now: Now, connection: ConnectionId, comer: Comer, again: Option<u64>) {
        let refusal = if self.logins.pending.len() >= LOGINS_MAX {
            Some("too many clients are on their way in")
        } else {
            self.logins.pending.contains_key(&connection).then_some("it is proving already who it is")
        };
        let refusal = refusal.map(|why| Refusal::new(Code::NotReady, "session", why).hint("try again in a moment"));
        match refusal {
            Some(refusal) => self.tell_comer(connection, again, Err(refusal)),
            None => {
                self.logins.pending.insert(connection, Pending { comer, again, next: 0, compared: false, asked: None });
                self.ask_next(now, connection);
            }
        }
    }

    /// Says what was found of somebody.
    fn tell_comer(&mut self, connection: ConnectionId, again: Option<u64>, result: Result<(), Refusal>) {
        match (again, result) {
            (None, result) => self.outputs.push(Output::Judged { session: connection, result }),
            (Some(id), Ok(())) => self.answer(connection, id, Response::Done),
            (Some(id), Err(refusal)) => self.answer(connection, id, Response::Refused(refusal)),
        }
    }

    /// Whoever was asked about a login has spoken.
    pub(super) fn judged(&mut self, now: Now, connection: ConnectionId, verdict: Verdict) {
        let Some(pending) = self.logins.pending.get_mut(&connection) else { return };
        pending.asked = None;
        match verdict {
            Verdict::Deny => self.turn_away(connection),
            Verdict::Abstain => self.ask_next(now, connection),
            Verdict::Allow { principal, roles, properties, expires_ms } => {
                let who = match (&pending.comer.login, principal) {
                    (_, Some(name)) => Who::Principal(name),
                    (Login::Password { principal, .. }, None) => Who::Principal(principal.clone()),
                    (Login::Anonymous | Login::Token(_), None) => Who::Anonymous,
                };
                let named = matches!(&who, Who::Principal(name) if mangrove_crdt::access::check_principal(name).is_err());
                if named || expires_ms.is_some_and(|expires| expires <= now.unix_ms) {
                    return self.turn_away(connection);
                }
                let identity = Identity { who, roles: roles.map(|roles| roles.into_iter().collect()), expires_ms };
                self.let_in(now, connection, identity, properties);
            }
        }
    }

    /// Asks the next in the chain.
    fn ask_next(&mut self, now: Now, connection: ConnectionId) {
        while let Some(pending) = self.logins.pending.get_mut(&connection) {
            let asked = self.config.authentication.get(pending.next).cloned();
            pending.next += 1;
            let verify = match (asked, &pending.comer.login) {
                (None, Login::Password { password, .. }) if !pending.compared => {
                    pending.compared = true;
                    Verify::Password { hash: None, password: password.clone() }
                }
                (None, _) => return self.turn_away(connection),
                (Some(Authenticator::Store), Login::Anonymous) => match self.replica.rules().anonymous() {
                    Anonymous::Allow => return self.judged(now, connection, Verdict::allow()),
                    Anonymous::Deny => return self.turn_away(connection),
                    Anonymous::Abstain => continue,
                },
                (Some(Authenticator::Store), Login::Password { principal, password }) => {
                    let known = self.replica.rules().find_principal(principal).and_then(|principal| principal.password.clone());
                    let Some(hash) = known else { continue };
                    pending.compared = true;
                    Verify::Password { hash: Some(hash), password: password.clone() }
                }
                (Some(Authenticator::Tokens), Login::Token(token)) => Verify::Token(token.clone()),
                (Some(Authenticator::Store | Authenticator::Tokens), _) => continue,
                (Some(Authenticator::Handler(name)), _) => match self.ask_handler(now, connection, name) {
                    true => return,
                    false => continue,
                },
            };
            return self.outputs.push(Output::Verify { session: connection, verify });
        }
    }

    fn turn_away(&mut self, connection: ConnectionId) {
        let Some(Pending { comer, again, .. }) = self.logins.pending.remove(&connection) else { return };
        tracing::info!(login = ?comer.login, client = comer.client, "a client was turned away");
        let (why, hint) = match comer.login {
            Login::Anonymous => ("this mesh lets in only those who say who they are", "log in: mangrove login"),
            Login::Password { .. } => {
                ("there is no such principal with that password", "passwords are set with: mangrove principal password")
            }
            Login::Token(_) => {
                ("the token was not accepted", "it must be signed by a key that the node's configuration names, and be good at this time")
            }
        };
        self.tell_comer(connection, again, Err(Refusal::new(Code::BadCredential, "session", why).hint(hint)));
    }

    fn let_in(&mut self, now: Now, connection: ConnectionId, identity: Identity, granted: BTreeMap<String, String>) {
        let Some(Pending { comer, again, .. }) = self.logins.pending.remove(&connection) else { return };
        // The rules may have changed while it waited.
        if self.is_banished(&identity) {
            let refusal = Refusal::new(Code::BadCredential, "session", "its principal was removed");
            return self.tell_comer(connection, again, Err(refusal));
        }
        self.note_expiry(&identity);
        if again.is_some() {
            let known = self.connections.get(&connection).and_then(|client| client.identity.as_ref());
            if known.is_none_or(|known| known.who != identity.who) {
                let refusal = Refusal::new(
                    Code::BadCredential,
                    "session",
                    format!("it is {}'s", known.map(|known| &known.who).unwrap_or(&identity.who)),
                );
                return self.tell_comer(connection, again, Err(refusal.hint("open another session")));
            }
            self.reidentify(now, connection, identity);
            return self.tell_comer(connection, again, Ok(()));
        }
        tracing::info!(connection = connection.0, who = %identity.who, client = comer.client, "a client has come");
        self.tell_comer(connection, again, Ok(()));
        let Comer { client, via, aliases_max, entropy, .. } = comer;
        let mut client = Connection::new(client, via, aliases_max, entropy);
        client.properties = granted;
        self.connections.insert(connection, client);
        self.identify(connection, identity);
    }

    /// A client has proved anew who it is.
    fn reidentify(&mut self, now: Now, connection: ConnectionId, identity: Identity) {
        if let Some(id) = self.connections.get(&connection).and_then(|client| client.session) {
            self.set_identity(now, id, identity.clone());
        }
        self.identify(connection, identity);
    }

    /// Somebody has gone who may have been on its way in.
    pub(super) fn login_gone(&mut self, now: Now, connection: ConnectionId) {
        self.logins.pending.remove(&connection);
        self.handler_gone(now, connection);
    }

    /// Whoever was asked and has not answered in time is asked no more.
    pub(super) fn logins_due(&mut self, now: Now) {
        let late = |pending: &Pending| pending.asked.as_ref().is_some_and(|asked| asked.until <= now.at);
        let late: Vec<ConnectionId> =
            self.logins.pending.iter().filter(|(_, pending)| late(pending)).map(|(connection, _)| *connection).collect();
        for connection in late {
            tracing::warn!("a handler of logins has not answered in time, and the next is asked");
            self.judged(now, connection, Verdict::Abstain);
        }
    }

    /// Ends the sessions of this node whose time is over. To be called about every second.
    pub(super) fn end_expired(&mut self, now: Now) {
        if self.logins.expires_ms.is_none_or(|expires| expires > now.unix_ms) {
            return;
        }
        let is_over = |identity: &Identity| identity.expires_ms.is_some_and(|expires| expires <= now.unix_ms);
        let sessions = self.sessions.all.iter().filter(|(_, session)| is_over(&session.record.identity)).map(|(id, _)| *id);
        for id in sessions.collect::<Vec<_>>() {
            self.end_for_good(now, id, crate::protocol::Ended::Expired);
        }
        let own = |client: &Connection| client.session.is_none() && client.identity.as_ref().is_some_and(is_over);
        let connections = self.connections.iter().filter(|(_, client)| own(client)).map(|(connection, _)| *connection);
        for connection in connections.collect::<Vec<_>>() {
            self.send_away(connection, "the time is over for which it was let in");
        }
        self.plan_expiry();
    }

    /// Somebody is in whose time may be over some day.
    pub(super) fn note_expiry(&mut self, identity: &Identity) {
        self.logins.expires_ms = [self.logins.expires_ms, identity.expires_ms].into_iter().flatten().min();
    }

    /// Sees anew when somebody's time is over.
    pub(super) fn plan_expiry(&mut self) {
        let sessions = self.sessions.all.values().map(|session| &session.record.identity);
        let identities = sessions.chain(self.connections.values().filter_map(|client| client.identity.as_ref()));
        self.logins.expires_ms = identities.filter_map(|identity| identity.expires_ms).min();
    }
}

#[cfg(test)]
mod tests;
