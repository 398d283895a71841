//! Blobs on their way from clients and to them. How they come to other nodes is in [`mangrove_net::blobs`].
//!
//! A client brings a blob before it makes the topics that name it, in pieces that fit between other requests. Until something names it, it is kept for a minute.

use std::{sync::Arc, time::Duration};

use mangrove_crdt::{
    blob::{BLOB_BYTES_MAX, BlobError, BlobHash},
    definition::Definition,
    time::Instant,
};

use super::{ConnectionId, Node, Now, connections::Connection, requests::closing};
use crate::protocol::{BLOB_PIECE_MAX, BlobRow, Code, Refusal, Response};

/// How many bytes of blobs may be on their way from all clients at once.
const UPLOADS_BYTES_MAX: usize = 8 * BLOB_BYTES_MAX;

/// After how long without another piece an upload is given up.
const STALE: Duration = Duration::from_secs(30);

/// A blob that a client is bringing.
#[derive(Debug)]
pub(super) struct Upload {
    hash: BlobHash,
    total: usize,
    bytes: Vec<u8>,
    /// When the last piece came.
    moved: Instant,
}

impl Node {
    /// A piece of a blob: how far that has come. A piece that does not follow what is here is not taken.
    pub(super) fn blob_put(
        &mut self,
        now: Now,
        connection: ConnectionId,
        hash: BlobHash,
        offset: u64,
        total: u64,
        bytes: &[u8],
    ) -> Result<Response, Refusal> {
        self.writable()?;
        let refused = |code, why: String| Refusal::new(code, hash.to_string(), why);
        let unfit = |error: BlobError| refused(code_of(&error), error.to_string());
        if let Some(content) = self.replica.blobs().get(&hash) {
            return Ok(Response::BlobPut { upto: content.len() as u64 });
        }
        let total = usize::try_from(total).unwrap_or(usize::MAX);
        self.replica.blobs().room_for(total).map_err(unfit)?;
        if bytes.len() > BLOB_PIECE_MAX {
            return Err(refused(Code::TooLarge, format!("a piece of a blob has at most {BLOB_PIECE_MAX} bytes")));
        }
        let uploads = self.connections.iter().filter(|(other, _)| **other != connection).filter_map(|(_, client)| client.upload.as_ref());
        if uploads.map(|upload| upload.total).sum::<usize>() + total > UPLOADS_BYTES_MAX {
            return Err(
                Refusal::new(Code::NotReady, hash.to_string(), "too many clients bring blobs at once").hint("try again in a moment")
            );
        }
        let client = self.connections.get_mut(&connection).ok_or_else(closing)?;
        if offset == 0 {
            client.upload = Some(Upload { hash, total, bytes: Vec::new(), moved: now.at });
        }
        let upload = match &mut client.upload {
            Some(upload) if (upload.hash, upload.total) == (hash, total) => upload,
            _ => return Ok(Response::BlobPut { upto: 0 }),
        };
        if offset == upload.bytes.len() as u64 {
            if bytes.len() > total - upload.bytes.len() {
                client.upload = None;
                return Err(refused(Code::InvalidRequest, format!("it goes on after the {total} bytes that it was to have")));
            }
            upload.bytes.extend_from_slice(bytes);
            upload.moved = now.at;
        }
        let upto = upload.bytes.len();
        if upto == total {
            let content = client.upload.take().map(|upload| upload.bytes).unwrap_or_default();
            let found = BlobHash::of(&content);
            if found != hash {
                return Err(refused(Code::InvalidRequest, format!("what was sent under this name is {found}")));
            }
            self.replica.put_blob(Arc::from(content)).map_err(unfit)?;
        }
        Ok(Response::BlobPut { upto: upto as u64 })
    }

    /// A piece of a blob for a client.
    pub(super) fn blob_get(&self, hash: BlobHash, offset: u64) -> Result<Response, Refusal> {
        let content = self.replica.blobs().get(&hash).ok_or_else(|| self.blob_missing(&hash))?;
        let rest = usize::try_from(offset).ok().and_then(|offset| content.get(offset..));
        let rest = rest.ok_or_else(|| Refusal::new(Code::InvalidRequest, hash.to_string(), format!("it has {} bytes", content.len())))?;
        Ok(Response::Blob { total: content.len() as u64, bytes: rest[..rest.len().min(BLOB_PIECE_MAX)].to_vec() })
    }

    /// Gives a definition that a client has spelled what it names. What is on its way here may be named.
    pub(super) fn supply(&self, definition: &Definition) -> Result<(), Refusal> {
        let blobs = self.replica.blobs();
        if let Some(hash) = definition.blobs().iter().find(|hash| blobs.get(hash).is_none() && !blobs.is_named(hash)) {
            return Err(self.blob_missing(hash));
        }
        let refused = |why| {
            Refusal::new(Code::InvalidDefinition, definition.topic_type().to_string(), format!("a blob that it names says nothing: {why}"))
        };
        blobs.supply(definition).map_err(refused)
    }

    pub(super) fn blob_missing(&self, hash: &BlobHash) -> Refusal {
        let refusal = |why| Refusal::new(Code::BlobMissing, hash.to_string(), why);
        match self.replica.blobs().is_named(hash) {
            true => refusal("this blob, which a topic's definition names, is not here yet")
                .hint("it comes by itself once this node is linked to one that has it; or send it: Client::put_blob, or mangrove topic add with its file"),
            false => refusal("there is no such blob here").hint("send it first: Client::put_blob, or mangrove topic add with its file"),
        }
    }

    /// The blobs that a definition names, and whether they are here.
    pub(super) fn blob_rows(&self, definition: &Definition) -> Vec<BlobRow> {
        let bytes = |hash| self.replica.blobs().get(hash).map(|content| content.len() as u64);
        definition.blobs().iter().map(|hash| BlobRow { hash: *hash, bytes: bytes(hash) }).collect()
    }

    /// Whether a topic waits for a blob.
    pub(super) fn lacks_blob(&self, definition: &Definition) -> bool {
        definition.blobs().iter().any(|hash| self.replica.blobs().get(hash).is_none())
    }

    /// Uploads that do not go on are given up.
    pub(super) fn end_stale_uploads(&mut self, now: Now) {
        let stale = |upload: &mut Upload| now.at.since(upload.moved) >= STALE;
        self.connections.values_mut().for_each(|Connection { upload, .. }| _ = upload.take_if(stale));
    }
}

fn code_of(error: &BlobError) -> Code {
    match error {
        BlobError::TooLong(_) => Code::TooLarge,
        BlobError::Full { .. } => Code::Full,
    }
}

#[cfg(test)]
mod tests;
