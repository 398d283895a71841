//! What the node logs while it is simulated: an `ERROR` fails the run, and some messages show that a state was reached.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

thread_local! {
    static LOGGED: RefCell<Logged> = RefCell::default();
}

/// What was logged on this thread since the last [`take`].
#[derive(Clone, Debug, Default)]
pub struct Logged {
    /// Lines of level `ERROR`.
    pub errors: Vec<String>,
    /// How often each message of level `INFO` or above came.
    pub counts: BTreeMap<String, u64>,
}

/// Gathers what is logged, each thread for itself. Debug messages are not even made.
#[derive(Debug)]
pub struct Gather;

/// Makes [`Gather`] the program's subscriber, once.
pub fn install() {
    // Another one may be there already, in a test of several runs: it is the same.
    let _ = tracing::subscriber::set_global_default(Gather);
}

/// What was logged on this thread since the last call.
pub fn take() -> Logged {
    LOGGED.with(RefCell::take)
}

impl Subscriber for Gather {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::INFO
    }

    fn max_level_hint(&self) -> Option<tracing::level_filters::LevelFilter> {
        Some(tracing::level_filters::LevelFilter::INFO)
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        LOGGED.with_borrow_mut(|logged| {
            if *event.metadata().level() == Level::ERROR {
                logged.errors.push(format!("{}{}", line.message, line.fields));
            }
            *logged.counts.entry(line.message).or_default() += 1;
        });
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        use fmt::Write;
        let written = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
        // Writing to a String does not fail.
        debug_assert!(written.is_ok());
    }
}
