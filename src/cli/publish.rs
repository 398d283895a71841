//! `mangrove publish`: many values from a file or pipe.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use indicatif::ProgressBar;
use mangrove_crdt::definition::{Definition, TYPE_PROPERTIES};
use mangrove_crdt::value;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::time::Instant;

use super::args::{Claiming, Publish};
use super::output::{bytes_text, count_text, parse_time, plural};
use super::topics::INEXACT;
use super::{Context, Failure, refusal_text, source};
use crate::client::{Client, ClientError, PublishReport, Publisher, Source};
use crate::protocol::{Code, Refusal, SourceState, TopicSpec, VALUE_MAX};

/// The longest line: a value of the greatest length, each byte of it escaped.
const LINE_MAX: u64 = VALUE_MAX as u64 * 6;
/// How long at most a value waits for others to share its batch while replaying by time.
const PAUSE_MIN: Duration = Duration::from_millis(1);

/// One line of the input.
#[derive(Debug, Deserialize)]
pub(super) struct Line {
    path: String,
    value: Value,
    /// The value itself in base64, where its JSON does not say all of it.
    bytes: Option<String>,
    #[serde(default)]
    time: Option<Value>,
    #[serde(default, rename = "type")]
    topic_type: Option<String>,
    #[serde(default)]
    properties: BTreeMap<String, String>,
}

impl Line {
    pub(super) fn parse(bytes: &[u8]) -> Result<Line, String> {
        let line: Line = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        line.unix_ms()?;
        Ok(line)
    }

    /// Its time in milliseconds since 1970: a number of them, or an RFC 3339 text.
    fn unix_ms(&self) -> Result<Option<u64>, String> {
        match &self.time {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Number(number)) => number.as_u64().map(Some).ok_or_else(|| "a time in numbers is milliseconds since 1970".into()),
            Some(Value::String(text)) => {
                parse_time(text).map(Some).ok_or_else(|| format!("{text:?} is not a time such as 2013-01-01T05:17:00Z"))
            }
            Some(_) => Err("a time is a number or a text".into()),
        }
    }
}

/// A line that brings a blob, for the definitions of those that follow.
#[derive(Debug, Deserialize)]
struct Brought {
    blob: String,
}

pub(super) async fn publish(context: &mut Context, publish: &Publish) -> Result<(), Failure> {
    let (input, length): (Box<dyn AsyncBufRead + Send + Unpin>, Option<u64>) = match publish.file.as_str() {
        "-" => (Box::new(BufReader::new(tokio::io::stdin())), None),
        path => {
            let cannot = |error| Failure::usage(format!("{path}: {error}"));
            let file = tokio::fs::File::open(path).await.map_err(cannot)?;
            let length = file.metadata().await.map_err(cannot)?.len();
            (Box::new(BufReader::with_capacity(256 << 10, file)), Some(length))
        }
    };
    let client = context.connect().await?;
    let held = match &publish.source {
        Some(branch) => Some(active(&client, branch, publish).await?),
        None => None,
    };
    let start = Instant::now();
    let progress = super::progress(length, "publishing");
    let source = held.as_ref().map(|held| &held.source);
    let mut replay =
        Replay { publish, pace: Pace::new(publish.speed), publishers: BTreeMap::new(), found: HashMap::new(), client: &client, source };
    let read = tokio::select! {
        result = replay.lines(input, &progress) => result,
        // What was read so far is still finished below.
        _ = tokio::signal::ctrl_c() => Ok(()),
        failure = lost(held.as_ref()) => Err(failure),
    };
    let report = replay.finish().await?;
    progress.finish_and_clear();
    let ms = start.elapsed().as_millis() as u64;
    tell(context, &report, ms)?;
    let closed = close(&client, held).await;
    read?;
    judge(&report)?;
    closed
}

/// A source that may write.
struct Held {
    source: Source,
    epoch: u64,
}

/// Claims a branch, and waits until nobody else has it.
async fn active(client: &Client, branch: &str, publish: &Publish) -> Result<Held, Failure> {
    let claiming = Claiming { no_wait: publish.no_wait, priority: publish.priority };
    // It does not come back to its session: so that ends with the connection.
    client.open_session(Some(Duration::ZERO)).await?;
    let mut source = source::claim(client, branch, &claiming, None).await?;
    let mut interrupted = std::pin::pin!(tokio::signal::ctrl_c());
    let mut state = SourceState::Init;
    loop {
        match state {
            SourceState::Active { epoch } if source.state() == state => return Ok(Held { source, epoch }),
            SourceState::Init | SourceState::Active { .. } => {}
            SourceState::Standby { why, .. } => eprintln!("waiting to write {branch}: {why}"),
            SourceState::Closed { reason, why } => {
                return Err(Failure::refused(format!("{branch}: the source was closed: {why} [{reason}]")));
            }
        }
        state = tokio::select! {
            changed = source.changed() => changed?,
            _ = &mut interrupted => return Err(Failure::refused(format!("{branch}: interrupted while waiting; nothing was written"))),
        };
    }
}

