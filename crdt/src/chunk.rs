//! What is checked of automerge's bytes before automerge sees them.
//!
//! Automerge's binary format packs operations into columns of runs. A run is a count and a value, so a few dozen bytes can
//! spell 2⁶² operations, and columns and changes may be deflated on top. Automerge unpacks both without a limit, and
//! takes indices into lists of actors on trust. Here every column's items are counted by their runs alone, in time linear in the bytes,
//! and compression is refused: links and stores compress by themselves.
//!
//! The format: a chunk is `85 6f 4a 83`, four bytes of SHA-256, a type, a length, and so many bytes. Those are
//!
//! ```text
//! change    dependencies · actor · seq · first op · time · message · other actors · columns · their data · extra bytes
//! document  actors · heads · change columns · operation columns · data of both · indices of the heads
//! columns   how many · for each: specification (id << 4 | deflated << 3 | type), length
//! ```
//!
//! with all numbers in LEB128 and all lists led by their length.

use crate::saved::Head;

/// How long one change is at most, in bytes.
pub const CHANGE_BYTES_MAX: usize = 32 * 1024 * 1024;

/// How many items a column of a change has at most: a change has an item for each operation, and one for each that it overtakes.
pub const CHANGE_ITEMS_MAX: u64 = 1 << 18;

/// How long a peer's saved document is at most, in bytes.
pub const DOCUMENT_BYTES_MAX: usize = 256 * 1024 * 1024;

/// How many items a column of a peer's document has at most: the operations of its whole history.
const DOCUMENT_ITEMS_MAX: u64 = 1 << 22;

const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];

/// Whether bytes are laid out as one uncompressed change within limits. Says nothing about what it does.
pub(crate) fn is_sound_change(bytes: &[u8]) -> bool {
    bytes.len() <= CHANGE_BYTES_MAX && chunk(bytes, 1).and_then(change).is_some()
}

/// What one operation of a change does, if it is of the only kinds that nodes make.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Operation<'a> {
    /// The number of the operation that made the object; `object_actor` in the change's list of actors, its own first, made it.
    pub object: u64,
    pub object_actor: u64,
    pub key: &'a str,
    /// The bytes put; `None` for a removal.
    pub put: Option<&'a [u8]>,
    /// The operations that it overtakes, each by its actor's place in the list, and its number.
    pub overtakes: Vec<(u64, u64)>,
}

/// The operations of a change, if each puts bytes under a key of a map, or removes such a key. To be called on a sound change.
pub(crate) fn operations(bytes: &[u8]) -> Option<Vec<Operation<'_>>> {
    let mut reader = chunk(bytes, 1)?;
    let (columns, _) = change_head(&mut reader)?;
    let mut found = [const { Reader::EMPTY }; COLUMNS.len()];
    for column in columns {
        let data = Reader { bytes: reader.take(column.length)? };
        match COLUMNS.iter().position(|known| *known == column.specification) {
            Some(place) => found[place] = data,
            // Keys of sequences, insertions and marks: there, but never used.
            None => data.is_unused(column)?,
        }
    }
    let [object_actors, objects, keys, actions, metadata, mut values, groups, actors, numbers] = found;
    let actions = actions.expand(Reader::unsigned)?;
    let count = actions.len();
    let (object_actors, objects) = (object_actors.expand(Reader::unsigned)?, objects.expand(Reader::unsigned)?);
    let (keys, metadata) = (keys.expand(Reader::text)?, metadata.expand(Reader::unsigned)?);
    let groups = groups.expand(Reader::unsigned)?;
    if [object_actors.len(), objects.len(), keys.len(), metadata.len(), groups.len()] != [count; 5] {
        return None;
    }
    let mut overtaken = overtaken(actors, numbers)?.into_iter();
    let mut operations = Vec::with_capacity(count);
    for at in 0..count {
        let put = match (actions[at]?, metadata[at]?) {
            (PUT, bytes) if bytes & 15 == BYTES => Some(values.take(bytes >> 4)?),
            (DELETE, 0) => None,
            _ => return None,
        };
        let overtakes: Vec<_> = overtaken.by_ref().take(usize::try_from(groups[at]?).ok()?).collect();
        operations.push(Operation { object: objects[at]?, object_actor: object_actors[at]?, key: keys[at]?, put, overtakes });
    }
    (values.is_empty() && overtaken.next().is_none()).then_some(operations)
}

