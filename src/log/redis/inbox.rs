//! Reports from the bus that the hub has not taken yet: one bounded queue, in order.

use std::collections::VecDeque;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::log::Followed;
use crate::telemetry::{HotCounter, names};

static DROPPED: HotCounter = HotCounter::new(names::EPHEMERAL_DROPPED, &[("direction", "in")]);

/// Reports that may wait. Beyond it the hub is told to load everything again, which costs less than an endless queue.
const QUEUE: usize = 4096;
/// Ephemeral messages beyond this are dropped: they may be lost, and must not cost commits a reload.
const EPHEMERAL: usize = QUEUE / 2;

#[derive(Debug, Default)]
pub(super) struct BusInbox {
    reports: Mutex<VecDeque<Followed>>,
    arrived: Notify,
}

impl BusInbox {
    pub(super) fn push(&self, report: Followed) {
        let mut reports = self.reports.lock();
        match report {
            Followed::Ephemeral { .. } if reports.len() >= EPHEMERAL => return DROPPED.increment(1),
            _ if reports.len() >= QUEUE => {
                metrics::counter!(names::BUS_OVERFLOWS).increment(1);
                lose_all(&mut reports);
            }
            report => reports.push_back(report),
        }
        drop(reports);
        self.arrived.notify_one();
    }

    /// Anything may have been missed.
    pub(super) fn gap(&self) {
        lose_all(&mut self.reports.lock());
        self.arrived.notify_one();
    }

    pub(super) fn waiting(&self) -> usize {
        self.reports.lock().len()
    }

    pub(super) async fn next(&self) -> Followed {
        loop {
            let arrived = self.arrived.notified();
            if let Some(report) = self.reports.lock().pop_front() {
                return report;
            }
            arrived.await;
        }
    }
}

/// Commits that wait are in the snapshots that will be loaded; ephemeral messages may be lost.
fn lose_all(reports: &mut VecDeque<Followed>) {
    reports.clear();
    reports.push_back(Followed::Gap(None));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::RoomId;

    #[tokio::test]
    async fn a_full_queue_becomes_one_gap() {
        let inbox = BusInbox::default();
        let room = RoomId::parse("friday").unwrap();
        for _ in 0..=QUEUE {
            inbox.push(Followed::Gap(Some(room.clone())));
        }
        assert!(matches!(inbox.next().await, Followed::Gap(None)));
        assert!(inbox.reports.lock().is_empty());
    }

    #[tokio::test]
    async fn ephemeral_messages_do_not_cost_a_commit_its_place() {
        let inbox = BusInbox::default();
        let room = RoomId::parse("friday").unwrap();
        for _ in 0..2 * QUEUE {
            inbox.push(Followed::Ephemeral { room: room.clone(), message: bytes::Bytes::new() });
        }
        inbox.push(Followed::Gap(Some(room.clone())));
        assert_eq!(inbox.reports.lock().len(), EPHEMERAL + 1);
    }
}
