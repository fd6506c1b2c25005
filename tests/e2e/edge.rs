//! What the server's other doors say about its rooms.

use bytes::Buf;
use serde_json::json;

use crate::support::client::Carrier::{Quinn, WebSocket, Wtransport};
use crate::support::server::{Place, TestProcess, TestServer, soon, tls, until};

#[tokio::test]
async fn a_short_link_leads_to_a_live_room_and_to_no_other() {
    let server = TestServer::with(&[("SHARE_URL_TEMPLATE", "https://www.netflix.com/?tandemRoom={room}")]).await;
    assert_eq!(server.get("/api/short-id/friday", &[]).await.status(), 404);
    let mut ann = server.connect(Quinn).await;
    ann.join_with("friday", "ann", json!({"protocol": 3, "pin": "4711"})).await;
    let minted = server.get_json("/api/short-id/friday", &[]).await;
    let short = minted["shortId"].as_str().unwrap().to_owned();
    assert_eq!((short.len(), &minted["roomId"]), (7, &json!("friday")));
    assert!(minted["shortUrl"].as_str().unwrap().ends_with(&format!("/room/{short}")), "{minted}");
    assert_eq!(server.get_json("/api/short-id/friday", &[]).await["shortId"], *short);
    let upper = short.to_uppercase();
    let resolved = server.get_json(&format!("/api/room/{upper}"), &[]).await;
    assert_eq!(resolved["roomId"], "friday");
    for path in [format!("/room/{short}"), format!("/room/{short}/4711")] {
        let answer = server.get(&path, &[]).await;
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()["location"]),
            (302, &"https://www.netflix.com/?tandemRoom=friday".parse().unwrap())
        );
    }
    assert_eq!(server.get("/room/zzzzzzz", &[]).await.status(), 404);
    let answer = server.get("/api/room/zzzzzzz", &[("origin", "https://x.example")]).await;
    assert_eq!(
        (answer.status().as_u16(), answer.headers()["access-control-allow-origin"].to_str().unwrap()),
        (404, "*")
    );
    assert_eq!(answer.json::<serde_json::Value>().await.unwrap(), json!({"error": "Room not found"}));
}

