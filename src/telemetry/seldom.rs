//! Rate limit of a warning that every attempt would repeat.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::clock::Clock;

/// Interval of warnings about an outage; `docs/OPERATIONS.md` names it.
const EVERY: Duration = Duration::from_secs(30);

/// When one kind of trouble was last logged. The first time is due at once, the next after 30 s.
#[derive(Debug, Default)]
pub struct Seldom(Mutex<Option<Instant>>);

impl Seldom {
    pub const fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// Whether the trouble may be logged now; if so, it counts as logged.
    pub fn is_due(&self) -> bool {
        let mut last = self.0.lock();
        let due = last.is_none_or(|at| at.elapsed() >= EVERY);
        if due {
            *last = Some(Clock::instant());
        }
        due
    }

    /// Ends the trouble: the next one is due at once. Returns whether there was any, so that its end can be logged.
    pub fn clear(&self) -> bool {
        self.0.lock().take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn trouble_is_told_at_once_then_every_thirty_seconds_and_its_end_once() {
        let seldom = Seldom::new();
        let mut told = 0;
        for _ in 0..300 {
            told += u32::from(seldom.is_due());
            tokio::time::advance(Duration::from_millis(200)).await;
        }
        assert_eq!(told, 2, "a minute of trouble");
        assert!(seldom.clear() && !seldom.clear());
        assert!(seldom.is_due());
    }
}
