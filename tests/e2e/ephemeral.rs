//! What is never committed: ticks, heartbeats, statuses, signals.

use serde_json::json;

use crate::carriers::{Carriers, over_every_carrier};
use crate::support::client::Carrier::WebSocket;
use crate::support::client::{Client, Digest, Incoming, Status, Tick};
use crate::support::server::{TestServer, soon, until};

over_every_carrier! {
    a_tick_reaches_the_others_with_the_sender_s_own_slot;
    a_stale_tick_reaches_nobody;
    a_host_that_is_steadily_elsewhere_is_followed;
    a_signal_reaches_its_addressee_and_nobody_else;
    custom_messages_go_to_all_or_to_one;
    a_status_reaches_the_other_v3_members;
    a_large_room_hears_a_digest_and_its_host_alone;
}

async fn three(server: &TestServer, [a, b, c]: Carriers) -> (Client, Client, Client) {
    let (mut ann, mut bob, mut cat) = (server.connect(a).await, server.connect(b).await, server.connect(c).await);
    ann.join("friday", "ann").await;
    bob.join("friday", "bob").await;
    cat.join("friday", "cat").await;
    for _ in 0..2 {
        ann.expect("USER_JOINED").await;
    }
    bob.expect("USER_JOINED").await;
    (ann, bob, cat)
}

async fn a_tick_reaches_the_others_with_the_sender_s_own_slot(carriers: Carriers) {
    let server = TestServer::start().await;
    let (mut ann, mut bob, mut cat) = three(&server, carriers).await;
    let now = ann.room_time().await;
    bob.tick(7, 3.5, now, false).await;
    for member in [&mut ann, &mut cat] {
        let tick = Tick::read(&member.compact().await);
        assert_eq!(tick, Tick { slot: 2, from_host: false, playing: false, seq: 7, position: 3.5, at: now });
    }
    ann.tick(8, 3.5, now, false).await;
    for member in [&mut bob, &mut cat] {
        let tick = Tick::read(&member.compact().await);
        assert_eq!((tick.slot, tick.from_host, tick.seq), (1, true, 8));
    }
    // Never back to its sender: all that ann got was bob's, and that was read.
    ann.hears_nothing().await;
    assert!(!ann.drain().iter().any(|seen| matches!(seen, Incoming::Compact(_))));
}

async fn a_stale_tick_reaches_nobody(carriers: Carriers) {
    let server = TestServer::start().await;
    let (mut ann, mut bob, _cat) = three(&server, carriers).await;
    ann.pause(50.0).await;
    let at = bob.expect("PLAY_PAUSE").await["playback"]["at"].as_f64().unwrap();
    let now = ann.room_time().await;
    for (seq, at) in [(1, at - 5.0), (2, now - 11_000.0), (3, now + 60_000.0), (4, f64::MAX), (5, -1.0)] {
        ann.tick(seq, 50.0, at, false).await;
    }
    // Over WebTransport datagrams may overtake; but bad ones never arrive.
    while ann.room_time().await < at + 5.0 {}
    let now = ann.room_time().await;
    ann.tick(6, 50.0, now, false).await;
    assert_eq!(Tick::read(&bob.compact().await).seq, 6);
    // Not joined, not heard.
    let mut stranger = server.connect(carriers[1]).await;
    stranger.tick(9, 50.0, now, false).await;
    let now = ann.room_time().await;
    ann.tick(10, 50.0, now, false).await;
    assert_eq!(Tick::read(&bob.compact().await).seq, 10);
}

