//! From the outbox into the database: batches, in order, each commit once.
//!
//! One node of the cluster drains, whoever holds the lease: a room's commits must reach the database in their order, for a
//! later one that comes first makes it skip the fields of an earlier one. Batches of all partitions go together, so one
//! drainer is no bottleneck: the database is. The reader before may have died in the middle: what it had read and not
//! finished is taken over and stored first, and (room, epoch, seq) makes a repetition harmless.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::try_join_all;
use rand::RngExt;
use redis::{Script, Value};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::keys::{self, Partition};
use super::recent::StreamId;
use super::roster::Census;
use super::{RedisLog, millis, outbox, record, unreadable};
use crate::clock::Clock;
use crate::commit::Commit;
use crate::domain::RoomId;
use crate::log::LogError;
use crate::repository::Repository;
use crate::telemetry::{Seldom, names};

/// The consumer group of the audit.
pub(super) const GROUP: &str = "audit";
/// How often outboxes are trimmed and measured.
const HOUSEKEEPING: Duration = Duration::from_secs(5);
/// Housekeeping asks for so many partitions at a time.
const AT_ONCE: usize = 16;
/// Above this share of what an outbox may hold, commits are about to be lost to the audit.
const ALARM: f64 = 0.8;
/// Of entries that can't be read one is told; the metric counts them.
static UNREADABLE: Seldom = Seldom::new();
/// Per cent of Redis' `maxmemory` above which its memory counts as short (as in `trim.lua`).
const SHORT: u64 = 75;

/// How the drainer works.
#[derive(Debug, Clone, Copy)]
pub struct DrainOptions {
    /// Commits of one partition in one batch.
    pub batch: u32,
    /// How long it looks away when nothing waits.
    pub idle: Duration,
    /// How long the lease of a node that drains lasts when it dies.
    pub lease: Duration,
    /// How long entries stay for other readers after the database has them.
    pub retain: Duration,
}

impl Default for DrainOptions {
    fn default() -> Self {
        Self {
            batch: 64,
            idle: Duration::from_millis(200),
            lease: Duration::from_secs(10),
            retain: Duration::from_secs(15 * 60),
        }
    }
}

/// Brings the outbox into the database while this node holds the lease.
pub struct Drainer {
    log: Arc<RedisLog>,
    repository: Arc<dyn Repository>,
    options: DrainOptions,
    scripts: Scripts,
    /// The last entry of each partition that arrived here since this node leads.
    arrived: BTreeMap<Partition, StreamId>,
    housekept: Option<Instant>,
    /// When the lease was taken or renewed.
    renewed: Instant,
    /// The last trim found Redis' memory short.
    short: bool,
    away: Seldom,
    unreadable: Seldom,
    full: Seldom,
}

struct Scripts {
    read: Script,
    claim: Script,
    finish: Script,
    trim: Script,
    lease: Script,
}

/// What was read and goes into the database together.
#[derive(Default)]
struct Batch {
    commits: Vec<Commit>,
    entries: BTreeMap<Partition, Vec<StreamId>>,
}

/// Another node drains now.
struct Deposed;

impl Drainer {
    /// A drainer of this node.
    pub fn new(log: Arc<RedisLog>, repository: Arc<dyn Repository>, options: DrainOptions) -> Self {
        let scripts = Scripts {
            read: Script::new(include_str!("read.lua")),
            claim: Script::new(include_str!("claim.lua")),
            finish: Script::new(include_str!("finish.lua")),
            trim: outbox::trim_script(),
            lease: Script::new(include_str!("lease.lua")),
        };
        Self {
            log,
            repository,
            options,
            scripts,
            arrived: BTreeMap::new(),
            housekept: None,
            renewed: Clock::instant(),
            short: false,
            away: Seldom::new(),
            unreadable: Seldom::new(),
            full: Seldom::new(),
        }
    }

