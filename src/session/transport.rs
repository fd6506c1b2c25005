//! The session's interface to a transport.

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::domain::{CloseCode, CompactBytes, TransportKind};

/// An accepted connection, before any message.
pub trait Transport: Send {
    type Inbound: Inbound;
    type Outbound: Outbound;

    fn kind(&self) -> TransportKind;

    /// The client's address.
    fn peer(&self) -> IpAddr;

    /// Both halves are used at the same time, from one task.
    fn split(self) -> (Self::Inbound, Self::Outbound);
}

/// The reading half. `next` is cancel-safe: a dropped call loses no frame.
pub trait Inbound: Send {
    /// The next frame. After an error or `Closed` there is none.
    fn next(&mut self) -> impl Future<Output = Result<Frame, TransportError>> + Send;
}

/// The writing half.
pub trait Outbound: Send {
    /// Writes frames in order and flushes once. Not cancel-safe: a dropped call may leave half a message on the wire,
    /// so the session drops it only to end. Compact frames may be lost, and may leave after the messages of their
    /// batch; messages may not.
    fn send(&mut self, frames: &mut Vec<Outgoing>) -> impl Future<Output = Result<(), TransportError>> + Send;

    /// Sends datagrams beside this half, where the transport has them.
    fn datagrams(&self) -> Option<Arc<dyn DatagramSender>> {
        None
    }

    /// Ends the connection with code and reason (≤ 120 bytes), flushed as far as the peer takes it. The caller bounds
    /// its time.
    fn close(self, code: CloseCode, reason: &str) -> impl Future<Output = ()> + Send;
}

/// Sends compact messages as datagrams, from any task: the session's own need not wake for them.
pub trait DatagramSender: Send + Sync {
    /// Sends a message, or returns false if it would have to wait: then the outbox takes it, where a newer message of
    /// its slot replaces it. Never blocks. A message that can't be sent at all is dropped.
    fn try_send(&self, message: &CompactBytes) -> bool;

    /// The round trip to plan with: on a line that loses packets, one in which a lost packet is sent again. Callers
    /// hold a room's lock.
    fn rtt(&self) -> Duration;
}

/// A frame from the peer.
#[derive(Debug, Clone)]
pub enum Frame {
    /// An unchecked JSON message. It may alias the transport's read buffer: copy what you keep.
    Message(Bytes),
    /// An unchecked compact message.
    Compact(Bytes),
    /// A sign of life without content (pong). `rtt` if it answers [`Outgoing::Ping`].
    Alive { rtt: Option<Duration> },
    /// The peer closed, with this code.
    Closed(u32),
}

/// A frame to the peer. Payloads are shared by all receivers.
#[derive(Debug, Clone)]
pub enum Outgoing {
    /// UTF-8 JSON.
    Message(Bytes),
    /// A compact message.
    Compact(CompactBytes),
    /// Tells the peer to leave soon (WebTransport's DRAIN capsule; nothing elsewhere).
    Drain,
    /// Asks the peer for a sign of life, which comes back as [`Frame::Alive`] or any frame. Nothing if the transport
    /// has its own keep-alive.
    Ping,
}

#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The connection ended without a close.
    #[error("connection lost: {0}")]
    Lost(Box<dyn std::error::Error + Send + Sync>),
    /// The peer broke the transport's rules; the session is closed with this code.
    #[error("{reason}")]
    Violation { code: CloseCode, reason: String },
}
