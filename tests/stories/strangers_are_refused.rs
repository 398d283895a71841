//! Nodes of other meshes, garbage and clients that break the protocol are refused; the node goes on as if nothing had been.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use mangrove_net::FRAME_BYTES_MAX;
use mangrove_net::quic::{ClientEndpoint, Closed, Endpoint, LinkEvent, Options, Revocations};
use tokio::sync::mpsc;

use crate::support::{World, block, stored_identity, until};

/// Bytes that look like nothing, always the same.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    std::iter::repeat_with(&mut next).take(len).collect()
}

#[test]
fn nodes_of_another_mesh() {
    let world = World::new();
    let a = world.found("A");
    let peers = format!("peers=[{:?}]", a.address());
    let x = world.found_with("X", &["--set", &peers]);
    a.told(&["section", "add", "demo"]);
    x.told(&["section", "add", "demo"]);
    a.set("demo/secret", "1");
    until("X is told why", || {
        let told = x.json(&["doctor"]).to_string();
        told.contains(a.address()) && told.contains("mesh")
    });
    assert!(x.logged().contains("dialling fails"), "{}", x.logged());
    assert!(a.links().is_empty() && x.links().is_empty(), "{:?} {:?}", a.links(), x.links());
    assert_eq!(a.json(&["node", "ls"]).as_array().map(Vec::len), Some(1));
    assert!(x.paths().is_empty());
}

#[test]
fn garbage_at_the_port() {
    let world = World::new();
    let a = world.found("A");
    a.set("kept", "1");
    let address: SocketAddr = a.address().parse().expect("an address");
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    for seed in 0..3_000u64 {
        let mut bytes = noise(seed, (seed % 1_400) as usize);
        // Some begin as QUIC's packets do: long headers of version 1, of no version, short ones.
        let starts: [&[u8]; 4] = [&[0xc0, 0, 0, 0, 1, 8], &[0xff, 0, 0, 0, 0, 20, 20], &[0x40], &[]];
        let start = starts[seed as usize % 4];
        let len = start.len().min(bytes.len());
        bytes[..len].copy_from_slice(&start[..len]);
        // A full buffer loses some, as any network does.
        let _ = socket.send_to(&bytes, address);
    }
    assert_eq!(a.get("kept"), 1);
    a.set("kept", "2");
}

#[test]
fn clients_that_break_the_protocol() {
    let world = World::new();
    let a = world.found("A");
    a.set("kept", "1");
    let address: SocketAddr = a.address().parse().expect("an address");
    let mesh = a.status().mesh;
    block(async {
        let endpoint = ClientEndpoint::bind(Options::default()).expect("a socket");
        let frames: Vec<Vec<u8>> = vec![
            // Longer than any hello, longer than any frame, nothing after the length, no length.
            [0xff; 4].to_vec(),
            [&[0x7f, 0xff, 0xff, 0xff][..], &noise(1, 10_000)].concat(),
            vec![0, 0, 0, 64],
            vec![0, 0],
            // As long as it says, and no message.
            [&32u32.to_be_bytes()[..], &noise(2, 32)].concat(),
            [&32u32.to_le_bytes()[..], &noise(3, 32)].concat(),
            [&4u32.to_be_bytes()[..], &[0x9f, 0x9f, 0x9f, 0x9f]].concat(),
            noise(4, 100_000),
        ];
        for bytes in frames {
            let connection = endpoint.connect_client(address, mesh).await.expect("the handshake needs no token");
            let (mut write, mut read) = connection.open_bi().await.expect("a stream");
            // The node may have had enough before all is written.
            let _ = write.write_all(&bytes).await;
            let _ = write.finish();
            let answer = tokio::time::timeout(Duration::from_secs(20), read.read_to_end(1 << 20)).await.expect("the node ends it");
            let answer = String::from_utf8_lossy(&answer.unwrap_or_default()).into_owned();
            assert!(!answer.contains("kept"), "{answer}");
        }
        // Many at once that never say anything.
        let mut silent = Vec::new();
        for _ in 0..50 {
            silent.push(endpoint.connect_client(address, mesh).await.expect("a handshake"));
        }
        // One that says hello well and then breaks the protocol loses its session; another's goes on.
        let good = a.connect().await;
        let greeted = endpoint.connect_client(address, mesh).await.expect("a handshake");
        let (mut write, mut read) = greeted.open_bi().await.expect("a stream");
        let credential = mangrove::client::Credential::read(&a.data.join("operator.toml")).expect("a credential");
        let hello = mangrove::protocol::Hello {
            version: mangrove::protocol::VERSION,
            token: match credential.proof {
                mangrove::client::Proof::Operator(token) => mangrove::protocol::Secret::new(*token.bytes()),
                other => panic!("{other:?}"),
            },
            client: "junk".into(),
            aliases_max: 10,
            bases_bytes: 0,
            compressed: false,
            session: None,
            login: None,
            properties: Default::default(),
        };
        let frame = mangrove::protocol::frame(&mangrove::protocol::FromClient::Hello(hello)).expect("a frame");
        write.write_all(&frame).await.expect("it is taken");
        let _ = write.write_all(&noise(5, 50_000)).await;
        let ended = tokio::time::timeout(Duration::from_secs(20), read.read_to_end(1 << 20)).await;
        assert!(ended.is_ok(), "the session must end");
        assert_eq!(good.status().await.expect("it goes on").topics, 1);
        drop(silent);
    });
    assert_eq!(a.get("kept"), 1);
    a.set("kept", "2");
}

