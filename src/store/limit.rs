//! How much a store may take, and what still gets in when that is nearly reached.

use mangrove_crdt::persist::{Row, Table};

use super::{SEAL_BYTES, last_rows};

/// A limit in bytes, with a reserve below it that only removals may enter.
///
/// ```text
///   0 ────────── used ──────────▶│◀── reserve ──▶│ max
///        anything may be added   │ removals only  │ nothing
/// ```
///
/// Without the reserve a full store could not even be emptied: a removal is a record too, and compaction, which gives the room back,
/// needs room to work in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limit {
    /// Bytes the store may take; `u64::MAX` is no limit.
    pub bytes_max: u64,
    /// Bytes at the end of them that only removals may enter.
    pub reserve_bytes: u64,
}

/// What a removal may write beyond what it frees, for each row removed: its own record, its place in a feed, its bucket's history.
const REMOVAL_BYTES: u64 = 1_024;

impl Limit {
    /// No limit at all.
    pub const NONE: Limit = Limit { bytes_max: u64::MAX, reserve_bytes: 0 };

    /// A limit with the usual reserve: a sixteenth, at least 64 KiB, at most 64 MiB.
    pub fn of(bytes_max: u64) -> Limit {
        Limit { bytes_max, reserve_bytes: (bytes_max / 16).clamp(64 << 10, 64 << 20).min(bytes_max) }
    }

    /// Bytes that batches which only add may still take, with `used` bytes taken.
    pub fn room(&self, used: u64) -> u64 {
        match self.bytes_max {
            u64::MAX => u64::MAX,
            max => (max - self.reserve_bytes).saturating_sub(used),
        }
    }

    /// True if a batch that writes `bytes` may add them with no more questions asked.
    pub fn has_room(&self, used: u64, bytes: u64) -> bool {
        bytes <= self.room(used)
    }

    /// True if a batch of this effect may enter the reserve: it removes something, it frees about what it adds, and it fits.
    pub fn admits(&self, used: u64, effect: Effect) -> bool {
        let fits = used.saturating_add(effect.written) <= self.bytes_max;
        let makes_room = effect.removed > 0 && effect.written <= effect.freed + effect.removed * REMOVAL_BYTES;
        fits && makes_room
    }
}

/// What a batch does to a store.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Effect {
    /// Bytes of keys and values that it writes.
    pub written: u64,
    /// Bytes of keys and values that it removes or replaces.
    pub freed: u64,
    /// Rows that were there and go.
    pub removed: u64,
}

impl Effect {
    /// Bytes that a batch writes, known without looking at the store.
    pub fn written(rows: &[Row]) -> u64 {
        rows.iter().map(|row| row_bytes(&row.key, row.value.as_ref().map_or(0, Vec::len))).sum()
    }

    /// The whole effect, where `size_of` gives the length of a row's present value.
    ///
    /// # Errors
    /// Those of `size_of`.
    pub fn measure<E>(rows: &[Row], mut size_of: impl FnMut(Table, &[u8]) -> Result<Option<usize>, E>) -> Result<Effect, E> {
        let mut effect = Effect::default();
        for ((table, key), value) in last_rows(rows) {
            effect.written += row_bytes(key, value.map_or(0, <[u8]>::len));
            if let Some(len) = size_of(table, key)? {
                effect.freed += row_bytes(key, len);
                effect.removed += u64::from(value.is_none());
            }
        }
        Ok(effect)
    }
}

/// Bytes of a row, as near as one can say without knowing the store: its key, its value, its checksum.
fn row_bytes(key: &[u8], value_bytes: usize) -> u64 {
    (key.len() + SEAL_BYTES + value_bytes) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Limit = Limit { bytes_max: 1_000_000, reserve_bytes: 100_000 };

    #[test]
    fn what_adds_stops_before_the_reserve() {
        assert_eq!(LIMIT.room(0), 900_000);
        assert_eq!(LIMIT.room(899_999), 1);
        assert_eq!(LIMIT.room(2_000_000), 0);
        assert!(LIMIT.has_room(899_990, 10));
        assert!(!LIMIT.has_room(899_990, 11));
        assert_eq!(Limit::NONE.room(u64::MAX), u64::MAX);
    }

    #[test]
    fn only_what_removes_enters_the_reserve_and_nothing_passes_the_end() {
        let removal = Effect { written: 3_000, freed: 2_000, removed: 1 };
        assert!(LIMIT.admits(950_000, removal));
        assert!(!LIMIT.admits(950_000, Effect { removed: 0, ..removal }));
        assert!(!LIMIT.admits(950_000, Effect { written: 3_025, ..removal }), "it adds more than its own record");
        assert!(!LIMIT.admits(997_001, removal));
    }

    #[test]
    fn the_usual_reserve_is_a_sixteenth_within_bounds() {
        assert_eq!(Limit::of(160 << 20).reserve_bytes, 10 << 20);
        assert_eq!(Limit::of(256 << 10).reserve_bytes, 64 << 10);
        assert_eq!(Limit::of(100 << 30).reserve_bytes, 64 << 20);
        assert_eq!(Limit::of(1_000).reserve_bytes, 1_000);
    }

    #[test]
    fn an_effect_counts_each_key_once_by_its_last_row() {
        let row = |key: &[u8], value: Option<&[u8]>| Row { table: Table::Meta, key: key.to_vec(), value: value.map(<[u8]>::to_vec) };
        let rows = [row(b"a", Some(b"12345")), row(b"a", Some(b"1")), row(b"gone", None), row(b"never", None)];
        let old = |_: Table, key: &[u8]| Ok::<_, ()>((key != b"never").then_some(10));
        // a: 1 + 8 + 1, gone: 4 + 8, never: 5 + 8; freed a: 1 + 8 + 10, gone: 4 + 8 + 10.
        assert_eq!(Effect::measure(&rows, old), Ok(Effect { written: 35, freed: 41, removed: 1 }));
        assert_eq!(Effect::written(&rows), 49);
    }
}
