//! Room time is Redis' time: every node measures how far its own clock is from it.

use std::sync::Arc;
use std::time::Duration;

use redis::Script;

use super::keys::Partition;
use super::link::Request;
use super::{RedisLog, unreadable};
use crate::clock::Clock;
use crate::log::LogError;

/// Questions of one measurement; the quickest answer counts.
const PROBES: u32 = 5;
/// A correction steps no further at a time, so that room time flows on: with [`TICK`], half a percent.
const STEP: Duration = Duration::from_micros(500);
const TICK: Duration = Duration::from_millis(100);

impl RedisLog {
    /// How far Redis' clock is ahead of `clock` without its offset, in microseconds, and half the round trip of the answer
    /// that said so: the error is no larger.
    pub async fn time_offset(&self, clock: &Clock) -> Result<(i64, Duration), LogError> {
        let script = time_script();
        let mut call = script.prepare_invoke();
        call.key(Partition::all().next().map(Partition::era));
        let mut best: Option<(i64, Duration)> = None;
        let mut last = None;
        for _ in 0..PROBES {
            let (sent, before) = (Clock::instant(), clock.unadjusted());
            match self.link.once(&Request::Script(&call)).await {
                Ok(answer) => {
                    let error = sent.elapsed() / 2;
                    let (seconds, micros): (i64, i64) = redis::from_redis_value(answer).map_err(unreadable)?;
                    let theirs = seconds * 1_000_000 + micros;
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
                    // Within the error there is nothing to know.
                    let wrong = (clock.offset_micros() - offset).unsigned_abs();
                    if !std::mem::replace(&mut set, true) {
                        clock.set_offset(offset);
                    } else if u128::from(wrong) > error.as_micros() {
                        while clock.slew(offset, STEP) {
                            tokio::time::sleep(TICK).await;
                        }
                    }
                }
                Err(error) => tracing::debug!(%error, "Redis' clock can't be read"),
            }
            tokio::time::sleep(every).await;
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
