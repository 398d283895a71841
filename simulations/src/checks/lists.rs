//! S7 and S9 of lists of lines, which belong to one node: each is what that node's clients have made of it, change by change, and nowhere else. A restart may take back the last changes, all
//! lists together to one moment, but none that was acknowledged, unless the disk has lost something since.

use std::{collections::BTreeMap, rc::Rc};

use mangrove::protocol::{Change, ListState, Request, Splice, Wish};
use mangrove_crdt::{definition::TopicType, id::SectionId, paged::Summary, replica::Replica};

use super::{Invariant, Violation};
use crate::scenario::Time;

/// A list.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct List {
    lines: Vec<String>,
    summary: Summary,
}

/// The lists of a node, by path.
type Lists = BTreeMap<String, List>;

/// The lists of one host, as they were after each change.
#[derive(Debug, Default)]
pub struct Past {
    /// Those that have led to what is there.
    steps: Vec<Step>,
    /// All that there ever were, also those that a disk has lost.
    ever: Vec<Rc<Lists>>,
    /// When the host's process started last.
    started: Time,
}

#[derive(Debug, Default)]
struct Step {
    /// The operation that has changed them.
    op: Option<u32>,
    /// When it was acknowledged.
    acknowledged: Option<Time>,
    after: Rc<Lists>,
}

/// The lists that a node has.
fn held(replica: &Replica) -> Lists {
    let Some(local) = replica.section(SectionId::LOCAL) else { return Lists::new() };
    let list = |topic| {
        let (summary, lines) = replica.lines(SectionId::LOCAL, topic, 1, usize::MAX, usize::MAX)?;
        Some((topic.path.to_string(), List { lines: lines.into_iter().map(str::to_owned).collect(), summary }))
    };
    local.lists().filter_map(|path| list(local.tree.topic(path.as_str())?)).collect()
}

/// What a request makes of lists, if it is done; but for the revision, which is the node's.
fn after(mut lists: Lists, request: &Request) -> Lists {
    match request {
        Request::TopicsAdd { topic, paths } if topic.topic_type == TopicType::Paged.name() => {
            paths.iter().for_each(|path| _ = lists.entry(path.clone()).or_default());
        }
        Request::TopicsRemove { selector, .. } => _ = lists.remove(selector),
        Request::Change(change) => {
            let Change { path, wish: Wish::Lines(Splice { from, take, lines: new }), .. } = &**change else { return lists };
            let Some(List { lines, .. }) = lists.get_mut(path) else { return lists };
            let at = from.map_or(lines.len(), |from| from as usize - 1);
            let end = take.map_or(lines.len(), |take| at + take as usize);
            if at <= end && end <= lines.len() {
                lines.splice(at..end, new.iter().cloned());
            }
        }
        _ => {}
    }
    lists
}

fn describe(lists: &Lists) -> String {
    let list = |(path, List { lines, summary }): (&String, &List)| format!("{path} with {} lines, {summary:?}", lines.len());
    format!("[{}]", lists.iter().map(list).collect::<Vec<_>>().join("; "))
}

impl Past {
    fn present(&self) -> Rc<Lists> {
        self.steps.last().map(|step| Rc::clone(&step.after)).unwrap_or_default()
    }

    /// How many lines a list has.
    pub fn lines_at(&self, path: &str) -> usize {
        self.steps.last().and_then(|step| step.after.get(path)).map_or(0, |list| list.lines.len())
    }

    /// A node has taken in what a client asked for: its lists are as before, or as that makes them.
    ///
    /// # Errors
    /// They are neither.
    pub fn asked(&mut self, name: &str, replica: &Replica, op: u32, request: &Request) -> Result<(), Violation> {
        let (before, now) = (self.present(), held(replica));
        if *before == now {
            return Ok(());
        }
        let expected = after((*before).clone(), request);
        let is_made = |path: &String, list: &List| {
            let (of_before, List { lines, summary }) = (before.get(path), list);
            let bytes: usize = lines.iter().map(String::len).sum();
            let counted = (summary.lines, summary.bytes) == (lines.len() as u64, bytes as u64);
            counted && of_before.is_none_or(|before| before == list || before.summary.revision < summary.revision)
        };
        let same = now.len() == expected.len()
            && now.iter().all(|(path, list)| expected.get(path).is_some_and(|made| made.lines == list.lines) && is_made(path, list));
        if !same {
            let what = format!(
                "node {name}: operation {op} is to make {} of {}, and there is {}",
                describe(&expected),
                describe(&before),
                describe(&now)
            );
            return Err(Violation::new(Invariant::S9, what));
        }
        let after = Rc::new(now);
        self.ever.push(Rc::clone(&after));
        self.steps.push(Step { op: Some(op), acknowledged: None, after });
        Ok(())
    }

