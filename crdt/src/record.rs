//! Records: values that are made of fields, as a schema says.
//!
//! A schema is a JSON object that lists records, and for each its fields; each may occur once, or from `min` to `max` times, without `max` as often as wanted:
//!
//! ```json
//! {"records": [
//!   {"name": "flight", "fields": [{"name": "number", "type": "string"}, {"name": "speed", "type": "double", "min": 0}]},
//!   {"name": "leg", "min": 0, "max": null, "fields": [{"name": "to", "type": "string"}, {"name": "fee", "type": "decimal", "scale": 2}]}
//! ]}
//! ```
//!
//! A value is an object with the records by name, and each of these one with its fields. What may occur more than once is an array, what may not is the thing itself, or
//! nothing at all if it need not be there: `{"flight": {"number": "UA1545"}, "leg": [{"to": "IAH", "fee": "12.50"}]}`. Nothing else may be in it. A field
//! is of type `string`, `int64`, `double` or `decimal`, and is never without a value.

use std::hash::{Hash, Hasher};

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{
    definition::TopicType,
    value::{self, ValueError},
};

/// How many records a schema may have, and how many fields each of them.
pub const NAMES_MAX: usize = 256;

/// How many fields there may be in all records of a value, if each had one of all that it may have.
const WORK_MAX: u64 = 20_000_000;

/// What a topic of records takes. Two are equal if they say the same, whatever the order of their keys.
#[derive(Clone, Debug)]
pub struct Schema {
    /// Canonical, as the value of a `json` topic.
    source: Box<[u8]>,
    records: Box<[Part<Fields>]>,
}

type Fields = Box<[Part<TopicType>]>;

/// A record or a field.
#[derive(Clone, Debug)]
struct Part<K> {
    name: Box<str>,
    min: u32,
    /// `None` if there may be any number.
    max: Option<u32>,
    kind: K,
}

/// Why something is no schema.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadSchema(String);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SchemaSaid {
    records: Vec<RecordSaid>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RecordSaid {
    name: String,
    #[serde(default = "once")]
    min: u32,
    #[serde(default = "at_most_once")]
    max: Option<u32>,
    fields: Vec<FieldSaid>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FieldSaid {
    name: String,
    #[serde(rename = "type")]
    field_type: String,
    #[serde(default)]
    scale: Option<u8>,
    #[serde(default = "once")]
    min: u32,
    #[serde(default = "at_most_once")]
    max: Option<u32>,
}

fn once() -> u32 {
    1
}

fn at_most_once() -> Option<u32> {
    Some(1)
}

impl Schema {
    /// Reads one.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(json: &Value) -> Result<Schema, BadSchema> {
        let source = value::from_json(&TopicType::Json, json).map_err(|error| BadSchema(error.to_string()))?;
        let said: SchemaSaid = Deserialize::deserialize(json).map_err(|error: serde_json::Error| BadSchema(error.to_string()))?;
        let records = said.records.into_iter().map(|record| {
            let field = |field: FieldSaid| {
                let name = field.name;
                let kind = match (field.field_type.as_str(), field.scale) {
                    ("string", None) => TopicType::String,
                    ("int64", None) => TopicType::Int64,
                    ("double", None) => TopicType::Double,
                    ("decimal", Some(scale)) if scale <= value::SCALE_MAX => TopicType::Decimal(scale),
                    ("decimal", _) => return Err(BadSchema(format!("{name}: a decimal has a scale from 0 to {}", value::SCALE_MAX))),
                    ("string" | "int64" | "double", Some(_)) => return Err(BadSchema(format!("{name}: only a decimal has a scale"))),
                    (other, _) => {
                        let why = format!("{name}: a field is of type string, int64, double or decimal, not {other:?}");
                        return Err(BadSchema(why));
                    }
                };
                Ok(Part { name: name.into(), min: field.min, max: field.max, kind })
            };
            let fields = record.fields.into_iter().map(field).collect::<Result<Fields, _>>()?;
            check(&record.name, &fields)?;
            Ok(Part { name: record.name.into(), min: record.min, max: record.max, kind: fields })
        });
        let records = records.collect::<Result<Box<[_]>, BadSchema>>()?;
        check("the schema", &records)?;
        Ok(Schema { source: source.into(), records })
    }

    /// Reads its canonical encoding.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Schema> {
        Schema::new(&value::to_json(&TopicType::Json, bytes).ok()?).ok()
    }

    /// Its canonical encoding.
    pub(crate) fn to_bytes(&self) -> &[u8] {
        &self.source
    }

    /// The JSON that it was read from, but for the order of keys.
    pub fn to_json(&self) -> Value {
        value::to_json(&TopicType::Json, &self.source).unwrap_or_default()
    }

    /// That a value is as the schema says.
    ///
    /// # Errors
    /// What is wrong, and where in it.
    pub(crate) fn check(&self, value: &Value) -> Result<(), ValueError> {
        let records = value.as_object().into_iter().flat_map(Map::values).map(|record| record.as_array().map_or(1, Vec::len) as u64);
        let (records, fields) = (records.sum::<u64>(), self.records.iter().map(|record| record.kind.len() as u64).max().unwrap_or(0));
        if records.saturating_mul(fields) > WORK_MAX {
            return Err(misfit(format!("{records} records of up to {fields} fields are too many")));
        }
        parts(&self.records, value, &|fields, record| {
            parts(fields, record, &|kind, field| {
                let right = value::from_json(kind, field).map_err(|error| misfit(said(&error)))?;
                // What one type takes in several forms, it gives back in one.
                let given = value::to_json(kind, &right).map_err(|error| misfit(said(&error)))?;
                let fits = !field.is_null() && given == *field;
                fits.then_some(()).ok_or_else(|| misfit(format!("expected {}", expected(kind))))
            })
        })
    }
}

