//! What messages are taken, what they are in JSON, and what is said of those that are not taken.

use proptest::prelude::*;
use prost_reflect::prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet, MessageOptions,
    field_descriptor_proto::{Label, Type},
};
use protox::{
    Compiler,
    file::{ChainFileResolver, File, FileResolver, GoogleFileResolver},
};
use serde_json::json;

use super::*;

struct Source(&'static str);

impl FileResolver for Source {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        if name == "test.proto" { File::from_source(name, self.0) } else { Err(protox::Error::file_not_found(name)) }
    }
}

/// What a compiler makes of a `.proto` file.
fn compiled(source: &'static str) -> Vec<u8> {
    let mut files = ChainFileResolver::new();
    files.add(Source(source));
    files.add(GoogleFileResolver::new());
    let mut compiler = Compiler::with_file_resolver(files);
    compiler.include_imports(true).include_source_info(true).open_file("test.proto").unwrap();
    compiler.encode_file_descriptor_set()
}

fn protobuf(source: &'static str, message: &str) -> Protobuf {
    Protobuf::new(&compiled(source), message).unwrap()
}

const READING: &str = r#"
    syntax = "proto3";
    package telemetry;
    import "google/protobuf/timestamp.proto";
    import "google/protobuf/struct.proto";
    import "google/protobuf/any.proto";
    enum State { UNKNOWN = 0; RUNNING = 1; STOPPED = 2; }
    message Reading {
        string sensor = 1;
        google.protobuf.Timestamp taken_at = 2;
        repeated double samples = 3;
        map<string, int64> counters = 4;
        State state = 5;
        Reading previous = 6;
        repeated Part parts = 7;
        google.protobuf.Struct labels = 8;
        google.protobuf.Any detail = 9;
        bytes raw = 10;
        oneof kind { sint32 offset = 11; string note = 12; }
        map<int32, Part> by_slot = 13;
        repeated sint64 deltas = 14;
        optional bool valid = 15;
        message Part { string name = 1; repeated string tags = 2; }
    }
"#;

const OLD: &str = r#"
    syntax = "proto2";
    message Old {
        required string name = 1;
        optional group Extra = 2 { required int32 size = 1; }
        repeated Old children = 3;
        map<string, Old> named = 4;
    }
"#;

fn misfit_at<T: fmt::Debug>(result: Result<T, ValueError>) -> (String, String) {
    match result {
        Err(ValueError::Misfit { at, why }) => (at, why),
        other => panic!("{other:?}"),
    }
}

fn full() -> Value {
    json!({
        "sensor": "north", "takenAt": "2024-02-29T12:00:00Z", "samples": [1.5, -2.0], "counters": {"a": "1", "b": "-9007199254740993", "c": "0"},
        "state": "RUNNING", "previous": {"sensor": "north"}, "parts": [{"name": "x"}, {"tags": ["t", "u"]}], "labels": {"k": [null, 1.0, {"a": true}]},
        "detail": {"@type": "type.googleapis.com/telemetry.Reading.Part", "name": "inside"}, "raw": "AAEC", "offset": -3,
        "bySlot": {"-1": {"name": "left"}, "2": {}}, "deltas": ["-1", "2"], "valid": false,
    })
}

#[test]
fn a_message_is_the_same_in_bytes_and_in_json() {
    let reading = protobuf(READING, "telemetry.Reading");
    let bytes = reading.from_json(&full()).unwrap();
    assert_eq!(reading.validate(&bytes), Ok(()));
    assert_eq!(reading.to_json(&bytes), Ok(full()));
    assert_eq!(reading.canonical(&bytes), Ok(bytes.clone()));
    // The names of the `.proto` file are taken, too, and so are numbers where strings are written.
    let same = reading.from_json(&json!({"taken_at": "2024-02-29T13:00:00+01:00", "counters": {"c": 0, "a": 1}, "state": 1}));
    assert_eq!(same, reading.from_json(&json!({"takenAt": "2024-02-29T12:00:00Z", "counters": {"a": "1", "c": "0"}, "state": "RUNNING"})));
    assert_eq!((reading.validate(b""), reading.to_json(b"")), (Ok(()), Ok(json!({}))));
    assert_eq!(reading.name(), "telemetry.Reading");
}

