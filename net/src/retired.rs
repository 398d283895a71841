//! Retired runs: what a node's older runs have come to is told as one hash a section, however many there were.
//!
//! Every run of a node that writes is an origin with feeds and numbers of its own, for ever: whoever has been away, however long, is judged by them
//! (R5, R6), and an image of a disk that comes back brings a run that none of its node's counters tells apart from another. So no number is
//! ever dropped. But runs that are over stop moving, and soon all neighbours have the same numbers of them: so it is enough to say *the runs up
//! to here, and a hash of what I have of them*. Who has the same knows the rest; who has not asks for the list ([`Control::Unfold`]).
//!
//! Nothing hangs on when a run counts as retired: it is a way of telling, not of knowing. Each node simply tells all but the newest runs of
//! each node so.
//!
//! [`Control::Unfold`]: crate::message::Control::Unfold

use std::collections::BTreeMap;

use mangrove_crdt::{
    frontier::{OriginIx, Origins},
    id::{Incarnation, NodeId, Origin, Plane},
    sabotage::{Sabotage, is},
    section::Frontiers,
};

use crate::{
    codec::{Intern, Malformed, NamesIn, NamesOut, Reader, Writer},
    send::short,
};

/// Of each node, the runs up to one of them, and what the teller has of all these.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Retired {
    upto: Vec<OriginIx>,
    hash: u64,
}

/// The origins of which something is held, node by node and run by run, and what that is, plane by plane.
fn numbers(origins: &Origins, frontiers: &Frontiers) -> impl Iterator<Item = (OriginIx, [u64; 3])> {
    let held = |ix: &OriginIx| (*ix, Plane::ALL.map(|plane| frontiers[plane].get(*ix)));
    origins.ordered().iter().map(held).filter(|(_, numbers)| *numbers != [0; 3])
}

impl Retired {
    /// Parts all but the newest `told` runs of each node from some frontiers, and leaves the rest of these.
    pub fn part(origins: &Origins, frontiers: &Frontiers, told: usize) -> (Retired, Frontiers) {
        let held: Vec<OriginIx> = numbers(origins, frontiers).map(|(ix, _)| ix).collect();
        let of_each_node = held.chunk_by(|a, b| origins.get(*a).node == origins.get(*b).node);
        let upto: Vec<OriginIx> = of_each_node.filter_map(|runs| Some(runs[runs.len().checked_sub(told + 1)?])).collect();
        if upto.is_empty() {
            return (Retired::default(), frontiers.clone());
        }
        let mut retired = Retired { upto, hash: 0 };
        retired.hash = retired.hash_of(origins, frontiers);
        let mut rest = Frontiers::default();
        let bounds = retired.bounds(origins);
        for plane in Plane::ALL {
            rest[plane] = frontiers[plane].iter().filter(|dot| !within(&bounds, origins.get(dot.origin))).collect();
        }
        (retired, rest)
    }

    /// Whether no run is retired.
    pub fn is_empty(&self) -> bool {
        self.upto.is_empty()
    }

    /// The same runs, with nothing of them.
    pub fn given_up(&self) -> Retired {
        Retired { upto: self.upto.clone(), hash: 0 }
    }

    /// Whether an origin's run is retired.
    pub fn covers(&self, origins: &Origins, origin: OriginIx) -> bool {
        within(&self.bounds(origins), origins.get(origin))
    }

    /// What whoever told this and the `rest` has, seen by one who has `ours`: `None` if it has not the same of the retired runs.
    pub fn join(&self, origins: &Origins, mut rest: Frontiers, ours: &Frontiers) -> Option<Frontiers> {
        if self.is_empty() {
            return Some(rest);
        }
        if self.hash_of(origins, ours) != self.hash && !is(Sabotage::BlindRetired) {
            return None;
        }
        let bounds = self.bounds(origins);
        for plane in Plane::ALL {
            for dot in ours[plane].iter().filter(|dot| within(&bounds, origins.get(dot.origin))) {
                rest[plane].raise(dot.origin, dot.number);
            }
        }
        Some(rest)
    }

    fn bounds(&self, origins: &Origins) -> BTreeMap<NodeId, Incarnation> {
        self.upto.iter().map(|ix| origins.get(*ix)).map(|origin| (origin.node, origin.incarnation)).collect()
    }

    fn hash_of(&self, origins: &Origins, frontiers: &Frontiers) -> u64 {
        let bounds = self.bounds(origins);
        let mut hasher = blake3::Hasher::new();
        for (origin, numbers) in numbers(origins, frontiers).map(|(ix, numbers)| (origins.get(ix), numbers)) {
            if within(&bounds, origin) {
                hasher.update(&origin.to_bytes());
                numbers.iter().for_each(|number| _ = hasher.update(&number.to_be_bytes()));
            }
        }
        // Zero is kept for nothing at all.
        short(hasher.finalize().as_bytes()).max(1)
    }

    /// Packs it: nothing, if no run is retired.
    pub fn pack(&self, names: &mut NamesOut, origins: &Origins) -> Vec<u8> {
        let mut w = Writer::default();
        if !self.is_empty() {
            self.pack_onto(&mut w, names, origins);
        }
        w.out
    }

