//! Two whole servers over one Redis and one PostgreSQL: what only shows when they are put together.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/postgres.rs"]
mod postgres;
#[path = "support/redis.rs"]
mod redis_server;
#[path = "support/whole_server.rs"]
mod support;

use postgres::Database;
use redis_server::RedisServer;
use secrecy::ExposeSecret;
use std::time::Duration;

use serde_json::{Value, json};
use support::client::Carrier::{Quinn, WebSocket, Wtransport};
use support::client::{Client, Digest, Status, Tick};
use support::server::{TestProcess, TestServer, until};

/// Services that the nodes share.
struct Ground {
    redis: RedisServer,
    database: Database,
}

impl Ground {
    async fn new() -> Self {
        Self { redis: RedisServer::start().await, database: Database::create().await }
    }

    fn settings<'a>(&self, node: &'a str, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, String)> {
        let own = [
            ("NODE_ID", node.to_owned()),
            ("REDIS_URL", format!("redis://127.0.0.1:{}", self.redis.port())),
            ("DATABASE_URL", self.database.settings().url.expose_secret().to_owned()),
            ("POSTGRES_POOL_SIZE", "4".to_owned()),
        ];
        own.into_iter().chain(more.iter().map(|(name, value)| (*name, (*value).to_owned()))).collect()
    }

    async fn node(&self, name: &str, more: &[(&str, &str)]) -> TestServer {
        let settings = self.settings(name, more);
        let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
        TestServer::with(&settings).await
    }

    async fn process(&self, name: &str, more: &[(&str, &str)]) -> TestProcess {
        let settings = self.settings(name, more);
        let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
        TestProcess::start(&settings).await
    }
}

#[tokio::test]
async fn the_digest_of_a_large_room_is_that_of_both_nodes() {
    let ground = Ground::new().await;
    let large = [("FULL_PRESENCE_MEMBERS", "2")];
    let (a, b) = (ground.node("a", &large).await, ground.node("b", &large).await);
    let (mut ann, mut bob, mut cat) = (a.connect(WebSocket).await, b.connect(Quinn).await, b.connect(Wtransport).await);
    ann.join("friday", "ann").await;
    bob.join("friday", "bob").await;
    cat.join("friday", "cat").await;
    let drift = |micros| Status { drift: Some(micros), ..Status::default() };
    let whole = Digest {
        members: 3,
        audience: 0,
        measured: 3,
        in_step: 1,
        buffering: 1,
        distance: None,
        stand_outs: vec![(3, true, None), (2, false, Some(-90_000))],
    };
    until("both nodes to tell the same", async || {
        ann.status(&drift(3000)).await;
        bob.status(&drift(-90_000)).await;
        cat.status(&Status { buffering: true, ..Status::default() }).await;
        let told = [ann.heard_digest().await, bob.heard_digest().await, cat.heard_digest().await];
        told.iter().all(|digest| Digest { distance: None, ..digest.clone() } == whole).then_some(())
    })
    .await;
    // The host's tick crosses; nobody else's, and nobody's status.
    let now = ann.room_time().await;
    cat.tick(1, 5.0, now, false).await;
    let tick = until("the host's tick on the other node", async || {
        ann.tick(2, 5.0, now, false).await;
        let bytes = bob.compact().await;
        assert!(matches!(bytes[0], 3 | Digest::KIND), "{bytes:?}");
        (bytes[0] == 3).then(|| Tick::read(&bytes))
    })
    .await;
    assert_eq!((tick.slot, tick.from_host, tick.seq), (1, true, 2));
}

