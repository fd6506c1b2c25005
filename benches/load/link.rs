//! A connection of whichever transport, and what comes out of it.

use std::net::SocketAddr;

use anyhow::{Result, bail};

use super::quic::{QuicClients, QuicLink};
use super::ws::WsLink;

/// What a connection is.
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

/// Something that arrived.
#[derive(Debug)]
pub(crate) enum Incoming<'a> {
    Message(&'a [u8]),
    Compact(&'a [u8]),
}

/// Where a server is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    /// TCP: HTTP and WebSocket.
    pub(crate) plain: Option<SocketAddr>,
    /// UDP.
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

    /// Reads until the connection ends.
    pub(crate) async fn read(&self, mut hear: impl FnMut(Incoming<'_>)) -> Result<()> {
        match self {
            Self::Ws(link) => link.read(&mut hear).await,
            Self::Quic(link) => link.read(&mut hear).await,
        }
    }
}
