//! Members, hosts, and members that come back.

use std::time::Duration;

use serde_json::{Value, json};

use crate::carriers::{Carriers, over_every_carrier};
use crate::support::client::{Carrier, Incoming};
use crate::support::server::{TestServer, until};

over_every_carrier! {
    a_joiner_hears_the_state_first_and_the_others_hear_of_the_joiner;
    a_crowd_that_comes_and_goes_is_told_as_one_and_everybody_hears_of_each;
    what_the_host_decides_is_heard_by_all_and_a_guest_decides_nothing;
    a_kicked_member_may_return_and_a_banned_one_only_when_unbanned;
    a_member_that_comes_back_with_its_token_is_who_it_was;
    a_member_that_moves_to_a_fresh_session_is_missed_by_nobody;
    a_newcomer_hears_what_was_said_before;
    a_lost_answer_costs_nobody_the_membership;
    a_token_of_somebody_else_opens_nothing;
    a_lost_connection_is_seen_at_once_and_costs_the_membership_after_the_grace_time;
    a_close_in_order_is_seen_at_once;
    the_longest_joined_that_is_there_becomes_host;
    a_second_join_on_one_connection_leaves_no_ghost;
    a_connection_that_ends_while_it_becomes_somebody_else_leaves_no_ghost;
    a_refused_join_leaves_a_connection_who_it_was;
    a_pin_is_asked_and_guessing_it_is_throttled;
}

async fn a_joiner_hears_the_state_first_and_the_others_hear_of_the_joiner([a, b, c]: Carriers) {
    let server = TestServer::start().await;
    let (mut ann, mut bob, mut cat) = (server.connect(a).await, server.connect(b).await, server.connect(c).await);
    let state = ann.join("friday", "ann").await;
    assert_eq!((&state["hostUserId"], &state["slot"], &state["seq"]), (&json!("ann"), &json!(1), &json!(1)), "{state}");
    assert!(state["resumeToken"].as_str().is_some_and(|token| token.len() > 20));
    assert_eq!(state["users"][0]["transport"], a.name());

    let state = bob.join("friday", "bob").await;
    let users: Vec<_> = state["users"].as_array().unwrap().iter().map(|user| user["userId"].clone()).collect();
    assert_eq!((users, &state["slot"]), (vec![json!("ann"), json!("bob")], &json!(2)));
    let joined = ann.expect("USER_JOINED").await;
    let expected = json!({"type": "USER_JOINED", "userId": "bob", "peerId": "bob", "username": "BOB", "slot": 2,
        "protocol": 3, "transport": b.name(), "epoch": state["epoch"], "seq": 2, "timestamp": joined["timestamp"]});
    assert_eq!(joined, expected);

    cat.join("friday", "cat").await;
    for member in [&mut ann, &mut bob] {
        assert_eq!(member.expect("USER_JOINED").await["userId"], "cat");
    }
    // The client asserts consecutive numbers all the while.
    for text in ["one", "two", "three"] {
        cat.chat(text).await;
        for member in [&mut ann, &mut bob, &mut cat] {
            assert_eq!(member.expect("CHAT").await["text"], text);
        }
    }
    bob.leave().await;
    bob.closed_with(1000).await;
    for member in [&mut ann, &mut cat] {
        let left = member.expect("USER_LEFT").await;
        assert_eq!((&left["userId"], &left["reason"]), (&json!("bob"), &json!("left")));
    }
}

