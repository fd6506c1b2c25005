//! Room time is Redis' time: every node measures the offset of its own clock.
//!
//! Room time is monotonic. Where Redis' own clock was put back (a restart on a machine whose clock was ahead, a
//! failover to a replica whose clock is behind), the difference is kept in Redis, for all nodes alike: the first node
//! whose room time is ahead raises it, and so does a node that starts on a database with later timestamps.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Clock;
use crate::domain::RoomTime;
use crate::redis::{LinkError, RedisLink};

/// Requests of one measurement; the one with the shortest round trip counts.
const PROBES: u32 = 5;
/// The step of a slewed correction, one a [`TICK`]: half a percent of the time that passes.
const STEP: Duration = Duration::from_micros(500);
const TICK: Duration = Duration::from_millis(100);
/// A deviation above this is corrected in one step: slewing 5 s would take 17 minutes.
const SLEWED: Duration = Duration::from_millis(250);

/// Correction of a measured deviation.
#[derive(Debug, PartialEq, Eq)]
enum Correction {
    /// The deviation is within the error of the measurement.
    None,
    Slew,
    /// Forward, at once.
    Step,
    /// Redis' clock was put back: all nodes keep their room time.
    Hold,
}

impl Correction {
    fn of(offset: i64, measured: i64, error: Duration) -> Self {
        let error = i64::try_from(error.as_micros()).unwrap_or(i64::MAX);
        let large = i64::try_from(SLEWED.as_micros()).unwrap_or(i64::MAX).saturating_add(error);
        match measured.saturating_sub(offset) {
            ahead if ahead.saturating_abs() <= error => Self::None,
            ahead if ahead > large => Self::Step,
            ahead if ahead < -large => Self::Hold,
            _ => Self::Slew,
        }
    }
}

/// Measures Redis' clock, and corrects this node's.
pub struct RoomTimeKeeper {
    link: Arc<RedisLink>,
}

impl RoomTimeKeeper {
    pub fn new(link: Arc<RedisLink>) -> Self {
        Self { link }
    }

    /// How far Redis' clock is ahead of `clock` without its offset, in microseconds, and half the round trip of the
    /// answer that said so: the error is no larger.
    pub async fn time_offset(&self, clock: &Clock) -> Result<(i64, Duration), LinkError> {
        self.time_offset_from(clock, RoomTime::default()).await
    }

    /// As [`RoomTimeKeeper::time_offset`], and raises every node's room time to `floor`.
    pub async fn time_offset_from(&self, clock: &Clock, floor: RoomTime) -> Result<(i64, Duration), LinkError> {
        let call = self.link.time(floor);
        let mut best: Option<(i64, Duration)> = None;
        let mut last = LinkError::Deadline(Duration::ZERO);
        for _ in 0..PROBES {
            let (sent, before) = (Clock::instant(), clock.unadjusted());
            match call.once().await {
                Ok((seconds, micros, ahead)) => {
                    let error = sent.elapsed() / 2;
                    let theirs = seconds * 1_000_000 + micros + ahead;
                    let offset = theirs - (before + error).as_micros();
                    if best.is_none_or(|(_, least)| error < least) {
                        best = Some((offset, error));
                    }
                }
                Err(error) => last = error,
            }
        }
        best.ok_or(last)
    }

    /// Keeps `clock` at room time: the first measurement sets it, later ones correct it.
    pub async fn run(self, clock: Clock, every: Duration) {
        let mut set = false;
        loop {
            match self.time_offset(&clock).await {
                Ok((offset, error)) => {
                    metrics::gauge!(crate::telemetry::names::CLOCK_OFFSET).set(offset as f64 / 1e6);
                    if std::mem::replace(&mut set, true) {
                        self.correct(&clock, offset, error).await;
                    } else {
                        clock.set_offset(offset);
                    }
                }
                Err(error) => tracing::debug!(%error, "Redis' clock can't be read"),
            }
            tokio::time::sleep(every).await;
        }
    }

    async fn correct(&self, clock: &Clock, offset: i64, error: Duration) {
        let behind_ms = (offset - clock.offset_micros()) / 1000;
        match Correction::of(clock.offset_micros(), offset, error) {
            Correction::None => {}
            Correction::Slew => {
                while clock.slew(offset, STEP) {
                    tokio::time::sleep(TICK).await;
                }
            }
            Correction::Step => {
                tracing::warn!(behind_ms, "room time was far behind Redis' clock: it was corrected in one step");
                clock.step(offset);
            }
            Correction::Hold => {
                tracing::warn!(
                    behind_ms,
                    "Redis' clock was put back: room time goes on from where it was, on every node"
                );
                // If it fails, the next measurement tries again.
                if let Err(error) = self.time_offset_from(clock, clock.now()).await {
                    tracing::debug!(%error, "room time could not be held");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_deviation_is_slewed_a_large_one_is_a_step_and_time_does_not_go_back() {
        let error = Duration::from_millis(2);
        let of = |measured_ms: i64| Correction::of(1_000_000, 1_000_000 + measured_ms * 1000, error);
        assert_eq!([of(0), of(2), of(-2)], [Correction::None, Correction::None, Correction::None]);
        assert_eq!([of(3), of(252), of(-252)], [Correction::Slew, Correction::Slew, Correction::Slew]);
        assert_eq!([of(253), of(5000)], [Correction::Step, Correction::Step]);
        assert_eq!([of(-253), of(-3_600_000)], [Correction::Hold, Correction::Hold]);
    }
}
