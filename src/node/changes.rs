//! Changing one topic's value, if something is so: judged and written between two inputs, so that nothing comes in between at this node.

use std::sync::Arc;

use mangrove_crdt::{
    access::Permission,
    definition::{Definition, Durability, TopicType},
    id::SectionId,
    path::Path,
    replica::{SetError, Taken, Writer},
    series::{EventIx, EventName},
    stamp::Under,
    value,
};

use self::constraint::{Constraint, Found};
use self::patch::BadPatch;
use super::{ConnectionId, Node, Now, acks::Needs, events::parse_event, requests::no_such_topic, requests::parse_topic_path};
use crate::protocol::{Change, Code, Refusal, Response, Wish};

mod constraint;
mod patch;

/// A value to be written.
pub(super) struct New<'a> {
    pub value: Vec<u8>,
    /// To make the topic with, if it is missing.
    pub add: Option<&'a Definition>,
    /// Where it must be; `None` leaves it to the topic and its section.
    pub durability: Option<Durability>,
    /// The event in whose place it is to be.
    pub edited: Option<EventName>,
}

impl Node {
    pub(super) fn change(&mut self, now: Now, session: ConnectionId, change: Change) -> Result<(Response, Needs), Refusal> {
        self.writable()?;
        let path = parse_topic_path(&change.path)?;
        let add = change.add.as_ref().map(|spec| self.definition_for(now, session, spec)).transpose()?;
        let constraint = change.constraint.as_deref().map(|text| parse_constraint(&path, text)).transpose()?;
        self.permitted(session, Permission::Update, &path)?;
        // What is refused tells what is there.
        if constraint.is_some() || matches!(change.wish, Wish::Patch(_) | Wish::Delta(_)) {
            self.permitted(session, Permission::Read, &path)?;
        }
        let section = self.locate(&path)?;
        let under = self.authority(now, session, &path, change.under)?;
        // To find out what there is may run the module of a custom type.
        let asked = constraint.is_some() || matches!(change.wish, Wish::Patch(_));
        let found = if asked { self.found_at(&path) } else { Found::Nothing };
        if let Some(unmet) = constraint.as_ref().and_then(|constraint| constraint.unmet(&mut |clause| clause.is_met(&found))) {
            return Err(Refusal::new(Code::ConstraintUnmet, path.as_str(), format!("it is not so that {unmet}")));
        }
        let exact = section == SectionId::LOCAL;
        let (value, edited) = match change.wish {
            Wish::Lines(splice) => {
                let (created, list, needs) = self.change_lines(now, session, &path, &splice, add.as_ref(), change.durability)?;
                return Ok((Response::Changed { created, exact, event: None, list: Some(list) }, needs));
            }
            Wish::Value(value) => (value, None),
            Wish::Patch(patch) => (self.patched(&path, found, &patch)?, None),
            Wish::Delta(delta) => (self.applied(&path, &delta)?, None),
            Wish::Edit { event, value } => (value, Some(parse_event(path.as_str(), &event)?)),
        };
        let new = New { value, add: add.as_ref(), durability: change.durability, edited };
        let (created, event, needs) = self.write_one(now, session, &path, under, new)?;
        let event = event.map(|event| event.name(self.replica.origins()).to_string());
        Ok((Response::Changed { created, exact, event, list: None }, needs))
    }

    fn found_at(&self, path: &Path) -> Found {
        let Some(shown) = self.replica.shown(path) else {
            // A slave that waits is a topic, if one that shows nothing.
            return if self.replica.topic(path).is_some() { Found::Topic(None) } else { Found::Nothing };
        };
        let topic_type = shown.of.1.definition.topic_type();
        let bytes = self.replica.kept_value(&shown).and_then(|write| topic_type.value_in(write.value.as_deref()?));
        let topic_type = topic_type.value_type();
        let bytes = bytes.filter(|bytes| !value::is_no_value(topic_type, bytes));
        Found::Topic(bytes.and_then(|bytes| value::to_json(topic_type, bytes).ok()))
    }

