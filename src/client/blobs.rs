//! Blobs: what definitions name, since they have no room for it.

use mangrove_crdt::blob::{BLOB_BYTES_MAX, Blob, BlobHash};
use mangrove_crdt::definition::Definition;

use super::{Client, ClientError, Refusal, Request, Response, unexpected};
use crate::protocol::{BLOB_PIECE_MAX, Code};

/// How often the sending of a blob may begin anew, since the node has nothing of it: the client has come to another one.
const RESTARTS_MAX: u32 = 5;

impl Client {
    /// Brings a blob to the node, and from there to all that hold a topic whose definition names it; a node keeps one that nothing names for a minute. What is there already is
    /// not sent.
    ///
    /// # Errors
    /// [`Code::TooLarge`] beyond [`BLOB_BYTES_MAX`], [`Code::Full`] if the node has no room, and as any request.
    pub async fn put_blob(&self, content: &[u8]) -> Result<BlobHash, ClientError> {
        let (hash, total) = (BlobHash::of(content), content.len() as u64);
        let (mut offset, mut restarts) = (0, 0);
        loop {
            let rest = usize::try_from(offset).ok().and_then(|offset| content.get(offset..)).unwrap_or_default();
            let bytes = rest[..rest.len().min(BLOB_PIECE_MAX)].to_vec();
            match self.request(Request::BlobPut { hash, offset, total, bytes }).await? {
                Response::BlobPut { upto } if upto == total => return Ok(hash),
                Response::BlobPut { upto } if upto > total => return Err(ClientError::Protocol("more of a blob than there is".into())),
                Response::BlobPut { upto } => {
                    restarts += u32::from(upto <= offset);
                    offset = upto;
                }
                other => return Err(unexpected(&other)),
            }
            if restarts > RESTARTS_MAX {
                let why = "the node does not keep what it is sent";
                return Err(Refusal::new(Code::NotReady, hash.to_string(), why).hint("try again in a moment").into());
            }
        }
    }

    /// A blob that the node has.
    ///
    /// # Errors
    /// [`Code::BlobMissing`] if it has not, and as any request.
    pub async fn blob(&self, hash: BlobHash) -> Result<Vec<u8>, ClientError> {
        let mut content = Vec::new();
        loop {
            let (total, bytes) = match self.request(Request::BlobGet { hash, offset: content.len() as u64 }).await? {
                Response::Blob { total, bytes } => (total, bytes),
                other => return Err(unexpected(&other)),
            };
            let moves = !bytes.is_empty();
            content.extend(bytes);
            match content.len() as u64 == total {
                true if BlobHash::of(&content) == hash => return Ok(content),
                false if moves && content.len() <= BLOB_BYTES_MAX => {}
                _ => return Err(ClientError::Protocol(format!("what comes as blob {hash} is another"))),
            }
        }
    }

    /// Gives a definition the blobs that it names, so that values of its type can be made and read here.
    ///
    /// # Errors
    /// As [`Client::blob`]; or a blob is no use to the type.
    pub async fn supply(&self, definition: &Definition) -> Result<(), ClientError> {
        for hash in definition.blobs() {
            let blob = Blob::new(self.blob(*hash).await?.into());
            let useless = |why| ClientError::from(Refusal::new(Code::InvalidDefinition, hash.to_string(), why));
            definition.topic_type().supply(hash, &blob).map_err(useless)?;
        }
        Ok(())
    }
}
