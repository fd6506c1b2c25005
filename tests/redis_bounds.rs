//! What Redis may hold, and what a full or a slow one costs. On a real redis-server and SQLite.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/commits.rs"]
mod commits;
#[path = "support/proxy.rs"]
mod proxy;
#[path = "support/redis_node.rs"]
mod redis_node;
#[path = "support/redis.rs"]
mod redis_server;
#[path = "support/waiting.rs"]
mod waiting;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use commits::{EPOCH, after, created, head, room};
use proxy::Proxy;
use redis_node::{RedisNode, committed};
use redis_server::{RedisServer, options};
use tandem::cluster::DrainOptions;
use tandem::commit::Commit;
use tandem::domain::{Head, NodeId, RoomId};
use tandem::log::redis::RedisLog;
use tandem::log::{Followed, Log, Outcome};
use tandem::redis::{PARTITIONS, RedisOptions};
use tandem::repository::Repository;
use tandem::repository::sqlite::SqliteRepository;
use waiting::{DEADLINE, until, within};

const SMALL: [&str; 4] = ["--maxmemory", "12mb", "--maxmemory-policy", "noeviction"];
const SHARE: u64 = 256 << 10;

#[tokio::test]
async fn a_flood_that_the_database_does_not_follow_leaves_redis_room_for_rooms() {
    let server = RedisServer::start_with(&SMALL).await;
    let node = RedisNode::at("a", server.options()).await;
    flood(&node, 20 << 20).await;
    for n in 0..50 {
        committed(&node, created(&room(&format!("newcomer-{n}")), Head::default(), EPOCH)).await;
    }
}

#[tokio::test]
async fn so_it_does_on_every_server_of_a_cluster_while_it_is_drained() {
    let servers = RedisServer::start_cluster().await;
    for server in &servers {
        server.shell().await.ask::<()>("CONFIG SET maxmemory 12mb").await;
    }
    let (node, database) = (RedisNode::at("a", servers[0].options()).await, Database::open().await);
    node.drain(&database.repository, quick());
    flood(&node, 20 << 20).await;
    for n in 0..50 {
        committed(&node, created(&room(&format!("newcomer-{n}")), Head::default(), EPOCH)).await;
    }
    until(async || node.unaudited() == 0).await;
}

