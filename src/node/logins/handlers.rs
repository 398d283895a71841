//! Handlers of logins: sessions anywhere in the mesh that have said that they judge them, under a name.
//!
//! The node where somebody wants to come in asks one session of the name, by a letter to its home, which asks its client. If that cannot be asked, or goes away before it has
//! answered, another of the same name is asked. All of that takes no longer than the configured time: then the next in the chain is asked.

use std::collections::{BTreeMap, BTreeSet};

use mangrove_crdt::{
    access::{Permission, check_principal},
    id::{NodeId, SectionId, SessionId},
    standing::{SessionRecord, Standing},
    time::Instant,
};
use minicbor::{Decode, Encode};

use crate::node::{ConnectionId, Node, Now, Output, acks::Needs, letters::Letter, requests::closing};
use crate::protocol::{Code, FromNode, MissingTopic, Question, Refusal, Response, Verdict};

/// How many questions one client may have unanswered at once.
const QUESTIONS_MAX: usize = 1_024;
/// How many roles a handler may give.
const ROLES_MAX: usize = 64;
/// How many names one session may serve.
const NAMES_MAX: usize = 16;

/// What nodes write each other about logins.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Mail {
    /// A session of the node written to is to judge a login.
    #[n(0)]
    Ask {
        /// The asking node's number for it.
        #[n(0)]
        ask: u64,
        /// Which session.
        #[n(1)]
        session: SessionId,
        /// What is asked.
        #[n(2)]
        question: Question,
    },
    /// What it says.
    #[n(1)]
    Answer {
        /// The number that it was asked under.
        #[n(0)]
        ask: u64,
        /// Its verdict; `None` if it cannot be asked.
        #[n(1)]
        verdict: Option<Verdict>,
    },
    /// A session of the node written to is to be told of missing topics. Answered by whether it was, with any verdict.
    #[n(2)]
    Missing {
        /// The asking node's number for it.
        #[n(0)]
        ask: u64,
        /// Which session.
        #[n(1)]
        session: SessionId,
        /// What it is to be told.
        #[n(2)]
        missing: MissingTopic,
    },
}

/// Who serves, and what is being asked of this node's clients.
#[derive(Debug, Default)]
pub struct Handlers {
    serving: BTreeMap<SessionId, BTreeSet<String>>,
    asks: u64,
    unanswered: BTreeMap<(ConnectionId, u64), (NodeId, u64)>,
    questions: u64,
}

/// A handler that is being asked.
#[derive(Debug)]
pub struct Asked {
    name: String,
    /// Until when.
    pub until: Instant,
    /// Under which number, and at which node; that of the last session.
    ask: u64,
    home: NodeId,
    tried: BTreeSet<SessionId>,
}

impl Node {
    /// A session's record has changed: what it serves may have as well.
    pub(in crate::node) fn note_serving(&mut self, id: SessionId, record: Option<&SessionRecord>) {
        let serving = &mut self.logins.handlers.serving;
        match record.filter(|record| !record.handlers.is_empty() && !record.closing && record.ended.is_none()) {
            Some(record) => _ = serving.insert(id, record.handlers.clone()),
            None => _ = serving.remove(&id),
        }
    }

    /// Asks the sessions of a handler's name, one after the other. Says whether there is any to be asked.
    pub(super) fn ask_handler(&mut self, now: Now, connection: ConnectionId, name: String) -> bool {
        let until = now.at.after(self.config.handler_timeout);
        let Some(pending) = self.logins.pending.get_mut(&connection) else { return false };
        pending.asked = Some(Asked { name, until, ask: 0, home: NodeId::default(), tried: BTreeSet::new() });
        self.ask_session(now, connection)
    }

    fn ask_session(&mut self, now: Now, connection: ConnectionId) -> bool {
        let Some(pending) = self.logins.pending.get(&connection) else { return false };
        let Some(asked) = &pending.asked else { return false };
        let question = Question {
            handler: asked.name.clone(),
            login: pending.comer.login.clone(),
            client: pending.comer.client.clone(),
            via: pending.comer.via.clone(),
            properties: pending.comer.properties.clone(),
        };
        let (name, tried) = (asked.name.clone(), asked.tried.clone());
        let chosen = self.choose_server(now, &name, &tried);
        let (Some((ask, session, home)), Some(pending)) = (chosen, self.logins.pending.get_mut(&connection)) else { return false };
        let Some(asked) = &mut pending.asked else { return false };
        asked.tried.insert(session);
        (asked.ask, asked.home) = (ask, home);
        self.login_post(now, home, Mail::Ask { ask, session, question });
        true
    }

    /// A session that serves a name and can be reached, each in its turn: with its home, and a number for what it is asked.
    pub(in crate::node) fn choose_server(&mut self, now: Now, name: &str, tried: &BTreeSet<SessionId>) -> Option<(u64, SessionId, NodeId)> {
        let serves = |(id, names): &(&SessionId, &BTreeSet<String>)| names.contains(name) && !tried.contains(*id);
        let home = |id: &SessionId| {
            let record = self.replica.standing::<SessionRecord>(SectionId::MESH, Standing::Session(*id))?;
            let reached = record.home == self.id() || self.lives(now, &record.home);
            (reached && !record.lost).then_some((*id, record.home))
        };
        let able: Vec<(SessionId, NodeId)> = self.logins.handlers.serving.iter().filter(serves).filter_map(|(id, _)| home(id)).collect();
        let ask = self.logins.handlers.asks + 1;
        let (session, home) = able.get(ask as usize % able.len().max(1)).copied()?;
        self.logins.handlers.asks = ask;
        Some((ask, session, home))
    }

