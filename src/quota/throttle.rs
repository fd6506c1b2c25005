//! Counts per key in a window, with a growing penalty: PIN attempts per room and address, JOINs per address.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Keys remembered. An attacker with more addresses than that pays with the CPU of its own handshakes.
const KEYS: usize = 100_000;

pub(super) struct Throttle<K> {
    allowed: u64,
    window: Duration,
    counts: Mutex<HashMap<K, Count>>,
}

#[derive(Clone, Copy)]
struct Count {
    used: u64,
    since: Instant,
    /// Windows in a row that were used up: each doubles the wait, up to 64 windows.
    strikes: u32,
}

impl<K: Hash + Eq> Throttle<K> {
    pub(super) fn new(allowed: u64, window: Duration) -> Self {
        Self { allowed, window, counts: Mutex::default() }
    }

    /// Takes one; or says how long to wait.
    pub(super) fn take(&self, key: K, now: Instant) -> Result<(), Duration> {
        let mut counts = self.counts.lock();
        if counts.len() >= KEYS {
            counts.retain(|_, count| now < count.since + self.span(count.strikes) * 2);
            if counts.len() >= KEYS {
                return Err(self.window);
            }
        }
        let count = counts.entry(key).or_insert(Count { used: 0, since: now, strikes: 0 });
        let span = self.span(count.strikes);
        let elapsed = now.saturating_duration_since(count.since);
        if elapsed >= span {
            let exhausted = count.used >= self.allowed && elapsed < span * 2;
            *count = Count { used: 0, since: now, strikes: if exhausted { (count.strikes + 1).min(6) } else { 0 } };
        }
        if count.used >= self.allowed {
            return Err((count.since + span).saturating_duration_since(now));
        }
        count.used += 1;
        Ok(())
    }

    /// Gives one back: the attempt was right.
    pub(super) fn refund(&self, key: &K) {
        if let Some(count) = self.counts.lock().get_mut(key) {
            count.used = count.used.saturating_sub(1);
        }
    }

    fn span(&self, strikes: u32) -> Duration {
        self.window * (1 << strikes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    #[test]
    fn a_key_gets_its_number_a_window_and_another_key_its_own() {
        let throttle = Throttle::new(2, Duration::from_secs(60));
        let now = Clock::instant();
        assert_eq!(throttle.take("a", now), Ok(()));
        assert_eq!(throttle.take("a", now), Ok(()));
        assert_eq!(throttle.take("a", now + Duration::from_secs(20)), Err(Duration::from_secs(40)));
        assert_eq!(throttle.take("b", now), Ok(()));
        assert_eq!(throttle.take("a", now + Duration::from_secs(60)), Ok(()));
    }

    #[test]
    fn a_window_used_up_makes_the_next_one_twice_as_long() {
        let throttle = Throttle::new(1, Duration::from_secs(60));
        let now = Clock::instant();
        assert_eq!(throttle.take("a", now), Ok(()));
        assert_eq!(throttle.take("a", now + Duration::from_secs(60)), Ok(()));
        assert_eq!(throttle.take("a", now + Duration::from_secs(61)), Err(Duration::from_secs(119)));
    }

    #[test]
    fn a_refund_leaves_the_number_whole() {
        let throttle = Throttle::new(1, Duration::from_secs(60));
        let now = Clock::instant();
        assert_eq!(throttle.take("a", now), Ok(()));
        throttle.refund(&"a");
        assert_eq!(throttle.take("a", now), Ok(()));
    }
}
