//! The number of open sessions, for gauges and `/status`.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::domain::{Dialect, TransportKind};
use crate::telemetry::names;

/// By transport; clones share the counts.
#[derive(Clone, Default)]
pub struct SessionCounts(Arc<Mutex<BTreeMap<&'static str, u64>>>);

impl SessionCounts {
    /// Open sessions by the transport's name.
    pub fn by_transport(&self) -> BTreeMap<&'static str, u64> {
        self.0.lock().clone()
    }

    /// Counts a session until the value is dropped.
    pub(super) fn open(&self, transport: TransportKind) -> OpenSession {
        *self.0.lock().entry(transport.as_str()).or_default() += 1;
        let counted = OpenSession { counts: self.clone(), transport, dialect: "none" };
        metrics::counter!(names::SESSIONS_TOTAL, "transport" => transport.as_str()).increment(1);
        counted.gauge().increment(1.0);
        counted
    }
}

/// A counted session.
pub(super) struct OpenSession {
    counts: SessionCounts,
    pub(super) transport: TransportKind,
    dialect: &'static str,
}

impl OpenSession {
    /// Each JOIN calls it: only then the dialect is known.
    pub(super) fn speaks(&mut self, dialect: Dialect) {
        self.gauge().decrement(1.0);
        self.dialect = match dialect {
            Dialect::V2 => "v2",
            Dialect::V3 => "v3",
        };
        self.gauge().increment(1.0);
    }

    fn gauge(&self) -> metrics::Gauge {
        metrics::gauge!(names::SESSIONS_ACTIVE, "transport" => self.transport.as_str(), "dialect" => self.dialect)
    }
}

impl Drop for OpenSession {
    fn drop(&mut self) {
        self.gauge().decrement(1.0);
        if let Some(count) = self.counts.0.lock().get_mut(self.transport.as_str()) {
            *count -= 1;
        }
    }
}
