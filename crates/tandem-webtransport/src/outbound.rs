//! The writing half of a session.

use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::future::BoxFuture;
use tokio::sync::{Mutex, SetOnce, oneshot};
use tokio::time::timeout;

use super::connect::{ConnectSend, End};
use super::datagrams::Datagrams;
use super::{capsule, codes};
use crate::domain::CloseCode;
use crate::session::transport::{Express, Outbound, Outgoing, TransportError};
use crate::transport::quic;

/// Messages up to this size are gathered into one buffer; longer ones are shared with the other receivers as they are.
const GATHERED: usize = 2048;
/// A close in order takes at most this long.
const CLOSE: Duration = Duration::from_secs(1);
/// Of which the last messages may take this much.
const LAST_MESSAGES: Duration = Duration::from_millis(500);
/// After the capsule was answered, the peer has this long to close the QUIC connection itself.
///
/// Chromium's network process answers the CLOSE capsule before the page's process has its code; a CONNECTION_CLOSE that
/// arrives in between reaches the page first, as "Connection lost" without a code. Browsers close the connection
/// themselves once the session is over, so lingering costs the full time only with a client that never does.
const LINGER: Duration = Duration::from_secs(1);

/// Control stream, datagrams and capsules.
pub struct WebTransportOutbound {
    datagrams: Datagrams,
    control: Control,
    connect: Arc<Mutex<ConnectSend>>,
    acknowledged: BoxFuture<'static, ()>,
    end: Arc<SetOnce<End>>,
    gathered: BytesMut,
    batch: Vec<Bytes>,
}

enum Control {
    Awaited(oneshot::Receiver<quic::SendStream>),
    Open(quic::SendStream),
}

impl WebTransportOutbound {
    pub(super) fn new(
        datagrams: Datagrams,
        control: oneshot::Receiver<quic::SendStream>,
        connect: Arc<Mutex<ConnectSend>>,
        acknowledged: BoxFuture<'static, ()>,
        end: Arc<SetOnce<End>>,
    ) -> Self {
        let control = Control::Awaited(control);
        let (gathered, batch) = (BytesMut::new(), Vec::new());
        Self { datagrams, control, connect, acknowledged, end, gathered, batch }
    }

    /// Adds a message to the batch.
    fn gather(&mut self, message: Bytes) {
        self.gathered.reserve(4 + if message.len() <= GATHERED { message.len() } else { 0 });
        self.gathered.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
        if message.len() <= GATHERED {
            self.gathered.put(message);
        } else {
            self.batch.push(self.gathered.split().freeze());
            self.batch.push(message);
        }
    }

    /// Writes the batch: everything at once if the peer's flow control allows, else as it does.
    async fn flush(&mut self) -> Result<(), TransportError> {
        if !self.gathered.is_empty() {
            // Taken, not split off: what is left of a buffer would hold all of it until the next message.
            self.batch.push(std::mem::take(&mut self.gathered).freeze());
        }
        if self.batch.is_empty() {
            return Ok(());
        }
        let control = match &mut self.control {
            Control::Open(control) => control,
            // The client opens it right after the session; until then there is nobody to talk to.
            Control::Awaited(opening) => {
                let opened = opening.await.map_err(|_| TransportError::Lost("no control stream".to_owned()))?;
                self.control = Control::Open(opened);
                match &mut self.control {
                    Control::Open(control) => control,
                    Control::Awaited(_) => return Ok(()),
                }
            }
        };
        let written = control.write_all_chunks(&mut self.batch).await.map_err(|error| error.to_string());
        self.batch.clear();
        match written {
            Ok(()) => Ok(()),
            Err(error) => {
                // A client that closes also stops the stream. The reader knows the code; it shall be first to say so.
                let _ = Box::pin(timeout(CLOSE, self.end.wait())).await;
                Err(TransportError::Lost(format!("the control stream can't be written: {error}")))
            }
        }
    }

    async fn close_in_order(&mut self, code: u32, reason: &str) {
        let peer_is_done = matches!(self.end.get(), Some(End::Closed(_) | End::Lost(_)));
        if peer_is_done {
            self.connect.lock().await.finish().await;
            (&mut self.acknowledged).await;
            return;
        }
        // A browser drops what it hasn't read of a stream when the session closes, so the last messages are brought
        // over before the close is said.
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
        if matches!(self.end.wait().await, End::Broken(_)) {
            (&mut self.acknowledged).await;
        }
    }
}

impl Outbound for WebTransportOutbound {
    async fn send(&mut self, frames: &mut Vec<Outgoing>) -> Result<(), TransportError> {
        let (mut compact, mut drain) = (Vec::new(), false);
        for frame in frames.drain(..) {
            match frame {
                Outgoing::Message(message) => self.gather(message),
                Outgoing::Compact(message) => compact.push(message),
                Outgoing::Drain => drain = true,
                // QUIC's keep-alive.
                Outgoing::Ping => {}
            }
        }
        if drain {
            // What is rare is boxed: a session would have the place for it all its life.
            let drained = Box::pin(async { self.connect.lock().await.capsule(capsule::drain()).await }).await;
            drained.map_err(|error| TransportError::Lost(error.to_string()))?;
        }
        // Messages first: datagrams may have to wait.
        self.flush().await?;
        for message in compact {
            if !self.datagrams.try_send(&message) {
                Box::pin(self.datagrams.send(&message)).await?;
            }
        }
        Ok(())
    }

    fn express(&self) -> Option<Arc<dyn Express>> {
        Some(Arc::new(self.datagrams.clone()))
    }

    async fn close(mut self, code: CloseCode, reason: &str) {
        let number = u32::from(code.number());
        let in_order = timeout(CLOSE, self.close_in_order(number, reason)).await.is_ok();
        // A peer that didn't answer may not have the capsule; QUIC's close carries code and reason too.
        if in_order {
            let _ = timeout(LINGER, self.datagrams.connection().closed()).await;
            self.datagrams.connection().close(codes::NO_ERROR, b"");
        } else {
            self.datagrams.connection().close(codes::to_quic(number), reason.as_bytes());
        }
    }
}

impl Control {
    fn opened(&mut self) -> Option<&mut quic::SendStream> {
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
