//! What an operator reads off a server that runs: its numbers, and how far a stop has come.

use serde_json::{Value, json};

use crate::support::client::Carrier::{Quinn, WebSocket};
use crate::support::client::Status;
use crate::support::server::{Place, TestProcess, TestServer, until};

async fn numbers(server: &Place) -> String {
    server.get("/metrics", &[]).await.text().await.unwrap()
}

/// The value of a series, 0 when it isn't there.
fn value(text: &str, series: &str) -> f64 {
    let found = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    found.map_or(0.0, |number| number.parse().unwrap())
}

#[tokio::test]
async fn why_clients_fall_back_and_how_they_come_back_is_counted_once_each() {
    let server = TestProcess::start(&[]).await;
    let mut ann = server.connect(WebSocket).await;
    ann.join_with("friday", "ann", json!({"protocol": 3, "fallback": "slow"})).await;
    // The same session again, and one that has no reason to give.
    ann.join_with("saturday", "ann", json!({"protocol": 3, "fallback": "slow"})).await;
    let mut bob = server.connect(WebSocket).await;
    bob.join_with("saturday", "bob", json!({"protocol": 3, "fallback": "my router said\n# TYPE evil counter"})).await;
    let mut eve = server.connect(Quinn).await;
    eve.join_with("saturday", "eve", json!({"protocol": 3, "fallback": "failed"})).await;

    let state = bob.state.clone();
    bob.close().await;
    let mut bob = server.connect(WebSocket).await;
    bob.resume(&state).await;
    let mut stranger = server.connect(WebSocket).await;
    let join = json!({"protocol": 3, "resumeToken": "A".repeat(43)});
    stranger.ask_to_join("saturday", "eve", join.clone()).await;
    stranger.refused("TOKEN_INVALID").await;
    // The name is free again: a token keeps no other client out.
    stranger.join_with("saturday", "gone", join).await;

    let text = numbers(&server).await;
    assert_eq!(value(&text, "tandem_fallbacks_total{reason=\"slow\"}"), 1.0);
    assert_eq!(value(&text, "tandem_fallbacks_total{reason=\"other\"}"), 1.0);
    assert_eq!(text.lines().filter(|line| line.starts_with("tandem_fallbacks_total")).count(), 2, "{text}");
    for (outcome, count) in [("resumed", 1.0), ("token_invalid", 1.0), ("too_late", 1.0), ("refused", 0.0)] {
        assert_eq!(value(&text, &format!("tandem_resumes_total{{outcome=\"{outcome}\"}}")), count, "{outcome}");
    }
    assert!(!text.contains("evil"));
}

#[tokio::test]
async fn what_members_measure_becomes_a_distribution_that_a_liar_can_not_spoil() {
    let server = TestProcess::start(&[]).await;
    let (mut ann, mut bob) = (server.connect(WebSocket).await, server.connect(WebSocket).await);
    ann.join("friday", "ann").await;
    bob.join("friday", "bob").await;
    let status = |drift: i32| Status {
        rtt: Some(12_000),
        drift: Some(drift),
        clock_error: Some(-3000),
        buffering: true,
        ..Status::default()
    };
    bob.status(&status(-80_000)).await;
    ann.heard_status().await;
    // More often than they are relayed they don't count either.
    bob.status(&status(1000)).await;
    ann.status(&status(600_000_000)).await;
    bob.heard_status().await;
    ann.status(&status(i32::MIN)).await;
    ann.until("ERROR").await;

    let text = numbers(&server).await;
    let drift = |bound: &str| value(&text, &format!("tandem_client_drift_seconds_bucket{{le=\"{bound}\"}}"));
    assert_eq!((drift("0.06"), drift("0.08"), drift("10"), drift("+Inf")), (0.0, 1.0, 2.0, 2.0), "{text}");
    assert!(value(&text, "tandem_client_drift_seconds_sum") < 10.1);
    assert_eq!(value(&text, "tandem_client_clock_error_seconds_bucket{le=\"0.005\"}"), 2.0);
    assert_eq!(value(&text, "tandem_client_rtt_seconds_count"), 2.0);
    assert_eq!(value(&text, "tandem_client_buffering_reports_total"), 2.0);
    assert!(value(&text, "tandem_repository_append_commits_count") > 0.0);
    assert!(value(&text, "tandem_deliveries_total{class=\"event\"}") > 0.0);
    assert!(value(&text, "tandem_messages_in_total{type=\"JOIN\"}") == 2.0);
    assert_eq!(value(&text, "tandem_drain_state{state=\"serving\"}"), 1.0);
}

#[tokio::test]
async fn how_far_a_stop_has_come_can_be_asked_until_it_is_over() {
    let mut server = TestServer::start().await;
    let mut ann = server.connect(WebSocket).await;
    ann.join("friday", "ann").await;
    assert_eq!(
        server.get_json("/status", &[]).await["drain"],
        json!({"state": "serving", "sessionsLeft": null, "forMs": null})
    );
    // It doesn't answer the close, so the server waits for it.
    ann.stop_answering();
    server.begin_stop();
    let drain: Value = until("the stop to show", async || {
        let drain = server.get_json("/status", &[]).await["drain"].take();
        (drain["state"] != "serving").then_some(drain)
    })
    .await;
    assert_eq!((&drain["state"], &drain["sessionsLeft"]), (&json!("leaving"), &json!(1)), "{drain}");
    let text = numbers(&server).await;
    assert_eq!(value(&text, "tandem_drain_state{state=\"leaving\"}"), 1.0);
    assert_eq!(value(&text, "tandem_drain_state{state=\"serving\"}"), 0.0);
    assert_eq!(value(&text, "tandem_drain_sessions"), 1.0);
    assert_eq!(server.get("/ready", &[]).await.status(), 200, "a server that drains stays ready");
    server.stop().await;
    assert!(tokio::net::TcpStream::connect(server.plain).await.is_err(), "and then nobody answers");
}

#[tokio::test]
async fn what_a_member_reports_of_its_player_and_connection_is_in_the_database_within_seconds() {
    let server = TestServer::with(&[]).await;
    let mut ann = server.connect(WebSocket).await;
    ann.join("friday", "ann").await;
    ann.send(json!({"type": "POSITION_UPDATE", "currentTime": 12.5, "isPlaying": true})).await;
    ann.status(&Status { rtt: Some(200_000), ..Status::default() }).await;
    let file = server.data_dir().join("tandem.db");
    let mut database = <sqlx::SqliteConnection as sqlx::Connection>::connect(file.to_str().unwrap()).await.unwrap();
    let sql = "SELECT position || ' ' || is_playing || ' ' || connection_quality || ' ' || (last_heartbeat >= created_at) FROM users \
               WHERE user_id = 'ann' AND last_heartbeat IS NOT NULL";
    let row = until("the report is stored", async || {
        sqlx::query_scalar::<_, String>(sql).fetch_optional(&mut database).await.unwrap()
    });
    assert_eq!(row.await, "12.5 1 fair 1");
}
