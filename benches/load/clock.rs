//! One clock for the senders and the receivers: they are one process, so a latency needs no synchronisation.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

static START: OnceLock<Instant> = OnceLock::new();

/// Now, on the steady clock.
#[expect(clippy::disallowed_methods, reason = "the load tool's own clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Microseconds since the first call. Stays below a film's largest position when read as one, in seconds.
pub(crate) fn micros() -> u64 {
    u64::try_from(now().duration_since(*START.get_or_init(now)).as_micros()).unwrap_or(u64::MAX)
}

/// A moment of [`micros`] as a position in a film: this is how it travels in a message.
pub(crate) fn as_seconds(micros: u64) -> f64 {
    micros as f64 / 1e6
}

/// The way back.
pub(crate) fn as_micros(seconds: f64) -> u64 {
    (seconds * 1e6).round() as u64
}

/// Milliseconds since the Unix epoch: room time of a server on this machine without Redis.
#[expect(clippy::disallowed_methods, reason = "the load tool's own clock")]
pub(crate) fn wall_millis() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as f64 / 1000.0
}

pub(crate) async fn pause(time: Duration) {
    tokio::time::sleep(time).await;
}
