//! Wakers for the futures of one task, and a grid for its timers.
//!
//! `select!` polls every branch whenever the task is woken. A session has a reader, a writer and a watchdog; most
//! wake-ups concern one of them, and a poll of an idle socket costs a good part of a delivery. [`WakerSet`] gives each
//! future a waker of its own and polls only those that were woken, as `FuturesUnordered` does, but with a fixed number
//! of futures and without an allocation for each. [`select_first`] is the `select!` built on it.
//!
//! [`TimerGrid`] rounds deadlines up, so that the timers of many idle sessions expire together.
//!
//! The crate exists because the server's sessions and both transport crates use it, and a session must not depend on a
//! transport.
#![warn(missing_docs)]

mod grid;

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;

pub use grid::TimerGrid;

/// Wakers for `N` futures of one task.
///
/// At each poll the task calls [`register`](Self::register), then [`poll_if_woken`](Self::poll_if_woken) for each
/// future. A future must keep the waker that it registered until it is woken: one that withdraws its waker when it is
/// dropped (such as `Notified`) has to live as long as the set.
#[derive(Debug)]
pub struct WakerSet<const N: usize> {
    task: Arc<AtomicWaker>,
    flags: [Arc<WokenFlag>; N],
    wakers: [Waker; N],
}

impl<const N: usize> Default for WakerSet<N> {
    /// Every future counts as woken, because none has been polled yet.
    fn default() -> Self {
        let task = Arc::new(AtomicWaker::new());
        let flags: [_; N] =
            std::array::from_fn(|_| Arc::new(WokenFlag { woken: AtomicBool::new(true), task: Arc::clone(&task) }));
        let wakers = flags.clone().map(Waker::from);
        Self { task, flags, wakers }
    }
}

impl<const N: usize> WakerSet<N> {
    /// Registers the task's waker. Call it before the first `poll_if_woken` of a poll: a later wake-up wakes the task
    /// again.
    pub fn register(&self, task: &Waker) {
        self.task.register(task);
    }

    /// Runs `poll` with the waker of future `index` if that future was woken since its last poll, else returns
    /// `Pending`.
    pub fn poll_if_woken<T>(&self, index: usize, poll: impl FnOnce(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        if self.flags[index].woken.swap(false, Ordering::AcqRel) {
            poll(&mut Context::from_waker(&self.wakers[index]))
        } else {
            Poll::Pending
        }
    }

    /// Has future `index` polled again although nothing wakes it: the successor of a future that was ready.
    pub fn mark_woken(&self, index: usize) {
        self.flags[index].woken.store(true, Ordering::Release);
    }
}

#[derive(Debug)]
struct WokenFlag {
    woken: AtomicBool,
    task: Arc<AtomicWaker>,
}

impl Wake for WokenFlag {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.woken.swap(true, Ordering::AcqRel) {
            self.task.wake();
        }
    }
}

/// The output of the first future that is ready. Of several that are ready in one poll, the earliest in `futures` wins.
pub fn select_first<T, const N: usize>(
    mut futures: [Pin<&mut (dyn Future<Output = T> + Send)>; N],
) -> impl Future<Output = T> + Send {
    let wakers = WakerSet::<N>::default();
    poll_fn(move |task| {
        wakers.register(task.waker());
        for (index, future) in futures.iter_mut().enumerate() {
            if let Poll::Ready(output) = wakers.poll_if_woken(index, |context| future.as_mut().poll(context)) {
                return Poll::Ready(output);
            }
        }
        Poll::Pending
    })
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::atomic::AtomicU32;

    use tokio::sync::Notify;

    use super::*;

    /// Counts its polls and ends when notified.
    async fn counted(polls: &AtomicU32, notify: &Notify, name: &'static str) -> &'static str {
        let mut notified = pin!(notify.notified());
        poll_fn(|cx| {
            polls.fetch_add(1, Ordering::Relaxed);
            notified.as_mut().poll(cx)
        })
        .await;
        name
    }

    #[tokio::test]
    async fn a_future_that_was_not_woken_is_not_polled() {
        let (idle_polls, busy_polls) = (AtomicU32::new(0), AtomicU32::new(0));
        let (never, work) = (Notify::new(), tokio::sync::Semaphore::new(0));
        let busy = async {
            for _ in 0..100 {
                work.acquire().await.unwrap().forget();
                busy_polls.fetch_add(1, Ordering::Relaxed);
            }
            "busy"
        };
        let feed = async {
            for _ in 0..100 {
                work.add_permits(1);
                tokio::task::yield_now().await;
            }
            std::future::pending().await
        };
        let first = {
            let (idle, busy, feed) = (pin!(counted(&idle_polls, &never, "idle")), pin!(busy), pin!(feed));
            select_first([idle, busy, feed]).await
        };
        assert_eq!((first, busy_polls.into_inner(), idle_polls.into_inner()), ("busy", 100, 1));
    }

    #[tokio::test]
    async fn of_two_futures_that_are_ready_at_once_the_earlier_wins() {
        let (polls, notify) = (AtomicU32::new(0), Notify::new());
        notify.notify_one();
        let (never, first, second) =
            (pin!(std::future::pending()), pin!(counted(&polls, &notify, "first")), pin!(async { "second" }));
        assert_eq!(select_first([never, first, second]).await, "first");
    }

    #[tokio::test]
    async fn a_wake_up_from_another_thread_is_not_missed() {
        let (polls, notify) = (AtomicU32::new(0), Arc::new(Notify::new()));
        for _ in 0..200 {
            let other = Arc::clone(&notify);
            let thread = std::thread::spawn(move || other.notify_one());
            let (never, woken) = (pin!(std::future::pending()), pin!(counted(&polls, &notify, "woken")));
            assert_eq!(select_first([never, woken]).await, "woken");
            thread.join().unwrap();
        }
    }

    #[test]
    fn a_future_is_polled_when_it_was_woken_or_marked_and_once_for_each() {
        let set = WakerSet::<2>::default();
        let polled = || [0, 1].map(|index| set.poll_if_woken(index, |_| Poll::Ready(())).is_ready());
        assert_eq!(polled(), [true, true], "at first all are");
        assert_eq!(polled(), [false, false]);
        set.wakers[1].wake_by_ref();
        set.mark_woken(0);
        assert_eq!(polled(), [true, true]);
        assert_eq!(polled(), [false, false]);
    }
}
