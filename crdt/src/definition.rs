//! What a topic is: its type and properties, fixed at its creation.
//!
//! A definition is known by the hash of its bytes, so its encoding is canonical: a CBOR map with ascending numbered keys
//! in which whatever has its default value is left out. Decoding accepts those bytes only.

use std::{fmt, sync::Arc};

use minicbor::{Decode, Decoder, Encode, Encoder};

use crate::{
    blob::{Blob, BlobHash, FromBlob, NAMED_MAX, NotABlob},
    custom::Custom,
    json_schema::JsonSchema,
    path::Path,
    protobuf::MessageOf,
    record::Schema,
    sabotage::{Sabotage, hides_type, is},
    series::{self, SeriesType},
    time::{duration_text, parse_duration_ms},
    value::SCALE_MAX,
};

/// How long an encoded definition is at most, in bytes: each topic has its own.
pub const DEFINITION_BYTES_MAX: usize = 4096;

/// How many other nodes' disks `mesh(k)` can ask for.
pub const MESH_COPIES_MAX: u8 = 64;

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
    fn named(name: &str, parameters: Parameters<serde_json::Value, String>) -> Result<TopicType, DefinitionError> {
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
            TopicType::Protobuf(message) => message.supply(hash, blob.content()),
            TopicType::Custom(module) => module.supply(hash, blob.content(), |_| blob.module()),
            _ => Ok(()),
        }
    }

    /// Whether a topic of this type may be without a value even after a write.
    pub fn may_have_no_value(&self) -> bool {
        matches!(self, TopicType::String | TopicType::Int64 | TopicType::Double | TopicType::Decimal(_))
    }

    fn code(&self) -> u64 {
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
    fn from_code(code: u64, parameters: Parameters<Box<[u8]>, u64>) -> Option<TopicType> {
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
struct Parameters<S, T> {
    scale: Option<u8>,
    schema: Option<S>,
    master: Option<Path>,
    blobs: Vec<BlobHash>,
    of: Option<T>,
    keep: Option<u32>,
    keep_for_ms: Option<u64>,
    message: Option<String>,
    /// Where it is spelled; where it is encoded, it is among the blobs.
    descriptors: Option<BlobHash>,
    module: Option<BlobHash>,
}

impl<S, T> Parameters<S, T> {
    const NONE: Self = Parameters {
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

impl fmt::Display for TopicType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TopicType::Unknown(code) => write!(f, "unknown({code})"),
            known => f.write_str(known.name()),
        }
    }
}

/// Whether a subscriber that falls behind may be spared values that newer ones have replaced.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Conflate {
    /// Never: every value that this node sees is delivered, as long as the subscriber's buffer allows.
    Off,
    /// Where the subscriber is slow.
    #[default]
    On,
    /// Always: only the newest value is ever waiting.
    Always,
}

/// Which topics go first where a link or a subscriber cannot take all at once.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Priority {
    /// After the others.
    Low,
    /// In between.
    #[default]
    Normal,
    /// Before the others.
    High,
}

/// Where a write must be before it is acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Durability {
    /// In this node's memory.
    Memory,
    /// On this node's disk.
    Disk,
    /// On this node's disk and on those of so many other nodes, 1 to [`MESH_COPIES_MAX`].
    Mesh(u8),
}

impl Durability {
    /// On how many disks the write is: the number that stands for a durability in every encoding.
    pub fn disks(self) -> u8 {
        match self {
            Durability::Memory => 0,
            Durability::Disk => 1,
            Durability::Mesh(copies) => copies.saturating_add(1),
        }
    }

    /// The inverse of [`Durability::disks`]; `None` beyond [`MESH_COPIES_MAX`] other nodes.
    pub fn from_disks(disks: u64) -> Option<Durability> {
        match u8::try_from(disks).ok()? {
            0 => Some(Durability::Memory),
            1 => Some(Durability::Disk),
            disks if disks - 1 <= MESH_COPIES_MAX => Some(Durability::Mesh(disks - 1)),
            _ => None,
        }
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Durability::Memory => f.write_str("memory"),
            Durability::Disk => f.write_str("disk"),
            Durability::Mesh(copies) => write!(f, "mesh({copies})"),
        }
    }
}

impl std::str::FromStr for Durability {
    type Err = DefinitionError;

    fn from_str(text: &str) -> Result<Self, DefinitionError> {
        let copies = text.strip_prefix("mesh(").and_then(|rest| rest.strip_suffix(')'));
        match (text, copies.map(str::parse)) {
            ("memory", _) => Ok(Durability::Memory),
            ("disk", _) => Ok(Durability::Disk),
            (_, Some(Ok(copies @ 1..=MESH_COPIES_MAX))) => Ok(Durability::Mesh(copies)),
            _ => Err(DefinitionError::BadProperty {
                key: "durability",
                value: text.into(),
                expected: "memory, disk or mesh(k) with k from 1 to 64",
            }),
        }
    }
}

/// How a topic behaves, whatever its type.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Properties {
    /// Whether the topic keeps its latest value for those who come later.
    pub retain: bool,
    /// Whether values may be skipped on the way to a subscriber.
    pub conflate: Conflate,
    /// Whether values may be compressed on links and to subscribers.
    pub compress: bool,
    /// Its place among other topics where not all fit.
    pub priority: Priority,
    /// Whether a new value may be sent as its difference from the last.
    pub deltas: bool,
    /// Where writes must be before they are acknowledged; `None` leaves it to the section.
    pub durability: Option<Durability>,
}

