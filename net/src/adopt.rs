//! Taking over a peer's state bucket by bucket: adopting what lies below its floors, and repairing what differs.
//!
//! An adoption brings every bucket that differs, and moves frontiers and floors only at its end, to those of its beginning. What has come of one that is
//! cut stands, and is worth nothing but that it need not come again. A repair brings one bucket, and moves nothing.

use mangrove_crdt::{
    id::{Plane, SectionId},
    path::BUCKETS,
    replica::Replica,
    sabotage::{Sabotage, is},
    section::{BucketImage, Frontiers},
};

use crate::{
    Violation,
    codec::{Malformed, NamesIn, Reader},
    compress::decompress,
    link::{Adopting, HeldEnd, Intent, Link},
    message::{AdoptBegin, AdoptEnd, Images, Repair, unpack_frontiers, unpack_image},
    receive::{Effects, intern, release_held},
    send::short,
};

impl Link {
    /// Whether a section must be adopted from this peer: this node is below one of its floors, or has nothing yet.
    pub(crate) fn must_adopt(&self, replica: &Replica, id: SectionId) -> bool {
        let (Some(section), Some((frontiers, floors))) = (replica.section(id), self.peer_holds.get(&id)) else { return false };
        let mut ours = section.frontiers();
        for run in self.shared.get(&id).into_iter().flat_map(|shared| &shared.held).flat_map(|held| &held.runs) {
            ours[Plane::Values].raise(run.origin, run.upto);
        }
        !ours.covers_all(floors) || (id != SectionId::MESH && ours.is_zero() && !frontiers.is_zero())
    }

    /// The peer begins to bring its state: what it covers now, and below what it remembers nothing.
    pub(crate) fn adopt_begin(
        &mut self,
        replica: &mut Replica,
        id: SectionId,
        begin: &AdoptBegin,
        names: &mut NamesIn,
    ) -> Result<Effects, Violation> {
        let mut start = unpack_frontiers(&begin.frontiers, names, &mut |origin| intern(replica, origin))?;
        let mut floors = unpack_frontiers(&begin.floors, names, &mut |origin| intern(replica, origin))?;
        if let Some(heard) = self.heard.get(&id) {
            start.join(&heard.frontiers);
            floors.join(&heard.floors);
        }
        let Some(shared) = self.shared.get_mut(&id) else { return Ok(Effects::default()) };
        let Some((section, _)) = replica.parts(id) else { return Ok(Effects::default()) };
        let Some(adopting) = shared.adopting.as_mut().filter(|adopting| adopting.request == begin.request) else {
            return Ok(Effects::default());
        };
        section.raise_clock(begin.clock);
        shared.arriving.clear();
        shared.held.clear();
        (adopting.begun, adopting.start, adopting.floors) = (true, start, floors);
        Ok(Effects::default())
    }

    /// Some buckets of it, each judged by what the peer covered when it read them.
    pub(crate) fn adopt_buckets(
        &mut self,
        replica: &mut Replica,
        id: SectionId,
        images: &Images,
        names: &mut NamesIn,
    ) -> Result<Effects, Violation> {
        let (buckets, mut covered) = read_images(replica, images, names)?;
        if let Some(heard) = self.heard.get(&id) {
            covered.join(&heard.frontiers);
        }
        let Some(shared) = self.shared.get_mut(&id) else { return Ok(Effects::default()) };
        let Some(adopting) = shared.adopting.as_mut().filter(|adopting| adopting.begun) else { return Ok(Effects::default()) };
        let Some((section, mut cx)) = replica.parts(id) else { return Ok(Effects::default()) };
        for image in buckets {
            let told = adopting.told.get(&image.bucket).copied().unwrap_or(0);
            let changed = !image.whole && short(&section.digest(cx.origins, image.bucket).digest) != told;
            let covered = if is(Sabotage::JudgedAtStart) { &adopting.start } else { &covered };
            section.adopt_bucket(&mut cx, image, covered, changed, &mut adopting.positions)?;
        }
        adopting.done = images.done;
        if is(Sabotage::AdoptEnd) {
            adopting.start = covered;
        }
        Ok(Effects::default())
    }

    /// That was all: only now what the peer covered at the beginning is covered here.
    pub(crate) fn adopt_end(
        &mut self,
        replica: &mut Replica,
        id: SectionId,
        end: &AdoptEnd,
        names: &mut NamesIn,
    ) -> Result<Effects, Violation> {
        let mut tree = Reader::new("tree frontier", &end.tree).frontier(names, &mut |origin| intern(replica, origin))?;
        if let Some(heard) = self.heard.get(&id) {
            tree.join(&heard.frontiers[Plane::Tree]);
        }
        let Some(shared) = self.shared.get_mut(&id) else { return Ok(Effects::default()) };
        let Some(adopting) = shared.adopting.take_if(|adopting| adopting.begun) else { return Ok(Effects::default()) };
        let Adopting { start, floors, positions, missed, .. } = adopting;
        let Some((section, mut cx)) = replica.parts(id) else { return Ok(Effects::default()) };
        let runs = section.end_adoption(&mut cx, &start, &floors, positions)?;
        shared.held.push_back(HeldEnd { runs, tree, unknown: Vec::new() });
        release_held(shared, section);
        shared.peer.join(&start);
        shared.pruned.clear();
        for (plane, origin) in missed {
            self.intend(Intent::Graft(id, plane, origin));
        }
        self.stats.adoptions_in += 1;
        Ok(Effects { tree_moved: Some(id), adopted: Some(id), ..Effects::default() })
    }

    /// Asks for a bucket that differs.
    pub(crate) fn mend(&mut self, section: SectionId, bucket: u16) {
        if !is(Sabotage::NoRepair) {
            self.intend(Intent::RepairRequest(section, bucket));
        }
    }

    /// A bucket that differed, as the peer has it; ours goes back, if it asks for that.
    pub(crate) fn repair(
        &mut self,
        replica: &mut Replica,
        id: SectionId,
        repair: Repair,
        pieces: Vec<u8>,
        names: &mut NamesIn,
    ) -> Result<Effects, Violation> {
        let (images, mut covered) = read_images(replica, &repair.images.after(pieces), names)?;
        let Some((section, mut cx)) = replica.parts(id) else { return Ok(Effects::default()) };
        let Some(shared) = self.shared.get_mut(&id) else { return Ok(Effects::default()) };
        if let Some(heard) = self.heard.get(&id) {
            covered.join(&heard.frontiers);
        }
        for image in &images {
            section.repair_bucket(&mut cx, image, &covered)?;
            if repair.reply && !shared.repairs.contains(&(image.bucket, false)) {
                shared.repairs.push_back((image.bucket, false));
            }
        }
        // Changes that waited for what came may have been applied.
        Ok(Effects { tree_moved: Some(id), ..Effects::default() })
    }
}

fn read_images(replica: &mut Replica, images: &Images, names: &mut NamesIn) -> Result<(Vec<BucketImage>, Frontiers), Violation> {
    let unpacked =
        decompress(&images.images, crate::BULK_UNPACKED_BYTES_MAX).map_err(|error| Malformed::new("buckets", error.to_string()))?;
    let mut r = Reader::new("buckets", &unpacked);
    let mut buckets = Vec::new();
    while !r.is_done() {
        let image = unpack_image(&mut r, names, &mut |origin| intern(replica, origin))?;
        if image.bucket >= BUCKETS {
            return Err(r.bad(format!("bucket {}", image.bucket)).into());
        }
        buckets.push(image);
    }
    let covered = unpack_frontiers(&images.covered, names, &mut |origin| intern(replica, origin))?;
    Ok((buckets, covered))
}
