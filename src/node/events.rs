//! Events of time series: reading them, and what clients are told of one.

use std::sync::Arc;

use mangrove_crdt::{
    access::Permission,
    registers::Write,
    replica::{EventRange, Replica, SetError},
    series::{Content, EventIx, EventName},
};

use super::{
    ConnectionId, Node, Now,
    requests::{no_such_topic, parse_topic_path},
};
use crate::protocol::{Code, Edited, EventMark, EventRow, EventsWanted, FRAME_AIM, PAGE_MAX, Page, Refusal, Response};

#[cfg(test)]
mod tests;

impl Node {
    pub(super) fn event_rows(
        &self,
        now: Now,
        session: ConnectionId,
        path: &str,
        wanted: &EventsWanted,
        page: &Page,
    ) -> Result<Response, Refusal> {
        let path = parse_topic_path(path)?;
        self.permitted(session, Permission::Read, &path)?;
        self.locate(&path)?;
        let shown = self.replica.shown(&path).ok_or_else(|| no_such_topic(&path))?;
        let (section, topic) = shown.of;
        let topic_type = topic.definition.topic_type();
        topic_type.series().ok_or_else(|| self.set_refusal(&path, SetError::NoSeries(topic_type.name())))?;
        let after = page.after.as_deref().map(|after| parse_event(path.as_str(), after)).transpose()?;
        let limit = page.limit.clamp(1, PAGE_MAX) as usize;
        let range = EventRange {
            sequences: wanted.from.unwrap_or(0)..=wanted.to.unwrap_or(u64::MAX),
            times_ms: wanted.since_unix_ms.unwrap_or(0)..=wanted.until_unix_ms.unwrap_or(u64::MAX),
            last: wanted.last.map(|last| usize::try_from(last).unwrap_or(usize::MAX)),
            after,
            limit: limit + 1,
        };
        let mut rows = Vec::new();
        let (mut next, mut bytes) = (None, 0);
        for told in self.replica.events(section, topic, now.unix_ms, &range) {
            if rows.len() == limit || bytes > FRAME_AIM {
                next = rows.last().map(|row: &EventRow| row.mark.event.to_string());
                break;
            }
            let (Some(mark), Some(value)) =
                (mark_of(&self.replica, told.event, told.write), told.write.value.as_deref().and_then(Content::value_of))
            else {
                continue;
            };
            bytes += value.len() + 64;
            rows.push(EventRow { mark, value: value.to_vec() });
        }
        Ok(Response::Events { rows, next })
    }
}

/// An event's name as a client writes it.
pub(super) fn parse_event(path: &str, text: &str) -> Result<EventName, Refusal> {
    text.parse().map_err(|why: String| Refusal::new(Code::InvalidRequest, path, why))
}

/// What is said of an event.
pub(super) fn mark_of(replica: &Replica, event: EventIx, write: &Write) -> Option<EventMark> {
    let Content { author, original, .. } = Content::from_bytes(write.value.as_deref()?)?;
    let last = Edited { author: author.into(), unix_ms: write.time_ms };
    let (first, edited) = match original {
        Some((author, unix_ms)) => (Edited { author: author.into(), unix_ms }, Some(last)),
        None => (last, None),
    };
    Some(EventMark { event: event.name(replica.origins()), author: first.author, unix_ms: first.unix_ms, edited })
}

/// The value in an event's register, as bytes of their own.
pub(super) fn value_of(write: &Write) -> Option<Arc<[u8]>> {
    Content::value_of(write.value.as_deref()?).map(Arc::from)
}
