//! Which log and which repository: the embedded default, PostgreSQL alone, or the cluster's Redis and PostgreSQL.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::StartError;
use crate::clock::Clock;
use crate::config::Config;
use crate::domain::{NodeId, RoomId};
use crate::hub::Hub;
use crate::log::memory::MemoryLog;
use crate::log::redis::{DrainOptions, Drainer, RedisLog, RedisOptions, RedisQuotas, Roster};
use crate::log::{Log, Snapshot};
use crate::node::{NodeWatch, WatchOptions};
use crate::repository::Repository;
use crate::repository::postgres::PostgresRepository;
use crate::repository::sqlite::SqliteRepository;

/// How often a node's clock is compared with Redis'.
const TIME_EVERY: Duration = Duration::from_secs(10);

/// What outlives a session.
pub(super) struct Storage {
    pub(super) repository: Arc<dyn Repository>,
    pub(super) log: Arc<dyn Log>,
    sequencer: Sequencer,
    /// The Redis log's own tasks end last: who stops before may still have to say something.
    tasks: TaskTracker,
    /// What clients may use up; `None`: `RATE_LIMITS=off`.
    pub(super) quotas: Option<Arc<dyn Quotas>>,
    end: CancellationToken,
    /// This process among the nodes.
    pub(super) node: NodeId,
    /// For people: which database.
    pub(super) database: String,
}

enum Sequencer {
    Memory(MemoryLog),
    Redis { log: Arc<RedisLog>, quotas: Option<Arc<RedisQuotas>>, watch: Option<NodeWatch> },
}

impl Storage {
    /// Opens the database and the log; answers also which rooms this process has to bring back.
    pub(super) async fn open(
        config: &Config,
        clock: &Clock,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Result<(Self, Vec<Snapshot>), StartError> {
        let (repository, database): (Arc<dyn Repository>, _) = match &config.postgres {
            Some(postgres) => {
                (Arc::new(PostgresRepository::open(&postgres.url, postgres.pool_size).await?), "postgres".to_owned())
            }
            None => {
                let sqlite = SqliteRepository::open(&config.data_dir).await?;
                (Arc::new(sqlite), format!("sqlite {}", config.data_dir.display()))
            }
        };
        let (log_tasks, end) = (TaskTracker::new(), CancellationToken::new());
        let Some(redis) = &config.redis else {
            let snapshots = repository.live_rooms().await?;
        let allowances = config.rate_limits.then(|| Allowances::from(&config.limits));
            let memory = MemoryLog::new(Some(Arc::clone(&repository)), snapshots.clone(), tasks);
            let node = config.node.clone();
            let log = memory.attach(node.clone());
            let quotas = allowances.map(|allowances| Arc::new(MemoryQuotas::new(allowances)) as Arc<dyn Quotas>);
            let sequencer = Sequencer::Memory(memory);
            return Ok((Self { repository, log, quotas, sequencer, tasks: log_tasks, end, node, database }, snapshots));
        };
        let options = RedisOptions { ca: redis.ca.clone(), ..RedisOptions::new(redis.url.clone()) };
        let node = incarnation(&config.node);
        let redis = RedisLog::connect(options, node.clone(), &log_tasks, end.clone()).await?;
        // Before anything is decided here: room time is Redis' time.
        let (offset, _) = redis.time_offset(clock).await?;
        clock.set_offset(offset);
        let keeping = Arc::clone(&redis).keep_time(clock.clone(), TIME_EVERY);
        tasks.spawn(stop.clone().run_until_cancelled_owned(keeping));
        let drainer = Drainer::new(Arc::clone(&redis), Arc::clone(&repository), DrainOptions::default());
        tasks.spawn(drainer.run(stop.clone()));
        // A Redis that is new, or has lost everything, learns what the database knows.
        let restored = redis.restore_all(repository.live_rooms().await?).await?;
        if restored > 0 {
            tracing::warn!(rooms = restored, "rooms that Redis did not have came back from the database");
        }
        let log: Arc<dyn Log> = Arc::<RedisLog>::clone(&redis);
        let sequencer = Sequencer::Redis { log: redis, quotas: shared, watch: None };
        Ok((Self { repository, log, quotas, sequencer, tasks: log_tasks, end, node, database }, Vec::new()))
        let shared = match allowances {
            Some(allowances) => {
                Some(Arc::new(RedisQuotas::share(Arc::clone(&redis), allowances, &log_tasks, end.clone()).await?))
            }
            None => None,
        };
        let quotas = shared.clone().map(|shared| shared as Arc<dyn Quotas>);
    }

    /// In a cluster: takes this node's lease and watches the others'.
    pub(super) fn watch(&mut self, hub: &Hub, tasks: &TaskTracker, stop: &CancellationToken) {
        let Sequencer::Redis { log, watch } = &mut self.sequencer else { return };
        let on_gone = {
            let hub = hub.clone();
            move |node: &NodeId| {
                hub.expire_node(node);
            }
        };
        let on_orphan = {
            let hub = hub.clone();
            move |room: RoomId, alive: Vec<NodeId>| {
                let hub = hub.clone();
                Box::pin(async move {
                    if let Err(refusal) = hub.adopt(&room, &alive).await {
                        tracing::warn!(%room, %refusal, "an orphan room waits for the next sweep");
                    }
                }) as _
            }
        };
        let options = WatchOptions { farewell: hub.grace(), ..WatchOptions::default() };
        *watch = Some(NodeWatch::start(Arc::clone(log), options, on_gone, on_orphan, tasks, stop.clone()));
    }

    /// Whether the log commits and is heard.
    pub(super) async fn log_ready(&self) -> Result<(), String> {
        match &self.sequencer {
            Sequencer::Memory(_) => Ok(()),
            Sequencer::Redis { log, .. } if !log.bus_alive() => Err("Redis' channels are silent".to_owned()),
            Sequencer::Redis { log, .. } => log.ping().await.map_err(|error| error.to_string()),
        }
    }

    /// What `/status` shows of it.
    pub(super) fn describe(&self) -> serde_json::Map<String, serde_json::Value> {
        let mut details = serde_json::Map::new();
        details.insert("database".into(), self.database.clone().into());
        match &self.sequencer {
            Sequencer::Memory(_) => {
                details.insert("log".into(), "memory".into());
            }
            Sequencer::Redis { log, quotas, watch } => {
                details.insert("log".into(), "redis".into());
                details.insert("busAlive".into(), log.bus_alive().into());
                details.insert("unaudited".into(), log.unaudited().into());
                details.insert("nodes".into(), names(&roster.alive).into());
                details.insert("nodesGone".into(), names(&roster.gone).into());
            }
        }
        details
    }

    /// What was accepted is committed.
    pub(super) async fn close_log(&self) {
        if let Sequencer::Memory(memory) = &self.sequencer {
            memory.close().await;
        }
    }

    /// Nobody needs it any more.
    pub(super) async fn end(&self) {
        self.end.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.repository.close().await;
    }
}

/// A process that crashed and is back under its old name must not be taken for the one whose sessions are gone.
fn incarnation(name: &NodeId) -> NodeId {
    let short: String = name.as_str().chars().take(56).collect();
    NodeId::parse(&format!("{short}:{:05x}", rand::random::<u32>() >> 12)).unwrap_or_else(|_| name.clone())
}
