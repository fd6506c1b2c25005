//! The two halves of a stream.

use std::future::{Future, poll_fn};
use std::task::{Context, Poll};

use bytes::Bytes;
use quinn_proto::{ClosedStream, ConnectionError, FinishError, StreamId, VarInt};

use crate::connection::{QuicConnection, StreamWait};

/// Why a write to a stream failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WriteError {
    /// The peer has sent STOP_SENDING (RFC 9000 §19.5) with this code.
    #[error("stopped by the peer with {0}")]
    Stopped(VarInt),
    /// The stream was finished or reset by this side.
    #[error("the stream is over")]
    Closed,
    /// The connection is over.
    #[error(transparent)]
    ConnectionLost(ConnectionError),
}

/// Why a read of a stream failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// The peer has sent RESET_STREAM (RFC 9000 §19.4) with this code.
    #[error("reset by the peer with {0}")]
    Reset(VarInt),
    /// The connection is over.
    #[error(transparent)]
    ConnectionLost(ConnectionError),
}

/// The sending half of a stream. Dropping it finishes the stream.
#[derive(Debug)]
pub struct SendStream {
    connection: QuicConnection,
    id: StreamId,
}

impl SendStream {
    pub(super) fn new(connection: QuicConnection, id: StreamId) -> Self {
        Self { connection, id }
    }

    /// The stream's number in the connection.
    pub fn id(&self) -> StreamId {
        self.id
    }

    /// Writes a prefix of `bytes`, as long as flow control allows, and returns its length.
    pub fn poll_write(&mut self, context: &Context<'_>, bytes: &[u8]) -> Poll<Result<usize, WriteError>> {
        self.poll_with(context, |stream| stream.write(bytes))
    }

    /// Writes all chunks without copying them. A written chunk is replaced by an empty one.
    pub async fn write_all_chunks(&mut self, chunks: &mut [Bytes]) -> Result<(), WriteError> {
        let mut left = chunks;
        while !left.is_empty() {
            let written = poll_fn(|context| self.poll_with(context, |stream| stream.write_chunks(left))).await?;
            left = &mut left[written.chunks..];
        }
        Ok(())
    }

    fn poll_with<T>(
        &mut self,
        context: &Context<'_>,
        write: impl FnOnce(&mut quinn_proto::SendStream<'_>) -> Result<T, quinn_proto::WriteError>,
    ) -> Poll<Result<T, WriteError>> {
        use quinn_proto::WriteError as Refused;
        let id = self.id;
        self.connection.with(|state| {
            if let Some(error) = state.error() {
                return (Poll::Ready(Err(WriteError::ConnectionLost(error))), false);
            }
            let failed = match write(&mut state.proto.send_stream(id)) {
                Ok(written) => return (Poll::Ready(Ok(written)), true),
                Err(Refused::Blocked) => {
                    state.wait(id, StreamWait::Write, context.waker());
                    return (Poll::Pending, false);
                }
                Err(Refused::Stopped(code)) => WriteError::Stopped(code),
                Err(Refused::ClosedStream) => WriteError::Closed,
            };
            (Poll::Ready(Err(failed)), false)
        })
    }

    /// Ends the stream: the peer reads its end after the data. Does nothing if the peer has stopped the stream.
    pub fn finish(&mut self) -> Result<(), ClosedStream> {
        let id = self.id;
        self.connection.with(|state| match state.proto.send_stream(id).finish() {
            Ok(()) => (Ok(()), true),
            Err(FinishError::Stopped(_)) => (Ok(()), false),
            Err(FinishError::ClosedStream) => (Err(ClosedStream::default()), false),
        })
    }

    /// Abandons the stream with an application error code: data that wasn't sent yet is dropped.
    pub fn reset(&mut self, code: VarInt) -> Result<(), ClosedStream> {
        let id = self.id;
        self.connection.with(|state| {
            let reset = state.proto.send_stream(id).reset(code);
            let done = reset.is_ok();
            (reset, done)
        })
    }

    /// Resolves when the peer has acknowledged everything up to the end, has stopped the stream, or is gone.
    pub fn stopped(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        let (connection, id) = (self.connection.clone(), self.id);
        poll_fn(move |context| {
            connection.with(|state| match state.proto.send_stream(id).stopped() {
                Ok(None) if state.is_open() => {
                    state.wait(id, StreamWait::Stopped, context.waker());
                    (Poll::Pending, false)
                }
                _ => (Poll::Ready(()), false),
            })
        })
    }
}

impl Drop for SendStream {
    fn drop(&mut self) {
        let id = self.id;
        self.connection.with(|state| {
            state.forget(id, |wait| wait == StreamWait::Write);
            if !state.is_open() {
                return ((), false);
            }
            match state.proto.send_stream(id).finish() {
                Ok(()) => ((), true),
                // The answer to STOP_SENDING, which frees the stream (RFC 9000 §3.5).
                Err(FinishError::Stopped(code)) => ((), state.proto.send_stream(id).reset(code).is_ok()),
                Err(FinishError::ClosedStream) => ((), false),
            }
        });
    }
}

/// The receiving half of a stream. Dropping it before its end stops the stream with code 0.
#[derive(Debug)]
pub struct RecvStream {
    connection: QuicConnection,
    id: StreamId,
    over: bool,
}

impl RecvStream {
    pub(super) fn new(connection: QuicConnection, id: StreamId) -> Self {
        Self { connection, id, over: false }
    }