/// All operations that a change overtakes, in the order of its own.
fn overtaken(actors: Reader<'_>, numbers: Reader<'_>) -> Option<Vec<(u64, u64)>> {
    let actors: Option<Vec<u64>> = actors.expand(Reader::unsigned)?.into_iter().collect();
    let mut number: i64 = 0;
    let numbers = numbers.expand(Reader::signed)?.into_iter().map(|step| {
        number = number.checked_add(step?)?;
        u64::try_from(number).ok()
    });
    let (actors, numbers) = (actors?, numbers.collect::<Option<Vec<u64>>>()?);
    (actors.len() == numbers.len()).then(|| actors.into_iter().zip(numbers).collect())
}

/// Object (actor, number), key, action, the value's type with its length, and its bytes, and of the operations that it overtakes
/// how many there are, and the actor and number of each.
const COLUMNS: [u64; 9] = [0x01, 0x02, 0x15, 0x42, 0x56, 0x57, 0x70, 0x71, 0x73];

const PUT: u64 = 1;
const DELETE: u64 = 3;
const BYTES: u64 = 7;

/// Whether bytes are laid out as one uncompressed document within limits.
pub(crate) fn is_sound_document(bytes: &[u8]) -> bool {
    bytes.len() <= DOCUMENT_BYTES_MAX && chunk(bytes, 0).and_then(document).is_some()
}

/// The content of the only chunk, if it is of the given type.
fn chunk(bytes: &[u8], chunk_type: u8) -> Option<Reader<'_>> {
    let mut reader = Reader { bytes };
    let sound = reader.take(4)? == MAGIC && reader.take(4).is_some() && reader.take(1)? == [chunk_type];
    let length = reader.unsigned()?;
    (sound && length == reader.bytes.len() as u64).then_some(reader)
}

/// The actors, sorted heads and columns of operations of a saved document. To be called on a sound one.
pub(crate) fn rows_of(bytes: &[u8]) -> Option<Head<'_>> {
    let mut reader = chunk(bytes, 0)?;
    let mut actors = Vec::new();
    reader.list(|reader| reader.prefixed().map(|actor| actors.push(actor)))?;
    let mut heads = Vec::new();
    reader.list(|reader| reader.take(32).and_then(|head| head.try_into().ok()).map(|head| heads.push(head)))?;
    heads.sort_unstable();
    let (of_changes, of_operations) = (reader.columns()?, reader.columns()?);
    reader.take(of_changes.iter().try_fold(0_u64, |sum, column| sum.checked_add(column.length))?)?;
    let columns = of_operations.into_iter().map(|column| Some((column, Reader { bytes: reader.take(column.length)? })));
    Some(Head { actors, heads, columns: columns.collect::<Option<_>>()? })
}

fn change(mut reader: Reader<'_>) -> Option<()> {
    let (columns, limits) = change_head(&mut reader)?;
    columns.iter().try_for_each(|column| reader.column(*column, &limits))
}

/// Everything before the data of the columns.
fn change_head(reader: &mut Reader<'_>) -> Option<(Vec<Column>, Limits)> {
    let dependencies = reader.unsigned()?;
    reader.take(dependencies.checked_mul(32)?)?;
    reader.prefixed()?;
    let (_seq, _first_op, _time) = (reader.unsigned()?, reader.unsigned()?, reader.signed()?);
    reader.prefixed()?;
    let others = reader.list(|reader| reader.prefixed().map(|_| ()))?;
    let columns = reader.columns()?;
    Some((columns, Limits { items: CHANGE_ITEMS_MAX, actors: others.checked_add(1)? }))
}

fn document(mut reader: Reader<'_>) -> Option<()> {
    let actors = reader.list(|reader| reader.prefixed().map(|_| ()))?;
    let heads = reader.unsigned()?;
    reader.take(heads.checked_mul(32)?)?;
    let columns = [reader.columns()?, reader.columns()?].concat();
    let limits = Limits { items: DOCUMENT_ITEMS_MAX, actors };
    columns.iter().try_for_each(|column| reader.column(*column, &limits))
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    pub specification: u64,
    pub length: u64,
}

