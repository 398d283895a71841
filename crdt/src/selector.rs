//! Selectors: which topics are meant.
//!
//! ```text
//! selector := ['>'] path                        exactly this path; the > is needed if it begins with one of # ? > * $ % & <,
//!                                               or with mqtt:
//!           | '?' regex ('/' regex)* [qualifier]  each regex matches one whole segment
//!           | '*' regex [qualifier]             the regex matches the whole path
//!           | '#' selector ('////' selector)+   whatever any of them matches
//!           | 'mqtt:' filter                    as MQTT has it: + is one segment, # at the end the branch above it and all below
//! qualifier := '/'   the strict descendants of what matches
//!            | '//'  what matches, and its descendants
//! ```
//!
//! A regex always matches the whole of a segment or path. What a qualified selector matches from need not exist: `?a/b/` matches
//! `a/b/c` with no topic at `a/b`. A selection stands: it is for topics made later too. To remove by a selector is to remove what it
//! matches: without qualifier the matched topics and nothing below them, with `/` only what is below, with `//` whole branches.
//!
//! A `/` in a `?` selector always parts two regexes, also inside of brackets: what should match across segments is written with `*`.
//! In a set, the last four of a run of slashes part two selectors, those before them qualify: `#?a//////b` is `?a//` and `b`.
//! As in MQTT, a `mqtt:` filter that begins with a wildcard does not match reserved paths.

use std::{fmt, str::FromStr, sync::Arc};

use minicbor::{
    Decode, Decoder, Encode, Encoder,
    encode::{self, Write},
};
use regex::{Regex, RegexBuilder};

use crate::path::{Path, PathError, SEGMENTS_MAX};

/// How long a selector is at most, in bytes.
pub const SELECTOR_BYTES_MAX: usize = 8192;

/// How many selectors a set has at most: each is tried in turn.
pub const PARTS_MAX: usize = 64;

/// How many regexes a selector has at most, not counting those that are plain text.
pub const REGEXES_MAX: usize = 64;

/// How much memory one regex may take once compiled, in bytes: enough for a few Unicode classes, not for a nest of repetitions.
pub const REGEX_BYTES_MAX: usize = 512 * 1024;

/// How deep a regex may nest.
const REGEX_NEST_MAX: u32 = 32;

/// Which topics are meant. See the module. Cloning is cheap; selectors are equal if they are written alike.
#[derive(Clone)]
pub struct Selector {
    text: Arc<str>,
    parts: Arc<[Part]>,
}

/// Why a text is not a selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// There is nothing in it, or in a part of a set.
    #[error("a selector is not empty")]
    Empty,
    /// It has more than [`SELECTOR_BYTES_MAX`] bytes.
    #[error("a selector has at most {SELECTOR_BYTES_MAX} bytes, this one has {0}")]
    TooLong(usize),
    /// It should be a path, and is none.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A path is qualified.
    #[error("a path takes no // (it selects one topic): write ?{0}// for the branch, ?{0}/ for what is below")]
    QualifiedPath(String),
    /// A path begins with a character that has or may get a meaning.
    #[error("a path that begins with {0} is written with a > before it: >{1}")]
    NeedsArrow(char, String),
    /// There is no regex where one belongs.
    #[error("there is an empty regex in {0:?}: each segment has its own, and at most // follows the last")]
    EmptyRegex(String),
    /// A regex does not parse.
    #[error("bad regex {regex:?}: {reason}")]
    BadRegex {
        /// The regex.
        regex: String,
        /// What the parser says.
        reason: String,
    },
    /// A regex that does not parse may have been cut by a slash.
    #[error("bad regex {regex:?}: {reason} (a ? selector is cut at every /, also in brackets; use * for a regex of the whole path)")]
    CutRegex {
        /// The regex.
        regex: String,
        /// What the parser says.
        reason: String,
    },
    /// A regex would take more than [`REGEX_BYTES_MAX`] bytes.
    #[error("regex {0:?} is too large once compiled")]
    RegexTooLarge(String),
    /// There are more than [`REGEXES_MAX`] regexes.
    #[error("a selector has at most {REGEXES_MAX} regexes")]
    TooManyRegexes,
    /// A set has more than [`PARTS_MAX`] selectors.
    #[error("a set has at most {PARTS_MAX} selectors, this one has {0}")]
    TooManyParts(usize),
    /// A set has a single selector.
    #[error("a set has at least two selectors, with //// between them")]
    OnePart,
    /// A set is within a set.
    #[error("a set has no sets within it")]
    NestedSet,
    /// A wildcard of an MQTT filter is not a whole segment, or `#` is not the last.
    #[error("in mqtt:{0}, + and # are whole segments, and # only the last")]
    MqttWildcard(String),
}

