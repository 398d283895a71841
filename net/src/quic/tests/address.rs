//! Addresses that change, datagrams that are garbage, and floods.

use std::{
    cell::Cell,
    net::UdpSocket,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
        mpsc::sync_channel,
    },
    time::Instant,
};

use super::*;

#[tokio::test]
async fn a_link_survives_the_diallers_change_of_address() {
    let Pair { mut here, mut there, dialler, acceptor: _a } = pair().await;
    let _ = here.sender.send(3, 0, Bytes::from_static(b"before")).unwrap();
    assert_eq!(&there.frame().await.1[..], b"before");
    let (old, seen) = (dialler.local_address().unwrap(), there.sender.remote_address());
    dialler.rebind(loopback()).unwrap();
    assert_ne!(dialler.local_address().unwrap(), old);
    let _ = here.sender.send(3, 0, Bytes::from_static(b"after")).unwrap();
    assert_eq!(&there.frame().await.1[..], b"after", "the same link, the same lane");
    let _ = there.sender.send(3, 0, Bytes::from_static(b"welcome back")).unwrap();
    assert_eq!(&here.frame().await.1[..], b"welcome back");
    assert_ne!(there.sender.remote_address(), seen);
    assert_eq!(there.sender.remote_address(), dialler.local_address().unwrap());
}

/// A path like a bad radio's between one dialler and an acceptor.
#[derive(Clone)]
struct Path {
    bytes_per_second: u64,
    /// Whether every tenth datagram gets lost; those beyond a queue of 32 KiB do so in any case.
    lossy: Arc<AtomicBool>,
}

/// Opens the path to `acceptor`; its entrance is where to dial.
fn slow_path(acceptor: SocketAddr, path: Path) -> SocketAddr {
    let (near, far) = (UdpSocket::bind(loopback()).unwrap(), UdpSocket::bind(loopback()).unwrap());
    let entrance = near.local_addr().unwrap();
    far.connect(acceptor).unwrap();
    let dialler = Arc::new(OnceLock::new());
    let (near_out, far_out) = (near.try_clone().unwrap(), far.try_clone().unwrap());
    let back_to = dialler.clone();
    let learn = move |sender| {
        dialler.get_or_init(|| sender);
    };
    relay(near, path.clone(), learn, move |datagram| drop(far_out.send(datagram)));
    let back = move |datagram: &[u8]| drop(back_to.get().map(|to| near_out.send_to(datagram, to)));
    relay(far, path, drop, back);
    entrance
}

/// One direction of a slow path, until nothing has come for a while.
fn relay(from: UdpSocket, path: Path, learn: impl Fn(SocketAddr) + Send + 'static, forward: impl Fn(&[u8]) + Send + 'static) {
    let (queue, queued) = sync_channel::<Vec<u8>>(22);
    let lossy = path.lossy.clone();
    from.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
    std::thread::spawn(move || {
        let mut datagram = [0; 2000];
        let mut count = 0u32;
        while let Ok((length, sender)) = from.recv_from(&mut datagram) {
            learn(sender);
            count += 1;
            if !count.is_multiple_of(10) || !lossy.load(Ordering::Relaxed) {
                let _ = queue.try_send(datagram[..length].to_vec());
            }
        }
    });
    std::thread::spawn(move || {
        let mut free_at = Instant::now();
        while let Ok(datagram) = queued.recv() {
            free_at = free_at.max(Instant::now()) + Duration::from_micros(datagram.len() as u64 * 1_000_000 / path.bytes_per_second);
            std::thread::sleep(free_at.saturating_duration_since(Instant::now()));
            forward(&datagram);
        }
    });
}