#[tokio::test]
async fn a_room_s_history_is_for_its_members_and_keeps_no_secrets() {
    let server = TestServer::start().await;
    let (mut ann, mut bob) = (server.connect(Quinn).await, server.connect(WebSocket).await);
    let anns = ann.join_with("friday", "ann", json!({"protocol": 3, "pin": "4711"})).await;
    let bobs = bob.join("saturday", "bob").await;
    ann.chat("a secret").await;
    ann.until("CHAT").await;
    let token = |state: &serde_json::Value| state["resumeToken"].as_str().unwrap().to_owned();
    let status = async |path: &str, bearer: Option<String>| {
        let bearer = bearer.map(|token| format!("Bearer {token}"));
        let headers: Vec<_> = bearer.iter().map(|bearer| ("authorization", bearer.as_str())).collect();
        server.get(path, &headers).await.status().as_u16()
    };
    assert_eq!(status("/api/rooms/friday/events?userId=ann", None).await, 401);
    assert_eq!(status("/api/rooms/friday/events?userId=ann", Some(token(&bobs))).await, 403);
    assert_eq!(status("/api/rooms/friday/events?userId=bob", Some(token(&bobs))).await, 403);
    assert_eq!(status("/api/rooms/nowhere/events?userId=ann", Some(token(&anns))).await, 403);
    let history = server.history("friday", "ann", &token(&anns)).await;
    let kinds: Vec<_> = history.iter().map(|event| event["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["room_created", "chat"]);
    let text = serde_json::to_string(&history).unwrap();
    assert!(!text.contains("a secret") && !text.contains("argon2") && !text.contains("token"), "{text}");
    // With its membership a member's right is over.
    ann.leave().await;
    ann.closed_with(1000).await;
    until("the right to be over", async || {
        (status("/api/rooms/friday/events?userId=ann", Some(token(&anns))).await == 403).then_some(())
    })
    .await;
}

#[tokio::test]
async fn the_hash_told_is_the_certificate_served_over_quic_and_tcp() {
    use base64::Engine;
    use sha2::Digest;
    let server = TestServer::start().await;
    let transports = server.get_json("/api/transports", &[]).await;
    let told: Vec<_> = transports["webtransport"]["serverCertificateHashes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|hash| hash["value"].as_str().unwrap().to_owned())
        .collect();
    let hash = |certificate: &[u8]| base64::engine::general_purpose::STANDARD.encode(sha2::Sha256::digest(certificate));
    // Both clients accept nothing but these hashes; and the bytes themselves:
    let tcp = tokio::net::TcpStream::connect(server.secure).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(tls(server.certificate())));
    let stream = soon("a handshake", connector.connect("localhost".try_into().unwrap(), tcp)).await.unwrap();
    let over_tcp = hash(&stream.get_ref().1.peer_certificates().unwrap()[0]);
    let quic = h3(&server).await.quic;
    let chain = quic.peer_identity().unwrap().downcast::<Vec<rustls::pki_types::CertificateDer<'static>>>().unwrap();
    assert!(told.contains(&over_tcp) && told.contains(&hash(&chain[0])), "{told:?}");
    assert_eq!(transports["webtransport"]["url"], format!("https://127.0.0.1:{}/wt", server.secure.port()));
    assert_eq!(transports["websocket"]["url"], format!("ws://{}/ws", server.plain));
}

pub(crate) struct H3 {
    quic: quinn::Connection,
    pub(crate) requests: h3::client::SendRequest<h3_quinn::OpenStreams, bytes::Bytes>,
    driver: tokio_util::task::TaskTracker,
}

pub(crate) async fn h3(server: &Place) -> H3 {
    let mut config = tls(server.certificate());
    config.alpn_protocols = vec![b"h3".to_vec()];
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(config).unwrap();
    let mut endpoint = quinn::Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap();
    endpoint.set_default_client_config(quinn::ClientConfig::new(std::sync::Arc::new(crypto)));
    let quic = soon("a connection", endpoint.connect(server.secure, "localhost").unwrap()).await.unwrap();
    let (mut connection, requests) = h3::client::new(h3_quinn::Connection::new(quic.clone())).await.unwrap();
    let driver = tokio_util::task::TaskTracker::new();
    driver.spawn(async move { std::future::poll_fn(|cx| connection.poll_close(cx)).await });
    H3 { quic, requests, driver }
}

#[tokio::test]
async fn the_demo_page_comes_over_http_3_and_a_stop_ends_that_connection_too() {
    let mut server = TestServer::start().await;
    let mut client = h3(&server).await;
    let url = format!("https://localhost:{}/", server.secure.port());
    let request = http::Request::builder().uri(&url).body(()).unwrap();
    let (page, status) = soon("the page", async {
        let mut stream = client.requests.send_request(request).await.unwrap();
        stream.finish().await.unwrap();
        let status = stream.recv_response().await.unwrap().status();
        let mut page = Vec::new();
        while let Some(mut data) = stream.recv_data().await.unwrap() {
            page.extend_from_slice(&data.copy_to_bytes(data.remaining()));
        }
        (String::from_utf8(page).unwrap(), status)
    })
    .await;
    assert!(status.is_success() && page.contains("<html") && page.contains("tandem"), "{page:.200}");
    assert!(!client.driver.is_closed());
    server.stop().await;
    soon("the connection to end", client.quic.closed()).await;
}

#[tokio::test]
async fn status_and_metrics_know_what_is_going_on_and_are_not_public() {
    let server = TestServer::start().await;
    let mut members = Vec::new();
    for (carrier, user) in [(Quinn, "ann"), (WebSocket, "bob"), (Wtransport, "cat")] {
        let mut member = server.connect(carrier).await;
        member.join("friday", user).await;
        members.push(member);
    }
    let status = server.get_json("/status", &[]).await;
    assert_eq!(
        (&status["rooms"], &status["members"], &status["localConnections"]),
        (&json!(1), &json!(3), &json!(3)),
        "{status}"
    );
    assert_eq!(server.get("/ready", &[]).await.status(), 200);
    assert_eq!(server.get_json("/health", &[]).await, json!({"status": "ok", "nodeId": "node-1"}));
    let public = reqwest::Client::builder().tls_backend_preconfigured(tls(server.certificate())).build().unwrap();
    for path in ["/status", "/metrics"] {
        let url = format!("https://localhost:{}{path}", server.secure.port());
        assert_eq!(soon("an answer", public.get(&url).send()).await.unwrap().status(), 404, "{path}");
    }
    members[0].leave().await;
    members[0].closed_with(1000).await;
    until("two to be left", async || (server.get_json("/status", &[]).await["members"] == 2).then_some(())).await;
}

/// A recorder that fails where a refused connection is counted: a panic in the loop that accepts connections.
struct Faulty;

impl metrics::Recorder for Faulty {
    fn describe_counter(&self, _: metrics::KeyName, _: Option<metrics::Unit>, _: metrics::SharedString) {}
    fn describe_gauge(&self, _: metrics::KeyName, _: Option<metrics::Unit>, _: metrics::SharedString) {}
    fn describe_histogram(&self, _: metrics::KeyName, _: Option<metrics::Unit>, _: metrics::SharedString) {}

    fn register_counter(&self, key: &metrics::Key, _: &metrics::Metadata<'_>) -> metrics::Counter {
        assert_ne!(key.name(), "tandem_handshake_failures_total", "injected");
        metrics::Counter::noop()
    }

    fn register_gauge(&self, _: &metrics::Key, _: &metrics::Metadata<'_>) -> metrics::Gauge {
        metrics::Gauge::noop()
    }

    fn register_histogram(&self, _: &metrics::Key, _: &metrics::Metadata<'_>) -> metrics::Histogram {
        metrics::Histogram::noop()
    }
}

#[tokio::test]
async fn a_listener_that_is_gone_ends_the_server() {
    let _faulty = metrics::set_default_local_recorder(&Faulty);
    let mut server = TestServer::with(&[("MAX_SESSIONS_PER_ADDRESS", "1")]).await;
    let mut held = Vec::new();
    // 1.2 × 1 + 64 places; the next one is refused, and counted.
    for _ in 0..70 {
        held.push(tokio::net::TcpStream::connect(server.plain).await);
    }
    let lost = server.lost().await;
    assert!(lost.to_string().contains("the listener on PORT is gone (panic"), "{lost}");
}

#[tokio::test]
async fn an_address_has_its_connections_once_whatever_it_connects_by() {
    let server = TestServer::with(&[("MAX_SESSIONS_PER_ADDRESS", "1")]).await;
    let mut held = Vec::new();
    for _ in 0..65 {
        held.push(tokio::net::TcpStream::connect(server.secure).await.unwrap());
    }
    let refused =
        until("QUIC to be refused", async || crate::support::client::Client::connect(Quinn, &server).await.err());
    refused.await;
}

#[tokio::test]
async fn a_crowd_that_takes_all_descriptors_leaves_some_for_probes() {
    let process = TestProcess::with_files(300, &[("MAX_SESSIONS_PER_ADDRESS", "2000")]).await;
    let mut held = Vec::new();
    for _ in 0..400 {
        held.push(tokio::net::TcpStream::connect(process.plain).await.unwrap());
    }
    until("an answer to a probe", async || process.try_get_json("/health").await.ok()).await;
    let log = process.log();
    assert!(log.contains("open_files=300") || log.contains("\"open_files\":300"), "{log}");
    assert!(log.matches("accept failed").count() <= 1, "{log}");
}
