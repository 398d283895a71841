//! JSON Schema: what else a `json` topic wants of its values.
//!
//! A schema comes from anybody and is applied by every node to every value, between two inputs. So what it may cost is bounded before it is used: it refers only to
//! itself, never in a circle, is not too large with everything written out that it refers to, and its patterns are matched in linear time. Of what the
//! standard has (drafts 4 to 2020-12, by `$schema`), these are left out: references to other documents, to anchors and in circles, `$id` below the root, and `unevaluatedItems` and
//! `unevaluatedProperties`, which judge everything again that others have judged. A `format` is no more than a remark.
//!
//! A schema that is too long for a definition stands in a [`blob`](crate::blob), as the value of a `json` topic: equal schemas are the same blob.

use std::{
    collections::BTreeMap,
    fmt,
    hash::{Hash, Hasher},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::OnceLock,
};

use jsonschema::{PatternOptions, Validator};
use serde_json::Value;

use crate::{
    blob::{BlobHash, FromBlob},
    definition::{DEFINITION_BYTES_MAX, IN_BLOB, TopicType},
    value::{self, ValueError},
};

/// How long a schema in a blob is at most, in bytes.
pub const SCHEMA_BYTES_MAX: usize = 256 << 10;

/// How many values a schema may consist of, with everything written out that it refers to.
const COST_MAX: u64 = 4_096;

/// How deep it may nest, with everything written out that it refers to: it is compiled by recursion.
const HEIGHT_MAX: u64 = 700;

/// How often a part of a schema may be held against a part of a value: the product of how many there are of both.
const WORK_MAX: u64 = 20_000_000;

/// Up to which of these products it is said what is wrong, and where.
const SAID_WORK_MAX: u64 = 200_000;

/// How many patterns a schema may have, with everything written out that it refers to.
const PATTERNS_MAX: u64 = 64;

/// How much memory one pattern may take, in bytes.
const PATTERN_BYTES_MAX: usize = 64 << 10;

/// A schema. Two are equal if they say the same, whatever the order of their keys.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct JsonSchema(Place);

/// Where it stands.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Place {
    Definition(Judge),
    Blob(FromBlob<Judge>),
}

struct Judge {
    /// Canonical, as the value of a `json` topic.
    source: Box<[u8]>,
    cost: u64,
    /// What judges, once it has been asked for; `None` if it cannot be had.
    validator: OnceLock<Option<Validator>>,
}

/// Why something is no schema, in words.
pub type BadSchema = String;

impl JsonSchema {
    /// Reads one.
    ///
    /// # Errors
    /// It is none, or one that is left out here, or too costly.
    pub fn new(json: &Value) -> Result<JsonSchema, BadSchema> {
        // No definition has room for more.
        Judge::new(json, DEFINITION_BYTES_MAX).map(|judge| JsonSchema(Place::Definition(judge)))
    }

    /// The one that stands in a blob.
    pub fn in_blob(hash: BlobHash) -> JsonSchema {
        JsonSchema(Place::Blob(FromBlob::new(hash)))
    }

    /// The content of the blob for one that is too long for a definition.
    ///
    /// # Errors
    /// As [`JsonSchema::new`], but for its length, which is [`SCHEMA_BYTES_MAX`] at most.
    pub fn to_blob(json: &Value) -> Result<Vec<u8>, BadSchema> {
        let judge = Judge::new(json, SCHEMA_BYTES_MAX)?;
        Ok(judge.source.into())
    }

    /// Whether it is too long for a definition, which has to say other things, too.
    pub fn is_long(json: &Value) -> bool {
        value::from_json(&TopicType::Json, json).is_ok_and(|source| source.len() > DEFINITION_BYTES_MAX / 2)
    }

