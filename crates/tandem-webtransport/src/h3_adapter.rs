//! h3's view of a connection: the traits of `h3::quic` on [`tandem_quic`].
//!
//! Beyond the translation the adapter applies the workarounds of [`crate::h3_workarounds`], opens no QPACK streams, and
//! lets streams be taken out of h3's hands for the session.

use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h3::error::Code;
use h3::quic::{self, ConnectionErrorIncoming, StreamErrorIncoming, StreamId, WriteBuf};
use tandem_quic::{ConnectionError, Dir, QuicConnection, ReadError, RecvStream, SendStream, Side, VarInt, WriteError};

use crate::h3_workarounds::eager_read::Trickle;
use crate::h3_workarounds::held_bytes::{self, HeldBytes};
use crate::h3_workarounds::safari_setting;

/// Bytes of a read, at most.
const CHUNK: usize = 16 << 10;

pub(super) struct H3Connection {
    opener: H3Opener,
}

impl H3Connection {
    pub(super) fn new(connection: QuicConnection) -> Self {
        Self { opener: H3Opener { connection, control_is_open: false } }
    }
}

impl quic::Connection<Bytes> for H3Connection {
    type RecvStream = H3RecvStream;
    type OpenStreams = H3Opener;

    fn poll_accept_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<H3RecvStream, ConnectionErrorIncoming>> {
        let accepted = ready!(self.opener.connection.poll_accept_uni(cx)).map_err(connection_error)?;
        Poll::Ready(Ok(H3RecvStream::unidirectional(accepted)))
    }

    fn poll_accept_bidi(&mut self, cx: &mut Context<'_>) -> Poll<Result<H3BidiStream, ConnectionErrorIncoming>> {
        let (send, recv) = ready!(self.opener.connection.poll_accept_bi(cx)).map_err(connection_error)?;
        Poll::Ready(Ok(H3BidiStream { send: H3SendStream::new(send), recv: H3RecvStream::new(recv) }))
    }

    fn opener(&self) -> H3Opener {
        H3Opener { connection: self.opener.connection.clone(), control_is_open: true }
    }
}

impl quic::OpenStreams<Bytes> for H3Connection {
    type BidiStream = H3BidiStream;
    type SendStream = H3SendStream;

    fn poll_open_bidi(&mut self, cx: &mut Context<'_>) -> Poll<Result<H3BidiStream, StreamErrorIncoming>> {
        self.opener.poll_open_bidi(cx)
    }

    fn poll_open_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<H3SendStream, StreamErrorIncoming>> {
        self.opener.poll_open_send(cx)
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        self.opener.close(code, reason);
    }
}

/// Opens the control stream. h3 opens two more, for QPACK's encoder and decoder. Without a dynamic table they carry
/// nothing and need not exist (RFC 9204 §4.2), so they are only pretended: two streams less for each connection.
pub(super) struct H3Opener {
    connection: QuicConnection,
    control_is_open: bool,
}

impl quic::OpenStreams<Bytes> for H3Opener {
    type BidiStream = H3BidiStream;
    type SendStream = H3SendStream;

    fn poll_open_bidi(&mut self, _: &mut Context<'_>) -> Poll<Result<H3BidiStream, StreamErrorIncoming>> {
        let connection_error = ConnectionErrorIncoming::InternalError("a server opens no requests".to_owned());
        Poll::Ready(Err(StreamErrorIncoming::ConnectionErrorIncoming { connection_error }))
    }

    fn poll_open_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<H3SendStream, StreamErrorIncoming>> {
        // h3 opens the control stream first.
        if self.control_is_open {
            return Poll::Ready(Ok(H3SendStream::pretended()));
        }
        let opened = ready!(self.connection.poll_open_uni(cx)).map_err(|error| {
            StreamErrorIncoming::ConnectionErrorIncoming { connection_error: connection_error(error) }
        })?;
        let mut stream = H3SendStream::new(opened);
        stream.carries_settings = true;
        self.control_is_open = true;
        Poll::Ready(Ok(stream))
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        self.connection.close(varint(code.value()), reason);
    }
}

pub(super) struct H3BidiStream {
    pub(super) send: H3SendStream,
    pub(super) recv: H3RecvStream,
}