    /// The value of a topic after a patch.
    fn patched(&self, path: &Path, found: Found, patch: &str) -> Result<Vec<u8>, Refusal> {
        let (_, topic) = self.replica.topic(path).ok_or_else(|| no_such_topic(path))?;
        let topic_type = topic.definition.topic_type();
        let failed = |why: &str| Refusal::new(Code::PatchFailed, path.as_str(), why);
        if !matches!(topic_type, TopicType::Json | TopicType::JsonAs(_)) {
            return Err(failed(&format!("a patch is for json topics, and this one is of type {topic_type}")));
        }
        let Found::Topic(Some(document)) = found else {
            return Err(failed("there is no value to be changed").hint("set one first: mangrove set"));
        };
        let document = patch::patched(document, patch.as_bytes()).map_err(|error| {
            let code = match error {
                BadPatch::NoPatch(_) => Code::InvalidRequest,
                BadPatch::Failed(..) => Code::PatchFailed,
                BadPatch::TooMuch(_) => Code::TooLarge,
            };
            Refusal::new(code, path.as_str(), error.to_string())
        })?;
        value::from_json(topic_type, &document).map_err(|error| self.set_refusal(path, SetError::Invalid(error)))
    }

    /// The value of a topic after a delta of its type's own.
    fn applied(&self, path: &Path, delta: &[u8]) -> Result<Vec<u8>, Refusal> {
        let (section, topic) = self.replica.topic(path).ok_or_else(|| no_such_topic(path))?;
        let failed = |why: &str| Refusal::new(Code::PatchFailed, path.as_str(), why);
        let TopicType::Custom(module) = topic.definition.topic_type() else {
            return Err(failed(&format!("a delta is for custom topics, and this one is of type {}", topic.definition.topic_type())));
        };
        let module = module.get().map_err(|error| self.set_refusal(path, SetError::Invalid(error)))?;
        let value = self.replica.value(section, path).and_then(|write| write.value.as_deref());
        let value = value.ok_or_else(|| failed("there is no value to be changed").hint("set one first: mangrove set"))?;
        module.apply(value, delta).map_err(|error| failed(&error.to_string()))
    }

    /// Writes one value. Whether the topic was made for it, which event it is, and what the answer has to wait for.
    pub(super) fn write_one(
        &mut self,
        now: Now,
        session: ConnectionId,
        path: &Path,
        under: Under,
        New { value, add, durability, edited }: New<'_>,
    ) -> Result<(bool, Option<EventIx>, Needs), Refusal> {
        let mut needs = Needs::default();
        let missing = add.filter(|_| self.replica.topic(path).is_none());
        if let Some(definition) = missing {
            self.permitted(session, Permission::Modify, path)?;
            value::validate(definition.topic_type(), &value).map_err(|error| self.set_refusal(path, SetError::Invalid(error)))?;
            let added = self.replica.add_topics(&[(path.clone(), definition.clone())]);
            if let Some(error) = added.into_iter().find_map(Result::err) {
                return Err(self.add_refusal(path, error));
            }
            self.need_tree(&mut needs, [self.replica.home_of(path)], durability.or(definition.properties().durability));
        }
        let author = self.author(session);
        let writer = Writer { under, time_ms: now.unix_ms, author: &author };
        let taken = match edited {
            Some(name) => self.replica.edit_event(path, name, writer, &value),
            None => self.replica.set_by(path, writer, Arc::from(value)),
        };
        match taken {
            Ok(Taken { written, durability: own, event }) => {
                needs.add(written, durability.or(own).unwrap_or_else(|| self.durability_of(written.section)));
                Ok((missing.is_some(), event, needs))
            }
            Err(error) => {
                if matches!(error, SetError::Outranked { .. }) {
                    self.outranked(now, session, path);
                }
                Err(self.set_refusal(path, error))
            }
        }
    }
}

fn parse_constraint(path: &Path, text: &str) -> Result<Constraint, Refusal> {
    let refused = |why: String| Refusal::new(Code::InvalidRequest, path.as_str(), format!("no constraint: {why}"));
    let hint = "as in: /speed/unit is \"kn\" and nothing at /alarm; no value; not value is null";
    Constraint::parse(text).map_err(|error| refused(error.to_string()).hint(hint))
}

#[cfg(test)]
mod tests;
