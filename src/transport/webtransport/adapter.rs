//! h3's view of a quinn connection: the traits of `h3::quic`, implemented by us rather than taken from h3-quinn.
//!
//! Three reasons. The control stream's first write gets the setting that Safari asks for ([`super::settings`]). h3 holds
//! whole frames in memory whatever length they announce, so a reader of ours gives up when it holds too much
//! ([`Held`]). And h3-quinn 0.0.10 panics when a stream is stopped whose read is pending.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h3::error::Code;
use h3::quic::{self, ConnectionErrorIncoming, StreamErrorIncoming, StreamId, WriteBuf};
use quinn::VarInt;
use tokio_util::sync::ReusableBoxFuture;

use super::settings;

/// Bytes that h3 may hold of one request: a field section far above what a browser sends.
const MAX_HELD: usize = 64 << 10;
/// The same of a unidirectional stream. Nobody tells us what h3 is done with there, so this is what the peer's control
/// stream may carry in its life: thousands of PRIORITY_UPDATE frames.
const MAX_HELD_UNI: usize = 256 << 10;
/// Headers of frames count as held until their payload is delivered; this gives them back.
const FRAME_HEAD: usize = 16;
/// Longest read.
const CHUNK: usize = 16 << 10;

type Accepted<T> = ReusableBoxFuture<'static, Result<T, quinn::ConnectionError>>;

/// A connection as h3 sees it.
pub(super) struct Connection {
    opener: Opener,
    bidi: Accepted<(quinn::SendStream, quinn::RecvStream)>,
    uni: Accepted<quinn::RecvStream>,
}

impl Connection {
    pub(super) fn new(quinn: quinn::Connection) -> Self {
        Self {
            bidi: ReusableBoxFuture::new(accept_bidi(quinn.clone())),
            uni: ReusableBoxFuture::new(accept_uni(quinn.clone())),
            opener: Opener { quinn, opening: None, control_is_open: false },
        }
    }
}

async fn accept_bidi(
    quinn: quinn::Connection,
) -> Result<(quinn::SendStream, quinn::RecvStream), quinn::ConnectionError> {
    quinn.accept_bi().await
}

async fn accept_uni(quinn: quinn::Connection) -> Result<quinn::RecvStream, quinn::ConnectionError> {
    quinn.accept_uni().await
}

impl quic::Connection<Bytes> for Connection {
    type RecvStream = RecvStream;
    type OpenStreams = Opener;

    fn poll_accept_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<RecvStream, ConnectionErrorIncoming>> {
        let accepted = ready!(self.uni.poll(cx)).map_err(connection_error)?;
        self.uni.set(accept_uni(self.opener.quinn.clone()));
        Poll::Ready(Ok(RecvStream::unidirectional(accepted)))
    }

    fn poll_accept_bidi(&mut self, cx: &mut Context<'_>) -> Poll<Result<BidiStream, ConnectionErrorIncoming>> {
        let (send, recv) = ready!(self.bidi.poll(cx)).map_err(connection_error)?;
        self.bidi.set(accept_bidi(self.opener.quinn.clone()));
        Poll::Ready(Ok(BidiStream { send: SendStream::new(send), recv: RecvStream::new(recv) }))
    }

