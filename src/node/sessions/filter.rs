//! Which sessions are meant: a filter over their properties and roles.
//!
//! ```text
//! filter  := or
//! or      := and ('or' and)*
//! and     := not ('and' not)*
//! not     := 'not' not | '(' or ')' | clause
//! clause  := 'all' | KEY 'is' TEXT | KEY 'ne' TEXT | KEY 'matches' TEXT | KEY 'in' LIST | 'has' KEY | 'hasRoles' LIST
//! LIST    := '[' TEXT (',' TEXT)* ']'
//! ```
//!
//! A TEXT stands in `"` or `'`, and `\` makes the next character plain. Words are read in any case; keys are not: what begins with `$` is a fixed property, others are the
//! user's. A session without a key meets no clause about it, `ne` included. `matches` takes a regular expression for the whole value, `hasRoles` wants all of its roles.

use std::collections::BTreeSet;

use regex::{Regex, RegexBuilder};

/// How long a filter may be, in bytes.
pub const FILTER_BYTES_MAX: usize = 4 << 10;
/// How deep parentheses and `not` may go.
const DEPTH_MAX: usize = 32;
/// How much memory one regular expression may take.
const REGEX_BYTES_MAX: usize = 256 << 10;

/// What a filter asks about a session.
pub trait Facts {
    /// The value of a property, if there is one.
    fn property(&self, key: &str) -> Option<String>;
    /// Whether it has a role.
    fn has_role(&self, role: &str) -> bool;
}

/// Why a text is no filter: what is wrong, and at which byte of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}, at byte {at} of the filter")]
pub struct BadFilter {
    /// What is wrong.
    pub what: String,
    /// Where.
    pub at: usize,
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Filter(Expression);

#[derive(Debug, Clone)]
enum Expression {
    All,
    Is(String, String),
    Ne(String, String),
    Matches(String, Regex),
    In(String, BTreeSet<String>),
    Has(String),
    HasRoles(Vec<String>),
    Not(Box<Expression>),
    And(Vec<Expression>),
    Or(Vec<Expression>),
}

impl Filter {
    /// One that every session meets.
    pub fn all() -> Self {
        Filter(Expression::All)
    }

    /// Reads one.
    pub fn parse(text: &str) -> Result<Self, BadFilter> {
        if text.len() > FILTER_BYTES_MAX {
            return Err(BadFilter { what: format!("a filter has at most {FILTER_BYTES_MAX} bytes"), at: FILTER_BYTES_MAX });
        }
        let mut parser = Parser { tokens: tokens(text)?, next: 0, end: text.len() };
        let expression = parser.or(0)?;
        match parser.peek() {
            None => Ok(Filter(expression)),
            Some((_, at)) => Err(BadFilter { what: "expected the end, `and` or `or`".into(), at }),
        }
    }

    /// Whether a session meets it.
    pub fn meets(&self, session: &impl Facts) -> bool {
        self.0.meets(session)
    }
}

impl Expression {
    fn meets(&self, session: &impl Facts) -> bool {
        match self {
            Expression::All => true,
            Expression::Is(key, value) => session.property(key).is_some_and(|known| known == *value),
            Expression::Ne(key, value) => session.property(key).is_some_and(|known| known != *value),
            Expression::Matches(key, regex) => session.property(key).is_some_and(|known| regex.is_match(&known)),
            Expression::In(key, values) => session.property(key).is_some_and(|known| values.contains(&known)),
            Expression::Has(key) => session.property(key).is_some(),
            Expression::HasRoles(roles) => roles.iter().all(|role| session.has_role(role)),
            Expression::Not(inner) => !inner.meets(session),
            Expression::And(parts) => parts.iter().all(|part| part.meets(session)),
            Expression::Or(parts) => parts.iter().any(|part| part.meets(session)),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    Text(String),
    Mark(char),
}

fn tokens(text: &str) -> Result<Vec<(Token, usize)>, BadFilter> {
    let mut tokens = Vec::new();
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            c if c.is_whitespace() => {}
            '(' | ')' | '[' | ']' | ',' => tokens.push((Token::Mark(c), at)),
            '"' | '\'' => {
                let mut value = String::new();
                loop {
                    match chars.next() {
                        Some((_, end)) if end == c => break,
                        Some((_, '\\')) => value.extend(chars.next().map(|(_, plain)| plain)),
                        Some((_, plain)) => value.push(plain),
                        None => return Err(BadFilter { what: format!("a text begins with {c} and does not end"), at }),
                    }
                }
                tokens.push((Token::Text(value), at));
            }
            _ => {
                let is_word = |c: char| !c.is_whitespace() && !"()[],\"'".contains(c);
                let mut word = String::from(c);
                while let Some((_, c)) = chars.next_if(|(_, c)| is_word(*c)) {
                    word.push(c);
                }
                tokens.push((Token::Word(word), at));
            }
        }
    }
    Ok(tokens)
}

struct Parser {
    tokens: Vec<(Token, usize)>,
    next: usize,
    end: usize,
}

impl Parser {
    fn peek(&self) -> Option<(&Token, usize)> {
        self.tokens.get(self.next).map(|(token, at)| (token, *at))
    }

