//! An in-process connection, for tests and the simulation. Bounded like a real one: a client that doesn't read makes the
//! session's writes wait. It keeps no time of its own, so it works under tokio's paused time.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::domain::{CloseCode, TransportKind};
use crate::session::transport::{Frame, Inbound, Outbound, Outgoing, Transport, TransportError};

/// Frames that fit in one direction.
const CAPACITY: usize = 256;
/// How PROBE begins, as `protocol` encodes it.
const PROBE: &[u8] = br#"{"type":"PROBE""#;
const ALIVE: &[u8] = br#"{"type":"ALIVE"}"#;

/// Two ends of one connection.
pub fn pair() -> (MemoryTransport, MemoryClient) {
    pair_from(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

/// The same, from an address.
pub fn pair_from(peer: IpAddr) -> (MemoryTransport, MemoryClient) {
    let (to_server, at_server) = mpsc::channel(CAPACITY);
    let (to_client, at_client) = mpsc::channel(CAPACITY);
    let (silent, frozen) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let inbound = MemoryInbound { frames: at_server };
    let pongs = to_server.downgrade();
    let outbound =
        MemoryOutbound { frames: to_client, pongs, silent: Arc::clone(&silent), frozen: Arc::clone(&frozen) };
    (MemoryTransport { peer, inbound, outbound }, MemoryClient { to_server, at_client, silent, frozen })
}

/// The server's end.
#[derive(Debug)]
pub struct MemoryTransport {
    peer: IpAddr,
    inbound: MemoryInbound,
    outbound: MemoryOutbound,
}

impl Transport for MemoryTransport {
    type Inbound = MemoryInbound;
    type Outbound = MemoryOutbound;

    fn kind(&self) -> TransportKind {
        TransportKind::Memory
    }

    fn peer(&self) -> IpAddr {
        self.peer
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
                // Like a datagram: what doesn't fit is dropped.
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
    /// PROBE, which a page answers from its message handler.
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
    TransportError::Lost("the other end was dropped".to_owned())
}

/// What a client gets.
#[derive(Debug, Clone, PartialEq)]
pub enum Delivered {
    /// UTF-8 JSON.
    Message(Bytes),
    /// A compact message.
    Compact(Bytes),
    /// The server will go soon.
    Drain,
    /// The end.
    Closed {
        /// Why.
        code: CloseCode,
        /// In words.
        reason: String,
    },
}

/// The client's end. Dropping it is a pulled cable.
#[derive(Debug)]
pub struct MemoryClient {
    to_server: mpsc::Sender<Frame>,
    at_client: mpsc::Receiver<Delivered>,
    silent: Arc<AtomicBool>,
    frozen: Arc<AtomicBool>,
}

impl MemoryClient {
    /// Sends a frame; waits while the session doesn't read. `false`: the session is gone.
    pub async fn send(&self, frame: Frame) -> bool {
        self.to_server.send(frame).await.is_ok()
    }

    /// Sends JSON text.
    pub async fn message(&self, json: impl Into<Bytes>) -> bool {
        self.send(Frame::Message(json.into())).await
    }

    /// Ends in order.
    pub async fn close(&self) -> bool {
        self.send(Frame::Closed(u32::from(CloseCode::Normal.number()))).await
    }

    /// Stays connected without a sign of life: pings are not answered any more.
    pub fn go_silent(&self) {
        self.silent.store(true, Ordering::Relaxed);
    }

    /// Stays connected as a page in the back/forward cache does: its network stack answers pings, the page nothing.
    pub fn freeze(&self) {
        self.frozen.store(true, Ordering::Relaxed);
    }

    /// The next thing from the server; `None` after the end.
    pub async fn recv(&mut self) -> Option<Delivered> {
        self.at_client.recv().await
    }

    /// The next thing, if it is there already.
    pub fn try_recv(&mut self) -> Option<Delivered> {
        self.at_client.try_recv().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn frames_arrive_in_order_both_ways() {
        let (server, mut client) = pair();
        let (mut inbound, mut outbound) = server.split();
        assert!(client.message("a").await && client.send(Frame::Compact("b".into())).await);
        assert!(matches!(inbound.next().await.unwrap(), Frame::Message(bytes) if bytes == "a"));
        assert!(matches!(inbound.next().await.unwrap(), Frame::Compact(bytes) if bytes == "b"));

        let mut frames = vec![Outgoing::Message("c".into()), Outgoing::Compact(b"d"[..].into()), Outgoing::Drain];
        outbound.send(&mut frames).await.unwrap();
        assert!(frames.is_empty());
        outbound.close(CloseCode::Kicked, "bye").await;
        let closed = Delivered::Closed { code: CloseCode::Kicked, reason: "bye".into() };
        for expected in [Delivered::Message("c".into()), Delivered::Compact("d".into()), Delivered::Drain, closed] {
            assert_eq!(client.recv().await, Some(expected));
        }
        assert_eq!(client.recv().await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_client_is_a_lost_connection_and_a_silent_one_answers_no_ping() {
        let (server, client) = pair();
        let (mut inbound, mut outbound) = server.split();
        outbound.send(&mut vec![Outgoing::Ping]).await.unwrap();
        assert!(matches!(inbound.next().await.unwrap(), Frame::Alive { rtt: Some(_) }));
        client.go_silent();
        outbound.send(&mut vec![Outgoing::Ping]).await.unwrap();
        assert!(tokio::time::timeout(Duration::from_secs(60), inbound.next()).await.is_err());
        drop(client);
        assert!(matches!(inbound.next().await, Err(TransportError::Lost(_))));
        assert!(matches!(outbound.send(&mut vec![Outgoing::Ping]).await, Err(TransportError::Lost(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_makes_messages_wait_and_loses_compact_frames() {
        let (server, mut client) = pair();
        let (_inbound, mut outbound) = server.split();
        let mut fill: Vec<_> = (0..CAPACITY).map(|_| Outgoing::Message("m".into())).collect();
        outbound.send(&mut fill).await.unwrap();
        outbound.send(&mut vec![Outgoing::Compact(b"lost"[..].into())]).await.unwrap();
        let mut one_more = vec![Outgoing::Message("waits".into())];
        assert!(tokio::time::timeout(Duration::from_secs(9), outbound.send(&mut one_more)).await.is_err());
        let mut seen = 0;
        while let Some(delivered) = client.try_recv() {
            assert_eq!(delivered, Delivered::Message("m".into()));
            seen += 1;
        }
        assert_eq!(seen, CAPACITY);
    }
}
