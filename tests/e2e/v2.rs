//! An older client's conversation, row by row of the two tables of the v2 wire: what it sends, what it gets, field by
//! field. What v3 adds (`epoch`, `seq`, `playback` and so on) it ignores; what it knows must be as it was.

use serde_json::{Value, json};

use crate::support::client::Carrier::{Quinn, WebSocket};
use crate::support::client::{Client, Tick};
use crate::support::server::TestServer;

/// The fields that v2 knew of a message, with what v3 added taken away.
fn known(message: &Value, fields: &[&str]) -> Value {
    let mut kept = json!({"type": message["type"]});
    for field in fields {
        kept[*field] = message.get(*field).unwrap_or_else(|| panic!("no {field} in {message}")).clone();
    }
    kept
}

/// `timestamp`: ms since the Unix epoch, near to now.
fn stamped(message: &Value) -> f64 {
    let timestamp = message["timestamp"].as_f64().unwrap_or_else(|| panic!("no timestamp in {message}"));
    assert!(timestamp > 1.7e12 && timestamp < 4e12, "{message}");
    timestamp
}

async fn two(server: &TestServer) -> (Client, Client) {
    let (mut ann, mut bob) = (server.connect(WebSocket).await, server.connect(WebSocket).await);
    ann.join_v2("friday", "ann").await;
    bob.join_v2("friday", "bob").await;
    ann.expect("USER_JOINED").await;
    (ann, bob)
}

#[tokio::test]
async fn join_and_leave() {
    let server = TestServer::start().await;
    let mut ann = server.connect(WebSocket).await;
    let state = ann.join_v2("friday", "ann").await;
    let fields = ["roomId", "url", "currentTime", "isPlaying", "hostUserId", "guestControlEnabled", "nodeId"];
    let expected = json!({"type": "ROOM_STATE", "roomId": "friday", "url": null, "currentTime": 0.0, "isPlaying": false,
        "hostUserId": "ann", "guestControlEnabled": false, "nodeId": "node-1"});
    assert_eq!(known(&state, &fields), expected);
    assert_eq!(
        known(&state["users"][0], &["userId", "username"]),
        json!({"type": null, "userId": "ann", "username": "ANN"})
    );

    let mut bob = server.connect(WebSocket).await;
    bob.join_v2("friday", "bob").await;
    let joined = ann.expect("USER_JOINED").await;
    stamped(&joined);
    let expected = json!({"type": "USER_JOINED", "userId": "bob", "peerId": "bob", "username": "BOB"});
    assert_eq!(known(&joined, &["userId", "peerId", "username"]), expected);
    // Again on the same socket, after a page was restored.
    assert_eq!(bob.join_v2("friday", "bob").await["users"].as_array().unwrap().len(), 2);

    ann.leave().await;
    ann.closed_with(1000).await;
    let left = bob.expect("USER_LEFT").await;
    assert_eq!(known(&left, &["userId", "peerId"]), json!({"type": "USER_LEFT", "userId": "ann", "peerId": "ann"}));
    let host = bob.expect("HOST_CHANGED").await;
    assert_eq!(known(&host, &["hostUserId"]), json!({"type": "HOST_CHANGED", "hostUserId": "bob"}));
    assert!(stamped(&left) > 0.0 && stamped(&host) > 0.0);
}

#[tokio::test]
async fn ping_name_guest_control_and_host() {
    let server = TestServer::start().await;
    let (mut ann, mut bob) = two(&server).await;
    ann.send(json!({"type": "PING", "timestamp": 1_700_000_000_000_u64, "userId": "ann", "roomId": "friday"})).await;
    stamped(&ann.expect("PONG").await);

    bob.send(json!({"type": "UPDATE_USERNAME", "username": "Robert"})).await;
    ann.send(json!({"type": "TOGGLE_GUEST_CONTROL", "enabled": true})).await;
    ann.send(json!({"type": "TRANSFER_HOST", "targetUserId": "bob"})).await;
    for member in [&mut ann, &mut bob] {
        let mut seen = [member.message().await, member.message().await, member.message().await];
        assert!(seen.iter().all(|message| stamped(message) > 0.0));
        // Two senders, either order; a sender's own are in its order.
        seen.sort_by_key(|message| message["type"] != "USERNAME_UPDATED");
        assert_eq!(
            known(&seen[0], &["userId", "username"]),
            json!({"type": "USERNAME_UPDATED", "userId": "bob", "username": "Robert"})
        );
        assert_eq!(known(&seen[1], &["enabled"]), json!({"type": "GUEST_CONTROL", "enabled": true}));
        assert_eq!(known(&seen[2], &["hostUserId"]), json!({"type": "HOST_CHANGED", "hostUserId": "bob"}));
    }
}

