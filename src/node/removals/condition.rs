//! When a topic is to be removed: the text of its property `removal`.
//!
//! ```text
//! condition := all ('or' all)*
//! all       := one ('and' one)*
//! one       := ['when'] ( 'this' 'session' 'closes' | 'session' ID 'closes' | 'no' 'session' 'has' FILTER ['for' TIME]
//!            | 'no' 'updates' 'for' TIME | 'time' 'after' MOMENT ) | '(' condition ')'
//! ```
//!
//! A FILTER is one over sessions' properties ([`crate::node::sessions::filter`]), in quotes, where `\` makes the next character plain; a TIME is a number with one of the units ms, s, m, h, d; a MOMENT is as
//! `2027-01-31T12:00:00Z`. Words are read in any case.

use std::fmt;
use std::time::Duration;

use mangrove_crdt::id::SessionId;

use crate::node::requests::parse_duration_ms;
use crate::node::sessions::filter::Filter;

/// How deep parentheses may go.
const DEPTH_MAX: usize = 16;

/// What is known of the things that conditions ask for.
pub trait Facts {
    /// Whether a session has ended for good.
    fn has_ended(&self, session: SessionId) -> bool;
    /// For how long no session meets a filter; `None` if one does.
    fn none_has(&self, filter: &str) -> Option<Duration>;
    /// For how long the topic has not been written.
    fn unwritten(&self) -> Duration;
    /// What time it is, in milliseconds since 1970.
    fn unix_ms(&self) -> u64;
}

/// See the module. Two that are written the same are equal.
#[derive(Clone, Debug)]
pub enum Condition {
    /// The session that makes the topic has ended.
    ThisSessionCloses,
    /// A session has ended.
    SessionCloses(SessionId),
    /// No session meets a filter, for so long.
    NoSession(String, Duration),
    /// Nobody has written the topic for so long.
    NoUpdates(Duration),
    /// It is later than that, in milliseconds since 1970.
    After(u64),
    /// All of them.
    All(Vec<Condition>),
    /// Any of them.
    Any(Vec<Condition>),
}

impl Condition {
    /// Reads one.
    ///
    /// # Errors
    /// In words, what is wrong.
    pub fn parse(text: &str) -> Result<Condition, String> {
        let tokens = tokens(text)?;
        let mut parser = Parser { tokens: &tokens };
        let condition = parser.any(0)?;
        match parser.tokens {
            [] => Ok(condition),
            [rest, ..] => Err(format!("expected the end, `and` or `or`, not {rest}")),
        }
    }

    /// The same for the session that makes the topic.
    #[must_use]
    pub fn of(self, session: SessionId) -> Condition {
        match self {
            Condition::ThisSessionCloses => Condition::SessionCloses(session),
            Condition::All(all) => Condition::All(all.into_iter().map(|one| one.of(session)).collect()),
            Condition::Any(any) => Condition::Any(any.into_iter().map(|one| one.of(session)).collect()),
            other => other,
        }
    }

    /// Everything that it asks for.
    pub fn parts(&self) -> Vec<&Condition> {
        match self {
            Condition::All(parts) | Condition::Any(parts) => parts.iter().flat_map(Condition::parts).collect(),
            part => vec![part],
        }
    }

    /// Whether the topic is to be removed.
    pub fn is_met(&self, facts: &impl Facts) -> bool {
        match self {
            // It was made by nobody who has one.
            Condition::ThisSessionCloses => false,
            Condition::SessionCloses(session) => facts.has_ended(*session),
            Condition::NoSession(filter, time) => facts.none_has(filter).is_some_and(|none| none >= *time),
            Condition::NoUpdates(time) => facts.unwritten() >= *time,
            Condition::After(moment) => facts.unix_ms() > *moment,
            Condition::All(parts) => parts.iter().all(|part| part.is_met(facts)),
            Condition::Any(parts) => parts.iter().any(|part| part.is_met(facts)),
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = |time: &Duration| match time.as_millis() as u64 {
            ms if ms % 1_000 > 0 => format!("{ms}ms"),
            ms => format!("{}s", ms / 1_000),
        };
        match self {
            Condition::ThisSessionCloses => f.write_str("this session closes"),
            Condition::SessionCloses(session) => write!(f, "session {session} closes"),
            Condition::NoSession(filter, after) => {
                write!(f, "no session has \"{}\"", filter.replace('\\', "\\\\").replace('"', "\\\""))?;
                if after.is_zero() { Ok(()) } else { write!(f, " for {}", time(after)) }
            }
            Condition::NoUpdates(after) => write!(f, "no updates for {}", time(after)),
            Condition::After(moment) => write!(f, "time after {}", moment_text(*moment)),
            Condition::All(parts) | Condition::Any(parts) => {
                let between = if matches!(self, Condition::All(_)) { " and " } else { " or " };
                for (at, part) in parts.iter().enumerate() {
                    f.write_str(if at > 0 { between } else { "" })?;
                    match part {
                        Condition::All(_) | Condition::Any(_) => write!(f, "({part})")?,
                        part => write!(f, "{part}")?,
                    }
                }
                Ok(())
            }
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    Text(String),
    Mark(char),
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Token::Word(word) => write!(f, "{word:?}"),
            Token::Text(_) => f.write_str("a text in quotes"),
            Token::Mark(mark) => write!(f, "{mark:?}"),
        }
    }
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            c if c.is_whitespace() => {}
            '(' | ')' => tokens.push(Token::Mark(c)),
            '"' | '\'' => {
                let mut text = String::new();
                loop {
                    match chars.next() {
                        Some(end) if end == c => break,
                        Some('\\') => text.extend(chars.next()),
                        Some(plain) => text.push(plain),
                        None => return Err(format!("a text begins with {c} and does not end")),
                    }
                }
                tokens.push(Token::Text(text));
            }
            c => {
                let mut word = String::from(c);
                while let Some(c) = chars.next_if(|c| !c.is_whitespace() && !"()\"'".contains(*c)) {
                    word.push(c);
                }
                tokens.push(Token::Word(word));
            }
        }
    }
    Ok(tokens)
}