    /// All names that any session serves.
    pub(in crate::node) fn served_names(&self) -> impl Iterator<Item = &str> {
        self.logins.handlers.serving.values().flatten().map(String::as_str)
    }

    pub(in crate::node) fn login_post(&mut self, now: Now, to: NodeId, mail: Mail) {
        match to == self.id() {
            true => self.login_mail(now, to, mail),
            false => self.write_to(to, &Letter::Login(mail)),
        }
    }

    /// A letter about a login came.
    pub(in crate::node) fn login_mail(&mut self, now: Now, from: NodeId, mail: Mail) {
        match mail {
            Mail::Ask { ask, session, question } => {
                let own = self.replica.own();
                let handlers = &mut self.logins.handlers;
                let connection = self.sessions.all.get(&session).filter(|session| session.record.handlers.contains(&question.handler));
                let Some(connection) = connection.and_then(|session| session.connection) else {
                    return self.login_post(now, from, Mail::Answer { ask, verdict: None });
                };
                handlers.questions += 1;
                // Another on each node: an answer that its client gives elsewhere must not be taken for that to another question.
                let number = blake3::hash(&[&own.to_bytes()[..], &handlers.questions.to_be_bytes()].concat());
                let number = number.as_bytes().first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
                if handlers.unanswered.range((connection, 0)..=(connection, u64::MAX)).count() >= QUESTIONS_MAX {
                    return self.login_post(now, from, Mail::Answer { ask, verdict: None });
                }
                handlers.unanswered.insert((connection, number), (from, ask));
                let message = FromNode::Judge { number, question: Box::new(question) };
                self.outputs.push(Output::Send { session: connection, message });
            }
            Mail::Missing { ask, session, missing } => {
                let told = self.tell_missing(session, missing);
                self.login_post(now, from, Mail::Answer { ask, verdict: told.then_some(Verdict::Abstain) });
            }
            Mail::Answer { ask, verdict } => {
                if self.missing_answered(now, from, ask, verdict.is_some()) {
                    return;
                }
                let is_of = |asked: &Asked| (asked.ask, asked.home) == (ask, from);
                let mut pending = self.logins.pending.iter();
                let found = pending.find(|(_, pending)| pending.asked.as_ref().is_some_and(is_of)).map(|(connection, _)| *connection);
                let Some(connection) = found else { return };
                match verdict.map(checked) {
                    Some(verdict) => self.judged(now, connection, verdict),
                    None if self.ask_session(now, connection) => {}
                    None => self.judged(now, connection, Verdict::Abstain),
                }
            }
        }
    }

    /// A client has judged.
    pub(in crate::node) fn client_judged(
        &mut self,
        now: Now,
        connection: ConnectionId,
        number: u64,
        verdict: Verdict,
    ) -> (Response, Needs) {
        if let Some((from, ask)) = self.logins.handlers.unanswered.remove(&(connection, number)) {
            self.login_post(now, from, Mail::Answer { ask, verdict: Some(verdict) });
        }
        (Response::Done, Needs::default())
    }

    /// A client has gone: what it has not answered, others may.
    pub(super) fn handler_gone(&mut self, now: Now, connection: ConnectionId) {
        let unanswered = &mut self.logins.handlers.unanswered;
        let numbers: Vec<(ConnectionId, u64)> = unanswered.range((connection, 0)..=(connection, u64::MAX)).map(|(key, _)| *key).collect();
        for key in numbers {
            if let Some((from, ask)) = self.logins.handlers.unanswered.remove(&key) {
                self.login_post(now, from, Mail::Answer { ask, verdict: None });
            }
        }
    }

    /// A client says that it judges logins, or that it does not any more.
    pub(in crate::node) fn handler_register(
        &mut self,
        now: Now,
        connection: ConnectionId,
        name: &str,
        serves: bool,
    ) -> Result<(Response, Needs), Refusal> {
        check_principal(name).map_err(|_| Refusal::new(Code::InvalidRequest, name, "this cannot be the name of a handler"))?;
        if serves {
            self.permitted_globally(connection, Permission::Authenticate)?;
        }
        self.serve_name(now, connection, name, serves)
    }

    /// A client says that it serves a name, or that it does not any more.
    pub(in crate::node) fn serve_name(
        &mut self,
        now: Now,
        connection: ConnectionId,
        name: &str,
        serves: bool,
    ) -> Result<(Response, Needs), Refusal> {
        self.writable()?;
        let (id, _) = self.open_session(now, connection)?;
        let session = self.sessions.all.get_mut(&id).ok_or_else(closing)?;
        match serves {
            true if session.record.handlers.len() >= NAMES_MAX => {
                return Err(Refusal::new(Code::TooMany, name, format!("a session serves at most {NAMES_MAX} handlers")));
            }
            true => _ = session.record.handlers.insert(name.to_owned()),
            false => _ = session.record.handlers.remove(name),
        }
        Ok((Response::Done, self.store_session(now, id)))
    }
}

/// A verdict as it counts: one that gives what nobody can have denies.
fn checked(verdict: Verdict) -> Verdict {
    match &verdict {
        Verdict::Allow { roles, properties, .. } => {
            let roles =
                roles.as_ref().is_none_or(|roles| roles.len() <= ROLES_MAX && roles.iter().all(|role| check_principal(role).is_ok()));
            if roles && crate::node::sessions::check_given(properties).is_ok() {
                return verdict;
            }
            tracing::warn!("a handler of logins gives roles or properties that nobody can have, and so denies");
            Verdict::Deny
        }
        _ => verdict,
    }
}