async fn a_crowd_that_comes_and_goes_is_told_as_one_and_everybody_hears_of_each(carriers: Carriers) {
    const GUESTS: u64 = 6;
    let server = TestServer::with(&[("FULL_PRESENCE_MEMBERS", "2")]).await;
    let (mut ann, mut old) = (server.connect(carriers[0]).await, server.connect(Carrier::WebSocket).await);
    ann.join("friday", "ann").await;
    old.join_v2("friday", "old").await;
    ann.expect("USER_JOINED").await;
    let mut rosters = 0;
    // Over a slow machine the first crowds may come one by one.
    for round in 0..20 {
        let mut guests = Vec::new();
        for carrier in carriers.iter().cycle().take(GUESTS as usize) {
            guests.push(server.connect(*carrier).await);
        }
        for (number, guest) in guests.iter_mut().enumerate() {
            guest.ask_to_join("friday", &format!("guest-{round}-{number}"), json!({"protocol": 3})).await;
        }
        for guest in &mut guests {
            let state = guest.expect("ROOM_STATE").await;
            let users = state["users"].as_array().unwrap();
            assert!(users.iter().any(|user| user["userId"] == state["userId"]), "{state}");
        }
        for guest in &mut guests {
            guest.leave().await;
        }
        // The client asserts consecutive places all the while.
        let last = 2 + 2 * GUESTS * (round + 1);
        let (mut came, mut went) = (Vec::new(), Vec::new());
        while ann.state["seq"] != last {
            let message = ann.message().await;
            match message["type"].as_str() {
                Some("USER_JOINED") => came.push(message["userId"].clone()),
                Some("USER_LEFT") => went.push(message["userId"].clone()),
                Some("ROSTER") => {
                    rosters += 1;
                    let named = |list: &str| message[list].as_array().unwrap().clone().into_iter();
                    came.extend(named("joined").map(|user| user["userId"].clone()));
                    went.extend(named("left").map(|user| user["userId"].clone()));
                }
                _ => {}
            }
        }
        assert_eq!((came.len(), went.len()), (GUESTS as usize, GUESTS as usize), "{came:?} {went:?}");
        while old.state["seq"] != last {
            let message = old.message().await;
            assert_ne!(message["type"], "ROSTER");
        }
        if rosters > 0 {
            return;
        }
    }
    panic!("20 crowds, and none was told as one");
}

async fn what_the_host_decides_is_heard_by_all_and_a_guest_decides_nothing([a, b, _]: Carriers) {
    let server = TestServer::start().await;
    let (mut ann, mut bob) = (server.connect(a).await, server.connect(b).await);
    ann.join("friday", "ann").await;
    bob.join("friday", "bob").await;
    ann.expect("USER_JOINED").await;

    for (message, code) in [
        (json!({"type": "TOGGLE_GUEST_CONTROL", "enabled": true}), "NOT_HOST"),
        (json!({"type": "TRANSFER_HOST", "targetUserId": "bob"}), "NOT_HOST"),
        (json!({"type": "KICK", "targetUserId": "ann"}), "NOT_HOST"),
        (json!({"type": "BAN", "targetUserId": "ann"}), "NOT_HOST"),
        (json!({"type": "UNBAN", "targetUserId": "ann"}), "NOT_HOST"),
        (json!({"type": "SET_PIN", "pin": "1234"}), "NOT_HOST"),
        (json!({"type": "PLAY_PAUSE", "control": "play"}), "NOT_IN_CONTROL"),
        (json!({"type": "SEEK", "currentTime": 1}), "NOT_IN_CONTROL"),
        (json!({"type": "SET_RATE", "rate": 2}), "NOT_IN_CONTROL"),
        (json!({"type": "URL_CHANGE", "url": "https://example.org/a"}), "NOT_IN_CONTROL"),
        (json!({"type": "SYNC_PLAYBACK", "currentTime": 1, "isPlaying": true}), "NOT_IN_CONTROL"),
        (json!({"type": "SYNC_RESPONSE", "to": "ann", "currentTime": 1, "isPlaying": true}), "NOT_IN_CONTROL"),
        (json!({"type": "HOST_HEARTBEAT", "currentTime": 1, "isPlaying": true}), "NOT_HOST"),
    ] {
        let (kind, reference) = (message["type"].clone(), bob.ask(message).await);
        let error = bob.refused(code).await;
        assert_eq!((&error["request"], &error["ref"]), (&kind, &json!(reference)));
    }
    ann.hears_nothing().await;

    let reference = ann.ask(json!({"type": "TOGGLE_GUEST_CONTROL", "enabled": true})).await;
    for member in [&mut ann, &mut bob] {
        assert_eq!(member.expect("GUEST_CONTROL").await["enabled"], true);
    }
    let ack = ann.expect("ACK").await;
    assert_eq!((&ack["ref"], &ack["seq"]), (&json!(reference), &json!(3)));
    bob.pause(3.0).await;
    for member in [&mut ann, &mut bob] {
        assert_eq!(member.expect("PLAY_PAUSE").await["userId"], "bob");
    }
    bob.send(json!({"type": "UPDATE_USERNAME", "username": "Bobby"})).await;
    for member in [&mut ann, &mut bob] {
        assert_eq!(member.expect("USERNAME_UPDATED").await["username"], "Bobby");
    }
    ann.send(json!({"type": "TRANSFER_HOST", "targetUserId": "bob"})).await;
    for member in [&mut ann, &mut bob] {
        assert_eq!(member.expect("HOST_CHANGED").await["hostUserId"], "bob");
    }
    ann.send(json!({"type": "KICK", "targetUserId": "bob"})).await;
    ann.refused("NOT_HOST").await;
}