/// One selector that is no set.
#[derive(Debug)]
enum Part {
    Path(Path),
    Split { segments: Vec<Segment>, reach: Reach, spares_reserved: bool },
    Full { regex: Regex, prefix: Option<Path>, reach: Reach },
}

#[derive(Debug)]
enum Segment {
    Any,
    Literal(String),
    Regex(Regex),
}

/// What is selected from a match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    Itself,
    Below,
    Branch,
}

impl Selector {
    /// The selector that `text` is.
    pub fn parse(text: &str) -> Result<Selector, SelectorError> {
        if text.len() > SELECTOR_BYTES_MAX {
            return Err(SelectorError::TooLong(text.len()));
        }
        let mut regexes_left = REGEXES_MAX;
        let texts = match text.strip_prefix('#') {
            Some(set) => set_parts(set)?,
            None => vec![text],
        };
        let parts = texts.iter().map(|text| parse_part(text, &mut regexes_left)).collect::<Result<Vec<_>, _>>()?;
        let written: Vec<String> = texts.iter().zip(&parts).map(|(text, part)| part.written(text)).collect();
        let written = match text.starts_with('#') {
            true => format!("#{}", written.join("////")),
            false => written.concat(),
        };
        Ok(Selector { text: written.into(), parts: parts.into() })
    }

    /// The selector for exactly one path.
    pub fn exact(path: Path) -> Selector {
        Selector { text: format!(">{path}").into(), parts: [Part::Path(path)].into() }
    }

    /// The one path that is selected, if the selector names it.
    pub fn as_path(&self) -> Option<&Path> {
        match &*self.parts {
            [Part::Path(path)] => Some(path),
            _ => None,
        }
    }

    /// The selector's text, normalised: parsing it gives an equal selector.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether a topic at `path` is meant.
    pub fn matches(&self, path: &Path) -> bool {
        self.parts.iter().any(|part| part.matches(path))
    }

    /// For each selector of the union, the longest path that everything it selects is at or below, as far as the text tells; `None` if there is none.
    pub fn prefixes(&self) -> impl Iterator<Item = Option<Path>> {
        self.parts.iter().map(Part::prefix)
    }

    /// The longest path that everything selected is at or below, as far as the text tells; `None` if there is none.
    pub fn literal_prefix(&self) -> Option<Path> {
        let mut prefixes = self.prefixes();
        let first = prefixes.next()??;
        prefixes.try_fold(first, |common, prefix| common_ancestor(&common, &prefix?))
    }
}

impl Part {
    fn matches(&self, path: &Path) -> bool {
        match self {
            Part::Path(exact) => exact == path,
            Part::Split { spares_reserved: true, .. } if path.as_str().starts_with('$') => false,
            Part::Split { segments, reach, .. } => {
                let mut rest = path.segments();
                let fits = segments.iter().all(|segment| rest.next().is_some_and(|text| segment.matches(text)));
                fits && reach.takes(rest.next().is_some())
            }
            Part::Full { regex, reach, .. } => {
                let mut matches = path.self_and_ancestors().enumerate().filter(|(above, _)| reach.takes(*above > 0));
                matches.any(|(_, path)| regex.is_match(path))
            }
        }
    }

    fn prefix(&self) -> Option<Path> {
        match self {
            Part::Path(path) => Some(path.clone()),
            Part::Full { prefix, .. } => prefix.clone(),
            Part::Split { segments, .. } => {
                let literals = segments.iter().map_while(|segment| match segment {
                    Segment::Literal(text) => Some(text.as_str()),
                    _ => None,
                });
                Path::parse(&literals.collect::<Vec<_>>().join("/")).ok()
            }
        }
    }

    fn written(&self, text: &str) -> String {
        match self {
            Part::Path(path) => format!(">{path}"),
            _ => text.into(),
        }
    }
}

