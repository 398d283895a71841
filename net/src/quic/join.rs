//! Getting certificates over the wire: with a ticket the first time, with the old certificate to renew it.
//!
//! One connection, one bidirectional stream, one question, one answer. The asking side proves that it holds the keys it wants certified by
//! signing a value that only the two ends of *this* TLS session can know, so a recorded or relayed question is worth nothing.

use std::{fmt, net::SocketAddr, time::Duration};

use mangrove_crdt::id::NodeId;
use minicbor::{Decode, Encode};
use quinn::{Connection, SendStream};

use super::{
    authority::{Applicant, Certificates, Identity, IdentityError},
    close::{CloseCode, Closed, readable},
    congestion,
    endpoint::{ClientEndpoint, ConnectError, Endpoint, resolve},
    key::{KeyError, PublicKey, SecretKey},
    ticket::{Secret, Ticket, TicketId},
};

/// The largest question: two keys, two signatures, a name.
const QUESTION_BYTES_MAX: usize = 4 * 1024;
/// The largest answer: two chains.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// The longest name a node may give itself, bytes.
pub const NAME_BYTES_MAX: usize = 128;
/// How long the joining side waits for the answer: the issuing node writes its ticket book to disk first.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// Why there are no certificates.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// No address of the ticket led to the mesh; this is the last one's error.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The other node said no, in its words.
    #[error("{0}")]
    Refused(String),
    /// The connection ended, or the answer made no sense. A ticket may be used again by the same applicant.
    #[error("no answer: {0}")]
    NoAnswer(String),
    /// The answer does not fit. Nothing was kept of it.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

impl From<KeyError> for JoinError {
    fn from(error: KeyError) -> Self {
        JoinError::Identity(error.into())
    }
}

#[derive(Encode, Decode)]
struct Question {
    /// A renewal has none: the certificate of the TLS session stands for it.
    #[n(0)]
    ticket: Option<Presented>,
    #[n(1)]
    name: String,
    #[n(2)]
    node: Proof,
    #[n(3)]
    authority: Option<Proof>,
}

#[derive(Encode, Decode)]
struct Presented {
    #[n(0)]
    id: TicketId,
    #[n(1)]
    secret: Secret,
}

#[derive(Encode, Decode)]
struct Proof {
    #[n(0)]
    key: PublicKey,
    #[cbor(n(1), with = "minicbor::bytes")]
    signature: [u8; 64],
}

#[derive(Encode, Decode)]
enum Answer {
    #[n(0)]
    Granted(#[n(0)] Certificates),
    #[n(1)]
    Refused(#[n(0)] String),
}

/// What both ends of one TLS session derive and sign.
struct Challenge([u8; 32]);

impl Challenge {
    fn of(connection: &Connection) -> Option<Self> {
        let mut bytes = [0; 32];
        connection.export_keying_material(&mut bytes, b"EXPORTER-mangrove-join-1", b"").ok()?;
        Some(Challenge(bytes))
    }

    /// The role of the key is signed too, so that one proof cannot stand for the other.
    fn message(&self, role: &[u8]) -> Vec<u8> {
        [b"mangrove-join/1 ".as_slice(), role, b" ", &self.0].concat()
    }

    fn prove(&self, key: &SecretKey, role: &[u8]) -> Result<Proof, KeyError> {
        Ok(Proof { key: key.public()?, signature: key.sign(&self.message(role))? })
    }

    fn holds(&self, proof: &Proof, role: &[u8]) -> bool {
        proof.key.verifies(&self.message(role), &proof.signature)
    }
}

const NODE: &[u8] = b"node";
const AUTHORITY: &[u8] = b"authority";

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Admission by ticket. The receiver redeems it, stores the book, and only then grants.
    Ticket {
        /// Which.
        id: TicketId,
        /// Its proof.
        secret: Secret,
    },
    /// A new certificate for a node that showed a valid one of this mesh.
    Renewal {
        /// Which node: the one that the TLS session is with.
        node: NodeId,
    },
}

/// A question from a node that wants certificates, with its keys' proofs already checked. Answer with [`JoinRequest::grant`] or
/// [`JoinRequest::refuse`]; dropped, it ends without an answer.
pub struct JoinRequest {
    /// What it rests on.
    pub ask: Ask,
    /// What the node calls itself; at most [`NAME_BYTES_MAX`] bytes, and without control characters.
    pub name: String,
    /// The node key to certify.
    pub node_key: PublicKey,
    /// The authority key to certify, if the node wants to be one.
    pub authority_key: Option<PublicKey>,
    /// Where the question came from.
    pub remote: SocketAddr,
    connection: Connection,
    answer: SendStream,
}

impl JoinRequest {
    /// Reads and checks the question of an accepted connection. `certified` is the node whose certificate it showed, if any.
    pub(super) async fn read(connection: Connection, certified: Option<NodeId>) -> Result<Self, Closed> {
        let question = async {
            let (answer, mut stream) = connection.accept_bi().await.map_err(|error| Closed::from_error(&error, None))?;
            let bytes = stream.read_to_end(QUESTION_BYTES_MAX).await.map_err(|error| Closed::Transport(error.to_string()))?;
            Ok((answer, bytes))
        };
        let (mut answer, bytes) = question.await?;
        match Self::check(&connection, certified, &bytes) {
            Ok((ask, question)) => Ok(JoinRequest {
                ask,
                name: readable(question.name.as_bytes()),
                node_key: question.node.key,
                authority_key: question.authority.map(|proof| proof.key),
                remote: connection.remote_address(),
                connection,
                answer,
            }),
            Err(reason) => {
                send(&connection, &mut answer, &Answer::Refused(reason.into()), CloseCode::Refused).await;
                Err(Closed::Here { code: CloseCode::Refused, reason: reason.into() })
            }
        }
    }

