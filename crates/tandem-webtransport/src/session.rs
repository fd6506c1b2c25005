//! An open session.

use std::net::IpAddr;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tandem_quic::{ConnectionError, QuicConnection};
use tokio::sync::{Mutex, SetOnce};

use crate::capsule::MalformedClose;
use crate::connect::{ClientEnd, ConnectSend};
use crate::message::Violation;
use crate::slot::ControlStream;
use crate::{ObserveWebTransport, SessionDatagrams, SessionReader, SessionWriter};

/// An open session. Dropping it, or both of its halves, doesn't close it: return from
/// [`Application::serve`](crate::Application::serve), or call [`SessionWriter::close`].
#[derive(Debug)]
pub struct WebTransportSession {
    peer: IpAddr,
    reader: SessionReader,
    writer: SessionWriter,
}

/// Why a session failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SessionError {
    /// The QUIC connection is over.
    #[error(transparent)]
    ConnectionLost(#[from] ConnectionError),
    /// The client closed its connection without closing the session, with this HTTP/3 error code.
    #[error("the client closed its connection with code {code:#x}: {reason}")]
    ConnectionClosed {
        /// The code, an HTTP/3 error code.
        code: u64,
        /// The client's reason.
        reason: String,
    },
    /// HTTP/3 failed on the CONNECT stream.
    #[error(transparent)]
    Http(Arc<h3::error::StreamError>),
    /// The client never opened the session's stream.
    #[error("no stream was opened")]
    NoStream,
    /// The client stopped the session's stream, or the connection is over.
    #[error("the session's stream can't be written: {0}")]
    Write(#[source] tandem_quic::WriteError),
    /// The client sent something that a session doesn't have. The session should be closed.
    #[error(transparent)]
    Violation(#[from] Violation),
    /// The client sent a malformed close capsule.
    #[error(transparent)]
    MalformedClose(#[from] MalformedClose),
}

/// Parts of a session.
pub(crate) struct SessionParts {
    pub(crate) connection: QuicConnection,
    /// The CONNECT stream's id, which is the session's.
    pub(crate) id: u64,
    pub(crate) peer: IpAddr,
    pub(crate) message_bytes: usize,
    pub(crate) control: ControlStream,
    pub(crate) connect: Arc<Mutex<ConnectSend>>,
    /// Resolves when the client has acknowledged all of the CONNECT stream.
    pub(crate) acknowledged: BoxFuture<'static, ()>,
    /// How the client ended the session.
    pub(crate) end: Arc<SetOnce<ClientEnd>>,
    pub(crate) observe: ObserveWebTransport,
}

impl WebTransportSession {
    pub(crate) fn new(parts: SessionParts) -> Self {
        let SessionParts { connection, id, peer, message_bytes, control, connect, acknowledged, end, observe } = parts;
        let datagrams = SessionDatagrams::new(connection.clone(), id / 4, observe);
        Self {
            peer,
            reader: SessionReader::new(connection, id / 4, control.recv, message_bytes, Arc::clone(&end), observe),
            writer: SessionWriter::new(datagrams, control.send, connect, acknowledged, end),
        }
    }

    /// The client's address when the session was opened; an IPv4 address is never in its IPv6-mapped form.
    pub fn peer(&self) -> IpAddr {
        self.peer
    }

    /// The two halves, to be used at the same time, from one task or from two.
    pub fn split(self) -> (SessionReader, SessionWriter) {
        (self.reader, self.writer)
    }
}