impl Segment {
    fn matches(&self, text: &str) -> bool {
        match self {
            Segment::Any => true,
            Segment::Literal(literal) => literal == text,
            Segment::Regex(regex) => regex.is_match(text),
        }
    }
}

impl Reach {
    /// Whether a path is selected that is below a match, or is the match.
    fn takes(self, is_below: bool) -> bool {
        match self {
            Reach::Itself => !is_below,
            Reach::Below => is_below,
            Reach::Branch => true,
        }
    }
}

fn common_ancestor(one: &Path, other: &Path) -> Option<Path> {
    let common = one.self_and_ancestors().find(|ancestor| crate::path::is_within(other.as_str(), ancestor))?;
    Path::parse(common).ok()
}

/// The selectors of a set.
fn set_parts(set: &str) -> Result<Vec<&str>, SelectorError> {
    let mut parts = Vec::new();
    let mut rest = set;
    while let Some(start) = rest.find("////") {
        let slashes = rest[start..].bytes().take_while(|byte| *byte == b'/').count();
        let (part, after) = (&rest[..start + slashes - 4], &rest[start + slashes..]);
        parts.push(part);
        rest = after;
    }
    parts.push(rest);
    match parts.len() {
        1 => Err(SelectorError::OnePart),
        count if count > PARTS_MAX => Err(SelectorError::TooManyParts(count)),
        _ => Ok(parts),
    }
}

fn parse_part(text: &str, regexes_left: &mut usize) -> Result<Part, SelectorError> {
    if let Some(filter) = text.strip_prefix("mqtt:") {
        return parse_mqtt(filter);
    }
    match text.chars().next() {
        None => Err(SelectorError::Empty),
        Some('>') => parse_path(&text[1..]),
        Some('?') => parse_split(text, regexes_left),
        Some('*') => parse_full(text, regexes_left),
        Some('#') => Err(SelectorError::NestedSet),
        Some(first @ ('$' | '%' | '&' | '<')) => Err(SelectorError::NeedsArrow(first, text.into())),
        Some(_) => parse_path(text),
    }
}

fn parse_path(text: &str) -> Result<Part, SelectorError> {
    let text = text.strip_prefix('/').unwrap_or(text);
    if let Some(branch) = text.strip_suffix("//") {
        return Err(SelectorError::QualifiedPath(branch.into()));
    }
    Ok(Part::Path(Path::parse(text.strip_suffix('/').unwrap_or(text))?))
}

fn parse_split(text: &str, regexes_left: &mut usize) -> Result<Part, SelectorError> {
    let (pattern, reach) = unqualified(&text[1..]);
    let count = pattern.split('/').count();
    if count > SEGMENTS_MAX {
        return Err(PathError::TooDeep(count).into());
    }
    let segment = |regex: &str| match literal(regex) {
        _ if regex.is_empty() => Err(SelectorError::EmptyRegex(text.into())),
        Some(literal) => Ok(Segment::Literal(literal)),
        None => compile(regex, regexes_left).map(Segment::Regex).map_err(|error| match error {
            SelectorError::BadRegex { regex, reason } if count > 1 => SelectorError::CutRegex { regex, reason },
            error => error,
        }),
    };
    let segments = pattern.split('/').map(segment).collect::<Result<_, _>>()?;
    Ok(Part::Split { segments, reach, spares_reserved: false })
}

fn parse_full(text: &str, regexes_left: &mut usize) -> Result<Part, SelectorError> {
    let (pattern, reach) = unqualified(&text[1..]);
    if pattern.is_empty() || pattern.ends_with('/') {
        return Err(SelectorError::EmptyRegex(text.into()));
    }
    Ok(Part::Full { regex: compile(pattern, regexes_left)?, prefix: full_prefix(pattern), reach })
}

