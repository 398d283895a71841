//! When a topic is to be removed: the text of its property `removal`.
//!
//! ```text
//! clause := ['when'] ( 'this' 'session' 'closes' | 'session' ID 'closes' | 'no' 'session' 'has' FILTER ['for' TIME]
//!         | 'no' 'updates' 'for' TIME | 'subscriptions' '<' NUMBER 'for' TIME | 'time' 'after' MOMENT )
//! ```
//!
//! Clauses are joined by `and` and `or` as everywhere ([`clauses`](crate::node::clauses)), but none is negated. A FILTER is one over sessions' properties
//! ([`crate::node::sessions::filter`]), in quotes; a TIME is a number with one of the units ms, s, m, h, d; a MOMENT is as `2027-01-31T12:00:00Z`.

use std::fmt;
use std::time::Duration;

use mangrove_crdt::{definition::PROPERTY_TEXT_BYTES_MAX, id::SessionId};

use crate::node::clauses::{Clause, Expression, Reader, Unread, quoted};
use crate::node::sessions::filter::Filter;
use mangrove_crdt::time::parse_duration_ms;

/// What is known of the things that conditions ask for.
pub trait Facts {
    /// Whether a session has ended for good.
    fn has_ended(&self, session: SessionId) -> bool;
    /// For how long no session meets a filter; `None` if one does.
    fn none_has(&self, filter: &str) -> Option<Duration>;
    /// For how long the topic has not been written.
    fn unwritten(&self) -> Duration;
    /// For how long fewer sessions than that have been subscribed to the topic; `None` if enough are.
    fn fewer_than(&self, subscribers: u32) -> Option<Duration>;
    /// What time it is, in milliseconds since 1970.
    fn unix_ms(&self) -> u64;
}

/// How many subscribers a topic may ask for: each node tells of as many.
const SUBSCRIPTIONS_MAX: u32 = 1_000;

/// See the module.
pub type Condition = Expression<When>;

/// One clause of a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum When {
    /// The session that makes the topic has ended.
    ThisSessionCloses,
    /// A session has ended.
    SessionCloses(SessionId),
    /// No session meets a filter, for so long.
    NoSession(String, Duration),
    /// Nobody has written the topic for so long.
    NoUpdates(Duration),
    /// Fewer sessions than that have been subscribed for so long.
    Subscriptions(u32, Duration),
    /// It is later than that, in milliseconds since 1970.
    After(u64),
}

impl When {
    /// The same for the session that makes the topic.
    #[must_use]
    pub fn of(self, session: SessionId) -> When {
        if self == When::ThisSessionCloses { When::SessionCloses(session) } else { self }
    }

    /// Whether it is so.
    pub fn is_met(&self, facts: &impl Facts) -> bool {
        match self {
            // It was made by nobody who has one.
            When::ThisSessionCloses => false,
            When::SessionCloses(session) => facts.has_ended(*session),
            When::NoSession(filter, time) => facts.none_has(filter).is_some_and(|none| none >= *time),
            When::NoUpdates(time) => facts.unwritten() >= *time,
            When::Subscriptions(number, time) => facts.fewer_than(*number).is_some_and(|few| few >= *time),
            When::After(moment) => facts.unix_ms() > *moment,
        }
    }
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = |time: &Duration| match time.as_millis() as u64 {
            ms if ms % 1_000 > 0 => format!("{ms}ms"),
            ms => format!("{}s", ms / 1_000),
        };
        match self {
            When::ThisSessionCloses => f.write_str("this session closes"),
            When::SessionCloses(session) => write!(f, "session {session} closes"),
            When::NoSession(filter, after) => {
                write!(f, "no session has {}", quoted(filter))?;
                if after.is_zero() { Ok(()) } else { write!(f, " for {}", time(after)) }
            }
            When::NoUpdates(after) => write!(f, "no updates for {}", time(after)),
            When::Subscriptions(number, after) => write!(f, "subscriptions < {number} for {}", time(after)),
            When::After(moment) => write!(f, "time after {}", moment_text(*moment)),
        }
    }
}

impl Clause for When {
    const BYTES_MAX: usize = PROPERTY_TEXT_BYTES_MAX;
    const NEGATABLE: bool = false;

