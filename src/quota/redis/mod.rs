//! Quotas that all nodes share ([`crate::quota`]).
//!
//! ```text
//! take_place ──► this node's own counts ──► one EVALSHA: JOIN counted, place taken ──► QuotaPlace | Exceeded
//!               │ used up: refused     └─ Redis away or slow: the own counts have decided
//! QuotaPlace dropped ──► keeper ──► ZREM; renewed by the keeper as long as it is held
//! ```
//!
//! * **One round trip admits a JOIN**, which the hub makes while it loads the room. A JOIN whose PIN is compared costs
//!   one more, for the attempt, and another that takes it back when the PIN was right. All keys of an address, its
//!   users' too, are in the address's partition, so that the script works on one shard of a cluster.
//! * **This node's counts come first**, and are always kept: a JOIN that one node alone can refuse never reaches Redis,
//!   and they decide when Redis is away. A request gets `quota_patience`; after one without an answer no request is
//!   sent for [`AWAY`], and then one tries.
//! * **Places** are named by node and number. A node that died gives nothing back: when a set is full, entries of nodes
//!   without a lease are removed, and the JOIN asks again. A set lapses where no node renews it. Places that were taken
//!   without Redis, or that Redis lost, are written when it answers again.
//! * **No address and no user id is in a key** (`tallies.rs`). The salt is in Redis too, so that nodes need no common
//!   secret: an attacker with a copy of Redis can try addresses out until the salt has lapsed.

mod tallies;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all, try_join_all};
use parking_lot::Mutex;
use redis::FromRedisValue;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::tallies::{Tallies, place_name};
use super::{Allowances, Exceeded, MemoryQuotas, QuotaPlace, Quotas, Visitor};
use crate::clock::Clock;
use crate::domain::{NodeId, RoomId};
use crate::panics;
use crate::redis::{EnterAnswer, EnterRequest, LinkError, RedisLink, ScriptCall};
use crate::telemetry::names;

/// How long no request is sent after one without an answer.
const AWAY: Duration = Duration::from_secs(1);
/// How often the keeper checks whether places have to be written again.
const CHECK: Duration = Duration::from_secs(1);
/// Changes of places that wait to be sent. Beyond it, released places lapse instead.
const CHANGES: usize = 16_384;
/// Places that the keeper writes or removes at a time.
const CHUNK: usize = 256;
/// Places of a full set that are checked for nodes that have died.
const NAMED: usize = 500;
/// Attempts of a JOIN that finds such places.
const ROUNDS: usize = 3;

/// The quotas of a cluster.
pub struct RedisQuotas(Arc<SharedQuotas>);

/// The nodes whose lease runs, and how long a lease is; `None`: nothing recent is known.
pub type AliveNodes = Box<dyn Fn() -> Option<(Vec<NodeId>, Duration)> + Send + Sync>;

struct SharedQuotas {
    link: Arc<RedisLink>,
    node: NodeId,
    alive_nodes: AliveNodes,
    allowances: Allowances,
    alone: MemoryQuotas,
    salt: Mutex<String>,
    /// When the next request may be sent; `None`: Redis answers.
    away_until: Mutex<Option<Instant>>,
    next: AtomicU64,
    /// The places of this node.
    held: Mutex<HashMap<u64, HeldPlace>>,
    /// Some of them are not in Redis.
    unwritten: AtomicBool,
    changes: mpsc::Sender<PlaceChange>,
}

/// A place of this node. Its keys are those under which it was last written.
struct HeldPlace {
    visitor: Visitor,
    keys: Tallies,
}

/// A change that the keeper writes to Redis.
enum PlaceChange {
    Held(u64),
    Returned { place: String, keys: Tallies },
}

/// Redis' decision on a JOIN.
enum Entered {
    Yes,
    No(Exceeded),
    /// A set is full; `gone`: places in it that no node holds.
    Full {
        exceeded: Exceeded,
        gone: Vec<String>,
    },
}

impl RedisQuotas {
    /// Shares this node's counts with the others'. Its keeper runs on `tracker` until `stop`.
    pub async fn share(
        link: Arc<RedisLink>,
        node: NodeId,
        alive_nodes: AliveNodes,
        allowances: Allowances,
        tracker: &TaskTracker,
        stop: CancellationToken,
    ) -> Result<Self, LinkError> {
        let (changes, changed) = mpsc::channel(CHANGES);
        let shared = Arc::new(SharedQuotas {
            link,
            node,
            alive_nodes,
            allowances,
            alone: MemoryQuotas::new(allowances),
            salt: Mutex::new(format!("{:032x}{:032x}", rand::random::<u128>(), rand::random::<u128>())),
            away_until: Mutex::default(),
            next: AtomicU64::new(0),
            held: Mutex::default(),
            unwritten: AtomicBool::new(false),
            changes,
        });
        shared.agree_on_salt().await?;
        panics::spawn_or_abort(tracker, "places of sessions", &stop, Arc::clone(&shared).keep(changed));
        Ok(Self(shared))
    }

