//! The types that topics may have.

use std::{fmt, sync::Arc};

use super::{DefinitionError, IN_BLOB, unknown};
use crate::{
    blob::{Blob, BlobHash, FromBlob, NotABlob},
    custom::Custom,
    json_schema::JsonSchema,
    path::Path,
    protobuf::MessageOf,
    record::Schema,
    sabotage::hides_type,
    series::{self, SeriesType},
    time::{duration_text, parse_duration_ms},
    value::SCALE_MAX,
};

/// What values a topic takes.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
#[non_exhaustive]
pub enum TopicType {
    /// Any JSON value; null is a value like others.
    Json,
    /// JSON values as a schema says.
    JsonAs(Arc<JsonSchema>),
    /// Bytes, taken as they are.
    Binary,
    /// A text, or no value.
    String,
    /// A signed 64-bit integer, or no value.
    Int64,
    /// A finite 64-bit floating-point number, or no value.
    Double,
    /// A decimal number with so many digits after the point, at most [`SCALE_MAX`], or no value.
    Decimal(u8),
    /// Records of fields.
    Record(Arc<Schema>),
    /// Messages of protobuf.
    Protobuf(Arc<MessageOf>),
    /// Bytes that a WebAssembly module judges and shows, which is a blob.
    Custom(Arc<FromBlob<Arc<Custom>>>),
    /// Another name for the topic at this path: it shows that one's type and value to its readers, and takes none itself. It is not there for them on a node without
    /// that topic, nor if that is such a name, too.
    Slave(Path),
    /// No values: messages, for whoever is there to hear them.
    Stateless,
    /// Events, each a value of some type, in an order that is the same everywhere.
    TimeSeries(Arc<SeriesType>),
    /// A list of lines of text, on the node alone where it was made: see [`paged`](crate::paged). Its value says what the list has come to.
    Paged,
    /// One that a newer version has made up, by its number. Such topics are carried and stored as they are; what their values mean is not known here.
    Unknown(u64),
}

impl TopicType {
    /// The types that need no parameters.
    pub const PLAIN: [TopicType; 7] = [
        TopicType::Json,
        TopicType::Binary,
        TopicType::String,
        TopicType::Int64,
        TopicType::Double,
        TopicType::Stateless,
        TopicType::Paged,
    ];

