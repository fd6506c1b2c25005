//! Clients that break rules, press on, don't read or say nothing: they are told, slowed or ended, and the others don't
//! notice.

use serde_json::{Value, json};

use crate::carriers::{Carriers, over_every_carrier};
use crate::support::client::Carrier::{Quinn, WebSocket, Wtransport};
use crate::support::client::{Carrier, Client};
use crate::support::server::{TestServer, soon, until};

over_every_carrier! {
    what_can_not_be_read_is_refused_and_the_others_hear_nothing;
    a_message_above_the_limit_ends_its_sender_only;
    a_connection_that_never_joins_is_ended;
    a_member_that_does_not_read_is_ended_and_costs_the_others_nothing;
    a_burst_passes_at_once_and_more_is_slowed;
    a_full_node_says_so;
    a_burst_of_offers_is_refused_to_its_sender_and_its_v2_target_stays_host;
    a_film_that_changes_all_the_time_and_a_pin_of_a_guest_are_refused;
}

async fn two(server: &TestServer, a: Carrier, b: Carrier) -> (Client, Client) {
    let (mut ann, mut bob) = (server.connect(a).await, server.connect(b).await);
    ann.join("friday", "ann").await;
    bob.join("friday", "bob").await;
    ann.expect("USER_JOINED").await;
    (ann, bob)
}