    fn wanted<T>(&self, what: &str) -> Result<T, BadFilter> {
        Err(BadFilter { what: format!("expected {what}"), at: self.peek().map_or(self.end, |(_, at)| at) })
    }

    /// Takes the next token if it is this word, in any case.
    fn takes(&mut self, word: &str) -> bool {
        let found = matches!(self.peek(), Some((Token::Word(next), _)) if next.eq_ignore_ascii_case(word));
        self.next += usize::from(found);
        found
    }

    fn mark(&mut self, mark: char) -> bool {
        let found = matches!(self.peek(), Some((Token::Mark(next), _)) if *next == mark);
        self.next += usize::from(found);
        found
    }

    fn text(&mut self) -> Result<String, BadFilter> {
        let Some((Token::Text(text), _)) = self.peek() else { return self.wanted("a text in quotes") };
        let text = text.clone();
        self.next += 1;
        Ok(text)
    }

    fn list(&mut self) -> Result<Vec<String>, BadFilter> {
        if !self.mark('[') {
            return self.wanted("[");
        }
        let mut texts = vec![self.text()?];
        while self.mark(',') {
            texts.push(self.text()?);
        }
        if self.mark(']') { Ok(texts) } else { self.wanted(", or ]") }
    }

    fn or(&mut self, depth: usize) -> Result<Expression, BadFilter> {
        let mut parts = vec![self.and(depth)?];
        while self.takes("or") {
            parts.push(self.and(depth)?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Expression::Or(parts) })
    }

    fn and(&mut self, depth: usize) -> Result<Expression, BadFilter> {
        let mut parts = vec![self.not(depth)?];
        while self.takes("and") {
            parts.push(self.not(depth)?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Expression::And(parts) })
    }

    fn not(&mut self, depth: usize) -> Result<Expression, BadFilter> {
        if depth > DEPTH_MAX {
            return self.wanted(&format!("no more than {DEPTH_MAX} parentheses and nots within each other"));
        }
        if self.takes("not") {
            return Ok(Expression::Not(Box::new(self.not(depth + 1)?)));
        }
        if self.mark('(') {
            let inner = self.or(depth + 1)?;
            return if self.mark(')') { Ok(inner) } else { self.wanted("`and`, `or` or )") };
        }
        self.clause()
    }

