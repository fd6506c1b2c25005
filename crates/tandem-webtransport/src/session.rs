//! A WebTransport session as a [`Transport`].

use std::net::IpAddr;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::sync::{Mutex, SetOnce};

use super::connect::{ConnectSend, End};
use super::datagrams::Datagrams;
use super::inbound::WebTransportInbound;
use super::outbound::WebTransportOutbound;
use super::slot::Control;
use crate::domain::TransportKind;
use crate::session::transport::Transport;
use crate::transport::quic;

/// An open session.
pub struct WebTransportSession {
    peer: IpAddr,
    inbound: WebTransportInbound,
    outbound: WebTransportOutbound,
}

/// What a session is made of.
pub(super) struct Parts {
    pub(super) connection: quic::Connection,
    /// The CONNECT stream's id, which is the session's.
    pub(super) id: u64,
    pub(super) peer: IpAddr,
    pub(super) message_bytes: usize,
    pub(super) control: Control,
    pub(super) connect: Arc<Mutex<ConnectSend>>,
    /// Resolves when the peer has all of the CONNECT stream.
    pub(super) acknowledged: BoxFuture<'static, ()>,
    /// How the peer ended the session, once it has.
    pub(super) end: Arc<SetOnce<End>>,
}

impl WebTransportSession {
    pub(super) fn new(parts: Parts) -> Self {
        let quarter_id = parts.id / 4;
        Self {
            peer: parts.peer,
            inbound: WebTransportInbound::new(
                parts.connection.clone(),
                quarter_id,
                parts.control.recv,
                parts.message_bytes,
                Arc::clone(&parts.end),
            ),
            outbound: WebTransportOutbound::new(
                Datagrams::new(parts.connection, quarter_id),
                parts.control.send,
                parts.connect,
                parts.acknowledged,
                parts.end,
            ),
        }
    }
}

impl Transport for WebTransportSession {
    type Inbound = WebTransportInbound;
    type Outbound = WebTransportOutbound;

    fn kind(&self) -> TransportKind {
        TransportKind::WebTransport
    }

    fn peer(&self) -> IpAddr {
        self.peer
    }

    fn split(self) -> (WebTransportInbound, WebTransportOutbound) {
        (self.inbound, self.outbound)
    }
}
