//! What clients write: values that name the operation that wrote them, in the form that each type of topic takes.
//!
//! Whoever sees a value knows which operation it is of, and whether it is whole.

use std::sync::OnceLock;

use mangrove::protocol::TopicSpec;
use mangrove_crdt::{
    blob::{Blob, BlobHash},
    definition::{Definition, TopicType},
    protobuf, value,
};
use prost_reflect::{
    prost::Message,
    prost_types::{
        DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet,
        field_descriptor_proto::{Label, Type},
    },
};
use serde_json::{Value, json};

/// The types of topics that clients make.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Kind {
    /// `binary`.
    #[default]
    Binary,
    /// `json`.
    Json,
    /// `string`.
    String,
    /// `int64`.
    Int64,
    /// `double`.
    Double,
    /// `decimal`.
    Decimal,
    /// `record`.
    Record,
    /// `timeseries` of `json`, of so few events that old ones are forgotten.
    TimeSeries,
    /// `protobuf`.
    Protobuf,
    /// `custom`: positions.
    Custom,
    /// `paged`: its topics take no values, but lines, each of which is the text of an operation.
    Paged,
}

/// A value that an operation writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Payload {
    /// The type of the topic that it is meant for.
    pub kind: Kind,
    /// About how long it is, in bytes, where the type leaves that open.
    pub len: usize,
}

const OP_BYTES: usize = 4;

/// How many definitions each type has that names a blob, each with a blob of its own and all with the same values: so some blobs are named for a while only.
pub const VARIANTS: usize = 4;

/// The message that values of protobuf topics are.
const MESSAGE: &str = "sim.Written";

/// The module of custom topics: see `tests/examples/custom/position.wat`.
const POSITION: &[u8] = include_bytes!("../../tests/examples/custom/position.wasm");

/// The type of slaves, by name.
pub const SLAVE: &str = "slave";

/// The definition of a slave of a topic.
pub fn slave_of(master: &str) -> TopicSpec {
    TopicSpec { topic_type: SLAVE.into(), properties: [("master".to_owned(), master.to_owned())].into() }
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 11] = [
        Kind::Binary,
        Kind::Json,
        Kind::String,
        Kind::Int64,
        Kind::Double,
        Kind::Decimal,
        Kind::Record,
        Kind::TimeSeries,
        Kind::Protobuf,
        Kind::Custom,
        Kind::Paged,
    ];

    /// Its type's name.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Binary => "binary",
            Kind::Json => "json",
            Kind::String => "string",
            Kind::Int64 => "int64",
            Kind::Double => "double",
            Kind::Decimal => "decimal",
            Kind::Record => "record",
            Kind::TimeSeries => "timeseries",
            Kind::Protobuf => "protobuf",
            Kind::Custom => "custom",
            Kind::Paged => "paged",
        }
    }

    /// The one whose type has this name.
    pub fn of_name(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Whether its topics take a value.
    pub fn takes(self, value: &[u8]) -> bool {
        value::validate(self.topic_type(), value).is_ok()
    }

    /// Its type, ready to judge values.
    fn topic_type(self) -> &'static TopicType {
        static MADE: [OnceLock<Definition>; Kind::ALL.len()] = [const { OnceLock::new() }; Kind::ALL.len()];
        let made = MADE[self as usize].get_or_init(|| {
            let definition = self.spec(0).definition().expect("a definition");
            if let Some(content) = self.blob(0) {
                let hash = BlobHash::of(&content);
                definition.topic_type().supply(&hash, &Blob::new(content.into())).expect("a blob of use to its type");
            }
            definition
        });
        made.topic_type()
    }

    /// Whether its topics' definitions name a blob.
    pub fn names_blob(self) -> bool {
        matches!(self, Kind::Protobuf | Kind::Custom)
    }

    /// The blob that one of its definitions names.
    pub fn blob(self, variant: usize) -> Option<Vec<u8>> {
        match self {
            Kind::Protobuf => Some(protobuf::minimal(&descriptors(variant), MESSAGE).expect("a descriptor set with this message")),
            // A section at its end whose name is a digit, and of which no engine takes notice.
            Kind::Custom => Some([POSITION, &[0, 2, 1, b'0' + variant as u8]].concat()),
            _ => None,
        }
    }

    /// One of the definitions of its topics; there is one only where it names no blob.
    pub fn spec(self, variant: usize) -> TopicSpec {
        let named = || format!("blob:{}", BlobHash::of(&self.blob(variant).unwrap_or_default()));
        let properties = match self {
            Kind::Decimal => vec![("scale", "2".to_owned())],
            Kind::Record => vec![("schema", schema().to_string())],
            Kind::TimeSeries => vec![("keep", "5".to_owned())],
            Kind::Protobuf => vec![("descriptors", named()), ("message", MESSAGE.to_owned())],
            Kind::Custom => vec![("module", named())],
            _ => vec![],
        };
        let properties = properties.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        TopicSpec { topic_type: self.name().into(), properties }
    }

    /// The operation that a value of this type names, if it is one.
    pub fn op(self, bytes: &[u8]) -> Option<u32> {
        if self == Kind::Binary {
            return Some(u32::from_le_bytes(*bytes.first_chunk::<OP_BYTES>()?));
        }
        let value = match self {
            Kind::TimeSeries => value::json_of(Kind::Json.name(), bytes)?,
            Kind::Protobuf | Kind::Custom => value::to_json(self.topic_type(), bytes).ok()?,
            _ => value::json_of(self.name(), bytes)?,
        };
        let number = |text: &str, end: char| text.split(end).next()?.parse().ok();
        match self {
            Kind::Json | Kind::TimeSeries | Kind::Protobuf => number(value.get("op")?.as_str()?, ' '),
            Kind::Custom => value.get("time")?.as_u64().and_then(|op| u32::try_from(op).ok()),
            Kind::Record => number(value.get("r")?.get("op")?.as_str()?, ' '),
            Kind::String => number(value.as_str()?, ' '),
            Kind::Int64 => value.as_u64().and_then(|op| u32::try_from(op).ok()),
            Kind::Double => value.as_f64().map(|op| op as u32),
            Kind::Decimal => number(value.as_str()?, '.'),
            Kind::Binary | Kind::Paged => None,
        }
    }
}