impl Default for Properties {
    fn default() -> Self {
        Properties {
            retain: true,
            conflate: Conflate::default(),
            compress: true,
            priority: Priority::default(),
            deltas: true,
            durability: None,
        }
    }
}

/// The names of all properties, in the order of their documentation.
const PROPERTY_NAMES: [&str; 17] = [
    "retain",
    "conflate",
    "compress",
    "priority",
    "deltas",
    "durability",
    "owner",
    "removal",
    "scale",
    "schema",
    "master",
    "of",
    "keep",
    "keep_for",
    "descriptors",
    "message",
    "module",
];

/// Those of them that say what the values are.
pub const TYPE_PROPERTIES: [&str; 8] = ["scale", "schema", "of", "keep", "keep_for", "descriptors", "message", "module"];

/// What a topic is: its type and properties. Immutable.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Definition {
    topic_type: TopicType,
    properties: Properties,
    owner: Option<Box<str>>,
    removal: Option<Box<str>>,
    /// What there is of it, if this version does not know all that it says.
    carried: Option<Carried>,
}

/// What is kept of a definition of which this version does not know all that it says.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
struct Carried {
    bytes: Box<[u8]>,
    blobs: Box<[BlobHash]>,
}

/// How a property says that its content is a blob, before the blob's name.
pub(crate) const IN_BLOB: &str = "blob:";

/// How long the text of a property is at most, in bytes.
pub const PROPERTY_TEXT_BYTES_MAX: usize = 1_024;

/// A definition's name: the first 16 bytes of the BLAKE3 hash of its canonical encoding.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct DefinitionHash(#[cbor(with = "minicbor::bytes")] pub [u8; 16]);

impl fmt::Display for DefinitionHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for DefinitionHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DefinitionHash({self})")
    }
}

/// Why there is no such definition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DefinitionError {
    /// No type or property has this name.
    #[error("unknown {what} {name:?}{}; there are {known}", hint.as_deref().map(|hint| format!(", did you mean {hint:?}?")).unwrap_or_default())]
    UnknownName {
        /// Whether a type or a property was looked for.
        what: &'static str,
        /// What was asked for.
        name: String,
        /// The known name nearest to it, if one is near.
        hint: Option<String>,
        /// All known names.
        known: String,
    },
    /// The property takes no such value.
    #[error("{key} is {expected}, not {value:?}")]
    BadProperty {
        /// The property.
        key: &'static str,
        /// What it was given.
        value: String,
        /// What it takes.
        expected: &'static str,
    },
    /// The property is given twice.
    #[error("property {0} is given twice")]
    RepeatedProperty(&'static str),
    /// The encoding is too long.
    #[error("a definition has at most {DEFINITION_BYTES_MAX} bytes, this one has {0}")]
    TooLong(usize),
    /// The type needs a property that is not there.
    #[error("a topic of type {topic_type} needs the property {key}")]
    Missing {
        /// The type.
        topic_type: &'static str,
        /// The property.
        key: &'static str,
    },
    /// The type has no such property.
    #[error("a topic of type {topic_type} has no property {key}")]
    Foreign {
        /// The type.
        topic_type: &'static str,
        /// The property.
        key: &'static str,
    },
    /// The schema is none.
    #[error("no schema: {0}")]
    BadSchema(String),
    /// The encoding is not that of any definition.
    #[error("not the canonical encoding of a definition")]
    Malformed,
}

impl Definition {
    /// A definition of the given type with the given properties.
    ///
    /// A [`Durability::Mesh`] outside its range is brought into it.
    pub fn new(topic_type: TopicType, mut properties: Properties) -> Definition {
        if let Some(Durability::Mesh(copies)) = &mut properties.durability {
            *copies = (*copies).clamp(1, MESH_COPIES_MAX);
        }
        Definition { topic_type, properties, owner: None, removal: None, carried: None }
    }

    /// The same for which something else says when it is to be removed: a text that whoever judges that understands.
    ///
    /// # Errors
    /// It is empty, or too long.
    pub fn with_removal(mut self, removal: &str) -> Result<Definition, DefinitionError> {
        self.removal = Some(text("removal", removal)?);
        self.checked()
    }

    /// The same, if it is not too long.
    fn checked(self) -> Result<Definition, DefinitionError> {
        match self.to_bytes().len() {
            long if long > DEFINITION_BYTES_MAX => Err(DefinitionError::TooLong(long)),
            _ => Ok(self),
        }
    }

    /// The definition that a command line spells: a type's name, and properties by name.
    pub fn parse<K: AsRef<str>, V: AsRef<str>>(topic_type: &str, properties: &[(K, V)]) -> Result<Definition, DefinitionError> {
        let mut parsed = Properties::default();
        let mut seen: Vec<&'static str> = Vec::new();
        let (mut owner, mut removal, mut parameters) = (None, None, Parameters::NONE);
        for (key, value) in properties {
            let key = property_name(key.as_ref())?;
            if seen.contains(&key) {
                return Err(DefinitionError::RepeatedProperty(key));
            }
            seen.push(key);
            match key {
                "owner" => owner = Some(text(key, value.as_ref())?),
                "removal" => removal = Some(text(key, value.as_ref())?),
                "scale" => parameters.scale = Some(scale_of(value.as_ref())?),
                "schema" if value.as_ref().starts_with(IN_BLOB) => {
                    let hash =
                        value.as_ref()[IN_BLOB.len()..].parse().map_err(|error: NotABlob| DefinitionError::BadSchema(error.to_string()))?;
                    parameters.blobs.push(hash);
                }
                "schema" => {
                    let schema = serde_json::from_str(value.as_ref()).map_err(|error| DefinitionError::BadSchema(error.to_string()))?;
                    parameters.schema = Some(schema);
                }
                "master" => parameters.master = Some(master_of(value.as_ref())?),
                "of" => parameters.of = Some(value.as_ref().to_owned()),
                "keep" => parameters.keep = Some(keep_of(value.as_ref())?),
                "keep_for" => parameters.keep_for_ms = Some(keep_for_of(value.as_ref())?),
                "descriptors" => parameters.descriptors = Some(in_blob(key, value.as_ref())?),
                "message" => parameters.message = Some(value.as_ref().to_owned()),
                "module" => parameters.module = Some(in_blob(key, value.as_ref())?),
                key => parsed.set(key, value.as_ref())?,
            }
        }
        let topic_type = TopicType::named(topic_type, parameters)?;
        let definition = Definition { owner, removal, ..Definition::new(topic_type, parsed) };
        definition.checked()
    }

