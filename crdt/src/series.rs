//! Time series: topics that keep events instead of one value.
//!
//! An event is a register of its own in the value plane, beside the topics' ([`ValueKey`]), and travels, is stored, compared and repaired like these. What is appended gets the
//! *sequence* that follows the greatest one its node knows in the topic, and is named by that and by its origin: two sides of a split may
//! give out the same sequence, and both events stand. Events are in the order of (sequence, origin), the same wherever they are, and no clock has a part in it: whoever
//! appends has seen what stands before. An *edit* is a newer write of the event's register, in its place: the newest edit counts, and one that its writer had not known of is displaced.
//!
//! **Forgetting the oldest.** The topic's own register has no value but the *horizon*: no event up to that sequence is there any more. Who appends more than a topic is to keep raises
//! it, by some at a time. Its stamp is the horizon itself and nothing else, so that the greatest one wins on both sides of a split and the merge of two series is what either would have
//! kept of all events. An event that is gone leaves its places in feeds to the topic's register ([`Registers::absorb`](crate::registers::Registers::absorb)): whoever has not heard
//! of it is sent the horizon in its stead (R3), and knows that it is gone. What a reader is shown is exactly the newest that the topic is to keep.
//!
//! Age is no part of that. A clock that is wrong would throw away at one node what all others still want; so what is older than the topic says is not *shown*, by the clock
//! of the node that is asked, and goes when there are enough newer ones.

use std::collections::BTreeMap;

use minicbor::{Decoder, Encoder, data::Type};
use smallvec::SmallVec;

use crate::{
    definition::TopicType,
    frontier::{DotIx, OriginIx, Origins},
    id::Origin,
};

/// How many events a topic keeps if it does not say.
pub const KEEP_DEFAULT: u32 = 1_000;

/// How many events a topic may keep.
pub const KEEP_MAX: u32 = 1_000_000;

/// Up to which sequence events may be appended.
pub const SEQUENCE_MAX: u64 = 1 << 62;

/// How long an author's name is at most, in bytes; longer ones are cut.
pub const AUTHOR_BYTES_MAX: usize = 256;

/// What a topic of events takes and keeps.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct SeriesType {
    /// What each event is: a type of values.
    pub of: TopicType,
    /// How many events are kept, the newest.
    pub keep: u32,
    /// For how long they are shown, in milliseconds; `None` for as long as they are kept.
    pub keep_for_ms: Option<u64>,
}

impl SeriesType {
    /// How many more than are to be kept there may be before the oldest are forgotten: so that this is not told with each event.
    pub fn slack(&self) -> usize {
        (self.keep as usize / 8).max(1)
    }
}

/// Names a register of the value plane: a topic's value, or one event of a series.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ValueKey {
    // So ordered that it takes 24 bytes.
    number: u64,
    /// 0 for a topic's value.
    sequence: u64,
    origin: OriginIx,
    event_origin: OriginIx,
}

impl ValueKey {
    /// One event of a topic.
    pub fn event(topic: DotIx, event: EventIx) -> ValueKey {
        ValueKey { number: topic.number, sequence: event.sequence, origin: topic.origin, event_origin: event.origin }
    }

    /// The topic.
    pub fn topic(&self) -> DotIx {
        DotIx { origin: self.origin, number: self.number }
    }

    /// The event, if it is one.
    pub fn as_event(&self) -> Option<EventIx> {
        (self.sequence > 0).then_some(EventIx { sequence: self.sequence, origin: self.event_origin })
    }
}

impl From<DotIx> for ValueKey {
    fn from(topic: DotIx) -> ValueKey {
        ValueKey { number: topic.number, sequence: 0, origin: topic.origin, event_origin: OriginIx(0) }
    }
}

/// An event among those of its topic. Ordered by [`EventIx::rank`], not by itself.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct EventIx {
    /// Its sequence, from 1.
    pub sequence: u64,
    /// Who appended it.
    pub origin: OriginIx,
}

impl EventIx {
    /// What orders events, the same on every node.
    pub fn rank(&self, origins: &Origins) -> (u64, Origin) {
        (self.sequence, origins.get(self.origin))
    }

    /// Its name for people and programs, the same on every node: the sequence, and a word that tells it from another one of the same sequence.
    pub fn name(&self, origins: &Origins) -> EventName {
        let hash = blake3::hash(&origins.get(self.origin).to_bytes());
        EventName { sequence: self.sequence, word: hash.as_bytes().first_chunk().map(|word| u32::from_be_bytes(*word)) }
    }
}

/// An event as it is named outside: `17.3fa9c2d1`, or `17` if there is no other one of that sequence.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct EventName {
    /// Its sequence.
    pub sequence: u64,
    /// Part of a hash of its origin; `None` for whichever there is.
    pub word: Option<u32>,
}

