//! One request: whose it is, and the answer to a CONNECT.

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
use tokio::sync::{Mutex, SetOnce};
use tokio::time::timeout;

use super::adapter::{self, BidiStream, Held};
use super::connect::{ConnectRecv, ConnectSend};
use super::protocol::{self, Protocol};
use super::session::{Parts, WebTransportSession};
use super::slot::{Control, Slot};
use super::{PATH, Server, codes, http};
use crate::rota::first_of;
use crate::telemetry::names;
use crate::transport::{Accept, Refused, quic};

/// Time for a request's header fields.
const FIELDS: Duration = Duration::from_secs(10);
/// Early clients announce this draft and want it confirmed.
const DRAFT_OFFERED: HeaderName = HeaderName::from_static("sec-webtransport-http3-draft02");
const DRAFT_CHOSEN: HeaderName = HeaderName::from_static("sec-webtransport-http3-draft");

type Stream = RequestStream<BidiStream, Bytes>;

/// What the requests of a connection share.
pub(super) struct Requests<A> {
    pub(super) server: Arc<Server<A>>,
    pub(super) slot: Arc<Slot>,
    pub(super) connection: quic::Connection,
}

impl<A> Clone for Requests<A> {
    fn clone(&self) -> Self {
        Self { server: Arc::clone(&self.server), slot: Arc::clone(&self.slot), connection: self.connection.clone() }
    }
}

/// Who answers.
enum Route {
    Session,
    Router,
    Refusal(StatusCode, &'static str),
}

impl<A: Accept> Requests<A> {
    /// Answers one request, to the end of its session if it opens one.
    pub(super) fn answer(
        self,
        resolver: RequestResolver<adapter::Connection, Bytes>,
        held: Held,
        acknowledged: BoxFuture<'static, ()>,
    ) -> impl Future<Output = ()> + Send {
        // In a box of its own: it is several times as large as what a session needs of it for its life.
        let begin = Box::pin(self.begin(resolver, held, acknowledged));
        async move {
            if let Some(opened) = begin.await {
                opened.await;
            }
        }
    }

    /// Answers a request, or hands out the session that it opens.
    async fn begin(
        self,
        resolver: RequestResolver<adapter::Connection, Bytes>,
        held: Held,
        acknowledged: BoxFuture<'static, ()>,
    ) -> Option<BoxFuture<'static, ()>> {
        let (request, protocol, mut stream) = match timeout(FIELDS, resolve(resolver, &held)).await {
            Ok(Ok(resolved)) => resolved,
            Ok(Err(error)) => {
                tracing::trace!(%error, "request could not be read");
                self.slot.strike("request");
                return None;
            }
            Err(_) => {
                self.slot.strike("request");
                return None;
            }
        };
        match route(&request, protocol) {
            Route::Session => return self.open(&request, stream, held, acknowledged).await,
            Route::Refusal(status, outcome) => refuse(&mut stream, status, outcome, None).await,
            Route::Router => {
                let (router, limit, peer) =
                    (self.server.router.clone(), self.server.body_bytes, self.connection.remote_address());
                // A handler must not outlive the client that it works for.
                tokio::select! {
                    () = http::answer(router, request, stream, held, peer, limit) => {}
                    _ = self.connection.closed() => {}
                }
            }
        }
        None
    }