fn said(error: &ValueError) -> String {
    match error {
        ValueError::WrongType { expected, .. } => format!("expected {}", expected.trim_end_matches(", or null for no value")),
        other => other.to_string(),
    }
}

fn expected(kind: &TopicType) -> String {
    match kind {
        TopicType::Decimal(scale) => format!("a decimal number in a string, with {scale} digits after the point"),
        TopicType::Double => "a number with a point or an exponent".into(),
        other => format!("a value of type {}", other.name()),
    }
}

/// That names are sound, each given once, and that ranges are.
fn check<K>(whose: &str, parts: &[Part<K>]) -> Result<(), BadSchema> {
    if parts.is_empty() || parts.len() > NAMES_MAX {
        return Err(BadSchema(format!("{whose} has {} parts, and may have from 1 to {NAMES_MAX}", parts.len())));
    }
    for (at, part) in parts.iter().enumerate() {
        if part.name.is_empty() || part.name.chars().any(char::is_control) {
            return Err(BadSchema(format!("{whose}: {:?} is no name", part.name)));
        }
        if parts[..at].iter().any(|before| before.name == part.name) {
            return Err(BadSchema(format!("{whose}: {} is there twice", part.name)));
        }
        if part.max.is_some_and(|max| max == 0 || max < part.min) {
            return Err(BadSchema(format!("{whose}: {} occurs at least {} times and at most {:?}", part.name, part.min, part.max)));
        }
    }
    Ok(())
}

/// Judges the parts of an object, each of which may occur as often as it says.
fn parts<K>(parts: &[Part<K>], value: &Value, judge: &dyn Fn(&K, &Value) -> Result<(), ValueError>) -> Result<(), ValueError> {
    let object = value.as_object().ok_or_else(|| misfit("expected an object".into()))?;
    if let Some(odd) = stranger(parts, object) {
        return Err(within(odd, misfit("there is nothing of that name in the schema".into())));
    }
    for part in parts {
        let judged = match (object.get(&*part.name), part.max) {
            (None, _) if part.min == 0 => Ok(()),
            (None, _) => Err(misfit("it is missing".into())),
            (Some(one), Some(1)) => judge(&part.kind, one),
            (Some(Value::Array(items)), max) => {
                let count = u32::try_from(items.len()).unwrap_or(u32::MAX);
                if count < part.min || max.is_some_and(|max| count > max) {
                    let most = max.map_or_else(|| "without end".into(), |max| format!("to {max}"));
                    Err(misfit(format!("it occurs {count} times, and may from {} {most}", part.min)))
                } else {
                    let each = |(place, item): (usize, &Value)| judge(&part.kind, item).map_err(|error| within(&place.to_string(), error));
                    items.iter().enumerate().try_for_each(each)
                }
            }
            (Some(_), _) => Err(misfit("expected an array, since it may occur more than once".into())),
        };
        judged.map_err(|error| within(&part.name, error))?;
    }
    Ok(())
}

fn misfit(why: String) -> ValueError {
    ValueError::Misfit { at: String::new(), why }
}

/// The same of something that is at a name or place in something else (RFC 6901).
fn within(name: &str, error: ValueError) -> ValueError {
    match error {
        ValueError::Misfit { at, why } => ValueError::Misfit { at: format!("/{}{at}", name.replace('~', "~0").replace('/', "~1")), why },
        other => other,
    }
}

