//! Several futures of one task, each polled only when it was woken itself.
//!
//! A session's writer is woken for every delivery, its reader for every message, its watchdog almost never. `select!` polls
//! all of them at each wake-up, and a look at a socket that has nothing costs a good part of a delivery. Here each future
//! has a waker of its own, which notes whom it woke: [`Bells`], and on them [`first_of`].

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;

/// The wakers of `N` futures of one task.
///
/// The task calls [`listen`](Self::listen) at each of its own polls, and then polls those whose bell has
/// [`rung`](Self::rung). A future that is polled must keep its waker where it was registered: one that takes it back when
/// it is dropped has to live as long as the bells.
#[derive(Debug)]
pub(crate) struct Bells<const N: usize> {
    task: Arc<AtomicWaker>,
    bells: [Arc<Bell>; N],
    wakers: [Waker; N],
}

impl<const N: usize> Default for Bells<N> {
    /// All of them have rung: nobody has been polled yet.
    fn default() -> Self {
        let task = Arc::new(AtomicWaker::new());
        let bells: [_; N] =
            std::array::from_fn(|_| Arc::new(Bell { rung: AtomicBool::new(true), task: Arc::clone(&task) }));
        let wakers = bells.clone().map(Waker::from);
        Self { task, bells, wakers }
    }
}

impl<const N: usize> Bells<N> {
    /// Notes whom to wake. Before the bells are looked at: one that rings from here on wakes the task again.
    pub(crate) fn listen(&self, task: &Waker) {
        self.task.register(task);
    }

    /// What to poll a future with, if it was woken since it was asked for last.
    pub(crate) fn rung(&self, which: usize) -> Option<Context<'_>> {
        self.bells[which].rung.swap(false, Ordering::AcqRel).then(|| Context::from_waker(&self.wakers[which]))
    }

    /// Has a future polled again that nobody will wake: the successor of one that ended.
    pub(crate) fn ring(&self, which: usize) {
        self.bells[which].rung.store(true, Ordering::Release);
    }
}

/// A future that takes its turns with others.
pub(crate) type Turn<'a, T> = Pin<&'a mut (dyn Future<Output = T> + Send)>;

/// What the first of them to end ends with. In order: of two that could end at once it is the earlier.
pub(crate) fn first_of<T, const N: usize>(mut turns: [Turn<'_, T>; N]) -> impl Future<Output = T> + Send {
    let bells = Bells::<N>::default();
    poll_fn(move |task| {
        bells.listen(task.waker());
        for (which, turn) in turns.iter_mut().enumerate() {
            if let Some(mut context) = bells.rung(which)
                && let Poll::Ready(end) = turn.as_mut().poll(&mut context)
            {
                return Poll::Ready(end);
            }
        }
        Poll::Pending
    })
}

#[derive(Debug)]
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

    #[test]
    fn who_has_not_rung_is_not_polled_until_it_does_or_is_made_to() {
        let bells = Bells::<2>::default();
        assert!(bells.rung(0).is_some() && bells.rung(1).is_some(), "to begin with, all are polled");
        assert!(bells.rung(0).is_none() && bells.rung(1).is_none());
        bells.wakers[1].wake_by_ref();
        bells.ring(0);
        assert!(bells.rung(0).is_some() && bells.rung(1).is_some());
        assert!(bells.rung(0).is_none() && bells.rung(1).is_none());
    }
}
