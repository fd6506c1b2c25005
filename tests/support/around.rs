//! A log around another one, whose answers come late, and that panics on demand.

#![allow(unreachable_pub, dead_code, reason = "each test binary uses a part")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tandem::commit::{Commit, Snapshot};
use tandem::domain::{NodeId, RoomId};
use tandem::log::{Followed, Log, LogError, Outcome};

#[derive(Default)]
pub struct Doings {
    /// The next commit panics, once.
    pub commit_panics: AtomicBool,
    /// The next report panics, once.
    pub follow_panics: AtomicBool,
    /// Delay of the answer to a load; commits of that time are not in it.
    pub load_takes: Mutex<Duration>,
    /// Loads so far.
    pub loads: AtomicUsize,
}

pub struct Around {
    inner: Arc<dyn Log>,
    doings: Arc<Doings>,
}

impl Around {
    pub fn of(inner: Arc<dyn Log>) -> (Arc<dyn Log>, Arc<Doings>) {
        let doings = Arc::new(Doings::default());
        (Arc::new(Self { inner, doings: Arc::clone(&doings) }), doings)
    }
}

impl Log for Around {
    fn commit(&self, commit: Commit) -> BoxFuture<'_, Result<Outcome, LogError>> {
        assert!(!self.doings.commit_panics.swap(false, Ordering::Relaxed), "injected");
        self.inner.commit(commit)
    }

    fn load<'a>(&'a self, room: &'a RoomId) -> BoxFuture<'a, Result<Option<Snapshot>, LogError>> {
        Box::pin(async move {
            self.doings.loads.fetch_add(1, Ordering::Relaxed);
            let loaded = self.inner.load(room).await;
            let takes = *self.doings.load_takes.lock();
            if !takes.is_zero() {
                tokio::time::sleep(takes).await;
            }
            loaded
        })
    }

    fn subscribe<'a>(&'a self, room: &'a RoomId) -> BoxFuture<'a, Result<(), LogError>> {
        self.inner.subscribe(room)
    }

    fn unsubscribe(&self, room: &RoomId) {
        self.inner.unsubscribe(room);
    }

    fn follow(&self) -> BoxFuture<'_, Followed> {
        Box::pin(async move {
            let followed = self.inner.follow().await;
            assert!(!self.doings.follow_panics.load(Ordering::Relaxed), "injected");
            followed
        })
    }

    fn publish(&self, room: &RoomId, to: Option<&NodeId>, message: Bytes) {
        self.inner.publish(room, to, message);
    }
}
