//! Detects stalled readers of HTTP/2.
//!
//! A client of HTTP/2 may acknowledge every packet and answer every ping, and still keep the flow-control windows of
//! its streams closed (RFC 9113 §5.2): TCP sees nothing wrong. So each connection notes when one of its bodies was last
//! polled for data. A body yields small pieces, because hyper polls for the next piece only when the one before has
//! left.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::clock::Clock;

/// Bytes of a piece, which a reader must take within the time limit.
const PIECE: usize = 16 * 1024;

/// When the bodies of a connection last made progress; clones share it.
#[derive(Debug, Clone)]
pub(super) struct BodyProgress(Arc<Mutex<BodyProgressState>>);

#[derive(Debug)]
struct BodyProgressState {
    open: usize,
    progress: Instant,
}

impl BodyProgress {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(BodyProgressState { open: 0, progress: Clock::instant() })))
    }

    /// Wraps a body of this connection.
    pub(super) fn body(&self, body: Body) -> PacedBody {
        let mut state = self.0.lock();
        state.open += 1;
        state.progress = Clock::instant();
        drop(state);
        PacedBody { body, rest: Bytes::new(), pace: self.clone() }
    }

    fn is_stalled(&self, limit: Duration) -> bool {
        let state = self.0.lock();
        state.open > 0 && state.progress.elapsed() >= limit
    }
}

/// Resolves when no open body of the connection has made progress for `limit`; never without a connection.
pub(super) async fn stalled(pace: Option<&BodyProgress>, limit: Duration) {
    let Some(pace) = pace else { return std::future::pending().await };
    while !pace.is_stalled(limit) {
        tokio::time::sleep(limit / 2).await;
    }
}

/// A body that notes when it is polled.
pub(super) struct PacedBody {
    body: Body,
    /// Rest of the piece that the body itself gave.
    rest: Bytes,
    pace: BodyProgress,
}

impl http_body::Body for PacedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.pace.0.lock().progress = Clock::instant();
        if self.rest.is_empty() {
            let frame = match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => frame,
                other => return Poll::Ready(other),
            };
            match frame.into_data() {
                Ok(data) => self.rest = data,
                Err(frame) => return Poll::Ready(Some(Ok(frame))),
            }
        }
        let piece = self.rest.len().min(PIECE);
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(piece)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (inner, rest) = (self.body.size_hint(), self.rest.len() as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower() + rest);
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}

impl Drop for PacedBody {
    fn drop(&mut self) {
        let mut state = self.pace.0.lock();
        state.open -= 1;
        state.progress = Clock::instant();
    }
}
