//! Reports from the bus that the hub has not taken yet, with the metrics of what they cost.

use crate::log::Followed;
use crate::log::report_queue::{Pushed, ReportQueue};
use crate::telemetry::{HotCounter, names};

static DROPPED: HotCounter = HotCounter::new(names::EPHEMERAL_DROPPED, &[("direction", "in")]);

#[derive(Debug, Default)]
pub(super) struct BusInbox(ReportQueue);

impl BusInbox {
    pub(super) fn push(&self, report: Followed) {
        match self.0.push(report) {
            Pushed::Queued => {}
            Pushed::Dropped => DROPPED.increment(1),
            Pushed::Overflowed => metrics::counter!(names::BUS_OVERFLOWS).increment(1),
        }
    }

    pub(super) fn gap(&self) {
        self.0.gap();
    }

    pub(super) fn waiting(&self) -> usize {
        self.0.waiting()
    }

    pub(super) async fn next(&self) -> Followed {
        self.0.next().await
    }
}
