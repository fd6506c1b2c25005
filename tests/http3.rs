//! HTTP/3 beside the sessions: settings, routes, refusals.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/webtransport.rs"]
mod support;

use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::ConnectInfo;
use axum::routing::{get as on_get, post as on_post};
use axum::{Extension, Router};
use bytes::{Buf, Bytes};
use h3::ext::Protocol;
use http::{Request, StatusCode};
use support::{H3, Setup, TestServer, connect_request, framed, get, soon, webtransport};
use tandem::quota::Caps;
use tandem::transport::{Public, SessionRefused};
use tandem_quic::{BindError, QuicListener, QuicOptions};

fn router() -> Router {
    Router::new()
        .route("/hello", on_get(|| async { "hello" }))
        .route("/peer", on_get(|ConnectInfo(peer): ConnectInfo<SocketAddr>| async move { peer.to_string() }))
        .route("/public", on_get(|public: Option<Extension<Public>>| async move { public.is_some().to_string() }))
        .route("/host", on_get(|headers: http::HeaderMap| async move { headers["host"].to_str().unwrap().to_owned() }))
        .route("/count", on_post(|body: Bytes| async move { body.len().to_string() }))
        .route("/big", on_get(|| async { vec![b'x'; 1_000_000] }))
        .route("/never", on_get(|| async { std::future::pending::<()>().await }))
}

fn server() -> TestServer {
    TestServer::with(Setup { router: router(), ..Setup::default() })
}

async fn status(server: &TestServer, request: Request<()>) -> StatusCode {
    server.h3().await.connect(request).await.0.status()
}

/// Reads a varint off the front.
fn varint(bytes: &mut Bytes) -> u64 {
    let first = bytes.get_u8();
    (1..1 << (first >> 6)).fold(u64::from(first & 0x3f), |value, _| value << 8 | u64::from(bytes.get_u8()))
}

#[tokio::test]
async fn the_settings_are_those_that_chromium_firefox_and_safari_ask_for() {
    let server = TestServer::start();
    let quic = server.quic().await;
    let mut settings = loop {
        let mut stream = soon("a stream", quic.accept_uni()).await.unwrap();
        let mut first = soon("data", stream.read_chunk(500, true)).await.unwrap().unwrap().bytes;
        if varint(&mut first) == 0 {
            break first;
        }
    };
    assert_eq!(varint(&mut settings), 4, "SETTINGS come first");
    assert_eq!(varint(&mut settings), settings.len() as u64);
    let mut pairs = Vec::new();
    while settings.has_remaining() {
        pairs.push((varint(&mut settings), varint(&mut settings)));
    }
    for wanted in [(0x08, 1), (0x33, 1), (0x2b60_3742, 1), (0xc671_706a, 1)] {
        assert!(pairs.contains(&wanted), "{wanted:#x?} in {pairs:#x?}");
    }
    for unwanted in [0x14e9_cd29, 0x2c7c_f000] {
        assert!(pairs.iter().all(|(id, _)| *id != unwanted), "Safari would ask for flow control");
    }
    quic.close(0u32.into(), b"");
    server.stop().await;
}

#[tokio::test]
async fn other_requests_go_to_the_router() {
    let server = server();
    let mut client = server.h3().await;
    let (response, body) = client.ask(get(&server.url("/hello"))).await;
    assert_eq!((response.status(), &body[..]), (StatusCode::OK, &b"hello"[..]));
    assert_eq!(response.headers()["content-length"], "5");
    assert_eq!(client.ask(get(&server.url("/public"))).await.1, "true");
    assert_eq!(client.ask(get(&server.url("/host"))).await.1, format!("127.0.0.1:{}", server.address.port()));
    let peer: SocketAddr =
        std::str::from_utf8(&client.ask(get(&server.url("/peer"))).await.1).unwrap().parse().unwrap();
    assert!(peer.ip().is_loopback());
    assert_eq!(client.ask(get(&server.url("/big"))).await.1.len(), 1_000_000);
    assert_eq!(client.ask(get(&server.url("/nothing"))).await.0.status(), StatusCode::NOT_FOUND);
    client.quic.close(0u32.into(), b"");
    server.stop().await;
}

