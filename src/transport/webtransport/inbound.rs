//! The reading half of a session.

use std::pin::Pin;
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::sync::{oneshot, watch};
use tokio::time::Sleep;

use super::connect::End;
use super::message::MessageReader;
use super::slot::ControlRecv;
use super::varint;
use crate::domain::CloseCode;
use crate::session::transport::{Frame, Inbound, TransportError};
use crate::telemetry::names;

/// The longest compact message.
const MAX_DATAGRAM: usize = 1000;
/// Longest piece read from the control stream at once.
const CHUNK: usize = 64 << 10;
/// A client that closes ends its control stream and its session, and the first may be seen first: this long we wait
/// for the second, which has the code.
const END_FOLLOWS: Duration = Duration::from_secs(1);

/// Control stream, datagrams and the session's end, in this order.
pub struct WebTransportInbound {
    connection: quinn::Connection,
    quarter_id: u64,
    control: Control,
    messages: MessageReader,
    end: watch::Receiver<Option<End>>,
}

enum Control {
    Awaited(oneshot::Receiver<ControlRecv>),
    Open(quinn::RecvStream),
    /// Over, and how the session ends if nothing says otherwise in time.
    Over(Pin<Box<Sleep>>, ControlEnd),
    /// The connection is lost, which the CONNECT stream reports with the reason.
    Lost,
}

#[derive(Debug, Clone, Copy)]
enum ControlEnd {
    Finished,
    Cut,
}

enum Arrival {
    Control(ControlRecv),
    Bytes(Bytes),
    ControlOver(ControlEnd),
    ControlLost,
    NothingFollows(ControlEnd),
}

impl WebTransportInbound {
    pub(super) fn new(
        connection: quinn::Connection,
        quarter_id: u64,
        control: oneshot::Receiver<ControlRecv>,
        message_bytes: usize,
        end: watch::Receiver<Option<End>>,
    ) -> Self {
        let control = Control::Awaited(control);
        Self { connection, quarter_id, control, messages: MessageReader::new(message_bytes), end }
    }

    /// A datagram's content, if it is one for us.
    fn compact(&self, mut datagram: Bytes) -> Option<Bytes> {
        let reason = match varint::take(&mut datagram) {
            Some(id) if id == self.quarter_id && datagram.remaining() <= MAX_DATAGRAM => return Some(datagram),
            Some(id) if id == self.quarter_id => "too_big",
            _ => "unknown_session",
        };
        metrics::counter!(names::DATAGRAMS_DROPPED, "direction" => "in", "reason" => reason).increment(1);
        None
    }
}

impl Inbound for WebTransportInbound {
    async fn next(&mut self) -> Result<Frame, TransportError> {
        loop {
            if let Some(message) = self.messages.take()? {
                return Ok(Frame::Message(message));
            }
            // In order, so that what a client said before it closed is heard before the close. No branch loses
            // anything when another one wins, or when the call is dropped.
            tokio::select! {
                biased;
                arrival = self.control.next() => match arrival {
                    Arrival::Control(control) => {
                        self.messages.feed(control.unread);
                        self.control = Control::Open(control.quinn);
                    }
                    Arrival::Bytes(bytes) => self.messages.feed(bytes),
                    Arrival::ControlOver(how) => {
                        let how = if self.messages.at_boundary() { how } else { ControlEnd::Cut };
                        self.control = Control::Over(Box::pin(tokio::time::sleep(END_FOLLOWS)), how);
                    }
                    Arrival::ControlLost => self.control = Control::Lost,
                    Arrival::NothingFollows(ControlEnd::Finished) => return Ok(Frame::Closed(0)),
                    Arrival::NothingFollows(ControlEnd::Cut) => {
                        let reason = "the control stream ended inside a message".to_owned();
                        return Err(TransportError::Violation { code: CloseCode::ProtocolError, reason });
                    }
                },
                end = ended(&mut self.end) => return end_frame(end),
                datagram = self.connection.read_datagram(), if !matches!(self.control, Control::Lost) => match datagram {
                    Ok(datagram) => {
                        if let Some(compact) = self.compact(datagram) {
                            return Ok(Frame::Compact(compact));
                        }
                    }
                    Err(_) => self.control = Control::Lost,
                },
            }
        }
    }
}

impl Control {
    async fn next(&mut self) -> Arrival {
        match self {
            Self::Awaited(control) => match control.await {
                Ok(control) => Arrival::Control(control),
                // The connection's task is gone, and the connection with it.
                Err(_) => Arrival::ControlLost,
            },
            Self::Open(stream) => match stream.read_chunk(CHUNK, true).await {
                Ok(Some(chunk)) => Arrival::Bytes(chunk.bytes),
                Ok(None) => Arrival::ControlOver(ControlEnd::Finished),
                Err(quinn::ReadError::ConnectionLost(_)) => Arrival::ControlLost,
                Err(_) => Arrival::ControlOver(ControlEnd::Cut),
            },
            Self::Over(sleep, how) => {
                sleep.await;
                Arrival::NothingFollows(*how)
            }
            Self::Lost => std::future::pending().await,
        }
    }
}

/// The session's end, once there is one.
pub(super) async fn ended(end: &mut watch::Receiver<Option<End>>) -> End {
    match end.wait_for(Option::is_some).await {
        Ok(end) => end.clone().unwrap_or_else(|| End::Lost(String::new())),
        Err(_) => End::Lost("the connection's task is gone".to_owned()),
    }
}

fn end_frame(end: End) -> Result<Frame, TransportError> {
    match end {
        End::Closed(code) => Ok(Frame::Closed(code)),
        End::Lost(reason) => Err(TransportError::Lost(reason)),
        End::Broken(reason) => Err(TransportError::Violation { code: CloseCode::ProtocolError, reason }),
    }
}
