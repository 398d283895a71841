//! How a node's state is written to rows of its store, and read back. The format's version is in [`FORMAT`].
//!
//! Origins are named by their index, which is itself a row and never changes; everything else is CBOR.

use std::sync::Arc;

use minicbor::{Decoder, Encoder, data::Type};

use crate::{
    definition::Definition,
    frontier::{DotIx, Dots, OriginIx},
    id::{Plane, SectionId},
    path::Path,
    persist::{Row, Table},
    registers::{Stored, Write},
    section::Graves,
    series::{EventIx, ValueKey},
    stamp::{Rank, Stamp},
    tree::{Removal, TreeRecord},
};

/// The version of the rows' format; a store with a newer one is refused.
pub const FORMAT: u32 = 1;

/// A row that cannot be read. The store's checksum was right, so another version or a bug wrote it.
#[derive(Debug, thiserror::Error)]
#[error("the row {key:02x?} of table `{}` cannot be read: {why}", table.name())]
pub struct BadRow {
    /// Its table.
    pub table: Table,
    /// Its key.
    pub key: Vec<u8>,
    /// What is wrong.
    pub why: String,
}

type Result<T> = std::result::Result<T, minicbor::decode::Error>;

/// The key of a feed's row.
pub fn feed_key(section: SectionId, plane: Plane, origin: OriginIx) -> Vec<u8> {
    [&section.0.to_be_bytes()[..], &[plane as u8], &origin.0.to_be_bytes()].concat()
}

/// The key of a register's row: values name their topic, standing records bring their own key.
pub fn register_key(section: SectionId, plane: Plane, key: &[u8]) -> Vec<u8> {
    [&section.0.to_be_bytes()[..], &[plane as u8], key].concat()
}

/// A topic's part of a register's key.
pub fn topic_key(topic: DotIx) -> [u8; 12] {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&topic.origin.0.to_be_bytes());
    key[4..].copy_from_slice(&topic.number.to_be_bytes());
    key
}

/// A value's part of a register's key: its topic, and for an event its sequence and origin.
pub fn value_key(key: ValueKey) -> Vec<u8> {
    let mut bytes = topic_key(key.topic()).to_vec();
    if let Some(EventIx { sequence, origin }) = key.as_event() {
        bytes.extend(sequence.to_be_bytes());
        bytes.extend(origin.0.to_be_bytes());
    }
    bytes
}

/// The key of a document's row.
pub fn document_key(section: SectionId, document: u16) -> Vec<u8> {
    [&section.0.to_be_bytes()[..], &document.to_be_bytes()].concat()
}

/// The key of a tree record's row.
pub fn record_key(section: SectionId, dot: DotIx) -> Vec<u8> {
    [&section.0.to_be_bytes()[..], &topic_key(dot)].concat()
}

/// Splits a section off a key.
pub fn split_section(key: &[u8]) -> Option<(SectionId, &[u8])> {
    let (section, rest) = key.split_first_chunk::<8>()?;
    Some((SectionId(u64::from_be_bytes(*section)), rest))
}

/// Splits a plane off what [`split_section`] left.
pub fn split_plane(key: &[u8]) -> Option<(Plane, &[u8])> {
    let (plane, rest) = key.split_first()?;
    Some((*Plane::ALL.get(usize::from(*plane))?, rest))
}

/// Reads what [`topic_key`] wrote.
pub fn parse_topic(key: &[u8]) -> Option<DotIx> {
    let (origin, number) = key.split_first_chunk::<4>()?;
    let number: [u8; 8] = number.try_into().ok()?;
    Some(DotIx { origin: OriginIx(u32::from_be_bytes(*origin)), number: u64::from_be_bytes(number) })
}

/// Reads what [`value_key`] wrote.
pub fn parse_value_key(key: &[u8]) -> Option<ValueKey> {
    let (topic, event) = key.split_at_checked(12)?;
    let topic = parse_topic(topic)?;
    if event.is_empty() {
        return Some(topic.into());
    }
    let (sequence, origin) = event.split_first_chunk::<8>()?;
    let event = EventIx { sequence: u64::from_be_bytes(*sequence), origin: OriginIx(u32::from_be_bytes(origin.try_into().ok()?)) };
    (event.sequence > 0).then(|| ValueKey::event(topic, event))
}

/// A row that puts a value.
pub fn put(table: Table, key: Vec<u8>, value: Vec<u8>) -> Row {
    Row { table, key, value: Some(value) }
}

/// A feed's row.
pub fn encode_feed(frontier: u64, floor: u64) -> Vec<u8> {
    encode(|e| e.array(2)?.u64(frontier)?.u64(floor)?.ok())
}

/// Reads [`encode_feed`].
pub fn decode_feed(bytes: &[u8]) -> Result<(u64, u64)> {
    let mut d = Decoder::new(bytes);
    array(&mut d, 2)?;
    Ok((d.u64()?, d.u64()?))
}

/// A register's row.
pub fn encode_register(write: &Write, entries: &Dots) -> Vec<u8> {
    let Write { dot, stamp, seen, time_ms, value } = write;
    // As long as it becomes: a million of these may wait for the store at once.
    let bytes = Vec::with_capacity(STORED_BYTES + value.as_ref().map_or(0, |value| value.len()));
    encode_onto(bytes, |e| {
        e.array(9)?.u32(dot.origin.0)?.u64(dot.number)?.u64(stamp.epoch)?;
        match &stamp.rank {
            Some(rank) => e.encode(rank.as_ref())?,
            None => e.null()?,
        };
        e.u64(stamp.seq)?.u64(*time_ms)?;
        match value {
            Some(value) => e.bytes(value)?,
            None => e.null()?,
        };
        dots(e, seen)?;
        dots(e, entries)?;
        Ok(())
    })
}

