//! Since when a neighbour has lacked something: what a section has held, at moments of the past.
//!
//! Nothing is noted for a write. Each time this node sees whether it has something to report ([`Pace::report`](crate::mesh::Pace::report)), what the
//! section's frontiers have moved by since the last time is put down as one mark. The oldest mark that a neighbour lacks something of says since when it has.
//!
//! Marks are thinned as they age, like milestones seen from afar: there are never more than [`MARKS_MAX`], and the gaps between them
//! grow with their age, so that the answer stays right to about a quarter, and never is too short by more than the time between two looks.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use mangrove_crdt::{
    frontier::OriginIx,
    id::Plane,
    section::{Frontiers, Section},
    time::Instant,
};

/// How many marks a section has at most: over a week of four a second, each is then about a quarter older than the one after it.
const MARKS_MAX: usize = 64;

/// What came to be held between one look and the next.
#[derive(Debug)]
struct Mark {
    /// The last look before any of it was held.
    since: Instant,
    /// How far each feed was held afterwards, of those that had moved.
    moved: BTreeMap<(Plane, OriginIx), u64>,
}

/// The marks of one section.
#[derive(Debug)]
pub(crate) struct History {
    /// Which holding of the section this is about.
    pub holding: u64,
    looked: Instant,
    last: Frontiers,
    marks: VecDeque<Mark>,
}

impl History {
    /// Begins now: what is held already counts as held since now.
    pub(crate) fn new(now: Instant, holding: u64) -> Self {
        History { holding, looked: now, last: Frontiers::default(), marks: VecDeque::new() }
    }

    /// Looks at what is held now.
    pub(crate) fn look(&mut self, now: Instant, section: &Section) {
        let held = Plane::ALL.map(|plane| (plane, section.frontier(plane)));
        let dots = held.iter().flat_map(|(plane, frontier)| frontier.iter().map(move |dot| (*plane, dot)));
        let moved: BTreeMap<(Plane, OriginIx), u64> =
            dots.filter(|(plane, dot)| !self.last[*plane].covers(*dot)).map(|(plane, dot)| ((plane, dot.origin), dot.number)).collect();
        let since = std::mem::replace(&mut self.looked, now);
        if moved.is_empty() {
            return;
        }
        for ((plane, origin), number) in &moved {
            self.last[*plane].raise(*origin, *number);
        }
        self.marks.push_back(Mark { since, moved });
        if self.marks.len() > MARKS_MAX {
            self.thin(now);
        }
    }

    /// For how long a neighbour has lacked something that is held; `None` if it lacks nothing.
    pub(crate) fn lag(&self, now: Instant, section: &Section, peer: &Frontiers) -> Option<Duration> {
        // What is not held any more (a run of long ago that has been retired) is not lacked either.
        let lacked = |(plane, origin): &(Plane, OriginIx), number: u64| {
            peer[*plane].get(*origin) < number.min(section.frontier(*plane).get(*origin))
        };
        let marked = self.marks.iter().find(|mark| mark.moved.iter().any(|(feed, number)| lacked(feed, *number)));
        let latest = || Plane::ALL.iter().any(|plane| !peer[*plane].covers_all(section.frontier(*plane)));
        let since = marked.map(|mark| mark.since).or_else(|| latest().then_some(self.looked))?;
        Some(now.since(since))
    }

    /// Joins the two neighbouring marks that are closest to each other for their age. What the younger held counts as older than it is.
    fn thin(&mut self, now: Instant) {
        let score = |at: &usize| {
            let (older, younger) = (self.marks[*at].since, self.marks[*at + 1].since);
            let (gap, age) = (younger.since(older).as_micros(), now.since(younger).as_micros() + 1);
            gap * 1_000_000 / age
        };
        let Some(at) = (0..self.marks.len().saturating_sub(1)).min_by_key(score) else { return };
        let Some(younger) = self.marks.remove(at + 1) else { return };
        self.marks[at].moved.extend(younger.moved);
    }
}

#[cfg(test)]
mod tests {
    use mangrove_crdt::{
        id::{Incarnation, NodeId, Origin, SectionId},
        replica::Replica,
        standing::Standing,
    };

    use super::*;

    const LOOK_EVERY_MS: u64 = 250;

    fn at(ms: u64) -> Instant {
        Instant(ms * 1_000)
    }

    /// One more record in the built-in section.
    fn write(replica: &mut Replica, n: u64) {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&n.to_be_bytes());
        replica.put_standing(Standing::Node(NodeId(key)), 0, Some(vec![1])).expect("the built-in section is held");
    }

    fn replica() -> Replica {
        Replica::new(Origin { node: NodeId([1; 32]), incarnation: Incarnation { boot: 1, nonce: 1 } })
    }

    fn look(history: &mut History, ms: u64, replica: &Replica) {
        history.look(at(ms), replica.section(SectionId::MESH).expect("held"));
    }

    fn lag(history: &History, ms: u64, replica: &Replica, peer: &Frontiers) -> Option<u64> {
        let lag = history.lag(at(ms), replica.section(SectionId::MESH).expect("held"), peer);
        lag.map(|lag| lag.as_millis() as u64)
    }

    fn all_of(replica: &Replica) -> Frontiers {
        replica.section(SectionId::MESH).expect("held").frontiers()
    }

    #[test]
    fn a_lag_grows_until_what_is_lacked_has_come() {
        let mut replica = replica();
        let mut history = History::new(at(0), 1);
        look(&mut history, 0, &replica);
        assert_eq!(lag(&history, 100, &replica, &Frontiers::default()), None, "nothing is held");
        write(&mut replica, 1);
        assert_eq!(lag(&history, 300, &replica, &Frontiers::default()), Some(300), "since the last look, at most");
        look(&mut history, 500, &replica);
        assert_eq!(lag(&history, 600, &replica, &Frontiers::default()), Some(600), "a look changes nothing about it");
        let one = all_of(&replica);
        assert_eq!(lag(&history, 600, &replica, &one), None);
        look(&mut history, 750, &replica);
        write(&mut replica, 2);
        look(&mut history, 1_000, &replica);
        assert_eq!(lag(&history, 5_000, &replica, &Frontiers::default()), Some(5_000), "the first is lacked still");
        assert_eq!(lag(&history, 5_000, &replica, &one), Some(4_250), "only the second is");
        assert_eq!(lag(&history, 5_000, &replica, &all_of(&replica)), None);
    }

    #[test]
    fn hours_of_writing_cost_few_marks_and_little_precision() {
        let mut replica = replica();
        let mut history = History::new(at(0), 1);
        look(&mut history, 0, &replica);
        let mut known: Vec<(u64, Frontiers)> = Vec::new();
        let looks = 4 * 3_600;
        for n in 1..=looks {
            // A neighbour that has everything up to here.
            if n % 100 == 0 {
                known.push((n * LOOK_EVERY_MS, all_of(&replica)));
            }
            write(&mut replica, n % 50);
            look(&mut history, n * LOOK_EVERY_MS, &replica);
        }
        assert!(history.marks.len() <= MARKS_MAX, "{} marks", history.marks.len());
        let now = looks * LOOK_EVERY_MS;
        for (upto, frontiers) in known {
            let lag = lag(&history, now, &replica, &frontiers).expect("more was written since");
            let lacked = now - upto;
            assert!(lag >= lacked && lag <= lacked * 5 / 4 + LOOK_EVERY_MS, "{lag} ms are told for {lacked} ms");
        }
    }
}
