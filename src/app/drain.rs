//! How far a planned stop has come: for `/status`, `/metrics`, and the log. `PORT` answers until the end, so both can
//! be asked meanwhile.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::{Instant, interval};

use crate::clock::Clock;
use crate::quota::Caps;
use crate::telemetry::names;

/// How often a stop that takes its time says what it waits for.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// Where a server is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// As usual.
    Serving,
    /// Sessions were told to reconnect, and end.
    Leaving,
    /// Commits of accepted commands are under way.
    Committing,
    /// The log and the database are closed.
    Closing,
}

impl Phase {
    const ALL: [Self; 4] = [Self::Serving, Self::Leaving, Self::Committing, Self::Closing];

    fn as_str(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Leaving => "leaving",
            Self::Committing => "committing",
            Self::Closing => "closing",
        }
    }
}

/// Shared by who drains and who is asked about it.
#[derive(Clone)]
pub(super) struct Progress {
    sessions: Caps,
    at: Arc<Mutex<(Phase, Option<Instant>)>>,
}

impl Progress {
    pub(super) fn new(sessions: Caps) -> Self {
        let progress = Self { sessions, at: Arc::new(Mutex::new((Phase::Serving, None))) };
        progress.show(Phase::Serving);
        progress
    }

    pub(super) fn enter(&self, phase: Phase) {
        {
            let mut at = self.at.lock();
            let since = at.1.unwrap_or_else(Clock::instant);
            *at = (phase, Some(since));
        }
        self.show(phase);
        tracing::info!(state = phase.as_str(), sessions = self.sessions.held(), "stopping");
    }

    /// Waits, and says now and then for how many sessions.
    pub(super) async fn report_until(&self, done: impl Future<Output = ()>) {
        let mut done = std::pin::pin!(done);
        let mut every = interval(REPORT_EVERY);
        every.tick().await;
        loop {
            tokio::select! {
                biased;
                () = &mut done => break,
                _ = every.tick() => tracing::info!(sessions = self.count(), "stopping, and waiting for what is left"),
            }
        }
        self.count();
    }

    /// For `/status`.
    pub(super) fn describe(&self) -> Value {
        let (phase, since) = *self.at.lock();
        json!({
            "state": phase.as_str(),
            "sessionsLeft": since.map(|_| self.sessions.held()),
            "forMs": since.map(|since| since.elapsed().as_millis() as u64),
        })
    }

    fn show(&self, phase: Phase) {
        for state in Phase::ALL {
            let here = if state == phase { 1.0 } else { 0.0 };
            metrics::gauge!(names::DRAIN_STATE, "state" => state.as_str()).set(here);
        }
        if phase == Phase::Serving {
            metrics::gauge!(names::DRAIN_SESSIONS).set(0.0);
        } else {
            self.count();
        }
    }

    fn count(&self) -> usize {
        let left = self.sessions.held();
        metrics::gauge!(names::DRAIN_SESSIONS).set(left as f64);
        left
    }
}
