//! Reports that a node's hub has not taken yet: one bounded queue, in order.

use std::collections::VecDeque;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::Followed;

/// Reports that may wait. Beyond it the hub is told to load everything again, which costs less than an endless queue.
const QUEUE: usize = 4096;
/// Ephemeral messages beyond this are dropped: they may be lost, and must not cost commits a reload.
const EPHEMERAL: usize = QUEUE / 2;

/// The outcome of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pushed {
    Queued,
    /// An ephemeral message had no place.
    Dropped,
    /// Everything that waited has become one [`Followed::Gap`].
    Overflowed,
}

#[derive(Debug, Default)]
pub(super) struct ReportQueue {
    reports: Mutex<VecDeque<Followed>>,
    arrived: Notify,
}

impl ReportQueue {
    pub(super) fn push(&self, report: Followed) -> Pushed {
        let pushed = {
            let mut reports = self.reports.lock();
            match report {
                Followed::Ephemeral { .. } if reports.len() >= EPHEMERAL => return Pushed::Dropped,
                _ if reports.len() >= QUEUE => {
                    lose_all(&mut reports);
                    Pushed::Overflowed
                }
                report => {
                    reports.push_back(report);
                    Pushed::Queued
                }
            }
        };
        self.arrived.notify_one();
        pushed
    }

    /// Anything may have been missed.
    pub(super) fn gap(&self) {
        lose_all(&mut self.reports.lock());
        self.arrived.notify_one();
    }

    pub(super) fn clear(&self) {
        self.reports.lock().clear();
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
        let queue = ReportQueue::default();
        let room = RoomId::parse("friday").unwrap();
        for _ in 0..=QUEUE {
            let _ = queue.push(Followed::Gap(Some(room.clone())));
        }
        assert!(matches!(queue.next().await, Followed::Gap(None)));
        assert!(queue.reports.lock().is_empty());
    }

    #[tokio::test]
    async fn ephemeral_messages_do_not_cost_a_commit_its_place() {
        let queue = ReportQueue::default();
        let room = RoomId::parse("friday").unwrap();
        for _ in 0..2 * QUEUE {
            let _ = queue.push(Followed::Ephemeral { room: room.clone(), message: bytes::Bytes::new() });
        }
        queue.push(Followed::Gap(Some(room.clone())));
        assert_eq!(queue.reports.lock().len(), EPHEMERAL + 1);
    }
}
