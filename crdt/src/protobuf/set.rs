//! The descriptor sets by which messages are judged: looked through before they are compiled, and made small for whoever keeps them.
//!
//! A set comes from anybody. The library that compiles it trusts it in places, and does more than values need (custom options, extensions, public imports in any
//! shape). So it never sees the set itself: it gets one that is made here, of those parts only that say how values are encoded and shown, each of them checked. Files are
//! numbered instead of named, and import what they refer to, so a set does not depend on the directory where it was compiled.

use std::collections::{BTreeMap, BTreeSet};

use prost_reflect::{
    prost::Message,
    prost_types::{
        DescriptorProto, EnumDescriptorProto, EnumOptions, EnumValueDescriptorProto, FieldDescriptorProto, FieldOptions,
        FileDescriptorProto, FileDescriptorSet, MessageOptions, OneofDescriptorProto,
        field_descriptor_proto::{Label, Type},
    },
};

use super::{ANY, BadProtobuf};

/// How long a serialized set is at most, in bytes. Decoded, it takes a hundred times as much at the worst, for a moment.
pub const SET_BYTES_MAX: usize = 256 << 10;

/// How many messages, fields, enums and values of enums there are at most, together.
pub const SET_PARTS_MAX: usize = 8_192;

/// How long a name is at most, with the package and all messages around it: every part keeps its whole name.
pub const NAME_BYTES_MAX: usize = 256;

/// How deep the definitions of messages may stand in one another.
const NESTING_MAX: usize = 16;

/// What a set that has been looked through consists of.
pub(super) struct Set {
    files: Vec<FileDescriptorProto>,
    /// The file that has each message and enum, by its name.
    homes: BTreeMap<String, usize>,
}

impl Set {
    /// Reads a serialized set.
    pub(super) fn decode(bytes: &[u8]) -> Result<FileDescriptorSet, BadProtobuf> {
        if bytes.len() > SET_BYTES_MAX {
            return Err(BadProtobuf::TooLarge(format!("{} bytes, and may have {SET_BYTES_MAX}", bytes.len())));
        }
        FileDescriptorSet::decode(bytes).map_err(|error| BadProtobuf::NoSet(error.to_string()))
    }

    /// Keeps what values need, of so many parts at most.
    pub(super) fn new(set: FileDescriptorSet, parts_max: usize) -> Result<Set, BadProtobuf> {
        let mut look = Look { parts: 0, parts_max, homes: BTreeMap::new(), file: 0 };
        let mut files = Vec::with_capacity(set.file.len());
        for (index, file) in set.file.into_iter().enumerate() {
            look.file = index;
            files.push(look.file(file)?);
        }
        let mut set = Set { files, homes: look.homes };
        set.import()?;
        Ok(set)
    }

    /// The set without whatever values of a message do not need.
    pub(super) fn only(mut self, message: &str) -> Result<FileDescriptorSet, BadProtobuf> {
        let mut needed: BTreeSet<String> = BTreeSet::new();
        let mut waiting = vec![message.to_owned()];
        while let Some(name) = waiting.pop() {
            // Whoever holds an Any may hold every message there is.
            if name == ANY {
                return Ok(self.into_set());
            }
            let package = self.homes.get(&name).map_or("", |&file| self.files[file].package());
            let outermost = outermost(package, &name);
            if needed.insert(outermost.clone()) {
                let file = &self.files[*self.homes.get(&outermost).ok_or_else(|| BadProtobuf::NoMessage(name.clone()))?];
                for definition in file.message_type.iter().filter(|definition| joined(package, definition.name()) == outermost) {
                    each_reference(definition, &mut |name| waiting.push(name.to_owned()));
                }
            }
        }
        for file in &mut self.files {
            let package = file.package.clone().unwrap_or_default();
            file.message_type.retain(|message| needed.contains(&joined(&package, message.name())));
            file.enum_type.retain(|definition| needed.contains(&joined(&package, definition.name())));
        }
        self.files.retain(|file| !file.message_type.is_empty() || !file.enum_type.is_empty());
        Ok(Set::new(self.into_set(), SET_PARTS_MAX)?.into_set())
    }

    pub(super) fn into_set(self) -> FileDescriptorSet {
        FileDescriptorSet { file: self.files }
    }