async fn a_host_that_is_steadily_elsewhere_is_followed(carriers: Carriers) {
    let server = TestServer::start().await;
    let (mut ann, mut bob, mut cat) = three(&server, carriers).await;
    ann.play(10.0).await;
    let start = ann.expect("PLAY_PAUSE").await["playback"]["at"].as_f64().unwrap();
    bob.expect("PLAY_PAUSE").await;
    // A guest's deviation changes nothing; the host, 600 ms ahead for more than a second, moves the room.
    let mut seq = 0;
    let corrected = loop {
        let now = ann.room_time().await;
        if now > start + 50.0 {
            seq += 1;
            let vector = 10.0 + (now - start) / 1000.0;
            cat.tick(seq, vector + 5.0, now, true).await;
            ann.tick(seq, vector + 0.6, now, true).await;
        }
        assert!(now < start + 10_000.0, "nobody followed the host");
        let seen = bob.drain().into_iter().find_map(|seen| match seen {
            Incoming::Message(message) => Some(message),
            _ => None,
        });
        if let Some(message) = seen {
            break message;
        }
        tokio::time::sleep(std::time::Duration::from_millis(40)).await;
    };
    assert_eq!(
        (&corrected["type"], &corrected["reason"], &corrected["userId"]),
        (&json!("PLAYBACK"), &json!("correction"), &json!("ann"))
    );
    let vector = &corrected["playback"];
    let at = vector["at"].as_f64().unwrap();
    let ahead = vector["position"].as_f64().unwrap() - (10.0 + (at - start) / 1000.0);
    assert!((ahead - 0.6).abs() < 0.01 && at - start >= 1000.0, "{corrected}");
}

async fn a_signal_reaches_its_addressee_and_nobody_else(carriers: Carriers) {
    let server = TestServer::start().await;
    let (mut ann, mut bob, mut cat) = three(&server, carriers).await;
    let offer = json!({"type": "offer", "sdp": "v=0\r\n".repeat(2000)});
    ann.send(json!({"type": "OFFER", "to": "bob", "offer": offer, "from": "cat"})).await;
    let heard = bob.expect("OFFER").await;
    assert_eq!((&heard["from"], &heard["offer"]), (&json!("ann"), &offer));
    cat.hears_nothing().await;
    let reference = ann.ask(json!({"type": "OFFER", "to": "nobody", "offer": offer})).await;
    assert_eq!(ann.refused("TARGET_GONE").await["ref"], reference);
    // A member that is away for a moment can't be told either.
    drop(bob);
    ann.expect("MEMBER_CONNECTION").await;
    ann.send(json!({"type": "OFFER", "to": "bob", "offer": offer})).await;
    ann.refused("TARGET_GONE").await;
}

async fn custom_messages_go_to_all_or_to_one(carriers: Carriers) {
    let server = TestServer::start().await;
    let (mut ann, mut bob, mut cat) = three(&server, carriers).await;
    bob.send(json!({"type": "CUSTOM", "namespace": "org.example.poll", "payload": {"vote": 2, "é": [null, 1.5]}}))
        .await;
    for member in [&mut ann, &mut bob, &mut cat] {
        let custom = member.expect("CUSTOM").await;
        assert_eq!((&custom["userId"], &custom["payload"]), (&json!("bob"), &json!({"vote": 2, "é": [null, 1.5]})));
        assert!(custom["seq"].is_number());
    }
    bob.send(json!({"type": "CUSTOM", "namespace": "org.example.poll", "payload": 3, "to": "ann"})).await;
    let custom = ann.expect("CUSTOM").await;
    assert_eq!((&custom["from"], &custom["to"], custom.get("seq")), (&json!("bob"), &json!("ann"), None));
    cat.hears_nothing().await;
    for bad in [
        json!({"type": "CUSTOM", "namespace": "org.example.poll", "payload": "x".repeat(20_000)}),
        json!({"type": "CUSTOM", "namespace": "no spaces", "payload": 1}),
        json!({"type": "CUSTOM", "payload": 1}),
    ] {
        bob.send(bad).await;
        bob.expect("ERROR").await;
    }
    cat.hears_nothing().await;
}

async fn a_status_reaches_the_other_v3_members(carriers: Carriers) {
    let server = TestServer::start().await;
    let (mut ann, mut bob, _cat) = three(&server, carriers).await;
    let mut old = server.connect(WebSocket).await;
    old.join_v2("friday", "old").await;
    ann.expect("USER_JOINED").await;
    bob.expect("USER_JOINED").await;
    let own = |seq: u32| Status {
        // The server knows better than the sender whose status it is, and over what it came.
        slot: 77,
        webtransport: carriers[0] == WebSocket,
        seq,
        buffering: true,
        in_call: true,
        rtt: Some(14_500),
        drift: Some(-3000),
        clock_error: None,
    };
    for seq in 1..=5 {
        ann.status(&own(seq)).await;
    }
    let heard = bob.heard_status().await;
    let told = Status { slot: 1, webtransport: carriers[0] != WebSocket, ..own(heard.seq) };
    assert_eq!(heard, told);
    // At most two a second; never to the sender, never to an old client.
    for member in [&mut ann, &mut old, &mut bob] {
        member.send(json!({"type": "PING"})).await;
        let seen = member.next().await;
        assert!(matches!(&seen, Incoming::Message(message) if message["type"] == "PONG"), "{seen:?}");
    }
}

