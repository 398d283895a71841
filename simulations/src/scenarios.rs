//! The scenarios that come with the program, so that it runs anywhere.

use crate::scenario::Scenario;

macro_rules! scenarios {
    ($($name:literal),* $(,)?) => {
        /// Their names and texts, in order of names.
        pub const ALL: &[(&str, &str)] = &[$(($name, include_str!(concat!("../scenarios/", $name, ".toml")))),*];
    };
}

scenarios![
    "adopter-serves",
    "absence-of-all-but-one",
    "absence-of-island",
    "absence-of-one",
    "all-types",
    "amnesia-and-return",
    "available-sources",
    "backbone",
    "holder-deaf",
    "holder-mute",
    "hot",
    "hub-and-leaves",
    "hundred",
    "island-adopts-alone",
    "late-records",
    "lossy-links",
    "majorities-ring",
    "messages",
    "mixed-versions",
    "overlapping-sources",
    "quorum-drift",
    "quorum-sources",
    "random-faults",
    "relay-dies",
    "removal-against-run",
    "revoked",
    "rights-change",
    "rolling-restart",
    "sender-gone",
    "sessions-move",
    "sparse-mesh",
    "splits-apart",
    "three-way-split",
    "twenty",
    "walkers",
];

/// The files that they name.
const FILES: [(&str, &str); 2] =
    [("backbone.graphml", include_str!("../scenarios/backbone.graphml")), ("walkers.csv", include_str!("../scenarios/walkers.csv"))];

/// A file that one of them names; or what to do about one that is not there.
pub fn file(name: &str) -> Result<String, String> {
    let found = FILES.iter().find(|(known, _)| *known == name).map(|(_, text)| (*text).to_owned());
    found.ok_or_else(|| format!("no file {name:?} comes with the program: give the scenario as a file, and put it beside that"))
}

/// One by its name, with the ending of its file or without.
pub fn text(name: &str) -> Option<&'static str> {
    let name = name.strip_suffix(".toml").unwrap_or(name);
    ALL.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

/// All of them.
pub fn all() -> Vec<Scenario> {
    let read = |(name, text): &(&str, &str)| Scenario::parse(name, text).unwrap_or_else(|error| panic!("{name}: {error}"));
    ALL.iter().map(read).collect()
}
