//! A WebSocket client as small as it can be: frames of a server of ours, nothing else. Buffers are shared by all
//! connections, so that ten thousand idle ones cost this process little.

use std::cell::RefCell;
use std::net::SocketAddr;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Mutex;

use super::wire::Incoming;

const SCRATCH: usize = 64 << 10;
/// Any mask is as good as another for the server's work; the standard only forbids one that an attacker can guess.
const MASK: [u8; 4] = [0x5a, 0xa5, 0x3c, 0xc3];

const TEXT: u8 = 1;
const BINARY: u8 = 2;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

thread_local! {
    static READ: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH]);
}

/// An open connection.
#[derive(Debug)]
pub(crate) struct WsLink {
    stream: TcpStream,
    /// Held for a whole frame.
    writing: Mutex<()>,
    /// Bytes that came with the answer to the upgrade.
    early: std::sync::Mutex<Vec<u8>>,
}

impl WsLink {
    pub(crate) async fn connect(address: SocketAddr, path: &str) -> Result<Self> {
        let mut stream = TcpStream::connect(address).await.with_context(|| format!("connecting to {address}"))?;
        stream.set_nodelay(true)?;
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        let end = loop {
            if let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            if stream.read_buf(&mut answer).await? == 0 || answer.len() > SCRATCH {
                bail!("{address} did not answer the upgrade");
            }
        };
        if !answer.starts_with(b"HTTP/1.1 101") {
            let line = answer.split(|byte| *byte == b'\r').next().unwrap_or_default();
            bail!("{address}{path} refused the upgrade: {}", String::from_utf8_lossy(line));
        }
        let early = answer.split_off(end);
        Ok(Self { stream, writing: Mutex::new(()), early: std::sync::Mutex::new(early) })
    }

    pub(crate) async fn message(&self, text: &[u8]) -> Result<()> {
        self.frame(TEXT, text).await
    }

    pub(crate) async fn compact(&self, bytes: &[u8]) -> Result<()> {
        self.frame(BINARY, bytes).await
    }

    async fn frame(&self, opcode: u8, payload: &[u8]) -> Result<()> {
        let mut frame = Vec::with_capacity(payload.len() + 14);
        frame.push(0x80 | opcode);
        match payload.len() {
            short @ 0..126 => frame.push(0x80 | short as u8),
            long @ 126..65_536 => {
                frame.push(0x80 | 126);
                frame.extend((long as u16).to_be_bytes());
            }
            too_long => bail!("a frame of {too_long} bytes"),
        }
        frame.extend(MASK);
        frame.extend(payload.iter().enumerate().map(|(index, byte)| byte ^ MASK[index % 4]));
        let _writing = self.writing.lock().await;
        let mut rest = &frame[..];
        while !rest.is_empty() {
            match self.stream.try_write(rest) {
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => self.stream.writable().await?,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Reads until the connection ends; pings are answered.
    pub(crate) async fn read(&self, hear: &mut impl FnMut(Incoming<'_>)) -> Result<()> {
        let mut kept = std::mem::take(&mut *self.early.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        let mut pongs = Vec::new();
        if !kept.is_empty() {
            let used = parse(&kept, hear, &mut pongs)?;
            kept.drain(..used);
        }
        loop {
            self.stream.readable().await?;
            let read = READ.with_borrow_mut(|scratch| match self.stream.try_read(scratch) {
                Ok(0) => bail!("the server closed the connection"),
                Ok(length) => take(&mut kept, &scratch[..length], hear, &mut pongs),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Ok(()),
                Err(error) => Err(error.into()),
            });
            read?;
            for payload in pongs.drain(..) {
                self.frame(PONG, &payload).await?;
            }
        }
    }
}

/// Frames that are whole are heard; the rest is kept.
fn take(kept: &mut Vec<u8>, new: &[u8], hear: &mut impl FnMut(Incoming<'_>), pongs: &mut Vec<Vec<u8>>) -> Result<()> {
    if kept.is_empty() {
        let used = parse(new, hear, pongs)?;
        kept.extend_from_slice(&new[used..]);
    } else {
        kept.extend_from_slice(new);
        let used = parse(kept, hear, pongs)?;
        kept.drain(..used);
    }
    if kept.is_empty() && kept.capacity() > 0 {
        *kept = Vec::new();
    }
    Ok(())
}

/// Bytes of the whole frames at the start.
fn parse(bytes: &[u8], hear: &mut impl FnMut(Incoming<'_>), pongs: &mut Vec<Vec<u8>>) -> Result<usize> {
    let mut used = 0;
    while let [first, second, rest @ ..] = &bytes[used..] {
        let (head, length) = match *second {
            short @ 0..126 => (2, usize::from(short)),
            126 if rest.len() >= 2 => (4, usize::from(u16::from_be_bytes([rest[0], rest[1]]))),
            127 if rest.len() >= 8 => {
                let length = rest[..8].iter().fold(0, |length, byte| length << 8 | u64::from(*byte));
                (10, usize::try_from(length)?)
            }
            126 | 127 => break,
            _ => bail!("a masked frame from a server"),
        };
        let Some(payload) = bytes[used..].get(head..head + length) else { break };
        used += head + length;
        match first & 0x0f {
            _ if first & 0x80 == 0 => bail!("a message in several frames"),
            TEXT => hear(Incoming::Message(payload)),
            BINARY => hear(Incoming::Compact(payload)),
            PING => pongs.push(payload.to_vec()),
            CLOSE => {
                let code = payload.get(..2).map_or(1005, |code| u16::from_be_bytes([code[0], code[1]]));
                let reason = String::from_utf8_lossy(payload.get(2..).unwrap_or_default());
                bail!("the server closed with {code}: {reason}");
            }
            _ => {}
        }
    }
    Ok(used)
}