    /// The stream's number in the connection.
    pub fn id(&self) -> StreamId {
        self.id
    }

    /// The next bytes, at most `max` of them; `None` at the end.
    pub fn poll_chunk(&mut self, context: &Context<'_>, max: usize) -> Poll<Result<Option<Bytes>, ReadError>> {
        use quinn_proto::ReadError as Failed;
        if self.over {
            return Poll::Ready(Ok(None));
        }
        let id = self.id;
        let read = self.connection.with(|state| {
            let mut stream = state.proto.recv_stream(id);
            // Fails for a stream that is over or that was read out of order: neither gets here.
            let Ok(mut chunks) = stream.read(true) else { return (Poll::Ready(Ok(None)), false) };
            let next = chunks.next(max);
            // Reading may make a MAX_DATA or MAX_STREAM_DATA frame due.
            let changed = chunks.finalize().should_transmit();
            let read = match next {
                Ok(chunk) => Poll::Ready(Ok(chunk.map(|chunk| chunk.bytes))),
                Err(Failed::Reset(code)) => Poll::Ready(Err(ReadError::Reset(code))),
                Err(Failed::Blocked) => match state.error() {
                    Some(error) => Poll::Ready(Err(ReadError::ConnectionLost(error))),
                    None => {
                        state.wait(id, StreamWait::Read, context.waker());
                        Poll::Pending
                    }
                },
            };
            (read, changed)
        });
        self.over = matches!(read, Poll::Ready(Ok(None) | Err(ReadError::Reset(_))));
        read
    }

    /// The next bytes, at most `max` of them; `None` at the end.
    pub async fn chunk(&mut self, max: usize) -> Result<Option<Bytes>, ReadError> {
        poll_fn(|context| self.poll_chunk(context, max)).await
    }

    /// Asks the peer to stop sending, with an application error code.
    pub fn stop(&mut self, code: VarInt) -> Result<(), ClosedStream> {
        let id = self.id;
        let stopped = self.connection.with(|state| {
            state.forget(id, |wait| wait == StreamWait::Read);
            let stopped = state.proto.recv_stream(id).stop(code);
            let done = stopped.is_ok();
            (stopped, done)
        });
        self.over |= stopped.is_ok();
        stopped
    }
}

impl Drop for RecvStream {
    fn drop(&mut self) {
        if !self.over && self.connection.with(|state| (state.is_open(), false)) {
            // Fails only for a stream that has ended.
            let _ = self.stop(VarInt::from_u32(0));
        }
    }
}
