//! Partitions: who does not reach whom, and what becomes of what is sent.

use super::{World, faults::Undo};
use crate::scenario::{Mode, Shape, Who};

impl World<'_> {
    pub(super) fn part(&mut self, shape: &Shape, mode: Mode, isolated: &[usize]) -> Undo {
        let count = self.hosts.len();
        let all: Vec<usize> = (0..count).collect();
        let mut pairs = Vec::new();
        let mut between = |a: &[usize], b: &[usize]| {
            for from in a {
                pairs.extend(b.iter().filter(|to| *to != from).map(|to| (*from, *to)));
            }
        };
        match shape {
            Shape::Complete(sides) | Shape::Bridge(sides) => {
                let mut sides = sides.clone();
                if matches!(shape, Shape::Complete(_)) {
                    sides.push(all.iter().filter(|node| !sides.iter().flatten().any(|on| on == *node)).copied().collect());
                }
                for (at, side) in sides.iter().enumerate() {
                    let others = sides.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, side)| side);
                    others.for_each(|other| between(side, other));
                }
            }
            Shape::Partial(a, b) => {
                between(a, b);
                between(b, a);
            }
            Shape::Simplex(a, b) => between(a, b),
            Shape::Isolate(_) => {
                between(isolated, &all);
                between(&all, isolated);
            }
            Shape::Halves => {
                let (a, b): (Vec<usize>, Vec<usize>) = all.iter().partition(|_| self.dice.faults.chance(0.5));
                between(&a, &b);
                between(&b, &a);
            }
            Shape::DeafHalf => {
                let (a, b): (Vec<usize>, Vec<usize>) = all.iter().partition(|_| self.dice.faults.chance(0.5));
                between(&a, &b);
            }
            Shape::Swizzle => {}
            Shape::MajorityRing => {
                // Each hears the next (n − 1) / 2 on both sides of a ring: with its own, a majority, and no two the same.
                let reach = (count / 2).div_ceil(2).max(1);
                for a in 0..count {
                    let far = |b: &usize| (count + a - b) % count > reach && (count + b - a) % count > reach;
                    let cut: Vec<usize> = (0..count).filter(far).collect();
                    between(&[a], &cut);
                }
            }
            Shape::Link => {
                let (a, b) = (self.dice.faults.below(count), self.dice.faults.below(count));
                between(&[a], &[b]);
                if self.dice.faults.chance(0.6) {
                    between(&[b], &[a]);
                }
            }
        }
        pairs.sort_unstable();
        pairs.dedup();
        self.faults.struck += 1;
        let names = || pairs.iter().map(|(from, to)| format!("{}>{}", self.hosts[*from].name, self.hosts[*to].name)).collect::<Vec<_>>();
        let said = format!("{mode:?} {}", names().join(" "));
        self.trace.note(self.now, "partition", 0, &[said.as_bytes()]);
        self.trace.say(self.now, || format!("FAULT: partition {said}"));
        self.audible_changed = true;
        match mode {
            Mode::Drop | Mode::Hold => {
                for path in &pairs {
                    self.network.part(self.now, &mut self.queue, *path, mode == Mode::Hold, true);
                }
                Undo::Heal(pairs, mode)
            }
            Mode::Slow(factor) => {
                pairs.retain(|(from, to)| !self.network.is_slow(*from, *to));
                pairs.iter().for_each(|(from, to)| self.network.slow(*from, *to, factor));
                Undo::Hasten(pairs)
            }
        }
    }

    /// Some nodes are parted from all others; each comes back when its own time is over.
    pub(super) fn swizzle(&mut self, mode: Mode) -> Vec<Undo> {
        let chosen: Vec<usize> = (0..self.hosts.len()).filter(|_| self.dice.faults.chance(0.4)).collect();
        let isolate = Shape::Isolate(Who::Random);
        chosen.into_iter().map(|host| self.part(&isolate, mode, &[host])).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{scenario::Scenario, trace::Trace};

    fn scenario(nodes: usize) -> Scenario {
        let text = format!(
            "schema = 1\n[run]\nduration = \"1s\"\nsettle = \"1s\"\n[nodes]\ncount = {nodes}\n[[section]]\nroot = \"s\"\n\
             [network.default]\nlatency = \"10ms\"\n"
        );
        Scenario::parse("faults", &text).expect("a good scenario")
    }

    /// Who does not hear whom while some are parted: as pairs of the one that speaks and the one that does not hear it.
    fn unheard(nodes: usize, shape: &Shape, mode: Mode, isolated: &[usize]) -> Vec<(usize, usize)> {
        let scenario = scenario(nodes);
        let mut world = World::new(&scenario, 1, Trace::new(None));
        let undo = world.part(shape, mode, isolated);
        let all = || (0..nodes).flat_map(|from| (0..nodes).map(move |to| (from, to))).filter(|(from, to)| from != to);
        let pairs = all().filter(|(from, to)| !world.network.is_up(*from, *to)).collect();
        world.undo(undo);
        assert!(all().all(|(from, to)| world.network.is_up(from, to)), "{shape:?} heals");
        pairs
    }

    fn both(pairs: &[(usize, usize)]) -> Vec<(usize, usize)> {
        let mut pairs: Vec<_> = pairs.iter().flat_map(|(a, b)| [(*a, *b), (*b, *a)]).collect();
        pairs.sort_unstable();
        pairs
    }

    #[test]
    fn each_shape_separates_whom_it_says_and_nobody_else() {
        for mode in [Mode::Drop, Mode::Hold] {
            let cut = |nodes, shape: Shape| unheard(nodes, &shape, mode, &[1]);
            let sides = vec![vec![0, 1], vec![2]];
            let parted = both(&[(0, 2), (1, 2)]);
            assert_eq!(cut(4, Shape::Bridge(sides.clone())), parted, "3 is the bridge");
            assert_eq!(cut(4, Shape::Complete(sides)), both(&[(0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]), "3 is a side of its own");
            assert_eq!(cut(4, Shape::Partial(vec![0, 1], vec![2])), parted);
            assert_eq!(cut(4, Shape::Simplex(vec![0, 1], vec![2])), [(0, 2), (1, 2)]);
            assert_eq!(cut(4, Shape::Isolate(Who::Random)), both(&[(0, 1), (1, 2), (1, 3)]));
            for nodes in 4..9 {
                let ring = cut(nodes, Shape::MajorityRing);
                let heard: Vec<Vec<usize>> =
                    (0..nodes).map(|to| (0..nodes).filter(|from| !ring.contains(&(*from, to))).collect()).collect();
                assert!(heard.iter().all(|heard| 2 * heard.len() > nodes && heard.len() < nodes), "{nodes}: {heard:?}");
                assert!((1..nodes).all(|at| heard[at] != heard[at - 1]), "no two the same: {heard:?}");
                assert!(ring.iter().all(|(from, to)| ring.contains(&(*to, *from))), "both ways");
            }
        }
        assert_eq!(unheard(4, &Shape::Partial(vec![0], vec![1]), Mode::Slow(9.0), &[]), [], "what is slow is heard");
    }

    #[test]
    fn one_half_is_deaf_and_not_mute() {
        let deaf = unheard(6, &Shape::DeafHalf, Mode::Drop, &[]);
        assert!(!deaf.is_empty() && deaf.iter().all(|(from, to)| !deaf.contains(&(*to, *from))), "{deaf:?}");
    }
}
