//! Counts per key in a window, with a growing penalty: PIN attempts per room and address, JOINs per address.
//!
//! The table is bounded, and a full table refuses no key for being full: it evicts the oldest entry whose allowance was
//! not used up, and one of the others only when there is no such entry. An attacker with more addresses than the table
//! holds could so have its own entries evicted. Therefore, while entries are evicted, a key that is not in the table is
//! also counted with its network ([`ThrottleKey::network`]: an IPv4 /24, an IPv6 /48), which has [`NETWORK`] times the
//! allowance.
//!
//! Every call costs the same: expired entries are removed one or two a call, in the order in which their windows began.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::net::IpAddr;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::domain::{RoomId, neighbourhood_of};

/// Keys remembered, and networks.
const KEYS: usize = 100_000;
/// How many addresses' worth a network may use while the table is full.
const NETWORK: u64 = 16;

pub(super) trait ThrottleKey: Hash + Eq + Clone {
    /// The key that all addresses of the network share.
    fn network(&self) -> Self;
}

impl ThrottleKey for IpAddr {
    fn network(&self) -> Self {
        neighbourhood_of(*self)
    }
}

impl ThrottleKey for (RoomId, IpAddr) {
    fn network(&self) -> Self {
        (self.0.clone(), self.1.network())
    }
}

pub(super) struct Throttle<K> {
    allowed: u64,
    window: Duration,
    counts: Mutex<ThrottleCounts<K>>,
}

struct ThrottleCounts<K> {
    keys: ThrottleTable<K>,
    networks: ThrottleTable<K>,
    /// Until then, keys that are not in the table are counted with their networks.
    crowded_until: Option<Instant>,
}

impl<K: ThrottleKey> Throttle<K> {
    pub(super) fn new(allowed: u64, window: Duration) -> Self {
        Self::with_places(allowed, window, KEYS)
    }

    fn with_places(allowed: u64, window: Duration, places: usize) -> Self {
        let table = |allowed| ThrottleTable::new(allowed, window, places);
        let counts = ThrottleCounts { keys: table(allowed), networks: table(allowed * NETWORK), crowded_until: None };
        Self { allowed, window, counts: Mutex::new(counts) }
    }

    /// Takes one, or returns how long to wait.
    pub(super) fn take(&self, key: K, now: Instant) -> Result<(), Duration> {
        let mut counts = self.counts.lock();
        let ThrottleCounts { keys, networks, crowded_until } = &mut *counts;
        keys.tidy(now);
        if self.allowed > 0 && !keys.knows(&key) {
            if crowded_until.is_some_and(|until| now < until) {
                networks.tidy(now);
                networks.make_place();
                networks.take(key.network(), now)?;
            }
            if keys.make_place() {
                *crowded_until = Some(now + self.window * 2);
            }
        }
        keys.take(key, now)
    }

    /// Gives one back: the attempt was right.
    pub(super) fn refund(&self, key: &K) {
        let mut counts = self.counts.lock();
        counts.keys.refund(key);
        counts.networks.refund(&key.network());
    }
}

struct ThrottleTable<K> {
    allowed: u64,
    window: Duration,
    places: usize,
    counts: HashMap<K, ThrottleCount>,
    /// By the beginning of their windows. An entry whose window began anew is in it twice; the later one counts.
    order: VecDeque<(K, Instant)>,
    /// Keys that had used up their allowance when they became the oldest.
    guilty: VecDeque<K>,
}

#[derive(Clone, Copy)]
struct ThrottleCount {
    used: u64,
    since: Instant,
    /// Windows in a row that were used up: each doubles the wait, up to 64 windows.
    strikes: u32,
    /// It is in `guilty`.
    listed: bool,
}

impl<K: ThrottleKey> ThrottleTable<K> {
    fn new(allowed: u64, window: Duration, places: usize) -> Self {
        Self { allowed, window, places, counts: HashMap::new(), order: VecDeque::new(), guilty: VecDeque::new() }
    }

    fn knows(&self, key: &K) -> bool {
        self.counts.contains_key(key)
    }

