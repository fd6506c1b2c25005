//! The limit for WebSocket: axum, rooms, and nothing else. Every text message goes to all members of its sender's room.
//!
//! One task a connection; what waits for a member is fed in a batch and flushed once; the text is shared, not copied.
//! The first message names the room, the answer says that the membership is in force.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Result;
use axum::Router;
use axum::extract::State;
use axum::extract::ws::{Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::routing::get;
use axum::serve::ListenerExt;
use futures_util::{SinkExt, StreamExt};
use parking_lot::{Mutex, RwLock};
use tokio::sync::mpsc;

use super::{relays, wire};

/// tandem's own buffers.
const READ_BUFFER: usize = 4 << 10;
const WRITE_BUFFER: usize = 16 << 10;
/// Messages that may wait for a member; more are dropped, and show as lost.
const WAITING: usize = 1024;
/// Messages of a batch.
const BATCH: usize = 64;

type Sender = mpsc::Sender<Utf8Bytes>;
/// The room's members.
type Room = RwLock<Vec<Sender>>;
type Rooms = Arc<Mutex<HashMap<String, Arc<Room>>>>;

/// Serves until it is killed.
pub(crate) async fn serve(address: SocketAddr) -> Result<()> {
    let rooms = Rooms::default();
    let router = Router::new().route("/ws", get(upgrade)).with_state(rooms);
    let listener = tokio::net::TcpListener::bind(address).await?;
    relays::announce(listener.local_addr()?);
    let listener = listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    Ok(axum::serve(listener, router).await?)
}

async fn upgrade(upgrade: WebSocketUpgrade, State(rooms): State<Rooms>) -> axum::response::Response {
    let upgrade = upgrade.read_buffer_size(READ_BUFFER).write_buffer_size(WRITE_BUFFER);
    upgrade.on_upgrade(|socket| async move {
        // A client that leaves is no news.
        let _ = relay(socket, rooms).await;
    })
}

async fn relay(mut socket: WebSocket, rooms: Rooms) -> Result<(), axum::Error> {
    let Some(Ok(Message::Text(join))) = socket.next().await else { return Ok(()) };
    let name = wire::field(join.as_bytes(), "roomId").unwrap_or_default().to_owned();
    let room = Arc::clone(rooms.lock().entry(name).or_default());
    let (sender, mut inbox) = mpsc::channel(WAITING);
    room.write().push(sender.clone());
    socket.send(Message::text(relays::JOINED)).await?;
    let mut batch = Vec::new();
    let ended = loop {
        tokio::select! {
            incoming = socket.next() => match incoming {
                Some(Ok(Message::Text(text))) => {
                    for member in &*room.read() {
                        let _ = member.try_send(text.clone());
                    }
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => break Err(error),
                None => break Ok(()),
            },
            _ = inbox.recv_many(&mut batch, BATCH) => {
                if let Err(error) = write(&mut socket, &mut batch).await {
                    break Err(error);
                }
            }
        }
    };
    room.write().retain(|member| !member.same_channel(&sender));
    ended
}

async fn write(socket: &mut WebSocket, batch: &mut Vec<Utf8Bytes>) -> Result<(), axum::Error> {
    for text in batch.drain(..) {
        socket.feed(Message::Text(text)).await?;
    }
    socket.flush().await
}
