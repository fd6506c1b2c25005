//! The only place that reads the machine's clocks.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tandem_wake::TimerGrid;
use tokio::sync::watch;

use crate::domain::RoomTime;

/// Room time on this node: the wall clock at start, carried forward by the steady clock, so that it never steps back.
/// The cluster adds a measured offset. A wall clock that starts behind what the store has seen is put forward.
#[derive(Debug, Clone)]
pub struct Clock(Arc<ClockInner>);

#[derive(Debug)]
struct ClockInner {
    wall_micros: i64,
    started: tokio::time::Instant,
    offset_micros: AtomicI64,
    /// How often room time was stepped while members used it.
    steps: watch::Sender<u64>,
}

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub fn start() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall_micros = i64::try_from(wall.as_micros()).unwrap_or(i64::MAX);
        Self::with(wall_micros)
    }

    /// A clock that starts at a given room time and follows tokio's pausable time, for tests and the simulation.
    pub fn starting_at(time: RoomTime) -> Self {
        Self::with(time.as_micros())
    }

    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    fn with(wall_micros: i64) -> Self {
        let (offset_micros, steps) = (AtomicI64::new(0), watch::Sender::new(0));
        Self(Arc::new(ClockInner { wall_micros, started: tokio::time::Instant::now(), offset_micros, steps }))
    }

    /// Room time.
    pub fn now(&self) -> RoomTime {
        let elapsed = i64::try_from(self.0.started.elapsed().as_micros()).unwrap_or(i64::MAX);
        RoomTime::from_micros(self.0.wall_micros + elapsed + self.0.offset_micros.load(Ordering::Relaxed))
    }

    /// Room time without the offset: what an offset is measured against.
    pub fn unadjusted(&self) -> RoomTime {
        RoomTime::from_micros(self.now().as_micros() - self.offset_micros())
    }

    /// Rounds up to the grid on which the timers of all sessions lie.
    pub fn coarse(&self, at: tokio::time::Instant) -> tokio::time::Instant {
        TimerGrid::starting_at(self.0.started).next(at)
    }

    pub fn offset_micros(&self) -> i64 {
        self.0.offset_micros.load(Ordering::Relaxed)
    }

    /// Sets the offset in one step, possibly back. Only before room time was used.
    pub fn set_offset(&self, micros: i64) {
        self.0.offset_micros.store(micros, Ordering::Relaxed);
    }

    /// Puts room time forward to `floor`, the latest time in the store: with a wall clock that was put back, a playing
    /// room would stand until room time has caught up. Returns by how much the clock was behind. Only before room time
    /// was used.
    pub fn not_before(&self, floor: RoomTime) -> Option<Duration> {
        let behind = floor.saturating_since(self.now());
        if behind.is_zero() {
            return None;
        }
        self.0.offset_micros.fetch_add(i64::try_from(behind.as_micros()).unwrap_or(0), Ordering::Relaxed);
        Some(behind)
    }

    /// Sets the offset in one step while members use room time, and notifies [`Clock::steps`].
    pub fn step(&self, micros: i64) {
        self.set_offset(micros);
        self.0.steps.send_modify(|count| *count += 1);
    }

    /// Changes with each [`Clock::step`].
    pub fn steps(&self) -> watch::Receiver<u64> {
        self.0.steps.subscribe()
    }

    /// Moves the offset towards `target` by at most `step`; returns whether there is more to do. With steps that are
    /// small against the time between them room time never goes back.
    pub fn slew(&self, target: i64, step: Duration) -> bool {
        let step = i64::try_from(step.as_micros()).unwrap_or(i64::MAX);
        let missing = target - self.offset_micros();
        self.0.offset_micros.fetch_add(missing.clamp(-step, step), Ordering::Relaxed);
        missing.abs() > step
    }

    /// The node's steady time (tokio's, which tests can pause), for intervals that no other node sees.
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub fn instant() -> tokio::time::Instant {
        tokio::time::Instant::now()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_bent_arrives_and_never_goes_back() {
        let clock = Clock::starting_at(RoomTime::from_millis(1000));
        let (step, tick) = (Duration::from_micros(500), Duration::from_millis(100));
        for target in [20_000, -20_000] {
            let mut last = clock.now();
            let mut steps = 0;
            while clock.slew(target, step) {
                tokio::time::advance(tick).await;
                let now = clock.now();
                assert!(now > last, "{now:?} after {last:?}");
                last = now;
                steps += 1;
            }
            assert!(steps >= 39, "{steps} steps: it jumped");
            assert_eq!(clock.offset_micros(), target);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_was_put_back_starts_where_the_store_left_off() {
        let clock = Clock::starting_at(RoomTime::from_millis(1000));
        assert_eq!(clock.not_before(RoomTime::from_millis(999)), None);
        assert_eq!(clock.not_before(RoomTime::from_millis(3_601_000)), Some(Duration::from_secs(3600)));
        assert_eq!(clock.now(), RoomTime::from_millis(3_601_000));
    }
}
