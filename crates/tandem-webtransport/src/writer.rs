//! The writing half of a session.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::future::BoxFuture;
use tandem_quic::SendStream;
use tokio::sync::{Mutex, SetOnce, oneshot};
use tokio::time::timeout;

use crate::connect::{ClientEnd, ConnectSend};
use crate::{SessionDatagrams, SessionError, capsule, codes};

/// Messages up to this size are copied into one buffer; longer ones are written from where they are.
const GATHERED: usize = 2048;
/// An orderly close takes at most this long.
const CLOSE: Duration = Duration::from_secs(1);
/// Of which the last messages may take this much.
const LAST_MESSAGES: Duration = Duration::from_millis(500);
/// After the close capsule was answered, the client has this long to close the QUIC connection itself.
///
/// Chromium's network process answers the capsule before the page's process has its code; a CONNECTION_CLOSE that
/// arrives in between reaches the page first, as "Connection lost" without a code. Browsers close the connection once
/// the session is over, so only a client that never does costs the full time.
const LINGER: Duration = Duration::from_secs(1);

/// The writing half of a session.
pub struct SessionWriter {
    datagrams: SessionDatagrams,
    control: ControlWriter,
    connect: Arc<Mutex<ConnectSend>>,
    acknowledged: BoxFuture<'static, ()>,
    end: Arc<SetOnce<ClientEnd>>,
    gathered: BytesMut,
    batch: Vec<Bytes>,
}

enum ControlWriter {
    Awaited(oneshot::Receiver<SendStream>),
    Open(SendStream),
}

impl SessionWriter {
    pub(crate) fn new(
        datagrams: SessionDatagrams,
        control: oneshot::Receiver<SendStream>,
        connect: Arc<Mutex<ConnectSend>>,
        acknowledged: BoxFuture<'static, ()>,
        end: Arc<SetOnce<ClientEnd>>,
    ) -> Self {
        let control = ControlWriter::Awaited(control);
        let (gathered, batch) = (BytesMut::new(), Vec::new());
        Self { datagrams, control, connect, acknowledged, end, gathered, batch }
    }

    /// The sending end of the session's datagrams.
    pub fn datagrams(&self) -> &SessionDatagrams {
        &self.datagrams
    }

    /// Adds a message to the batch that [`flush`](Self::flush) writes.
    pub fn queue(&mut self, message: Bytes) {
        self.gathered.reserve(4 + if message.len() <= GATHERED { message.len() } else { 0 });
        self.gathered.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
        if message.len() <= GATHERED {
            self.gathered.put(message);
        } else {
            self.batch.push(self.gathered.split().freeze());
            self.batch.push(message);
        }
    }

    /// Writes the batch: at once if flow control allows, else as it does. Waits for the client to open the stream. Not
    /// cancel-safe: a cancelled call may leave half a message on the wire.
    pub async fn flush(&mut self) -> Result<(), SessionError> {
        if !self.gathered.is_empty() {
            // Taken, not split off: the rest of the buffer would keep all of it allocated until the next message.
            self.batch.push(std::mem::take(&mut self.gathered).freeze());
        }
        if self.batch.is_empty() {
            return Ok(());
        }
        if let ControlWriter::Awaited(opening) = &mut self.control {
            self.control = ControlWriter::Open(opening.await.map_err(|_| SessionError::NoStream)?);
        }
        let Some(control) = self.control.opened() else { return Ok(()) };
        let written = control.write_all_chunks(&mut self.batch).await;
        self.batch.clear();
        if written.is_err() {
            // A client that closes also stops the stream. The reader learns the code, and shall report it first.
            let _ = Box::pin(timeout(CLOSE, self.end.wait())).await;
        }
        written.map_err(SessionError::Write)
    }

    /// Asks the client to end the session soon (WT_DRAIN_SESSION).
    pub async fn drain(&mut self) -> Result<(), SessionError> {
        let sent = self.connect.lock().await.capsule(capsule::drain()).await;
        sent.map_err(|error| SessionError::Http(Arc::new(error)))
    }

    /// Closes the session with an application's code and a reason of at most 1024 bytes, and then the connection.
    /// Messages that were flushed arrive before the close. Takes at most two seconds.
    pub async fn close(mut self, code: u32, reason: &str) {
        let in_order = timeout(CLOSE, self.close_in_order(code, reason)).await.is_ok();
        let connection = self.datagrams.connection();
        if in_order {
            let _ = timeout(LINGER, connection.closed()).await;
            connection.close(codes::NO_ERROR, b"");
        } else {
            // The client may not have the capsule; CONNECTION_CLOSE carries code and reason too.
            connection.close(codes::to_quic(code), reason.as_bytes());
        }
    }

    async fn close_in_order(&mut self, code: u32, reason: &str) {
        if self.end.get().is_some_and(|end| !end.is_malformed()) {
            self.connect.lock().await.finish().await;
            (&mut self.acknowledged).await;
            return;
        }
        // A browser drops what it hasn't read of a stream when the session closes: the last messages must have arrived
        // before.
        if let Some(control) = self.control.opened() {
            let _ = control.finish();
            let _ = timeout(LAST_MESSAGES, control.stopped()).await;
        }
        {
            let mut connect = self.connect.lock().await;
            if connect.capsule(capsule::close(code, reason)).await.is_ok() {
                connect.finish().await;
            }
        }
        if self.end.wait().await.is_malformed() {
            (&mut self.acknowledged).await;
        }
    }
}

impl std::fmt::Debug for SessionWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionWriter").field("datagrams", &self.datagrams).finish_non_exhaustive()
    }
}

impl ControlWriter {
    fn opened(&mut self) -> Option<&mut SendStream> {
        if let Self::Awaited(opening) = self
            && let Ok(opened) = opening.try_recv()
        {
            *self = Self::Open(opened);
        }
        match self {
            Self::Open(control) => Some(control),
            Self::Awaited(_) => None,
        }
    }
}
