//! S9 and S10 of messages: what a subscriber hears was sent, by what one node sends in order, and once.

use std::collections::BTreeMap;

use super::{Invariant, Violation};
use crate::history::{Doing, History, Outcome};
use crate::values::Kind;

/// What one connection has heard: of each process that sends, the last operation.
#[derive(Debug, Default)]
pub struct Heard {
    last: BTreeMap<(u32, u32), u32>,
}

impl Heard {
    /// A message came.
    ///
    /// # Errors
    /// Nobody has sent it, or it came before, or after one that was sent later.
    pub fn message(&mut self, history: &History, home: &str, path: &str, content: &[u8]) -> Result<(), Violation> {
        let wrong =
            |invariant, what: String| Violation::new(invariant, format!("node {home}: it delivers a message to {path} that {what}"));
        let sent = Kind::Binary
            .op(content)
            .and_then(|op| history.get(op))
            .filter(|sent| sent.doing == Doing::Send && sent.path == path && sent.payload.of(sent.id) == content);
        let Some(sent) = sent else { return Err(wrong(Invariant::S9, "nobody has sent".into())) };
        if sent.outcome == Outcome::Failed {
            return Err(wrong(Invariant::S9, "was refused to its sender".into()));
        }
        match self.last.insert(sent.by, sent.id) {
            Some(last) if last == sent.id => Err(wrong(Invariant::S10, format!("it has delivered before, of operation {last}"))),
            Some(last) if last > sent.id => {
                Err(wrong(Invariant::S10, format!("is of operation {}, after one of operation {last} of the same node", sent.id)))
            }
            _ => Ok(()),
        }
    }
}
