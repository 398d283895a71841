//! Topics and their values.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use mangrove_crdt::{
    blob::{BLOB_BYTES_MAX, BlobHash},
    definition::TYPE_PROPERTIES,
    json_schema::JsonSchema,
    protobuf, value,
};
use serde_json::{Value, json};

use super::args::{DisplacedCommand, Get, Patch, Set, TopicCommand, TypeFiles};
use super::events::event_json;
use super::output::{JsonArray, bytes_text, count_text, json_of, plural, raw_of, time_text};
use super::reader::Reader;
use super::{Context, Failure, all_pages, refusal_text};
use crate::client::{Changed, Client, ClientError};
use crate::protocol::{
    BlobRow, Change, Code, DisplacedRow, EventRow, EventsWanted, ITEMS_MAX, ListState, PAGE_MAX, Page, PastRow, Refusal, TopicDetail,
    TopicRow, TopicSpec, VALUE_MAX, ValueRow, Wish,
};

/// A definition as it is asked for, and the blob that its files are.
struct Asked {
    spec: TopicSpec,
    blob: Option<Vec<u8>>,
}

impl Asked {
    /// Nothing, if nothing says what type.
    fn new(topic_type: Option<String>, properties: Vec<(String, String)>, files: TypeFiles) -> Result<Option<Asked>, Failure> {
        let twice = |key: &str| Failure::usage(format!("property {key} is given twice"));
        let implied = if files.proto.is_some() { Some("protobuf") } else { files.wasm.as_ref().map(|_| "custom") };
        let Some(topic_type) = topic_type.or(implied.map(String::from)) else {
            return match properties.first() {
                None => Ok(None),
                Some((key, _)) => Err(Failure::usage(format!("property {key} is of a topic to be made: give its type, too: --type"))),
            };
        };
        let mut map = BTreeMap::new();
        for (key, value) in properties {
            if map.insert(key.clone(), value).is_some() {
                return Err(twice(&key));
            }
        }
        let mut asked = Asked { spec: TopicSpec { topic_type, properties: BTreeMap::new() }, blob: None };
        if let (Some(proto), Some(message)) = (&files.proto, &files.message) {
            let compiled = crate::proto::compile(proto, &files.includes, message).map_err(Failure::usage)?;
            asked.put("descriptors", compiled.set);
            asked.spec.properties.insert("message".into(), compiled.message);
        }
        if let Some(wasm) = &files.wasm {
            asked.put("module", read_file(wasm)?);
        }
        let message = map.get("message").cloned();
        for (key, value) in map {
            if asked.spec.properties.contains_key(&key) {
                return Err(twice(&key));
            }
            match (key.as_str(), value.strip_prefix('@').map(Path::new)) {
                ("schema", Some(path)) => {
                    let text = String::from_utf8(read_file(path)?);
                    let text = text.map_err(|_| Failure::usage(format!("{}: a schema is JSON, and that is UTF-8", path.display())))?;
                    asked.spec.properties.insert(key, text);
                }
                ("descriptors", Some(path)) => {
                    let message = message.as_deref().ok_or_else(|| Failure::usage("which of these messages? give message=NAME, too"))?;
                    let set = protobuf::minimal(&read_file(path)?, message);
                    asked.put("descriptors", set.map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?);
                }
                ("module", Some(path)) => asked.put("module", read_file(path)?),
                _ => _ = asked.spec.properties.insert(key, value),
            }
        }
        Ok(Some(asked))
    }

    fn put(&mut self, key: &str, content: Vec<u8>) {
        self.spec.properties.insert(key.into(), format!("blob:{}", BlobHash::of(&content)));
        self.blob = Some(content);
    }
}

/// What a file says, of which no more is read than any topic's definition can need.
fn read_file(path: &Path) -> Result<Vec<u8>, Failure> {
    let wrong = |error| Failure::usage(format!("{}: {error}", path.display()));
    let mut content = Vec::new();
    File::open(path).map_err(wrong)?.take(BLOB_BYTES_MAX as u64 + 1).read_to_end(&mut content).map_err(wrong)?;
    Ok(content)
}

