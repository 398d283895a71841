//! Values on their way in fewer bytes, by LZ4: those that go whole, on links and to and from clients.
//!
//! A try is made with what has at least [`COMPRESS_BYTES_MIN`] bytes, and it goes compressed only if that saves an eighth. LZ4 looks ever less often where it finds nothing, so
//! a try that comes to nothing is cheap: 64 kB of noise take 3 µs, a kilobyte of it 0.4 µs. A kilobyte of JSON that becomes half of it takes 0.8 µs, and 0.2 µs back (one core,
//! release build). So nothing is remembered of tries.

use mangrove_crdt::delta::Form;

/// Values below this go as they are: there is little to save.
pub const COMPRESS_BYTES_MIN: usize = 256;

/// Compressed bytes that are none, or of more than may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CompressedError {
    /// They would become more than allowed, or claim more than so many bytes can become.
    #[error("compressed bytes of more than {0}")]
    TooLong(usize),
    /// They do not become what they claim.
    #[error("compressed bytes that do not give what they should")]
    Garbage,
}

/// How a value goes over a stream whose receiver makes out compressed ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    /// As it is.
    Whole {
        /// Whether it is to be kept, as in [`Form::Kept`].
        kept: bool,
    },
    /// As in [`Form::Delta`].
    Delta(Vec<u8>),
    /// All of it in these bytes ([`decompress`]).
    Compressed {
        /// Whether it, the value itself, is to be kept.
        kept: bool,
        /// Its length, four bytes, least significant first, then a block of LZ4.
        bytes: Vec<u8>,
    },
}

impl Sent {
    /// What takes the fewest bytes. `compress` says whether the value may go compressed; it is asked only where that may help.
    pub fn shortest(form: Form, value: &[u8], compress: impl FnOnce() -> bool) -> Sent {
        let kept = form != Form::Whole;
        let delta = match form {
            Form::Delta(delta) => Some(delta),
            Form::Whole | Form::Kept => None,
        };
        // A delta of a few bytes is not bettered.
        let most = delta.as_ref().map_or(value.len() - value.len() / 8, |delta| delta.len());
        let may_help = value.len() >= COMPRESS_BYTES_MIN && most > value.len() / 2;
        let compressed = (may_help && compress()).then(|| lz4_flex::compress_prepend_size(value)).filter(|bytes| bytes.len() < most);
        match (compressed, delta) {
            (Some(bytes), _) => Sent::Compressed { kept, bytes },
            (None, Some(delta)) => Sent::Delta(delta),
            (None, None) => Sent::Whole { kept },
        }
    }
}

/// What was compressed: at most so many bytes, for which memory is taken only if there are enough to make them of.
///
/// # Errors
/// It is more, or nothing that was compressed.
pub fn decompress(bytes: &[u8], bytes_max: usize) -> Result<Vec<u8>, CompressedError> {
    let (length, block) = bytes.split_first_chunk::<4>().ok_or(CompressedError::Garbage)?;
    let length = u32::from_le_bytes(*length) as usize;
    // LZ4 makes at most 255 bytes of one.
    let bytes_max = bytes_max.min(block.len().saturating_mul(255));
    if length > bytes_max {
        return Err(CompressedError::TooLong(bytes_max));
    }
    let value = lz4_flex::decompress(block, length).map_err(|_| CompressedError::Garbage)?;
    if value.len() == length { Ok(value) } else { Err(CompressedError::Garbage) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn noise(length: usize) -> Vec<u8> {
        let mut noise = vec![0; length];
        blake3::Hasher::new().finalize_xof().fill(&mut noise);
        noise
    }

    fn compressed(value: &[u8]) -> Option<Vec<u8>> {
        match Sent::shortest(Form::Whole, value, || true) {
            Sent::Compressed { kept: false, bytes } => Some(bytes),
            Sent::Whole { kept: false } => None,
            other => panic!("{other:?}"),
        }
    }

    /// Some bytes that repeat and some that do not.
    fn values() -> impl Strategy<Value = Vec<u8>> {
        let part = (prop::collection::vec(any::<u8>(), 1..60), 1..40usize).prop_map(|(bytes, times)| bytes.repeat(times));
        prop::collection::vec(part, 0..6).prop_map(|parts| parts.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_was_compressed_comes_out_the_same(value in values()) {
            if let Some(bytes) = compressed(&value) {
                prop_assert!(bytes.len() <= value.len() - value.len() / 8 && value.len() >= COMPRESS_BYTES_MIN);
                prop_assert_eq!(decompress(&bytes, value.len()), Ok(value.clone()));
                prop_assert_eq!(decompress(&bytes, value.len() - 1), Err(CompressedError::TooLong(value.len() - 1)));
                for end in 0..bytes.len() {
                    prop_assert!(decompress(&bytes[..end], usize::MAX).is_err(), "cut to {} of {}", end, bytes.len());
                }
            }
        }

        #[test]
        fn noise_is_refused_or_bounded(bytes in prop::collection::vec(any::<u8>(), 0..80), length in 0..2_000u32) {
            let claiming = [&length.to_le_bytes()[..], &bytes].concat();
            for bytes in [&bytes, &claiming] {
                if let Ok(value) = decompress(bytes, 1_000) {
                    prop_assert!(value.len() <= 1_000);
                }
            }
        }
    }

    #[test]
    fn lengths_that_lie_are_refused_before_there_is_memory_for_them() {
        let value = vec![7; 10_000];
        let bytes = compressed(&value).expect("it is all the same");
        let claiming = |length: u32| [&length.to_le_bytes()[..], &bytes[4..]].concat();
        assert_eq!(decompress(&claiming(10_000), 20_000), Ok(value));
        for length in [0, 9_999, 10_001] {
            assert_eq!(decompress(&claiming(length), 20_000), Err(CompressedError::Garbage), "{length}");
        }
        let most = (bytes.len() - 4) * 255;
        assert_eq!(decompress(&claiming(u32::MAX), usize::MAX), Err(CompressedError::TooLong(most)));
    }

    #[test]
    fn what_takes_the_fewest_bytes_goes() {
        let unwanted = || -> bool { panic!("it is not asked") };
        let (short, long) = ([7; COMPRESS_BYTES_MIN - 1], [7; COMPRESS_BYTES_MIN]);
        assert_eq!(Sent::shortest(Form::Whole, &short, unwanted), Sent::Whole { kept: false });
        assert_eq!(Sent::shortest(Form::Kept, &long, || false), Sent::Whole { kept: true });
        assert!(matches!(Sent::shortest(Form::Kept, &long, || true), Sent::Compressed { kept: true, bytes } if bytes.len() < 20));
        assert_eq!(Sent::shortest(Form::Kept, &noise(70_000), || true), Sent::Whole { kept: true });
        // It must save an eighth.
        let partly = |same: usize| [noise(1_000 - same), vec![7; same]].concat();
        assert_eq!((compressed(&partly(120)), compressed(&partly(160)).is_some()), (None, true));
        // A delta that saves little is bettered, and one that saves more is not.
        let delta = |length| Form::Delta(vec![1; length]);
        assert_eq!(Sent::shortest(delta(128), &long, unwanted), Sent::Delta(vec![1; 128]));
        assert!(matches!(Sent::shortest(delta(129), &long, || true), Sent::Compressed { kept: true, .. }));
        assert_eq!(Sent::shortest(delta(129), &long, || false), Sent::Delta(vec![1; 129]));
        assert_eq!(Sent::shortest(delta(600), &noise(1_000), || true), Sent::Delta(vec![1; 600]));
    }
}
