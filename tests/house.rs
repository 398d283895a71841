//! The rules of the house, as far as a program can check them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).expect("a directory of the repository") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                if path.file_name().is_some_and(|name| name != "target") {
                    dirs.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

/// The names of a manifest's dependencies, of all kinds.
fn dependencies(manifest: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut inside = false;
    for line in read(&root().join(manifest)).lines() {
        if line.starts_with('[') {
            inside = line.contains("dependencies]") && !line.contains("workspace");
        } else if let Some((name, _)) = line.split_once(['=', '.']).filter(|_| inside) {
            names.insert(name.trim().to_owned());
        }
    }
    names
}

#[test]
fn the_top_level_is_the_architecture() {
    let allowed =
        ["Cargo.toml", "Cargo.lock", "LICENSE", "README.md", "clippy.toml", "crdt", "net", "simulations", "src", "target", "tests"];
    let found: Vec<String> = fs::read_dir(root())
        .expect("the repository")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .filter(|name| !name.starts_with('.') && !allowed.contains(&name.as_str()))
        // What a node leaves behind where it was tried out; git ignores it.
        .filter(|name| name != "mangrove-data")
        .collect();
    assert!(found.is_empty(), "not part of the house: {found:?}");
}

#[test]
fn left_never_imports_right() {
    let crdt = dependencies("crdt/Cargo.toml");
    for right in ["mangrove-net", "mangrove", "tokio", "quinn", "rand", "fjall"] {
        let dev_only = right == "rand";
        assert!(dev_only || !crdt.contains(right), "crdt depends on {right}");
    }
    assert!(!dependencies("net/Cargo.toml").contains("mangrove"), "net depends on the root package");
    for (dir, banned) in
        [("crdt/src", ["mangrove_net", "mangrove::"].as_slice()), ("net/src", &["mangrove::"]), ("src", &["mangrove_simulations"])]
    {
        for file in rust_files(&root().join(dir)) {
            let code: String = read(&file).lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
            for banned in banned {
                assert!(!code.contains(banned), "{} names {banned}", shown(&file));
            }
        }
    }
}

#[test]
fn the_pure_parts_name_no_clock_no_randomness_and_no_runtime() {
    let pure = rust_files(&root().join("crdt/src"))
        .into_iter()
        .chain(rust_files(&root().join("net/src")).into_iter().filter(|file| !shown(file).starts_with("net/src/quic")));
    let pure = pure.chain(rust_files(&root().join("src/node")));
    for file in pure {
        for line in read(&file).lines().filter(|line| !line.trim_start().starts_with("//")) {
            for banned in ["Instant::now", "SystemTime", "tokio::", "quinn::", "rand::rng", "thread_rng", "std::net::", "std::fs::"] {
                assert!(!line.contains(banned), "{} uses {banned}: {line}", shown(&file));
            }
        }
    }
}

#[test]
fn every_crate_opens_with_an_essay_and_every_file_says_what_it_is() {
    for essay in ["crdt/src/lib.rs", "net/src/lib.rs", "src/lib.rs"] {
        let lines = read(&root().join(essay)).lines().take_while(|line| line.starts_with("//!")).count();
        assert!(lines >= 15, "the essay of {essay} has {lines} lines");
    }
    for dir in ["crdt/src", "net/src", "src", "simulations/src"] {
        for file in rust_files(&root().join(dir)) {
            assert!(read(&file).starts_with("//!"), "{} does not say what it is", shown(&file));
        }
    }
}

#[test]
fn no_file_is_dead() {
    for dir in ["crdt/src", "net/src", "src", "simulations/src"] {
        let dir = root().join(dir);
        let sources: Vec<String> = rust_files(&dir).iter().map(|file| read(file)).collect();
        for file in rust_files(&dir) {
            let name = file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
            let module = if name == "mod" {
                file.parent().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
            } else {
                name
            };
            let named =
                ["main", "lib"].contains(&module.as_str()) || sources.iter().any(|source| source.contains(&format!("mod {module};")));
            assert!(named, "{} belongs to no module", shown(&file));
        }
    }
}

#[test]
fn nothing_is_left_to_do() {
    let marks =
        ["TO".to_owned() + "DO", "FIX".to_owned() + "ME", "XX".to_owned() + "X", "un".to_owned() + "implemented!", "to".to_owned() + "do!"];
    for dir in ["crdt", "net", "src", "simulations", "tests"] {
        for file in rust_files(&root().join(dir)) {
            for mark in &marks {
                assert!(!read(&file).contains(mark.as_str()), "{} says {mark}", shown(&file));
            }
        }
    }
}

#[test]
fn every_listed_lint_is_inherited() {
    for manifest in ["Cargo.toml", "crdt/Cargo.toml", "net/Cargo.toml", "simulations/Cargo.toml"] {
        assert!(read(&root().join(manifest)).contains("[lints]\nworkspace = true"), "{manifest} has lints of its own");
    }
}
