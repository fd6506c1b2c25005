//! Which log and which repository: the embedded default, PostgreSQL alone, or the cluster's Redis and PostgreSQL.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::StartError;
use crate::clock::Clock;
use crate::cluster::{
    ClusterNodes, DrainOptions, Drainer, LeaseWatch, NodeReport, RoomTimeKeeper, Roster, SharedRoster, WatchOptions,
};
use crate::commit::Snapshot;
use crate::config::Config;
use crate::domain::{NodeId, RoomId};
use crate::http::NodeEndpoints;
use crate::hub::Hub;
use crate::log::Log;
use crate::log::memory::MemoryLog;
use crate::log::redis::RedisLog;
use crate::panics;
use crate::quota::redis::RedisQuotas;
use crate::quota::{Allowances, MemoryQuotas, Quotas};
use crate::redis::{RedisLink, RedisOptions};
use crate::repository::Repository;
use crate::repository::postgres::PostgresRepository;
use crate::repository::sqlite::SqliteRepository;
use crate::session::SessionCounts;

/// How often a node's clock is compared with Redis'.
const TIME_EVERY: Duration = Duration::from_secs(10);

/// The stores and the sequencer of this process.
pub(super) struct Storage {
    pub(super) repository: Arc<dyn Repository>,
    pub(super) log: Arc<dyn Log>,
    /// `None`: `RATE_LIMITS=off`.
    pub(super) quotas: Option<Arc<dyn Quotas>>,
    sequencer: Sequencer,
    /// The Redis log's own tasks end last: tasks that stop before may still commit or publish.
    tasks: TaskTracker,
    end: CancellationToken,
    /// This process among the nodes.
    pub(super) node: NodeId,
    /// The database's name for `/status`.
    pub(super) database: String,
}

/// This node's own public address, if `NODE_URL` gives it one; asked before each report, for a certificate may be
/// renewed.
pub(super) type PublicEndpoints = Box<dyn Fn() -> Option<NodeEndpoints> + Send + Sync>;

/// The part of another node's report that matters to clients. Nodes of 3.0.0 report no endpoints.
#[derive(Deserialize)]
struct ReportedNode {
    #[serde(default)]
    draining: bool,
    #[serde(default)]
    endpoints: Option<NodeEndpoints>,
}

enum Sequencer {
    Memory(MemoryLog),
    Redis(RedisParts),
}

