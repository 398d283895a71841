//! What lanes promise: order within a lane, independence between them, bounds, and clear words at the end.

use std::collections::BTreeMap;

use super::{
    super::lanes::{FRAME_MAX, LANES_MAX, frame_header},
    *,
};

#[tokio::test]
async fn frames_arrive_on_their_lanes_in_order_both_ways() {
    let Pair { mut here, mut there, dialler: _d, acceptor: _a } = pair().await;
    let mut back = 0u32;
    for number in 0..1000u32 {
        let _ = there.sender.send(9, 0, Bytes::from(number.to_le_bytes().to_vec())).unwrap();
        for lane in 0..5 {
            let frame = Bytes::from([number.to_le_bytes().to_vec(), vec![lane as u8; (number as usize * 7) % 3000]].concat());
            while here.sender.send(lane, 5 - lane as i32, frame.clone()) == Err(SendError::Blocked(frame.clone())) {
                match here.event().await {
                    LinkEvent::Writable { link: 1, .. } => {}
                    LinkEvent::Received { link: 1, lane: 9, frame } => {
                        assert_eq!(frame[..], back.to_le_bytes());
                        back += 1;
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
    }
    let mut next = BTreeMap::new();
    for _ in 0..5000 {
        let (lane, frame) = there.frame().await;
        let expected = next.entry(lane).or_insert(0u32);
        assert_eq!(frame[..4], expected.to_le_bytes());
        assert_eq!(frame.len(), 4 + (*expected as usize * 7) % 3000);
        assert!(frame[4..].iter().all(|byte| u32::from(*byte) == lane));
        *expected += 1;
    }
    assert_eq!(next.into_iter().collect::<Vec<_>>(), [(0, 1000), (1, 1000), (2, 1000), (3, 1000), (4, 1000)]);
    for number in back..1000 {
        let (lane, frame) = here.frame().await;
        assert_eq!((lane, &frame[..]), (9, &number.to_le_bytes()[..]));
    }
    let stats = here.sender.stats();
    assert_eq!(stats.sent_frames, 5000);
    assert!(stats.sent_bytes > 5_000_000 && stats.round_trip > Duration::ZERO, "{stats:?}");
}

#[tokio::test]
async fn empty_and_greatest_frames_pass_and_greater_ones_do_not() {
    let Pair { here, mut there, dialler: _d, acceptor: _a } = pair().await;
    assert_eq!(here.sender.send(1, 0, Bytes::new()), Ok(Room::Open));
    assert_eq!(here.sender.send(1, 0, frame_of(7, FRAME_MAX)), Ok(Room::Blocked), "taken, and enough");
    assert_eq!(here.sender.send(1, 0, frame_of(7, FRAME_MAX + 1)), Err(SendError::TooLarge(FRAME_MAX + 1)));
    assert_eq!(there.frame().await.1.len(), 0);
    assert_eq!(there.frame().await.1.len(), FRAME_MAX);
}

#[tokio::test]
async fn a_lane_that_is_not_read_blocks_alone_and_bounded() {
    let Pair { mut here, mut there, dialler: _d, acceptor: _a } = pair().await;
    // The receiver holds every frame of lane 1, and drops those of lane 2 at once.
    let (slow, quick) = (1, 2);
    let frame = frame_of(1, 32 << 10);
    let (mut sent, mut got, mut held) = (BTreeMap::from([(slow, 0), (quick, 0)]), 0usize, Vec::new());
    let mut blocked = std::collections::BTreeSet::new();
    while got < 2000 {
        for lane in [slow, quick] {
            while !blocked.contains(&lane) {
                *sent.get_mut(&lane).unwrap() += frame.len();
                if here.sender.send(lane, 0, frame.clone()).unwrap() == Room::Blocked {
                    blocked.insert(lane);
                }
            }
        }
        tokio::select! {
            event = here.event() => match event {
                LinkEvent::Writable { lane, .. } => assert!(blocked.remove(&lane), "a lane was named that was not blocked"),
                other => panic!("{other:?}"),
            },
            (lane, frame) = there.frame() => match lane == slow {
                true => held.push(frame),
                false => got += 1,
            },
        }
    }
    // 64 MB have gone by on one lane; the other stands where its window, its receiver's room and its queue are full.
    assert!(blocked.contains(&slow));
    assert_eq!(here.sender.room(slow), Room::Blocked);
    assert!(sent[&slow] < 5 << 20, "{} bytes taken for a lane that nobody reads", sent[&slow]);
    assert!(held.len() * frame.len() < 2 << 20, "{} frames delivered to one who takes none", held.len());
    // Let go, it flows to the last frame.
    let mut rest = sent[&slow] / frame.len() - held.len();
    held.clear();
    while rest > 0 {
        let (lane, _) = there.frame().await;
        rest -= usize::from(lane == slow);
    }
}

#[tokio::test]
async fn a_loop_that_takes_no_events_stops_its_peer() {
    let Pair { mut here, mut there, dialler: _d, acceptor: _a } = pair().await;
    let frame = frame_of(3, 16 << 10);
    // Nobody takes an event at the other end. Every lane blocks sooner or later, so sending comes to an end.
    let mut sent = 0usize;
    for lane in 0..100 {
        while here.sender.room(lane) == Room::Open {
            let _ = here.sender.send(lane, 0, frame.clone()).unwrap();
            sent += frame.len();
        }
    }
    while let Ok(Some(event)) = timeout(Duration::from_millis(1500), here.events.recv()).await {
        let LinkEvent::Writable { lane, .. } = event else { panic!("{event:?}") };
        while here.sender.room(lane) == Room::Open {
            let _ = here.sender.send(lane, 0, frame.clone()).unwrap();
            sent += frame.len();
        }
    }
    assert!(sent < 120 << 20, "{sent} bytes taken by a link that nobody reads");
    // And it is not cut for being slow: all of it comes, when it is taken.
    let mut rest = sent / frame.len();
    while rest > 0 {
        there.frame().await;
        rest -= 1;
    }
}

#[tokio::test]
async fn a_closed_link_says_why_at_both_ends_once() {
    let Pair { mut here, mut there, dialler: _d, acceptor: _a } = pair().await;
    here.sender.close(CloseCode::Superseded, "there is a better link");
    let reason = "there is a better link".to_string();
    assert_eq!(here.closed().await, Closed::Here { code: CloseCode::Superseded, reason: reason.clone() });
    assert_eq!(there.closed().await, Closed::Peer { code: Some(CloseCode::Superseded), reason });
    assert_eq!(here.sender.send(1, 0, Bytes::new()), Err(SendError::Closed));
    drop(there.sender);
    assert!(timeout(PATIENCE, there.events.recv()).await.unwrap().is_none(), "nothing after the end");
}

#[tokio::test]
async fn dropping_the_last_sender_closes_the_link() {
    let Pair { here, mut there, dialler: _d, acceptor: _a } = pair().await;
    let clone = here.sender.clone();
    drop(here.sender);
    assert_eq!(clone.send(1, 0, Bytes::from_static(b"still here")), Ok(Room::Open));
    assert_eq!(&there.frame().await.1[..], b"still here");
    drop(clone);
    assert_eq!(there.closed().await, Closed::Peer { code: Some(CloseCode::Done), reason: String::new() });
}

#[tokio::test]
async fn a_closed_endpoint_tells_its_peers() {
    let Pair { here: _here, mut there, dialler, acceptor: _a } = pair().await;
    dialler.close(CloseCode::Done, "going down for the night");
    let closed = there.closed().await;
    assert_eq!(closed, Closed::Peer { code: Some(CloseCode::Done), reason: "going down for the night".into() });
    timeout(PATIENCE, dialler.wait_idle()).await.unwrap();
}

/// A connection to a node that believes its peer to speak the protocol, while the test writes what it likes.
async fn raw_link() -> (quinn::Connection, End, Endpoint, quinn::Endpoint) {
    let first = founder();
    let acceptor = endpoint(&first);
    let trust = super::tls::Trust::of_mesh(first.mesh());
    let (config, _) = super::tls::client_config(super::tls::ALPN_MESH, Some(&member(&first)), trust, None).unwrap();
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(config).unwrap();
    let raw = quinn::Endpoint::client(loopback()).unwrap();
    let connecting =
        raw.connect_with(quinn::ClientConfig::new(std::sync::Arc::new(crypto)), acceptor.local_address().unwrap(), "x").unwrap();
    let (connection, link) = tokio::join!(async { connecting.await.unwrap() }, next_mesh(&acceptor));
    (connection, End::start(link, 7), acceptor, raw)
}

async fn peer_words(connection: &quinn::Connection) -> (Option<CloseCode>, String) {
    let error = timeout(PATIENCE, connection.closed()).await.unwrap();
    match Closed::from_error(&error, None) {
        Closed::Peer { code, reason } => (code, reason),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn an_oversized_frame_closes_with_its_reason() {
    let (connection, mut node, _acceptor, _raw) = raw_link().await;
    let mut stream = connection.open_uni().await.unwrap();
    stream.write_all(&5u32.to_le_bytes()).await.unwrap();
    stream.write_all(&frame_header(FRAME_MAX + 1)).await.unwrap();
    let words = format!("a frame of {} bytes on lane 5; the limit is {FRAME_MAX}", FRAME_MAX + 1);
    assert_eq!(peer_words(&connection).await, (Some(CloseCode::FrameTooLarge), words.clone()));
    assert_eq!(node.closed().await, Closed::Here { code: CloseCode::FrameTooLarge, reason: words });
}

#[tokio::test]
async fn a_lane_opened_twice_or_cut_within_a_frame_closes() {
    let (connection, mut node, _acceptor, _raw) = raw_link().await;
    let mut streams = Vec::new();
    for _ in 0..2 {
        let mut stream = connection.open_uni().await.unwrap();
        stream.write_all(&5u32.to_le_bytes()).await.unwrap();
        streams.push(stream);
    }
    assert_eq!(peer_words(&connection).await, (Some(CloseCode::Protocol), "lane 5 was opened twice".into()));
    assert!(matches!(node.closed().await, Closed::Here { code: CloseCode::Protocol, .. }));

    let (connection, mut node, _acceptor, _raw) = raw_link().await;
    let mut stream = connection.open_uni().await.unwrap();
    stream.write_all(&[6, 0, 0, 0, 100, 1, 2, 3]).await.unwrap();
    stream.finish().unwrap();
    assert_eq!(peer_words(&connection).await, (Some(CloseCode::Protocol), "lane 6 ended inside a frame".into()));
    assert!(matches!(node.closed().await, Closed::Here { code: CloseCode::Protocol, .. }));
}

#[tokio::test]
async fn lanes_beyond_the_limit_are_not_opened() {
    let (connection, mut node, _acceptor, _raw) = raw_link().await;
    let mut streams = Vec::new();
    for lane in 0..LANES_MAX as u32 {
        let mut stream = timeout(PATIENCE, connection.open_uni()).await.unwrap().unwrap();
        stream.write_all(&[&lane.to_le_bytes()[..], &frame_header(0)].concat()).await.unwrap();
        streams.push(stream);
    }
    for _ in 0..LANES_MAX {
        node.frame().await;
    }
    assert!(timeout(Duration::from_millis(300), connection.open_uni()).await.is_err(), "QUIC gives no further stream");
    // Ended lanes make room for streams, but not for lanes: a link has LANES_MAX of them in its life.
    for stream in &mut streams[..LANES_MAX / 4] {
        stream.finish().unwrap();
    }
    let mut stream = timeout(PATIENCE, connection.open_uni()).await.unwrap().unwrap();
    stream.write_all(&u32::MAX.to_le_bytes()).await.unwrap();
    assert_eq!(peer_words(&connection).await, (Some(CloseCode::TooManyLanes), format!("more than {LANES_MAX} lanes")));
}

#[tokio::test]
async fn random_bytes_on_streams_never_harm_the_node() {
    let mut seed = 1u64;
    let mut random = move |length: usize| -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length);
        while bytes.len() < length {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            bytes.push((seed >> 33) as u8);
        }
        bytes
    };
    for length in [1, 3, 4, 7, 8, 9, 100, 5000, 70_000] {
        let (connection, mut node, acceptor, _raw) = raw_link().await;
        for _ in 0..4 {
            let mut stream = connection.open_uni().await.unwrap();
            let _ = stream.write_all(&random(length)).await;
            let _ = stream.finish();
        }
        // Whatever became of this link, the node serves the next.
        connection.close(0u32.into(), b"");
        node.closed().await;
        let other = endpoint(&member(&acceptor.identity()));
        let (linked, _) = tokio::join!(other.connect_mesh(acceptor.local_address().unwrap(), None), next_mesh(&acceptor));
        assert!(linked.is_ok());
    }
}
