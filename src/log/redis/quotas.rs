//! Quotas that all nodes share ([`crate::quota`]).
//!
//! ```text
//! enter ──► this node's own counts ──► one EVALSHA: JOIN counted, place taken ──► Place | Exceeded
//!               │ used up: no          └─ Redis away or slow: the own counts have decided
//! Place dropped ──► keeper ──► ZREM; renewed by the keeper as long as it is held
//! ```
//!
//! * **One round trip a JOIN**, which the hub makes while it loads the room. All keys of an address, its users' too, are
//!   in the address's partition, so that the script works on one shard of a cluster.
//! * **This node's counts come first**, and are always kept: what one node alone can refuse never reaches Redis, and
//!   when Redis is away they stand where they stood. A question gets `quota_patience`; after one in vain nobody asks
//!   for [`AWAY`], and then one tries.
//! * **Places** are named by node and number. A node that died gives nothing back: when a set is full, entries of nodes
//!   without a lease are taken out, and the JOIN asks again. A set lapses by itself where nobody asks. What was taken
//!   without Redis, and what Redis lost, is written there when it answers again.
//! * **No address and no user id is in a key** (`tallies.rs`). The salt is in Redis too, so that nodes need no common secret:
//!   who copies all of Redis can try addresses out until it has lapsed.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all, try_join_all};
use parking_lot::Mutex;
use redis::{Script, ScriptInvocation, Value};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::link::Request;
use super::tallies::{self, Tallies, place_name};
use super::{Answer, RedisLog, keys, millis, unreadable};
use crate::clock::Clock;
use crate::domain::RoomId;
use crate::log::LogError;
use crate::quota::{Allowances, Exceeded, MemoryQuotas, Place, Quotas, Visitor};
use crate::telemetry::names;

/// How long nobody asks after one in vain.
const AWAY: Duration = Duration::from_secs(1);
/// How often the keeper looks whether places have to be written again.
const LOOK: Duration = Duration::from_secs(1);
/// Changes of places that wait to be sent. Beyond it, what is given back lapses.
const CHANGES: usize = 16_384;
/// Places that the keeper writes, or takes out, at a time.
const CHUNK: usize = 256;
/// Places of a full set that are looked at for nodes that have died.
const NAMED: usize = 500;
/// How often a JOIN asks again, when it found such places.
const ROUNDS: usize = 3;

/// The quotas of a cluster.
pub struct RedisQuotas(Arc<Shared>);

struct Shared {
    log: Arc<RedisLog>,
    allowances: Allowances,
    alone: MemoryQuotas,
    scripts: Scripts,
    salt: Mutex<String>,
    /// When somebody may ask again; `None`: Redis answers.
    away_until: Mutex<Option<Instant>>,
    next: AtomicU64,
    /// The places of this node.
    held: Mutex<HashMap<u64, Held>>,
    /// Some of them are not in Redis.
    unwritten: AtomicBool,
    changes: mpsc::Sender<Change>,
}

struct Scripts {
    enter: Script,
    count: Script,
    refund: Script,
    hold: Script,
    release: Script,
    keep: Script,
}

/// A place of this node. Its keys are those under which it was last written.
struct Held {
    visitor: Visitor,
    keys: Tallies,
}

/// What the keeper brings to Redis.
enum Change {
    Held(u64),
    Returned { place: String, keys: Tallies },
}

/// What Redis said of a JOIN.
enum Entered {
    Yes,
    No(Exceeded),
    /// The set of that key; its oldest places.
    Full {
        exceeded: Exceeded,
        gone: Vec<String>,
    },
}

