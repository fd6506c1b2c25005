//! The session's loop over the in-memory transport, under paused time: tests that would take real clients minutes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/memory_server.rs"]
mod memory_server;
#[path = "support/memory_transport.rs"]
mod memory_transport;

use std::time::Duration;

use bytes::Bytes;
use memory_server::MemoryServer;
use memory_transport::{CAPACITY, Delivered, MemoryClient, pair};
use serde_json::{Value, json};
use tandem::clock::Clock;
use tandem::domain::{CloseCode, Limits, RoomTime};
use tandem::protocol;
use tandem::quota::CapsFull;
use tandem::session;
use tandem::session::transport::{Frame, Inbound, Outbound, Outgoing, Transport, TransportError};

impl MemoryServer {
    async fn join(&self, user: &str) -> MemoryClient {
        let mut client = self.connect();
        say(&client, json!({"type": "JOIN", "protocol": 3, "roomId": "friday", "userId": user})).await;
        assert_eq!(hear(&mut client).await["type"], "ROOM_STATE");
        client
    }

    fn open(&self) -> u64 {
        self.services.counts.by_transport().values().sum()
    }
}

/// Limits without byte budgets.
fn without_budgets() -> Limits {
    const MANY: u64 = 1_000_000_000;
    Limits {
        committed_bytes_per_sec: MANY,
        relayed_bytes_per_sec: MANY,
        pair_bytes_per_sec: MANY,
        address_committed_bytes_per_sec: MANY,
        address_relayed_bytes_per_sec: MANY,
        room_relayed_bytes_per_sec: MANY,
        room_stored_bytes: MANY,
        ..Limits::default()
    }
}

async fn say(client: &MemoryClient, message: Value) -> bool {
    client.message(Bytes::from(message.to_string())).await
}

async fn hear(client: &mut MemoryClient) -> Value {
    loop {
        match client.recv().await.expect("a message") {
            Delivered::Message(bytes) => return serde_json::from_slice(&bytes).unwrap(),
            Delivered::Compact(_) | Delivered::Drain => {}
            Delivered::Closed { code, reason } => panic!("closed: {code} {reason}"),
        }
    }
}

