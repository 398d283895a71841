//! What waits to be told to a subscriber.

use std::collections::VecDeque;

use mangrove_crdt::{definition::Priority, path::Path, registers::Write, series::EventIx};

/// How many values of one topic may wait of which none is to be skipped, and how many bytes.
const PASSED_MAX: usize = 256;
const PASSED_BYTES_MAX: usize = 1 << 20;

/// Topics that have changed: the more urgent first, and of those the one that has waited longest.
#[derive(Debug, Default)]
pub struct Waiting {
    queues: [VecDeque<(u64, Path)>; 3],
    /// How many have come.
    count: u64,
}

/// A place among those that wait.
#[derive(Clone, Copy, Debug)]
pub struct Turn(Priority, u64);

impl Waiting {
    pub fn push(&mut self, priority: Priority, path: Path) {
        self.count += 1;
        self.queues[priority as usize].push_back((self.count, path));
    }

    /// Whose turn it is.
    pub fn pop(&mut self) -> Option<(Turn, Path)> {
        let most_urgent_first = [Priority::High, Priority::Normal, Priority::Low].into_iter();
        most_urgent_first.into_iter().find_map(|priority| {
            let (number, path) = self.queues[priority as usize].pop_front()?;
            Some((Turn(priority, number), path))
        })
    }

    /// It is its turn again.
    pub fn put_back(&mut self, Turn(priority, number): Turn, path: Path) {
        self.queues[priority as usize].push_front((number, path));
    }

    pub fn len(&self) -> usize {
        self.queues.iter().map(VecDeque::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.queues.iter().all(VecDeque::is_empty)
    }

    /// How many have come.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Whether of those that had come when there were so many none waits any more.
    pub fn is_through(&self, count: u64) -> bool {
        self.queues.iter().all(|queue| queue.front().is_none_or(|(number, _)| *number > count))
    }
}

/// A value that is to be told, and which event it is, if it is one.
pub type Passed = (Option<EventIx>, Write);

/// The values of a topic that are to be told one by one.
#[derive(Debug, Default)]
pub struct Passing {
    values: VecDeque<Passed>,
    bytes: usize,
    missed: u64,
}

impl Passing {
    /// One more; the oldest are missed where there are too many.
    pub fn push(&mut self, passed: &Passed) {
        self.bytes += bytes_of(passed);
        self.values.push_back(passed.clone());
        while self.values.len() > 1 && (self.values.len() > PASSED_MAX || self.bytes > PASSED_BYTES_MAX) {
            let dropped = self.values.pop_front();
            self.bytes -= dropped.as_ref().map_or(0, bytes_of);
            self.missed += 1;
        }
    }

    /// The next one, and how many were missed before it.
    pub fn pop(&mut self) -> Option<(Passed, u64)> {
        let passed = self.values.pop_front()?;
        self.bytes -= bytes_of(&passed);
        Some((passed, std::mem::take(&mut self.missed)))
    }

    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }
}

fn bytes_of((_, write): &Passed) -> usize {
    write.value.as_ref().map_or(0, |value| value.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_urgent_go_first_and_positions_wait_for_all() {
        let path = |text: &str| Path::parse(text).unwrap();
        let mut waiting = Waiting::default();
        waiting.push(Priority::Low, path("low"));
        waiting.push(Priority::Normal, path("a"));
        let count = waiting.count();
        waiting.push(Priority::Normal, path("b"));
        waiting.push(Priority::High, path("high"));
        assert_eq!(waiting.len(), 4);
        let mut told = Vec::new();
        while let Some((turn, next)) = waiting.pop() {
            if next.as_str() == "a" && !told.contains(&next) {
                // It has more to say.
                told.push(next.clone());
                waiting.put_back(turn, next);
                assert!(!waiting.is_through(count));
                continue;
            }
            assert_eq!(waiting.is_through(count), next.as_str() == "low", "{next}");
            told.push(next);
        }
        let told: Vec<&str> = told.iter().map(Path::as_str).collect();
        assert_eq!(told, ["high", "a", "a", "b", "low"]);
        assert!(waiting.is_empty() && waiting.is_through(u64::MAX));
    }
}
