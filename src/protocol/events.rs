//! Events of time series: asking for them, and what is said of one.

use mangrove_crdt::series::EventName;
use minicbor::{Decode, Decoder, Encode, Encoder};
use serde::{Serialize, Serializer};

/// Which events of a topic are wanted. What it leaves out bounds nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub struct EventsWanted {
    /// From this sequence on.
    #[n(0)]
    pub from: Option<u64>,
    /// Up to this sequence.
    #[n(1)]
    pub to: Option<u64>,
    /// Appended no earlier than this, in milliseconds since 1970 by their authors' nodes' clocks.
    #[n(2)]
    pub since_unix_ms: Option<u64>,
    /// Appended no later than this.
    #[n(3)]
    pub until_unix_ms: Option<u64>,
    /// Only so many of these, the newest.
    #[n(4)]
    pub last: Option<u64>,
}

/// What is said of an event beside its value.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct EventMark {
    /// What to edit it by.
    #[cbor(n(0), with = "names")]
    #[serde(serialize_with = "as_text")]
    pub event: EventName,
    /// Who has appended it: a principal, `anonymous`, or the node's operator.
    #[n(1)]
    pub author: String,
    /// When, in milliseconds since 1970 by the clock of that one's node; for people only.
    #[n(2)]
    pub unix_ms: u64,
    /// Who has edited it last, and when, if anybody has.
    #[n(3)]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub edited: Option<Edited>,
}

/// An event's last edit.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, Serialize)]
pub struct Edited {
    /// By whom.
    #[n(0)]
    pub author: String,
    /// When, in milliseconds since 1970; for people only.
    #[n(1)]
    pub unix_ms: u64,
}

/// An event.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct EventRow {
    /// Which, and of whom.
    #[n(0)]
    pub mark: EventMark,
    /// Bytes of the type that the topic's events are of.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub value: Vec<u8>,
}

fn as_text<S: Serializer>(name: &EventName, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(name)
}

/// An event's name: its sequence, and the word that tells it from others of that sequence.
mod names {
    use super::*;

    pub fn encode<C, W: minicbor::encode::Write>(
        name: &EventName,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.array(2)?.u64(name.sequence)?.encode(name.word)?.ok()
    }

    pub fn decode<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<EventName, minicbor::decode::Error> {
        match d.array()? {
            Some(2) => Ok(EventName { sequence: d.u64()?, word: d.decode()? }),
            _ => Err(minicbor::decode::Error::message("an event's name has two parts")),
        }
    }
}
