//! The next deadline of each connection of an endpoint, in one ordered set with one timer.
//!
//! A connection's deadline moves with almost every packet, mostly to a later time. A deadline that moves later is not
//! updated: it expires too early, and the driver then sets the real one. A deadline that moves nearer is updated at
//! once.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::time::Sleep;

use tandem_wake::TimerGrid;

/// A deadline farther away than this is a keep-alive or an idle timeout, not loss detection, and may be 100 ms late.
const DISTANT: Duration = Duration::from_secs(1);

/// The monotonic clock, which tests of tokio can pause.
#[expect(clippy::disallowed_methods, reason = "this crate's one look at the clock")]
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

pub(super) struct Deadlines {
    set: BTreeSet<(Instant, usize)>,
    /// Distant deadlines are rounded up to it, so that the keep-alives of many quiet connections leave in one round.
    grid: TimerGrid,
    sleep: Pin<Box<Sleep>>,
}

impl Deadlines {
    pub(super) fn new() -> Self {
        let grid = TimerGrid::starting_at(now().into());
        let sleep = Box::pin(tokio::time::sleep(DISTANT));
        Self { set: BTreeSet::new(), grid, sleep }
    }

    /// Sets a connection's deadline, unless `armed`, the one that it has, is earlier.
    pub(super) fn set(&mut self, connection: usize, armed: &mut Option<Instant>, at: Instant, now: Instant) {
        let distant = at.saturating_duration_since(now) > DISTANT;
        let at = if distant { self.grid.next(at.into()).into_std() } else { at };
        if armed.is_some_and(|armed| armed <= at) {
            return;
        }
        if let Some(armed) = armed.replace(at) {
            self.set.remove(&(armed, connection));
        }
        self.set.insert((at, connection));
    }

    pub(super) fn remove(&mut self, connection: usize, armed: Option<Instant>) {
        if let Some(armed) = armed {
            self.set.remove(&(armed, connection));
        }
    }

    /// Removes and returns a connection whose deadline has passed.
    pub(super) fn pop(&mut self, now: Instant) -> Option<usize> {
        let first = *self.set.first().filter(|(at, _)| *at <= now)?;
        self.set.remove(&first);
        Some(first.1)
    }

    /// Ready when the first deadline has passed.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some((first, _)) = self.set.first() else { return Poll::Pending };
        let first = tokio::time::Instant::from_std(*first);
        if self.sleep.deadline() != first {
            self.sleep.as_mut().reset(first);
        }
        self.sleep.as_mut().poll(context)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[tokio::test]
    async fn a_deadline_that_moves_nearer_is_updated_and_one_that_moves_later_is_not() {
        let now = super::now();
        let at = |ms| now + Duration::from_millis(ms);
        let mut deadlines = Deadlines::new();
        let mut armed = None;
        deadlines.set(7, &mut armed, at(50), now);
        deadlines.set(7, &mut armed, at(80), now);
        assert_eq!(armed, Some(at(50)));
        deadlines.set(7, &mut armed, at(20), now);
        assert_eq!(armed, Some(at(20)));
        assert_eq!(deadlines.pop(at(19)), None);
        assert_eq!(deadlines.pop(at(20)), Some(7));
        assert_eq!(deadlines.pop(at(1000)), None, "one connection, one deadline");
    }

    #[tokio::test]
    async fn distant_deadlines_expire_together_and_never_early() {
        let now = super::now();
        let mut deadlines = Deadlines::new();
        for connection in 0..100 {
            let at = now + Duration::from_secs(5) + Duration::from_micros(connection * 100);
            let mut armed = None;
            deadlines.set(usize::try_from(connection).unwrap(), &mut armed, at, now);
            assert!(armed.unwrap() >= at);
        }
        let instants: BTreeSet<_> = deadlines.set.iter().map(|(at, _)| *at).collect();
        assert!(instants.len() <= 2, "{} wake-ups for 10 ms of deadlines", instants.len());
    }

    #[tokio::test]
    async fn a_removed_deadline_never_expires() {
        let now = super::now();
        let mut deadlines = Deadlines::new();
        let mut armed = None;
        deadlines.set(1, &mut armed, now, now);
        deadlines.remove(1, armed);
        assert_eq!(deadlines.pop(now), None);
    }
}