async fn a_kicked_member_may_return_and_a_banned_one_only_when_unbanned([a, b, c]: Carriers) {
    let server = TestServer::with(&[("KICK_COOLDOWN_SECS", "1")]).await;
    let (mut ann, mut bob, mut cat) = (server.connect(a).await, server.connect(b).await, server.connect(c).await);
    ann.join("friday", "ann").await;
    bob.join("friday", "bob").await;
    cat.join("friday", "cat").await;
    ann.send(json!({"type": "KICK", "targetUserId": "bob"})).await;
    let own = bob.until("USER_LEFT").await;
    assert_eq!((&own["userId"], &own["reason"]), (&json!("bob"), &json!("kicked")));
    bob.closed_with(4006).await;
    assert_eq!(cat.until("USER_LEFT").await["reason"], "kicked");

    let mut bob = server.connect(b).await;
    bob.ask_to_join("friday", "bob", json!({"protocol": 3})).await;
    assert!(bob.refused("KICKED").await["retryAfterMs"].as_u64().unwrap() <= 1000);
    until("the cool-down to be over", async || {
        bob.ask_to_join("friday", "bob", json!({"protocol": 3})).await;
        matches!(bob.next().await, Incoming::Message(message) if message["type"] == "ROOM_STATE").then_some(())
    })
    .await;
    ann.send(json!({"type": "BAN", "targetUserId": "bob"})).await;
    assert_eq!(bob.until("USER_LEFT").await["reason"], "banned");
    bob.closed_with(4007).await;
    assert_eq!(cat.until("USER_LEFT").await["reason"], "banned");
    assert_eq!(cat.expect("BANS_CHANGED").await["banned"], json!(["bob"]));

    let mut bob = server.connect(b).await;
    bob.ask_to_join("friday", "bob", json!({"protocol": 3})).await;
    bob.refused("USER_BANNED").await;
    ann.send(json!({"type": "UNBAN", "targetUserId": "bob"})).await;
    assert_eq!(cat.expect("BANS_CHANGED").await["banned"], json!([]));
    bob.join("friday", "bob").await;
}

async fn a_newcomer_hears_what_was_said_before([a, b, _]: Carriers) {
    let server = TestServer::start().await;
    let (mut ann, mut bob) = (server.connect(a).await, server.connect(b).await);
    let state = ann.join("سهرة 🎬", "ann").await;
    assert_eq!(state["roomId"], "سهرة 🎬");
    for text in ["one", "t\u{200b}wo"] {
        ann.chat(text).await;
        ann.expect("CHAT").await;
    }
    bob.join("  سهرة\u{a0}🎬", "bob").await;
    for (text, seq) in [("one", 2), ("two", 3)] {
        let line = bob.expect("CHAT").await;
        assert_eq!((&line["text"], &line["seq"], &line["replayed"]), (&json!(text), &json!(seq), &json!(true)));
        assert_eq!((&line["userId"], &line["username"]), (&json!("ann"), &json!("ANN")));
    }
    bob.chat("three").await;
    assert!(bob.expect("CHAT").await.get("replayed").is_none());
    // v2 knows no chat.
    let mut old = server.connect(Carrier::WebSocket).await;
    old.join_v2("سهرة 🎬", "old").await;
    old.hears_nothing().await;
}