    /// Whether the counts hold over all nodes at the moment.
    pub fn is_shared(&self) -> bool {
        self.0.away_until.lock().is_none()
    }
}

impl Quotas for RedisQuotas {
    fn take_place<'a>(&'a self, visitor: &'a Visitor) -> BoxFuture<'a, Result<QuotaPlace, Exceeded>> {
        Box::pin(self.0.take_place(visitor))
    }

    fn count_join(&self, address: IpAddr) -> BoxFuture<'_, Result<(), Exceeded>> {
        Box::pin(async move {
            self.0.alone.note_join(address)?;
            self.0.count(self.0.joins_key(address), self.0.allowances.joins).await
        })
    }

    fn readmit(&self, visitor: &Visitor) -> QuotaPlace {
        let (number, place) = self.0.hold(visitor, self.0.alone.readmit(visitor));
        if self.0.changes.try_send(PlaceChange::Held(number)).is_err() {
            self.0.unwritten.store(true, Ordering::Relaxed);
        }
        place
    }

    fn guess<'a>(&'a self, room: &'a RoomId, address: IpAddr) -> BoxFuture<'a, Result<(), Exceeded>> {
        Box::pin(async move {
            self.0.alone.note_guess(room, address)?;
            self.0.count(self.0.pins_key(room, address), self.0.allowances.pin_attempts).await
        })
    }

    fn guessed_right<'a>(&'a self, room: &'a RoomId, address: IpAddr) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            self.0.alone.refund_guess(room, address);
            self.0.ask(&self.0.link.refund(self.0.pins_key(room, address))).await;
        })
    }
}

impl SharedQuotas {
    async fn take_place(self: &Arc<Self>, visitor: &Visitor) -> Result<QuotaPlace, Exceeded> {
        self.alone.note_join(visitor.address())?;
        // Held before Redis is asked: if this future is dropped meanwhile, the place is released there too.
        let (number, place) = self.hold(visitor, self.alone.place(visitor)?);
        let mut round = 1;
        loop {
            match self.ask_to_enter(number, visitor, round > 1).await {
                Entered::Yes => return Ok(place),
                Entered::No(exceeded) => return Err(exceeded),
                Entered::Full { exceeded, gone } if gone.is_empty() || round == ROUNDS => return Err(exceeded),
                Entered::Full { gone, .. } => {
                    self.ask(&self.release(&self.keys(visitor), &gone)).await;
                }
            }
            round += 1;
        }
    }

    /// A place of this node; dropping it releases it here and in Redis.
    fn hold(self: &Arc<Self>, visitor: &Visitor, alone: QuotaPlace) -> (u64, QuotaPlace) {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let held = HeldPlace { visitor: visitor.clone(), keys: self.keys(visitor) };
        self.held.lock().insert(number, held);
        let shared = Arc::clone(self);
        let place = QuotaPlace::new(visitor.clone(), move || {
            drop(alone);
            let Some(held) = shared.held.lock().remove(&number) else { return };
            // With a full queue the place lapses instead.
            let _ = shared.changes.try_send(PlaceChange::Returned { place: shared.name(number), keys: held.keys });
        });
        (number, place)
    }

    /// [`Entered::Yes`] also when Redis is away: this node's own counts have allowed it.
    async fn ask_to_enter(&self, number: u64, visitor: &Visitor, again: bool) -> Entered {
        let (keys, allowed) = (self.keys(visitor), &self.allowances);
        let request = EnterRequest {
            joins: keys.joins(),
            user: keys.user(),
            address: keys.address(),
            allowed: allowed.joins,
            window: allowed.window,
            place: &self.name(number),
            most_of_user: allowed.user_sessions,
            most_of_address: allowed.address_sessions,
            named: NAMED,
            counted: again,
        };
        match self.ask(&self.link.enter(&request)).await {
            Some(EnterAnswer::Entered) => Entered::Yes,
            Some(EnterAnswer::Wait(retry_after)) => Entered::No(Exceeded::Rate { retry_after }),
            Some(EnterAnswer::Full { of_user, now, places }) => {
                let exceeded = if of_user { Exceeded::UserSessions } else { Exceeded::AddressSessions };
                Entered::Full { exceeded, gone: self.abandoned(places, now) }
            }
            None => {
                self.unwritten.store(true, Ordering::Relaxed);
                Entered::Yes
            }
        }
    }

    /// Those of nodes without a lease, and those of this node that no session holds. A place that is younger than two
    /// leases may be of a node that has just started.
    fn abandoned(&self, places: Vec<(String, f64)>, now: u64) -> Vec<String> {
        let Some((alive, lease)) = (self.alive_nodes)() else { return Vec::new() };
        let held = self.held.lock();
        let gone = |(place, lapses): &(String, f64)| {
            let age = now as f64 + self.life().as_millis() as f64 - lapses;
            let (node, number) = place.rsplit_once('/').unwrap_or_default();
            let lost = if node == self.node.as_str() {
                u64::from_str_radix(number, 16).is_ok_and(|number| !held.contains_key(&number))
            } else {
                !alive.iter().any(|alive| alive.as_str() == node)
            };
            lost && age > 2.0 * lease.as_millis() as f64
        };
        places.into_iter().filter(gone).map(|(place, _)| place).collect()
    }

