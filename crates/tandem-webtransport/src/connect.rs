//! The CONNECT stream of a session: it carries capsules, and its end is the session's end.

use std::future::Future;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use h3::error::StreamError;
use h3::server::RequestStream;
use tokio::sync::{Mutex, SetOnce};

use super::adapter::{Held, RecvStream, SendStream};
use super::capsule::CapsuleReader;
use super::codes;
use crate::transport::quic;

/// How a session ended, as its peer has it.
#[derive(Debug, Clone)]
pub(super) enum End {
    /// In order: a CLOSE capsule, or the stream's end without one (code 0).
    Closed(u32),
    /// With a capsule that breaks the rules.
    Broken(String),
    /// Without a word.
    Lost(String),
}

/// The sending half. Written by the session's writer, ended by whoever is first.
pub(super) struct ConnectSend {
    stream: RequestStream<SendStream, Bytes>,
    finished: bool,
}

impl ConnectSend {
    pub(super) fn new(stream: RequestStream<SendStream, Bytes>) -> Self {
        Self { stream, finished: false }
    }

    pub(super) async fn capsule(&mut self, capsule: Bytes) -> Result<(), StreamError> {
        if self.finished {
            return Ok(());
        }
        self.stream.send_data(capsule).await
    }

    pub(super) async fn finish(&mut self) {
        if !std::mem::replace(&mut self.finished, true) {
            // Fails on a lost connection only.
            let _ = self.stream.finish().await;
        }
    }
}

/// The receiving half. It reads for itself, so a session that pauses its own reading still answers a close at once.
pub(super) struct ConnectRecv {
    pub(super) stream: RequestStream<RecvStream, Bytes>,
    pub(super) held: Held,
    pub(super) connection: quic::Connection,
}

impl ConnectRecv {
    /// Reads to the end of the session and tells it. Never ends itself: the session does, when it has heard.
    #[expect(clippy::manual_async_fn, reason = "an `async fn` would keep each argument twice")]
    pub(super) fn run(
        mut self,
        send: Arc<Mutex<ConnectSend>>,
        end: Arc<SetOnce<End>>,
    ) -> impl Future<Output = ()> + Send {
        async move {
            let ended = self.read().await;
            if let (End::Closed(_), Ok(mut send)) = (&ended, send.try_lock()) {
                // Browsers report a clean close only to those whose CLOSE was answered with the stream's end. When the
                // lock is taken, the writer is in the middle of a capsule that the peer won't read any more.
                Box::pin(send.finish()).await;
            }
            tracing::trace!(?ended, "session ended by the peer");
            // Nobody else says it.
            let _ = end.set(ended);
            // The peer's own end of the stream; leaving before it would tell the peer to stop.
            let _ = self.stream.recv_data().await.map(|data| data.map(|_| ()));
            std::future::pending().await
        }
    }

    async fn read(&mut self) -> End {
        let mut capsules = CapsuleReader::default();
        loop {
            let mut data = match self.stream.recv_data().await {
                Ok(Some(data)) => data,
                Ok(None) => return End::Closed(0),
                Err(error) => return end_of(&self.connection, &error),
            };
            self.held.delivered(data.remaining());
            match capsules.read(&mut data) {
                Ok(None) => {}
                Ok(Some(close)) => {
                    tracing::debug!(close.code, close.reason, "closed by the peer");
                    return End::Closed(close.code);
                }
                Err(broken) => return End::Broken(broken.to_string()),
            }
        }
    }
}

fn end_of(connection: &quic::Connection, error: &StreamError) -> End {
    match connection.close_reason() {
        // Some clients say their code only in QUIC's close.
        Some(quic::ConnectionError::ApplicationClosed(close)) => match codes::from_quic(close.error_code) {
            Some(code) => End::Closed(code),
            None => End::Lost(format!("the client closed its connection: {close}")),
        },
        Some(reason) => End::Lost(reason.to_string()),
        None => End::Lost(error.to_string()),
    }
}
