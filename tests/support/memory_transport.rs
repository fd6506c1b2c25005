//! An in-process transport for tests and the simulation. Bounded like a real one: the session's writes wait for a
//! client that doesn't read. It keeps no time of its own, so it works under tokio's paused time.

#![allow(unreachable_pub, dead_code, reason = "each test uses a part of it")]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tandem::domain::{CloseCode, TransportKind};
use tandem::session::transport::{Frame, Inbound, Outbound, Outgoing, Transport, TransportError};
use tokio::sync::mpsc;

/// Frames that fit in one direction.
pub const CAPACITY: usize = 256;
/// First bytes of PROBE, as `protocol` encodes it.
const PROBE: &[u8] = br#"{"type":"PROBE""#;
const ALIVE: &[u8] = br#"{"type":"ALIVE"}"#;

/// Two ends of one connection.
pub fn pair() -> (MemoryTransport, MemoryClient) {
    let (to_server, at_server) = mpsc::channel(CAPACITY);
    let (to_client, at_client) = mpsc::channel(CAPACITY);
    let (silent, frozen) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let inbound = MemoryInbound { frames: at_server };
    let pongs = to_server.downgrade();
    let outbound =
        MemoryOutbound { frames: to_client, pongs, silent: Arc::clone(&silent), frozen: Arc::clone(&frozen) };
    (MemoryTransport { inbound, outbound }, MemoryClient { to_server, at_client, silent, frozen })
}

/// The server's end.
#[derive(Debug)]
pub struct MemoryTransport {
    inbound: MemoryInbound,
    outbound: MemoryOutbound,
}

impl Transport for MemoryTransport {
    type Inbound = MemoryInbound;
    type Outbound = MemoryOutbound;

    fn kind(&self) -> TransportKind {
        TransportKind::WebSocket
    }

    fn peer(&self) -> IpAddr {
        IpAddr::V4(Ipv4Addr::LOCALHOST)
    }

    fn split(self) -> (MemoryInbound, MemoryOutbound) {
        (self.inbound, self.outbound)
    }
}

/// The server's reading half.
#[derive(Debug)]
pub struct MemoryInbound {
    frames: mpsc::Receiver<Frame>,
}

impl Inbound for MemoryInbound {
    async fn next(&mut self) -> Result<Frame, TransportError> {
        self.frames.recv().await.ok_or_else(lost)
    }
}

/// The server's writing half.
#[derive(Debug)]
pub struct MemoryOutbound {
    frames: mpsc::Sender<Delivered>,
    pongs: mpsc::WeakSender<Frame>,
    silent: Arc<AtomicBool>,
    frozen: Arc<AtomicBool>,
}

impl Outbound for MemoryOutbound {
    async fn send(&mut self, frames: &mut Vec<Outgoing>) -> Result<(), TransportError> {
        for frame in frames.drain(..) {
            match frame {
                Outgoing::Message(bytes) if bytes.starts_with(PROBE) => self.ask_page()?,
                Outgoing::Message(bytes) => self.frames.send(Delivered::Message(bytes)).await.map_err(|_| lost())?,
                Outgoing::Drain => self.frames.send(Delivered::Drain).await.map_err(|_| lost())?,
                Outgoing::Ping => self.ping()?,
                // Like a datagram: one that doesn't fit is dropped.
                Outgoing::Compact(compact) => match self.frames.try_send(Delivered::Compact(compact.message())) {
                    Err(mpsc::error::TrySendError::Closed(_)) => return Err(lost()),
                    Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => {}
                },
            }
        }
        Ok(())
    }

    async fn close(self, code: CloseCode, reason: &str) {
        let _ = self.frames.send(Delivered::Closed { code, reason: reason.to_owned() }).await;
    }
}

impl MemoryOutbound {
    /// Answers PROBE as a page does.
    fn ask_page(&self) -> Result<(), TransportError> {
        let Some(answers) = self.pongs.upgrade() else { return Err(lost()) };
        if !self.silent.load(Ordering::Relaxed) && !self.frozen.load(Ordering::Relaxed) {
            let _ = answers.try_send(Frame::Message(Bytes::from_static(ALIVE)));
        }
        Ok(())
    }

    fn ping(&self) -> Result<(), TransportError> {
        let Some(pongs) = self.pongs.upgrade() else { return Err(lost()) };
        if !self.silent.load(Ordering::Relaxed) {
            // A full queue is a sign of life by itself.
            let _ = pongs.try_send(Frame::Alive { rtt: Some(Duration::ZERO) });
        }
        Ok(())
    }
}

fn lost() -> TransportError {
    TransportError::Lost("the other end was dropped".into())
}

/// A frame that a client received.
#[derive(Debug, Clone, PartialEq)]
pub enum Delivered {
    /// UTF-8 JSON.
    Message(Bytes),
    /// A compact message.
    Compact(Bytes),
    /// The server's DRAIN.
    Drain,
    Closed {
        code: CloseCode,
        reason: String,
    },
}

/// The client's end. Dropping it loses the connection.
#[derive(Debug)]
pub struct MemoryClient {
    to_server: mpsc::Sender<Frame>,
    at_client: mpsc::Receiver<Delivered>,
    silent: Arc<AtomicBool>,
    frozen: Arc<AtomicBool>,
}

impl MemoryClient {
    /// Sends a frame; waits while the session doesn't read. `false`: the session has ended.
    pub async fn send(&self, frame: Frame) -> bool {
        self.to_server.send(frame).await.is_ok()
    }

    pub async fn message(&self, json: impl Into<Bytes>) -> bool {
        self.send(Frame::Message(json.into())).await
    }

    /// Closes in order.
    pub async fn close(&self) -> bool {
        self.send(Frame::Closed(u32::from(CloseCode::Normal.number()))).await
    }

    /// Stops answering pings and probes.
    pub fn go_silent(&self) {
        self.silent.store(true, Ordering::Relaxed);
    }

    /// Behaves like a page in the back/forward cache: its network stack answers pings, the page nothing.
    pub fn freeze(&self) {
        self.frozen.store(true, Ordering::Relaxed);
    }

    /// The next frame; `None` after the end.
    pub async fn recv(&mut self) -> Option<Delivered> {
        self.at_client.recv().await
    }

    /// The next frame, if there is one.
    pub fn try_recv(&mut self) -> Option<Delivered> {
        self.at_client.try_recv().ok()
    }
}