    /// Reads its canonical encoding. What judges by it is made when it is needed.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<JsonSchema> {
        let json = value::to_json(&TopicType::Json, bytes).ok()?;
        let judge = Judge { source: bytes.into(), cost: cost(&json).ok()?, validator: OnceLock::new() };
        Some(JsonSchema(Place::Definition(judge)))
    }

    /// Its canonical encoding, if it stands in the definition.
    pub(crate) fn to_bytes(&self) -> Option<&[u8]> {
        match &self.0 {
            Place::Definition(judge) => Some(&judge.source),
            Place::Blob(_) => None,
        }
    }

    /// The blob in which it stands, if it does not in the definition.
    pub fn blob(&self) -> Option<&BlobHash> {
        match &self.0 {
            Place::Definition(_) => None,
            Place::Blob(judge) => Some(judge.hash()),
        }
    }

    pub(crate) fn supply(&self, hash: &BlobHash, content: &[u8]) -> Result<(), String> {
        let read = |content: &[u8]| {
            // Before it is made anything of that takes memory.
            if content.len() > SCHEMA_BYTES_MAX {
                return Err(too_long(content.len(), SCHEMA_BYTES_MAX));
            }
            let json = value::to_json(&TopicType::Json, content).map_err(|error| error.to_string())?;
            Judge::new(&json, SCHEMA_BYTES_MAX)
        };
        match &self.0 {
            Place::Definition(_) => Ok(()),
            Place::Blob(judge) => judge.supply(hash, content, read),
        }
    }

    /// That a value is as the schema says.
    ///
    /// # Errors
    /// What is wrong, and where in it; that it would take too long to find out; or that the schema is not here.
    pub(crate) fn check(&self, value: &Value) -> Result<(), ValueError> {
        match &self.0 {
            Place::Definition(judge) => judge.check(value),
            Place::Blob(judge) => judge.get()?.check(value),
        }
    }
}

fn too_long(bytes: usize, bytes_max: usize) -> BadSchema {
    format!("it has {bytes} bytes, and may have {bytes_max}")
}

impl Judge {
    fn new(json: &Value, bytes_max: usize) -> Result<Judge, BadSchema> {
        let source = value::from_json(&TopicType::Json, json).map_err(|error| error.to_string())?;
        if source.len() > bytes_max {
            return Err(too_long(source.len(), bytes_max));
        }
        let cost = cost(json)?;
        let validator = compile(json)?;
        Ok(Judge { source: source.into(), cost, validator: OnceLock::from(Some(validator)) })
    }

    fn to_json(&self) -> Value {
        value::to_json(&TopicType::Json, &self.source).unwrap_or_default()
    }

    fn check(&self, value: &Value) -> Result<(), ValueError> {
        let misfit = |at: String, why: String| Err(ValueError::Misfit { at, why });
        let work = self.cost.saturating_mul(weight(value));
        if work > WORK_MAX {
            return misfit(String::new(), format!("it is too large for a schema of {} values", self.cost));
        }
        let Some(validator) = self.validator.get_or_init(|| compile(&self.to_json()).ok()) else {
            return misfit(String::new(), "its topic's schema is none".into());
        };
        // What is wrong, and where, is told with copies of much that is: not of what is large.
        let judge = || match work <= SAID_WORK_MAX {
            true => validator.validate(value).map_err(|error| (error.instance_path().to_string(), said(&error))),
            false if validator.is_valid(value) => Ok(()),
            false => Err((String::new(), "it is not as its topic's schema says".into())),
        };
        // Written for sound schemas; what it does to one that was crafted is only another refusal.
        let judged = catch_unwind(AssertUnwindSafe(judge));
        match judged {
            Ok(Ok(())) => Ok(()),
            Ok(Err((at, why))) => misfit(at, why),
            Err(_) => misfit(String::new(), "its topic's schema cannot be applied to it".into()),
        }
    }
}

/// How long the words of one refusal are at most, in bytes: they may quote the value.
const SAID_BYTES_MAX: usize = 300;

fn said(error: &jsonschema::ValidationError<'_>) -> String {
    let mut text = error.masked().to_string();
    if text.len() > SAID_BYTES_MAX {
        text.truncate(text.floor_char_boundary(SAID_BYTES_MAX));
        text.push('…');
    }
    text
}

