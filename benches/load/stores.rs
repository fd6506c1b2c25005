//! Redis and PostgreSQL for a cluster under load: the tests' own, started here and gone with this process, or others on
//! this machine.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use redis::IntoConnectionInfo;
use secrecy::ExposeSecret;
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};

#[allow(clippy::unwrap_used, unreachable_pub, reason = "the tests' support fails by panicking")]
#[path = "../../tests/support/postgres.rs"]
mod postgres_server;
#[allow(clippy::unwrap_used, unreachable_pub, reason = "the tests' support fails by panicking")]
#[path = "../../tests/support/redis.rs"]
mod redis_server;

use postgres_server::Server as PostgresServer;
use redis_server::RedisServer;

/// Both, and how to reach them.
pub(crate) struct Stores {
    pub(crate) redis_url: String,
    pub(crate) database_url: String,
    _own: Option<(RedisServer, PostgresServer)>,
}

impl Stores {
    /// Starts both, with their files in a temporary directory; PostgreSQL writes to the disk in earnest.
    pub(crate) async fn start() -> Self {
        let redis = RedisServer::start().await;
        // It waits by sleeping; nothing else is to be done meanwhile.
        let postgres = PostgresServer::start();
        let database_url = postgres.settings().url.expose_secret().to_owned();
        Self { redis_url: format!("redis://127.0.0.1:{}/0", redis.port()), database_url, _own: Some((redis, postgres)) }
    }

    /// Uses these, if both are on this machine.
    pub(crate) fn at(redis_url: &str, database_url: &str) -> Result<Self> {
        check_local(redis_url)?;
        check_local(database_url)?;
        Ok(Self { redis_url: redis_url.to_owned(), database_url: database_url.to_owned(), _own: None })
    }

    /// The settings by which a node finds them.
    pub(crate) fn settings(&self) -> Vec<(String, String)> {
        let pairs = [("REDIS_URL", &self.redis_url), ("DATABASE_URL", &self.database_url)];
        pairs.map(|(name, value)| (name.to_owned(), value.clone())).to_vec()
    }

    /// A shell at the database.
    pub(crate) async fn database(&self) -> Result<PgConnection> {
        PgConnection::connect(&self.database_url).await.context("connecting to PostgreSQL")
    }

    /// A connection to Redis.
    pub(crate) async fn redis(&self) -> Result<redis::aio::MultiplexedConnection> {
        self.client()?.get_multiplexed_async_connection().await.context("connecting to Redis")
    }

    pub(crate) fn client(&self) -> Result<redis::Client> {
        client(&self.redis_url)
    }
}

/// Refuses servers beyond loopback: no foreign server is put under load.
fn check_local(text: &str) -> Result<()> {
    let url: url::Url = text.parse().with_context(|| format!("{text} is no URL"))?;
    let host = url.host_str().unwrap_or_default();
    let local = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    ensure!(local, "{host} is not on this machine: only loopback addresses are put under load");
    Ok(())
}

/// A client of a Redis on this machine, without Nagle's delay, as tandem's own.
pub(crate) fn client(url: &str) -> Result<redis::Client> {
    check_local(url)?;
    let tcp = redis::io::tcp::TcpSettings::default().set_nodelay(true);
    Ok(redis::Client::open(url.into_connection_info()?.set_tcp_settings(tcp))?)
}

pub(crate) async fn count(database: &mut PgConnection, table: &str) -> Result<u64> {
    let row = sqlx::query(AssertSqlSafe(format!("SELECT count(*) FROM {table}"))).fetch_one(database).await?;
    Ok(u64::try_from(row.try_get::<i64, _>(0)?)?)
}
