//! The quotas that the contract suite runs on.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tandem::cluster::ClusterNodes;
use tandem::domain::{NodeId, RoomId, UserId};
use tandem::log::redis::RedisLog;
use tandem::quota::redis::RedisQuotas;
use tandem::quota::{Allowances, Exceeded, MemoryQuotas, Quotas, Visitor};
use tandem::redis::{RedisLink, RedisOptions};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::redis_server::RedisServer;

/// Quotas that several share.
pub(crate) trait Backend: Send + Sync {
    /// Another handle that shares the counts.
    fn attach<'a>(&'a self, node: &'a str) -> BoxFuture<'a, Arc<dyn Quotas>>;
}

/// One process: all handles share its counts.
pub(crate) async fn memory(allowances: Allowances) -> impl Backend {
    Memory(Arc::new(MemoryQuotas::new(allowances)))
}

struct Memory(Arc<MemoryQuotas>);

impl Backend for Memory {
    fn attach<'a>(&'a self, _node: &'a str) -> BoxFuture<'a, Arc<dyn Quotas>> {
        Box::pin(async move { Arc::clone(&self.0) as Arc<dyn Quotas> })
    }
}

/// A real Redis.
pub(crate) async fn redis(allowances: Allowances) -> impl Backend {
    Redis { servers: vec![RedisServer::start().await], allowances, nodes: Mutex::default() }
}

/// A real Redis Cluster.
pub(crate) async fn redis_cluster(allowances: Allowances) -> impl Backend {
    Redis { servers: RedisServer::start_cluster().await, allowances, nodes: Mutex::default() }
}

struct Redis {
    servers: Vec<RedisServer>,
    allowances: Allowances,
    nodes: Mutex<Vec<Node>>,
}

impl Backend for Redis {
    fn attach<'a>(&'a self, node: &'a str) -> BoxFuture<'a, Arc<dyn Quotas>> {
        Box::pin(async move {
            let node = Node::start(node, self.servers[0].options(), self.allowances).await;
            let quotas = Arc::clone(&node.quotas) as Arc<dyn Quotas>;
            self.nodes.lock().push(node);
            quotas
        })
    }
}

/// A node that shares the quotas of a Redis.
pub(crate) struct Node {
    pub(crate) quotas: Arc<RedisQuotas>,
    pub(crate) nodes: Arc<ClusterNodes>,
    /// Its bus notices that Redis has lost its data.
    _log: Arc<RedisLog>,
    stop: CancellationToken,
}

impl Node {
    pub(crate) async fn start(name: &str, options: RedisOptions, allowances: Allowances) -> Self {
        let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
        let (link, id) = (RedisLink::connect(options).await.unwrap(), NodeId::parse(name).unwrap());
        let log = RedisLog::start(Arc::clone(&link), id.clone(), Vec::new(), &tracker, stop.clone()).await.unwrap();
        let nodes = ClusterNodes::new(Arc::clone(&link), id.clone());
        let alive = Arc::clone(&nodes);
        let alive = Box::new(move || alive.alive());
        let quotas = RedisQuotas::share(link, id, alive, allowances, &tracker, stop.clone()).await.unwrap();
        Self { quotas: Arc::new(quotas), nodes, _log: log, stop }
    }
}

impl Drop for Node {
    /// As kill -9: no other handle is told.
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// So much that nothing is used up; a test takes away what it is about.
pub(crate) fn plenty() -> Allowances {
    let many = 1_000_000;
    let window = Duration::from_secs(600);
    Allowances { pin_attempts: many, joins: many, user_sessions: many, address_sessions: many, window }
}

/// A user id at an address.
pub(crate) fn visitor(user: &str, address: &str) -> Visitor {
    Visitor::new(UserId::parse(user).unwrap(), address.parse().unwrap())
}

pub(crate) fn room(name: &str) -> RoomId {
    RoomId::parse(name).unwrap()
}

/// The wait that a refusal names.
pub(crate) fn wait<T>(answer: Result<T, Exceeded>) -> Option<Duration> {
    match answer {
        Err(Exceeded::Rate { retry_after }) => Some(retry_after),
        _ => None,
    }
}