/// Waits until the right to write is lost; for ever where it is nobody's.
async fn lost(held: Option<&Held>) -> Failure {
    match held {
        Some(held) => held.source.ended(held.epoch).await.into(),
        None => std::future::pending().await,
    }
}

async fn close(client: &Client, held: Option<Held>) -> Result<(), Failure> {
    if let Some(held) = held {
        held.source.close().await?;
        client.close_session().await?;
    }
    Ok(())
}

fn judge(report: &PublishReport) -> Result<(), Failure> {
    match report.refusals.first() {
        None => Ok(()),
        Some(first) => {
            let message = format!("{} refused; the first: {}", plural(report.refused, "value"), refusal_text(first));
            Err(Failure { message, ..Failure::from(first.clone()) })
        }
    }
}

fn tell(context: &mut Context, report: &PublishReport, ms: u64) -> Result<(), Failure> {
    let PublishReport { written, created, refused, value_bytes, refusals, inexact } = report;
    let refusals: &[Refusal] = refusals;
    let json = json!({
        "written": written, "created": created, "refused": refused, "value_bytes": value_bytes, "ms": ms, "refusals": refusals,
        "inexact": inexact,
    });
    let rate = count_text(written.saturating_mul(1_000) / ms.max(1));
    let sentence =
        format!("{} written, {} made, {}, {rate} values/s", plural(*written, "value"), plural(*created, "topic"), bytes_text(*value_bytes));
    context.output.done(&json, sentence)?;
    if *inexact > 0 && !context.output.json {
        context.output.line(format!("{} begun: {INEXACT}", plural(*inexact, "topic")))?;
    }
    Ok(())
}

/// When the next line is due.
struct Pace {
    speed: Option<f64>,
    /// The moment of the first line that had a time, and that time.
    origin: Option<(Instant, u64)>,
}

impl Pace {
    fn new(speed: Option<f64>) -> Self {
        Pace { speed, origin: None }
    }

    /// How long to wait before a line of the given time.
    fn wait(&mut self, unix_ms: Option<u64>, now: Instant) -> Duration {
        let (Some(speed), Some(unix_ms)) = (self.speed, unix_ms) else { return Duration::ZERO };
        let (start, first) = *self.origin.get_or_insert((now, unix_ms));
        let due = Duration::try_from_secs_f64(unix_ms.saturating_sub(first) as f64 / 1_000.0 / speed).unwrap_or(Duration::MAX);
        due.saturating_sub(now.duration_since(start))
    }
}

struct Replay<'a> {
    publish: &'a Publish,
    pace: Pace,
    /// By the type and properties of the topics that they make.
    publishers: BTreeMap<TopicSpec, (Definition, Publisher)>,
    /// What those topics are of which the lines say only that they are protobuf, or of a custom type.
    found: HashMap<String, TopicSpec>,
    client: &'a Client,
    /// As whom to write.
    source: Option<&'a Source>,
}