#[tokio::test]
async fn when_memory_is_short_what_the_database_has_goes_first_and_nothing_is_lost() {
    let server = RedisServer::start_with(&SMALL).await;
    let (node, database) = (RedisNode::at("a", server.options()).await, Database::open().await);
    node.drain(&database.repository, quick());
    let friday = room("friday");
    committed(&node, created(&friday, Head::default(), EPOCH)).await;
    for seq in 1..3000 {
        committed(&node, large(&friday, head(EPOCH, seq))).await;
        if seq % 100 == 0 {
            until(async || node.unaudited() == 0).await;
        }
    }
    until(async || node.unaudited() == 0).await;
    assert_eq!(database.heads(&friday).await, (1..=3000).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_outbox_is_bounded_in_bytes_and_what_the_database_has_goes_first() {
    let server = RedisServer::start().await;
    let (node, database) = (RedisNode::at("a", bounded(&server)).await, Database::open().await);
    node.drain(&database.repository, quick());
    let friday = room("friday");
    committed(&node, created(&friday, Head::default(), EPOCH)).await;
    let mut shell = server.shell().await;
    for seq in 1..400 {
        committed(&node, large(&friday, head(EPOCH, seq))).await;
        let bytes: u64 = shell.ask("MEMORY USAGE tandem:{p50}:outbox").await;
        // The drainer has some of them in its hands by now, which takes a little, too.
        assert!(bytes <= SHARE + (32 << 10), "{bytes} after {seq}");
        if seq % 20 == 0 {
            until(async || node.unaudited() == 0).await;
        }
    }
    until(async || node.unaudited() == 0).await;
    assert_eq!(database.heads(&friday).await, (1..=400).collect::<Vec<_>>());
    let left: u64 = shell.ask("XLEN tandem:{p50}:outbox").await;
    assert!(left > 20, "others find what fits: {left}");
}

#[tokio::test]
async fn beyond_its_bytes_an_outbox_loses_its_oldest_commits_and_the_drainer_goes_on_with_the_rest() {
    let server = RedisServer::start().await;
    let (node, database) = (RedisNode::at("a", bounded(&server)).await, Database::open().await);
    let friday = room("friday");
    committed(&node, created(&friday, Head::default(), EPOCH)).await;
    let mut shell = server.shell().await;
    // A drainer had the first ones in its hands when it died.
    shell.ask::<()>("XGROUP CREATE tandem:{p50}:outbox audit 0").await;
    committed(&node, large(&friday, head(EPOCH, 1))).await;
    let _: redis::Value = shell.ask("XREADGROUP GROUP audit a COUNT 2 STREAMS tandem:{p50}:outbox >").await;
    for seq in 2..400 {
        committed(&node, large(&friday, head(EPOCH, seq))).await;
    }
    node.drain(&database.repository, quick());
    until(async || node.unaudited() == 0).await;
    let stored = database.heads(&friday).await;
    assert_eq!(stored.last(), Some(&400));
    assert_eq!(stored, (stored[0]..=400).collect::<Vec<_>>(), "the newest, without a hole");
    let (pending, ..): (u64, redis::Value, redis::Value, redis::Value) =
        shell.ask("XPENDING tandem:{p50}:outbox audit").await;
    assert_eq!(pending, 0, "what is gone is finished");
}

#[tokio::test]
async fn a_lost_answer_is_found_again_however_many_nodes_have_spoken_since() {
    const OTHERS: u64 = 20;
    let server = RedisServer::start().await;
    let proxy = Proxy::to(server.address()).await;
    // Patient enough for the others' commits on a machine that stalls.
    let patient =
        RedisOptions { deadline: DEADLINE, patience: DEADLINE, ..options(&format!("redis://{}", proxy.address())) };
    let node = RedisNode::at("a", patient).await;
    let mut others = Vec::new();
    for n in 0..OTHERS {
        others.push(RedisNode::at(&format!("b{n}"), server.options()).await);
    }
    let friday = room("friday");
    committed(&node, created(&friday, Head::default(), EPOCH)).await;
    proxy.mute();
    let trouble = async {
        until(async || others[0].load(&friday).await.unwrap().unwrap().head == head(EPOCH, 2)).await;
        for (seq, other) in (2..).zip(&others) {
            committed(other, after(&friday, head(EPOCH, seq))).await;
        }
        proxy.heal();
        proxy.hang_up();
    };
    let (outcome, ()) = tokio::join!(node.commit(after(&friday, head(EPOCH, 1))), trouble);
    assert!(matches!(outcome, Ok(Outcome::Committed)), "{outcome:?}");
    let entries: u64 = server.shell().await.ask("XLEN tandem:{p50}:outbox").await;
    assert_eq!(entries, 2 + OTHERS, "each commit once");
}

#[tokio::test]
async fn a_drainer_far_from_redis_keeps_its_lease_while_it_keeps_house() {
    let server = RedisServer::start().await;
    let proxy = Proxy::to(server.address()).await;
    let (far, database) =
        (RedisNode::at("far", options(&format!("redis://{}", proxy.address()))).await, Database::open().await);
    let near = RedisNode::at("near", server.options()).await;
    proxy.delay(Duration::from_millis(20));
    let options = DrainOptions { lease: Duration::from_secs(1), retain: Duration::from_millis(50), ..quick() };
    far.drain(&database.repository, options);
    let mut shell = server.shell().await;
    let drainer = "GET tandem:{nodes}:drainer";
    until(async || shell.ask::<Option<String>>(drainer).await.as_deref() == Some("far")).await;
    near.drain(&database.repository, options);
    // Housekeeping is through when its census is told.
    let mut told = Vec::new();
    until(async || {
        let holder: Option<String> = shell.ask(drainer).await;
        assert_eq!(holder.as_deref(), Some("far"), "after {} censuses", told.len());
        let census: Option<String> = shell.ask("HGET tandem:{nodes}:reports @").await;
        told.extend(census.filter(|census| told.last() != Some(census)));
        told.len() >= 3
    })
    .await;
}

#[tokio::test]
async fn signals_that_waited_for_a_connection_arrive_in_their_order() {
    let server = RedisServer::start().await;
    let proxy = Proxy::to(server.address()).await;
    let node = RedisNode::at("a", options(&format!("redis://{}", proxy.address()))).await;
    let other = RedisNode::at("b", server.options()).await;
    let friday = room("friday");
    other.subscribe(&friday).await.unwrap();
    let mut next = 0_u32;
    for _ in 0..6 {
        proxy.stall();
        proxy.hang_up();
        // The connection is known to be gone, and an attempt at a new one is under way.
        let lost = async { while node.link.ping().await.is_ok() {} };
        let _ = tokio::time::timeout(Duration::from_millis(100), lost).await;
        let begin = next;
        let mut publish = |count: u32| {
            for number in next..next + count {
                node.publish(&friday, None, Bytes::from(number.to_be_bytes().to_vec()));
            }
            next += count;
        };
        publish(300);
        tokio::task::yield_now().await;
        proxy.heal();
        // And on, until the connection is there.
        let mut there = std::pin::pin!(async { while node.link.ping().await.is_err() {} });
        while futures_util::poll!(there.as_mut()).is_pending() {
            publish(1);
            tokio::task::yield_now().await;
        }
        publish(1);
        let mut heard = Vec::new();
        while heard.last() != Some(&(next - 1)) {
            match tokio::time::timeout(Duration::from_secs(3), other.follow()).await {
                Ok(Followed::Ephemeral { message, .. }) => {
                    heard.push(u32::from_be_bytes(message[..].try_into().unwrap()));
                }
                Ok(_) => {}
                // The last ones were lost: that may be.
                Err(_) => break,
            }
        }
        assert!(heard.iter().all(|number| *number >= begin));
        assert!(heard.is_sorted(), "{heard:?}");
        within(node.bus_up()).await;
    }
}

#[tokio::test]
async fn ephemeral_messages_that_wait_together_cost_one_publish_a_channel() {
    const EACH: u32 = 200;
    let server = RedisServer::start().await;
    let (node, other) = (RedisNode::at("a", server.options()).await, RedisNode::at("b", server.options()).await);
    let (friday, saturday, b) = (room("friday"), room("saturday"), NodeId::parse("b").unwrap());
    other.subscribe(&friday).await.unwrap();
    other.subscribe(&saturday).await.unwrap();
    let mut shell = server.shell().await;
    let before = shell.calls("publish").await;
    // On the only thread: the publisher's task doesn't run in between.
    for number in 0..EACH {
        for (lane, room, to) in [(0, &friday, None), (1, &saturday, None), (2, &friday, Some(&b))] {
            let message = [&[lane][..], &number.to_be_bytes()].concat();
            node.publish(room, to, Bytes::from(message));
        }
    }
    let mut heard = [0; 3];
    while heard != [EACH; 3] {
        if let Followed::Ephemeral { message, .. } = within(other.follow()).await {
            let lane = usize::from(message[0]);
            assert_eq!(message[1..], heard[lane].to_be_bytes(), "in order");
            heard[lane] += 1;
        }
    }
    let calls = shell.calls("publish").await - before;
    assert!(calls < 60, "{calls} PUBLISHes of {} messages, the bus' probes included", 3 * EACH);
}

#[tokio::test]
async fn a_command_to_a_room_that_five_nodes_follow_costs_one_publish() {
    let server = RedisServer::start().await;
    let options = RedisOptions { probe_every: Duration::from_secs(3600), ..server.options() };
    let friday = room("friday");
    let mut nodes = Vec::new();
    for name in ["a", "b", "c", "d", "e"] {
        let node = RedisNode::at(name, options.clone()).await;
        node.subscribe(&friday).await.unwrap();
        nodes.push(node);
    }
    committed(&nodes[0], created(&friday, Head::default(), EPOCH)).await;
    let mut shell = server.shell().await;
    // Each node's only probe, and the first commit.
    let mut before = 0;
    until(async || {
        before = shell.calls("publish").await;
        before >= 6
    })
    .await;
    committed(&nodes[0], after(&friday, head(EPOCH, 1))).await;
    for node in &nodes {
        let hears = async {
            loop {
                if let Followed::Commit { entries, .. } = node.follow().await
                    && entries.last().is_some_and(|entry| entry.head == head(EPOCH, 2))
                {
                    return;
                }
            }
        };
        within(hears).await;
    }
    assert_eq!(shell.calls("publish").await - before, 1);
}

/// Large commits in rooms of several partitions.
async fn flood(node: &RedisLog, bytes: usize) {
    let rooms: Vec<RoomId> = (0..8).map(|n| room(&format!("flooded-{n}"))).collect();
    for room in &rooms {
        committed(node, created(room, Head::default(), EPOCH)).await;
    }
    for seq in 1..=(bytes / LARGE / rooms.len()) as u64 {
        for room in &rooms {
            committed(node, large(room, head(EPOCH, seq))).await;
        }
    }
}

const LARGE: usize = 6000;

/// A commit as a change of the film's address makes it: it is in the event, in the room's state, and in its row.
fn large(room: &RoomId, expected: Head) -> Commit {
    let mut commit = after(room, expected);
    let url = format!("https://example.org/{}", "x".repeat(LARGE / 3));
    commit.patch.fields.insert("core".to_owned(), Some(Bytes::from(format!("{{\"url\":\"{url}\"}}"))));
    let mut entries = commit.entries.to_vec();
    entries[0].audit = Bytes::from(format!("{{\"url\":\"{url}\"}}"));
    commit.entries = entries.into();
    commit.row.url = Some(url);
    commit
}

fn bounded(server: &RedisServer) -> RedisOptions {
    RedisOptions { outbox_bytes: SHARE * u64::from(PARTITIONS), ..server.options() }
}

fn quick() -> DrainOptions {
    DrainOptions { idle: Duration::from_millis(10), lease: Duration::from_secs(2), ..DrainOptions::default() }
}

struct Database {
    repository: Arc<SqliteRepository>,
    _dir: tempfile::TempDir,
}

impl Database {
    async fn open() -> Arc<Self> {
        let dir = tempfile::tempdir().unwrap();
        Arc::new(Self { repository: Arc::new(SqliteRepository::open(dir.path()).await.unwrap()), _dir: dir })
    }

    async fn heads(&self, room: &RoomId) -> Vec<u64> {
        let rows = self.repository.events(room, Head::default(), 100_000).await.unwrap();
        rows.iter().map(|row| row.head.seq).collect()
    }
}
