//! The message rate of a session: a token bucket for messages, one for compact messages.
//!
//! A session above its rate is slowed: its reads pause until the bucket has a token again. A session that keeps its
//! bucket empty for 10 s on end is closed.

use std::time::Duration;

use tokio::time::Instant;

use crate::clock::Clock;
use crate::domain::Limits;
use crate::telemetry::{HotCounters, names};

static PAUSES: HotCounters = HotCounters::new(names::RATE_PAUSES, "class", &["message", "compact"]);

/// How long a session may stay above its rate.
const PATIENCE: Duration = Duration::from_secs(10);

/// The session stayed above its rate.
#[derive(Debug)]
pub(super) struct RateExceeded;

pub(super) struct MessageRate<'a> {
    limits: &'a Limits,
    messages: RateBucket,
    compact: RateBucket,
    enabled: bool,
}

impl<'a> MessageRate<'a> {
    pub(super) fn new(limits: &'a Limits, enabled: bool) -> Self {
        let (messages, compact) =
            (RateBucket::full(&RatePace::messages(limits)), RateBucket::full(&RatePace::compact(limits)));
        Self { limits, messages, compact, enabled }
    }

    /// Returns the pause before the message that has arrived may be handled.
    pub(super) fn message(&mut self) -> Result<Duration, RateExceeded> {
        if self.enabled { self.messages.take(RatePace::messages(self.limits)) } else { Ok(Duration::ZERO) }
    }

    /// The same for a compact message.
    pub(super) fn compact(&mut self) -> Result<Duration, RateExceeded> {
        if self.enabled { self.compact.take(RatePace::compact(self.limits)) } else { Ok(Duration::ZERO) }
    }
}

/// The rate and burst of one class of messages.
#[derive(Clone, Copy)]
struct RatePace {
    class: &'static str,
    per_sec: f64,
    burst: f64,
}

impl RatePace {
    fn messages(limits: &Limits) -> Self {
        Self { class: "message", per_sec: limits.messages_per_sec as f64, burst: limits.message_burst as f64 }
    }

    /// A burst of two seconds: a tab that wakes up sends what it held back.
    fn compact(limits: &Limits) -> Self {
        let per_sec = limits.compact_per_sec as f64;
        Self { class: "compact", per_sec, burst: per_sec * 2.0 }
    }
}

struct RateBucket {
    tokens: f64,
    filled: Instant,
    empty_since: Option<Instant>,
}

impl RateBucket {
    fn full(pace: &RatePace) -> Self {
        Self { tokens: pace.burst, filled: Clock::instant(), empty_since: None }
    }

    /// Takes a token; may borrow one, and returns the delay until it is repaid.
    fn take(&mut self, pace: RatePace) -> Result<Duration, RateExceeded> {
        let now = Clock::instant();
        self.fill(now, pace);
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            // A pause in which a tenth of the bucket came back counts as slowing down.
            if self.tokens >= pace.burst / 10.0 {
                self.empty_since = None;
            }
            return Ok(Duration::ZERO);
        }
        if now.saturating_duration_since(*self.empty_since.get_or_insert(now)) >= PATIENCE {
            return Err(RateExceeded);
        }
        PAUSES.increment(pace.class, 1);
        self.tokens -= 1.0;
        Ok(Duration::from_secs_f64(-self.tokens / pace.per_sec))
    }

    fn fill(&mut self, now: Instant, pace: RatePace) {
        let elapsed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.tokens = (self.tokens + elapsed * pace.per_sec).min(pace.burst);
        self.filled = now;
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;

    const PACE: RatePace = RatePace { class: "message", per_sec: 50.0, burst: 200.0 };

    /// As a session does it.
    async fn take(bucket: &mut RateBucket) -> Result<(), RateExceeded> {
        sleep(bucket.take(PACE)?).await;
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_at_once_and_what_follows_at_the_rate() {
        let mut bucket = RateBucket::full(&PACE);
        let began = Clock::instant();
        for _ in 0..200 {
            take(&mut bucket).await.unwrap();
        }
        assert_eq!(began.elapsed(), Duration::ZERO);
        for _ in 0..50 {
            take(&mut bucket).await.unwrap();
        }
        let took = began.elapsed().as_secs_f64();
        assert!((0.9..1.2).contains(&took), "fifty more take a second at 50 a second, not {took} s");
    }

    #[tokio::test(start_paused = true)]
    async fn pressing_on_for_ten_seconds_is_the_end() {
        let mut bucket = RateBucket::full(&PACE);
        let began = Clock::instant();
        let pressed_on = loop {
            if take(&mut bucket).await.is_err() {
                break began.elapsed();
            }
        };
        assert!((10.0..11.0).contains(&pressed_on.as_secs_f64()), "{pressed_on:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_slows_down_in_between_goes_on() {
        let mut bucket = RateBucket::full(&PACE);
        for _ in 0..20 {
            for _ in 0..250 {
                take(&mut bucket).await.expect("four seconds of rest between bursts are enough");
            }
            sleep(Duration::from_secs(4)).await;
        }
    }
}
