//! Real handshakes and real frames over loopback, each test on ports of its own.

mod address;
mod lanes;
mod tickets;
mod trust;

use std::{
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use mangrove_crdt::id::NodeId;
use tokio::{sync::mpsc, time::timeout};

use super::*;

/// No step of any test takes this long unless it hangs.
const PATIENCE: Duration = Duration::from_secs(20);

const DAY: u64 = 24 * 3600;

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn loopback() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

/// A mesh's first node.
fn founder() -> Identity {
    Identity::found(now()).unwrap()
}

/// A node certified by `issuer`, as a join would do it.
fn certified(issuer: &Identity, role: Role) -> Identity {
    certified_for(issuer, role, now() - DAY, now() + DAY)
}

fn member(issuer: &Identity) -> Identity {
    certified(issuer, Role::Member)
}

fn certified_for(issuer: &Identity, role: Role, not_before: u64, not_after: u64) -> Identity {
    let applicant = Applicant::new(role).unwrap();
    let authority = applicant.authority.as_ref().map(|key| key.public().unwrap());
    let node = applicant.key.public().unwrap();
    let certificates = issuer.authority().unwrap().certify_for(not_before, not_after, &node, authority.as_ref()).unwrap();
    applicant.admitted(issuer.mesh(), certificates).unwrap()
}

fn endpoint(identity: &Identity) -> Endpoint {
    endpoint_with(identity, Revocations::default())
}

fn endpoint_with(identity: &Identity, revocations: Revocations) -> Endpoint {
    Endpoint::bind(loopback(), identity, revocations, Options::default()).unwrap()
}

/// Accepts mesh links until the endpoint closes, and lets them stand.
fn welcome_all(endpoint: &Endpoint) {
    let endpoint = endpoint.clone();
    tokio::spawn(async move {
        let mut held = Vec::new();
        while let Some(incoming) = endpoint.accept().await {
            held.push(incoming);
        }
    });
}

async fn next_mesh(endpoint: &Endpoint) -> MeshConnection {
    match timeout(PATIENCE, endpoint.accept()).await.expect("an arrival in time") {
        Some(Incoming::Mesh(connection)) => connection,
        other => panic!("expected a mesh link, not {other:?}"),
    }
}

/// One end of a started link.
struct End {
    sender: LaneSender,
    events: mpsc::UnboundedReceiver<LinkEvent>,
}

impl End {
    fn start(connection: MeshConnection, link: u64) -> Self {
        let (events_in, events) = mpsc::unbounded_channel();
        End { sender: connection.start(link, events_in), events }
    }

    async fn event(&mut self) -> LinkEvent {
        timeout(PATIENCE, self.events.recv()).await.expect("an event in time").expect("the link's sender lives")
    }

    async fn frame(&mut self) -> (u32, Frame) {
        loop {
            match self.event().await {
                LinkEvent::Received { lane, frame, .. } => return (lane, frame),
                LinkEvent::Writable { .. } => {}
                LinkEvent::Closed { reason, .. } => panic!("the link closed: {reason}"),
            }
        }
    }

    async fn closed(&mut self) -> Closed {
        loop {
            if let LinkEvent::Closed { reason, .. } = self.event().await {
                return reason;
            }
        }
    }
}

/// Two nodes of one mesh and a link between them; the first has dialled.
struct Pair {
    dialler: Endpoint,
    acceptor: Endpoint,
    here: End,
    there: End,
}

async fn pair() -> Pair {
    let first = founder();
    let second = member(&first);
    let (dialler, acceptor) = (endpoint(&second), endpoint(&first));
    let address = acceptor.local_address().unwrap();
    let (here, there) = tokio::join!(dialler.connect_mesh(address, Some(first.node())), next_mesh(&acceptor));
    let here = here.unwrap();
    assert_eq!((here.peer(), there.peer()), (first.node(), second.node()));
    Pair { here: End::start(here, 1), there: End::start(there, 2), dialler, acceptor }
}

fn frame_of(byte: u8, length: usize) -> Bytes {
    Bytes::from(vec![byte; length])
}
