//! What the program says about itself, to stderr, so that stdout stays for results.
//!
//! # What the levels mean
//!
//! They are a promise to whoever sets an alarm on them:
//!
//! | level | means | for instance |
//! |---|---|---|
//! | `error` | a promise of this node is at risk, or it needs its operator | the disk is full, data were set aside, two replicas that should be equal are not |
//! | `warn` | something is worse than it should be, and mends itself | a link is down and dialled again, a certificate runs out soon, a copy of the vault was healed |
//! | `info` | the life of the node and its mesh | started, joined, a link came up, a section is held, a member was revoked |
//! | `debug` | why the node did what it did | a run began, a link turned lazy, a grant was decided |
//! | `trace` | every frame and record | |
//!
//! Nothing is logged for each value at `info` or above: a busy node's log grows by what happens to the mesh, not by its traffic. Secrets are
//! never logged at any level.

use std::fmt;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::config::LogFormat;

/// Why logging did not start.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LogError {
    /// The filter is none.
    #[error(
        "{filter:?} is no log filter: {what}; give off, error, warn, info, debug or trace, or a list such as \"info,mangrove_net=debug\""
    )]
    Filter {
        /// What was given.
        filter: String,
        /// What is wrong with it.
        what: String,
    },
    /// Something else in this process logs already.
    #[error("logging was started twice in this process; start it once, before the first node")]
    Twice,
}

/// Starts logging with `filter`, or `info` without one, as text.
///
/// # Errors
/// [`LogError::Filter`], [`LogError::Twice`].
pub fn start(filter: Option<&str>) -> Result<(), LogError> {
    start_as(filter.unwrap_or("info"), LogFormat::Text)
}

/// Starts logging: `filter` says what, `format` says how.
///
/// # Errors
/// [`LogError::Filter`], [`LogError::Twice`].
pub fn start_as(filter: &str, format: LogFormat) -> Result<(), LogError> {
    let lines = tracing_subscriber::fmt().with_env_filter(parse(filter)?).with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Text => lines.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).with_current_span(true).with_span_list(false).try_init(),
    };
    started.map_err(|_| LogError::Twice)
}

/// Checks a filter without starting anything.
///
/// # Errors
/// [`LogError::Filter`].
pub fn check(filter: &str) -> Result<(), LogError> {
    parse(filter).map(drop)
}

fn parse(filter: &str) -> Result<EnvFilter, LogError> {
    let refuse = |what: &dyn fmt::Display| LogError::Filter { filter: filter.to_owned(), what: what.to_string() };
    let directives: Vec<&str> = filter.split(',').map(str::trim).collect();
    for directive in &directives {
        // The library takes any word for the name of a part, so that a misspelt level would switch off everything.
        if directive.is_empty() || (!directive.contains('=') && directive.parse::<LevelFilter>().is_err()) {
            return Err(refuse(&format_args!("{directive:?} is no level")));
        }
    }
    EnvFilter::builder().parse(directives.join(",")).map_err(|error| refuse(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_levels_and_parts_with_levels() {
        for good in ["info", "off", "TRACE", "warn,mangrove=debug", "info, mangrove_net=trace", "mangrove::store=debug"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in ["", "inof", "info,", "mangrove", "mangrove=loud", "info,,warn"] {
            assert!(matches!(check(bad), Err(LogError::Filter { filter, .. }) if filter == bad), "{bad}");
        }
    }

    #[test]
    fn a_wrong_filter_says_what_is_right() {
        assert_eq!(
            check("inof").unwrap_err().to_string(),
            "\"inof\" is no log filter: \"inof\" is no level; give off, error, warn, info, debug or trace, or a list such as \"info,mangrove_net=debug\""
        );
    }
}