#[tokio::test]
async fn play_and_pause_go_to_all_and_a_repetition_does_no_harm() {
    let server = TestServer::start().await;
    let (mut ann, mut bob) = two(&server).await;
    let now = ann.room_time().await;
    let play = json!({"type": "PLAY_PAUSE", "control": "play", "currentTime": 12.5, "eventTimestamp": now.floor(),
        "userId": "ann", "roomId": "friday", "timestamp": now.floor()});
    // Sent again after 3 s, because the client's ACK never worked.
    ann.send(play.clone()).await;
    ann.send(play).await;
    for member in [&mut ann, &mut bob] {
        let play = member.expect("PLAY_PAUSE").await;
        assert_eq!(
            known(&play, &["userId", "control"]),
            json!({"type": "PLAY_PAUSE", "userId": "ann", "control": "play"})
        );
        // The position, and the moment at which it is true: what the client adds since then is right.
        let (position, at) = (play["currentTime"].as_f64().unwrap(), play["eventTimestamp"].as_f64().unwrap());
        let believed = 12.5 + (at - now.floor()) / 1000.0;
        assert!((position - believed).abs() < 0.005, "{position} at {at}, which should be {believed}");
        assert!(at >= now && at <= stamped(&play) + 501.0, "{play}");
        member.hears_nothing().await;
    }
    ann.send(json!({"type": "PLAY_PAUSE", "control": "pause", "currentTime": 14.25})).await;
    for member in [&mut ann, &mut bob] {
        let pause = member.expect("PLAY_PAUSE").await;
        let expected = json!({"type": "PLAY_PAUSE", "userId": "ann", "control": "pause", "currentTime": 14.25});
        assert_eq!(known(&pause, &["userId", "control", "currentTime"]), expected);
    }
}

#[tokio::test]
async fn seek_waits_for_the_others_and_then_the_server_plays() {
    let server = TestServer::start().await;
    let (mut ann, mut bob) = two(&server).await;
    // Every v2 client reports its position all the time: so it is known to have a player.
    bob.send(json!({"type": "POSITION_UPDATE", "currentTime": 0, "isPlaying": false})).await;
    for member in [&mut ann, &mut bob] {
        assert_eq!(member.expect("PLAYER_STATE").await["state"], "ready");
    }
    ann.send(json!({"type": "SEEK", "currentTime": 93.25, "isPlaying": true, "eventTimestamp": null})).await;
    for member in [&mut ann, &mut bob] {
        let seek = member.expect("SEEK_PAUSE").await;
        let expected = json!({"type": "SEEK_PAUSE", "userId": "ann", "currentTime": 93.25});
        assert_eq!(known(&seek, &["userId", "currentTime"]), expected);
        assert!(seek.get("eventTimestamp").is_some_and(|at| at.is_null() || at.is_number()), "{seek}");
    }
    // The seeker never answers; with the only other member ready, all are.
    bob.send(json!({"type": "READY", "targetTime": 93.25})).await;
    for member in [&mut ann, &mut bob] {
        let play = member.until("PLAY_PAUSE").await;
        let expected = json!({"type": "PLAY_PAUSE", "userId": "server", "control": "play", "currentTime": 93.25});
        assert_eq!(known(&play, &["userId", "control", "currentTime"]), expected);
        assert!(play["eventTimestamp"].is_number(), "{play}");
    }
    // A seek in a paused room opens no gate.
    ann.send(json!({"type": "SEEK", "currentTime": 5, "isPlaying": false})).await;
    bob.expect("SEEK_PAUSE").await;
    bob.send(json!({"type": "READY", "targetTime": 5})).await;
    bob.refused("NO_GATE").await;
}

