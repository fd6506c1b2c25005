//! A log that counts what a node is told: conflicts, errors, gaps.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tandem::commit::{Commit, Snapshot};
use tandem::domain::{NodeId, RoomId};
use tandem::log::{Followed, Log, LogError, Outcome};

/// Counts by kind; clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally(Arc<Mutex<BTreeMap<String, usize>>>);

impl Tally {
    pub(crate) fn count(&self, what: impl Into<String>) {
        self.add(what, 1);
    }

    pub(crate) fn add(&self, what: impl Into<String>, times: usize) {
        *self.0.lock().entry(what.into()).or_default() += times;
    }

    pub(crate) fn counts(&self) -> BTreeMap<String, usize> {
        self.0.lock().clone()
    }
}

pub(crate) struct CountingLog {
    pub(crate) inner: Arc<dyn Log>,
    pub(crate) tally: Tally,
}

impl Log for CountingLog {
    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<Outcome, LogError>> {
        let counted = self.inner.commit(commit).inspect(|outcome| match outcome {
            Ok(Outcome::Committed) => {}
            Ok(Outcome::Conflict(Some(_))) => self.tally.count("conflict"),
            Ok(Outcome::Conflict(None)) => self.tally.count("conflict with an end"),
            Err(_) => self.tally.count("commit failed"),
        });
        Box::pin(counted)
    }

    fn load<'a>(&'a self, room: &'a RoomId) -> BoxFuture<'a, Result<Option<Snapshot>, LogError>> {
        Box::pin(self.inner.load(room).inspect(|loaded| {
            if loaded.is_err() {
                self.tally.count("load failed");
            }
        }))
    }

    fn restore(&self, snapshot: Snapshot) -> BoxFuture<'_, Result<Option<Snapshot>, LogError>> {
        self.tally.count("restore");
        self.inner.restore(snapshot)
    }

    fn subscribe<'a>(&'a self, room: &'a RoomId) -> BoxFuture<'a, Result<(), LogError>> {
        self.inner.subscribe(room)
    }

    fn unsubscribe(&self, room: &RoomId) {
        self.inner.unsubscribe(room);
    }

    fn follow(&self) -> BoxFuture<'_, Followed> {
        Box::pin(self.inner.follow().inspect(|followed| match followed {
            Followed::Gap(Some(_)) => self.tally.count("gap in one room"),
            Followed::Gap(None) => self.tally.count("gap in all rooms"),
            _ => {}
        }))
    }

    fn publish(&self, room: &RoomId, to: Option<&NodeId>, message: Bytes) {
        self.inner.publish(room, to, message);
    }
}
