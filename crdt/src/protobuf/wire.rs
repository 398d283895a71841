//! The look through a value's bytes, before anything is made of them.
//!
//! The library's own decoder names no place, does not ask for required fields, and takes memory in proportion to what a value says instead of to how long it is. So each value is first
//! walked through here: nothing is kept of it, every step is paid for from a purse, and what is wrong is told with its place. What passes, the library decodes and shows.

use std::{
    collections::{BTreeMap, BTreeSet},
    str,
};

use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor};

use super::{ANY, CHECKED_BY_SHOWING, COST_MAX, DEPTH_MAX};

/// What a message, a field, an element of a packed list may take, decoded and as JSON: bytes, or what takes as long to work through.
const MESSAGE_COST: u64 = 1_024;
const FIELD_COST: u64 = 320;
const PACKED_COST: u64 = 192;
/// What each field that a message *could* have takes: the library asks for all of them when it shows the message, and for all of a `oneof` when it sets one.
const DECLARED_COST: u64 = 16;

/// What is wrong with a value, and where: a JSON pointer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) at: String,
    pub(super) why: String,
}

impl Wrong {
    pub(super) fn new(why: impl Into<String>) -> Wrong {
        Wrong { at: String::new(), why: why.into() }
    }

    /// The same, seen from around the given step.
    fn within(mut self, step: &str) -> Wrong {
        self.at.insert_str(0, &pointer_step(step));
        self
    }
}

/// One step of a JSON pointer (RFC 6901).
pub(super) fn pointer_step(step: &str) -> String {
    format!("/{}", step.replace('~', "~0").replace('/', "~1"))
}

/// The fields that a message must have, by the message's name: number, and name in JSON.
pub(super) type Required = BTreeMap<String, Vec<(u32, String)>>;

/// A walk through one value.
pub(super) struct Walk<'a> {
    pub(super) pool: &'a DescriptorPool,
    pub(super) required: &'a Required,
    /// What may still be spent.
    purse: u64,
    /// Whether this is part of something that is checked by showing it whole.
    shown: bool,
}

