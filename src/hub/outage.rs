//! Why the log did not answer: counted always, logged seldom.
//!
//! A client hears UNAVAILABLE, which says nothing. The operator gets the log's own words, at most once in a while for all
//! rooms of the node: when Redis is away, every room says the same.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::domain::RoomId;
use crate::telemetry::names;

/// One line in this time, with how many were left out.
const SELDOM: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub(super) struct Outages(Mutex<Said>);

#[derive(Debug, Default)]
struct Said {
    at: Option<Instant>,
    left_out: u64,
}

impl Outages {
    /// `operation`: commit, load, restore, subscribe.
    pub(super) fn note(&self, operation: &'static str, room: &RoomId, error: &dyn std::fmt::Display) {
        metrics::counter!(names::LOG_FAILURES, "operation" => operation).increment(1);
        if let Some(left_out) = self.may_say(Clock::instant()) {
            tracing::warn!(operation, roomId = %room, %error, left_out, "the log did not answer: clients hear UNAVAILABLE");
        }
    }

    /// How many were left out since the last line; `None`: it is too soon for another.
    fn may_say(&self, now: Instant) -> Option<u64> {
        let mut said = self.0.lock();
        if said.at.is_some_and(|at| now < at + SELDOM) {
            said.left_out += 1;
            return None;
        }
        said.at = Some(now);
        Some(std::mem::take(&mut said.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_line_in_a_while_says_how_many_were_left_out() {
        let (outages, now) = (Outages::default(), Clock::instant());
        assert_eq!(outages.may_say(now), Some(0));
        for _ in 0..7 {
            assert_eq!(outages.may_say(now + SELDOM / 2), None);
        }
        assert_eq!(outages.may_say(now + SELDOM), Some(7));
        assert_eq!(outages.may_say(now + SELDOM * 2), Some(0));
    }
}
