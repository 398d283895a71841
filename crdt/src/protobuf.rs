//! Protobuf: values that are messages of a type which a descriptor set defines.
//!
//! A node that takes such a value has nothing but two things: the serialized `FileDescriptorSet` that came with the topic's definition, and the name of a message in it. Both come from anybody, and so do the
//! values. So the set is looked through and made anew before it is compiled ([`minimal`] gives what is left of it), and each value is walked through before it is decoded: what passes is
//! held in a bounded amount of memory, and what does not is refused with the place in it that is wrong.
//!
//! # What is a value
//!
//! The encoding of one message, whole. Beyond what every decoder asks for:
//!
//! - Fields that the message does not have are taken, and kept. They are how protobuf evolves: a writer that knows more than the definition is no fault. They are not shown in JSON.
//!   Extensions are such fields here.
//! - Required fields (proto2) must be there, wherever their message is.
//! - A field that holds one message holds it once. Other decoders would merge two; here each part is judged where it stands.
//! - What canonical JSON cannot say is refused, since every value must be shown on every node: a `Timestamp` out of its range, a `Value` that is not finite, an `Any` of a message that the
//!   set does not have.
//! - It nests at most [`DEPTH_MAX`] messages, and has only so many parts that its JSON can be held ([`COST_MAX`]): some fifty thousand small messages, or three hundred thousand packed
//!   numbers.
//!
//! # Which values are equal
//!
//! A message has many encodings, and no specification names one of them as canonical. What a client gives as bytes is taken as it is: it may be signed, and holds fields that nobody here knows. What is made here from
//! JSON has one form ([`Protobuf::canonical`]): fields in the order of their numbers, entries of a map in the order of their keys, defaults left out where a message cannot tell them from what is
//! absent, fields without a name last. So the same JSON is always the same bytes; and values are equal, for whoever asks, if their canonical forms are.
//!
//! Only proto2 and proto3 are known, no editions.

mod set;
#[cfg(test)]
mod tests;
mod wire;

use std::{collections::BTreeMap, fmt};

use prost_reflect::{
    DescriptorPool, DeserializeOptions, DynamicMessage, MessageDescriptor, ReflectMessage, Value as Held,
    prost::{Message, bytes::Bytes, encoding},
    prost_types::FileDescriptorSet,
};
use serde_json::Value;
use serde_path_to_error::{Deserializer, Segment, Track};

use crate::{
    blob::{BlobHash, FromBlob},
    value::{VALUE_MAX, ValueError},
};
use set::Set;
pub use set::{NAME_BYTES_MAX, SET_BYTES_MAX, SET_PARTS_MAX};
use wire::{Required, Walk, Wrong, pointer_step};

/// How deep messages nest at most: in JSON each may stand in an array or a map, and readers of JSON commonly stop at 128.
pub const DEPTH_MAX: usize = 48;

/// What a value may take once it is decoded and shown, in bytes, as it is reckoned beforehand.
pub const COST_MAX: u64 = 64 << 20;

const ANY: &str = "google.protobuf.Any";

/// Messages with a form of their own in JSON, which some of their values do not have.
const CHECKED_BY_SHOWING: [&str; 15] = [
    "google.protobuf.Timestamp",
    "google.protobuf.Duration",
    "google.protobuf.FieldMask",
    "google.protobuf.Struct",
    "google.protobuf.Value",
    "google.protobuf.ListValue",
    // These have one, unless somebody has defined them otherwise.
    "google.protobuf.FloatValue",
    "google.protobuf.DoubleValue",
    "google.protobuf.Int32Value",
    "google.protobuf.Int64Value",
    "google.protobuf.UInt32Value",
    "google.protobuf.UInt64Value",
    "google.protobuf.BoolValue",
    "google.protobuf.StringValue",
    "google.protobuf.BytesValue",
];

/// Why values cannot be judged by a descriptor set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadProtobuf {
    /// It is none, or one that says what no compiler would.
    #[error("no descriptor set: {0}")]
    NoSet(String),
    /// It is larger than one may be.
    #[error("the descriptor set is too large: it has {0}")]
    TooLarge(String),
    /// It has no message of this name.
    #[error("the descriptor set has no message {0:?}")]
    NoMessage(String),
}

/// The message that a topic's values are, by its whole name in a descriptor set, which is a blob.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct MessageOf {
    name: Box<str>,
    set: FromBlob<Protobuf>,
}

impl MessageOf {
    /// The message with this name; `None` if no message can have it.
    pub fn new(name: &str, set: BlobHash) -> Option<MessageOf> {
        let word = |word: &str| {
            !word.starts_with(|first: char| first.is_ascii_digit())
                && !word.is_empty()
                && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        };
        let sound = name.len() <= NAME_BYTES_MAX && name.split('.').all(word);
        sound.then(|| MessageOf { name: name.into(), set: FromBlob::new(set) })
    }