impl quic::BidiStream<Bytes> for H3BidiStream {
    type SendStream = H3SendStream;
    type RecvStream = H3RecvStream;

    fn split(self) -> (H3SendStream, H3RecvStream) {
        (self.send, self.recv)
    }
}

impl quic::SendStream<Bytes> for H3BidiStream {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.send.poll_ready(cx)
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        self.send.send_data(data)
    }

    fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.send.poll_finish(cx)
    }

    fn reset(&mut self, code: u64) {
        self.send.reset(code);
    }

    fn send_id(&self) -> StreamId {
        self.send.send_id()
    }
}

impl quic::RecvStream for H3BidiStream {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        self.recv.poll_data(cx)
    }

    fn stop_sending(&mut self, code: u64) {
        self.recv.stop_sending(code);
    }

    fn recv_id(&self) -> StreamId {
        self.recv.recv_id()
    }
}

/// A sending half. Dropping it before its end resets it, so that half an answer doesn't look like a whole one.
pub(super) struct H3SendStream {
    /// `None` for a stream that is only pretended, or was taken out.
    stream: Option<SendStream>,
    id: StreamId,
    /// Boxed, because a connection has several of these for its life and writes seldom.
    writing: Option<Box<PendingWrite>>,
    carries_settings: bool,
    finished: bool,
}

enum PendingWrite {
    Frame(WriteBuf<Bytes>),
    Settings(Bytes),
}

impl PendingWrite {
    fn buf(&mut self) -> &mut dyn Buf {
        match self {
            Self::Frame(frame) => frame,
            Self::Settings(bytes) => bytes,
        }
    }
}

impl H3SendStream {
    fn new(stream: SendStream) -> Self {
        let id = stream_id(stream.id());
        Self { stream: Some(stream), id, writing: None, carries_settings: false, finished: false }
    }

    /// A stream that doesn't exist. Writes to it are dropped.
    fn pretended() -> Self {
        let id = stream_id(tandem_quic::StreamId::new(Side::Server, Dir::Uni, 0));
        Self { stream: None, id, writing: None, carries_settings: false, finished: true }
    }

    /// Takes the stream out of h3's hands.
    pub(super) fn into_inner(mut self) -> Option<SendStream> {
        self.stream.take()
    }

    /// Resolves when the peer has acknowledged everything up to the end, or has stopped the stream.
    pub(super) fn acknowledged(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        let stopped = self.stream.as_ref().map(SendStream::stopped);
        async move {
            if let Some(stopped) = stopped {
                stopped.await;
            }
        }
    }
}

impl quic::SendStream<Bytes> for H3SendStream {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        if let (Some(writing), Some(stream)) = (&mut self.writing, &mut self.stream) {
            let buf = writing.buf();
            while buf.has_remaining() {
                let written = ready!(stream.poll_write(cx, buf.chunk())).map_err(write_error)?;
                buf.advance(written);
            }
        }
        self.writing = None;
        Poll::Ready(Ok(()))
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        if self.writing.is_some() {
            let connection_error = ConnectionErrorIncoming::InternalError("two writes at once".to_owned());
            return Err(StreamErrorIncoming::ConnectionErrorIncoming { connection_error });
        }
        let mut frame = data.into();
        self.writing = Some(Box::new(if std::mem::take(&mut self.carries_settings) {
            PendingWrite::Settings(safari_setting::extend(frame.copy_to_bytes(frame.remaining())))
        } else {
            PendingWrite::Frame(frame)
        }));
        Ok(())
    }

    fn poll_finish(&mut self, _: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.finished = true;
        // Fails only if the stream was finished or reset before.
        let _ = self.stream.as_mut().map(SendStream::finish);
        Poll::Ready(Ok(()))
    }

    fn reset(&mut self, code: u64) {
        self.finished = true;
        let _ = self.stream.as_mut().map(|stream| stream.reset(varint(code)));
    }

    fn send_id(&self) -> StreamId {
        self.id
    }
}

impl Drop for H3SendStream {
    fn drop(&mut self) {
        if !self.finished {
            quic::SendStream::<Bytes>::reset(self, Code::H3_REQUEST_CANCELLED.value());
        }
    }
}

