//! From a first packet to an established connection: who is let in, and how it failed.

use std::sync::Arc;
use std::time::Duration;

use quinn::ConnectionError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::QuicOptions;
use crate::transport::metric;

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
        metrics::gauge!(metric::QUIC_HANDSHAKES_PENDING).increment(1.0);
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
    /// Answers the first packet. The connection can send at once; [`Handshake::complete`] says when it is real.
    pub(super) fn begin(self) -> Option<(quinn::Connection, Handshake)> {
        let connecting = match self.incoming.accept() {
            Ok(connecting) => connecting,
            Err(error) => {
                failed(&error);
                return None;
            }
        };
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
    /// Waits for the end of the handshake and counts how it ended. A failed connection is closed.
    pub async fn complete(self) -> Result<(), HandshakeError> {
        match tokio::time::timeout(self.limit, self.done).await {
            // On a server its value means nothing; whether the connection lives does.
            Ok(_) => match self.connection.close_reason() {
                None => {
                    count("ok");
                    Ok(())
                }
                Some(error) => {
                    failed(&error);
                    Err(error.into())
                }
            },
            Err(_) => {
                count("timeout");
                self.connection.close(h3::error::Code::H3_NO_ERROR.value().try_into().unwrap_or_default(), b"");
                Err(HandshakeError::Timeout)
            }
        }
    }
}

struct Place {
    _permit: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        metrics::gauge!(metric::QUIC_HANDSHAKES_PENDING).decrement(1.0);
    }
}

fn failed(error: &ConnectionError) {
    let outcome = outcome_of(error);
    tracing::debug!(outcome, %error, "QUIC handshake failed");
    count(outcome);
}

fn count(outcome: &'static str) {
    metrics::counter!(metric::QUIC_HANDSHAKES, "outcome" => outcome).increment(1);
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