    /// The type's name on a command line and in JSON.
    pub fn name(&self) -> &'static str {
        match self {
            TopicType::Json | TopicType::JsonAs(_) => "json",
            TopicType::Binary => "binary",
            TopicType::String => "string",
            TopicType::Int64 => "int64",
            TopicType::Double => "double",
            TopicType::Decimal(_) => DECIMAL,
            TopicType::Record(_) => RECORD,
            TopicType::Protobuf(_) => PROTOBUF,
            TopicType::Custom(_) => CUSTOM,
            TopicType::Slave(_) => SLAVE,
            TopicType::Stateless => "stateless",
            TopicType::TimeSeries(_) => TIME_SERIES,
            TopicType::Paged => "paged",
            TopicType::Unknown(_) => "unknown",
        }
    }

    /// The type with the given name, letters in any case, and parameters.
    pub(super) fn named(name: &str, parameters: Parameters<serde_json::Value, String>) -> Result<TopicType, DefinitionError> {
        if name.eq_ignore_ascii_case(TIME_SERIES) {
            return TopicType::series_named(parameters);
        }
        let Parameters { scale, schema, master, blobs, of, keep, keep_for_ms, message, descriptors, module } = parameters;
        let plain = TopicType::PLAIN.into_iter().find(|topic_type| topic_type.name().eq_ignore_ascii_case(name));
        let topic_type = if name.eq_ignore_ascii_case(DECIMAL) {
            TopicType::Decimal(scale.ok_or(DefinitionError::Missing { topic_type: DECIMAL, key: "scale" })?)
        } else if name.eq_ignore_ascii_case(RECORD) {
            if !blobs.is_empty() {
                return Err(DefinitionError::BadSchema("that of a record stands in its definition".into()));
            }
            let schema = schema.as_ref().ok_or(DefinitionError::Missing { topic_type: RECORD, key: "schema" })?;
            let schema = Schema::new(schema).map_err(|error| DefinitionError::BadSchema(error.to_string()))?;
            TopicType::Record(Arc::new(schema))
        } else if name.eq_ignore_ascii_case(PROTOBUF) {
            let set = descriptors.ok_or(DefinitionError::Missing { topic_type: PROTOBUF, key: "descriptors" })?;
            let name = message.as_deref().ok_or(DefinitionError::Missing { topic_type: PROTOBUF, key: "message" })?;
            TopicType::Protobuf(Arc::new(message_of(name, set)?))
        } else if name.eq_ignore_ascii_case(CUSTOM) {
            let module = module.ok_or(DefinitionError::Missing { topic_type: CUSTOM, key: "module" })?;
            TopicType::Custom(Arc::new(FromBlob::new(module)))
        } else if name.eq_ignore_ascii_case(SLAVE) {
            TopicType::Slave(master.clone().ok_or(DefinitionError::Missing { topic_type: SLAVE, key: "master" })?)
        } else {
            let known = TopicType::PLAIN.iter().map(TopicType::name).chain([DECIMAL, RECORD, PROTOBUF, CUSTOM, SLAVE, TIME_SERIES]);
            match (plain.ok_or_else(|| unknown("topic type", name, known))?, &schema) {
                (TopicType::Json, Some(schema)) => {
                    TopicType::JsonAs(JsonSchema::new(schema).map(Arc::new).map_err(DefinitionError::BadSchema)?)
                }
                (TopicType::Json, None) if !blobs.is_empty() => TopicType::JsonAs(Arc::new(JsonSchema::in_blob(blobs[0]))),
                (plain, _) => plain,
            }
        };
        if hides_type(topic_type.name()) {
            return Err(unknown("topic type", name, TopicType::PLAIN.iter().map(TopicType::name).filter(|name| !hides_type(name))));
        }
        let strange = |key, given: bool, taken: bool| match given && !taken {
            true => Err(DefinitionError::Foreign { topic_type: topic_type.name(), key }),
            false => Ok(()),
        };
        strange("scale", scale.is_some(), matches!(topic_type, TopicType::Decimal(_)))?;
        strange("schema", schema.is_some() || !blobs.is_empty(), matches!(topic_type, TopicType::Record(_) | TopicType::JsonAs(_)))?;
        strange("master", master.is_some(), matches!(topic_type, TopicType::Slave(_)))?;
        strange("descriptors", descriptors.is_some(), matches!(topic_type, TopicType::Protobuf(_)))?;
        strange("message", message.is_some(), matches!(topic_type, TopicType::Protobuf(_)))?;
        strange("module", module.is_some(), matches!(topic_type, TopicType::Custom(_)))?;
        strange("of", of.is_some(), false)?;
        strange("keep", keep.is_some(), false)?;
        strange("keep_for", keep_for_ms.is_some(), false)?;
        Ok(topic_type)
    }

    /// A series of events that are values of a type, to which the other parameters belong.
    fn series_named(parameters: Parameters<serde_json::Value, String>) -> Result<TopicType, DefinitionError> {
        let name = parameters.of.clone().unwrap_or_else(|| "json".into());
        let (keep, keep_for_ms) = (parameters.keep, parameters.keep_for_ms);
        let of = TopicType::named(&name, Parameters { of: None, keep: None, keep_for_ms: None, ..parameters })?;
        if !of.has_values() {
            let expected = "a type of values: json, binary, string, int64, double, decimal, record, protobuf or custom";
            return Err(DefinitionError::BadProperty { key: "of", value: name, expected });
        }
        Ok(TopicType::TimeSeries(Arc::new(SeriesType { of, keep: keep.unwrap_or(series::KEEP_DEFAULT), keep_for_ms })))
    }

    /// Whether topics of this type hold one value each, whose type it says.
    fn has_values(&self) -> bool {
        !matches!(self, TopicType::Slave(_) | TopicType::Stateless | TopicType::TimeSeries(_) | TopicType::Paged | TopicType::Unknown(_))
    }

    /// What the values are that a topic of this type takes and shows, one at a time.
    pub fn value_type(&self) -> &TopicType {
        match self {
            TopicType::TimeSeries(series) => &series.of,
            other => other,
        }
    }

    /// What a series is of and keeps, if it is one.
    pub fn series(&self) -> Option<&SeriesType> {
        match self {
            TopicType::TimeSeries(series) => Some(series),
            _ => None,
        }
    }

    /// The value within the bytes of a register of a topic of this type: all of them, but for events.
    pub fn value_in<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        match self {
            TopicType::TimeSeries(_) => series::Content::value_of(bytes),
            _ => Some(bytes),
        }
    }

    /// The blobs that say the rest of what it is.
    pub fn blobs(&self) -> &[BlobHash] {
        match self.value_type() {
            TopicType::JsonAs(schema) => schema.blob().map_or(&[], std::slice::from_ref),
            TopicType::Protobuf(message) => std::slice::from_ref(message.set()),
            TopicType::Custom(module) => std::slice::from_ref(module.hash()),
            _ => &[],
        }
    }

    /// One of its blobs is here. Until then it takes no values.
    ///
    /// # Errors
    /// Why the blob is no use to this type: then it never takes any.
    pub fn supply(&self, hash: &BlobHash, blob: &Blob) -> Result<(), String> {
        match self.value_type() {
            TopicType::JsonAs(schema) => schema.supply(hash, blob.content()),
            TopicType::Protobuf(message) => message.supply(hash, blob),
            TopicType::Custom(module) => module.supply(hash, blob.content(), |_| blob.module()),
            _ => Ok(()),
        }
    }

    /// Whether a topic of this type may be without a value even after a write.
    pub fn may_have_no_value(&self) -> bool {
        matches!(self, TopicType::String | TopicType::Int64 | TopicType::Double | TopicType::Decimal(_))
    }

    /// What it needs besides its name, as names and values that [`Definition::parse`](super::Definition::parse) takes.
    pub(super) fn explicit(&self) -> Vec<(&'static str, String)> {
        let mut listed = match self.value_type() {
            TopicType::Decimal(scale) => vec![("scale", scale.to_string())],
            TopicType::JsonAs(schema) => vec![("schema", schema.to_string())],
            TopicType::Record(schema) => vec![("schema", schema.to_json().to_string())],
            TopicType::Protobuf(message) => {
                vec![("descriptors", format!("{IN_BLOB}{}", message.set())), ("message", message.name().to_owned())]
            }
            TopicType::Custom(module) => vec![("module", format!("{IN_BLOB}{}", module.hash()))],
            TopicType::Slave(master) => vec![("master", master.to_string())],
            _ => Vec::new(),
        };
        if let Some(SeriesType { of, keep, keep_for_ms }) = self.series() {
            listed.extend([("of", of.to_string()), ("keep", keep.to_string())]);
            listed.extend(keep_for_ms.map(|ms| ("keep_for", duration_text(ms))));
        }
        listed
    }

    pub(super) fn code(&self) -> u64 {
        match self {
            TopicType::Json | TopicType::JsonAs(_) => 0,
            TopicType::Binary => 1,
            TopicType::String => 2,
            TopicType::Int64 => 3,
            TopicType::Double => 4,
            TopicType::Decimal(_) => 5,
            TopicType::Record(_) => 6,
            TopicType::Slave(_) => 7,
            TopicType::Stateless => 8,
            TopicType::TimeSeries(_) => 9,
            TopicType::Protobuf(_) => 10,
            TopicType::Custom(_) => 11,
            TopicType::Paged => 12,
            TopicType::Unknown(code) => *code,
        }
    }

    /// The type with this number and these parameters; `None` if there is none.
    pub(super) fn from_code(code: u64, parameters: Parameters<Box<[u8]>, u64>) -> Option<TopicType> {
        if let (9, Some(of), Some(keep)) = (code, parameters.of, parameters.keep) {
            let keep_for_ms = parameters.keep_for_ms;
            let of = TopicType::from_code(of, Parameters { of: None, keep: None, keep_for_ms: None, ..parameters });
            let of = of.filter(TopicType::has_values)?;
            return Some(TopicType::TimeSeries(Arc::new(SeriesType { of, keep, keep_for_ms })));
        }
        let Parameters { scale, schema, master, blobs, of: None, keep: None, keep_for_ms: None, message, .. } = parameters else {
            return None;
        };
        if let Some(message) = message {
            return match (code, scale, schema, master, &blobs[..]) {
                (10, None, None, None, [set]) => MessageOf::new(&message, *set).map(|message| TopicType::Protobuf(Arc::new(message))),
                _ => None,
            };
        }
        match (code, scale, schema, master, &blobs[..]) {
            (11, None, None, None, [module]) => Some(TopicType::Custom(Arc::new(FromBlob::new(*module)))),
            (5, Some(scale), None, None, []) => Some(TopicType::Decimal(scale)),
            (0, None, Some(schema), None, []) => JsonSchema::from_bytes(&schema).map(|schema| TopicType::JsonAs(Arc::new(schema))),
            (0, None, None, None, [blob]) => Some(TopicType::JsonAs(Arc::new(JsonSchema::in_blob(*blob)))),
            (6, None, Some(schema), None, []) => Schema::from_bytes(&schema).map(|schema| TopicType::Record(Arc::new(schema))),
            (7, None, None, Some(master), []) => Some(TopicType::Slave(master)),
            (code, None, None, None, []) => TopicType::PLAIN.into_iter().find(|plain| plain.code() == code),
            _ => None,
        }
    }
}