/// The closing code; discards what comes before.
async fn end(client: &mut MemoryClient) -> CloseCode {
    let end = async {
        loop {
            if let Delivered::Closed { code, .. } = client.recv().await.expect("a close") {
                return code;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(3600), end).await.expect("an end within the hour")
}

#[tokio::test(start_paused = true)]
async fn who_presses_on_above_the_rate_for_ten_seconds_is_ended_and_nobody_else() {
    let fixture = MemoryServer::new(Limits::default());
    let (mut ann, mut mallory) = (fixture.join("ann").await, fixture.join("mallory").await);
    hear(&mut ann).await;
    let begin = Clock::instant();
    let flood = async {
        while say(&mallory, json!({"type": "POSITION_UPDATE", "currentTime": 1, "isPlaying": true})).await {}
        begin.elapsed()
    };
    let lasted = flood.await.as_secs_f64();
    assert!((10.0..13.0).contains(&lasted), "{lasted} s");
    assert_eq!(end(&mut mallory).await, CloseCode::RateLimited);
    assert_eq!(hear(&mut ann).await["type"], "MEMBER_CONNECTION");
    say(&ann, json!({"type": "CHAT", "text": "x"})).await;
    assert_eq!(hear(&mut ann).await["type"], "CHAT");
}

#[tokio::test(start_paused = true)]
async fn ticks_have_a_bucket_of_their_own() {
    let fixture = MemoryServer::new(Limits::default());
    let mut mallory = fixture.join("mallory").await;
    let begin = Clock::instant();
    while mallory.send(Frame::Compact(Bytes::from_static(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]))).await {
        while mallory.try_recv().is_some() {}
    }
    assert!((10.0..14.0).contains(&begin.elapsed().as_secs_f64()), "{:?}", begin.elapsed());
    // At the rate of a busy player a session is never paused to its end.
    let mut ann = fixture.join("ann").await;
    for _ in 0..2000 {
        say(&ann, json!({"type": "POSITION_UPDATE", "currentTime": 1, "isPlaying": true})).await;
        assert!(ann.send(Frame::Compact(Bytes::from_static(&[99]))).await);
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    say(&ann, json!({"type": "PING"})).await;
    while hear(&mut ann).await["type"] != "PONG" {}
}

/// A tick of a standing film.
fn tick_at(moment: RoomTime) -> Frame {
    let mut tick = vec![3, 0];
    tick.extend([0, 0]);
    tick.extend(1u32.to_be_bytes());
    tick.extend(0f64.to_be_bytes());
    tick.extend(moment.as_millis_f64().to_be_bytes());
    tick.extend(1f32.to_be_bytes());
    Frame::Compact(tick.into())
}

#[tokio::test(start_paused = true)]
async fn compact_messages_that_leave_together_are_one_frame() {
    let fixture = MemoryServer::new(Limits::default());
    let mut ann = fixture.join("ann").await;
    let others = [fixture.join("bob").await, fixture.join("cat").await, fixture.join("dan").await];
    tokio::time::sleep(Duration::from_secs(1)).await;
    while ann.try_recv().is_some() {}
    for other in &others {
        other.send(tick_at(fixture.services.clock.now())).await;
    }
    let Some(Delivered::Compact(frame)) = ann.recv().await else { panic!("a compact frame") };
    assert_eq!((frame[0], frame.len()), (6, 1 + 3 * 29));
    let slots: Vec<u8> = protocol::unbundled(&frame).iter().map(|tick| tick[3]).collect();
    assert_eq!(slots, [2, 3, 4]);
    // One alone needs no envelope.
    others[1].send(tick_at(fixture.services.clock.now())).await;
    assert!(matches!(ann.recv().await, Some(Delivered::Compact(tick)) if tick[0] == 3 && tick.len() == 28));
}

#[tokio::test(start_paused = true)]
async fn silence_ends_a_session_and_any_frame_is_life() {
    let fixture = MemoryServer::new(Limits::default());
    let mut silent = fixture.join("silent").await;
    let begin = Clock::instant();
    silent.go_silent();
    assert_eq!(end(&mut silent).await, CloseCode::Idle);
    assert!((14.9..20.0).contains(&begin.elapsed().as_secs_f64()), "{:?}", begin.elapsed());
    // A client that answers no ping but sends messages.
    let speaking = fixture.join("speaking").await;
    speaking.go_silent();
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert!(say(&speaking, json!({"type": "POSITION_UPDATE", "currentTime": 1, "isPlaying": true})).await);
    }
    // A client that sends nothing but answers PROBE.
    let answering = fixture.join("answering").await;
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert!(say(&answering, json!({"type": "PING"})).await);
    assert_eq!(fixture.open(), 1, "the one that spoke has been silent for ten minutes now");
}

/// A browser answers pings for a page in the back/forward cache: pongs alone keep no v3 session.
#[tokio::test(start_paused = true)]
async fn a_page_of_v3_that_answers_nothing_goes_although_its_network_stack_answers_pings() {
    let fixture = MemoryServer::new(Limits::default());
    let mut ann = fixture.join("ann").await;
    let begin = Clock::instant();
    ann.freeze();
    assert_eq!(end(&mut ann).await, CloseCode::Idle);
    assert!((14.9..20.0).contains(&begin.elapsed().as_secs_f64()), "{:?}", begin.elapsed());
}

/// A silent page is sent PROBE before it is closed, whatever the settings.
#[tokio::test(start_paused = true)]
async fn a_page_of_v3_is_asked_in_time_with_any_idle_time() {
    for (heartbeat_secs, idle_secs) in [(1, 3), (1, 6), (5, 6), (8, 15), (20, 60)] {
        let fixture = MemoryServer::new(Limits { heartbeat_secs, idle_secs, ..Limits::default() });
        let ann = fixture.join("ann").await;
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert_eq!(fixture.open(), 1, "{heartbeat_secs} s, {idle_secs} s");
        ann.freeze();
        tokio::time::sleep(Duration::from_secs(2 * idle_secs)).await;
        assert_eq!(fixture.open(), 0, "{heartbeat_secs} s, {idle_secs} s");
    }
}

/// A hidden tab's timers fire once a minute, its message handlers at once: it answers PROBE and sends nothing else.
#[tokio::test(start_paused = true)]
async fn a_page_of_v3_is_asked_only_while_it_is_silent() {
    let fixture = MemoryServer::new(Limits::default());
    let ann = fixture.join("ann").await;
    for _ in 0..30 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        ann.send(Frame::Compact(Bytes::from_static(&[99]))).await;
    }
    let ann = {
        let mut ann = ann;
        while ann.try_recv().is_some() {}
        ann
    };
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(fixture.open(), 1);
    drop(ann);
}