/// Reads [`encode_register`].
pub fn decode_register(bytes: &[u8]) -> Result<Stored> {
    let mut d = Decoder::new(bytes);
    array(&mut d, 9)?;
    let dot = DotIx { origin: OriginIx(d.u32()?), number: d.u64()? };
    let epoch = d.u64()?;
    let rank: Option<Rank> = d.decode()?;
    let stamp = Stamp { epoch, rank: rank.map(Arc::new), seq: d.u64()? };
    let time_ms = d.u64()?;
    let value = match d.datatype()? {
        Type::Null => {
            d.null()?;
            None
        }
        _ => Some(d.bytes()?.into()),
    };
    let seen = read_dots(&mut d)?;
    let entries = read_dots(&mut d)?;
    Ok(Stored { write: Write { dot, stamp, seen, time_ms, value }, entries })
}

/// A document's row.
pub fn encode_document(saved: &[u8], held: &[DotIx]) -> Vec<u8> {
    encode(|e| {
        e.array(2)?.bytes(saved)?;
        dots(e, held)
    })
}

/// Reads [`encode_document`].
pub fn decode_document(bytes: &[u8]) -> Result<(Vec<u8>, Dots)> {
    let mut d = Decoder::new(bytes);
    array(&mut d, 2)?;
    Ok((d.bytes()?.to_vec(), read_dots(&mut d)?))
}

/// A tree record's row; its number is in the key. Beside each removal stands where its topic was and what that held, which its change does
/// not tell, for a write that comes after a restart and that the remover had not seen.
pub(crate) fn encode_record(record: &TreeRecord, graves: &Graves) -> Vec<u8> {
    encode(|e| {
        e.array(4)?.u64(record.after)?.u16(record.document)?.bytes(&record.change)?;
        e.array(record.removals.len() as u64)?;
        for removal in &record.removals {
            let grave = graves.get(&removal.topic);
            e.array(5)?.u32(removal.topic.origin.0)?.u64(removal.topic.number)?;
            dots(e, &removal.seen)?;
            match grave.and_then(|grave| grave.path.as_ref()) {
                Some(path) => e.encode(path)?,
                None => e.null()?,
            };
            match grave.and_then(|grave| grave.definition.as_ref()) {
                Some(definition) => e.bytes(&definition.to_bytes())?,
                None => e.null()?,
            };
        }
        Ok(())
    })
}

/// What is known of a topic that was removed: where it was, and what it held.
pub(crate) type Buried = (Option<Path>, Option<Definition>);

/// Reads [`encode_record`]: the record, and what is known of the topic of each of its removals.
pub(crate) fn decode_record(number: u64, bytes: &[u8]) -> Result<(TreeRecord, Vec<Buried>)> {
    let mut d = Decoder::new(bytes);
    array(&mut d, 4)?;
    let (after, document, change) = (d.u64()?, d.u16()?, d.bytes()?.into());
    let count = d.array()?.unwrap_or(0);
    let (mut removals, mut buried) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let fields = d.array()?;
        let topic = DotIx { origin: OriginIx(d.u32()?), number: d.u64()? };
        removals.push(Removal { topic, seen: read_dots(&mut d)? });
        buried.push(match fields {
            Some(3) => (None, None), // as it was first written
            Some(5) => {
                let path: Option<Path> = d.decode()?;
                let definition: Option<&minicbor::bytes::ByteSlice> = d.decode()?;
                let definition = definition.map(|bytes| Definition::from_bytes(bytes)).transpose();
                (path, definition.map_err(|error| minicbor::decode::Error::message(error.to_string()))?)
            }
            _ => return Err(minicbor::decode::Error::message("a removal of another length")),
        });
    }
    Ok((TreeRecord { number, after, document, change, removals }, buried))
}

type EncodeResult = std::result::Result<(), minicbor::encode::Error<std::convert::Infallible>>;
type VecEncoder<'a> = Encoder<&'a mut Vec<u8>>;

/// About what a register's row takes beside the value.
const STORED_BYTES: usize = 56;

fn encode(write: impl FnOnce(&mut VecEncoder<'_>) -> EncodeResult) -> Vec<u8> {
    encode_onto(Vec::new(), write)
}

fn encode_onto(mut bytes: Vec<u8>, write: impl FnOnce(&mut VecEncoder<'_>) -> EncodeResult) -> Vec<u8> {
    // Writing to a vector cannot fail, and nothing here refuses to be encoded.
    write(&mut Encoder::new(&mut bytes)).expect("encoding to memory");
    bytes
}

fn dots(e: &mut VecEncoder<'_>, dots: &[DotIx]) -> EncodeResult {
    e.array(dots.len() as u64 * 2)?;
    for dot in dots {
        e.u32(dot.origin.0)?.u64(dot.number)?;
    }
    Ok(())
}

fn read_dots(d: &mut Decoder<'_>) -> Result<Dots> {
    let count = d.array()?.unwrap_or(0) / 2;
    (0..count).map(|_| Ok(DotIx { origin: OriginIx(d.u32()?), number: d.u64()? })).collect()
}

fn array(d: &mut Decoder<'_>, len: u64) -> Result<()> {
    if d.array()? != Some(len) {
        return Err(minicbor::decode::Error::message(format!("expected an array of {len}")));
    }
    Ok(())
}
