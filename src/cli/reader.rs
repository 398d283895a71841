//! Values as people read them, also those whose type's name does not say what their bytes mean: that the definition says, and the blobs that it names.

use std::collections::BTreeMap;
use std::sync::Arc;

use mangrove_crdt::definition::{Definition, TYPE_PROPERTIES};
use mangrove_crdt::value;
use serde_json::Value;

use super::Failure;
use super::output::json_of;
use crate::client::{Client, ClientError};
use crate::protocol::{Code, TopicSpec};

/// How many definitions are kept: each may be a compiled module.
const KNOWN_MAX: usize = 32;

/// Reads values of one node's topics.
pub(super) struct Reader<'a> {
    client: &'a Client,
    /// What has been fetched; `None` for what is no use.
    known: BTreeMap<TopicSpec, Option<Definition>>,
    /// What the last topic was said to be: most are what the one before is.
    last: Option<Arc<TopicSpec>>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(client: &'a Client) -> Self {
        Reader { client, known: BTreeMap::new(), last: None }
    }

    /// What a topic's definition says of its values, to be kept with many others.
    pub(super) fn said_of(&mut self, mut spec: TopicSpec) -> Arc<TopicSpec> {
        spec.properties.retain(|key, _| TYPE_PROPERTIES.contains(&key.as_str()));
        match &self.last {
            Some(last) if **last == spec => Arc::clone(last),
            _ => Arc::clone(self.last.insert(Arc::new(spec))),
        }
    }

    /// A value of a topic with this definition, or one of the events of such a series: as JSON, and whether that makes the same bytes again.
    ///
    /// # Errors
    /// The node cannot be asked for what is needed. What it does not have is no error: then the value is shown as base64.
    pub(super) async fn read_as(&mut self, spec: &TopicSpec, bytes: &[u8]) -> Result<(Value, bool), Failure> {
        let type_name = spec.properties.get("of").unwrap_or(&spec.topic_type);
        let spec = matches!(type_name.as_str(), "protobuf" | "custom").then_some(spec);
        self.read(type_name, spec, bytes).await
    }

    /// The same, where no more is known than the name of its type, but for what `spec` says if that is not enough.
    ///
    /// # Errors
    /// As [`Reader::read_as`].
    pub(super) async fn read(&mut self, type_name: &str, spec: Option<&TopicSpec>, bytes: &[u8]) -> Result<(Value, bool), Failure> {
        if let Some(spec) = spec
            && let Some(definition) = self.definition(spec).await?
            && let Ok(json) = value::to_json(definition.topic_type(), bytes)
        {
            let whole = value::from_json(definition.topic_type(), &json).is_ok_and(|made| made == bytes);
            return Ok((json, whole));
        }
        Ok((json_of(type_name, bytes), spec.is_none()))
    }

    async fn definition(&mut self, spec: &TopicSpec) -> Result<Option<&Definition>, Failure> {
        if !self.known.contains_key(spec) {
            let definition = spec.definition().ok();
            let supplied = match &definition {
                Some(definition) => self.client.supply(definition).await,
                None => Ok(()),
            };
            let definition = match supplied {
                Ok(()) => definition,
                // It may come.
                Err(ClientError::Refused(refusal)) if refusal.code == Code::BlobMissing => return Ok(None),
                Err(ClientError::Refused(_)) => None,
                Err(error) => return Err(error.into()),
            };
            if self.known.len() >= KNOWN_MAX {
                self.known.clear();
            }
            self.known.insert(spec.clone(), definition);
        }
        Ok(self.known.get(spec).and_then(Option::as_ref))
    }
}