#[tokio::test]
async fn wrong_pins_and_joins_are_counted_over_both_nodes() {
    let ground = Ground::new().await;
    let limits = [("MAX_PIN_ATTEMPTS", "4"), ("MAX_JOINS_PER_MINUTE", "8")];
    let (a, b) = (ground.node("a", &limits).await, ground.node("b", &limits).await);
    let mut ann = a.connect(WebSocket).await;
    ann.join_with("friday", "ann", json!({"protocol": 3, "pin": "4711"})).await;
    let (mut bob, mut cat) = (a.connect(Quinn).await, b.connect(Wtransport).await);
    for (n, pin) in ["0000", "1111"].into_iter().enumerate() {
        for (client, user) in [(&mut bob, "bob"), (&mut cat, "cat")] {
            client.ask_to_join("friday", user, json!({"protocol": 3, "pin": pin})).await;
            assert_eq!(client.refused("PIN_WRONG").await["type"], "ERROR", "round {n}");
        }
    }
    for (client, user) in [(&mut bob, "bob"), (&mut cat, "cat")] {
        client.ask_to_join("friday", user, json!({"protocol": 3, "pin": "4711"})).await;
        let error = client.refused("PIN_THROTTLED").await;
        assert!(error["retryAfterMs"].as_u64().is_some_and(|wait| (30_000..=60_000).contains(&wait)), "{error}");
    }
    // Seven JOINs so far, of one address.
    cat.join("saturday", "cat").await;
    for (client, user) in [(&mut bob, "bob"), (&mut cat, "cat")] {
        client.ask_to_join("sunday", user, json!({"protocol": 3})).await;
        let error = client.refused("RATE_LIMITED").await;
        assert!(error["retryAfterMs"].as_u64().is_some_and(|wait| (30_000..=60_000).contains(&wait)), "{error}");
    }
}

#[tokio::test]
async fn a_user_has_so_many_sessions_on_both_nodes_together_and_keeps_its_seat() {
    let ground = Ground::new().await;
    let limits = [("MAX_SESSIONS_PER_USER", "2"), ("MEMBER_GRACE_SECS", "60")];
    let (a, b) = (ground.node("a", &limits).await, ground.node("b", &limits).await);
    let (mut first, mut second) = (a.connect(WebSocket).await, b.connect(Quinn).await);
    let seat = first.join("friday", "ann").await;
    second.join("saturday", "ann").await;
    let mut third = b.connect(WebSocket).await;
    third.ask_to_join("sunday", "ann", json!({"protocol": 3})).await;
    third.refused("SESSION_LIMIT").await;
    // Refused, it is in no room; as somebody else it gets in.
    third.chat("hello").await;
    third.refused("NOT_JOINED").await;
    third.join("sunday", "bob").await;
    // A session that changes rooms, or joins again, keeps its place.
    second.join("monday", "ann").await;
    // Who has a seat comes back to it, on whichever node, while the session of before still counts.
    let mut back = b.connect(Wtransport).await;
    let again = back.resume(&seat).await;
    assert_eq!(again["resumed"], true);
    first.closed_with(4005).await;
    third.ask_to_join("tuesday", "ann", json!({"protocol": 3})).await;
    third.refused("SESSION_LIMIT").await;
    // A session that ends gives its place back.
    back.leave().await;
    back.closed_with(1000).await;
    let mut fourth = a.connect(Quinn).await;
    joins_at_last(&mut fourth, "wednesday", "ann").await;
}

#[tokio::test]
async fn the_places_of_a_node_that_was_killed_come_back() {
    let ground = Ground::new().await;
    let limits = [("MAX_SESSIONS_PER_USER", "1"), ("JOIN_TIMEOUT_SECS", "60")];
    let a = ground.node("a", &limits).await;
    let mut b = ground.process("b", &limits).await;
    let mut lost = b.connect(WebSocket).await;
    lost.join("friday", "ann").await;
    let mut ann = a.connect(WebSocket).await;
    ann.ask_to_join("saturday", "ann", json!({"protocol": 3})).await;
    ann.refused("SESSION_LIMIT").await;
    b.kill().await;
    joins_at_last(&mut ann, "saturday", "ann").await;
}

