//! What modules may do, and what becomes of those that do what they should not.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn wasm(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap()
}

/// A module with these functions in place of the usual ones, and whatever else.
fn module(others: &[(&str, &str)], more: &str) -> Vec<u8> {
    let mut parts = vec![
        ("memory", r#"(memory (export "memory") 1)"#),
        // Always at the same place: no call sees what another has put there, but both inputs of one must be there.
        (
            "alloc",
            r#"(global $next (mut i32) (i32.const 4096))
            (func (export "alloc") (param i32) (result i32) (global.get $next) (global.set $next (i32.add (global.get $next) (local.get 0))))"#,
        ),
        ("validate", r#"(func (export "validate") (param i32 i32) (result i64) (i64.const 0))"#),
        (
            "to_json",
            r#"(func (export "to_json") (param i32 i32) (result i64) (i64.const 4))
            (data (i32.const 0) "true")"#,
        ),
    ];
    for (name, text) in others {
        match parts.iter_mut().find(|(part, _)| part == name) {
            Some(part) => part.1 = text,
            None => parts.push((name, text)),
        }
    }
    wasm(&format!("(module {} {more})", parts.iter().map(|(_, text)| *text).collect::<String>()))
}

fn validating(body: &str) -> Custom {
    let function = format!(r#"(func (export "validate") (param i32 i32) (result i64) {body})"#);
    Custom::new(&module(&[("validate", &function)], "")).unwrap()
}

fn failure<T: std::fmt::Debug>(result: Result<T, CustomError>) -> String {
    match result {
        Err(CustomError::Failed(why)) => why,
        other => panic!("{other:?}"),
    }
}

fn refused(at: &str, why: &str) -> CustomError {
    CustomError::Refused { at: at.into(), why: why.into() }
}

#[test]
fn a_module_says_what_a_value_is_and_what_it_looks_like() {
    let custom = Custom::new(&module(&[], "")).unwrap();
    assert_eq!((custom.validate(b"x"), custom.validate(b"")), (Ok(()), Ok(())));
    assert_eq!(custom.to_json(b"x"), Ok(json!(true)));
    assert_eq!((custom.takes_json(), custom.makes_deltas()), (false, false));
    assert_eq!(custom.from_json(&json!(1)), Err(CustomError::Missing("from_json: give the value as bytes")));
    assert_eq!((custom.delta(b"a", b"b"), custom.apply(b"a", b"b")), (None, Err(CustomError::Missing("apply"))));
    assert_eq!(custom.validate(&vec![0; BYTES_MAX + 1]), Err(CustomError::TooLong(BYTES_MAX + 1)));
}

#[test]
fn a_refusal_says_what_is_wrong_and_where() {
    let refusing = |text: &str, length: usize| {
        let function = format!(
            r#"(func (export "validate") (param i32 i32) (result i64) (i64.or (i64.const 0x8000000000000000) (i64.const {length})))
            (data (i32.const 0) "{text}")"#
        );
        let plain = r#"(func (export "to_json") (param i32 i32) (result i64) (i64.const 0))"#;
        Custom::new(&module(&[("validate", &function), ("to_json", plain)], "")).unwrap().validate(b"x").unwrap_err()
    };
    assert_eq!(refusing("too wet", 7), refused("", "too wet"));
    assert_eq!(refusing(r"/a/0\0atoo wet", 12), refused("/a/0", "too wet"));
    assert_eq!(refusing("/a", 2), refused("/a", ""));
    assert_eq!(refusing(r"a\1b[2Jb", 6), refused("", "a [2Jb"), "nothing that a terminal would obey");
    assert_eq!(failure::<()>(Err(refusing(r"\ff", 1))), "a reason that is not UTF-8");
    assert_eq!(failure::<()>(Err(refusing("", REASON_BYTES_MAX + 1))), "an answer of 1025 bytes, where 1024 are the most");
    assert_eq!(ValueError::from(refused("/a", "b")), ValueError::Misfit { at: "/a".into(), why: "b".into() });
}

#[test]
fn nothing_is_left_of_one_call_for_the_next() {
    let counting = validating(
        "(i32.store8 (i32.const 9) (i32.add (i32.load8_u (i32.const 9)) (i32.const 1)))
        (if (i32.gt_u (i32.load8_u (i32.const 9)) (i32.const 1)) (then unreachable)) (i64.const 0)",
    );
    assert_eq!((counting.validate(b""), counting.validate(b"")), (Ok(()), Ok(())));
}

#[test]
fn what_does_not_end_or_wants_too_much_fails_and_harms_nothing() {
    let endless = validating("(loop (br 0)) (i64.const 0)");
    assert_eq!(failure(endless.validate(b"x")), "\"validate\": all fuel consumed by WebAssembly");
    assert_eq!(endless.to_json(b"x"), Ok(json!(true)), "its other functions work");
    let trap = validating("unreachable");
    assert!(failure(trap.validate(b"x")).contains("unreachable"));
    // It is told that there is no more, and goes on as it likes.
    let grows = validating("(if (i32.ne (memory.grow (i32.const 65000)) (i32.const -1)) (then unreachable)) (i64.const 0)");
    assert_eq!(grows.validate(b"x"), Ok(()));
    let pages = (MEMORY_BYTES >> 16) - 1;
    let most = validating(&format!(
        "(drop (memory.grow (i32.const {pages}))) (if (i32.ne (memory.grow (i32.const 1)) (i32.const -1)) (then unreachable)) (i64.const 0)"
    ));
    assert_eq!(most.validate(b"x"), Ok(()));
    let deep = module(
        &[],
        r#"(func $f (export "from_json") (param i32 i32) (result i64) (i64.add (call $f (local.get 0) (local.get 1)) (i64.const 1)))"#,
    );
    assert!(failure(Custom::new(&deep).unwrap().from_json(&json!(1))).contains("stack"));
    let wide = format!(
        r#"(func $f (export "from_json") (param i32 i32) (result i64) (local {}) (i64.add (call $f (local.get 0) (local.get 1)) (i64.const 1)))"#,
        "i64 ".repeat(LOCALS_MAX as usize)
    );
    assert!(failure(Custom::new(&module(&[], &wide)).unwrap().from_json(&json!(1))).contains("stack"));
    let outside = validating("(i64.load (i32.const -1))");
    assert!(failure(outside.validate(b"x")).contains("out of bounds"));
}

#[test]
fn an_answer_that_is_none_is_a_failure() {
    let alloc = |body: &str| {
        let function = format!(r#"(func (export "alloc") (param i32) (result i32) {body})"#);
        failure(Custom::new(&module(&[("alloc", &function)], "")).unwrap().validate(b"xy"))
    };
    assert_eq!(alloc("(i32.const -1)"), "\"alloc\" gave 4294967295 for 2 bytes: that is out of its memory");
    assert_eq!(alloc("(i32.const 65535)"), "\"alloc\" gave 65535 for 2 bytes: that is out of its memory");
    assert!(alloc("(loop (br 0)) (i32.const 0)").contains("fuel"));
    assert_eq!(failure(validating("(i64.const 1)").validate(b"")), "\"validate\" gave neither 0 nor a refusal");
    assert_eq!(failure(validating("(i64.const -1)").validate(b"")), "an answer of 4294967295 bytes, where 1024 are the most");
    assert_eq!(
        failure(validating("(i64.const 0xffffffff00000001)").validate(b"")),
        "an answer of 1 bytes at 2147483647, out of its memory"
    );
    let json = |body: &str| {
        let function = format!(r#"(func (export "to_json") (param i32 i32) (result i64) {body}) (data (i32.const 0) "[1,]\ff")"#);
        Custom::new(&module(&[("to_json", &function)], "")).unwrap().to_json(b"")
    };
    assert!(failure(json("(i64.const 4)")).starts_with("\"to_json\" gave no JSON: "));
    assert!(failure(json("(i64.const 0)")).starts_with("\"to_json\" gave no JSON: "));
    assert!(failure(json("(i64.const 0x400000001)")).starts_with("\"to_json\" gave no JSON: "));
    assert_eq!(failure(json("(i64.const 0x7fffffff)")), "an answer of 2147483647 bytes, where 1048576 are the most");
    assert_eq!(json("(i64.const 0x8000000000000004)"), Err(refused("", "[1,]")));
    let nested = r#"(func (export "to_json") (param i32 i32) (result i64) (memory.fill (i32.const 0) (i32.const 91) (i32.const 5000)) (i64.const 5000))"#;
    assert!(failure(Custom::new(&module(&[("to_json", nested)], "")).unwrap().to_json(b"")).contains("recursion limit"));
}

#[test]
fn a_module_without_what_it_must_have_is_none() {
    let bad = |module: Vec<u8>| Custom::new(&module).unwrap_err().to_string();
    let export = |name: &'static str, text: &'static str| bad(module(&[(name, text)], ""));
    assert!(bad(b"\0asm".to_vec()).starts_with("no module for a custom type: "));
    assert!(bad(vec![0; MODULE_BYTES_MAX + 1]).contains("has 524289 bytes, and may have 524288"));
    for (name, text, why) in [
        ("memory", "(memory 1)", "exports no \"memory\""),
        ("memory", r#"(memory 1) (func (export "memory"))"#, "exports no \"memory\""),
        ("memory", r#"(memory (export "memory") 40)"#, "memory"),
        ("alloc", "", "exports no \"alloc\""),
        ("alloc", r#"(func (export "alloc") (param i64) (result i32) (i32.const 0))"#, "\"alloc\" is not the function"),
        ("validate", "", "exports no \"validate\""),
        ("validate", r#"(func (export "validate") (param i32 i32) (result i32) (i32.const 0))"#, "\"validate\" is not the function"),
        ("validate", r#"(func (export "validate") (param i32) (result i64) (i64.const 0))"#, "\"validate\" is not the function"),
        ("validate", r#"(global (export "validate") i32 (i32.const 0))"#, "\"validate\" is not the function"),
        ("to_json", r#"(data (i32.const 0) "true")"#, "exports no \"to_json\""),
        ("from_json", r#"(func (export "from_json"))"#, "\"from_json\" is not the function"),
        ("delta", r#"(func (export "delta") (param i32 i32 i32 i32) (result i64) (i64.const 0))"#, "only one of"),
        ("start", "(func $start) (start $start)", "1 start functions, and may have 0"),
        ("start", "(func $start (loop (br 0))) (start $start)", "1 start functions, and may have 0"),
        ("memory64", r#"(table 1000000000 funcref)"#, "table"),
        ("data", r#"(data (i32.const 65530) "too much for it")"#, "out of bounds"),
    ] {
        let error = export(name, text);
        assert!(error.contains(why), "{name}: {error}");
    }
    let import = r#"(import "wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32)))"#;
    assert!(bad(wasm(&format!("(module {import})"))).contains("1 imports, and may have 0"));
    let memory = r#"(module (import "env" "memory" (memory 1)))"#;
    assert!(bad(wasm(memory)).contains("1 imports, and may have 0"));
    let many = |text: &str, count: u32| bad(module(&[], &text.repeat(count as usize)));
    assert!(many("(func)", FUNCTIONS_MAX).contains("4099 functions, and may have 4096"));
    assert!(many("(global i32 (i32.const 0))", GLOBALS_MAX).contains("257 globals, and may have 256"));
    assert!(many("(data (i32.const 0) \"\")", SEGMENTS_MAX).contains("257 segments of its memory"));
    assert!(many(&format!("(func (local {}))", "i32 ".repeat(257)), 1).contains("257 locals in a function, and may have 256"));
    assert!(many(&format!("(func (local {}))", "i32 ".repeat(256)), 257).contains("65792 locals, and may have 65536"));
    assert!(many(&format!("(func (param {}))", "i32 ".repeat(33)), 1).contains("33 parameters and results of a function, and may have 32"));
    let elements = format!("(table 2 funcref) {}", format!("(elem (i32.const 0) func {})", "0 ".repeat(600)).repeat(7));
    assert!(many(&elements, 1).contains("4200 elements for its table, and may have 4096"));
    let exports: String = (0..64).map(|index| format!("(func (export \"f{index}\"))")).collect();
    assert!(bad(module(&[], &exports)).contains("68 exports, and may have 64"));
    let two = r#"(memory 1)"#;
    assert!(bad(module(&[], two)).contains("memor"));
}

#[test]
fn a_module_that_fails_too_often_is_given_up_and_costs_nothing_then() {
    let endless = validating("(loop (br 0)) (i64.const 0)");
    let mut failed = 0;
    while matches!(endless.validate(b"x"), Err(CustomError::Failed(_))) {
        failed += 1;
        assert!(failed < 1_000, "it is never given up");
    }
    assert_eq!(failed as u64, WASTE_MAX.div_ceil(FUEL + FUEL_PER_BYTE + WASTE_OF_A_CALL));
    let given_up = CustomError::GivenUp("\"validate\": all fuel consumed by WebAssembly".into());
    assert_eq!(endless.validate(b"x"), Err(given_up.clone()));
    assert_eq!(endless.to_json(b"x"), Err(given_up));
    // Refusing is what a module is for.
    let strict = validating("(i64.const 0x8000000000000000)");
    for _ in 0..10_000 {
        assert_eq!(strict.validate(b"x"), Err(refused("", "")));
    }
}

#[test]
fn the_interpreter_selects_what_it_should() {
    // Compilers write this for every `if x == 0 { a } else { b }`, and a version of the interpreter had it wrong.
    let select = validating("(select (i64.const 0) (i64.const 1) (i32.eqz (i32.load8_u (local.get 0))))");
    assert_eq!(select.validate(b"\0"), Ok(()));
    assert!(failure(select.validate(b"\x01")).contains("neither 0 nor a refusal"));
}

/// Text in, text out; a delta is what stands behind the common beginning, with the length of that as its first byte.
const TEXT: &str = r#"
    (func (export "from_json") (param $at i32) (param $length i32) (result i64)
        ;; Without the quotes.
        (i64.or (i64.shl (i64.extend_i32_u (i32.add (local.get $at) (i32.const 1))) (i64.const 32)) (i64.extend_i32_u (i32.sub (local.get $length) (i32.const 2)))))
    (func (export "delta") (param $base i32) (param $base_length i32) (param $new i32) (param $length i32) (result i64) (local $same i32)
        (block $end (loop $next
            (br_if $end (i32.ge_u (local.get $same) (local.get $base_length)))
            (br_if $end (i32.ge_u (local.get $same) (local.get $length)))
            (br_if $end (i32.ne (i32.load8_u (i32.add (local.get $base) (local.get $same))) (i32.load8_u (i32.add (local.get $new) (local.get $same)))))
            (local.set $same (i32.add (local.get $same) (i32.const 1)))
            (br $next)))
        (i32.store8 (i32.const 2048) (local.get $same))
        (memory.copy (i32.const 2049) (i32.add (local.get $new) (local.get $same)) (i32.sub (local.get $length) (local.get $same)))
        (i64.or (i64.const 0x80000000000) (i64.extend_i32_u (i32.add (i32.const 1) (i32.sub (local.get $length) (local.get $same))))))
    (func (export "apply") (param $base i32) (param $base_length i32) (param $delta i32) (param $length i32) (result i64) (local $same i32)
        (local.set $same (i32.load8_u (local.get $delta)))
        (memory.copy (i32.const 2048) (local.get $base) (local.get $same))
        (memory.copy (i32.add (i32.const 2048) (local.get $same)) (i32.add (local.get $delta) (i32.const 1)) (i32.sub (local.get $length) (i32.const 1)))
        (i64.or (i64.const 0x80000000000) (i64.extend_i32_u (i32.add (local.get $same) (i32.sub (local.get $length) (i32.const 1))))))
"#;

#[test]
fn values_come_from_json_and_travel_as_what_has_changed() {
    let text = Custom::new(&module(&[], TEXT)).unwrap();
    assert_eq!(text.from_json(&json!("abc")), Ok(b"abc".to_vec()));
    let delta = text.delta(b"abcdef", b"abcxyz").unwrap();
    assert_eq!(delta, b"\x03xyz");
    assert_eq!(text.apply(b"abcdef", &delta), Ok(b"abcxyz".to_vec()));
    assert_eq!(text.delta(b"abc", b"xyz"), None, "it is no shorter");
    assert!(failure(text.apply(b"abcdef", b"")).contains("out of bounds"));
    // What `apply` gives is not what went in: such a delta is never sent.
    let wrong = TEXT.replace("(i32.const 2048) (local.get $same)", "(i32.const 2048) (i32.const 7)");
    assert_eq!(Custom::new(&module(&[], &wrong)).unwrap().delta(b"abcdef", b"abcxyz"), None);
    let strict = module(&[("validate", r#"(func (export "validate") (param i32 i32) (result i64) (i64.const 0x8000000000000000))"#)], TEXT);
    assert_eq!(Custom::new(&strict).unwrap().from_json(&json!("abc")), Err(refused("", "")), "what comes of JSON must be a value");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn damaged_modules_are_none_or_judge(edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4), value in prop::collection::vec(any::<u8>(), 0..9)) {
        let mut bytes = module(&[], TEXT);
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(odd) = Custom::new(&bytes) {
            let _ = (odd.validate(&value), odd.to_json(&value), odd.from_json(&json!("abc")), odd.delta(&value, b"abcdef"));
        }
    }
}
