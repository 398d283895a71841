//! Tickets: how a node that the mesh does not know yet gets in.
//!
//! ```text
//!   authority node                                   new node
//!   TicketBook::issue ──▶ "mangrove1…"  ── by any road ──▶  Ticket::from_str
//!        │ persisted                                        │ dials an address, checks that the server's
//!        ▼                                                  ▼ certificate leads to the ticket's mesh
//!   TicketBook::redeem ◀── id, secret, keys with proofs ── join
//!        └── certificates ──▶ Applicant::admitted ──▶ Identity
//! ```
//!
//! A ticket is short-lived and good for one node: the book keeps only the hash of its secret, and remembers who used it. That same
//! node may use it again until it expires, since the answer to a join can get lost.

use std::{collections::BTreeMap, fmt, str::FromStr};

use data_encoding::{Encoding, Specification};
use mangrove_crdt::id::{MeshId, NodeId};
use minicbor::{Decode, Encode};

/// In front of every ticket's text; the digit is the version of what follows.
const PREFIX: &str = "mangrove1";

/// The longest text that is read as a ticket: room for [`ADDRESSES_MAX`] long host names.
const TEXT_BYTES_MAX: usize = 8 * 1024;

/// How many addresses a ticket names.
pub const ADDRESSES_MAX: usize = 16;

/// How many tickets may be open at once.
pub const TICKETS_MAX: usize = 1024;

/// A used or expired ticket is remembered this long, so that its holder hears what became of it rather than "unknown".
const REMEMBERED_SECONDS: u64 = 7 * 24 * 3600;

const CHECKSUM_BYTES: usize = 4;

/// What the holder of a ticket becomes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Encode, Decode)]
#[cbor(index_only)]
pub enum Role {
    /// A node of the mesh.
    #[n(0)]
    Member,
    /// A node that may also invite, renew and revoke.
    #[n(1)]
    Authority,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Role::Member => "member",
            Role::Authority => "authority",
        })
    }
}

/// Names a ticket in its book; no secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct TicketId(#[n(0)] pub u64);

impl fmt::Display for TicketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for TicketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TicketId({self})")
    }
}

/// What proves a ticket. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct Secret(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 16]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// An invitation. Its text form (`Display`, `FromStr`) is one word that survives chats and terminals, with a checksum.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Ticket {
    /// The mesh; since this is the hash of the root authority's key, the new node knows its mesh from an impostor by it.
    #[n(0)]
    pub mesh: MeshId,
    /// Where the issuing node listens, as `host:port`.
    #[n(1)]
    pub addresses: Vec<String>,
    /// What the holder becomes.
    #[n(2)]
    pub role: Role,
    /// Which ticket of the issuing node this is.
    #[n(3)]
    pub id: TicketId,
    /// Proves it.
    #[n(4)]
    pub secret: Secret,
    /// Until when it can be redeemed, in seconds since 1970 by the issuing node's clock.
    #[n(5)]
    pub expires: u64,
}

/// What is wrong with a ticket's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TicketParseError {
    /// It does not begin as tickets do.
    #[error("a ticket begins with \"{PREFIX}\"")]
    NotATicket,
    /// It was cut, or it is far too long.
    #[error("the ticket is incomplete or too long: copy all of it, as one word")]
    Length,
    /// A character that no ticket contains, at this position counted from 1.
    #[error("character {0} of the ticket cannot be part of one: it holds only the letters a to z and the digits 2 to 7")]
    Character(usize),
    /// Every character is possible, but they do not belong together.
    #[error("the ticket has a typing error somewhere: its checksum does not fit")]
    Checksum,
    /// The checksum fits, but this version does not understand the contents.
    #[error("the ticket was made by a version of Mangrove that this one does not understand")]
    Contents,
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = minicbor::to_vec(self).expect("writing to a vector does not fail");
        bytes.extend_from_slice(&checksum(&bytes));
        write!(f, "{PREFIX}{}", base32().encode(&bytes))
    }
}

impl FromStr for Ticket {
    type Err = TicketParseError;

    fn from_str(text: &str) -> Result<Self, TicketParseError> {
        let text = text.trim();
        let body = match text.get(..PREFIX.len()) {
            Some(prefix) if prefix.eq_ignore_ascii_case(PREFIX) => &text[PREFIX.len()..],
            _ => return Err(TicketParseError::NotATicket),
        };
        if text.len() > TEXT_BYTES_MAX {
            return Err(TicketParseError::Length);
        }
        let bytes = base32().decode(body.as_bytes()).map_err(|error| match error.kind {
            // Left-over bits happen when the last character is another one than was written.
            data_encoding::DecodeKind::Trailing => TicketParseError::Checksum,
            data_encoding::DecodeKind::Symbol => TicketParseError::Character(PREFIX.len() + error.position + 1),
            _ => TicketParseError::Length,
        })?;
        let (contents, found) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(TicketParseError::Length)?;
        if checksum(contents) != *found {
            return Err(TicketParseError::Checksum);
        }
        let ticket: Ticket = minicbor::decode(contents).map_err(|_| TicketParseError::Contents)?;
        match ticket.addresses.len() {
            1..=ADDRESSES_MAX => Ok(ticket),
            _ => Err(TicketParseError::Contents),
        }
    }
}

