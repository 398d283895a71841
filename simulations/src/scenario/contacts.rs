//! `[contacts]`: links that exist only while a trace says so, between the warm-up and the settle phase.
//!
//! Times in traces are seconds, with or without a fraction. The first contact of a trace begins when the warm-up is over. Lines that are empty or begin with `#`
//! say nothing. Formats:
//!
//! - `one`, the connection events of the ONE simulator: `TIME CONN A B up` or `down`, in order of time. What is up at the end stays up.
//! - `sociopatterns`: `T I J`, and columns that are not looked at: a contact from T that lasts `step`.
//! - `intervals`: `A,B,START,END`, in any order, with or without a first line of titles.
//!
//! Contacts of one pair that overlap or touch are one. The end of a contact does not belong to it: what begins when another ends does not meet it.

use std::collections::BTreeMap;

use super::{
    NodeSpec, SECOND, Time,
    files::{bad_line, in_order, members},
    keys::{BadScenario, Keys},
};

/// The most contacts.
const CONTACTS_MAX: usize = 5_000_000;

/// The latest time in a trace, in seconds: after the year 2090 as Unix time.
const SECONDS_MAX: f64 = 4e9;

/// Links that come and go by a trace.
#[derive(Clone, Debug)]
pub struct Contacts {
    /// What happens, in order; of equal times, first what goes down.
    pub changes: Vec<Change>,
    /// Whether what is on its way when a link goes down arrives all the same; otherwise it is lost.
    pub delivers: bool,
    /// Whether nodes are told when a link comes or goes: they connect at once, and give a connection up at once. Otherwise they find out as over any network: by
    /// dialling, and by silence.
    pub told: bool,
}

/// A link comes or goes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Change {
    /// When, after the warm-up.
    pub at: Time,
    /// Whether it comes.
    pub up: bool,
    /// Between whom: the smaller first.
    pub between: (usize, usize),
}

/// A trace before it is known which nodes there are.
pub(super) struct Trace {
    file: String,
    /// The nodes' names, in order.
    pub names: Vec<String>,
    /// Between whom, from when, until when, and in which line.
    contacts: Vec<(usize, usize, Time, Time, usize)>,
    delivers: bool,
    told: bool,
}

impl Trace {
    /// Reads the table and its file; none if it is switched off.
    pub fn read(mut keys: Keys) -> Result<Option<Self>, BadScenario> {
        let enabled = keys.flag("enabled")?.unwrap_or(true);
        let file = keys.text("file")?.ok_or_else(|| keys.bad("file", "is missing: a contact trace"))?;
        let format = keys.word("format", &["one", "sociopatterns", "intervals"])?;
        let format = format.ok_or_else(|| keys.bad("format", "is missing: one, sociopatterns or intervals"))?;
        let step = if format == "sociopatterns" { keys.duration("step")?.unwrap_or(20 * SECOND) } else { 0 };
        let delivers = keys.word("on_down", &["drop-in-flight", "deliver-in-flight"])?.is_some_and(|word| word == "deliver-in-flight");
        let told = keys.word("notice", &["at-once", "by-silence"])?.is_none_or(|word| word == "at-once");
        keys.word("origin", &["first"])?;
        if !enabled {
            return keys.end().map(|()| None);
        }
        let text = keys.read_file("file", &file)?;
        keys.end()?;
        let mut lines = Lines { file: &file, names: BTreeMap::new(), order: Vec::new(), contacts: Vec::new() };
        match format.as_str() {
            "one" => lines.one(&text)?,
            "sociopatterns" => lines.sociopatterns(&text, step)?,
            _ => lines.intervals(&text)?,
        }
        let names = in_order(lines.order.clone());
        // From order of appearance to the order of names.
        let place: BTreeMap<&str, usize> = names.iter().enumerate().map(|(at, name)| (name.as_str(), at)).collect();
        let place: Vec<usize> = lines.order.iter().map(|name| place[name.as_str()]).collect();
        let placed = |(a, b, from, to, line)| (place[a], place[b], from, to, line);
        let contacts: Vec<_> = lines.contacts.into_iter().map(placed).collect();
        if contacts.is_empty() {
            return Err(BadScenario { place: file, what: "has no contacts".into() });
        }
        Ok(Some(Trace { file, names, contacts, delivers, told }))
    }

    /// What happens between the scenario's nodes.
    pub fn contacts(self, nodes: &[NodeSpec], reach: &[Vec<bool>]) -> Result<Contacts, BadScenario> {
        let members = members(&self.file, &self.names, nodes)?;
        let origin = self.contacts.iter().map(|contact| contact.2).min().unwrap_or(0);
        let mut pairs: BTreeMap<(usize, usize), Vec<(Time, Time)>> = BTreeMap::new();
        for (a, b, from, to, line) in self.contacts {
            let (a, b) = (members[a].min(members[b]), members[a].max(members[b]));
            if !reach[a][b] {
                let what = format!("the topology has no link between {} and {}: add it, or take another", nodes[a].name, nodes[b].name);
                return Err(bad_line(&self.file, line, what));
            }
            pairs.entry((a, b)).or_default().push((from - origin, to.saturating_sub(origin)));
        }
        let mut changes = Vec::new();
        for (between, mut contacts) in pairs {
            contacts.sort_unstable();
            let mut joined: Vec<(Time, Time)> = Vec::new();
            for (from, to) in contacts {
                match joined.last_mut().filter(|last| from <= last.1) {
                    Some(last) => last.1 = last.1.max(to),
                    None => joined.push((from, to)),
                }
            }
            for (from, to) in joined {
                changes.push(Change { at: from, up: true, between });
                changes.push(Change { at: to, up: false, between });
            }
        }
        changes.sort_unstable();
        Ok(Contacts { changes, delivers: self.delivers, told: self.told })
    }
}

