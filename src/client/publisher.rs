//! Writing many values fast.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use mangrove_crdt::definition::Durability;
use mangrove_crdt::path::Path;

use super::session::{Answer, Session};
use super::source::Gate;
use super::{Change, ClientError, Refusal, Request, Response, SetBatch, SetItem, TopicSpec, Wish, unexpected, write_report};
use crate::protocol::{Code, FRAME_AIM, ITEMS_MAX, Target, VALUE_MAX};

/// How many values go in one batch at most; above some hundred the cost of a batch no longer shows.
const BATCH_ITEMS_MAX: usize = if ITEMS_MAX < 4_096 { ITEMS_MAX } else { 4_096 };
/// How many batches may wait for their answer: enough to keep a link of 100 ms and 10 MB/s busy.
const BATCHES_IN_FLIGHT_MAX: usize = 16;
/// How many refusals are kept; the others are only counted.
const REFUSALS_KEPT_MAX: usize = 100;

/// What a publisher's batches did so far.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PublishReport {
    /// How many values were written.
    pub written: u64,
    /// How many topics were made.
    pub created: u64,
    /// How many values were refused.
    pub refused: u64,
    /// The first of the refusals.
    pub refusals: Vec<Refusal>,
    /// The length of the values written, in bytes.
    pub value_bytes: u64,
    /// How many topics were begun by what their node knew, when somebody may have written elsewhere at the same time ([`Publisher::only_if`]).
    pub inexact: u64,
}

/// Writes many values over one session. Values of one publisher take effect in the order in which they were given.
///
/// What was given is certain to be written only once [`Publisher::finish`] has returned; dropping a publisher drops what it has not sent.
///
/// One that comes from a source ([`Source::publisher`](super::Source::publisher)) dies with the epoch in which it was made: from the moment when another state of the
/// source has arrived it takes nothing more, sends nothing more, and what it has not sent is refused as [`Code::Fenced`].
pub struct Publisher {
    session: Arc<Session>,
    add: Option<TopicSpec>,
    durability: Option<Durability>,
    /// What it writes under; `None` for whatever the session has.
    gate: Option<Gate>,
    /// What must be so for a topic to be begun.
    begins: Option<Begins>,
    batch: Batch,
    in_flight: VecDeque<InFlight>,
    report: PublishReport,
}

/// What must be so when the first value of a topic is written, and what became of that.
struct Begins {
    constraint: String,
    /// The topics of which it was judged; the refusal, where it was not so.
    judged: HashMap<String, Option<Refusal>>,
}

/// Values that have not been sent.
#[derive(Default)]
struct Batch {
    /// Their paths, one after the other.
    paths: String,
    /// Where each value's path ends, and the value.
    items: Vec<(usize, Vec<u8>)>,
    bytes: usize,
}

impl Batch {
    fn push(&mut self, path: &str, value: Vec<u8>) {
        self.paths.push_str(path);
        self.bytes += path.len() + value.len();
        self.items.push((self.paths.len(), value));
    }
}

struct InFlight {
    answer: Answer,
    /// Lengths of the values, to count the bytes of those that were written.
    lengths: Vec<u32>,
}

impl Publisher {
    pub(super) fn new(session: Arc<Session>, add: Option<TopicSpec>, gate: Option<Gate>) -> Self {
        let (begins, batch, in_flight, report) = Default::default();
        Publisher { session, add, durability: None, gate, begins, batch, in_flight, report }
    }

    /// Begins each topic only if this is so of it, as in [`Change::constraint`]: judged with the first value that is given for it, which is waited for. If it is not so, that value and all
    /// that come after it are refused as [`Code::ConstraintUnmet`]. If it is refused otherwise, the next value is judged. What has begun goes on without being judged again, at whatever node the client is.
    #[must_use]
    pub fn only_if(self, constraint: &str) -> Self {
        Publisher { begins: Some(Begins { constraint: constraint.into(), judged: HashMap::new() }), ..self }
    }

    /// Where values must be before they count as written; `None` leaves it to their topics and sections.
    #[must_use]
    pub fn durability(self, durability: Option<Durability>) -> Self {
        Publisher { durability, ..self }
    }

    /// Writes a value: bytes of the topic's type. Waits while too many batches are on their way.
    ///
    /// A refusal of one value is not an error here: it is counted and kept in the report, and the others go on.
    ///
    /// # Errors
    /// [`Code::Fenced`] where it wrote under an epoch that has ended: this value is not taken, nor is any other.
    pub async fn set(&mut self, path: &str, value: Vec<u8>) -> Result<(), ClientError> {
        if let Some(gate) = &self.gate {
            gate.pass(&self.session)?;
        }
        if value.len() > VALUE_MAX {
            let why = format!("a value has at most {VALUE_MAX} bytes, this one has {}", value.len());
            self.refuse(Refusal::new(Code::TooLarge, path, why));
            return Ok(());
        }
        if let Some(begins) = &self.begins {
            match begins.judged.get(path) {
                None => return self.begin(path, value, begins.constraint.clone()).await,
                Some(Some(unmet)) => {
                    let unmet = unmet.clone();
                    self.refuse(unmet);
                    return Ok(());
                }
                Some(None) => {}
            }
        }
        let bytes = path.len() + value.len();
        // A batch is within the aim or a single value, so that no batch can be too long for a frame.
        if self.batch.items.len() == BATCH_ITEMS_MAX || self.batch.bytes + bytes > FRAME_AIM {
            self.send().await?;
        }
        self.batch.push(path, value);
        Ok(())
    }

