//! WebTransport sessions ([`tandem_webtransport`]) as a [`Transport`], and HTTP/3 requests for the router.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::ConnectInfo;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use tandem_webtransport::{
    Application, Datagram, Received, RequestBody, ResponseBody, SessionDatagrams, SessionError, SessionReader,
    SessionRefusal, SessionWriter, Violation, WebTransportEvent, WebTransportServer, WebTransportSession,
};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use super::origin::OriginGuard;
use super::quic::QuicListener;
use super::{Accept, Public, SessionRefused};
use crate::domain::{CloseCode, CompactBytes, TransportKind};
use crate::session::transport::{DatagramSender, Frame, Inbound, Outbound, Outgoing, Transport, TransportError};
use crate::telemetry::names;
use crate::vital::Vital;

/// The path at which a session is opened.
pub const PATH: &str = "/wt";

/// The listener's dependencies.
#[derive(Debug, Clone)]
pub struct WebTransportListener<A> {
    /// Takes the sessions.
    pub accept: A,
    /// The web pages that may open one.
    pub origins: OriginGuard,
    /// Answers all other requests; they carry [`Public`] and `ConnectInfo<SocketAddr>`.
    pub router: axum::Router,
    /// Bytes of a JSON message, at most.
    pub message_bytes: usize,
    /// Bytes of a request's body, at most.
    pub body_bytes: usize,
}

/// Serves until `stop`, and after it until the sessions have ended. All tasks run on `tracker`; the loss of an endpoint
/// is reported to `vital`.
pub fn serve<A: Accept>(
    listener: QuicListener,
    server: WebTransportListener<A>,
    tracker: &TaskTracker,
    stop: CancellationToken,
    vital: &Vital,
) {
    let message_bytes = server.message_bytes;
    let server = WebTransportListener { router: server.router.layer(axum::Extension(Public)), ..server };
    let server = WebTransportServer {
        message_bytes,
        violation_code: number(CloseCode::ProtocolError),
        observe,
        ..WebTransportServer::new(PATH, server)
    };
    for driver in tandem_webtransport::serve(listener, server, tracker, stop.clone()) {
        tracker.spawn(vital.clone().guard("a QUIC endpoint", stop.clone(), driver));
    }
}

impl<A: Accept> Application for WebTransportListener<A> {
    type Permit = A::Permit;

    fn check(&self, request: &Request<()>) -> Result<(), SessionRefusal> {
        if self.origins.admits(request.headers(), request.uri().authority()) {
            return Ok(());
        }
        Err(SessionRefusal { status: StatusCode::FORBIDDEN, retry_after: None, outcome: "origin" })
    }

    fn admit(&self, peer: IpAddr) -> Result<A::Permit, SessionRefusal> {
        self.accept.admit(peer).map_err(|refused| {
            let (outcome, retry_after) = match refused {
                SessionRefused::Full { retry_after } => ("full", Some(retry_after)),
                SessionRefused::Draining => ("draining", None),
            };
            SessionRefusal { status: StatusCode::SERVICE_UNAVAILABLE, retry_after, outcome }
        })
    }

    fn serve(&self, session: WebTransportSession, permit: A::Permit) -> BoxFuture<'static, ()> {
        self.accept.serve(WebTransport(session), permit)
    }

    fn answer(&self, request: Request<RequestBody>, peer: SocketAddr) -> BoxFuture<'static, Response<ResponseBody>> {
        if announced(request.headers()).is_some_and(|bytes| bytes > self.body_bytes as u64) {
            let mut response = Response::new(ResponseBody::default());
            *response.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
            return std::future::ready(response).boxed();
        }
        let mut request = request.map(|body| Body::new(Limited::new(body, self.body_bytes)));
        request.extensions_mut().insert(ConnectInfo(peer));
        let answer = self.router.clone().oneshot(request);
        async move {
            let Ok(response) = answer.await;
            response.map(|body| ResponseBody::new(body.map_err(Into::into)))
        }
        .boxed()
    }
}