fn parse_mqtt(filter: &str) -> Result<Part, SelectorError> {
    let (above, reach) = match filter.strip_suffix('#') {
        Some("") => (None, Reach::Branch),
        Some(above) => (Some(above.strip_suffix('/').ok_or_else(|| SelectorError::MqttWildcard(filter.into()))?), Reach::Branch),
        None => (Some(filter), Reach::Itself),
    };
    // Wildcards but for the last are segments like others, so a path's rules are the filter's.
    above.map_or(Ok(()), |above| Path::parse(above).map(|_| ()))?;
    let segment = |text: &str| match text {
        "+" => Ok(Segment::Any),
        text if text.contains(['+', '#']) => Err(SelectorError::MqttWildcard(filter.into())),
        text => Ok(Segment::Literal(text.into())),
    };
    let segments = above.into_iter().flat_map(|above| above.split('/')).map(segment).collect::<Result<Vec<_>, _>>()?;
    let spares_reserved = matches!(segments.first(), None | Some(Segment::Any));
    Ok(Part::Split { segments, reach, spares_reserved })
}

/// The pattern without its qualifier, and what that says.
fn unqualified(pattern: &str) -> (&str, Reach) {
    if let Some(pattern) = pattern.strip_suffix("//") {
        (pattern, Reach::Branch)
    } else if let Some(pattern) = pattern.strip_suffix('/') {
        (pattern, Reach::Below)
    } else {
        (pattern, Reach::Itself)
    }
}

/// The regex, made to match all or nothing.
fn compile(regex: &str, regexes_left: &mut usize) -> Result<Regex, SelectorError> {
    *regexes_left = regexes_left.checked_sub(1).ok_or(SelectorError::TooManyRegexes)?;
    let build = |regex: &str| {
        let mut builder = RegexBuilder::new(regex);
        builder.size_limit(REGEX_BYTES_MAX).dfa_size_limit(REGEX_BYTES_MAX / 2).nest_limit(REGEX_NEST_MAX).build()
    };
    // First alone, so that what is wrong is said of what was written, and so that no stray parenthesis closes the group around it.
    build(regex).and_then(|_| build(&format!(r"\A(?:{regex})\z"))).map_err(|error| match error {
        regex::Error::CompiledTooBig(_) => SelectorError::RegexTooLarge(regex.into()),
        error => SelectorError::BadRegex { regex: regex.into(), reason: last_line(&error.to_string()) },
    })
}

/// The regex library draws the regex with an arrow at the fault, then says what it is.
fn last_line(message: &str) -> String {
    let last = message.lines().last().unwrap_or_default();
    last.trim_start_matches("error: ").into()
}

/// Characters that mean something in a regex, and themselves after a backslash.
const META: &str = r"\.+*?()|[]{}^$#&-~";

/// The text that is all that the regex matches, if it is so plain.
fn literal(regex: &str) -> Option<String> {
    let (text, rest) = literal_start(regex);
    rest.is_empty().then_some(text)
}

/// The text that a regex begins with, and the rest: from a character that is not, or need not be, itself.
fn literal_start(regex: &str) -> (String, &str) {
    let (mut text, mut rest) = (String::new(), regex);
    while let Some((letter, after)) = first_literal(rest) {
        if after.starts_with(['*', '?', '+', '{']) {
            break;
        }
        text.push(letter);
        rest = after;
    }
    (text, rest)
}

fn first_literal(regex: &str) -> Option<(char, &str)> {
    let mut letters = regex.chars();
    let letter = match letters.next()? {
        '\\' => letters.next().filter(|letter| META.contains(*letter))?,
        // These mean something in brackets only.
        letter @ ('#' | '&' | '-' | '~') => letter,
        letter => (!META.contains(letter)).then_some(letter)?,
    };
    Some((letter, letters.as_str()))
}

/// The longest path that all matches of a regex of whole paths are at or below.
fn full_prefix(regex: &str) -> Option<Path> {
    if has_open_alternative(regex) {
        return None;
    }
    let (text, rest) = literal_start(regex);
    let whole = if rest.is_empty() { text.as_str() } else { text.rsplit_once('/')?.0 };
    Path::parse(whole).ok()
}

/// Whether a `|` may stand outside of all parentheses. Says yes where it is not sure.
fn has_open_alternative(regex: &str) -> bool {
    let (mut depth, mut in_brackets, mut letters) = (0u32, 0u32, regex.chars());
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => drop(letters.next()),
            '[' => in_brackets += 1,
            ']' => in_brackets = in_brackets.saturating_sub(1),
            '(' if in_brackets == 0 => depth += 1,
            ')' if in_brackets == 0 => depth = depth.saturating_sub(1),
            '|' if depth == 0 => return true,
            _ => {}
        }
    }
    // Brackets that look open are a `]` taken as itself, as in `[]a]`.
    in_brackets != 0 || depth != 0
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        Selector::parse(text)
    }
}