struct RedisParts {
    link: Arc<RedisLink>,
    log: Arc<RedisLog>,
    nodes: Arc<ClusterNodes>,
    quotas: Option<Arc<RedisQuotas>>,
    roster: Option<SharedRoster>,
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
                let sqlite = SqliteRepository::open_bounded(&config.data_dir, Some(config.database_bytes)).await?;
                (Arc::new(sqlite), format!("sqlite {}", config.data_dir.display()))
            }
        };
        let allowances = config.rate_limits.then(|| Allowances::from(&config.limits));
        let (log_tasks, end) = (TaskTracker::new(), CancellationToken::new());
        let floor = repository.latest().await?.unwrap_or_default();
        let Some(redis) = &config.redis else {
            tell_put_back(clock.not_before(floor));
            let snapshots = repository.live_rooms().await?;
            let memory = MemoryLog::new(Some(Arc::clone(&repository)), snapshots.clone(), tasks);
            let node = config.node.clone();
            let log = memory.attach(node.clone());
            let quotas = allowances.map(|allowances| Arc::new(MemoryQuotas::new(allowances)) as Arc<dyn Quotas>);
            let sequencer = Sequencer::Memory(memory);
            return Ok((Self { repository, log, quotas, sequencer, tasks: log_tasks, end, node, database }, snapshots));
        };
        let options = RedisOptions {
            ca: redis.ca.clone(),
            outbox_bytes: redis.outbox_bytes,
            ..RedisOptions::new(redis.url.clone())
        };
        let node = incarnation(&config.node);
        let link = RedisLink::connect(options).await?;
        // A Redis that is new, or has lost everything, gets the rooms of the database.
        let rooms = repository.live_rooms().await?;
        let redis = RedisLog::start(Arc::clone(&link), node.clone(), rooms, &log_tasks, end.clone()).await?;
        let time = RoomTimeKeeper::new(Arc::clone(&link));
        // Before anything is decided here: room time is Redis' time.
        let (offset, _) = time.time_offset(clock).await?;
        clock.set_offset(offset);
        if floor > clock.now() {
            tell_put_back(Some(floor.saturating_since(clock.now())));
            let (offset, _) = time.time_offset_from(clock, floor).await?;
            clock.set_offset(offset);
        }
        panics::spawn_or_abort(tasks, "room time", stop, time.run(clock.clone(), TIME_EVERY));
        let (drained, drainer, rows, until) = (Arc::clone(&link), node.clone(), Arc::clone(&repository), stop.clone());
        // Its state is in Redis and in the database: a new one goes on from there.
        tasks.spawn(panics::restarted("drainer", stop.clone(), move || {
            let (link, rows) = (Arc::clone(&drained), Arc::clone(&rows));
            Drainer::new(link, drainer.clone(), rows, DrainOptions::default()).run(until.clone())
        }));
        let nodes = ClusterNodes::new(Arc::clone(&link), node.clone());
        let shared = match allowances {
            Some(allowances) => {
                let (alive, link) = (Arc::clone(&nodes), Arc::clone(&link));
                let alive = Box::new(move || alive.alive());
                let quotas = RedisQuotas::share(link, node.clone(), alive, allowances, &log_tasks, end.clone());
                Some(Arc::new(quotas.await?))
            }
            None => None,
        };
        let quotas = shared.clone().map(|shared| shared as Arc<dyn Quotas>);
        let log: Arc<dyn Log> = Arc::<RedisLog>::clone(&redis);
        let sequencer = Sequencer::Redis(RedisParts { link, log: redis, nodes, quotas: shared, roster: None });
        Ok((Self { repository, log, quotas, sequencer, tasks: log_tasks, end, node, database }, Vec::new()))
    }

    /// In a cluster: takes this node's lease and watches the others.
    pub(super) fn watch(
        &mut self,
        hub: &Hub,
        counts: &SessionCounts,
        clock: &Clock,
        tasks: &TaskTracker,
        stop: &CancellationToken,
        endpoints: PublicEndpoints,
    ) {
        let Sequencer::Redis(redis) = &mut self.sequencer else { return };
        let on_gone = {
            let hub = hub.clone();
            move |node: &NodeId| {
                hub.lose_node(node);
            }
        };
        let on_orphan = {
            let hub = hub.clone();
            move |room: RoomId, alive: Vec<NodeId>| {
                let hub = hub.clone();
                Box::pin(async move {
                    if let Err(refusal) = hub.adopt(&room, &alive).await {
                        tracing::warn!(roomId = %room, %refusal, "an orphan room waits for the next sweep");
                    }
                }) as _
            }
        };
        let options = WatchOptions { farewell: hub.grace(), ..WatchOptions::default() };
        let (report, nodes) = (report(&redis.log, hub, counts, clock, endpoints), Arc::clone(&redis.nodes));
        redis.roster = Some(LeaseWatch::start(nodes, options, report, on_gone, on_orphan, tasks, stop.clone()));
    }

    /// Endpoints of the other nodes that live and take sessions, if they report them.
    pub(super) fn other_nodes(&self) -> Vec<NodeEndpoints> {
        let Sequencer::Redis(RedisParts { roster: Some(roster), .. }) = &self.sequencer else { return Vec::new() };
        let roster = roster.get();
        let others = roster.alive.iter().filter(|node| **node != self.node);
        let reports = others.filter_map(|node| serde_json::from_str::<ReportedNode>(roster.reports.get(node)?).ok());
        reports.filter(|said| !said.draining).filter_map(|said| said.endpoints).collect()
    }

    /// Whether the log commits and its bus delivers.
    pub(super) async fn log_ready(&self) -> Result<(), String> {
        match &self.sequencer {
            Sequencer::Memory(_) => Ok(()),
            Sequencer::Redis(redis) if !redis.log.bus_alive() => Err("Redis' channels are silent".to_owned()),
            Sequencer::Redis(redis) => redis.link.ping().await.map_err(|error| error.to_string()),
        }
    }

    /// For `/status`.
    pub(super) fn describe(&self) -> Map<String, Value> {
        let mut details = Map::new();
        details.insert("database".into(), self.database.clone().into());
        match &self.sequencer {
            Sequencer::Memory(_) => {
                details.insert("log".into(), "memory".into());
            }
            Sequencer::Redis(RedisParts { log, quotas, roster, .. }) => {
                details.insert("log".into(), "redis".into());
                let roster = roster.as_ref().map(SharedRoster::get).unwrap_or_default();
                let mut cluster = cluster(&roster);
                cluster.insert("busAlive".into(), log.bus_alive().into());
                cluster.insert("unaudited".into(), log.unaudited().into());
                let shared = quotas.as_ref().map(|quotas| quotas.is_shared());
                cluster.insert("quotasShared".into(), shared.into());
                details.insert("cluster".into(), cluster.into());
            }
        }
        details
    }

    /// Where rooms and history are, for the line printed at the start.
    pub(super) fn for_people(&self, config: &Config) -> String {
        let rooms = match &self.sequencer {
            Sequencer::Memory(_) => "memory",
            Sequencer::Redis(_) => "Redis",
        };
        let history = match &config.postgres {
            Some(_) => "PostgreSQL".to_owned(),
            None => format!("SQLite ({})", config.data_dir.join("tandem.db").display()),
        };
        format!("Rooms are in {rooms}, history is in {history}")
    }

    /// Returns when every accepted commit is stored.
    pub(super) async fn close_log(&self) {
        if let Sequencer::Memory(memory) = &self.sequencer {
            memory.close().await;
        }
    }

    /// Ends the log's tasks, then closes the database.
    pub(super) async fn end(&self) {
        self.end.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.repository.close().await;
    }
}

