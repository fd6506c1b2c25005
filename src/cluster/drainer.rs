//! The drainer: stores the outbox's commits in the database, in batches, in order, each once.
//!
//! One node of the cluster drains, the one that holds the lease: a room's commits must reach the database in their
//! order, because a later one that comes first makes the database skip the fields of an earlier one. A batch has
//! commits of all partitions, so the database is the bottleneck, not the one drainer. The drainer before may have died
//! between reading and acknowledging: such entries are claimed and stored first, and (room, epoch, seq) makes a
//! repetition harmless.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::try_join_all;
use rand::RngExt;
use redis::{FromRedisValue, Value};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::roster::{self, Census};
use crate::clock::Clock;
use crate::commit::binary::WireError;
use crate::commit::{Commit, outbox_entry};
use crate::domain::{NodeId, RoomId};
use crate::redis::{DRAINER, LinkError, Partition, RedisLink, StreamId, millis, note_lost, parse_head};
use crate::repository::Repository;
use crate::telemetry::{Seldom, names};

/// How often outboxes are trimmed and measured.
const HOUSEKEEPING: Duration = Duration::from_secs(5);
/// Partitions that housekeeping trims at the same time.
const AT_ONCE: usize = 16;
/// Above this share of what an outbox may hold, commits are about to be lost to the audit.
const ALARM: f64 = 0.8;
/// Entries that can't be read: the metric counts all of them.
static UNREADABLE: Seldom = Seldom::new();
/// Per cent of Redis' `maxmemory` above which its memory counts as short (as in `trim.lua`).
const SHORT: u64 = 75;

