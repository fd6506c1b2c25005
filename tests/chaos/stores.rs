//! Redis and PostgreSQL that go away, come back, lose what they had, or are followed by another.

use std::net::SocketAddr;

use secrecy::ExposeSecret;

use super::population::Size;
use super::scenario::{Report, Scenario};
use crate::postgres_server::{Database, Server};
use crate::redis_server::RedisServer;

/// An empty Redis that stores nothing.
pub(crate) async fn redis() -> RedisServer {
    RedisServer::start().await
}

/// An empty database.
pub(crate) async fn database() -> Database {
    Database::create().await
}

/// A store as a node's settings name it.
pub(crate) trait Url {
    fn url(&self) -> String {
        self.url_by(self.at())
    }
    fn at(&self) -> SocketAddr;
    /// By another door.
    fn url_by(&self, door: SocketAddr) -> String;
}

impl Url for RedisServer {
    fn at(&self) -> SocketAddr {
        self.address()
    }

    fn url_by(&self, door: SocketAddr) -> String {
        format!("redis://{door}")
    }
}

impl Url for Database {
    fn at(&self) -> SocketAddr {
        self.address()
    }

    fn url_by(&self, door: SocketAddr) -> String {
        self.settings_through(door).url.expose_secret().to_owned()
    }
}

/// Everybody is told, and everybody is heard again.
async fn outage(scenario: &Scenario, end: impl Future<Output = ()>) {
    scenario.population.until_each("everybody to be told", |record| record.degraded).await;
    end.await;
    scenario.population.struck(|_| true);
    scenario.population.until_each("everybody to be told of the end", |record| !record.degraded).await;
    scenario.population.stretch().await;
}

pub(crate) async fn redis_restarted(size: Size) -> Report {
    let mut redis = RedisServer::start_with(&["--appendonly", "yes"]).await;
    let database = database().await;
    let scenario = Scenario::open(&redis.url(), &database.url(), size).await;
    for _ in 0..size.rounds {
        scenario.population.stretch().await;
        redis.kill().await;
        outage(&scenario, redis.up()).await;
    }
    let report = scenario.close("Redis is killed and comes back with its append-only file").await;
    report.nobody_was_disconnected().everybody_was_told_degraded()
}

pub(crate) async fn redis_restarted_empty(size: Size) -> Report {
    let (mut redis, database) = (redis().await, database().await);
    let scenario = Scenario::open(&redis.url(), &database.url(), size).await;
    for _ in 0..size.rounds {
        scenario.population.stretch().await;
        redis.kill().await;
        outage(&scenario, redis.up()).await;
    }
    let report = scenario.close("Redis is killed and comes back empty").await;
    report.nobody_was_disconnected().everybody_was_told_degraded()
}

pub(crate) async fn redis_frozen(size: Size) -> Report {
    let (redis, database) = (redis().await, database().await);
    let scenario = Scenario::open(&redis.url(), &database.url(), size).await;
    for _ in 0..size.rounds {
        scenario.population.stretch().await;
        redis.freeze().await;
        outage(&scenario, redis.thaw()).await;
    }
    let report = scenario.close("Redis stands still (SIGSTOP) and goes on").await;
    report.nobody_was_disconnected().everybody_was_told_degraded()
}

pub(crate) async fn redis_emptied(size: Size) -> Report {
    let (redis, database) = (redis().await, database().await);
    let scenario = Scenario::open(&redis.url(), &database.url(), size).await;
    for _ in 0..3 * size.rounds {
        scenario.population.stretch().await;
        redis.shell().await.ask::<()>("FLUSHALL").await;
        scenario.population.struck(|_| true);
    }
    scenario.population.stretch().await;
    scenario.close("Redis is emptied (FLUSHALL) under load, again and again").await.nobody_was_disconnected()
}

pub(crate) async fn postgres_restarted(size: Size) -> Report {
    let redis = redis().await;
    let server = tokio::task::spawn_blocking(Server::start).await.unwrap();
    let url = server.settings().url.expose_secret().to_owned();
    let scenario = Scenario::open(&redis.url(), &url, size).await;
    for _ in 0..size.rounds {
        scenario.population.stretch().await;
        server.kill();
        // A stretch in which nothing reaches the database.
        scenario.population.stretch().await;
        server.run();
        scenario.population.struck(|_| true);
        scenario.population.stretch().await;
    }
    let report = scenario.close("PostgreSQL is killed and comes back").await;
    report.nobody_was_disconnected().nobody_was_told_degraded().nobody_was_resynced()
}

pub(crate) async fn sentinel_failover(size: Size) -> Report {
    let mut first = redis().await;
    let port = first.port().to_string();
    let second = RedisServer::start_with(&["--replicaof", &format!("127.0.0.1 {port}")]).await;
    let sentinel = RedisServer::start_sentinel(first.port()).await;
    second.follows().await;
    sentinel.knows_a_replica().await;
    let database = database().await;
    let url = format!("redis-sentinel://127.0.0.1:{}/mymaster/0", sentinel.port());
    let scenario = Scenario::open(&url, &database.url(), size).await;
    scenario.population.stretch().await;
    first.kill().await;
    outage(&scenario, async {}).await;
    let report = scenario.close("Redis' master is killed, Sentinel promotes its replica").await;
    report.nobody_was_disconnected().everybody_was_told_degraded()
}

pub(crate) async fn cluster_failover(size: Size) -> Report {
    let mut servers = RedisServer::start_cluster_with_replicas().await;
    let database = database().await;
    let url = servers[0].url();
    let scenario = Scenario::open(&url, &database.url(), size).await;
    scenario.population.stretch().await;
    // Not the one that the nodes were told of: that is another fault.
    servers[1].kill().await;
    scenario.population.struck(|_| true);
    scenario.population.stretch().await;
    let report = scenario.close("a master of Redis Cluster (3 + 3) is killed, its replica follows").await;
    report.nobody_was_disconnected()
}
