//! What a collector of traces gets.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::routing::post;
use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use prost::Message as _;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::authority::{Authority, text};
use crate::logs::{PIN, PRIVATE, stopped};
use crate::support::client::Carrier::WebSocket;
use crate::support::server::{TestProcess, soon, until};

/// A span as the collector got it.
#[derive(Debug)]
struct Span {
    name: String,
    attributes: BTreeMap<String, String>,
    trace: Vec<u8>,
    links: Vec<Vec<u8>>,
    resource: BTreeMap<String, String>,
}

fn attributes(pairs: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |pair: &KeyValue| match pair.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Any::StringValue(text)) => text.clone(),
        Some(Any::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    };
    pairs.iter().map(|pair| (pair.key.clone(), text(pair))).collect()
}

/// A listener of TLS connections; those that fail are not handed out.
struct Secure {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl axum::serve::Listener for Secure {
    type Io = tokio_rustls::server::TlsStream<tokio::net::TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        loop {
            let (stream, peer) = self.listener.accept().await.unwrap();
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, peer);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A collector that keeps what it is sent.
struct Collector {
    address: SocketAddr,
    exports: mpsc::Receiver<Bytes>,
    _serving: DropGuard,
}

impl Collector {
    async fn start() -> Self {
        Self::serve(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    /// With a certificate that this authority has signed.
    async fn secure(authority: &Authority, at: &str) -> Self {
        let chain = CertificateDer::pem_file_iter(authority.certificate()).unwrap();
        let key = PrivateKeyDer::from_pem_file(authority.key()).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain.map(Result::unwrap).collect(), key)
            .unwrap();
        let listener = TcpListener::bind((at, 0)).await.unwrap();
        Self::serve(Secure { listener, acceptor: TlsAcceptor::from(Arc::new(config)) })
    }

    fn serve(listener: impl axum::serve::Listener<Addr = SocketAddr>) -> Self {
        let address = listener.local_addr().unwrap();
        let (sender, exports) = mpsc::channel(1024);
        let take = move |body: Bytes| {
            let sender = sender.clone();
            async move { drop(sender.send(body).await) }
        };
        let stop = CancellationToken::new();
        let serving = axum::serve(listener, Router::new().route("/v1/traces", post(take)));
        TaskTracker::new().spawn(stop.clone().run_until_cancelled_owned(async move { serving.await }));
        Self { address, exports, _serving: stop.drop_guard() }
    }

    fn spans(&mut self) -> (Vec<Span>, Vec<u8>) {
        let (mut spans, mut all) = (Vec::new(), Vec::new());
        while let Ok(body) = self.exports.try_recv() {
            all.extend_from_slice(&body);
            for resource in ExportTraceServiceRequest::decode(body).unwrap().resource_spans {
                let of_resource = attributes(&resource.resource.unwrap().attributes);
                for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                    spans.push(Span {
                        attributes: attributes(&span.attributes),
                        name: span.name,
                        trace: span.trace_id,
                        links: span.links.into_iter().map(|link| link.trace_id).collect(),
                        resource: of_resource.clone(),
                    });
                }
            }
        }
        (spans, all)
    }
}

#[tokio::test]
async fn requests_and_their_commits_are_traced_to_the_collector() {
    let mut collector = Collector::start().await;
    let endpoint = format!("http://{}", collector.address);
    let server = TestProcess::start(&[("OTLP_ENDPOINT", &endpoint), ("LOG_LEVEL", "warn")]).await;
    let mut ann = server.connect(WebSocket).await;
    let state = ann.join_with("friday", "ann", json!({"protocol": 3, "pin": PIN, "ref": 3})).await;
    ann.send(json!({"type": "CHAT", "text": "see you at the lake", "ref": 7})).await;
    let ack = ann.until("ACK").await;
    ann.send(json!({"type": "SEEK", "currentTime": 5.0, "ref": 8})).await;
    ann.until("ACK").await;
    let room_time = ann.room_time().await;
    ann.tick(1, 5.0, room_time, false).await;
    server.get("/api/short-id/friday", &[("x-request-id", "from-ann")]).await;
    server.get("/api/short-id/nowhere", &[]).await;
    server.get("/health", &[]).await;
    // What is left is sent while it stops.
    stopped(server).await;

    let (spans, all) = collector.spans();
    let session = state["sessionId"].as_str().unwrap();
    let find = |name: &str| spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("{name}: {spans:#?}"));
    for (name, reference) in [("JOIN", 3), ("CHAT", 7), ("SEEK", 8)] {
        let span = find(name);
        let correlation = format!("{session}#{reference}");
        let expected = [
            ("sessionId", session),
            ("correlationId", &correlation),
            ("roomId", "friday"),
            ("userId", "ann"),
            ("transport", "websocket"),
            ("outcome", "ok"),
        ];
        for (key, value) in expected {
            assert_eq!(span.attributes.get(key).map(String::as_str), Some(value), "{key} of {span:?}");
        }
        assert_eq!(span.resource["service.name"], "tandem");
        assert_eq!(span.resource["service.instance.id"], "node-1");
    }
    let chat = find("CHAT");
    let commit = spans.iter().find(|span| span.name == "commit" && span.links.contains(&chat.trace));
    let commit = commit.unwrap_or_else(|| panic!("no commit is linked to the CHAT: {spans:#?}"));
    assert_eq!(commit.attributes["roomId"], "friday");
    assert_eq!(commit.attributes["seq"], ack["seq"].to_string());
    let http: Vec<_> = spans.iter().filter(|span| span.name == "GET /api/short-id/{room}").collect();
    let statuses: Vec<_> = http.iter().map(|span| span.attributes["status"].as_str()).collect();
    assert_eq!(statuses, ["200", "404"], "{spans:#?}");
    assert_eq!(http[0].attributes["correlationId"], "from-ann");
    assert!(http[1].attributes["correlationId"].starts_with("node-1-"), "{http:?}");
    // Ticks are none of it, nor are probes, nor what was said.
    assert!(spans.iter().all(|span| !["session", "tick", "probe"].contains(&span.name.as_str())), "{spans:#?}");
    assert!(spans.iter().all(|span| !span.name.contains("/health")), "{spans:#?}");
    let text = String::from_utf8_lossy(&all);
    assert!(PRIVATE.iter().all(|private| !text.contains(private)), "{text}");
}

#[tokio::test]
async fn a_collector_that_is_away_or_hangs_costs_a_warning_and_nothing_else() {
    let hangs = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addresses = [gone.local_addr().unwrap(), hangs.local_addr().unwrap()];
    drop(gone);
    for (address, warns) in addresses.into_iter().zip([true, false]) {
        let endpoint = format!("http://{address}");
        let server = TestProcess::start(&[("OTLP_ENDPOINT", &endpoint), ("LOG_LEVEL", "info")]).await;
        let mut ann = server.connect(WebSocket).await;
        ann.join("friday", "ann").await;
        if warns {
            until("the warning", async || server.log().contains("traces are lost").then_some(())).await;
        }
        ann.chat("still here").await;
        ann.until("CHAT").await;
        let log = stopped(server).await;
        assert!(log.matches("the collector does not take them").count() <= 1, "{log}");
    }
}

#[tokio::test]
async fn a_collector_behind_tls_is_known_by_an_authority_that_was_named_or_that_the_machine_trusts() {
    let authority = Authority::new();
    for whose in ["OTLP_CA_PATH", "SSL_CERT_FILE"] {
        let mut collector = Collector::secure(&authority, "127.0.0.1").await;
        let endpoint = format!("https://{}", collector.address);
        let root = authority.root();
        let server = TestProcess::start(&[("OTLP_ENDPOINT", &endpoint), (whose, text(&root))]).await;
        let mut ann = server.connect(WebSocket).await;
        ann.join("friday", "ann").await;
        let log = stopped(server).await;
        assert!(!log.contains("traces"), "{log}");
        let (spans, _) = collector.spans();
        assert!(spans.iter().any(|span| span.name == "JOIN"), "{whose}: {spans:#?}");
    }
}

#[tokio::test]
async fn a_collector_s_wrong_certificate_costs_a_warning_that_says_what_is_wrong_and_nothing_else() {
    let (theirs, ours) = (Authority::new(), Authority::new());
    // Its certificate is for 127.0.0.1.
    for (at, trusted, reason) in
        [("127.0.0.1", &ours, "invalid peer certificate"), ("127.0.0.2", &theirs, "not valid for name")]
    {
        let mut collector = Collector::secure(&theirs, at).await;
        let endpoint = format!("https://{}", collector.address);
        let root = trusted.root();
        let settings = [("OTLP_ENDPOINT", &*endpoint), ("OTLP_CA_PATH", text(&root)), ("LOG_LEVEL", "info")];
        let server = TestProcess::start(&settings).await;
        let mut ann = server.connect(WebSocket).await;
        ann.join("friday", "ann").await;
        until("the warning", async || server.log().contains("traces are lost").then_some(())).await;
        ann.chat("still here").await;
        ann.until("CHAT").await;
        assert_eq!(server.get("/ready", &[]).await.status(), 200);
        let log = stopped(server).await;
        let warnings: Vec<_> = log.lines().filter(|line| line.contains("the collector does not take them")).collect();
        assert!(warnings.len() == 1 && warnings[0].contains(reason), "{log}");
        assert!(collector.spans().0.is_empty());
    }
}

#[tokio::test]
async fn authorities_that_can_t_be_read_stop_the_start_with_one_line_and_without_tls_nobody_s_are_wanted() {
    let authority = Authority::new();
    let (key, missing) = (authority.key(), authority.root().with_file_name("missing.pem"));
    for (settings, words) in [
        ([("OTLP_ENDPOINT", "https://localhost:1"), ("OTLP_CA_PATH", text(&missing))], "missing.pem: No such file"),
        ([("OTLP_ENDPOINT", "https://localhost:1"), ("OTLP_CA_PATH", text(&key))], "key.pem: no certificate in it"),
        ([("OTLP_ENDPOINT", "https://localhost:1"), ("SSL_CERT_FILE", "/nowhere")], "OTLP_CA_PATH can say it"),
    ] {
        let refused = tokio::process::Command::new(env!("CARGO_BIN_EXE_tandem")).env_clear().envs(settings).output();
        let refused = soon("its end", refused).await.unwrap();
        let said = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(1), "{said}");
        assert!(said.starts_with("tandem: OTLP_") && said.contains(words) && said.lines().count() == 1, "{said}");
    }
    let mut collector = Collector::start().await;
    let endpoint = format!("http://{}", collector.address);
    // What an operator for OpenTelemetry puts into every pod must not matter either.
    let settings = [
        ("OTLP_ENDPOINT", &*endpoint),
        ("SSL_CERT_FILE", "/nowhere"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://elsewhere:4317"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
    ];
    let server = TestProcess::start(&settings).await;
    server.get("/api/transports", &[]).await;
    stopped(server).await;
    assert_eq!(collector.spans().0.len(), 1);
}