/// A set in which the message is defined; in each another field of it that nobody writes.
fn descriptors(variant: usize) -> Vec<u8> {
    let field = |name: &str, number: i32, label: Label, of: Type, message: Option<&str>| FieldDescriptorProto {
        name: Some(name.into()),
        number: Some(number),
        label: Some(label.into()),
        r#type: Some(of.into()),
        type_name: message.map(Into::into),
        ..Default::default()
    };
    let message = |name: &str, field: Vec<FieldDescriptorProto>| DescriptorProto { name: Some(name.into()), field, ..Default::default() };
    let fields = vec![
        field("op", 1, Label::Optional, Type::String, None),
        field("n", 2, Label::Repeated, Type::Sint32, None),
        field("part", 3, Label::Repeated, Type::Message, Some(".sim.Part")),
        field(&format!("unused_{variant}"), 4, Label::Optional, Type::Double, None),
    ];
    let part = vec![field("even", 1, Label::Optional, Type::Bool, None), field("raw", 2, Label::Optional, Type::Bytes, None)];
    let file = FileDescriptorProto {
        name: Some("sim.proto".into()),
        package: Some("sim".into()),
        message_type: vec![message("Written", fields), message("Part", part)],
        syntax: Some("proto3".into()),
        ..Default::default()
    };
    FileDescriptorSet { file: vec![file] }.encode_to_vec()
}

/// A position, at a time that is the operation; and how good its fix is, and so what else it may say, follows from that too.
fn position(op: u32, word: u32) -> Vec<u8> {
    let fix = (op % 3) as u8;
    let told = |from: u8, number: u32| if fix < from { 0 } else { number };
    let mut bytes = vec![1, fix];
    // So many that no position is taken for the bytes of an early operation.
    bytes.extend_from_slice(&(100 + word % 101).to_le_bytes()[..2]);
    for number in [told(1, word % 90_000_001), told(1, (word >> 1) % 180_000_001), told(2, word % 2_000_000_001)] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    for number in [told(1, word % 65_536), told(1, (word >> 3) % 36_000)] {
        bytes.extend_from_slice(&number.to_le_bytes()[..2]);
    }
    bytes.extend_from_slice(&u64::from(op).to_le_bytes());
    bytes
}

