//! `.proto` files: what a `protobuf` topic's definition is made of.
//!
//! Whoever makes such a topic has the source of its messages; the nodes get only what judges values, [`mangrove_crdt::protobuf::minimal`]. So no other machine needs the files, nor a compiler.

use std::path::{Path, PathBuf};

use mangrove_crdt::protobuf::{self, BadProtobuf};
use protox::Compiler;

/// A message, and the descriptor set that defines it and nothing that it does not need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compiled {
    /// The message's whole name.
    pub message: String,
    /// A serialized `FileDescriptorSet`. The same messages give the same bytes, wherever their files lie.
    pub set: Vec<u8>,
}

/// Why there is no such message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtoError {
    /// A file cannot be read, or is wrong: file, line, and what.
    #[error("{0}")]
    Wrong(String),
    /// The file, and what it imports, has no message of this name.
    #[error("{file} has no message {name:?}{}; it has {known}", nearest.as_ref().map(|nearest| format!(", did you mean {nearest}?")).unwrap_or_default())]
    NoMessage {
        /// The file.
        file: String,
        /// The message that was wanted.
        name: String,
        /// The message that may have been meant.
        nearest: Option<String>,
        /// Those that there are.
        known: String,
    },
    /// Several messages have this name, in different packages or messages.
    #[error("{name:?} may be {known}: give the whole name")]
    Ambiguous {
        /// The name that was given.
        name: String,
        /// The messages that it may be.
        known: String,
    },
    /// Its messages are more than a definition can hold.
    #[error(transparent)]
    Bad(#[from] BadProtobuf),
}

/// How many messages are named where none is the right one.
const NAMED_MAX: usize = 12;

/// Compiles a message of a `.proto` file, which may import others: relative to one of the directories given, or else to its own. The message's name may be whole, or only its end if that is
/// enough to know it.
///
/// # Errors
/// The file or what it imports cannot be read or is wrong; it has no such message; or it is more than nodes take.
pub fn compile(file: &Path, includes: &[PathBuf], message: &str) -> Result<Compiled, ProtoError> {
    let own = file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // With line and column: that is what its `Debug` has.
    let wrong = |error: protox::Error| ProtoError::Wrong(format!("{error:?}"));
    let mut compiler = Compiler::new(includes.iter().map(PathBuf::as_path).chain([own])).map_err(wrong)?;
    compiler.include_imports(true).open_file(file).map_err(wrong)?;
    let message = whole_name(&compiler, file, message)?;
    let set = protobuf::minimal_of(compiler.file_descriptor_set(), &message)?;
    Ok(Compiled { message, set })
}

