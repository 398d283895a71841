//! A saved document, read without automerge.
//!
//! To decode a document, automerge makes every change of its history anew, to see that they are those that the heads name. That takes some ten microseconds
//! a change, and a node that joins, or starts again, has a million of them before it that nobody may ever ask for. What such a document *holds* stands in its
//! columns, and reading those takes less than a microsecond an entry. So this reads, and automerge decodes when a change comes.
//!
//! Here a document is held to all that can be seen in it: its checksum, that every operation puts bytes under a key of one of the maps, or was
//! overtaken by one that did so under the same key, or by a removal of it. What cannot be seen is whether the history's hashes are those of the heads.
//! Whoever decodes the document sees that; a document that says otherwise was not damaged on its way, but made so. One that this
//! cannot make out is for automerge to judge.

use std::collections::HashMap;

use sha2::{Digest, Sha256};

use crate::{
    chunk::{Column, Reader, is_sound_document, rows_of},
    document::{ENTRY_BYTES_MAX, Genesis, KEY_BYTES_MAX, MapIndex},
    id::Origin,
};

/// What a saved document holds.
#[derive(Debug)]
pub(crate) struct Saved<'a> {
    /// The hashes of the changes that no other follows, sorted.
    pub heads: Vec<[u8; 32]>,
    /// The entries that stand, those of one key beside each other, the winner last.
    pub entries: Vec<SavedEntry<'a>>,
}

/// A value that a map has for a key, and whose it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct SavedEntry<'a> {
    pub map: MapIndex,
    pub key: &'a str,
    pub bytes: &'a [u8],
    pub origin: Origin,
}

/// An operation's number, and its actor's place in the document's list, which is in the order of actors.
type OperationId = (u64, u64);

impl<'a> Saved<'a> {
    /// Reads a document of this kind. `None` if it is none, or one that this cannot make out.
    pub fn read(genesis: &Genesis, saved: &'a [u8]) -> Option<Saved<'a>> {
        Saved::read_with_past(genesis, saved, |_| ())
    }

    /// The same, and tells of the entries that stand no more.
    pub fn read_with_past(genesis: &Genesis, saved: &'a [u8], mut past: impl FnMut(SavedEntry<'a>)) -> Option<Saved<'a>> {
        let summed = saved.get(8..)?;
        if !is_sound_document(saved) || saved.get(4..8) != Sha256::digest(summed).get(..4) {
            return None;
        }
        let head = rows_of(saved)?;
        let own = head.actors.iter().position(|actor| *actor == genesis.actor_bytes())? as u64;
        let origins: Vec<Option<Origin>> = head.actors.iter().map(|actor| Origin::from_bytes(actor)).collect();
        let mut found = [const { Reader::EMPTY }; COLUMNS.len()];
        for (column, data) in head.columns {
            match COLUMNS.iter().position(|known| *known == column.specification) {
                Some(place) => found[place] = data,
                // Keys of sequences, insertions and marks: there, but never used.
                None => data.is_unused(column)?,
            }
        }
        let rows = Rows::expand(found)?;
        let mut entries = Vec::with_capacity(rows.count);
        let (mut made, mut last, mut values, mut overtaken) = (0, None, rows.values, Overtaken::default());
        let mut successors = rows.successors.into_iter();
        for at in 0..rows.count {
            let id: OperationId = (rows.numbers[at]?, rows.actors[at]?);
            let (key, metadata) = (rows.keys[at]?, rows.metadata[at]?);
            let bytes = values.take(metadata >> 4)?;
            let successors: Vec<OperationId> = successors.by_ref().take(usize::try_from(rows.groups[at]?).ok()?).collect();
            let (Some(maker), Some(object)) = (rows.object_actors[at], rows.objects[at]) else {
                // The genesis makes the maps, in their order, and nobody else anything there.
                made += 1;
                let makes = rows.actions[at]? == MAKE_MAP && id == (made, own) && successors.is_empty() && last.is_none();
                makes.then_some(())?;
                continue;
            };
            let map = usize::try_from(object.checked_sub(1)?).ok()?;
            let puts = rows.actions[at]? == PUT && metadata & 15 == BYTES && maker == own && map < genesis.map_count();
            let fits = key.len() <= KEY_BYTES_MAX && bytes.len() <= ENTRY_BYTES_MAX;
            // In order, so that an entry is there once, and a key's stand beside each other.
            let place = (map, key, id);
            let follows = last.replace(place).is_none_or(|last| last < place);
            (puts && fits && follows).then_some(())?;
            let origin = origins[usize::try_from(id.1).ok()?]?;
            overtaken.put(id, (map, key));
            for successor in &successors {
                (*successor > id && origins[usize::try_from(successor.1).ok()?].is_some()).then_some(())?;
                overtaken.overtake(*successor, (map, key))?;
            }
            let entry = SavedEntry { map, key, bytes, origin };
            if successors.is_empty() { entries.push(entry) } else { past(entry) }
        }
        let whole = made as usize == genesis.map_count() && values.is_empty() && successors.next().is_none();
        (whole && overtaken.agree()).then_some(Saved { heads: head.heads, entries })
    }
}

