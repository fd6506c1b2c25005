//! Room time is Redis' time: every node measures how far its own clock is from it.
//!
//! Room time doesn't go back. Where Redis' own clock was put back (a restart on a machine whose clock was ahead, a failover to a
//! replica whose clock is behind), the difference is kept in Redis, for all nodes alike: the first node whose room time is ahead
//! raises it, and so does a node that starts on a database that has seen later.

use std::sync::Arc;
use std::time::Duration;

use redis::Script;

use super::keys::Partition;
use super::link::Request;
use super::{RedisLog, millis, unreadable};
use crate::clock::Clock;
use crate::domain::RoomTime;
use crate::log::LogError;

/// Questions of one measurement; the quickest answer counts.
const PROBES: u32 = 5;
/// A correction steps no further at a time, so that room time flows on: with [`TICK`], half a percent.
const STEP: Duration = Duration::from_micros(500);
const TICK: Duration = Duration::from_millis(100);
/// A deviation above this is put right in one step: at the pace of a correction 5 s would take 17 minutes.
const BENT: Duration = Duration::from_millis(250);

/// What to do about a measured deviation.
#[derive(Debug, PartialEq, Eq)]
enum Correction {
    /// Within the error there is nothing to know.
    None,
    Bend,
    /// Forward, at once.
    Step,
    /// Redis' clock was put back: all nodes stay where they are.
    Hold,
}

impl Correction {
    fn of(offset: i64, measured: i64, error: Duration) -> Self {
        let error = i64::try_from(error.as_micros()).unwrap_or(i64::MAX);
        let large = i64::try_from(BENT.as_micros()).unwrap_or(i64::MAX).saturating_add(error);
        match measured.saturating_sub(offset) {
            ahead if ahead.saturating_abs() <= error => Self::None,
            ahead if ahead > large => Self::Step,
            ahead if ahead < -large => Self::Hold,
            _ => Self::Bend,
        }
    }
}

impl RedisLog {
    /// How far Redis' clock is ahead of `clock` without its offset, in microseconds, and half the round trip of the answer
    /// that said so: the error is no larger.
    pub async fn time_offset(&self, clock: &Clock) -> Result<(i64, Duration), LogError> {
        self.time_offset_from(clock, RoomTime::default()).await
    }

    /// The same, and room time lies at `floor` at least from now on, for every node.
    pub async fn time_offset_from(&self, clock: &Clock, floor: RoomTime) -> Result<(i64, Duration), LogError> {
        let script = Script::new(include_str!("time.lua"));
        let mut call = script.prepare_invoke();
        let place = Partition::all().next();
        call.key(place.map(Partition::era)).key(place.map(|place| place.key("ahead")));
        call.arg(floor.as_micros()).arg(millis(self.options.lives.outbox));
        let mut best: Option<(i64, Duration)> = None;
        let mut last = None;
        for _ in 0..PROBES {
            let (sent, before) = (Clock::instant(), clock.unadjusted());
            match self.link.once(&Request::Script(&call)).await {
                Ok(answer) => {
                    let error = sent.elapsed() / 2;
                    let (seconds, micros, ahead): (i64, i64, i64) =
                        redis::from_redis_value(answer).map_err(unreadable)?;
                    let theirs = seconds * 1_000_000 + micros + ahead;
                    let offset = theirs - (before + error).as_micros();
                    if best.is_none_or(|(_, least)| error < least) {
                        best = Some((offset, error));
                    }
                }
                Err(error) => last = Some(error),
            }
        }
        best.ok_or_else(|| LogError(last.map_or_else(|| "no answer".to_owned(), |error| error.to_string())))
    }

    /// Feeds `clock`: the first measurement sets it, later ones bend it.
    pub async fn keep_time(self: Arc<Self>, clock: Clock, every: Duration) {
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
            Correction::Bend => {
                while clock.slew(offset, STEP) {
                    tokio::time::sleep(TICK).await;
                }
            }
            Correction::Step => {
                tracing::warn!(behind_ms, "room time was far behind Redis' clock: it was put right in one step");
                clock.step(offset);
            }
            Correction::Hold => {
                tracing::warn!(
                    behind_ms,
                    "Redis' clock was put back: room time goes on from where it was, on every node"
                );
                // If it can't be said now, the next measurement says it.
                if let Err(error) = self.time_offset_from(clock, clock.now()).await {
                    tracing::debug!(%error, "room time could not be held");
                }
            }
        }
    }

    pub(super) async fn redis_millis(&self) -> Result<u64, LogError> {
        let script = time_script();
        let mut call = script.prepare_invoke();
        call.key(Partition::all().next().map(Partition::era));
        let (seconds, micros): (u64, u64) =
            redis::from_redis_value(self.link.script(&call).await?).map_err(unreadable)?;
        Ok(seconds * 1000 + micros / 1000)
    }
}

/// A script, because its key names the server: in a cluster all nodes must ask the same one.
fn time_script() -> Script {
    Script::new("return redis.call('TIME')")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_deviation_is_bent_a_large_one_is_a_step_and_time_does_not_go_back() {
        let error = Duration::from_millis(2);
        let of = |measured_ms: i64| Correction::of(1_000_000, 1_000_000 + measured_ms * 1000, error);
        assert_eq!([of(0), of(2), of(-2)], [Correction::None, Correction::None, Correction::None]);
        assert_eq!([of(3), of(252), of(-252)], [Correction::Bend, Correction::Bend, Correction::Bend]);
        assert_eq!([of(253), of(5000)], [Correction::Step, Correction::Step]);
        assert_eq!([of(-253), of(-3_600_000)], [Correction::Hold, Correction::Hold]);
    }
}
