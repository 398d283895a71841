//! What must be so for a write to be made.
//!
//! ```text
//! clause := 'no' 'topic' | 'no' 'value' | 'value' 'is' JSON | POINTER 'is' JSON | 'nothing' 'at' POINTER
//! ```
//!
//! Clauses are joined as everywhere ([`clauses`](crate::node::clauses)). A POINTER is a JSON pointer (RFC 6901) into the topic's value; one with a space, a bracket, a comma or
//! a quote in it stands in quotes. A topic that is not there has no value either, and a value that is not there is nothing, and has nothing in it.
//!
//! Values are compared as JSON shows them: the order of keys never matters, and numbers are equal if they are as numbers (RFC 6902 §4.6).

use std::fmt;

use serde_json::{Number, Value};

use crate::node::clauses::{self, Expression, Reader, Unread, quoted};

/// How long a constraint may be, in bytes: there may be values in it.
pub const CONSTRAINT_BYTES_MAX: usize = 64 << 10;

/// See the module.
pub type Constraint = Expression<Clause>;

/// One clause of a constraint.
#[derive(Debug, Clone, PartialEq)]
pub enum Clause {
    /// There is no topic.
    NoTopic,
    /// There is no value.
    NoValue,
    /// At a pointer into the value is this; the empty pointer is the value itself.
    Is(String, Value),
    /// There is nothing at a pointer into the value.
    Nothing(String),
}

/// What is at a topic's path.
#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    /// No topic.
    Nothing,
    /// A topic, and what its value is, if it has one.
    Topic(Option<Value>),
}

impl Clause {
    /// Whether it is so.
    pub fn is_met(&self, found: &Found) -> bool {
        let value = if let Found::Topic(value) = found { value.as_ref() } else { None };
        match self {
            Clause::NoTopic => *found == Found::Nothing,
            Clause::NoValue => value.is_none(),
            Clause::Is(pointer, wanted) => value.and_then(|value| value.pointer(pointer)).is_some_and(|there| same(there, wanted)),
            Clause::Nothing(pointer) => value.is_none_or(|value| value.pointer(pointer).is_none()),
        }
    }
}

impl clauses::Clause for Clause {
    const BYTES_MAX: usize = CONSTRAINT_BYTES_MAX;

    fn read(reader: &mut Reader<'_>) -> Result<Self, Unread> {
        if reader.takes("no") {
            if reader.takes("topic") {
                return Ok(Clause::NoTopic);
            }
            return reader.wants("value").map(|()| Clause::NoValue).or_else(|_| reader.wanted("`topic` or `value`"));
        }
        if reader.takes("nothing") {
            reader.wants("at")?;
            return pointer(reader).map(Clause::Nothing);
        }
        let at = if reader.takes("value") { String::new() } else { pointer(reader)? };
        reader.wants("is")?;
        Ok(Clause::Is(at, reader.json()?))
    }
}

fn pointer(reader: &mut Reader<'_>) -> Result<String, Unread> {
    const WHAT: &str = "`value`, `no`, `nothing`, `not` or a pointer such as /speed/unit";
    let at = reader.at();
    let pointer = if reader.is_text() { reader.text(WHAT)? } else { reader.word(WHAT)?.to_owned() };
    let is_whole = |escaped: &str| escaped.starts_with(['0', '1']);
    match pointer.is_empty() || (pointer.starts_with('/') && pointer.split('~').skip(1).all(is_whole)) {
        true => Ok(pointer),
        false => Err(Unread { what: format!("expected {WHAT}, not {pointer:?}"), at }),
    }
}

impl fmt::Display for Clause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Clause::NoTopic => f.write_str("no topic"),
            Clause::NoValue => f.write_str("no value"),
            Clause::Is(pointer, value) if pointer.is_empty() => write!(f, "value is {value}"),
            Clause::Is(pointer, value) => write!(f, "{} is {value}", quoted(pointer)),
            Clause::Nothing(pointer) => write!(f, "nothing at {}", quoted(pointer)),
        }
    }
}

/// Whether two JSON values are equal: RFC 6902 §4.6.
pub fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one == other || same_number(one, other),
        (Value::Array(one), Value::Array(other)) => one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other)),
        (Value::Object(one), Value::Object(other)) => {
            let known = |(key, one): (&String, &Value)| other.get(key).is_some_and(|other| same(one, other));
            one.len() == other.len() && one.iter().all(known)
        }
        (one, other) => one == other,
    }
}

/// An integer and a float may be the same number; neither is rounded for it.
fn same_number(one: &Number, other: &Number) -> bool {
    let integer = |number: &Number| number.as_i128();
    match (integer(one), integer(other)) {
        (Some(one), Some(other)) => one == other,
        (None, None) => one.as_f64() == other.as_f64(),
        (Some(integer), None) => is_integer(other.as_f64(), integer),
        (None, Some(integer)) => is_integer(one.as_f64(), integer),
    }
}