fn compile(schema: &Value) -> Result<Validator, BadSchema> {
    let build = || {
        let patterns = PatternOptions::regex().size_limit(PATTERN_BYTES_MAX).dfa_size_limit(PATTERN_BYTES_MAX);
        let options = jsonschema::options().should_validate_formats(false).with_pattern_options(patterns);
        options.build(schema).map_err(|error| format!("at {:?}: {}", error.instance_path().to_string(), said(&error)))
    };
    catch_unwind(AssertUnwindSafe(build)).unwrap_or_else(|_| Err("it cannot be applied".into()))
}

/// How many values there are in one, itself included; a long text counts as several.
fn weight(value: &Value) -> u64 {
    let of_text = |text: &str| text.len() as u64 / 16;
    1 + match value {
        Value::Array(items) => items.iter().map(weight).sum(),
        Value::Object(map) => map.iter().map(|(key, value)| of_text(key) + weight(value)).sum(),
        Value::String(text) => of_text(text),
        _ => 0,
    }
}

fn cost(schema: &Value) -> Result<u64, BadSchema> {
    if !schema.is_object() && !schema.is_boolean() {
        return Err("a schema is an object, true or false".into());
    }
    let old = schema.get("$schema").and_then(Value::as_str).is_some_and(|draft| draft.contains("draft-04"));
    let mut costs = Costs { root: schema, known: BTreeMap::new(), patterns: 0, depth: 0, id: if old { "id" } else { "$id" } };
    let Size { cost, .. } = costs.of(schema, true)?;
    match costs.patterns {
        0..=PATTERNS_MAX => Ok(cost),
        patterns => Err(format!("it has {patterns} patterns, and may have {PATTERNS_MAX}")),
    }
}

struct Costs<'a> {
    root: &'a Value,
    /// Of what is referred to, by the reference; `None` while it is being found out.
    known: BTreeMap<&'a str, Option<Size>>,
    patterns: u64,
    /// How deep the part nests that is looked at.
    depth: u64,
    /// The key that gives a part of the schema a name of its own, by which others mean it.
    id: &'static str,
}

/// What a part of a schema comes to.
#[derive(Clone, Copy)]
struct Size {
    cost: u64,
    /// How deep it nests.
    height: u64,
}

impl Size {
    fn add(&mut self, part: Size) {
        self.cost = self.cost.saturating_add(part.cost);
        self.height = self.height.max(1 + part.height);
    }
}

impl<'a> Costs<'a> {
    /// With everything written out that it refers to. Whatever looks like a part of a schema is taken for one.
    fn of(&mut self, value: &'a Value, at_root: bool) -> Result<Size, BadSchema> {
        let mut sum = Size { cost: 1, height: 1 };
        let too_deep = || Err(format!("it nests more than {HEIGHT_MAX} deep, with everything written out that it refers to"));
        self.depth += 1;
        if self.depth > HEIGHT_MAX {
            return too_deep();
        }
        match value {
            Value::Array(items) => {
                for item in items {
                    sum.add(self.of(item, false)?);
                }
            }
            Value::Object(map) => {
                for (key, value) in map {
                    self.patterns += match (key.as_str(), value) {
                        ("pattern", _) => 1,
                        ("patternProperties", Value::Object(patterns)) => patterns.len() as u64,
                        _ => 0,
                    };
                    sum.add(match (key.as_str(), value) {
                        ("$ref", Value::String(to)) => self.of_reference(to)?,
                        ("$dynamicRef" | "$recursiveRef" | "unevaluatedItems" | "unevaluatedProperties", _) => {
                            return Err(format!("{key} is left out here"));
                        }
                        (key, Value::String(_)) if key == self.id && !at_root => {
                            return Err(format!("{key} is left out here, but at the root"));
                        }
                        (_, value) => self.of(value, false)?,
                    });
                }
            }
            _ => {}
        }
        self.depth -= 1;
        match sum {
            // Of what was known already, only its height tells.
            Size { height, .. } if height > HEIGHT_MAX => too_deep(),
            sum if sum.cost <= COST_MAX => Ok(sum),
            _ => Err(format!("it has more than {COST_MAX} values, with everything written out that it refers to")),
        }
    }