    /// Packs it onto the end of something.
    pub(crate) fn pack_onto(&self, w: &mut Writer, names: &mut NamesOut, origins: &Origins) {
        w.out.extend_from_slice(&self.hash.to_be_bytes());
        w.u64(self.upto.len() as u64);
        self.upto.iter().for_each(|origin| w.origin(names, origins, *origin));
    }

    /// Reads what [`Retired::pack`] packed.
    pub fn unpack(bytes: &[u8], names: &mut NamesIn, intern: &mut Intern<'_>) -> Result<Retired, Malformed> {
        if bytes.is_empty() { Ok(Retired::default()) } else { Retired::read(&mut Reader::new("retired runs", bytes), names, intern) }
    }

    pub(crate) fn read(r: &mut Reader<'_>, names: &mut NamesIn, intern: &mut Intern<'_>) -> Result<Retired, Malformed> {
        let hash = r.take(8)?.try_into().map_err(|_| r.bad("a hash"))?;
        let upto = (0..r.count()?).map(|_| r.origin(names, intern)).collect::<Result<_, _>>()?;
        Ok(Retired { upto, hash: u64::from_be_bytes(hash) })
    }
}

fn within(bounds: &BTreeMap<NodeId, Incarnation>, origin: Origin) -> bool {
    bounds.get(&origin.node).is_some_and(|upto| origin.incarnation <= *upto)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(origins: &mut Origins, node: u8, boot: u32) -> OriginIx {
        origins.intern(Origin { node: NodeId([node; 32]), incarnation: Incarnation { boot, nonce: u64::from(boot) * 7 } })
    }

    fn world() -> (Origins, Frontiers) {
        let (mut origins, mut frontiers) = (Origins::default(), Frontiers::default());
        for boot in 1..=5 {
            let origin = run(&mut origins, 1, boot);
            frontiers[Plane::Values].raise(origin, 10 + u64::from(boot));
            frontiers[Plane::Tree].raise(origin, 1);
        }
        let other = run(&mut origins, 2, 1);
        frontiers[Plane::Values].raise(other, 3);
        (origins, frontiers)
    }

    #[test]
    fn who_has_the_same_knows_all_from_the_newest_runs_and_a_hash() {
        let (origins, frontiers) = world();
        let (retired, rest) = Retired::part(&origins, &frontiers, 2);
        assert_eq!(rest[Plane::Values].iter().count(), 3);
        assert_eq!(retired.join(&origins, rest.clone(), &frontiers), Some(frontiers.clone()));
        // Through the codec, to a node that has met the origins in another order.
        let mut w = Writer::default();
        retired.pack_onto(&mut w, &mut NamesOut::default(), &origins);
        assert!(w.out.len() < 64, "{} bytes", w.out.len());
        let mut other = Origins::default();
        run(&mut other, 9, 9);
        let mut there = Frontiers::default();
        for plane in Plane::ALL {
            for dot in frontiers[plane].iter() {
                there[plane].raise(other.intern(origins.get(dot.origin)), dot.number);
            }
        }
        let heard = Retired::unpack(&w.out, &mut NamesIn::default(), &mut |origin| Some(other.intern(origin))).unwrap();
        let (_, newest) = Retired::part(&other, &there, 2);
        assert_eq!(heard.join(&other, newest, &there), Some(there));
    }

    #[test]
    fn who_has_more_or_less_of_any_retired_run_cannot_tell() {
        let (mut origins, frontiers) = world();
        let (retired, rest) = Retired::part(&origins, &frontiers, 2);
        assert_eq!(retired.join(&origins, rest.clone(), &Frontiers::default()), None);
        let mut more = frontiers.clone();
        more[Plane::Standing].raise(run(&mut origins, 1, 2), 1);
        assert_eq!(retired.join(&origins, rest.clone(), &more), None);
        // A run of a restored image, with a counter that was used before.
        let mut image = frontiers.clone();
        let again = origins.intern(Origin { node: NodeId([1; 32]), incarnation: Incarnation { boot: 2, nonce: 99 } });
        image[Plane::Values].raise(again, 1);
        assert_eq!(retired.join(&origins, rest.clone(), &image), None);
        // The newest runs are told by number, so they may differ.
        let mut newer = frontiers.clone();
        newer[Plane::Values].raise(run(&mut origins, 1, 5), 100);
        assert_eq!(retired.join(&origins, rest.clone(), &newer), Some(frontiers.clone()));
        assert_eq!(retired.given_up().join(&origins, rest, &frontiers), None);
    }

    #[test]
    fn without_old_runs_there_is_nothing_to_tell() {
        let (origins, frontiers) = world();
        let (retired, rest) = Retired::part(&origins, &frontiers, 5);
        assert!(retired.is_empty() && retired.pack(&mut NamesOut::default(), &origins).is_empty());
        assert_eq!(rest, frontiers);
        assert_eq!(Retired::unpack(&[], &mut NamesIn::default(), &mut |_| None), Ok(Retired::default()));
        assert_eq!(retired.join(&origins, rest, &Frontiers::default()), Some(frontiers));
    }
}
