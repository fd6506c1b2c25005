//! Metrics of the hot paths: each looks its handle up once, not at every message.
//!
//! `metrics::counter!` hashes the name and the labels, allocates them, and takes a lock of the registry each time:
//! cheap once a session, expensive once a message. Here a `static` beside the code that records keeps the handle after
//! its first use; recording is then one atomic addition.
//!
//! ```text
//! static RELAYED: HotCounter = HotCounter::new(names::TICKS_RELAYED, &[]);
//! RELAYED.increment(1);
//! ```
//! Only handles of the process's recorder ([`Metrics::install`](super::Metrics::install)) are kept. Without one each
//! call looks its handle up, so that a test's local recorder sees what is recorded.

use std::sync::{Arc, OnceLock};

use metrics::{Counter, Histogram, Key, Label, Level, Metadata, Recorder};
use metrics_exporter_prometheus::PrometheusRecorder;

type Labels = &'static [(&'static str, &'static str)];

/// Set once the process has a recorder.
static INSTALLED: OnceLock<Arc<PrometheusRecorder>> = OnceLock::new();

/// Handles may be kept from now on.
pub(super) fn keep_handles_of(recorder: Arc<PrometheusRecorder>) {
    let _ = INSTALLED.set(recorder);
}

fn key(name: &'static str, labels: impl IntoIterator<Item = (&'static str, &'static str)>) -> Key {
    Key::from_parts(name, labels.into_iter().map(|(k, v)| Label::from_static_parts(k, v)).collect::<Vec<_>>())
}

const METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, Some(module_path!()));

/// The handle, and whether it may be kept.
fn counter(key: &Key) -> (Counter, bool) {
    match INSTALLED.get() {
        Some(recorder) => (recorder.register_counter(key, &METADATA), true),
        None => (metrics::with_recorder(|recorder| recorder.register_counter(key, &METADATA)), false),
    }
}

/// A counter with one set of labels.
pub struct HotCounter {
    name: &'static str,
    labels: Labels,
    handle: OnceLock<Counter>,
}

impl HotCounter {
    /// For a `static`.
    pub const fn new(name: &'static str, labels: Labels) -> Self {
        Self { name, labels, handle: OnceLock::new() }
    }

    pub fn increment(&self, by: u64) {
        match self.handle.get() {
            Some(handle) => handle.increment(by),
            None => self.look_up(by),
        }
    }

    #[cold]
    fn look_up(&self, by: u64) {
        let (handle, keep) = counter(&key(self.name, self.labels.iter().copied()));
        handle.increment(by);
        if keep {
            let _ = self.handle.set(handle);
        }
    }
}

/// Counters of one name, one for each value of a label from a closed list.
pub struct HotCounters {
    name: &'static str,
    label: &'static str,
    values: &'static [&'static str],
    handles: OnceLock<Vec<Counter>>,
}

impl HotCounters {
    /// For a `static`.
    pub const fn new(name: &'static str, label: &'static str, values: &'static [&'static str]) -> Self {
        Self { name, label, values, handles: OnceLock::new() }
    }

    /// Increments the counter of this value; one that is not in the list is looked up each time.
    pub fn increment(&self, value: &'static str, by: u64) {
        let place = self.values.iter().position(|known| *known == value);
        match (self.handles.get(), place) {
            (Some(handles), Some(place)) => handles[place].increment(by),
            _ => self.look_up(value, by),
        }
    }

    #[cold]
    fn look_up(&self, value: &'static str, by: u64) {
        let of = |value| counter(&key(self.name, [(self.label, value)]));
        let (handle, keep) = of(value);
        handle.increment(by);
        if keep {
            self.handles.get_or_init(|| self.values.iter().map(|value| of(value).0).collect());
        }
    }
}

/// A histogram without labels.
pub struct HotHistogram {
    name: &'static str,
    handle: OnceLock<Histogram>,
}

impl HotHistogram {
    /// For a `static`.
    pub const fn new(name: &'static str) -> Self {
        Self { name, handle: OnceLock::new() }
    }

    pub fn record(&self, value: f64) {
        match self.handle.get() {
            Some(handle) => handle.record(value),
            None => self.look_up(value),
        }
    }

    #[cold]
    fn look_up(&self, value: f64) {
        let key = Key::from_name(self.name);
        match INSTALLED.get() {
            Some(recorder) => {
                self.handle.get_or_init(|| recorder.register_histogram(&key, &METADATA)).record(value);
            }
            None => metrics::with_recorder(|recorder| recorder.register_histogram(&key, &METADATA)).record(value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Metrics;

    static ONE: HotCounter = HotCounter::new("tandem_test_one_total", &[("class", "event")]);
    static EACH: HotCounters = HotCounters::new("tandem_test_each_total", "type", &["CHAT", "SEEK"]);
    static TIMES: HotHistogram = HotHistogram::new("tandem_test_seconds");

    #[test]
    fn a_handle_that_is_kept_is_the_process_s_own_whoever_asked_first() {
        let process = Metrics::install().unwrap();
        let (local, local_metrics) = Metrics::recorder().unwrap();
        let record = || {
            ONE.increment(2);
            EACH.increment("SEEK", 1);
            EACH.increment("NEW", 1);
            TIMES.record(0.003);
        };
        metrics::with_local_recorder(&local, record);
        record();
        let text = process.render();
        for line in [
            "tandem_test_one_total{class=\"event\"} 4",
            "tandem_test_each_total{type=\"SEEK\"} 2",
            "tandem_test_each_total{type=\"NEW\"} 2",
            "tandem_test_seconds_bucket{le=\"0.005\"} 2",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert!(!local_metrics.render().contains("tandem_test_"));
    }
}
