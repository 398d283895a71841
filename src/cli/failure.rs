//! How a command ends when it doesn't end well.

use std::fmt::Display;
use std::io;
use std::process::ExitCode;

use crate::client::{ClientError, CredentialError};
use crate::protocol::{Code, Refusal};

/// The exit codes, which scripts may rely on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    /// Whoever read the output has gone: no failure of ours, and nobody to tell.
    Done = 0,
    /// The node, the system or a check said no.
    Refused = 1,
    /// The command line or an input makes no sense.
    Usage = 2,
    /// No node answers.
    Unreachable = 3,
    /// Nodes that should be equal are not.
    NotConverged = 4,
}

/// Why a command failed, for a person.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    /// Empty if everything has been said.
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Display) -> Self {
        Failure { exit, message: message.to_string(), hint: None }
    }

    pub(crate) fn refused(message: impl Display) -> Self {
        Failure::new(Exit::Refused, message)
    }

    pub(crate) fn usage(message: impl Display) -> Self {
        Failure::new(Exit::Usage, message)
    }

    #[must_use]
    pub(crate) fn hint(self, hint: impl Display) -> Self {
        Failure { hint: Some(hint.to_string()), ..self }
    }

    /// Tells stderr, and gives the exit code.
    pub(crate) fn report(self) -> ExitCode {
        eprint!("{}", self.text());
        ExitCode::from(self.exit as u8)
    }

    fn text(&self) -> String {
        let mut text = String::new();
        if !self.message.is_empty() {
            text += &format!("error: {}\n", self.message);
        }
        if let Some(hint) = &self.hint {
            text += &format!("hint: {hint}\n");
        }
        text
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let exit = match &error {
            ClientError::Unreachable { .. } | ClientError::Lost { .. } | ClientError::TimedOut(_) => Exit::Unreachable,
            ClientError::Refused(refusal) if refusal.code == Code::NotConverged => Exit::NotConverged,
            ClientError::Refused(_) | ClientError::Protocol(_) => Exit::Refused,
        };
        let message = match &error {
            ClientError::Refused(refusal) => refusal_text(refusal),
            error => error.to_string(),
        };
        Failure { exit, message, hint: error.hint() }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        ClientError::Refused(refusal).into()
    }
}

/// A refusal in one line: what, why, who, and the code that programs go by.
pub(crate) fn refusal_text(refusal: &Refusal) -> String {
    let who = if refusal.who.is_empty() { String::new() } else { format!(" ({})", refusal.who.join(", ")) };
    format!("{refusal}{who} [{}]", refusal.code)
}

impl From<CredentialError> for Failure {
    fn from(error: CredentialError) -> Self {
        Failure::refused(&error).hint(error.hint())
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::new(Exit::Done, ""),
            _ => Failure::refused(error),
        }
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        // Only writing to stdout can fail here: what is written always has a JSON form.
        io::Error::from(error).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_their_exit_codes() {
        let exit = |error: ClientError| Failure::from(error).exit;
        let text = String::new;
        assert_eq!(exit(ClientError::Unreachable { address: text(), cause: text() }), Exit::Unreachable);
        assert_eq!(exit(ClientError::Lost { address: text(), cause: text() }), Exit::Unreachable);
        assert_eq!(exit(ClientError::Protocol(text())), Exit::Refused);
        assert_eq!(exit(Refusal::new(Code::NotConverged, "a", "b").into()), Exit::NotConverged);
        assert_eq!(exit(Refusal::new(Code::NoSuchTopic, "a", "b").into()), Exit::Refused);
        assert_eq!(Failure::from(io::Error::from(io::ErrorKind::BrokenPipe)), Failure::new(Exit::Done, ""));
    }

    #[test]
    fn a_refusal_names_who_stands_in_the_way() {
        let refusal = Refusal::new(Code::NotHeld, "a/b", "this node does not hold its section")
            .who(["JFK".to_owned(), "LGA".to_owned()])
            .hint("--node");
        assert_eq!(Failure::from(refusal).text(), "error: a/b: this node does not hold its section (JFK, LGA) [not-held]\nhint: --node\n");
        assert_eq!(Failure::new(Exit::Done, "").text(), "");
    }
}