#[test]
fn equal_values_have_one_canonical_form() {
    let reading = protobuf(READING, "telemetry.Reading");
    let (one, other) =
        (json!({"sensor": "s", "counters": {"a": "1"}}), [&b"\x22\x05\x0a\x01a\x10\x01"[..], b"\x0a\x01x\x0a\x01s"].concat());
    assert_eq!(reading.to_json(&other), Ok(one.clone()), "fields in any order, the last of a scalar's values");
    assert_ne!(reading.from_json(&one).unwrap(), other);
    assert_eq!(reading.canonical(&other), reading.from_json(&one));
    let entries = |names: &[u32]| Value::Object(names.iter().map(|name| (name.to_string(), json!(name.to_string()))).collect());
    let names: Vec<u32> = (0..50).collect();
    let bytes = reading.from_json(&json!({"counters": entries(&names)})).unwrap();
    for _ in 0..10 {
        assert_eq!(reading.from_json(&json!({"counters": entries(&names)})), Ok(bytes.clone()), "not in the order of a hash table");
    }
    let any = |entries: Value| json!({"detail": {"@type": "/telemetry.Reading", "counters": entries}});
    let bytes = reading.from_json(&any(entries(&names))).unwrap();
    assert_eq!(reading.from_json(&any(entries(&names))), Ok(bytes.clone()), "nor within an Any");
    assert_eq!(reading.to_json(&bytes), Ok(any(entries(&names))));
}

#[test]
fn what_a_newer_writer_adds_is_kept_and_not_shown() {
    let reading = protobuf(READING, "telemetry.Reading");
    // Field 99, and a group 98 that holds fields of its own.
    let newer = [&b"\x9a\x06\x03new"[..], b"\x93\x06\x08\x01\x0b\x0c\x94\x06", b"\x0a\x01s"].concat();
    assert_eq!(reading.to_json(&newer), Ok(json!({"sensor": "s"})));
    let kept = reading.canonical(&newer).unwrap();
    assert!(kept.starts_with(b"\x0a\x01s") && kept.len() == newer.len());
    let typo = misfit_at(reading.from_json(&json!({"previous": {"sensr": "s"}})));
    assert_eq!(typo, ("/previous".into(), "unrecognized field name 'sensr'".into()));
}

#[test]
fn what_is_wrong_in_json_is_named_with_its_place() {
    let reading = protobuf(READING, "telemetry.Reading");
    for (json, at, why) in [
        (json!({"sensor": 1}), "/sensor", "expected a string"),
        (json!({"samples": [1, "x"]}), "/samples/1", "invalid float"),
        (json!({"parts": [{}, {"tags": ["a", 7]}]}), "/parts/1/tags/1", "expected a string"),
        (json!({"counters": {"a/b": "1.5"}}), "/counters/a~1b", "invalid digit"),
        (json!({"bySlot": {"2": {"name": []}}}), "/bySlot/2/name", "expected a string"),
        (json!({"previous": {"previous": {"state": "GONE"}}}), "/previous/previous/state", "unrecognized enum value"),
        (json!({"takenAt": "yesterday"}), "/takenAt", "timestamp"),
        (json!({"raw": "*"}), "/raw", "base64"),
        (json!({"detail": {"@type": "x/telemetry.Nothing"}}), "/detail", "telemetry.Nothing"),
        (json!({"previous": {"offset": 1, "note": "x"}}), "/previous", "multiple fields provided for oneof 'kind'"),
        (json!([]), "", "expected a map"),
    ] {
        let (place, reason) = misfit_at(reading.from_json(&json));
        assert!(place == at && reason.contains(why), "{json}: {place} {reason}");
    }
}