/// A v2 page lives by its PING every 15 s, or once a minute in a hidden tab; pongs bridge the time between.
#[tokio::test(start_paused = true)]
async fn a_page_of_v2_lives_by_a_ping_a_minute_and_not_by_pongs_alone() {
    let fixture = MemoryServer::new(Limits::default());
    let mut bob = fixture.connect();
    say(&bob, json!({"type": "JOIN", "roomId": "friday", "userId": "bob"})).await;
    assert_eq!(hear(&mut bob).await["type"], "ROOM_STATE");
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_secs(60)).await;
        say(&bob, json!({"type": "PING", "timestamp": 1})).await;
        assert_eq!(hear(&mut bob).await["type"], "PONG");
    }
    let begin = Clock::instant();
    assert_eq!(end(&mut bob).await, CloseCode::Idle);
    assert!((149.0..160.0).contains(&begin.elapsed().as_secs_f64()), "{:?}", begin.elapsed());
}

/// Browsers may lose a transport's closing code; CLOSING arrives in order before it.
#[tokio::test(start_paused = true)]
async fn the_last_message_of_a_v3_session_is_its_closing_code() {
    let fixture = MemoryServer::new(Limits::default());
    let mut ann = fixture.join("ann").await;
    let bob = fixture.join("bob").await;
    say(&ann, json!({"type": "KICK", "targetUserId": "bob"})).await;
    let mut bob = bob;
    let mut last = Value::Null;
    loop {
        match bob.recv().await {
            Some(Delivered::Message(bytes)) => last = serde_json::from_slice(&bytes).unwrap(),
            Some(Delivered::Closed { code, .. }) => break assert_eq!(code, CloseCode::Kicked),
            other => assert!(other.is_some(), "no end"),
        }
    }
    assert_eq!((&last["type"], &last["code"]), (&json!("CLOSING"), &json!(4006)));
    say(&ann, json!({"type": "LEAVE"})).await;
    assert_eq!(end(&mut ann).await, CloseCode::Normal);
}

