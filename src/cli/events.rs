//! Events of time series.

use mangrove_crdt::value;
use serde_json::json;

use super::args::EventCommand;
use super::output::{JsonArray, time_text};
use super::reader::Reader;
use super::topics::read_value;
use super::{Context, Failure};
use crate::client::{Changed, Client};
use crate::protocol::{EventMark, EventRow, EventsWanted, PAGE_MAX, Page};

pub(super) async fn event(context: &mut Context, command: EventCommand) -> Result<(), Failure> {
    let client = context.connect().await?;
    match command {
        EventCommand::Ls { path, from, to, since, until, last } => {
            let wanted = EventsWanted { from, to, since_unix_ms: since, until_unix_ms: until, last };
            list(context, &client, &path, wanted).await
        }
        EventCommand::Edit { path, event, value } => {
            let text = read_value(&value).await?;
            let topic = client.topic(&path).await?.topic;
            let definition = topic.definition().map_err(Failure::usage)?;
            client.supply(&definition).await?;
            let value = value::from_text(definition.topic_type(), &text)
                .map_err(|error| Failure::usage(format!("not a value of {path}, which is of type {}: {error}", topic.topic_type)))?;
            let Changed { event, .. } = client.edit_event(&path, &event, value).await?;
            context
                .output
                .done(&json!({ "path": path, "event": event }), format!("event {} of {path} edited", event.as_deref().unwrap_or("")))
        }
    }
}

async fn list(context: &mut Context, client: &Client, path: &str, wanted: EventsWanted) -> Result<(), Failure> {
    let (topic, mut reader) = (client.topic(path).await?.topic, Reader::new(client));
    let mut array = if context.output.json { Some(JsonArray::begin(&mut context.output)?) } else { None };
    let mut after = None;
    loop {
        let (rows, next) = client.events(path, wanted.clone(), Page { after, limit: PAGE_MAX }).await?;
        for EventRow { mark, value } in rows {
            let (value, _) = reader.read_as(&topic, &value).await?;
            match &mut array {
                Some(array) => {
                    let mut object = event_json(&mark);
                    object["value"] = value;
                    array.item(&mut context.output, &object)?;
                }
                None => context.output.line(format!("{}\t{}\t{value}\t{}", mark.event, time_text(mark.unix_ms), by(&mark)))?,
            }
        }
        after = next;
        if after.is_none() {
            break;
        }
    }
    match array {
        Some(array) => array.end(&mut context.output),
        None => Ok(()),
    }
}

/// What is said of an event, as JSON.
pub(super) fn event_json(mark: &EventMark) -> serde_json::Value {
    let mut object = json!({ "event": mark.event.to_string(), "author": mark.author, "time": time_text(mark.unix_ms) });
    if let Some(edited) = &mark.edited {
        object["edited"] = json!({ "author": edited.author, "time": time_text(edited.unix_ms) });
    }
    object
}

/// Who has written an event, for people.
pub(super) fn by(mark: &EventMark) -> String {
    match &mark.edited {
        Some(edited) => format!("by {}, edited by {} at {}", mark.author, edited.author, time_text(edited.unix_ms)),
        None => format!("by {}", mark.author),
    }
}
