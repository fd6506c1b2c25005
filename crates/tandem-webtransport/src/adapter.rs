//! h3's view of a connection: the traits of `h3::quic` on our own QUIC ([`crate::transport::quic`]).
//!
//! Beyond the translation it does three things. The control stream's first write gets the setting that Safari asks for ([`super::settings`]). h3 holds
//! whole frames in memory whatever length they announce, so a reader of ours gives up when it holds too much
//! ([`Held`]). And streams can be taken out of h3's hands, for the session.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h3::error::Code;
use h3::quic::{self, ConnectionErrorIncoming, StreamErrorIncoming, StreamId, WriteBuf};

use super::settings;
use crate::transport::quic as transport;
use crate::transport::quic::{Dir, Side, VarInt};

/// Bytes that h3 may hold of one request: a field section far above what a browser sends.
const MAX_HELD: usize = 64 << 10;
/// The same of a unidirectional stream. Nobody tells us what h3 is done with there, so this is what the peer's control
/// stream may carry in its life: thousands of PRIORITY_UPDATE frames.
const MAX_HELD_UNI: usize = 256 << 10;
/// Headers of frames count as held until their payload is delivered; this gives them back.
const FRAME_HEAD: usize = 16;
/// Longest read.
const CHUNK: usize = 16 << 10;

/// A connection as h3 sees it.
pub(super) struct Connection {
    opener: Opener,
}

impl Connection {
    pub(super) fn new(connection: transport::Connection) -> Self {
        Self { opener: Opener { connection, control_is_open: false } }
    }
}

impl quic::Connection<Bytes> for Connection {
    type RecvStream = RecvStream;
    type OpenStreams = Opener;

    fn poll_accept_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<RecvStream, ConnectionErrorIncoming>> {
        let accepted = ready!(self.opener.connection.poll_accept_uni(cx)).map_err(connection_error)?;
        Poll::Ready(Ok(RecvStream::unidirectional(accepted)))
    }

    fn poll_accept_bidi(&mut self, cx: &mut Context<'_>) -> Poll<Result<BidiStream, ConnectionErrorIncoming>> {
        let (send, recv) = ready!(self.opener.connection.poll_accept_bi(cx)).map_err(connection_error)?;
        Poll::Ready(Ok(BidiStream { send: SendStream::new(send), recv: RecvStream::new(recv) }))
    }

    fn opener(&self) -> Opener {
        Opener { connection: self.opener.connection.clone(), control_is_open: true }
    }
}

impl quic::OpenStreams<Bytes> for Connection {
    type BidiStream = BidiStream;
    type SendStream = SendStream;

    fn poll_open_bidi(&mut self, cx: &mut Context<'_>) -> Poll<Result<BidiStream, StreamErrorIncoming>> {
        self.opener.poll_open_bidi(cx)
    }

    fn poll_open_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<SendStream, StreamErrorIncoming>> {
        self.opener.poll_open_send(cx)
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        self.opener.close(code, reason);
    }
}

/// Opens the control stream. h3 opens two more, for QPACK's encoder and decoder, on which nothing is ever said: there is no
/// dynamic table. Such streams need not exist (RFC 9204 §4.2), so these two don't.
pub(super) struct Opener {
    connection: transport::Connection,
    control_is_open: bool,
}

impl quic::OpenStreams<Bytes> for Opener {
    type BidiStream = BidiStream;
    type SendStream = SendStream;

    fn poll_open_bidi(&mut self, _: &mut Context<'_>) -> Poll<Result<BidiStream, StreamErrorIncoming>> {
        let connection_error = ConnectionErrorIncoming::InternalError("a server opens no requests".to_owned());
        Poll::Ready(Err(StreamErrorIncoming::ConnectionErrorIncoming { connection_error }))
    }

    fn poll_open_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<SendStream, StreamErrorIncoming>> {
        // h3 opens the control stream first.
        if self.control_is_open {
            return Poll::Ready(Ok(SendStream::of_nobody()));
        }
        let opened = ready!(self.connection.poll_open_uni(cx)).map_err(|error| {
            StreamErrorIncoming::ConnectionErrorIncoming { connection_error: connection_error(error) }
        })?;
        let mut stream = SendStream::new(opened);
        stream.carries_settings = true;
        self.control_is_open = true;
        Poll::Ready(Ok(stream))
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        self.connection.close(varint(code.value()), reason);
    }
}

/// A bidirectional stream.
pub(super) struct BidiStream {
    pub(super) send: SendStream,
    pub(super) recv: RecvStream,
}

impl quic::BidiStream<Bytes> for BidiStream {
    type SendStream = SendStream;
    type RecvStream = RecvStream;

    fn split(self) -> (SendStream, RecvStream) {
        (self.send, self.recv)
    }
}

impl quic::SendStream<Bytes> for BidiStream {
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

impl quic::RecvStream for BidiStream {
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

/// A sending half. Dropped before its end it is reset, so that half an answer doesn't look like a whole one.
pub(super) struct SendStream {
    stream: Option<transport::SendStream>,
    id: StreamId,
    /// In a box: an h3 connection has several of these for its life, and they have nothing to write.
    writing: Option<Box<Writing>>,
    carries_settings: bool,
    finished: bool,
}

enum Writing {
    Frame(WriteBuf<Bytes>),
    Settings(Bytes),
}

impl Writing {
    fn buf(&mut self) -> &mut dyn Buf {
        match self {
            Self::Frame(frame) => frame,
            Self::Settings(bytes) => bytes,
        }
    }
}

impl SendStream {
    fn new(stream: transport::SendStream) -> Self {
        let id = stream_id(stream.id());
        Self { stream: Some(stream), id, writing: None, carries_settings: false, finished: false }
    }