fn announced(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn number(code: CloseCode) -> u32 {
    u32::from(code.number())
}

fn observe(event: WebTransportEvent) {
    match event {
        WebTransportEvent::ConnectionOpened => metrics::gauge!(names::QUIC_CONNECTIONS).increment(1.0),
        WebTransportEvent::ConnectionClosed => metrics::gauge!(names::QUIC_CONNECTIONS).decrement(1.0),
        WebTransportEvent::Request { outcome } => {
            metrics::counter!(names::WEBTRANSPORT_REQUESTS, "outcome" => outcome).increment(1);
        }
        WebTransportEvent::StreamRefused { reason } => {
            metrics::counter!(names::WEBTRANSPORT_STREAMS_REFUSED, "reason" => reason).increment(1);
        }
        WebTransportEvent::DatagramInDropped { reason } => dropped("in", reason),
        WebTransportEvent::DatagramOutDropped { reason } => dropped("out", reason),
    }
}

fn dropped(direction: &'static str, reason: &'static str) {
    metrics::counter!(names::DATAGRAMS_DROPPED, "direction" => direction, "reason" => reason).increment(1);
}

struct WebTransport(WebTransportSession);

impl Transport for WebTransport {
    type Inbound = WebTransportInbound;
    type Outbound = WebTransportOutbound;

    fn kind(&self) -> TransportKind {
        TransportKind::WebTransport
    }

    fn peer(&self) -> IpAddr {
        self.0.peer()
    }

    fn split(self) -> (WebTransportInbound, WebTransportOutbound) {
        let (reader, writer) = self.0.split();
        (WebTransportInbound(reader), WebTransportOutbound(writer))
    }
}

struct WebTransportInbound(SessionReader);

impl Inbound for WebTransportInbound {
    async fn next(&mut self) -> Result<Frame, TransportError> {
        match self.0.next().await {
            Ok(Received::Message(message)) => Ok(Frame::Message(message)),
            Ok(Received::Datagram(payload)) => Ok(Frame::Compact(payload)),
            Ok(Received::Closed(code)) => Ok(Frame::Closed(code)),
            Err(error) => Err(failure(error)),
        }
    }
}

fn failure(error: SessionError) -> TransportError {
    let code = match &error {
        SessionError::Violation(Violation::TooLong { .. }) => CloseCode::TooBig,
        SessionError::Violation(_) | SessionError::MalformedClose(_) => CloseCode::ProtocolError,
        _ => return TransportError::Lost(error.into()),
    };
    TransportError::Violation { code, reason: error.to_string() }
}

struct WebTransportOutbound(SessionWriter);

impl Outbound for WebTransportOutbound {
    async fn send(&mut self, frames: &mut Vec<Outgoing>) -> Result<(), TransportError> {
        let (mut compact, mut drain) = (Vec::new(), false);
        for frame in frames.drain(..) {
            match frame {
                Outgoing::Message(message) => self.0.queue(message),
                Outgoing::Compact(message) => compact.push(datagram(&message)),
                Outgoing::Drain => drain = true,
                // QUIC's keep-alive does it.
                Outgoing::Ping => {}
            }
        }
        // What is rare is boxed: a future is as large as its largest state for all its life.
        if drain {
            Box::pin(self.0.drain()).await.map_err(failure)?;
        }
        // Messages first: datagrams may have to wait.
        self.0.flush().await.map_err(failure)?;
        for datagram in compact {
            let datagrams = self.0.datagrams();
            if !datagrams.try_send(&datagram) {
                let sent = Box::pin(datagrams.send(&datagram)).await;
                sent.map_err(|error| TransportError::Lost(error.into()))?;
            }
        }
        Ok(())
    }

    fn datagrams(&self) -> Option<Arc<dyn DatagramSender>> {
        Some(Arc::new(self.0.datagrams().clone()))
    }

    async fn close(self, code: CloseCode, reason: &str) {
        self.0.close(number(code), reason).await;
    }
}

impl DatagramSender for SessionDatagrams {
    fn try_send(&self, message: &CompactBytes) -> bool {
        Self::try_send(self, &datagram(message))
    }

    fn rtt(&self) -> Duration {
        self.repaired_rtt()
    }
}

/// The message with the byte before it that WebTransport wants, shared.
fn datagram(message: &CompactBytes) -> Datagram {
    const { assert!(CompactBytes::PREFIX == Datagram::PREFIX) };
    Datagram::from_prefixed(message.datagram())
}