/// Base 32 of RFC 4648, small letters, no padding; capitals are read too, for texts that went through a form.
fn base32() -> Encoding {
    let mut specification = Specification::new();
    specification.symbols.push_str("abcdefghijklmnopqrstuvwxyz234567");
    specification.translate.from.push_str("ABCDEFGHIJKLMNOPQRSTUVWXYZ");
    specification.translate.to.push_str("abcdefghijklmnopqrstuvwxyz");
    specification.encoding().expect("the alphabet is constant and valid")
}

fn checksum(contents: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let hash = blake3::derive_key("mangrove ticket checksum 1", contents);
    [hash[0], hash[1], hash[2], hash[3]]
}

/// Why a ticket was not issued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    /// [`TICKETS_MAX`] are open.
    #[error("{TICKETS_MAX} tickets are open already; wait until some expire")]
    TooMany,
    /// None, more than [`ADDRESSES_MAX`], or too long.
    #[error("a ticket needs 1 to {ADDRESSES_MAX} addresses of this node, each at most 255 bytes")]
    Addresses,
}

/// Why a ticket was not redeemed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// Its time is over.
    #[error("the ticket has expired; ask for a new one")]
    Expired,
    /// Another node used it.
    #[error("the ticket has already been used by another node; ask for a new one")]
    Used,
    /// This node did not issue it, or long ago.
    #[error("this node knows no such ticket: it is redeemed at the node that issued it")]
    Unknown,
    /// The secret is not the ticket's.
    #[error("the ticket's secret is wrong")]
    WrongSecret,
}

/// The tickets that a node has issued: pure data, which the node persists after every change and before it answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct TicketBook {
    #[n(0)]
    tickets: BTreeMap<TicketId, Stub>,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
struct Stub {
    #[cbor(n(0), with = "minicbor::bytes")]
    secret_hash: [u8; 32],
    #[n(1)]
    role: Role,
    #[n(2)]
    expires: u64,
    #[n(3)]
    used_by: Option<NodeId>,
}

impl TicketBook {
    /// Makes a ticket that can be redeemed for `lifetime_seconds` from `now` (seconds since 1970). `random` must come from a
    /// cryptographic source: 8 bytes name the ticket, 16 are its secret.
    pub fn issue(
        &mut self,
        now: u64,
        lifetime_seconds: u64,
        mesh: MeshId,
        role: Role,
        addresses: Vec<String>,
        random: [u8; 24],
    ) -> Result<Ticket, IssueError> {
        self.forget(now);
        if self.tickets.values().filter(|stub| stub.is_open(now)).count() >= TICKETS_MAX {
            return Err(IssueError::TooMany);
        }
        if !(1..=ADDRESSES_MAX).contains(&addresses.len()) || addresses.iter().any(|address| address.len() > 255) {
            return Err(IssueError::Addresses);
        }
        let (id, secret) = random.split_at(8);
        let id = TicketId(u64::from_be_bytes(id.try_into().expect("split at eight")));
        let secret: [u8; 16] = secret.try_into().expect("24 less 8");
        let expires = now.saturating_add(lifetime_seconds);
        let secret_hash = *blake3::hash(&secret).as_bytes();
        self.tickets.insert(id, Stub { secret_hash, role, expires, used_by: None });
        Ok(Ticket { mesh, addresses, role, id, secret: Secret(secret), expires })
    }

    /// Uses up a ticket for `node`, and says what the node becomes. Refused attempts change nothing.
    pub fn redeem(&mut self, now: u64, id: TicketId, secret: &Secret, node: NodeId) -> Result<Role, TicketError> {
        let stub = self.tickets.get_mut(&id).ok_or(TicketError::Unknown)?;
        // blake3 compares in constant time. The secret comes first: who lacks it learns nothing about the ticket.
        if blake3::hash(&secret.0) != blake3::Hash::from_bytes(stub.secret_hash) {
            return Err(TicketError::WrongSecret);
        }
        if stub.used_by.is_some_and(|user| user != node) {
            return Err(TicketError::Used);
        }
        if now >= stub.expires {
            return Err(TicketError::Expired);
        }
        stub.used_by = Some(node);
        Ok(stub.role)
    }

    /// Tickets that can still be redeemed by anybody: id, role, expiry in seconds since 1970.
    pub fn open(&self, now: u64) -> impl Iterator<Item = (TicketId, Role, u64)> + '_ {
        self.tickets.iter().filter(move |(_, stub)| stub.is_open(now)).map(|(id, stub)| (*id, stub.role, stub.expires))
    }

    /// Withdraws a ticket; whether there was one.
    pub fn cancel(&mut self, id: TicketId) -> bool {
        self.tickets.remove(&id).is_some()
    }

    fn forget(&mut self, now: u64) {
        self.tickets.retain(|_, stub| now < stub.expires.saturating_add(REMEMBERED_SECONDS));
    }
}

