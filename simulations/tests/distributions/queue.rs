//! Bandwidth with a bounded queue.

use bytes::Bytes;
use mangrove_simulations::{
    network::{Arrived, EndState},
    queue::{Event, Queue},
};

use super::network;

/// A hundred frames at once over 1 Mbit/s: how many a full queue drops, whether the lane is blocked then, and when which arrive.
fn flood(queue: &str) -> (u64, bool, Vec<(u64, u8)>) {
    let mut network = network(&format!("latency = \"10ms\"\nbandwidth = \"1Mbit/s\"\nqueue = {queue}"));
    let mut queue = Queue::default();
    network.connect(0, &mut queue, (0, 1), (1, 1));
    network.conns[0].ends.iter_mut().for_each(|end| end.state = EndState::Up);
    (0..100).for_each(|frame| network.send(0, &mut queue, 0, 0, 1, Bytes::from(vec![frame; 1_000])));
    let (dropped, blocked) = (network.dropped, network.is_blocked(0, 0, 1));
    let mut arrived = Vec::new();
    while let Some((now, event)) = queue.pop() {
        match event {
            Event::Packet { lane, seq, bytes, .. } => {
                if let Arrived::Frames(frames) = network.arrive(now, &mut queue, 0, 1, (lane, seq, bytes)) {
                    arrived.extend(frames.iter().map(|frame| (now, frame[0])));
                }
            }
            Event::Resend { .. } => _ = network.resend(now, &mut queue, 0, 0),
            _ => {}
        }
    }
    (dropped, blocked, arrived)
}

#[test]
fn a_full_queue_drops_what_comes_and_it_is_sent_again() {
    // A frame takes 1,060 bytes with its headers, so that nine find room, and 8.48 ms to leave.
    let (dropped, blocked, arrived) = flood("{ bytes = \"10KiB\", drop = \"tail\" }");
    assert_eq!((dropped, blocked), (91, false));
    assert!(arrived.iter().map(|(_, frame)| *frame).eq(0..100), "all come, in order");
    assert_eq!(arrived[8].0, 9 * 8_480 + 10_000);
    // What was dropped comes after the timeout that the queue has made longer.
    assert_eq!(arrived[9].0, 9 * 8_480 + 25_000 + 8_480 + 10_000);
}

#[test]
fn without_a_drop_the_sender_waits() {
    let (dropped, blocked, arrived) = flood("{ bytes = \"10KiB\" }");
    assert_eq!((dropped, blocked), (0, true));
    assert_eq!(arrived.last(), Some(&(100 * 8_480 + 10_000, 99)));
}
