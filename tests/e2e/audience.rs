//! The audience over real transports: what it hears, what it may not say, and how one of it becomes a member.

use serde_json::{Value, json};

use crate::carriers::{Carriers, over_every_carrier};
use crate::support::client::{Carrier, Client, Incoming, Tick};
use crate::support::server::TestServer;

over_every_carrier! {
    viewers_hear_every_command_and_the_host_s_ticks_and_may_send_nothing;
    a_viewer_is_let_in_when_there_is_a_place_and_comes_back_with_its_token;
    the_host_bans_a_viewer_and_a_pin_is_asked_of_viewers_too;
    the_audience_of_a_room_that_is_over_is_sent_home;
}

fn viewing() -> Value {
    json!({"protocol": 3, "as": "viewer"})
}

/// A client in the audience.
async fn viewer(server: &TestServer, carrier: Carrier, user: &str) -> Client {
    let mut client = server.connect(carrier).await;
    let state = client.join_with("friday", user, viewing()).await;
    assert_eq!((&state["role"], &state["slot"]), (&json!("audience"), &Value::Null), "{state}");
    client
}

/// The next ERROR; what else the room says is passed over.
async fn refused(client: &mut Client, code: &str) -> Value {
    let error = client.until("ERROR").await;
    assert_eq!(error["code"], code, "{error}");
    error
}

async fn viewers_hear_every_command_and_the_host_s_ticks_and_may_send_nothing([a, b, c]: Carriers) {
    let server = TestServer::with(&[("MAX_ROOM_MEMBERS", "1")]).await;
    let mut ann = server.connect(a).await;
    ann.join("friday", "ann").await;
    // The room is full: who doesn't ask for it is audience all the same.
    let mut bob = server.connect(b).await;
    assert_eq!(bob.join("friday", "bob").await["role"], "audience");
    let mut cat = viewer(&server, c, "cat").await;
    let mut old = server.connect(Carrier::WebSocket).await;
    old.ask_to_join("friday", "old", json!({"timestamp": 1})).await;
    old.refused("ROOM_FULL").await;

    for message in [
        json!({"type": "CHAT", "text": "hello"}),
        json!({"type": "PLAY_PAUSE", "control": "play"}),
        json!({"type": "SEEK", "currentTime": 1}),
        json!({"type": "SET_RATE", "rate": 2}),
        json!({"type": "URL_CHANGE", "url": "https://example.org/a"}),
        json!({"type": "SYNC_PLAYBACK", "currentTime": 1, "isPlaying": true}),
        json!({"type": "READY", "gateId": 1}),
        json!({"type": "PLAYER", "state": "ready"}),
        json!({"type": "POSITION_UPDATE", "currentTime": 1, "isPlaying": true}),
        json!({"type": "HOST_HEARTBEAT", "currentTime": 1, "isPlaying": true}),
        json!({"type": "CUSTOM", "namespace": "org.example", "payload": 1}),
        json!({"type": "CUSTOM", "namespace": "org.example", "payload": 1, "to": "ann"}),
        json!({"type": "OFFER", "to": "ann", "offer": {}}),
        json!({"type": "UPDATE_USERNAME", "username": "Bobby"}),
        json!({"type": "KICK", "targetUserId": "ann"}),
        json!({"type": "BAN", "targetUserId": "ann"}),
        json!({"type": "SET_PIN", "pin": "1234"}),
        json!({"type": "INVITE_TO_MEMBER", "targetUserId": "bob"}),
    ] {
        let (kind, reference) = (message["type"].clone(), bob.ask(message).await);
        let error = refused(&mut bob, "FORBIDDEN").await;
        assert_eq!((&error["request"], &error["ref"]), (&kind, &json!(reference)));
    }
    let now = bob.room_time().await;
    bob.tick(1, 5.0, now, true).await;
    refused(&mut bob, "FORBIDDEN").await;
    bob.send(json!({"type": "REQUEST_SYNC"})).await;
    assert_eq!(bob.until("ROOM_STATE").await["role"], "audience");

    // The clients assert consecutive numbers all the while.
    ann.play(0.0).await;
    ann.chat("one").await;
    ann.seek(30.0, true).await;
    ann.chat("two").await;
    for client in [&mut ann, &mut bob, &mut cat] {
        for (kind, text) in [("PLAY_PAUSE", None), ("CHAT", Some("one")), ("SEEK_PAUSE", None), ("CHAT", Some("two"))] {
            let message = client.until(kind).await;
            assert!(text.is_none_or(|text| message["text"] == text), "{message}");
        }
    }
    let at = ann.room_time().await;
    // The start after the seek lies a lead ahead: a tick from before it is dropped.
    ann.tick(1, 30.0, at + 700.0, true).await;
    for client in [&mut bob, &mut cat] {
        let tick = loop {
            let bytes = client.compact().await;
            if bytes.len() == 28 && bytes[0] == 3 {
                break Tick::read(&bytes);
            }
        };
        assert!(tick.from_host && tick.position == 30.0, "{tick:?}");
    }
    let seq = ann.state["seq"].clone();
    bob.leave().await;
    bob.closed_with(1000).await;
    cat.close().await;
    ann.send(json!({"type": "REQUEST_SYNC"})).await;
    let state = ann.until("ROOM_STATE").await;
    assert_eq!((&state["seq"], state["users"].as_array().unwrap().len()), (&seq, 1), "no event of it");
}

