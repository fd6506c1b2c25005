//! The two TCP listeners: what a connection may do, how long, and how it ends.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod edge;

use std::sync::Arc;
use std::time::Duration;

use edge::{Parts, site, site_with, within};
use futures_util::future::FutureExt;
use serde_json::Value;
use tandem::http::probe::{self, ProbeUrl};
use tandem::quota::Caps;
use tandem::transport::tcp::{Timeouts, bind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[tokio::test]
async fn https_offers_http3_and_plain_http_does_not() {
    let site = site(Parts::default()).await;
    let client = site.client();
    let secure = within(client.get(site.https("/health")).send()).await.unwrap();
    assert_eq!(secure.version(), http::Version::HTTP_2);
    assert_eq!(secure.headers()["alt-svc"], "h3=\":4433\"; ma=86400");
    let plain = within(client.get(site.http("/health")).send()).await.unwrap();
    assert!(!plain.headers().contains_key("alt-svc"));
    let transports: Value =
        within(client.get(site.https("/api/transports")).send()).await.unwrap().json().await.unwrap();
    assert_eq!(transports["websocket"]["url"], format!("wss://localhost:{}/ws", site.tls.port()));
}

#[tokio::test]
async fn a_port_that_is_taken_is_named_with_its_setting() {
    let taken = bind("PORT", "127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = taken.local_addr().unwrap();
    let error = bind("QUIC_PORT", address).await.unwrap_err().to_string();
    assert!(error.starts_with("QUIC_PORT: ") && error.contains(&address.to_string()), "{error}");
}

#[tokio::test]
async fn connections_that_say_nothing_are_ended() {
    let short = Duration::from_millis(50);
    let timeouts = Timeouts { handshake: short, header: short, drain: short, ..Timeouts::default() };
    let site = site_with(Parts::default(), timeouts, Caps::new(100, None)).await;
    for (address, says) in [
        (site.plain, ""),
        (site.plain, "GET / HTTP/1.1\r\nHost"),
        (site.plain, "PRI * HT"),
        (site.tls, ""),
        (site.tls, "\x16\x03"),
    ] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(says.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "{says:?} holds a connection to {address}");
    }
    for protocol in ["h2", "http/1.1"] {
        let mut client = site.trusting();
        client.alpn_protocols = vec![protocol.as_bytes().to_vec()];
        let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
        let tcp = TcpStream::connect(site.tls).await.unwrap();
        let mut stream = connector.connect("localhost".try_into().unwrap(), tcp).await.unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut Vec::new())).await;
        assert!(ended.is_ok(), "a silent {protocol} client holds a connection");
    }
    within(async {
        while site.caps.held() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_connection_beyond_the_cap_is_closed_and_its_place_comes_back() {
    let site = site_with(Parts::default(), Timeouts::default(), Caps::new(1, None)).await;
    let mut first = TcpStream::connect(site.plain).await.unwrap();
    let request = b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n";
    first.write_all(request).await.unwrap();
    assert!(within(first.read(&mut [0; 1024])).await.unwrap() > 0);
    let mut second = TcpStream::connect(site.plain).await.unwrap();
    assert_eq!(within(second.read(&mut [0; 16])).await.unwrap_or(0), 0, "closed without an answer");
    drop(first);
    within(async {
        loop {
            let mut third = TcpStream::connect(site.plain).await.unwrap();
            if third.write_all(request).await.is_ok() && third.read(&mut [0; 16]).await.unwrap_or(0) > 0 {
                break;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn shutdown_lets_a_request_finish_and_ends_idle_connections() {
    let (arrived, mut at_handler) = tokio::sync::mpsc::channel(1);
    let (release, released) = tokio::sync::watch::channel(false);
    let parts = Parts::default();
    let slow = move || {
        let (arrived, mut released) = (arrived.clone(), released.clone());
        async move {
            arrived.send(()).await.ok();
            released.wait_for(|released| *released).await.ok();
            "whole"
        }
    };
    let site = edge::site_of(&parts, parts.router().route("/slow", axum::routing::get(slow))).await;
    let mut idle = TcpStream::connect(site.plain).await.unwrap();
    let (client, url) = (site.client(), site.http("/slow"));
    let asking =
        tokio::task::JoinSet::from_iter([async move { client.get(url).send().await.unwrap().text().await.unwrap() }]);
    within(at_handler.recv()).await.unwrap();
    site.stop.cancel();
    site.tracker.close();
    assert_eq!(within(idle.read(&mut [0; 16])).await.unwrap_or(0), 0);
    assert!(site.tracker.wait().now_or_never().is_none(), "a request is under way");
    release.send(true).unwrap();
    assert_eq!(within(asking.join_all()).await, ["whole"]);
    within(site.tracker.wait()).await;
}

#[tokio::test]
async fn the_health_command_asks_over_tcp() {
    let site = site(Parts::default()).await;
    let ask = |path: &str| {
        let url = ProbeUrl::parse(&site.http(path)).unwrap();
        tokio::task::spawn_blocking(move || probe::ask(&url))
    };
    assert_eq!(within(ask("/health")).await.unwrap(), Ok(()));
    assert!(within(ask("/nowhere")).await.unwrap().unwrap_err().contains("404"));
    site.stop.cancel();
    site.tracker.close();
    within(site.tracker.wait()).await;
    assert!(within(ask("/health")).await.unwrap().is_err());
    for wrong in ["https://a/", "a:1", "http://"] {
        assert!(ProbeUrl::parse(wrong).is_err(), "{wrong}");
    }
}

/// A site whose page is too large for the buffers on the way, and that waits for no reader.
async fn site_with_much_to_say() -> edge::Site {
    let big = bytes::Bytes::from(vec![b'x'; 32 << 20]);
    let parts = Parts {
        assets: Arc::new(move |_| {
            Some(tandem::http::demo::Asset { bytes: big.clone(), content_type: "video/webm", etag: "\"big\"".into() })
        }),
        ..Parts::default()
    };
    let timeouts = Timeouts { stall: Duration::from_millis(300), ..Timeouts::default() };
    site_with(parts, timeouts, Caps::new(100, None)).await
}

async fn nobody_is_held(site: &edge::Site) {
    within(async {
        while site.caps.held() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_reader_that_takes_nothing_of_its_answer_is_ended() {
    let site = site_with_much_to_say().await;
    let mut reader = TcpStream::connect(site.plain).await.unwrap();
    reader.write_all(b"GET /film.webm HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    within(reader.readable()).await.unwrap();
    nobody_is_held(&site).await;
}

#[tokio::test]
async fn a_reader_that_only_asks_and_never_reads_is_ended() {
    let site = site_with_much_to_say().await;
    let mut reader = TcpStream::connect(site.plain).await.unwrap();
    let asking = async {
        // Until the server, which can't answer, reads no more, or has had enough.
        while reader.write_all(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n").await.is_ok() {}
    };
    within(asking).await;
    nobody_is_held(&site).await;
}

#[tokio::test]
async fn a_reader_of_http2_that_opens_no_window_is_ended() {
    let site = site_with_much_to_say().await;
    let mut tls = site.trusting();
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let tcp = TcpStream::connect(site.tls).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(tls));
    let stream = connector.connect("localhost".try_into().unwrap(), tcp).await.unwrap();
    let executor = hyper_util::rt::TokioExecutor::new();
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut requests, connection) = hyper::client::conn::http2::Builder::new(executor)
        .initial_stream_window_size(1000)
        .handshake::<_, axum::body::Body>(io)
        .await
        .unwrap();
    let driver = tokio_util::task::TaskTracker::new();
    driver.spawn(connection);
    let request = http::Request::get("https://localhost/film.webm").body(axum::body::Body::empty()).unwrap();
    // The client answers pings all the time; only its window stays as it is.
    let _unread = within(requests.send_request(request)).await.unwrap();
    nobody_is_held(&site).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_on_all_addresses_is_healthy_where_the_machine_has_ipv4_only() {
    use tandem::config::cli::{CliCommand, parse};
    // As in a container without IPv6: nobody answers at ::1.
    let site = site(Parts::default()).await;
    let settings = [("HOST", "::".to_owned()), ("PORT", site.plain.port().to_string())];
    let environment = settings.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
    let Ok(CliCommand::Health(url)) = parse(["tandem", "health"], &environment) else { panic!("no probe") };
    let asked = tokio::task::spawn_blocking(move || probe::ask(&url));
    assert_eq!(within(asked).await.unwrap(), Ok(()));
}

#[tokio::test]
async fn a_listener_on_all_addresses_takes_ipv4_too() {
    let listener = bind("PORT", "[::]:0".parse().unwrap()).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (connected, accepted) =
        within(async { tokio::join!(TcpStream::connect(("127.0.0.1", port)), listener.accept()) }).await;
    assert!(connected.is_ok() && accepted.is_ok());
}

#[tokio::test]
async fn the_last_descriptors_are_for_probes_on_the_plain_port() {
    let parts = Parts { descriptors: tandem::transport::tcp::Descriptors::new(5, 2), ..Parts::default() };
    let site = site(parts).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        let mut stream = TcpStream::connect(site.plain).await.unwrap();
        assert!(asked(&mut stream, "/").await.starts_with("HTTP/1.1 200"));
        held.push(stream);
    }
    let mut public = TcpStream::connect(site.tls).await.unwrap();
    assert_eq!(within(public.read(&mut [0; 16])).await.unwrap_or(0), 0, "closed without an answer");
    for (path, status) in [("/health", "200"), ("/status", "200"), ("/", "503"), ("/ws", "503")] {
        let mut stream = TcpStream::connect(site.plain).await.unwrap();
        let answer = asked(&mut stream, path).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{path}: {answer}");
        let mut rest = Vec::new();
        within(stream.read_to_end(&mut rest)).await.unwrap();
    }
}

/// Asks on a connection; as much of the answer as comes first.
async fn asked(stream: &mut TcpStream, path: &str) -> String {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = vec![0; 4096];
    let length = within(stream.read(&mut answer)).await.unwrap();
    String::from_utf8_lossy(&answer[..length]).into_owned()
}