impl From<Path> for Selector {
    fn from(path: Path) -> Self {
        Selector::exact(path)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.text, f)
    }
}

impl PartialEq for Selector {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Selector {}

impl PartialOrd for Selector {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Selector {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.text.cmp(&other.text)
    }
}

impl std::hash::Hash for Selector {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl<C> Encode<C> for Selector {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
        e.str(&self.text)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Selector {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        Selector::parse(d.str()?).map_err(minicbor::decode::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(text: &str) -> Path {
        Path::parse(text).unwrap()
    }

    fn selector(text: &str) -> Selector {
        Selector::parse(text).unwrap()
    }

    fn matches(text: &str, at: &str) -> bool {
        selector(text).matches(&path(at))
    }

    #[test]
    fn what_each_kind_of_selector_matches() {
        let table = [
            (">alpha/beta", true, false),
            ("alpha/beta", true, false),
            (">beta", false, false),
            ("?alpha/beta", true, false),
            ("?beta", false, false),
            ("?.*", false, false),
            ("?.*/.*", true, false),
            ("?alpha/beta/", false, true),
            ("?alpha/beta//", true, true),
            ("?alpha/.*//", true, true),
            ("*alpha/beta", true, false),
            ("*beta", false, false),
            ("*.*beta", true, false),
            ("*.*", true, true),
            ("*alpha/beta/", false, true),
            ("*alpha/beta//", true, true),
            ("mqtt:alpha/beta", true, false),
            ("mqtt:alpha/+", true, false),
            ("mqtt:+/+/+", false, true),
            ("mqtt:alpha/#", true, true),
            ("mqtt:alpha/beta/#", true, true),
            ("mqtt:alpha/beta/+/#", false, true),
            ("mqtt:#", true, true),
            ("#>alpha/beta////?x", true, false),
            ("#?alpha/beta//////x", true, true),
            ("#x/////?alpha/beta/", false, true),
        ];
        for (text, parent, child) in table {
            assert_eq!((matches(text, "alpha/beta"), matches(text, "alpha/beta/gamma")), (parent, child), "{text}");
        }
    }

    #[test]
    fn regexes_match_whole_and_as_written() {
        assert!(matches("?a|ab", "ab"), "not only the first alternative");
        assert!(!matches("?a|ab", "abc"));
        assert!(!matches("*a|b", "ab"));
        assert!(matches("*a/(b|c/d)", "a/c/d"));
        assert!(matches(r"?a\.b/c", "a.b/c"));
        assert!(!matches(r"?a\.b/c", "axb/c"));
        assert!(matches("?(?i)ALPHA/x", "alpha/x"));
        assert!(matches(r"?\d+", "42"));
        assert!(!matches("*a\nb", "a"), "a line is not a path");
        assert!(matches("*a/", "a/b/c/d"));
        assert!(!matches("*a/b/", "a/b"));
        assert!(matches("?a-b#c", "a-b#c"));
    }

    #[test]
    fn mqtt_wildcards_spare_what_is_reserved() {
        assert!(!matches("mqtt:#", "$sys/x"));
        assert!(!matches("mqtt:+/x", "$sys/x"));
        assert!(matches("mqtt:$sys/#", "$sys/x"));
        assert!(matches("mqtt:a/+", "a/$b"));
        assert!(matches("?.*//", "$sys/x"), "a regex means what it says");
    }

    #[test]
    fn paths_are_normalised_and_shown_with_their_arrow() {
        for text in [">/a/b/", "/a/b/", "a/b", ">a/b", "a/b/"] {
            assert_eq!(selector(text).as_str(), ">a/b");
            assert_eq!(selector(text), Selector::exact(path("a/b")));
        }
        for text in [">$sys", ">#a", ">>a", ">?a", ">*", ">mqtt:a", "#>a////?b", "mqtt:+/#"] {
            assert_eq!(selector(text).to_string(), text);
        }
        assert_eq!(selector("#a////b/////?c////mqtt:d").to_string(), "#>a////>b////?c////mqtt:d");
        assert_eq!(selector(">mqtt:a").as_path(), Some(&path("mqtt:a")));
        assert_eq!(selector("?a").as_path(), None);
    }

    #[test]
    fn the_literal_prefix_is_of_whole_segments() {
        let table = [
            (">a/b", Some("a/b")),
            ("?a/b/.*/c", Some("a/b")),
            (r"?a\.b/.*", Some("a.b")),
            ("?.*/b", None),
            ("?a/b//", Some("a/b")),
            ("?a|b/c", None),
            ("*a/b", Some("a/b")),
            ("*a/b.*", Some("a")),
            ("*a/b/.*", Some("a/b")),
            ("*a/b*", Some("a")),
            ("*a/?b", None),
            ("*a/{0,1}b", None),
            ("*a/b|c", None),
            ("*a/(b|c)", Some("a")),
            ("*a/[b|c]", None),
            ("*a/[]|]", None),
            (r"*a/b\|c", Some("a/b|c")),
            ("*(?i)a/b", None),
            ("*^a/b", None),
            ("mqtt:a/b/+/c", Some("a/b")),
            ("mqtt:a/#", Some("a")),
            ("mqtt:#", None),
            ("#a/b////a/c", Some("a")),
            ("#a/b////a/bc", Some("a")),
            ("#a/b////a/b/c", Some("a/b")),
            ("#a/b////c", None),
            ("#a/b////?.*", None),
        ];
        for (text, prefix) in table {
            assert_eq!(selector(text).literal_prefix().as_deref_text(), prefix, "{text}");
        }
    }

    trait AsDerefText {
        fn as_deref_text(&self) -> Option<&str>;
    }

    impl AsDerefText for Option<Path> {
        fn as_deref_text(&self) -> Option<&str> {
            self.as_ref().map(Path::as_str)
        }
    }

    #[test]
    fn refusals_say_what_to_write_instead() {
        let refused = |text: &str| Selector::parse(text).unwrap_err();
        assert_eq!(refused(""), SelectorError::Empty);
        assert_eq!(refused("#a////"), SelectorError::Empty);
        assert_eq!(refused(">"), SelectorError::Path(PathError::Empty));
        assert_eq!(refused("a//b"), SelectorError::Path(PathError::EmptySegment("a//b".into())));
        assert_eq!(
            refused("a//").to_string(),
            "a path takes no // (it selects one topic): write ?a// for the branch, ?a/ for what is below"
        );
        assert_eq!(refused("$sys").to_string(), "a path that begins with $ is written with a > before it: >$sys");
        for text in ["?", "?a//b", "?a///", "?/a", "*", "*//", "*a///"] {
            assert_eq!(refused(text), SelectorError::EmptyRegex(text.into()));
        }
        for text in ["?a[/]b", r"?a\/b", "?(a/b)", "?a{1/2}"] {
            let error = refused(text);
            assert!(matches!(&error, SelectorError::CutRegex { .. }), "{text}: {error}");
            assert!(error.to_string().ends_with("use * for a regex of the whole path)"));
        }
        assert_eq!(refused("?a(").to_string(), "bad regex \"a(\": unclosed group");
        assert!(matches!(refused("*a)|(b"), SelectorError::BadRegex { .. }));
        assert!(matches!(refused("*(?x)a#"), SelectorError::BadRegex { .. }), "a comment would swallow the end");
        assert_eq!(refused(r"*(\w{100}){100}"), SelectorError::RegexTooLarge(r"(\w{100}){100}".into()));
        assert!(matches!(refused(&format!("*{}a{}", "(".repeat(40), ")".repeat(40))), SelectorError::BadRegex { .. }));
        assert_eq!(refused("#a"), SelectorError::OnePart);
        assert_eq!(refused("##a////b////c"), SelectorError::NestedSet);
        assert_eq!(refused(&format!("#{}b", "a////".repeat(64))), SelectorError::TooManyParts(65));
        assert_eq!(refused(&format!("?{}.", "./".repeat(64))), SelectorError::Path(PathError::TooDeep(65)));
        assert_eq!(refused(&format!("#?{}.////*.", "./".repeat(63))), SelectorError::TooManyRegexes);
        assert_eq!(refused(&"a".repeat(SELECTOR_BYTES_MAX + 1)), SelectorError::TooLong(SELECTOR_BYTES_MAX + 1));
        for text in ["a+", "a/#/b", "a#", "#a", "+a/b"] {
            assert_eq!(refused(&format!("mqtt:{text}")), SelectorError::MqttWildcard(text.into()));
        }
        assert_eq!(refused("mqtt:a//b"), SelectorError::Path(PathError::EmptySegment("a//b".into())));
        assert_eq!(refused("mqtt:"), SelectorError::Path(PathError::Empty));
    }

    #[test]
    fn selectors_survive_their_bytes() {
        let bytes = minicbor::to_vec(selector("#a////?b/.*//")).unwrap();
        assert_eq!(minicbor::decode::<Selector>(&bytes).unwrap(), selector("#a////?b/.*//"));
        assert!(minicbor::decode::<Selector>(&minicbor::to_vec("?(").unwrap()).is_err());
    }

    fn paths() -> impl Strategy<Value = Path> {
        prop::collection::vec("[ab.$]{1,2}", 1..5).prop_map(|segments| path(&segments.join("/")))
    }

    /// Texts that are selectors more often than not.
    fn texts() -> impl Strategy<Value = String> {
        let segment = || prop::sample::select(vec!["a", "b", "ab", r"a\.b", ".*", "[ab]", "a|b", "(a|b)", "b?", "a+", "aa?", "."]);
        let joined = move || prop::collection::vec(segment(), 1..4).prop_map(|segments| segments.join("/"));
        let qualifier = || prop::sample::select(vec!["", "/", "//"]);
        let mqtt = prop::collection::vec(prop::sample::select(vec!["a", "b", "+"]), 1..4).prop_map(|segments| segments.join("/"));
        let part = prop_oneof![
            paths().prop_map(|path| format!(">{path}")),
            (joined(), qualifier()).prop_map(|(regex, qualifier)| format!("?{regex}{qualifier}")),
            (joined(), qualifier()).prop_map(|(regex, qualifier)| format!("*{regex}{qualifier}")),
            (mqtt, any::<bool>()).prop_map(|(filter, open)| format!("mqtt:{filter}{}", if open { "/#" } else { "" })),
        ];
        prop_oneof![3 => part.clone(), 1 => prop::collection::vec(part, 2..4).prop_map(|parts| format!("#{}", parts.join("////")))]
    }

    proptest! {
        #[test]
        fn what_is_selected_is_within_the_prefix_and_the_text_says_it_all(text in texts(), path in paths()) {
            let selector = selector(&text);
            prop_assert_eq!(Selector::parse(selector.as_str()).unwrap(), selector.clone());
            if selector.matches(&path) {
                prop_assert!(selector.literal_prefix().is_none_or(|prefix| path.is_within(&prefix)), "{} {}", selector, path);
            }
            prop_assert_eq!(Selector::parse(selector.as_str()).unwrap().matches(&path), selector.matches(&path));
        }

        #[test]
        fn qualifiers_are_about_ancestors(text in texts().prop_filter("plain", |text| text.starts_with(['?', '*']) && !text.ends_with('/')), path in paths()) {
            let plain = selector(&text);
            let above = path.self_and_ancestors().skip(1).any(|ancestor| plain.matches(&Path::parse(ancestor).unwrap()));
            prop_assert_eq!(matches(&format!("{text}/"), path.as_str()), above);
            prop_assert_eq!(matches(&format!("{text}//"), path.as_str()), above || plain.matches(&path));
        }

        #[test]
        fn a_set_is_the_union_of_its_parts(parts in prop::collection::vec(texts().prop_filter("no set", |text| !text.starts_with('#')), 2..5), path in paths()) {
            let set = selector(&format!("#{}", parts.join("////")));
            prop_assert_eq!(set.matches(&path), parts.iter().any(|part| selector(part).matches(&path)));
        }

        #[test]
        fn any_text_is_refused_or_survives(text in "[?*#>a/.(|)\\[\\]\\\\mqt:+$]{0,20}") {
            if let Ok(selector) = Selector::parse(&text) {
                prop_assert_eq!(Selector::parse(selector.as_str()), Ok(selector));
            }
        }
    }
}