    /// The principal whose topic it is: it may do anything with it, whatever the rules say.
    pub fn owner(&self) -> Option<&str> {
        self.owner.as_deref()
    }

    /// When it is to be removed.
    pub fn removal(&self) -> Option<&str> {
        self.removal.as_deref()
    }

    /// What values the topic takes.
    pub fn topic_type(&self) -> &TopicType {
        &self.topic_type
    }

    /// The blobs that it names: without them nobody knows all that it says. Also those of a type that is not known here.
    pub fn blobs(&self) -> &[BlobHash] {
        match &self.carried {
            Some(carried) => &carried.blobs,
            None => self.topic_type.blobs(),
        }
    }

    /// How the topic behaves.
    pub fn properties(&self) -> &Properties {
        &self.properties
    }

    /// The properties that differ from their defaults, as names and values that [`Definition::parse`] takes.
    pub fn explicit_properties(&self) -> Vec<(&'static str, String)> {
        let (these, default) = (&self.properties, Properties::default());
        let mut listed = Vec::new();
        let mut list = |differs: bool, key, value: String| listed.extend(differs.then_some((key, value)));
        list(these.retain != default.retain, "retain", these.retain.to_string());
        list(these.conflate != default.conflate, "conflate", conflate_name(these.conflate).into());
        list(these.compress != default.compress, "compress", these.compress.to_string());
        list(these.priority != default.priority, "priority", priority_name(these.priority).into());
        list(these.deltas != default.deltas, "deltas", these.deltas.to_string());
        listed.extend(these.durability.map(|durability| ("durability", durability.to_string())));
        listed.extend(self.owner().map(|owner| ("owner", owner.to_owned())));
        listed.extend(self.removal().map(|removal| ("removal", removal.to_owned())));
        match self.topic_type.value_type() {
            TopicType::Decimal(scale) => listed.push(("scale", scale.to_string())),
            TopicType::JsonAs(schema) => listed.push(("schema", schema.to_string())),
            TopicType::Record(schema) => listed.push(("schema", schema.to_json().to_string())),
            TopicType::Protobuf(message) => {
                listed.extend([("descriptors", format!("{IN_BLOB}{}", message.set())), ("message", message.name().to_owned())]);
            }
            TopicType::Custom(module) => listed.push(("module", format!("{IN_BLOB}{}", module.hash()))),
            TopicType::Slave(master) => listed.push(("master", master.to_string())),
            _ => {}
        }
        if let Some(SeriesType { of, keep, keep_for_ms }) = self.topic_type.series() {
            listed.extend([("of", of.to_string()), ("keep", keep.to_string())]);
            listed.extend(keep_for_ms.map(|ms| ("keep_for", duration_text(ms))));
        }
        listed
    }

    /// The canonical encoding: equal definitions have equal bytes, on every node and in every version.
    pub fn to_bytes(&self) -> Vec<u8> {
        if let Some(carried) = &self.carried {
            return carried.bytes.to_vec();
        }
        let fields = self.fields();
        let mut e = Encoder::new(Vec::new());
        // Writing to a vector cannot fail.
        let written = e.map(fields.len() as u64).and_then(|e| {
            fields.iter().try_fold(e, |e, (field, value)| match value {
                Field::Number(number) => e.u8(*field)?.u64(*number),
                Field::Flag(flag) => e.u8(*field)?.bool(*flag),
                Field::Text(text) => e.u8(*field)?.str(text),
                Field::Bytes(bytes) => e.u8(*field)?.bytes(bytes),
                Field::Blobs(hashes) => e.u8(*field)?.bytes(&hashes.iter().flat_map(|hash| hash.0).collect::<Vec<_>>()),
            })
        });
        debug_assert!(written.is_ok(), "a vector takes any write");
        e.into_writer()
    }

