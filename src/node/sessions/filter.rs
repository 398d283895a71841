//! Which sessions are meant: a filter over their properties and roles.
//!
//! ```text
//! clause  := 'all' | KEY 'is' TEXT | KEY 'ne' TEXT | KEY 'matches' TEXT | KEY 'in' LIST | 'has' KEY | 'hasRoles' LIST
//! LIST    := '[' TEXT (',' TEXT)* ']'
//! ```
//!
//! Clauses are joined as everywhere ([`clauses`](crate::node::clauses)). Keys are read in their case: what begins with `$` is a fixed property, others are the
//! user's. A session without a key meets no clause about it, `ne` included. `matches` takes a regular expression for the whole value, `hasRoles` wants all of its roles.

use std::collections::BTreeSet;

use regex::{Regex, RegexBuilder};

use crate::node::clauses::{self, Expression, Reader, Unread};

/// How long a filter may be, in bytes.
pub const FILTER_BYTES_MAX: usize = 4 << 10;
/// How much memory one regular expression may take.
const REGEX_BYTES_MAX: usize = 256 << 10;

/// What a filter asks about a session.
pub trait Facts {
    /// The value of a property, if there is one.
    fn property(&self, key: &str) -> Option<String>;
    /// Whether it has a role.
    fn has_role(&self, role: &str) -> bool;
}

/// See the module.
#[derive(Debug, Clone)]
pub struct Filter(Expression<Clause>);

#[derive(Debug, Clone)]
enum Clause {
    All,
    Is(String, String),
    Ne(String, String),
    Matches(String, Regex),
    In(String, BTreeSet<String>),
    Has(String),
    HasRoles(Vec<String>),
}

impl Filter {
    /// One that every session meets.
    pub fn all() -> Self {
        Filter(Expression::Clause(Clause::All))
    }

    /// Reads one.
    ///
    /// # Errors
    /// What is wrong with it, and where.
    pub fn parse(text: &str) -> Result<Self, Unread> {
        Expression::parse(text).map(Filter)
    }

    /// Whether a session meets it.
    pub fn meets(&self, session: &impl Facts) -> bool {
        self.0.is_met(&mut |clause| clause.meets(session))
    }
}

impl Clause {
    fn meets(&self, session: &impl Facts) -> bool {
        match self {
            Clause::All => true,
            Clause::Is(key, value) => session.property(key).is_some_and(|known| known == *value),
            Clause::Ne(key, value) => session.property(key).is_some_and(|known| known != *value),
            Clause::Matches(key, regex) => session.property(key).is_some_and(|known| regex.is_match(&known)),
            Clause::In(key, values) => session.property(key).is_some_and(|known| values.contains(&known)),
            Clause::Has(key) => session.property(key).is_some(),
            Clause::HasRoles(roles) => roles.iter().all(|role| session.has_role(role)),
        }
    }
}

impl clauses::Clause for Clause {
    const BYTES_MAX: usize = FILTER_BYTES_MAX;

    fn read(reader: &mut Reader<'_>) -> Result<Self, Unread> {
        const TEXT: &str = "a text in quotes";
        const KEY: &str = "the key of a property, `all`, `has`, `hasRoles` or `not`";
        if reader.takes("all") {
            return Ok(Clause::All);
        }
        if reader.takes("hasRoles") {
            return Ok(Clause::HasRoles(reader.texts(TEXT)?));
        }
        if reader.takes("has") {
            return Ok(Clause::Has(reader.word(KEY)?.into()));
        }
        let key = reader.word(KEY)?.to_owned();
        if reader.takes("is") {
            return Ok(Clause::Is(key, reader.text(TEXT)?));
        }
        if reader.takes("ne") {
            return Ok(Clause::Ne(key, reader.text(TEXT)?));
        }
        if reader.takes("in") {
            return Ok(Clause::In(key, reader.texts(TEXT)?.into_iter().collect()));
        }
        if reader.takes("matches") {
            let at = reader.at();
            let regex = RegexBuilder::new(&format!("^(?:{})$", reader.text(TEXT)?)).size_limit(REGEX_BYTES_MAX).build();
            let regex = regex.map_err(|error| Unread { what: format!("no regular expression: {error}"), at })?;
            return Ok(Clause::Matches(key, regex));
        }
        reader.wanted("is, ne, matches or in")
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
