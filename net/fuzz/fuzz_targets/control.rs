//! Control messages: decoded, encoded again alike, and handled.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mangrove_net::message::Control;
use mangrove_net_fuzz::{Node, frames};

fuzz_target!(|input: &[u8]| {
    let mut node = Node::greeted();
    for (_, frame) in frames(input) {
        if let Ok(Some(message)) = Control::decode(frame) {
            assert_eq!(Control::decode(&message.encode()), Ok(Some(message)));
        }
        if !node.hear(0, frame) {
            break;
        }
    }
});
