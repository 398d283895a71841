//! JSON Patch (RFC 6902): how a document is to be changed, all of it or nothing.
//!
//! What a patch may cost is bounded, since it is asked for by anybody and done between two inputs of the node: by the length of its text, by what it
//! copies, and by how many values its operations may have to move aside.

use std::fmt;

use json_patch::PatchOperation;
use mangrove_crdt::value::VALUE_DEPTH_MAX;
use serde_json::Value;

use super::constraint::same;
use crate::protocol::VALUE_MAX;

/// How long a patch may be, in bytes.
pub const PATCH_BYTES_MAX: usize = VALUE_MAX;
/// How many values may be looked at for it: each operation may look at all that there are.
const WORK_MAX: usize = 20_000_000;

/// Why a patch was not applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadPatch {
    /// It is none.
    NoPatch(String),
    /// An operation, counted from one, cannot be done on this document, or its test fails.
    Failed(usize, String),
    /// It costs too much.
    TooMuch(String),
}

impl fmt::Display for BadPatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadPatch::NoPatch(why) => write!(f, "no JSON patch (RFC 6902): {why}"),
            BadPatch::Failed(operation, why) => write!(f, "operation {operation}: {why}"),
            BadPatch::TooMuch(why) => f.write_str(why),
        }
    }
}

/// The document as it is after a patch.
///
/// # Errors
/// The patch is none, cannot be applied, or costs too much. What of it could be applied is not known then.
pub fn patched(mut document: Value, patch: &[u8]) -> Result<Value, BadPatch> {
    if patch.len() > PATCH_BYTES_MAX {
        return Err(BadPatch::TooMuch(format!("a patch has at most {PATCH_BYTES_MAX} bytes, this one has {}", patch.len())));
    }
    let operations: Vec<PatchOperation> = serde_json::from_slice(patch).map_err(|error| BadPatch::NoPatch(error.to_string()))?;
    let mut size = Size::of(&document);
    let mut work = 0_usize;
    for (at, operation) in operations.iter().enumerate() {
        let failed = |why: String| Err(BadPatch::Failed(at + 1, why));
        work = work.saturating_add(size.values);
        if work > WORK_MAX {
            let why = format!("{} operations on a document of {} values are too much at once", operations.len(), size.values);
            return Err(BadPatch::TooMuch(why));
        }
        let brings = match operation {
            PatchOperation::Test(test) => {
                match document.pointer(test.path.as_str()) {
                    Some(found) if same(found, &test.value) => {}
                    Some(_) => return failed(format!("what is at {:?} is another value than the tested one", test.path.as_str())),
                    None => return failed(format!("there is nothing at {:?} to be tested", test.path.as_str())),
                }
                continue;
            }
            PatchOperation::Add(add) => Size::of(&add.value),
            PatchOperation::Replace(replace) => Size::of(&replace.value),
            PatchOperation::Copy(copy) => document.pointer(copy.from.as_str()).map(Size::of).unwrap_or_default(),
            PatchOperation::Move(of) => document.pointer(of.from.as_str()).map(Size::of).unwrap_or_default(),
            PatchOperation::Remove(_) => Size::default(),
        };
        // At every step, and not only in the end: whatever goes through a document goes as deep as it is.
        if operation.path().count() + brings.depth > VALUE_DEPTH_MAX + 1 {
            return failed(format!(
                "a value nests at most {VALUE_DEPTH_MAX} deep, and with that {:?} would be deeper",
                operation.path().as_str()
            ));
        }
        if !matches!(operation, PatchOperation::Move(_)) {
            size.add(brings);
        }
        // What is made and removed again counts, too: it is an upper bound.
        if size.bytes > VALUE_MAX {
            return Err(BadPatch::TooMuch(format!("with operation {} it makes more than {VALUE_MAX} bytes", at + 1)));
        }
        if let Err(error) = json_patch::patch_unsafe(&mut document, std::slice::from_ref(operation)) {
            return failed(format!("{} at {:?}", error.kind, error.path.as_str()));
        }
    }
    Ok(document)
}

/// About how much a document is: never less than its encoding takes.
#[derive(Clone, Copy, Default)]
struct Size {
    values: usize,
    bytes: usize,
    /// How many values are within each other, itself included.
    depth: usize,
}

impl Size {
    fn of(value: &Value) -> Size {
        let mut size = Size { values: 1, bytes: 1, depth: 1 };
        match value {
            Value::String(text) => size.bytes += text.len() + 4,
            Value::Number(_) => size.bytes += 8,
            Value::Array(items) => items.iter().for_each(|item| size.hold(Size::of(item))),
            Value::Object(map) => map.iter().for_each(|(key, value)| {
                size.bytes += key.len() + 5;
                size.hold(Size::of(value));
            }),
            Value::Null | Value::Bool(_) => {}
        }
        size
    }

    fn hold(&mut self, part: Size) {
        self.add(part);
        self.depth = self.depth.max(part.depth + 1);
    }