    /// A client was told that its operation is done, and what a list has come to by that.
    ///
    /// # Errors
    /// It has not, or it was not done.
    pub fn acknowledged(&mut self, name: &str, op: u32, at: Time, path: &str, list: Option<ListState>) -> Result<(), Violation> {
        let step = self.steps.iter_mut().rfind(|step| step.op == Some(op));
        let made = step.as_ref().and_then(|step| step.after.get(path)).map(|list| ListState::from(list.summary));
        if let Some(step) = step {
            step.acknowledged = Some(at);
        }
        if list.is_some() && made != list {
            let what = format!("node {name}: operation {op} has made {made:?} of the list {path}, and its client is told {list:?}");
            return Err(Violation::new(Invariant::S9, what));
        }
        Ok(())
    }

    /// A client was told that its operation is refused.
    ///
    /// # Errors
    /// It was done.
    pub fn refused(&self, name: &str, op: u32) -> Result<(), Violation> {
        match self.steps.iter().rfind(|step| step.op == Some(op)) {
            None => Ok(()),
            Some(_) => Err(Violation::new(Invariant::S9, format!("node {name}: operation {op} is refused and has changed a list"))),
        }
    }

    /// Nothing but what a client asks for changes them; and no section that is replicated has any.
    ///
    /// # Errors
    /// Something has, or does.
    pub fn stands(&self, name: &str, replica: &Replica) -> Result<(), Violation> {
        let (before, now) = (self.present(), held(replica));
        let wrong = |what: String| Err(Violation::new(Invariant::S9, format!("node {name}: {what}")));
        if *before != now {
            return wrong(format!("its clients have made {}, and there is {}", describe(&before), describe(&now)));
        }
        let sections = replica.held().filter_map(|id| replica.section(id));
        let topics = sections.flat_map(|section| section.tree.topics_from(""));
        match { topics }.find(|topic| *topic.definition.topic_type() == TopicType::Paged) {
            Some(topic) => wrong(format!("the list {} is in a section that is replicated", topic.path)),
            None => Ok(()),
        }
    }

    /// The host's process has started over what is on the disk, and when that has ever lost something.
    ///
    /// # Errors
    /// What was acknowledged is lost, or there is what never was.
    pub fn restarted(&mut self, name: &str, replica: &Replica, at: Time, losses: &[Time]) -> Result<(), Violation> {
        let (now, before) = (held(replica), std::mem::replace(&mut self.started, at));
        let lost_since = |at: Time| losses.iter().any(|loss| *loss >= at);
        let safe = self.steps.iter().rposition(|step| step.acknowledged.is_some_and(|at| !lost_since(at)));
        let first = safe.map_or(0, |safe| safe + 1);
        if let Some(back_to) = (first..=self.steps.len()).rev().find(|upto| {
            let after = upto.checked_sub(1).map(|last| &*self.steps[last].after);
            after.map_or(now.is_empty(), |after| *after == now)
        }) {
            self.steps.truncate(back_to);
            return Ok(());
        }
        // An older backup may hold what another restart has taken back.
        if safe.is_none() && lost_since(before) && self.ever.iter().any(|ever| **ever == now) {
            self.steps = vec![Step { op: None, acknowledged: Some(at), after: Rc::new(now) }];
            return Ok(());
        }
        let what = format!(
            "node {name}: after a restart it has the lists {}; before it had {}, and {} had been acknowledged",
            describe(&now),
            describe(&self.present()),
            safe.map_or_else(|| "nothing".to_owned(), |safe| describe(&self.steps[safe].after))
        );
        Err(Violation::new(Invariant::S7, what))
    }

