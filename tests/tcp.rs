//! The two TCP listeners: what a connection may do, how long, and how it ends.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod edge;

use std::sync::Arc;
use std::time::Duration;

use edge::{Parts, site, site_with, within};
use futures_util::future::FutureExt;
use serde_json::Value;
use tandem::http::probe::{self, ProbeUrl};
use tandem::session::Caps;
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
    let timeouts = Timeouts { handshake: short, header: short, drain: short };
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
