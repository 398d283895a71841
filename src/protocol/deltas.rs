//! Values on a connection: whole, or as what has changed since the last one of the same topic.
//!
//! This lies between the messages and their frames, at both ends: whoever sends makes deltas last, and whoever receives makes them values again first, so that nobody else
//! knows of them. What both ends keep for it is what went over this connection ([`Bases`]), whatever has happened to the topics meanwhile; a new connection begins
//! with nothing.

use std::collections::HashSet;
use std::sync::Arc;

use mangrove_crdt::delta::{self, Bases, DeltaError};
use minicbor::{Decode, Encode};

use super::{Event, FRAME_MAX, FromClient, FromNode, Request, SetBatch, Target, Update};

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
    /// Topics that are to have none.
    without: HashSet<Name>,
}

impl Shrink {
    /// For a receiver that keeps so many bytes.
    pub fn new(theirs: u64) -> Self {
        Shrink { bases: Bases::new(theirs.min(BASES_BYTES) as usize), without: HashSet::new() }
    }

    /// Makes a message of a node's as short as its receiver can make out. It must be sent then, and nothing before it that has not been here.
    pub fn from_node(&mut self, message: &mut FromNode) {
        let FromNode::Updates(updates) = message else { return };
        for Update { topic, event, .. } in updates {
            match event {
                Event::Value { value, form, .. } => {
                    let name = Name::of(topic);
                    let without = &self.without;
                    *form = shrink(&mut self.bases, &name, value, || !without.contains(&name));
                }
                Event::Added { topic: spec } if spec.properties.get("deltas").is_some_and(|deltas| deltas == "false") => {
                    self.without.insert(Name::of(topic));
                }
                Event::Message(_) => {}
                Event::Added { .. } | Event::Removed { .. } if self.without.is_empty() => {}
                Event::Added { .. } | Event::Removed { .. } => _ = self.without.remove(&Name::of(topic)),
            }
        }
    }

    /// Makes a message of a client's as short as its receiver can make out, as above. Says whether it has become any shorter, or is needed for what comes.
    pub fn from_client(&mut self, message: &mut FromClient) -> bool {
        let FromClient::Request { request, .. } = message else { return false };
        let Some(batch) = batch_of(request) else { return false };
        let mut any = false;
        for item in &mut batch.items {
            item.form = shrink(&mut self.bases, &Name::of(&item.target), &mut item.value, || true);
            any |= item.form.is_some();
        }
        any
    }
}

fn shrink(bases: &mut Bases<Name>, name: &Name, value: &mut Arc<[u8]>, deltas: impl FnOnce() -> bool) -> Option<Form> {
    match bases.send(name, value, deltas) {
        delta::Form::Whole => None,
        delta::Form::Kept => Some(Form::Kept),
        delta::Form::Delta(delta) => {
            *value = delta.into();
            Some(Form::Delta)
        }
    }
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
    pub fn from_node(&mut self, message: &mut FromNode) -> Result<(), DeltaError> {
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
    pub fn from_client(&mut self, message: &mut FromClient) -> Result<(), DeltaError> {
        let FromClient::Request { request, .. } = message else { return Ok(()) };
        let mut room = FRAME_MAX;
        for item in batch_of(request).into_iter().flat_map(|batch| &mut batch.items) {
            self.restore(&item.target, &mut item.value, &mut item.form, &mut room)?;
        }
        Ok(())
    }

    /// All of a message's values fit a frame if they are whole, so whoever sends more means no good.
    fn restore(&mut self, topic: &Target, value: &mut Arc<[u8]>, form: &mut Option<Form>, room: &mut usize) -> Result<(), DeltaError> {
        match form.take() {
            None => return Ok(()),
            Some(Form::Kept) => self.bases.keep(&Name::of(topic), value.clone()),
            Some(Form::Delta) => *value = self.bases.receive(&Name::of(topic), value)?,
        }
        *room = room.checked_sub(value.len()).ok_or(DeltaError::TooLong(FRAME_MAX))?;
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
    use std::collections::BTreeMap;

    use super::*;
    use crate::protocol::{SetItem, TopicSpec};

    fn update(topic: Target, event: Event) -> FromNode {
        FromNode::Updates(vec![Update { subscription: 1, topic, event, mark: None }])
    }

    fn value(bytes: &[u8]) -> Event {
        Event::Value { value: bytes.into(), unix_ms: None, stamp: None, form: None, missed: None, event: None }
    }

    fn length(message: &FromNode) -> usize {
        crate::protocol::frame(message).expect("it fits").len()
    }

    #[test]
    fn what_a_node_tells_again_is_short_and_comes_out_whole() {
        let (mut shrink, mut restore) = (Shrink::new(BASES_BYTES), Restore::new(BASES_BYTES));
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

    #[test]
    fn topics_that_are_to_have_none_have_none() {
        let mut shrink = Shrink::new(BASES_BYTES);
        let target = || Target::Path("a".into());
        let added = |deltas: &str| {
            let properties = BTreeMap::from([("deltas".to_owned(), deltas.to_owned())]);
            update(target(), Event::Added { topic: TopicSpec { topic_type: "binary".into(), properties } })
        };
        let mut told = |mut message: FromNode| {
            shrink.from_node(&mut message);
            length(&message)
        };
        told(added("false"));
        assert!([told(update(target(), value(&[1; 1000]))), told(update(target(), value(&[1; 1000])))].iter().all(|length| *length > 1000));
        told(added("true"));
        told(update(target(), value(&[1; 1000])));
        assert!(told(update(target(), value(&[1; 1000]))) < 50);
    }

    #[test]
    fn a_frame_of_little_deltas_does_not_become_much_memory() {
        let set = |items: Vec<SetItem>| {
            let request = Request::Set(SetBatch { items, add: None, durability: None, under: None });
            FromClient::Request { id: 1, request: Request::Once { number: 1, floor: 1, request: Box::new(request) } }
        };
        let item = |value: &[u8], form| SetItem { target: Target::Alias(3), value: value.into(), form };
        let (mut shrink, mut restore) = (Shrink::new(u64::MAX), Restore::new(BASES_BYTES));
        let large = vec![5; 400_000];
        let mut message = set(vec![item(&large, None), item(&large, None)]);
        assert!(shrink.from_client(&mut message));
        let FromClient::Request { request, .. } = &mut message else { panic!() };
        let delta = batch_of(request).expect("a batch").items[1].value.clone();
        assert!(delta.len() < 20);
        restore.from_client(&mut message).expect("both have kept the same");
        assert_eq!(message, set(vec![item(&large, None), item(&large, None)]));
        let many = (0..1_000).map(|_| item(&delta, Some(Form::Delta))).collect();
        assert_eq!(restore.from_client(&mut set(many)), Err(DeltaError::TooLong(FRAME_MAX)));
        let unknown = SetItem { form: Some(Form::Delta), ..SetItem::new(Target::Path("other".into()), delta) };
        assert_eq!(restore.from_client(&mut set(vec![unknown])), Err(DeltaError::NoBase));
    }
}
