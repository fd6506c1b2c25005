//! From the outbox in Redis into the database: each commit once, whatever fails. On a real redis-server and SQLite.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/commits.rs"]
mod commits;
#[path = "support/failing_repository.rs"]
mod failing_repository;
#[path = "support/redis_node.rs"]
mod redis_node;
#[path = "support/redis.rs"]
mod redis_server;
#[path = "support/trace_dispatcher.rs"]
mod trace_dispatcher;
#[path = "support/waiting.rs"]
mod waiting;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use commits::{EPOCH, after, created, ended, head, room};
use failing_repository::FailingRepository;
use redis_node::{RedisNode, committed, quick};
use redis_server::{RedisServer, Shell, short_lives};
use tandem::cluster::DrainOptions;
use tandem::domain::{Head, RoomId};
use tandem::log::Log;
use tandem::redis::RedisOptions;
use tandem::repository::sqlite::SqliteRepository;
use tandem::repository::{Repository, RepositoryError};
use tempfile::TempDir;
use waiting::until;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_commit_of_every_node_becomes_one_row_in_order() {
    const EACH: u64 = 40;
    let (server, database) = (RedisServer::start().await, Database::open().await);
    let nodes = [
        draining("a", &server, &database).await,
        draining("b", &server, &database).await,
        draining("c", &server, &database).await,
    ];
    let rooms: Vec<RoomId> = (0..12).map(|n| room(&format!("room-{n}"))).collect();
    for room in &rooms {
        committed(&nodes[0], created(room, Head::default(), EPOCH)).await;
    }
    for seq in 1..EACH {
        for (n, room) in rooms.iter().enumerate() {
            committed(&nodes[(n + seq as usize) % 3], after(room, head(EPOCH, seq))).await;
        }
    }
    for room in &rooms {
        database.holds(room, EACH).await;
    }
    let live = database.repository.live_rooms().await.unwrap();
    assert_eq!(live.len(), rooms.len());
    for snapshot in live {
        let theirs = nodes[1].load(&snapshot.room).await.unwrap().unwrap();
        assert_eq!(snapshot, theirs, "the database has the state that Redis has");
    }
    until(async || nodes.iter().all(|node| node.unaudited() == 0)).await;
}

#[tokio::test]
async fn a_database_that_is_away_delays_the_audit_and_loses_nothing() {
    let (server, database) = (RedisServer::start().await, Database::open().await);
    let node = draining("a", &server, &database).await;
    let friday = room("friday");
    committed(&node, created(&friday, Head::default(), EPOCH)).await;
    until(async || node.unaudited() == 0).await;
    database.repository.fails.store(true, Ordering::SeqCst);
    for seq in 1..200 {
        committed(&node, after(&friday, head(EPOCH, seq))).await;
    }
    until(async || database.repository.refused.load(Ordering::SeqCst) > 1).await;
    assert_eq!(node.unaudited(), 199);
    database.repository.fails.store(false, Ordering::SeqCst);
    database.holds(&friday, 200).await;
}

#[tokio::test]
async fn what_a_dead_drainer_had_read_is_stored_by_the_next_one_first() {
    let (server, database) = (RedisServer::start().await, Database::open().await);
    let node = RedisNode::at("a", server.options()).await;
    let friday = room("friday");
    committed(&node, created(&friday, Head::default(), EPOCH)).await;
    for seq in 1..10 {
        committed(&node, after(&friday, head(EPOCH, seq))).await;
    }
    let mut shell = server.shell().await;
    shell.ask::<()>("XGROUP CREATE tandem:{p50}:outbox audit 0").await;
    let _: redis::Value = shell.ask("XREADGROUP GROUP audit dead COUNT 4 STREAMS tandem:{p50}:outbox >").await;
    node.drain(&database.repository, quick());
    database.holds(&friday, 10).await;
    until(async || node.unaudited() == 0).await;
    assert_eq!(pending(&mut shell).await, 0);
}

#[tokio::test]
async fn what_was_handed_out_and_never_arrived_is_stored_by_the_same_drainer() {
    let (server, database) = (RedisServer::start().await, Database::open().await);
    let node = draining("a", &server, &database).await;
    let friday = room("friday");
    committed(&node, created(&friday, Head::default(), EPOCH)).await;
    database.holds(&friday, 1).await;
    // The drainer has one commit in its hands, and four more wait.
    database.repository.fails.store(true, Ordering::SeqCst);
    committed(&node, after(&friday, head(EPOCH, 1))).await;
    let mut shell = server.shell().await;
    until(async || pending(&mut shell).await == 1).await;
    for seq in 2..6 {
        committed(&node, after(&friday, head(EPOCH, seq))).await;
    }
    // A call of its own whose answer was lost, as when Redis stands still for longer than a call's patience.
    let lost: redis::Value = shell.ask("XREADGROUP GROUP audit a COUNT 3 STREAMS tandem:{p50}:outbox >").await;
    assert_ne!(lost, redis::Value::Nil);
    database.repository.fails.store(false, Ordering::SeqCst);
    database.holds(&friday, 6).await;
}