#[derive(Debug, Clone, Copy)]
pub struct DrainOptions {
    /// Commits of one partition in one batch.
    pub batch: u32,
    /// Pause when nothing waits.
    pub idle: Duration,
    /// How long the drainer's lease runs.
    pub lease: Duration,
    /// How long entries stay for other readers of the outbox after the database has them.
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

/// Stores the outbox in the database while this node holds the lease.
pub struct Drainer {
    link: Arc<RedisLink>,
    node: NodeId,
    repository: Arc<dyn Repository>,
    options: DrainOptions,
    /// The last entry of each partition that arrived here since this node leads.
    arrived: BTreeMap<Partition, StreamId>,
    housekept: Option<Instant>,
    /// When the lease was taken or renewed.
    renewed: Instant,
    /// The last trim found Redis' memory short.
    short: bool,
    database_away: Seldom,
    outbox_trouble: Seldom,
    nearly_full: Seldom,
    memory_short: Seldom,
}

/// Commits of one append, and the entries that they are.
#[derive(Default)]
struct DrainBatch {
    commits: Vec<Commit>,
    entries: BTreeMap<Partition, Vec<StreamId>>,
}

/// Why this node stops draining.
#[derive(Debug, thiserror::Error)]
enum DrainError {
    /// Another node holds the lease.
    #[error("another node drains now")]
    LeaseLost,
    #[error(transparent)]
    Redis(#[from] LinkError),
}

/// Why an entry can't be read.
#[derive(Debug, thiserror::Error)]
enum EntryError {
    #[error(transparent)]
    Answer(#[from] redis::ParsingError),
    #[error("no {0}")]
    Missing(&'static str),
    #[error(transparent)]
    Wire(#[from] WireError),
}

impl Drainer {
    pub fn new(link: Arc<RedisLink>, node: NodeId, repository: Arc<dyn Repository>, options: DrainOptions) -> Self {
        Self {
            link,
            node,
            repository,
            options,
            arrived: BTreeMap::new(),
            housekept: None,
            renewed: Clock::instant(),
            short: false,
            database_away: Seldom::new(),
            outbox_trouble: Seldom::new(),
            nearly_full: Seldom::new(),
            memory_short: Seldom::new(),
        }
    }

    /// Drains until stopped. Stopping gives the lease back; entries that were read and not acknowledged are claimed by
    /// the next drainer.
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

    /// Drains as long as this node holds the lease.
    async fn lead(&mut self) {
        if !self.hold().await {
            return;
        }
        tracing::info!("this node drains the outbox");
        self.arrived.clear();
        if let Err(error) = self.take_over().await {
            if self.outbox_trouble.is_due() {
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
                    if self.outbox_trouble.is_due() {
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
        // The lease runs from the moment at which Redis gets the request, which is no earlier than this.
        let asked = Clock::instant();
        let held = self.link.lease(DRAINER, &self.node, self.options.lease).run().await.unwrap_or(false);
        self.renewed = asked;
        held
    }

    /// Renews the lease when a third of it has passed. Called before each step that may take long.
    async fn stay(&mut self) -> Result<(), DrainError> {
        let due = self.renewed.elapsed() > self.options.lease / 3;
        if due && !self.hold().await { Err(DrainError::LeaseLost) } else { Ok(()) }
    }

    async fn resign(&self) {
        // If it fails the lease runs out.
        let _ = self.link.lease(DRAINER, &self.node, Duration::from_millis(1)).run().await;
    }

    async fn take_over(&mut self) -> Result<(), DrainError> {
        for partition in Partition::all() {
            let mut from = "0-0".to_owned();
            loop {
                self.stay().await?;
                let claim = self.link.claim(partition, &self.node, self.options.batch, &from);
                let (next, entries) = claim.run().await?;
                let mut batch = DrainBatch::default();
                self.arrived.extend(batch.take(partition, entries)?.map(|last| (partition, last)));
                if !batch.entries.is_empty() {
                    self.store(batch).await?;
                }
                if next == "0-0" {
                    break;
                }
                from = next;
            }
        }
        Ok(())
    }

    async fn read(&mut self) -> Result<DrainBatch, LinkError> {
        let all: Vec<Partition> = Partition::all().collect();
        // On one server one call reads them all.
        let at_once = if self.link.is_cluster() { 1 } else { all.len() };
        let answers = {
            let this = &*self;
            let arrived =
                |partition: &Partition| (*partition, this.arrived.get(partition).copied().unwrap_or_default());
            try_join_all(all.chunks(at_once).map(|partitions| async move {
                let arrived: Vec<_> = partitions.iter().map(arrived).collect();
                this.link.read_outboxes(&this.node, this.options.batch, &arrived).run().await
            }))
            .await?
        };
        let mut batch = DrainBatch::default();
        for (partition, entries) in all.into_iter().zip(answers.into_iter().flatten()) {
            self.arrived.extend(batch.take(partition, entries)?.map(|last| (partition, last)));
        }
        Ok(batch)
    }

    /// Returns when the database has the batch, however long it is away.
    async fn store(&mut self, batch: DrainBatch) -> Result<(), DrainError> {
        let mut failures = 0_u32;
        while !batch.commits.is_empty() {
            let started = Clock::instant();
            let stored = {
                let repository = Arc::clone(&self.repository);
                let append = repository.append(&batch.commits);
                let mut append = std::pin::pin!(append);
                loop {
                    // An append that hangs must not cost the lease: another node would append the same meanwhile.
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
                    if self.database_away.is_due() {
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
        if self.database_away.clear() {
            tracing::info!("the database takes the audit again");
        }
        for (partition, entries) in &batch.entries {
            self.stay().await?;
            if let Err(error) = self.finish(*partition, entries).await {
                // They stay pending: the next drainer stores them once more.
                if self.outbox_trouble.is_due() {
                    tracing::warn!(%error, "stored commits could not be marked");
                }
                return Err(error.into());
            }
        }
        Ok(())
    }

    async fn finish(&self, partition: Partition, entries: &[StreamId]) -> Result<(), LinkError> {
        let Some(last) = entries.last() else { return Ok(()) };
        self.link.finish(partition, *last, entries).run().await
    }

    async fn hold_on(&mut self) -> Result<(), DrainError> {
        if self.hold().await { Ok(()) } else { Err(DrainError::LeaseLost) }
    }

    /// Trims, measures, warns. Far from Redis it takes longer than a lease, which is renewed meanwhile.
    async fn keep_house(&mut self) -> Result<(), DrainError> {
        let every = if self.short { HOUSEKEEPING / 5 } else { HOUSEKEEPING };
        if self.housekept.is_some_and(|at| at.elapsed() < every.min(self.options.retain)) {
            return Ok(());
        }
        self.housekept = Some(Clock::instant());
        let Ok(now) = self.link.millis().await else { return Ok(()) };
        let before = StreamId::at_millis(now.saturating_sub(millis(self.options.retain)));
        let mut census =
            Census { drainer: self.node.clone(), rooms: 0, waiting: 0, age_ms: 0, entries: 0, bytes: 0, at: now };
        let (mut fullest, mut percent) = (0.0_f64, 0);
        let partitions: Vec<Partition> = Partition::all().collect();
        for partitions in partitions.chunks(AT_ONCE) {
            self.stay().await?;
            let link = &self.link;
            let trims = partitions.iter().map(|partition| async move { link.trim(*partition, before).run().await });
            let Ok(trimmed) = try_join_all(trims).await else { return Ok(()) };
            for part in trimmed {
                note_lost(part.lost);
                census.waiting += part.waiting;
                census.entries += part.entries;
                census.rooms += part.rooms;
                census.bytes += part.bytes;
                percent = percent.max(part.percent);
                if part.since > 0 {
                    census.age_ms = census.age_ms.max(now.saturating_sub(part.since));
                    // What waits fills the entries, and with them the bytes, in proportion.
                    let waiting = part.waiting as f64 / part.entries.max(1) as f64;
                    let entries = part.entries as f64 / f64::from(self.link.options().outbox_entries);
                    let bytes = part.bytes as f64 / self.link.outbox_share().max(1) as f64;
                    fullest = fullest.max(waiting * entries.max(bytes));
                }
            }
        }
        metrics::gauge!(names::OUTBOX_WAITING).set(census.waiting as f64);
        metrics::gauge!(names::OUTBOX_AGE).set(census.age_ms as f64 / 1000.0);
        metrics::gauge!(names::OUTBOX_BYTES).set(census.bytes as f64);
        self.stay().await?;
        if let Err(error) = roster::tell(&self.link, &census).await {
            tracing::debug!(%error, "the census could not be published");
        }
        if fullest > ALARM && self.nearly_full.is_due() {
            let percent = (fullest * 100.0) as u64;
            tracing::error!(percent, "an outbox is nearly full: soon the oldest commits will be lost to the audit");
        }
        self.short = percent > SHORT;
        if self.short && self.memory_short.is_due() {
            tracing::error!(percent, "Redis' maxmemory is nearly used up: the outboxes are trimmed early");
        }
        Ok(())
    }
}

impl DrainBatch {
    /// Adds entries, and returns the last of them. One that this version can't read stays pending, for a later version.
    fn take(&mut self, partition: Partition, entries: Value) -> Result<Option<StreamId>, LinkError> {
        let entries = Vec::<(String, Value)>::from_redis_value(entries)?;
        let mut last = None;
        for (id, fields) in entries {
            let Some(entry) = StreamId::parse(&id) else { continue };
            last = Some(entry);
            if fields == Value::Nil {
                // Trimmed after it was read: nothing is left to store, it only has to be acknowledged.
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

fn read_entry(fields: Value) -> Result<Commit, EntryError> {
    let fields = BTreeMap::<String, Vec<u8>>::from_redis_value(fields)?;
    let field = |name: &'static str| fields.get(name).ok_or(EntryError::Missing(name));
    let room = std::str::from_utf8(field("room")?).ok().and_then(|room| RoomId::parse(room).ok());
    let head = parse_head(field("head")?).ok_or(WireError::Wrong("the head"))?;
    let state = Bytes::copy_from_slice(field("state")?);
    Ok(outbox_entry::decode(room.ok_or(WireError::Wrong("the room"))?, head, field("events")?, state)?)
}
