//! Several futures of one task, each polled only when it was woken itself.
//!
//! A session's writer is woken for every delivery, its reader for every message, its watchdog almost never. `select!` polls
//! all of them at each wake-up, and a look at a socket that has nothing costs a good part of a delivery. Here each future
//! has a waker of its own, which notes whom it woke.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;

/// A future that takes its turns with others.
pub(super) type Turn<'a, T> = Pin<&'a mut (dyn Future<Output = T> + Send)>;

/// What the first of them to end ends with. In order: of two that could end at once it is the earlier.
pub(super) async fn first_of<T, const N: usize>(mut turns: [Turn<'_, T>; N]) -> T {
    let task = Arc::new(AtomicWaker::new());
    // All of them are polled once to begin with.
    let bells: [_; N] =
        std::array::from_fn(|_| Arc::new(Bell { rung: AtomicBool::new(true), task: Arc::clone(&task) }));
    let wakers = bells.clone().map(Waker::from);
    poll_fn(|cx| {
        // Before the bells are looked at: one that rings from here on wakes the task again.
        task.register(cx.waker());
        for ((turn, bell), waker) in turns.iter_mut().zip(&bells).zip(&wakers) {
            if bell.rung.swap(false, Ordering::AcqRel)
                && let Poll::Ready(end) = turn.as_mut().poll(&mut Context::from_waker(waker))
            {
                return Poll::Ready(end);
            }
        }
        Poll::Pending
    })
    .await
}

struct Bell {
    rung: AtomicBool,
    task: Arc<AtomicWaker>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.rung.swap(true, Ordering::AcqRel) {
            self.task.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::atomic::AtomicU32;

    use tokio::sync::Notify;

    use super::*;

    /// Counts its polls; ends when told.
    async fn counted(polls: &AtomicU32, told: &Notify, name: &'static str) -> &'static str {
        let mut told = pin!(told.notified());
        poll_fn(|cx| {
            polls.fetch_add(1, Ordering::Relaxed);
            told.as_mut().poll(cx)
        })
        .await;
        name
    }

    #[tokio::test]
    async fn only_who_was_woken_is_polled() {
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
        let end = {
            let (idle, busy, feed) = (pin!(counted(&idle_polls, &never, "idle")), pin!(busy), pin!(feed));
            first_of([idle, busy, feed]).await
        };
        assert_eq!((end, busy_polls.into_inner(), idle_polls.into_inner()), ("busy", 100, 1));
    }

    #[tokio::test]
    async fn of_two_that_end_at_once_the_earlier_counts() {
        let (polls, told) = (AtomicU32::new(0), Notify::new());
        told.notify_one();
        let (never, now, too) =
            (pin!(std::future::pending()), pin!(counted(&polls, &told, "first")), pin!(async { "second" }));
        assert_eq!(first_of([never, now, too]).await, "first");
    }

    #[tokio::test]
    async fn a_wake_from_another_thread_is_not_missed() {
        let (polls, told) = (AtomicU32::new(0), Arc::new(Notify::new()));
        for _ in 0..200 {
            let bell = Arc::clone(&told);
            let thread = std::thread::spawn(move || bell.notify_one());
            let (never, woken) = (pin!(std::future::pending()), pin!(counted(&polls, &told, "woken")));
            assert_eq!(first_of([never, woken]).await, "woken");
            thread.join().unwrap();
        }
    }
}