#[tokio::test]
async fn one_node_drains_and_another_takes_over_when_it_stops_or_dies() {
    let (server, database) = (RedisServer::start().await, Database::open().await);
    let first = draining("a", &server, &database).await;
    let friday = room("friday");
    committed(&first, created(&friday, Head::default(), EPOCH)).await;
    database.holds(&friday, 1).await;
    let second = draining("b", &server, &database).await;
    let drainer = async || server.shell().await.ask::<Option<String>>("GET tandem:{nodes}:drainer").await;
    assert_eq!(drainer().await.as_deref(), Some("a"));
    drop(first);
    committed(&second, after(&friday, head(EPOCH, 1))).await;
    database.holds(&friday, 2).await;
    assert_eq!(drainer().await.as_deref(), Some("b"));
}

#[tokio::test]
async fn what_redis_lost_before_the_database_had_it_is_stored_all_the_same() {
    let (server, database) = (RedisServer::start().await, Database::open().await);
    let node = draining("a", &server, &database).await;
    let friday = room("friday");
    committed(&node, created(&friday, Head::default(), EPOCH)).await;
    database.holds(&friday, 1).await;
    database.repository.fails.store(true, Ordering::SeqCst);
    for seq in 1..20 {
        committed(&node, after(&friday, head(EPOCH, seq))).await;
    }
    let known = node.load(&friday).await.unwrap().unwrap();
    server.shell().await.ask::<()>("FLUSHALL").await;
    node.restore(known).await.unwrap();
    // Others have their turn to write back first; then it is decided anew.
    let early = node.commit(after(&friday, head(EPOCH, 20))).await;
    assert!(
        matches!(early, Ok(tandem::log::Outcome::Conflict(Some(latest))) if latest == head(EPOCH, 20)),
        "{early:?}"
    );
    committed(&node, after(&friday, head(EPOCH, 20))).await;
    database.repository.fails.store(false, Ordering::SeqCst);
    database.holds(&friday, 21).await;
}

#[tokio::test]
async fn others_read_the_outbox_with_a_group_of_their_own() {
    let (server, database) = (RedisServer::start().await, Database::open().await);
    let retain = Duration::from_millis(300);
    let node = RedisNode::at("a", server.options()).await;
    let friday = room("friday");
    let mut shell = server.shell().await;
    database.repository.fails.store(true, Ordering::SeqCst);
    node.drain(&database.repository, DrainOptions { retain, ..quick() });
    committed(&node, created(&friday, Head::default(), EPOCH)).await;
    committed(&node, after(&friday, head(EPOCH, 1))).await;
    shell.ask::<()>("XGROUP CREATE tandem:{p50}:outbox shipper 0").await;
    let length = async || server.shell().await.ask::<u64>("XLEN tandem:{p50}:outbox").await;
    until(async || database.repository.refused.load(Ordering::SeqCst) > 3).await;
    assert_eq!(length().await, 2, "what the database lacks stays, however old");
    type Entries = Vec<(String, Vec<(String, BTreeMap<String, redis::Value>)>)>;
    let read: Entries = shell.ask("XREADGROUP GROUP shipper one STREAMS tandem:{p50}:outbox >").await;
    let (_, fields) = &read[0].1[1];
    let text = |name: &str| redis::from_redis_value_ref::<String>(&fields[name]).unwrap();
    assert_eq!((text("room"), text("head")), ("friday".to_owned(), format!("{EPOCH}.2")));
    let events: serde_json::Value = serde_json::from_str(&text("events")).unwrap();
    let expected = serde_json::json!([{
        "epoch": EPOCH, "seq": 2, "at": (EPOCH + 2000) * 1000, "kind": "play", "user": "ann", "data": { "seq": 2 },
    }]);
    assert_eq!(events, expected, "docs/EVENTS.md");
    database.repository.fails.store(false, Ordering::SeqCst);
    until(async || length().await <= 1).await;
    database.holds(&friday, 2).await;
}