impl EventName {
    /// Whether an event may be meant.
    pub fn means(&self, event: EventIx, origins: &Origins) -> bool {
        self.sequence == event.sequence && (self.word.is_none() || self.word == event.name(origins).word)
    }
}

impl std::fmt::Display for EventName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.word {
            Some(word) => write!(f, "{}.{word:08x}", self.sequence),
            None => write!(f, "{}", self.sequence),
        }
    }
}

impl std::str::FromStr for EventName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (sequence, word) = text.split_once('.').map_or((text, None), |(sequence, word)| (sequence, Some(word)));
        let digits = |text: &str, radix| text.chars().all(|c| c.is_digit(radix));
        let sequence = sequence.parse().ok().filter(|sequence| digits(text.split('.').next().unwrap_or(""), 10) && *sequence > 0);
        let word = word.map(|word| u32::from_str_radix(word, 16).ok().filter(|_| word.len() == 8 && digits(word, 16)));
        match (sequence, word) {
            (Some(sequence), None) => Ok(EventName { sequence, word: None }),
            (Some(sequence), Some(Some(word))) => Ok(EventName { sequence, word: Some(word) }),
            _ => Err(format!("{text:?} names no event: that is a sequence such as 17, or one with eight hexadecimal digits, 17.3fa9c2d1")),
        }
    }
}

/// What an event's register holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Content<'a> {
    /// Who has written it: appended, or edited it last.
    pub author: &'a str,
    /// The event, a value of the type that the series is of.
    pub value: &'a [u8],
    /// Who appended it, and when in milliseconds since 1970 by that one's clock, if it has been edited since.
    pub original: Option<(&'a str, u64)>,
}