    fn read(reader: &mut Reader<'_>) -> Result<Self, Unread> {
        reader.takes("when");
        let at = reader.at();
        let wrong = |what: String| Err(Unread { what, at });
        if reader.takes("this") {
            reader.wants("session")?;
            reader.wants("closes")?;
            return Ok(When::ThisSessionCloses);
        }
        if reader.takes("session") {
            let id = reader.word("a session's id")?;
            reader.wants("closes")?;
            let session = id.parse().map(When::SessionCloses);
            return session.or_else(|_| wrong(format!("{id:?} is no session's id")));
        }
        if reader.takes("time") {
            const WHAT: &str = "a moment such as 2027-01-31T12:00:00Z";
            reader.wants("after")?;
            let word = reader.word(WHAT)?;
            let moment = parse_moment(word).map(When::After);
            return moment.map_or_else(|| wrong(format!("expected {WHAT}, not {word:?}")), Ok);
        }
        if reader.takes("subscriptions") {
            reader.wants("<")?;
            let number = reader.word("a number")?;
            let number = number.parse().ok().filter(|number| (1..=SUBSCRIPTIONS_MAX).contains(number));
            let Some(number) = number else { return wrong(format!("expected a number from 1 to {SUBSCRIPTIONS_MAX}")) };
            reader.wants("for")?;
            return Ok(When::Subscriptions(number, time(reader)?));
        }
        if !reader.takes("no") {
            return reader.wanted("`this session closes`, `no session has`, `no updates for`, `subscriptions <` or `time after`");
        }
        if reader.takes("updates") {
            reader.wants("for")?;
            return Ok(When::NoUpdates(time(reader)?));
        }
        reader.wants("session")?;
        reader.wants("has")?;
        let filter = reader.text("a filter in quotes")?;
        if let Err(error) = Filter::parse(&filter) {
            return wrong(format!("{filter:?} is no filter: {error}"));
        }
        let after = if reader.takes("for") { time(reader)? } else { Duration::ZERO };
        Ok(When::NoSession(filter, after))
    }
}

fn time(reader: &mut Reader<'_>) -> Result<Duration, Unread> {
    const WHAT: &str = "a time such as 30s, 10m, 2h or 7d";
    let at = reader.at();
    let word = reader.word(WHAT)?;
    let time = parse_duration_ms(word).map(Duration::from_millis);
    time.ok_or_else(|| Unread { what: format!("expected {WHAT}, not {word:?}"), at })
}

/// A moment of the form `2027-01-31T12:00:00Z`, in milliseconds since 1970.
fn parse_moment(text: &str) -> Option<u64> {
    let (date, time) = text.strip_suffix(['Z', 'z'])?.split_once(['T', 't'])?;
    let number =
        |text: &str, len: usize| (text.len() == len && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse::<i64>().ok())?;
    let mut date = date.split('-');
    let (year, month, day) = (number(date.next()?, 4)?, number(date.next()?, 2)?, number(date.next()?, 2)?);
    let mut time = time.split(':');
    let (hour, minute, second) = (number(time.next()?, 2)?, number(time.next()?, 2)?, number(time.next()?, 2)?);
    let fits =
        date.next().is_none() && time.next().is_none() && (1..=12).contains(&month) && day >= 1 && hour < 24 && minute < 60 && second < 60;
    let days = days_of(year, month, day);
    // What is no day of its month falls on another.
    let same = fits && days >= 0 && moment_text(days as u64 * 86_400_000).starts_with(text.get(..10)?);
    same.then_some((days as u64 * 86_400 + (hour * 3_600 + minute * 60 + second) as u64) * 1_000)
}