/// The lines of a trace, as far as they are read.
struct Lines<'t> {
    file: &'t str,
    names: BTreeMap<&'t str, usize>,
    order: Vec<String>,
    contacts: Vec<(usize, usize, Time, Time, usize)>,
}

impl<'t> Lines<'t> {
    /// Lines that say something, with their numbers.
    fn of(text: &'t str) -> impl Iterator<Item = (usize, &'t str)> {
        let lines = text.lines().enumerate().map(|(at, line)| (at + 1, line.trim()));
        lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
    }

    fn one(&mut self, text: &'t str) -> Result<(), BadScenario> {
        let mut up: BTreeMap<(usize, usize), (Time, usize)> = BTreeMap::new();
        let mut last = 0;
        for (line, said) in Self::of(text) {
            let words: Vec<&str> = said.split_whitespace().collect();
            let [time, conn, a, b, way] = words[..] else { return self.bad(line, "is not TIME CONN A B up, or down") };
            if !conn.eq_ignore_ascii_case("conn") {
                return self.bad(line, format!("{conn:?} is no connection event: leave in lines with CONN only"));
            }
            let (at, pair) = (self.time(line, time)?, self.pair(line, a, b)?);
            if at < last {
                return self.bad(line, "is earlier than the line before: sort the file by time");
            }
            last = at;
            match way.to_ascii_lowercase().as_str() {
                "up" if up.insert(pair, (at, line)).is_some() => return self.bad(line, "this link is up already: take the line out"),
                "up" => {}
                "down" => match up.remove(&pair) {
                    Some((from, began)) => self.contact(pair, from, at, began)?,
                    None => return self.bad(line, "this link is not up: take the line out"),
                },
                _ => return self.bad(line, format!("{way:?} is neither up nor down")),
            }
        }
        up.into_iter().try_for_each(|(pair, (from, line))| self.contact(pair, from, Time::MAX, line))
    }

    fn sociopatterns(&mut self, text: &'t str, step: Time) -> Result<(), BadScenario> {
        for (line, said) in Self::of(text) {
            let mut words = said.split_whitespace();
            let (Some(time), Some(a), Some(b)) = (words.next(), words.next(), words.next()) else {
                return self.bad(line, "is not T I J");
            };
            let (from, pair) = (self.time(line, time)?, self.pair(line, a, b)?);
            self.contact(pair, from, from + step, line)?;
        }
        Ok(())
    }

    fn intervals(&mut self, text: &'t str) -> Result<(), BadScenario> {
        let mut lines = Self::of(text).peekable();
        // Titles are no times.
        lines.next_if(|(_, said)| said.rsplit(',').next().is_some_and(|word| word.trim().parse::<f64>().is_err()));
        for (line, said) in lines {
            let words: Vec<&str> = said.split(',').map(str::trim).collect();
            let [a, b, from, to] = words[..] else { return self.bad(line, "is not A,B,START,END") };
            let (pair, from, to) = (self.pair(line, a, b)?, self.time(line, from)?, self.time(line, to)?);
            self.contact(pair, from, to, line)?;
        }
        Ok(())
    }

    fn bad<T>(&self, line: usize, what: impl Into<String>) -> Result<T, BadScenario> {
        Err(bad_line(self.file, line, what))
    }

    /// Seconds, in microseconds.
    fn time(&self, line: usize, text: &str) -> Result<Time, BadScenario> {
        let seconds = text.parse::<f64>().ok().filter(|seconds| (0.0..=SECONDS_MAX).contains(seconds));
        let what = || bad_line(self.file, line, format!("{text:?} is no time: write seconds, from 0 to {SECONDS_MAX}"));
        seconds.map(|seconds| (seconds * 1e6).round() as Time).ok_or_else(what)
    }

