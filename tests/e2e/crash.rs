//! `kill -9` of the only process, under load: what was acknowledged is in the history, once, and the room goes on.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;

use crate::support::client::Carrier::{Quinn, WebSocket, Wtransport};
use crate::support::client::{Client, Incoming};
use crate::support::server::{TestProcess, until};

#[tokio::test]
async fn what_was_acknowledged_survives_kill_9_exactly_once_and_the_members_resume() {
    let mut server = TestProcess::start(&[("RATE_LIMITS", "off")]).await;
    let mut members = Vec::new();
    for (carrier, user) in [(Quinn, "ann"), (WebSocket, "bob"), (Wtransport, "cat")] {
        let mut member = server.connect(carrier).await;
        member.join_with("friday", user, json!({"protocol": 3, "pin": "4711"})).await;
        members.push(member);
    }
    members[0].play(10.0).await;
    let playing = members[0].until("PLAY_PAUSE").await;
    // Everybody speaks without waiting for answers; in the middle of it the process dies.
    let mut acknowledged = BTreeSet::new();
    let mut collect = |members: &mut [Client]| {
        let seq = |incoming: Incoming| match incoming {
            Incoming::Message(message) if message["type"] == "ACK" => message["seq"].as_u64(),
            _ => None,
        };
        for member in members {
            acknowledged.extend(member.drain().into_iter().filter_map(seq));
        }
        acknowledged.len()
    };
    for round in 0..60 {
        for member in &mut members {
            for _ in 0..5 {
                member.ask(json!({"type": "CHAT", "text": format!("round {round}")})).await;
            }
        }
        collect(&mut members);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    until("a load of acknowledged commands", async || (collect(&mut members) > 100).then_some(())).await;
    for member in &mut members {
        for _ in 0..100 {
            member.ask(json!({"type": "CHAT", "text": "the last ones"})).await;
        }
    }
    server.kill().await;
    for member in &mut members {
        loop {
            match member.next().await {
                Incoming::Message(message) if message["type"] == "ACK" => {
                    acknowledged.insert(message["seq"].as_u64().unwrap());
                }
                Incoming::Closed(_) => break,
                _ => {}
            }
            if members_left(member) {
                break;
            }
        }
    }

    server.start_again().await;
    let before: Vec<_> = members.iter().map(|member| member.state.clone()).collect();
    let mut ann = server.connect(WebSocket).await;
    let state = ann.resume(&before[0]).await;
    assert_eq!((&state["resumed"], &state["slot"], &state["hostUserId"]), (&json!(true), &json!(1), &json!("ann")));
    assert_eq!((&state["hasPin"], state["users"].as_array().unwrap().len()), (&json!(true), 3));
    let at = playing["playback"]["at"].as_f64().unwrap();
    let expected = 10.0 + (state["roomTime"].as_f64().unwrap() - at) / 1000.0;
    assert!((state["currentTime"].as_f64().unwrap() - expected).abs() < 0.01, "{state}");
    // Kept: dropping a client here would disconnect its member again.
    let mut back = Vec::new();
    for (index, carrier) in [(1, Quinn), (2, WebSocket)] {
        let mut member = server.connect(carrier).await;
        assert_eq!(member.resume(&before[index]).await["resumed"], true);
        assert_eq!(ann.until("MEMBER_CONNECTION").await["connected"], true);
        back.push(member);
    }

    let token = ann.state["resumeToken"].as_str().unwrap().to_owned();
    let history = server.history("friday", "ann", &token).await;
    let seqs: Vec<_> = history.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>(), "each once, none missing");
    assert!(history.iter().all(|event| event["epoch"] == state["epoch"]));
    let chats: BTreeSet<_> =
        history.iter().filter(|event| event["kind"] == "chat").map(|event| event["seq"].as_u64().unwrap()).collect();
    let lost: Vec<_> = acknowledged.difference(&chats).collect();
    assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
}

/// A killed server says no word to QUIC clients; what it had sent is there already.
fn members_left(member: &crate::support::client::Client) -> bool {
    member.carrier() != WebSocket && member.is_quiet()
}

/// Faults 4, 19, 20: what is over stays over, after a restart too.
#[tokio::test]
async fn a_room_that_ended_does_not_come_back_and_one_whose_members_stay_away_ends() {
    let mut server = TestProcess::start(&[("MEMBER_GRACE_SECS", "1"), ("ROOM_KEEP_MINUTES", "0")]).await;
    let mut ann = server.connect(Quinn).await;
    ann.join_with("ended", "ann", json!({"protocol": 3, "pin": "4711"})).await;
    ann.play(100.0).await;
    ann.until("PLAY_PAUSE").await;
    ann.leave().await;
    ann.closed_with(1000).await;
    let mut bob = server.connect(WebSocket).await;
    let before = bob.join_with("deserted", "bob", json!({"protocol": 3, "pin": "4711"})).await;
    bob.play(100.0).await;
    bob.until("PLAY_PAUSE").await;
    server.kill().await;
    server.start_again().await;

    let mut cat = server.connect(WebSocket).await;
    let state = cat.join("ended", "cat").await;
    let fresh = (json!("cat"), json!(false), json!(0.0), json!(false));
    let seen = |state: &serde_json::Value| {
        let field = |name: &str| state[name].clone();
        (field("hostUserId"), field("hasPin"), field("currentTime"), field("isPlaying"))
    };
    assert_eq!(seen(&state), fresh);
    // Bob has his second from the start on; then his room is over.
    crate::support::server::until("the deserted room to end", async || {
        let status = server.get_json("/status", &[]).await;
        (status["rooms"] == 1).then_some(())
    })
    .await;
    server.kill().await;
    server.start_again().await;
    let mut bob = server.connect(WebSocket).await;
    let extra = json!({"protocol": 3, "resumeToken": before["resumeToken"]});
    let state = bob.join_with("deserted", "bob", extra).await;
    assert_eq!(
        (&state["resumed"], &state["hasPin"], &state["isPlaying"]),
        (&json!(false), &json!(false), &json!(false))
    );
    assert!(state["epoch"].as_u64() > before["epoch"].as_u64());
}

#[tokio::test]
async fn a_second_server_on_the_same_directory_does_not_start_and_says_why() {
    let first = TestProcess::start(&[]).await;
    let second = first.twin().await;
    assert_eq!(second.status.code(), Some(1));
    let words = String::from_utf8_lossy(&second.stderr);
    assert!(words.contains("data") && words.lines().count() == 1, "{words}");
}

/// Without the secret the successor is silent to packets of connections that it doesn't know.
#[tokio::test]
async fn with_a_shared_secret_the_successor_of_a_killed_server_tells_quic_clients_at_once() {
    let secret = [("QUIC_SHARED_SECRET", "thirty-two bytes that both processes have"), ("QUIC_SERVER_ID", "0x0102")];
    let mut server = TestProcess::start(&secret).await;
    let mut tls = crate::support::server::tls(server.certificate());
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
    let mut client = quinn::Endpoint::client(([127, 0, 0, 1], 0).into()).unwrap();
    client.set_default_client_config(quinn::ClientConfig::new(std::sync::Arc::new(crypto)));
    let connection = client.connect(server.place().secure, "localhost").unwrap().await.unwrap();
    server.kill().await;
    server.start_again().await;
    connection.send_datagram(bytes::Bytes::from_static(b"still there?")).unwrap();
    let end = crate::support::server::soon("the connection's end", connection.closed()).await;
    assert_eq!(end, quinn::ConnectionError::Reset, "not TimedOut");
}
