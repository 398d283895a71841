//! Values on a connection: whole, perhaps compressed, or as what has changed since the last one of the same topic.
//!
//! This lies between the messages and their frames, at both ends: whoever sends makes values short last, and whoever receives makes them whole again first, so that nobody else
//! knows of it. A node sends what a topic's properties let it; a client, which need not know them, what its options do. What both ends keep for it is what went over this connection ([`Bases`]), whatever has happened to the topics meanwhile; a new connection begins
//! with nothing.

use std::sync::Arc;

use mangrove_crdt::definition::Properties;
use mangrove_crdt::delta::{Bases, DeltaError};
use mangrove_net::compress::{CompressedError, Sent, decompress};
use minicbor::{Decode, Encode};

use super::{Event, FRAME_MAX, FromClient, FromNode, Request, SetBatch, Target, Update, VALUE_MAX};

/// How many bytes of values a node or client keeps of what one connection brings it. A sender keeps no more than its receiver, and no more than this.
pub const BASES_BYTES: u64 = 1 << 20;

/// What is to be done with a value that comes, if there is more to it than its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Form {
    /// It is to be kept: the next one of the topic may build on it.
    #[n(0)]
    Kept,
    /// It is a delta ([`mangrove_crdt::delta`]) to what was kept of the topic last, its check in front; what comes of it is to be kept instead.
    #[n(1)]
    Delta,
    /// It is compressed ([`mangrove_net::compress`]).
    #[n(2)]
    Compressed,
    /// It is compressed, and what comes of it is to be kept.
    #[n(3)]
    CompressedKept,
}

/// Values that are not what was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// A delta that is none, or of another value than is here.
    #[error(transparent)]
    Delta(#[from] DeltaError),
    /// What is said to be compressed is not.
    #[error(transparent)]
    Compressed(#[from] CompressedError),
    /// They would fit no frame if they came whole.
    #[error("values of more than {FRAME_MAX} bytes in one frame")]
    TooMuch,
}

/// What the properties of a topic let be done with its values for the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowed {
    /// Whether they may be sent as what has changed, and be built on.
    pub deltas: bool,
    /// Whether they may be compressed.
    pub compress: bool,
}

impl Allowed {
    /// Everything.
    pub const ALL: Allowed = Allowed { deltas: true, compress: true };

    /// What a topic of these properties allows.
    pub fn of(properties: &Properties) -> Allowed {
        Allowed { deltas: properties.deltas, compress: properties.compress }
    }
}

impl Default for Allowed {
    fn default() -> Self {
        Allowed::ALL
    }
}

/// What stands for a topic on a connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Name {
    Path(Box<str>),
    Alias(u32),
}

impl Name {
    fn of(target: &Target) -> Name {
        match target {
            Target::Path(path) => Name::Path(path.as_str().into()),
            Target::Named { alias, .. } | Target::Alias(alias) => Name::Alias(*alias),
        }
    }
}

/// The sending end of a connection.
#[derive(Debug, Default)]
pub struct Shrink {
    bases: Bases<Name>,
    /// Whether its receiver makes out compressed values.
    compressed: bool,
}

impl Shrink {
    /// For a receiver that keeps so many bytes, and makes out compressed values or not.
    pub fn new(theirs: u64, compressed: bool) -> Self {
        Shrink { bases: Bases::new(theirs.min(BASES_BYTES) as usize), compressed }
    }

    /// Makes a message of a node's as short as its receiver can make out. It must be sent then, and nothing before it that has not been here.
    pub fn from_node(&mut self, message: &mut FromNode) {
        let FromNode::Updates(updates) = message else { return };
        for Update { topic, event, .. } in updates {
            if let Event::Value { value, form, allowed, .. } = event {
                *form = shrink(&mut self.bases, self.compressed, &Name::of(topic), value, *allowed);
            }
        }
    }

    /// Makes a message of a client's as short as its receiver can make out, as above. Says whether it has become any shorter, or is needed for what comes.
    pub fn from_client(&mut self, message: &mut FromClient) -> bool {
        let FromClient::Request { request, .. } = message else { return false };
        let Some(batch) = batch_of(request) else { return false };
        let mut any = false;
        for item in &mut batch.items {
            item.form = shrink(&mut self.bases, self.compressed, &Name::of(&item.target), &mut item.value, Allowed::ALL);
            any |= item.form.is_some();
        }
        any
    }
}

fn shrink(bases: &mut Bases<Name>, compressed: bool, name: &Name, value: &mut Arc<[u8]>, allowed: Allowed) -> Option<Form> {
    let form = bases.send(name, value, || allowed.deltas);
    let (bytes, form) = match Sent::shortest(form, value, || compressed && allowed.compress) {
        Sent::Whole { kept } => return kept.then_some(Form::Kept),
        Sent::Delta(bytes) => (bytes, Form::Delta),
        Sent::Compressed { kept: true, bytes } => (bytes, Form::CompressedKept),
        Sent::Compressed { kept: false, bytes } => (bytes, Form::Compressed),
    };
    *value = bytes.into();
    Some(form)
}