    fn opener(&self) -> Opener {
        Opener { quinn: self.opener.quinn.clone(), opening: None, control_is_open: true }
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

/// Opens streams: three unidirectional ones at the start, nothing more, because servers of HTTP/3 don't.
pub(super) struct Opener {
    quinn: quinn::Connection,
    opening: Option<Accepted<quinn::SendStream>>,
    control_is_open: bool,
}

async fn open_uni(quinn: quinn::Connection) -> Result<quinn::SendStream, quinn::ConnectionError> {
    quinn.open_uni().await
}

impl quic::OpenStreams<Bytes> for Opener {
    type BidiStream = BidiStream;
    type SendStream = SendStream;

    fn poll_open_bidi(&mut self, _: &mut Context<'_>) -> Poll<Result<BidiStream, StreamErrorIncoming>> {
        let connection_error = ConnectionErrorIncoming::InternalError("a server opens no requests".to_owned());
        Poll::Ready(Err(StreamErrorIncoming::ConnectionErrorIncoming { connection_error }))
    }

    fn poll_open_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<SendStream, StreamErrorIncoming>> {
        let quinn = &self.quinn;
        let opening = self.opening.get_or_insert_with(|| ReusableBoxFuture::new(open_uni(quinn.clone())));
        let opened = ready!(opening.poll(cx));
        self.opening = None;
        let opened = opened.map_err(|error| StreamErrorIncoming::ConnectionErrorIncoming {
            connection_error: connection_error(error),
        })?;
        let mut stream = SendStream::new(opened);
        // h3 opens the control stream first.
        stream.carries_settings = !std::mem::replace(&mut self.control_is_open, true);
        Poll::Ready(Ok(stream))
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        self.quinn.close(varint(code.value()), reason);
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
    quinn: Option<quinn::SendStream>,
    id: StreamId,
    writing: Option<Writing>,
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
    fn new(quinn: quinn::SendStream) -> Self {
        let id = stream_id(quinn.id());
        Self { quinn: Some(quinn), id, writing: None, carries_settings: false, finished: false }
    }

    /// The stream itself, out of h3's hands.
    pub(super) fn into_quinn(mut self) -> Option<quinn::SendStream> {
        self.quinn.take()
    }

    /// Resolves when the peer has acknowledged everything up to the end, or wants no more.
    pub(super) fn acknowledged(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        let stopped = self.quinn.as_ref().map(quinn::SendStream::stopped);
        async move {
            if let Some(stopped) = stopped {
                // Acknowledged, stopped or lost: in each case there is nothing more to wait for.
                let _ = stopped.await;
            }
        }
    }
}

impl quic::SendStream<Bytes> for SendStream {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        if let (Some(writing), Some(quinn)) = (&mut self.writing, &mut self.quinn) {
            let buf = writing.buf();
            while buf.has_remaining() {
                let written = ready!(Pin::new(&mut *quinn).poll_write(cx, buf.chunk())).map_err(write_error)?;
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
        self.writing = Some(if std::mem::take(&mut self.carries_settings) {
            Writing::Settings(settings::extend(frame.copy_to_bytes(frame.remaining())))
        } else {
            Writing::Frame(frame)
        });
        Ok(())
    }

    fn poll_finish(&mut self, _: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        self.finished = true;
        // Finished or reset before: the end that was wanted.
        let _ = self.quinn.as_mut().map(quinn::SendStream::finish);
        Poll::Ready(Ok(()))
    }

    fn reset(&mut self, code: u64) {
        self.finished = true;
        let _ = self.quinn.as_mut().map(|quinn| quinn.reset(varint(code)));
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
    quinn: Option<quinn::RecvStream>,
    id: StreamId,
    unread: Bytes,
    held: Held,
    max_held: usize,
    /// Bytes to deliver one by one.
    trickle: usize,
}

impl RecvStream {
    fn new(quinn: quinn::RecvStream) -> Self {
        let id = stream_id(quinn.id());
        Self { quinn: Some(quinn), id, unread: Bytes::new(), held: Held::default(), max_held: MAX_HELD, trickle: 0 }
    }

    /// h3 0.0.8 reads on before it looks at what it has of a stream's type and session, and would wait for more data
    /// where all is there. Byte by byte, it finds out in time.
    fn unidirectional(quinn: quinn::RecvStream) -> Self {
        let mut stream = Self::new(quinn);
        stream.trickle = 16;
        stream.max_held = MAX_HELD_UNI;
        stream
    }

    pub(super) fn held(&self) -> Held {
        self.held.clone()
    }

    /// The next bytes, before h3 gets any.
    pub(super) async fn peek_chunk(&mut self) -> Option<Bytes> {
        let quinn = self.quinn.as_mut()?;
        quinn.read_chunk(CHUNK, true).await.ok().flatten().map(|chunk| chunk.bytes)
    }

    /// Gives back what was peeked.
    pub(super) fn unread(&mut self, bytes: Bytes) {
        self.unread = bytes;
    }

    /// The stream itself and what was peeked, out of h3's hands.
    pub(super) fn into_quinn(mut self) -> Option<(Bytes, quinn::RecvStream)> {
        Some((std::mem::take(&mut self.unread), self.quinn.take()?))
    }
}

impl quic::RecvStream for RecvStream {
    type Buf = Bytes;

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        let bytes = if self.unread.is_empty() {
            let Some(quinn) = &mut self.quinn else { return Poll::Ready(Ok(None)) };
            let length = if self.trickle > 0 { 1 } else { CHUNK };
            match ready!(pin!(quinn.read_chunk(length, true)).poll(cx)).map_err(read_error)? {
                Some(chunk) => chunk.bytes,
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
        let _ = self.quinn.as_mut().map(|quinn| quinn.stop(varint(code)));
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

fn stream_id(id: quinn::StreamId) -> StreamId {
    StreamId::try_from(u64::from(id)).expect("both are QUIC's 62 bits")
}

fn connection_error(error: quinn::ConnectionError) -> ConnectionErrorIncoming {
    match error {
        quinn::ConnectionError::ApplicationClosed(close) => {
            ConnectionErrorIncoming::ApplicationClose { error_code: close.error_code.into() }
        }
        quinn::ConnectionError::TimedOut => ConnectionErrorIncoming::Timeout,
        other => ConnectionErrorIncoming::Undefined(Arc::new(other)),
    }
}

fn read_error(error: quinn::ReadError) -> StreamErrorIncoming {
    match error {
        quinn::ReadError::Reset(code) => StreamErrorIncoming::StreamTerminated { error_code: code.into() },
        quinn::ReadError::ConnectionLost(error) => {
            StreamErrorIncoming::ConnectionErrorIncoming { connection_error: connection_error(error) }
        }
        other => StreamErrorIncoming::Unknown(Box::new(other)),
    }
}

fn write_error(error: quinn::WriteError) -> StreamErrorIncoming {
    match error {
        quinn::WriteError::Stopped(code) => StreamErrorIncoming::StreamTerminated { error_code: code.into() },
        quinn::WriteError::ConnectionLost(error) => {
            StreamErrorIncoming::ConnectionErrorIncoming { connection_error: connection_error(error) }
        }
        other => StreamErrorIncoming::Unknown(Box::new(other)),
    }
}
