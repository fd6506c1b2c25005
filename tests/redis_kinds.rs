//! The Redis log on every kind of Redis: with a password, over TLS, behind Sentinels, as a cluster.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/authority.rs"]
mod authority;
#[path = "support/commits.rs"]
mod commits;
#[path = "support/redis_node.rs"]
mod redis_node;
#[path = "support/redis.rs"]
mod redis_server;
#[path = "support/waiting.rs"]
mod waiting;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use authority::{Authority, text};
use bytes::Bytes;
use commits::{EPOCH, after, created, ended, head, room};
use redis_node::RedisNode;
use redis_server::{RedisServer, options};
use tandem::clock::Clock;
use tandem::cluster::DrainOptions;
use tandem::domain::{Head, NodeId, RoomId};
use tandem::log::redis::RedisLog;
use tandem::log::{Followed, Log, Outcome};
use tandem::redis::RedisOptions;
use tandem::repository::Repository;
use tandem::repository::sqlite::SqliteRepository;
use waiting::{DEADLINE, until, within};

#[tokio::test]
async fn with_a_password() {
    let server = RedisServer::start_with(&["--requirepass", "secret"]).await;
    let at = |user: &str| options(&format!("redis://{user}127.0.0.1:{}", server.port()));
    use_it(&at(":secret@")).await;
    for wrong in ["", ":guess@"] {
        let error = RedisNode::connect("a", at(wrong)).await.err().unwrap().to_string();
        assert!(!error.contains("guess") && !error.contains("secret"), "{error}");
    }
}

#[tokio::test]
async fn over_tls_with_a_private_authority() {
    let (ours, another) = (Authority::new(), Authority::new());
    let server = RedisServer::start_tls(text(&ours.certificate()), text(&ours.key()), text(&ours.root())).await;
    let url = format!("rediss://127.0.0.1:{}", server.port());
    let with = |ca: PathBuf| RedisOptions { ca: Some(ca), ..options(&url) };
    use_it(&with(ours.root())).await;
    // A bundle: any of them will do.
    let read = |path: PathBuf| std::fs::read_to_string(path).unwrap();
    let bundle = ours.write("bundle.pem", &format!("{}\n{}", read(another.root()), read(ours.root())));
    assert!(RedisNode::connect("a", with(bundle)).await.is_ok());
    assert!(RedisNode::connect("a", options(&url)).await.is_err(), "the machine's authorities don't know this one");
    assert!(RedisNode::connect("a", with(another.root())).await.is_err(), "somebody else's authority");
}

#[tokio::test]
async fn authorities_that_can_t_be_read_are_one_line_that_names_the_setting_and_the_file() {
    let files = Authority::new();
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (path, why) in [
        (PathBuf::from("/nowhere/ca.pem"), "No such file"),
        (files.write("empty.pem", ""), "no certificate in it"),
        (files.key(), "no certificate in it"),
        (files.write("cut.pem", "-----BEGIN CERTIFICATE-----\nAAAA"), "not PEM"),
        (files.write("broken.pem", broken), "can't be used"),
    ] {
        let options = RedisOptions { ca: Some(path.clone()), ..options("rediss://127.0.0.1:1") };
        let error = RedisNode::connect("a", options).await.err().unwrap().to_string();
        let named = error.contains(&format!("REDIS_CA_PATH={}: ", path.display()));
        assert!(named && error.contains(why) && !error.contains('\n'), "{error}");
    }
}

#[tokio::test]
async fn behind_sentinels_that_promote_another_server() {
    let mut first = RedisServer::start().await;
    let port = first.port().to_string();
    let second = RedisServer::start_with(&["--replicaof", &format!("127.0.0.1 {port}")]).await;
    let sentinel = RedisServer::start_sentinel(first.port()).await;
    let url = format!("redis-sentinel://127.0.0.1:{}/mymaster/0", sentinel.port());
    let (a, b) = (RedisNode::at("a", options(&url)).await, RedisNode::at("b", options(&url)).await);
    let friday = room("friday");
    for node in [&a, &b] {
        node.subscribe(&friday).await.unwrap();
    }
    committed(&a, &friday, Head::default()).await;
    let replicated = async || {
        let info: String = second.shell().await.ask("INFO replication").await;
        info.contains("master_link_status:up")
    };
    until(replicated).await;
    until(async || second.shell().await.ask::<u64>("DBSIZE").await > 0).await;
    until(async || sentinel.shell().await.ask::<String>("INFO sentinel").await.contains("slaves=1")).await;
    let known = a.load(&friday).await.unwrap().unwrap();

    first.kill().await;
    until(async || !a.bus_alive() && !b.bus_alive()).await;
    for node in [&a, &b] {
        within(node.bus_up()).await;
        until(async || matches!(within(node.follow()).await, Followed::Gap(None))).await;
    }
    until(async || a.restore(known.clone()).await.is_ok()).await;
    committed(&a, &friday, head(EPOCH, 1)).await;
    until(async || matches!(within(b.follow()).await, Followed::Commit { .. })).await;
    assert_eq!(second.shell().await.ask::<Vec<redis::Value>>("ROLE").await.len(), 3);
}