/// The receiving end of a connection.
#[derive(Debug)]
pub struct Restore {
    bases: Bases<Name>,
}

impl Restore {
    /// One that keeps so many bytes.
    pub fn new(ours: u64) -> Self {
        Restore { bases: Bases::new(ours as usize) }
    }

    /// Makes the values of a node's message whole.
    ///
    /// # Errors
    /// It is not from a sender that has kept the same. Nothing that comes after it can be made out.
    pub fn from_node(&mut self, message: &mut FromNode) -> Result<(), RestoreError> {
        let FromNode::Updates(updates) = message else { return Ok(()) };
        let mut room = FRAME_MAX;
        for Update { topic, event, .. } in updates {
            if let Event::Value { value, form, .. } = event {
                self.restore(topic, value, form, &mut room)?;
            }
        }
        Ok(())
    }

    /// Makes the values of a client's message whole, as above.
    pub fn from_client(&mut self, message: &mut FromClient) -> Result<(), RestoreError> {
        let FromClient::Request { request, .. } = message else { return Ok(()) };
        let mut room = FRAME_MAX;
        for item in batch_of(request).into_iter().flat_map(|batch| &mut batch.items) {
            self.restore(&item.target, &mut item.value, &mut item.form, &mut room)?;
        }
        Ok(())
    }

    /// All of a message's values fit a frame if they are whole, so whoever sends more means no good.
    fn restore(&mut self, topic: &Target, value: &mut Arc<[u8]>, form: &mut Option<Form>, room: &mut usize) -> Result<(), RestoreError> {
        let Some(form) = form.take() else { return Ok(()) };
        let name = Name::of(topic);
        match form {
            Form::Kept => {}
            Form::Delta => *value = self.bases.receive(&name, value)?,
            Form::Compressed | Form::CompressedKept => *value = decompress(value, VALUE_MAX.min(*room))?.into(),
        }
        if matches!(form, Form::Kept | Form::CompressedKept) {
            self.bases.keep(&name, value.clone());
        }
        *room = room.checked_sub(value.len()).ok_or(RestoreError::TooMuch)?;
        Ok(())
    }
}

fn batch_of(request: &mut Request) -> Option<&mut SetBatch> {
    match request {
        Request::Set(batch) => Some(batch),
        Request::Once { request, .. } => match &mut **request {
            Request::Set(batch) => Some(batch),
            _ => None,
        },
        _ => None,
    }
}

/// A value's bytes, shared by all who have them.
pub(super) mod shared_bytes {
    use super::*;
    use minicbor::{Decoder, Encoder};

    pub fn encode<C, W: minicbor::encode::Write>(
        bytes: &Arc<[u8]>,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.bytes(bytes)?.ok()
    }