#[tokio::test]
async fn without_redis_a_node_still_counts_and_rate_limits_off_lifts_all() {
    let mut ground = Ground::new().await;
    let limits = [("MAX_SESSIONS_PER_USER", "1"), ("MAX_JOINS_PER_MINUTE", "3")];
    let a = ground.node("a", &limits).await;
    let off = ground.node("b", &[("RATE_LIMITS", "off"), limits[0], limits[1]]).await;
    let mut open = Vec::new();
    for n in 0..6 {
        let mut client = off.connect(WebSocket).await;
        client.join(&format!("room-{n}"), "ann").await;
        open.push(client);
    }
    let mut ann = a.connect(WebSocket).await;
    ann.join("friday", "ann").await;
    ground.redis.kill().await;
    let mut bob = a.connect(WebSocket).await;
    // The log is away too: what is refused is refused for the limit as long as there is one.
    for _ in 0..2 {
        bob.ask_to_join("friday", "bob", json!({"protocol": 3})).await;
        bob.refused("UNAVAILABLE").await;
    }
    bob.ask_to_join("friday", "bob", json!({"protocol": 3})).await;
    bob.refused("RATE_LIMITED").await;
    assert_eq!(a.get_json("/status", &[]).await["cluster"]["quotasShared"], false);
}

#[tokio::test]
async fn the_operator_reads_why_clients_hear_unavailable() {
    let mut ground = Ground::new().await;
    let node = ground.process("a", &[]).await;
    ground.redis.kill().await;
    let mut bob = node.connect(WebSocket).await;
    bob.ask_to_join("friday", "bob", json!({"protocol": 3})).await;
    bob.refused("UNAVAILABLE").await;
    let log = node.log();
    let said = log.lines().find(|line| line.contains("clients hear UNAVAILABLE"));
    assert!(said.is_some_and(|line| line.contains("friday") && line.contains("no subscription")), "{log}");
    let metrics = node.get("/metrics", &[]).await.text().await.unwrap();
    assert!(metrics.contains("tandem_log_failures_total{operation=\"subscribe\"} 1"), "{metrics}");
}

/// A restart without the data breaks the connection before a probe can see another era.
#[tokio::test]
async fn the_operator_reads_that_a_restarted_redis_has_lost_its_data() {
    let mut ground = Ground::new().await;
    let node = ground.process("a", &[]).await;
    let mut ann = node.connect(WebSocket).await;
    ann.join("friday", "ann").await;
    let metric = async || {
        let metrics = node.get("/metrics", &[]).await.text().await.unwrap();
        metrics.contains("tandem_redis_data_losses_total 1").then_some(())
    };
    assert_eq!(metric().await, None);
    ground.redis.kill().await;
    ground.redis.up().await;
    until("the loss to be counted", metric).await;
    assert!(node.log().contains("Redis has lost its data"), "{}", node.log());
}

#[tokio::test]
async fn status_shows_the_cluster_from_every_node() {
    let ground = Ground::new().await;
    let (a, mut b) = (ground.node("a", &[]).await, ground.process("b", &[]).await);
    let mut ann = a.connect(WebSocket).await;
    ann.join("friday", "ann").await;
    let (mut bob, mut cat) = (b.connect(Quinn).await, b.connect(WebSocket).await);
    bob.join("friday", "bob").await;
    cat.join("saturday", "cat").await;
    for place in [a.place(), b.place()] {
        let cluster = until("both nodes, all rooms, and an audit that is through", async || {
            let cluster = place.get_json("/status", &[]).await["cluster"].clone();
            let nodes = nodes(&cluster);
            let told = nodes.len() == 2 && nodes.iter().all(|node| node["sessions"].as_u64() > Some(0));
            let sessions = |name: &str| node_named(&cluster, name)["sessions"].as_u64();
            let counted = cluster["rooms"] == 2 && cluster["outbox"]["waiting"] == 0;
            (told && counted && sessions("a") == Some(1) && sessions("b") == Some(2)).then_some(cluster)
        })
        .await;
        let (one, two) = (node_named(&cluster, "a"), node_named(&cluster, "b"));
        assert_eq!((&one["state"], &two["state"]), (&json!("alive"), &json!("alive")), "{cluster}");
        assert_eq!((&one["rooms"], &two["rooms"]), (&json!(1), &json!(2)), "{cluster}");
        assert_eq!((&one["members"], &two["members"]), (&json!(2), &json!(3)), "{cluster}");
        assert!(one["busLagMs"].is_f64() && two["clockOffsetMs"].is_f64(), "{cluster}");
        assert_eq!(cluster["outbox"]["ageMs"], 0, "{cluster}");
        assert!(cluster["measuredMsAgo"].as_u64().is_some_and(|ago| ago < 60_000), "{cluster}");
        assert!(nodes(&cluster).iter().any(|node| node["node"] == cluster["drainer"]), "{cluster}");
        assert_eq!((&cluster["busAlive"], &cluster["quotasShared"]), (&json!(true), &json!(true)), "{cluster}");
    }
    b.kill().await;
    until("the other one to be missed", async || {
        let cluster = a.get_json("/status", &[]).await["cluster"].clone();
        (node_named(&cluster, "b")["state"] == "gone").then_some(())
    })
    .await;
}

