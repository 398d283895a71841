//! Topics and their values.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::Read;
use std::sync::Arc;

use mangrove_crdt::{blob::BlobHash, json_schema::JsonSchema, value};
use serde_json::{Value, json};

use super::args::{DisplacedCommand, Get, Patch, Set, TopicCommand};
use super::events::event_json;
use super::output::{JsonArray, bytes_text, count_text, json_of, plural, raw_of, time_text};
use super::{Context, Failure, all_pages, refusal_text};
use crate::client::{Changed, Client, ClientError};
use crate::protocol::{
    BlobRow, Change, Code, DisplacedRow, ITEMS_MAX, ListState, PAGE_MAX, Page, PastRow, Refusal, TopicDetail, TopicRow, TopicSpec,
    VALUE_MAX, ValueRow, Wish,
};

fn spec(topic_type: String, properties: Vec<(String, String)>) -> Result<TopicSpec, Failure> {
    let mut map = BTreeMap::new();
    for (key, mut value) in properties {
        if let Some(path) = value.strip_prefix('@').filter(|_| key == "schema") {
            // More than any definition holds is refused by its length, and need not be read.
            let file = std::fs::File::open(path).map_err(|error| Failure::usage(format!("{path}: {error}")))?;
            let mut text = String::new();
            file.take(1 << 20).read_to_string(&mut text).map_err(|error| Failure::usage(format!("{path}: {error}")))?;
            value = text;
        }
        if map.insert(key.clone(), value).is_some() {
            return Err(Failure::usage(format!("property {key} is given twice")));
        }
    }
    Ok(TopicSpec { topic_type, properties: map })
}

/// What a schema says that is too long for a definition goes into a blob.
async fn bring(client: &Client, mut spec: TopicSpec) -> Result<TopicSpec, Failure> {
    if spec.topic_type.eq_ignore_ascii_case("json")
        && spec.definition().is_err()
        && let Some(schema) = spec.properties.get_mut("schema")
        && let Some(content) = serde_json::from_str(schema).ok().and_then(|schema| JsonSchema::to_blob(&schema).ok())
    {
        let said = std::mem::replace(schema, format!("blob:{}", BlobHash::of(&content)));
        // If that is not what is wrong with it, whatever is wrong is said of what was asked for.
        match spec.definition() {
            Ok(_) => _ = client.put_blob(&content).await?,
            Err(_) => _ = spec.properties.insert("schema".into(), said),
        }
    }
    Ok(spec)
}

pub(super) async fn topic(context: &mut Context, command: TopicCommand) -> Result<(), Failure> {
    let client = context.connect().await?;
    match command {
        TopicCommand::Add { paths, topic_type, properties } => {
            let spec = bring(&client, spec(topic_type, properties)?).await?;
            add(context, &client, paths, spec).await
        }
        TopicCommand::Rm { selector, force } => {
            let topics = client.remove_topics(&selector, force).await?;
            context.output.done(&json!({ "removed": topics }), format!("{} removed", plural(topics, "topic")))
        }
        TopicCommand::Ls { selector, pending } => list(context, &client, &selector, pending).await,
        TopicCommand::Show { path } => {
            let detail = match client.topic(&path).await {
                Err(ClientError::Refused(refusal)) if refusal.code == Code::NoSuchTopic => Err(refusal),
                other => Ok(other?),
            };
            let past = match client.topic_past(&path).await {
                // An older node does not tell.
                Err(ClientError::Refused(refusal)) if refusal.code == Code::Unsupported => Default::default(),
                other => other?,
            };
            match detail {
                Ok(detail) => show(context, &detail, &past),
                Err(refusal) => show_gone(context, &path, &past, refusal),
            }
        }
    }
}

async fn add(context: &mut Context, client: &Client, paths: Vec<String>, spec: TopicSpec) -> Result<(), Failure> {
    let (mut created, mut existed, mut refusals) = (0, 0, Vec::new());
    for paths in paths.chunks(ITEMS_MAX) {
        let report = client.add_topics(spec.clone(), paths.to_vec()).await?;
        created += report.created;
        existed += report.existed;
        refusals.extend(report.refused.into_iter().map(|item| item.refusal));
    }
    let sentence = match existed {
        0 => format!("{} made", plural(created, "topic")),
        _ => format!("{} made, {existed} existed", plural(created, "topic")),
    };
    let refused = refusals.len();
    if context.output.json || created + existed > 0 {
        context.output.done(&json!({ "created": created, "existed": existed, "refused": refusals }), sentence)?;
    }
    match refusals.into_iter().next() {
        None => Ok(()),
        Some(only) if refused == 1 => Err(only.into()),
        Some(first) => {
            let failure = Failure::from(first.clone());
            Err(Failure { message: format!("{} refused; the first: {}", plural(refused as u64, "topic"), refusal_text(&first)), ..failure })
        }
    }
}

