//! [`tandem_quic`] with this server's connection limits and metrics.

use std::net::IpAddr;
use std::sync::Arc;

use tandem_quic::{ConnectionLimits, ConnectionPermit, LimitReached, QuicEvent, QuicOptions};

use crate::quota::{Cap, Caps, CapsFull};
use crate::telemetry::names;

pub use tandem_quic::{BindError, MAX_ENDPOINTS, NodeIdentity, QuicListener, ServerId, SharedSecret};

/// Options with the limits of `caps`, which QUIC shares with TCP, and the metrics of the catalogue.
pub fn options(caps: Caps) -> QuicOptions {
    QuicOptions { limits: Arc::new(caps), observe, ..QuicOptions::default() }
}

impl ConnectionLimits for Caps {
    fn check(&self, address: IpAddr) -> Result<(), LimitReached> {
        Self::check(self, address).map_err(reached)
    }

    fn open(&self, address: IpAddr) -> Result<Box<dyn ConnectionPermit>, LimitReached> {
        Self::open(self, address).map(boxed).map_err(reached)
    }

    fn admit(&self, address: IpAddr) -> Result<Box<dyn ConnectionPermit>, LimitReached> {
        Self::admit(self, address).map(boxed).map_err(reached)
    }
}

impl ConnectionPermit for Cap {
    fn established(&mut self) {
        Self::established(self);
    }
}

fn boxed(cap: Cap) -> Box<dyn ConnectionPermit> {
    Box::new(cap)
}

fn reached(full: CapsFull) -> LimitReached {
    match full {
        CapsFull::Address => LimitReached::Address,
        CapsFull::Node | CapsFull::Draining => LimitReached::Total,
    }
}

fn observe(event: QuicEvent) {
    match event {
        QuicEvent::HandshakeBegun => metrics::gauge!(names::QUIC_HANDSHAKES_PENDING).increment(1.0),
        QuicEvent::HandshakeEnded => metrics::gauge!(names::QUIC_HANDSHAKES_PENDING).decrement(1.0),
        QuicEvent::Handshake { outcome } => {
            metrics::counter!(names::QUIC_HANDSHAKES, "outcome" => outcome).increment(1);
        }
        QuicEvent::ConnectionPanicked => {
            metrics::counter!(names::PANICS_CONTAINED, "in" => "quic_connection").increment(1);
        }
    }
}