    fn check(connection: &Connection, certified: Option<NodeId>, bytes: &[u8]) -> Result<(Ask, Question), &'static str> {
        let mut question: Question = minicbor::decode(bytes).map_err(|_| "the question cannot be read")?;
        let challenge = Challenge::of(connection).ok_or("the session has no key to prove by")?;
        if question.name.len() > NAME_BYTES_MAX {
            return Err("the node's name is too long");
        }
        let proved =
            challenge.holds(&question.node, NODE) && question.authority.as_ref().is_none_or(|proof| challenge.holds(proof, AUTHORITY));
        if !proved {
            return Err("the proof of a key does not hold");
        }
        let ask = match (question.ticket.take(), certified) {
            (Some(Presented { id, secret }), _) => Ask::Ticket { id, secret },
            (None, Some(node)) if node == question.node.key.node() => Ask::Renewal { node },
            (None, Some(_)) => return Err("a certificate can only be renewed for the key it was made for"),
            (None, None) => return Err("neither a ticket nor a certificate was shown"),
        };
        Ok((ask, question))
    }

    /// Hands the certificates over. True if the asking side is known to have received them; if not, it can ask again.
    pub async fn grant(mut self, certificates: Certificates) -> bool {
        send(&self.connection, &mut self.answer, &Answer::Granted(certificates), CloseCode::Done).await
    }

    /// Says no, and why.
    pub async fn refuse(mut self, reason: &str) {
        send(&self.connection, &mut self.answer, &Answer::Refused(reason.to_string()), CloseCode::Refused).await;
    }
}

impl fmt::Debug for JoinRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinRequest")
            .field("ask", &self.ask)
            .field("name", &self.name)
            .field("node", &self.node_key)
            .finish_non_exhaustive()
    }
}

/// Sends the answer and waits until it has arrived, or the peer is gone.
async fn send(connection: &Connection, stream: &mut SendStream, answer: &Answer, code: CloseCode) -> bool {
    let bytes = minicbor::to_vec(answer).expect("writing to a vector does not fail");
    let arrived = stream.write_all(&bytes).await.is_ok()
        && stream.finish().is_ok()
        && matches!(tokio::time::timeout(ANSWER_TIMEOUT, stream.stopped()).await, Ok(Ok(None)));
    congestion::close(connection, code, "");
    arrived
}