    /// Drains until stopped. Stopping gives the lease back; what was read and not finished is another's to claim.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            if stop.run_until_cancelled(self.lead()).await.is_none() {
                self.resign().await;
                return;
            }
            let pause = rand::rng().random_range(self.options.lease / 8..=self.options.lease / 4);
            if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
        }
    }

    /// As long as this node holds the lease.
    async fn lead(&mut self) {
        if !self.hold().await {
            return;
        }
        tracing::info!("this node drains the outbox");
        self.arrived.clear();
        if let Err(error) = self.take_over().await {
            if self.unreadable.is_due() {
                tracing::warn!(%error, "what an earlier drainer left can't be read");
            }
            return;
        }
        loop {
            if self.stay().await.is_err() {
                return;
            }
            match self.read().await {
                Ok(batch) if batch.entries.is_empty() => tokio::time::sleep(self.options.idle).await,
                Ok(batch) => {
                    if self.store(batch).await.is_err() {
                        return;
                    }
                }
                Err(error) => {
                    if self.unreadable.is_due() {
                        tracing::warn!(%error, "the outbox can't be read");
                    }
                    return;
                }
            }
            if self.keep_house().await.is_err() {
                return;
            }
        }
    }

    /// Takes the lease, or renews it.
    async fn hold(&mut self) -> bool {
        let mut call = self.scripts.lease.prepare_invoke();
        call.key(keys::DRAINER).arg(self.log.node.as_str()).arg(millis(self.options.lease));
        // The lease runs from the moment at which Redis hears of it, which is no earlier than this.
        let asked = Clock::instant();
        let held = self.log.link.script(&call).await;
        let held = held.ok().and_then(|held| redis::from_redis_value(held).ok()) == Some(1);
        self.renewed = asked;
        held
    }

    /// Renews the lease when a third of it has passed. Asked before each step that may take as long as Redis likes.
    async fn stay(&mut self) -> Result<(), Deposed> {
        let due = self.renewed.elapsed() > self.options.lease / 3;
        if due && !self.hold().await { Err(Deposed) } else { Ok(()) }
    }

    async fn resign(&self) {
        let mut call = self.scripts.lease.prepare_invoke();
        call.key(keys::DRAINER).arg(self.log.node.as_str()).arg(1);
        // If it fails the lease runs out.
        let _ = self.log.link.script(&call).await;
    }

    async fn take_over(&mut self) -> Result<(), LogError> {
        for partition in Partition::all() {
            let mut from = "0-0".to_owned();
            loop {
                self.stay().await.map_err(|Deposed| LogError("another node drains now".to_owned()))?;
                let mut call = self.scripts.claim.prepare_invoke();
                call.key(partition.outbox()).arg(GROUP).arg(self.log.node.as_str());
                call.arg(self.options.batch).arg(&from);
                let answer = self.log.link.script(&call).await?;
                let (next, entries): (String, Value) = redis::from_redis_value(answer).map_err(unreadable)?;
                let mut batch = Batch::default();
                self.arrived.extend(batch.take(partition, entries)?.map(|last| (partition, last)));
                if !batch.entries.is_empty() && self.store(batch).await.is_err() {
                    return Err(LogError("another node drains now".to_owned()));
                }
                if next == "0-0" {
                    break;
                }
                from = next;
            }
        }
        Ok(())
    }

    async fn read(&mut self) -> Result<Batch, LogError> {
        let all: Vec<Partition> = Partition::all().collect();
        // On one server one call reads them all.
        let at_once = if self.log.link.is_cluster() { 1 } else { all.len() };
        let answers = {
            let this = &*self;
            try_join_all(all.chunks(at_once).map(|partitions| async move {
                let mut call = this.scripts.read.prepare_invoke();
                for partition in partitions {
                    call.key(partition.outbox());
                }
                call.arg(GROUP).arg(this.log.node.as_str()).arg(this.options.batch);
                for partition in partitions {
                    call.arg(this.arrived.get(partition).copied().unwrap_or_default().to_string());
                }
                let answer = this.log.link.script(&call).await?;
                redis::from_redis_value::<Vec<Value>>(answer).map_err(unreadable)
            }))
            .await?
        };
        let mut batch = Batch::default();
        for (partition, entries) in all.into_iter().zip(answers.into_iter().flatten()) {
            self.arrived.extend(batch.take(partition, entries)?.map(|last| (partition, last)));
        }
        Ok(batch)
    }

    /// Until the database has it, however long it is away.
    async fn store(&mut self, batch: Batch) -> Result<(), Deposed> {
        let mut failures = 0_u32;
        while !batch.commits.is_empty() {
            let started = Clock::instant();
            let stored = {
                let repository = Arc::clone(&self.repository);
                let append = repository.append(&batch.commits);
                let mut append = std::pin::pin!(append);
                loop {
                    // An append that hangs must not cost the lease: another node would store the same meanwhile.
                    tokio::select! {
                        stored = &mut append => break stored,
                        () = tokio::time::sleep(self.options.lease / 3) => self.hold_on().await?,
                    }
                }
            };
            metrics::histogram!(names::APPEND_SECONDS).record(started.elapsed().as_secs_f64());
            metrics::histogram!(names::APPEND_COMMITS).record(batch.commits.len() as f64);
            match stored {
                Ok(()) => break,
                Err(error) => {
                    metrics::counter!(names::APPEND_FAILURES).increment(1);
                    if self.away.is_due() {
                        tracing::warn!(%error, commits = batch.commits.len(), "the audit waits for the database");
                    }
                    failures += 1;
                    let ceiling = (50_u64 << failures.min(7)).min(5000);
                    let pause = Duration::from_millis(rand::rng().random_range(ceiling / 2..=ceiling));
                    tokio::time::sleep(pause.min(self.options.lease / 3)).await;
                    self.hold_on().await?;
                    self.keep_house().await?;
                }
            }
        }
        if self.away.clear() {
            tracing::info!("the database takes the audit again");
        }
        for (partition, entries) in &batch.entries {
            self.stay().await?;
            if let Err(error) = self.finish(*partition, entries).await {
                // They stay pending: whoever leads next stores them once more.
                if self.unreadable.is_due() {
                    tracing::warn!(%error, "stored commits could not be marked");
                }
                return Err(Deposed);
            }
        }
        Ok(())
    }

    async fn finish(&self, partition: Partition, entries: &[StreamId]) -> Result<(), LogError> {
        let Some(last) = entries.last() else { return Ok(()) };
        let mut call = self.scripts.finish.prepare_invoke();
        call.key(partition.outbox()).key(partition.audited());
        call.arg(GROUP).arg(millis(self.log.options.lives.outbox)).arg(last.to_string());
        for entry in entries {
            call.arg(entry.to_string());
        }
        self.log.link.script(&call).await.map(drop)
    }

    async fn hold_on(&mut self) -> Result<(), Deposed> {
        if self.hold().await { Ok(()) } else { Err(Deposed) }
    }

    /// Trims, measures, warns. Far from Redis it takes longer than a lease, which is renewed meanwhile.
    async fn keep_house(&mut self) -> Result<(), Deposed> {
        let every = if self.short { HOUSEKEEPING / 5 } else { HOUSEKEEPING };
        if self.housekept.is_some_and(|at| at.elapsed() < every.min(self.options.retain)) {
            return Ok(());
        }
        self.housekept = Some(Clock::instant());
        let Ok(now) = self.log.redis_millis().await else { return Ok(()) };
        let before = StreamId::at_millis(now.saturating_sub(millis(self.options.retain)));
        let mut census =
            Census { drainer: self.log.node.clone(), rooms: 0, waiting: 0, age_ms: 0, entries: 0, bytes: 0, at: now };
        let (mut fullest, mut percent) = (0.0_f64, 0);
        let partitions: Vec<Partition> = Partition::all().collect();
        for partitions in partitions.chunks(AT_ONCE) {
            self.stay().await?;
            let trims = partitions.iter().map(|partition| self.log.trim(&self.scripts.trim, *partition, before));
            let Ok(trimmed) = try_join_all(trims).await else { return Ok(()) };
            for part in trimmed {
                census.waiting += part.waiting;
                census.entries += part.entries;
                census.rooms += part.rooms;
                census.bytes += part.bytes;
                percent = percent.max(part.percent);
                if part.since > 0 {
                    census.age_ms = census.age_ms.max(now.saturating_sub(part.since));
                    // What waits fills the entries, and with them the bytes, in proportion.
                    let waiting = part.waiting as f64 / part.entries.max(1) as f64;
                    let entries = part.entries as f64 / f64::from(self.log.options.outbox_entries);
                    let bytes = part.bytes as f64 / self.log.outbox_share().max(1) as f64;
                    fullest = fullest.max(waiting * entries.max(bytes));
                }
            }
        }
        metrics::gauge!(names::OUTBOX_WAITING).set(census.waiting as f64);
        metrics::gauge!(names::OUTBOX_AGE).set(census.age_ms as f64 / 1000.0);
        metrics::gauge!(names::OUTBOX_BYTES).set(census.bytes as f64);
        self.stay().await?;
        if let Err(error) = self.log.tell(&census).await {
            tracing::debug!(%error, "the other nodes don't hear what was counted");
        }
        if fullest > ALARM && self.full.is_due() {
            let percent = (fullest * 100.0) as u64;
            tracing::error!(percent, "an outbox is nearly full: soon the oldest commits will be lost to the audit");
        }
        self.short = percent > SHORT;
        if self.short && self.full.is_due() {
            tracing::error!(percent, "Redis' maxmemory is nearly used up: the outboxes are trimmed early");
        }
        Ok(())
    }
}