#[tokio::test]
async fn as_a_cluster_of_three() {
    let servers = RedisServer::start_cluster().await;
    let options = options(&format!("redis://127.0.0.1:{}", servers[0].port()));
    use_it(&options).await;

    // Rooms on all shards, each heard by the other node; the bus is sharded.
    let (a, b) = (RedisNode::at("a", options.clone()).await, RedisNode::at("b", options.clone()).await);
    let rooms: Vec<RoomId> = (0..30).map(|n| room(&format!("room-{n}"))).collect();
    for room in &rooms {
        b.subscribe(room).await.unwrap();
    }
    for room in &rooms {
        committed(&a, room, Head::default()).await;
        let heard = within(b.follow()).await;
        assert!(matches!(&heard, Followed::Commit { room: heard, .. } if heard == room), "{heard:?}");
    }
    for server in &servers {
        let mut shell = server.shell().await;
        assert!(shell.calls("spublish").await > 0 && shell.calls("publish").await == 0);
        assert!(shell.ask::<Vec<String>>("PUBSUB SHARDCHANNELS *bus*").await.len() > 3);
    }
    let dir = tempfile::tempdir().unwrap();
    let repository = Arc::new(SqliteRepository::open(dir.path()).await.unwrap());
    let quick = Duration::from_millis(10);
    a.drain(&repository, DrainOptions { idle: quick, ..DrainOptions::default() });
    until(async || a.unaudited() == 0).await;
    assert_eq!(repository.live_rooms().await.unwrap().len(), 30);

    let none = Duration::ZERO;
    let sweep = a.nodes.find_orphans(none).await.unwrap();
    assert_eq!((sweep.rooms, sweep.orphans), (30, Vec::new()));
    for room in &rooms {
        b.unsubscribe(room);
    }
    until(async || a.nodes.find_orphans(none).await.unwrap().orphans.len() == 30).await;
}

/// Everything that a log does, once.
async fn use_it(options: &RedisOptions) {
    let (a, b) = (RedisNode::at("a", options.clone()).await, RedisNode::at("b", options.clone()).await);
    let friday = room("friday");
    b.subscribe(&friday).await.unwrap();
    committed(&a, &friday, Head::default()).await;
    assert!(matches!(within(b.follow()).await, Followed::Commit { .. }));
    a.publish(&friday, None, Bytes::from_static(b"tick"));
    assert!(matches!(within(b.follow()).await, Followed::Ephemeral { message, .. } if message == "tick"));
    a.publish(&friday, Some(&NodeId::parse("b").unwrap()), Bytes::from_static(b"signal"));
    assert!(matches!(within(b.follow()).await, Followed::Ephemeral { message, .. } if message == "signal"));
    let lost = b.commit(after(&friday, Head::default())).await.unwrap();
    assert!(matches!(lost, Outcome::Conflict(Some(latest)) if latest == head(EPOCH, 1)));
    let known = a.load(&friday).await.unwrap().unwrap();
    assert_eq!(b.restore(known.clone()).await.unwrap(), Some(known.clone()));
    assert!(a.nodes.beat(DEADLINE, DEADLINE).await.unwrap().alive.contains(&NodeId::parse("a").unwrap()));
    let clock = Clock::start();
    assert!(a.time().time_offset(&clock).await.unwrap().0.abs() < 1_000_000, "both run on this machine");
    assert!(matches!(b.commit(ended(&friday, head(EPOCH, 1))).await, Ok(Outcome::Committed)));
    assert_eq!(a.load(&friday).await.unwrap(), None);
    assert_eq!(a.restore(known).await.unwrap(), None);
}

async fn committed(node: &RedisLog, room: &RoomId, at: Head) {
    let commit = if at == Head::default() { created(room, at, EPOCH) } else { after(room, at) };
    let outcome = node.commit(commit).await;
    assert!(matches!(outcome, Ok(Outcome::Committed)), "{outcome:?}");
}