    async fn open(
        &self,
        request: &Request<()>,
        mut stream: Stream,
        held: Held,
        acknowledged: BoxFuture<'static, ()>,
    ) -> Option<BoxFuture<'static, ()>> {
        if !self.server.origins.admits(request.headers(), request.uri().authority()) {
            refuse(&mut stream, StatusCode::FORBIDDEN, "origin", None).await;
            return None;
        }
        let id = stream.id().into_inner();
        let Some(control) = self.slot.claim(id) else {
            // What the draft asks of a server whose limit of sessions is reached.
            count("second");
            stream.stop_sending(Code::H3_REQUEST_REJECTED);
            stream.stop_stream(Code::H3_REQUEST_REJECTED);
            return None;
        };
        let peer = self.connection.remote_address().ip().to_canonical();
        let permit = match self.server.accept.admit(peer) {
            Ok(permit) => permit,
            Err(refused) => {
                self.slot.release();
                let (outcome, retry_after) = match refused {
                    Refused::Full { retry_after } => ("full", Some(retry_after)),
                    Refused::Draining => ("draining", None),
                };
                refuse(&mut stream, StatusCode::SERVICE_UNAVAILABLE, outcome, retry_after).await;
                return None;
            }
        };
        let mut fields = HeaderMap::new();
        if request.headers().contains_key(DRAFT_OFFERED) {
            fields.insert(DRAFT_CHOSEN, HeaderValue::from_static("draft02"));
        }
        // A client that takes no answer must not keep the place of the session that it never had.
        if !matches!(timeout(FIELDS, stream.send_response(response(StatusCode::OK, fields))).await, Ok(Ok(()))) {
            self.slot.release();
            count("unanswered");
            return None;
        }
        count("ok");
        Some(self.run(id, peer, permit, control, stream, held, acknowledged))
    }

    #[expect(clippy::too_many_arguments, reason = "what an opened session consists of, used once")]
    fn run(
        &self,
        id: u64,
        peer: std::net::IpAddr,
        permit: A::Permit,
        control: Control,
        stream: Stream,
        held: Held,
        acknowledged: BoxFuture<'static, ()>,
    ) -> BoxFuture<'static, ()> {
        let connection = self.connection.clone();
        let closes = ClosesConnection(connection.clone());
        let (send, recv) = stream.split();
        let connect = Arc::new(Mutex::new(ConnectSend::new(send)));
        let end = Arc::new(SetOnce::new());
        let recv = ConnectRecv { stream: recv, held, connection: connection.clone() };
        let mut capsules = Box::pin(recv.run(Arc::clone(&connect), Arc::clone(&end)));
        let message_bytes = self.server.message_bytes;
        let session = WebTransportSession::new(Parts {
            connection,
            id,
            peer,
            message_bytes,
            control,
            connect,
            acknowledged,
            end,
        });
        let mut serving = self.server.accept.serve(session, permit);
        Box::pin(async move {
            let _closes = closes;
            first_of([serving.as_mut(), capsules.as_mut()]).await;
        })
    }
}

/// Reads the header fields.
async fn resolve(
    mut resolver: RequestResolver<adapter::Connection, Bytes>,
    held: &Held,
) -> Result<(Request<()>, Option<Protocol>, Stream), StreamError> {
    let first = std::future::poll_fn(|cx| resolver.frame_stream.poll_next(cx)).await;
    let (first, protocol) = match first {
        Ok(Some(Frame::Headers(section))) => {
            held.delivered(section.len());
            let (section, protocol) = protocol::extract(section);
            (Ok(Some(Frame::Headers(section))), protocol)
        }
        other => (other, None),
    };
    let (request, stream) = resolver.accept_with_frame(first)?.resolve().await?;
    Ok((request, protocol, stream))
}

fn route(request: &Request<()>, protocol: Option<Protocol>) -> Route {
    let at_path = request.uri().path() == PATH;
    match (request.method() == Method::CONNECT, protocol) {
        (false, _) if at_path => Route::Refusal(StatusCode::METHOD_NOT_ALLOWED, "method"),
        (false, _) => Route::Router,
        (true, Some(Protocol::WebTransport)) if at_path => Route::Session,
        (true, Some(Protocol::WebTransport)) => Route::Refusal(StatusCode::NOT_FOUND, "path"),
        (true, _) => Route::Refusal(StatusCode::NOT_IMPLEMENTED, "protocol"),
    }
}

async fn refuse(stream: &mut Stream, status: StatusCode, outcome: &'static str, retry_after: Option<Duration>) {
    count(outcome);
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

fn response(status: StatusCode, fields: HeaderMap) -> Response<()> {
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.headers_mut() = fields;
    response
}

fn count(outcome: &'static str) {
    metrics::counter!(names::WEBTRANSPORT_REQUESTS, "outcome" => outcome).increment(1);
}

/// A session's connection ends with it, however the session's task does.
struct ClosesConnection(quic::Connection);

impl Drop for ClosesConnection {
    fn drop(&mut self) {
        self.0.close(codes::NO_ERROR, b"");
    }
}