async fn a_large_room_hears_a_digest_and_its_host_alone(carriers: Carriers) {
    let server = TestServer::with(&[("FULL_PRESENCE_MEMBERS", "2")]).await;
    let (mut ann, mut bob, mut cat) = three(&server, carriers).await;
    let drift = |micros| Status { drift: Some(micros), ..Status::default() };
    let digest = until("everybody's status to be in the digest", async || {
        ann.status(&drift(3000)).await;
        bob.status(&drift(-90_000)).await;
        cat.status(&Status { buffering: true, ..drift(20_000) }).await;
        let now = ann.room_time().await;
        bob.tick(1, 5.0, now, false).await;
        let digest = ann.heard_digest().await;
        (digest.measured == 3).then_some(digest)
    });
    let digest = digest.await;
    let [median, high] = digest.distance.unwrap();
    assert!((median - 20_000).abs() <= 1250 && (high - 90_000).abs() <= 5625, "{digest:?}");
    let counts = Digest {
        members: 3,
        audience: 0,
        measured: 3,
        in_step: 1,
        buffering: 1,
        distance: digest.distance,
        stand_outs: vec![(3, true, Some(20_000)), (2, false, Some(-90_000))],
    };
    assert_eq!(digest, counts);

    let begin = ann.room_time().await;
    for seq in 1..=20 {
        ann.tick(seq, 5.0, begin, false).await;
    }
    let seconds = (ann.room_time().await - begin) / 1000.0;
    let mut heard = Vec::new();
    until("the host's tick, and a digest after it", async || {
        let bytes = cat.compact().await;
        match bytes[0] {
            3 => heard.push(Tick::read(&bytes)),
            Digest::KIND if !heard.is_empty() => return Some(()),
            kind => assert_eq!(kind, Digest::KIND, "nobody's status"),
        }
        None
    })
    .await;
    assert!(heard.iter().all(|tick| (tick.slot, tick.from_host) == (1, true)), "{heard:?}");
    assert!(heard.len() <= 2 + seconds as usize, "{} ticks in {seconds} s", heard.len());
    // What comes to those who said it themselves comes to nobody else either.
    ann.hears_nothing().await;

    cat.leave().await;
    ann.until("USER_LEFT").await;
    let status = until("the small room to hear its members again", async || {
        bob.status(&drift(-90_000)).await;
        let bytes = ann.compact().await;
        (bytes[0] == Status::KIND).then(|| Status::read(&bytes))
    })
    .await;
    assert_eq!((status.slot, status.drift), (2, Some(-90_000)));
}

#[tokio::test]
async fn ticks_of_a_new_host_are_heartbeats_for_an_old_member_at_most_four_a_second() {
    let server = TestServer::start().await;
    let mut new = server.connect(crate::support::client::Carrier::Quinn).await;
    new.join("friday", "new").await;
    let mut old = server.connect(WebSocket).await;
    old.join_v2("friday", "old").await;
    new.expect("USER_JOINED").await;
    let (mut seq, mut beats) = (0, Vec::new());
    let told = async {
        while beats.len() < 5 {
            seq += 1;
            let now = new.room_time().await;
            new.tick(seq, 0.0, now, false).await;
            for seen in old.drain() {
                let Incoming::Message(message) = seen else { continue };
                assert_eq!(message["type"], "HOST_HEARTBEAT");
                beats.push(message["timestamp"].as_f64().unwrap());
            }
            tokio::time::sleep(std::time::Duration::from_millis(30)).await;
        }
    };
    soon("five heartbeats", told).await;
    assert!(beats.windows(2).all(|pair| pair[1] - pair[0] >= 249.0), "{beats:?} of {seq} ticks");
}