fn stranger<'a, K>(parts: &[Part<K>], object: &'a Map<String, Value>) -> Option<&'a str> {
    object.keys().map(String::as_str).find(|key| parts.iter().all(|part| *part.name != **key))
}

impl PartialEq for Schema {
    fn eq(&self, other: &Schema) -> bool {
        self.source == other.source
    }
}

impl Eq for Schema {}

impl Hash for Schema {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.source.hash(state);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn flights() -> Schema {
        let schema = json!({"records": [
            {"name": "flight", "fields": [{"name": "number", "type": "string"}, {"name": "speed", "type": "double", "min": 0}]},
            {"name": "a/b", "min": 0, "max": null, "fields": [
                {"name": "fee", "type": "decimal", "scale": 2}, {"name": "n", "type": "int64", "min": 1, "max": 2},
            ]},
        ]});
        Schema::new(&schema).expect("a schema")
    }

    #[test]
    fn a_value_is_as_its_schema_says() {
        for right in [
            json!({"flight": {"number": "UA1"}}),
            json!({"flight": {"number": "", "speed": 1.5}, "a/b": []}),
            json!({"flight": {"number": "x"}, "a/b": [{"fee": "-0.50", "n": [1]}, {"fee": "12.00", "n": [i64::MIN, 2]}]}),
        ] {
            assert_eq!(flights().check(&right), Ok(()), "{right}");
        }
        for (wrong, place) in [
            (json!([]), ""),
            (json!({}), "/flight"),
            (json!({"flight": [{"number": "x"}]}), "/flight"),
            (json!({"flight": {"number": 1}}), "/flight/number"),
            (json!({"flight": {"number": null}}), "/flight/number"),
            (json!({"flight": {"number": "x", "speed": 1}}), "/flight/speed"),
            (json!({"flight": {"number": "x", "height": 1}}), "/flight/height"),
            (json!({"flight": {"number": "x"}, "c": 1}), "/c"),
            (json!({"flight": {"number": "x"}, "a/b": {}}), "/a~1b"),
            (json!({"flight": {"number": "x"}, "a/b": [{"fee": "1.00", "n": []}]}), "/a~1b/0/n"),
            (json!({"flight": {"number": "x"}, "a/b": [{"fee": "1.00", "n": [1, 2, 3]}]}), "/a~1b/0/n"),
            (json!({"flight": {"number": "x"}, "a/b": [{"fee": "1.00", "n": [1, 2.0]}]}), "/a~1b/0/n/1"),
            (json!({"flight": {"number": "x"}, "a/b": [{"fee": "1.0", "n": [1]}]}), "/a~1b/0/fee"),
            (json!({"flight": {"number": "x"}, "a/b": [{"fee": 1, "n": [1]}]}), "/a~1b/0/fee"),
        ] {
            match flights().check(&wrong) {
                Err(ValueError::Misfit { at, .. }) => assert_eq!(at, place, "{wrong}"),
                other => panic!("{wrong}: {other:?}"),
            }
        }
    }

    #[test]
    fn what_is_no_schema_says_why() {
        let field = json!({"name": "f", "type": "string"});
        let of = |field: Value| json!({"records": [{"name": "r", "fields": [field]}]});
        for (wrong, why) in [
            (json!([]), "expected struct"),
            (json!({"records": []}), "may have from 1 to 256"),
            (json!({"records": [{"name": "r", "fields": []}]}), "r has 0 parts"),
            (json!({"records": [{"name": "", "fields": [field]}]}), "is no name"),
            (json!({"records": [{"name": "r", "fields": [field, field]}]}), "f is there twice"),
            (json!({"records": [{"name": "r", "fields": [field], "often": 1}]}), "unknown field `often`"),
            (of(json!({"name": "f"})), "missing field `type`"),
            (of(json!({"name": "f", "type": "float"})), "not \"float\""),
            (of(json!({"name": "f", "type": "decimal"})), "from 0 to 18"),
            (of(json!({"name": "f", "type": "decimal", "scale": 19})), "from 0 to 18"),
            (of(json!({"name": "f", "type": "string", "scale": 1})), "only a decimal"),
            (of(json!({"name": "f", "type": "string", "min": 2})), "at least 2 times"),
            (of(json!({"name": "f", "type": "string", "min": 0, "max": 0})), "at most Some(0)"),
        ] {
            let error = Schema::new(&wrong).expect_err("no schema").to_string();
            assert!(error.contains(why), "{wrong}: {error}");
        }
        let said = flights();
        assert_eq!(Schema::new(&said.to_json()), Ok(said.clone()));
        assert_eq!(Schema::from_bytes(said.to_bytes()), Some(said));
    }
}