fn is_integer(float: Option<f64>, integer: i128) -> bool {
    // Integers of JSON have 64 bits; what a float has beyond is cut to the edge, which none of them is.
    float.is_some_and(|float| float.fract() == 0.0 && float as i128 == integer)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn met(text: &str, found: &Found) -> bool {
        let constraint = Constraint::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        constraint.is_met(&mut |clause| clause.is_met(found))
    }

    #[test]
    fn each_clause_asks_what_it_says() {
        let value = json!({"speed": {"unit": "kn", "now": 7}, "a b": [1, null], "m~n": 0, "is": "is"});
        let found = Found::Topic(Some(value.clone()));
        for text in [
            "/speed/unit is \"kn\"",
            "/speed/unit is 'kn' and /speed/now is 7.0",
            "/speed is {\"now\": 7e0, \"unit\": \"kn\"}",
            "'/a b/0' is 1",
            "'/a b' is [1, null]",
            "/m~0n is 0",
            "not no value and not no topic",
            "nothing at /speed/then",
            "nothing at '/a b/2'",
            "not nothing at '/a b/1'",
            "(no topic or /speed/now is 8) or not (/speed/now is 6)",
            "/IS is 'is' or /is IS 'is'",
        ] {
            assert!(met(text, &found), "{text}");
        }
        for text in
            ["no topic", "no value", "/speed/now is '7'", "/speed/now is 7.5", "nothing at /speed", "nothing at ''", "value is null"]
        {
            assert!(!met(text, &found), "{text}");
        }
        assert!(met(&format!("value is {value}"), &found) && met(&format!("'' is {value}"), &found));
        let none = Found::Topic(None);
        assert!(met("no value and not no topic and nothing at /a", &none) && !met("value is null", &none));
        assert!(met("no value and no topic and nothing at ''", &Found::Nothing) && !met("value is null", &Found::Nothing));
        assert!(met("value is null and not no value", &Found::Topic(Some(json!(null)))));
    }

    #[test]
    fn numbers_are_compared_as_numbers_and_not_rounded() {
        let equal = |one: Value, other: Value| same(&one, &other) && same(&other, &one);
        assert!(equal(json!(1), json!(1.0)) && equal(json!(-0.0), json!(0)) && equal(json!(1e3), json!(1000)));
        assert!(equal(json!(9_007_199_254_740_992_u64), json!(9_007_199_254_740_992.0)));
        assert!(!equal(json!(9_007_199_254_740_993_u64), json!(9_007_199_254_740_992.0)));
        assert!(!equal(json!(u64::MAX), json!(18_446_744_073_709_551_616.0)) && !equal(json!(u64::MAX), json!(1e300)));
        assert!(!equal(json!(1), json!(1.5)) && !equal(json!(1), json!("1")) && !equal(json!([1]), json!([1, 1])));
    }

    #[test]
    fn what_is_no_constraint_says_where() {
        for (text, at, what) in [
            ("", 0, "a pointer such as /speed/unit at the end"),
            ("no", 2, "`topic` or `value`"),
            ("no way", 3, "`topic` or `value`, not \"way\""),
            ("speed is 1", 0, "not \"speed\""),
            ("/a~2 is 1", 0, "not \"/a~2\""),
            ("nothing", 7, "\"at\""),
            ("value 7", 6, "\"is\""),
            ("value is", 8, "JSON value"),
            ("value is seven", 9, "JSON value"),
            ("value is {\"a\": }", 9, "JSON value"),
            ("value is [1", 9, "JSON value"),
            ("value is 1 and", 14, "a pointer"),
            ("(value is 1", 11, "or )"),
            ("value is 1 2", 11, "the end"),
        ] {
            let error = Constraint::parse(text).expect_err(text);
            assert!(error.at == at && error.what.contains(what), "{text}: {error:?}");
        }
        assert!(Constraint::parse(&format!("value is {}1{}", "[".repeat(1_000), "]".repeat(1_000))).is_err(), "too deep");
        assert!(Constraint::parse(&format!("value is '{}'", "x".repeat(CONSTRAINT_BYTES_MAX))).is_err(), "too long");
    }

    #[test]
    fn the_first_part_that_is_not_so_is_found() {
        let found = Found::Topic(Some(json!({"a": 1})));
        let unmet = |text: &str| Constraint::parse(text).expect(text).unmet(&mut |clause| clause.is_met(&found)).map(ToString::to_string);
        assert_eq!(unmet("/a is 1 and (/b is 2 or no value) and no topic"), Some("\"/b\" is 2 or no value".into()));
        assert_eq!(unmet("not /a is 1"), Some("not \"/a\" is 1".into()));
        assert_eq!(unmet("/a is 1 and nothing at /b"), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn nothing_that_is_typed_makes_it_panic(text in "[ a-c()\"'\\\\/~1-3\\[\\]{}:,]{0,40}|(no|topic|value|nothing|at|is|not|and|or|/[a-c~0-2]{1,4}|[0-9.e-]{1,5}| |'all'|\\[1\\]){0,12}") {
            if let Ok(constraint) = Constraint::parse(&text) {
                let said = constraint.to_string();
                prop_assert_eq!(Constraint::parse(&said).map(|again| again.to_string()), Ok(said));
            }
        }
    }
}