    /// Numbers the files, and lets each import those that it refers to.
    fn import(&mut self) -> Result<(), BadProtobuf> {
        for index in 0..self.files.len() {
            let mut imports = BTreeSet::new();
            let mut missing = None;
            for message in &self.files[index].message_type {
                each_reference(message, &mut |name| match self.homes.get(name) {
                    Some(&home) => _ = imports.insert(home),
                    None => missing = Some(name.to_owned()),
                });
            }
            if let Some(name) = missing {
                return Err(BadProtobuf::NoSet(format!("it refers to {name}, which it does not have")));
            }
            imports.remove(&index);
            self.files[index].dependency = imports.into_iter().map(file_name).collect();
            self.files[index].name = Some(file_name(index));
        }
        Ok(())
    }
}

fn file_name(index: usize) -> String {
    format!("{index}.proto")
}

fn joined(scope: &str, name: &str) -> String {
    if scope.is_empty() { name.to_owned() } else { format!("{scope}.{name}") }
}

/// The definition at the top of its file that a name is, or stands in.
fn outermost(package: &str, name: &str) -> String {
    let own = name.strip_prefix(package).map_or(name, |own| own.trim_start_matches('.'));
    joined(package, own.split('.').next().unwrap_or(own))
}

/// Each message and enum that the fields of a message refer to.
fn each_reference(message: &DescriptorProto, each: &mut impl FnMut(&str)) {
    for name in message.field.iter().filter_map(|field| field.type_name.as_deref()) {
        each(name.trim_start_matches('.'));
    }
    for nested in &message.nested_type {
        each_reference(nested, each);
    }
}

/// Takes definitions over, counting them.
struct Look {
    parts: usize,
    parts_max: usize,
    homes: BTreeMap<String, usize>,
    /// The file that is looked through.
    file: usize,
}

impl Look {
    fn file(&mut self, file: FileDescriptorProto) -> Result<FileDescriptorProto, BadProtobuf> {
        let syntax = file.syntax.filter(|syntax| syntax != "proto2");
        if let Some(other) = syntax.as_deref().filter(|syntax| *syntax != "proto3") {
            return Err(BadProtobuf::NoSet(format!(
                "{}: its syntax is {other:?}: known are proto2 and proto3",
                file.name.unwrap_or_default()
            )));
        }
        let package = file.package.unwrap_or_default();
        if !package.is_empty() {
            package.split('.').try_for_each(identifier)?;
        }
        let message_type = self.all(file.message_type, |look, message| look.message(message, &package, NESTING_MAX))?;
        let enum_type = self.all(file.enum_type, |look, definition| look.enumeration(definition, &package))?;
        let package = Some(package).filter(|package| !package.is_empty());
        Ok(FileDescriptorProto { syntax, package, message_type, enum_type, ..Default::default() })
    }

    fn message(&mut self, message: DescriptorProto, scope: &str, nesting: usize) -> Result<DescriptorProto, BadProtobuf> {
        let full = self.part(scope, message.name())?;
        self.homes.insert(full.clone(), self.file);
        if nesting == 0 {
            return Err(BadProtobuf::TooLarge(format!("messages more than {NESTING_MAX} deep in one another")));
        }
        let is_entry = message.options.as_ref().is_some_and(|options| options.map_entry());
        let field = self.all(message.field, |look, field| look.field(field, &full))?;
        if is_entry && !is_map_entry(&field) {
            return Err(BadProtobuf::NoSet(format!("{full} is said to be the entry of a map, and has not the fields of one")));
        }
        let oneof_decl = self.all(message.oneof_decl, |look, oneof| {
            look.part(&full, oneof.name())?;
            Ok(OneofDescriptorProto { name: oneof.name, options: None })
        })?;
        Ok(DescriptorProto {
            name: message.name,
            field,
            oneof_decl,
            nested_type: self.all(message.nested_type, |look, nested| look.message(nested, &full, nesting - 1))?,
            enum_type: self.all(message.enum_type, |look, definition| look.enumeration(definition, &full))?,
            options: is_entry.then(|| MessageOptions { map_entry: Some(true), ..Default::default() }),
            ..Default::default()
        })
    }