    fn take(&mut self, key: K, now: Instant) -> Result<(), Duration> {
        let Self { allowed, window, counts, order, .. } = self;
        let span = |strikes: u32| *window * (1_u32 << strikes);
        let count = counts.entry(key.clone()).or_insert_with(|| {
            order.push_back((key.clone(), now));
            ThrottleCount { used: 0, since: now, strikes: 0, listed: false }
        });
        let elapsed = now.saturating_duration_since(count.since);
        if elapsed >= span(count.strikes) {
            let exhausted = count.used >= *allowed && elapsed < span(count.strikes) * 2;
            let strikes = if exhausted { (count.strikes + 1).min(6) } else { 0 };
            *count = ThrottleCount { used: 0, since: now, strikes, listed: count.listed };
            order.push_back((key, now));
        }
        if count.used >= *allowed {
            return Err((count.since + span(count.strikes)).saturating_duration_since(now));
        }
        count.used += 1;
        Ok(())
    }

    fn refund(&mut self, key: &K) {
        if let Some(count) = self.counts.get_mut(key) {
            count.used = count.used.saturating_sub(1);
        }
    }

    fn is_guilty(&self, count: &ThrottleCount) -> bool {
        count.strikes > 0 || count.used >= self.allowed
    }

    fn is_over(&self, count: &ThrottleCount, now: Instant) -> bool {
        now >= count.since + self.window * (1_u32 << count.strikes) * 2
    }

    /// Removes an expired entry or two.
    fn tidy(&mut self, now: Instant) {
        for _ in 0..2 {
            let Some(count) = self.oldest() else { break };
            if !self.is_over(&count, now) {
                break;
            }
            self.forget_oldest();
        }
        let Some(key) = self.guilty.pop_front() else { return };
        let Some(count) = self.counts.get(&key).copied() else { return };
        if self.is_over(&count, now) {
            self.counts.remove(&key);
        } else if self.is_guilty(&count) {
            self.guilty.push_back(key);
        } else if let Some(count) = self.counts.get_mut(&key) {
            // Its new window is in `order`.
            count.listed = false;
        }
    }

