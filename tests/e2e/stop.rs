//! A planned stop: told, flushed, quick; and what was acknowledged is there afterwards.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::carriers::{Carriers, over_every_carrier};
use crate::support::client::Carrier::{self, Quinn, WebSocket, Wtransport};
use crate::support::client::Client;
use crate::support::server::{TestProcess, TestServer, soon, tls, until};

/// A stop without slow clients: about half a second where nothing else runs, and in any case less than the two that a
/// client which doesn't answer a close is waited for.
const QUICK: Duration = Duration::from_millis(2000);

over_every_carrier! {
    members_are_told_to_reconnect_and_find_everything_as_it_was;
}

async fn members_are_told_to_reconnect_and_find_everything_as_it_was([a, b, c]: Carriers) {
    let mut server = TestServer::start().await;
    let (mut ann, mut bob) = (server.connect(a).await, server.connect(b).await);
    ann.join_with("friday", "ann", json!({"protocol": 3, "pin": "4711"})).await;
    bob.join_with("friday", "bob", json!({"protocol": 3, "pin": "4711"})).await;
    ann.expect("USER_JOINED").await;
    ann.send(json!({"type": "URL_CHANGE", "url": "https://example.org/film"})).await;
    ann.send(json!({"type": "TOGGLE_GUEST_CONTROL", "enabled": true})).await;
    ann.play(10.0).await;
    let playing = bob.until("PLAY_PAUSE").await;
    let reference = ann.ask(json!({"type": "CHAT", "text": "last words"})).await;
    assert_eq!(ann.until("ACK").await["ref"], reference);
    bob.until("CHAT").await;
    let (anns, bobs) = (ann.state.clone(), bob.state.clone());

    server.begin_stop();
    for member in [&mut ann, &mut bob] {
        let told = member.expect("RECONNECT").await;
        assert!(told["afterMs"].as_u64().is_some_and(|after| after <= 2000), "{told}");
        member.closed_with(1001).await;
    }
    server.stop().await;
    server.start_again().await;

    let mut ann = server.connect(c).await;
    let state = ann.resume(&anns).await;
    assert_eq!((&state["resumed"], &state["slot"], &state["hostUserId"]), (&json!(true), &json!(1), &json!("ann")));
    assert_eq!((&state["hasPin"], &state["guestControlEnabled"]), (&json!(true), &json!(true)));
    assert_eq!((&state["url"], &state["epoch"]), (&json!("https://example.org/film"), &anns["epoch"]));
    // It played on meanwhile.
    let at = playing["playback"]["at"].as_f64().unwrap();
    let expected = 10.0 + (state["roomTime"].as_f64().unwrap() - at) / 1000.0;
    assert!((state["currentTime"].as_f64().unwrap() - expected).abs() < 0.01, "{state}");
    let mut bob = server.connect(a).await;
    bob.resume(&bobs).await;
    assert_eq!(ann.expect("MEMBER_CONNECTION").await["userId"], "bob");
    // No member left, every event is there once.
    let token = ann.state["resumeToken"].as_str().unwrap().to_owned();
    let history = server.history("friday", "ann", &token).await;
    let seqs: Vec<_> = history.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>());
    assert!(history.iter().all(|event| event["kind"] != "member_left"), "{history:?}");
}

#[tokio::test]
async fn a_server_that_stops_takes_nobody_in() {
    let server = TestServer::start().await;
    let (mut ann, mut late) = (server.connect(Quinn).await, server.connect(WebSocket).await);
    ann.join("friday", "ann").await;
    server.begin_stop();
    ann.expect("RECONNECT").await;
    late.ask_to_join("friday", "late", json!({})).await;
    let (messages, end) = late.read_to_end().await;
    assert!(messages.iter().all(|message| message["code"] == "UNAVAILABLE"), "{messages:?}");
    assert!(end.is_none_or(|(code, _)| code == 1001));
    assert!(soon("a refusal", Client::connect(WebSocket, &server)).await.is_err());
}

/// Without sessions a stop is a matter of milliseconds; with clients that read it is the farewell and little more.
#[tokio::test]
async fn a_stop_takes_little_time_whoever_is_connected() {
    let time = async |clients: usize| {
        let mut server = TestServer::start().await;
        let mut members = Vec::new();
        for index in 0..clients {
            let carrier = [WebSocket, Quinn, Wtransport][index % 3];
            let mut member = server.connect(carrier).await;
            member.join("friday", &format!("u{index}")).await;
            members.push(member);
        }
        let begin = stopwatch();
        server.stop().await;
        let took = begin.elapsed();
        for member in &mut members {
            member.closed_with(1001).await;
        }
        took
    };
    let (empty, full) = (time(0).await, time(12).await);
    println!("empty {empty:?}, twelve members {full:?}");
    assert!(empty < QUICK && full < QUICK, "{empty:?}, {full:?}");
}

