//! From a first packet to an established connection: who is let in, and how it failed.

use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use quinn_proto::{ConnectionError, Incoming, TransportErrorCode, VarInt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::connection::Connection;
use super::{NO_ERROR, QuicOptions};
use crate::quota::{Cap, Caps, Full};
use crate::telemetry::names;

/// HTTP/3's H3_EXCESSIVE_LOAD.
const EXCESSIVE_LOAD: VarInt = VarInt::from_u32(0x107);

/// Decides about first packets, for all endpoints of a port.
#[derive(Clone)]
pub(super) struct Screen {
    caps: Caps,
    under_way: Arc<Semaphore>,
    /// Handshakes under way of clients that haven't proved their address.
    unproved: Arc<Semaphore>,
    open: Arc<AtomicUsize>,
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
            caps: options.caps.clone(),
            under_way: Arc::new(Semaphore::new(options.max_handshakes)),
            unproved: Arc::new(Semaphore::new(options.retry_above)),
            open: Arc::default(),
            limit: options.handshake,
        }
    }

    /// An address whose proof is in the packet is counted from here on. One without may be forged: it gets one of a few
    /// places that are nobody's, and is counted when the handshake is done; beyond those it is asked for a proof, which
    /// leaves no state here.
    pub(super) fn judge(&self, incoming: &Incoming) -> Verdict {
        let Ok(under_way) = Arc::clone(&self.under_way).try_acquire_owned() else {
            count("refused_handshakes");
            return Verdict::Refuse;
        };
        let claim = if incoming.remote_address_validated() {
            match self.caps.open(incoming.remote_address().ip()) {
                Ok(cap) => Claim::Counted(cap),
                Err(full) => {
                    count(refusal(full));
                    return Verdict::Refuse;
                }
            }
        } else {
            if let Err(full) = self.caps.check(incoming.remote_address().ip()) {
                count(refusal(full));
                return Verdict::Refuse;
            }
            match Arc::clone(&self.unproved).try_acquire_owned() {
                Ok(permit) => Claim::Unproved(permit),
                Err(_) if incoming.may_retry() => {
                    count("retry");
                    return Verdict::Retry;
                }
                Err(_) => {
                    count("refused_handshakes");
                    return Verdict::Refuse;
                }
            }
        };
        Verdict::Admit(Place { under_way: Some(UnderWay::count(under_way)), claim })
    }

    /// A handshake is done: its connection needs a place of its address, if it doesn't have one yet.
    pub(super) fn establish(&self, place: &mut Place, address: IpAddr) -> Result<(), Full> {
        place.under_way = None;
        match &mut place.claim {
            Claim::Counted(cap) => cap.established(),
            Claim::Unproved(_) => {
                place.claim = Claim::None;
                place.claim = Claim::Counted(self.caps.admit(address).inspect_err(|full| count(refusal(*full)))?);
            }
            Claim::None => {}
        }
        Ok(())
    }

    /// Takes a connection over from the endpoint.
    pub(super) fn admitted(&self, connection: Connection) -> Admitted {
        Admitted { connection, limit: self.limit }
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

fn refusal(full: Full) -> &'static str {
    match full {
        Full::Address => "refused_address",
        Full::Node | Full::Draining => "refused_connections",
    }
}

/// What a connection counts for, until it is dropped with the connection's state.
pub(super) struct Place {
    under_way: Option<UnderWay>,
    claim: Claim,
}

/// For whom a connection is counted.
enum Claim {
    /// For nobody: its address may be forged.
    Unproved(#[expect(dead_code, reason = "held until the handshake is done")] OwnedSemaphorePermit),
    /// For its address.
    Counted(Cap),
    /// No longer.
    None,
}

impl Place {
    /// The handshake is neither done nor given up.
    pub(super) fn is_under_way(&self) -> bool {
        self.under_way.is_some()
    }

    /// The handshake came to nothing; what is left of the connection is its close.
    pub(super) fn given_up(&mut self) {
        self.under_way = None;
        self.claim = Claim::None;
    }
}

/// A place among the handshakes under way.
struct UnderWay {
    _permit: OwnedSemaphorePermit,
}

impl UnderWay {
    fn count(permit: OwnedSemaphorePermit) -> Self {
        metrics::gauge!(names::QUIC_HANDSHAKES_PENDING).increment(1.0);
        Self { _permit: permit }
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        metrics::gauge!(names::QUIC_HANDSHAKES_PENDING).decrement(1.0);
    }
}

/// Closes a connection for which its address has no place.
pub(super) fn turn_away(connection: &super::connection::Shared, state: &mut super::connection::State) {
    connection.close(state, EXCESSIVE_LOAD, Bytes::from_static(b"too many connections from this address"));
}

/// A connection whose first packet was answered.
pub struct Admitted {
    connection: Connection,
    limit: Duration,
}

impl Admitted {
    /// Waits until the client's whole hello is there: browsers need two packets for it, and only then is it known how many
    /// streams the client allows. The connection can send from here on.
    pub async fn begin(self) -> Option<(Connection, Handshake)> {
        let Self { connection, limit } = self;
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
        let handshake = Handshake { connection: connection.clone(), limit };
        Some((connection, handshake))
    }
}

/// A handshake under way.
pub struct Handshake {
    connection: Connection,
    limit: Duration,
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

/// Notes a handshake that came to nothing.
pub(super) fn failed(error: &ConnectionError) {
    let outcome = outcome_of(error);
    tracing::debug!(outcome, %error, "QUIC handshake failed");
    count(outcome);
}

pub(super) fn count(outcome: &'static str) {
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
