//! A hostile client: WebSocket from an address of its own on loopback, no manners.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tandem::clock::Clock;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::support::server::Place;

/// No step of an attack takes longer.
const STEP: Duration = Duration::from_secs(5);

pub(crate) struct Attacker {
    stream: WebSocketStream<TcpStream>,
    /// Codes of ERROR so far.
    pub(crate) refused: Vec<String>,
    /// ACKs so far.
    pub(crate) taken: usize,
}

/// A TCP connection from that address.
pub(crate) async fn tcp(place: &Place, from: [u8; 4]) -> Option<TcpStream> {
    let socket = TcpSocket::new_v4().ok()?;
    socket.bind(SocketAddr::new(IpAddr::from(from), 0)).ok()?;
    timeout(STEP, socket.connect(place.plain)).await.ok()?.ok()
}

impl Attacker {
    /// `None`: it was not let in.
    pub(crate) async fn connect(place: &Place, from: [u8; 4]) -> Option<Self> {
        let stream = tcp(place, from).await?;
        let url = format!("ws://{}/ws", place.plain);
        let (stream, _) = timeout(STEP, tokio_tungstenite::client_async(url, stream)).await.ok()?.ok()?;
        Some(Self { stream, refused: Vec::new(), taken: 0 })
    }

    /// Connects and joins; `extra` adds to JOIN.
    pub(crate) async fn join(place: &Place, from: [u8; 4], room: &str, user: &str, extra: Value) -> Option<Self> {
        let mut attacker = Self::connect(place, from).await?;
        attacker.say_join(room, user, extra).await;
        attacker.wait_for("ROOM_STATE").await.map(|_| attacker)
    }

    pub(crate) async fn say_join(&mut self, room: &str, user: &str, extra: Value) -> bool {
        let mut join = json!({"type": "JOIN", "protocol": 3, "roomId": room, "userId": user});
        for (name, value) in extra.as_object().into_iter().flatten() {
            join[name] = value.clone();
        }
        if join["protocol"].is_null() {
            join.as_object_mut().unwrap().remove("protocol");
        }
        self.say(&join).await
    }

    /// False: the connection is gone, or takes nothing.
    pub(crate) async fn say(&mut self, message: &Value) -> bool {
        matches!(timeout(STEP, self.stream.send(Message::text(message.to_string()))).await, Ok(Ok(())))
    }

    /// The next message within `patience`; notes refusals.
    pub(crate) async fn next(&mut self, patience: Duration) -> Option<Value> {
        loop {
            match timeout(patience, self.stream.next()).await {
                Ok(Some(Ok(Message::Text(text)))) => {
                    let message: Value = serde_json::from_str(&text).ok()?;
                    self.taken += usize::from(message["type"] == "ACK");
                    self.refused.extend(message["code"].as_str().map(str::to_owned));
                    return Some(message);
                }
                Ok(Some(Ok(Message::Close(_)) | Err(_)) | None) | Err(_) => return None,
                Ok(Some(Ok(_))) => {}
            }
        }
    }

    /// The next of this type; ERROR ends the wait.
    pub(crate) async fn wait_for(&mut self, kind: &str) -> Option<Value> {
        let until = Clock::instant() + STEP;
        while let Some(message) = self.next(until.saturating_duration_since(Clock::instant())).await {
            if message["type"] == kind {
                return Some(message);
            }
            if message["type"] == "ERROR" {
                return None;
            }
        }
        None
    }

    /// Reads what is there.
    pub(crate) async fn read_up(&mut self) {
        while self.next(Duration::from_millis(1)).await.is_some() {}
    }

    /// Refusals with this code.
    pub(crate) fn refusals(&self, code: &str) -> usize {
        self.refused.iter().filter(|refused| *refused == code).count()
    }

    /// Bytes past the WebSocket library, as they are.
    pub(crate) async fn raw(&mut self, bytes: &[u8]) -> bool {
        matches!(timeout(STEP, self.stream.get_mut().write_all(bytes)).await, Ok(Ok(())))
    }

    /// The connection goes away without a word: reset, not closed.
    pub(crate) fn reset(self) {
        let _ = self.stream.get_ref().set_zero_linger();
    }
}
