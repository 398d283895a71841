//! Values: the bytes that a topic of each type takes, and their way from and to JSON and text.
//!
//! | type | bytes | JSON | text |
//! |---|---|---|---|
//! | json | one CBOR item, perhaps as a schema says ([`json_schema`](crate::json_schema)) | itself | JSON |
//! | string | a CBOR text, or null for no value | a string, or null | as it is |
//! | int64 | a CBOR integer in the range of `i64`, or null | a number, or null | decimal, or `null` |
//! | double | a CBOR float, finite, or null | a number, or null | decimal, or `null` |
//! | decimal | a CBOR text such as `-12.50`, with as many digits after the point as the topic says, or null | that text, or null; numbers are taken, too | decimal, or `null` |
//! | record | one CBOR item, as the topic's schema says ([`record`](crate::record)) | itself | JSON |
//! | protobuf | a message in protobuf's encoding ([`protobuf`](crate::protobuf)) | protobuf's canonical JSON | JSON |
//! | custom | as the topic's module says ([`custom`](crate::custom)) | as the module shows it; taken where it can read that, otherwise a base64 string | JSON where the module can read that, otherwise as they are |
//! | timeseries | each event as the type that it is of | | |
//! | slave | none of its own | | |
//! | paged | none that is written; what it shows is one of `json` ([`paged`](crate::paged)) | itself | |
//! | binary | as they are | a base64 string (RFC 4648 §4, padded) | as they are |
//!
//! A value has exactly one encoding, so that equal values are equal bytes and a comparison needs no decoding: RFC 8949
//! §4.2.1, *core deterministic*, which the CBOR libraries of other languages also write. That is: shortest integers,
//! shortest floats that keep the number, definite lengths only, and map keys in the order of their encodings (shorter
//! texts first), each once. An object's own order of keys is therefore not kept. Integers and floats are told apart: JSON's
//! `1` and `1.0` are two values. Of CBOR, only what JSON can say is taken: null, booleans, integers from -2⁶³ to 2⁶⁴-1,
//! finite floats, texts, arrays, and maps with texts as keys; no tags, byte strings, `undefined`, NaN or infinities.

use std::str;

use serde_json::{Map, Number, Value};

use crate::{blob::BlobHash, definition::TopicType};

/// How long a value is at most, in bytes: one must fit a frame and a few times in the memory of a small node.
pub const VALUE_MAX: usize = 4 * 1024 * 1024;

/// How deep arrays and maps may nest: what reads a value may recurse.
pub const VALUE_DEPTH_MAX: usize = 64;

/// How many digits a decimal has after its point at most.
pub const SCALE_MAX: u8 = 18;

/// How many digits a decimal has at most.
pub const DECIMAL_DIGITS_MAX: usize = 100;

/// Why something is not a value of a topic's type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// It has more than [`VALUE_MAX`] bytes.
    #[error("a value has at most {VALUE_MAX} bytes, this one has {0}")]
    TooLong(usize),
    /// Its arrays and maps nest more than [`VALUE_DEPTH_MAX`] deep.
    #[error("a value nests at most {VALUE_DEPTH_MAX} deep")]
    TooDeep,
    /// The bytes end in the middle of the value, or go on after it.
    #[error("the bytes are not one whole CBOR item")]
    NotOneItem,
    /// It is CBOR, but not in the one encoding that this value has.
    #[error("not in deterministic CBOR (RFC 8949 §4.2.1) at byte {0}")]
    NotCanonical(usize),
    /// It is CBOR that JSON has no word for.
    #[error("the CBOR item at byte {0} is none of JSON's: null, boolean, number, text, array, map with texts as keys")]
    NotJson(usize),
    /// A text in it is not UTF-8.
    #[error("the text at byte {0} is not UTF-8")]
    NotUtf8(usize),
    /// It is a value, but of another type.
    #[error("a {topic_type} topic takes {expected}")]
    WrongType {
        /// The topic's type.
        topic_type: &'static str,
        /// What it takes.
        expected: &'static str,
    },
    /// It has the form of the topic's values, but something in it is not as the topic says.
    #[error("at {at:?}: {why}")]
    Misfit {
        /// Where: a JSON pointer (RFC 6901).
        at: String,
        /// What is wrong.
        why: String,
    },
    /// The topic's type is one that this version does not know.
    #[error("the topic is of type number {0}, which this version does not know")]
    UnknownType(u64),
    /// The topic's definition names a blob that is not here.
    #[error("what values the topic takes is said by the blob {0}, which is not here yet")]
    NotHere(BlobHash),
    /// It is text that does not parse.
    #[error("not {expected}: {reason}")]
    BadText {
        /// What was expected.
        expected: &'static str,
        /// What the parser says.
        reason: String,
    },
}

/// Whether `bytes` are a value of a topic of the given type. Allocates nothing, but for records and where there is a schema.
pub fn validate(topic_type: &TopicType, bytes: &[u8]) -> Result<(), ValueError> {
    let topic_type = topic_type.value_type();
    if bytes.len() > VALUE_MAX {
        return Err(ValueError::TooLong(bytes.len()));
    }
    match topic_type {
        TopicType::Binary => return Ok(()),
        TopicType::Json => {
            let mut scan = Scan { bytes, at: 0 };
            scan.skip_item(VALUE_DEPTH_MAX)?;
            return scan.end();
        }
        TopicType::JsonAs(schema) => {
            validate(&TopicType::Json, bytes)?;
            return schema.check(&Scan { bytes, at: 0 }.json(VALUE_DEPTH_MAX)?);
        }
        TopicType::Record(schema) => {
            let mut scan = Scan { bytes, at: 0 };
            let json = scan.json(VALUE_DEPTH_MAX)?;
            scan.end()?;
            schema.check(&json)?;
            // Only the one encoding: what a map's keys were in another order is seen here.
            return (from_json(&TopicType::Json, &json)? == bytes).then_some(()).ok_or(ValueError::NotCanonical(0));
        }
        TopicType::Protobuf(message) => return message.get()?.validate(bytes),
        TopicType::Custom(module) => return Ok(module.get()?.validate(bytes)?),
        TopicType::Unknown(code) => return Err(ValueError::UnknownType(*code)),
        TopicType::Slave(_) | TopicType::Stateless | TopicType::TimeSeries(_) | TopicType::Paged => return Err(wrong_type(topic_type)),
        TopicType::String | TopicType::Int64 | TopicType::Double | TopicType::Decimal(_) => {}
    }
    let mut scan = Scan { bytes, at: 0 };
    let item = scan.item()?;
    scan.end()?;
    let fits = match item {
        Item::Null => true,
        Item::Text(text) => match topic_type {
            TopicType::Decimal(scale) => is_decimal(*scale, text),
            topic_type => *topic_type == TopicType::String,
        },
        Item::Unsigned(number) => *topic_type == TopicType::Int64 && i64::try_from(number).is_ok(),
        Item::Negative(_) => *topic_type == TopicType::Int64,
        Item::Float(_) => *topic_type == TopicType::Double,
        Item::Bool(_) | Item::Array(_) | Item::Map(_) => false,
    };
    if fits { Ok(()) } else { Err(wrong_type(topic_type)) }
}