async fn a_member_that_comes_back_with_its_token_is_who_it_was([a, b, c]: Carriers) {
    let server = TestServer::start().await;
    let (mut ann, mut bob) = (server.connect(a).await, server.connect(b).await);
    ann.join("friday", "ann").await;
    bob.join("friday", "bob").await;
    ann.expect("USER_JOINED").await;
    let before = ann.state.clone();
    bob.chat("while you were away").await;
    bob.expect("CHAT").await;

    // A live session is taken over.
    let mut again = server.connect(c).await;
    let state = again.resume(&before).await;
    assert_eq!((&state["resumed"], &state["slot"], &state["hostUserId"]), (&json!(true), &json!(1), &json!("ann")));
    ann.closed_with(4005).await;
    let missed = again.expect("CHAT").await;
    assert_eq!((&missed["text"], &missed["seq"]), (&json!("while you were away"), &json!(3)));
    let back = bob.expect("MEMBER_CONNECTION").await;
    assert_eq!((&back["userId"], &back["connected"], &back["graceUntil"]), (&json!("ann"), &json!(true), &Value::Null));
    assert_eq!(back["transport"], c.name());

    // A lost one too: the others see it go and come, and never leave.
    let before = again.state.clone();
    drop(again);
    assert_eq!(bob.expect("MEMBER_CONNECTION").await["connected"], false);
    let mut again = server.connect(a).await;
    assert_eq!(again.resume(&before).await["hostUserId"], "ann");
    assert_eq!(bob.expect("MEMBER_CONNECTION").await["connected"], true);
    again.pause(1.0).await;
    assert_eq!(bob.expect("PLAY_PAUSE").await["userId"], "ann");
}

async fn a_member_that_moves_to_a_fresh_session_is_missed_by_nobody([a, b, c]: Carriers) {
    let server = TestServer::start().await;
    let (mut ann, mut bob) = (server.connect(a).await, server.connect(b).await);
    ann.join("friday", "ann").await;
    ann.is_ready().await;
    bob.join("friday", "bob").await;
    ann.expect("USER_JOINED").await;
    let before = ann.state.clone();
    bob.chat("before").await;
    bob.expect("CHAT").await;

    let mut fresh = server.connect(c).await;
    let state = fresh.resume_with(&before, json!({"move": true, "fallback": "credit"})).await;
    assert_eq!((&state["resumed"], &state["slot"], &state["hostUserId"]), (&json!(true), &json!(1), &json!("ann")));
    assert_eq!(state["users"][0]["player"], "ready");
    // The old session hears everything up to its replacement, in order, and ends by that.
    assert_eq!(ann.expect("CHAT").await["text"], "before");
    let changed = ann.expect("SESSION_CHANGED").await;
    assert_eq!((&changed["userId"], &changed["seq"]), (&json!("ann"), &state["seq"]));
    ann.closed_with(4005).await;
    // The fresh one hears the chat again, told as such, and every later event.
    assert_eq!(fresh.expect("CHAT").await["replayed"], true);
    fresh.pause(1.0).await;
    assert_eq!(fresh.expect("PLAY_PAUSE").await["userId"], "ann");
    // For the others only the number passes, and the transport.
    assert_eq!(bob.expect("SESSION_CHANGED").await["transport"], c.name());
    assert_eq!(bob.expect("PLAY_PAUSE").await["userId"], "ann");
}