    fn of_reference(&mut self, to: &'a str) -> Result<Size, BadSchema> {
        match self.known.get(to) {
            Some(Some(cost)) => return Ok(*cost),
            Some(None) => return Err(format!("{to:?} refers to itself in the end, which is left out here")),
            None => {}
        }
        let pointer = to.strip_prefix('#').filter(|pointer| pointer.starts_with('/'));
        let pointer = pointer.ok_or_else(|| format!("{to:?} refers to something else than a part of the schema, as in #/$defs/name"))?;
        let target = self.root.pointer(&unescaped(pointer)).ok_or_else(|| format!("{to:?} refers to nothing"))?;
        self.known.insert(to, None);
        let cost = self.of(target, false)?;
        self.known.insert(to, Some(cost));
        Ok(cost)
    }
}

/// A pointer out of a URI's fragment (RFC 6901 §6).
fn unescaped(fragment: &str) -> String {
    let mut bytes = Vec::with_capacity(fragment.len());
    let mut rest = fragment.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let escaped = after.get(..2).and_then(|digits| u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok());
        match escaped.filter(|_| *first == b'%') {
            Some(byte) => (bytes.push(byte), rest = &after[2..]).1,
            None => (bytes.push(*first), rest = after).1,
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// As [`Definition::parse`](crate::definition::Definition::parse) takes it.
impl fmt::Display for JsonSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::Definition(judge) => write!(f, "{}", judge.to_json()),
            Place::Blob(judge) => write!(f, "{IN_BLOB}{}", judge.hash()),
        }
    }
}

impl fmt::Debug for JsonSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JsonSchema({self})")
    }
}

impl Clone for Judge {
    fn clone(&self) -> Self {
        Judge { source: self.source.clone(), cost: self.cost, validator: OnceLock::new() }
    }
}

impl PartialEq for Judge {
    fn eq(&self, other: &Judge) -> bool {
        self.source == other.source
    }
}

impl Eq for Judge {}

impl Hash for Judge {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.source.hash(state);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::value::VALUE_MAX;

    fn schema(json: &Value) -> JsonSchema {
        JsonSchema::new(json).unwrap_or_else(|error| panic!("{json}: {error}"))
    }

