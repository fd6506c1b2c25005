//! The logs that the contract suite runs on.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tandem::domain::NodeId;
use tandem::log::Log;
use tandem::log::memory::MemoryLog;
use tandem::log::redis::RedisLog;
use tandem::redis::{RedisLink, RedisOptions};
use tandem::repository::Repository;
use tandem::repository::sqlite::SqliteRepository;
use tempfile::TempDir;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::redis_server::RedisServer;

/// One log, fresh, and as many nodes at it as a test wants.
pub(crate) trait Backend: Send + Sync {
    /// A node's door.
    fn attach<'a>(&'a self, node: &'a str) -> BoxFuture<'a, Arc<dyn Log>>;
}

/// The memory log alone.
pub(crate) async fn memory() -> impl Backend {
    Memory { log: MemoryLog::new(None, Vec::new(), &TaskTracker::new()), _dir: None }
}

/// The memory log as it runs in production: over SQLite.
pub(crate) async fn memory_over_sqlite() -> impl Backend {
    let dir = tempfile::tempdir().unwrap();
    let repository: Arc<dyn Repository> = Arc::new(SqliteRepository::open(dir.path()).await.unwrap());
    Memory { log: MemoryLog::new(Some(repository), Vec::new(), &TaskTracker::new()), _dir: Some(dir) }
}

struct Memory {
    log: MemoryLog,
    _dir: Option<TempDir>,
}

impl Backend for Memory {
    fn attach<'a>(&'a self, node: &'a str) -> BoxFuture<'a, Arc<dyn Log>> {
        Box::pin(async move { self.log.attach(NodeId::parse(node).unwrap()) })
    }
}

/// A real Redis.
pub(crate) async fn redis() -> impl Backend {
    Redis::of(vec![RedisServer::start().await])
}

/// A real Redis Cluster.
pub(crate) async fn redis_cluster() -> impl Backend {
    Redis::of(RedisServer::start_cluster().await)
}

struct Redis {
    servers: Vec<RedisServer>,
    tracker: TaskTracker,
    stop: CancellationToken,
    _stop: DropGuard,
}

impl Redis {
    fn of(servers: Vec<RedisServer>) -> Self {
        let stop = CancellationToken::new();
        Self { servers, tracker: TaskTracker::new(), stop: stop.clone(), _stop: stop.drop_guard() }
    }
}

impl Backend for Redis {
    fn attach<'a>(&'a self, node: &'a str) -> BoxFuture<'a, Arc<dyn Log>> {
        Box::pin(async move {
            // A writer that a stalled machine keeps from its turn goes on trying.
            let options = RedisOptions { deadline: Duration::from_secs(120), ..self.servers[0].options() };
            let node = NodeId::parse(node).unwrap();
            let link = RedisLink::connect(options).await.unwrap();
            RedisLog::start(link, node, Vec::new(), &self.tracker, self.stop.clone()).await.unwrap() as Arc<dyn Log>
        })
    }
}
