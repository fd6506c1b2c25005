//! From a first packet to an established connection: who is let in, and how it failed.

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use quinn_proto::{ConnectionError, Incoming, TransportErrorCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::connection::Connection;
use super::{NO_ERROR, QuicOptions};
use crate::telemetry::names;

/// Decides about first packets, for all endpoints of a port.
#[derive(Clone)]
pub(super) struct Screen {
    places: Arc<Semaphore>,
    open: Arc<AtomicUsize>,
    max_handshakes: usize,
    retry_above: usize,
    max_connections: usize,
    limit: Duration,
}

/// What becomes of a first packet.
pub(super) enum Verdict {
    Refuse,
    /// The client must prove its address first.
    Retry,
    Admit(Place),
}

impl Screen {
    pub(super) fn new(options: &QuicOptions) -> Self {
        Self {
            places: Arc::new(Semaphore::new(options.max_handshakes)),
            open: Arc::default(),
            max_handshakes: options.max_handshakes,
            retry_above: options.retry_above,
            max_connections: options.max_connections,
            limit: options.handshake,
        }
    }

    pub(super) fn judge(&self, incoming: &Incoming) -> Verdict {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            count("refused_handshakes");
            return Verdict::Refuse;
        };
        if self.open.load(Ordering::Relaxed) >= self.max_connections {
            count("refused_connections");
            return Verdict::Refuse;
        }
        let under_way = self.max_handshakes - self.places.available_permits();
        if under_way > self.retry_above && !incoming.remote_address_validated() && incoming.may_retry() {
            count("retry");
            return Verdict::Retry;
        }
        metrics::gauge!(names::QUIC_HANDSHAKES_PENDING).increment(1.0);
        Verdict::Admit(Place { _permit: place })
    }

    /// A connection with its place.
    pub(super) fn admitted(&self, connection: Connection, place: Place) -> Admitted {
        Admitted { connection, place, limit: self.limit }
    }

    /// One connection more.
    pub(super) fn opened(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    /// One connection less. True: that was the last one.
    pub(super) fn closed(&self) -> bool {
        self.open.fetch_sub(1, Ordering::Relaxed) == 1
    }

    /// No endpoint has a connection.
    pub(super) fn is_idle(&self) -> bool {
        self.open.load(Ordering::Relaxed) == 0
    }
}

/// A connection whose first packet was answered; it holds a place among the handshakes under way.
pub struct Admitted {
    connection: Connection,
    place: Place,
    limit: Duration,
}

impl Admitted {
    /// Waits until the client's whole hello is there: browsers need two packets for it, and only then is it known how many
    /// streams the client allows. The connection can send from here on.
    pub async fn begin(self) -> Option<(Connection, Handshake)> {
        let Self { connection, place, limit } = self;
        match timeout(limit, poll_fn(|context| connection.poll_hello(context))).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                failed(&error);
                return None;
            }
            Err(_) => {
                count("timeout");
                return None;
            }
        }
        let handshake = Handshake { connection: connection.clone(), limit, _place: place };
        Some((connection, handshake))
    }
}

/// A handshake under way; it holds its place among the pending ones.
pub struct Handshake {
    connection: Connection,
    limit: Duration,
    _place: Place,
}

/// A handshake that came to nothing. Already counted.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// It took too long.
    #[error("the handshake took too long")]
    Timeout,
    /// It failed.
    #[error(transparent)]
    Failed(#[from] ConnectionError),
}

impl Handshake {
    /// Does `early`, which may send already, then waits for the end of the handshake. How it ended is counted; a failed
    /// connection is closed.
    pub async fn complete<T>(self, early: impl Future<Output = T>) -> Result<T, HandshakeError> {
        let both = async {
            let result = early.await;
            let connected = poll_fn(|context| self.connection.poll_connected(context)).await;
            (result, connected)
        };
        let Ok((result, connected)) = timeout(self.limit, both).await else {
            count("timeout");
            self.connection.close(NO_ERROR, b"");
            return Err(HandshakeError::Timeout);
        };
        match connected {
            Ok(()) => {
                count("ok");
                Ok(result)
            }
            Err(error) => {
                failed(&error);
                Err(error.into())
            }
        }
    }
}

pub(super) struct Place {
    _permit: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        metrics::gauge!(names::QUIC_HANDSHAKES_PENDING).decrement(1.0);
    }
}

/// Notes a handshake that came to nothing.
pub(super) fn failed(error: &ConnectionError) {
    let outcome = outcome_of(error);
    tracing::debug!(outcome, %error, "QUIC handshake failed");
    count(outcome);
}

fn count(outcome: &'static str) {
    metrics::counter!(names::QUIC_HANDSHAKES, "outcome" => outcome).increment(1);
}

/// A closed list, so that an operator can tell a bad certificate from a port scan.
fn outcome_of(error: &ConnectionError) -> &'static str {
    let is_tls = |code: TransportErrorCode| (0x100..0x200).contains(&u64::from(code));
    match error {
        ConnectionError::VersionMismatch => "version",
        ConnectionError::TransportError(error) if is_tls(error.code) => "tls",
        ConnectionError::TransportError(_) => "protocol",
        ConnectionError::ConnectionClosed(close) if is_tls(close.error_code) => "tls_refused_by_client",
        ConnectionError::ConnectionClosed(_) | ConnectionError::ApplicationClosed(_) => "closed_by_client",
        ConnectionError::Reset => "reset",
        ConnectionError::TimedOut => "timeout",
        ConnectionError::LocallyClosed => "closed_here",
        ConnectionError::CidsExhausted => "ids_exhausted",
    }
}
