//! The two halves of a stream.

use std::future::{Future, poll_fn};
use std::task::{Context, Poll};

use bytes::Bytes;
use quinn_proto::{ClosedStream, ConnectionError, FinishError, StreamId, VarInt};

use super::connection::{Connection, Wait};

/// Why a write failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WriteError {
    /// The peer wants no more.
    #[error("stopped by the peer with {0}")]
    Stopped(VarInt),
    /// The stream was ended here.
    #[error("the stream is over")]
    Closed,
    /// The connection is over.
    #[error(transparent)]
    ConnectionLost(ConnectionError),
}

/// Why a read failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    /// The peer gave it up.
    #[error("reset by the peer with {0}")]
    Reset(VarInt),
    /// The connection is over.
    #[error(transparent)]
    ConnectionLost(ConnectionError),
}

/// A sending half. Dropped, it is finished.
#[derive(Debug)]
pub struct SendStream {
    connection: Connection,
    id: StreamId,
}

impl SendStream {
    pub(super) fn new(connection: Connection, id: StreamId) -> Self {
        Self { connection, id }
    }

    /// Its number in the connection.
    pub fn id(&self) -> StreamId {
        self.id
    }

    /// Takes the first bytes, as many as there is place for.
    pub fn poll_write(&mut self, context: &Context<'_>, bytes: &[u8]) -> Poll<Result<usize, WriteError>> {
        self.poll_with(context, |stream| stream.write(bytes))
    }

    /// Writes all chunks, without copying them. They are taken out of `chunks` one after the other.
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
                    state.wait(id, Wait::Write, context.waker());
                    return (Poll::Pending, false);
                }
                Err(Refused::Stopped(code)) => WriteError::Stopped(code),
                Err(Refused::ClosedStream) => WriteError::Closed,
            };
            (Poll::Ready(Err(failed)), false)
        })
    }

    /// Says that this was all. Nothing happens where the peer wants no more.
    pub fn finish(&mut self) -> Result<(), ClosedStream> {
        let id = self.id;
        self.connection.with(|state| match state.proto.send_stream(id).finish() {
            Ok(()) => (Ok(()), true),
            Err(FinishError::Stopped(_)) => (Ok(()), false),
            Err(FinishError::ClosedStream) => (Err(ClosedStream::default()), false),
        })
    }

    /// Gives up: what the peer doesn't have yet isn't sent.
    pub fn reset(&mut self, code: VarInt) -> Result<(), ClosedStream> {
        let id = self.id;
        self.connection.with(|state| {
            let reset = state.proto.send_stream(id).reset(code);
            let done = reset.is_ok();
            (reset, done)
        })
    }

    /// Resolves when the peer has acknowledged everything up to the end, wants no more, or is gone.
    pub fn stopped(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        let (connection, id) = (self.connection.clone(), self.id);
        poll_fn(move |context| {
            connection.with(|state| match state.proto.send_stream(id).stopped() {
                Ok(None) if state.is_open() => {
                    state.wait(id, Wait::Stopped, context.waker());
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
            state.forget(id, |wait| wait == Wait::Write);
            if !state.is_open() {
                return ((), false);
            }
            match state.proto.send_stream(id).finish() {
                Ok(()) => ((), true),
                // It says so back, which frees the stream.
                Err(FinishError::Stopped(code)) => ((), state.proto.send_stream(id).reset(code).is_ok()),
                Err(FinishError::ClosedStream) => ((), false),
            }
        });
    }
}

/// A receiving half. Dropped before its end, it is stopped.
#[derive(Debug)]
pub struct RecvStream {
    connection: Connection,
    id: StreamId,
    over: bool,
}

impl RecvStream {
    pub(super) fn new(connection: Connection, id: StreamId) -> Self {
        Self { connection, id, over: false }
    }

    /// Its number in the connection.
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
            // Fails for a stream that is over, and one that was read out of order: neither gets here.
            let Ok(mut chunks) = stream.read(true) else { return (Poll::Ready(Ok(None)), false) };
            let next = chunks.next(max);
            // Having read, we may have to tell the peer that it can go on.
            let changed = chunks.finalize().should_transmit();
            let read = match next {
                Ok(chunk) => Poll::Ready(Ok(chunk.map(|chunk| chunk.bytes))),
                Err(Failed::Reset(code)) => Poll::Ready(Err(ReadError::Reset(code))),
                Err(Failed::Blocked) => match state.error() {
                    Some(error) => Poll::Ready(Err(ReadError::ConnectionLost(error))),
                    None => {
                        state.wait(id, Wait::Read, context.waker());
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

    /// Says that nobody will read on.
    pub fn stop(&mut self, code: VarInt) -> Result<(), ClosedStream> {
        let id = self.id;
        let stopped = self.connection.with(|state| {
            state.forget(id, |wait| wait == Wait::Read);
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
            // Fails at its end only.
            let _ = self.stop(VarInt::from_u32(0));
        }
    }
}