#[tokio::test]
async fn the_last_word_arrives_over_a_path_that_is_full() {
    for by_endpoint in [false, true] {
        let first = founder();
        let (dialler, acceptor) = (endpoint(&member(&first)), endpoint(&first));
        let lossy = Arc::new(AtomicBool::new(true));
        let path = slow_path(acceptor.local_address().unwrap(), Path { bytes_per_second: 125_000, lossy: lossy.clone() });
        let (here, there) = tokio::join!(dialler.connect_mesh(path, None), next_mesh(&acceptor));
        let (here, mut there) = (End::start(here.unwrap(), 1), End::start(there, 2));
        for lane in 1..=10 {
            let _ = here.sender.send(lane, 0, frame_of(1, 200_000)).unwrap();
        }
        // Sixteen seconds' worth for this path; by the losses its congestion window is small, and full from now on.
        tokio::time::sleep(Duration::from_secs(1)).await;
        // The last word is one packet, which QUIC does not repeat of itself.
        lossy.store(false, Ordering::Relaxed);
        match by_endpoint {
            true => dialler.close(CloseCode::Done, "enough"),
            false => here.sender.close(CloseCode::Blocked, "enough"),
        }
        match there.closed().await {
            Closed::Peer { reason, .. } => assert_eq!(reason, "enough"),
            other => panic!("the reason got lost: {other}"),
        }
    }
}

#[tokio::test]
async fn a_slow_link_carries_what_is_new() {
    let first = founder();
    let (dialler, acceptor) = (endpoint(&member(&first)), endpoint(&first));
    let path = slow_path(acceptor.local_address().unwrap(), Path { bytes_per_second: 125_000, lossy: Arc::default() });
    let (here, there) = tokio::join!(dialler.connect_mesh(path, None), next_mesh(&acceptor));
    let (mut here, mut there) = (End::start(here.unwrap(), 1), End::start(there, 2));
    // A state machine with ever newer values on three lanes: it builds a frame whenever it is asked for one. How old a frame is, is
    // counted in the bytes built after it until it arrives: a machine that is busy holds up the builder as it does the path.
    const FRAME_BYTES: usize = 4000;
    let built = Cell::new(0u64);
    let build = || {
        built.set(built.get() + FRAME_BYTES as u64);
        let mut frame = vec![0; FRAME_BYTES];
        frame[..8].copy_from_slice(&built.get().to_le_bytes());
        Bytes::from(frame)
    };
    for lane in 1..=3 {
        while here.sender.send(lane, 0, build()).unwrap() == Room::Open {}
    }
    // What filled the queues before the link had been seen to move anything is not counted.
    let (mut ages, mut arrived) = (Vec::new(), 0);
    while arrived < 800_000 {
        tokio::select! {
            event = here.event() => match event {
                LinkEvent::Writable { lane, .. } => while here.sender.send(lane, 0, build()).unwrap() == Room::Open {},
                other => panic!("{other:?}"),
            },
            (_, frame) = there.frame() => {
                arrived += frame.len();
                if arrived > 400_000 {
                    ages.push(built.get() - u64::from_le_bytes(*frame.first_chunk().unwrap()));
                }
            },
        }
    }
    ages.sort_unstable();
    let (half, most) = (ages[ages.len() / 2], ages[ages.len() * 95 / 100]);
    // 32 KiB lie in the path's own queue, and usually there are 100 KB in all. With a constant of 256 KiB a lane the median is 880 KB.
    assert!(half < 250_000 && most < 500_000, "{half} bytes (median) and {most} bytes (95 %) were built after a frame before it arrived");
}

#[tokio::test]
async fn garbage_datagrams_change_nothing() {
    let Pair { here, mut there, dialler: _d, acceptor } = pair().await;
    let noise = UdpSocket::bind(loopback()).unwrap();
    let address = acceptor.local_address().unwrap();
    for round in 0..300usize {
        let mut datagram = vec![(round * 37) as u8; round * 5 % 1400];
        if let Some(first) = datagram.first_mut() {
            // Long headers, short headers, a known version or none.
            *first = (round * 11) as u8 | if round % 3 == 0 { 0xc0 } else { 0 };
        }
        if round % 6 == 0 && datagram.len() > 5 {
            datagram[1..5].copy_from_slice(&[0, 0, 0, 1]);
        }
        noise.send_to(&datagram, address).unwrap();
    }
    let _ = here.sender.send(1, 0, Bytes::from_static(b"undisturbed")).unwrap();
    assert_eq!(&there.frame().await.1[..], b"undisturbed");
    let other = endpoint(&member(&acceptor.identity()));
    let (linked, _) = tokio::join!(other.connect_mesh(address, None), next_mesh(&acceptor));
    assert!(linked.is_ok());
}

