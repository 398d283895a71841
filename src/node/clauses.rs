//! What all texts share that say which, or when: clauses joined by `not`, `and` and `or` (in that precedence) and parentheses.
//!
//! ```text
//! or  := and ('or' and)*
//! and := not ('and' not)*
//! not := 'not' not | '(' or ')' | clause
//! ```
//!
//! Words are read in any case. A text stands in `"` or `'`, and `\` makes the next character plain.

use std::fmt;

use serde_json::Value;

/// How deep parentheses and `not` may go.
const DEPTH_MAX: usize = 32;

/// Why a text cannot be read: what is wrong, and at which byte of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}, at byte {at}")]
pub struct Unread {
    /// What is wrong.
    pub what: String,
    /// Where.
    pub at: usize,
}

/// What clauses of a kind are.
pub trait Clause: Sized {
    /// How long a whole text may be, in bytes.
    const BYTES_MAX: usize;
    /// Whether `not` may stand before one.
    const NEGATABLE: bool = true;

    /// Reads one.
    ///
    /// # Errors
    /// What was expected in its place.
    fn read(reader: &mut Reader<'_>) -> Result<Self, Unread>;
}

/// Clauses, joined. See the module.
#[derive(Debug, Clone, PartialEq)]
pub enum Expression<C> {
    /// One.
    Clause(C),
    /// It is not so.
    Not(Box<Expression<C>>),
    /// All of them are so.
    All(Vec<Expression<C>>),
    /// Any of them is so.
    Any(Vec<Expression<C>>),
}

impl<C: Clause> Expression<C> {
    /// Reads a whole text.
    ///
    /// # Errors
    /// It is none, too long, or too deep.
    pub fn parse(text: &str) -> Result<Self, Unread> {
        if text.len() > C::BYTES_MAX {
            return Err(Unread { what: format!("it may have at most {} bytes", C::BYTES_MAX), at: C::BYTES_MAX });
        }
        let mut reader = Reader { text, at: 0 };
        reader.skip_space();
        let expression = Self::or(&mut reader, 0)?;
        if reader.rest().is_empty() { Ok(expression) } else { reader.wanted("the end, `and` or `or`") }
    }

    fn or(reader: &mut Reader<'_>, depth: usize) -> Result<Self, Unread> {
        let mut parts = vec![Self::and(reader, depth)?];
        while reader.takes("or") {
            parts.push(Self::and(reader, depth)?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Expression::Any(parts) })
    }

    fn and(reader: &mut Reader<'_>, depth: usize) -> Result<Self, Unread> {
        let mut parts = vec![Self::not(reader, depth)?];
        while reader.takes("and") {
            parts.push(Self::not(reader, depth)?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Expression::All(parts) })
    }

    fn not(reader: &mut Reader<'_>, depth: usize) -> Result<Self, Unread> {
        if depth > DEPTH_MAX {
            return reader.wanted(&format!("no more than {DEPTH_MAX} parentheses and nots within each other"));
        }
        if C::NEGATABLE && reader.takes("not") {
            return Ok(Expression::Not(Box::new(Self::not(reader, depth + 1)?)));
        }
        if reader.mark('(') {
            let inner = Self::or(reader, depth + 1)?;
            return if reader.mark(')') { Ok(inner) } else { reader.wanted("`and`, `or` or )") };
        }
        C::read(reader).map(Expression::Clause)
    }
}

impl<C> Expression<C> {
    /// Whether it is so, if each clause is judged like this.
    pub fn is_met(&self, judge: &mut impl FnMut(&C) -> bool) -> bool {
        match self {
            Expression::Clause(clause) => judge(clause),
            Expression::Not(inner) => !inner.is_met(judge),
            Expression::All(parts) => parts.iter().all(|part| part.is_met(judge)),
            Expression::Any(parts) => parts.iter().any(|part| part.is_met(judge)),
        }
    }

    /// The first part that must be so and is not.
    pub fn unmet(&self, judge: &mut impl FnMut(&C) -> bool) -> Option<&Expression<C>> {
        match self {
            Expression::All(parts) => parts.iter().find_map(|part| part.unmet(judge)),
            other => (!other.is_met(judge)).then_some(other),
        }
    }

    /// All clauses, from left to right.
    pub fn clauses(&self) -> Vec<&C> {
        match self {
            Expression::Clause(clause) => vec![clause],
            Expression::Not(inner) => inner.clauses(),
            Expression::All(parts) | Expression::Any(parts) => parts.iter().flat_map(Expression::clauses).collect(),
        }
    }

    /// The same of other clauses.
    #[must_use]
    pub fn map<D>(self, to: &mut impl FnMut(C) -> D) -> Expression<D> {
        match self {
            Expression::Clause(clause) => Expression::Clause(to(clause)),
            Expression::Not(inner) => Expression::Not(Box::new(inner.map(to))),
            Expression::All(parts) => Expression::All(parts.into_iter().map(|part| part.map(to)).collect()),
            Expression::Any(parts) => Expression::Any(parts.into_iter().map(|part| part.map(to)).collect()),
        }
    }
}

impl<C: fmt::Display> fmt::Display for Expression<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = |f: &mut fmt::Formatter<'_>, part: &Expression<C>| match part {
            Expression::All(_) | Expression::Any(_) => write!(f, "({part})"),
            part => write!(f, "{part}"),
        };
        match self {
            Expression::Clause(clause) => write!(f, "{clause}"),
            Expression::Not(inner) => {
                f.write_str("not ")?;
                part(f, inner)
            }
            Expression::All(parts) | Expression::Any(parts) => {
                let between = if matches!(self, Expression::All(_)) { " and " } else { " or " };
                for (at, of) in parts.iter().enumerate() {
                    f.write_str(if at > 0 { between } else { "" })?;
                    part(f, of)?;
                }
                Ok(())
            }
        }
    }
}