impl<'a> Walk<'a> {
    pub(super) fn new(pool: &'a DescriptorPool, required: &'a Required) -> Walk<'a> {
        Walk { pool, required, purse: COST_MAX, shown: false }
    }

    /// That the bytes are a message.
    pub(super) fn message(&mut self, message: &MessageDescriptor, bytes: &[u8]) -> Result<(), Wrong> {
        self.whole(message, Wire { bytes, at: 0 }, DEPTH_MAX)
    }

    /// That what is left is a message.
    fn whole(&mut self, message: &MessageDescriptor, mut wire: Wire<'_>, depth: usize) -> Result<(), Wrong> {
        let start = wire;
        let name = message.full_name();
        let by_showing = !self.shown && CHECKED_BY_SHOWING.contains(&name);
        self.shown |= by_showing;
        self.fields(message, &mut wire, None, depth)?;
        if by_showing {
            self.shown = false;
            let decoded = DynamicMessage::decode(message.clone(), start.rest()).map_err(|error| Wrong::new(error.to_string()))?;
            serde_json::to_writer(std::io::sink(), &decoded).map_err(|error| Wrong::new(error.to_string()))?;
        }
        if name == ANY && !self.shown { self.any(start, depth) } else { Ok(()) }
    }

    /// That an `Any` holds a message of a type that is known here.
    fn any(&mut self, mut wire: Wire<'_>, depth: usize) -> Result<(), Wrong> {
        let (mut url, mut inner) = ("", Wire { bytes: &[], at: 0 });
        while !wire.is_empty() {
            match wire.key()? {
                (1, DELIMITED) => url = wire.delimited()?.text()?,
                (2, DELIMITED) => inner = wire.delimited()?,
                (number, kind) => self.skip(&mut wire, number, kind, depth)?,
            }
        }
        // What it holds is decoded apart, beside the bytes of it.
        self.pay(inner.rest().len() as u64)?;
        let known = url.rsplit_once('/').and_then(|(_, name)| self.pool.get_message_by_name(name));
        let known = known.ok_or_else(|| Wrong::new(format!("{url:?} names no message of the definition")).within("@type"))?;
        self.whole(&known, inner, deeper(depth)?)
    }

    /// That the fields up to the end, or to the end of a group, are those of a message.
    fn fields(&mut self, message: &MessageDescriptor, wire: &mut Wire<'_>, group: Option<u32>, depth: usize) -> Result<(), Wrong> {
        self.pay(MESSAGE_COST + DECLARED_COST * message.fields().len() as u64)?;
        let start = *wire;
        let required = self.required.get(message.full_name()).map_or([].as_slice(), Vec::as_slice);
        let mut seen = BTreeSet::new();
        loop {
            if wire.is_empty() && group.is_none() {
                break;
            }
            let before = wire.at;
            let (number, kind) = wire.key()?;
            if kind == GROUP_END {
                match group == Some(number) {
                    true => break,
                    false => return Err(wire.wrong("the end of a group that has not begun")),
                }
            }
            let Some(field) = message.get_field(number) else {
                self.pay(FIELD_COST)?;
                self.skip(wire, number, kind, depth)?;
                continue;
            };
            let oneof = field.containing_oneof().map_or(0, |oneof| oneof.fields().len());
            self.pay(FIELD_COST + DECLARED_COST * oneof as u64)?;
            let part = matches!(field.kind(), Kind::Message(_)) && !field.is_list() && !field.is_map();
            let again = (part || required.iter().any(|(required, _)| *required == number)) && !seen.insert(number);
            match again && part {
                true => Err(Wrong::new("it is given twice")),
                false => self.field(&field, wire, kind, depth, || start.count(before, &field)),
            }
            .map_err(|wrong| wrong.within(field.json_name()))?;
        }
        match required.iter().find(|(number, _)| !seen.contains(number)) {
            Some((_, name)) => Err(Wrong::new("it is missing").within(name)),
            None => Ok(()),
        }
    }

    /// That what follows the key is a value of the field; `before` says of how many elements of its list it has already been.
    fn field(
        &mut self,
        field: &FieldDescriptor,
        wire: &mut Wire<'_>,
        given: u8,
        depth: usize,
        before: impl Fn() -> usize,
    ) -> Result<(), Wrong> {
        let kind = field.kind();
        let expected = if field.is_group() && !field.is_map() { GROUP } else { wire_kind(&kind) };
        if field.is_list() && given == DELIMITED && expected != GROUP && expected != DELIMITED {
            let mut packed = wire.delimited()?;
            let mut index = 0;
            while !packed.is_empty() {
                self.pay(PACKED_COST)?;
                packed.scalar(&kind).map_err(|wrong| wrong.within(&(before() + index).to_string()))?;
                index += 1;
            }
            return Ok(());
        }
        if given != expected {
            return Err(wire.wrong(&format!("a {} where one of {} belongs", kind_name(given), kind_name(expected))));
        }
        if field.is_map() {
            let entry = wire.delimited()?;
            return self.entry(&kind, entry, depth).map_err(|wrong| match entry.map_key(&kind) {
                Some(key) => wrong.within(&key),
                None => wrong,
            });
        }
        let checked = match &kind {
            Kind::Message(message) if expected == GROUP => self.fields(message, wire, Some(field.number()), deeper(depth)?),
            Kind::Message(message) => self.whole(message, wire.delimited()?, deeper(depth)?),
            scalar => wire.scalar(scalar),
        };
        checked.map_err(|wrong| if field.is_list() { wrong.within(&before().to_string()) } else { wrong })
    }

    /// That the bytes are a key and a value of a map.
    fn entry(&mut self, map: &Kind, mut wire: Wire<'_>, depth: usize) -> Result<(), Wrong> {
        let Kind::Message(entry) = map else { return Err(wire.wrong("no map")) };
        self.pay(MESSAGE_COST)?;
        let mut has_message = false;
        while !wire.is_empty() {
            let (number, given) = wire.key()?;
            let Some(field) = entry.get_field(number) else {
                self.skip(&mut wire, number, given, depth)?;
                continue;
            };
            let is_message = matches!(field.kind(), Kind::Message(_));
            if is_message && std::mem::replace(&mut has_message, true) {
                return Err(wire.wrong("it is given twice"));
            }
            self.field(&field, &mut wire, given, depth, || 0)?;
        }
        // A value that is not written is an empty one, and an empty message may lack something.
        match entry.map_entry_value_field().kind() {
            Kind::Message(message) if !has_message => self.whole(&message, Wire { bytes: &[], at: 0 }, deeper(depth)?),
            _ => Ok(()),
        }
    }

    /// Passes over a field that the message does not have.
    fn skip(&mut self, wire: &mut Wire<'_>, number: u32, kind: u8, depth: usize) -> Result<(), Wrong> {
        if kind != GROUP {
            return wire.skip(kind);
        }
        let depth = deeper(depth)?;
        loop {
            self.pay(FIELD_COST)?;
            match wire.key()? {
                (end, GROUP_END) if end == number => return Ok(()),
                (inner, kind) => self.skip(wire, inner, kind, depth)?,
            }
        }
    }

    fn pay(&mut self, cost: u64) -> Result<(), Wrong> {
        self.purse =
            self.purse.checked_sub(cost).ok_or_else(|| Wrong::new("it has too many parts: its JSON would not be held in memory"))?;
        Ok(())
    }
}

