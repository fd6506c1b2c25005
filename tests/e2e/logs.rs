//! What a server writes down of the people who use it: log lines, and traces for a collector.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use axum::Router;
use axum::routing::post;
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use prost::Message as _;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::support::client::Carrier::{Quinn, WebSocket};
use crate::support::server::{TestProcess, soon, until};

const PIN: &str = "83172645";
const ADDRESS: &str = "203.0.113.77";
/// What members say to each other, and whatever else is nobody's business.
const PRIVATE: &[&str] =
    &[PIN, "Annabelle Q", "see you at the lake", "ballot-4242", "v=0 secret sdp", "film-of-ann.example", "99887766"];

/// Everything that somebody may say, some of it wrong. Returns the token.
async fn talk(server: &TestProcess) -> String {
    let extra = json!({"protocol": 3, "username": "Annabelle Q", "pin": PIN});
    let mut ann = server.connect(WebSocket).await;
    let token = ann.join_with("friday", "ann", extra).await["resumeToken"].as_str().unwrap().to_owned();
    let mut bob = server.connect(Quinn).await;
    bob.ask_to_join("friday", "bob", json!({"protocol": 3, "pin": "99887766"})).await;
    bob.refused("PIN_WRONG").await;
    bob.ask_to_join("friday", "ann", json!({"protocol": 3, "resumeToken": &token[..20]})).await;
    bob.refused("TOKEN_INVALID").await;
    bob.join_with("friday", "bob", json!({"protocol": 3, "pin": PIN})).await;
    for message in [
        json!({"type": "CHAT", "text": "see you at the lake", "ref": 7}),
        json!({"type": "CUSTOM", "namespace": "org.example", "payload": "ballot-4242"}),
        json!({"type": "OFFER", "to": "ann", "offer": "v=0 secret sdp"}),
        json!({"type": "URL_CHANGE", "url": "https://film-of-ann.example/1"}),
        json!({"type": "SET_PIN", "pin": "99887766"}),
        json!({"type": "see you at the lake", "text": PIN}),
        json!({"type": "CHAT", "text": ["see you at the lake"]}),
    ] {
        bob.send(message.clone()).await;
        ann.send(message).await;
    }
    ann.send_text("{\"pin\": \"83172645").await;
    ann.send(json!({"type": "PING"})).await;
    ann.until("PONG").await;
    bob.send(json!({"type": "PING"})).await;
    bob.until("PONG").await;
    let path = format!("/room/abc/{PIN}");
    server.get(&path, &[("authorization", &format!("Bearer {token}"))]).await;
    // Somebody behind a proxy.
    let mut request = format!("ws://{}/ws", server.plain).into_client_request().unwrap();
    request.headers_mut().insert("x-forwarded-for", ADDRESS.parse().unwrap());
    let (mut eve, _) = soon("a connection", tokio_tungstenite::connect_async(request)).await.unwrap();
    eve.send(Message::text(json!({"type": "JOIN", "protocol": 3, "roomId": "garden", "userId": "eve"}).to_string()))
        .await
        .unwrap();
    soon("ROOM_STATE", eve.next()).await.unwrap().unwrap();
    token
}

fn lines(log: &str) -> Vec<Value> {
    log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

async fn stopped(mut server: TestProcess) -> String {
    server.signal("TERM").await;
    assert_eq!(server.ended().await.code(), Some(0), "{}", server.log());
    server.log()
}

#[tokio::test]
async fn nothing_private_is_in_the_log_whatever_its_level_and_every_line_says_whose_it_is() {
    let settings = [("LOG_LEVEL", "trace"), ("LOG_FORMAT", "json"), ("TRUSTED_PROXIES", "1")];
    let server = TestProcess::start(&settings).await;
    let token = talk(&server).await;
    let log = stopped(server).await;
    for private in PRIVATE.iter().copied().chain([token.as_str(), &token[..20]]) {
        assert!(!log.contains(private), "{private:?} is in the log:\n{log}");
    }
    assert!(log.contains(ADDRESS), "at debug and below an address may be named");

    let lines = lines(&log);
    assert!(lines.iter().all(|line| line["nodeId"] == "node-1" && line["timestamp"].is_string()), "{log}");
    let of = |message: &str| lines.iter().filter(|line| line["message"] == message).collect::<Vec<_>>();
    let joined = of("JOIN").into_iter().find(|line| line["userId"] == "eve").expect("eve's JOIN");
    assert_eq!((&joined["roomId"], &joined["result"]), (&json!("garden"), &json!("ok")));
    assert_eq!(joined["sessionId"], joined["correlationId"], "it gave no ref");
    let ended = of("session ended").into_iter().find(|line| line["userId"] == "ann").expect("ann's end");
    assert_eq!((&ended["roomId"], &ended["transport"]), (&json!("friday"), &json!("websocket")));
    assert!(of("stopping").iter().any(|line| line["state"] == "leaving"));
}

#[tokio::test]
async fn at_info_nobody_is_in_the_log() {
    let settings = [("LOG_LEVEL", "info"), ("LOG_FORMAT", "json"), ("TRUSTED_PROXIES", "1")];
    let server = TestProcess::start(&settings).await;
    let token = talk(&server).await;
    let log = stopped(server).await;
    for private in PRIVATE.iter().copied().chain([token.as_str(), ADDRESS, "127.0.0.1:", "\"ann\"", "\"eve\""]) {
        assert!(!log.contains(private), "{private:?} is in the log:\n{log}");
    }
    assert!(lines(&log).iter().any(|line| line["message"] == "stopped"), "{log}");
}

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

/// A collector that keeps what it is sent.
struct Collector {
    address: SocketAddr,
    exports: mpsc::Receiver<Bytes>,
    _serving: DropGuard,
}

impl Collector {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
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
    // Ticks are none of it, nor is what was said.
    assert!(spans.iter().all(|span| !["session", "tick"].contains(&span.name.as_str())), "{spans:#?}");
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
