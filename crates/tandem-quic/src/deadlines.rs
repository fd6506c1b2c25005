//! The next deadline of every connection of an endpoint, and one timer for all of them.
//!
//! A connection's deadline moves with almost every packet, mostly to a later time. So one that moves away is left where it
//! is: it comes too early, is looked at, and set anew. Only one that comes nearer is moved at once.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::time::Sleep;

use crate::clock::Grid;

/// What is farther away than this is no matter of milliseconds: keep-alives and idle timeouts, not loss detection.
const DISTANT: Duration = Duration::from_secs(1);

pub(super) struct Deadlines {
    set: BTreeSet<(Instant, usize)>,
    /// Distant deadlines lie on it: of thousands of quiet connections many leave, and are answered, at once.
    grid: Grid,
    sleep: Pin<Box<Sleep>>,
}

impl Deadlines {
    pub(super) fn new() -> Self {
        let grid = Grid::start();
        let sleep = Box::pin(tokio::time::sleep(DISTANT));
        Self { set: BTreeSet::new(), grid, sleep }
    }

    /// Sets a connection's deadline; `armed` is the one it has, which stays if it is earlier.
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

    /// Forgets a connection's deadline.
    pub(super) fn remove(&mut self, connection: usize, armed: Option<Instant>) {
        if let Some(armed) = armed {
            self.set.remove(&(armed, connection));
        }
    }

    /// A connection whose deadline is over. It has none then.
    pub(super) fn pop(&mut self, now: Instant) -> Option<usize> {
        let first = *self.set.first().filter(|(at, _)| *at <= now)?;
        self.set.remove(&first);
        Some(first.1)
    }

    /// Ready when the first deadline is.
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
    use crate::clock::Clock;

    #[tokio::test]
    async fn a_deadline_that_comes_nearer_is_moved_and_one_that_goes_away_is_not() {
        let now = Clock::instant().into_std();
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
    async fn distant_deadlines_come_together_and_never_early() {
        let now = Clock::instant().into_std();
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
    async fn a_removed_deadline_never_comes() {
        let now = Clock::instant().into_std();
        let mut deadlines = Deadlines::new();
        let mut armed = None;
        deadlines.set(1, &mut armed, now, now);
        deadlines.remove(1, armed);
        assert_eq!(deadlines.pop(now), None);
    }
}
