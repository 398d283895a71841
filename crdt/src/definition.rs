//! What a topic is: its type and properties, fixed at its creation.
//!
//! A definition is known by the hash of its bytes, so its encoding is canonical: a CBOR map with ascending numbered keys
//! in which whatever has its default value is left out. Decoding accepts those bytes only.

use std::fmt;

use minicbor::{Decode, Decoder, Encode, Encoder};

use self::types::{Parameters, master_of};
pub use self::{
    properties::{Conflate, Durability, Priority, Properties},
    types::TopicType,
};
use crate::{
    blob::{BlobHash, NAMED_MAX},
    sabotage::{Sabotage, hides_type, is},
    series::{self, SeriesType},
    value::SCALE_MAX,
};

mod properties;
#[cfg(test)]
mod tests;
mod types;

/// How long an encoded definition is at most, in bytes: each topic has its own.
pub const DEFINITION_BYTES_MAX: usize = 4096;

/// How many other nodes' disks `mesh(k)` can ask for.
pub const MESH_COPIES_MAX: u8 = 64;

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
                key if parameters.set(key, value.as_ref())? => {}
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
        let mut listed = self.properties.explicit();
        listed.extend(self.owner().map(|owner| ("owner", owner.to_owned())));
        listed.extend(self.removal().map(|removal| ("removal", removal.to_owned())));
        listed.extend(self.topic_type.explicit());
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

enum Field<'a> {
    Number(u64),
    Flag(bool),
    Text(&'a str),
    Bytes(&'a [u8]),
    Blobs(&'a [BlobHash]),
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

fn unknown<'a>(what: &'static str, name: &str, known: impl Iterator<Item = &'a str> + Clone) -> DefinitionError {
    let nearest = known.clone().map(|known| (strsim::levenshtein(name, known), known)).min();
    DefinitionError::UnknownName {
        what,
        name: name.into(),
        hint: nearest.filter(|(distance, _)| *distance <= 2).map(|(_, known)| known.into()),
        known: known.collect::<Vec<_>>().join(", "),
    }
}