    /// A stream that isn't there. What is written to it is gone.
    fn of_nobody() -> Self {
        let id = stream_id(transport::StreamId::new(Side::Server, Dir::Uni, 0));
        Self { stream: None, id, writing: None, carries_settings: false, finished: true }
    }

    /// The stream itself, out of h3's hands.
    pub(super) fn into_inner(mut self) -> Option<transport::SendStream> {
        self.stream.take()
    }

    /// Resolves when the peer has acknowledged everything up to the end, or wants no more.
    pub(super) fn acknowledged(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        let stopped = self.stream.as_ref().map(transport::SendStream::stopped);
        async move {
            if let Some(stopped) = stopped {
                stopped.await;
            }
        }
    }
}

impl quic::SendStream<Bytes> for SendStream {
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
            Writing::Settings(settings::extend(frame.copy_to_bytes(frame.remaining())))
        } else {
            Writing::Frame(frame)
        }));
        Ok(())
    }

    fn poll_finish(&mut self, _: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.finished = true;
        // Finished or reset before: the end that was wanted.
        let _ = self.stream.as_mut().map(transport::SendStream::finish);
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

impl Drop for SendStream {
    fn drop(&mut self) {
        if !self.finished {
            quic::SendStream::<Bytes>::reset(self, Code::H3_REQUEST_CANCELLED.value());
        }
    }
}

/// What h3 holds of a stream, unparsed. Whoever takes payload out of h3 reports it.
#[derive(Debug, Clone, Default)]
pub(super) struct Held(Arc<AtomicUsize>);

impl Held {
    /// A frame's payload, or a part of it, came out.
    pub(super) fn delivered(&self, bytes: usize) {
        let left = |held: usize| Some(held.saturating_sub(bytes + FRAME_HEAD));
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left);
    }

    fn add(&self, bytes: usize) -> usize {
        self.0.fetch_add(bytes, Ordering::Relaxed) + bytes
    }
}

/// A receiving half. Dropped before its end it is stopped.
pub(super) struct RecvStream {
    stream: Option<transport::RecvStream>,
    id: StreamId,
    unread: Bytes,
    held: Held,
    max_held: usize,
    /// Bytes to deliver one by one.
    trickle: usize,
}

impl RecvStream {
    fn new(stream: transport::RecvStream) -> Self {
        let id = stream_id(stream.id());
        Self { stream: Some(stream), id, unread: Bytes::new(), held: Held::default(), max_held: MAX_HELD, trickle: 0 }
    }

    /// h3 0.0.8 reads on before it looks at what it has of a stream's type and session, and would wait for more data
    /// where all is there. Byte by byte, it finds out in time.
    fn unidirectional(quic: transport::RecvStream) -> Self {
        let mut stream = Self::new(quic);
        stream.trickle = 16;
        stream.max_held = MAX_HELD_UNI;
        stream
    }

    pub(super) fn held(&self) -> Held {
        self.held.clone()
    }

    /// The next bytes, before h3 gets any.
    pub(super) async fn peek_chunk(&mut self) -> Option<Bytes> {
        self.stream.as_mut()?.chunk(CHUNK).await.ok().flatten()
    }

    /// Gives back what was peeked.
    pub(super) fn unread(&mut self, bytes: Bytes) {
        self.unread = bytes;
    }

    /// The stream itself and what was peeked, out of h3's hands.
    pub(super) fn into_inner(mut self) -> Option<(Bytes, transport::RecvStream)> {
        Some((std::mem::take(&mut self.unread), self.stream.take()?))
    }
}

impl quic::RecvStream for RecvStream {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        let bytes = if self.unread.is_empty() {
            let Some(stream) = &mut self.stream else { return Poll::Ready(Ok(None)) };
            let length = if self.trickle > 0 { 1 } else { CHUNK };
            match ready!(stream.poll_chunk(cx, length)).map_err(read_error)? {
                Some(bytes) => bytes,
                None => return Poll::Ready(Ok(None)),
            }
        } else {
            std::mem::take(&mut self.unread)
        };
        self.trickle = self.trickle.saturating_sub(1);
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

impl Drop for RecvStream {
    fn drop(&mut self) {
        // After the end this does nothing.
        quic::RecvStream::stop_sending(self, Code::H3_NO_ERROR.value());
    }
}

fn varint(code: u64) -> VarInt {
    VarInt::from_u64(code).unwrap_or(VarInt::MAX)
}

fn stream_id(id: transport::StreamId) -> StreamId {
    StreamId::try_from(u64::from(id)).expect("both are QUIC's 62 bits")
}

fn connection_error(error: transport::ConnectionError) -> ConnectionErrorIncoming {
    match error {
        transport::ConnectionError::ApplicationClosed(close) => {
            ConnectionErrorIncoming::ApplicationClose { error_code: close.error_code.into() }
        }
        transport::ConnectionError::TimedOut => ConnectionErrorIncoming::Timeout,
        other => ConnectionErrorIncoming::Undefined(Arc::new(other)),
    }
}

fn read_error(error: transport::ReadError) -> StreamErrorIncoming {
    match error {
        transport::ReadError::Reset(code) => StreamErrorIncoming::StreamTerminated { error_code: code.into() },
        transport::ReadError::ConnectionLost(error) => {
            StreamErrorIncoming::ConnectionErrorIncoming { connection_error: connection_error(error) }
        }
    }
}

fn write_error(error: transport::WriteError) -> StreamErrorIncoming {
    match error {
        transport::WriteError::Stopped(code) => StreamErrorIncoming::StreamTerminated { error_code: code.into() },
        transport::WriteError::ConnectionLost(error) => {
            StreamErrorIncoming::ConnectionErrorIncoming { connection_error: connection_error(error) }
        }
        other => StreamErrorIncoming::Unknown(Box::new(other)),
    }
}
