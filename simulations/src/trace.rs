//! The trace: everything that happens, as one hash, and as text for whoever asks.
//!
//! Two runs are the same if their hashes are. So every event, input, output, frame and row goes in, with its time.

use std::fmt;
use std::io::Write;

use crate::scenario::Time;

/// How much is gathered before it is hashed: BLAKE3 is several times as fast on long pieces.
const BUFFER_BYTES: usize = 64 << 10;

/// See the module.
pub struct Trace {
    buffer: Vec<u8>,
    hasher: blake3::Hasher,
    text: Option<Box<dyn Write + Send>>,
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trace").field("text", &self.text.is_some()).finish_non_exhaustive()
    }
}

impl Trace {
    /// A trace, with its text if somebody wants to read it.
    pub fn new(text: Option<Box<dyn Write + Send>>) -> Self {
        Trace { buffer: Vec::with_capacity(BUFFER_BYTES + 1024), hasher: blake3::Hasher::new(), text }
    }

    /// Whether somebody reads along.
    pub fn is_read(&self) -> bool {
        self.text.is_some()
    }

    /// Something happened, to whom, with what.
    pub fn note(&mut self, at: Time, kind: &'static str, whom: u32, parts: &[&[u8]]) {
        self.buffer.extend_from_slice(&at.to_le_bytes());
        self.buffer.extend_from_slice(&whom.to_le_bytes());
        self.buffer.push(kind.len() as u8);
        self.buffer.extend_from_slice(kind.as_bytes());
        for part in parts {
            self.buffer.extend_from_slice(&(part.len() as u32).to_le_bytes());
            self.buffer.extend_from_slice(part);
        }
        if self.buffer.len() >= BUFFER_BYTES {
            self.hasher.update(&self.buffer);
            self.buffer.clear();
        }
    }

    /// A line for whoever reads along.
    pub fn say(&mut self, at: Time, line: impl FnOnce() -> String) {
        if let Some(text) = &mut self.text {
            // A reader that has gone away changes nothing about the run.
            let _ = writeln!(text, "{:>12.6} {}", at as f64 / 1e6, line());
        }
    }

    /// The hash of everything.
    pub fn finish(mut self) -> [u8; 32] {
        self.hasher.update(&self.buffer);
        if let Some(text) = &mut self.text {
            let _ = text.flush();
        }
        *self.hasher.finalize().as_bytes()
    }
}
