//! Log lines hold no data of the people who use the server. Traces: `traces.rs`.

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::edge::h3;
use crate::support::client::Carrier::{Quinn, WebSocket};
use crate::support::server::{TestProcess, soon};

pub(crate) const PIN: &str = "83172645";
const ADDRESS: &str = "203.0.113.77";
/// Members' messages, names and secrets: no log line may hold them.
pub(crate) const PRIVATE: &[&str] =
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

pub(crate) async fn stopped(mut server: TestProcess) -> String {
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
    let old_link = lines.iter().find(|line| line["route"] == "/room/{short}/{pin}").expect("the GET of an old link");
    assert_eq!((&old_link["message"], &old_link["status"]), (&json!("HTTP request"), &json!(404)));
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
async fn the_id_of_a_request_is_in_its_answer_and_its_lines_over_tcp_and_http3() {
    let server = TestProcess::start(&[("LOG_LEVEL", "debug"), ("LOG_FORMAT", "json")]).await;
    let named = server.get("/api/ice-servers", &[("x-request-id", "from-ann-1")]).await;
    assert_eq!(named.headers()["x-request-id"], "from-ann-1");
    let made = server.get("/api/ice-servers", &[("x-request-id", "no good")]).await;
    let made = made.headers()["x-request-id"].to_str().unwrap().to_owned();
    let mut client = h3(&server).await;
    let url = format!("https://localhost:{}/api/ice-servers", server.secure.port());
    let request = http::Request::builder().uri(&url).header("x-request-id", "from-ann-3").body(()).unwrap();
    let mut stream = soon("a request", client.requests.send_request(request)).await.unwrap();
    stream.finish().await.unwrap();
    let over_quic = soon("an answer", stream.recv_response()).await.unwrap();
    assert_eq!(over_quic.headers()["x-request-id"], "from-ann-3");
    let log = stopped(server).await;
    let lines = lines(&log);
    for id in ["from-ann-1", &made, "from-ann-3"] {
        let of_it: Vec<_> = lines.iter().filter(|line| line["correlationId"] == id).collect();
        assert_eq!(of_it.len(), 1, "{id}:\n{log}");
        assert_eq!(of_it[0]["status"], 200);
        assert_eq!((&of_it[0]["method"], &of_it[0]["route"]), (&json!("GET"), &json!("/api/ice-servers")));
    }
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

#[tokio::test]
async fn with_json_every_line_of_the_process_is_an_object_standard_output_included() {
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name);
    let mut child = tokio::process::Command::new(env!("CARGO_BIN_EXE_tandem"))
        .env_clear()
        .envs([("PORT", "0"), ("QUIC_PORT", "0"), ("LOG_FORMAT", "json"), ("NODE_ID", "one")])
        .envs([("DATA_DIR", at("data")), ("CERTS_DIR", at("certs"))])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut out = tokio::io::BufReader::new(child.stdout.take().unwrap());
    let mut first = String::new();
    soon("the announcement", tokio::io::AsyncBufReadExt::read_line(&mut out, &mut first)).await.unwrap();
    let pid = child.id().unwrap().to_string();
    assert!(std::process::Command::new("kill").arg(pid).status().unwrap().success());
    soon("the rest", tokio::io::AsyncReadExt::read_to_string(&mut out, &mut first)).await.unwrap();
    let ended = soon("the end", child.wait_with_output()).await.unwrap();
    let all = first + &String::from_utf8(ended.stderr).unwrap();
    for line in all.lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(line["timestamp"].is_string() && line["nodeId"] == "one" && line["message"].is_string(), "{line}");
    }
    assert!(all.contains("is serving"), "{all}");
}
