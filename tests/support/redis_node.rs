//! A node at a Redis: its link, its log, and its lease.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::sync::Arc;
use std::time::Duration;

use tandem::cluster::{ClusterNodes, DrainOptions, Drainer, RoomTimeKeeper};
use tandem::commit::{Commit, Snapshot};
use tandem::domain::NodeId;
use tandem::log::redis::RedisLog;
use tandem::log::{Log, Outcome};
use tandem::redis::{LinkError, RedisLink, RedisOptions};
use tandem::repository::Repository;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// Dropped, it stops as by kill -9: the others are not told.
pub(crate) struct RedisNode {
    pub(crate) id: NodeId,
    pub(crate) link: Arc<RedisLink>,
    pub(crate) log: Arc<RedisLog>,
    pub(crate) nodes: Arc<ClusterNodes>,
    pub(crate) tracker: TaskTracker,
    pub(crate) stop: CancellationToken,
    _stop: DropGuard,
}

impl RedisNode {
    pub(crate) async fn at(name: &str, options: RedisOptions) -> Self {
        Self::connect(name, options).await.unwrap()
    }

    /// The error is the link's.
    pub(crate) async fn connect(name: &str, options: RedisOptions) -> Result<Self, LinkError> {
        Self::with_rooms(name, options, Vec::new()).await
    }

    /// `rooms`: those that the database has.
    pub(crate) async fn with_rooms(name: &str, options: RedisOptions, rooms: Vec<Snapshot>) -> Result<Self, LinkError> {
        let (id, tracker, stop) = (NodeId::parse(name).unwrap(), TaskTracker::new(), CancellationToken::new());
        let link = RedisLink::connect(options).await?;
        let log = RedisLog::start(Arc::clone(&link), id.clone(), rooms, &tracker, stop.clone()).await.unwrap();
        let nodes = ClusterNodes::new(Arc::clone(&link), id.clone());
        Ok(Self { id, link, log, nodes, tracker, stop: stop.clone(), _stop: stop.drop_guard() })
    }

    pub(crate) fn time(&self) -> RoomTimeKeeper {
        RoomTimeKeeper::new(Arc::clone(&self.link))
    }

    pub(crate) fn drain(&self, repository: &Arc<impl Repository>, options: DrainOptions) {
        let (link, repository) = (Arc::clone(&self.link), Arc::clone(repository) as Arc<dyn Repository>);
        let drainer = Drainer::new(link, self.id.clone(), repository, options);
        self.tracker.spawn(drainer.run(self.stop.clone()));
    }
}

impl std::ops::Deref for RedisNode {
    type Target = RedisLog;
    fn deref(&self) -> &RedisLog {
        &self.log
    }
}

/// Drains soon, and loses a short lease.
pub(crate) fn quick() -> DrainOptions {
    let (idle, lease) = (Duration::from_millis(10), Duration::from_millis(500));
    DrainOptions { idle, lease, ..DrainOptions::default() }
}

pub(crate) async fn committed(log: &RedisLog, commit: Commit) {
    let outcome = log.commit(commit).await;
    assert!(matches!(outcome, Ok(Outcome::Committed)), "{outcome:?}");
}