    /// The oldest entry whose allowance is not used up. Used-up ones before it move to `guilty`, once each.
    fn oldest(&mut self) -> Option<ThrottleCount> {
        loop {
            let (key, since) = self.order.front()?;
            match self.counts.get(key).copied() {
                Some(count) if count.since == *since && !self.is_guilty(&count) => return Some(count),
                Some(count) if count.since == *since => {
                    let (key, _) = self.order.pop_front()?;
                    if let Some(count) = self.counts.get_mut(&key).filter(|count| !count.listed) {
                        count.listed = true;
                        self.guilty.push_back(key);
                    }
                }
                _ => drop(self.order.pop_front()),
            }
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((key, _)) = self.order.pop_front() {
            self.counts.remove(&key);
        }
    }

    /// Makes room for one more. True: an entry was evicted that had not expired.
    fn make_place(&mut self) -> bool {
        if self.counts.len() < self.places {
            return false;
        }
        if self.oldest().is_some() {
            self.forget_oldest();
        } else {
            while let Some(key) = self.guilty.pop_front() {
                if self.counts.remove(&key).is_some() {
                    break;
                }
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    const WINDOW: Duration = Duration::from_secs(60);

    impl ThrottleKey for &'static str {
        fn network(&self) -> Self {
            &self[..1]
        }
    }

    fn address(n: u32) -> IpAddr {
        IpAddr::V4((0x0a00_0000 + n).into())
    }

    #[test]
    fn a_key_gets_its_number_a_window_and_another_key_its_own() {
        let throttle = Throttle::new(2, WINDOW);
        let now = Clock::instant();
        assert_eq!(throttle.take("a", now), Ok(()));
        assert_eq!(throttle.take("a", now), Ok(()));
        assert_eq!(throttle.take("a", now + Duration::from_secs(20)), Err(Duration::from_secs(40)));
        assert_eq!(throttle.take("b", now), Ok(()));
        assert_eq!(throttle.take("a", now + Duration::from_secs(60)), Ok(()));
    }

    #[test]
    fn a_window_used_up_makes_the_next_one_twice_as_long() {
        let throttle = Throttle::new(1, WINDOW);
        let now = Clock::instant();
        assert_eq!(throttle.take("a", now), Ok(()));
        assert_eq!(throttle.take("a", now + Duration::from_secs(60)), Ok(()));
        assert_eq!(throttle.take("a", now + Duration::from_secs(61)), Err(Duration::from_secs(119)));
    }

    #[test]
    fn a_refund_leaves_the_number_whole() {
        let throttle = Throttle::new(1, WINDOW);
        let now = Clock::instant();
        assert_eq!(throttle.take("a", now), Ok(()));
        throttle.refund(&"a");
        assert_eq!(throttle.take("a", now), Ok(()));
    }

    #[test]
    fn after_more_addresses_than_it_remembers_everybody_is_let_in() {
        let throttle = Throttle::new(240, WINDOW);
        let now = Clock::instant();
        let known = address(0);
        throttle.take(known, now).unwrap();
        // One address a network, so that no network's count is touched.
        for n in 1..=(KEYS as u32 + 1000) {
            assert_eq!(throttle.take(address(n << 8), now), Ok(()), "address {n}");
            if n % 1000 == 0 {
                assert_eq!(throttle.take(known, now + Duration::from_secs(1)), Ok(()), "known, after {n} others");
            }
        }
        assert!(throttle.counts.lock().keys.counts.len() <= KEYS);
    }

    #[test]
    fn who_used_its_number_up_is_not_forgotten_for_others_who_did_not() {
        let throttle = Throttle::with_places(2, WINDOW, 100);
        let now = Clock::instant();
        let guilty = address(0);
        for _ in 0..2 {
            throttle.take(guilty, now).unwrap();
        }
        for n in 1..1000 {
            throttle.take(address(n << 8), now).unwrap();
        }
        assert!(throttle.take(guilty, now).is_err());
        // And when all are guilty there is a place all the same.
        for n in 1000..2000 {
            for _ in 0..2 {
                throttle.take(address(n << 8), now).unwrap();
            }
        }
        let counts = throttle.counts.lock();
        assert!(counts.keys.counts.len() <= 100 && counts.keys.guilty.len() <= 200);
    }

    #[test]
    fn while_the_table_is_full_strangers_are_counted_by_their_network_and_known_keys_are_not() {
        let throttle = Throttle::with_places(1, WINDOW, 100);
        let now = Clock::instant();
        for n in 1..=200 {
            throttle.take(address(n << 8), now).unwrap();
        }
        // A /24 with 256 addresses, each of which comes once.
        let passed = (0..256).filter(|n| throttle.take(address(n + 0x00ff_0000), now).is_ok()).count() as u64;
        assert_eq!(passed, NETWORK);
        let other = "2001:db8::".parse().unwrap();
        assert_eq!(throttle.take(other, now), Ok(()), "another network has its own number");
        // When nothing had to go for two windows, networks are not counted any more.
        let later = now + WINDOW * 3;
        let passed = (0..50).filter(|n| throttle.take(address(n + 0x00fe_0000), later).is_ok()).count();
        assert_eq!(passed, 50);
    }

    #[test]
    fn what_is_over_is_removed_as_others_come() {
        let throttle = Throttle::with_places(1, WINDOW, 10_000);
        let now = Clock::instant();
        for n in 0..5000 {
            throttle.take(address(n), now).unwrap();
        }
        let later = now + WINDOW * 200;
        for n in 0..5000 {
            throttle.take(address((n % 10) << 8), later + Duration::from_millis(n.into())).ok();
        }
        let counts = throttle.counts.lock();
        assert!(counts.keys.counts.len() <= 20, "{}", counts.keys.counts.len());
        assert!(counts.keys.order.len() + counts.keys.guilty.len() <= 40);
    }
}
