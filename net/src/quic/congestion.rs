//! Congestion control that lets the last word through.
//!
//! quinn holds a CONNECTION_CLOSE back while the congestion window is full and data is waiting, and by then takes no acknowledgement any more
//! that would make room. On a busy link the peer would never hear why it was closed, only, later, that the connection is gone. So once a
//! side has closed, its window is without bound: what is left to send is one packet.

use std::{
    any::Any,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use quinn::{
    Connection,
    congestion::{Controller, ControllerFactory, ControllerMetrics, CubicConfig},
};

/// Above what pacing counts in, so that the last packet is not paced either.
const UNBOUNDED_BYTES: u64 = 1 << 40;

/// Makes the controllers of one endpoint's connections.
#[derive(Clone, Default)]
pub(super) struct LastWord {
    endpoint_closing: Arc<AtomicBool>,
}

impl LastWord {
    /// From now on every connection of the endpoint may say its last word.
    pub(super) fn closing(&self) {
        self.endpoint_closing.store(true, Ordering::Release);
    }
}

/// Closes a connection so that the peer hears why.
pub(super) fn close(connection: &Connection, code: super::close::CloseCode, reason: &str) {
    if let Ok(controller) = connection.congestion_state().into_any().downcast::<Bounded>() {
        controller.closing.store(true, Ordering::Release);
    }
    connection.close(code.into(), reason.as_bytes());
}

impl ControllerFactory for LastWord {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(Bounded {
            inner: Arc::new(CubicConfig::default()).build(now, current_mtu),
            closing: Arc::default(),
            endpoint_closing: self.endpoint_closing.clone(),
        })
    }
}

/// Cubic until the connection closes.
struct Bounded {
    inner: Box<dyn Controller>,
    /// Shared by all clones: quinn only gives out clones.
    closing: Arc<AtomicBool>,
    endpoint_closing: Arc<AtomicBool>,
}

impl Controller for Bounded {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.inner.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &quinn_proto::RttEstimator) {
        self.inner.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, largest_packet_num_acked: Option<u64>) {
        self.inner.on_end_acks(now, in_flight, app_limited, largest_packet_num_acked);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, is_persistent_congestion: bool, lost_bytes: u64) {
        self.inner.on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.inner.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        match self.closing.load(Ordering::Acquire) || self.endpoint_closing.load(Ordering::Acquire) {
            true => UNBOUNDED_BYTES,
            false => self.inner.window(),
        }
    }

    fn metrics(&self) -> ControllerMetrics {
        self.inner.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Bounded { inner: self.inner.clone_box(), closing: self.closing.clone(), endpoint_closing: self.endpoint_closing.clone() })
    }

    fn initial_window(&self) -> u64 {
        self.inner.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}
