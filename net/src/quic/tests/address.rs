//! Addresses that change, datagrams that are garbage, and floods.

use std::net::UdpSocket;

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
    let options = Options { handshakes_max: 1, handshake_timeout: Duration::from_millis(800), ..Options::default() };
    let acceptor = Endpoint::bind(loopback(), &first, Revocations::default(), options).unwrap();
    let address = acceptor.local_address().unwrap();
    // A newcomer that connects to ask for a certificate and then asks nothing, holds the only place until its time is over.
    let idle = ClientEndpoint::bind(Options::default()).unwrap();
    let _held = idle.connect_join(address, first.mesh()).await.unwrap();
    let dialler = endpoint(&member(&first));
    let refused = dialler.connect_mesh(address, None).await.unwrap_err();
    assert!(matches!(refused, ConnectError::Refused(_)), "{refused:?}");
    assert_eq!(acceptor.handshakes().refused, 1);
    tokio::time::sleep(Duration::from_millis(900)).await;
    let (linked, _) = tokio::join!(dialler.connect_mesh(address, None), next_mesh(&acceptor));
    assert!(linked.is_ok());
    assert_eq!(acceptor.handshakes().failed, 1);
}

#[tokio::test]
async fn nobody_there_is_told_in_time() {
    let unused = UdpSocket::bind(loopback()).unwrap();
    let options = Options { handshake_timeout: Duration::from_millis(300), ..Options::default() };
    let dialler = Endpoint::bind(loopback(), &founder(), Revocations::default(), options).unwrap();
    let begun = std::time::Instant::now();
    assert_eq!(dialler.connect_mesh(unused.local_addr().unwrap(), None).await.unwrap_err(), ConnectError::TimedOut);
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_silent_peer_is_given_up_after_the_idle_timeout() {
    let first = founder();
    let options = Options { idle_timeout: Duration::from_millis(700), keep_alive: Duration::from_millis(200), ..Options::default() };
    let acceptor = Endpoint::bind(loopback(), &first, Revocations::default(), options.clone()).unwrap();
    let address = acceptor.local_address().unwrap();
    let second = member(&first);
    // The dialler lives on a runtime of its own, which stops without a word, as a machine does that loses power.
    let (gone, wait) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let link = runtime.block_on(async {
            let dialler = Endpoint::bind(loopback(), &second, Revocations::default(), options).unwrap();
            let link = dialler.connect_mesh(address, None).await.unwrap();
            // Alive for longer than the idle timeout: keep-alives hold an idle link.
            tokio::time::sleep(Duration::from_millis(1500)).await;
            (dialler, link)
        });
        gone.send(std::time::Instant::now()).unwrap();
        std::thread::sleep(Duration::from_secs(3));
        drop((link, runtime));
    });
    let mut end = End::start(next_mesh(&acceptor).await, 1);
    assert_eq!(end.closed().await, Closed::TimedOut);
    let since = wait.try_recv().expect("the link stood as long as the peer lived").elapsed();
    assert!(since < Duration::from_secs(2), "{since:?}");
    thread.join().unwrap();
}