async fn list(context: &mut Context, client: &Client, selector: &str, pending: bool) -> Result<(), Failure> {
    let mut page = Page { after: None, limit: PAGE_MAX };
    let mut array = if context.output.json { Some(JsonArray::begin(&mut context.output)?) } else { None };
    loop {
        let (rows, next) = match pending {
            true => client.pending_topics(selector, page).await?,
            false => client.topics(selector, page).await?,
        };
        for row in &rows {
            match &mut array {
                Some(array) => array.item(&mut context.output, row)?,
                None if row.waits => context.output.line(format!("{}\t{} (waits for a blob)", row.path, spec_text(&row.topic)))?,
                None => {
                    let remark = row.remark.as_ref().map(|remark| format!(" ({remark})")).unwrap_or_default();
                    context.output.line(format!("{}\t{}{remark}", row.path, spec_text(&row.topic)))?;
                }
            }
        }
        match next {
            Some(after) => page = Page { after: Some(after), limit: PAGE_MAX },
            None => break,
        }
    }
    match array {
        Some(array) => array.end(&mut context.output),
        None => Ok(()),
    }
}

/// `json`, `string durability=disk`.
pub(super) fn spec_text(spec: &TopicSpec) -> String {
    let mut text = spec.topic_type.clone();
    for (key, value) in &spec.properties {
        text += &format!(" {key}={value}");
    }
    text
}

/// What has happened at a path, and whether there was more.
type Past = (Vec<PastRow>, bool);

fn history(context: &mut Context, (rows, cut): &Past) -> Result<(), Failure> {
    context.output.line("")?;
    context.output.listing(rows, &["history", "node", "when", "definition", ""], |row| {
        vec![
            row.did.to_string(),
            row.node.clone(),
            row.unix_ms.map_or_else(|| "-".into(), time_text),
            row.topic.as_ref().map(spec_text).unwrap_or_default(),
            if row.concurrent { "concurrently" } else { "" }.into(),
        ]
    })?;
    if *cut { context.output.line("more happened before that") } else { Ok(()) }
}

/// There is no topic: what has become of it, if there was any.
fn show_gone(context: &mut Context, path: &str, past: &Past, refusal: Refusal) -> Result<(), Failure> {
    let (rows, cut) = past;
    if context.output.json && !rows.is_empty() {
        context.output.json_line(&json!({ "path": path, "history": rows, "history_cut": cut }))?;
    } else if !rows.is_empty() {
        context.output.line("no topic")?;
        history(context, past)?;
    }
    Err(refusal.into())
}

fn show(context: &mut Context, detail: &TopicDetail, past: &Past) -> Result<(), Failure> {
    if context.output.json {
        let mut object = serde_json::to_value(detail)?;
        if let Some(object) = object.as_object_mut() {
            object.insert("history".into(), serde_json::to_value(&past.0)?);
            object.insert("history_cut".into(), past.1.into());
        }
        return context.output.json_line(&object);
    }
    let none = || "-".to_owned();
    let mut fields = vec![
        ("path", detail.path.clone()),
        ("definition", spec_text(&detail.topic)),
        ("id", detail.id.clone()),
        ("section", detail.section.clone().unwrap_or_else(|| "none: local to this node".into())),
        ("value", detail.value_bytes.map_or_else(|| "none".into(), bytes_text)),
        ("written", detail.unix_ms.map_or_else(none, time_text)),
        ("writer", detail.writer.clone().unwrap_or_else(none)),
        ("origin", detail.origin.clone().unwrap_or_else(none)),
        ("epoch", detail.epoch.map_or_else(none, |epoch| epoch.to_string())),
        ("stamp", detail.stamp.clone().unwrap_or_else(none)),
    ];
    if let Some(events) = detail.events {
        fields.push(("events", count_text(events)));
    }
    if let Some(ListState { lines, bytes, revision }) = detail.list {
        fields.push(("lines", format!("{}, {}, revision {revision}", count_text(lines), bytes_text(bytes))));
    }
    if let Some(remark) = &detail.remark {
        fields.push(("remark", remark.clone()));
    }
    if detail.pending {
        fields.push(("pending", "its master is not on this node, so readers do not see it".into()));
    }
    for BlobRow { hash, bytes } in &detail.blobs {
        let here = bytes
            .map_or_else(|| "not here yet: the topic takes no values until it is".into(), |bytes| format!("here, {}", bytes_text(bytes)));
        fields.push(("blob", format!("{hash} ({here})")));
    }
    if detail.conflicts > 0 {
        fields.push(("conflicts", plural(detail.conflicts.into(), "other definition")));
    }
    context.output.record(&fields)?;
    history(context, past)
}