#[tokio::test]
async fn head_is_answered_without_a_body() {
    let server = server();
    let mut client = server.h3().await;
    let head = Request::builder().method("HEAD").uri(server.url("/hello")).body(()).unwrap();
    let (response, body) = client.ask(head).await;
    assert_eq!((response.status(), body), (StatusCode::OK, Bytes::new()));
    assert_eq!(response.headers()["content-length"], "5");
    client.quic.close(0u32.into(), b"");
    server.stop().await;
}

#[tokio::test]
async fn a_request_body_is_streamed_up_to_its_limit() {
    let server = server();
    let mut client = server.h3().await;
    let post = || Request::builder().method("POST").uri(server.url("/count")).body(()).unwrap();
    for (pieces, expected) in [(3, StatusCode::OK), (11, StatusCode::PAYLOAD_TOO_LARGE)] {
        let mut stream = client.send(post()).await;
        for _ in 0..pieces {
            // Fails once the server has refused.
            let _ = stream.send_data(Bytes::from(vec![1; 10_000])).await;
        }
        let _ = stream.finish().await;
        assert_eq!(soon("a response", stream.recv_response()).await.unwrap().status(), expected);
    }
    let mut announced = post();
    announced.headers_mut().insert("content-length", 100_001.into());
    assert_eq!(client.connect(announced).await.0.status(), StatusCode::PAYLOAD_TOO_LARGE);
    client.quic.close(0u32.into(), b"");
    server.stop().await;
}

#[tokio::test]
async fn a_slow_request_holds_up_neither_the_others_nor_the_session_and_ends_with_its_client() {
    let mut server = server();
    let mut client = server.h3().await;
    let _never = client.send(get(&server.url("/never"))).await;
    let (mut half, _answer) = client.quic.open_bi().await.unwrap();
    half.write_all(&[0x40]).await.unwrap(); // a stream that doesn't say what it is
    assert_eq!(client.ask(get(&server.url("/hello"))).await.1, "hello");
    let session = client.session(&server).await;
    server.opened().await;
    let (mut send, mut recv) = client.stream(session.id().into_inner() as u8).await;
    send.write_all(&framed(b"hello")).await.unwrap();
    let mut echo = [0; 9];
    soon("the echo", recv.read_exact(&mut echo)).await.unwrap();
    assert_eq!(echo[..], framed(b"hello"));
    client.quic.close(0u32.into(), b"");
    server.stop().await;
}

#[tokio::test]
async fn a_connect_that_asks_for_something_else_is_refused_with_the_reason() {
    let server = server();
    assert_eq!(status(&server, webtransport(&server.url("/other"))).await, StatusCode::NOT_FOUND);
    assert_eq!(status(&server, webtransport(&server.url("/wt/"))).await, StatusCode::NOT_FOUND);
    let udp = connect_request(&server.url("/wt"), Protocol::CONNECT_UDP);
    assert_eq!(status(&server, udp).await, StatusCode::NOT_IMPLEMENTED);
    let plain = Request::builder().method("CONNECT").uri(server.url("/wt")).body(()).unwrap();
    assert_eq!(status(&server, plain).await, StatusCode::NOT_IMPLEMENTED);
    let (response, _) = server.h3().await.ask(get(&server.url("/wt"))).await;
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(response.headers()["allow"], "CONNECT");
    server.stop().await;
}

