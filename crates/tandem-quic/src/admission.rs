//! From a first packet to an established connection: which handshakes are admitted, and how each one ended.

use std::future::{Future, poll_fn};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use quinn_proto::{ConnectionError, Incoming, TransportErrorCode};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::connection::{ConnectionShared, ConnectionState, QuicConnection};
use crate::{ConnectionLimits, ConnectionPermit, LimitReached, ObserveQuic, QuicEvent, QuicOptions, codes};

/// Decides about first packets, for all endpoints of a port.
#[derive(Clone)]
pub(super) struct AdmissionPolicy {
    limits: Arc<dyn ConnectionLimits>,
    pending: Arc<Semaphore>,
    /// Pending handshakes of clients that haven't proved their address.
    unproved: Arc<Semaphore>,
    /// Connections of all endpoints.
    open: Arc<AtomicUsize>,
    time_limit: Duration,
    observe: ObserveQuic,
}

/// Decision about a first packet.
pub(super) enum AdmissionDecision {
    Refuse,
    /// The client must prove its address first.
    Retry,
    Admit(HandshakePermit),
}

impl AdmissionPolicy {
    pub(super) fn new(options: &QuicOptions) -> Self {
        Self {
            limits: Arc::clone(&options.limits),
            pending: Arc::new(Semaphore::new(options.max_handshakes)),
            unproved: Arc::new(Semaphore::new(options.retry_above)),
            open: Arc::default(),
            time_limit: options.handshake,
            observe: options.observe,
        }
    }

    /// Judges a first packet.
    ///
    /// An address whose proof is in the packet counts from here on. An address without proof may be forged: its
    /// handshake takes one of a few permits that count for no address, and the address counts when the handshake is
    /// done. Beyond those permits the client gets a Retry, which keeps no state here.
    pub(super) fn judge(&self, incoming: &Incoming) -> AdmissionDecision {
        let address = incoming.remote_address().ip();
        let Ok(pending) = Arc::clone(&self.pending).try_acquire_owned() else {
            return self.refuse("refused_handshakes");
        };
        let claim = if incoming.remote_address_validated() {
            match self.limits.open(address) {
                Ok(permit) => AddressClaim::Counted(permit),
                Err(limit) => return self.refuse(refusal(limit)),
            }
        } else {
            if let Err(limit) = self.limits.check(address) {
                return self.refuse(refusal(limit));
            }
            match Arc::clone(&self.unproved).try_acquire_owned() {
                Ok(permit) => AddressClaim::Unproved(permit),
                Err(_) if incoming.may_retry() => {
                    self.count("retry");
                    return AdmissionDecision::Retry;
                }
                Err(_) => return self.refuse("refused_handshakes"),
            }
        };
        AdmissionDecision::Admit(HandshakePermit { pending: Some(self.pending(pending)), claim })
    }

    /// Refuses a first packet, and counts it under `outcome`.
    pub(super) fn refuse(&self, outcome: &'static str) -> AdmissionDecision {
        self.count(outcome);
        AdmissionDecision::Refuse
    }

    fn pending(&self, permit: OwnedSemaphorePermit) -> PendingHandshake {
        (self.observe)(QuicEvent::HandshakeBegun);
        PendingHandshake { _permit: permit, observe: self.observe }
    }

    /// A handshake is done. Its address must be within its limits, unless the handshake was counted for it already.
    pub(super) fn establish(&self, permit: &mut HandshakePermit, address: IpAddr) -> Result<(), LimitReached> {
        permit.pending = None;
        match &mut permit.claim {
            AddressClaim::Counted(counted) => counted.established(),
            AddressClaim::Unproved(_) => {
                permit.claim = AddressClaim::None;
                let counted = self.limits.admit(address).inspect_err(|limit| self.count(refusal(*limit)))?;
                permit.claim = AddressClaim::Counted(counted);
            }
            AddressClaim::None => {}
        }
        Ok(())
    }

    pub(super) fn accepted(&self, connection: QuicConnection) -> AcceptedConnection {
        AcceptedConnection { connection, time_limit: self.time_limit, observe: self.observe }
    }