/// What is said where a constraint was judged by what a node knew.
pub(super) const INEXACT: &str = "judged by what this node knew: somebody may have written at another at the same time";

pub(super) async fn set(context: &mut Context, set: Set) -> Result<(), Failure> {
    let text = read_value(&set.value).await?;
    let add = set.topic_type.map(|topic_type| spec(topic_type, set.properties)).transpose()?;
    let client = context.connect().await?;
    let add = match add {
        Some(spec) => Some(bring(&client, spec).await?),
        None => None,
    };
    let topic = match (client.topic(&set.path).await, &add) {
        (Ok(detail), _) => detail.topic,
        (Err(ClientError::Refused(refusal)), Some(add)) if refusal.code == Code::NoSuchTopic => add.clone(),
        (Err(ClientError::Refused(refusal)), None) if refusal.code == Code::NoSuchTopic => {
            return Err(Failure::from(refusal).hint("make it first with `mangrove topic add`, or here with --type json"));
        }
        (Err(error), _) => return Err(error.into()),
    };
    let definition = topic.definition().map_err(Failure::usage)?;
    client.supply(&definition).await?;
    let value = value::from_text(definition.topic_type(), &text)
        .map_err(|error| Failure::usage(format!("not a value of {}, which is of type {}: {error}", set.path, topic.topic_type)))?;
    let wish = Change { constraint: set.constraint, add, ..Change::new(&set.path, Wish::Value(value)) };
    change(context, &client, wish).await
}

pub(super) async fn patch(context: &mut Context, patch: Patch) -> Result<(), Failure> {
    let text = String::from_utf8(read_value(&patch.patch).await?).map_err(|_| Failure::usage("a patch is JSON, and that is UTF-8"))?;
    let client = context.connect().await?;
    let wish = Change { constraint: patch.constraint, ..Change::new(&patch.path, Wish::Patch(text)) };
    change(context, &client, wish).await
}

async fn change(context: &mut Context, client: &Client, change: Change) -> Result<(), Failure> {
    let (path, judged) = (change.path.clone(), change.constraint.is_some());
    let Changed { created, exact, event, .. } = client.change(change).await?;
    match (context.output.json, judged) {
        (true, _) => {
            let mut object = json!({ "path": path, "created": created });
            if judged {
                object["exact"] = exact.into();
            }
            if let Some(event) = event {
                object["event"] = event.into();
            }
            context.output.json_line(&object)
        }
        (false, true) if !exact => context.output.line(INEXACT),
        (false, _) => Ok(()),
    }
}

/// The value that an argument stands for: `-` and `@FILE` are read.
pub(super) async fn read_value(argument: &str) -> Result<Vec<u8>, Failure> {
    // One more than allowed, so that what is too long is refused and not cut.
    const LIMIT: u64 = VALUE_MAX as u64 * 6 + 1;
    let read = |source: Box<dyn Read + Send>| {
        tokio::task::spawn_blocking(move || {
            let mut bytes = Vec::new();
            source.take(LIMIT).read_to_end(&mut bytes).map(|_| bytes)
        })
    };
    let reading = match (argument, argument.strip_prefix('@')) {
        ("-", _) => read(Box::new(std::io::stdin())),
        (_, Some(path)) => {
            let file = std::fs::File::open(path).map_err(|error| Failure::usage(format!("{path}: {error}")))?;
            read(Box::new(file))
        }
        (text, None) => return Ok(text.into()),
    };
    match reading.await {
        Ok(result) => Ok(result?),
        Err(error) => Err(Failure::refused(format!("reading was interrupted: {error}"))),
    }
}

/// Whether a selector is just a path: then somebody asks for one value, not for a list.
fn is_path(selector: &str) -> bool {
    !selector.starts_with(['#', '?', '>', '*', '$', '%', '&', '<']) && !selector.starts_with("mqtt:")
}