async fn a_lost_answer_costs_nobody_the_membership([a, b, c]: Carriers) {
    let server = TestServer::start().await;
    let mut ann = server.connect(a).await;
    let first = ann.join("friday", "ann").await;
    // The answer with the second token is "lost": the first still works, once more.
    let mut second = server.connect(b).await;
    let unheard = second.resume(&first).await;
    let mut third = server.connect(c).await;
    let heard = third.resume(&first).await;
    assert_ne!(unheard["resumeToken"], heard["resumeToken"]);
    // The newest was used: now the one before it is worth nothing.
    let mut fourth = server.connect(a).await;
    let latest = fourth.resume(&heard).await;
    let mut thief = server.connect(b).await;
    thief.ask_to_join("friday", "ann", json!({"protocol": 3, "resumeToken": first["resumeToken"]})).await;
    thief.refused("TOKEN_INVALID").await;
    assert_eq!(thief.resume(&latest).await["resumed"], true);
}

async fn a_token_of_somebody_else_opens_nothing([a, b, c]: Carriers) {
    let server = TestServer::start().await;
    let (mut ann, mut bob) = (server.connect(a).await, server.connect(b).await);
    ann.join("friday", "ann").await;
    let bobs = bob.join("friday", "bob").await["resumeToken"].clone();
    ann.expect("USER_JOINED").await;
    let mut thief = server.connect(c).await;
    for token in [bobs, json!("made up")] {
        thief.ask_to_join("friday", "ann", json!({"protocol": 3, "resumeToken": token})).await;
        thief.refused("TOKEN_INVALID").await;
    }
    thief.ask_to_join("friday", "ann", json!({"protocol": 3})).await;
    thief.refused("USER_ID_TAKEN").await;
    thief.play(1.0).await;
    thief.refused("NOT_JOINED").await;
    ann.hears_nothing().await;
}

async fn a_lost_connection_is_seen_at_once_and_costs_the_membership_after_the_grace_time([a, b, _]: Carriers) {
    let server = TestServer::with(&[("MEMBER_GRACE_SECS", "1")]).await;
    let (mut ann, mut bob) = (server.connect(a).await, server.connect(b).await);
    ann.join("friday", "ann").await;
    let before = bob.join("friday", "bob").await;
    ann.expect("USER_JOINED").await;
    drop(bob);
    let gone = ann.expect("MEMBER_CONNECTION").await;
    let grace = gone["graceUntil"].as_f64().unwrap() - gone["timestamp"].as_f64().unwrap();
    // Told after it was decided, however long the machine took for that.
    assert!((0.0..=1000.0).contains(&grace), "{gone}");
    let left = ann.expect("USER_LEFT").await;
    assert_eq!((&left["userId"], &left["reason"]), (&json!("bob"), &json!("lost")));
    assert!(left["timestamp"].as_f64() >= gone["graceUntil"].as_f64(), "{left} before {gone}");
    // What was is over: the token too.
    let mut bob = server.connect(b).await;
    let extra = json!({"protocol": 3, "resumeToken": before["resumeToken"]});
    assert_eq!(bob.join_with("friday", "bob", extra).await["resumed"], false);
}

async fn a_close_in_order_is_seen_at_once([a, b, _]: Carriers) {
    let server = TestServer::start().await;
    let (mut ann, mut bob) = (server.connect(a).await, server.connect(b).await);
    ann.join("friday", "ann").await;
    bob.join("friday", "bob").await;
    ann.expect("USER_JOINED").await;
    bob.close().await;
    assert_eq!(ann.expect("MEMBER_CONNECTION").await["connected"], false);
    until("the session to be gone", async || (server.sessions().await == 1).then_some(())).await;
}

