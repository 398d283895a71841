//! What clients write: values that name the operation that wrote them, in the form that each type of topic takes.
//!
//! Whoever sees a value knows which operation it is of, and whether it is whole.

use mangrove::protocol::TopicSpec;
use mangrove_crdt::{definition::TopicType, value};
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

/// The type of slaves, by name.
pub const SLAVE: &str = "slave";

/// The definition of a slave of a topic.
pub fn slave_of(master: &str) -> TopicSpec {
    TopicSpec { topic_type: SLAVE.into(), properties: [("master".to_owned(), master.to_owned())].into() }
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 8] =
        [Kind::Binary, Kind::Json, Kind::String, Kind::Int64, Kind::Double, Kind::Decimal, Kind::Record, Kind::TimeSeries];

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
        }
    }

    /// The one whose type has this name.
    pub fn of_name(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Whether its topics take a value.
    pub fn takes(self, value: &[u8]) -> bool {
        let definition = self.spec().definition().expect("a definition");
        value::validate(definition.topic_type(), value).is_ok()
    }

    /// The definition of its topics.
    pub fn spec(self) -> TopicSpec {
        let property = match self {
            Kind::Decimal => Some(("scale", "2".to_owned())),
            Kind::Record => Some(("schema", schema().to_string())),
            Kind::TimeSeries => Some(("keep", "5".to_owned())),
            _ => None,
        };
        let properties = property.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        TopicSpec { topic_type: self.name().into(), properties }
    }

    /// The operation that a value of this type names, if it is one.
    pub fn op(self, bytes: &[u8]) -> Option<u32> {
        if self == Kind::Binary {
            return Some(u32::from_le_bytes(*bytes.first_chunk::<OP_BYTES>()?));
        }
        let of = if self == Kind::TimeSeries { Kind::Json } else { self };
        let value = value::json_of(of.name(), bytes)?;
        let number = |text: &str, end: char| text.split(end).next()?.parse().ok();
        match self {
            Kind::Json | Kind::TimeSeries => number(value.get("op")?.as_str()?, ' '),
            Kind::Record => number(value.get("r")?.get("op")?.as_str()?, ' '),
            Kind::String => number(value.as_str()?, ' '),
            Kind::Int64 => value.as_u64().and_then(|op| u32::try_from(op).ok()),
            Kind::Double => value.as_f64().map(|op| op as u32),
            Kind::Decimal => number(value.as_str()?, '.'),
            Kind::Binary => None,
        }
    }
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
        for kind in Kind::ALL {
            for (op, len) in [(0, 0), (7, 4), (7, 100), (u32::MAX, 5)] {
                let value = Payload { kind, len }.of(op);
                assert_eq!((kind.op(&value), kind.takes(&value), Kind::of_name(kind.name())), (Some(op), true, Some(kind)));
            }
            assert_ne!(Payload { kind, len: 64 }.of(1), Payload { kind, len: 64 }.of(2));
        }
        assert_eq!(Payload { kind: Kind::Binary, len: 100 }.of(7).len(), 100);
        assert_eq!(Kind::Binary.op(&[1, 2]), None);
        assert_eq!(Kind::Json.op(&Payload { kind: Kind::String, len: 8 }.of(7)), None);
    }
}