struct Parser<'a> {
    tokens: &'a [Token],
}

impl Parser<'_> {
    fn takes(&mut self, word: &str) -> bool {
        let found = matches!(self.tokens.first(), Some(Token::Word(next)) if next.eq_ignore_ascii_case(word));
        if found {
            self.tokens = &self.tokens[1..];
        }
        found
    }

    fn wants(&mut self, word: &str) -> Result<(), String> {
        if self.takes(word) { Ok(()) } else { self.wanted(&format!("{word:?}")) }
    }

    fn wanted<T>(&self, what: &str) -> Result<T, String> {
        match self.tokens.first() {
            Some(token) => Err(format!("expected {what}, not {token}")),
            None => Err(format!("expected {what} at the end")),
        }
    }

    fn mark(&mut self, mark: char) -> bool {
        let found = self.tokens.first() == Some(&Token::Mark(mark));
        if found {
            self.tokens = &self.tokens[1..];
        }
        found
    }

    fn word(&mut self, what: &str) -> Result<String, String> {
        let Some((Token::Word(word), rest)) = self.tokens.split_first() else { return self.wanted(what) };
        self.tokens = rest;
        Ok(word.clone())
    }

    fn time(&mut self) -> Result<Duration, String> {
        const WHAT: &str = "a time such as 30s, 10m, 2h or 7d";
        let word = self.word(WHAT)?;
        parse_duration_ms(&word).map(Duration::from_millis).ok_or_else(|| format!("expected {WHAT}, not {word:?}"))
    }

    fn any(&mut self, depth: usize) -> Result<Condition, String> {
        let mut parts = vec![self.all(depth)?];
        while self.takes("or") {
            parts.push(self.all(depth)?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Condition::Any(parts) })
    }

    fn all(&mut self, depth: usize) -> Result<Condition, String> {
        let mut parts = vec![self.one(depth)?];
        while self.takes("and") {
            parts.push(self.one(depth)?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Condition::All(parts) })
    }

    fn one(&mut self, depth: usize) -> Result<Condition, String> {
        if depth > DEPTH_MAX {
            return Err(format!("there are more than {DEPTH_MAX} parentheses within each other"));
        }
        self.takes("when");
        if self.mark('(') {
            let inner = self.any(depth + 1)?;
            return if self.mark(')') { Ok(inner) } else { self.wanted("`and`, `or` or )") };
        }
        if self.takes("this") {
            self.wants("session")?;
            self.wants("closes")?;
            return Ok(Condition::ThisSessionCloses);
        }
        if self.takes("session") {
            let id = self.word("a session's id")?;
            self.wants("closes")?;
            let session = id.parse().map_err(|_| format!("{id:?} is no session's id"))?;
            return Ok(Condition::SessionCloses(session));
        }
        if self.takes("time") {
            self.wants("after")?;
            let word = self.word("a moment such as 2027-01-31T12:00:00Z")?;
            let moment = parse_moment(&word).ok_or_else(|| format!("expected a moment such as 2027-01-31T12:00:00Z, not {word:?}"))?;
            return Ok(Condition::After(moment));
        }
        if !self.takes("no") {
            return self.wanted("`this session closes`, `no session has`, `no updates for` or `time after`");
        }
        if self.takes("updates") {
            self.wants("for")?;
            return Ok(Condition::NoUpdates(self.time()?));
        }
        self.wants("session")?;
        self.wants("has")?;
        let Some((Token::Text(filter), rest)) = self.tokens.split_first() else { return self.wanted("a filter in quotes") };
        self.tokens = rest;
        Filter::parse(filter).map_err(|error| format!("{filter:?} is no filter: {error}"))?;
        let after = if self.takes("for") { self.time()? } else { Duration::ZERO };
        Ok(Condition::NoSession(filter.clone(), after))
    }
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

        fn unix_ms(&self) -> u64 {
            self.unix_ms
        }
    }

    #[test]
    fn each_part_asks_what_it_says() {
        let one = SessionId([1; 16]);
        let known = || Known { ended: vec![one], none: Some(5), unwritten: 60, unix_ms: 1_800_000_000_000 };
        let met = |text: &str| Condition::parse(text).unwrap_or_else(|error| panic!("{text}: {error}")).of(one).is_met(&known());
        for text in [
            "this session closes",
            "when this session closes",
            "WHEN no session has \"$Principal is 'ann'\"",
            "no session has 'desk is \"7\"' for 5s",
            "no updates for 1m",
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
            "time after 2027-01-15T08:00:00Z",
            "no updates for 2m and this session closes",
        ] {
            assert!(!met(text), "{text}");
        }
        assert!(!Condition::parse("no session has 'all'").unwrap().is_met(&Known { none: None, ..known() }));
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
            ("time after noon", "expected a moment"),
            ("time after 2027-02-30T00:00:00Z", "expected a moment"),
            ("this session closes no", "expected the end"),
            ("(this session closes", "or )"),
            ("no session has 'x", "does not end"),
        ] {
            let error = Condition::parse(text).expect_err(text);
            assert!(error.contains(why), "{text}: {error}");
        }
        assert!(Condition::parse(&"(".repeat(1_000)).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn nothing_that_is_typed_makes_it_panic(text in "[ a-c()\"'\\\\]{0,40}|(no|this|session|has|closes|for|updates|time|after|and|or|[0-9TZ:-]{1,24}| |'all'){0,12}") {
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