impl<'a> Content<'a> {
    /// As the register's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut e = Encoder::new(Vec::with_capacity(self.value.len() + self.author.len() + 16));
        let written = match self.original {
            None => e.array(2).and_then(|e| e.bytes(self.value)?.str(self.author)),
            Some((author, time_ms)) => e.array(4).and_then(|e| e.bytes(self.value)?.str(self.author)?.str(author)?.u64(time_ms)),
        };
        debug_assert!(written.is_ok(), "a vector takes any write");
        e.into_writer()
    }

    /// The inverse; `None` if it is none.
    pub fn from_bytes(bytes: &'a [u8]) -> Option<Content<'a>> {
        let mut d = Decoder::new(bytes);
        let fields = d.array().ok()??;
        let (value, author) = (d.bytes().ok()?, d.str().ok()?);
        let original = match fields {
            2 => None,
            4 => Some((d.str().ok()?, d.u64().ok()?)),
            _ => return None,
        };
        let authors = [Some(author), original.map(|(author, _)| author)];
        let fits = authors.into_iter().flatten().all(|author| author.len() <= AUTHOR_BYTES_MAX);
        (fits && d.position() == bytes.len() && d.datatype().is_err_and(|error| error.is_end_of_input())).then_some(())?;
        Some(Content { author, value, original })
    }

    /// The value's bytes within the register's; `None` if it is none. Says no more than that they look like some.
    pub fn value_of(bytes: &'a [u8]) -> Option<&'a [u8]> {
        let mut d = Decoder::new(bytes);
        d.array().ok()??;
        (d.datatype().ok()? == Type::Bytes).then(|| d.bytes().ok()).flatten()
    }
}

/// An author's name, cut to what fits.
pub fn author(name: &str) -> &str {
    let end = (0..=name.len().min(AUTHOR_BYTES_MAX)).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
    &name[..end]
}

/// Which events of one topic there are, in order.
#[derive(Debug, Default)]
pub(crate) struct Series {
    /// Origins by sequence; of those of one sequence, in the order of origins.
    events: BTreeMap<u64, SmallVec<[OriginIx; 1]>>,
    count: usize,
}

impl Series {
    /// One more, unless it is there.
    pub fn insert(&mut self, origins: &Origins, event: EventIx) {
        let same = self.events.entry(event.sequence).or_default();
        if let Err(at) = same.binary_search_by_key(&origins.get(event.origin), |origin| origins.get(*origin)) {
            same.insert(at, event.origin);
            self.count += 1;
        }
    }

    /// One less.
    pub fn remove(&mut self, event: EventIx) {
        let Some(same) = self.events.get_mut(&event.sequence) else { return };
        let before = same.len();
        same.retain(|origin| *origin != event.origin);
        self.count -= before - same.len();
        if same.is_empty() {
            self.events.remove(&event.sequence);
        }
    }

    /// Lets go of all up to a sequence, and gives them.
    pub fn take_upto(&mut self, horizon: u64) -> Vec<EventIx> {
        let rest = self.events.split_off(&(horizon + 1));
        let gone = std::mem::replace(&mut self.events, rest);
        let gone: Vec<EventIx> =
            gone.into_iter().flat_map(|(sequence, same)| same.into_iter().map(move |origin| EventIx { sequence, origin })).collect();
        self.count -= gone.len();
        gone
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// The greatest sequence; 0 if there is none.
    pub fn last(&self) -> u64 {
        self.events.last_key_value().map_or(0, |(sequence, _)| *sequence)
    }

    /// Those of some sequences, from the first to the last.
    pub fn range(&self, sequences: std::ops::RangeInclusive<u64>) -> impl DoubleEndedIterator<Item = EventIx> + '_ {
        // A range that ends before it begins would be a panic.
        let sequences = if sequences.is_empty() { 0..=0 } else { sequences };
        self.events.range(sequences).flat_map(|(sequence, same)| same.iter().map(|origin| EventIx { sequence: *sequence, origin: *origin }))
    }

    /// All of them.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = EventIx> + '_ {
        self.range(0..=u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::id::{Incarnation, NodeId};

    fn origins() -> Origins {
        let mut origins = Origins::default();
        // The indexes are in another order than the origins.
        for node in [3, 1, 2] {
            origins.intern(Origin { node: NodeId([node; 32]), incarnation: Incarnation { boot: 1, nonce: 0 } });
        }
        origins
    }

    fn event(sequence: u64, origin: u32) -> EventIx {
        EventIx { sequence, origin: OriginIx(origin) }
    }

    #[test]
    fn a_key_is_small_and_says_what_it_is_of() {
        assert_eq!(size_of::<ValueKey>(), 24);
        let topic = DotIx { origin: OriginIx(4), number: 9 };
        assert_eq!((ValueKey::from(topic).topic(), ValueKey::from(topic).as_event()), (topic, None));
        let key = ValueKey::event(topic, event(7, 2));
        assert_eq!((key.topic(), key.as_event()), (topic, Some(event(7, 2))));
    }

    #[test]
    fn events_are_in_one_order_whatever_order_they_came_in() {
        let origins = origins();
        let mut series = Series::default();
        for (sequence, origin) in [(2, 0), (1, 2), (2, 2), (5, 1), (2, 1), (2, 2)] {
            series.insert(&origins, event(sequence, origin));
        }
        let expected = [event(1, 2), event(2, 1), event(2, 2), event(2, 0), event(5, 1)];
        assert_eq!(series.iter().collect::<Vec<_>>(), expected);
        assert!(expected.is_sorted_by_key(|event| event.rank(&origins)));
        assert_eq!((series.len(), series.last()), (5, 5));
        assert_eq!(series.range(2..=4).count(), 3);
        #[allow(clippy::reversed_empty_ranges, reason = "somebody may ask for one")]
        let none = series.range(4..=2).count();
        assert_eq!(none, 0);
        series.remove(event(9, 1));
        series.remove(event(2, 7));
        series.insert(&origins, event(3, 1));
        series.remove(event(3, 1));
        assert_eq!(series.len(), 5);
        assert_eq!(series.take_upto(2), expected[..4]);
        assert_eq!((series.len(), series.iter().next()), (1, Some(event(5, 1))));
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        let origins = origins();
        let name = event(17, 0).name(&origins);
        assert_eq!(name.to_string().parse(), Ok(name));
        assert!(name.means(event(17, 0), &origins) && !name.means(event(17, 1), &origins) && !name.means(event(16, 0), &origins));
        let short: EventName = "17".parse().expect("a sequence");
        assert!(short.means(event(17, 0), &origins) && short.means(event(17, 1), &origins));
        for wrong in ["", "x", "0", "-1", "+1", "1.", "1.12", "1.zzzzzzzz", "1.+1234567", "1.3fa9c2d1.1"] {
            assert!(wrong.parse::<EventName>().is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn contents_survive_and_noise_is_refused(
            author in "[a-z]{0,20}", value: Vec<u8>, original in proptest::option::of(("[a-z]{0,20}", any::<u64>())), noise: Vec<u8>,
        ) {
            let content = Content { author: &author, value: &value, original: original.as_ref().map(|(author, at)| (author.as_str(), *at)) };
            let bytes = content.to_bytes();
            prop_assert_eq!(Content::from_bytes(&bytes), Some(content));
            prop_assert_eq!(Content::value_of(&bytes), Some(&value[..]));
            for cut in 0..bytes.len() {
                prop_assert_eq!(Content::from_bytes(&bytes[..cut]), None);
            }
            let longer = [&bytes[..], &[0]].concat();
            prop_assert_eq!(Content::from_bytes(&longer), None);
            if let Some(read) = Content::from_bytes(&noise) {
                prop_assert!(read.value.len() < noise.len());
            }
        }
    }

    #[test]
    fn a_long_name_is_cut_between_letters() {
        let long = "ä".repeat(200);
        assert_eq!(author(&long).len(), AUTHOR_BYTES_MAX);
        assert_eq!(author("short"), "short");
        let value = Content { author: &long, value: &[], original: None }.to_bytes();
        assert_eq!(Content::from_bytes(&value), None);
    }
}
