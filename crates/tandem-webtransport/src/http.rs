//! Requests that open no session: the same routes as over TCP.

use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Body;
use axum::extract::ConnectInfo;
use bytes::{Buf, Bytes};
use h3::error::StreamError;
use h3::server::RequestStream;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body::{Body as _, Frame};
use http_body_util::Limited;
use tower::ServiceExt;

use super::adapter::{BidiStream, Held, RecvStream, SendStream};

/// A client that takes nothing of an answer for this long gets no more of it.
const STALL: Duration = Duration::from_secs(30);
/// What a client must take in that time at least.
const PIECE: usize = 16 * 1024;
/// Fields that speak of a connection of HTTP/1.1; in HTTP/3 they make a message malformed.
const OF_HTTP1: [HeaderName; 5] = [
    CONNECTION,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Asks the router and sends what it says.
pub(super) async fn answer(
    router: axum::Router,
    request: Request<()>,
    stream: RequestStream<BidiStream, Bytes>,
    held: Held,
    peer: SocketAddr,
    body_bytes: usize,
) {
    let (send, recv) = stream.split();
    let head_only = request.method() == Method::HEAD;
    let response = if announced(request.headers()).is_some_and(|bytes| bytes > body_bytes as u64) {
        too_large()
    } else {
        let body = Body::new(Limited::new(RequestBody { recv, held }, body_bytes));
        match router.oneshot(prepare(request, body, peer)).await {
            Ok(response) => response,
            Err(infallible) => match infallible {},
        }
    };
    if let Err(error) = respond(send, response, head_only).await {
        tracing::trace!(%error, "answer not delivered");
    }
}

fn prepare(request: Request<()>, body: Body, peer: SocketAddr) -> Request<Body> {
    let mut request = request.map(|()| body);
    request.extensions_mut().insert(ConnectInfo(peer));
    // Routes that were written for HTTP/1.1 ask for Host.
    if let Some(host) = request.uri().authority().and_then(|a| HeaderValue::from_str(a.as_str()).ok()) {
        request.headers_mut().entry(HOST).or_insert(host);
    }
    request.headers_mut().remove(TE);
    request
}

fn announced(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn too_large() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::PAYLOAD_TOO_LARGE;
    response
}

/// Why an answer was not delivered whole; its stream is reset then.
#[derive(Debug, thiserror::Error)]
enum Undelivered {
    #[error(transparent)]
    Stream(#[from] StreamError),
    #[error("the body failed: {0}")]
    Body(#[from] axum::Error),
    #[error("the client takes nothing")]
    Stalled(#[from] tokio::time::error::Elapsed),
}

async fn respond(
    mut send: RequestStream<SendStream, Bytes>,
    response: Response<Body>,
    head_only: bool,
) -> Result<(), Undelivered> {
    let (mut parts, body) = response.into_parts();
    for name in OF_HTTP1 {
        parts.headers.remove(name);
    }
    let has_body = !head_only && !matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    tokio::time::timeout(STALL, send.send_response(Response::from_parts(parts, ()))).await??;
    if has_body {
        let mut body = pin!(body);
        while let Some(frame) = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
            match frame?.into_data() {
                // In pieces, each with the time of its own: a film takes a slow reader longer than that.
                Ok(mut data) => {
                    while !data.is_empty() {
                        let piece = data.split_to(data.len().min(PIECE));
                        tokio::time::timeout(STALL, send.send_data(piece)).await??;
                    }
                }
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        tokio::time::timeout(STALL, send.send_trailers(trailers)).await??;
                    }
                }
            }
        }
    }
    send.finish().await?;
    Ok(())
}

/// A request's body as it arrives. Dropped early, it tells the client to stop sending.
struct RequestBody {
    recv: RequestStream<RecvStream, Bytes>,
    held: Held,
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = StreamError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, StreamError>>> {
        match ready!(self.recv.poll_recv_data(cx)) {
            Ok(Some(mut data)) => {
                let data = data.copy_to_bytes(data.remaining());
                self.held.delivered(data.len());
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Ok(None) => Poll::Ready(None),
            Err(error) => Poll::Ready(Some(Err(error))),
        }
    }
}
