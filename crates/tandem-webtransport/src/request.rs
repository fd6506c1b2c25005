//! One request: a CONNECT that opens the session, or another, which the application answers.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use ::http::header::{ALLOW, RETRY_AFTER};
use ::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use h3::error::{Code, StreamError};
use h3::proto::frame::Frame;
use h3::server::{RequestResolver, RequestStream};
use tandem_quic::QuicConnection;
use tandem_wake::select_first;
use tokio::sync::{Mutex, SetOnce};
use tokio::time::timeout;

use crate::connect::{ConnectRecv, ConnectSend};
use crate::h3_adapter::{H3BidiStream, H3Connection};
use crate::h3_workarounds::connect_protocol::{self, ConnectProtocol};
use crate::h3_workarounds::held_bytes::HeldBytes;
use crate::session::{SessionParts, WebTransportSession};
use crate::slot::WebTransportSlot;
use crate::{Application, SessionRefusal, WebTransportEvent, WebTransportServer, codes, http};

/// Time for a request's header fields, and for the answer to a CONNECT.
const FIELDS: Duration = Duration::from_secs(10);
/// Clients of draft-02 announce it and want it confirmed.
const DRAFT_OFFERED: HeaderName = HeaderName::from_static("sec-webtransport-http3-draft02");
const DRAFT_CHOSEN: HeaderName = HeaderName::from_static("sec-webtransport-http3-draft");

type H3RequestStream = RequestStream<H3BidiStream, Bytes>;

/// Shared by the requests of a connection.
pub(crate) struct Requests<A> {
    pub(crate) server: Arc<WebTransportServer<A>>,
    pub(crate) slot: Arc<WebTransportSlot>,
    pub(crate) connection: QuicConnection,
}

impl<A> Clone for Requests<A> {
    fn clone(&self) -> Self {
        Self { server: Arc::clone(&self.server), slot: Arc::clone(&self.slot), connection: self.connection.clone() }
    }
}

enum Route {
    Session,
    Application,
    Refusal(SessionRefusal),
}

impl<A: Application> Requests<A> {
    /// Answers one request, to the end of its session if it opens one.
    pub(crate) fn answer(
        self,
        resolver: RequestResolver<H3Connection, Bytes>,
        held: HeldBytes,
        acknowledged: BoxFuture<'static, ()>,
    ) -> impl Future<Output = ()> + Send {
        // Boxed: it is several times as large as the session that it may become, and soon over.
        let begin = Box::pin(self.begin(resolver, held, acknowledged));
        async move {
            if let Some(opened) = begin.await {
                opened.await;
            }
        }
    }