/// One level less.
fn deeper(depth: usize) -> Result<usize, Wrong> {
    depth.checked_sub(1).ok_or_else(|| Wrong::new(format!("messages nest at most {DEPTH_MAX} deep")))
}

/// How something stands on the wire: the lowest three bits of a key.
const VARINT: u8 = 0;
const EIGHT: u8 = 1;
const DELIMITED: u8 = 2;
const GROUP: u8 = 3;
const GROUP_END: u8 = 4;
const FOUR: u8 = 5;

fn wire_kind(kind: &Kind) -> u8 {
    match kind {
        Kind::Double | Kind::Fixed64 | Kind::Sfixed64 => EIGHT,
        Kind::Float | Kind::Fixed32 | Kind::Sfixed32 => FOUR,
        Kind::String | Kind::Bytes | Kind::Message(_) => DELIMITED,
        Kind::Int32 | Kind::Int64 | Kind::Uint32 | Kind::Uint64 | Kind::Sint32 | Kind::Sint64 | Kind::Bool | Kind::Enum(_) => VARINT,
    }
}

fn kind_name(kind: u8) -> &'static str {
    match kind {
        VARINT => "varint",
        EIGHT => "8-byte number",
        DELIMITED => "length with bytes",
        GROUP => "group",
        FOUR => "4-byte number",
        _ => "end of a group",
    }
}