#[tokio::test]
async fn many_handshakes_at_once_must_prove_their_address_and_still_get_in() {
    let first = founder();
    let options = Options { handshakes_before_retry: 0, ..Options::default() };
    let acceptor = Endpoint::bind(loopback(), &first, Revocations::default(), options).unwrap();
    let dialler = endpoint(&member(&first));
    let (linked, _) = tokio::join!(dialler.connect_mesh(acceptor.local_address().unwrap(), None), next_mesh(&acceptor));
    assert!(linked.is_ok());
    let handshakes = acceptor.handshakes();
    assert_eq!((handshakes.retried, handshakes.accepted), (1, 1));
}

#[tokio::test]
async fn above_the_bound_newcomers_are_refused_and_later_ones_get_in() {
    let first = founder();
    let options = Options { handshakes_max: 1, handshake_timeout: Duration::from_secs(3), ..Options::default() };
    let acceptor = Endpoint::bind(loopback(), &first, Revocations::default(), options).unwrap();
    let address = acceptor.local_address().unwrap();
    // A newcomer that connects to ask for a certificate and then asks nothing, holds the only place until its time is over.
    let idle = ClientEndpoint::bind(Options::default()).unwrap();
    let _held = idle.connect_join(address, first.mesh()).await.unwrap();
    let dialler = endpoint(&member(&first));
    let refused = dialler.connect_mesh(address, None).await.unwrap_err();
    assert!(matches!(refused, ConnectError::Refused(_)), "{refused:?}");
    assert_eq!(acceptor.handshakes().refused, 1);
    tokio::time::sleep(Duration::from_millis(3200)).await;
    let (linked, _) = tokio::join!(dialler.connect_mesh(address, None), next_mesh(&acceptor));
    assert!(linked.is_ok());
    assert_eq!(acceptor.handshakes().failed, 1);
}

#[tokio::test]
async fn nobody_there_is_told_in_time() {
    let unused = UdpSocket::bind(loopback()).unwrap();
    let options = Options { handshake_timeout: Duration::from_millis(300), ..Options::default() };
    let dialler = Endpoint::bind(loopback(), &founder(), Revocations::default(), options).unwrap();
    let begun = Instant::now();
    assert_eq!(dialler.connect_mesh(unused.local_addr().unwrap(), None).await.unwrap_err(), ConnectError::TimedOut);
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_silent_peer_is_given_up_after_the_idle_timeout() {
    let first = founder();
    let options = Options { idle_timeout: Duration::from_secs(2), keep_alive: Duration::from_millis(300), ..Options::default() };
    let acceptor = Endpoint::bind(loopback(), &first, Revocations::default(), options.clone()).unwrap();
    let address = acceptor.local_address().unwrap();
    let second = member(&first);
    // The dialler lives on a runtime of its own, which stops without a word, as a machine does that loses power.
    let (gone, wait) = std::sync::mpsc::channel();
    let (over, until_over) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let link = runtime.block_on(async {
            let dialler = Endpoint::bind(loopback(), &second, Revocations::default(), options).unwrap();
            let link = dialler.connect_mesh(address, None).await.unwrap();
            // Alive for longer than the idle timeout: keep-alives hold an idle link.
            tokio::time::sleep(Duration::from_secs(4)).await;
            (dialler, link)
        });
        gone.send(Instant::now()).unwrap();
        let _ = until_over.recv();
        drop((link, runtime));
    });
    let mut end = End::start(next_mesh(&acceptor).await, 1);
    assert_eq!(end.closed().await, Closed::TimedOut);
    let since = wait.try_recv().expect("the link stood as long as the peer lived").elapsed();
    // Unasked, QUIC would wait for 30 s.
    assert!(since < Duration::from_secs(10), "{since:?}");
    drop(over);
    thread.join().unwrap();
}