    fn pair(&mut self, line: usize, a: &'t str, b: &'t str) -> Result<(usize, usize), BadScenario> {
        if a == b {
            return self.bad(line, format!("{a:?} has a contact with itself: take the line out"));
        }
        let order = &mut self.order;
        let mut place = |name: &'t str| {
            *self.names.entry(name).or_insert_with(|| {
                order.push(name.to_owned());
                order.len() - 1
            })
        };
        let (a, b) = (place(a), place(b));
        Ok((a.min(b), a.max(b)))
    }

    fn contact(&mut self, (a, b): (usize, usize), from: Time, to: Time, line: usize) -> Result<(), BadScenario> {
        if to < from {
            return self.bad(line, "the contact ends before it begins: are START and END in order?");
        }
        if self.contacts.len() == CONTACTS_MAX {
            return self.bad(line, format!("there are more than {CONTACTS_MAX} contacts: cut the trace"));
        }
        // One that ends when it begins is none.
        if from < to {
            self.contacts.push((a, b, from, to, line));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Scenario;

    fn read(nodes: &str, format: &str, trace: &str) -> Result<Scenario, String> {
        let text = format!("schema = 1\n[run]\nduration = \"1s\"\n{nodes}\n[contacts]\nfile = \"trace\"\nformat = {format}\n");
        Scenario::parse_with("contacts", &text, &|_| Ok(trace.to_owned())).map_err(|error| error.to_string())
    }

    /// The names of the nodes, and what happens: the second, whether a link comes, and between whom.
    fn changes(nodes: &str, format: &str, trace: &str) -> (String, Vec<(u64, bool, usize, usize)>) {
        let scenario = read(nodes, format, trace).expect("a good trace");
        let names: Vec<&str> = scenario.nodes.iter().map(|node| node.name.as_str()).collect();
        let contacts = scenario.contacts.as_ref().expect("contacts");
        let told = contacts.changes.iter().map(|change| (change.at / SECOND, change.up, change.between.0, change.between.1));
        (names.join(" "), told.collect())
    }

    #[test]
    fn each_format_is_read_and_what_goes_down_comes_first() {
        let met = vec![(0, true, 0, 2), (5, false, 0, 2), (5, true, 0, 1), (45, false, 0, 1)];
        let one = "# made up\n10.0 CONN 2 11 up\n15 CONN 11 2 down\n15.0 CONN 7 2 up\n55 CONN 2 7 down\n";
        assert_eq!(changes("", "\"one\"", one), ("2 7 11".into(), met.clone()), "numbers go by their value");
        let intervals = "from,to,start,end\na,c,10,15\na,b,30,55\nb , a,15,40\n";
        assert_eq!(
            changes("", "\"intervals\"", intervals),
            ("a c b".into(), vec![(0, true, 0, 1), (5, false, 0, 1), (5, true, 0, 2), (45, false, 0, 2)])
        );
        assert_eq!(changes("[nodes]\nnames = [\"a\", \"b\", \"c\"]", "\"intervals\"", intervals).1, met, "nodes of these names");
        assert_eq!(changes("[nodes]\ncount = 4", "\"intervals\"", intervals).0, "n1 n2 n3 n4", "no node of these names: in order");
        let rows = "100 1 2 MED NUR\n105 1 3 MED PAT\n110 1 3 MED PAT\n";
        let (names, told) = changes("", "\"sociopatterns\"\nstep = \"5s\"", rows);
        assert_eq!((names.as_str(), told), ("1 2 3", vec![(0, true, 0, 1), (5, false, 0, 1), (5, true, 0, 2), (15, false, 0, 2)]));
        assert_eq!(changes("", "\"sociopatterns\"", "3 1 2\n").1, [(0, true, 0, 1), (20, false, 0, 1)]);
    }

    #[test]
    fn what_is_wrong_is_told_with_file_and_line() {
        let refused = |nodes: &str, format: &str, trace: &str| read(nodes, format, trace).expect_err("it is refused");
        let one = |trace: &str| refused("", "\"one\"", trace);
        assert!(one("1 CONN a b up\n0 CONN a b down").contains("trace:2: is earlier than the line before"));
        assert!(one("1 CONN a b up\n2 CONN b a up").contains("trace:2: this link is up already"));
        assert!(one("1 CONN a b down").contains("trace:1: this link is not up"));
        assert!(one("1 C M1 a b 500").contains("trace:1: is not TIME CONN"));
        assert!(one("1 CREATE M1 a b").contains("leave in lines with CONN only"));
        assert!(one("x CONN a b up").contains("trace:1: \"x\" is no time"));
        assert!(one("# nothing").contains("trace: has no contacts"));
        let intervals = |nodes: &str, trace: &str| refused(nodes, "\"intervals\"", trace);
        assert!(intervals("", "a,b,1,2\nb,c,5,4").contains("trace:2: the contact ends before it begins"));
        assert!(intervals("", "a,a,1,2").contains("trace:1: \"a\" has a contact with itself"));
        assert!(intervals("[nodes]\nnames = [\"a\", \"bb\"]", "a,b,1,2").contains("no node is called \"b\""));
        assert!(intervals("[topology]\nkind = \"line\"", "a,b,1,2\nb,c,1,2\na,c,1,2").contains("trace:3: the topology has no link"));
        assert!(refused("", "\"on\"", "").contains("contacts.format: \"on\" is none of one"));
        assert!(refused("", "\"one\"\nstep = \"1s\"", "").contains("contacts.step: there is no such key"));
        assert!(refused("", "\"one\"\non_dwn = \"drop-in-flight\"", "").contains("did you mean on_down?"));
    }
}
