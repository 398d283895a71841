//! What is heard of topics, and what is said to those who hear.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::json;

use super::args::{SendCommand, Watch};
use super::events::{by, event_json};
use super::output::{json_of, plural, time_text};
use super::reader::Reader;
use super::topics::{read_value, spec_text};
use super::{Context, Failure};
use crate::client::Heard;
use crate::protocol::{Event, Message, TopicSpec};

pub(super) async fn watch(context: &mut Context, watch: &Watch) -> Result<(), Failure> {
    let client = context.connect_to_stay(None).await?;
    let mut subscription = match watch.stamps {
        true => client.subscribe_with_stamps(&watch.selector).await?,
        false => client.subscribe(&watch.selector).await?,
    };
    let (mut types, mut reader): (Types, _) = (HashMap::new(), Reader::new(&client));
    let mut messages = client.messages();
    let mut left = watch.count.unwrap_or(u64::MAX);
    // Listened for from the start: whoever interrupts a long listing need not wait for its end.
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    while left > 0 {
        let waiting = tokio::select! {
            biased;
            _ = &mut interrupted => break,
            heard = subscription.next() => Some(News::Heard(heard?)),
            message = messages.next() => Some(message.map(|(path, message)| News::Message(path, message))?),
            () = std::future::ready(()) => None,
        };
        let heard = match waiting {
            Some(heard) => heard,
            // Show what there is before waiting for more.
            None => {
                context.output.flush()?;
                tokio::select! {
                    _ = &mut interrupted => break,
                    heard = subscription.next() => News::Heard(heard?),
                    message = messages.next() => message.map(|(path, message)| News::Message(path, message))?,
                }
            }
        };
        match heard {
            News::Heard(heard) => {
                left -= u64::from(matches!(heard, Heard::Topic { event: Event::Value { .. } | Event::Message(_), .. }));
                show_heard(context, &mut types, &mut reader, heard).await?;
            }
            News::Message(path, message) => {
                left -= 1;
                show_message(context, &path, &message, true)?;
            }
        }
    }
    Ok(())
}

/// What comes to somebody who watches.
enum News {
    Heard(Heard),
    /// For it alone.
    Message(Arc<str>, Message),
}

/// What a message says: as text where it is one, otherwise as base64.
fn show_message(context: &mut Context, path: &str, message: &Message, alone: bool) -> Result<(), Failure> {
    let Message { author, session, node, unix_ms, content, lost } = message;
    let text = std::str::from_utf8(content);
    if context.output.json {
        let mut object = json!({
            "path": path, "event": "message", "alone": alone, "author": author, "session": session, "node": node, "time": time_text(*unix_ms), "lost": lost,
        });
        match text {
            Ok(text) => object["text"] = text.into(),
            Err(_) => object["base64"] = json_of("binary", content),
        }
        return context.output.json_line(&object);
    }
    if *lost > 0 {
        eprintln!("{} about {path} lost: this reader was too slow for them", plural(*lost, "message"));
    }
    let shown = text.map_or_else(|_| json_of("binary", content).to_string(), |text| format!("{text:?}"));
    let to = if alone { "\tto this session" } else { "" };
    context.output.line(format!("> {path}\t{shown}\tfrom {author} at {node}{to}"))
}

/// What is said of the values of each topic.
type Types = HashMap<Arc<str>, Arc<TopicSpec>>;

async fn show_heard(context: &mut Context, types: &mut Types, reader: &mut Reader<'_>, heard: Heard) -> Result<(), Failure> {
    let json = context.output.json;
    match heard {
        Heard::Synced if json => context.output.json_line(&json!({ "event": "synced" })),
        Heard::Synced => Ok(()),
        Heard::Rewound if json => context.output.json_line(&json!({ "event": "rewound" })),
        Heard::Rewound => {
            eprintln!("this node lacks some of what was shown before: what follows may be older, until that comes");
            Ok(())
        }
        Heard::Topic { path, event: Event::Added { topic } } => {
            let result = match json {
                true => {
                    let (topic_type, properties) = (&topic.topic_type, &topic.properties);
                    context.output.json_line(&json!({ "path": &*path, "event": "added", "type": topic_type, "properties": properties }))
                }
                false => context.output.line(format!("+ {path}\t{}", spec_text(&topic))),
            };
            types.insert(path, reader.said_of(topic));
            result
        }
        Heard::Topic { path, event: Event::Message(message) } => show_message(context, &path, &message, false),
        Heard::Topic { path, event: Event::Removed { reason } } => {
            types.remove(&path);
            match json {
                true => context.output.json_line(&json!({ "path": &*path, "event": "removed", "reason": reason })),
                false => context.output.line(format!("- {path}")),
            }
        }
        Heard::Topic { path, event: Event::Value { value, unix_ms, stamp, missed, event, .. } } => {
            let value = match types.get(&path) {
                Some(spec) => reader.read_as(spec, &value).await?.0,
                None => json_of("", &value),
            };
            if json {
                let mut object = json!({ "path": &*path, "event": "value", "value": value });
                if let Some(mark) = &event {
                    object["of"] = event_json(mark);
                }
                if let Some(missed) = missed {
                    object["missed"] = missed.into();
                }
                if let (Some(object), Some(stamp)) = (object.as_object_mut(), stamp) {
                    object.insert("stamp".into(), stamp.into());
                    object.insert("time".into(), unix_ms.map(time_text).into());
                }
                return context.output.json_line(&object);
            }
            if let Some(missed) = missed {
                eprintln!("{} of {path} missed: this reader was too slow for them", plural(missed, "value"));
            }
            let mut line = format!("= {path}\t{value}");
            if let Some(mark) = &event {
                line += &format!("\t{}\t{}", mark.event, by(mark));
            }
            if let Some(stamp) = stamp {
                line += &format!("\t{}\t{stamp}", unix_ms.map(time_text).unwrap_or_default());
            }
            context.output.line(line)
        }
    }
}

pub(super) async fn send(context: &mut Context, command: SendCommand) -> Result<(), Failure> {
    let client = context.connect().await?;
    let sent = match command {
        SendCommand::Topic { path, message } => client.send_to_topic(&path, read_value(&message).await?).await?,
        SendCommand::Session { session, path, message } => {
            client.send_to_session(&session, &path, read_value(&message).await?).await?;
            1
        }
        SendCommand::Except { session, path, message } => client.send_to_all_but(&session, &path, read_value(&message).await?).await?,
    };
    context.output.done(&json!({ "sessions": sent }), format!("handed to {} of this node", plural(sent, "client")))
}