/// The bytes that say *no value* to a topic whose type may be without one, `None` for other types.
pub fn no_value(topic_type: &TopicType) -> Option<&'static [u8]> {
    topic_type.may_have_no_value().then_some(&[NULL])
}

/// Whether valid bytes say *no value*.
pub fn is_no_value(topic_type: &TopicType, bytes: &[u8]) -> bool {
    no_value(topic_type) == Some(bytes)
}

/// The bytes of a JSON value on a topic of the given type. An integer on a `double` topic becomes a float.
pub fn from_json(topic_type: &TopicType, json: &Value) -> Result<Vec<u8>, ValueError> {
    let topic_type = topic_type.value_type();
    let mut bytes = Vec::new();
    match (topic_type, json) {
        (TopicType::Binary, Value::String(text)) => bytes = from_base64(text)?,
        (TopicType::Json, json) => write_json(&mut bytes, json, VALUE_DEPTH_MAX)?,
        (TopicType::JsonAs(schema), json) => {
            write_json(&mut bytes, json, VALUE_DEPTH_MAX)?;
            schema.check(json)?;
        }
        (TopicType::Record(schema), json) => {
            write_json(&mut bytes, json, VALUE_DEPTH_MAX)?;
            schema.check(json)?;
        }
        (TopicType::Protobuf(message), json) => bytes = message.get()?.from_json(json)?,
        (TopicType::Custom(module), json) => {
            let module = module.get()?;
            bytes = match json {
                Value::String(text) if !module.takes_json() => {
                    let bytes = from_base64(text)?;
                    module.validate(&bytes)?;
                    bytes
                }
                json => module.from_json(json)?,
            };
        }
        (TopicType::Unknown(code), _) => return Err(ValueError::UnknownType(*code)),
        (TopicType::String | TopicType::Int64 | TopicType::Double | TopicType::Decimal(_), Value::Null) => bytes.push(NULL),
        (TopicType::Decimal(scale), Value::String(text)) => write_text(&mut bytes, &decimal(*scale, text)?),
        (TopicType::Decimal(scale), Value::Number(number)) => {
            let text = number.to_string();
            let digits = text.split(['e', 'E']).next().unwrap_or_default().bytes().filter(u8::is_ascii_digit);
            // Of so many digits each is one that was written; more have been rounded before this is reached.
            if number.is_f64() && digits.count() > 15 {
                return Err(bad_text(
                    "a decimal number",
                    "as a JSON number it has more digits than such numbers keep: give it as a string",
                ));
            }
            write_text(&mut bytes, &decimal(*scale, &text)?);
        }
        (TopicType::String, Value::String(text)) => write_text(&mut bytes, text),
        (TopicType::Int64, Value::Number(number)) => {
            write_int(&mut bytes, number.as_i64().ok_or_else(|| wrong_type(topic_type))?);
        }
        (TopicType::Double, Value::Number(number)) => {
            write_float(&mut bytes, finite(number).ok_or_else(|| wrong_type(topic_type))?);
        }
        _ => return Err(wrong_type(topic_type)),
    }
    match bytes.len() {
        length if length > VALUE_MAX => Err(ValueError::TooLong(length)),
        _ => Ok(bytes),
    }
}

/// The JSON of a value's bytes; fails exactly where [`validate`] does, but for what paged topics show.
pub fn to_json(topic_type: &TopicType, bytes: &[u8]) -> Result<Value, ValueError> {
    let topic_type = match topic_type.value_type() {
        TopicType::Paged => &TopicType::Json,
        other => other,
    };
    if let TopicType::Protobuf(message) = topic_type {
        return message.get()?.to_json(bytes);
    }
    validate(topic_type, bytes)?;
    match topic_type {
        TopicType::Binary => return Ok(Value::String(to_base64(bytes))),
        TopicType::Custom(module) => return Ok(module.get()?.to_json(bytes)?),
        _ => {}
    }
    Scan { bytes, at: 0 }.json(VALUE_DEPTH_MAX)
}

/// The JSON of a value of whose topic's type only the name is known: what it looks like, and not whether the topic takes it. `None` if its type is unknown, or it is no value of any topic
/// of that type.
pub fn json_of(type_name: &str, bytes: &[u8]) -> Option<Value> {
    let plain = TopicType::PLAIN.into_iter().find(|topic_type| topic_type.name() == type_name);
    match (plain, type_name) {
        (Some(plain), _) => to_json(&plain, bytes).ok(),
        (None, "decimal" | "record") => to_json(&TopicType::Json, bytes).ok(),
        (None, _) => None,
    }
}

/// Whether a text is a decimal number, written in the one way for it: so many digits after the point, no zeros before it that need not be, no minus before zero.
fn is_decimal(scale: u8, text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let only_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let zero = || digits.bytes().all(|byte| matches!(byte, b'0' | b'.'));
    text.len() <= DECIMAL_DIGITS_MAX + 2
        && !whole.is_empty()
        && only_digits(whole)
        && only_digits(fraction)
        && (whole.len() == 1 || !whole.starts_with('0'))
        && fraction.len() == usize::from(scale)
        && digits.contains('.') == (scale > 0)
        && !(text.starts_with('-') && zero())
}