async fn the_longest_joined_that_is_there_becomes_host([a, b, c]: Carriers) {
    let server = TestServer::with(&[("MEMBER_GRACE_SECS", "1")]).await;
    let (mut ann, mut bob, mut cat) = (server.connect(a).await, server.connect(b).await, server.connect(c).await);
    ann.join("friday", "ann").await;
    bob.join("friday", "bob").await;
    cat.join("friday", "cat").await;
    bob.expect("USER_JOINED").await;
    drop(ann);
    for member in [&mut bob, &mut cat] {
        assert_eq!(member.expect("MEMBER_CONNECTION").await["userId"], "ann");
        assert_eq!(member.expect("USER_LEFT").await["userId"], "ann");
        assert_eq!(member.expect("HOST_CHANGED").await["hostUserId"], "bob");
    }
    // In its order, not after its grace time.
    bob.leave().await;
    assert_eq!(cat.expect("USER_LEFT").await["userId"], "bob");
    assert_eq!(cat.expect("HOST_CHANGED").await["hostUserId"], "cat");
}

async fn a_second_join_on_one_connection_leaves_no_ghost([a, b, c]: Carriers) {
    let server = TestServer::start().await;
    let (mut ann, mut bob, mut cat) = (server.connect(a).await, server.connect(b).await, server.connect(c).await);
    ann.join("friday", "ann").await;
    bob.join("friday", "bob").await;
    cat.join("saturday", "cat").await;
    ann.expect("USER_JOINED").await;
    // A restored page repeats its JOIN: the others hear nothing of it.
    assert_eq!(bob.join("friday", "bob").await["slot"], 2);
    ann.hears_nothing().await;
    // As somebody else.
    assert_eq!(bob.join("friday", "ben").await["slot"], 3);
    assert_eq!(ann.expect("USER_LEFT").await["userId"], "bob");
    assert_eq!(ann.expect("USER_JOINED").await["userId"], "ben");
    // Elsewhere.
    bob.join("saturday", "ben").await;
    assert_eq!(ann.expect("USER_LEFT").await["userId"], "ben");
    assert_eq!(cat.expect("USER_JOINED").await["userId"], "ben");
    ann.chat("alone again").await;
    ann.expect("CHAT").await;
    bob.hears_nothing().await;
    // One connection, one member: its end is the end of that one only.
    drop(bob);
    assert_eq!(cat.expect("MEMBER_CONNECTION").await["userId"], "ben");
    ann.hears_nothing().await;
}

/// Issue 17, item 13: within 4 ms of the second JOIN, members stayed connected for ever.
async fn a_connection_that_ends_while_it_becomes_somebody_else_leaves_no_ghost([a, b, _]: Carriers) {
    let server = TestServer::with(&[("RATE_LIMITS", "off"), ("MEMBER_GRACE_SECS", "1")]).await;
    let mut ann = server.connect(a).await;
    ann.join("friday", "ann").await;
    for round in 0..20 {
        let mut client = server.connect(b).await;
        client.join("friday", &format!("one-{round}")).await;
        client.ask_to_join("friday", &format!("two-{round}"), json!({"protocol": 3})).await;
        tokio::time::sleep(Duration::from_micros(round * 250)).await;
        drop(client);
    }
    until("ann to be alone", async || {
        ann.send(json!({"type": "REQUEST_SYNC"})).await;
        let state = ann.until("ROOM_STATE").await;
        (state["users"].as_array().unwrap().len() == 1).then_some(())
    })
    .await;
}

async fn a_refused_join_leaves_a_connection_who_it_was([a, b, _]: Carriers) {
    let server = TestServer::start().await;
    let (mut ann, mut bob) = (server.connect(a).await, server.connect(b).await);
    ann.join_with("friday", "ann", json!({"protocol": 3, "pin": "4711"})).await;
    bob.join_with("friday", "bob", json!({"protocol": 3, "pin": "4711"})).await;
    ann.expect("USER_JOINED").await;
    bob.ask_to_join("friday", "ann", json!({"protocol": 3, "pin": "4711"})).await;
    bob.refused("USER_ID_TAKEN").await;
    bob.ask_to_join("friday", "ben", json!({"protocol": 3, "pin": "0000"})).await;
    bob.refused("PIN_WRONG").await;
    bob.chat("still bob").await;
    assert_eq!(ann.expect("CHAT").await["userId"], "bob");
    drop(bob);
    assert_eq!(ann.expect("MEMBER_CONNECTION").await["userId"], "bob");
}