impl Batch {
    /// Takes entries in, and tells the last of them. One that this version can't read stays pending, for a later version:
    /// nothing is thrown away.
    fn take(&mut self, partition: Partition, entries: Value) -> Result<Option<StreamId>, LogError> {
        let entries: Vec<(String, Value)> = redis::from_redis_value(entries).map_err(unreadable)?;
        let mut last = None;
        for (id, fields) in entries {
            let Some(entry) = StreamId::parse(&id) else { continue };
            last = Some(entry);
            if fields == Value::Nil {
                // Trimmed while it was in a reader's hands: nothing is left to store, it only has to be finished.
                self.entries.entry(partition).or_default().push(entry);
                continue;
            }
            match read_entry(fields) {
                Ok(commit) => {
                    self.commits.push(commit);
                    self.entries.entry(partition).or_default().push(entry);
                }
                Err(error) => {
                    metrics::counter!(names::OUTBOX_UNREADABLE).increment(1);
                    if UNREADABLE.is_due() {
                        tracing::error!(entry = id, %error, "an outbox entry can't be read; it stays where it is");
                    }
                }
            }
        }
        Ok(last)
    }
}

fn read_entry(fields: Value) -> Result<Commit, String> {
    let fields: BTreeMap<String, Vec<u8>> = redis::from_redis_value(fields).map_err(|error| error.to_string())?;
    let field = |name: &str| fields.get(name).ok_or_else(|| format!("no {name}"));
    let room = std::str::from_utf8(field("room")?).ok().and_then(|room| RoomId::parse(room).ok());
    let head = record::parse_head(field("head")?).ok_or("no head")?;
    let state = Bytes::copy_from_slice(field("state")?);
    record::commit(room.ok_or("no room")?, head, field("events")?, state).map_err(|error| error.to_string())
}