/// A text in the quotes in which it is read.
pub fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// A text, and how far it has been read: up to the next thing in it.
pub struct Reader<'a> {
    text: &'a str,
    at: usize,
}

const MARKS: &str = "()[],";

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn skip_space(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    fn skip(&mut self, bytes: usize) {
        self.at += bytes;
        self.skip_space();
    }

    /// Where the next thing begins, in bytes.
    pub fn at(&self) -> usize {
        self.at
    }

    /// That something else was expected here.
    ///
    /// # Errors
    /// Always.
    pub fn wanted<T>(&self, what: &str) -> Result<T, Unread> {
        let next = match self.rest().chars().next() {
            None => " at the end".into(),
            Some('"' | '\'') => ", not a text in quotes".into(),
            Some(_) => self.next_word().map(|word| format!(", not {word:?}")).unwrap_or_default(),
        };
        Err(Unread { what: format!("expected {what}{next}"), at: self.at })
    }

    fn next_word(&self) -> Option<&'a str> {
        let is_word = |c: char| !c.is_whitespace() && !MARKS.contains(c) && c != '"' && c != '\'';
        let end = self.rest().find(|c| !is_word(c)).unwrap_or(self.rest().len());
        self.rest().get(..end).filter(|word| !word.is_empty())
    }

    /// Takes the next word if it is this one, in any case.
    pub fn takes(&mut self, word: &str) -> bool {
        let found = self.next_word().is_some_and(|next| next.eq_ignore_ascii_case(word));
        if found {
            self.skip(word.len());
        }
        found
    }

    /// Takes this word.
    ///
    /// # Errors
    /// There is another.
    pub fn wants(&mut self, word: &str) -> Result<(), Unread> {
        if self.takes(word) { Ok(()) } else { self.wanted(&format!("{word:?}")) }
    }

    /// Takes the next character if it is this mark.
    pub fn mark(&mut self, mark: char) -> bool {
        let found = self.rest().starts_with(mark);
        if found {
            self.skip(mark.len_utf8());
        }
        found
    }

    /// Takes a word.
    ///
    /// # Errors
    /// There is none.
    pub fn word(&mut self, what: &str) -> Result<&'a str, Unread> {
        let Some(word) = self.next_word() else { return self.wanted(what) };
        self.skip(word.len());
        Ok(word)
    }

    /// Whether a text in quotes comes next.
    pub fn is_text(&self) -> bool {
        self.rest().starts_with(['"', '\''])
    }

    /// Takes a text in quotes.
    ///
    /// # Errors
    /// There is none, or it does not end.
    pub fn text(&mut self, what: &str) -> Result<String, Unread> {
        let mut chars = self.rest().char_indices();
        let Some((_, quote)) = chars.next().filter(|_| self.is_text()) else { return self.wanted(what) };
        let mut text = String::new();
        loop {
            match chars.next() {
                Some((end, c)) if c == quote => {
                    self.skip(end + quote.len_utf8());
                    return Ok(text);
                }
                Some((_, '\\')) => text.extend(chars.next().map(|(_, plain)| plain)),
                Some((_, plain)) => text.push(plain),
                None => return Err(Unread { what: format!("a text begins with {quote} and does not end"), at: self.at }),
            }
        }
    }

    /// Takes texts in brackets: at least one.
    ///
    /// # Errors
    /// There are none.
    pub fn texts(&mut self, what: &str) -> Result<Vec<String>, Unread> {
        if !self.mark('[') {
            return self.wanted("[");
        }
        let mut texts = vec![self.text(what)?];
        while self.mark(',') {
            texts.push(self.text(what)?);
        }
        if self.mark(']') { Ok(texts) } else { self.wanted(", or ]") }
    }

    /// Takes a JSON value; one in `'` is a text, too.
    ///
    /// # Errors
    /// There is none, or it does not end.
    pub fn json(&mut self) -> Result<Value, Unread> {
        const WHAT: &str = "a JSON value";
        let unread = |at: usize, error: serde_json::Error| Unread { what: format!("expected {WHAT}: {error}"), at };
        match self.rest().chars().next() {
            Some('\'') => self.text(WHAT).map(Value::String),
            // These say themselves where they end.
            Some('{' | '[' | '"') => {
                let mut values = serde_json::Deserializer::from_str(self.rest()).into_iter();
                let Some(value) = values.next() else { return self.wanted(WHAT) };
                let (value, end) = (value.map_err(|error| unread(self.at, error))?, values.byte_offset());
                self.skip(end);
                Ok(value)
            }
            _ => {
                let at = self.at;
                serde_json::from_str(self.word(WHAT)?).map_err(|error| unread(at, error))
            }
        }
    }
}
