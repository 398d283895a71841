//! What travels on the lanes of sections: decoded, encoded again alike, and handled, with control messages in between.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mangrove_net::message::Content;
use mangrove_net_fuzz::{Node, frames};

fuzz_target!(|input: &[u8]| {
    let mut node = Node::greeted();
    for (lane, frame) in frames(input) {
        if let Ok(Some(message)) = Content::decode(frame) {
            assert_eq!(Content::decode(&message.encode()), Ok(Some(message)));
        }
        if !node.hear(u32::from(lane) % Node::LANES, frame) {
            break;
        }
    }
});