async fn a_viewer_is_let_in_when_there_is_a_place_and_comes_back_with_its_token([a, b, c]: Carriers) {
    let server = TestServer::with(&[("MAX_ROOM_MEMBERS", "2")]).await;
    let (mut ann, mut bob) = (server.connect(a).await, server.connect(b).await);
    ann.join("friday", "ann").await;
    bob.join("friday", "bob").await;
    let mut cat = viewer(&server, c, "cat").await;
    cat.send(json!({"type": "RAISE_HAND"})).await;
    assert_eq!(cat.until("HAND").await["raised"], true);
    assert_eq!(ann.until("HAND").await["userId"], "cat");
    let reference = ann.ask(json!({"type": "INVITE_TO_MEMBER", "targetUserId": "cat"})).await;
    assert_eq!(refused(&mut ann, "ROOM_FULL").await["ref"], reference);
    bob.leave().await;
    ann.until("USER_LEFT").await;
    ann.send(json!({"type": "INVITE_TO_MEMBER", "targetUserId": "cat"})).await;
    assert_eq!(ann.until("USER_JOINED").await["userId"], "cat");
    let state = cat.until("ROOM_STATE").await;
    assert_eq!((&state["role"], &state["userId"]), (&json!("member"), &json!("cat")), "{state}");
    assert!(state["slot"].is_u64() && state["resumeToken"].is_string(), "{state}");
    cat.chat("here").await;
    for client in [&mut ann, &mut cat] {
        assert_eq!(client.until("CHAT").await["userId"], "cat");
    }
    let mut again = server.connect(c).await;
    let state = again.resume(&cat.state).await;
    assert_eq!(
        (&state["resumed"], &state["role"], &state["slot"]),
        (&json!(true), &json!("member"), &cat.state["slot"])
    );
    cat.closed_with(4005).await;
}

async fn the_host_bans_a_viewer_and_a_pin_is_asked_of_viewers_too([a, b, c]: Carriers) {
    let server = TestServer::start().await;
    let mut ann = server.connect(a).await;
    ann.join_with("friday", "ann", json!({"protocol": 3, "pin": "4711"})).await;
    let mut bob = server.connect(b).await;
    bob.ask_to_join("friday", "bob", viewing()).await;
    bob.refused("PIN_REQUIRED").await;
    let key = "Y2xpZW50IGtleSBvZiBib2I";
    let with_pin = json!({"protocol": 3, "as": "viewer", "pin": "4711", "clientKey": key});
    assert_eq!(bob.join_with("friday", "bob", with_pin.clone()).await["role"], "audience");
    let mut cat = server.connect(c).await;
    cat.join_with("friday", "cat", json!({"protocol": 3, "as": "viewer", "pin": "4711"})).await;
    ann.ask(json!({"type": "BAN", "targetUserId": "bob"})).await;
    ann.until("ACK").await;
    bob.closed_with(4007).await;
    let mut bob = server.connect(b).await;
    bob.ask_to_join("friday", "robert", with_pin).await;
    bob.refused("USER_BANNED").await;
    ann.chat("still here").await;
    assert_eq!(cat.until("CHAT").await["text"], "still here");
}

async fn the_audience_of_a_room_that_is_over_is_sent_home([a, b, c]: Carriers) {
    let server = TestServer::start().await;
    let mut bob = server.connect(b).await;
    bob.ask_to_join("friday", "bob", viewing()).await;
    bob.refused("NO_ROOM").await;
    let mut ann = server.connect(a).await;
    ann.join("friday", "ann").await;
    bob.ask_to_join("friday", "bob", viewing()).await;
    assert_eq!(bob.until("ROOM_STATE").await["role"], "audience");
    let mut cat = viewer(&server, c, "cat").await;
    ann.leave().await;
    ann.closed_with(1000).await;
    for client in [&mut bob, &mut cat] {
        client.closed_with(4011).await;
    }
}

/// One message rate for all: who presses on is slowed, then ended; the others hear the room as before.
#[tokio::test]
async fn a_flood_of_a_viewer_costs_nobody_else_anything() {
    let server = TestServer::start().await;
    let mut ann = server.connect(Carrier::WebSocket).await;
    ann.join("friday", "ann").await;
    let mut mallory = viewer(&server, Carrier::Quinn, "mallory").await;
    let mut bob = viewer(&server, Carrier::WebSocket, "bob").await;
    for _ in 0..150 {
        mallory.send(json!({"type": "CHAT", "text": "spam"})).await;
        mallory.send(json!({"type": "RAISE_HAND"})).await;
    }
    for number in 0..20 {
        ann.chat(&format!("line {number}")).await;
    }
    for number in 0..20 {
        assert_eq!(bob.until("CHAT").await["text"], format!("line {number}"));
    }
    let mut forbidden = 0;
    while forbidden < 100 {
        match mallory.next().await {
            Incoming::Message(message) if message["code"] == "FORBIDDEN" => forbidden += 1,
            Incoming::Message(_) | Incoming::Compact(_) => {}
            Incoming::Closed(end) => panic!("closed before its time: {end:?}"),
        }
    }
}
