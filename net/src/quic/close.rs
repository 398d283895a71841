//! Why connections end, in numbers that go over the wire and words that go to people.

use std::fmt;

use quinn::{ConnectionError, VarInt};

/// The application error code with which a side closes a connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum CloseCode {
    /// Nothing is wrong: the node stops, or needs this link no more.
    Done,
    /// The peer sent what the protocol does not allow.
    Protocol,
    /// The peer sent a frame above [`FRAME_MAX`](super::lanes::FRAME_MAX).
    FrameTooLarge,
    /// The peer opened more than [`LANES_MAX`](super::lanes::LANES_MAX) lanes.
    TooManyLanes,
    /// A mesh link needs a node certificate and the peer showed none.
    NoCertificate,
    /// The peer is revoked.
    Revoked,
    /// The two nodes have a better link already.
    Superseded,
    /// The request (a join, a client's login) was refused; the reason says why.
    Refused,
    /// More is under way than this node can hold.
    Overloaded,
    /// The peer was told to stay away (an operator blocked the link).
    Blocked,
}

impl CloseCode {
    const ALL: [CloseCode; 10] = [
        CloseCode::Done,
        CloseCode::Protocol,
        CloseCode::FrameTooLarge,
        CloseCode::TooManyLanes,
        CloseCode::NoCertificate,
        CloseCode::Revoked,
        CloseCode::Superseded,
        CloseCode::Refused,
        CloseCode::Overloaded,
        CloseCode::Blocked,
    ];

    /// The number on the wire. Never reused for another meaning.
    pub fn number(self) -> u32 {
        match self {
            CloseCode::Done => 0,
            CloseCode::Protocol => 1,
            CloseCode::FrameTooLarge => 2,
            CloseCode::TooManyLanes => 3,
            CloseCode::NoCertificate => 4,
            CloseCode::Revoked => 5,
            CloseCode::Superseded => 6,
            CloseCode::Refused => 7,
            CloseCode::Overloaded => 8,
            CloseCode::Blocked => 9,
        }
    }

    /// The inverse; `None` for a code of a later version.
    pub fn from_number(number: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|code| u64::from(code.number()) == number)
    }
}

impl From<CloseCode> for VarInt {
    fn from(code: CloseCode) -> Self {
        VarInt::from_u32(code.number())
    }
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Closed {
    /// This side closed it.
    Here {
        /// Why.
        code: CloseCode,
        /// In words.
        reason: String,
    },
    /// The peer closed it.
    Peer {
        /// Why; `None` for a code that this version does not know.
        code: Option<CloseCode>,
        /// In the peer's words.
        reason: String,
    },
    /// Nothing was heard from the peer for the idle timeout.
    TimedOut,
    /// The peer has forgotten the connection: it was restarted.
    Reset,
    /// The transport gave up; the text says why.
    Transport(String),
}

impl Closed {
    /// Reads quinn's account; `here` is what this side said if it was the one to close.
    pub(super) fn from_error(error: &ConnectionError, here: Option<&(CloseCode, String)>) -> Self {
        match error {
            ConnectionError::LocallyClosed => {
                let (code, reason) = here.cloned().unwrap_or((CloseCode::Done, String::new()));
                Closed::Here { code, reason }
            }
            ConnectionError::ApplicationClosed(close) => {
                Closed::Peer { code: CloseCode::from_number(close.error_code.into_inner()), reason: readable(&close.reason) }
            }
            ConnectionError::ConnectionClosed(close) if !close.reason.is_empty() => Closed::transport(&close.reason),
            ConnectionError::ConnectionClosed(close) => Closed::Transport(close.error_code.to_string()),
            ConnectionError::TransportError(error) if !error.reason.is_empty() => Closed::transport(error.reason.as_bytes()),
            ConnectionError::TimedOut => Closed::TimedOut,
            ConnectionError::Reset => Closed::Reset,
            other => Closed::Transport(other.to_string()),
        }
    }
}

impl Closed {
    /// What our own checks say in a handshake goes through rustls, which puts two words in front.
    fn transport(reason: &[u8]) -> Self {
        let reason = readable(reason);
        Closed::Transport(reason.strip_prefix("unexpected error: ").map(str::to_string).unwrap_or(reason))
    }
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Closed::Here { code, reason } if reason.is_empty() => write!(f, "closed by this node ({code:?})"),
            Closed::Here { reason, .. } => write!(f, "closed by this node: {reason}"),
            Closed::Peer { code: Some(code), reason } if reason.is_empty() => write!(f, "closed by the peer ({code:?})"),
            Closed::Peer { code: None, reason } if reason.is_empty() => f.write_str("closed by the peer"),
            Closed::Peer { reason, .. } => write!(f, "closed by the peer: {reason}"),
            Closed::TimedOut => f.write_str("nothing heard from the peer for too long"),
            Closed::Reset => f.write_str("the peer has been restarted"),
            Closed::Transport(reason) => f.write_str(reason),
        }
    }
}

/// A peer's words, safe to print: whatever is no text or would move the terminal's cursor is replaced.
pub(super) fn readable(reason: &[u8]) -> String {
    String::from_utf8_lossy(reason).chars().map(|c| if c.is_control() { ' ' } else { c }).take(512).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_survive_the_wire() {
        for code in CloseCode::ALL {
            assert_eq!(CloseCode::from_number(code.number().into()), Some(code));
        }
        assert_eq!(CloseCode::from_number(1 << 40), None);
    }

    #[test]
    fn a_peers_words_cannot_move_the_cursor() {
        assert_eq!(readable(b"bad\x1b[2J\xff"), "bad [2J\u{fffd}");
    }
}
