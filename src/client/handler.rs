//! What clients do for the mesh: one that serves a handler's name judges whoever wants to come in anywhere, another makes topics that somebody asks for.
//!
//! ```no_run
//! # async fn example(client: mangrove::client::Client) -> Result<(), Box<dyn std::error::Error>> {
//! use mangrove::protocol::{Login, Verdict};
//!
//! let mut door = client.serve_handler("door").await?;
//! loop {
//!     let asked = door.next().await?;
//!     let verdict = match &asked.question().login {
//!         Login::Password { principal, .. } if principal == "guest" => Verdict::allow(),
//!         _ => Verdict::Abstain,
//!     };
//!     asked.answer(verdict).await?;
//! }
//! # }
//! ```

use std::sync::Arc;

use tokio::sync::mpsc;

use super::session::Session;
use super::table::Asked;
use super::{Client, ClientError};
use crate::protocol::{MissingTopic, Question, Request, Verdict};

/// A handler of logins that this client serves, here and wherever it goes on. Dropping it ends that.
pub struct LoginHandler {
    client: Client,
    session: Arc<Session>,
    name: String,
    asked: mpsc::UnboundedReceiver<Asked>,
}

/// A login to be judged. Without an answer the node asks somebody else, or waits until the time for that is over.
#[must_use = "somebody waits to be let in"]
pub struct AskedLogin {
    client: Client,
    number: u64,
    question: Question,
}

impl AskedLogin {
    /// Who wants to come in, and what proves it.
    pub fn question(&self) -> &Question {
        &self.question
    }

    /// Says what to do.
    pub async fn answer(self, verdict: Verdict) -> Result<(), ClientError> {
        self.client.done(Request::Judged { question: self.number, verdict }).await
    }
}

impl LoginHandler {
    /// The next login to be judged. Waits for it, and may be dropped while it waits.
    pub async fn next(&mut self) -> Result<AskedLogin, ClientError> {
        match self.asked.recv().await {
            Some((number, question)) => Ok(AskedLogin { client: self.client.clone(), number, question }),
            None => Err(self.session.failure()),
        }
    }
}

impl Drop for LoginHandler {
    fn drop(&mut self) {
        self.session.with_table(|table| table.handlers.remove(&self.name));
        unregister(&self.client, Request::HandlerUnregister { name: std::mem::take(&mut self.name) });
    }
}

/// Asks for that without waiting. Without a runtime the connection ends anyway, and what the node would ask goes to others.
fn unregister(client: &Client, request: Request) {
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        let client = client.clone();
        runtime.spawn(async move {
            // Whether it was still registered makes no difference.
            let _ = client.done(request).await;
        });
    }
}

/// What clients anywhere have asked for in vain, told to this one, here and wherever it goes on. Dropping it ends that.
pub struct MissingTopics {
    client: Client,
    session: Arc<Session>,
    prefix: String,
    told: mpsc::UnboundedReceiver<MissingTopic>,
}

impl MissingTopics {
    /// What has been asked for in vain next. Waits for it, and may be dropped while it waits.
    pub async fn next(&mut self) -> Result<MissingTopic, ClientError> {
        match self.told.recv().await {
            Some(missing) => Ok(missing),
            None => Err(self.session.failure()),
        }
    }
}

impl Drop for MissingTopics {
    fn drop(&mut self) {
        self.session.with_table(|table| table.makers.remove(&self.prefix));
        unregister(&self.client, Request::MissingUnregister { prefix: std::mem::take(&mut self.prefix) });
    }
}

impl Client {
    /// Hears from now on what clients of any node ask for, at or below a path, of which there is nothing; empty for all. It may make it: whoever asks gets it when it is there. Of
    /// several paths the longest counts; of several clients one is told.
    pub async fn missing_topics(&self, prefix: &str) -> Result<MissingTopics, ClientError> {
        let session = Arc::clone(&self.session);
        let (sender, told) = mpsc::unbounded_channel();
        session.with_table(|table| table.makers.insert(prefix.to_owned(), sender));
        let topics = MissingTopics { client: self.clone(), session, prefix: prefix.to_owned(), told };
        self.done(Request::MissingRegister { prefix: prefix.to_owned() }).await?;
        Ok(topics)
    }

    /// Judges logins from now on, for all nodes whose configuration names this handler. Others may serve the same name: each login is judged by one of them.
    pub async fn serve_handler(&self, name: &str) -> Result<LoginHandler, ClientError> {
        let session = Arc::clone(&self.session);
        let (sender, asked) = mpsc::unbounded_channel();
        session.with_table(|table| table.handlers.insert(name.to_owned(), sender));
        let handler = LoginHandler { client: self.clone(), session, name: name.to_owned(), asked };
        self.done(Request::HandlerRegister { name: name.to_owned() }).await?;
        Ok(handler)
    }
}
