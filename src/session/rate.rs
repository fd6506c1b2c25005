//! How fast a session may speak: a token bucket for messages, one for compact messages.
//!
//! Who is too fast is slowed: its reads pause until the bucket has a token again. Who keeps its bucket empty for 10 s on
//! end is ended.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::clock::Clock;
use crate::domain::Limits;
use crate::telemetry::{HotCounters, names};

static PAUSES: HotCounters = HotCounters::new(names::RATE_PAUSES, "class", &["message", "compact"]);

/// How long a session may press on.
const PATIENCE: Duration = Duration::from_secs(10);

/// The session pressed on.
#[derive(Debug)]
pub(super) struct PressedOn;

pub(super) struct Rate {
    messages: Bucket,
    compact: Bucket,
    enabled: bool,
}

impl Rate {
    pub(super) fn new(limits: &Limits, enabled: bool) -> Self {
        Self {
            messages: Bucket::new("message", limits.messages_per_sec as f64, limits.message_burst as f64),
            // Two seconds' worth at once: a tab that wakes up sends what it held back.
            compact: Bucket::new("compact", limits.compact_per_sec as f64, limits.compact_per_sec as f64 * 2.0),
            enabled,
        }
    }

    /// Waits until a message may be taken.
    pub(super) async fn message(&mut self) -> Result<(), PressedOn> {
        if self.enabled { self.messages.take().await } else { Ok(()) }
    }

    /// Waits until a compact message may be taken.
    pub(super) async fn compact(&mut self) -> Result<(), PressedOn> {
        if self.enabled { self.compact.take().await } else { Ok(()) }
    }
}

struct Bucket {
    class: &'static str,
    per_sec: f64,
    burst: f64,
    tokens: f64,
    filled: Instant,
    empty_since: Option<Instant>,
}

impl Bucket {
    fn new(class: &'static str, per_sec: f64, burst: f64) -> Self {
        Self { class, per_sec, burst, tokens: burst, filled: Clock::instant(), empty_since: None }
    }

    async fn take(&mut self) -> Result<(), PressedOn> {
        let now = Clock::instant();
        self.fill(now);
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            // A pause that let a tenth of the bucket come back is slowing down.
            if self.tokens >= self.burst / 10.0 {
                self.empty_since = None;
            }
            return Ok(());
        }
        if now.saturating_duration_since(*self.empty_since.get_or_insert(now)) >= PATIENCE {
            return Err(PressedOn);
        }
        PAUSES.increment(self.class, 1);
        sleep(Duration::from_secs_f64((1.0 - self.tokens) / self.per_sec)).await;
        self.fill(Clock::instant());
        self.tokens = (self.tokens - 1.0).max(0.0);
        Ok(())
    }

    fn fill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.tokens = (self.tokens + elapsed * self.per_sec).min(self.burst);
        self.filled = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_at_once_and_what_follows_at_the_rate() {
        let mut bucket = Bucket::new("message", 50.0, 200.0);
        let began = Clock::instant();
        for _ in 0..200 {
            bucket.take().await.unwrap();
        }
        assert_eq!(began.elapsed(), Duration::ZERO);
        for _ in 0..50 {
            bucket.take().await.unwrap();
        }
        let took = began.elapsed().as_secs_f64();
        assert!((0.9..1.2).contains(&took), "fifty more take a second at 50 a second, not {took} s");
    }

    #[tokio::test(start_paused = true)]
    async fn pressing_on_for_ten_seconds_is_the_end() {
        let mut bucket = Bucket::new("message", 50.0, 200.0);
        let began = Clock::instant();
        let pressed_on = loop {
            if bucket.take().await.is_err() {
                break began.elapsed();
            }
        };
        assert!((10.0..11.0).contains(&pressed_on.as_secs_f64()), "{pressed_on:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_slows_down_in_between_goes_on() {
        let mut bucket = Bucket::new("message", 50.0, 200.0);
        for _ in 0..20 {
            for _ in 0..250 {
                bucket.take().await.expect("four seconds of rest between bursts are enough");
            }
            sleep(Duration::from_secs(4)).await;
        }
    }
}