    /// A subscriber is told what a list has come to: it must have come to that some time.
    ///
    /// # Errors
    /// It has not.
    pub fn told(&self, name: &str, path: &str, value: &[u8]) -> Result<Summary, Violation> {
        let told = Summary::from_value(value);
        let known = told.filter(|told| self.ever.iter().any(|lists| lists.get(path).is_some_and(|list| list.summary == *told)));
        known.ok_or_else(|| Violation::new(Invariant::S9, format!("node {name}: it tells of a list {path} that there never was: {told:?}")))
    }
}

#[cfg(test)]
mod tests {
    use mangrove::protocol::TopicSpec;
    use mangrove_crdt::{
        definition::{Definition, Properties},
        id::{Incarnation, NodeId, Origin},
        paged,
        path::Path,
    };

    use super::*;

    /// A node with a list, what there was of it, and what makes it.
    fn node() -> (Replica, Past, Path) {
        let origin = Origin { node: NodeId([1; 32]), incarnation: Incarnation { boot: 1, nonce: 1 } };
        let (mut replica, mut past) = (Replica::new(origin), Past::default());
        let path = Path::parse("a").expect("a path");
        assert!(past.restarted("n", &replica, 0, &[]).is_ok());
        replica.add_topics(&[(path.clone(), Definition::new(TopicType::Paged, Properties::default()))]);
        let add = Request::TopicsAdd { topic: TopicSpec::of("paged"), paths: vec!["a".into()] };
        assert!(past.asked("n", &replica, 0, &add).is_ok());
        (replica, past, path)
    }

    fn append(replica: &mut Replica, path: &Path, line: &str) -> Request {
        let lines = vec![line.to_owned()];
        replica.change_lines(path, 0, &paged::Splice { from: None, take: Some(0), lines: &lines }).expect("there is room");
        Request::Change(Box::new(Change::new(path.as_str(), Wish::Lines(Splice::append(lines)))))
    }

    #[test]
    fn a_list_is_what_was_asked_for_and_nothing_else() {
        let (mut replica, mut past, path) = node();
        let request = append(&mut replica, &path, "one");
        assert!(past.stands("n", &replica).is_err(), "nobody asked for it");
        let other = Request::Change(Box::new(Change::new("a", Wish::Lines(Splice::append(vec!["two".into()])))));
        assert!(past.asked("n", &replica, 1, &other).is_err(), "nor for that");
        assert!(past.asked("n", &replica, 1, &request).is_ok() && past.stands("n", &replica).is_ok());
        assert!(past.refused("n", 1).is_err() && past.refused("n", 2).is_ok());
        let told = ListState::from(past.present()["a"].summary);
        assert!(past.acknowledged("n", 1, 5, "a", Some(ListState { lines: 2, ..told })).is_err());
        assert!(past.acknowledged("n", 1, 5, "a", Some(told)).is_ok() && past.acknowledged("n", 2, 5, "a", Some(told)).is_err());
        let value = past.present()["a"].summary.to_value();
        assert!(past.told("n", "a", &value).is_ok() && past.told("n", "b", &value).is_err());
    }

    #[test]
    fn a_restart_takes_back_nothing_acknowledged() {
        let (mut replica, mut past, path) = node();
        let made = replica.take_rows().0;
        let request = append(&mut replica, &path, "one");
        assert!(past.asked("n", &replica, 1, &request).is_ok());
        let origin = Origin { incarnation: Incarnation { boot: 2, nonce: 2 }, ..replica.own() };
        let empty = Replica::load(origin, made).expect("its own rows");
        past.steps[1].acknowledged = Some(5);
        let mut restarted = |replica: &Replica, at, losses: &[Time]| past.restarted("n", replica, at, losses).is_ok();
        assert!(!restarted(&empty, 6, &[]), "its line is gone");
        assert!(!restarted(&empty, 6, &[4]), "what was lost before is no excuse");
        assert!(restarted(&replica, 7, &[]) && restarted(&empty, 9, &[8]));
        assert!(!restarted(&replica, 10, &[8]), "it has gone");
        assert!(restarted(&replica, 12, &[8, 11]), "a backup had it");
        assert!(!restarted(&empty, 13, &[8, 11]), "and it was restored");
    }
}