/// This node's report to the others, for their `/status`.
fn report(
    log: &Arc<RedisLog>,
    hub: &Hub,
    counts: &SessionCounts,
    clock: &Clock,
    endpoints: PublicEndpoints,
) -> NodeReport {
    let (log, hub, counts, clock) = (Arc::clone(log), hub.clone(), counts.clone(), clock.clone());
    Box::new(move || {
        let status = hub.status();
        let report = json!({
            "rooms": status.rooms,
            "members": status.members,
            "degradedRooms": status.degraded_rooms,
            "sessions": counts.by_transport().values().sum::<u64>(),
            "draining": hub.is_draining(),
            "busLagMs": log.bus_lag().as_secs_f64() * 1000.0,
            "clockOffsetMs": clock.offset_micros() as f64 / 1000.0,
            "version": env!("CARGO_PKG_VERSION"),
            "endpoints": endpoints(),
        });
        report.to_string()
    })
}

/// The cluster as this node last saw it.
fn cluster(roster: &Roster) -> Map<String, Value> {
    let node = |node: &NodeId, state: &str| {
        let said = roster.reports.get(node).and_then(|text| serde_json::from_str(text).ok());
        let mut fields: Map<String, Value> = said.unwrap_or_default();
        fields.insert("node".into(), node.as_str().into());
        fields.insert("state".into(), state.into());
        Value::Object(fields)
    };
    let alive = roster.alive.iter().map(|alive| node(alive, "alive"));
    let nodes: Vec<Value> = alive.chain(roster.gone.iter().map(|gone| node(gone, "gone"))).collect();
    let mut cluster = Map::new();
    cluster.insert("nodes".into(), nodes.into());
    if let Some(census) = &roster.census {
        cluster.insert("rooms".into(), census.rooms.into());
        let outbox = json!({"waiting": census.waiting, "ageMs": census.age_ms, "entries": census.entries, "bytes": census.bytes});
        cluster.insert("outbox".into(), outbox);
        cluster.insert("drainer".into(), census.drainer.as_str().into());
        cluster.insert("measuredMsAgo".into(), census.at.into());
    }
    cluster
}

/// Timestamps in the database and on the wire are ahead of the clock until it has caught up.
fn tell_put_back(behind: Option<Duration>) {
    if let Some(behind) = behind {
        tracing::warn!(
            behind_secs = behind.as_secs(),
            "the clock is behind what the store has seen (it was put back): room time goes on from there"
        );
    }
}

/// A name of this process alone: a process that crashed and restarts under its old name must not count as the one
/// before, whose sessions are gone.
fn incarnation(name: &NodeId) -> NodeId {
    let short: String = name.as_str().chars().take(56).collect();
    NodeId::parse(&format!("{short}:{:05x}", rand::random::<u32>() >> 12)).unwrap_or_else(|_| name.clone())
}
