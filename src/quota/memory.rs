//! Quotas of one process.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::Arc;

use futures_util::future::{BoxFuture, ready};
use parking_lot::Mutex;

use super::throttle::Throttle;
use super::{Allowances, Exceeded, QuotaPlace, Quotas, Visitor};
use crate::clock::Clock;
use crate::domain::{RoomId, counted_as};

/// Also a cluster node's own counts, which decide while Redis can't be reached.
pub struct MemoryQuotas {
    allowances: Allowances,
    pins: Throttle<(RoomId, IpAddr)>,
    joins: Throttle<IpAddr>,
    places: Arc<Mutex<HeldPlaces>>,
}

#[derive(Debug, Default)]
struct HeldPlaces {
    users: HashMap<Visitor, u64>,
    addresses: HashMap<IpAddr, u64>,
}

impl MemoryQuotas {
    pub fn new(allowances: Allowances) -> Self {
        Self {
            pins: Throttle::new(allowances.pin_attempts, allowances.window),
            joins: Throttle::new(allowances.joins, allowances.window),
            places: Arc::default(),
            allowances,
        }
    }

    /// As [`Quotas::count_join`].
    pub fn note_join(&self, address: IpAddr) -> Result<(), Exceeded> {
        let taken = self.joins.take(counted_as(address), Clock::instant());
        taken.map_err(|retry_after| Exceeded::Rate { retry_after })
    }

    /// As [`Quotas::guess`].
    pub fn note_guess(&self, room: &RoomId, address: IpAddr) -> Result<(), Exceeded> {
        let taken = self.pins.take((room.clone(), counted_as(address)), Clock::instant());
        taken.map_err(|retry_after| Exceeded::Rate { retry_after })
    }

    /// As [`Quotas::guessed_right`].
    pub fn refund_guess(&self, room: &RoomId, address: IpAddr) {
        self.pins.refund(&(room.clone(), counted_as(address)));
    }

    pub fn place(&self, visitor: &Visitor) -> Result<QuotaPlace, Exceeded> {
        let mut places = self.places.lock();
        let held = |count: Option<&u64>| count.copied().unwrap_or_default();
        if held(places.users.get(visitor)) >= self.allowances.user_sessions {
            return Err(Exceeded::UserSessions);
        }
        if held(places.addresses.get(&visitor.address)) >= self.allowances.address_sessions {
            return Err(Exceeded::AddressSessions);
        }
        Ok(self.seat(&mut places, visitor))
    }

    fn seat(&self, places: &mut HeldPlaces, visitor: &Visitor) -> QuotaPlace {
        *places.users.entry(visitor.clone()).or_default() += 1;
        *places.addresses.entry(visitor.address).or_default() += 1;
        let (shared, whose) = (Arc::clone(&self.places), visitor.clone());
        QuotaPlace::new(visitor.clone(), move || {
            let mut places = shared.lock();
            leave(&mut places.users, &whose);
            leave(&mut places.addresses, &whose.address);
        })
    }
}

/// Removes empty counts.
fn leave<K: Hash + Eq>(counts: &mut HashMap<K, u64>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

impl Quotas for MemoryQuotas {
    fn take_place<'a>(&'a self, visitor: &'a Visitor) -> BoxFuture<'a, Result<QuotaPlace, Exceeded>> {
        Box::pin(ready(self.note_join(visitor.address).and_then(|()| self.place(visitor))))
    }

    fn count_join(&self, address: IpAddr) -> BoxFuture<'_, Result<(), Exceeded>> {
        Box::pin(ready(self.note_join(address)))
    }

    fn readmit(&self, visitor: &Visitor) -> QuotaPlace {
        self.seat(&mut self.places.lock(), visitor)
    }

    fn guess<'a>(&'a self, room: &'a RoomId, address: IpAddr) -> BoxFuture<'a, Result<(), Exceeded>> {
        Box::pin(ready(self.note_guess(room, address)))
    }

    fn guessed_right<'a>(&'a self, room: &'a RoomId, address: IpAddr) -> BoxFuture<'a, ()> {
        self.refund_guess(room, address);
        Box::pin(ready(()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::UserId;

    #[test]
    fn nothing_is_kept_of_those_who_left() {
        let allowances =
            Allowances { pin_attempts: 1, joins: 1, user_sessions: 1, address_sessions: 1, window: Duration::MAX };
        let quotas = MemoryQuotas::new(allowances);
        let ann = Visitor::new(UserId::parse("ann").unwrap(), "192.0.2.1".parse().unwrap());
        drop((quotas.place(&ann).unwrap(), quotas.readmit(&ann)));
        let places = quotas.places.lock();
        assert!(places.users.is_empty() && places.addresses.is_empty());
    }
}