    fn clause(&mut self) -> Result<Expression, BadFilter> {
        if self.takes("all") {
            return Ok(Expression::All);
        }
        if self.takes("hasRoles") {
            return Ok(Expression::HasRoles(self.list()?));
        }
        if self.takes("has") {
            return Ok(Expression::Has(self.key()?));
        }
        let key = self.key()?;
        if self.takes("is") {
            return Ok(Expression::Is(key, self.text()?));
        }
        if self.takes("ne") {
            return Ok(Expression::Ne(key, self.text()?));
        }
        if self.takes("in") {
            return Ok(Expression::In(key, self.list()?.into_iter().collect()));
        }
        if self.takes("matches") {
            let at = self.peek().map_or(self.end, |(_, at)| at);
            let regex = RegexBuilder::new(&format!("^(?:{})$", self.text()?)).size_limit(REGEX_BYTES_MAX).build();
            let regex = regex.map_err(|error| BadFilter { what: format!("no regular expression: {error}"), at })?;
            return Ok(Expression::Matches(key, regex));
        }
        self.wanted("is, ne, matches or in")
    }

    fn key(&mut self) -> Result<String, BadFilter> {
        let Some((Token::Word(key), _)) = self.peek() else {
            return self.wanted("the key of a property, `all`, `has`, `hasRoles` or `not`");
        };
        let key = key.clone();
        self.next += 1;
        Ok(key)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    struct Known(BTreeMap<&'static str, &'static str>, &'static [&'static str]);

    impl Facts for Known {
        fn property(&self, key: &str) -> Option<String> {
            self.0.get(key).map(|value| (*value).to_owned())
        }

        fn has_role(&self, role: &str) -> bool {
            self.1.contains(&role)
        }
    }

    fn meets(filter: &str) -> bool {
        let known = Known(BTreeMap::from([("$Principal", "ada"), ("desk", "7"), ("said", "it's \"so\"")]), &["reader", "clerk"]);
        Filter::parse(filter).unwrap_or_else(|error| panic!("{filter}: {error}")).meets(&known)
    }

    #[test]
    fn each_clause_asks_what_it_says() {
        for filter in [
            "all",
            "$Principal is \"ada\"",
            "$Principal IS 'ada'",
            "desk ne '8'",
            "desk in ['6', '7']",
            "has desk",
            "hasRoles ['clerk']",
            "HASROLES [\"clerk\", \"reader\"]",
            "desk matches '[0-9]'",
            "$Principal matches 'a|ada'",
            r#"said is "it's \"so\"""#,
        ] {
            assert!(meets(filter), "{filter}");
        }
        for filter in [
            "not all",
            "$principal is 'ada'",
            "desk ne '7'",
            "floor ne '7'",
            "floor is ''",
            "desk in ['17']",
            "has floor",
            "hasRoles ['clerk', 'boss']",
            "$Principal matches 'd'",
        ] {
            assert!(!meets(filter), "{filter}");
        }
    }

    #[test]
    fn not_binds_before_and_and_that_before_or() {
        assert!(meets("all or all and not all"));
        assert!(!meets("(all or all) and not all"));
        assert!(meets("not not all and not (not all or desk is '8')"));
        assert!(meets("not has floor and has desk"));
    }

    #[test]
    fn what_is_no_filter_says_where() {
        for (filter, at, what) in [
            ("", 0, "key of a property"),
            ("desk", 4, "is, ne, matches or in"),
            ("desk is 7", 8, "text in quotes"),
            ("desk is '7", 8, "does not end"),
            ("desk in []", 9, "text in quotes"),
            ("desk in ['7'", 12, "or ]"),
            ("(all", 4, "or )"),
            ("all all", 4, "the end"),
            ("desk matches '('", 13, "no regular expression"),
            ("desk matches '(a{1000}){1000}'", 13, "no regular expression"),
        ] {
            let error = Filter::parse(filter).expect_err(filter);
            assert!(error.at == at && error.what.contains(what), "{filter}: {error}");
        }
        assert!(Filter::parse(&"not ".repeat(1_000)).is_err(), "too deep");
        assert!(Filter::parse(&format!("{}all{}", "(".repeat(1_000), ")".repeat(1_000))).is_err(), "too deep");
        assert!(Filter::parse(&" ".repeat(FILTER_BYTES_MAX + 1)).is_err(), "too long");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn nothing_that_is_typed_makes_it_panic(text in "[ a-c()\\[\\]\"',\\\\$]{0,40}|.{0,40}") {
            let _ = Filter::parse(&text);
        }
    }
}
