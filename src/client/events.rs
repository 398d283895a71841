//! Events of time series.

use super::{Changed, Client, ClientError, Request, Response, unexpected};
use crate::protocol::{Change, EventRow, EventsWanted, Page, Wish};

impl Client {
    /// A page of the events of a time series, in their order, and where the next one starts.
    ///
    /// # Errors
    /// [`Code::InvalidRequest`](crate::protocol::Code::InvalidRequest) if the topic is none.
    pub async fn events(&self, path: &str, wanted: EventsWanted, page: Page) -> Result<(Vec<EventRow>, Option<String>), ClientError> {
        match self.request(Request::Events { path: path.into(), wanted, page }).await? {
            Response::Events { rows, next } => Ok((rows, next)),
            other => Err(unexpected(&other)),
        }
    }

    /// Writes an event anew, in its place: bytes of the type that the topic's events are of.
    ///
    /// # Errors
    /// [`Code::NoSuchEvent`](crate::protocol::Code::NoSuchEvent), or
    /// [`Code::AmbiguousEvent`](crate::protocol::Code::AmbiguousEvent) where both sides of a split have appended one of its sequence; and as any write.
    pub async fn edit_event(&self, path: &str, event: &str, value: Vec<u8>) -> Result<Changed, ClientError> {
        self.change(Change::new(path, Wish::Edit { event: event.into(), value })).await
    }
}