fn schema() -> Value {
    json!({"records": [{"name": "r", "fields": [{"name": "op", "type": "string"}, {"name": "n", "type": "int64", "min": 0, "max": null}]}]})
}

impl Payload {
    /// The value of an operation: its number, then what follows from that.
    pub fn of(self, op: u32) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.len.max(OP_BYTES));
        bytes.extend_from_slice(&op.to_le_bytes());
        let mut word = op.wrapping_mul(0x9e37_79b9) | 1;
        while bytes.len() < self.len {
            if bytes.len() == self.len / 4 {
                // What follows is the same in all, as most of a document is that is written again.
                word = 1;
            }
            word = word.wrapping_mul(0x0019_660d).wrapping_add(0x3c6e_f35f);
            bytes.push((word >> 24) as u8);
        }
        let text = || bytes[OP_BYTES..].chunks(2).fold(format!("{op} "), |text, pair| format!("{text}{:02x}", pair[0]));
        let (topic_type, json) = match self.kind {
            Kind::Binary => return bytes,
            Kind::Custom => return position(op, word),
            Kind::Paged => return text().into_bytes(),
            Kind::Protobuf => {
                let numbers: Vec<i32> = (0..word % 5).map(|at| word.rotate_left(at) as i32).collect();
                let parts: Vec<Value> = (0..word % 3).map(|at| json!({"even": at.is_multiple_of(2), "raw": "AAEC"})).collect();
                let message = json!({ "op": text(), "n": numbers, "part": parts });
                return value::from_json(self.kind.topic_type(), &message).expect("a value of its type");
            }
            Kind::Json | Kind::TimeSeries => (TopicType::Json, json!({ "op": text(), "even": op.is_multiple_of(2), "next": [op, null] })),
            Kind::String => (TopicType::String, json!(text())),
            Kind::Int64 => (TopicType::Int64, json!(op)),
            Kind::Double => (TopicType::Double, json!(f64::from(op) + 0.5)),
            Kind::Decimal => (TopicType::Decimal(2), json!(format!("{op}.25"))),
            // Its schema says no more than what the topic's definition does.
            Kind::Record => (TopicType::Json, json!({"r": {"op": text(), "n": [op, bytes.len()]}})),
        };
        value::from_json(&topic_type, &json).expect("a value of its type")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_names_its_operation_and_is_one_of_its_type() {
        for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Paged) {
            for (op, len) in [(0, 0), (7, 4), (8, 100), (9, 33), (u32::MAX, 5)] {
                let value = Payload { kind, len }.of(op);
                assert_eq!((kind.op(&value), kind.takes(&value), Kind::of_name(kind.name())), (Some(op), true, Some(kind)));
            }
            assert_ne!(Payload { kind, len: 64 }.of(1), Payload { kind, len: 64 }.of(2));
        }
        assert_eq!(Payload { kind: Kind::Binary, len: 100 }.of(7).len(), 100);
        assert_eq!(Kind::Binary.op(&[1, 2]), None);
        assert_eq!(Kind::Json.op(&Payload { kind: Kind::String, len: 8 }.of(7)), None);
        assert_eq!(Payload { kind: Kind::Paged, len: 4 }.of(7), b"7 ");
    }

    #[test]
    fn each_definition_names_a_blob_of_its_own_and_takes_the_same_values() {
        for kind in Kind::ALL.into_iter().filter(|kind| kind.names_blob()) {
            let definition = |variant| {
                let (definition, content) = (kind.spec(variant).definition().expect("a definition"), kind.blob(variant).expect("a blob"));
                let hash = BlobHash::of(&content);
                assert_eq!(definition.blobs(), [hash]);
                definition.topic_type().supply(&hash, &Blob::new(content.into())).expect("of use");
                definition
            };
            let all: Vec<Definition> = (0..VARIANTS).map(definition).collect();
            assert!(all.iter().all(|definition| value::validate(definition.topic_type(), &Payload { kind, len: 50 }.of(7)).is_ok()));
            assert!((1..VARIANTS).all(|variant| all[variant].blobs() != all[0].blobs()));
        }
    }
}