/// A decimal number as [`is_decimal`] has it, from one as people write it. Digits beyond the scale may only be zeros: nothing is rounded.
fn decimal(scale: u8, text: &str) -> Result<String, ValueError> {
    let bad = |reason: &str| Err(bad_text("a decimal number", reason));
    let text = text.trim();
    let (sign, rest) = match text.strip_prefix(['-', '+']) {
        Some(rest) => (if text.starts_with('-') { "-" } else { "" }, rest),
        None => ("", text),
    };
    let (mantissa, exponent) =
        rest.split_once(['e', 'E']).map_or((rest, Some(0)), |(mantissa, exponent)| (mantissa, exponent.parse::<i32>().ok()));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let Some(exponent) = exponent.filter(|exponent| exponent.unsigned_abs() as usize <= DECIMAL_DIGITS_MAX) else {
        return bad("its exponent is none, or too great");
    };
    if whole.len() + fraction.len() == 0 || !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit()) {
        return bad("expected digits, as in -12.50");
    }
    if whole.len() + fraction.len() > 2 * DECIMAL_DIGITS_MAX {
        return bad("it has too many digits");
    }
    // Its digits, with the point moved behind the last that counts.
    let mut digits = [whole, fraction].concat();
    let shift = exponent - fraction.len() as i32 + i32::from(scale);
    if shift >= 0 {
        digits.extend(std::iter::repeat_n('0', shift as usize));
    } else {
        let kept = digits.len().saturating_sub(shift.unsigned_abs() as usize);
        if digits[kept..].bytes().any(|digit| digit != b'0') {
            return bad(&format!("it has more than {scale} digits after the point, and is not rounded"));
        }
        digits.truncate(kept);
    }
    let digits = digits.trim_start_matches('0');
    if digits.len() > DECIMAL_DIGITS_MAX {
        return bad(&format!("it has more than {DECIMAL_DIGITS_MAX} digits"));
    }
    let sign = if digits.is_empty() { "" } else { sign };
    let digits = format!("{digits:0>width$}", width = usize::from(scale) + 1);
    let (whole, fraction) = digits.split_at(digits.len() - usize::from(scale));
    Ok(if scale == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") })
}

/// The bytes of a value that a person typed, or of a file's content.
///
/// On an `int64` or `double` topic, `null` says *no value*; on a `string` topic it is a text like others. White space around
/// numbers and JSON is skipped.
pub fn from_text(topic_type: &TopicType, text: &[u8]) -> Result<Vec<u8>, ValueError> {
    let topic_type = topic_type.value_type();
    if text.len() > VALUE_MAX {
        return Err(ValueError::TooLong(text.len()));
    }
    if *topic_type == TopicType::Binary {
        return Ok(text.to_vec());
    }
    if let TopicType::Custom(module) = topic_type
        && let module = module.get()?
        && !module.takes_json()
    {
        module.validate(text)?;
        return Ok(text.to_vec());
    }
    let text = str::from_utf8(text).map_err(|error| bad_text("UTF-8 text", error))?;
    let json = match topic_type {
        TopicType::String => Value::String(text.into()),
        TopicType::Int64 | TopicType::Double | TopicType::Decimal(_) if text.trim() == "null" => Value::Null,
        TopicType::Int64 => text.trim().parse::<i64>().map_err(|error| bad_text("an integer", error))?.into(),
        TopicType::Double => {
            let number = text.trim().parse::<f64>().map_err(|error| bad_text("a number", error))?;
            Value::Number(Number::from_f64(number).ok_or_else(|| wrong_type(topic_type))?)
        }
        TopicType::Decimal(_) => Value::String(text.into()),
        TopicType::Slave(_) | TopicType::Stateless | TopicType::TimeSeries(_) | TopicType::Paged => return Err(wrong_type(topic_type)),
        TopicType::Unknown(code) => return Err(ValueError::UnknownType(*code)),
        TopicType::Json
        | TopicType::JsonAs(_)
        | TopicType::Record(_)
        | TopicType::Protobuf(_)
        | TopicType::Custom(_)
        | TopicType::Binary => serde_json::from_str(text).map_err(|error| bad_text("JSON", error))?,
    };
    from_json(topic_type, &json)
}

fn wrong_type(topic_type: &TopicType) -> ValueError {
    let expected = match topic_type {
        TopicType::Json | TopicType::JsonAs(_) => "any JSON value",
        TopicType::Binary => "bytes, in JSON as a base64 string",
        TopicType::String => "a string, or null for no value",
        TopicType::Int64 => "an integer from -2⁶³ to 2⁶³-1, or null for no value",
        TopicType::Double => "a finite floating-point number, or null for no value",
        TopicType::Decimal(_) => "a decimal number with the topic's number of digits after the point, or null for no value",
        TopicType::Record(_) => "an object as its schema says",
        TopicType::Protobuf(_) => "a message of its type",
        TopicType::Custom(_) => "what its module takes",
        TopicType::Slave(_) => "no value of its own: write its master",
        TopicType::Stateless => "no value: send it messages",
        TopicType::TimeSeries(_) => "values of the type that it is of",
        TopicType::Paged => "lines: append them, or change them by their numbers",
        TopicType::Unknown(_) => "what a newer version knows",
    };
    ValueError::WrongType { topic_type: topic_type.name(), expected }
}

fn bad_text(expected: &'static str, error: impl ToString) -> ValueError {
    ValueError::BadText { expected, reason: error.to_string() }
}

/// The number as a float, where it is one that JSON can say again.
fn finite(number: &Number) -> Option<f64> {
    number.as_f64().filter(|number| number.is_finite())
}

const NULL: u8 = 0xf6;

const UNSIGNED: u8 = 0;
const NEGATIVE: u8 = 1;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
const OTHER: u8 = 7;

/// A scalar, or the head of a container with the number of its items or pairs.
enum Item<'a> {
    Null,
    Bool(bool),
    Unsigned(u64),
    Negative(i64),
    Float(f64),
    Text(&'a str),
    Array(u64),
    Map(u64),
}

struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Scan<'a> {
    fn item(&mut self) -> Result<Item<'a>, ValueError> {
        let start = self.at;
        let [head] = self.take()?;
        let (major, info) = (head >> 5, head & 31);
        if major == OTHER {
            return self.simple_or_float(start, info);
        }
        let argument = self.argument(start, info)?;
        match major {
            UNSIGNED => Ok(Item::Unsigned(argument)),
            NEGATIVE => i64::try_from(argument).map(|below| Item::Negative(-1 - below)).map_err(|_| ValueError::NotJson(start)),
            TEXT => self.text(start, argument).map(Item::Text),
            ARRAY => Ok(Item::Array(argument)),
            MAP => Ok(Item::Map(argument)),
            _ => Err(ValueError::NotJson(start)),
        }
    }

    fn simple_or_float(&mut self, start: usize, info: u8) -> Result<Item<'a>, ValueError> {
        let float = match info {
            20 => return Ok(Item::Bool(false)),
            21 => return Ok(Item::Bool(true)),
            22 => return Ok(Item::Null),
            25 => half_to_double(u16::from_be_bytes(self.take()?)),
            26 => f64::from(f32::from_be_bytes(self.take()?)),
            27 => f64::from_be_bytes(self.take()?),
            31 => return Err(ValueError::NotCanonical(start)),
            _ => return Err(ValueError::NotJson(start)),
        };
        if !float.is_finite() {
            return Err(ValueError::NotJson(start));
        }
        if float_info(float) != info {
            return Err(ValueError::NotCanonical(start));
        }
        Ok(Item::Float(float))
    }

    /// The number that follows a head: shortest form only.
    fn argument(&mut self, start: usize, info: u8) -> Result<u64, ValueError> {
        let (argument, least) = match info {
            0..24 => return Ok(u64::from(info)),
            24 => (u64::from(u8::from_be_bytes(self.take()?)), 24),
            25 => (u64::from(u16::from_be_bytes(self.take()?)), 1 << 8),
            26 => (u64::from(u32::from_be_bytes(self.take()?)), 1 << 16),
            27 => (u64::from_be_bytes(self.take()?), 1 << 32),
            // 31 is an open-ended length; 28 to 30 are not CBOR at all.
            _ => return Err(ValueError::NotCanonical(start)),
        };
        if argument < least { Err(ValueError::NotCanonical(start)) } else { Ok(argument) }
    }

    fn text(&mut self, start: usize, length: u64) -> Result<&'a str, ValueError> {
        let rest = &self.bytes[self.at..];
        let length = usize::try_from(length).ok().filter(|length| *length <= rest.len());
        let length = length.ok_or(ValueError::NotOneItem)?;
        self.at += length;
        str::from_utf8(&rest[..length]).map_err(|_| ValueError::NotUtf8(start))
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], ValueError> {
        let (taken, _) = self.bytes[self.at..].split_first_chunk::<N>().ok_or(ValueError::NotOneItem)?;
        self.at += N;
        Ok(*taken)
    }

    fn end(&self) -> Result<(), ValueError> {
        if self.at == self.bytes.len() { Ok(()) } else { Err(ValueError::NotOneItem) }
    }

    /// Goes past one item with all that it holds; `depth` containers may still open.
    fn skip_item(&mut self, depth: usize) -> Result<(), ValueError> {
        // Counts may lie: each round takes at least a byte, so the bytes bound the rounds.
        match self.item()? {
            Item::Array(count) => {
                let depth = depth.checked_sub(1).ok_or(ValueError::TooDeep)?;
                (0..count).try_for_each(|_| self.skip_item(depth))
            }
            Item::Map(count) => {
                let depth = depth.checked_sub(1).ok_or(ValueError::TooDeep)?;
                let mut last = None;
                (0..count).try_for_each(|_| {
                    last = Some(self.key_after(last)?);
                    self.skip_item(depth)
                })
            }
            _ => Ok(()),
        }
    }

    /// A key that comes after `last` in the order of encodings.
    fn key_after(&mut self, last: Option<&str>) -> Result<&'a str, ValueError> {
        let start = self.at;
        let Item::Text(key) = self.item()? else { return Err(ValueError::NotJson(start)) };
        match last {
            Some(last) if key_order(last) >= key_order(key) => Err(ValueError::NotCanonical(start)),
            _ => Ok(key),
        }
    }

    fn json(&mut self, depth: usize) -> Result<Value, ValueError> {
        Ok(match self.item()? {
            Item::Null => Value::Null,
            Item::Bool(flag) => Value::Bool(flag),
            Item::Unsigned(number) => number.into(),
            Item::Negative(number) => number.into(),
            Item::Float(number) => Number::from_f64(number).map_or(Value::Null, Value::Number),
            Item::Text(text) => Value::String(text.into()),
            Item::Array(count) => {
                let depth = depth.checked_sub(1).ok_or(ValueError::TooDeep)?;
                Value::Array((0..count).map(|_| self.json(depth)).collect::<Result<_, _>>()?)
            }
            Item::Map(count) => {
                let depth = depth.checked_sub(1).ok_or(ValueError::TooDeep)?;
                let pairs = (0..count).map(|_| Ok((self.key_after(None)?.to_owned(), self.json(depth)?)));
                Value::Object(pairs.collect::<Result<Map<_, _>, ValueError>>()?)
            }
        })
    }
}

/// What orders keys as their encodings are ordered: a text's head grows with its length.
fn key_order(key: &str) -> (usize, &str) {
    (key.len(), key)
}

fn write_json(bytes: &mut Vec<u8>, json: &Value, depth: usize) -> Result<(), ValueError> {
    match json {
        Value::Null => bytes.push(NULL),
        Value::Bool(flag) => bytes.push(0xf4 | u8::from(*flag)),
        Value::Number(number) => write_number(bytes, number)?,
        Value::String(text) => write_text(bytes, text),
        Value::Array(items) => {
            let depth = depth.checked_sub(1).ok_or(ValueError::TooDeep)?;
            write_head(bytes, ARRAY, items.len() as u64);
            items.iter().try_for_each(|item| write_json(bytes, item, depth))?;
        }
        Value::Object(map) => {
            let depth = depth.checked_sub(1).ok_or(ValueError::TooDeep)?;
            write_head(bytes, MAP, map.len() as u64);
            let mut pairs: Vec<_> = map.iter().collect();
            pairs.sort_unstable_by(|(one, _), (other, _)| key_order(one).cmp(&key_order(other)));
            for (key, value) in pairs {
                write_text(bytes, key);
                write_json(bytes, value, depth)?;
            }
        }
    }
    Ok(())
}