fn moment_text(unix_ms: u64) -> String {
    let (days, seconds) = (unix_ms / 86_400_000, unix_ms / 1_000 % 86_400);
    let (mut year, mut left) = (1970, days as i64);
    while left >= days_of(year + 1, 1, 1) - days_of(year, 1, 1) {
        left -= days_of(year + 1, 1, 1) - days_of(year, 1, 1);
        year += 1;
    }
    let first = days_of(year, 1, 1);
    let month = (1..=12).rev().find(|month| days_of(year, *month, 1) - first <= left).unwrap_or(1);
    let day = left - (days_of(year, month, 1) - first) + 1;
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

/// The days from 1970 to a date (Hinnant, *chrono-compatible low-level date algorithms*).
fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    struct Known {
        ended: Vec<SessionId>,
        none: Option<u64>,
        unwritten: u64,
        unix_ms: u64,
        subscribers: u32,
    }

    impl Facts for Known {
        fn has_ended(&self, session: SessionId) -> bool {
            self.ended.contains(&session)
        }

        fn none_has(&self, _: &str) -> Option<Duration> {
            self.none.map(Duration::from_secs)
        }

        fn unwritten(&self) -> Duration {
            Duration::from_secs(self.unwritten)
        }

        fn fewer_than(&self, subscribers: u32) -> Option<Duration> {
            (self.subscribers < subscribers).then_some(Duration::from_secs(90))
        }

        fn unix_ms(&self) -> u64 {
            self.unix_ms
        }
    }

    #[test]
    fn each_part_asks_what_it_says() {
        let one = SessionId([1; 16]);
        let known = || Known { ended: vec![one], none: Some(5), unwritten: 60, unix_ms: 1_800_000_000_000, subscribers: 2 };
        let is_met = |condition: Condition, known: &Known| condition.is_met(&mut |clause| clause.clone().of(one).is_met(known));
        let met = |text: &str| is_met(Condition::parse(text).unwrap_or_else(|error| panic!("{text}: {error}")), &known());
        for text in [
            "this session closes",
            "when this session closes",
            "WHEN no session has \"$Principal is 'ann'\"",
            "no session has 'desk is \"7\"' for 5s",
            "no updates for 1m",
            "subscriptions < 3 for 1m",
            "time after 2027-01-15T07:59:59Z",
            "no updates for 2m or this session closes",
            "no updates for 2m and no updates for 3m or no updates for 1s",
            "no updates for 1s and (no updates for 3m or time after 2020-01-01T00:00:00Z)",
        ] {
            assert!(met(text), "{text}");
        }
        for text in [
            "session 02020202020202020202020202020202 closes",
            "no session has \"all\" for 6s",
            "no updates for 61s",
            "subscriptions < 2 for 1s",
            "when subscriptions < 3 for 2m",
            "time after 2027-01-15T08:00:00Z",
            "no updates for 2m and this session closes",
        ] {
            assert!(!met(text), "{text}");
        }
        assert!(!is_met(Condition::parse("no session has 'all'").unwrap(), &Known { none: None, ..known() }));
    }

    #[test]
    fn what_is_no_condition_says_why() {
        for (text, why) in [
            ("", "expected `this session closes`"),
            ("this session", "expected \"closes\" at the end"),
            ("session 12 closes", "no session's id"),
            ("no session has all", "expected a filter in quotes, not \"all\""),
            ("no session has 'odd'", "is no filter"),
            ("no updates for ever", "expected a time such as 30s"),
            ("no updates", "expected \"for\""),
            ("subscriptions > 3 for 1s", "expected \"<\""),
            ("subscriptions < 0 for 1s", "expected a number from 1 to 1000"),
            ("subscriptions < 3", "expected \"for\" at the end"),
            ("time after noon", "expected a moment"),
            ("time after 2027-02-30T00:00:00Z", "expected a moment"),
            ("this session closes no", "expected the end"),
            ("(this session closes", "or )"),
            ("not time after 2027-01-15T08:00:00Z", "expected `this session closes`"),
            ("no session has 'x", "does not end"),
        ] {
            let error = Condition::parse(text).expect_err(text).to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
        assert!(Condition::parse(&"(".repeat(1_000)).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn nothing_that_is_typed_makes_it_panic(text in "[ a-c()\"'\\\\]{0,40}|(no|this|session|has|closes|for|updates|subscriptions|<|time|after|and|or|[0-9TZ:-]{1,24}| |'all'){0,12}") {
            if let Ok(condition) = Condition::parse(&text) {
                let said = condition.to_string();
                prop_assert_eq!(Condition::parse(&said).map(|again| again.to_string()), Ok(said));
            }
        }

        #[test]
        fn moments_survive_their_text(seconds in 0..4_000_000_000_u64) {
            prop_assert_eq!(parse_moment(&moment_text(seconds * 1_000)), Some(seconds * 1_000));
        }
    }
}
