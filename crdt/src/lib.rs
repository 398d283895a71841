//! What Mangrove replicates.
//!
//! # The state: planes
//!
//! A [`section`] is a branch of the tree that is replicated as a unit. What a node holds of it lies in three planes, each of which merges
//! by itself:
//!
//! | plane | what | how it merges |
//! |---|---|---|
//! | [`tree`] | topics and their definitions; in the built-in section, policy | automerge: 4,096 small documents, by a hash of the path |
//! | values ([`registers`]) | each topic's newest value | newest [`stamp`] wins; the tree says what lives |
//! | standing ([`registers`]) | what is said of nodes, sessions, claims, grants and displaced values ([`standing`]) | newest stamp wins; a removal is a write too |
//!
//! A topic is named by its creating dot, so one that is removed and made again is another topic, and old values cannot leak into it.
//! Concurrent creations with equal definitions are one topic; with different ones automerge's winner stands and the other is shown as a
//! conflict. A removal removes what its remover saw: a concurrent creation survives it, and a concurrent write goes to the section's [`displaced`] log.
//!
//! A topic may keep events instead of one value ([`series`]): each is a register of its own in the value plane, in an order that needs no clock, and the oldest go by a
//! register that says up to where.
//!
//! A list of lines ([`paged`]) is changed by position, and two of them cannot be merged: it never leaves the node where it was made, whatever section its path is in.
//!
//! # One road: feeds
//!
//! Whoever numbers writes is an *origin*: one run of one node ([`id::Origin`]). In each plane of each section an origin's writes are a
//! [`feed`]: for each key the place of its latest write, never the writes themselves. A key that is written again moves to the end, so
//! *a feed is never longer than the live state*, and reading it from any number onward gives exactly what someone at that number lacks.
//! A [`frontier::Frontier`] says for each origin how far a node has everything. That is the whole replication protocol: two nodes tell
//! each other their frontiers, and each sends the other what lies above.
//!
//! These are its rules. Each is here because some schedule without it lost something, diverged, or brought something back; the schedule tests
//! break each one and see it caught.
//!
//! - **R1 sound.** A frontier is a claim: for every record that it covers, this node holds that record or something newer for its key, or knows,
//!   or has rightly forgotten, its removal. It moves only when a run is complete.
//! - **R2 run.** A link works a feed in runs. At its start the sender fixes the target, its own frontier. It sends the newest write of every key
//!   that had an entry in (receiver's frontier, target], even if the entry has moved past the target meanwhile. Then the receiver's frontier becomes the
//!   target. So a hot key crosses once a run, none starves, and every run ends: conflation without any queue.
//! - **R3 pointer.** An entry that was overtaken by another origin's write stays, and sends the winner in its place.
//! - **R4 position.** The receiver takes over positions at the end of the run only, and learns none from a winner sent in place of another entry.
//! - **R5 forget.** A removal, and an overtaken entry, may go once it is stable: every member heard from within the retention reports a durable
//!   frontier that covers it, and we have seen all that they had seen ([`stability`]). Then the feed's *floor* rises to it. A
//!   removal names what it overtook, and stays until that has been seen too. Whatever of the standing plane comes later still, and is covered
//!   but not there, was removed, and stays out: it lingered on a link, or with somebody who was away.
//! - **R6 adopt.** Whoever is below a peer's floor takes over the peer's state bucket by bucket. In the standing plane, what the peer's
//!   frontier covered when it read the bucket, and the bucket lacks, was removed. What the peer has not seen is kept, and flows to it as usual. Positions,
//!   frontier and floor are taken over after the last bucket, as they were at the first. Joining is the same from nothing.
//! - **R7 repair.** Each bucket has a digest of its live content. Two nodes may compare once each one's frontier covers the other's
//!   dots in it; unequal digests are then a fault, or the remains of a run cut short whose sender is gone. They exchange the bucket both ways and the
//!   newest stands, except where whoever holds the older one had already seen the newer and removed it.
//! - **R8 clock.** Stamps come from one Lamport clock per node and section, never from a key's own past, so what is made again after its
//!   removal was forgotten is newer than that removal.
//! - **R9 across planes.** A value leaves its feed without a record when its topic goes. So the last batch of a value run carries the sender's
//!   tree frontier of the moment in which it was built, and the receiver's value frontier moves only once its tree frontier covers that. Nor does it before each topic of the run is
//!   there, or covered: an adoption under way, or a repair, shows topics that no frontier of that node covers yet, and its clients write them.
//!   If whoever made such a topic is gone, no feed brings it: a node that waits for it asks the neighbour for its bucket (R7). Where the
//!   topic is gone again within that document, this is all that there is to know: the run may end, and its values wait with whoever has them.
//!
//! A tree change is never overtaken: each is a run of its own, and one that comes before those it builds on waits.
//!
//! # Sources: epochs before clocks
//!
//! A session may want to be the only one to write below a path: the branch's *update source*. Its wish is a *claim*, its authority a *grant*, both records of the
//! standing plane in the branch's section, and who should be granted is judged from these alone ([`arbitration`]), by each node for itself. What makes
//! that safe is the [`stamp`]: a grant has an *epoch* above every epoch that its node has heard of in the section, its writes carry epoch and rank, and
//! everybody orders by these before any clock. So whoever has lost its branch, without knowing, writes what loses everywhere; two sides of a
//! split may each grant, and when they meet the greater (epoch, rank) stands on both, topic by topic as for the grant itself. Each node keeps the highest
//! epoch of each section on its disk, tells it with what it holds, and never forgets it. A grant counts once it is on the disk, so an epoch is never used twice.
//!
//! Who gives a branch up leaves an *open epoch* behind, one above its own, and plain writes are stamped with it from then on. And nothing is taken in under
//! less than what is there already: a node whom a source's values reach before its grant refuses until that comes, instead of writing what would lose.
//!
//! Where there must never be two at once, whatever splits, a majority of the section's voters gives out the epochs: [`quorum`].
//!
//! # Who may do what
//!
//! What principals, roles and paths may do ([`access`]) is a document of the built-in section beside the policies, the same on every node. A right that is withdrawn on one side of a
//! split must not be saved by an edit on the other, and the newest of two edits is no better than the older. So nothing is ever deleted from the document, an edit of the same
//! thing on both sides leaves both, and the [`access::rules`] are judged as each possibility would have it: what all of them permit is permitted. To say the thing anew settles it.
//!
//! # What definitions have no room for
//!
//! A definition may name data by its hash, a [`blob`]: nothing of that is merged, and any neighbour's copy is as good as another's. What a node's topics name it fetches and keeps, also for types that it
//! does not know; until it is there, their values are carried, and judged when it comes. It may be a schema, the descriptor set of a [`protobuf`] message, or a [`custom`] type's module, which is
//! a program of a stranger's and held to what it may cost.
//!
//! # Names, bytes, memory
//!
//! Every run of a node that writes is an origin, and its numbers are kept for ever, about a hundred bytes: dropping them would leave nothing to judge one by
//! who comes back after any absence, and a counter of runs in their place would not tell apart those of a disk image that was restored. A start
//! alone writes nothing; what a node's older runs have come to is told between neighbours as one hash (`mangrove_net`); and a write
//! names what it overtook only as far as somebody may still hold that.
//!
//! Inside a node an origin is a small number ([`frontier::OriginIx`]); what travels or is stored names it in full once. Values are bytes here,
//! checked against their type where they enter ([`value`]). What must reach the disk comes out as rows, each key's newest state
//! ([`persist`], [`rows`]); a batch of rows is a consistent cut, because it is taken between two inputs.
//!
//! Everything here is pure: no clock ([`time::Instant`] is a number that is passed in), no randomness, no I/O, and no iteration over hash tables.
//! [`replica::Replica`] is the only door.
//!
//! # Sources
//!
//! Dots and version vectors: Parker et al. 1983; Almeida et al., *Scalable and accurate causality tracking* (dotted version vectors), 2014. Feeds
//! that hold a key once: log compaction as in Kafka, with the difference that a reader is promised soundness, not every value. The tree: automerge. Leases: PaxosLease, corrected.

pub mod access;
pub mod arbitration;
pub mod blob;
pub mod bucket;
mod catalogue;
pub mod chunk;
pub mod custom;
pub mod definition;
pub mod delta;
pub mod displaced;
pub mod document;
pub mod feed;
pub mod frontier;
pub mod id;
pub mod json_schema;
pub mod paged;
pub mod path;
pub mod persist;
pub mod policy;
pub mod protobuf;
pub mod quorum;
pub mod record;
pub mod registers;
pub mod replica;
pub mod rows;
#[doc(hidden)]
pub mod sabotage;
mod saved;
pub mod section;
pub mod selector;
pub mod series;
pub mod stability;
pub mod stamp;
pub mod standing;
pub mod time;
pub mod tree;
pub mod value;
pub mod vaults;
