//! WebSocket connections through both listeners, from the upgrade to the close.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod edge;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use edge::{Parts, Site, site, site_with, within};
use futures_util::future::FutureExt;
use futures_util::{SinkExt, StreamExt};
use tandem::domain::{CloseCode, Limits, TransportKind};
use tandem::quota::Caps;
use tandem::session::transport::{Frame, Inbound, Outbound, Outgoing, Transport, TransportError};
use tandem::transport::tcp::Timeouts;
use tandem::transport::websocket::{WebSocketInbound, WebSocketOutbound, WebSocketTransport};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, client_async, connect_async};

type Client = WebSocketStream<MaybeTlsStream<TcpStream>>;
type Server = (WebSocketInbound, WebSocketOutbound);

/// A site whose sessions are handed to the test: it is the session. A session task ends when the test drops its guard.
struct Fixture {
    site: Site,
    sessions: mpsc::Receiver<(WebSocketTransport, tokio::sync::oneshot::Sender<()>)>,
}

impl Fixture {
    async fn new() -> Self {
        Self::with(Parts::default()).await
    }

    async fn with(parts: Parts) -> Self {
        let (parts, sessions) = handing_over(parts);
        Self { site: site(parts).await, sessions }
    }

    async fn connect(&mut self) -> (Client, Server, tokio::sync::oneshot::Sender<()>) {
        let (client, _) = within(connect_async(format!("ws://{}/ws", self.site.plain))).await.unwrap();
        let (transport, guard) = within(self.sessions.recv()).await.unwrap();
        assert_eq!((transport.kind(), transport.peer().is_loopback()), (TransportKind::WebSocket, true));
        (client, transport.split(), guard)
    }