/// A receiving half. Dropping it before its end stops it.
pub(super) struct H3RecvStream {
    stream: Option<RecvStream>,
    id: StreamId,
    /// Read by [`peek_chunk`](Self::peek_chunk) and given back.
    unread: Bytes,
    held: HeldBytes,
    max_held: usize,
    trickle: Trickle,
}

impl H3RecvStream {
    fn new(stream: RecvStream) -> Self {
        let id = stream_id(stream.id());
        let (held, max_held) = (HeldBytes::default(), held_bytes::MAX_REQUEST);
        Self { stream: Some(stream), id, unread: Bytes::new(), held, max_held, trickle: Trickle::NONE }
    }

    fn unidirectional(quic: RecvStream) -> Self {
        let mut stream = Self::new(quic);
        stream.trickle = Trickle::HEAD;
        stream.max_held = held_bytes::MAX_UNIDIRECTIONAL;
        stream
    }

    pub(super) fn held(&self) -> HeldBytes {
        self.held.clone()
    }

    /// Reads the next bytes before h3 does.
    pub(super) async fn peek_chunk(&mut self) -> Option<Bytes> {
        self.stream.as_mut()?.chunk(CHUNK).await.ok().flatten()
    }

    /// Gives back bytes that were peeked, for h3 to read.
    pub(super) fn unread(&mut self, bytes: Bytes) {
        self.unread = bytes;
    }

    /// Takes the stream and the bytes that were given back out of h3's hands.
    pub(super) fn into_inner(mut self) -> Option<(Bytes, RecvStream)> {
        Some((std::mem::take(&mut self.unread), self.stream.take()?))
    }
}

impl quic::RecvStream for H3RecvStream {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        let bytes = if self.unread.is_empty() {
            let Some(stream) = &mut self.stream else { return Poll::Ready(Ok(None)) };
            match ready!(stream.poll_chunk(cx, self.trickle.limit(CHUNK))).map_err(read_error)? {
                Some(bytes) => bytes,
                None => return Poll::Ready(Ok(None)),
            }
        } else {
            std::mem::take(&mut self.unread)
        };
        self.trickle.advance();
        if self.held.add(bytes.len()) <= self.max_held {
            return Poll::Ready(Ok(Some(bytes)));
        }
        let error_code = Code::H3_EXCESSIVE_LOAD.value();
        self.stop_sending(error_code);
        Poll::Ready(Err(StreamErrorIncoming::StreamTerminated { error_code }))
    }

    fn stop_sending(&mut self, code: u64) {
        let _ = self.stream.as_mut().map(|stream| stream.stop(varint(code)));
    }

    fn recv_id(&self) -> StreamId {
        self.id
    }
}

impl Drop for H3RecvStream {
    fn drop(&mut self) {
        // Does nothing after the end.
        quic::RecvStream::stop_sending(self, Code::H3_NO_ERROR.value());
    }
}

fn varint(code: u64) -> VarInt {
    VarInt::from_u64(code).unwrap_or(VarInt::MAX)
}

fn stream_id(id: tandem_quic::StreamId) -> StreamId {
    StreamId::try_from(u64::from(id)).expect("both have QUIC's 62 bits")
}

fn connection_error(error: ConnectionError) -> ConnectionErrorIncoming {
    match error {
        ConnectionError::ApplicationClosed(close) => {
            ConnectionErrorIncoming::ApplicationClose { error_code: close.error_code.into() }
        }
        ConnectionError::TimedOut => ConnectionErrorIncoming::Timeout,
        other => ConnectionErrorIncoming::Undefined(Arc::new(other)),
    }
}

fn read_error(error: ReadError) -> StreamErrorIncoming {
    match error {
        ReadError::Reset(code) => StreamErrorIncoming::StreamTerminated { error_code: code.into() },
        ReadError::ConnectionLost(error) => {
            StreamErrorIncoming::ConnectionErrorIncoming { connection_error: connection_error(error) }
        }
    }
}

fn write_error(error: WriteError) -> StreamErrorIncoming {
    match error {
        WriteError::Stopped(code) => StreamErrorIncoming::StreamTerminated { error_code: code.into() },
        WriteError::ConnectionLost(error) => {
            StreamErrorIncoming::ConnectionErrorIncoming { connection_error: connection_error(error) }
        }
        other => StreamErrorIncoming::Unknown(Box::new(other)),
    }
}