#[tokio::test]
async fn host_heartbeat_goes_to_all_the_host_too() {
    let server = TestServer::start().await;
    let (mut ann, mut bob) = two(&server).await;
    let now = ann.room_time().await.floor();
    ann.send(json!({"type": "HOST_HEARTBEAT", "currentTime": 7.5, "isPlaying": false, "eventTimestamp": now})).await;
    for member in [&mut ann, &mut bob] {
        let beat = member.expect("HOST_HEARTBEAT").await;
        stamped(&beat);
        let expected = json!({"type": "HOST_HEARTBEAT", "userId": "ann", "currentTime": 7.5, "isPlaying": false, "eventTimestamp": null});
        assert_eq!(known(&beat, &["userId", "currentTime", "isPlaying", "eventTimestamp"]), expected);
    }
    // The first report shows that bob has a player; what it says is not relayed.
    for seconds in [7.4, 7.6] {
        bob.send(json!({"type": "POSITION_UPDATE", "currentTime": seconds, "isPlaying": false})).await;
    }
    for member in [&mut ann, &mut bob] {
        member.expect("PLAYER_STATE").await;
    }
    bob.hears_nothing().await;
    ann.hears_nothing().await;
}

#[tokio::test]
async fn another_film_and_the_state_for_who_asks() {
    let server = TestServer::start().await;
    let (mut ann, mut bob) = two(&server).await;
    // The one field in milliseconds.
    ann.send(json!({"type": "URL_CHANGE", "url": "https://example.org/watch?v=1", "currentTime": 93_250})).await;
    for member in [&mut ann, &mut bob] {
        let film = member.expect("URL_CHANGE").await;
        stamped(&film);
        assert_eq!(film["currentTime"].as_f64(), Some(93_250.0), "{film}");
        let expected = json!({"type": "URL_CHANGE", "userId": "ann", "url": "https://example.org/watch?v=1"});
        assert_eq!(known(&film, &["userId", "url"]), expected);
    }
    bob.send(json!({"type": "REQUEST_SYNC", "respectAutoPlay": true})).await;
    let sync = bob.expect("SYNC_RESPONSE").await;
    stamped(&sync);
    let expected = json!({"type": "SYNC_RESPONSE", "fromUserId": "server", "currentTime": 93.25, "isPlaying": false,
        "url": "https://example.org/watch?v=1"});
    assert_eq!(known(&sync, &["fromUserId", "currentTime", "isPlaying", "url"]), expected);
    ann.hears_nothing().await;
}

#[tokio::test]
async fn old_clients_sync_each_other() {
    let server = TestServer::start().await;
    let (mut ann, mut bob) = two(&server).await;
    ann.send(json!({"type": "SYNC_PLAYBACK", "currentTime": 40.5, "isPlaying": false, "url": "https://example.org/f"}))
        .await;
    for member in [&mut ann, &mut bob] {
        let sync = member.expect("SYNC_PLAYBACK").await;
        let expected =
            json!({"type": "SYNC_PLAYBACK", "currentTime": 40.5, "isPlaying": false, "url": "https://example.org/f"});
        assert_eq!(known(&sync, &["currentTime", "isPlaying", "url"]), expected);
    }
    ann.send(json!({"type": "SYNC_RESPONSE", "to": "bob", "currentTime": 41.0, "isPlaying": true, "url": ""})).await;
    let sync = bob.expect("SYNC_RESPONSE").await;
    let expected = json!({"type": "SYNC_RESPONSE", "fromUserId": "ann", "from": "ann", "to": "bob", "currentTime": 41.0, "isPlaying": true});
    assert_eq!(known(&sync, &["fromUserId", "from", "to", "currentTime", "isPlaying"]), expected);
    ann.hears_nothing().await;
}

