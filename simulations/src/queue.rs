//! Virtual time: what is to happen, in order.
//!
//! At equal times what goes down comes before all else, and everything else in the order in which it was put in; so the order never depends on
//! anything but the seed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use bytes::Bytes;

use crate::scenario::Time;

/// Something to happen. Numbers name hosts, processes, connections and so on by their places in the world.
#[derive(Debug)]
pub enum Event {
    /// A deadline of a node may have come.
    Wake {
        /// The host.
        host: u32,
        /// The process that set the deadline.
        process: u32,
    },
    /// A process is done with its last turn, and may take in what waits.
    Turn {
        /// The host.
        host: u32,
        /// The process.
        process: u32,
    },
    /// A packet arrives at one end of a connection.
    Packet {
        /// The connection.
        conn: u32,
        /// The end that receives.
        to: u8,
        /// The lane.
        lane: u32,
        /// Its place in the lane.
        seq: u32,
        /// The frame.
        bytes: Bytes,
    },
    /// A frame has left the sender's queue.
    Sent {
        /// The connection.
        conn: u32,
        /// The end that sends.
        from: u8,
        /// The lane.
        lane: u32,
        /// The frame's length.
        bytes: u32,
    },
    /// A sender tries again what was lost.
    Resend {
        /// The connection.
        conn: u32,
        /// The end that sends.
        from: u8,
    },
    /// An end of a connection may have heard nothing for too long.
    Idle {
        /// The connection.
        conn: u32,
        /// The end.
        end: u8,
        /// Which silence: another one does not count.
        epoch: u32,
    },
    /// The news arrives that the other end has closed.
    Closed {
        /// The connection.
        conn: u32,
        /// The end that hears it.
        end: u8,
        /// What it is told, if it is because it was revoked.
        revoked: Option<String>,
    },
    /// A dialler tries again.
    Dial {
        /// The host.
        host: u32,
        /// The process.
        process: u32,
        /// Which of its diallers.
        dialler: u32,
    },
    /// The first packet of a handshake arrives.
    Greeted {
        /// Who dialled.
        host: u32,
        /// Its process.
        process: u32,
        /// Which of its diallers.
        dialler: u32,
        /// Who is dialled.
        to: u32,
    },
    /// The answer of a handshake arrives.
    Answered {
        /// Who dialled.
        host: u32,
        /// Its process.
        process: u32,
        /// Which of its diallers.
        dialler: u32,
        /// Who answered.
        to: u32,
        /// The process that answered.
        to_process: u32,
        /// Whether it lets the caller in.
        welcome: bool,
        /// What it says to a caller that was revoked.
        revoked: Option<String>,
    },
    /// The last packet of a handshake arrives, and the end that was dialled is up.
    Confirmed {
        /// The connection.
        conn: u32,
    },
    /// A disk is done with what it was doing, or a retry or a sync is due.
    Disk {
        /// The host.
        host: u32,
        /// The process whose writer it is.
        process: u32,
        /// Which step of it.
        step: u32,
    },
    /// A client does something.
    Client {
        /// Which.
        client: u32,
    },
    /// A subscriber is done with some updates.
    Credit {
        /// Which client.
        client: u32,
        /// In which of its sessions.
        session: u32,
        /// How many.
        updates: u32,
    },
    /// A fault strikes.
    Strike {
        /// The fault's place in the plan.
        fault: u32,
        /// Whether it is one of a series.
        repeats: bool,
        /// Where the awaited event was observed, and about which neighbour, if one was awaited.
        observed: Option<(u32, u32)>,
    },
    /// A fault is over.
    Over {
        /// Which.
        active: u32,
    },
    /// A path that comes and goes does so.
    Flip {
        /// From whom.
        from: u32,
        /// To whom.
        to: u32,
    },
    /// A link of the contact trace comes or goes.
    Contact {
        /// The change's place in the trace.
        change: u32,
    },
    /// Checks of the whole are due.
    Sample,
    /// The warm-up is over.
    Hostile,
    /// The faults are over.
    Settle,
    /// The run is over.
    End,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Queue {
    /// Time, rank and order of each event, and its place: what is sifted is small.
    heap: BinaryHeap<Reverse<(Time, u8, u64, u32)>>,
    places: Vec<Option<Event>>,
    free: Vec<u32>,
    seq: u64,
}

impl Queue {
    /// Something to happen at a time.
    pub fn at(&mut self, at: Time, event: Event) {
        self.push(at, 1, event);
    }

    /// The same, before everything else of that time: what goes down does so before anything comes up.
    pub fn first_at(&mut self, at: Time, event: Event) {
        self.push(at, 0, event);
    }

    fn push(&mut self, at: Time, rank: u8, event: Event) {
        self.seq += 1;
        let place = match self.free.pop() {
            Some(place) => {
                self.places[place as usize] = Some(event);
                place
            }
            None => {
                self.places.push(Some(event));
                self.places.len() as u32 - 1
            }
        };
        self.heap.push(Reverse((at, rank, self.seq, place)));
    }

    /// What happens next, and when.
    pub fn pop(&mut self) -> Option<(Time, Event)> {
        let Reverse((at, _, _, place)) = self.heap.pop()?;
        self.free.push(place);
        Some((at, self.places[place as usize].take()?))
    }

    /// How much is to happen.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether nothing is to happen.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_down_comes_first_and_the_rest_in_order() {
        let mut queue = Queue::default();
        queue.at(5, Event::Settle);
        queue.at(5, Event::Sample);
        queue.first_at(5, Event::Hostile);
        queue.at(4, Event::End);
        let order: Vec<Event> = std::iter::from_fn(|| queue.pop().map(|(_, event)| event)).collect();
        assert!(matches!(order[..], [Event::End, Event::Hostile, Event::Settle, Event::Sample]), "{order:?}");
    }
}