/// Bytes that are read from their beginning; each slice knows where in the value it lies.
#[derive(Clone, Copy)]
struct Wire<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Wire<'a> {
    fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn rest(&self) -> &'a [u8] {
        self.bytes
    }

    fn wrong(&self, why: &str) -> Wrong {
        Wrong::new(format!("{why}, at byte {}", self.at))
    }

    fn take(&mut self, length: usize) -> Result<Wire<'a>, Wrong> {
        let (taken, rest) = self.bytes.split_at_checked(length).ok_or_else(|| self.wrong("the bytes end too early"))?;
        let taken = Wire { bytes: taken, at: self.at };
        *self = Wire { bytes: rest, at: self.at + length };
        Ok(taken)
    }

    fn varint(&mut self) -> Result<u64, Wrong> {
        let mut number = 0;
        for (index, &byte) in self.bytes.iter().take(10).enumerate() {
            if index == 9 && byte > 1 {
                break;
            }
            number |= u64::from(byte & 0x7f) << (7 * index);
            if byte < 0x80 {
                self.take(index + 1)?;
                return Ok(number);
            }
        }
        Err(self.wrong("no varint"))
    }

    /// The number and wire kind of the field that comes next.
    fn key(&mut self) -> Result<(u32, u8), Wrong> {
        let at = *self;
        let key = self.varint().ok().and_then(|key| u32::try_from(key).ok()).filter(|key| key >> 3 > 0 && key & 7 <= 5);
        key.map(|key| (key >> 3, (key & 7) as u8)).ok_or_else(|| at.wrong("no key of a field"))
    }

    fn delimited(&mut self) -> Result<Wire<'a>, Wrong> {
        let at = *self;
        let length = usize::try_from(self.varint()?).map_err(|_| at.wrong("the bytes end too early"))?;
        self.take(length).map_err(|_| at.wrong("the bytes end too early"))
    }

    fn text(self) -> Result<&'a str, Wrong> {
        str::from_utf8(self.bytes).map_err(|_| self.wrong("a text that is not UTF-8"))
    }

    fn skip(&mut self, kind: u8) -> Result<(), Wrong> {
        match kind {
            VARINT => self.varint().map(drop),
            EIGHT => self.take(8).map(drop),
            DELIMITED => self.delimited().map(drop),
            FOUR => self.take(4).map(drop),
            _ => Err(self.wrong("the end of a group that has not begun")),
        }
    }

    /// That a value of a type that is no message comes next.
    fn scalar(&mut self, kind: &Kind) -> Result<(), Wrong> {
        match kind {
            Kind::String => self.delimited()?.text().map(drop),
            kind => self.skip(wire_kind(kind)),
        }
    }

    /// How many elements of a list stand before the given place of a message that has been found right up to there.
    fn count(mut self, end: usize, field: &FieldDescriptor) -> usize {
        let kind = wire_kind(&field.kind());
        let mut count = 0;
        while self.at < end {
            let Ok((number, given)) = self.key() else { break };
            if number == field.number() && given == DELIMITED && kind != DELIMITED {
                let packed = self.delimited().map_or(&[][..], |packed| packed.bytes);
                count += match kind {
                    EIGHT => packed.len() / 8,
                    FOUR => packed.len() / 4,
                    _ => packed.iter().filter(|byte| **byte < 0x80).count(),
                };
                continue;
            }
            count += usize::from(number == field.number());
            if self.pass(number, given).is_err() {
                break;
            }
        }
        count
    }

    /// Passes over a field, whatever it holds.
    fn pass(&mut self, number: u32, kind: u8) -> Result<(), Wrong> {
        if kind != GROUP {
            return self.skip(kind);
        }
        // Each group within is ended before the one around it: that has been seen.
        let mut open = vec![number];
        while !open.is_empty() {
            match self.key()? {
                (_, GROUP_END) => _ = open.pop(),
                (inner, GROUP) => open.push(inner),
                (_, kind) => self.skip(kind)?,
            }
        }
        Ok(())
    }

    /// The key of a map's entry, as JSON has it; `None` if it cannot be read.
    fn map_key(mut self, map: &Kind) -> Option<String> {
        let key = map.as_message()?.map_entry_key_field().kind();
        let mut shown = if key == Kind::String { Some(String::new()) } else { None };
        while !self.is_empty() {
            let (number, given) = self.key().ok()?;
            if number != 1 {
                // Whatever is wrong behind the key is not the key's fault.
                if self.pass(number, given).is_err() {
                    break;
                }
                continue;
            }
            shown = match (&key, given) {
                (Kind::String, DELIMITED) => Some(self.delimited().ok()?.text().ok()?.to_owned()),
                (Kind::Bool, VARINT) => Some((self.varint().ok()? != 0).to_string()),
                (Kind::Int32 | Kind::Int64, VARINT) => Some((self.varint().ok()? as i64).to_string()),
                (Kind::Sint32 | Kind::Sint64, VARINT) => {
                    let zigzag = self.varint().ok()?;
                    Some(((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64)).to_string())
                }
                (_, VARINT) => Some(self.varint().ok()?.to_string()),
                (Kind::Sfixed32, FOUR) => Some(i32::from_le_bytes(self.take(4).ok()?.bytes.try_into().ok()?).to_string()),
                (_, FOUR) => Some(u32::from_le_bytes(self.take(4).ok()?.bytes.try_into().ok()?).to_string()),
                (Kind::Sfixed64, EIGHT) => Some(i64::from_le_bytes(self.take(8).ok()?.bytes.try_into().ok()?).to_string()),
                (_, EIGHT) => Some(u64::from_le_bytes(self.take(8).ok()?.bytes.try_into().ok()?).to_string()),
                _ => return shown,
            };
        }
        shown
    }
}
