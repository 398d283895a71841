//! What nodes write each other, over any chain of links; what is in a letter may be lost.

use mangrove_crdt::id::NodeId;
use minicbor::{Decode, Encode};

use super::{Node, Now, logins::handlers, quorum};

/// What is in a letter.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Letter {
    /// Of owners and voters.
    #[n(0)]
    Quorum(#[n(0)] quorum::Mail),
    /// Of nodes where somebody wants to come in, and those whose clients judge that.
    #[n(1)]
    Login(#[n(0)] handlers::Mail),
}

impl Node {
    /// A letter came.
    pub(super) fn letter(&mut self, now: Now, from: NodeId, body: &[u8]) {
        match minicbor::decode(body) {
            Ok(Letter::Quorum(mail)) => self.quorums.receive(from, mail),
            Ok(Letter::Login(mail)) => self.login_mail(now, from, mail),
            Err(error) => tracing::debug!(from = %from.short(), %error, "a letter that cannot be read"),
        }
    }

    /// Writes to another node.
    pub(super) fn write_to(&mut self, to: NodeId, letter: &Letter) {
        self.mesh.send_letter(self.id(), to, minicbor::to_vec(letter).expect("encoding to memory"));
    }
}
