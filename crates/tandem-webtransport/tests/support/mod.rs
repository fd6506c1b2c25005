//! A server with an echo session, and clients for it.

mod client;

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
pub(crate) use client::*;
use futures_util::future::BoxFuture;
use tandem_webtransport::quic::{QuicListener, QuicOptions};
use tandem_webtransport::{
    Application, Datagram, Received, SessionError, SessionReader, SessionRefusal, WebTransportServer,
    WebTransportSession, serve,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The code with which the echo session closes what breaks the rules.
pub(crate) const VIOLATION: u32 = 4000;

/// One thing that the echo session saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seen {
    Opened(IpAddr),
    Message(Bytes),
    Datagram(Bytes),
    Closed(u32),
    Lost,
    Violation(String),
}

/// Sends everything back, and knows a few commands.
#[derive(Clone)]
pub(crate) struct EchoApplication {
    seen: mpsc::Sender<Seen>,
    /// Drops and repeats each read all the time.
    impatient: bool,
    stop: CancellationToken,
}

impl Application for EchoApplication {
    type Permit = ();

    fn admit(&self, _: IpAddr) -> Result<(), SessionRefusal> {
        Ok(())
    }

    fn serve(&self, session: WebTransportSession, (): ()) -> BoxFuture<'static, ()> {
        let echo = self.clone();
        Box::pin(async move { echo.serve(session).await })
    }
}

impl EchoApplication {
    async fn serve(&self, session: WebTransportSession) {
        self.see(Seen::Opened(session.peer())).await;
        let (mut reader, mut writer) = session.split();
        loop {
            match self.next(&mut reader).await {
                Ok(Received::Message(message)) => {
                    self.see(Seen::Message(message.clone())).await;
                    // What can't be sent is told by the reader.
                    match &message[..] {
                        b"close" => return writer.close(4007, "removed by the höst").await,
                        b"farewell" => {
                            writer.queue(Bytes::from(vec![b'l'; 60_000]));
                            writer.flush().await.unwrap();
                            return writer.close(4007, "bye").await;
                        }
                        b"drain" => drop(writer.drain().await),
                        b"vanish" => return,
                        b"stall" => return self.stop.cancelled().await,
                        _ => {
                            writer.queue(message);
                            let _ = writer.flush().await;
                        }
                    }
                }
                Ok(Received::Datagram(payload)) => {
                    self.see(Seen::Datagram(payload.clone())).await;
                    let _ = writer.datagrams().send(&Datagram::new(&payload)).await;
                }
                Ok(Received::Closed(code)) => {
                    self.see(Seen::Closed(code)).await;
                    return writer.close(0, "").await;
                }
                Err(error @ (SessionError::Violation(_) | SessionError::MalformedClose(_))) => {
                    self.see(Seen::Violation(error.to_string())).await;
                    return writer.close(VIOLATION, &error.to_string()).await;
                }
                Err(_) => return self.see(Seen::Lost).await,
            }
            assert!(writer.datagrams().rtt() > Duration::ZERO);
        }
    }

    async fn see(&self, seen: Seen) {
        // Tests that don't look have dropped the receiver.
        let _ = self.seen.send(seen).await;
    }

    async fn next(&self, reader: &mut SessionReader) -> Result<Received, SessionError> {
        loop {
            tokio::select! {
                received = reader.next() => return received,
                () = tokio::time::sleep(Duration::from_micros(200)), if self.impatient => {}
            }
        }
    }
}

/// A running server.
pub(crate) struct TestServer {
    at: ServerAddress,
    pub(crate) tracker: TaskTracker,
    pub(crate) stop: CancellationToken,
    pub(crate) seen: mpsc::Receiver<Seen>,
}

impl TestServer {
    pub(crate) fn start() -> Self {
        Self::with(QuicOptions::default(), false)
    }

    pub(crate) fn with(options: QuicOptions, impatient: bool) -> Self {
        let (certificate, key) = certificate();
        let options = QuicOptions { socket_buffer_bytes: 200_000, endpoints: 1, ..options };
        let listener = QuicListener::bind(([127, 0, 0, 1], 0).into(), key, options).unwrap();
        let address = listener.local_addr();
        let (sender, seen) = mpsc::channel(10_000);
        let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
        let echo = EchoApplication { seen: sender, impatient, stop: stop.clone() };
        let server = WebTransportServer { violation_code: VIOLATION, ..WebTransportServer::new("/wt", echo) };
        for driver in serve(listener, server, &tracker, stop.clone()) {
            tracker.spawn(driver);
        }
        Self { at: ServerAddress { address, certificate }, tracker, stop, seen }
    }

    /// A server with an open session of a raw HTTP/3 client.
    pub(crate) async fn with_h3_session() -> (Self, H3, RequestStream) {
        let mut server = Self::start();
        let mut client = server.h3().await;
        let session = client.session(&server).await;
        server.opened().await;
        (server, client, session)
    }

    /// A server with an open session.
    pub(crate) async fn with_session() -> (Self, web_transport_quinn::Session) {
        let mut server = Self::start();
        let session = server.connect().await;
        server.opened().await;
        (server, session)
    }

    pub(crate) async fn sees(&mut self) -> Seen {
        soon("the session to see something", self.seen.recv()).await.unwrap()
    }

    pub(crate) async fn opened(&mut self) {
        assert_eq!(self.sees().await, Seen::Opened(IpAddr::from([127, 0, 0, 1])));
    }

    /// Stops and waits until no task is left.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.tracker.close();
        soon("all tasks to end", self.tracker.wait()).await;
        assert_eq!(self.tracker.len(), 0);
    }

    pub(crate) async fn wtransport(&self) -> wtransport::Connection {
        let config = wtransport::ClientConfig::builder()
            .with_bind_address(([127, 0, 0, 1], 0).into())
            .with_no_cert_validation()
            .build();
        let endpoint = wtransport::Endpoint::client(config).unwrap();
        soon("a session", endpoint.connect(self.url("/wt"))).await.unwrap()
    }
}

impl std::ops::Deref for TestServer {
    type Target = ServerAddress;
    fn deref(&self) -> &ServerAddress {
        &self.at
    }
}