/// Connections that say nothing must not hold a stop up: a browser keeps several open.
#[tokio::test]
async fn idle_connections_do_not_hold_a_stop_up() {
    let mut server = TestServer::start().await;
    // One that never asked anything, as browsers open them ahead.
    let _silent = TcpStream::connect(server.plain).await.unwrap();
    // One that asked, and is kept alive.
    let mut kept = TcpStream::connect(server.plain).await.unwrap();
    kept.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut answer = [0; 1000];
    assert!(soon("an answer", kept.read(&mut answer)).await.unwrap() > 0);
    // One in the middle of a head.
    let mut half = TcpStream::connect(server.plain).await.unwrap();
    half.write_all(b"GET /health HTTP/1.1\r\nHo").await.unwrap();
    // HTTPS without a handshake.
    let _no_hello = TcpStream::connect(server.secure).await.unwrap();
    // HTTP/2, kept alive.
    let mut config = tls(server.certificate());
    config.alpn_protocols = vec![b"h2".to_vec()];
    let http2 = reqwest::Client::builder().tls_backend_preconfigured(config).build().unwrap();
    let url = format!("https://localhost:{}/health", server.secure.port());
    assert!(soon("an answer", http2.get(&url).send()).await.unwrap().status().is_success());
    // A WebTransport session that has not joined, and one whose client has gone silent.
    let _unjoined = server.connect(Quinn).await;
    let mut silent = server.connect(WebSocket).await;
    silent.join("friday", "silent").await;

    let begin = stopwatch();
    server.stop().await;
    let took = begin.elapsed();
    println!("{took:?}");
    assert!(took < QUICK, "{took:?}");
}

#[tokio::test]
async fn sigterm_ends_the_process_with_0_and_everything_acknowledged_is_there() {
    let mut server = TestProcess::start(&[]).await;
    let mut members = Vec::new();
    for (carrier, user) in [(Quinn, "ann"), (WebSocket, "bob"), (Wtransport, "cat")] {
        let mut member = server.connect(carrier).await;
        member.join("friday", user).await;
        members.push(member);
    }
    let mut acknowledged = Vec::new();
    for member in &mut members {
        let reference = member.ask(json!({"type": "CHAT", "text": "x"})).await;
        let ack = member.until("ACK").await;
        assert_eq!(ack["ref"], reference);
        acknowledged.push(ack["seq"].as_u64().unwrap());
    }
    let before = members[0].state.clone();
    let begin = stopwatch();
    server.signal("TERM").await;
    for member in &mut members {
        member.until("RECONNECT").await;
        member.closed_with(1001).await;
    }
    let status = server.ended().await;
    let took = begin.elapsed();
    assert_eq!(status.code(), Some(0), "{}", server.log());
    assert!(took < QUICK, "{took:?}: {}", server.log());

    server.start_again().await;
    let mut ann = server.connect(Carrier::WebSocket).await;
    let state = ann.resume(&before).await;
    assert_eq!(state["users"].as_array().unwrap().len(), 3);
    let token = ann.state["resumeToken"].as_str().unwrap().to_owned();
    let history = server.history("friday", "ann", &token).await;
    for seq in acknowledged {
        assert!(history.iter().any(|event| event["seq"] == seq && event["kind"] == "chat"), "{seq} in {history:?}");
    }
}

#[tokio::test]
async fn a_second_sigterm_ends_at_once() {
    let mut server = TestProcess::start(&[]).await;
    // Its WebSocket neither reads nor closes, which holds an orderly stop up.
    let mut lazy = server.connect(WebSocket).await;
    lazy.join("friday", "lazy").await;
    lazy.stop_answering();
    server.signal("TERM").await;
    until("the stop to begin", async || server.log().contains("stopping").then_some(())).await;
    server.signal("TERM").await;
    let status = server.ended().await;
    // An orderly end has another code.
    assert_eq!(status.code(), Some(1), "{}", server.log());
    assert!(server.log().contains("second signal"), "{}", server.log());
}

#[tokio::test]
async fn debug_is_about_this_server_and_not_about_its_libraries() {
    let mut server = TestProcess::start(&[("LOG_LEVEL", "debug"), ("LOG_FORMAT", "json")]).await;
    let mut ann = server.connect(Quinn).await;
    ann.join("friday", "ann").await;
    ann.leave().await;
    ann.closed_with(1000).await;
    server.signal("TERM").await;
    server.ended().await;
    let log = server.log();
    let lines: Vec<serde_json::Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().any(|line| line["level"] == "DEBUG"), "{log}");
    let foreign =
        lines.iter().find(|line| line["level"] == "DEBUG" && !line["target"].as_str().unwrap().starts_with("tandem"));
    assert_eq!(foreign, None);
}

#[expect(clippy::disallowed_methods, reason = "the test's own stopwatch")]
fn stopwatch() -> std::time::Instant {
    std::time::Instant::now()
}