impl RedisQuotas {
    /// Shares this node's counts with the others'. Its keeper runs on `tracker` until `stop`.
    pub async fn share(
        log: Arc<RedisLog>,
        allowances: Allowances,
        tracker: &TaskTracker,
        stop: CancellationToken,
    ) -> Result<Self, LogError> {
        let counting = |script: &str| Script::new(&format!("{}{script}", include_str!("take.lua")));
        let (changes, changed) = mpsc::channel(CHANGES);
        let shared = Arc::new(Shared {
            allowances,
            alone: MemoryQuotas::new(allowances),
            scripts: Scripts {
                enter: counting(include_str!("enter.lua")),
                count: counting(include_str!("count.lua")),
                refund: Script::new(include_str!("refund.lua")),
                hold: Script::new(include_str!("hold.lua")),
                release: Script::new(include_str!("release.lua")),
                keep: Script::new(include_str!("keep.lua")),
            },
            salt: Mutex::new(format!("{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>())),
            away_until: Mutex::default(),
            next: AtomicU64::new(0),
            held: Mutex::default(),
            unwritten: AtomicBool::new(false),
            changes,
            log,
        });
        shared.agree_on_salt().await?;
        tracker.spawn(stop.run_until_cancelled_owned(Arc::clone(&shared).keep(changed)));
        Ok(Self(shared))
    }

    /// Whether the numbers hold over all nodes at the moment.
    pub fn is_shared(&self) -> bool {
        self.0.away_until.lock().is_none()
    }
}

impl Quotas for RedisQuotas {
    fn enter<'a>(&'a self, visitor: &'a Visitor) -> BoxFuture<'a, Result<Place, Exceeded>> {
        Box::pin(self.0.enter(visitor))
    }

    fn join(&self, address: IpAddr) -> BoxFuture<'_, Result<(), Exceeded>> {
        Box::pin(async move {
            self.0.alone.count_join(address)?;
            self.0.count(self.0.joins_key(address), self.0.allowances.joins).await
        })
    }

    fn readmit(&self, visitor: &Visitor) -> Place {
        let (number, place) = self.0.hold(visitor, self.0.alone.readmit(visitor));
        if self.0.changes.try_send(Change::Held(number)).is_err() {
            self.0.unwritten.store(true, Ordering::Relaxed);
        }
        place
    }

    fn guess<'a>(&'a self, room: &'a RoomId, address: IpAddr) -> BoxFuture<'a, Result<(), Exceeded>> {
        Box::pin(async move {
            self.0.alone.count_guess(room, address)?;
            self.0.count(self.0.pins_key(room, address), self.0.allowances.pin_attempts).await
        })
    }

    fn guessed_right<'a>(&'a self, room: &'a RoomId, address: IpAddr) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            self.0.alone.refund_guess(room, address);
            let mut call = self.0.scripts.refund.prepare_invoke();
            call.key(self.0.pins_key(room, address));
            self.0.ask(&call).await;
        })
    }
}

impl Shared {
    async fn enter(self: &Arc<Self>, visitor: &Visitor) -> Result<Place, Exceeded> {
        self.alone.count_join(visitor.address())?;
        // Held before Redis is asked: if nobody waits for the answer any more, it is given back there too.
        let (number, place) = self.hold(visitor, self.alone.place(visitor)?);
        for round in 1..=ROUNDS {
            match self.ask_to_enter(number, visitor, round > 1).await {
                Ok(Entered::Yes) => return Ok(place),
                Ok(Entered::No(exceeded)) => return Err(exceeded),
                Ok(Entered::Full { exceeded, gone }) if gone.is_empty() || round == ROUNDS => return Err(exceeded),
                Ok(Entered::Full { gone, .. }) => self.take_out(visitor, &gone).await,
                Err(error) => {
                    tracing::error!(%error, "quotas: this node counts alone");
                    break;
                }
            }
        }
        self.unwritten.store(true, Ordering::Relaxed);
        Ok(place)
    }