impl Stub {
    fn is_open(&self, now: u64) -> bool {
        self.used_by.is_none() && now < self.expires
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000;

    fn node(name: u8) -> NodeId {
        NodeId([name; 32])
    }

    fn issue(book: &mut TicketBook, name: u8) -> Ticket {
        let addresses = vec!["198.51.100.7:4747".into(), "[2001:db8::7]:4747".into()];
        book.issue(NOW, 600, MeshId([9; 32]), Role::Authority, addresses, [name; 24]).unwrap()
    }

    #[test]
    fn a_ticket_survives_its_text() {
        let ticket = issue(&mut TicketBook::default(), 1);
        let text = ticket.to_string();
        assert!(text.starts_with("mangrove1"));
        assert!(text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()), "{text}");
        assert_eq!(text.parse(), Ok(ticket.clone()));
        assert_eq!(format!("  {}\n", text.to_uppercase()).parse(), Ok(ticket));
    }

    #[test]
    fn every_single_wrong_character_is_found() {
        let text = issue(&mut TicketBook::default(), 1).to_string();
        for position in 0..text.len() {
            for other in ["a", "z", "7"] {
                let mut wrong = text.clone();
                wrong.replace_range(position..position + 1, other);
                if wrong != text {
                    assert!(wrong.parse::<Ticket>().is_err(), "{position} {other}");
                }
            }
        }
    }

    #[test]
    fn errors_say_what_is_wrong() {
        let text = issue(&mut TicketBook::default(), 1).to_string();
        assert_eq!("mango1abc".parse::<Ticket>(), Err(TicketParseError::NotATicket));
        assert_eq!("".parse::<Ticket>(), Err(TicketParseError::NotATicket));
        assert_eq!("mangrøve1".parse::<Ticket>(), Err(TicketParseError::NotATicket));
        assert_eq!("mangrove1".parse::<Ticket>(), Err(TicketParseError::Length));
        assert_eq!(format!("{}!{}", &text[..20], &text[21..]).parse::<Ticket>(), Err(TicketParseError::Character(21)));
        assert_eq!(format!("mangrove1{}", "a".repeat(10_000)).parse::<Ticket>(), Err(TicketParseError::Length));
        let cut = &text[..text.len() - 8];
        assert_eq!(cut.parse::<Ticket>(), Err(TicketParseError::Checksum));
        let mut swapped: Vec<char> = text.chars().collect();
        let at = (20..60).find(|at| swapped[*at] != swapped[at + 1]).unwrap();
        swapped.swap(at, at + 1);
        assert_eq!(swapped.into_iter().collect::<String>().parse::<Ticket>(), Err(TicketParseError::Checksum));
    }

    #[test]
    fn a_ticket_is_good_for_one_node_until_it_expires() {
        let mut book = TicketBook::default();
        let ticket = issue(&mut book, 1);
        let wrong = Secret([0; 16]);
        assert_eq!(book.redeem(NOW, TicketId(5), &ticket.secret, node(1)), Err(TicketError::Unknown));
        assert_eq!(book.redeem(NOW, ticket.id, &wrong, node(1)), Err(TicketError::WrongSecret));
        assert_eq!(book.redeem(NOW + 1, ticket.id, &ticket.secret, node(1)), Ok(Role::Authority));
        assert_eq!(book.redeem(NOW + 2, ticket.id, &ticket.secret, node(1)), Ok(Role::Authority), "the answer got lost");
        assert_eq!(book.redeem(NOW + 3, ticket.id, &ticket.secret, node(2)), Err(TicketError::Used));
        assert_eq!(book.redeem(NOW + 600, ticket.id, &ticket.secret, node(1)), Err(TicketError::Expired));
        assert_eq!(book.open(NOW).count(), 0);
        let stored = minicbor::to_vec(&book).unwrap();
        assert_eq!(minicbor::decode::<TicketBook>(&stored).unwrap(), book);
    }

    #[test]
    fn the_book_is_bounded_and_forgets() {
        let mut book = TicketBook::default();
        for number in 0..TICKETS_MAX {
            let mut random = [7; 24];
            random[..8].copy_from_slice(&(number as u64).to_be_bytes());
            book.issue(NOW, 600, MeshId([9; 32]), Role::Member, vec!["a:1".into()], random).unwrap();
        }
        let mut again = |now| book.issue(now, 600, MeshId([9; 32]), Role::Member, vec!["a:1".into()], [8; 24]);
        assert_eq!(again(NOW), Err(IssueError::TooMany));
        assert!(again(NOW + 600).is_ok());
        assert!(again(NOW + 600 + REMEMBERED_SECONDS).is_ok());
        assert_eq!(book.tickets.len(), 1);
        assert_eq!(book.issue(NOW, 1, MeshId([9; 32]), Role::Member, vec![], [8; 24]), Err(IssueError::Addresses));
    }
}
