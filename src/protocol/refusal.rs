//! Refusals: what was refused, why, and who stands in the way.

use std::fmt;

use minicbor::{Decode, Decoder, Encode, Encoder};
use serde::{Serialize, Serializer};

use super::bounded;

/// One item of a list that was refused.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct ItemRefusal {
    /// Its place in the request, from 0.
    #[n(0)]
    pub item: u32,
    /// Why.
    #[n(1)]
    pub refusal: Refusal,
}

/// Why something was not done, and who or what stands in the way.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize, thiserror::Error)]
#[error("{what}: {why}")]
pub struct Refusal {
    /// What programs decide by.
    #[n(0)]
    pub code: Code,
    /// What was refused: a path, a node, a request.
    #[n(1)]
    pub what: String,
    /// Why, as the end of a sentence.
    #[n(2)]
    pub why: String,
    /// What to do about it; empty if nothing can be said.
    #[n(3)]
    pub hint: String,
    /// Who stands in the way, or can help: node names, holders, paths.
    #[cbor(n(4), decode_with = "bounded::list")]
    pub who: Vec<String>,
}

impl Refusal {
    /// A refusal without a hint and with nobody in the way.
    pub fn new(code: Code, what: impl Into<String>, why: impl Into<String>) -> Self {
        Refusal { code, what: what.into(), why: why.into(), hint: String::new(), who: Vec::new() }
    }

    /// The same with a hint.
    #[must_use]
    pub fn hint(self, hint: impl Into<String>) -> Self {
        Refusal { hint: hint.into(), ..self }
    }

    /// The same with those who stand in the way, or can help.
    #[must_use]
    pub fn who(self, who: impl IntoIterator<Item = String>) -> Self {
        Refusal { who: who.into_iter().collect(), ..self }
    }
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal $text:literal,)*) => {
        /// The kind of a refusal. Numbers and texts are stable.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code {
            $($(#[$doc])* $name,)*
            /// A kind that this program doesn't know; the refusal's texts explain it.
            Other,
        }

        impl Code {
            /// All kinds that this program knows.
            pub const ALL: &[Code] = &[$(Code::$name),*];

            /// The stable name.
            pub fn as_str(self) -> &'static str {
                match self { $(Code::$name => $text,)* Code::Other => "other" }
            }

            fn number(self) -> u16 {
                match self { $(Code::$name => $number,)* Code::Other => u16::MAX }
            }

            fn of_number(number: u16) -> Code {
                match number { $($number => Code::$name,)* _ => Code::Other }
            }
        }
    };
}

codes! {
    /// A topic is there with another definition.
    ExistsMismatch = 1 "exists-mismatch",
    /// There is no topic at the path.
    NoSuchTopic = 2 "no-such-topic",
    /// An update source holds the branch.
    Exclusive = 3 "exclusive",
    /// This node doesn't hold the section; `who` are nodes that do.
    NotHeld = 4 "not-held",
    /// Not a path.
    InvalidPath = 5 "invalid-path",
    /// Not a selector.
    InvalidSelector = 6 "invalid-selector",
    /// Not a value of the topic's type.
    InvalidValue = 7 "invalid-value",
    /// Not a definition: an unknown type or property.
    InvalidDefinition = 8 "invalid-definition",
    /// Something else in the request makes no sense.
    InvalidRequest = 9 "invalid-request",
    /// The session may not do this.
    NotPermitted = 10 "not-permitted",
    /// It proves nothing: the node does not know the token, or not that principal with that password.
    BadCredential = 11 "bad-credential",
    /// The disk or a configured limit is full.
    Full = 12 "full",
    /// The disk cannot be written.
    ReadOnly = 13 "read-only",
    /// Longer than a limit.
    TooLarge = 14 "too-large",
    /// There is no such section.
    UnknownSection = 15 "unknown-section",
    /// There is such a section.
    SectionExists = 16 "section-exists",
    /// Nobody else is known to hold the section.
    LastHolder = 17 "last-holder",
    /// There is no such node.
    UnknownNode = 18 "unknown-node",
    /// More than one node could be meant; `who` are they.
    AmbiguousNode = 19 "ambiguous-node",
    /// This node's certificate lacks the role `authority`.
    NotAuthority = 20 "not-authority",
    /// There is no such displaced value.
    UnknownDisplaced = 21 "unknown-displaced",
    /// The nodes are not equal.
    NotConverged = 22 "not-converged",
    /// The node cannot do this yet, or not now.
    NotReady = 23 "not-ready",
    /// The node doesn't know this request or version.
    Unsupported = 24 "unsupported",
    /// The session asks for more than its share: aliases, subscriptions.
    TooMany = 25 "too-many",
    /// The node ends.
    Closing = 26 "closing",
    /// This node has changes that no other node has.
    Unspread = 27 "unspread",
    /// A wait took too long; what was asked may still happen.
    TimedOut = 28 "timed-out",
    /// A fault in the node; its log says more.
    Internal = 29 "internal",
    /// There is no such subscription.
    UnknownSubscription = 30 "unknown-subscription",
    /// What the section's policy fixes for ever cannot be changed.
    Fixed = 31 "fixed",
    /// The section takes writes only from an active update source.
    QuorumOnly = 32 "quorum-only",
    /// A branch above or below it is claimed.
    Overlaps = 33 "overlaps",
    /// The session has claimed this branch already.
    AlreadyClaimed = 34 "already-claimed",
    /// The epoch under which it was sent has ended; `who` is the holder now.
    Fenced = 35 "fenced",
    /// There is no such source in this session, or none at the branch.
    UnknownSource = 36 "unknown-source",
    /// There is no such session here, or the secret is another's.
    UnknownSession = 37 "unknown-session",
    /// No majority of the section's voters answers, so that a lease has run out; `who` are those that are missing.
    NoMajority = 38 "no-majority",
    /// The session was taken up on another connection, here or at another node.
    SessionMoved = 39 "session-moved",
    /// The session has ended for good.
    SessionEnded = 40 "session-ended",
    /// There is no such principal.
    UnknownPrincipal = 41 "unknown-principal",
    /// Somebody who may has ended the subscription.
    Deselected = 42 "deselected",
    /// It was asked for again after its node was lost, and refused; the lost node may have done it before.
    Doubtful = 43 "doubtful",
    /// Too many wrong passwords or tokens have come from the same address.
    Throttled = 44 "throttled",
    /// What must be so for it to be done is not so.
    ConstraintUnmet = 45 "constraint-unmet",
    /// The patch cannot be applied to the value that is there.
    PatchFailed = 46 "patch-failed",
    /// The topic is of a type that this node's version does not know: it carries the topic, and takes no values for it.
    UnknownType = 47 "unknown-type",
    /// The session is at another node; `who` is that.
    SessionElsewhere = 48 "session-elsewhere",
    /// A blob that a definition names is not here: it may be on its way, or has to be sent first.
    BlobMissing = 49 "blob-missing",
    /// There is no such event, or none any more.
    NoSuchEvent = 50 "no-such-event",
    /// More than one event has this sequence; `who` are their names.
    AmbiguousEvent = 51 "ambiguous-event",
    /// The list has no such line.
    NoSuchLine = 52 "no-such-line",
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<C> Encode<C> for Code {
    fn encode<W: minicbor::encode::Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.u16(self.number())?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Code {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        Ok(Code::of_number(d.u16()?))
    }
}