#[tokio::test]
async fn calls_are_negotiated_between_two_and_nobody_else() {
    let server = TestServer::start().await;
    let (mut ann, mut bob) = two(&server).await;
    let mut cat = server.connect(WebSocket).await;
    cat.join_v2("friday", "cat").await;
    ann.expect("USER_JOINED").await;
    bob.expect("USER_JOINED").await;
    for (kind, field, value) in [
        ("OFFER", "offer", json!({"type": "offer", "sdp": "v=0\r\n"})),
        ("ANSWER", "answer", json!({"type": "answer", "sdp": "v=0\r\n"})),
        ("ICE_CANDIDATE", "candidate", json!({"candidate": "candidate:1", "sdpMid": "0", "sdpMLineIndex": 0})),
        ("ICE_CANDIDATE", "candidate", Value::Null),
        ("PLAYBACK_ACK", "control", json!("play")),
    ] {
        // The server names the sender.
        ann.send(json!({"type": kind, "to": "bob", field: value, "from": "cat", "userId": "cat", "nodeId": "forged"}))
            .await;
        let heard = bob.expect(kind).await;
        stamped(&heard);
        let expected = json!({"type": kind, field: value, "from": "ann", "to": "bob", "nodeId": "node-1"});
        assert_eq!(known(&heard, &[field, "from", "to", "nodeId"]), expected);
        assert!(heard.get("userId").is_none_or(|user| user == "ann"), "{heard}");
    }
    cat.hears_nothing().await;
    ann.hears_nothing().await;
    ann.send(json!({"type": "OFFER", "to": "dan", "offer": {}})).await;
    let error = ann.refused("TARGET_GONE").await;
    assert!(error["message"].is_string());
}

#[tokio::test]
async fn a_room_of_both_generations_plays_together() {
    let server = TestServer::start().await;
    let (mut old, mut new) = (server.connect(WebSocket).await, server.connect(Quinn).await);
    old.join_v2("friday", "old").await;
    let state = new.join("friday", "new").await;
    assert_eq!((&state["users"][0]["protocol"], &state["users"][1]["protocol"]), (&json!(2), &json!(3)));
    assert_eq!(old.expect("USER_JOINED").await["userId"], "new");
    // The same bytes for both.
    old.play(10.0).await;
    let play = new.expect("PLAY_PAUSE").await;
    assert_eq!(old.expect("PLAY_PAUSE").await, play);
    // A heartbeat of an old host is a tick for the new member. (Before the start it would be older than the vector.)
    while new.room_time().await < play["playback"]["at"].as_f64().unwrap() + 5.0 {}
    old.send(json!({"type": "HOST_HEARTBEAT", "currentTime": 10.005, "isPlaying": true})).await;
    old.expect("HOST_HEARTBEAT").await;
    let tick = Tick::read(&new.compact().await);
    assert_eq!((tick.slot, tick.from_host, tick.playing, tick.position), (1, true, true, 10.005));
    old.send(json!({"type": "TRANSFER_HOST", "targetUserId": "new"})).await;
    old.expect("HOST_CHANGED").await;
    new.until("HOST_CHANGED").await;
    // The gate after a new member's seek awaits both.
    old.send(json!({"type": "POSITION_UPDATE", "currentTime": 10.0, "isPlaying": true})).await;
    old.expect("PLAYER_STATE").await;
    new.until("PLAYER_STATE").await;
    new.is_ready().await;
    old.expect("PLAYER_STATE").await;
    new.seek(50.0, true).await;
    let seek = new.expect("SEEK_PAUSE").await;
    assert_eq!(seek["gate"]["awaiting"], json!(["new", "old"]));
    old.expect("SEEK_PAUSE").await;
    old.send(json!({"type": "READY", "targetTime": 50.0})).await;
    assert_eq!(new.expect("READY_GATE").await["gate"]["awaiting"], json!(["new"]));
    new.send(json!({"type": "READY", "gateId": seek["gateId"]})).await;
    assert_eq!(new.until("PLAY_PAUSE").await["userId"], "server");
    assert_eq!(old.until("PLAY_PAUSE").await["userId"], "server");
}
