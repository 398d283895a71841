//! Lines of paged topics.

use serde_json::json;

use super::args::PageCommand;
use super::output::{count_text, plural};
use super::topics::read_value;
use super::{Context, Failure};
use crate::client::{Client, ClientError};
use crate::protocol::{Change, ITEMS_MAX, ListState, PAGE_MAX, Splice, Wish};

/// How often a list that changes while it is read is read anew.
const READS_MAX: usize = 10;

pub(super) async fn page(context: &mut Context, command: PageCommand) -> Result<(), Failure> {
    let (path, splice, constraint) = match command {
        PageCommand::Append { path, lines, constraint } => (path, Splice::append(read(lines).await?), constraint),
        PageCommand::Insert { path, at, lines, constraint } => (path, Splice::insert(at, read(lines).await?), constraint),
        PageCommand::Replace { path, from, lines, constraint } => (path, Splice::replace(from, read(lines).await?), constraint),
        PageCommand::Rm { path, from: Some(from), to, constraint, .. } => {
            let count = to.unwrap_or(from).checked_sub(from).ok_or_else(|| Failure::usage("the last line comes before the first"))?;
            (path, Splice::remove(from, count.saturating_add(1)), constraint)
        }
        PageCommand::Rm { path, from: None, constraint, .. } => (path, Splice::clear(), constraint),
        PageCommand::Show { path, page: Some(page), size, .. } => {
            let from = (page - 1).saturating_mul(size).saturating_add(1);
            return show(context, &path, from, Some(size)).await;
        }
        PageCommand::Show { path, from, count, .. } => return show(context, &path, from, count).await,
    };
    let client = context.connect().await?;
    let changed = client.change(Change { constraint, ..Change::new(&path, Wish::Lines(splice)) }).await?;
    let Some(list) = changed.list else { return Err(Failure::refused("the node does not say what the list has come to")) };
    context.output.done(&json!({ "path": path, "list": list }), format!("{} in {path}", plural(list.lines, "line")))
}

/// The lines that arguments stand for: `-` and `@FILE` are read.
async fn read(arguments: Vec<String>) -> Result<Vec<String>, Failure> {
    let [argument] = arguments.as_slice() else { return Ok(arguments) };
    if argument != "-" && !argument.starts_with('@') {
        return Ok(arguments);
    }
    let text = String::from_utf8(read_value(argument).await?).map_err(|_| Failure::usage("lines are UTF-8 text"))?;
    let lines: Vec<String> = text.lines().map(str::to_owned).collect();
    match lines.len() {
        count if count > ITEMS_MAX => {
            let (count, most) = (count_text(count as u64), count_text(ITEMS_MAX as u64));
            Err(Failure::usage(format!("these are {count} lines, and at most {most} go at once")))
        }
        _ => Ok(lines),
    }
}

async fn show(context: &mut Context, path: &str, from: u64, count: Option<u64>) -> Result<(), Failure> {
    let client = context.connect().await?;
    for _ in 0..READS_MAX {
        let Some((lines, list)) = read_part(&client, path, from, count.unwrap_or(u64::MAX)).await? else { continue };
        if context.output.json {
            return context.output.json_line(&json!({ "path": path, "from": from, "lines": lines, "list": list }));
        }
        return lines.iter().zip(from..).try_for_each(|(line, number)| context.output.line(format!("{number}\t{line}")));
    }
    Err(Failure::refused(format!("{path} changes faster than it can be read")).hint("ask for fewer lines: --from, --count"))
}

/// So many lines of one list; `None` if it has changed meanwhile.
async fn read_part(client: &Client, path: &str, from: u64, count: u64) -> Result<Option<(Vec<String>, ListState)>, ClientError> {
    let (mut lines, list) = client.lines(path, from, count.min(PAGE_MAX.into()) as u32).await?;
    let end = from.saturating_add(count).min(list.lines + 1);
    while from + (lines.len() as u64) < end {
        let at = from + lines.len() as u64;
        let (more, present) = client.lines(path, at, (end - at).min(PAGE_MAX.into()) as u32).await?;
        if present.revision != list.revision || more.is_empty() {
            return Ok(None);
        }
        lines.extend(more);
    }
    lines.truncate(usize::try_from(count).unwrap_or(usize::MAX));
    Ok(Some((lines, list)))
}