async fn what_can_not_be_read_is_refused_and_the_others_hear_nothing([a, b, c]: Carriers) {
    let server = TestServer::start().await;
    let (mut ann, mut mallory) = two(&server, a, b).await;
    let deep = |depth: usize| {
        format!(r#"{{"type":"CUSTOM","namespace":"a.b","payload":{}1{}}}"#, "[".repeat(depth), "]".repeat(depth))
    };
    for (text, code) in [
        (" ", "BAD_MESSAGE"),
        ("{", "BAD_MESSAGE"),
        ("null", "BAD_MESSAGE"),
        ("[]", "BAD_MESSAGE"),
        ("\"CHAT\"", "BAD_MESSAGE"),
        ("{}", "BAD_MESSAGE"),
        (r#"{"type":7}"#, "BAD_MESSAGE"),
        (r#"{"type":"HOST_CHANGED","hostUserId":"mallory"}"#, "UNKNOWN_TYPE"),
        (r#"{"type":"chat","text":"x"}"#, "UNKNOWN_TYPE"),
        (r#"{"type":"CHAT"}"#, "BAD_MESSAGE"),
        (r#"{"type":"CHAT","text":7}"#, "BAD_MESSAGE"),
        (r#"{"type":"CHAT","text":"a","text":"b"}"#, "BAD_MESSAGE"),
        (r#"{"type":"CHAT","text":""}"#, "OUT_OF_RANGE"),
        (r#"{"type":"CHAT","text":"\ud800"}"#, "BAD_MESSAGE"),
        (r#"{"type":"JOIN","roomId":"friday","userId":7}"#, "BAD_MESSAGE"),
        (r#"{"type":"JOIN","roomId":"friday","userId":"a b"}"#, "BAD_ID"),
        (r#"{"type":"JOIN","roomId":"../etc","userId":"ann"}"#, "BAD_ID"),
        (r#"{"type":"POSITION_UPDATE","currentTime":1e308,"isPlaying":true}"#, "OUT_OF_RANGE"),
        (r#"{"type":"POSITION_UPDATE","currentTime":1e999,"isPlaying":true}"#, "OUT_OF_RANGE"),
        (r#"{"type":"POSITION_UPDATE","currentTime":-1,"isPlaying":true}"#, "OUT_OF_RANGE"),
        (r#"{"type":"POSITION_UPDATE","currentTime":null,"isPlaying":true}"#, "BAD_MESSAGE"),
        (r#"{"type":"UPDATE_USERNAME","username":""}"#, "OUT_OF_RANGE"),
        (&deep(200), "BAD_MESSAGE"),
        (&deep(10_000), "BAD_MESSAGE"),
    ] {
        assert!(mallory.send_text(text).await);
        let error = mallory.expect("ERROR").await;
        assert_eq!(error["code"], code, "{text:.100} got {error}");
    }
    for compact in [&[][..], &[3], &[1, 0, 0], &[3; 27], &[3; 40]] {
        mallory.send_compact(compact).await;
    }
    mallory.send_compact(&[99, 1, 2, 3]).await;
    ann.hears_nothing().await;
    // And it is a member as before.
    mallory.send(json!({"type": "PING"})).await;
    mallory.until("PONG").await;
    mallory.chat("sorry").await;
    assert_eq!(ann.expect("CHAT").await["text"], "sorry");
    // The same before JOIN.
    let mut stranger = server.connect(c).await;
    for text in
        ["{", r#"{"type":"JOIN","roomId":7,"userId":"x"}"#, r#"{"type":"CHAT","text":"x"}"#, r#"{"type":"NOPE"}"#]
    {
        stranger.send_text(text).await;
        stranger.expect("ERROR").await;
    }
    stranger.join("friday", "cat").await;
}

async fn a_message_above_the_limit_ends_its_sender_only([a, b, _]: Carriers) {
    let server = TestServer::start().await;
    let (mut ann, mut mallory) = two(&server, a, b).await;
    // Just within: refused for what it is, not for its size.
    let message = json!({"type": "CHAT", "text": "x".repeat(65_000)});
    mallory.send(message).await;
    mallory.refused("OUT_OF_RANGE").await;
    mallory.send(json!({"type": "CHAT", "text": "x".repeat(70_000)})).await;
    mallory.closed_with(4001).await;
    assert_eq!(ann.expect("MEMBER_CONNECTION").await["connected"], false);
    ann.chat("still here").await;
    ann.expect("CHAT").await;
}

async fn a_connection_that_never_joins_is_ended([a, _, _]: Carriers) {
    let server = TestServer::with(&[("JOIN_TIMEOUT_SECS", "1")]).await;
    let mut silent = server.connect(a).await;
    // What it says before doesn't count.
    silent.send(json!({"type": "PING"})).await;
    silent.closed_with(4008).await;
    // A member of before is none of that.
    let (mut member, mut silent) = (server.connect(a).await, server.connect(a).await);
    member.join("friday", "ann").await;
    silent.closed_with(4008).await;
    member.hears_nothing().await;
}

async fn a_member_that_does_not_read_is_ended_and_costs_the_others_nothing([a, b, _]: Carriers) {
    let settings = [("MAX_OUTBOX_BYTES", "65536"), ("RATE_LIMITS", "off"), ("WRITE_STALL_SECS", "60")];
    let server = TestServer::with(&settings).await;
    let (mut ann, mut bob) = (server.connect(a).await, server.connect(a).await);
    ann.join("friday", "ann").await;
    bob.join("friday", "bob").await;
    ann.expect("USER_JOINED").await;
    // Reads one frame and no more.
    let mut lazy = soon("a connection", Client::with_inbox(b, &server, 1)).await.unwrap();
    lazy.join("friday", "lazy").await;
    ann.expect("USER_JOINED").await;
    bob.expect("USER_JOINED").await;
    let payload = "x".repeat(15_000);
    let mut said = 0;
    let gone = loop {
        said += 1;
        assert!(said < 5000, "the lazy one is still there");
        ann.send(json!({"type": "CUSTOM", "namespace": "a.b", "payload": payload})).await;
        let heard = ann.message().await;
        // A member that reads has everything, in order and at once.
        let of_bob = bob.message().await;
        assert_eq!(heard["seq"], of_bob["seq"]);
        if heard["type"] == "MEMBER_CONNECTION" {
            break heard;
        }
        assert_eq!(heard["type"], "CUSTOM");
    };
    assert_eq!((&gone["userId"], &gone["connected"]), (&json!("lazy"), &json!(false)));
    let counted = |line: &str| line.starts_with("tandem_sessions_ended_total") && line.contains("SLOW_CONSUMER");
    until("its end to be counted", async || {
        let metrics = server.get("/metrics", &[]).await.text().await.unwrap();
        metrics.lines().any(counted).then_some(())
    })
    .await;
    // What waited for it is lost with it; the end still reaches it, or the connection's own end does.
    let (_, end) = lazy.read_to_end().await;
    assert!(end.is_none_or(|(code, _)| code == 4003));
}

async fn a_burst_passes_at_once_and_more_is_slowed([a, b, _]: Carriers) {
    let settings = [("MAX_MESSAGE_BURST", "50"), ("MAX_MESSAGES_PER_SEC", "20")];
    let server = TestServer::with(&settings).await;
    let (mut ann, mut bob) = two(&server, a, b).await;
    let begin = stopwatch();
    for index in 0..69 {
        ann.chat(&index.to_string()).await;
    }
    let mut burst = None;
    for index in 0..69 {
        assert_eq!(bob.expect("CHAT").await["text"], index.to_string());
        if index == 40 {
            burst = Some(begin.elapsed());
        }
    }
    // JOIN took one of the 50; twenty more take a second.
    let (burst, all) = (burst.unwrap().as_secs_f64(), begin.elapsed().as_secs_f64());
    assert!(burst < 2.0, "40 of a burst of 50 took {burst} s, as long as without a burst");
    assert!(all > 0.85, "20 above the burst at 20 a second took {all} s");
    // Bob has a bucket of his own.
    bob.chat("mine").await;
    ann.until("CHAT").await;
}

async fn a_full_node_says_so([a, b, c]: Carriers) {
    let server = TestServer::with(&[("MAX_SESSIONS", "2")]).await;
    let (_ann, bob) = two(&server, a, b).await;
    let refused = |carrier: Carrier| {
        let place = server.place();
        async move {
            match Client::connect(carrier, &place).await {
                // A browser can't read the status of a refused upgrade, so a WebSocket is let in and closed.
                Ok(mut late) => late.closed_with(4009).await,
                Err(error) => assert!(carrier != WebSocket && error.contains("503"), "{error}"),
            }
        }
    };
    for carrier in [WebSocket, Quinn] {
        soon("a refusal", refused(carrier)).await;
    }
    drop(bob);
    let mut cat = until("a place", async || {
        let mut cat = Client::connect(c, &server).await.ok()?;
        cat.ask_to_join("friday", "cat", json!({"protocol": 3})).await;
        match cat.next().await {
            crate::support::client::Incoming::Message(state) if state["type"] == "ROOM_STATE" => Some(cat),
            _ => None,
        }
    })
    .await;
    cat.chat("hello").await;
    cat.until("CHAT").await;
}

#[tokio::test]
async fn an_address_has_its_share_and_behind_a_proxy_the_client_s_address_counts() {
    let settings = [("MAX_SESSIONS_PER_ADDRESS", "1"), ("TRUSTED_PROXIES", "1")];
    let server = TestServer::with(&settings).await;
    let connect = async |from: &str| {
        use tokio_tungstenite::tungstenite::client::IntoClientRequest;
        let mut request = format!("ws://{}/ws", server.plain).into_client_request().unwrap();
        request.headers_mut().insert("x-forwarded-for", from.parse().unwrap());
        soon("a connection", tokio_tungstenite::connect_async(request)).await.unwrap().0
    };
    let first_word = async |socket: &mut tokio_tungstenite::WebSocketStream<_>| {
        use futures_util::{SinkExt, StreamExt};
        use tokio_tungstenite::tungstenite::Message;
        let _ = socket.send(Message::text(r#"{"type":"PING"}"#)).await;
        loop {
            match soon("a word", socket.next()).await.unwrap().unwrap() {
                Message::Text(text) => break text.to_string(),
                Message::Close(frame) => break u16::from(frame.unwrap().code).to_string(),
                _ => {}
            }
        }
    };
    let mut one = connect("192.0.2.1").await;
    let mut two = connect("192.0.2.2").await;
    let mut one_again = connect("192.0.2.1").await;
    assert!(first_word(&mut one).await.contains("PONG"));
    assert!(first_word(&mut two).await.contains("PONG"));
    assert_eq!(first_word(&mut one_again).await, "4009");
    // A hundred clients of one proxy are a hundred addresses, not one.
    let mut many = Vec::new();
    for host in 10..110 {
        let mut socket = connect(&format!("192.0.2.{host}")).await;
        assert!(first_word(&mut socket).await.contains("PONG"), "client {host}");
        many.push(socket);
    }
}

#[tokio::test]
async fn rate_limits_off_lifts_the_share_of_an_address_the_buckets_and_the_throttles() {
    let settings = [
        ("RATE_LIMITS", "off"),
        ("MAX_SESSIONS_PER_ADDRESS", "1"),
        ("MAX_JOINS_PER_MINUTE", "1"),
        ("MAX_PIN_ATTEMPTS", "1"),
        ("MAX_MESSAGE_BURST", "1"),
        ("MAX_MESSAGES_PER_SEC", "1"),
    ];
    let server = TestServer::with(&settings).await;
    let mut ann = server.connect(WebSocket).await;
    ann.join_with("friday", "ann", json!({"protocol": 3, "pin": "1"})).await;
    let mut bob = server.connect(Wtransport).await;
    for _ in 0..4 {
        bob.ask_to_join("friday", "bob", json!({"protocol": 3, "pin": "2"})).await;
        bob.refused("PIN_WRONG").await;
    }
    for _ in 0..100 {
        ann.chat("fast").await;
    }
    for _ in 0..100 {
        ann.expect("CHAT").await;
    }
    // Sizes and ranges always hold.
    ann.send(json!({"type": "CHAT", "text": "x".repeat(3000)})).await;
    ann.refused("OUT_OF_RANGE").await;
}

#[tokio::test]
async fn joins_of_one_address_are_throttled() {
    let server = TestServer::with(&[("MAX_JOINS_PER_MINUTE", "3")]).await;
    let mut ann = server.connect(Quinn).await;
    for room in ["a", "b", "c"] {
        ann.join(room, "ann").await;
    }
    let mut bob = server.connect(WebSocket).await;
    bob.ask_to_join("c", "bob", json!({})).await;
    let error: Value = bob.refused("RATE_LIMITED").await;
    assert!(error["retryAfterMs"].as_u64().is_some_and(|wait| wait > 50_000), "{error}");
}

/// Ann says nothing either, but answers PROBE as a page does. The time is `tests/session.rs`' affair.
#[tokio::test]
async fn a_page_that_answers_nothing_is_ended_and_one_that_answers_when_asked_is_not() {
    for carrier in [WebSocket, Quinn] {
        let server = TestServer::with(&[("IDLE_SECS", "6"), ("HEARTBEAT_SECS", "1")]).await;
        let (mut ann, mut bob) = two(&server, carrier, carrier).await;
        bob.stop_answering();
        let gone = ann.expect("MEMBER_CONNECTION").await;
        assert_eq!((&gone["userId"], &gone["connected"]), (&json!("bob"), &json!(false)), "{carrier:?}");
        ann.hears_nothing().await;
    }
}

#[tokio::test]
async fn a_node_has_a_number_of_rooms_and_one_that_ended_makes_place() {
    let server = TestServer::with(&[("MAX_ROOMS", "1")]).await;
    let (mut ann, mut bob) = (server.connect(Quinn).await, server.connect(WebSocket).await);
    ann.join("friday", "ann").await;
    bob.ask_to_join("saturday", "bob", json!({"pin": "1234"})).await;
    bob.refused("ROOM_LIMIT").await;
    ann.leave().await;
    ann.closed_with(1000).await;
    until("the room to be over", async || {
        bob.ask_to_join("saturday", "bob", json!({})).await;
        (bob.message().await["type"] == "ROOM_STATE").then_some(())
    })
    .await;
}

#[expect(clippy::disallowed_methods, reason = "the test's own stopwatch")]
fn stopwatch() -> std::time::Instant {
    std::time::Instant::now()
}

/// Counts these refusals up to the answer to a PING.
async fn refusals(client: &mut Client, code: &str) -> usize {
    client.send(json!({"type": "PING", "timestamp": 4711})).await;
    let mut count = 0;
    loop {
        let message = client.message().await;
        if message["type"] == "PONG" {
            return count;
        }
        count += usize::from(message["code"] == code);
        assert!(message["code"] != "RATE_LIMITED" || message["retryAfterMs"].as_u64().is_some(), "{message}");
    }
}

async fn a_burst_of_offers_is_refused_to_its_sender_and_its_v2_target_stays_host([a, b, _]: Carriers) {
    let server = TestServer::start().await;
    let (mut host, mut mallory) = (server.connect(a).await, server.connect(b).await);
    host.join_v2("friday", "host").await;
    mallory.join("friday", "mallory").await;
    host.expect("USER_JOINED").await;
    for _ in 0..60 {
        mallory.send(json!({"type": "OFFER", "to": "host", "offer": {"sdp": "v".repeat(30_000)}})).await;
    }
    assert!(refusals(&mut mallory, "RATE_LIMITED").await > 50);
    let custom = json!({"type": "CUSTOM", "namespace": "a.b", "payload": "x".repeat(16_000)});
    for _ in 0..60 {
        mallory.send(custom.clone()).await;
    }
    assert!(refusals(&mut mallory, "RATE_LIMITED").await > 40);
    host.send(json!({"type": "TOGGLE_GUEST_CONTROL", "enabled": true})).await;
    host.until("GUEST_CONTROL").await;
    mallory.until("GUEST_CONTROL").await;
}

async fn a_film_that_changes_all_the_time_and_a_pin_of_a_guest_are_refused([a, b, _]: Carriers) {
    let server = TestServer::start().await;
    let (mut host, mut guest) = two(&server, a, b).await;
    for n in 0..20 {
        host.send(json!({"type": "URL_CHANGE", "url": format!("https://example.com/{n}"), "currentTime": 0})).await;
    }
    // Five at once and one a second: this machine may be slow.
    assert!(refusals(&mut host, "RATE_LIMITED").await > 5);
    guest.send(json!({"type": "SET_PIN", "pin": "1111"})).await;
    assert_eq!(refusals(&mut guest, "NOT_HOST").await, 1);
    for _ in 0..20 {
        host.send(json!({"type": "SET_PIN", "pin": "1111"})).await;
    }
    assert!(refusals(&mut host, "RATE_LIMITED").await > 5);
}