#[test]
fn members_that_break_the_protocol() {
    let world = World::new();
    let a = world.found("A");
    let mut b = world.join("B", &a);
    a.told(&["section", "add", "demo"]);
    a.set("demo/kept", "1");
    b.shows("demo/kept", 1);
    b.terminate();
    let address: SocketAddr = a.address().parse().expect("an address");
    // Someone else runs with B's keys.
    let identity = stored_identity(&b);
    block(async {
        let here = "127.0.0.1:0".parse().expect("an address");
        let endpoint = Endpoint::bind(here, &identity, Revocations::default(), Options::default()).expect("a socket");
        for seed in 0..12u64 {
            let connection = endpoint.connect_mesh(address, None).await.expect("B's certificate is good");
            let (events, mut heard) = mpsc::unbounded_channel();
            let lanes = connection.start(1, events);
            // Kinds that this version knows (others are skipped, as a later version's would be), and nothing sensible in them.
            for lane in 0..3 {
                let len = [0, 1, 7, 300, 70_000][seed as usize % 5];
                let mut frame = noise(seed * 3 + u64::from(lane), len);
                frame.iter_mut().take(1).for_each(|kind| *kind = 1 + (seed % 6) as u8);
                let _ = lanes.send(lane, 0, frame.into());
            }
            let closed = async {
                loop {
                    match heard.recv().await {
                        Some(LinkEvent::Closed { reason, .. }) => return Some(reason),
                        Some(_) => {}
                        None => return None,
                    }
                }
            };
            match tokio::time::timeout(Duration::from_secs(20), closed).await {
                Ok(Some(Closed::Peer { .. })) => {}
                other => panic!("A should have closed the link on garbage {seed}: {other:?}"),
            }
        }
    });
    assert!(a.logged().contains("the peer broke the protocol"), "{}", a.logged());
    // A frame that is longer than any may be is refused by the length that it announces, whatever is behind it.
    let closed = block(async {
        let here = "127.0.0.1:0".parse().expect("an address");
        let endpoint = Endpoint::bind(here, &identity, Revocations::default(), Options::default()).expect("a socket");
        let connection = endpoint.connect_mesh(address, None).await.expect("B's certificate is good");
        let mut lane = connection.quic().open_uni().await.expect("a stream");
        lane.write_all(&5u32.to_le_bytes()).await.expect("it is taken");
        // Seven bits a byte, least significant first.
        assert_eq!(FRAME_BYTES_MAX + 1, 1 | 4 << 21);
        lane.write_all(&[0x81, 0x80, 0x80, 4]).await.expect("it is taken");
        tokio::time::timeout(Duration::from_secs(20), connection.quic().closed()).await.expect("A should have closed the link")
    });
    let words = format!("a frame of {} bytes on lane 5; the limit is 8388608", FRAME_BYTES_MAX + 1);
    assert!(closed.to_string().contains(&words), "{closed}");
    assert_eq!(a.get("demo/kept"), 1);
    b.up();
    b.linked("A");
    a.set("demo/kept", "2");
    b.shows("demo/kept", 2);
}