/// Brings what a definition has no room for: its files, and a schema that is too long.
async fn bring(client: &Client, Asked { mut spec, blob }: Asked) -> Result<TopicSpec, Failure> {
    if let Some(content) = blob {
        client.put_blob(&content).await?;
    }
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
        TopicCommand::Add { paths, topic_type, properties, files } => {
            let asked = Asked::new(topic_type, properties, files)?.ok_or_else(|| Failure::usage("of what type?"))?;
            let spec = bring(&client, asked).await?;
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
    let add = Asked::new(set.topic_type, set.properties, set.files)?;
    let client = context.connect().await?;
    let add = match add {
        Some(asked) => Some(bring(&client, asked).await?),
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
    let given = read_value(patch.patch.as_ref().or(patch.delta.as_ref()).map_or("", String::as_str)).await?;
    let wish = match patch.delta {
        Some(_) => Wish::Delta(given),
        None => Wish::Patch(String::from_utf8(given).map_err(|_| Failure::usage("a patch is JSON, and that is UTF-8"))?),
    };
    let client = context.connect().await?;
    change(context, &client, Change { constraint: patch.constraint, ..Change::new(&patch.path, wish) }).await
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
    let (mut pages, mut reader) = (Pages::new(&client, &get.selector), Reader::new(&client));
    while let Some(rows) = pages.next().await? {
        for row in rows {
            match (&mut array, &row.value) {
                (Some(array), _) => array.item(&mut context.output, &value_json(&row, shown(&mut reader, &row).await?))?,
                (None, None) => {}
                (None, Some(value)) if get.raw => {
                    context.output.bytes(&raw_of(&row.topic_type, value))?;
                    context.output.line("")?;
                }
                (None, Some(_)) => context.output.line(format!("{}\t{}", row.path, shown(&mut reader, &row).await?))?,
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
        let json = shown(&mut Reader::new(client), &row).await?;
        return context.output.json_line(&value_json(&row, json));
    }
    let Some(value) = &row.value else {
        return Err(Failure::refused(format!("{}: the topic has no value yet", row.path)));
    };
    if get.raw {
        return context.output.bytes(&raw_of(&row.topic_type, value));
    }
    context.output.line(shown(&mut Reader::new(client), &row).await?.to_string())
}

/// A topic's value as JSON, null where there is none.
async fn shown(reader: &mut Reader<'_>, row: &ValueRow) -> Result<Value, Failure> {
    match &row.value {
        Some(value) => reader.json(&row.topic_type, row.spec.as_ref(), value).await,
        None => Ok(Value::Null),
    }
}

/// A value as `get` prints it.
fn value_json(row: &ValueRow, value: Value) -> Value {
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

/// The type of topics that keep events.
const TIME_SERIES: &str = "timeseries";

pub(super) async fn export(context: &mut Context, selector: &str) -> Result<(), Failure> {
    let client = context.connect().await?;
    let progress = super::progress(None, "exporting");
    // What must be said with a type for a topic to be made with it. Few have any.
    let mut parameters: HashMap<String, Arc<BTreeMap<String, String>>> = HashMap::new();
    let mut last = Arc::default();
    // What slaves show is their masters', lists are no values and belong to their node, and what is in the others nobody here knows.
    let (mut left_out, mut unknown, mut paged, mut brought): (HashSet<String>, u64, u64, HashSet<BlobHash>) = Default::default();
    let mut series: Vec<(String, Arc<BTreeMap<String, String>>)> = Vec::new();
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
            let is_series = topic_type == TIME_SERIES;
            properties.retain(|key, _| TYPE_PROPERTIES.contains(&key.as_str()));
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
                if is_series {
                    // Of these all events go, and not only the newest.
                    left_out.insert(path.clone());
                    series.push((path, Arc::clone(&last)));
                } else {
                    parameters.insert(path, Arc::clone(&last));
                }
            }
        }
        (more, after) = (next.is_some(), next);
    }
    let (mut pages, mut reader) = (Pages::new(&client, selector), Reader::new(&client));
    while let Some(rows) = pages.next().await? {
        for row in rows.iter().filter(|row| row.value.is_some() && !left_out.contains(&row.path)) {
            let (json, bytes) = (shown(&mut reader, row).await?, row.value.as_deref().unwrap_or_default());
            let whole = reader.is_whole(row.spec.as_ref(), &json, bytes);
            let mut line = value_json(row, json);
            if !whole {
                line["bytes"] = json_of("binary", bytes);
            }
            if let Some(parameters) = parameters.get(&row.path) {
                line["properties"] = json!(**parameters);
            }
            context.output.json_line(&line)?;
        }
        progress.inc(rows.len() as u64);
    }
    for (path, properties) in series {
        let spec = TopicSpec { topic_type: TIME_SERIES.into(), properties: (*properties).clone() };
        let (mut after, mut more) = (None, true);
        while more {
            let (rows, next) = client.events(&path, EventsWanted::default(), Page { after, limit: PAGE_MAX }).await?;
            for EventRow { mark, value } in &rows {
                let (json, time) = (reader.json_as(&spec, value).await?, time_text(mark.unix_ms));
                let whole = reader.is_whole(Some(&spec), &json, value);
                let mut line = json!({ "path": path, "type": TIME_SERIES, "properties": *properties, "value": json, "time": time });
                if !whole {
                    line["bytes"] = json_of("binary", value);
                }
                context.output.json_line(&line)?;
            }
            progress.inc(rows.len() as u64);
            (more, after) = (next.is_some(), next);
        }
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
            let value = match (&row.too_long, &row.spec) {
                (Some(_), _) => Value::Null,
                (None, Some(spec)) => Reader::new(&client).json_as(spec, &bytes).await?,
                (None, None) => json_of(&row.topic_type, &bytes),
            };
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
        let asked = |properties: &[(String, String)]| Asked::new(Some("json".into()), properties.to_vec(), TypeFiles::default());
        assert!(asked(&twice).is_err());
        assert_eq!(spec_text(&asked(&twice[..1]).unwrap().unwrap().spec), "json durability=disk");
        assert!(Asked::new(None, twice[..1].to_vec(), TypeFiles::default()).is_err());
        assert!(Asked::new(None, Vec::new(), TypeFiles::default()).unwrap().is_none());
    }

    #[test]
    fn an_exported_value_is_one_that_publish_takes() {
        let bytes = value::from_json(&TopicType::Json, &json!({ "dest": "IAH" })).unwrap();
        let row = ValueRow {
            path: "a/b".into(),
            topic_type: "json".into(),
            value: Some(bytes),
            unix_ms: Some(0),
            stamp: None,
            event: None,
            spec: None,
        };
        let line = value_json(&row, json!({ "dest": "IAH" })).to_string();
        assert_eq!(line, r#"{"path":"a/b","time":"1970-01-01T00:00:00Z","type":"json","value":{"dest":"IAH"}}"#);
        super::super::publish::Line::parse(line.as_bytes()).unwrap();
    }
}