pub(super) async fn get(context: &mut Context, get: &Get) -> Result<(), Failure> {
    let client = context.connect().await?;
    if is_path(&get.selector) {
        return get_one(context, &client, get).await;
    }
    let mut array = if context.output.json { Some(JsonArray::begin(&mut context.output)?) } else { None };
    let mut pages = Pages::new(&client, &get.selector);
    while let Some(rows) = pages.next().await? {
        for row in rows {
            match (&mut array, &row.value) {
                (Some(array), _) => array.item(&mut context.output, &value_json(&row))?,
                (None, None) => {}
                (None, Some(value)) if get.raw => {
                    context.output.bytes(&raw_of(&row.topic_type, value))?;
                    context.output.line("")?;
                }
                (None, Some(value)) => context.output.line(format!("{}\t{}", row.path, json_of(&row.topic_type, value)))?,
            }
        }
    }
    match array {
        Some(array) => array.end(&mut context.output),
        None => Ok(()),
    }
}

async fn get_one(context: &mut Context, client: &Client, get: &Get) -> Result<(), Failure> {
    let (rows, _) = client.values(&get.selector, Page { after: None, limit: 1 }).await?;
    let Some(row) = rows.into_iter().next() else {
        return Err(Failure::refused(format!("{}: there is no such topic on this node [{}]", get.selector, Code::NoSuchTopic))
            .hint("`mangrove topic ls` lists them; `mangrove section ls` says which nodes hold which branch"));
    };
    if context.output.json {
        return context.output.json_line(&value_json(&row));
    }
    let Some(value) = &row.value else {
        return Err(Failure::refused(format!("{}: the topic has no value yet", row.path)));
    };
    if get.raw {
        return context.output.bytes(&raw_of(&row.topic_type, value));
    }
    context.output.line(json_of(&row.topic_type, value).to_string())
}

/// A value as `export` prints it and `publish` takes it.
fn value_json(row: &ValueRow) -> Value {
    let value = row.value.as_ref().map_or(Value::Null, |value| json_of(&row.topic_type, value));
    let mut object = json!({ "path": row.path, "type": row.topic_type, "value": value, "time": row.unix_ms.map(time_text) });
    if let Some(mark) = &row.event {
        object["event"] = event_json(mark);
    }
    object
}

/// The values that a selector matches, page by page.
struct Pages<'a> {
    client: &'a Client,
    selector: &'a str,
    after: Option<String>,
    more: bool,
}

impl<'a> Pages<'a> {
    fn new(client: &'a Client, selector: &'a str) -> Self {
        Pages { client, selector, after: None, more: true }
    }

    async fn next(&mut self) -> Result<Option<Vec<ValueRow>>, Failure> {
        if !self.more {
            return Ok(None);
        }
        let (rows, next) = self.client.values(self.selector, Page { after: self.after.take(), limit: PAGE_MAX }).await?;
        self.more = next.is_some();
        self.after = next;
        Ok(Some(rows))
    }
}

pub(super) async fn export(context: &mut Context, selector: &str) -> Result<(), Failure> {
    let client = context.connect().await?;
    let progress = super::progress(None, "exporting");
    // What must be said with a type for a topic to be made with it. Few have any.
    let mut parameters: HashMap<String, Arc<BTreeMap<String, String>>> = HashMap::new();
    let mut last = Arc::default();
    // What slaves show is their masters', lists are no values and belong to their node, and what is in the others nobody here knows.
    let (mut left_out, mut unknown, mut paged, mut brought): (HashSet<String>, u64, u64, HashSet<BlobHash>) = Default::default();
    let (mut after, mut more) = (None, true);
    while more {
        let (rows, next) = client.topics(selector, Page { after, limit: PAGE_MAX }).await?;
        for TopicRow { path, topic: TopicSpec { topic_type, mut properties }, .. } in rows {
            if ["slave", "paged"].contains(&topic_type.as_str()) || topic_type.starts_with("unknown(") {
                unknown += u64::from(topic_type.starts_with("unknown("));
                paged += u64::from(topic_type == "paged");
                left_out.insert(path);
                continue;
            }
            properties.retain(|key, _| ["scale", "schema"].contains(&key.as_str()));
            if !properties.is_empty() {
                // Most are those of the one before.
                if *last != properties {
                    let spec = TopicSpec { topic_type, properties };
                    let blobs = spec.definition().map(|definition| definition.blobs().to_vec()).unwrap_or_default();
                    for hash in blobs.into_iter().filter(|hash| brought.insert(*hash)) {
                        context.output.json_line(&json!({ "blob": json_of("binary", &client.blob(hash).await?) }))?;
                    }
                    last = Arc::new(spec.properties);
                }
                parameters.insert(path, Arc::clone(&last));
            }
        }
        (more, after) = (next.is_some(), next);
    }
    let mut pages = Pages::new(&client, selector);
    while let Some(rows) = pages.next().await? {
        for row in rows.iter().filter(|row| row.value.is_some() && !left_out.contains(&row.path)) {
            let mut line = value_json(row);
            if let Some(parameters) = parameters.get(&row.path) {
                line["properties"] = json!(**parameters);
            }
            context.output.json_line(&line)?;
        }
        progress.inc(rows.len() as u64);
    }
    progress.finish_and_clear();
    if paged > 0 {
        eprintln!("note: {} of this node alone left out: `mangrove page show` prints lines", plural(paged, "paged topic"));
    }
    if unknown > 0 {
        eprintln!("note: {} of a type that the node does not know left out", plural(unknown, "topic"));
    }
    Ok(())
}