fn write_number(bytes: &mut Vec<u8>, number: &Number) -> Result<(), ValueError> {
    match (number.as_u64(), number.as_i64(), finite(number)) {
        (Some(unsigned), _, _) => write_head(bytes, UNSIGNED, unsigned),
        (None, Some(signed), _) => write_int(bytes, signed),
        (None, None, Some(float)) => write_float(bytes, float),
        (None, None, None) => return Err(bad_text("a number that fits 64 bits", number)),
    }
    Ok(())
}

fn write_int(bytes: &mut Vec<u8>, number: i64) {
    match u64::try_from(number) {
        Ok(unsigned) => write_head(bytes, UNSIGNED, unsigned),
        Err(_) => write_head(bytes, NEGATIVE, number.unsigned_abs() - 1),
    }
}

fn write_text(bytes: &mut Vec<u8>, text: &str) {
    write_head(bytes, TEXT, text.len() as u64);
    bytes.extend_from_slice(text.as_bytes());
}

fn write_head(bytes: &mut Vec<u8>, major: u8, argument: u64) {
    let major = major << 5;
    if argument < 24 {
        bytes.push(major | argument as u8);
    } else if let Ok(short) = u8::try_from(argument) {
        bytes.extend([major | 24, short]);
    } else if let Ok(short) = u16::try_from(argument) {
        bytes.push(major | 25);
        bytes.extend(short.to_be_bytes());
    } else if let Ok(short) = u32::try_from(argument) {
        bytes.push(major | 26);
        bytes.extend(short.to_be_bytes());
    } else {
        bytes.push(major | 27);
        bytes.extend(argument.to_be_bytes());
    }
}

fn write_float(bytes: &mut Vec<u8>, number: f64) {
    let info = float_info(number);
    bytes.push(OTHER << 5 | info);
    match info {
        25 => bytes.extend(double_to_half(number).unwrap_or_default().to_be_bytes()),
        26 => bytes.extend((number as f32).to_be_bytes()),
        _ => bytes.extend(number.to_be_bytes()),
    }
}

/// The head that goes before the shortest float that keeps the number: 25, 26, 27 for 16, 32, 64 bits.
fn float_info(number: f64) -> u8 {
    if double_to_half(number).is_some() {
        25
    } else if f64::from(number as f32).to_bits() == number.to_bits() {
        26
    } else {
        27
    }
}

/// The half-precision float that is exactly this finite number.
fn double_to_half(number: f64) -> Option<u16> {
    let bits = number.to_bits();
    let sign = ((bits >> 48) & 0x8000) as u16;
    let exponent = ((bits >> 52) & 0x7ff) as i32 - 1023;
    let fraction = bits & ((1 << 52) - 1);
    match exponent {
        -1023 if fraction == 0 => Some(sign),
        // Normal: ten bits of fraction.
        -14..=15 if fraction.trailing_zeros() >= 42 => Some(sign | ((exponent + 15) as u16) << 10 | (fraction >> 42) as u16),
        // Subnormal: multiples of 2⁻²⁴, the leading one written out.
        -24..=-15 => {
            let whole = fraction | 1 << 52;
            let drop = 42 + (-14 - exponent) as u32;
            (whole.trailing_zeros() >= drop).then(|| sign | (whole >> drop) as u16)
        }
        _ => None,
    }
}

fn half_to_double(half: u16) -> f64 {
    let (exponent, fraction) = (i32::from(half >> 10 & 31), f64::from(half & 0x3ff));
    let magnitude = match exponent {
        0 => fraction * 2f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1.0 + fraction / 1024.0) * 2f64.powi(exponent - 15),
    };
    if half & 0x8000 == 0 { magnitude } else { -magnitude }
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn to_base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0, |group: u32, byte| group << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        let letter = |place: usize| char::from(BASE64[(group >> (18 - 6 * place)) as usize & 63]);
        (0..4).for_each(|place| text.push(if place <= chunk.len() { letter(place) } else { '=' }));
    }
    text
}

/// The bytes that a base64 text stands for (RFC 4648 §4, padded), however many.
pub fn from_base64(text: &str) -> Result<Vec<u8>, ValueError> {
    let letters = text.trim_end_matches('=').as_bytes();
    let padding = text.len() - letters.len();
    if !text.len().is_multiple_of(4) || padding > 2 {
        return Err(bad_text("base64", "its length is no multiple of 4"));
    }
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for chunk in letters.chunks(4) {
        let mut group = 0;
        for letter in chunk {
            let place = base64_value(*letter).ok_or_else(|| bad_text("base64", "it has a foreign character"))?;
            group = group << 6 | place;
        }
        group <<= 6 * (4 - chunk.len());
        let [_, decoded @ ..] = u32::to_be_bytes(group);
        let (kept, dropped) = decoded.split_at(chunk.len() * 6 / 8);
        if dropped.iter().any(|byte| *byte != 0) {
            return Err(bad_text("base64", "its last character has bits to spare"));
        }
        bytes.extend_from_slice(kept);
    }
    Ok(bytes)
}