#[test]
fn what_is_wrong_in_bytes_is_named_with_its_place() {
    let reading = protobuf(READING, "telemetry.Reading");
    let long = |key: u8, inner: &[u8]| [&[key, inner.len() as u8], inner].concat();
    let part = |inner: &[u8]| long(0x3a, inner);
    for (bytes, at, why) in [
        (b"\x08\x01".to_vec(), "/sensor", "a varint where one of length with bytes belongs, at byte 1"),
        (b"\x0a\x02\xff\xff".to_vec(), "/sensor", "not UTF-8, at byte 2"),
        (b"\x0a\x05ab".to_vec(), "/sensor", "end too early, at byte 1"),
        ([part(b""), part(b"\x12\x01a\x12\x01\xff")].concat(), "/parts/1/tags/1", "not UTF-8, at byte 9"),
        (b"\x1a\x0d12345678\x1912345678123".to_vec(), "/samples/1", "end too early"),
        ([b"\x1912345678", &b"\x1a\x0912345678x"[..]].concat(), "/samples/2", "end too early"),
        ([long(0x72, &[1, 2, 0x80, 1]), vec![0x70, 0xff]].concat(), "/deltas/3", "no varint"),
        (long(0x22, b"\x0a\x01k\x12\x01x"), "/counters/k", "a length with bytes where one of varint belongs"),
        (long(0x6a, b"\x12\x03\x0a\x01\xff\x08\x07"), "/bySlot/7/name", "not UTF-8"),
        (long(0x12, b"\x08\x80\x80\x80\x80\x80\x80\x01"), "/takenAt", "timestamp out of range"),
        (long(0x42, &long(0x0a, &[b"\x0a\x01k".to_vec(), long(0x12, b"\x11\0\0\0\0\0\0\xf0\x7f")].concat())), "/labels", "non-finite"),
        (long(0x4a, b"\x0a\x03x/y"), "/detail/@type", "\"x/y\" names no message"),
        (long(0x4a, b""), "/detail/@type", "names no message"),
        (long(0x4a, &[long(0x0a, b"/telemetry.Reading.Part"), long(0x12, b"\x08\x01")].concat()), "/detail/name", "a varint where"),
        ([long(0x32, b""), long(0x32, b"")].concat(), "/previous", "given twice"),
        (b"\x0b\x0c".to_vec(), "/sensor", "a group where"),
        (b"\x0c".to_vec(), "", "the end of a group that has not begun"),
        (b"\x9b\x06\x08".to_vec(), "", "no varint"),
        (b"\x07".to_vec(), "", "no key of a field, at byte 0"),
        (b"\x0a\0\0".to_vec(), "", "no key of a field, at byte 2"),
        (b"\x70\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02".to_vec(), "/deltas/0", "no varint"),
    ] {
        let (place, reason) = misfit_at(reading.validate(&bytes));
        assert!(place == at && reason.contains(why), "{bytes:x?}: {place} {reason}");
        assert!(reading.to_json(&bytes).is_err() && reading.canonical(&bytes).is_err());
    }
}

#[test]
fn required_fields_must_be_there_wherever_their_message_is() {
    let old = protobuf(OLD, "Old");
    let good = json!({"name": "a", "extra": {"size": 1}, "children": [{"name": "b"}], "named": {"k": {"name": "c"}}});
    let bytes = old.from_json(&good).unwrap();
    assert_eq!(old.to_json(&bytes), Ok(good));
    for (json, at) in [
        (json!({}), "/name"),
        (json!({"name": "a", "extra": {}}), "/extra/size"),
        (json!({"name": "a", "children": [{"name": "b"}, {}]}), "/children/1/name"),
        (json!({"name": "a", "named": {"k": {}}}), "/named/k/name"),
    ] {
        assert_eq!(misfit_at(old.from_json(&json)), (at.into(), "it is missing".into()));
    }
    // The value of an entry is not written, and is an empty message then.
    assert_eq!(misfit_at(old.validate(b"\x0a\x01a\x22\x03\x0a\x01k")), ("/named/k/name".into(), "it is missing".into()));
    assert_eq!(misfit_at(old.validate(b"\x13\x14")), ("/extra/size".into(), "it is missing".into()));
    assert_eq!(misfit_at(old.validate(b"\x13\x08\x01")).0, "/extra");
}

