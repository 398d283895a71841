//! How QUIC is set up, with a reason beside each number. What is not named here is quinn's default: among them the discovery of paths that carry
//! more than 1,200 bytes up to Ethernet's 1,452 (jumbo datagrams gained nothing measurable on loopback: encryption dominates), and Cubic.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use quinn::{EndpointConfig, TransportConfig, VarInt};
use quinn_proto::RandomConnectionIdGenerator;
use socket2::{Domain, Protocol, Socket, Type};

use super::{congestion::LastWord, lanes::LANES_MAX};

/// The most a peer may send on one lane before the lane is read: at 100 ms of round trip this still lets 20 MB/s through on one lane.
const LANE_WINDOW_BYTES: u32 = 2 << 20;

/// The same over all lanes of a connection: lanes that nobody reads hold at most [`LANE_WINDOW_BYTES`] each of it, so two dozen of them
/// can stall before the others feel it.
const CONNECTION_WINDOW_BYTES: u32 = 48 << 20;

/// The length of the ids by which packets find their connection here: they go with every packet, and eight bytes, quinn's default, are a tenth of one that carries
/// a small update. Four are enough to tell some thousand connections apart.
const CONNECTION_ID_BYTES: usize = 4;

/// What a connection may hold unacknowledged before its lanes know the path; see `Pace` in `lanes`.
pub(super) const SEND_WINDOW_BYTES_FIRST: u64 = 128 << 10;

/// The same for clients, which have no lanes to learn it: 10 MB/s at 100 ms of round trip.
pub(super) const SEND_WINDOW_BYTES_CLIENT: u64 = 1 << 20;

/// How many streams either side of a client connection may have open.
pub(super) const CLIENT_STREAMS_MAX: u32 = 256;

/// What the two ends agree on before they know what the connection is for: enough for a join; the accepting side raises it then.
const FIRST_STREAMS: u32 = 1;

/// For whom a connection is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Not known yet: an accepted connection.
    Unknown,
    /// A link between nodes.
    Mesh,
    /// A client, or a join.
    Client,
}

pub(super) fn endpoint() -> EndpointConfig {
    let mut config = EndpointConfig::default();
    config.cid_generator(|| Box::new(RandomConnectionIdGenerator::new(CONNECTION_ID_BYTES)));
    config
}

pub(super) fn config(purpose: Purpose, keep_alive: Duration, idle_timeout: Duration, congestion: &LastWord) -> Arc<TransportConfig> {
    let mut config = TransportConfig::default();
    let (uni, bidi, send_window) = match purpose {
        Purpose::Unknown => (0, FIRST_STREAMS, SEND_WINDOW_BYTES_FIRST),
        Purpose::Mesh => (LANES_MAX as u32, 0, SEND_WINDOW_BYTES_FIRST),
        Purpose::Client => (CLIENT_STREAMS_MAX, CLIENT_STREAMS_MAX, SEND_WINDOW_BYTES_CLIENT),
    };
    config
        .max_concurrent_uni_streams(VarInt::from_u32(uni))
        .max_concurrent_bidi_streams(VarInt::from_u32(bidi))
        .stream_receive_window(VarInt::from_u32(LANE_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES))
        .send_window(send_window)
        .congestion_controller_factory(Arc::new(congestion.clone()))
        // Lanes only: no datagrams, so none are buffered.
        .datagram_receive_buffer_size(None)
        .keep_alive_interval(Some(keep_alive))
        .max_idle_timeout(Some(VarInt::from_u32(idle_timeout.as_millis().min(u128::from(u32::MAX)) as u32).into()));
    Arc::new(config)
}

/// A UDP socket with large buffers; an IPv6 wildcard also serves IPv4.
pub(super) fn bind(address: SocketAddr, buffer_bytes: usize) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6()
        && let Err(error) = socket.set_only_v6(false)
    {
        tracing::debug!(%error, "the socket serves IPv6 only");
    }
    // The system cuts these to its own limit (net.core.rmem_max); a smaller buffer costs throughput, nothing else.
    for (what, done) in [("receive", socket.set_recv_buffer_size(buffer_bytes)), ("send", socket.set_send_buffer_size(buffer_bytes))] {
        if let Err(error) = done {
            tracing::debug!(%error, "the {what} buffer keeps the system's size");
        }
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}