    pub(super) fn opened(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns true for the last connection of all endpoints.
    pub(super) fn closed(&self) -> bool {
        self.open.fetch_sub(1, Ordering::Relaxed) == 1
    }

    /// Whether no endpoint has a connection.
    pub(super) fn is_idle(&self) -> bool {
        self.open.load(Ordering::Relaxed) == 0
    }

    pub(super) fn report(&self, event: QuicEvent) {
        (self.observe)(event);
    }

    pub(super) fn count(&self, outcome: &'static str) {
        self.report(QuicEvent::Handshake { outcome });
    }

    pub(super) fn count_failure(&self, error: &ConnectionError) {
        failed(self.observe, error);
    }
}

fn refusal(limit: LimitReached) -> &'static str {
    match limit {
        LimitReached::Address => "refused_address",
        LimitReached::Total => "refused_connections",
    }
}

/// A connection's count, given back when the connection's state is dropped.
pub(super) struct HandshakePermit {
    pending: Option<PendingHandshake>,
    claim: AddressClaim,
}

/// The address that a connection counts for.
enum AddressClaim {
    /// None yet: the address may be forged.
    Unproved(#[expect(dead_code, reason = "held until the handshake is done")] OwnedSemaphorePermit),
    Counted(Box<dyn ConnectionPermit>),
    /// The handshake failed, or its address is over the limit: the connection counts for no address.
    None,
}

impl HandshakePermit {
    /// Whether the handshake is neither done nor given up.
    pub(super) fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// The handshake failed. The connection's state lives on until its close is delivered, and counts for nobody.
    pub(super) fn give_up(&mut self) {
        self.pending = None;
        self.claim = AddressClaim::None;
    }
}

/// One of the pending handshakes.
struct PendingHandshake {
    _permit: OwnedSemaphorePermit,
    observe: ObserveQuic,
}

impl Drop for PendingHandshake {
    fn drop(&mut self) {
        (self.observe)(QuicEvent::HandshakeEnded);
    }
}

/// Closes an established connection whose address is over its limit.
pub(super) fn turn_away(connection: &ConnectionShared, state: &mut ConnectionState) {
    connection.close(state, codes::EXCESSIVE_LOAD, Bytes::from_static(b"too many connections from this address"));
}

/// A connection whose first packet was answered, and whose handshake is under way.
pub struct AcceptedConnection {
    connection: QuicConnection,
    time_limit: Duration,
    observe: ObserveQuic,
}

impl AcceptedConnection {
    /// Waits for the client's whole hello, which takes browsers two packets: only then are the client's stream limits
    /// known. The connection can send from here on (0.5-RTT data, RFC 8446 §4.4.4).
    ///
    /// Returns `None` when the handshake failed before; that was reported to [`QuicOptions::observe`].
    pub async fn begin(self) -> Option<(QuicConnection, Handshake)> {
        let Self { connection, time_limit, observe } = self;
        match timeout(time_limit, poll_fn(|context| connection.poll_hello(context))).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                failed(observe, &error);
                return None;
            }
            Err(_) => {
                observe(QuicEvent::Handshake { outcome: "timeout" });
                return None;
            }
        }
        let handshake = Handshake { connection: connection.clone(), time_limit, observe };
        Some((connection, handshake))
    }
}

/// A handshake whose client's hello has arrived.
pub struct Handshake {
    connection: QuicConnection,
    time_limit: Duration,
    observe: ObserveQuic,
}

/// Why a handshake failed. It was reported to [`QuicOptions::observe`].
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// [`QuicOptions::handshake`] is over.
    #[error("the handshake took too long")]
    Timeout,
    /// The connection ended before its handshake was done.
    #[error(transparent)]
    Failed(#[from] ConnectionError),
}

impl Handshake {
    /// Runs `early`, which may already send, then waits for the end of the handshake. A handshake that takes too long
    /// closes its connection.
    pub async fn complete<T>(self, early: impl Future<Output = T>) -> Result<T, HandshakeError> {
        let both = async {
            let result = early.await;
            let connected = poll_fn(|context| self.connection.poll_connected(context)).await;
            (result, connected)
        };
        let Ok((result, connected)) = timeout(self.time_limit, both).await else {
            (self.observe)(QuicEvent::Handshake { outcome: "timeout" });
            self.connection.close(codes::NO_ERROR, b"");
            return Err(HandshakeError::Timeout);
        };
        match connected {
            Ok(()) => {
                (self.observe)(QuicEvent::Handshake { outcome: "ok" });
                Ok(result)
            }
            Err(error) => {
                failed(self.observe, &error);
                Err(error.into())
            }
        }
    }
}

fn failed(observe: ObserveQuic, error: &ConnectionError) {
    let outcome = outcome_of(error);
    tracing::debug!(outcome, %error, "QUIC handshake failed");
    observe(QuicEvent::Handshake { outcome });
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
