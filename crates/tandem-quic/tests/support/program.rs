//! What both servers do, written once for both drivers.

use std::future::Future;

use bytes::Bytes;
use tandem_quic::{ConnectionError, VarInt};

use super::digest;

/// Echoes are sent with this mask, so that nobody takes a reflected packet for an answer.
pub(crate) const MASK: u8 = 0x5a;
/// A flood of the server's, which the client stops.
const FLOOD: usize = 4 << 20;

pub(crate) fn echo() -> Vec<u8> {
    vec![b'E', 0, 0, 0, 0]
}

pub(crate) fn flood() -> Vec<u8> {
    vec![b'F', 0, 0, 0, 0]
}

pub(crate) fn reset(code: u32) -> Vec<u8> {
    [&[b'R'][..], &code.to_be_bytes()].concat()
}

pub(crate) fn stop(code: u32) -> Vec<u8> {
    [&[b'S'][..], &code.to_be_bytes()].concat()
}

pub(crate) fn close(code: u32, reason: &[u8]) -> Vec<u8> {
    [&[b'C'][..], &code.to_be_bytes(), reason].concat()
}

/// A connection of either driver.
pub(crate) trait Connection: Clone + Send + Sync + 'static {
    type Send: SendHalf;
    type Recv: RecvHalf;
    fn accept_bi(&self) -> impl Future<Output = Option<(Self::Send, Self::Recv)>> + Send;
    fn accept_uni(&self) -> impl Future<Output = Option<Self::Recv>> + Send;
    fn open_uni(&self) -> impl Future<Output = Option<Self::Send>> + Send;
    fn read_datagram(&self) -> impl Future<Output = Option<Bytes>> + Send;
    fn send_datagram(&self, datagram: Bytes) -> impl Future<Output = ()> + Send;
    fn close(&self, code: VarInt, reason: &[u8]);
    fn closed(&self) -> impl Future<Output = ConnectionError> + Send;
}

pub(crate) trait SendHalf: Send + 'static {
    /// `Some`: the peer has stopped the stream, or the connection is over.
    fn write(&mut self, bytes: Bytes) -> impl Future<Output = Option<End>> + Send;
    fn finish(&mut self);
    fn reset(&mut self, code: VarInt);
}

pub(crate) trait RecvHalf: Send + 'static {
    fn read(&mut self) -> impl Future<Output = Result<Bytes, End>> + Send;
    fn stop(&mut self, code: VarInt);
}

/// How half a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Finished,
    Reset(VarInt),
    Stopped(VarInt),
    Lost,
}

/// Serves a connection; returns how it ended.
pub(crate) async fn serve<C: Connection>(connection: C) -> String {
    let streams = async {
        while let Some((send, recv)) = connection.accept_bi().await {
            tokio::spawn(bidirectional(connection.clone(), send, recv));
        }
    };
    let uploads = async {
        while let Some(mut recv) = connection.accept_uni().await {
            let connection = connection.clone();
            tokio::spawn(async move {
                let mut all = Vec::new();
                while let Ok(bytes) = recv.read().await {
                    all.extend_from_slice(&bytes);
                }
                report(&connection, format!("{} bytes, {:x}", all.len(), digest(&all))).await;
            });
        }
    };
    let datagrams = async {
        while let Some(datagram) = connection.read_datagram().await {
            connection.send_datagram(datagram.iter().map(|byte| byte ^ MASK).collect()).await;
        }
    };
    tokio::join!(streams, uploads, datagrams);
    format!("{:?}", connection.closed().await)
}

async fn report<C: Connection>(connection: &C, text: String) {
    if let Some(mut send) = connection.open_uni().await {
        send.write(text.into()).await;
        send.finish();
    }
}

async fn bidirectional<C: Connection>(connection: C, mut send: C::Send, mut recv: C::Recv) {
    let mut head = Vec::new();
    while head.len() < 5 {
        match recv.read().await {
            Ok(bytes) => head.extend_from_slice(&bytes),
            Err(_) => return,
        }
    }
    let rest = head.split_off(5);
    let code = VarInt::from_u32(u32::from_be_bytes(head[1..].try_into().unwrap()));
    match head[0] {
        b'E' => {
            let mut next = Ok(Bytes::from(rest));
            let end = loop {
                match next {
                    Ok(bytes) => {
                        let masked = bytes.iter().map(|byte| byte ^ MASK).collect();
                        if let Some(end) = send.write(masked).await {
                            break end;
                        }
                    }
                    Err(end) => break end,
                }
                next = recv.read().await;
            };
            match end {
                End::Finished => send.finish(),
                End::Lost => {}
                end => report(&connection, format!("{end:?}")).await,
            }
        }
        b'F' => {
            for _ in 0..FLOOD / 1000 {
                if let Some(end) = send.write(Bytes::from_static(&[7; 1000])).await {
                    return report(&connection, format!("{end:?}")).await;
                }
            }
        }
        b'R' => send.reset(code),
        b'S' => recv.stop(code),
        b'C' => {
            let mut reason = rest;
            while let Ok(bytes) = recv.read().await {
                reason.extend_from_slice(&bytes);
            }
            connection.close(code, &reason);
        }
        other => panic!("no command: {other}"),
    }
}
