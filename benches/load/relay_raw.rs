//! The strongest limit for WebSocket that we can write: no library between the socket and the room.
//!
//! A text message's frame is made once and shared. Reader and writer are tasks of their own; the writer puts all that
//! waits into one buffer and gives it to the socket in one write. Nothing is bounded, checked or answered: no pings, no
//! UTF-8, no closing handshake. A product can't leave those out, so tandem is not expected to reach it.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Result, ensure};
use bytes::{BufMut, Bytes, BytesMut};
use parking_lot::{Mutex, RwLock};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_util::task::TaskTracker;

use super::{relays, wire};

const SCRATCH: usize = 64 << 10;
/// Frames that the writer takes at once.
const BATCH: usize = 1024;
const TEXT: u8 = 0x81;

type Sender = mpsc::UnboundedSender<Bytes>;
type Room = RwLock<Vec<Sender>>;
type Rooms = Arc<Mutex<HashMap<String, Arc<Room>>>>;

/// Serves until it is killed.
pub(crate) async fn serve(address: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(address).await?;
    relays::announce(listener.local_addr()?);
    let (rooms, tasks) = (Rooms::default(), TaskTracker::new());
    loop {
        let (stream, _) = listener.accept().await?;
        let (rooms, writers) = (Arc::clone(&rooms), tasks.clone());
        tasks.spawn(async move {
            // A client that leaves is no news.
            let _ = relay(stream, rooms, &writers).await;
        });
    }
}

async fn relay(mut stream: TcpStream, rooms: Rooms, tasks: &TaskTracker) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut input = BytesMut::with_capacity(SCRATCH);
    upgrade(&mut stream, &mut input).await?;
    let (mut reads, writes) = stream.into_split();
    let join = message(&mut reads, &mut input).await?;
    let name = wire::field(&join, "roomId").unwrap_or_default().to_owned();
    let room = Arc::clone(rooms.lock().entry(name).or_default());
    #[expect(clippy::disallowed_methods, reason = "a bare relay has no bounds")]
    let (sender, inbox) = mpsc::unbounded_channel();
    room.write().push(sender.clone());
    let _ = sender.send(frame(relays::JOINED.as_bytes()));
    tasks.spawn(write(writes, inbox));
    while let Ok(text) = message(&mut reads, &mut input).await {
        let frame = frame(&text);
        for member in &*room.read() {
            let _ = member.send(frame.clone());
        }
    }
    room.write().retain(|member| !member.same_channel(&sender));
    Ok(())
}

async fn write(mut socket: OwnedWriteHalf, mut inbox: mpsc::UnboundedReceiver<Bytes>) -> io::Result<()> {
    let (mut waiting, mut buffer) = (Vec::new(), Vec::with_capacity(SCRATCH));
    while inbox.recv_many(&mut waiting, BATCH).await > 0 {
        match &waiting[..] {
            [one] => socket.write_all(one).await?,
            more => {
                buffer.clear();
                more.iter().for_each(|frame| buffer.extend_from_slice(frame));
                socket.write_all(&buffer).await?;
            }
        }
        waiting.clear();
    }
    Ok(())
}

/// Answers the upgrade; what came behind it stays in `input`.
async fn upgrade(stream: &mut TcpStream, input: &mut BytesMut) -> Result<()> {
    let end = loop {
        if let Some(end) = input.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        ensure!(stream.read_buf(input).await? > 0 && input.len() < SCRATCH, "no request");
    };
    let request = input.split_to(end);
    let text = String::from_utf8_lossy(&request);
    let key = text.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("sec-websocket-key").then(|| derive_accept_key(value.trim().as_bytes()))
    });
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {}\r\n\r\n",
        key.unwrap_or_default()
    );
    Ok(stream.write_all(answer.as_bytes()).await?)
}

/// The next text message; other frames are skipped.
async fn message(reads: &mut OwnedReadHalf, input: &mut BytesMut) -> Result<BytesMut> {
    loop {
        while let Some((head, length)) = header(input) {
            if input.len() < head + length {
                break;
            }
            let mut whole = input.split_to(head + length);
            let mut payload = whole.split_off(head);
            let mask = [whole[head - 4], whole[head - 3], whole[head - 2], whole[head - 1]];
            payload.iter_mut().enumerate().for_each(|(index, byte)| *byte ^= mask[index % 4]);
            if whole[0] == TEXT {
                return Ok(payload);
            }
        }
        ensure!(reads.read_buf(input).await? > 0, "the client is gone");
    }
}

/// Lengths of a masked frame's head and payload.
fn header(input: &[u8]) -> Option<(usize, usize)> {
    match input.get(1)? & 0x7f {
        short @ 0..126 => Some((6, usize::from(short))),
        126 => Some((8, usize::from(u16::from_be_bytes([*input.get(2)?, *input.get(3)?])))),
        _ => {
            let bytes: [u8; 8] = input.get(2..10)?.try_into().ok()?;
            Some((14, usize::try_from(u64::from_be_bytes(bytes)).ok()?))
        }
    }
}

fn frame(payload: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(payload.len() + 10);
    frame.put_u8(TEXT);
    match payload.len() {
        short @ 0..126 => frame.put_u8(short as u8),
        long @ 126..65_536 => {
            frame.put_u8(126);
            frame.put_u16(long as u16);
        }
        longest => {
            frame.put_u8(127);
            frame.put_u64(longest as u64);
        }
    }
    frame.put_slice(payload);
    frame.freeze()
}