    async fn refusal(&self, headers: &[(&'static str, &str)]) -> u16 {
        let mut request = format!("ws://{}/ws", self.site.plain).into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        match within(connect_async(request)).await {
            Ok(_) => 101,
            Err(Error::Http(response)) => response.status().as_u16(),
            Err(other) => panic!("{other}"),
        }
    }
}

fn handing_over(mut parts: Parts) -> (Parts, mpsc::Receiver<(WebSocketTransport, tokio::sync::oneshot::Sender<()>)>) {
    let (hand_over, sessions) = mpsc::channel(16);
    parts.serve = Arc::new(move |transport| {
        let hand_over = hand_over.clone();
        async move {
            let (guard, dropped) = tokio::sync::oneshot::channel();
            hand_over.send((transport, guard)).await.ok();
            let _ = dropped.await;
        }
        .boxed()
    });
    (parts, sessions)
}

async fn next(inbound: &mut WebSocketInbound) -> Result<Frame, TransportError> {
    within(inbound.next()).await
}

#[tokio::test]
async fn text_is_a_message_and_binary_is_compact_in_both_directions_and_in_order() {
    let mut fixture = Fixture::new().await;
    let (mut client, (mut inbound, mut outbound), _guard) = fixture.connect().await;
    client.feed(Message::text("{\"type\":\"PING\"}")).await.unwrap();
    client.send(Message::binary(vec![1, 2, 3])).await.unwrap();
    assert!(matches!(next(&mut inbound).await.unwrap(), Frame::Message(text) if text == "{\"type\":\"PING\"}"));
    assert!(matches!(next(&mut inbound).await.unwrap(), Frame::Compact(bytes) if bytes[..] == [1, 2, 3]));

    let shared = Bytes::from_static("{\"é\":1}".as_bytes());
    let mut frames: Vec<_> = (0..100)
        .flat_map(|n| [Outgoing::Message(shared.clone()), Outgoing::Drain, Outgoing::Compact([n][..].into())])
        .collect();
    outbound.send(&mut frames).await.unwrap();
    assert!(frames.is_empty());
    for n in 0..100 {
        assert_eq!(within(client.next()).await.unwrap().unwrap(), Message::text("{\"é\":1}"));
        assert_eq!(within(client.next()).await.unwrap().unwrap(), Message::binary(vec![n]));
    }
}

#[tokio::test]
async fn a_session_comes_through_the_tls_port_too() {
    let mut fixture = Fixture::new().await;
    let tcp = TcpStream::connect(fixture.site.tls).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(fixture.site.trusting()));
    let stream = within(connector.connect("localhost".try_into().unwrap(), tcp)).await.unwrap();
    let (mut client, response) =
        within(client_async(fixture.site.https("/ws").replace("https", "wss"), stream)).await.unwrap();
    assert_eq!(response.headers()["alt-svc"], "h3=\":4433\"; ma=86400");
    let (transport, _guard) = within(fixture.sessions.recv()).await.unwrap();
    let (mut inbound, _outbound) = transport.split();
    client.send(Message::text("x")).await.unwrap();
    assert!(matches!(next(&mut inbound).await.unwrap(), Frame::Message(_)));
}

#[tokio::test]
async fn an_origin_that_is_not_on_the_list_is_refused_with_403() {
    let fixture = Fixture::with(Parts { origins: "https://a.example,chrome-extension://*", ..Parts::default() }).await;
    assert_eq!(fixture.refusal(&[("origin", "https://b.example")]).await, 403);
    assert_eq!(fixture.refusal(&[("origin", "null")]).await, 403);
    assert_eq!(fixture.refusal(&[("origin", "https://a.example")]).await, 101);
    assert_eq!(fixture.refusal(&[("origin", "chrome-extension://abcdef")]).await, 101);
    assert_eq!(fixture.refusal(&[]).await, 101, "not a browser");
}

#[tokio::test]
async fn what_is_not_a_websocket_handshake_is_told_so() {
    let fixture = Fixture::new().await;
    assert_eq!(fixture.refusal(&[("sec-websocket-version", "12")]).await, 426);
    assert_eq!(fixture.refusal(&[("sec-websocket-key", "short")]).await, 400);
    let client = fixture.site.client();
    assert_eq!(client.get(fixture.site.http("/ws")).send().await.unwrap().status(), 426);
    assert_eq!(client.post(fixture.site.http("/ws")).send().await.unwrap().status(), 405);
}

#[tokio::test]
async fn no_session_is_let_in_while_the_server_drains() {
    let parts = Parts::default();
    let draining = parts.draining.clone();
    let mut fixture = Fixture::with(parts).await;
    let (mut client, (mut inbound, _outbound), _guard) = fixture.connect().await;
    draining.cancel();
    assert_eq!(fixture.refusal(&[]).await, 503);
    client.send(Message::text("still here")).await.unwrap();
    assert!(matches!(next(&mut inbound).await.unwrap(), Frame::Message(_)));
    assert_eq!(fixture.site.client().get(fixture.site.http("/health")).send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_pong_answers_the_latest_ping_with_its_round_trip() {
    let mut fixture = Fixture::new().await;
    let (mut client, (mut inbound, mut outbound), _guard) = fixture.connect().await;
    outbound.send(&mut vec![Outgoing::Ping]).await.unwrap();
    client.send(Message::Pong("unasked".into())).await.unwrap();
    assert!(matches!(next(&mut inbound).await.unwrap(), Frame::Alive { rtt: None }), "another payload");
    let Message::Ping(payload) = within(client.next()).await.unwrap().unwrap() else { panic!("a ping") };
    client.flush().await.unwrap();
    assert!(matches!(next(&mut inbound).await.unwrap(), Frame::Alive { rtt: Some(_) }), "the answer");
    client.send(Message::Pong(payload)).await.unwrap();
    assert!(matches!(next(&mut inbound).await.unwrap(), Frame::Alive { rtt: None }), "the same pong again");
    client.send(Message::Ping("hello".into())).await.unwrap();
    assert!(matches!(next(&mut inbound).await.unwrap(), Frame::Alive { rtt: None }));
    let reading = async { inbound.next().await };
    let answer = async { client.next().await.unwrap().unwrap() };
    tokio::select! {
        biased;
        answer = within(answer) => assert_eq!(answer, Message::Pong("hello".into())),
        _ = reading => panic!("nothing was sent"),
    }
}

#[tokio::test]
async fn a_message_above_the_limit_is_a_violation_and_its_sender_learns_the_code() {
    let mut fixture = Fixture::new().await;
    let most = usize::try_from(Limits::default().message_bytes).unwrap();
    let (mut client, (mut inbound, _outbound), _guard) = fixture.connect().await;
    client.send(Message::text("x".repeat(most))).await.unwrap();
    assert!(matches!(next(&mut inbound).await.unwrap(), Frame::Message(text) if text.len() == most));

    let (client, (mut inbound, outbound), _guard) = fixture.connect().await;
    let (mut send, mut receive) = client.split();
    // Far more than the socket buffers take: the sender is still at it when the close comes.
    let sending = send.send(Message::text("x".repeat(32 << 20)));
    // Both halves go when it is done, and with them the socket.
    let server = async move {
        let Err(TransportError::Violation { code, .. }) = inbound.next().await else { panic!("a violation") };
        assert_eq!(code, CloseCode::TooBig);
        outbound.close(code, "too big").await;
    };
    let client = async {
        let (closed, sent) = tokio::join!(receive.next(), sending);
        // A socket dropped with unread data is reset, and elsewhere than on Linux the reset takes the close frame with
        // it.
        sent.expect("the server read on");
        closed.unwrap().unwrap()
    };
    let closed = within(async {
        tokio::select! {
            closed = client => closed,
            // In one future, so that the socket goes when the server is done with it.
            never = async { server.await; std::future::pending().await } => never,
        }
    })
    .await;
    let Message::Close(Some(frame)) = closed else { panic!("{closed:?}") };
    assert_eq!((u16::from(frame.code), frame.reason.as_str()), (4001, "too big"));
}

#[tokio::test]
async fn what_is_not_websocket_is_a_violation() {
    use tokio::io::AsyncWriteExt;
    let mut fixture = Fixture::new().await;
    let (mut client, (mut inbound, _outbound), _guard) = fixture.connect().await;
    let MaybeTlsStream::Plain(stream) = client.get_mut() else { panic!("plain") };
    stream.write_all(&[0xff; 16]).await.unwrap();
    let Err(TransportError::Violation { code, .. }) = next(&mut inbound).await else { panic!("a violation") };
    assert_eq!(code, CloseCode::ProtocolError);
}

#[tokio::test]
async fn text_that_is_not_utf8_is_a_violation() {
    use tokio_tungstenite::tungstenite::protocol::frame::{Frame as Raw, coding};
    let mut fixture = Fixture::new().await;
    let (mut client, (mut inbound, _outbound), _guard) = fixture.connect().await;
    let frame = Raw::message(vec![0xc3, 0x28], coding::OpCode::Data(coding::Data::Text), true);
    client.send(Message::Frame(frame)).await.unwrap();
    let Err(TransportError::Violation { code, .. }) = next(&mut inbound).await else { panic!("a violation") };
    assert_eq!(code, CloseCode::ProtocolError);
}

#[tokio::test]
async fn the_server_ends_with_its_code_and_a_reason_cut_to_fit() {
    let mut fixture = Fixture::new().await;
    let (mut client, (inbound, outbound), _guard) = fixture.connect().await;
    drop(inbound);
    let reason = "é".repeat(100);
    let (_, closed) = within(async {
        tokio::join!(outbound.close(CloseCode::Kicked, &reason), async {
            let closed = client.next().await.unwrap().unwrap();
            assert!(client.next().await.is_none(), "in order on this side too");
            drop(client);
            closed
        })
    })
    .await;
    let Message::Close(Some(frame)) = closed else { panic!("{closed:?}") };
    assert_eq!((u16::from(frame.code), frame.reason.as_str()), (4006, "é".repeat(60).as_str()));
}

#[tokio::test]
async fn the_client_ends_with_its_code_or_is_lost_without_one() {
    let mut fixture = Fixture::new().await;
    for (frame, code) in [(Some(CloseFrame { code: 4321.into(), reason: "bye".into() }), 4321), (None, 1005)] {
        let (mut client, (mut inbound, outbound), _guard) = fixture.connect().await;
        client.close(frame).await.unwrap();
        assert!(matches!(next(&mut inbound).await, Ok(Frame::Closed(given)) if given == code));
        let rest = async {
            // The close is answered, then the connection ends.
            while let Some(Ok(_)) = client.next().await {}
            drop(client);
        };
        within(async { tokio::join!(outbound.close(CloseCode::Normal, ""), rest) }).await;
    }
    let (client, (mut inbound, _outbound), _guard) = fixture.connect().await;
    drop(client);
    assert!(matches!(next(&mut inbound).await, Err(TransportError::Lost(_))));
}

#[tokio::test]
async fn a_client_that_does_not_read_makes_the_write_wait_and_no_buffer_grow() {
    let mut fixture = Fixture::new().await;
    let (_client, (_inbound, mut outbound), _guard) = fixture.connect().await;
    let message = Bytes::from("x".repeat(60_000));
    let flood = async {
        for _ in 0..10_000 {
            outbound.send(&mut vec![Outgoing::Message(message.clone())]).await.unwrap();
        }
    };
    assert!(tokio::time::timeout(Duration::from_millis(500), flood).await.is_err(), "600 MB went somewhere");
}

#[tokio::test]
async fn shutdown_waits_for_upgraded_sockets() {
    let mut fixture = Fixture::new().await;
    let (mut client, (mut inbound, _outbound), guard) = fixture.connect().await;
    fixture.site.stop.cancel();
    fixture.site.tracker.close();
    // The listeners end, the session is still there.
    while TcpStream::connect(fixture.site.plain).await.is_ok() {
        tokio::task::yield_now().await;
    }
    client.send(Message::text("on my way out")).await.unwrap();
    assert!(matches!(next(&mut inbound).await.unwrap(), Frame::Message(_)));
    assert!(fixture.site.tracker.wait().now_or_never().is_none(), "a session is open");
    drop(guard);
    within(fixture.site.tracker.wait()).await;
}

#[tokio::test]
async fn a_session_holds_its_connections_place_until_it_ends() {
    let (parts, mut sessions) = handing_over(Parts::default());
    let site = site_with(parts, Timeouts::default(), Caps::new(1, None)).await;
    let url = format!("ws://{}/ws", site.plain);
    let (_client, _) = within(connect_async(url.as_str())).await.unwrap();
    let (_transport, guard) = within(sessions.recv()).await.unwrap();
    assert!(within(connect_async(url.as_str())).await.is_err(), "the only place is taken");
    drop(guard);
    within(async {
        while site.caps.held() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    within(connect_async(url.as_str())).await.unwrap();
}

/// A client's frame of up to 125 bytes, masked with zeros.
fn raw_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    [&[first, 0x80 | payload.len() as u8, 0, 0, 0, 0], payload].concat()
}

#[tokio::test]
async fn fragments_of_a_message_are_counted_the_empty_ones_too() {
    use tokio::io::AsyncWriteExt;
    let mut fixture = Fixture::new().await;
    let (mut client, (mut inbound, _outbound), _guard) = fixture.connect().await;
    let MaybeTlsStream::Plain(stream) = client.get_mut() else { panic!("plain") };
    let whole = [raw_frame(0x01, b"{\"a\""), raw_frame(0x00, b""), raw_frame(0x80, b":1}")].concat();
    stream.write_all(&whole).await.unwrap();
    assert!(matches!(next(&mut inbound).await.unwrap(), Frame::Message(text) if text == "{\"a\":1}"));
    let endless = [raw_frame(0x01, b""), raw_frame(0x00, b"").repeat(1000)].concat();
    stream.write_all(&endless).await.unwrap();
    let error = next(&mut inbound).await.unwrap_err();
    assert!(matches!(error, TransportError::Violation { code: CloseCode::ProtocolError, .. }), "{error:?}");
}
