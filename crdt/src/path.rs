//! Paths: the names of topics, and the branches of the tree.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

use minicbor::{
    Decode, Decoder, Encode, Encoder,
    encode::{self, Write},
};

/// How many segments a path has at most: deeper trees are a mistake far more often than a wish.
pub const SEGMENTS_MAX: usize = 64;

/// How long a path is at most, in bytes of UTF-8: a path is a key in every table and on every wire.
pub const PATH_BYTES_MAX: usize = 1024;

/// Into how many hash slices the topics of a section fall; a power of two.
///
/// At 4,096 a section of a million topics has some 250 in each, where applying a remote change to the slice's document
/// takes well under 0.1 ms.
pub const BUCKETS: u16 = 4096;

/// The name of a topic: one or more non-empty segments joined by `/`.
///
/// Case-sensitive UTF-8 without control characters, at most [`SEGMENTS_MAX`] segments and [`PATH_BYTES_MAX`] bytes. A
/// topic may exist at `a/b/c` with nothing at `a` or `a/b`. Cloning is cheap. The order is that of the text's bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path(Arc<str>);

/// Why a text is not a path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// There is nothing in it.
    #[error("a path has at least one segment")]
    Empty,
    /// Two `/` follow each other, or one is first or last.
    #[error("a path has no empty segment, and no / at either end: {0:?}")]
    EmptySegment(String),
    /// It has more than [`PATH_BYTES_MAX`] bytes.
    #[error("a path has at most {PATH_BYTES_MAX} bytes, this one has {0}")]
    TooLong(usize),
    /// It has more than [`SEGMENTS_MAX`] segments.
    #[error("a path has at most {SEGMENTS_MAX} segments, this one has {0}")]
    TooDeep(usize),
    /// It has a control character, which no terminal, log or file would show as it is.
    #[error("a path has no control characters: {0:?}")]
    ControlCharacter(String),
}

impl Path {
    /// The path that `text` is, taken as it stands: nothing is trimmed or normalised.
    pub fn parse(text: &str) -> Result<Path, PathError> {
        check(text)?;
        Ok(Path(text.into()))
    }

    /// The whole path.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its segments, from the root down.
    pub fn segments(&self) -> impl DoubleEndedIterator<Item = &str> + Clone {
        self.0.split('/')
    }

    /// The path without its last segment; `None` where there is only one.
    pub fn parent(&self) -> Option<Path> {
        self.0.rsplit_once('/').map(|(parent, _)| Path(parent.into()))
    }

    /// The path itself, then its ancestors, nearest first.
    pub fn self_and_ancestors(&self) -> impl Iterator<Item = &str> {
        std::iter::successors(Some(self.as_str()), |path| path.rsplit_once('/').map(|(parent, _)| parent))
    }

    /// Whether any of its segments begins with `$`, which is kept for the mesh itself.
    pub fn is_reserved(&self) -> bool {
        self.segments().any(|segment| segment.starts_with('$'))
    }

    /// Whether this is `root` or a descendant of it.
    pub fn is_within(&self, root: &Path) -> bool {
        is_within(self.as_str(), root.as_str())
    }

    /// Which of the [`BUCKETS`] slices of its section it falls into: the first 12 bits of its BLAKE3 hash.
    pub fn bucket(&self) -> u16 {
        let hash = blake3::hash(self.0.as_bytes());
        let [high, low, ..] = hash.as_bytes();
        u16::from_be_bytes([*high, *low]) >> 4
    }
}

/// Whether `path` is `root` or below it, both taken as paths.
pub(crate) fn is_within(path: &str, root: &str) -> bool {
    path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn check(text: &str) -> Result<(), PathError> {
    if text.is_empty() {
        return Err(PathError::Empty);
    }
    if text.len() > PATH_BYTES_MAX {
        return Err(PathError::TooLong(text.len()));
    }
    if text.chars().any(char::is_control) {
        return Err(PathError::ControlCharacter(text.into()));
    }
    if text.split('/').any(str::is_empty) {
        return Err(PathError::EmptySegment(text.into()));
    }
    match text.split('/').count() {
        count if count > SEGMENTS_MAX => Err(PathError::TooDeep(count)),
        _ => Ok(()),
    }
}

impl Borrow<str> for Path {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Path {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl FromStr for Path {
    type Err = PathError;

    fn from_str(text: &str) -> Result<Self, PathError> {
        Path::parse(text)
    }
}

impl TryFrom<&str> for Path {
    type Error = PathError;

    fn try_from(text: &str) -> Result<Self, PathError> {
        Path::parse(text)
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl<C> Encode<C> for Path {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
        e.str(&self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Path {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        Path::parse(d.str()?).map_err(minicbor::decode::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn paths_are_non_empty_segments_within_limits() {
        for good in ["a", "a/b/c", "ä/日本", "$sys/x", ">a", "a b/ c", &("x/".repeat(63) + "y"), &"x".repeat(1024)] {
            assert_eq!(Path::parse(good).map(|path| path.to_string()), Ok(good.to_string()));
        }
        assert_eq!(Path::parse(""), Err(PathError::Empty));
        for bad in ["/", "/a", "a/", "a//b"] {
            assert_eq!(Path::parse(bad), Err(PathError::EmptySegment(bad.into())));
        }
        for bad in ["a\0", "a\nb", "\u{85}", "\u{7f}"] {
            assert_eq!(Path::parse(bad), Err(PathError::ControlCharacter(bad.into())));
        }
        assert_eq!(Path::parse(&"x".repeat(1025)), Err(PathError::TooLong(1025)));
        assert_eq!(Path::parse(&("x/".repeat(64) + "y")), Err(PathError::TooDeep(65)));
    }

    #[test]
    fn a_branch_is_its_root_and_what_is_below_it() {
        let path = |text| Path::parse(text).unwrap();
        assert!(path("a/b").is_within(&path("a/b")));
        assert!(path("a/b/c").is_within(&path("a/b")));
        assert!(!path("a/bc").is_within(&path("a/b")));
        assert!(!path("a").is_within(&path("a/b")));
        assert_eq!(path("a/b/c").parent(), Some(path("a/b")));
        assert_eq!(path("a").parent(), None);
        assert_eq!(path("a/b/c").self_and_ancestors().collect::<Vec<_>>(), ["a/b/c", "a/b", "a"]);
        assert!(path("a/$b").is_reserved());
        assert!(!path("a/b$").is_reserved());
    }

    #[test]
    fn buckets_are_fixed_for_ever() {
        // The numbers are part of the data format: a node that hashed otherwise would look for topics in the wrong place.
        let bucket = |text| Path::parse(text).unwrap().bucket();
        assert_eq!([bucket("a"), bucket("a/b"), bucket("sensors/7/temperature")], [375, 218, 52]);
    }

    #[test]
    fn bad_paths_do_not_decode() {
        assert!(minicbor::decode::<Path>(&minicbor::to_vec("a//b").unwrap()).is_err());
        assert!(minicbor::decode::<Path>(&minicbor::to_vec(7).unwrap()).is_err());
    }

    proptest! {
        #[test]
        fn what_parses_survives_its_text_and_bytes(text in "\\PC{0,40}") {
            if let Ok(path) = Path::parse(&text) {
                prop_assert_eq!(path.as_str(), &text);
                prop_assert_eq!(&minicbor::decode::<Path>(&minicbor::to_vec(&path).unwrap()).unwrap(), &path);
                prop_assert_eq!(path.segments().collect::<Vec<_>>().join("/"), text);
                prop_assert!(path.bucket() < BUCKETS);
            }
        }
    }
}