    #[test]
    fn a_value_is_as_its_schema_says_and_otherwise_it_says_where() {
        let gate = schema(&json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$defs": {"gate": {"type": "string", "pattern": "^[A-Z][0-9]+$"}},
            "type": "object",
            "properties": {"at": {"$ref": "#/$defs/gate"}, "open": {"type": "boolean"}, "next": {"type": "array", "items": {"$ref": "#/$defs/gate"}}},
            "required": ["at"],
            "additionalProperties": false,
        }));
        for right in [json!({"at": "B7"}), json!({"at": "A12", "open": true, "next": ["C1", "D2"]})] {
            assert_eq!(gate.check(&right), Ok(()), "{right}");
        }
        for (wrong, place) in [
            (json!({}), ""),
            (json!([]), ""),
            (json!({"at": "b7"}), "/at"),
            (json!({"at": "B7", "open": 1}), "/open"),
            (json!({"at": "B7", "next": ["C1", "", "D2"]}), "/next/1"),
            (json!({"at": "B7", "shut": 1}), ""),
        ] {
            match gate.check(&wrong) {
                Err(ValueError::Misfit { at, why }) => assert!(at == place && !why.is_empty(), "{wrong}: at {at}: {why}"),
                other => panic!("{wrong}: {other:?}"),
            }
        }
        let again = JsonSchema::from_bytes(gate.to_bytes().expect("it stands there")).expect("its own bytes");
        assert_eq!((again.check(&json!({"at": 1})).is_err(), again.check(&json!({"at": "B7"}))), (true, Ok(())));
        let json = serde_json::from_str(&gate.to_string()).expect("JSON");
        assert_eq!((&again, JsonSchema::new(&json)), (&gate, Ok(gate.clone())));
        assert!(schema(&json!(false)).check(&json!(1)).is_err() && schema(&json!(true)).check(&json!(1)).is_ok());
    }

    #[test]
    fn what_is_no_schema_or_left_out_says_why() {
        for (wrong, why) in [
            (json!([]), "an object, true or false"),
            (json!({"type": "text"}), "at \"/type\""),
            (json!({"pattern": "("}), "/pattern"),
            (json!({"pattern": "(?=a)"}), "/pattern"),
            (json!({"$ref": "http://example.com/x"}), "something else than a part"),
            (json!({"$ref": "file:///etc/passwd"}), "something else than a part"),
            (json!({"$ref": "#/$defs/none"}), "refers to nothing"),
            (json!({"properties": {"a": {"$ref": "#/properties/a"}}}), "refers to itself"),
            (json!({"$ref": "#"}), "something else than a part"),
            (json!({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"not": {"$ref": "#/$defs/a"}}}, "$ref": "#/$defs/a"}), "refers to itself"),
            (json!({"allOf": [{"$dynamicRef": "#x"}]}), "$dynamicRef is left out"),
            (json!({"unevaluatedProperties": false}), "unevaluatedProperties is left out"),
            (json!({"properties": {"a": {"$id": "other"}}}), "$id is left out"),
            (json!({"$schema": "http://json-schema.org/draft-04/schema#", "not": {"id": "other"}}), "id is left out"),
            (json!({"allOf": (0..65).map(|at| json!({"pattern": format!("{at}")})).collect::<Vec<_>>()}), "65 patterns"),
        ] {
            let error = JsonSchema::new(&wrong).expect_err("no schema");
            assert!(error.contains(why), "{wrong}: {error}");
        }
    }

    #[test]
    fn a_schema_in_a_blob_judges_once_that_is_here() {
        let json = json!({"type": "integer", "description": "x".repeat(DEFINITION_BYTES_MAX)});
        assert!(JsonSchema::new(&json).is_err());
        let content = JsonSchema::to_blob(&json).expect("a schema");
        let schema = JsonSchema::in_blob(BlobHash::of(&content));
        assert_eq!(schema.check(&json!(1)), Err(ValueError::NotHere(BlobHash::of(&content))));
        assert_eq!(schema.supply(&BlobHash::of(&content), &content), Ok(()));
        assert!(schema.check(&json!(1)).is_ok() && schema.clone().check(&json!("1")).is_err());
        // One that is none, or too long, or not in its one encoding.
        for (content, why) in
            [(b"\xff".to_vec(), "CBOR"), (vec![0; SCHEMA_BYTES_MAX + 1], "262145 bytes"), (vec![1], "an object, true or false")]
        {
            let schema = JsonSchema::in_blob(BlobHash::of(&content));
            let error = schema.supply(&BlobHash::of(&content), &content).expect_err("no schema");
            assert!(error.contains(why), "{error}");
            assert!(matches!(schema.check(&json!(1)), Err(ValueError::Misfit { .. })));
        }
    }

    #[test]
    fn a_long_schema_fits_a_small_stack() {
        // Parts that each nest and then refer to the next.
        let chain = |parts: usize, nots: usize| {
            let nest = |inner: Value| (0..nots).fold(inner, |inner, _| json!({ "not": inner }));
            let part = |at: usize| (at.to_string(), nest(json!({ "$ref": format!("#/$defs/{}", at + 1) })));
            let defs = (0..parts).map(part).chain([(parts.to_string(), json!({"type": "integer"}))]);
            json!({"$defs": serde_json::Map::from_iter(defs), "$ref": "#/$defs/0", "description": "x".repeat(DEFINITION_BYTES_MAX)})
        };
        let judged = std::thread::Builder::new().stack_size(1 << 20).spawn(move || {
            let deepest = (1..40).rev().find_map(|parts| JsonSchema::to_blob(&chain(parts, 58)).ok()).expect("some may be");
            let schema = JsonSchema::in_blob(BlobHash::of(&deepest));
            assert_eq!(schema.supply(&BlobHash::of(&deepest), &deepest), Ok(()));
            let beyond = JsonSchema::to_blob(&chain(5_000, 1)).expect_err("it is too deep");
            (schema.check(&json!(1)).is_ok(), schema.check(&json!([[1]])).is_ok(), beyond)
        });
        let (right, wrong, beyond) = judged.expect("a thread").join().expect("it does not overflow");
        assert!(right && !wrong && beyond.contains("more than 700 deep"), "{beyond}");
    }

    #[test]
    fn what_a_schema_costs_is_bounded() {
        // Twice as much at each step: all that is written out.
        let steps = (0..60).map(|step| {
            (format!("d{step}"), json!({"allOf": [{"$ref": format!("#/$defs/d{}", step + 1)}, {"$ref": format!("#/$defs/d{}", step + 1)}]}))
        });
        let mut defs: serde_json::Map<String, Value> = steps.collect();
        defs.insert("d60".into(), json!({"type": "integer"}));
        let error = JsonSchema::new(&json!({"$defs": defs, "$ref": "#/$defs/d0"})).expect_err("it has no end");
        assert!(error.contains("more than 4096 values"), "{error}");
        assert!(JsonSchema::new(&json!({"pattern": "(a{1000}){1000}"})).is_err(), "a pattern that takes all memory");
        let long = json!({ "const": "x".repeat(DEFINITION_BYTES_MAX) });
        assert!(JsonSchema::new(&long).is_err_and(|error| error.contains("bytes")));
        // Each branch would keep a copy of what it refuses, and look through all of it.
        let copies = schema(&json!({"$defs": {"n": {"not": {"pattern": "b"}}}, "anyOf": vec![json!({"$ref": "#/$defs/n"}); 60]}));
        let large = copies.check(&json!("b".repeat(1 << 20)));
        assert!(matches!(large, Err(ValueError::Misfit { why, .. }) if why == "it is not as its topic's schema says"));
        let larger = copies.check(&json!("b".repeat(VALUE_MAX)));
        assert!(matches!(larger, Err(ValueError::Misfit { why, .. }) if why.contains("too large")));
        assert!(schema(&json!({"const": {"id": "x"}})).check(&json!({"id": "x"})).is_ok(), "no keyword");
        // As deep as its length permits, on as small a stack as any thread here has.
        let nots = |inner: Value| (0..58).fold(inner, |inner, _| json!({ "not": inner }));
        let defs = (0..10)
            .map(|step| (step.to_string(), nots(json!({"$ref": format!("#/$defs/{}", step + 1)}))))
            .chain([("10".into(), json!(true))]);
        let deep = json!({"$defs": serde_json::Map::from_iter(defs), "$ref": "#/$defs/0"});
        let judged = std::thread::Builder::new().stack_size(1 << 20).spawn(move || {
            let deep = schema(&deep);
            assert!(deep.to_bytes().is_some_and(|bytes| bytes.len() > 2_900));
            (deep.check(&json!(1)).is_ok(), deep.clone().check(&json!([[1]])).is_ok())
        });
        assert_eq!(judged.expect("a thread").join().expect("it does not overflow"), (true, true));
        // What is judged in earnest is not refused, and what would take a minute is.
        let wide = schema(&json!({"items": {"anyOf": (0..400).map(|number| json!({"const": number})).collect::<Vec<_>>()}}));
        assert_eq!(wide.check(&json!((0..400).collect::<Vec<_>>())), Ok(()));
        assert!(matches!(wide.check(&json!(vec![399; 100_000])), Err(ValueError::Misfit { why, .. }) if why.contains("too large")));
        let long = schema(&json!({"pattern": "(a+)+$", "maxLength": 10}));
        assert!(
            matches!(long.check(&json!("a".repeat(1_000_000))), Err(ValueError::Misfit { why, .. }) if why.len() <= SAID_BYTES_MAX + 3)
        );
    }
}