/// Redeems a ticket at the first of its addresses that answers as a node of the ticket's mesh. `name` is what the new node calls itself.
/// Store the applicant first: if no answer arrives, the same one can try again.
pub async fn join(endpoint: &ClientEndpoint, ticket: &Ticket, applicant: &Applicant, name: &str) -> Result<Identity, JoinError> {
    let mut last = JoinError::Connect(ConnectError::Address("the ticket names no address".into()));
    for address in &ticket.addresses {
        match join_at(endpoint, address, ticket, applicant, name).await {
            // Another address of the same node would say the same.
            Err(error @ (JoinError::Refused(_) | JoinError::Identity(_))) => return Err(error),
            Err(error) => last = error,
            Ok(identity) => return Ok(identity),
        }
    }
    Err(last)
}

async fn join_at(
    endpoint: &ClientEndpoint,
    address: &str,
    ticket: &Ticket,
    applicant: &Applicant,
    name: &str,
) -> Result<Identity, JoinError> {
    let mut last = ConnectError::Address(format!("{address}: no such host"));
    for address in resolve(address).await? {
        match endpoint.connect_join(address, ticket.mesh).await {
            Ok(connection) => {
                let presented = Presented { id: ticket.id, secret: ticket.secret.clone() };
                let certificates = ask(&connection, Some(presented), name, &applicant.key, applicant.authority.as_ref()).await?;
                return Ok(applicant.clone().admitted(ticket.mesh, certificates)?);
            }
            Err(error) => last = error,
        }
    }
    Err(last.into())
}

/// Asks the authority node at `address` for new certificates for this endpoint's own node. Keys stay the same. Give the result to
/// [`Endpoint::set_identity`] once it is stored.
pub async fn renew(endpoint: &Endpoint, address: SocketAddr, name: &str) -> Result<Identity, JoinError> {
    let identity = endpoint.identity();
    let connection = endpoint.connect_join(address).await?;
    let certificates = ask(&connection, None, name, identity.key(), identity.authority_key()).await?;
    Ok(identity.renewed(certificates)?)
}

async fn ask(
    connection: &Connection,
    ticket: Option<Presented>,
    name: &str,
    node: &SecretKey,
    authority: Option<&SecretKey>,
) -> Result<Certificates, JoinError> {
    let challenge = Challenge::of(connection).ok_or_else(|| JoinError::NoAnswer("the session has no key to prove by".into()))?;
    let question = Question {
        ticket,
        name: name.to_string(),
        node: challenge.prove(node, NODE)?,
        authority: authority.map(|key| challenge.prove(key, AUTHORITY)).transpose()?,
    };
    let exchange = async {
        let (mut question_out, mut answer) = connection.open_bi().await?;
        let bytes = minicbor::to_vec(&question).expect("writing to a vector does not fail");
        // A peer that refuses early closes both ways; its answer is what counts.
        let _ = question_out.write_all(&bytes).await;
        let _ = question_out.finish();
        Ok::<_, quinn::ConnectionError>(answer.read_to_end(ANSWER_BYTES_MAX).await)
    };
    let bytes = match tokio::time::timeout(ANSWER_TIMEOUT, exchange).await {
        Ok(Ok(Ok(bytes))) => bytes,
        Ok(Ok(Err(error))) => {
            let closed = connection.close_reason().map(|error| ConnectError::of_connection(&error));
            return Err(closed.map_or_else(|| JoinError::NoAnswer(error.to_string()), JoinError::Connect));
        }
        Ok(Err(error)) => return Err(ConnectError::of_connection(&error).into()),
        Err(_) => return Err(JoinError::NoAnswer(format!("none within {} s", ANSWER_TIMEOUT.as_secs()))),
    };
    match minicbor::decode(&bytes) {
        Ok(Answer::Granted(certificates)) => Ok(certificates),
        Ok(Answer::Refused(reason)) => Err(JoinError::Refused(readable(reason.as_bytes()))),
        Err(error) => Err(JoinError::NoAnswer(error.to_string())),
    }
}

/// Asks without a ticket for any key: what only a faulty peer does.
#[cfg(test)]
pub(super) async fn ask_for_test(connection: &Connection, key: &SecretKey) -> Result<Certificates, JoinError> {
    ask(connection, None, "x", key, None).await
}