    /// The inverse of [`Definition::to_bytes`]. What a newer version may have written is kept as it is, with a type that is unknown; other versions must
    /// then write maps as this one does, with numbers as keys, the type's first.
    ///
    /// # Errors
    /// It is too long, or what no version writes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Definition, DefinitionError> {
        if bytes.len() > DEFINITION_BYTES_MAX {
            return Err(DefinitionError::TooLong(bytes.len()));
        }
        let definition = decode(bytes)?;
        match definition.to_bytes() == bytes {
            true => Ok(definition),
            false => Err(DefinitionError::Malformed),
        }
    }

    /// The definition's name.
    pub fn hash(&self) -> DefinitionHash {
        DefinitionHash::of(&self.to_bytes())
    }

    fn fields(&self) -> Vec<(u8, Field<'_>)> {
        let (these, default) = (&self.properties, Properties::default());
        let mut fields = vec![(0, Field::Number(self.topic_type.code()))];
        let mut field = |differs: bool, number: u8, value: Field<'static>| fields.extend(differs.then_some((number, value)));
        field(these.retain != default.retain, 1, Field::Flag(these.retain));
        field(these.conflate != default.conflate, 2, Field::Number(these.conflate as u64));
        field(these.compress != default.compress, 3, Field::Flag(these.compress));
        field(these.priority != default.priority, 4, Field::Number(these.priority as u64));
        field(these.deltas != default.deltas, 5, Field::Flag(these.deltas));
        fields.extend(these.durability.map(|durability| (6, Field::Number(durability.disks().into()))));
        fields.extend(self.owner().map(|owner| (7, Field::Text(owner))));
        fields.extend(self.removal().map(|removal| (8, Field::Text(removal))));
        match self.topic_type.value_type() {
            TopicType::Decimal(scale) => fields.push((9, Field::Number((*scale).into()))),
            TopicType::JsonAs(schema) => fields.extend(schema.to_bytes().map(|bytes| (10, Field::Bytes(bytes)))),
            TopicType::Record(schema) => fields.push((10, Field::Bytes(schema.to_bytes()))),
            TopicType::Slave(master) => fields.push((11, Field::Text(master.as_str()))),
            _ => {}
        }
        // The same field for every type, so that those carry the blobs who do not know the type.
        let blobs = self.blobs();
        fields.extend((!blobs.is_empty()).then_some((12, Field::Blobs(blobs))));
        if let Some(SeriesType { of, keep, keep_for_ms }) = self.topic_type.series() {
            fields.extend([(13, Field::Number(of.code())), (14, Field::Number((*keep).into()))]);
            fields.extend(keep_for_ms.map(|ms| (15, Field::Number(ms))));
        }
        if let TopicType::Protobuf(message) = self.topic_type.value_type() {
            fields.push((16, Field::Text(message.name())));
        }
        fields
    }
}

impl DefinitionHash {
    /// The name of the definition with the given encoding.
    pub fn of(bytes: &[u8]) -> DefinitionHash {
        let hash = blake3::hash(bytes);
        let mut first = [0; 16];
        first.copy_from_slice(&hash.as_bytes()[..16]);
        DefinitionHash(first)
    }
}

impl Properties {
    fn set(&mut self, key: &'static str, value: &str) -> Result<(), DefinitionError> {
        match key {
            "retain" => self.retain = flag(key, value)?,
            "conflate" => self.conflate = conflate(value)?,
            "compress" => self.compress = flag(key, value)?,
            "priority" => self.priority = priority(value)?,
            "deltas" => self.deltas = flag(key, value)?,
            "durability" => self.durability = Some(value.parse()?),
            _ => return Err(DefinitionError::BadProperty { key, value: value.into(), expected: "no property of this kind" }),
        }
        Ok(())
    }
}

