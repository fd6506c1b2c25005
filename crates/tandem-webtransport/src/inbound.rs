//! The reading half of a session.
//!
//! Most of what arrives are datagrams, and each wakes the session: control stream and CONNECT stream are only looked at
//! when they have something ([`Bells`]), for a look at a stream costs as much as a datagram.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::future::BoxFuture;
use tokio::sync::{SetOnce, oneshot};
use tokio::time::Sleep;

use super::connect::End;
use super::message::MessageReader;
use super::slot::ControlRecv;
use super::varint;
use crate::domain::CloseCode;
use crate::rota::Bells;
use crate::session::transport::{Frame, Inbound, TransportError};
use crate::telemetry::names;
use crate::transport::quic;

/// The longest compact message.
const MAX_DATAGRAM: usize = 1000;
/// Longest piece read from the control stream at once.
const CHUNK: usize = 64 << 10;
/// A client that closes ends its control stream and its session, and the first may be seen first: this long we wait
/// for the second, which has the code.
const END_FOLLOWS: Duration = Duration::from_secs(1);

/// Whose bell is whose. In order, so that what a client said before it closed is heard before the close.
const CONTROL: usize = 0;
const END: usize = 1;
const DATAGRAM: usize = 2;

/// Control stream, the session's end and datagrams, in this order.
pub struct WebTransportInbound {
    connection: quic::Connection,
    quarter_id: u64,
    bells: Bells<3>,
    control: Control,
    messages: MessageReader,
    ended: BoxFuture<'static, End>,
}

enum Control {
    Awaited(oneshot::Receiver<ControlRecv>),
    Open(quic::RecvStream),
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
        connection: quic::Connection,
        quarter_id: u64,
        control: oneshot::Receiver<ControlRecv>,
        message_bytes: usize,
        end: Arc<SetOnce<End>>,
    ) -> Self {
        Self {
            quarter_id,
            bells: Bells::default(),
            control: Control::Awaited(control),
            messages: MessageReader::new(message_bytes),
            ended: Box::pin(async move { end.wait().await.clone() }),
            connection,
        }
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
        poll_fn(|task| self.poll_next(task)).await
    }
}

impl WebTransportInbound {
    fn poll_next(&mut self, task: &mut Context<'_>) -> Poll<Result<Frame, TransportError>> {
        self.bells.listen(task.waker());
        loop {
            if let Some(message) = self.messages.take()? {
                return Poll::Ready(Ok(Frame::Message(message)));
            }
            if let Poll::Ready(arrival) = self.poll_control() {
                if let Some(end) = self.arrived(arrival) {
                    return Poll::Ready(end);
                }
            } else if let Poll::Ready(end) = self.poll_end() {
                return Poll::Ready(end_frame(end));
            } else {
                match ready!(self.poll_datagram()) {
                    Ok(datagram) => {
                        if let Some(compact) = self.compact(datagram) {
                            return Poll::Ready(Ok(Frame::Compact(compact)));
                        }
                    }
                    Err(_) => self.control = Control::Lost,
                }
            }
        }
    }

    fn poll_control(&mut self) -> Poll<Arrival> {
        let Some(mut context) = self.bells.rung(CONTROL) else { return Poll::Pending };
        let arrival = ready!(self.control.poll_next(&mut context));
        self.bells.ring(CONTROL);
        Poll::Ready(arrival)
    }

    fn poll_end(&mut self) -> Poll<End> {
        let Some(mut context) = self.bells.rung(END) else { return Poll::Pending };
        self.ended.as_mut().poll(&mut context)
    }

    fn poll_datagram(&mut self) -> Poll<Result<Bytes, quic::ConnectionError>> {
        if matches!(self.control, Control::Lost) {
            return Poll::Pending;
        }
        let Some(context) = self.bells.rung(DATAGRAM) else { return Poll::Pending };
        let datagram = ready!(self.connection.poll_read_datagram(&context));
        self.bells.ring(DATAGRAM);
        Poll::Ready(datagram)
    }

    /// What the control stream brought. `Some`: the session ends by it.
    fn arrived(&mut self, arrival: Arrival) -> Option<Result<Frame, TransportError>> {
        match arrival {
            Arrival::Control(control) => {
                self.messages.feed(control.unread);
                self.control = Control::Open(control.stream);
            }
            Arrival::Bytes(bytes) => self.messages.feed(bytes),
            Arrival::ControlOver(how) => {
                let how = if self.messages.at_boundary() { how } else { ControlEnd::Cut };
                self.control = Control::Over(Box::pin(tokio::time::sleep(END_FOLLOWS)), how);
            }
            Arrival::ControlLost => self.control = Control::Lost,
            Arrival::NothingFollows(ControlEnd::Finished) => return Some(Ok(Frame::Closed(0))),
            Arrival::NothingFollows(ControlEnd::Cut) => {
                let reason = "the control stream ended inside a message".to_owned();
                return Some(Err(TransportError::Violation { code: CloseCode::ProtocolError, reason }));
            }
        }
        None
    }
}

impl Control {
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Arrival> {
        Poll::Ready(match self {
            Self::Awaited(control) => match ready!(Pin::new(control).poll(context)) {
                Ok(control) => Arrival::Control(control),
                // The connection's task is gone, and the connection with it.
                Err(_) => Arrival::ControlLost,
            },
            Self::Open(stream) => match ready!(stream.poll_chunk(context, CHUNK)) {
                Ok(Some(bytes)) => Arrival::Bytes(bytes),
                Ok(None) => Arrival::ControlOver(ControlEnd::Finished),
                Err(quic::ReadError::ConnectionLost(_)) => Arrival::ControlLost,
                Err(_) => Arrival::ControlOver(ControlEnd::Cut),
            },
            Self::Over(sleep, how) => {
                ready!(sleep.as_mut().poll(context));
                Arrival::NothingFollows(*how)
            }
            Self::Lost => return Poll::Pending,
        })
    }
}

fn end_frame(end: End) -> Result<Frame, TransportError> {
    match end {
        End::Closed(code) => Ok(Frame::Closed(code)),
        End::Lost(reason) => Err(TransportError::Lost(reason)),
        End::Broken(reason) => Err(TransportError::Violation { code: CloseCode::ProtocolError, reason }),
    }
}
