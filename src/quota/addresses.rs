//! Byte buckets of client addresses, shared by the sessions of each: they bound the bytes that this node sends and
//! stores for an address.
//!
//! A session gets its address's buckets with the first message that costs something, and keeps them. An address keeps
//! its buckets until they are full again, so reconnecting gains nothing. Each node counts for itself: a request to
//! Redis for every message would cost more than the message.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::bucket::{Bucket, Pace};
use crate::clock::Clock;
use crate::domain::{Limits, counted_as};

/// Addresses remembered after their last session; addresses with sessions are bounded by the sessions.
const IDLE: usize = 100_000;
/// Remembered addresses that each new session checks, to forget those with full buckets.
const LOOKS: usize = 4;

/// The buckets of all addresses; clones share them.
#[derive(Debug, Clone)]
pub struct AddressBudgets(Arc<AddressBudgetTable>);

#[derive(Debug)]
struct AddressBudgetTable {
    paces: AddressPaces,
    known: Mutex<KnownAddresses>,
}

#[derive(Debug, Default)]
struct KnownAddresses {
    by_address: HashMap<IpAddr, Arc<AddressBudget>>,
    /// In the order in which they are checked.
    order: VecDeque<IpAddr>,
}

#[derive(Debug, Clone, Copy)]
struct AddressPaces {
    committed: Pace,
    relayed: Pace,
    pins: Pace,
}

/// The buckets of one address.
#[derive(Debug)]
pub struct AddressBudget {
    paces: AddressPaces,
    buckets: Mutex<AddressBuckets>,
}

#[derive(Debug)]
struct AddressBuckets {
    committed: Bucket,
    relayed: Bucket,
    pins: Bucket,
}

#[derive(Debug, Clone, Copy, Default)]
pub struct Cost {
    /// Bytes that are committed.
    pub committed: f64,
    /// Bytes sent to members, each copy counted.
    pub relayed: f64,
    /// PINs to hash.
    pub pins: f64,
}

impl AddressBudgets {
    pub fn new(limits: &Limits) -> Self {
        let paces = AddressPaces {
            committed: Pace::of(limits.address_committed_bytes_per_sec, 128.0),
            relayed: Pace::of(limits.address_relayed_bytes_per_sec, 8.0),
            // Ten times the rate of one session, a quarter of it as a burst.
            pins: Pace::new(limits.pin_changes_per_minute as f64 / 6.0, limits.pin_changes_per_minute as f64 * 2.5),
        };
        Self(Arc::new(AddressBudgetTable { paces, known: Mutex::default() }))
    }

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
            AddressBuckets { committed: full(paces.committed), relayed: full(paces.relayed), pins: full(paces.pins) };
        let budget = Arc::new(AddressBudget { paces, buckets: Mutex::new(buckets) });
        known.by_address.insert(address, Arc::clone(&budget));
        known.order.push_back(address);
        budget
    }
}

impl KnownAddresses {
    /// Forgets addresses without a session: some of those whose buckets are full, and the oldest when there are too
    /// many.
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
    /// Takes the cost, or nothing and returns how long to wait.
    pub fn spend(&self, cost: Cost, now: Instant) -> Result<(), Duration> {
        let AddressBuckets { committed, relayed, pins } = &mut *self.buckets.lock();
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
        let AddressBuckets { committed, relayed, pins } = &mut *self.buckets.lock();
        let AddressPaces { committed: c, relayed: r, pins: p } = self.paces;
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