enum Field<'a> {
    Number(u64),
    Flag(bool),
    Text(&'a str),
    Bytes(&'a [u8]),
    Blobs(&'a [BlobHash]),
}

fn scale_of(value: &str) -> Result<u8, DefinitionError> {
    let scale = value.parse().ok().filter(|scale| *scale <= SCALE_MAX);
    scale.ok_or_else(|| DefinitionError::BadProperty { key: "scale", value: value.into(), expected: "a number from 0 to 18" })
}

fn master_of(value: &str) -> Result<Path, DefinitionError> {
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

fn text(key: &'static str, value: &str) -> Result<Box<str>, DefinitionError> {
    let fits = (1..=PROPERTY_TEXT_BYTES_MAX).contains(&value.len()) && !value.chars().any(char::is_control);
    let expected = "a text of 1 to 1024 bytes, without control characters";
    fits.then(|| value.into()).ok_or_else(|| DefinitionError::BadProperty { key, value: value.into(), expected })
}

fn decode(bytes: &[u8]) -> Result<Definition, DefinitionError> {
    let malformed = |_| DefinitionError::Malformed;
    let mut d = Decoder::new(bytes);
    let count = d.map().map_err(malformed)?.ok_or(DefinitionError::Malformed)?;
    if count == 0 || d.u64().map_err(malformed)? != 0 {
        return Err(DefinitionError::Malformed);
    }
    let code = d.u64().map_err(malformed)?;
    let mut definition = Definition::new(TopicType::Unknown(code), Properties::default());
    let (mut parameters, mut strange) = (Parameters::NONE, false);
    for _ in 1..count {
        let field = d.u64().map_err(malformed)?;
        let mut ahead = d.clone();
        if read_field(&mut ahead, field, &mut definition, &mut parameters).is_some() {
            d = ahead;
        } else {
            strange = true;
            d.skip().map_err(malformed)?;
        }
    }
    if d.position() != bytes.len() {
        return Err(DefinitionError::Malformed);
    }
    let blobs = parameters.blobs.clone().into();
    match TopicType::from_code(code, parameters).filter(|known| !strange && !hides_type(known.name())) {
        Some(topic_type) => definition.topic_type = topic_type,
        None if is(Sabotage::RefusesUnknown) => return Err(DefinitionError::Malformed),
        None => definition.carried = Some(Carried { bytes: bytes.into(), blobs }),
    }
    Ok(definition)
}

/// Reads one field; `None` if this version does not know it, or not what it says.
fn read_field(d: &mut Decoder<'_>, field: u64, definition: &mut Definition, parameters: &mut Parameters<Box<[u8]>, u64>) -> Option<()> {
    let these = &mut definition.properties;
    match field {
        1 => these.retain = d.bool().ok()?,
        2 => these.conflate = one_of(d, [Conflate::Off, Conflate::On, Conflate::Always])?,
        3 => these.compress = d.bool().ok()?,
        4 => these.priority = one_of(d, [Priority::Low, Priority::Normal, Priority::High])?,
        5 => these.deltas = d.bool().ok()?,
        6 => these.durability = Some(Durability::from_disks(d.u64().ok()?)?),
        7 => definition.owner = Some(text("owner", d.str().ok()?).ok()?),
        8 => definition.removal = Some(text("removal", d.str().ok()?).ok()?),
        9 => parameters.scale = Some(d.u8().ok().filter(|scale| *scale <= SCALE_MAX)?),
        10 => parameters.schema = Some(d.bytes().ok()?.into()),
        11 => parameters.master = Some(master_of(d.str().ok()?).ok()?),
        12 => parameters.blobs = blobs_of(d.bytes().ok()?)?,
        13 => parameters.of = Some(d.u64().ok()?),
        14 => parameters.keep = Some(d.u32().ok().filter(|keep| (1..=series::KEEP_MAX).contains(keep))?),
        15 => parameters.keep_for_ms = Some(d.u64().ok().filter(|ms| *ms > 0)?),
        16 => parameters.message = Some(d.str().ok()?.to_owned()),
        _ => return None,
    }
    Some(())
}

/// Each once: at least one, at most [`NAMED_MAX`].
fn blobs_of(bytes: &[u8]) -> Option<Vec<BlobHash>> {
    let (hashes, rest) = bytes.as_chunks::<32>();
    let distinct = hashes.iter().enumerate().all(|(at, hash)| !hashes[..at].contains(hash));
    let sound = rest.is_empty() && (1..=NAMED_MAX).contains(&hashes.len()) && distinct;
    sound.then(|| hashes.iter().copied().map(BlobHash).collect())
}

fn one_of<T: Copy, const N: usize>(d: &mut Decoder<'_>, choices: [T; N]) -> Option<T> {
    choices.get(usize::from(d.u8().ok()?)).copied()
}

fn property_name(name: &str) -> Result<&'static str, DefinitionError> {
    let known = PROPERTY_NAMES.into_iter().find(|known| known.eq_ignore_ascii_case(name));
    known.ok_or_else(|| unknown("property", name, PROPERTY_NAMES.into_iter()))
}

fn flag(key: &'static str, value: &str) -> Result<bool, DefinitionError> {
    value.parse().map_err(|_| DefinitionError::BadProperty { key, value: value.into(), expected: "true or false" })
}

fn conflate(value: &str) -> Result<Conflate, DefinitionError> {
    let choices = [Conflate::Off, Conflate::On, Conflate::Always];
    choices.into_iter().find(|choice| conflate_name(*choice) == value).ok_or_else(|| DefinitionError::BadProperty {
        key: "conflate",
        value: value.into(),
        expected: "off, on or always",
    })
}

fn conflate_name(conflate: Conflate) -> &'static str {
    match conflate {
        Conflate::Off => "off",
        Conflate::On => "on",
        Conflate::Always => "always",
    }
}

fn priority(value: &str) -> Result<Priority, DefinitionError> {
    let choices = [Priority::Low, Priority::Normal, Priority::High];
    choices.into_iter().find(|choice| priority_name(*choice) == value).ok_or_else(|| DefinitionError::BadProperty {
        key: "priority",
        value: value.into(),
        expected: "low, normal or high",
    })
}

fn priority_name(priority: Priority) -> &'static str {
    match priority {
        Priority::Low => "low",
        Priority::Normal => "normal",
        Priority::High => "high",
    }
}

fn unknown<'a>(what: &'static str, name: &str, known: impl Iterator<Item = &'a str> + Clone) -> DefinitionError {
    let nearest = known.clone().map(|known| (distance(name, known), known)).min();
    DefinitionError::UnknownName {
        what,
        name: name.into(),
        hint: nearest.filter(|(distance, _)| *distance <= 2).map(|(_, known)| known.into()),
        known: known.collect::<Vec<_>>().join(", "),
    }
}