    /// Its whole name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The blob that is its descriptor set.
    pub fn set(&self) -> &BlobHash {
        self.set.hash()
    }

    pub(crate) fn supply(&self, hash: &BlobHash, content: &[u8]) -> Result<(), String> {
        self.set.supply(hash, content, |set| Protobuf::new(set, &self.name).map_err(|error| error.to_string()))
    }

    /// What judges its values.
    ///
    /// # Errors
    /// The descriptor set is not here, or no use.
    pub fn get(&self) -> Result<&Protobuf, ValueError> {
        self.set.get()
    }
}

/// One message type, ready to judge values.
pub struct Protobuf {
    pool: DescriptorPool,
    message: MessageDescriptor,
    required: Required,
}

impl fmt::Debug for Protobuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Protobuf").field(&self.name()).finish()
    }
}

/// The part of a serialized descriptor set that a message needs: without source, options, services, extensions, and messages that it does not refer to. The same messages give the same
/// bytes, wherever their files lie.
///
/// # Errors
/// As [`Protobuf::new`].
pub fn minimal(set: &[u8], message: &str) -> Result<Vec<u8>, BadProtobuf> {
    minimal_of(Set::decode(set)?, message)
}

/// The same of a set that has just been compiled, however large the files are that it was compiled from.
///
/// # Errors
/// As [`Protobuf::new`].
pub fn minimal_of(set: FileDescriptorSet, message: &str) -> Result<Vec<u8>, BadProtobuf> {
    let small = Set::new(set, usize::MAX)?.only(message)?.encode_to_vec();
    Protobuf::new(&small, message)?;
    Ok(small)
}

/// The names of all messages that a serialized descriptor set defines, for whoever looks for one.
///
/// # Errors
/// It is no set.
pub fn messages(set: &[u8]) -> Result<Vec<String>, BadProtobuf> {
    let pool = compile(set)?;
    Ok(pool.all_messages().filter(|message| !message.is_map_entry()).map(|message| message.full_name().to_owned()).collect())
}

fn compile(set: &[u8]) -> Result<DescriptorPool, BadProtobuf> {
    let set = Set::new(Set::decode(set)?, SET_PARTS_MAX)?.into_set();
    DescriptorPool::from_file_descriptor_set(set).map_err(|error| BadProtobuf::NoSet(error.to_string()))
}

impl Protobuf {
    /// Compiles the message with this whole name, such as `telemetry.Reading`, of a serialized `FileDescriptorSet`.
    ///
    /// # Errors
    /// It is no set, or too large a one, or has no such message.
    pub fn new(set: &[u8], message: &str) -> Result<Protobuf, BadProtobuf> {
        let pool = compile(set)?;
        let message = pool.get_message_by_name(message).ok_or_else(|| BadProtobuf::NoMessage(message.into()))?;
        let mut required: Required = BTreeMap::new();
        for message in pool.all_messages() {
            let fields = message.fields().filter(|field| field.is_required());
            let fields: Vec<_> = fields.map(|field| (field.number(), field.json_name().to_owned())).collect();
            if !fields.is_empty() {
                required.insert(message.full_name().to_owned(), fields);
            }
        }
        Ok(Protobuf { pool, message, required })
    }

    /// The message's whole name.
    pub fn name(&self) -> &str {
        self.message.full_name()
    }

    /// That bytes are a value.
    ///
    /// # Errors
    /// They are too long, or what is wrong, and where.
    pub fn validate(&self, bytes: &[u8]) -> Result<(), ValueError> {
        if bytes.len() > VALUE_MAX {
            return Err(ValueError::TooLong(bytes.len()));
        }
        let Wrong { at, why } = match Walk::new(&self.pool, &self.required).message(&self.message, bytes) {
            Ok(()) => return Ok(()),
            Err(wrong) => wrong,
        };
        Err(ValueError::Misfit { at, why })
    }

    /// The value in protobuf's canonical JSON.
    ///
    /// # Errors
    /// As [`Protobuf::validate`].
    pub fn to_json(&self, bytes: &[u8]) -> Result<Value, ValueError> {
        serde_json::to_value(self.decode(bytes)?).map_err(|error| misfit(String::new(), error))
    }