/// `write by EWR`, `removal by JFK`; or just `removal`, if it is not known whose.
fn lost_to(row: &DisplacedRow) -> String {
    if row.winner_writer.is_empty() { row.by.clone() } else { format!("{} by {}", row.by, row.winner_writer) }
}

pub(super) async fn displaced(context: &mut Context, command: DisplacedCommand) -> Result<(), Failure> {
    let client = context.connect().await?;
    match command {
        DisplacedCommand::Ls { selector } => {
            let rows = all_pages(async |page| client.displaced(&selector, page).await).await?;
            context.output.listing(&rows, &["id", "path", "writer", "written", "epoch", "value", "lost to"], |row| {
                vec![
                    row.id.clone(),
                    row.path.clone(),
                    row.writer.clone(),
                    time_text(row.unix_ms),
                    row.epoch.to_string(),
                    bytes_text(row.value_bytes),
                    lost_to(row),
                ]
            })
        }
        DisplacedCommand::Show { id } => {
            let (row, bytes) = client.displaced_show(&id).await?;
            let value = if row.too_long.is_some() { Value::Null } else { json_of(&row.topic_type, &bytes) };
            if context.output.json {
                let mut object = serde_json::to_value(&row)?;
                if let Some(object) = object.as_object_mut() {
                    object.insert("value".into(), value);
                }
                return context.output.json_line(&object);
            }
            let value = match &row.too_long {
                Some(hash) => format!("too long to be kept: {}, BLAKE3 {hash}", bytes_text(row.value_bytes)),
                None => value.to_string(),
            };
            let winner_epoch = row.winner_epoch.map(|epoch| format!(", epoch {epoch}")).unwrap_or_default();
            let lost_to = lost_to(&row);
            context.output.record(&[
                ("id", row.id),
                ("path", row.path),
                ("type", row.topic_type),
                ("writer", row.writer),
                ("written", time_text(row.unix_ms)),
                ("stamp", format!("{}, epoch {}", row.stamp, row.epoch)),
                ("value", value),
                ("lost to", lost_to),
                ("winner", format!("{}{winner_epoch}", row.winner)),
            ])
        }
        DisplacedCommand::Restore { id } => {
            client.displaced_restore(&id).await?;
            context.output.done(&json!({ "restored": id }), "written again, as new")
        }
    }
}

#[cfg(test)]
mod tests {
    use mangrove_crdt::definition::TopicType;

    use super::*;

    #[test]
    fn a_selector_may_be_a_path() {
        assert!(is_path("a/b") && is_path("flights/EWR/UA1"));
        for selector in ["?a//", ">a", "*.*", "#a////b", "mqtt:a/+"] {
            assert!(!is_path(selector), "{selector}");
        }
    }

    #[test]
    fn a_property_is_given_once() {
        let twice = vec![("durability".to_owned(), "disk".to_owned()), ("durability".to_owned(), "memory".to_owned())];
        assert!(spec("json".into(), twice.clone()).is_err());
        assert_eq!(spec_text(&spec("json".into(), twice[..1].to_vec()).unwrap()), "json durability=disk");
    }

    #[test]
    fn an_exported_value_is_one_that_publish_takes() {
        let bytes = value::from_json(&TopicType::Json, &json!({ "dest": "IAH" })).unwrap();
        let row =
            ValueRow { path: "a/b".into(), topic_type: "json".into(), value: Some(bytes), unix_ms: Some(0), stamp: None, event: None };
        let line = value_json(&row).to_string();
        assert_eq!(line, r#"{"path":"a/b","time":"1970-01-01T00:00:00Z","type":"json","value":{"dest":"IAH"}}"#);
        super::super::publish::Line::parse(line.as_bytes()).unwrap();
    }
}