const DECIMAL: &str = "decimal";
const RECORD: &str = "record";
const PROTOBUF: &str = "protobuf";
const CUSTOM: &str = "custom";
const SLAVE: &str = "slave";
const TIME_SERIES: &str = "timeseries";

/// What types may need besides their names; schemas and types as they are written.
pub(super) struct Parameters<S, T> {
    pub(super) scale: Option<u8>,
    pub(super) schema: Option<S>,
    pub(super) master: Option<Path>,
    pub(super) blobs: Vec<BlobHash>,
    pub(super) of: Option<T>,
    pub(super) keep: Option<u32>,
    pub(super) keep_for_ms: Option<u64>,
    pub(super) message: Option<String>,
    /// Where it is spelled; where it is encoded, it is among the blobs.
    pub(super) descriptors: Option<BlobHash>,
    pub(super) module: Option<BlobHash>,
}

impl<S, T> Parameters<S, T> {
    pub(super) const NONE: Self = Parameters {
        scale: None,
        schema: None,
        master: None,
        blobs: Vec::new(),
        of: None,
        keep: None,
        keep_for_ms: None,
        message: None,
        descriptors: None,
        module: None,
    };
}

impl Parameters<serde_json::Value, String> {
    /// Reads one as it is spelled; false if it is none of these.
    pub(super) fn set(&mut self, key: &'static str, value: &str) -> Result<bool, DefinitionError> {
        match key {
            "scale" => self.scale = Some(scale_of(value)?),
            "schema" if value.starts_with(IN_BLOB) => {
                let hash = value[IN_BLOB.len()..].parse().map_err(|error: NotABlob| DefinitionError::BadSchema(error.to_string()))?;
                self.blobs.push(hash);
            }
            "schema" => {
                let schema = serde_json::from_str(value).map_err(|error| DefinitionError::BadSchema(error.to_string()))?;
                self.schema = Some(schema);
            }
            "master" => self.master = Some(master_of(value)?),
            "of" => self.of = Some(value.to_owned()),
            "keep" => self.keep = Some(keep_of(value)?),
            "keep_for" => self.keep_for_ms = Some(keep_for_of(value)?),
            "descriptors" => self.descriptors = Some(in_blob(key, value)?),
            "message" => self.message = Some(value.to_owned()),
            "module" => self.module = Some(in_blob(key, value)?),
            _ => return Ok(false),
        }
        Ok(true)
    }
}