    pub fn decode<C>(d: &mut Decoder<'_>, _: &mut C) -> Result<Arc<[u8]>, minicbor::decode::Error> {
        d.bytes().map(Arc::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::SetItem;

    fn update(topic: Target, event: Event) -> FromNode {
        FromNode::Updates(vec![Update { subscription: 1, topic, event, mark: None }])
    }

    fn value(bytes: &[u8]) -> Event {
        Event::Value { value: bytes.into(), unix_ms: None, stamp: None, form: None, allowed: Allowed::ALL, missed: None, event: None }
    }

    fn length(message: &FromNode) -> usize {
        crate::protocol::frame(message).expect("it fits").len()
    }

    #[test]
    fn what_a_node_tells_again_is_short_and_comes_out_whole() {
        let (mut shrink, mut restore) = (Shrink::new(BASES_BYTES, false), Restore::new(BASES_BYTES));
        let mut lengths = Vec::new();
        let targets = [
            Target::Named { alias: 0, path: "a".into() },
            Target::Alias(0),
            Target::Path("b".into()),
            Target::Path("b".into()),
            Target::Alias(0),
        ];
        for (number, target) in targets.into_iter().enumerate() {
            let sent = update(target, value(&[vec![7; 1000], vec![number as u8]].concat()));
            let mut message = sent.clone();
            shrink.from_node(&mut message);
            lengths.push(length(&message));
            restore.from_node(&mut message).expect("both have kept the same");
            assert_eq!(message, sent);
        }
        assert!(lengths[0] > 1000 && lengths[1] < 50 && lengths[2] > 1000 && lengths[3] < 50 && lengths[4] < 50, "{lengths:?}");
    }

    fn noise(length: usize) -> Vec<u8> {
        let mut noise = vec![0; length];
        blake3::Hasher::new().finalize_xof().fill(&mut noise);
        noise
    }

    #[test]
    fn what_comes_for_the_first_time_is_compressed_and_comes_out_whole() {
        let mut restore = Restore::new(BASES_BYTES);
        // Repetition, nearly the same again, noise, what is too long to be kept, and what is short.
        let values = [vec![7; 1000], [vec![7; 1000], vec![1]].concat(), noise(1000), vec![8; 2_000_000], vec![9; 200]];
        let mut lengths = Vec::new();
        for compressed in [true, false] {
            let mut shrink = Shrink::new(BASES_BYTES, compressed);
            for value_of in &values {
                let sent = update(Target::Alias(0), value(value_of));
                let mut message = sent.clone();
                shrink.from_node(&mut message);
                lengths.push(length(&message));
                let mut message =
                    crate::protocol::decode_from_node(&crate::protocol::frame(&message).expect("it fits")[4..]).expect("it is one");
                restore.from_node(&mut message).expect("it is as it was sent");
                assert_eq!(message, sent);
            }
        }
        let [first, delta, noisy, large, short, first_whole, delta_whole, _, large_whole, short_whole] = lengths[..] else { panic!() };
        assert!(first < 60 && delta < 50 && noisy > 1000 && large < 10_000 && short > 200, "{lengths:?}");
        assert!(first_whole > 1000 && delta_whole == delta && large_whole > 2_000_000 && short_whole == short, "{lengths:?}");
    }

    #[test]
    fn topics_that_are_to_have_none_have_none() {
        let mut shrink = Shrink::new(BASES_BYTES, true);
        let mut told = |bytes: &[u8], allows: Allowed| {
            let mut event = value(bytes);
            if let Event::Value { allowed, .. } = &mut event {
                *allowed = allows;
            }
            let mut message = update(Target::Path("a".into()), event);
            shrink.from_node(&mut message);
            length(&message)
        };
        let [no_deltas, no_compression] =
            [Properties { deltas: false, ..Properties::default() }, Properties { compress: false, ..Properties::default() }]
                .map(|properties| Allowed::of(&properties));
        let noise = noise(1000);
        assert!([told(&noise, no_deltas), told(&noise, no_deltas)].iter().all(|length| *length > 1000));
        assert!(told(&[1; 1000], no_deltas) < 60);
        assert!([told(&[2; 1000], no_compression), told(&[3; 1000], no_compression)].iter().all(|length| *length > 1000));
        assert!(told(&[3; 1000], no_compression) < 50);
        assert!([told(&noise, Allowed::of(&Properties::default())), told(&noise, Allowed::ALL)].iter().any(|length| *length < 50));
    }

    #[test]
    fn what_is_not_compressed_as_it_says_is_refused() {
        let told = |bytes: &[u8], form| {
            let mut message = update(Target::Alias(0), value(bytes));
            let FromNode::Updates(updates) = &mut message else { panic!() };
            let Event::Value { form: said, .. } = &mut updates[0].event else { panic!() };
            *said = Some(form);
            Restore::new(BASES_BYTES).from_node(&mut message)
        };
        for form in [Form::Compressed, Form::CompressedKept] {
            assert_eq!(told(&[1, 2, 3], form), Err(CompressedError::Garbage.into()));
            assert_eq!(told(&[200, 0, 0, 0, 3, 7], form), Err(CompressedError::Garbage.into()));
            assert_eq!(told(&[255, 255, 255, 255, 3], form), Err(CompressedError::TooLong(255).into()));
        }
    }

    #[test]
    fn a_frame_of_few_bytes_does_not_become_much_memory() {
        let set = |items: Vec<SetItem>| {
            let request = Request::Set(SetBatch { items, add: None, durability: None, under: None });
            FromClient::Request { id: 1, request: Request::Once { number: 1, floor: 1, request: Box::new(request) } }
        };
        let item = |value: &[u8], form| SetItem { target: Target::Alias(3), value: value.into(), form };
        let (mut shrink, mut restore) = (Shrink::new(u64::MAX, false), Restore::new(BASES_BYTES));
        let large = vec![5; 400_000];
        let mut message = set(vec![item(&large, None), item(&large, None)]);
        assert!(shrink.from_client(&mut message));
        let FromClient::Request { request, .. } = &mut message else { panic!() };
        let delta = batch_of(request).expect("a batch").items[1].value.clone();
        assert!(delta.len() < 20);
        restore.from_client(&mut message).expect("both have kept the same");
        assert_eq!(message, set(vec![item(&large, None), item(&large, None)]));
        let many = (0..1_000).map(|_| item(&delta, Some(Form::Delta))).collect();
        assert_eq!(restore.from_client(&mut set(many)), Err(RestoreError::TooMuch));
        let mut compressed = set(vec![item(&large, None)]);
        assert!(Shrink::new(0, true).from_client(&mut compressed));
        let FromClient::Request { request, .. } = &mut compressed else { panic!() };
        let compressed = batch_of(request).expect("a batch").items[0].clone();
        assert!(compressed.value.len() < 2_000 && compressed.form == Some(Form::Compressed));
        restore.from_client(&mut set(vec![compressed.clone(); 11])).expect("they fit a frame");
        let more = restore.from_client(&mut set(vec![compressed; 12]));
        assert_eq!(more, Err(CompressedError::TooLong(FRAME_MAX - 11 * large.len()).into()));
        let unknown = SetItem { form: Some(Form::Delta), ..SetItem::new(Target::Path("other".into()), delta) };
        assert_eq!(restore.from_client(&mut set(vec![unknown])), Err(DeltaError::NoBase.into()));
    }
}
