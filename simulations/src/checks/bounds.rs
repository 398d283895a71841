//! S17: what waits is bounded at all times, and when everybody is equal nothing but heartbeats, reports and comparisons crosses the links.

use mangrove::node::Node;

use super::{Invariant, Violation};

/// How many batches a node may have on their way to its store.
const BATCHES_MAX: u64 = 2;

/// How many tree changes may wait for others.
const WAITING_MAX: usize = 65_536;

/// What a connection may have waiting on a path that does not answer, beside the frame that crossed the limit, in bytes.
const STALLED_BYTES_MAX: usize = (128 << 10) + mangrove_net::FRAME_BYTES_MAX;

/// Looks at one node.
///
/// # Errors
/// Something has outgrown its bound.
pub fn node(name: &str, node: &Node, batches: u64) -> Result<(), Violation> {
    let replica = node.replica();
    if batches > BATCHES_MAX {
        let what = format!("node {name}: {batches} batches are on their way to the store, at most {BATCHES_MAX} may be");
        return Err(Violation::new(Invariant::S17, what));
    }
    for id in replica.held() {
        let waiting = replica.section(id).map_or(0, |section| section.waiting());
        if waiting > WAITING_MAX {
            return Err(Violation::new(Invariant::S17, format!("node {name}: {waiting} tree changes of {id} wait for others")));
        }
    }
    Ok(())
}

/// Looks at what waits on paths that are down.
///
/// # Errors
/// More than a connection may hold.
pub fn stalled(bytes: usize) -> Result<(), Violation> {
    if bytes <= STALLED_BYTES_MAX {
        return Ok(());
    }
    Err(Violation::new(Invariant::S17, format!("{bytes} bytes wait on one connection whose path is down")))
}

/// Looks at a stretch of time in which everybody was equal and nobody wrote, and nothing that a fault had lost was sent again: how many frames with
/// content crossed the links.
///
/// # Errors
/// Any did.
pub fn quiet(frames: u64, seconds: u64) -> Result<(), Violation> {
    if frames == 0 {
        return Ok(());
    }
    let what = format!("{frames} frames with content crossed the links in {seconds} s in which all were equal and nobody wrote");
    Err(Violation::new(Invariant::S17, what))
}