impl fmt::Display for TopicType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TopicType::Unknown(code) => write!(f, "unknown({code})"),
            known => f.write_str(known.name()),
        }
    }
}

fn scale_of(value: &str) -> Result<u8, DefinitionError> {
    let scale = value.parse().ok().filter(|scale| *scale <= SCALE_MAX);
    scale.ok_or_else(|| DefinitionError::BadProperty { key: "scale", value: value.into(), expected: "a number from 0 to 18" })
}

pub(super) fn master_of(value: &str) -> Result<Path, DefinitionError> {
    let path = Path::parse(value).ok().filter(|path| !path.is_reserved());
    path.ok_or_else(|| DefinitionError::BadProperty { key: "master", value: value.into(), expected: "the path of another topic" })
}

fn keep_of(value: &str) -> Result<u32, DefinitionError> {
    let keep = value.parse().ok().filter(|keep| (1..=series::KEEP_MAX).contains(keep));
    keep.ok_or_else(|| DefinitionError::BadProperty { key: "keep", value: value.into(), expected: "a number of events, 1 to 1000000" })
}

fn keep_for_of(value: &str) -> Result<u64, DefinitionError> {
    let ms = parse_duration_ms(value).filter(|ms| *ms > 0);
    ms.ok_or_else(|| DefinitionError::BadProperty { key: "keep_for", value: value.into(), expected: "a time such as 90s, 12h or 7d" })
}

fn in_blob(key: &'static str, value: &str) -> Result<BlobHash, DefinitionError> {
    let hash = value.strip_prefix(IN_BLOB).and_then(|hash| hash.parse().ok());
    hash.ok_or_else(|| DefinitionError::BadProperty { key, value: value.into(), expected: "a blob: blob: and 64 hexadecimal digits" })
}

fn message_of(name: &str, set: BlobHash) -> Result<MessageOf, DefinitionError> {
    let expected = "a message's whole name, such as telemetry.Reading";
    MessageOf::new(name, set).ok_or_else(|| DefinitionError::BadProperty { key: "message", value: name.into(), expected })
}