#[tokio::test]
async fn what_the_audit_has_not_read_yet_is_not_trimmed_however_old() {
    let (server, database) = (RedisServer::start().await, Database::open().await);
    let node = RedisNode::at("a", server.options()).await;
    let friday = room("friday");
    committed(&node, created(&friday, Head::default(), EPOCH)).await;
    for seq in 1..300 {
        committed(&node, after(&friday, head(EPOCH, seq))).await;
    }
    // The first batch is a small part, and nothing is kept for others.
    node.drain(&database.repository, DrainOptions { batch: 20, retain: Duration::ZERO, ..quick() });
    database.holds(&friday, 300).await;
    until(async || server.shell().await.ask::<u64>("XLEN tandem:{p50}:outbox").await <= 1).await;
}

#[tokio::test]
async fn when_rooms_have_ended_and_the_database_has_them_redis_is_empty() {
    let (server, database) = (RedisServer::start().await, Database::open().await);
    let life = Duration::from_millis(1500);
    let (never, recovery_wait) = (Duration::from_secs(3600), Duration::ZERO);
    let options = RedisOptions { lives: short_lives(life), probe_every: never, recovery_wait, ..server.options() };
    let node = RedisNode::at("a", options).await;
    node.drain(&database.repository, quick());
    for n in 0..20 {
        let room = room(&format!("room-{n}"));
        committed(&node, created(&room, Head::default(), EPOCH)).await;
        committed(&node, ended(&room, head(EPOCH, 1))).await;
    }
    until(async || node.unaudited() == 0).await;
    until(async || server.shell().await.keys().await.iter().all(|key| key == "tandem:{nodes}:drainer")).await;
    for n in 0..20 {
        database.holds(&room(&format!("room-{n}")), 2).await;
    }
}

/// One look of the drainer finds both.
#[tokio::test]
async fn a_nearly_full_outbox_and_a_nearly_full_redis_are_two_alarms() {
    let (server, database) = (RedisServer::start().await, Database::open().await);
    let node = RedisNode::at("a", RedisOptions { outbox_entries: 4, ..server.options() }).await;
    let friday = room("friday");
    committed(&node, created(&friday, Head::default(), EPOCH)).await;
    for seq in 1..4 {
        committed(&node, after(&friday, head(EPOCH, seq))).await;
    }
    let mut shell = server.shell().await;
    let memory: String = shell.ask("INFO memory").await;
    let used: u64 = memory.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap().parse().unwrap();
    shell.ask::<()>(&format!("CONFIG SET maxmemory {}", used / 5 * 6)).await;

    let log = database.dir.path().join("log");
    let file = Arc::new(std::fs::File::create(&log).unwrap());
    let subscriber = tracing_subscriber::fmt().with_writer(file).finish();
    let _logged = tracing::dispatcher::set_default(&trace_dispatcher::of_this_test(subscriber));
    database.repository.fails.store(true, Ordering::SeqCst);
    node.drain(&database.repository, quick());
    for alarm in ["an outbox is nearly full", "maxmemory is nearly used up"] {
        until(async || std::fs::read_to_string(&log).unwrap().contains(alarm)).await;
    }
}

async fn draining(name: &str, server: &RedisServer, database: &Database) -> RedisNode {
    let node = RedisNode::at(name, server.options()).await;
    node.drain(&database.repository, quick());
    node
}

/// Entries that the audit was handed and has not finished.
async fn pending(shell: &mut Shell) -> u64 {
    let (pending, ..): (u64, redis::Value, redis::Value, redis::Value) =
        shell.ask("XPENDING tandem:{p50}:outbox audit").await;
    pending
}

/// SQLite whose appends can fail.
struct Database {
    repository: Arc<FailingRepository>,
    dir: TempDir,
}

impl Database {
    async fn open() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let sqlite = SqliteRepository::open(dir.path()).await.unwrap();
        let error = || RepositoryError::Query(sqlx::Error::PoolTimedOut);
        Self { repository: Arc::new(FailingRepository::new(sqlite, error)), dir }
    }

    /// Until it has exactly these events of a room, 1 to `last`.
    async fn holds(&self, room: &RoomId, last: u64) {
        let rows = async || self.repository.events(room, Head::default(), 1000).await.unwrap();
        until(async || rows().await.len() as u64 >= last).await;
        let heads: Vec<Head> = rows().await.iter().map(|row| row.head).collect();
        assert_eq!(
            heads,
            (1..=last).map(|seq| head(EPOCH, seq)).collect::<Vec<_>>(),
            "missing, twice, or out of order"
        );
    }
}