    fn release(&self, keys: &Tallies, places: &[String]) -> ScriptCall<'_, ()> {
        self.link.release_places(keys.user(), keys.address(), places)
    }

    /// Takes one of a rate over all nodes, after this node's own count has allowed it.
    async fn count(&self, key: String, allowed: u64) -> Result<(), Exceeded> {
        match self.ask(&self.link.count(key, allowed, self.allowances.window)).await.unwrap_or_default() {
            0 => Ok(()),
            wait => Err(Exceeded::Rate { retry_after: Duration::from_millis(wait) }),
        }
    }

    /// `None`: no answer in time.
    async fn ask<A: FromRedisValue>(&self, call: &ScriptCall<'_, A>) -> Option<A> {
        if !self.may_ask() {
            metrics::counter!(names::QUOTAS_ALONE).increment(1);
            return None;
        }
        let patience = self.link.options().quota_patience;
        let error = match timeout(patience, call.once()).await {
            Ok(Ok(answer)) => {
                self.note_answer();
                return Some(answer);
            }
            Ok(Err(error)) => error,
            Err(_) => LinkError::Deadline(patience),
        };
        metrics::counter!(names::QUOTAS_ALONE).increment(1);
        let before = self.away_until.lock().replace(Clock::instant() + AWAY);
        if before.is_none() {
            tracing::warn!(%error, "quotas: this node counts alone until Redis answers");
        }
        None
    }

    fn note_answer(&self) {
        if self.away_until.lock().take().is_some() {
            tracing::info!("quotas hold over all nodes again");
        }
    }

    /// While Redis is away one request an [`AWAY`] is sent, and the others don't wait for its answer.
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

    /// Sends changes, and writes places again that Redis may not have.
    async fn keep(self: Arc<Self>, mut changed: mpsc::Receiver<PlaceChange>) {
        let mut checks = interval(CHECK.min(self.life() / 8));
        checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut written = (Clock::instant(), self.link.resets());
        let mut batch = Vec::with_capacity(CHUNK);
        loop {
            tokio::select! {
                count = changed.recv_many(&mut batch, CHUNK) => {
                    if count == 0 {
                        return;
                    }
                    self.send(&mut batch).await;
                }
                _ = checks.tick() => {
                    let now = (Clock::instant(), self.link.resets());
                    // After a reset: Redis was away, or lost everything.
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

    async fn send(&self, batch: &mut Vec<PlaceChange>) {
        let mut returned: BTreeMap<Tallies, Vec<String>> = BTreeMap::new();
        let mut held = Vec::new();
        for change in batch.drain(..) {
            match change {
                PlaceChange::Held(number) => held.push(number),
                PlaceChange::Returned { place, keys } => returned.entry(keys).or_default().push(place),
            }
        }
        // A place that is no longer in `held` is among the returned.
        if try_join_all(held.into_iter().filter_map(|number| self.write(number))).await.is_err() {
            self.unwritten.store(true, Ordering::Relaxed);
        }
        let releases: Vec<_> = returned.iter().map(|(keys, places)| self.release(keys, places)).collect();
        // What fails lapses, or is found when a set is full.
        join_all(releases.iter().map(|call| call.run())).await;
    }

    /// All places of this node, under the salt that all nodes use.
    async fn write_all(&self, changed: &mut mpsc::Receiver<PlaceChange>) -> Result<(), LinkError> {
        self.agree_on_salt().await?;
        let all: Vec<u64> = self.held.lock().keys().copied().collect();
        for numbers in all.chunks(CHUNK) {
            try_join_all(numbers.iter().filter_map(|number| self.write(*number))).await?;
            // A place that was returned meanwhile may have been written: it is released again.
            let mut batch: Vec<_> = std::iter::from_fn(|| changed.try_recv().ok()).collect();
            self.send(&mut batch).await;
        }
        Ok(())
    }

    /// `None`: it is no longer held.
    fn write(&self, number: u64) -> Option<impl Future<Output = Result<(), LinkError>> + '_> {
        let keys = {
            let mut held = self.held.lock();
            let held = held.get_mut(&number)?;
            held.keys = self.keys(&held.visitor);
            held.keys.clone()
        };
        let call = self.link.renew_places(keys.user(), keys.address(), self.name(number));
        Some(async move { call.run().await })
    }

    /// All nodes use the first one's salt. One that Redis lost is written back by the next node that asks.
    async fn agree_on_salt(&self) -> Result<(), LinkError> {
        let mine = self.salt.lock().clone();
        let agreed = self.link.agree_on_salt(&mine).run().await?;
        *self.salt.lock() = agreed;
        Ok(())
    }

    fn life(&self) -> Duration {
        self.link.options().lives.place
    }

    fn name(&self, number: u64) -> String {
        place_name(&self.node, number)
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