fn nodes(cluster: &Value) -> Vec<Value> {
    cluster["nodes"].as_array().cloned().unwrap_or_default()
}

/// A process adds a random number to its name.
fn node_named(cluster: &Value, name: &str) -> Value {
    let is = |node: &Value| node["node"].as_str().is_some_and(|full| full.starts_with(&format!("{name}:")));
    nodes(cluster).into_iter().find(is).unwrap_or_default()
}

async fn joins_at_last(client: &mut Client, room: &str, user: &str) {
    until("a place", async || {
        client.ask_to_join(room, user, json!({"protocol": 3})).await;
        let joined = client.message().await["type"] == "ROOM_STATE";
        if !joined {
            // Who asks as fast as it can is ended for that.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        joined.then_some(())
    })
    .await;
}

/// A node whose room has viewers and no member follows it; its viewers come back to another one by joining again.
#[tokio::test]
async fn viewers_of_a_node_that_is_killed_come_back_to_another_and_hear_the_room_in_order() {
    let ground = Ground::new().await;
    let (a, mut b) = (ground.node("a", &[]).await, ground.process("b", &[]).await);
    let mut ann = a.connect(WebSocket).await;
    ann.join("friday", "ann").await;
    let viewing = json!({"protocol": 3, "as": "viewer"});
    let mut far = Vec::new();
    for (number, carrier) in [WebSocket, Quinn, Wtransport].into_iter().enumerate() {
        let mut viewer = b.connect(carrier).await;
        viewer.join_with("friday", &format!("far-{number}"), viewing.clone()).await;
        far.push(viewer);
    }
    let mut near = a.connect(Quinn).await;
    near.join_with("friday", "near", viewing.clone()).await;
    for number in 0..20 {
        ann.chat(&format!("line {number}")).await;
    }
    // The clients assert that each event comes once and in order.
    for viewer in far.iter_mut().chain([&mut near]) {
        for number in 0..20 {
            assert_eq!(viewer.until("CHAT").await["text"], format!("line {number}"));
        }
    }
    let counted = async |ann: &mut Client, count: u64| while ann.until("AUDIENCE").await["count"] != count {};
    counted(&mut ann, 4).await;
    // From now on node a knows that others watch.
    let at = ann.room_time().await;
    ann.tick(1, 0.0, at, false).await;
    while far[0].compact().await[0] != 3 {}
    b.kill().await;
    counted(&mut ann, 1).await;
    let mut back = Vec::new();
    for (number, carrier) in [WebSocket, Quinn, Wtransport].into_iter().enumerate() {
        let mut viewer = a.connect(carrier).await;
        let state = viewer.join_with("friday", &format!("far-{number}"), viewing.clone()).await;
        assert_eq!(state["users"].as_array().map(Vec::len), Some(1), "{state}");
        ann.chat("again").await;
        assert_eq!(viewer.until("CHAT").await["text"], "again");
        back.push(viewer);
    }
    counted(&mut ann, 4).await;
}