#[tokio::test(start_paused = true)]
async fn a_connection_has_ten_seconds_to_join_whatever_it_says() {
    let fixture = MemoryServer::new(Limits::default());
    let mut busy = fixture.connect();
    let begin = Clock::instant();
    for _ in 0..9 {
        say(&busy, json!({"type": "PING"})).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(end(&mut busy).await, CloseCode::JoinTimeout);
    assert!((10.0..10.5).contains(&begin.elapsed().as_secs_f64()), "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_stops_is_ended_by_its_outbox_or_by_the_stalled_write() {
    let fixture = MemoryServer::new(Limits { message_burst: 100_000, messages_per_sec: 100_000, ..without_budgets() });
    let mut ann = fixture.join("ann").await;
    let _lazy = fixture.join("lazy").await;
    hear(&mut ann).await;
    // 300 messages fill the transport; the rest waits in the outbox, far below its bytes: the write stalls.
    let begin = Clock::instant();
    for _ in 0..300 {
        say(&ann, json!({"type": "CHAT", "text": "x"})).await;
        assert_eq!(hear(&mut ann).await["type"], "CHAT");
    }
    let gone = hear(&mut ann).await;
    assert_eq!((&gone["type"], &gone["userId"]), (&json!("MEMBER_CONNECTION"), &json!("lazy")));
    assert!((9.9..11.0).contains(&begin.elapsed().as_secs_f64()), "{:?}", begin.elapsed());
    // The second one is sent more than its outbox holds: closed at once.
    let _greedy = fixture.join("greedy").await;
    hear(&mut ann).await;
    let begin = Clock::instant();
    loop {
        say(&ann, json!({"type": "CUSTOM", "namespace": "a.b", "payload": "x".repeat(16_000)})).await;
        if hear(&mut ann).await["type"] == "MEMBER_CONNECTION" {
            break;
        }
    }
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
}

/// An OFFER with `bytes` of SDP.
fn offer(to: &str, bytes: usize) -> Value {
    json!({"type": "OFFER", "to": to, "offer": {"type": "offer", "sdp": "v".repeat(bytes)}})
}

/// Sends the message `times` times and collects the codes of all refusals.
async fn press(client: &mut MemoryClient, message: &Value, times: usize) -> Vec<String> {
    let mut codes = Vec::new();
    for turn in 0..=times {
        let message = if turn < times { message.clone() } else { json!({"type": "PING"}) };
        assert!(say(client, message).await, "the sender's session goes on");
        tokio::task::yield_now().await;
        while let Some(delivered) = client.try_recv() {
            if let Delivered::Message(bytes) = delivered {
                codes.extend(code_of(&serde_json::from_slice(&bytes).unwrap()));
            }
        }
    }
    codes.extend(hears_all(client).await.iter().filter_map(code_of));
    codes
}

fn code_of(message: &Value) -> Option<String> {
    message["code"].as_str().map(str::to_owned)
}

/// Everything that arrives before the PONG of a PING; panics if the session is closed.
async fn hears_all(client: &mut MemoryClient) -> Vec<Value> {
    say(client, json!({"type": "PING", "timestamp": 4711})).await;
    let mut all = Vec::new();
    loop {
        let message = hear(client).await;
        if message["echo"] == 4711 {
            return all;
        }
        all.push(message);
    }
}

#[tokio::test(start_paused = true)]
async fn a_burst_of_signals_is_its_senders_refusal_and_never_its_targets_end() {
    // Without rates too: the bound of a target's outbox is a size.
    for rates in [true, false] {
        let mut fixture = MemoryServer::new(Limits::default());
        fixture.services.rates = rates;
        let (mut ann, mut mallory) = (fixture.join("ann").await, fixture.join("mallory").await);
        hear(&mut ann).await;
        // Ann's line is slow: nothing is read during the burst.
        let codes = press(&mut mallory, &offer("ann", 30_000), 500).await;
        let refused = codes.iter().filter(|code| *code == "RATE_LIMITED").count();
        assert!(refused > 100, "rates {rates}: {refused} refusals among {}", codes.len());
        assert_eq!(refused, codes.len(), "rates {rates}: {codes:?}");
        let heard = hears_all(&mut ann).await;
        assert!(!heard.is_empty() && heard.iter().all(|message| message["type"] == "OFFER"), "rates {rates}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_burst_of_custom_messages_ends_nobody_who_reads() {
    let fixture = MemoryServer::new(Limits::default());
    let mut others = Vec::new();
    for n in 0..20 {
        others.push(fixture.join(&format!("user-{n}")).await);
    }
    let mut mallory = fixture.join("mallory").await;
    let custom = json!({"type": "CUSTOM", "namespace": "a.b", "payload": "x".repeat(16_000)});
    // More than a transport and an outbox hold together, sent within the message rate.
    let codes = press(&mut mallory, &custom, 450).await;
    assert!(codes.iter().filter(|code| *code == "RATE_LIMITED").count() > 300, "{codes:?}");
    for other in &mut others {
        hears_all(other).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_member_of_v2_with_a_full_line_that_answers_pings_is_not_taken_for_dead() {
    let fixture = MemoryServer::new(Limits::default());
    let mut host = fixture.connect();
    let join = json!({"type": "JOIN", "roomId": "friday", "userId": "host"});
    say(&host, join.clone()).await;
    hear(&mut host).await;
    let mut mallory = fixture.join("mallory").await;
    hear(&mut host).await;
    // The line is full: a probe now reaches the host's client only after what is queued.
    for _ in 0..300 {
        say(&mallory, json!({"type": "OFFER", "to": "host", "offer": {}})).await;
    }
    let mut thief = fixture.connect();
    say(&thief, join.clone()).await;
    assert_eq!(hear(&mut thief).await["code"], "USER_ID_TAKEN");
    tokio::time::sleep(Duration::from_secs(2)).await;
    say(&thief, join).await;
    assert_eq!(hear(&mut thief).await["code"], "USER_ID_TAKEN");
    // The line is free again: the client answers, and is still the host.
    hears_all(&mut host).await;
    say(&host, json!({"type": "TOGGLE_GUEST_CONTROL", "enabled": true})).await;
    while hear(&mut host).await["type"] != "GUEST_CONTROL" {}
    while hear(&mut mallory).await["type"] != "GUEST_CONTROL" {}
}

#[tokio::test(start_paused = true)]
async fn a_member_that_is_asked_again_and_again_has_no_more_time_for_it() {
    let fixture = MemoryServer::new(Limits::default());
    let mut bob = fixture.connect();
    let join = json!({"type": "JOIN", "roomId": "friday", "userId": "bob"});
    say(&bob, join.clone()).await;
    hear(&mut bob).await;
    bob.go_silent();
    tokio::time::sleep(Duration::from_millis(1)).await;
    let begin = Clock::instant();
    // Each JOIN makes the server probe bob's connection; no answer comes.
    let asking: Vec<_> = (0..20).map(|_| fixture.connect()).collect();
    let ask = async {
        for client in &asking {
            say(client, join.clone()).await;
            tokio::time::sleep(Duration::from_millis(700)).await;
        }
    };
    tokio::join!(ask, async {
        assert_eq!(end(&mut bob).await, CloseCode::Idle);
        assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
    });
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_that_makes_progress_is_not_ended() {
    let fixture = MemoryServer::new(Limits { message_burst: 100_000, messages_per_sec: 100_000, ..without_budgets() });
    let mut ann = fixture.join("ann").await;
    let mut slow = fixture.join("slow").await;
    hear(&mut ann).await;
    let mut chats = 0;
    for _ in 0..400 {
        say(&ann, json!({"type": "CHAT", "text": "y".repeat(1500)})).await;
        tokio::time::sleep(Duration::from_millis(60)).await;
        chats += ann.try_recv().is_some() as usize;
    }
    assert!(chats > 300);
    // 200 KiB wait in the outbox; the client reads five messages a second: slow, but not stalled.
    let begin = Clock::instant();
    let mut heard = 0;
    while heard < 350 {
        assert_eq!(hear(&mut slow).await["type"], "CHAT");
        heard += 1;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(begin.elapsed() > Duration::from_secs(60));
}

#[tokio::test(start_paused = true)]
async fn a_member_of_v2_that_answers_a_probe_stays_and_a_silent_one_goes() {
    let fixture = MemoryServer::new(Limits::default());
    let mut bob = fixture.connect();
    let join = json!({"type": "JOIN", "roomId": "friday", "userId": "bob"});
    say(&bob, join.clone()).await;
    hear(&mut bob).await;
    for _ in 0..5 {
        let mut other = fixture.connect();
        say(&other, join.clone()).await;
        assert_eq!(hear(&mut other).await["code"], "USER_ID_TAKEN");
    }
    say(&bob, json!({"type": "CHAT", "text": "I live"})).await;
    assert_eq!(hear(&mut bob).await["type"], "CHAT");
    bob.go_silent();
    tokio::time::sleep(Duration::from_millis(1)).await;
    let mut other = fixture.connect();
    say(&other, join).await;
    assert_eq!(hear(&mut other).await["type"], "ROOM_STATE");
    assert_eq!(end(&mut bob).await, CloseCode::Idle);
}

#[tokio::test(start_paused = true)]
async fn what_was_said_before_leave_is_heard_by_the_others_before_it() {
    let fixture = MemoryServer::new(Limits::default());
    let (mut ann, mut bob) = (fixture.join("ann").await, fixture.join("bob").await);
    hear(&mut ann).await;
    for text in ["one", "two"] {
        say(&bob, json!({"type": "CHAT", "text": text})).await;
    }
    say(&bob, json!({"type": "LEAVE"})).await;
    assert_eq!(end(&mut bob).await, CloseCode::Normal);
    for kind in ["CHAT", "CHAT", "USER_LEFT"] {
        assert_eq!(hear(&mut ann).await["type"], kind);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_brings_what_waits_then_drain_then_the_close() {
    let fixture = MemoryServer::new(Limits::default());
    let mut ann = fixture.join("ann").await;
    say(&ann, json!({"type": "CHAT", "text": "x"})).await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    fixture.services.hub.drain(Duration::from_millis(1500));
    fixture.services.stop.cancel();
    let mut seen = Vec::new();
    while let Some(delivered) = ann.recv().await {
        seen.push(match delivered {
            Delivered::Message(bytes) => {
                serde_json::from_slice::<Value>(&bytes).unwrap()["type"].as_str().unwrap().to_owned()
            }
            Delivered::Compact(_) => "compact".to_owned(),
            Delivered::Drain => "drain".to_owned(),
            Delivered::Closed { code, .. } => code.to_string(),
        });
    }
    assert_eq!(seen, ["CHAT", "RECONNECT", "drain", "CLOSING", "GOING_AWAY"]);
    assert_eq!(fixture.open(), 0);
}

#[tokio::test(start_paused = true)]
async fn who_is_turned_away_can_read_why() {
    for (full, code) in [
        (CapsFull::Node, CloseCode::Overloaded),
        (CapsFull::Address, CloseCode::Overloaded),
        (CapsFull::Draining, CloseCode::GoingAway),
    ] {
        let (transport, mut client) = pair();
        session::turn_away(transport, full).await;
        assert_eq!(end(&mut client).await, code);
    }
}

// ---- the transport itself ----

#[tokio::test(start_paused = true)]
async fn frames_arrive_in_order_both_ways() {
    let (server, mut client) = pair();
    let (mut inbound, mut outbound) = server.split();
    assert!(client.message("a").await && client.send(Frame::Compact("b".into())).await);
    assert!(matches!(inbound.next().await.unwrap(), Frame::Message(bytes) if bytes == "a"));
    assert!(matches!(inbound.next().await.unwrap(), Frame::Compact(bytes) if bytes == "b"));

    let mut frames = vec![Outgoing::Message("c".into()), Outgoing::Compact(b"d"[..].into()), Outgoing::Drain];
    outbound.send(&mut frames).await.unwrap();
    assert!(frames.is_empty());
    outbound.close(CloseCode::Kicked, "bye").await;
    let closed = Delivered::Closed { code: CloseCode::Kicked, reason: "bye".into() };
    for expected in [Delivered::Message("c".into()), Delivered::Compact("d".into()), Delivered::Drain, closed] {
        assert_eq!(client.recv().await, Some(expected));
    }
    assert_eq!(client.recv().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_client_is_a_lost_connection_and_a_silent_one_answers_no_ping() {
    let (server, client) = pair();
    let (mut inbound, mut outbound) = server.split();
    outbound.send(&mut vec![Outgoing::Ping]).await.unwrap();
    assert!(matches!(inbound.next().await.unwrap(), Frame::Alive { rtt: Some(_) }));
    client.go_silent();
    outbound.send(&mut vec![Outgoing::Ping]).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_secs(60), inbound.next()).await.is_err());
    drop(client);
    assert!(matches!(inbound.next().await, Err(TransportError::Lost(_))));
    assert!(matches!(outbound.send(&mut vec![Outgoing::Ping]).await, Err(TransportError::Lost(_))));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_makes_messages_wait_and_loses_compact_frames() {
    let (server, mut client) = pair();
    let (_inbound, mut outbound) = server.split();
    let mut fill: Vec<_> = (0..CAPACITY).map(|_| Outgoing::Message("m".into())).collect();
    outbound.send(&mut fill).await.unwrap();
    outbound.send(&mut vec![Outgoing::Compact(b"lost"[..].into())]).await.unwrap();
    let mut one_more = vec![Outgoing::Message("waits".into())];
    assert!(tokio::time::timeout(Duration::from_secs(9), outbound.send(&mut one_more)).await.is_err());
    let mut seen = 0;
    while let Some(delivered) = client.try_recv() {
        assert_eq!(delivered, Delivered::Message("m".into()));
        seen += 1;
    }
    assert_eq!(seen, CAPACITY);
}