    /// The canonical bytes of a value that is given in protobuf's JSON.
    ///
    /// # Errors
    /// What is wrong in the JSON, and where; or as [`Protobuf::validate`].
    pub fn from_json(&self, json: &Value) -> Result<Vec<u8>, ValueError> {
        // What reads it recurses, and so does what made it: whoever parses JSON stops there.
        if !nests_within(json, 2 * DEPTH_MAX + 8) {
            return Err(ValueError::TooDeep);
        }
        let mut track = Track::new();
        let message =
            DynamicMessage::deserialize_with_options(self.message.clone(), Deserializer::new(json, &mut track), &DeserializeOptions::new())
                .map_err(|error| misfit(pointer(&track.path(), json), error))?;
        let bytes = canonical(&message);
        self.validate(&bytes)?;
        Ok(bytes)
    }

    /// The value in the one form that its equals have.
    ///
    /// # Errors
    /// As [`Protobuf::validate`].
    pub fn canonical(&self, bytes: &[u8]) -> Result<Vec<u8>, ValueError> {
        self.decode(bytes).map(|message| canonical(&message))
    }

    fn decode(&self, bytes: &[u8]) -> Result<DynamicMessage, ValueError> {
        self.validate(bytes)?;
        DynamicMessage::decode(self.message.clone(), bytes).map_err(|error| misfit(String::new(), error))
    }
}

fn misfit(at: String, error: impl ToString) -> ValueError {
    ValueError::Misfit { at, why: error.to_string() }
}

fn nests_within(json: &Value, levels: usize) -> bool {
    match json {
        Value::Array(items) => levels > 0 && items.iter().all(|item| nests_within(item, levels - 1)),
        Value::Object(entries) => levels > 0 && entries.values().all(|value| nests_within(value, levels - 1)),
        _ => true,
    }
}

/// A path as a JSON pointer, as far as it leads somewhere in the JSON.
fn pointer(path: &serde_path_to_error::Path, json: &Value) -> String {
    let mut at = String::new();
    for segment in path.iter() {
        let step = match segment {
            Segment::Seq { index } => index.to_string(),
            Segment::Map { key } => key.clone(),
            Segment::Enum { .. } | Segment::Unknown => break,
        };
        at.push_str(&pointer_step(&step));
        if json.pointer(&at).is_none() {
            at.truncate(at.len() - pointer_step(&step).len());
            break;
        }
    }
    at
}

/// A message in its one form.
fn canonical(message: &DynamicMessage) -> Vec<u8> {
    let mut out = Vec::new();
    let is_any = message.descriptor().full_name() == ANY;
    for (field, value) in message.fields() {
        match value {
            Held::Message(inner) if field.is_group() => put_group(field.number(), &canonical(inner), &mut out),
            Held::Message(inner) => put(field.number(), &canonical(inner), &mut out),
            Held::List(items) if matches!(items.first(), Some(Held::Message(_))) => {
                for inner in items.iter().filter_map(Held::as_message) {
                    match field.is_group() {
                        true => put_group(field.number(), &canonical(inner), &mut out),
                        false => put(field.number(), &canonical(inner), &mut out),
                    }
                }
            }
            Held::Map(entries) => {
                let Some(entry) = field.kind().as_message().cloned() else { continue };
                // In the order of the keys, not in the map's.
                let entries = BTreeMap::from_iter(entries);
                for (key, value) in entries {
                    let mut one = DynamicMessage::new(entry.clone());
                    one.set_field(&entry.map_entry_key_field(), key.clone().into());
                    one.set_field(&entry.map_entry_value_field(), value.clone());
                    put(field.number(), &canonical(&one), &mut out);
                }
            }
            Held::Bytes(held) if is_any => put(field.number(), &inside(message, held), &mut out),
            plain => {
                let mut one = DynamicMessage::new(message.descriptor());
                one.set_field(&field, plain.clone());
                out.extend(one.encode_to_vec());
            }
        }
    }
    for unknown in message.unknown_fields() {
        unknown.encode(&mut out);
    }
    out
}

/// What an `Any` holds, in its one form where it is a message of the set.
fn inside(any: &DynamicMessage, held: &Bytes) -> Vec<u8> {
    let url = any.get_field_by_name("type_url");
    let name = url.as_ref().and_then(|url| url.as_str()).and_then(|url| url.rsplit_once('/'));
    let known = name.and_then(|(_, name)| any.descriptor().parent_pool().get_message_by_name(name));
    known.and_then(|known| DynamicMessage::decode(known, held.clone()).ok()).map_or_else(|| held.to_vec(), |inner| canonical(&inner))
}

fn put(number: u32, bytes: &[u8], out: &mut Vec<u8>) {
    encoding::encode_key(number, encoding::WireType::LengthDelimited, out);
    encoding::encode_varint(bytes.len() as u64, out);
    out.extend(bytes);
}

fn put_group(number: u32, bytes: &[u8], out: &mut Vec<u8>) {
    encoding::encode_key(number, encoding::WireType::StartGroup, out);
    out.extend(bytes);
    encoding::encode_key(number, encoding::WireType::EndGroup, out);
}
