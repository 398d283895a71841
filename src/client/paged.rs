//! Lines of paged topics, which live on the node alone where they were made.

use super::{Client, ClientError, Request, Response, unexpected};
use crate::protocol::{Change, ListState, Splice, Wish};

impl Client {
    /// Lines of a paged topic from one on, the first of which is 1: so many at most, and fewer where they are long; and what the list had come to. Whoever goes on with
    /// the next ones, and finds another [`ListState::revision`], reads another list.
    ///
    /// # Errors
    /// [`Code::InvalidRequest`](crate::protocol::Code::InvalidRequest) if the topic is none.
    pub async fn lines(&self, path: &str, from: u64, count: u32) -> Result<(Vec<String>, ListState), ClientError> {
        match self.request(Request::Lines { path: path.into(), from, count }).await? {
            Response::Lines { lines, list } => Ok((lines, list)),
            other => Err(unexpected(&other)),
        }
    }

    /// Changes the lines of a paged topic; what the list has come to. To do so only if something is so, such as `/revision is 17`: [`Client::change`].
    ///
    /// # Errors
    /// [`Code::NoSuchLine`](crate::protocol::Code::NoSuchLine) where the list does not reach so far, [`Code::TooLarge`](crate::protocol::Code::TooLarge) where it would become
    /// too long; and as any write.
    pub async fn edit_lines(&self, path: &str, splice: Splice) -> Result<ListState, ClientError> {
        let changed = self.change(Change::new(path, Wish::Lines(splice))).await?;
        changed.list.ok_or_else(|| ClientError::Protocol("an edit of a list is answered without it".into()))
    }
}
