//! Logs, metrics and traces.

mod catalogue;
mod hot;
mod json;
mod logging;
mod otlp;
mod seldom;
#[cfg(test)]
#[path = "../../tests/support/trace_dispatcher.rs"]
pub(crate) mod trace_dispatcher;

use std::sync::Arc;
use std::time::Duration;

pub use catalogue::{CATALOGUE, Metric, MetricKind, markdown, names};
pub use hot::{HotCounter, HotCounters, HotHistogram};
pub use json::json_lines;
pub use logging::{LogFormat, Logging, LoggingError, PROBE_SPAN, REQUEST_SPAN, init_logging, parse_filter};
pub use otlp::{Otlp, OtlpError};
pub use seldom::Seldom;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// Interval at which the samples of histograms are folded into buckets, so that they don't grow between two scrapes.
const UPKEEP: Duration = Duration::from_secs(5);

/// Buckets of durations, s: from a group commit on a fast disk to a stalled one.
const SECONDS: &[f64] =
    &[0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Buckets of what members report of their players, s: from a frame to a player that has lost the room.
const DRIFT_SECONDS: &[f64] =
    &[0.005, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0];

/// Buckets of counts.
const COUNTS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0];

/// Access to the recorded values.
#[derive(Clone)]
pub struct Metrics(PrometheusHandle);

impl Metrics {
    /// Installs the process's recorder; later calls return the same one.
    pub fn install() -> Result<Self, MetricsError> {
        static INSTALLED: Mutex<Option<Metrics>> = Mutex::new(None);
        let mut installed = INSTALLED.lock();
        if let Some(installed) = &*installed {
            return Ok(installed.clone());
        }
        let (recorder, handle) = Self::recorder()?;
        let recorder = Arc::new(recorder);
        metrics::set_global_recorder(Arc::clone(&recorder)).map_err(|_| MetricsError::Taken)?;
        hot::keep_handles_of(recorder);
        catalogue::describe();
        *installed = Some(handle.clone());
        Ok(handle)
    }

    /// A recorder that is not the process's, for tests (`metrics::with_local_recorder`).
    pub fn recorder() -> Result<(PrometheusRecorder, Self), MetricsError> {
        let buckets = [
            (Matcher::Suffix("_seconds".to_owned()), SECONDS),
            (Matcher::Full(names::CLIENT_DRIFT.to_owned()), DRIFT_SECONDS),
            (Matcher::Full(names::APPEND_COMMITS.to_owned()), COUNTS),
        ];
        let mut builder = PrometheusBuilder::new();
        for (matcher, bounds) in buckets {
            builder = builder
                .set_buckets_for_metric(matcher, bounds)
                .map_err(|error| MetricsError::Build(error.to_string()))?;
        }
        let recorder = builder.build_recorder();
        let handle = Self(recorder.handle());
        Ok((recorder, handle))
    }

    /// Prometheus' text format.
    pub fn render(&self) -> String {
        self.0.render()
    }

    /// The same numbers as `(series, value)`, for people who read JSON.
    pub fn values(&self) -> Vec<(String, f64)> {
        let number = |line: &str| {
            let (series, value) = line.rsplit_once(' ')?;
            Some((series.to_owned(), value.parse().ok()?))
        };
        self.render().lines().filter(|line| !line.starts_with('#')).filter_map(number).collect()
    }

    /// Folds histograms until it is stopped.
    pub async fn upkeep(self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(UPKEEP);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            self.0.run_upkeep();
        }
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

/// Why metrics can't be recorded.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    #[error("metrics: {0}")]
    Build(String),
    /// Another recorder is installed.
    #[error("metrics: another recorder is installed")]
    Taken,
}
