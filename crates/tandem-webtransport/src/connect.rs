//! The CONNECT stream of a session: it carries capsules, and its end is the session's end.

use std::future::Future;
use std::sync::Arc;

use bytes::{Buf, Bytes};
use h3::error::StreamError;
use h3::server::RequestStream;
use tandem_quic::{ConnectionError, QuicConnection};
use tokio::sync::{Mutex, SetOnce};

use crate::SessionError;
use crate::capsule::CapsuleReader;
use crate::codes;
use crate::h3_adapter::{H3RecvStream, H3SendStream};
use crate::h3_workarounds::held_bytes::HeldBytes;

/// How the client ended a session.
#[derive(Debug, Clone)]
pub(crate) enum ClientEnd {
    /// By a close capsule, or by the stream's end, which stands for code 0.
    Closed(u32),
    /// By a failure: a malformed close, or a lost connection.
    Failed(SessionError),
}

impl ClientEnd {
    /// Whether the client waits for a close capsule of the server's.
    pub(crate) fn is_malformed(&self) -> bool {
        matches!(self, Self::Failed(SessionError::MalformedClose(_)))
    }
}

/// The sending half, written by the session's writer and finished by the writer or by [`ConnectRecv`].
pub(crate) struct ConnectSend {
    stream: RequestStream<H3SendStream, Bytes>,
    finished: bool,
}

impl ConnectSend {
    pub(crate) fn new(stream: RequestStream<H3SendStream, Bytes>) -> Self {
        Self { stream, finished: false }
    }

    pub(crate) async fn capsule(&mut self, capsule: Bytes) -> Result<(), StreamError> {
        if self.finished {
            return Ok(());
        }
        self.stream.send_data(capsule).await
    }

    pub(crate) async fn finish(&mut self) {
        if !std::mem::replace(&mut self.finished, true) {
            // Fails on a lost connection only.
            let _ = self.stream.finish().await;
        }
    }
}

/// The receiving half. It is polled apart from the session's reader: a session that pauses its reads still answers a
/// close.
pub(crate) struct ConnectRecv {
    pub(crate) stream: RequestStream<H3RecvStream, Bytes>,
    pub(crate) held: HeldBytes,
    pub(crate) connection: QuicConnection,
}

impl ConnectRecv {
    /// Reads to the end of the session and sets `end`. The future itself never ends: the session's does.
    #[expect(clippy::manual_async_fn, reason = "an `async fn` would keep each argument twice")]
    pub(crate) fn run(
        mut self,
        send: Arc<Mutex<ConnectSend>>,
        end: Arc<SetOnce<ClientEnd>>,
    ) -> impl Future<Output = ()> + Send {
        async move {
            let ended = self.read().await;
            if let (ClientEnd::Closed(_), Ok(mut send)) = (&ended, send.try_lock()) {
                // Browsers report a clean close only if their close capsule was answered with the stream's end. If the
                // lock is taken, the writer is inside a capsule that the client won't read.
                Box::pin(send.finish()).await;
            }
            tracing::trace!(?ended, "session ended by the peer");
            // Set here only.
            let _ = end.set(ended);
            // Wait for the client's end of the stream: dropping it before would send STOP_SENDING.
            let _ = self.stream.recv_data().await.map(|data| data.map(|_| ()));
            std::future::pending().await
        }
    }

    async fn read(&mut self) -> ClientEnd {
        let mut capsules = CapsuleReader::default();
        loop {
            let mut data = match self.stream.recv_data().await {
                Ok(Some(data)) => data,
                Ok(None) => return ClientEnd::Closed(0),
                Err(error) => return self.failed(error),
            };
            self.held.delivered(data.remaining());
            match capsules.read(&mut data) {
                Ok(None) => {}
                Ok(Some(close)) => {
                    tracing::debug!(close.code, close.reason, "closed by the peer");
                    return ClientEnd::Closed(close.code);
                }
                Err(malformed) => return ClientEnd::Failed(malformed.into()),
            }
        }
    }

    fn failed(&self, error: StreamError) -> ClientEnd {
        ClientEnd::Failed(match self.connection.close_reason() {
            Some(ConnectionError::ApplicationClosed(close)) => match codes::from_quic(close.error_code) {
                // Some clients send their code in CONNECTION_CLOSE only.
                Some(code) => return ClientEnd::Closed(code),
                None => SessionError::ConnectionClosed {
                    code: close.error_code.into_inner(),
                    reason: String::from_utf8_lossy(&close.reason).into_owned(),
                },
            },
            Some(reason) => reason.into(),
            None => SessionError::Http(Arc::new(error)),
        })
    }
}