    fn field(&mut self, field: FieldDescriptorProto, scope: &str) -> Result<FieldDescriptorProto, BadProtobuf> {
        let full = self.part(scope, field.name())?;
        let wrong = |why: &str| Err(BadProtobuf::NoSet(format!("{full} {why}")));
        let Some(kind) = field.r#type.and_then(|kind| Type::try_from(kind).ok()) else {
            return wrong("has no type, or one that is not known");
        };
        let by_name = matches!(kind, Type::Message | Type::Group | Type::Enum);
        // A compiler writes whole names. Others would mean what stands around them.
        if by_name != field.type_name.as_deref().is_some_and(|name| name.starts_with('.')) || (!by_name && field.type_name.is_some()) {
            return wrong("does not name its type, or not by its whole name");
        }
        if field.label.is_some_and(|label| Label::try_from(label).is_err()) {
            return wrong("has a label that is not known");
        }
        // In JSON an Any is read as it comes, and nothing may come before its `@type` that would have to be kept until then.
        if field.json_name.as_deref().is_some_and(|name| name.len() > NAME_BYTES_MAX || !name.starts_with(|first| first > '@')) {
            return wrong("has a name in JSON that is too long, or does not begin with a letter");
        }
        let packed = field.options.as_ref().and_then(|options| options.packed);
        Ok(FieldDescriptorProto {
            json_name: field.json_name.clone().filter(|name| *name != json_name(field.name())),
            // The default of a field that is absent is its reader's affair.
            default_value: None,
            extendee: None,
            options: packed.map(|packed| FieldOptions { packed: Some(packed), ..Default::default() }),
            ..field
        })
    }

    fn enumeration(&mut self, definition: EnumDescriptorProto, scope: &str) -> Result<EnumDescriptorProto, BadProtobuf> {
        let full = self.part(scope, definition.name())?;
        self.homes.insert(full, self.file);
        let aliases = definition.options.as_ref().is_some_and(|options| options.allow_alias());
        let value = self.all(definition.value, |look, value| {
            look.part(scope, value.name())?;
            Ok(EnumValueDescriptorProto { options: None, ..value })
        })?;
        let options = aliases.then(|| EnumOptions { allow_alias: Some(true), ..Default::default() });
        Ok(EnumDescriptorProto { name: definition.name, value, options, ..Default::default() })
    }

    fn all<T>(&mut self, items: Vec<T>, mut each: impl FnMut(&mut Look, T) -> Result<T, BadProtobuf>) -> Result<Vec<T>, BadProtobuf> {
        items.into_iter().map(|item| each(self, item)).collect()
    }

    /// Counts something with a name, and gives its whole name.
    fn part(&mut self, scope: &str, name: &str) -> Result<String, BadProtobuf> {
        self.parts += 1;
        if self.parts > self.parts_max {
            return Err(BadProtobuf::TooLarge(format!("more than {SET_PARTS_MAX} messages, fields, enums and values")));
        }
        identifier(name)?;
        let full = joined(scope, name);
        if full.len() > NAME_BYTES_MAX {
            return Err(BadProtobuf::TooLarge(format!("a name of {} bytes, and may have {NAME_BYTES_MAX}", full.len())));
        }
        Ok(full)
    }
}

fn identifier(name: &str) -> Result<(), BadProtobuf> {
    let mut bytes = name.bytes();
    let starts = bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_');
    match starts && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        true => Ok(()),
        false => Err(BadProtobuf::NoSet(format!("{:?} is no name", name.chars().take(NAME_BYTES_MAX).collect::<String>()))),
    }
}

/// Whether these are the two fields that the entry of a map has: a key of a type that may be one, and a value.
fn is_map_entry(fields: &[FieldDescriptorProto]) -> bool {
    let is_one = |field: &&FieldDescriptorProto| field.label() == Label::Optional && field.oneof_index.is_none();
    let numbered = |number| fields.iter().filter(is_one).find(|field| field.number() == number);
    let no_key = [Type::Double, Type::Float, Type::Bytes, Type::Message, Type::Group, Type::Enum];
    fields.len() == 2
        && numbered(1).is_some_and(|key| !no_key.contains(&key.r#type()))
        && numbered(2).is_some_and(|value| value.r#type() != Type::Group)
}

/// The name in JSON of a field that has none of its own.
fn json_name(name: &str) -> String {
    let mut json = String::with_capacity(name.len());
    let mut upper = false;
    for letter in name.chars() {
        match letter {
            '_' => upper = true,
            _ if std::mem::take(&mut upper) => json.push(letter.to_ascii_uppercase()),
            _ => json.push(letter),
        }
    }
    json
}