async fn a_pin_is_asked_and_guessing_it_is_throttled([a, b, c]: Carriers) {
    let server = TestServer::with(&[("MAX_PIN_ATTEMPTS", "3")]).await;
    let mut ann = server.connect(a).await;
    let state = ann.join_with("friday", "ann", json!({"protocol": 3, "pin": "4711"})).await;
    assert_eq!(state["hasPin"], true);
    let mut bob = server.connect(b).await;
    bob.ask_to_join("friday", "bob", json!({"protocol": 3})).await;
    bob.refused("PIN_REQUIRED").await;
    for guess in ["0000", "1111", "2222"] {
        bob.ask_to_join("friday", "bob", json!({"protocol": 3, "pin": guess})).await;
        bob.refused("PIN_WRONG").await;
    }
    // Refused, it is in no room: it hears nothing and moves nothing.
    bob.play(5.0).await;
    bob.refused("NOT_JOINED").await;
    // From the same address even the right one waits now, on whichever connection.
    let mut cat = server.connect(c).await;
    cat.ask_to_join("friday", "cat", json!({"protocol": 3, "pin": "4711"})).await;
    let error = cat.refused("PIN_THROTTLED").await;
    assert!(error["retryAfterMs"].as_u64().is_some_and(|wait| (50_000..=60_000).contains(&wait)), "{error}");
    // Another room is another matter; the host changes its own as it likes.
    cat.join("saturday", "cat").await;
    ann.send(json!({"type": "SET_PIN", "pin": null})).await;
    assert_eq!(ann.expect("PIN_CHANGED").await["hasPin"], false);
    bob.join("friday", "bob").await;
    // The last one out: what comes after is another room, without the PIN of old.
    ann.send(json!({"type": "SET_PIN", "pin": "9"})).await;
    bob.until("PIN_CHANGED").await;
    bob.leave().await;
    bob.closed_with(1000).await;
    ann.leave().await;
    ann.closed_with(1000).await;
    let mut bob = server.connect(b).await;
    let state = bob.join("friday", "bob").await;
    assert_eq!((&state["hasPin"], &state["hostUserId"]), (&json!(false), &json!("bob")));
}

#[tokio::test]
async fn a_dead_member_of_v2_is_replaced_and_a_live_one_is_not() {
    let server = TestServer::start().await;
    let (mut ann, mut bob) = (server.connect(Carrier::WebSocket).await, server.connect(Carrier::WebSocket).await);
    ann.join_v2("friday", "ann").await;
    bob.join_v2("friday", "bob").await;
    ann.expect("USER_JOINED").await;

    // Somebody says to be bob while bob's connection answers; and so again and again, however fast it answers.
    let mut other = server.connect(Carrier::WebSocket).await;
    for _ in 0..3 {
        other.ask_to_join("friday", "bob", json!({})).await;
        other.refused("USER_ID_TAKEN").await;
    }
    bob.chat("I live").await;
    assert_eq!(ann.expect("CHAT").await["userId"], "bob");

    // Bob's cable is pulled: his socket is open and silent.
    bob.stop_answering();
    let asked = tokio::time::Instant::from_std(started());
    let state = other.join_v2("friday", "bob").await;
    let took = asked.elapsed().as_secs_f64();
    assert!((1.4..2.0).contains(&took), "a probe takes 1.5 s, not {took}");
    assert_eq!(state["slot"], 2, "{state}");
    assert_eq!(ann.expect("MEMBER_CONNECTION").await["connected"], false);
    assert_eq!(ann.expect("MEMBER_CONNECTION").await["connected"], true);
    other.chat("it is me").await;
    assert_eq!(ann.expect("CHAT").await["userId"], "bob");
    assert!(!ann.drain().iter().any(|seen| matches!(seen, Incoming::Message(m) if m["type"] == "USER_LEFT")));
}

#[expect(clippy::disallowed_methods, reason = "the test's own stopwatch")]
fn started() -> std::time::Instant {
    std::time::Instant::now()
}