#[test]
fn what_nests_too_deep_or_holds_too_much_is_refused_before_it_is_decoded() {
    let reading = protobuf(READING, "telemetry.Reading");
    let nested = |levels: usize, key: u8| {
        (0..levels).fold(Vec::new(), |inner: Vec<u8>, _| {
            let mut out = vec![key];
            encoding::encode_varint(inner.len() as u64, &mut out);
            [out, inner].concat()
        })
    };
    assert!(reading.to_json(&nested(DEPTH_MAX, 0x32)).is_ok());
    let (at, why) = misfit_at(reading.validate(&nested(DEPTH_MAX + 1, 0x32)));
    assert_eq!((at.matches("/previous").count(), why.as_str()), (DEPTH_MAX + 1, "messages nest at most 48 deep"));
    assert!(misfit_at(reading.validate(&nested(10_000, 0x32))).1.contains("at most 48"));
    // Groups that nobody knows, and messages within an Any, count as well.
    assert!(misfit_at(reading.validate(&[[0x9b, 0x06].repeat(100), [0x9c, 0x06].repeat(100)].concat())).1.contains("at most 48"));
    let any = |inner: Vec<u8>| {
        let mut out = Vec::new();
        put(1, b"/google.protobuf.Any", &mut out);
        put(2, &inner, &mut out);
        out
    };
    let mut deep = Vec::new();
    put(9, &(0..60).fold(Vec::new(), |inner, _| any(inner)), &mut deep);
    assert!(misfit_at(reading.validate(&deep)).1.contains("at most 48"));
    let deep_json = (0..200).fold(json!(1), |inner, _| json!({ "previous": inner }));
    assert_eq!(reading.from_json(&deep_json), Err(ValueError::TooDeep));

    let packed = |count: usize| {
        let mut out = Vec::new();
        put(14, &vec![1; count], &mut out);
        out
    };
    assert_eq!(reading.to_json(&packed(300_000)).unwrap()["deltas"].as_array().unwrap().len(), 300_000);
    assert!(misfit_at(reading.validate(&packed(VALUE_MAX - 8))).1.contains("too many parts"));
    assert!(misfit_at(reading.validate(&[0x3a, 0].repeat(VALUE_MAX / 2))).1.contains("too many parts"));
    assert!(misfit_at(reading.validate(&[0x9b, 0x06, 0x9c, 0x06].repeat(VALUE_MAX / 4))).1.contains("too many parts"));
    assert_eq!(reading.validate(&vec![0; VALUE_MAX + 1]), Err(ValueError::TooLong(VALUE_MAX + 1)));
}

#[test]
fn a_set_is_made_small_and_the_same_wherever_it_was_compiled() {
    let source = r#"
        syntax = "proto3";
        package a.b;
        import "google/protobuf/timestamp.proto";
        import "google/protobuf/wrappers.proto";
        // What is said here is for people.
        message Used { Inner.Deep deep = 1; E e = 2 [json_name = "other"]; repeated int32 n = 3 [packed = false]; }
        message Inner { message Deep { google.protobuf.Timestamp at = 1; Used again = 2; } }
        enum E { Z = 0; }
        message Unused { google.protobuf.Int32Value number = 1; }
        service S { rpc Call (Used) returns (Unused); }
    "#;
    let set = compiled(source);
    let small = minimal(&set, "a.b.Used").unwrap();
    assert_eq!(messages(&small).unwrap(), ["google.protobuf.Timestamp", "a.b.Used", "a.b.Inner", "a.b.Inner.Deep"]);
    assert!(small.len() < 400 && set.len() > 2 * small.len(), "{} of {}", small.len(), set.len());
    assert_eq!(minimal(&small, "a.b.Used"), Ok(small.clone()));
    // Some compilers write the names in JSON that follow from the others, and some do not.
    let mut terse = FileDescriptorSet::decode(set.as_slice()).unwrap();
    let fields = terse.file.iter_mut().flat_map(|file| &mut file.message_type).flat_map(|message| &mut message.field);
    fields.filter(|field| field.json_name() != "other").for_each(|field| field.json_name = None);
    assert_eq!(minimal_of(terse, "a.b.Used"), Ok(small.clone()));
    let (whole, part) = (Protobuf::new(&set, "a.b.Used").unwrap(), Protobuf::new(&small, "a.b.Used").unwrap());
    let json = json!({"deep": {"at": "1970-01-01T00:00:01Z", "again": {"n": [1, 2]}}, "other": "Z"});
    assert_eq!(whole.from_json(&json), part.from_json(&json));
    // Who holds an Any may hold everything.
    let reading = compiled(READING);
    assert!(messages(&minimal(&reading, "telemetry.Reading").unwrap()).unwrap().contains(&"google.protobuf.Struct".into()));
    assert_eq!(Protobuf::new(&set, "a.b.Usd").unwrap_err(), BadProtobuf::NoMessage("a.b.Usd".into()));
    assert_eq!(minimal(&set, "a.b.Usd"), Err(BadProtobuf::NoMessage("a.b.Usd".into())));
}

