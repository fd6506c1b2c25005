//! The reading half of a session.
//!
//! Most arrivals are datagrams, and each wakes the session's task. The session's stream and its end are polled only
//! when they were woken themselves ([`WakerSet`]), because a poll of a stream costs as much as a datagram.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use futures_util::future::BoxFuture;
use tandem_quic::{ConnectionError, QuicConnection, ReadError, RecvStream};
use tandem_wake::WakerSet;
use tokio::sync::{SetOnce, oneshot};
use tokio::time::Sleep;

use crate::connect::ClientEnd;
use crate::message::MessageReader;
use crate::slot::ControlRecv;
use crate::{MAX_DATAGRAM, ObserveWebTransport, SessionError, Violation, WebTransportEvent, varint};

/// Bytes of a read of the stream, at most.
const CHUNK: usize = 64 << 10;
/// A client that closes ends its stream and its session, and the end of the stream may arrive first. The reader waits
/// this long for the session's end, which has the code.
const END_FOLLOWS: Duration = Duration::from_secs(1);

/// Indices in the set of wakers. Polled in this order, so that messages before a close are delivered before it.
const CONTROL: usize = 0;
const END: usize = 1;
const DATAGRAM: usize = 2;

/// A message of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    /// A message of the stream. It may alias the receive buffer: copy it if it is kept.
    Message(Bytes),
    /// A datagram's payload.
    Datagram(Bytes),
    /// The client has closed the session with this code. Nothing follows.
    Closed(u32),
}

/// The reading half of a session.
pub struct SessionReader {
    connection: QuicConnection,
    quarter_id: u64,
    wakers: WakerSet<3>,
    control: ControlReader,
    messages: MessageReader,
    ended: BoxFuture<'static, ClientEnd>,
    observe: ObserveWebTransport,
}

enum ControlReader {
    Awaited(oneshot::Receiver<ControlRecv>),
    Open(RecvStream),
    /// The stream is over; the session ends as said unless the CONNECT stream says otherwise in time.
    Over(Pin<Box<Sleep>>, ControlEnd),
    /// The connection is lost. The CONNECT stream reports the reason.
    Lost,
}

#[derive(Debug, Clone, Copy)]
enum ControlEnd {
    Finished,
    CutShort,
}

/// An event on the session's stream.
enum ControlEvent {
    Opened(ControlRecv),
    Bytes(Bytes),
    Over(ControlEnd),
    Lost,
    /// `END_FOLLOWS` is over.
    NothingFollows(ControlEnd),
}

impl SessionReader {
    pub(crate) fn new(
        connection: QuicConnection,
        quarter_id: u64,
        control: oneshot::Receiver<ControlRecv>,
        message_bytes: usize,
        end: Arc<SetOnce<ClientEnd>>,
        observe: ObserveWebTransport,
    ) -> Self {
        Self {
            quarter_id,
            wakers: WakerSet::default(),
            control: ControlReader::Awaited(control),
            messages: MessageReader::new(message_bytes),
            ended: Box::pin(async move { end.wait().await.clone() }),
            connection,
            observe,
        }
    }

    /// The next message or datagram, or the end. Cancel-safe. After an error or `Closed` nothing follows.
    pub async fn next(&mut self) -> Result<Received, SessionError> {
        poll_fn(|task| self.poll_next(task)).await
    }

    /// The payload of a datagram of this session.
    fn payload(&self, mut datagram: Bytes) -> Option<Bytes> {
        let reason = match varint::take(&mut datagram) {
            Some(id) if id == self.quarter_id && datagram.remaining() <= MAX_DATAGRAM => return Some(datagram),
            Some(id) if id == self.quarter_id => "too_big",
            _ => "unknown_session",
        };
        (self.observe)(WebTransportEvent::DatagramInDropped { reason });
        None
    }

    fn poll_next(&mut self, task: &mut Context<'_>) -> Poll<Result<Received, SessionError>> {
        self.wakers.register(task.waker());
        loop {
            if let Some(message) = self.messages.take()? {
                return Poll::Ready(Ok(Received::Message(message)));
            }
            if let Poll::Ready(event) = self.wakers.poll_if_woken(CONTROL, |context| self.control.poll_next(context)) {
                self.wakers.mark_woken(CONTROL);
                if let Some(end) = self.handle(event) {
                    return Poll::Ready(end);
                }
            } else if let Poll::Ready(end) = self.wakers.poll_if_woken(END, |context| self.ended.as_mut().poll(context))
            {
                return Poll::Ready(match end {
                    ClientEnd::Closed(code) => Ok(Received::Closed(code)),
                    ClientEnd::Failed(error) => Err(error),
                });
            } else {
                match ready!(self.poll_datagram()) {
                    Ok(datagram) => {
                        if let Some(payload) = self.payload(datagram) {
                            return Poll::Ready(Ok(Received::Datagram(payload)));
                        }
                    }
                    Err(_) => self.control = ControlReader::Lost,
                }
            }
        }
    }

    fn poll_datagram(&mut self) -> Poll<Result<Bytes, ConnectionError>> {
        if matches!(self.control, ControlReader::Lost) {
            return Poll::Pending;
        }
        let polled = self.wakers.poll_if_woken(DATAGRAM, |context| self.connection.poll_read_datagram(context));
        let datagram = ready!(polled);
        self.wakers.mark_woken(DATAGRAM);
        Poll::Ready(datagram)
    }

    /// Handles an event of the stream. Returns how the session ends, if it ends by it.
    fn handle(&mut self, event: ControlEvent) -> Option<Result<Received, SessionError>> {
        match event {
            ControlEvent::Opened(control) => {
                self.messages.feed(control.unread);
                self.control = ControlReader::Open(control.stream);
            }
            ControlEvent::Bytes(bytes) => self.messages.feed(bytes),
            ControlEvent::Over(how) => {
                let how = if self.messages.at_boundary() { how } else { ControlEnd::CutShort };
                self.control = ControlReader::Over(Box::pin(tokio::time::sleep(END_FOLLOWS)), how);
            }
            ControlEvent::Lost => self.control = ControlReader::Lost,
            ControlEvent::NothingFollows(ControlEnd::Finished) => return Some(Ok(Received::Closed(0))),
            ControlEvent::NothingFollows(ControlEnd::CutShort) => return Some(Err(Violation::CutShort.into())),
        }
        None
    }
}

impl std::fmt::Debug for SessionReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionReader").field("connection", &self.connection).finish_non_exhaustive()
    }
}

impl ControlReader {
    fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<ControlEvent> {
        Poll::Ready(match self {
            Self::Awaited(control) => match ready!(Pin::new(control).poll(context)) {
                Ok(control) => ControlEvent::Opened(control),
                // The connection's task is gone, and the connection with it.
                Err(_) => ControlEvent::Lost,
            },
            Self::Open(stream) => match ready!(stream.poll_chunk(context, CHUNK)) {
                Ok(Some(bytes)) => ControlEvent::Bytes(bytes),
                Ok(None) => ControlEvent::Over(ControlEnd::Finished),
                Err(ReadError::ConnectionLost(_)) => ControlEvent::Lost,
                Err(ReadError::Reset(_)) => ControlEvent::Over(ControlEnd::CutShort),
            },
            Self::Over(sleep, how) => {
                ready!(sleep.as_mut().poll(context));
                ControlEvent::NothingFollows(*how)
            }
            Self::Lost => return Poll::Pending,
        })
    }
}