/// What operations that overtook others were about.
#[derive(Default)]
struct Overtaken<'a> {
    by: HashMap<OperationId, (MapIndex, &'a str)>,
    puts: Vec<(OperationId, (MapIndex, &'a str))>,
}

impl<'a> Overtaken<'a> {
    fn put(&mut self, id: OperationId, key: (MapIndex, &'a str)) {
        self.puts.push((id, key));
    }

    /// `None` if it is about another key, too.
    fn overtake(&mut self, by: OperationId, key: (MapIndex, &'a str)) -> Option<()> {
        (*self.by.entry(by).or_insert(key) == key).then_some(())
    }

    /// Whether each put that overtook others put to their key.
    fn agree(&self) -> bool {
        self.by.is_empty() || self.puts.iter().all(|(id, key)| self.by.get(id).is_none_or(|overtaken| overtaken == key))
    }
}

/// The columns of a document's operations, row by row.
struct Rows<'a> {
    count: usize,
    object_actors: Vec<Option<u64>>,
    objects: Vec<Option<u64>>,
    keys: Vec<Option<&'a str>>,
    actors: Vec<Option<u64>>,
    numbers: Vec<Option<u64>>,
    actions: Vec<Option<u64>>,
    metadata: Vec<Option<u64>>,
    values: Reader<'a>,
    groups: Vec<Option<u64>>,
    successors: Vec<OperationId>,
}

impl<'a> Rows<'a> {
    fn expand(found: [Reader<'a>; COLUMNS.len()]) -> Option<Rows<'a>> {
        let [object_actors, objects, keys, actors, numbers, actions, metadata, values, groups, successor_actors, successor_numbers] = found;
        let actions = actions.expand(Reader::unsigned)?;
        let count = actions.len();
        let successors: Option<Vec<OperationId>> = deltas(successor_numbers)?
            .into_iter()
            .zip(successor_actors.expand(Reader::unsigned)?)
            .map(|(number, actor)| Some((number?, actor?)))
            .collect();
        // A column with nothing in it is left out.
        let numbers_of = |column: Reader<'a>, absent| match column.is_empty() {
            true => Some(vec![absent; count]),
            false => column.expand(Reader::unsigned),
        };
        let rows = Rows {
            count,
            object_actors: numbers_of(object_actors, None)?,
            objects: numbers_of(objects, None)?,
            keys: keys.expand(Reader::text)?,
            actors: actors.expand(Reader::unsigned)?,
            numbers: deltas(numbers)?,
            actions,
            metadata: numbers_of(metadata, Some(0))?,
            values,
            groups: numbers_of(groups, Some(0))?,
            successors: successors?,
        };
        let lengths = [
            rows.object_actors.len(),
            rows.objects.len(),
            rows.keys.len(),
            rows.actors.len(),
            rows.numbers.len(),
            rows.metadata.len(),
            rows.groups.len(),
        ];
        (lengths == [count; 7]).then_some(rows)
    }
}

/// A column of numbers, each told by what it is more than the one before.
fn deltas(column: Reader<'_>) -> Option<Vec<Option<u64>>> {
    let mut number: i64 = 0;
    let steps = column.expand(Reader::signed)?.into_iter().map(|step| {
        number = number.checked_add(step?)?;
        u64::try_from(number).ok()
    });
    Some(steps.collect())
}

/// Object (actor, number), key, the operation's actor and number, action, the value's type with its length, and its bytes, and of the operations that
/// overtook it how many there are, and the actor and number of each.
const COLUMNS: [u64; 11] = [0x01, 0x02, 0x15, 0x21, 0x23, 0x42, 0x56, 0x57, 0x80, 0x81, 0x83];

const MAKE_MAP: u64 = 0;
const PUT: u64 = 1;
const BYTES: u64 = 7;

/// A document up to its operations: see [`rows_of`].
pub(crate) struct Head<'a> {
    pub actors: Vec<&'a [u8]>,
    pub heads: Vec<[u8; 32]>,
    pub columns: Vec<(Column, Reader<'a>)>,
}