    fn add(&mut self, more: Size) {
        self.values = self.values.saturating_add(more.values);
        self.bytes = self.bytes.saturating_add(more.bytes);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn apply(document: Value, patch: Value) -> Result<Value, BadPatch> {
        patched(document, patch.to_string().as_bytes())
    }

    #[test]
    fn operations_are_done_in_order_or_not_at_all() {
        let patch = json!([
            {"op": "test", "path": "/a", "value": 1.0},
            {"op": "add", "path": "/b/-", "value": {"c": null}},
            {"op": "copy", "from": "/b/0", "path": "/d"},
            {"op": "move", "from": "/a", "path": "/b/0"},
            {"op": "replace", "path": "/b/1/c", "value": "x"},
            {"op": "remove", "path": "/e"},
        ]);
        assert_eq!(apply(json!({"a": 1, "b": [], "e": 0}), patch), Ok(json!({"b": [1, {"c": "x"}], "d": {"c": null}})));
        assert_eq!(apply(json!(1), json!([])), Ok(json!(1)));
        assert_eq!(apply(json!(1), json!([{"op": "replace", "path": "", "value": [2]}])), Ok(json!([2])));
    }

    #[test]
    fn what_cannot_be_done_says_which_and_why() {
        let says = |patch: Value, operation: usize, what: &str| match apply(json!({"a": [1], "b": "x"}), patch.clone()) {
            Err(BadPatch::Failed(at, why)) if at == operation && why.contains(what) => {}
            other => panic!("{patch}: {other:?}"),
        };
        says(json!([{"op": "test", "path": "/b", "value": "x"}, {"op": "test", "path": "/b", "value": "y"}]), 2, "another value");
        says(json!([{"op": "test", "path": "/c", "value": "y"}]), 1, "nothing at \"/c\"");
        says(json!([{"op": "remove", "path": "/c"}]), 1, "/c");
        says(json!([{"op": "add", "path": "/a/3", "value": 1}]), 1, "/a/3");
        says(json!([{"op": "add", "path": "/a/01", "value": 1}]), 1, "/a/01");
        says(json!([{"op": "replace", "path": "/b/c", "value": 1}]), 1, "/b/c");
        says(json!([{"op": "move", "from": "/a", "path": "/a/0"}]), 1, "/a");
        for none in [
            json!({}),
            json!([{"op": "put", "path": "", "value": 1}]),
            json!([{"op": "add", "path": "a", "value": 1}]),
            json!([{"op": "add", "path": "/a"}]),
        ] {
            assert!(matches!(apply(json!({}), none.clone()), Err(BadPatch::NoPatch(_))), "{none}");
        }
        assert!(matches!(patched(json!({}), b"[{"), Err(BadPatch::NoPatch(_))));
    }

    #[test]
    fn what_would_grow_or_last_without_measure_is_refused() {
        let doubling: Vec<Value> = (0..64).map(|at| json!({"op": "copy", "from": "", "path": format!("/{at}")})).collect();
        assert!(matches!(apply(json!({"a": "x"}), json!(doubling)), Err(BadPatch::TooMuch(why)) if why.contains("bytes")));
        let shifting: Vec<Value> = (0..1_000).map(|_| json!({"op": "add", "path": "/0", "value": 0})).collect();
        assert!(matches!(apply(json!(vec![0; 100_000]), json!(shifting)), Err(BadPatch::TooMuch(why)) if why.contains("operations")));
        // Deeper with each move, by pointers that are short enough.
        let chain = (0..60).fold(json!({}), |chain, _| json!({ "x": chain }));
        let mut moves = Vec::new();
        for at in 0..200 {
            let (into, from) = if at % 2 == 0 { ("b", "a") } else { ("a", "b") };
            moves.push(json!({"op": "add", "path": format!("/{into}"), "value": chain}));
            moves.push(json!({"op": "move", "from": format!("/{from}"), "path": format!("/{into}{}/y", "/x".repeat(60))}));
        }
        assert!(matches!(apply(json!({"a": 0}), json!(moves)), Err(BadPatch::Failed(4, why)) if why.contains("deep")));
        let deep = json!([{"op": "add", "path": "/a".repeat(VALUE_DEPTH_MAX + 1), "value": 0}]);
        assert!(matches!(apply(json!({}), deep), Err(BadPatch::Failed(1, why)) if why.contains("deep")));
        assert!(matches!(patched(json!({}), &vec![b' '; PATCH_BYTES_MAX + 1]), Err(BadPatch::TooMuch(_))));
        // What many do in earnest is none of that.
        let many: Vec<Value> = (0..2_000).map(|at| json!({"op": "add", "path": format!("/{at}"), "value": at})).collect();
        assert_eq!(apply(json!({}), json!(many)).map(|document| document.as_object().map(|map| map.len())), Ok(Some(2_000)));
    }
}