    /// A place of this node, wherever it is counted.
    fn hold(self: &Arc<Self>, visitor: &Visitor, alone: Place) -> (u64, Place) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let held = Held { visitor: visitor.clone(), keys: self.keys(visitor) };
        self.held.lock().insert(number, held);
        let shared = Arc::clone(self);
        let place = Place::new(visitor.clone(), move || {
            drop(alone);
            let Some(held) = shared.held.lock().remove(&number) else { return };
            // When the queue is full the place lapses.
            let _ = shared.changes.try_send(Change::Returned { place: shared.name(number), keys: held.keys });
        });
        (number, place)
    }

    /// `Ok(Entered::Yes)` also when Redis is away: this node has said yes.
    async fn ask_to_enter(&self, number: u64, visitor: &Visitor, again: bool) -> Result<Entered, LogError> {
        let (keys, allowed) = (self.keys(visitor), &self.allowances);
        let mut call = self.scripts.enter.prepare_invoke();
        call.key(keys.joins()).key(keys.user()).key(keys.address());
        call.arg(allowed.joins).arg(millis(allowed.window)).arg(self.name(number)).arg(millis(self.life()));
        call.arg(allowed.user_sessions).arg(allowed.address_sessions).arg(NAMED).arg(u8::from(again));
        let Some(answer) = self.ask(&call).await else {
            self.unwritten.store(true, Ordering::Relaxed);
            return Ok(Entered::Yes);
        };
        let answer = Answer::of(answer)?;
        let number_at = |index| redis::from_redis_value::<u64>(answer.value(index)?).map_err(unreadable);
        match answer.what.as_str() {
            "ok" => Ok(Entered::Yes),
            "wait" => Ok(Entered::No(Exceeded::Rate { retry_after: Duration::from_millis(number_at(0)?) })),
            "full" => {
                let exceeded = if number_at(0)? == 2 { Exceeded::UserSessions } else { Exceeded::AddressSessions };
                let places: Vec<(String, f64)> = redis::from_redis_value(answer.value(2)?).map_err(unreadable)?;
                Ok(Entered::Full { exceeded, gone: self.nobody_s(places, number_at(1)?) })
            }
            other => Err(LogError(format!("a script answered {other}"))),
        }
    }

    /// Those of nodes that have no lease, and those of this one that nobody holds. A place that is younger than a lease
    /// may be of a node that has just come.
    fn nobody_s(&self, places: Vec<(String, f64)>, now: u64) -> Vec<String> {
        let Some(seen) = self.log.seen.lock().clone().filter(|seen| seen.at.elapsed() < seen.lease) else {
            // Nothing is known of anybody.
            return Vec::new();
        };
        let held = self.held.lock();
        let gone = |(place, lapses): &(String, f64)| {
            let age = now as f64 + self.life().as_millis() as f64 - lapses;
            let (node, number) = place.rsplit_once('/').unwrap_or_default();
            let lost = if node == self.log.node.as_str() {
                u64::from_str_radix(number, 16).is_ok_and(|number| !held.contains_key(&number))
            } else {
                !seen.alive.iter().any(|alive| alive.as_str() == node)
            };
            lost && age > 2.0 * seen.lease.as_millis() as f64
        };
        places.into_iter().filter(gone).map(|(place, _)| place).collect()
    }

    async fn take_out(&self, visitor: &Visitor, places: &[String]) {
        self.ask(&self.release(&self.keys(visitor), places)).await;
    }

    fn release<'a>(&'a self, keys: &Tallies, places: &[String]) -> ScriptInvocation<'a> {
        let mut call = self.scripts.release.prepare_invoke();
        call.key(keys.user()).key(keys.address()).arg(places);
        call
    }

    /// One of a rate, over all nodes; this node's own count has said yes.
    async fn count(&self, key: String, allowed: u64) -> Result<(), Exceeded> {
        let mut call = self.scripts.count.prepare_invoke();
        call.key(key).arg(allowed).arg(millis(self.allowances.window));
        let wait = self.ask(&call).await.and_then(|answer| redis::from_redis_value::<u64>(answer).ok());
        match wait.unwrap_or_default() {
            0 => Ok(()),
            wait => Err(Exceeded::Rate { retry_after: Duration::from_millis(wait) }),
        }
    }

    /// `None`: no answer in time.
    async fn ask(&self, call: &ScriptInvocation<'_>) -> Option<Value> {
        if !self.may_ask() {
            metrics::counter!(names::QUOTAS_ALONE).increment(1);
            return None;
        }
        let patience = self.log.options.quota_patience;
        let error = match timeout(patience, self.log.link.once(&Request::Script(call))).await {
            Ok(Ok(answer)) => {
                self.note_answer();
                return Some(answer);
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {patience:?}"),
        };
        metrics::counter!(names::QUOTAS_ALONE).increment(1);
        let before = self.away_until.lock().replace(Clock::instant() + AWAY);
        if before.is_none() {
            tracing::warn!(error, "quotas: this node counts alone until Redis answers");
        }
        None
    }

    fn note_answer(&self) {
        if self.away_until.lock().take().is_some() {
            tracing::info!("quotas hold over all nodes again");
        }
    }

    /// While Redis is away one asks, and the others don't wait for it.
    fn may_ask(&self) -> bool {
        let mut away_until = self.away_until.lock();
        match &mut *away_until {
            None => true,
            Some(until) if Clock::instant() < *until => false,
            Some(until) => {
                *until = Clock::instant() + AWAY;
                true
            }
        }
    }

    /// Sends what changed, and writes places again that Redis may not have.
    async fn keep(self: Arc<Self>, mut changed: mpsc::Receiver<Change>) {
        let mut looks = interval(LOOK.min(self.life() / 8));
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut written = (Clock::instant(), self.log.bus.sessions());
        let mut batch = Vec::with_capacity(CHUNK);
        loop {
            tokio::select! {
                count = changed.recv_many(&mut batch, CHUNK) => {
                    if count == 0 {
                        return;
                    }
                    self.send(&mut batch).await;
                }
                _ = looks.tick() => {
                    let now = (Clock::instant(), self.log.bus.sessions());
                    // Another session of the bus: Redis was away, or lost everything.
                    let due = now.1 != written.1 || now.0 - written.0 > self.life() / 4;
                    let away = self.away_until.lock().is_some();
                    if self.unwritten.swap(false, Ordering::Relaxed) || due || away {
                        match self.write_all(&mut changed).await {
                            Ok(()) => {
                                written = now;
                                self.note_answer();
                            }
                            Err(error) => {
                                tracing::debug!(%error, "places wait to be written");
                                self.unwritten.store(true, Ordering::Relaxed);
                            }
                        }
                    }
                }
            }
        }
    }

    async fn send(&self, batch: &mut Vec<Change>) {
        let mut returned: BTreeMap<Tallies, Vec<String>> = BTreeMap::new();
        let mut held = Vec::new();
        for change in batch.drain(..) {
            match change {
                Change::Held(number) => held.push(number),
                Change::Returned { place, keys } => returned.entry(keys).or_default().push(place),
            }
        }
        // What is in `held` and no more: it is among the returned.
        if try_join_all(held.into_iter().filter_map(|number| self.write(number))).await.is_err() {
            self.unwritten.store(true, Ordering::Relaxed);
        }
        let releases: Vec<_> = returned.iter().map(|(keys, places)| self.release(keys, places)).collect();
        // In vain: they lapse, or are found out when a set is full.
        join_all(releases.iter().map(|call| self.log.link.script(call))).await;
    }

    /// All places of this node, under the salt that all nodes use.
    async fn write_all(&self, changed: &mut mpsc::Receiver<Change>) -> Result<(), LogError> {
        self.agree_on_salt().await?;
        let all: Vec<u64> = self.held.lock().keys().copied().collect();
        for numbers in all.chunks(CHUNK) {
            try_join_all(numbers.iter().filter_map(|number| self.write(*number))).await?;
            // What was given back meanwhile may have been written.
            let mut batch: Vec<_> = std::iter::from_fn(|| changed.try_recv().ok()).collect();
            self.send(&mut batch).await;
        }
        Ok(())
    }

    /// `None`: nobody holds it any more.
    fn write(&self, number: u64) -> Option<impl Future<Output = Result<(), LogError>> + '_> {
        let keys = {
            let mut held = self.held.lock();
            let held = held.get_mut(&number)?;
            held.keys = self.keys(&held.visitor);
            held.keys.clone()
        };
        Some(async move {
            let mut call = self.scripts.hold.prepare_invoke();
            call.key(keys.user()).key(keys.address()).arg(self.name(number)).arg(millis(self.life()));
            self.log.link.script(&call).await.map(drop)
        })
    }

    /// The first node's salt is everybody's. One that Redis lost is put back by whoever knows it.
    async fn agree_on_salt(&self) -> Result<(), LogError> {
        let mine = self.salt.lock().clone();
        let mut call = self.scripts.keep.prepare_invoke();
        call.key(keys::SALT).arg(mine).arg(millis(self.life() * 2));
        *self.salt.lock() = redis::from_redis_value(self.log.link.script(&call).await?).map_err(unreadable)?;
        Ok(())
    }

    fn life(&self) -> Duration {
        self.log.options.lives.place
    }

    fn name(&self, number: u64) -> String {
        place_name(&self.log.node, number)
    }

    fn keys(&self, visitor: &Visitor) -> Tallies {
        Tallies::of(&self.salt.lock(), visitor)
    }

    fn joins_key(&self, address: IpAddr) -> String {
        Tallies::of_address(&self.salt.lock(), address).joins()
    }

    fn pins_key(&self, room: &RoomId, address: IpAddr) -> String {
        tallies::pins(&self.salt.lock(), room, address)
    }
}