/// How many letters must be put, dropped or replaced to get from one word to the other.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (above, letter) in one.chars().enumerate() {
        let mut diagonal = above;
        row[0] = above + 1;
        for (column, known) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *known);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NONE: [(&str, &str); 0] = [];

    #[test]
    fn a_definition_is_spelled_by_type_and_properties() {
        let definition =
            Definition::parse("JSON", &[("retain", "false"), ("conflate", "always"), ("priority", "high"), ("durability", "mesh(2)")])
                .unwrap();
        assert_eq!(definition.topic_type(), &TopicType::Json);
        assert_eq!(
            definition.properties(),
            &Properties {
                retain: false,
                conflate: Conflate::Always,
                priority: Priority::High,
                durability: Some(Durability::Mesh(2)),
                ..Properties::default()
            }
        );
        assert_eq!(Definition::parse("json", &definition.explicit_properties()), Ok(definition));
        assert_eq!(Definition::parse("string", &NONE).unwrap().explicit_properties(), []);
    }

    #[test]
    fn refusals_say_what_was_wrong_and_what_would_be_right() {
        let message = |topic_type, properties: &[(&str, &str)]| Definition::parse(topic_type, properties).unwrap_err().to_string();
        assert_eq!(
            message("jsn", &[]),
            "unknown topic type \"jsn\", did you mean \"json\"?; there are json, binary, string, int64, double, stateless, paged, decimal, record, protobuf, custom, slave, timeseries"
        );
        assert!(message("quaternion", &[]).starts_with("unknown topic type \"quaternion\"; there are"));
        assert!(message("json", &[("retian", "true")]).contains("did you mean \"retain\"?"));
        assert_eq!(message("json", &[("retain", "yes")]), "retain is true or false, not \"yes\"");
        assert_eq!(message("json", &[("conflate", "maybe")]), "conflate is off, on or always, not \"maybe\"");
        assert_eq!(message("json", &[("owner", "")]), "owner is a text of 1 to 1024 bytes, without control characters, not \"\"");
        assert!(message("json", &[("removal", &"x".repeat(1_025))]).starts_with("removal is a text of 1 to 1024 bytes"));
        assert_eq!(message("json", &[("retain", "true"), ("retain", "true")]), "property retain is given twice");
        for durability in ["mesh", "mesh()", "mesh(0)", "mesh(65)", "mesh(-1)", "tape"] {
            assert!(message("json", &[("durability", durability)]).starts_with("durability is memory, disk or mesh(k)"));
        }
    }

    #[test]
    fn defaults_take_no_room_and_the_bytes_are_fixed_for_ever() {
        let plain = Definition::new(TopicType::Json, Properties::default());
        assert_eq!(plain.to_bytes(), [0xa1, 0, 0]);
        let spelled_out = Definition::parse("json", &[("retain", "true"), ("deltas", "true")]).unwrap();
        assert_eq!(spelled_out.hash(), plain.hash());
        let everything = Definition::new(
            TopicType::Double,
            Properties {
                retain: false,
                conflate: Conflate::Off,
                compress: false,
                priority: Priority::High,
                deltas: false,
                durability: Some(Durability::Mesh(3)),
            },
        );
        assert_eq!(everything.to_bytes(), [0xa7, 0, 4, 1, 0xf4, 2, 0, 3, 0xf4, 4, 2, 5, 0xf4, 6, 4]);
    }

    #[test]
    fn other_spellings_of_a_definition_are_refused() {
        let refused = |bytes: &[u8]| Definition::from_bytes(bytes).unwrap_err();
        assert_eq!(refused(&[0xa1, 0, 0x18, 0]), DefinitionError::Malformed, "a longer number");
        assert_eq!(refused(&[0xa2, 0, 0, 1, 0xf5]), DefinitionError::Malformed, "a default spelled out");
        assert_eq!(refused(&[0xa2, 1, 0xf4, 0, 0]), DefinitionError::Malformed, "fields out of order");
        assert_eq!(refused(&[0xa1, 0, 0, 0]), DefinitionError::Malformed, "something after it");
        assert_eq!(refused(&[0xbf, 0, 0, 0xff]), DefinitionError::Malformed, "an open-ended map");
        assert_eq!(refused(&[0xa0]), DefinitionError::Malformed, "no type");
        assert_eq!(refused(&[0xbb, 255, 255, 255, 255, 255, 255, 255, 255, 0]), DefinitionError::Malformed);
        assert_eq!(refused(&vec![0; DEFINITION_BYTES_MAX + 1]), DefinitionError::TooLong(DEFINITION_BYTES_MAX + 1));
        assert_eq!(refused(&[]), DefinitionError::Malformed);
    }

    #[test]
    fn what_a_newer_version_says_is_carried_as_it_is() {
        let schema = [0x4a, 0xa1, 0x67, b'r', b'e', b'c', b'o', b'r', b'd', b's', 0x80];
        let cases: [(&[u8], u64); 10] = [
            (&[0xa1, 0, 19], 19),
            (&[0xa1, 0, 0x1b, 255, 255, 255, 255, 255, 255, 255, 255], u64::MAX),
            (&[0xa2, 0, 0, 12, 0x81, 0xa1, 0, 0], 0),
            (&[0xa2, 0, 7, 11, 0x62, b'/', b'a'], 7),
            (&[0xa3, 0, 4, 1, 0xf4, 0x18, 200, 0xf6], 4),
            (&[0xa2, 0, 0, 2, 9], 0),
            (&[0xa2, 0, 0, 6, 0x18, 255], 0),
            (&[0xa1, 0, 5], 5),
            (&[0xa2, 0, 0, 9, 2], 0),
            (&[&[0xa2, 0, 6, 10][..], &schema].concat(), 6),
        ];
        for (bytes, code) in cases {
            let carried = Definition::from_bytes(bytes).unwrap_or_else(|error| panic!("{bytes:x?}: {error}"));
            assert_eq!((carried.topic_type(), carried.to_bytes()), (&TopicType::Unknown(code), bytes.to_vec()));
        }
        let carried = Definition::from_bytes(&[0xa3, 0, 19, 1, 0xf4, 8, 0x61, b'x']).unwrap();
        assert_eq!((carried.properties().retain, carried.removal()), (false, Some("x")), "as far as it can be made out");
        assert_eq!(carried.topic_type().to_string(), "unknown(19)");
        assert!(Definition::parse("unknown(19)", &NONE).is_err());
    }

    #[test]
    fn an_older_version_carries_what_this_one_knows() {
        let definition = Definition::parse("decimal", &[("scale", "2"), ("retain", "false")]).unwrap();
        crate::sabotage::hide_types(Some(&["decimal".to_owned()].into()));
        let carried = Definition::from_bytes(&definition.to_bytes()).unwrap();
        let refused = Definition::parse("decimal", &[("scale", "2")]).unwrap_err().to_string();
        let known = Definition::from_bytes(&[0xa1, 0, 0]).unwrap();
        crate::sabotage::hide_types(None);
        assert_eq!((carried.topic_type(), known.topic_type()), (&TopicType::Unknown(5), &TopicType::Json));
        assert!(refused.contains("unknown topic type \"decimal\""), "{refused}");
        assert_eq!(Definition::from_bytes(&carried.to_bytes()), Ok(definition));
    }

    #[test]
    fn types_with_parameters_need_them_and_others_have_none() {
        let schema = r#"{"records": [{"fields": [{"type": "string", "name": "f"}], "name": "r"}]}"#;
        let spelled = |topic_type, properties: &[(&str, &str)]| {
            let definition = Definition::parse(topic_type, properties).unwrap_or_else(|error| panic!("{topic_type}: {error}"));
            assert_eq!(Definition::from_bytes(&definition.to_bytes()), Ok(definition.clone()));
            assert_eq!(Definition::parse(topic_type, &definition.explicit_properties()), Ok(definition.clone()));
            definition
        };
        assert_eq!(spelled("decimal", &[("scale", "2")]).to_bytes(), [0xa2, 0, 5, 9, 2]);
        let record = spelled("record", &[("schema", schema), ("retain", "false")]);
        let again = schema.replace(r#""type": "string", "name": "f""#, r#""name":"f","type":"string""#);
        assert_eq!(spelled("Record", &[("schema", &again), ("retain", "false")]).hash(), record.hash());
        let message = |topic_type, properties: &[(&str, &str)]| Definition::parse(topic_type, properties).unwrap_err().to_string();
        assert_eq!(message("decimal", &[]), "a topic of type decimal needs the property scale");
        assert_eq!(message("decimal", &[("scale", "19")]), "scale is a number from 0 to 18, not \"19\"");
        let gate = spelled("json", &[("schema", r#"{"type": "object", "required": ["at"]}"#)]);
        assert!(matches!(gate.topic_type(), TopicType::JsonAs(_)));
        assert_ne!(gate.hash(), spelled("json", &[]).hash());
        assert!(message("json", &[("schema", r#"{"type": "text"}"#)]).starts_with("no schema: at \"/type\""));
        assert_eq!(message("string", &[("schema", "{}")]), "a topic of type string has no property schema");
        assert_eq!(message("json", &[("scale", "2")]), "a topic of type json has no property scale");
        assert_eq!(message("decimal", &[("scale", "2"), ("schema", schema)]), "a topic of type decimal has no property schema");
        assert_eq!(spelled("slave", &[("master", "a/b")]).to_bytes(), [0xa2, 0, 7, 11, 0x63, b'a', b'/', b'b']);
        assert_eq!(message("slave", &[]), "a topic of type slave needs the property master");
        assert!(message("slave", &[("master", "a//b")]).starts_with("master is the path of another topic"));
        assert_eq!(message("record", &[]), "a topic of type record needs the property schema");
        assert!(message("record", &[("schema", "{")]).starts_with("no schema: EOF"));
        assert!(message("record", &[("schema", "{}")]).contains("missing field `records`"));
        let named = |length: usize| schema.replace("\"f\"", &format!("{:?}", "f".repeat(length)));
        let longest = (3_900..4_096).rev().find(|length| Definition::parse("record", &[("schema", named(*length))]).is_ok());
        let longest = spelled("record", &[("schema", &named(longest.expect("one of these fits")))]);
        assert!(matches!(longest.with_removal("this session closes"), Err(DefinitionError::TooLong(_))), "what is said later counts, too");
        let long = schema.replace("\"f\"", &format!("\"{}\"", "f".repeat(5_000)));
        assert!(message("record", &[("schema", &long)]).contains("at most 4096 bytes"));
    }

    #[test]
    fn blobs_are_named_by_the_same_field_in_every_type() {
        let [one, other] = [1, 2].map(|byte| BlobHash([byte; 32]));
        let spelled = Definition::parse("json", &[("schema", format!("blob:{one}"))]).expect("a definition");
        let bytes = [&[0xa2, 0, 0, 12, 0x58, 32][..], &one.0].concat();
        assert_eq!((spelled.to_bytes(), spelled.blobs()), (bytes.clone(), &[one][..]));
        assert_eq!(Definition::from_bytes(&bytes).as_ref(), Ok(&spelled));
        assert_eq!(Definition::parse("json", &spelled.explicit_properties()), Ok(spelled));
        assert!(Definition::parse("json", &[("retain", "false")]).expect("a definition").blobs().is_empty());
        // Of a type, or with fields, from the future.
        for head in [&[0xa3, 0, 19, 1, 0xf4, 12, 0x58, 64][..], &[0xa2, 0, 0, 12, 0x58, 64], &[0xa3, 0, 0, 9, 2, 12, 0x58, 64]] {
            let bytes = [head, &one.0, &other.0].concat();
            let carried = Definition::from_bytes(&bytes).expect("it is carried");
            assert!(matches!(carried.topic_type(), TopicType::Unknown(0 | 19)), "{head:x?}");
            assert_eq!((carried.blobs(), carried.to_bytes()), (&[one, other][..], bytes));
        }
        // What does not say which blobs names none, and is carried like anything else that is not understood.
        for named in [vec![], one.0[..31].to_vec(), [one.0, one.0].concat(), vec![7; 32 * (NAMED_MAX + 1)]] {
            let mut bytes = vec![0xa2, 0, 0, 12];
            minicbor::encode(minicbor::bytes::ByteVec::from(named), &mut bytes).expect("encoding to memory");
            let carried = Definition::from_bytes(&bytes).expect("it is carried");
            assert_eq!((carried.topic_type(), carried.blobs()), (&TopicType::Unknown(0), &[][..]));
        }
        let message = |topic_type, schema: &str| Definition::parse(topic_type, &[("schema", schema)]).unwrap_err().to_string();
        assert_eq!(message("json", "blob:12"), "no schema: a blob is named by 64 hexadecimal digits");
        assert_eq!(message("string", &format!("blob:{one}")), "a topic of type string has no property schema");
        assert_eq!(message("record", &format!("blob:{one}")), "no schema: that of a record stands in its definition");
    }

    #[test]
    fn protobuf_and_custom_types_are_told_by_their_blobs() {
        let blob = BlobHash([7; 32]);
        let hash = format!("blob:{blob}");
        let spelled = |topic_type, properties: &[(&str, &str)]| {
            let definition = Definition::parse(topic_type, properties).unwrap_or_else(|error| panic!("{topic_type}: {error}"));
            assert_eq!(Definition::from_bytes(&definition.to_bytes()), Ok(definition.clone()));
            assert_eq!(Definition::parse(topic_type, &definition.explicit_properties()), Ok(definition.clone()));
            assert_eq!(definition.blobs(), [blob]);
            definition
        };
        let named = [&[12, 0x58, 32][..], &blob.0].concat();
        let custom = spelled("custom", &[("module", &hash)]);
        assert_eq!(custom.to_bytes(), [&[0xa2, 0, 11][..], &named].concat());
        let reading = spelled("protobuf", &[("message", "a.B"), ("descriptors", &hash)]);
        assert_eq!(reading.to_bytes(), [&[0xa3, 0, 10][..], &named, &[16, 0x63, b'a', b'.', b'B']].concat());
        assert_ne!(reading.hash(), spelled("protobuf", &[("message", "a.C"), ("descriptors", &hash)]).hash());
        let series = spelled("timeseries", &[("of", "protobuf"), ("message", "a.B"), ("descriptors", &hash)]);
        assert_eq!(series.topic_type().value_type(), reading.topic_type());
        assert_eq!(spelled("timeseries", &[("of", "custom"), ("module", &hash)]).topic_type().value_type(), custom.topic_type());
        let message = |topic_type, properties: &[(&str, &str)]| Definition::parse(topic_type, properties).unwrap_err().to_string();
        assert_eq!(message("custom", &[]), "a topic of type custom needs the property module");
        assert_eq!(message("protobuf", &[("message", "a.B")]), "a topic of type protobuf needs the property descriptors");
        assert_eq!(message("protobuf", &[("descriptors", &hash)]), "a topic of type protobuf needs the property message");
        assert_eq!(message("json", &[("module", &hash)]), "a topic of type json has no property module");
        assert_eq!(message("custom", &[("module", &hash), ("message", "B")]), "a topic of type custom has no property message");
        assert_eq!(message("custom", &[("module", &hash), ("schema", &hash)]), "a topic of type custom has no property schema");
        assert!(message("custom", &[("module", "blob:12")]).starts_with("module is a blob: blob: and 64 hexadecimal digits, not"));
        for name in ["", ".B", "a..B", "a B", "1a", &"x".repeat(crate::protobuf::NAME_BYTES_MAX + 1)] {
            assert!(message("protobuf", &[("descriptors", &hash), ("message", name)]).starts_with("message is a message's whole name"));
        }
        // What no version spells like this is carried.
        for bytes in [[&[0xa2, 0, 10][..], &named].concat(), [&[0xa3, 0, 11][..], &named, &[16, 0x61, b'B']].concat()] {
            let carried = Definition::from_bytes(&bytes).expect("it is carried");
            assert!(matches!(carried.topic_type(), TopicType::Unknown(10 | 11)) && carried.blobs() == [blob]);
        }
    }

    prop_compose! {
        fn definitions()(
            topic_type in prop_oneof![prop::sample::select(TopicType::PLAIN.to_vec()), (0..=SCALE_MAX).prop_map(TopicType::Decimal)],
            retain: bool,
            compress: bool,
            deltas: bool,
            conflate in prop::sample::select(vec![Conflate::Off, Conflate::On, Conflate::Always]),
            priority in prop::sample::select(vec![Priority::Low, Priority::Normal, Priority::High]),
            durability in prop::option::of((0..=1 + u64::from(MESH_COPIES_MAX)).prop_map(|disks| Durability::from_disks(disks).unwrap())),
        ) -> Definition {
            Definition::new(topic_type, Properties { retain, conflate, compress, priority, deltas, durability })
        }
    }

    proptest! {
        #[test]
        fn definitions_survive_their_bytes_and_their_text(definition in definitions()) {
            prop_assert_eq!(Definition::from_bytes(&definition.to_bytes()), Ok(definition.clone()));
            let parsed = Definition::parse(definition.topic_type().name(), &definition.explicit_properties());
            prop_assert_eq!(parsed, Ok(definition));
        }

        #[test]
        fn equal_hashes_mean_equal_definitions(one in definitions(), other in definitions()) {
            prop_assert_eq!(one.hash() == other.hash(), one == other);
        }

        #[test]
        fn any_bytes_decode_to_what_encodes_to_them_or_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..12)) {
            if let Ok(definition) = Definition::from_bytes(&bytes) {
                prop_assert_eq!(definition.to_bytes(), bytes);
            }
        }
    }
}