fn whole_name(compiler: &Compiler, file: &Path, name: &str) -> Result<String, ProtoError> {
    let pool = compiler.descriptor_pool();
    let own = compiler.files().filter(|file| !file.is_import()).map(|file| file.name().to_owned()).next();
    let messages: Vec<_> = pool.all_messages().filter(|message| !message.is_map_entry()).collect();
    if messages.iter().any(|message| message.full_name() == name) {
        return Ok(name.to_owned());
    }
    let end = format!(".{name}");
    let ends: Vec<&str> = messages.iter().map(|message| message.full_name()).filter(|whole| whole.ends_with(&end)).collect();
    match ends.as_slice() {
        [only] => return Ok((*only).to_owned()),
        [] => {}
        several => return Err(ProtoError::Ambiguous { name: name.into(), known: several.join(" or ") }),
    }
    // What is imported is mostly not what was meant.
    let own = messages.iter().filter(|message| Some(message.parent_file().name()) == own.as_deref()).map(|message| message.full_name());
    let own: Vec<&str> = own.collect();
    let distance = |known: &&&str| {
        let last = |name: &str| name.rsplit('.').next().unwrap_or_default().to_lowercase();
        strsim::damerau_levenshtein(&last(name), &last(known))
    };
    let nearest = own.iter().min_by_key(distance).filter(|nearest| distance(nearest) <= 2).map(|nearest| (*nearest).to_owned());
    let more = own.len().saturating_sub(NAMED_MAX);
    let mut known = own.into_iter().take(NAMED_MAX).collect::<Vec<_>>().join(", ");
    match more {
        0 if known.is_empty() => known.push_str("none"),
        0 => {}
        more => known.push_str(&format!(" and {more} more")),
    }
    Err(ProtoError::NoMessage { file: file.display().to_string(), name: name.into(), nearest, known })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use mangrove_crdt::protobuf::Protobuf;
    use serde_json::json;

    use super::*;

    const READING: &str = r#"
        syntax = "proto3";
        package telemetry;
        import "google/protobuf/timestamp.proto";
        import "common/units.proto";
        // What a sensor says.
        message Reading { google.protobuf.Timestamp at = 1; units.Celsius celsius = 2; Unit.Kind kind = 3; }
        message Unit { enum Kind { NONE = 0; SOME = 1; } message Part { int32 n = 1; } }
        message Unused { string name = 1; }
    "#;
    const UNITS: &str = r#"syntax = "proto3"; package units; message Celsius { double degrees = 1; } message Part {} message Kelvin {}"#;

    fn dir(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    #[test]
    fn a_file_and_what_it_imports_become_one_small_set() {
        let one = dir(&[("reading.proto", READING), ("common/units.proto", UNITS)]);
        let compiled = compile(&one.path().join("reading.proto"), &[], "telemetry.Reading").unwrap();
        assert_eq!(compiled.message, "telemetry.Reading");
        let names = protobuf::messages(&compiled.set).unwrap();
        assert_eq!(names, ["google.protobuf.Timestamp", "units.Celsius", "telemetry.Reading", "telemetry.Unit", "telemetry.Unit.Part"]);
        assert!(compiled.set.len() < 500, "{}", compiled.set.len());
        let reading = Protobuf::new(&compiled.set, &compiled.message).unwrap();
        let json = json!({"at": "2024-02-29T00:00:00Z", "celsius": {"degrees": 21.5}, "kind": "SOME"});
        assert_eq!(reading.to_json(&reading.from_json(&json).unwrap()), Ok(json));

        // Elsewhere, with the imports in a directory of their own, other comments and another name.
        let other = dir(&[("deep/down/r.proto", &READING.replace("// What", "// All that")), ("lib/common/units.proto", UNITS)]);
        let same = compile(&other.path().join("deep/down/r.proto"), &[other.path().join("lib")], "telemetry.Reading");
        assert_eq!(same, Ok(compiled.clone()));
        let rooted = compile(&other.path().join("deep/down/r.proto"), &[other.path().to_owned(), other.path().join("lib")], "Reading");
        assert_eq!(rooted, Ok(compiled));
    }

    #[test]
    fn a_message_is_found_by_the_end_of_its_name_or_its_nearest_is_named() {
        let files = dir(&[("reading.proto", READING), ("common/units.proto", UNITS)]);
        let file = files.path().join("reading.proto");
        let found = |name: &str| compile(&file, &[], name).map(|compiled| compiled.message);
        assert_eq!(found("Reading"), Ok("telemetry.Reading".into()));
        assert_eq!(found("Unit.Part"), Ok("telemetry.Unit.Part".into()));
        assert_eq!(found("Celsius"), Ok("units.Celsius".into()));
        let said = |name: &str| found(name).unwrap_err().to_string();
        assert_eq!(said("Part"), "\"Part\" may be units.Part or telemetry.Unit.Part: give the whole name");
        let known = "it has telemetry.Reading, telemetry.Unit, telemetry.Unit.Part, telemetry.Unused";
        assert_eq!(
            said("telemetry.Raeding"),
            format!("{} has no message \"telemetry.Raeding\", did you mean telemetry.Reading?; {known}", file.display())
        );
        assert_eq!(said("Kind"), format!("{} has no message \"Kind\"; {known}", file.display()));
        assert!(said("ading").contains("no message"), "an end is whole words");
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let said = |files: &[(&str, &str)]| {
            let files = dir(files);
            compile(&files.path().join("a.proto"), &[], "A").unwrap_err().to_string()
        };
        assert_eq!(said(&[("a.proto", "syntax = \"proto3\";\nmessage A { int33 n = 1; }")]), "a.proto:2:13: name 'int33' is not defined");
        assert_eq!(said(&[("a.proto", "import \"b.proto\";")]), "a.proto:1:1: import 'b.proto' not found");
        assert!(said(&[("a.proto", "import \"b.proto\";"), ("b.proto", "import \"a.proto\";")]).contains("a.proto -> b.proto -> a.proto"));
        assert_eq!(said(&[("a.proto", "message A {\n  int32 n 1;\n}")]), "a.proto:2:11: expected '=', but found '1'");
        assert!(said(&[]).contains("a.proto"));
        let many: String = (1..9_000).map(|number| format!("int32 f{number} = {number};")).collect();
        assert!(
            said(&[("a.proto", &format!("syntax = \"proto3\"; message A {{ {} }}", many))]).contains("too large: it has more than 8192")
        );
    }
}
