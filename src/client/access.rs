//! Who may do what: seeing the rules, and changing them.

use super::{Client, ClientError, Request, Response, unexpected};
use crate::protocol::{ChangeRow, ConflictRow, Login, Page, PrincipalRow, RoleRow, WhyReport};

impl Client {
    /// A page of the statements that say who may do what, where the next one starts, and, on the first page, what is in conflict. `about` is `role NAME` or
    /// `principal NAME` for only that, and empty for all.
    pub async fn access(&self, about: &str, page: Page) -> Result<(Vec<String>, Option<String>, Vec<ConflictRow>), ClientError> {
        match self.request(Request::Access { about: about.into(), page }).await? {
            Response::Access { statements, next, conflicts } => Ok((statements, next, conflicts)),
            other => Err(unexpected(&other)),
        }
    }

    /// Changes who may do what, by a script of statements, as a whole or not at all; with `dry_run` only says what would change. The statements are those of
    /// [`mangrove_crdt::access::fact`].
    pub async fn run_access_script(&self, script: &str, dry_run: bool) -> Result<Vec<ChangeRow>, ClientError> {
        match self.request(Request::AccessScript { script: script.into(), dry_run }).await? {
            Response::AccessChanged(changes) => Ok(changes),
            other => Err(unexpected(&other)),
        }
    }

    /// What a principal, `$anonymous`, or a session may do at a path, and why.
    pub async fn access_why(&self, who: &str, path: &str) -> Result<WhyReport, ClientError> {
        match self.request(Request::AccessWhy { who: who.into(), path: path.into() }).await? {
            Response::AccessWhy(report) => Ok(*report),
            other => Err(unexpected(&other)),
        }
    }

    /// A page of the principals of the mesh's store, and where the next one starts.
    pub async fn principals(&self, page: Page) -> Result<(Vec<PrincipalRow>, Option<String>), ClientError> {
        match self.request(Request::Principals { page }).await? {
            Response::Principals { rows, next } => Ok((rows, next)),
            other => Err(unexpected(&other)),
        }
    }

    /// The roles of which anything is said.
    pub async fn roles(&self) -> Result<Vec<RoleRow>, ClientError> {
        match self.request(Request::Roles).await? {
            Response::Roles(rows) => Ok(rows),
            other => Err(unexpected(&other)),
        }
    }

    /// Gives sessions, as [`Client::set_session`] names them, other roles than those that they came with; `None` for those that they came with. How many these were.
    pub async fn set_session_roles(&self, session: &str, roles: Option<Vec<String>>) -> Result<u64, ClientError> {
        self.affected(Request::SessionRoles { session: session.into(), roles }).await
    }

    /// Proves anew who this client is, so that its session does not expire.
    pub async fn reauthenticate(&self, login: Login) -> Result<(), ClientError> {
        self.done(Request::Reauthenticate(login)).await
    }
}