    /// Answers a request, or returns the session that it opens.
    async fn begin(
        self,
        resolver: RequestResolver<H3Connection, Bytes>,
        held: HeldBytes,
        acknowledged: BoxFuture<'static, ()>,
    ) -> Option<BoxFuture<'static, ()>> {
        let (request, protocol, mut stream) = match timeout(FIELDS, resolve(resolver, &held)).await {
            Ok(Ok(resolved)) => resolved,
            Ok(Err(error)) => {
                tracing::trace!(%error, "request could not be read");
                self.slot.count_useless("request");
                return None;
            }
            Err(_) => {
                self.slot.count_useless("request");
                return None;
            }
        };
        match route(&request, protocol, self.server.path) {
            Route::Session => return self.open(&request, stream, held, acknowledged).await,
            Route::Refusal(refusal) => self.refuse(&mut stream, refusal).await,
            Route::Application => {
                let peer = self.connection.remote_address();
                // A handler must not outlive the client that it works for.
                tokio::select! {
                    () = http::answer(&self.server.application, request, stream, held, peer) => {}
                    _ = self.connection.closed() => {}
                }
            }
        }
        None
    }

    async fn open(
        &self,
        request: &Request<()>,
        mut stream: H3RequestStream,
        held: HeldBytes,
        acknowledged: BoxFuture<'static, ()>,
    ) -> Option<BoxFuture<'static, ()>> {
        let application = &self.server.application;
        if let Err(refusal) = application.check(request) {
            self.refuse(&mut stream, refusal).await;
            return None;
        }
        let id = stream.id().into_inner();
        let Some(control) = self.slot.claim(id) else {
            // As the draft asks of a server whose limit of sessions is reached.
            self.count("second");
            stream.stop_sending(Code::H3_REQUEST_REJECTED);
            stream.stop_stream(Code::H3_REQUEST_REJECTED);
            return None;
        };
        let peer = self.connection.remote_address().ip().to_canonical();
        let permit = match application.admit(peer) {
            Ok(permit) => permit,
            Err(refusal) => {
                self.slot.release();
                self.refuse(&mut stream, refusal).await;
                return None;
            }
        };
        let mut fields = HeaderMap::new();
        if request.headers().contains_key(DRAFT_OFFERED) {
            fields.insert(DRAFT_CHOSEN, HeaderValue::from_static("draft02"));
        }
        // A client that doesn't take the answer must not keep the slot.
        if !matches!(timeout(FIELDS, stream.send_response(response(StatusCode::OK, fields))).await, Ok(Ok(()))) {
            self.slot.release();
            self.count("unanswered");
            return None;
        }
        self.count("ok");
        let (send, recv) = stream.split();
        let connect = Arc::new(Mutex::new(ConnectSend::new(send)));
        let end = Arc::new(SetOnce::new());
        let connection = self.connection.clone();
        let recv = ConnectRecv { stream: recv, held, connection: connection.clone() };
        let (message_bytes, observe) = (self.server.message_bytes, self.server.observe);
        let capsules = recv.run(Arc::clone(&connect), Arc::clone(&end));
        let parts = SessionParts { connection, id, peer, message_bytes, control, connect, acknowledged, end, observe };
        let serving = application.serve(WebTransportSession::new(parts), permit);
        Some(self.run(serving, Box::pin(capsules)))
    }

    /// The application's future beside the reader of capsules; the connection is closed when it ends or is dropped.
    fn run(&self, mut serving: BoxFuture<'static, ()>, mut capsules: BoxFuture<'static, ()>) -> BoxFuture<'static, ()> {
        let closes = ClosesConnection(self.connection.clone());
        Box::pin(async move {
            let _closes = closes;
            select_first([serving.as_mut(), capsules.as_mut()]).await;
        })
    }

    async fn refuse(
        &self,
        stream: &mut H3RequestStream,
        SessionRefusal { status, retry_after, outcome }: SessionRefusal,
    ) {
        self.count(outcome);
        let mut fields = HeaderMap::new();
        if status == StatusCode::METHOD_NOT_ALLOWED {
            fields.insert(ALLOW, HeaderValue::from_static("CONNECT"));
        }
        if let Some(after) = retry_after {
            fields.insert(RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)));
        }
        // Fails where the client didn't wait for the answer.
        if stream.send_response(response(status, fields)).await.is_ok() {
            let _ = stream.finish().await;
        }
    }

    fn count(&self, outcome: &'static str) {
        (self.server.observe)(WebTransportEvent::Request { outcome });
    }
}

/// Reads the header fields.
async fn resolve(
    mut resolver: RequestResolver<H3Connection, Bytes>,
    held: &HeldBytes,
) -> Result<(Request<()>, Option<ConnectProtocol>, H3RequestStream), StreamError> {
    let first = std::future::poll_fn(|cx| resolver.frame_stream.poll_next(cx)).await;
    let (first, protocol) = match first {
        Ok(Some(Frame::Headers(section))) => {
            held.delivered(section.len());
            let (section, protocol) = connect_protocol::extract(section);
            (Ok(Some(Frame::Headers(section))), protocol)
        }
        other => (other, None),
    };
    let (request, stream) = resolver.accept_with_frame(first)?.resolve().await?;
    Ok((request, protocol, stream))
}

fn route(request: &Request<()>, protocol: Option<ConnectProtocol>, path: &str) -> Route {
    let refusal = |status, outcome| Route::Refusal(SessionRefusal { status, retry_after: None, outcome });
    let at_path = request.uri().path() == path;
    match (request.method() == Method::CONNECT, protocol) {
        (false, _) if at_path => refusal(StatusCode::METHOD_NOT_ALLOWED, "method"),
        (false, _) => Route::Application,
        (true, Some(ConnectProtocol::WebTransport)) if at_path => Route::Session,
        (true, Some(ConnectProtocol::WebTransport)) => refusal(StatusCode::NOT_FOUND, "path"),
        (true, _) => refusal(StatusCode::NOT_IMPLEMENTED, "protocol"),
    }
}

fn response(status: StatusCode, fields: HeaderMap) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.headers_mut() = fields;
    response
}

/// Closes the connection when the session's task ends, even by a panic.
struct ClosesConnection(QuicConnection);

impl Drop for ClosesConnection {
    fn drop(&mut self) {
        self.0.close(codes::NO_ERROR, b"");
    }
}