    /// Writes the first value of a topic, if what must be so is so.
    async fn begin(&mut self, path: &str, value: Vec<u8>, constraint: String) -> Result<(), ClientError> {
        // What was given before takes effect before.
        self.send().await?;
        let under = self.gate.as_ref().map(|gate| gate.pass(&self.session)).transpose()?;
        let (length, wish) = (value.len() as u64, Wish::Value(value));
        let (add, durability) = (self.add.clone(), self.durability);
        let change = Change { path: path.into(), wish, constraint: Some(constraint), add, durability, under };
        let begun = match self.session.ask(Request::Change(Box::new(change))).await?.answer().await? {
            Response::Changed { created, exact, .. } => {
                self.report.written += 1;
                self.report.value_bytes += length;
                self.report.created += u64::from(created);
                self.report.inexact += u64::from(!exact);
                Some(None)
            }
            Response::Refused(refusal) => {
                self.refuse(refusal.clone());
                (refusal.code == Code::ConstraintUnmet).then_some(Some(refusal))
            }
            other => return Err(unexpected(&other)),
        };
        if let (Some(begins), Some(begun)) = (&mut self.begins, begun) {
            begins.judged.insert(path.into(), begun);
        }
        Ok(())
    }

    /// Sends what has been given so far, without waiting for its answer.
    pub async fn send(&mut self) -> Result<(), ClientError> {
        if self.batch.items.is_empty() {
            return Ok(());
        }
        while self.in_flight.len() >= BATCHES_IN_FLIGHT_MAX {
            self.settle_oldest().await?;
        }
        let session = Arc::clone(&self.session);
        let wire = session.wire().await?;
        let mut numbers = wire.numbers.lock().await;
        let batch = std::mem::take(&mut self.batch);
        // Asked last, and before numbers are given that would not be sent.
        let under = match self.gate.as_ref().map(|gate| gate.pass(&session)).transpose() {
            Ok(under) => under,
            Err(ClientError::Refused(refusal)) => {
                self.refuse_all(batch.items.len(), &refusal);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let mut items = Vec::with_capacity(batch.items.len());
        let mut lengths = Vec::with_capacity(batch.items.len());
        let mut begin = 0;
        for (end, value) in batch.items {
            let path = &batch.paths[begin..end];
            begin = end;
            // What may have to be asked again elsewhere says its paths in full.
            let target = match session.recovery {
                Some(_) => Path::parse(path).map(|path| Target::Path(path.to_string())),
                None => numbers.target(path),
            };
            match target {
                Ok(target) => {
                    lengths.push(value.len() as u32);
                    items.push(SetItem::new(target, value));
                }
                Err(error) => self.refuse(Refusal::new(Code::InvalidPath, format!("{path:?}"), error.to_string())),
            }
        }
        if items.is_empty() {
            return Ok(());
        }
        let request = Request::Set(SetBatch { items, add: self.add.clone(), durability: self.durability, under });
        let answer = session.ask_on(&wire, request).await?;
        drop(numbers);
        self.in_flight.push_back(InFlight { answer, lengths });
        Ok(())
    }

    /// Sends the rest and waits until all is answered.
    pub async fn finish(mut self) -> Result<PublishReport, ClientError> {
        self.settle().await?;
        Ok(self.report)
    }

    /// Sends what has been given and waits until all is answered; the publisher can be used on.
    pub async fn settle(&mut self) -> Result<&PublishReport, ClientError> {
        self.send().await?;
        while !self.in_flight.is_empty() {
            self.settle_oldest().await?;
        }
        Ok(&self.report)
    }

    /// What the batches that are answered did.
    pub fn report(&self) -> &PublishReport {
        &self.report
    }

    async fn settle_oldest(&mut self) -> Result<(), ClientError> {
        let Some(InFlight { answer, lengths }) = self.in_flight.pop_front() else { return Ok(()) };
        let report = write_report(answer.answer().await?)?;
        self.report.written += report.written;
        self.report.created += report.created;
        self.report.value_bytes += lengths.iter().map(|length| u64::from(*length)).sum::<u64>();
        for item in report.refused {
            let length = lengths.get(item.item as usize).copied().unwrap_or_default();
            self.report.value_bytes = self.report.value_bytes.saturating_sub(length.into());
            self.refuse(item.refusal);
        }
        Ok(())
    }

    fn refuse_all(&mut self, count: usize, refusal: &Refusal) {
        (0..count).for_each(|_| self.refuse(refusal.clone()));
    }

    fn refuse(&mut self, refusal: Refusal) {
        self.report.refused += 1;
        if self.report.refusals.len() < REFUSALS_KEPT_MAX {
            self.report.refusals.push(refusal);
        }
    }
}
