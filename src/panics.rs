//! Containment of panics. The policy is in `docs/ARCHITECTURE.md`, "Panics".
//!
//! A task that serves one connection needs nothing from here: the runtime drops its future, and `Drop` gives back what
//! it held. The hub drops a room's replica and reads it again. After a panic of a task that serves all rooms there is
//! no state to drop, and its absence would go unnoticed: the process aborts, and its supervisor starts another. A lost
//! listener leaves the rooms whole, so the server drains first: [`crate::vital`].

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::telemetry::names;

/// The pause before a task that panicked is started again, doubled each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Counts and logs every panic of the process, before the previous hook runs.
pub fn watch() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let file = panic.location().map_or("", |location| location.file());
        metrics::counter!(names::PANICS, "file" => file.to_owned()).increment(1);
        tracing::error!(%panic, "a panic: a fault of the server");
        before(panic);
    }));
}

/// Runs a task on which the whole server depends. If it panics, or returns before `stop` is cancelled, the process
/// aborts.
pub async fn abort_if_lost(task: &'static str, stop: CancellationToken, work: impl Future<Output = ()>) {
    let outcome = AssertUnwindSafe(work).catch_unwind().await;
    match outcome {
        Ok(()) if stop.is_cancelled() => {}
        Ok(()) => abort(task, "ended"),
        Err(_) => abort(task, "panicked"),
    }
}

/// Spawns such a task, which `stop` ends.
pub fn spawn_or_abort(
    tracker: &TaskTracker,
    task: &'static str,
    stop: &CancellationToken,
    work: impl Future<Output = ()> + Send + 'static,
) {
    let work = stop.clone().run_until_cancelled_owned(work).map(drop);
    tracker.spawn(abort_if_lost(task, stop.clone(), work));
}

/// Like [`abort_if_lost`], for a task that may return.
pub async fn abort_if_panics(task: &'static str, work: impl Future<Output = ()>) {
    if AssertUnwindSafe(work).catch_unwind().await.is_err() {
        abort(task, "panicked");
    }
}

/// Another thread may write the log, and an abort doesn't wait for it: the reason goes to stderr too.
#[expect(clippy::print_stderr, reason = "the last words of the process")]
fn abort(task: &str, how: &str) -> ! {
    tracing::error!(task, "a task that the server needs {how}: the process ends");
    eprintln!("tandem: the task \"{task}\" {how}; the process ends");
    std::process::abort()
}

/// Runs a task whose state lies elsewhere. After a panic it is started again, with a growing pause.
pub async fn restarted<W: Future<Output = ()>>(
    task: &'static str,
    stop: CancellationToken,
    mut start: impl FnMut() -> W,
) {
    let mut pause = FIRST_PAUSE;
    while AssertUnwindSafe(start()).catch_unwind().await.is_err() {
        tracing::error!(task, ?pause, "a task panicked: it starts again after a pause");
        if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return;
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Runs `work` and catches its panic.
///
/// # Errors
/// The panic's payload.
pub(crate) fn contain<T>(work: impl FnOnce() -> T) -> Result<T, Box<dyn Any + Send>> {
    std::panic::catch_unwind(AssertUnwindSafe(work))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_starts_again_until_it_returns_or_the_server_stops() {
        let (stop, runs) = (CancellationToken::new(), AtomicU32::new(0));
        let work = |panics: u32| {
            let runs = &runs;
            move || async move {
                let run = runs.fetch_add(1, Ordering::Relaxed);
                assert!(run >= panics, "injected");
            }
        };
        restarted("drainer", stop.clone(), work(3)).await;
        assert_eq!(runs.load(Ordering::Relaxed), 4);
        stop.cancel();
        restarted("drainer", stop, work(u32::MAX)).await;
        assert_eq!(runs.load(Ordering::Relaxed), 5, "no further run after the stop");
    }

    #[tokio::test]
    async fn a_vital_task_that_ends_with_the_server_is_no_fault() {
        let stop = CancellationToken::new();
        stop.cancel();
        abort_if_lost("timers", stop, async {}).await;
    }
}
