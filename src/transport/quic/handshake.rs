//! From a first packet to an established connection: who is let in, and how it failed.

use std::sync::Arc;
use std::time::Duration;

use quinn::{ConnectionError, VarInt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::QuicOptions;
use crate::telemetry::names;

/// HTTP/3's H3_NO_ERROR.
const NO_ERROR: VarInt = VarInt::from_u32(0x100);

/// Decides about first packets.
pub(super) struct Screen {
    pub(super) places: Arc<Semaphore>,
    pub(super) options: QuicOptions,
    pub(super) endpoint: quinn::Endpoint,
}

impl Screen {
    /// A place for the handshake, or an answer (refusal, retry) and nothing.
    pub(super) fn admit(&self, incoming: quinn::Incoming) -> Option<Admitted> {
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            return self.refuse(incoming, "refused_handshakes");
        };
        if self.endpoint.open_connections() >= self.options.max_connections {
            return self.refuse(incoming, "refused_connections");
        }
        let under_way = self.options.max_handshakes - self.places.available_permits();
        if under_way > self.options.retry_above && !incoming.remote_address_validated() && incoming.may_retry() {
            count("retry");
            // Fails only where may_retry() was false.
            let _ = incoming.retry();
            return None;
        }
        metrics::gauge!(names::QUIC_HANDSHAKES_PENDING).increment(1.0);
        Some(Admitted { incoming, place: Place { _permit: place }, limit: self.options.handshake })
    }

    fn refuse(&self, incoming: quinn::Incoming, outcome: &'static str) -> Option<Admitted> {
        count(outcome);
        incoming.refuse();
        None
    }
}

/// A first packet with a place.
pub(super) struct Admitted {
    incoming: quinn::Incoming,
    place: Place,
    limit: Duration,
}

impl Admitted {
    /// Answers the first packet, and waits until the client's whole hello is there: browsers need two packets for it,
    /// and only then is it known how many streams the client allows. The connection can send from here on.
    pub(super) async fn begin(self) -> Option<(quinn::Connection, Handshake)> {
        let mut connecting = match self.incoming.accept() {
            Ok(connecting) => connecting,
            Err(error) => {
                failed(&error);
                return None;
            }
        };
        match timeout(self.limit, connecting.handshake_data()).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => {
                failed(&error);
                return None;
            }
            Err(_) => {
                count("timeout");
                return None;
            }
        }
        // Always succeeds on the server's side.
        let Ok((connection, done)) = connecting.into_0rtt() else { return None };
        let handshake = Handshake { connection: connection.clone(), done, limit: self.limit, _place: self.place };
        Some((connection, handshake))
    }
}

/// A handshake under way; it holds its place among the pending ones.
pub struct Handshake {
    connection: quinn::Connection,
    done: quinn::ZeroRttAccepted,
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
            // On a server its value means nothing; whether the connection lives does.
            self.done.await;
            result
        };
        let Ok(result) = timeout(self.limit, both).await else {
            count("timeout");
            self.connection.close(NO_ERROR, b"");
            return Err(HandshakeError::Timeout);
        };
        match self.connection.close_reason() {
            None => {
                count("ok");
                Ok(result)
            }
            Some(error) => {
                failed(&error);
                Err(error.into())
            }
        }
    }
}

struct Place {
    _permit: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        metrics::gauge!(names::QUIC_HANDSHAKES_PENDING).decrement(1.0);
    }
}

fn failed(error: &ConnectionError) {
    let outcome = outcome_of(error);
    tracing::debug!(outcome, %error, "QUIC handshake failed");
    count(outcome);
}

fn count(outcome: &'static str) {
    metrics::counter!(names::QUIC_HANDSHAKES, "outcome" => outcome).increment(1);
}

/// A closed list, so that an operator can tell a bad certificate from a port scan.
fn outcome_of(error: &ConnectionError) -> &'static str {
    let is_tls = |code: quinn::TransportErrorCode| (0x100..0x200).contains(&u64::from(code));
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
