//! A token bucket for amounts that differ: bytes, or commands that cost one each.

use std::time::Duration;

use tokio::time::Instant;

/// Rate and burst of a bucket. Many buckets share one, so it is not kept in them.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    per_sec: f64,
    burst: f64,
}

impl Pace {
    pub fn new(per_sec: f64, burst: f64) -> Self {
        Self { per_sec, burst }
    }

    /// A burst of so many `seconds` of the rate.
    pub fn of(per_sec: u64, seconds: f64) -> Self {
        Self { per_sec: per_sec as f64, burst: per_sec as f64 * seconds }
    }
}

/// A token bucket that may go into debt: any amount is taken while the level is positive, so that a message larger than
/// the bucket passes once, and the debt is repaid at the rate.
#[derive(Debug, Clone)]
pub struct Bucket {
    left: f64,
    filled: Instant,
}

impl Bucket {
    /// With a whole burst.
    pub fn full(pace: Pace, now: Instant) -> Self {
        Self { left: pace.burst, filled: now }
    }

    /// How long nothing may be taken while more than `reserve` must be left; `None`: it may be taken now.
    pub fn wait(&mut self, reserve: f64, pace: Pace, now: Instant) -> Option<Duration> {
        self.fill(pace, now);
        let missing = reserve - self.left;
        // At least 1 ms, the unit on the wire: zero would mean "at once".
        (missing >= 0.0).then(|| Duration::from_secs_f64((missing / pace.per_sec).clamp(0.001, 86_400.0)))
    }

    /// Takes the amount whatever the level is.
    pub fn charge(&mut self, amount: f64) {
        self.left -= amount;
    }

    /// Takes the amount, or returns how long to wait.
    pub fn take(&mut self, amount: f64, pace: Pace, now: Instant) -> Result<(), Duration> {
        match self.wait(0.0, pace, now) {
            Some(wait) => Err(wait),
            None => {
                self.charge(amount);
                Ok(())
            }
        }
    }

    /// Whether the level is a whole burst.
    pub fn is_full(&mut self, pace: Pace, now: Instant) -> bool {
        self.fill(pace, now);
        self.left >= pace.burst
    }

    fn fill(&mut self, pace: Pace, now: Instant) {
        let elapsed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.left = (self.left + elapsed * pace.per_sec).min(pace.burst);
        self.filled = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;

    #[test]
    fn what_is_taken_beyond_a_burst_is_owed_and_the_sum_holds() {
        let (pace, now) = (Pace::of(100, 10.0), Clock::instant());
        let mut bucket = Bucket::full(pace, now);
        assert_eq!(bucket.take(900.0, pace, now), Ok(()));
        assert_eq!(bucket.take(600.0, pace, now), Ok(()), "a hundred were left");
        assert_eq!(bucket.take(1.0, pace, now), Err(Duration::from_secs(5)));
        let later = now + Duration::from_millis(5100);
        assert_eq!(bucket.take(1.0, pace, later), Ok(()));
        assert!(!bucket.is_full(pace, later));
        assert!(bucket.is_full(pace, later + Duration::from_secs(11)));
    }

    #[test]
    fn a_reserve_is_left_for_others() {
        let (pace, now) = (Pace::of(100, 10.0), Clock::instant());
        let mut bucket = Bucket::full(pace, now);
        bucket.charge(600.0);
        assert_eq!(bucket.wait(500.0, pace, now), Some(Duration::from_secs(1)));
        assert_eq!(bucket.wait(0.0, pace, now), None);
    }
}
