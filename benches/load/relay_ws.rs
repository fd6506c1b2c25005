//! The limit for WebSocket with a library: axum, rooms, and nothing else. Every text message goes to all members of its
//! sender's room.
//!
//! A member's waiting messages are fed in a batch and flushed once; the text is shared, not copied. A connection is one
//! task with tandem's buffers, or a reader and a writer in tasks of their own with axum's buffers and channels without
//! a bound. The first message names the room, the answer says that the membership is in force.

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
use tokio_util::task::TaskTracker;

use super::{relays, wire};

/// tandem's own buffers.
const READ_BUFFER: usize = 4 << 10;
const WRITE_BUFFER: usize = 16 << 10;
/// Messages that may wait for a member; more are dropped, and show as lost.
const WAITING: usize = 1024;
/// Messages of a batch.
const BATCH: usize = 64;

/// A member's queue.
#[derive(Clone)]
enum Sender {
    Bounded(mpsc::Sender<Utf8Bytes>),
    Unbounded(mpsc::UnboundedSender<Utf8Bytes>),
}

impl Sender {
    fn send(&self, text: Utf8Bytes) {
        match self {
            Self::Bounded(sender) => _ = sender.try_send(text),
            Self::Unbounded(sender) => _ = sender.send(text),
        }
    }

    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Bounded(this), Self::Bounded(other)) => this.same_channel(other),
            (Self::Unbounded(this), Self::Unbounded(other)) => this.same_channel(other),
            _ => false,
        }
    }
}

/// The room's members.
type Room = RwLock<Vec<Sender>>;
type Rooms = Arc<Mutex<HashMap<String, Arc<Room>>>>;

/// Serves until it is killed; a connection is one task, or two.
pub(crate) async fn serve(address: SocketAddr, two_tasks: bool) -> Result<()> {
    let rooms = Rooms::default();
    let route = if two_tasks { get(upgrade_for_two) } else { get(upgrade) };
    let router = Router::new().route("/ws", route).with_state(rooms);
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

async fn upgrade_for_two(upgrade: WebSocketUpgrade, State(rooms): State<Rooms>) -> axum::response::Response {
    upgrade.on_upgrade(|socket| async move {
        let _ = relay_by_two(socket, rooms).await;
    })
}

async fn relay_by_two(socket: WebSocket, rooms: Rooms) -> Result<(), axum::Error> {
    let (mut writes, mut reads) = socket.split();
    let Some(Ok(Message::Text(join))) = reads.next().await else { return Ok(()) };
    let name = wire::field(join.as_bytes(), "roomId").unwrap_or_default().to_owned();
    let room = Arc::clone(rooms.lock().entry(name).or_default());
    #[expect(clippy::disallowed_methods, reason = "a bare relay has no bounds")]
    let (sender, mut inbox) = mpsc::unbounded_channel();
    let sender = Sender::Unbounded(sender);
    room.write().push(sender.clone());
    writes.send(Message::text(relays::JOINED)).await?;
    let writer = TaskTracker::new();
    writer.spawn(async move {
        let mut waiting = Vec::new();
        while inbox.recv_many(&mut waiting, usize::MAX).await > 0 {
            for text in waiting.drain(..) {
                writes.feed(Message::Text(text)).await?;
            }
            writes.flush().await?;
        }
        Ok::<_, axum::Error>(())
    });
    while let Some(Ok(incoming)) = reads.next().await {
        if let Message::Text(text) = incoming {
            room.read().iter().for_each(|member| member.send(text.clone()));
        }
    }
    room.write().retain(|member| !member.is(&sender));
    Ok(())
}

async fn relay(mut socket: WebSocket, rooms: Rooms) -> Result<(), axum::Error> {
    let Some(Ok(Message::Text(join))) = socket.next().await else { return Ok(()) };
    let name = wire::field(join.as_bytes(), "roomId").unwrap_or_default().to_owned();
    let room = Arc::clone(rooms.lock().entry(name).or_default());
    let (sender, mut inbox) = mpsc::channel(WAITING);
    let sender = Sender::Bounded(sender);
    room.write().push(sender.clone());
    socket.send(Message::text(relays::JOINED)).await?;
    let mut batch = Vec::new();
    let ended = loop {
        tokio::select! {
            incoming = socket.next() => match incoming {
                Some(Ok(Message::Text(text))) => {
                    room.read().iter().for_each(|member| member.send(text.clone()));
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
    room.write().retain(|member| !member.is(&sender));
    ended
}

async fn write(socket: &mut WebSocket, batch: &mut Vec<Utf8Bytes>) -> Result<(), axum::Error> {
    for text in batch.drain(..) {
        socket.feed(Message::Text(text)).await?;
    }
    socket.flush().await
}