fn base64_value(letter: u8) -> Option<u32> {
    Some(u32::from(match letter {
        b'A'..=b'Z' => letter - b'A',
        b'a'..=b'z' => letter - b'a' + 26,
        b'0'..=b'9' => letter - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn bytes_of(json: Value) -> Vec<u8> {
        from_json(&TopicType::Json, &json).unwrap()
    }

    #[test]
    fn the_encoding_is_that_of_the_rfc() {
        // From RFC 8949, appendix A, except where it says nothing about order.
        let table: [(Value, &[u8]); 22] = [
            (json!(0), &[0x00]),
            (json!(23), &[0x17]),
            (json!(24), &[0x18, 0x18]),
            (json!(1000), &[0x19, 0x03, 0xe8]),
            (json!(1000000), &[0x1a, 0x00, 0x0f, 0x42, 0x40]),
            (json!(u64::MAX), &[0x1b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
            (json!(-1), &[0x20]),
            (json!(-1000), &[0x39, 0x03, 0xe7]),
            (json!(i64::MIN), &[0x3b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
            (json!(0.0), &[0xf9, 0x00, 0x00]),
            (json!(-0.0), &[0xf9, 0x80, 0x00]),
            (json!(1.5), &[0xf9, 0x3e, 0x00]),
            (json!(65504.0), &[0xf9, 0x7b, 0xff]),
            (json!(100000.0), &[0xfa, 0x47, 0xc3, 0x50, 0x00]),
            (json!(1.1), &[0xfb, 0x3f, 0xf1, 0x99, 0x99, 0x99, 0x99, 0x99, 0x9a]),
            (json!(5.960464477539063e-8), &[0xf9, 0x00, 0x01]),
            (json!(0.00006103515625), &[0xf9, 0x04, 0x00]),
            (json!(true), &[0xf5]),
            (json!(null), &[0xf6]),
            (json!("ü"), &[0x62, 0xc3, 0xbc]),
            (json!([1, [2, 3]]), &[0x82, 0x01, 0x82, 0x02, 0x03]),
            (json!({"aa": 1, "b": 2}), &[0xa2, 0x61, 0x62, 0x02, 0x62, 0x61, 0x61, 0x01]),
        ];
        for (json, bytes) in table {
            assert_eq!(bytes_of(json.clone()), bytes, "{json}");
            assert_eq!(to_json(&TopicType::Json, bytes), Ok(json));
        }
    }

    #[test]
    fn other_encodings_are_refused_and_say_where() {
        let table: [(&[u8], ValueError); 20] = [
            (&[], ValueError::NotOneItem),
            (&[0x00, 0x00], ValueError::NotOneItem),
            (&[0x82, 0x00], ValueError::NotOneItem),
            (&[0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], ValueError::NotOneItem),
            (&[0x7b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], ValueError::NotOneItem),
            (&[0x18, 0x17], ValueError::NotCanonical(0)),
            (&[0x81, 0x19, 0x00, 0xff], ValueError::NotCanonical(1)),
            (&[0x9f, 0xff], ValueError::NotCanonical(0)),
            (&[0x7f, 0xff], ValueError::NotCanonical(0)),
            (&[0x1c], ValueError::NotCanonical(0)),
            (&[0xa2, 0x61, 0x62, 0x00, 0x61, 0x61, 0x00], ValueError::NotCanonical(4)),
            (&[0xa2, 0x61, 0x61, 0x00, 0x61, 0x61, 0x00], ValueError::NotCanonical(4)),
            (&[0xfa, 0x3f, 0x80, 0x00, 0x00], ValueError::NotCanonical(0)),
            (&[0xfb, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0], ValueError::NotCanonical(0)),
            (&[0xf9, 0x7e, 0x00], ValueError::NotJson(0)),
            (&[0xf9, 0xfc, 0x00], ValueError::NotJson(0)),
            (&[0x81, 0x41, 0x00], ValueError::NotJson(1)),
            (&[0xa1, 0x00, 0x00], ValueError::NotJson(1)),
            (&[0x3b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], ValueError::NotJson(0)),
            (&[0x62, 0xc3, 0x28], ValueError::NotUtf8(0)),
        ];
        for (bytes, error) in table {
            assert_eq!(validate(&TopicType::Json, bytes), Err(error.clone()), "{bytes:x?}");
            assert_eq!(to_json(&TopicType::Json, bytes), Err(error), "{bytes:x?}");
        }
        assert_eq!(validate(&TopicType::Json, &[0xc0, 0x00]), Err(ValueError::NotJson(0)), "a tag");
        assert_eq!(validate(&TopicType::Json, &[0xf7]), Err(ValueError::NotJson(0)), "undefined");
    }

    #[test]
    fn depth_and_size_have_limits() {
        let nested = |depth: usize| [vec![0x81; depth], vec![0x00]].concat();
        assert_eq!(validate(&TopicType::Json, &nested(64)), Ok(()));
        assert_eq!(validate(&TopicType::Json, &nested(65)), Err(ValueError::TooDeep));
        assert_eq!(validate(&TopicType::Json, &nested(VALUE_MAX - 1)), Err(ValueError::TooDeep));
        let nested = |depth: usize| (0..depth).fold(json!(0), |json, _| json!({ "a": json }));
        assert!(from_json(&TopicType::Json, &nested(64)).is_ok());
        assert_eq!(from_json(&TopicType::Json, &nested(65)), Err(ValueError::TooDeep));
        let large = vec![0; VALUE_MAX + 1];
        assert_eq!(validate(&TopicType::Binary, &large[1..]), Ok(()));
        assert_eq!(validate(&TopicType::Binary, &large), Err(ValueError::TooLong(VALUE_MAX + 1)));
        assert_eq!(from_text(&TopicType::String, &large), Err(ValueError::TooLong(VALUE_MAX + 1)));
        assert_eq!(from_text(&TopicType::String, &large[1..]), Err(ValueError::TooLong(VALUE_MAX + 5)));
    }

    #[test]
    fn each_type_takes_its_own_values_and_perhaps_none() {
        let cases = [json!(null), json!("a"), json!(1), json!(-1), json!(u64::MAX), json!(1.5), json!(true), json!([]), json!({})];
        let takes = |topic_type| -> Vec<Value> {
            let taken = |json: &&Value| validate(&topic_type, &bytes_of((*json).clone())).is_ok();
            cases.iter().filter(taken).cloned().collect()
        };
        assert_eq!(takes(TopicType::Json), cases);
        assert_eq!(takes(TopicType::String), [json!(null), json!("a")]);
        assert_eq!(takes(TopicType::Int64), [json!(null), json!(1), json!(-1)]);
        assert_eq!(takes(TopicType::Double), [json!(null), json!(1.5)]);
        for topic_type in TopicType::PLAIN {
            let none = no_value(&topic_type);
            assert_eq!(none.is_some(), topic_type.may_have_no_value());
            assert!(none.is_none_or(|none| validate(&topic_type, none).is_ok() && is_no_value(&topic_type, none)));
        }
        assert!(!is_no_value(&TopicType::Json, &bytes_of(json!(null))), "null is a json topic's value");
    }

    #[test]
    fn decimals_have_one_form_and_are_not_rounded() {
        let two = TopicType::Decimal(2);
        let shown = |json: Value| from_json(&two, &json).map(|bytes| to_json(&two, &bytes).unwrap());
        for (said, is) in [
            (json!("12.5"), "12.50"),
            (json!("-0012.500"), "-12.50"),
            (json!("+.5"), "0.50"),
            (json!("5."), "5.00"),
            (json!("-0.001e1"), "-0.01"),
            (json!("1e3"), "1000.00"),
            (json!("-0.00"), "0.00"),
            (json!(7), "7.00"),
            (json!(-0.25), "-0.25"),
            (json!(u64::MAX), "18446744073709551615.00"),
        ] {
            assert_eq!(shown(said.clone()), Ok(json!(is)), "{said}");
        }
        assert!(
            matches!(shown(json!(12_345_678_901_234_567.89)), Err(ValueError::BadText { reason, .. }) if reason.contains("as a string"))
        );
        assert_eq!(shown(json!(1_234_567_890_123.45)), Ok(json!("1234567890123.45")));
        for wrong in ["", ".", "-", "1.2.3", "0.001", "1e-3", "1,5", "0x1", "1e101", "1e", "ten", &"9".repeat(99)] {
            assert!(matches!(shown(json!(wrong)), Err(ValueError::BadText { .. })), "{wrong}");
        }
        assert!(shown(json!("9".repeat(98))).is_ok() && from_json(&TopicType::Decimal(0), &json!("-9")).is_ok());
        for other in ["12.5", "12.500", "012.50", "-0.00", "12", "+1.00", ".50", "1e2", "1.5 "] {
            let bytes = from_json(&TopicType::String, &json!(other)).unwrap();
            assert_eq!(validate(&two, &bytes), Err(wrong_type(&two)), "{other}");
        }
        assert_eq!(from_text(&two, b" -3 ").map(|bytes| to_json(&two, &bytes)), Ok(Ok(json!("-3.00"))));
        assert_eq!(from_text(&two, b"null"), Ok(vec![NULL]));
        assert_eq!(from_json(&two, &json!([])), Err(wrong_type(&two)));
    }

    #[test]
    fn records_are_told_by_their_schema_in_one_encoding() {
        let schema =
            json!({"records": [{"name": "r", "fields": [{"name": "a", "type": "int64"}, {"name": "bb", "type": "string", "min": 0}]}]});
        let record = TopicType::Record(std::sync::Arc::new(crate::record::Schema::new(&schema).unwrap()));
        let value = json!({"r": {"bb": "x", "a": 1}});
        let bytes = from_json(&record, &value).unwrap();
        assert_eq!((bytes.clone(), validate(&record, &bytes)), (bytes_of(value.clone()), Ok(())));
        assert_eq!((to_json(&record, &bytes), json_of("record", &bytes)), (Ok(value.clone()), Some(value)));
        let misfit = Err(ValueError::Misfit { at: "/r/a".into(), why: "it is missing".into() });
        assert_eq!(from_json(&record, &json!({"r": {}})), misfit);
        assert_eq!(validate(&record, &bytes_of(json!({"r": {}}))).map(|()| Vec::new()), misfit);
        assert_eq!(validate(&record, &[0xa1, 0x61, b'r', 0xa2, 0x62, b'b', b'b', 0x60, 0x61, b'a', 1]), Err(ValueError::NotCanonical(0)));
        assert_eq!(validate(&record, &[0xa1]), Err(ValueError::NotOneItem));
    }

    #[test]
    fn what_a_blob_says_is_asked_once_it_is_here() {
        use crate::{blob::Blob, definition::Definition};

        let blob = Blob::new(std::sync::Arc::from(&b"no module"[..]));
        let hash = BlobHash::of(blob.content());
        for (topic_type, other) in [("custom", ("module", "")), ("protobuf", ("descriptors", "a.B"))] {
            let properties = [(other.0, format!("blob:{hash}")), ("message", other.1.to_owned())];
            let properties = &properties[..if other.1.is_empty() { 1 } else { 2 }];
            let definition = Definition::parse(topic_type, properties).unwrap();
            let topic_type = definition.topic_type();
            assert_eq!(validate(topic_type, b""), Err(ValueError::NotHere(hash)));
            assert_eq!(to_json(topic_type, b""), Err(ValueError::NotHere(hash)));
            assert_eq!(from_json(topic_type, &json!({})), Err(ValueError::NotHere(hash)));
            assert_eq!(from_text(topic_type, b"{}"), Err(ValueError::NotHere(hash)));
            let useless = topic_type.supply(&hash, &blob).unwrap_err();
            assert!(matches!(validate(topic_type, b""), Err(ValueError::Misfit { why, .. }) if why.contains(&useless)), "{useless}");
        }
    }

    #[test]
    fn one_module_judges_for_all_definitions_that_name_it() {
        use crate::{blob::Blob, custom::FUEL_PER_BYTE, definition::Definition};

        let endless = r#"(module (memory (export "memory") 1)
            (func (export "alloc") (param i32) (result i32) (i32.const 0))
            (func (export "validate") (param i32 i32) (result i64) (if (local.get 1) (then (loop (br 0)))) (i64.const 0))
            (func (export "to_json") (param i32 i32) (result i64) (i64.const 0)))"#;
        let blob = Blob::new(wat::parse_str(endless).unwrap().into());
        let hash = BlobHash::of(blob.content());
        let of = |retain: &str| {
            let definition = Definition::parse("custom", &[("module", format!("blob:{hash}")), ("retain", retain.into())]).unwrap();
            definition.topic_type().supply(&hash, &blob).unwrap();
            definition
        };
        let (one, other) = (of("true"), of("false"));
        assert_eq!((validate(one.topic_type(), b""), from_text(one.topic_type(), b"")), (Ok(()), Ok(vec![])));
        assert_eq!(from_json(one.topic_type(), &json!("")), Ok(vec![]));
        let wasted = |definition: &Definition| match validate(definition.topic_type(), &[0; 1 << 16]) {
            Err(ValueError::Misfit { why, .. }) => why,
            other => panic!("{other:?}"),
        };
        let calls = (crate::custom::WASTE_MAX / (FUEL_PER_BYTE << 16)) as usize + 1;
        let said: Vec<String> = (0..calls).map(|_| wasted(&one)).collect();
        assert!(said[0].contains("failed") && wasted(&other).contains("given up"), "{said:?}");
        assert!(wasted(&of("true")).contains("given up"), "made anew");
    }

    #[test]
    fn of_an_unknown_type_nothing_is_known() {
        let unknown = TopicType::Unknown(19);
        assert_eq!(validate(&unknown, &[0]), Err(ValueError::UnknownType(19)));
        assert_eq!(from_json(&unknown, &json!(0)), Err(ValueError::UnknownType(19)));
        assert_eq!((json_of("unknown", &[0]), json_of("decimal", &[0x63, b'1', b'.', b'5'])), (None, Some(json!("1.5"))));
    }

    proptest! {
        #[test]
        fn decimals_are_what_was_written(number in any::<i64>(), scale in 0..=SCALE_MAX) {
            let of = TopicType::Decimal(scale);
            let bytes = from_json(&of, &json!(number)).unwrap();
            prop_assert_eq!(validate(&of, &bytes), Ok(()));
            let text = to_json(&of, &bytes).unwrap();
            let text = text.as_str().unwrap();
            prop_assert_eq!(text.split('.').next().unwrap().parse::<i64>(), Ok(number));
            prop_assert_eq!(from_json(&of, &json!(text)), Ok(bytes));
        }

        #[test]
        fn no_text_makes_a_decimal_that_is_none(text in "[-+0-9.eE ]{0,24}|.{0,8}", scale in 0..=SCALE_MAX) {
            if let Ok(bytes) = from_json(&TopicType::Decimal(scale), &json!(text)) {
                prop_assert_eq!(validate(&TopicType::Decimal(scale), &bytes), Ok(()));
            }
        }
    }

    #[test]
    fn what_people_type_becomes_values() {
        let shown = |topic_type: TopicType, text: &str| to_json(&topic_type, &from_text(&topic_type, text.as_bytes()).unwrap()).unwrap();
        assert_eq!(shown(TopicType::Json, " {\"b\": [1, 2.50], \"a\": null} "), json!({"a": null, "b": [1, 2.5]}));
        assert_eq!(shown(TopicType::String, "null"), json!("null"));
        assert_eq!(shown(TopicType::String, ""), json!(""));
        assert_eq!(shown(TopicType::Int64, "-7\n"), json!(-7));
        assert_eq!(shown(TopicType::Int64, "null"), json!(null));
        assert_eq!(shown(TopicType::Double, "7"), json!(7.0));
        assert_eq!(shown(TopicType::Binary, "Mangrove"), json!("TWFuZ3JvdmU="));
        let refused = |topic_type: TopicType, text: &[u8]| from_text(&topic_type, text).unwrap_err().to_string();
        assert!(refused(TopicType::Json, b"{").starts_with("not JSON: EOF"));
        assert!(refused(TopicType::Int64, b"1.5").starts_with("not an integer: invalid digit"));
        assert!(refused(TopicType::Int64, b"9223372036854775808").starts_with("not an integer: number too large"));
        assert!(refused(TopicType::Double, b"inf").starts_with("a double topic takes a finite"));
        assert!(refused(TopicType::String, b"\xff").starts_with("not UTF-8 text"));
        assert_eq!(
            from_json(&TopicType::Int64, &json!(1.0)).unwrap_err().to_string(),
            "a int64 topic takes an integer from -2⁶³ to 2⁶³-1, or null for no value"
        );
    }

    #[test]
    fn bad_base64_is_refused() {
        let decoded = |text: &str| from_json(&TopicType::Binary, &json!(text));
        assert_eq!(decoded("TWE="), Ok(b"Ma".to_vec()));
        assert_eq!(decoded(""), Ok(vec![]));
        for bad in ["TWE", "TWF=", "TW==E", "T===", "====", "TW*=", "T=E=", "TWFuZ3 v"] {
            assert!(matches!(decoded(bad), Err(ValueError::BadText { expected: "base64", .. })), "{bad}");
        }
    }

    fn jsons() -> impl Strategy<Value = Value> {
        let scalars = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            (-300i64..300).prop_map(Value::from),
            prop::num::f64::NORMAL.prop_map(Value::from),
            any::<f32>().prop_filter("finite", |float| float.is_finite()).prop_map(Value::from),
            "\\PC{0,30}".prop_map(Value::from),
        ];
        scalars.prop_recursive(4, 64, 8, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
                prop::collection::btree_map("[a-d]{0,30}", inner, 0..8).prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    #[test]
    fn every_half_keeps_its_number() {
        for half in 0..=u16::MAX {
            let double = half_to_double(half);
            assert_eq!(double_to_half(double), double.is_finite().then_some(half), "{half:#x}");
        }
    }

    proptest! {
        #[test]
        fn json_survives_its_bytes(json in jsons()) {
            let bytes = bytes_of(json.clone());
            prop_assert_eq!(validate(&TopicType::Json, &bytes), Ok(()));
            prop_assert_eq!(to_json(&TopicType::Json, &bytes).unwrap(), json);
        }

        #[test]
        fn valid_bytes_are_the_bytes_of_their_json(bytes in prop::collection::vec(any::<u8>(), 0..24)) {
            for topic_type in TopicType::PLAIN {
                if validate(&topic_type, &bytes).is_ok() {
                    let json = to_json(&topic_type, &bytes).unwrap();
                    prop_assert_eq!(from_json(&topic_type, &json).unwrap(), bytes.clone());
                }
            }
        }

        #[test]
        fn damaged_bytes_never_panic_nor_pass_for_something_else(
            json in jsons(), at: prop::sample::Index, byte: u8, cut: prop::sample::Index,
        ) {
            let mut bytes = bytes_of(json);
            let place = at.index(bytes.len());
            bytes[place] = byte;
            bytes.truncate(cut.index(bytes.len()) + 1);
            if let Ok(json) = to_json(&TopicType::Json, &bytes) {
                prop_assert_eq!(bytes_of(json), bytes);
            }
        }
    }
}
