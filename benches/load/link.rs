//! A connection of whichever transport, and what comes out of it.

use std::net::SocketAddr;

use anyhow::{Result, bail};
use tokio::sync::Notify;

use super::quic::{QuicClients, QuicLink};
use super::wire::Incoming;
use super::ws::WsLink;

/// First bytes of the server's PROBE.
const PROBE: &[u8] = br#"{"type":"PROBE""#;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Carrier {
    WebSocket,
    WebTransport,
    /// QUIC without HTTP/3, as the bare datagram relay speaks it.
    Bare,
}

impl Carrier {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::WebSocket => "WebSocket",
            Self::WebTransport => "WebTransport",
            Self::Bare => "QUIC datagrams",
        }
    }
}

/// Addresses of one server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    /// TCP: HTTP and WebSocket.
    pub(crate) plain: Option<SocketAddr>,
    /// UDP address.
    pub(crate) quic: Option<SocketAddr>,
}

/// An open connection.
#[derive(Debug)]
pub(crate) enum Link {
    Ws(WsLink),
    Quic(Box<QuicLink>),
}

impl Link {
    pub(crate) async fn connect(carrier: Carrier, place: &Place, clients: &QuicClients) -> Result<Self> {
        Ok(match (carrier, place) {
            (Carrier::WebSocket, Place { plain: Some(address), .. }) => {
                Self::Ws(WsLink::connect(*address, "/ws").await?)
            }
            (Carrier::WebTransport, Place { quic: Some(address), .. }) => {
                Self::Quic(Box::new(clients.web_transport(*address).await?))
            }
            (Carrier::Bare, Place { quic: Some(address), .. }) => Self::Quic(Box::new(clients.bare(*address).await?)),
            _ => bail!("this server has no {}", carrier.name()),
        })
    }

    /// A JSON message.
    pub(crate) async fn message(&self, text: &str) -> Result<()> {
        match self {
            Self::Ws(link) => link.message(text.as_bytes()).await,
            Self::Quic(link) => link.message(text.as_bytes()).await,
        }
    }

    /// A compact message.
    pub(crate) async fn compact(&self, bytes: &[u8]) -> Result<()> {
        match self {
            Self::Ws(link) => link.compact(bytes).await,
            Self::Quic(link) => link.compact(bytes),
        }
    }

    /// Reads until the connection ends. PROBE is answered here, as a page does it from its message handler.
    pub(crate) async fn read(&self, mut hear: impl FnMut(Incoming<'_>)) -> Result<()> {
        let asked = Notify::new();
        let mut hear = |incoming: Incoming<'_>| match incoming {
            Incoming::Message(text) if text.starts_with(PROBE) => asked.notify_one(),
            other => hear(other),
        };
        let read = async {
            match self {
                Self::Ws(link) => link.read(&mut hear).await,
                Self::Quic(link) => link.read(&mut hear).await,
            }
        };
        let answer = async {
            loop {
                asked.notified().await;
                self.message(r#"{"type":"ALIVE"}"#).await?;
            }
        };
        tokio::select! {
            ended = read => ended,
            failed = answer => failed,
        }
    }
}
