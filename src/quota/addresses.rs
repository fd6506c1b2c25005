//! What the sessions of one client address may make this node send and store: byte buckets that they share.
//!
//! A session asks for its address's buckets with the first message that costs something, and keeps them. An address keeps
//! its buckets until they are full again: a connection that ends and comes back finds what it has used. Each node counts
//! for itself: a question to Redis for every message would cost more than the message.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::bucket::{Bucket, Pace};
use crate::clock::Clock;
use crate::domain::{Limits, counted_as};

/// Addresses remembered after their last session; those with sessions are bounded by these.
const IDLE: usize = 100_000;
/// Remembered addresses that each newcomer looks at, to forget those whose buckets are full.
const LOOKS: usize = 4;

/// The buckets of all addresses; clones share them.
#[derive(Debug, Clone)]
pub struct AddressBudgets(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    paces: Paces,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    by_address: HashMap<IpAddr, Arc<AddressBudget>>,
    /// Whom to look at next.
    order: VecDeque<IpAddr>,
}

#[derive(Debug, Clone, Copy)]
struct Paces {
    committed: Pace,
    relayed: Pace,
    pins: Pace,
}

/// One address's.
#[derive(Debug)]
pub struct AddressBudget {
    paces: Paces,
    buckets: Mutex<Buckets>,
}

#[derive(Debug)]
struct Buckets {
    committed: Bucket,
    relayed: Bucket,
    pins: Bucket,
}

/// What a message costs.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cost {
    /// Bytes that are committed, and so stored.
    pub committed: f64,
    /// Bytes that leave for members, each copy counted.
    pub relayed: f64,
    /// PINs to hash.
    pub pins: f64,
}

impl AddressBudgets {
    /// Nothing is used up yet.
    pub fn new(limits: &Limits) -> Self {
        let paces = Paces {
            committed: Pace::of(limits.address_committed_bytes_per_sec, 128.0),
            relayed: Pace::of(limits.address_relayed_bytes_per_sec, 8.0),
            // Ten times what one session may, a quarter of that at once.
            pins: Pace::new(limits.pin_changes_per_minute as f64 / 6.0, limits.pin_changes_per_minute as f64 * 2.5),
        };
        Self(Arc::new(Inner { paces, known: Mutex::default() }))
    }

    /// Those of a client.
    pub fn of(&self, address: IpAddr) -> Arc<AddressBudget> {
        let (address, now) = (counted_as(address), Clock::instant());
        let mut known = self.0.known.lock();
        known.tidy(now);
        if let Some(budget) = known.by_address.get(&address) {
            return Arc::clone(budget);
        }
        let paces = self.0.paces;
        let full = |pace| Bucket::full(pace, now);
        let buckets =
            Buckets { committed: full(paces.committed), relayed: full(paces.relayed), pins: full(paces.pins) };
        let budget = Arc::new(AddressBudget { paces, buckets: Mutex::new(buckets) });
        known.by_address.insert(address, Arc::clone(&budget));
        known.order.push_back(address);
        budget
    }
}

impl Known {
    /// Forgets addresses without a session: some of those whose buckets are full, and the oldest when there are too many.
    fn tidy(&mut self, now: Instant) {
        let crowded = self.by_address.len() >= IDLE;
        for _ in 0..LOOKS {
            let Some(address) = self.order.pop_front() else { return };
            let idle = |budget: &Arc<AddressBudget>| Arc::strong_count(budget) == 1 && (crowded || budget.is_full(now));
            if self.by_address.get(&address).is_some_and(idle) {
                self.by_address.remove(&address);
            } else {
                self.order.push_back(address);
            }
        }
    }
}

impl AddressBudget {
    /// Takes what a message costs, or nothing and says how long to wait.
    pub fn spend(&self, cost: Cost, now: Instant) -> Result<(), Duration> {
        let Buckets { committed, relayed, pins } = &mut *self.buckets.lock();
        let mut all = [
            (committed, self.paces.committed, cost.committed),
            (relayed, self.paces.relayed, cost.relayed),
            (pins, self.paces.pins, cost.pins),
        ];
        if let Some(wait) = longest_wait(&mut all, now) {
            return Err(wait);
        }
        for (bucket, _, amount) in all {
            bucket.charge(amount);
        }
        Ok(())
    }

    fn is_full(&self, now: Instant) -> bool {
        let Buckets { committed, relayed, pins } = &mut *self.buckets.lock();
        let Paces { committed: c, relayed: r, pins: p } = self.paces;
        committed.is_full(c, now) && relayed.is_full(r, now) && pins.is_full(p, now)
    }
}

/// How long until each bucket gives the amount that is asked of it; `None`: all do now.
pub fn longest_wait(all: &mut [(&mut Bucket, Pace, f64)], now: Instant) -> Option<Duration> {
    let asked = all.iter_mut().filter(|(_, _, amount)| *amount > 0.0);
    asked.filter_map(|(bucket, pace, _)| bucket.wait(0.0, *pace, now)).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: u32) -> IpAddr {
        IpAddr::V4(n.into())
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_comes_back_finds_what_it_has_used_until_it_has_come_back_too() {
        let budgets = AddressBudgets::new(&Limits::default());
        let much = Cost { committed: 10_000_000.0, ..Cost::default() };
        budgets.of(address(1)).spend(much, Clock::instant()).unwrap();
        assert!(budgets.of(address(1)).spend(much, Clock::instant()).is_err());
        assert!(budgets.of(address(2)).spend(much, Clock::instant()).is_ok(), "another address has its own");
        let relayed = Cost { relayed: 1.0, ..Cost::default() };
        assert!(budgets.of(address(1)).spend(relayed, Clock::instant()).is_ok(), "each kind has its own");
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert!(budgets.of(address(1)).spend(much, Clock::instant()).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn addresses_that_used_nothing_lately_are_forgotten() {
        let budgets = AddressBudgets::new(&Limits::default());
        let held = budgets.of(address(0));
        for n in 1..2000 {
            budgets.of(address(n)).spend(Cost { relayed: 1.0, ..Cost::default() }, Clock::instant()).unwrap();
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let known = budgets.0.known.lock();
        assert!(known.by_address.len() < 100, "{}", known.by_address.len());
        assert!(known.by_address.contains_key(&address(0)), "its session goes on");
        assert_eq!(known.order.len(), known.by_address.len());
        drop(held);
    }
}