impl Replay<'_> {
    async fn lines(&mut self, mut input: Box<dyn AsyncBufRead + Send + Unpin>, progress: &ProgressBar) -> Result<(), Failure> {
        let mut bytes = Vec::new();
        for number in 1_u64.. {
            bytes.clear();
            let wrong =
                |what: String| Failure::usage(format!("line {number}: {what}")).hint("one JSON object {\"path\", \"value\"} a line");
            let read = (&mut input).take(LINE_MAX + 1).read_until(b'\n', &mut bytes).await?;
            if read == 0 {
                break;
            }
            if read as u64 > LINE_MAX {
                return Err(wrong(format!("longer than {LINE_MAX} bytes")));
            }
            progress.inc(read as u64);
            if !bytes.trim_ascii().is_empty() {
                match Line::parse(&bytes) {
                    Ok(line) => self.line(line, wrong).await?,
                    Err(why) => {
                        let Ok(Brought { blob }) = serde_json::from_slice(&bytes) else { return Err(wrong(why)) };
                        let content = value::from_base64(&blob).map_err(|error| wrong(error.to_string()))?;
                        self.client.put_blob(&content).await?;
                    }
                }
            }
        }
        Ok(())
    }

    async fn line(&mut self, line: Line, wrong: impl Fn(String) -> Failure) -> Result<(), Failure> {
        let wait = self.pace.wait(line.unix_ms().map_err(&wrong)?, Instant::now());
        if wait > PAUSE_MIN {
            for (_, publisher) in self.publishers.values_mut() {
                publisher.send().await?;
            }
            tokio::time::sleep(wait).await;
        }
        let name = line.topic_type.as_deref().unwrap_or(&self.publish.topic_type);
        let mut made = TopicSpec { topic_type: name.to_owned(), properties: line.properties };
        if matches!(name, "protobuf" | "custom") && made.properties.is_empty() {
            made = self.found(&line.path, made).await?;
        }
        if !self.publishers.contains_key(&made) {
            let definition = made.definition().map_err(|error| wrong(error.to_string()))?;
            self.client.supply(&definition).await?;
            let add = Some(made.clone());
            let publisher = self.source.map_or_else(|| self.client.publisher(add.clone()), |source| source.publisher(add.clone()));
            let mut publisher = publisher.durability(self.publish.durability);
            if let Some(constraint) = &self.publish.constraint {
                publisher = publisher.only_if(constraint);
            }
            self.publishers.insert(made.clone(), (definition, publisher));
        }
        let Some((definition, publisher)) = self.publishers.get_mut(&made) else { return Ok(()) };
        let value = match &line.bytes {
            Some(bytes) => value::from_base64(bytes),
            None => value::from_json(definition.topic_type(), &line.value),
        };
        let value = value.map_err(|error| wrong(error.to_string()))?;
        Ok(publisher.set(&line.path, value).await?)
    }

    /// What a topic is, if it is there and of this type.
    async fn found(&mut self, path: &str, said: TopicSpec) -> Result<TopicSpec, Failure> {
        if let Some(found) = self.found.get(path) {
            return Ok(found.clone());
        }
        match self.client.topic(path).await {
            Ok(detail) if detail.topic.topic_type == said.topic_type => {
                let mut spec = detail.topic;
                spec.properties.retain(|key, _| TYPE_PROPERTIES.contains(&key.as_str()));
                self.found.insert(path.to_owned(), spec.clone());
                Ok(spec)
            }
            Ok(_) => Ok(said),
            Err(ClientError::Refused(refusal)) if refusal.code == Code::NoSuchTopic => Ok(said),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends the rest, waits for all answers, and adds the reports up.
    async fn finish(self) -> Result<PublishReport, Failure> {
        let mut sum = PublishReport::default();
        for (_, publisher) in self.publishers.into_values() {
            let report = publisher.finish().await?;
            sum.written += report.written;
            sum.created += report.created;
            sum.refused += report.refused;
            sum.value_bytes += report.value_bytes;
            sum.refusals.extend(report.refusals);
            sum.inexact += report.inexact;
        }
        Ok(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_a_path_and_a_value() {
        let line = Line::parse(br#"{"path":"a","value":null,"time":"2013-01-01T05:17"}"#).unwrap();
        assert_eq!((line.path.as_str(), &line.value, line.unix_ms()), ("a", &Value::Null, Ok(Some(1_357_017_420_000))));
        assert_eq!(Line::parse(br#"{"path":"a","value":1,"time":12}"#).unwrap().unix_ms(), Ok(Some(12)));
        for wrong in [
            r#"{"path":"a"}"#,
            r#"{"value":1}"#,
            r#"{"path":"a","value":1,"time":"noon"}"#,
            "",
            "[]",
            r#"{"path":"a","value":1,"time":-1}"#,
        ] {
            assert!(Line::parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_replay_keeps_the_distances() {
        let start = Instant::now();
        let mut pace = Pace::new(Some(60.0));
        assert_eq!(pace.wait(Some(600_000), start), Duration::ZERO);
        assert_eq!(pace.wait(Some(660_000), start), Duration::from_secs(1));
        assert_eq!(pace.wait(Some(660_000), start + Duration::from_secs(2)), Duration::ZERO);
        // Back in time, without a time: at once.
        assert_eq!(pace.wait(Some(0), start), Duration::ZERO);
        assert_eq!(pace.wait(None, start), Duration::ZERO);
        assert_eq!(Pace::new(None).wait(Some(1), start), Duration::ZERO);
    }
}