fn field(name: &str, number: i32, kind: Type, of: Option<&str>) -> FieldDescriptorProto {
    let label = Some(Label::Optional as i32);
    FieldDescriptorProto {
        name: Some(name.into()),
        number: Some(number),
        r#type: Some(kind as i32),
        type_name: of.map(Into::into),
        label,
        ..Default::default()
    }
}

fn message(name: &str, field: Vec<FieldDescriptorProto>) -> DescriptorProto {
    DescriptorProto { name: Some(name.into()), field, ..Default::default() }
}

fn file(name: &str, message_type: Vec<DescriptorProto>) -> FileDescriptorProto {
    FileDescriptorProto { name: Some(name.into()), message_type, ..Default::default() }
}

#[test]
fn sets_that_no_compiler_makes_are_refused() {
    let entry =
        |fields| DescriptorProto { options: Some(MessageOptions { map_entry: Some(true), ..Default::default() }), ..message("E", fields) };
    let one = |definition: DescriptorProto| FileDescriptorSet { file: vec![file("a", vec![definition])] };
    let deep = (0..20).fold(message("M", vec![]), |inner, _| DescriptorProto { nested_type: vec![inner], ..message("M", vec![]) });
    let plain = |field: FieldDescriptorProto| one(message("M", vec![field]));
    for (set, why) in [
        (plain(field("a", 1, Type::Message, Some(".Gone"))), "refers to Gone"),
        (plain(field("a", 1, Type::Message, Some("M"))), "not by its whole name"),
        (plain(field("a", 1, Type::Message, None)), "does not name its type"),
        (plain(field("a", 1, Type::Int32, Some(".M"))), "does not name its type"),
        (plain(FieldDescriptorProto { r#type: Some(99), ..field("a", 1, Type::Int32, None) }), "has no type"),
        (plain(FieldDescriptorProto { label: Some(9), ..field("a", 1, Type::Int32, None) }), "has a label"),
        (plain(FieldDescriptorProto { oneof_index: Some(3), ..field("a", 1, Type::Int32, None) }), "oneof"),
        (plain(FieldDescriptorProto { json_name: Some("!".into()), ..field("a", 1, Type::Int32, None) }), "begin with a letter"),
        (plain(field("a", 0, Type::Int32, None)), "number"),
        (plain(field("a.b", 1, Type::Int32, None)), "is no name"),
        (one(message("M", vec![field("a", 1, Type::Int32, None), field("b", 1, Type::Int32, None)])), "number"),
        (one(message("", vec![])), "is no name"),
        (one(message(&"x".repeat(300), vec![])), "a name of 300 bytes"),
        (one(entry(vec![])), "entry of a map"),
        (one(entry(vec![field("key", 1, Type::Double, None), field("value", 2, Type::Int32, None)])), "entry of a map"),
        (one(entry(vec![field("key", 1, Type::Int32, None), field("value", 3, Type::Int32, None)])), "entry of a map"),
        (one(deep), "deep in one another"),
        (one(message("M", (1..10_000).map(|n| field(&format!("f{n}"), n, Type::Int32, None)).collect())), "more than 8192"),
        (FileDescriptorSet { file: vec![file("a", vec![message("M", vec![])]), file("b", vec![message("M", vec![])])] }, "already defined"),
        (FileDescriptorSet { file: vec![FileDescriptorProto { syntax: Some("editions".into()), ..file("a", vec![]) }] }, "syntax"),
    ] {
        let error = Protobuf::new(&set.encode_to_vec(), "M").unwrap_err().to_string();
        assert!(error.contains(why), "{why}: {error}");
    }
    assert!(Protobuf::new(b"\xff", "M").unwrap_err().to_string().starts_with("no descriptor set: "));
    assert!(matches!(Protobuf::new(&vec![0; SET_BYTES_MAX + 1], "M"), Err(BadProtobuf::TooLarge(_))));
}

#[test]
fn imports_in_a_circle_and_many_diamonds_of_them_cost_nothing() {
    let public = |name: usize, imports: &[usize]| FileDescriptorProto {
        dependency: imports.iter().map(usize::to_string).collect(),
        public_dependency: (0..imports.len() as i32).collect(),
        ..file(&name.to_string(), vec![message(&format!("M{name}"), vec![])])
    };
    let circle = FileDescriptorSet { file: vec![public(0, &[1]), public(1, &[0]), public(2, &[0, 1])] };
    assert!(Protobuf::new(&circle.encode_to_vec(), "M0").is_ok());
    let diamonds =
        FileDescriptorSet { file: (0..200).map(|file: usize| public(file, &[file.saturating_sub(1), file.saturating_sub(2)])).collect() };
    assert!(Protobuf::new(&diamonds.encode_to_vec(), "M199").is_ok());
}

#[test]
fn well_known_messages_that_somebody_has_defined_otherwise_harm_nothing() {
    let source = r#"
        syntax = "proto3";
        package google.protobuf;
        message Any { Any type_url = 1; repeated bytes value = 2; }
        message Timestamp { string seconds = 1; Value nanos = 2; }
        message Value { Value list_value = 6; Any any = 7; Empty empty = 8; }
        message Empty { repeated Timestamp at = 1; }
        message FloatValue { string value = 1; }
        message M { Any any = 1; Timestamp at = 2; Value value = 3; FloatValue number = 4; Empty empty = 5; }
    "#;
    let odd = protobuf(source, "google.protobuf.M");
    let mut seed = 1u64;
    for length in 0..4_000 {
        let bytes: Vec<u8> = (0..length % 24)
            .map(|_| {
                seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                [0x0a, 0x12, 0x1a, 0x22, 0x2a, 0x32, 0x3a, 0x42, 0, 1, 2, 3, 4, 6, 8, b'a'][(seed >> 60) as usize]
            })
            .collect();
        assert_eq!(odd.validate(&bytes).is_ok(), odd.to_json(&bytes).is_ok(), "{bytes:x?}");
    }
}

fn with_noise(bytes: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let edits = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4u8), 0..6);
    edits.prop_map(move |edits| {
        let mut bytes = bytes.clone();
        for (at, byte, how) in edits {
            let at = at.index(bytes.len().max(1));
            match how {
                0 => bytes.truncate(at),
                1 => bytes.insert(at.min(bytes.len()), byte),
                2 if at < bytes.len() => _ = bytes.remove(at),
                _ => bytes.iter_mut().skip(at).take(1).for_each(|place| *place = byte),
            }
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn damaged_sets_are_refused_or_judge(set in with_noise(minimal(&compiled(READING), "telemetry.Reading").unwrap())) {
        if let Ok(odd) = Protobuf::new(&set, "telemetry.Reading") {
            let bytes = protobuf(READING, "telemetry.Reading").from_json(&full()).unwrap();
            prop_assert_eq!(odd.validate(&bytes).is_ok(), odd.to_json(&bytes).is_ok());
            let _ = odd.from_json(&full());
            let _ = minimal(&set, "telemetry.Reading");
        }
    }

    #[test]
    fn what_passes_is_what_the_library_decodes(bytes in prop_oneof![
        with_noise(protobuf(READING, "telemetry.Reading").from_json(&full()).unwrap()), prop::collection::vec(any::<u8>(), 0..40),
    ]) {
        let reading = protobuf(READING, "telemetry.Reading");
        let decoded = DynamicMessage::decode(reading.message.clone(), bytes.as_slice());
        match reading.validate(&bytes) {
            Ok(()) => {
                let json = reading.to_json(&bytes);
                prop_assert!(json.is_ok(), "{:?}", json);
                let canonical = reading.canonical(&bytes).unwrap();
                prop_assert_eq!(reading.canonical(&canonical), Ok(canonical.clone()));
                prop_assert_eq!(reading.to_json(&canonical), json);
            }
            // What the library would have taken and shown is refused only for what the essay says, and where it does not look at how a map stands on the wire.
            Err(ValueError::Misfit { why, .. }) => prop_assert!(
                decoded.is_err() || ["twice", "names no message", "where one of length with bytes belongs", "the end of a group that has not begun"].iter().any(|said| why.contains(said))
                    || serde_json::to_value(decoded.unwrap()).is_err(), "{}", why
            ),
            Err(other) => prop_assert!(false, "{:?}", other),
        }
    }
}