#[tokio::test]
async fn an_origin_that_is_not_allowed_is_forbidden() {
    let server = TestServer::with(Setup { origins: "https://example.org", ..Setup::default() });
    for (origin, expected) in [
        (None, StatusCode::OK),
        (Some("https://example.org"), StatusCode::OK),
        (Some("https://evil.example"), StatusCode::FORBIDDEN),
    ] {
        let mut request = webtransport(&server.url("/wt?with=query"));
        if let Some(origin) = origin {
            request.headers_mut().insert("origin", origin.parse().unwrap());
        }
        assert_eq!(status(&server, request).await, expected, "{origin:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn without_a_place_the_answer_is_503_and_when_to_come_again() {
    let full = SessionRefused::Full { retry_after: Duration::from_secs(7) };
    for (refused, retry_after) in [(full, Some("7")), (SessionRefused::Draining, None)] {
        let server = TestServer::with(Setup { refuses: Some(refused), ..Setup::default() });
        let mut client = server.h3().await;
        let (early, mut answer) = client.stream(4).await;
        let first = client.ask(get(&server.url("/"))).await.0;
        assert_eq!(first.status(), StatusCode::NOT_FOUND);
        let (response, _) = client.connect(webtransport(&server.url("/wt"))).await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers().get("retry-after").map(|v| v.to_str().unwrap()), retry_after);
        // The stream that waited for the session waits no longer.
        assert_eq!(soon("the stop", early.stopped()).await.unwrap(), Some(0x3994_bd84u32.into()));
        assert!(soon("the reset", answer.received_reset()).await.unwrap().is_some());
        client.quic.close(0u32.into(), b"");
        server.stop().await;
    }
}

#[tokio::test]
async fn a_second_session_on_a_connection_is_rejected_and_the_first_goes_on() {
    let mut server = server();
    let mut client = server.h3().await;
    let _first = client.session(&server).await;
    server.opened().await;
    let mut second = client.send(webtransport(&server.url("/wt"))).await;
    let rejected = soon("an answer", second.recv_response()).await.unwrap_err();
    assert!(rejected.to_string().contains("H3_REQUEST_REJECTED"), "{rejected}");
    let (mut send, mut recv) = client.stream(0).await;
    send.write_all(&framed(b"hello")).await.unwrap();
    let mut echo = [0; 9];
    soon("the echo", recv.read_exact(&mut echo)).await.unwrap();
    client.quic.close(0u32.into(), b"");
    server.stop().await;
}

#[tokio::test]
async fn the_name_of_the_newer_drafts_opens_a_session() {
    let mut server = TestServer::start();
    let client = H3::over(server.quic().await).await;
    let (mut send, mut recv) = client.quic.open_bi().await.unwrap();
    // :method CONNECT, :scheme https (static table), then literals.
    let mut fields = vec![0, 0, 0xc0 | 15, 0xc0 | 23];
    for (name, value) in [(":authority", "localhost"), (":path", "/wt"), (":protocol", "webtransport-h3")] {
        if name.len() < 7 {
            fields.push(0x20 | name.len() as u8);
        } else {
            fields.extend([0x27, name.len() as u8 - 7]);
        }
        fields.extend(name.bytes());
        fields.push(value.len() as u8);
        fields.extend(value.bytes());
    }
    send.write_all(&[&[1, fields.len() as u8], &fields[..]].concat()).await.unwrap();
    let mut answer = [0; 5];
    soon("an answer", recv.read_exact(&mut answer)).await.unwrap();
    assert_eq!(answer, [1, 3, 0, 0, 0xc0 | 25], "HEADERS with :status 200");
    server.opened().await;
    client.quic.close(0u32.into(), b"");
    server.stop().await;
}

#[tokio::test]
async fn a_header_section_without_end_is_not_kept() {
    let server = server();
    let quic = server.quic().await;
    let mut client = H3::over(quic.clone()).await;
    let (mut send, _recv) = quic.open_bi().await.unwrap();
    send.write_all(&[0x01, 0xc0, 0, 0, 1, 0, 0, 0, 0]).await.unwrap(); // HEADERS of 4 GiB
    let flood = async { while send.write_all(&[0; 4096]).await.is_ok() {} };
    soon("the server to have enough", flood).await;
    assert_eq!(client.ask(get(&server.url("/hello"))).await.1, "hello");
    quic.close(0u32.into(), b"");
    server.stop().await;
}

#[tokio::test]
async fn a_connection_beyond_the_limit_is_refused() {
    let options = QuicOptions { limits: std::sync::Arc::new(Caps::new(1, None)), ..Setup::default().options };
    let server = TestServer::with(Setup { options, ..Setup::default() });
    let first = server.quic().await;
    let refused = soon("an answer", tokio::time::timeout(Duration::from_secs(60), server.try_quic())).await.unwrap();
    assert!(matches!(refused, Err(quinn::ConnectionError::ConnectionClosed(_))), "{refused:?}");
    first.close(0u32.into(), b"");
    server.stop().await;
}

#[tokio::test]
async fn above_a_number_of_handshakes_a_client_proves_its_address_first() {
    let options = QuicOptions { retry_above: 0, ..Setup::default().options };
    let server = TestServer::with(Setup { options, router: router(), ..Setup::default() });
    let mut client = server.h3().await;
    assert_eq!(client.ask(get(&server.url("/hello"))).await.1, "hello");
    client.quic.close(0u32.into(), b"");
    server.stop().await;
}

#[tokio::test]
async fn a_hello_in_two_packets_is_waited_for() {
    // As browsers send it. What the client allows is not known after the first packet; HTTP/3 once started there, and
    // waited for streams for ever.
    let server = server();
    let stop = server.stop.clone();
    let path = support::hesitant_path(server.address, &server.tracker, stop).await;
    let many = (0..60).map(|n| format!("a-protocol-with-a-long-name-{n}").into_bytes());
    let tls = server.tls(many.chain([b"h3".to_vec()]).collect());
    let quic = soon("a connection", support::client(tls, |_| {}).connect(path, "localhost").unwrap()).await.unwrap();
    let mut client = H3::over(quic).await;
    let asked = client.ask(get(&server.url("/hello")));
    // The handshake's own time limit would wake the server, too late.
    let answer = tokio::time::timeout(QuicOptions::default().handshake / 3, asked).await;
    assert_eq!(answer.expect("an answer in time").1, "hello");
    client.quic.close(0u32.into(), b"");
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_allows_no_streams_is_given_up() {
    let options = QuicOptions { handshake: Duration::from_millis(300), ..Setup::default().options };
    let server = TestServer::with(Setup { options, ..Setup::default() });
    let client = support::client(server.tls(vec![b"h3".to_vec()]), |transport| {
        transport.max_concurrent_uni_streams(0u32.into());
    });
    let quic = soon("a connection", client.connect(server.address, "localhost").unwrap()).await.unwrap();
    soon("the end", quic.closed()).await;
    server.stop().await;
}

#[tokio::test]
async fn a_stopped_listener_lets_a_session_go_on_and_accepts_no_other() {
    let mut server = server();
    let mut client = server.h3().await;
    let mut session = client.session(&server).await;
    server.opened().await;
    let (mut send, mut recv) = client.stream(0).await;
    server.stop.cancel();
    let other = tokio::time::timeout(Duration::from_millis(300), server.try_quic()).await;
    assert!(!matches!(other, Ok(Ok(_))), "a new connection was accepted");
    send.write_all(&framed(b"hello")).await.unwrap();
    let mut echo = [0; 9];
    soon("the echo", recv.read_exact(&mut echo)).await.unwrap();
    session.finish().await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn a_port_that_is_taken_is_named_in_the_error() {
    let server = TestServer::start();
    let (_, key) = support::certificate();
    let error = QuicListener::bind(server.address, key, QuicOptions::default()).unwrap_err();
    assert!(matches!(error, BindError::Socket { .. }));
    let text = error.to_string();
    assert!(text.contains("127.0.0.1") && text.contains(&server.address.port().to_string()), "{text}");
    server.stop().await;
}