impl Column {
    fn kind(self) -> u64 {
        self.specification & 7
    }
}

struct Limits {
    items: u64,
    actors: u64,
}

const DEFLATED: u64 = 8;
const GROUP: u64 = 0;
const ACTOR: u64 = 1;
const INTEGER: u64 = 2;
const DELTA: u64 = 3;
const BOOLEAN: u64 = 4;
const STRING: u64 = 5;
const VALUE_METADATA: u64 = 6;

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Of nothing.
    pub const EMPTY: Reader<'static> = Reader { bytes: &[] };

    /// Whether there is no more.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub fn take(&mut self, length: u64) -> Option<&'a [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(usize::try_from(length).ok()?)?;
        self.bytes = rest;
        Some(taken)
    }

    pub fn unsigned(&mut self) -> Option<u64> {
        let mut number: u64 = 0;
        for shift in (0..64).step_by(7) {
            let byte = *self.bytes.split_off_first()?;
            let bits = u64::from(byte & 0x7f);
            number |= bits.checked_mul(1 << shift)?;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    pub fn signed(&mut self) -> Option<i64> {
        let mut number: i64 = 0;
        for shift in (0..64).step_by(7) {
            let byte = *self.bytes.split_off_first()?;
            number |= i64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                let unused = 64u32.saturating_sub(shift + 7);
                return Some(number << unused >> unused);
            }
        }
        None
    }

    fn prefixed(&mut self) -> Option<&'a [u8]> {
        let length = self.unsigned()?;
        self.take(length)
    }

    pub fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.prefixed()?).ok()
    }

    /// All values of a column of runs. To be called on a column whose items have been counted.
    pub fn expand<T: Copy>(mut self, mut value: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<Option<T>>> {
        let mut values = Vec::new();
        while !self.bytes.is_empty() {
            match self.signed()? {
                0 => values.resize(values.len().checked_add(usize::try_from(self.unsigned()?).ok()?)?, None),
                count @ 1.. => {
                    let repeated = Some(value(&mut self)?);
                    values.resize(values.len().checked_add(usize::try_from(count).ok()?)?, repeated);
                }
                count => {
                    for _ in 0..count.unsigned_abs() {
                        values.push(Some(value(&mut self)?));
                    }
                }
            }
        }
        Some(values)
    }

    /// Whether all items of a column are null or false.
    pub fn is_unused(mut self, column: Column) -> Option<()> {
        while !self.bytes.is_empty() {
            match column.kind() {
                // False comes first, and true would come next.
                BOOLEAN => self.unsigned().filter(|_| self.bytes.is_empty())?,
                _ => self.signed().filter(|count| *count == 0).and_then(|_| self.unsigned())?,
            };
        }
        Some(())
    }

    fn list(&mut self, mut item: impl FnMut(&mut Self) -> Option<()>) -> Option<u64> {
        let count = self.unsigned()?;
        // Each item takes at least a byte: no count makes this longer than the bytes are.
        (0..count).try_for_each(|_| item(self))?;
        Some(count)
    }

    fn columns(&mut self) -> Option<Vec<Column>> {
        let mut columns = Vec::new();
        self.list(|reader| {
            let (specification, length) = (reader.unsigned()?, reader.unsigned()?);
            columns.push(Column { specification, length });
            (specification & DEFLATED == 0).then_some(())
        })?;
        Some(columns)
    }

    /// Goes past a column's data, if it keeps the limits.
    fn column(&mut self, column: Column, limits: &Limits) -> Option<()> {
        let mut data = Reader { bytes: self.take(column.length)? };
        match column.kind() {
            BOOLEAN => data.booleans(limits.items),
            GROUP..=VALUE_METADATA => data.runs(column.kind(), limits),
            // Raw values: as long as they are.
            _ => Some(()),
        }
    }

    fn booleans(&mut self, items_max: u64) -> Option<()> {
        let mut items: u64 = 0;
        while !self.bytes.is_empty() {
            items = items.checked_add(self.unsigned()?)?;
        }
        (items <= items_max).then_some(())
    }

    fn runs(&mut self, kind: u64, limits: &Limits) -> Option<()> {
        let (mut items, mut members): (u64, u64) = (0, 0);
        while !self.bytes.is_empty() {
            let (values, repeated) = match self.signed()? {
                0 => (0, self.unsigned()?),
                count @ 1.. => (1, count as u64),
                count => (count.unsigned_abs(), 1),
            };
            items = items.checked_add(repeated.checked_mul(values.max(1))?)?;
            if items > limits.items {
                return None;
            }
            for _ in 0..values {
                let value = self.run_value(kind)?;
                if kind == ACTOR && value >= limits.actors {
                    return None;
                }
                if kind == GROUP {
                    members = members.checked_add(value.checked_mul(repeated)?)?;
                }
            }
        }
        (members <= limits.items).then_some(())
    }

    /// One value of a run; 0 for those whose size does not matter.
    fn run_value(&mut self, kind: u64) -> Option<u64> {
        match kind {
            STRING => self.prefixed().map(|_| 0),
            DELTA => self.signed().map(|_| 0),
            GROUP | ACTOR | INTEGER | VALUE_METADATA => self.unsigned(),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wrapped(chunk_type: u8, content: &[u8]) -> Vec<u8> {
        let mut bytes = [&MAGIC[..], &[0; 4], &[chunk_type]].concat();
        let mut length = content.len();
        while length >= 0x80 {
            bytes.push(length as u8 | 0x80);
            length >>= 7;
        }
        bytes.push(length as u8);
        [&bytes, content].concat()
    }

    /// A change without dependencies, by an actor of one byte, with one column.
    fn with_column(specification: u8, data: &[u8]) -> Vec<u8> {
        wrapped(1, &[&[0, 1, 7, 1, 1, 0, 0, 0, 1, specification, data.len() as u8], data].concat())
    }

    #[test]
    fn counts_that_few_bytes_can_spell_are_refused() {
        let million = [0xc0, 0x84, 0x3d];
        let run = |value: &[u8]| [&million[..], value].concat();
        assert!(is_sound_change(&with_column(0x42, &[2, 1])), "two puts");
        assert!(!is_sound_change(&with_column(0x42, &run(&[1]))), "a million puts");
        assert!(!is_sound_change(&with_column(0x42, &[&[0], &million[..]].concat())), "a million times nothing");
        assert!(!is_sound_change(&with_column(0x34, &million)), "a million times false");
        assert!(!is_sound_change(&with_column(0x13, &run(&[1]))), "a million times one more");
        assert!(!is_sound_change(&with_column(0x70, &[&[1], &million[..]].concat())), "a group of a million");
        assert!(!is_sound_change(&with_column(0x42, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 1])));
    }

    #[test]
    fn actors_must_be_listed_and_nothing_may_be_deflated() {
        assert!(is_sound_change(&with_column(0x01, &[1, 0])));
        assert!(!is_sound_change(&with_column(0x01, &[1, 1])), "an actor beyond the list");
        assert!(!is_sound_change(&with_column(0x4a, &[2, 1])), "a deflated column");
        assert!(!is_sound_change(&wrapped(2, &[0, 1, 7, 1, 1, 0, 0, 0, 0])), "a deflated change");
        assert!(!is_sound_document(&wrapped(1, &[0, 1, 7, 1, 1, 0, 0, 0, 0])), "no document");
    }

    #[test]
    fn numbers_are_read_as_they_are_written() {
        let signed = |bytes: &[u8]| Reader { bytes }.signed();
        assert_eq!(signed(&[0x7f]), Some(-1));
        assert_eq!(signed(&[0x3f]), Some(63));
        assert_eq!(signed(&[0x80, 0x7f]), Some(-128));
        assert_eq!(signed(&[0x80]), None);
        let unsigned = |bytes: &[u8]| Reader { bytes }.unsigned();
        assert_eq!(unsigned(&[0xe5, 0x8e, 0x26]), Some(624_485));
        assert_eq!(unsigned(&[0xff; 10]), None);
        assert_eq!(unsigned(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]), Some(u64::MAX));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(content in prop::collection::vec(any::<u8>(), 0..80), chunk_type in 0u8..2) {
            let bytes = wrapped(chunk_type, &content);
            is_sound_change(&bytes);
            is_sound_document(&bytes);
        }
    }
}
