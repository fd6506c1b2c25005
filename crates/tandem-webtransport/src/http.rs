//! Requests that open no session.

use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use h3::error::StreamError;
use h3::server::RequestStream;
use http::header::{CONNECTION, HOST, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body::{Body as _, Frame};

use crate::h3_adapter::{H3BidiStream, H3RecvStream, H3SendStream};
use crate::h3_workarounds::held_bytes::HeldBytes;
use crate::{Application, ResponseBody};

/// A client must take a piece of the answer within this time, or the answer ends.
const STALL: Duration = Duration::from_secs(30);
/// Bytes of a piece.
const PIECE: usize = 16 * 1024;
/// Connection-specific fields of HTTP/1.1, which make a message of HTTP/3 malformed (RFC 9114 §4.2).
const CONNECTION_SPECIFIC: [HeaderName; 5] = [
    CONNECTION,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Answers a request by the application.
pub(crate) async fn answer<A: Application>(
    application: &A,
    request: Request<()>,
    stream: RequestStream<H3BidiStream, Bytes>,
    held: HeldBytes,
    peer: SocketAddr,
) {
    let (send, recv) = stream.split();
    let head_only = request.method() == Method::HEAD;
    let response = application.answer(prepare(request, RequestBody { recv, held }), peer).await;
    if let Err(error) = respond(send, response, head_only).await {
        tracing::trace!(%error, "answer not delivered");
    }
}

fn prepare(request: Request<()>, body: RequestBody) -> Request<RequestBody> {
    let mut request = request.map(|()| body);
    // Code that was written for HTTP/1.1 asks for Host.
    if let Some(host) = request.uri().authority().and_then(|a| HeaderValue::from_str(a.as_str()).ok()) {
        request.headers_mut().entry(HOST).or_insert(host);
    }
    request.headers_mut().remove(TE);
    request
}

/// Why an answer was not delivered completely. Its stream is reset then.
#[derive(Debug, thiserror::Error)]
enum Undelivered {
    #[error(transparent)]
    Stream(#[from] StreamError),
    #[error("the body failed: {0}")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the client takes nothing")]
    Stalled(#[from] tokio::time::error::Elapsed),
}

async fn respond(
    mut send: RequestStream<H3SendStream, Bytes>,
    response: Response<ResponseBody>,
    head_only: bool,
) -> Result<(), Undelivered> {
    let (mut parts, body) = response.into_parts();
    for name in CONNECTION_SPECIFIC {
        parts.headers.remove(name);
    }
    let has_body = !head_only && !matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    tokio::time::timeout(STALL, send.send_response(Response::from_parts(parts, ()))).await??;
    if has_body {
        let mut body = pin!(body);
        while let Some(frame) = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
            match frame.map_err(Undelivered::Body)?.into_data() {
                // Each piece has its own time: a large body takes a slow reader longer than `STALL`.
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

/// A request's body as it arrives. Dropping it early asks the client to stop sending.
pub struct RequestBody {
    recv: RequestStream<H3RecvStream, Bytes>,
    held: HeldBytes,
}

/// A request's body can't be read to its end.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct BodyError(#[from] StreamError);

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match ready!(self.recv.poll_recv_data(cx)) {
            Ok(Some(mut data)) => {
                let data = data.copy_to_bytes(data.remaining());
                self.held.delivered(data.len());
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Ok(None) => Poll::Ready(None),
            Err(error) => Poll::Ready(Some(Err(error.into()))),
        }
    }
}
